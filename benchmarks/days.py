"""Days of a home in virtual time: engine and card are real, on a real disk; pumps and broker are not."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable
from pathlib import Path

from alerts import wire
from alerts.mqtt import BrokerConfirmed, BrokerConnected, BrokerLost, BrokerMessage
from alerts.sink import Lane, Message
from drivers import families
from gateway.core.order import parse_order
from gateway.core.timeline import Moment
from gateway.effects import Effects
from gateway.engine import Engine, EngineSetup
from gateway.inputs import (
    BytesArrived,
    Committed,
    Fetched,
    FromBroker,
    HistoryAnswered,
    Input,
    PortOpened,
    Tick,
)
from gateway.pump import PumpSetup
from gateway.store import Store
from tests.gateway.home import BEGINNING_UTC_MS, ORDER

HOME = "h-bench"
COLLECTOR = "main"
RATE_ML_H = 60.0
"""That of the order."""
TEN_DAYS = ORDER.replace('"12h"', '"240h"').replace("volume_ml = 1000.0", "volume_ml = 20000.0")


class Days:
    """A gateway whose pumps deliver what was ordered, for as long as it is told to."""

    def __init__(self, folder: Path, *, pumps: int, poll_ms: int, history: bool = False) -> None:
        self.now_ms = 0
        self.poll_ms = poll_ms
        self.connected = False
        self.history_answers = history
        """The server of the history takes each batch at once."""
        self.arrives: Callable[[Message], None] = lambda message: None
        """Where what is sent arrives."""
        self._tokens = [f"p{number}" for number in range(1, pumps + 1)]
        self.store = Store(folder / "dripwatch.sqlite")
        restored = self.store.restore()
        prescription = parse_order(TEN_DAYS)
        self.engine = Engine(
            EngineSetup(
                home=HOME,
                version="bench",
                pumps=tuple(
                    PumpSetup(
                        pump=pump,
                        port=pump,
                        address=None,
                        poll_ms=poll_ms,
                        origin="test",
                        driver_status="bench",
                        serial_number=None,
                        prescription=prescription,
                        prescription_text=TEN_DAYS,
                        prescription_sha256=hashlib.sha256(TEN_DAYS.encode()).hexdigest(),
                    )
                    for pump in self._tokens
                ),
                families={pump: families.find("dummy") for pump in self._tokens},
                collector=COLLECTOR,
                mqtt=True,
                history=history,
                boot="b-1",
            ),
            store=restored.store,
            alerts=restored.alerts,
            lanes=restored.lanes,
            kept=restored.kept,
        )
        self.commits = 0
        self._waiting: deque[Input] = deque()
        self._next_tick_ms = 0
        self.put(Tick(moment=self.moment()))
        for pump in self._tokens:
            self.put(PortOpened(moment=self.moment(), port=pump))

    def moment(self) -> Moment:
        """What the clocks of this machine say."""
        return Moment(
            monotonic_ms=20_000 + self.now_ms,
            utc_ms=BEGINNING_UTC_MS + self.now_ms,
            synced=True,
            boot="machine-1",
        )

    def put(self, happened: Input) -> None:
        """Something happens, and all that follows from it."""
        self._waiting.append(happened)
        while self._waiting:
            self._perform(self.engine.handle(self._waiting.popleft()))

    def pass_time(self, seconds: float, done: Callable[[float], None] = lambda share: None) -> None:
        """Time passes; each pump is heard as often as it is polled."""
        began_ms, until_ms = self.now_ms, self.now_ms + round(seconds * 1_000)
        next_poll_ms = self.now_ms + self.poll_ms
        while self.now_ms < until_ms:
            if self._next_tick_ms < next_poll_ms:
                self.now_ms = max(self.now_ms, self._next_tick_ms)
                self.put(Tick(moment=self.moment()))
                continue
            self.now_ms = next_poll_ms
            next_poll_ms += self.poll_ms
            volume_ml = RATE_ML_H * self.now_ms / 3_600_000
            for pump in self._tokens:
                line = f"state=running rate_ml_h={RATE_ML_H} volume_ml={volume_ml:.3f} alarms=\n"
                self.put(BytesArrived(moment=self.moment(), port=pump, data=line.encode()))
            done((self.now_ms - began_ms) / (until_ms - began_ms))

    def connect(self) -> None:
        """The broker is there."""
        self.connected = True
        self.put(
            FromBroker(
                moment=self.moment(), event=BrokerConnected(session_present=False, maximum_packet_size=None)
            )
        )

    def cut(self) -> None:
        """The broker is gone."""
        self.connected = False
        self.put(FromBroker(moment=self.moment(), event=BrokerLost(reason="gone")))

    def hear_from_the_nurses(self, topic: str, payload: bytes) -> None:
        """A message to the home, handled after what happens now."""
        message = BrokerMessage(topic=topic, payload=payload, retain=False, qos=1)
        self._waiting.append(FromBroker(moment=self.moment(), event=message))

    def lane_is_empty(self, lane: Lane) -> bool:
        """Whether all that was to leave by it has been receipted."""
        return self.engine.lane_is_empty(lane)

    def _perform(self, effects: Effects) -> None:
        if effects.commit is not None:
            self.store.commit(effects.commit)
            self.commits += 1
            self._waiting.append(Committed(moment=self.moment(), number=effects.commit.number))
        for fetch in effects.fetches:
            found = self.store.fetch(fetch)
            self._waiting.append(Fetched(moment=self.moment(), fetch=fetch, found=found))
        for send in effects.sends:
            self.arrives(send.message)
            if send.message.qos:
                confirmed = BrokerConfirmed(token=send.token, reason_code=0)
                self._waiting.append(FromBroker(moment=self.moment(), event=confirmed))
        for batch in effects.history if self.history_answers else ():
            self._waiting.append(HistoryAnswered(moment=self.moment(), written_up_to=batch.seq))
        self._next_tick_ms = self.now_ms + max(1, min(1_000, effects.wake_in_ms))


class Receipts:
    """The least of a collector: it receipts everything at once."""

    def __init__(self, days: Days) -> None:
        self._days = days
        self._done = dict.fromkeys(Lane, 0)

    def arrived(self, message: Message) -> None:
        """A message has come, stored in no time."""
        if message.lane is None or message.seq is None:
            return
        self._done[message.lane] = max(self._done[message.lane], message.seq)
        receipt = wire.Receipt(
            time=wire.UtcTime(BEGINNING_UTC_MS + self._days.now_ms),
            collector=COLLECTOR,
            store=self._days.engine.store,
            alerts=self._done[Lane.ALERTS],
            telemetry=self._done[Lane.TELEMETRY],
        )
        self._days.hear_from_the_nurses(wire.down(HOME, "receipt"), wire.encode(receipt))
