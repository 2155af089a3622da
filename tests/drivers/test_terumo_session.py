"""The dialogue with a Terumo SS3 pump: what is asked when, what an answer means, and what silence means."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.family import PumpOnLine
from drivers.reading import FaultKind, LinkFault, PumpState, Reading
from drivers.terumo.codec import FRAME_LIMIT_BYTES
from drivers.terumo.session import LINE_EMPTY_AFTER_MS, TOO_LATE_MS, TerumoFamily, TerumoSession
from simulator.device import Device
from simulator.pump import Truth
from tests.drivers.laws import bears_a_clock_that_jumps, goes_through, moments_with, steps_with
from tests.drivers.terumo_pump import (
    DEVICE_ID,
    FRAMES,
    STATUS,
    WHO,
    ScriptedPump,
    TerumoDialogue,
    block_of,
    bytes_of,
    framed,
    numbered,
    packet,
    status,
)
from tests.drivers.wires import WIRES, Wire
from tests.simulator.scenarios import constant, fault, legs, scenario

FAMILY = TerumoFamily()
POLL_MS = 5_000
OTHER_ID = "000100700000009999000001"


def a_session(poll_ms: int = POLL_MS) -> TerumoSession:
    return FAMILY.open_session([PumpOnLine(pump="p1", poll_ms=poll_ms)])


def healthy(_now_ms: int) -> bytes:
    return status("T5")


def a_dialogue(pump: ScriptedPump, until_ms: int) -> TerumoDialogue:
    dialogue = TerumoDialogue(a_session(), pump)
    dialogue.run(until_ms)
    return dialogue


def reading_of(frame: bytes) -> Reading:
    """What the session makes of a status reply."""
    [reading] = a_dialogue(ScriptedPump(lambda _: frame), 1_000).readings
    return reading


def a_session_that_asked(repeats_numbers: bool = True) -> TerumoSession:
    """It knows the pump, has had an answer, and has asked for the status with number 02 at 5000."""
    session = a_session()
    session.opened(0)
    assert session.due(0) == bytes_of("T1")
    assert session.receive(bytes_of("T2"), 20) == []
    assert session.due(20) == bytes_of("T3")
    [reading] = session.receive(numbered(bytes_of("T5"), 1 if repeats_numbers else 0), 40)
    assert isinstance(reading, Reading)
    assert block_of(session.due(5_020)) == b"\x02\x01\x00\x00"
    return session


# What is asked


def test_the_pump_is_asked_who_it_is_and_then_how_it_is_at_every_poll_with_a_new_number():
    dialogue = a_dialogue(ScriptedPump(healthy), until_ms=3 * POLL_MS + 1_000)
    assert dialogue.asked_at()[0] == (0, WHO)
    assert dialogue.asked() == [WHO] + [STATUS] * 4
    assert [at_ms for at_ms, asked in dialogue.asked_at() if asked == STATUS][1:] == [
        POLL_MS,
        2 * POLL_MS,
        3 * POLL_MS,
    ]
    assert dialogue.numbers() == [1, 2, 3, 4]
    assert dialogue.faults == []
    assert len(dialogue.readings) == 4


def test_numbers_stay_in_the_range_of_a_network_system_and_never_are_00():
    dialogue = a_dialogue(ScriptedPump(healthy), until_ms=260 * POLL_MS)
    assert dialogue.numbers()[:130] == [*range(1, 0x7F), 1, 2, 3, 4]
    assert dialogue.faults == []


def test_asking_twice_at_one_time_asks_once():
    session = a_session()
    session.opened(7)
    assert session.due(7) == bytes_of("T1")
    assert session.due(7) == b""


def test_nothing_is_asked_while_an_answer_is_outstanding():
    session = a_session()
    session.opened(0)
    session.due(0)
    assert [session.due(now_ms) for now_ms in range(1, LINE_EMPTY_AFTER_MS, 7)] == [b""] * 1429
    assert session.next_due_ms() == LINE_EMPTY_AFTER_MS


def test_a_silent_pump_is_asked_who_it_is_for_ever_and_never_for_a_status():
    dialogue = a_dialogue(ScriptedPump(healthy, device_id=""), until_ms=3_600_000)
    assert dialogue.facts == []
    assert set(dialogue.asked()) == {WHO}
    assert {after - before for (before, _), (after, _) in pairwise(dialogue.asked_at())} == {
        LINE_EMPTY_AFTER_MS
    }


def test_a_pump_that_is_switched_on_later_is_read_as_soon_as_it_answers():
    pump = ScriptedPump(healthy, device_id=lambda now_ms: DEVICE_ID if now_ms >= 61_000 else "")
    dialogue = a_dialogue(pump, until_ms=90_000)
    assert dialogue.readings[0].at_ms == 70_000 + 60


def test_another_pump_on_the_same_cable_is_asked_who_it_is_and_its_readings_bear_its_number():
    def who(now_ms: int) -> str:
        return DEVICE_ID if now_ms < 12_000 else OTHER_ID

    def says(now_ms: int) -> bytes:
        return status("T5", device_id=who(now_ms))

    dialogue = a_dialogue(ScriptedPump(says, device_id=who), until_ms=40_000)
    serials = [reading.serial for reading in dialogue.readings]
    assert serials[:4] == [DEVICE_ID] * 3 + [OTHER_ID]
    assert dialogue.asked().count(WHO) == 2
    assert dialogue.readings[3].at_ms - dialogue.readings[2].at_ms < 20_000


def test_a_query_to_a_fast_pump_is_sent_again_with_a_new_number_three_times():
    session = a_session_that_asked()
    again = [(now_ms, said) for now_ms in range(5_021, 19_000) if (said := session.due(now_ms))]
    assert [now_ms for now_ms, _ in again] == [6_020, 7_020, 8_020, 18_020]
    assert [block_of(said)[:1] for _, said in again] == [b"\x03", b"\x04", b"\x05", b""]
    assert again[-1][1] == bytes_of("T1"), "then the line is empty, and the next query asks who is there"


def test_a_lost_answer_of_a_fast_pump_costs_a_second():
    answers = iter([status("T5"), b"", *[status("T5")] * 10])
    dialogue = a_dialogue(ScriptedPump(lambda _: next(answers)), until_ms=2 * POLL_MS + 1_000)
    assert [reading.at_ms for reading in dialogue.readings][1:] == [POLL_MS + 1_030, 2 * POLL_MS + 30]


@pytest.mark.parametrize("repeats_numbers", [True, False])
def test_a_pump_that_takes_four_seconds_is_heard_and_one_that_takes_longer_is_not(repeats_numbers):
    def taking(takes_ms: int) -> TerumoDialogue:
        pump = ScriptedPump(healthy, takes_ms=lambda _: takes_ms, repeats_numbers=repeats_numbers, busy=True)
        return a_dialogue(pump, until_ms=120_000)

    in_time = taking(TOO_LATE_MS - 100)
    assert len(in_time.readings) >= 12
    assert in_time.faults == []
    late = taking(TOO_LATE_MS + 100)
    assert late.readings == []
    assert {fault.kind for fault in late.faults} == {FaultKind.UNEXPECTED}


def test_polls_that_were_missed_are_not_made_up_for():
    session = a_session_that_asked()
    session.receive(status("T5", at_0=b"\x02"), 5_040)
    late_ms = 3_600_000
    assert block_of(session.due(late_ms))[0] == 3
    session.receive(status("T5", at_0=b"\x03"), late_ms)
    assert session.due(late_ms) == b""
    assert session.next_due_ms() == late_ms + POLL_MS


# What an answer means


@pytest.mark.parametrize(
    ("byte", "state", "rate_ml_h"),
    [
        (0x00, PumpState.PAUSED, 5.0),
        (0x10, PumpState.RUNNING, 5.0),
        (0x1F, PumpState.RUNNING, 5.0),
        (0x20, PumpState.STANDBY, 5.0),
        (0x30, PumpState.PRIMING, None),
        (0x40, PumpState.BOLUS, None),
        (0x50, PumpState.BOLUS, None),
    ],
)
def test_the_state_is_that_of_the_upper_half_and_the_set_rate_is_not_that_of_a_bolus(byte, state, rate_ml_h):
    reading = reading_of(status("T5", at_7=bytes([byte])))
    assert (reading.state, reading.rate_ml_h) == (state, rate_ml_h)


def test_a_reserved_state_is_unknown_and_said_to_be_unsupported_and_costs_nothing_else():
    dialogue = a_dialogue(ScriptedPump(lambda _: status("T5", at_7=b"\x70")), 1_000)
    [reading], [fault_] = dialogue.readings, dialogue.faults
    assert (reading.state, reading.volume_ml) == (PumpState.UNKNOWN, 12.34)
    assert (fault_.kind, fault_.detail) == (FaultKind.UNSUPPORTED, "state 7 is reserved")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("T4", {"state": "paused", "rate_ml_h": 0.0, "volume_ml": 0.0, "alarms": (), "on_mains": True}),
        ("T5", {"state": "running", "rate_ml_h": 5.0, "volume_ml": 12.34, "alarms": ()}),
        ("T6", {"state": "paused", "rate_ml_h": 5.0, "alarms": ("occlusion_downstream",)}),
        ("T7", {"state": "running", "alarms": ("near_empty", "low_battery"), "on_mains": False}),
        ("T8", {"state": "running", "vtbi_ml": None}),
        ("E1", {"state": "running", "rate_ml_h": 25.0, "volume_ml": 12.34}),
        ("E2", {"on_mains": False, "battery_percent": None, "alarms": ()}),
        ("E3", {"state": "complete", "alarms": ("vendor:completion",), "volume_ml": 100.0}),
        ("E4", {"state": "bolus", "rate_ml_h": None, "volume_ml": 15.0}),
        ("E5", {"state": "running", "rate_ml_h": 10.5, "volume_ml": 0.77}),
    ],
)
def test_a_reading_holds_what_the_hand_checked_frame_says(name, expected):
    reading = reading_of(bytes_of(name))
    assert {field: getattr(reading, field) for field in expected} == expected
    assert (reading.serial, reading.vtbi_ml, reading.pressure_mmhg) == (DEVICE_ID, None, None)


def test_a_dosage_is_never_taken_for_a_rate():
    for unit in (b"\x04", b"\x08", b"\x77"):
        said = status("T5", at_25=b"\x00\x01\xf4", at_28=unit, at_16=b"\x00\x04\x1a")
        assert reading_of(said).rate_ml_h == 10.5


def test_a_short_answer_is_a_reading_of_what_it_says_and_says_that_it_was_short():
    dialogue = a_dialogue(ScriptedPump(lambda _: bytes_of("U6")), 1_000)
    [reading], [fault_] = dialogue.readings, dialogue.faults
    assert reading == Reading(pump="p1", at_ms=reading.at_ms, state=PumpState.RUNNING, serial=DEVICE_ID)
    assert reading.alarms is None, "not said is not none"
    assert fault_.kind is FaultKind.UNSUPPORTED


def test_an_answer_that_says_nothing_is_no_reading():
    dialogue = a_dialogue(ScriptedPump(lambda _: status("T5", length=5)), 1_000)
    assert dialogue.readings == []
    assert [fault_.kind for fault_ in dialogue.faults] == [FaultKind.UNSUPPORTED]


@pytest.mark.parametrize(
    ("bit", "alarm"),
    [
        (0, "vendor:shutdown_notice"),
        (1, "vendor:link_interruption"),
        (2, "vendor:completion"),
        (3, "occlusion_downstream"),
        (4, "cassette"),
        (5, "cassette"),
        (6, "cassette"),
        (7, "cassette"),
        (8, "near_empty"),
        (13, "vendor:power_failure"),
        (15, "vendor:mains_detector"),
        (16, "vendor:no_flow_rate"),
        (17, "vendor:flow_rate_vtbi_check"),
        (18, "vendor:no_vtbi"),
        (19, "low_battery"),
        (20, "vendor:start_reminder"),
        (21, "vendor:pressure"),
        (22, "vendor:maintenance_timer"),
        (23, "vendor:battery_replacement"),
    ],
)
def test_each_alarm_bit_has_its_name(bit, alarm):
    assert reading_of(status("T5", at_10=(1 << bit).to_bytes(3, "big"))).alarms == (alarm,)


def test_several_alarms_are_told_together_and_each_once():
    assert reading_of(status("T5", at_10=b"\x08\x01\x38")).alarms == (
        "occlusion_downstream",
        "cassette",
        "near_empty",
        "low_battery",
    )


@pytest.mark.parametrize("bits", [b"\x00\x00\x00", b"\x00\x5e\x00"])
def test_an_alarm_that_sounds_without_a_known_bit_is_told_as_unknown_and_never_as_none(bits):
    assert reading_of(status("T5", at_10=bits, at_14=b"\x08")).alarms == ("vendor:unknown",)
    assert reading_of(status("T5", at_10=bits, at_14=b"\x40")).alarms == ()


@pytest.mark.parametrize(
    ("name", "words"), [("T9", "command not known (11)"), ("T10", "message too short (13)")]
)
def test_a_refusal_is_said_to_be_unsupported_is_no_reading_and_is_asked_again_at_the_next_poll(name, words):
    dialogue = a_dialogue(ScriptedPump(lambda _: bytes_of(name)), POLL_MS + 1_000)
    assert dialogue.readings == []
    assert [fault_.detail for fault_ in dialogue.faults] == [f"refused: {words}"] * 2
    assert dialogue.asked() == [WHO, STATUS, STATUS]


# What is not an answer


def test_another_pumps_answer_is_ignored_and_the_question_stays_open():
    session = a_session_that_asked()
    [fault_] = session.receive(numbered(bytes_of("U5"), 2), 5_030)
    assert isinstance(fault_, LinkFault)
    assert fault_.kind is FaultKind.UNEXPECTED
    assert session.due(5_030) == b""
    [reading] = session.receive(status("T5", at_0=b"\x02"), 5_040)
    assert isinstance(reading, Reading)


@pytest.mark.parametrize("number", [0, 1, 3, 0x7E, 0x7F, 0x82, 0xFF])
def test_an_answer_with_another_number_is_stale_and_no_reading_also_with_00_of_a_pump_that_repeats(number):
    session = a_session_that_asked()
    [fault_] = session.receive(status("T5", at_0=bytes([number])), 5_040)
    assert isinstance(fault_, LinkFault)
    assert fault_.kind is FaultKind.UNEXPECTED
    assert fault_.detail == f"status {number:02X} came, status 02 was asked"
    assert session.due(5_040) == b""


def test_the_hand_checked_frame_with_another_number_is_discarded():
    session = a_session_that_asked()
    [fault_] = session.receive(bytes_of("U8"), 5_040)
    assert isinstance(fault_, LinkFault)


def test_a_pump_that_answers_00_as_in_the_printed_example_is_read():
    dialogue = a_dialogue(ScriptedPump(healthy, repeats_numbers=False), 3 * POLL_MS + 1_000)
    assert len(dialogue.readings) == 4
    assert dialogue.faults == []


def test_a_pump_that_answers_00_is_never_asked_twice_for_one_answer():
    session = a_session_that_asked(repeats_numbers=False)
    assert [session.due(now_ms) for now_ms in range(5_021, 15_020, 3)] == [b""] * 3333
    assert session.due(15_020) == bytes_of("T1")


def test_after_an_answer_too_many_a_pump_that_answers_00_first_proves_that_no_older_one_can_follow():
    session = a_session_that_asked(repeats_numbers=False)
    frame = status("T5", at_0=b"\x00")
    first, second = session.receive(frame + frame, 5_040)
    assert isinstance(first, Reading)
    assert isinstance(second, LinkFault)
    assert session.due(5_040) == b"", "in its own time: a line that doubles must not make the session spin"
    assert session.due(10_020) == bytes_of("T1")
    [unproved] = session.receive(frame, 10_030)
    assert isinstance(unproved, LinkFault)
    assert session.receive(bytes_of("T2"), 10_040) == []
    assert block_of(session.due(10_040))[:1] == b"\x03"


def test_what_comes_unasked_is_unexpected_and_no_reading():
    session = a_session()
    session.opened(0)
    for name in ("T2", "T5", "T9"):
        [fault_] = session.receive(bytes_of(name), 10)
        assert isinstance(fault_, LinkFault)
        assert fault_.kind is FaultKind.UNEXPECTED


def test_the_echo_of_a_query_is_no_answer():
    session = a_session()
    session.opened(0)
    [fault_] = session.receive(session.due(0), 5)
    assert isinstance(fault_, LinkFault)
    assert fault_.kind is FaultKind.UNSUPPORTED
    assert session.receive(bytes_of("T2"), 20) == []
    assert session.due(20) == bytes_of("T3")


def test_a_frame_without_its_end_is_told_when_the_answer_is_given_up():
    session = a_session_that_asked(repeats_numbers=False)
    assert session.receive(bytes_of("V3"), 5_100) == []
    [fault_] = session.receive(b"", 5_020 + LINE_EMPTY_AFTER_MS)
    assert isinstance(fault_, LinkFault)
    assert (fault_.kind, fault_.byte_count) == (FaultKind.GARBLED, len(bytes_of("V3")))
    assert fault_.sample == bytes_of("V3")[:32]


@pytest.mark.parametrize("name", [name for name, frame in FRAMES.items() if frame["expected"] == "reject"])
def test_no_damaged_frame_becomes_a_reading(name):
    session = a_session_that_asked()
    facts = [*session.receive(bytes_of(name), 5_030), *session.receive(b"", 60_000)]
    assert facts
    assert all(isinstance(fact, LinkFault) for fact in facts)


def test_opened_again_every_half_heard_word_is_forgotten_and_the_pump_is_asked_anew():
    session = a_session_that_asked()
    session.receive(status("T5", at_0=b"\x02")[:-3], 5_040)
    session.opened(5_050)
    assert session.due(5_050) == bytes_of("T1")
    [fault_] = session.receive(status("T5", at_0=b"\x02"), 5_060)
    assert isinstance(fault_, LinkFault), "an answer from before is none"
    session.receive(bytes_of("T2"), 5_070)
    assert block_of(session.due(5_070))[0] == 3, "a number that what is still on its way does not bear"


# Any wire

MINUTES = 10
END_MS = MINUTES * 60_000


def volume_at(now_ms: int) -> int:
    """Hundredths of a millilitre: it tells when the pump was asked, to 10 ms."""
    return 100 + now_ms // 10


def telling_the_time(now_ms: int) -> bytes:
    alarmed = 60_000 <= now_ms % 240_000 < 120_000
    return status("T6" if alarmed else "T5", at_19=volume_at(now_ms).to_bytes(3, "big"))


def check_truth(dialogue: TerumoDialogue) -> None:
    for reading in dialogue.readings:
        assert reading.volume_ml is not None
        told_ms = (round(reading.volume_ml * 100) - 100) * 10
        assert 0 <= reading.at_ms - told_ms <= TOO_LATE_MS + 10, "no older than is promised"
        assert (reading.state is PumpState.PAUSED) == (reading.alarms != ())
        assert reading.serial == DEVICE_ID
    assert all(FAMILY.may_send(data) for _, data in dialogue.sent)


@pytest.mark.parametrize("repeats_numbers", [True, False])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", WIRES)
def test_over_any_wire_what_is_read_is_true_and_the_pump_is_never_lost(name, seed, repeats_numbers):
    dialogue = TerumoDialogue(
        a_session(),
        ScriptedPump(telling_the_time, repeats_numbers=repeats_numbers),
        there=Wire(WIRES[name], seed=seed),
        back=Wire(WIRES[name], seed=seed + 1_000),
    )
    dialogue.run(END_MS)
    check_truth(dialogue)
    if name not in ("noisy", "lossy"):
        # Those two spoil more than half of all frames of this length: 230 bytes.
        moments = [0, *(reading.at_ms for reading in dialogue.readings), END_MS]
        assert max(after - before for before, after in pairwise(moments)) < 60_000
    elif name == "lossy":
        assert len(dialogue.readings) >= 10
    longest_rush = max(
        sum(1 for at_ms, _ in dialogue.sent if begin <= at_ms < begin + 1_000)
        for begin in range(0, END_MS, 500)
    )
    assert longest_rush <= 4, "nothing makes it ask as fast as the line goes"


@pytest.mark.parametrize("name", ["clean", "byte_by_byte"])
def test_over_a_good_wire_every_poll_is_one_reading_and_nothing_is_faulty(name):
    dialogue = TerumoDialogue(
        a_session(),
        ScriptedPump(telling_the_time),
        there=Wire(WIRES[name], seed=0),
        back=Wire(WIRES[name], seed=1),
    )
    dialogue.run(END_MS - 1)
    assert len(dialogue.readings) == END_MS // POLL_MS
    assert dialogue.faults == []


@pytest.mark.parametrize("repeats_numbers", [True, False])
@pytest.mark.parametrize("slow_ms", [2_000, 3_900, 4_500, 7_000, 9_500])
def test_a_pump_that_becomes_slow_and_fast_again_is_never_read_late(slow_ms, repeats_numbers):
    pump = ScriptedPump(
        telling_the_time,
        takes_ms=lambda now_ms: slow_ms if 60_000 <= now_ms < 240_000 else 20,
        repeats_numbers=repeats_numbers,
        busy=True,
    )
    dialogue = a_dialogue(pump, END_MS)
    check_truth(dialogue)
    assert pump.longest_backlog_ms <= 5 * slow_ms, "it is not asked faster than it answers"
    assert dialogue.readings[-1].at_ms > END_MS - 2 * POLL_MS


@pytest.mark.parametrize("slow_ms", [12_000, 30_000])
def test_a_pump_that_repeats_numbers_is_never_read_late_however_slow_it_is(slow_ms):
    pump = ScriptedPump(
        telling_the_time, takes_ms=lambda now_ms: slow_ms if now_ms < 200_000 else 20, busy=True
    )
    dialogue = a_dialogue(pump, 2 * END_MS)
    check_truth(dialogue)
    assert dialogue.readings


# The simulated pump

LIVES = {
    "steady": scenario(constant(5.0, END_MS)),
    "slow": scenario(constant(0.1, END_MS)),
    "changing": scenario(legs((200_000, 2.0, 2.0), (200_000, 30.0, 30.0), (200_000, 0.0, 9.0))),
    "ended": scenario(constant(25.0, 300_000)),
    "paused": scenario(constant(5.0, END_MS), fault("paused", 100_000, 90_000)),
    "primed": scenario(constant(5.0, END_MS), fault("primed", 100_000, 60_000)),
    "flushed": scenario(constant(5.0, END_MS), fault("flush", 100_000, 60_000)),
    "occluded": scenario(constant(60.0, END_MS), fault("occlusion_downstream", 100_000, 300_000)),
    "unsettled": scenario(constant(5.0, END_MS), fault("cassette", 100_000, 60_000)),
    "on battery": scenario(constant(5.0, END_MS), fault("battery", 100_000, strength=0.15)),
    "nearly empty": scenario(constant(5.0, END_MS), fault("near_empty", 100_000)),
    "a pulled cable": scenario(constant(5.0, END_MS), fault("cable_pulled", 100_000, 60_000)),
    "a silent pump": scenario(constant(5.0, END_MS), fault("silent", 100_000, 60_000)),
    "a slow pump": scenario(constant(5.0, END_MS), fault("slow", 100_000, 120_000, strength=3.0)),
    "a noisy line": scenario(constant(5.0, END_MS), fault("noisy_line", 100_000, 60_000, strength=0.01)),
    "doubled": scenario(constant(5.0, END_MS), fault("doubled", 100_000, 60_000, strength=1.0)),
}
SAYS = {
    "running": PumpState.RUNNING,
    "kvo": PumpState.RUNNING,
    "priming": PumpState.PRIMING,
    "bolus": PumpState.BOLUS,
    "complete": PumpState.COMPLETE,
    "idle": PumpState.PAUSED,
    "paused": PumpState.PAUSED,
    "alarm": PumpState.PAUSED,
}


def listen(life: str, bend: str) -> list[tuple[Reading, list[Truth]]]:
    """Every reading with what was true of the pump when it gave the answers that had arrived by then."""
    device = Device("terumo", LIVES[life])
    dialogue = TerumoDialogue(
        a_session(), device, there=Wire(WIRES[bend], seed=1), back=Wire(WIRES[bend], seed=2)
    )
    dialogue.run(END_MS)
    assert all(FAMILY.may_send(data) for _, data in dialogue.sent)
    return [(reading, dialogue.truths_until(reading.at_ms)[-6:]) for reading in dialogue.readings]


def agrees(reading: Reading, truth: Truth) -> bool:
    rate_ml_h = None if truth.state in ("bolus", "priming") else pytest.approx(truth.rate_ml_h, abs=0.00501)
    return (
        reading.state is SAYS[truth.state]
        and reading.volume_ml == pytest.approx(truth.counter_ml, abs=0.00501)
        and reading.rate_ml_h == rate_ml_h
    )


@pytest.mark.parametrize("life", LIVES)
def test_a_simulated_pump_is_read_as_it_is_to_a_hundredth(life):
    heard = listen(life, "clean")
    assert len(heard) > 60
    assert all(any(agrees(reading, truth) for truth in truths) for reading, truths in heard)
    said = {alarm for reading, _ in heard for alarm in reading.alarms or ()}
    assert said == {
        "occluded": {"occlusion_downstream"},
        "unsettled": {"cassette"},
        "on battery": {"low_battery"},
        "nearly empty": {"near_empty"},
        "ended": {"vendor:completion"},
    }.get(life, set())
    assert {reading.on_mains for reading, _ in heard} == ({True, False} if life == "on battery" else {True})
    assert {reading.serial for reading, _ in heard} == {"000000000000000800251740"}


@pytest.mark.parametrize("bend", WIRES)
def test_over_any_wire_a_reading_of_a_simulated_pump_is_its_truth(bend):
    for life in ("changing", "occluded"):
        heard = listen(life, bend)
        assert heard or bend == "noisy"
        assert all(any(agrees(reading, truth) for truth in truths) for reading, truths in heard)


# Only queries, whatever happens

ANY_BYTES = st.one_of(
    st.binary(max_size=80),
    st.sampled_from([bytes_of(name) for name in FRAMES]),
    st.integers(0, 255).map(lambda number: status("T5", at_0=bytes([number]))),
    st.sampled_from(["", "x", OTHER_ID, "x" * 40]).map(lambda name: packet("REP", name)),
    st.binary(max_size=60).map(lambda block: packet("REP", DEVICE_ID, block)),
    st.sampled_from([packet("REQ", DEVICE_ID, bytes([1, command, 0, 0])) for command in range(0, 256, 15)]),
)


@settings(max_examples=200)
@given(steps=steps_with(ANY_BYTES), poll_ms=st.sampled_from([1, 1_000, 5_000]))
def test_whatever_arrives_and_whenever_only_listed_queries_are_ever_written_and_nothing_is_raised(
    steps, poll_ms
):
    session = a_session(poll_ms)
    for _ in goes_through(FAMILY, session, steps):
        assert session._stream.buffered_bytes < FRAME_LIMIT_BYTES


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
    assert counted == len(b"".join(noise))


@given(noise=st.binary(max_size=2_500))
def test_after_any_garbage_the_answer_is_read(noise):
    session = a_session_that_asked()
    facts = session.receive(noise + status("T5", at_0=b"\x02"), 5_040)
    assert isinstance(facts[-1], Reading)
    assert all(isinstance(fact, LinkFault) for fact in facts[:-1])


@pytest.mark.parametrize("number", [0x01, 0x7E])
def test_the_two_queries_may_be_sent(number):
    assert FAMILY.may_send(bytes_of("T1"))
    assert FAMILY.may_send(packet("REQ", DEVICE_ID, bytes([number, 1, 0, 0])))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        bytes_of("T1") + bytes_of("T1"),
        bytes_of("T3")[:-1],
        *(packet("REQ", DEVICE_ID, bytes([1, command, 0, 0])) for command in range(256) if command != 1),
        *(packet("REQ", DEVICE_ID, bytes([1, 1, 0, sub])) for sub in range(1, 256)),
        packet("REQ", DEVICE_ID, bytes([1, 1, 0, 0, 1])),
        packet("REQ", DEVICE_ID, bytes([0x80, 1, 0, 0])),
        framed('<?xml version="1.0"?><REQ></REQ>'),
    ],
)
def test_no_other_command_may_be_sent(data):
    assert not FAMILY.may_send(data)


# Configuration


def test_the_traits_tell_what_is_not_known():
    traits = FAMILY.traits
    assert (traits.status, traits.evidence, traits.counter_ml) == ("experimental", "vendor document", 0.01)
    assert any("serial line" in note and "guess" in note for note in traits.notes)
    assert any("link interruption" in note for note in traits.notes)
    assert any("TE-LF630N" in note for note in traits.notes)
    assert {"vtbi_ml", "pressure_mmhg", "battery_percent", "bolus_ml"}.isdisjoint(traits.reports)
    assert FAMILY.line.baud not in FAMILY.line.bauds
    assert len(FAMILY.line.bauds) == 7
