"""Beyond the pump's own account: pressure, independent sensor, volume that moves by itself.

``occlusion_suspected``, ``measurement_mismatch`` and ``free_flow`` of prescription page, section 3. What they
rest on stands in ``pressure.py``, ``sensor.py`` and ``free_flow.py``; here it meets the readings, and is
said.
"""

from __future__ import annotations

from alerts.condition import Kind
from drivers.reading import PumpAlarm, PumpState, Reading
from gateway.core import assess, free_flow
from gateway.core.case import Case
from gateway.core.counter import MS_PER_HOUR
from gateway.core.free_flow import Flow, Surplus, Threshold
from gateway.core.pressure import PressureChange, PressureRise
from gateway.core.sensor import NOISE_SIGMAS, Agreement, Expected, expected_at, jumped

_FLOWING_STATES = frozenset({PumpState.RUNNING, PumpState.BOLUS, PumpState.KVO})
_SET_CHANGE_ALARMS = frozenset({PumpAlarm.DOOR_OPEN, PumpAlarm.CASSETTE, PumpAlarm.AIR_IN_LINE})
_OCCLUSION_ALARMS = frozenset({PumpAlarm.OCCLUSION_DOWNSTREAM, PumpAlarm.OCCLUSION_UPSTREAM})
_RATE_CHANGE = 0.05
"""What may be found is worked out again when the set rate has changed by more than this share."""


class Line:
    """What can be seen of the line and the bag beside what the pump says of itself."""

    def __init__(self, case: Case, highest_ml_h: float) -> None:
        self._case = case
        self._highest_ml_h = highest_ml_h
        self._gap_ms = case.limits.no_data_after_ms
        order = case.order
        demand = order.demand
        bolus_ml = 0.0 if demand is None else demand.bolus_ml
        self._demand_ml_h = 0.0 if demand is None else demand.bolus_ml * MS_PER_HOUR / demand.lockout_ms
        self._counter_threshold = free_flow.of_counter(order.pump, case.poll_ms, bolus_ml)
        self._sensor_threshold: Threshold | None = None
        self._sensor_expected: Expected | None = None
        if order.sensor is not None:
            self._sensor_threshold = free_flow.of_sensor(order.sensor, order.pump, case.poll_ms, bolus_ml)

    def read(
        self,
        reading: Reading,
        t_ms: int,
        elapsed_ms: int,
        delivered_ml: float | None,
        *,
        fell: bool,
        length_known: bool,
    ) -> None:
        """Take one reading.

        ``delivered_ml`` is what was counted since the last counter value. ``fell``: the counter stands lower
        than before and has not wrapped. ``length_known`` is False if nobody knows how long it is since the
        last reading.
        """
        unbroken = length_known and not fell
        self._read_pressure(reading, t_ms, anew=not unbroken)
        if self._sensor_threshold is not None:
            self._compare(reading, t_ms, delivered_ml, fell=fell)
        self._watch_for_free_flow(
            reading, t_ms, elapsed_ms, delivered_ml, fell=fell, length_known=length_known
        )

    def set_ml_h(self, reading: Reading) -> float:
        """What the pump is set to, and what may be delivered beside it; 0 while it does not deliver."""
        if reading.state not in _FLOWING_STATES:
            return 0.0
        set_ml_h = self._highest_ml_h if reading.rate_ml_h is None else reading.rate_ml_h
        return set_ml_h + self._demand_ml_h

    def is_quiet(self, reading: Reading) -> bool:
        """Whether another reading like this one, after it was read, brings no news by itself."""
        memory = self._case.memory
        rise = memory.pressure
        return (
            self._sensor_threshold is None
            and rise.hold is None
            and rise.suspicion is None
            and memory.free_flow.counter.is_ordinary(self.set_ml_h(reading))
        )

    def free_flow_threshold_ml(self, set_ml_h: float) -> float:
        """The surplus of the counter that is free flow."""
        return self._counter_threshold.volume_ml(set_ml_h, at_rest=set_ml_h <= 0)

    # --- occlusion_suspected -----------------------------------------------------------------------------

    def _read_pressure(self, reading: Reading, t_ms: int, *, anew: bool) -> None:
        rise = self._case.memory.pressure
        pressure_mmhg = reading.pressure_mmhg
        if anew:
            rise.forget(t_ms)
        if rise.suspicion is not None and not self._case.findings.is_present(Kind.OCCLUSION_SUSPECTED):
            rise.suspicion = None  # it was over with the dose
        if rise.suspicion is not None and self._no_longer_occluded(reading):
            rise.alarm_is_over()
        if reading.state is PumpState.BOLUS:
            rise.bolus(t_ms)
            return
        if reading.state not in _FLOWING_STATES:
            change = rise.stop(pressure_mmhg)
        elif pressure_mmhg is None:
            return
        else:
            change = rise.deliver(t_ms, pressure_mmhg, reading.rate_ml_h, self._case.poll_ms, self._gap_ms)
        if change is not None:
            self._say_pressure(change, rise, pressure_mmhg, t_ms)

    def _no_longer_occluded(self, reading: Reading) -> bool:
        """Whether the pump has reported an occlusion until now, and with this reading does not."""
        if reading.alarms is None or not _OCCLUSION_ALARMS.isdisjoint(reading.alarms):
            return False
        return bool(self._case.findings.present_codes(Kind.OCCLUSION))

    def _say_pressure(
        self, change: PressureChange, rise: PressureRise, pressure_mmhg: float | None, t_ms: int
    ) -> None:
        if change is PressureChange.RISES:
            assert rise.suspicion is not None, "that is what it has found"
            since_t_ms = rise.suspicion.since_t_ms
            self._case.findings.present(
                Kind.OCCLUSION_SUSPECTED,
                t_ms,
                f"Occlusion suspected: the pressure has risen from {rise.suspicion.average_mmhg:.0f}"
                f" to {rise.suspicion.peak_mmhg:.0f} mmHg in about {assess.minutes(t_ms - since_t_ms)},"
                " as it does behind a closed line.",
                since_t_ms=since_t_ms,
            )
        else:
            self._case.findings.absent(
                Kind.OCCLUSION_SUSPECTED,
                t_ms,
                f"The pressure has fallen to {pressure_mmhg:.0f} mmHg;"
                " what was pent up may have been released at once.",
            )

    # --- measurement_mismatch ----------------------------------------------------------------------------

    def _compare(self, reading: Reading, t_ms: int, delivered_ml: float | None, *, fell: bool) -> None:
        memory = self._case.memory
        comparison = memory.sensor
        flowed = memory.pump_state in _FLOWING_STATES and reading.state in _FLOWING_STATES
        if fell or not flowed:
            comparison.interrupt()
        if reading.state not in _FLOWING_STATES:
            return
        comparison.counted_ml += delivered_ml or 0.0
        if delivered_ml is None or reading.independent_ml is None:
            return
        expected = self._expected(reading.rate_ml_h)
        agreement = comparison.take(t_ms, reading.independent_ml, expected)
        contradiction = comparison.contradiction
        if agreement is Agreement.BROKEN and contradiction is not None:
            self._case.findings.present(
                Kind.MEASUREMENT_MISMATCH,
                t_ms,
                f"Measurements disagree: the independent sensor saw {assess.volume(contradiction.seen_ml)}"
                f" and the pump counted {assess.volume(contradiction.counted_ml)}"
                f" in about {assess.minutes(t_ms - contradiction.since_t_ms)}.",
                since_t_ms=contradiction.since_t_ms,
            )
        elif agreement is Agreement.RESTORED:
            self._case.findings.absent(
                Kind.MEASUREMENT_MISMATCH, t_ms, "The independent sensor and the pump's counter agree again."
            )

    def _expected(self, rate_ml_h: float | None) -> Expected:
        known = self._sensor_expected
        if rate_ml_h is None:
            rate_ml_h = self._highest_ml_h if known is None else known.rate_ml_h
        if known is None or abs(rate_ml_h - known.rate_ml_h) > _RATE_CHANGE * known.rate_ml_h:
            order = self._case.order
            assert order.sensor is not None, "asked only where there is one"
            known = expected_at(rate_ml_h, order.pump, order.sensor, order.limits, self._case.poll_ms)
            self._sensor_expected = known
        return known

    # --- free_flow ---------------------------------------------------------------------------------------

    def _watch_for_free_flow(
        self,
        reading: Reading,
        t_ms: int,
        elapsed_ms: int,
        delivered_ml: float | None,
        *,
        fell: bool,
        length_known: bool,
    ) -> None:
        seen = self._case.memory.free_flow
        flows = reading.state in _FLOWING_STATES
        handled = (
            fell
            or reading.state is PumpState.PRIMING
            or (bool(reading.alarms) and not _SET_CHANGE_ALARMS.isdisjoint(reading.alarms or ()))
        )
        seen.set_change = handled or (seen.set_change and not flows)
        bolus = reading.state is PumpState.BOLUS or self._case.memory.boluses.now is not None
        legal = seen.set_change or bolus or not length_known
        set_ml_h = self.set_ml_h(reading)
        unseen_ml_h = self._highest_ml_h if elapsed_ms > 2 * self._case.poll_ms else 0.0
        told = seen.counter.take(
            t_ms, delivered_ml, set_ml_h, self._counter_threshold, unseen_ml_h=unseen_ml_h, legal=legal
        )
        if told is Flow.FREE:
            self._say_free_flow(seen.counter, t_ms, reading, "the pump counted")
        if self._sensor_threshold is not None:
            moved_ml, is_jump = self._moved(reading, t_ms)
            told_by_sensor = seen.sensor.take(
                t_ms,
                moved_ml,
                set_ml_h,
                self._sensor_threshold,
                unseen_ml_h=unseen_ml_h,
                legal=legal or is_jump,
            )
            if told_by_sensor is Flow.FREE:
                self._say_free_flow(seen.sensor, t_ms, reading, "the independent sensor saw")
            told = told or told_by_sensor
        if told is Flow.STOPPED and seen.counter.took_ms is None and seen.sensor.took_ms is None:
            self._case.findings.absent(Kind.FREE_FLOW, t_ms, "The free flow has stopped.")

    def _moved(self, reading: Reading, t_ms: int) -> tuple[float | None, bool]:
        """What the sensor saw since it last spoke, and whether that is no flow."""
        seen = self._case.memory.free_flow
        sensor = self._case.order.sensor
        if reading.independent_ml is None or sensor is None:
            return None, False
        before_ml, seen.sensor_ml = seen.sensor_ml, reading.independent_ml
        elapsed_ms, seen.sensor_t_ms = t_ms - seen.sensor_t_ms, t_ms
        if before_ml is None:
            return 0.0, False
        step_ml = reading.independent_ml - before_ml
        at_once_ml = sensor.resolution_ml + NOISE_SIGMAS * sensor.noise_ml
        return step_ml, jumped(sensor, step_ml, at_once_ml, elapsed_ms)

    def _say_free_flow(self, surplus: Surplus, t_ms: int, reading: Reading, saw: str) -> None:
        if reading.state not in _FLOWING_STATES:
            beside = "and the pump says that it does not deliver"
        elif reading.rate_ml_h is None:
            beside = f"and never more than {assess.rate(self._highest_ml_h)} is ordered"
        else:
            beside = f"and the pump is set to {assess.rate(reading.rate_ml_h)}"
        self._case.findings.present(
            Kind.FREE_FLOW,
            t_ms,
            f"Free flow: {saw} {assess.volume(surplus.moved_ml)}"
            f" in {assess.minutes(t_ms - surplus.since_t_ms)}, {beside}.",
            since_t_ms=surplus.since_t_ms,
        )
