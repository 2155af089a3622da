"""``dripwatch demo --once``: an alert goes the whole way, through real parts, on either broker."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from gateway.demo import STEPS
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
