"""Sentences of the MQTT page about the home's side that no other test asks about, as tables.

See test_engine.py, test_lanes.py and test_projections.py for the rest of the page.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from alerts.mqtt import BrokerConnected
from alerts.sink import Lane
from gateway.app import compose
from gateway.broker_answers import BrokerAnswers
from gateway.config import parse_config
from gateway.effects import Send
from gateway.inputs import FromBroker, Tick
from tests.gateway.home import ORDER, Home

IDLE = "state=idle rate_ml_h=0 volume_ml=0 alarms="
OCCLUDED = "state=alarm rate_ml_h=60 volume_ml=0 alarms=occlusion_downstream"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A connected gateway with an idle pump and no prescription: one alert is open, which says so."""
    home = Home(tmp_path)
    home.connect()
    home.plug_in()
    home.hear(IDLE)
    home.wait(1)
    return home


def held(home: Home) -> int:
    """The lowest number of the alerts lane that has not been released."""
    home.wait(11)
    return int(home.said("beat")[-1]["lanes"]["alerts"]["oldest"])


def durable(home: Home) -> Send:
    return [send for send in home.sends if send.message.lane is Lane.ALERTS][-1]


# -- what the broker answers (reason codes) ---------------------------------------------------------------

ANSWERS = [
    # collector, reason code, the alert is released, the line at the gateway, sentences about it
    ("main", 0x00, False, "broker connected; ", 0),
    ("main", 0x10, False, "broker connected, but nobody subscribes to our messages; ", 1),
    ("main", 0x87, False, "broker connected, but it does not let us write; ", 1),
    ("main", 0x97, False, "broker connected, but it refuses messages (code 151); ", 1),
    ("", 0x00, True, "broker connected; ", 0),
    ("", 0x10, False, "broker connected, but nobody subscribes to our messages; ", 1),
    ("", 0x87, False, "broker connected, but it does not let us write; ", 1),
]


@pytest.mark.parametrize(("collector", "code", "released", "line", "sentences"), ANSWERS)
def test_what_the_broker_answers_to_an_alert_releases_it_or_not_and_is_said_once_and_shown(
    tmp_path, collector, code, released, line, sentences
):
    home = Home(tmp_path, collector=collector)
    home.connect()
    home.plug_in()
    home.hear(IDLE)
    for _ in range(3):
        home.confirm(durable(home), code)
        home.wait(31)
    assert (held(home) == 2) == released
    assert home.shown[-1].startswith(line)
    assert len([note for note in home.notes if "'alert'" in note]) == sentences


def test_what_the_broker_refused_is_shown_until_it_takes_such_a_message():
    answers = BrokerAnswers("h-1")
    timetable = [
        ("alert", 0x87, "give user 'h-1' the right", ", but it does not let us write"),
        ("alert", 0x87, None, ", but it does not let us write"),
        ("state", 0x10, "nobody subscribes to 'state'", ", but it does not let us write"),
        ("alert", 0x00, None, ", but nobody subscribes to our messages"),
        ("alert", 0x87, None, ", but it does not let us write"),
        ("alert", 0x00, None, ", but nobody subscribes to our messages"),
        ("state", 0x00, None, ""),
        ("status", 0x10, "nobody subscribes to 'status'", ", but nobody subscribes to our messages"),
        ("state", 0x10, None, ", but nobody subscribes to our messages"),
        ("alert", 0x00, None, ", but nobody subscribes to our messages"),
        ("state", 0x00, None, ""),
        ("state", 0x91, "see the broker's log", ", but it refuses messages (code 145)"),
    ]
    for what, code, said, shown in timetable:
        sentence = answers.heard(what, code)
        assert (sentence is None) == (said is None)
        assert said is None or said in (sentence or "")
        assert answers.shown() == shown
    answers.connected()
    assert answers.shown() == ""
    assert answers.heard("alert", 0x87) is not None, "said once for each connection"


def test_a_void_that_is_refused_as_well_holds_up_nothing_where_there_is_no_collector(tmp_path):
    home = Home(tmp_path, collector="")
    home.connect()
    home.confirm(durable(home), 0x95)
    void = durable(home)
    assert json.loads(void.message.payload)["schema"] == "dripwatch.void/1"
    home.confirm(void, 0x95)
    assert held(home) == 2


# -- what the broker keeps --------------------------------------------------------------------------------

DAY_S = 24 * 3_600


def closed_alert(home: Home) -> str:
    """The topic of an alert that has been closed, and received."""
    home.connect()
    home.plug_in()
    home.hear(OCCLUDED)
    alert = home.alert("occlusion")
    home.tell("ack", id="i-1", alert_id=alert["alert_id"], rev=1, role="nurse")
    home.hear(IDLE)
    assert home.told("occlusion")[-1][1:] == ("closed", "resolved")
    topic = home.messages("alert")[-1].topic
    home.receipt(home.engine.alerts_next_seq - 1)
    return topic


def cleared(home: Home) -> list[Send]:
    return [send for send in home.sends if not send.message.payload]


def later(home: Home, seconds: float) -> None:
    """Time passes, and the collector receives all that comes."""
    home.now_ms += round(seconds * 1000)
    home.wait(1)
    home.receipt(home.engine.alerts_next_seq - 1)
    home.wait(1)


@pytest.mark.parametrize("restart", [None, "stop", "cut_power"])
def test_by_mqtt_3_a_closed_alert_is_cleared_from_the_broker_after_a_day_over_restarts_too(tmp_path, restart):
    home = Home(tmp_path, mqtt_version=3)
    topic = closed_alert(home)
    later(home, DAY_S - 3_600)
    assert cleared(home) == []
    if restart:
        getattr(home, restart)()
        home.start()
        home.connect()
        home.plug_in()
    later(home, 3_600)
    (send,) = cleared(home)
    assert (send.message.topic, send.message.retain, send.message.qos) == (topic, True, 1)
    assert send.message.lane is None


def test_what_was_to_be_cleared_is_sent_again_until_the_broker_has_it_and_never_after_that(tmp_path):
    home = Home(tmp_path, mqtt_version=3)
    closed_alert(home)
    home.lose_broker()
    later(home, DAY_S)
    assert cleared(home) == []
    for _ in range(2):
        home.connect()
        later(home, 60)
        home.lose_broker()
    home.connect()
    later(home, 60)
    first, again, third = cleared(home)
    assert first.message == again.message == third.message
    home.confirm(third)
    home.lose_broker()
    home.stop()
    home.start()
    home.connect()
    later(home, DAY_S)
    assert len(cleared(home)) == 3


def test_an_end_that_nobody_has_received_is_not_cleared(tmp_path):
    home = Home(tmp_path, mqtt_version=3)
    closed_alert(home)
    home.hear(OCCLUDED)
    home.now_ms += DAY_S * 1000
    home.wait(60)
    assert cleared(home) == []
    later(home, 1)
    assert len(cleared(home)) == 1


def test_by_mqtt_5_the_broker_lets_a_closed_alert_expire_and_nothing_is_cleared(tmp_path):
    home = Home(tmp_path)
    closed_alert(home)
    assert [m.expiry_s for m in home.messages("alert") if b'"closed"' in m.payload] == [7 * DAY_S]
    assert {m.expiry_s for m in home.messages("alert") if b'"closed"' not in m.payload} == {None}
    later(home, 8 * DAY_S)
    assert cleared(home) == []


# -- who says what, and when ------------------------------------------------------------------------------


def words(sends: list[Send]) -> list[str]:
    return [send.message.topic.split("/up/")[1].split("/alert/")[0] for send in sends]


def test_a_connection_begins_with_who_is_here_then_what_has_no_receipt_alerts_first_then_how_it_is_now(home):
    for _ in range(65):
        home.hear(IDLE)
        home.wait(1)
    home.lose_broker()
    home.wait(20)
    home.forget()
    home.connect()
    kinds = [(words([send]).pop(), send.message.lane) for send in home.sends]
    lanes = [lane for _, lane in kinds if lane is not None]
    assert lanes == sorted(lanes), "alerts before telemetry"
    assert {Lane.ALERTS, Lane.TELEMETRY} == set(lanes)
    assert [word for word, lane in kinds if lane is None] == ["status", "open", "pump/p1/state", "beat"]
    assert kinds[0] == ("status", None)
    assert [lane for _, lane in kinds[1 : 1 + len(lanes)]] == lanes, "what is owed comes before the rest"


def test_the_status_says_who_is_here_and_the_last_will_that_nobody_is_any_more(home):
    (here,) = home.said("status")
    will = home.engine.last_will(home.moment)
    gone = json.loads(will.payload)
    assert (will.retain, will.qos) == (True, 1)
    assert (here["online"], gone["online"]) == (True, False)
    for status in (here, gone):
        assert (status["pumps"], status["store"], status["boot"]) == (["p1"], home.engine.store, "b-1")
        assert status["version"]


def test_the_open_list_comes_on_connecting_and_on_change_and_not_else(home):
    assert [message.retain for message in home.messages("open")] == [True] * len(home.messages("open"))
    home.forget()
    home.wait(120)
    assert home.said("open") == []
    home.hear(OCCLUDED)
    home.wait(120)
    assert len(home.said("open")) == 1


def test_nothing_is_said_while_there_is_no_connection_and_no_beat_is_made_up_for(home):
    home.lose_broker()
    home.forget()
    home.wait(600)
    assert home.sends == []
    home.connect()
    assert len(home.said("beat")) == 1


def test_a_watch_holds_for_thirty_seconds(home):
    def states_in(seconds: int) -> int:
        home.forget()
        for _ in range(seconds):
            home.hear(IDLE)
            home.wait(1)
        return len(home.said("state"))

    states_in(60)
    home.tell("watch", id="w-1")
    assert states_in(35) == 3
    assert states_in(30) == 0


def test_what_this_version_does_not_know_of_a_message_is_passed_over(home):
    alert = home.alert("no_prescription")
    home.tell("ack", id="i-1", alert_id=alert["alert_id"], rev=1, role="nurse", tomorrow={"more": [1]})
    assert home.answers() == [("i-1", None)]
    ignored = home.engine.ignored
    home.tell("tomorrow", id="i-2")
    assert home.engine.ignored == ignored + 1


@pytest.mark.parametrize(
    ("how", "fields", "answer"),
    [
        ("as it was seen", {}, None),
        ("an older revision than the last that sounded", {"rev": 0}, "stale_rev"),
        ("of nobody", {"alert_id": "a-s-other-1"}, "unknown_alert"),
        ("longer ago than it may be", {"time": "2026-11-23T10:00:00.000Z"}, "too_old"),
        ("more than a minute ahead", {"time": "2026-11-23T13:00:00.000Z"}, "too_old"),
        ("adopts what is no pump", {"adopt": True}, "not_allowed"),
    ],
)
def test_every_acknowledgement_is_answered_with_what_became_of_it(home, how, fields, answer):
    alert = home.alert("no_prescription")
    home.tell("ack", **{"id": "i-1", "alert_id": alert["alert_id"], "rev": 1, "role": "nurse", **fields})
    assert home.answers() == [("i-1", answer)], how
    assert (home.alert("no_prescription")["state"] == "acknowledged") == (answer is None)


@pytest.mark.parametrize("year", ["1970", "2026", "2030"])
def test_while_the_gateways_clock_is_not_set_the_revision_alone_decides(home, year):
    time = f"{year}-01-01T00:00:10.000Z"
    home.synced, home.clock_error_ms = False, -1_000_000_000_000
    alert = home.alert("no_prescription")
    home.tell("ack", id="i-1", alert_id=alert["alert_id"], rev=0, role="nurse", time=time)
    home.tell("ack", id="i-2", alert_id=alert["alert_id"], rev=1, role="nurse", time=time)
    assert home.answers() == [("i-1", "stale_rev"), ("i-2", None)]


def test_an_acknowledgement_out_of_the_brokers_queue_does_nothing_to_what_came_after_it(home):
    """It was sent for the first telling, and arrives after the alert has sounded again."""
    alert = home.alert("no_prescription")
    home.wait(alert["respond_within_s"] + 1)
    assert home.told("no_prescription")[-1] == (2, "active", "escalated")
    home.tell("ack", id="i-1", alert_id=alert["alert_id"], rev=1, role="nurse")
    assert home.answers() == [("i-1", "stale_rev")]
    home.tell("ack", id="i-2", alert_id=alert["alert_id"], rev=2, role="nurse")
    assert home.answers()[-1] == ("i-2", None)


def test_a_closed_alert_is_answered_as_closed_and_its_id_never_comes_again(tmp_path):
    home = Home(tmp_path)
    closed_alert(home)
    gone = home.alert("occlusion")
    home.tell("ack", id="i-2", alert_id=gone["alert_id"], rev=gone["rev"], role="nurse")
    assert home.answers()[-1] == ("i-2", "closed")
    home.stop()
    home.start()
    home.connect()
    home.plug_in()
    home.hear(OCCLUDED)
    assert home.alert("occlusion")["alert_id"] != gone["alert_id"]
    assert home.told("occlusion")[-1] == (1, "active", "first")


def test_alerts_about_the_gateway_are_as_urgent_as_its_most_urgent_pump(tmp_path):
    vital = ORDER.replace("[limits]", '[response]\nurgency = "vital"\n[limits]')
    for order, priority, within_s in [(ORDER, "medium", 1_800), (vital, "high", 180)]:
        (tmp_path / priority).mkdir()
        home = Home(tmp_path / priority, order=order)
        home.connect()
        home.put(Tick, inbox_losses=7)
        alert = home.alert("overloaded")
        assert (alert["pump"], alert["priority"], alert["respond_within_s"]) == (
            "gateway",
            priority,
            within_s,
        )


# -- sizes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("packet_bytes_max", "points"), [(None, 100), (1_000_000, 100), (8_192, 37), (1_024, 2), (256, 1)]
)
def test_a_batch_is_made_no_larger_than_the_broker_takes(tmp_path, packet_bytes_max, points):
    home = Home(tmp_path)
    event = BrokerConnected(session_present=False, maximum_packet_size=packet_bytes_max)
    home.put(FromBroker, event=event)
    home.plug_in()
    for number in range(2 * points):
        home.hear(f"state=running rate_ml_h=33.333 volume_ml={number + 0.333:.3f} alarms= pressure_mmhg=66.7")
    batches = home.messages("telemetry")
    assert [len(json.loads(message.payload)["points"]) for message in batches] == [points, points]
    if packet_bytes_max is not None and points > 1:
        assert {len(message.payload) + len(message.topic) < packet_bytes_max for message in batches} == {True}


# -- names ------------------------------------------------------------------------------------------------


def test_the_client_id_and_the_user_are_the_homes_pseudonym_and_the_session_is_kept_for_a_week(
    tmp_path, monkeypatch
):
    asked: dict[str, Any] = {}

    class Client:
        def __init__(self, config: Any, **options: Any) -> None:
            asked.update(options)

    monkeypatch.setattr("gateway.app.MqttClient", Client)
    (tmp_path / "words.txt").write_text("")
    text = f"""
format = "dripwatch-gateway/1"
home = "h-7f3a"
state_dir = "{tmp_path / "state"}"
[mqtt]
host = "127.0.0.1"
port = 1883
[[pump]]
id = "p1"
family = "dummy"
port = "script:{tmp_path / "words.txt"}"
origin = "test"
"""
    gateway = compose(parse_config(text, tmp_path))
    gateway._store.close()
    assert (asked["client_id"], asked["username"]) == ("dw-h-7f3a", "h-7f3a")
    assert asked["session_expiry_s"] == 7 * DAY_S
    assert asked["subscriptions"] == (("dripwatch/v1/h-7f3a/down/#", 1),)
    will = asked["will"]()
    assert (will.topic, will.retain, will.qos) == ("dripwatch/v1/h-7f3a/up/status", True, 1)


def test_a_prescription_file_that_cannot_be_read_is_logged_without_what_stands_in_it(tmp_path, caplog):
    for name, text in {
        "rx.toml": ORDER.replace("[drug]", '[drug]\nconcentration = "morphine of Erika Mustermann"'),
        "words.txt": "",
    }.items():
        (tmp_path / name).write_text(text)
    config = parse_config(
        f"""
format = "dripwatch-gateway/1"
home = "h-7f3a"
state_dir = "{tmp_path / "state"}"
[[pump]]
id = "p1"
family = "dummy"
port = "script:{tmp_path / "words.txt"}"
origin = "test"
prescription = "rx.toml"
""",
        tmp_path,
    )
    compose(config)._store.close()
    assert "drug.concentration" in caplog.text
    assert "Mustermann" not in caplog.text


def test_a_second_answer_to_what_was_sent_from_memory_releases_nothing_that_is_on_the_card(tmp_path):
    home = Home(tmp_path, collector="")
    home.connect()
    home.plug_in()
    home.card_refuses = True
    home.hear(OCCLUDED)
    home.wait(31)
    from_memory = [
        send
        for send in home.sends
        if send.message.lane is Lane.ALERTS
        and json.loads(send.message.payload)["store"] != home.engine.store
        and send.message.seq == 1
    ]
    assert len(from_memory) == 2, "sent, and again after half a minute"
    home.card_works()
    for send in home.sends[:]:
        number = (send.message.lane, send.message.seq)
        if send.message.lane is not None and number != (Lane.ALERTS, 1):
            home.confirm(send)
    for send in from_memory:
        home.confirm(send)
    assert held(home) == 1
