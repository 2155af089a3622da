"""Cutting a stream: nothing is lost, and it does not matter how the bytes were divided on arrival."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.framing import Cut, CutKind, HandshakeStream, LineStream, MarkedStream, Stream

LIMIT = 12


def marked() -> MarkedStream:
    return MarkedStream(start=b"!", end=b"\r", abort=b"\x1b", filler=b"\r\n", limit_bytes=LIMIT)


def lines() -> LineStream:
    return LineStream(limit_bytes=LIMIT)


def handshake() -> HandshakeStream:
    return HandshakeStream(
        start=b"\r", end=b"\n", words=b"\x00", pairs=b"\x1b", anywhere=b"!", limit_bytes=LIMIT
    )


# Bytes that mean something are frequent, so that their combinations are tried and not only noise.
NOISE = st.lists(st.sampled_from([b"!", b"\r", b"\n", b"\x1b", b"a", b"bcdefg", b"\x00", b"\xff"])).map(
    b"".join
)
STREAMS = pytest.mark.parametrize("make", [marked, lines, handshake])


def shown(cuts: list[Cut]) -> list[str]:
    return [f"{cut.kind} {cut.data!r}" for cut in cuts]


@pytest.mark.parametrize(
    ("heard", "cuts"),
    [
        (b"!ab\r", ["frame b'!ab\\r'"]),
        (b"!ab\r!c\r", ["frame b'!ab\\r'", "frame b'!c\\r'"]),
        (b"!ab", []),
        (b"xy!ab\r", ["broken b'xy'", "frame b'!ab\\r'"]),
        (b"\r\n!ab\r", ["filler b'\\r\\n'", "frame b'!ab\\r'"]),
        (b"\rx\n!ab\r", ["broken b'\\rx\\n'", "frame b'!ab\\r'"]),
        (b"!a!b\r", ["broken b'!a'", "frame b'!b\\r'"]),
        (b"!a\x1b!b\r", ["broken b'!a\\x1b'", "frame b'!b\\r'"]),
        (b"!!b\r", ["broken b'!'", "frame b'!b\\r'"]),
        (b"!0123456789\r", ["frame b'!0123456789\\r'"]),
        (b"!0123456789ab\r!c\r", ["broken b'!0123456789a'", "broken b'b\\r'", "frame b'!c\\r'"]),
        (b"0123456789abcdef", ["broken b'0123456789ab'"]),
    ],
)
def test_a_marked_stream_is_cut_at_its_marks(heard, cuts):
    assert shown(marked().feed(heard)) == cuts


@pytest.mark.parametrize(
    ("heard", "cuts"),
    [
        (b"ab\ncd\n", ["frame b'ab\\n'", "frame b'cd\\n'"]),
        (b"ab", []),
        (b"\n", ["frame b'\\n'"]),
        (b"0123456789a\n", ["frame b'0123456789a\\n'"]),
        (b"0123456789ab\nc\n", ["broken b'0123456789ab'", "frame b'\\n'", "frame b'c\\n'"]),
    ],
)
def test_a_stream_of_lines_is_cut_at_line_feeds(heard, cuts):
    assert shown(lines().feed(heard)) == cuts


@pytest.mark.parametrize(
    ("heard", "cuts"),
    [
        (b"\rab\n", ["frame b'\\rab\\n'"]),
        (b"\x00\rab\n", ["frame b'\\x00'", "frame b'\\rab\\n'"]),
        (b"\ra\x00", ["broken b'\\ra'", "frame b'\\x00'"]),
        (b"\ra\rb\n", ["broken b'\\ra'", "frame b'\\rb\\n'"]),
        (b"\ra!b\n", ["frame b'\\ra!b\\n'"]),
        (b"\x1b6", ["frame b'\\x1b6'"]),
        (b"\x1b!6", ["frame b'\\x1b!6'"]),
        (b"\x1b", []),
        (b"\x1b\rb\n", ["broken b'\\x1b'", "frame b'\\rb\\n'"]),
        (b"xy\x00", ["broken b'xy'", "frame b'\\x00'"]),
        (b"xy", []),
        (b"\r0123456789abc\n", ["broken b'\\r0123456789a'"]),
    ],
)
def test_a_stream_with_handshakes_is_cut_at_its_frames_and_control_codes(heard, cuts):
    assert shown(handshake().feed(heard)) == cuts


@STREAMS
@given(heard=NOISE)
def test_cuts_and_buffer_together_are_what_arrived(make, heard):
    stream: Stream = make()
    cuts = stream.feed(heard)
    told = b"".join(cut.data for cut in cuts)
    assert heard.startswith(told)
    assert len(told) + stream.buffered_bytes == len(heard)
    assert b"".join(cut.data for cut in cuts + stream.flush()) == heard
    assert stream.buffered_bytes == 0


@STREAMS
@given(heard=NOISE, data=st.data())
def test_how_the_bytes_were_divided_makes_no_difference(make, heard, data):
    stream: Stream = make()
    cuts = []
    rest = heard
    while rest:
        size = data.draw(st.integers(1, len(rest)))
        cuts += stream.feed(rest[:size])
        rest = rest[size:]
    assert cuts == make().feed(heard)


@STREAMS
@given(heard=NOISE)
def test_the_buffer_and_every_cut_stay_within_the_limit(make, heard):
    stream: Stream = make()
    for byte in heard:
        assert all(len(cut.data) <= LIMIT for cut in stream.feed(bytes([byte])))
        assert stream.buffered_bytes < LIMIT


@given(noise=NOISE)
def test_after_any_noise_the_next_frame_is_heard(noise):
    assert Cut(kind=CutKind.FRAME, data=b"!good\r") in marked().feed(noise + b"!good\r")


def test_what_is_flushed_says_that_it_was_never_finished():
    stream = marked()
    stream.feed(b"!INF^80")
    [cut] = stream.flush()
    assert (cut.kind, cut.data, cut.why) == (CutKind.BROKEN, b"!INF^80", "it was never finished")
