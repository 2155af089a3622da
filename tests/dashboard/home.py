"""A home as the dashboard hears it: payloads as the MQTT page has them, and a clock that is set."""

from __future__ import annotations

import json
from typing import Any

from alerts import wire
from alerts.mqtt import BrokerMessage

BEGIN_UTC_MS = 1_777_882_900_000


class SetClock:
    """Stands at a moment until it is moved."""

    def __init__(self) -> None:
        self.at_ms = 1_000_000

    def now_ms(self) -> int:
        return self.at_ms

    def utc_ms(self) -> int:
        return BEGIN_UTC_MS + self.at_ms

    def pass_s(self, seconds: float) -> None:
        self.at_ms += round(seconds * 1000)


class SpeakingHome:
    """One gateway: numbers what it says, and makes the bytes."""

    def __init__(self, clock: Any, home: str = "h-1", store: str = "s-1", boot: str = "b1") -> None:
        self.clock = clock
        self.home = home
        self.store = store
        self.boot = boot
        self.seq = {"alerts": 0, "telemetry": 0}

    def _payload(self, what: str, **fields: Any) -> dict[str, Any]:
        return {
            "schema": f"dripwatch.{what}/1",
            "time": wire.iso_utc(self.clock.utc_ms()),
            "clock": "synced",
            "boot": self.boot,
            **fields,
        }

    def _durable(self, what: str, lane: str, **fields: Any) -> dict[str, Any]:
        if "seq" not in fields:
            self.seq[lane] += 1
        return self._payload(what, **{"store": self.store, "lane": lane, "seq": self.seq[lane], **fields})

    def _message(
        self,
        what: str,
        payload: dict[str, Any] | bytes,
        pump: str | None = None,
        alert_id: str | None = None,
        retain: bool = False,
    ) -> BrokerMessage:
        data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        topic = wire.up(self.home, what, pump=pump, alert_id=alert_id)
        return BrokerMessage(topic=topic, payload=data, retain=retain, qos=1)

    def alert(self, number: int = 1, rev: int = 1, *, retain: bool = False, **fields: Any) -> BrokerMessage:
        alert_id = fields.pop("alert_id", f"a-{self.store}-{number}")
        now = wire.iso_utc(self.clock.utc_ms())
        payload = self._durable(
            "alert",
            "alerts",
            **{
                "alert_id": alert_id,
                "rev": rev,
                "pump": "p1",
                "kind": "under_infusion",
                "code": None,
                "state": "active",
                "reason": "first",
                "priority": "medium",
                "level": 0,
                "urgency": "timed",
                "since": now,
                "raised": now,
                "respond_within_s": 1800,
                "expected_ml": 13.61,
                "delivered_ml": 13.3,
                "message": "Under-infusion: 0.31 mL (2.3 %) behind.",
                "acknowledged": None,
                **fields,
            },
        )
        return self._message("alert", payload, pump=payload["pump"], alert_id=alert_id, retain=retain)

    def acknowledged(self, number: int = 1, rev: int = 2, by: str = "nurse-07") -> BrokerMessage:
        now_ms = self.clock.utc_ms()
        given = {"by": by, "at": wire.iso_utc(now_ms), "until": wire.iso_utc(now_ms + 1_800_000)}
        return self.alert(number, rev, state="acknowledged", reason="acknowledged", acknowledged=given)

    def cleared(self, number: int = 1) -> BrokerMessage:
        return self._message("alert", b"", pump="p1", alert_id=f"a-{self.store}-{number}")

    def beat(
        self,
        open_alerts: tuple[tuple[str, int], ...] = (),
        *,
        oldest: int = 1,
        link: str = "up",
        age_s: float = 2.0,
        pumps: tuple[str, ...] = ("p1",),
        **fields: Any,
    ) -> BrokerMessage:
        payload = self._payload(
            "beat",
            store=self.store,
            open=len(open_alerts),
            digest=wire.digest(open_alerts),
            as_of=self.seq["alerts"],
            lanes={lane: {"oldest": oldest, "next": seq + 1} for lane, seq in self.seq.items()},
            pumps={pump: {"link": link, "age_s": age_s} for pump in pumps},
        )
        return self._message("beat", {**payload, **fields})

    def open_list(self, *alerts: tuple[str, int], **fields: Any) -> BrokerMessage:
        payload = self._payload("open", store=self.store, as_of=self.seq["alerts"], alerts=alerts)
        return self._message("open", {**payload, **fields}, retain=True)

    def status(self, online: bool, *, retain: bool = False) -> BrokerMessage:
        payload = self._payload("status", online=online, version="0.1.0", pumps=["p1"], store=self.store)
        return self._message("status", payload, retain=retain)

    def state(self, pump: str = "p1", *, retain: bool = False, **fields: Any) -> BrokerMessage:
        payload = self._payload(
            "state",
            **{
                "state": "running",
                "rate_ml_h": 10.0,
                "volume_ml": 12.4,
                "pressure_mmhg": 121.0,
                "battery_percent": 88.0,
                "alarms": [],
                "expected_ml": 13.6,
                "delivered_ml": 12.4,
                "verdict": "on_plan",
                "decidable_after_s": 0,
                "urgency": "timed",
                "origin": "real",
                "driver_status": "proved",
                "reading_age_s": 2.0,
                **fields,
            },
        )
        return self._message("state", payload, pump=pump, retain=retain)

    def telemetry(self, *points: tuple[str | None, float, float], **fields: Any) -> BrokerMessage:
        rows = [
            [time, None, "running", 10.0, counted, expected, counted, 120.0]
            for time, expected, counted in points
        ]
        payload = self._durable("telemetry", "telemetry", **{"historical": False, "points": rows, **fields})
        return self._message("telemetry", payload, pump="p1")

    def event(self, **fields: Any) -> BrokerMessage:
        payload = self._durable(
            "event", "alerts", **{"kind": "dose_started", "message": "It began.", **fields}
        )
        return self._message("event", payload, pump="p1")

    def order(self, version: int = 1, *, retain: bool = False, **fields: Any) -> BrokerMessage:
        order = {"version": version, "sha256": "0" * 64, "prescription": "drug = 1"}
        payload = self._durable(
            "order",
            "alerts",
            **{
                "id": f"order-{version}",
                "version": version,
                "sha256": "0" * 64,
                "accepted": True,
                "reason": None,
                "message": "",
                "in_force": order,
                "waiting": None,
                "ended": [],
                **fields,
            },
        )
        return self._message("order", payload, pump="p1", retain=retain)

    def answer(self, deed_id: str, accepted: bool, reason: str | None = None) -> BrokerMessage:
        payload = self._durable("answer", "alerts", id=deed_id, accepted=accepted, reason=reason)
        return self._message("answer", payload)
