"""The dashboard's real desk and real database in the fake world, and the people in front of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sql

from alerts import wire
from alerts.dashboard.clock import Clock
from alerts.dashboard.collector import RECEIPT_AFTER_MS
from alerts.dashboard.desk import Acknowledge, Desk
from alerts.dashboard.store import Notice
from alerts.dashboard.store import Store as CollectorStore
from alerts.mqtt import BrokerConfirmed, BrokerConnected, BrokerEvent, BrokerLost, BrokerMessage
from alerts.sink import Message, SinkDown
from tests.world.names import BEGINNING_UTC_MS, COLLECTOR, HOME

if TYPE_CHECKING:
    from tests.world.world import World

TURN_EVERY_MS = 11_000
"""When nothing arrives, not even a beat. What arrives has a turn at once, and one when its receipt is due."""


class VirtualClock(Clock):
    """The dashboard's clock in this world."""

    def __init__(self, world: World) -> None:
        self._world = world

    def now_ms(self) -> int:
        return self._world.now_ms

    def utc_ms(self) -> int:
        return BEGINNING_UTC_MS + self._world.now_ms


class Dashboard:
    """See the head of this file."""

    def __init__(self, world: World, folder: Path) -> None:
        self.world = world
        self.store = CollectorStore(f"sqlite:///{folder / 'dashboard.sqlite'}")
        if world.fast:
            self.store._engine.dispose()

            @sql.event.listens_for(self.store._engine, "connect")
            def _does_not_wait(connection, record) -> None:
                connection.execute("PRAGMA synchronous = OFF")

        self.somebody_watches = False
        self.connected = False
        self.desk = self._start()
        self._delivered_ms = 0
        self._receipt_turn_ms = -1
        self.reconnect()
        world.after(0, self._turn)

    def _start(self) -> Desk:
        desk = Desk(
            collector_name=COLLECTOR,
            store=self.store,
            clock=VirtualClock(self.world),
            watcher=lambda: "nurse-07" if self.somebody_watches else None,
        )
        desk.connect(self)
        return desk

    def restart(self) -> None:
        """Its process ends and begins again: it knows what its database knows."""
        self.disconnect()
        self.desk = self._start()

    def disconnect(self) -> None:
        if self.connected:
            self.connected = False
            self.world.promises.path_broke()
            self.deliver(BrokerLost(reason="gone"))

    def reconnect(self) -> None:
        if not self.connected:
            self.connected = True
            self.world.promises.subscribed()
            self.deliver(BrokerConnected(session_present=False, maximum_packet_size=None))
            self.world.after(self.world.broker.network_ms, self._subscribed)

    def _subscribed(self) -> None:
        if self.connected:
            self.world.broker.dashboard_comes()

    def deliver(self, event: BrokerEvent) -> None:
        self._delivered_ms = self.world.now_ms
        self.desk.deliver(event)
        self.desk.turn()

    def arrived(self, message: Message, retained: bool) -> None:
        self.world.promises.arrived(message, retained)
        self.deliver(
            BrokerMessage(topic=message.topic, payload=message.payload, retain=retained, qos=message.qos)
        )
        if message.lane is not None and not retained and self._receipt_turn_ms <= self.world.now_ms:
            self._receipt_turn_ms = self.world.now_ms + RECEIPT_AFTER_MS + 1
            self.world.at(self._receipt_turn_ms, lambda: self.desk.turn())
        self.world.promises.board_turned()

    def send(self, message: Message, token: int) -> None:
        """The desk speaks."""
        if not self.connected:
            raise SinkDown("no connection")
        self.world.broker.to_gateway(message.topic, message.payload, message.qos)
        if message.qos:
            confirmed = BrokerConfirmed(token=token, reason_code=0)
            self.world.after(self.world.broker.network_ms, lambda: self.deliver(confirmed))

    def acknowledge(self, alert: wire.Alert, by: str = "nurse-07", rev: int | None = None) -> None:
        self.desk.ask(
            Acknowledge(
                home=HOME,
                alert_id=alert.alert_id,
                rev=alert.rev if rev is None else rev,
                by=by,
                role=wire.Role.NURSE,
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
        due_ms = self._delivered_ms + TURN_EVERY_MS
        if self.world.now_ms >= due_ms:
            self.desk.turn()
            self.world.promises.board_turned()
            due_ms = self.world.now_ms + TURN_EVERY_MS
        self.world.at(due_ms, self._turn)
