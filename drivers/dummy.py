"""Scripted readings: a family like any other, for training and for testing everything above the wire.

The port of a dummy pump is ``script:FILE``. A script is text, one reading a line: when it is said, in seconds
since the port was opened, and what, in the names of readings.csv::

    # seconds  what the pump says
    0          state=idle rate_ml_h=0 volume_ml=0 alarms=
    5          state=running rate_ml_h=125 volume_ml=0.0 alarms=
    10.5       state=paused rate_ml_h=125 volume_ml=0.19 alarms=occlusion_downstream;low_battery

What is not named was not reported; ``alarms=`` says that none is active. An empty line, and what follows
``#``, is for people. The link plays each line's text at its time, and the session reads it back from the
bytes: so a scripted pump has a port, a silence and a broken cable as every other. After its last line a
script is silent.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec
from msgspec import Struct

from drivers.family import LineSettings, PumpOnLine
from drivers.framing import CutKind, LineStream
from drivers.reading import (
    DriverStatus,
    Evidence,
    Fact,
    FaultKind,
    LinkFault,
    PumpAlarm,
    PumpState,
    PumpTraits,
    Reading,
)

LINE_LIMIT_BYTES = 512
REPORTS = tuple(name for name in Reading.__struct_fields__ if name not in ("pump", "at_ms"))
"""What a line of a script can say."""

_SECONDS = re.compile(r"[0-9]{1,9}(\.[0-9]{1,3})?")
_NUMBER = re.compile(r"[0-9]{1,9}(\.[0-9]{1,6})?")
_ALARM = re.compile("|".join(PumpAlarm) + "|vendor:[A-Za-z0-9_-]{1,40}")
_WORDS = ("state", "alarms", "serial", "on_mains")


class ScriptError(ValueError):
    """A text that is no script; the message names the line and says what is expected there."""


class ScriptLine(Struct, frozen=True, kw_only=True):
    """What is said when, in milliseconds since the port was opened."""

    at_ms: int
    data: bytes


def parse_script(text: str) -> tuple[ScriptLine, ...]:
    """Read a whole script. Raises ScriptError, which names the line."""
    lines: list[ScriptLine] = []
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        if _SECONDS.fullmatch(words[0]) is None:
            raise ScriptError(
                f"line {number}: {words[0][:20]!r} is no time; a line begins with seconds, as 12.5"
            )
        at_ms = round(float(words[0]) * 1_000)
        if lines and at_ms < lines[-1].at_ms:
            raise ScriptError(
                f"line {number}: {words[0]} s is earlier than the line before; lines stand in order"
            )
        said = " ".join(words[1:])
        try:
            decode_line(said, pump="p", at_ms=0)
            data = said.encode("ascii") + b"\n"
        except ValueError as problem:
            raise ScriptError(f"line {number}: {problem}") from None
        if len(data) > LINE_LIMIT_BYTES:
            raise ScriptError(f"line {number}: longer than {LINE_LIMIT_BYTES} characters")
        lines.append(ScriptLine(at_ms=at_ms, data=data))
    return tuple(lines)


def decode_line(text: str, *, pump: str, at_ms: int) -> Reading:
    """One line's words as a reading. Raises ValueError, with a sentence, for what cannot be said."""
    said: dict[str, object] = {"pump": pump, "at_ms": at_ms}
    for word in text.split():
        name, equals, value = word.partition("=")
        if not equals or name not in REPORTS:
            raise ValueError(f"{word[:40]!r} is not one of {', '.join(f'{known}=' for known in REPORTS)}")
        if name in said:
            raise ValueError(f"{name} is said twice")
        said[name] = _value(name, value)
    try:
        return msgspec.convert(said, Reading)
    except msgspec.ValidationError as problem:
        raise ValueError(str(problem)) from None


def _value(name: str, value: str) -> object:
    if name == "alarms":
        alarms = tuple(value.split(";")) if value else ()
        for alarm in alarms:
            if _ALARM.fullmatch(alarm) is None:
                raise ValueError(
                    f"{alarm[:40]!r} is no alarm; known are {', '.join(PumpAlarm)} and vendor:TEXT"
                )
        return alarms
    if name == "state" and value not in tuple(PumpState):
        raise ValueError(f"{value[:40]!r} is no state; known are {', '.join(PumpState)}")
    if name == "on_mains":
        if value not in ("true", "false"):
            raise ValueError(f"on_mains is true or false, not {value[:40]!r}")
        return value == "true"
    if name in _WORDS:
        return value
    if _NUMBER.fullmatch(value) is None:
        raise ValueError(f"{name} is a number from 0 on, not {value[:40]!r}")
    return float(value)


class DummySession:
    """Reads what a script says; asks nothing."""

    def __init__(self, pump: PumpOnLine) -> None:
        self._pump = pump
        self.opened(now_ms=0)

    def opened(self, now_ms: int) -> None:
        """The port has (again) been opened: forget every half-heard word."""
        self._stream = LineStream(limit_bytes=LINE_LIMIT_BYTES)
        self._now_ms = now_ms

    def receive(self, data: bytes, now_ms: int) -> Sequence[Fact]:
        """One reading for each line that is whole."""
        self._now_ms = now_ms
        facts: list[Fact] = []
        for cut in self._stream.feed(data):
            if cut.kind is CutKind.BROKEN:
                facts.append(self._fault(FaultKind.GARBLED, cut.data, cut.why))
                continue
            try:
                text = cut.data.decode("ascii")
                facts.append(decode_line(text, pump=self._pump.pump, at_ms=now_ms))
            except UnicodeDecodeError:
                facts.append(self._fault(FaultKind.GARBLED, cut.data, "not ASCII"))
            except ValueError as problem:
                facts.append(self._fault(FaultKind.UNSUPPORTED, cut.data, str(problem)))
        return facts

    def due(self, now_ms: int) -> bytes:
        """Nothing is ever asked."""
        self._now_ms = now_ms
        return b""

    def next_due_ms(self) -> int:
        """There is nothing to do before a line arrives."""
        return self._now_ms + self._pump.poll_ms

    def _fault(self, kind: FaultKind, data: bytes, detail: str) -> LinkFault:
        return LinkFault.of(self._now_ms, kind, data, detail)


class DummyFamily:
    """Readings from a script instead of a pump."""

    traits = PumpTraits(
        family="dummy",
        title="Scripted readings, no pump",
        reports=REPORTS,
        states=tuple(PumpState),
        alarms=(*(alarm.value for alarm in PumpAlarm), "vendor:"),
        counter_ml=None,
        pressure_unit="mmHg",
        evidence=Evidence.OWN,
        status=DriverStatus.EXPERIMENTAL,
        notes=("No pump: it says what somebody wrote into a file, and is never of origin `real`.",),
    )
    line = LineSettings(baud=9_600)

    def may_send(self, data: bytes) -> bool:
        """Nothing is ever sent."""
        return False

    def open_session(self, pumps: Sequence[PumpOnLine]) -> DummySession:
        """The one pump that a script speaks for. Raises ValueError for any other number."""
        if len(pumps) != 1:
            raise ValueError(f"a script speaks for one pump; {len(pumps)} are set on this port")
        if pumps[0].address is not None:
            raise ValueError(f"pump {pumps[0].pump}: dummy pumps have no address; remove `address`")
        return DummySession(pumps[0])
