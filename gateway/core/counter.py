"""From the pump's counter to delivered volume, across wraps and resets (prescription page, section 2,
"Counter").

The counter is the first witness: it goes on counting while nobody looks, so a gap in the readings costs
nothing.
"""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

MS_PER_HOUR = 3_600_000


class CounterFall(StrEnum):
    """Why a counter stands lower than before."""

    WRAPPED = "wrapped"
    """It went from ``counter_wrap_ml`` to 0."""
    RESET = "reset"
    """It was set to 0: a bag change, a power cycle."""
    UNEXPLAINED = "unexplained"


class Delivered(Struct, frozen=True, kw_only=True):
    """What a counter that fell has delivered since its last value."""

    volume_ml: float
    fall: CounterFall


def delivered_across_fall(
    previous_ml: float,
    value_ml: float,
    *,
    elapsed_ms: float,
    may_be_reset: bool,
    counter_ml: float,
    counter_wrap_ml: float | None,
    highest_ml_h: float,
    set_ml_h: float,
) -> Delivered:
    """Volume delivered between two values of the counter of which the later is lower.

    Rule (prescription page, section 2, "Counter"): (a) wrapped, if the highest allowed rate can have brought
    the old value to ``counter_wrap_ml`` and the new one fits; (b) reset, where that may be (the pump did not
    deliver at one of the readings or between them, or they lie further apart than ``no_data_after``, or it is
    not known how far); (c) unexplained: the new value was delivered if the set rate can have given it, else
    nothing is added. One count is the uncertainty of every comparison.
    """
    if counter_wrap_ml is not None and previous_ml <= counter_wrap_ml:
        round_trip_ml = counter_wrap_ml - previous_ml + value_ml
        if round_trip_ml <= _at_most_ml(highest_ml_h, elapsed_ms, counter_ml):
            return Delivered(volume_ml=round_trip_ml, fall=CounterFall.WRAPPED)
    if may_be_reset:
        return Delivered(volume_ml=value_ml, fall=CounterFall.RESET)
    possible = value_ml <= _at_most_ml(set_ml_h, elapsed_ms, counter_ml)
    return Delivered(volume_ml=value_ml if possible else 0.0, fall=CounterFall.UNEXPLAINED)


def _at_most_ml(rate_ml_h: float, elapsed_ms: float, counter_ml: float) -> float:
    return rate_ml_h * elapsed_ms / MS_PER_HOUR + counter_ml
