"""The MIVA's side of its service port, from the protocol facts alone.

A frame::

    STX  payload  CK CK  ETX        CK: sum of the payload modulo 256, two hexadecimal digits

A mnemonic (``R7``) is echoed before its answer, a text (``:INFU:RUN?``) is not. On a bad check, on an unknown
command, and on a text that the facts know no answer to, this pump is silent, for no source knows its error
replies. Texts and checks are understood in lower case too. The clock is the relative one of a MIVA.

What happens to the pump is in its event log only, a ring that holds nothing older than the scenario. It
begins shortly before the end of the ring, so that a run soon goes around it.

What it does *not* do: mnemonics that would change a real pump (``WT02``, ``KE60``, ...) are acknowledged by
their first two characters, as on the wire, and have no effect; a text with an argument
(``:PROTOCOL:RATE 20.0``) has no known answer and none here. Only the sensor stream can be switched on
(``W01``) and off (``W00``): then the pump says S9 unasked.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping

from msgspec import Struct

from simulator.pump import LogEntry, Truth
from simulator.wire.wire import Address, Answer, LineSettings, Pumps, WireFamily

STX, ETX = 0x02, 0x03
LONGEST_FRAME = 256
"""Far above the longest known payload; more without an end is not a frame."""
RING = 43_264
"""Records that the log can hold."""
FIRST_RECORD = 43_250
"""Where this pump's log begins."""
BEGAN_AT_S = 1_000
"""What the pump's clock said when the scenario began."""
STREAM_EVERY_MS = 200
"""How often the sensors are told unasked; the true period is not known."""
ACCESS_CODE = 4_711
"""What is typed at this pump before a setting is changed."""
BATTERY_FULL_V, BATTERY_EMPTY_V = 3.12, 2.40
ERASED = b"\xff" * 16
MOVING = ("running", "bolus", "kvo", "priming")
WRITES = (
    "W0", "W1", "W2", "WA", "WC", "WK", "WM", "WN", "WR", "WT", "WX", "KE",
    "LA", "LB", "LE", "LR", "LW", "LC", "LI", "LS",
)  # fmt: skip
"""Mnemonics that would change a real pump."""

ALARM_RECORDS: dict[str, tuple[int, int] | None] = {
    "occlusion_downstream": (9, 2),
    "occlusion_upstream": (9, 1),
    "empty": (3, 0xFFFF),
    "cassette": (14, 0xFFFF),
    "door_open": (14, 0xFFFF),  # there is no door; the cassette is the nearest
    "malfunction": (18, 0x0040),
    "air_in_line": (18, 0x0040),  # no eye for air: whatever stops the pump is a fault to it
    "battery_empty": (28, 0xFFFF),
    "low_battery": (30, 0xFFFF),
    "near_empty": None,  # no event is known
}
"""For each alarm the type of its record, and bytes 5 and 6."""


def frame(payload: str) -> bytes:
    """The payload as it goes over the wire."""
    data = payload.encode("ascii")
    return bytes([STX]) + data + b"%02X" % (sum(data) & 0xFF) + bytes([ETX])


def record(kind: int, at_s: int, word: int = 0xFFFF, first: bytes = b"", second: bytes = b"") -> bytes:
    """One record of the log: type, time (little-endian, highest digit F), bytes 5 and 6, two values."""
    head = struct.pack("<BI", kind, 0xF000_0000 | (at_s & 0x0FFF_FFFF)) + struct.pack(">H", word)
    return head + first.ljust(4, b"\xff") + second.ljust(4, b"\xff") + b"\xff"


def float_value(number: float) -> bytes:
    """A value of a record."""
    return struct.pack(">f", number)


def programme(at_s: int, rate_ml_h: float, vtbi_ml: float, dose_ml: float, lockout_s: int) -> list[bytes]:
    """The programme as it is written before each start: two raw records between two marks."""
    first = struct.pack(">Ifff", 2, rate_ml_h, vtbi_ml, 1.0)
    second = struct.pack(">fI", dose_ml, lockout_s).ljust(16, b"\xff")
    return [record(0, at_s, 0x01FF), first, second, record(0, at_s, 0x02FF)]


class _Told(Struct):
    """How far the pump's story has been written into the ring."""

    entries: int = 0
    state: str = "idle"
    rate_ml_h: float = 0.0
    alarms: tuple[str, ...] = ()
    denied: int = 0


class Ring:
    """The event log, written from the pump's story."""

    def __init__(self) -> None:
        self._records = [record(24, BEGAN_AT_S, 1, float_value(3.1), float_value(0.0))]
        self._told = _Told()

    @property
    def tail(self) -> int:
        """The place of the oldest record."""
        return (FIRST_RECORD + max(0, len(self._records) - RING)) % RING

    @property
    def head(self) -> int:
        """The place of the newest record."""
        return (FIRST_RECORD + len(self._records) - 1) % RING

    def at(self, index: int) -> bytes:
        """The record at a place; an erased one where nothing was written."""
        back = (self.head - index) % RING
        return self._records[-1 - back] if back < len(self._records) else ERASED

    def write(self, story: tuple[LogEntry, ...], truth: Truth) -> None:
        """Write what has been added to the story since."""
        for entry in story[self._told.entries :]:
            self._records += self._records_of(entry, truth)
        self._told.entries = len(story)

    def _records_of(self, entry: LogEntry, truth: Truth) -> list[bytes]:
        told, at_s = self._told, BEGAN_AT_S + entry.at_ms // 1_000
        written: list[bytes] = []
        for alarm in entry.alarms:
            known = ALARM_RECORDS.get(alarm)
            if alarm not in told.alarms and known is not None:
                written.append(record(known[0], at_s, known[1]))
        for alarm in told.alarms:
            if alarm not in entry.alarms and alarm.startswith("occlusion"):
                written.append(record(9, at_s, 4))
            if alarm not in entry.alarms and alarm in ("low_battery", "battery_empty"):
                new = (float_value(BATTERY_FULL_V), float_value(0.0))
                written.append(record(13, at_s, 0x0060, *new))
        was_moving, is_moving = told.state in MOVING, entry.state in MOVING
        if is_moving and not was_moving:
            dose_ml, lockout_s = truth.bolus_ml or 0.0, int(truth.lockout_s or 0)
            written += programme(at_s, entry.rate_ml_h, truth.vtbi_ml, dose_ml, lockout_s)
            written.append(record(1, at_s))
        elif entry.state == "paused" and told.state != "paused":
            written.append(record(2, at_s, first=float_value(entry.counter_ml)))
        elif is_moving and entry.state == told.state == "running" and entry.rate_ml_h != told.rate_ml_h:
            written.append(record(5, at_s, ACCESS_CODE))
            rates = (float_value(told.rate_ml_h), float_value(entry.rate_ml_h))
            written.append(record(22, at_s, 0x0801, *rates))
        if entry.notice == "demand":
            written.append(record(6, at_s, 0x0201))
        elif entry.notice == "demand_denied":
            told.denied = (told.denied + 1) & 0xFF
            written.append(record(7, at_s, told.denied))
        elif told.state == "bolus" and entry.state != "bolus":
            written.append(record(23, at_s, 1))
        told.state, told.rate_ml_h, told.alarms = entry.state, entry.rate_ml_h, entry.alarms
        return written


class MivaWire:
    """One client's conversation with a MIVA."""

    thinking_ms = 15

    def __init__(self, serial_numbers: Mapping[Address, str]) -> None:
        [serial_number] = serial_numbers.values()
        letters = "".join(letter for letter in serial_number if letter.isascii() and letter.isalnum())
        self._serial = letters.upper()[-8:].rjust(8, "0")
        self._payload: bytearray | None = None
        self._ring = Ring()
        self._stream_ms: int | None = None

    def receive(self, data: bytes, pumps: Pumps) -> list[Answer]:
        """See ``Wire.receive``."""
        answers = []
        for byte in data:
            if byte == STX:
                self._payload = bytearray()
            elif byte == ETX and self._payload is not None:
                answers.append(self._answer(bytes(self._payload), pumps))
                self._payload = None
            elif self._payload is not None:
                self._payload.append(byte)
                if len(self._payload) > LONGEST_FRAME:
                    self._payload = None
        return answers

    def unasked(self, pumps: Pumps) -> list[Answer]:
        """See ``Wire.unasked``: the sensors, while their stream is on."""
        if self._stream_ms is None or pumps.now_ms < self._stream_ms:
            return []
        self._stream_ms = pumps.now_ms + STREAM_EVERY_MS
        return [Answer(b"", frame(_snapshot(pumps.truth(None))))]

    def next_unasked_ms(self) -> int | None:
        """See ``Wire.next_unasked_ms``."""
        return self._stream_ms

    def connected(self, now_ms: int) -> None:
        """See ``Wire.connected``: half a frame is forgotten; the stream is the pump's and goes on."""
        self._payload = None
        if self._stream_ms is not None:
            self._stream_ms = now_ms + STREAM_EVERY_MS

    def _answer(self, framed: bytes, pumps: Pumps) -> Answer:
        payload, check = framed[:-2], framed[-2:]
        if check.upper() != b"%02X" % (sum(payload) & 0xFF) or not payload.isascii():
            return Answer(framed, b"")
        reply = self._reply(payload.decode("ascii"), pumps)
        return Answer(payload, frame(reply) if reply else b"")

    def _reply(self, asked: str, pumps: Pumps) -> str:
        """The payload of the reply; empty where the pump is silent."""
        truth = pumps.truth(None)
        if asked[:1] in (":", "*"):
            answer = _TEXTS.get(asked.upper())
            return answer(truth) if answer is not None else ""
        if asked == "RN":
            return asked + self._serial
        if asked == "RC":
            return f"RC{0xF000_0000 | (BEGAN_AT_S + pumps.now_ms // 1_000) & 0x0FFF_FFFF:08X}"
        if asked == "R9":
            return f"R9{BEGAN_AT_S + pumps.now_ms // 1_000:08X}"
        if asked[:2] in ("RI", "RE"):
            self._ring.write(tuple(pumps.log(None)), truth)
            return self._log(asked)
        if asked in _MNEMONICS:
            return asked + _MNEMONICS[asked](truth)
        if asked == "S9":
            return _snapshot(truth)
        if asked in ("W00", "W01"):
            self._stream_ms = pumps.now_ms + STREAM_EVERY_MS if asked == "W01" else None
        return asked[:2] if asked[:2] in WRITES else ""

    def _log(self, asked: str) -> str:
        if asked == "RI":
            return f"RI{self._ring.tail:08X}{self._ring.head:08X}"
        digits = asked[2:]
        if len(digits) != 8 or not set(digits) <= set("0123456789ABCDEF") or int(digits, 16) >= RING:
            return ""
        return asked + self._ring.at(int(digits, 16)).hex().upper()


def _hundredths(number: float | None) -> str:
    return f"{round(100 * (number or 0.0)):04X}"


def _battery_v(truth: Truth) -> float:
    return BATTERY_EMPTY_V + (BATTERY_FULL_V - BATTERY_EMPTY_V) * truth.battery_percent / 100


def _snapshot(truth: Truth) -> str:
    """S9: bit 11 the hall sensor, bit 10 the motor, then the sensors, which fall as the pressure grows."""
    moving = truth.state in MOVING
    upstream = (moving << 11) | (moving << 10) | 500
    downstream = max(0, min(255, 200 - round(truth.pressure_mmhg / 5)))
    return f"S9{upstream:03X}0{downstream:02X}{round(100 * _battery_v(truth)):03X}"


def _demand_bolus(truth: Truth) -> str:
    return "ERROR" if truth.bolus_ml is None else _hundredths(truth.bolus_ml)


_MNEMONICS: dict[str, Callable[[Truth], str]] = {
    "RS": lambda _: "1.02.03-A",
    "RL": lambda _: "NIMBUS 1.0".ljust(20),
    "RB": lambda _: "07D0",
    "R1": lambda _: "11F8",
    "R2": lambda _: "01900320",
    "R3": lambda truth: f"{round(10 * truth.counter_ml) & 0xFFFF:04X}",
    "R7": lambda truth: f"{round(100 * _battery_v(truth)):04X}",
    "R8": lambda _: "11F80F4240",
    "RA": lambda truth: f"03E8{round(100 * _battery_v(truth)):04X}",
    "RD": lambda _: "01F40258",
    "RX": lambda _: "3FC00000412000003FA0000041A00000",
    "Q0": lambda _: "CONT",
    "Q3": lambda truth: f"{truth.remaining_s:04X}",
    "Q4": lambda _: "ML/HR",
    "Q5": lambda truth: _hundredths(truth.counter_ml),
    "Q6": lambda truth: _hundredths(truth.vtbi_ml),
    "Q7": lambda truth: "1" if truth.state == "bolus" else "0",
    "Q8": lambda _: "0FA0",
    "Q9": lambda _: "0000",
    "QA": lambda truth: _hundredths(truth.bolus_ml),
    "QC": lambda _: "ML/HR",
    "QD": lambda truth: _hundredths(truth.vtbi_ml),
    "QE": lambda truth: f"{truth.remaining_s:04X}",
    "QF": lambda _: "SEC",
    "QG": lambda _: "0FA0",
    "QH": lambda _: "ERROR",
    "QI": _demand_bolus,
}
"""What a client may ask by mnemonic without changing anything, and the answer after the echo."""

_TEXTS: dict[str, Callable[[Truth], str]] = {
    ":INFU:RUN?": lambda truth: "TRUE" if truth.state in MOVING else "FALSE",
    ":INFU:RATE?": lambda truth: f"{truth.rate_ml_h:.2f}",
    ":PROTOCOL:RATE?": lambda truth: f"{truth.rate_ml_h:.2f}",
    ":PROTOCOL:NAME?": lambda _: "DAILY 1",
    ":PROTOCOL:DB:VOLUME?": lambda truth: f"{truth.bolus_ml or 0.0:.2f}",
    ":PROT:DB:LOCK?": lambda truth: f"{truth.lockout_s or 0.0:.0f}",
}
"""What a client may ask by text, and the bare answer."""

FAMILY = WireFamily(line=LineSettings(baud=9_600), open_wire=MivaWire)
"""RS-232 at 9600 baud, 8 data bits, no parity, one stop bit; one pump at a port."""
