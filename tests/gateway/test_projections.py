"""What leaves by which way and in what form: drafts without a number, and what is worth nothing when old."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alerts import wire
from alerts.alert import Alert, AlertState, Reason
from alerts.condition import Finding, Kind, Priority, Urgency, Verdict
from alerts.sink import Lane, Message
from drivers.reading import PumpState, Reading
from gateway import projections
from gateway.changes import Answered, EventHappened, OrderAnswered, PointTaken
from gateway.core.monitor import DeliveryStatus, DeliveryVerdict
from gateway.core.timeline import Moment
from gateway.orders import OrderReason, PumpOrders
from gateway.projections import CLOSED_EXPIRY_S, HISTORICAL_AFTER_MS, Point, Speaker

SPEAKER = Speaker(home="h-1", store="s-1", boot="b-1")
NOW_UTC_MS = 1_795_435_200_000
ON_PLAN = DeliveryStatus(verdict=DeliveryVerdict.ON_PLAN, expected_ml=1.23456, delivered_ml=1.2)


def alert(rev: int = 1, state: AlertState = AlertState.ACTIVE, alert_id: str = "a-s-1-1") -> Alert:
    return Alert(
        alert_id=alert_id,
        rev=rev,
        pump="p1",
        kind=Kind.OCCLUSION,
        code=None,
        state=state,
        reason=Reason.FIRST,
        priority=Priority.HIGH,
        level=0,
        urgency=Urgency.TIMED,
        time_utc_ms=NOW_UTC_MS,
        since_utc_ms=None,
        raised_utc_ms=NOW_UTC_MS,
        respond_within_s=60,
        expected_ml=None,
        delivered_ml=None,
        message="The line is blocked.",
    )


def moment(uptime_ms: int, *, synced: bool = True) -> Moment:
    return Moment(monotonic_ms=uptime_ms, utc_ms=NOW_UTC_MS, synced=synced)


def point(t_ms: int, uptime_ms: int) -> Point:
    reading = Reading(pump="p1", at_ms=t_ms, state=PumpState.RUNNING, rate_ml_h=60.0, volume_ml=1.0)
    taken = PointTaken(pump="p1", reading=reading, status=ON_PLAN, t_ms=t_ms, moment=moment(uptime_ms))
    return projections.point(taken)


def numbered(one: Alert, seq: int) -> Message:
    draft = SPEAKER.alert(one, 0, True)
    return Message(topic=draft.topic, payload=SPEAKER.numbered(draft, seq, 0), lane=Lane.ALERTS, seq=seq)


def finding(kind: Kind) -> Finding:
    return Finding(kind=kind, verdict=Verdict.PRESENT, at_ms=5, at_utc_ms=NOW_UTC_MS, message="It began.")


DRAFTS = {
    "alert": SPEAKER.alert(alert(), 0, True),
    "event": SPEAKER.event(EventHappened(pump="p1", finding=finding(Kind.DOSE_STARTED)), 0, True),
    "answer": SPEAKER.answer(Answered(id="i-1", reason=None), 0, NOW_UTC_MS, True),
    "order": SPEAKER.order(
        OrderAnswered(
            pump="p1",
            id="i-1",
            version=1,
            sha256="x",
            reason=OrderReason.INVALID,
            message="No.",
            orders=PumpOrders(),
        ),
        0,
        NOW_UTC_MS,
        True,
    ),
    "telemetry": SPEAKER.telemetry("p1", 0, [point(0, 0)], moment(0), made_t_ms=0),
}


@pytest.mark.parametrize("what", DRAFTS)
def test_a_draft_with_its_number_can_be_read_as_the_page_says(what):
    draft = DRAFTS[what]
    payload = SPEAKER.numbered(draft, 88_213, 0)
    read = wire.decode(payload, wire.FROM_HOME[what])
    assert wire.parse_topic(draft.topic).what == what
    assert (read.store, read.seq, read.boot, read.clock) == ("s-1", 88_213, "b-1", "synced")
    assert read.lane == ("telemetry" if what == "telemetry" else "alerts")
    assert draft.retain == (what in ("alert", "order"))


@given(seq=st.integers(1, 2**53 - 1), what=st.sampled_from(sorted(DRAFTS)))
def test_a_number_changes_nothing_but_the_number(seq, what):
    draft = DRAFTS[what]
    before, after = json.loads(draft.payload), json.loads(SPEAKER.numbered(draft, seq, 0))
    assert list(after.items()) == list({**before, "seq": seq}.items())


def test_only_a_closed_alert_expires_on_the_broker():
    expiries = {state: SPEAKER.alert(alert(state=state), 0, True).expiry_s for state in AlertState}
    assert expiries.pop(AlertState.CLOSED) == CLOSED_EXPIRY_S
    assert set(expiries.values()) == {None}


def test_the_newest_state_of_an_alert_takes_the_place_of_an_older_and_each_event_is_told():
    assert SPEAKER.alert(alert(rev=1), 0, True).key == SPEAKER.alert(alert(rev=2), 9, True).key
    one, other = (
        SPEAKER.event(EventHappened(pump="p1", finding=finding(kind)), 0, True)
        for kind in (Kind.DOSE_STARTED, Kind.DOSE_ENDED)
    )
    assert one.key != other.key


def test_points_are_dated_backwards_by_the_machines_clock_whatever_the_time_of_the_rules_does():
    taken = [point(t_ms=1_000, uptime_ms=50_000), point(t_ms=2_000, uptime_ms=51_000)]
    draft = SPEAKER.telemetry("p1", 0, taken, moment(60_000), made_t_ms=1_000)
    times = [wire.parse_iso_utc(one[0]) for one in json.loads(draft.payload)["points"]]
    assert times == [NOW_UTC_MS - 10_000, NOW_UTC_MS - 9_000]


def test_while_the_clock_is_not_set_points_have_no_time_but_the_machines():
    draft = SPEAKER.telemetry("p1", 0, [point(0, 50_000)], moment(60_000, synced=False), made_t_ms=0)
    (one,) = json.loads(draft.payload)["points"]
    assert one == [None, 50.0, "running", 60.0, 1.0, 1.235, 1.2, None]
    assert json.loads(draft.payload)["clock"] == "unsynced"


def test_a_batch_is_historical_when_its_oldest_point_is_older_than_a_minute_as_it_is_numbered():
    draft = SPEAKER.telemetry("p1", 0, [point(5_000, 5_000)], moment(5_000), made_t_ms=5_000)
    at = {
        age: json.loads(SPEAKER.numbered(draft, 1, 5_000 + age))["historical"] for age in (0, 60_000, 60_001)
    }
    assert HISTORICAL_AFTER_MS == 60_000
    assert at == {0: False, 60_000: False, 60_001: True}


tellings = st.lists(
    st.tuples(st.integers(1, 3), st.sampled_from([AlertState.ACTIVE, AlertState.LATCHED, AlertState.CLOSED])),
    max_size=15,
)


@given(tellings)
def test_what_readers_know_is_the_newest_telling_of_each_alert_that_is_not_closed(steps):
    messages, expected = [], {}
    for rev, (number, state) in enumerate(steps, start=1):
        alert_id = f"a-s-1-{number}"
        messages.append(numbered(alert(rev, state, alert_id), rev))
        expected.pop(alert_id, None)
        if state is not AlertState.CLOSED:
            expected[alert_id] = rev
    assert projections.told({}, messages) == expected


def test_a_void_tells_nobody_anything_of_its_alert():
    void = Message(
        topic=numbered(alert(), 2).topic,
        payload=SPEAKER.void(NOW_UTC_MS, Lane.ALERTS, 2, "refused"),
        lane=Lane.ALERTS,
        seq=2,
    )
    assert projections.is_void(void)
    assert not projections.is_void(numbered(alert(), 1))
    assert projections.told({"a-s-1-1": 1}, [void]) == {"a-s-1-1": 1}


def test_the_beat_says_what_a_board_compares_itself_with():
    message = SPEAKER.beat(
        NOW_UTC_MS,
        True,
        told_alerts={"a-2": 3, "a-1": 1},
        as_of=9,
        lanes={Lane.ALERTS: (8, 10)},
        pumps={"p1": ("up", 3_200), "p2": ("down", None)},
    )
    beat = json.loads(message.payload)
    assert (message.qos, message.retain, message.lane) == (0, False, None)
    assert beat["digest"] == wire.digest([("a-1", 1), ("a-2", 3)])
    assert (beat["open"], beat["as_of"], beat["lanes"]) == (2, 9, {"alerts": {"oldest": 8, "next": 10}})
    assert beat["pumps"] == {"p1": {"link": "up", "age_s": 3.2}, "p2": {"link": "down", "age_s": None}}


def test_a_pump_that_was_never_heard_is_unknown_and_nothing_about_it_is_zero():
    message = SPEAKER.state(
        "p1",
        NOW_UTC_MS,
        True,
        reading=None,
        age_ms=None,
        status=DeliveryStatus(verdict=DeliveryVerdict.UNKNOWN),
        urgency=Urgency.TIMED,
        origin="real",
        driver_status="experimental",
    )
    state = json.loads(message.payload)
    assert (state["state"], state["verdict"], message.retain) == ("unknown", "unknown", True)
    numbers = [
        name
        for name in state
        if name.endswith(("_ml", "_ml_h", "_mmhg", "_percent", "_s")) or name == "alarms"
    ]
    assert {state[name] for name in numbers} == {None}


def test_what_changes_all_the_time_is_not_of_the_essence():
    def essence(status: DeliveryStatus = ON_PLAN, link: str = "up", **reported: object) -> tuple[object, ...]:
        said = {"state": PumpState.RUNNING, "rate_ml_h": 60.0, "volume_ml": 1.0, "alarms": (), **reported}
        return projections.essence(Reading(pump="p1", at_ms=0, **said), status, link)

    same = essence()
    assert essence(volume_ml=2.0, pressure_mmhg=8.0) == same
    others = [
        essence(rate_ml_h=61.0),
        essence(state=PumpState.PAUSED),
        essence(alarms=("air_in_line",)),
        essence(link="silent"),
        essence(DeliveryStatus(verdict=DeliveryVerdict.DEVIATION)),
        projections.essence(None, ON_PLAN, "up"),
    ]
    assert len({same, *others}) == 7
