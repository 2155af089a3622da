"""Recording a line: what is written and when, notes, a port that goes and comes, and when it ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from drivers import families
from drivers.capture import Entry, EntryKind, parse_capture
from drivers.link import LinkDown, TappedLink
from gateway import capture as capture_command
from gateway.capture import Listener, Recorder, RecordingFull, main
from gateway.decode import decode
from gateway.dialogue import pumps_that_can_be
from simulator.device import Device
from simulator.scenario import load_scenario
from tests.gateway.virtual_line import VirtualLine

HEAD = (("family", "alaris"), ("date", "2026-05-04T07:00:00.000Z"), ("poll", "1s"))


def recorder(file: Path, *, force: bool = False, limit_bytes: int = 10**6) -> Recorder:
    return Recorder(file, lambda: HEAD, force=force, limit_bytes=limit_bytes)


def listener(line: VirtualLine, to: Recorder, *, asks: bool = True, **options) -> Listener:
    family = families.find("alaris")
    return Listener(
        lambda tap: TappedLink(line.open(), line, tap),
        to,
        line,
        family=family if asks else None,
        pumps=pumps_that_can_be(family, (None,), 1_000),
        **options,
    )


def pump(scenario: str = "steady", now_ms: int = 0) -> VirtualLine:
    return VirtualLine(Device("alaris", load_scenario(scenario)), now_ms)


def test_a_recorded_dialogue_has_its_times_from_0_and_can_be_decoded(tmp_path):
    line, to = pump(now_ms=70_000), recorder(tmp_path / "a.cap")
    listener(line, to).listen(lambda: line.now >= 90_000)
    to.close()
    capture = parse_capture((tmp_path / "a.cap").read_text())
    assert capture.head == HEAD
    assert capture.entries[0] == Entry(at_ms=0, kind=EntryKind.UP)
    assert 19_000 < capture.entries[-1].at_ms <= 20_000
    decoded = decode("alaris", capture)
    assert decoded.readings["pump"] >= 19
    assert (decoded.faults.total(), decoded.matched.others) == (0, 0)


def test_without_a_family_nothing_is_sent(tmp_path):
    line, to = pump(), recorder(tmp_path / "a.cap")
    listener(line, to, asks=False).listen(lambda: line.now >= 5_000)
    assert line.written == b""
    assert (tmp_path / "a.cap").read_text().endswith("\n\n0 up\n")


def test_each_entry_is_in_the_file_before_the_next_is_taken(tmp_path):
    to = recorder(tmp_path / "a.cap")
    for at_ms in (500, 600):
        to.take(Entry(at_ms=at_ms, kind=EntryKind.RX, data=b"\x01"))
        assert (tmp_path / "a.cap").read_text().endswith(f"{at_ms - 500} rx 01\n")


def test_a_recording_is_for_nobody_but_who_records(tmp_path):
    to = recorder(tmp_path / "a.cap")
    to.take(Entry(at_ms=0, kind=EntryKind.UP))
    assert (tmp_path / "a.cap").stat().st_mode & 0o077 == 0


def test_what_somebody_types_is_a_note_and_stands_in_order_of_time(tmp_path):
    to = recorder(tmp_path / "a.cap")
    typed = [[], [Entry(at_ms=10, kind=EntryKind.NOTE, words="the line was closed")], []]
    line = pump()
    listener(line, to, notes=lambda: typed.pop(0) if typed else []).listen(lambda: line.now >= 3_000)
    entries = parse_capture((tmp_path / "a.cap").read_text()).entries
    [note] = [entry for entry in entries if entry.kind is EntryKind.NOTE]
    assert note.words == "the line was closed"


def test_a_port_that_goes_away_is_recorded_as_down_and_opened_again_when_it_is_back(tmp_path):
    line, to = pump("cable_pulled"), recorder(tmp_path / "a.cap")
    warnings: list[str] = []
    [fault] = line.device.scenario.mishaps.faults
    listener(line, to, warn=warnings.append).listen(lambda: line.now >= fault.until_ms + 10_000)
    entries = parse_capture((tmp_path / "a.cap").read_text()).entries
    [down] = [entry.at_ms for entry in entries if entry.kind is EntryKind.DOWN]
    _, up_again = (entry.at_ms for entry in entries if entry.kind is EntryKind.UP)
    assert fault.at_ms <= down <= fault.at_ms + 1_500
    assert fault.until_ms <= up_again <= fault.until_ms + 2_500
    assert warnings == ["the port is lost", "the port is not there"]
    assert entries[-1].at_ms > up_again + 5_000


def test_a_port_that_is_not_there_at_the_beginning_is_an_error_and_leaves_no_file(tmp_path, capsys):
    file = tmp_path / "a.cap"
    assert main([str(tmp_path / "none"), str(file)]) == 1
    assert "is not there: plug in the cable" in capsys.readouterr().err
    assert not file.exists()


def test_a_recording_that_is_full_ends_and_can_be_read(tmp_path):
    line, to = pump(), recorder(tmp_path / "a.cap", limit_bytes=4_000)
    with pytest.raises(RecordingFull):
        listener(line, to).listen(lambda: False)
    to.close()
    assert (tmp_path / "a.cap").stat().st_size <= 4_000
    assert len(parse_capture((tmp_path / "a.cap").read_text()).entries) > 10


def test_a_recording_is_written_over_only_by_force(tmp_path, capsys):
    file = tmp_path / "a.cap"
    file.write_text("precious")
    assert main(["/dev/none", str(file)]) == 1
    assert "exists: choose another name, or write over it with --force" in capsys.readouterr().err
    with pytest.raises(FileExistsError):
        recorder(file).take(Entry(at_ms=0, kind=EntryKind.UP))
    assert file.read_text() == "precious"
    recorder(file, force=True).take(Entry(at_ms=0, kind=EntryKind.UP))
    assert file.read_text().startswith("family: alaris")


def test_a_played_recording_can_be_recorded_with_the_words_for_its_head(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(capture_command, "SystemClock", lambda: VirtualLine(None))
    (tmp_path / "one.script").write_text("0 state=idle alarms=\n")
    file = tmp_path / "a.cap"
    arguments = ["--family", "dummy", "--pump", "none", "--by", "a test", "--duration", "1s"]
    assert main([f"script:{tmp_path / 'one.script'}", str(file), *arguments]) == 0
    capture = parse_capture(file.read_text())
    head = dict(capture.head)
    assert (head["family"], head["pump"], head["by"], head["line"]) == ("dummy", "none", "a test", "9600 8N1")
    assert head["date"].endswith("Z")
    assert decode("dummy", capture).readings["pump"] == 1
    assert "19 bytes received, 0 sent" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--family", "alariss"], "'alariss' is not known"),
        (["--family", "alaris", "--address", "3"], "alaris pumps have no address"),
        (["--address", "3"], "give --family too"),
        (["--frame", "9N1"], "--frame 9N1 is not data bits, parity and stop bits"),
        (["--frame", "8N3"], "3 stop bits are not possible"),
        (["--baud", "1"], "--baud 1 is not possible"),
        (["--duration", "soon"], "soon"),
        (["--limit-mib", "65"], "invalid choice"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path, capsys, arguments, words):
    with pytest.raises(SystemExit) as ended:
        main(["/dev/pump", str(tmp_path / "a.cap"), *arguments])
    assert ended.value.code == 2
    assert words in capsys.readouterr().err


def test_a_port_that_cannot_be_opened_is_told_once(tmp_path):
    to = recorder(tmp_path / "a.cap")
    line = pump()
    warnings: list[str] = []
    opened: list[int] = []

    def open_once(tap):
        if opened:
            raise LinkDown("gone")
        opened.append(1)
        tap(Entry(at_ms=line.now, kind=EntryKind.UP))
        raise LinkDown("gone at once")

    Listener(open_once, to, line, warn=warnings.append).listen(lambda: line.now >= 20_000)
    assert warnings == ["gone at once", "gone"]
