"""systemd itself judges the gateway's unit: every line understood, and the service well shut in."""

from __future__ import annotations

import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "systemd" / "dripwatch-gateway.service"
COMMAND = "/opt/dripwatch/bin/dripwatch"

EXPOSURE_AT_MOST = 2.0
"""Of 10, by `systemd-analyze security`; 9.6 is a service with no hardening at all."""

needs_systemd_analyze = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None,
    reason="systemd-analyze is not on this machine (Debian: package systemd)",
)


@pytest.fixture
def unit_here(tmp_path: Path) -> Path:
    """The unit as it stands, but with a command that exists on this machine: systemd looks for the file."""
    command = tmp_path / "dripwatch"
    command.write_text("#!/bin/sh\n")
    command.chmod(0o755)
    text = UNIT.read_text()
    assert text.count(COMMAND) == 2
    copy = tmp_path / UNIT.name
    copy.write_text(text.replace(COMMAND, str(command)))
    return copy


def systemd_analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def keys_of(unit: Path) -> dict[str, list[str]]:
    values: dict[str, list[str]] = {}
    for line in unit.read_text().splitlines():
        if line and not line.startswith(("#", "[")):
            key, _, value = line.partition("=")
            values.setdefault(key, []).append(value)
    return values


@needs_systemd_analyze
def test_systemd_understands_every_line_of_the_unit(unit_here: Path) -> None:
    assert systemd_analyze("verify", "--man=no", str(unit_here)).stdout == ""


@needs_systemd_analyze
@pytest.mark.parametrize(
    ("line", "complaint"),
    [("MemoryMaxx=256M", "MemoryMaxx"), ("SystemCallFilter=@sytem-service", "@sytem-service")],
)
def test_a_misspelt_line_would_be_seen(unit_here: Path, line: str, complaint: str) -> None:
    unit_here.write_text(unit_here.read_text().replace("[Service]", f"[Service]\n{line}"))
    assert complaint in systemd_analyze("verify", "--man=no", str(unit_here)).stdout


@needs_systemd_analyze
def test_the_service_is_shut_in(unit_here: Path) -> None:
    threshold = f"--threshold={EXPOSURE_AT_MOST * 10:.0f}"
    judged = systemd_analyze("security", "--offline=true", "--no-pager", threshold, str(unit_here))
    assert judged.returncode == 0, judged.stdout


def test_the_command_is_the_one_that_the_distribution_installs() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert Path(COMMAND).name in scripts
    assert keys_of(UNIT)["ExecStart"] == [f"{COMMAND} run --config /etc/dripwatch/gateway.toml"]


WHAT_THE_UNIT_PROMISES: list[tuple[str, str, str]] = [
    ("it is started when the gateway says so", "Type", "notify"),
    ("a gateway that hangs is ended", "WatchdogSec", "30"),
    ("a gateway that ends is started again", "Restart", "always"),
    ("and again, for ever", "StartLimitIntervalSec", "0"),
    ("it does not run as root", "DynamicUser", "yes"),
    ("its state survives", "StateDirectory", "dripwatch"),
    ("nobody else reads its state", "StateDirectoryMode", "0700"),
    ("it reaches only the devices that are named", "DevicePolicy", "closed"),
]


@pytest.mark.parametrize(
    ("key", "value"),
    [row[1:] for row in WHAT_THE_UNIT_PROMISES],
    ids=[row[0] for row in WHAT_THE_UNIT_PROMISES],
)
def test_the_unit_promises_that(key: str, value: str) -> None:
    assert keys_of(UNIT)[key] == [value]


def test_no_device_but_serial_ports_and_pins_can_be_reached() -> None:
    ports = {"char-ttyUSB rw", "char-ttyACM rw", "char-ttyAMA rw", "char-ttyS rw"}
    assert set(keys_of(UNIT)["DeviceAllow"]) == ports | {"char-gpiochip rw"}


def test_monitoring_does_not_wait_for_the_network() -> None:
    ordering = keys_of(UNIT)
    assert "network-online.target" not in " ".join(ordering.get("After", []) + ordering.get("Wants", []))
