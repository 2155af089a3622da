"""The fixture ``pump``, as somebody uses it who writes a client of their own."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import serial

from tests.live.simulated_pump import PATIENCE_S, ROOT

pytestmark = pytest.mark.live

ASK = b"!INF|4961\r"


def test_the_example_of_the_readme_runs_as_it_stands(tmp_path: Path) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    [example] = re.findall(r"^```python\n(.*?)^```", readme, re.DOTALL | re.MULTILINE)
    (tmp_path / "test_example.py").write_text(example)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_example.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout


def test_the_truth_and_what_the_client_reads_are_one(pump) -> None:
    alaris = pump("alaris", "steady", seed=7)
    with serial.Serial(alaris.port, 38_400, timeout=PATIENCE_S) as port:
        port.write(ASK)
        fields = port.read_until(b"\r").split(b"^")
    assert alaris.first_line["seed"] == 7
    assert float(fields[4]) == alaris.truth().rate_ml_h
    assert float(fields[7]) <= alaris.truth().counter_ml


def test_what_goes_wrong_is_said_by_call(pump) -> None:
    alaris = pump("alaris")
    alaris.fault("under_delivery", 0.25)
    assert alaris.truth().faults == ("under_delivery",)
    alaris.clear()
    alaris.set_rate(20)
    assert (alaris.truth().faults, alaris.truth().rate_ml_h) == ((), 20.0)
    with pytest.raises(ValueError, match="'underdelivery' is no fault"):
        alaris.fault("underdelivery")


def test_a_pump_can_stand_at_a_tcp_port(pump) -> None:
    alaris = pump("alaris", tcp=True)
    with serial.serial_for_url(alaris.port, timeout=PATIENCE_S) as port:
        port.write(ASK)
        assert port.read_until(b"\r").startswith(b"!INF^")
