"""Doses begin, are interrupted, end, or are missed (prescription page, section 1.1, rules 1 and 3 to 5)."""

from __future__ import annotations

from alerts.condition import Kind
from drivers.reading import PumpState, Reading
from gateway.core import assess
from gateway.core.case import CONFIRMING_READINGS, DELIVERING_STATES, Case
from gateway.core.counter import MS_PER_HOUR
from gateway.core.delivery import Bank, Mark
from gateway.core.memory import Doing, Run
from gateway.core.occurrence import Occurrence
from gateway.core.rates import Rates
from gateway.core.schedule import MS_PER_DAY
from gateway.core.volumes import Volumes

CLOCKS_DIFFER = 0.001
"""The pump's clock and the gateway's, as a share of time: each has a quartz, within 200 ppm or far better."""
MOST_UNDATED = 50
"""So many deliveries are remembered until there is a date."""
_BUSY_STATES = frozenset({PumpState.RUNNING, PumpState.BOLUS, PumpState.PAUSED, PumpState.ALARM})
_INTERRUPTS = frozenset({PumpState.PAUSED, PumpState.ALARM, PumpState.OFF, PumpState.PRIMING})
OF_THE_OCCURRENCE = (
    Kind.NO_DELIVERY,
    Kind.WRONG_RATE,
    Kind.UNDER_INFUSION,
    Kind.OVER_INFUSION,
    Kind.NOT_ENDED,
    Kind.OCCLUSION_SUSPECTED,
    Kind.PAUSED_TOO_LONG,
    Kind.DOSE_TOO_SOON,
    Kind.LATE_END,
    Kind.BAG_EMPTY_SOON,
)
"""What is over when the occurrence is."""


class Doses:
    """The life of the occurrences."""

    def __init__(self, case: Case, rates: Rates, volumes: Volumes) -> None:
        self._case = case
        self._rates = rates
        self._volumes = volumes

    def _doing(self, reading: Reading) -> Doing:
        """What the pump does, as rules 1, 3 and 4 of section 1.1 see it."""
        occurrence = self._case.memory.occurrence
        state = reading.state
        volume_in = self._case.volume_in()
        if state is PumpState.BOLUS:
            return Doing.DELIVERING
        if state is PumpState.RUNNING:
            rate_ml_h = reading.rate_ml_h
            if (
                rate_ml_h is None
                or rate_ml_h > self._case.kvo_ml_h
                or (occurrence is not None and not volume_in)
            ):
                return Doing.DELIVERING
            if occurrence is not None and self._is_ordered_so_slow(occurrence):
                return Doing.DELIVERING
            begins_slow = self._case.schedule.phases[0].is_ramp or self._case.course.volume_ml == 0
            if (
                occurrence is None
                and begins_slow
                and self._case.open_number(self._case.memory.t_ms) is not None
            ):
                return Doing.DELIVERING
            return Doing.KVO if rate_ml_h > 0 else Doing.STILL
        if state is PumpState.KVO:
            return Doing.KVO
        if occurrence is None or state in (PumpState.IDLE, PumpState.STANDBY, PumpState.COMPLETE):
            return Doing.STILL
        if volume_in and (
            state in (PumpState.PAUSED, PumpState.OFF)
            or (state is PumpState.ALARM and not assess.ENDS_A_DOSE.isdisjoint(reading.alarms or ()))
        ):
            return Doing.STILL
        return Doing.INTERRUPTED

    def _is_ordered_so_slow(self, occurrence: Occurrence) -> bool:
        """Whether its phases still go on, and with no more than keep-vein-open (or down a ramp)."""
        if occurrence.tau_ms >= self._case.course.length_ms:
            return False
        slow = self._rates.ordered_ml_h(occurrence) <= self._case.kvo_ml_h
        return slow or self._case.schedule.phases[-1].is_ramp

    def act(self, reading: Reading, t_ms: int, elapsed_ms: int, delivered_ml: float | None) -> None:
        """Begin, interrupt, resume or end."""
        memory = self._case.memory
        before = memory.doing
        if memory.occurrence is not None and self._is_over_unseen(
            memory.occurrence, reading, t_ms, elapsed_ms, delivered_ml
        ):
            delivered_ml = self._end_unseen(memory.occurrence, reading, t_ms, delivered_ml)
            before = Doing.STILL
        doing = self._doing(reading)
        if memory.occurrence is None:
            goes_on = doing is Doing.DELIVERING
            if before is not Doing.DELIVERING and delivered_ml:
                delivered_ml = self._given_unseen(t_ms, elapsed_ms, delivered_ml, goes_on=goes_on)
            if goes_on:
                self._deliver_outside(reading, t_ms, elapsed_ms, delivered_ml)
            elif self._case.due_times_are_judged() or not self._interrupts_run(reading, t_ms):
                self._stop_run(t_ms)
        elif doing is Doing.DELIVERING:
            self._deliver(memory.occurrence, reading, t_ms)
        elif doing is Doing.INTERRUPTED:
            memory.occurrence.end_readings = 0
            self._interrupt(memory.occurrence, t_ms)
        else:
            self._end_or_wait(memory.occurrence, reading, t_ms)
        memory.doing = doing
        if doing is not Doing.KVO:
            memory.kvo_since_t_ms = None
            memory.kvo_too_fast_readings = 0
            self._case.findings.absent(Kind.KVO_TOO_LONG, t_ms, "Keep-vein-open has stopped.")
        elif memory.occurrence is None and (before is not Doing.KVO or memory.kvo_since_t_ms is None):
            memory.kvo_since_t_ms = t_ms if memory.last_end_t_ms is None else memory.last_end_t_ms

    def _interrupts_run(self, reading: Reading, t_ms: int) -> bool:
        """While due times are not judged no dose is known as such: what interrupts it does not end it."""
        run = self._case.memory.run
        if run is None:
            return False
        if run.stopped_t_ms is None:
            run.stopped_t_ms = t_ms
            run.stops += 1
        return reading.state in _INTERRUPTS and run.volume_ml < self._case.least_whole_ml

    def _deliver(self, occurrence: Occurrence, reading: Reading, t_ms: int) -> None:
        """The pump delivers, and an occurrence is on."""
        occurrence.end_readings = 0
        if occurrence.interrupted_t_ms is not None:
            if self._is_next(occurrence, reading, t_ms):
                self.end(t_ms)
                self._deliver_outside(reading, t_ms, 0, None)
                return
            occurrence.interrupted_before_ms += t_ms - occurrence.interrupted_t_ms
            occurrence.interrupted_t_ms = None
            occurrence.counter_reset = False
            if (self._case.memory.counter_ml or 0.0) < self._case.expected.counter_ml:
                # at 0 before and after: a second reset would not be seen
                self._volumes.forgive_reset(occurrence)
            self._case.findings.absent(Kind.PAUSED_TOO_LONG, t_ms, "The pump delivers again.")
        else:
            occurrence.counter_reset = False  # it fell while the pump ran: that says nothing of a later pause
            if self._next_has_begun(occurrence, reading, t_ms):
                self._go_over_to_next(occurrence, reading, t_ms)

    def _is_next(self, occurrence: Occurrence, reading: Reading, t_ms: int) -> bool:
        """Whether delivery after an interruption is the next occurrence already (section 1.1, rule 3)."""
        due_t_ms = self._case.next_due_t_ms(occurrence)
        if due_t_ms is None or abs(t_ms - due_t_ms) > self._case.limits.start_window_ms:
            return False
        return occurrence.counter_reset or self._is_programmed_anew(reading)

    def _is_programmed_anew(self, reading: Reading) -> bool:
        """Whether the pump has the whole volume before it."""
        whole_ml = self._case.course.volume_ml - self._case.expected.counter_ml
        return reading.vtbi_ml is not None and reading.vtbi_ml >= whole_ml

    def _next_has_begun(self, occurrence: Occurrence, reading: Reading, t_ms: int) -> bool:
        """Whether the next occurrence has begun without a stop: there is no gap between them.

        Who stops for a new bag does so a little late: clocks differ, and a pump within its accuracy takes
        longer. Only another rate, more than the whole volume, or ``end_window`` tells that it is the next.
        """
        slack_ms = self._slack_ms(occurrence)
        late_ms = occurrence.tau_ms - self._case.course.length_ms
        if (
            late_ms < -slack_ms
            or self._case.course.gap_ms(occurrence.number) != 0
            or self._case.open_number(t_ms) != occurrence.number + 1
            or not self._case.volume_in()
        ):
            return False
        if self._rates.is_of_next(reading):
            return True
        if late_ms < slack_ms + self._case.course.length_ms * CLOCKS_DIFFER:
            return False
        surplus_ml = occurrence.delivered_ml - self._case.course.volume_ml
        whole = surplus_ml > self._case.expected.counter_ml + self._case.expected.ripple_ml
        return whole or late_ms >= self._case.limits.end_window_ms

    def next_looked_for_tau_ms(self, occurrence: Occurrence) -> float:
        """From when on in an occurrence's own time the next may have begun without a stop."""
        return self._case.course.length_ms - self._slack_ms(occurrence)

    def _slack_ms(self, occurrence: Occurrence) -> float:
        slack_ms = 2 * self._case.poll_ms + occurrence.uncertain_ms
        if occurrence.joined_at_ml:
            slack_ms += self._case.limits.start_window_ms  # nobody saw when it began
        return slack_ms

    def _go_over_to_next(self, occurrence: Occurrence, reading: Reading, t_ms: int) -> None:
        """End this occurrence, and begin the next with the time for which it has run already."""
        late_ms = max(0.0, occurrence.tau_ms - self._case.course.length_ms)
        late_ml = self._case.course.expected_ml(late_ms)
        occurrence.tau_ms -= late_ms
        occurrence.expected_ml = min(occurrence.expected_ml, self._case.course.volume_ml)
        occurrence.delivered_ml -= late_ml
        uncertain_ms = occurrence.uncertain_ms
        self.end(t_ms)
        self._case.memory.run = Run(t_ms - round(late_ms), 0, late_ms, late_ml)
        self._deliver_outside(reading, t_ms, 0, None)
        begun = self._case.memory.occurrence
        if begun is not None:
            begun.uncertain_ms = uncertain_ms

    def _interrupt(self, occurrence: Occurrence, t_ms: int) -> None:
        if occurrence.interrupted_t_ms is None:
            occurrence.interrupted_t_ms = t_ms
            self._case.findings.absent(Kind.DOSE_TOO_SOON, t_ms, "The dose that was too soon is interrupted.")
            self._case.findings.absent(Kind.NOT_ENDED, t_ms, "The pump has stopped.")

    def _end_or_wait(self, occurrence: Occurrence, reading: Reading, t_ms: int) -> None:
        """The pump says that it is over. With volume missing a second reading must say so too."""
        occurrence.end_readings += 1
        if not self._case.volume_in() and occurrence.end_readings < CONFIRMING_READINGS:
            self._interrupt(occurrence, t_ms)
            return
        self.end(t_ms)
        something_left = (
            occurrence.delivered_ml < self._case.course.volume_ml - self._case.expected.counter_ml
        )
        if reading.state is PumpState.PAUSED and occurrence.counter_seen and something_left:
            self._case.memory.left_off = occurrence

    def end(self, t_ms: int) -> None:
        """The occurrence is over."""
        memory = self._case.memory
        occurrence = memory.occurrence
        assert occurrence is not None, "only what has begun can end"
        volume_in = self._case.volume_in()
        counted = self._case.counted_words(occurrence)
        given_ml = occurrence.expected_ml
        if occurrence.counter_seen:
            unshown_ml = occurrence.unshown_ml
            given_ml = occurrence.delivered_ml + unshown_ml
            if unshown_ml > self._case.expected.counter_ml:
                counted += f", and then ran long enough for {assess.volume(unshown_ml)} and showed no counter"
        if volume_in:
            self._case.findings.present(Kind.DOSE_ENDED, t_ms, f"Dose ended: {counted}.")
        else:
            left_ml = max(0.0, self._case.course.volume_ml - given_ml)
            self._case.findings.present(
                Kind.STOPPED_EARLY, t_ms, f"Stopped early: {counted}, {assess.volume(left_ml)} is left."
            )
        self._volumes.judge_whole(occurrence, t_ms)
        for kind in OF_THE_OCCURRENCE:
            self._case.findings.absent(kind, t_ms, "The dose is over.")
        memory.last_end_t_ms = t_ms
        memory.last_volume_in = volume_in
        memory.left_off = (
            occurrence if not volume_in and self._case.findings.present_codes(Kind.BAG_EMPTY) else None
        )
        memory.occurrence = None
        memory.rate_is_wrong = False
        memory.wrong_readings = 0
        memory.kvo_since_t_ms = None

    def _deliver_outside(
        self, reading: Reading, t_ms: int, elapsed_ms: int, delivered_ml: float | None
    ) -> None:
        """The pump delivers and no occurrence is on: one begins, or nothing of the kind is due."""
        memory = self._case.memory
        left_off, memory.left_off = memory.left_off, None
        if left_off is not None and self._may_go_on(left_off, reading, t_ms):
            self._go_on(left_off, t_ms, delivered_ml)
            return
        if memory.run is None:
            memory.run = Run(t_ms)
            if elapsed_ms > 2 * self._case.poll_ms and delivered_ml:
                # begun unseen: the counter tells how long ago
                ran_ms = min(float(elapsed_ms), self._case.course.tau_of_volume(delivered_ml))
            else:
                ran_ms = min(elapsed_ms, self._case.poll_ms) / 2
            memory.run.delivering_ms = ran_ms
            memory.run.volume_ml = delivered_ml or 0.0
            memory.run.since_t_ms = t_ms if elapsed_ms <= 2 * self._case.poll_ms else t_ms - round(ran_ms)
        run = memory.run
        run.readings += 1
        run.stopped_t_ms = None
        self._miss_before(run.since_t_ms, t_ms)
        number = self._case.open_number(t_ms)
        if number is not None:
            self._begin(number, run, t_ms, elapsed_ms)
        elif self._case.due_times_are_judged() and run.readings >= CONFIRMING_READINGS:
            self._case.findings.present(
                Kind.UNSCHEDULED_DELIVERY,
                t_ms,
                f"The pump delivers{self._at_rate(reading)} although no dose is due{self._next_due_words()}.",
                since_t_ms=run.since_t_ms,
            )

    def _stop_run(self, t_ms: int) -> None:
        memory = self._case.memory
        run, memory.run = memory.run, None
        if run is None:
            return
        if self._case.due_times_are_judged():
            if run.readings < CONFIRMING_READINGS and run.volume_ml > self._case.least_whole_ml:
                self._given_unscheduled(t_ms, t_ms - run.since_t_ms + self._case.poll_ms, run.volume_ml)
        elif not self._case.findings.is_present(Kind.UNSCHEDULED_DELIVERY):  # what was told is not told again
            self._remember_undated(run)
        self._case.findings.absent(Kind.UNSCHEDULED_DELIVERY, t_ms, "The pump has stopped.")

    def _remember_undated(self, run: Run) -> None:
        undated = self._case.memory.undated
        undated.append(run)
        del undated[:-MOST_UNDATED]

    def _begin(self, number: int, run: Run, t_ms: int, elapsed_ms: int) -> None:
        """This delivery is the occurrence with this number."""
        memory = self._case.memory
        due_utc_ms = self._case.due_utc_ms(number)
        if due_utc_ms is None:
            due_utc_ms = run.since_t_ms + memory.utc_offset_ms
        occurrence = self._occurrence(number, due_utc_ms, run.since_t_ms, run.delivering_ms, t_ms)
        occurrence.delivered_ml = run.volume_ml
        bolus = memory.boluses.now
        if bolus is not None and bolus.readings:
            occurrence.delivered_ml = min(run.volume_ml, occurrence.expected_ml)
        occurrence.counter_seen = memory.counter_ml is not None
        unseen_ms = max(0.0, float(elapsed_ms - self._case.poll_ms))
        occurrence.uncertain_ms = min(unseen_ms, self._case.one_count_ms(run.volume_ml))
        occurrence.uncertain_ms += run.stops * self._case.poll_ms
        memory.occurrence = occurrence
        memory.next_number = number + 1
        memory.run = None
        self._case.findings.absent(Kind.UNSCHEDULED_DELIVERY, t_ms, "It is the dose that is due.")
        self._case.findings.absent(Kind.NOT_STARTED, t_ms, "The dose has started.")
        self._case.findings.present(Kind.DOSE_STARTED, t_ms, f"Dose {number} started.")
        last_t_ms, memory.last_begin_t_ms = memory.last_begin_t_ms, run.since_t_ms
        if (
            last_t_ms is not None
            and run.since_t_ms - last_t_ms < self._case.limits.min_interval_ms - self._case.poll_ms
        ):
            apart = assess.minutes(run.since_t_ms - last_t_ms)
            least = assess.minutes(self._case.limits.min_interval_ms)
            self._case.findings.present(
                Kind.DOSE_TOO_SOON,
                t_ms,
                f"Dose too soon: begun {apart} after the last one, and at least {least} are ordered between.",
                since_t_ms=run.since_t_ms,
            )

    def _occurrence(
        self, number: int, due_utc_ms: int, begun_t_ms: int, tau_ms: float, t_ms: int
    ) -> Occurrence:
        expected_ml = self._case.course.expected_ml(tau_ms)
        self._rates.forget()
        self._case.memory.titrated_ml_h = None
        self._case.memory.titrated_t_ms = None
        return Occurrence(
            number=number,
            due_utc_ms=due_utc_ms,
            begun_t_ms=begun_t_ms,
            bank=Bank.fresh(Mark(begun_t_ms, 0.0, 0.0, 0.0)),
            tau_ms=tau_ms,
            expected_ml=expected_ml,
            last_delivery_t_ms=t_ms,
            counted_t_ms=t_ms,
        )

    def _may_go_on(self, occurrence: Occurrence, reading: Reading, t_ms: int) -> bool:
        """Whether it is not over yet: the next one's window is not open (section 1.1, rule 3)."""
        if self._case.course.due_utc_ms(occurrence.number + 1) is None:
            return t_ms - occurrence.last_delivery_t_ms < MS_PER_DAY
        if self._case.open_number(t_ms) is None:
            return True
        return self._is_rest(occurrence, reading, t_ms)

    def _is_rest(self, occurrence: Occurrence, reading: Reading, t_ms: int) -> bool:
        """Whether, where the next follows without a gap, delivery after a pause is the rest of the last.

        The next is due when this one ends, and may begin ``start_window`` earlier (section 1). While more is
        left than that, and nothing tells of a new bag or program, it is not the next.
        """
        memory = self._case.memory
        left_ms = self._case.course.length_ms - occurrence.tau_ms
        return (
            self._case.course.gap_ms(occurrence.number) == 0
            and memory.last_volume_in
            and memory.last_end_t_ms is not None
            and self._case.limits.start_window_ms < left_ms
            and t_ms - memory.last_end_t_ms < left_ms
            and not occurrence.counter_reset
            and not self._is_programmed_anew(reading)
        )

    def _go_on(self, occurrence: Occurrence, t_ms: int, delivered_ml: float | None) -> None:
        """It is still the same: a new bag was hung in place of the empty one, or the end was a pause."""
        memory = self._case.memory
        memory.occurrence = occurrence
        memory.run = None
        self._case.findings.retract(Kind.STOPPED_EARLY, t_ms, "The dose goes on.")
        self._case.findings.absent(Kind.NOT_STARTED, t_ms, "The dose before goes on.")
        occurrence.delivered_ml += delivered_ml or 0.0
        if occurrence.interrupted_t_ms is not None:
            occurrence.interrupted_before_ms += t_ms - occurrence.interrupted_t_ms
            occurrence.interrupted_t_ms = None
        occurrence.end_readings = 0
        occurrence.counter_reset = False

    def _is_over_unseen(
        self,
        occurrence: Occurrence,
        reading: Reading,
        t_ms: int,
        elapsed_ms: int,
        delivered_ml: float | None,
    ) -> bool:
        """Whether it was over before this reading, in a silence into which the next one's time fell."""
        limits = self._case.limits
        if elapsed_ms <= limits.no_data_after_ms or self._case.open_number(t_ms) != occurrence.number + 1:
            return False
        if occurrence.interrupted_t_ms is not None:
            next_due_t_ms = self._case.next_due_t_ms(occurrence)
            return next_due_t_ms is not None and next_due_t_ms <= t_ms
        has_gap = bool(self._case.course.gap_ms(occurrence.number))
        if has_gap and delivered_ml is not None and self._stood(reading, elapsed_ms, delivered_ml):
            return self._was_over_when_it_stood(occurrence, t_ms)
        # where the next follows at once, what a pump within its accuracy counts more is not yet of the next
        share = limits.tolerance if has_gap else self._case.expected.accuracy
        tolerated_ml = self._case.course.volume_ml * share
        surplus_ml = occurrence.delivered_ml - self._case.course.volume_ml
        return self._case.volume_in() and surplus_ml > tolerated_ml + self._case.expected.counter_ml

    def _stood(self, reading: Reading, elapsed_ms: int, delivered_ml: float) -> bool:
        """Whether so little was counted over a silence that the pump stood for the greater part of it."""
        rates = [rate for rate in (self._case.memory.rate_ml_h, reading.rate_ml_h) if rate]
        course = self._case.course
        rate_ml_h = min(rates, default=course.volume_ml / course.length_ms * MS_PER_HOUR)
        return delivered_ml < rate_ml_h * elapsed_ms / MS_PER_HOUR / 2

    def _was_over_when_it_stood(self, occurrence: Occurrence, t_ms: int) -> bool:
        """What a pump that stood unseen has left behind (section 1.1, rules 3 and 4).

        With its volume in, the dose is over. Without, it was interrupted: then it is over when the next is
        due, or, if the counter was reset meanwhile, with delivery within the next one's start window.
        """
        due_t_ms = self._case.next_due_t_ms(occurrence)
        if due_t_ms is None:
            return False
        window_ms = self._case.limits.start_window_ms
        is_next = occurrence.counter_reset and abs(t_ms - due_t_ms) <= window_ms
        return self._case.volume_in() or due_t_ms <= t_ms or is_next

    def _end_unseen(
        self, occurrence: Occurrence, reading: Reading, t_ms: int, delivered_ml: float | None
    ) -> float:
        """End what was over before this reading. What was counted since then, and is of the next one."""
        rest_ml = 0.0
        if occurrence.counter_reset and occurrence.interrupted_t_ms is None:
            rest_ml = delivered_ml or 0.0  # what the counter shows since its reset is of the next one
        elif self._case.volume_in():
            rest_ml = max(0.0, occurrence.delivered_ml - self._case.course.volume_ml)
        elif reading.state in DELIVERING_STATES:
            rest_ml = delivered_ml or 0.0
        occurrence.delivered_ml -= rest_ml
        occurrence.tau_ms = min(occurrence.tau_ms, float(self._case.course.length_ms))
        occurrence.expected_ml = min(occurrence.expected_ml, self._case.course.volume_ml)
        self.end(t_ms)
        return rest_ml

    def _given_unseen(self, t_ms: int, elapsed_ms: int, delivered_ml: float, *, goes_on: bool) -> float:
        """Whole occurrences that the counter shows to have been given since the last reading.

        Returns what is left: of KVO, let out by hand, or of the occurrence that goes on now.
        """
        if not self._case.due_times_are_judged():
            if not goes_on and delivered_ml >= self._case.least_whole_ml > 0:
                ran_ms = self._case.course.tau_of_volume(delivered_ml)
                self._remember_undated(Run(t_ms - elapsed_ms, 0, ran_ms, delivered_ml, t_ms))
            return delivered_ml
        limits = self._case.limits
        volume_ml = self._case.course.volume_ml
        enough_ml = self._case.least_whole_ml
        kvo_ml = self._case.kvo_ml_h * elapsed_ms / MS_PER_HOUR * (1 + limits.tolerance)
        rest_ml = delivered_ml - kvo_ml
        if goes_on:
            least_ml = volume_ml * (1 + limits.tolerance)
        elif elapsed_ms > limits.no_data_after_ms:
            least_ml = volume_ml / 2  # less may have been let out by hand
        else:
            least_ml = enough_ml
        least_ml = max(self._case.expected.counter_ml, least_ml)
        while rest_ml > least_ml:
            number = self._case.open_number(t_ms)
            if number is None or (goes_on and not self._case.window_is_open(number + 1, t_ms)):
                break
            given_ml = min(rest_ml, volume_ml) if rest_ml < 2 * enough_ml else volume_ml
            delivered_ml -= given_ml
            rest_ml -= given_ml
            tau_ms = self._case.course.tau_of_volume(given_ml)
            due_utc_ms = self._case.due_utc_ms(number)
            due_t_ms = None if due_utc_ms is None else self._case.t_ms_at(due_utc_ms)
            begun_t_ms = max(t_ms - elapsed_ms, min(t_ms, due_t_ms or 0))  # nobody saw when
            self._begin(number, Run(begun_t_ms, 1, tau_ms, given_ml), t_ms, elapsed_ms)
            self.end(t_ms)
        if not goes_on and rest_ml > max(least_ml, enough_ml):
            self._given_unscheduled(t_ms, elapsed_ms, rest_ml)
        return delivered_ml

    def _given_unscheduled(self, t_ms: int, elapsed_ms: int, given_ml: float) -> None:
        """A whole dose, or more, was counted between two readings, and none may be begun."""
        run_ms = self._case.course.length_ms * (1 - self._case.limits.tolerance)
        if not self._case.due_times_are_judged() or elapsed_ms < run_ms:
            return  # so soon no dose is given: it is another matter
        self._case.findings.present(
            Kind.UNSCHEDULED_DELIVERY,
            t_ms,
            f"Pump counted {assess.volume(given_ml)} within {assess.minutes(elapsed_ms)}"
            f" although no dose is due{self._next_due_words()}.",
            since_t_ms=t_ms - elapsed_ms,
        )
        self._case.findings.absent(Kind.UNSCHEDULED_DELIVERY, t_ms, "The pump has stopped.")

    def _miss_before(self, begun_t_ms: int, t_ms: int) -> None:
        """Occurrences that could not be begun any more when this delivery began were missed.

        Where one follows the other without a gap, delivery that begins with the poll in which the next is due
        is the next (section 1, ``give_within``: until the next is due).
        """
        seen_t_ms = t_ms if t_ms - begun_t_ms <= self._case.poll_ms else begun_t_ms
        begun_utc_ms = self._case.schedule_utc_ms(begun_t_ms)
        seen_utc_ms = self._case.schedule_utc_ms(seen_t_ms)
        while True:
            number = self._case.memory.next_number
            if number is None or begun_utc_ms is None or seen_utc_ms is None:
                return
            latest_utc_ms = self._case.latest_begin_utc_ms(number)
            if latest_utc_ms is None:
                return
            next_is_due = latest_utc_ms <= seen_utc_ms and latest_utc_ms == self._case.due_utc_ms(number + 1)
            if latest_utc_ms >= begun_utc_ms and not next_is_due:
                return
            self.miss(t_ms)

    def anchor(self, reading: Reading, t_ms: int) -> None:
        """Once the clock is synced and the pump has been heard, due times are judged (rule 5)."""
        memory = self._case.memory
        if memory.first_t_ms is None:
            memory.first_t_ms = t_ms
            memory.first_was_busy = reading.state in _BUSY_STATES
        if memory.next_number is not None or memory.schedule_offset_ms is None:
            return
        self._anchor_by_first(reading, t_ms)
        self.date(t_ms, 0)
        if memory.run is not None and reading.state not in DELIVERING_STATES:
            run, memory.run = memory.run, None
            self._date(run, t_ms)

    def _date(self, run: Run, t_ms: int) -> None:
        """What was delivered before there was a date is the occurrence that was open then, if one was."""
        memory = self._case.memory
        self._miss_before(run.since_t_ms, t_ms)
        number = self._case.open_number(t_ms if run.stopped_t_ms is None else run.stopped_t_ms)
        if number is not None:
            self._begin(number, run, t_ms, 0)
            assert memory.occurrence is not None, "just begun"
            memory.occurrence.interrupted_t_ms = run.stopped_t_ms

    def forget_dates(self, t_ms: int) -> None:
        """Nobody knows how long the gateway was gone, nor when what waits for a date was delivered.

        A gap before the clock was ever synced stays so: who watches begins anew after it (rule 5).
        """
        memory = self._case.memory
        memory.restarted_t_ms = t_ms
        for run in memory.undated:
            run.readings = 0
        if memory.next_number is None:
            memory.first_t_ms = None
            memory.run = None
            memory.undated = []

    def date(self, t_ms: int, moved_ms: int) -> None:
        """Date what was delivered within a gap, once its length is known.

        ``moved_ms``: so much of it was added to the time just now. It lies before all that was seen since the
        restart.
        """
        memory = self._case.memory
        restarted_t_ms = memory.restarted_t_ms
        for run in (*memory.undated, *([] if memory.run is None else [memory.run])):
            if restarted_t_ms is not None and run.since_t_ms >= restarted_t_ms:
                run.since_t_ms += moved_ms
            if run.stopped_t_ms is not None:
                run.stopped_t_ms += moved_ms
        if not self._case.due_times_are_judged():
            return
        memory.restarted_t_ms = None
        undated, memory.undated = memory.undated, []
        for run in undated:
            if memory.occurrence is not None:
                return
            if not run.readings:
                self._given_unseen(t_ms, t_ms - run.since_t_ms, run.volume_ml, goes_on=False)
                continue
            self._date(run, t_ms)
            if memory.occurrence is not None:
                self.end(t_ms)
                memory.last_end_t_ms = run.stopped_t_ms
            elif run.volume_ml >= self._case.least_whole_ml:
                self._given_unscheduled(t_ms, t_ms - run.since_t_ms, run.volume_ml)
        if memory.run is not None and memory.run.stopped_t_ms is not None:
            run, memory.run = memory.run, None
            self._date(run, t_ms)

    def _anchor_by_first(self, reading: Reading, t_ms: int) -> None:
        """What was on when the pump was first heard, and which occurrence is the next."""
        memory = self._case.memory
        first_t_ms = memory.first_t_ms
        assert first_t_ms is not None, "it has been heard"
        first_utc_ms = self._case.schedule_utc_ms(first_t_ms)
        assert first_utc_ms is not None, "anchored by a synced clock"
        if self._case.schedule.as_needed:
            memory.next_number = 1
            return
        number = self._case.course.number_due_at_or_before(first_utc_ms)
        due_utc_ms = self._case.course.due_utc_ms(number)
        if due_utc_ms is not None and memory.first_was_busy:
            since_due_ms = first_utc_ms - due_utc_ms
            in_time = since_due_ms <= self._case.course.length_ms + self._case.limits.start_window_ms
            if in_time and memory.undated:
                self._join(number, due_utc_ms, since_due_ms, first_t_ms, t_ms, memory.undated.pop(0))
                self.end(t_ms)
                return
            if in_time and reading.state in _BUSY_STATES:
                run, memory.run = memory.run, None
                self._join(number, due_utc_ms, since_due_ms, first_t_ms, t_ms, run)
                return
        memory.next_number = max(1, number)
        if due_utc_ms is not None and self._may_have_been_given(first_utc_ms - due_utc_ms):
            memory.next_number = number + 1
        while True:
            latest_utc_ms = self._case.latest_begin_utc_ms(memory.next_number)
            if latest_utc_ms is None or latest_utc_ms >= first_utc_ms:
                break
            memory.next_number += 1

    def _may_have_been_given(self, since_due_ms: int) -> bool:
        """Whether an occurrence may have been given before anybody looked, so long after it was due.

        It is not over before its phases are, even if it began as early as it may. As early as that only a
        counter that shows its volume says so. While a counter shows less, it may still be begun for as long
        as its window is open (section 1.1, rule 1); after that the counter may have been reset.
        """
        length_ms = self._case.course.length_ms
        window_ms = self._case.limits.start_window_ms
        if since_due_ms < length_ms - window_ms:
            return False
        counter_ml = self._case.memory.counter_ml
        if counter_ml is None or counter_ml > self._volumes.most_ml:
            return since_due_ms >= length_ms
        return counter_ml >= self._case.least_whole_ml or since_due_ms >= max(length_ms, window_ms)

    def _join(
        self,
        number: int,
        due_utc_ms: int,
        since_due_ms: int,
        first_t_ms: int,
        t_ms: int,
        run: Run | None,
    ) -> None:
        """Join an occurrence that was on when the pump was first heard (section 1.1, rule 5)."""
        memory = self._case.memory
        tau_ms = float(min(since_due_ms, self._case.course.length_ms))
        joined_ml = self._case.course.expected_ml(tau_ms)
        if run is not None:
            tau_ms += run.delivering_ms
        occurrence = self._occurrence(number, due_utc_ms, first_t_ms - since_due_ms, tau_ms, t_ms)
        occurrence.joined_at_ml = joined_ml
        occurrence.counter_seen = memory.counter_ml is not None
        occurrence.delivered_ml = joined_ml + (run.volume_ml if run is not None else 0.0)
        occurrence.uncertain_ms = float(self._case.poll_ms)
        occurrence.bank = Bank.fresh(Mark(t_ms, tau_ms, occurrence.expected_ml, occurrence.delivered_ml))
        memory.occurrence = occurrence
        memory.next_number = number + 1
        memory.last_begin_t_ms = occurrence.begun_t_ms
        self._case.findings.present(
            Kind.DOSE_STARTED, t_ms, f"Dose {number} was found running and is taken to have begun when due."
        )

    def miss(self, t_ms: int) -> None:
        """What is open can no longer be begun."""
        number = self._case.memory.next_number
        assert number is not None, "only what is due can be missed"
        self._case.findings.absent(Kind.NOT_STARTED, t_ms, "Not started, and now missed.")
        self._case.findings.present(
            Kind.DOSE_MISSED,
            t_ms,
            f"Dose {number} was missed: pump counted nothing of it in time.",
        )
        self._case.memory.next_number = number + 1

    def _at_rate(self, reading: Reading) -> str:
        return f" {assess.rate(reading.rate_ml_h)}" if reading.rate_ml_h is not None else ""

    def _next_due_words(self) -> str:
        memory = self._case.memory
        due_utc_ms = self._case.due_utc_ms(memory.next_number)
        if due_utc_ms is None:
            return "" if self._case.schedule.as_needed else " any more"
        now_utc_ms = self._case.schedule_utc_ms(memory.t_ms)
        if now_utc_ms is None or due_utc_ms <= now_utc_ms:
            return ""
        return f", the next one only in {assess.minutes(due_utc_ms - now_utc_ms)}"
