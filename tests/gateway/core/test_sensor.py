"""An independent sensor beside the counter: ``measurement_mismatch`` (prescription page, section 3)."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alerts.condition import Kind
from gateway.core.prescription import Prescription
from gateway.core.sensor import Agreement, Comparison, expected_at, jumped
from tests.gateway.core.pump_days import Ward, continuous
from tests.gateway.core.timetable import live, must_be_told

PUMP = 'counter_ml = 0.01\nstroke_ml = 0.005\nripple_ml = 0.01\npoll = "5s"\naccuracy_percent = 3'
LIMITS = 'start_window = "20min"\nend_window = "30min"\nmax_pause = "30min"\nkvo_ml_h = 0.5'
DRIP = '[sensor]\nkind = "drip"\nresolution_ml = 0.05\n'
SCALE = '[sensor]\nkind = "weight"\nresolution_ml = 1.0\nnoise_ml = 0.5\n'
FLOW = '[sensor]\nkind = "flow"\nresolution_ml = 0.005\nnoise_ml = 0.002\n'
POLL_MS = 5000


def with_sensor(rate_ml_h: float, sensor: str, *, pump: str = PUMP) -> Prescription:
    return continuous(rate_ml_h, 24, limits=LIMITS, pump=pump, rest=sensor)


DRIPS_AT_10 = with_sensor(10, DRIP)
SCALE_AT_100 = with_sensor(100, SCALE)


def mismatches(ward: Ward) -> list[str]:
    return [phase for _, kind, phase in ward.told if kind == Kind.MEASUREMENT_MISMATCH]


class TestAgreement:
    def test_a_sensor_that_sees_what_is_counted_says_nothing(self) -> None:
        must_be_told(live(DRIPS_AT_10, "-0:10 idle\n0:00 running rate=10", until="6:00"), "")

    def test_within_both_accuracies_they_do_not_contradict_each_other(self) -> None:
        ward = live(DRIPS_AT_10, "-0:10 idle\n0:00 running rate=10 seen=9.1", until="12:00")
        must_be_told(ward, "")

    @pytest.mark.parametrize(("seen", "until"), [(0, "0:30:00"), (5, "0:32:00"), (20, "0:31:00")])
    def test_beyond_that_it_is_told_in_words_of_both(self, seen: float, until: str) -> None:
        ward = live(
            DRIPS_AT_10,
            f"-0:10 idle\n0:00 running rate=10\n0:20 running rate=10 seen={seen}",
            until="1:00",
        )
        must_be_told(ward, "0:20:00 measurement_mismatch", within_s=300)
        finding = next(one for one in ward.findings if one.kind is Kind.MEASUREMENT_MISMATCH)
        assert finding.message.startswith("Measurements disagree: the independent sensor saw ")
        assert " and the pump counted " in finding.message

    def test_it_ends_when_they_have_agreed_for_as_long_as_it_took(self) -> None:
        ward = live(
            DRIPS_AT_10,
            """
            -0:10  idle
             0:00  running  rate=10
             1:00  running  rate=10  seen=2
             1:20  running  rate=10
            """,
            until="3:00",
        )
        assert mismatches(ward) == ["start", "end"]
        ends_s = next(at_s for at_s, _, phase in ward.told if phase == "end")
        assert 4800 < ends_s < 4800 + 1200

    def test_without_a_sensor_in_the_order_its_column_is_not_looked_at(self) -> None:
        plain = continuous(10, 24, limits=LIMITS, pump=PUMP)
        must_be_told(live(plain, "-0:10 idle\n0:00 running rate=10 seen=0", until="3:00"), "")

    def test_cells_that_are_missing_are_carried_over(self) -> None:
        ward = live(
            DRIPS_AT_10,
            """
            -0:10  idle
             0:00  running  rate=10
             1:00  running  rate=10  blind
             2:00  running  rate=10
             3:00  running  rate=10  nocount
             4:00  running  rate=10
            """,
            until="5:00",
        )
        must_be_told(ward, "")

    def test_what_went_wrong_while_cells_were_missing_is_found_after_it(self) -> None:
        ward = live(
            DRIPS_AT_10,
            """
            -0:10  idle
             0:00  running  rate=10
             1:00  running  rate=10  seen=0  blind
             1:30  running  rate=10
            """,
            until="1:35",
        )
        assert mismatches(ward) == ["start"]


class TestWhatBreaksTheComparison:
    @pytest.mark.parametrize(
        "between",
        [
            "1:00  paused  counter=0  jump=400\n1:10 running rate=100",
            "1:00  paused  jump=-400\n1:10 running rate=100",
            "1:00  running rate=100  jump=-400",
            "1:00  paused  blind\n1:10  running  rate=100  jump=250",
        ],
    )
    def test_a_new_bag_on_the_scale_says_nothing(self, between: str) -> None:
        ward = live(SCALE_AT_100, f"-0:10 idle\n0:00 running rate=100\n{between}", until="4:00")
        must_be_told(ward, "")

    def test_a_bag_off_the_hook_for_a_walk_says_nothing(self) -> None:
        ward = live(
            SCALE_AT_100,
            """
            -0:10  idle
             0:00  running  rate=100
             1:00  running  rate=100  jump=700
             1:09  running  rate=100  jump=-703
            """,
            until="4:00",
        )
        must_be_told(ward, "")

    def test_one_that_stays_off_for_ten_minutes_is_told(self) -> None:
        ward = live(
            SCALE_AT_100,
            """
            -0:10  idle
             0:00  running  rate=100
             1:00  running  rate=100  jump=700  seen=0
             1:30  running  rate=100  jump=-750
            """,
            until="2:00",
        )
        must_be_told(ward, "1:10 measurement_mismatch\n1:40 measurement_mismatch end", within_s=180)


class TestNoise:
    @pytest.mark.parametrize(
        ("rate_ml_h", "sensor", "deadline_s"), [(125.0, SCALE, 300), (10.0, DRIP, 200), (0.6, FLOW, 700)]
    )
    def test_half_a_flow_is_found_soon(self, rate_ml_h: float, sensor: str, deadline_s: int) -> None:
        found = [
            compared(rate_ml_h, sensor, seed, factor=0.5, shifted_at_s=1800, until_s=7200)
            for seed in range(5)
        ]
        assert all(at_s is not None and 1800 < at_s <= 1800 + deadline_s for at_s in found), found

    @pytest.mark.parametrize(
        ("rate_ml_h", "sensor", "factor"),
        [(125.0, SCALE, 0.93), (10.0, SCALE, 1.07), (0.6, FLOW, 1.07), (0.6, FLOW, 0.93), (10.0, DRIP, 1.07)],
    )
    def test_noise_within_the_edge_is_no_contradiction(
        self, rate_ml_h: float, sensor: str, factor: float
    ) -> None:
        assert compared(rate_ml_h, sensor, 3, factor=factor, shifted_at_s=0, until_s=24 * 3600) is None

    @settings(max_examples=12, deadline=None)
    @given(st.integers(0, 2**32), st.sampled_from((0.6, 10.0, 125.0)), st.sampled_from((0.0, 0.3, 0.5, 2.0)))
    def test_no_noise_that_was_stated_makes_a_contradiction(
        self, seed: int, rate_ml_h: float, noise_ml: float
    ) -> None:
        sensor = f'[sensor]\nkind = "weight"\nresolution_ml = 1.0\nnoise_ml = {noise_ml}\n'
        assert compared(rate_ml_h, sensor, seed, factor=1.0, shifted_at_s=0, until_s=4 * 3600) is None


def compared(
    rate_ml_h: float,
    sensor: str,
    seed: int,
    *,
    factor: float,
    shifted_at_s: int,
    until_s: int,
    interrupted_each_s: int | None = None,
) -> int | None:
    """When a comparison of a noisy sensor with a counter of whole counts says that they disagree."""
    random_ = random.Random(seed)
    order = with_sensor(rate_ml_h, sensor)
    assert order.sensor is not None
    expected = expected_at(rate_ml_h, order.pump, order.sensor, order.limits, POLL_MS)
    comparison = Comparison()
    flowed_ml = 0.0
    for second in range(0, until_s, POLL_MS // 1000):
        flowed_ml += (
            rate_ml_h * POLL_MS / 3_600_000 * (factor if second >= shifted_at_s else 1.0) if second else 0
        )
        counter_ml = math.floor(rate_ml_h * second / 3600 / 0.01 + 1e-9) * 0.01
        noisy_ml = flowed_ml + random_.gauss(0, order.sensor.noise_ml)
        seen_ml = round(noisy_ml / order.sensor.resolution_ml) * order.sensor.resolution_ml
        comparison.counted_ml = counter_ml
        if interrupted_each_s is not None and second % interrupted_each_s == 0:
            comparison.interrupt()
        if comparison.take(second * 1000, seen_ml, expected) is Agreement.BROKEN:
            return second
    return None


@pytest.mark.parametrize("seed", range(4))
def test_noise_does_not_add_up_over_many_stops(seed: int) -> None:
    found_s = compared(
        2.0, SCALE, seed, factor=1.0, shifted_at_s=0, until_s=48 * 3600, interrupted_each_s=125
    )
    assert found_s is None


class TestJump:
    @pytest.mark.parametrize(
        ("kind", "step_ml", "is_jump"),
        [
            ("weight", 300.0, True),
            ("weight", 5.0, False),
            ("weight", -2.0, False),
            ("weight", -8.0, True),
            ("flow", 300.0, False),
            ("flow", -8.0, True),
            ("drip", 300.0, False),
        ],
    )
    def test_a_scale_jumps_both_ways_and_every_sensor_may_start_again(
        self, kind: str, step_ml: float, is_jump: bool
    ) -> None:
        sensor = with_sensor(10, f'[sensor]\nkind = "{kind}"\nresolution_ml = 1.0\nnoise_ml = 0.5\n').sensor
        assert sensor is not None
        assert jumped(sensor, step_ml, 5.0, POLL_MS) is is_jump
