"""The pump's side of the New Era protocol, held against the frames of its description."""

from __future__ import annotations

import binascii
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from simulator.device import Device
from simulator.pump import LogEntry, Truth
from simulator.wire.newera import FAMILY, LONGEST_LINE, NewEraWire, basic, crc_bytes, number_shown, packet
from tests.simulator.scenarios import PumpsAre, fault, scenario

FRAMES = {
    one["id"]: one
    for one in tomllib.loads((Path(__file__).parents[1] / "frames" / "newera.toml").read_text())["frame"]
}
RUNNING = Truth(
    commanded_ml=1.234,
    mechanism_ml=1.234,
    patient_ml=1.234,
    counter_ml=1.234,
    pressure_mmhg=20.0,
    bag_ml=None,
    state="running",
    faults=(),
    rate_ml_h=45.0,
    vtbi_ml=8.766,
    remaining_s=3600,
    alarms=(),
    battery_percent=100.0,
    log_entries=0,
)
STOPPED = structs.replace(RUNNING, state="idle", rate_ml_h=0.0)
STALLED = structs.replace(STOPPED, state="alarm", alarms=("occlusion_downstream",))
PURGING = structs.replace(RUNNING, state="priming")
SAID = {
    "B1": STOPPED,
    "B2": RUNNING,
    "B3": STOPPED,
    "B5": STOPPED,
    "B6": RUNNING,
    "B8": STOPPED,
    "B10": RUNNING,
    "B12": STOPPED,
    "B13": STOPPED,
    "B14": PURGING,
    "B18": STOPPED,
    "B23": STOPPED,
    "B25": STOPPED,
}
"""For each query with its reply that this pump gives, how things were with it."""
NOT_SAID = {
    "B4": "another model",
    "B7": "a rate in mL/min is only shown from 10 000 mL/h on",
    "B9": "it only infuses",
    "B11": "its syringe is wide, so volumes are in mL",
    "B15": "it waits for no trigger",
    "B16": "it has no program",
    "B17": "below: an alarm",
    "B19": "below: an alarm",
    "B20": "below: an alarm",
    "B21": "it has no program",
    "B22": "it has no program",
    "B24": "its phase is one with a rate",
    "B26": "below: a damaged packet",
    "B27": "it has no program",
}


def bytes_of(identity: str) -> bytes:
    return bytes.fromhex(FRAMES[identity]["hex"])


def a_wire(*addresses: int) -> NewEraWire:
    """Pumps that have been on for a while: their reset has been told."""
    wire = NewEraWire(dict.fromkeys(addresses or (0,), "1"))
    for address in addresses or (0,):
        wire.receive(b"%d\r" % address, PumpsAre(dict.fromkeys(addresses or (0,), STOPPED)))
    return wire


def said(wire: NewEraWire, data: bytes, *truths: Truth, now_ms: int = 0, address: int = 0) -> list[bytes]:
    pumps = PumpsAre({address + place: truth for place, truth in enumerate(truths or (RUNNING,))}, now_ms)
    return [answer.reply for answer in wire.receive(data, pumps) if answer.reply]


def test_every_pair_of_the_description_is_said_here_or_has_its_reason() -> None:
    pairs = {one.removesuffix("R") for one in FRAMES if one.startswith("B") and one.endswith("R")}
    assert pairs == {*SAID, *NOT_SAID}


@pytest.mark.parametrize("pair", SAID)
def test_the_pump_says_each_reply_of_the_description_when_asked_for_it(pair: str) -> None:
    address = int(FRAMES[f"{pair}R"]["fields"][0])
    assert said(a_wire(address), bytes_of(f"{pair}Q"), SAID[pair], address=address) == [bytes_of(f"{pair}R")]


@given(st.binary(max_size=80))
def test_the_checksum_is_the_one_that_the_manual_means(data: bytes) -> None:
    assert int.from_bytes(crc_bytes(data), "big") == binascii.crc_hqx(data, 0)


def test_the_checksum_is_the_one_that_the_manual_prints() -> None:
    assert packet("SAF0") == bytes_of("S1")
    assert packet("0SAF0") == bytes_of("S2")


@pytest.mark.parametrize("identity", [one for one in FRAMES if one.startswith("S")])
def test_every_safe_packet_of_the_description_is_packed_the_same_here(identity: str) -> None:
    assert packet("".join(FRAMES[identity]["fields"])) == bytes_of(identity)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0, "0.000"),
        (1.2341, "1.234"),
        (9.9996, "10.00"),
        (45.0, "45.00"),
        (99.996, "100.0"),
        (125.0, "125.0"),
        (999.96, "1000."),
        (1234.5, "1234."),
        (20_000.0, "9999."),
    ],
)
def test_a_number_has_four_digits_at_most_and_always_its_point(value: float, shown: str) -> None:
    assert number_shown(value) == shown


def test_after_power_up_each_pump_says_once_that_it_was_reset_whatever_is_asked() -> None:
    wire = NewEraWire({0: "1", 1: "2"})
    assert said(wire, b"DIS\r" * 2, STOPPED, STOPPED) == [bytes_of("B17R"), basic("00SI1.234W0.000ML")]
    assert said(wire, b"1\r" * 2, STOPPED, STOPPED) == [basic("01A?R"), basic("01S")]


def test_a_stall_is_told_in_place_of_the_answer_and_acknowledged_by_being_told() -> None:
    wire = a_wire()
    assert said(wire, b"DIS\r", STALLED) == [bytes_of("B19R")]
    assert said(wire, b"DIS\rRAT\r", STALLED) == [basic("00SI1.234W0.000ML"), basic("00S0.000MH")]
    assert said(wire, b"\r", RUNNING) == [basic("00I")], "it runs again"
    assert said(wire, b"\r", STALLED) == [basic("00A?S")], "and stalls again"


@pytest.mark.parametrize(
    ("alarm", "told"),
    [
        ("occlusion_downstream", b"A?S"),
        ("empty", b"A?S"),
        ("malfunction", b"A?S"),
        ("air_in_line", b"A?S"),
        ("battery_empty", b"A?R"),
        ("near_empty", b"I"),
        ("low_battery", b"I"),
    ],
)
def test_whatever_keeps_it_from_delivering_is_a_stall_and_a_lost_supply_a_reset(
    alarm: str, told: bytes
) -> None:
    truth = structs.replace(RUNNING, alarms=(alarm,))
    assert said(a_wire(), b"\r", truth) == [b"\x0200" + told + b"\x03"]


def test_standing_still_it_shows_the_rate_at_which_it_ran_last() -> None:
    entry = LogEntry(at_ms=0, state="running", rate_ml_h=45.0, alarms=(), counter_ml=0.0)
    log = [entry, structs.replace(entry, state="idle", rate_ml_h=0.0)]
    pumps = PumpsAre({0: STOPPED}, logs={0: log})
    assert [one.reply for one in a_wire().receive(b"RAT\r", pumps)] == [basic("00S45.00MH")]


def test_a_very_high_rate_is_shown_in_ml_per_minute() -> None:
    assert said(a_wire(), b"RAT\r", structs.replace(RUNNING, rate_ml_h=60_000.0)) == [basic("00I1000.MM")]


@pytest.mark.parametrize(
    ("sent", "answered"),
    [
        (b"\n d i s \r", [basic("00II1.234W0.000ML")]),
        (b"00DIS\r", [basic("00II1.234W0.000ML")]),
        (b"IN2\r", [basic("00I1")]),
        (b"FUN\rTRG\r", [basic("00IRAT"), basic("00IFT")]),
        (b"*ADR\r", [basic("00I00")]),
        (b"7\r", []),
        (b"DIS", []),
        (b"123\r", []),  # address 12
        (b"RAT0RAT\r", [basic("00I?OOR")]),
        (b"\xffDIS\r", [basic("00I?")]),
        (b"x" * 5000 + b"\rDIS\r", [basic("00I?"), basic("00II1.234W0.000ML")]),
    ],
)
def test_blanks_case_and_addresses_are_understood_and_other_pumps_are_silent(
    sent: bytes, answered: list[bytes]
) -> None:
    assert said(a_wire(), sent) == answered


@pytest.mark.parametrize(
    ("command", "refused"),
    [
        (b"RUN", ""),
        (b"RUN2", ""),
        (b"STP", ""),
        (b"PUR", ""),
        (b"CLDINF", ""),
        (b"BUZ1", ""),
        (b"OUT51", ""),
        (b"RESET", ""),
        (b"*RESET", ""),
        (b"*ADR5", ""),
        (b"RAT0.1MH", ""),
        (b"RATX", "?OOR"),
        (b"VOLUL", ""),
        (b"VOL5.0", ""),
        (b"DIA26.59", ""),
        (b"DIA99", "?OOR"),
        (b"DIRWDR", ""),
        (b"PHN2", ""),
        (b"PHN99", "?OOR"),
        (b"FUNSTP", ""),
        (b"SAF0", ""),
        (b"SAF256", "?OOR"),
        (b"XYZ", "?"),
    ],
)
def test_what_would_change_a_real_pump_is_answered_and_changes_nothing(command: bytes, refused: str) -> None:
    wire = a_wire()
    assert said(wire, command + b"\r") == [basic("00I" + refused)]
    assert said(wire, b"RAT\rDIS\r") == [bytes_of("B6R"), bytes_of("B10R")]


def test_each_pump_of_a_chain_answers_to_its_address() -> None:
    wire = a_wire(0, 1)
    assert said(wire, b"0RAT\r1RAT\r2RAT\r", RUNNING, STOPPED) == [basic("00I45.00MH"), basic("01S0.000MH")]


def test_a_burst_is_answered_by_all_at_once_and_is_noise() -> None:
    [noise] = said(a_wire(0, 1), b"0 RAT 100 * 1 RAT 250 *\r", RUNNING, STOPPED)
    assert noise not in (basic("00I"), basic("01S"))
    assert len(noise) == len(basic("00I"))


def test_a_packet_is_understood_in_basic_mode_and_answered_in_it() -> None:
    assert said(a_wire(), bytes_of("S1") + bytes_of("S2") + bytes_of("S3")) == [basic("00I")] * 3
    assert said(a_wire(), bytes_of("S6")) == [bytes_of("B10R")]


def test_in_safe_mode_every_reply_is_a_packet_until_it_is_left() -> None:
    wire = a_wire()
    assert said(wire, packet("0SAF10")) == [packet("00I")]
    assert said(wire, bytes_of("S6")) == [bytes_of("S7")]
    assert said(wire, packet("0RAT")) == [bytes_of("S8")]
    assert said(wire, bytes_of("S4"), STOPPED) == [bytes_of("S5")]
    assert said(wire, b"SAF\r") == [packet("00I10")]
    assert said(wire, bytes_of("S2")) == [basic("00I")]


@pytest.mark.parametrize("place", range(2, 7))
def test_a_damaged_packet_is_refused(place: int) -> None:
    damaged = bytearray(bytes_of("S6"))
    damaged[place] ^= 1
    heard = said(a_wire(), bytes(damaged), structs.replace(RUNNING, state="paused"))
    assert heard == ([] if place == 2 else [bytes_of("B26R")]), "the address: no such pump is there"


def test_a_packet_that_stops_for_half_a_second_is_forgotten() -> None:
    wire = a_wire()
    assert said(wire, bytes_of("S6")[:5], now_ms=1_000) == []
    assert said(wire, b"DIS\r", now_ms=1_501) == [bytes_of("B10R")]
    assert said(wire, bytes_of("S6")[:5], now_ms=2_000) == []
    assert said(wire, bytes_of("S6")[5:], now_ms=2_500) == [bytes_of("B10R")]


def test_in_safe_mode_alarms_are_sent_unasked_and_stay_until_they_are_told() -> None:
    wire = a_wire()
    assert wire.next_unasked_ms() is None
    said(wire, packet("0SAF10"))
    assert wire.next_unasked_ms() == 500
    assert [one.reply for one in wire.unasked(PumpsAre({0: STALLED}, 500))] == [bytes_of("S9")]
    assert wire.unasked(PumpsAre({0: STALLED}, 1_000)) == []
    assert said(wire, packet("0DIS"), STALLED, now_ms=1_000) == [bytes_of("S9")]
    assert said(wire, packet("0"), STALLED, now_ms=1_000) == [packet("00S")]


def test_a_client_that_is_silent_for_longer_than_the_time_out_brings_about_an_alarm() -> None:
    wire = a_wire()
    said(wire, packet("0SAF10"))
    assert wire.unasked(PumpsAre({0: RUNNING}, 10_000)) == []
    assert [one.reply for one in wire.unasked(PumpsAre({0: RUNNING}, 10_500))] == [bytes_of("S11")]
    assert said(wire, packet("0"), now_ms=11_000) == [bytes_of("S11")]
    assert said(wire, packet("0"), now_ms=11_000) == [packet("00I")]


def test_without_an_address_a_pump_is_at_that_of_the_factory_and_there_may_be_a_hundred() -> None:
    assert (FAMILY.alone_at, FAMILY.addresses) == (0, tuple(range(100)))
    assert FAMILY.line.baud == 19_200
    device = Device("newera", scenario(None, fault("occlusion_downstream", 0)))
    assert [one.reply for one in device.receive(b"\r\r", 0)] == [basic("00A?R"), basic("00I")]
    assert len(Device("newera", {address: scenario() for address in range(100)}).pumps) == 100


HEARD = [b"DIS\r", b"0SAF5\r", b"\x02\x080DIS0F\x03", b"\x02", b"\x02\x05", b"SAF\r", b"0RAT1*1RAT2*\r"]


@given(st.lists(st.binary(max_size=300) | st.sampled_from(HEARD)))
def test_whatever_comes_nothing_is_raised_and_little_is_kept(portions: list[bytes]) -> None:
    now = PumpsAre({0: RUNNING, 1: STALLED})
    whole, apart = NewEraWire({0: "1", 1: "2"}), NewEraWire({0: "1", 1: "2"})
    together = whole.receive(b"".join(portions), now)
    assert [answer for portion in portions for answer in apart.receive(portion, now)] == together
    assert len(apart._line) <= LONGEST_LINE
    assert len(apart._packet or b"") <= 256
    apart.unasked(now)
