"""From the bytes of each family's simulated pump to what a nurse would be told."""

from __future__ import annotations

import pytest

from drivers import families
from drivers.reading import PumpState
from gateway.core.timeline import Moment
from tests.drivers.bedside import Bedside
from tests.gateway.core.pump_days import START_UTC_MS, Ward, continuous
from tests.simulator.scenarios import MIN, H, constant, fault, scenario

RATE_ML_H = 60.0
STALLED_MS = 20 * MIN
TOLD_WITHIN_MS = 3 * MIN
EVERY = pytest.mark.parametrize("name", [name for name in families.known() if name != "dummy"])


def told(name: str, *faults: object) -> list[tuple[float, str]]:
    """The alerts of an hour, with their time in ms."""
    at = Bedside(families.find(name), scenario(constant(RATE_ML_H, 2 * H), *faults))
    at.run(H)
    ward = Ward(continuous(RATE_ML_H, 2, pump="counter_ml = 0.1\naccuracy_percent = 5"))
    for reading in at.readings:
        if reading.state is not PumpState.UNKNOWN:
            moment = Moment(monotonic_ms=reading.at_ms + H, utc_ms=START_UTC_MS + reading.at_ms)
            ward.take(moment, reading)
    return [(at_s * 1000, str(kind)) for at_s, kind in ward.alerts()]


@EVERY
def test_of_a_pump_that_does_as_it_should_nothing_is_told(name: str) -> None:
    # New Era says after power-up that it was reset: that is its own alarm, and is told
    assert [kind for _, kind in told(name) if not (name == "newera" and kind == "pump_alarm")] == []


@EVERY
def test_a_motor_that_stalls_while_the_pump_says_that_it_runs_is_told(name: str) -> None:
    alerts = told(name, fault("stopped", STALLED_MS))
    found = [at_ms for at_ms, kind in alerts if kind in ("no_delivery", "under_infusion")]
    assert found
    assert STALLED_MS < found[0] <= STALLED_MS + TOLD_WITHIN_MS
