"""The frames of the Fresenius protocol, against the hand-checked ones and against anything else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.framing import CutKind
from drivers.fresenius import codec
from drivers.fresenius.codec import (
    Acknowledged,
    Answer,
    Command,
    Empty,
    LineCheck,
    NotAcknowledged,
    Refusal,
    Spontaneous,
    Unreadable,
)
from drivers.reading import FaultKind
from tests.drivers.fresenius_pump import FRAMES, bytes_of, framed
from tests.drivers.three_ways import Hear, hears_three_ways

PUMP_FRAMES = [name for name, frame in FRAMES.items() if frame["direction"] == "pump"]
HOST_COMMANDS = [
    name
    for name, frame in FRAMES.items()
    if frame["direction"] == "host" and frame["expected"] == "ok" and frame["fields"][1:] not in ([], ["E"])
]
ADDRESSES = (None, 0, 1, 2, 3, 4, 5)
NEVER_SEND = [
    *("MO;1", "MO;2", "RZ", "OF", "SI", "EP;3", "AP;1", "EN;7", "PR;1F40", "PO", "PB;0064", "PF"),
    *("PV;0001F4", "RV", "PP;5", "PS;1", "PR", "PV", "PP", "PS", "MO", "EP", "AP", "EN", "PB"),
]
"""Commands that change the pump."""


def meaning(fields: list[str]) -> object:
    """What a frame with these fields says."""
    match fields:
        case ["ACK"]:
            return Acknowledged()
        case ["ENQ"]:
            return LineCheck()
        case ["NAK", reason]:
            return NotAcknowledged(reason)
    address = int(fields[0]) if fields[0] else None
    if fields[1] == "I":
        return Refusal(address=address, code=fields[2])
    items = tuple((item[0], item[1:].encode()) for item in fields[2:])
    if fields[1] == "E":
        return Spontaneous(address=address, letter="E", items=items)
    assert fields[1] == "C"
    return Answer(address=address, items=items)


def reader() -> Hear[object]:
    """Bytes to what they say; what cannot be read comes out as the bytes themselves."""
    stream = codec.stream()

    def hear(data: bytes) -> list[object]:
        told: list[object] = []
        for cut in stream.feed(data):
            said = codec.decode(cut.data) if cut.kind is CutKind.FRAME else None
            if said != Empty():
                told.append(cut.data if said is None or isinstance(said, Unreadable) else said)
        return told

    return hear


@pytest.mark.parametrize("name", PUMP_FRAMES)
def test_every_hand_checked_frame_of_a_pump_is_read_whole_byte_by_byte_and_with_the_next_behind_it(name):
    frame = FRAMES[name]
    expected: list[object] = []
    if frame["expected"] == "reject":
        expected = [bytes_of(name)]
    elif frame["expected"] == "ok":
        rejected = bytes.fromhex(frame.get("rejected", ""))
        before = [meaning(frame["before"])] if "before" in frame else []
        expected = [*([rejected] if rejected else []), *before, meaning(frame["fields"])]
    hears_three_ways(reader, bytes_of(name), expected, next_frame=bytes_of("F13"))


@pytest.mark.parametrize("name", HOST_COMMANDS)
def test_every_hand_checked_command_is_written_as_it_stands(name):
    address, *text = FRAMES[name]["fields"]
    written = codec.encode(int(address) if address else None, Command(";".join(text)))
    assert written == bytes_of(name)
    assert written in codec.COMMAND_FRAMES


def test_the_hand_checked_acknowledgement_of_a_message_is_written_as_it_stands():
    assert codec.encode_seen(1, "E") == bytes_of("F17")


@pytest.mark.parametrize("name", [name for name, frame in FRAMES.items() if frame["expected"] == "ok"])
def test_the_frames_of_the_test_pump_are_the_hand_checked_ones(name):
    frame = FRAMES[name]
    if len(frame["fields"]) > 1 and frame["fields"][0] != "NAK" and "before" not in frame and name != "Y4":
        address, *text = frame["fields"]
        assert framed(address + ";".join(text)) == bytes_of(name)[len(frame.get("rejected", "")) // 2 :]


def test_the_vendors_example_of_a_checksum():
    assert codec.checksum(b"PR;1F40") == b"47"


def test_the_address_is_covered_by_the_checksum():
    assert codec.checksum(b"1C;d01F4") == b"11"
    said = codec.decode(b"\x021C;d01F4" + codec.checksum(b"C;d01F4") + b"\x03")
    assert said == Unreadable(kind=FaultKind.GARBLED, detail="the checksum does not fit")


# Values


@pytest.mark.parametrize(
    ("message", "rate_ml_h"),
    [
        ("1C;d01F4", 50.0),
        ("1C;d1F40", 800.0),
        ("C;d0064", 10.0),
        ("1C;d1F4", 50.0),
        ("1C;d000001f4", 50.0),
        ("1C;d0", 0.0),
        ("1C;r0003C9;d0001", 0.1),
        ("1C;dFFFFFFFF", 429_496_729.5),
    ],
)
def test_a_rate_is_hexadecimal_tenths_of_any_width(message, rate_ml_h):
    said = codec.decode(framed(message))
    assert isinstance(said, Answer)
    assert said.rate_ml_h == rate_ml_h


@pytest.mark.parametrize(
    ("message", "volume_ml"),
    [("1C;r0003C9", 0.969), ("1C;r3C9", 0.969), ("1C;d01F4;r00000000", 0.0), ("C;r1", 0.001)],
)
def test_a_volume_is_hexadecimal_thousandths_of_any_width(message, volume_ml):
    said = codec.decode(framed(message))
    assert isinstance(said, Answer)
    assert said.volume_ml == volume_ml


@pytest.mark.parametrize(
    ("mask", "modules"), [("00", ()), ("05", (1, 3)), ("1F", (1, 2, 3, 4, 5)), ("0010", (5,)), ("E1", (1,))]
)
def test_the_mask_has_a_bit_for_each_module(mask, modules):
    said = codec.decode(framed(f"0C;b{mask}"))
    assert isinstance(said, Answer)
    assert said.modules == modules


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("1C", "0 values of 'd', one is known"),
        ("1C;d0001;d0002", "2 values of 'd', one is known"),
        ("1C;d", "is not a hexadecimal number"),
        ("1C;d-001", "is not a hexadecimal number"),
        ("1C;d 001", "is not a hexadecimal number"),
        ("1C;d0x01", "is not a hexadecimal number"),
        ("1C;d1_0", "is not a hexadecimal number"),
        ("1C;d123456789", "is not a hexadecimal number"),
    ],
)
def test_a_value_in_a_form_we_do_not_know_is_none(message, words):
    said = codec.decode(framed(message))
    assert isinstance(said, Answer)
    with pytest.raises(ValueError, match=words):
        _ = said.rate_ml_h


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("1X;d01F4", "'X' is no status that we know"),
        ("1", "'' is no status that we know"),
        ("12C;d01F4", "'2C' is no status that we know"),
        ("CC", "'CC' is no status that we know"),
        ("1I", "an error without a code of two characters"),
        ("1I;1E;2", "an error without a code of two characters"),
        ("1I;1", "an error without a code of two characters"),
        ("1C;d\xe91F4", "not printable ASCII"),
    ],
)
def test_an_intact_frame_that_says_something_unknown_is_unsupported_and_not_guessed_at(message, words):
    assert codec.decode(framed(message)) == Unreadable(kind=FaultKind.UNSUPPORTED, detail=words)


def test_every_error_of_the_table_has_its_words_and_others_are_passed_on():
    assert codec.decode(framed("3I;9Z")) == Refusal(address=3, code="9Z")
    assert len(codec.REFUSED) == 25


@pytest.mark.parametrize("place", range(len(bytes_of("F13")) + 1))
def test_a_line_check_may_stand_anywhere_and_is_no_part_of_what_is_said(place):
    heard = bytes_of("F13")[:place] + b"\x05" + bytes_of("F13")[place:]
    said = [one for one in reader()(heard) if one != LineCheck()]
    assert said == [meaning(FRAMES["F13"]["fields"])]


def test_an_acknowledgement_within_a_frame_ends_the_frame_and_is_heard():
    assert reader()(b"\x021C;d0\x06" + bytes_of("F9")) == [
        b"\x021C;d0",
        Acknowledged(),
        meaning(FRAMES["F9"]["fields"]),
    ]


def test_a_reason_that_did_not_come_is_not_taken_from_the_next_frame():
    assert reader()(b"\x15" + bytes_of("F9")) == [b"\x15", meaning(FRAMES["F9"]["fields"])]


# What may be written


@pytest.mark.parametrize("text", NEVER_SEND)
@pytest.mark.parametrize("address", ["", "0", "1", "5"])
def test_no_command_that_changes_the_pump_may_be_sent(text, address):
    assert not codec.is_harmless(framed(address + text))
    assert not codec.is_harmless(b"\x14\x06" + framed(address + text))


def test_the_vendors_own_example_may_not_be_sent():
    assert FRAMES["F27"]["expected"] == "never"
    assert not codec.is_harmless(bytes_of("F27"))


@pytest.mark.parametrize("address", ADDRESSES)
def test_the_commands_that_read_open_and_close_may_be_sent(address):
    for text in ("DC", "FC", "LE;b", "LE;d", "LE;r", "LE;dr", "LF;b", "DE;r", "AE", "E", "M"):
        assert codec.is_harmless(framed(("" if address is None else str(address)) + text))


@pytest.mark.parametrize(
    ("data", "harmless"),
    [
        (b"\x14", True),
        (b"\x06", True),
        (b"\x152", True),
        (b"\x14\x06" + framed("1E") + framed("1LE;dr"), True),
        (b"", False),
        (b"\x15", False),
        (b"\x05", False),
        (b"\x156", False),
        (b"\x06\x14", False),
        (framed("6DC"), False),
        (framed("1LE;a"), False),
        (framed("1DC;1"), False),
        (framed("1LE"), False),
        (framed("1DC") + framed("1LE;d"), False),
        (framed("1LE;d") + framed("1E"), False),
        (framed("1DC")[:-1], False),
        (b"\x02\x03", False),
        (b"\x021DC00\x03", False),
        (framed("1DC") + b"x", False),
    ],
)
def test_nothing_but_answers_of_the_line_and_one_whole_command_may_be_sent(data, harmless):
    assert codec.is_harmless(data) is harmless


# Anything

NEARLY = st.lists(
    st.sampled_from(["", "0", "1", "9", "C", "I", "E", "M", ";", "d01F4", "r", "1E", "\x00", "\x05", "é"])
).map(lambda words: "".join(words).encode("utf-8"))


@given(message=st.one_of(NEARLY, st.binary(max_size=100)))
def test_whatever_is_in_a_frame_the_decoder_answers_and_raises_nothing(message):
    assert codec.decode(framed(message)) is not None
    assert codec.decode(b"\x02" + message + b"\x03") is not None
    assert codec.decode(message) is not None


@given(
    message=st.from_regex(r"[0-5][CE](;[dr][0-9A-F]{1,6}){1,2}", fullmatch=True),
    place=st.integers(0, 100),
    bit=st.integers(0, 6),
)
def test_no_message_with_one_flipped_bit_is_taken_for_true(message, place, bit):
    frame = bytearray(framed(message))
    frame[1 + place % len(message)] ^= 1 << bit
    told = reader()(bytes(frame))
    assert not any(isinstance(said, Answer | Spontaneous) for said in told)


@given(noise=st.one_of(st.binary(max_size=400), NEARLY))
def test_after_any_garbage_the_next_good_frame_is_read(noise):
    assert reader()(noise + bytes_of("F13"))[-1] == meaning(FRAMES["F13"]["fields"])
