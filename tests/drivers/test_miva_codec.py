"""The frames of the MIVA's service port, against those of the protocol page and against anything else."""

from __future__ import annotations

import struct
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.framing import CutKind
from drivers.miva import codec
from drivers.miva.codec import (
    Bare,
    Clock,
    Event,
    EventKind,
    Flag,
    LogIndices,
    NotAvailable,
    Number,
    Numbers,
    Query,
    Record,
    Reply,
    Snapshot,
    Text,
    Unreadable,
)
from drivers.reading import FaultKind
from tests.drivers.miva_pump import FRAMES, bytes_of, framed
from tests.drivers.three_ways import Hear, hears_three_ways

PUMP_FRAMES = [name for name, frame in FRAMES.items() if frame["direction"] == "pump"]
HOST_FRAMES = [name for name, frame in FRAMES.items() if frame["direction"] == "host"]

SNAPSHOT = Snapshot(
    hall_is_high=True, motor_is_running=True, upstream_counts=31, downstream_counts=100, battery_v=3.12
)
MEANINGS: dict[str, Reply] = {
    "RNSN800009": Text(query=Query.SERIAL_NUMBER, text="SN800009"),
    "RS1.02.03-A": Text(query=Query.FIRMWARE, text="1.02.03-A"),
    "RM01": Text(query=Query.PLATFORM, text="01"),
    "R900015180": Number(query=Query.TIME_ON, value=86_400),
    "R70138": Number(query=Query.BATTERY, value=3.12),
    "RA03E80138": Numbers(query=Query.BATTERY_CALIBRATION, values=(1.0, 3.12)),
    "R304D2": Number(query=Query.TOTAL_VOLUME, value=123.4),
    "R811F80F4240": Numbers(query=Query.LIFE, values=(4_600, 1_000_000)),
    "RD01F40258": Numbers(query=Query.OCCLUSION_SENSORS, values=(500, 600)),
    "R201900320": Numbers(query=Query.OCCLUSION_REFERENCES, values=(400, 800)),
    "RX3FC00000412000003FA0000041A00000": Numbers(query=Query.SENSOR_LINES, values=(1.5, 10.0, 1.25, 20.0)),
    "S9C1F064138": SNAPSHOT,
    "RCF0000500": Clock(relative_s=1_280),
    "RC0F0B1A080A1E": Clock(calendar=datetime(2026, 11, 15, 8, 10, 30)),
    "Q0CONT": Text(query=Query.MODE, text="CONT"),
    "Q30E10": Number(query=Query.INFUSION_TIME, value=3_600),
    "Q4ML/HR": Text(query=Query.RATE_UNIT, text="ML/HR"),
    "Q504D2": Number(query=Query.VOLUME_INFUSED, value=12.34),
    "Q62710": Number(query=Query.VOLUME_TO_BE_INFUSED, value=100.0),
    "Q71": Flag(query=Query.BOLUS_RUNNING, is_on=True),
    "Q80FA0": Number(query=Query.BOLUS_RATE, value=40.0),
    "Q90032": Number(query=Query.BOLUS_INFUSED, value=0.5),
    "QHERROR": NotAvailable(query=Query.AUTO_BOLUS),
    "TRUE": Bare(text="TRUE"),
    "45.00": Bare(text="45.00"),
    "DAILY 1": Bare(text="DAILY 1"),
    "RI0000001000000016": LogIndices(tail=0x10, head=0x16),
}

EVENTS: dict[int, tuple[EventKind, int, int, float | None, float | None]] = {
    # place in the log: type, seconds, word, first and second value
    0x10: (EventKind.POWER_ON, 1_000, 1, 3.1, 0.0),
    0x15: (EventKind.RUN_INFUSION, 1_011, 0xFFFF, None, None),
    0x16: (EventKind.OCCLUSION_ALARM, 1_100, 2, None, None),
    0x17: (EventKind.OCCLUSION_ALARM, 1_160, 4, None, None),
    0x18: (EventKind.INFUSION_PAUSED, 1_161, 0xFFFF, 12.34, None),
    0x19: (EventKind.CASSETTE_DETACHED_ALARM, 1_200, 0xFFFF, None, None),
    0x1A: (EventKind.SYSTEM_ERROR_ALARM, 1_210, 0x0042, None, None),
    0x1B: (EventKind.SYSTEM_ERROR2_ALARM, 1_211, 0x0080, None, None),
    0x1C: (EventKind.BATTERY, 1_300, 0x0002, 2.61, 55.5),
    0x1D: (EventKind.EXTRA_DOSE_DENIED, 1_400, 0x0003, None, None),
    0x1E: (EventKind.DOSE_GRANTED, 1_500, 0x0201, None, None),
    0x1F: (EventKind.SETTING_CHANGE, 1_600, 0x0801, 45.0, 50.0),
}


def reader() -> Hear[object]:
    """Bytes to replies; what cannot be read comes out as the bytes themselves."""
    stream = codec.stream()

    def hear(data: bytes) -> list[object]:
        told: list[object] = []
        for cut in stream.feed(data):
            if cut.kind is CutKind.FILLER:
                continue
            reply = codec.decode(cut.data) if cut.kind is CutKind.FRAME else None
            told.append(cut.data if reply is None or isinstance(reply, Unreadable) else reply)
        return told

    return hear


def meaning_of(payload: str) -> Reply:
    if payload.startswith("RE"):
        return Record(index=int(payload[2:10], 16), raw=bytes.fromhex(payload[10:]))
    return MEANINGS[payload]


def record_of(index: int) -> bytes:
    """The 16 bytes at one place of the log of the protocol page."""
    [payload] = [
        frame["fields"][0]
        for frame in FRAMES.values()
        if frame["direction"] == "pump" and frame.get("fields", [""])[0].startswith(f"RE{index:08X}")
    ]
    return bytes.fromhex(payload[10:])


@pytest.mark.parametrize("name", [name for name in PUMP_FRAMES if name != "X4"])
def test_every_frame_of_a_pump_is_read_whole_byte_by_byte_and_with_the_next_behind_it(name):
    frame = FRAMES[name]
    expected: list[object] = [bytes_of(name)]
    if frame["expected"] == "ok":
        rejected = bytes.fromhex(frame.get("rejected", ""))
        expected = [*([rejected] if rejected else []), *map(meaning_of, frame["fields"])]
    hears_three_ways(reader, bytes_of(name), expected, next_frame=framed("R70138"))


def test_a_frame_without_its_end_is_given_up_when_the_next_begins():
    assert reader()(bytes_of("X4")) == []
    assert reader()(bytes_of("X4") + framed("RM01")) == [bytes_of("X4"), MEANINGS["RM01"]]


@pytest.mark.parametrize("name", [name for name in HOST_FRAMES if name[0] == "M"])
def test_every_query_of_the_page_is_written_as_it_stands(name):
    [payload] = FRAMES[name]["fields"]
    if payload.startswith("RE"):
        assert codec.encode_record(int(payload[2:], 16)) == bytes_of(name)
    else:
        assert codec.encode(Query(payload)) == bytes_of(name)
    assert codec.is_query(bytes_of(name))


@pytest.mark.parametrize("name", [name for name in FRAMES if FRAMES[name]["id"][0] == "M"])
def test_the_frames_of_the_test_pump_are_those_of_the_page(name):
    [payload] = FRAMES[name]["fields"]
    assert framed(payload) == bytes_of(name)


@pytest.mark.parametrize(("index", "means"), EVENTS.items())
def test_every_event_of_the_page_is_read(index, means):
    kind, seconds, word, first, second = means
    event = codec.read_event(record_of(index))
    assert event is not None
    assert (event.kind, codec.seconds_of(event.stamp), event.word) == (kind, seconds, word)
    if first is not None:
        assert event.first_float == pytest.approx(first)
    if second is not None:
        assert event.second_float == pytest.approx(second)


def test_a_stamp_of_the_relative_clock_is_little_endian_and_its_highest_digit_is_masked():
    assert codec.seconds_of(bytes.fromhex("E80300F0")) == 1_000
    assert codec.seconds_of(bytes.fromhex("FFFFFFFF")) == 0x0FFF_FFFF


def test_a_stamp_of_the_calendar_is_a_packed_date_big_endian():
    event = codec.read_event(record_of(0x20))
    assert event is not None
    assert event.kind is EventKind.UNATTENDED_ALARM
    assert codec.date_of(event.stamp) == datetime(2026, 11, 15, 8, 10, 30)
    assert codec.date_of(b"\xff\xff\xff\xff") is None, "no month 15"


def test_the_marks_around_raw_records_are_known_from_raw_records():
    assert codec.is_data_mark(record_of(0x11), 1)
    assert codec.is_data_mark(record_of(0x14), 2)
    assert not codec.is_data_mark(record_of(0x12), 1)
    assert not codec.is_data_mark(record_of(0x12), 2), "its first byte is 0 too"
    assert not codec.is_data_mark(record_of(0x13), 2)


def test_an_empty_slot_is_no_record():
    assert codec.is_erased(record_of(0x21))
    assert not codec.is_erased(record_of(0x20))
    assert codec.read_event(record_of(0x21)) is None


def test_an_access_code_in_the_log_is_not_even_decoded():
    event = codec.read_event(bytes.fromhex("05F30300F01234FFFFFFFFFFFFFFFFFF"))
    assert event == Event(
        kind=EventKind.AUTHENTICATION, stamp=bytes.fromhex("F30300F0"), word=0, first=b"", second=b""
    )


def test_a_type_that_is_not_known_is_no_event():
    assert codec.read_event(b"\x20" + bytes(15)) is None


@pytest.mark.parametrize(
    ("tail", "head", "count"),
    [(0x10, 0x16, 7), (5, 5, 1), (43_263, 0, 2), (1, 0, 43_264), (0, 43_263, 43_264)],
)
def test_the_number_of_records_counts_around_the_ring(tail, head, count):
    assert LogIndices(tail=tail, head=head).record_count == count


@pytest.mark.parametrize("digits", ["4D2", "04D2", "000004D2", "04d2"])
def test_a_number_without_a_fixed_width_may_have_any(digits):
    assert codec.decode(framed("Q5" + digits)) == Number(query=Query.VOLUME_INFUSED, value=12.34)


def test_a_check_in_lower_case_is_accepted():
    good = framed("Q4ML/HR")
    assert good[-3:-1] == b"E7"
    assert codec.decode(good[:-3] + b"e7\x03") == MEANINGS["Q4ML/HR"]


def test_the_check_of_the_older_platform_is_told_apart_and_not_read():
    told = codec.decode(bytes_of("X2"))
    assert isinstance(told, Unreadable)
    assert (told.kind, "H platform" in told.detail) == (FaultKind.UNSUPPORTED, True)


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        ("RNSN80000", "RN: 'SN80000' has another form"),
        ("RLNIMBUS 1.0", "RL: 'NIMBUS 1.0' has another form"),
        ("R7138", "R7: 3 characters instead of 4"),
        ("RC00", "RC: 2 characters instead of 12"),
        ("RC1F0DFF181A3C", "RC: month must be in 1..12"),
        ("Q5", "Q5: '' are not hexadecimal digits"),
        ("Q5+123", "Q5: '+123' are not hexadecimal digits"),
        ("Q5ERROR", "Q5: 'ERROR' are not hexadecimal digits"),
        ("Q7", "Q7: 0 characters instead of 1"),
        ("RI000000100000A900", "RI: the log has no place 43264"),
        ("S9C1F06413", "S9: 8 characters instead of 9"),
        ("RE00000010FF", "RE: not an index and 16 bytes"),
        ("R7\x07138", "not printable ASCII"),
    ],
)
def test_an_intact_frame_in_another_form_is_unsupported_and_not_guessed_at(payload, words):
    told = codec.decode(framed(payload))
    assert isinstance(told, Unreadable)
    assert told.kind is FaultKind.UNSUPPORTED
    assert told.detail.startswith(words)


@pytest.mark.parametrize(
    ("text", "flag", "decimal"),
    [
        ("TRUE", True, None),
        ("false", False, None),
        ("45.00", None, 45.0),
        ("0", None, 0.0),
        ("1e3", None, None),
        ("-1", None, None),
        ("nan", None, None),
        ("", None, None),
    ],
)
def test_a_bare_value_is_what_it_looks_like_or_nothing(text, flag, decimal):
    assert codec.flag_of(text) is flag
    assert codec.decimal_of(text) == decimal


@pytest.mark.parametrize("index", [-1, 43_264])
def test_a_record_beyond_the_ring_cannot_be_asked_for(index):
    with pytest.raises(ValueError, match="0 to 43263"):
        codec.encode_record(index)


NEARLY = st.lists(
    st.sampled_from([*Query, "RE", "0000", "FFFF", "ERROR", "1", "TRUE", "45.00", "\x00", "é", "SN800009"])
).map(lambda words: "".join(words).encode("utf-8"))


@given(payload=st.one_of(NEARLY, st.binary(max_size=120)))
def test_whatever_is_in_a_frame_the_decoder_answers_and_raises_nothing(payload):
    assert codec.decode(framed(payload)) is not None
    assert codec.decode(b"\x02" + payload + b"\x03") is not None
    assert codec.decode(payload) is not None


@given(record=st.binary(min_size=16, max_size=16))
def test_whatever_is_in_a_record_it_is_an_event_or_none_and_its_times_and_values_can_be_asked(record):
    event = codec.read_event(record)
    if event is None:
        assert record[0] > 31
        return
    codec.date_of(event.stamp)
    assert 0 <= codec.seconds_of(event.stamp) < 1 << 28
    assert isinstance(event.first_float, float)
    assert isinstance(event.second_float, float)


@given(noise=st.binary(max_size=400))
def test_after_any_garbage_the_next_good_frame_is_read(noise):
    assert reader()(noise + framed("R70138"))[-1] == MEANINGS["R70138"]


@given(pieces=st.lists(st.binary(max_size=40), max_size=20))
def test_a_stream_is_cut_and_never_filtered(pieces):
    stream = codec.stream()
    cuts = [cut.data for piece in pieces for cut in stream.feed(piece)]
    cuts += [cut.data for cut in stream.flush()]
    assert b"".join(cuts) == b"".join(pieces)


@given(value=st.floats(width=32))
def test_the_floats_of_the_sensor_line_are_ieee_and_big_endian(value):
    told = codec.decode(framed("RX" + struct.pack(">f", value).hex().upper() * 4))
    assert isinstance(told, Numbers)
    assert struct.pack(">4f", *told.values) == struct.pack(">f", value) * 4 or value != value
