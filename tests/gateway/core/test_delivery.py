"""The bank of tests: silent inside the tolerance, in time outside it."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.reading import PumpState
from gateway.core.delivery import REFERENCES, Bank, DayVolume, Edges, Mark, thresholds_ml
from gateway.core.prescription import PumpExpected
from tests.gateway.core.bound import the_bound_s
from tests.gateway.core.pump_days import HOUR_MS, NoisyPump, Segment, continuous, watch

RUNNING = PumpState.RUNNING


def expected_pump(counter_ml: float, stroke_ml: float = 0.05, ripple_ml: float = 0.02) -> PumpExpected:
    return PumpExpected(
        model=None,
        accuracy=0.05,
        counter_ml=counter_ml,
        counter_wrap_ml=None,
        stroke_ml=stroke_ml,
        ripple_ml=ripple_ml,
        occlusion_ml=0.5,
        poll_ms=5_000,
    )


CALIBRATED_ML = [
    # mL/h, count, stroke; for each reference the threshold in mL that a simulation of 20 pump-years finds
    # for one false alarm a year (as benchmarks/calibrate.py)
    (0.5, 0.01, 0.005, (0.0174, 0.0139, 0.0126, 0.0118, 0.0108, 0.0101, 0.0091)),
    (0.5, 0.1, 0.005, (0.1061, 0.1028, 0.1016, 0.1007, 0.0993, 0.0992, 0.0991)),
    (2, 0.01, 0.005, (0.0183, 0.0146, 0.0129, 0.0122, 0.0112, 0.0102, 0.009)),
    (2, 0.1, 0.005, (0.1065, 0.1029, 0.1018, 0.1009, 0.0972, 0.097, 0.0966)),
    (10, 0.01, 0.05, (0.1064, 0.0556, 0.0421, 0.0343, 0.0235, 0.0154, 0.0119)),
    (10, 0.1, 0.05, (0.1889, 0.1397, 0.1261, 0.1193, 0.1106, 0.1019, 0.0889)),
    (50, 0.01, 0.05, (0.1219, 0.0756, 0.061, 0.0527, 0.0296, 0.0149, 0.0042)),
    (50, 0.1, 0.05, (0.1987, 0.1534, 0.143, 0.1345, 0.1126, 0.0863, 0.0481)),
    (125, 0.01, 0.05, (0.158, 0.1166, 0.0965, 0.0803, 0.0321, 0.0114, 0.0)),
    (125, 0.1, 0.05, (0.2346, 0.1914, 0.174, 0.1577, 0.1164, 0.0991, 0.0726)),
]


class TestThresholds:
    @given(
        rate_ml_h=st.floats(0.05, 1000),
        counter_ml=st.sampled_from([0.001, 0.01, 0.1]),
        stroke_ml=st.sampled_from([0.0005, 0.005, 0.05]),
        ripple_ml=st.sampled_from([0.0, 0.001, 0.02, 0.5]),
        poll_ms=st.sampled_from([1_000, 5_000, 30_000]),
    )
    def test_they_are_always_more_than_a_count_and_fall_with_the_reference(
        self, rate_ml_h: float, counter_ml: float, stroke_ml: float, ripple_ml: float, poll_ms: int
    ) -> None:
        thresholds = thresholds_ml(rate_ml_h, expected_pump(counter_ml, stroke_ml, ripple_ml), poll_ms)
        assert min(thresholds) > counter_ml
        assert list(thresholds) == sorted(thresholds, reverse=True)

    @given(
        rate_ml_h=st.floats(0.05, 1000),
        counter_ml=st.floats(0.001, 0.5),
        stroke_ml=st.floats(0.0005, 0.5),
        ripple_ml=st.floats(0.0, 0.5),
        times=st.floats(1.0, 10.0),
    )
    def test_a_pump_that_is_worse_in_any_respect_has_no_lower_ones(
        self, rate_ml_h: float, counter_ml: float, stroke_ml: float, ripple_ml: float, times: float
    ) -> None:
        def thresholds(counter_ml: float, stroke_ml: float, ripple_ml: float) -> tuple[float, ...]:
            return thresholds_ml(rate_ml_h, expected_pump(counter_ml, stroke_ml, ripple_ml), 5_000)

        usual = thresholds(counter_ml, stroke_ml, ripple_ml)
        for worse in (
            thresholds(counter_ml * times, stroke_ml, ripple_ml),
            thresholds(counter_ml, stroke_ml * times, ripple_ml),
            thresholds(counter_ml, stroke_ml, ripple_ml * times),
        ):
            assert all(one >= other - 1e-9 for one, other in zip(worse, usual, strict=True))

    @given(
        rate_ml_h=st.floats(0.05, 100),
        counter_ml=st.floats(0.001, 0.5),
        stroke_ml=st.floats(0.0005, 0.5),
        ripple_ml=st.floats(0.0, 0.5),
        times=st.floats(1.0, 10.0),
    )
    def test_all_are_volumes_ten_times_as_much_of_everything_makes_them_ten_times_as_high(
        self, rate_ml_h: float, counter_ml: float, stroke_ml: float, ripple_ml: float, times: float
    ) -> None:
        one = thresholds_ml(rate_ml_h, expected_pump(counter_ml, stroke_ml, ripple_ml), 5_000)
        larger = expected_pump(counter_ml * times, stroke_ml * times, ripple_ml * times)
        assert thresholds_ml(rate_ml_h * times, larger, 5_000) == pytest.approx(
            [times * threshold for threshold in one]
        )

    @pytest.mark.parametrize(("rate_ml_h", "counter_ml", "stroke_ml", "calibrated_ml"), CALIBRATED_ML)
    def test_they_are_close_to_what_a_simulation_of_pump_years_calibrates(
        self, rate_ml_h: float, counter_ml: float, stroke_ml: float, calibrated_ml: tuple[float, ...]
    ) -> None:
        ripple_ml = rate_ml_h * 0.05 * (120 / 3600) / math.pi
        thresholds = thresholds_ml(rate_ml_h, expected_pump(counter_ml, stroke_ml, ripple_ml), 5_000)
        small = [
            (threshold, calibrated)
            for threshold, calibrated in zip(thresholds, calibrated_ml, strict=True)
            if calibrated > counter_ml  # a test that comes to a count only is kept away from it
        ]
        assert small
        for threshold, calibrated in small:
            assert 0.94 * calibrated < threshold < 1.45 * calibrated


class TestBank:
    @given(st.lists(st.floats(0, 10), min_size=1, max_size=200))
    def test_delivery_exactly_as_prescribed_leaves_all_at_zero(self, volumes_ml: list[float]) -> None:
        bank = Bank.fresh(Mark(0, 0.0, 0.0, 0.0))
        for number, volume_ml in enumerate(volumes_ml):
            bank.update(volume_ml, volume_ml, volume_ml, Edges.of(0.1), Mark(number, 0.0, 0.0, 0.0))
        assert max(bank.under_ml + bank.over_ml) == 0.0

    @given(st.lists(st.tuples(st.floats(0, 10), st.floats(0, 10)), min_size=1, max_size=100))
    def test_more_delivered_is_never_less_suspicious_of_too_much(
        self, intervals: list[tuple[float, float]]
    ) -> None:
        plain = Bank.fresh(Mark(0, 0.0, 0.0, 0.0))
        more = Bank.fresh(Mark(0, 0.0, 0.0, 0.0))
        for number, (prescribed_ml, delivered_ml) in enumerate(intervals):
            mark = Mark(number, 0.0, 0.0, 0.0)
            plain.update(prescribed_ml, prescribed_ml, delivered_ml, Edges.of(0.1), mark)
            more.update(prescribed_ml, prescribed_ml, delivered_ml + 0.1, Edges.of(0.1), mark)
        assert all(one >= other for one, other in zip(more.over_ml, plain.over_ml, strict=True))
        assert all(one <= other for one, other in zip(more.under_ml, plain.under_ml, strict=True))

    @given(
        st.lists(
            st.tuples(st.floats(0, 2), st.floats(0, 1), st.floats(0, 3), st.floats(0, 0.5)), max_size=60
        ),
        st.sampled_from([0.01, 0.1, 0.5]),
    )
    def test_of_two_tests_that_with_the_greater_reference_never_stands_higher(
        self, intervals: list[tuple[float, float, float, float]], tolerance: float
    ) -> None:
        """Each is what it would be by itself, and so behind one that is at 0 all are."""
        bank = Bank.fresh(Mark(0, 0.0, 0.0, 0.0))
        edges = Edges.of(tolerance)
        under, over = [0.0] * len(REFERENCES), [0.0] * len(REFERENCES)
        for low_ml, more_ml, delivered_ml, forgiven_ml in intervals:
            high_ml = low_ml + more_ml
            bank.update(low_ml, high_ml, delivered_ml, edges, Mark(1, 0.0, 0.0, 0.0))
            for index, (less, most) in enumerate(zip(edges.under, edges.over, strict=True)):
                under[index] = max(0.0, under[index] + low_ml * less - delivered_ml)
                over[index] = max(0.0, over[index] + delivered_ml - high_ml * most)
            assert bank.under_ml == pytest.approx(under, abs=1e-6)
            assert bank.over_ml == pytest.approx(over, abs=1e-6)
            for values in (bank.under_ml, bank.over_ml):
                assert values == sorted(values, reverse=True)
            bank.forgive_under(forgiven_ml)
            bank.forgive_over(forgiven_ml)
            under = [max(0.0, value - forgiven_ml) for value in under]
            over = [max(0.0, value - forgiven_ml) for value in over]

    @given(
        st.floats(0.01, 1500),
        st.floats(0.0005, 1.0),
        st.floats(0.00005, 0.5),
        st.floats(0.001, 0.5),
        st.sampled_from([1_000, 5_000, 60_000]),
    )
    def test_thresholds_fall_with_the_reference(
        self, rate_ml_h: float, counter_ml: float, stroke_ml: float, ripple_ml: float, poll_ms: int
    ) -> None:
        pump = continuous(
            10.0, 1, pump=f"counter_ml = {counter_ml}\nstroke_ml = {stroke_ml}\nripple_ml = {ripple_ml}"
        ).pump
        thresholds = thresholds_ml(rate_ml_h, pump, poll_ms)
        assert list(thresholds) == sorted(thresholds, reverse=True)

    def test_the_beginning_of_a_deviation_is_where_the_deficit_last_was_nothing(self) -> None:
        bank = Bank.fresh(Mark(0, 0.0, 0.0, 0.0))
        for second in range(1, 101):
            delivered_ml = 0.1 if second <= 50 else 0.0
            bank.update(0.1, 0.1, delivered_ml, Edges.of(0.1), Mark(second, 0.0, 0.0, 0.0))
        deficit = bank.too_little((1.0,) * len(REFERENCES))
        assert deficit is not None
        assert deficit.since.t_ms == 50


class TestDayVolume:
    @settings(max_examples=30)
    @given(st.lists(st.tuples(st.integers(1, HOUR_MS), st.floats(0, 100)), min_size=1, max_size=80))
    def test_it_is_the_volume_of_the_last_24_hours_to_a_piece(self, doses: list[tuple[int, float]]) -> None:
        day = DayVolume([])
        given_: list[tuple[int, float]] = []
        t_ms = 0
        for passed_ms, volume_ml in doses:
            t_ms += passed_ms
            day.add(t_ms, volume_ml)
            given_.append((t_ms, volume_ml))
            whole = sum(volume for at, volume in given_ if at > t_ms - 24 * HOUR_MS + 300_000)
            edge = sum(volume for at, volume in given_ if at > t_ms - 24 * HOUR_MS - 300_000)
            assert whole - 1e-6 <= day.within_ml(t_ms) <= edge + 1e-6
            assert len(day.pieces) <= 290

    @pytest.mark.parametrize(
        ("hour", "within_ml"), [(2, 30.0), (24, 30.0), (24.5, 20.0), (25.5, 10.0), (26.5, 0.0), (100, 0.0)]
    )
    def test_what_is_older_than_24_hours_is_forgotten_also_while_nothing_is_counted(
        self, hour: float, within_ml: float
    ) -> None:
        day = DayVolume([])
        for begin_hour in (0, 1, 2):
            day.add(begin_hour * HOUR_MS, 10.0)
        assert day.within_ml(round(hour * HOUR_MS)) == pytest.approx(within_ml)


FAULT_FREE = [
    # mL/h, count, stroke, calibration, pauses and bag changes
    (0.5, 0.1, 0.005, -0.05, True),
    (0.5, 0.01, 0.05, 0.05, False),
    (2.0, 0.1, 0.05, 0.05, True),
    (10.0, 0.1, 0.05, -0.05, True),
    (10.0, 0.01, 0.05, 0.05, False),
    (50.0, 0.01, 0.05, 0.04, True),
    (125.0, 0.1, 0.05, -0.05, True),
]


@pytest.mark.parametrize(("rate_ml_h", "counter_ml", "stroke_ml", "calibration", "pauses"), FAULT_FREE)
def test_a_pump_within_its_data_sheet_alarms_nobody(
    rate_ml_h: float, counter_ml: float, stroke_ml: float, calibration: float, pauses: bool
) -> None:
    ripple_ml = rate_ml_h * 0.05 * (120 / 3600) / math.pi
    segments = [Segment(-1e9, PumpState.IDLE), Segment(100, RUNNING, rate_ml_h)]
    for number in range(1, 9 if pauses else 1):
        segments.append(Segment(number * 5000, PumpState.PAUSED, 0.0, resets_counter=number % 2 == 0))
        segments.append(Segment(number * 5000 + 70 * number, RUNNING, rate_ml_h))
    prescription = continuous(
        rate_ml_h,
        24,
        limits="tolerance_percent = 10",
        pump=f"counter_ml = {counter_ml}\nstroke_ml = {stroke_ml}\nripple_ml = {ripple_ml:.6f}",
        rest="[bag]\nvolume_ml = 5000",
    )
    pump = NoisyPump(
        segments,
        counter_ml=counter_ml,
        stroke_ml=stroke_ml,
        ripple_ml=ripple_ml,
        calibration=calibration,
        missing=0.03,
        lost=0.03,
        seed=round(rate_ml_h * 10),
    )
    assert watch(prescription, pump, -300, 12 * 3600).alerts() == []


@pytest.mark.parametrize("shift", [-1.0, -0.5, -0.3, -0.2, 0.2, 0.3, 0.5, 1.0])
@pytest.mark.parametrize(
    ("rate_ml_h", "counter_ml", "stroke_ml"),
    [(0.5, 0.01, 0.005), (2.0, 0.1, 0.005), (10.0, 0.1, 0.05), (50.0, 0.01, 0.05), (125.0, 0.1, 0.05)],
)
def test_a_shift_is_found_within_half_as_long_again_as_a_test_that_is_told_it(
    rate_ml_h: float, counter_ml: float, stroke_ml: float, shift: float
) -> None:
    ripple_ml = rate_ml_h * 0.05 * (120 / 3600) / math.pi
    bound_s = the_bound_s(rate_ml_h, abs(shift) - 0.05, counter_ml, stroke_ml, ripple_ml)
    prescription = continuous(
        rate_ml_h,
        24,
        limits="tolerance_percent = 5",
        pump=f"counter_ml = {counter_ml}\nstroke_ml = {stroke_ml}\nripple_ml = {ripple_ml:.6f}",
    )
    pump = NoisyPump(
        [Segment(-1e9, PumpState.IDLE), Segment(30, RUNNING, rate_ml_h)],
        counter_ml=counter_ml,
        stroke_ml=stroke_ml,
        ripple_ml=ripple_ml,
        factor=1 + shift,
        shifted_at_s=3600,
        seed=round(100 * (1 + shift)),
    )
    deadline_s = 1.5 * bound_s + 2 * 5 + 10
    alerts = watch(prescription, pump, -60, 3600 + deadline_s).alerts()
    assert alerts, "not found in time"
    assert alerts[0][0] >= 3600, "found before it was there"
    kinds = {"over_infusion"} if shift > 0 else {"under_infusion", "no_delivery"}
    assert {kind for _, kind in alerts} <= kinds
