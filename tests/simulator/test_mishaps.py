"""What each mishap does to the delivery, as timetables: when, what the pump says, what really arrives."""

from __future__ import annotations

import pytest

from simulator.faults import FAULT_KINDS, Fault, Mishaps, fault_kind
from simulator.pump import Pump
from simulator.therapy import Program
from tests.simulator.scenarios import MIN, H, S, constant, fault, scenario

RATE_ML_H = 120.0
"""2 mL a minute."""


def pump_with(
    *faults: Fault, program: Program | None = None, follows: str = "motor", **machine: object
) -> Pump:
    return Pump(scenario(program or constant(RATE_ML_H, H), *faults, follows=follows, machine=machine))


def told(pump: Pump, *at_ms: int) -> list[tuple[str, float, float]]:
    """State, set rate and counter at each of these times."""
    truths = [pump.truth_at(one) for one in at_ms]
    return [(truth.state, truth.rate_ml_h, round(truth.counter_ml, 1)) for truth in truths]


def test_a_stalled_motor_still_says_running_and_its_counter_stands() -> None:
    pump = pump_with(fault("stopped", 5 * MIN, 2 * MIN))
    assert told(pump, 5 * MIN, 7 * MIN, 8 * MIN) == [
        ("running", 120.0, 10.0),
        ("running", 120.0, 10.0),
        ("running", 120.0, 12.0),
    ]
    assert pump.truth_at(8 * MIN).commanded_ml == pytest.approx(16.0)


@pytest.mark.parametrize(("follows", "counted_ml"), [("motor", 20.0), ("flow", 15.0)])
def test_lost_strokes_are_seen_only_by_a_counter_that_measures(follows: str, counted_ml: float) -> None:
    pump = pump_with(fault("under_delivery", 5 * MIN, strength=0.5), follows=follows)
    truth = pump.truth_at(10 * MIN)
    assert truth.counter_ml == pytest.approx(counted_ml, abs=0.1)
    assert truth.patient_ml == pytest.approx(15.0, abs=0.1)


def test_a_wrong_rate_is_what_the_pump_is_set_to_and_says() -> None:
    pump = pump_with(fault("wrong_rate", 5 * MIN, strength=0.1))
    assert told(pump, 5 * MIN - 1, 5 * MIN, 10 * MIN) == [
        ("running", 120.0, 10.0),
        ("running", 12.0, 10.0),
        ("running", 12.0, 11.0),
    ]
    assert pump.truth_at(10 * MIN).commanded_ml == pytest.approx(11.0)


def test_a_pause_stops_the_pump_and_the_rest_moves() -> None:
    pump = pump_with(fault("paused", 5 * MIN, 10 * MIN))
    assert told(pump, 6 * MIN, 16 * MIN, 70 * MIN - 1, 70 * MIN) == [
        ("paused", 0.0, 10.0),
        ("running", 120.0, 12.0),
        ("running", 120.0, 120.0),
        ("complete", 0.0, 120.0),
    ]


def test_behind_a_kink_pressure_rises_to_the_alarm_and_what_was_stored_comes_at_its_end() -> None:
    """(500 - 18) mmHg x 0.0025 mL/mmHg are 1.205 mL: 36 s at 120 mL/h."""
    pump = pump_with(fault("occlusion_downstream", 5 * MIN, 5 * MIN))
    before, rising, alarm, open_again = (
        pump.truth_at(5 * MIN + shift_ms) for shift_ms in (0, 30 * S, 40 * S, 5 * MIN)
    )
    assert (rising.state, alarm.state, open_again.state) == ("running", "alarm", "running")
    assert rising.pressure_mmhg == pytest.approx(18 + 400, rel=0.02)
    assert (alarm.alarms, alarm.rate_ml_h) == (("occlusion_downstream",), 0.0)
    assert alarm.pressure_mmhg == pytest.approx(500, abs=0.1)
    assert alarm.patient_ml == pytest.approx(before.patient_ml)
    assert open_again.patient_ml == pytest.approx(before.patient_ml + 1.205, abs=0.001)
    assert open_again.pressure_mmhg == 18.0
    assert open_again.alarms == ()


def test_a_line_that_is_half_closed_lets_half_through() -> None:
    pump = pump_with(fault("occlusion_downstream", 5 * MIN, strength=0.5))
    before, after = pump.truth_at(5 * MIN), pump.truth_at(5 * MIN + 30 * S)
    assert after.patient_ml - before.patient_ml == pytest.approx(0.5, rel=0.05)
    assert after.pressure_mmhg == pytest.approx(18 + 200, rel=0.05)


def test_above_a_closed_clamp_the_motor_turns_for_nothing_until_the_pump_notices() -> None:
    pump = pump_with(fault("occlusion_upstream", 5 * MIN))
    states = [pump.truth_at(5 * MIN + shift_ms).state for shift_ms in (0, 5 * S, 6 * S, H)]
    assert states == ["running", "running", "alarm", "alarm"]
    truth = pump.truth_at(H)
    assert truth.alarms == ("occlusion_upstream",)
    assert truth.counter_ml == pytest.approx(10.2, abs=0.001)
    assert truth.patient_ml == pytest.approx(10.0, rel=0.01)


def test_a_bag_that_holds_too_little_ends_the_infusion_with_an_alarm() -> None:
    pump = pump_with(bag_ml=10.0)
    truth = pump.truth_at(6 * MIN)
    assert (truth.state, truth.alarms, truth.bag_ml) == ("alarm", ("empty",), 0.0)
    assert truth.patient_ml == pytest.approx(10.0)


def test_an_empty_bag_is_replaced_by_a_full_one_when_the_mishap_is_over() -> None:
    pump = pump_with(fault("bag_empty", 5 * MIN, 5 * MIN), bag_ml=200.0)
    assert told(pump, 5 * MIN - 1, 5 * MIN, 11 * MIN) == [
        ("running", 120.0, 10.0),
        ("alarm", 0.0, 10.0),
        ("running", 120.0, 12.0),
    ]
    assert pump.truth_at(10 * MIN).bag_ml == 200.0


@pytest.mark.parametrize(("follows", "counted_ml"), [("motor", 20.0), ("flow", 70.0)])
def test_free_flow_runs_past_the_mechanism(follows: str, counted_ml: float) -> None:
    pump = pump_with(fault("free_flow", 5 * MIN), follows=follows, bag_ml=1000.0)
    truth = pump.truth_at(10 * MIN)
    assert truth.patient_ml == pytest.approx(20.0 + 50.0, rel=0.01)
    assert truth.mechanism_ml == pytest.approx(20.0, rel=0.01)
    assert truth.counter_ml == pytest.approx(counted_ml, rel=0.01)
    assert truth.bag_ml == pytest.approx(1000 - 70, rel=0.01)


def test_a_battery_is_low_at_a_fifth_and_stops_the_pump_at_nothing() -> None:
    pump = pump_with(fault("battery", 5 * MIN, strength=0.3), battery_life_ms=100 * MIN)
    timetable = {5 * MIN: (), 15 * MIN: ("low_battery",), 35 * MIN: ("battery_empty",)}
    assert {at_ms: pump.truth_at(at_ms).alarms for at_ms in timetable} == timetable
    assert pump.truth_at(15 * MIN).battery_percent == pytest.approx(20.0)
    assert [pump.truth_at(at_ms).state for at_ms in (34 * MIN, 35 * MIN)] == ["running", "alarm"]


@pytest.mark.parametrize("kind", ["air_in_line", "door_open", "cassette", "malfunction"])
def test_an_alarm_stops_the_pump_for_as_long_as_it_lasts(kind: str) -> None:
    pump = pump_with(fault(kind, 5 * MIN, MIN))
    truths = [pump.truth_at(at_ms) for at_ms in (5 * MIN - 1, 5 * MIN, 6 * MIN)]
    assert [(truth.state, truth.alarms) for truth in truths] == [
        ("running", ()),
        ("alarm", (kind,)),
        ("running", ()),
    ]


def test_a_warning_stops_nothing() -> None:
    truth = pump_with(fault("near_empty", 5 * MIN)).truth_at(6 * MIN)
    assert (truth.state, truth.alarms) == ("running", ("near_empty",))


def three_doses() -> Program:
    return Program(legs=constant(120.0, MIN).legs, vtbi_ml=2.0, every_ms=10 * MIN, times=3)


def test_a_missed_dose_is_missed_and_the_next_is_given() -> None:
    pump = pump_with(fault("missed_dose", 9 * MIN, 2 * MIN), program=three_doses())
    assert told(pump, 30 * S, 10 * MIN + 30 * S, 15 * MIN, 20 * MIN + 30 * S, 22 * MIN) == [
        ("running", 120.0, 1.0),
        ("complete", 0.0, 2.0),
        ("complete", 0.0, 2.0),
        ("running", 120.0, 3.0),
        ("complete", 0.0, 4.0),
    ]


def test_a_late_dose_begins_when_the_delay_is_over() -> None:
    pump = pump_with(fault("late_start", 9 * MIN, 3 * MIN), program=three_doses())
    assert told(pump, 11 * MIN, 12 * MIN + 30 * S, 14 * MIN, 20 * MIN + 30 * S) == [
        ("complete", 0.0, 2.0),
        ("running", 120.0, 3.0),
        ("complete", 0.0, 4.0),
        ("running", 120.0, 5.0),
    ]


@pytest.mark.parametrize("kind", [kind for kind, row in FAULT_KINDS.items() if row.place == "wire"])
def test_a_mishap_of_the_wire_changes_nothing_at_the_patient(kind: str) -> None:
    with_it, without = pump_with(fault(kind, MIN)).truth_at(H), pump_with().truth_at(H)
    assert with_it.faults == (kind,)
    assert with_it.patient_ml == without.patient_ml


def test_a_mishap_begins_at_its_time_and_is_over_at_its_end() -> None:
    pump = pump_with(fault("silent", MIN, MIN))
    times = [MIN - 1, MIN, 2 * MIN - 1, 2 * MIN]
    assert [pump.truth_at(at_ms).faults for at_ms in times] == [(), ("silent",), ("silent",), ()]


def test_clear_ends_what_is_on_and_leaves_what_is_to_come() -> None:
    pump = pump_with(fault("stopped", MIN), fault("silent", 10 * MIN))
    assert pump.clear(5 * MIN) == ("stopped",)
    assert pump.truth_at(5 * MIN).faults == ()
    assert pump.truth_at(10 * MIN).faults == ("silent",)


def test_clear_hangs_a_new_bag_and_takes_back_a_rate_set_by_hand() -> None:
    pump = pump_with(bag_ml=10.0)
    pump.set_rate(60.0, MIN)
    assert pump.truth_at(20 * MIN).alarms == ("empty",)
    pump.clear(20 * MIN)
    truth = pump.truth_at(20 * MIN)
    assert (truth.state, truth.rate_ml_h, truth.bag_ml) == ("running", 120.0, 10.0)


def test_a_rate_set_by_hand_holds_and_zero_stops() -> None:
    pump = pump_with()
    pump.set_rate(60.0, 10 * MIN)
    pump.set_rate(0.0, 20 * MIN)
    assert told(pump, 10 * MIN, 20 * MIN - 1, 20 * MIN, 30 * MIN) == [
        ("running", 60.0, 20.0),
        ("running", 60.0, 30.0),
        ("idle", 0.0, 30.0),
        ("idle", 0.0, 30.0),
    ]


def test_a_mishap_that_is_none_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="'oclusion' is no fault; known are stopped,"):
        fault_kind("oclusion")
    with pytest.raises(ValueError, match="the strength of noisy_line goes from 0 to 1, not 2"):
        Mishaps().begin("noisy_line", 0, 2.0)


def test_the_log_grows_when_something_happens_and_not_else() -> None:
    pump = pump_with(fault("paused", 5 * MIN, MIN))
    entries = [pump.truth_at(at_ms).log_entries for at_ms in (0, 5 * MIN - 1, 5 * MIN, 6 * MIN - 1, 6 * MIN)]
    assert entries == [0, 0, 1, 1, 2]


def test_a_rate_set_by_hand_when_nothing_is_due_is_delivered_all_the_same() -> None:
    pump = pump_with(fault("missed_dose", 0))
    pump.set_rate(60.0, 10 * MIN)
    pump.set_rate(0.0, 20 * MIN)
    assert told(pump, 9 * MIN, 15 * MIN, 21 * MIN) == [
        ("idle", 0.0, 0.0),
        ("running", 60.0, 5.0),
        ("complete", 0.0, 10.0),
    ]


def test_a_rate_too_small_to_be_shown_leaves_the_time_that_was_programmed() -> None:
    truth = pump_with(fault("wrong_rate", 0, strength=1e-300)).truth_at(0)
    assert (truth.state, truth.remaining_s) == ("running", 3600)
