"""infupy, a client that others wrote for real pumps, reads the simulated one over a pseudo-terminal.

Without its keep-alive every value that it reads must be the one that the simulator logs as true for that
reply. With the keep-alive on, its two threads take each other's replies and it confuses itself: then the
simulator must be unharmed, and each of its own replies true.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.live.simulated_pump import simulated_pump

pytestmark = [pytest.mark.live, pytest.mark.timeout(110)]

CLIENT = Path(__file__).with_name("infupy_client.py")
READS_FOR_S = 20
SPEEDS = [pytest.param(3, id="a_minute"), pytest.param(30, id="ten_minutes", marks=pytest.mark.long)]
"""So many times as fast as time: the client has no clock of its own."""
A_WHILE_S = 6


@pytest.mark.parametrize("speed", SPEEDS)
def test_infupy_reads_rate_and_volume_and_every_value_is_the_truth(tmp_path: Path, speed: int) -> None:
    arguments = ["alaris", "--link", tmp_path / "pump", "--log", tmp_path / "log", "--speed", str(speed)]
    with simulated_pump(*arguments) as pump:
        read = infupy_reads(tmp_path / "pump", READS_FOR_S, "quiet")
        assert pump.say("quit")["quit"]

    true = [(entry["request"], true_value(entry)) for entry in entries(tmp_path / "log")]
    # In order, and none that was not said; on a busy machine the client may ask once more than it reads.
    said = iter(true)
    assert [value for value in read if value not in said] == []
    assert len(read) > 200
    volumes_ml = [float(value.split()[0]) for request, value in read if request == "INF_VI" and value]
    assert volumes_ml[-1] - volumes_ml[0] > 1.5, "a minute at 125 mL/h is 2.1 mL"
    assert {value for request, value in read if request == "INF_RATE"} == {"125.00 ml/h"}


def test_infupys_keep_alive_leaves_the_simulator_unharmed_and_truthful(tmp_path: Path) -> None:
    with simulated_pump("alaris", "--link", tmp_path / "pump", "--log", tmp_path / "log") as pump:
        infupy_reads(tmp_path / "pump", A_WHILE_S, "alive")
        truth = pump.say("truth")
        assert (truth["state"], truth["faults"]) == ("running", [])
        assert pump.say("quit")["quit"]

    logged = entries(tmp_path / "log")
    # With whatever code the client has made of some other thread's reply: a wrong one is met with silence.
    assert any(entry["request"].startswith("REMOTE_CTRL^ENABLED^") for entry in logged)
    replies = [entry for entry in logged if entry["request"] in ("INF_RATE", "INF_VI")]
    assert len(replies) >= 4
    for entry in replies:
        fields = entry["reply"].removeprefix("!").split("|")[0].split("^")
        assert " ".join(fields[1:]) == true_value(entry)


def infupy_reads(port: Path, seconds: int, keep_alive: str) -> list[tuple[str, str | None]]:
    """What infupy made of the pump's replies: request and value, in order."""
    client = subprocess.run(
        [sys.executable, CLIENT, port, str(seconds), keep_alive],
        capture_output=True,
        check=True,
        timeout=seconds + 30,
    )
    return [(request, value) for request, value in map(json.loads, client.stdout.splitlines())]


def entries(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines()]


def true_value(entry: dict[str, Any]) -> str | None:
    """What a client must understand, worked out from the truth that stands beside the reply."""
    truth = entry["truth"]
    values = {"INF_RATE": f"{truth['rate_ml_h']:.2f} ml/h", "INF_VI": f"{truth['counter_ml']:.3f} ml"}
    return values.get(entry["request"])
