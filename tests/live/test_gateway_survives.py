"""Killed gateways and killed brokers, live: nothing is lost, and nothing is told as two."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.live.broker import Mosquitto
from tests.live.house import Dashboard, Gateway, wait_until
from tests.live.simulated_pump import ROOT, simulated_pump

pytestmark = pytest.mark.live

SCENARIOS = ROOT / "simulator" / "scenarios"
HOMES_AT_ONCE = 10


@pytest.fixture
def dashboard(tmp_path: Path, mosquitto: Mosquitto) -> Iterator[Dashboard]:
    board = Dashboard(tmp_path / "dashboard", mosquitto.port)
    board.start()
    yield board
    board.kill()


@pytest.fixture(scope="module")
def kink_after_three_seconds(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("scenario")
    shutil.copy(SCENARIOS / "prescription-steady.toml", folder)
    story = (SCENARIOS / "occlusion.toml").read_text().replace('at = "8s"', 'at = "3s"')
    story = story.replace("compliance_ml_mmhg = 0.0005", "compliance_ml_mmhg = 0.00005")
    (folder / "kink.toml").write_text(story)
    return folder / "kink.toml"


def prescription_of(scenario: Path, folder: Path) -> Path:
    said = subprocess.run(
        [sys.executable, "-m", "simulator", "scenarios", str(scenario), "--prescription"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "prescription.toml"
    file.write_text(said.stdout)
    return file


@pytest.mark.parametrize("batch", range(2))
def test_a_gateway_killed_between_detection_and_receipt_tells_its_alert_exactly_once(
    tmp_path, mosquitto, dashboard, kink_after_three_seconds, batch
):
    moments = random.Random(batch)
    homes: list[Gateway] = []
    with ExitStack() as stack:
        for number in range(HOMES_AT_ONCE):
            folder = tmp_path / f"home-{number}"
            prescription = prescription_of(kink_after_three_seconds, folder)
            link = folder / "pump"
            stack.enter_context(
                simulated_pump("alaris", "--scenario", kink_after_three_seconds, "--link", link)
            )
            gateway = Gateway(
                folder,
                home=f"h-{number}",
                broker_port=mosquitto.port,
                port=str(link),
                prescription=prescription,
            )
            stack.callback(gateway.kill)
            gateway.start()
            homes.append(gateway)
        for gateway in homes:
            gateway.next_step("detected", kind="occlusion")
            # A receipt comes a second after storing: the kill falls before, between or just after.
            threading.Event().wait(moments.uniform(0.0, 1.1))
            gateway.kill()
            gateway.start()
        for number, gateway in enumerate(homes):
            home = f"h-{number}"
            wait_until(lambda home=home: dashboard.alert_ids(home, "occlusion"), f"{home} has told its alert")
            wait_until(
                lambda home=home: dashboard.alert_ids(home, "monitoring_interrupted"),
                f"{home} has told of it",
            )
            wait_until(lambda gateway=gateway: gateway.has_told_all(dashboard), f"{home} has told all")
            assert len(dashboard.alert_ids(home, "occlusion")) == 1
            assert len(dashboard.alert_ids(home, "monitoring_interrupted")) == 1
            messages = dashboard.messages(home)
            assert [message["seq"] for message in messages] == list(range(1, gateway.numbered()))
            revisions = [
                (message["alert_id"], message["rev"]) for message in messages if "alert_id" in message
            ]
            assert len(set(revisions)) == len(revisions)


def test_a_broker_killed_while_two_hundred_messages_wait_loses_none(tmp_path, needs_mosquitto):
    lines = ["0 state=running alarms="]
    lines += [
        f"{0.2 + 0.02 * index:.2f} state=running alarms={'demand_denied' if index % 2 else ''}"
        for index in range(460)
    ]
    script = tmp_path / "denied.script"
    script.write_text("\n".join(lines) + "\n")
    broker = Mosquitto(tmp_path / "mosquitto")
    gateway = Gateway(
        tmp_path / "home", home="h-1", broker_port=broker.port, port=f"script:{script}", family="dummy"
    )
    board = Dashboard(tmp_path / "dashboard", broker.port)
    with ExitStack() as stack:
        stack.callback(gateway.kill)
        gateway.start()
        wait_until(lambda: gateway.waiting() >= 200, "two hundred wait")
        stack.callback(broker.kill)
        broker.start()
        stack.callback(board.kill)
        board.start()
        wait_until(lambda: len(board.messages("h-1")) >= 30, "some have gone")
        broker.kill()
        held_back = gateway.waiting()
        broker.start()
        wait_until(lambda: gateway.has_told_all(board), "all have gone", within_s=90)
        seqs = [message["seq"] for message in board.messages("h-1")]
        assert seqs == list(range(1, gateway.numbered()))
        assert len(seqs) >= 200
        assert held_back > 0, "the broker was killed too late to prove anything"
