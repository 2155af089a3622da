"""Stories of one home, told in virtual time over real parts (see world.py)."""

from __future__ import annotations

import hashlib
import json
import logging

import pytest

from alerts import wire
from alerts.sink import Lane
from drivers import families
from tests.gateway.home import Home as GatewayHome
from tests.world.world import BEGINNING_UTC_MS, HOME, PUMP, World


def told_once_and_completely(world: World) -> None:
    """What must hold at the end of every story."""
    board = world.board
    assert world.home.engine is not None
    assert board.notices == ()
    ((done, above),) = [
        progress for lane, progress in board.store.progress().items() if lane.lane is Lane.ALERTS
    ]
    assert above == (), "numbers are missing"
    assert done == world.home.engine.alerts_next_seq - 1, "numbers have not come"
    book = {alert_id: alert.rev for alert_id, alert in world.home.engine.book.open.items()}
    assert {alert.alert_id: alert.rev for alert in board.open()} == book
    may_send = families.find("alaris").may_send
    assert all(may_send(data) for data in world.written)


def test_an_occlusion_is_on_the_board_within_seconds_of_the_pumps_alarm_and_an_answer_comes_back(tmp_path):
    world = World(tmp_path, "occlusion")
    world.home.power_on()
    world.run_for(7.9)
    assert world.board.alerts == []
    world.run_until(lambda: bool(world.board.of_kind("occlusion")), within_s=15)
    (alert,) = world.board.of_kind("occlusion")
    assert (alert.state, alert.reason) == ("active", "first")
    world.board.acknowledge(alert)
    world.run_until(lambda: world.board.of_kind("occlusion")[0].state == "acknowledged", within_s=2)
    assert world.board.of_kind("occlusion")[0].acknowledged.by == "nurse-07"
    world.run_for(20)
    told_once_and_completely(world)


def test_an_alert_raised_while_the_network_is_cut_arrives_once_when_it_is_whole_again(tmp_path):
    world = World(tmp_path, "occlusion")
    world.home.power_on()
    world.run_for(5)
    world.broker.cut()
    world.run_for(60)
    assert world.board.of_kind("occlusion") == []
    assert world.home.engine.book.open
    world.broker.heal()
    world.run_until(lambda: bool(world.board.of_kind("occlusion")), within_s=5)
    assert len(world.board.of_kind("occlusion")) == 1
    world.run_for(5)
    told_once_and_completely(world)


def test_a_pump_on_plan_says_nothing_for_ten_minutes_but_is_seen(tmp_path):
    world = World(tmp_path, "steady")
    world.home.power_on()
    world.run_for(600)
    assert world.board.alerts == []
    home = world.board.desk.showing.board.homes[HOME]
    assert len(home.pumps) == 1
    told_once_and_completely(world)


def boundaries_until_the_receipt(folder) -> int:
    world = World(folder, "occlusion")
    world.home.power_on()
    world.run_until(lambda: bool(world.board.of_kind("occlusion")), within_s=30)
    world.run_for(2)
    return world.effect_boundaries


@pytest.fixture(scope="module")
def boundary_count(tmp_path_factory) -> int:
    return boundaries_until_the_receipt(tmp_path_factory.mktemp("count"))


def test_power_cut_at_every_effect_boundary_leaves_the_alert_on_the_board_exactly_once(
    tmp_path_factory, boundary_count
):
    for boundary in range(1, boundary_count + 1):
        world = World(tmp_path_factory.mktemp("cut"), "occlusion")
        world.cut_power_at_boundary = boundary
        world.home.power_on()
        world.run_until(lambda world=world: not world.home.on, within_s=60)
        something_was_kept = world.home.commits > 0
        world.after(3_000, world.home.power_on)
        world.run_until(lambda world=world: bool(world.board.of_kind("occlusion")), within_s=30)
        world.run_for(5)
        assert len(world.board.of_kind("occlusion")) == 1, f"boundary {boundary}\n{world.board.in_words()}"
        assert len(world.board.of_kind("monitoring_interrupted")) == something_was_kept
        told_once_and_completely(world)


def sent_alerts(world: World) -> list[int | None]:
    return [message.seq for message in world.broker.delivered if message.lane is Lane.ALERTS]


def test_a_receipt_that_is_lost_has_everything_sent_again_and_nothing_shown_twice(tmp_path):
    world = World(tmp_path, "occlusion")
    world.broker.loses_receipts = True
    world.home.power_on()
    world.run_until(lambda: bool(world.board.of_kind("occlusion")), within_s=30)
    world.run_for(100)
    assert sent_alerts(world).count(1) > 2
    assert len(world.board.of_kind("occlusion")) == 1
    world.broker.loses_receipts = False
    world.run_for(35)
    before = sent_alerts(world)
    world.run_for(100)
    assert not set(sent_alerts(world)[len(before) :]) & set(before), "what has its receipt is not sent again"
    told_once_and_completely(world)


def test_a_broker_that_doubles_everything_doubles_no_alert(tmp_path):
    world = World(tmp_path, "occlusion")
    world.broker.doubles = True
    world.home.power_on()
    world.run_until(lambda: bool(world.board.of_kind("occlusion")), within_s=30)
    world.board.acknowledge(world.board.of_kind("occlusion")[0])
    world.run_for(60)
    assert [(alert.rev, alert.state) for alert in world.board.of_kind("occlusion")] == [(2, "acknowledged")]
    told_once_and_completely(world)


def test_what_a_broker_has_confirmed_and_forgotten_still_arrives(tmp_path):
    world = World(tmp_path, "occlusion")
    world.home.power_on()
    world.run_for(5)
    world.broker.forgets = True
    world.run_for(20)
    assert world.home.engine.book.open
    assert world.board.of_kind("occlusion") == []
    world.broker.forgets = False
    world.run_until(lambda: bool(world.board.of_kind("occlusion")), within_s=31)
    world.run_for(35)
    told_once_and_completely(world)


def test_an_acknowledgement_survives_a_power_cut_and_is_not_asked_for_again(tmp_path):
    world = World(tmp_path, "occlusion")
    world.home.power_on()
    world.run_until(lambda: bool(world.board.of_kind("occlusion")), within_s=30)
    world.board.acknowledge(world.board.of_kind("occlusion")[0])
    world.run_until(lambda: world.board.of_kind("occlusion")[0].state == "acknowledged", within_s=2)
    world.home.cut_power()
    world.after(20_000, world.home.power_on)
    world.run_for(60)
    (alert,) = world.board.of_kind("occlusion")
    assert (alert.state, alert.acknowledged.by) == ("acknowledged", "nurse-07")
    assert world.home.engine.book.open[alert.alert_id].acknowledged.by == "nurse-07"
    told_once_and_completely(world)


@pytest.mark.parametrize("step_s", [-7_200, -90, 90, 7_200])
def test_a_wall_clock_that_is_set_while_all_goes_well_raises_nothing(tmp_path, step_s):
    world = World(tmp_path, "steady")
    world.home.power_on()
    world.run_for(300)
    world.home.clock_error_ms = step_s * 1_000
    world.run_for(300)
    assert world.board.alerts == []
    told_once_and_completely(world)


def test_a_first_boot_without_a_clock_tells_an_occlusion_as_soon_and_accuses_nobody_when_the_clock_is_set(
    tmp_path,
):
    world = World(tmp_path, "occlusion")
    world.home.clock_is_set, world.home.clock_error_ms = False, -300 * 86_400_000
    world.home.power_on()
    world.run_until(lambda: bool(world.board.of_kind("occlusion")), within_s=30)
    alert = world.board.of_kind("occlusion")[0]
    assert (alert.clock, alert.state) == ("unsynced", "active")
    world.board.acknowledge(alert)
    world.run_until(lambda: world.board.of_kind("occlusion")[0].state == "acknowledged", within_s=2)
    world.home.clock_is_set, world.home.clock_error_ms = True, 0
    world.run_for(60)
    assert {alert.kind for alert in world.board.alerts} == {"occlusion"}
    told_once_and_completely(world)


PERSON, STREET = "Erika Mustermann", "Elm Street 12"


def nothing_more(world: World) -> None:
    world.run_for(180)


def all_that_can_be_said(world: World) -> None:
    """Requests of each kind, right and wrong; cuts of the network and of the power; a clock that is set."""
    world.run_until(lambda: bool(world.board.of_kind("occlusion")), within_s=30)
    world.board.acknowledge(world.board.of_kind("occlusion")[0])
    text = world.order
    right = {"version": 1, "prescription": text, "sha256": hashlib.sha256(text.encode()).hexdigest()}
    for what, fields in [
        ("resync", {}),
        ("watch", {}),
        ("absence", {"what": "away", "for_s": 5, "reason": f"{PERSON}, {STREET}"}),
        ("absence", {"what": PERSON, "for_s": 5}),
        ("absence", {"what": "away", "for_s": STREET}),
        ("ack", {"alert_id": PERSON, "rev": 1, "role": "nurse"}),
        ("ack", {"alert_id": "a-s-1-1", "rev": 1, "role": PERSON}),
        ("receipt", {"collector": PERSON, "store": STREET, "alerts": 1, "telemetry": 1}),
        ("receipt", {"schema": PERSON}),
        ("order", {**right, "sha256": "0" * 64}),
        ("order", right),
        ("order", {**right, "version": 2, "prescription": text + f"\n{PERSON} = '{STREET}'"}),
        ("order", {**right, "version": PERSON}),
    ]:
        payload = {"schema": f"dripwatch.{what}/1", "time": wire.iso_utc(BEGINNING_UTC_MS + world.now_ms),
                   "id": f"i-{world.now_ms}", "by": "nurse-07", **fields}  # fmt: skip
        pump = PUMP if what in ("order", "absence") else None
        world.broker.to_gateway(wire.down(HOME, what, pump=pump), json.dumps(payload).encode())
        world.run_for(1)
    world.broker.cut()
    world.run_for(90)
    world.broker.heal()
    world.home.clock_error_ms = 3_600_000
    world.run_for(10)
    world.home.cut_power()
    world.after(20_000, world.home.power_on)
    world.run_for(90)
    kinds = {message.topic.split("/up/")[1].split("/")[-1] for message in world.broker.delivered}
    assert {"status", "beat", "open", "state", "telemetry", "event", "order", "answer"} <= kinds


@pytest.mark.parametrize(
    ("scenario", "goes_on"), [("noisy_line", nothing_more), ("occlusion", all_that_can_be_said)]
)
def test_no_topic_payload_or_log_carries_the_pumps_serial_number_a_name_or_an_address(
    tmp_path, caplog, monkeypatch, scenario, goes_on
):
    caplog.set_level(logging.DEBUG, logger="dripwatch")
    shown: list[str] = []
    world = World(tmp_path, scenario)
    monkeypatch.setattr(world.home, "show", shown.append)
    world.home.power_on()
    goes_on(world)
    said = caplog.text + "".join(shown)
    of_orders = ""
    for message in world.broker.delivered:
        said += message.topic
        if message.topic.endswith("/order"):
            of_orders += message.payload.decode()
        else:
            said += message.payload.decode()
    serial = world.device.scenario.machine.serial_number
    for secret in (serial, serial.encode().hex(), serial.encode().hex(" "), PERSON, STREET):
        assert secret not in said + of_orders
    # Only the text of an order names the drug, by its token.
    assert world.prescription.drug_name not in said
    answers = [json.loads(m.payload) for m in world.broker.delivered if m.topic.endswith("/order")]
    for answer in answers:
        words = {name: what for name, what in answer.items() if name not in ("in_force", "waiting")}
        assert world.prescription.drug_name not in json.dumps(words)


def test_another_pumps_serial_number_is_neither_said_nor_logged(tmp_path):
    ours, another = "8002-11111", "8002-99999"
    home = GatewayHome(tmp_path, serial_number=ours)
    home.connect()
    home.plug_in()
    home.hear(f"state=idle rate_ml_h=0 volume_ml=0 alarms= serial={another}")
    for _ in range(40):
        home.hear(f"\x7f serial={another} \x7f")
        home.wait(1)
    alert_id = home.alert("wrong_pump")["alert_id"]
    home.tell("ack", id="i-1", alert_id=alert_id, rev=1, role="nurse", adopt=True)
    home.hear(f"state=idle rate_ml_h=0 volume_ml=0 alarms= serial={ours}")
    home.wait(60)
    assert {"wrong_pump", "garbled_link"} <= {alert["kind"] for alert in home.said("alert")}
    said = "".join(home.notes + home.shown)
    said += "".join(send.message.topic + send.message.payload.decode() for send in home.sends)
    assert ours not in said
    assert another not in said
