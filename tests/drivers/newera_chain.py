"""The other end of the wire for tests of the dialogue: pumps of a chain that answer what they were told to.

Their frames are put together here, not by the driver: two ends that share code share errors. What pins both
are the frames of ``tests/frames/newera.toml``.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path

_FRAMES = tomllib.loads((Path(__file__).parent.parent / "frames" / "newera.toml").read_text("utf-8"))["frame"]
FRAMES: dict[str, dict] = {frame["id"]: frame for frame in _FRAMES}


def bytes_of(identity: str) -> bytes:
    """The bytes of one frame of the protocol description."""
    return bytes.fromhex(FRAMES[identity]["hex"])


def basic(text: str, address: int = 0) -> bytes:
    """A Basic reply: prompt and data."""
    return b"\x02%02d%s\x03" % (address, text.encode("latin-1"))


def safe(text: str, address: int = 0) -> bytes:
    """A Safe reply, with a CRC worked out bit by bit."""
    data = b"%02d%s" % (address, text.encode("latin-1"))
    register = 0
    for byte in data:
        for bit in range(7, -1, -1):
            feedback = (register >> 15) ^ ((byte >> bit) & 1)
            register = (register << 1) & 0xFFFF
            if feedback:
                register ^= 0x1021
    return b"\x02" + bytes([len(data) + 4]) + data + register.to_bytes(2, "big") + b"\x03"


Answer = str | bytes | Callable[[int], bytes]
"""Prompt and data to be framed, bytes as they are, or what is said at an instant; nothing is silence."""

HEALTHY: dict[str, Answer] = {
    "VER": "INE1000V3.928",
    "SAF": "I0",
    "RAT": "I45.00MH",
    "DIS": "II1.234W0.000ML",
}
"""A pump that infuses 45 mL/h."""


class ScriptedChain:
    """Pumps by address, each with its answers by query."""

    def __init__(self, pumps: dict[int, dict[str, Answer]], *, answer_after_ms: int = 20) -> None:
        self.answer_after_ms = answer_after_ms
        self._pumps = pumps
        self._heard = b""

    def receive(self, data: bytes, now_ms: int) -> list[bytes]:
        """Replies to the lines that are complete now."""
        *lines, self._heard = (self._heard + data).split(b"\r")
        replies = []
        for line in lines:
            text = line.decode("latin-1")
            query = text.lstrip("0123456789")
            digits = text[: len(text) - len(query)] or "0"
            answer = self._pumps.get(int(digits), {}).get(query, "")
            if callable(answer):
                replies.append(answer(now_ms))
            elif isinstance(answer, bytes):
                replies.append(answer)
            elif answer:
                replies.append(basic(answer, int(digits)))
        return [reply for reply in replies if reply]

    def sent_ms(self, now_ms: int) -> int:
        """When a reply to a line heard now is out."""
        return now_ms + self.answer_after_ms
