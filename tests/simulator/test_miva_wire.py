"""The MIVA's side of its service port, held against the frames of the protocol page."""

from __future__ import annotations

import struct
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from simulator.device import Device
from simulator.pump import LogEntry, Truth
from simulator.wire.miva import (
    ACCESS_CODE,
    ALARM_RECORDS,
    ERASED,
    FIRST_RECORD,
    LONGEST_FRAME,
    RING,
    STREAM_EVERY_MS,
    MivaWire,
    float_value,
    frame,
    programme,
    record,
)
from simulator.wire.wire import Answer
from tests.simulator.scenarios import H, PumpsAre, constant, fault, scenario

FRAMES = tomllib.loads((Path(__file__).parents[1] / "frames" / "miva.toml").read_text())["frame"]
RUNNING = Truth(
    commanded_ml=12.34,
    mechanism_ml=12.34,
    patient_ml=12.34,
    counter_ml=12.34,
    pressure_mmhg=10.0,
    bag_ml=None,
    state="running",
    faults=(),
    rate_ml_h=45.0,
    vtbi_ml=100.0,
    remaining_s=3_600,
    alarms=(),
    battery_percent=100.0,
    log_entries=0,
)
SAID_OF = {"R304D2": {"counter_ml": 123.4}, "Q71": {"state": "bolus"}}
"""How else things were with the pump when it said that."""
SAID_AT_MS = {"R900015180": 85_400_000, "RCF0000500": 280_000}
NEVER_SAID = {
    "RM01": "a MIVA's answer is not known",
    "RC0F0B1A080A1E": "the clock of this pump is relative",
    "Q90032": "it does not count boluses apart",
    "S9C1F064138": "its sensors stand elsewhere",
    "RI0000001000000016": "its log lies elsewhere",
}
RECORDS = {
    0x10: record(24, 1_000, 1, float_value(3.1), float_value(0.0)),
    0x11: programme(1_010, 45.0, 100.0, 0.5, 1_200)[0],
    0x12: programme(1_010, 45.0, 100.0, 0.5, 1_200)[1],
    0x13: programme(1_010, 45.0, 100.0, 0.5, 1_200)[2],
    0x14: programme(1_010, 45.0, 100.0, 0.5, 1_200)[3],
    0x15: record(1, 1_011),
    0x16: record(9, 1_100, 2),
    0x17: record(9, 1_160, 4),
    0x18: record(2, 1_161, first=float_value(12.34)),
    0x19: record(14, 1_200),
    0x1A: record(18, 1_210, 0x0042),
    0x1B: record(26, 1_211, 0x0080),
    0x1C: record(13, 1_300, 2, float_value(2.61), float_value(55.5)),
    0x1D: record(7, 1_400, 3),
    0x1E: record(6, 1_500, 0x0201),
    0x1F: record(22, 1_600, 0x0801, float_value(45.0), float_value(50.0)),
    0x21: ERASED,
}

PAIRS = [
    (bytes.fromhex(host["hex"]), bytes.fromhex(pump["hex"]), pump["fields"][0])
    for host, pump in zip(FRAMES[::2], FRAMES[1::2], strict=True)
    if host["id"][0] == "M"
]
"""Question, answer, and the payload of the answer."""
LIVE = [pair for pair in PAIRS if not pair[2].startswith("RE") and pair[2] not in NEVER_SAID]
NOW = PumpsAre({None: RUNNING})


def entry(
    at_ms: int, state: str, *alarms: str, notice: str | None = None, rate_ml_h: float = 45.0
) -> LogEntry:
    return LogEntry(
        at_ms=at_ms, state=state, rate_ml_h=rate_ml_h, alarms=alarms, counter_ml=1.0, notice=notice
    )


def ask(wire: MivaWire, payload: str, pumps: PumpsAre = NOW) -> str:
    """The payload of the answer; empty if there is none."""
    [answer] = wire.receive(frame(payload), pumps)
    if not answer.reply:
        return ""
    said = answer.reply[1:-3].decode()
    assert answer.reply == frame(said)
    return said


def log_of(wire: MivaWire, pumps: PumpsAre) -> list[bytes]:
    said = ask(wire, "RI", pumps)
    tail, head = int(said[2:10], 16), int(said[10:], 16)
    places = [(tail + number) % RING for number in range((head - tail) % RING + 1)]
    return [bytes.fromhex(ask(wire, f"RE{place:08X}", pumps)[10:]) for place in places]


def types(wire: MivaWire, *story: LogEntry) -> list[tuple[int, int]]:
    """Type and bytes 5 and 6 of the records after POWER_ON, without the raw ones."""
    records = log_of(wire, PumpsAre({None: RUNNING}, logs={None: story}))[1:]
    told, raw = [], False
    for one in records:
        if one[0] == 0 and one[6:] == b"\xff" * 10:
            raw = one[5] == 1
        elif not raw:
            told.append((one[0], int.from_bytes(one[5:7], "big")))
    return told


def test_every_frame_of_the_page_is_said_or_it_is_said_why_not() -> None:
    assert {pair[2] for pair in PAIRS if not pair[2].startswith("RE")} == {
        *(pair[2] for pair in LIVE),
        *NEVER_SAID,
    }
    places = {int(pair[2][2:10], 16) for pair in PAIRS if pair[2].startswith("RE")}
    assert places - set(RECORDS) == {0x20}, "a calendar stamp, which this pump has not"


@pytest.mark.parametrize(("question", "answer", "payload"), LIVE)
def test_the_pump_says_each_frame_of_the_page_when_asked_for_it(
    question: bytes, answer: bytes, payload: str
) -> None:
    truth = structs.replace(RUNNING, **SAID_OF.get(payload, {}))
    pumps = PumpsAre({None: truth}, now_ms=SAID_AT_MS.get(payload, 0))
    assert [one.reply for one in MivaWire({None: "SN800009"}).receive(question, pumps)] == [answer]


@pytest.mark.parametrize("place", RECORDS)
def test_the_pump_writes_each_record_of_the_page(place: int) -> None:
    [payload] = [pair[2] for pair in PAIRS if pair[2].startswith(f"RE{place:08X}")]
    assert RECORDS[place].hex().upper() == payload[10:]


def test_a_start_is_written_with_its_programme_and_a_pause_with_its_volume() -> None:
    story = (entry(0, "idle"), entry(10_000, "running"), entry(60_000, "paused"))
    wire = MivaWire({None: "SN800009"})
    records = log_of(wire, PumpsAre({None: RUNNING}, logs={None: story}))
    assert records == [
        record(24, 1_000, 1, float_value(3.1), float_value(0.0)),
        *programme(1_010, 45.0, 100.0, 0.0, 0),
        record(1, 1_010),
        record(2, 1_060, first=float_value(1.0)),
    ]


@pytest.mark.parametrize(("alarm", "known"), ALARM_RECORDS.items())
def test_an_alarm_is_written_into_the_log(alarm: str, known: tuple[int, int] | None) -> None:
    story = (entry(0, "running"), entry(1_000, "alarm", alarm))
    assert types(MivaWire({None: "1"}), *story)[1:] == ([] if known is None else [known])


@pytest.mark.parametrize(
    ("alarm", "end"),
    [
        ("occlusion_downstream", [(9, 4)]),
        ("occlusion_upstream", [(9, 4)]),
        ("low_battery", [(13, 0x60)]),
        ("malfunction", []),
    ],
)
def test_the_end_of_an_alarm_is_written_where_there_is_an_event_for_it(
    alarm: str, end: list[tuple[int, int]]
) -> None:
    story = (entry(0, "running"), entry(1_000, "alarm", alarm), entry(2_000, "running"))
    assert types(MivaWire({None: "1"}), *story)[2:] == [*end, (1, 0xFFFF)]


def test_doses_and_settings_are_written() -> None:
    story = (
        entry(0, "running"),
        entry(1_000, "bolus", notice="demand"),
        entry(2_000, "bolus", notice="demand_denied"),
        entry(3_000, "running", notice="demand_denied"),
        entry(4_000, "bolus", notice="demand"),
        entry(5_000, "running"),
        entry(6_000, "running", rate_ml_h=50.0),
    )
    assert types(MivaWire({None: "1"}), *story)[1:] == [
        (6, 0x0201),
        (7, 1),
        (7, 2),
        (6, 0x0201),
        (23, 1),
        (5, ACCESS_CODE),
        (22, 0x0801),
    ]


def test_the_log_goes_around_its_ring_and_what_was_never_written_is_erased() -> None:
    story = [entry(0, "idle")]
    for number in range(1, 30):
        story.append(entry(number * 1_000, "running" if number % 2 else "paused"))
    wire = MivaWire({None: "1"})
    pumps = PumpsAre({None: RUNNING}, logs={None: story})
    said = ask(wire, "RI", pumps)
    assert (int(said[2:10], 16), int(said[10:], 16)) == (FIRST_RECORD, (FIRST_RECORD + 15 * 5 + 14) % RING)
    assert int(said[10:], 16) < FIRST_RECORD
    assert ask(wire, f"RE{FIRST_RECORD - 1:08X}", pumps)[10:] == "F" * 32
    assert ask(wire, f"RE{RING:08X}", pumps) == "", "no such place"


def test_what_is_in_the_log_is_not_written_again() -> None:
    story = [entry(0, "running")]
    wire = MivaWire({None: "1"})
    before = log_of(wire, PumpsAre({None: RUNNING}, logs={None: story}))
    story.append(entry(5_000, "paused"))
    after = log_of(wire, PumpsAre({None: RUNNING}, logs={None: story}))
    assert after[: len(before)] == before
    assert len(after) == len(before) + 1


@pytest.mark.parametrize(
    ("state", "runs"),
    [("running", "TRUE"), ("bolus", "TRUE"), ("kvo", "TRUE"), ("paused", "FALSE"), ("alarm", "FALSE")],
)
def test_running_is_delivering(state: str, runs: str) -> None:
    pumps = PumpsAre({None: structs.replace(RUNNING, state=state)})
    assert ask(MivaWire({None: "1"}), ":INFU:RUN?", pumps) == runs


def test_the_setting_for_demand_boluses_is_told_or_said_not_to_be_there() -> None:
    set_so = PumpsAre({None: structs.replace(RUNNING, bolus_ml=1.0, lockout_s=1_200.0)})
    wire = MivaWire({None: "1"})
    assert ask(wire, "QI") == "QIERROR"
    assert ask(wire, "QI", set_so) == "QI0064"
    assert ask(wire, ":PROT:DB:LOCK?", set_so) == "1200"


@pytest.mark.parametrize(
    ("sent", "answered"),
    [
        (b"\x02RNA1\x03", []),  # wrong check
        (b"\x02RN1C\x03", []),  # the check of the older platform
        (b"\x02RNa0\x03", ["RNSN800009"]),  # lower case
        (b"\x02:infu:run?%02X\x03" % (sum(b":infu:run?") & 0xFF), ["TRUE"]),
        (b"RNA0\x03", []),  # no start
        (b"\x02RNA0", []),  # no end yet
        (b"\x02\x03", []),
        (b"\x02R7\x02RNA0\x03", ["RNSN800009"]),  # begun again
        (b"\r\n\x00\xff\x02RNA0\x03\r\n", ["RNSN800009"]),  # noise around it
        (b"\x02" + b"x" * 5_000 + b"\x02RNA0\x03", ["RNSN800009"]),
        (frame("QB"), []),  # no source knows it
        (frame(":PROTOCOL:RATE 20.0"), []),
        (frame("RE0000001"), []),
    ],
)
def test_the_pump_answers_what_it_understands_and_is_silent_else(sent: bytes, answered: list[str]) -> None:
    replies = [one.reply for one in MivaWire({None: "SN800009"}).receive(sent, NOW) if one.reply]
    assert replies == [frame(payload) for payload in answered]


@pytest.mark.parametrize("command", ["WT00", "WT01", "WT02", "WR", "WC00", "KE60", "LA", "WNSN000001"])
def test_what_would_change_a_real_pump_is_acknowledged_and_changes_nothing(command: str) -> None:
    wire = MivaWire({None: "SN800009"})
    assert ask(wire, command) == command[:2]
    asked = ("RN", ":INFU:RUN?", ":INFU:RATE?", "Q5", "RC")
    untouched = MivaWire({None: "SN800009"})
    assert [ask(wire, one) for one in asked] == [ask(untouched, one) for one in asked]


def test_the_sensor_stream_is_told_unasked_while_it_is_on() -> None:
    wire = MivaWire({None: "1"})
    assert wire.next_unasked_ms() is None
    assert wire.unasked(NOW) == []
    assert ask(wire, "W01") == "W0"
    assert wire.next_unasked_ms() == STREAM_EVERY_MS
    [pushed] = wire.unasked(PumpsAre({None: RUNNING}, now_ms=STREAM_EVERY_MS))
    assert (pushed.request, pushed.reply[:3]) == (b"", b"\x02S9")
    assert len(pushed.reply) == 15
    assert wire.next_unasked_ms() == 2 * STREAM_EVERY_MS
    wire.connected(9_000)
    assert wire.next_unasked_ms() == 9_000 + STREAM_EVERY_MS
    ask(wire, "W00")
    assert wire.next_unasked_ms() is None


def test_an_answer_begins_within_fifty_milliseconds() -> None:
    device = Device("miva", scenario())
    [sent] = device.receive(frame(":INFU:RUN?"), 0)
    assert sent.at_ms - len(sent.data) * 10_000 / 9_600 <= 50


def test_the_log_of_a_simulated_pump_tells_its_story() -> None:
    device = Device("miva", scenario(constant(125.0, H), fault("occlusion_downstream", 60_000, 600_000)))

    def say(payload: str, now_ms: int) -> str:
        [sent] = device.receive(frame(payload), now_ms)
        return sent.data[1:-3].decode()

    head = int(say("RI", 1_200_000)[10:], 16)
    written = [
        bytes.fromhex(say(f"RE{(FIRST_RECORD + number) % RING:08X}", 1_200_000)[10:])
        for number in range((head - FIRST_RECORD) % RING + 1)
    ]
    occluded = [struct.unpack(">H", one[5:7])[0] for one in written if one[0] == 9]
    assert occluded == [2, 4]


@given(
    st.lists(st.binary(max_size=300) | st.sampled_from([frame("RN"), frame("RI"), frame("W01"), b"\x02R7"]))
)
def test_whatever_comes_nothing_is_raised_and_little_is_kept(portions: list[bytes]) -> None:
    whole, cut = MivaWire({None: "SN800009"}), MivaWire({None: "SN800009"})
    together = whole.receive(b"".join(portions), NOW)
    apart: list[Answer] = [answer for portion in portions for answer in cut.receive(portion, NOW)]
    assert together == apart
    assert len(cut._payload or b"") <= LONGEST_FRAME
