"""A session at one end of two wires and simulated pumps at the other, in virtual time.

What a family is held against is the simulator's truth: the two ends share no code.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Mapping

from drivers.capture import Entry, EntryKind
from drivers.family import Family, PumpOnLine, Session
from drivers.reading import Fact, LinkFault, Reading
from simulator.device import Device
from simulator.scenario import Scenario
from simulator.wire.wire import Address
from tests.drivers.wires import Wire, clean


class Bedside:
    """Pumps, a cable that may be bent, and the dialogue with them."""

    def __init__(
        self,
        family: Family,
        scenarios: Scenario | Mapping[Address, Scenario],
        *,
        poll_ms: int = 5_000,
        there: Wire | None = None,
        back: Wire | None = None,
    ) -> None:
        self.device = Device(family.traits.family, scenarios)
        self.pumps = [
            PumpOnLine(pump=token_of(address), address=address, poll_ms=poll_ms)
            for address in self.device.pumps
        ]
        self.session: Session = family.open_session(self.pumps)
        self.facts: list[Fact] = []
        self.sent: list[tuple[int, bytes]] = []
        self.heard: list[Entry] = []
        self.now_ms = 0
        self._there = there or Wire(clean, seed=0)
        self._back = back or Wire(clean, seed=0)
        self._arriving: list[tuple[int, int, str, bytes]] = []
        self._number = itertools.count()
        self._is_plugged_in = True
        self.session.opened(0)

    @property
    def readings(self) -> list[Reading]:
        """What was read, in order."""
        return [fact for fact in self.facts if isinstance(fact, Reading)]

    @property
    def faults(self) -> list[LinkFault]:
        """What could not be read, in order."""
        return [fact for fact in self.facts if isinstance(fact, LinkFault)]

    def run(self, until_ms: int) -> None:
        """Let time go on to ``until_ms``, doing at each instant what is to be done."""
        while True:
            self._cable()
            self._ask()
            self._let_pumps_speak()
            next_ms = max(self.session.next_due_ms(), self.now_ms + 1)
            if self._arriving:
                next_ms = min(next_ms, max(self._arriving[0][0], self.now_ms))
            change_ms = self.device.next_change_ms(self.now_ms)
            if change_ms is not None:
                next_ms = min(next_ms, max(change_ms, self.now_ms + 1))
            if next_ms > until_ms:
                self.now_ms = until_ms
                return
            self.now_ms = next_ms
            self._let_arrive()

    def _cable(self) -> None:
        is_plugged_in = self.device.is_plugged_in(self.now_ms)
        if is_plugged_in and not self._is_plugged_in:
            self._arriving.clear()
            self.session.opened(self.now_ms)
        self._is_plugged_in = is_plugged_in

    def _ask(self) -> None:
        data = self.session.due(self.now_ms)
        if data:
            self.sent.append((self.now_ms, data))
            self._send("pump", self._there.carry(data, self.now_ms))

    def _let_pumps_speak(self) -> None:
        for sent in self.device.unasked(self.now_ms):
            if sent.data:
                self._send("host", self._back.carry(sent.data, sent.at_ms))

    def _let_arrive(self) -> None:
        if not self._arriving or self._arriving[0][0] > self.now_ms:
            self.facts += self.session.receive(b"", self.now_ms)
            return
        _, _, end, data = heapq.heappop(self._arriving)
        if end == "host":
            self.heard.append(Entry(at_ms=self.now_ms, kind=EntryKind.RX, data=data))
            self.facts += self.session.receive(data, self.now_ms)
            return
        for sent in self.device.receive(data, self.now_ms):
            if sent.data:
                self._send("host", self._back.carry(sent.data, sent.at_ms))

    def _send(self, end: str, pieces: list[tuple[int, bytes]]) -> None:
        for at_ms, piece in pieces:
            heapq.heappush(self._arriving, (at_ms, next(self._number), end, piece))


def token_of(address: Address) -> str:
    """What a pump is called in these tests."""
    return "p" if address is None else f"p{address}"
