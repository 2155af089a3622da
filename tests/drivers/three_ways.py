"""Every case of every codec is heard three ways, so that nobody needs to remember to do so."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")
Hear = Callable[[bytes], Sequence[T]]
"""Takes bytes that arrive, and returns what can be told by now."""


def hears_three_ways(make: Callable[[], Hear[T]], data: bytes, expected: list[T], next_frame: bytes) -> None:
    """``data`` whole; byte by byte, with the last thing told by the last byte and not before; and with the
    next
    frame behind it, which neither changes what was told nor is harmed."""
    assert list(make()(data)) == expected, "whole"

    hear = make()
    early = [told for byte in data[:-1] for told in hear(bytes([byte]))]
    assert early == expected[:-1], "byte by byte, before the last"
    assert early + list(hear(data[-1:])) == expected, "byte by byte"

    hear = make()
    assert list(hear(data + next_frame[:4])) == expected, "with the beginning of the next frame"
    assert list(hear(next_frame[4:])) == list(make()(next_frame)), "the next frame after it"
    assert list(make()(data + next_frame)) == expected + list(make()(next_frame)), "with the next frame"
