"""The frames of the New Era protocol, against those of its description and against anything else."""

from __future__ import annotations

import binascii

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.framing import CutKind
from drivers.newera import codec
from drivers.newera.codec import (
    Dispensed,
    Prompt,
    Query,
    Rate,
    Reply,
    SafeMode,
    Unreadable,
    Version,
    encode,
    query_of,
    read,
)
from drivers.reading import FaultKind
from tests.drivers.newera_chain import FRAMES, basic, bytes_of, safe
from tests.drivers.three_ways import Hear, hears_three_ways

PUMP_FRAMES = [name for name, frame in FRAMES.items() if frame["direction"] == "pump"]
IN_ONE_PIECE = [name for name in PUMP_FRAMES if FRAMES[name]["expected"] != "unfinished" and name != "X3"]
UNFINISHED = [name for name in PUMP_FRAMES if name not in IN_ONE_PIECE]
NEXT = bytes_of("B6R")


def reader() -> Hear[object]:
    """Bytes to replies; what cannot be read comes out as the bytes themselves."""
    stream = codec.stream()

    def hear(data: bytes) -> list[object]:
        return [told(cut) for cut in stream.feed(data)]

    return hear


def told(cut) -> object:
    reply = codec.decode(cut.data) if cut.kind is CutKind.FRAME else None
    return cut.data if reply is None or isinstance(reply, Unreadable) else reply


def reply_of(fields: list[str], *, is_safe: bool) -> Reply:
    address, prompt, data = fields
    if prompt == "A":
        return Reply(address=int(address), alarm=data[1], is_safe=is_safe)
    error = data[1:] if data.startswith("?") else None
    said = "" if error is not None else data
    return Reply(address=int(address), prompt=Prompt(prompt), error=error, data=said, is_safe=is_safe)


@pytest.mark.parametrize("name", IN_ONE_PIECE)
def test_every_frame_of_a_pump_is_read_whole_byte_by_byte_and_with_the_next_behind_it(name):
    frame = FRAMES[name]
    expected: list[object] = [bytes_of(name)]
    if frame["expected"] == "ok":
        expected = [bytes.fromhex(frame["rejected"])] if "rejected" in frame else []
        expected.append(reply_of(frame["fields"], is_safe=name.startswith("S")))
        if "then" in frame:
            expected.append(reply_of(frame["then"], is_safe=False))
    if len(expected) == 1:
        hears_three_ways(reader, bytes_of(name), expected, next_frame=NEXT)
    assert reader()(bytes_of(name) + NEXT) == [*expected, *reader()(NEXT)]
    by_byte = reader()
    assert [one for byte in bytes_of(name) for one in by_byte(bytes([byte]))] == expected


@pytest.mark.parametrize("name", UNFINISHED)
def test_a_frame_without_its_end_is_given_up_whole_and_does_not_harm_the_next(name):
    data = bytes_of(name)
    for pieces in ([data], [bytes([byte]) for byte in data]):
        stream = codec.stream()
        cuts = [cut for piece in pieces for cut in stream.feed(piece)] + stream.flush()
        assert b"".join(cut.data for cut in cuts) == data
        assert {cut.kind for cut in cuts} == {CutKind.BROKEN}
    heard = reader()(data + NEXT)
    assert heard[-1:] == reader()(NEXT)
    assert b"".join(heard[:-1]) == data


def test_queries_are_written_as_in_the_description():
    assert encode(0, Query.VERSION) == bytes_of("B4Q")
    for query, name in ((Query.RATE, "B6Q"), (Query.DISPENSED, "B10Q"), (Query.SAFE_MODE, "B13Q")):
        assert encode(0, query) == b"0" + bytes_of(name), "with the address that the description leaves out"
    assert encode(42, Query.RATE) == b"42RAT\r"
    assert len(codec.QUERY_LINES) == 400


def test_no_query_is_a_number_alone_which_a_lost_cr_would_make_an_argument():
    assert all(not line.strip().isdigit() for line in codec.QUERY_LINES)


def test_the_crc_is_the_one_that_the_manual_prints():
    assert codec.crc(b"SAF0") == 0x5543
    assert codec.crc(b"123456789") == 0x31C3, "the check value that is published for these parameters"


@pytest.mark.parametrize("name", [name for name in FRAMES if name.startswith("S")])
def test_the_check_of_every_safe_packet_fits(name):
    packet = bytes_of(name)
    assert codec.crc(packet[2:-3]) == int.from_bytes(packet[-3:-1], "big")
    assert packet[1] == len(packet) - 1


@pytest.mark.parametrize("name", [name for name in PUMP_FRAMES if name.startswith(("B", "S"))])
def test_the_frames_of_the_test_pumps_are_those_of_the_description(name):
    address, *text = FRAMES[name]["fields"]
    frame = (safe if name.startswith("S") else basic)("".join(text), int(address))
    assert frame == bytes_of(name)


@pytest.mark.parametrize(
    ("number", "value"),
    [("45.", 45.0), (".5", 0.5), ("1000", 1000.0), ("1000.", 1000.0), ("0.000", 0.0), ("9999", 9999.0)],
)
def test_a_number_may_lack_its_point_or_a_side_of_it(number, value):
    assert read(Query.RATE, f"{number}MH") == Rate(rate_ml_h=value)
    assert read(Query.RATE, f"{number} MH") == Rate(rate_ml_h=value)
    assert read(Query.DISPENSED, f"I{number}W{number}ML") == Dispensed(infused_ml=value, withdrawn_ml=value)


@pytest.mark.parametrize(
    "number", ["", ".", "-1.0", "1e3", "nan", "12345", "1.2345", "1234.5", "0.0000", "1.2.3", "1,5", "٣"]
)
def test_what_no_pump_prints_is_no_number(number):
    assert read(Query.RATE, f"{number}MH") is None
    assert read(Query.DISPENSED, f"I{number}W0.000ML") is None
    assert read(Query.DISPENSED, f"I0.000W{number}ML") is None


@pytest.mark.parametrize(
    ("data", "rate_ml_h"),
    [("0.210MM", 12.6), ("45.00MH", 45.0), ("974.0UM", 58.44), ("500.UH", 0.5), ("0.001UH", 0.000001)],
)
def test_every_unit_of_rate_becomes_ml_h(data, rate_ml_h):
    assert read(Query.RATE, data) == Rate(rate_ml_h=rate_ml_h)


@pytest.mark.parametrize("unit", ["OM", "OS", "MS", "ML", "UL", "XX"])
def test_a_rate_in_a_unit_that_we_do_not_know_is_no_value_and_says_so(unit):
    words = f"the unit of rate {unit} is not known"
    assert read(Query.RATE, f"1.000{unit}") == Rate(rate_ml_h=None, not_understood=words)


def test_microlitres_become_ml_and_ounces_no_value():
    assert read(Query.DISPENSED, "I974.0W959.0UL") == Dispensed(infused_ml=0.974, withdrawn_ml=0.959)
    ounces = read(Query.DISPENSED, "I1.000W0.000OZ")
    assert isinstance(ounces, Dispensed)
    assert (ounces.infused_ml, ounces.not_understood) == (None, "the unit of volume OZ is not known")


def test_versions_with_and_without_upgrade_are_read():
    assert read(Query.VERSION, "NE1000V3.928") == Version(model="1000", upgrade=None, firmware="3.928")
    assert read(Query.VERSION, "NE1002X2V3.82") == Version(model="1002", upgrade="2", firmware="3.82")
    assert read(Query.VERSION, "NE1010XV3.8") == Version(model="1010", upgrade="", firmware="3.8")
    assert read(Query.VERSION, "NE510OEMV1.2") == Version(model="510OEM", upgrade=None, firmware="1.2")


@pytest.mark.parametrize(("data", "value"), [("0", SafeMode(timeout_s=0)), ("255", SafeMode(timeout_s=255))])
def test_the_safe_mode_time_out_is_a_number_up_to_255(data, value):
    assert read(Query.SAFE_MODE, data) == value
    assert read(Query.SAFE_MODE, "256") is None


@given(data=st.text(alphabet="0123456789.IWNEXVMLUH ", max_size=24))
def test_no_data_is_an_answer_to_two_queries(data):
    assert len([query for query in Query if read(query, data) is not None]) <= 1


def test_an_answer_is_known_by_its_form():
    answers = {"NE1000V3.928": Query.VERSION, "0": Query.SAFE_MODE, "45.00MH": Query.RATE, "": None}
    assert {data: query_of(data) for data in answers} == answers


@pytest.mark.parametrize("address", ["0", "7", "07", "99"])
def test_an_address_may_have_one_digit_or_two(address):
    reply = codec.decode(b"\x02" + address.encode() + b"S\x03")
    assert reply == Reply(address=int(address), prompt=Prompt.STOPPED)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (b"00Q", FaultKind.UNSUPPORTED),
        (b"00", FaultKind.UNSUPPORTED),
        (b"000S", FaultKind.UNSUPPORTED),
        (b"00A", FaultKind.UNSUPPORTED),
        (b"00A?", FaultKind.UNSUPPORTED),
        (b"00A?SX", FaultKind.UNSUPPORTED),
        (b"00s", FaultKind.UNSUPPORTED),
        (b"00S\x01", FaultKind.GARBLED),
        (b"00S\xe9", FaultKind.GARBLED),
    ],
)
def test_what_is_no_reply_is_refused_and_not_guessed_at(text, kind):
    reply = codec.decode(b"\x02" + text + b"\x03")
    assert isinstance(reply, Unreadable)
    assert reply.kind is kind


def test_a_safe_packet_goes_by_its_length_even_where_its_crc_looks_like_an_end_or_a_start():
    assert b"\x03" in bytes_of("S13")[:-1]
    assert b"\x02" in bytes_of("S14")[1:]
    for name in ("S13", "S14"):
        assert reader()(bytes_of(name)) == [reply_of(FRAMES[name]["fields"], is_safe=True)]


NEARLY = st.lists(
    st.sampled_from(
        [b"\x02", b"\x03", b"\x0d", b"\x05", b"\x09", b"00", b"S", b"A?", b"I1.0", b"45.00MH", b"\xff"]
    )
).map(b"".join)


@given(data=st.one_of(NEARLY, st.binary(max_size=120)))
def test_whatever_is_in_a_frame_the_decoder_answers_and_raises_nothing(data):
    assert codec.decode(data) is not None
    assert codec.decode(b"\x02" + data + b"\x03") is not None
    packet = b"\x02" + bytes([min(len(data) + 4, 255)]) + data
    assert codec.decode(packet + binascii.crc_hqx(data, 0).to_bytes(2, "big") + b"\x03") is not None
    text = data.decode("latin-1")
    assert query_of(text) in (None, *Query)


@given(noise=st.one_of(NEARLY, st.binary(max_size=300)))
def test_after_any_garbage_the_next_good_reply_is_read_at_once(noise):
    assert reader()(noise + bytes_of("B10R"))[-1] == reply_of(FRAMES["B10R"]["fields"], is_safe=False)


@given(pieces=st.lists(st.one_of(NEARLY, st.binary(max_size=90))))
def test_a_stream_is_cut_and_never_filtered_however_it_was_divided(pieces):
    stream, whole = codec.stream(), codec.stream()
    cuts = []
    for piece in pieces:
        cuts += stream.feed(piece)
        assert stream.buffered_bytes < codec.FRAME_LIMIT_BYTES
    assert whole.feed(b"".join(pieces)) == cuts
    assert b"".join(cut.data for cut in cuts + stream.flush()) == b"".join(pieces)


@given(
    data=st.text(alphabet="0123456789.IWML", min_size=1, max_size=20),
    bit=st.integers(0, 7),
    place=st.integers(0),
)
def test_no_safe_packet_with_a_flipped_bit_in_its_data_is_taken_for_true(data, bit, place):
    packet = bytearray(safe("I" + data))
    packet[2 + place % (len(packet) - 5)] ^= 1 << bit
    reply = codec.decode(bytes(packet))
    assert isinstance(reply, Unreadable)
    assert reply.kind is FaultKind.GARBLED
