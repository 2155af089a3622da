"""Do the counter and an independent sensor agree? ``measurement_mismatch`` (prescription page, section 3).

A counter repeats the pump's own belief; a sensor on the line or the bag measures. What both have seen while
the pump delivers is compared by the bank of tests on volume of ``delivery.py``, with what the counter shows
in the place of the order. The edge is the tolerance, or the accuracies of pump and sensor together, whichever
is larger: within that they do not contradict each other.

A sensor is noisy, and noise is bounded neither by a count nor by time. So the readings of a *block* are
averaged before they are compared; a block is a quarter of the time in which the bounded disturbances flow by,
at most a minute. Eight standard deviations of such an average are added to the thresholds (four at either end
of a comparison), and two blocks must say it.

A stop, a counter that fell and a sensor that fell (a new bag, a new set) break the comparison: it goes on
from the first block after that. A bag scale jumps when the bag is taken off the hook: what comes back within
ten minutes was nothing.
"""

from __future__ import annotations

from enum import Enum
from math import sqrt

from msgspec import Struct

from gateway.core.counter import MS_PER_HOUR
from gateway.core.delivery import Bank, Deviation, Edges, Excess, Mark, thresholds_ml
from gateway.core.prescription import Limits, PumpExpected, Sensor

NOISE_SIGMAS = 8.0
LONGEST_BLOCK_MS = 60_000
SHARE_OF_BOUNDED = 0.25
CONFIRMED_BY = 2
OFF_THE_HOOK_MS = 600_000
JUMP_ML = 10.0
FASTEST_ML_H = 3000.0
"""A bag scale that moves by more than ``JUMP_ML`` and a flow that runs freely did not see a flow."""


class Expected(Struct, frozen=True, kw_only=True):
    """What a comparison may find at one rate without a contradiction."""

    sensor: Sensor
    rate_ml_h: float
    edges: Edges
    """As a fraction of what the counter shows."""
    block_ms: int
    at_once_ml: float
    """By how much two readings of the sensor may differ without a flow, in mL."""
    bounded_ml: float
    """The same of two blocks: sensor and counter together."""
    thresholds_ml: tuple[float, ...]


def expected_at(
    rate_ml_h: float, pump: PumpExpected, sensor: Sensor, limits: Limits, poll_ms: int
) -> Expected:
    """What may be found at this rate, in mL/h."""
    at_once_ml = sensor.resolution_ml + NOISE_SIGMAS * sensor.noise_ml
    bounded_ml = pump.counter_ml + pump.ripple_ml + at_once_ml
    flows_by_ms = SHARE_OF_BOUNDED * bounded_ml * MS_PER_HOUR / max(rate_ml_h, 1e-6)
    block_ms = round(min(LONGEST_BLOCK_MS, max(poll_ms, flows_by_ms)))
    averaged = sqrt(max(1.0, block_ms / poll_ms))
    if sensor.noise_ml >= sensor.resolution_ml / 2:
        # noise wider than a count makes of its rounding one noise more
        spread_ml = NOISE_SIGMAS * sqrt(sensor.noise_ml**2 + sensor.resolution_ml**2 / 12) / averaged
    else:
        spread_ml = sensor.resolution_ml + NOISE_SIGMAS * sensor.noise_ml / averaged
    thresholds = thresholds_ml(rate_ml_h, pump, poll_ms)
    return Expected(
        sensor=sensor,
        rate_ml_h=rate_ml_h,
        edges=Edges.of(max(limits.tolerance, pump.accuracy + sensor.accuracy)),
        block_ms=block_ms,
        at_once_ml=at_once_ml,
        bounded_ml=pump.counter_ml + spread_ml,
        thresholds_ml=tuple(threshold + spread_ml for threshold in thresholds),
    )


def jumped(sensor: Sensor, step_ml: float, at_once_ml: float, elapsed_ms: int) -> bool:
    """Whether a step of the sensor between two readings is no flow: a bag was handled, a sensor reset."""
    if step_ml < -at_once_ml:
        return True
    most_ml = JUMP_ML + at_once_ml + FASTEST_ML_H * elapsed_ms / MS_PER_HOUR
    return sensor.kind == "weight" and step_ml > most_ml


class Agreement(Enum):
    """What a reading has shown."""

    BROKEN = "broken"
    RESTORED = "restored"


class Contradiction(Struct, frozen=True, kw_only=True):
    """What the sensor saw and what the pump counted, since when."""

    since_t_ms: int
    seen_ml: float
    counted_ml: float


class Comparison(Struct, kw_only=True):
    """The comparison of one pump's counter with its sensor. Mutable."""

    bank: Bank | None = None
    counted_ml: float = 0.0
    """What the pump has counted since the first comparison."""
    seen_ml: float | None = None
    """The sensor's last value; ``None`` after what breaks the comparison."""
    seen_t_ms: int = 0
    off_since_t_ms: int | None = None
    """When a bag scale has jumped."""
    block_ends_t_ms: int = 0
    sum_seen_ml: float = 0.0
    sum_counted_ml: float = 0.0
    readings: int = 0
    """Of the running block."""
    last_seen_ml: float | None = None
    last_counted_ml: float = 0.0
    """Means of the last block."""
    all_seen_ml: float = 0.0
    """What the sensor has seen in all that was compared."""
    doubtful_blocks: int = 0
    deviation: Deviation | None = None
    saw_more: bool = False
    """The sensor saw more than the pump counted, not less."""
    contradiction: Contradiction | None = None
    """The latest, in numbers."""

    def interrupt(self) -> None:
        """The pump stops, or its counter fell: what the sensor does until the next block is not compared."""
        self.seen_ml = None
        self.off_since_t_ms = None
        self.last_seen_ml = None
        self.readings = 0

    def take(self, t_ms: int, seen_ml: float, expected: Expected) -> Agreement | None:
        """Take a reading with both values: the sensor's, and that of the counter, which is ``counted_ml``."""
        before_ml, self.seen_ml = self.seen_ml, seen_ml
        elapsed_ms, self.seen_t_ms = t_ms - self.seen_t_ms, t_ms
        if before_ml is not None and jumped(
            expected.sensor, seen_ml - before_ml, expected.at_once_ml, elapsed_ms
        ):
            self._jump(t_ms, seen_ml - before_ml)
            return None
        if self.off_since_t_ms is not None:
            return self._wait_for_return(t_ms)
        if self.readings and t_ms >= self.block_ends_t_ms:
            told = self._compare(t_ms, expected)
        else:
            told = None
        if not self.readings:
            self.block_ends_t_ms = t_ms + expected.block_ms
            self.sum_seen_ml = self.sum_counted_ml = 0.0
        self.sum_seen_ml += seen_ml
        self.sum_counted_ml += self.counted_ml
        self.readings += 1
        return told

    def _jump(self, t_ms: int, step_ml: float) -> None:
        """A new bag, a new set; or the bag is off the hook."""
        seen_ml = self.seen_ml
        self.interrupt()
        self.seen_ml = seen_ml
        if step_ml > 0:
            self.off_since_t_ms = t_ms
            self.contradiction = Contradiction(since_t_ms=t_ms, seen_ml=step_ml, counted_ml=0.0)

    def _wait_for_return(self, t_ms: int) -> Agreement | None:
        assert self.off_since_t_ms is not None, "only while the bag is off"
        if t_ms - self.off_since_t_ms < OFF_THE_HOOK_MS:
            return None
        if self.deviation is not None:
            return None
        self.deviation = Deviation(OFF_THE_HOOK_MS)
        self.saw_more = True
        return Agreement.BROKEN

    def _compare(self, t_ms: int, expected: Expected) -> Agreement | None:
        """A block is over: test what both have seen since the one before."""
        seen_ml = self.sum_seen_ml / self.readings
        counted_ml = self.sum_counted_ml / self.readings
        passed_ms = expected.block_ms
        self.readings = 0
        before_ml, self.last_seen_ml = self.last_seen_ml, seen_ml
        before_counted_ml, self.last_counted_ml = self.last_counted_ml, counted_ml
        if self.bank is None:
            self.bank = Bank.fresh(Mark(t_ms, 0.0, counted_ml, 0.0))
        if before_ml is None:
            # the noise of another beginning
            self.bank.forgive_under(expected.bounded_ml)
            self.bank.forgive_over(expected.bounded_ml)
            return None
        self.all_seen_ml += seen_ml - before_ml
        steps_ml = counted_ml - before_counted_ml
        mark = Mark(t_ms, 0.0, counted_ml, self.all_seen_ml)
        self.bank.update(steps_ml, steps_ml, seen_ml - before_ml, expected.edges, mark)
        return self._judge(self.bank, mark, passed_ms, expected.thresholds_ml)

    def _judge(
        self, bank: Bank, mark: Mark, passed_ms: int, thresholds: tuple[float, ...]
    ) -> Agreement | None:
        if self.deviation is not None:
            values = bank.over_ml if self.saw_more else bank.under_ml
            if self.deviation.goes_on(values, thresholds, passed_ms):
                return None
            self.deviation = None
            self.doubtful_blocks = 0
            return Agreement.RESTORED
        excess: Excess | None = bank.too_little(thresholds) or bank.too_much(thresholds)
        self.doubtful_blocks = 0 if excess is None else self.doubtful_blocks + 1
        if excess is None or self.doubtful_blocks < CONFIRMED_BY:
            return None
        self.deviation = Deviation(mark.t_ms - excess.since.t_ms)
        self.saw_more = bank.too_little(thresholds) is None
        self.contradiction = Contradiction(
            since_t_ms=excess.since.t_ms,
            seen_ml=mark.delivered_ml - excess.since.delivered_ml,
            counted_ml=mark.expected_ml - excess.since.expected_ml,
        )
        return Agreement.BROKEN
