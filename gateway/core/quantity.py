"""Durations, concentrations and dose rates as people write them (prescription page, section 1).

Each function returns the value, or raises ``ValueError`` that says what is wrong and what to do.
"""

from __future__ import annotations

import re
from decimal import ROUND_HALF_UP, Decimal
from difflib import get_close_matches

from msgspec import Struct

LONGEST_DURATION_MS = 400 * 86_400_000
"""More than a year: nothing that is ordered takes longer."""

_UNIT_MS = {"d": 86_400_000, "h": 3_600_000, "min": 60_000, "s": 1_000}
_PIECE = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)([a-z]+)")
_AMOUNT = r"([0-9]{1,9}(?:\.[0-9]{1,9})?) ?([A-Za-zµμ]{1,16})"
_CONCENTRATION = re.compile(_AMOUNT + r"/m[Ll]")
_DOSE_RATE = re.compile(_AMOUNT + r"(/kg)?/([a-z]{1,8})")

# What one of each is in the first of its kind; only units of one kind can be compared.
_AMOUNT_UNITS: dict[str, tuple[str, float]] = {
    "g": ("mass", 1.0),
    "mg": ("mass", 1e-3),
    "mcg": ("mass", 1e-6),
    "ug": ("mass", 1e-6),
    "µg": ("mass", 1e-6),
    "μg": ("mass", 1e-6),
    "ng": ("mass", 1e-9),
    "unit": ("activity", 1.0),
    "units": ("activity", 1.0),
    "IU": ("activity", 1.0),
    "mmol": ("substance", 1.0),
    "mol": ("substance", 1e3),
    "mEq": ("charge", 1.0),
    "kcal": ("energy", 1.0),
    "kJ": ("energy", 1 / 4.184),
    "MBq": ("radioactivity", 1.0),
    "mL": ("volume", 1.0),
}
_PER_HOUR = {"min": 60.0, "h": 1.0, "d": 1 / 24, "day": 1 / 24}


class Concentration(Struct, frozen=True, kw_only=True):
    """How much of a drug is in one mL."""

    amount: float
    unit: str


class DoseRate(Struct, frozen=True, kw_only=True):
    """How much of a drug is given per time, and whether it goes by the patient's weight."""

    amount_per_h: float
    unit: str
    per_kg: bool

    def rate_ml_h(self, concentration: Concentration, weight_kg: float | None) -> float:
        """The rate in mL/h that gives this dose. Raises ``ValueError`` where it cannot be told."""
        kind, size = _AMOUNT_UNITS[self.unit]
        other_kind, other_size = _AMOUNT_UNITS[concentration.unit]
        if kind != other_kind:
            raise ValueError(
                f"{self.unit} cannot be compared with {concentration.unit} in drug.concentration; use one"
            )
        per_hour = self.amount_per_h * size
        if self.per_kg:
            if weight_kg is None:
                raise ValueError("goes by weight, and patient.weight_kg is not given; give it")
            per_hour *= weight_kg
        return per_hour / (concentration.amount * other_size)


def duration_ms(text: str) -> int:
    """Milliseconds of ``"46h"``, ``"1h30min"``, ``"90s"`` or ``"2d"``: units d, h, min, s, in this order."""
    hint = 'write it like "46h", "1h30min", "90s" or "2d"'
    position = 0
    total = Decimal(0)
    smallest = 10**12
    while position < len(text):
        piece = _PIECE.match(text, position)
        if piece is None or piece[2] not in _UNIT_MS:
            raise ValueError(f"{text[:40]!r} is not a duration; {hint}")
        unit_ms = _UNIT_MS[piece[2]]
        if unit_ms >= smallest:
            raise ValueError(f"{text[:40]!r} names its units twice or from small to large; {hint}")
        smallest = unit_ms
        total += Decimal(piece[1]) * unit_ms
        position = piece.end()
    if not text:
        raise ValueError(f"is empty; {hint}")
    if total > LONGEST_DURATION_MS:
        raise ValueError(f"{text[:40]!r} is longer than 400d, which is the most that is possible")
    whole_ms = int(total.to_integral_value(rounding=ROUND_HALF_UP))
    if whole_ms == 0:
        raise ValueError(f"{text[:40]!r} is no time at all; a duration must be longer than 0")
    return whole_ms


def in_words(milliseconds: int) -> str:
    """A duration as it may be written in a prescription: ``1h30min``."""
    if milliseconds <= 0:
        return "0s"
    words = ""
    rest_ms = milliseconds
    for unit, unit_ms in _UNIT_MS.items():
        if unit == "s":
            if rest_ms:
                words += f"{rest_ms / 1000:g}s"
        elif rest_ms >= unit_ms:
            words += f"{rest_ms // unit_ms}{unit}"
            rest_ms %= unit_ms
    return words


def concentration(text: str) -> Concentration:
    """``"5 mg/mL"``: amount and unit in one mL."""
    found = _CONCENTRATION.fullmatch(text)
    if found is None:
        raise ValueError(
            f'{text[:40]!r} is not a concentration; write amount and unit in one mL, like "5 mg/mL"'
        )
    return Concentration(amount=_positive(found[1], text), unit=_known_unit(found[2]))


def dose_rate(text: str) -> DoseRate:
    """``"0.375 mcg/kg/min"`` or ``"5 unit/h"``."""
    found = _DOSE_RATE.fullmatch(text)
    if found is None or found[4] not in _PER_HOUR:
        raise ValueError(f'{text[:40]!r} is not a dose rate; write it like "0.375 mcg/kg/min" or "5 unit/h"')
    amount = _positive(found[1], text)
    return DoseRate(
        amount_per_h=amount * _PER_HOUR[found[4]], unit=_known_unit(found[2]), per_kg=found[3] is not None
    )


def _positive(digits: str, text: str) -> float:
    amount = float(digits)
    if amount <= 0:
        raise ValueError(f"{text[:40]!r} has an amount of 0; give the true one")
    return amount


def _known_unit(unit: str) -> str:
    if unit in _AMOUNT_UNITS:
        return unit
    if unit in ("U", "u", "iu"):
        raise ValueError(f"{unit!r} is easily misread; write unit")
    near = get_close_matches(unit, _AMOUNT_UNITS, n=1)
    known = ", ".join(name for name in _AMOUNT_UNITS if name.isascii())
    raise ValueError(
        f"{unit!r} is not a known unit; {f'did you mean {near[0]}? ' if near else ''}known are {known}"
    )
