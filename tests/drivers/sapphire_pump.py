"""Batches of a Sapphire, put together by hand for tests of the dialogue.

The frames are not encoded by the driver. What pins both ends are those of ``tests/frames/sapphire.toml``.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

_FRAMES = tomllib.loads((Path(__file__).parent.parent / "frames" / "sapphire.toml").read_text("utf-8"))
FRAMES: dict[str, dict] = {frame["id"]: frame for frame in _FRAMES["frame"]}


def bytes_of(identity: str) -> bytes:
    """The bytes of one hand-checked frame."""
    return bytes.fromhex(FRAMES[identity]["hex"])


def framed(data: bytes, *, to: int = 103, sender: int = 101, kind: int = 1, sequence: int = 0) -> bytes:
    """A frame around any data."""
    body = bytes([to, 0, sender, kind]) + len(data).to_bytes(2, "big") + bytes([sequence]) + data
    return b"\xbb" + body + bytes([sum(body) % 256])


def batch(
    *,
    rate: int = 1_000,
    left: int = 5_000,
    infused: int = 1_234,
    serial: int = 1_234_567,
    version: int = 0x00010203,
    size: int = 171,
    sequence: int = 0,
    filler: int = 0,
) -> bytes:
    """A batch, its numbers in steps of the protocol, its unknown bytes all ``filler``."""
    data = bytearray([filler] * max(size, 171))
    data[34:38] = version.to_bytes(4, "little")
    data[38:42] = serial.to_bytes(4, "little")
    data[45:47] = (50).to_bytes(2, "little")
    data[47:49] = rate.to_bytes(2, "little")
    data[163:167] = left.to_bytes(4, "little")
    data[167:171] = infused.to_bytes(4, "little")
    return framed(bytes(data[:size]), sequence=sequence)
