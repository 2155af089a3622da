"""infupy, a client that others wrote for real pumps, reads simulated Fresenius pumps over a pseudo-terminal.

Every value that it reads must be the one that the simulator logs as true for that reply, within what the
protocol can say (0.1 mL/h, 0.001 mL), and its own thread must have kept the sessions open.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.live.simulated_pump import simulated_pump

pytestmark = [pytest.mark.live, pytest.mark.timeout(100)]

CLIENT = Path(__file__).with_name("infupy_fresenius_client.py")
A_WHILE_S = 20
SPEEDS = [pytest.param(3, id="a_minute"), pytest.param(30, id="ten_minutes", marks=pytest.mark.long)]
"""So many times as fast as time: the client has no clock of its own."""


@pytest.mark.parametrize("speed", SPEEDS)
@pytest.mark.parametrize("addresses", [(1, 3), ()], ids=["base", "alone"])
def test_infupy_reads_rates_and_volumes_and_every_value_is_the_truth(
    tmp_path: Path, addresses: tuple[int, ...], speed: int
) -> None:
    stories: list[str | Path] = []
    for address, story in zip(addresses, ("steady", "steady"), strict=False):
        stories += ["--scenario", f"{address}={story}"]
    arguments = [
        "fresenius",
        "--link",
        tmp_path / "pump",
        "--log",
        tmp_path / "log",
        *stories,
        "--speed",
        str(speed),
    ]
    with simulated_pump(*arguments) as pump:
        read = infupy_reads(tmp_path / "pump", A_WHILE_S, addresses)
        assert pump.say("quit")["quit"]

    logged = entries(tmp_path / "log")
    if addresses:
        assert read.pop(0) == [0, "modules", list(addresses)]
    for address in addresses or (None,):
        prefix = "" if address is None else str(address)
        # In order, and none that was not said; on a busy machine the client may ask once more than it reads.
        said = iter([true_value(entry) for entry in logged if entry["request"].startswith(f"{prefix}LE;")])
        values = [(asked, value) for whose, asked, value in read if whose == address]
        assert len(values) > 100
        assert [value for value in values if value not in said] == []
        volumes_ml = [value for asked, value in values if asked == "LE;r"]
        assert volumes_ml[-1] > volumes_ml[0]
    requests = [entry["request"] for entry in logged]
    assert "" in requests, "a line check was sent"
    opened = [request for request in requests if request.endswith("DC")]
    assert opened == (["0DC", *(f"{address}DC" for address in addresses)] if addresses else ["DC"]), (
        "and once"
    )


def infupy_reads(port: Path, seconds: int, addresses: tuple[int, ...]) -> list[list[Any]]:
    """What infupy made of the pumps' replies: address, request and value, in order."""
    client = subprocess.run(
        [sys.executable, CLIENT, port, str(seconds), *map(str, addresses)],
        capture_output=True,
        check=True,
        timeout=seconds + 30,
    )
    return [json.loads(line) for line in client.stdout.splitlines()]


def entries(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines()]


def true_value(entry: dict[str, Any]) -> tuple[str, float]:
    """What a client must understand, worked out from the truth that stands beside the reply."""
    truth = entry["truth"]
    asked = entry["request"].lstrip("0123456789")
    values = {"LE;d": round(truth["rate_ml_h"], 1), "LE;r": round(truth["counter_ml"], 3)}
    return asked, values.get(asked, -1.0)
