"""Many readings that bring no news, at once: the sums of ``quiet.py`` over numpy arrays.

The same bounds, the same recursion. A CUSUM over an array is the running sum less its running minimum
(Page 1954); the stretch ends before the first reading that leaves a bound or comes near a threshold, and that
reading goes the ordinary way. So nothing is ever decided here: what is told comes from ``monitor.py`` alone,
also in a replay of a year.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from drivers.reading import PumpState
from gateway.core.counter import MS_PER_HOUR
from gateway.core.delivery import NOTHING_ML, PIECE_MS, RATE_LIMIT_EDGE, REFERENCES, Mark
from gateway.core.free_flow import surplus_begins_ml_h
from gateway.core.monitor import Monitor
from gateway.core.pressure import PIECES, PressureRise, limit_mmhg, piece_ms
from gateway.core.quiet import Bounds
from gateway.core.timeline import CLOCK_SET_MS, Moment, Timeline

SHORTEST = 24
"""Fewer readings than this are taken one by one: the arrays would cost more."""
_PLACES = {state: place for place, state in enumerate(PumpState)}

Numbers = NDArray[np.float64]
Whole = NDArray[np.int64]
Flags = NDArray[np.bool_]


class Columns(Protocol):
    """Readings as arrays of one length, in order of arrival; what was not reported is NaN."""

    plain: Flags
    """Whether the arrays say all that the reading does."""
    utc_ms: Whole
    uptime_ms: Whole
    state: Whole
    """The place of the state in ``PumpState``."""
    alarms: Flags
    """Whether any code is active."""
    rate_ml_h: Numbers
    volume_ml: Numbers
    pressure_mmhg: Numbers


def pass_over(monitor: Monitor, timeline: Timeline, columns: Columns, first: int, last: int) -> int:
    """Take the readings from ``first`` on, before ``last``, that bring no news; how many they are.

    0 if all must be taken one by one. The monitor and the timeline are left as if each had been.
    """
    bounds = monitor.bounds
    clock = timeline.state
    before = clock.moment
    if bounds is None or before is None or before.monotonic_ms is None or clock.t_ms is None:
        return 0
    if clock.gap is not None or clock.anchor_offset_ms is None or before.boot is not None:
        return 0
    stretch = _Stretch(monitor, bounds, before, clock.t_ms, columns, first, last)
    count = stretch.length()
    if count < SHORTEST:
        return 0
    stretch.take(count)
    place = first + count - 1
    clock.moment = Moment(monotonic_ms=int(columns.uptime_ms[place]), utc_ms=int(columns.utc_ms[place]))
    clock.t_ms = clock.synced_t_ms = monitor.memory.t_ms
    clock.synced_utc_ms = clock.moment.utc_ms
    return count


class _Stretch:
    """Some readings, and where in them the first one is that may bring news."""

    def __init__(
        self,
        monitor: Monitor,
        bounds: Bounds,
        before: Moment,
        t_ms: int,
        columns: Columns,
        first: int,
        last: int,
    ) -> None:
        self._memory = monitor.memory
        self._bounds = bounds
        assert before.monotonic_ms is not None
        assert self._memory.counter_ml is not None, "there are no bounds without a counter"
        here = slice(first, last)
        uptime_ms, utc_ms = columns.uptime_ms[here], columns.utc_ms[here]
        self._t_ms = uptime_ms + (t_ms - before.monotonic_ms)
        self._utc_ms = utc_ms
        self._volume_ml = columns.volume_ml[here]
        self._elapsed_ms = np.diff(self._t_ms, prepend=t_ms)
        self._delivered_ml = np.diff(self._volume_ml, prepend=self._memory.counter_ml)
        stepped_ms = np.diff(utc_ms - uptime_ms, prepend=before.utc_ms - before.monotonic_ms)
        rate_ml_h = columns.rate_ml_h[here]
        quiet = (
            columns.plain[here]
            & ~columns.alarms[here]
            & (columns.state[here] == _PLACES[bounds.state])
            & (np.isnan(rate_ml_h) if bounds.rate_ml_h is None else rate_ml_h == bounds.rate_ml_h)
            & (self._elapsed_ms > 0)
            & (self._elapsed_ms <= bounds.longest_ms)
            & (np.abs(stepped_ms) <= CLOCK_SET_MS)
            & (self._t_ms < bounds.t_until_ms)
            & (self._delivered_ml >= 0)
            & (self._delivered_ml <= bounds.most_at_once_ml)
        )
        self._count = _first_false(quiet)
        self._pressure = _Pressure(self._memory.pressure, columns.pressure_mmhg[here], self._t_ms)
        self._tests: list[tuple[list[float], list[Mark], int, Numbers]] = []

    def length(self) -> int:
        """How many readings bring no news."""
        if self._memory.seen_t_ms != self._memory.t_ms or self._bounds.alarms is None or self._bounds.serial:
            return 0
        if self._count >= SHORTEST:
            self._stay_within_limits()
        if self._count >= SHORTEST and self._bounds.flow_ml_h:
            self._count = self._pressure.stays_usual(self._count)
        if self._count >= SHORTEST and self._bounds.thresholds:
            self._stay_within_tests()
        return self._count

    def _shorten(self, quiet: Flags) -> None:
        self._count = _first_false(quiet[: self._count])

    def _stay_within_limits(self) -> None:
        bounds, memory, count = self._bounds, self._memory, self._count
        self._given_ml = np.cumsum(self._delivered_ml[:count])
        if memory.day is not None:
            self._shorten(memory.day.total_ml + self._given_ml <= bounds.day_until_ml)
        edge_ml_h = surplus_begins_ml_h(bounds.flow_ml_h)
        passed_ms = np.cumsum(self._elapsed_ms[:count])
        edge_ml = edge_ml_h * passed_ms / MS_PER_HOUR
        self._flow_ml = _cusum(memory.free_flow.counter.value_ml + self._given_ml - edge_ml)
        self._shorten(self._flow_ml <= bounds.flow_until_ml - NOTHING_ML)
        if memory.rate_limit is not None:
            edge_ml_h = bounds.allowed_ml_h * RATE_LIMIT_EDGE
            allowed_ml = edge_ml_h * passed_ms / MS_PER_HOUR
            self._surplus_ml = _cusum(memory.rate_limit.surplus_ml + self._given_ml - allowed_ml)
            self._shorten(self._surplus_ml <= bounds.surplus_until_ml - NOTHING_ML)

    def _stay_within_tests(self) -> None:
        bounds, count = self._bounds, self._count
        occurrence = self._memory.occurrence
        assert occurrence is not None, "only an occurrence is tested"
        passed_ms = np.cumsum(self._elapsed_ms[:count])
        delivered_ml = self._delivered_ml[:count]
        ordered_ml = bounds.ordered_ml_h * passed_ms / MS_PER_HOUR
        given_ml = self._given_ml[:count]
        self._tau_ms = occurrence.tau_ms + passed_ms
        ordered_steps_ml = bounds.ordered_ml_h * self._elapsed_ms[:count] / MS_PER_HOUR
        self._expected_ml = _added_up(occurrence.expected_ml, ordered_steps_ml)
        self._total_ml = _added_up(occurrence.delivered_ml, delivered_ml)
        # what was ordered up to the last count that was seen; before the first one, less than nothing
        counted_at_ml = np.maximum.accumulate(
            np.where(delivered_ml > 0, ordered_ml, -occurrence.uncounted_ml)
        )
        self._uncounted_ml = ordered_ml - counted_at_ml
        at_once_ml = delivered_ml - ordered_steps_ml
        self._shorten(
            (self._tau_ms <= bounds.tau_until_ms)
            & (self._total_ml <= bounds.delivered_until_ml)
            & (self._uncounted_ml < bounds.uncounted_until_ml)
            & (at_once_ml <= bounds.surplus_at_once_ml)
        )
        bank, edges = occurrence.bank, bounds.edges
        for index in range(len(REFERENCES)):
            under_ml = _cusum(bank.under_ml[index] + edges.under[index] * ordered_ml - given_ml)
            over_ml = _cusum(bank.over_ml[index] + given_ml - edges.over[index] * ordered_ml)
            within_ml = bounds.thresholds[index] - NOTHING_ML
            self._shorten((under_ml <= within_ml) & (over_ml <= within_ml))
            self._tests.append((bank.under_ml, bank.under_since, index, under_ml))
            self._tests.append((bank.over_ml, bank.over_since, index, over_ml))

    def take(self, count: int) -> None:
        """Remember the first ``count`` readings."""
        memory = self._memory
        last = count - 1
        t_ms = int(self._t_ms[last])
        occurrence = memory.occurrence
        if occurrence is not None and self._bounds.thresholds:
            occurrence.tau_ms = float(self._tau_ms[last])
            occurrence.expected_ml = float(self._expected_ml[last])
            occurrence.delivered_ml = float(self._total_ml[last])
            occurrence.uncounted_ml = float(self._uncounted_ml[last])
            occurrence.last_delivery_t_ms = t_ms
            counts = np.flatnonzero(self._delivered_ml[:count])
            if len(counts):
                occurrence.counted_t_ms = int(self._t_ms[counts[-1]])
            for values, since, index, course_ml in self._tests:
                if course_ml[last] <= NOTHING_ML:
                    values[index] = 0.0
                    continue
                nothing = np.flatnonzero(course_ml[:count] <= NOTHING_ML)
                if len(nothing):
                    since[index] = self._mark(int(nothing[-1]))
                elif not values[index]:
                    since[index] = occurrence.bank.mark
                values[index] = float(course_ml[last])
            occurrence.bank.mark = self._mark(last)
        elif occurrence is not None:
            occurrence.bank.mark = Mark(
                t_ms, occurrence.tau_ms, occurrence.expected_ml, occurrence.delivered_ml
            )
        if memory.day is not None:
            self._add_to_day(count)
        if memory.rate_limit is not None:
            memory.rate_limit.surplus_ml = float(self._surplus_ml[last])
        memory.bag.taken_ml = float(_added_up(memory.bag.taken_ml, self._delivered_ml[:count])[last])
        self._take_flow(count)
        if self._bounds.flow_ml_h:
            self._pressure.take(count)
        memory.counter_ml = float(self._volume_ml[last])
        memory.t_ms = memory.seen_t_ms = t_ms
        memory.utc_offset_ms = int(self._utc_ms[last]) - t_ms

    def _mark(self, place: int) -> Mark:
        return Mark(
            int(self._t_ms[place]),
            float(self._tau_ms[place]),
            float(self._expected_ml[place]),
            float(self._total_ml[place]),
        )

    def _take_flow(self, count: int) -> None:
        """What is remembered of volume beyond what is set."""
        flow = self._memory.free_flow.counter
        values_ml = self._flow_ml[:count]
        nothing = np.flatnonzero(values_ml <= NOTHING_ML)
        first, given_ml, t_ms = 0, 0.0, flow.seen_t_ms or 0
        if len(nothing):
            place = int(nothing[-1])
            first, given_ml, t_ms = place + 1, float(self._given_ml[place]), int(self._t_ms[place])
            flow.value_ml = flow.moved_ml = flow.set_ml = flow.peak_ml = 0.0
            flow.moves = 0
            flow.since_t_ms = t_ms
        last_t_ms = int(self._t_ms[count - 1])
        if first < count:
            rising_ml = np.maximum.accumulate(np.append(flow.peak_ml, values_ml[first:]))
            flow.value_ml = float(values_ml[-1])
            flow.moved_ml += float(self._given_ml[count - 1]) - given_ml
            flow.set_ml += self._bounds.flow_ml_h * (last_t_ms - t_ms) / MS_PER_HOUR
            flow.peak_ml = float(rising_ml[-1])
            flow.moves += int(np.count_nonzero(np.diff(rising_ml)))
        flow.seen_t_ms = last_t_ms

    def _add_to_day(self, count: int) -> None:
        day = self._memory.day
        assert day is not None
        pieces = self._t_ms[:count] // PIECE_MS
        ends = [*np.flatnonzero(np.diff(pieces)), count - 1]
        before_ml = 0.0
        for end in ends:
            day.add(int(self._t_ms[end]), float(self._given_ml[end]) - before_ml)
            before_ml = float(self._given_ml[end])


class _Pressure:
    """The pressure of a stretch in the pieces of its slow average (``pressure.py``)."""

    def __init__(self, rise: PressureRise, pressure_mmhg: Numbers, t_ms: Whole) -> None:
        self._rise = rise
        self._pressure_mmhg = pressure_mmhg
        self._t_ms = t_ms
        self._starts: list[int] = []
        self._means_mmhg: list[float] = []

    def stays_usual(self, count: int) -> int:
        """How many of the first ``count`` are not above their limit, and all show it or none does."""
        rise = self._rise
        reported = ~np.isnan(self._pressure_mmhg[:count])
        count = _first_false(reported == reported[0])
        if not reported[0]:
            return count
        if rise.used_from_t_ms is None or not rise.is_known or self._t_ms[0] < rise.used_from_t_ms:
            return 0
        times_ms = self._t_ms[:count].tolist()
        length_ms = piece_ms(rise.set_ml_h)
        place = bisect_left(times_ms, rise.piece_ends_t_ms)
        while place < count:
            self._starts.append(place)
            place = bisect_left(times_ms, times_ms[place] + length_ms, place + 1)
        edges = [0, *self._starts, count]
        sums_mmhg = np.add.reduceat(np.append(self._pressure_mmhg[:count], 0.0), edges).tolist()
        pieces_mmhg = list(rise.pieces_mmhg)
        limits_mmhg = [rise.limit_mmhg]
        total_mmhg, readings = rise.sum_mmhg, rise.readings
        for begin, end, sum_mmhg in zip(edges, edges[1:-1], sums_mmhg, strict=False):
            # reduceat gives the first reading of an empty piece
            total_mmhg += sum_mmhg if end > begin else 0.0
            readings += end - begin
            if readings:
                pieces_mmhg.append(total_mmhg / readings)
            self._means_mmhg.append(pieces_mmhg[-1])
            limits_mmhg.append(limit_mmhg(pieces_mmhg[-PIECES:]))
            total_mmhg, readings = 0.0, 0
        limit = np.repeat(limits_mmhg, np.diff(edges))
        limit[self._starts] = limits_mmhg[
            :-1
        ]  # that which begins a piece still has the limit of the one before
        return _first_false(self._pressure_mmhg[:count] <= limit)

    def take(self, count: int) -> None:
        """Remember the first ``count``."""
        rise = self._rise
        if np.isnan(self._pressure_mmhg[0]):
            return
        begun = bisect_left(self._starts, count)
        first = 0
        if begun:
            first = self._starts[begun - 1]
            rise.pieces_mmhg = [*rise.pieces_mmhg, *self._means_mmhg[:begun]][-PIECES:]
            rise.limit_mmhg = limit_mmhg(rise.pieces_mmhg)
            rise.piece_ends_t_ms = int(self._t_ms[first]) + piece_ms(rise.set_ml_h)
            rise.sum_mmhg = 0.0
            rise.readings = 0
        rise.sum_mmhg += float(self._pressure_mmhg[first:count].sum())
        rise.readings += count - first


def _added_up(before_ml: float, steps_ml: Numbers) -> Numbers:
    """The sums after each step, to the last bit as one by one: what is printed of them is rounded."""
    return np.cumsum(np.concatenate(([before_ml], steps_ml)))[1:]


def _cusum(running_ml: Numbers) -> Numbers:
    """The values of max(0, value + step) for a running sum of the steps that begins at the value before."""
    return running_ml - np.minimum(np.minimum.accumulate(running_ml), 0.0)


def _first_false(flags: Flags) -> int:
    """The place of the first that is false; the length if none is."""
    return len(flags) if flags.all() else int(flags.argmin())
