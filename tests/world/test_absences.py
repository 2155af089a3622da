"""Announced absences at a simulated pump whose cable is pulled out after eight seconds, for a minute."""

from __future__ import annotations

import json

import pytest

from alerts import wire
from alerts.mqtt import BrokerMessage
from tests.world.world import BEGINNING_UTC_MS, HOME, World

PULLED_S, PUT_IN_AGAIN_S = 8, 68
SILENT_AFTER_S = 5
"""By the order of this scenario."""


def announce(world: World, what: str, for_s: float, request: str = "i-1") -> None:
    """The nurse says so, through the broker."""
    payload = {
        "schema": "dripwatch.absence/1",
        "time": wire.iso_utc(BEGINNING_UTC_MS + world.now_ms),
        "id": request,
        "by": "nurse-07",
        "what": what,
        "for_s": for_s,
        "reason": "",
    }
    topic = wire.down(HOME, "absence", pump="p1")
    message = BrokerMessage(topic=topic, payload=json.dumps(payload).encode(), retain=False, qos=1)
    world.home.deliver(message)


def kinds(world: World) -> set[str]:
    return {alert.kind for alert in world.board.alerts if alert.state != "closed"}


def begun(folder) -> World:
    world = World(folder, "cable_pulled")
    world.home.power_on()
    world.run_for(5)
    return world


@pytest.mark.parametrize("what", ["set_change", "away"])
def test_a_cable_that_is_out_as_announced_and_back_in_time_tells_nobody(tmp_path, what):
    world = begun(tmp_path)
    announce(world, what, 90)
    world.run_for(60)
    assert world.board.alerts == []
    assert world.board.desk.showing.board.homes[HOME].pumps["p1"].state.verdict == "unknown"
    world.run_for(60)
    assert world.board.alerts == []
    state = world.board.desk.showing.board.homes[HOME].pumps["p1"].state
    assert (state.absence, state.verdict) == (None, "on_plan")


@pytest.mark.parametrize("what", ["set_change", "away"])
def test_a_cable_that_stays_out_is_told_at_the_end_of_what_was_announced_with_its_true_beginning(
    tmp_path, what
):
    world = begun(tmp_path)
    announce(world, what, 30)
    world.run_for(29.5)
    assert world.board.alerts == []
    world.run_for(3)
    assert kinds(world) == {"no_data", "absence_overdue"}
    (silence,) = world.board.of_kind("no_data")
    began_s = (silence.since.utc_ms - BEGINNING_UTC_MS) / 1000
    assert PULLED_S - 2 <= began_s <= PULLED_S
    world.run_until(lambda: not kinds(world), within_s=PUT_IN_AGAIN_S)
    assert {alert.reason for alert in world.board.alerts} == {"resolved"}


def test_while_a_nurse_is_present_a_cable_that_is_out_is_told_as_ever(tmp_path):
    world = begun(tmp_path)
    announce(world, "nurse_present", 90)
    world.run_until(lambda: kinds(world) == {"no_data"}, within_s=PULLED_S + SILENT_AFTER_S)


@pytest.mark.parametrize("off_s", [5, 20])
def test_an_absence_goes_on_over_a_power_cut_and_no_longer_than_announced(tmp_path, off_s):
    world = begun(tmp_path)
    announce(world, "away", 40)
    world.run_for(10)
    world.home.cut_power()
    world.after(off_s * 1_000, world.home.power_on)
    world.run_for(29)
    assert kinds(world) == {"monitoring_interrupted"}
    world.run_for(3)
    assert kinds(world) == {"monitoring_interrupted", "no_data", "absence_overdue"}
    world.run_until(lambda: kinds(world) == {"monitoring_interrupted"}, within_s=PUT_IN_AGAIN_S)
