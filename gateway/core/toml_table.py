"""Strict reading of TOML tables that people write: all keys known, all values in range, all faults named.

A reader goes on after a fault, so that whoever wrote the file hears of all of them at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date, datetime, time
from difflib import get_close_matches
from math import isfinite

from msgspec import Struct

from gateway.core.quantity import duration_ms, in_words

LEAST_POSITIVE = 1e-6
GREATEST_NUMBER = 1e6


class OrderProblem(Struct, frozen=True):
    """One thing that is wrong with what somebody wrote, and where."""

    key: str
    """Where it is: ``limits.max_pause``, ``schedule.phase[2].rate_ml_h`` (counted from 1), ``line 7``."""
    message: str
    """What is wrong and what to do."""

    def __str__(self) -> str:
        return f"{self.key}: {self.message}"


class Table:
    """One TOML table. Each method reads one key. A fault is noted; ``None`` is returned, as for no key."""

    def __init__(self, values: Mapping[str, object], path: str, problems: list[OrderProblem]) -> None:
        self._values = values
        self._path = path
        self._problems = problems

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def path_of(self, key: str) -> str:
        """The whole name of a key."""
        return f"{self._path}.{key}" if self._path else key

    def problem(self, key: str, message: str) -> None:
        """Notes a fault of one key."""
        self._problems.append(OrderProblem(self.path_of(key), message))

    def refuse_unknown(self, known: Iterable[str], homes: Mapping[str, str]) -> None:
        """Notes every key that is not ``known``, with the nearest, or the table it belongs in (``homes``)."""
        names = list(known)
        for key in self._values:
            if key in names:
                continue
            shown = key[:60]
            near = get_close_matches(key[:60], names, n=1)
            if key in homes:
                hint = f"it belongs in {homes[key]}"
            elif near:
                hint = f"did you mean {near[0]}?"
            else:
                hint = f"known here are {', '.join(names)}"
            self._problems.append(OrderProblem(self.path_of(shown), f"is not known; {hint}"))

    def require(self, key: str, what: str) -> bool:
        """Whether the key is there; its absence is noted. ``what``: what to write."""
        if key not in self._values:
            self.problem(key, f"is missing; give {what}")
        return key in self._values

    def text(self, key: str, *, longest: int = 64) -> str | None:
        """A string that is not empty, at most ``longest`` characters, without control characters."""
        value = self._values.get(key)
        if value is None:
            return None
        if not isinstance(value, str):
            self.problem(key, f"must be text in quotes; found {shown_value(value)}")
            return None
        if not value.strip():
            self.problem(key, "is empty; give it or leave the key out")
            return None
        if len(value) > longest:
            self.problem(key, f"has {len(value)} characters; at most {longest} are possible")
            return None
        if not value.isprintable():
            self.problem(key, "contains characters that cannot be shown; write plain text")
            return None
        return value

    def choice(self, key: str, options: Iterable[str]) -> str | None:
        """One of a few words."""
        value = self.text(key)
        names = list(options)
        if value is None or value in names:
            return value
        near = get_close_matches(value, names, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        self.problem(key, f"{value!r} is not known; {hint}known are {', '.join(names)}")
        return None

    def flag(self, key: str) -> bool | None:
        """``true`` or ``false``."""
        value = self._values.get(key)
        if value is None or isinstance(value, bool):
            return value
        self.problem(key, f"must be true or false, without quotes; found {shown_value(value)}")
        return None

    def number(
        self,
        key: str,
        *,
        zero: bool = False,
        least: float = LEAST_POSITIVE,
        greatest: float = GREATEST_NUMBER,
    ) -> float | None:
        """A number in ``[least, greatest]``, and 0 where ``zero`` is possible."""
        value = self._values.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            self.problem(key, f"must be a number, without quotes; found {shown_value(value)}")
            return None
        if isinstance(value, float) and not isfinite(value):
            self.problem(key, f"must be a number; {value} is none")
            return None
        if value < 0:
            self.problem(key, f"must not be negative; found {shown_value(value)}")
        elif value == 0 and not zero:
            self.problem(key, "must be more than 0")
        elif value > greatest or (value != 0 and value < least):
            self.problem(key, f"must be between {least:g} and {greatest:g}; found {shown_value(value)}")
        else:
            return float(value)
        return None

    def whole(self, key: str, *, greatest: int) -> int | None:
        """A whole number from 0 to ``greatest``."""
        value = self._values.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int):
            self.problem(key, f"must be a whole number, without quotes; found {shown_value(value)}")
            return None
        if not 0 <= value <= greatest:
            self.problem(key, f"must be between 0 and {greatest}; found {shown_value(value)}")
            return None
        return value

    def duration(self, key: str, *, default_ms: int | None = None) -> int | None:
        """A duration in ms. With ``default_ms``, more than four times that is refused (section 1)."""
        value = self._values.get(key)
        if value is None:
            return None
        if not isinstance(value, str):
            self.problem(
                key, f'must be a duration in quotes, like "15min" or "1h30min"; found {shown_value(value)}'
            )
            return None
        try:
            milliseconds = duration_ms(value)
        except ValueError as error:
            self.problem(key, str(error))
            return None
        if default_ms is not None and milliseconds > 4 * default_ms:
            self.problem(
                key,
                f"{value} is over four times its default ({in_words(default_ms)} for this urgency); "
                f"at most {in_words(4 * default_ms)} is possible",
            )
            return None
        return milliseconds

    def moment_utc_ms(self, key: str) -> int | None:
        """An offset date-time, as wall time in ms, from the year 2000 to 2199."""
        value = self._values.get(key)
        if value is None:
            return None
        if not isinstance(value, datetime) or value.tzinfo is None:
            what = "has no UTC offset" if isinstance(value, datetime) else "is not a date with a time"
            if isinstance(value, str):
                what = "is text in quotes; take the quotes away"
            self.problem(
                key,
                f"{what}; write it like 2026-03-02T10:00:00+01:00, with the offset of the place; "
                f"found {shown_value(value)}",
            )
            return None
        if not 2000 <= value.year < 2200:
            self.problem(key, f"is in the year {value.year}; possible are 2000 to 2199")
            return None
        return round(value.timestamp() * 1000)

    def texts(self, key: str, *, most: int) -> list[str] | None:
        """A list of strings, at least one and at most ``most``, none twice."""
        value = self._values.get(key)
        if value is None:
            return None
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            self.problem(key, f"must be a list of texts in quotes; found {shown_value(value)}")
            return None
        if not 1 <= len(value) <= most:
            self.problem(key, f"has {len(value)} entries; possible are 1 to {most}")
            return None
        if len(set(value)) != len(value):
            self.problem(key, "names the same one twice; take one away")
            return None
        return value

    def table(self, key: str) -> Table | None:
        """A table of its own; ``None`` if it is not there."""
        value = self._values.get(key)
        if value is None:
            return None
        if not isinstance(value, dict):
            self.problem(key, f"must be a table, [{self.path_of(key)}]; found {shown_value(value)}")
            return Table({}, self.path_of(key), [])  # its keys are missing for this one reason
        return Table(value, self.path_of(key), self._problems)

    def tables(self, key: str, *, most: int) -> list[Table] | None:
        """An array of tables, ``[[key]]``; each is named by its place, counted from 1."""
        value = self._values.get(key)
        if value is None:
            return None
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            double = f"[[{self.path_of(key)}]]"
            self.problem(key, f"must be written with double brackets, {double}; found {shown_value(value)}")
            return None
        if not 1 <= len(value) <= most:
            self.problem(key, f"has {len(value)} entries; possible are 1 to {most}")
            return None
        return [
            Table(item, f"{self.path_of(key)}[{place}]", self._problems)
            for place, item in enumerate(value, 1)
        ]


def shown_value(value: object) -> str:
    """A value as a message quotes it, of bounded length."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, int):
        return str(value) if abs(value) < 10**15 else "a number of more than 15 digits"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
