"""One home in virtual time: the real engine over the real store, a scripted pump, and what leaves it."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import reduce
from hashlib import sha256
from pathlib import Path
from typing import Any

from alerts import wire
from alerts.mqtt import BrokerConfirmed, BrokerConnected, BrokerLost, BrokerMessage
from alerts.sink import Message
from drivers import families
from gateway.core.order import parse_order
from gateway.core.timeline import Moment
from gateway.effects import Commit, Effects, Send
from gateway.engine import Engine, EngineSetup
from gateway.inputs import (
    BytesArrived,
    CommitFailed,
    Committed,
    Fetched,
    FromBroker,
    HistoryAnswered,
    Input,
    PortLost,
    PortOpened,
    StopRequested,
    Tick,
)
from gateway.pump import PumpSetup
from gateway.store import Store

BEGINNING_UTC_MS = 1_795_435_200_000
"""2026-11-23T12:00:00Z."""
HOME = "h-1"
POLL_MS = 1_000

ORDER = """\
format = "infusion-prescription/1"
[patient]
id = "P-1"
[drug]
name = "sodium chloride 0.9 %"
[schedule]
therapy = "continuous"
start = 2026-11-23T12:00:00+00:00
[[schedule.phase]]
duration = "12h"
rate_ml_h = 60.0
[limits]
tolerance_percent = 10.0
[pump]
model = "scripted"
accuracy_percent = 5.0
counter_ml = 0.001
stroke_ml = 0.01
ripple_ml = 0.005
[bag]
volume_ml = 1000.0
"""


class Home:
    """A gateway that can be started, stopped, cut off and asked; time passes only when it is told to."""

    def __init__(
        self,
        folder: Path,
        *,
        pumps: tuple[str, ...] = ("p1",),
        order: str | None = None,
        serial_number: str | None = None,
        collector: str = "main",
        panel: bool = False,
        mqtt_version: int = 5,
        history: bool = False,
        in_1970: bool = False,
        observe: Callable[[Input, Effects], None] = lambda happened, effects: None,
    ) -> None:
        self.card = folder / "dripwatch.sqlite"
        self.pumps = pumps
        self.order = order
        self.serial_number = serial_number
        self.collector = collector
        self.panel = panel
        self.mqtt_version = mqtt_version
        self.history = history
        self.batches: list[Message] = []
        """Handed to the history, and not taken by its server yet."""
        self.history_lines: list[str] = []
        """What the server of the history has taken."""
        self._observe = observe
        self.now_ms = 0
        # A machine without a battery clock, before the network has told it the time.
        self.clock_error_ms = 15_000 - BEGINNING_UTC_MS if in_1970 else 0
        self.synced = not in_1970
        self.starts = 0
        self.machine_boots = 1
        self._booted_ms = 0
        self.card_refuses = False
        self.card_is_slow = False
        self.refused: list[Commit] = []
        self.sends: list[Send] = []
        self.notes: list[str] = []
        self.shown: list[str] = []
        self.commits: list[Commit] = []
        self.engine: Engine
        self.store: Store
        self.start()

    # -- the machine -------------------------------------------------------------------------------

    def start(self) -> Effects:
        """Start the gateway on the card as it is."""
        self.starts += 1
        self.store = Store(self.card)
        restored = self.store.restore()
        prescription = parse_order(self.order) if self.order is not None else None
        self.engine = Engine(
            EngineSetup(
                home=HOME,
                version="test",
                pumps=tuple(
                    PumpSetup(
                        pump=pump,
                        port=f"port-{pump}",
                        address=None,
                        poll_ms=POLL_MS,
                        origin="test",
                        driver_status="experimental",
                        serial_number=self.serial_number,
                        prescription=prescription,
                        prescription_text=self.order,
                        prescription_sha256=sha256(self.order.encode()).hexdigest() if self.order else None,
                    )
                    for pump in self.pumps
                ),
                families={f"port-{pump}": families.find("dummy") for pump in self.pumps},
                collector=self.collector,
                mqtt=True,
                mqtt_version=self.mqtt_version,
                history=self.history,
                boot=f"b-{self.starts}",
                panel=self.panel,
            ),
            store=restored.store,
            alerts=restored.alerts,
            lanes=restored.lanes,
            kept=restored.kept,
            set_aside=restored.set_aside,
            without_card=restored.without_card,
        )
        return self.put(Tick)

    def stop(self) -> Effects:
        """A clean stop: asked for, and carried out."""
        effects = self.put(StopRequested)
        self.store.close()
        return effects

    def cut_power(self, off_ms: int = 60_000) -> None:
        """What is not on the card is gone, and the machine boots anew when the power is back."""
        self.store.close()
        self.now_ms += off_ms
        self.machine_boots += 1
        self._booted_ms = self.now_ms - 5_000

    @property
    def moment(self) -> Moment:
        return Moment(
            monotonic_ms=self.now_ms - self._booted_ms,
            utc_ms=BEGINNING_UTC_MS + self.now_ms + self.clock_error_ms,
            synced=self.synced,
            boot=f"machine-{self.machine_boots}",
        )

    # -- what happens ------------------------------------------------------------------------------

    def put(self, kind: type[Input], **fields: Any) -> Effects:
        """Something happens, a millisecond later; what follows from it is performed."""
        self.now_ms += 1
        happened = kind(moment=self.moment, **fields)  # type: ignore[operator]
        effects = self.engine.handle(happened)
        self._observe(happened, effects)
        self.notes.extend(effects.notes)
        self.shown.extend([] if effects.show is None else [effects.show])
        self.sends.extend(effects.sends)
        self.batches.extend(effects.history)
        fetches = effects.fetches
        if effects.commit is not None:
            effects = self._commit(effects.commit, effects)
        for fetch in fetches:
            effects = self.put(Fetched, fetch=fetch, found=self.store.fetch(fetch))
        return effects

    def _commit(self, commit: Commit, effects: Effects) -> Effects:
        self.refused.append(commit)
        if self.card_is_slow:
            return effects
        if self.card_refuses:
            self.put(CommitFailed, number=commit.number, reason="the card refuses")
            return effects
        return self.card_works()

    def card_works(self) -> Effects:
        """The card takes all that waits for it."""
        self.card_refuses = self.card_is_slow = False
        commits, self.refused = self.refused, []
        self.store.commit(reduce(Commit.followed_by, commits))
        self.commits.extend(commits)
        return self.put(Committed, number=commits[-1].number)

    def wait(self, seconds: float) -> None:
        """Time passes, with a tick each second."""
        until_ms = self.now_ms + round(seconds * 1000)
        while self.now_ms + 1_000 < until_ms:
            self.now_ms += 999
            self.put(Tick)
        self.now_ms = max(self.now_ms, until_ms - 1)
        self.put(Tick)

    def plug_in(self, pump: str = "p1") -> Effects:
        return self.put(PortOpened, port=f"port-{pump}")

    def unplug(self, pump: str = "p1") -> Effects:
        return self.put(PortLost, port=f"port-{pump}", reason="the cable is out")

    def hear(self, words: str, pump: str = "p1") -> Effects:
        """The pump says a line of a script."""
        return self.put(BytesArrived, port=f"port-{pump}", data=words.encode() + b"\n")

    def connect(self) -> Effects:
        event = BrokerConnected(session_present=False, maximum_packet_size=None)
        return self.put(FromBroker, event=event)

    def history_takes(self) -> None:
        """The server of the history takes all that it is handed, and answers each."""
        while self.batches:
            batch = self.batches.pop(0)
            self.history_lines.extend(batch.payload.decode().split("\n"))
            self.put(HistoryAnswered, written_up_to=batch.seq)

    def lose_broker(self, reason_code: int | None = None) -> Effects:
        return self.put(FromBroker, event=BrokerLost(reason="gone", reason_code=reason_code))

    def confirm(self, send: Send, reason_code: int = 0) -> Effects:
        return self.put(FromBroker, event=BrokerConfirmed(token=send.token, reason_code=reason_code))

    def arrive(self, topic: str, payload: bytes, *, retain: bool = False) -> Effects:
        message = BrokerMessage(topic=topic, payload=payload, retain=retain, qos=1)
        return self.put(FromBroker, event=message)

    def tell(self, what: str, /, *, pump: str | None = None, retain: bool = False, **fields: Any) -> Effects:
        """The nursing side says something."""
        time = wire.iso_utc(BEGINNING_UTC_MS + self.now_ms)
        payload = {"schema": f"dripwatch.{what}/1", "time": time, "by": "nurse-07", **fields}
        return self.arrive(wire.down(HOME, what, pump=pump), json.dumps(payload).encode(), retain=retain)

    def receipt(self, alerts: int, telemetry: int = 0, **fields: Any) -> Effects:
        given = {"collector": "main", "store": self.engine.store, **fields}
        return self.tell("receipt", alerts=alerts, telemetry=telemetry, **given)

    # -- what was said -----------------------------------------------------------------------------

    def messages(self, what: str) -> list[Message]:
        """All that was handed to the broker under topics of this kind."""
        found = [send.message for send in self.sends]
        return [m for m in found if (topic := wire.parse_topic(m.topic)) is not None and topic.what == what]

    def said(self, what: str) -> list[dict[str, Any]]:
        """What was said under topics of this kind; a durable message that was sent twice counts once."""
        first = {
            message.payload if message.lane else number: message.payload
            for number, message in enumerate(self.messages(what))
            if message.payload
        }
        return [json.loads(payload) for payload in first.values()]

    def told(self, kind: str) -> list[tuple[int, str, str]]:
        """Each telling of alerts of a kind: rev, state, reason."""
        return [
            (alert["rev"], alert["state"], alert["reason"])
            for alert in self.said("alert")
            if alert.get("kind") == kind
        ]

    def alert(self, kind: str) -> dict[str, Any]:
        """The newest telling of the alert of a kind."""
        return [alert for alert in self.said("alert") if alert.get("kind") == kind][-1]

    def answers(self) -> list[tuple[str, str | None]]:
        return [(answer["id"], answer["reason"]) for answer in self.said("answer")]

    def links(self) -> list[str]:
        return [beat["pumps"]["p1"]["link"] for beat in self.said("beat")]

    def forget(self) -> None:
        """Begin to listen anew."""
        self.sends.clear()
        self.notes.clear()
        self.commits.clear()
