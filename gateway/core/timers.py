"""Times that run out between readings (prescription page, section 2, "Timers" and "Silence")."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import inf

from alerts.condition import Kind
from gateway.core import assess
from gateway.core.case import Case
from gateway.core.disturbances import Disturbances
from gateway.core.doses import Doses
from gateway.core.memory import Doing
from gateway.core.occurrence import Occurrence
from gateway.core.schedule import MS_PER_DAY

Timer = tuple[int, Callable[[int], None]]
"""When, and what happens then."""


class Timers:
    """What is up, and when."""

    def __init__(self, case: Case, doses: Doses, disturbances: Disturbances) -> None:
        self._case = case
        self._doses = doses
        self._disturbances = disturbances
        self._circumstances: tuple[object, ...] = ()
        self._quiet_timer: Timer | None = None

    def run(self, until_t_ms: int, *, inclusive: bool) -> None:
        """Let time pass: whatever is up before ``until_t_ms`` (or at it) happens, in order.

        While ``no_data`` lasts nothing else runs (prescription page, section 2, "Timers").
        """
        while True:
            timer = self._next_timer()
            if timer is None or timer[0] > until_t_ms or (timer[0] == until_t_ms and not inclusive):
                return
            timer[1](max(timer[0], self._case.memory.t_ms))

    def next_t_ms(self) -> int | None:
        """When the next time is up if nothing is heard before."""
        timer = self._next_timer()
        return None if timer is None else timer[0]

    def next_but_silence_t_ms(self) -> float:
        """When the next time is up, whether anything is heard or not; infinite if none is."""
        return inf if (timer := self._timer_but_silence()) is None else timer[0]

    def _next_timer(self) -> Timer | None:
        if self._case.findings.is_present(Kind.NO_DATA):
            return None
        quiet_timer = self._timer_but_silence()
        silence = self._no_data_timer()
        if silence is None or (quiet_timer is not None and quiet_timer[0] <= silence[0]):
            return quiet_timer
        return silence

    def _timer_but_silence(self) -> Timer | None:
        memory = self._case.memory
        occurrence = memory.occurrence
        # all that these timers hang on: while it stays the same, so do they
        circumstances = (
            memory.next_number,
            memory.doing,
            memory.schedule_offset_ms,
            None if occurrence is None else occurrence.interrupted_t_ms,
            memory.kvo_since_t_ms,
            memory.interruptions.over_t_ms,
            memory.rate_ml_h,
            memory.last_end_t_ms,
            memory.orders.waiting,
            self._case.findings.changes,
        )
        if circumstances != self._circumstances:
            self._circumstances = circumstances
            self._quiet_timer = min(self._timers(), key=_when, default=None)
        return self._quiet_timer

    def _timers(self) -> Iterator[Timer]:
        memory = self._case.memory
        if memory.occurrence is None:
            yield from self._start_timers()
        else:
            yield from self._interruption_timers(memory.occurrence)
            late_t_ms = self._disturbances.late_at_t_ms(memory.occurrence)
            if late_t_ms is not None:
                yield late_t_ms, self._disturbances.late
        quiet_t_ms = self._disturbances.quiet_at_t_ms()
        if quiet_t_ms is not None:
            yield quiet_t_ms, self._disturbances.quiet
        kvo_t_ms = self._kvo_too_long_t_ms()
        if kvo_t_ms is not None and not self._case.findings.is_present(Kind.KVO_TOO_LONG):
            yield kvo_t_ms, self._kvo_too_long
        not_programmed_t_ms = self._not_programmed_t_ms()
        if not_programmed_t_ms is not None and not self._case.findings.is_present(Kind.ORDER_NOT_PROGRAMMED):
            yield not_programmed_t_ms, self._not_programmed

    def judge_anew(self, t_ms: int) -> None:
        """A new version of the order is in force: what is not too late or too long by it is so no more."""
        memory = self._case.memory
        occurrence = memory.occurrence
        heard_t_ms = memory.seen_t_ms if memory.seen_t_ms is not None else memory.started_t_ms
        # a rate that is not shown is no better than it was
        too_fast = memory.rate_ml_h is None or memory.rate_ml_h > self._case.most_kvo_ml_h
        times = {
            Kind.NOT_STARTED: self._not_started_t_ms() if occurrence is None else None,
            Kind.PAUSED_TOO_LONG: None if occurrence is None else self._paused_too_long_t_ms(occurrence),
            Kind.KVO_TOO_LONG: t_ms if too_fast else self._kvo_too_long_t_ms(),
            Kind.LATE_END: None if occurrence is None else self._disturbances.certain_at_t_ms(occurrence),
            Kind.NO_DATA: None if heard_t_ms is None else heard_t_ms + self._case.limits.no_data_after_ms,
        }
        for kind, up_t_ms in times.items():
            if up_t_ms is None or up_t_ms > t_ms:
                self._case.findings.absent(kind, t_ms, "By the new order it is not so.")

    def _start_timers(self) -> Iterator[Timer]:
        number = self._case.memory.next_number
        not_started_t_ms = self._not_started_t_ms()
        latest_utc_ms = None if number is None else self._case.latest_begin_utc_ms(number)
        if not_started_t_ms is None or latest_utc_ms is None:
            return
        if not self._case.findings.is_present(Kind.NOT_STARTED):
            yield not_started_t_ms, self._not_started
        latest_t_ms = self._case.t_ms_at(latest_utc_ms)
        if latest_t_ms is not None:
            yield latest_t_ms, self._doses.miss

    def _not_started_t_ms(self) -> int | None:
        """When the next occurrence will not have been started in time; ``None`` if none is due, ever."""
        memory = self._case.memory
        number = memory.next_number
        due_utc_ms = self._case.due_utc_ms(number)
        due_t_ms = None if due_utc_ms is None else self._case.t_ms_at(due_utc_ms)
        if number is None or due_t_ms is None:
            return None
        if number > 1 and self._case.course.gap_ms(number - 1) == 0 and memory.last_end_t_ms is not None:
            due_t_ms = max(due_t_ms, memory.last_end_t_ms)
        return due_t_ms + self._case.limits.start_window_ms

    def _paused_too_long_t_ms(self, occurrence: Occurrence) -> int | None:
        """When the present interruption will have been too long; ``None`` if there is none."""
        if occurrence.interrupted_t_ms is None:
            return None
        allowed_ms = self._case.limits.max_pause_ms
        if self._case.limits.max_total_pause_ms is not None:
            left_ms = self._case.limits.max_total_pause_ms - occurrence.interrupted_before_ms
            allowed_ms = max(0, min(allowed_ms, left_ms))
        return occurrence.interrupted_t_ms + allowed_ms

    def kvo_runs_too_long(self, t_ms: int) -> bool:
        """Whether keep-vein-open has run for longer than it may (rule 4), however fast."""
        up_t_ms = self._kvo_too_long_t_ms()
        return up_t_ms is not None and up_t_ms <= t_ms

    def _kvo_too_long_t_ms(self) -> int | None:
        """When keep-vein-open will have run too long; ``None`` if it does not run, or may stay."""
        memory = self._case.memory
        if memory.doing is not Doing.KVO or memory.kvo_since_t_ms is None or self._kvo_may_stay():
            return None
        return memory.kvo_since_t_ms + self._case.limits.kvo_max_ms

    def _not_programmed_t_ms(self) -> int | None:
        """Until when the pump should have been set to the version that waits; ``None`` if nobody said."""
        waiting = self._case.memory.orders.waiting
        if waiting is None or waiting.effective_by_utc_ms is None:
            return None
        return self._case.t_ms_at(waiting.effective_by_utc_ms)

    def _interruption_timers(self, occurrence: Occurrence) -> Iterator[Timer]:
        too_long_t_ms = self._paused_too_long_t_ms(occurrence)
        if too_long_t_ms is None:
            return
        if not self._case.findings.is_present(Kind.PAUSED_TOO_LONG):
            yield too_long_t_ms, self._paused_too_long
        if self._case.course.due_utc_ms(occurrence.number + 1) is None:
            yield occurrence.last_delivery_t_ms + MS_PER_DAY, self._doses.end
            return
        next_due_t_ms = self._case.next_due_t_ms(occurrence)
        if next_due_t_ms is not None:
            yield next_due_t_ms, self._doses.end

    def _no_data_timer(self) -> Timer | None:
        """When silence becomes a condition: only while something may be expected of the pump (section 2)."""
        memory = self._case.memory
        heard_t_ms = memory.seen_t_ms if memory.seen_t_ms is not None else memory.started_t_ms
        if heard_t_ms is None:
            return None
        silent_t_ms = heard_t_ms + self._case.limits.no_data_after_ms
        if memory.occurrence is not None or memory.doing in (Doing.DELIVERING, Doing.KVO):
            return silent_t_ms, self._no_data
        if self._is_between_two() and self._case.schedule.between_ml_h > 0:
            return silent_t_ms, self._no_data
        if self._case.order.demand is not None and self._case.schedule.as_needed:
            start_t_ms = self._case.t_ms_at(self._case.schedule.start_utc_ms)
            if start_t_ms is not None and self._case.another_is_to_come():
                return max(silent_t_ms, start_t_ms), self._no_data
        due_t_ms = self._case.expected_from_t_ms()
        return None if due_t_ms is None else (max(silent_t_ms, due_t_ms), self._no_data)

    def _is_between_two(self) -> bool:
        """Whether one occurrence has begun or was missed, and another is to come."""
        memory = self._case.memory
        one_was = memory.last_begin_t_ms is not None or (memory.next_number or 0) > 1
        return one_was and self._case.another_is_to_come()

    def _no_data(self, t_ms: int) -> None:
        heard_t_ms = self._case.memory.seen_t_ms
        since = (
            f"for {assess.minutes(t_ms - heard_t_ms)}" if heard_t_ms is not None else "since watching began"
        )
        self._case.findings.present(
            Kind.NO_DATA,
            t_ms,
            f"No data from the pump {since}: nobody can see whether it delivers.",
            since_t_ms=heard_t_ms,
        )

    def heard(self, t_ms: int) -> None:
        """A reading has come."""
        if self._case.findings.is_present(Kind.NO_DATA):
            self._case.findings.absent(Kind.NO_DATA, t_ms, "Data from the pump again.")

    def _not_started(self, t_ms: int) -> None:
        window = assess.minutes(self._case.limits.start_window_ms)
        self._case.findings.present(
            Kind.NOT_STARTED,
            t_ms,
            f"Dose {self._case.memory.next_number} has not been started within {window} of when it was due.",
        )

    def _paused_too_long(self, t_ms: int) -> None:
        occurrence = self._case.memory.occurrence
        assert occurrence is not None, "only what has begun can be paused"
        began_t_ms = occurrence.interrupted_t_ms
        assert began_t_ms is not None, "only while it is interrupted"
        total_ms = occurrence.interrupted_before_ms + t_ms - began_t_ms
        if t_ms - began_t_ms >= self._case.limits.max_pause_ms:
            lasted = f"for {assess.minutes(t_ms - began_t_ms)}"
        else:
            lasted = f"for {assess.minutes(total_ms)} in all"
        self._case.findings.present(
            Kind.PAUSED_TOO_LONG,
            t_ms,
            f"Delivery has been interrupted {lasted}: {self._case.counted_words(occurrence)}.",
            since_t_ms=began_t_ms,
        )
        self._disturbances.stop_not_allowed(began_t_ms, t_ms)

    def _kvo_too_long(self, t_ms: int) -> None:
        since_t_ms = self._case.memory.kvo_since_t_ms
        assert since_t_ms is not None, "only while KVO runs"
        self._case.findings.present(
            Kind.KVO_TOO_LONG,
            t_ms,
            f"Keep-vein-open has run for {assess.minutes(t_ms - since_t_ms)} after the end.",
            since_t_ms=since_t_ms,
        )

    def _not_programmed(self, t_ms: int) -> None:
        rate_ml_h = self._case.memory.rate_ml_h
        set_to = "" if rate_ml_h is None else f", and is set to {assess.rate(rate_ml_h)}"
        self._case.findings.present(
            Kind.ORDER_NOT_PROGRAMMED,
            t_ms,
            f"The pump has not been set to the new order in time{set_to}: the old order holds.",
        )

    def _kvo_may_stay(self) -> bool:
        """KVO at up to ``between_ml_h`` is right for as long as another occurrence is to come (rule 4)."""
        rate_ml_h = self._case.memory.rate_ml_h
        between_ml_h = self._case.schedule.between_ml_h
        slow = rate_ml_h is None or rate_ml_h <= between_ml_h * (1 + self._case.limits.tolerance) + (
            assess.DISPLAY_MARGIN_ML_H
        )
        return between_ml_h > 0 and slow and self._case.another_is_to_come()


def _when(timer: Timer) -> int:
    return timer[0]
