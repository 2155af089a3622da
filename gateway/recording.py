"""A prescription and the readings that go with it, from files: what ``replay`` and ``accuracy`` begin with.

What was not used of the input is counted, and can be said in words; on a terminal the person who waits sees
the count of rows.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from msgspec import Struct

from drivers.reading import Reading
from gateway.core.order import LONGEST_TEXT_BYTES, OrderError, parse_order
from gateway.core.prescription import Prescription
from gateway.core.timeline import Instant, Timeline
from gateway.readings import BadRow, HeaderError, Row, lines_of, read_rows

UNREADABLE = 2
"""The exit status when the input cannot be read."""
_PROGRESS_EVERY_ROWS = 50_000


class UnreadableError(Exception):
    """The input cannot be read, or not be used: a sentence that says what to do."""


class Tally(Struct):
    """What was not used of the input."""

    rows: int = 0
    dropped: int = 0
    bad: int = 0
    first_bad: BadRow | None = None

    def in_words(self) -> str:
        """One line for people."""
        words = "1 row" if self.rows == 1 else f"{self.rows} rows"
        if self.dropped:
            words += f", {self.dropped} dropped as not later than one before"
        if self.bad:
            assert self.first_bad is not None
            words += (
                f", {self.bad} unreadable (the first in line {self.first_bad.line}: {self.first_bad.reason})"
            )
        return words


def in_order_of_time(
    rows: Iterable[Row | BadRow], tally: Tally, timeline: Timeline | None = None
) -> Iterator[tuple[Instant, Reading]]:
    """The readings that can be used, each with its instant; the others are counted.

    ``timeline`` is that of earlier rows, where these go on from them.
    """
    timeline = timeline or Timeline()
    for row in rows:
        tally.rows += 1
        if isinstance(row, BadRow):
            tally.bad += 1
            tally.first_bad = tally.first_bad or row
            continue
        instant = timeline.at(row.moment)
        if instant is None:
            tally.dropped += 1
            continue
        yield instant, row.reading


@contextmanager
def recording(
    command: str, prescription: str, readings: str, tally: Tally
) -> Iterator[tuple[Prescription, Iterator[Row | BadRow]]]:
    """The order, and the rows while they are read; ``-`` for one of the two is standard input.

    Raises UnreadableError, also for what goes wrong while the rows are used: bytes that are no text, a header
    without its columns, an output that cannot be written, and in the end readings of which not one row could
    be read.
    """
    if prescription == "-" and readings == "-":
        raise UnreadableError("only one of the two can come from standard input")
    try:
        order = parse_order(_prescription_text(prescription))
        with _opened(readings) as text:
            yield order, _with_progress(command, read_rows(lines_of(text)), tally)
    except OrderError as error:
        raise UnreadableError(f"{prescription}: {error}") from error
    except HeaderError as error:
        raise UnreadableError(f"{readings}: {error}") from error
    except OSError as error:
        if error.filename is None:
            raise UnreadableError(f"output: {error.strerror}") from error
        raise UnreadableError(
            f"{error.filename}: cannot be read: {error.strerror}; look at its name and its permissions"
        ) from error
    except UnicodeDecodeError as error:
        raise UnreadableError(f"not UTF-8 text: {error}") from error
    if tally.rows and tally.bad == tally.rows:
        raise UnreadableError(
            f"{readings}: not one row could be read; mend what is said of the first: {tally.in_words()}"
        )


def _prescription_text(name: str) -> str:
    if name == "-":
        return sys.stdin.buffer.read(LONGEST_TEXT_BYTES + 1).decode()
    with Path(name).open("rb") as file:
        return file.read(LONGEST_TEXT_BYTES + 1).decode()


@contextmanager
def _opened(name: str) -> Iterator[TextIO]:
    """The readings as text; bytes that are no UTF-8 spoil their row only."""
    if name == "-":
        sys.stdin.reconfigure(encoding="utf-8", errors="replace", newline="")  # type: ignore[union-attr]
        yield sys.stdin
        return
    with Path(name).open(encoding="utf-8", errors="replace", newline="") as file:
        yield file


def _with_progress(command: str, rows: Iterable[Row | BadRow], tally: Tally) -> Iterator[Row | BadRow]:
    """The same rows; on a terminal a count for the person who waits."""
    if not sys.stderr.isatty():
        yield from rows
        return
    for row in rows:
        if tally.rows and tally.rows % _PROGRESS_EVERY_ROWS == 0:
            sys.stderr.write(f"\r{command}: {tally.rows} rows")
            sys.stderr.flush()
        yield row
    sys.stderr.write("\r")
