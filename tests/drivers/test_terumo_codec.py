"""The frames of the Terumo SS3 protocol, against the hand-checked ones and against anything else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from drivers.framing import CutKind
from drivers.reading import FaultKind
from drivers.terumo import codec
from drivers.terumo.codec import AlarmBit, DeviceId, Operation, Refused, Status, Unreadable
from tests.drivers.terumo_pump import DEVICE_ID, FRAMES, block_of, bytes_of, framed, packet, status
from tests.drivers.three_ways import Hear, hears_three_ways

PUMP_FRAMES = [name for name, frame in FRAMES.items() if frame["direction"] == "pump"]
HOST_FRAMES = [name for name, frame in FRAMES.items() if frame["direction"] == "host"]
STATUS_FRAMES = [name for name in PUMP_FRAMES if FRAMES[name].get("fields", {}).get("kind") == "status"]


def meaning(name: str) -> codec.Reply:
    """What the file says of a good frame."""
    fields = dict(FRAMES[name]["fields"])
    kind = fields.pop("kind")
    if kind == "device_id":
        return DeviceId(**fields)
    if kind == "refused":
        return Refused(**fields)
    fields["operation"] = Operation[fields["operation"].upper()]
    if "alarms" in fields:
        fields["alarms"] = frozenset(AlarmBit(bit) for bit in fields["alarms"])
    vtbi = fields.pop("vtbi", None)
    fields["vtbi_infinite"] = vtbi == "infinite"
    fields["vtbi_ml"] = vtbi if isinstance(vtbi, float) else None
    for name_of_field in ("weight_kg", "dilution"):
        fields[name_of_field] = fields.get(name_of_field) or None
    if fields["byte_count"] < 34:
        fields["not_understood"] = (f"the reply has {fields['byte_count']} bytes, and 34 are known",)
    return Status(**fields)


def reader() -> Hear[object]:
    """Bytes to replies; what cannot be read comes out as the bytes themselves."""
    stream = codec.stream()

    def hear(data: bytes) -> list[object]:
        told: list[object] = []
        for cut in stream.feed(data):
            reply = codec.decode(cut.data) if cut.kind is CutKind.FRAME else None
            told.append(cut.data if reply is None or isinstance(reply, Unreadable) else reply)
        return told

    return hear


def read(frame: bytes) -> Status:
    reply = codec.decode(frame)
    assert isinstance(reply, Status)
    return reply


@pytest.mark.parametrize("name", [name for name in PUMP_FRAMES if not FRAMES[name].get("unfinished")])
def test_every_hand_checked_frame_of_a_pump_is_read_whole_byte_by_byte_and_with_the_next_behind_it(name):
    frame = FRAMES[name]
    expected: list[object] = [bytes_of(name)]
    if frame["expected"] == "ok":
        rejected = bytes.fromhex(frame.get("rejected", ""))
        expected = [*([rejected] if rejected else []), meaning(name)]
    hears_three_ways(reader, bytes_of(name), expected, next_frame=bytes_of("T2"))


def test_a_frame_without_its_end_is_given_up_when_nothing_more_is_expected_or_another_begins():
    stream = codec.stream()
    assert stream.feed(bytes_of("V3")) == []
    [cut] = stream.flush()
    assert (cut.kind, cut.data) == (CutKind.BROKEN, bytes_of("V3"))
    assert reader()(bytes_of("V3") + bytes_of("T2")) == [bytes_of("V3"), meaning("T2")]


def test_the_hand_checked_queries_are_written_as_they_stand():
    assert bytes_of("T1") == codec.DEVICE_ID_QUERY
    assert codec.encode_status_query(DEVICE_ID, 1) == bytes_of("T3")
    assert set(HOST_FRAMES) == {"T1", "T3"}
    assert all(codec.is_query(bytes_of(name)) for name in HOST_FRAMES)


@pytest.mark.parametrize("name", PUMP_FRAMES)
def test_no_frame_of_a_pump_is_a_query(name):
    assert not codec.is_query(bytes_of(name))


def test_the_crc_has_its_published_check_value():
    assert codec.crc(b"123456789") == 0x31C3


@pytest.mark.parametrize("name", [name for name in FRAMES if FRAMES[name]["expected"] == "ok"])
def test_the_frames_of_the_test_pump_are_the_hand_checked_ones(name):
    said = bytes_of(name)[len(bytes.fromhex(FRAMES[name].get("rejected", ""))) :]
    assert framed(said[1:-5]) == said


@pytest.mark.parametrize("sequence", [-1, 0x00, 0x7F, 0x80, 0xFE, 0xFF, 300])
def test_a_number_that_is_not_ours_to_use_is_not_written(sequence):
    with pytest.raises(ValueError, match="is not between 1 and 126"):
        codec.encode_status_query(DEVICE_ID, sequence)


@pytest.mark.parametrize("name", ["", "<CMD>", "0001 0070", "0001\n", "é", "x" * 41, "a&b", "1</DEVID>"])
def test_what_cannot_be_a_device_id_is_neither_written_nor_read(name):
    with pytest.raises(ValueError, match="is no device ID"):
        codec.encode_status_query(name, 1)
    assert isinstance(codec.decode(packet("REP", name.encode("latin-1").decode("latin-1"))), Unreadable)


# What a value means


def test_replies_of_51_and_of_87_bytes_and_longer_ones_are_read_and_what_is_behind_is_not_interpreted():
    assert {len(block_of(bytes_of(name))) for name in STATUS_FRAMES} >= {51, 87}
    plain = read(bytes_of("T5"))
    longer = read(packet("REP", DEVICE_ID, block_of(bytes_of("T5")) + b"\xff" * 400))
    assert structs.replace(longer, byte_count=87) == plain
    other_tail = packet("REP", DEVICE_ID, block_of(bytes_of("T5"))[:34] + b"\xa5" * 53)
    assert read(other_tail) == plain


@pytest.mark.parametrize("length", range(5, 34))
def test_a_reply_that_is_cut_short_says_what_it_says_and_its_missing_fields_are_absent(length):
    whole, cut = read(bytes_of("E5")), read(status("E5", length=length))
    assert cut.not_understood == (f"the reply has {length} bytes, and 34 are known",)
    ends = {
        "software": 7,
        "operation": 8,
        "alarms": 13,
        "battery_bars": 14,
        "on_mains": 14,
        "alarm_sounds": 15,
        "syringe_ml": 16,
        "set_rate_ml_h": 19,
        "volume_ml": 22,
        "dose": 28,
        "dose_unit": 29,
        "weight_kg": 31,
        "dilution": 34,
    }
    for field, end in ends.items():
        assert getattr(cut, field) == (getattr(whole, field) if length >= end else None), field


@pytest.mark.parametrize("monitor", [0b0000_0100, 0b0100_0000, 0b1000_0000, 0b1100_0100])
def test_the_reserved_bits_of_the_monitor_byte_are_ignored(monitor):
    assert read(status("T5", at_14=bytes([monitor]))) == read(bytes_of("T5"))


def test_the_bits_of_the_monitor_byte_are_read_one_by_one():
    said = read(status("T5", at_14=bytes([0b0011_1010])))
    assert (said.occlusion_percent, said.alarm_sounds, said.keypad_locked, said.plunger_not_set) == (
        50,
        True,
        True,
        True,
    )


@pytest.mark.parametrize("nibble", range(16))
def test_the_state_is_in_the_upper_half_of_its_byte_and_the_lower_half_is_ignored(nibble):
    said = [read(status("T5", at_7=bytes([nibble << 4 | low]))) for low in (0x0, 0xF)]
    assert said[0] == said[1]
    assert said[0].operation == (nibble if nibble <= 5 else None)
    assert said[0].not_understood == (() if nibble <= 5 else (f"state {nibble} is reserved",))


@pytest.mark.parametrize("bit", range(24))
def test_each_alarm_bit_is_told_apart_and_reserved_ones_are_left_out(bit):
    said = read(status("T5", at_10=(1 << bit).to_bytes(3, "big")))
    assert said.alarms == (frozenset() if bit in (9, 10, 11, 12, 14) else {bit})


@pytest.mark.parametrize(
    ("power", "bars", "on_mains", "sub_battery_normal"),
    [
        (0x55, 5, True, True),
        (0x41, 1, False, True),
        (0x42, 2, False, True),
        (0x95, 5, True, False),
        (0x50, None, True, True),
        (0x56, None, True, True),
        (0x65, 5, None, True),
        (0x15, 5, True, None),
    ],
)
def test_bars_of_the_battery_mains_and_sub_battery_are_read_from_one_byte(
    power, bars, on_mains, sub_battery_normal
):
    said = read(status("T5", at_13=bytes([power])))
    assert (said.battery_bars, said.on_mains, said.sub_battery_normal) == (bars, on_mains, sub_battery_normal)


@pytest.mark.parametrize(
    ("place", "value", "field", "told"),
    [
        ("at_16", b"\x00\x00\x01", "set_rate_ml_h", 0.01),
        ("at_16", b"\x01\xd4\xc0", "set_rate_ml_h", 1_200.0),
        ("at_19", b"\x00\x00\x00", "volume_ml", 0.0),
        ("at_19", b"\xff\xff\xff", "volume_ml", 167_772.15),
        ("at_22", b"\xff\xff\xff", "vtbi_ml", None),
        ("at_22", b"\xee\xee\xee", "vtbi_ml", None),
        ("at_22", b"\x00\x00\x01", "vtbi_ml", 0.1),
        ("at_29", b"\xff\xff", "weight_kg", None),
        ("at_29", b"\x02\xbc", "weight_kg", 70.0),
        ("at_31", b"\x00\x00\x00", "dilution", None),
        ("at_31", b"\x00\x03\xe8", "dilution", 10.0),
        ("at_15", b"\x00", "syringe_ml", None),
        ("at_15", b"\x02", "syringe_ml", 5.0),
        ("at_15", b"\x01", "syringe_ml", None),
        ("at_28", b"\x04", "dose_unit", "ug/kg/min"),
        ("at_28", b"\x08", "dose_unit", "mg/kg/h"),
        ("at_28", b"\x01", "dose_unit", None),
    ],
)
def test_a_value_that_is_not_used_is_none_and_never_a_number(place, value, field, told):
    assert getattr(read(status("T5", **{place: value})), field) == told


def test_infinite_and_not_used_are_two_things():
    assert read(status("T5", at_22=b"\xff\xff\xff")).vtbi_infinite
    assert not read(status("T5", at_22=b"\xee\xee\xee")).vtbi_infinite


@pytest.mark.parametrize(
    ("result", "words"),
    [
        (0x11, "command not known"),
        (0x12, "cannot be executed now"),
        (0x13, "message too short"),
        (0x14, "message too long"),
        (0x15, "parameter out of range"),
        (0x16, "a result that we do not know"),
        (0xFF, "a result that we do not know"),
    ],
)
def test_a_result_other_than_done_is_a_refusal_and_never_a_status(result, words):
    for tail in (b"", b"\x01\x00\x00", block_of(bytes_of("T5"))[5:]):
        reply = codec.decode(packet("REP", DEVICE_ID, bytes([5, 1, 0, 0, result]) + tail))
        assert isinstance(reply, Refused)
        assert (reply.result, reply.words) == (result, words)


# What is not a reply

BLOCK = "<CMD>AQEAAAAEAxAQAAAA</CMD>"
HEAD = '<?xml version="1.0"?>'


@pytest.mark.parametrize(
    "text",
    [
        "",
        HEAD,
        f"<REP><DEVID>{DEVICE_ID}</DEVID></REP>",
        f"{HEAD}<REP><DEVID></DEVID></REP>",
        f"{HEAD}<REP></REP>",
        f"{HEAD}<REP><DEVID>{DEVICE_ID}</DEVID>{BLOCK}{BLOCK}</REP>",
        f"{HEAD}<REP>{BLOCK}<DEVID>{DEVICE_ID}</DEVID></REP>",
        f"{HEAD}<REQ><DEVID>{DEVICE_ID}</DEVID>{BLOCK}</REQ>",
        f"{HEAD}<REP><DEVID>{DEVICE_ID}</DEVID> {BLOCK}</REP>",
        f"{HEAD}\n<REP><DEVID>{DEVICE_ID}</DEVID>{BLOCK}</REP>",
        f"{HEAD}<REP><DEVID>{DEVICE_ID}</DEVID>{BLOCK}</REP>\n",
        f"{HEAD}<REP><DEVID>{DEVICE_ID}</DEVID>{BLOCK}</REP><REP></REP>",
        f"{HEAD}<REP a='1'><DEVID>{DEVICE_ID}</DEVID>{BLOCK}</REP>",
        f"{HEAD}<rep><DEVID>{DEVICE_ID}</DEVID>{BLOCK}</rep>",
        f"{HEAD}<!DOCTYPE REP><REP><DEVID>{DEVICE_ID}</DEVID>{BLOCK}</REP>",
        f'{HEAD}<!DOCTYPE r [<!ENTITY a "b">]><REP><DEVID>&a;</DEVID>{BLOCK}</REP>',
        f"{HEAD}<REP><DEVID>&#48;</DEVID>{BLOCK}</REP>",
        f"{HEAD}<REP><DEVID><![CDATA[1]]></DEVID>{BLOCK}</REP>",
        f"{HEAD}<!-- --><REP><DEVID>{DEVICE_ID}</DEVID>{BLOCK}</REP>",
        f'<?xml version="1.1"?><REP><DEVID>{DEVICE_ID}</DEVID>{BLOCK}</REP>',
        f'<?xml version="1.0" encoding="UTF-8"?><REP><DEVID>{DEVICE_ID}</DEVID>{BLOCK}</REP>',
        f"{HEAD}<REP><DEVID>{DEVICE_ID}</DEVID><CMD/></REP>",
        *(
            f"{HEAD}<REP><DEVID>{DEVICE_ID}</DEVID><CMD>{command}</CMD></REP>"
            for command in (
                "",
                "A",
                "AQEAAAA",
                "====",
                "AQ==AAAA",
                "AQEA AAAE",
                "AQEAAAAEAx\r\nAQAAAA",
                "AQEA_AAE",
                "AQEAé",
            )
        ),
        f"{HEAD}<REP><DEVID>{DEVICE_ID}</DEVID><CMD>AQEAAA==</CMD></REP>",  # four bytes: no result
        f"{HEAD}<REP><DEVID>{DEVICE_ID}</DEVID><CMD>AQIAAAA=</CMD></REP>",  # command 02
        f"{HEAD}<REP><DEVID>{DEVICE_ID}</DEVID><CMD>AQEAAQA=</CMD></REP>",  # sub command 0001
    ],
)
def test_an_intact_frame_in_another_form_is_unsupported_and_not_guessed_at(text):
    reply = codec.decode(framed(text))
    assert isinstance(reply, Unreadable)
    assert reply.kind is FaultKind.UNSUPPORTED


@pytest.mark.parametrize(
    "data",
    [
        b"",
        bytes_of("T1") * 2,
        bytes_of("T1")[:-1],
        bytes_of("T3") + b"\x00",
        bytes_of("T3").replace(b"A9A4", b"A9A5"),
        bytes_of("T3").replace(b"A9A4", b"a9a4"),
        packet("REQ", DEVICE_ID),
        packet("REQ", DEVICE_ID, bytes([1, 1, 0, 0, 0])),
        packet("REQ", DEVICE_ID, bytes([1, 1, 0])),
        packet("REQ", "", bytes([1, 1, 0, 0])),
        packet("REP", DEVICE_ID, bytes([1, 1, 0, 0])),
        *(packet("REQ", DEVICE_ID, bytes([number, 1, 0, 0])) for number in (0x00, 0x7F, 0x80, 0xFE, 0xFF)),
        *(packet("REQ", DEVICE_ID, bytes([1, command, 0, 0])) for command in range(256) if command != 1),
        *(packet("REQ", DEVICE_ID, bytes([1, 1, high, low])) for high, low in ((0, 1), (1, 0), (255, 255))),
        # Base64 of the right bytes with other bits in its last letter
        framed(f"{HEAD}<REQ><DEVID>{DEVICE_ID}</DEVID><CMD>AQEAAB==</CMD></REQ>"),
    ],
)
def test_nothing_but_the_two_queries_is_a_query(data):
    assert not codec.is_query(data)


@given(number=st.integers(1, 0x7E), name=st.from_regex(r"[0-9A-Za-z]{1,40}", fullmatch=True))
def test_every_query_that_is_written_is_one_that_the_pump_understands(number, name):
    written = codec.encode_status_query(name, number)
    assert written == packet("REQ", name, bytes([number, 1, 0, 0]))
    assert codec.is_query(written)


# Texts that are nearly right try more of the decoder than noise does.
NEARLY = st.lists(
    st.sampled_from(
        [
            HEAD,
            "<REP>",
            "</REP>",
            "<DEVID>",
            "</DEVID>",
            DEVICE_ID,
            "<CMD>",
            "</CMD>",
            "AQEAAAAE",
            "=",
            "&",
            "é",
        ]
    )
).map(lambda words: "".join(words).encode("utf-8"))
ANY_BLOCK = st.binary(max_size=100).map(lambda block: packet("REP", DEVICE_ID, block))


@given(text=st.one_of(NEARLY, st.binary(max_size=300)), frame=ANY_BLOCK)
def test_whatever_is_in_a_frame_the_decoder_answers_and_raises_nothing(text, frame):
    assert codec.decode(frame) is not None
    assert codec.decode(framed(text)) is not None
    assert codec.decode(b"\x02" + text + b"\x03") is not None
    assert codec.decode(text) is not None


@given(places=st.sets(st.integers(1, len(bytes_of("T5")) - 6), min_size=1, max_size=3), bit=st.integers(0, 7))
def test_no_reply_with_one_two_or_three_flipped_bits_is_taken_for_true(places, bit):
    frame = bytearray(bytes_of("T5"))
    for place in places:
        frame[place] ^= 1 << bit
    reply = codec.decode(bytes(frame))
    assert isinstance(reply, Unreadable)
    assert reply.kind is FaultKind.GARBLED


@given(noise=st.one_of(st.binary(max_size=2_500), NEARLY))
def test_after_any_garbage_the_next_good_frame_is_read(noise):
    assert reader()(noise + bytes_of("T5"))[-1] == meaning("T5")
