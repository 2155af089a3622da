"""Which family answers at a port: asked with queries only, in a safe order, and what silence may mean."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from drivers import families
from drivers.link import LinkDown
from gateway import probe as probing
from gateway.probe import attempts, in_words, main, names_to_try, probe
from simulator.device import Device
from simulator.scenario import load_scenario
from simulator.wire.families import WIRES
from tests.gateway.virtual_line import VirtualLine


def probed(line: VirtualLine, names: tuple[str, ...] = ("alaris",), **options):
    return probe("/dev/pump", attempts(names), lambda settings: line.open(), line, for_ms=5_000, **options)


def pump(*faults: tuple[str, float]) -> VirtualLine:
    device = Device("alaris", load_scenario("steady"))
    for kind, strength in faults:
        device.pump.befall(device.pump.mishaps.begin(kind, 0, strength), 0)
    return VirtualLine(device)


class Stranger:
    """Answers whatever it is asked in a language of its own."""

    def is_plugged_in(self, now_ms: int) -> bool:
        return True

    def receive(self, data: bytes, now_ms: int):
        return [SimpleNamespace(at_ms=now_ms + 20, data=b"\x80\x00" * 8)]

    def unasked(self, now_ms: int):
        return ()

    def next_change_ms(self, now_ms: int) -> int | None:
        return None


def test_a_pump_that_answers_is_named_with_its_serial_number():
    line = pump()
    report = probed(line)
    assert report.answered is not None
    assert (report.answered.family, report.answered.baud) == ("alaris", 38_400)
    assert [one.serial for one in report.answered.pumps] == ["8002-51740"]
    assert line.now < 1_000, "nobody waits longer than it takes"
    assert "alaris answers: Alaris (Asena) GH, CC, TIVA syringe pumps" in in_words(report)
    assert "serial number 8002-51740" in in_words(report)


@pytest.mark.parametrize("name", sorted({*families.known()} & {*WIRES}))
def test_a_pump_of_every_family_is_found(name):
    line = VirtualLine(Device(name, load_scenario("steady")))
    report = probed(line, (name,))
    assert report.answered is not None
    assert report.answered.family == name


def test_nothing_is_sent_but_queries():
    line = pump()
    probed(line)
    frames = [frame + b"\r" for frame in line.written.split(b"\r") if frame]
    assert frames
    assert all(families.find("alaris").may_send(frame) for frame in frames)


def test_a_slow_pump_is_waited_for_as_long_as_it_speaks():
    report = probed(pump(("slow", 3.0)))
    assert report.answered is not None


def test_of_a_silent_port_it_is_said_where_to_look():
    line = VirtualLine(None)
    report = probed(line, not_tried=("newera",))
    assert report.answered is None
    assert report.problem is not None
    assert report.problem.startswith("Nothing was heard. Is the pump on")
    assert "Not asked: newera" in report.problem
    assert 5_000 <= line.now <= 6_000
    assert "alaris at 38400 baud: silent" in in_words(report)


def test_something_that_nobody_understands_is_told_from_silence():
    report = probed(VirtualLine(Stranger()))
    assert report.answered is None
    assert report.problem is not None
    assert report.problem.startswith("Something speaks (")


def test_a_port_that_cannot_be_opened_says_why_and_ends_it():
    def refuse(settings):
        raise LinkDown("/dev/pump is held by another program: end it")

    line = VirtualLine(None)
    report = probe("/dev/pump", attempts(("alaris",)), refuse, line, for_ms=5_000)
    assert (report.problem, report.tried) == ("/dev/pump is held by another program: end it", ())


def test_every_family_is_asked_but_scripts_and_those_of_the_bench_come_last_if_at_all():
    names, not_tried = names_to_try(families.known(), bench=False)
    assert {*names, *not_tried} == {*families.known()} - {"dummy"}
    assert all(families.find(name).traits.status == "bench" for name in not_tried)
    everybody, nobody = names_to_try(families.known(), bench=True)
    assert everybody == (*names, *not_tried)
    assert nobody == ()


def test_all_families_can_be_asked_and_usual_speeds_come_first():
    names, _ = names_to_try(families.known(), bench=True)
    planned = attempts(names)
    assert {attempt.family for attempt in planned} == {*names}
    usual = [attempt.line.baud == families.find(attempt.family).line.baud for attempt in planned]
    assert usual == sorted(usual, reverse=True)


def test_an_address_that_no_family_can_have_is_an_error():
    with pytest.raises(ValueError, match="alaris pumps have no address"):
        attempts(("alaris",), address=3)


def test_the_command_prints_json_and_its_status_says_whether_one_answered(tmp_path, capsys, monkeypatch):
    line = pump()
    monkeypatch.setattr(probing, "open_link", lambda port, settings: line.open())
    monkeypatch.setattr(probing, "SystemClock", lambda: line)
    assert main(["/dev/pump", "--family", "alaris", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    [found] = said["answered"]["pumps"]
    assert (found["address"], found["serial"]) == (None, "8002-51740")
    assert (said["port"], said["problem"]) == ("/dev/pump", None)


def test_a_port_that_is_not_there_ends_with_1_and_a_sentence(tmp_path, capsys):
    assert main([str(tmp_path / "none")]) == 1
    assert "is not there: plug in the cable" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--family", "dummy"], "is no pump that could answer"),
        (["--family", "alariss"], "'alariss' is not known"),
        (["--seconds", "0"], "--seconds 0 is not between"),
        (["--baud", "-1"], "--baud -1 is not possible"),
        (["--family", "alaris", "--address", "3"], "alaris pumps have no address"),
    ],
)
def test_what_makes_no_sense_is_refused(capsys, arguments, words):
    with pytest.raises(SystemExit) as ended:
        main(["/dev/pump", *arguments])
    assert ended.value.code == 2
    assert words in capsys.readouterr().err
