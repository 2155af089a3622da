"""What a person gets wrong: each is told in a sentence, and the gateway goes on with what it can."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.live.broker import Authority, Mosquitto, free_port
from tests.live.house import Gateway, wait_until
from tests.live.simulated_pump import ROOT, simulated_pump
from tests.live.test_gateway_survives import SCENARIOS, prescription_of

pytestmark = pytest.mark.live


@pytest.fixture
def pump_link(tmp_path):
    link = tmp_path / "pump"
    with simulated_pump("alaris", "--scenario", "steady", "--link", link):
        yield link


def goes_on_watching(gateway: Gateway) -> bool:
    """Whether the pump is being read, whatever else is wrong."""
    return "pump says running" in gateway.said()


def test_a_misspelt_key_ends_the_start_with_the_key_and_the_nearest_known_one(tmp_path):
    gateway = Gateway(tmp_path, home="h-1", broker_port=1, port="/dev/null")
    gateway.config.write_text(gateway.config.read_text().replace("state_dir", "state_dri"))
    done = subprocess.run(
        [sys.executable, "-m", "gateway", "run", "--config", str(gateway.config)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 1
    assert "state_dri" in done.stderr
    assert "state_dir" in done.stderr


def test_a_prescription_without_an_offset_is_named_and_the_pump_is_watched_without_it(tmp_path, pump_link):
    prescription = prescription_of(SCENARIOS / "steady.toml", tmp_path)
    lines = [
        line[: len("start = 2026-01-05T08:00:00")] if line.startswith("start = ") else line
        for line in prescription.read_text().splitlines()
    ]
    prescription.write_text("\n".join(lines))
    gateway = Gateway(
        tmp_path, home="h-1", broker_port=free_port(), port=str(pump_link), prescription=prescription
    )
    gateway.start()
    try:
        wait_until(lambda: goes_on_watching(gateway), "the pump is watched")
        gateway.next_step("detected", kind="no_prescription")
        assert "schedule.start" in gateway.said()
        assert "offset" in gateway.said()
    finally:
        assert gateway.terminate() == 0


def test_a_port_that_is_not_there_is_named_with_what_to_do(tmp_path):
    gateway = Gateway(tmp_path, home="h-1", broker_port=free_port(), port=str(tmp_path / "no-such-port"))
    gateway.start()
    try:
        wait_until(lambda: "no-such-port" in gateway.said(), "the port is named")
        wait_until(lambda: "link down" in gateway.said(), "the link is said to be down")
    finally:
        assert gateway.terminate() == 0


def test_a_broker_that_is_not_there_is_said_once_and_the_pump_is_watched(tmp_path, pump_link):
    gateway = Gateway(tmp_path, home="h-1", broker_port=free_port(), port=str(pump_link))
    gateway.start()
    try:
        wait_until(lambda: goes_on_watching(gateway), "the pump is watched")
        wait_until(lambda: "start the broker there" in gateway.said(), "what to do is told")
    finally:
        assert gateway.terminate() == 0
    assert gateway.said().count("start the broker there") == 1


def test_a_broker_that_refuses_the_user_is_said_with_what_to_do_and_the_pump_is_watched(
    tmp_path, needs_mosquitto, pump_link
):
    broker = Mosquitto(tmp_path / "mosquitto", passwords={"somebody-else": "secret"})
    broker.start()
    gateway = Gateway(tmp_path, home="h-1", broker_port=broker.port, port=str(pump_link))
    gateway.start()
    try:
        wait_until(lambda: goes_on_watching(gateway), "the pump is watched")
        wait_until(lambda: "does not accept user 'h-1'" in gateway.said(), "the refusal is told")
        assert "password_file" in gateway.said()
    finally:
        assert gateway.terminate() == 0
        broker.kill()


def test_a_wrong_certificate_authority_is_said_and_the_pump_is_watched(
    tmp_path, needs_mosquitto, authority, pump_link
):
    stranger = Authority(tmp_path / "stranger")
    broker = Mosquitto(tmp_path / "mosquitto", authority=authority)
    broker.start()
    gateway = Gateway(
        tmp_path,
        home="h-1",
        broker_port=broker.port,
        port=str(pump_link),
        mqtt=f'ca_file = "{stranger.ca_file}"',
    )
    gateway.start()
    try:
        wait_until(lambda: goes_on_watching(gateway), "the pump is watched")
        wait_until(lambda: "ca_file" in gateway.said(), "the authority is named")
    finally:
        assert gateway.terminate() == 0
        broker.kill()
