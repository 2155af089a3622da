"""The mechanism's parts, each by itself: strokes, ripple, counter."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.mechanism import Strokes, counter_shows, ripple_share, ripple_volume_ml
from simulator.therapy import PumpSetting
from tests.simulator.scenarios import MIN


@pytest.mark.parametrize(
    ("counted_ml", "counter_ml", "wrap_ml", "shown_ml"),
    [
        (0.0, 0.1, None, 0.0),
        (0.0999, 0.1, None, 0.0),
        (0.1, 0.1, None, 0.1),
        (0.1 + 0.1 + 0.1, 0.1, None, 0.3),  # a hair above in binary
        (0.7 - 1e-12, 0.1, None, 0.7),  # a hair below: it is the count that was meant
        (999.96, 0.1, 1000.0, 999.9),
        (1000.04, 0.1, 1000.0, 0.0),
        (1000.2, 0.1, 1000.0, 0.2),
        (12.3456, 0.001, None, 12.345),
    ],
)
def test_the_counter_shows_whole_counts_and_begins_again_at_its_wrap(
    counted_ml: float, counter_ml: float, wrap_ml: float | None, shown_ml: float
) -> None:
    setting = PumpSetting(counter_ml=counter_ml, counter_wrap_ml=wrap_ml)
    assert counter_shows(counted_ml, setting) == shown_ml


@given(st.integers(0, 100), st.lists(st.floats(0.0, 20.0), min_size=1, max_size=20))
def test_strokes_are_the_same_in_whatever_order_they_are_asked_for(seed: int, asked_ml: list[float]) -> None:
    one, other = Strokes(seed, 0.05), Strokes(seed, 0.05)
    forwards = {ml: one.volume_ml(ml) for ml in sorted(asked_ml)}
    backwards = {ml: other.volume_ml(ml) for ml in sorted(asked_ml, reverse=True)}
    assert forwards == backwards


@given(st.integers(0, 100), st.floats(0.0, 20.0), st.floats(0.0, 1.0))
def test_every_stroke_moves_forwards_by_a_fifth_more_or_less(seed: int, at_ml: float, more_ml: float) -> None:
    strokes = Strokes(seed, 0.05)
    moved_ml = strokes.volume_ml(at_ml + more_ml) - strokes.volume_ml(at_ml)
    assert 0.8 * more_ml - 1e-9 <= moved_ml <= 1.2 * more_ml + 1e-9


@given(st.floats(0.5, 300.0), st.floats(0.0, 120_000.0), st.integers(0, 600_000))
def test_the_ripple_never_runs_further_ahead_or_behind_than_was_set(
    rate_ml_h: float, from_ms: float, length_ms: int
) -> None:
    share = ripple_share(0.02, rate_ml_h, 2 * MIN)
    added_ml = ripple_volume_ml(
        share, rate_ml_h, 0.0, from_ms=from_ms, length_ms=length_ms, period_ms=2 * MIN
    )
    assert abs(added_ml) <= 0.02 + 1e-9
    assert 0.0 <= share <= 0.5


@given(st.integers(0, 5 * MIN), st.integers(0, 5 * MIN))
def test_the_ripple_of_a_ramp_is_the_sum_of_its_parts(first_ms: int, second_ms: int) -> None:
    slope_ml_h_ms = 100.0 / (10 * MIN)

    def added_ml(from_ms: int, length_ms: int) -> float:
        return ripple_volume_ml(
            0.05,
            20.0 + slope_ml_h_ms * from_ms,
            slope_ml_h_ms,
            from_ms=from_ms,
            length_ms=length_ms,
            period_ms=2 * MIN,
        )

    together_ml = added_ml(0, first_ms + second_ms)
    assert added_ml(0, first_ms) + added_ml(first_ms, second_ms) == pytest.approx(together_ml, abs=1e-9)
