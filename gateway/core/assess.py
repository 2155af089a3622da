"""Judgements that need no memory: is this rate right, what does this alarm mean, how is it said.

Each is a pure function of what was ordered and what the pump said; ``monitor.py`` keeps the memory.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from enum import StrEnum

from alerts.condition import Kind
from drivers.reading import PumpAlarm
from gateway.core.prescription import Prescription

RAMP_MARGIN_ML_H = 0.1
"""On a ramp a rate may be this far beside the tolerance (prescription page, section 3, ``wrong_rate``)."""
DISPLAY_MARGIN_ML_H = 0.005
"""Half a digit of the finest display: a limit is not passed by rounding."""
SLIP_WITHIN = 0.02
MOST_VENDOR_CODES = 8
MANY_VENDOR_CODES = "vendor:many"


class RateVerdict(StrEnum):
    """Whether a set rate is the prescribed one."""

    RIGHT = "right"
    ABOVE = "above"
    BELOW = "below"


def judge_rate(
    rate_ml_h: float, allowed: Iterable[tuple[float, float]], ordered_ml_h: float, tolerance: float
) -> RateVerdict:
    """Whether a set rate is right for one of the phases that are due now.

    ``allowed`` is the least and greatest prescribed rate of each of them (on a ramp they differ). Between two
    phases, neither of which it fits, ``ordered_ml_h`` decides whether it is too high or too low.
    """
    above = below = True
    for low_ml_h, high_ml_h in allowed:
        margin_ml_h = DISPLAY_MARGIN_ML_H if low_ml_h == high_ml_h else RAMP_MARGIN_ML_H
        too_low = rate_ml_h < low_ml_h * (1 - tolerance) - margin_ml_h
        too_high = rate_ml_h > high_ml_h * (1 + tolerance) + margin_ml_h
        if not too_low and not too_high:
            return RateVerdict.RIGHT
        above = above and too_high
        below = below and too_low
    if above == below:
        above = rate_ml_h > ordered_ml_h
    return RateVerdict.ABOVE if above else RateVerdict.BELOW


def slip(rate_ml_h: float, ordered_ml_h: float, prescription: Prescription) -> str | None:
    """The slip of programming that makes this rate of that order, in words; ``None`` if none within 2 %.

    Where several fit (a patient of 60 kg), all are said, the nearest first; and if it is the rate of another
    step of the order, that too, for it may be meant.
    """
    if rate_ml_h <= 0 or ordered_ml_h <= 0:
        return None
    found: list[tuple[float, str, str]] = []
    for factor, words in _slips(prescription):
        if factor <= 1 + SLIP_WITHIN:
            continue
        above = abs(rate_ml_h / (ordered_ml_h * factor) - 1)
        below = abs(rate_ml_h * factor / ordered_ml_h - 1)
        if above <= SLIP_WITHIN:
            found.append((above, f"{_number(factor)} times the order", words))
        elif below <= SLIP_WITHIN:
            found.append((below, f"the order divided by {_number(factor)}", words))
    dose = _dose_number(prescription)
    if dose is not None and _is_about(rate_ml_h, dose) and not _is_about(rate_ml_h, ordered_ml_h):
        found.append(
            # the very number that is on the paper says more than a factor
            (-1.0, f"{_number(dose)} as in the dose", "the number of the dose taken for millilitres an hour")
        )
    if not found:
        return None
    found.sort(key=lambda one: one[0])
    reasons = list(dict.fromkeys(words for _, _, words in found))
    steps = (phase.from_ml_h for phase in prescription.schedule.phases if not phase.is_ramp)
    if any(_is_about(rate_ml_h, step_ml_h) for step_ml_h in steps):
        reasons.append("another step of the order")
    return f"{found[0][1]}: {', or '.join(reasons)}?"


def _slips(prescription: Prescription) -> Iterator[tuple[float, str]]:
    """By how much a slip multiplies or divides a rate, as a factor above 1, and its words.

    The six of the prescription page (section 3, ``wrong_rate``), a key pressed twice, and a dose for each
    kilogram and minute, in micrograms, typed where the pump asks for mL/h.
    """
    yield 24.0, "a volume for a day taken for one for an hour"
    yield 60.0, "minutes taken for hours"
    yield 10.0, "a decimal point in the wrong place"
    yield 11.0, "a digit typed twice"
    yield 1000.0, "micrograms taken for milligrams"
    weight_kg = prescription.weight_kg
    concentration = prescription.concentration_per_ml
    if weight_kg:
        yield _above_one(weight_kg), "the patient's weight used wrongly"
    if concentration:
        yield _above_one(concentration), "the concentration used wrongly"
    if weight_kg and concentration:
        micrograms = concentration * 1000 if prescription.concentration_unit == "mg" else concentration
        yield (
            _above_one(weight_kg * 60 / micrograms),
            "a dose for each kilogram and minute taken for millilitres an hour",
        )


def _dose_number(prescription: Prescription) -> float | None:
    found = None if prescription.dose_rate is None else _NUMBER.match(prescription.dose_rate)
    return None if found is None else float(found[0])


def _is_about(rate_ml_h: float, other_ml_h: float) -> bool:
    return abs(rate_ml_h - other_ml_h) <= SLIP_WITHIN * other_ml_h


def _above_one(factor: float) -> float:
    return max(factor, 1 / factor)


_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]+)?")


ENDS_A_DOSE = frozenset({PumpAlarm.EMPTY, PumpAlarm.AIR_IN_LINE})
"""Alarms with which a dose ends when its volume is in (prescription page, section 1.1, rule 4)."""

_KIND_OF_CODE: dict[str, Kind | None] = {
    PumpAlarm.OCCLUSION_DOWNSTREAM: Kind.OCCLUSION,
    PumpAlarm.OCCLUSION_UPSTREAM: Kind.OCCLUSION,
    PumpAlarm.EMPTY: Kind.BAG_EMPTY,
    # notices, and what is said by other kinds
    PumpAlarm.DEMAND: None,
    PumpAlarm.DEMAND_DENIED: None,
    PumpAlarm.NEAR_EMPTY: None,
}


def alarm_conditions(
    codes: Iterable[str], *, runs_out: bool, open_vendor_codes: frozenset[str]
) -> dict[tuple[Kind, str], None]:
    """The conditions that the pump's codes stand for, in their order (prescription page, sections 2 and 3).

    Where the bag ``runs_out`` as it should, ``empty`` and ``air_in_line`` are the end of the dose and nothing
    else (section 1.1, rule 4). From the ninth open vendor code on all are ``vendor:many``.
    """
    conditions: dict[tuple[Kind, str], None] = {}
    vendor_codes: list[str] = []
    for code in codes:
        if runs_out and code in ENDS_A_DOSE:
            continue
        if code.startswith("vendor:"):
            vendor_codes.append(code)
            continue
        kind = _KIND_OF_CODE.get(code, Kind.PUMP_ALARM)
        if kind is not None:
            conditions[kind, code] = None
    known_first = sorted(dict.fromkeys(vendor_codes), key=lambda code: code not in open_vendor_codes)
    for code in known_first[:MOST_VENDOR_CODES]:
        conditions[Kind.PUMP_ALARM, code] = None
    if len(known_first) > MOST_VENDOR_CODES:
        conditions[Kind.PUMP_ALARM, MANY_VENDOR_CODES] = None
    return conditions


_WORDS_OF_CODE: dict[str, str] = {
    PumpAlarm.OCCLUSION_DOWNSTREAM: "the line to the patient is blocked",
    PumpAlarm.OCCLUSION_UPSTREAM: "the line from the bag is blocked",
    PumpAlarm.AIR_IN_LINE: "air in the line",
    PumpAlarm.EMPTY: "the bag or syringe is empty",
    PumpAlarm.LOW_BATTERY: "the battery is low",
    PumpAlarm.BATTERY_EMPTY: "the battery is empty",
    PumpAlarm.DOOR_OPEN: "the door is open",
    PumpAlarm.CASSETTE: "the cassette is not right",
    PumpAlarm.MALFUNCTION: "the pump has a malfunction",
    MANY_VENDOR_CODES: "more than eight codes of its maker at once",
}


def words_of_code(code: str) -> str:
    """A code of the pump in words for a nurse."""
    words = _WORDS_OF_CODE.get(code)
    return words if words is not None else f"code {re.sub('^vendor:', '', code)}"


def minutes(milliseconds: float) -> str:
    """A length of time as people say it."""
    seconds = milliseconds / 1000
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def rate(value_ml_h: float) -> str:
    """A rate with as many digits as it needs."""
    return f"{value_ml_h:.1f} mL/h" if value_ml_h >= 9.995 else f"{value_ml_h:.2f} mL/h"


def volume(value_ml: float) -> str:
    """A volume with as many digits as it needs."""
    return f"{value_ml:.1f} mL" if value_ml >= 99.995 else f"{value_ml:.2f} mL"


def _number(value: float) -> str:
    return f"{round(value, 2):g}"
