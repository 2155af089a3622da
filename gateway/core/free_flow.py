"""Does volume move that the pump does not deliver? ``free_flow`` (prescription page, section 3).

Two witnesses: the pump's counter where it follows the flow, and an independent sensor. For each, one test
that accumulates by how much more has moved than one and a half times what the pump was set to; while it does
not deliver, more than a creep. It is free flow when that is beyond what counts, strokes, ripple and noise can
make, and all that has moved since is three times what was set, or more. While the pump does not deliver it
must moreover be 0.2 mL (a pump settles after a stop, and hands touch the line), and two readings must have
seen it grow: what has moved once and stands still does not flow. Where the pump starts or stops the test
begins anew.

What is legal breaks the test off: a bolus, priming, and while the pump does not deliver a *set change*: from
a door, cassette or air alarm, priming or a counter that falls until it delivers again, what is let out by
hand does not go to the patient.
"""

from __future__ import annotations

from enum import Enum

from msgspec import Struct, field

from gateway.core.counter import MS_PER_HOUR
from gateway.core.delivery import NOTHING_ML, TIMING_MS
from gateway.core.prescription import PumpExpected, Sensor
from gateway.core.sensor import NOISE_SIGMAS

SURPLUS_BEGINS = 1.5
"""More than so many times the set rate is surplus, ..."""
FAR_FASTER = 3.0
"""... and so many times what was set, in all that was surplus, is far faster."""
CREEP_ML_H = 0.1
"""A counter or a sensor of a pump that stands still may drift so fast."""
LEAST_ML = 0.2
MOVES = 2
MOVES_OF_A_SCALE = 4
"""A bag that somebody touches moves once or twice."""
QUIET_MS = 60_000


class Flow(Enum):
    """What a reading has shown."""

    FREE = "free"
    STOPPED = "stopped"


def surplus_begins_ml_h(set_ml_h: float) -> float:
    """What moves faster than this, in mL/h, is surplus."""
    return max(SURPLUS_BEGINS * set_ml_h, CREEP_ML_H)


class Threshold(Struct, frozen=True, kw_only=True):
    """From when on a surplus of one witness is free flow."""

    bounded_ml: float
    """What counts, strokes, ripple and noise can make."""
    moves: int
    """Readings that must have seen it grow while the pump delivers, ..."""
    moves_at_rest: int
    """... and while it does not."""
    timing_ms: float
    """At a rate, what flows in so long may be seen too early or too late."""

    def volume_ml(self, rate_ml_h: float, *, at_rest: bool) -> float:
        """The threshold in mL where this rate was set, or the pump does not deliver."""
        volume_ml = self.bounded_ml + rate_ml_h * self.timing_ms / MS_PER_HOUR
        return max(LEAST_ML, volume_ml) if at_rest else volume_ml


def of_counter(pump: PumpExpected, poll_ms: int, bolus_ml: float) -> Threshold:
    """The pump's counter; ``bolus_ml`` may come at once where the pump does not say when."""
    return Threshold(
        bounded_ml=2 * pump.counter_ml + pump.stroke_ml + pump.ripple_ml + bolus_ml,
        moves=1,
        moves_at_rest=MOVES,
        timing_ms=poll_ms / 3 + TIMING_MS,
    )


def of_sensor(sensor: Sensor, pump: PumpExpected, poll_ms: int, bolus_ml: float) -> Threshold:
    """An independent sensor."""
    noise_ml = NOISE_SIGMAS * sensor.noise_ml
    moves = MOVES_OF_A_SCALE if sensor.kind == "weight" else MOVES
    return Threshold(
        bounded_ml=2 * sensor.resolution_ml + noise_ml + pump.stroke_ml + pump.ripple_ml + bolus_ml,
        moves=moves,
        moves_at_rest=moves,
        timing_ms=poll_ms / 3 + TIMING_MS,
    )


class Surplus(Struct):
    """What one witness has seen beyond what the pump was set to. Mutable."""

    value_ml: float = 0.0
    moved_ml: float = 0.0
    set_ml: float = 0.0
    """Moved, and set, since the value was 0."""
    since_t_ms: int = 0
    peak_ml: float = 0.0
    """The highest value since then, and how many readings have brought a new one."""
    moves: int = 0
    seen_t_ms: int | None = None
    """When the witness last spoke."""
    highest_ml_h: float = 0.0
    """The highest rate that was set since then."""
    at_rest: bool = True
    """The pump does not deliver."""
    is_legal: bool = False
    """Something since then makes volume legal."""
    took_ms: int | None = None
    """While there is free flow: how long it took to be found."""
    quiet_ms: int = 0

    def take(
        self,
        t_ms: int,
        moved_ml: float | None,
        set_ml_h: float,
        threshold: Threshold,
        *,
        unseen_ml_h: float = 0.0,
        legal: bool = False,
    ) -> Flow | None:
        """Take a reading: what moved since the witness last spoke (``None``: it says nothing now).

        ``set_ml_h`` is what the pump is set to, 0 while it does not deliver; ``unseen_ml_h`` what it may have
        been set to since the reading before.
        """
        rate_ml_h = max(self.highest_ml_h, set_ml_h, unseen_ml_h)
        if moved_ml is None:
            self.highest_ml_h = rate_ml_h
            self.is_legal = self.is_legal or legal
            return None
        seen_t_ms, self.seen_t_ms = self.seen_t_ms, t_ms
        self.highest_ml_h = set_ml_h
        legal, self.is_legal = legal or self.is_legal, legal
        at_rest = set_ml_h <= 0
        if at_rest != self.at_rest:
            self.at_rest = at_rest
            self._restart(t_ms if seen_t_ms is None else seen_t_ms)
        if seen_t_ms is None or (legal and moved_ml > 0):
            self._restart(t_ms)
            return None
        elapsed_ms = t_ms - seen_t_ms
        set_ml = rate_ml_h * elapsed_ms / MS_PER_HOUR
        edge_ml = surplus_begins_ml_h(rate_ml_h) * elapsed_ms / MS_PER_HOUR
        self.value_ml = self.value_ml + moved_ml - edge_ml  # added up as by the quick way, to the last bit
        if self.value_ml <= NOTHING_ML:
            self._restart(t_ms)
        else:
            self.moved_ml += moved_ml
            self.set_ml += set_ml
            if self.value_ml > self.peak_ml:
                self.peak_ml = self.value_ml
                self.moves += 1
        if self.took_ms is not None:
            threshold_ml = threshold.volume_ml(rate_ml_h, at_rest=at_rest)
            return self._goes_on(self.took_ms, t_ms, elapsed_ms, threshold_ml)
        if self.value_ml == 0.0:
            return None
        if (
            self.value_ml <= threshold.volume_ml(rate_ml_h, at_rest=at_rest)
            or self.moves < (threshold.moves_at_rest if at_rest else threshold.moves)
            or self.moved_ml < FAR_FASTER * self.set_ml
        ):
            return None
        self.took_ms = t_ms - self.since_t_ms
        self.quiet_ms = 0
        return Flow.FREE

    def is_ordinary(self, set_ml_h: float) -> bool:
        """Whether nothing but the sums is changed by another reading with this rate that stays ``within``."""
        at_rest = set_ml_h <= 0
        return not (
            self.took_ms is not None
            or self.is_legal
            or self.seen_t_ms is None
            or self.at_rest != at_rest
            or self.highest_ml_h != set_ml_h
            or (at_rest and self.value_ml)
        )

    def add(self, t_ms: int, moved_ml: float, set_ml_h: float, value_ml: float) -> None:
        """Take such a reading; ``value_ml`` is the sum after it, which must be below the threshold."""
        if value_ml > NOTHING_ML:
            self.value_ml = value_ml
            self.moved_ml += moved_ml
            self.set_ml += set_ml_h * (t_ms - (self.seen_t_ms or t_ms)) / MS_PER_HOUR
            if value_ml > self.peak_ml:
                self.peak_ml = value_ml
                self.moves += 1
        elif self.value_ml:
            self._restart(t_ms)
        else:
            self.since_t_ms = t_ms
        self.seen_t_ms = t_ms

    def _restart(self, t_ms: int) -> None:
        self.value_ml = self.peak_ml = self.moved_ml = self.set_ml = 0.0
        self.moves = 0
        self.since_t_ms = t_ms

    def _goes_on(self, took_ms: int, t_ms: int, elapsed_ms: int, threshold_ml: float) -> Flow | None:
        """It is over when nothing has moved too much for as long as it took, and for a minute."""
        if self.value_ml > threshold_ml / 2:
            self._restart(t_ms)
            self.quiet_ms = 0
            return None
        self.quiet_ms += elapsed_ms
        if self.quiet_ms < max(QUIET_MS, took_ms):
            return None
        self.took_ms = None
        return Flow.STOPPED


class FreeFlow(Struct):
    """What is remembered of both witnesses."""

    counter: Surplus = field(default_factory=Surplus)
    sensor: Surplus = field(default_factory=Surplus)
    sensor_ml: float | None = None
    """The sensor's last value."""
    sensor_t_ms: int = 0
    set_change: bool = False
    """The set or the bag is handled in this stop."""
