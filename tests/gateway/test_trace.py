"""The milestones of an alert on its way out, as a program that waits for them sees them."""

from __future__ import annotations

import pytest

from gateway.trace import Milestone, Tracer
from tests.gateway.home import Home

OCCLUDED = "state=alarm rate_ml_h=60 volume_ml=0 alarms=occlusion_downstream"


@pytest.fixture
def traced(tmp_path):
    """A connected home, and the milestones of its alerts."""
    reached: list[Milestone] = []
    tracer = Tracer()
    home = Home(tmp_path, observe=lambda happened, effects: reached.extend(tracer.observe(happened, effects)))
    home.connect()
    home.plug_in()
    return home, reached


def steps(reached: list[Milestone], kind: str) -> list[tuple[str, int, int | None]]:
    return [(one.step, one.rev, one.seq) for one in reached if one.kind == kind]


def test_an_alert_is_detected_committed_confirmed_received_and_acknowledged_in_this_order(traced):
    home, reached = traced
    home.hear(OCCLUDED)
    (send,) = [one for one in home.sends if one.message.seq == 2]
    home.confirm(send)
    home.receipt(2)
    alert = home.alert("occlusion")
    home.tell("ack", id="i-1", alert_id=alert["alert_id"], rev=1, role="nurse")
    assert steps(reached, "occlusion") == [
        ("detected", 1, None),
        ("outbox", 1, 2),
        ("broker_confirmed", 1, 2),
        ("receipt", 1, 2),
        ("acknowledged", 2, None),
        ("outbox", 2, 3),
    ]
    assert {one.alert_id for one in reached if one.kind == "occlusion"} == {alert["alert_id"]}


def test_what_is_not_on_the_card_is_not_said_to_be(traced):
    home, reached = traced
    home.card_is_slow = True
    home.hear(OCCLUDED)
    assert steps(reached, "occlusion") == [("detected", 1, None)]


@pytest.mark.parametrize(
    "fields", [{"store": "s-another"}, {"alerts": "many"}, {"alerts": 0}], ids=["store", "rubbish", "none"]
)
def test_a_receipt_that_says_nothing_of_an_alert_is_no_milestone(traced, fields):
    home, reached = traced
    home.hear(OCCLUDED)
    home.receipt(**{"alerts": 2, **fields})
    assert "receipt" not in {one.step for one in reached}


def test_answers_and_events_are_no_milestones(traced):
    home, reached = traced
    before = len(reached)
    home.tell("resync", id="i-1")
    home.tell("absence", pump="p1", id="i-2", what="away", for_s=60)
    assert {one.kind for one in reached[before:]} <= {"no_prescription"}


@pytest.mark.parametrize("code", [0x10, 0x87, 0x97])
def test_what_the_broker_has_not_taken_or_nobody_reads_is_not_said_to_be_confirmed(traced, code):
    home, reached = traced
    home.hear(OCCLUDED)
    home.confirm(next(one for one in home.sends if one.message.seq == 2), code)
    assert "broker_confirmed" not in {one.step for one in reached}
