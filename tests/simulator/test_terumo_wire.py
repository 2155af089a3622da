"""The pump's side of the Terumo protocol, held against the frames that were checked by hand."""

from __future__ import annotations

import base64
import binascii
import re
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from simulator.pump import Truth
from simulator.wire.terumo import (
    ALARM_BITS,
    LONGEST_FRAME,
    TE_SS730,
    TE_SS830P,
    TerumoWire,
    crc_digits,
    device_id,
    frame,
)
from simulator.wire.wire import Answer
from tests.simulator.scenarios import PumpsAre

FRAMES = {
    one["id"]: one
    for one in tomllib.loads((Path(__file__).parents[1] / "frames" / "terumo.toml").read_text())["frame"]
}
SERIAL = "000100700000001201000001"
RUNNING = Truth(
    commanded_ml=12.34,
    mechanism_ml=12.34,
    patient_ml=12.34,
    counter_ml=12.34,
    pressure_mmhg=17.91,
    bag_ml=None,
    state="running",
    faults=(),
    rate_ml_h=5.0,
    vtbi_ml=50.0,
    remaining_s=10 * 3600,
    alarms=(),
    battery_percent=100.0,
    log_entries=0,
)
NOW = PumpsAre({None: RUNNING})
FAST = structs.replace(RUNNING, rate_ml_h=25.0, vtbi_ml=100.0)
SHOWN = {
    "T5": (TE_SS830P, RUNNING),
    "T6": (
        TE_SS830P,
        structs.replace(RUNNING, state="alarm", pressure_mmhg=530.15, alarms=("occlusion_downstream",)),
    ),
    "T7": (
        TE_SS830P,
        structs.replace(RUNNING, battery_percent=10.0, alarms=("near_empty", "low_battery")),
    ),
    "E1": (TE_SS730, FAST),
    "E2": (TE_SS730, structs.replace(FAST, counter_ml=13.0, battery_percent=30.0)),
    "E3": (TE_SS730, structs.replace(FAST, state="complete", counter_ml=100.0)),
    "E4": (TE_SS730, structs.replace(FAST, state="bolus", counter_ml=15.0)),
}
"""For each status frame of a pump, how things were with the pump when it said that."""
ONLY_READ = {"T4": "a printed number that is not the request's", "T8": "infinite VTBI", "E5": "a dosage"}
"""What real pumps say and this one never does."""


def bytes_of(identity: str) -> bytes:
    return bytes.fromhex(FRAMES[identity]["hex"])


def request(block: bytes | None, to: str = SERIAL, kind: str = "REQ") -> bytes:
    command = b"" if block is None else b"<CMD>" + base64.b64encode(block) + b"</CMD>"
    text = f'<?xml version="1.0"?><{kind}><DEVID>{to}</DEVID>'.encode() + command + f"</{kind}>".encode()
    return frame(text)


def replies(
    data: bytes, truth: Truth = RUNNING, serial: str = SERIAL, model: tuple[bytes, bytes, bytes] = TE_SS830P
) -> list[bytes]:
    wire = TerumoWire({None: serial}, model)
    return [answer.reply for answer in wire.receive(data, PumpsAre({None: truth})) if answer.reply]


def block_of(reply: bytes) -> bytes:
    found = re.search(rb"<CMD>(.*)</CMD>", reply)
    assert found is not None
    return base64.b64decode(found[1])


def status_of(truth: Truth) -> bytes:
    [reply] = replies(request(b"\x01\x01\x00\x00"), truth)
    return block_of(reply)


def test_every_good_status_frame_of_a_pump_is_in_one_of_the_tables_above() -> None:
    good = {
        one["id"] for one in FRAMES.values() if one["id"][0] in "TE" and one["fields"]["kind"] == "status"
    }
    assert good == {*SHOWN, *ONLY_READ}


@pytest.mark.parametrize("identity", SHOWN)
def test_the_pump_says_each_frame_that_was_checked_by_hand_when_asked_for_it(identity: str) -> None:
    model, truth = SHOWN[identity]
    asked = request(bytes((FRAMES[identity]["fields"]["sequence"], 1, 0, 0)))
    assert replies(asked, truth, model=model) == [bytes_of(identity)]


def test_asked_who_it_is_it_tells_its_id_unconditionally() -> None:
    assert replies(bytes_of("T1")) == [bytes_of("T2")]


def test_the_printed_query_is_answered_with_its_number() -> None:
    assert replies(bytes_of("T3")) == [bytes_of("T5")]


@pytest.mark.parametrize(
    ("asked", "identity"),
    [
        (b"\x06\x01", "T10"),
        (b"\x0b", "E7"),
        (b"\x0a\x7f\x00\x00", "E6"),
    ],
)
def test_errors_are_answered_as_the_hand_checked_frames(asked: bytes, identity: str) -> None:
    assert replies(request(asked)) == [bytes_of(identity)]


def test_a_refusal_repeats_command_and_sub_command() -> None:
    # T9 says so of command 01, which this pump knows; the layout is that of its frame.
    [reply] = replies(request(b"\x05\x02\x00\x00"))
    assert block_of(reply) == block_of(bytes_of("T9")).replace(b"\x01", b"\x02")
    [reply] = replies(request(b"\x05\x01\x00\x00\xaa"))
    assert block_of(reply) == b"\x05\x01\x00\x00\x14\x01\x00\x00"


@given(st.binary(max_size=80))
def test_the_checksum_is_the_one_that_everybody_means_by_crc_16_xmodem(text: bytes) -> None:
    assert int(crc_digits(text), 16) == binascii.crc_hqx(text, 0)


def test_the_checksum_has_its_published_check_value_and_keeps_its_zeros() -> None:
    assert crc_digits(b"123456789") == b"31C3"
    assert crc_digits(b"") == b"0000"


@pytest.mark.parametrize(
    ("state", "byte"),
    [
        ("idle", 0x00),
        ("paused", 0x00),
        ("alarm", 0x00),
        ("complete", 0x00),
        ("running", 0x10),
        ("kvo", 0x10),
        ("standby", 0x20),
        ("priming", 0x30),
        ("bolus", 0x50),
    ],
)
def test_each_state_of_the_pump_has_its_byte(state: str, byte: int) -> None:
    assert status_of(structs.replace(RUNNING, state=state))[7] == byte


@pytest.mark.parametrize(("alarm", "bit"), ALARM_BITS.items())
def test_each_alarm_of_the_pump_has_its_bit(alarm: str, bit: int) -> None:
    assert status_of(structs.replace(RUNNING, alarms=(alarm,)))[10:13] == (1 << bit).to_bytes(3, "big")


@pytest.mark.parametrize(
    ("percent", "byte"), [(100.0, 0x55), (99.0, 0x45), (50.0, 0x43), (20.0, 0x42), (19.0, 0x41), (0.0, 0x41)]
)
def test_a_pump_on_mains_is_full_and_on_battery_it_shows_bars(percent: float, byte: int) -> None:
    assert status_of(structs.replace(RUNNING, battery_percent=percent))[13] == byte


@pytest.mark.parametrize(("mmhg", "quarters"), [(-20.0, 0), (124.0, 0), (125.0, 1), (374.0, 2), (900.0, 3)])
def test_pressure_is_told_in_quarters_of_its_limit(mmhg: float, quarters: int) -> None:
    assert status_of(structs.replace(RUNNING, pressure_mmhg=mmhg))[14] & 0b11 == quarters


def test_a_volume_to_be_infused_that_is_not_there_is_not_used_and_what_does_not_fit_is_the_most() -> None:
    said = status_of(structs.replace(RUNNING, vtbi_ml=0.0, counter_ml=1e9))
    assert (said[22:25], said[19:22]) == (b"\xee\xee\xee", b"\xff\xff\xff")


@pytest.mark.parametrize(
    ("serial", "known_as"),
    [(SERIAL, SERIAL), ("8002-51740", "000000000000000800251740"), ("", "0" * 24), ("9" * 30, "9" * 24)],
)
def test_a_device_id_has_24_digits_and_ends_in_those_of_the_serial_number(serial: str, known_as: str) -> None:
    assert device_id(serial) == known_as.encode()


def test_a_pump_is_silent_to_the_id_of_another() -> None:
    assert replies(bytes_of("T3"), serial="8002-51740") == []
    assert len(replies(request(b"\x01\x01\x00\x00", "000000000000000800251740"), serial="8002-51740")) == 1


@pytest.mark.parametrize("identity", [one for one, read in FRAMES.items() if read["direction"] == "pump"])
def test_what_a_pump_says_and_what_a_cable_makes_of_it_is_met_with_silence(identity: str) -> None:
    assert replies(bytes_of(identity)) == []


@pytest.mark.parametrize(
    ("sent", "answered"),
    [
        (bytes_of("T1").replace(b"8411", b"8412"), 0),
        (b"\x02\x03", 0),
        (bytes_of("T3").replace(b"A9A4", b"a9a4"), 0),
        (bytes_of("T1")[1:], 0),  # no start
        (bytes_of("T1")[:-1], 0),  # no end yet
        (bytes_of("T1")[:20] + bytes_of("T1"), 1),  # begun again
        (b"\xff\r\n" + bytes_of("T1") + b"\r\n", 1),
        (b"\x02" + b"x" * 5000 + bytes_of("T1"), 1),
        (request(None), 0),  # no command
        (request(b"\x01\x01\x00\x00", ""), 0),
        (request(b"\x01\x01\x00\x00", kind="REP"), 0),
        (request(b"\x7f\x01\x00\x00"), 0),  # reserved numbers
        (request(b"\xff\x01\x00\x00"), 0),
        (request(b"\x80\x01\x00\x00"), 1),  # the rack's
        (frame(f'<?xml version="1.0"?><REQ><DEVID>{SERIAL}</DEVID><CMD>AQE</CMD></REQ>'.encode()), 0),
        (frame(f'<?xml version="1.0"?> <REQ><DEVID>{SERIAL}</DEVID><CMD>AQEAAA==</CMD></REQ>'.encode()), 0),
        (frame(b'<?xml version="1.0"?><!DOCTYPE a><REQ><DEVID></DEVID></REQ>'), 0),
    ],
)
def test_the_pump_answers_what_it_understands_and_is_silent_else(sent: bytes, answered: int) -> None:
    assert len(replies(sent)) == answered


@given(st.binary(min_size=4, max_size=12))
def test_whatever_is_commanded_the_pump_goes_on_as_it_was(block: bytes) -> None:
    wire = TerumoWire({None: SERIAL})
    wire.receive(request(block), NOW)
    assert [one.reply for one in wire.receive(bytes_of("T3"), NOW)] == [bytes_of("T5")]


@given(st.lists(st.binary(max_size=300) | st.sampled_from([bytes_of("T1"), bytes_of("T3"), b"\x02<?xml"])))
def test_whatever_comes_nothing_is_raised_and_little_is_kept(portions: list[bytes]) -> None:
    whole, cut = TerumoWire({None: SERIAL}), TerumoWire({None: SERIAL})
    together = whole.receive(b"".join(portions), NOW)
    apart: list[Answer] = [answer for portion in portions for answer in cut.receive(portion, NOW)]
    assert together == apart
    assert len(cut._heard or b"") <= LONGEST_FRAME
