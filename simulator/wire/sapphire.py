"""The Sapphire pump's side of its binary protocol, from the protocol facts alone.

A message::

    BB  to  00  from  type  size  number  data ...  check

    to, from:  101 pump, 103 PC              size:   of the data alone, two bytes, the higher one first
    number:    counts this end's messages    check:  the sum of everything between BB and it, in one byte

A PC that says "This is PC" (type 3, data 22) is pushed a batch every 100 ms, or, since a batch takes longer
than that on a line of 9600 baud, one after the other. It has to say so again within 30 s. What happens when
it does not is not known: here the pushing ends. Often one such message did not open the link, and two did:
here it takes two within 30 s, always.

What it does *not* do: every other command, whatever it would do to a real pump, is taken and changes nothing.
No source knows the answers to them, so there are none. In a batch all bytes without a known meaning are 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil

from simulator.pump import Truth
from simulator.wire.wire import Address, Answer, LineSettings, Pumps, WireFamily

BATCH_BYTES = 171
"""The shortest batch that holds every field that is known."""
LONGEST_DATA = 1024
"""Far above every known message; a size above it is noise."""
PUSHED_EVERY_MS = 100
KEPT_OPEN_FOR_MS = 30_000
PAUSE_MS = 500
"""After so long without a byte, what came before it is no longer waited for to be finished."""
TO_THE_PUMP = 101
TO_THE_PC = 103
SOFTWARE_VERSION = 0x00010203
DROP_SIZE = 50

_PLACES = {100, 101, 102, 103}
_LAST_TYPE = 27
_BATCH_TYPE = 1
_COMMAND_TYPE = 3
_THIS_IS_PC = b"\x16"
_HEAD = 8


def check(rest: bytes) -> int:
    """The checksum of a message: ``rest`` is what follows BB."""
    total = 0
    for byte in rest:
        total = (total + byte) % 256
    return total


def frame(*, to: int, sender: int, kind: int, number: int, data: bytes) -> bytes:
    """A message as it goes over the wire."""
    size_high, size_low = divmod(len(data), 256)
    rest = bytes((to, 0, sender, kind, size_high, size_low, number % 256)) + data
    return b"\xbb" + rest + bytes((check(rest),))


def batch_data(truth: Truth, serial_number: int, data_bytes: int = BATCH_BYTES) -> bytes:
    """The data of a batch; fields that do not fit into ``data_bytes`` are left out."""
    data = bytearray(max(data_bytes, BATCH_BYTES))
    data[34:38] = _low_first(SOFTWARE_VERSION, 4)
    data[38:42] = _low_first(serial_number, 4)
    data[45:47] = _low_first(DROP_SIZE, 2)
    data[47:49] = _low_first(round(truth.rate_ml_h * 10), 2)
    data[163:167] = _low_first(round(truth.vtbi_ml * 100), 4)
    data[167:171] = _low_first(round(truth.counter_ml * 100), 4)
    return bytes(data[:data_bytes])


def _low_first(number: int, size: int) -> bytes:
    """An unsigned number, its lowest byte first; what does not fit is shown as the highest that does."""
    number = min(max(number, 0), 256**size - 1)
    return bytes((number >> 8 * place) & 0xFF for place in range(size))


def _as_number(serial: str) -> int:
    """The serial number that the pump can say: the digits of the one it has, at most 32 bits."""
    return int("".join(digit for digit in serial if digit in "0123456789") or "0") % 2**32


class SapphireWire:
    """One client's conversation with a Sapphire pump."""

    thinking_ms = 5

    def __init__(self, serial_numbers: Mapping[Address, str], data_bytes: int = BATCH_BYTES) -> None:
        [serial_number] = serial_numbers.values()
        self._serial_number = _as_number(serial_number)
        self._data_bytes = data_bytes
        on_the_line_ms = (_HEAD + data_bytes + 1) * LINE.byte_ms
        self._period_ms = max(PUSHED_EVERY_MS, ceil(on_the_line_ms))
        self._number = 0
        self._heard = bytearray()
        self._heard_ms = 0
        self._greeted_ms: int | None = None
        self._push_ms: int | None = None

    def receive(self, data: bytes, pumps: Pumps) -> list[Answer]:
        """See ``Wire.receive``. A message that was understood is answered with silence."""
        if data:
            if pumps.now_ms - self._heard_ms > PAUSE_MS:
                self._heard.clear()
            self._heard_ms = pumps.now_ms
        self._heard += data
        answers = []
        while self._heard:
            length = self._length()
            if length < 0:
                del self._heard[0]
            elif length == 0 or len(self._heard) < length:
                break
            elif check(bytes(self._heard[1 : length - 1])) != self._heard[length - 1]:
                del self._heard[0]
            else:
                message = bytes(self._heard[:length])
                del self._heard[:length]
                if message[1] == TO_THE_PUMP:
                    self._take(message, pumps.now_ms)
                    answers.append(Answer(message, b""))
        return answers

    def unasked(self, pumps: Pumps) -> list[Answer]:
        """See ``Wire.unasked``: a batch, if it is time for one and a PC is there."""
        if self._push_ms is None or pumps.now_ms < self._push_ms:
            return []
        if self._greeted_ms is None or pumps.now_ms - self._greeted_ms > KEPT_OPEN_FOR_MS:
            self._push_ms = None
            return []
        # Not from when it was due: batches that were missed are not made up for.
        self._push_ms = pumps.now_ms + self._period_ms
        data = batch_data(pumps.truth(None), self._serial_number, self._data_bytes)
        reply = frame(to=TO_THE_PC, sender=TO_THE_PUMP, kind=_BATCH_TYPE, number=self._number, data=data)
        self._number = (self._number + 1) % 256
        return [Answer(b"", reply)]

    def next_unasked_ms(self) -> int | None:
        """See ``Wire.next_unasked_ms``."""
        return self._push_ms

    def connected(self, now_ms: int) -> None:
        """See ``Wire.connected``: a PC has to open the link anew."""
        self._heard.clear()
        self._greeted_ms = None
        self._push_ms = None

    def _length(self) -> int:
        """How long the message is that begins what was heard; 0: not known yet; -1: none begins there."""
        head = self._heard[:7]
        wrong = (
            head[0] != 0xBB,
            len(head) > 1 and head[1] not in _PLACES,
            len(head) > 2 and head[2] != 0,
            len(head) > 3 and head[3] not in _PLACES,
            len(head) > 4 and head[4] > _LAST_TYPE,
            len(head) > 5 and head[5] > LONGEST_DATA // 256,
        )
        if any(wrong):
            return -1
        if len(head) < 7:
            return 0
        size = head[5] * 256 + head[6]
        return -1 if size > LONGEST_DATA else _HEAD + size + 1

    def _take(self, message: bytes, now_ms: int) -> None:
        if message[4] != _COMMAND_TYPE or message[_HEAD:-1] != _THIS_IS_PC:
            return
        again = self._greeted_ms is not None and now_ms - self._greeted_ms <= KEPT_OPEN_FOR_MS
        if again and self._push_ms is None:
            self._push_ms = now_ms + self._period_ms
        self._greeted_ms = now_ms


LINE = LineSettings(baud=9_600)
FAMILY = WireFamily(line=LINE, open_wire=SapphireWire)
"""RS-232, 8 data bits, no parity, one stop bit; one pump at a port."""
