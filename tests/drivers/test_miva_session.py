"""The dialogue with a MIVA: what is asked when, what the log tells, and what silence means."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.family import PumpOnLine
from drivers.miva.log import NEWEST_RECORDS
from drivers.miva.session import MivaFamily, MivaSession
from drivers.reading import FaultKind, LinkFault, PumpState, Reading
from simulator.scenario import Scenario
from tests.drivers.bedside import Bedside
from tests.drivers.dialogue import Dialogue
from tests.drivers.laws import bears_a_clock_that_jumps, moments_with
from tests.drivers.miva_pump import FRAMES, Answer, ScriptedMiva, bytes_of, framed, record
from tests.drivers.wires import WIRES, Wire
from tests.simulator.scenarios import MIN, H, constant, fault, scenario

FAMILY = MivaFamily()
POLL_MS = 5_000
STATUS = [":INFU:RUN?", "Q7", ":INFU:RATE?", "Q5"]
SETTINGS = ["QI", ":PROT:DB:LOCK?"]

RUN, PAUSED, OCCLUDED, CLEARED = record(1), record(2), record(9, 2), record(9, 4)
BEGIN, END = record(0, 0x01FF), record(0, 0x02FF)
RAW_THAT_LOOKS_LIKE_AN_ALARM = bytes([9]) + bytes(4) + bytes.fromhex("0002") + bytes(9)
CODE = bytes.fromhex("05E80300F04711FFFFFFFFFFFFFFFFFF")
"""Somebody typed an access code."""

NEVER_SEND = [
    *("W00", "W01", "W111F8", "W201900320", "WA03E8", "WC0F0B1A080A1E", "WK60", "WM01", "WNSN800009", "WR"),
    *("WT00", "WT01", "WT02", "WX3FC00000", "KE60", "LA", "LB", "LE", "LR", "LW", "LC", "LI", "LS"),
    *(":PROTOCOL:RATE 20.0", ":KEY:LIST:CLEAR", ":INFU:RUN", ":INFU:RATE 5", "QB", "RE", "REFFFFFFFF"),
    *(":SCREENSHOT?", ":KEY:LIST?", "RE0000A900", "RE0000000a", "RE000000010", "rn"),
]
"""Commands that change the pump, and what is not needed."""


def a_session(poll_ms: int = POLL_MS) -> MivaSession:
    return FAMILY.open_session([PumpOnLine(pump="p1", poll_ms=poll_ms)])


def a_pump(*log: bytes, answers: dict[str, Answer] | None = None, **settings: int) -> ScriptedMiva:
    """A healthy pump that delivers 45 mL/h, with this in its log."""
    pump = ScriptedMiva(**settings).with_answers(answers or {})
    if log:
        pump.log = list(log)
    return pump


def a_dialogue(pump: ScriptedMiva, until_ms: int = 1_000) -> Dialogue:
    dialogue = Dialogue(a_session(), pump)
    dialogue.run(until_ms)
    return dialogue


def asked(dialogue: Dialogue) -> list[str]:
    return [data[1:-3].decode() for _, data in dialogue.sent]


def stands(**answers: Answer) -> dict[str, Answer]:
    return {":INFU:RUN?": "FALSE", ":INFU:RATE?": "0.00", **answers}


# What is asked


def test_after_opening_the_line_is_proved_empty_and_then_all_is_read():
    dialogue = a_dialogue(a_pump())
    assert asked(dialogue) == [
        "RE00000001",
        *SETTINGS,
        "RN",
        "RI",
        "RE00000015",
        "RE00000016",
        *STATUS,
    ]
    [reading] = dialogue.readings
    assert reading == Reading(
        pump="p1",
        at_ms=reading.at_ms,
        state=PumpState.RUNNING,
        rate_ml_h=45.0,
        volume_ml=12.34,
        alarms=(),
        bolus_ml=1.0,
        lockout_s=1_200.0,
        serial="SN800009",
    )
    assert dialogue.faults == []


def test_every_further_poll_reads_who_it_is_what_is_new_and_how_it_stands():
    dialogue = a_dialogue(a_pump(), until_ms=2 * POLL_MS + 1_000)
    assert asked(dialogue)[11:] == ["RN", "RI", *STATUS] * 2
    assert len(dialogue.readings) == 3
    assert [reading.bolus_ml for reading in dialogue.readings] == [1.0, None, None]


def test_the_settings_are_asked_once_a_minute():
    dialogue = a_dialogue(a_pump(), until_ms=121_000)
    assert asked(dialogue).count("QI") == 3
    assert dialogue.faults == []


def test_between_two_texts_a_mnemonic_is_asked_so_that_no_bare_value_can_be_taken_for_another():
    dialogue = a_dialogue(a_pump(), until_ms=121_000)
    assert not any(one[0] == two[0] == ":" for one, two in pairwise(asked(dialogue)))


def test_asking_twice_at_one_time_asks_once():
    session = a_session()
    session.opened(7)
    assert session.due(7) == framed("RE00000001")
    assert session.due(7) == b""


def test_a_pump_without_a_demand_bolus_is_read_without_one():
    [reading] = a_dialogue(a_pump(answers={"QI": "QIERROR"})).readings
    assert (reading.bolus_ml, reading.lockout_s) == (None, 1_200.0)


def test_a_setting_that_is_not_answered_costs_its_value_and_not_the_reading():
    dialogue = a_dialogue(a_pump(answers={":PROT:DB:LOCK?": ""}), until_ms=30_000)
    assert dialogue.readings[0].lockout_s is None
    assert dialogue.readings[0].bolus_ml == 1.0
    assert len(dialogue.readings) >= 3


def test_a_silent_pump_is_asked_for_ever_and_never_faster_than_every_ten_seconds():
    dialogue = a_dialogue(a_pump(answers=dict.fromkeys(["RE", "RI", "RN", *STATUS, *SETTINGS], "")), 600_000)
    assert dialogue.facts == []
    assert len(dialogue.sent) >= 59
    assert min(after - before for (before, _), (after, _) in pairwise(dialogue.sent)) == 10_000


def test_a_pump_that_does_not_tell_of_its_log_is_read_without_alarms():
    dialogue = a_dialogue(a_pump(answers={"RE": "", "RI": ""}), until_ms=180_000)
    assert len(dialogue.readings) >= 5
    assert {reading.alarms for reading in dialogue.readings} == {None}


def test_another_pump_on_the_same_cable_is_read_anew():
    def who(now_ms: int) -> str:
        return "RNSN800009" if now_ms < 7_000 else "RNSN800010"

    dialogue = a_dialogue(a_pump(answers={"RN": who}), until_ms=2 * POLL_MS + 1_000)
    assert [reading.serial for reading in dialogue.readings] == ["SN800009", "SN800009", "SN800010"]
    assert asked(dialogue)[-6:] == ["RE00000015", "RE00000016", *STATUS]


# The log


def test_only_the_newest_part_of_a_full_log_is_read_at_first_and_then_only_what_is_new():
    pump = a_pump(*[record(15)] * 500, head=100)
    pump.tail = 101
    dialogue = a_dialogue(pump, until_ms=POLL_MS + 1_000)
    read = [one for one in asked(dialogue)[1:] if one.startswith("RE")]
    assert read == [f"RE{place:08X}" for place in range(100 - NEWEST_RECORDS + 1, 101)]
    pump.write(OCCLUDED)
    dialogue.run(2 * POLL_MS + 1_000)
    assert asked(dialogue)[-5:] == ["RE00000065", *STATUS]
    assert dialogue.readings[-1].alarms == ("occlusion_downstream",)


def test_the_log_is_read_around_the_end_of_its_ring():
    pump = a_pump(RUN, head=43_263)
    dialogue = a_dialogue(pump)
    pump.write(OCCLUDED, CLEARED, OCCLUDED)
    dialogue.run(POLL_MS + 1_000)
    assert asked(dialogue)[-7:] == ["RE00000000", "RE00000001", "RE00000002", *STATUS]
    assert dialogue.readings[-1].alarms == ("occlusion_downstream",)


def test_after_opening_again_the_log_is_read_on_from_where_it_was():
    pump = a_pump(RUN, OCCLUDED)
    dialogue = a_dialogue(pump)
    pump.write(PAUSED)
    pump.answers |= stands()
    dialogue.session.opened(2_000)
    dialogue.run(3_000)
    assert asked(dialogue)[-6:] == ["RI", "RE00000017", *STATUS]
    assert dialogue.readings[-1].alarms == ("occlusion_downstream",)


def test_a_log_that_is_far_ahead_is_read_anew_and_never_whole():
    pump = a_pump(RUN, OCCLUDED)
    dialogue = a_dialogue(pump)
    pump.write(*[record(15)] * 400)
    dialogue.run(POLL_MS + 4_000)
    read = [one for one in asked(dialogue)[11:] if one.startswith("RE")]
    assert len(read) == NEWEST_RECORDS
    assert dialogue.readings[-1].alarms == (), "it runs"


def test_a_standing_pump_of_whose_log_no_start_was_read_has_no_known_alarms_and_no_known_state():
    pump = a_pump(*[record(15)] * 400, answers=stands())
    [reading, *_] = a_dialogue(pump, until_ms=4_000).readings
    assert (reading.alarms, reading.state) == (None, PumpState.UNKNOWN)


@pytest.mark.parametrize(
    ("written", "alarms"),
    [
        ([record(9, 1)], ("occlusion_upstream",)),
        ([record(9, 2)], ("occlusion_downstream",)),
        ([record(9, 1), record(9, 2)], ("occlusion_upstream", "occlusion_downstream")),
        ([record(9, 1), record(9, 2), record(9, 4)], ()),
        ([record(9, 2), record(1)], ()),
        ([record(9, 2), record(2)], ("occlusion_downstream",)),
        ([record(9, 3)], ("vendor:OCCLUSION_3",)),
        ([record(3)], ("empty",)),
        ([record(3), record(1)], ()),
        ([record(14)], ("cassette",)),
        ([record(17, 1)], ("malfunction",)),
        ([record(18, 0x42), record(26, 0x80)], ("malfunction",)),
        ([record(28)], ("battery_empty",)),
        ([record(31, 1)], ("battery_empty",)),
        ([record(19, 2)], ("battery_empty",)),
        ([record(19, 1)], ("vendor:BATTERY_OVERHEATED",)),
        ([record(30)], ("low_battery",)),
        ([record(30), record(1)], ("low_battery",)),
        ([record(30), record(13, 0x20)], ()),
        ([record(13, 0x2)], ("low_battery",)),
        ([record(13, 0x4)], ("battery_empty",)),
        ([record(13, 0x2), record(13, 0)], ("low_battery",)),
        ([record(24, 3)], ("low_battery",)),
        ([record(30), record(24, 1)], ()),
        ([record(4, 1)], ("vendor:INFUSION_LIMIT_REACHED",)),
        ([record(4, 2), record(4, 4)], ()),
        ([record(11, 2)], ("vendor:PUMP_LIMIT_REACHED",)),
        ([record(27, 4)], ("vendor:PUMP_HARD_LIMIT_REACHED",)),
        ([record(21)], ("vendor:UNATTENDED",)),
        ([record(29)], ("vendor:PROGRAMMING_INCOMPLETE",)),
        ([record(20), record(15), record(22, 0x0801), record(12), record(16), b"\xff" * 16], ()),
    ],
)
def test_an_alarm_is_active_from_its_event_until_it_is_cleared_or_the_infusion_runs_again(written, alarms):
    pump = a_pump(RUN)
    dialogue = a_dialogue(pump)
    pump.write(*written)
    dialogue.run(POLL_MS + 2_000)
    assert dialogue.readings[-1].alarms == alarms
    dialogue.run(2 * POLL_MS + 1_000)
    assert dialogue.readings[-1].alarms == alarms, "it stays"
    assert dialogue.faults == []


@pytest.mark.parametrize("raw_count", [2, 16])
def test_raw_records_between_their_marks_are_no_events(raw_count):
    pump = a_pump(RUN)
    dialogue = a_dialogue(pump)
    pump.write(BEGIN, *[RAW_THAT_LOOKS_LIKE_AN_ALARM] * raw_count, END, record(30))
    dialogue.run(POLL_MS + 3_000)
    assert dialogue.readings[-1].alarms == ("low_battery",)
    assert dialogue.faults == []


@pytest.mark.parametrize("raw_count", [2, 16])
@pytest.mark.parametrize("beginning", range(1, 17))
def test_where_the_first_look_begins_among_raw_records_they_are_no_events_either(raw_count, beginning):
    behind = [RUN, *[record(15)] * (NEWEST_RECORDS - 2 - min(beginning, raw_count))]
    log = [record(15)] * 50 + [BEGIN, *[RAW_THAT_LOOKS_LIKE_AN_ALARM] * raw_count, END, *behind]
    pump = a_pump(*log, answers=stands())
    dialogue = a_dialogue(pump, until_ms=POLL_MS + 1_000)
    assert dialogue.readings[-1].alarms == ()


def test_a_block_of_raw_records_without_its_end_is_told_and_what_follows_is_read():
    pump = a_pump(RUN)
    dialogue = a_dialogue(pump)
    pump.write(BEGIN, *[RAW_THAT_LOOKS_LIKE_AN_ALARM] * 16, record(30))
    dialogue.run(POLL_MS + 3_000)
    [told] = dialogue.faults
    assert (told.kind, told.detail[:40]) == (FaultKind.UNSUPPORTED, "a block of raw records has no end; ")
    assert dialogue.readings[-1].alarms == ("low_battery",)


def test_an_event_that_is_not_known_is_said_to_be_unsupported():
    pump = a_pump(RUN)
    dialogue = a_dialogue(pump)
    pump.write(record(77))
    dialogue.run(POLL_MS + 1_000)
    [told] = dialogue.faults
    assert (told.kind, told.detail) == (FaultKind.UNSUPPORTED, "an event of type 77 is not known")


def test_what_the_patient_asks_for_is_told_once_and_not_what_was_asked_for_long_ago():
    pump = a_pump(RUN, record(7, 1), record(6, 0x0201))
    dialogue = a_dialogue(pump)
    pump.write(record(7, 2), record(7, 3))
    dialogue.run(POLL_MS + 1_000)
    pump.write(record(6, 0x0201), record(6, 0x0101))
    dialogue.run(3 * POLL_MS + 1_000)
    assert [reading.alarms for reading in dialogue.readings] == [(), ("demand_denied",), ("demand",), ()]


def test_what_was_asked_for_while_the_line_was_down_is_not_told_as_new():
    pump = a_pump(RUN)
    dialogue = a_dialogue(pump)
    pump.write(record(7, 2), OCCLUDED)
    dialogue.session.opened(3_600_000)
    dialogue.now_ms = 3_600_000
    dialogue.run(3_601_000)
    assert dialogue.readings[-1].alarms == ("occlusion_downstream",)


# Access codes


@pytest.mark.parametrize("bend", ["clean", "doubled", "noisy", "lossy"])
def test_an_access_code_is_in_no_fact_however_bad_the_wire(bend):
    pump = a_pump(RUN, *[CODE] * 30)
    dialogue = Dialogue(a_session(), pump, back=Wire(WIRES[bend], seed=3))
    dialogue.run(120_000)
    pump.write(*[CODE] * 20, BEGIN, *[CODE] * 17)
    dialogue.run(240_000)
    assert dialogue.readings
    assert "4711" not in repr(dialogue.facts)
    assert bytes.fromhex("4711") not in b"".join(fault.sample for fault in dialogue.faults)


# The state


@pytest.mark.parametrize(
    ("log", "answers", "state"),
    [
        ([RUN], {}, PumpState.RUNNING),
        ([RUN], {"Q7": "Q71"}, PumpState.BOLUS),
        ([RUN, PAUSED], stands(), PumpState.PAUSED),
        ([RUN, OCCLUDED], stands(), PumpState.ALARM),
        ([RUN, OCCLUDED, PAUSED], stands(), PumpState.ALARM),
        ([RUN, OCCLUDED, CLEARED], stands(), PumpState.PAUSED),
        ([RUN, record(30), PAUSED], stands(), PumpState.PAUSED),
        ([RUN, PAUSED, record(24, 1)], stands(), PumpState.IDLE),
        ([record(15)], stands(), PumpState.IDLE),
        ([RUN], stands(), PumpState.UNKNOWN),
    ],
)
def test_the_state_is_whether_it_runs_and_else_what_the_log_says_of_it(log, answers, state):
    dialogue = a_dialogue(a_pump(*log, answers=answers))
    assert [reading.state for reading in dialogue.readings] == [state]


def test_started_standing_and_neither_paused_nor_in_alarm_is_idle_when_the_log_says_no_more():
    dialogue = a_dialogue(a_pump(RUN, answers=stands()), until_ms=2 * POLL_MS + 1_000)
    assert [reading.state for reading in dialogue.readings] == [
        PumpState.UNKNOWN,
        PumpState.IDLE,
        PumpState.IDLE,
    ]


# Time


def test_a_question_to_a_fast_pump_is_sent_again_every_half_second_three_times():
    session = a_session()
    session.opened(0)
    session.due(0)
    session.receive(framed("RE00000001" + "F" * 32), 20)
    assert [now_ms for now_ms in range(20, 9_000) if session.due(now_ms) == framed("QI")] == [
        20,
        520,
        1_020,
        1_520,
    ]


def test_after_a_question_that_was_sent_again_the_next_round_begins_with_a_proof():
    answers = iter(["Q504D2", "", *["Q504D2"] * 10])
    dialogue = a_dialogue(a_pump(answers={"Q5": lambda _: next(answers)}), until_ms=2 * POLL_MS + 1_000)
    assert asked(dialogue)[11:] == ["RN", "RI", *STATUS, "Q5", "RE00000002", "RN", "RI", *STATUS]
    assert len(dialogue.readings) == 3


def test_a_place_of_the_log_that_was_asked_for_lately_is_no_proof():
    answers = iter(["Q504D2", "", *["Q504D2"] * 10])
    pump = a_pump(RUN, RUN, head=3, answers={"Q5": lambda _: next(answers)})
    dialogue = a_dialogue(pump, until_ms=2 * POLL_MS + 1_000)
    places = [one for one in asked(dialogue) if one.startswith("RE")]
    assert places == ["RE00000001", "RE00000002", "RE00000003", "RE00000004"]


def test_a_late_answer_is_never_taken_for_that_to_a_later_question():
    # The maker's own client takes it so: with answers after 60 ms it is one behind for ever.
    slow = iter([20] * 12 + [5_500] + [20] * 1_000)
    pump = a_pump(answers={"Q5": lambda now_ms: f"Q5{now_ms // 10:04X}"})
    pump.sent_ms = lambda now_ms: now_ms + next(slow)  # type: ignore[method-assign]
    dialogue = a_dialogue(pump, until_ms=60_000)
    assert FaultKind.UNEXPECTED in {fault.kind for fault in dialogue.faults}
    assert len(dialogue.readings) >= 8
    for reading in dialogue.readings:
        assert reading.volume_ml is not None
        assert reading.at_ms - round(reading.volume_ml * 1_000) <= 100


def test_an_answer_to_a_mnemonic_with_another_name_is_unexpected_and_the_question_stays_open():
    session = a_session()
    session.opened(0)
    session.due(0)
    [told] = session.receive(framed("RNSN800009"), 20)
    assert isinstance(told, LinkFault)
    assert (told.kind, told.detail) == (FaultKind.UNEXPECTED, "RN came, RE00000001 was asked")
    [told] = session.receive(framed("RE00000002" + "F" * 32), 30)
    assert isinstance(told, LinkFault)
    assert told.kind is FaultKind.UNEXPECTED
    assert session.due(30) == b""
    assert session.receive(framed("RE00000001" + "F" * 32), 40) == []
    assert session.due(40) == framed("QI")


def test_a_bare_value_that_cannot_be_the_answer_is_unexpected():
    dialogue = a_dialogue(a_pump(answers={":INFU:RUN?": "45.00"}), until_ms=20_000)
    assert dialogue.readings == []
    assert {fault.detail for fault in dialogue.faults} == {"a bare value came, :INFU:RUN? was asked"}


def test_the_sensor_stream_between_question_and_answer_is_no_answer_and_no_fault():
    pump = a_pump()
    dialogue = a_dialogue(pump, until_ms=0)
    session, now_ms, told = dialogue.session, 0, []
    session.opened(0)
    while now_ms < 60_000:
        told += session.receive(bytes_of("X6")[:15], now_ms)
        for reply in pump.receive(session.due(now_ms), now_ms):
            told += session.receive(bytes_of("X6")[:15] + reply, now_ms + 20)
        now_ms += 25
    assert len(told) == 12
    assert all(isinstance(fact, Reading) for fact in told)


def test_noise_without_a_frame_is_told_when_the_answer_is_given_up():
    session = a_session()
    session.opened(0)
    session.due(0)
    assert session.receive(b"\xff\xfe", 100) == []
    [told] = session.receive(b"", 10_000)
    assert isinstance(told, LinkFault)
    assert (told.kind, told.byte_count) == (FaultKind.GARBLED, 2)


def test_polls_that_were_missed_are_not_made_up_for():
    dialogue = a_dialogue(a_pump())
    late_ms = 3_600_000
    assert dialogue.session.due(late_ms) == framed("QI")
    dialogue.session.opened(late_ms)
    dialogue.now_ms = late_ms
    dialogue.run(late_ms + 1_000)
    assert dialogue.session.next_due_ms() == late_ms + POLL_MS


# Any wire, against the simulated pump


def a_line(story: Scenario, wire: str, seed: int = 0) -> Bedside:
    return Bedside(
        FAMILY,
        story,
        poll_ms=POLL_MS,
        there=Wire(WIRES[wire], seed=seed),
        back=Wire(WIRES[wire], seed=seed + 1_000),
    )


def holds_the_truth(line: Bedside, within_ms: int) -> None:
    """Each reading's rate and volume were true at some time within ``within_ms`` before it."""
    for reading in line.readings:
        assert reading.volume_ml is not None
        moments = range(max(0, reading.at_ms - within_ms), reading.at_ms + 1, 10)
        truths = [line.device.pump.truth_at(at_ms) for at_ms in moments]
        counters = [truth.counter_ml for truth in truths]
        assert min(counters) - 0.005001 <= reading.volume_ml <= max(counters) + 0.005001
        assert round(reading.rate_ml_h or 0, 2) in {round(truth.rate_ml_h, 2) for truth in truths}


END_MS = 10 * MIN


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("name", WIRES)
def test_over_any_wire_what_is_read_is_true_and_the_pump_is_never_lost(name, seed):
    story = scenario(
        constant(125.0, H),
        fault("paused", 2 * MIN, MIN),
        fault("occlusion_downstream", 4 * MIN, 3 * MIN),
    )
    line = a_line(story, name, seed)
    line.run(END_MS)
    holds_the_truth(line, within_ms=15_000 if name == "late" else 5_000)
    assert {reading.serial for reading in line.readings} <= {line.readings[0].serial}
    for reading in line.readings:
        assert reading.alarms in (None, (), ("occlusion_downstream",))
    moments = [0, *(reading.at_ms for reading in line.readings), END_MS]
    assert max(after - before for before, after in pairwise(moments)) < 60_000
    assert all(FAMILY.may_send(data) for _, data in line.sent)


@pytest.mark.parametrize("name", ["clean", "byte_by_byte"])
def test_over_a_good_wire_every_poll_is_one_reading_and_the_alarm_is_in_it(name):
    story = scenario(constant(125.0, H), fault("occlusion_downstream", 2 * MIN, 3 * MIN))
    line = a_line(story, name)
    line.run(END_MS)
    assert len(line.readings) == len(line.facts) == END_MS // POLL_MS
    holds_the_truth(line, within_ms=1_500)
    for reading in line.readings:
        at_begin, at_end = (
            line.device.pump.truth_at(at_ms) for at_ms in (max(0, reading.at_ms - 1_500), reading.at_ms)
        )
        if at_begin.state == at_end.state and at_begin.alarms == at_end.alarms:
            assert reading.alarms == at_end.alarms
            assert reading.state == at_end.state


def test_a_pump_whose_sensor_stream_is_on_is_read_as_any_other():
    line = a_line(scenario(constant(125.0, H)), "clean")
    line.device.receive(framed("W01"), 0)  # somebody else at the line
    line.run(END_MS)
    assert len(line.readings) == len(line.facts) == END_MS // POLL_MS
    holds_the_truth(line, within_ms=3_000)


# Only queries, whatever happens

ANY_BYTES = st.one_of(
    st.binary(max_size=80),
    st.sampled_from([bytes.fromhex(frame["hex"]) for frame in FRAMES.values()]),
    st.sampled_from([framed(payload) for payload in NEVER_SEND]),
    st.sampled_from([framed(f"RE{place:08X}" + CODE.hex().upper()) for place in range(4)]),
    st.sampled_from([framed("RI000000000000A8FF"), framed("RNSN000001"), framed("FALSE"), framed("Q70")]),
)
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["receive", "answer", "answer", "answer", "due", "opened"]),
        st.integers(0, 20_000),
        ANY_BYTES,
    ),
    max_size=40,
)


@settings(max_examples=100)
@given(steps=STEPS, poll_ms=st.sampled_from([1, 1_000, 5_000]))
def test_whatever_arrives_and_whenever_only_listed_queries_are_ever_written_and_nothing_is_raised(
    steps, poll_ms
):
    session, pump = a_session(poll_ms), a_pump(RUN, BEGIN, CODE, CODE, END)
    written = [b""]
    now_ms = 0
    for what, after_ms, data in steps:
        now_ms += after_ms % (50 if what == "answer" else 20_001)
        if what == "opened":
            session.opened(now_ms)
        elif what == "answer":
            for reply in pump.receive(written[-1], now_ms):
                session.receive(reply, now_ms)
        elif what == "receive":
            session.receive(data, now_ms)
        written.append(session.due(now_ms))
        assert session.due(now_ms) == b""
        session.next_due_ms()
    assert all(FAMILY.may_send(data) for data in written if data)


@given(moments=moments_with(ANY_BYTES))
def test_even_a_clock_that_jumps_makes_a_session_write_only_listed_queries(moments):
    bears_a_clock_that_jumps(FAMILY, a_session(), moments)


@given(noise=st.lists(st.binary(min_size=1, max_size=40), max_size=30))
def test_every_byte_that_makes_no_sense_is_counted(noise):
    session = a_session()
    session.opened(0)
    counted = 0
    for number, data in enumerate([*noise, b"\x02"]):
        for fact in session.receive(data, number):
            assert isinstance(fact, LinkFault)
            counted += fact.byte_count
    heard = b"".join(noise)
    between_frames = sum(heard.count(filler) for filler in (b"\r", b"\n", b"\x00"))
    assert len(heard) - between_frames <= counted <= len(heard)


@pytest.mark.parametrize("payload", NEVER_SEND)
def test_no_command_that_changes_the_pump_may_be_sent(payload):
    assert not FAMILY.may_send(framed(payload))


@pytest.mark.parametrize(
    "data",
    [b"", b"\x02", framed("RN") * 2, b"\x02RN00\x03", b"\x02RNa0\x03", b"\x02RN1C\x03", framed("RN") + b"\n"],
)
def test_nothing_but_whole_queries_may_be_sent(data):
    assert not FAMILY.may_send(data)


def test_a_record_may_be_asked_for_where_there_is_one():
    assert FAMILY.may_send(framed("RE00000000"))
    assert FAMILY.may_send(framed("RE0000A8FF"))


# Configuration


def test_the_traits_tell_what_is_only_probable():
    traits = FAMILY.traits
    assert (traits.status, traits.evidence) == ("experimental", "vendor's own client")
    assert traits.counter_ml == 0.01
    assert not {"vtbi_ml", "pressure_mmhg", "battery_percent"} & set(traits.reports)
