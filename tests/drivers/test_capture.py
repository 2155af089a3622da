"""The capture format: what is written is read again, and what is wrong is named with its line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.capture import Capture, CaptureError, Entry, EntryKind, parse_capture, write_capture

TEXT = """\
family: alaris
pump: Alaris GH, 8002-51740
firmware:
display: 10.0 ml/h: delivering

0 up
12 tx 21494e467c343936310d
48 rx 21494E
48 rx 46
9000 note the line was closed here
60000 down
"""

CAPTURE = Capture(
    head=(
        ("family", "alaris"),
        ("pump", "Alaris GH, 8002-51740"),
        ("firmware", ""),
        ("display", "10.0 ml/h: delivering"),
    ),
    entries=(
        Entry(at_ms=0, kind=EntryKind.UP),
        Entry(at_ms=12, kind=EntryKind.TX, data=b"!INF|4961\r"),
        Entry(at_ms=48, kind=EntryKind.RX, data=b"!IN"),
        Entry(at_ms=48, kind=EntryKind.RX, data=b"F"),
        Entry(at_ms=9_000, kind=EntryKind.NOTE, words="the line was closed here"),
        Entry(at_ms=60_000, kind=EntryKind.DOWN),
    ),
)


def test_a_capture_is_read():
    assert parse_capture(TEXT) == CAPTURE


def test_a_capture_is_read_with_windows_line_ends():
    assert parse_capture(TEXT.replace("\n", "\r\n")) == CAPTURE


def test_a_capture_without_a_head_begins_with_the_empty_line():
    assert parse_capture("\n5 rx 0d\n") == Capture(
        head=(), entries=(Entry(at_ms=5, kind=EntryKind.RX, data=b"\r"),)
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "an empty line after the head is missing"),
        ("family: alaris\n", "an empty line after the head is missing"),
        ("family alaris\n\n", "line 1: 'family alaris' is not `key: value`"),
        (": alaris\n\n", "line 1: ': alaris' is not `key: value`"),
        ("a: b\n\nx rx 00\n", "line 3: 'x' is no time"),
        ("a: b\n\n-1 rx 00\n", "line 3: '-1' is no time"),
        ("a: b\n\n1.5 rx 00\n", "line 3: '1.5' is no time"),
        ("a: b\n\n5 got 00\n", "line 3: the kind 'got' is not known; known are rx, tx, up, down, note"),
        ("a: b\n\n5\n", "line 3: the kind '' is not known"),
        ("a: b\n\n5 rx\n", "line 3: '' are no bytes"),
        ("a: b\n\n5 rx 0\n", "line 3: '0' are no bytes"),
        ("a: b\n\n5 rx 0g\n", "line 3: '0g' are no bytes"),
        ("a: b\n\n5 rx 00 11\n", "line 3: '00 11' are no bytes"),
        ("a: b\n\n5 up now\n", "line 3: nothing follows `up`"),
        ("a: b\n\n5 rx 00\n4 rx 00\n", "line 4: 4 ms stands after 5"),
        ("a: b\n\n5 rx " + "00" * 10_000 + "\n", "line 3: longer than 16384 characters"),
    ],
)
def test_what_is_wrong_in_a_capture_is_named_with_its_line(text, words):
    with pytest.raises(CaptureError) as problem:
        parse_capture(text)
    assert words in str(problem.value)


WORDS = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Z", "Cs"))).filter(
    lambda text: "".join(text.split()) == text
)
ENTRIES = st.lists(
    st.one_of(
        st.builds(
            Entry,
            at_ms=st.integers(0, 10**9),
            kind=st.sampled_from([EntryKind.RX, EntryKind.TX]),
            data=st.binary(min_size=1, max_size=64),
        ),
        st.builds(Entry, at_ms=st.integers(0, 10**9), kind=st.sampled_from([EntryKind.UP, EntryKind.DOWN])),
        st.builds(Entry, at_ms=st.integers(0, 10**9), kind=st.just(EntryKind.NOTE), words=WORDS),
    )
).map(lambda entries: tuple(sorted(entries, key=lambda entry: entry.at_ms)))


@given(head=st.lists(st.tuples(WORDS.filter(lambda key: key and ":" not in key), WORDS)), entries=ENTRIES)
def test_what_is_written_is_read_again(head, entries):
    capture = Capture(head=tuple(head), entries=entries)
    assert parse_capture(write_capture(capture)) == capture


@given(st.text())
def test_any_text_is_a_capture_or_a_named_error(text):
    try:
        parse_capture(text)
    except CaptureError as problem:
        assert "line" in str(problem)
