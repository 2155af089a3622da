"""The frames of the Sapphire protocol, against the hand-checked ones and against anything else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.framing import Cut, CutKind
from drivers.reading import FaultKind
from drivers.sapphire import codec
from drivers.sapphire.codec import Batch, MessageType, OtherMessage, Unreadable, Who
from tests.drivers.sapphire_pump import FRAMES, batch, bytes_of, framed
from tests.drivers.three_ways import Hear, hears_three_ways

PUMP_FRAMES = [name for name, frame in FRAMES.items() if frame["direction"] == "pump"]
HOST_FRAMES = [name for name, frame in FRAMES.items() if frame["direction"] == "host"]


def meaning(name: str) -> Batch:
    """What the file of frames says of one batch, in units instead of steps."""
    fields = FRAMES[name]["fields"]

    def steps(field: str, in_one: int) -> float | None:
        return fields[field] / in_one if field in fields else None

    return Batch(
        sequence=fields["sequence"],
        version=fields.get("version"),
        serial=fields.get("serial"),
        drop_size=fields.get("drop_size"),
        rate_ml_h=steps("rate", 10),
        vtbi_ml=steps("left", 100),
        volume_ml=steps("infused", 100),
    )


def reader(check: bool = True) -> Hear[object]:
    """Bytes to batches; what cannot be read comes out as the bytes themselves, other messages do not."""
    stream = codec.stream(check=check)

    def hear(data: bytes) -> list[object]:
        told: list[object] = []
        for cut in stream.feed(data):
            message = codec.decode(cut.data, check=check) if cut.kind is CutKind.FRAME else None
            if message is None or isinstance(message, Unreadable):
                told.append(cut.data)
            elif isinstance(message, Batch):
                told.append(message)
        return told

    return hear


@pytest.mark.parametrize("name", [name for name in PUMP_FRAMES if name != "Z6"])
def test_every_hand_checked_frame_of_a_pump_is_read_whole_byte_by_byte_and_with_the_next_behind_it(name):
    frame = FRAMES[name]
    expected: list[object] = []
    if frame["expected"] == "reject":
        expected = [bytes_of(name)]
    elif frame["expected"] == "ok":
        rejected = bytes.fromhex(frame.get("rejected", ""))
        expected = [*([rejected] if rejected else []), meaning(name)]
    hears_three_ways(reader, bytes_of(name), expected, next_frame=bytes_of("Q5"))


def test_a_size_above_the_limit_is_refused_and_not_waited_for():
    data = bytes_of("Z6") + bytes_of("Q6")
    hears_three_ways(reader, data, [bytes_of("Z6"), meaning("Q6")], next_frame=bytes_of("Q5"))


@pytest.mark.parametrize(("size", "is_read"), [(codec.DATA_LIMIT_BYTES, True), (1_025, False)])
def test_the_limit_of_the_size_is_exact(size, is_read):
    told = reader()(batch(size=size) + bytes_of("Q5"))
    assert [type(one) for one in told if isinstance(one, Batch)] == [Batch] * (1 + is_read)


def test_what_the_frames_say_is_what_one_would_see_on_the_display():
    assert meaning("Q5") == Batch(
        sequence=0,
        version=66_051,
        serial=1_234_567,
        drop_size=50,
        rate_ml_h=100.0,
        vtbi_ml=50.0,
        volume_ml=12.34,
    )
    assert codec.decode(bytes_of("Q6")).rate_ml_h == 0.0


def test_the_size_is_big_endian_and_has_two_bytes():
    message = codec.decode(bytes_of("Q7"))
    assert isinstance(message, Batch)
    assert len(bytes_of("Q7")) == 8 + 0x012C + 1


def test_serial_version_and_volumes_are_unsigned():
    highest = 0xFFFF_FFFF
    message = codec.decode(batch(serial=highest, version=highest, left=highest, infused=highest, rate=0xFFFF))
    assert isinstance(message, Batch)
    assert (message.serial, message.version) == (highest, highest)
    assert (message.vtbi_ml, message.volume_ml) == (42_949_672.95, 42_949_672.95)
    assert message.rate_ml_h == 6_553.5


@pytest.mark.parametrize("name", HOST_FRAMES)
def test_every_hand_checked_keep_alive_is_written_as_it_stands_and_no_other_command_can_be(name):
    fields = FRAMES[name]["fields"]
    assert (codec.keep_alive(fields["sequence"]) == bytes_of(name)) is (fields["command"] == 22)
    assert (bytes_of(name) in codec.KEEP_ALIVE_FRAMES) is (fields["command"] == 22)


def test_there_are_256_frames_that_can_be_written_and_after_255_comes_0():
    assert len(codec.KEEP_ALIVE_FRAMES) == 256
    assert codec.keep_alive(256) == codec.keep_alive(0) == bytes_of("Q1")


@pytest.mark.parametrize("name", [name for name in PUMP_FRAMES if FRAMES[name]["expected"] == "ok"])
def test_the_batches_of_the_test_pump_are_the_hand_checked_ones(name):
    fields = dict(FRAMES[name]["fields"])
    fields.pop("drop_size")
    if name == "Z7":
        assert framed(bytes(100), sequence=3) == bytes_of(name)
        return
    rejected = bytes.fromhex(FRAMES[name].get("rejected", ""))
    assert rejected + batch(size=FRAMES[name]["data_bytes"], **fields) == bytes_of(name)


@pytest.mark.parametrize(
    ("size", "reported"),
    [
        (0, set()),
        (37, set()),
        (38, {"version"}),
        (42, {"version", "serial"}),
        (47, {"version", "serial", "drop_size"}),
        (48, {"version", "serial", "drop_size"}),
        (49, {"version", "serial", "drop_size", "rate_ml_h"}),
        (166, {"version", "serial", "drop_size", "rate_ml_h"}),
        (167, {"version", "serial", "drop_size", "rate_ml_h", "vtbi_ml"}),
        (170, {"version", "serial", "drop_size", "rate_ml_h", "vtbi_ml"}),
        (171, {"version", "serial", "drop_size", "rate_ml_h", "vtbi_ml", "volume_ml"}),
    ],
)
def test_a_field_beyond_the_end_of_a_batch_is_none_and_never_zero(size, reported):
    message = codec.decode(batch(size=size))
    assert isinstance(message, Batch)
    fields = {name for name in Batch.__struct_fields__ if getattr(message, name) is not None}
    assert fields - {"sequence"} == reported


def test_a_message_of_another_type_is_told_from_a_batch_and_its_data_are_not_interpreted():
    assert codec.decode(bytes_of("Z8")) == OtherMessage(
        target=Who.PC, sender=Who.PUMP, type=MessageType.RESPONSE_TO_COMMAND, data=b"\x16\x00"
    )
    assert not codec.is_batch(bytes_of("Z8"))


@pytest.mark.parametrize(("to", "sender"), [(101, 101), (103, 103), (103, 100), (103, 102), (100, 101)])
def test_only_what_a_pump_sends_to_the_pc_is_a_batch(to, sender):
    frame = framed(bytes(171), to=to, sender=sender)
    assert not codec.is_batch(frame)
    assert isinstance(codec.decode(frame), OtherMessage)


@pytest.mark.parametrize(
    ("place", "byte", "words"),
    [
        (0, 0xBA, "no frame begins there"),
        (1, 99, "for nobody that we know"),
        (1, 104, "for nobody that we know"),
        (2, 1, "flags that we do not know"),
        (3, 0xBB, "from nobody that we know"),
        (4, 28, "a type that we do not know"),
        (5, 0x05, "more than 1024 bytes of data"),
        (6, 0xAC, "180 bytes are not one frame"),
        (100, 1, "the checksum does not fit"),
        (179, 0, "the checksum does not fit"),
    ],
)
def test_a_damaged_byte_makes_a_frame_garbled_and_the_reason_is_said(place, byte, words):
    frame = bytearray(bytes_of("Q5"))
    frame[place] = byte
    assert codec.decode(bytes(frame)) == Unreadable(kind=FaultKind.GARBLED, detail=words)


# A start byte where none begins


@pytest.mark.parametrize("noise", [b"\xbb", b"\xbb\xbb", b"\xbb\x67", b"\xbb\x67\x00\x65\x01", b"\xbb" * 30])
def test_a_start_byte_in_the_noise_costs_only_the_noise(noise):
    told = reader()(noise + bytes_of("Q6"))
    assert told[-1] == meaning("Q6")
    assert b"".join(one for one in told if isinstance(one, bytes)) == noise


def test_batches_full_of_start_bytes_are_each_read():
    frames = [batch(filler=0xBB, sequence=0xBB, infused=infused) for infused in range(50)]
    told = reader()(b"".join(frames))
    assert [one.volume_ml for one in told if isinstance(one, Batch)] == [n / 100 for n in range(50)]
    assert len(told) == 50


def test_a_whole_frame_in_the_data_of_another_is_data():
    inner = framed(b"\x01" * 40)
    data = bytearray(171)
    data[60 : 60 + len(inner)] = inner
    told = reader()(framed(bytes(data)))
    assert [type(one) for one in told] == [Batch]


@given(cut_at=st.integers(1, 179))
def test_after_a_frame_that_was_cut_off_anywhere_the_next_ones_are_read(cut_at):
    # Two of them: where the size was cut in half, its other half is taken from the next frame.
    told = reader()(bytes_of("Q5")[:cut_at] + bytes_of("Q6") + bytes_of("Q8"))
    assert told == [bytes_of("Q5")[:cut_at], meaning("Q6"), meaning("Q8")]


@given(missing_at=st.integers(1, 178))
def test_after_a_frame_that_lacks_a_byte_the_second_one_after_it_is_read(missing_at):
    damaged = bytes_of("Q5")[:missing_at] + bytes_of("Q5")[missing_at + 1 :]
    told = reader()(damaged + bytes_of("Q6") + bytes_of("Q6"))
    assert told[-1] == meaning("Q6")


# The checksum is inferred: it can be switched off


@pytest.mark.parametrize("name", ["Z1", "Z2"])
def test_with_the_check_switched_off_a_checksum_that_does_not_fit_is_counted_and_believed(name):
    for check in (True, False):
        stream = codec.stream(check=check)
        [cut] = stream.feed(bytes_of(name))
        assert stream.flawed == 1
        assert cut.kind is (CutKind.BROKEN if check else CutKind.FRAME)
    assert isinstance(codec.decode(bytes_of(name), check=False), Batch)


def test_with_the_check_switched_off_good_frames_are_read_and_not_counted():
    stream = codec.stream(check=False)
    assert [cut.kind for cut in stream.feed(bytes_of("Q5") + bytes_of("Q8"))] == [CutKind.FRAME] * 2
    assert stream.flawed == 0


def test_even_with_the_check_switched_off_a_frame_in_which_another_begins_is_not_believed():
    assert reader(check=False)(bytes_of("Z5")) == [bytes_of("Z5")[:20], meaning("Z5")]


# Anything

PIECES = st.lists(
    st.one_of(
        st.binary(max_size=40),
        st.sampled_from([bytes_of(name) for name in FRAMES]),
        st.sampled_from([b"\xbb", b"\xbb\x67", b"\xbb\x67\x00\x65\x01\x04\x00", b"\xbb\x67\x00\x65\x01\x00"]),
        st.tuples(st.integers(0, 180), st.integers(0, 180)).map(
            lambda ends: bytes_of("Q8")[min(ends) : max(ends)]
        ),
    ),
    max_size=12,
).map(b"".join)


@given(heard=PIECES, check=st.booleans())
def test_cuts_and_buffer_together_are_what_arrived(heard, check):
    stream = codec.stream(check=check)
    cuts = stream.feed(heard)
    told = b"".join(cut.data for cut in cuts)
    assert heard.startswith(told)
    assert len(told) + stream.buffered_bytes == len(heard)
    assert b"".join(cut.data for cut in cuts + stream.flush()) == heard
    assert stream.buffered_bytes == 0


@given(heard=PIECES, check=st.booleans(), data=st.data())
def test_how_the_bytes_were_divided_makes_no_difference(heard, check, data):
    stream = codec.stream(check=check)
    cuts: list[Cut] = []
    rest = heard
    while rest:
        size = data.draw(st.integers(1, len(rest)))
        cuts += stream.feed(rest[:size])
        rest = rest[size:]
        assert stream.buffered_bytes < codec.FRAME_LIMIT_BYTES
    assert cuts == codec.stream(check=check).feed(heard)
    assert all(len(cut.data) <= codec.FRAME_LIMIT_BYTES for cut in cuts)


@given(frame=st.one_of(st.binary(max_size=300), PIECES), check=st.booleans())
def test_whatever_is_in_a_frame_the_decoder_answers_and_raises_nothing(frame, check):
    assert codec.decode(frame, check=check) is not None
    assert codec.decode(framed(frame), check=check) is not None


@given(
    place=st.integers(1, 179),
    flipped=st.integers(1, 255),
)
def test_no_batch_with_one_damaged_byte_is_taken_for_true(place, flipped):
    frame = bytearray(bytes_of("Q5"))
    frame[place] ^= flipped
    assert isinstance(codec.decode(bytes(frame)), Unreadable)
