"""One pump under one prescription: what all judgements look at, and the schedule as it stands."""

from __future__ import annotations

from drivers.reading import PumpState
from gateway.core import assess
from gateway.core.delivery import Edges
from gateway.core.memory import Findings, Memory
from gateway.core.occurrence import Occurrence, least_volume_ml, volume_is_in
from gateway.core.prescription import Prescription
from gateway.core.schedule import MS_PER_HOUR, Course

CONFIRMING_READINGS = 2
"""Kinds read from a state or a setting wait for at most two readings (prescription page, section 3)."""
DELIVERING_STATES = frozenset({PumpState.RUNNING, PumpState.BOLUS})


class Case:
    """What was ordered, what is remembered, and what follows from both without a judgement."""

    def __init__(
        self, prescription: Prescription, poll_ms: int | None, memory: Memory, findings: Findings
    ) -> None:
        self.order = prescription
        self.limits = prescription.limits
        self.edges = Edges.of(prescription.limits.tolerance)
        self.expected = prescription.pump
        self.schedule = prescription.schedule
        self.course = Course(prescription)
        self.enough_ml = least_volume_ml(prescription, self.course)
        """The least volume in mL with which an occurrence counts as given (section 1.1, rule 4)."""
        self.memory = memory
        self.findings = findings
        self.poll_ms = (
            prescription.pump.poll_ms if poll_ms is None else min(prescription.poll_at_most_ms, poll_ms)
        )
        self.least_whole_ml = (
            1 - prescription.limits.tolerance
        ) * self.course.volume_ml - prescription.pump.counter_ml
        """From this on the volume of an occurrence counts as in (section 1.1, rule 4)."""
        self.kvo_ml_h = max(prescription.limits.kvo_ml_h, prescription.schedule.between_ml_h)

    @property
    def most_kvo_ml_h(self) -> float:
        """Faster than this a pump does not keep a vein open, but delivers more than is ordered for that."""
        return self.kvo_ml_h * (1 + self.limits.tolerance) + assess.DISPLAY_MARGIN_ML_H

    def schedule_utc_ms(self, t_ms: int) -> int | None:
        """The clock that the schedule was anchored with; ``None`` while it cannot be trusted."""
        offset_ms = self.memory.schedule_offset_ms
        return None if offset_ms is None else t_ms + offset_ms

    def due_times_are_judged(self) -> bool:
        """Not before the clock was ever synced, nor after a gap of which nobody knows how long it was."""
        return self.memory.next_number is not None and self.memory.schedule_offset_ms is not None

    def due_utc_ms(self, number: int | None) -> int | None:
        """When this occurrence is due; ``None`` without a number, after the last, and ``as_needed``."""
        return None if number is None else self.course.due_utc_ms(number)

    def latest_begin_utc_ms(self, number: int) -> int | None:
        """Until when a late dose may still be begun (``give_within``)."""
        due_utc_ms = self.course.due_utc_ms(number)
        if due_utc_ms is None:
            return None
        latest_utc_ms = due_utc_ms + self.limits.give_within_ms
        following_utc_ms = self.course.due_utc_ms(number + 1)
        if following_utc_ms is not None:
            if self.course.gap_ms(number):
                following_utc_ms -= self.limits.start_window_ms
            latest_utc_ms = min(latest_utc_ms, following_utc_ms)
        return latest_utc_ms

    def open_number(self, t_ms: int) -> int | None:
        """The occurrence that delivery beginning now would be; ``None`` if none may begin."""
        number = self.memory.next_number
        schedule_utc_ms = self.schedule_utc_ms(t_ms)
        if number is None or schedule_utc_ms is None:
            return None
        if self.schedule.as_needed:
            more = self.schedule.times == 0 or number <= self.schedule.times
            return number if more and schedule_utc_ms >= self.schedule.start_utc_ms else None
        return number if self.window_is_open(number, t_ms) else None

    def window_is_open(self, number: int, t_ms: int) -> bool:
        """Whether it is time for this occurrence, or later.

        Where there is no gap before it, it is time as soon as the one before has ended with its volume in.
        """
        due_utc_ms = self.course.due_utc_ms(number)
        schedule_utc_ms = self.schedule_utc_ms(t_ms)
        if due_utc_ms is None or schedule_utc_ms is None:
            return False
        if schedule_utc_ms >= due_utc_ms - self.limits.start_window_ms:
            return True
        memory = self.memory
        follows = memory.last_end_t_ms is not None and self.course.gap_ms(number - 1) == 0
        return follows and memory.last_volume_in and memory.next_number == number

    def another_is_to_come(self) -> bool:
        """Whether the schedule has another occurrence that has neither begun nor been missed."""
        number = self.memory.next_number
        if number is None:
            return True  # not known: nothing may be held against the pump
        if self.schedule.as_needed:
            return self.schedule.times == 0 or number <= self.schedule.times
        return self.course.due_utc_ms(number) is not None

    def t_ms_at(self, utc_ms: int) -> int | None:
        """The continuous time at which the schedule's clock shows this; ``None`` while it is not trusted."""
        offset_ms = self.memory.schedule_offset_ms
        return None if offset_ms is None else utc_ms - offset_ms

    def volume_in(self) -> bool:
        """Whether an occurrence is on and its volume counts as in (section 1.1, rule 4)."""
        occurrence = self.memory.occurrence
        return occurrence is not None and volume_is_in(occurrence, self.order, self.course)

    def runs_out(self, t_ms: int) -> bool:
        """Whether a bag that is empty, or air from it, is the end of a dose and nothing else (rule 4).

        It is with the volume in; after the end for as long as the pump goes on to say so, and until the next
        dose may begin. What it says first from then on stops that dose. With a rate between two doses the
        bag of the last one hangs until the next is due.
        """
        memory = self.memory
        if memory.occurrence is not None:
            return self.volume_in()
        if not memory.last_volume_in:
            return False
        if memory.runs_out or memory.last_end_t_ms == t_ms:
            return True
        number = memory.next_number
        due_utc_ms = self.due_utc_ms(number)
        if number is None or due_utc_ms is None:
            return True
        if self.schedule.between_ml_h > 0:
            now_utc_ms = self.schedule_utc_ms(t_ms)
            return now_utc_ms is None or now_utc_ms < due_utc_ms
        follows_at_once = number > 1 and self.course.gap_ms(number - 1) == 0
        return follows_at_once or not self.window_is_open(number, t_ms)

    def counted_words(self, occurrence: Occurrence) -> str:
        """What the pump says of how much was given, for messages."""
        ordered = assess.volume(self.course.volume_ml)
        if not occurrence.counter_seen:
            ran_for = assess.volume(occurrence.expected_ml)
            return f"the pump shows no counter, and ran long enough for {ran_for} of {ordered}"
        return f"pump counted {assess.volume(occurrence.delivered_ml)} of {ordered}"

    def one_count_ms(self, volume_ml: float) -> float:
        """How long one count takes around this volume: so well the counter tells the time."""
        course = self.course
        return course.tau_of_volume(volume_ml + self.expected.counter_ml) - course.tau_of_volume(volume_ml)

    def expected_from_t_ms(self) -> int | None:
        """From when on an occurrence is due that has not begun."""
        memory = self.memory
        number = memory.next_number
        if number is None and memory.schedule_offset_ms is not None and memory.first_t_ms is None:
            # nothing was ever heard of the pump
            number = max(1, self.course.number_due_at_or_before(memory.t_ms + memory.schedule_offset_ms))
        due_utc_ms = self.due_utc_ms(number)
        return None if due_utc_ms is None else self.t_ms_at(due_utc_ms)

    def next_due_t_ms(self, occurrence: Occurrence) -> int | None:
        """From when on the occurrence after this one is due; ``None`` if none is, or it is not known.

        Where there is no gap between them it is due when this one ends (section 1, ``start_window``): an
        interrupted one not before it would have ended without the interruption.
        """
        due_utc_ms = self.course.due_utc_ms(occurrence.number + 1)
        due_t_ms = None if due_utc_ms is None else self.t_ms_at(due_utc_ms)
        if due_t_ms is None or occurrence.interrupted_t_ms is None or self.course.gap_ms(occurrence.number):
            return due_t_ms
        ends_t_ms = occurrence.interrupted_t_ms + self.left_ms()
        known_to_ms = self.poll_ms + occurrence.uncertain_ms
        return ends_t_ms if ends_t_ms - due_t_ms > known_to_ms else due_t_ms

    def is_due(self, t_ms: int) -> bool:
        """Whether an occurrence is due and has not begun."""
        due_t_ms = self.expected_from_t_ms()
        return due_t_ms is not None and due_t_ms <= t_ms

    def left_ms(self) -> int:
        """How much of the phases' time is left of the present occurrence."""
        occurrence = self.memory.occurrence
        return 0 if occurrence is None else max(0, round(self.course.length_ms - occurrence.tau_ms))

    def ends_in_ms(self) -> int:
        """In how long the pump will have given the present occurrence if it goes on now.

        That is what is left of the phases' time. Where the rate was titrated away from the phases' own, the
        set rate is what is expected (section 1): then what is left of the volume, at that rate.
        """
        occurrence = self.memory.occurrence
        set_ml_h = self.memory.titrated_ml_h
        if occurrence is None or not set_ml_h or occurrence.tau_ms >= self.course.length_ms:
            return self.left_ms()
        left_ml = max(0.0, self.course.volume_ml - occurrence.expected_ml)
        return round(left_ml / set_ml_h * MS_PER_HOUR)
