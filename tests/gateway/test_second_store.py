"""While the card refuses, everything leaves from memory; when it works again, nothing is lost or doubled."""

from __future__ import annotations

import json
from collections import defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alerts import wire
from alerts.sink import Lane
from tests.gateway.home import Home

OCCLUDED = "state=paused rate_ml_h=0 volume_ml=1 alarms=occlusion_downstream"
AIR = "state=paused rate_ml_h=0 volume_ml=1 alarms=air_in_line"
CLEAR = "state=running rate_ml_h=60 volume_ml=1 alarms="


@pytest.fixture
def home(tmp_path):
    home = Home(tmp_path)
    home.plug_in()
    home.connect()
    home.receipt(1)
    home.forget()
    return home


def under(home: Home, store: str, lane: str = "alerts") -> list[int]:
    """Numbers that were sent under a store."""
    messages = [json.loads(send.message.payload) for send in home.sends if send.message.lane == lane]
    return sorted({message["seq"] for message in messages if message["store"] == store})


def second(home: Home) -> str:
    return f"mb-{home.starts}"


def test_while_the_card_refuses_alerts_leave_at_once_under_a_second_store_numbered_from_one(home):
    home.card_refuses = True
    home.hear(OCCLUDED)
    assert home.told("occlusion") == [(1, "active", "first")]
    assert home.told("storage_failing") == [(1, "active", "first")]
    assert under(home, second(home)) == [1, 2]
    assert under(home, home.engine.store) == []
    assert {alert["store"] for alert in home.said("alert")} == {second(home)}


def test_when_the_card_works_again_the_first_store_goes_on_and_everything_is_on_the_card(home):
    home.card_refuses = True
    home.hear(OCCLUDED)
    home.receipt(2, store=second(home))
    home.card_works()
    assert home.told("storage_failing")[-1] == (2, "latched", "resolved")
    assert home.alert("storage_failing")["store"] == home.engine.store
    assert under(home, home.engine.store) == [2]
    home.stop()
    home.start()
    assert {alert.kind: alert.rev for alert in home.engine.book.open.values()} == {
        "no_prescription": 1,
        "occlusion": 1,
        "storage_failing": 2,
    }
    home.forget()
    home.connect()
    assert under(home, home.engine.store) == [2]


def test_what_the_beat_counts_are_all_that_were_told_under_whichever_store(home):
    home.card_refuses = True
    home.hear(OCCLUDED)
    home.wait(11)
    for works in (False, True):
        if works:
            home.card_works()
            home.wait(11)
        open_now = [(alert.alert_id, alert.rev) for alert in home.engine.book.open.values()]
        beat = home.said("beat")[-1]
        assert (beat["open"], beat["digest"]) == (len(open_now), wire.digest(open_now))
        assert beat["store"] == home.engine.store
        assert sorted(map(tuple, home.said("open")[-1]["alerts"])) == sorted(open_now)


def test_an_alert_that_begins_while_the_card_refuses_is_named_after_the_second_store(home):
    home.card_refuses = True
    home.hear(OCCLUDED)
    home.hear(AIR)
    assert home.alert("pump_alarm")["alert_id"].startswith(f"a-{second(home)}-")
    home.card_works()
    home.hear("state=paused rate_ml_h=0 volume_ml=1 alarms=door_open")
    assert home.alert("pump_alarm")["alert_id"].startswith(f"a-{home.engine.store}-")


def test_what_could_not_leave_meanwhile_leaves_by_the_first_store_and_by_no_other(home):
    home.lose_broker()
    home.card_refuses = True
    home.hear(OCCLUDED)
    home.hear(CLEAR)
    home.wait(60)
    home.card_works()
    home.connect()
    assert {alert["store"] for alert in home.said("alert")} == {home.engine.store}
    assert home.told("occlusion")[-1][0] == 2
    home.receipt(home.engine.alerts_next_seq - 1)
    home.card_refuses = True
    home.hear(AIR)
    assert under(home, second(home))[0] == 1


def test_what_was_sent_from_memory_is_sent_again_until_its_receipt_also_when_the_card_works_again(home):
    home.card_refuses = True
    home.hear(OCCLUDED)
    home.card_works()
    home.forget()
    home.wait(31)
    assert under(home, second(home)) == [1, 2]
    home.receipt(2, store=second(home))
    home.forget()
    home.wait(65)
    assert under(home, second(home)) == []


def test_what_was_sent_from_memory_and_has_no_receipt_is_said_again_after_a_power_cut(home):
    home.card_refuses = True
    home.hear(OCCLUDED)
    home.card_works()
    home.cut_power()
    home.forget()
    home.start()
    home.connect()
    assert home.told("occlusion") == [(1, "active", "first")]
    assert {alert["store"] for alert in home.said("alert")} == {home.engine.store}


def test_after_a_power_cut_while_the_card_refused_no_revision_and_no_name_is_given_twice(home):
    home.hear(AIR)
    home.card_refuses = True
    home.hear(CLEAR)
    home.hear(OCCLUDED)
    before = {(alert["alert_id"], alert["rev"]) for alert in home.said("alert")}
    home.card_refuses, home.refused = False, []
    home.cut_power()
    home.forget()
    home.start()
    home.plug_in()
    home.connect()
    home.hear(OCCLUDED)
    after = {(alert["alert_id"], alert["rev"]) for alert in home.said("alert") if alert["reason"] != "first"}
    after |= {(alert["alert_id"], 1) for alert in home.said("alert") if alert["kind"] == "occlusion"}
    assert after
    assert not before & after


def test_an_alert_that_was_told_and_forgotten_by_the_card_leaves_its_name_to_no_other(home):
    home.card_refuses = True
    home.hear(OCCLUDED)
    told = home.alert("occlusion")["alert_id"]
    home.card_refuses, home.refused = False, []
    home.cut_power()
    home.forget()
    home.start()
    home.plug_in()
    home.connect()
    home.hear(AIR)
    assert home.alert("pump_alarm")
    assert told not in {alert["alert_id"] for alert in home.said("alert")}


def test_what_is_on_the_card_though_it_said_no_does_not_come_back_under_a_number_that_was_taken_back(home):
    home.card_refuses = True
    home.hear("state=paused rate_ml_h=0 volume_ml=1 alarms=occlusion_downstream;air_in_line")
    home.store.commit(home.refused[0])
    assert [message.seq for message in home.store.restore().lanes[Lane.ALERTS].numbered] == [2, 3]
    home.card_works()
    (kept,) = home.store.restore().lanes[Lane.ALERTS].numbered
    assert json.loads(kept.payload)["kind"] == "storage_failing"


def test_telemetry_leaves_from_memory_too_and_no_point_is_lost_or_doubled(home):
    spoken = 0
    for minute in range(30):
        if minute == 10:
            home.card_refuses = True
        if minute == 20:
            home.card_works()
        for _ in range(12):
            home.hear(f"state=running rate_ml_h=60 volume_ml={spoken} alarms=")
            spoken += 1
            home.wait(5)
        for store in (home.engine.store, second(home)):
            alerts, telemetry = (under(home, store, lane) for lane in ("alerts", "telemetry"))
            home.receipt(alerts[-1] if alerts else 0, telemetry[-1] if telemetry else 0, store=store)
        if minute == 19:
            assert len(under(home, second(home), "telemetry")) >= 18
    home.wait(31)
    points = [tuple(point) for batch in home.said("telemetry") for point in batch["points"]]
    assert len(points) == spoken
    assert len(set(points)) == spoken


def test_what_waits_for_a_card_that_refuses_for_days_takes_no_more_and_more_memory(home):
    home.lose_broker()
    home.card_refuses = True
    for number in range(3_000):
        home.now_ms += 60_000
        home.hear(f"state=running rate_ml_h=60 volume_ml={number} alarms=")
        assert home.engine.held_in_memory < 250
        assert home.engine._outbox.commits_under_way < 10
        if len(home.refused) > 1:
            # As the card's thread does: all that waits is one.
            home.refused[:] = [home.refused[0].followed_by(home.refused[-1])]


happenings = st.lists(
    st.sampled_from(
        ["occluded", "air", "clear", "refuses", "works", "connect", "lose", "receipt", "resync", "wait"]
    ),
    min_size=5,
    max_size=60,
)


@settings(max_examples=30, deadline=None)
@given(steps=happenings)
def test_whatever_happens_each_revision_is_told_in_one_store_and_the_board_agrees_in_the_end(
    tmp_path_factory, steps
):
    home = Home(tmp_path_factory.mktemp("home"))
    home.plug_in()
    for number, step in enumerate(steps):
        match step:
            case "occluded" | "air" | "clear":
                home.hear({"occluded": OCCLUDED, "air": AIR, "clear": CLEAR}[step])
            case "refuses":
                home.card_refuses = True
            case "works" if home.card_refuses and home.refused:
                home.card_works()
            case "connect":
                home.connect()
            case "lose":
                home.lose_broker()
            case "resync":
                home.tell("resync", id=f"r-{number}")
            case "receipt":
                for store in (home.engine.store, second(home)):
                    alerts = under(home, store)
                    home.receipt(alerts[-1] if alerts else 0, store=store)
            case "wait":
                home.wait(35)
    home.connect()
    if home.refused:
        home.card_works()
    home.card_refuses = False
    home.wait(65)
    said = [json.loads(send.message.payload) for send in home.sends if send.message.lane == "alerts"]
    bytes_of: dict[tuple[str, int], str] = {}
    told: dict[tuple[str, int], set[str]] = defaultdict(set)
    board: dict[str, tuple[int, str]] = {}
    for message in said:
        text = json.dumps(message, sort_keys=True)
        assert bytes_of.setdefault((message["store"], message["seq"]), text) == text
        if "alert_id" in message:
            told[message["alert_id"], message["rev"]].add(
                json.dumps({**message, "seq": 0, "store": ""}, sort_keys=True)
            )
            if "resync" not in steps:
                told[message["alert_id"], message["rev"]].add(message["store"])
            known = board.get(message["alert_id"], (0, ""))
            board[message["alert_id"]] = max(known, (message["rev"], message["state"]))
    stores = 0 if "resync" in steps else 1
    assert all(len(contents) == 1 + stores for contents in told.values())
    for store in (home.engine.store, second(home)):
        numbers = [seq for known, seq in sorted(bytes_of) if known == store]
        assert numbers == list(range(1, len(numbers) + 1))
    open_now = {alert.alert_id: alert.rev for alert in home.engine.book.open.values()}
    assert {id_: rev for id_, (rev, state) in board.items() if state != "closed"} == open_now
