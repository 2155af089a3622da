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
from datetime import UTC, datetime, timedelta

import msgspec
from msgspec import Struct

from alerts.inhibition import Inhibition, Phase, Transition
from gateway.core.monitor import DeliveryStatus, Monitor
from gateway.core.prescription import Prescription
from gateway.core.timeline import Instant
from gateway.readings import BadRow, Row
from gateway.recording import UNREADABLE, Tally, UnreadableError, in_order_of_time, recording

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_STATE_EVERY_MS = 60_000


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


def replay(
    prescription: Prescription, rows: Iterable[Row | BadRow], tally: Tally, *, states: bool = False
) -> Iterator[Event | StateLine]:
    """What the monitor would have told of these rows, one after another. Never looks ahead."""
    monitor = Monitor("pump", prescription)
    inhibition = Inhibition(prescription.urgency)
    told_minute: int | None = None
    for instant, reading in in_order_of_time(rows, tally):
        findings = monitor.step(instant, reading)
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
    )


def iso_utc(utc_ms: int) -> str:
    """ISO 8601, UTC, milliseconds."""
    time = _EPOCH + timedelta(milliseconds=utc_ms)
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _millilitres(volume_ml: float | None) -> float | None:
    return None if volume_ml is None else round(volume_ml, 3)


def main(argv: list[str] | None = None) -> int:
    """The command; the exit status."""
    arguments = _arguments(argv)
    tally = Tally()
    encode = msgspec.json.Encoder().encode
    output = sys.stdout.buffer
    try:
        with recording("replay", arguments.prescription, arguments.readings, tally) as (prescription, rows):
            for line in replay(prescription, rows, tally, states=arguments.states):
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
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
