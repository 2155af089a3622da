"""The cable of a running pump is pulled and put in again, ten times; once there is another pump on it.

Each time the port comes back as another device behind the same name. What the gateway has taken for readings
is compared with what the pump's counter really showed at that time.
"""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.live.broker import free_port
from tests.live.house import PATIENCE_S, Gateway, wait_until
from tests.live.simulated_pump import ROOT, SimulatedPump, simulated_pump

pytestmark = pytest.mark.live

SCENARIOS = ROOT / "simulator" / "scenarios"
SERIAL_NUMBER = "8002-51740"
BACK_WITHIN_S = 5.0
A_QUERY_TAKES_S = 0.25
"""A reading that was under way when the cable was pulled may still be taken."""
TOLERANCE_ML = 0.025
"""At 125 mL/h the counter moves by 0.035 mL from one poll to the next: a reading of another poll shows."""


class Gap(NamedTuple):
    """When the cable was out, in seconds of the machine's clock."""

    pulled_s: float
    plugged_in_s: float


def now_s() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def wait_s(duration_s: float) -> None:
    threading.Event().wait(duration_s)


class Truth:
    """What the pump's counter showed, between moments at which it was asked."""

    def __init__(self, pump: SimulatedPump) -> None:
        self._pump = pump
        self._seen: list[tuple[float, float]] = []

    def look(self) -> None:
        before_s = now_s()
        truth = self._pump.say("truth")
        self._seen.append(((before_s + now_s()) / 2, truth["counter_ml"]))

    def counter_ml(self, at_s: float) -> float:
        for (from_s, from_ml), (to_s, to_ml) in pairwise(self._seen):
            if at_s <= to_s:
                return from_ml + (to_ml - from_ml) * (at_s - from_s) / (to_s - from_s)
        raise AssertionError("nobody looked so late")


def note_what_is_detected(line: dict[str, Any], kinds: set[str]) -> None:
    if line["step"] == "detected":
        kinds.add(line["kind"])


def detected_until(gateway: Gateway, kind: str, kinds: set[str]) -> None:
    """What is detected, up to and with this."""
    while kind not in kinds:
        note_what_is_detected(gateway.lines.get(timeout=PATIENCE_S), kinds)


def test_a_cable_pulled_ten_times_costs_nothing_but_the_readings_of_that_time(tmp_path: Path) -> None:
    chance = random.Random(20261125)
    shutil.copy(SCENARIOS / "prescription-steady.toml", tmp_path)
    another = (SCENARIOS / "steady.toml").read_text()
    (tmp_path / "another.toml").write_text(
        another.replace("[pump]\n", '[pump]\nserial_number = "8002-99999"\n')
    )
    prescription = tmp_path / "prescription.toml"
    with prescription.open("w") as file:
        subprocess.run(
            [sys.executable, "-m", "simulator", "scenarios", "steady", "--prescription"],
            cwd=ROOT,
            stdout=file,
            check=True,
        )
    link = tmp_path / "by-id-usb-pump"
    gateway = Gateway(
        tmp_path / "home",
        home="h-1",
        broker_port=free_port(),
        port=str(link),
        prescription=prescription,
        serial_number=SERIAL_NUMBER,
    )
    gaps: list[Gap] = []
    kinds: set[str] = set()
    with ExitStack() as stack:
        pump = stack.enter_context(simulated_pump("alaris", "--scenario", "steady", "--link", link))
        truth = Truth(pump)
        truth.look()
        stack.callback(gateway.kill)
        gateway.start()
        wait_until(lambda: "pump says running" in gateway.said(), "the pump is watched")
        for number in range(10):
            wait_s(chance.uniform(1.6, 2.6))
            truth.look()
            pulled_s = now_s()
            pump.say("fault cable_pulled")
            if number == 4:
                detected_until(gateway, "no_data", kinds)
            elif number == 7:
                with simulated_pump("alaris", "--scenario", tmp_path / "another.toml", "--link", link):
                    detected_until(gateway, "wrong_pump", kinds)
            else:
                wait_s(chance.uniform(0.02, 1.2))
            pump.say("clear")
            gaps.append(Gap(pulled_s, now_s()))
            truth.look()
        wait_s(2.5)
        truth.look()
        assert gateway.terminate() == 0

    readings = gateway.readings()
    assert len(readings) >= 20
    for at_s, volume_ml in readings:
        assert volume_ml == pytest.approx(truth.counter_ml(at_s), abs=TOLERANCE_ML)
    times_s = [at_s for at_s, _ in readings]
    following = [*(gap.pulled_s for gap in gaps[1:]), float("inf")]
    for gap, next_pulled_s in zip(gaps, following, strict=True):
        assert not [one for one in times_s if gap.pulled_s + A_QUERY_TAKES_S < one < gap.plugged_in_s]
        back_s = min(one for one in times_s if one >= gap.plugged_in_s)
        assert back_s <= min(gap.plugged_in_s + BACK_WITHIN_S, next_pulled_s + A_QUERY_TAKES_S)
    said = gateway.said()
    assert said.count("is lost: is the cable still plugged in") == 11, "the other pump's cable too"
    assert said.count(f"port {link}: open") == 12
    while not gateway.lines.empty():
        note_what_is_detected(gateway.lines.get(), kinds)
    assert kinds == {"no_data", "wrong_pump"}, "and no word of a delivery that was right"
