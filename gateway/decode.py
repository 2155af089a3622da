"""``dripwatch decode``: what a pump said in a capture, as ``readings.csv`` on standard output.

Usage: ``dripwatch decode FAMILY FILE``; ``-`` is standard input. The family's session hears the recording
again, at its times. One capture gives one text, whenever and wherever it is decoded. What could not be read
is counted on standard error. Exit status 0, or 2 if the file is no capture, or cannot be of that family.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from msgspec import Struct, field

from drivers import families
from drivers.capture import Capture, CaptureError, EntryKind, parse_capture
from drivers.family import PumpOnLine
from drivers.reading import LinkFault, Reading
from gateway.core.quantity import duration_ms
from gateway.core.timeline import Moment
from gateway.dialogue import Matched, heard_again, pumps_that_can_be
from gateway.readings import header_line, reading_line

UNREADABLE = 2
LARGEST_BYTES = 64 * 2**20
USUAL_POLL = "5s"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class UndecodableError(Exception):
    """The input is no capture, or not of that family: a sentence that says what to do."""


class Decoded(Struct, kw_only=True):
    """What a capture says."""

    lines: list[str] = field(default_factory=list)
    """readings.csv."""
    readings: Counter[str] = field(default_factory=Counter)
    """How many, by pump."""
    faults: Counter[str] = field(default_factory=Counter)
    """How many, by kind."""
    fault_bytes: int = 0
    first_fault: LinkFault | None = None
    alarms_not_said: int = 0
    """Readings that do not say whether an alarm is active; readings.csv has no word for that."""
    matched: Matched = field(default_factory=Matched)
    remarks: list[str] = field(default_factory=list)

    def in_words(self) -> list[str]:
        """Lines for people."""
        words = [*self.remarks]
        count = sum(self.faults.values())
        if self.first_fault is not None:
            kinds = ", ".join(f"{number} {kind}" for kind, number in sorted(self.faults.items()))
            first = self.first_fault
            words.append(
                f"{_counted(count, 'fault')} ({kinds}), {self.fault_bytes} bytes; the first at"
                f" {first.at_ms / 1000:.3f} s{': ' if first.detail else ''}{first.detail}"
            )
        if self.matched.others:
            words.append(
                f"{self.matched.others} of {self.matched.others + self.matched.the_same} queries are not"
                " those that this driver asks then: answers to them may count as faults (was it recorded with"
                " another --poll or --address, or by another program?)"
            )
        if self.alarms_not_said:
            words.append(
                f"{self.alarms_not_said} readings do not say whether an alarm is active; their empty cell"
                " would mean that none is"
            )
        words.append(f"{_counted(sum(self.readings.values()), 'reading')}, {_counted(count, 'fault')}")
        return words


def decode(
    family_name: str, capture: Capture, *, address: int | None = None, poll: str | None = None
) -> Decoded:
    """A capture as readings of one pump. Raises UndecodableError."""
    decoded = Decoded()
    head = dict(capture.head)
    said_family = head.get("family", family_name)
    if said_family != family_name:
        decoded.remarks.append(f"the head of the capture says family {said_family}, not {family_name}")
    begin_utc_ms, synced = _beginning(head, decoded)
    family = families.find(family_name)
    try:
        poll_ms = duration_ms(poll or head.get("poll") or USUAL_POLL)
        on_line = _addresses(head, address)
        pumps = pumps_that_can_be(family, on_line, poll_ms)
    except ValueError as error:
        raise UndecodableError(str(error)) from error
    chosen = _chosen(pumps, address, decoded)
    decoded.lines.append(header_line())
    for fact in heard_again(family.open_session(pumps), capture.entries, decoded.matched):
        if isinstance(fact, LinkFault):
            decoded.faults[fact.kind.value] += 1
            decoded.fault_bytes += fact.byte_count
            decoded.first_fault = decoded.first_fault or fact
        elif fact.pump == chosen.pump:
            decoded.readings[fact.pump] += 1
            decoded.alarms_not_said += _says_nothing_of_alarms(fact)
            moment = Moment(monotonic_ms=fact.at_ms, utc_ms=begin_utc_ms + fact.at_ms, synced=synced)
            decoded.lines.append(reading_line(moment, fact))
    if not any(entry.kind is EntryKind.RX for entry in capture.entries):
        decoded.remarks.append("nothing was received in this capture")
    return decoded


def _says_nothing_of_alarms(reading: Reading) -> bool:
    return reading.alarms is None and reading.state != "unknown"


def _beginning(head: dict[str, str], decoded: Decoded) -> tuple[int, bool]:
    """The wall clock at 0 ms, and whether it can be trusted."""
    date = head.get("date", "")
    try:
        began = datetime.fromisoformat(date)
    except ValueError:
        decoded.remarks.append(
            f"the head has no date that can be read ({date[:40]!r}): times count from 1970, unsynced"
        )
        return 0, False
    if began.tzinfo is None:
        decoded.remarks.append(f"the date {date} has no time with its offset: it is taken as UTC")
        began = began.replace(tzinfo=UTC)
    return (began - _EPOCH) // timedelta(milliseconds=1), head.get("clock") != "unsynced"


def _addresses(head: dict[str, str], address: int | None) -> tuple[int | None, ...]:
    """Which pumps were on the line: as the head says, else the one that is asked for. Raises ValueError."""
    words = head.get("address", "")
    if not words:
        return (address,)
    try:
        return tuple(int(word) for word in words.split(","))
    except ValueError:
        raise ValueError(f"the head's address {words[:40]!r} is no list of numbers, as 0, 1, 2") from None


def _chosen(pumps: Sequence[PumpOnLine], address: int | None, decoded: Decoded) -> PumpOnLine:
    addresses = ", ".join(str(pump.address) for pump in pumps)
    if address is None:
        if len(pumps) > 1:
            decoded.remarks.append(
                f"this line has pumps at the addresses {addresses}; these are the readings of"
                f" {pumps[0].address}. For another give --address"
            )
        return pumps[0]
    for pump in pumps:
        if pump.address == address:
            return pump
    raise UndecodableError(f"no pump at address {address} was asked in this capture: there were {addresses}")


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def main(argv: Sequence[str]) -> int:
    """The command; the exit status."""
    arguments = _parser().parse_args(argv)
    try:
        families.find(arguments.family)
        capture = parse_capture(_text_of(arguments.file))
        decoded = decode(arguments.family, capture, address=arguments.address, poll=arguments.poll)
    except CaptureError as error:
        return _refused([f"{arguments.file}: {error}"])
    except (UndecodableError, ValueError) as error:
        return _refused([str(error)])
    except OSError as error:
        return _refused([f"{arguments.file}: cannot be read: {error.strerror or error}; look at its name"])
    sys.stdout.write("".join(decoded.lines))
    sys.stdout.flush()
    _tell(decoded.in_words())
    return 0


def _refused(words: Iterable[str]) -> int:
    _tell(words)
    return UNREADABLE


def _tell(words: Iterable[str]) -> None:
    sys.stderr.write("".join(f"decode: {one}\n" for one in words))


def _text_of(name: str) -> str:
    """Raises OSError, UndecodableError."""
    if name == "-":
        content = sys.stdin.buffer.read(LARGEST_BYTES + 1)
    else:
        with Path(name).open("rb") as file:
            content = file.read(LARGEST_BYTES + 1)
    if len(content) > LARGEST_BYTES:
        raise UndecodableError(f"{name}: is larger than {LARGEST_BYTES // 2**20} MiB: divide it")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UndecodableError(f"{name}: is not UTF-8 text (byte {error.start}): is it a capture?") from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dripwatch decode",
        description="A capture to readings.csv on standard output. With captures of this program the readings"
        " are those that the gateway had.",
    )
    parser.add_argument("family", metavar="FAMILY", help=", ".join(families.known()))
    parser.add_argument("file", metavar="FILE", help="a capture, or - for standard input")
    parser.add_argument("--address", type=int, metavar="N", help="which pump, where several share the line")
    parser.add_argument(
        "--poll", metavar="TIME", help="how often was asked, if the head does not say so (default 5s)"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
