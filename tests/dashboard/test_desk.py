"""The desk: stored before it is receipted, shown, and answered for. A real database; time is set by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from alerts import wire
from alerts.condition import Priority
from alerts.dashboard import board, desk, views
from alerts.dashboard.desk import Acknowledge, CloseNotice, Desk
from alerts.dashboard.store import Store
from alerts.mqtt import BrokerConnected, BrokerEvent, BrokerLost, BrokerMessage
from alerts.sink import Message, SinkDown
from tests.dashboard.home import SetClock, SpeakingHome


class Wire:
    """What the desk has sent, in order."""

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.is_down = False

    def send(self, message: Message, token: int) -> None:
        if self.is_down:
            raise SinkDown("down")
        self.sent.append(message)

    def take(self, what: str) -> list[dict[str, Any]]:
        found = [json.loads(m.payload) for m in self.sent if m.topic.endswith(f"/down/{what}")]
        self.sent = [m for m in self.sent if not m.topic.endswith(f"/down/{what}")]
        return found

    def receipts(self) -> list[tuple[int, int]]:
        return [(each["alerts"], each["telemetry"]) for each in self.take("receipt")]


class Ward:
    """A desk with its database; ``restart`` is a kill of the process at that moment."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = SetClock()
        self.home = SpeakingHome(self.clock)
        self.wire = Wire()
        self.watcher: str | None = None
        self.traced: list[tuple[str, dict[str, Any]]] = []
        self.restart()

    def restart(self) -> None:
        self.store = Store(f"sqlite:///{self.folder / 'd.sqlite3'}")
        self.desk = Desk(
            collector_name="main",
            store=self.store,
            clock=self.clock,  # type: ignore[arg-type]  # a clock that stands
            watcher=lambda: self.watcher,
            trace=lambda step, **fields: self.traced.append((step, fields)),
        )
        self.desk.connect(self.wire)
        self.hear(BrokerConnected(session_present=False))

    def hear(self, *events: BrokerEvent) -> None:
        for event in events:
            self.desk.deliver(event)
        self.desk.turn()

    def pass_s(self, seconds: float) -> None:
        self.clock.pass_s(seconds)
        self.desk.turn()

    def do(self, wish: Acknowledge | CloseNotice) -> None:
        done = self.desk.ask(wish)
        self.desk.turn()
        done.result(timeout=0)

    @property
    def view(self) -> views.BoardView:
        showing = self.desk.showing
        return views.view(showing.board, showing.notices, self.clock.now_ms(), showing.storage_words)


@pytest.fixture
def ward(tmp_path: Path) -> Ward:
    return Ward(tmp_path)


def acknowledge(
    rev: int = 1, alert_id: str = "a-s-1-1", by: str = "nurse-07", closes: bool = False
) -> Acknowledge:
    return Acknowledge(home="h-1", alert_id=alert_id, rev=rev, by=by, role=wire.Role.NURSE, closes=closes)


# Receipts


def test_a_message_is_receipted_within_a_second_of_storing(ward: Ward) -> None:
    ward.hear(ward.home.alert(1, 1))
    assert ward.wire.receipts() == []
    ward.pass_s(1)
    assert ward.wire.receipts() == [(1, 0)]
    ward.pass_s(60)
    assert ward.wire.receipts() == []


def test_ten_messages_are_receipted_at_once(ward: Ward) -> None:
    ward.hear(*(ward.home.alert(number, 1) for number in range(1, 11)))
    assert ward.wire.receipts() == [(10, 0)]


def test_a_duplicate_is_receipted_again_and_shown_once(ward: Ward) -> None:
    message = ward.home.alert(1, 1)
    ward.hear(message)
    ward.pass_s(1)
    ward.hear(message)
    ward.pass_s(1)
    assert ward.wire.receipts() == [(1, 0), (1, 0)]
    assert len(ward.view.alerts) == 1
    assert [step for step, _ in ward.traced].count("dashboard_stored") == 1


def test_a_kill_between_storing_and_receipt_makes_the_next_sending_a_duplicate_that_is_receipted(
    ward: Ward,
) -> None:
    message = ward.home.alert(1, 1)
    ward.hear(message)
    ward.restart()
    assert [row.alert_id for row in ward.view.alerts] == ["a-s-1-1"]
    ward.hear(message)
    ward.pass_s(1)
    assert ward.wire.receipts() == [(1, 0)]
    assert len(ward.store.revisions("h-1", "a-s-1-1")) == 1


def test_a_gap_holds_the_receipt_back_until_it_is_filled(ward: Ward) -> None:
    first, second, third = (ward.home.alert(number, 1) for number in (1, 2, 3))
    ward.hear(first, third)
    ward.pass_s(1)
    assert ward.wire.receipts() == [(1, 0)]
    ward.hear(second)
    ward.pass_s(1)
    assert ward.wire.receipts() == [(3, 0)]


def test_a_gap_of_ten_minutes_is_recorded_shown_and_passed_over(ward: Ward) -> None:
    first, _lost, third = (ward.home.alert(number, 1) for number in (1, 2, 3))
    ward.hear(first, third)
    ward.pass_s(599)
    assert ward.wire.receipts() == [(1, 0)]
    ward.hear(ward.home.beat())
    ward.pass_s(1)
    ward.pass_s(1)
    assert ward.wire.receipts() == [(3, 0)]
    (notice,) = ward.view.notices
    assert "Missing, of the alerts: 2 (" in notice.message
    ward.restart()
    assert ward.view.notices == (notice,)
    ward.do(CloseNotice(home="h-1", key=notice.key, by="nurse-07"))
    assert ward.view.notices == ()


def test_while_the_broker_is_away_nothing_is_given_up_that_may_still_come(ward: Ward) -> None:
    first, second, third = (ward.home.alert(number, 1) for number in (1, 2, 3))
    ward.hear(first, third)
    ward.hear(BrokerLost(reason="gone"))
    ward.pass_s(3_600)
    ward.hear(BrokerConnected(session_present=True))
    ward.pass_s(1)
    assert ward.wire.receipts() == [(1, 0)]
    ward.hear(second)
    ward.pass_s(1)
    assert ward.wire.receipts() == [(3, 0)]
    assert ward.desk.showing.notices == ()


def test_a_new_collector_begins_at_the_oldest_that_the_beat_names(ward: Ward) -> None:
    ward.home.seq["alerts"] = 40
    ward.hear(ward.home.alert(41, 1))
    ward.pass_s(1)
    assert ward.wire.receipts() == [(0, 0)]
    ward.hear(ward.home.beat((("a-s-1-41", 1),), oldest=41))
    ward.pass_s(1)
    assert ward.wire.receipts() == [(41, 40)]
    assert ward.view.notices == ()


def test_numbers_that_the_gateway_no_longer_holds_are_lost_and_shown(ward: Ward) -> None:
    ward.hear(ward.home.alert(1, 1))
    ward.home.seq["alerts"] = 9
    ward.hear(ward.home.beat(oldest=6))
    assert "2 to 5" in ward.view.notices[0].message


def test_retained_messages_update_the_board_and_count_for_nothing(ward: Ward) -> None:
    ward.hear(ward.home.alert(1, 1, retain=True), ward.home.state(retain=True))
    ward.pass_s(2)
    assert ward.wire.receipts() == []
    assert len(ward.view.alerts) == 1
    assert ward.store.progress() == {}


def test_each_store_and_each_lane_has_receipts_of_its_own(ward: Ward) -> None:
    other = SpeakingHome(ward.clock, store="s-2")
    ward.hear(
        ward.home.alert(1, 1), ward.home.telemetry(("2026-05-04T08:00:00.000Z", 1, 1)), other.alert(1, 1)
    )
    ward.pass_s(1)
    found = {each["store"]: (each["alerts"], each["telemetry"]) for each in ward.wire.take("receipt")}
    assert found == {"s-1": (1, 1), "s-2": (1, 0)}


# What is wrong with a message


@pytest.mark.parametrize(
    "spoilt",
    [
        b'{"schema":"dripwatch.alert/1","store":"s-1","lane":"alerts","seq":1}',
        b'{"schema":"dripwatch.alert/9","store":"s-1","lane":"alerts","seq":1,"time":7}',
        b'{"schema":"dripwatch.void/1","time":"2026-05-04T08:00:00Z","store":"s-1","lane":"alerts","seq":1,"reason":"149"}',
    ],
)
def test_a_payload_whose_number_can_be_read_is_stored_receipted_and_shown_as_unreadable(
    ward: Ward, spoilt: bytes
) -> None:
    topic = wire.up("h-1", "alert", pump="p1", alert_id="a-s-1-1")
    ward.hear(BrokerMessage(topic=topic, payload=spoilt, retain=False, qos=1))
    ward.pass_s(1)
    assert ward.wire.receipts() == [(1, 0)]
    assert ward.view.notices[0].title == "A message could not be read: home h-1"


@pytest.mark.parametrize(
    "event",
    [
        BrokerMessage(topic="dripwatch/v1/h-1/up/beat", payload=b"\xff\x00", retain=False, qos=0),
        BrokerMessage(topic="dripwatch/v1/h-1/up/beat", payload=b"[" * 60_000, retain=False, qos=0),
        BrokerMessage(topic="dripwatch/v1/HOME/up/beat", payload=b"{}", retain=False, qos=0),
        BrokerMessage(topic="dripwatch/v1/h-1/down/ack", payload=b"{}", retain=False, qos=0),
        BrokerMessage(topic="elsewhere", payload=b"{}", retain=False, qos=0),
        BrokerMessage(topic="", payload=b"", retain=True, qos=0),
        BrokerMessage(topic="dripwatch/v1/h-1/up/new_topic", payload=b"{}", retain=False, qos=0),
    ],
)
def test_what_makes_no_sense_and_has_no_number_changes_nothing(ward: Ward, event: BrokerMessage) -> None:
    before = ward.desk.showing
    ward.hear(event)
    assert ward.desk.showing == before


def test_an_alert_that_names_another_alert_than_its_topic_is_unreadable(ward: Ward) -> None:
    honest = ward.home.alert(1, 1)
    ward.hear(BrokerMessage(topic=honest.topic + "9", payload=honest.payload, retain=False, qos=1))
    assert ward.view.alerts == ()
    assert "another alert" in ward.view.notices[0].message


def test_a_number_with_other_bytes_is_stored_shown_and_raises_duplicate_gateway(ward: Ward) -> None:
    ward.hear(ward.home.alert(1, 1), ward.home.alert(2, 1, seq=1))
    assert {row.alert_id for row in ward.view.alerts} == {"a-s-1-1", "a-s-1-2"}
    assert [notice.key for notice in ward.view.notices] == ["duplicate_gateway"]


def test_a_message_of_a_later_version_is_stored_and_receipted_without_alarm(ward: Ward) -> None:
    later = b'{"store":"s-1","lane":"alerts","seq":1}'
    ward.hear(BrokerMessage(topic=wire.up("h-1", "weather"), payload=later, retain=False, qos=1))
    ward.pass_s(1)
    assert ward.wire.receipts() == [(1, 0)]
    assert ward.view.notices == ()


def test_what_cannot_be_stored_is_shown_and_not_receipted(
    ward: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = ward.home.alert(1, 1)

    def full(*_: Any, **__: Any) -> None:
        raise OperationalError("insert", {}, Exception("disk full"))

    with monkeypatch.context() as broken:
        broken.setattr(ward.store, "keep", full)
        ward.hear(message)
        ward.pass_s(2)
    assert ward.wire.receipts() == []
    assert len(ward.view.alerts) == 1
    assert "cannot store" in ward.view.doubts[0]
    ward.hear(message)
    ward.pass_s(1)
    assert ward.wire.receipts() == [(1, 0)]
    assert ward.view.doubts == ()


# People


def test_an_acknowledgement_goes_out_with_what_was_seen_and_expires(ward: Ward) -> None:
    ward.hear(ward.home.alert(1, 3, respond_within_s=600))
    ward.do(acknowledge(rev=3))
    sent = next(message for message in ward.wire.sent if message.topic.endswith("/down/ack"))
    payload = wire.decode(sent.payload, wire.Ack)
    assert (payload.alert_id, payload.rev, payload.by, payload.role) == ("a-s-1-1", 3, "nurse-07", "nurse")
    assert (sent.qos, sent.retain, sent.expiry_s) == (1, False, 600)
    ward.hear(ward.home.acknowledged(1, 4))
    assert ward.view.alerts[0].acknowledged is not None
    assert [step for step, _ in ward.traced] == [
        "subscribed",
        "dashboard_stored",
        "acknowledged",
        "dashboard_stored",
        "ack_back",
    ]


def test_pressed_twice_or_by_two_nurses_at_once_one_acknowledgement_is_on_its_way(ward: Ward) -> None:
    ward.hear(ward.home.alert(1, 1))
    ward.do(acknowledge())
    ward.do(acknowledge(by="nurse-08"))
    assert [sent["by"] for sent in ward.wire.take("ack")] == ["nurse-07"]
    assert ward.view.alerts[0].button == ""
    ward.pass_s(20)
    assert ward.view.alerts[0].button == "Acknowledge"
    ward.do(acknowledge(by="nurse-08"))
    assert [sent["by"] for sent in ward.wire.take("ack")] == ["nurse-08"]


def test_what_a_person_gave_up_waiting_for_is_not_done(ward: Ward) -> None:
    ward.hear(ward.home.alert(1, 1))
    assert ward.desk.ask(acknowledge()).cancel()
    ward.pass_s(1)
    assert ward.wire.take("ack") == []


def test_the_acknowledgement_of_a_closed_alert_is_for_the_gateway_to_refuse(ward: Ward) -> None:
    ward.hear(ward.home.alert(1, 1), ward.home.alert(1, 2, state="closed", reason="resolved"))
    ward.do(acknowledge(rev=1))
    assert [sent["rev"] for sent in ward.wire.take("ack")] == [1]
    assert ward.view.alerts == ()


def test_an_acknowledgement_expires_at_the_latest_when_the_wire_can_say_so(ward: Ward) -> None:
    ward.hear(ward.home.alert(1, 1, respond_within_s=2**53 - 1))
    ward.do(acknowledge())
    assert [message.expiry_s for message in ward.wire.sent if "ack" in message.topic] == [2**32 - 1]


def test_when_too_much_comes_messages_find_no_place_and_come_again(
    ward: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desk, "QUEUE_MAX", 2)
    ward.hear(ward.home.alert(1, 1), ward.home.alert(2, 1), ward.home.alert(3, 1), BrokerLost(reason="Gone."))
    assert (len(ward.view.alerts), ward.desk.missed) == (2, 1)
    assert "Gone." in ward.view.connection


def test_without_a_broker_an_acknowledgement_is_refused_in_words(ward: Ward) -> None:
    ward.hear(ward.home.alert(1, 1), BrokerLost(reason="gone"))
    ward.do(acknowledge())
    outcome = ward.view.alerts[0].outcome
    assert outcome is not None
    assert "nothing was sent" in outcome.words
    assert ward.wire.take("ack") == []


def test_closing_an_orphan_is_done_here_and_outlives_a_restart(ward: Ward) -> None:
    ward.hear(ward.home.alert(1, 1), ward.home.open_list(as_of=2))
    ward.do(acknowledge(closes=True))
    assert ward.wire.take("ack") == []
    assert ward.view.alerts == ()
    ward.restart()
    assert ward.view.alerts == ()


def test_nobody_closes_an_orphan_who_has_not_seen_that_it_is_one(ward: Ward) -> None:
    ward.hear(ward.home.alert(1, 1), ward.home.open_list(as_of=2))
    ward.do(acknowledge())
    assert ward.wire.take("ack") == []
    assert [row.is_orphan for row in ward.view.alerts] == [True]


def test_one_revision_with_two_contents_is_told(ward: Ward) -> None:
    ward.hear(ward.home.alert(1, 1), ward.home.alert(1, 1))
    assert ward.view.notices == ()
    ward.hear(ward.home.alert(1, 1, message="Something else."))
    (notice,) = ward.view.notices
    assert (notice.key, notice.priority) == ("duplicate_gateway", Priority.HIGH)
    assert "two contents" in notice.message


def test_homes_are_told_each_ten_seconds_that_somebody_watches_and_only_then(ward: Ward) -> None:
    ward.hear(ward.home.beat())
    ward.pass_s(60)
    assert ward.wire.take("watch") == []
    ward.watcher = "nurse-07"
    for _ in range(21):
        ward.pass_s(1)
    assert [each["by"] for each in ward.wire.take("watch")] == ["nurse-07"] * 3


def test_two_beats_that_disagree_ask_once_a_minute_for_a_resync(ward: Ward) -> None:
    elsewhere = (("a-s-1-9", 1),)
    ward.hear(ward.home.beat(elsewhere))
    assert ward.wire.take("resync") == []
    for _ in range(12):
        ward.pass_s(10)
        ward.hear(ward.home.beat(elsewhere))
    assert len(ward.wire.take("resync")) == 2


# After a restart


def test_a_restart_forgets_no_open_alert_and_opens_no_closed_one(ward: Ward) -> None:
    ward.hear(ward.home.alert(1, 1), ward.home.alert(2, 1), ward.home.acknowledged(2, 2))
    ward.hear(ward.home.alert(3, 1), ward.home.alert(3, 2, state="closed", reason="resolved"))
    before = ward.view.alerts
    ward.restart()
    assert [(row.alert_id, row.rev, row.state) for row in ward.view.alerts] == [
        (row.alert_id, row.rev, row.state) for row in before
    ]
    assert all(row.doubt for row in ward.view.alerts)
    ward.hear(ward.home.alert(3, 1, seq=5))
    assert {row.alert_id for row in ward.view.alerts} == {"a-s-1-1", "a-s-1-2"}


def test_telemetry_is_kept_for_thirty_days_and_closed_alerts_for_a_year(ward: Ward) -> None:
    def stored() -> tuple[int, int]:
        return len(ward.store.telemetry_since(0)), len(ward.store.revisions("h-1", "a-s-1-1"))

    ward.hear(ward.home.telemetry((None, 1.0, 1.0)))
    ward.hear(ward.home.alert(1, 1), ward.home.alert(1, 2, state="closed", reason="resolved"))
    ward.pass_s(30 * 86_400)
    assert stored() == (1, 2)
    ward.pass_s(600)
    assert stored() == (0, 2)
    ward.pass_s(336 * 86_400)
    assert stored() == (0, 0)


def test_a_restart_keeps_the_picture_and_marks_it_old(ward: Ward) -> None:
    ward.hear(ward.home.telemetry(("2026-05-04T08:00:00Z", 0, 0), ("2026-05-04T08:30:00Z", 5, 4)))
    ward.restart()
    pump = ward.view.homes[0].pumps[0]
    assert pump.chart is not None
    assert not pump.is_known


def test_what_the_dashboard_itself_says_stands_among_the_alerts_by_its_priority(ward: Ward) -> None:
    ward.hear(ward.home.state(urgency="vital"), ward.home.alert(1, 1, priority="low"), ward.home.beat())
    ward.pass_s(5 * 60)
    ward.hear(SpeakingHome(ward.clock, home="h-2").alert(1, 1, priority="high"))
    assert [card.title for card in ward.view.cards] == [
        "Nothing comes from the home",
        "Under-infusion",
        "Under-infusion",
    ]
    assert [card.home for card in ward.view.cards] == ["h-1", "h-2", "h-1"]


def test_alerts_beyond_what_can_be_shown_are_stored_receipted_and_said(
    ward: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(board, "OPEN_ALERTS_MAX", 2)
    ward.hear(*(ward.home.alert(number, 1) for number in (1, 2, 3)))
    ward.pass_s(1)
    assert ward.wire.receipts() == [(3, 0)]
    assert len(ward.store.revisions("h-1", "a-s-1-3")) == 1
    assert "some are missing below" in ward.view.doubts[0]


def test_two_gateways_for_one_home_are_told_until_somebody_has_seen_to_it(ward: Ward) -> None:
    other = SpeakingHome(ward.clock, boot="b2")
    ward.hear(ward.home.beat(), other.beat(), ward.home.beat())
    assert ward.view.notices[0].key == "duplicate_gateway"
    ward.do(CloseNotice(home="h-1", key="duplicate_gateway", by="nurse-07"))
    assert ward.view.notices == ()
    ward.hear(other.beat())
    assert ward.view.notices[0].key == "duplicate_gateway"
