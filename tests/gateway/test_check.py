"""The command ``dripwatch check``: what it says of files, to people and to programs."""

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.check import check_file, main
from gateway.core.timeline import Moment

RECORDINGS = Path(__file__).parents[1] / "recordings"
NUTRITION = RECORDINGS / "orders" / "parenteral-nutrition.toml"
STEPS = RECORDINGS / "orders" / "infliximab.toml"

GATEWAY = """\
format = "dripwatch-gateway/1"
home = "h-1"
state_dir = "state"
[[pump]]
id = "p1"
family = "alaris"
port = "/dev/ttyUSB0"
"""
DASHBOARD = 'format = "dripwatch-dashboard/1"\n'


class StandingClock:
    """Shows the same time for ever."""

    def __init__(self, utc_ms: int) -> None:
        self.utc_ms = utc_ms

    def moment(self) -> Moment:
        return Moment(monotonic_ms=0, utc_ms=self.utc_ms)


def checked(capsys, *arguments: str) -> tuple[int, list[dict], str]:
    status = main(arguments)
    said = capsys.readouterr()
    return status, [json.loads(line) for line in said.out.splitlines()], said.err


def written(tmp_path: Path, text: str, name: str = "file.toml") -> str:
    path = tmp_path / name
    path.write_text(text)
    return str(path)


def given_on_standard_input(monkeypatch, content: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))


def test_a_valid_prescription_ends_with_status_0(capsys):
    status, lines, to_people = checked(capsys, str(NUTRITION))
    assert (status, lines) == (0, [])
    assert "parenteral-nutrition.toml: valid" in to_people


def test_json_has_the_shape_that_programs_rely_on(capsys):
    status, lines, _ = checked(capsys, "--json", str(NUTRITION))
    assert status == 0
    assert lines == [{"file": str(NUTRITION), "valid": True, "errors": []}]


def test_a_contradiction_ends_with_status_1_and_names_the_key_to_both(capsys, tmp_path):
    name = written(tmp_path, STEPS.read_text() + "\n[limits.x]\n[titration]\nmin_ml_h = 15\nmax_ml_h = 300\n")
    status, (line,), to_people = checked(capsys, "--json", name)
    assert status == 1
    assert not line["valid"]
    keys = [error["key"] for error in line["errors"]]
    assert keys == ["limits.x", "schedule.phase[1].rate_ml_h"]
    for key in keys:
        assert f"{name}: {key}: " in to_people


def test_the_schedule_comes_as_points_with_steps_upright(capsys):
    _, (line,), _ = checked(capsys, "--json", "--schedule", str(STEPS))
    assert line["schedule"] == [
        [0, 10, 0],
        [900, 10, 2.5],
        [900, 20, 2.5],
        [1800, 20, 7.5],
        [1800, 80, 7.5],
        [3600, 80, 47.5],
        [3600, 202.5, 47.5],
        [7200, 202.5, 250],
    ]
    assert line["volume_ml"] == 250


def test_a_ramp_has_enough_points_for_its_volume_to_bend(capsys):
    _, (line,), _ = checked(capsys, "--json", "--schedule", str(NUTRITION))
    up = [point for point in line["schedule"] if point[0] <= 3600]
    assert len(up) == 9
    assert up[0] == [0, 0, 0]
    assert up[4] == [1800, 75, 18.75]  # half of the time, a quarter of the volume
    assert up[8] == [3600, 150, 75]
    assert line["schedule"][-1] == [43200, 0, 1650]


@pytest.mark.parametrize(
    ("now_utc_ms", "next_due"),
    [
        (0, "2026-03-02T19:00:00.000Z"),
        (1_772_478_000_000, "2026-03-02T19:00:00.000Z"),  # just now: not past
        (1_772_478_000_001, "2026-03-03T19:00:00.000Z"),
        (1_772_996_400_000, "2026-03-08T19:00:00.000Z"),
        (1_772_996_400_001, None),  # the seventh of seven is past
    ],
)
def test_the_next_due_time_is_the_first_that_is_not_past(now_utc_ms, next_due):
    line = check_file(str(NUTRITION), with_schedule=True, clock=StandingClock(now_utc_ms))
    assert line.first_due == "2026-03-02T19:00:00.000Z"
    assert line.next_due == next_due


def test_a_schedule_without_json_is_refused_and_not_ignored(capsys):
    with pytest.raises(SystemExit):
        main(["--schedule", str(STEPS)])
    assert "--schedule needs --json" in capsys.readouterr().err


def test_an_invalid_prescription_has_no_schedule(capsys, tmp_path):
    _, (line,), _ = checked(capsys, "--json", "--schedule", written(tmp_path, "format = 1"))
    assert [line[key] for key in ("schedule", "volume_ml", "first_due", "next_due")] == [None] * 4


def test_each_file_has_its_line_and_one_bad_one_decides_the_status(capsys, tmp_path):
    bad = written(tmp_path, "patient = 3")
    status, lines, _ = checked(capsys, "--json", str(NUTRITION), bad, str(STEPS))
    assert status == 1
    assert [(line["file"], line["valid"]) for line in lines] == [
        (str(NUTRITION), True),
        (bad, False),
        (str(STEPS), True),
    ]


def test_a_prescription_is_read_from_standard_input(capsys, monkeypatch):
    given_on_standard_input(monkeypatch, STEPS.read_bytes())
    status, (line,), _ = checked(capsys, "--json", "-")
    assert (status, line) == (0, {"file": "-", "valid": True, "errors": []})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"#" * (64 * 1024 + 1), "longer than 65536 bytes"),
        (b'name = "\xff"', "not UTF-8 text (byte 8)"),
        (b"a = [", "is not TOML"),
    ],
    ids=["too long", "not text", "not TOML"],
)
def test_input_that_cannot_be_read_is_refused_with_a_reason(capsys, monkeypatch, content, message):
    given_on_standard_input(monkeypatch, content)
    status, (line,), _ = checked(capsys, "--json", "-")
    assert status == 1
    assert message in line["errors"][0]["message"]


def test_a_file_that_is_not_there_is_said_to_be_so(capsys, tmp_path):
    status, (line,), _ = checked(capsys, "--json", str(tmp_path / "absent.toml"))
    assert status == 1
    assert "No such file" in line["errors"][0]["message"]


def test_a_gateway_configuration_is_judged_as_one(capsys, tmp_path):
    status, (line,), _ = checked(capsys, "--json", written(tmp_path, GATEWAY))
    assert (status, line["errors"]) == (0, [])
    status, (line,), _ = checked(capsys, "--json", written(tmp_path, GATEWAY.replace("alaris", "alariss")))
    assert status == 1
    assert [error["key"] for error in line["errors"]] == ["pump[1].family"]


@pytest.mark.parametrize(
    "text", [STEPS.read_text(), GATEWAY, DASHBOARD], ids=["order", "gateway", "dashboard"]
)
def test_a_byte_order_mark_is_called_by_its_name(capsys, tmp_path, text):
    status, (line,), _ = checked(capsys, "--json", written(tmp_path, f"\ufeff{text}"))
    assert status == 1
    (error,) = line["errors"]
    assert "begins with a byte order mark; save it as UTF-8 without BOM" in error["message"]


def test_a_dashboard_configuration_is_judged_as_one(capsys, tmp_path):
    status, (line,), _ = checked(capsys, "--json", written(tmp_path, DASHBOARD + "[wbe]\nport = 1\n"))
    assert status == 1
    assert "wbe" in [error["key"] for error in line["errors"]]


def test_a_scenario_is_judged_by_the_simulator(capsys, tmp_path):
    written(tmp_path, STEPS.read_text(), "steps.toml")
    scenario = 'format = "dripwatch-scenario/1"\ntitle = "Steps"\nprescription = "steps.toml"\nseed = 1\n'
    scenario += 'counter_follows = "motor"\n'
    status, (line,), _ = checked(capsys, "--json", written(tmp_path, scenario))
    assert (status, line["errors"]) == (0, [])
    status, (line,), _ = checked(capsys, "--json", written(tmp_path, scenario.replace("motor", "moon")))
    assert status == 1
    assert [error["key"] for error in line["errors"]] == ["counter_follows"]


def test_a_scenario_on_standard_input_has_no_prescription_beside_it(capsys, monkeypatch):
    given_on_standard_input(monkeypatch, b'format = "dripwatch-scenario/1"')
    status, (line,), _ = checked(capsys, "--json", "-")
    assert status == 1
    assert "give its file" in line["errors"][0]["message"]


@pytest.mark.live
def test_the_command_judges_a_prescription_as_a_process_of_its_own():
    done = subprocess.run(
        [sys.executable, "-m", "gateway.cli", "check", "--json", "--schedule", "-"],
        input=STEPS.read_bytes(),
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0
    assert json.loads(done.stdout)["volume_ml"] == 250
