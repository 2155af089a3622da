"""Sentences of the MQTT page about the home's side that no other test asks about, as tables.

See test_engine.py, test_lanes.py and test_projections.py for the rest of the page.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from alerts.sink import Lane
from gateway.broker_answers import BrokerAnswers
from gateway.effects import Send
from tests.gateway.home import Home

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
