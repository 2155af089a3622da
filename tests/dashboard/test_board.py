"""The board as a fold, and what of it is shown when: mqtt page, "From the home" and "The alert"."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alerts import wire
from alerts.alert import AlertState
from alerts.condition import Priority, Urgency
from alerts.dashboard import board, views
from alerts.dashboard.board import (
    Arrived,
    Board,
    Cleared,
    ClosedHere,
    Deed,
    DeedDone,
    DeedWithBroker,
    Disconnected,
    ResyncAsked,
    Subscribed,
    fold,
)
from alerts.mqtt import BrokerMessage
from tests.dashboard.home import BEGIN_UTC_MS, SetClock, SpeakingHome


class World:
    """A board, one home that speaks, and a clock that passes only when told."""

    def __init__(self, *, subscribed: bool = True) -> None:
        self.clock = SetClock()
        self.home = SpeakingHome(self.clock)
        self.board = Board()
        if subscribed:
            self.fold(Subscribed(at_ms=self.clock.now_ms()))

    def fold(self, fact: Any) -> None:
        self.board = fold(self.board, fact)

    def hear(self, *messages: BrokerMessage) -> None:
        for message in messages:
            self.fold(arrived(message, self.clock))

    def pump(self, name: str = "p1") -> views.PumpView:
        home = self.view.homes[0]
        return next(pump for pump in home.pumps if pump.pump == name)

    @property
    def view(self) -> views.BoardView:
        return views.view(self.board, (), self.clock.now_ms())

    @property
    def rows(self) -> tuple[views.AlertRow, ...]:
        return self.view.alerts


def arrived(message: BrokerMessage, clock: SetClock) -> Arrived | Cleared:
    topic = wire.parse_topic(message.topic)
    assert topic is not None
    if not message.payload:
        return Cleared(topic=topic)
    return Arrived(
        topic=topic,
        message=wire.decode(message.payload, wire.FROM_HOME[topic.what]),
        at_ms=clock.now_ms(),
        at_utc_ms=clock.utc_ms(),
        retained=message.retain,
    )


# Laws


def revisions() -> list[BrokerMessage]:
    home = SpeakingHome(SetClock())
    return [
        home.alert(1, 1),
        home.alert(1, 2, reason="escalated", level=1),
        home.acknowledged(1, 3),
        home.alert(1, 4, reason="repeated"),
        home.alert(1, 5, state="closed", reason="resolved"),
        home.alert(2, 1, priority="high"),
        home.alert(2, 2, priority="high", state="latched", reason="resolved"),
    ]


@given(st.permutations(revisions()), st.lists(st.sampled_from(revisions())), st.data())
def test_of_an_alert_the_highest_revision_holds_whatever_the_order_and_however_often_it_came(
    order: list[BrokerMessage], again: list[BrokerMessage], data: st.DataObject
) -> None:
    expected, found = World(), World()
    expected.hear(*revisions())
    found.hear(*order, *again)
    assert found.board.homes["h-1"].alerts == expected.board.homes["h-1"].alerts
    assert [row.alert_id for row in found.rows] == ["a-s-1-2"]


@given(st.permutations([(0, "x"), (0, "y"), (60, "z")]))
def test_of_two_contents_of_one_revision_the_later_time_holds_in_any_order(
    order: list[tuple[int, str]],
) -> None:
    world = World()
    begin = world.clock.at_ms
    for later_s, message in order:
        world.clock.at_ms = begin + later_s * 1000
        world.hear(world.home.alert(1, 1, message=message, since=None, raised=wire.iso_utc(BEGIN_UTC_MS)))
    known = world.board.homes["h-1"].alerts["a-s-1-1"]
    assert known.newest.message == "z"
    assert known.is_contradicted


def test_a_resync_sends_the_same_but_for_the_number_and_that_is_no_contradiction() -> None:
    world = World()
    world.hear(world.home.alert(1, 1), world.home.alert(1, 1), world.home.alert(1, 1, retain=True))
    world.hear(world.home.alert(1, 1, store="m-1"))
    assert not world.board.homes["h-1"].alerts["a-s-1-1"].is_contradicted
    assert len(world.rows) == 1


# Fresh or unknown


def test_a_pump_is_known_only_after_a_beat_and_a_state_that_were_not_retained() -> None:
    world = World()
    world.hear(world.home.status(True, retain=True), world.home.state(retain=True))
    assert world.pump().verdict_words == "Unknown: waiting for the home's gateway to report"
    assert world.pump().volume_words == "Pump counted 12.4 mL of 13.6 mL expected by now"
    assert not world.pump().is_known
    world.hear(world.home.beat())
    assert world.pump().verdict_words == "Unknown: waiting for the pump's state"
    world.hear(world.home.state())
    assert world.pump().verdict_words == "Pump on plan"
    assert world.pump().is_known


@pytest.mark.parametrize(
    ("after_s", "words"),
    [
        (30, "Pump on plan"),
        (30.001, "Unknown: nothing has come from the home's gateway for more than 30 s"),
    ],
)
def test_a_home_is_unknown_after_thirty_seconds_without_a_beat(after_s: float, words: str) -> None:
    world = World()
    world.hear(world.home.beat(), world.home.state())
    world.clock.pass_s(after_s)
    assert world.pump().verdict_words == words


@pytest.mark.parametrize(
    ("age_s", "words"),
    [(90, "Pump on plan"), (90.001, "Unknown: the pump's last state is older than 90 s")],
)
def test_a_state_is_old_after_ninety_seconds(age_s: float, words: str) -> None:
    world = World()
    world.hear(world.home.state())
    world.clock.pass_s(age_s)
    world.hear(world.home.beat())
    assert world.pump().verdict_words == words


def test_a_state_that_the_broker_kept_while_we_were_away_is_old_when_it_comes() -> None:
    world = World()
    kept = world.home.state()
    world.clock.pass_s(91)
    world.hear(world.home.beat(), kept)
    assert world.pump().verdict_words == "Unknown: the pump's last state is older than 90 s"
    world.hear(world.home.state())
    assert world.pump().is_known


@pytest.mark.parametrize("link", ["down", "silent", "garbled", "something new"])
def test_a_pump_is_unknown_with_a_link_other_than_up(link: str) -> None:
    world = World()
    world.hear(world.home.beat(link=link), world.home.state())
    assert not world.pump().is_known
    assert world.pump().verdict == "unknown"


def test_a_pump_that_the_beat_does_not_name_is_unknown() -> None:
    world = World()
    world.hear(world.home.beat(pumps=()), world.home.state())
    assert world.pump().verdict_words == "Unknown: the home's gateway does not report this pump"


def test_the_last_will_makes_a_home_unknown_at_once_and_the_next_beat_known_again() -> None:
    world = World()
    world.hear(world.home.beat(), world.home.state(), world.home.status(False))
    assert world.pump().verdict_words == "Unknown: the connection of the home's gateway has ended"
    world.hear(world.home.status(True), world.home.beat(), world.home.state())
    assert world.pump().is_known


def test_a_lost_broker_makes_everything_unknown_until_a_beat_after_the_next_subscription() -> None:
    world = World()
    world.hear(world.home.beat(), world.home.state())
    world.fold(Disconnected(at_utc_ms=world.clock.utc_ms(), words="It hung up."))
    assert not world.pump().is_known
    assert "no connection to the broker" in world.view.connection
    world.clock.pass_s(1)
    world.fold(Subscribed(at_ms=world.clock.now_ms()))
    assert not world.pump().is_known
    world.hear(world.home.beat())
    assert world.pump().is_known


def test_a_gateways_wrong_clock_does_not_matter() -> None:
    world = World()
    world.hear(
        world.home.beat(time="2001-01-01T00:00:00.000Z"), world.home.state(time="2001-01-01T00:00:00.000Z")
    )
    assert world.pump().is_known


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"verdict": "too_early", "decidable_after_s": 240}, "Too early to tell"),
        ({"verdict": "deviation"}, "Not as ordered"),
        ({"verdict": "not_expected"}, "Nothing due now"),
        ({"verdict": "unknown"}, "Unknown"),
        ({"verdict": "a_new_verdict"}, "a_new_verdict"),
    ],
)
def test_each_verdict_has_its_words(fields: dict[str, Any], words: str) -> None:
    world = World()
    world.hear(world.home.beat(), world.home.state(**fields))
    assert world.pump().verdict_words == words


def test_what_is_not_proved_or_not_real_is_marked_on_the_pump_and_on_its_alerts() -> None:
    world = World()
    world.hear(
        world.home.beat(), world.home.state(origin="demo", driver_status="experimental"), world.home.alert()
    )
    assert (world.pump().origin, world.pump().not_for_care) == ("demo", True)
    assert (world.rows[0].origin, world.rows[0].not_for_care) == ("demo", True)


@pytest.mark.parametrize("pump", ["p1", "gateway"])
def test_a_driver_of_which_nothing_is_known_is_not_for_care(pump: str) -> None:
    world = World()
    world.hear(world.home.beat(), world.home.alert(pump=pump))
    assert (world.pump().not_for_care, world.rows[0].not_for_care) == (True, True)
    world.hear(world.home.state())
    assert (world.pump().not_for_care, world.rows[0].not_for_care) == (False, False)


# Complete or not


def test_what_is_beyond_the_bounds_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for bound in ("OPEN_ALERTS_MAX", "PUMPS_MAX", "HOMES_MAX"):
        monkeypatch.setattr(board, bound, 2)
    world = World()
    pumps, alerts = World(), World()
    pumps.hear(*(pumps.home.state(pump) for pump in ("p1", "p2", "p3")))
    assert "Home h-1 has more pumps or open alerts" in pumps.view.doubts[0]
    alerts.hear(*(alerts.home.alert(number) for number in (1, 2, 3)))
    assert "Home h-1 has more pumps or open alerts" in alerts.view.doubts[0]
    assert [row.alert_id for row in alerts.rows] == ["a-s-1-1", "a-s-1-2"]
    alerts.hear(alerts.home.alert(1, 2, state="closed"), alerts.home.alert(3))
    alerts.hear(alerts.home.beat((("a-s-1-2", 1), ("a-s-1-3", 1))))
    assert alerts.view.doubts == ()
    world.hear(*(SpeakingHome(world.clock, home=f"h-{number}").beat() for number in (1, 2)))
    assert world.view.doubts == ()
    world.hear(SpeakingHome(world.clock, home="h-3").beat())
    assert "some are not shown at all" in world.view.doubts[0]


def test_a_list_of_open_alerts_that_comes_late_does_not_undo_a_newer_one() -> None:
    world = World()
    world.hear(world.home.alert(1, 1))
    older = world.home.open_list()
    world.hear(world.home.alert(2, 1), world.home.open_list(("a-s-1-1", 1), ("a-s-1-2", 1)), older)
    assert [row.doubt.startswith("The home's gateway no longer") for row in world.rows] == [False, False]


def test_an_empty_board_does_not_say_that_all_is_well_until_it_knows() -> None:
    world = World(subscribed=False)
    assert "we do not know" in world.view.empty_words
    world.fold(Subscribed(at_ms=world.clock.now_ms()))
    assert "we do not know" in world.view.empty_words
    world.hear(world.home.status(True, retain=True))
    assert "we do not know of home h-1" in world.view.empty_words
    world.hear(world.home.beat())
    assert world.view.empty_words.startswith("No open alerts.")
    world.clock.pass_s(31)
    assert "we do not know of home h-1" in world.view.empty_words


def test_two_beats_in_a_row_that_disagree_make_the_board_incomplete_and_ask_for_a_resync() -> None:
    world = World()
    elsewhere = (("a-s-1-9", 1),)
    known_home = lambda: world.board.homes["h-1"]  # noqa: E731
    world.hear(world.home.beat(elsewhere))
    assert not views.wants_resync(known_home(), world.clock.now_ms())
    assert "we do not know" in world.view.empty_words
    world.hear(world.home.beat(elsewhere))
    assert views.wants_resync(known_home(), world.clock.now_ms())
    assert "not complete" in world.view.doubts[0]
    world.fold(ResyncAsked(home="h-1", at_ms=world.clock.now_ms()))
    world.clock.pass_s(59)
    assert not views.wants_resync(known_home(), world.clock.now_ms())
    world.clock.pass_s(1)
    assert views.wants_resync(known_home(), world.clock.now_ms())
    world.hear(world.home.alert(9, 1), world.home.beat(elsewhere))
    assert not views.wants_resync(known_home(), world.clock.now_ms())
    assert world.view.doubts == ()


def test_a_beat_that_is_older_than_what_we_hold_says_nothing() -> None:
    world = World()
    world.hear(world.home.alert(1, 1))
    for _ in range(3):
        world.hear(world.home.beat((), as_of=0))
    assert world.board.homes["h-1"].disagreements == 0


def test_an_alert_that_the_gateway_no_longer_has_is_an_orphan_and_stays_until_somebody_closes_it() -> None:
    world = World()
    world.hear(world.home.alert(1, 1, priority="high"), world.home.alert(2, 1))
    world.hear(world.home.open_list(("a-s-1-2", 1)))
    orphan = world.rows[0]
    assert (orphan.alert_id, orphan.priority) == ("a-s-1-1", "high")
    assert "no longer knows this alert" in orphan.doubt
    world.hear(world.home.beat((("a-s-1-2", 1),)))
    assert world.board.homes["h-1"].disagreements == 0
    world.fold(ClosedHere(home="h-1", alert_id="a-s-1-1", rev=1))
    assert [row.alert_id for row in world.rows] == ["a-s-1-2"]
    world.hear(world.home.alert(1, 2, reason="again"))
    assert [row.alert_id for row in world.rows] == ["a-s-1-1", "a-s-1-2"]


@pytest.mark.parametrize(
    ("as_of", "store", "is_orphan"),
    [(1, "s-1", False), (2, "s-1", True), (0, "s-2", True), (0, "s-1", False)],
)
def test_an_alert_is_an_orphan_by_another_store_or_a_lower_number(
    as_of: int, store: str, is_orphan: bool
) -> None:
    world = World()
    world.hear(world.home.alert(1, 1), world.home.open_list(as_of=as_of, store=store))
    assert bool(world.rows[0].doubt.startswith("The home's gateway no longer")) == is_orphan


def test_an_empty_payload_closes_nothing_and_asks_for_a_resync() -> None:
    world = World()
    world.hear(world.home.alert(1, 1), world.home.cleared(1))
    assert len(world.rows) == 1
    assert views.wants_resync(world.board.homes["h-1"], world.clock.now_ms())
    world.hear(world.home.alert(1, 1))
    assert not views.wants_resync(world.board.homes["h-1"], world.clock.now_ms())


def test_an_empty_payload_for_a_closed_alert_means_nothing() -> None:
    world = World()
    world.hear(world.home.alert(1, 1, state="closed", reason="resolved"), world.home.cleared(1))
    assert not views.wants_resync(world.board.homes["h-1"], world.clock.now_ms())


# Alerts as shown


def test_alerts_stand_by_priority_then_unanswered_then_level_then_age() -> None:
    world = World()
    for number, fields in enumerate(
        [
            {"priority": "low"},
            {"priority": "medium", "state": "latched"},
            {"priority": "medium"},
            {"priority": "medium", "level": 2},
            {"priority": "high", "state": "acknowledged"},
            {"priority": "high"},
        ],
        start=1,
    ):
        world.clock.pass_s(1)
        world.hear(world.home.alert(number, 1, **fields))
    assert [row.alert_id[-1] for row in world.rows] == ["6", "5", "4", "3", "2", "1"]


def test_a_kind_and_a_state_that_are_not_known_are_shown_as_their_text_and_never_dropped() -> None:
    world = World()
    world.hear(world.home.alert(1, 1, kind="a_new_kind", state="a_new_state", reason="a_new_reason"))
    assert (world.rows[0].title, world.rows[0].state_words) == ("a_new_kind", "a_new_state")


@pytest.mark.parametrize(
    ("said", "words"),
    [("crisis", "HIGH (crisis)"), (None, "HIGH (priority not given)"), ("", "HIGH (priority not given)")],
)
def test_a_priority_that_is_not_known_is_shown_as_the_highest(said: str | None, words: str) -> None:
    world = World()
    world.hear(
        world.home.alert(1, 1, priority="medium"), world.home.alert(2, 1, priority=said, urgency="at_once")
    )
    assert [row.alert_id for row in world.rows] == ["a-s-1-2", "a-s-1-1"]
    assert (world.rows[0].priority, world.rows[0].priority_words) == (Priority.HIGH, words)


def test_an_alert_of_a_silent_home_says_that_it_may_have_changed() -> None:
    world = World()
    world.hear(world.home.alert(1, 1), world.home.beat((("a-s-1-1", 1),)))
    assert world.rows[0].doubt == ""
    world.clock.pass_s(31)
    assert world.rows[0].doubt.startswith("How this stands now is unknown")


# Acknowledging


def given_deed(world: World, rev: int = 1) -> Deed:
    deed = Deed(
        deed_id="d1",
        home="h-1",
        alert_id="a-s-1-1",
        rev=rev,
        by="nurse-07",
        role="nurse",
        at_ms=world.clock.now_ms(),
        at_utc_ms=world.clock.utc_ms(),
    )
    world.fold(DeedDone(deed=deed))
    return deed


def test_an_acknowledgement_waits_for_the_gateways_own_word() -> None:
    world = World()
    world.hear(world.home.alert(1, 1))
    given_deed(world)
    assert world.rows[0].outcome is not None
    assert world.rows[0].outcome.words == "Acknowledgement of nurse-07 sent, waiting for the gateway."
    assert world.rows[0].state == AlertState.ACTIVE
    assert world.rows[0].button == ""
    world.fold(DeedWithBroker(deed_id="d1", is_refused=False))
    assert world.rows[0].state == AlertState.ACTIVE
    world.hear(world.home.answer("d1", True))
    assert world.rows[0].state == AlertState.ACTIVE
    world.hear(world.home.acknowledged(1, 2))
    row = world.rows[0]
    assert row.outcome is None
    assert row.acknowledged is not None
    assert row.acknowledged.by == "nurse-07"


def test_an_answer_that_does_not_come_is_said() -> None:
    world = World()
    world.hear(world.home.alert(1, 1))
    given_deed(world)
    world.clock.pass_s(20)
    assert world.rows[0].outcome is not None
    assert "Telephone the home" in world.rows[0].outcome.words


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("stale_rev", "become worse or has been told again"),
        ("too_old", "arrived too late"),
        ("unknown_alert", "does not know this alert"),
        ("closed", "closed already"),
        ("not_allowed", "does not allow"),
        ("a_new_reason", "'a_new_reason'"),
    ],
)
def test_a_refusal_is_shown_in_words_and_can_be_tried_again(reason: str, words: str) -> None:
    world = World()
    world.hear(world.home.alert(1, 1))
    given_deed(world)
    world.hear(world.home.answer("d1", False, reason))
    assert world.rows[0].outcome is not None
    assert words in world.rows[0].outcome.words
    assert world.rows[0].button == "Acknowledge"


def test_a_broker_that_refuses_the_acknowledgement_is_told() -> None:
    world = World()
    world.hear(world.home.alert(1, 1))
    given_deed(world)
    world.fold(DeedWithBroker(deed_id="d1", is_refused=True))
    assert world.rows[0].outcome is not None
    assert world.rows[0].outcome.words.startswith("Not acknowledged")


def test_an_old_refusal_goes_when_the_gateway_has_confirmed_an_acknowledgement() -> None:
    world = World()
    world.hear(world.home.alert(1, 1))
    given_deed(world)
    world.hear(world.home.answer("d1", False, "stale_rev"), world.home.acknowledged(1, 3))
    assert world.rows[0].outcome is None


# Homes that are silent


@pytest.mark.parametrize(
    ("urgency", "after_min"),
    [("vital", 5), ("critical", 15), ("timed", 30), ("routine", 60), (None, 5), ("at_once", 5)],
)
def test_a_home_is_unreachable_after_a_time_by_its_urgency(urgency: str | None, after_min: int) -> None:
    world = World()
    world.hear(world.home.beat(), world.home.state(urgency=urgency))
    world.clock.pass_s(after_min * 60 - 1)
    assert views.unreachable(world.board, world.clock.now_ms()) == ()
    world.clock.pass_s(1)
    incident = views.unreachable(world.board, world.clock.now_ms())[0]
    assert incident.homes == ("h-1",)
    assert incident.urgency == (Urgency(urgency) if urgency in set(Urgency) else Urgency.VITAL)


def test_a_routine_home_with_nothing_running_or_due_may_be_silent() -> None:
    world = World()
    world.hear(world.home.beat(), world.home.state(urgency="routine", state="idle", verdict="not_expected"))
    world.clock.pass_s(5 * 3600)
    assert views.unreachable(world.board, world.clock.now_ms()) == ()


def test_homes_that_fall_silent_together_are_one_incident() -> None:
    world = World()
    for name, later_s in (("h-1", 0), ("h-2", 20), ("h-3", 600)):
        world.clock.pass_s(later_s)
        world.hear(SpeakingHome(world.clock, home=name).beat())
    world.clock.pass_s(3600)
    found = [incident.homes for incident in views.unreachable(world.board, world.clock.now_ms())]
    assert found == [("h-1", "h-2"), ("h-3",)]


# Points


def test_the_numbers_of_a_state_are_as_old_as_the_reading() -> None:
    world = World()
    world.hear(world.home.beat(), world.home.state(reading_age_s=4.0))
    assert world.pump().as_of_utc_ms == world.clock.utc_ms() - 4_000
    (point,) = world.board.homes["h-1"].pumps["p1"].points
    assert point.time_utc_ms == world.clock.utc_ms() - 4_000
    world.hear(world.home.state(reading_age_s=4.0, expected_ml=None, delivered_ml=None))
    assert [each.time_utc_ms for each in world.board.homes["h-1"].pumps["p1"].points if each.is_empty] == [
        world.clock.utc_ms()
    ]


def test_points_come_in_any_order_and_twice_and_an_undated_one_is_not_drawn() -> None:
    clock = SetClock()
    minute = [wire.iso_utc(BEGIN_UTC_MS + n * 60_000) for n in range(3)]
    early, late = World(), World()
    home = SpeakingHome(clock)
    first = home.telemetry((minute[0], 0.0, 0.0), (minute[1], 1.0, 0.9))
    second = home.telemetry((minute[2], 2.0, 1.7), (None, 9.0, 9.0))
    early.hear(first, second)
    late.hear(second, first, second)
    assert early.board.homes["h-1"].pumps == late.board.homes["h-1"].pumps
    assert [point.counted_ml for point in early.board.homes["h-1"].pumps["p1"].points] == [0.0, 0.9, 1.7]
    assert early.pump().chart is not None


def orders(world: World) -> dict[str, str]:
    names = ("Order in force", "Waits until the pump is set to it", "Refused")
    return {fact.name: fact.value for fact in world.pump().facts if fact.name in names}


def test_the_newest_order_that_was_told_stands_at_its_pump_without_its_text() -> None:
    world = World()
    held = {"version": 3, "sha256": "0" * 64, "prescription": "drug = 1"}
    world.hear(world.home.order(0, id=None))
    assert orders(world) == {"Order in force": "the gateway's file"}
    world.hear(world.home.order(3, waiting=held, in_force=None))
    assert orders(world) == {"Order in force": "none", "Waits until the pump is set to it": "version 3"}
    taken = world.home.order(3)
    refusal = {"accepted": False, "reason": "hash_mismatch", "message": "Send it again."}
    world.hear(taken, world.home.order(4, in_force=held, **refusal))
    assert orders(world) == {"Order in force": "version 3", "Refused": "version 4: Send it again."}
    late = SpeakingHome(world.clock)
    world.hear(late.order(1, retain=True))
    assert orders(world)["Order in force"] == "version 3"
    assert world.board.homes["h-1"].pumps["p1"].order.in_force.prescription == ""


def test_beats_of_two_starts_in_turns_are_noticed() -> None:
    world = World()
    other = SpeakingHome(world.clock, boot="b2")
    world.hear(world.home.beat(), other.beat())
    assert world.board.homes["h-1"].boots_went_back == 0
    world.hear(world.home.beat())
    assert world.board.homes["h-1"].boots_went_back == 1
