"""nesp_lib, a client that others wrote for real pumps, reads the simulated one over a pseudo-terminal.

Every value that it reads must be the one that the simulator logs as true for that reply, in Basic mode and in
Safe mode; and what it writes (Safe mode, rate, run, stop, clear) must be answered and change no delivery.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.live.simulated_pump import simulated_pump

pytestmark = [pytest.mark.live, pytest.mark.timeout(80)]

CLIENT = Path(__file__).with_name("nesp_client.py")
READS_FOR_S = {"basic": 10, "safe": 3}


@pytest.mark.parametrize(
    ("mode", "speed"),
    [
        pytest.param("basic", 6, id="basic-a_minute"),
        pytest.param("basic", 60, id="basic-ten_minutes", marks=pytest.mark.long),
        pytest.param("safe", 1, id="safe"),  # with a watchdog, which has the pump's clock
    ],
)
def test_nesp_lib_reads_the_pump_and_every_value_is_the_truth(mode: str, speed: int, tmp_path: Path) -> None:
    arguments = ["newera", "--link", tmp_path / "pump", "--log", tmp_path / "log", "--speed", str(speed)]
    with simulated_pump(*arguments) as pump:
        read = nesp_lib_reads(tmp_path / "pump", READS_FOR_S[mode], mode)
        truth = pump.say("truth")
        assert (truth["state"], truth["faults"], truth["rate_ml_h"]) == ("running", [], 125.0)
        assert pump.say("quit")["quit"]

    once = {what: value for what, value in read if what not in ("status", "rate_ml_h", "infused_ml")}
    assert once == {
        "model": 1000,
        "firmware": [3, 928],
        "diameter_mm": 26.59,
        "direction": True,
        "safe_mode_s": 4 if mode == "safe" else 0,
        "stopped": None,
        "set": None,
        "cleared": None,
        "run": None,
        "withdrawn_ml": 0.0,
    }
    assert {value for what, value in read if what == "status"} == {"INFUSING"}
    logged = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    for what, request, true in (("rate_ml_h", "0RAT", "rate_ml_h"), ("infused_ml", "0DIS", "counter_ml")):
        values = [value for name, value in read if name == what]
        truths = [entry["truth"][true] for entry in logged if entry["request"] == request]
        assert len(values) > 20
        # Of the volumes the last was asked for what was withdrawn.
        # four digits: from 10 mL on the last is a hundredth
        for value, true in zip(values, truths, strict=False):
            assert value == pytest.approx(true, abs=0.0006 if true < 10 else 0.0055)
    infused_ml = [value for what, value in read if what == "infused_ml"]
    assert infused_ml == sorted(infused_ml)
    assert infused_ml[-1] - infused_ml[0] > speed * READS_FOR_S[mode] * 125 / 3600 / 2, (
        "and it was not cleared"
    )


def nesp_lib_reads(port: Path, seconds: int, mode: str) -> list[tuple[str, Any]]:
    """What nesp_lib made of the pump's replies: what it read and its value, in order."""
    client = subprocess.run(
        [sys.executable, CLIENT, port, str(seconds), mode],
        capture_output=True,
        check=True,
        timeout=seconds + 30,
    )
    return [(what, value) for what, value in map(json.loads, client.stdout.splitlines())]
