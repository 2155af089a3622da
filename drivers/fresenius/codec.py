"""Fresenius Orchestra Base A, Base Primea and the Pilote pumps: the frames of the ASCII protocol, read side.

::

    STX  1  C ; d 0 1 F 4 ; r 0 0 0 3 C 9  2 5  ETX
    02   │  └──────────── text ─────────┘  └┤   03
         address: 0 base, 1 to 5 module,    checksum: FF minus the low 8 bits of the sum of address and text,
         none: a stand-alone pump           two digits, 0-9 A-F

Between frames, and before any reply frame, stand single control codes: ACK (06) a frame came intact; NAK (15)
and one character, why it did not; ENQ (05), at any time and **even inside a frame**, "are you there?", which
is to be answered with DC4 (14) without delay. 19200 baud, 7 data bits, even parity, 1 stop bit, no flow
control. A message is of 20 to 7E and no longer than 80 characters.

===========  =================================================================================================
text (host)  answer (pump)
===========  =================================================================================================
DC           ``C``: the session is open. The base first, then (after 1 s) each module
FC           ``C``: the session is closed. The modules first
LE;b         base: ``C;b`` and a hexadecimal mask, bit 0 for module 1
LE;dr        ``C;d`` rate, hexadecimal, 0.1 ml/h; ``;r`` volume infused, hexadecimal, 0.001 ml
LF;b         device type; the form of the answer is not known
DE;r         ``C``, and then ``E`` messages of its own accord when a value changes
AE           ``C``, and no more of them
===========  =================================================================================================

The letter of an answer: ``C`` correct, ``I`` and a two-character code an error, ``E`` and ``M`` a message of
the pump's own accord. Those two are answered with ACK, and then with a frame of address and letter.

Beware: the sum does not see two characters that changed their places, so a frame whose checksum fits may lie.
Beware: nothing says how many digits a value has; values are read up to the next ``;``.

This protocol is **not** that of the Agilia range, whose binary export protocol is another one.

Source: the code of a third-party client for these devices, its history, and what it quotes of the vendor's
document, which was not seen. Not known: how alarms, errors and modes are written, how often ENQ comes and how
quick DC4 must be, the form of identification; none of that is read here.
"""

from __future__ import annotations

import re
from enum import StrEnum

from msgspec import Struct

from drivers.framing import HandshakeStream
from drivers.reading import FaultKind

STX, ETX, ENQ, ACK, DC4, NAK = b"\x02", b"\x03", b"\x05", b"\x06", b"\x14", b"\x15"
BASE = 0
MODULES = (1, 2, 3, 4, 5)
# A message of 80 characters and its frame are 85 bytes; line checks may stand among them.
FRAME_LIMIT_BYTES = 128

Address = int | None
"""``None``: a stand-alone pump, whose frames have no address."""

_HEXADECIMAL = re.compile(rb"[0-9A-Fa-f]{1,8}")
_ERROR_CODE = re.compile(rb"[0-9A-Z]{2}")
_RATE_LETTER, _VOLUME_LETTER, _MODULES_LETTER = "d", "r", "b"


class Command(StrEnum):
    """What a read-only driver may say: the name is the whole text."""

    OPEN = "DC"
    CLOSE = "FC"
    MODULES = "LE;b"
    RATE = "LE;d"
    VOLUME = "LE;r"
    RATE_AND_VOLUME = "LE;dr"
    DEVICE_TYPE = "LF;b"
    SUBSCRIBE_VOLUME = "DE;r"
    UNSUBSCRIBE = "AE"


class Answer(Struct, frozen=True, kw_only=True):
    """``C``: the values it bears by their letters; none for a command that asks for none."""

    address: Address
    items: tuple[tuple[str, bytes], ...]

    @property
    def letters(self) -> str:
        """Which values it bears, in its order."""
        return "".join(letter for letter, _ in self.items)

    @property
    def rate_ml_h(self) -> float:
        """The rate. Raises ValueError where there is none that can be read."""
        return _number(self.items, _RATE_LETTER) / 10

    @property
    def volume_ml(self) -> float:
        """The volume infused. Raises ValueError where there is none that can be read."""
        return _number(self.items, _VOLUME_LETTER) / 1_000

    @property
    def modules(self) -> tuple[int, ...]:
        """The modules that are there. Raises ValueError where no mask can be read."""
        mask = _number(self.items, _MODULES_LETTER)
        return tuple(module for module in MODULES if mask >> (module - 1) & 1)


class Refusal(Struct, frozen=True, kw_only=True):
    """``I``: a command that the pump does not do, and why, as two characters."""

    address: Address
    code: str


class Spontaneous(Struct, frozen=True, kw_only=True):
    """``E`` or ``M``: said of the pump's own accord, and to be acknowledged by the same letter."""

    address: Address
    letter: str
    items: tuple[tuple[str, bytes], ...]


class Acknowledged(Struct, frozen=True):
    """ACK: our frame came intact."""


class NotAcknowledged(Struct, frozen=True):
    """NAK: why our frame was not taken, one character."""

    reason: str


class LineCheck(Struct, frozen=True):
    """ENQ between two frames."""


class Empty(Struct, frozen=True):
    """A frame with nothing in it: it says nothing, and harms nothing."""


class Unreadable(Struct, frozen=True, kw_only=True):
    """A frame that says nothing: damaged on the way (garbled), or intact and unknown to us (unsupported)."""

    kind: FaultKind
    detail: str


Said = Answer | Refusal | Spontaneous | Acknowledged | NotAcknowledged | LineCheck | Empty

NOT_ACKNOWLEDGED = {
    "1": "a character was not received properly",
    "2": "the checksum was wrong",
    "4": "the address was wrong",
    "5": "our acknowledgement did not come",
    "6": "the receiver was not ready",
    "7": "the length of the frame was wrong",
    "8": "a control code was in the frame",
}
"""The reasons behind a NAK."""

REFUSED = {
    "01": "unknown command",
    "02": "command disabled in this mode",
    "03": "command disabled in this status",
    "04": "syntax error",
    "05": "operating mode not authorised",
    "06": "operating mode already active",
    "07": "new mode disabled in this mode",
    "08": "parameter out of limits",
    "09": "new mode disabled in this status",
    "0A": "identifier not used",
    "0B": "identifier wrong",
    "0C": "message too long",
    "0D": "session with the base not open",
    "0E": "communication with the module impossible",
    "12": "an alarm is present",
    "14": "start without a rate",
    "15": "volume too small for a bolus",
    "16": "empty-syringe mode impossible",
    "1A": "wrong event number",
    "1E": "session with the module not open",
    "1F": "a module is not in manual mode",
    "20": "command not authorised on this port",
    "22": "new mode not authorised",
    "24": "connection mode wrong",
    "25": "drug number wrong",
}
"""The codes of a refusal."""


def stream() -> HandshakeStream:
    """A fresh cutter for this protocol. ENQ may stand anywhere, and is left where it stood."""
    return HandshakeStream(
        start=STX, end=ETX, words=ACK + ENQ, pairs=NAK, anywhere=ENQ, limit_bytes=FRAME_LIMIT_BYTES
    )


def checksum(message: bytes) -> bytes:
    """The two digits behind a message (address and text)."""
    return b"%02X" % (0xFF - (sum(message) & 0xFF))


def _framed(address: Address, text: str) -> bytes:
    message = ("" if address is None else str(address)).encode("ascii") + text.encode("ascii")
    return STX + message + checksum(message) + ETX


def encode(address: Address, command: Command) -> bytes:
    """The frame that says ``command`` to one pump, or to the base."""
    return _framed(address, command.value)


def encode_seen(address: Address, letter: str) -> bytes:
    """The frame that tells a pump that its spontaneous message (``E`` or ``M``) has been seen."""
    assert letter in _SPONTANEOUS, "an answer is not answered"
    return _framed(address, letter)


def decode(cut: bytes) -> Said | Unreadable:
    """What one cut of the stream says: a control code, or a frame from STX to ETX. Never raises."""
    cut = cut if cut == ENQ else cut.replace(ENQ, b"")
    match cut[:1]:
        case b"\x05":
            return LineCheck()
        case b"\x06":
            return Acknowledged()
        case b"\x15":
            return NotAcknowledged(cut[1:2].decode("latin-1"))
    if cut == STX + ETX:
        return Empty()
    message, check = cut[1:-3], cut[-3:-1]
    # Compared as text: a lower-case checksum was never seen and is taken for damage.
    if len(cut) < 5 or check != checksum(message):
        return Unreadable(kind=FaultKind.GARBLED, detail="the checksum does not fit")
    if not (message.isascii() and message.decode("ascii").isprintable()):
        return Unreadable(kind=FaultKind.UNSUPPORTED, detail="not printable ASCII")
    return _message(message)


def _message(message: bytes) -> Said | Unreadable:
    head, *rest = message.split(b";")
    address = int(head[:1]) if head[:1].isdigit() else None
    status = head if address is None else head[1:]
    letter = status.decode("ascii")
    if letter == "I":
        if len(rest) != 1 or _ERROR_CODE.fullmatch(rest[0]) is None:
            return Unreadable(kind=FaultKind.UNSUPPORTED, detail="an error without a code of two characters")
        return Refusal(address=address, code=rest[0].decode("ascii"))
    items = tuple((item[:1].decode("ascii"), item[1:]) for item in rest)
    if letter == "C":
        return Answer(address=address, items=items)
    if letter in _SPONTANEOUS:
        return Spontaneous(address=address, letter=letter, items=items)
    return Unreadable(kind=FaultKind.UNSUPPORTED, detail=f"{letter[:20]!r} is no status that we know")


def _number(items: tuple[tuple[str, bytes], ...], letter: str) -> int:
    values = [value for name, value in items if name == letter]
    if len(values) != 1:
        raise ValueError(f"{len(values)} values of {letter!r}, one is known")
    if _HEXADECIMAL.fullmatch(values[0]) is None:
        raise ValueError(f"{letter}: {values[0][:20]!r} is not a hexadecimal number")
    return int(values[0], 16)


_SPONTANEOUS = ("E", "M")
_ADDRESSES: tuple[Address, ...] = (None, BASE, *MODULES)
COMMAND_FRAMES = frozenset(encode(address, command) for address in _ADDRESSES for command in Command)
"""Every command that this driver may ever write."""
SEEN_FRAMES = frozenset(encode_seen(address, letter) for address in _ADDRESSES for letter in _SPONTANEOUS)
"""Every frame that tells a pump that its message has been seen."""
NAK_CHECKSUM = NAK + b"2"

_PIECES = re.compile(rb"\x14{0,8}((?:\x06|\x152|\x02[^\x02\x03]+\x03)*)")
_FRAME = re.compile(rb"\x02[^\x02\x03]+\x03")


def is_harmless(data: bytes) -> bool:
    """Whether ``data`` is nothing but line answers, acknowledgements of messages, and at most one command of
    the list, in this order.
    """
    pieces = _PIECES.fullmatch(data)
    if not data or pieces is None:
        return False
    frames = _FRAME.findall(pieces[1])
    commands = [frame for frame in frames if frame in COMMAND_FRAMES]
    if any(frame not in COMMAND_FRAMES | SEEN_FRAMES for frame in frames):
        return False
    return not commands or (len(commands) == 1 and data.endswith(commands[0]))
