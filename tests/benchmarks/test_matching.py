"""Thresholds are where they should be: found from pumps without a fault, right for what is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks.changes import Asked, delays_s
from benchmarks.detectors import Cusums
from benchmarks.fault_free import common_factor, equal_shares, highest
from benchmarks.noise import Noise
from benchmarks.settings import Setting

REFERENCE = 0.2
WALKING = Noise(rate_ml_h=1.0, stroke_ml=0.4, ripple_share=0.0, latency_s=0.0)
"""Only the walk disturbs it, and each poll only a little."""
SETTING = Setting(noise=WALKING, counter_ml=1e-5, tolerance=0.05)


def peaks() -> np.ndarray:
    """(side, test, pump), the first test livelier than the second."""
    generator = np.random.default_rng(7)
    return generator.exponential(size=(2, 2, 500)).astype(np.float32) * np.array([[[2.0], [1.0]]])


class TestMatching:
    @pytest.mark.parametrize("alarms", [1, 10, 50])
    def test_with_a_common_factor_so_many_pumps_alarm(self, alarms: int) -> None:
        thresholds = np.array([3.0, 2.0])
        factor = common_factor(peaks(), thresholds, alarms)
        alarmed = (peaks() > (thresholds * factor)[:, np.newaxis]).any(axis=(0, 1))
        assert alarmed.sum() == alarms

    @pytest.mark.parametrize("alarms", [10, 50])
    def test_with_equal_shares_too_and_each_test_alarms_as_often_as_the_other(self, alarms: int) -> None:
        beyond = peaks() > equal_shares(peaks(), alarms)[:, np.newaxis]
        assert beyond.any(axis=(0, 1)).sum() == alarms
        single = beyond.any(axis=0).sum(axis=1)
        assert abs(int(single[0]) - int(single[1])) <= 1


class TestAgainstClosedForms:
    """A CUSUM on a walk alone (Lorden's problem; Beibel and Shiryaev 1996), on its likelihood's scale."""

    WALK_ML = WALKING.walk_ml * (1 - SETTING.tolerance) ** 2
    SCALE_ML = WALK_ML / (2 * REFERENCE)
    INFORMATION_H = REFERENCE * WALKING.rate_ml_h / SCALE_ML
    THRESHOLD = 5.0
    STEP = math.sqrt(WALK_ML * WALKING.rate_ml_h * 5 / 3600) / SCALE_ML
    LEVEL = THRESHOLD + 1.166 * STEP
    """Polls are steps, not a steady look: as good as a higher threshold (Siegmund 1985)."""

    def test_false_alarms_come_as_often_as_they_must(self) -> None:
        hours = 0.2 * math.exp(self.LEVEL) / self.INFORMATION_H
        pumps = 2000
        (found,) = highest(
            WALKING,
            [(SETTING, [Cusums((REFERENCE,), SETTING.tolerance, pumps)])],
            years=pumps * hours / 8766,
            pumps=pumps,
            generator=np.random.default_rng(8),
        )
        alarmed = (found[0][0, 0] > self.THRESHOLD * self.SCALE_ML).mean()
        due = 1 - math.exp(-hours * self.INFORMATION_H / (math.exp(self.LEVEL) - self.LEVEL - 1))
        assert alarmed == pytest.approx(due, rel=0.2)

    def test_a_change_is_found_as_soon_as_it_must_be(self) -> None:
        shift = SETTING.tolerance + 2 * REFERENCE
        level_ml = np.array([self.THRESHOLD * self.SCALE_ML])
        (found_s,) = delays_s(
            SETTING,
            [shift],
            1000,
            lambda pumps: [Asked(Cusums((REFERENCE,), SETTING.tolerance, pumps), level_ml)],
            np.random.default_rng(9),
        )
        due_h = (self.LEVEL + math.exp(-self.LEVEL) - 1) / self.INFORMATION_H
        mean_h = found_s[0].mean() / 3600
        assert 0.75 * due_h < mean_h < 1.1 * due_h  # the test does not begin at nothing


def test_a_pump_that_stops_is_found_when_the_deficit_is_as_high_as_the_threshold() -> None:
    steady = Noise(rate_ml_h=36.0, stroke_ml=1e-9, ripple_share=0.0, latency_s=0.0)
    setting = Setting(noise=steady, counter_ml=1e-4, tolerance=0.05)
    (found_s,) = delays_s(
        setting,
        [1.0],
        200,
        lambda pumps: [Asked(Cusums((0.15,), setting.tolerance, pumps), np.array([0.4]))],
        np.random.default_rng(10),
    )
    due_s = 0.4 / (0.01 * (1 - 0.05 - 0.15))  # 50 s, and then the next poll
    assert found_s[0].min() == pytest.approx(due_s, abs=0.5)
    assert due_s + 4 < found_s[0].max() < due_s + 6.5
    assert found_s[1].mean() == pytest.approx(found_s[0].mean(), abs=0.6)  # double the flow is as far off
