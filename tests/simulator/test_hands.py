"""What people do to a pump: bags, counters, buttons, flushes. As timetables, and what the gauge shows."""

from __future__ import annotations

import statistics

import pytest
from msgspec import structs

from simulator.faults import Fault
from simulator.line import POSTURE_MS, Gauge
from simulator.pump import Pump, Truth
from simulator.therapy import DemandSetting, Program
from tests.simulator.scenarios import MIN, H, S, constant, fault, legs, scenario

RATE_ML_H = 120.0
"""2 mL a minute."""


def pump_with(*faults: Fault, program: Program | None = None, **machine: object) -> Pump:
    return Pump(scenario(program or constant(RATE_ML_H, H), *faults, machine=machine))


def told(pump: Pump, *at_ms: int) -> list[tuple[str, float, float]]:
    """State, set rate and counter at each of these times."""
    truths = [pump.truth_at(one) for one in at_ms]
    return [(truth.state, round(truth.rate_ml_h, 3), round(truth.counter_ml, 1)) for truth in truths]


def test_a_new_bag_is_full_and_the_counter_begins_at_0() -> None:
    pump = pump_with(fault("bag_change", 10 * MIN, 5 * MIN), bag_ml=100.0)
    assert told(pump, 10 * MIN - 1, 12 * MIN, 15 * MIN, 20 * MIN) == [
        ("running", 120.0, 20.0),
        ("paused", 0.0, 20.0),
        ("running", 120.0, 0.0),
        ("running", 120.0, 10.0),
    ]
    assert pump.truth_at(15 * MIN).bag_ml == pytest.approx(100.0)


def doses(**changes: object) -> Program:
    program = Program(legs=constant(RATE_ML_H, 10 * MIN).legs, vtbi_ml=20.0, every_ms=30 * MIN, times=3)
    return structs.replace(program, **changes)


def test_before_a_dose_that_the_bag_does_not_hold_the_next_is_hung_and_the_counter_begins_at_0() -> None:
    pump = pump_with(program=doses(), bag_ml=45.0, bag_change_ms=2 * MIN)
    assert told(pump, 35 * MIN, 58 * MIN, 60 * MIN, 65 * MIN) == [
        ("running", 120.0, 30.0),
        ("complete", 0.0, 40.0),
        ("running", 120.0, 0.0),
        ("running", 120.0, 10.0),
    ]


def test_the_change_of_a_bag_interrupts_keep_vein_open() -> None:
    program = doses(between_ml_h=1.0)
    pump = pump_with(program=program, bag_ml=21.0, bag_change_ms=2 * MIN)
    assert [pump.truth_at(at_ms).state for at_ms in (20 * MIN, 28 * MIN, 30 * MIN)] == [
        "kvo",
        "complete",
        "running",
    ]


def test_a_bag_that_keep_vein_open_has_emptied_is_changed_before_the_next_dose_all_the_same() -> None:
    pump = pump_with(program=doses(between_ml_h=60.0), bag_ml=21.0, bag_change_ms=2 * MIN)
    assert [pump.truth_at(at_ms).alarms for at_ms in (10 * MIN, 25 * MIN)] == [(), ("empty",)]
    truth = pump.truth_at(31 * MIN)
    assert (truth.state, truth.alarms) == ("running", ())


def test_where_doses_follow_without_a_gap_the_change_of_the_bag_moves_the_next() -> None:
    pump = pump_with(program=doses(every_ms=10 * MIN), bag_ml=21.0, bag_change_ms=2 * MIN)
    assert told(pump, 11 * MIN, 12 * MIN, 22 * MIN - 1, 23 * MIN, 24 * MIN) == [
        ("complete", 0.0, 20.0),
        ("running", 120.0, 0.0),
        ("running", 120.0, 20.0),
        ("complete", 0.0, 20.0),
        ("running", 120.0, 0.0),
    ]


def test_nobody_changes_a_bag_of_which_nobody_said_so() -> None:
    truth = pump_with(program=doses(), bag_ml=30.0).truth_at(H)
    assert (truth.state, truth.alarms) == ("alarm", ("empty",))


def test_a_counter_that_is_reset_begins_at_0_and_the_pump_runs_on() -> None:
    pump = pump_with(fault("counter_reset", 5 * MIN))
    assert told(pump, 5 * MIN - 1, 5 * MIN, 6 * MIN, 30 * MIN) == [
        ("running", 120.0, 10.0),
        ("running", 120.0, 0.0),
        ("running", 120.0, 2.0),
        ("running", 120.0, 50.0),
    ]


def test_a_frozen_counter_stands_and_knows_afterwards_what_was_given() -> None:
    pump = pump_with(fault("counter_frozen", 5 * MIN, 5 * MIN))
    assert told(pump, 5 * MIN, 9 * MIN, 10 * MIN) == [
        ("running", 120.0, 10.0),
        ("running", 120.0, 10.0),
        ("running", 120.0, 20.0),
    ]


def test_more_than_was_commanded_is_delivered() -> None:
    truth = Pump(scenario(constant(RATE_ML_H, H), fault("over_delivery", 0), follows="flow")).truth_at(
        10 * MIN
    )
    assert truth.counter_ml == pytest.approx(25.0, rel=0.01)
    assert truth.commanded_ml == pytest.approx(20.0)


def test_a_flush_is_a_bolus_on_top_and_the_infusion_is_as_long_as_before() -> None:
    pump = pump_with(fault("flush", 5 * MIN, 30 * S, strength=600.0))
    assert told(pump, 5 * MIN, 6 * MIN, H - 1, H) == [
        ("bolus", 720.0, 10.0),
        ("running", 120.0, 17.0),
        ("running", 120.0, 125.0),
        ("complete", 0.0, 125.0),
    ]


def test_what_is_primed_is_counted_and_does_not_arrive() -> None:
    pump = pump_with(fault("primed", 5 * MIN, 2 * MIN, strength=300.0), bag_ml=200.0)
    assert told(pump, 6 * MIN, 7 * MIN) == [("priming", 300.0, 15.0), ("running", 120.0, 20.0)]
    truth = pump.truth_at(7 * MIN)
    assert truth.patient_ml == pytest.approx(10.0, rel=0.01)
    assert truth.bag_ml == pytest.approx(180.0, rel=0.01)


def test_a_pump_that_is_run_by_hand_delivers_when_nothing_is_due() -> None:
    pump = pump_with(fault("run_by_hand", 15 * MIN, 5 * MIN, strength=60.0), program=doses())
    assert told(pump, 15 * MIN, 20 * MIN) == [("running", 60.0, 20.0), ("complete", 0.0, 25.0)]


@pytest.mark.parametrize(("left_ms", "off_ms"), [(None, 75 * MIN), (12 * H, 12 * H)])
def test_keep_vein_open_runs_until_somebody_switches_it_off(left_ms: int | None, off_ms: int) -> None:
    program = structs.replace(constant(RATE_ML_H, H), kvo_ml_h=5.0, kvo_max_ms=30 * MIN)
    faults = [fault("kvo_left", 0, left_ms)] if left_ms else []
    pump = pump_with(*faults, program=program)
    assert [pump.truth_at(at_ms).state for at_ms in (off_ms - 1, off_ms)] == ["kvo", "complete"]


def demanding() -> Program:
    demand = DemandSetting(
        bolus_ml=0.5,
        bolus_over_ms=30 * S,
        lockout_ms=10 * MIN,
        lockout_from_end=False,
        limit_ml=2.0,
        limit_window_ms=H,
    )
    return structs.replace(constant(6.0, 4 * H), demand=demand)


def test_who_presses_six_times_an_hour_is_given_a_bolus_at_each_lockout_up_to_the_limit() -> None:
    pump = pump_with(fault("presses", 5 * MIN, strength=6.0), program=demanding())
    at_ms = [5 * MIN + number * 10 * MIN + S for number in range(7)]
    told_ = [(pump.truth_at(one).state, pump.truth_at(one).alarms) for one in at_ms]
    assert told_ == [("bolus", ("demand",))] * 4 + [("running", ("demand_denied",))] * 2 + [
        ("bolus", ("demand",))
    ]
    assert pump.truth_at(5 * MIN + 5 * S).alarms == ()


def test_who_presses_through_the_lockout_is_refused() -> None:
    pump = pump_with(fault("presses", 0, 9 * MIN, strength=60.0), program=demanding())
    notices = [pump.truth_at(number * MIN + S).alarms for number in range(9)]
    assert notices == [("demand",)] + [("demand_denied",)] * 8
    assert pump.truth_at(10 * MIN).counter_ml == pytest.approx(1.0 + 0.5, abs=0.02)


@pytest.mark.parametrize(
    ("kind", "share", "bolus_ml", "lockout_s"),
    [("lockout_changed", 0.5, 0.5, 300.0), ("bolus_changed", 3.0, 1.5, 600.0)],
)
def test_a_pump_that_is_set_to_other_boluses_says_so(
    kind: str, share: float, bolus_ml: float, lockout_s: float
) -> None:
    pump = pump_with(fault(kind, 5 * MIN, strength=share), program=demanding())
    truths = [pump.truth_at(at_ms) for at_ms in (4 * MIN, 6 * MIN)]
    assert [(truth.bolus_ml, truth.lockout_s) for truth in truths] == [(0.5, 600.0), (bolus_ml, lockout_s)]


def test_within_a_shortened_lockout_a_second_bolus_is_given() -> None:
    pump = pump_with(
        fault("lockout_changed", 0, strength=0.5),
        fault("presses", 0, strength=12.0),
        program=demanding(),
    )
    assert [pump.truth_at(number * 5 * MIN + S).state for number in range(3)] == ["bolus"] * 3


def test_a_pump_without_demand_says_nothing_of_boluses() -> None:
    truth = pump_with(fault("presses", 0)).truth_at(MIN)
    assert (truth.bolus_ml, truth.lockout_s, truth.state) == (None, None, "running")


def test_who_lies_on_the_line_raises_the_pressure_and_holds_nothing_back() -> None:
    pump = pump_with(fault("pressed_line", 5 * MIN, MIN, strength=40.0))
    assert [pump.truth_at(at_ms).pressure_mmhg for at_ms in (4 * MIN, 5 * MIN, 6 * MIN)] == [18.0, 58.0, 18.0]
    assert pump.truth_at(10 * MIN).patient_ml == pytest.approx(20.0, rel=0.01)


class TestTheGauge:
    NOISY = Gauge(resting_mmhg=40.0, noise_mmhg=1.5, posture_mmhg=15.0)

    def pressures(self, gauge: Gauge, at_ms: range, seed: int = 1) -> list[float]:
        pump = Pump(
            scenario(
                legs((4 * POSTURE_MS, 10.0, 10.0)),
                seed=seed,
                machine={"gauge": gauge},
            )
        )
        truths: list[Truth] = [pump.truth_at(one) for one in at_ms]
        return [truth.pressure_mmhg for truth in truths]

    def test_its_noise_is_white_on_a_slow_wave_of_the_same_size(self) -> None:
        shown = self.pressures(structs.replace(self.NOISY, posture_mmhg=0.0), range(0, 2 * H, 5 * S))
        assert statistics.mean(shown) == pytest.approx(40.0, abs=0.3)
        assert statistics.stdev(shown) == pytest.approx(1.5 * 2**0.5, rel=0.1)

    def test_from_posture_to_posture_it_steps_within_the_range(self) -> None:
        gauge = structs.replace(self.NOISY, noise_mmhg=0.0)
        shown = self.pressures(gauge, range(0, 4 * POSTURE_MS, POSTURE_MS // 2))
        assert shown[::2] == shown[1::2]
        assert len(set(shown)) == 4
        assert all(25.0 <= one <= 55.0 for one in shown)

    def test_the_same_seed_shows_the_same_and_another_something_else(self) -> None:
        at_ms = range(0, H, MIN)
        assert self.pressures(self.NOISY, at_ms) == self.pressures(self.NOISY, at_ms)
        assert self.pressures(self.NOISY, at_ms) != self.pressures(self.NOISY, at_ms, seed=2)

    def test_flow_against_a_resistance_costs_pressure(self) -> None:
        gauge = Gauge(resting_mmhg=10.0, resistance_mmhg_h_ml=0.5)
        assert self.pressures(gauge, range(0, H, H)) == [15.0]
