"""The regimens as files: gateway and simulator read the same therapy, and its numbers are consistent."""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest

from alerts.condition import Urgency
from gateway.core.order import DEFAULT_TIMES, parse_order
from gateway.core.prescription import Prescription
from gateway.core.schedule import Course
from simulator.pump import Pump
from simulator.scenario import REGIMEN_DIR, Scenario, load_scenario, regimen_names

HEAD = "# ENGINEERING TEST REGIMEN. NOT MEDICAL ADVICE."
HOUR_MS = 3_600_000
EVERY = regimen_names()


@cache
def scenario(name: str) -> Scenario:
    return load_scenario(name)


@cache
def ordered(name: str) -> Prescription:
    return parse_order(scenario(name).prescription_text)


def test_there_are_48_therapies_and_no_file_belongs_to_none() -> None:
    assert len(EVERY) == 48
    files = {path.name for path in REGIMEN_DIR.iterdir()}
    assert files == {f"{name}.toml" for name in EVERY} | {f"prescription-{name}.toml" for name in EVERY}


@pytest.mark.parametrize("path", sorted(REGIMEN_DIR.glob("*.toml")), ids=lambda path: path.stem)
def test_each_file_says_first_of_all_that_it_is_no_advice(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines[0] == HEAD
    if path.stem.startswith("prescription-"):
        assert any(line.startswith("# Numbers: ") for line in lines), "where do they come from?"


@pytest.mark.parametrize("name", EVERY)
def test_gateway_and_simulator_read_the_same_therapy(name: str) -> None:
    order, story = ordered(name), scenario(name)
    program, setting = story.program, story.machine.setting
    assert program.vtbi_ml == pytest.approx(order.volume_ml)
    assert program.length_ms == order.length_ms
    assert program.every_ms == order.schedule.every_ms
    assert program.times == order.schedule.times
    assert (setting.counter_ml, setting.stroke_ml, setting.ripple_ml) == (
        order.pump.counter_ml,
        order.pump.stroke_ml,
        order.pump.ripple_ml,
    )
    assert abs(story.machine.calibration_percent) / 100 <= order.pump.accuracy
    pent_up_ml = story.machine.compliance_ml_mmhg * (
        story.machine.occlusion_alarm_mmhg - story.machine.gauge.resting_mmhg
    )
    assert pent_up_ml <= order.pump.occlusion_ml
    assert order.patient_id == f"P-{name}"


# what each therapy gives in one occurrence: mL, min, mL in the bag
GIVES = {
    "ab1": (50, 30, 50),
    "ab2": (100, 30, 310),
    "ab3": (250, 120, 250),
    "ab4": (99.99, 180, 100),
    "ab5": (240, 1440, 240),
    "ab6": (240, 1440, 240),
    "hy1": (1000, 480, 1000),
    "hy2": (2000, 600, 2000),
    "pn1": (2000.02, 720, 2100),
    "pn2": (2000.02, 720, 2100),
    "pn3": (2400, 1440, 2500),
    "pc1": (24, 1440, 100),
    "pc2": (4.8, 1440, 50),
    "pc3": (19.92, 1440, 20),
    "ch1": (86.48, 2760, 96),
    "ch2": (115.2, 5760, 130),
    "ch3": (499.92, 1440, 520),
    "im1": (100.8, 10080, 110),
    "im2": (240, 1440, 270),
    "im3": (172.8, 5760, 190),
    "ig1": (400, 142.68, 400),
    "ig2": (50, 60, 50),
    "bi1": (250, 123, 250),
    "bi2": (250, 137, 250),
    "bi3": (250, 30, 250),
    "ms1": (250, 120, 250),
    "ms2": (115, 60, 115),
    "ms3": (260, 161.67, 260),
    "ms4": (520, 216, 520),
    "he1": (10, 5, 10),
    "he2": (67.2, 1440, 70),
    "ho1": (0.05, 1, 3),
    "ho2": (120, 1440, 120),
    "in1": (189.12, 1440, 200),
    "in2": (126, 1440, 130),
    "in3": (99.96, 1071, 100),
    "in4": (2.42, 4320, 3),
    "pe1": (72, 1440, 80),
    "pe2": (5, 30, 5),
    "pe3": (449.95, 1080, 480),
    "pe4": (12, 1440, 20),
    "fe1": (250, 15, 250),
    "fe2": (100, 30, 100),
    "fe3": (10, 600, 10),
    "er1": (100, 162.5, 100),
    "er2": (499.99, 280, 500),
    "er3": (700, 222.86, 700),
    "er4": (100, 240, 100),
}


@pytest.mark.parametrize("name", EVERY)
def test_its_steps_add_up_and_the_bag_holds_them(name: str) -> None:
    order = ordered(name)
    volume_ml, minutes, bag_ml = GIVES[name]
    steps_ml = sum(
        (phase.from_ml_h + phase.to_ml_h) / 2 * phase.duration_ms / HOUR_MS for phase in order.schedule.phases
    )
    assert steps_ml == pytest.approx(volume_ml, abs=0.05)
    assert order.length_ms == pytest.approx(minutes * 60_000, abs=1_000)
    assert order.bag is not None
    assert order.bag.volume_ml == bag_ml
    assert order.volume_ml <= bag_ml + 1e-3, "but for the rounding of a millisecond"


@pytest.mark.parametrize("name", EVERY)
def test_what_is_expected_never_falls_nor_jumps_and_bends_only_on_a_ramp(name: str) -> None:
    order = ordered(name)
    course = Course(order)
    highest_ml_h = max(max(phase.from_ml_h, phase.to_ml_h) for phase in order.schedule.phases)
    begin_ms = 0
    for phase in order.schedule.phases:
        step_ms = phase.duration_ms / 16
        volumes = [course.expected_ml(begin_ms + step * step_ms) for step in range(17)]
        rises = [after - before for before, after in pairwise(volumes)]
        assert all(0 <= rise <= highest_ml_h * step_ms / HOUR_MS + 1e-9 for rise in rises)
        bends = [after - before for before, after in pairwise(rises)]
        assert bends == pytest.approx([bends[0]] * 15, abs=1e-6), "linear, or quadratic on a ramp"
        assert phase.is_ramp or bends[0] == pytest.approx(0.0, abs=1e-6)
        begin_ms += phase.duration_ms


def test_ramped_and_stepped_nutrition_differ_in_shape_alone() -> None:
    ramped, stepped = ordered("pn1"), ordered("pn2")
    assert ramped.volume_ml == pytest.approx(stepped.volume_ml)
    assert ramped.length_ms == stepped.length_ms
    apart_ml = [
        abs(Course(ramped).expected_ml(minute * 60_000) - Course(stepped).expected_ml(minute * 60_000))
        for minute in range(720)
    ]
    assert max(apart_ml) == pytest.approx(181.82 / 8, abs=0.05), "plateau x ramp / 8, at half of the ramp"
    assert apart_ml.index(max(apart_ml)) in (30, 690)


@pytest.mark.parametrize(
    ("name", "tolerance", "max_pause_min", "urgency"),
    [
        ("ab1", 0.10, 60, Urgency.ROUTINE),
        ("hy1", 0.20, 120, Urgency.ROUTINE),
        ("pn1", 0.10, 15, Urgency.TIMED),
        ("pc2", 0.20, 40, Urgency.CRITICAL),
        ("ch1", 0.10, 40, Urgency.CRITICAL),
        ("ho1", 0.20, 60, Urgency.TIMED),
        ("in2", 0.10, 2, Urgency.VITAL),
        ("in4", 0.15, 12, Urgency.VITAL),
        ("pe3", 0.05, 5, Urgency.CRITICAL),
    ],
)
def test_limits_are_those_of_the_class_and_at_most_four_times_the_usual_pause(
    name: str, tolerance: float, max_pause_min: int, urgency: Urgency
) -> None:
    order = ordered(name)
    assert (order.limits.tolerance, order.urgency) == (pytest.approx(tolerance), urgency)
    assert order.limits.max_pause_ms == max_pause_min * 60_000
    assert max_pause_min <= 4 * DEFAULT_TIMES[urgency].max_pause_min


def test_a_flush_is_forbidden_where_it_would_be_a_bolus() -> None:
    never = {name for name in EVERY if ordered(name).never_flush}
    assert never == {name for name in EVERY if name.startswith(("im", "in"))}


@pytest.mark.parametrize("name", ["pc1", "pc2"])
def test_demand_adds_an_interval_above_the_basal_rate(name: str) -> None:
    order = ordered(name)
    assert order.demand is not None
    hourly_ml = order.volume_ml * HOUR_MS / order.length_ms
    most_ml = hourly_ml + (order.demand.limit_ml or 0.0)
    assert most_ml == pytest.approx({"pc1": 3.0, "pc2": 0.6}[name])
    by_lockout = order.demand.limit_window_ms // order.demand.lockout_ms
    assert by_lockout * order.demand.bolus_ml == pytest.approx(order.demand.limit_ml)


def test_pulses_are_doses_of_their_own_and_a_syringe_holds_60_of_them() -> None:
    order = ordered("ho1")
    assert order.bag is not None
    assert [phase.volume_ml for phase in order.schedule.phases] == [pytest.approx(0.05)]
    assert order.schedule.every_ms == 90 * 60_000
    assert order.bag.volume_ml / order.volume_ml == pytest.approx(60)


GAPLESS = [
    name
    for name in EVERY
    if (every_ms := ordered(name).schedule.every_ms) is not None and every_ms <= ordered(name).length_ms
]


@pytest.mark.parametrize("name", GAPLESS)
def test_where_bag_follows_bag_the_change_has_its_time_and_begins_the_counter_anew(name: str) -> None:
    order, story = ordered(name), scenario(name)
    allowed_min = {Urgency.VITAL: 2, Urgency.CRITICAL: 30}.get(order.urgency, 10)
    assert order.limits.start_window_ms == allowed_min * 60_000
    pump = Pump(story)
    end_ms = order.length_ms
    change_ms = story.machine.bag_change_ms
    assert change_ms is not None
    assert change_ms < order.limits.start_window_ms
    if pump.truth_at(end_ms - 1).bag_ml < order.volume_ml:  # type: ignore[operator]
        assert pump.truth_at(end_ms + change_ms // 2).state == "complete"
        truth = pump.truth_at(end_ms + change_ms)
        assert (truth.state, truth.counter_ml) == ("running", 0.0)


@pytest.mark.parametrize("name", EVERY)
def test_nothing_goes_wrong_in_a_regimen_as_it_stands(name: str) -> None:
    story, order = scenario(name), ordered(name)
    assert story.mishaps.faults == ()
    pump = Pump(story)
    last_due_ms = (order.schedule.every_ms or 0) * (order.schedule.times - 1)
    end_ms = last_due_ms + order.length_ms + order.schedule.times * (story.machine.bag_change_ms or 0)
    step_ms = max(60_000, end_ms // 300)
    assert {alarm for at_ms in range(0, end_ms, step_ms) for alarm in pump.truth_at(at_ms).alarms} == set()
    assert pump.truth_at(end_ms).commanded_ml == pytest.approx(
        order.volume_ml * order.schedule.times, rel=0.03
    )
