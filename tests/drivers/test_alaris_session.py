"""The dialogue with an Alaris pump: what is asked when, what an answer means, and what silence means."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.alaris.session import AlarisFamily, AlarisSession
from drivers.family import PumpOnLine
from drivers.reading import FaultKind, LinkFault, PumpState, Reading
from tests.drivers.alaris_pump import (
    FRAMES,
    IDENTITY,
    AlarisDialogue,
    Answer,
    ScriptedPump,
    framed,
    infusion,
    text_of,
)
from tests.drivers.laws import bears_a_clock_that_jumps, goes_through, moments_with, steps_with
from tests.drivers.wires import WIRES, Wire

FAMILY = AlarisFamily()
POLL_MS = 5_000
WHO = ["INST_SERIALNO", "COMMS_PROTOCOL", "COMMS_RESPONSE_MAX"]

NEVER_SEND = [
    "REMOTE_CTRL^ENABLED^3CC1",
    "REMOTE_CTRL^DISABLED",
    "REMOTE_CFG^ENABLED^3CC1",
    "INF_START",
    "INF_STOP",
    "INF_RATE^5.00^ml/h",
    "INF_VTBI^ACTIV^11.000^ml^STOP",
    "INF_VTBI^DEACT",
    "INF_BOLUS^ENABLED",
    "INF_VI_CLEAR",
    "REMQUERY^DEACT",
    "INF_CAP_RATE^5.00",
    "INF_BOLUS_CAP_RATE^5.00",
    "INF_PURGE_RATE^5.00",
]
"""Commands that change the pump."""


def a_session(poll_ms: int = POLL_MS) -> AlarisSession:
    return FAMILY.open_session([PumpOnLine(pump="p1", poll_ms=poll_ms)])


def a_pump(answer_after_ms: int = 20, **answers: Answer) -> ScriptedPump:
    """A healthy pump that delivers 10 mL/h, except for what ``answers`` say."""
    return ScriptedPump(
        {**IDENTITY, "INF": infusion(), "ALARM": "ALARM^AL_NOALM^ ^ ", **answers},
        answer_after_ms=answer_after_ms,
    )


def a_dialogue(pump: ScriptedPump, until_ms: int) -> AlarisDialogue:
    dialogue = AlarisDialogue(a_session(), pump)
    dialogue.run(until_ms)
    return dialogue


# What is asked


def test_the_pump_is_asked_who_it_is_and_then_how_the_infusion_stands_at_every_poll():
    dialogue = a_dialogue(a_pump(), until_ms=3 * POLL_MS + 1_000)
    assert dialogue.asked() == [*WHO, "INF_VTBI", "INF", "INF", "INF", "INF"]
    assert [at_ms for at_ms, asked in dialogue.asked_at() if asked == "INF"][1:] == [
        POLL_MS,
        2 * POLL_MS,
        3 * POLL_MS,
    ]
    assert dialogue.faults == []
    assert len(dialogue.readings) == 4


def test_the_volume_to_be_infused_is_asked_once_a_minute_before_the_rest_of_its_round():
    dialogue = a_dialogue(a_pump(), until_ms=121_000)
    rounds = dialogue.asked()[len(WHO) :]
    assert rounds == (["INF_VTBI"] + ["INF"] * 12) * 2 + ["INF_VTBI", "INF"]
    told = [reading.vtbi_ml for reading in dialogue.readings]
    assert told == ([11.0] + [None] * 11) * 2 + [11.0], "no reading borrows it from another round"


def test_asking_twice_at_one_time_asks_once():
    session = a_session()
    session.opened(now_ms=7)
    assert session.due(7) == text_of("A1")
    assert session.due(7) == b""


def test_a_query_that_is_sent_again_late_is_sent_again_once():
    session = a_session()
    session.opened(0)
    session.due(0)
    session.receive(text_of("A2"), 20)
    session.due(20)
    assert [session.due(1_300), session.due(1_300)] == [text_of("A3"), b""]
    assert session.next_due_ms() == 1_800


def test_nothing_is_asked_while_an_answer_is_outstanding():
    session = a_session()
    session.opened(0)
    session.due(0)
    assert [session.due(now_ms) for now_ms in range(1, 500)] == [b""] * 499


def test_a_pump_that_has_not_shown_that_it_is_fast_is_asked_once_until_the_line_is_empty():
    session = a_session()
    session.opened(0)
    assert session.due(0) == text_of("A1")
    assert session.next_due_ms() == 10_000
    assert session.due(9_999) == b""
    assert session.due(10_000) == text_of("A3"), "the next by another name"


def test_a_query_to_a_fast_pump_is_sent_again_every_half_second_three_times_and_never_when_it_is_too_late():
    session = a_session()
    session.opened(0)
    session.due(0)
    session.receive(text_of("A2"), 20)
    assert [now_ms for now_ms in range(20, 9_000) if session.due(now_ms) == text_of("A3")] == [
        20,
        520,
        1_020,
        1_520,
    ]


def test_a_lost_answer_of_a_fast_pump_costs_half_a_second():
    answers = iter([framed(infusion()), b"", *[framed(infusion())] * 10])
    dialogue = a_dialogue(a_pump(INF=lambda _: next(answers)), until_ms=2 * POLL_MS + 1_000)
    assert [reading.at_ms for reading in dialogue.readings][1:] == [POLL_MS + 530, 2 * POLL_MS + 60]
    assert dialogue.asked()[-4:] == ["INF", "INF", "INF_VTBI", "INF"], "INF_VTBI proves the line empty"


def test_a_pump_as_slow_as_it_says_is_heard():
    dialogue = a_dialogue(a_pump(answer_after_ms=3_900), until_ms=60_000)
    assert len(dialogue.readings) >= 8


@pytest.mark.parametrize(
    ("says", "heard_after_ms", "too_late_after_ms"),
    [("0^ms", 900, 1_100), ("1000^ms", 900, 1_100), ("4000^ms", 3_900, 4_100), ("99999^ms", 9_900, 10_100)],
)
def test_the_pump_is_believed_how_long_it_takes_within_reason(says, heard_after_ms, too_late_after_ms):
    says = f"COMMS_RESPONSE_MAX^{says}"
    in_time = a_dialogue(a_pump(heard_after_ms, COMMS_RESPONSE_MAX=says), until_ms=90_000)
    assert in_time.readings
    assert in_time.faults == []
    too_late = a_dialogue(a_pump(too_late_after_ms, COMMS_RESPONSE_MAX=says), until_ms=90_000)
    assert too_late.readings == []
    assert {fault.kind for fault in too_late.faults} == {FaultKind.UNEXPECTED}


def test_a_silent_pump_is_asked_for_ever():
    dialogue = a_dialogue(ScriptedPump({}), until_ms=3_600_000)
    assert dialogue.facts == []
    assert dialogue.asked()[:5] == [
        "INST_SERIALNO",
        "COMMS_PROTOCOL",
        "COMMS_RESPONSE_MAX",
        "INF_VTBI",
        "INF",
    ]
    assert {after - before for (before, _), (after, _) in pairwise(dialogue.asked_at())} == {10_000}


def test_a_pump_that_is_switched_on_later_is_read_at_once_and_then_asked_who_it_is():
    answers: dict[str, Answer] = {
        query: (lambda now_ms, body=body: framed(body) if now_ms >= 60_000 else b"")
        for query, body in {**IDENTITY, "INF": infusion()}.items()
    }
    dialogue = a_dialogue(ScriptedPump(answers), until_ms=90_000)
    answered = [asked for at_ms, asked in dialogue.asked_at() if at_ms >= 60_000]
    assert answered[:5] == ["COMMS_RESPONSE_MAX", "INF", *WHO]
    assert answered.count("INST_SERIALNO") == 1
    assert dialogue.readings[0].at_ms < 71_000


def test_a_pump_that_does_not_say_who_it_is_is_read_all_the_same():
    pump = a_pump(INST_SERIALNO="", COMMS_PROTOCOL="", COMMS_RESPONSE_MAX="", INF_VTBI="")
    dialogue = a_dialogue(pump, until_ms=120_000)
    assert len(dialogue.readings) >= 3
    assert {reading.serial for reading in dialogue.readings} == {"8002-51740"}


def test_another_pump_on_the_same_cable_is_asked_who_it_is_and_its_readings_bear_its_number():
    def another_from_12_s(now_ms: int) -> bytes:
        return framed(infusion(serial="8002-51740" if now_ms < 12_000 else "8002-51733"))

    dialogue = a_dialogue(a_pump(INF=another_from_12_s), until_ms=26_000)
    asked = dialogue.asked()[len(WHO) :]
    assert asked == ["INF_VTBI", "INF", "INF", "INF", "INF", *WHO, "INF", "INF"]
    assert [reading.serial for reading in dialogue.readings][2:4] == ["8002-51740", "8002-51733"]


def test_an_alarm_goes_before_the_question_who_it_is():
    def exchanged_at_4_s(now_ms: int) -> bytes:
        return framed(infusion(serial="8002-51740" if now_ms < 4_000 else "8002-51733", notice="A"))

    dialogue = a_dialogue(a_pump(INF=exchanged_at_4_s), until_ms=6_000)
    assert dialogue.asked()[-5:] == ["INF", "ALARM", *WHO]


def test_polls_that_were_missed_are_not_made_up_for():
    session = a_session()
    session.opened(0)
    for reply in ("A2", "A4", "A6", "A14", "A9"):
        session.due(0)
        session.receive(text_of(reply), 0)
    assert session.next_due_ms() == POLL_MS
    late_ms = 3_600_000
    assert session.due(late_ms) == text_of("A7")
    session.receive(text_of("A9"), late_ms)
    assert session.due(late_ms) == b""
    assert session.next_due_ms() == late_ms + POLL_MS


# What an answer means


@pytest.mark.parametrize(
    ("mode", "rate", "state"),
    [
        ("SET", "10.00", PumpState.RUNNING),
        ("SET", "0.01", PumpState.RUNNING),
        ("SET", "0.00", PumpState.IDLE),
        ("HLD", "0.00", PumpState.PAUSED),
        ("HLD", "10.00", PumpState.PAUSED),
        ("HLD", "-", PumpState.PAUSED),
    ],
)
def test_the_state_is_read_from_mode_and_rate(mode, rate, state):
    dialogue = a_dialogue(a_pump(INF=infusion(mode=mode, rate=rate)), until_ms=1_000)
    assert [reading.state for reading in dialogue.readings] == [state]
    assert dialogue.faults == []


@pytest.mark.parametrize(("mode", "rate"), [("KVO", "1.00"), ("", "10.00"), ("set", "10.00"), ("SET", "-")])
def test_a_mode_that_we_cannot_read_is_an_unknown_state_and_is_said_to_be_unsupported(mode, rate):
    dialogue = a_dialogue(a_pump(INF=infusion(mode=mode, rate=rate)), until_ms=1_000)
    [reading] = dialogue.readings
    [fault] = dialogue.faults
    assert reading.state is PumpState.UNKNOWN
    assert reading.volume_ml == 0.969
    assert fault.kind is FaultKind.UNSUPPORTED


def test_one_reading_holds_what_one_round_said():
    dialogue = a_dialogue(a_pump(INF=text_of("A8"), ALARM=text_of("A12")), until_ms=1_000)
    [reading] = dialogue.readings
    assert reading == Reading(
        pump="p1",
        at_ms=reading.at_ms,
        state=PumpState.PAUSED,
        rate_ml_h=0.0,
        volume_ml=0.969,
        vtbi_ml=11.0,
        pressure_mmhg=530.15,
        alarms=("occlusion_downstream",),
        serial="8002-51733",
    )


def test_a_field_in_a_form_we_do_not_know_is_said_to_be_unsupported_and_the_rest_is_a_reading():
    dialogue = a_dialogue(a_pump(INF=infusion(pressure="2.4", pressure_unit="kPa")), until_ms=1_000)
    [reading] = dialogue.readings
    [fault] = dialogue.faults
    assert (reading.pressure_mmhg, reading.volume_ml) == (None, 0.969)
    assert (fault.kind, fault.detail) == (FaultKind.UNSUPPORTED, "pressure: the unit 'kPa' is not mmHg")


def test_another_protocol_is_said_to_be_unsupported():
    dialogue = a_dialogue(a_pump(COMMS_PROTOCOL="COMMS_PROTOCOL^Asena Rev 3.0.0"), until_ms=1_000)
    [fault] = dialogue.faults
    assert fault.kind is FaultKind.UNSUPPORTED


# Alarms


def test_without_a_notice_no_alarm_is_active_and_none_is_asked_for():
    dialogue = a_dialogue(a_pump(), until_ms=1_000)
    assert [reading.alarms for reading in dialogue.readings] == [()]
    assert "ALARM" not in dialogue.asked()


@pytest.mark.parametrize(
    ("code", "alarm"),
    [
        ("AL_OCCLU", "occlusion_downstream"),
        ("AL_EOIST", "empty"),
        ("AL_NEOIN", "near_empty"),
        ("AL_EMBAT", "battery_empty"),
        ("AL_LWBAT", "low_battery"),
        ("AL_LBTAC", "low_battery"),
        ("AL_FAULT", "malfunction"),
        ("AL_SYRCO", "cassette"),
        ("AL_DRDIS", "cassette"),
        ("AL DRDIS", "vendor:AL_DRDIS"),
        ("AL_ACDIS", "vendor:AL_ACDIS"),
        ("AL_CALLB", "vendor:AL_CALLB"),
        ("AL_COMTO", "vendor:AL_COMTO"),
        ("AL_LDSCN", "vendor:AL_LDSCN"),
        ("AL_EOIKV", "vendor:AL_EOIKV"),
        ("AL_PRDSC", "vendor:AL_PRDSC"),
        ("AL_RHIGH", "vendor:AL_RHIGH"),
        ("AL_TCITG", "vendor:AL_TCITG"),
        ("AL_TITCA", "vendor:AL_TITCA"),
        ("AL_TITNC", "vendor:AL_TITNC"),
        ("AL_VTBIC", "vendor:AL_VTBIC"),
        ("AL_VTBIK", "vendor:AL_VTBIK"),
        ("AL_VTBIS", "vendor:AL_VTBIS"),
        ("AL_NEVER;SEEN", "vendor:AL_NEVER_SEEN"),
        ("X" * 60, "vendor:" + "X" * 40),
        ("AL_NOALM", "vendor:unknown"),
        (" ", "vendor:unknown"),
    ],
)
def test_with_a_notice_the_alarm_is_asked_for_and_never_taken_for_none(code, alarm):
    pump = a_pump(INF=infusion(notice="A"), ALARM=f"ALARM^{code}^ ^ ")
    dialogue = a_dialogue(pump, until_ms=1_000)
    assert dialogue.asked()[-2:] == ["INF", "ALARM"]
    assert [reading.alarms for reading in dialogue.readings] == [(alarm,)]


def test_a_notice_that_we_do_not_know_is_not_taken_for_none():
    dialogue = a_dialogue(a_pump(INF=infusion(notice="B"), ALARM="ALARM^AL_FAULT^ ^ "), until_ms=1_000)
    assert [reading.alarms for reading in dialogue.readings] == [("malfunction",)]


def test_an_alarm_that_the_pump_does_not_name_is_told_as_unknown_rather_than_kept_back():
    dialogue = a_dialogue(a_pump(INF=infusion(notice="A"), ALARM=""), until_ms=6_000)
    [reading] = dialogue.readings
    assert reading.alarms == ("vendor:unknown",)
    assert reading.volume_ml == 0.969


def test_what_silence_told_is_handed_over_at_the_latest_with_the_next_bytes():
    session = a_session()
    session.opened(0)
    for reply in (text_of("A2"), text_of("A4"), text_of("A6"), text_of("A14"), framed(infusion(notice="A"))):
        session.due(0)
        assert session.receive(reply, 0) == []
    assert session.due(0) == text_of("A10")
    assert session.due(500) == text_of("A10")
    assert session.due(4_000) == b"", "given up"
    [unnamed] = session.receive(b"", 4_010)
    assert isinstance(unnamed, Reading)
    assert (unnamed.at_ms, unnamed.alarms) == (4_000, ("vendor:unknown",))


def test_the_name_of_an_alarm_that_comes_too_late_is_no_part_of_any_reading():
    pump = a_pump(answer_after_ms=2_500, INF=infusion(notice="A"), ALARM="ALARM^AL_OCCLU^ ^ ")
    dialogue = a_dialogue(pump, until_ms=60_000)
    assert {reading.alarms for reading in dialogue.readings} == {("vendor:unknown",)}
    assert {fault.kind for fault in dialogue.faults} == {FaultKind.UNEXPECTED}


# What is not an answer


@pytest.mark.parametrize(
    ("asked", "came", "detail"),
    [
        ("A1", "A4", "Protocol came, INST_SERIALNO was asked"),
        ("A1", "A9", "Infusion came, INST_SERIALNO was asked"),
        ("A1", "A16", "Rate came, INST_SERIALNO was asked"),
    ],
)
def test_a_reply_with_another_name_is_unexpected_and_the_question_stays_open(asked, came, detail):
    session = a_session()
    session.opened(0)
    assert session.due(0) == text_of(asked)
    [fault] = session.receive(text_of(came), 20)
    assert isinstance(fault, LinkFault)
    assert (fault.kind, fault.byte_count, fault.detail) == (FaultKind.UNEXPECTED, len(text_of(came)), detail)
    assert session.due(20) == b""
    assert session.receive(text_of("A2"), 30) == []
    assert session.due(30) == text_of("A3")


def test_what_comes_unasked_is_unexpected_and_no_reading():
    session = a_session()
    session.opened(0)
    [fault] = session.receive(text_of("A9"), 10)
    assert isinstance(fault, LinkFault)
    assert fault.kind is FaultKind.UNEXPECTED


def test_the_echo_of_a_query_is_no_answer():
    session = a_session()
    session.opened(0)
    [fault] = session.receive(session.due(0), 5)
    assert isinstance(fault, LinkFault)
    assert fault.kind is FaultKind.UNSUPPORTED
    assert session.receive(text_of("A2"), 20) == []
    assert session.due(20) == text_of("A3")


def test_noise_without_a_frame_is_told_when_the_answer_is_given_up():
    session = a_session()
    session.opened(0)
    session.due(0)
    assert session.receive(b"\xff\x00\xfe", 100) == []
    [fault] = session.receive(b"", 10_000)
    assert fault == LinkFault(
        at_ms=10_000,
        kind=FaultKind.GARBLED,
        byte_count=3,
        sample=b"\xff\x00\xfe",
        detail="it was never finished",
    )


def test_a_sample_holds_the_first_32_bytes():
    session = a_session()
    session.opened(0)
    [fault] = session.receive(b"x" * 100 + b"!", 10)
    assert isinstance(fault, LinkFault)
    assert (fault.byte_count, fault.sample) == (100, b"x" * 32)


def test_opened_again_every_half_heard_word_is_forgotten():
    session = a_session()
    session.opened(0)
    session.due(0)
    session.receive(text_of("A2")[:-3], 10)
    session.opened(20)
    assert session.due(20) == text_of("A1")
    assert session.receive(text_of("A2")[-3:], 30) == []
    [fault] = session.receive(text_of("A2"), 40)
    assert isinstance(fault, LinkFault)
    assert fault.sample == text_of("A2")[-3:]
    assert session.due(40) == text_of("A3")


# Any wire

MINUTES = 10
END_MS = MINUTES * 60_000


def volume_at(now_ms: int) -> str:
    return f"{1 + now_ms * 0.0001:.3f}"


def true_answer(now_ms: int) -> bytes:
    """A pump whose volume tells when it was asked."""
    alarmed = 60_000 <= now_ms % 240_000 < 120_000
    return framed(
        infusion(volume=volume_at(now_ms), notice="A" if alarmed else "-", mode="HLD" if alarmed else "SET")
    )


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", WIRES)
def test_over_any_wire_what_is_read_is_true_and_the_pump_is_never_lost(name, seed):
    said: set[str] = set()

    def answer(now_ms: int) -> bytes:
        said.add(volume_at(now_ms))
        return true_answer(now_ms)

    dialogue = AlarisDialogue(
        a_session(),
        a_pump(INF=answer, ALARM="ALARM^AL_OCCLU^ ^ "),
        there=Wire(WIRES[name], seed=seed),
        back=Wire(WIRES[name], seed=seed + 1_000),
    )
    dialogue.run(END_MS)
    read = dialogue.readings

    for reading in read:
        assert reading.volume_ml is not None
        assert f"{reading.volume_ml:.3f}" in said
        told_ms = round((reading.volume_ml - 1) / 0.0001)
        assert 0 <= reading.at_ms - told_ms <= 4_000, "not older than the pump's promise"
        assert (reading.state is PumpState.PAUSED) == (reading.alarms != ())
        assert reading.alarms in ((), ("occlusion_downstream",), ("vendor:unknown",))
        assert reading.vtbi_ml in (None, 11.0)
        assert reading.serial == "8002-51740"
    moments = [0, *(reading.at_ms for reading in read), END_MS]
    longest_silence_ms = max(after - before for before, after in pairwise(moments))
    assert longest_silence_ms < 60_000, "the least silence that is an alert, for any urgency"
    assert all(FAMILY.may_send(data) for _, data in dialogue.sent)


@pytest.mark.parametrize("name", ["clean", "byte_by_byte"])
def test_over_a_good_wire_every_poll_is_one_reading_and_nothing_is_faulty(name):
    dialogue = AlarisDialogue(
        a_session(), a_pump(INF=true_answer), there=Wire(WIRES[name], seed=0), back=Wire(WIRES[name], seed=1)
    )
    dialogue.run(END_MS)
    assert len(dialogue.readings) == END_MS // POLL_MS
    assert dialogue.faults == []


def test_over_a_line_that_doubles_everything_each_answer_is_one_reading_and_the_rest_is_unexpected():
    dialogue = AlarisDialogue(a_session(), a_pump(), back=Wire(WIRES["doubled"], seed=0))
    dialogue.run(END_MS)
    assert len(dialogue.readings) == END_MS // POLL_MS
    assert {fault.kind for fault in dialogue.faults} == {FaultKind.UNEXPECTED}


# Only queries, whatever happens

ANY_BYTES = st.one_of(
    st.binary(max_size=80),
    st.sampled_from([frame["text"].encode("ascii") for frame in FRAMES.values()]),
    st.sampled_from([framed(body) for body in NEVER_SEND]),
    st.sampled_from([framed(infusion(notice="A")), framed(infusion(serial="other")), framed("ALARM^^^")]),
)


@settings(max_examples=300)
@given(steps=steps_with(ANY_BYTES), poll_ms=st.sampled_from([1, 1_000, 5_000]))
def test_whatever_arrives_and_whenever_only_listed_queries_are_ever_written_and_nothing_is_raised(
    steps, poll_ms
):
    for _ in goes_through(FAMILY, a_session(poll_ms), steps):
        pass


@given(moments=moments_with(ANY_BYTES))
def test_even_a_clock_that_jumps_makes_a_session_write_only_listed_queries(moments):
    bears_a_clock_that_jumps(FAMILY, a_session(), moments)


@given(noise=st.lists(st.binary(min_size=1, max_size=40), max_size=30))
def test_every_byte_that_makes_no_sense_is_counted(noise):
    session = a_session()
    session.opened(0)
    counted = 0
    for number, data in enumerate([*noise, b"!"]):
        for fact in session.receive(data, number):
            assert isinstance(fact, LinkFault)
            counted += fact.byte_count
    heard = b"".join(noise)
    between_frames = sum(heard.count(filler) for filler in (b"\r", b"\n"))
    assert len(heard) - between_frames <= counted <= len(heard)


@given(noise=st.binary(max_size=1_200))
def test_after_any_garbage_the_answer_is_read(noise):
    session = a_session()
    session.opened(0)
    for reply in ("A2", "A4", "A6", "A14"):
        session.due(0)
        session.receive(text_of(reply), 0)
    assert session.due(0) == text_of("A7")
    facts = session.receive(noise + text_of("A9"), 10)
    assert isinstance(facts[-1], Reading)
    assert all(isinstance(fact, LinkFault) for fact in facts[:-1])


@pytest.mark.parametrize("body", NEVER_SEND)
def test_no_command_that_changes_the_pump_may_be_sent(body):
    assert not FAMILY.may_send(framed(body))


@pytest.mark.parametrize("data", [b"", b"!", b"!INF|4961", b"!INF|4961\r!INF|4961\r", b"!INF|0000\r", b"\r"])
def test_nothing_but_whole_queries_may_be_sent(data):
    assert not FAMILY.may_send(data)


# Configuration


def test_the_traits_tell_what_is_only_probable():
    traits = FAMILY.traits
    assert traits.status == "experimental"
    assert traits.evidence == "third-party code"
    assert traits.counter_ml == 0.001
    assert any("AL_EOIST" in note and note.startswith("Probable") for note in traits.notes)
    assert set(traits.reports) <= set(Reading.__struct_fields__)
