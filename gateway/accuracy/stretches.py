"""Steady stretches of a recording, and the volume in them each half minute. One reading at a time.

A stretch is a time in which the pump said ``running`` at one set rate and its counter can be followed. A
pause, a bolus, another rate, a silence, a counter that fell (a wrap apart) ends it.

The counter shows whole counts, so between two readings that differ ``v + u`` (the volume and the unknown
phase of the counter) has crossed from one value's count to the other's. The middle of the two readings and of
the two counts is a *knot*; between knots the volume is taken to be a straight line, and readings without news
are no knots. So a coarse counter that is read often tells the volume far better than to one count: to half of
what flows between two readings.

Only the volumes each half minute are kept; the readings are not.
"""

from __future__ import annotations

from array import array
from enum import StrEnum
from math import inf, isfinite

from msgspec import Struct

from drivers.reading import PumpState, Reading
from gateway.core.counter import MS_PER_HOUR, CounterFall, delivered_across_fall
from gateway.core.prescription import Prescription
from gateway.core.timeline import GapKind, Instant

SAMPLE_MS = 30_000
"""The sample interval S that manufacturers print: half a minute."""
LEAST_SAMPLES = 4
"""A stretch shorter than the shortest window, 2 min, is of no use."""
LONGEST_SILENCE_MS = 120_000
"""Over a longer silence the volume is not known finely enough for the shortest window."""
SILENT_POLLS = 3
"""Of a pump that is read less often, so many readings may be missing."""
STANDSTILL_COUNTS = 2.0
"""When so many counts are due and none has come, the counter stands still."""


class LeftOut(StrEnum):
    """Why a part of the recording is in no stretch. The words are for people."""

    NOT_RUNNING = "not running"
    SILENT = "silence, or readings without rate or volume"
    UNFOLLOWED = "too short at one rate, or too little counted"


class Stretch(Struct, kw_only=True):
    """Volumes in mL at ``SAMPLE_MS`` from the beginning, each up to a constant that is the same for all."""

    rate_ml_h: float
    began_utc_ms: int
    start_seen: bool
    """Whether the pump was seen to start then, after it had not been delivering."""
    volumes_ml: array[float]
    spacings_ms: array[float]
    """How far apart the two readings were that tell each volume; ``inf`` where it is known to one count only:
    before the first count and after the last."""

    @property
    def samples(self) -> int:
        """How many intervals of ``SAMPLE_MS`` it has."""
        return len(self.volumes_ml) - 1


class Recorded(Struct, kw_only=True):
    """What there is to work with, and what is not."""

    stretches: list[Stretch]
    left_out_ms: dict[LeftOut, int]
    volume_seen: bool
    rate_seen: bool
    running_seen: bool
    least_count_ml: float | None
    """The least by which the counter moved, if at times it did not move at all: then it is its real step."""
    falls: int
    """How often the counter fell while the pump ran, a wrap apart."""


class _Open(Struct):
    """A stretch that is going on. Times are ms of the timeline; a knot is a time and a volume."""

    stretch: Stretch
    began_ms: float
    knot_ms: float
    knot_ml: float
    spacing_ms: float
    value_ml: float
    """The latest counter value, wraps added."""
    seen_ms: int
    """The latest reading in it."""


class _Last(Struct):
    """The latest reading that said enough."""

    t_ms: int
    running: bool
    counter_ml: float | None


class Recorder:
    """Cuts readings into stretches. Feed it in order of time, then ask for ``recorded``."""

    def __init__(self, prescription: Prescription) -> None:
        self._pump = prescription.pump
        self._limits = prescription.limits
        self._longest_silence_ms = max(LONGEST_SILENCE_MS, SILENT_POLLS * prescription.pump.poll_ms)
        self._open: _Open | None = None
        self._last: _Last | None = None
        self._stood_still = False
        self._recorded = Recorded(
            stretches=[],
            left_out_ms=dict.fromkeys(LeftOut, 0),
            volume_seen=False,
            rate_seen=False,
            running_seen=False,
            least_count_ml=None,
            falls=0,
        )

    def take(self, instant: Instant, reading: Reading) -> None:
        """One reading. One that does not say its state, or runs and does not say rate or volume, says
        nothing: the counter goes on meanwhile."""
        self._note_what_is_said(reading)
        if reading.state is PumpState.UNKNOWN:
            return
        running = reading.state is PumpState.RUNNING and reading.rate_ml_h != 0.0
        if running and (reading.rate_ml_h is None or reading.volume_ml is None):
            return
        last = self._last
        self._last = _Last(instant.t_ms, running, reading.volume_ml)
        if last is not None and self._is_silence(last, instant):
            self._close()
            self._leave_out(LeftOut.SILENT, instant.t_ms - last.t_ms)
            last = None
        if not running:
            self._close()
            if last is not None:
                self._leave_out(LeftOut.NOT_RUNNING, instant.t_ms - last.t_ms)
            return
        assert reading.rate_ml_h is not None
        assert reading.volume_ml is not None
        if self._open is not None and self._open.stretch.rate_ml_h != reading.rate_ml_h:
            self._close()
        if self._open is None:
            self._begin(instant, reading.rate_ml_h, reading.volume_ml, last)
        elif last is not None and last.counter_ml is not None:
            self._go_on(self._open, last, instant, reading.rate_ml_h, reading.volume_ml)

    def recorded(self) -> Recorded:
        """All there is, once no more readings come."""
        self._close()
        least_ml = self._recorded.least_count_ml
        self._recorded.least_count_ml = least_ml if self._stood_still else None
        return self._recorded

    def _note_what_is_said(self, reading: Reading) -> None:
        recorded = self._recorded
        recorded.volume_seen = recorded.volume_seen or reading.volume_ml is not None
        if reading.state is PumpState.RUNNING:
            recorded.running_seen = True
            recorded.rate_seen = recorded.rate_seen or reading.rate_ml_h is not None

    def _is_silence(self, last: _Last, instant: Instant) -> bool:
        return instant.gap is not GapKind.NONE or instant.t_ms - last.t_ms > self._longest_silence_ms

    def _begin(self, instant: Instant, rate_ml_h: float, counter_ml: float, last: _Last | None) -> None:
        """Delivery began somewhere after the reading before: taken to be in the middle."""
        began_ms = float(instant.t_ms)
        first_ml = counter_ml
        if last is not None:
            began_ms = (last.t_ms + instant.t_ms) / 2
            if last.counter_ml is not None:
                first_ml = min(last.counter_ml, counter_ml)
            if not last.running:
                self._leave_out(LeftOut.NOT_RUNNING, round(began_ms) - last.t_ms)
        # a counter at 0 has just been reset and has counted nothing yet; else it stands anywhere in its count
        knot_ml = first_ml + self._pump.counter_ml / 2 if first_ml > 0.0 else 0.0
        stretch = Stretch(
            rate_ml_h=rate_ml_h,
            began_utc_ms=instant.utc_ms - round(instant.t_ms - began_ms),
            start_seen=last is not None and not last.running,
            volumes_ml=array("d", [knot_ml]),
            spacings_ms=array("d", [inf]),
        )
        self._open = _Open(stretch, began_ms, began_ms, knot_ml, inf, counter_ml, instant.t_ms)

    def _go_on(
        self, going: _Open, last: _Last, instant: Instant, rate_ml_h: float, counter_ml: float
    ) -> None:
        assert last.counter_ml is not None
        delivered_ml = counter_ml - last.counter_ml
        elapsed_ms = instant.t_ms - last.t_ms
        if delivered_ml < 0:
            delivered = delivered_across_fall(
                last.counter_ml,
                counter_ml,
                elapsed_ms=elapsed_ms,
                may_be_reset=False,
                counter_ml=self._pump.counter_ml,
                counter_wrap_ml=self._pump.counter_wrap_ml,
                highest_ml_h=max(rate_ml_h, self._limits.max_rate_ml_h or 0.0) * (1 + self._limits.tolerance),
                set_ml_h=rate_ml_h,
            )
            if delivered.fall is not CounterFall.WRAPPED:
                self._recorded.falls += 1
                self._close()
                self._begin(instant, rate_ml_h, counter_ml, None)
                return
            delivered_ml = delivered.volume_ml
        going.seen_ms = instant.t_ms
        if delivered_ml == 0.0:
            self._stood_still = True
            return
        least_ml = self._recorded.least_count_ml
        self._recorded.least_count_ml = delivered_ml if least_ml is None else min(least_ml, delivered_ml)
        before_ml = going.value_ml
        going.value_ml += delivered_ml
        middle_ml = (before_ml + going.value_ml + self._pump.counter_ml) / 2
        _draw_to(going, (last.t_ms + instant.t_ms) / 2, middle_ml, float(elapsed_ms))

    def _close(self) -> None:
        """End the stretch that is going on, at its last count; or, if it has come to a standstill, now."""
        going = self._open
        self._open = None
        if going is None:
            return
        stretch = going.stretch
        due_ml = stretch.rate_ml_h * (going.seen_ms - going.knot_ms) / MS_PER_HOUR
        if due_ml > STANDSTILL_COUNTS * self._pump.counter_ml:
            has_counted = isfinite(going.spacing_ms)
            standing_ml = going.value_ml + self._pump.counter_ml / 2 if has_counted else going.knot_ml
            _draw_to(going, float(going.seen_ms), standing_ml, inf)
        if stretch.samples >= LEAST_SAMPLES:
            self._recorded.stretches.append(stretch)
        else:
            self._leave_out(LeftOut.UNFOLLOWED, round(going.seen_ms - going.began_ms))

    def _leave_out(self, why: LeftOut, length_ms: int) -> None:
        self._recorded.left_out_ms[why] += length_ms


def _draw_to(going: _Open, knot_ms: float, knot_ml: float, spacing_ms: float) -> None:
    """The volumes of all samples up to a new knot, on the straight line from the knot before."""
    stretch = going.stretch
    sample_ms = going.began_ms + len(stretch.volumes_ml) * SAMPLE_MS
    while sample_ms <= knot_ms:
        share = (sample_ms - going.knot_ms) / (knot_ms - going.knot_ms)
        stretch.volumes_ml.append(going.knot_ml + share * (knot_ml - going.knot_ml))
        stretch.spacings_ms.append(max(going.spacing_ms, spacing_ms))
        sample_ms += SAMPLE_MS
    going.knot_ms, going.knot_ml, going.spacing_ms = knot_ms, knot_ml, spacing_ms
