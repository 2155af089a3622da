"""``dripwatch accuracy`` as a person and as a program meet it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from msgspec import structs

from gateway.accuracy.command import BELIEF, main
from gateway.accuracy.picture import picture
from tests.gateway.accuracy.bench import Bench, measured

ROOT = Path(__file__).parents[3]
RECORDINGS = ROOT / "tests" / "recordings"
STEADY = RECORDINGS / "paediatric_low_flow-coarse-normal"
ORDER = str(STEADY / "prescription.toml")
READINGS = str(STEADY / "readings.csv")
SVG = "{http://www.w3.org/2000/svg}"


class TestTheTable:
    def test_says_mean_error_uncertainty_trumpet_and_what_was_left_out(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main([ORDER, READINGS]) == 0
        said = capsys.readouterr()
        lines = said.out.splitlines()
        assert lines[0] == "Flow accuracy at 0.8 mL/h, as the pump counted"
        mean = re.fullmatch(r"mean error  ([+-]\d\.\d\d) % \+/- (\d\.\d\d) % \(95 %: .*\)", lines[2])
        assert mean is not None
        rows = [re.split(r"\s{2,}", line.strip()) for line in lines if re.match(r"[ \d]\d min", line)]
        assert [row[0] for row in rows] == ["2 min", "5 min", "11 min", "19 min", "31 min"]
        # 100 x 0.1 mL x 60 / (P x 0.8 mL/h)
        assert [row[3] for row in rows] == [
            "+/- 375.0 %",
            "+/- 150.0 %",
            "+/- 68.2 %",
            "+/- 39.5 %",
            "+/- 24.2 %",
        ]
        assert "10.5 min not running" in said.out
        assert BELIEF in said.out
        assert said.err == "accuracy: 2968 rows\n"

    def test_of_a_short_recording_says_that_its_start_up_is_in_it(
        self, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        short = tmp_path / "short.csv"
        short.write_text("".join(Path(READINGS).read_text().splitlines(keepends=True)[:900]))
        assert main([ORDER, str(short)]) == 0
        said = capsys.readouterr().out
        assert "that hour is in it" in said
        assert "from its second hour on" not in said


class TestJson:
    def test_says_the_same_to_programs(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main([ORDER, READINGS, "--json"]) == 0
        said = json.loads(capsys.readouterr().out)
        assert set(said) == {
            "set_rate_ml_h",
            "counter_ml",
            "began",
            "stretches",
            "analysed_s",
            "mean_error_percent",
            "uncertainty",
            "trumpet",
            "startup",
            "left_out_s",
            "notes",
        }
        assert said["set_rate_ml_h"] == 0.8
        assert said["trumpet"][0]["window_min"] == 2
        assert len(said["startup"]["flow_ml_h"]) == 240
        assert said["startup"]["start_seen"] is True
        assert said["left_out_s"]["not running"] == pytest.approx(630, abs=10)
        parts = [said["uncertainty"][name] for name in said["uncertainty"] if name != "total_percent"]
        assert said["uncertainty"]["total_percent"] ** 2 == pytest.approx(sum(part**2 for part in parts))


class TestThePicture:
    @pytest.mark.parametrize(
        "bench",
        [
            Bench(hours=2.0),
            Bench(hours=0.2),
            Bench(rate_ml_h=0.6, hours=2.0, poll_ms=20_000),
            Bench(rate_ml_h=600.0, counter_ml=1.0, hours=1.0, calibration_percent=-30.0),
        ],
        ids=["usual", "short", "slow", "fast and far off"],
    )
    def test_draws_two_panels_with_all_points_within_them(self, bench: Bench) -> None:
        result = measured(bench.order, bench.readings())
        root = ElementTree.fromstring(picture(result, bench.order.pump))
        words = [text.text or "" for text in root.iter(f"{SVG}text")]
        for wanted in ("Start-up curve", "Trumpet curve", "Flow, mL/h", "Observation window, min"):
            assert wanted in words
        circles = list(root.iter(f"{SVG}circle"))
        assert len(circles) == 2 * sum(window.windows > 0 for window in result.trumpet)
        panel = root.findall(f"{SVG}clipPath/{SVG}rect")[1].attrib
        left, top = float(panel["x"]), float(panel["y"])
        for circle in circles:
            assert left <= float(circle.attrib["cx"]) <= left + float(panel["width"])
            assert top <= float(circle.attrib["cy"]) <= top + float(panel["height"])

    def test_goes_to_the_file_that_was_named(
        self, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        file = tmp_path / "accuracy.svg"
        assert main([ORDER, READINGS, "--svg", str(file)]) == 0
        assert ElementTree.parse(file).getroot().tag == f"{SVG}svg"

    def test_in_the_documentation_is_the_one_that_is_drawn(self, tmp_path: Path) -> None:
        file = tmp_path / "accuracy.svg"
        folder = RECORDINGS / "inotrope-duplicates-disorder"
        order, readings = str(folder / "prescription.toml"), str(folder / "readings.csv")
        assert main([order, readings, "--svg", str(file)]) == 0
        assert file.read_text() == (ROOT / "docs" / "accuracy.svg").read_text()

    def test_a_model_with_signs_of_xml_does_no_harm(self) -> None:
        bench = Bench(hours=0.5)
        result = measured(bench.order, bench.readings())
        drawn = picture(result, structs.replace(bench.order.pump, model="<b>&"))
        assert any("<b>&, one count" in (text.text or "") for text in ElementTree.fromstring(drawn).iter())


class TestWhatCannotBeDone:
    @pytest.mark.parametrize(
        ("header", "row", "words"),
        [
            ("time,state,rate_ml_h", "{time},running,10", "no reading has a volume_ml; record with"),
            ("time,state,volume_ml", "{time},running,{count}", "no running reading has a rate_ml_h"),
            ("time,state,rate_ml_h,volume_ml", "{time},idle,0,5", "never 'running'"),
            ("time,state,rate_ml_h,volume_ml", "{time},running,10,5", "nothing was delivered"),
            ("time,rate_ml_h,volume_ml", "{time},10,5", "no column 'state'"),
            ("time,state", "yesterday,running", "not one row could be read"),
        ],
    )
    def test_is_status_2_and_a_sentence_with_what_to_do(
        self, capsys: pytest.CaptureFixture[str], tmp_path: Path, header: str, row: str, words: str
    ) -> None:
        rows = [
            row.format(time=f"2026-05-13T10:{minute:02}:{second:02}Z", count=round(minute / 6, 1))
            for minute in range(60)
            for second in range(0, 60, 20)
        ]
        file = tmp_path / "readings.csv"
        file.write_text("\n".join([header, *rows]) + "\n")
        assert main([ORDER, str(file)]) == 2
        said = capsys.readouterr()
        assert said.out == ""
        assert said.err.startswith(f"accuracy: {file}: ")
        assert words in said.err

    def test_three_readings_are_too_short(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        head = Path(READINGS).read_text().splitlines(keepends=True)
        file = tmp_path / "readings.csv"
        file.write_text("".join([head[0], *head[200:203]]))
        assert main([ORDER, str(file)]) == 2
        assert "nowhere ran for 2 min" in capsys.readouterr().err

    def test_a_picture_that_cannot_be_written_is_said(
        self, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        assert main([ORDER, READINGS, "--svg", str(tmp_path / "no" / "such.svg")]) == 2
        assert "such.svg: cannot be written: No such file" in capsys.readouterr().err

    def test_a_file_that_is_not_there_is_said(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main([ORDER, "nofile"]) == 2
        assert capsys.readouterr().err == (
            "accuracy: nofile: cannot be read: No such file or directory; "
            "look at its name and its permissions\n"
        )


def test_readings_may_come_from_standard_input() -> None:
    with Path(READINGS).open("rb") as readings:
        done = subprocess.run(
            [sys.executable, "-m", "gateway", "accuracy", ORDER, "-", "--json"],
            stdin=readings,
            capture_output=True,
            cwd=ROOT,
            check=False,
        )
    assert done.returncode == 0
    assert json.loads(done.stdout)["set_rate_ml_h"] == 0.8


def test_the_gateway_does_not_load_what_only_this_command_needs() -> None:
    program = "import sys, gateway.cli, gateway.app; sys.exit('gateway.accuracy.trumpet' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False).returncode == 0
