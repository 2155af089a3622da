"""The frames of the Alaris protocol, against the hand-checked ones and against anything else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.alaris import codec
from drivers.alaris.codec import (
    Alarm,
    HighestRate,
    Infusion,
    LongestReply,
    Protocol,
    Query,
    Rate,
    SerialNumber,
    Syringe,
    Unreadable,
    VolumeInfused,
    VolumeToBeInfused,
)
from drivers.framing import CutKind
from drivers.reading import FaultKind
from tests.drivers.alaris_pump import FRAMES, framed, infusion, text_of
from tests.drivers.three_ways import Hear, hears_three_ways

PUMP_FRAMES = [name for name, frame in FRAMES.items() if frame["direction"] == "pump"]
HOST_FRAMES = [name for name, frame in FRAMES.items() if frame["direction"] == "host"]

MEANINGS = {
    "A2": SerialNumber(serial="8002-51740"),
    "A4": Protocol(revision="Asena Rev 2.1.5"),
    "A6": LongestReply(longest_ms=4_000),
    "A8": Infusion(
        serial="8002-51733",
        notice="A",
        mode="HLD",
        rate_ml_h=0.0,
        drug="",
        volume_ml=0.969,
        pressure_mmhg=530.15,
        time_left="00:04:09",
        log_type="EVENT",
        newest_log_entry="214725",
    ),
    "A9": Infusion(
        serial="8002-51740",
        notice="-",
        mode="SET",
        rate_ml_h=10.0,
        drug="",
        volume_ml=0.969,
        pressure_mmhg=17.91,
        time_left="24+",
        log_type="EVENT",
        newest_log_entry="127904",
    ),
    "A11": Alarm(code="AL_NOALM"),
    "A12": Alarm(code="AL_OCCLU"),
    "A14": VolumeToBeInfused(vtbi_ml=11.0, at_end="STOP"),
    "A16": Rate(rate_ml_h=10.0),
    "A18": VolumeInfused(volume_ml=0.969),
    "A20": Syringe(brand="BD PLASTIPAK", size_ml=50.0, confirmed=True),
    "A22": HighestRate(rate_ml_h=1_200.0),
    "X3": Alarm(code="AL_NOALM"),
    "X4": Rate(rate_ml_h=11.0),
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


@pytest.mark.parametrize("name", PUMP_FRAMES)
def test_every_hand_checked_frame_of_a_pump_is_read_whole_byte_by_byte_and_with_the_next_behind_it(name):
    frame = FRAMES[name]
    expected: list[object] = []
    if frame["expected"] == "reject":
        expected = [text_of(name)]
    elif frame["expected"] == "ok":
        rejected = frame.get("rejected", "").encode("ascii")
        expected = [*([rejected] if rejected else []), MEANINGS[name]]
    hears_three_ways(reader, text_of(name), expected, next_frame=text_of("A16"))


@pytest.mark.parametrize("name", HOST_FRAMES)
def test_every_hand_checked_query_is_written_as_it_stands(name):
    [body] = FRAMES[name]["fields"]
    assert codec.encode(Query(body)) == text_of(name)


def test_the_frames_that_can_be_written_are_the_hand_checked_queries_and_no_others():
    assert frozenset(text_of(name) for name in HOST_FRAMES) == codec.QUERY_FRAMES


def test_the_crc_has_its_published_check_value():
    assert codec.crc(b"123456789") == 0x29B1


@pytest.mark.parametrize("name", [name for name in FRAMES if FRAMES[name]["expected"] == "ok"])
def test_the_frames_of_the_test_pump_are_the_hand_checked_ones(name):
    fields = "^".join(FRAMES[name]["fields"])
    assert framed(fields) == text_of(name)[len(FRAMES[name].get("rejected", "")) :]


@pytest.mark.parametrize(
    ("said", "field", "meaning"),
    [
        ({"pressure": "-50.00"}, "pressure_mmhg", None),
        ({"pressure": "-49.99"}, "pressure_mmhg", -49.99),
        ({"pressure": "-"}, "pressure_mmhg", None),
        ({"pressure": "", "pressure_unit": ""}, "pressure_mmhg", None),
        ({"rate": "-"}, "rate_ml_h", None),
        ({"rate": "0.00"}, "rate_ml_h", 0.0),
        ({"rate": " 7.50"}, "rate_ml_h", 7.5),
        ({"volume": "-"}, "volume_ml", None),
        ({"volume": "0.000"}, "volume_ml", 0.0),
        ({"volume": "9999.999"}, "volume_ml", 9999.999),
        ({"time_left": "24+"}, "time_left", "24+"),
        ({"drug": "NORADRENALINE 4"}, "drug", "NORADRENALINE 4"),
        ({"serial": ""}, "serial", ""),
    ],
)
def test_a_field_without_a_value_is_none_and_never_zero(said, field, meaning):
    reply = codec.decode(framed(infusion(**said)))
    assert isinstance(reply, Infusion)
    assert getattr(reply, field) == meaning
    assert reply.not_understood == ()


@pytest.mark.parametrize(
    ("said", "field", "words"),
    [
        ({"rate_unit": "mcg/kg/min"}, "rate_ml_h", "rate: the unit 'mcg/kg/min' is not ml/h"),
        ({"volume_unit": "l"}, "volume_ml", "volume: the unit 'l' is not ml"),
        ({"pressure_unit": "kPa"}, "pressure_mmhg", "pressure: the unit 'kPa' is not mmHg"),
        ({"rate": "1e3"}, "rate_ml_h", "rate: '1e3' is not a number"),
        ({"rate": "nan"}, "rate_ml_h", "rate: 'nan' is not a number"),
        ({"rate": "12345678.0"}, "rate_ml_h", "rate: '12345678.0' is not a number"),
        ({"volume": "-1.000"}, "volume_ml", "volume: '-1.000' is too small"),
    ],
)
def test_a_field_in_a_form_we_do_not_know_is_no_value_says_so_and_costs_no_other(said, field, words):
    reply = codec.decode(framed(infusion(notice="A", **said)))
    assert isinstance(reply, Infusion)
    assert getattr(reply, field) is None
    assert reply.not_understood == (words,)
    assert reply.notice == "A"
    known = {"rate_ml_h": 10.0, "volume_ml": 0.969, "pressure_mmhg": 17.91}
    assert {name: getattr(reply, name) for name in known if name != field} == {
        name: value for name, value in known.items() if name != field
    }


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("INF^8002-51740", "INF has 1 fields, 13 are known"),
        (infusion(drug="A^B"), "INF has 14 fields, 13 are known"),
        ("INF", "INF has 0 fields, 13 are known"),
        ("INST_STATUS^1", "INST_STATUS is no reply that we know"),
        ("", " is no reply that we know"),
        ("INF_RATE^-1.00^ml/h", "INF_RATE: '-1.00' is no value"),
        ("INF_RATE^-^ml/h", "INF_RATE: '-' is no value"),
        ("COMMS_RESPONSE_MAX^4^s", "COMMS_RESPONSE_MAX: the unit 's' is not ms"),
        ("INF_VTBI^MAYBE^1.000^ml^STOP", "INF_VTBI: 'MAYBE' is neither ACTIV nor DEACT"),
        ("ALARM^AL_N\x07OALM^ ^ ", "not printable ASCII"),
        ("ALARM^AL_OCCL\xdc^ ^ ", "not printable ASCII"),
    ],
)
def test_an_intact_frame_that_says_something_unknown_is_unsupported_and_not_guessed_at(body, words):
    assert codec.decode(framed(body)) == Unreadable(kind=FaultKind.UNSUPPORTED, detail=words)


def test_without_a_volume_to_be_infused_there_is_none():
    assert codec.decode(framed("INF_VTBI^DEACT^^ml^STOP")) == VolumeToBeInfused(vtbi_ml=None, at_end="STOP")


def test_the_last_separator_is_the_one_before_the_crc():
    reply = codec.decode(framed(infusion(drug="A|B")))
    assert isinstance(reply, Infusion)
    assert reply.drug == "A|B"


# Bodies that are nearly right try more of the decoder than noise does.
NEARLY = st.lists(
    st.sampled_from([*Query, "", "-", "|", "A", "SET", "10.00", "1e9", "ml/h", "mmHg", "ACTIV", "\x00", "é"])
).map(lambda words: "^".join(words).encode("utf-8"))


@given(body=st.one_of(NEARLY, st.binary(max_size=300)))
def test_whatever_is_in_a_frame_the_decoder_answers_and_raises_nothing(body):
    assert codec.decode(framed(body)) is not None
    assert codec.decode(b"!" + body + b"\r") is not None
    assert codec.decode(body) is not None


@given(
    body=NEARLY.filter(bool),
    places=st.sets(st.integers(0, 10_000), min_size=1, max_size=3),
    bit=st.integers(0, 7),
)
def test_no_body_with_one_two_or_three_flipped_bits_is_taken_for_true(body, places, bit):
    # What this CRC promises for bodies of up to 4 KiB.
    frame = bytearray(framed(body))
    for place in {place % len(body) for place in places}:
        frame[1 + place] ^= 1 << bit
    reply = codec.decode(bytes(frame))
    assert isinstance(reply, Unreadable)
    assert reply.kind is FaultKind.GARBLED


@given(noise=st.one_of(st.binary(max_size=1_200), NEARLY))
def test_after_any_garbage_the_next_good_frame_is_read(noise):
    assert reader()(noise + text_of("A9"))[-1] == MEANINGS["A9"]
