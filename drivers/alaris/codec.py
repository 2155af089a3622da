"""Alaris "Asena" GH, CC and TIVA: the frames of the ASCII protocol, read side.

::

    !  I N F ^ 8 0 0 2 - 5 1 7 4 0 ^ ... ^ 1 2 7 9 0 4  |  2 2 1 1  CR
    21 └──────────────── body ──────────────────────┘  7C └ CRC ┘  0D
       name ^ field ^ field ...       printable ASCII      4 digits, 0-9 A-F, over the body

CRC-16 with polynomial 1021, start FFFF, no reflection, no final XOR ("123456789" gives 29B1), over all
between ``!`` and the **last** ``|``. ESC (1B) from the pump: the frame that it was sending is void. 38400
baud, 8 data bits, no parity, 1 stop bit, no flow control.

====================  ========================================================================================
query (host)          reply (pump)
====================  ========================================================================================
INST_SERIALNO         serial number
COMMS_PROTOCOL        protocol revision
COMMS_RESPONSE_MAX    longest reply time, ``ms``
INF                   serial, notice (``-`` or ``A``: ask ALARM), mode, rate, ``ml/h``, drug, volume infused,
                      ``ml``, pressure, ``mmHg``, time left, log type, newest log entry
INF_RATE              rate, ``ml/h``
INF_VI                volume infused, ``ml``
INF_VTBI              ``ACTIV`` or ``DEACT``, volume (empty when not active), ``ml``, what happens at the end
ALARM                 one code, and two fields of one space
SYRINGE_STATUS        brand, size in ml (padded with spaces), ``CONF``
INF_RATE_MAX_SYRINGE  highest rate for the fitted syringe, ``ml/h``
====================  ========================================================================================

Beware: a command with fields **writes**. ``INF_RATE`` asks for the rate and ``INF_RATE^5.00^ml/h`` sets it.
This file can encode the ten queries above and nothing else.

Source: the code of third-party clients, simulators and loggers, among them frames recorded from two real
pumps; the vendor's document was not seen. Not known: how a pump refuses a command (we expect silence), the
modes of bolus, purge and KVO, and whether a drug name may contain ``^``, ``|`` or ``!``: such a frame would
be refused here, and counted, never misread.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Callable
from enum import StrEnum

from msgspec import Struct

from drivers.framing import MarkedStream
from drivers.reading import FaultKind

# The longest reply known is INF with 84 bytes and an empty drug name. Six times that leaves room for any
# name.
FRAME_LIMIT_BYTES = 512

_NUMBER = re.compile(r"-?[0-9]{1,7}(\.[0-9]{1,3})?")
_NO_VALUE = ("", "-")
# A translator of this protocol writes this number where the pump has measured no pressure.
_NO_PRESSURE_MMHG = -50.0


class Query(StrEnum):
    """What a read-only driver may ask: the name is the whole body."""

    SERIAL_NUMBER = "INST_SERIALNO"
    PROTOCOL = "COMMS_PROTOCOL"
    LONGEST_REPLY = "COMMS_RESPONSE_MAX"
    INFUSION = "INF"
    RATE = "INF_RATE"
    VOLUME_INFUSED = "INF_VI"
    VOLUME_TO_BE_INFUSED = "INF_VTBI"
    ALARM = "ALARM"
    SYRINGE = "SYRINGE_STATUS"
    HIGHEST_RATE = "INF_RATE_MAX_SYRINGE"


class SerialNumber(Struct, frozen=True, kw_only=True):
    """INST_SERIALNO."""

    serial: str


class Protocol(Struct, frozen=True, kw_only=True):
    """COMMS_PROTOCOL."""

    revision: str


class LongestReply(Struct, frozen=True, kw_only=True):
    """COMMS_RESPONSE_MAX: how long the pump may take to answer."""

    longest_ms: int


class Infusion(Struct, frozen=True, kw_only=True):
    """INF: everything that telemetry needs, in one frame.

    ``None`` is a field without a value. A number in a unit that we do not know is no value either, and
    ``not_understood`` says so.
    """

    serial: str
    notice: str
    """``-`` no alarm, ``A`` alarm."""
    mode: str
    rate_ml_h: float | None
    drug: str
    volume_ml: float | None
    pressure_mmhg: float | None
    time_left: str
    """``HH:MM:SS``, or ``24+`` from 24 hours on."""
    log_type: str
    newest_log_entry: str
    not_understood: tuple[str, ...] = ()


class Rate(Struct, frozen=True, kw_only=True):
    """INF_RATE."""

    rate_ml_h: float


class VolumeInfused(Struct, frozen=True, kw_only=True):
    """INF_VI."""

    volume_ml: float


class VolumeToBeInfused(Struct, frozen=True, kw_only=True):
    """INF_VTBI: ``None`` if none is active."""

    vtbi_ml: float | None
    at_end: str


class Alarm(Struct, frozen=True, kw_only=True):
    """ALARM: one code, ``AL_NOALM`` if there is none."""

    code: str


class Syringe(Struct, frozen=True, kw_only=True):
    """SYRINGE_STATUS."""

    brand: str
    size_ml: float
    confirmed: bool


class HighestRate(Struct, frozen=True, kw_only=True):
    """INF_RATE_MAX_SYRINGE."""

    rate_ml_h: float


Reply = (
    SerialNumber
    | Protocol
    | LongestReply
    | Infusion
    | Rate
    | VolumeInfused
    | VolumeToBeInfused
    | Alarm
    | Syringe
    | HighestRate
)


class Unreadable(Struct, frozen=True, kw_only=True):
    """A frame that is no reply: damaged on the way (garbled), or intact and unknown to us (unsupported)."""

    kind: FaultKind
    detail: str


def stream() -> MarkedStream:
    """A fresh cutter for this protocol. CR and LF between frames are harmless (a pump sends no LF)."""
    return MarkedStream(start=b"!", end=b"\r", abort=b"\x1b", filler=b"\r\n", limit_bytes=FRAME_LIMIT_BYTES)


def crc(body: bytes) -> int:
    """The check of one body: ``binascii.crc_hqx`` is this CRC with a free start value."""
    return binascii.crc_hqx(body, 0xFFFF)


def encode(query: Query) -> bytes:
    """The frame that asks ``query``."""
    body = query.value.encode("ascii")
    return b"!%s|%04X\r" % (body, crc(body))


QUERY_FRAMES = frozenset(encode(query) for query in Query)
"""Every frame that this driver may ever write."""


def decode(frame: bytes) -> Reply | Unreadable:
    """What the pump says in one frame, from its ``!`` to its CR. Never raises, whatever the bytes."""
    body, separator, check = frame[1:-1].rpartition(b"|")
    if not separator:
        return Unreadable(kind=FaultKind.GARBLED, detail="no separator before the CRC")
    # Compared as text: a lower-case CRC was never seen and is taken for damage.
    if check != b"%04X" % crc(body):
        return Unreadable(kind=FaultKind.GARBLED, detail="the CRC does not fit")
    if not (body.isascii() and body.decode("ascii").isprintable()):
        return Unreadable(kind=FaultKind.UNSUPPORTED, detail="not printable ASCII")
    name, *fields = body.decode("ascii").split("^")
    layout = _LAYOUTS.get(name)
    if layout is None:
        return Unreadable(kind=FaultKind.UNSUPPORTED, detail=f"{name[:40]} is no reply that we know")
    field_count, read = layout
    if len(fields) != field_count:
        detail = f"{name} has {len(fields)} fields, {field_count} are known"
        return Unreadable(kind=FaultKind.UNSUPPORTED, detail=detail)
    try:
        return read(fields)
    except ValueError as problem:
        return Unreadable(kind=FaultKind.UNSUPPORTED, detail=f"{name}: {problem}")


def _number(text: str, unit: str, known_unit: str) -> float | None:
    """A number in the unit we know; ``None`` for no value. Raises ValueError for anything else."""
    text = text.strip()
    if text in _NO_VALUE:
        return None
    if _NUMBER.fullmatch(text) is None:
        raise ValueError(f"{text[:20]!r} is not a number")
    if unit != known_unit:
        raise ValueError(f"the unit {unit[:20]!r} is not {known_unit}")
    return float(text)


def _certain_number(text: str, unit: str, known_unit: str) -> float:
    number = _number(text, unit, known_unit)
    if number is None or number < 0:
        raise ValueError(f"{text[:20]!r} is no value")
    return number


def _serial_number(fields: list[str]) -> Reply:
    return SerialNumber(serial=fields[0].strip())


def _protocol(fields: list[str]) -> Reply:
    return Protocol(revision=fields[0].strip())


def _longest_reply(fields: list[str]) -> Reply:
    return LongestReply(longest_ms=int(_certain_number(fields[0], fields[1], "ms")))


def _infusion(fields: list[str]) -> Reply:
    # One field in a form that we do not know must cost neither the others nor the alarm notice.
    not_understood = []

    def measured(what: str, text: str, unit: str, known_unit: str, least: float) -> float | None:
        try:
            number = _number(text, unit, known_unit)
            if number is not None and number < least:
                raise ValueError(f"{text[:20]!r} is too small")
        except ValueError as problem:
            not_understood.append(f"{what}: {problem}")
            return None
        return number

    rate_ml_h = measured("rate", fields[3], fields[4], "ml/h", 0.0)
    volume_ml = measured("volume", fields[6], fields[7], "ml", 0.0)
    pressure_mmhg = measured("pressure", fields[8], fields[9], "mmHg", -1_000.0)
    return Infusion(
        serial=fields[0].strip(),
        notice=fields[1].strip(),
        mode=fields[2].strip(),
        rate_ml_h=rate_ml_h,
        drug=fields[5].strip(),
        volume_ml=volume_ml,
        pressure_mmhg=None if pressure_mmhg == _NO_PRESSURE_MMHG else pressure_mmhg,
        time_left=fields[10].strip(),
        log_type=fields[11].strip(),
        newest_log_entry=fields[12].strip(),
        not_understood=tuple(not_understood),
    )


def _rate(fields: list[str]) -> Reply:
    return Rate(rate_ml_h=_certain_number(fields[0], fields[1], "ml/h"))


def _volume_infused(fields: list[str]) -> Reply:
    return VolumeInfused(volume_ml=_certain_number(fields[0], fields[1], "ml"))


def _volume_to_be_infused(fields: list[str]) -> Reply:
    active, volume, unit, at_end = fields
    if active == "DEACT":
        return VolumeToBeInfused(vtbi_ml=None, at_end=at_end)
    if active != "ACTIV":
        raise ValueError(f"{active[:20]!r} is neither ACTIV nor DEACT")
    return VolumeToBeInfused(vtbi_ml=_certain_number(volume, unit, "ml"), at_end=at_end)


def _alarm(fields: list[str]) -> Reply:
    return Alarm(code=fields[0].strip())


def _syringe(fields: list[str]) -> Reply:
    brand, size, confirmed = fields
    return Syringe(brand=brand, size_ml=_certain_number(size, "ml", "ml"), confirmed=confirmed == "CONF")


def _highest_rate(fields: list[str]) -> Reply:
    return HighestRate(rate_ml_h=_certain_number(fields[0], fields[1], "ml/h"))


_LAYOUTS: dict[str, tuple[int, Callable[[list[str]], Reply]]] = {
    # name: (number of fields after it, how they are read)
    Query.SERIAL_NUMBER: (1, _serial_number),
    Query.PROTOCOL: (1, _protocol),
    Query.LONGEST_REPLY: (2, _longest_reply),
    Query.INFUSION: (13, _infusion),
    Query.RATE: (2, _rate),
    Query.VOLUME_INFUSED: (2, _volume_infused),
    Query.VOLUME_TO_BE_INFUSED: (4, _volume_to_be_infused),
    Query.ALARM: (3, _alarm),
    Query.SYRINGE: (3, _syringe),
    Query.HIGHEST_RATE: (2, _highest_rate),
}
