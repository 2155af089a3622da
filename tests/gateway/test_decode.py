"""A capture decoded: the readings that were had live, the same bytes each time, and what else is said."""

from __future__ import annotations

import io

import pytest

from drivers import families
from drivers.capture import Capture, Entry, EntryKind, parse_capture, write_capture
from drivers.link import TappedLink
from drivers.reading import PumpState, Reading
from gateway.core.timeline import Moment
from gateway.decode import decode, main
from gateway.dialogue import Dialogue, pumps_that_can_be
from gateway.readings import Row, header_line, read_rows, reading_line
from simulator.device import Device
from simulator.scenario import load_scenario
from simulator.wire.families import WIRES
from tests.gateway.virtual_line import VirtualLine

BEGAN = "2026-05-04T07:00:00.000Z"
BEGAN_UTC_MS = 1_777_878_000_000


def recorded(
    scenario: str,
    until_ms: int,
    *,
    family_name: str = "alaris",
    poll_ms: int = 2_000,
    faults: tuple[tuple[str, float], ...] = (),
) -> tuple[Capture, list[Reading]]:
    """A dialogue with a simulated pump: its recording, and the readings that were had of it live."""
    device = Device(family_name, load_scenario(scenario))
    for kind, strength in faults:
        device.pump.befall(device.pump.mishaps.begin(kind, 5_000, strength), 5_000)
    line = VirtualLine(device)
    entries: list[Entry] = []
    link = TappedLink(line, line, entries.append)
    family = families.find(family_name)
    session = family.open_session(pumps_that_can_be(family, (None,), poll_ms))
    dialogue = Dialogue(family, session, link, line.now_ms)
    facts: list[object] = []
    while line.now < until_ms:
        facts += dialogue.turn(0.25).facts
    head = (("family", family_name), ("date", BEGAN), ("poll", f"{poll_ms // 1000}s"))
    return Capture(head=head, entries=tuple(entries)), [fact for fact in facts if isinstance(fact, Reading)]


def as_csv(readings: list[Reading]) -> str:
    return header_line() + "".join(
        reading_line(Moment(monotonic_ms=one.at_ms, utc_ms=BEGAN_UTC_MS + one.at_ms, synced=True), one)
        for one in readings
    )


@pytest.mark.parametrize("scenario", ["steady", "occlusion", "bag_empty", "noisy_line", "stopped"])
def test_a_capture_gives_byte_for_byte_the_readings_that_were_had_live(scenario):
    capture, readings = recorded(scenario, 200_000)
    assert len(readings) > 60
    decoded = decode("alaris", parse_capture(write_capture(capture)))
    assert "".join(decoded.lines) == as_csv(readings)
    assert (decoded.matched.others, decoded.alarms_not_said) == (0, 0)


@pytest.mark.parametrize("family_name", sorted({*families.known()} & {*WIRES}))
@pytest.mark.parametrize("scenario", ["occlusion", "noisy_line"])
def test_so_it_does_with_every_family(family_name, scenario):
    capture, readings = recorded(scenario, 200_000, family_name=family_name)
    assert len(readings) > 60
    decoded = decode(family_name, capture)
    assert "".join(decoded.lines) == as_csv(readings)
    assert decoded.matched.others == 0


@pytest.mark.parametrize("fault", ["slow", "lossy_line", "doubled", "noisy_line"])
def test_so_it_does_when_the_line_was_bad(fault):
    strength = {"slow": 3.0, "lossy_line": 0.3, "doubled": 0.3, "noisy_line": 0.01}[fault]
    capture, readings = recorded("occlusion", 200_000, faults=((fault, strength),))
    assert len(readings) > 20
    decoded = decode("alaris", capture)
    assert decoded.matched.others == 0
    assert "".join(decoded.lines) == as_csv(readings)


def test_a_capture_that_is_decoded_twice_gives_the_same_bytes(tmp_path, capsys):
    file = tmp_path / "a.cap"
    file.write_text(write_capture(recorded("noisy_line", 60_000)[0]))
    said = []
    for _ in range(2):
        assert main(["alaris", str(file)]) == 0
        said.append(capsys.readouterr())
    assert said[0] == said[1]
    assert said[0].out.startswith("time,state,")
    assert said[0].out.splitlines()[1].startswith("2026-05-04T07:00:00.")


def test_the_readings_can_be_read_as_any_others():
    capture, readings = recorded("occlusion", 60_000)
    rows = list(read_rows(decode("alaris", capture).lines))
    assert all(isinstance(row, Row) for row in rows)
    assert [row.reading for row in rows] == readings
    assert rows[0].moment.utc_ms == BEGAN_UTC_MS + readings[0].at_ms


def test_a_port_that_was_lost_and_came_back_begins_a_new_dialogue():
    first, _ = recorded("steady", 10_000)
    again = [Entry(at_ms=entry.at_ms + 60_000, kind=entry.kind, data=entry.data) for entry in first.entries]
    lost = Entry(at_ms=20_000, kind=EntryKind.DOWN)
    decoded = decode("alaris", Capture(head=first.head, entries=(*first.entries, lost, *again)))
    times = [line.split(",")[7] for line in decoded.lines[1:]]
    half = len(times) // 2
    assert [f"{float(time) + 60:.3f}" for time in times[:half]] == times[half:]
    assert not decoded.faults


def test_what_cannot_be_read_is_counted_with_the_place_of_the_first(tmp_path, capsys):
    file = tmp_path / "noise.cap"
    file.write_text("family: alaris\ndate: 2026-05-04\n\n0 up\n1500 rx 2158580d\n1600 rx 2158580d\n")
    assert main(["alaris", str(file)]) == 0
    said = capsys.readouterr()
    assert said.out == header_line()
    assert "2 faults (2 garbled), 8 bytes; the first at 1.500 s" in said.err
    assert "the date 2026-05-04 has no time with its offset: it is taken as UTC" in said.err


def test_queries_that_this_driver_would_not_have_asked_are_counted_and_said():
    capture, _ = recorded("steady", 20_000)
    strange = tuple(
        Entry(at_ms=entry.at_ms, kind=entry.kind, data=b"?" if entry.kind is EntryKind.TX else entry.data)
        for entry in capture.entries
    )
    decoded = decode("alaris", Capture(head=capture.head, entries=strange))
    assert decoded.matched.others > 0
    assert any("are not those that this driver asks then" in words for words in decoded.in_words())


def test_a_capture_of_a_line_on_which_a_pump_only_speaks_is_read_without_queries(tmp_path, capsys):
    file = tmp_path / "dummy.cap"
    words = b"state=running rate_ml_h=10 volume_ml=0.5\n".hex()
    file.write_text(f"family: dummy\ndate: {BEGAN}\n\n0 up\n1000 rx {words}\n2000 note hello\n")
    assert main(["dummy", str(file)]) == 0
    said = capsys.readouterr()
    assert "2026-05-04T07:00:01.000Z,running,10,0.5,,,,1.000,synced,,,,,," in said.out
    assert "1 readings do not say" not in said.out
    assert "whether an alarm is active" in said.err


@pytest.mark.parametrize(
    ("text", "arguments", "words"),
    [
        ("hello\n", [], "line 1: 'hello' is not `key: value`"),
        ("family: alaris\n\nx up\n", [], "line 3: 'x' is no time"),
        ("family: alaris\n\n0 up\n", ["--address", "3"], "alaris pumps have no address"),
        ("family: alaris\npoll: often\n\n0 up\n", [], "often"),
        ("family: alaris\naddress: left\n\n0 up\n", [], "the head's address 'left' is no list of numbers"),
    ],
)
def test_what_is_no_capture_is_refused_with_its_place(tmp_path, capsys, text, arguments, words):
    file = tmp_path / "a.cap"
    file.write_text(text)
    assert main(["alaris", str(file), *arguments]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert words in said.err


def test_a_family_or_a_file_that_is_not_known_is_refused(tmp_path, capsys):
    assert main(["alariss", "x.cap"]) == 2
    assert "'alariss' is not known; known are alaris" in capsys.readouterr().err
    assert main(["alaris", str(tmp_path / "none.cap")]) == 2
    assert "none.cap: cannot be read: No such file" in capsys.readouterr().err
    (tmp_path / "bytes.cap").write_bytes(b"\xff\xfe")
    assert main(["alaris", str(tmp_path / "bytes.cap")]) == 2
    assert "is not UTF-8 text" in capsys.readouterr().err


def test_a_date_that_nobody_can_read_is_said_and_the_clock_is_not_trusted():
    capture = parse_capture("family: dummy\n\n5 rx " + b"state=idle alarms=\n".hex() + "\n")
    decoded = decode("dummy", capture)
    assert decoded.lines[1].startswith("1970-01-01T00:00:00.005Z,idle,,,,,,0.005,unsynced")
    assert "the head has no date" in decoded.in_words()[0]


def test_a_capture_can_come_from_standard_input(monkeypatch, capsys):
    text = "family: dummy\n\n5 rx " + b"state=idle alarms=\n".hex() + "\n"
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    assert main(["dummy", "-"]) == 0
    assert capsys.readouterr().out.count("\n") == 2


def test_every_field_of_a_reading_is_written_and_read_back():
    reading = Reading(
        pump="pump", at_ms=12_345, state=PumpState.BOLUS, rate_ml_h=0.1, volume_ml=1234.567, vtbi_ml=3.0,
        pressure_mmhg=-2.5, alarms=("empty", "vendor:X_1"), independent_ml=0.0, battery_percent=97.0,
        on_mains=False, bolus_ml=1e-7, lockout_s=600.0, serial='A "B", 7',
    )  # fmt: skip
    moment = Moment(monotonic_ms=12_345, utc_ms=BEGAN_UTC_MS + 7, synced=False)
    [row] = read_rows([header_line(), reading_line(moment, reading)])
    assert row == Row(moment, reading)
