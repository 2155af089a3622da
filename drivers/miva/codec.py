"""Zyno Medical MIVA: the frames of the service port, read side.

::

    STX   R 7 0 1 3 8            5 5     ETX
    02    └──── payload ─────┘   └ CK ┘  03        then perhaps CR, LF or NUL, which mean nothing
          printable ASCII        sum of the payload modulo 256, two hexadecimal digits

Payloads are of two kinds. A mnemonic of two characters is **echoed** by its answer, which then gives
hexadecimal digits or text; a text that begins with ``:`` is **not**: its answer is the bare value, and
nothing in it tells which question it answers. 9600 baud, 8 data bits, no parity, 1 stop bit, no flow control.

===========  =================================================================================================
query        reply, after the echo
===========  =================================================================================================
RN RS RM     serial number (8 letters and digits); firmware (text); platform, 00 = H, 01 = K
RL RB        drug library (20 characters); base year
RC           clock: 8 digits, seconds with F as the first digit; or 12, day month year-2000 hour minute second
R1 R2 R8     motor factor; occlusion references up, down; motor factor and rotations in the pump's life
R3 R7 R9     total volume, 0.1 mL; battery, 0.01 V; time switched on, s
RA RD RX     battery factor, 0.001, and 0.01 V; occlusion sensors up, down; four floats of the sensor line
S9           a snapshot of the sensors; it may also come **unasked**
RI           where the event log begins, where its newest record is: 8 digits each
RE + index   the same index and one record of 16 bytes
Q0 Q4 QC QF  mode; unit of the rate; unit of the set rate; unit of the set time
Q5 Q6        volume infused, and to be infused, 0.01 mL
Q7           1: a bolus is running
Q8 Q9 QA     bolus rate, volume infused and to be infused, 0.01
Q3 QD QE QG  time of the infusion; set volume, time, bolus rate
QH QI        auto bolus and demand bolus, 0.01 mL, or ERROR: there is none
:INFU:RUN?   TRUE or FALSE, without an echo
:INFU:RATE?  the rate as a decimal number, without an echo
===========  =================================================================================================

The event log is a ring of 43 264 records::

    0     1          5    6     7             11            15
    type  stamp (4)  word (2)   value (4)     value (4)     not read
                     byte byte  float or integer, big-endian

The stamp of a MIVA is a **little-endian** counter of seconds whose highest digit is F; pumps with a calendar
pack a date, **big-endian**: year - 2000 (6 bits), month (4), day (5), hour (5), minute (6), second (6). Which
of the two it is, only the form of the RC answer tells. Between the two marks of an INFUSION_DATA lie raw
records, 2 on a MIVA and 16 on other pumps, whose first byte is no type. A slot of nothing but FF is empty.

Beware: a text with an argument **writes** (``:PROTOCOL:RATE 20.0``), as do W, K, L and other mnemonics. This
file can encode the queries of ``Query`` and of one record, and nothing else.

Source: the code of the maker's own client (version 0.0.9, MIT licence), run against a stub; no document of
the protocol and no recording of a pump was seen. Not known: what a pump answers to a wrong check or an
unknown command (we expect silence). An older list of event types has other numbers from 16 on; which
firmware uses it is not known, and it is not read here. The older H platform forms its check by XOR: such
frames are told apart and not read.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from datetime import datetime
from enum import IntEnum, StrEnum
from functools import reduce
from operator import xor

from msgspec import Struct

from drivers.framing import MarkedStream
from drivers.reading import FaultKind

# The longest fixed reply is a record with 42 characters; the texts are short. Three times that.
FRAME_LIMIT_BYTES = 128
RING_RECORDS = 43_264
"""Places of the event log: 169 pages of 4096 bytes, 16 bytes a record."""
RECORD_BYTES = 16

_STX, _ETX = b"\x02", b"\x03"
_ECHO = 2


class Query(StrEnum):
    """What a read-only driver may ask: the name is the whole payload."""

    SERIAL_NUMBER = "RN"
    FIRMWARE = "RS"
    PLATFORM = "RM"
    LIBRARY = "RL"
    BASE_YEAR = "RB"
    CLOCK = "RC"
    MOTOR_FACTOR = "R1"
    OCCLUSION_REFERENCES = "R2"
    TOTAL_VOLUME = "R3"
    BATTERY = "R7"
    LIFE = "R8"
    TIME_ON = "R9"
    BATTERY_CALIBRATION = "RA"
    OCCLUSION_SENSORS = "RD"
    SENSOR_LINES = "RX"
    SNAPSHOT = "S9"
    LOG = "RI"
    MODE = "Q0"
    INFUSION_TIME = "Q3"
    RATE_UNIT = "Q4"
    VOLUME_INFUSED = "Q5"
    VOLUME_TO_BE_INFUSED = "Q6"
    BOLUS_RUNNING = "Q7"
    BOLUS_RATE = "Q8"
    BOLUS_INFUSED = "Q9"
    BOLUS_TO_BE_INFUSED = "QA"
    SET_RATE_UNIT = "QC"
    SET_VOLUME = "QD"
    SET_TIME = "QE"
    SET_TIME_UNIT = "QF"
    SET_BOLUS_RATE = "QG"
    AUTO_BOLUS = "QH"
    DEMAND_BOLUS = "QI"
    RUNNING = ":INFU:RUN?"
    RATE = ":INFU:RATE?"
    PROTOCOL_NAME = ":PROTOCOL:NAME?"
    DEMAND_LOCKOUT = ":PROT:DB:LOCK?"


class Text(Struct, frozen=True, kw_only=True):
    """An answer in letters: serial number, firmware, library, mode or a unit."""

    query: Query
    text: str


class Number(Struct, frozen=True, kw_only=True):
    """An answer that is one number, in the unit of the table above without its factor (12.34 mL)."""

    query: Query
    value: float


class NotAvailable(Struct, frozen=True, kw_only=True):
    """``QHERROR``, ``QIERROR``: this pump is set to no such bolus."""

    query: Query


class Numbers(Struct, frozen=True, kw_only=True):
    """An answer of several numbers, in their order: R2, R8, RA, RD, RX."""

    query: Query
    values: tuple[float, ...]


class Flag(Struct, frozen=True, kw_only=True):
    """Q7: only 1 is yes."""

    query: Query
    is_on: bool


class Clock(Struct, frozen=True, kw_only=True):
    """RC: seconds since the firmware was loaded, or a calendar; the pump knows no time zone."""

    query: Query = Query.CLOCK
    relative_s: int | None = None
    calendar: datetime | None = None


class Snapshot(Struct, frozen=True, kw_only=True):
    """S9: the sensors, in raw counts; asked for or not."""

    query: Query = Query.SNAPSHOT
    hall_is_high: bool
    motor_is_running: bool
    upstream_counts: int
    downstream_counts: int
    battery_v: float


class LogIndices(Struct, frozen=True, kw_only=True):
    """RI: the places of the oldest record and of the newest one."""

    query: Query = Query.LOG
    tail: int
    head: int

    @property
    def record_count(self) -> int:
        """How many records there are."""
        return (self.head - self.tail) % RING_RECORDS + 1


class Record(Struct, frozen=True, kw_only=True):
    """RE: one place of the log. What it means depends on what lies before it, see ``read_event``."""

    index: int
    raw: bytes


class Bare(Struct, frozen=True, kw_only=True):
    """The answer to a text that begins with ``:``. Nothing in it tells which one."""

    text: str


Reply = Text | Number | NotAvailable | Numbers | Flag | Clock | Snapshot | LogIndices | Record | Bare


class Unreadable(Struct, frozen=True, kw_only=True):
    """A frame that is no reply: damaged on the way (garbled), or intact and unknown to us (unsupported)."""

    kind: FaultKind
    detail: str


def stream() -> MarkedStream:
    """A fresh cutter for this protocol. CR, LF and NUL between frames are harmless."""
    return MarkedStream(start=_STX, end=_ETX, abort=b"", filler=b"\r\n\x00", limit_bytes=FRAME_LIMIT_BYTES)


def check_of(payload: bytes) -> int:
    """The check of one payload: the sum of its bytes modulo 256."""
    return sum(payload) % 256


def encode(query: Query) -> bytes:
    """The frame that asks ``query``."""
    return _framed(query.value)


def encode_record(index: int) -> bytes:
    """The frame that asks for the record at one place of the log. Raises ValueError for no such place."""
    if not 0 <= index < RING_RECORDS:
        raise ValueError(f"the log has the places 0 to {RING_RECORDS - 1}, not {index}")
    return _framed(f"RE{index:08X}")


def _framed(text: str) -> bytes:
    payload = text.encode("ascii")
    return b"%s%s%02X%s" % (_STX, payload, check_of(payload), _ETX)


QUERY_FRAMES = frozenset(encode(query) for query in Query)
"""Every frame that may be written, but for those that ask for one record."""
_RECORD_QUERY = re.compile(rb"\x02RE([0-9A-F]{8})[0-9A-F]{2}\x03")


def is_query(data: bytes) -> bool:
    """Whether ``data`` is exactly one frame that asks and changes nothing."""
    if data in QUERY_FRAMES:
        return True
    asked = _RECORD_QUERY.fullmatch(data)
    if asked is None or (index := int(asked[1], 16)) >= RING_RECORDS:
        return False
    return data == encode_record(index)


def decode(frame: bytes) -> Reply | Unreadable:
    """What the pump says in one frame, from STX to ETX. Never raises, whatever the bytes."""
    payload, check = frame[1:-3], frame[-3:-1]
    if len(frame) < 4 or not re.fullmatch(rb"[0-9A-Fa-f]{2}", check):
        return Unreadable(kind=FaultKind.GARBLED, detail="no check before the end")
    if int(check, 16) != check_of(payload):
        if payload and int(check, 16) == reduce(xor, payload):
            return Unreadable(
                kind=FaultKind.UNSUPPORTED, detail="the check is that of the older H platform, or damaged"
            )
        return Unreadable(kind=FaultKind.GARBLED, detail="the check does not fit")
    if not (payload.isascii() and payload.decode("ascii").isprintable()):
        return Unreadable(kind=FaultKind.UNSUPPORTED, detail="not printable ASCII")
    text = payload.decode("ascii")
    if text[:_ECHO].upper() == "RE" and len(text) > _ECHO:
        return _record(text[_ECHO:])
    layout = _LAYOUTS.get(text[:_ECHO].upper())
    if layout is None:
        return Bare(text=text)
    query, read = layout
    try:
        return read(query, text[_ECHO:])
    except ValueError as problem:
        return Unreadable(kind=FaultKind.UNSUPPORTED, detail=f"{query}: {problem}")


def flag_of(text: str) -> bool | None:
    """A bare TRUE or FALSE; ``None`` if it is neither."""
    return {"TRUE": True, "FALSE": False}.get(text.strip().upper())


def decimal_of(text: str) -> float | None:
    """A bare number, with a fraction or without; ``None`` if it is none."""
    return float(text) if re.fullmatch(r" *[0-9]{1,5}(\.[0-9]{1,4})? *", text) else None


def _hex(digits: str, width: int | None = None) -> int:
    """Hexadecimal digits as a number. Raises ValueError if there are others, or not as many as ``width``."""
    if width is not None and len(digits) != width:
        raise ValueError(f"{len(digits)} characters instead of {width}")
    if re.fullmatch(r"[0-9A-Fa-f]{1,8}", digits) is None:
        raise ValueError(f"{digits[:20]!r} are not hexadecimal digits")
    return int(digits, 16)


def _fields(digits: str, *widths: int) -> list[int]:
    if len(digits) != sum(widths):
        raise ValueError(f"{len(digits)} characters instead of {sum(widths)}")
    fields = []
    for width in widths:
        fields.append(_hex(digits[:width]))
        digits = digits[width:]
    return fields


def _number(width: int | None, parts: int) -> Callable[[Query, str], Reply]:
    def read(query: Query, data: str) -> Reply:
        if query in (Query.AUTO_BOLUS, Query.DEMAND_BOLUS) and data.upper() == "ERROR":
            return NotAvailable(query=query)
        return Number(query=query, value=_hex(data, width) / parts)

    return read


def _text(pattern: str) -> Callable[[Query, str], Reply]:
    def read(query: Query, data: str) -> Reply:
        if re.fullmatch(pattern, data) is None:
            raise ValueError(f"{data[:20]!r} has another form")
        return Text(query=query, text=data.strip())

    return read


def _pair(*widths_and_parts: tuple[int, int]) -> Callable[[Query, str], Reply]:
    def read(query: Query, data: str) -> Reply:
        fields = _fields(data, *(width for width, _ in widths_and_parts))
        return Numbers(
            query=query,
            values=tuple(field / parts for field, (_, parts) in zip(fields, widths_and_parts, strict=True)),
        )

    return read


def _sensor_lines(query: Query, data: str) -> Reply:
    floats = [struct.unpack(">f", struct.pack(">I", field))[0] for field in _fields(data, 8, 8, 8, 8)]
    return Numbers(query=query, values=tuple(floats))


def _flag(query: Query, data: str) -> Reply:
    if len(data) != 1:
        raise ValueError(f"{len(data)} characters instead of 1")
    return Flag(query=query, is_on=data == "1")


def _clock(query: Query, data: str) -> Reply:
    if len(data) == 8:
        return Clock(relative_s=_hex(data) & 0x0FFF_FFFF)
    day, month, year, hour, minute, second = _fields(data, 2, 2, 2, 2, 2, 2)
    return Clock(calendar=datetime(2000 + year, month, day, hour, minute, second))


def _snapshot(query: Query, data: str) -> Reply:
    if len(data) != 9:
        raise ValueError(f"{len(data)} characters instead of 9")
    upstream, _, downstream, battery = _fields(data, 3, 1, 2, 3)
    return Snapshot(
        hall_is_high=bool(upstream & 0x800),
        motor_is_running=bool(upstream & 0x400),
        upstream_counts=upstream & 0x3FF,
        downstream_counts=downstream,
        battery_v=battery / 100,
    )


def _log(query: Query, data: str) -> Reply:
    tail, head = _fields(data, 8, 8)
    if max(tail, head) >= RING_RECORDS:
        raise ValueError(f"the log has no place {max(tail, head)}")
    return LogIndices(tail=tail, head=head)


def _record(data: str) -> Reply | Unreadable:
    # What is wrong with a record is said without its digits: they may be somebody's access code.
    try:
        index, *words = _fields(data, 8, 8, 8, 8, 8)
    except ValueError:
        return Unreadable(kind=FaultKind.UNSUPPORTED, detail="RE: not an index and 16 bytes")
    return Record(index=index, raw=struct.pack(">4I", *words))


_LAYOUTS: dict[str, tuple[Query, Callable[[Query, str], Reply]]] = {
    query.value: (query, read)
    for query, read in {
        Query.SERIAL_NUMBER: _text(r"[0-9A-Za-z]{8}"),
        Query.FIRMWARE: _text(r"[0-9A-Za-z.-]+"),
        Query.PLATFORM: _text(r"0[01]"),
        Query.LIBRARY: _text(r".{20}"),
        Query.BASE_YEAR: _number(4, 1),
        Query.CLOCK: _clock,
        Query.MOTOR_FACTOR: _number(4, 1),
        Query.OCCLUSION_REFERENCES: _pair((4, 1), (4, 1)),
        Query.TOTAL_VOLUME: _number(4, 10),
        Query.BATTERY: _number(4, 100),
        Query.LIFE: _pair((4, 1), (6, 1)),
        Query.TIME_ON: _number(8, 1),
        Query.BATTERY_CALIBRATION: _pair((4, 1000), (4, 100)),
        Query.OCCLUSION_SENSORS: _pair((4, 1), (4, 1)),
        Query.SENSOR_LINES: _sensor_lines,
        Query.SNAPSHOT: _snapshot,
        Query.LOG: _log,
        Query.MODE: _text(r".+"),
        Query.INFUSION_TIME: _number(None, 1),
        Query.RATE_UNIT: _text(r".+"),
        Query.VOLUME_INFUSED: _number(None, 100),
        Query.VOLUME_TO_BE_INFUSED: _number(None, 100),
        Query.BOLUS_RUNNING: _flag,
        Query.BOLUS_RATE: _number(None, 100),
        Query.BOLUS_INFUSED: _number(None, 100),
        Query.BOLUS_TO_BE_INFUSED: _number(None, 100),
        Query.SET_RATE_UNIT: _text(r".+"),
        Query.SET_VOLUME: _number(None, 100),
        Query.SET_TIME: _number(None, 1),
        Query.SET_TIME_UNIT: _text(r".+"),
        Query.SET_BOLUS_RATE: _number(None, 100),
        Query.AUTO_BOLUS: _number(None, 100),
        Query.DEMAND_BOLUS: _number(None, 100),
    }.items()
}
"""How the answer to each mnemonic is read; a payload that begins with none of them is a bare value."""

# The event log


class EventKind(IntEnum):
    """The type of a record, in the current numbering."""

    INFUSION_DATA = 0
    RUN_INFUSION = 1
    INFUSION_PAUSED = 2
    CASSETTE_EMPTY_ALARM = 3
    INFUSION_LIMIT_REACHED = 4
    AUTHENTICATION = 5
    DOSE_GRANTED = 6
    EXTRA_DOSE_DENIED = 7
    DOSE_CANCEL = 8
    OCCLUSION_ALARM = 9
    DELAY_END = 10
    PUMP_LIMIT_REACHED_ALARM = 11
    CLEAR_SHIFT_TOTAL = 12
    BATTERY = 13
    CASSETTE_DETACHED_ALARM = 14
    TIME_STAMP = 15
    POWER_OFF = 16
    FIRMWARE_ERROR_ALARM = 17
    SYSTEM_ERROR_ALARM = 18
    BATTERY_FAILURE = 19
    DEBUG = 20
    UNATTENDED_ALARM = 21
    SETTING_CHANGE = 22
    DOSE_FINISH = 23
    POWER_ON = 24
    STARTING_DOSE_SKIP = 25
    SYSTEM_ERROR2_ALARM = 26
    PUMP_HARD_LIMIT_REACHED_ALARM = 27
    BATTERY_DEPLETED_ALARM = 28
    PROGRAMMING_INCOMPLETE_ALARM = 29
    BATTERY_LOW_ALARM = 30
    BATTERY_CHECK_STATUS = 31


class Event(Struct, frozen=True, kw_only=True):
    """What one record says. Of AUTHENTICATION nothing but that and when: the rest is an access code."""

    kind: EventKind
    stamp: bytes
    """As in the record; ``seconds_of`` or ``date_of`` reads it, by the form of the pump's clock."""
    word: int
    """Bytes 5 and 6: sub-type or flags."""
    first: bytes
    second: bytes

    @property
    def byte_5(self) -> int:
        """The upper half of ``word``."""
        return self.word >> 8

    @property
    def byte_6(self) -> int:
        """The lower half of ``word``."""
        return self.word & 0xFF

    @property
    def first_float(self) -> float:
        """The first value, where it is a float."""
        return _float(self.first)

    @property
    def second_float(self) -> float:
        """The second value, where it is a float."""
        return _float(self.second)


def is_erased(record: bytes) -> bool:
    """Whether nothing has been written at this place."""
    return record == b"\xff" * RECORD_BYTES


def is_data_mark(record: bytes, mark: int) -> bool:
    """Whether this record begins (1) or ends (2) a block of raw ones; these have none but FF after it."""
    return record[0] == EventKind.INFUSION_DATA and record[5] == mark and record[6:] == b"\xff" * 10


def read_event(record: bytes) -> Event | None:
    """What a record of 16 bytes says that is neither raw nor erased; ``None`` for a type not known."""
    try:
        kind = EventKind(record[0])
    except ValueError:
        return None
    if kind is EventKind.AUTHENTICATION:
        return Event(kind=kind, stamp=record[1:5], word=0, first=b"", second=b"")
    return Event(
        kind=kind,
        stamp=record[1:5],
        word=int.from_bytes(record[5:7], "big"),
        first=record[7:11],
        second=record[11:15],
    )


def seconds_of(stamp: bytes) -> int:
    """A stamp of a pump whose clock is relative: seconds since the firmware was loaded."""
    return int.from_bytes(stamp, "little") & 0x0FFF_FFFF


def date_of(stamp: bytes) -> datetime | None:
    """A stamp of a pump that has a calendar; ``None`` if there is no such day or time."""
    packed = int.from_bytes(stamp, "big")
    try:
        return datetime(
            2000 + (packed >> 26),
            packed >> 22 & 0xF,
            packed >> 17 & 0x1F,
            packed >> 12 & 0x1F,
            packed >> 6 & 0x3F,
            packed & 0x3F,
        )
    except ValueError:
        return None


def _float(data: bytes) -> float:
    value: float = struct.unpack(">f", data)[0] if len(data) == 4 else float("nan")
    return value
