"""A simulated pump behind a pseudo-terminal is asked who it is, recorded, and the recording decoded."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from drivers.capture import EntryKind, parse_capture
from tests.live.house import wait_until
from tests.live.simulated_pump import PATIENCE_S, ROOT, simulated_pump

pytestmark = pytest.mark.live


def dripwatch(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gateway", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        stdin=subprocess.DEVNULL,
    )


def infusions_heard(file: Path) -> int:
    """How many whole answers to INF stand in a capture, in however many pieces they came."""
    entries = parse_capture(file.read_text()).entries
    heard = b"".join(entry.data for entry in entries if entry.kind is EntryKind.RX)
    return sum(frame.startswith(b"!INF^") for frame in heard.split(b"\r")[:-1])


def test_a_pump_is_found_recorded_with_notes_through_a_pulled_cable_and_decoded(tmp_path: Path) -> None:
    link, file = tmp_path / "pump", tmp_path / "pump.cap"
    with simulated_pump("alaris", "--link", link) as pump:
        found = json.loads(dripwatch("probe", link, "--family", "alaris", "--json").stdout)
        assert found["answered"]["family"] == "alaris"
        assert found["answered"]["pumps"][0]["serial"] == "8002-51740"

        options = ["--poll", "1s", "--by", "a test"]
        recording = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "gateway",
                "capture",
                str(link),
                str(file),
                "--family",
                "alaris",
                *options,
            ],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert recording.stdin is not None
        wait_until(lambda: file.exists() and " rx " in file.read_text(), "something was heard")
        os.write(recording.stdin.fileno(), b"the display says 10 ml/h\n")
        pump.type("fault cable_pulled")
        wait_until(lambda: " down" in file.read_text(), "the pulled cable was noticed")
        pump.type("clear")
        wait_until(lambda: infusions_heard(file) >= 2, "the pump was heard again")
        recording.send_signal(signal.SIGINT)
        _, said = recording.communicate(timeout=PATIENCE_S)
        assert (recording.returncode, b"bytes received" in said) == (0, True)
    capture = parse_capture(file.read_text())
    assert [entry.words for entry in capture.entries if entry.kind is EntryKind.NOTE] == [
        "the display says 10 ml/h"
    ]
    decoded = dripwatch("decode", "alaris", file)
    assert (decoded.returncode, dripwatch("decode", "alaris", file).stdout) == (0, decoded.stdout)
    assert "8002-51740" in decoded.stdout
