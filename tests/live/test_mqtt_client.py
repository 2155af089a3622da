"""The door to the broker, on real brokers: what is confirmed, what is refused, and what a person is told."""

from __future__ import annotations

import queue
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.reasoncodes import ReasonCode

from alerts.mqtt import (
    SESSION_TAKEN_OVER,
    BrokerConfirmed,
    BrokerConnected,
    BrokerEvent,
    BrokerLost,
    BrokerMessage,
    BrokerRefused,
    MqttClient,
    MqttConfig,
    why_lost,
)
from alerts.sink import Message, SinkDown
from alerts.wire import MAX_READ_BYTES
from tests.live.broker import ACCESS_LIST, Amqtt, Authority, Mosquitto, free_port

pytestmark = pytest.mark.live

WITHIN_S = 30.0
NOT_AUTHORISED = 135
WEEK_S = 7 * 24 * 3600
T = TypeVar("T")


HOME_THAT_DIES = """
import sys, threading
from alerts.mqtt import MqttClient, MqttConfig
from alerts.sink import Message
connected = threading.Event()
MqttClient(
    MqttConfig(host="127.0.0.1", port=int(sys.argv[1])), client_id="dw-h-1", username="h-1",
    will=lambda: Message(topic="dripwatch/v1/h-1/up/status", payload=b"gone", retain=True),
    subscriptions=[], session_expiry_s=60, deliver=lambda event: connected.set(),
).start()
connected.wait()
print("connected", flush=True)
threading.Event().wait()
"""


class Side:
    """One client, and what it was told."""

    def __init__(
        self,
        config: MqttConfig,
        client_id: str = "dw-h-1",
        *,
        username: str | None = "h-1",
        will: Message | None = None,
        reads: str = "dripwatch/v1/h-1/down/#",
        session_expiry_s: int = WEEK_S,
    ) -> None:
        self.events: queue.Queue[BrokerEvent] = queue.Queue()
        self.client = MqttClient(
            config,
            client_id=client_id,
            username=username,
            will=None if will is None else lambda: will,
            subscriptions=[(reads, 1)],
            session_expiry_s=session_expiry_s,
            deliver=self.events.put,
        )
        self.client.start()

    def told(self, type_: type[T]) -> T:
        """The next event of this type; others before it are passed over."""
        while True:
            event = self.events.get(timeout=WITHIN_S)
            if isinstance(event, type_):
                return event

    def ready(self) -> BrokerConnected:
        """Connected and subscribed: the broker answers in order, and the subscription went out first."""
        connected = self.told(BrokerConnected)
        self.say("", 0, topic="test/ready")
        assert self.told(BrokerConfirmed).token == 0
        return connected

    def say(self, text: str, token: int = 1, *, topic: str = "dripwatch/v1/h-1/up/answer", **more) -> None:
        self.client.send(Message(topic=topic, payload=text.encode(), **more), token)


Open = Callable[..., Side]


@pytest.fixture
def side() -> Iterator[Open]:
    """Opens clients, and stops them in the end."""
    opened: list[Side] = []

    def open_side(*arguments, **more) -> Side:
        opened.append(Side(*arguments, **more))
        return opened[-1]

    yield open_side
    for one in opened:
        one.client.stop()


@pytest.fixture
def nurse(side: Open) -> Callable[[Mosquitto | Amqtt], Side]:
    """Somebody who reads everything that comes from homes."""

    def open_nurse(broker: Mosquitto | Amqtt, version: int = 3) -> Side:
        reader = side(at(broker, version), "dashboard", username="dashboard", reads="dripwatch/v1/+/up/#")
        reader.ready()
        return reader

    return open_nurse


def at(broker: Mosquitto | Amqtt, version: int = 5, **files: str) -> MqttConfig:
    return MqttConfig(host=broker.host, port=broker.port, version=version, **files)


class TestOnMosquitto:
    @pytest.mark.parametrize("version", [3, 5])
    def test_a_message_is_confirmed_by_its_token_and_arrives(
        self, mosquitto: Mosquitto, side: Open, nurse, version: int
    ):
        reader, home = nurse(mosquitto, version), side(at(mosquitto, version))
        assert home.told(BrokerConnected) == BrokerConnected(session_present=False)
        for token in range(1, 51):
            home.say(f"message {token}", token)
        assert {home.told(BrokerConfirmed).token for _ in range(50)} == set(range(1, 51))
        assert [reader.told(BrokerMessage).payload.decode() for _ in range(50)] == [
            f"message {token}" for token in range(1, 51)
        ]

    def test_a_session_is_kept_and_what_came_meanwhile_is_delivered(self, mosquitto: Mosquitto, side: Open):
        home = side(at(mosquitto))
        home.told(BrokerConnected)
        home.client.stop()
        nurse = side(at(mosquitto), "dashboard")
        nurse.told(BrokerConnected)
        nurse.say("an order", topic="dripwatch/v1/h-1/down/ack")
        nurse.told(BrokerConfirmed)
        home = side(at(mosquitto))
        assert home.told(BrokerConnected).session_present
        assert home.told(BrokerMessage) == BrokerMessage(
            topic="dripwatch/v1/h-1/down/ack", payload=b"an order", retain=False, qos=1
        )

    def test_what_is_retained_says_so(self, mosquitto: Mosquitto, side: Open):
        home = side(at(mosquitto))
        home.told(BrokerConnected)
        home.say("now", retain=True)
        home.told(BrokerConfirmed)
        reader = side(at(mosquitto), "dashboard", reads="dripwatch/v1/+/up/#")
        assert reader.told(BrokerMessage).retain

    def test_the_last_will_is_sent_on_loss_and_not_on_a_clean_stop(
        self, mosquitto: Mosquitto, side: Open, nurse
    ):
        reader = nurse(mosquitto)
        will = Message(topic="dripwatch/v1/h-1/up/status", payload=b"gone", retain=True)
        goodbye = Message(topic="dripwatch/v1/h-1/up/status", payload=b"goodbye", retain=True)
        leaves = side(at(mosquitto), will=will)
        leaves.told(BrokerConnected)
        leaves.client.stop(goodbye)
        assert reader.told(BrokerMessage).payload == b"goodbye"
        dies = subprocess.Popen(
            [sys.executable, "-c", HOME_THAT_DIES, str(mosquitto.port)], stdout=subprocess.PIPE
        )
        with dies:
            assert dies.stdout is not None
            assert dies.stdout.readline() == b"connected\n"
            dies.kill()
        assert reader.told(BrokerMessage).payload == b"gone"

    def test_a_second_client_of_the_same_name_throws_the_first_out(self, mosquitto: Mosquitto, side: Open):
        # Mosquitto 2.0.11 closes without a word; others say 142.
        first = side(at(mosquitto))
        first.ready()
        side(at(mosquitto)).told(BrokerConnected)
        assert first.told(BrokerLost).reason_code in (None, SESSION_TAKEN_OVER)

    @pytest.mark.parametrize("version", [3, 5])
    def test_a_killed_broker_is_found_again_and_nothing_is_sent_meanwhile(
        self, mosquitto: Mosquitto, side: Open, nurse, version: int
    ):
        reader, home = nurse(mosquitto), side(at(mosquitto, version))
        home.told(BrokerConnected)
        home.say("before", 1)
        assert home.told(BrokerConfirmed).token == 1
        assert reader.told(BrokerMessage).payload == b"before"
        mosquitto.kill()
        home.told(BrokerLost)
        for token in range(2, 50):
            with pytest.raises(SinkDown):
                home.say("while nobody listens", token)
        mosquitto.start()
        reader.ready()
        home.told(BrokerConnected)
        home.say("after", 50)
        assert home.told(BrokerConfirmed).token == 50
        assert reader.told(BrokerMessage).payload == b"after"

    def test_what_was_under_way_when_the_broker_died_is_not_sent_again_by_itself(
        self, mosquitto: Mosquitto, side: Open
    ):
        home = side(at(mosquitto))
        home.told(BrokerConnected)
        mosquitto.pause()
        for token in range(1, 30):
            home.say("under way", token, topic="dripwatch/v1/h-1/up/status", retain=True)
        mosquitto.kill()
        home.told(BrokerLost)
        mosquitto.start()
        home.told(BrokerConnected)
        home.say("anew", 100, retain=True)
        assert home.told(BrokerConfirmed).token == 100
        # The broker has had all that home sent: what it holds now is what it was sent.
        reader = side(at(mosquitto), "dashboard", reads="dripwatch/v1/+/up/#")
        reader.told(BrokerConnected)
        reader.say("the end", topic="dripwatch/v1/h-9/up/status")
        held = [reader.told(BrokerMessage).payload]
        while held[-1] != b"the end":
            held.append(reader.told(BrokerMessage).payload)
        assert held == [b"anew", b"the end"]

    def test_a_publish_that_is_not_allowed_is_told_in_mqtt_5_and_the_connection_stays(
        self, tmp_path: Path, needs_mosquitto: None, side: Open
    ):
        broker = Mosquitto(tmp_path, passwords={"h-1": "secret"}, access_list=ACCESS_LIST)
        password = tmp_path / "home.password"
        password.write_text("secret\n")
        broker.start()
        try:
            home = side(at(broker, password_file=str(password)))
            home.told(BrokerConnected)
            home.say("mine", 1)
            home.say("a neighbour's", 2, topic="dripwatch/v1/h-2/up/answer")
            home.say("mine again", 3)
            answers = [home.told(BrokerConfirmed) for _ in range(3)]
            assert {answer.token for answer in answers if answer.reason_code == NOT_AUTHORISED} == {2}
            assert {answer.token for answer in answers if answer.reason_code < 128} == {1, 3}
        finally:
            broker.kill()

    def test_what_is_larger_than_the_broker_takes_is_refused_without_losing_the_connection(
        self, tmp_path: Path, needs_mosquitto: None, side: Open
    ):
        broker = Mosquitto(tmp_path, settings="max_packet_size 2000")
        broker.start()
        try:
            home = side(at(broker))
            assert home.told(BrokerConnected).maximum_packet_size == 2000
            home.say("x" * 3000, 1)
            assert home.told(BrokerConfirmed) == BrokerConfirmed(token=1, reason_code=149)
            home.say("x" * 1000, 2)
            assert home.told(BrokerConfirmed) == BrokerConfirmed(token=2, reason_code=16)
        finally:
            broker.kill()

    def test_a_payload_above_64_kib_is_counted_and_dropped(self, mosquitto: Mosquitto, side: Open):
        home, other = side(at(mosquitto)), side(at(mosquitto), "other")
        home.ready()
        other.ready()
        for text in ("x" * (MAX_READ_BYTES + 1), "x" * MAX_READ_BYTES):
            other.say(text, topic="dripwatch/v1/h-1/down/ack")
        assert len(home.told(BrokerMessage).payload) == MAX_READ_BYTES
        assert home.client.oversized == 1


class TestTls:
    @pytest.fixture
    def broker(self, tmp_path: Path, needs_mosquitto: None, authority: Authority) -> Iterator[Mosquitto]:
        broker = Mosquitto(tmp_path, authority=authority, require_certificate=True, access_list=ACCESS_LIST)
        broker.start()
        yield broker
        broker.kill()

    @pytest.mark.parametrize("version", [3, 5])
    def test_a_home_with_its_certificate_is_let_in_under_the_name_in_it(
        self, broker: Mosquitto, authority: Authority, side: Open, version: int
    ):
        certificate, key = authority.client("h-1")
        files = {"ca_file": str(authority.ca_file), "cert_file": str(certificate), "key_file": str(key)}
        home = side(at(broker, version, **files))
        home.told(BrokerConnected)
        home.say("hello", 7)
        assert home.told(BrokerConfirmed).token == 7

    def test_a_home_without_a_certificate_is_told_to_set_one(
        self, broker: Mosquitto, authority: Authority, side: Open
    ):
        home = side(at(broker, ca_file=str(authority.ca_file)))
        assert "mqtt.cert_file" in home.told(BrokerRefused).reason

    def test_a_home_with_an_expired_certificate_is_told_to_renew_it(
        self, broker: Mosquitto, authority: Authority, side: Open
    ):
        certificate, key = authority.client("h-9", days=-1)
        files = {"ca_file": str(authority.ca_file), "cert_file": str(certificate), "key_file": str(key)}
        # The broker's reason, or, where the end of the connection overtakes it, what it may be.
        told = home_is_told(side(at(broker, **files)))
        assert "expired" in told
        assert "renew mqtt.cert_file" in told

    def test_a_home_with_another_authority_is_told_which_file_is_wrong(
        self, broker: Mosquitto, tmp_path: Path, side: Open
    ):
        other = Authority(tmp_path / "other")
        told = home_is_told(side(at(broker, ca_file=str(other.ca_file))))
        assert "an authority that" in told
        assert str(other.ca_file) in told
        assert "set mqtt.ca_file" in told

    @pytest.mark.parametrize(
        ("name", "days", "sentence"),
        [
            ("localhost", -1, "The broker's certificate has expired"),
            ("somewhere.example", 825, "The broker's certificate is not for '127.0.0.1'"),
        ],
    )
    def test_a_certificate_of_the_broker_that_cannot_hold_is_named(
        self,
        tmp_path: Path,
        needs_mosquitto: None,
        side: Open,
        name: str,
        days: int,
        sentence: str,
    ):
        authority = Authority(tmp_path / "authority")
        broker = Mosquitto(tmp_path / "broker", authority=authority, server=authority.server(name, days=days))
        broker.start()
        try:
            assert home_is_told(side(at(broker, ca_file=str(authority.ca_file)))).startswith(sentence)
        finally:
            broker.kill()

    def test_a_port_that_does_not_speak_tls_is_named(
        self, mosquitto: Mosquitto, authority: Authority, side: Open
    ):
        told = home_is_told(side(at(mosquitto, ca_file=str(authority.ca_file))))
        assert "mqtt.port" in told or "mqtt.cert_file" in told

    def test_a_port_that_wants_tls_is_named(self, broker: Mosquitto, side: Open):
        assert "set mqtt.ca_file" in home_is_told(side(at(broker)))


def home_is_told(home: Side) -> str:
    return home.told(BrokerRefused).reason


class TestWhatAPersonIsTold:
    @pytest.mark.parametrize("version", [3, 5])
    def test_of_a_wrong_password(self, tmp_path: Path, needs_mosquitto: None, side: Open, version: int):
        broker = Mosquitto(tmp_path, passwords={"h-1": "secret"})
        password = tmp_path / "home.password"
        password.write_text("guess\n")
        broker.start()
        try:
            told = home_is_told(side(at(broker, version, password_file=str(password))))
            assert told.startswith("The broker does not accept user 'h-1' with this password")
            assert str(password) in told
            assert "set mqtt.password_file" in home_is_told(side(at(broker, version), "other"))
        finally:
            broker.kill()

    def test_of_a_port_where_nobody_listens(self, side: Open):
        port = free_port()
        told = home_is_told(side(MqttConfig(host="127.0.0.1", port=port)))
        assert told.startswith(f"Nothing answers at 127.0.0.1:{port}: start the broker there")

    @pytest.mark.parametrize("host", ["no-such-broker.invalid", "a..b"])
    def test_of_a_name_that_is_not_known(self, side: Open, host: str):
        assert "correct mqtt.host" in home_is_told(side(MqttConfig(host=host, port=1883)))

    @pytest.mark.parametrize("key", ["ca_file", "cert_file", "password_file"])
    def test_of_a_file_that_is_not_there(self, mosquitto: Mosquitto, side: Open, key: str):
        files = {"ca_file": None, key: "/nowhere/file.pem"}
        told = home_is_told(side(MqttConfig(host="127.0.0.2", port=mosquitto.port, **files)))
        assert told.startswith(f"mqtt.{key}")
        assert "/nowhere/file.pem" in told

    def test_is_said_once_while_it_lasts_and_the_client_comes_when_the_broker_does(
        self, mosquitto: Mosquitto, side: Open
    ):
        mosquitto.kill()
        home = side(at(mosquitto))
        home.told(BrokerRefused)
        mosquitto.start()
        assert isinstance(home.events.get(timeout=WITHIN_S), BrokerConnected)


class TestOnAmqtt:
    def test_a_message_is_confirmed_and_arrives(self, amqtt: Amqtt, side: Open, nurse):
        reader, home = nurse(amqtt), side(at(amqtt, 3))
        home.told(BrokerConnected)
        home.say("hello", 1)
        assert home.told(BrokerConfirmed).token == 1
        assert reader.told(BrokerMessage).payload == b"hello"

    def test_mqtt_5_is_refused_with_the_version_to_set(self, amqtt: Amqtt, side: Open):
        assert "set mqtt.version = 3" in home_is_told(side(at(amqtt, 5)))


def test_a_broker_never_has_more_messages_at_a_time_than_it_can_take(side: Open):
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(WITHIN_S)
    connack_receive_maximum_3 = bytes.fromhex("20 06 00 00 03 21 00 03")
    suback = bytes.fromhex("90 04 00 01 00 01")
    config = MqttConfig(host="127.0.0.1", port=listener.getsockname()[1])
    home = side(config)
    with listener:
        for turn in ("too many would be sent", "three at a time"):
            broker, _ = listener.accept()
            broker.settimeout(WITHIN_S)
            assert first_of_packet(broker) == CONNECT
            broker.sendall(connack_receive_maximum_3)
            if turn == "too many would be sent":
                assert first_of_packet(broker) == DISCONNECT
                broker.close()
        assert first_of_packet(broker) == SUBSCRIBE
        broker.sendall(suback)
        home.told(BrokerConnected)
        for token in range(1, 6):
            home.say("text", token)
        home.say("", 6, qos=0)
        packets = [first_of_packet(broker) for _ in range(4)]
        assert sorted(packets) == [PUBLISH, *[PUBLISH_QOS_1] * 3]
        broker.close()


CONNECT, DISCONNECT, SUBSCRIBE, PUBLISH, PUBLISH_QOS_1 = 0x10, 0xE0, 0x82, 0x30, 0x32


def first_of_packet(connection: socket.socket) -> int:
    """Reads one packet of less than 128 bytes: its first byte."""
    first, length = received(connection, 2)
    assert length < 128
    received(connection, length)
    return first


def received(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        data += connection.recv(count - len(data))
    return data


def test_another_client_of_our_name_is_to_be_found_and_stopped():
    code = ReasonCode(PacketTypes.DISCONNECT, identifier=SESSION_TAKEN_OVER)
    sentence = why_lost(code, "", MqttConfig(host="localhost", port=1), said_by_broker=True)
    assert sentence.endswith("find the second gateway or dashboard, and stop it.")


class TestTheConfiguration:
    @pytest.mark.parametrize(
        ("host", "files", "tls"),
        [
            ("127.0.0.1", {}, False),
            ("broker.example.org", {}, False),
            ("broker.example.org", {"password_file": "p"}, True),
            ("127.0.0.1", {"password_file": "p"}, False),
            ("::1", {"password_file": "p"}, False),
            ("localhost", {"password_file": "p"}, False),
            ("localhost", {"ca_file": "c", "password_file": "p"}, True),
            ("localhost", {"cert_file": "c", "key_file": "k"}, True),
        ],
    )
    def test_tls_is_on_when_any_file_is_given_and_a_password_goes_without_only_to_loopback(
        self, host: str, files: dict[str, str], tls: bool
    ):
        assert MqttConfig(host=host, port=1, **files).tls is tls

    def test_a_key_without_its_certificate_is_an_error(self):
        with pytest.raises(ValueError, match="cert_file"):
            MqttConfig(host="localhost", port=1, key_file="k")
