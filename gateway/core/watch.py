"""One pump against its prescription: occurrences, delivery, times that run out (prescription page, section 1.1).

``read`` takes one reading, ``run_timers`` lets time pass. Within ``read`` the order is always this: the counter;
the occurrence brought forward to the reading; what the pump does now (begin, interruption, end); the judgements.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import accumulate
from math import sqrt

from alerts.catalogue import row
from alerts.condition import Kind
from drivers.reading import PumpAlarm, PumpState, Reading
from gateway.core import assess
from gateway.core.assess import RateVerdict
from gateway.core.counter import MS_PER_HOUR, CounterFall, delivered_across_fall
from gateway.core.delivery import (
    STROKE_VARIANCE,
    Bank,
    DayVolume,
    Deviation,
    Excess,
    Mark,
    RateLimit,
    decidable_volume_ml,
    thresholds_ml,
)
from gateway.core.memory import Carry, Doing, Findings, Memory, Run
from gateway.core.occurrence import Occurrence, volume_is_in
from gateway.core.prescription import Prescription
from gateway.core.schedule import MS_PER_DAY, Course

DECIDABLE_SHIFT = 0.2
"""The verdict is "too early" until a shift this far beyond the tolerance would have been found."""
STANDSTILL_SHARE = 0.8
"""A deficit is a standstill if this much of it arose since the counter last moved."""
OVERDUE_COUNTS = 1.4
"""A counter stands still when this many counts are due and none has come; before that it may be slow."""
CONFIRMING_READINGS = 2
"""Kinds read from a state or a setting wait for at most two readings (prescription page, section 3)."""

_DELIVERING_STATES = frozenset({PumpState.RUNNING, PumpState.BOLUS})
_COUNTING_STATES = frozenset({PumpState.RUNNING, PumpState.BOLUS, PumpState.KVO})
_BUSY_STATES = frozenset({PumpState.RUNNING, PumpState.BOLUS, PumpState.PAUSED, PumpState.ALARM})
_OF_THE_OCCURRENCE = (
    Kind.NO_DELIVERY,
    Kind.WRONG_RATE,
    Kind.UNDER_INFUSION,
    Kind.OVER_INFUSION,
    Kind.NOT_ENDED,
    Kind.PAUSED_TOO_LONG,
    Kind.DOSE_TOO_SOON,
)
_NOT_STOPPED_BY_SILENCE = "Data from the pump again."

Timer = tuple[int, Callable[[int], None]]
"""When, and what happens then."""


class Watch:
    """Judges what a pump does by its prescription; changes the memory it is given."""

    def __init__(
        self, prescription: Prescription, poll_ms: int | None, memory: Memory, findings: Findings
    ) -> None:
        self._order = prescription
        self._limits = prescription.limits
        self._expected = prescription.pump
        self._schedule = prescription.schedule
        self._course = Course(prescription)
        self._memory = memory
        self._findings = findings
        ordered_poll_ms = prescription.pump.poll_ms
        self._poll_ms = ordered_poll_ms if poll_ms is None else min(ordered_poll_ms, poll_ms)
        self._kvo_ml_h = max(prescription.limits.kvo_ml_h, prescription.schedule.between_ml_h)
        starts_ms = list(accumulate((phase.duration_ms for phase in self._schedule.phases), initial=0))
        self._flats = [
            (start_ms, end_ms, phase.from_ml_h)
            for phase, start_ms, end_ms in zip(
                self._schedule.phases, starts_ms[:-1], starts_ms[1:], strict=True
            )
            if not phase.is_ramp
        ]
        # the part of the course in which the rate is certainly constant: (from, to, rate), for speed
        self._flat = (0.0, -1.0, 0.0)
        self._thresholds: tuple[float, ...] = ()
        self._thresholds_for_ml_h = -1.0
        self._highest_ml_h = self._highest_allowed_ml_h()
        self._rate_limit_threshold_ml = self._surplus_allowed_ml()
        self._circumstances: tuple[object, ...] = ()
        self._quiet_timer: Timer | None = None
        if memory.day is None and prescription.limits.max_volume_ml is not None:
            memory.day = DayVolume([])
        if memory.rate_limit is None and prescription.limits.max_rate_ml_h is not None:
            memory.rate_limit = RateLimit()

    def _highest_allowed_ml_h(self) -> float:
        if self._limits.max_rate_ml_h is not None:
            return self._limits.max_rate_ml_h
        rates = [rate for phase in self._schedule.phases for rate in (phase.from_ml_h, phase.to_ml_h)]
        if self._order.titration is not None:
            rates.append(self._order.titration.max_ml_h)
        demand = self._order.demand
        bolus_ml_h = 0.0
        if demand is not None:
            bolus_ml_h = demand.bolus_ml * MS_PER_HOUR / max(demand.bolus_over_ms or 0, self._poll_ms)
        return (max(rates) + bolus_ml_h) * (1 + self._limits.tolerance)

    # --- one reading -------------------------------------------------------------------------------------

    def read(self, reading: Reading, t_ms: int, *, length_known: bool) -> None:
        """Take one reading; ``length_known`` is False if nobody knows how long it is since the last one."""
        memory = self._memory
        last_t_ms = memory.seen_t_ms
        elapsed_ms = 0 if last_t_ms is None else t_ms - last_t_ms
        delivered_ml = self._count(reading, t_ms, elapsed_ms)
        if memory.occurrence is not None:
            self._bring_forward(memory.occurrence, reading, t_ms, elapsed_ms, delivered_ml, length_known)
        else:
            if memory.run is not None:
                steady = reading.state in _DELIVERING_STATES
                memory.run.delivering_ms += elapsed_ms if steady else elapsed_ms / 2
                memory.run.volume_ml += delivered_ml or 0.0
            if delivered_ml is not None:
                memory.carry = _carry_from(reading)
        if memory.first_t_ms is None:
            memory.first_t_ms = t_ms
            memory.first_was_busy = reading.state in _BUSY_STATES
        if memory.next_number is None and memory.schedule_offset_ms is not None:
            self._anchor(reading, t_ms)
        self._act(reading, t_ms, elapsed_ms, delivered_ml)
        self._judge(reading, t_ms)
        memory.seen_t_ms = t_ms
        memory.pump_state = reading.state
        memory.rate_ml_h = reading.rate_ml_h

    def _count(self, reading: Reading, t_ms: int, elapsed_ms: int) -> float | None:
        """Volume that the patient was given since the last value of the counter; ``None`` if there is no value."""
        memory = self._memory
        carry = memory.carry
        carry.elapsed_ms += elapsed_ms
        carry.stopped = carry.stopped or reading.state not in _COUNTING_STATES
        carry.bolus = carry.bolus or reading.state is PumpState.BOLUS
        carry.priming = carry.priming or reading.state is PumpState.PRIMING
        value_ml = reading.volume_ml
        if value_ml is None:
            return None
        previous_ml, memory.counter_ml = memory.counter_ml, value_ml
        if previous_ml is None:
            return 0.0
        delivered_ml = value_ml - previous_ml
        if delivered_ml < 0:
            delivered_ml = self._across_fall(previous_ml, value_ml, reading, t_ms)
        if carry.priming:
            delivered_ml = min(delivered_ml, self._besides_priming_ml(reading, carry))
        if memory.day is not None:
            memory.day.add(t_ms, delivered_ml)
        if memory.rate_limit is not None and self._limits.max_rate_ml_h is not None:
            allowed_ml_h = self._limits.max_rate_ml_h * (1 + self._expected.accuracy)
            allowed_ml = allowed_ml_h * carry.elapsed_ms / MS_PER_HOUR
            memory.rate_limit.update(delivered_ml, allowed_ml, 2 * self._rate_limit_threshold_ml)
        return delivered_ml

    def _across_fall(self, previous_ml: float, value_ml: float, reading: Reading, t_ms: int) -> float:
        memory = self._memory
        carry = memory.carry
        delivered = delivered_across_fall(
            previous_ml,
            value_ml,
            elapsed_ms=carry.elapsed_ms,
            may_be_reset=carry.stopped or carry.elapsed_ms > self._limits.no_data_after_ms,
            counter_ml=self._expected.counter_ml,
            counter_wrap_ml=self._expected.counter_wrap_ml,
            highest_ml_h=self._highest_ml_h,
            set_ml_h=max(memory.rate_ml_h or 0.0, reading.rate_ml_h or 0.0),
        )
        if delivered.fall is CounterFall.WRAPPED:
            return delivered.volume_ml
        occurrence = memory.occurrence
        if occurrence is not None:
            occurrence.counter_reset = True
            self._forgive_reset(occurrence)
        fell = f"from {assess.volume(previous_ml)} to {assess.volume(value_ml)}"
        if delivered.fall is CounterFall.RESET:
            self._findings.present(Kind.COUNTER_RESET, t_ms, f"The pump's counter was reset, {fell}.")
            if self._order.bag is not None:
                full = assess.volume(self._order.bag.volume_ml)
                self._findings.present(Kind.BAG_CHANGED, t_ms, f"New bag taken to be hung, with {full}.")
        else:
            self._findings.present(
                Kind.COUNTER_RESET_UNEXPLAINED,
                t_ms,
                f"The pump's counter fell {fell} although the pump did not stop:"
                " ask what was done to the pump.",
            )
        return delivered.volume_ml

    def _forgive_reset(self, occurrence: Occurrence) -> None:
        """A reset of the counter hides up to one count, once."""
        occurrence.uncounted_ml = 0.0
        occurrence.bank.forgive_under(self._expected.counter_ml)

    def _besides_priming_ml(self, reading: Reading, carry: Carry) -> float:
        """The most that can have gone to the patient where priming was seen (section 1.1, rule 7)."""
        rates = [
            rate or 0.0
            for state, rate in (
                (self._memory.pump_state, self._memory.rate_ml_h),
                (reading.state, reading.rate_ml_h),
            )
            if state in _DELIVERING_STATES
        ]
        return max(rates, default=0.0) * carry.elapsed_ms / MS_PER_HOUR

    # --- the occurrence, brought forward -----------------------------------------------------------------

    def _bring_forward(
        self,
        occurrence: Occurrence,
        reading: Reading,
        t_ms: int,
        elapsed_ms: int,
        delivered_ml: float | None,
        length_known: bool,
    ) -> None:
        """Let the occurrence's own time pass up to this reading, and test what the counter shows of it."""
        memory = self._memory
        carry = memory.carry
        was_delivering = memory.doing is Doing.DELIVERING
        delivers = reading.state in _DELIVERING_STATES
        if was_delivering or delivers:
            steady = was_delivering and delivers and length_known
            passed_ms = self._passed_ms(occurrence, elapsed_ms, delivered_ml, steady, length_known)
            tau_ms = occurrence.tau_ms
            occurrence.tau_ms = tau_ms + passed_ms
            low_ml, high_ml, ordered_ml = self._prescribed_ml(occurrence, tau_ms, elapsed_ms, reading, steady)
            occurrence.expected_ml += ordered_ml
            occurrence.last_delivery_t_ms = t_ms
            carry.low_ml += low_ml
            carry.high_ml += high_ml
            if not length_known:
                carry.low_ml, carry.high_ml = 0.0, max(carry.high_ml, delivered_ml or 0.0)
        if delivered_ml is not None:
            self._test(occurrence, delivered_ml, t_ms, reading, elapsed_ms)

    def _passed_ms(
        self,
        occurrence: Occurrence,
        elapsed_ms: int,
        delivered_ml: float | None,
        steady: bool,
        length_known: bool,
    ) -> float:
        """For how long the pump delivered in an interval: all of it, or an unknown part."""
        if steady:
            return float(elapsed_ms)
        unseen_ms = min(float(elapsed_ms), self._one_count_ms(occurrence.expected_ml))
        occurrence.uncertain_ms += max(unseen_ms, min(elapsed_ms, self._poll_ms))
        if delivered_ml is None and not length_known:
            return 0.0
        if delivered_ml is None or (elapsed_ms <= 2 * self._poll_ms and length_known):
            return elapsed_ms / 2
        reached_ms = self._course.tau_of_volume(self._course.expected_ml(occurrence.tau_ms) + delivered_ml)
        passed_ms = max(0.0, reached_ms - occurrence.tau_ms)
        return min(passed_ms, float(elapsed_ms)) if length_known else passed_ms

    def _one_count_ms(self, volume_ml: float) -> float:
        """How long one count takes around this volume: so well the counter tells the time."""
        course = self._course
        return course.tau_of_volume(volume_ml + self._expected.counter_ml) - course.tau_of_volume(volume_ml)

    def _prescribed_ml(
        self, occurrence: Occurrence, tau_ms: float, elapsed_ms: int, reading: Reading, steady: bool
    ) -> tuple[float, float, float]:
        """What was prescribed from ``tau_ms`` to the occurrence's present time: at least, at most, as ordered.

        While the set rate is wrong, or may be titrated, delivery is judged against the set rate (section 3). At
        a step, or on a ramp, the pump may be a poll ahead or behind.
        """
        memory = self._memory
        now_ms = occurrence.tau_ms
        flat_from_ms, flat_to_ms, flat_ml_h = self._flat
        if flat_from_ms <= tau_ms and now_ms <= flat_to_ms and steady:
            low_ml = high_ml = ordered_ml = flat_ml_h * (now_ms - tau_ms) / MS_PER_HOUR
        else:
            course = self._course
            slack_ms = self._poll_ms + occurrence.uncertain_ms
            ordered_ml = course.expected_ml(now_ms) - course.expected_ml(tau_ms)
            until_ms = tau_ms + elapsed_ms
            shifted = [
                course.expected_ml(until_ms + shift_ms) - course.expected_ml(tau_ms + shift_ms)
                for shift_ms in (-slack_ms, 0.0, slack_ms)
            ]
            low_ml = min(shifted) if steady else 0.0
            high_ml = max(shifted)
        set_before = memory.rate_ml_h
        set_now = reading.rate_ml_h
        titrated = self._order.titration is not None
        wrong = memory.rate_is_wrong or self._rate_verdict(occurrence, reading) is not RateVerdict.RIGHT
        if (titrated or wrong) and (set_before is not None or set_now is not None):
            rates = [rate for rate in (set_before, set_now) if rate is not None]
            if steady:
                low_ml = min(rates) * elapsed_ms / MS_PER_HOUR
                high_ml = max(rates) * elapsed_ms / MS_PER_HOUR
            else:
                high_ml = max(high_ml, max(rates) * elapsed_ms / MS_PER_HOUR)
            if titrated and not wrong:
                ordered_ml = max(rates) * (now_ms - tau_ms) / MS_PER_HOUR
        return low_ml, high_ml, ordered_ml

    def _test(
        self, occurrence: Occurrence, delivered_ml: float, t_ms: int, reading: Reading, elapsed_ms: int
    ) -> None:
        """Hand what has come together since the last counter value to the tests, and begin a new carry."""
        memory = self._memory
        carry = memory.carry
        low_ml, high_ml = carry.low_ml, carry.high_ml
        bolus = carry.bolus
        memory.carry = _carry_from(reading)
        occurrence.counter_seen = True
        counter_ml = self._expected.counter_ml
        if delivered_ml > 0:
            occurrence.uncounted_ml = 0.0
            occurrence.counted_t_ms = t_ms
        else:
            occurrence.uncounted_ml += low_ml
        own_ml = delivered_ml
        demand = self._order.demand
        if demand is not None:
            memory.bolus_state_seen = memory.bolus_state_seen or bolus
            if not bolus and not memory.bolus_state_seen:
                largest_ml = counter_ml + self._expected.ripple_ml + 2 * high_ml
                if demand.bolus_ml <= 2 * largest_ml:
                    # its boluses cannot be told from its counts: what demand may give is no surplus
                    high_ml += demand.bolus_ml * elapsed_ms / demand.lockout_ms
                else:
                    bolus = delivered_ml > high_ml + largest_ml
            if bolus:
                own_ml = min(delivered_ml, high_ml)
                occurrence.bolus_ml += delivered_ml - own_ml
                if not memory.was_bolus:
                    # where a bolus begins and ends within a count is not seen
                    occurrence.bank.forgive_under(counter_ml)
                    occurrence.bank.forgive_over(counter_ml)
            memory.was_bolus = bolus
        occurrence.delivered_ml += own_ml
        over_ms = self._course.length_ms - self._poll_ms - occurrence.uncertain_ms
        if occurrence.tau_ms > over_ms and high_ml < own_ml:
            high_ml = own_ml  # after the phases' time only the whole volume is judged
        mark = Mark(t_ms, occurrence.tau_ms, occurrence.expected_ml, occurrence.delivered_ml)
        occurrence.bank.update(low_ml, high_ml, own_ml, self._limits.tolerance, mark)

    # --- what the pump does now --------------------------------------------------------------------------

    def _doing(self, reading: Reading) -> Doing:
        """What the pump does, as rules 1, 3 and 4 of section 1.1 see it."""
        occurrence = self._memory.occurrence
        state = reading.state
        volume_in = self._volume_in()
        if state is PumpState.BOLUS:
            return Doing.DELIVERING
        if state is PumpState.RUNNING:
            rate_ml_h = reading.rate_ml_h
            if rate_ml_h is None or rate_ml_h > self._kvo_ml_h or (occurrence is not None and not volume_in):
                return Doing.DELIVERING
            on_ramp = (
                self._schedule.phases[0].is_ramp
                if occurrence is None
                else self._schedule.phases[-1].is_ramp and occurrence.tau_ms < self._course.length_ms
            )
            if on_ramp and (occurrence is not None or self._open_number(self._memory.t_ms) is not None):
                return Doing.DELIVERING
            return Doing.KVO if rate_ml_h > 0 else Doing.STILL
        if state is PumpState.KVO:
            return Doing.KVO
        if occurrence is None or state in (PumpState.IDLE, PumpState.STANDBY, PumpState.COMPLETE):
            return Doing.STILL
        if volume_in and (
            state in (PumpState.PAUSED, PumpState.OFF)
            or (
                state is PumpState.ALARM
                and any(code in (PumpAlarm.EMPTY, PumpAlarm.AIR_IN_LINE) for code in reading.alarms or ())
            )
        ):
            return Doing.STILL
        return Doing.INTERRUPTED

    def _volume_in(self) -> bool:
        occurrence = self._memory.occurrence
        return occurrence is not None and volume_is_in(occurrence, self._order, self._course)

    def volume_has_come_in(self) -> bool:
        """Whether the present occurrence, or if there is none the last, has its volume."""
        if self._memory.occurrence is not None:
            return self._volume_in()
        return self._memory.last_volume_in

    def _act(self, reading: Reading, t_ms: int, elapsed_ms: int, delivered_ml: float | None) -> None:
        """Begin, interrupt, resume or end."""
        memory = self._memory
        before = memory.doing
        doing = self._doing(reading)
        if memory.occurrence is None and doing is Doing.DELIVERING:
            self._deliver_outside(reading, t_ms, elapsed_ms, delivered_ml)
        elif memory.occurrence is None:
            self._given_unseen(t_ms, elapsed_ms, delivered_ml, before)
            self._stop_run(t_ms)
        elif doing is Doing.DELIVERING:
            self._deliver(memory.occurrence, reading, t_ms)
        elif doing is Doing.INTERRUPTED:
            memory.occurrence.end_readings = 0
            self._interrupt(memory.occurrence, t_ms)
        else:
            self._end_or_wait(memory.occurrence, t_ms)
        memory.doing = doing
        if doing is not Doing.KVO:
            memory.kvo_since_t_ms = None
            memory.kvo_too_fast_readings = 0
            self._findings.absent(Kind.KVO_TOO_LONG, t_ms, "Keep-vein-open has stopped.")
        elif memory.occurrence is None and (before is not Doing.KVO or memory.kvo_since_t_ms is None):
            memory.kvo_since_t_ms = t_ms if memory.last_end_t_ms is None else memory.last_end_t_ms

    def _deliver(self, occurrence: Occurrence, reading: Reading, t_ms: int) -> None:
        """The pump delivers, and an occurrence is on."""
        occurrence.end_readings = 0
        if occurrence.interrupted_t_ms is not None:
            if self._is_next(occurrence, reading, t_ms):
                self._end(t_ms)
                self._deliver_outside(reading, t_ms, 0, None)
                return
            occurrence.interrupted_before_ms += t_ms - occurrence.interrupted_t_ms
            occurrence.interrupted_t_ms = None
            occurrence.counter_reset = False
            if (self._memory.counter_ml or 0.0) < self._expected.counter_ml:
                # at 0 before and after: a second reset would not be seen
                self._forgive_reset(occurrence)
            self._findings.absent(Kind.PAUSED_TOO_LONG, t_ms, "The pump delivers again.")
        elif occurrence.tau_ms >= self._course.length_ms and self._follows_without_stop(occurrence, t_ms):
            self._end(t_ms)
            self._deliver_outside(reading, t_ms, 0, None)

    def _is_next(self, occurrence: Occurrence, reading: Reading, t_ms: int) -> bool:
        """Whether delivery after an interruption is not this occurrence but the next (section 1.1, rule 3)."""
        due_utc_ms = self._due_utc_ms(self._memory.next_number)
        schedule_utc_ms = self._schedule_utc_ms(t_ms)
        if due_utc_ms is None or schedule_utc_ms is None:
            return False
        if abs(schedule_utc_ms - due_utc_ms) > self._limits.start_window_ms:
            return False
        whole_ml = self._course.volume_ml - self._expected.counter_ml
        programmed_anew = reading.vtbi_ml is not None and reading.vtbi_ml >= whole_ml
        return occurrence.counter_reset or programmed_anew

    def _follows_without_stop(self, occurrence: Occurrence, t_ms: int) -> bool:
        """Whether the next occurrence has begun without the pump having stopped: they follow without a gap."""
        return (
            self._course.gap_ms(occurrence.number) == 0
            and self._open_number(t_ms) == occurrence.number + 1
            and self._volume_in()
        )

    def _interrupt(self, occurrence: Occurrence, t_ms: int) -> None:
        if occurrence.interrupted_t_ms is None:
            occurrence.interrupted_t_ms = t_ms
            self._findings.absent(Kind.DOSE_TOO_SOON, t_ms, "The dose that was too soon is interrupted.")
            self._findings.absent(Kind.NOT_ENDED, t_ms, "The pump has stopped.")

    def _end_or_wait(self, occurrence: Occurrence, t_ms: int) -> None:
        """The pump says that it is over. With volume missing a second reading must say so too."""
        occurrence.end_readings += 1
        if self._volume_in() or occurrence.end_readings >= CONFIRMING_READINGS:
            self._end(t_ms)
        else:
            self._interrupt(occurrence, t_ms)

    def _end(self, t_ms: int) -> None:
        """The occurrence is over."""
        memory = self._memory
        occurrence = memory.occurrence
        assert occurrence is not None, "only what has begun can end"
        volume_in = self._volume_in()
        counted = f"pump counted {assess.volume(occurrence.delivered_ml)} of {assess.volume(self._course.volume_ml)}"
        if volume_in:
            self._findings.present(Kind.DOSE_ENDED, t_ms, f"Dose ended: {counted}.")
        else:
            left_ml = max(0.0, self._course.volume_ml - occurrence.delivered_ml)
            self._findings.present(
                Kind.STOPPED_EARLY, t_ms, f"Stopped early: {counted}, {assess.volume(left_ml)} is left."
            )
        for kind in _OF_THE_OCCURRENCE:
            self._findings.absent(kind, t_ms, "The dose is over.")
        memory.last_end_t_ms = t_ms
        memory.last_volume_in = volume_in
        memory.emptied = (
            occurrence if not volume_in and self._findings.present_codes(Kind.BAG_EMPTY) else None
        )
        memory.occurrence = None
        memory.rate_is_wrong = False
        memory.wrong_readings = 0
        memory.kvo_since_t_ms = None

    def _deliver_outside(
        self, reading: Reading, t_ms: int, elapsed_ms: int, delivered_ml: float | None
    ) -> None:
        """The pump delivers and no occurrence is on: one begins, or nothing of the kind is due."""
        memory = self._memory
        if memory.emptied is not None:
            self._go_on(memory.emptied, t_ms, delivered_ml)
            return
        if memory.run is None:
            memory.run = Run(t_ms)
            if elapsed_ms > 2 * self._poll_ms and delivered_ml:
                # begun unseen: the counter tells how long ago
                ran_ms = min(float(elapsed_ms), self._course.tau_of_volume(delivered_ml))
            else:
                ran_ms = min(elapsed_ms, self._poll_ms) / 2
            memory.run.delivering_ms = ran_ms
            memory.run.volume_ml = delivered_ml or 0.0
            memory.run.since_t_ms = t_ms if elapsed_ms <= 2 * self._poll_ms else t_ms - round(ran_ms)
        run = memory.run
        run.readings += 1
        self._miss_before(run.since_t_ms, t_ms)
        number = self._open_number(t_ms)
        if number is not None:
            self._begin(number, run, t_ms, elapsed_ms)
        elif self._due_times_are_judged() and run.readings >= CONFIRMING_READINGS:
            self._findings.present(
                Kind.UNSCHEDULED_DELIVERY,
                t_ms,
                f"The pump delivers{self._at_rate(reading)} although no dose is due{self._next_due_words()}.",
                since_t_ms=run.since_t_ms,
            )

    def _stop_run(self, t_ms: int) -> None:
        if self._memory.run is not None:
            self._memory.run = None
            self._findings.absent(Kind.UNSCHEDULED_DELIVERY, t_ms, "The pump has stopped.")

    def _begin(self, number: int, run: Run, t_ms: int, elapsed_ms: int) -> None:
        """This delivery is the occurrence with this number."""
        memory = self._memory
        due_utc_ms = self._due_utc_ms(number)
        if due_utc_ms is None:
            due_utc_ms = run.since_t_ms + memory.utc_offset_ms
        occurrence = self._occurrence(number, due_utc_ms, run.since_t_ms, run.delivering_ms, t_ms)
        occurrence.delivered_ml = run.volume_ml
        occurrence.counter_seen = memory.counter_ml is not None
        unseen_ms = max(0.0, float(elapsed_ms - self._poll_ms))
        occurrence.uncertain_ms = min(unseen_ms, self._one_count_ms(run.volume_ml))
        memory.occurrence = occurrence
        memory.next_number = number + 1
        memory.run = None
        self._findings.absent(Kind.UNSCHEDULED_DELIVERY, t_ms, "It is the dose that is due.")
        self._findings.absent(Kind.NOT_STARTED, t_ms, "The dose has started.")
        self._findings.present(Kind.DOSE_STARTED, t_ms, f"Dose {number} started.")
        last_t_ms, memory.last_begin_t_ms = memory.last_begin_t_ms, run.since_t_ms
        if (
            last_t_ms is not None
            and run.since_t_ms - last_t_ms < self._limits.min_interval_ms - self._poll_ms
        ):
            apart = assess.minutes(run.since_t_ms - last_t_ms)
            least = assess.minutes(self._limits.min_interval_ms)
            self._findings.present(
                Kind.DOSE_TOO_SOON,
                t_ms,
                f"Dose too soon: begun {apart} after the last one, and at least {least} are ordered between.",
                since_t_ms=run.since_t_ms,
            )

    def _occurrence(
        self, number: int, due_utc_ms: int, begun_t_ms: int, tau_ms: float, t_ms: int
    ) -> Occurrence:
        expected_ml = self._course.expected_ml(tau_ms)
        self._flat = (0.0, -1.0, 0.0)
        self._memory.titrated_ml_h = None
        self._memory.titrated_t_ms = None
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

    def _go_on(self, occurrence: Occurrence, t_ms: int, delivered_ml: float | None) -> None:
        """A new bag was hung in place of the empty one: it is still the same occurrence."""
        memory = self._memory
        memory.occurrence = occurrence
        memory.emptied = None
        memory.run = None
        self._findings.retract(Kind.STOPPED_EARLY, t_ms, "The dose goes on.")
        occurrence.delivered_ml += delivered_ml or 0.0
        if occurrence.interrupted_t_ms is not None:
            occurrence.interrupted_before_ms += t_ms - occurrence.interrupted_t_ms
            occurrence.interrupted_t_ms = None
        occurrence.end_readings = 0
        occurrence.counter_reset = False

    def _given_unseen(self, t_ms: int, elapsed_ms: int, delivered_ml: float | None, before: Doing) -> None:
        """The pump stood still at both readings, and the counter shows what was given between them."""
        if not delivered_ml or before is Doing.DELIVERING or self._memory.next_number is None:
            return
        kvo_ml = self._kvo_ml_h * elapsed_ms / MS_PER_HOUR * (1 + self._limits.tolerance)
        rest_ml = delivered_ml - kvo_ml
        enough_ml = (1 - self._limits.tolerance) * self._course.volume_ml - self._expected.counter_ml
        silent = elapsed_ms > self._limits.no_data_after_ms
        while rest_ml > max(
            self._expected.counter_ml, 0.05 * self._course.volume_ml if silent else enough_ml
        ):
            number = self._open_number(t_ms)
            if number is None:
                return
            given_ml = (
                min(rest_ml, self._course.volume_ml) if rest_ml < 2 * enough_ml else self._course.volume_ml
            )
            rest_ml -= given_ml
            tau_ms = self._course.tau_of_volume(given_ml)
            self._begin(number, Run(t_ms, 1, tau_ms, given_ml), t_ms, elapsed_ms)
            self._end(t_ms)

    # --- the schedule ------------------------------------------------------------------------------------

    def _schedule_utc_ms(self, t_ms: int) -> int | None:
        offset_ms = self._memory.schedule_offset_ms
        return None if offset_ms is None else t_ms + offset_ms

    def _due_times_are_judged(self) -> bool:
        """Not before the clock was ever synced, nor after a gap of which nobody knows how long it was."""
        return self._memory.next_number is not None and self._memory.schedule_offset_ms is not None

    def _due_utc_ms(self, number: int | None) -> int | None:
        return None if number is None else self._course.due_utc_ms(number)

    def _latest_begin_utc_ms(self, number: int) -> int | None:
        """Until when a late dose may still be begun (``give_within``)."""
        due_utc_ms = self._course.due_utc_ms(number)
        if due_utc_ms is None:
            return None
        latest_utc_ms = due_utc_ms + self._limits.give_within_ms
        following_utc_ms = self._course.due_utc_ms(number + 1)
        if following_utc_ms is not None:
            if self._course.gap_ms(number):
                following_utc_ms -= self._limits.start_window_ms
            latest_utc_ms = min(latest_utc_ms, following_utc_ms)
        return latest_utc_ms

    def _open_number(self, t_ms: int) -> int | None:
        """The occurrence that delivery beginning now would be; ``None`` if none may begin."""
        number = self._memory.next_number
        schedule_utc_ms = self._schedule_utc_ms(t_ms)
        if number is None or schedule_utc_ms is None:
            return None
        if self._schedule.as_needed:
            more = self._schedule.times == 0 or number <= self._schedule.times
            return number if more and schedule_utc_ms >= self._schedule.start_utc_ms else None
        due_utc_ms = self._course.due_utc_ms(number)
        if due_utc_ms is None or schedule_utc_ms < due_utc_ms - self._limits.start_window_ms:
            return None
        return number

    def _another_is_to_come(self) -> bool:
        number = self._memory.next_number
        if number is None:
            return True  # not known: nothing may be held against the pump
        if self._schedule.as_needed:
            return self._schedule.times == 0 or number <= self._schedule.times
        return self._course.due_utc_ms(number) is not None

    def _miss_before(self, begun_t_ms: int, t_ms: int) -> None:
        """Occurrences that could not be begun any more when this delivery began were missed."""
        begun_utc_ms = self._schedule_utc_ms(begun_t_ms)
        while self._memory.next_number is not None and begun_utc_ms is not None:
            latest_utc_ms = self._latest_begin_utc_ms(self._memory.next_number)
            if latest_utc_ms is None or latest_utc_ms >= begun_utc_ms:
                return
            self._miss(t_ms)

    def _anchor(self, reading: Reading, t_ms: int) -> None:
        """The clock is synced, and the pump has been heard: from here on due times are judged (rule 5)."""
        memory = self._memory
        first_t_ms = memory.first_t_ms if memory.first_t_ms is not None else t_ms
        first_utc_ms = self._schedule_utc_ms(first_t_ms)
        assert first_utc_ms is not None, "anchored by a synced clock"
        if self._schedule.as_needed:
            memory.next_number = 1
            return
        number = self._course.number_due_at_or_before(first_utc_ms)
        due_utc_ms = self._course.due_utc_ms(number)
        length_ms = self._course.length_ms
        window_ms = self._limits.start_window_ms
        if due_utc_ms is not None and memory.first_was_busy and reading.state in _BUSY_STATES:
            since_due_ms = first_utc_ms - due_utc_ms
            if since_due_ms <= length_ms + window_ms:
                self._join(number, due_utc_ms, since_due_ms, first_t_ms, t_ms)
                return
        memory.next_number = max(1, number)
        if due_utc_ms is not None and first_utc_ms >= due_utc_ms - window_ms + length_ms:
            memory.next_number = number + 1  # it may have been given before anybody looked
        while True:
            latest_utc_ms = self._latest_begin_utc_ms(memory.next_number)
            if latest_utc_ms is None or latest_utc_ms >= first_utc_ms:
                break
            memory.next_number += 1

    def _join(self, number: int, due_utc_ms: int, since_due_ms: int, first_t_ms: int, t_ms: int) -> None:
        """Join an occurrence that was on when the pump was first heard (section 1.1, rule 5)."""
        memory = self._memory
        run = memory.run
        tau_ms = float(min(since_due_ms, self._course.length_ms))
        joined_ml = self._course.expected_ml(tau_ms)
        if run is not None:
            tau_ms += run.delivering_ms
        occurrence = self._occurrence(number, due_utc_ms, first_t_ms - since_due_ms, tau_ms, t_ms)
        occurrence.joined_at_ml = joined_ml
        occurrence.counter_seen = memory.counter_ml is not None
        occurrence.delivered_ml = joined_ml + (run.volume_ml if run is not None else 0.0)
        occurrence.uncertain_ms = float(self._poll_ms)
        occurrence.bank = Bank.fresh(Mark(t_ms, tau_ms, occurrence.expected_ml, occurrence.delivered_ml))
        memory.occurrence = occurrence
        memory.run = None
        memory.next_number = number + 1
        memory.last_begin_t_ms = occurrence.begun_t_ms
        self._findings.present(
            Kind.DOSE_STARTED, t_ms, f"Dose {number} was found running and is taken to have begun when due."
        )

    # --- judgements --------------------------------------------------------------------------------------

    def _judge(self, reading: Reading, t_ms: int) -> None:
        memory = self._memory
        self._judge_rate(reading, t_ms)
        self._judge_kvo(reading, t_ms)
        self._judge_limits(reading, t_ms)
        occurrence = memory.occurrence
        if occurrence is not None and memory.doing is Doing.DELIVERING:
            self._judge_volume(occurrence, t_ms)
            late_ms = occurrence.tau_ms - self._course.length_ms
            if late_ms > self._limits.end_window_ms:
                self._findings.present(
                    Kind.NOT_ENDED,
                    t_ms,
                    f"Delivery goes on {assess.minutes(late_ms)} after its end:"
                    f" pump counted {assess.volume(occurrence.delivered_ml)}"
                    f" of {assess.volume(self._course.volume_ml)}.",
                    since_t_ms=t_ms - round(late_ms),
                )

    def _allowed_rates(self, occurrence: Occurrence | None) -> tuple[tuple[float, float], ...]:
        if occurrence is None:
            return self._course.rates_between(0, self._course.length_ms)
        slack_ms = 2 * self._poll_ms + occurrence.uncertain_ms
        tau_ms = min(occurrence.tau_ms, float(self._course.length_ms))
        return self._course.rates_between(tau_ms - slack_ms, tau_ms + slack_ms)

    def _rate_verdict(self, occurrence: Occurrence | None, reading: Reading) -> RateVerdict:
        rate_ml_h = reading.rate_ml_h
        if rate_ml_h is None or reading.state is not PumpState.RUNNING:
            return RateVerdict.RIGHT
        tolerance = self._limits.tolerance
        if occurrence is not None:
            flat_from_ms, flat_to_ms, flat_ml_h = self._flat
            if not flat_from_ms <= occurrence.tau_ms <= flat_to_ms:
                self._flat = self._flat_part(occurrence)
            elif abs(rate_ml_h - flat_ml_h) <= flat_ml_h * tolerance:
                return RateVerdict.RIGHT
        ordered_ml_h = self._ordered_ml_h(occurrence)
        verdict = assess.judge_rate(rate_ml_h, self._allowed_rates(occurrence), ordered_ml_h, tolerance)
        titration = self._order.titration
        if verdict is RateVerdict.RIGHT or titration is None:
            return verdict
        if rate_ml_h < titration.min_ml_h - assess.DISPLAY_MARGIN_ML_H:
            return RateVerdict.BELOW
        if rate_ml_h > titration.max_ml_h + assess.DISPLAY_MARGIN_ML_H:
            return RateVerdict.ABOVE
        return RateVerdict.RIGHT if self._may_be_titrated(rate_ml_h, ordered_ml_h) else verdict

    def _may_be_titrated(self, rate_ml_h: float, ordered_ml_h: float) -> bool:
        """Whether the bedside may change the rate to this one now: step and interval of ``[titration]``."""
        titration = self._order.titration
        assert titration is not None, "asked only where there is a range"
        memory = self._memory
        base_ml_h = ordered_ml_h if memory.titrated_ml_h is None else memory.titrated_ml_h
        change_ml_h = abs(rate_ml_h - base_ml_h)
        if change_ml_h <= assess.DISPLAY_MARGIN_ML_H:
            return True
        if titration.step_ml_h is not None and change_ml_h > titration.step_ml_h + assess.DISPLAY_MARGIN_ML_H:
            return False
        if titration.min_interval_ms is None or memory.titrated_t_ms is None:
            return True
        return memory.t_ms - memory.titrated_t_ms >= titration.min_interval_ms - self._poll_ms

    def _ordered_ml_h(self, occurrence: Occurrence | None) -> float:
        """The rate that is ordered now; at the very end, and after it, the last."""
        if occurrence is None:
            return self._course.rate_ml_h(0)
        return self._course.rate_ml_h(min(occurrence.tau_ms, self._course.length_ms - 1))

    def _flat_part(self, occurrence: Occurrence) -> tuple[float, float, float]:
        """Where around now the rate is constant whatever the slack, for the quick way through."""
        slack_ms = 2 * self._poll_ms + occurrence.uncertain_ms
        for start_ms, end_ms, rate_ml_h in self._flats:
            if start_ms + slack_ms <= occurrence.tau_ms <= end_ms - slack_ms:
                return (start_ms + slack_ms, end_ms - slack_ms, rate_ml_h)
        return (0.0, -1.0, 0.0)

    def _judge_rate(self, reading: Reading, t_ms: int) -> None:
        memory = self._memory
        occurrence = memory.occurrence
        anchored = memory.next_number is not None
        if reading.state is not PumpState.RUNNING or reading.rate_ml_h is None:
            return  # a rate that is not shown neither raises nor ends anything
        if memory.doing is not Doing.DELIVERING or (occurrence is None and anchored):
            memory.rate_is_wrong = False
            memory.wrong_readings = 0
            return
        verdict = self._rate_verdict(occurrence, reading)
        memory.rate_is_wrong = verdict is not RateVerdict.RIGHT
        if verdict is RateVerdict.RIGHT:
            memory.wrong_readings = 0
            self._findings.absent(Kind.WRONG_RATE, t_ms, "The set rate is right again.")
            self._note_titration(occurrence, reading.rate_ml_h, t_ms)
            return
        memory.wrong_readings += 1
        if memory.wrong_readings == 1:
            memory.wrong_since_t_ms = t_ms
        if memory.wrong_readings < CONFIRMING_READINGS:
            return
        self._findings.present(
            Kind.WRONG_RATE,
            t_ms,
            self._wrong_rate_words(reading.rate_ml_h, self._ordered_ml_h(occurrence), verdict),
            priority=row(Kind.WRONG_RATE).priority(self._order.urgency, verdict.value),
            since_t_ms=memory.wrong_since_t_ms,
        )

    def _wrong_rate_words(self, rate_ml_h: float, ordered_ml_h: float, verdict: RateVerdict) -> str:
        words = f"The pump is set to {assess.rate(rate_ml_h)} instead of {assess.rate(ordered_ml_h)}"
        slip = assess.slip(rate_ml_h, ordered_ml_h, self._order)
        if slip is not None:
            return f"{words}, {slip}"
        if verdict is RateVerdict.BELOW:
            return f"{words}: slowed or held? Ask about a reaction."
        return f"{words}."

    def _note_titration(self, occurrence: Occurrence | None, rate_ml_h: float, t_ms: int) -> None:
        memory = self._memory
        if self._order.titration is None or occurrence is None:
            return
        before_ml_h = memory.titrated_ml_h
        if before_ml_h is None:
            before_ml_h = self._ordered_ml_h(occurrence)
        if abs(rate_ml_h - before_ml_h) > assess.DISPLAY_MARGIN_ML_H:
            memory.titrated_t_ms = t_ms
            self._findings.present(
                Kind.TITRATED,
                t_ms,
                f"Rate changed from {assess.rate(before_ml_h)} to {assess.rate(rate_ml_h)},"
                " within the ordered range.",
            )
        memory.titrated_ml_h = rate_ml_h

    def _judge_volume(self, occurrence: Occurrence, t_ms: int) -> None:
        """Under- and over-infusion by the tests, a standstill, and the volume as a whole."""
        thresholds = self._thresholds_now(occurrence)
        bank = occurrence.bank
        passed_ms = t_ms - (self._memory.seen_t_ms or t_ms)
        if self._findings.is_present(Kind.NO_DELIVERY) and occurrence.uncounted_ml == 0.0:
            self._findings.absent(Kind.NO_DELIVERY, t_ms, "The pump's counter moves again.")
            bank.under_ml = [
                min(value, threshold / 2) for value, threshold in zip(bank.under_ml, thresholds, strict=True)
            ]
        if occurrence.under is None:
            deficit = bank.too_little(thresholds)
            if deficit is not None:
                self._too_little(occurrence, deficit, t_ms)
            elif occurrence.suspected is not None:
                # the counter has moved after all, but later than the tests bear: it is slow
                self._under_infusion(occurrence, occurrence.suspected, t_ms)
        elif not occurrence.under.goes_on(bank.under_ml, thresholds, passed_ms):
            occurrence.under = None
            self._findings.absent(Kind.UNDER_INFUSION, t_ms, "Pump counted what was ordered again.")
        whole_exceeded_by_ml = occurrence.delivered_ml - self._most_ml
        if occurrence.over is None:
            surplus = bank.too_much(thresholds)
            if surplus is not None:
                took_ms = max(occurrence.tau_ms - surplus.since.tau_ms, 2 * self._poll_ms)
                occurrence.over = Deviation(took_ms)
                self._findings.present(
                    Kind.OVER_INFUSION,
                    t_ms,
                    self._deviation_words("Over-infusion", occurrence, surplus, t_ms),
                    since_t_ms=surplus.since.t_ms,
                )
            elif whole_exceeded_by_ml > 0:
                self._findings.present(
                    Kind.OVER_INFUSION,
                    t_ms,
                    f"Over-infusion: pump counted {assess.volume(occurrence.delivered_ml)},"
                    f" and {assess.volume(self._course.volume_ml)} are ordered for the whole dose.",
                )
        elif not occurrence.over.goes_on(bank.over_ml, thresholds, passed_ms):
            occurrence.over = None
            if whole_exceeded_by_ml <= 0:
                self._findings.absent(Kind.OVER_INFUSION, t_ms, "Pump counted what was ordered again.")

    @property
    def _most_ml(self) -> float:
        """What a whole occurrence may have counted without having exceeded its volume by more than tolerated."""
        pump = self._expected
        volume_ml = self._course.volume_ml
        walk_ml = 4 * sqrt(STROKE_VARIANCE * pump.stroke_ml * volume_ml)
        return volume_ml * (1 + self._limits.tolerance) + pump.counter_ml + pump.ripple_ml + walk_ml

    def _thresholds_now(self, occurrence: Occurrence) -> tuple[float, ...]:
        """The tests' thresholds at the rate of now: the ordered one, or the set one where that is judged by."""
        rate_ml_h = self._ordered_ml_h(occurrence)
        set_ml_h = self._memory.rate_ml_h
        if set_ml_h is not None and (self._memory.rate_is_wrong or self._order.titration is not None):
            rate_ml_h = max(rate_ml_h, set_ml_h)
        if abs(rate_ml_h - self._thresholds_for_ml_h) > 0.05 * self._thresholds_for_ml_h:
            self._thresholds_for_ml_h = rate_ml_h
            self._thresholds = thresholds_ml(rate_ml_h * 1.05, self._expected, self._poll_ms)
        return self._thresholds

    def _too_little(self, occurrence: Occurrence, deficit: Excess, t_ms: int) -> None:
        """Much less has been counted than was prescribed: does the counter move slowly, or not at all?

        At a low rate both look the same until the next count is well overdue: so long nothing is said.
        """
        standing_ml = occurrence.uncounted_ml * (1 - self._limits.tolerance - deficit.reference)
        if standing_ml < STANDSTILL_SHARE * deficit.value_ml:
            self._under_infusion(occurrence, deficit, t_ms)
            return
        if occurrence.uncounted_ml < OVERDUE_COUNTS * self._expected.counter_ml + self._expected.ripple_ml:
            occurrence.suspected = occurrence.suspected or deficit
            return
        occurrence.suspected = None
        self._findings.present(
            Kind.NO_DELIVERY,
            t_ms,
            f"The pump says that it delivers, and its counter has stood still at"
            f" {assess.volume(self._memory.counter_ml or 0.0)}"
            f" for {assess.minutes(t_ms - occurrence.counted_t_ms)}.",
            since_t_ms=occurrence.counted_t_ms,
        )

    def _under_infusion(self, occurrence: Occurrence, deficit: Excess, t_ms: int) -> None:
        occurrence.suspected = None
        if self._findings.is_present(Kind.NO_DELIVERY):
            return
        took_ms = max(occurrence.tau_ms - deficit.since.tau_ms, 2 * self._poll_ms)
        occurrence.under = Deviation(took_ms)
        self._findings.present(
            Kind.UNDER_INFUSION,
            t_ms,
            self._deviation_words("Under-infusion", occurrence, deficit, t_ms),
            since_t_ms=deficit.since.t_ms,
        )

    def _deviation_words(self, name: str, occurrence: Occurrence, excess: Excess, t_ms: int) -> str:
        """``Under-infusion: pump counted 13.30 mL, 0.31 mL (2.3 %) behind; flow 8.0 instead of 10.0 mL/h ...``"""
        since = excess.since
        difference_ml = occurrence.delivered_ml - occurrence.expected_ml
        percent = abs(difference_ml) / occurrence.expected_ml * 100 if occurrence.expected_ml > 0 else 0.0
        lasted_ms = max(occurrence.tau_ms - since.tau_ms, 1.0)
        flow_ml_h = (occurrence.delivered_ml - since.delivered_ml) * MS_PER_HOUR / lasted_ms
        ordered_ml_h = (occurrence.expected_ml - since.expected_ml) * MS_PER_HOUR / lasted_ms
        place = "ahead" if difference_ml > 0 else "behind"
        return (
            f"{name}: pump counted {assess.volume(occurrence.delivered_ml)},"
            f" {assess.volume(abs(difference_ml))} ({percent:.1f} %) {place};"
            f" flow {assess.rate(flow_ml_h)} instead of {assess.rate(ordered_ml_h)}"
            f" for about {assess.minutes(t_ms - since.t_ms)}."
        )

    def _judge_kvo(self, reading: Reading, t_ms: int) -> None:
        memory = self._memory
        if memory.doing is not Doing.KVO or reading.rate_ml_h is None:
            return
        most_ml_h = self._kvo_ml_h * (1 + self._limits.tolerance) + assess.DISPLAY_MARGIN_ML_H
        memory.kvo_too_fast_readings = (
            memory.kvo_too_fast_readings + 1 if reading.rate_ml_h > most_ml_h else 0
        )
        if memory.kvo_too_fast_readings >= CONFIRMING_READINGS:
            self._findings.present(
                Kind.KVO_TOO_LONG,
                t_ms,
                f"Keep-vein-open runs at {assess.rate(reading.rate_ml_h)};"
                f" at most {assess.rate(self._kvo_ml_h)} are ordered.",
            )

    def _kvo_may_stay(self) -> bool:
        """KVO at up to ``between_ml_h`` is right for as long as another occurrence is to come (rule 4)."""
        rate_ml_h = self._memory.rate_ml_h
        between_ml_h = self._schedule.between_ml_h
        slow = rate_ml_h is None or rate_ml_h <= between_ml_h * (1 + self._limits.tolerance) + (
            assess.DISPLAY_MARGIN_ML_H
        )
        return between_ml_h > 0 and slow and self._another_is_to_come()

    def _judge_limits(self, reading: Reading, t_ms: int) -> None:
        """Hard limits of rate (programmed, delivered) and of volume in any 24 h."""
        memory = self._memory
        limits = self._limits
        if limits.max_rate_ml_h is None and limits.max_volume_ml is None:
            return
        passed: list[str] = []
        if limits.max_rate_ml_h is not None and memory.rate_limit is not None:
            too_fast = reading.rate_ml_h is not None and (
                reading.rate_ml_h > limits.max_rate_ml_h + assess.DISPLAY_MARGIN_ML_H
            )
            memory.above_limit_readings = memory.above_limit_readings + 1 if too_fast else 0
            if memory.above_limit_readings >= CONFIRMING_READINGS:
                passed.append(
                    f"set to {assess.rate(reading.rate_ml_h or 0.0)},"
                    f" and never more than {assess.rate(limits.max_rate_ml_h)} are allowed"
                )
            elif memory.rate_limit.surplus_ml > self._rate_limit_threshold_ml:
                passed.append(
                    f"pump counted more than {assess.rate(limits.max_rate_ml_h)}, the most that is allowed"
                )
        if limits.max_volume_ml is not None and memory.day is not None:
            day_ml = memory.day.within_ml(t_ms)
            if day_ml > limits.max_volume_ml + self._expected.counter_ml:
                passed.append(
                    f"pump counted {assess.volume(day_ml)} within 24 h,"
                    f" and at most {assess.volume(limits.max_volume_ml)} are allowed"
                )
        if passed:
            self._findings.present(Kind.LIMIT_EXCEEDED, t_ms, f"Limit passed: {'; '.join(passed)}.")
        elif memory.above_limit_readings == 0 and (
            memory.rate_limit is None or memory.rate_limit.surplus_ml <= self._rate_limit_threshold_ml / 2
        ):
            self._findings.absent(Kind.LIMIT_EXCEEDED, t_ms, "The limit is kept again.")

    def _surplus_allowed_ml(self) -> float:
        """How far the test of the hard limit of rate may go."""
        limit_ml_h = self._limits.max_rate_ml_h or 0.0
        demand = self._order.demand
        # a bolus of which only the counts are seen comes all at once
        at_once_ml = demand.bolus_ml if demand is not None and demand.bolus_over_ms is None else 0.0
        return thresholds_ml(limit_ml_h, self._expected, self._poll_ms)[2] + at_once_ml

    # --- times that run out ------------------------------------------------------------------------------

    def run_timers(self, until_t_ms: int, *, inclusive: bool) -> None:
        """Let time pass: whatever is up before ``until_t_ms`` (or at it) happens, in order.

        While ``no_data`` lasts nothing else runs (prescription page, section 2, "Timers").
        """
        while True:
            timer = self._next_timer()
            if timer is None or timer[0] > until_t_ms or (timer[0] == until_t_ms and not inclusive):
                return
            timer[1](max(timer[0], self._memory.floor_t_ms))

    def next_timer_t_ms(self) -> int | None:
        """When the next time is up if nothing is heard before."""
        timer = self._next_timer()
        return None if timer is None else timer[0]

    def _next_timer(self) -> Timer | None:
        if self._findings.is_present(Kind.NO_DATA):
            return None
        memory = self._memory
        occurrence = memory.occurrence
        # all that these timers hang on: while it stays the same, so do they
        circumstances = (
            memory.next_number,
            memory.doing,
            memory.schedule_offset_ms,
            None if occurrence is None else occurrence.interrupted_t_ms,
            memory.kvo_since_t_ms,
            memory.rate_ml_h,
            memory.last_end_t_ms,
            self._findings.changes,
        )
        if circumstances != self._circumstances:
            self._circumstances = circumstances
            self._quiet_timer = min(self._timers(), key=_when, default=None)
        silence = self._no_data_timer()
        if silence is None or (self._quiet_timer is not None and self._quiet_timer[0] <= silence[0]):
            return self._quiet_timer
        return silence

    def _timers(self) -> Iterator[Timer]:
        memory = self._memory
        if memory.occurrence is None:
            yield from self._start_timers()
        else:
            yield from self._interruption_timers(memory.occurrence)
        if (
            memory.doing is Doing.KVO
            and memory.kvo_since_t_ms is not None
            and not self._findings.is_present(Kind.KVO_TOO_LONG)
            and not self._kvo_may_stay()
        ):
            yield memory.kvo_since_t_ms + self._limits.kvo_max_ms, self._kvo_too_long

    def _at_schedule(self, utc_ms: int) -> int | None:
        offset_ms = self._memory.schedule_offset_ms
        return None if offset_ms is None else utc_ms - offset_ms

    def _start_timers(self) -> Iterator[Timer]:
        memory = self._memory
        number = memory.next_number
        due_utc_ms = self._due_utc_ms(number)
        if number is None or due_utc_ms is None:
            return
        due_t_ms = self._at_schedule(due_utc_ms)
        latest_utc_ms = self._latest_begin_utc_ms(number)
        if due_t_ms is None or latest_utc_ms is None:
            return
        if number > 1 and self._course.gap_ms(number - 1) == 0 and memory.last_end_t_ms is not None:
            due_t_ms = max(due_t_ms, memory.last_end_t_ms)
        if not self._findings.is_present(Kind.NOT_STARTED):
            yield due_t_ms + self._limits.start_window_ms, self._not_started
        latest_t_ms = self._at_schedule(latest_utc_ms)
        if latest_t_ms is not None:
            yield latest_t_ms, self._miss

    def _interruption_timers(self, occurrence: Occurrence) -> Iterator[Timer]:
        began_t_ms = occurrence.interrupted_t_ms
        if began_t_ms is None:
            return
        if not self._findings.is_present(Kind.PAUSED_TOO_LONG):
            allowed_ms = self._limits.max_pause_ms
            if self._limits.max_total_pause_ms is not None:
                left_ms = self._limits.max_total_pause_ms - occurrence.interrupted_before_ms
                allowed_ms = max(0, min(allowed_ms, left_ms))
            yield began_t_ms + allowed_ms, self._paused_too_long
        next_due_utc_ms = self._course.due_utc_ms(occurrence.number + 1)
        if next_due_utc_ms is None:
            yield occurrence.last_delivery_t_ms + MS_PER_DAY, self._end
            return
        next_due_t_ms = self._at_schedule(next_due_utc_ms)
        if next_due_t_ms is not None:
            yield next_due_t_ms, self._end

    def _no_data_timer(self) -> Timer | None:
        """When silence becomes a condition: only while something may be expected of the pump (section 2)."""
        memory = self._memory
        heard_t_ms = memory.seen_t_ms if memory.seen_t_ms is not None else memory.started_t_ms
        if heard_t_ms is None:
            return None
        silent_t_ms = heard_t_ms + self._limits.no_data_after_ms
        if memory.occurrence is not None or memory.doing in (Doing.DELIVERING, Doing.KVO):
            return silent_t_ms, self._no_data
        between = memory.last_begin_t_ms is not None and self._schedule.between_ml_h > 0
        if between and self._another_is_to_come():
            return silent_t_ms, self._no_data
        due_t_ms = self._expected_from_t_ms()
        return None if due_t_ms is None else (max(silent_t_ms, due_t_ms), self._no_data)

    def _expected_from_t_ms(self) -> int | None:
        """From when on an occurrence is due that has not begun."""
        memory = self._memory
        number = memory.next_number
        if number is None and memory.schedule_offset_ms is not None and memory.first_t_ms is None:
            # nothing was ever heard of the pump
            number = max(1, self._course.number_due_at_or_before(memory.t_ms + memory.schedule_offset_ms))
        due_utc_ms = self._due_utc_ms(number)
        return None if due_utc_ms is None else self._at_schedule(due_utc_ms)

    def _no_data(self, t_ms: int) -> None:
        heard_t_ms = self._memory.seen_t_ms
        since = (
            f"for {assess.minutes(t_ms - heard_t_ms)}" if heard_t_ms is not None else "since watching began"
        )
        self._findings.present(
            Kind.NO_DATA,
            t_ms,
            f"No data from the pump {since}: nobody can see whether it delivers.",
            since_t_ms=heard_t_ms,
        )

    def heard(self, t_ms: int) -> None:
        """A reading has come."""
        if self._findings.is_present(Kind.NO_DATA):
            self._memory.floor_t_ms = t_ms
            self._findings.absent(Kind.NO_DATA, t_ms, _NOT_STOPPED_BY_SILENCE)

    def _not_started(self, t_ms: int) -> None:
        window = assess.minutes(self._limits.start_window_ms)
        self._findings.present(
            Kind.NOT_STARTED,
            t_ms,
            f"Dose {self._memory.next_number} has not been started within {window} of when it was due.",
        )

    def _miss(self, t_ms: int) -> None:
        """What is open can no longer be begun."""
        number = self._memory.next_number
        assert number is not None, "only what is due can be missed"
        self._findings.absent(Kind.NOT_STARTED, t_ms, "Not started, and now missed.")
        self._findings.present(
            Kind.DOSE_MISSED,
            t_ms,
            f"Dose {number} was missed: pump counted nothing of it in time.",
        )
        self._memory.next_number = number + 1

    def _paused_too_long(self, t_ms: int) -> None:
        occurrence = self._memory.occurrence
        assert occurrence is not None, "only what has begun can be paused"
        began_t_ms = occurrence.interrupted_t_ms
        assert began_t_ms is not None, "only while it is interrupted"
        total_ms = occurrence.interrupted_before_ms + t_ms - began_t_ms
        if t_ms - began_t_ms >= self._limits.max_pause_ms:
            lasted = f"for {assess.minutes(t_ms - began_t_ms)}"
        else:
            lasted = f"for {assess.minutes(total_ms)} in all"
        self._findings.present(
            Kind.PAUSED_TOO_LONG,
            t_ms,
            f"Delivery has been interrupted {lasted}: pump counted {assess.volume(occurrence.delivered_ml)}"
            f" of {assess.volume(self._course.volume_ml)}.",
            since_t_ms=began_t_ms,
        )

    def _kvo_too_long(self, t_ms: int) -> None:
        since_t_ms = self._memory.kvo_since_t_ms
        assert since_t_ms is not None, "only while KVO runs"
        self._findings.present(
            Kind.KVO_TOO_LONG,
            t_ms,
            f"Keep-vein-open has run for {assess.minutes(t_ms - since_t_ms)} after the end.",
            since_t_ms=since_t_ms,
        )

    # --- words -------------------------------------------------------------------------------------------

    def _at_rate(self, reading: Reading) -> str:
        return f" {assess.rate(reading.rate_ml_h)}" if reading.rate_ml_h is not None else ""

    def _next_due_words(self) -> str:
        memory = self._memory
        due_utc_ms = self._due_utc_ms(memory.next_number)
        if due_utc_ms is None:
            return "" if self._schedule.as_needed else " any more"
        now_utc_ms = self._schedule_utc_ms(memory.t_ms)
        if now_utc_ms is None or due_utc_ms <= now_utc_ms:
            return ""
        return f", the next one only in {assess.minutes(due_utc_ms - now_utc_ms)}"

    # --- how it stands -----------------------------------------------------------------------------------

    def is_due(self, t_ms: int) -> bool:
        """Whether an occurrence is due and has not begun."""
        due_t_ms = self._expected_from_t_ms()
        return due_t_ms is not None and due_t_ms <= t_ms

    def left_ms(self) -> int:
        """How much of the phases' time is left of the present occurrence."""
        occurrence = self._memory.occurrence
        return 0 if occurrence is None else max(0, round(self._course.length_ms - occurrence.tau_ms))

    def decidable_after_s(self) -> int | None:
        """When a shift well beyond the tolerance would have been found; ``None`` if the dose is over before."""
        occurrence = self._memory.occurrence
        if occurrence is None:
            return None
        needed_ml = occurrence.joined_at_ml + decidable_volume_ml(
            self._thresholds_now(occurrence), DECIDABLE_SHIFT, self._expected
        )
        if occurrence.expected_ml >= needed_ml:
            return 0
        if needed_ml > self._course.volume_ml:
            return None
        return max(1, round((self._course.tau_of_volume(needed_ml) - occurrence.tau_ms) / 1000))


def _carry_from(reading: Reading) -> Carry:
    """A new beginning at a reading with a counter value."""
    return Carry(
        stopped=reading.state not in _COUNTING_STATES,
        bolus=reading.state is PumpState.BOLUS,
        priming=reading.state is PumpState.PRIMING,
    )


def _when(timer: Timer) -> int:
    return timer[0]
