"""The detectors that are compared, each for many pumps at once, with memory of its own.

Every detector is told of each reading what was prescribed since the one before, and what the counter shows on
either side: ``counted_ml[0]`` is tested for too little, ``counted_ml[1]`` for too much. Each gives, for both
sides, its *statistics*: what is compared with a threshold. Shapes: (side, statistic, pump).
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from benchmarks.noise import Volumes

SIDES = (1, -1)
"""First too little, where a deficit counts, then too much, where a surplus does."""
SIGNS = np.array(SIDES, dtype=np.float32).reshape(2, 1, 1)
TRUMPET_WINDOWS_MIN = (2, 5, 11, 19, 31)
"""Of IEC 60601-2-24, the windows of its trumpet curves that are longer than the counts of a slow pump."""


class Detector(Protocol):
    """What can be compared."""

    statistics: int
    """How many, each with a threshold of its own."""

    def take(self, expected_ml: Volumes, counted_ml: Volumes) -> Volumes:
        """One reading of each pump: prescribed (pump) and counted (side, pump) since the one before.

        Gives the statistics (side, statistic, pump), perhaps the same array at every reading.
        """
        ...


class Cusums:
    """Two-sided CUSUMs on volume, as in ``gateway.core.delivery``, for several references."""

    def __init__(self, references: tuple[float, ...], tolerance: float, pumps: int) -> None:
        beyond = np.array(references, dtype=np.float32).reshape(1, -1, 1)
        self._slope = SIGNS - (np.float32(tolerance) + beyond)
        self.statistics = len(references)
        self._values = np.zeros((2, len(references), pumps), dtype=np.float32)
        self._step = np.zeros_like(self._values)

    def take(self, expected_ml: Volumes, counted_ml: Volumes) -> Volumes:
        """One reading of each pump. The statistics are the sums, in mL."""
        np.multiply(self._slope, expected_ml, out=self._step)
        self._values += self._step
        self._values -= SIGNS * counted_ml[:, np.newaxis]
        return np.maximum(self._values, 0.0, out=self._values)


class TrumpetWindows:
    """The mean flow over the last 2, 5, 11, 19 and 31 min: how far it is off, as a volume beyond the edge."""

    def __init__(self, poll_s: float, tolerance: float, pumps: int) -> None:
        self.statistics = len(TRUMPET_WINDOWS_MIN)
        self._readings = [round(window_min * 60 / poll_s) for window_min in TRUMPET_WINDOWS_MIN]
        self._edge = (SIGNS - np.float32(tolerance))[:, 0]
        self._beyond = np.zeros((2, pumps), dtype=np.float32)
        self._past = np.zeros((self._readings[-1] + 1, 2, pumps), dtype=np.float32)
        self._taken = 0
        self._values = np.zeros((2, len(self._readings), pumps), dtype=np.float32)

    def take(self, expected_ml: Volumes, counted_ml: Volumes) -> Volumes:
        """One reading of each pump. A window that is not full yet says nothing."""
        self._taken += 1
        self._beyond += self._edge * expected_ml
        self._beyond -= SIGNS[:, 0] * counted_ml
        self._past[self._taken % len(self._past)] = self._beyond
        for index, readings in enumerate(self._readings):
            if self._taken >= readings:
                before = self._past[(self._taken - readings) % len(self._past)]
                np.subtract(self._beyond, before, out=self._values[:, index])
        return self._values


class Cumulative:
    """Delivered by expected since the start, as a share beyond 1; it says nothing in the first 30 min."""

    CHECKED_FROM_S = 1800.0

    statistics = 1

    def __init__(self, poll_s: float, pumps: int) -> None:
        self._silent_readings = round(self.CHECKED_FROM_S / poll_s)
        self._taken = 0
        self._expected_ml = np.zeros(pumps)
        self._beside_ml = np.zeros((2, pumps))

    def take(self, expected_ml: Volumes, counted_ml: Volumes) -> Volumes:
        """One reading of each pump."""
        self._taken += 1
        self._expected_ml += expected_ml
        self._beside_ml += SIGNS[:, 0] * (expected_ml - counted_ml)
        if self._taken < self._silent_readings:
            return np.zeros((2, 1, len(self._expected_ml)), dtype=np.float32)
        return (self._beside_ml / self._expected_ml)[:, np.newaxis].astype(np.float32)
