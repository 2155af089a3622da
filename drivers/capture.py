"""The capture format: the bytes of a serial line with their times, as text that a person can read and write.

::

    family: alaris
    pump: Alaris GH, 8002-51740
    firmware: 2.1.5
    date: 2026-05-04
    by: a clinical engineer
    done: set to 10 mL/h, then the line was closed
    display: 10.0 ml/h, then OCCLUSION

    0 up
    12 tx 21494e467c343936310d
    48 rx 21494e465e
    9000 note the line was closed here
    60000 down

A head of ``key: value`` lines, an empty line, then one line an entry: milliseconds since the recording began,
kind, data. ``rx`` came from the pump and ``tx`` went to it (hexadecimal); ``up`` and ``down`` tell when the
port was opened and lost; ``note`` are the words of a person who was there. Source: tools page, "Capture".
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import StrEnum

from msgspec import Struct

LINE_LIMIT = 16_384
"""Characters in one line of a capture: 8 KiB of bytes, more than a port hands over at once."""

_HEX = re.compile(r"([0-9A-Fa-f]{2})+")


class CaptureError(ValueError):
    """A text that is no capture; the message names the line and says what is expected there."""


class EntryKind(StrEnum):
    """What one line of a capture tells."""

    RX = "rx"
    TX = "tx"
    UP = "up"
    DOWN = "down"
    NOTE = "note"


class Entry(Struct, frozen=True, kw_only=True):
    """One thing that happened on the line. ``data`` belongs to rx and tx, ``words`` to note."""

    at_ms: int
    kind: EntryKind
    data: bytes = b""
    words: str = ""


class Capture(Struct, frozen=True, kw_only=True):
    """A recording: who recorded what, and the entries in order of time."""

    head: tuple[tuple[str, str], ...]
    entries: tuple[Entry, ...]


def parse_capture(text: str) -> Capture:
    """Read a whole capture. Raises CaptureError, which names the line."""
    head: list[tuple[str, str]] = []
    entries: list[Entry] = []
    in_head = True
    for number, line in enumerate(text.splitlines(), start=1):
        if len(line) > LINE_LIMIT:
            raise CaptureError(
                f"line {number}: longer than {LINE_LIMIT} characters; divide it into several entries"
            )
        if in_head:
            if not line.strip():
                in_head = False
                continue
            head.append(_head_line(number, line))
        elif line.strip():
            entry = _entry(number, line)
            if entries and entry.at_ms < entries[-1].at_ms:
                raise CaptureError(
                    f"line {number}: {entry.at_ms} ms stands after {entries[-1].at_ms}: put them in order"
                )
            entries.append(entry)
    if in_head:
        raise CaptureError("an empty line after the head is missing; the entries follow it")
    return Capture(head=tuple(head), entries=tuple(entries))


def _head_line(number: int, line: str) -> tuple[str, str]:
    key, colon, value = line.partition(":")
    if not colon or not key.strip():
        raise CaptureError(f"line {number}: {line[:40]!r} is not `key: value`; an empty line ends the head")
    return key.strip(), value.strip()


def _entry(number: int, line: str) -> Entry:
    time, _, rest = line.strip().partition(" ")
    kind_text, _, words = rest.strip().partition(" ")
    words = words.strip()
    if not (time.isascii() and time.isdigit() and len(time) <= 15):
        raise CaptureError(
            f"line {number}: {time[:20]!r} is no time; an entry begins with whole milliseconds"
        )
    at_ms = int(time)
    try:
        kind = EntryKind(kind_text)
    except ValueError:
        known = ", ".join(EntryKind)
        raise CaptureError(
            f"line {number}: the kind {kind_text[:20]!r} is not known; known are {known}"
        ) from None
    if kind is EntryKind.NOTE:
        return Entry(at_ms=at_ms, kind=kind, words=words)
    if kind in (EntryKind.UP, EntryKind.DOWN):
        if words:
            raise CaptureError(
                f"line {number}: nothing follows `{kind}`; words are written as a note of their own"
            )
        return Entry(at_ms=at_ms, kind=kind)
    if _HEX.fullmatch(words) is None:
        raise CaptureError(
            f"line {number}: {words[:20]!r} are no bytes; write two hexadecimal digits for each"
        )
    return Entry(at_ms=at_ms, kind=kind, data=bytes.fromhex(words))


def write_head(head: Iterable[tuple[str, str]]) -> str:
    """The head of a capture, with the empty line that ends it."""
    return "".join(f"{_one_line(key)}: {_one_line(value)}\n" for key, value in head) + "\n"


def write_entry(entry: Entry) -> str:
    """One entry as a line."""
    said = entry.data.hex() if entry.kind in (EntryKind.RX, EntryKind.TX) else _one_line(entry.words)
    return f"{entry.at_ms} {entry.kind} {said}".rstrip() + "\n"


def write_capture(capture: Capture) -> str:
    """The whole text; ``parse_capture`` reads the same capture from it."""
    return write_head(capture.head) + "".join(write_entry(entry) for entry in capture.entries)


def _one_line(words: str) -> str:
    return " ".join(words.split())
