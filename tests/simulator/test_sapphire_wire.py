"""The pump's side of the Sapphire protocol, held against the frames that were checked by hand."""

from __future__ import annotations

import tomllib
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from simulator.device import Device
from simulator.pump import Truth
from simulator.wire.sapphire import (
    BATCH_BYTES,
    FAMILY,
    LONGEST_DATA,
    SapphireWire,
    batch_data,
    check,
    frame,
)
from simulator.wire.wire import Answer
from tests.simulator.scenarios import MIN, PumpsAre, fault, scenario

FRAMES = {
    one["id"]: one
    for one in tomllib.loads((Path(__file__).parents[1] / "frames" / "sapphire.toml").read_text())["frame"]
}
RUNNING = Truth(
    commanded_ml=12.34,
    mechanism_ml=12.34,
    patient_ml=12.34,
    counter_ml=12.34,
    pressure_mmhg=20.0,
    bag_ml=None,
    state="running",
    faults=(),
    rate_ml_h=100.0,
    vtbi_ml=50.0,
    remaining_s=1800,
    alarms=(),
    battery_percent=100.0,
    log_entries=0,
)
SHOWN = {
    "Q5": (RUNNING, "1234567", 171),
    "Q6": (structs.replace(RUNNING, rate_ml_h=0.0, state="paused"), "1234567", 171),
    "Q7": (
        structs.replace(RUNNING, rate_ml_h=999.9, vtbi_ml=9_999.0, counter_ml=10_000.0),
        "4294967295",
        300,
    ),
    "Q8": (structs.replace(RUNNING, rate_ml_h=0.1, vtbi_ml=1.87, counter_ml=0.0), "1234567", 171),
}
"""For each batch of a pump, how things were with it, its serial number, and how long its batches are."""


def bytes_of(identity: str) -> bytes:
    return bytes.fromhex(FRAMES[identity]["hex"])


def opened(serial: str = "1234567", data_bytes: int = BATCH_BYTES) -> SapphireWire:
    """A wire whose link a PC has opened."""
    wire = SapphireWire({None: serial}, data_bytes)
    for now_ms, greeting in ((-1_000, "Q1"), (0, "Q2")):
        wire.receive(bytes_of(greeting), PumpsAre({None: RUNNING}, now_ms))
    return wire


def pushes(wire: SapphireWire, until_ms: int, from_ms: int = 0, truth: Truth = RUNNING) -> list[int]:
    """When batches are pushed, asking the wire whenever it wants to be asked."""
    times = []
    while (next_ms := wire.next_unasked_ms()) is not None and next_ms <= until_ms:
        now_ms = max(from_ms, next_ms)
        times += [now_ms for _ in wire.unasked(PumpsAre({None: truth}, now_ms))]
    return times


def test_every_batch_of_a_pump_is_in_the_table_above() -> None:
    good = {one["id"] for one in FRAMES.values() if one["direction"] == "pump" and one["id"][0] == "Q"}
    assert good == set(SHOWN)


@pytest.mark.parametrize("identity", SHOWN)
def test_the_pump_pushes_each_batch_that_was_checked_by_hand(identity: str) -> None:
    truth, serial, data_bytes = SHOWN[identity]
    wire = opened(serial, data_bytes)
    said = []
    while len(said) <= FRAMES[identity]["fields"]["sequence"]:
        now_ms = wire.next_unasked_ms()
        assert now_ms is not None
        if now_ms % 20_000 < 300:
            wire.receive(bytes_of("Q1"), PumpsAre({None: truth}, now_ms))
        said += wire.unasked(PumpsAre({None: truth}, now_ms))
    assert said[-1] == Answer(b"", bytes_of(identity))


def test_a_batch_that_is_too_short_for_the_volumes_ends_where_it_ends() -> None:
    data = batch_data(RUNNING, 1_234_567, 100)
    assert len(data) == 100
    assert data == batch_data(RUNNING, 1_234_567)[:100]


@pytest.mark.parametrize(("identity", "kind"), [("Q1", 3), ("Q4", 3), ("Z7", 1), ("Z8", 26)])
def test_the_frames_of_this_end_are_the_hand_checked_ones(identity: str, kind: int) -> None:
    data = bytes_of(identity)
    assert frame(to=data[1], sender=data[3], kind=kind, number=data[7], data=data[8:-1]) == data


@pytest.mark.parametrize("identity", [one for one in FRAMES if one[0] == "Q"])
def test_the_checksum_is_that_of_the_hand_checked_frames(identity: str) -> None:
    assert check(bytes_of(identity)[1:-1]) == bytes_of(identity)[-1]


# Opening the link, and keeping it open


def test_before_a_pc_has_said_twice_that_it_is_there_nothing_is_pushed() -> None:
    wire = SapphireWire({None: "1234567"})
    assert wire.next_unasked_ms() is None
    [answer] = wire.receive(bytes_of("Q1"), PumpsAre({None: RUNNING}, 0))
    assert answer == Answer(bytes_of("Q1"), b"")
    assert wire.next_unasked_ms() is None
    wire.receive(bytes_of("Q2"), PumpsAre({None: RUNNING}, 1_000))
    assert wire.next_unasked_ms() is not None


def test_two_greetings_too_far_apart_open_nothing() -> None:
    wire = SapphireWire({None: "1234567"})
    for now_ms in (0, 30_001, 60_002):
        wire.receive(bytes_of("Q1"), PumpsAre({None: RUNNING}, now_ms))
    assert wire.next_unasked_ms() is None


def test_batches_follow_each_other_as_fast_as_the_line_can_carry_them() -> None:
    times = pushes(opened(), 10_000)
    assert {after - before for before, after in pairwise(times)} == {188}
    assert 180 * FAMILY.line.byte_ms <= 188


def test_batches_that_are_short_enough_come_every_100_ms() -> None:
    times = pushes(opened(data_bytes=80), 10_000)
    assert times == list(range(100, 10_001, 100))


def test_a_pump_whose_pc_is_silent_for_30_s_pushes_no_more() -> None:
    wire = opened()
    assert 29_800 < pushes(wire, 10 * MIN)[-1] <= 30_000
    assert wire.next_unasked_ms() is None


def test_a_pump_whose_pc_speaks_every_15_s_pushes_for_ever() -> None:
    wire = opened()
    for now_ms in range(15_000, 10 * MIN, 15_000):
        assert len(pushes(wire, now_ms - 1)) >= 78
        wire.receive(bytes_of("Q3"), PumpsAre({None: RUNNING}, now_ms))


def test_batches_that_were_missed_are_not_made_up_for() -> None:
    wire = opened()
    assert pushes(wire, 20_000, from_ms=20_000) == [20_000]


def test_on_a_real_line_no_batch_waits_for_the_one_before() -> None:
    device = Device("sapphire", scenario())
    device.receive(bytes_of("Q1"), 0)
    device.receive(bytes_of("Q2"), 1_000)
    late_ms = []
    while (now_ms := device.next_change_ms(0)) is not None and now_ms < 25_000:
        late_ms += [sent.at_ms - sent.answered_ms for sent in device.unasked(now_ms)]
    assert len(late_ms) > 100
    assert max(late_ms) <= 189


def test_a_cable_that_was_out_has_to_be_opened_anew() -> None:
    device = Device("sapphire", scenario(None, fault("cable_pulled", 2_000, 3_000)))
    device.receive(bytes_of("Q1"), 0)
    device.receive(bytes_of("Q2"), 1_000)
    assert device.unasked(1_500)
    assert device.unasked(2_500) == ()
    assert device.unasked(5_500) == ()
    device.receive(bytes_of("Q1"), 6_000)
    device.receive(bytes_of("Q2"), 7_000)
    assert device.unasked(7_500)


# What is said


@pytest.mark.parametrize(
    ("serial", "number"), [("1234567", 1_234_567), ("8002-51740", 800_251_740), ("none", 0)]
)
def test_the_serial_number_is_told_in_its_digits(serial: str, number: int) -> None:
    wire = opened(serial)
    [answer] = wire.unasked(PumpsAre({None: RUNNING}, 1_000))
    assert int.from_bytes(answer.reply[8 + 38 : 8 + 42], "little") == number


def test_what_does_not_fit_is_shown_as_the_highest_number_and_never_wraps() -> None:
    data = batch_data(structs.replace(RUNNING, rate_ml_h=1e9, vtbi_ml=1e9, counter_ml=-1.0), 1)
    assert data[47:49] == b"\xff\xff"
    assert data[163:167] == b"\xff\xff\xff\xff"
    assert data[167:171] == b"\0\0\0\0"


@pytest.mark.parametrize("state", ["paused", "alarm", "kvo", "complete"])
def test_neither_state_nor_alarms_are_told(state: str) -> None:
    other = structs.replace(RUNNING, state=state, alarms=("occlusion_downstream",), pressure_mmhg=500.0)
    assert batch_data(other, 1) == batch_data(RUNNING, 1)


# What is heard


@pytest.mark.parametrize(
    ("before", "opens"),
    [
        (b"", True),
        (b"\x00\xff\x13", True),
        (b"\xbb", True),
        (b"\xbb\xbb\xbb", True),
        (bytes_of("Q1")[:5], True),
        (bytes_of("Q1")[:-1] + b"\x00", True),
        (b"\xbb\x65\x00\x67\x03\xff\xff\x00", True),
        (b"\xbb\x65\x00\x67\x03\x04\x00\x00", False),  # a size that is possible is waited for
    ],
)
def test_noise_before_a_greeting_costs_only_the_noise(before: bytes, opens: bool) -> None:
    wire = SapphireWire({None: "1234567"})
    wire.receive(bytes_of("Q1"), PumpsAre({None: RUNNING}, 0))
    wire.receive(before + bytes_of("Q2"), PumpsAre({None: RUNNING}, 1_000))
    assert (wire.next_unasked_ms() is not None) is opens


def test_after_a_pause_nobody_waits_for_the_rest_of_a_message() -> None:
    wire = SapphireWire({None: "1234567"})
    wire.receive(bytes_of("Q1"), PumpsAre({None: RUNNING}, 0))
    wire.receive(b"\xbb\x65\x00\x67\x03\x04\x00\x00", PumpsAre({None: RUNNING}, 100))
    wire.receive(bytes_of("Q2"), PumpsAre({None: RUNNING}, 1_000))
    assert wire.next_unasked_ms() is not None


@pytest.mark.parametrize("place", range(10))
def test_a_damaged_greeting_is_none(place: int) -> None:
    damaged = bytearray(bytes_of("Q2"))
    damaged[place] ^= 0x01
    wire = SapphireWire({None: "1234567"})
    wire.receive(bytes_of("Q1"), PumpsAre({None: RUNNING}, 0))
    wire.receive(bytes(damaged), PumpsAre({None: RUNNING}, 1_000))
    assert wire.next_unasked_ms() is None


CHANGES_THE_PUMP = [
    *((3, bytes([number])) for number in (5, 6, 7, 19, 23, 24, 35, 44, 53, 55, 56)),
    *((kind, b"\x00\x01") for kind in (6, 9, 10, 12, 13, 16, 17, 18, 19, 20, 22, 23, 27)),
    (3, b"\x16\x18"),
]


@pytest.mark.parametrize(("kind", "data"), CHANGES_THE_PUMP)
def test_what_would_change_a_real_pump_is_taken_in_silence_and_changes_nothing(
    kind: int, data: bytes
) -> None:
    wire, untouched = opened(), opened()
    command = frame(to=101, sender=103, kind=kind, number=2, data=data)
    assert wire.receive(command, PumpsAre({None: RUNNING}, 50)) == [Answer(command, b"")]
    assert pushes(wire, MIN) == pushes(untouched, MIN)


@given(
    st.lists(
        st.binary(max_size=300)
        | st.sampled_from([bytes_of("Q1"), bytes_of("Q4"), bytes_of("Q1")[:6], bytes_of("Q8")])
    )
)
def test_whatever_comes_nothing_is_raised_and_little_is_kept(portions: list[bytes]) -> None:
    now = PumpsAre({None: RUNNING})
    whole, cut = SapphireWire({None: "1234567"}), SapphireWire({None: "1234567"})
    together = whole.receive(b"".join(portions), now)
    apart: list[Answer] = [answer for portion in portions for answer in cut.receive(portion, now)]
    assert together == apart
    assert all(answer.reply == b"" for answer in together)
    assert len(cut._heard) <= 9 + LONGEST_DATA
