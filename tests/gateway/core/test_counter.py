"""Wrapped, reset, unexplained: what a counter that fell has delivered (prescription page, section 2)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.counter import CounterFall, Delivered, delivered_across_fall


def fall(previous_ml: float, value_ml: float, **changed: object) -> Delivered:
    """At 100 mL/h a poll of 36 s gives 1 mL; one count is 0.1 mL."""
    circumstances: dict[str, object] = {
        "elapsed_ms": 36_000,
        "may_be_reset": False,
        "counter_ml": 0.1,
        "counter_wrap_ml": 1000.0,
        "highest_ml_h": 100.0,
        "set_ml_h": 50.0,
        **changed,
    }
    return delivered_across_fall(previous_ml, value_ml, **circumstances)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("previous_ml", "value_ml", "changed", "delivered_ml", "why"),
    [
        # the highest allowed rate can have reached the wrap, and the new value fits
        (999.8, 0.3, {}, 0.5, CounterFall.WRAPPED),
        (999.0, 0.0, {}, 1.0, CounterFall.WRAPPED),
        (999.8, 0.3, {"may_be_reset": True}, 0.5, CounterFall.WRAPPED),
        # too far from the wrap, or the new value is too large for it
        (990.0, 0.3, {}, 0.3, CounterFall.UNEXPLAINED),
        (999.8, 5.0, {}, 0.0, CounterFall.UNEXPLAINED),
        (1001.0, 0.0, {}, 0.0, CounterFall.UNEXPLAINED),
        (999.8, 0.3, {"counter_wrap_ml": None}, 0.3, CounterFall.UNEXPLAINED),
        # the pump stood still meanwhile: the new value was delivered since
        (274.1, 0.0, {"may_be_reset": True}, 0.0, CounterFall.RESET),
        (274.1, 7.5, {"may_be_reset": True}, 7.5, CounterFall.RESET),
        # unexplained: only what the set rate can have given was delivered
        (274.1, 0.5, {}, 0.5, CounterFall.UNEXPLAINED),
        (274.1, 0.7, {}, 0.0, CounterFall.UNEXPLAINED),
    ],
)
def test_a_fall_of_the_counter(
    previous_ml: float, value_ml: float, changed: dict[str, object], delivered_ml: float, why: CounterFall
) -> None:
    delivered = fall(previous_ml, value_ml, **changed)
    assert delivered.fall is why
    assert delivered.volume_ml == pytest.approx(delivered_ml)


@given(
    previous_ml=st.floats(0, 1000),
    value_ml=st.floats(0, 1000),
    elapsed_ms=st.integers(0, 10**9),
    may_be_reset=st.booleans(),
)
def test_delivered_volume_never_goes_back(
    previous_ml: float, value_ml: float, elapsed_ms: int, may_be_reset: bool
) -> None:
    delivered = fall(previous_ml, value_ml, elapsed_ms=elapsed_ms, may_be_reset=may_be_reset)
    assert delivered.volume_ml >= 0
