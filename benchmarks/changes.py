"""How long the detectors take to find a change of flow."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from benchmarks.detectors import SIDES, Detector
from benchmarks.noise import S_PER_HOUR, Counters, Mechanisms, Volumes
from benchmarks.settings import Setting

RUN_IN_H = 6.0
"""So long a pump is at the edge of the tolerance before its flow changes."""
LONGEST_H = 24.0
"""What has not been found by then is never found."""


class Asked(Struct, frozen=True):
    """A detector with a threshold for each of its statistics."""

    detector: Detector
    thresholds: NDArray[np.float64]
    until_h: float = LONGEST_H
    """It is not asked any more so long after the change."""


def delays_s(
    setting: Setting,
    shifts: Sequence[float],
    changes: int,
    detectors: Callable[[int], Sequence[Asked]],
    generator: np.random.Generator,
) -> list[NDArray[np.float64]]:
    """Seconds from each change to the reading that finds it; inf for never.

    For each detector, which ``detectors`` makes for so many pumps, an array (side, statistic, shift, change).
    Until then a pump is at the edge of the tolerance, so that no detector has to make up for a good past.
    From then on it delivers ``shift`` less (side 0) or more (side 1) than it should. The change comes at any
    moment between two readings, so at any phase of ripple and counter.
    """
    pumps = len(shifts) * changes
    mechanisms = Mechanisms(setting.noise, pumps, generator)
    counters = [Counters(setting.counter_ml, pumps, generator) for _ in SIDES]
    tested = detectors(pumps)
    edge = np.float32(setting.tolerance)
    readings_an_hour = S_PER_HOUR / setting.noise.poll_s
    for block in mechanisms.blocks(round(RUN_IN_H * readings_an_hour)):
        counted_ml = _counted(counters, block.moved_ml, block.moved_ml * edge)
        for expected_ml, counted in zip(block.expected_ml, counted_ml, strict=True):
            for one in tested:
                one.detector.take(expected_ml, counted)

    shift = np.repeat(np.asarray(shifts, dtype=np.float32), changes)
    found_s = [np.full((len(SIDES), one.detector.statistics, pumps), np.inf) for one in tested]
    passed_s = np.zeros(pumps)
    share = generator.random(pumps, dtype=np.float32)  # of the first interval that is after the change
    for block in mechanisms.blocks(round(LONGEST_H * readings_an_hour)):
        beside_ml = block.moved_ml * shift
        if not passed_s.any():
            beside_ml[0] = block.moved_ml[0] * (share * shift + (1 - share) * edge)
            passed_s -= (1 - share) * block.passed_s[0]
        counted_ml = _counted(counters, block.moved_ml, beside_ml)
        hours = passed_s.max() / S_PER_HOUR
        asked = [
            (one, found)
            for one, found in zip(tested, found_s, strict=True)
            if hours < one.until_h and np.isinf(found).any()
        ]
        if not asked:
            break
        for expected_ml, counted, more_s in zip(block.expected_ml, counted_ml, block.passed_s, strict=True):
            passed_s += more_s
            for one, found in asked:
                new = one.detector.take(expected_ml, counted) > one.thresholds[:, np.newaxis]
                new &= np.isinf(found)
                if new.any():
                    found[new] = np.broadcast_to(passed_s, new.shape)[new]
    return [found.reshape(*found.shape[:2], len(shifts), changes) for found in found_s]


def _counted(counters: Sequence[Counters], moved_ml: Volumes, beside_ml: Volumes) -> Volumes:
    """What the counters show, (reading, side, pump), of pumps that move so much less or more."""
    counted = [
        counter.count(moved_ml - sign * beside_ml) for counter, sign in zip(counters, SIDES, strict=True)
    ]
    return np.stack(counted, axis=1)
