"""Orders at a simulated pump that somebody programs to 12.5 mL/h, instead of 125, after eight seconds."""

from __future__ import annotations

import json
from hashlib import sha256

import pytest

from alerts import wire
from alerts.mqtt import BrokerMessage
from tests.world.world import BEGINNING_UTC_MS, HOME, World

PROGRAMMED_S = 8


def slower(world: World) -> str:
    """The order as the pump will be programmed."""
    assert "rate_ml_h = 125.0" in world.order
    return world.order.replace("rate_ml_h = 125.0", "rate_ml_h = 12.5")


def order(world: World, text: str, *, retained: bool = False, version: int = 1, **fields: str) -> None:
    """The pharmacy's order comes through the broker, or is handed out by it once more."""
    payload = {
        "schema": "dripwatch.order/1",
        "time": wire.iso_utc(BEGINNING_UTC_MS + world.now_ms),
        "id": f"order-{version}",
        "by": "pharmacy-1",
        "version": version,
        "prescription": text,
        "sha256": sha256(text.encode()).hexdigest(),
        **fields,
    }
    topic = wire.down(HOME, "order", pump="p1")
    message = BrokerMessage(topic=topic, payload=json.dumps(payload).encode(), retain=retained, qos=1)
    world.home.deliver(message)


def answers(world: World) -> list[wire.OrderAnswer]:
    """What the home has told, each number once."""
    told = {
        message.payload: wire.decode(message.payload, wire.OrderAnswer)
        for message in world.broker.delivered
        if message.topic.endswith("/p1/order")
    }
    return list(told.values())


def kinds(world: World) -> set[str]:
    return {alert.kind for alert in world.board.alerts}


def in_force(world: World) -> str:
    held = world.home.engine._pumps["p1"].orders.in_force
    assert world.home.engine._pumps["p1"].monitor.memory.orders.in_force == held.text
    return held.text


def begun(folder) -> World:
    world = World(folder, "wrong_rate")
    world.home.power_on()
    world.run_for(4)
    return world


def test_the_file_that_the_gateway_was_given_is_told_as_version_0(tmp_path):
    world = begun(tmp_path)
    (answer,) = answers(world)
    assert (answer.id, answer.version, answer.accepted) == (None, 0, True)
    assert answer.in_force.prescription == world.order


def test_an_order_on_programming_takes_force_when_the_pump_is_set_to_it_and_nobody_is_called(tmp_path):
    world = begun(tmp_path)
    new = slower(world)
    order(world, new, effective="on_programming")
    world.run_for(2)
    assert answers(world)[-1].waiting.prescription == new
    assert in_force(world) == world.order
    world.run_until(lambda: in_force(world) == new, within_s=PROGRAMMED_S)
    world.run_for(60)
    assert kinds(world) == set()
    assert (answers(world)[-1].in_force.version, answers(world)[-1].waiting) == (1, None)


def test_without_that_order_the_same_programming_is_a_wrong_rate(tmp_path):
    world = begun(tmp_path)
    world.run_for(30)
    assert kinds(world) == {"wrong_rate"}


def test_an_order_of_now_makes_the_rate_wrong_until_the_pump_is_set_to_it(tmp_path):
    world = begun(tmp_path)
    order(world, slower(world), effective="now")
    world.run_for(3)
    assert [(alert.kind, alert.state) for alert in world.board.alerts] == [("wrong_rate", "active")]
    world.run_for(10)
    assert [(alert.kind, alert.state) for alert in world.board.alerts] == [("wrong_rate", "closed")]


def boundaries(folder, effective: str, takes_s: float) -> tuple[int, int]:
    """Before the order comes, and when it is long in force and told."""
    world = begun(folder)
    before = world.effect_boundaries
    order(world, slower(world), effective=effective)
    world.run_for(takes_s)
    assert answers(world)[-1].in_force.version == 1
    return before, world.effect_boundaries


@pytest.mark.parametrize(
    ("effective", "takes_s"), [("now", 1), pytest.param("on_programming", 8, marks=pytest.mark.long)]
)
def test_power_cut_at_every_effect_boundary_of_an_order_leaves_it_wholly_accepted_and_told_or_not_at_all(
    tmp_path_factory, effective, takes_s
):
    before, after = boundaries(tmp_path_factory.mktemp("count"), effective, takes_s)
    was_lost = was_kept = 0
    for boundary in range(before + 1, after + 1):
        world = World(tmp_path_factory.mktemp("cut"), "wrong_rate")
        world.home.power_on()
        world.run_for(4)
        world.cut_power_at_boundary = boundary
        new = slower(world)
        order(world, new, effective=effective)
        world.run_until(lambda world=world: not world.home.on, within_s=30)
        world.home.power_on()
        held = world.home.engine._pumps["p1"].orders
        known = held.in_force.version == 1 or held.waiting is not None
        was_kept += known
        was_lost += not known
        world.run_for(2)
        if known:
            assert any(answer.id == "order-1" for answer in answers(world)), "accepted, and not told"
        # The broker has kept it, and hands it out when the gateway is back.
        order(world, new, effective=effective, retained=True)
        world.run_for(takes_s + 5)
        assert in_force(world) == new, f"boundary {boundary}"
        last = answers(world)[-1]
        assert (last.id, last.accepted, last.in_force.version, last.waiting) == ("order-1", True, 1, None)
        assert "order_refused" not in kinds(world)
        assert world.board.notices == ()
    assert was_lost and was_kept, "the cut must fall on both sides of the commit"
