"""``dripwatch demo --once``: an alert goes the whole way, through real parts, on either broker."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.demo import STEPS
from tests.live.house import wait_until
from tests.live.simulated_pump import ROOT

pytestmark = pytest.mark.live


def demo(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gateway", "demo", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=110,
    )


@pytest.mark.parametrize("broker", ["mosquitto", "amqtt"])
def test_the_alert_goes_the_whole_way_and_is_acknowledged(broker, request):
    if broker == "mosquitto":
        request.getfixturevalue("needs_mosquitto")
    done = demo("--once", "--broker", broker)
    assert done.returncode == 0, done.stderr
    steps = [json.loads(line) for line in done.stdout.splitlines()]
    assert tuple(step["step"] for step in steps) == STEPS
    assert all(set(step) == {"step", "time", "t_s"} for step in steps)


def test_a_demo_of_a_scenario_that_raises_nothing_says_so_instead_of_waiting():
    done = demo("--once", "--scenario", "steady", "--broker", "amqtt")
    assert done.returncode == 1
    assert "raises no alert" in done.stderr


def test_a_scenario_that_is_not_there_is_named_together_with_those_that_are():
    done = demo("--scenario", "flood")
    assert done.returncode == 1
    assert "flood" in done.stderr
    assert "occlusion" in done.stderr


def parts_of(demo_pid: int) -> list[Path]:
    """The processes that this demo has started, by their place in /proc."""
    found = []
    for status in Path("/proc").glob("[0-9]*/status"):
        with contextlib.suppress(OSError):
            if f"\nPPid:\t{demo_pid}\n" in status.read_text():
                found.append(status.parent)
    return found


def has_ended(part: Path) -> bool:
    try:
        return "\nState:\tZ" in (part / "status").read_text()
    except OSError:
        return True


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_running_however_the_demo_ends(how, tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "gateway", "demo", "--broker", "amqtt", "--scenario", "steady"],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    address = process.stdout.readline()
    assert address.startswith("Dashboard: http://127.0.0.1:")
    parts = parts_of(process.pid)
    assert len(parts) == 4
    process.send_signal(how)
    process.stdout.close()
    status = process.wait(30)
    wait_until(lambda: all(has_ended(part) for part in parts), "all parts have ended")
    if how != signal.SIGKILL:
        assert status == 0
        assert list(tmp_path.iterdir()) == []
