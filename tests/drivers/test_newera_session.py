"""The dialogue with a chain of New Era pumps: what is asked when, what answers and silence mean."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.family import PumpOnLine
from drivers.newera.session import NewEraFamily, NewEraSession
from drivers.reading import FaultKind, LinkFault, PumpState, Reading
from simulator.device import Device
from tests.drivers.dialogue import Dialogue
from tests.drivers.laws import bears_a_clock_that_jumps, goes_through, moments_with, steps_with
from tests.drivers.newera_chain import (
    FRAMES,
    HEALTHY,
    Answer,
    ScriptedChain,
    basic,
    bytes_of,
    safe,
)
from tests.drivers.wires import WIRES, Wire
from tests.simulator.scenarios import fault, scenario

FAMILY = NewEraFamily()
POLL_MS = 5_000
WHO = [b"0VER\r", b"0SAF\r"]
ROUND = [b"0RAT\r", b"0DIS\r"]

NEVER_SEND = [
    *("RUN", "STP", "PUR", "CLD", "CLDINF", "BUZ1", "OUT51", "RESET", "*RESET", "*ADR", "*ADR5"),
    *("SAF5", "SAF0", "SAF255", "FUNRAT", "PHN2", "RAT5", "RAT5MH", "VOL5", "DIA20", "DIRINF", "IN1"),
    *("0RAT100*1RAT250*", "RATI", "PHN", "VOL", "DIA", ""),
]


def a_session(*addresses: int, poll_ms: int = POLL_MS) -> NewEraSession:
    return FAMILY.open_session(
        [PumpOnLine(pump=f"p{one}", address=one, poll_ms=poll_ms) for one in addresses or (0,)]
    )


def a_pump(answer_after_ms: int = 20, **answers: Answer) -> ScriptedChain:
    return ScriptedChain({0: {**HEALTHY, **answers}}, answer_after_ms=answer_after_ms)


def a_dialogue(chain, until_ms: int, *addresses: int) -> Dialogue:
    dialogue = Dialogue(a_session(*addresses), chain)
    dialogue.run(until_ms)
    return dialogue


def readings(dialogue: Dialogue, pump: str = "p0") -> list[Reading]:
    return [fact for fact in dialogue.facts if isinstance(fact, Reading) and fact.pump == pump]


def faults(dialogue: Dialogue) -> list[LinkFault]:
    return [fact for fact in dialogue.facts if isinstance(fact, LinkFault)]


def asked(dialogue: Dialogue) -> list[bytes]:
    return [data for _, data in dialogue.sent]


# What is asked


def test_the_pump_is_asked_who_it_is_and_then_rate_and_volume_at_every_poll():
    dialogue = a_dialogue(a_pump(), 2 * POLL_MS + 1_000)
    assert asked(dialogue) == [*WHO, *ROUND, *ROUND, *ROUND]
    assert [at_ms for at_ms, data in dialogue.sent if data == b"0RAT\r"][1:] == [POLL_MS, 2 * POLL_MS]
    assert faults(dialogue) == []
    [reading, *_] = readings(dialogue)
    assert reading == Reading(
        pump="p0",
        at_ms=reading.at_ms,
        state=PumpState.RUNNING,
        rate_ml_h=45.0,
        volume_ml=1.234,
        alarms=(),
    )


def test_asking_twice_at_one_time_asks_once_and_nothing_is_asked_while_an_answer_is_outstanding():
    session = a_session(0, 1)
    session.opened(7)
    assert session.due(7) == b"0VER\r"
    assert [session.due(now_ms) for now_ms in range(7, 2_007)] == [b""] * 2_000
    assert session.due(2_007) == b"1VER\r"


def test_the_whole_state_is_read_again_after_every_opening():
    dialogue = a_dialogue(a_pump(), 1_000)
    dialogue.session.opened(1_000)
    before = len(dialogue.sent)
    dialogue.run(2_000)
    assert asked(dialogue)[before:] == [*WHO, *ROUND]


def test_polls_that_were_missed_are_not_made_up_for():
    session = a_session()
    session.opened(0)
    for reply in (bytes_of("B3R"), bytes_of("B13R"), bytes_of("B6R"), bytes_of("B10R")):
        session.due(0)
        session.receive(reply, 0)
    assert session.next_due_ms() == POLL_MS
    assert session.due(3_600_000) == b"0RAT\r"
    session.receive(bytes_of("B6R"), 3_600_000)
    session.due(3_600_000)
    session.receive(bytes_of("B10R"), 3_600_000)
    assert session.due(3_600_000) == b""
    assert session.next_due_ms() == 3_600_000 + POLL_MS


# A chain


def test_every_pump_of_a_chain_is_read_and_a_silent_address_does_not_stop_the_others():
    chain = ScriptedChain({0: HEALTHY, 2: {**HEALTHY, "DIS": "II2.000W0.000ML"}})
    dialogue = a_dialogue(chain, 10 * 60_000, 0, 1, 2)
    assert {reading.volume_ml for reading in readings(dialogue)} == {1.234}
    assert {reading.volume_ml for reading in readings(dialogue, "p2")} == {2.0}
    assert readings(dialogue, "p1") == []
    for pump in ("p0", "p2"):
        times = [reading.at_ms for reading in readings(dialogue, pump)]
        assert max(after - before for before, after in pairwise(times)) <= POLL_MS + 2_100
    assert faults(dialogue) == []


def test_ninety_nine_silent_addresses_leave_the_hundredth_its_readings():
    dialogue = a_dialogue(ScriptedChain({99: HEALTHY}), 30 * 60_000, *range(100))
    times = [reading.at_ms for reading in readings(dialogue, "p99")]
    assert times[0] < 205_000
    assert max(after - before for before, after in pairwise(times)) <= POLL_MS + 4_200
    assert {data for data in asked(dialogue) if data.startswith(b"50")}, "and they are asked for ever"


def test_a_silent_pump_is_asked_for_ever_but_seldom():
    dialogue = a_dialogue(ScriptedChain({}), 3_600_000)
    assert dialogue.facts == []
    assert [at_ms for at_ms, _ in dialogue.sent][:5] == [0, 2_000, 4_000, 16_000, 28_000]


def test_a_pump_that_is_switched_on_later_is_read_and_then_asked_who_it_is():
    late = {
        query: (lambda now_ms, text=text: basic(text) if now_ms > 60_000 else b"")
        for query, text in HEALTHY.items()
    }
    dialogue = a_dialogue(ScriptedChain({0: late}), 100_000)
    answered = [data for at_ms, data in dialogue.sent if at_ms > 60_000]
    assert answered[:4] == [*ROUND, *WHO]
    assert readings(dialogue)[0].at_ms < 75_000


def test_the_reply_of_a_pump_that_is_not_asked_is_no_answer():
    session = a_session(0, 3)
    session.opened(0)
    session.due(0)
    [fault_of_3] = session.receive(bytes_of("X9"), 10)
    [stranger] = session.receive(basic("S", 7), 20)
    assert (fault_of_3.kind, stranger.kind) == (FaultKind.UNSUPPORTED, FaultKind.UNEXPECTED)
    assert "pump 7 answered, which is not set on this port" in stranger.detail
    assert session.due(20) == b""
    assert session.receive(bytes_of("B3R"), 30) == []
    assert session.due(30) == b"0SAF\r"


# What an answer means


@pytest.mark.parametrize(
    ("prompt", "state", "rate_ml_h"),
    [
        ("I", PumpState.RUNNING, 45.0),
        ("S", PumpState.IDLE, None),
        ("P", PumpState.PAUSED, None),
        ("T", PumpState.PAUSED, None),
        ("U", PumpState.STANDBY, None),
        ("X", PumpState.PRIMING, None),
        ("W", PumpState.UNKNOWN, None),
    ],
)
def test_the_state_is_the_prompt_and_only_while_infusing_is_there_a_rate(prompt, state, rate_ml_h):
    pump = a_pump(RAT=f"{prompt}45.00MH", DIS=f"{prompt}I1.234W0.500ML")
    [reading] = readings(a_dialogue(pump, 1_000))
    assert (reading.state, reading.rate_ml_h, reading.volume_ml) == (state, rate_ml_h, 1.234)


def test_a_rate_that_was_told_before_the_pump_stopped_is_none_of_this_state():
    [reading] = readings(a_dialogue(a_pump(DIS="SI1.234W0.000ML"), 1_000))
    assert (reading.state, reading.rate_ml_h) == (PumpState.IDLE, None)


def test_a_phase_without_a_rate_costs_the_rate_and_nothing_else():
    dialogue = a_dialogue(a_pump(RAT="I?NA"), 6_000)
    assert [(one.rate_ml_h, one.volume_ml) for one in readings(dialogue)] == [(None, 1.234)] * 2
    assert faults(dialogue) == []


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ("?", "unsupported"),
        ("?NA", "unsupported"),
        ("?OOR", "unsupported"),
        ("?COM", "garbled"),
        ("?IGN", "unsupported"),
    ],
)
def test_a_refused_question_for_the_volume_leaves_the_state(error, kind):
    dialogue = a_dialogue(a_pump(DIS=f"I{error}"), 1_000)
    [reading], [said] = readings(dialogue), faults(dialogue)
    assert (reading.state, reading.volume_ml, said.kind) == (PumpState.RUNNING, None, kind)


def test_units_that_we_do_not_know_are_no_value_and_are_said_to_be_unsupported():
    dialogue = a_dialogue(a_pump(RAT="I1.000OM", DIS="II1.000W0.000OZ"), 1_000)
    [reading] = readings(dialogue)
    assert (reading.rate_ml_h, reading.volume_ml) == (None, None)
    assert {said.kind for said in faults(dialogue)} == {FaultKind.UNSUPPORTED}


# Alarms


@pytest.mark.parametrize(
    ("letter", "alarm"),
    [
        ("R", "vendor:reset"),
        ("S", "vendor:stalled"),
        ("T", "vendor:safe_mode_timeout"),
        ("E", "vendor:program_error"),
        ("O", "vendor:program_phase"),
        ("Z", "vendor:Z"),
    ],
)
def test_an_alarm_that_the_pump_tells_once_is_told_at_once_and_kept_until_it_runs(letter, alarm):
    stopped = {"RAT": "S45.00MH", "DIS": "SI1.234W0.000ML"}

    def rate(now_ms: int) -> bytes:
        if 10_000 <= now_ms < 10_020:
            return basic(f"A?{letter}")
        return basic(stopped["RAT"] if now_ms < 20_000 else HEALTHY["RAT"])

    def volume(now_ms: int) -> bytes:
        return basic(stopped["DIS"] if now_ms < 20_000 else HEALTHY["DIS"])

    told = readings(a_dialogue(a_pump(VER="SNE1000V3.928", RAT=rate, DIS=volume, SAF="S0"), 26_000))
    assert [(one.state, one.alarms) for one in told] == [
        *[(PumpState.IDLE, ())] * 2,
        (PumpState.ALARM, (alarm,)),
        *[(PumpState.IDLE, (alarm,))] * 2,
        *[(PumpState.RUNNING, ())] * 2,
    ]
    assert told[2].volume_ml is None


def test_an_alarm_survives_that_the_port_is_opened_again():
    session = a_session()
    session.opened(0)
    session.due(0)
    [told] = session.receive(bytes_of("B19R"), 10)
    assert told.alarms == ("vendor:stalled",)
    session.opened(20)
    for reply in (bytes_of("B3R"), bytes_of("B13R"), basic("S45.00MH"), basic("SI1.234W0.000ML")):
        assert session.due(30)
        facts = session.receive(reply, 30)
    assert [one.alarms for one in facts] == [("vendor:stalled",)]


def test_an_alarm_that_comes_too_late_is_told_all_the_same_for_it_will_not_be_told_again():
    session = a_session()
    session.opened(0)
    session.due(0)
    session.receive(b"", 2_000)
    said = session.receive(bytes_of("B19R"), 2_500)
    assert [one.alarms for one in said if isinstance(one, Reading)] == [("vendor:stalled",)]
    assert [one.kind for one in said if isinstance(one, LinkFault)] == [FaultKind.UNEXPECTED]


def test_a_pump_that_says_nothing_but_alarms_is_not_asked_without_end():
    dialogue = a_dialogue(a_pump(**dict.fromkeys(HEALTHY, "A?S")), 60_000)
    assert len(dialogue.sent) < 60
    assert {one.state for one in readings(dialogue)} == {PumpState.ALARM}


# Safe mode


@pytest.mark.parametrize("answers", [{query: safe(text) for query, text in HEALTHY.items()}, {"SAF": "I30"}])
def test_a_pump_in_safe_mode_is_said_to_be_unsupported_and_read_all_the_same(answers):
    dialogue = a_dialogue(a_pump(**answers), 3 * POLL_MS + 1_000)
    assert len(readings(dialogue)) == 4
    [said] = faults(dialogue)
    assert said.kind is FaultKind.UNSUPPORTED
    assert "pump 0 is in Safe mode" in said.detail
    assert all(FAMILY.may_send(data) for data in asked(dialogue))


def test_a_simulated_pump_that_was_left_in_safe_mode_is_read_and_stays_in_it():
    device = Device("newera", scenario())
    for _ in range(2):  # the first is answered with the alarm of power-up, and not executed
        device.receive(safe("SAF60"), 0)
    dialogue = a_dialogue(device, 2 * POLL_MS + 1_000)
    assert {one.rate_ml_h for one in readings(dialogue)} == {125.0}
    assert len(readings(dialogue)) == 3
    assert [said.kind for said in faults(dialogue)] == [FaultKind.UNSUPPORTED] * 2
    assert "its time-out is 60 s" in faults(dialogue)[1].detail
    assert device.receive(b"SAF\r", 20_000)[0].data == safe("I60")


def test_an_alarm_packet_that_comes_unasked_is_told_and_is_no_answer():
    session = a_session()
    session.opened(0)
    assert session.due(0) == b"0VER\r"
    safe_mode, told = session.receive(bytes_of("S9"), 10)
    assert (safe_mode.kind, told.alarms) == (FaultKind.UNSUPPORTED, ("vendor:stalled",))
    assert session.due(10) == b""
    assert session.receive(bytes_of("S5"), 20) == []
    assert session.due(20) == b"0SAF\r"


# Silence, and answers that are too late


@pytest.mark.parametrize("name", ["X4", "X5", "X7"])
def test_a_reply_that_stops_in_its_middle_is_given_up_after_half_a_second(name):
    session = a_session()
    session.opened(0)
    session.due(0)
    early = session.receive(bytes_of(name), 100)
    assert session.next_due_ms() == 600
    facts = [*early, *session.receive(b"", 600)]
    assert {said.kind for said in facts} == {FaultKind.GARBLED}
    assert b"".join(said.sample for said in facts) == bytes_of(name)


def test_an_answer_that_is_too_late_is_no_reading_and_never_taken_for_a_newer_one():
    session = a_session()
    session.opened(0)
    for reply in (bytes_of("B3R"), bytes_of("B13R"), bytes_of("B6R")):
        session.due(0)
        session.receive(reply, 0)
    assert session.due(0) == b"0DIS\r"
    assert session.due(2_000) == b"0RAT\r", "an answer to DIS may still come: first the proof"
    [late] = session.receive(bytes_of("B10R"), 2_100)
    assert late.kind is FaultKind.UNEXPECTED
    assert session.receive(bytes_of("B6R"), 2_200) == []
    assert session.due(2_200) == b"0DIS\r"
    [reading] = session.receive(basic("II1.300W0.000ML"), 2_300)
    assert reading.volume_ml == 1.3


@pytest.mark.parametrize("takes_ms", [2_500, 4_000, 9_000])
def test_a_pump_slower_than_anybody_expects_gives_no_reading_rather_than_an_old_one(takes_ms):
    dialogue = a_dialogue(a_pump(answer_after_ms=takes_ms), 600_000)
    assert readings(dialogue) == []
    assert {said.kind for said in faults(dialogue)} == {FaultKind.UNEXPECTED}


# Any wire, against the simulator

END_MS = 5 * 60_000


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("name", WIRES)
def test_over_any_wire_the_simulated_pumps_are_read_and_what_is_read_is_true(name, seed):
    stories = {0: scenario(), 1: scenario(None, fault("occlusion_downstream", 60_000)), 7: scenario(seed=3)}
    dialogue = Dialogue(
        a_session(0, 1, 7),
        Device("newera", stories),
        there=Wire(WIRES[name], seed=seed),
        back=Wire(WIRES[name], seed=seed + 1_000),
    )
    dialogue.run(END_MS)
    for address in stories:
        read = readings(dialogue, f"p{address}")
        moments = [0, *(one.at_ms for one in read), END_MS]
        # "late" is more than a line with three pumps can bear: a round takes as long as the poll.
        least_ms = 120_000 if name == "late" else 60_000
        assert max(after - before for before, after in pairwise(moments)) < least_ms
        if name in ("noisy", "lossy"):
            continue  # nothing in Basic mode tells a changed or a lost digit
        truths = [(one.answered_ms, one.truth) for one in dialogue.said if one.address == address]
        for reading in read:
            if reading.volume_ml is None:
                assert reading.state is PumpState.ALARM
                continue
            near = [
                truth
                for at_ms, truth in truths
                if reading.at_ms - 2_000 <= at_ms <= reading.at_ms
                and abs(truth.counter_ml - reading.volume_ml) <= 0.005
            ]
            assert near, "what it says was true within the last two seconds"
            assert reading.rate_ml_h in (None, 125.0)
    stalled = readings(dialogue, "p1")[-1]
    if name not in ("noisy", "lossy"):
        assert stalled.alarms == ("vendor:stalled",)
    assert all(FAMILY.may_send(data) for data in asked(dialogue))


@pytest.mark.parametrize("name", ["clean", "byte_by_byte"])
def test_over_a_good_wire_every_poll_is_one_true_reading(name):
    device = Device("newera", scenario())
    dialogue = Dialogue(a_session(), device, there=Wire(WIRES[name], seed=0), back=Wire(WIRES[name], seed=1))
    dialogue.run(END_MS)
    first, *rest = readings(dialogue)
    assert (first.state, first.alarms) == (PumpState.ALARM, ("vendor:reset",)), "it was just switched on"
    assert len(rest) == END_MS // POLL_MS
    assert {one.rate_ml_h for one in rest} == {125.0}
    assert faults(dialogue) == []
    volumes = [one.truth.counter_ml for one in dialogue.said if one.request == b"0DIS"]
    # One more was the proof, after the alarm, that no older answer could follow.
    assert [one.volume_ml for one in rest] == pytest.approx(volumes[1:], abs=0.0051)


def test_over_a_line_that_doubles_everything_each_round_is_one_reading():
    dialogue = Dialogue(a_session(), a_pump(), back=Wire(WIRES["doubled"], seed=0))
    dialogue.run(END_MS)
    assert len(readings(dialogue)) == END_MS // POLL_MS
    assert {said.kind for said in faults(dialogue)} == {FaultKind.UNEXPECTED}


# Only queries, whatever happens

ANY_BYTES = st.one_of(
    st.binary(max_size=80),
    st.sampled_from([bytes.fromhex(frame["hex"]) for frame in FRAMES.values()]),
    st.sampled_from([basic(text, address) for text in HEALTHY.values() for address in (0, 1, 5)]),
)


@settings(max_examples=300)
@given(steps=steps_with(ANY_BYTES), poll_ms=st.sampled_from([1, 1_000, 5_000]))
def test_whatever_arrives_and_whenever_only_listed_queries_are_ever_written_and_nothing_is_raised(
    steps, poll_ms
):
    session = a_session(0, 1, 42, poll_ms=poll_ms)
    for now_ms, _ in goes_through(FAMILY, session, steps):
        assert session.next_due_ms() > now_ms


@given(moments=moments_with(ANY_BYTES))
def test_even_a_clock_that_jumps_makes_a_session_write_only_listed_queries(moments):
    bears_a_clock_that_jumps(FAMILY, a_session(0, 1), moments)


@given(
    noise=st.lists(st.binary(min_size=1, max_size=40).filter(lambda data: b"\x02" not in data), max_size=20)
)
def test_every_byte_that_makes_no_sense_is_counted(noise):
    session = a_session()
    session.opened(0)
    counted = sum(
        fact.byte_count
        for number, data in enumerate([*noise, b"\x02"])
        for fact in session.receive(data, number)
    )
    assert counted == len(b"".join(noise))


@pytest.mark.parametrize("command", NEVER_SEND)
def test_no_command_that_changes_the_pump_or_is_not_needed_may_be_sent(command):
    for address in ("", "0", "7", "99"):
        assert not FAMILY.may_send(f"{address}{command}\r".encode())


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\r",
        b"0RAT",
        b"RAT\r",
        b"00RAT\r",
        b"100RAT\r",
        b"0rat\r",
        b"0RAT\n",
        b"0RAT\r0DIS\r",
        bytes_of("S6"),
        bytes_of("S1"),
    ],
)
def test_nothing_but_whole_basic_queries_may_be_sent(data):
    assert not FAMILY.may_send(data)


# Configuration


@pytest.mark.parametrize(
    ("pumps", "words"),
    [
        ([], "at least one pump"),
        ([PumpOnLine(pump="p1"), PumpOnLine(pump="p2")], "p1: each of several newera pumps needs"),
        ([PumpOnLine(pump="p1", address=100)], "addresses go from 0 to 99, not 100"),
        ([PumpOnLine(pump="p1", address=-1)], "addresses go from 0 to 99, not -1"),
        ([PumpOnLine(pump="p1", address=2), PumpOnLine(pump="p2", address=2)], "p2: address 2 is set twice"),
        ([PumpOnLine(pump="p1", poll_ms=0)], "a poll of 0 ms is not possible"),
    ],
)
def test_what_a_chain_cannot_have_is_refused_with_the_reason(pumps, words):
    with pytest.raises(ValueError, match=words):
        FAMILY.open_session(pumps)


def test_the_traits_say_that_polling_changes_the_pump_and_report_no_pressure():
    traits = FAMILY.traits
    assert traits.status == "bench"
    assert traits.pressure_unit is None
    assert "pressure_mmhg" not in traits.reports
    assert any("acknowledges" in note for note in traits.notes)
