"""Laws of the truth: what must hold for every pump, program, mishap and way of asking."""

from __future__ import annotations

import itertools
import statistics

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from simulator.faults import FAULT_KINDS, Fault
from simulator.line import Gauge
from simulator.pump import Pump, Truth
from simulator.scenario import Scenario
from simulator.therapy import DemandSetting, PumpSetting
from tests.simulator.scenarios import DAY, MIN, H, S, constant, fault, legs, scenario

ROUNDING_ML = 1e-9
VOLUMES = ("commanded_ml", "mechanism_ml", "patient_ml")

rates = st.floats(0.1, 300.0)
durations = st.integers(1 * S, 3 * H)


@st.composite
def any_fault(draw: st.DrawFn) -> Fault:
    kind = draw(st.sampled_from(sorted(FAULT_KINDS)))
    row = FAULT_KINDS[kind]
    strength = draw(st.floats(row.least, min(row.most, 60.0)))
    return fault(kind, draw(st.integers(0, 2 * H)), draw(st.none() | st.integers(1, H)), strength)


@st.composite
def any_scenario(draw: st.DrawFn) -> Scenario:
    rows = draw(st.lists(st.tuples(durations, rates, st.none() | rates), min_size=1, max_size=4))
    program = legs(*((ms, begin, begin if end is None else end) for ms, begin, end in rows))
    return scenario(
        program,
        *draw(st.lists(any_fault(), max_size=4)),
        setting=PumpSetting(
            counter_ml=draw(st.sampled_from((0.001, 0.01, 0.1, 1.0))),
            stroke_ml=draw(st.sampled_from((0.005, 0.05, 0.1))),
            ripple_ml=draw(st.sampled_from((0.0, 0.005, 0.05, 0.5))),
        ),
        follows=draw(st.sampled_from(("motor", "flow"))),
        seed=draw(st.integers(0, 1000)),
        machine={
            "calibration_percent": draw(st.floats(-6.0, 6.0)),
            "bag_ml": draw(st.none() | st.floats(0.1, 500.0)),
        },
    )


times = st.lists(st.integers(0, 4 * H), min_size=2, max_size=12)


def kinds_in(story: Scenario) -> set[str]:
    return {one.kind for one in story.mishaps.faults}


@given(any_scenario(), times)
@settings(deadline=None)
def test_volumes_never_fall(story: Scenario, asked: list[int]) -> None:
    pump = Pump(story)
    truths = [pump.truth_at(at_ms) for at_ms in sorted(asked)]
    resets = {"counter_reset", "bag_change"} & kinds_in(story)
    for name in VOLUMES if resets else (*VOLUMES, "counter_ml"):
        values = [getattr(truth, name) for truth in truths]
        for before, after in itertools.pairwise(values):
            assert after >= before - ROUNDING_ML, name


@given(any_scenario(), times)
@settings(deadline=None)
def test_the_truth_does_not_depend_on_when_or_in_which_order_it_was_asked(
    story: Scenario, asked: list[int]
) -> None:
    busy = Pump(story)
    answers = {at_ms: busy.truth_at(at_ms) for at_ms in asked}
    for at_ms in asked:
        assert Pump(story).truth_at(at_ms) == answers[at_ms] == busy.truth_at(at_ms)


@given(any_scenario(), times)
@settings(deadline=None)
def test_many_moments_at_once_say_the_same_as_one_by_one(story: Scenario, asked: list[int]) -> None:
    gauge = Gauge(resting_mmhg=20.0, noise_mmhg=1.5, posture_mmhg=15.0, resistance_mmhg_h_ml=0.1)
    pump = Pump(structs.replace(story, machine=structs.replace(story.machine, gauge=gauge)))
    asked = sorted(asked)
    told = pump.columns_at(np.array(asked))
    for number, at_ms in enumerate(asked):
        truth = pump.truth_at(at_ms)
        assert (told.state[number], told.alarms[number]) == (truth.state, truth.alarms)
        assert (told.bolus_ml[number], told.lockout_s[number]) == (truth.bolus_ml, truth.lockout_s)
        for name in ("rate_ml_h", "counter_ml", "vtbi_ml", "pressure_mmhg", "battery_percent"):
            assert getattr(told, name)[number] == pytest.approx(getattr(truth, name), abs=1e-6), name


@given(any_scenario(), st.integers(0, 4 * H))
@settings(deadline=None)
def test_what_left_the_bag_went_through_the_mechanism_unless_it_leaked_or_ran_free(
    story: Scenario, at_ms: int
) -> None:
    if story.machine.bag_ml is None or {"bag_empty", "bag_change", "free_flow"} & kinds_in(story):
        return
    truth = Pump(story).truth_at(at_ms)
    assert truth.bag_ml is not None
    assert truth.bag_ml >= 0
    assert truth.bag_ml + truth.mechanism_ml == pytest.approx(story.machine.bag_ml, abs=1e-6)


@given(any_scenario(), st.integers(0, 4 * H))
@settings(deadline=None)
def test_what_the_mechanism_gave_has_arrived_or_presses_in_the_line(story: Scenario, at_ms: int) -> None:
    if {"free_flow", "primed", "pressed_line"} & kinds_in(story):
        return
    truth, machine = Pump(story).truth_at(at_ms), story.machine
    stored_ml = (truth.pressure_mmhg - machine.gauge.resting_mmhg) * machine.compliance_ml_mmhg
    assert truth.patient_ml + stored_ml == pytest.approx(truth.mechanism_ml, abs=1e-6)


@given(any_scenario(), st.integers(0, 4 * H))
@settings(deadline=None)
def test_the_counter_is_whole_counts_and_at_most_one_behind(story: Scenario, at_ms: int) -> None:
    truth = Pump(story).truth_at(at_ms)
    step_ml = story.machine.setting.counter_ml
    assert truth.counter_ml / step_ml == pytest.approx(round(truth.counter_ml / step_ml), abs=1e-3)
    elsewhere = {"free_flow", "counter_reset", "counter_frozen", "bag_change"}
    if story.counter_follows == "flow" and not elsewhere & kinds_in(story):
        assert -1e-5 <= truth.mechanism_ml - truth.counter_ml < step_ml + 1e-5


@pytest.mark.parametrize("calibration_percent", [-5.0, -1.5, 0.0, 3.0])
def test_over_a_long_volume_the_calibration_error_is_what_remains(calibration_percent: float) -> None:
    pump = Pump(
        scenario(
            constant(125.0, 3 * DAY),
            setting=PumpSetting(stroke_ml=0.05, ripple_ml=0.05),
            machine={"calibration_percent": calibration_percent},
        )
    )
    truth = pump.truth_at(3 * DAY)
    assert truth.commanded_ml == pytest.approx(9000.0)
    assert 100 * (truth.mechanism_ml / truth.commanded_ml - 1) == pytest.approx(calibration_percent, abs=0.05)


def test_the_volume_walks_with_the_variance_of_the_prescription_page() -> None:
    """Variance 0.0025 x stroke x volume: for 2 mL in strokes of 0.05 mL a deviation of 0.0158 mL."""
    pumps = (Pump(scenario(seed=seed, setting=PumpSetting(stroke_ml=0.05))) for seed in range(400))
    errors_ml = [pump.truth_at(57_600).mechanism_ml - 2.0 for pump in pumps]
    assert statistics.stdev(errors_ml) == pytest.approx((0.0025 * 0.05 * 2.0) ** 0.5, rel=0.12)
    assert abs(statistics.mean(errors_ml)) < 0.0025


def test_the_ripple_swings_by_what_was_set_and_comes_back_every_two_minutes() -> None:
    smooth = Pump(scenario(setting=PumpSetting(stroke_ml=1e3)))
    rippled = Pump(scenario(setting=PumpSetting(stroke_ml=1e3, ripple_ml=0.05)))
    ahead_ml = [
        rippled.truth_at(at_ms).mechanism_ml - smooth.truth_at(at_ms).mechanism_ml
        for at_ms in range(0, 10 * MIN, S)
    ]
    assert max(ahead_ml) - min(ahead_ml) == pytest.approx(0.05, rel=0.01)
    assert ahead_ml[120] == pytest.approx(ahead_ml[0], abs=1e-9)


def test_one_seed_is_one_pump_and_another_seed_another() -> None:
    def volumes(seed: int) -> list[float]:
        pump = Pump(scenario(seed=seed, setting=PumpSetting(ripple_ml=0.02)))
        return [pump.truth_at(at_ms).mechanism_ml for at_ms in range(0, H, MIN)]

    assert volumes(7) == volumes(7)
    assert volumes(7) != volumes(8)


@pytest.mark.parametrize("rate_ml_h", [1.0, 10.0, 125.0])
@pytest.mark.parametrize("compliance_ml_mmhg", [0.0005, 0.0025])
def test_behind_a_closed_line_pressure_rises_by_rate_over_compliance(
    rate_ml_h: float, compliance_ml_mmhg: float
) -> None:
    kink = fault("occlusion_downstream", 60 * MIN)
    pump = Pump(
        scenario(
            constant(rate_ml_h, 10 * H),
            kink,
            setting=PumpSetting(stroke_ml=1e3),
            machine={"compliance_ml_mmhg": compliance_ml_mmhg},
        )
    )
    stored_ml = (500 - 18) * compliance_ml_mmhg
    halfway_ms = round(stored_ml / 2 / rate_ml_h * H)
    before, after = (pump.truth_at(kink.at_ms + shift_ms) for shift_ms in (0, halfway_ms))
    slope_mmhg_h = (after.pressure_mmhg - before.pressure_mmhg) / halfway_ms * H
    # A stroke's own error stays in the flow: 5 % of one (here endless) stroke.
    flow_ml_h = (after.mechanism_ml - before.mechanism_ml) / halfway_ms * H
    assert slope_mmhg_h == pytest.approx(flow_ml_h / compliance_ml_mmhg, rel=1e-6)
    assert flow_ml_h == pytest.approx(rate_ml_h, rel=0.2)
    assert after.patient_ml == before.patient_ml


def test_asking_every_second_of_three_days_is_asking_only() -> None:
    """Days must pass in seconds: the chain of spans grows with what happens, not with what is asked."""
    pump = Pump(scenario(constant(125.0, 3 * DAY), setting=PumpSetting(counter_ml=0.1, ripple_ml=0.05)))
    counters = [pump.truth_at(at_ms).counter_ml for at_ms in range(0, 3 * DAY, 5 * S)]
    assert counters[-1] == pytest.approx(9000.0, abs=0.3)
    assert len(pump._spans) < 10


@given(any_scenario(), st.integers(1, 3 * H), st.integers(0, H), st.sampled_from(sorted(FAULT_KINDS)))
@settings(deadline=None)
def test_a_hand_on_the_pump_changes_nothing_that_was(
    story: Scenario, now_ms: int, before_ms: int, kind: str
) -> None:
    earlier_ms = max(0, now_ms - before_ms - 1)
    pump = Pump(story)
    seen = pump.truth_at(earlier_ms)
    pump.befall(pump.mishaps.begin(kind, now_ms), now_ms)
    pump.set_rate(33.0, now_ms)
    pump.clear(now_ms + 1)
    again = pump.truth_at(earlier_ms)
    assert again == seen
    later = pump.truth_at(now_ms + MIN)
    assert all(getattr(later, name) >= getattr(seen, name) - ROUNDING_ML for name in VOLUMES)


def test_a_bolus_comes_on_top_and_is_not_taken_from_the_infusion() -> None:
    demand = DemandSetting(
        bolus_ml=0.5,
        bolus_over_ms=MIN,
        lockout_ms=8 * MIN,
        lockout_from_end=False,
        limit_ml=1.0,
        limit_window_ms=H,
    )
    pump = Pump(scenario(structs.replace(constant(6.0, 2 * H), demand=demand)))
    timetable = [
        (10 * MIN, "given"),
        (10 * MIN + 30 * S, "denied"),  # while one is given
        (17 * MIN, "denied"),  # within the lockout
        (18 * MIN, "given"),
        (30 * MIN, "denied"),  # 1 mL an hour
        (71 * MIN, "given"),
    ]
    assert [(at_ms, pump.press_demand(at_ms)) for at_ms, _ in timetable] == timetable
    states = [pump.truth_at(at_ms).state for at_ms in (9 * MIN, 10 * MIN, 11 * MIN - 1, 11 * MIN)]
    assert states == ["running", "bolus", "bolus", "running"]
    assert pump.truth_at(10 * MIN).rate_ml_h == pytest.approx(36.0)
    assert pump.truth_at(3 * H).commanded_ml == pytest.approx(12.0 + 1.5)


def test_without_a_setting_for_boluses_nobody_gets_one() -> None:
    assert Pump(scenario()).press_demand(MIN) == "not set up"


def test_before_its_beginning_there_is_no_truth() -> None:
    with pytest.raises(ValueError, match="begins at 0"):
        Pump(scenario()).truth_at(-1)


def test_a_truth_says_all_that_the_tools_page_lists() -> None:
    listed = {
        "commanded_ml",
        "mechanism_ml",
        "patient_ml",
        "counter_ml",
        "pressure_mmhg",
        "bag_ml",
        "state",
        "faults",
    }
    assert listed <= set(Truth.__struct_fields__)
