"""A bad card: the gateway is killed at each write of an alert's way, the card is slow, the card is full."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.live.house import PATIENCE_S, wait_until
from tests.live.kills import STANDS_IN_THE_END, Home, Street, script, street

pytestmark = pytest.mark.live

SIDE_BY_SIDE = 6
NO_ALARM = "".join(f"{at_s} state=running alarms=\n" for at_s in range(100))
ONE_ALARM = "0 state=running alarms=\n" + "".join(
    f"{0.3 + index} state=running alarms={STANDS_IN_THE_END}\n" for index in range(100)
)


@cache
def why_no_strace() -> str:
    """Why programs cannot be run under strace here; empty if they can."""
    if shutil.which("strace") is None:
        return "strace is not installed; apt-get install strace"
    tried = subprocess.run(
        ["strace", "-qq", "-o", "/dev/null", "-e", "inject=getcwd:error=EIO", "true"],
        capture_output=True,
        timeout=30,
    )
    return "" if tried.returncode == 0 else f"strace may not trace here: {tried.stderr.decode().strip()}"


@pytest.fixture(scope="module")
def needs_strace() -> None:
    """Skips where ptrace is not allowed."""
    if why := why_no_strace():
        pytest.skip(why)


def under_strace(call: str, injection: str) -> list[str]:
    # Not --seccomp-bpf: with it strace 6.1 does not count the calls for `when`.
    return [
        "strace",
        "-f",
        "-qq",
        "-o",
        "/dev/null",
        "-e",
        f"trace={call}",
        "-e",
        f"inject={call}:{injection}",
    ]


class Kill(NamedTuple):
    """Where a gateway is killed: at the n-th such call of whichever of its threads comes to it first."""

    call: str
    n: int
    has_card: bool
    """Whether it has run before: else the n-th call may be one that makes the database."""

    def __str__(self) -> str:
        return f"{'kept' if self.has_card else 'new'}-{self.call}-{self.n}"


def kill_at(kill: Kill, home: Home, here: Street) -> bool:
    """Whether it was killed; false if it has told its alert with fewer such calls. Then it runs untraced."""
    if kill.has_card:
        home.says(NO_ALARM)
        home.gateway.start()
        wait_until(lambda: home.has_a_receipt_of("no_prescription"), "it has a card with a receipt on it")
        assert home.gateway.terminate() == 0
    home.says(ONE_ALARM)
    home.gateway.start(under_strace(kill.call, f"signal=KILL:when={kill.n}"))
    process = home.gateway.process
    assert process is not None
    wait_until(
        lambda: process.poll() is not None or home.has_a_receipt_of("pump_alarm"),
        f"{kill}: it is killed, or has its receipt",
        within_s=2 * PATIENCE_S,
    )
    was_killed = process.poll() is not None
    home.kill()
    home.end_with_one_alarm()
    home.gateway.start()
    home.settle(here.board)
    return was_killed


def what_came_of(kills: Sequence[Kill], folder: Path) -> dict[Kill, bool]:
    """Whether each kill came before the alert was told. The alert is told exactly once after each."""
    with street(folder, len(kills)) as here:
        with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
            killed = pool.map(lambda pair: kill_at(*pair, here), zip(kills, here.homes, strict=True))
            came_of = dict(zip(kills, killed, strict=True))
        wrong = [
            f"{kill}: {sentence}"
            for kill, home in zip(kills, here.homes, strict=True)
            for sentence in [*home.wrong(here.board), *told_otherwise_than_once(home, here)]
        ]
        assert [*here.witness.wrong, *wrong] == []
    return came_of


def told_otherwise_than_once(home: Home, here: Street) -> list[str]:
    alerts = here.board.alert_ids(home.token, "pump_alarm")
    return [] if len(alerts) == 1 else [f"the alarm is told as {len(alerts)} alerts"]


def test_a_gateway_killed_at_a_write_of_its_alerts_way_tells_it_exactly_once(
    tmp_path: Path, needs_mosquitto: None, needs_strace: None
):
    kills = [Kill("pwrite64", n, True) for n in range(1, 46, 8)]
    kills += [Kill("pwrite64", n, False) for n in (3, 14, 25)]
    kills += [Kill("fdatasync", n, True) for n in (1, 2)]
    came_of = what_came_of(kills, tmp_path)
    assert sum(came_of.values()) >= len(kills) / 2, "most of them came after the alert was told"


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("has_card", [True, False], ids=["a card that was used", "a new card"])
@pytest.mark.parametrize("call", ["pwrite64", "fdatasync"])
def test_a_gateway_killed_at_every_write_of_its_alerts_way_tells_it_exactly_once(
    tmp_path: Path, needs_mosquitto: None, needs_strace: None, call: str, has_card: bool
):
    first, killed = 1, True
    while killed:
        kills = [Kill(call, n, has_card) for n in range(first, first + 2 * SIDE_BY_SIDE)]
        came_of = what_came_of(kills, tmp_path / str(first))
        killed = any(came_of.values())
        assert killed or first > 1, "none of the calls is on the alert's way"
        first += len(kills)


def test_while_the_card_is_slow_alerts_are_found_at_once_and_all_are_told(
    tmp_path: Path, needs_mosquitto: None, needs_strace: None
):
    slow_ms = 200
    with street(tmp_path, 1) as here:
        [home] = here.homes
        home.says(script(0.3, 60.0))
        home.gateway.start(under_strace("fdatasync", f"delay_enter={slow_ms * 1000}"))
        found_ms: list[float] = []
        on_card_ms: list[float] = []
        found_at: dict[tuple[str, int], float] = {}
        while len(on_card_ms) < 12:
            line = home.gateway.lines.get(timeout=PATIENCE_S)
            home.note(line)
            told = (line["alert_id"], line["rev"])
            if line["step"] == "detected":
                found_at[told] = line["at_s"]
                found_ms.append((line["at_s"] - happened_at_s(line)) * 1000)
            elif line["step"] == "outbox" and told in found_at:
                on_card_ms.append((line["at_s"] - found_at[told]) * 1000)
        home.kill()
        home.end_with_one_alarm()
        home.gateway.start()
        home.settle(here.board)
        assert here.wrong() == []
    assert min(on_card_ms) > slow_ms * 0.9, "the card was not slow: nothing is proved"
    assert statistics.median(found_ms) < slow_ms / 2, "what the pump says waits for the card"


def happened_at_s(line: Mapping[str, Any]) -> float:
    """When what a milestone tells of had happened, by the wall clock."""
    return datetime.fromisoformat(line["time"]).timestamp()


@pytest.fixture
def small_card(tmp_path: Path) -> Iterator[Path]:
    """A file system of 600 KiB; skips where none may be mounted."""
    folder = tmp_path / "card"
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small file system")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=600k,mode=700", "tmpfs", str(folder)],
        capture_output=True,
        text=True,
        timeout=30,
    )
    if mounted.returncode != 0:
        pytest.skip(f"no file system may be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True, timeout=30)


def fill(folder: Path) -> Path:
    """Take all the room that is left."""
    filler = folder / "filler"
    with suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(1024))
    return filler


def test_a_full_card_keeps_no_alert_from_the_board_and_is_told_and_all_is_complete_once_there_is_room(
    tmp_path: Path, small_card: Path, needs_mosquitto: None
):
    with street(tmp_path / "street", 1) as here:
        [home] = here.homes
        home.gateway.database.parent.symlink_to(small_card)
        home.card_fails = True
        board, token = here.board, home.token
        home.gateway.start()
        wait_until(lambda: board.alert_ids(token, "occlusion") != set(), "the first alert is on the board")
        filler = fill(small_card)
        wait_until(lambda: board.alert_ids(token, "storage_failing") != set(), "storage_failing is told")
        before = len(board.messages(token))
        wait_until(lambda: len(board.messages(token)) > before + 10, "alerts come from memory")
        filler.unlink()

        def is_over() -> bool:
            newest = {m["alert_id"]: m for m in board.messages(token) if m.get("kind") == "storage_failing"}
            return bool(newest) and all(one["state"] in ("latched", "closed") for one in newest.values())

        wait_until(is_over, "storage_failing is over", within_s=2 * PATIENCE_S)
        home.kill()
        home.end_with_one_alarm()
        home.gateway.start()
        home.settle(board)
        assert here.wrong() == []
