"""A home and a nursing team in a fake world: virtual clock, wire, card, broker and power switch; all else is
real.

The engine, its store (a real SQLite file), the simulated pump and the dashboard's fold are the ones that
ship. Time jumps from one happening to the next, so a day takes seconds. One seed gives one world.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from hashlib import sha256
from itertools import count
from pathlib import Path

from alerts import wire
from alerts.dashboard.clock import Clock
from alerts.dashboard.desk import Acknowledge, Desk
from alerts.dashboard.store import Notice
from alerts.dashboard.store import Store as CollectorStore
from alerts.mqtt import BrokerConfirmed, BrokerConnected, BrokerEvent, BrokerLost, BrokerMessage
from alerts.sink import Message
from drivers import families
from gateway.core.order import parse_order
from gateway.core.timeline import Moment
from gateway.effects import Commit, Send, Write
from gateway.engine import Engine, EngineSetup
from gateway.inputs import (
    BytesArrived,
    Committed,
    Fetched,
    FromBroker,
    Input,
    PortOpened,
    StopRequested,
    Tick,
)
from gateway.lanes import Fetch
from gateway.pump import PumpSetup
from gateway.run import perform
from gateway.store import Store
from simulator.device import Device
from simulator.scenario import load_scenario, prescription_starting

BEGINNING_UTC_MS = 1_795_435_200_000
"""2026-11-23T12:00:00Z."""
HOME = "h-world"
PORT = "port"
PUMP = "p1"
COLLECTOR = "main"
TURN_EVERY_MS = 500


class PowerCut(Exception):
    """The power goes at this instant."""


class World:
    """One home, one broker, one board."""

    def __init__(
        self, folder: Path, scenario: str, *, seed: int = 1, card_ms: int = 20, network_ms: int = 5
    ) -> None:
        self.now_ms = 0
        self.random = random.Random(seed)
        self.device = Device("alaris", load_scenario(scenario))
        start = wire.iso_utc(BEGINNING_UTC_MS).replace("Z", "+00:00")
        self.order = prescription_starting(self.device.scenario.prescription_text, start)
        self.prescription = parse_order(self.order)
        self.card = folder / "dripwatch.sqlite"
        self.card_ms = card_ms
        self._events: list[tuple[int, int, Callable[[], None]]] = []
        self._order = count()
        self.broker = Broker(self, network_ms)
        self.board = Dashboard(self, folder)
        self.home = Home(self)
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


class Home:
    """The gateway's machine: an engine that lives from one power cut to the next, and a card that outlives
    them.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.engine: Engine | None = None
        self.store: Store | None = None
        self.starts = 0
        self.commits = 0
        self.clock_error_ms = 0
        """By how much the machine's wall clock is wrong."""
        self.clock_is_set = True
        self._booted_ms = 0
        self._monotonic_at_boot_ms = 0
        self._wake = count()
        self._next_wake = 0

    @property
    def on(self) -> bool:
        return self.engine is not None

    def power_on(self) -> None:
        """Boot: another monotonic clock, the same card."""
        world = self.world
        self.starts += 1
        self._booted_ms = world.now_ms
        self._monotonic_at_boot_ms = 15_000 + 1_000 * self.starts
        self.store = Store(world.card)
        restored = self.store.restore()
        assert restored.set_aside is None
        self.engine = Engine(
            EngineSetup(
                home=HOME,
                version="world",
                pumps=(
                    PumpSetup(
                        pump=PUMP,
                        port=PORT,
                        address=None,
                        poll_ms=1_000,
                        origin="test",
                        driver_status="experimental",
                        serial_number=None,
                        prescription=world.prescription,
                        prescription_text=world.order,
                        prescription_sha256=sha256(world.order.encode()).hexdigest(),
                    ),
                ),
                families={PORT: families.find("alaris")},
                collector=COLLECTOR,
                mqtt=True,
                boot=f"b-{self.starts}",
            ),
            store=restored.store,
            alerts=restored.alerts,
            lanes=restored.lanes,
            kept=restored.kept,
        )
        self._put(Tick(moment=self.moment()))
        self.soon(10, lambda: self._put(PortOpened(moment=self.moment(), port=PORT)))
        world.broker.gateway_comes()

    def cut_power(self) -> None:
        """What is not on the card is gone; what was under way to the world may or may not arrive."""
        assert self.store is not None
        self.engine = None
        self.store.close()
        self.store = None
        self.world.broker.gateway_goes()

    def stop(self) -> None:
        """A clean stop."""
        self._put(StopRequested(moment=self.moment()))

    def moment(self) -> Moment:
        return Moment(
            monotonic_ms=self._monotonic_at_boot_ms + self.world.now_ms - self._booted_ms,
            utc_ms=BEGINNING_UTC_MS + self.world.now_ms + self.clock_error_ms,
            synced=self.clock_is_set,
            boot=f"machine-{self.starts}",
        )

    def soon(self, delay_ms: int, do: Callable[[], None]) -> None:
        """Have something happen in this life of the machine, if it still lasts."""
        life = self.starts

        def if_alive() -> None:
            if self.on and self.starts == life:
                do()

        self.world.after(delay_ms, if_alive)

    def deliver(self, event: BrokerEvent) -> None:
        if self.on:
            self._put(FromBroker(moment=self.moment(), event=event))

    def _put(self, happened: Input) -> None:
        if self.engine is None:
            return
        effects = self.engine.handle(happened)
        self._next_wake = next(self._wake)
        wake = self._next_wake
        try:
            perform(effects, self)
        except PowerCut:
            self.cut_power()
            return
        if effects.stop:
            self.cut_power()
            return
        delay_ms = max(1, min(1_000, effects.wake_in_ms))
        self.soon(
            delay_ms, lambda: self._put(Tick(moment=self.moment())) if wake == self._next_wake else None
        )

    # -- the performer -----------------------------------------------------------------------------

    def show(self, line: str) -> None:
        self._boundary()

    def write(self, write: Write) -> None:
        self._boundary()
        self.world.written.append(write.data)
        for sent in self.world.device.receive(write.data, self.world.now_ms):
            if sent.data:
                self.soon(
                    sent.at_ms - self.world.now_ms,
                    lambda data=sent.data: self._put(
                        BytesArrived(moment=self.moment(), port=PORT, data=data)
                    ),
                )

    def commit(self, commit: Commit) -> None:
        self._boundary()

        def on_the_card() -> None:
            assert self.store is not None
            self.store.commit(commit)
            self.commits += 1
            try:
                self._boundary()
            except PowerCut:
                self.cut_power()
                return
            self._put(Committed(moment=self.moment(), number=commit.number))

        self.soon(self.world.card_ms, on_the_card)

    def fetch(self, fetch: Fetch) -> None:
        self._boundary()

        def read() -> None:
            assert self.store is not None
            self._put(Fetched(moment=self.moment(), fetch=fetch, found=self.store.fetch(fetch)))

        self.soon(self.world.card_ms, read)

    def release(self, send: Send) -> None:
        self._boundary()
        self.world.broker.from_gateway(send)
        self._boundary()

    def write_history(self, batch: Message) -> None:
        """This world has no server for the history."""

    def _boundary(self) -> None:
        self.world.effect_boundaries += 1
        if self.world.effect_boundaries == self.world.cut_power_at_boundary:
            raise PowerCut


class Broker:
    """Delivers while it is reachable, and keeps what is retained."""

    def __init__(self, world: World, network_ms: int) -> None:
        self.world = world
        self.network_ms = network_ms
        self.reachable = True
        self.gateway_connected = False
        self.retained: dict[str, Message] = {}
        self.delivered: list[Message] = []
        self.doubles = False
        """Hands out each message twice, as QoS 1 allows."""
        self.forgets = False
        """Confirms, and is killed before it has handed out or written anything, as Mosquitto may be."""
        self.loses_receipts = False

    def gateway_comes(self) -> None:
        self.world.home.soon(50, self._connect)

    def gateway_goes(self) -> None:
        self.gateway_connected = False

    def cut(self) -> None:
        """The network is gone; the gateway notices after a while, as with a real one."""
        self.reachable = False
        if self.gateway_connected:
            self.world.home.soon(8_000, self._lost)

    def heal(self) -> None:
        self.reachable = True
        self.world.home.soon(500, self._connect)

    def from_gateway(self, send: Send) -> None:
        if not (self.reachable and self.gateway_connected):
            return

        def arrive() -> None:
            if not self.reachable:
                return
            if not self.forgets:
                self._hand_out(send.message)
            if send.message.qos:
                self.world.home.soon(
                    self.network_ms,
                    lambda: self.world.home.deliver(BrokerConfirmed(token=send.token, reason_code=0)),
                )

        self.world.after(self.network_ms, arrive)

    def _hand_out(self, message: Message) -> None:
        if message.retain:
            self.retained[message.topic] = message
        for _ in range(2 if self.doubles else 1):
            self.delivered.append(message)
            self.world.board.arrived(message, retained=False)

    def to_gateway(self, topic: str, payload: bytes) -> None:
        if self.loses_receipts and topic.endswith("/receipt"):
            return
        if self.reachable and self.gateway_connected:
            self.world.home.soon(
                self.network_ms,
                lambda: self.world.home.deliver(
                    BrokerMessage(topic=topic, payload=payload, retain=False, qos=1)
                ),
            )

    def _connect(self) -> None:
        if self.reachable and not self.gateway_connected:
            self.gateway_connected = True
            self.world.home.deliver(BrokerConnected(session_present=False, maximum_packet_size=None))

    def _lost(self) -> None:
        if not self.reachable and self.gateway_connected:
            self.gateway_connected = False
            self.world.home.deliver(BrokerLost(reason="the broker does not answer"))


class VirtualClock(Clock):
    """The dashboard's clock in this world."""

    def __init__(self, world: World) -> None:
        self._world = world

    def now_ms(self) -> int:
        return self._world.now_ms

    def utc_ms(self) -> int:
        return BEGINNING_UTC_MS + self._world.now_ms


class Dashboard:
    """The dashboard's real desk and real database, and a person in front of it."""

    def __init__(self, world: World, folder: Path) -> None:
        self.world = world
        self.store = CollectorStore(f"sqlite:///{folder / 'dashboard.sqlite'}")
        self.somebody_watches = False
        self.desk = Desk(
            collector_name=COLLECTOR,
            store=self.store,
            clock=VirtualClock(world),
            watcher=lambda: "nurse-07" if self.somebody_watches else None,
        )
        self.desk.connect(self)
        self.desk.deliver(BrokerConnected(session_present=False, maximum_packet_size=None))
        self._turn()

    def arrived(self, message: Message, retained: bool) -> None:
        self.desk.deliver(
            BrokerMessage(topic=message.topic, payload=message.payload, retain=retained, qos=message.qos)
        )
        self.desk.turn()

    def send(self, message: Message, token: int) -> None:
        """The desk speaks."""
        self.world.broker.to_gateway(message.topic, message.payload)
        self.world.after(
            self.world.broker.network_ms,
            lambda: self.desk.deliver(BrokerConfirmed(token=token, reason_code=0)),
        )

    def acknowledge(self, alert: wire.Alert) -> None:
        self.desk.ask(
            Acknowledge(
                home=HOME, alert_id=alert.alert_id, rev=alert.rev, by="nurse-07", role=wire.Role.NURSE
            )
        )
        self.desk.turn()

    @property
    def alerts(self) -> list[wire.Alert]:
        """All alerts that the board knows, newest revision each."""
        home = self.desk.showing.board.homes.get(HOME)
        return [known.newest for known in home.alerts.values()] if home else []

    def of_kind(self, kind: str) -> list[wire.Alert]:
        return [alert for alert in self.alerts if alert.kind == kind]

    def open(self) -> list[wire.Alert]:
        return [alert for alert in self.alerts if alert.state != "closed"]

    @property
    def notices(self) -> tuple[Notice, ...]:
        """What the dashboard itself has to say: lost numbers, doubled gateways, unreadable messages."""
        return self.desk.showing.notices

    def in_words(self) -> str:
        lines = [
            f"{alert.alert_id} rev {alert.rev}: {alert.kind} {alert.state} ({alert.reason})"
            for alert in self.alerts
        ]
        return "\n".join(["the board has:", *(lines or ["nothing"])])

    def _turn(self) -> None:
        self.desk.turn()
        self.world.after(TURN_EVERY_MS, self._turn)


__all__ = ["Dashboard", "World"]
