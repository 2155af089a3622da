"""The simulator as a process: behind a pseudo-terminal, a TCP port and a serial port, and how it ends."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest
import serial

from tests.live.simulated_pump import PATIENCE_S, ROOT, simulated_pump

pytestmark = pytest.mark.live

ASK_SERIAL = b"!INST_SERIALNO|457D\r"
SERIAL = b"!INST_SERIALNO^8002-51740|050B\r"


def ask(port: serial.Serial) -> bytes:
    port.write(ASK_SERIAL)
    return bytes(port.read_until(b"\r"))


def run(*arguments: str | Path, typed: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "simulator", *map(str, arguments)],
        cwd=ROOT,
        input=typed,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )


def test_behind_its_link_a_pump_answers_and_says_first_where_it_is(tmp_path: Path) -> None:
    link = tmp_path / "pump"
    with simulated_pump("alaris", "--scenario", "occlusion", "--link", link, "--seed", "4") as pump:
        assert pump.first_line == {
            "port": str(link.readlink()),
            "link": str(link),
            "family": "alaris",
            "scenario": "occlusion",
            "seed": 4,
            "counter_follows": "motor",
        }
        with serial.Serial(str(link), 38400, timeout=PATIENCE_S) as port:
            assert ask(port) == SERIAL
        assert pump.say("fault silent")["fault"] == "silent"
        assert pump.say("truth")["faults"] == ["silent"]
        assert pump.say("nonsense")["error"].startswith("'nonsense' makes no sense")
        assert pump.say("quit")["quit"]
        assert pump.process.wait(PATIENCE_S) == 0
    assert not link.is_symlink()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_order(tmp_path: Path, how: signal.Signals) -> None:
    link = tmp_path / "pump"
    with simulated_pump("alaris", "--link", link) as pump:
        pump.process.send_signal(how)
        assert pump.process.wait(PATIENCE_S) == 0
    assert not link.is_symlink()


def test_it_ends_by_itself_when_its_time_is_over_and_needs_no_standard_input(tmp_path: Path) -> None:
    ended = run("alaris", "--link", tmp_path / "pump", "--duration", "1s", "--speed", "10")
    assert (ended.returncode, ended.stderr) == (0, "")


def test_the_mishaps_of_the_scenario_are_announced_as_they_begin(tmp_path: Path) -> None:
    with simulated_pump(
        "alaris", "--scenario", "stopped", "--link", tmp_path / "pump", "--speed", "20"
    ) as pump:
        event = pump.next_line()
    assert (event["event"], event["kind"], event["t_s"]) == ("fault_begun", "stopped", 8.0)
    assert event["time"].endswith("Z")


def test_a_pulled_cable_takes_the_device_away_and_brings_another_under_the_same_link(tmp_path: Path) -> None:
    link = tmp_path / "pump"
    story = tmp_path / "story.toml"
    story.write_text(
        'format = "dripwatch-scenario/1"\ntitle = "t"\nprescription = "rx.toml"\n'
        '[[fault]]\nat = "3s"\nkind = "cable_pulled"\nlasts = "1s"\n'
    )
    prescription = run("scenarios", "steady", "--prescription").stdout
    (tmp_path / "rx.toml").write_text(prescription)
    with simulated_pump("alaris", "--scenario", story, "--link", link) as pump:
        with serial.Serial(str(link), 38400, timeout=PATIENCE_S) as port:
            assert ask(port) == SERIAL
            assert pump.next_line()["kind"] == "cable_pulled"
            with pytest.raises(serial.SerialException):
                port.read(1)
        back = pump.next_line()
        assert (back["event"], back["port"]) == ("plugged_in", str(link.readlink()))
        with serial.Serial(str(link), 38400, timeout=PATIENCE_S) as port:
            assert ask(port) == SERIAL


def test_behind_a_tcp_port_the_newest_client_is_served() -> None:
    with simulated_pump("alaris", "--tcp", "127.0.0.1:0") as pump:
        host, _, number = pump.first_line["port"].removeprefix("socket://").rpartition(":")
        assert pump.first_line["link"] is None
        for _ in range(2):
            with socket.create_connection((host, int(number)), timeout=PATIENCE_S) as client:
                client.sendall(ASK_SERIAL)
                received = b""
                while not received.endswith(b"\r"):
                    received += client.recv(100)
                assert received == SERIAL


def test_at_a_serial_port_of_this_machine_it_answers_whoever_is_at_the_other_end() -> None:
    near, far = os.openpty()
    try:
        with simulated_pump("alaris", "--port", os.ttyname(far)):
            os.write(near, ASK_SERIAL)
            received = b""
            while not received.endswith(b"\r"):
                ready, _, _ = select.select([near], [], [], PATIENCE_S)
                assert ready
                received += os.read(near, 100)
        assert received == SERIAL
    finally:
        os.close(near)
        os.close(far)


def test_the_log_has_each_reply_with_the_truth_beside_it(tmp_path: Path) -> None:
    with simulated_pump("alaris", "--link", tmp_path / "pump", "--log", tmp_path / "log") as pump:
        with serial.Serial(str(tmp_path / "pump"), 38400, timeout=PATIENCE_S) as port:
            ask(port)
        pump.say("truth")
        [entry] = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert (entry["request"], entry["reply"]) == ("INST_SERIALNO", SERIAL.decode())
    assert entry["truth"]["rate_ml_h"] == 125.0
    assert 0 <= entry["truth"]["counter_ml"] <= 125.0 / 3600 * entry["t_s"]


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["alaris", "--scenario", "oclusion", "--tcp", "127.0.0.1:0"], 1, "known are bag_empty"),
        (["alaris", "--link", "pyproject.toml"], 1, "exists and is no link"),
        (["alaris", "--link", "/nowhere/at/all"], 1, "cannot be made"),
        (["alaris", "--port", "/dev/nowhere"], 1, "cannot be opened"),
        (["alaris", "--tcp", "127.0.0.1:99999"], 1, "cannot listen"),
        (["alaris", "--tcp", "4001"], 2, "HOST:PORT"),
        (["alaris", "--tcp", "127.0.0.1:0", "--speed", "0"], 2, "from 0.001"),
        (["alaris", "--tcp", "127.0.0.1:0", "--duration", "5"], 2, "is not a duration"),
        (["alaris", "--tcp", "127.0.0.1:0", "--log", "/nowhere/log"], 1, "cannot be written"),
        (["alaris"], 2, "one of the arguments --link --tcp --port is required"),
        (["alariss", "--tcp", "127.0.0.1:0"], 2, "alaris"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence(arguments: list[str], status: int, words: str) -> None:
    ended = run(*arguments)
    assert ended.returncode == status
    assert words in ended.stderr
    assert "Traceback" not in ended.stderr


def test_the_scenarios_are_listed_and_a_prescription_begins_now() -> None:
    listed = run("scenarios").stdout.splitlines()
    assert any(line.startswith("occlusion ") for line in listed)
    prescription = tomllib.loads(run("scenarios", "occlusion", "--prescription").stdout)
    age_s = time.time() - prescription["schedule"]["start"].timestamp()
    assert 0 <= age_s < PATIENCE_S


def test_a_scenario_is_checked_and_what_is_wrong_is_named(tmp_path: Path) -> None:
    good = run("check", ROOT / "simulator" / "scenarios" / "steady.toml")
    assert (good.returncode, json.loads(good.stdout)) == (0, {"valid": True, "errors": []})
    (tmp_path / "bad.toml").write_text('format = "dripwatch-scenario/1"\ntitel = "x"\n')
    bad = run("check", tmp_path / "bad.toml")
    answer = json.loads(bad.stdout)
    assert (bad.returncode, answer["valid"]) == (1, False)
    assert {problem["key"] for problem in answer["errors"]} == {"titel", "title", "prescription"}
