"""The alert path against the bare parts it is made of, in one run: ``make bench``.

Measured: from the moment at which the last byte that makes an alert true is written to the pump's port, to
the broker's confirmation of the alert that follows from it. Compared with the sum of one bare SQLite commit
(write-ahead log, ``synchronous=FULL``, a row of the same size) and one bare paho publish at QoS 1 of the same
size, on the same disk and the same broker. Machines are noisy: the three take turns in one run, and the ratio
is what counts.
"""

from __future__ import annotations

import argparse
import queue
import socket
import sqlite3
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import msgspec
import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from alerts.mqtt import BrokerConfirmed, BrokerConnected, BrokerEvent, MqttClient, MqttConfig
from alerts.sink import Lane
from drivers import families
from gateway.clock import SystemClock
from gateway.effects import Effects
from gateway.engine import Engine, EngineSetup
from gateway.inputs import FromBroker, Input
from gateway.pump import PumpSetup
from gateway.run import Gateway
from gateway.store import Store
from gateway.watchdog import Watchdog
from tests.live.broker import Mosquitto

ROUNDS = 5
ALERTS_A_ROUND = 40
BARE_A_ROUND = 200
PATIENCE_S = 10.0
PAYLOAD_BYTES = 700
"""About what an alert takes on the wire."""
OCCLUDED = b"state=paused rate_ml_h=0 volume_ml=1 alarms=occlusion_downstream\n"
CLEAR = b"state=paused rate_ml_h=0 volume_ml=1 alarms=\n"


class AlertPath:
    """A whole gateway, with a pump whose occlusion comes and goes at our word."""

    def __init__(self, folder: Path, broker: Mosquitto) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        port = f"socket://127.0.0.1:{self._listener.getsockname()[1]}"
        self._confirmed: queue.Queue[float] = queue.Queue()
        self._connected = threading.Event()
        self._tokens: set[int] = set()
        self._occluded = False
        store = Store(folder / "gateway.sqlite")
        restored = store.restore()
        family = families.find("dummy")
        pump = PumpSetup(
            pump="p1",
            port=port,
            address=None,
            poll_ms=1_000,
            origin="test",
            driver_status=family.traits.status,
            serial_number=None,
            prescription=None,
            prescription_text=None,
            prescription_sha256=None,
        )
        setup = EngineSetup(
            home="h-bench",
            version="bench",
            pumps=(pump,),
            families={port: family},
            collector="",
            mqtt=True,
            boot="b-bench",
        )
        engine = Engine(
            setup, store=restored.store, alerts=restored.alerts, lanes=restored.lanes, kept=restored.kept
        )
        self._gateway = Gateway(
            engine,
            clock=SystemClock(always_synced=True),
            store=store,
            lines={port: family.line},
            broker=partial(self._client, broker),
            watchdog=Watchdog(),
            observers=(self._observe,),
        )
        self._thread = threading.Thread(
            target=self._gateway.run, kwargs={"handle_signals": False}, daemon=True
        )
        self._thread.start()
        self._pump, _ = self._listener.accept()
        assert self._connected.wait(PATIENCE_S), "the gateway does not reach the broker"

    def toggle(self) -> float:
        """Seconds from the last byte to the broker's confirmation of the alert."""
        self._occluded = not self._occluded
        line = OCCLUDED if self._occluded else CLEAR
        began = time.perf_counter()
        self._pump.sendall(line)
        return self._confirmed.get(timeout=PATIENCE_S) - began

    def stop(self) -> None:
        """End the gateway."""
        self._gateway.stop()
        self._thread.join(PATIENCE_S)
        self._pump.close()
        self._listener.close()

    @staticmethod
    def _client(broker: Mosquitto, deliver: Callable[[BrokerEvent], None]) -> MqttClient:
        return MqttClient(
            MqttConfig(host="127.0.0.1", port=broker.port, collector=""),
            client_id="dw-h-bench",
            username="h-bench",
            will=None,
            subscriptions=(),
            session_expiry_s=0,
            deliver=deliver,
        )

    def _observe(self, happened: Input, effects: Effects) -> None:
        for send in effects.sends:
            if send.message.lane is Lane.ALERTS and "/alert/" in send.message.topic:
                self._tokens.add(send.token)
        if isinstance(happened, FromBroker):
            match happened.event:
                case BrokerConnected():
                    self._connected.set()
                case BrokerConfirmed(token=token) if token in self._tokens:
                    self._confirmed.put(time.perf_counter())


def subscribe_and_leave(broker: Mosquitto) -> None:
    """Somebody has subscribed, else an alert counts as unread (MQTT 5, code 16) and is kept; and is away."""
    subscribed = threading.Event()
    reader = paho.Client(CallbackAPIVersion.VERSION2, client_id="reader", protocol=paho.MQTTv5)
    reader.on_connect = lambda *_: reader.subscribe("dripwatch/#", qos=0)
    reader.on_subscribe = lambda *_: subscribed.set()
    stays = Properties(PacketTypes.CONNECT)
    stays.SessionExpiryInterval = 3_600
    reader.connect("127.0.0.1", broker.port, clean_start=False, properties=stays)
    reader.loop_start()
    assert subscribed.wait(PATIENCE_S), "no broker"
    reader.disconnect()
    reader.loop_stop()


class BareCommit:
    """One row of the size of an alert, committed."""

    def __init__(self, folder: Path) -> None:
        self._database = sqlite3.connect(folder / "bare.sqlite", isolation_level=None)
        self._database.execute("pragma journal_mode=wal")
        self._database.execute("pragma synchronous=full")
        self._database.execute("create table row (body blob)")

    def once(self) -> float:
        """Seconds for one commit."""
        began = time.perf_counter()
        self._database.execute("insert into row values (?)", (b"x" * PAYLOAD_BYTES,))
        return time.perf_counter() - began


class BarePublish:
    """One publish at QoS 1 of the size of an alert, confirmed."""

    def __init__(self, broker: Mosquitto) -> None:
        self._confirmed = threading.Event()
        self._client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        self._client.on_publish = lambda *_: self._confirmed.set()
        connected = threading.Event()
        self._client.on_connect = lambda *_: connected.set()
        self._client.connect("127.0.0.1", broker.port)
        self._client.loop_start()
        assert connected.wait(PATIENCE_S), "no broker"

    def once(self) -> float:
        """Seconds from publish to confirmation."""
        self._confirmed.clear()
        began = time.perf_counter()
        self._client.publish("bare", b"x" * PAYLOAD_BYTES, qos=1)
        assert self._confirmed.wait(PATIENCE_S)
        return time.perf_counter() - began

    def stop(self) -> None:
        """Disconnect."""
        self._client.disconnect()
        self._client.loop_stop()


def main() -> int:
    """Print the ratio as JSON on standard output, and progress on a terminal."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    times: dict[str, list[float]] = {"alert": [], "commit": [], "publish": []}
    with tempfile.TemporaryDirectory(prefix="dripwatch-bench-") as name, ExitStack() as ends:
        folder = Path(name)
        broker = Mosquitto(folder / "mosquitto")
        ends.callback(broker.kill)
        broker.start()
        subscribe_and_leave(broker)
        path, commit, publish = AlertPath(folder, broker), BareCommit(folder), BarePublish(broker)
        for number in range(ROUNDS):
            if sys.stderr.isatty():
                sys.stderr.write(f"\rround {number + 1} of {ROUNDS}")
                sys.stderr.flush()
            times["alert"] += [path.toggle() for _ in range(ALERTS_A_ROUND)]
            times["commit"] += [commit.once() for _ in range(BARE_A_ROUND)]
            times["publish"] += [publish.once() for _ in range(BARE_A_ROUND)]
        path.stop()
        publish.stop()
    p50_ms = {what: statistics.median(seconds) * 1000 for what, seconds in times.items()}
    result = {
        "benchmark": "alert_path",
        **{f"{what}_p50_ms": round(value, 3) for what, value in p50_ms.items()},
        "ratio_to_commit_plus_publish": round(p50_ms["alert"] / (p50_ms["commit"] + p50_ms["publish"]), 2),
    }
    sys.stdout.write(msgspec.json.encode(result).decode() + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
