"""Days without the broker, and then it is back: alerts first, telemetry after, in order, complete."""

from __future__ import annotations

import json

import pytest

from alerts.sink import Lane
from gateway.lanes import POLICIES, LanePolicy
from tests.gateway.home import Home

EVERY_S = 10
ALERTS = 30


def drain(home: Home) -> list[dict[str, object]]:
    """Connect, and receipt all that comes; the durable messages in the order in which they came."""
    home.forget()
    home.connect()
    seen = 0
    highest = {Lane.ALERTS: 0, Lane.TELEMETRY: 0}
    came: dict[tuple[Lane, int], dict[str, object]] = {}
    while seen < len(home.sends):
        for message in [send.message for send in home.sends[seen:]]:
            seen += 1
            if message.lane is not None and message.seq is not None:
                came.setdefault((message.lane, message.seq), json.loads(message.payload))
                highest[message.lane] = max(highest[message.lane], message.seq)
        home.receipt(highest[Lane.ALERTS], highest[Lane.TELEMETRY])
        assert home.engine.held_in_memory < 200
    return list(came.values())


@pytest.mark.parametrize(
    "hours", [pytest.param(6, id="six hours"), pytest.param(7 * 24, id="seven days", marks=pytest.mark.long)]
)
@pytest.mark.parametrize("restarts", [False, True], ids=["running", "with power cuts"])
def test_after_so_long_all_alerts_come_first_and_then_all_points_once_in_order_and_marked(
    tmp_path, hours, restarts
):
    home = Home(tmp_path)
    home.plug_in()
    spoken = 0
    for number in range(hours * 3_600 // EVERY_S):
        alarm = "occlusion_downstream" if number % 60 < 30 and number < 60 * ALERTS else ""
        home.hear(f"state=running rate_ml_h=60 volume_ml={number % 1000} alarms={alarm}")
        spoken += 1
        home.wait(EVERY_S)
        if restarts and number % 720 == 719:
            # So long is at risk in a power cut, and no longer.
            home.wait(51)
            home.cut_power()
            home.start()
            home.plug_in()
    came = drain(home)
    lanes = [message["lane"] for message in came]
    assert lanes == sorted(lanes)
    assert lanes.count("alerts") > 20
    for lane in ("alerts", "telemetry"):
        numbers = [message["seq"] for message in came if message["lane"] == lane]
        assert numbers == list(range(1, len(numbers) + 1))
    batches = [message for message in came if message["lane"] == "telemetry"]
    points = [point for batch in batches for point in batch["points"]]
    times = [point[0] for point in points]
    assert len(points) == spoken
    assert times == sorted(set(times))
    assert all(batch["historical"] for batch in batches[:-1])


def test_what_was_given_up_for_want_of_room_is_told_once_when_somebody_hears_it(tmp_path, monkeypatch):
    policy = LanePolicy(waiting_max=3, window=40)
    monkeypatch.setattr("gateway.outbox.POLICIES", {**POLICIES, Lane.TELEMETRY: policy})
    home = Home(tmp_path)
    home.plug_in()
    for number in range(1_000):
        home.now_ms += 1_000
        home.hear(f"state=running rate_ml_h=60 volume_ml={number} alarms=")
    home.wait(60)
    home.cut_power()
    home.start()
    home.connect()
    (told,) = (event for event in home.said("event") if event["kind"] == "telemetry_dropped")
    arrived = sum(len(batch["points"]) for batch in home.said("telemetry"))
    assert told["message"].startswith("7 batches of readings were given up")
    assert arrived == 1_000 - 7 * 100
    assert [topic.topic for topic in home.messages("event")] == ["dripwatch/v1/h-1/up/pump/gateway/event"]


@pytest.mark.parametrize("alarm_s", range(10, 100, 10))
def test_no_reading_waits_longer_than_a_minute_for_the_card_whenever_an_alert_is_written(tmp_path, alarm_s):
    home = Home(tmp_path)
    home.plug_in()
    taken: list[int] = []
    for second in range(0, 110, EVERY_S):
        alarm = "occlusion_downstream" if second >= alarm_s else ""
        home.hear(f"state=running rate_ml_h=60 volume_ml={second} alarms={alarm}")
        taken.append(home.now_ms)
        home.wait(EVERY_S)
    cut_ms = home.now_ms
    home.cut_power()
    home.start()
    came = drain(home)
    points = [point for message in came if message["lane"] == "telemetry" for point in message["points"]]
    assert len(points) >= sum(cut_ms - at_ms > 60_000 for at_ms in taken)
