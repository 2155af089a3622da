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
from typing import TextIO

import msgspec
from msgspec import Struct

from alerts.inhibition import Inhibition, Phase, Transition
from gateway.core.monitor import DeliveryStatus, Monitor
from gateway.core.order import LONGEST_TEXT_BYTES, OrderError, parse_order
from gateway.core.prescription import Prescription
from gateway.core.timeline import Instant, Timeline
from gateway.readings import BadRow, HeaderError, Row, lines_of, read_rows

UNREADABLE = 2
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_STATE_EVERY_MS = 60_000
_PROGRESS_EVERY_ROWS = 50_000


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
    timeline = Timeline()
    monitor = Monitor("pump", prescription)
    inhibition = Inhibition(prescription.urgency)
    told_minute: int | None = None
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
        findings = monitor.step(instant, row.reading)
        if findings:
            for transition in inhibition.apply(findings):
                if transition.phase is not Phase.WORSE:
                    yield event(transition)
        minute = instant.utc_ms // _STATE_EVERY_MS
        if states and minute != told_minute:
            told_minute = minute
            yield state_line(instant, monitor.status(instant))


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
        with _opened(arguments.readings) as readings:
            rows = _with_progress(read_rows(lines_of(readings)), tally)
            for line in replay(prescription, rows, tally, states=arguments.states):
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
        return _unreadable(f"not UTF-8 text: {error}")
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
def _opened(name: str) -> Iterator[TextIO]:
    """The readings as text; bytes that are no UTF-8 spoil their row only."""
    if name == "-":
        sys.stdin.reconfigure(encoding="utf-8", errors="replace", newline="")  # type: ignore[union-attr]
        yield sys.stdin
        return
    with Path(name).open(encoding="utf-8", errors="replace", newline="") as file:
        yield file


def _with_progress(rows: Iterable[Row | BadRow], tally: Tally) -> Iterator[Row | BadRow]:
    """The same rows; on a terminal a count for the person who waits."""
    if not sys.stderr.isatty():
        yield from rows
        return
    for row in rows:
        if tally.rows and tally.rows % _PROGRESS_EVERY_ROWS == 0:
            sys.stderr.write(f"\rreplay: {tally.rows} rows")
            sys.stderr.flush()
        yield row
    sys.stderr.write("\r")


def _unreadable(words: str) -> int:
    sys.stderr.write(f"replay: {words}\n")
    return UNREADABLE


if __name__ == "__main__":
    sys.exit(main())
