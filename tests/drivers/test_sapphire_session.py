"""The dialogue with a Sapphire: what keeps the link open, what is told of what is pushed, and silence."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.family import PumpOnLine
from drivers.reading import FaultKind, LinkFault, PumpState, Reading
from drivers.sapphire.codec import FRAME_LIMIT_BYTES, keep_alive
from drivers.sapphire.session import SapphireFamily, SapphireSession
from simulator.device import Device
from simulator.scenario import Scenario
from tests.drivers.dialogue import Dialogue
from tests.drivers.laws import bears_a_clock_that_jumps, goes_through, moments_with, steps_with
from tests.drivers.sapphire_pump import FRAMES, batch, bytes_of, framed
from tests.drivers.wires import WIRES, Wire
from tests.simulator.scenarios import MIN, PLAIN, fault, legs, scenario

FAMILY = SapphireFamily()
POLL_MS = 5_000
BATCH_EVERY_MS = 188
"""180 bytes at 9600 baud."""

NEVER_SEND = {
    **{
        f"command {number}": framed(bytes([number]), to=101, sender=103, kind=3)
        for number in range(256)
        if number != 22
    },
    **{f"type {kind}": framed(b"\x16", to=101, sender=103, kind=kind) for kind in range(28) if kind != 3},
    "this is PC, and a command behind it": framed(b"\x16\x18", to=101, sender=103, kind=3),
    "this is PC, for the cradle": framed(b"\x16", to=100, sender=103, kind=3),
    "this is PC, from a cradle": framed(b"\x16", to=101, sender=100, kind=3),
}
"""Commands that change the pump, or that nobody has ever sent."""


def a_session(poll_ms: int = POLL_MS) -> SapphireSession:
    return FAMILY.open_session([PumpOnLine(pump="p1", poll_ms=poll_ms)])


def opened(poll_ms: int = POLL_MS) -> SapphireSession:
    """A session that has opened the link."""
    session = a_session(poll_ms)
    session.opened(0)
    assert session.due(0)
    return session


def told(session: SapphireSession, *frames: tuple[int, bytes]) -> list[Reading]:
    """The readings that these frames make, all else being well."""
    facts: list[object] = []
    for at_ms, data in frames:
        while (next_ms := session.next_due_ms()) < at_ms:
            facts += session.receive(b"", next_ms)
            session.due(next_ms)
        facts += session.receive(data, at_ms)
    assert all(isinstance(fact, Reading) for fact in facts)
    return [fact for fact in facts if isinstance(fact, Reading)]


# What is sent


def keep_alives(session: SapphireSession, until_ms: int, batch_until_ms: int) -> list[int]:
    """When a keep-alive was sent, a batch coming every 100 ms up to ``batch_until_ms``."""
    sent = []
    for now_ms in range(0, until_ms, 100):
        session.receive(bytes_of("Q5") if 0 < now_ms < batch_until_ms else b"", now_ms)
        if session.due(now_ms):
            sent.append(now_ms)
    return sent


def test_the_link_is_opened_by_two_keep_alives_a_second_apart_and_kept_open_by_one_every_15_s():
    session = a_session()
    session.opened(0)
    assert keep_alives(session, 62_000, batch_until_ms=62_000) == [0, 1_000, 15_000, 30_000, 45_000, 60_000]


def test_the_keep_alive_is_the_hand_checked_one_and_its_number_counts_up_and_wraps():
    session = a_session()
    session.opened(0)
    sent = []
    while len(sent) < 258:
        now_ms = session.next_due_ms()
        session.receive(b"", now_ms)
        sent.append(session.due(now_ms))
    assert sent[:2] == [bytes_of("Q1"), bytes_of("Q2")]
    assert sent[255:] == [bytes_of("Q3"), bytes_of("Q1"), bytes_of("Q2")]
    assert sent == [keep_alive(number) for number in range(258)]


def test_asking_twice_at_one_time_asks_once():
    session = a_session()
    session.opened(7)
    assert session.due(7) == bytes_of("Q1")
    assert session.due(7) == b""
    assert session.next_due_ms() == 1_007


def test_a_silent_pump_is_greeted_for_ever_twice_every_15_s():
    session = a_session()
    session.opened(0)
    sent = keep_alives(session, 600_000, batch_until_ms=0)
    assert sent == [at_ms for begin in range(0, 600_000, 15_000) for at_ms in (begin, begin + 1_000)]


def test_a_pump_that_falls_silent_is_greeted_anew_at_once_and_twice():
    session = a_session()
    session.opened(0)
    sent = keep_alives(session, 60_000, batch_until_ms=20_100)
    assert sent == [0, 1_000, 15_000, 30_000, 35_000, 36_000, 50_000, 51_000]


def test_silence_is_noticed_from_time_and_not_from_an_arriving_byte():
    session = opened()
    session.due(1_000)
    session.receive(bytes_of("Q5"), 14_000)
    session.due(15_000)
    while session.next_due_ms() < 29_000:
        assert session.due(session.next_due_ms()) == b""
    assert session.due(28_999) == b""
    assert session.next_due_ms() == 29_000
    assert session.due(29_000) != b""


def test_opened_again_the_link_is_opened_again_and_the_numbers_go_on():
    session = a_session()
    session.opened(0)
    keep_alives(session, 20_000, batch_until_ms=20_000)
    session.opened(20_000)
    assert session.due(20_000) == keep_alive(3)
    assert session.next_due_ms() == 21_000
    assert session.due(21_000) == keep_alive(4)


# What is told


def test_a_reading_holds_what_a_batch_says_and_nothing_else():
    [reading] = told(opened(), (200, bytes_of("Q5")), (300, bytes_of("Q5")))
    assert reading == Reading(
        pump="p1",
        at_ms=300,
        state=PumpState.RUNNING,
        rate_ml_h=100.0,
        volume_ml=12.34,
        vtbi_ml=50.0,
        alarms=None,
        serial="1234567",
    )


def test_a_rate_of_zero_is_zero_and_the_state_is_not_guessed_from_it():
    [reading] = told(opened(), (200, bytes_of("Q6") * 2))
    assert (reading.rate_ml_h, reading.state) == (0.0, PumpState.IDLE)


def test_the_highest_numbers_are_not_negative():
    [reading] = told(opened(), (400, bytes_of("Q7") * 2))
    assert reading.serial == "4294967295"
    assert (reading.rate_ml_h, reading.vtbi_ml, reading.volume_ml) == (999.9, 9_999.0, 10_000.0)


def test_a_batch_that_is_too_short_for_the_volumes_gives_the_rate_only():
    [reading] = told(opened(), (200, batch(size=100)), (300, batch(size=100)))
    assert (reading.rate_ml_h, reading.volume_ml, reading.vtbi_ml) == (100.0, None, None)


def test_a_batch_that_says_nothing_we_know_is_unsupported_and_no_reading():
    session = opened()
    [fault] = session.receive(batch(size=48), 200)
    assert isinstance(fault, LinkFault)
    assert (fault.kind, fault.byte_count) == (FaultKind.UNSUPPORTED, 57)
    assert session.receive(batch(size=48), 300) == [], "once a poll"


def test_ten_batches_a_second_are_one_reading_a_poll_and_each_is_the_one_that_has_just_come():
    session = opened()
    frames = [(100 * number, batch(infused=number, sequence=number % 256)) for number in range(1, 301)]
    readings = told(session, *frames)
    assert [reading.at_ms for reading in readings] == [200, 5_000, 10_000, 15_000, 20_000, 25_000, 30_000]
    assert all(reading.volume_ml == reading.at_ms / 100 / 100 for reading in readings)


def test_of_batches_that_arrive_at_once_the_newest_is_told():
    frames = b"".join(batch(infused=infused) for infused in range(1_000, 1_022))
    [reading] = told(opened(), (300, frames + batch(infused=1_022)[:90]))
    assert reading.volume_ml == 10.21


def test_a_batch_that_another_does_not_bear_out_is_not_told_before_the_next_has_come():
    session = opened()
    assert told(session, (100, batch(infused=1_000)), (200, batch(infused=1_000)))
    before = [(4_900, batch(infused=1_013))]
    damaged = [(5_000, batch(infused=0x4003F5))]
    after = [(5_100, batch(infused=1_014)), (5_200, batch(infused=1_014)), (5_300, batch(infused=1_014))]
    [reading] = told(session, *before, *damaged, *after)
    assert (reading.at_ms, reading.volume_ml) == (5_200, 10.14)


@pytest.mark.parametrize("said", [{"rate": 500}, {"infused": 0}, {"left": 9_000}, {"serial": 7}])
def test_what_really_changed_is_told_with_the_second_batch_that_says_so(said):
    session = opened()
    assert told(session, (100, batch()), (200, batch()))
    changed = batch(**said)
    readings = told(session, (4_900, batch()), (5_000, changed), (5_100, changed), (5_200, changed))
    assert [reading.at_ms for reading in readings] == [5_100]


def test_a_pump_that_says_another_rate_every_time_is_heard_all_the_same():
    frames = [(100 * number, batch(rate=1_000 + number)) for number in range(1, 200)]
    readings = told(opened(), *frames)
    assert [reading.at_ms for reading in readings] == [1_000, 6_000, 11_000, 16_000]


def test_batches_that_contradict_each_other_are_no_reading_and_that_is_said():
    session = opened()
    facts = [
        fact
        for number in range(1, 41)
        for fact in session.receive(batch(infused=1_000 * (number % 2)), 100 * number)
    ]
    assert [fact.at_ms for fact in facts] == [1_000, 2_000, 3_000, 4_000]
    assert {fact.kind for fact in facts} == {FaultKind.UNSUPPORTED}
    assert {fact.detail for fact in facts} == {"two batches in a row contradict each other"}


def test_a_pump_that_pushes_seldom_may_have_delivered_more_in_between():
    frames = [(5_000 * number, batch(infused=140 * number, left=9_000 - 140 * number)) for number in range(8)]
    assert len(told(opened(), *frames)) == 7


def test_another_pump_on_the_same_cable_is_told_by_its_number():
    session = opened()
    frames = [(100 * n, batch(serial=1_234_567 if n < 60 else 7_654_321)) for n in range(1, 120)]
    assert [reading.serial for reading in told(session, *frames)] == ["1234567", "1234567", "7654321"]


def test_polls_that_were_missed_are_not_made_up_for():
    session = opened()
    told(session, (100, bytes_of("Q5") * 2))
    frames = [(at_ms, bytes_of("Q5")) for at_ms in range(3_600_000, 3_610_000, 100)]
    assert [reading.at_ms for reading in told(session, *frames)] == [3_600_100, 3_605_100]


# Silence, and what is older than it


def test_in_silence_there_is_no_reading():
    session = opened()
    assert told(session, (100, bytes_of("Q5") * 2))
    for now_ms in range(1_000, 120_000, 500):
        assert session.receive(b"", now_ms) == []
        session.due(now_ms)


def test_half_a_batch_is_given_up_when_nothing_follows_and_its_rest_is_no_reading():
    session = opened()
    session.due(1_000)
    assert session.receive(bytes_of("Q5")[:90], 2_000) == []
    assert session.next_due_ms() == 3_000
    [fault] = session.receive(b"", 3_000)
    assert isinstance(fault, LinkFault)
    assert (fault.kind, fault.byte_count, fault.detail) == (FaultKind.GARBLED, 90, "it was never finished")
    facts = session.receive(bytes_of("Q5")[90:] + bytes_of("Q5") * 2, 9_000)
    assert [type(fact) for fact in facts] == [LinkFault, Reading]


def test_what_was_heard_before_a_silence_bears_nothing_out_after_it():
    session = opened(poll_ms=20_000)
    session.receive(bytes_of("Q5") * 2, 100)
    session.receive(bytes_of("Q5"), 4_900)
    assert session.receive(bytes_of("Q5"), 20_100) == []
    assert len(session.receive(bytes_of("Q5"), 20_200)) == 1


def test_opened_again_every_half_heard_word_is_forgotten():
    session = opened()
    session.receive(bytes_of("Q5") + bytes_of("Q5")[:-3], 10)
    session.opened(20)
    session.due(20)
    assert session.receive(bytes_of("Q5")[-3:], 30) == []
    facts = session.receive(bytes_of("Q6") * 2, 40)
    assert [type(fact) for fact in facts] == [LinkFault, Reading]
    assert (facts[0].byte_count, facts[1].rate_ml_h) == (3, 0.0)


def test_batches_that_waited_in_a_queue_while_nobody_looked_in_are_no_reading():
    session = opened()
    assert told(session, (100, batch(infused=1)), (200, batch(infused=2)))
    queue = [(12_000 + number, batch(infused=3 + number)) for number in range(60)]
    facts = [fact for at_ms, data in queue for fact in session.receive(data, at_ms)]
    assert facts == [], "the first of them is ten seconds old"
    [reading] = told(session, (12_150, batch(infused=63)), (12_340, batch(infused=64)))
    assert (reading.at_ms, reading.volume_ml) == (12_150, 0.63)


def test_a_caller_who_looks_in_when_asked_is_never_taken_for_a_stalled_one():
    session = opened()
    frames = [(at_ms, batch()) for at_ms in range(100, 60_000, 4_900)]
    assert len(told(session, *frames)) >= 10


# What is not a batch


@pytest.mark.parametrize(
    ("heard", "byte_count", "detail"),
    [
        (bytes_of("Z1"), 180, "the checksum does not fit"),
        (bytes_of("Z2"), 180, "the checksum does not fit"),
        (bytes_of("Z3"), 3, "no frame begins there"),
        (bytes_of("Z4"), 1, "for nobody that we know"),
        (bytes_of("Z5"), 20, "the checksum does not fit"),
        (bytes_of("Z6"), 8, "more than 1024 bytes of data"),
    ],
)
def test_what_a_cable_makes_of_a_batch_is_counted_and_the_next_batch_is_told(heard, byte_count, detail):
    fault, reading = opened().receive(heard + bytes_of("Q6") * 2, 500)
    assert isinstance(fault, LinkFault)
    assert (fault.kind, fault.byte_count, fault.detail) == (FaultKind.GARBLED, byte_count, detail)
    assert fault.sample == heard[:32][: min(byte_count, 32)]
    assert isinstance(reading, Reading)


def test_a_response_to_a_command_is_skipped_and_nothing_is_wrong():
    session = opened()
    assert session.receive(bytes_of("Z8"), 100) == []
    assert len(told(session, (200, bytes_of("Q5") + bytes_of("Z8") + bytes_of("Q5") + bytes_of("Z8")))) == 1


def test_other_messages_and_never_a_batch_are_said_to_be_unsupported_every_15_s():
    session = opened()
    facts = [
        fact
        for now_ms in range(100, 30_100, 100)
        for fact in session.receive(framed(bytes(200), kind=11), now_ms)
    ]
    assert [(fact.at_ms, fact.kind) for fact in facts] == [
        (15_000, FaultKind.UNSUPPORTED),
        (30_000, FaultKind.UNSUPPORTED),
    ]
    assert facts[0].byte_count == 149 * 209
    assert facts[0].detail == "no batch, but messages of type 11 (large batch)"


def test_the_echo_of_a_keep_alive_is_unexpected_and_opens_nothing():
    session = a_session()
    session.opened(0)
    [fault] = session.receive(session.due(0), 5)
    assert isinstance(fault, LinkFault)
    assert (fault.kind, fault.detail) == (FaultKind.UNEXPECTED, "a message for pump from pc")
    assert session.due(1_000)


def test_damaged_batches_are_told_once_a_second_and_every_byte_is_counted():
    session = opened()
    facts = [fact for now_ms in range(100, 10_100, 100) for fact in session.receive(bytes_of("Z1"), now_ms)]
    facts += session.receive(b"", 11_000)
    assert len(facts) == 11
    assert sum(fact.byte_count for fact in facts) == 100 * 180


def test_a_sample_holds_the_first_32_bytes():
    [fault] = opened().receive(b"x" * 100 + b"\xbb", 10)
    assert isinstance(fault, LinkFault)
    assert (fault.byte_count, fault.sample) == (100, b"x" * 32)


def test_a_day_of_batches_is_kept_in_the_memory_of_two():
    session = opened()
    for number in range(1, 20_000):
        session.receive(bytes_of("Q5"), 50 * number)
        if session.next_due_ms() <= 50 * number:
            session.due(50 * number)
    held = [len(one) for one in vars(session).values() if isinstance(one, list | dict | bytes)]
    assert sum(held) <= 2 * 180 + 1


# Any wire, to a simulated pump

END_MS = 3 * MIN


def a_device(seed: int = 1) -> Device:
    return Device("sapphire", a_story(seed))


def a_story(seed: int) -> Scenario:
    """125 mL/h, then a ramp, then slowly."""
    program = legs((MIN, 125.0, 125.0), (MIN, 125.0, 500.0), (MIN, 2.5, 2.5))
    return scenario(program, setting=PLAIN, seed=seed, machine={"serial_number": "1234567"})


def is_true(reading: Reading, dialogue: Dialogue, not_older_than_ms: int) -> bool:
    """Whether the pump pushed just this, and not too long ago."""
    return any(
        round(one.truth.rate_ml_h * 10) / 10 == reading.rate_ml_h
        and round(one.truth.counter_ml * 100) / 100 == reading.volume_ml
        and round(one.truth.vtbi_ml * 100) / 100 == reading.vtbi_ml
        and 0 <= reading.at_ms - one.answered_ms <= not_older_than_ms
        for one in dialogue.said
    )


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", WIRES)
def test_over_any_wire_what_is_read_is_the_simulators_truth_and_the_pump_is_never_lost(name, seed):
    dialogue = Dialogue(
        a_session(),
        a_device(seed),
        there=Wire(WIRES[name], seed=seed),
        back=Wire(WIRES[name], seed=seed + 1_000),
    )
    dialogue.run(END_MS)
    assert dialogue.readings
    for reading in dialogue.readings:
        assert is_true(reading, dialogue, not_older_than_ms=BATCH_EVERY_MS + 1_500 + 200)
        assert reading.serial == "1234567"
        assert (reading.state, reading.alarms) == (PumpState.RUNNING, None)
    moments = [0, *(reading.at_ms for reading in dialogue.readings), END_MS]
    assert max(after - before for before, after in pairwise(moments)) < 35_000
    assert all(FAMILY.may_send(data) for _, data in dialogue.sent)
    assert dialogue.most_facts_at_once <= 4


@pytest.mark.parametrize("name", ["clean", "byte_by_byte"])
def test_over_a_good_wire_every_poll_is_one_reading_and_nothing_is_faulty(name):
    dialogue = Dialogue(
        a_session(), a_device(), there=Wire(WIRES[name], seed=0), back=Wire(WIRES[name], seed=1)
    )
    dialogue.run(END_MS)
    assert len(dialogue.readings) == END_MS // POLL_MS
    assert dialogue.faults == []
    assert [at_ms for at_ms, _ in dialogue.sent][:4] == [0, 1_000, 15_000, 30_000]


def test_a_cable_that_was_out_is_found_again_within_16_s():
    story = scenario(legs((10 * MIN, 100.0, 100.0)), fault("cable_pulled", 60_000, 40_000))
    dialogue = Dialogue(a_session(), Device("sapphire", story))
    dialogue.run(3 * MIN)
    [(gone_ms, back_ms)] = [
        (before.at_ms, after.at_ms)
        for before, after in pairwise(dialogue.readings)
        if after.at_ms - before.at_ms > 2 * POLL_MS
    ]
    assert 54_000 < gone_ms < 60_500
    assert 100_000 < back_ms < 117_000


# Only keep-alives, whatever happens

ANY_BYTES = st.one_of(
    st.binary(max_size=80),
    st.sampled_from([bytes_of(name) for name in FRAMES]),
    st.sampled_from([bytes_of("Q8")[:90], bytes_of("Q8")[90:], bytes_of("Q5") * 3]),
    st.sampled_from(list(NEVER_SEND.values())),
    st.sampled_from([batch(size=48), batch(size=1_000, filler=0xBB), framed(bytes(5), kind=11)]),
)


@settings(max_examples=300)
@given(steps=steps_with(ANY_BYTES), poll_ms=st.sampled_from([1, 1_000, 5_000]))
def test_whatever_arrives_and_whenever_only_keep_alives_are_ever_written_and_nothing_is_raised(
    steps, poll_ms
):
    session = a_session(poll_ms)
    for now_ms, facts in goes_through(FAMILY, session, steps):
        assert sum(isinstance(fact, Reading) for fact in facts) <= 1
        session.receive(b"", now_ms)
        assert session.next_due_ms() > now_ms


@given(moments=moments_with(ANY_BYTES))
def test_even_a_clock_that_jumps_makes_a_session_write_only_keep_alives(moments):
    bears_a_clock_that_jumps(FAMILY, a_session(), moments)


@given(noise=st.lists(st.binary(min_size=1, max_size=40).map(lambda b: b.replace(b"\xbb", b"\xba"))))
def test_every_byte_that_makes_no_sense_is_counted(noise):
    session = opened()
    facts = [fact for data in noise for fact in session.receive(data, 10)]
    facts += session.receive(b"", 2_000)
    facts += session.receive(b"", 4_000)
    assert all(isinstance(fact, LinkFault) for fact in facts)
    assert sum(fact.byte_count for fact in facts) == len(b"".join(noise))


@given(noise=st.binary(max_size=1_500))
def test_after_any_garbage_what_is_pushed_is_read(noise):
    session = opened()
    # What the noise announces can swallow a second of the line; the batches in it are found again.
    facts = session.receive(noise + bytes_of("Q5") * (2 + FRAME_LIMIT_BYTES // 180), 10)
    assert isinstance(facts[-1], Reading)
    assert all(isinstance(fact, LinkFault) for fact in facts[:-1])


@pytest.mark.parametrize("name", NEVER_SEND)
def test_no_command_that_changes_the_pump_may_be_sent(name):
    assert not FAMILY.may_send(NEVER_SEND[name])


@pytest.mark.parametrize("name", [name for name in FRAMES if name not in ("Q1", "Q2", "Q3")])
def test_of_the_hand_checked_frames_only_the_keep_alives_may_be_sent(name):
    assert not FAMILY.may_send(bytes_of(name))


@pytest.mark.parametrize("data", [b"", b"\xbb", keep_alive(0)[:-1], keep_alive(0) * 2, keep_alive(0) + b"\0"])
def test_nothing_but_whole_keep_alives_may_be_sent(data):
    assert not FAMILY.may_send(data)


@pytest.mark.parametrize("sequence", range(256))
def test_a_keep_alive_may_be_sent_with_every_number(sequence):
    assert FAMILY.may_send(framed(b"\x16", to=101, sender=103, kind=3, sequence=sequence))


# Configuration


def test_the_traits_tell_what_is_not_known():
    traits = FAMILY.traits
    assert (traits.status, traits.evidence) == ("experimental", "third-party code")
    assert traits.counter_ml == 0.01
    assert traits.alarms == ()
    assert traits.states == (PumpState.IDLE, PumpState.RUNNING, PumpState.UNKNOWN)
    assert set(traits.reports) == {"state", "rate_ml_h", "volume_ml", "vtbi_ml", "serial"}
    assert any("No alarm" in note for note in traits.notes)


def test_the_line_is_set_as_the_source_sets_it():
    line = FAMILY.line
    assert (line.baud, line.data_bits, line.parity, line.stop_bits) == (9_600, 8, "N", 1.0)
