"""The other end of the wire for tests of the dialogue: a pump that answers what it has been told to answer.

Its frames are put together here, not by the driver: two ends that share code share errors. What pins both are
the hand-checked frames of ``tests/frames/alaris.toml``.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path

from tests.drivers.dialogue import Dialogue

_FRAMES = tomllib.loads((Path(__file__).parent.parent / "frames" / "alaris.toml").read_text("utf-8"))["frame"]
FRAMES: dict[str, dict] = {frame["id"]: frame for frame in _FRAMES}


def text_of(identity: str) -> bytes:
    """The bytes of one hand-checked frame."""
    return FRAMES[identity]["text"].encode("ascii")


def framed(body: str | bytes) -> bytes:
    """A frame around any body, with a CRC worked out bit by bit."""
    if isinstance(body, str):
        body = body.encode("latin-1")
    register = 0xFFFF
    for byte in body:
        for bit in range(7, -1, -1):
            feedback = (register >> 15) ^ ((byte >> bit) & 1)
            register = (register << 1) & 0xFFFF
            if feedback:
                register ^= 0x1021
    return b"!" + body + f"|{register:04X}\r".encode()


def infusion(
    *,
    serial: str = "8002-51740",
    notice: str = "-",
    mode: str = "SET",
    rate: str = "10.00",
    rate_unit: str = "ml/h",
    drug: str = "",
    volume: str = "0.969",
    volume_unit: str = "ml",
    pressure: str = "17.91",
    pressure_unit: str = "mmHg",
    time_left: str = "24+",
) -> str:
    """The body of an INF reply."""
    measured = (rate, rate_unit, drug, volume, volume_unit, pressure, pressure_unit)
    return "^".join(("INF", serial, notice, mode, *measured, time_left, "EVENT", "127904"))


Answer = str | bytes | Callable[[int], bytes]
"""A body to be framed, a frame as it is, or what is said at an instant; nothing is silence."""


class ScriptedPump:
    """Answers each query with what it was given for it, a while after its last byte; else it is silent."""

    def __init__(self, answers: dict[str, Answer], *, answer_after_ms: int = 20) -> None:
        self.answer_after_ms = answer_after_ms
        self._answers = {framed(query): answer for query, answer in answers.items()}
        self._heard = b""

    def receive(self, data: bytes, now_ms: int) -> list[bytes]:
        """Replies to the queries that are complete now."""
        *asked, self._heard = (self._heard + data).split(b"\r")
        replies = []
        for frame in asked:
            answer = self._answers.get(frame + b"\r", "")
            if callable(answer):
                replies.append(answer(now_ms))
            elif isinstance(answer, bytes):
                replies.append(answer)
            elif answer:
                replies.append(framed(answer))
        return [reply for reply in replies if reply]

    def sent_ms(self, now_ms: int) -> int:
        """When a reply to a query heard now is out."""
        return now_ms + self.answer_after_ms


class BusyPump(ScriptedPump):
    """One that answers a query only when it has answered the one before, each after ``takes_ms(now_ms)``.

    What it says is what was true when the query came.
    """

    def __init__(self, answers: dict[str, Answer], takes_ms: Callable[[int], int]) -> None:
        super().__init__(answers)
        self.longest_backlog_ms = 0
        self._takes_ms = takes_ms
        self._busy_until_ms = 0

    def sent_ms(self, now_ms: int) -> int:
        self._busy_until_ms = max(now_ms, self._busy_until_ms) + self._takes_ms(now_ms)
        self.longest_backlog_ms = max(self.longest_backlog_ms, self._busy_until_ms - now_ms)
        return self._busy_until_ms


IDENTITY: dict[str, Answer] = {
    "INST_SERIALNO": "INST_SERIALNO^8002-51740",
    "COMMS_PROTOCOL": "COMMS_PROTOCOL^Asena Rev 2.1.5",
    "COMMS_RESPONSE_MAX": "COMMS_RESPONSE_MAX^4000^ms",
    "INF_VTBI": "INF_VTBI^ACTIV^11.000^ml^STOP",
}
"""What a healthy pump says of itself."""


class AlarisDialogue(Dialogue):
    """A dialogue whose questions can be read."""

    def asked(self) -> list[str]:
        """What was asked, in order, without the frame around it."""
        return [query for _, query in self.asked_at()]

    def asked_at(self) -> list[tuple[int, str]]:
        """What was asked, and when."""
        return [(at_ms, data[1:].partition(b"|")[0].decode()) for at_ms, data in self.sent]
