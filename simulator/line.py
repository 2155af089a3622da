"""The line as a pressure gauge sees it: what it stores, what a vein resists, how a patient lies.

Noise model: white noise of each reading, a slow wave, and steps of posture, all from one seed and a function
of time: the same moment has the same pressure however often it is asked for.
"""

from __future__ import annotations

import random
from functools import cache
from math import cos, log, pi, sin, sqrt

from msgspec import Struct

SLOW_PERIOD_MS = 300_000
"""Period of the slow wave."""
POSTURE_MS = 5_400_000
"""A patient lies otherwise about this often."""
_WORD = (1 << 64) - 1


class Gauge(Struct, frozen=True, kw_only=True):
    """What the gauge shows beside what is pent up in the line. All 0: a perfect gauge in a still patient."""

    resting_mmhg: float = 18.0
    noise_mmhg: float = 0.0
    """Standard deviation of one reading; the slow wave has the same."""
    posture_mmhg: float = 0.0
    """The steps of posture lie within plus and minus this."""
    resistance_mmhg_h_ml: float = 0.0
    """By how much each mL/h of flow raises the pressure."""


def gauge_shows_mmhg(gauge: Gauge, seed: int, now_ms: int, stored_mmhg: float, rate_ml_h: float) -> float:
    """The pressure that the pump reports at ``now_ms``, in mmHg; never below 0."""
    shown_mmhg = gauge.resting_mmhg + stored_mmhg + gauge.resistance_mmhg_h_ml * rate_ml_h
    if gauge.posture_mmhg:
        shown_mmhg += gauge.posture_mmhg * posture_of(seed, now_ms // POSTURE_MS)
    if gauge.noise_mmhg:
        wave = sin(2 * pi * (now_ms / SLOW_PERIOD_MS + seed % 97 / 97)) * sqrt(2)
        shown_mmhg += gauge.noise_mmhg * (_normal(seed, now_ms) + wave)
    return max(0.0, shown_mmhg)


@cache
def posture_of(seed: int, turn: int) -> float:
    """From -1 to 1 for the time of one posture; in bed as it was to begin with."""
    return random.Random(f"{seed} posture {turn}").uniform(-1.0, 1.0) if turn else 0.0


def _normal(seed: int, now_ms: int) -> float:
    """A number from the standard normal distribution that belongs to this moment (Box and Muller 1958)."""
    word = _mixed((seed << 40) ^ now_ms)
    first, second = (word >> 32) + 1, word & 0xFFFFFFFF
    return sqrt(-2.0 * log(first / (1 << 32))) * cos(2 * pi * second / (1 << 32))


def _mixed(word: int) -> int:
    """64 bits that look like chance (the finaliser of SplitMix64, Steele, Lea and Flood 2014)."""
    word = (word + 0x9E3779B97F4A7C15) & _WORD
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & _WORD
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & _WORD
    return word ^ (word >> 31)
