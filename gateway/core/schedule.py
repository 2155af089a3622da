"""When doses are due and how much should be in (prescription page, sections 1 and 1.1), as arithmetic.

Everything here is a pure function of a ``Prescription``. A look-up costs the same years after the start as on
the first day: no list of due times is ever built.

Two clocks occur and must not be mixed. *Due times* are wall time (``utc_ms``). Within an occurrence the
phases run on *tau*, the milliseconds for which the pump has delivered (section 1.1, rule 1).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from datetime import datetime, timedelta
from itertools import accumulate, pairwise
from math import sqrt
from zoneinfo import ZoneInfo

from gateway.core.prescription import Phase, Prescription, Schedule

MS_PER_MINUTE = 60_000
MS_PER_HOUR = 3_600_000
MS_PER_DAY = 24 * MS_PER_HOUR
MS_PER_WEEK = 7 * MS_PER_DAY

# more than a week of the densest possible times of day (order.py: at most 96 on each of 7 days)
_ONE_CYCLE = 7 * 96 + 2
_EPOCH = datetime(1970, 1, 1)
_CALENDAR_END_UTC_MS = 253_370_764_800_000  # the year 9999: later than that no clock can say
_MONDAY_LOCAL_MS = 4 * MS_PER_DAY  # 1970-01-05 was a Monday


class Course:
    """The due times of a prescription, and the course of one occurrence. Built once, then only asked."""

    def __init__(self, prescription: Prescription) -> None:
        schedule = prescription.schedule
        self._phases: tuple[Phase, ...] = schedule.phases
        durations = [phase.duration_ms for phase in schedule.phases]
        volumes = [phase.volume_ml for phase in schedule.phases]
        # one entry more than there are phases: the last is the end of the occurrence
        self._starts_ms: list[int] = list(accumulate(durations, initial=0))
        self._volumes_ml: list[float] = list(accumulate(volumes, initial=0.0))
        self.length_ms: int = self._starts_ms[-1]
        """How long one occurrence takes without a pause."""
        self.volume_ml: float = self._volumes_ml[-1]
        """What one occurrence delivers by its phases."""
        self._due = due_times(schedule)

    def due_utc_ms(self, number: int) -> int | None:
        """When the occurrence with this number is due on the wall clock; the first has number 1.

        ``None`` after the last one, for numbers below 1, and for therapy ``as_needed``, which is never due.
        """
        return self._due.at(number) if self._due is not None else None

    def number_due_at_or_before(self, utc_ms: int) -> int:
        """The number of the latest occurrence that was due by then; 0 if none was."""
        return self._due.number_at_or_before(utc_ms) if self._due is not None else 0

    def gap_ms(self, number: int) -> int | None:
        """Milliseconds between the end of an occurrence, given in time, and the next due time.

        0 where they are meant to follow without a gap, also in a night of 25 hours; then the next is due
        when this one ends (section 1, ``start_window``). ``None`` if no other one follows.
        """
        due = self.due_utc_ms(number)
        following = self.due_utc_ms(number + 1)
        if self._due is None or due is None or following is None:
            return None
        if self._due.nominal_distance_ms(number) <= self.length_ms:
            return 0
        return max(0, following - due - self.length_ms)

    def expected_ml(self, tau_ms: float) -> float:
        """Volume in mL that the phases give in ``[0, tau_ms)``; 0 before it, all after the end."""
        if tau_ms <= 0:
            return 0.0
        if tau_ms >= self.length_ms:
            return self.volume_ml
        index = bisect_right(self._starts_ms, tau_ms) - 1
        phase = self._phases[index]
        into_ms = tau_ms - self._starts_ms[index]
        mean_ml_h = (phase.from_ml_h + _rate_within_ml_h(phase, into_ms)) / 2
        return self._volumes_ml[index] + mean_ml_h * into_ms / MS_PER_HOUR

    def rate_ml_h(self, tau_ms: float) -> float:
        """The prescribed rate in mL/h; at a step the rate that begins there; 0 outside ``[0, length_ms)``."""
        if not 0 <= tau_ms < self.length_ms:
            return 0.0
        index = bisect_right(self._starts_ms, tau_ms) - 1
        return _rate_within_ml_h(self._phases[index], tau_ms - self._starts_ms[index])

    def rates_between(self, from_tau_ms: float, to_tau_ms: float) -> tuple[tuple[float, float], ...]:
        """The prescribed rates in a closed interval: ``(low, high)`` in mL/h of each phase that it touches.

        At a step both neighbours are touched, so that either is right (``wrong_rate``, section 3). On a
        ramp it is the part of the ramp within the interval. What lies outside the occurrence is left out:
        empty if all of it does.
        """
        low_ms = max(0.0, from_tau_ms)
        high_ms = min(float(self.length_ms), to_tau_ms)
        if low_ms > high_ms:
            return ()
        # the phase that ends where the interval begins is touched too, and the one that begins where it ends
        first = max(0, bisect_left(self._starts_ms, low_ms) - 1)
        last = min(len(self._phases), bisect_right(self._starts_ms, high_ms)) - 1
        rates: list[tuple[float, float]] = []
        for index in range(first, last + 1):
            phase = self._phases[index]
            start_ms = self._starts_ms[index]
            one = _rate_within_ml_h(phase, max(0.0, low_ms - start_ms))
            other = _rate_within_ml_h(phase, min(float(phase.duration_ms), high_ms - start_ms))
            rates.append((min(one, other), max(one, other)))
        return tuple(rates)

    def tau_of_volume(self, volume_ml: float) -> float:
        """The delivered time in ms at which the phases first reach this volume; within ``[0, length_ms]``."""
        if volume_ml <= 0:
            return 0.0
        if volume_ml >= self.volume_ml:
            return float(self.length_ms)
        index = bisect_left(self._volumes_ml, volume_ml) - 1
        phase = self._phases[index]
        missing_ml = volume_ml - self._volumes_ml[index]
        # missing = from * t + bend * t^2 with t in hours, solved in the form that is exact for bend = 0
        bend = (phase.to_ml_h - phase.from_ml_h) / (2 * phase.duration_ms / MS_PER_HOUR)
        root = sqrt(max(0.0, phase.from_ml_h**2 + 4 * bend * missing_ml))
        into_ms = 2 * missing_ml / (phase.from_ml_h + root) * MS_PER_HOUR
        return min(self._starts_ms[index] + into_ms, float(self._starts_ms[index + 1]))


def _rate_within_ml_h(phase: Phase, into_ms: float) -> float:
    """The rate this long after the phase began."""
    return phase.from_ml_h + (phase.to_ml_h - phase.from_ml_h) * (into_ms / phase.duration_ms)


class DueTimes:
    """Numbered wall times, from 1 on. A *slot* is a place in an endless series of clock times."""

    def __init__(self, schedule: Schedule) -> None:
        self._times = schedule.times
        self._first_slot = 0

    def slot_utc_ms(self, slot: int) -> int | None:
        """Wall time of a slot; ``None`` beyond the calendar."""
        raise NotImplementedError

    def nominal_ms(self, slot: int) -> int:
        """The same on the clock that the series keeps to: for distances as they were meant."""
        raise NotImplementedError

    def slot_near(self, utc_ms: int) -> int:
        """A slot that is at most a few away from the latest one at or before ``utc_ms``."""
        raise NotImplementedError

    def at(self, number: int) -> int | None:
        """Wall time of the due time with this number."""
        if number < 1 or (self._times and number > self._times):
            return None
        due = self.slot_utc_ms(self._first_slot + number - 1)
        return due if due is not None and due <= _CALENDAR_END_UTC_MS else None

    def number_at_or_before(self, utc_ms: int) -> int:
        """The number of the latest due time that is not after ``utc_ms``; 0 if there is none."""
        number = max(0, self._slot_at_or_before(utc_ms) - self._first_slot + 1)
        return min(number, self._times) if self._times else number

    def nominal_distance_ms(self, number: int) -> int:
        """From this due time to the next, as it was meant."""
        slot = self._first_slot + number - 1
        return self.nominal_ms(slot + 1) - self.nominal_ms(slot)

    def nominal_distances_ms(self) -> tuple[int, ...]:
        """The distances between neighbours as they were meant, each that occurs at least once."""
        count = min(self._times or _ONE_CYCLE, _ONE_CYCLE)
        nominal = [self.nominal_ms(self._first_slot + index) for index in range(count)]
        return tuple(later - earlier for earlier, later in pairwise(nominal))

    def _slot_at_or_before(self, utc_ms: int) -> int:
        utc_ms = min(max(utc_ms, 0), _CALENDAR_END_UTC_MS)
        slot = self.slot_near(utc_ms)
        while self._is_due_by(slot + 1, utc_ms):
            slot += 1
        while not self._is_due_by(slot, utc_ms):
            slot -= 1
        return slot

    def _is_due_by(self, slot: int, utc_ms: int) -> bool:
        due = self.slot_utc_ms(slot)
        return due <= utc_ms if due is not None else slot < 0


class _ByElapsedTime(DueTimes):
    """``every`` without a zone."""

    def __init__(self, schedule: Schedule, every_ms: int) -> None:
        super().__init__(schedule)
        self._start_utc_ms = schedule.start_utc_ms
        self._every_ms = every_ms

    def slot_utc_ms(self, slot: int) -> int | None:
        return self._start_utc_ms + slot * self._every_ms

    def nominal_ms(self, slot: int) -> int:
        return slot * self._every_ms

    def slot_near(self, utc_ms: int) -> int:
        return (utc_ms - self._start_utc_ms) // self._every_ms


class _ByLocalInterval(DueTimes):
    """``every`` with a zone: as long apart on the local clock, whatever that clock does."""

    def __init__(self, schedule: Schedule, every_ms: int, zone: ZoneInfo) -> None:
        super().__init__(schedule)
        self._zone = zone
        self._every_ms = every_ms
        self._start_utc_ms = schedule.start_utc_ms
        self._start_local_ms = local_from_utc_ms(schedule.start_utc_ms, zone)

    def slot_utc_ms(self, slot: int) -> int | None:
        if slot == 0:
            return self._start_utc_ms  # written with its offset: exact even in an hour that comes twice
        return utc_from_local_ms(self.nominal_ms(slot), self._zone)

    def nominal_ms(self, slot: int) -> int:
        return self._start_local_ms + slot * self._every_ms

    def slot_near(self, utc_ms: int) -> int:
        return (local_from_utc_ms(utc_ms, self._zone) - self._start_local_ms) // self._every_ms


class _ByTimeOfDay(DueTimes):
    """``at`` and ``days``: the same minutes of every local week."""

    def __init__(self, schedule: Schedule, zone: ZoneInfo) -> None:
        super().__init__(schedule)
        self._zone = zone
        self._in_week_ms = [
            weekday * MS_PER_DAY + minute * MS_PER_MINUTE
            for weekday in sorted(schedule.weekdays)
            for minute in sorted(schedule.at_minutes)
        ]
        # the first such time not before the start
        self._first_slot = self._slot_at_or_before(schedule.start_utc_ms - 1) + 1

    def slot_utc_ms(self, slot: int) -> int | None:
        return utc_from_local_ms(self.nominal_ms(slot), self._zone)

    def nominal_ms(self, slot: int) -> int:
        week, place = divmod(slot, len(self._in_week_ms))
        return _MONDAY_LOCAL_MS + week * MS_PER_WEEK + self._in_week_ms[place]

    def slot_near(self, utc_ms: int) -> int:
        week, in_week_ms = divmod(local_from_utc_ms(utc_ms, self._zone) - _MONDAY_LOCAL_MS, MS_PER_WEEK)
        return week * len(self._in_week_ms) + bisect_right(self._in_week_ms, in_week_ms) - 1


def due_times(schedule: Schedule) -> DueTimes | None:
    """The due times of a schedule; ``None`` for therapy ``as_needed``."""
    if schedule.as_needed:
        return None
    if schedule.at_minutes and schedule.zone is not None:
        return _ByTimeOfDay(schedule, schedule.zone)
    # a single occurrence is due at its start; the interval is never used
    every_ms = schedule.every_ms or MS_PER_DAY
    if schedule.zone is not None:
        return _ByLocalInterval(schedule, every_ms, schedule.zone)
    return _ByElapsedTime(schedule, every_ms)


def shortest_distance_ms(schedule: Schedule) -> int | None:
    """The least time between two due times as it was meant; ``None`` if there are no two."""
    due = due_times(schedule)
    return min(due.nominal_distances_ms(), default=None) if due is not None else None


def shortest_gap_ms(schedule: Schedule) -> int | None:
    """The least time between the end of an occurrence and the next due time.

    ``None`` where there is no gap: a single occurrence, no due times, or doses that follow one another.
    """
    due = due_times(schedule)
    length_ms = sum(phase.duration_ms for phase in schedule.phases)
    distances_ms = due.nominal_distances_ms() if due is not None else ()
    return min((distance - length_ms for distance in distances_ms if distance > length_ms), default=None)


def local_from_utc_ms(utc_ms: int, zone: ZoneInfo) -> int:
    """What the local clock shows, as milliseconds since 1970 on that clock."""
    return utc_ms + _ms(datetime.fromtimestamp(utc_ms // 1000, zone).utcoffset())


def utc_from_local_ms(local_ms: int, zone: ZoneInfo) -> int | None:
    """Wall time at which the local clock shows ``local_ms`` (milliseconds since 1970 on that clock).

    A time that does not exist is the next that does; one that comes twice is its first (``at``, section 1).
    ``None`` beyond the calendar.
    """
    try:
        naive = _EPOCH + timedelta(milliseconds=local_ms)
        before_ms = _ms(naive.replace(tzinfo=zone, fold=0).utcoffset())
        after_ms = _ms(naive.replace(tzinfo=zone, fold=1).utcoffset())
    except (OverflowError, ValueError):
        return None
    if after_ms <= before_ms:
        return local_ms - before_ms
    # The clock was put forward over this time: the next that exists is the moment of the change itself.
    return _offset_change_utc_ms(local_ms - after_ms, local_ms - before_ms, zone)


def _offset_change_utc_ms(low_utc_ms: int, high_utc_ms: int, zone: ZoneInfo) -> int:
    """The second at which the offset of ``high_utc_ms`` begins, known to be after ``low_utc_ms``."""
    low_s = low_utc_ms // 1000
    high_s = high_utc_ms // 1000
    wanted = datetime.fromtimestamp(high_s, zone).utcoffset()
    while high_s - low_s > 1:
        middle_s = (low_s + high_s) // 2
        if datetime.fromtimestamp(middle_s, zone).utcoffset() == wanted:
            high_s = middle_s
        else:
            low_s = middle_s
    return high_s * 1000


def _ms(offset: timedelta | None) -> int:
    assert offset is not None, "a zone always has an offset"
    return round(offset.total_seconds() * 1000)
