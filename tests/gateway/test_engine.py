"""What the gateway decides, as timetables: one input after another over the real store."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alerts import wire
from alerts.alert import Alert
from alerts.sink import Lane
from gateway.effects import Commit
from gateway.engine import IDS_KEPT, KeptUnreadable
from gateway.inputs import StopRequested, Tick
from gateway.store import Store
from tests.gateway.home import BEGINNING_UTC_MS, HOME, ORDER, Home

IDLE = "state=idle rate_ml_h=0 volume_ml=0 alarms="
OCCLUDED = "state=alarm rate_ml_h=60 volume_ml=0 alarms=occlusion_downstream"


def running(volume_ml: float) -> str:
    return f"state=running rate_ml_h=60 volume_ml={volume_ml:.3f} alarms="


@pytest.fixture
def home(tmp_path):
    """A connected gateway with an idle pump and no prescription: one alert is open, which says so."""
    home = Home(tmp_path)
    home.connect()
    home.plug_in()
    home.hear(IDLE)
    home.wait(1)
    return home


# -- first the card, then the broker -------------------------------------------------------------------


def test_an_alert_is_sent_only_when_it_is_on_the_card(tmp_path):
    home = Home(tmp_path)
    home.connect()
    home.plug_in()
    home.card_is_slow = True
    home.hear(OCCLUDED)
    home.wait(5)
    assert home.told("occlusion") == []
    home.card_works()
    assert home.told("occlusion") == [(1, "active", "first")]


def test_the_beat_counts_what_was_told_and_not_what_is_decided(home):
    home.card_is_slow = True
    home.hear(OCCLUDED)
    home.wait(11)
    assert home.said("beat")[-1]["open"] == 1
    home.card_works()
    home.wait(11)
    beat = home.said("beat")[-1]
    newest = {alert["alert_id"]: alert["rev"] for alert in home.said("alert")}
    assert (beat["open"], beat["digest"]) == (2, wire.digest(newest.items()))
    assert beat["as_of"] == max(alert["seq"] for alert in home.said("alert"))
    opened = home.said("open")[-1]
    assert (dict(opened["alerts"]), opened["as_of"]) == (newest, beat["as_of"])


def test_a_beat_comes_each_ten_seconds_and_at_once_when_the_link_changes(home):
    home.forget()
    for _ in range(30):
        home.wait(1)
        home.hear(IDLE)
    assert home.links() == ["up"] * 3
    home.unplug()
    assert home.links() == ["up"] * 3 + ["down"]


# -- over restarts --------------------------------------------------------------------------------------


def test_an_alert_that_is_still_open_is_not_told_anew_by_a_start(home):
    assert home.told("no_prescription") == [(1, "active", "first")]
    home.receipt(1)
    home.stop()
    home.forget()
    home.start()
    home.connect()
    home.wait(60)
    assert home.said("alert") == []
    assert home.said("beat")[-1]["open"] == 1


def test_a_clean_stop_says_goodbye_and_is_no_interruption(home):
    effects = home.stop()
    assert effects.stop
    goodbye = home.engine.goodbye(home.moment)
    assert json.loads(goodbye.payload)["online"] is False
    assert goodbye.retain
    home.start()
    home.connect()
    assert home.told("monitoring_interrupted") == []


def test_a_stop_waits_for_the_card_but_not_for_ever(home):
    home.card_is_slow = True
    assert not home.put(StopRequested).stop
    home.now_ms += 2_900
    assert not home.put(StopRequested).stop
    home.now_ms += 200
    assert home.put(Tick).stop


@pytest.mark.parametrize(
    ("off_s", "clock_error_s", "synced", "words"),
    [
        (0, 0, True, r"for about \d+ s:"),
        (50, 0, True, r"for about \d+ s:"),
        (3_600, 0, True, "for about 60 min:"),
        (30_000, 0, True, "for about 8 h 20 min:"),
        (3_600, -86_400, False, "for an unknown time:"),
    ],
)
def test_a_watch_that_broke_off_is_reported_with_its_length_where_that_is_known(
    home, off_s, clock_error_s, synced, words
):
    home.wait(60)
    if off_s:
        home.cut_power(off_s * 1_000)
    else:
        home.store.close()  # the process died, the machine did not
    home.clock_error_ms, home.synced = clock_error_s * 1_000, synced
    home.start()
    home.connect()
    assert home.told("monitoring_interrupted") == [(1, "active", "first")]
    assert re.search(f"The gateway was not watching {words}", home.alert("monitoring_interrupted")["message"])


def test_after_a_power_cut_revisions_go_on_from_the_next_thousand(home):
    home.cut_power()
    home.start()
    home.connect()
    home.tell("ack", id="i-1", alert_id=home.alert("no_prescription")["alert_id"], rev=1, role="nurse")
    assert home.told("no_prescription")[-1] == (1_000, "acknowledged", "acknowledged")


@pytest.mark.parametrize(
    ("stops", "rev"),
    [
        (("cut_power", "stop"), 1_000),
        (("cut_power", "stop", "stop"), 1_000),
        (("cut_power", "cut_power"), 2_000),
        (("stop",), 2),
    ],
)
def test_where_revisions_go_on_is_remembered_until_there_is_one(home, stops, rev):
    for stop in stops:
        getattr(home, stop)()
        home.start()
    home.connect()
    home.tell("ack", id="i-1", alert_id=home.alert("no_prescription")["alert_id"], rev=1, role="nurse")
    assert home.told("no_prescription")[-1][0] == rev


def test_a_garbled_link_that_has_become_good_over_a_restart_is_over(home):
    for _ in range(40):
        home.hear("\x7f\x7f\x7f")
        home.wait(1)
    assert home.told("garbled_link") == [(1, "active", "first")]
    home.stop()
    home.start()
    home.connect()
    home.plug_in()
    assert home.told("garbled_link")[-1][1] == "active"
    home.hear(IDLE)
    assert home.told("garbled_link")[-1][1:] == ("closed", "resolved")


def test_a_volume_counted_over_a_gap_of_unknown_length_accuses_nobody(tmp_path):
    home = Home(tmp_path, order=ORDER)
    home.connect()
    home.plug_in()
    volume_ml = 0.0
    for _ in range(900):
        home.wait(1)
        volume_ml += 1 / 60
        home.hear(running(volume_ml))
    assert home.said("alert") == []
    home.cut_power(1_800_000)
    home.clock_error_ms, home.synced = -86_400_000, False
    volume_ml += 30
    home.start()
    home.connect()
    home.plug_in()
    for second in range(300):
        if second == 60:
            home.clock_error_ms, home.synced = 0, True
            home.forget()
        home.wait(1)
        volume_ml += 1 / 60
        home.hear(running(volume_ml))
    assert set(home.links()) == {"up"}
    assert {alert["kind"] for alert in home.said("alert")} == {"monitoring_interrupted"}


@pytest.mark.parametrize("heard_s", [0, 3, 12])
def test_a_gap_that_became_known_is_still_one_after_another_power_cut(tmp_path, heard_s):
    """It lies between the last reading on the card and the next one, whatever was heard meanwhile."""
    home = Home(tmp_path, order=ORDER)
    home.connect()
    home.plug_in()
    volume_ml = 0.0

    def run(seconds: int) -> None:
        nonlocal volume_ml
        for _ in range(seconds):
            home.wait(1)
            volume_ml += 1 / 60
            home.hear(running(volume_ml))

    def cut(off_s: int) -> None:
        nonlocal volume_ml
        home.cut_power(off_s * 1_000)
        volume_ml += off_s / 60
        home.start()
        home.connect()
        home.plug_in()

    run(900)
    home.clock_error_ms, home.synced = -1_800_000, False
    cut(1_800)
    run(300)
    home.clock_error_ms, home.synced = 0, True
    home.put(Tick)
    run(heard_s)
    cut(2)
    run(300)
    assert {alert["kind"] for alert in home.said("alert")} == {"monitoring_interrupted"}


# -- the configuration has changed ---------------------------------------------------------------------


def test_a_prescription_that_has_come_ends_the_alert_that_there_is_none(home):
    home.stop()
    home.order = ORDER
    home.start()
    home.connect()
    assert home.told("no_prescription")[-1] == (2, "closed", "resolved")


@pytest.mark.parametrize("stop", ["stop", "cut_power"])
def test_what_another_prescription_has_found_stays_and_is_judged_by_the_new_one(tmp_path, stop):
    home = Home(tmp_path, order=ORDER)
    home.connect()
    home.plug_in()
    home.hear(OCCLUDED)
    before = home.told("occlusion")
    getattr(home, stop)()
    home.order = ORDER.replace("rate_ml_h = 60.0", "rate_ml_h = 70.0")
    home.start()
    home.connect()
    (event,) = [json.loads(m.payload) for m in home.messages("event") if b"order_changed" in m.payload]
    assert "70.0 mL/h" in event["message"]
    home.plug_in()
    home.hear(OCCLUDED)
    home.wait(1)
    assert home.told("occlusion") == before
    home.stop()
    home.start()
    home.connect()
    assert len({m.seq for m in home.messages("event") if b"order_changed" in m.payload}) == 1


def test_what_was_found_under_a_prescription_that_is_gone_is_withdrawn(tmp_path):
    home = Home(tmp_path, order=ORDER)
    home.connect()
    home.plug_in()
    home.hear(OCCLUDED)
    home.stop()
    home.order = None
    home.start()
    home.connect()
    assert home.told("occlusion")[-1][1:] == ("latched", "withdrawn")


def test_a_pump_taken_out_of_the_configuration_leaves_its_alerts_latched_and_its_state_unknown(home):
    home.receipt(1)
    home.stop()
    home.pumps = ("p2",)
    home.forget()
    home.start()
    home.connect()
    assert sorted(home.told("no_prescription")) == [(1, "active", "first"), (2, "latched", "withdrawn")]
    gone = [json.loads(m.payload) for m in home.messages("state") if "/p1/" in m.topic]
    assert [(state["state"], state["verdict"], state["origin"]) for state in gone] == [
        ("unknown", "unknown", "test")
    ]


# -- the port ---------------------------------------------------------------------------------------


def test_the_link_of_a_pump_as_a_timetable(home):
    timetable = [
        ("hears the pump", lambda: home.hear(IDLE), "up"),
        ("nothing for 9 s", lambda: home.wait(9), "up"),
        ("nothing for 11 s", lambda: home.wait(2), "silent"),
        ("noise", lambda: home.hear("\x7f\x7f"), "garbled"),
        ("the cable is out", home.unplug, "down"),
        ("the cable is in", home.plug_in, "silent"),
        ("hears the pump again", lambda: home.hear(IDLE), "up"),
    ]
    for what, do, link in timetable:
        do()
        assert home.links()[-1] == link, what


def test_another_pump_on_the_port_is_told_and_its_readings_are_not_used(tmp_path):
    home = Home(tmp_path, serial_number="8002-1")
    home.connect()
    home.plug_in()
    home.hear(f"{IDLE} serial=8002-1")
    home.hear("state=running rate_ml_h=500 volume_ml=90 alarms= serial=8002-2")
    home.hear("state=running rate_ml_h=500 volume_ml=91 alarms=")
    home.wait(61)
    assert home.told("wrong_pump") == [(1, "active", "first")]
    assert {state["rate_ml_h"] for state in home.said("state")} == {None, 0.0}
    assert home.links()[-1] == "silent"
    home.hear(f"{IDLE} serial=8002-1")
    assert home.told("wrong_pump")[-1] == (2, "latched", "resolved")


@pytest.mark.parametrize("clock_is_set_after_s", [0, 120])
def test_a_pump_that_was_never_heard_is_told_as_silent_when_it_should_deliver(tmp_path, clock_is_set_after_s):
    home = Home(tmp_path, order=ORDER)
    home.connect()
    home.plug_in()
    if clock_is_set_after_s:
        home.cut_power()
        home.card.unlink()
        home.synced = False
        home.start()
        home.connect()
        home.plug_in()
        home.wait(clock_is_set_after_s)
        assert home.told("no_data") == []
        home.synced = True
    home.wait(301)
    assert home.told("no_data") == [(1, "active", "first")]


def test_after_the_port_was_away_nothing_is_judged_before_the_pump_has_said_who_it_is(tmp_path):
    home = Home(tmp_path, serial_number="8002-1")
    home.connect()
    home.plug_in()
    home.hear(f"{IDLE} serial=8002-1")
    home.hear("state=running rate_ml_h=5 volume_ml=1 alarms=")
    assert home.said("state")[-1]["rate_ml_h"] == 5.0
    home.unplug()
    home.plug_in()
    home.hear("state=running rate_ml_h=500 volume_ml=90 alarms=")
    home.wait(61)
    assert home.said("state")[-1]["rate_ml_h"] == 5.0
    assert home.links()[-1] == "silent"
    home.hear("state=running rate_ml_h=6 volume_ml=2 alarms= serial=8002-1")
    assert home.said("state")[-1]["rate_ml_h"] == 6.0
    assert home.told("wrong_pump") == []


def test_a_wrong_pump_is_still_the_wrong_one_after_a_restart_until_the_right_one_answers(tmp_path):
    home = Home(tmp_path, serial_number="8002-1")
    home.plug_in()
    home.hear("state=running rate_ml_h=500 volume_ml=90 alarms= serial=8002-2")
    home.cut_power()
    home.start()
    home.connect()
    home.plug_in()
    home.hear("state=running rate_ml_h=500 volume_ml=91 alarms=")
    assert {state["rate_ml_h"] for state in home.said("state")} == {None}
    home.hear(f"{IDLE} serial=8002-1")
    assert home.told("wrong_pump")[-1][1:] == ("latched", "resolved")


def test_another_pump_can_be_adopted_by_name_and_stays_so_over_a_restart(tmp_path):
    home = Home(tmp_path, serial_number="8002-1")
    home.connect()
    home.plug_in()
    home.hear("state=running rate_ml_h=5 volume_ml=90 alarms= serial=8002-2")
    alert_id = home.alert("wrong_pump")["alert_id"]
    home.tell("ack", id="i-1", alert_id=alert_id, rev=1, role="nurse", adopt=True)
    assert home.said("answer")[-1]["accepted"]
    assert home.told("wrong_pump")[-1][1:] == ("closed", "resolved")
    home.hear("state=running rate_ml_h=5 volume_ml=90.1 alarms= serial=8002-2")
    home.stop()
    home.start()
    home.connect()
    home.plug_in()
    home.hear("state=running rate_ml_h=6 volume_ml=90.2 alarms= serial=8002-2")
    assert home.said("state")[-1]["rate_ml_h"] == 6.0
    home.hear("state=running rate_ml_h=7 volume_ml=1 alarms= serial=8002-1")
    assert home.told("wrong_pump")[-1][1:] == ("active", "first")


def test_nothing_is_adopted_that_has_not_said_who_it_is(tmp_path):
    home = Home(tmp_path, serial_number="8002-1")
    home.connect()
    home.plug_in()
    home.hear("state=running rate_ml_h=5 volume_ml=90 alarms= serial=8002-2")
    home.hear(f"{IDLE} serial=8002-1")
    alert_id = home.alert("wrong_pump")["alert_id"]
    home.tell("ack", id="i-1", alert_id=alert_id, rev=2, role="nurse", adopt=True)
    assert home.said("answer")[-1]["reason"] == "not_allowed"


def test_a_wrong_pump_that_the_configuration_no_longer_forbids_has_been_adopted(tmp_path):
    home = Home(tmp_path, serial_number="8002-1")
    home.plug_in()
    home.hear("state=running rate_ml_h=5 volume_ml=90 alarms= serial=8002-2")
    home.stop()
    home.serial_number = None
    home.start()
    home.connect()
    home.plug_in()
    home.hear("state=running rate_ml_h=5 volume_ml=91 alarms= serial=8002-2")
    assert home.told("wrong_pump")[-1][1:] == ("latched", "resolved")
    assert home.said("state")[-1]["rate_ml_h"] == 5.0


def test_half_a_minute_of_noise_is_a_garbled_link_and_one_good_reading_ends_it(home):
    for _ in range(29):
        home.hear("\x7f\x7f\x7f")
        home.wait(1)
    assert home.told("garbled_link") == []
    home.wait(2)
    assert home.told("garbled_link") == [(1, "active", "first")]
    home.hear(IDLE)
    assert home.told("garbled_link")[-1] == (2, "closed", "resolved")


# -- receipts -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "fields"),
    [
        ("another store", {"store": "s-another"}),
        ("another collector", {"collector": "second"}),
        ("above what was sent", {"alerts": 99}),
        ("retained", {"retain": True}),
    ],
)
def test_a_receipt_that_is_not_ours_releases_nothing_and_is_counted(home, what, fields):
    ignored = home.engine.ignored
    home.receipt(**{"alerts": 1, **fields})
    home.wait(11)
    assert home.said("beat")[-1]["lanes"]["alerts"]["oldest"] == 1, what
    assert home.engine.ignored == ignored + 1


def test_our_own_receipt_releases_and_what_has_none_is_sent_again_after_thirty_seconds(home):
    home.hear(OCCLUDED)
    home.receipt(1)
    home.forget()
    home.wait(29)
    assert home.said("alert") == []
    home.wait(2)
    assert [message.seq for message in home.messages("alert")] == [2]
    home.receipt(2)
    home.wait(10)
    lanes = home.said("beat")[-1]["lanes"]
    assert lanes["alerts"] == {"oldest": 3, "next": 3}


def test_without_a_collector_the_brokers_confirmation_releases(tmp_path):
    home = Home(tmp_path, collector="")
    home.connect()
    (told,) = [send for send in home.sends if send.message.lane is Lane.ALERTS]
    home.receipt(1, collector="")
    home.wait(11)
    assert home.said("beat")[-1]["lanes"]["alerts"]["oldest"] == 1
    home.confirm(told)
    home.wait(11)
    assert home.said("beat")[-1]["lanes"]["alerts"]["oldest"] == 2


@pytest.mark.parametrize("code", [0x90, 0x95, 0x99])
def test_what_the_broker_refuses_for_its_content_leaves_a_void_under_its_number(home, code):
    (told,) = [send for send in home.sends if send.message.lane is Lane.ALERTS]
    home.forget()
    home.card_is_slow = True
    home.confirm(told, code)
    home.wait(1)
    assert home.said("alert") == []
    home.card_works()
    (void,) = home.said("alert")
    assert (void["schema"], void["lane"], void["seq"]) == ("dripwatch.void/1", "alerts", 1)
    (sent,) = [send for send in home.sends if send.message.lane is Lane.ALERTS]
    home.forget()
    home.confirm(sent, code)
    assert home.said("alert") == []


def test_a_message_that_the_broker_does_not_allow_stays_and_a_person_is_told_what_to_do(home):
    (told,) = [send for send in home.sends if send.message.lane is Lane.ALERTS]
    home.confirm(told, 0x87)
    assert home.shown[-1].startswith("broker connected, but it does not let us write; ")
    assert any("give user 'h-1' the right to write dripwatch/v1/h-1/up/#" in note for note in home.notes)
    home.wait(31)
    assert [message.seq for message in home.messages("alert")] == [1, 1]


# -- from the nursing side ------------------------------------------------------------------------------


def test_an_acknowledgement_is_answered_and_told(home):
    alert = home.alert("no_prescription")
    home.tell("ack", id="i-1", alert_id=alert["alert_id"], rev=1, role="nurse")
    assert home.answers() == [("i-1", None)]
    assert home.alert("no_prescription")["acknowledged"]["by"] == "nurse-07"


def test_the_same_request_again_is_answered_as_before_and_does_nothing_even_after_a_power_cut(home):
    alert_id = home.alert("no_prescription")["alert_id"]
    home.tell("ack", id="i-1", alert_id=alert_id, rev=1, role="nurse")
    home.tell("ack", id="i-2", alert_id="a-s-nobody-1", rev=1, role="nurse")
    home.tell("absence", id="i-3", pump="p1", what="away", for_s=60)
    home.tell("resync", id="i-4")
    home.receipt(home.engine.alerts_next_seq - 1)
    home.cut_power()
    home.start()
    home.connect()
    home.receipt(home.engine.alerts_next_seq - 1)
    home.forget()
    for request in ("i-1", "i-2", "i-3", "i-4"):
        home.tell("ack", id=request, alert_id=alert_id, rev=9_999, role="nurse")
    assert home.answers() == [
        ("i-1", None),
        ("i-2", "unknown_alert"),
        ("i-3", None),
        ("i-4", None),
    ]
    assert home.said("alert") == []


def test_the_last_thousand_requests_are_remembered(home):
    for number in range(IDS_KEPT + 1):
        home.tell("resync", id=f"i-{number}")
        home.receipt(home.engine.alerts_next_seq - 1)
    home.stop()
    home.start()
    home.connect()
    home.receipt(home.engine.alerts_next_seq - 1)
    home.forget()
    alert_id = next(iter(home.engine.book.open))
    home.tell("ack", id="i-1", alert_id=alert_id, rev=1, role="nurse")
    assert home.answers() == [("i-1", "not_allowed")]
    home.tell("ack", id="i-0", alert_id=alert_id, rev=1, role="nurse")
    assert home.answers()[-1] == ("i-0", None)


def test_a_resync_says_the_same_bytes_but_for_the_number_even_after_a_restart_without_a_clock(home):
    home.hear(OCCLUDED)
    before = {m.topic: json.loads(m.payload) for m in home.messages("alert")}
    home.receipt(home.engine.alerts_next_seq - 1)
    home.stop()
    home.synced = False
    home.start()
    home.connect()
    home.forget()
    home.tell("resync", id="i-1")
    again = {m.topic: json.loads(m.payload) for m in home.messages("alert")}
    assert again.keys() == before.keys()
    for topic, payload in again.items():
        assert payload["seq"] > before[topic]["seq"]
        assert list(payload.items()) == list({**before[topic], "seq": payload["seq"]}.items())


def test_a_resync_is_done_at_most_once_a_minute(home):
    for request, at_s in [("i-1", 0), ("i-2", 30), ("i-3", 29), ("i-4", 2)]:
        home.wait(at_s) if at_s else None
        home.tell("resync", id=request)
    assert home.answers() == [
        ("i-1", None),
        ("i-2", "not_allowed"),
        ("i-3", "not_allowed"),
        ("i-4", None),
    ]


@pytest.mark.parametrize("what", ["ack", "absence", "resync", "watch"])
def test_what_the_broker_had_kept_is_ignored_and_counted(home, what):
    alert_id = home.alert("no_prescription")["alert_id"]
    home.forget()
    pump = "p1" if what == "absence" else None
    fields = {"alert_id": alert_id, "rev": 1, "role": "nurse", "what": "away", "for_s": 60}
    ignored = home.engine.ignored
    home.tell(what, id="i-1", retain=True, pump=pump, **fields)
    home.wait(12)
    assert (home.answers(), home.said("alert")) == ([], [])
    assert home.engine.ignored == ignored + 1
    assert len(home.said("state")) < 2


WORDS = ["receipt", "ack", "absence/p1", "order/p1", "order/p9", "resync", "watch", "tomorrow", "ack/p1", ""]
VALID = {
    "time": "2026-11-23T12:00:00.000Z",
    "id": "i-1",
    "by": "nurse-07",
    "alert_id": "a-s-none-1",
    "rev": 1,
    "role": "nurse",
    "collector": "main",
    "store": "s-1",
    "alerts": 0,
    "telemetry": 0,
    "what": "away",
    "for_s": 60,
    "version": 1,
    "prescription": "x",
    "sha256": "y",
}
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@st.composite
def mangled(draw) -> tuple[str, bytes]:
    word = draw(st.sampled_from(WORDS))
    topic = draw(st.sampled_from([f"dripwatch/v1/{HOME}/down/{word}", f"dripwatch/v1/h-2/down/{word}"]))
    fields = {"schema": f"dripwatch.{word.partition('/')[0]}/1", **VALID}
    for name in draw(st.lists(st.sampled_from(sorted(fields)), max_size=3)):
        if draw(st.booleans()):
            fields.pop(name, None)
        else:
            fields[name] = draw(json_values)
    payload = json.dumps(fields).encode("utf-8", "surrogatepass")
    how = draw(st.sampled_from(["whole", "cut", "bytes", "huge", "deep"]))
    if how == "cut":
        payload = payload[: draw(st.integers(0, len(payload)))]
    elif how == "bytes":
        payload = draw(st.binary(max_size=200))
    elif how == "huge":
        payload = payload[:-1] + b', "more": "' + b"x" * 70_000 + b'"}'
    elif how == "deep":
        payload = b"[" * 50_000
    return draw(st.just(topic) | st.text(max_size=40)), payload


def book_without_refusals(home: Home) -> list[Alert]:
    return [alert for alert in home.engine.book.open.values() if alert.kind != "order_refused"]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(messages=st.lists(mangled(), min_size=1, max_size=4), retain=st.booleans())
def test_nothing_that_arrives_from_the_broker_can_break_the_gateway_or_change_its_book_but_by_a_refused_order(
    home, messages, retain
):
    before = book_without_refusals(home)
    for topic, payload in messages:
        home.arrive(topic, payload, retain=retain)
    home.receipt(home.engine.alerts_next_seq - 1)
    home.forget()
    assert book_without_refusals(home) == before
    home.wait(11)
    assert home.said("beat")[-1]["open"] == len(home.engine.book.open)


# -- state --------------------------------------------------------------------------------------------


def test_a_pumps_state_comes_on_change_each_minute_and_each_ten_seconds_while_somebody_watches(home):
    def states_in(seconds: int, *, watched: bool = False) -> int:
        home.forget()
        for second in range(seconds):
            if watched and second % 10 == 0:
                home.tell("watch", id=f"w-{home.now_ms}")
            home.hear(IDLE)
            home.wait(1)
        return len(home.said("state"))

    states_in(60)
    assert states_in(120) == 2
    assert 6 <= states_in(60, watched=True) <= 7
    states_in(60)
    assert states_in(120) == 2
    home.forget()
    home.hear(running(0.1))
    (state,) = home.said("state")
    assert (state["state"], state["rate_ml_h"], state["verdict"]) == ("running", 60.0, "unknown")


# -- telemetry ----------------------------------------------------------------------------------------


def points(home: Home) -> list[list]:
    batches = {message["seq"]: message["points"] for message in home.said("telemetry")}
    return [point for seq in sorted(batches) for point in batches[seq]]


def read(home: Home, seconds: int, first_ml: int = 0) -> None:
    for second in range(seconds):
        home.wait(1)
        home.hear(f"state=running rate_ml_h=60 volume_ml={first_ml + second} alarms=")


def receive(home: Home) -> None:
    """The collector stores all that has come."""
    seqs = [message["seq"] for message in home.said("telemetry")]
    home.receipt(home.engine.alerts_next_seq - 1, max(seqs, default=0))


def test_points_leave_each_thirty_seconds(home):
    read(home, 95)
    batches = home.said("telemetry")
    assert [len(batch["points"]) for batch in batches] == [29, 30, 30]
    assert not any(batch["historical"] for batch in batches)
    times = [point[0] for point in points(home)]
    assert times == sorted(times)


def test_a_hundred_points_leave_at_once(home):
    for number in range(250):
        home.hear(f"state=running rate_ml_h=60 volume_ml={number} alarms=")
    assert [len(batch["points"]) for batch in home.said("telemetry")] == [100, 100]


def test_no_point_is_lost_or_doubled_over_an_hour_without_the_broker(home):
    read(home, 60)
    receive(home)
    home.lose_broker()
    read(home, 3_600, first_ml=60)
    home.connect()
    for _ in range(20):
        home.wait(35)
        receive(home)
    volumes = [point[4] for point in points(home)]
    assert volumes[0] == 0.0
    assert volumes[1:] == [float(number) for number in range(3_660)]
    late = [message for message in home.said("telemetry") if message["historical"]]
    assert late


def test_points_taken_before_the_clock_was_set_are_dated_when_it_is_even_after_a_power_cut(home):
    read(home, 40)
    home.cut_power(3_600_000)
    home.clock_error_ms, home.synced = -40_000_000, False
    home.forget()
    home.start()
    home.connect()
    home.plug_in()
    began_ms = home.now_ms
    read(home, 100, first_ml=1_000)
    assert not [point for point in points(home) if point[4] is not None and point[4] >= 1_000]
    home.clock_error_ms, home.synced = 0, True
    home.wait(31)
    dated = {point[4]: wire.parse_iso_utc(point[0]) for point in points(home) if (point[4] or 0) >= 1_000}
    assert len(dated) == 100
    for number, time_utc_ms in dated.items():
        taken_ms = began_ms + (number - 999) * 1_001
        assert abs(time_utc_ms - (BEGINNING_UTC_MS + taken_ms)) < 2_000


def test_points_that_have_waited_an_hour_for_the_clock_leave_without_a_time(home):
    home.synced = False
    home.wait(31)
    home.forget()
    read(home, 3_700)
    undated = points(home)
    assert 0 < len(undated) < 200
    assert {point[0] for point in undated} == {None}
    assert all(point[1] > 0 for point in undated)


# -- the card and the machine ------------------------------------------------------------------------------


def test_a_storage_alert_that_was_open_at_a_power_cut_ends_with_the_first_commit(home):
    home.card_refuses = True
    home.hear(OCCLUDED)
    for commit in home.refused:
        home.store.commit(commit)  # written, and the power is gone before anybody was told
    home.refused.clear()
    home.card_refuses = False
    home.cut_power()
    home.start()
    home.connect()
    home.wait(1)
    assert home.told("storage_failing")[-1][1:] == ("latched", "resolved")


def test_a_full_inbox_is_told_once_for_a_flood_and_is_over_when_for_a_minute_nothing_was_lost(home):
    home.put(Tick, inbox_losses=7)
    assert home.told("overloaded") == [(1, "active", "first")]
    assert "7 happenings" in home.alert("overloaded")["message"]
    for losses in (7, 9, 9, 12):
        home.now_ms += 30_000
        home.put(Tick, inbox_losses=losses)
    assert len(home.told("overloaded")) == 1
    home.now_ms += 60_000
    home.put(Tick, inbox_losses=12)
    assert home.told("overloaded")[-1] == (2, "latched", "resolved")


def test_a_second_gateway_is_told_and_over_after_ten_minutes_without_it(home):
    home.lose_broker(reason_code=142)
    home.wait(30)
    home.connect()
    assert home.told("duplicate_gateway") == [(1, "active", "first")]
    home.wait(500)
    home.lose_broker(reason_code=142)
    home.wait(30)
    home.connect()
    home.wait(500)
    assert {telling[1] for telling in home.told("duplicate_gateway")} == {"active"}
    home.wait(100)
    assert home.told("duplicate_gateway")[-1][1:] == ("latched", "resolved")


def test_a_database_that_was_set_aside_is_told_and_over_at_the_next_start(home):
    home.stop()
    home.card.write_bytes(b"no database" * 500)
    home.start()
    home.connect()
    assert home.alert("storage_failing")["code"] == "set_aside"
    home.stop()
    home.start()
    home.connect()
    assert home.alert("storage_failing")["state"] == "latched"


def test_a_clock_that_is_set_is_an_event_and_no_time_passes_by_it(home):
    home.forget()
    home.clock_error_ms = 3_600_000
    home.put(Tick)
    (event,) = home.said("event")
    assert event["kind"] == "clock_stepped"
    assert home.said("alert") == []


def test_the_line_for_the_person_at_the_gateway_is_shown_only_when_it_changes(home):
    assert home.shown[-1].startswith("broker connected; p1: link up, pump says idle, unknown; 1 open alert")
    count = len(home.shown)
    home.hear(IDLE)
    assert len(home.shown) == count


def test_nothing_that_a_pump_says_can_break_the_gateway(home):
    for data in (b"\xff" * 5_000, b"\n" * 100, b"state=running rate_ml_h=1e999\n", b"state=\n", b"a=b\n"):
        home.hear(data.decode("latin-1"))
    home.wait(11)
    home.hear(IDLE)
    assert home.links()[-1] == "up"


# -- numbers over any life --------------------------------------------------------------------------------

lives = st.lists(
    st.sampled_from(["alarm", "quiet", "receipt", "cut", "stop", "lose", "connect", "slow", "card", "wait"]),
    max_size=40,
)


@settings(max_examples=40, deadline=None)
@given(steps=lives)
def test_numbers_have_no_gap_and_their_bytes_never_change_over_any_power_cuts(tmp_path_factory, steps):
    home = Home(tmp_path_factory.mktemp("life"))
    home.plug_in()
    arrived: dict[tuple[str, int], bytes] = {}

    def look() -> None:
        for send in home.sends:
            message = send.message
            if message.lane is not None:
                known = arrived.setdefault((message.lane, message.seq), message.payload)
                assert known == message.payload
        home.sends.clear()

    for step in [*steps, "card", "connect"]:
        match step:
            case "alarm":
                home.hear(OCCLUDED)
            case "quiet":
                home.hear(IDLE)
            case "receipt":
                home.receipt(max((seq for lane, seq in arrived if lane == "alerts"), default=0))
            case "cut":
                home.refused.clear()
                home.card_is_slow = False
                home.cut_power()
                home.start()
                home.plug_in()
            case "stop":
                if home.refused:
                    home.card_works()
                home.card_is_slow = False
                home.stop()
                home.start()
                home.plug_in()
            case "lose":
                home.lose_broker()
            case "connect":
                home.connect()
            case "slow":
                home.card_is_slow = True
            case "card":
                if home.refused:
                    home.card_works()
                home.card_is_slow = False
            case "wait":
                home.wait(31)
        look()
    for _ in range(200):
        home.receipt(max((seq for lane, seq in arrived if lane == "alerts"), default=0))
        look()
    alerts = sorted(seq for lane, seq in arrived if lane == "alerts")
    assert alerts == list(range(1, home.engine.alerts_next_seq))
    last: dict[str, int] = {}
    for seq in alerts:
        payload = json.loads(arrived[("alerts", seq)])
        if "alert_id" in payload:
            if payload["state"] == "closed":
                last.pop(payload["alert_id"], None)
            else:
                last[payload["alert_id"]] = payload["rev"]
    assert last == {alert_id: alert.rev for alert_id, alert in home.engine.book.open.items()}


def test_what_is_kept_of_a_pump_in_another_version_does_not_keep_the_gateway_from_watching_it(tmp_path):
    home = Home(tmp_path)
    home.stop()
    store = Store(home.card)
    store.commit(Commit(number=10_000, kept=(("pump/p1", b"\x80"), ("pump/gateway", b"\x80"))))
    store.close()
    home.start()
    assert "p1: link down" in home.shown[-1]


@pytest.mark.parametrize("name", ["sign_of_life", "next_alert", "told", "tellings", "requests"])
def test_what_numbers_and_names_rest_on_is_never_guessed_at(tmp_path, name):
    home = Home(tmp_path)
    home.stop()
    store = Store(home.card)
    store.commit(Commit(number=10_000, kept=((name, b"\xc1"),)))
    store.close()
    with pytest.raises(KeptUnreadable):
        home.start()
