"""``readings.csv`` in blocks: many rows at once as arrays, for a replay of months in seconds.

A block has its lines, from which any row can still be read by itself (``readings.py``), and, where its lines
are as plain as a gateway writes them, its columns as numpy arrays. A row of which the arrays do not know all
is marked, and is read by itself: both ways give the same readings and reject the same rows.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from datetime import date
from typing import TYPE_CHECKING, BinaryIO, TextIO

import numpy as np
from numpy.typing import NDArray

from drivers.reading import PumpState
from gateway.readings import GREATEST, LONGEST_LINE, BadRow, Row, RowReader, lines_of, read_rows, rows_after

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

BLOCK_BYTES = 2_000_000
_NUMBERS = ("rate_ml_h", "volume_ml", "vtbi_ml", "pressure_mmhg", "uptime_s")
_NEEDED = frozenset({"time", "state", "alarms", "volume_ml", "uptime_s"})
_OTHERS = frozenset(
    {"clock", "independent_ml", "battery_percent", "on_mains", "bolus_ml", "lockout_s", "serial"}
)
"""Columns with a meaning that the arrays do not hold: a file that has one is read row by row."""
_COMMA, _LINE_FEED, _CARRIAGE_RETURN = b",\n\r"
_LONGEST_NUMBER = 15
"""Digits and a point; so many digits are exact in a float."""
_TIME_LIKE = np.frombuffer(b"0000-00-00T00:00:00.000Z", np.uint8)
_TIME_DIGITS = np.flatnonzero(b"0"[0] == _TIME_LIKE)
_TIME_MARKS = np.flatnonzero(b"0"[0] != _TIME_LIKE)
_EPOCH_DAY = date(1970, 1, 1).toordinal()

Numbers = NDArray[np.float64]
Whole = NDArray[np.int64]
Flags = NDArray[np.bool_]


class Columns:
    """The rows of a block as arrays of one length. What was not reported is NaN."""

    def __init__(
        self,
        *,
        plain: Flags,
        utc_ms: Whole,
        uptime_ms: Whole,
        state: Whole,
        alarms: Flags,
        rate_ml_h: Numbers,
        volume_ml: Numbers,
        pressure_mmhg: Numbers,
    ) -> None:
        self.plain = plain
        """Whether the arrays say all that the row does."""
        self.utc_ms = utc_ms
        self.uptime_ms = uptime_ms
        self.state = state
        """The place of the state in ``PumpState``."""
        self.alarms = alarms
        """Whether any code is active."""
        self.rate_ml_h = rate_ml_h
        self.volume_ml = volume_ml
        self.pressure_mmhg = pressure_mmhg


class Block:
    """Some lines of a file, each ended by a line feed."""

    def __init__(
        self, body: bytes, ends: Whole, reader: RowReader, lines_before: int, columns: Columns | None
    ) -> None:
        self._body = body
        self._ends = ends
        self._reader = reader
        self._lines_before = lines_before
        self.columns = columns

    def __len__(self) -> int:
        return len(self._ends)

    def row(self, index: int) -> Row | BadRow | None:
        """One row by itself; ``None`` for an empty line."""
        begin = int(self._ends[index - 1]) + 1 if index else 0
        line = self._body[begin : int(self._ends[index])].decode("utf-8", "replace")
        return next(rows_after([line], self._reader, self._lines_before + index), None)


class RowsByThemselves:
    """A block without columns: rows that were read one by one."""

    def __init__(self, rows: list[Row | BadRow]) -> None:
        self._rows = rows
        self.columns: Columns | None = None

    def __len__(self) -> int:
        return len(self._rows)

    def row(self, index: int) -> Row | BadRow | None:
        """One row."""
        return self._rows[index]


def read_blocks(file: BinaryIO, pump: str = "pump") -> Iterator[Block | RowsByThemselves]:
    """The rows of a file in its order. Holds one block at a time, whatever the lengths of the lines.

    Raises HeaderError as ``read_rows`` does.
    """
    head = file.readline(LONGEST_LINE + 2)
    if not head.endswith(b"\n") or not _is_plain(head):
        yield from _by_themselves(read_rows(lines_of(_as_text(head, file)), pump))
        return
    reader = RowReader(head.decode("utf-8", "replace").rstrip("\r\n").split(","), pump)
    lines_before = 1
    rest = b""
    while data := rest + (read := file.read(BLOCK_BYTES)):
        if not read and not data.endswith(b"\n"):
            data += b"\n"
        cut = data.rfind(b"\n") + 1
        if not _is_plain(data[:cut]) or not cut:
            # quotes, line ends of another kind, or a line without an end: for the reader that knows all that
            yield from _by_themselves(rows_after(lines_of(_as_text(data, file)), reader, lines_before))
            return
        body, rest = data[:cut], data[cut:]
        text = np.frombuffer(body, np.uint8)
        ends = np.flatnonzero(text == _LINE_FEED)
        yield Block(body, ends, reader, lines_before, _columns(text, ends, reader))
        lines_before += len(ends)


def rows_of(blocks: Iterable[Block | RowsByThemselves]) -> Iterator[Row | BadRow]:
    """The rows of blocks, each by itself."""
    for block in blocks:
        for place in range(len(block)):
            row = block.row(place)
            if row is not None:
                yield row


def _is_plain(data: bytes) -> bool:
    return b'"' not in data and data.count(b"\r") == data.count(b"\r\n")


def _as_text(begun: bytes, file: BinaryIO) -> TextIO:
    """What was read already and the rest of the file; bytes that are no UTF-8 spoil their row only."""
    return io.TextIOWrapper(
        io.BufferedReader(_Rejoined(begun, file)), encoding="utf-8", errors="replace", newline=""
    )


class _Rejoined(io.RawIOBase):
    def __init__(self, begun: bytes, file: BinaryIO) -> None:
        super().__init__()
        self._begun = begun
        self._file = file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer)
        data, self._begun = self._begun[: len(view)], self._begun[len(view) :]
        data = data or self._file.read(len(view))
        view[: len(data)] = data
        return len(data)


def _by_themselves(rows: Iterator[Row | BadRow]) -> Iterator[RowsByThemselves]:
    for row in rows:
        yield RowsByThemselves([row])


def _columns(text: NDArray[np.uint8], ends: Whole, reader: RowReader) -> Columns | None:
    """The columns of lines that all have as many cells as the header; ``None`` for any other lines."""
    if not reader.columns.keys() >= _NEEDED or reader.columns.keys() & _OTHERS:
        return None
    cuts = np.flatnonzero((text == _COMMA) | (text == _LINE_FEED))
    count = len(ends)
    if len(cuts) != count * reader.width:
        return None
    grid = cuts.reshape(count, reader.width)
    if not np.array_equal(grid[:, -1], ends):
        return None
    begins = np.empty_like(grid)
    begins[0, 0] = 0
    begins[1:, 0] = ends[:-1] + 1
    begins[:, 1:] = grid[:, :-1] + 1
    grid[:, -1] -= text[grid[:, -1] - 1] == _CARRIAGE_RETURN
    cells = {name: (begins[:, place], grid[:, place]) for name, place in reader.columns.items()}
    utc_ms, plain = _times(text, *cells["time"])
    state, known = _states(text, *cells["state"])
    plain &= known
    numbers: dict[str, Numbers] = {}
    for name in _NUMBERS:
        if name in cells:
            numbers[name], readable = _numbers(text, *cells[name])
            plain &= readable
    plain &= ~np.isnan(numbers["uptime_s"])
    nothing = np.full(count, np.nan)
    begin, end = cells["alarms"]
    return Columns(
        plain=plain,
        utc_ms=utc_ms,
        uptime_ms=np.rint(np.nan_to_num(numbers["uptime_s"]) * 1000).astype(np.int64),
        state=state,
        alarms=end > begin,
        rate_ml_h=numbers.get("rate_ml_h", nothing),
        volume_ml=numbers.get("volume_ml", nothing),
        pressure_mmhg=numbers.get("pressure_mmhg", nothing),
    )


def _from_the_end(text: NDArray[np.uint8], begin: Whole, end: Whole, most: int) -> NDArray[np.uint8]:
    """The last characters of each cell, the last first; 0 where a cell is shorter."""
    length = end - begin
    places = np.arange(min(most, int(length.max(initial=0))))
    characters: NDArray[np.uint8] = text[np.maximum(end[:, None] - 1 - places, 0)]
    characters[places >= length[:, None]] = 0
    return characters


def _numbers(text: NDArray[np.uint8], begin: Whole, end: Whole) -> tuple[Numbers, Flags]:
    """Decimal numbers as ``float`` reads them, NaN for an empty cell; and which of them are such numbers."""
    length = end - begin
    characters = _from_the_end(text, begin, end, _LONGEST_NUMBER)
    digits = characters - np.uint8(ord("0"))
    is_digit = digits < 10
    is_point = characters == ord(".")
    points = is_point.sum(axis=1)
    counted = is_digit.sum(axis=1)
    readable = (points <= 1) & (counted + points == length) & ((counted > 0) | (length == 0))
    digits[~is_digit] = 0
    width = characters.shape[1]
    place = np.where(points > 0, is_point.argmax(axis=1), -1) if width else np.full(len(begin), -1)
    values = np.empty(len(begin))
    for point in np.unique(place):
        # whole numbers of at most 15 digits and powers of ten are exact, so their quotient is rounded once
        weights = [0.0 if at == point else 10.0 ** (at - (0 <= point < at)) for at in range(width)]
        rows = place == point
        values[rows] = digits[rows].astype(np.float64) @ np.array(weights) / 10.0 ** max(0, point)
    values[length == 0] = np.nan
    return values, readable & ~(values > GREATEST)


def _times(text: NDArray[np.uint8], begin: Whole, end: Whole) -> tuple[Whole, Flags]:
    """Milliseconds of times like ``2026-05-04T07:00:05.123Z``; and which of them are written so."""
    width = len(_TIME_LIKE)
    characters = text[np.minimum(begin[:, None] + np.arange(width), len(text) - 1)]
    digits = characters[:, _TIME_DIGITS] - np.uint8(ord("0"))
    readable = (
        (end - begin == width)
        & (digits < 10).all(axis=1)
        & (characters[:, _TIME_MARKS] == _TIME_LIKE[_TIME_MARKS]).all(axis=1)
    )
    year_month_day, clock = digits[:, :8].astype(np.int64), digits[:, 8:].astype(np.int64)
    dates = year_month_day @ np.array([10**power for power in range(7, -1, -1)])
    days = np.zeros(len(begin), np.int64)
    for written in np.unique(dates[readable]):
        rows = dates == written
        try:
            day = date(written // 10_000, written // 100 % 100, written % 100).toordinal() - _EPOCH_DAY
        except ValueError:
            readable &= ~rows
        else:
            days[rows] = day
    hours, minutes, seconds = (clock[:, at] * 10 + clock[:, at + 1] for at in (0, 2, 4))
    readable &= (hours < 24) & (minutes < 60) & (seconds < 60)
    milliseconds = clock[:, 6:] @ np.array([100, 10, 1])
    return (((days * 24 + hours) * 60 + minutes) * 60 + seconds) * 1000 + milliseconds, readable


def _states(text: NDArray[np.uint8], begin: Whole, end: Whole) -> tuple[Whole, Flags]:
    """The place of each state in ``PumpState``; and which of them are states."""
    characters = _from_the_end(text, begin, end, 8)
    padded = np.zeros((len(begin), 8), np.uint8)
    padded[:, : characters.shape[1]] = characters
    words = padded.view(">u8")[:, 0]
    states = np.full(len(begin), -1)
    for place, state in enumerate(PumpState):
        states[words == _word(state)] = place
    return states, (states >= 0) & (end - begin <= 8)


def _word(state: PumpState) -> int:
    return int.from_bytes(state.value.encode()[::-1].ljust(8, b"\0"), "big")
