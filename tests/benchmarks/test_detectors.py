"""The detectors that are compared: ours is the core's, the others are what they are called."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.detectors import TRUMPET_WINDOWS_MIN, Cumulative, Cusums, TrumpetWindows
from gateway.core.delivery import REFERENCES, Bank, Edges, Mark

PUMPS = 4
TOLERANCE = 0.05


def readings(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Prescribed (reading, pump) and counted (reading, side, pump)."""
    generator = np.random.default_rng(6)
    expected_ml = generator.uniform(0.01, 0.02, (count, PUMPS)).astype(np.float32)
    counted_ml = generator.poisson(1.5, (count, 2, PUMPS)).astype(np.float32) * np.float32(0.01)
    return expected_ml, counted_ml


def test_the_bank_of_the_benchmark_is_the_bank_of_the_core() -> None:
    expected_ml, counted_ml = readings(500)
    many = Cusums(REFERENCES, TOLERANCE, PUMPS)
    mark = Mark(0, 0.0, 0.0, 0.0)
    edges = Edges.of(TOLERANCE)
    banks = [[Bank.fresh(mark) for _ in range(PUMPS)] for _ in range(2)]
    for expected, counted in zip(expected_ml, counted_ml, strict=True):
        values = many.take(expected, counted)
        for side in range(2):
            for pump in range(PUMPS):
                volume_ml = float(expected[pump])
                banks[side][pump].update(volume_ml, volume_ml, float(counted[side, pump]), edges, mark)
        for pump in range(PUMPS):
            assert values[0, :, pump] == pytest.approx(banks[0][pump].under_ml, abs=1e-4)
            assert values[1, :, pump] == pytest.approx(banks[1][pump].over_ml, abs=1e-4)
    assert values.max() > 0.05


def test_a_window_holds_what_is_missing_beyond_the_edge_in_its_last_minutes_and_is_silent_before() -> None:
    windows = TrumpetWindows(poll_s=5.0, tolerance=TOLERANCE, pumps=1)
    expected_ml = np.full(1, 0.1, dtype=np.float32)
    counted_ml = np.array([[0.05], [0.2]], dtype=np.float32)
    for reading in range(1, 600):
        values = windows.take(expected_ml, counted_ml)[:, :, 0]
        for index, window_min in enumerate(TRUMPET_WINDOWS_MIN):
            full = reading >= window_min * 12
            length_ml = window_min * 12 * 0.1
            assert values[0, index] == pytest.approx((0.95 - 0.5) * length_ml if full else 0.0, rel=1e-3)
            assert values[1, index] == pytest.approx((2.0 - 1.05) * length_ml if full else 0.0, rel=1e-3)


def test_the_cumulative_share_is_that_of_the_whole_time_and_is_silent_for_half_an_hour() -> None:
    cumulative = Cumulative(poll_s=5.0, pumps=1)
    expected_ml = np.full(1, 0.1, dtype=np.float32)
    for reading in range(1, 721):
        flow = 1.0 if reading <= 540 else 0.0  # 45 min of it, then nothing
        counted_ml = np.full((2, 1), 0.1 * flow, dtype=np.float32)
        values = cumulative.take(expected_ml, counted_ml)[:, 0, 0]
        if reading < 360:
            assert not values.any()
    assert values == pytest.approx([0.25, -0.25], abs=1e-3)
