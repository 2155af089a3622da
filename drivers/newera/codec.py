r"""New Era NE-1000 and its relatives (also sold as WPI Aladdin AL-1000): the frames, read side.

Basic mode, which is what this driver speaks::

    to the pump      0  D I S  CR                     address 0..99, mnemonic; no checksum, no length
    from the pump   STX  0 0  I  I 1 . 2 3 4 W 0 . 0 0 0 M L  ETX
                     02  └┬┘  │  └──────── data ────────────┘  03
                      address prompt

Safe mode, which it never switches on and yet can read::

    STX  length  0 0 I 4 5 . 0 0 M H  CRC-high CRC-low  ETX
     02   └ what follows STX, itself included: data + 4, one binary byte                CRC over the data only

CRC-16 with polynomial 1021, start 0000, no reflection, no final XOR (``SAF0`` gives 5543, as the manual
prints it). Length and CRC are binary and may be 02, 03 or 0D, so a packet is cut by its length and never by
its ETX. The byte after STX tells which it is: a digit begins the address of a Basic reply, a smaller byte is
a length.

======  =====================  ===============================================================================
prompt  alarm ``A?`` + type    data of a reply
======  =====================  ===============================================================================
``I``   infusing               VER  ``NE1000V3.928``: model, upgrade (``X2``), firmware
``W``   withdrawing            SAF  0 Basic mode, 1..255 Safe mode, its time-out in seconds
``S``   stopped                RAT  number and ``UM`` uL/min, ``MM`` mL/min, ``UH`` uL/h, ``MH`` mL/h
``P``   paused                 DIS  ``I`` number ``W`` number and ``UL`` or ``ML``: infused and withdrawn
``T``   timed pause            ?    not recognised; ``?NA`` not applicable now; ``?OOR`` out of range;
``U``   waits for a trigger         ``?COM`` invalid packet; ``?IGN`` ignored, a new phase began just then
``X``   purging                A?   R reset, S stalled, T Safe-mode time-out, E program error, O phase range
======  =====================  ===============================================================================

Numbers have at most four digits, three of them after the point; ``45.``, ``.5`` and ``1000`` are numbers.

Beware: a mnemonic with an argument **writes**, and there is no checksum. If the CR of ``RAT`` is lost and a
bare status query ``7`` CR follows, the pump reads ``RAT7``: the rate is set to 7. So a status is never asked
for alone (every reply brings it), and every query of this driver has letters in it. The four queries above
are all that it can encode; two of them, ``DIS`` and ``VER``, take no argument at all.

Source: the user manuals of NE-1000, NE-1600, NE-4000 and NE-500 (2009 to 2016, "RS-232 communications"), and
the third-party clients nesp_lib and labmcp-new-era. No real pump was read. Not known: how long a pump takes
to answer, whether a pump in Safe mode answers a Basic query, and what the counter does beyond 9999.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Callable
from enum import StrEnum

from msgspec import Struct

from drivers.framing import Cut, CutKind, Stream
from drivers.reading import FaultKind

HIGHEST_ADDRESS = 99
# The longest reply known, DIS, has 22 bytes with its marks. Twice that, and room for what is not known.
FRAME_LIMIT_BYTES = 64

_STX = 0x02
_ETX = 0x03
_DIGITS = b"0123456789"
# Least: a packet without data. Most: below the digits, for a digit begins an address; no known packet comes
# near.
_LENGTHS = range(4, ord("0"))
# What of a Safe packet follows the length and is no data: two bytes of CRC and the ETX.
_AFTER_DATA_BYTES = 3

_NUMBER = r"(?=[0-9.]*[0-9])[0-9]{0,4}(?:\.[0-9]{0,3})?"
_REPLY = re.compile(r"([0-9]{1,2})([A-Z])(.*)", re.DOTALL)
_RATE = re.compile(rf"({_NUMBER}) *([A-Z]{{2}})")
_DISPENSED = re.compile(rf"I *({_NUMBER}) *W *({_NUMBER}) *([A-Z]{{2}})")
_VERSION = re.compile(r"NE([0-9A-Z]{1,8}?)(?:X([0-9]{0,2}))?V([0-9]{1,3})\.([0-9]{1,4})")
_SAFE_MODE = re.compile(r"[0-9]{1,3}")
_MOST_DIGITS = 4
_LONGEST_SAFE_TIME_OUT_S = 255

_ML_H = {"UM": 0.06, "MM": 60.0, "UH": 0.001, "MH": 1.0}
"""What one unit of rate is in mL/h."""
_ML = {"UL": 0.001, "ML": 1.0}
"""What one unit of volume is in mL."""


class Query(StrEnum):
    """What a read-only driver may ask: the bare mnemonic."""

    VERSION = "VER"
    SAFE_MODE = "SAF"
    RATE = "RAT"
    DISPENSED = "DIS"


class Prompt(StrEnum):
    """What the pump says it is doing, in every reply."""

    INFUSING = "I"
    WITHDRAWING = "W"
    STOPPED = "S"
    PAUSED = "P"
    TIMED_PAUSE = "T"
    WAITING = "U"
    PURGING = "X"


class Reply(Struct, frozen=True, kw_only=True):
    """One reply, or one alarm packet that a pump in Safe mode sends of its own accord.

    Exactly one of ``prompt`` and ``alarm`` is told. ``error`` is what follows the ``?`` of a refused command,
    and ``""`` for one that was not recognised.
    """

    address: int
    prompt: Prompt | None = None
    alarm: str | None = None
    """The type of the alarm: one letter."""
    error: str | None = None
    data: str = ""
    is_safe: bool = False
    """It came as a Safe-mode packet."""


class Version(Struct, frozen=True, kw_only=True):
    """VER. ``upgrade`` is ``None`` without one, ``""`` for one without a number."""

    model: str
    upgrade: str | None
    firmware: str


class SafeMode(Struct, frozen=True, kw_only=True):
    """SAF: 0 is Basic mode."""

    timeout_s: int


class Rate(Struct, frozen=True, kw_only=True):
    """RAT: the actual rate while pumping, else the setting of the selected phase."""

    rate_ml_h: float | None
    """``None`` if the unit is not known; ``not_understood`` says so."""
    not_understood: str = ""


class Dispensed(Struct, frozen=True, kw_only=True):
    """DIS: since it was cleared, or the diameter set."""

    infused_ml: float | None
    withdrawn_ml: float | None
    not_understood: str = ""


Value = Version | SafeMode | Rate | Dispensed


class Unreadable(Struct, frozen=True, kw_only=True):
    """What is no reply: damaged on the way (garbled), or intact and unknown to us (unsupported)."""

    kind: FaultKind
    detail: str


class ReplyStream(Stream):
    """Cuts what pumps send: Basic replies from STX to ETX, Safe packets by their length."""

    def __init__(self) -> None:
        super().__init__(FRAME_LIMIT_BYTES)

    def _next(self) -> Cut | None:
        if not self._buffer.startswith(b"\x02"):
            start_at = self._buffer.find(_STX, 0, self._limit_bytes)
            if start_at < 0:
                return self._too_long()
            return self._not_a_frame(start_at, "no frame begins there")
        if len(self._buffer) == 1:
            return None
        if self._buffer[1] in _DIGITS:
            return self._next_basic()
        if self._buffer[1] in _LENGTHS:
            return self._next_safe(frame_bytes=1 + self._buffer[1])
        return self._not_a_frame(1, "neither an address nor a length follows the STX")

    def _next_basic(self) -> Cut | None:
        end_at = self._buffer.find(_ETX, 1, self._limit_bytes)
        start_at = self._buffer.find(_STX, 1, self._limit_bytes)
        if start_at >= 0 and (end_at < 0 or start_at < end_at):
            return self._not_a_frame(start_at, "another frame began before its end")
        if end_at < 0:
            return self._too_long()
        return Cut(kind=CutKind.FRAME, data=self._take(end_at + 1))

    def _next_safe(self, frame_bytes: int) -> Cut | None:
        # All data is text: what holds anything else was no packet, and hides no reply until its length is up.
        data = self._buffer[2 : frame_bytes - _AFTER_DATA_BYTES]
        if any(not 0x20 <= byte <= 0x7E for byte in data):
            return self._not_a_frame(1, "a length, but what follows is no text")
        if len(self._buffer) < frame_bytes:
            return None
        if self._buffer[frame_bytes - 1] != _ETX:
            return self._not_a_frame(1, "no ETX where the length says that the packet ends")
        return Cut(kind=CutKind.FRAME, data=self._take(frame_bytes))


def stream() -> ReplyStream:
    """A fresh cutter for this protocol."""
    return ReplyStream()


def crc(data: bytes) -> int:
    """The check of a Safe packet's data: ``binascii.crc_hqx`` is this CRC with a free start value."""
    return binascii.crc_hqx(data, 0x0000)


def encode(address: int, query: Query) -> bytes:
    """The line that asks the pump at ``address``, always named, in Basic mode."""
    return f"{address}{query}\r".encode("ascii")


QUERY_LINES = frozenset(encode(address, query) for address in range(HIGHEST_ADDRESS + 1) for query in Query)
"""Every line that this driver may ever write."""


def decode(frame: bytes) -> Reply | Unreadable:
    """What one frame says, from its STX to its ETX. Never raises, whatever the bytes."""
    if len(frame) < 3 or frame[0] != _STX or frame[-1] != _ETX:
        return Unreadable(kind=FaultKind.GARBLED, detail="no STX, or no ETX")
    is_safe = frame[1] not in _DIGITS
    data = frame[2:-3] if is_safe else frame[1:-1]
    if is_safe:
        if len(frame) != 1 + frame[1] or len(frame) < 5:
            return Unreadable(kind=FaultKind.GARBLED, detail="the length does not fit")
        if frame[-3:-1] != crc(data).to_bytes(2, "big"):
            return Unreadable(kind=FaultKind.GARBLED, detail="the CRC does not fit")
    if not (data.isascii() and data.decode("ascii").isprintable()):
        return Unreadable(kind=FaultKind.GARBLED, detail="not printable ASCII")
    return _reply(data.decode("ascii"), is_safe=is_safe)


def _reply(text: str, *, is_safe: bool) -> Reply | Unreadable:
    parts = _REPLY.fullmatch(text)
    if parts is None:
        return Unreadable(kind=FaultKind.UNSUPPORTED, detail=f"{text[:20]!r} has no address and prompt")
    address, prompt, data = int(parts[1]), parts[2], parts[3].strip()
    if prompt == "A":
        if len(data) != 2 or data[0] != "?" or not data[1].isalpha():
            return Unreadable(kind=FaultKind.UNSUPPORTED, detail=f"{text[:20]!r} is no alarm that we know")
        return Reply(address=address, alarm=data[1], is_safe=is_safe)
    if prompt not in tuple(Prompt):
        return Unreadable(kind=FaultKind.UNSUPPORTED, detail=f"{prompt} is no prompt that we know")
    is_error = data.startswith("?")
    return Reply(
        address=address,
        prompt=Prompt(prompt),
        error=data[1:] if is_error else None,
        data="" if is_error else data,
        is_safe=is_safe,
    )


def read(query: Query, data: str) -> Value | None:
    """What the data of a reply says if it answers ``query``; ``None`` if it has not that form. Never raises.

    A reply does not name its query. The four forms differ, so data has the form of at most one of them.
    """
    return _READERS[query](data)


def query_of(data: str) -> Query | None:
    """The query to which this data is an answer by its form."""
    return next((query for query in Query if read(query, data) is not None), None)


def _number(text: str) -> float | None:
    """A number of at most four digits; ``None`` for any other."""
    return float(text) if sum(map(str.isdigit, text)) <= _MOST_DIGITS else None


def _version(data: str) -> Version | None:
    parts = _VERSION.fullmatch(data)
    return parts and Version(model=parts[1], upgrade=parts[2], firmware=f"{parts[3]}.{parts[4]}")


def _safe_mode(data: str) -> SafeMode | None:
    if _SAFE_MODE.fullmatch(data) is None or int(data) > _LONGEST_SAFE_TIME_OUT_S:
        return None
    return SafeMode(timeout_s=int(data))


def _rate(data: str) -> Rate | None:
    parts = _RATE.fullmatch(data)
    number = parts and _number(parts[1])
    if parts is None or number is None:
        return None
    if parts[2] not in _ML_H:
        return Rate(rate_ml_h=None, not_understood=f"the unit of rate {parts[2]} is not known")
    return Rate(rate_ml_h=_to(number, _ML_H[parts[2]]))


def _dispensed(data: str) -> Dispensed | None:
    parts = _DISPENSED.fullmatch(data)
    if parts is None:
        return None
    infused, withdrawn = _number(parts[1]), _number(parts[2])
    if infused is None or withdrawn is None:
        return None
    if parts[3] not in _ML:
        words = f"the unit of volume {parts[3]} is not known"
        return Dispensed(infused_ml=None, withdrawn_ml=None, not_understood=words)
    ml = _ML[parts[3]]
    return Dispensed(infused_ml=_to(infused, ml), withdrawn_ml=_to(withdrawn, ml))


def _to(number: float, factor: float) -> float:
    """The product as a person would write it: 974.0 uL are 0.974 mL and no 0.9740000000000001."""
    return round(number * factor, 6)


_READERS: dict[Query, Callable[[str], Value | None]] = {
    Query.VERSION: _version,
    Query.SAFE_MODE: _safe_mode,
    Query.RATE: _rate,
    Query.DISPENSED: _dispensed,
}
