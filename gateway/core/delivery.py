"""Does the counter keep up with the order? Sequential tests on volume, O(1) a reading.

A bank of two-sided CUSUMs (Page 1954): each accumulates by how much the delivered volume lies beyond the edge
of the tolerance *and* a reference ``k`` further on, and starts again at 0. A small reference finds small
shifts, a large one large shifts soon; together they come within a fifth of the best test that has been told
the shift.

Everything is a volume. With the prescribed volume ``dE`` and the counted volume ``dV`` of one interval::

    under[k] = max(0, under[k] + dE * (1 - tolerance - k) - dV)      under-infusion if > threshold[k]
    over[k]  = max(0, over[k]  + dV - dE * (1 + tolerance + k))      over-infusion  if > threshold[k]

    threshold[k] = counter + timing + the most over all windows w of  ripple(w) + sqrt(2 c w L) - k w

What is added up before ``- k w`` is a line below which the deficit of a healthy pump over its last w mL
stays, for windows from one poll on; the bank is that line, piecewise. Its bounded parts are one count, what
flows while the time of a reading is uncertain, and the ripple of the mechanism, which comes to its full
height only in windows that are long enough. Its last part is the random walk of the strokes with variance c =
0.0025 * stroke for each mL (prescription page, ``stroke_ml``); in long windows it makes c L / (2 k), where
e^L is the number of chances in a year for all of it to come together. The numbers are calibrated in
simulation (``benchmarks/calibrate.py``): a pump at the edge of the tolerance, which is the worst case, alarms
at most once a year in the settings of the detection benchmark. A pump whose ripple is steeper than is assumed
here alarms more often.

Where it is not certain what was prescribed in an interval (the pump was started or stopped within it, a step
of rate may have come a poll earlier or later), ``dE`` is an interval: the lower end accuses of too little,
the upper end of too much.
"""

from __future__ import annotations

from math import inf, log, pi, sqrt

from msgspec import Struct

from gateway.core.counter import MS_PER_HOUR
from gateway.core.prescription import PumpExpected

REFERENCES = (0.01, 0.02, 0.03, 0.04, 0.08, 0.16, 0.32)
RATE_LIMIT_EDGE = 1 + REFERENCES[2]
"""The share of what a hard limit of rate allows at which the test of it begins."""
STROKE_VARIANCE = 0.05**2
"""One stroke varies by 5 % (prescription page, ``stroke_ml``)."""
HOURS_PER_YEAR = 8766
PIECE_MS = 300_000
"""The volume of the last 24 h is kept in pieces as long as this."""
DAY_MS = 86_400_000
ALL_AT_0 = [0.0] * len(REFERENCES)
WHATEVER_COMES = (inf,) * len(REFERENCES)
"""Thresholds that no test goes beyond."""
NOTHING_ML = 1e-9
"""Less than this is what rounding leaves of 0."""
READ_WITHIN_MS = 100
"""How well the time of a reading is known, in the noise by which the thresholds are calibrated."""
TIMING_MS = 300
"""How far the time of a reading may be from the moment of which the pump spoke."""
RIPPLE_SHARE = 0.05
"""The ripple swings the flow by this share, or by as much more as it needs for ``ripple_ml`` in ..."""
RIPPLE_MS = 120_000
"""... a cycle as long as this."""
CHANCE_HOURS = 1.0
"""Count, ripple and walk can be at their worst together about once in so many hours times the reference."""
EXCURSIONS = 28.0
"""Of the walk alone each mL has so many chances, times k**2 / c: two sides, seven tests, twice (Lorden)."""
LEAST = 1.04
"""A large reference leaves one count and no more: a healthy pump often comes so far, so it must be more."""


class Mark(Struct, frozen=True, array_like=True):
    """A moment of one occurrence to which a deviation is traced back."""

    t_ms: int
    tau_ms: float
    """For how long the pump had delivered."""
    expected_ml: float
    delivered_ml: float


class Excess(Struct, frozen=True):
    """A test has gone beyond its threshold."""

    reference: float
    value_ml: float
    since: Mark
    """When it last was at 0: the estimated beginning."""


def thresholds_ml(rate_ml_h: float, pump: PumpExpected, poll_ms: int) -> tuple[float, ...]:
    """The threshold in mL for each of ``REFERENCES`` at this rate; always more than one count."""
    rate_ml_ms = max(rate_ml_h, 1e-6) / MS_PER_HOUR
    at_once_ml = pump.counter_ml + rate_ml_ms * READ_WITHIN_MS
    return tuple(
        max(
            LEAST * at_once_ml,
            at_once_ml + _swing_and_walk_ml(reference, rate_ml_ms, pump, poll_ms),
            _walk_alone_ml(reference, rate_ml_ms, pump),
        )
        for reference in REFERENCES
    )


def _swing_and_walk_ml(reference: float, rate_ml_ms: float, pump: PumpExpected, poll_ms: int) -> float:
    """The most in mL that ripple and walk make of a window, less what the reference takes off it."""
    walk_ml = STROKE_VARIANCE * pump.stroke_ml
    ripple_ml = pump.ripple_ml
    swing = max(RIPPLE_SHARE, pi * ripple_ml / (rate_ml_ms * RIPPLE_MS))
    spread_ml = 2 * walk_ml * log(HOURS_PER_YEAR / (reference * CHANCE_HOURS))
    window_ml = spread_ml / (2 * reference) ** 2  # where the walk alone makes most
    if swing * window_ml < ripple_ml:
        window_ml = ripple_ml / swing  # where the ripple has come to its height
        if reference > swing:
            window_ml = min(window_ml, spread_ml / (2 * (reference - swing)) ** 2)
    window_ml = max(window_ml, rate_ml_ms * poll_ms)
    return min(ripple_ml, swing * window_ml) + sqrt(spread_ml * window_ml) - reference * window_ml


def _walk_alone_ml(reference: float, rate_ml_ms: float, pump: PumpExpected) -> float:
    """What a pump whose strokes differ so much that the rest hardly counts comes to once a year, in mL.

    Of the rest, half a count: what a counter hides on average.
    """
    walk_ml = STROKE_VARIANCE * pump.stroke_ml
    year_ml = rate_ml_ms * MS_PER_HOUR * HOURS_PER_YEAR
    excursions = EXCURSIONS * reference**2 * year_ml / walk_ml
    return pump.counter_ml / 2 + walk_ml * log(max(1.0, excursions)) / (2 * reference)


def decidable_volume_ml(
    thresholds: tuple[float, ...],
    shift: float,
    pump: PumpExpected,
    *,
    tolerance: float,
    poll_ml: float,
) -> float:
    """Prescribed volume in mL after which a shift this far beyond the tolerance would have been found.

    At the worst phase of counter and ripple, against the pump; ``poll_ml`` flows within a poll. A deficit
    begins to grow with the first count at the latest, and is seen at its greatest before another: that count
    speaks against the pump, as far as polls come more often than counts. Two polls pass unjudged.
    """
    two_counts_ml = 2 * pump.counter_ml / (1 - tolerance - shift)
    seen_ml = max(0.0, pump.counter_ml - poll_ml)
    grown_ml = min(
        (threshold - seen_ml + pump.ripple_ml) / (shift - k)
        for threshold, k in zip(thresholds, REFERENCES, strict=True)
        if k < shift
    )
    return two_counts_ml + grown_ml + 2 * poll_ml


class Edges(Struct, frozen=True):
    """What is tolerated of the prescribed volume, for each of ``REFERENCES``: shares of it."""

    under: tuple[float, ...]
    over: tuple[float, ...]

    @classmethod
    def of(cls, tolerance: float) -> Edges:
        """The edges for this tolerance (a fraction)."""
        return cls(
            tuple(1.0 - tolerance - reference for reference in REFERENCES),
            tuple(1.0 + tolerance + reference for reference in REFERENCES),
        )


class Bank(Struct):
    """The state of the tests of one occurrence. Mutable: changed with every reading."""

    under_ml: list[float]
    over_ml: list[float]
    under_since: list[Mark]
    """For a test that is not at 0: where it last was."""
    over_since: list[Mark]
    mark: Mark
    """The end of the last interval."""

    @classmethod
    def fresh(cls, mark: Mark) -> Bank:
        """All tests at 0."""
        count = len(REFERENCES)
        return cls([0.0] * count, [0.0] * count, [mark] * count, [mark] * count, mark)

    def update(
        self,
        low_ml: float,
        high_ml: float,
        delivered_ml: float,
        edges: Edges,
        mark: Mark,
        thresholds: tuple[float, ...] = WHATEVER_COMES,
    ) -> bool:
        """Take one interval: prescribed between ``low_ml`` and ``high_ml``, counted ``delivered_ml``.

        ``mark`` is the end of the interval. Tells whether each test has stayed within its threshold.
        """
        # of two tests that with the greater reference never stands higher: behind one at 0 all are at 0
        within = True
        values = self.under_ml
        for index, share in enumerate(edges.under):
            before_ml = values[index]
            value_ml = before_ml + low_ml * share - delivered_ml
            if value_ml <= NOTHING_ML:
                if before_ml:
                    values[index:] = ALL_AT_0[index:]
                break
            if not before_ml:
                self.under_since[index] = self.mark
            values[index] = value_ml
            if value_ml > thresholds[index]:
                within = False
        values = self.over_ml
        for index, share in enumerate(edges.over):
            before_ml = values[index]
            value_ml = before_ml + delivered_ml - high_ml * share
            if value_ml <= NOTHING_ML:
                if before_ml:
                    values[index:] = ALL_AT_0[index:]
                break
            if not before_ml:
                self.over_since[index] = self.mark
            values[index] = value_ml
            if value_ml > thresholds[index]:
                within = False
        self.mark = mark
        return within

    def forgive_under(self, volume_ml: float) -> None:
        """Take so much from all deficits: a reset of the counter hides up to one count."""
        self.under_ml = [max(0.0, value - volume_ml) for value in self.under_ml]

    def forgive_over(self, volume_ml: float) -> None:
        """Take so much from all surpluses."""
        self.over_ml = [max(0.0, value - volume_ml) for value in self.over_ml]

    def too_little(self, thresholds: tuple[float, ...]) -> Excess | None:
        """The first test for under-infusion that is beyond its threshold, and since when."""
        return _beyond(self.under_ml, self.under_since, thresholds)

    def too_much(self, thresholds: tuple[float, ...]) -> Excess | None:
        """The first test for over-infusion that is beyond its threshold, and since when."""
        return _beyond(self.over_ml, self.over_since, thresholds)


def _beyond(values: list[float], since: list[Mark], thresholds: tuple[float, ...]) -> Excess | None:
    for index, threshold in enumerate(thresholds):
        if values[index] > threshold:
            return Excess(REFERENCES[index], values[index], since[index])
    return None


class Deviation(Struct):
    """A deviation that has been found, and when it will be over.

    Rule (prescription page, section 3): it ends when delivery has kept up again for as long as it took to be
    found. Time is that for which the pump delivers. Half a threshold already speaks against "kept up": a
    shift that lasts comes there in about half the time in which it was found. What one count makes of a pump
    that keeps up speaks against nothing: a coarse counter brings the tests that high with every count, so it
    is half of what a threshold is beyond a count.
    """

    took_ms: float
    kept_up_ms: float = 0.0

    def goes_on(
        self,
        values: list[float],
        thresholds: tuple[float, ...],
        delivering_ms: float,
        *,
        count_ml: float = 0.0,
    ) -> bool:
        """Take one interval; False when it is over. The tests are kept from growing without bound."""
        suspicious = False
        for index, threshold in enumerate(thresholds):
            if values[index] > threshold:
                values[index] = threshold
            suspicious = suspicious or values[index] >= (threshold + min(count_ml, threshold)) / 2
        self.kept_up_ms = 0.0 if suspicious else self.kept_up_ms + delivering_ms
        return self.kept_up_ms < self.took_ms


class RateLimit(Struct):
    """Whether more than a hard limit of rate is delivered: one test as in the bank.

    The limit is met by a pump within its stated accuracy, so the test begins beyond that.
    """

    surplus_ml: float = 0.0

    def after(self, delivered_ml: float, allowed_ml: float) -> float:
        """The surplus in mL after one more interval."""
        return max(0.0, self.surplus_ml + delivered_ml - allowed_ml * RATE_LIMIT_EDGE)

    def update(self, delivered_ml: float, allowed_ml: float, most_ml: float) -> None:
        """Take one interval. Beyond ``most_ml``, twice the threshold, the surplus tells nothing more."""
        self.surplus_ml = min(most_ml, self.after(delivered_ml, allowed_ml))


class DayVolume(Struct):
    """Volume delivered in the last 24 h, in pieces of five minutes."""

    pieces: list[tuple[int, float]]
    """Beginning in ms and volume in mL, in order of time."""
    total_ml: float = 0.0

    def add(self, t_ms: int, volume_ml: float) -> None:
        """Take what was delivered until now."""
        if volume_ml:
            begin_ms = t_ms - t_ms % PIECE_MS
            if self.pieces and self.pieces[-1][0] == begin_ms:
                self.pieces[-1] = (begin_ms, self.pieces[-1][1] + volume_ml)
            else:
                self.pieces.append((begin_ms, volume_ml))
            self.total_ml += volume_ml
        self._forget(t_ms)

    def within_ml(self, t_ms: int) -> float:
        """Volume in mL in the 24 h until now; of the piece at their beginning, its share."""
        self._forget(t_ms)
        if not self.pieces:
            return 0.0
        begin_ms, volume_ml = self.pieces[0]
        outside = min(1.0, max(0.0, (t_ms - DAY_MS - begin_ms) / PIECE_MS))
        return self.total_ml - volume_ml * outside

    def _forget(self, t_ms: int) -> None:
        """Time passes also while the pump does not say its volume."""
        while self.pieces and self.pieces[0][0] + PIECE_MS <= t_ms - DAY_MS:
            self.total_ml -= self.pieces.pop(0)[1]
