"""The wall clock of a running gateway is set: by a preloaded library, for this one process."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.home import ORDER
from tests.live.house import wait_until
from tests.live.kills import STANDS_IN_THE_END, Home, Street, street

pytestmark = pytest.mark.live

SHIM = Path(__file__).with_name("wall_clock.c")
TWO_HOURS_S = 7_200


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Skips without a compiler."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler for the library that moves the wall clock; apt-get install gcc libc6-dev")
    made = tmp_path_factory.mktemp("library") / "wall_clock.so"
    told = subprocess.run(
        [compiler, "-shared", "-fPIC", "-O2", "-Wall", "-o", str(made), str(SHIM), "-ldl"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    if told.returncode != 0:
        pytest.skip(f"the library that moves the wall clock cannot be made: {told.stderr}")
    return made


class WallClock:
    """The wall clock of one gateway."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.shift(0)

    def shift(self, by_s: int) -> None:
        """From now on it shows this much more than the machine's."""
        new = self._file.with_suffix(".new")
        new.write_text(str(by_s))
        new.replace(self._file)


LATER_S = (12, 14)
"""Within this time of the script another alarm comes and goes."""


def faultless_but_for_alarms() -> str:
    """Delivery as ordered; one alarm that stays from the third second on, another that comes and goes."""
    lines = []
    for half_s in range(400):
        at_s = half_s / 2
        alarms = [STANDS_IN_THE_END] if at_s >= 3 else []
        alarms += ["low_battery"] if LATER_S[0] <= at_s < LATER_S[1] else []
        said = f"state=running rate_ml_h=60 volume_ml={at_s / 60:.4f} alarms={';'.join(alarms)}"
        lines.append(f"{at_s} {said}")
    return "\n".join(lines) + "\n"


@pytest.fixture
def watched(tmp_path: Path, needs_mosquitto: None) -> Iterator[tuple[Street, Home, WallClock]]:
    """A home whose pump delivers as ordered, whose wall clock can be set; not started yet."""
    with street(tmp_path / "street", 0) as here:
        order = tmp_path / "prescription.toml"
        started = datetime.now(UTC).isoformat(timespec="seconds")
        order.write_text(ORDER.replace("2026-11-23T12:00:00+00:00", started))
        clock = WallClock(tmp_path / "shift")
        home = Home(
            tmp_path / "street" / "h-1", "h-1", here.broker.port, prescription=order, clock_trusted=False
        )
        home.says(faultless_but_for_alarms())
        here.homes.append(home)
        try:
            yield here, home, clock
        finally:
            home.gateway.kill()


def start(home: Home, library: Path, tmp_path: Path) -> None:
    home.gateway.environment = {"LD_PRELOAD": str(library), "WALL_CLOCK_SHIFT": str(tmp_path / "shift")}
    home.gateway.start()


def wait_until_said(home: Home, words: str) -> None:
    wait_until(lambda: words in home.gateway.said(), words)


def tellings(here: Street, home: Home) -> list[tuple[str, str | None, int, str]]:
    """All that has been told of alerts: kind, code, rev, reason."""
    return [
        (said["kind"], said["code"], said["rev"], said["reason"])
        for said in here.board.messages(home.token)
        if "alert_id" in said
    ]


FIRST = ("pump_alarm", STANDS_IN_THE_END, 1, "first")
LATER = ("pump_alarm", "low_battery", 1, "first")
ENDED = ("pump_alarm", "low_battery", 2, "resolved")


def of_alert(here: Street, home: Home, code: str) -> dict[str, Any]:
    [said] = [said for said in here.board.messages(home.token)
              if said.get("code") == code and said.get("rev") == 1]  # fmt: skip
    return said


def test_two_hours_forward_and_four_back_raise_nothing_and_alerts_go_on(
    tmp_path: Path, library: Path, watched: tuple[Street, Home, WallClock]
):
    here, home, clock = watched
    start(home, library, tmp_path)
    wait_until(lambda: tellings(here, home) == [FIRST], "the first alarm is told")
    clock.shift(TWO_HOURS_S)
    wait_until_said(home, "the wall clock was set by +7200")
    clock.shift(-TWO_HOURS_S)
    wait_until_said(home, "the wall clock was set by -14400")
    wait_until(lambda: tellings(here, home)[-1] == ENDED, "the next alarm comes and goes")
    assert tellings(here, home) == [FIRST, LATER, ENDED], "and nothing else has changed in the book"
    events = [said["kind"] for said in here.board.messages(home.token) if "event" in said["schema"]]
    assert events.count("clock_stepped") == 2
    home.settle(here.board)
    assert here.wrong() == []


def test_a_gateway_that_starts_in_1970_watches_and_its_clock_is_set_later(
    tmp_path: Path, library: Path, watched: tuple[Street, Home, WallClock]
):
    here, home, clock = watched
    clock.shift(-int(time.time()))
    start(home, library, tmp_path)
    wait_until(lambda: tellings(here, home) == [FIRST], "the first alarm is told")
    said = of_alert(here, home, STANDS_IN_THE_END)
    assert (said["clock"], said["time"][:4]) == ("unsynced", "1970")
    clock.shift(0)
    wait_until_said(home, "the wall clock was set by +")
    wait_until(lambda: tellings(here, home)[-1] == ENDED, "the next alarm comes and goes")
    assert tellings(here, home) == [FIRST, LATER, ENDED], "and nothing else has changed in the book"
    said = of_alert(here, home, "low_battery")
    assert (said["clock"], said["time"][:4]) == ("synced", str(datetime.now(UTC).year))
    home.settle(here.board)
    assert here.wrong() == []
