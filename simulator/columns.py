"""Many moments of one span at once, as numpy columns: the closed forms of ``Pump.truth_at``, for long runs.

Nothing is decided here. ``pump.py`` says what holds within a span; a test compares both ways.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from simulator.line import POSTURE_MS, SLOW_PERIOD_MS, Gauge, posture_of
from simulator.mechanism import ROUNDING_COUNTS
from simulator.therapy import PumpSetting

Numbers = NDArray[np.float64]
Times = NDArray[np.int64]


class Columns(Struct, frozen=True, kw_only=True):
    """What a pump says at many moments, in order. Each field has one entry for each of them."""

    state: Sequence[str]
    rate_ml_h: Numbers
    counter_ml: Numbers
    vtbi_ml: Numbers
    pressure_mmhg: Numbers
    battery_percent: Numbers
    alarms: Sequence[tuple[str, ...]]
    bolus_ml: Sequence[float | None]
    lockout_s: Sequence[float | None]


def joined(parts: Sequence[Columns]) -> Columns:
    """One after another."""
    return Columns(
        state=[one for part in parts for one in part.state],
        rate_ml_h=np.concatenate([part.rate_ml_h for part in parts]),
        counter_ml=np.concatenate([part.counter_ml for part in parts]),
        vtbi_ml=np.concatenate([part.vtbi_ml for part in parts]),
        pressure_mmhg=np.concatenate([part.pressure_mmhg for part in parts]),
        battery_percent=np.concatenate([part.battery_percent for part in parts]),
        alarms=[one for part in parts for one in part.alarms],
        bolus_ml=[one for part in parts for one in part.bolus_ml],
        lockout_s=[one for part in parts for one in part.lockout_s],
    )


def ripple_volumes_ml(
    share: float,
    rate_ml_h: float,
    slope_ml_h_ms: float,
    *,
    from_ms: float,
    lengths_ms: Numbers,
    period_ms: int,
) -> Numbers:
    """``mechanism.ripple_volume_ml`` for many lengths."""
    if not share:
        return np.zeros_like(lengths_ms)
    turn = 2 * np.pi / period_ms
    begin = turn * from_ms
    ends = turn * (from_ms + lengths_ms)
    end_ml_h = rate_ml_h + slope_ml_h_ms * lengths_ms
    waves = rate_ml_h * np.cos(begin) - end_ml_h * np.cos(ends)
    waves += slope_ml_h_ms * (np.sin(ends) - np.sin(begin)) / turn
    volumes: Numbers = share * waves / turn / 3_600_000
    return volumes


def counter_shows_ml(counted_ml: Numbers, setting: PumpSetting) -> Numbers:
    """``mechanism.counter_shows`` for many volumes."""
    if setting.counter_wrap_ml:
        counted_ml = np.mod(counted_ml, setting.counter_wrap_ml)
    counts = np.floor(counted_ml / setting.counter_ml + ROUNDING_COUNTS)
    shown: Numbers = np.round(counts * setting.counter_ml, 6)
    return shown


def gauge_shows_mmhg(
    gauge: Gauge, seed: int, times_ms: Times, stored_mmhg: Numbers, rates_ml_h: Numbers
) -> Numbers:
    """``line.gauge_shows_mmhg`` for many moments."""
    shown = gauge.resting_mmhg + stored_mmhg + gauge.resistance_mmhg_h_ml * rates_ml_h
    if gauge.posture_mmhg:
        turns, places = np.unique(times_ms // POSTURE_MS, return_inverse=True)
        shown = shown + gauge.posture_mmhg * np.array([posture_of(seed, int(turn)) for turn in turns])[places]
    if gauge.noise_mmhg:
        wave = np.sin(2 * np.pi * (times_ms / SLOW_PERIOD_MS + seed % 97 / 97)) * np.sqrt(2)
        shown = shown + gauge.noise_mmhg * (_normals(seed, times_ms) + wave)
    at_least_0: Numbers = np.maximum(0.0, shown)
    return at_least_0


def _normals(seed: int, times_ms: Times) -> Numbers:
    words = np.uint64((seed << 40) & 0xFFFFFFFFFFFFFFFF) ^ times_ms.astype(np.uint64)
    with np.errstate(over="ignore"):
        words = words + np.uint64(0x9E3779B97F4A7C15)
        words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    words = words ^ (words >> np.uint64(31))
    first = (words >> np.uint64(32)).astype(np.float64) + 1.0
    second = (words & np.uint64(0xFFFFFFFF)).astype(np.float64)
    normals: Numbers = np.sqrt(-2.0 * np.log(first / 2**32)) * np.cos(2 * np.pi * second / 2**32)
    return normals
