"""The side of Fresenius Pilote pumps of their ASCII protocol: an Orchestra base with modules, or one alone.

A frame::

    STX  [address]  text  checksum  ETX       address: 0 base, 1 to 5 module; none: a pump that stands alone
                                              checksum: 255 minus the sum of address and text modulo 256

Every frame that came intact is answered with ACK, and after it the reply; one that did not, with NAK and a
character. The base asks every so often with ENQ whether anybody is there, and wants DC4; who does not say so
in time has no session any more. A module in a base is read only after the base, and then the module, has been
opened; a base needs a second after that. A value that was subscribed to is told when it has changed.

What no source says is decided so: a module that is not there is error 0E, an address that cannot be NAK 4; a
base that is still opening says NAK 6; identifiers whose form is not known are not used (0A), commands whose
answer is not known do not exist (01); a message is not sent twice; ENQ comes only while a session is open.

What it does *not* do: commands that would change a real pump (``PR``, ``PO``, ``RV``, ...) are answered with
C and change nothing: the delivery is the scenario's.
"""

from __future__ import annotations

from collections.abc import Mapping

from simulator.pump import Truth
from simulator.wire.wire import Address, Answer, LineSettings, Pumps, WireFamily

START, END, LINE_CHECK, TAKEN, STILL_HERE, NOT_TAKEN = 0x02, 0x03, 0x05, 0x06, 0x14, 0x15
TAKEN_BYTE = bytes([TAKEN])
LINE_CHECK_BYTE = bytes([LINE_CHECK])

BASE_ADDRESS = 0
MODULE_ADDRESSES = (1, 2, 3, 4, 5)
LONGEST_MESSAGE = 80
LONGEST_FRAME = 120
"""More without an end is not a frame, and is refused as too long."""
BASE_OPENS_IN_MS = 1_000
LINE_CHECK_EVERY_MS = 10_000
LINE_CHECK_PATIENCE_MS = 5_000
"""How often ENQ comes and how long it is waited for DC4: no source knows."""
LOOKS_FOR_CHANGES_EVERY_MS = 1_000

CHANGING = (
    b"MO", b"RZ", b"OF", b"SI", b"EP", b"AP", b"EN", b"PR", b"PO", b"PB", b"PF", b"PV", b"RV", b"PP", b"PS",
)  # fmt: skip
"""Commands that would change a real pump; here they are answered and change nothing."""


def check_digits(message: bytes) -> bytes:
    """The checksum of address and text as two upper-case digits."""
    total = 0
    for byte in message:
        total = (total + byte) % 256
    return format(255 - total, "02X").encode("ascii")


def frame(message: bytes) -> bytes:
    """Address and text as they go over the wire."""
    return bytes([START]) + message + check_digits(message) + bytes([END])


class FreseniusWire:
    """One client's conversation with a base and its modules, or with a pump that stands alone."""

    thinking_ms = 10

    def __init__(self, serial_numbers: Mapping[Address, str]) -> None:
        self._has_base = None not in serial_numbers
        self._message: bytearray | None = None
        self._reason_follows = False
        self._forget_sessions()

    def _forget_sessions(self) -> None:
        self._open: set[Address] = set()
        self._base_opened_ms: int | None = None
        self._told: dict[Address, dict[bytes, bytes]] = {}
        """Of each pump the values that were subscribed to, as they were told last."""
        self._next_look_ms = 0
        self._next_line_check_ms = 0
        self._still_here_until_ms: int | None = None

    # Of its own accord

    def connected(self, now_ms: int) -> None:
        """See ``Wire.connected``: a frame that was being sent is lost, a session is not."""
        self._message = None
        self._reason_follows = False

    def next_unasked_ms(self) -> int | None:
        """See ``Wire.next_unasked_ms``."""
        if not self._open:
            return None
        times = [self._next_line_check_ms]
        if self._still_here_until_ms is not None:
            times = [self._still_here_until_ms]
        if self._told:
            times.append(self._next_look_ms)
        return min(times)

    def unasked(self, pumps: Pumps) -> list[Answer]:
        """See ``Wire.unasked``: line checks, and values that have changed."""
        now_ms = pumps.now_ms
        self._end_unanswered(now_ms)
        if not self._open:
            return []
        said = []
        if self._still_here_until_ms is None and now_ms >= self._next_line_check_ms:
            said.append(Answer(b"", LINE_CHECK_BYTE))
            self._next_line_check_ms = now_ms + LINE_CHECK_EVERY_MS
            self._still_here_until_ms = now_ms + LINE_CHECK_PATIENCE_MS
        if self._told and now_ms >= self._next_look_ms:
            self._next_look_ms = now_ms + LOOKS_FOR_CHANGES_EVERY_MS
            for address in self._told:
                said.extend(self._changes(address, pumps))
        return said

    def _changes(self, address: Address, pumps: Pumps) -> list[Answer]:
        told, truth = self._told[address], pumps.truth(address)
        changed = [letter for letter, value in told.items() if VALUES[letter](truth) != value]
        if not changed:
            return []
        for letter in changed:
            told[letter] = VALUES[letter](truth)
        items = b"".join(b";" + letter + told[letter] for letter in changed)
        return [Answer(b"", frame(_written(address) + b"E" + items), address)]

    # Asked

    def receive(self, data: bytes, pumps: Pumps) -> list[Answer]:
        """See ``Wire.receive``."""
        self._end_unanswered(pumps.now_ms)
        answers: list[Answer] = []
        for byte in data:
            if byte == STILL_HERE:
                self._still_here_until_ms = None
            elif byte == LINE_CHECK:
                continue
            elif self._reason_follows:
                self._reason_follows = False
            elif byte == START:
                self._message = bytearray()
            elif self._message is None:
                self._reason_follows = byte == NOT_TAKEN
            elif byte == END:
                message, self._message = bytes(self._message), None
                if message:
                    answers.append(self._answer(message, pumps))
            elif byte < 0x20:
                answers.append(_not_taken(bytes(self._message), b"8"))
                self._message = None
            else:
                self._message.append(byte)
                if len(self._message) > LONGEST_FRAME:
                    answers.append(_not_taken(bytes(self._message), b"7"))
                    self._message = None
        return answers

    def _end_unanswered(self, now_ms: int) -> None:
        """A line check that nobody answered in time ends every session."""
        if self._still_here_until_ms is not None and now_ms >= self._still_here_until_ms:
            self._forget_sessions()

    def _answer(self, whole: bytes, pumps: Pumps) -> Answer:
        message, digits = whole[:-2], whole[-2:]
        if not message or digits != check_digits(message):
            return _not_taken(whole, b"2")
        has_address = message[:1].isdigit()
        address = int(message[:1]) if has_address else None
        text = message[1:] if has_address else message
        possible = (BASE_ADDRESS, *MODULE_ADDRESSES) if self._has_base else (None,)
        if address not in possible:
            return _not_taken(message, b"4")
        if self._is_still_opening(pumps.now_ms):
            return _not_taken(message, b"6")
        whose = None if address == BASE_ADDRESS else address
        if text in (b"E", b"M"):
            # What was told has been seen.
            return Answer(message, TAKEN_BYTE, whose)
        reply = self._too_long(message) or self._reply(address, text, pumps)
        return Answer(message, TAKEN_BYTE + frame(_written(address) + reply), whose)

    def _is_still_opening(self, now_ms: int) -> bool:
        return self._base_opened_ms is not None and now_ms < self._base_opened_ms + BASE_OPENS_IN_MS

    def _too_long(self, message: bytes) -> bytes:
        return b"I;0C" if len(message) > LONGEST_MESSAGE else b""

    def _reply(self, address: Address, text: bytes, pumps: Pumps) -> bytes:
        """Status and data of the reply to a command."""
        command, semicolon, argument = text.partition(b";")
        if address in MODULE_ADDRESSES and address not in pumps.addresses:
            return b"I;0E"
        if command == b"DC":
            return self._opened(address, pumps.now_ms)
        if address not in self._open:
            return b"I;0D" if address == BASE_ADDRESS else b"I;1E"
        if command == b"FC":
            self._close(address)
            return b"C"
        if command == b"AE":
            self._told.pop(address, None)
            return b"C"
        if command in (b"LE", b"DE"):
            return self._values(address, command, argument, pumps) if semicolon else b"I;04"
        if command == b"LF":
            return b"I;0A"
        if command in CHANGING and address != BASE_ADDRESS:
            return b"C"
        return b"I;01"

    def _opened(self, address: Address, now_ms: int) -> bytes:
        if address in MODULE_ADDRESSES and BASE_ADDRESS not in self._open:
            return b"I;0D"
        if not self._open:
            self._next_line_check_ms = now_ms + LINE_CHECK_EVERY_MS
        if address == BASE_ADDRESS and address not in self._open:
            self._base_opened_ms = now_ms
        self._open.add(address)
        return b"C"

    def _close(self, address: Address) -> None:
        if address == BASE_ADDRESS or not self._has_base:
            self._forget_sessions()
        else:
            self._open.discard(address)
            self._told.pop(address, None)

    def _values(self, address: Address, command: bytes, letters: bytes, pumps: Pumps) -> bytes:
        """The answer to LE, or to DE, which begins to watch them."""
        names = [letters[place : place + 1] for place in range(len(letters))]
        if not names or any(not b"a" <= name <= b"z" for name in names):
            return b"I;0B"
        if address == BASE_ADDRESS:
            if names != [b"b"] or command == b"DE":
                return b"I;0A"
            mask = sum(1 << (one - 1) for one in pumps.addresses if one is not None)
            return b"C;b%02X" % mask
        if any(name not in VALUES for name in names):
            return b"I;0A"
        values = {name: VALUES[name](pumps.truth(address)) for name in names}
        if command == b"DE":
            self._told[address] = values
            self._next_look_ms = pumps.now_ms + LOOKS_FOR_CHANGES_EVERY_MS
            return b"C"
        return b"C" + b"".join(b";" + name + value for name, value in values.items())


def _written(address: Address) -> bytes:
    return b"" if address is None else b"%d" % address


def _not_taken(request: bytes, reason: bytes) -> Answer:
    return Answer(request, bytes([NOT_TAKEN]) + reason)


def _rate(truth: Truth) -> bytes:
    return b"%04X" % round(truth.rate_ml_h * 10)


def _volume(truth: Truth) -> bytes:
    return b"%06X" % round(truth.counter_ml * 1_000)


VALUES = {b"d": _rate, b"r": _volume}
"""The identifiers whose form is known: rate in 0.1 ml/h, volume infused in 0.001 ml."""

FAMILY = WireFamily(
    line=LineSettings(baud=19_200, data_bits=7, parity="E"),
    open_wire=FreseniusWire,
    addresses=MODULE_ADDRESSES,
)
"""RS-232, 7 data bits, even parity, one stop bit; five modules at a base, or one pump without an address."""
