"""``dripwatch replay``: recorded readings to events, with the monitor and the inhibition of live operation.

Usage: ``dripwatch replay PRESCRIPTION READINGS [--states] [--revision TIME FILE]...``; ``-`` is standard
input. With ``--revision`` the prescription in FILE is a new version that comes at TIME (prescription page,
section 1.1, rule 8): it takes force then, or with ``--on-programming`` when the pump is set to it. Events go
to standard output, one JSON object a line in order of time (prescription page, section 3; tools page for
``--states``); all else goes to standard error. Exit status 0 if the input could be read, whatever was found;
2 if it could not.
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
from msgspec import Struct, structs

from alerts.condition import Finding, Urgency
from alerts.inhibition import Inhibition, Phase, Transition
from gateway.core.monitor import DeliveryStatus, Monitor
from gateway.core.order import LONGEST_TEXT_BYTES, OrderError, parse_order
from gateway.core.prescription import Prescription
from gateway.core.timeline import GapKind, Instant, Timeline
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
    pump_error_percent: float | None
    pump_error_half_width_percent: float | None


class Revision(Struct, frozen=True, kw_only=True):
    """A new version of the order, and when it comes."""

    at_utc_ms: int
    text: str
    """prescription.toml."""
    on_programming: bool = False
    effective_by_utc_ms: int | None = None


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


def replay(
    prescription: Prescription,
    rows: Iterable[Row | BadRow],
    tally: Tally,
    *,
    states: bool = False,
    revisions: Iterable[Revision] = (),
) -> Iterator[Event | StateLine]:
    """What the monitor would have told of these rows, one after another. Never looks ahead.

    Raises OrderError if a revision is no prescription.
    """
    timeline = Timeline()
    monitor = Monitor("pump", prescription)
    inhibition = Inhibition(prescription.urgency)
    to_come = sorted(revisions, key=lambda revision: revision.at_utc_ms)
    told_minute: int | None = None
    last: Instant | None = None
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
        while to_come and to_come[0].at_utc_ms <= instant.utc_ms:
            revision = to_come.pop(0)
            last = _instant_of(revision.at_utc_ms, instant, last)
            findings = (*monitor.step(last, None), *_revise(monitor, revision, last))
            inhibition = Inhibition(_urgency(monitor), inhibition.state)
            yield from _told(inhibition, findings)
        last = instant
        before = monitor.prescription
        findings = monitor.step(instant, row.reading)
        if monitor.prescription is not before:
            inhibition = Inhibition(_urgency(monitor), inhibition.state)
        if findings:
            yield from _told(inhibition, findings)
        minute = instant.utc_ms // _STATE_EVERY_MS
        if states and minute != told_minute:
            told_minute = minute
            yield state_line(instant, monitor.status(instant))
    tally.revisions_not_reached = len(to_come)


def _instant_of(utc_ms: int, following: Instant, last: Instant | None) -> Instant:
    """The instant before a reading at which the wall clock showed this: not before the last one.

    After a gap of unknown length, or with a clock that was set, it is that of the reading before.
    """
    before_ms = max(0, following.utc_ms - utc_ms)
    if last is None or following.gap is not GapKind.NONE or following.stepped_ms:
        return structs.replace(last or following, gap=GapKind.NONE, stepped_ms=0)
    before_ms = min(before_ms, following.t_ms - last.t_ms)
    schedule_utc_ms = following.schedule_utc_ms
    return structs.replace(
        following,
        t_ms=following.t_ms - before_ms,
        utc_ms=following.utc_ms - before_ms,
        schedule_utc_ms=None if schedule_utc_ms is None else schedule_utc_ms - before_ms,
    )


def _revise(monitor: Monitor, revision: Revision, instant: Instant) -> tuple[Finding, ...]:
    return monitor.revise(
        revision.text,
        instant,
        on_programming=revision.on_programming,
        effective_by_utc_ms=revision.effective_by_utc_ms,
    )


def _urgency(monitor: Monitor) -> Urgency:
    assert monitor.prescription is not None, "a replay has an order"
    return monitor.prescription.urgency


def _told(inhibition: Inhibition, findings: Iterable[Finding]) -> Iterator[Event]:
    for transition in inhibition.apply(findings):
        if transition.phase is not Phase.WORSE:
            yield event(transition)


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
        since=None if finding.since_utc_ms is None else iso_utc(finding.since_utc_ms),
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
        pump_error_percent=_hundredths(status.pump_error_percent),
        pump_error_half_width_percent=_hundredths(status.pump_error_half_width_percent),
    )


def iso_utc(utc_ms: int) -> str:
    """ISO 8601, UTC, milliseconds."""
    time = _EPOCH + timedelta(milliseconds=utc_ms)
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _millilitres(volume_ml: float | None) -> float | None:
    return None if volume_ml is None else round(volume_ml, 3)


def _hundredths(percent: float | None) -> float | None:
    return None if percent is None else round(percent, 2)


def main(argv: list[str] | None = None) -> int:
    """The command; the exit status."""
    arguments = _arguments(argv)
    files = [arguments.prescription, arguments.readings, *(file for _, file in arguments.revision)]
    if files.count("-") > 1:
        return _unreadable(
            "only one of the two can come from standard input"
            if len(files) == 2
            else "only one of the files can come from standard input"
        )
    tally = Tally()
    encode = msgspec.json.Encoder().encode
    output = sys.stdout.buffer
    try:
        _, prescription = _order(arguments.prescription)
        revisions = [_revision(arguments, at_utc_ms, file) for at_utc_ms, file in arguments.revision]
        with _opened(arguments.readings) as readings:
            rows = _with_progress(read_rows(lines_of(readings)), tally)
            for line in replay(prescription, rows, tally, states=arguments.states, revisions=revisions):
                output.write(encode(line) + b"\n")
        output.flush()
    except _UnusableOrder as error:
        return _unreadable(str(error))
    except HeaderError as error:
        return _unreadable(f"{arguments.readings}: {error}")
    except OSError as error:
        if error.filename is None:
            return _unreadable(f"output: {error.strerror}")
        return _unreadable(
            f"{error.filename}: cannot be read: {error.strerror}; look at its name and its permissions"
        )
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
    parser.add_argument(
        "--revision",
        nargs=2,
        action="append",
        default=[],
        metavar=("TIME", "FILE"),
        help="at this time (as 2026-05-04T14:00:00+02:00) the prescription in FILE comes as a new version of"
        " the order; may be given more than once",
    )
    parser.add_argument(
        "--on-programming",
        action="store_true",
        help="a revision takes force when the pump is set to it, and until then the order before holds",
    )
    parser.add_argument(
        "--effective-by",
        metavar="TIME",
        help="with --on-programming: tell if the pump has not been set to the revision by then",
    )
    arguments = parser.parse_args(argv)
    if arguments.on_programming and not arguments.revision:
        parser.error("--on-programming says how a revision takes force: give --revision TIME FILE too")
    if arguments.effective_by is not None and not arguments.on_programming:
        parser.error("--effective-by is for a revision that waits: give --on-programming too")
    try:
        arguments.revision = [(_utc_ms(time), file) for time, file in arguments.revision]
        if arguments.effective_by is not None:
            arguments.effective_by = _utc_ms(arguments.effective_by)
    except ValueError as error:
        parser.error(str(error))
    return arguments


def _utc_ms(text: str) -> int:
    """Raises ValueError if it is not a time that means the same everywhere."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        time = None
    if time is None or time.tzinfo is None:
        raise ValueError(f"{text}: not a date and time with its offset, such as 2026-05-04T14:00:00+02:00")
    return (time - _EPOCH) // timedelta(milliseconds=1)


class _UnusableOrder(Exception):
    """Its words name the file, and all that is wrong in it."""


def _order(name: str) -> tuple[str, Prescription]:
    """Raises _UnusableOrder, and OSError if the file cannot be read."""
    try:
        text = _prescription_text(name)
        return text, parse_order(text)
    except OrderError as error:
        raise _UnusableOrder(f"{name}: {error}") from error
    except UnicodeDecodeError as error:
        raise _UnusableOrder(f"{name}: not UTF-8 text: {error}") from error


def _revision(arguments: argparse.Namespace, at_utc_ms: int, file: str) -> Revision:
    text, _ = _order(file)
    return Revision(
        at_utc_ms=at_utc_ms,
        text=text,
        on_programming=arguments.on_programming,
        effective_by_utc_ms=arguments.effective_by,
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
