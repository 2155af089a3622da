"""Good and bad wires, for dialogues in virtual time. A wire keeps the order of bytes, as a serial line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random

Piece = tuple[int, bytes]
"""Bytes, and how many milliseconds after they were sent they arrive."""
Bend = Callable[[bytes, Random], Iterator[Piece]]


class Wire:
    """One direction of a line, bent in one way, the same for the same seed."""

    def __init__(self, bend: Bend, seed: int) -> None:
        self._bend = bend
        self._chance = Random(seed)
        self._last_ms = 0

    def carry(self, data: bytes, at_ms: int) -> list[Piece]:
        """What comes out at the other end for ``data`` sent at ``at_ms``, and when."""
        arriving = []
        for after_ms, piece in self._bend(data, self._chance):
            self._last_ms = max(self._last_ms, at_ms + after_ms)
            arriving.append((self._last_ms, piece))
        return arriving


def clean(data: bytes, chance: Random) -> Iterator[Piece]:
    """As a short cable does it."""
    yield 5, data


def byte_by_byte(data: bytes, chance: Random) -> Iterator[Piece]:
    """Every byte alone, a millisecond after the other."""
    for place, byte in enumerate(data):
        yield 5 + place, bytes([byte])


def noisy(data: bytes, chance: Random) -> Iterator[Piece]:
    """One byte in two hundred is changed, and one in two hundred came from nowhere."""
    heard = bytearray()
    for byte in data:
        if chance.random() < 1 / 200:
            heard.append(chance.randrange(256))
        heard.append(byte ^ (1 << chance.randrange(8)) if chance.random() < 1 / 200 else byte)
    yield 5, bytes(heard)


def lossy(data: bytes, chance: Random) -> Iterator[Piece]:
    """One message in ten is lost, and of the others one byte in five hundred."""
    if chance.random() < 1 / 10:
        return
    yield 5, bytes(byte for byte in data if chance.random() >= 1 / 500)


def late(data: bytes, chance: Random) -> Iterator[Piece]:
    """Everything takes up to a second and a half."""
    yield chance.randrange(1_500), data


def doubled(data: bytes, chance: Random) -> Iterator[Piece]:
    """Everything arrives twice."""
    yield 5, data
    yield 25, data


WIRES: dict[str, Bend] = {
    "clean": clean,
    "byte_by_byte": byte_by_byte,
    "noisy": noisy,
    "lossy": lossy,
    "late": late,
    "doubled": doubled,
}
