"""The noise of an infusion pump's volume readings, for many pumps at once.

What a pump has delivered is not what it was set to, and its counter does not show all of what it delivered::

    moved = expected + ripple + walk      what the mechanism moved, before its calibration error
    true  = moved * (1 + calibration)     what left it
    shown = whole counts of it            what a reading says

- ripple: the flow swings by a share (5 %) as a sine of time (period 2 min), at a phase of each pump's own;
- walk: one stroke's volume varies by 5 %, so the volume walks with variance 0.0025 x stroke for each mL;
- counter: cut off to whole counts, at a phase of each pump's own;
- polls: every 5 s, give or take half a second; a pump speaks of a moment up to 0.1 s before the reading.

It is an engineering assumption, not a measurement of a pump; that it says the same as the simulator is tested
(``tests/benchmarks/test_noise.py``). Pumps are the last axis of all arrays, readings the first. Volumes in
mL.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from gateway.core.delivery import HOURS_PER_YEAR, STROKE_VARIANCE

Volumes: TypeAlias = NDArray[np.float32]

READINGS_A_BLOCK = 64
S_PER_HOUR = 3600.0


class Noise(Struct, frozen=True, kw_only=True):
    """A pump at one rate, and how it is read."""

    rate_ml_h: float
    stroke_ml: float
    ripple_share: float = 0.05
    """How far the flow swings about its mean, as a share of it."""
    ripple_period_s: float = 120.0
    poll_s: float = 5.0
    poll_jitter_s: float = 0.5
    """A poll comes so much earlier or later, all alike probable."""
    latency_s: float = 0.1
    """A pump speaks of a moment up to so long before the reading."""

    @property
    def ripple_ml(self) -> float:
        """By how much the ripple swings the volume, peak to peak: share x rate x period / pi."""
        return self.ripple_share * self.rate_ml_h / S_PER_HOUR * self.ripple_period_s / np.pi

    @property
    def walk_ml(self) -> float:
        """Variance of the delivered volume for each mL, in mL."""
        return STROKE_VARIANCE * self.stroke_ml

    @property
    def readings_a_year(self) -> float:
        """How often a pump is read in a year."""
        return HOURS_PER_YEAR * S_PER_HOUR / self.poll_s


class Block(Struct, frozen=True):
    """Some readings of all pumps, one after the other: (readings, pumps)."""

    passed_s: Volumes
    """Time since the reading before."""
    expected_ml: Volumes
    """What was prescribed for that time."""
    moved_ml: Volumes
    """What the mechanism moved between the moments of which the two readings speak."""


class Mechanisms:
    """So many pumps of one kind, each at a phase and with an error of its own."""

    def __init__(self, noise: Noise, pumps: int, generator: np.random.Generator) -> None:
        self._noise = noise
        self._generator = generator
        self._pumps = pumps
        self._phase = generator.random(pumps, dtype=np.float32) * np.float32(2 * np.pi)
        self._ripple_at = np.cos(self._phase)
        self._lag_s = self._generator.random(pumps, dtype=np.float32) * np.float32(noise.latency_s)

    def block(self, readings: int = READINGS_A_BLOCK) -> Block:
        """The next readings."""
        noise, generator = self._noise, self._generator
        shape = (readings, self._pumps)
        rate_ml_s = np.float32(noise.rate_ml_h / S_PER_HOUR)
        passed_s = generator.random(shape, dtype=np.float32)
        passed_s -= np.float32(0.5)
        passed_s *= np.float32(2 * noise.poll_jitter_s)
        passed_s += np.float32(noise.poll_s)
        lag_s = generator.random(shape, dtype=np.float32)
        lag_s *= np.float32(noise.latency_s)
        turned_s = passed_s - lag_s
        turned_s[0] += self._lag_s
        turned_s[1:] += lag_s[:-1]
        self._lag_s = lag_s[-1].copy()

        moved_ml = generator.standard_normal(shape, dtype=np.float32)
        moved_ml *= np.sqrt(turned_s * np.float32(noise.walk_ml) * rate_ml_s)
        moved_ml += turned_s * rate_ml_s
        phase = np.cumsum(turned_s, axis=0)
        phase *= np.float32(2 * np.pi / noise.ripple_period_s)
        phase += self._phase
        self._phase = phase[-1] % np.float32(2 * np.pi)
        ripple_at = np.cos(phase, out=phase)
        swing_ml = np.float32(noise.ripple_ml / 2)
        moved_ml[0] += (self._ripple_at - ripple_at[0]) * swing_ml
        moved_ml[1:] += (ripple_at[:-1] - ripple_at[1:]) * swing_ml
        self._ripple_at = ripple_at[-1].copy()
        return Block(passed_s, passed_s * rate_ml_s, moved_ml)

    def blocks(self, readings: int) -> Iterator[Block]:
        """At least so many readings, in blocks."""
        for _ in range(0, readings, READINGS_A_BLOCK):
            yield self.block()


class Counters:
    """The counters of so many pumps."""

    def __init__(self, counter_ml: float, pumps: int, generator: np.random.Generator) -> None:
        self._counter_ml = np.float32(counter_ml)
        self._uncounted = generator.random(pumps, dtype=np.float32)

    def count(self, true_ml: Volumes) -> Volumes:
        """By how much the counters rise with each reading while so much is delivered."""
        counts = np.cumsum(true_ml, axis=0)
        counts /= self._counter_ml
        counts += self._uncounted
        whole = np.floor(counts)
        self._uncounted = counts[-1] - whole[-1]
        whole[1:] -= whole[:-1].copy()
        whole *= self._counter_ml
        return whole
