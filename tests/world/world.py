"""A home and a nursing team in a fake world: virtual clock, wire, card, broker and power switch; all else is
real.

The engine, its store (a real SQLite file), the simulated pumps and the dashboard's fold are the ones that
ship. Time jumps from one happening to the next, so a day takes seconds. One seed gives one world. What may
never happen is watched all the while (promises.py).
"""

from __future__ import annotations

import heapq
import random
import re
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from alerts import wire
from gateway.core.order import parse_order
from gateway.core.prescription import Prescription
from simulator.device import Device
from simulator.scenario import Scenario, load_scenario, prescription_starting
from tests.world.broker import Broker
from tests.world.dashboard import Dashboard
from tests.world.home import Home
from tests.world.names import BEGINNING_UTC_MS, HOME, PUMP
from tests.world.promises import Promises

BAD_CARD_MS = 1_000
"""A card that takes longer is in the way of what shall be told."""
LAST_INPUTS = 25
"""So many of what happened last are told of a world that failed."""


@dataclass(frozen=True, kw_only=True)
class Bed:
    """One pump, what happens to it, and how it is watched."""

    pump: str
    scenario: Scenario
    order: Prescription
    order_text: str
    poll_ms: int = 1_000
    family: str = "alaris"


def bed(scenario: str, *, pump: str = PUMP, poll_ms: int = 1_000) -> Bed:
    """A named story, which begins with the world."""
    story = load_scenario(scenario)
    start = wire.iso_utc(BEGINNING_UTC_MS).replace("Z", "+00:00")
    text = prescription_starting(story.prescription_text, start)
    asks = f'poll = "{poll_ms // 1_000}s"'
    if "\npoll =" in text:
        text = re.sub(r"^poll =.*$", asks, text, flags=re.MULTILINE)
    else:
        text = text.replace("[pump]\n", f"[pump]\n{asks}\n")
    return Bed(pump=pump, scenario=story, order=parse_order(text), order_text=text, poll_ms=poll_ms)


class World:
    """One home, one broker, one board."""

    def __init__(
        self,
        folder: Path,
        scenario: str | Sequence[Bed],
        *,
        seed: int = 1,
        card_ms: int = 20,
        network_ms: int = 5,
        fast: bool = False,
    ) -> None:
        """``fast``: the databases do not wait for a disk; nothing here can be lost by that."""
        self.now_ms = 0
        self.random = random.Random(f"{seed} world")
        self.folder = folder
        self.fast = fast
        self.beds = (bed(scenario),) if isinstance(scenario, str) else tuple(scenario)
        self.devices = {one.pump: Device(one.family, one.scenario) for one in self.beds}
        self.device = self.devices[self.beds[0].pump]
        self.prescription = self.beds[0].order
        self.order = self.beds[0].order_text
        self.card_ms = card_ms
        self.card_was_bad_ms = -1
        self._events: list[tuple[int, int, Callable[[], None]]] = []
        self._order = count()
        self.last: deque[tuple[int, object]] = deque(maxlen=LAST_INPUTS)
        """What the gateway was told last."""
        self.promises = Promises(self)
        self.broker = Broker(self, network_ms)
        self.board = Dashboard(self, folder)
        self.home = Home(self, folder)
        self.written: list[bytes] = []
        self.effect_boundaries = 0
        self.cut_power_at_boundary: int | None = None

    def at(self, time_ms: int, do: Callable[[], None]) -> None:
        """Have something happen at a time.

        What happens at one time happens in the order in which it was asked for.
        """
        heapq.heappush(self._events, (max(time_ms, self.now_ms), next(self._order), do))

    def after(self, delay_ms: int, do: Callable[[], None]) -> None:
        """Have something happen after a while."""
        self.at(self.now_ms + delay_ms, do)

    def run_until(self, condition: Callable[[], bool], within_s: float) -> float:
        """Let the world go on until something is so.

        Returns how many seconds it took. Fails if it takes longer.
        """
        began_ms = self.now_ms
        while not condition():
            assert self._events, "the world stands still"
            time_ms, _, do = heapq.heappop(self._events)
            assert time_ms - began_ms <= within_s * 1000, (
                f"not so within {within_s} s\n{self.board.in_words()}"
            )
            self.now_ms = time_ms
            do()
        return (self.now_ms - began_ms) / 1000

    def run_for(self, seconds: float) -> None:
        """Let the world go on for a while."""
        until_ms = self.now_ms + round(seconds * 1000)
        while self._events and self._events[0][0] <= until_ms:
            time_ms, _, do = heapq.heappop(self._events)
            self.now_ms = time_ms
            do()
        self.now_ms = until_ms

    def path_is_whole(self) -> bool:
        """Whether nothing is wrong now on the way from the gateway to the board."""
        broker = self.broker
        return (
            broker.gateway is self.home
            and broker.reachable
            and self.board.connected
            and not (broker.forgets or broker.reorders or broker.loses_receipts or self.home.card_refuses)
            and self.card_ms < BAD_CARD_MS
            and broker.network_ms < 1_000
        )

    def card_is(self, card_ms: int | None) -> None:
        """The card takes so long, or refuses (``None``)."""
        home = self.home
        home.card_refuses = card_ms is None
        self.card_ms = card_ms if card_ms is not None else self.card_ms
        self.card_was_bad_ms = self.now_ms
        if card_ms is not None and card_ms < BAD_CARD_MS:
            home.card_recovers()
        else:
            home.card_fails()
        self.promises.path_broke()

    def close(self) -> None:
        """Give the files back."""
        if self.home.on:
            self.home.cut_power()
        self.board.store.close()


__all__ = ["BEGINNING_UTC_MS", "HOME", "PUMP", "Bed", "Dashboard", "World", "bed"]
