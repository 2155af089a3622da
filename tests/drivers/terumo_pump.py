"""The other end of the wire for tests of the Terumo dialogue: frames put together here, not by the driver.

What pins both ends are the hand-checked frames of ``tests/frames/terumo.toml``.
"""

from __future__ import annotations

import base64
import heapq
import itertools
import re
import tomllib
from collections.abc import Callable
from pathlib import Path

from drivers.family import Session
from drivers.reading import Fact, LinkFault, Reading
from tests.drivers.wires import Wire, clean

_FRAMES = tomllib.loads((Path(__file__).parent.parent / "frames" / "terumo.toml").read_text("utf-8"))["frame"]
FRAMES: dict[str, dict] = {frame["id"]: frame for frame in _FRAMES}
DEVICE_ID = "000100700000001201000001"
WHO = "DEVID"
STATUS = "status"


def bytes_of(identity: str) -> bytes:
    """The bytes of one hand-checked frame."""
    return bytes.fromhex(FRAMES[identity]["hex"])


def framed(text: str | bytes) -> bytes:
    """A frame around any text, with a CRC worked out bit by bit."""
    if isinstance(text, str):
        text = text.encode("latin-1")
    register = 0
    for byte in text:
        for bit in range(7, -1, -1):
            feedback = (register >> 15) ^ ((byte >> bit) & 1)
            register = (register << 1) & 0xFFFF
            if feedback:
                register ^= 0x1021
    return b"\x02" + text + f"{register:04X}\x03".encode()


def packet(kind: str, device_id: str, block: bytes | None = None) -> bytes:
    """A REQ or a REP, with any block or none."""
    command = "" if block is None else f"<CMD>{base64.b64encode(block).decode()}</CMD>"
    return framed(f'<?xml version="1.0"?><{kind}><DEVID>{device_id}</DEVID>{command}</{kind}>')


def block_of(frame: bytes) -> bytes:
    """The decoded CMD of a frame; empty if it has none."""
    found = re.search(rb"<CMD>(.*)</CMD>", frame)
    return b"" if found is None else base64.b64decode(found[1])


def status(like: str = "T5", *, device_id: str = DEVICE_ID, length: int | None = None, **at: bytes) -> bytes:
    """A status reply: that of a hand-checked frame, with other bytes at some offsets (``at_16=b"..."``)."""
    block = bytearray(block_of(bytes_of(like)))
    for place, value in at.items():
        offset = int(place.removeprefix("at_"))
        block[offset : offset + len(value)] = value
    return packet("REP", device_id, bytes(block[:length]))


def numbered(frame: bytes, number: int) -> bytes:
    """The same reply as an answer to another query."""
    device_id = re.search(rb"<DEVID>(.*)</DEVID>", frame)
    assert device_id is not None
    return packet("REP", device_id[1].decode(), bytes([number]) + block_of(frame)[1:])


Says = Callable[[int], bytes]


class ScriptedPump:
    """Says who it is and how it is, each a while after the query. What it says was true when it was asked."""

    def __init__(
        self,
        says: Says,
        *,
        device_id: str | Callable[[int], str] = DEVICE_ID,
        takes_ms: Callable[[int], int] = lambda _: 20,
        repeats_numbers: bool = True,
        busy: bool = False,
    ) -> None:
        self._says = says
        self._device_id = device_id if callable(device_id) else lambda _: device_id
        self._takes_ms = takes_ms
        self._repeats_numbers = repeats_numbers
        self._busy = busy
        self._busy_until_ms = 0
        self._heard = b""
        self.longest_backlog_ms = 0

    def receive(self, data: bytes, now_ms: int) -> list[tuple[int, bytes]]:
        """Replies to the queries that are complete now, and when each is out."""
        *asked, self._heard = (self._heard + data).split(b"\x03")
        return [
            (self._out_ms(now_ms), reply)
            for frame in asked
            if (reply := self._reply(frame + b"\x03", now_ms))
        ]

    def _out_ms(self, now_ms: int) -> int:
        begins_ms = max(now_ms, self._busy_until_ms) if self._busy else now_ms
        self._busy_until_ms = max(self._busy_until_ms, begins_ms + self._takes_ms(now_ms))
        self.longest_backlog_ms = max(self.longest_backlog_ms, self._busy_until_ms - now_ms)
        return self._busy_until_ms

    def _reply(self, frame: bytes, now_ms: int) -> bytes:
        frame = frame[frame.rfind(b"\x02") :] if b"\x02" in frame else b""
        if frame != framed(frame[1:-5]):
            return b""
        device_id = self._device_id(now_ms)
        if frame == bytes_of("T1"):
            return packet("REP", device_id) if device_id else b""
        if f"<DEVID>{device_id}</DEVID>".encode() not in frame:
            return b""
        said = self._says(now_ms)
        number = block_of(frame)[0] if self._repeats_numbers else 0
        return said if not said or not said.startswith(b"\x02") else numbered(said, number)


class Dialogue:
    """A session and a scripted pump, each at one end of two wires, in virtual time."""

    def __init__(
        self, session: Session, pump: ScriptedPump, *, there: Wire | None = None, back: Wire | None = None
    ) -> None:
        self.session = session
        self.facts: list[Fact] = []
        self.sent: list[tuple[int, bytes]] = []
        self._pump = pump
        self._there = there or Wire(clean, seed=0)
        self._back = back or Wire(clean, seed=0)
        self._arriving: list[tuple[int, int, str, bytes]] = []
        self._number = itertools.count()
        self._now_ms = 0
        session.opened(0)

    def run(self, until_ms: int) -> None:
        """Let time go on to ``until_ms``, doing at each instant what is to be done."""
        while True:
            data = self.session.due(self._now_ms)
            if data:
                self.sent.append((self._now_ms, data))
                self._send("pump", self._there.carry(data, self._now_ms))
            next_ms = max(self.session.next_due_ms(), self._now_ms + 1)
            if self._arriving:
                next_ms = min(next_ms, max(self._arriving[0][0], self._now_ms))
            if next_ms > until_ms:
                return
            self._now_ms = next_ms
            self._let_arrive()

    def _let_arrive(self) -> None:
        if not self._arriving or self._arriving[0][0] > self._now_ms:
            self.facts += self.session.receive(b"", self._now_ms)
            return
        _, _, end, data = heapq.heappop(self._arriving)
        if end == "host":
            self.facts += self.session.receive(data, self._now_ms)
            return
        for out_ms, reply in self._pump.receive(data, self._now_ms):
            self._send("host", self._back.carry(reply, out_ms))

    def _send(self, end: str, pieces: list[tuple[int, bytes]]) -> None:
        for at_ms, piece in pieces:
            heapq.heappush(self._arriving, (at_ms, next(self._number), end, piece))

    def asked(self) -> list[str]:
        """What was asked, in order."""
        return [query for _, query in self.asked_at()]

    def asked_at(self) -> list[tuple[int, str]]:
        """What was asked, and when."""
        return [(at_ms, WHO if data == bytes_of("T1") else STATUS) for at_ms, data in self.sent]

    def numbers(self) -> list[int]:
        """The numbers of the status queries."""
        return [block_of(data)[0] for _, data in self.sent if data != bytes_of("T1")]

    @property
    def readings(self) -> list[Reading]:
        """What was read."""
        return [fact for fact in self.facts if isinstance(fact, Reading)]

    @property
    def faults(self) -> list[LinkFault]:
        """What could not be."""
        return [fact for fact in self.facts if isinstance(fact, LinkFault)]
