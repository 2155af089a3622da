"""``dripwatch replay`` on recordings with known truth. Its laws: ``test_laws_of_replay.py``."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.order import parse_order
from gateway.core.prescription import Prescription
from gateway.readings import read_rows
from gateway.recording import Tally
from gateway.replay import Event, Revision, StateLine, main, replay

RECORDINGS = Path(__file__).parents[1] / "recordings"
NAMES = sorted(path.parent.name for path in RECORDINGS.glob("*/truth.json"))
NOT_YET = {
    # what must be raised needs a kind that is not there yet
}


def prescription_of(name: str) -> Prescription:
    return parse_order((RECORDINGS / name / "prescription.toml").read_text())


def lines_of(name: str) -> list[str]:
    return (RECORDINGS / name / "readings.csv").read_text().splitlines(keepends=True)


def events_of(prescription: Prescription, lines: Iterable[str]) -> list[Event]:
    return [line for line in replay(prescription, read_rows(lines), Tally()) if isinstance(line, Event)]


def alerts(events: Iterable[Event]) -> list[Event]:
    return [event for event in events if event.phase == "start" and event.priority != "info"]


@pytest.mark.parametrize("name", NAMES)
class TestRecordings:
    def test_what_must_be_raised_is_raised_in_time(self, name: str) -> None:
        truth = json.loads((RECORDINGS / name / "truth.json").read_text())
        raised = alerts(events_of(prescription_of(name), lines_of(name)))
        for wanted in truth["expected"]:
            in_time = [
                event
                for event in raised
                if event.kind in wanted["kinds"] and wanted["earliest"] <= event.time <= wanted["deadline"]
            ]
            if any((name, kind) in NOT_YET for kind in wanted["kinds"]):
                assert not in_time, "it is there now: take it out of NOT_YET"
            else:
                assert in_time, (wanted, raised)

    def test_nothing_else_is_raised(self, name: str) -> None:
        truth = json.loads((RECORDINGS / name / "truth.json").read_text())
        allowed = set(truth["tolerated"]).union(*(wanted["kinds"] for wanted in truth["expected"]))
        raised = alerts(events_of(prescription_of(name), lines_of(name)))
        assert [event for event in raised if event.kind not in allowed] == []

    def test_events_are_in_order_of_time_and_each_end_has_its_start(self, name: str) -> None:
        events = events_of(prescription_of(name), lines_of(name))
        assert [event.time for event in events] == sorted(event.time for event in events)
        going_on: set[tuple[str, str | None]] = set()
        for event in events:
            if event.priority == "info":
                assert event.phase == "start"
            elif event.phase == "start":
                assert (event.kind, event.code) not in going_on
                going_on.add((event.kind, event.code))
            else:
                going_on.remove((event.kind, event.code))


SHORT = "infliximab-kvo-left"
HEADER, *BODY = lines_of(SHORT)
ORDER = prescription_of(SHORT)
PRESCRIPTION = (RECORDINGS / SHORT / "prescription.toml").read_text()


@settings(max_examples=15, deadline=None)
@given(st.integers(0, len(BODY)), st.booleans())
def test_nothing_is_told_ahead_of_a_revision_either(kept: int, on_programming: bool) -> None:
    revisions = [
        Revision(
            at_utc_ms=1_778_410_800_000 + minutes * 60_000,
            text=PRESCRIPTION.replace("rate_ml_h = 20.0", f"rate_ml_h = {rate_ml_h}"),
            on_programming=on_programming,
            effective_by_utc_ms=1_778_418_000_000 if on_programming else None,
        )
        for minutes, rate_ml_h in ((10, "40.0"), (50, "25.0"))
    ]

    def told(lines: list[str]) -> list[Event]:
        rows = read_rows([HEADER, *lines])
        return [line for line in replay(ORDER, rows, Tally(), revisions=revisions) if isinstance(line, Event)]

    whole = told(BODY)
    assert [event.time for event in whole] == sorted(event.time for event in whole)
    part = told(BODY[:kept])
    assert part == whole[: len(part)]


class TestCommand:
    def run(self, *arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [sys.executable, "-m", "gateway.replay", *arguments],
            input=stdin,
            capture_output=True,
            cwd=RECORDINGS.parents[1],
            check=False,
        )

    def test_it_prints_one_object_a_line_with_all_fields_and_says_what_it_did_not_use(self) -> None:
        name = "inotrope-duplicates-disorder"
        directory = RECORDINGS / name
        done = self.run(str(directory / "prescription.toml"), str(directory / "readings.csv"))
        assert done.returncode == 0
        (line,) = done.stdout.splitlines()
        assert json.loads(line) == {
            "time": "2026-05-12T05:30:45.003Z",
            "kind": "dose_started",
            "phase": "start",
            "priority": "info",
            "expected_ml": 0.003,
            "delivered_ml": 0.0,
            "message": "Dose 1 started.",
            "code": None,
            "since": None,
        }
        assert done.stderr.decode() == ("replay: 2385 rows, 368 dropped as not later than one before\n")

    def test_readings_may_come_from_standard_input_and_broken_bytes_spoil_their_row_only(self) -> None:
        directory = RECORDINGS / "antibiotic_q8h-missed-dose"
        data = (directory / "readings.csv").read_bytes().splitlines(keepends=True)
        data.insert(100, b"\xff\xfe\x00,,,\n")
        done = self.run(str(directory / "prescription.toml"), "-", stdin=b"".join(data))
        assert done.returncode == 0
        kinds = [json.loads(line)["kind"] for line in done.stdout.splitlines()]
        assert kinds == ["dose_started", "dose_ended", "not_started"]
        assert b"1 unreadable (the first in line 101" in done.stderr

    @pytest.mark.parametrize(
        ("prescription", "readings", "words"),
        [
            ("no such file", "-", "No such file"),
            (str(RECORDINGS / SHORT / "readings.csv"), "-", "readings.csv"),
            (str(RECORDINGS / SHORT / "prescription.toml"), "no such file", "No such file"),
            (str(RECORDINGS / SHORT / "prescription.toml"), "-", "no line at all"),
            ("-", "-", "only one of the two"),
        ],
    )
    def test_what_cannot_be_read_is_status_2_and_a_sentence(
        self, prescription: str, readings: str, words: str
    ) -> None:
        done = self.run(prescription, readings)
        assert done.returncode == 2
        assert done.stdout == b""
        assert words.lower() in done.stderr.decode().lower()
        assert "Traceback" not in done.stderr.decode()

    def test_a_file_that_is_not_there_is_said_with_what_to_do(self) -> None:
        done = self.run(str(RECORDINGS / SHORT / "prescription.toml"), "nofile")
        assert done.stderr.decode() == (
            "replay: nofile: cannot be read: No such file or directory; "
            "look at its name and its permissions\n"
        )

    @pytest.mark.parametrize(
        ("rows", "status", "words"),
        [
            ("yesterday,running\n", 2, "-: not one row could be read"),
            ("yesterday,running\ntoday,running\n", 2, "2 rows, 2 unreadable (the first in line 2: time:"),
            ("yesterday,running\n2026-05-04T07:00:05Z,running\n", 0, "replay: 2 rows, 1 unreadable"),
            ("2026-05-04T07:00:05Z,running\n", 0, "replay: 1 row\n"),
            ("", 0, "replay: 0 rows\n"),
        ],
    )
    def test_readings_of_which_not_one_row_can_be_read_are_not_a_success(
        self, rows: str, status: int, words: str
    ) -> None:
        order = str(RECORDINGS / SHORT / "prescription.toml")
        done = self.run(order, "-", stdin=f"time,state\n{rows}".encode())
        assert done.returncode == status
        assert words in done.stderr.decode()

    def test_a_revision_takes_force_at_its_time(self, tmp_path: Path) -> None:
        revised = tmp_path / "revised.toml"
        text = (RECORDINGS / SHORT / "prescription.toml").read_text()
        revised.write_text(text.replace("rate_ml_h = 20.0", "rate_ml_h = 30.0"))
        directory = RECORDINGS / SHORT
        done = self.run(
            str(directory / "prescription.toml"),
            str(directory / "readings.csv"),
            "--revision",
            "2026-05-10T13:10:02.500+02:00",
            str(revised),
            "--revision",
            "2027-01-01T00:00:00Z",
            str(revised),
        )
        assert done.returncode == 0, done.stderr
        (changed,) = [
            line for line in map(json.loads, done.stdout.splitlines()) if line["kind"] == "order_changed"
        ]
        assert changed["time"] == "2026-05-10T11:10:02.500Z"
        assert b"1 of the revisions would have come after the last reading" in done.stderr

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            (["--revision", "yesterday", "FILE"], "yesterday: not a date and time with its offset"),
            (["--revision", "2026-05-10T13:10:00", "FILE"], "not a date and time with its offset"),
            (["--revision", "2026-05-10T13:10:00Z", "no such file"], "No such file"),
            (["--revision", "2026-05-10T13:10:00Z", "READINGS"], "readings.csv: "),
            (["--revision", "2026-05-10T13:10:00Z"], "expected 2 arguments"),
            (
                ["--revision", "2026-05-10T13:10:00Z", "-", "--revision", "2026-05-10T14:10:00Z", "-"],
                "only one",
            ),
            (["--on-programming"], "give --revision TIME FILE too"),
            (["--revision", "2026-05-10T13:10:00Z", "FILE", "--effective-by", "x"], "give --on-programming"),
            (
                ["--revision", "2026-05-10T13:10:00Z", "FILE", "--on-programming", "--effective-by", "x"],
                "x: not a date",
            ),
        ],
    )
    def test_a_revision_that_cannot_be_used_is_status_2_and_a_sentence(
        self, options: list[str], words: str
    ) -> None:
        directory = RECORDINGS / SHORT
        files = {
            "FILE": str(directory / "prescription.toml"),
            "READINGS": str(directory / "readings.csv"),
        }
        done = self.run(files["FILE"], files["READINGS"], *(files.get(word, word) for word in options))
        assert done.returncode == 2
        assert done.stdout == b""
        assert words in done.stderr.decode()
        assert "Traceback" not in done.stderr.decode()

    def test_states_are_a_line_each_minute(self) -> None:
        directory = RECORDINGS / SHORT
        done = self.run(str(directory / "prescription.toml"), str(directory / "readings.csv"), "--states")
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        states = [line for line in lines if "verdict" in line]
        assert len(states) == len({line[:16] for line in BODY})
        assert set(states[0]) == {
            "time",
            "verdict",
            "decidable_after_s",
            "expected_ml",
            "delivered_ml",
            "occurrence",
            "rate_ml_h",
            "pump_error_percent",
            "pump_error_half_width_percent",
            "ends_at",
            "bag_empty_at",
            "occlusion_blind_s",
        }
        middle = next(state for state in states if state["time"].startswith("2026-05-10T12:10"))
        assert middle["verdict"] == "on_plan"
        assert middle["occurrence"] == {"number": 1, "due": "2026-05-10T11:00:00.000Z"}
        assert middle["rate_ml_h"] == 150.0
        assert middle["ends_at"].startswith("2026-05-10T13:")
        assert middle["bag_empty_at"] is None
        assert {state["verdict"] for state in states} == {"not_expected", "too_early", "on_plan", "deviation"}


def test_it_holds_one_row_at_a_time() -> None:
    """However long the input: a replay is a stream."""
    seen: list[int] = []

    def endless() -> Iterable[str]:
        yield HEADER
        for number, line in enumerate(BODY):
            seen.append(number)
            yield line

    stream = replay(ORDER, read_rows(endless()), Tally(), states=True)
    first = next(iter(stream))
    assert isinstance(first, StateLine)
    assert len(seen) == 1


def test_main_is_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-", "-"]) == 2
    assert "only one of the two" in capsys.readouterr().err
