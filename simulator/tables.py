"""Reading TOML tables strictly: every problem is collected, and each names its key.

A misspelt key must not be ignored: a scenario that silently lost its fault would prove nothing.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from typing import Any

from msgspec import Struct

MS_PER_UNIT = {"d": 86_400_000, "h": 3_600_000, "min": 60_000, "s": 1_000}
_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)min)?(?:(\d+(?:\.\d{1,3})?)s)?")
_ABSENT = object()


class Problem(Struct, frozen=True):
    """What is wrong with one key of a file, in words for whoever wrote it."""

    key: str
    message: str


class BadFile(ValueError):
    """A file that cannot be used; ``problems`` says why, key by key."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("; ".join(f"{problem.key}: {problem.message}" for problem in problems))
        self.problems = tuple(problems)


def parse_toml(text: str) -> dict[str, Any]:
    """The file as a dictionary. Raises ``BadFile`` (key ``(file)``) where it is no TOML."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadFile([Problem("(file)", f"this is not TOML: {error}")]) from error


def duration_ms(text: str) -> int:
    """A duration as the prescription page writes it (``"1h30min"``, ``"90s"``) in milliseconds.

    Raises ValueError if it is none.
    """
    match = _DURATION.fullmatch(text)
    if match is None or not any(match.groups()):
        raise ValueError(f'{text!r} is not a duration; write for example "90s", "2min" or "1h30min"')
    amounts = zip(match.groups(default="0"), MS_PER_UNIT.values(), strict=True)
    return round(sum(float(amount) * unit_ms for amount, unit_ms in amounts))


class Table:
    """One table of a TOML file, read key by key. What was not asked for by the end is an error."""

    def __init__(self, content: Any, path: str, problems: list[Problem]) -> None:
        self._path = path
        self._problems = problems
        self._asked: list[str] = []
        self._content: dict[str, Any] = content if isinstance(content, dict) else {}
        if not isinstance(content, dict):
            problems.append(Problem(path or "(file)", "must be a table"))

    def __contains__(self, key: str) -> bool:
        return key in self._content

    def complain(self, key: str, message: str) -> None:
        """Note a problem with one key of this table."""
        self._problems.append(Problem(self._place(key), message))

    def _place(self, key: str) -> str:
        return f"{self._path}.{key}" if self._path else key

    def _take(self, key: str, required: bool) -> Any:
        self._asked.append(key)
        if key not in self._content:
            if required:
                self.complain(key, "is missing")
            return _ABSENT
        return self._content[key]

    def text(self, key: str, default: str = "", *, required: bool = False) -> str:
        """A string that is not empty."""
        value = self._take(key, required)
        if value is _ABSENT:
            return default
        if not isinstance(value, str) or not value:
            self.complain(key, f"must be a text, not {value!r}")
            return default
        return value

    def choice(self, key: str, known: tuple[str, ...], default: str = "", *, required: bool = False) -> str:
        """One of a list of words."""
        value = self.text(key, default, required=required)
        if value not in known and key in self._content:
            self.complain(key, f"{value!r} is not known; known are {', '.join(known)}")
            return default
        return value

    def words(self, key: str) -> tuple[str, ...]:
        """A list of strings, empty where it is not given."""
        value = self._take(key, required=False)
        if value is _ABSENT:
            return ()
        if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
            self.complain(key, f"must be a list of texts, not {value!r}")
            return ()
        return tuple(value)

    def number(
        self,
        key: str,
        default: float,
        *,
        least: float = 0.0,
        most: float = 1e6,
        above_zero: bool = False,
        required: bool = False,
    ) -> float:
        """A finite number between ``least`` and ``most``; with ``above_zero`` not 0 either."""
        value = self._take(key, required)
        if value is _ABSENT:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float):
            self.complain(key, f"must be a number, not {value!r}")
            return default
        if not least <= value <= most or (above_zero and value == 0):
            bounds = f"more than 0 and at most {most:g}" if above_zero else f"from {least:g} to {most:g}"
            self.complain(key, f"must be {bounds}, not {value!r}")
            return default
        return float(value)

    def whole(self, key: str, default: int, *, required: bool = False) -> int:
        """A whole number, 0 or more."""
        value = self._take(key, required)
        if value is _ABSENT:
            return default
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            self.complain(key, f"must be a whole number, 0 or more, not {value!r}")
            return default
        return value

    def duration(self, key: str, default_ms: int, *, zero: bool = False, required: bool = False) -> int:
        """A duration in ms; ``zero`` says whether 0 has a meaning here."""
        value = self._take(key, required)
        if value is _ABSENT:
            return default_ms
        try:
            length_ms = duration_ms(value) if isinstance(value, str) else -1
        except ValueError as error:
            self.complain(key, str(error))
            return default_ms
        if length_ms < 0:
            self.complain(key, f'must be a duration such as "90s", not {value!r}')
            return default_ms
        if length_ms == 0 and not zero:
            self.complain(key, "must be longer than 0")
            return default_ms
        return length_ms

    def table(self, key: str, *, required: bool = False) -> Table:
        """A table within this one; empty where it is not given."""
        value = self._take(key, required)
        return Table({} if value is _ABSENT else value, self._place(key), self._problems)

    def tables(self, key: str, *, required: bool = False) -> tuple[Table, ...]:
        """An array of tables; their paths count from 0, as ``schedule.phase[2]``."""
        value = self._take(key, required)
        if value is _ABSENT:
            return ()
        if not isinstance(value, list):
            self.complain(key, f"must be an array of tables: write [[{self._place(key)}]]")
            return ()
        return tuple(Table(one, f"{self._place(key)}[{i}]", self._problems) for i, one in enumerate(value))

    def no_other_keys(self) -> None:
        """Complain of every key that nobody asked for."""
        for key in self._content:
            if key not in self._asked:
                close = difflib.get_close_matches(key, self._asked, n=1)
                hint = f"did you mean {close[0]}?" if close else f"possible are {', '.join(self._asked)}"
                self.complain(key, f"unknown key; {hint}")
