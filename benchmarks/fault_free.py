"""How high the detectors come in pump-years without a fault, and where thresholds must therefore be.

The worst case is taken: a pump at the very edge of the tolerance, for tests of too little at the lower one,
for tests of too much at the upper one. One run serves all counters and tolerances: they see the same
mechanisms.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from benchmarks.detectors import Detector
from benchmarks.noise import READINGS_A_BLOCK, Counters, Mechanisms, Noise, Volumes
from benchmarks.settings import Setting

PUMPS = 1024
"""So many at once; a year of them is split among them."""


def highest(
    noise: Noise,
    tested: Sequence[tuple[Setting, Sequence[Detector]]],
    *,
    years: float,
    generator: np.random.Generator,
    pumps: int = PUMPS,
    tick: Callable[[float], None] = lambda share: None,
) -> list[list[Volumes]]:
    """The highest that each statistic comes in each pump's share of so many pump-years without a fault.

    For each setting and each of its detectors an array (side, statistic, pump). ``tick`` is told how much
    of the work is done.
    """
    mechanisms = Mechanisms(noise, pumps, generator)
    counters = [[Counters(one.counter_ml, pumps, generator) for _ in "uo"] for one, _ in tested]
    peaks = [
        [np.zeros((2, one.statistics, pumps), dtype=np.float32) for one in detectors]
        for _, detectors in tested
    ]
    readings = round(years * noise.readings_a_year / pumps)
    for number, block in enumerate(mechanisms.blocks(readings)):
        tick(number * READINGS_A_BLOCK / readings)
        for (setting, detectors), (under, over), peak in zip(tested, counters, peaks, strict=True):
            edges = np.float32(1 - setting.tolerance), np.float32(1 + setting.tolerance)
            counted_ml = np.stack(
                [under.count(block.moved_ml * edges[0]), over.count(block.moved_ml * edges[1])], axis=1
            )
            for expected_ml, counted in zip(block.expected_ml, counted_ml, strict=True):
                for detector, most in zip(detectors, peak, strict=True):
                    np.maximum(most, detector.take(expected_ml, counted), out=most)
    return peaks


def common_factor(peaks: Volumes, thresholds: NDArray[np.float64], alarms: int) -> float:
    """By what all thresholds must be multiplied for so many pumps to alarm, whichever test and side."""
    above = (peaks / thresholds[:, np.newaxis]).max(axis=(0, 1))
    return float(np.sort(above)[-1 - alarms])


def equal_shares(peaks: Volumes, alarms: int) -> NDArray[np.float64]:
    """Thresholds at which every test alarms equally often, and so many pumps by any of them."""
    either_side = peaks.max(axis=0).astype(float)
    ordered = -np.sort(-either_side, axis=1)

    def thresholds(rank: float) -> NDArray[np.float64]:
        whole = int(rank)
        return ordered[:, whole - 1] * (1 - rank + whole) + ordered[:, whole] * (rank - whole)

    low, high = 1.0, alarms + 1.0
    for _ in range(30):
        rank = (low + high) / 2
        alarmed = (either_side > thresholds(rank)[:, np.newaxis]).any(axis=0).sum()
        low, high = (low, rank) if alarmed > alarms else (rank, high)
    return thresholds(low)
