"""Three pumps at one gateway: one is silent, one speaks only noise, and the third is watched as if alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from alerts import wire
from alerts.mqtt import BrokerConfirmed, BrokerConnected
from alerts.sink import Message
from drivers import families
from gateway.core.order import parse_order
from gateway.core.timeline import Moment
from gateway.engine import Engine, EngineSetup
from gateway.inputs import BytesArrived, Committed, FromBroker, Input, PortOpened, Tick
from gateway.pump import PumpSetup
from gateway.store import Store
from simulator.device import Device, Transmission
from simulator.scenario import load_scenario, prescription_starting

BEGINNING_UTC_MS = 1_795_435_200_000
"""2026-11-23T12:00:00Z."""
START = "2026-11-23T12:00:00+00:00"
ENDS_MS = 600_000


def device(story: str) -> Device:
    return Device("alaris", load_scenario(story))


def silent(story: str) -> Device:
    made = device(story)
    made.pump.befall(made.pump.mishaps.begin("silent", 0), 0)
    return made


class Garbled(Device):
    """Hears what it is asked, and of its answers every bit is turned round."""

    def receive(self, data: bytes, now_ms: int) -> tuple[Transmission, ...]:
        return tuple(
            structs.replace(answer, data=bytes(byte ^ 0xFF for byte in answer.data))
            for answer in super().receive(data, now_ms)
        )


class Ward:
    """A gateway with pumps, each on a port of its own, in time that jumps from one happening to the next."""

    def __init__(self, folder: Path, devices: dict[str, Device]) -> None:
        folder.mkdir()
        self.now_ms = 0
        self.devices = devices
        self.sent: list[Message] = []
        self._coming: list[tuple[int, str, bytes]] = []
        self._store = Store(folder / "dripwatch.sqlite")
        restored = self._store.restore()
        self._engine = Engine(
            EngineSetup(
                home="h-ward",
                version="test",
                pumps=tuple(self._setup(pump, made) for pump, made in devices.items()),
                families={f"port-{pump}": families.find("alaris") for pump in devices},
                collector="",
                mqtt=True,
                boot="b-1",
            ),
            store="s-1",
            alerts=restored.alerts,
            lanes=restored.lanes,
            kept=restored.kept,
        )

    def _setup(self, pump: str, made: Device) -> PumpSetup:
        text = prescription_starting(made.scenario.prescription_text, START)
        return PumpSetup(
            pump=pump,
            port=f"port-{pump}",
            address=None,
            poll_ms=1_000,
            origin="test",
            driver_status="experimental",
            serial_number=None,
            prescription=parse_order(text),
            prescription_text=text,
            prescription_sha256=pump,
        )

    def run(self, until_ms: int) -> None:
        wake_ms = self._put(Tick)
        self._put(FromBroker, event=BrokerConnected(session_present=False, maximum_packet_size=None))
        for pump in self.devices:
            wake_ms = min(wake_ms, self._put(PortOpened, port=f"port-{pump}"))
        while self.now_ms < until_ms:
            if self._coming and self._coming[0][0] <= wake_ms:
                at_ms, port, data = self._coming.pop(0)
                self.now_ms = max(self.now_ms, at_ms)
                wake_ms = self._put(BytesArrived, port=port, data=data)
            else:
                self.now_ms = wake_ms
                wake_ms = self._put(Tick)
        self._store.close()

    def _put(self, kind: type[Input], **fields: Any) -> int:
        """Something happens; what follows is done at once. When to wake."""
        moment = Moment(
            monotonic_ms=20_000 + self.now_ms,
            utc_ms=BEGINNING_UTC_MS + self.now_ms,
            synced=True,
            boot="machine-1",
        )
        effects = self._engine.handle(kind(moment=moment, **fields))  # type: ignore[operator]
        for write in effects.writes:
            answers = self.devices[write.port.removeprefix("port-")].receive(write.data, self.now_ms)
            self._coming += [(one.at_ms, write.port, one.data) for one in answers if one.data]
        self._coming.sort()
        self.sent += [send.message for send in effects.sends]
        wake_ms = self.now_ms + max(1, effects.wake_in_ms)
        if effects.commit is not None:
            self._store.commit(effects.commit)
            wake_ms = min(wake_ms, self._put(Committed, number=effects.commit.number))
        for send in effects.sends:
            if send.message.qos:
                confirmed = BrokerConfirmed(token=send.token, reason_code=0)
                wake_ms = min(wake_ms, self._put(FromBroker, event=confirmed))
        return wake_ms

    def readings_of(self, pump: str) -> list[list[Any]]:
        """Every point of telemetry, with its time."""
        return [point for message in self._said("telemetry", pump).values() for point in message["points"]]

    def findings_of(self, pump: str) -> list[tuple[Any, ...]]:
        """Every telling of every alert."""
        told = ("kind", "code", "state", "reason", "priority", "time", "since", "expected_ml", "delivered_ml")
        return [
            tuple(alert.get(name) for name in (*told, "message"))
            for alert in self._said("alert").values()
            if alert.get("pump") == pump
        ]

    def _said(self, what: str, pump: str | None = None) -> dict[bytes, dict[str, Any]]:
        """By its bytes: what is said twice counts once."""
        places = [(wire.parse_topic(message.topic), message) for message in self.sent]
        return {
            message.payload: json.loads(message.payload)
            for place, message in places
            if place is not None and place.what == what and pump in (None, place.pump)
        }


@pytest.mark.parametrize("story", ["occlusion", "under_delivery", "stopped", "steady"])
def test_a_silent_and_a_garbled_pump_change_nothing_for_the_third(tmp_path, story):
    alone = Ward(tmp_path / "alone", {"p3": device(story)})
    alone.run(ENDS_MS)
    three = Ward(
        tmp_path / "three",
        {"p1": silent(story), "p2": Garbled("alaris", load_scenario(story)), "p3": device(story)},
    )
    three.run(ENDS_MS)
    assert len(alone.readings_of("p3")) > 300
    assert three.readings_of("p3") == alone.readings_of("p3")
    assert three.findings_of("p3") == alone.findings_of("p3")
    kinds = {finding[0] for finding in alone.findings_of("p3")}
    assert bool(kinds) == (story != "steady")
    assert three.readings_of("p1") == three.readings_of("p2") == []
    assert {finding[0] for finding in three.findings_of("p1")} >= {"no_data"}
    assert {finding[0] for finding in three.findings_of("p2")} >= {"no_data", "garbled_link"}
