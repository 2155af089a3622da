"""Q Core (Eitan) Sapphire: the frames of the binary protocol "QCP", read side.

::

    BB    67      00     65      01    00 AB   07        ... n bytes of data ...   7B
    start target  flags  sender  type  n       sequence  numbers little endian     checksum
                  = 0                  big             number
                                       endian          up by one a message, 255 is followed by 0

The checksum is the sum, low 8 bits, of all bytes from the target to the last one of the data. Who: 100
cradle, 101 pump, 102 communication module, 103 PC. Nothing is escaped: BB may occur anywhere, so a start is
believed only if target, flags, sender, type and size behind it are possible. 9600 baud, 8 data bits, no
parity, 1 stop bit, no flow control.

The only message that this file can encode is "This is PC" (type 3, data 22), which asks the pump to push
**batches** (type 1) about ten times a second, and must come again within 30 s.

==========  ====  ==================================================
offset      size  in the data of a batch, all unsigned, little endian
==========  ====  ==================================================
34          4     software version (how it is coded is not known)
38          4     serial number
45          2     drop size (unit not known)
47          2     rate, 0.1 ml/h
163         4     volume still to be infused, 0.01 ml
167         4     volume infused so far, 0.01 ml
==========  ====  ==================================================

What is in the other bytes is not known, among it alarms, state, battery, air and pressure. How long a batch
is may depend on the software: a field that lies beyond its end was not reported.

Beware: other commands of type 3, and most other types, **change the pump**: there is no code for them here.

Source: the code of one third-party client, which follows the maker's document; that document was not seen. It
shows the checksum of messages to the pump, and does not check that of messages from it: that this one follows
the same rule is inferred. So it is checked, frames that fail are counted, and ``check=False`` believes them.
"""

from __future__ import annotations

import struct
from enum import IntEnum

from msgspec import Struct

from drivers.framing import SizedStream
from drivers.reading import FaultKind

START = 0xBB
HEAD_BYTES = 8
_CHECKSUM_BYTES = 1
# A batch is known to have at least 171 bytes of data. Six times that leaves room for any software version; a
# damaged size field can then make us wait for no more than a second of the line (1033 bytes take 1.08 s).
DATA_LIMIT_BYTES = 1_024
FRAME_LIMIT_BYTES = HEAD_BYTES + DATA_LIMIT_BYTES + _CHECKSUM_BYTES
# The head without the sequence number is all that can be checked.
_CHECKED_BYTES = 7
_FLAGS = 0
_THIS_IS_PC = 22
_SEQUENCE_NUMBERS = 256

_RATE_ML_H_STEPS = 10
_VOLUME_ML_STEPS = 100
_VERSION_AT, _SERIAL_AT, _DROP_SIZE_AT, _RATE_AT, _LEFT_AT, _INFUSED_AT = 34, 38, 45, 47, 163, 167
_TWO_BYTES = struct.Struct("<H")
_FOUR_BYTES = struct.Struct("<I")


class Who(IntEnum):
    """Who sends a message, or is to have it."""

    CRADLE = 100
    PUMP = 101
    COMMUNICATION_MODULE = 102
    PC = 103


class MessageType(IntEnum):
    """Byte 4. Most of them change the pump; what a pump says in any but a batch is not known."""

    OLD_MODE = 0
    BATCH = 1
    EACH_BYTE_A_MESSAGE = 2
    COMMAND = 3
    PRESSURE_CYCLE = 4
    ENCODER_CYCLE = 5
    NEEDED_FLOW = 6
    NEEDED_CYCLE_MAPPING = 7
    BALANCE = 8
    SET_CYCLE_MAPPING = 9
    CRADLE_MESSAGE = 10
    LARGE_BATCH = 11
    CRADLE_RESET = 12
    WRITE_EEPROM = 13
    PRESSURE_PARAMETERS = 14
    READ_EEPROM = 15
    SET_PRIME = 16
    SET_ALARM_STATUS = 17
    WRITE_BATTERY_EEPROM = 18
    SET_EVENT = 19
    SCREEN_COMMAND = 20
    ID_SOFT_BATCH = 21
    SET_DATE_AND_TIME = 22
    DEBUG_WORDS = 23
    BATCH_COMMAND = 24
    GENERATION_2 = 25
    RESPONSE_TO_COMMAND = 26
    TEST = 27


_WHO = frozenset(Who)
_TYPES = frozenset(MessageType)
_BATCH_ROUTE = (Who.PC, _FLAGS, Who.PUMP, MessageType.BATCH)


class Batch(Struct, frozen=True, kw_only=True):
    """What a pump pushes; ``None`` is a field beyond the end of this batch."""

    sequence: int
    version: int | None
    serial: int | None
    drop_size: int | None
    rate_ml_h: float | None
    """Whether it is the programmed rate or the momentary one is not known."""
    vtbi_ml: float | None
    """Still to be infused."""
    volume_ml: float | None


class OtherMessage(Struct, frozen=True, kw_only=True):
    """An intact message that is not a batch from the pump to the PC; what its data mean is not known."""

    target: Who
    sender: Who
    type: MessageType
    data: bytes


class Unreadable(Struct, frozen=True, kw_only=True):
    """Bytes that are no message: damaged on the way."""

    kind: FaultKind
    detail: str


Message = Batch | OtherMessage


def checksum(body: bytes) -> int:
    """The check of a frame; ``body`` is all between its start and its checksum."""
    return sum(body) & 0xFF


def keep_alive(sequence: int) -> bytes:
    """ "This is PC", which opens the link and keeps it open, with one of the 256 sequence numbers."""
    body = bytes(
        (Who.PUMP, _FLAGS, Who.PC, MessageType.COMMAND, 0, 1, sequence % _SEQUENCE_NUMBERS, _THIS_IS_PC)
    )
    return bytes([START]) + body + bytes([checksum(body)])


KEEP_ALIVE_FRAMES = frozenset(keep_alive(sequence) for sequence in range(_SEQUENCE_NUMBERS))
"""Every frame that this driver may ever write."""


def stream(*, check: bool = True) -> SizedStream:
    """A fresh cutter for this protocol; with ``check=False`` a checksum that does not fit is only counted."""
    return SizedStream(
        start=START,
        head_bytes=_CHECKED_BYTES,
        measure=_measure,
        flaw=_flaw,
        believe_flawed=not check,
        limit_bytes=FRAME_LIMIT_BYTES,
    )


def is_batch(frame: bytes) -> bool:
    """Whether a frame that was cut off is a batch from the pump to the PC: cheaper than to decode it."""
    return tuple(frame[1:5]) == _BATCH_ROUTE


def decode(frame: bytes, *, check: bool = True) -> Message | Unreadable:
    """What one frame says, from its start to its checksum. Never raises, whatever the bytes."""
    length = _measure(frame[:_CHECKED_BYTES])
    if isinstance(length, str):
        return Unreadable(kind=FaultKind.GARBLED, detail=length)
    if not length or length != len(frame):
        return Unreadable(kind=FaultKind.GARBLED, detail=f"{len(frame)} bytes are not one frame")
    if check and (why := _flaw(frame)):
        return Unreadable(kind=FaultKind.GARBLED, detail=why)
    data = frame[HEAD_BYTES:-_CHECKSUM_BYTES]
    if not is_batch(frame):
        return OtherMessage(target=Who(frame[1]), sender=Who(frame[3]), type=MessageType(frame[4]), data=data)
    rate = _number(_TWO_BYTES, data, _RATE_AT)
    left = _number(_FOUR_BYTES, data, _LEFT_AT)
    infused = _number(_FOUR_BYTES, data, _INFUSED_AT)
    return Batch(
        sequence=frame[7],
        version=_number(_FOUR_BYTES, data, _VERSION_AT),
        serial=_number(_FOUR_BYTES, data, _SERIAL_AT),
        drop_size=_number(_TWO_BYTES, data, _DROP_SIZE_AT),
        rate_ml_h=None if rate is None else rate / _RATE_ML_H_STEPS,
        vtbi_ml=None if left is None else left / _VOLUME_ML_STEPS,
        volume_ml=None if infused is None else infused / _VOLUME_ML_STEPS,
    )


def _number(layout: struct.Struct, data: bytes, at: int) -> int | None:
    if at + layout.size > len(data):
        return None
    (number,) = layout.unpack_from(data, at)
    return int(number)


def _measure(head: bytes) -> int | str:
    """How long the frame is that begins with these bytes; 0 if they are too few; words if none does."""
    possible = ((START,), _WHO, (_FLAGS,), _WHO, _TYPES)
    for byte, allowed, what in zip(head, possible, _NOT_POSSIBLE, strict=False):
        if byte not in allowed:
            return what
    size = int.from_bytes(head[5:7].ljust(2, b"\0"), "big")
    if size > DATA_LIMIT_BYTES:
        return f"more than {DATA_LIMIT_BYTES} bytes of data"
    return HEAD_BYTES + size + _CHECKSUM_BYTES if len(head) >= _CHECKED_BYTES else 0


_NOT_POSSIBLE = (
    "no frame begins there",
    "for nobody that we know",
    "flags that we do not know",
    "from nobody that we know",
    "a type that we do not know",
)


def _flaw(frame: bytes) -> str:
    return "" if checksum(frame[1:-1]) == frame[-1] else "the checksum does not fit"
