"""The dialogue with the pumps of a Fresenius line: what is said when, and what answers and silence mean."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.family import PumpOnLine
from drivers.fresenius.session import FreseniusFamily, FreseniusSession
from drivers.reading import FaultKind, LinkFault, PumpState, Reading
from tests.drivers.bedside import Bedside, token_of
from tests.drivers.dialogue import Dialogue
from tests.drivers.fresenius_pump import (
    FRAMES,
    PIECE,
    Answer,
    ScriptedBase,
    asked_in,
    bytes_of,
    framed,
    healthy,
    numbers,
)
from tests.drivers.laws import bears_a_clock_that_jumps, goes_through, moments_with, steps_with
from tests.drivers.test_fresenius_codec import NEVER_SEND
from tests.drivers.wires import WIRES, Wire
from tests.simulator.scenarios import MIN, legs, scenario

FAMILY = FreseniusFamily()
POLL_MS = 5_000


def a_session(*addresses: int, poll_ms: int = POLL_MS) -> FreseniusSession:
    """With modules of a base; without addresses with a pump that stands alone."""
    pumps = [PumpOnLine(pump=f"p{address}", address=address, poll_ms=poll_ms) for address in addresses]
    return FAMILY.open_session(pumps or [PumpOnLine(pump="alone", poll_ms=poll_ms)])


def a_dialogue(
    answers: dict[str, Answer], *addresses: int, until_ms: int, answer_after_ms: int = 20
) -> Dialogue:
    base = ScriptedBase(answers, answer_after_ms=answer_after_ms)
    dialogue = Dialogue(a_session(*addresses), base)
    dialogue.run(until_ms)
    return dialogue


def asked(dialogue: Dialogue) -> list[str]:
    return [message for _, message in asked_at(dialogue)]


def asked_at(dialogue: Dialogue) -> list[tuple[int, str]]:
    """The commands that were written, and when; not the acknowledgements of messages."""
    return [
        (at_ms, message)
        for at_ms, data in dialogue.sent
        for message in asked_in(data)
        if message[-1:] not in ("E", "M") or "AE" in message
    ]


def readings(dialogue: Dialogue, pump: str = "") -> list[Reading]:
    return [fact for fact in dialogue.facts if isinstance(fact, Reading) and fact.pump.startswith(pump)]


def faults(dialogue: Dialogue) -> list[LinkFault]:
    return [fact for fact in dialogue.facts if isinstance(fact, LinkFault)]


def opened(*addresses: int, now_ms: int = 0) -> FreseniusSession:
    """A session in which everyone has been read once and nothing is outstanding."""
    session = a_session(*addresses)
    session.opened(now_ms)
    answers = healthy(*(str(address) for address in addresses or ("",)))
    base = ScriptedBase(answers)
    for _ in range(100):
        data = session.due(now_ms)
        facts = [session.receive(reply, now_ms) for reply in base.receive(data, now_ms)]
        if not asked_in(data):
            now_ms = max(now_ms, session.next_due_ms())
            if now_ms >= 2_000:
                break
        assert all(isinstance(fact, Reading) for told in facts for fact in told)
    return session


# Opening


def test_the_base_is_opened_then_after_a_second_asked_for_its_modules_and_then_each_module_is_opened():
    dialogue = a_dialogue(healthy("1", "3"), 1, 3, until_ms=POLL_MS - 1)
    at_ms = {message: at_ms for at_ms, message in reversed(asked_at(dialogue))}
    assert asked(dialogue) == [
        *("0DC", "0LE;b"),
        *("1DC", "1LE;dr", "1LE;d", "1LE;r"),
        *("3DC", "3LE;dr", "3LE;d", "3LE;r"),
    ]
    assert at_ms["0DC"] == 0
    assert 1_000 <= at_ms["0LE;b"] < 1_100
    assert faults(dialogue) == []
    assert [reading.pump for reading in readings(dialogue)] == ["p1", "p3"]


def test_a_pump_that_stands_alone_has_no_base_and_no_address():
    dialogue = a_dialogue(healthy(""), until_ms=POLL_MS + 500)
    assert asked(dialogue) == ["DC", "LE;dr", "LE;d", "LE;r", "LE;dr"]
    assert dialogue.sent[0] == (0, bytes_of("F23"))
    assert [reading.pump for reading in readings(dialogue)] == ["alone", "alone"]


def test_each_poll_is_one_question_to_each_pump_and_one_reading_of_its_answer():
    dialogue = a_dialogue(healthy("1", "3"), 1, 3, until_ms=10 * POLL_MS + 500)
    assert asked(dialogue)[10:] == ["1LE;dr", "3LE;dr"] * ((len(asked(dialogue)) - 10) // 2)
    for pump in ("p1", "p3"):
        times = [reading.at_ms for reading in readings(dialogue, pump)]
        assert len(times) >= 10
        assert {after - before for before, after in pairwise(times[1:])} == {POLL_MS}


def test_a_reading_says_what_the_answer_said_and_nothing_else():
    dialogue = a_dialogue(healthy("1"), 1, until_ms=3_000)
    [reading] = readings(dialogue)
    assert reading == Reading(
        pump="p1", at_ms=reading.at_ms, state=PumpState.RUNNING, rate_ml_h=50.0, volume_ml=0.969
    )
    assert reading.alarms is None


def test_opened_again_everything_is_opened_and_read_again_and_every_half_heard_word_is_forgotten():
    session = opened(1)
    session.receive(bytes_of("F11")[:-4], 3_000)
    session.opened(4_000)
    assert session.due(4_000) == bytes_of("F1")
    [fault] = session.receive(bytes_of("F11")[-4:] + b"\x06", 4_010)
    assert isinstance(fault, LinkFault)
    assert session.receive(bytes_of("F3"), 4_020) == []


def test_a_module_that_the_base_does_not_have_is_not_asked_until_it_has_it():
    answers = healthy("1", "3")
    answers["0LE;b"] = lambda now_ms: "0C;b01" if now_ms < 20_000 else "0C;b05"
    dialogue = a_dialogue(answers, 1, 3, until_ms=30_000)
    [fault] = faults(dialogue)
    assert fault.detail == "the base says that it has no module 3"
    assert next(at_ms for at_ms, message in asked_at(dialogue) if message[0] == "3") >= 20_000
    assert readings(dialogue, "p3")[0].at_ms < 27_000
    assert len(readings(dialogue, "p1")) == 6


@pytest.mark.parametrize("mask", ["0C;bXY", "0C;b", "0I;0A"])
def test_modules_are_asked_when_what_the_base_says_of_them_cannot_be_read(mask):
    dialogue = a_dialogue({**healthy("1"), "0LE;b": mask}, 1, until_ms=5_000)
    assert len(readings(dialogue)) == 1
    assert [fault.kind for fault in faults(dialogue)] == [FaultKind.UNSUPPORTED]


# The line


def test_a_line_check_within_a_frame_is_answered_before_the_frame_is_complete():
    session = opened(1)
    assert session.due(6_000) == bytes_of("F12")
    heard = bytes_of("Y4")
    place = heard.index(b"\x05") + 1
    assert session.receive(heard[:place], 6_010) == []
    assert session.next_due_ms() == 6_010
    assert session.due(6_010) == b"\x14"
    assert session.due(6_010) == b""


def test_a_line_check_is_answered_before_everything_else_that_is_owed():
    session = opened(1)
    assert session.due(6_000) == bytes_of("F12")
    session.receive(b"\x06" + bytes_of("F13") + b"\x05", 6_020)
    assert session.due(6_020) == b"\x14\x06"


def test_a_line_check_is_answered_when_nothing_has_been_opened_yet():
    session = a_session(1)
    session.opened(0)
    session.receive(b"\x05", 0)
    assert session.due(0) == b"\x14" + bytes_of("F1")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("F13", b"\x06"),
        ("Y1", b"\x152"),
        ("Y2", b"\x152"),
        ("Y7", b"\x152"),
        ("Y8", b"\x152"),
        ("Y9", b"\x06"),
        ("Y10", b""),
        ("F19", b"\x06"),
    ],
)
def test_a_frame_that_came_intact_is_acknowledged_and_one_that_did_not_is_not(name, said):
    session = opened(1)
    session.due(6_000)
    session.receive(bytes_of(name), 6_020)
    data = session.due(6_020)
    assert data.removesuffix(bytes_of("F6")) == said, "an error 1E is followed by opening again"


@pytest.mark.parametrize("name", ["Y1", "Y2", "Y7", "Y8"])
def test_a_damaged_frame_is_counted_and_no_reading(name):
    session = opened(1)
    session.due(6_000)
    [fault] = session.receive(bytes_of(name), 6_020)
    assert isinstance(fault, LinkFault)
    assert (fault.kind, fault.byte_count) == (FaultKind.GARBLED, len(bytes_of(name)))


def test_an_empty_frame_is_nothing():
    session = opened(1)
    assert session.receive(bytes_of("Y10"), 3_000) == []


# Silence, and frames that were not taken


def test_a_command_without_an_answer_is_repeated_once_after_a_second():
    session = a_session()
    session.opened(0)
    sent = [(now_ms, data) for now_ms in range(0, 7_000, 10) if (data := session.due(now_ms))]
    assert sent == [(0, bytes_of("F23")), (1_000, bytes_of("F23"))]
    assert session.next_due_ms() == 8_000, "when nothing can be on its way any more"


def test_a_receiver_that_was_not_ready_is_asked_once_more_a_moment_later():
    session = opened(1)
    assert session.due(6_000) == bytes_of("F12")
    assert session.receive(bytes_of("Y5"), 6_020) == []
    assert session.due(6_020) == b""
    assert session.next_due_ms() == 6_120
    assert session.due(6_120) == bytes_of("F12")
    [fault] = session.receive(bytes_of("Y5"), 6_140)
    assert isinstance(fault, LinkFault)
    assert "the receiver was not ready" in fault.detail
    assert session.due(6_140) == b""


def test_a_frame_that_the_pump_heard_damaged_is_sent_again_and_counted():
    session = opened(1)
    session.due(6_000)
    [fault] = session.receive(bytes_of("Y6"), 6_020)
    assert isinstance(fault, LinkFault)
    assert fault.kind is FaultKind.GARBLED
    assert session.due(6_020) == bytes_of("F12")


@pytest.mark.parametrize("reason", [b"3", b"4", b"9"])
def test_another_reason_is_not_answered_with_the_same_command(reason):
    session = opened(1)
    session.due(6_000)
    [fault] = session.receive(b"\x15" + reason, 6_020)
    assert isinstance(fault, LinkFault)
    assert session.due(6_020) == b""


def test_nothing_is_asked_while_an_answer_is_outstanding():
    session = opened(1, 3)
    assert asked_in(session.due(7_000)) == ["1LE;dr"]
    assert [asked_in(session.due(now_ms)) for now_ms in range(7_001, 8_000)] == [[]] * 999


def test_silent_modules_do_not_stop_the_others():
    answers = healthy("1", "2", "3", "4", "5")
    for message in list(answers):
        if message[0] in "1245":
            answers[message] = ""
    dialogue = a_dialogue(answers, 1, 2, 3, 4, 5, until_ms=600_000)
    times = [reading.at_ms for reading in readings(dialogue, "p3")]
    assert times[0] < 10_000, "once each of those before it is waited for long"
    later = [after - before for before, after in pairwise(times) if before > 30_000]
    assert max(later) <= 9_000
    assert len(times) > 100
    assert {message[0] for message in asked(dialogue)} == set("012345"), "and they are asked for ever"


def test_a_module_that_comes_back_is_opened_and_read():
    answers = healthy("1", "3")
    for message in ("3DC", "3LE;dr", "3LE;d", "3LE;r"):
        answers[message] = lambda now_ms, said=answers[message]: said if now_ms > 60_000 else ""
    dialogue = a_dialogue(answers, 1, 3, until_ms=90_000)
    assert readings(dialogue, "p3")[0].at_ms < 68_000


def test_a_base_that_is_silent_is_asked_for_ever_and_no_module_before_it():
    dialogue = a_dialogue({}, 1, 3, until_ms=600_000)
    assert set(asked(dialogue)) == {"0DC"}
    assert len(asked(dialogue)) > 90


def test_when_the_whole_line_was_silent_the_base_is_opened_again():
    answers = healthy("1")
    answers = {
        message: lambda now_ms, said=said: "" if 20_000 < now_ms < 50_000 else said
        for message, said in answers.items()
    }
    dialogue = a_dialogue(answers, 1, until_ms=80_000)
    assert asked(dialogue).count("0DC") >= 2
    assert next(reading.at_ms for reading in readings(dialogue) if reading.at_ms > 50_000) < 65_000


# Errors


def test_a_module_whose_session_is_not_open_is_opened_again_and_asked_once_more():
    session = opened(1)
    assert session.due(6_000) == bytes_of("F12")
    assert session.receive(b"\x06" + bytes_of("F19"), 6_020) == []
    assert session.due(6_020) == b"\x06" + bytes_of("F6")
    session.receive(b"\x06" + bytes_of("F7"), 6_040)
    assert session.due(6_040) == b"\x06" + bytes_of("F12")
    [reading] = session.receive(b"\x06" + bytes_of("F13"), 6_060)
    assert isinstance(reading, Reading)


def test_a_module_that_says_so_twice_waits_for_its_next_turn():
    dialogue = a_dialogue({**healthy("1"), "1LE;dr": "1I;1E"}, 1, until_ms=POLL_MS - 1)
    assert asked(dialogue) == ["0DC", "0LE;b", "1DC", "1LE;dr", "1DC", "1LE;dr"]
    assert [fault.kind for fault in faults(dialogue)] == [FaultKind.UNSUPPORTED]


@pytest.mark.parametrize("refusal", ["0I;0D", "1I;0D"])
def test_when_the_base_is_not_open_everything_is_opened_again(refusal):
    answers = healthy("1")
    refusals = iter([numbers("1"), refusal])
    answers["1LE;dr"] = lambda now_ms: next(refusals, numbers("1"))
    dialogue = a_dialogue(answers, 1, until_ms=POLL_MS + 3_000)
    assert asked(dialogue)[6:] == ["1LE;dr", "0DC", "0LE;b", "1DC", "1LE;dr"]
    again = [at_ms for at_ms, message in asked_at(dialogue) if message[0] == "0"]
    assert again[3] - again[2] >= 1_000
    assert faults(dialogue) == []
    assert len(readings(dialogue)) == 2


def test_a_base_that_says_so_for_ever_is_not_opened_for_ever():
    dialogue = a_dialogue({**healthy("1"), "1LE;dr": "0I;0D"}, 1, until_ms=60_000)
    assert asked(dialogue).count("0DC") < 30
    assert readings(dialogue) == []


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("0A", "identifier not used"),
        ("01", "unknown command"),
        ("0C", "message too long"),
        ("0E", "communication with the module impossible"),
        ("ZZ", "an error that we do not know"),
    ],
)
def test_another_error_is_told_and_costs_one_round(code, words):
    dialogue = a_dialogue({**healthy("1"), "1LE;dr": f"1I;{code}"}, 1, until_ms=POLL_MS - 1)
    [fault] = faults(dialogue)
    assert fault.detail == f"module 1 refused LE;dr: {code}, {words}"
    assert asked(dialogue) == ["0DC", "0LE;b", "1DC", "1LE;dr"]


def test_a_session_that_was_open_already_is_open():
    dialogue = a_dialogue({**healthy("1"), "0DC": "0I;1F", "1DC": "1I;1F"}, 1, until_ms=POLL_MS - 1)
    assert len(readings(dialogue)) == 1
    assert faults(dialogue) == []


# What is older than it looks


def test_an_answer_that_comes_too_late_is_no_reading_and_the_next_is_proved():
    session = opened(1)
    session.due(6_000)
    session.due(7_000)
    session.receive(b"", 9_000)
    [fault] = session.receive(bytes_of("F13"), 9_500)
    assert isinstance(fault, LinkFault)
    assert fault.kind is FaultKind.UNEXPECTED
    assert asked_in(session.due(11_000)) == ["1LE;d"], "which proves that no other is on its way"
    session.receive(bytes_of("F9"), 11_020)
    assert asked_in(session.due(11_020)) == ["1LE;dr"]


def test_a_second_answer_to_a_repeated_command_is_never_taken_for_one_to_the_next():
    session = opened(1)
    session.due(6_000)
    session.due(7_000)
    assert len(session.receive(bytes_of("F13"), 7_010)) == 1
    assert asked_in(session.due(11_000)) == ["1LE;d"]
    [fault] = session.receive(bytes_of("F13"), 11_010)
    assert isinstance(fault, LinkFault)
    assert fault.kind is FaultKind.UNEXPECTED


def test_an_answer_of_another_module_is_not_that_of_the_one_that_was_asked():
    session = opened(1, 3)
    assert asked_in(session.due(7_000)) == ["1LE;dr"]
    [fault] = session.receive(bytes_of("Y9"), 7_010)
    assert isinstance(fault, LinkFault)
    assert fault.detail == "an answer with 'd' came from module 3, module 1 was asked LE;dr"
    [reading] = session.receive(bytes_of("F13"), 7_020)
    assert isinstance(reading, Reading)
    assert reading.pump == "p1"


# Jumps


def test_swapped_digits_that_the_checksum_cannot_see_are_not_believed():
    session = opened(1)
    assert session.due(6_000) == bytes_of("F12")
    assert session.receive(framed("1C;d10F4;r0003C9"), 6_020) == []
    assert session.due(6_020) == b"\x06" + bytes_of("F8")
    [fault] = session.receive(bytes_of("F9"), 6_040)
    assert isinstance(fault, LinkFault)
    assert "rate 434.0, volume 0.969 just before it are not confirmed" in fault.detail
    assert session.due(6_040) == b"\x06" + bytes_of("F12"), "it is asked afresh at once"
    [reading] = session.receive(bytes_of("F13"), 6_060)
    assert isinstance(reading, Reading)
    assert reading.rate_ml_h == 50.0


def test_a_rate_that_was_changed_is_told_as_soon_as_it_has_been_said_twice():
    session = opened(1)
    session.due(6_000)
    assert session.receive(framed("1C;d03E8;r0003CA"), 6_020) == []
    assert session.due(6_020) == b"\x06" + bytes_of("F8")
    [reading] = session.receive(framed("1C;d03E8"), 6_040)
    assert isinstance(reading, Reading)
    assert (reading.rate_ml_h, reading.volume_ml, reading.at_ms) == (100.0, 0.970, 6_040)


@pytest.mark.parametrize(
    ("volume", "again"), [("000000", "000001"), ("00C903", "00C903"), ("000BB8", "000BB9")]
)
def test_a_volume_that_was_reset_or_jumped_is_told_when_it_has_been_said_twice(volume, again):
    session = opened(1)
    session.due(6_000)
    assert session.receive(framed(numbers(volume=volume)), 6_020) == []
    assert session.due(6_020) == b"\x06" + bytes_of("F10")
    [reading] = session.receive(framed(f"1C;r{again}"), 6_040)
    assert isinstance(reading, Reading)
    assert reading.volume_ml == int(volume, 16) / 1_000


def test_a_volume_that_follows_the_rate_is_told_at_once():
    session = opened(1)
    session.due(6_000)
    [reading] = session.receive(framed(numbers(volume=f"{969 + 69:06X}")), 6_020)
    assert isinstance(reading, Reading)


def test_numbers_that_are_never_confirmed_are_not_told_and_do_not_hold_up_the_others():
    answers = healthy("1", "3")
    answers["1LE;d"] = "1C;d0001"
    dialogue = a_dialogue(answers, 1, 3, until_ms=POLL_MS - 1)
    assert readings(dialogue, "p1") == []
    assert len(readings(dialogue, "p3")) == 1
    assert asked(dialogue).count("1LE;dr") == 3


def test_a_value_in_a_form_we_do_not_know_is_said_to_be_unsupported_and_costs_not_the_other():
    answers = {**healthy("1"), "1LE;dr": "1C;d01F4;r-.---"}
    dialogue = a_dialogue(answers, 1, until_ms=POLL_MS - 1)
    [reading] = readings(dialogue)
    [fault] = faults(dialogue)
    assert (reading.rate_ml_h, reading.volume_ml) == (50.0, None)
    assert fault.kind is FaultKind.UNSUPPORTED


# Messages of the pump's own accord


@pytest.mark.parametrize(("letter", "address"), [("E", "1"), ("M", "1"), ("E", "0")])
def test_a_message_is_acknowledged_twice_and_is_no_reading(letter, address):
    session = opened(1)
    [fault] = session.receive(framed(f"{address}{letter};r0003CA"), 3_000)
    assert isinstance(fault, LinkFault)
    assert fault.kind is FaultKind.UNEXPECTED
    assert session.due(3_000) == b"\x06" + framed(f"{address}{letter}")
    assert session.due(3_000) == b""


def test_a_message_of_nobody_on_the_line_is_acknowledged_and_not_answered():
    session = opened(1)
    session.receive(framed("7E;r0003CA"), 3_000)
    assert session.due(3_000) == b"\x06"


def test_messages_are_asked_to_end_in_the_next_turn_of_that_pump():
    session = opened(1)
    session.receive(bytes_of("F16"), 3_000)
    assert session.due(3_000) == b"\x06" + bytes_of("F17")
    assert session.due(6_000) == bytes_of("F18")
    session.receive(framed("1C"), 6_020)
    assert session.due(6_020) == b"\x06" + bytes_of("F12")


def test_a_message_and_the_answer_behind_it_are_both_heard():
    session = opened(1)
    session.due(6_000)
    fault, reading = session.receive(bytes_of("F16") + bytes_of("F13"), 6_020)
    assert isinstance(fault, LinkFault)
    assert isinstance(reading, Reading)
    assert session.due(6_020) == b"\x06" + bytes_of("F17") + b"\x06"


# Any wire

END_MS = 600_000


def volume_at(now_ms: int) -> str:
    return f"{969 + now_ms // 100:06X}"


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", WIRES)
@pytest.mark.parametrize("addresses", [(), (1, 3)])
def test_over_any_wire_what_is_read_is_true_and_no_pump_is_ever_lost(name, seed, addresses):
    said: dict[str, set[float]] = {}
    answers = healthy(*(str(address) for address in addresses or ("",)))
    for address in addresses or ("",):

        def answer(now_ms: int, address: str = str(address)) -> str:
            said.setdefault(address, set()).add(int(volume_at(now_ms), 16) / 1_000)
            return numbers(address, volume=volume_at(now_ms))

        answers[f"{address}LE;dr"] = answer
        answers[f"{address}LE;r"] = lambda now_ms, address=address: f"{address}C;r{volume_at(now_ms)}"
    dialogue = Dialogue(
        a_session(*addresses),
        ScriptedBase(answers),
        there=Wire(WIRES[name], seed=seed),
        back=Wire(WIRES[name], seed=seed + 1_000),
    )
    dialogue.run(END_MS)
    for address in addresses or ("",):
        read = readings(dialogue, f"p{address}" if address else "alone")
        for reading in read:
            assert reading.volume_ml in said[str(address)]
            assert reading.rate_ml_h == 50.0
            told_ms = (round(reading.volume_ml * 1_000) - 969) * 100
            assert -100 <= reading.at_ms - told_ms <= 4_100
        moments = [0, *(reading.at_ms for reading in read), END_MS]
        assert max(after - before for before, after in pairwise(moments)) < 60_000
    assert all(FAMILY.may_send(data) for _, data in dialogue.sent)


@pytest.mark.parametrize("name", ["clean", "byte_by_byte"])
def test_over_a_good_wire_every_poll_is_one_reading_and_nothing_is_faulty(name):
    dialogue = Dialogue(
        a_session(1, 3),
        ScriptedBase(healthy("1", "3")),
        there=Wire(WIRES[name], seed=0),
        back=Wire(WIRES[name], seed=1),
    )
    dialogue.run(END_MS)
    assert len(readings(dialogue)) == 2 * END_MS // POLL_MS
    assert faults(dialogue) == []


# The simulated pumps


@pytest.mark.parametrize("name", WIRES)
@pytest.mark.parametrize("addresses", [(None,), (1, 2, 5)])
def test_what_is_read_of_simulated_pumps_is_their_truth(name, addresses):
    stories = {
        address: scenario(legs((3 * MIN, 50.0 + number, 50.0 + number), (3 * MIN, 120.4, 120.4)), seed=number)
        for number, address in enumerate(addresses)
    }
    line = Bedside(FAMILY, stories, poll_ms=POLL_MS, back=Wire(WIRES[name], seed=5))
    line.run(5 * MIN)
    assert all(FAMILY.may_send(data) for _, data in line.sent)
    for address in addresses:
        of_this = [reading for reading in line.readings if reading.pump == token_of(address)]
        for reading in of_this:
            truths = line.truths_until(reading.at_ms, address)[-12:]
            said = {(round(truth.rate_ml_h, 1), round(truth.counter_ml, 3)) for truth in truths}
            assert (reading.rate_ml_h, reading.volume_ml) in said
        moments = [0, *(reading.at_ms for reading in of_this), 5 * MIN]
        assert max(after - before for before, after in pairwise(moments)) < 60_000
        assert {reading.rate_ml_h for reading in of_this} >= {120.4}
        if name in ("clean", "byte_by_byte"):
            assert len(of_this) >= 5 * MIN // POLL_MS - 2


# Only what may be sent, whatever happens

ANY_BYTES = st.one_of(
    st.binary(max_size=80),
    st.lists(st.sampled_from([bytes.fromhex(frame["hex"]) for frame in FRAMES.values()])).map(b"".join),
    st.sampled_from([framed(text) for text in NEVER_SEND] + [framed("1" + text) for text in NEVER_SEND]),
    st.sampled_from(
        [framed(message) for message in ("1C;d01F4;r0003C9", "1I;1E", "0I;0D", "0C;b01", "1C", "0C", "9E;r1")]
        + [b"\x05" * 40, b"\x15", framed("3M;a1"), framed("E;d1")]
    ),
)
PUMPS = st.sampled_from([(), (1,), (1, 3)])


@settings(max_examples=300)
@given(steps=steps_with(ANY_BYTES), addresses=PUMPS, poll_ms=st.sampled_from([1, 1_000, 5_000]))
def test_whatever_arrives_and_whenever_only_what_is_listed_is_ever_written_and_nothing_is_raised(
    steps, addresses, poll_ms
):
    session = a_session(*addresses, poll_ms=poll_ms)
    for now_ms, _ in goes_through(FAMILY, session, steps):
        assert session.next_due_ms() > now_ms, "it would spin"


@given(moments=moments_with(ANY_BYTES), addresses=PUMPS)
def test_even_a_clock_that_jumps_makes_a_session_write_only_what_is_listed(moments, addresses):
    bears_a_clock_that_jumps(FAMILY, a_session(*addresses), moments)


@given(noise=st.binary(max_size=400), addresses=PUMPS)
def test_every_line_check_is_answered_at_once_wherever_it_stands(noise, addresses):
    session = a_session(*addresses)
    session.opened(0)
    session.receive(noise + b"\x05", 10)
    assert session.next_due_ms() == 10
    checks = (noise + b"\x05").count(b"\x05")
    assert session.due(10).startswith(b"\x14" * min(checks, 8))


@given(noise=st.binary(max_size=400))
def test_after_any_garbage_the_next_answer_is_read(noise):
    session = opened(1)
    session.due(6_000)
    session.receive(noise + b"\x06" + bytes_of("F13"), 6_020)
    pieces = PIECE.findall(session.due(6_020))
    assert b"\x06" in pieces or len(pieces) >= 16


# Configuration


@pytest.mark.parametrize(
    ("pumps", "words"),
    [
        ([], "at least one pump"),
        (
            [PumpOnLine(pump="p1"), PumpOnLine(pump="p2")],
            "p1: of several fresenius pumps on a port each needs",
        ),
        ([PumpOnLine(pump="p1", address=1), PumpOnLine(pump="p2")], "p2: of several fresenius pumps"),
        ([PumpOnLine(pump="p1", address=0)], "p1: a fresenius base has the addresses 1 to 5, not 0"),
        ([PumpOnLine(pump="p1", address=6)], "p1: a fresenius base has the addresses 1 to 5, not 6"),
        ([PumpOnLine(pump="a", address=2), PumpOnLine(pump="b", address=2)], "address 2 is set twice"),
        ([PumpOnLine(pump="p1", poll_ms=0)], "a poll of 0 ms is not possible"),
    ],
)
def test_what_a_fresenius_port_cannot_have_is_refused_with_the_reason(pumps, words):
    with pytest.raises(ValueError, match=words):
        FAMILY.open_session(pumps)


def test_the_line_is_19200_baud_7_data_bits_and_even_parity():
    line = FAMILY.line
    assert (line.baud, line.data_bits, line.parity, line.stop_bits) == (19_200, 7, "E", 1.0)


def test_the_traits_claim_nothing_that_the_protocol_is_not_known_to_say():
    traits = FAMILY.traits
    assert traits.reports == ("state", "rate_ml_h", "volume_ml")
    assert traits.alarms == ()
    assert (traits.counter_ml, traits.pressure_unit) == (0.001, None)
    assert traits.status == "experimental"
    assert any("Agilia" in note for note in traits.notes)
