"""A broker of the fake world: delivers while it is reachable, keeps what is retained and what its sessions
are owed, and can be as bad as a broker may be."""

from __future__ import annotations

import json
from collections import deque
from typing import TYPE_CHECKING

from alerts import wire
from alerts.mqtt import SESSION_TAKEN_OVER, BrokerConfirmed, BrokerConnected, BrokerLost, BrokerMessage
from alerts.sink import Lane, Message
from gateway.effects import Send
from tests.world.names import HOME

if TYPE_CHECKING:
    from tests.world.home import Home
    from tests.world.world import World

NOTICED_AFTER_MS = 8_000
"""So long a connection that is dead looks alive."""
CONNECTS_AFTER_MS = 500
QUEUE_MAX = 1_000
"""So many messages are kept for a session whose client is away."""
REORDERS_WITHIN_MS = 3_000


class Broker:
    """See the head of this file."""

    def __init__(self, world: World, network_ms: int) -> None:
        self.world = world
        self.network_ms = network_ms
        self.reachable = True
        """By the gateway."""
        self.gateway: Home | None = None
        """Who is connected in the home's name."""
        self.retained: dict[str, Message] = {}
        self.delivered: list[Message] | None = []
        """All that was handed to the dashboard; ``None``: nobody wants to know."""
        self.doubles = False
        """Hands out each message twice, as QoS 1 allows."""
        self.forgets = False
        """Confirms, and is killed before it has handed out or written anything, as Mosquitto may be."""
        self.reorders = False
        """What it hands out overtakes what it was given before."""
        self.loses_receipts = False
        self._for_gateway: deque[BrokerMessage] = deque(maxlen=QUEUE_MAX)
        self._for_dashboard: deque[Message] = deque(maxlen=QUEUE_MAX)
        self._connection = 0
        self._sent: dict[Lane, int] = {}
        """The highest number of each lane of the store from which something was sent last."""
        self._sent_store = ""
        self._arrives_ms = 0
        self._returns_ms = 0

    # -- the gateway's side ----------------------------------------------------------------------------

    def gateway_comes(self, home: Home) -> None:
        home.soon(50, lambda: self._connect(home))

    def gateway_goes(self, home: Home) -> None:
        if self.gateway is home:
            self.gateway = None

    def cut(self) -> None:
        """The network is gone; the gateway notices after a while, as with a real one."""
        self.reachable = False
        home, connection = self.gateway, self._connection
        if home is not None:
            home.soon(NOTICED_AFTER_MS, lambda: self._lost(home, connection))

    def heal(self) -> None:
        """The network is whole; a connection that was dead is made anew."""
        self.reachable = True
        if self.gateway is not None:
            self._lost(self.gateway, self._connection)
        home = self.world.home
        if home.on:
            home.soon(CONNECTS_AFTER_MS, lambda: self._connect(home))

    def kill_session(self) -> None:
        """The connection breaks, and what was under way with it."""
        home = self.gateway
        if home is not None:
            self._lost(home, self._connection)
            home.soon(CONNECTS_AFTER_MS, lambda: self._connect(home))

    def killed(self) -> None:
        """The broker is killed and started again: what it had kept for anybody is gone but for what is
        retained, and that is handed out again."""
        self._for_gateway.clear()
        self._for_dashboard.clear()
        self.kill_session()
        self.world.board.disconnect()
        self.world.after(CONNECTS_AFTER_MS, self.world.board.reconnect)

    def says_old_receipts(self) -> None:
        """Of an older store, of another collector, and as a retained message: for all that was sent."""
        for store, collector, retain in (
            ("s-old", "main", False),
            (None, "another", False),
            (None, "main", True),
        ):
            receipt = {
                "schema": "dripwatch.receipt/1",
                "time": "2026-11-23T12:00:00.000Z",
                "collector": collector,
                "store": store or self._sent_store,
                "alerts": self._sent.get(Lane.ALERTS, 0),
                "telemetry": self._sent.get(Lane.TELEMETRY, 0),
            }
            if self.gateway is not None and self.reachable:
                topic, payload = wire.down(HOME, "receipt"), json.dumps(receipt).encode()
                self._to(self.gateway, BrokerMessage(topic=topic, payload=payload, retain=retain, qos=1))

    def from_gateway(self, home: Home, send: Send) -> None:
        number = wire.decode_number(send.message.payload) if send.message.lane is not None else None
        if number is not None:
            if number.store != self._sent_store:
                self._sent_store, self._sent = number.store, {}
            self._sent[number.lane] = max(number.seq, self._sent.get(number.lane, 0))
        if not (self.reachable and self.gateway is home):
            return
        connection = self._connection
        self._arrives_ms = max(self._arrives_ms, self.world.now_ms + self.network_ms)
        self.world.at(self._arrives_ms, lambda: self._arrived(home, connection, send))

    def _arrived(self, home: Home, connection: int, send: Send) -> None:
        if not self.reachable:
            return
        message = send.message
        if not self.forgets:
            self._hand_out(message)
        if message.qos and connection == self._connection:
            self._returns_ms = max(self._returns_ms, self.world.now_ms + self.network_ms)
            self.world.at(
                self._returns_ms,
                lambda: self._confirm(home, connection, send.token),
            )

    def _confirm(self, home: Home, connection: int, token: int) -> None:
        if self.gateway is home and connection == self._connection and self.reachable:
            home.deliver(BrokerConfirmed(token=token, reason_code=0))

    def _connect(self, home: Home) -> None:
        if not self.reachable or self.gateway is home or not home.on:
            return
        if self.gateway is not None:
            other, self.gateway = self.gateway, None
            other.deliver(BrokerLost(reason="taken over", reason_code=SESSION_TAKEN_OVER))
        self._connection += 1
        self.gateway = home
        self.world.promises.path_broke()
        home.deliver(BrokerConnected(session_present=bool(self._for_gateway), maximum_packet_size=None))
        while self._for_gateway and self.gateway is home:
            self._to(home, self._for_gateway.popleft())

    def _lost(self, home: Home, connection: int) -> None:
        if self.gateway is home and connection == self._connection:
            self.gateway = None
            self.world.promises.path_broke()
            home.deliver(BrokerLost(reason="the broker does not answer"))

    # -- the dashboard's side --------------------------------------------------------------------------

    def _hand_out(self, message: Message) -> None:
        if message.retain:
            self.retained[message.topic] = message
        for _ in range(2 if self.doubles else 1):
            if self.reorders:
                late_ms = self.world.random.randrange(REORDERS_WITHIN_MS)
                self.world.after(late_ms, lambda: self._to_dashboard(message))
            else:
                self._to_dashboard(message)

    def _to_dashboard(self, message: Message) -> None:
        if not self.world.board.connected:
            if message.qos:
                self._for_dashboard.append(message)
            return
        if self.delivered is not None:
            self.delivered.append(message)
        self.world.board.arrived(message, retained=False)

    def dashboard_comes(self) -> None:
        """It has subscribed: first what is retained, then what it has missed."""
        for message in list(self.retained.values()):
            self.world.board.arrived(message, retained=True)
        missed, self._for_dashboard = self._for_dashboard, deque(maxlen=QUEUE_MAX)
        for message in missed:
            self._to_dashboard(message)

    def to_gateway(self, topic: str, payload: bytes, qos: int = 1) -> None:
        """Somebody says something to the home."""
        if self.loses_receipts and topic.endswith("/receipt"):
            return
        message = BrokerMessage(topic=topic, payload=payload, retain=False, qos=qos)
        home = self.gateway
        if home is None or not self.reachable:
            if qos:
                self._for_gateway.append(message)
            return
        for _ in range(2 if self.doubles else 1):
            self._to(home, message)

    def _to(self, home: Home, message: BrokerMessage) -> None:
        connection = self._connection

        def arrive() -> None:
            if self.gateway is home and connection == self._connection and self.reachable:
                home.deliver(message)

        self._returns_ms = max(self._returns_ms, self.world.now_ms + self.network_ms)
        self.world.at(self._returns_ms, arrive)
