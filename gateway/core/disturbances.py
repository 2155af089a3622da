"""A dose that does not come through: ``repeated_interruption`` and ``late_end``.

Prescription page, sections 1 (``late_end``) and 3.

An *interruption* is, within an occurrence,

- an alarm of the pump: its state is ``alarm``, or it reports a code other than ``low_battery``,
  ``near_empty``, the notices and ``vendor:`` (those only where the pump stops for them);
- or a stop that is not allowed: one that has lasted ``max_pause``, or gone beyond ``max_total_pause``, so
  that ``paused_too_long`` is due. A shorter pause is allowed, however often.

It is counted once, when it begins, whatever the pump says until it delivers again without an alarm: an alarm
that is silenced and left paused is one; a pump that starts again by itself and alarms again has had two.
"""

from __future__ import annotations

from alerts.condition import Kind
from drivers.reading import PumpAlarm, PumpState, Reading
from gateway.core import assess
from gateway.core.case import DELIVERING_STATES, Case
from gateway.core.interruptions import TOO_MANY, WITHIN_MS
from gateway.core.memory import Doing
from gateway.core.occurrence import Occurrence

_NO_INTERRUPTION = frozenset(
    {PumpAlarm.LOW_BATTERY, PumpAlarm.NEAR_EMPTY, PumpAlarm.DEMAND, PumpAlarm.DEMAND_DENIED}
)


class Disturbances:
    """Counts interruptions, and foresees that a dose will be over too late."""

    def __init__(self, case: Case) -> None:
        self._case = case
        self._late_ms = None
        if case.limits.late_end_ms is not None:
            self._late_ms = case.course.length_ms + case.limits.start_window_ms + case.limits.late_end_ms

    def judge(self, reading: Reading, t_ms: int) -> None:
        """Take one reading. While it runs without an alarm only the end of a ``late_end`` is worked out."""
        memory = self._case.memory
        if reading.alarms or memory.interruptions.going_on or reading.state is PumpState.ALARM:
            self._count(reading, t_ms)
        if self._late_ms is not None and memory.occurrence is not None and memory.doing is Doing.DELIVERING:
            self._foresee(memory.occurrence, t_ms)

    def _count(self, reading: Reading, t_ms: int) -> None:
        memory = self._case.memory
        going_on = memory.interruptions.going_on
        if memory.occurrence is None:
            if going_on:
                memory.interruptions.end(t_ms)
        elif reading.state is PumpState.ALARM or self._interrupts(reading.alarms or ()):
            if not going_on:
                self._begin(t_ms, t_ms)
        elif going_on and memory.doing is Doing.DELIVERING:
            stood = memory.pump_state not in DELIVERING_STATES
            if reading.alarms is not None or stood:
                memory.interruptions.end(t_ms)

    def _interrupts(self, codes: tuple[str, ...]) -> bool:
        harmless = _NO_INTERRUPTION | assess.ENDS_A_DOSE if self._case.volume_in() else _NO_INTERRUPTION
        return any(code not in harmless and not code.startswith("vendor:") for code in codes)

    def stop_not_allowed(self, began_t_ms: int, t_ms: int) -> None:
        """A stop that began then has lasted too long."""
        if not self._case.memory.interruptions.going_on:
            self._begin(began_t_ms, t_ms)

    def _begin(self, began_t_ms: int, t_ms: int) -> None:
        interruptions = self._case.memory.interruptions
        if not interruptions.begin(began_t_ms):
            return
        first_t_ms = interruptions.begun_t_ms[0]
        self._case.findings.present(
            Kind.REPEATED_INTERRUPTION,
            t_ms,
            f"Interrupted {TOO_MANY} times within {assess.minutes(began_t_ms - first_t_ms)},"
            " by alarms of the pump or stops that were too long.",
            since_t_ms=first_t_ms,
        )

    def quiet_at_t_ms(self) -> int | None:
        """When there will have been an hour without an interruption; ``None`` if that is of no interest."""
        over_t_ms = self._case.memory.interruptions.over_t_ms
        if over_t_ms is None or not self._case.findings.is_present(Kind.REPEATED_INTERRUPTION):
            return None
        return over_t_ms + WITHIN_MS

    def quiet(self, t_ms: int) -> None:
        """An hour has passed without one."""
        self._case.findings.absent(
            Kind.REPEATED_INTERRUPTION, t_ms, "For an hour the pump has not been interrupted."
        )

    # --- late_end ------------------------------------------------------------------------------------------

    def _deadline_t_ms(self, occurrence: Occurrence) -> int | None:
        """By when it must be over, pauses and all (section 1, ``late_end``); ``None`` if not known."""
        if self._late_ms is None:
            return None
        if self._case.schedule.as_needed:
            return occurrence.begun_t_ms + self._late_ms
        due_t_ms = self._case.t_ms_at(occurrence.due_utc_ms)
        return None if due_t_ms is None else due_t_ms + self._late_ms

    def _foresee(self, occurrence: Occurrence, t_ms: int) -> None:
        deadline_t_ms = self._deadline_t_ms(occurrence)
        if deadline_t_ms is None:
            return
        too_late_ms = t_ms + self._case.left_ms() - deadline_t_ms
        if too_late_ms > self._case.poll_ms:
            self.late(t_ms)
        elif too_late_ms <= -self._case.poll_ms:
            self._case.findings.absent(Kind.LATE_END, t_ms, "The dose will be over in time again.")

    def late_at_t_ms(self, occurrence: Occurrence) -> int | None:
        """When it will be certain that it is over too late, unless delivery goes on or is over before."""
        return None if self._case.findings.is_present(Kind.LATE_END) else self.certain_at_t_ms(occurrence)

    def certain_at_t_ms(self, occurrence: Occurrence) -> int | None:
        """The same whether it has been told or not."""
        deadline_t_ms = self._deadline_t_ms(occurrence)
        if deadline_t_ms is None or occurrence.interrupted_t_ms is None:
            return deadline_t_ms
        return deadline_t_ms - self._case.left_ms()

    def late(self, t_ms: int) -> None:
        """It is certain."""
        occurrence = self._case.memory.occurrence
        assert occurrence is not None, "only what has begun can be over too late"
        deadline_t_ms = self._deadline_t_ms(occurrence)
        assert deadline_t_ms is not None, "only by a deadline"
        left_ms = self._case.left_ms()
        by_then = (
            f"in {assess.minutes(deadline_t_ms - t_ms)}"
            if deadline_t_ms > t_ms
            else f"{assess.minutes(t_ms - deadline_t_ms)} ago"
        )
        self._case.findings.present(
            Kind.LATE_END,
            t_ms,
            f"The dose will be over too late: {assess.minutes(left_ms)} of delivery are left,"
            f" and the latest end that is ordered is {by_then}.",
        )
