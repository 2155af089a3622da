"""Stories of a bad broker, a bad card and a bad clock, in a few lines each (see world.py)."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from msgspec import structs

from alerts.condition import Kind
from alerts.sink import Lane
from simulator.faults import Fault, Mishaps
from tests.world.home import Home
from tests.world.test_stories import told_once_and_completely
from tests.world.world import Bed, World, bed

H = 3_600_000


def befalls(scenario: str, poll_s: int, *faults: Fault) -> Bed:
    """A pump to which this happens."""
    as_it_should = bed(scenario, poll_ms=poll_s * 1_000)
    wrong = structs.replace(as_it_should.scenario, mishaps=Mishaps(faults))
    return replace(as_it_should, scenario=wrong)


def at_the_board(folder) -> World:
    """A world whose occlusion is on the board."""
    world = World(folder, "occlusion")
    world.home.power_on()
    world.run_until(lambda: bool(world.board.of_kind("occlusion")), within_s=30)
    return world


@pytest.mark.parametrize("place", ["commit", "writing", "written", "release"])
def test_a_power_cut_in_the_midst_of_a_commit_is_itself_reported(tmp_path, place):
    world = World(tmp_path, "occlusion")
    world.home.power_on()
    world.run_for(8)
    world.home.cut_at = place
    world.run_until(lambda: not world.home.on, within_s=60)
    world.after(5_000, world.home.power_on)
    world.run_until(lambda: bool(world.board.of_kind("occlusion")), within_s=30)
    world.run_for(10)
    assert len(world.board.of_kind("monitoring_interrupted")) == 1
    told_once_and_completely(world)


@pytest.mark.parametrize(
    ("place", "interrupted"), [("commit", True), ("writing", True), ("written", False), ("", False)]
)
def test_a_power_cut_in_the_midst_of_a_clean_stop_is_reported_until_the_stop_is_on_the_card(
    tmp_path, place, interrupted
):
    world = World(tmp_path, "occlusion")
    world.home.power_on()
    world.run_for(8)
    world.home.cut_at = place or None
    world.home.stop()
    world.run_until(lambda: not world.home.on, within_s=60)
    assert world.home.cut_last == interrupted
    world.after(5_000, world.home.power_on)
    world.run_for(60)
    assert bool(world.board.of_kind("monitoring_interrupted")) == interrupted
    told_once_and_completely(world)


def test_the_receipt_of_an_old_store_another_collector_or_a_retained_one_releases_nothing(tmp_path):
    world = World(tmp_path, "occlusion")
    world.home.power_on()
    world.run_for(5)
    world.broker.forgets = True
    world.run_for(20)
    world.broker.says_old_receipts()
    world.run_for(1)
    assert world.board.of_kind("occlusion") == []
    world.broker.forgets = False
    world.run_until(lambda: bool(world.board.of_kind("occlusion")), within_s=31)
    world.run_for(35)
    told_once_and_completely(world)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_seven_days_without_a_network_then_all_alerts_come_first_and_every_point_after_them(tmp_path):
    world = World(
        tmp_path, (befalls("im1", 20, Fault(kind="malfunction", at_ms=H, until_ms=2 * H)),), fast=True
    )
    world.home.power_on()
    world.run_for(5)
    world.broker.cut()
    world.run_for(7 * 86_400)
    assert world.home.engine.book.open
    delivered = len(world.broker.delivered)
    world.broker.heal()
    world.run_for(60)
    lanes = [message.lane for message in world.broker.delivered[delivered:] if message.lane]
    assert lanes.index(Lane.TELEMETRY) > lanes.count(Lane.ALERTS) // 2
    points = [
        json.loads(message.payload)
        for message in world.broker.delivered[delivered:]
        if message.lane is Lane.TELEMETRY
    ]
    assert points[0]["historical"]
    world.run_for(60)
    assert world.promises.owed() == []


def test_a_second_gateway_under_the_same_name_is_noticed_by_both_sides(tmp_path):
    world = at_the_board(tmp_path)
    world.promises.one_gateway = False
    other = tmp_path / "other"
    other.mkdir()
    second = Home(world, other, "second")
    second.power_on()
    world.run_for(5)
    world.home.soon(0, lambda: world.broker.gateway_comes(world.home))
    world.run_for(15)
    told = {alert.kind for home in (world.home, second) for alert in home.engine.book.open.values()}
    assert Kind.DUPLICATE_GATEWAY in told
    second.cut_power()


@pytest.mark.parametrize("poll_s", [5, 20])
def test_a_line_of_noise_is_told_once_and_is_over_once_however_seldom_the_pump_is_read(tmp_path, poll_s):
    noise = Fault(kind="noisy_line", at_ms=60_000, until_ms=400_000, strength=0.05)
    world = World(tmp_path, (befalls("im1", poll_s, noise),))
    world.home.power_on()
    world.run_for(600)
    told = [alert.kind for _, alert in world.promises.told if alert.kind is Kind.GARBLED_LINK]
    assert len(told) == 1
    assert [alert.state for alert in world.board.of_kind("garbled_link")] == ["closed"]
    told_once_and_completely(world)


def test_what_is_told_after_a_restart_escalates_no_sooner_because_the_gap_becomes_known(tmp_path):
    world = at_the_board(tmp_path)
    world.home.cut_power()
    world.run_for(600)
    world.home.clock_is(error_ms=-600_000, is_set=False)
    world.home.power_on()
    began_ms = world.now_ms
    world.run_until(lambda: bool(world.board.of_kind("monitoring_interrupted")), within_s=10)
    world.run_for(60)
    world.home.clock_is(error_ms=0, is_set=True)
    (alert,) = world.board.of_kind("monitoring_interrupted")
    within_s = alert.respond_within_s
    world.run_until(
        lambda: world.board.of_kind("monitoring_interrupted")[0].reason == "escalated", within_s=within_s
    )
    assert (world.now_ms - began_ms) / 1000 >= within_s - 1
