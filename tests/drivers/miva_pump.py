"""The other end of the wire for tests of the dialogue: a MIVA that answers what it has been told to answer.

Its frames are put together here, not by the driver: two ends that share code share errors. What pins both are
the frames of ``tests/frames/miva.toml``.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path

_FRAMES = tomllib.loads((Path(__file__).parent.parent / "frames" / "miva.toml").read_text("utf-8"))["frame"]
FRAMES: dict[str, dict] = {frame["id"]: frame for frame in _FRAMES}

Answer = str | bytes | Callable[[int], "str | bytes"]
"""A payload to be framed, a frame as it is, or what is said at an instant; nothing is silence."""


def bytes_of(identity: str) -> bytes:
    """The bytes of one frame of the protocol page."""
    return bytes.fromhex(FRAMES[identity]["hex"])


def framed(payload: str | bytes) -> bytes:
    """A frame around any payload."""
    if isinstance(payload, str):
        payload = payload.encode("latin-1")
    total = 0
    for byte in payload:
        total = (total + byte) & 0xFF
    return b"\x02" + payload + f"{total:02X}".encode() + b"\x03"


def record(kind: int, word: int = 0xFFFF, first: str = "FFFFFFFF") -> bytes:
    """16 bytes of the log."""
    return (
        bytes([kind])
        + bytes.fromhex("E80300F0")
        + word.to_bytes(2, "big")
        + bytes.fromhex(first)
        + b"\xff" * 5
    )


HEALTHY: dict[str, Answer] = {
    "RN": "RNSN800009",
    ":INFU:RUN?": "TRUE",
    ":INFU:RATE?": "45.00",
    "Q5": "Q504D2",
    "Q7": "Q70",
    "QI": "QI0064",
    ":PROT:DB:LOCK?": "1200",
}


class ScriptedMiva:
    """Answers each query with what it was given for it, a while after its last byte; else it is silent.

    ``log`` has the newest record last, at the place ``head``.
    """

    def __init__(self, *, head: int = 0x16, answer_after_ms: int = 20, **answers: Answer) -> None:
        self.answers: dict[str, Answer] = {**HEALTHY, **answers}
        self.log: list[bytes] = [record(24, 1), record(1)]
        self.head = head
        self.tail: int | None = None
        self.answer_after_ms = answer_after_ms
        self._heard = b""

    def write(self, *records: bytes) -> None:
        """More records at the end of the log."""
        self.log += records
        self.head = (self.head + len(records)) % 43_264

    def with_answers(self, answers: Mapping[str, Answer]) -> ScriptedMiva:
        """The same pump with other answers to some queries."""
        self.answers.update(answers)
        return self

    def receive(self, data: bytes, now_ms: int) -> list[bytes]:
        """Replies to the queries that are complete now."""
        *asked, self._heard = (self._heard + data).split(b"\x03")
        replies = []
        for frame in asked:
            start = frame.rfind(b"\x02")
            payload = frame[start + 1 : -2].decode("latin-1")
            if start >= 0 and framed(payload) == frame[start:] + b"\x03":
                answer = self._answer(payload, now_ms)
                replies.append(answer if isinstance(answer, bytes) else framed(answer) if answer else b"")
        return [reply for reply in replies if reply]

    def sent_ms(self, now_ms: int) -> int:
        """When a reply to a query heard now is out."""
        return now_ms + self.answer_after_ms

    def _answer(self, payload: str, now_ms: int) -> str | bytes:
        answer = self.answers.get(payload, self.answers.get(payload[:2], ""))
        if callable(answer):
            return answer(now_ms)
        if answer or payload in self.answers or payload[:2] in self.answers:
            return answer
        if payload == "RI":
            tail = (self.head - len(self.log) + 1) % 43_264 if self.tail is None else self.tail
            return f"RI{tail:08X}{self.head:08X}"
        if payload.startswith("RE"):
            back = (self.head - int(payload[2:], 16)) % 43_264
            raw = self.log[-1 - back] if back < len(self.log) else b"\xff" * 16
            return payload + raw.hex().upper()
        return ""
