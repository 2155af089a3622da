"""The other end of a Fresenius line for tests of the dialogue: a base, or a pump, that answers as it is told.

Its frames are put together here, not by the driver: two ends that share code share errors. What pins both are
the hand-checked frames of ``tests/frames/fresenius.toml``.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from pathlib import Path

_TOML = Path(__file__).parent.parent / "frames" / "fresenius.toml"
FRAMES: dict[str, dict] = {frame["id"]: frame for frame in tomllib.loads(_TOML.read_text("utf-8"))["frame"]}

PIECE = re.compile(rb"\x02[^\x02\x03]*\x03|\x15[^\x02]|\x06|\x14", re.DOTALL)
"""What a host may say."""


def bytes_of(identity: str) -> bytes:
    """The bytes of one hand-checked frame."""
    return bytes.fromhex(FRAMES[identity]["hex"])


def framed(message: str | bytes) -> bytes:
    """A frame around address and text, with a checksum worked out by complement."""
    if isinstance(message, str):
        message = message.encode("latin-1")
    return b"\x02" + message + b"%02X" % (~sum(message) & 0xFF) + b"\x03"


def numbers(address: str = "1", rate: str = "01F4", volume: str = "0003C9") -> str:
    """The message that answers LE;dr."""
    return f"{address}C;d{rate};r{volume}"


def asked_in(data: bytes) -> list[str]:
    """The messages of the frames in what a host wrote."""
    return [piece[1:-3].decode() for piece in PIECE.findall(data) if piece[:1] == b"\x02"]


Answer = str | bytes | Callable[[int], str | bytes]
"""A message to be framed behind an ACK, bytes as they are, or what is said at an instant; "" is silence."""


class ScriptedBase:
    """Answers each message with what it was given for it, a while after its last byte; else it is silent."""

    def __init__(self, answers: dict[str, Answer], *, answer_after_ms: int = 20) -> None:
        self.answers = answers
        self.answer_after_ms = answer_after_ms
        self.heard: list[bytes] = []
        """Every piece that came from the host, in order."""
        self._buffer = b""

    def receive(self, data: bytes, now_ms: int) -> list[bytes]:
        """Replies to what is complete now."""
        self._buffer += data
        replies = []
        while (piece := PIECE.search(self._buffer)) is not None:
            self._buffer = self._buffer[piece.end() :]
            self.heard.append(piece[0])
            if piece[0][:1] == b"\x02" and framed(piece[0][1:-3]) == piece[0]:
                replies.append(self._reply(piece[0][1:-3].decode("latin-1"), now_ms))
        return [reply for reply in replies if reply]

    def _reply(self, message: str, now_ms: int) -> bytes:
        answer = self.answers.get(message, "")
        if callable(answer):
            answer = answer(now_ms)
        if isinstance(answer, bytes):
            return answer
        return b"\x06" + framed(answer) if answer else b""

    def sent_ms(self, now_ms: int) -> int:
        """When a reply to something heard now is out."""
        return now_ms + self.answer_after_ms


def healthy(*addresses: str) -> dict[str, Answer]:
    """What modules that deliver 50 mL/h say; an empty address is a pump that stands alone."""
    answers: dict[str, Answer] = {}
    if addresses != ("",):
        mask = sum(1 << (int(address) - 1) for address in addresses)
        answers = {"0DC": "0C", "0LE;b": f"0C;b{mask:02X}"}
    for address in addresses:
        answers |= {
            f"{address}DC": f"{address}C",
            f"{address}AE": f"{address}C",
            f"{address}LE;dr": numbers(address),
            f"{address}LE;d": f"{address}C;d01F4",
            f"{address}LE;r": f"{address}C;r0003C9",
        }
    return answers
