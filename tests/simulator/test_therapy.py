"""What the pump was told to do, from prescriptions of every shape to rates over time."""

from __future__ import annotations

import tomllib

import pytest

from simulator.pump import Pump
from simulator.tables import BadFile, duration_ms
from simulator.therapy import Program, program_from_steps, read_order
from tests.simulator.scenarios import MIN, H, constant, scenario

HEAD = 'format = "infusion-prescription/1"\n[patient]\nid = "P-1"\n[drug]\nname = "x"\n'
START = "start = 2026-03-02T10:00:00+01:00\n"


def order_of(schedule: str, rest: str = "") -> Program:
    return read_order(tomllib.loads(f"{HEAD}[schedule]\n{START}{schedule}\n{rest}")).program


def rates(program: Program, *at_ms: int) -> list[tuple[str, float]]:
    pump = Pump(scenario(program))
    return [(truth.state, round(truth.rate_ml_h, 6)) for truth in map(pump.truth_at, at_ms)]


@pytest.mark.parametrize(
    "phase",
    [
        'duration = "2h"\nvolume_ml = 20.0',
        'duration = "2h"\nrate_ml_h = 10.0',
        "rate_ml_h = 10.0\nvolume_ml = 20.0",
    ],
)
def test_a_phase_is_any_two_of_duration_rate_and_volume(phase: str) -> None:
    program = order_of(f"[[schedule.phase]]\n{phase}")
    assert program.legs == constant(10.0, 2 * H).legs
    assert rates(program, 0, 2 * H - 1, 2 * H) == [("running", 10.0), ("running", 10.0), ("complete", 0.0)]


def test_a_taper_goes_up_in_a_straight_line_stays_and_goes_down() -> None:
    program = order_of(
        '[[schedule.phase]]\nduration = "1h"\nfrom_ml_h = 0.0\nto_ml_h = 150.0\n'
        '[[schedule.phase]]\nduration = "10h"\nrate_ml_h = 150.0\n'
        '[[schedule.phase]]\nduration = "1h"\nfrom_ml_h = 150.0\nto_ml_h = 0.0'
    )
    assert program.vtbi_ml == pytest.approx(1650.0)
    assert rates(program, 0, H // 2, H, 5 * H, 11 * H + H // 2, 12 * H) == [
        ("running", 0.0),
        ("running", 75.0),
        ("running", 150.0),
        ("running", 150.0),
        ("running", 75.0),
        ("complete", 0.0),
    ]
    assert Pump(scenario(program)).truth_at(13 * H).commanded_ml == pytest.approx(1650.0)


def test_doses_come_again_with_what_runs_between_them_and_kvo_after_the_last() -> None:
    program = order_of(
        'every = "8h"\ntimes = 2\nbetween_ml_h = 0.3\n'
        '[[schedule.phase]]\nduration = "30min"\nvolume_ml = 50.0',
        '[limits]\nkvo_ml_h = 0.5\nkvo_max = "30min"',
    )
    assert rates(program, 0, 30 * MIN, 8 * H, 8 * H + 30 * MIN, 8 * H + 45 * MIN) == [
        ("running", 100.0),
        ("kvo", 0.3),
        ("running", 100.0),
        ("kvo", 0.5),
        ("complete", 0.0),  # somebody came half-way through the time that it may run
    ]
    assert Pump(scenario(program)).truth_at(H).counter_ml == pytest.approx(50.15, abs=0.001)


def test_times_nought_goes_on_for_ever() -> None:
    program = order_of('every = "24h"\ntimes = 0\n[[schedule.phase]]\nduration = "1h"\nvolume_ml = 5.0')
    assert program.due_ms(1000) == 1000 * 24 * H


def test_demand_boluses_are_set_in_the_pump_as_ordered() -> None:
    program = order_of(
        '[[schedule.phase]]\nduration = "48h"\nrate_ml_h = 0.5',
        '[demand]\nbolus_ml = 0.5\nbolus_over = "1min"\n'
        'lockout = "8min"\nlockout_from = "end"\nlimit_ml = 2.0',
    )
    assert program.demand is not None
    assert (program.demand.lockout_ms, program.demand.lockout_from_end) == (8 * MIN, True)
    assert (program.demand.limit_ml, program.demand.limit_window_ms) == (2.0, H)
    assert program.highest_ml_h == pytest.approx(30.5)


def test_what_was_programmed_may_be_something_else_and_ends_when_the_volume_is_in() -> None:
    """12.5 instead of 125 mL/h from the start, put right after half an hour: 6.25 mL of 125 are in."""
    program = program_from_steps(((0, 12.5), (30 * MIN, 125.0)), constant(125.0, H))
    assert rates(program, 0, 30 * MIN, 87 * MIN - 1, 87 * MIN + 1) == [
        ("running", 12.5),
        ("running", 125.0),
        ("running", 125.0),
        ("complete", 0.0),
    ]


def test_a_program_that_begins_later_leaves_the_pump_idle_till_then() -> None:
    program = program_from_steps(((5 * MIN, 125.0),), constant(125.0, H))
    assert rates(program, 0, 5 * MIN) == [("idle", 0.0), ("running", 125.0)]


@pytest.mark.parametrize(
    ("schedule", "key", "words"),
    [
        ("", "schedule.phase", "at least one"),
        ("[[schedule.phase]]\nrate_ml_h = 5.0\n", "schedule.phase[0].duration", "cannot be told"),
        (
            '[[schedule.phase]]\nduration = "2x"\nrate_ml_h = 1.0',
            "schedule.phase[0].duration",
            "is not a duration",
        ),
        ('[[schedule.phase]]\nduration = "2h"\nrate_mlh = 1.0', "schedule.phase[0].rate_mlh", "rate_ml_h?"),
        ('every = "1h"\n[[schedule.phase]]\nduration = "2h"\nrate_ml_h = 1.0', "schedule.times", "missing"),
        ('at = ["06:00"]\n[[schedule.phase]]\nduration = "2h"\nrate_ml_h = 1.0', "schedule.at", "every"),
    ],
)
def test_what_a_pump_cannot_be_set_to_is_refused_with_its_key(schedule: str, key: str, words: str) -> None:
    with pytest.raises(BadFile) as refused:
        order_of(schedule)
    assert any(problem.key == key and words in problem.message for problem in refused.value.problems), str(
        refused.value
    )


@pytest.mark.parametrize(
    ("text", "length_ms"),
    [("90s", 90_000), ("1h30min", 5_400_000), ("2d", 172_800_000), ("1.5s", 1_500), ("0s", 0)],
)
def test_durations_are_read_as_the_prescription_page_writes_them(text: str, length_ms: int) -> None:
    assert duration_ms(text) == length_ms


@pytest.mark.parametrize("text", ["", "5", "5 min", "min", "30s1h", "-5s", "1e3s", "5m"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        duration_ms(text)
