"""``dripwatch replay``: recorded readings to events, with the monitor and the inhibition of live operation.

Usage: ``dripwatch replay PRESCRIPTION READINGS [--states]``; ``-`` is standard input. Events go to standard
output, one JSON object a line in order of time (prescription page, section 3; tools page for ``--states``);
all else goes to standard error. Exit status 0 if the input could be read, whatever was found; 2 if it could
not.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import BinaryIO

import msgspec
from msgspec import Struct

from alerts.inhibition import Inhibition, Phase, Transition
from gateway.blocks import Block, RowsByThemselves, read_blocks, rows_of
from gateway.core.monitor import DeliveryStatus, Monitor
from gateway.core.order import LONGEST_TEXT_BYTES, OrderError, parse_order
from gateway.core.prescription import Prescription
from gateway.core.stretch import Columns, pass_over
from gateway.core.timeline import Instant, Timeline
from gateway.progress import with_progress
from gateway.readings import BadRow, HeaderError, Row

UNREADABLE = 2
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_STATE_EVERY_MS = 60_000
_SHORTEST_REACH = 256
"""So many rows are looked at together at first; ..."""
_ROWS_BETWEEN_TRIALS = 32
"""... and so many are taken one by one after a trial that passed over none."""


class Event(Struct, frozen=True, kw_only=True):
    """One line of events.jsonl. All fields are always there."""

    time: str
    kind: str
    phase: str
    priority: str
    expected_ml: float | None
    delivered_ml: float | None
    message: str
    code: str | None
    since: str | None


class OccurrenceLine(Struct, frozen=True):
    """Which occurrence is on."""

    number: int
    due: str


class StateLine(Struct, frozen=True, kw_only=True):
    """One line of ``--states`` (tools page)."""

    time: str
    verdict: str
    decidable_after_s: int | None
    expected_ml: float | None
    delivered_ml: float | None
    occurrence: OccurrenceLine | None
    rate_ml_h: float | None
    ends_at: str | None
    bag_empty_at: str | None
    occlusion_blind_s: int | None


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


def replay(
    prescription: Prescription, rows: Iterable[Row | BadRow], tally: Tally, *, states: bool = False
) -> Iterator[Event | StateLine]:
    """What the monitor would have told of these rows, one after another. Never looks ahead."""
    player = _Player(prescription, tally, states=states)
    for row in rows:
        yield from player.take(row)


def replay_blocks(
    prescription: Prescription, blocks: Iterable[Block | RowsByThemselves], tally: Tally
) -> Iterator[Event | StateLine]:
    """The same of the rows in blocks: those that bring no news are passed over together."""
    player = _Player(prescription, tally, states=False)
    for block in blocks:
        place = 0
        while place < len(block):
            passed = player.pass_over(block.columns, place, len(block)) if block.columns else 0
            if passed:
                place += passed
                continue
            row = block.row(place)
            place += 1
            if row is not None:
                yield from player.take(row)


class _Player:
    """The monitor and the inhibition of live operation, and what they have told."""

    def __init__(self, prescription: Prescription, tally: Tally, *, states: bool) -> None:
        self._tally = tally
        self._states = states
        self._timeline = Timeline()
        self._monitor = Monitor("pump", prescription)
        self._inhibition = Inhibition(prescription.urgency)
        self._told_minute: int | None = None
        self._reach = _SHORTEST_REACH
        self._rows_before_passing_over = 0

    def take(self, row: Row | BadRow) -> Iterator[Event | StateLine]:
        """One row."""
        self._tally.rows += 1
        self._rows_before_passing_over -= 1
        if isinstance(row, BadRow):
            self._tally.bad += 1
            self._tally.first_bad = self._tally.first_bad or row
            return
        instant = self._timeline.at(row.moment)
        if instant is None:
            self._tally.dropped += 1
            return
        findings = self._monitor.step(instant, row.reading)
        if findings:
            for transition in self._inhibition.apply(findings):
                if transition.phase is not Phase.WORSE:
                    yield event(transition)
        minute = instant.utc_ms // _STATE_EVERY_MS
        if self._states and minute != self._told_minute:
            self._told_minute = minute
            yield state_line(instant, self._monitor.status(instant))

    def pass_over(self, columns: Columns, first: int, end: int) -> int:
        """Rows from ``first`` on that bring no news: how many were taken at once, often none.

        Looks at few rows where the last stretch was short, and at ever more where it was not.
        """
        if self._monitor.bounds is None or self._rows_before_passing_over > 0:
            return 0
        last = min(end, first + self._reach)
        passed = pass_over(self._monitor, self._timeline, columns, first, last)
        self._tally.rows += passed
        if passed == 0:
            self._rows_before_passing_over = _ROWS_BETWEEN_TRIALS
        self._reach = self._reach * 4 if passed == last - first else _SHORTEST_REACH
        return passed


def event(transition: Transition) -> Event:
    """The line for what people are told."""
    finding = transition.finding
    return Event(
        time=iso_utc(finding.at_utc_ms),
        kind=finding.kind.value,
        phase=transition.phase.value,
        priority=transition.priority.value,
        expected_ml=_millilitres(finding.expected_ml),
        delivered_ml=_millilitres(finding.delivered_ml),
        message=finding.message,
        code=finding.code,
        since=_time(finding.since_utc_ms),
    )


def state_line(instant: Instant, status: DeliveryStatus) -> StateLine:
    """The line for how delivery stands."""
    occurrence = status.occurrence
    return StateLine(
        time=iso_utc(instant.utc_ms),
        verdict=status.verdict.value,
        decidable_after_s=status.decidable_after_s,
        expected_ml=_millilitres(status.expected_ml),
        delivered_ml=_millilitres(status.delivered_ml),
        occurrence=None if occurrence is None else OccurrenceLine(occurrence[0], iso_utc(occurrence[1])),
        rate_ml_h=status.rate_ml_h,
        ends_at=_time(status.ends_at_utc_ms),
        bag_empty_at=_time(status.bag_empty_at_utc_ms),
        occlusion_blind_s=status.occlusion_blind_s,
    )


def iso_utc(utc_ms: int) -> str:
    """ISO 8601, UTC, milliseconds."""
    time = _EPOCH + timedelta(milliseconds=utc_ms)
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _time(utc_ms: int | None) -> str | None:
    return None if utc_ms is None else iso_utc(utc_ms)


def _millilitres(volume_ml: float | None) -> float | None:
    return None if volume_ml is None else round(volume_ml, 3)


def main(argv: list[str] | None = None) -> int:
    """The command; the exit status."""
    arguments = _arguments(argv)
    if arguments.prescription == "-" and arguments.readings == "-":
        return _unreadable("only one of the two can come from standard input")
    tally = Tally()
    encode = msgspec.json.Encoder().encode
    output = sys.stdout.buffer
    try:
        prescription = parse_order(_prescription_text(arguments.prescription))
        with _opened(arguments.readings) as file:
            blocks = with_progress("replay", read_blocks(file), file)
            told = (
                replay(prescription, rows_of(blocks), tally, states=True)
                if arguments.states
                else replay_blocks(prescription, blocks, tally)
            )
            for line in told:
                output.write(encode(line) + b"\n")
        output.flush()
    except OrderError as error:
        return _unreadable(f"{arguments.prescription}: {error}")
    except HeaderError as error:
        return _unreadable(f"{arguments.readings}: {error}")
    except OSError as error:
        if error.filename is None:
            return _unreadable(f"output: {error.strerror}")
        return _unreadable(
            f"{error.filename}: cannot be read: {error.strerror}; look at its name and its permissions"
        )
    except UnicodeDecodeError as error:
        return _unreadable(f"{arguments.prescription}: not UTF-8 text: {error}")
    if tally.rows and tally.bad == tally.rows:
        return _unreadable(
            f"{arguments.readings}: not one row could be read; "
            f"mend what is said of the first: {tally.in_words()}"
        )
    sys.stderr.write(f"replay: {tally.in_words()}\n")
    return 0


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="dripwatch replay", description="Recorded readings to events.")
    parser.add_argument(
        "prescription", metavar="PRESCRIPTION", help="prescription.toml, or - for standard input"
    )
    parser.add_argument("readings", metavar="READINGS", help="readings.csv, or - for standard input")
    parser.add_argument("--states", action="store_true", help="also print the state after each minute")
    return parser.parse_args(argv)


def _prescription_text(name: str) -> str:
    if name == "-":
        return sys.stdin.buffer.read(LONGEST_TEXT_BYTES + 1).decode()
    with Path(name).open("rb") as file:
        return file.read(LONGEST_TEXT_BYTES + 1).decode()


@contextmanager
def _opened(name: str) -> Iterator[BinaryIO]:
    if name == "-":
        yield sys.stdin.buffer
        return
    with Path(name).open("rb") as file:
        yield file


def _unreadable(words: str) -> int:
    sys.stderr.write(f"replay: {words}\n")
    return UNREADABLE


if __name__ == "__main__":
    sys.exit(main())
