"""Mean error and trumpet curve: what was put into a simulated pump comes out, and the formulas are those of
the standard."""

from __future__ import annotations

import random
from array import array
from dataclasses import replace
from math import sqrt

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from gateway.accuracy.stretches import LeftOut, Recorded, Stretch
from gateway.accuracy.trumpet import WINDOWS_MIN, AccuracyError, accuracy, floor_percent
from tests.gateway.accuracy.bench import Bench, measured
from tests.gateway.core.pump_days import START_UTC_MS, continuous

BENCHES = {
    "a volumetric pump": Bench(),
    "a coarse counter, read seldom": Bench(rate_ml_h=5.0, poll_ms=30_000),
    "minutes between two counts": Bench(rate_ml_h=1.0, poll_ms=20_000),
    "a fine counter at a high rate": Bench(
        rate_ml_h=125.0, counter_ml=0.001, ripple_ml=0.005, poll_ms=20_000, hours=2.0
    ),
    "many counts between two readings": Bench(
        rate_ml_h=60.0, counter_ml=0.01, stroke_ml=0.02, ripple_ml=0.01, poll_ms=20_000, hours=2.0
    ),
    "a strong ripple": Bench(rate_ml_h=8.0, ripple_ml=0.1, poll_ms=20_000, hours=2.0),
    "a short recording": Bench(hours=1.0, poll_ms=10_000),
}
SEEDS = range(60)


def errors_found() -> list[tuple[float, float]]:
    """Error of the mean error, and the stated half-width; for all benches and seeds."""
    found = []
    for bench in BENCHES.values():
        for seed in SEEDS:
            put_in = random.Random(seed).uniform(-5.0, 5.0)
            one = replace(bench, seed=seed, calibration_percent=put_in)
            result = measured(one.order, one.readings())
            found.append((result.mean_error_percent - put_in, result.uncertainty.total_percent))
    return found


class TestCalibration:
    def test_the_calibration_error_that_was_put_in_comes_out_within_the_stated_uncertainty(self) -> None:
        found = errors_found()
        inside = sum(abs(error) <= half_width for error, half_width in found) / len(found)
        # 95 % inside are promised; fewer than this happens once in 700 such tests if the promise is kept
        assert inside >= 0.95 - 3 * sqrt(0.95 * 0.05 / len(found))
        # and no wider than need be: the errors fill the stated width
        assert sum(abs(error) > half_width / 2 for error, half_width in found) / len(found) > 0.15

    @pytest.mark.parametrize("put_in", [-5.0, -2.0, 0.0, 2.0, 5.0])
    def test_a_counter_of_motor_steps_shows_no_error_whatever_there_is(self, put_in: float) -> None:
        bench = Bench(follows="motor", calibration_percent=put_in)
        result = measured(bench.order, bench.readings())
        assert abs(result.mean_error_percent) <= result.uncertainty.total_percent

    def test_longer_recordings_are_surer(self) -> None:
        half_widths = [
            measured(bench.order, bench.readings()).uncertainty.total_percent
            for bench in (Bench(hours=hours, ripple_ml=0.0) for hours in (2.0, 4.0, 17.0))
        ]
        assert half_widths == sorted(half_widths, reverse=True)
        # a random walk of the strokes: sixteen times the volume, a quarter of the error in per cent
        assert half_widths[0] / half_widths[2] == pytest.approx(4.0, rel=0.05)

    def test_a_counter_that_moves_in_larger_steps_than_stated_is_reckoned_with_as_it_is(self) -> None:
        bench = Bench(rate_ml_h=2.0, counter_ml=0.1)
        order = structs.replace(bench.order, pump=structs.replace(bench.order.pump, counter_ml=0.01))
        result = measured(order, bench.readings())
        assert result.counter_is_coarser
        assert result.counter_ml == pytest.approx(0.1)
        assert not measured(bench.order, bench.readings()).counter_is_coarser

    def test_a_wrap_of_the_counter_changes_nothing(self) -> None:
        plain = Bench(counter_wrap_ml=None)
        wrapping = Bench(counter_wrap_ml=7.0)
        one = measured(plain.order, plain.readings())
        other = measured(wrapping.order, wrapping.readings())
        assert other.stretches == one.stretches == 1
        assert other.mean_error_percent == pytest.approx(one.mean_error_percent, abs=1e-6)
        assert [window.windows for window in other.trumpet] == [window.windows for window in one.trumpet]


def recorded(*stretches: Stretch) -> Recorded:
    return Recorded(
        stretches=list(stretches),
        left_out_ms=dict.fromkeys(LeftOut, 0),
        volume_seen=True,
        rate_seen=True,
        running_seen=True,
        least_count_ml=None,
        falls=0,
    )


def stretch(volumes_ml: list[float], rate_ml_h: float = 12.0, *, start_seen: bool = True) -> Stretch:
    return Stretch(
        rate_ml_h=rate_ml_h,
        began_utc_ms=START_UTC_MS,
        start_seen=start_seen,
        volumes_ml=array("d", volumes_ml),
        spacings_ms=array("d", [5_000.0] * len(volumes_ml)),
    )


def steady(samples: int, rate_ml_h: float = 12.0) -> list[float]:
    return [rate_ml_h * index / 120 for index in range(samples + 1)]


PUMP = continuous(12.0, 1.0).pump


class TestFormulas:
    @settings(max_examples=40, deadline=None)
    @given(st.integers(183, 300), st.integers(0, 2**32), st.floats(0.001, 0.5))
    def test_the_trumpet_is_the_one_of_the_definition(self, samples: int, seed: int, most_ml: float) -> None:
        """The standard's sums, written out, over the second hour and what follows."""
        rate_ml_h = 12.0
        chance = random.Random(seed)
        samples_ml = [chance.uniform(0.0, most_ml) for _ in range(samples)]
        volumes_ml = [sum(samples_ml[:index]) for index in range(len(samples_ml) + 1)]
        result = accuracy(recorded(stretch(volumes_ml)), PUMP)
        assert result.settled
        flows_ml_h = [sample_ml * 120 for sample_ml in samples_ml][120:]
        for window in result.trumpet:
            count = window.window_min * 2
            means = [
                sum(100 * (flow - rate_ml_h) / rate_ml_h for flow in flows_ml_h[first : first + count])
                / count
                for first in range(len(flows_ml_h) - count + 1)
            ]
            assert window.windows == len(means)
            assert window.ep_max_percent == pytest.approx(max(means), abs=1e-6)
            assert window.ep_min_percent == pytest.approx(min(means), abs=1e-6)
        mean_flow_ml_h = sum(flows_ml_h) / len(flows_ml_h)
        assert result.mean_error_percent == pytest.approx(100 * (mean_flow_ml_h / rate_ml_h - 1), abs=1e-6)

    @pytest.mark.parametrize(
        ("counter_ml", "window_min", "rate_ml_h", "floor"),
        [
            (0.1, 2, 10, 30.0),
            (0.1, 5, 10, 12.0),
            (0.1, 11, 10, 5.45),
            (0.1, 31, 10, 1.94),
            (0.1, 2, 1, 300.0),
        ],
    )
    def test_the_floor_is_one_count_in_the_window(
        self, counter_ml: float, window_min: int, rate_ml_h: float, floor: float
    ) -> None:
        assert floor_percent(counter_ml, window_min, rate_ml_h) == pytest.approx(floor, abs=0.01)

    @settings(max_examples=25, deadline=None)
    @given(
        rate_ml_h=st.sampled_from([0.6, 1.9, 5.0, 10.0, 60.0]),
        counter_ml=st.sampled_from([0.01, 0.1, 0.5]),
        poll_ms=st.sampled_from([5_000, 20_000, 30_000]),
        seed=st.integers(0, 1000),
        put_in=st.floats(-5.0, 5.0),
    )
    def test_the_trumpet_of_a_perfectly_steady_pump_lies_within_the_floor_around_the_mean_error(
        self, rate_ml_h: float, counter_ml: float, poll_ms: int, seed: int, put_in: float
    ) -> None:
        bench = Bench(
            rate_ml_h=rate_ml_h,
            counter_ml=counter_ml,
            poll_ms=poll_ms,
            seed=seed,
            calibration_percent=put_in,
            stroke_ml=0.0005,
            ripple_ml=0.0,
            hours=2.0,
        )
        result = measured(bench.order, bench.readings())
        for window in result.trumpet:
            assert window.ep_max_percent is not None
            assert window.ep_min_percent is not None
            # the time of a reading is known to 0.1 s, the strokes walk a little
            allowed = window.floor_percent + 100 * 0.2 / (window.window_min * 60) + 0.5
            assert window.ep_max_percent <= put_in + allowed
            assert window.ep_min_percent >= put_in - allowed


class TestWhatIsAnalysed:
    def test_the_start_up_does_not_count_where_there_is_enough_after_it(self) -> None:
        slow_start = [volume / 2 for volume in steady(120)]
        volumes_ml = slow_start + [slow_start[-1] + volume for volume in steady(120)[1:]]
        result = accuracy(recorded(stretch(volumes_ml)), PUMP)
        assert result.settled
        assert result.mean_error_percent == pytest.approx(0.0, abs=1e-6)
        assert result.startup.flow_ml_h[:120] == pytest.approx([6.0] * 120)
        assert result.startup.flow_ml_h[120:] == pytest.approx([12.0] * 120)

    def test_of_a_shorter_recording_all_is_taken_and_that_is_said(self) -> None:
        result = accuracy(recorded(stretch(steady(100))), PUMP)
        assert not result.settled
        assert result.analysed_ms == 100 * 30_000
        assert [window.window_min for window in result.trumpet if window.windows] == list(WINDOWS_MIN)

    def test_a_window_longer_than_every_stretch_is_not_invented(self) -> None:
        result = accuracy(recorded(stretch(steady(30)), stretch(steady(30))), PUMP)
        assert [(window.window_min, window.windows) for window in result.trumpet] == [
            (2, 54),
            (5, 42),
            (11, 18),
            (19, 0),
            (31, 0),
        ]
        assert result.trumpet[-1].ep_max_percent is None

    def test_the_rate_of_which_there_is_most_is_chosen_and_its_stretches_are_taken_together(self) -> None:
        result = accuracy(
            recorded(stretch(steady(200)), stretch(steady(250, 20.0), rate_ml_h=20.0), stretch(steady(200))),
            PUMP,
        )
        assert result.set_rate_ml_h == 12.0
        assert result.stretches == 2
        assert result.analysed_ms == 2 * 80 * 30_000
        assert result.settling_ms == 2 * 120 * 30_000
        assert result.other_rates_ms == 250 * 30_000

    def test_the_start_up_curve_is_that_of_a_start_that_was_seen(self) -> None:
        result = accuracy(
            recorded(stretch(steady(200), start_seen=False), stretch(steady(210, 6.0)), stretch(steady(9))),
            PUMP,
        )
        assert result.startup.start_seen
        assert result.startup.flow_ml_h == pytest.approx([6.0] * 210)


class TestWhatTellsNothing:
    @pytest.mark.parametrize(
        ("seen", "words"),
        [
            ({"running_seen": False}, "never 'running'"),
            ({"volume_seen": False}, "no reading has a volume_ml; record with a pump"),
            ({"rate_seen": False}, "no running reading has a rate_ml_h"),
            ({}, "nowhere ran for 2 min at one set rate"),
            ({"stretches": [stretch([3.0] * 200)]}, "nothing was delivered"),
        ],
    )
    def test_is_said_with_what_to_do(self, seen: dict[str, object], words: str) -> None:
        with pytest.raises(AccuracyError, match=words):
            accuracy(structs.replace(recorded(), **seen), PUMP)
