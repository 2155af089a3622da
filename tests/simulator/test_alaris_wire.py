"""The pump's side of the Alaris protocol, held against the frames that were checked by hand."""

from __future__ import annotations

import binascii
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from simulator.pump import Truth
from simulator.wire.alaris import ALARM_CODES, FIRST_LOG_ENTRY, LONGEST_FRAME, AlarisWire, crc_digits, frame
from simulator.wire.wire import Answer
from tests.simulator.scenarios import PumpsAre

FRAMES = {
    one["id"]: one
    for one in tomllib.loads((Path(__file__).parents[1] / "frames" / "alaris.toml").read_text())["frame"]
}
RUNNING = Truth(
    commanded_ml=0.969,
    mechanism_ml=0.969,
    patient_ml=0.969,
    counter_ml=0.969,
    pressure_mmhg=17.91,
    bag_ml=None,
    state="running",
    faults=(),
    rate_ml_h=10.0,
    vtbi_ml=11.0,
    remaining_s=26 * 3600,
    alarms=(),
    battery_percent=100.0,
    log_entries=0,
)
NOW = PumpsAre({None: RUNNING})
OCCLUDED = structs.replace(
    RUNNING,
    state="alarm",
    rate_ml_h=0.0,
    pressure_mmhg=530.15,
    alarms=("occlusion_downstream",),
    remaining_s=4 * 60 + 9,
    log_entries=214_725 - FIRST_LOG_ENTRY,
)
SHOWN = {
    "A2": RUNNING,
    "A4": RUNNING,
    "A6": RUNNING,
    "A8": OCCLUDED,
    "A9": RUNNING,
    "A11": RUNNING,
    "A12": OCCLUDED,
    "A14": RUNNING,
    "A16": RUNNING,
    "A18": RUNNING,
    "A20": RUNNING,
    "A22": RUNNING,
}
"""For each frame of a pump, how things were with the pump when it said that."""


def replies(data: bytes, truth: Truth = RUNNING, serial: str = "8002-51740") -> list[bytes]:
    return [
        answer.reply
        for answer in AlarisWire({None: serial}).receive(data, PumpsAre({None: truth}))
        if answer.reply
    ]


def bytes_of(identity: str) -> bytes:
    return str(FRAMES[identity]["text"]).encode("ascii")


def test_every_frame_of_a_pump_is_in_the_table_above() -> None:
    good = {one["id"] for one in FRAMES.values() if one["direction"] == "pump" and one["id"][0] == "A"}
    assert good == set(SHOWN)


@pytest.mark.parametrize("identity", SHOWN)
def test_the_pump_says_each_frame_that_was_checked_by_hand_when_asked_for_it(identity: str) -> None:
    said, name = bytes_of(identity), FRAMES[identity]["fields"][0]
    serial = FRAMES[identity]["fields"][1] if name == "INF" else "8002-51740"
    question = next(
        one for one in FRAMES.values() if one["direction"] == "host" and one.get("fields") == [name]
    )
    assert replies(str(question["text"]).encode(), SHOWN[identity], serial) == [said]


@given(st.binary(max_size=80))
def test_the_checksum_is_the_one_that_everybody_means_by_crc_16_ccitt_false(body: bytes) -> None:
    assert int(crc_digits(body), 16) == binascii.crc_hqx(body, 0xFFFF)


def test_the_checksum_has_its_published_check_value_and_keeps_its_zeros() -> None:
    assert crc_digits(b"123456789") == b"29B1"
    assert crc_digits(b"INST_SERIALNO^8002-51740") == b"050B"


@pytest.mark.parametrize(
    ("mode", "rate", "state"),
    [
        ("SET", "10.00", "running"),
        ("SET", "10.00", "bolus"),
        ("SET", "10.00", "kvo"),
        ("SET", "0.00", "idle"),
        ("SET", "0.00", "complete"),
        ("HLD", "0.00", "paused"),
        ("HLD", "0.00", "alarm"),
    ],
)
def test_set_is_delivering_or_ready_and_hld_is_on_hold(mode: str, rate: str, state: str) -> None:
    truth = structs.replace(RUNNING, state=state, rate_ml_h=float(rate))
    [reply] = replies(b"!INF|4961\r", truth)
    assert reply.decode().split("^")[3:5] == [mode, rate]


@pytest.mark.parametrize(("alarm", "code"), ALARM_CODES.items())
def test_an_alarm_is_noticed_in_inf_and_named_in_alarm(alarm: str, code: bytes) -> None:
    truth = structs.replace(RUNNING, alarms=(alarm,))
    summary, named = replies(bytes_of("A7") + bytes_of("A10"), truth)
    assert summary.split(b"^")[2] == b"A"
    assert named.split(b"^")[1] == code


def test_a_volume_to_be_infused_that_is_not_active_has_an_empty_volume() -> None:
    [reply] = replies(bytes_of("A13"), structs.replace(RUNNING, vtbi_ml=0.0))
    assert reply == frame(b"INF_VTBI^DEACT^^ml^STOP")


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0, "00:00:00"), (249, "00:04:09"), (86_399, "23:59:59"), (86_400, "24+")]
)
def test_the_time_left_is_shown_up_to_a_day(seconds: int, shown: str) -> None:
    [reply] = replies(bytes_of("A7"), structs.replace(RUNNING, remaining_s=seconds))
    assert reply.decode().split("^")[11] == shown


@pytest.mark.parametrize("identity", [one for one in FRAMES if one[0] == "X"])
def test_what_a_cable_makes_of_a_frame_is_met_with_silence(identity: str) -> None:
    assert replies(bytes_of(identity)) in ([], [frame(b"INF_RATE^11.00^ml/h")])


@pytest.mark.parametrize(
    ("sent", "answered"),
    [
        (b"!INF_RATE|8E6E\r", []),  # last digit wrong
        (b"!INF_RATE|8e6d\r", []),  # lower case
        (b"!INF_RATE\r", []),  # no CRC
        (b"INF_RATE|8E6D\r", []),  # no start
        (b"\r\n\r", []),
        (b"!INF_RATE|8E6D\n", []),  # no end yet
        (b"!INF_RA!INF_RATE|8E6D\r", [b"INF_RATE^10.00^ml/h"]),  # begun again
        (b"\n\xff!INF_RATE|8E6D\r\n", [b"INF_RATE^10.00^ml/h"]),  # noise around it
        (b"!" + b"x" * 5000 + b"!INF_RATE|8E6D\r", [b"INF_RATE^10.00^ml/h"]),
        (frame(b"INST_STATUS"), []),  # no source knows it
        (frame(b"INF^1"), []),
    ],
)
def test_the_pump_answers_what_it_understands_and_is_silent_else(sent: bytes, answered: list[bytes]) -> None:
    assert replies(sent) == [frame(body) for body in answered]


@pytest.mark.parametrize(
    ("body", "answer"),
    [
        (b"REMOTE_CTRL^ENABLED^3CC1", b"REMOTE_CTRL^ENABLED^****^PERMIT^0^ms"),
        (b"REMOTE_CFG^ENABLED^3CC1", b"REMOTE_CFG^ENABLED^****^PERMIT^0^ms"),
        (b"REMOTE_CTRL^DISABLED", b"REMOTE_CTRL^DISABLED^****^PERMIT^0^ms"),
        (b"REMOTE_CTRL^ENABLED^0000", None),
        (b"REMQUERY^DEACT", b"REMQUERY^DEACT^^^^"),
        (b"INF_START", b"INF_START"),
        (b"INF_STOP", b"INF_STOP"),
        (b"INF_VI_CLEAR", b"INF_VI_CLEAR"),
        (b"INF_RATE^0.10^ml/h", b"INF_RATE^0.10^ml/h"),
        (b"INF_VTBI^ACTIV^11.000^ml^STOP", b"INF_VTBI^ACTIV^11.000^ml^STOP"),
    ],
)
def test_what_would_change_a_real_pump_is_acknowledged_and_changes_nothing(
    body: bytes, answer: bytes | None
) -> None:
    wire = AlarisWire({None: "8002-51740"})
    [said] = wire.receive(frame(body), NOW)
    assert said.reply == (b"" if answer is None else frame(answer))
    assert [one.reply for one in wire.receive(bytes_of("A7"), NOW)] == [bytes_of("A9")]


def test_each_pump_has_the_code_that_its_serial_number_gives() -> None:
    assert replies(frame(b"REMOTE_CTRL^ENABLED^9535"), serial="8002-51733") != []
    assert replies(frame(b"REMOTE_CTRL^ENABLED^3CC1"), serial="8002-51733") == []


@given(st.lists(st.binary(max_size=300) | st.sampled_from([b"!INF|4961\r", b"!ALARM|50B2\r", b"!INF"])))
def test_whatever_comes_nothing_is_raised_and_little_is_kept(portions: list[bytes]) -> None:
    whole, cut = AlarisWire({None: "8002-51740"}), AlarisWire({None: "8002-51740"})
    together = whole.receive(b"".join(portions), NOW)
    apart: list[Answer] = [answer for portion in portions for answer in cut.receive(portion, NOW)]
    assert together == apart
    assert len(cut._body or b"") <= LONGEST_FRAME
