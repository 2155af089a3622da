"""``readings.csv``: the text to moments and readings (prescription page, section 2). Pure: lines in, rows
out; and readings to lines.

A row that cannot be read is counted and said, never guessed at; one bad row spoils no other. What a row does
not say is ``None``, which is never a zero.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, TextIO

from msgspec import Struct

from drivers.reading import PumpAlarm, PumpState, Reading
from gateway.core.timeline import Moment

if TYPE_CHECKING:
    from _csv import Reader as CsvReader

LONGEST_LINE = 10_000
"""Characters; a longer one is not a row of readings."""
_TOO_LONG = f"is longer than {LONGEST_LINE} characters"
_VENDOR_TEXT = re.compile(r"[^A-Za-z0-9_-]+")
_LONGEST_VENDOR_TEXT = 40
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_KNOWN_CODES = frozenset(PumpAlarm)
_STATES: dict[str, PumpState] = {state.value: state for state in PumpState}
GREATEST = 1e9
"""No cell holds a larger number."""


class HeaderError(ValueError):
    """The first line does not name the columns that are needed; nothing can be read."""


class Row(Struct, frozen=True):
    """One reading and what the clocks said when it was taken."""

    moment: Moment
    reading: Reading


class BadRow(Struct, frozen=True):
    """A row that is not a reading: its line, counted from 1, and why."""

    line: int
    reason: str


def lines_of(text: TextIO) -> Iterator[str]:
    """The lines of a file, for ``read_rows``. Of one that is too long only the beginning is ever held."""
    while line := text.readline(LONGEST_LINE + 1):
        yield line
        while len(line) > LONGEST_LINE and not line.endswith(("\n", "\r")):
            line = text.readline(LONGEST_LINE + 1)


def read_rows(lines: Iterable[str], pump: str = "pump") -> Iterator[Row | BadRow]:
    """Rows in the order of the file. Holds one row at a time.

    Raises HeaderError if there is no header line with at least ``time`` and ``state``.
    """
    table = csv.reader(_bounded(lines))
    try:
        header = next(table, None)
    except csv.Error as error:
        raise HeaderError(f"line 1: cannot be read as CSV: {error}") from error
    yield from _rows_of(table, RowReader(header, pump), lines_before=0)


def rows_after(lines: Iterable[str], reader: RowReader, lines_before: int) -> Iterator[Row | BadRow]:
    """Rows of a file of which the header and so many lines have been read already."""
    return _rows_of(csv.reader(_bounded(lines)), reader, lines_before)


def _rows_of(table: CsvReader, reader: RowReader, lines_before: int) -> Iterator[Row | BadRow]:
    while True:
        try:
            cells = next(table, None)
        except csv.Error as error:
            yield BadRow(lines_before + table.line_num, f"cannot be read as CSV: {error}")
            continue
        if cells is None:
            return
        row = reader.row(cells, lines_before + table.line_num)
        if row is not None:
            yield row


def _bounded(lines: Iterable[str]) -> Iterator[str]:
    for line in lines:
        yield line if len(line) <= LONGEST_LINE else f"{_TOO_LONG}\n"


class _BadCell(ValueError):
    pass


class RowReader:
    """Knows the columns, and makes a row of cells.

    Raises HeaderError if there is no header line with at least ``time`` and ``state``.
    """

    def __init__(self, header: list[str] | None, pump: str) -> None:
        if header is None:
            raise HeaderError("no line at all; the first must name the columns: time,state,...")
        if header == [_TOO_LONG]:
            raise HeaderError(f"line 1: {_TOO_LONG}; it must name the columns: time,state,...")
        names = [name.strip().removeprefix("\ufeff") for name in header]
        for needed in ("time", "state"):
            if needed not in names:
                raise HeaderError(
                    f"line 1: no column '{needed}'; the first line must name the columns, found {names}"
                )
        self.width = len(names)
        """How many columns the header names."""
        self.columns = {name: names.index(name) for name in names if name}
        """The place of each column."""
        self._pump = pump
        self._has_alarms = "alarms" in self.columns

    def row(self, cells: list[str], line: int) -> Row | BadRow | None:
        """The row of these cells in this line; ``None`` if all are empty."""
        if not any(cells):
            return None
        try:
            return self._row(cells)
        except _BadCell as error:
            return BadRow(line, str(error))

    def _row(self, cells: list[str]) -> Row:
        if cells == [_TOO_LONG]:
            raise _BadCell(_TOO_LONG)
        if len(cells) <= max(self.columns.values()):
            raise _BadCell(
                f"{len(cells)} cells, and the header names {max(self.columns.values()) + 1} columns"
            )
        state = self._state(cells)
        uptime_s = self._number(cells, "uptime_s")
        monotonic_ms = None if uptime_s is None else round(uptime_s * 1000)
        moment = Moment(monotonic_ms=monotonic_ms, utc_ms=self._time(cells), synced=self._synced(cells))
        return Row(
            moment,
            Reading(
                pump=self._pump,
                at_ms=moment.utc_ms if monotonic_ms is None else monotonic_ms,
                state=state,
                rate_ml_h=self._number(cells, "rate_ml_h"),
                volume_ml=self._number(cells, "volume_ml"),
                vtbi_ml=self._number(cells, "vtbi_ml"),
                pressure_mmhg=self._number(cells, "pressure_mmhg", least=-GREATEST),
                alarms=self._alarms(cells, state),
                independent_ml=self._number(cells, "independent_ml", least=-GREATEST),
                battery_percent=self._number(cells, "battery_percent"),
                on_mains=self._flag(cells, "on_mains"),
                bolus_ml=self._number(cells, "bolus_ml"),
                lockout_s=self._number(cells, "lockout_s"),
                serial=self._text(cells, "serial") or None,
            ),
        )

    def _text(self, cells: list[str], name: str) -> str:
        index = self.columns.get(name)
        return "" if index is None else cells[index].strip()

    def _number(self, cells: list[str], name: str, least: float = 0.0) -> float | None:
        index = self.columns.get(name)
        if index is None:
            return None
        text = cells[index]
        if not text:
            return None
        try:
            value = float(text)
        except ValueError:
            if not text.strip():
                return None
            raise _BadCell(f"{name}: {text[:40]!r} is not a number") from None
        if not least <= value <= GREATEST or math.isnan(value):
            raise _BadCell(f"{name}: {text[:40]!r} is not possible")
        return value

    def _time(self, cells: list[str]) -> int:
        text = self._text(cells, "time")
        try:
            time = datetime.fromisoformat(text)
        except ValueError:
            raise _BadCell(f"time: {text[:40]!r} is not a time such as 2026-05-04T07:00:05.123Z") from None
        if time.tzinfo is None:
            raise _BadCell(f"time: {text[:40]!r} lacks its offset from UTC, such as Z")
        return (time - _EPOCH) // _MILLISECOND

    def _state(self, cells: list[str]) -> PumpState:
        text = self._text(cells, "state")
        if not text:
            return PumpState.UNKNOWN
        state = _STATES.get(text)
        if state is None:
            raise _BadCell(f"state: {text[:40]!r} is not known; known are {', '.join(_STATES)}")
        return state

    def _synced(self, cells: list[str]) -> bool:
        text = self._text(cells, "clock")
        if text not in ("", "synced", "unsynced"):
            raise _BadCell(f"clock: {text[:40]!r} is neither synced nor unsynced")
        return text != "unsynced"

    def _flag(self, cells: list[str], name: str) -> bool | None:
        text = self._text(cells, name)
        if text not in ("", "true", "false"):
            raise _BadCell(f"{name}: {text[:40]!r} is neither true nor false")
        return text == "true" if text else None

    def _alarms(self, cells: list[str], state: PumpState) -> tuple[str, ...] | None:
        """An empty cell says that none is active, if the column exists and the state is known (section 2)."""
        if not self._has_alarms:
            return None
        text = self._text(cells, "alarms")
        if not text:
            return None if state is PumpState.UNKNOWN else ()
        return tuple(dict.fromkeys(_code(part.strip()) for part in text.split(";") if part.strip()))


def _code(text: str) -> str:
    """A code of the page as it is; any other as ``vendor:TEXT``: an alarm is never lost for its spelling."""
    if text in _KNOWN_CODES:
        return text
    words = _VENDOR_TEXT.sub("_", text.removeprefix("vendor:"))[:_LONGEST_VENDOR_TEXT]
    return f"vendor:{words}"


COLUMNS = (
    "time",
    "state",
    "rate_ml_h",
    "volume_ml",
    "vtbi_ml",
    "pressure_mmhg",
    "alarms",
    "uptime_s",
    "clock",
    "independent_ml",
    "battery_percent",
    "on_mains",
    "bolus_ml",
    "lockout_s",
    "serial",
)
"""The columns that are written, in this order."""


def header_line() -> str:
    """The first line of a file that ``reading_line`` goes on with."""
    return ",".join(COLUMNS) + "\n"


def reading_line(moment: Moment, reading: Reading) -> str:
    """One reading as a line; ``read_rows`` reads the same from it.

    But for one thing: in this format a known state with no alarm says that none is active. That a pump has
    not said whether one is (``alarms`` is ``None``) cannot be written.
    """
    cells = {
        "time": _written_time(moment.utc_ms),
        "state": reading.state.value,
        "alarms": ";".join(reading.alarms or ()),
        "uptime_s": "" if moment.monotonic_ms is None else f"{moment.monotonic_ms / 1000:.3f}",
        "clock": "synced" if moment.synced else "unsynced",
        "on_mains": {None: "", True: "true", False: "false"}[reading.on_mains],
        "serial": reading.serial or "",
    }
    return (
        ",".join(_quoted(cells[name] if name in cells else _written(reading, name)) for name in COLUMNS)
        + "\n"
    )


def _written(reading: Reading, name: str) -> str:
    value: float | None = getattr(reading, name)
    return "" if value is None else repr(value).removesuffix(".0")


def _written_time(utc_ms: int) -> str:
    time = _EPOCH + timedelta(milliseconds=utc_ms)
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _quoted(cell: str) -> str:
    if not any(character in cell for character in ',"\r\n'):
        return cell
    return '"' + cell.replace('"', '""') + '"'
