"""Every regimen over its whole length, by a pump within its data sheet: nobody is told anything."""

from __future__ import annotations

import pytest

from simulator.faults import Fault
from simulator.scenario import regimen_names
from tests.regimens.bedside import Bedside, alerts_of
from tests.regimens.cells import MIN, H, Patient

NEARLY_ALL = 0.97
"""Of the accuracy: with all of it, and a tolerance no wider, ripple decides whether a volume is in."""


def whole_length_ms(patient: Patient) -> int:
    """All doses, the changes of bag between them, and some time after the last."""
    times = patient.order.schedule.times
    last_due_ms = (patient.every_ms or 0) * (times - 1)
    return last_due_ms + patient.length_ms + times * 5 * MIN + H


def presses(patient: Patient) -> tuple[Fault, ...]:
    """Whoever has a button presses it now and then."""
    if patient.order.demand is None:
        return ()
    return (Fault(kind="presses", at_ms=30 * MIN, strength=0.7),)


@pytest.mark.parametrize("name", regimen_names())
def test_nobody_is_told_anything_of_a_regimen_that_goes_as_it_should(name: str) -> None:
    patient = Patient(name)
    poll_ms = patient.slow_poll_ms() if patient.order.demand is None else patient.poll_ms
    until_ms = whole_length_ms(patient)
    ward = Bedside(regimen=name, until_ms=until_ms, poll_ms=poll_ms, faults=presses(patient)).watched()
    assert [str(one) for one in alerts_of(ward)] == []
    kinds = [kind for _, kind, _ in ward.told]
    assert kinds.count("dose_started") == patient.order.schedule.times
    assert kinds.count("dose_ended") == patient.order.schedule.times


@pytest.mark.long
@pytest.mark.parametrize("calibration", [-NEARLY_ALL, 0.0, NEARLY_ALL])
@pytest.mark.parametrize("follows", ["motor", "flow"])
@pytest.mark.parametrize("name", regimen_names())
def test_nor_anywhere_within_the_accuracy_of_its_pump_at_the_ordered_poll(
    name: str, follows: str, calibration: float
) -> None:
    patient = Patient(name)
    ward = Bedside(
        regimen=name,
        until_ms=min(whole_length_ms(patient), 8 * 24 * H),
        faults=presses(patient),
        counter_follows=follows,
        machine={"calibration_percent": 100 * patient.order.pump.accuracy * calibration},
        seed=round(calibration),
    ).watched()
    assert [str(one) for one in alerts_of(ward)] == []
