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
from datetime import UTC, datetime, timedelta

import msgspec
from msgspec import Struct, structs

from alerts.condition import Finding, Urgency
from alerts.inhibition import Inhibition, Phase, Transition
from gateway.blocks import Block, RowsByThemselves, rows_of
from gateway.core.monitor import DeliveryStatus, Monitor
from gateway.core.prescription import Prescription
from gateway.core.stretch import Columns, pass_over
from gateway.core.timeline import GapKind, Instant, Timeline
from gateway.readings import BadRow, Row
from gateway.recording import UNREADABLE, Tally, UnreadableError, in_order_of_time, order_from, recording

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
    pump_error_percent: float | None
    pump_error_half_width_percent: float | None
    ends_at: str | None
    bag_empty_at: str | None
    occlusion_blind_s: int | None


class Revision(Struct, frozen=True, kw_only=True):
    """A new version of the order, and when it comes."""

    at_utc_ms: int
    text: str
    """prescription.toml."""
    on_programming: bool = False
    effective_by_utc_ms: int | None = None


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
    player = _Player(prescription, tally, states=states, revisions=revisions)
    for row in rows:
        yield from player.take(row)
    player.end()


def replay_blocks(
    prescription: Prescription,
    blocks: Iterable[Block | RowsByThemselves],
    tally: Tally,
    *,
    revisions: Iterable[Revision] = (),
) -> Iterator[Event | StateLine]:
    """The same of the rows in blocks: those that bring no news are passed over together."""
    player = _Player(prescription, tally, states=False, revisions=revisions)
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
    player.end()


class _Player:
    """The monitor and the inhibition of live operation, and what they have told."""

    def __init__(
        self, prescription: Prescription, tally: Tally, *, states: bool, revisions: Iterable[Revision]
    ) -> None:
        self._tally = tally
        self._states = states
        self._to_come = sorted(revisions, key=lambda revision: revision.at_utc_ms)
        self._timeline = Timeline()
        self._monitor = Monitor("pump", prescription)
        self._inhibition = Inhibition(prescription.urgency)
        self._last: Instant | None = None
        self._told_minute: int | None = None
        self._reach = _SHORTEST_REACH
        self._rows_before_passing_over = 0

    def take(self, row: Row | BadRow) -> Iterator[Event | StateLine]:
        """One row."""
        self._rows_before_passing_over -= 1
        monitor = self._monitor
        for instant, reading in in_order_of_time((row,), self._tally, self._timeline):
            while self._to_come and self._to_come[0].at_utc_ms <= instant.utc_ms:
                yield from self._revise(self._to_come.pop(0), instant)
            self._last = instant
            before = monitor.prescription
            findings = monitor.step(instant, reading)
            if monitor.prescription is not before:
                self._inhibition.urgency = _urgency(monitor)
            if findings:
                yield from self._told(findings)
            minute = instant.utc_ms // _STATE_EVERY_MS
            if self._states and minute != self._told_minute:
                self._told_minute = minute
                yield state_line(instant, monitor.status(instant))

    def pass_over(self, columns: Columns, first: int, end: int) -> int:
        """Rows from ``first`` on that bring no news: how many were taken at once, often none.

        Looks at few rows where the last stretch was short, and at ever more where it was not.
        """
        if self._monitor.bounds is None or self._rows_before_passing_over > 0 or self._to_come:
            return 0
        last = min(end, first + self._reach)
        passed = pass_over(self._monitor, self._timeline, columns, first, last)
        self._tally.rows += passed
        if passed == 0:
            self._rows_before_passing_over = _ROWS_BETWEEN_TRIALS
        self._reach = self._reach * 4 if passed == last - first else _SHORTEST_REACH
        return passed

    def end(self) -> None:
        """There are no more rows."""
        self._tally.revisions_not_reached = len(self._to_come)

    def _revise(self, revision: Revision, following: Instant) -> Iterator[Event]:
        monitor = self._monitor
        self._last = instant = _instant_of(revision.at_utc_ms, following, self._last)
        findings = (
            *monitor.step(instant, None),
            *monitor.revise(
                revision.text,
                instant,
                on_programming=revision.on_programming,
                effective_by_utc_ms=revision.effective_by_utc_ms,
            ),
        )
        self._inhibition.urgency = _urgency(monitor)
        yield from self._told(findings)

    def _told(self, findings: Iterable[Finding]) -> Iterator[Event]:
        for transition in self._inhibition.apply(findings):
            if transition.phase is not Phase.WORSE:
                yield event(transition)


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


def _urgency(monitor: Monitor) -> Urgency:
    assert monitor.prescription is not None, "a replay has an order"
    return monitor.prescription.urgency


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
        pump_error_percent=_hundredths(status.pump_error_percent),
        pump_error_half_width_percent=_hundredths(status.pump_error_half_width_percent),
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


def _hundredths(percent: float | None) -> float | None:
    return None if percent is None else round(percent, 2)


def main(argv: list[str] | None = None) -> int:
    """The command; the exit status."""
    arguments = _arguments(argv)
    tally = Tally()
    encode = msgspec.json.Encoder().encode
    output = sys.stdout.buffer
    try:
        files = [arguments.prescription, arguments.readings, *(file for _, file in arguments.revision)]
        if files.count("-") > 1:
            which = "two" if len(files) == 2 else "files"
            raise UnreadableError(f"only one of the {which} can come from standard input")
        _, prescription = order_from(arguments.prescription)
        revisions = [_revision(arguments, at_utc_ms, file) for at_utc_ms, file in arguments.revision]
        with recording("replay", arguments.readings, tally) as blocks:
            told = (
                replay(prescription, rows_of(blocks), tally, states=True, revisions=revisions)
                if arguments.states
                else replay_blocks(prescription, blocks, tally, revisions=revisions)
            )
            for line in told:
                output.write(encode(line) + b"\n")
            output.flush()
    except UnreadableError as error:
        sys.stderr.write(f"replay: {error}\n")
        return UNREADABLE
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


def _revision(arguments: argparse.Namespace, at_utc_ms: int, file: str) -> Revision:
    text, _ = order_from(file)
    return Revision(
        at_utc_ms=at_utc_ms,
        text=text,
        on_programming=arguments.on_programming,
        effective_by_utc_ms=arguments.effective_by,
    )


if __name__ == "__main__":
    sys.exit(main())
