"""The other end of the wire for tests of the dialogue with a Sapphire: batches put together by hand, and a
simulated pump in virtual time.

The frames are not encoded by the driver. What pins both ends are those of ``tests/frames/sapphire.toml``.
"""

from __future__ import annotations

import heapq
import itertools
import tomllib
from pathlib import Path

from drivers.family import Session
from drivers.reading import Fact, LinkFault, Reading
from simulator.device import Device, Transmission
from tests.drivers.wires import Wire, clean

_FRAMES = tomllib.loads((Path(__file__).parent.parent / "frames" / "sapphire.toml").read_text("utf-8"))
FRAMES: dict[str, dict] = {frame["id"]: frame for frame in _FRAMES["frame"]}


def bytes_of(identity: str) -> bytes:
    """The bytes of one hand-checked frame."""
    return bytes.fromhex(FRAMES[identity]["hex"])


def framed(data: bytes, *, to: int = 103, sender: int = 101, kind: int = 1, sequence: int = 0) -> bytes:
    """A frame around any data."""
    body = bytes([to, 0, sender, kind]) + len(data).to_bytes(2, "big") + bytes([sequence]) + data
    return b"\xbb" + body + bytes([sum(body) % 256])


def batch(
    *,
    rate: int = 1_000,
    left: int = 5_000,
    infused: int = 1_234,
    serial: int = 1_234_567,
    version: int = 0x00010203,
    size: int = 171,
    sequence: int = 0,
    filler: int = 0,
) -> bytes:
    """A batch, its numbers in steps of the protocol, its unknown bytes all ``filler``."""
    data = bytearray([filler] * max(size, 171))
    data[34:38] = version.to_bytes(4, "little")
    data[38:42] = serial.to_bytes(4, "little")
    data[45:47] = (50).to_bytes(2, "little")
    data[47:49] = rate.to_bytes(2, "little")
    data[163:167] = left.to_bytes(4, "little")
    data[167:171] = infused.to_bytes(4, "little")
    return framed(bytes(data[:size]), sequence=sequence)


class Dialogue:
    """A session and a simulated device, each at one end of two wires, in virtual time."""

    def __init__(
        self, session: Session, device: Device, *, there: Wire | None = None, back: Wire | None = None
    ) -> None:
        self.session = session
        self.facts: list[Fact] = []
        self.sent: list[tuple[int, bytes]] = []
        self.pushed: list[Transmission] = []
        self.most_facts_at_once = 0
        self._device = device
        self._there = there or Wire(clean, seed=0)
        self._back = back or Wire(clean, seed=0)
        self._arriving: list[tuple[int, int, str, bytes]] = []
        self._number = itertools.count()
        self._now_ms = 0
        session.opened(0)

    @property
    def readings(self) -> list[Reading]:
        return [fact for fact in self.facts if isinstance(fact, Reading)]

    @property
    def faults(self) -> list[LinkFault]:
        return [fact for fact in self.facts if isinstance(fact, LinkFault)]

    def run(self, until_ms: int) -> None:
        """Let time go on to ``until_ms``, doing at each instant what is to be done."""
        while True:
            if self.session.next_due_ms() <= self._now_ms:
                self._told(b"")
                data = self.session.due(self._now_ms)
                if data:
                    self.sent.append((self._now_ms, data))
                    self._send("pump", self._there.carry(data, self._now_ms))
            times = [max(self.session.next_due_ms(), self._now_ms + 1)]
            if self._arriving:
                times.append(max(self._arriving[0][0], self._now_ms))
            change_ms = self._device.next_change_ms(self._now_ms)
            if change_ms is not None:
                times.append(max(change_ms, self._now_ms + 1))
            if min(times) > until_ms:
                return
            self._now_ms = min(times)
            self._pumps_turn(self._device.unasked(self._now_ms))
            self._let_arrive()

    def _let_arrive(self) -> None:
        while self._arriving and self._arriving[0][0] <= self._now_ms:
            _, _, end, data = heapq.heappop(self._arriving)
            if end == "host":
                self._told(data)
            else:
                self._pumps_turn(self._device.receive(data, self._now_ms))

    def _told(self, data: bytes) -> None:
        facts = self.session.receive(data, self._now_ms)
        self.most_facts_at_once = max(self.most_facts_at_once, len(facts))
        self.facts += facts

    def _pumps_turn(self, transmissions: tuple[Transmission, ...]) -> None:
        for one in transmissions:
            if one.data:
                self.pushed.append(one)
                self._send("host", self._back.carry(one.data, one.at_ms))

    def _send(self, end: str, pieces: list[tuple[int, bytes]]) -> None:
        for at_ms, piece in pieces:
            heapq.heappush(self._arriving, (at_ms, next(self._number), end, piece))
