"""A pump at the end of a cable, in virtual time: what comes back, when, and through which wire."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from simulator.commands import obey
from simulator.device import Device, Transmission
from simulator.scenario import load_scenario
from simulator.wire.alaris import AlarisWire, frame
from simulator.wire.families import WIRES
from tests.simulator.scenarios import MIN, H, S, constant, fault, scenario

ASK = frame(b"INF")


def asked_each_second(device: Device, seconds: int) -> list[Transmission]:
    return [sent for at_s in range(seconds) for sent in device.receive(ASK, at_s * S)]


def device_with(kind: str, strength: float | None = None, seed: int = 1) -> Device:
    return Device("alaris", scenario(None, fault(kind, 0, strength=strength), seed=seed))


def test_an_answer_takes_the_pumps_time_and_that_of_its_bytes_on_the_line() -> None:
    [sent] = Device("alaris", scenario()).receive(ASK, 1000)
    assert sent.at_ms == 1000 + 15 + round(len(sent.data) * 10 / 38.4)
    assert sent.data == sent.reply


def test_two_questions_at_once_are_answered_one_after_the_other() -> None:
    first, second = Device("alaris", scenario()).receive(ASK + frame(b"INF_VI"), 0)
    assert (first.request, second.request) == (b"INF", b"INF_VI")
    assert second.at_ms >= first.at_ms + 15


def test_a_question_in_pieces_is_answered_when_it_is_whole() -> None:
    device = Device("alaris", scenario())
    assert [len(device.receive(ASK[i : i + 1], i)) for i in range(len(ASK))] == [0] * (len(ASK) - 1) + [1]


def test_every_answer_carries_what_was_true_when_it_was_given() -> None:
    device = Device("alaris", scenario())
    for sent in asked_each_second(device, 60):
        assert sent.truth == device.pump.truth_at(sent.answered_ms)
        assert f"^{sent.truth.counter_ml:.3f}^ml^".encode() in sent.data


def test_a_pulled_cable_answers_nothing_until_it_is_in_again() -> None:
    device = Device("alaris", load_scenario("cable_pulled"))
    timetable = {7_999: True, 8_000: False, 67_999: False, 68_000: True}
    assert {at_ms: device.is_plugged_in(at_ms) for at_ms in timetable} == timetable
    assert {at_ms: bool(device.receive(ASK, at_ms)) for at_ms in timetable} == timetable


def test_a_silent_pump_hears_and_says_nothing() -> None:
    assert [sent.data for sent in asked_each_second(device_with("silent"), 10)] == [b""] * 10


def test_a_slow_pump_answers_late_and_the_next_question_waits_for_it() -> None:
    late = [sent.at_ms - sent.answered_ms for sent in asked_each_second(device_with("slow", 2.0), 3)]
    assert late[0] > 2000
    assert late == sorted(late)


@pytest.mark.parametrize(("kind", "least", "most"), [("lossy_line", 30, 70), ("doubled", 130, 170)])
def test_answers_are_lost_or_doubled_as_often_as_was_said(kind: str, least: int, most: int) -> None:
    arrived = [sent for sent in asked_each_second(device_with(kind, 0.5), 100) if sent.data]
    assert least <= len(arrived) <= most
    assert all(sent.data == sent.reply for sent in arrived)


def test_noise_changes_bytes_and_never_their_number() -> None:
    sent = asked_each_second(device_with("noisy_line", 0.01), 200)
    assert all(len(one.data) == len(one.reply) for one in sent)
    garbled = [one for one in sent if one.data != one.reply]
    assert 0.2 * len(sent) < len(garbled) < 0.9 * len(sent)


def test_on_a_noisy_line_some_questions_are_not_understood_and_get_no_answer() -> None:
    sent = asked_each_second(device_with("noisy_line", 0.05), 200)
    assert 0 < sum(bool(one.reply) for one in sent) < 200


@pytest.mark.parametrize("kind", ["noisy_line", "lossy_line", "doubled"])
def test_one_seed_is_one_wire(kind: str) -> None:
    runs = [asked_each_second(device_with(kind, 0.1, seed), 100) for seed in (5, 5, 6)]
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]


def test_a_family_that_is_not_there_is_refused_with_those_that_are() -> None:
    with pytest.raises(ValueError, match="'alariss' is no family here; known are alaris"):
        Device("alariss", scenario())


def test_lines_typed_at_the_pump_are_answered_each_with_one_object() -> None:
    device = Device("alaris", scenario())
    dialogue = [
        ("fault occlusion_downstream", {"fault": "occlusion_downstream", "t_s": 60.0, "strength": 1.0}),
        ("clear", {"cleared": ("occlusion_downstream",), "t_s": 60.0}),
        ("fault noisy_line 0.5", {"fault": "noisy_line", "t_s": 60.0, "strength": 0.5}),
        ("set rate_ml_h 20", {"rate_ml_h": 20.0, "t_s": 60.0}),
        ("press demand", {"demand": "not set up", "t_s": 60.0}),
        ("quit", {"quit": True, "t_s": 60.0}),
    ]
    assert [(line, obey(device, line, MIN)) for line, _ in dialogue] == dialogue
    truth = obey(device, "truth", MIN)
    assert (truth["rate_ml_h"], truth["state"], truth["faults"]) == (20.0, "running", ("noisy_line",))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", "makes no sense"),
        ("falut stopped", "makes no sense"),
        ("fault", "makes no sense"),
        ("fault oclusion", "known are"),
        ("fault noisy_line much", "'much' is no number"),
        ("fault noisy_line 2", "from 0 to 1"),
        ("set rate_ml_h nan", "no number"),
        ("set rate_ml_h -1", "no number"),
        ("set rate_ml_h 99999", "from 0 to 10000"),
        ("set color red", "makes no sense"),
    ],
)
def test_a_line_that_makes_no_sense_is_answered_with_an_error_and_does_nothing(line: str, words: str) -> None:
    device = Device("alaris", scenario())
    answer = obey(device, line, MIN)
    assert list(answer) == ["error"]
    assert words in answer["error"]
    assert device.pump.truth_at(MIN) == Device("alaris", scenario()).pump.truth_at(MIN)


@given(st.text(max_size=200))
def test_whatever_is_typed_is_answered(line: str) -> None:
    assert obey(Device("alaris", scenario()), line, MIN)


def test_the_log_holds_what_happened_until_now_and_no_more() -> None:
    pump = Device("alaris", scenario(constant(60.0, H), fault("paused", 5 * MIN, 2 * MIN))).pump
    assert [(one.at_ms, one.state) for one in pump.log_until(6 * MIN)] == [
        (0, "running"),
        (5 * MIN, "paused"),
    ]
    assert [one.state for one in pump.log_until(10 * MIN)] == ["running", "paused", "running"]
    assert pump.log_until(6 * MIN)[1].counter_ml == pytest.approx(5.0, abs=0.1)


def test_one_pump_of_two_can_be_meant_by_its_address(monkeypatch: pytest.MonkeyPatch) -> None:
    one_of_many = structs.replace(
        WIRES["alaris"], addresses=(1, 2, 3), open_wire=lambda serials: AlarisWire({None: serials[1]})
    )
    monkeypatch.setitem(WIRES, "chain", one_of_many)
    device = Device("chain", {1: scenario(), 3: scenario()})
    assert obey(device, "pump 3 fault stopped", MIN)["fault"] == "stopped"
    assert obey(device, "pump 1 truth", MIN)["faults"] == ()
    assert obey(device, "pump 3 truth", MIN)["faults"] == ("stopped",)
    assert obey(device, "pump 2 truth", MIN)["error"] == "there is no pump '2' here; there is 1, 3"


@pytest.mark.parametrize(
    ("family", "addresses", "words"),
    [
        ("alaris", (1,), "alaris pumps have no address, and a port each"),
        ("chain", (1, 4), "chain pumps have the addresses 1 to 3, not 4"),
        ("chain", (None, 1), "chain pumps have the addresses 1 to 3, not none"),
        ("chain", (), "a line without a pump answers nothing"),
    ],
)
def test_a_line_takes_only_the_pumps_that_its_family_can_have(
    family: str, addresses: tuple[int | None, ...], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(WIRES, "chain", structs.replace(WIRES["alaris"], addresses=(1, 2, 3)))
    with pytest.raises(ValueError, match=words):
        Device(family, {address: scenario() for address in addresses})
