"""A prescription and the readings that go with it, from files: what ``replay`` and ``accuracy`` begin with.

What was not used of the input is counted, and can be said in words; on a terminal the person who waits sees
how far it is.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from msgspec import Struct

from drivers.reading import Reading
from gateway.blocks import Block, RowsByThemselves, read_blocks
from gateway.core.order import LONGEST_TEXT_BYTES, OrderError, parse_order
from gateway.core.prescription import Prescription
from gateway.core.timeline import Instant, Timeline
from gateway.progress import with_progress
from gateway.readings import BadRow, HeaderError, Row

UNREADABLE = 2
"""The exit status when the input cannot be read."""


class UnreadableError(Exception):
    """The input cannot be read, or not be used: a sentence that says what to do."""


class Tally(Struct):
    """What was not used of the input."""

    rows: int = 0
    dropped: int = 0
    bad: int = 0
    first_bad: BadRow | None = None
    revisions_not_reached: int = 0

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
        if self.revisions_not_reached:
            words += f"; {self.revisions_not_reached} of the revisions would have come after the last reading"
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


def order_from(name: str) -> tuple[str, Prescription]:
    """The text of a prescription's file, and what it says; ``-`` is standard input.

    Raises UnreadableError that names the file.
    """
    try:
        if name == "-":
            text = sys.stdin.buffer.read(LONGEST_TEXT_BYTES + 1).decode()
        else:
            with Path(name).open("rb") as file:
                text = file.read(LONGEST_TEXT_BYTES + 1).decode()
        return text, parse_order(text)
    except OrderError as error:
        raise UnreadableError(f"{name}: {error}") from error
    except UnicodeDecodeError as error:
        raise UnreadableError(f"{name}: not UTF-8 text: {error}") from error
    except OSError as error:
        raise _unreadable_file(error) from error


@contextmanager
def recording(command: str, readings: str, tally: Tally) -> Iterator[Iterator[Block | RowsByThemselves]]:
    """The readings in blocks, while they are read; ``-`` is standard input.

    Raises UnreadableError, also for what goes wrong while the rows are used: a header without its columns, an
    output that cannot be written, and in the end readings of which not one row could be read.
    """
    try:
        with _opened(readings) as file:
            yield with_progress(command, read_blocks(file), file)
    except HeaderError as error:
        raise UnreadableError(f"{readings}: {error}") from error
    except OSError as error:
        raise _unreadable_file(error) from error
    if tally.rows and tally.bad == tally.rows:
        raise UnreadableError(
            f"{readings}: not one row could be read; mend what is said of the first: {tally.in_words()}"
        )


@contextmanager
def _opened(name: str) -> Iterator[BinaryIO]:
    if name == "-":
        yield sys.stdin.buffer
        return
    with Path(name).open("rb") as file:
        yield file


def _unreadable_file(error: OSError) -> UnreadableError:
    if error.filename is None:
        return UnreadableError(f"output: {error.strerror}")
    return UnreadableError(
        f"{error.filename}: cannot be read: {error.strerror}; look at its name and its permissions"
    )
