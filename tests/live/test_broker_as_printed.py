"""Mosquitto as the README sets it up: who is let in, and who may say and hear what (mqtt page, "Rules for the
broker").
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from alerts.mqtt import (
    BrokerConfirmed,
    BrokerConnected,
    BrokerEvent,
    BrokerLost,
    BrokerMessage,
    BrokerRefused,
    MqttClient,
    MqttConfig,
)
from alerts.sink import Message
from tests.live.broker import Authority, Mosquitto
from tests.live.house import Dashboard, Gateway, wait_until
from tests.live.kills import script

pytestmark = pytest.mark.live

NOT_AUTHORISED = 135


@pytest.fixture
def broker(tmp_path: Path, needs_mosquitto: None, authority: Authority) -> Iterator[Mosquitto]:
    broker = Mosquitto.as_printed(tmp_path / "mosquitto", authority)
    broker.start()
    yield broker
    broker.kill()


def settings_of(name: str, authority: Authority, *, days: int = 825) -> str:
    """What ``[mqtt]`` says of the certificate of a home or of the dashboard."""
    certificate, key = authority.client(name, days=days)
    return f'ca_file = "{authority.ca_file}"\ncert_file = "{certificate}"\nkey_file = "{key}"'


class User:
    """Whoever has this certificate, whatever else he calls himself."""

    def __init__(self, broker: Mosquitto, authority: Authority, name: str, reads: str) -> None:
        certificate, key = authority.client(name)
        self.heard: list[BrokerMessage] = []
        self._events: list[BrokerEvent] = []
        self._client = MqttClient(
            MqttConfig(
                host="localhost",
                port=broker.port,
                ca_file=str(authority.ca_file),
                cert_file=str(certificate),
                key_file=str(key),
            ),
            client_id=f"dw-{name}",
            username="dashboard",  # what he claims counts for nothing
            will=None,
            subscriptions=[(reads, 1)],
            session_expiry_s=0,
            deliver=self._on_event,
        )
        self._client.start()
        wait_until(lambda: self._has(BrokerConnected), f"{name} is let in")

    def says(self, topic: str) -> bool:
        """Whether the broker lets him say something there."""
        token = len(self._events) + 1
        self._client.send(Message(topic=topic, payload=topic.encode()), token)
        answers: list[BrokerConfirmed] = []

        def is_answered() -> bool:
            answers[:] = [
                one for one in self._events if isinstance(one, BrokerConfirmed) and one.token == token
            ]
            return bool(answers)

        wait_until(is_answered, f"an answer about {topic}")
        assert answers[0].reason_code < 128 or answers[0].reason_code == NOT_AUTHORISED
        return answers[0].reason_code < 128

    def hears(self, topic: str) -> bool:
        """Whether he has heard what was said there."""
        return any(message.topic == topic for message in self.heard)

    def stop(self) -> None:
        self._client.stop()

    def _on_event(self, event: BrokerEvent) -> None:
        self._events.append(event)
        if isinstance(event, BrokerMessage):
            self.heard.append(event)

    def _has(self, type_: type) -> bool:
        return any(isinstance(event, type_) for event in self._events)


UP_1, UP_2 = "dripwatch/v1/h-1/up/pump/p1/event", "dripwatch/v1/h-2/up/pump/p1/event"
DOWN_1, DOWN_2 = "dripwatch/v1/h-1/down/ack", "dripwatch/v1/h-2/down/ack"
ELSEWHERE = "elsewhere"


def test_each_user_may_say_and_hear_what_the_rules_say_and_no_more(broker: Mosquitto, authority: Authority):
    # All of them ask for everything; a subscription is granted, and judged when there is something to hear.
    users = {name: User(broker, authority, name, "#") for name in ("h-1", "h-2", "dashboard", "h-9")}
    may_say = {
        name: {topic for topic in (UP_1, UP_2, DOWN_1, DOWN_2, ELSEWHERE) if user.says(topic)}
        for name, user in users.items()
    }
    assert may_say == {
        "h-1": {UP_1},
        "h-2": {UP_2},
        "dashboard": {UP_1, UP_2, DOWN_1, DOWN_2},
        "h-9": set(),
    }
    # The broker delivers in order: what was said last is heard last.
    last_up, last_down = "dripwatch/v1/h-1/up/last", "dripwatch/v1/{}/down/last"
    assert users["dashboard"].says(last_up)
    for name in ("h-1", "h-2", "h-9"):
        assert users["dashboard"].says(last_down.format(name))
        wait_until(lambda name=name: users[name].hears(last_down.format(name)), f"{name} hears the last")
    wait_until(lambda: users["dashboard"].hears(last_up), "the dashboard hears the last")
    asked = (UP_1, UP_2, DOWN_1, DOWN_2, ELSEWHERE)
    may_hear = {name: {topic for topic in asked if user.hears(topic)} for name, user in users.items()}
    for user in users.values():
        user.stop()
    assert may_hear == {"h-1": {DOWN_1}, "h-2": {DOWN_2}, "dashboard": {UP_1, UP_2}, "h-9": set()}


def test_nobody_is_let_in_without_a_certificate_of_the_authority(
    broker: Mosquitto, authority: Authority, tmp_path: Path
):
    others = Authority(tmp_path / "other")
    certificate, key = others.client("h-1")
    for config in (
        MqttConfig(host="localhost", port=broker.port, ca_file=str(authority.ca_file)),
        MqttConfig(
            host="localhost",
            port=broker.port,
            ca_file=str(authority.ca_file),
            cert_file=str(certificate),
            key_file=str(key),
        ),
    ):
        events: list[BrokerEvent] = []
        client = MqttClient(
            config,
            client_id="dw-h-1",
            username="h-1",
            will=None,
            subscriptions=[],
            session_expiry_s=0,
            deliver=events.append,
        )
        client.start()
        wait_until(lambda events=events: bool(events), "an answer of the broker")
        client.stop()
        assert isinstance(events[0], BrokerRefused | BrokerLost)
        assert not any(isinstance(event, BrokerConnected) for event in events)


def a_home(folder: Path, broker: Mosquitto, mqtt: str) -> Gateway:
    pump = folder / "pump.script"
    folder.mkdir(parents=True)
    pump.write_text(script(0.4, 100.0))
    return Gateway(
        folder,
        home=folder.name,
        broker_port=broker.port,
        broker_host="localhost",
        port=f"script:{pump}",
        family="dummy",
        mqtt=mqtt,
    )


def test_a_home_and_a_dashboard_with_their_certificates_work_from_end_to_end(
    tmp_path: Path, broker: Mosquitto, authority: Authority
):
    board = Dashboard(
        tmp_path / "dashboard",
        broker.port,
        broker_host="localhost",
        mqtt=settings_of("dashboard", authority),
    )
    home = a_home(tmp_path / "h-1", broker, settings_of("h-1", authority))
    try:
        board.start()
        home.start()
        home.next_step("receipt", kind="occlusion")
        assert board.alert_ids("h-1", "occlusion") != set()
    finally:
        home.kill()
        board.kill()


def test_a_home_whose_certificate_has_expired_says_so_and_goes_on_watching(
    tmp_path: Path, broker: Mosquitto, authority: Authority
):
    home = a_home(tmp_path / "h-7", broker, settings_of("h-7", authority, days=-1))
    try:
        home.start()
        wait_until(lambda: "renew mqtt.cert_file" in home.said(), "it says what to do")
        assert "expired" in home.said()
        refused_at_s = time.time()
        while home.next_step("outbox")["at_s"] < refused_at_s:
            pass  # what it found before that
        assert home.process is not None
        assert home.process.poll() is None
        assert home.terminate() == 0
    finally:
        home.kill()
