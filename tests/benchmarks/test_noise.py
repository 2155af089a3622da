"""The noise of the benchmarks is that of the simulator, part by part."""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks.noise import READINGS_A_BLOCK, Counters, Mechanisms, Noise
from simulator.pump import Pump
from simulator.scenario import Machine, Scenario
from simulator.therapy import Leg, Program, PumpSetting

H = 3_600_000
RATE_ML_H = 20.0
STROKE_ML = 0.05
PUMPS = 250
HOURS = (0.25, 1.0, 2.0)
SHARE = 0.05
PERIOD_S = 120
SMOOTH_ML = 5e-6
"""Strokes so small that their errors make less than 1e-4 mL in a few minutes."""
RIPPLE_ML = SHARE * RATE_ML_H * PERIOD_S / 3600 / math.pi


def simulated_ml(
    *,
    ripple_ml: float = 0.0,
    stroke_ml: float = STROKE_ML,
    counter_ml: float = 0.01,
    at_ms: list[int],
    pumps: int,
) -> tuple[np.ndarray, np.ndarray]:
    """What the simulator's pumps have moved, and what their counters show: (moment, pump)."""
    leg = Leg(duration_ms=max(at_ms) + 60_000, from_ml_h=RATE_ML_H, to_ml_h=RATE_ML_H)
    program = Program(legs=(leg,), vtbi_ml=leg.volume_ml)
    setting = PumpSetting(counter_ml=counter_ml, stroke_ml=stroke_ml, ripple_ml=ripple_ml)
    moved, shown = [], []
    for seed in range(pumps):
        machine = Machine(setting=setting, ripple_period_ms=PERIOD_S * 1000)
        pump = Pump(
            Scenario(
                name="steady",
                title="a steady pump",
                prescription_text="",
                program=program,
                counter_follows="flow",
                seed=seed,
                machine=machine,
            )
        )
        truths = [pump.truth_at(one) for one in at_ms]
        moved.append([truth.mechanism_ml for truth in truths])
        shown.append([truth.counter_ml for truth in truths])
    return np.array(moved).T, np.array(shown).T


def modelled_ml(noise: Noise, *, readings: int, pumps: int = PUMPS) -> tuple[np.ndarray, np.ndarray]:
    """What the model's pumps have moved, and the time, at each reading: (reading, pump)."""
    mechanisms = Mechanisms(noise, pumps, np.random.default_rng(1))
    blocks = [mechanisms.block() for _ in range(-(-readings // READINGS_A_BLOCK))]
    moved_ml = np.concatenate([block.moved_ml for block in blocks])[:readings]
    passed_s = np.concatenate([block.passed_s for block in blocks])[:readings]
    return np.cumsum(moved_ml, axis=0, dtype=float), np.cumsum(passed_s, axis=0, dtype=float)


def noise(*, stroke_ml: float = STROKE_ML, ripple_share: float = 0.0) -> Noise:
    return Noise(
        rate_ml_h=RATE_ML_H, stroke_ml=stroke_ml, ripple_share=ripple_share, ripple_period_s=PERIOD_S
    )


@pytest.fixture(scope="module")
def simulated() -> np.ndarray:
    """What pumps without a ripple have moved after each of ``HOURS``."""
    return simulated_ml(at_ms=[round(hours * H) for hours in HOURS], pumps=PUMPS)[0]


@pytest.fixture(scope="module")
def modelled() -> np.ndarray:
    """By how much pumps without a ripple have moved more than expected after each of ``HOURS``."""
    moved_ml, time_s = modelled_ml(noise(), readings=round(HOURS[-1] * 720))
    beside_ml = moved_ml - time_s * RATE_ML_H / 3600
    return beside_ml[[round(hours * 720) - 1 for hours in HOURS]]


class TestWalk:
    def test_the_mean_flow_is_the_set_one_in_both(self, simulated: np.ndarray, modelled: np.ndarray) -> None:
        due_ml = RATE_ML_H * HOURS[-1]
        four_errors = 4 * math.sqrt(0.0025 * STROKE_ML * due_ml / PUMPS)
        late_ml = RATE_ML_H * 0.1 / 3600
        assert simulated[-1].mean() == pytest.approx(due_ml, abs=four_errors)
        assert modelled[-1].mean() == pytest.approx(0.0, abs=four_errors + late_ml)

    @pytest.mark.parametrize("index", range(len(HOURS)), ids=lambda index: f"{HOURS[index]} h")
    def test_its_variance_grows_with_the_volume_alike_in_both(
        self, simulated: np.ndarray, modelled: np.ndarray, index: int
    ) -> None:
        due_ml2 = 0.0025 * STROKE_ML * RATE_ML_H * HOURS[index]
        four_errors = 4 * math.sqrt(2 / PUMPS)  # of an estimated variance, as a share of it
        assert simulated[index].var() / due_ml2 == pytest.approx(1, abs=four_errors)
        assert modelled[index].var() / due_ml2 == pytest.approx(1, abs=four_errors)

    def test_its_steps_know_nothing_of_each_other(self) -> None:
        moved, time_s = modelled_ml(noise(), readings=1000, pumps=50)
        steps = np.diff(moved - time_s * RATE_ML_H / 3600, axis=0)
        apart = np.corrcoef(steps[:-2].ravel(), steps[2:].ravel())[0, 1]
        assert abs(apart) < 4 / math.sqrt(steps.size)


class TestRipple:
    def test_it_swings_the_volume_by_as_much_in_both_and_never_by_more(self) -> None:
        seconds = range(0, PERIOD_S * 1000, 1000)
        simulated, _ = simulated_ml(ripple_ml=RIPPLE_ML, stroke_ml=SMOOTH_ML, at_ms=list(seconds), pumps=3)
        due_ml = np.array(seconds)[:, np.newaxis] * RATE_ML_H / H
        modelled, time_s = modelled_ml(noise(stroke_ml=1e-9, ripple_share=SHARE), readings=2000, pumps=50)
        late_ml = RATE_ML_H * 0.2 / 3600  # a reading speaks of a moment up to 0.1 s before
        assert np.ptp(simulated - due_ml, axis=0) == pytest.approx(RIPPLE_ML, rel=0.04)
        assert np.ptp(modelled - time_s * RATE_ML_H / 3600, axis=0) == pytest.approx(RIPPLE_ML, abs=late_ml)
        assert noise(ripple_share=SHARE).ripple_ml == pytest.approx(RIPPLE_ML)

    def test_it_comes_back_after_its_period_in_both(self) -> None:
        moments = [0, PERIOD_S * 250, PERIOD_S * 500, PERIOD_S * 1000, PERIOD_S * 1500]
        simulated, _ = simulated_ml(ripple_ml=RIPPLE_ML, stroke_ml=SMOOTH_ML, at_ms=moments, pumps=3)
        beside_ml = simulated - np.array(moments)[:, np.newaxis] * RATE_ML_H / H
        assert beside_ml[3] == pytest.approx(beside_ml[0], abs=5e-4)
        assert beside_ml[4] == pytest.approx(beside_ml[2], abs=5e-4)
        assert np.abs(beside_ml[2] - beside_ml[0]).max() > 5e-4

    def test_each_pump_is_at_a_phase_of_its_own(self) -> None:
        modelled, time_s = modelled_ml(noise(stroke_ml=1e-9, ripple_share=SHARE), readings=240, pumps=400)
        beside_ml = modelled - time_s * RATE_ML_H / 3600
        first_s = time_s[np.argmax(beside_ml, axis=0), np.arange(400)] % PERIOD_S
        counts, _ = np.histogram(first_s, bins=4, range=(0, PERIOD_S))
        assert counts == pytest.approx(np.full(4, 100), abs=4 * math.sqrt(400 * 0.25 * 0.75))


class TestCounter:
    @pytest.mark.parametrize("counter_ml", [0.01, 0.1])
    def test_it_hides_less_than_a_count_and_on_average_half_of_one_in_both(self, counter_ml: float) -> None:
        moments = list(range(600_000, 3 * 600_000, 7_000))
        simulated, shown = simulated_ml(counter_ml=counter_ml, at_ms=moments, pumps=20)
        hidden = (simulated - shown) / counter_ml
        assert hidden.min() >= 0 and hidden.max() < 1 + 1e-3
        assert hidden.mean() == pytest.approx(0.5, abs=0.03)

        mechanisms = Mechanisms(noise(ripple_share=SHARE), 50, np.random.default_rng(2))
        counters = Counters(counter_ml, 50, np.random.default_rng(3))
        blocks = [mechanisms.block() for _ in range(20)]
        moved_ml = np.cumsum(np.concatenate([block.moved_ml for block in blocks]), axis=0, dtype=float)
        counted_ml = np.cumsum(
            np.concatenate([counters.count(block.moved_ml) for block in blocks]), axis=0, dtype=float
        )
        ahead = (moved_ml - counted_ml) / counter_ml  # beside what was hidden when the first block began
        assert (np.ptp(ahead, axis=0) < 1 + 0.02).all()
        assert (np.ptp(ahead, axis=0) > 0.9).all()
        assert (counted_ml / counter_ml) == pytest.approx(np.round(counted_ml / counter_ml), abs=0.01)


class TestPolls:
    def test_they_come_every_five_seconds_give_or_take_half_a_second(self) -> None:
        block = Mechanisms(noise(), 1000, np.random.default_rng(4)).block()
        assert 4.5 <= block.passed_s.min() < 4.51
        assert 5.49 < block.passed_s.max() <= 5.5
        assert block.passed_s.mean() == pytest.approx(5.0, abs=4 * 1 / math.sqrt(12 * block.passed_s.size))

    def test_a_pump_speaks_of_a_moment_up_to_a_tenth_of_a_second_before(self) -> None:
        modelled, time_s = modelled_ml(noise(stroke_ml=1e-12), readings=500, pumps=100)
        late_s = time_s - modelled * 3600 / RATE_ML_H
        assert np.ptp(late_s, axis=0) == pytest.approx(0.1, abs=0.01)

    def test_blocks_follow_each_other_without_a_seam(self) -> None:
        modelled, time_s = modelled_ml(noise(stroke_ml=1e-12, ripple_share=SHARE), readings=640, pumps=20)
        steps_ml = np.diff(modelled - time_s * RATE_ML_H / 3600, axis=0)
        assert np.abs(steps_ml).max() < RATE_ML_H / 3600 * (SHARE * 5.5 + 0.1)
