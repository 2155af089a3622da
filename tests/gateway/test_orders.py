"""Orders over MQTT: what is accepted, what holds, and what a home tells of it (MQTT page, ``order``)."""

from __future__ import annotations

import json
import random
from hashlib import sha256
from itertools import count, pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alerts import wire
from drivers import families
from drivers.family import PumpOnLine
from gateway import orders, projections
from gateway.changes import OrderAnswered
from gateway.core.order import parse_order
from gateway.core.timeline import Instant
from gateway.engine import Engine, KeptUnreadable
from gateway.inputs import Tick
from gateway.orders import KnownOrder, OrderReason, Outcome, PumpOrders, judge
from gateway.store import Store
from simulator.scenario import prescription_starting
from tests.drivers.bedside import Bedside, token_of
from tests.gateway.home import HOME, ORDER, Home
from tests.simulator.scenarios import H, constant, scenario

FASTER = ORDER.replace("rate_ml_h = 60.0", "rate_ml_h = 70.0")
VITAL = ORDER + '\n[response]\nurgency = "vital"\n'
DEMAND = ORDER + '\n[demand]\nbolus_ml = 0.5\nlockout = "10min"\n'
REGIMENS = Path(__file__).parents[2] / "simulator" / "regimens"
SECRET = "Mustermann"


def hash_of(text: str) -> str:
    return sha256(text.encode()).hexdigest()


def order(version: int, text: str = ORDER, **fields: Any) -> wire.Order:
    given = {"id": f"i-{version}", "by": "nurse-07", "sha256": hash_of(text), **fields}
    return wire.Order(time=wire.UtcTime(0), version=version, prescription=text, **given)


def known(version: int, text: str = ORDER) -> KnownOrder:
    return KnownOrder(version=version, sha256=hash_of(text), text=text)


# -- the table ---------------------------------------------------------------------------------------

FILE = PumpOrders(in_force=known(0))
THIRD = PumpOrders(in_force=known(3))
FIFTH_WAITS = PumpOrders(in_force=known(3), waiting=known(5, FASTER))
LONG = ORDER + "#" + "ä" * (8 * 1024)


@pytest.mark.parametrize(
    ("what", "have", "comes", "becomes"),
    [
        ("the first", PumpOrders(), order(1), None),
        ("the first after a file", FILE, order(1, FASTER), None),
        ("the file's own text with a version", FILE, order(1), None),
        ("the file itself", FILE, order(0), Outcome.IGNORED),
        ("another text as the file's version", FILE, order(0, FASTER), OrderReason.VERSION_CONFLICT),
        ("version 0, which is a file's", PumpOrders(), order(0), OrderReason.VERSION_TOO_LOW),
        ("the next", THIRD, order(4, FASTER), None),
        ("one far ahead", THIRD, order(2**53 - 1, FASTER), None),
        ("the same again", THIRD, order(3), Outcome.IGNORED),
        ("the same again under another id", THIRD, order(3, id="i-x"), Outcome.IGNORED),
        ("the same version, another text", THIRD, order(3, FASTER), OrderReason.VERSION_CONFLICT),
        ("an older one", THIRD, order(2, FASTER), OrderReason.VERSION_TOO_LOW),
        ("the one that waits again", FIFTH_WAITS, order(5, FASTER), Outcome.IGNORED),
        ("the one in force again while another waits", FIFTH_WAITS, order(3), Outcome.IGNORED),
        ("the waiting version with another text", FIFTH_WAITS, order(5), OrderReason.VERSION_CONFLICT),
        ("between the one in force and the one that waits", FIFTH_WAITS, order(4), "version_too_low"),
        ("above the one that waits", FIFTH_WAITS, order(6), None),
        ("a damaged one", THIRD, order(4, FASTER, sha256=hash_of(ORDER)), OrderReason.HASH_MISMATCH),
        ("a hash in capitals", THIRD, order(4, sha256=hash_of(ORDER).upper()), OrderReason.HASH_MISMATCH),
        ("the hash of one in force with another text", THIRD, order(3, FASTER, sha256=hash_of(ORDER)),
         OrderReason.HASH_MISMATCH),
        ("above 16 KiB in UTF-8, though not in characters", THIRD, order(4, LONG), OrderReason.TOO_LARGE),
        ("one that is none", THIRD, order(4, "x"), OrderReason.INVALID),
        ("an empty one", THIRD, order(4, ""), OrderReason.INVALID),
    ],
    ids=lambda value: value.replace(" ", "-") if isinstance(value, str) else "",
)  # fmt: skip
def test_what_becomes_of_an_order(what, have, comes, becomes):
    found = judge(comes, have)
    expected = {None: (Outcome.ACCEPTED, None), Outcome.IGNORED: (Outcome.IGNORED, None)}
    assert (found.outcome, found.reason) == expected.get(becomes, (Outcome.REFUSED, becomes))
    assert bool(found.message) is (found.outcome is Outcome.REFUSED)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (ORDER.replace("[limits]", '[limits]\nmax_puase = "1h"'), "limits.max_puase is not known; did you"),
        (ORDER.replace("rate_ml_h = 60.0", "rate_ml_h = -60.0"), "schedule.phase[1].rate_ml_h must not be"),
        (ORDER.replace('therapy = "continuous"', "times = 0.5"), "schedule.times must be a whole number"),
        (ORDER + "\n=", "line 23 is not TOML."),
        (ORDER + f'\n[response]\nurgency = "{SECRET}"', "response.urgency has a value that is not possible"),
        (ORDER.replace("12h", f"of {SECRET}"), "schedule.phase[1].duration has a value that is not possible"),
        (ORDER.replace("[limits]", f'[limits]\n"{SECRET}" = 1'), "a key of it is not known; known here are"),
        (ORDER.replace('"P-1"', f'["{SECRET}"]'), "patient.id must be text in quotes; found a list of 1"),
        (ORDER.replace('"P-1"', f'"{SECRET}{"x" * 90}"'), "patient.id has 100 characters"),
    ],
)  # fmt: skip
def test_a_refusal_names_the_key_and_repeats_no_text_of_the_order(text, says):
    message = judge(order(1, text), PumpOrders()).message
    assert message.startswith(says)
    assert SECRET not in message
    assert "?." not in message


@given(text=st.text(max_size=300), where=st.integers(0, len(ORDER)))
def test_whatever_the_text_is_it_is_judged_in_bounded_words(text, where):
    found = judge(order(1, ORDER[:where] + text + ORDER[where:]), PumpOrders())
    assert found.outcome is not Outcome.IGNORED
    assert len(found.message) <= 600


@given(data=st.data())
def test_whatever_comes_the_highest_accepted_version_holds_and_a_refusal_changes_nothing(data):
    have = data.draw(st.sampled_from([PumpOrders(), FILE]))
    accepted: dict[int, str] = {0: ORDER} if have.in_force else {}
    for _ in range(data.draw(st.integers(0, 8))):
        text = data.draw(st.sampled_from([ORDER, FASTER, VITAL, "x"]))
        claimed = data.draw(st.sampled_from([text, text, text, FASTER]))
        comes = order(data.draw(st.integers(0, 4)), text, sha256=hash_of(claimed))
        found = judge(comes, have)
        if found.outcome is Outcome.ACCEPTED:
            assert comes.version > max(accepted, default=0)
            accepted[comes.version] = text
            new = orders.accepted(comes, Instant(t_ms=0, utc_ms=0, schedule_utc_ms=None), synced=True)
            waits = have.in_force is not None and data.draw(st.booleans())
            have = PumpOrders(in_force=have.in_force, waiting=new)
            have = have if waits else have.with_force_taken()
        held = [one for one in (have.in_force, have.waiting) if one is not None]
        assert [one.version for one in held] == sorted({one.version for one in held})
        assert max((one.version for one in held), default=0) == max(accepted, default=0)
        assert all(accepted[one.version] == one.text for one in held)


@pytest.mark.parametrize(
    ("what", "kept", "file", "holds"),
    [
        ("nothing", PumpOrders(), None, (None, None)),
        ("a first file", PumpOrders(), known(0), (0, None)),
        ("another file", FILE, known(0, FASTER), (0, None)),
        ("the file is taken away", FILE, None, (None, None)),
        ("an accepted one over a new file", THIRD, known(0, FASTER), (3, None)),
        ("an accepted one without a file", THIRD, None, (3, None)),
        ("what waits goes on waiting", FIFTH_WAITS, known(0), (3, 5)),
        ("what waits behind a file that is gone", PumpOrders(in_force=known(0), waiting=known(1)), None,
         (None, 1)),
    ],
)  # fmt: skip
def test_at_the_start_an_accepted_order_wins_over_the_file(what, kept, file, holds):
    found = orders.at_start(kept, file)
    versions = (found.in_force and found.in_force.version, found.waiting and found.waiting.version)
    assert versions == holds
    if found.in_force and found.in_force.is_file:
        assert found.in_force == file


@pytest.mark.parametrize(
    ("wall", "schedule", "synced", "by", "found"),
    [
        (1_000, 1_000, True, 9_000, 9_000),
        (61_000, 1_000, True, 69_000, 9_000),
        (61_000, 1_000, False, 9_000, 9_000),
        (61_000, None, True, 9_000, 9_000),
        (61_000, 1_000, True, 60_000, 0),
    ],
)
def test_a_deadline_is_a_time_after_its_arrival_while_the_clock_can_be_trusted(
    wall, schedule, synced, by, found
):
    instant = Instant(t_ms=5, utc_ms=wall, schedule_utc_ms=schedule)
    assert orders.by_the_schedules_clock(by, instant, synced=synced) == found


def test_two_orders_as_long_as_can_be_fit_into_one_answer():
    head = ORDER + "#"
    text = head + '"' * (16 * 1024 - len(head))
    assert judge(order(4, text), THIRD).outcome is Outcome.ACCEPTED
    have = PumpOrders(in_force=known(3, text), waiting=known(4, text + ""))
    answered = OrderAnswered(
        pump="p1", id="i" * 128, version=4, sha256="f" * 64, reason=None, message="x" * 600, orders=have,
        ended=tuple(f"a-s-{number:08}-12345678" for number in range(60)),
    )  # fmt: skip
    speaker = projections.Speaker(home=HOME, store="s-1", boot="b-1")
    draft = speaker.order(answered, 0, 0, True)
    payload = speaker.numbered(draft, 2**53 - 1, 0)
    assert len(payload) <= wire.MAX_READ_BYTES
    answer = wire.decode(payload, wire.OrderAnswer)
    assert answer.in_force == wire.OrderInForce(version=3, sha256=hash_of(text), prescription="")
    assert answer.waiting.prescription == text


# -- a home ------------------------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path):
    home = Home(tmp_path, order=ORDER)
    home.connect()
    home.plug_in()
    home.hear("state=running rate_ml_h=60 volume_ml=0")
    home.receipt(home.engine.alerts_next_seq - 1)
    home.forget()
    return home


def payload_of(version: int, text: str = FASTER, **fields: Any) -> bytes:
    given = {
        "schema": "dripwatch.order/1",
        "time": "2026-11-23T12:00:00.000Z",
        "by": "pharmacy-1",
        "id": f"i-{version}",
        "version": version,
        "prescription": text,
        "sha256": hash_of(text),
        "effective": "now",
        **fields,
    }
    return json.dumps(given).encode()


def give(home: Home, version: int, text: str = FASTER, *, retain: bool = False, **fields: Any) -> None:
    home.arrive(wire.down(HOME, "order", pump="p1"), payload_of(version, text, **fields), retain=retain)


def answers(home: Home) -> list[tuple[Any, ...]]:
    """(id, version, accepted, reason, version in force, version that waits)"""
    return [
        (
            one["id"],
            one["version"],
            one["accepted"],
            one["reason"],
            one["in_force"] and one["in_force"]["version"],
            one["waiting"] and one["waiting"]["version"],
        )
        for one in home.said("order")
    ]


def in_force(home: Home) -> str | None:
    held = home.engine._pumps["p1"].orders.in_force
    return held and held.text


def start_again(home: Home, how: str = "stop") -> None:
    getattr(home, how)()
    home.start()
    home.connect()
    home.plug_in()


def refusals(home: Home) -> list[tuple[int, str, str]]:
    """Each telling once, however often it was sent."""
    return sorted(set(home.told("order_refused")))


def test_a_file_takes_force_at_the_start_as_version_0_and_is_told_once(tmp_path):
    home = Home(tmp_path, order=ORDER)
    home.connect()
    (told,) = home.said("order")
    assert answers(home) == [(None, 0, True, None, 0, None)]
    assert told["in_force"]["prescription"] == ORDER
    assert told["sha256"] == hash_of(ORDER)
    start_again(home)
    assert len({message.seq for message in home.messages("order")}) == 1
    home.order = FASTER
    start_again(home)
    assert answers(home)[-1] == (None, 0, True, None, 0, None)
    assert home.said("order")[-1]["in_force"]["prescription"] == FASTER
    home.order = None
    start_again(home)
    assert answers(home)[-1] == (None, 0, False, "invalid", None, None)


def test_an_order_takes_force_at_once_and_is_answered_where_the_broker_keeps_it(home):
    give(home, 1)
    assert answers(home) == [("i-1", 1, True, None, 1, None)]
    assert home.said("order")[0]["in_force"] == {
        "version": 1, "sha256": hash_of(FASTER), "prescription": FASTER,
    }  # fmt: skip
    assert all(message.retain for message in home.messages("order"))
    (event,) = [event for event in home.said("event") if event["kind"] == "order_changed"]
    assert "70.0 mL/h" in event["message"]
    for _ in range(3):
        home.wait(1)
        home.hear("state=running rate_ml_h=60 volume_ml=0.1")
    assert home.told("wrong_rate")[0][1:] == ("active", "first")


def test_an_order_for_a_pump_without_one_begins_the_watch(tmp_path):
    home = Home(tmp_path)
    home.connect()
    home.plug_in()
    home.hear("state=running rate_ml_h=60 volume_ml=0")
    assert home.told("no_prescription") == [(1, "active", "first")]
    give(home, 1, ORDER, effective="on_programming")
    assert answers(home) == [("i-1", 1, True, None, 1, None)]
    assert home.told("no_prescription")[-1] == (2, "closed", "resolved")
    home.wait(1)
    home.hear("state=running rate_ml_h=60 volume_ml=0.01")
    assert home.said("state")[-1]["verdict"] != "unknown"
    start_again(home, "cut_power")
    assert in_force(home) == ORDER
    assert home.told("no_prescription")[-1] == (2, "closed", "resolved")


@pytest.mark.parametrize("retain", [False, True])
def test_a_refused_order_leaves_the_old_one_in_force_and_a_nurse_is_told_once(home, retain):
    for _ in range(3):
        give(home, 1, "x", retain=retain)
        start_again(home)
    assert home.told("order_refused")[0] == (1, "active", "first")
    assert {reason for _, _, reason in refusals(home)} == {"first"}
    assert set(answers(home)) == {("i-1", 1, False, "invalid", 0, None)}
    # What is sent again is answered again; what the broker hands out again it has the answer to.
    assert len(home.said("order")) == (1 if retain else 3)
    assert in_force(home) == ORDER
    alert = home.alert("order_refused")
    assert "is not TOML" in alert["message"]
    assert "The order before it holds." in alert["message"]


def test_a_retained_refusal_is_not_told_again_though_more_requests_than_are_remembered_came_since(
    home, monkeypatch
):
    monkeypatch.setattr("gateway.engine.IDS_KEPT", 10)
    give(home, 1, "x", retain=True)
    home.receipt(home.engine.alerts_next_seq - 1)
    for number in range(20):
        home.tell("resync", id=f"r-{number}")
        home.receipt(home.engine.alerts_next_seq - 1)
    start_again(home)
    give(home, 1, "x", retain=True)
    assert {reason for _, _, reason in refusals(home)} == {"first"}


def test_another_refused_order_is_told_again(home):
    give(home, 1, "x")
    give(home, 1, "y")
    assert [reason for _, _, reason in home.told("order_refused")] == ["first", "again"]


def test_an_id_that_is_used_again_for_another_order_hides_nothing(home):
    give(home, 1, id="the-same")
    give(home, 2, VITAL, id="the-same")
    give(home, 2, ORDER, id="the-same")
    assert [answer[1:4] for answer in answers(home)] == [
        (1, True, None),
        (2, True, None),
        (2, False, "version_conflict"),
    ]
    assert in_force(home) == VITAL


def test_the_same_version_and_hash_again_is_ignored(home):
    give(home, 1)
    home.forget()
    give(home, 1, id="i-other")
    give(home, 1, retain=True)
    home.wait(5)
    assert home.said("order") == home.said("alert") == home.said("event") == []


@pytest.mark.parametrize(
    ("payload", "says"),
    [
        (b"no JSON", None),
        (payload_of(7, effective="tomorrow"), (7, "invalid")),
        (payload_of(7, time=SECRET), (7, "invalid")),
        (payload_of(7, by=None), (7, "invalid")),
        (payload_of(-1), None),
        (payload_of(7, "#" * 70_000), (7, "too_large")),
        (payload_of(7, "#" * 20_000), (7, "too_large")),
    ],
)
def test_what_comes_in_the_place_of_an_order_is_refused_and_answered_if_it_can_be(home, payload, says):
    for _ in range(2):
        home.arrive(wire.down(HOME, "order", pump="p1"), payload, retain=True)
    assert [(answer[1], answer[3]) for answer in answers(home)] == ([] if says is None else [says])
    assert home.told("order_refused") == [(1, "active", "first")]
    assert SECRET not in home.alert("order_refused")["message"] + "".join(home.notes)
    assert in_force(home) == ORDER


def test_a_cleared_topic_and_an_order_for_another_pump_are_ignored_and_counted(home):
    ignored = home.engine.ignored
    home.arrive(wire.down(HOME, "order", pump="p1"), b"")
    home.arrive(wire.down(HOME, "order", pump="p9"), payload_of(1))
    home.arrive(wire.down(HOME, "order", pump="gateway"), payload_of(1))
    assert home.engine.ignored == ignored + 3
    assert home.said("order") == home.said("alert") == []


@pytest.mark.parametrize("how", ["stop", "cut_power"])
def test_an_accepted_order_wins_over_the_file_over_every_start(home, how):
    give(home, 1)
    for file in (ORDER, VITAL, None, ORDER):
        home.order = file
        home.forget()
        start_again(home, how)
        assert in_force(home) == FASTER
        assert home.engine._pumps["p1"].prescription.schedule.phases[0].from_ml_h == 70.0
        assert home.told("no_prescription") == []
    give(home, 2, VITAL)
    start_again(home, how)
    assert in_force(home) == VITAL


def test_the_text_of_an_order_is_in_no_log(home):
    give(home, 1, FASTER.replace("P-1", "P-4711"))
    give(home, 2, FASTER.replace("P-1", "P-4711").replace("60", "x"))
    give(home, 2, FASTER.replace("P-1", "P-4711"), sha256="0" * 64)
    start_again(home)
    words = "".join((*home.notes, *home.shown))
    assert "P-4711" not in words
    assert "sodium" not in words


# -- what hangs on the order -------------------------------------------------------------------------


def test_the_urgency_of_the_new_order_holds_for_what_is_told_from_then_on(home):
    give(home, 1, VITAL)
    home.put(Tick)
    assert home.said("state")[-1]["urgency"] == "vital"
    home.unplug()
    home.wait(90)
    alert = home.alert("no_data")
    assert (alert["urgency"], alert["priority"], alert["respond_within_s"]) == ("vital", "high", 180)
    home.card_refuses = True
    home.wait(40)
    home.card_works()
    assert home.alert("storage_failing")["priority"] == "high"


def test_an_order_with_demand_has_the_pump_read_at_least_each_2_s(tmp_path, monkeypatch):
    monkeypatch.setattr("tests.gateway.home.POLL_MS", 5_000)
    home = Home(tmp_path, order=ORDER)
    home.connect()
    home.plug_in()
    pump = home.engine._pumps["p1"]
    assert pump.poll_ms == 5_000
    session = home.engine._sessions["port-p1"]
    give(home, 1, DEMAND)
    assert (pump.poll_ms, pump.monitor._watch.case.poll_ms) == (2_000, 2_000)
    assert home.engine._sessions["port-p1"] is not session
    home.hear("state=running rate_ml_h=60 volume_ml=0")
    assert home.said("state")[-1]["state"] == "running"
    give(home, 2, ORDER)
    assert pump.poll_ms == 5_000
    give(home, 3, DEMAND)
    start_again(home)
    assert home.engine._on_line["port-p1"][0].poll_ms == 2_000


@pytest.mark.parametrize("name", [name for name in families.known() if name != "dummy"])
@pytest.mark.parametrize("after_ms", range(20_000, 20_500, 70))
def test_a_dialogue_that_begins_anew_for_another_poll_in_the_middle_of_an_answer_reads_on(name, after_ms):
    at = Bedside(families.find(name), scenario(constant(60.0, H)))
    at.run(after_ms)
    (pump,) = at.device.pumps
    line = PumpOnLine(pump=token_of(pump), address=pump, poll_ms=2_000)
    at.session = families.find(name).open_session([line])
    at.session.opened(at.now_ms)
    at.run(after_ms + 60_000)
    read_ms = [reading.at_ms for reading in at.readings if reading.at_ms > after_ms]
    assert read_ms[0] <= after_ms + 5_000
    assert max(later - one for one, later in pairwise(read_ms)) <= 2_500


def stand_still(home: Home, *, minutes: int) -> None:
    for _ in range(minutes * 2):
        home.hear("state=paused rate_ml_h=60 volume_ml=0")
        home.wait(30)


def test_what_the_new_limits_no_longer_hold_becomes_latched_and_is_named_in_the_answer(home):
    stand_still(home, minutes=16)
    before = home.alert("paused_too_long")
    give(home, 1, ORDER.replace("[limits]", '[limits]\nmax_pause = "45min"'))
    assert home.told("paused_too_long")[-1][1:] == ("latched", "withdrawn")
    assert home.said("order")[-1]["ended"] == [before["alert_id"]]
    stand_still(home, minutes=30)
    assert home.told("paused_too_long")[-1][1:] == ("active", "again")


# -- on programming ----------------------------------------------------------------------------------


def deliver(home: Home, rate_ml_h: float, seconds: int, volume_ml: float = 0.0) -> float:
    for _ in range(seconds):
        home.wait(1)
        volume_ml += rate_ml_h / 3_600
        home.hear(f"state=running rate_ml_h={rate_ml_h} volume_ml={volume_ml:.3f}")
    return volume_ml


@pytest.mark.parametrize("how", [None, "stop", "cut_power"])
def test_an_order_on_programming_waits_until_the_pump_is_set_to_it(home, how):
    give(home, 1, effective="on_programming")
    assert answers(home) == [("i-1", 1, True, None, 0, 1)]
    assert home.said("order")[-1]["waiting"]["prescription"] == FASTER
    volume_ml = deliver(home, 60.0, 30)
    if how:
        start_again(home, how)
    volume_ml = deliver(home, 60.0, 30, volume_ml)
    assert in_force(home) == ORDER
    assert home.told("wrong_rate") == []
    deliver(home, 70.0, 1, volume_ml)
    assert answers(home)[-1] == ("i-1", 1, True, None, 1, None)
    deliver(home, 70.0, 30, volume_ml + 70 / 3_600)
    assert home.told("wrong_rate") == []
    if how:
        start_again(home, how)
    assert in_force(home) == FASTER


@pytest.mark.parametrize(
    ("what", "old", "new"),
    [("the rates agree", ORDER, ORDER.replace('"12h"', '"14h"')), ("none is in force", None, ORDER)],
)
def test_an_order_on_programming_takes_force_at_once_where(tmp_path, what, old, new):
    home = Home(tmp_path, order=old)
    home.connect()
    give(home, 1, new, effective="on_programming")
    assert answers(home)[-1] == ("i-1", 1, True, None, 1, None)


@pytest.mark.parametrize("step_s", [0, -3_600, 3_600])
def test_an_order_that_is_not_programmed_in_time_is_told_and_the_old_one_holds(home, step_s):
    give(home, 1, effective="on_programming", effective_by="2026-11-23T12:10:00.000Z")
    home.clock_error_ms = step_s * 1_000
    volume_ml = deliver(home, 60.0, 590)
    assert home.told("order_not_programmed") == []
    volume_ml = deliver(home, 60.0, 15, volume_ml)
    assert home.told("order_not_programmed") == [(1, "active", "first")]
    assert in_force(home) == ORDER
    assert home.told("wrong_rate") == []
    deliver(home, 70.0, 2, volume_ml)
    assert home.told("order_not_programmed")[-1] == (2, "closed", "resolved")
    assert in_force(home) == FASTER


def test_a_newer_order_takes_the_place_of_the_one_that_waits(home):
    give(home, 1, effective="on_programming")
    give(home, 2, VITAL.replace("60.0", "80.0"), effective="on_programming")
    give(home, 1, effective="on_programming", id="i-again")
    assert answers(home) == [
        ("i-1", 1, True, None, 0, 1),
        ("i-2", 2, True, None, 0, 2),
        ("i-again", 1, False, "version_too_low", 0, 2),
    ]
    deliver(home, 70.0, 2)
    assert in_force(home) == ORDER
    deliver(home, 80.0, 2)
    assert answers(home)[-1] == ("i-2", 2, True, None, 2, None)


@pytest.mark.parametrize("file", [VITAL, None])
def test_what_waits_outlasts_a_change_of_the_file(home, file):
    give(home, 1, effective="on_programming", effective_by="2026-11-23T13:00:00.000Z")
    home.order = file
    start_again(home)
    assert answers(home)[-1] == ((None, 0, True, None, 0, 1) if file else ("i-1", 1, True, None, 1, None))
    assert in_force(home) == (file or FASTER)
    deliver(home, 70.0, 2)
    assert in_force(home) == FASTER


# -- the way out and the card ------------------------------------------------------------------------


@pytest.mark.parametrize("flood", [3, 100])
def test_the_newest_answer_is_the_last_and_no_flood_fills_the_card(home, flood):
    home.lose_broker()
    for number in range(30):
        home.tell("resync", id=f"r-{number}")
    give(home, 1, effective="on_programming")
    for number in range(flood):
        give(home, 2, f"x{number}", id=f"i-x{number}")
    deliver(home, 70.0, 2)
    home.connect()
    for _ in range(10):
        home.receipt(home.engine.alerts_next_seq - 1)
    told = [answer for answer in answers(home) if answer[0] is not None]
    assert told[-1] == ("i-1", 1, True, None, 1, None)
    assert len(told) <= orders.ANSWERS_WAITING_MAX


def test_a_slow_card_delays_the_answer_and_a_cut_then_leaves_the_order_to_come_again(home):
    home.card_is_slow = True
    give(home, 1)
    assert answers(home) == []
    home.cut_power()
    home.card_is_slow, home.refused = False, []
    home.start()
    home.connect()
    assert in_force(home) == ORDER
    assert {answer[0] for answer in answers(home)} <= {None}
    give(home, 1, retain=True)
    assert answers(home)[-1] == ("i-1", 1, True, None, 1, None)


def test_what_cannot_be_understood_of_the_kept_orders_is_not_as_if_there_were_none(home):
    give(home, 1)
    home.stop()
    restored = Store(home.card).restore()
    with pytest.raises(KeptUnreadable):
        Engine(
            home.engine.setup,
            store=restored.store,
            alerts=restored.alerts,
            lanes=restored.lanes,
            kept={**restored.kept, "order/p1": b"\x93"},
        )


def test_any_therapy_after_any_other_is_taken_whatever_the_pump_does_meanwhile(home):
    chance = random.Random(5)
    files = sorted(REGIMENS.glob("prescription-*.toml"))
    chance.shuffle(files)
    volume_ml = 0.0
    for version, file in enumerate(files, start=1):
        text = prescription_starting(file.read_text(encoding="utf-8"), "2026-11-23T12:00:00+00:00")
        give(home, version, text, effective=chance.choice(["now", "on_programming"]))
        rate_ml_h = chance.choice([parse_order(text).schedule.phases[0].from_ml_h, 60.0, 0.0])
        for _ in range(5):
            volume_ml += rate_ml_h / 3_600
            state = chance.choice(["running", "running", "paused", "bolus", "kvo", "idle"])
            home.wait(1)
            home.hear(f"state={state} rate_ml_h={rate_ml_h:.2f} volume_ml={volume_ml:.3f} alarms=")
        if chance.random() < 0.2:
            start_again(home, chance.choice(["stop", "cut_power"]))
        home.receipt(home.engine.alerts_next_seq - 1)
        held = home.engine._pumps["p1"].orders
        assert max(one.version for one in (held.in_force, held.waiting) if one) == version
        told = home.said("order")[-1]
        assert told["in_force"]["sha256"] == held.in_force.sha256
    assert len(files) == 48


arrivals = st.lists(
    st.tuples(
        st.integers(0, 4),
        st.sampled_from([ORDER, FASTER, VITAL, DEMAND, "x"]),
        st.sampled_from(["now", "on_programming"]),
        st.booleans(),
        st.sampled_from(["", "", "stop", "cut_power", "programmed"]),
    ),
    max_size=6,
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(arrivals=arrivals)
def test_in_any_sequence_what_is_told_last_is_what_holds_and_versions_only_rise(tmp_path_factory, arrivals):
    home = Home(tmp_path_factory.mktemp("home"), order=ORDER)
    home.connect()
    home.plug_in()
    ids = count()
    highest, in_force_before = 0, 0
    for version, text, effective, retain, then in arrivals:
        held = home.engine._pumps["p1"].orders
        judged = judge(order(version, text), held)
        give(home, version, text, effective=effective, retain=retain, id=f"i-{next(ids)}")
        if judged.outcome is Outcome.ACCEPTED:
            highest = version
        else:
            now = home.engine._pumps["p1"].orders
            assert (now.in_force, now.waiting) == (held.in_force, held.waiting)
        if then == "programmed":
            deliver(home, 70.0, 2)
        elif then:
            start_again(home, then)
        home.receipt(home.engine.alerts_next_seq - 1)
        now = home.engine._pumps["p1"].orders
        assert max(one.version for one in (now.in_force, now.waiting) if one) == highest
        assert now.in_force.version >= in_force_before
        in_force_before = now.in_force.version
        told = home.said("order")[-1]
        assert told["in_force"]["sha256"] == now.in_force.sha256
        assert (told["waiting"] and told["waiting"]["sha256"]) == (now.waiting and now.waiting.sha256)
        in_judgement = home.engine._pumps["p1"].prescription
        assert in_judgement.urgency == ("vital" if now.in_force.text == VITAL else "timed")
