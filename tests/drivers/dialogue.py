"""A session at one end of two wires and pumps at the other, in virtual time.

The pumps are scripted (``alaris_pump.py`` and its neighbours) or simulated: then what is read can be held
against the truth, and the two ends share no code.
"""

from __future__ import annotations

import heapq
import itertools
from typing import Protocol

from drivers.capture import Entry, EntryKind
from drivers.family import Session
from drivers.reading import Fact, LinkFault, Reading
from simulator.device import Device, Transmission
from simulator.pump import Truth
from simulator.wire.wire import Address
from tests.drivers.wires import Wire, clean


class ScriptedEnd(Protocol):
    """Answers what it has been told to answer."""

    def receive(self, data: bytes, now_ms: int) -> list[bytes]:
        """Replies to the queries that are complete now."""

    def sent_ms(self, now_ms: int) -> int:
        """When a reply to a query heard now is out."""


class Dialogue:
    """Both ends, and what passed between them."""

    def __init__(
        self,
        session: Session,
        pumps: ScriptedEnd | Device,
        *,
        there: Wire | None = None,
        back: Wire | None = None,
    ) -> None:
        self.session = session
        self.facts: list[Fact] = []
        self.most_facts_at_once = 0
        self.sent: list[tuple[int, bytes]] = []
        self.heard: list[Entry] = []
        self.said: list[Transmission] = []
        """What simulated pumps sent, each with what was true then."""
        self.now_ms = 0
        self._pumps = pumps
        self._there = there or Wire(clean, seed=0)
        self._back = back or Wire(clean, seed=0)
        self._arriving: list[tuple[int, int, str, bytes]] = []
        self._number = itertools.count()
        self._is_plugged_in = True
        session.opened(0)

    @property
    def readings(self) -> list[Reading]:
        """What was read, in order."""
        return [fact for fact in self.facts if isinstance(fact, Reading)]

    @property
    def faults(self) -> list[LinkFault]:
        """What could not be read, in order."""
        return [fact for fact in self.facts if isinstance(fact, LinkFault)]

    def truths_until(self, at_ms: int, address: Address = None) -> list[Truth]:
        """How a simulated pump was each time that it had spoken by then."""
        return [one.truth for one in self.said if one.answered_ms <= at_ms and one.address == address]

    def run(self, until_ms: int) -> None:
        """Let time go on to ``until_ms``, doing at each instant what is to be done."""
        while True:
            self._look_at_the_cable()
            self._ask()
            self._let_pumps_speak()
            next_ms = max(self.session.next_due_ms(), self.now_ms + 1)
            if self._arriving:
                next_ms = min(next_ms, max(self._arriving[0][0], self.now_ms))
            if isinstance(self._pumps, Device):
                change_ms = self._pumps.next_change_ms(self.now_ms)
                next_ms = next_ms if change_ms is None else min(next_ms, max(change_ms, self.now_ms + 1))
            if next_ms > until_ms:
                return
            self.now_ms = next_ms
            self._let_arrive()

    def _look_at_the_cable(self) -> None:
        if not isinstance(self._pumps, Device):
            return
        is_plugged_in = self._pumps.is_plugged_in(self.now_ms)
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
        if isinstance(self._pumps, Device):
            self._say(self._pumps.unasked(self.now_ms))

    def _let_arrive(self) -> None:
        if not self._arriving or self._arriving[0][0] > self.now_ms:
            self._hear(b"")
            return
        _, _, end, data = heapq.heappop(self._arriving)
        if end == "host":
            self.heard.append(Entry(at_ms=self.now_ms, kind=EntryKind.RX, data=data))
            self._hear(data)
        elif isinstance(self._pumps, Device):
            self._say(self._pumps.receive(data, self.now_ms))
        else:
            for reply in self._pumps.receive(data, self.now_ms):
                self._send("host", self._back.carry(reply, self._pumps.sent_ms(self.now_ms)))

    def _hear(self, data: bytes) -> None:
        facts = self.session.receive(data, self.now_ms)
        self.most_facts_at_once = max(self.most_facts_at_once, len(facts))
        self.facts += facts

    def _say(self, sent: tuple[Transmission, ...]) -> None:
        for one in sent:
            self.said.append(one)
            if one.data:
                self._send("host", self._back.carry(one.data, one.at_ms))

    def _send(self, end: str, pieces: list[tuple[int, bytes]]) -> None:
        for at_ms, piece in pieces:
            heapq.heappush(self._arriving, (at_ms, next(self._number), end, piece))
