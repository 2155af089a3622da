"""The other end of the wire for tests of the Terumo dialogue: frames put together here, not by the driver.

What pins both ends are the hand-checked frames of ``tests/frames/terumo.toml``.
"""

from __future__ import annotations

import base64
import re
import tomllib
from collections.abc import Callable
from pathlib import Path

from tests.drivers.dialogue import Dialogue

_FRAMES = tomllib.loads((Path(__file__).parent.parent / "frames" / "terumo.toml").read_text("utf-8"))["frame"]
FRAMES: dict[str, dict] = {frame["id"]: frame for frame in _FRAMES}
DEVICE_ID = "000100700000001201000001"
WHO = "DEVID"
STATUS = "status"


def bytes_of(identity: str) -> bytes:
    """The bytes of one hand-checked frame."""
    return bytes.fromhex(FRAMES[identity]["hex"])


def framed(text: str | bytes) -> bytes:
    """A frame around any text, with a CRC worked out bit by bit."""
    if isinstance(text, str):
        text = text.encode("latin-1")
    register = 0
    for byte in text:
        for bit in range(7, -1, -1):
            feedback = (register >> 15) ^ ((byte >> bit) & 1)
            register = (register << 1) & 0xFFFF
            if feedback:
                register ^= 0x1021
    return b"\x02" + text + f"{register:04X}\x03".encode()


def packet(kind: str, device_id: str, block: bytes | None = None) -> bytes:
    """A REQ or a REP, with any block or none."""
    command = "" if block is None else f"<CMD>{base64.b64encode(block).decode()}</CMD>"
    return framed(f'<?xml version="1.0"?><{kind}><DEVID>{device_id}</DEVID>{command}</{kind}>')


def block_of(frame: bytes) -> bytes:
    """The decoded CMD of a frame; empty if it has none."""
    found = re.search(rb"<CMD>(.*)</CMD>", frame)
    return b"" if found is None else base64.b64decode(found[1])


def status(like: str = "T5", *, device_id: str = DEVICE_ID, length: int | None = None, **at: bytes) -> bytes:
    """A status reply: that of a hand-checked frame, with other bytes at some offsets (``at_16=b"..."``)."""
    block = bytearray(block_of(bytes_of(like)))
    for place, value in at.items():
        offset = int(place.removeprefix("at_"))
        block[offset : offset + len(value)] = value
    return packet("REP", device_id, bytes(block[:length]))


def numbered(frame: bytes, number: int) -> bytes:
    """The same reply as an answer to another query."""
    device_id = re.search(rb"<DEVID>(.*)</DEVID>", frame)
    assert device_id is not None
    return packet("REP", device_id[1].decode(), bytes([number]) + block_of(frame)[1:])


Says = Callable[[int], bytes]


class ScriptedPump:
    """Says who it is and how it is, each a while after the query. What it says was true when it was asked."""

    def __init__(
        self,
        says: Says,
        *,
        device_id: str | Callable[[int], str] = DEVICE_ID,
        takes_ms: Callable[[int], int] = lambda _: 20,
        repeats_numbers: bool = True,
        busy: bool = False,
    ) -> None:
        self._says = says
        self._device_id = device_id if callable(device_id) else lambda _: device_id
        self._takes_ms = takes_ms
        self._repeats_numbers = repeats_numbers
        self._busy = busy
        self._busy_until_ms = 0
        self._heard = b""
        self.longest_backlog_ms = 0

    def receive(self, data: bytes, now_ms: int) -> list[bytes]:
        """Replies to the queries that are complete now."""
        *asked, self._heard = (self._heard + data).split(b"\x03")
        return [reply for frame in asked if (reply := self._reply(frame + b"\x03", now_ms))]

    def sent_ms(self, now_ms: int) -> int:
        """When a reply to a query heard now is out."""
        begins_ms = max(now_ms, self._busy_until_ms) if self._busy else now_ms
        self._busy_until_ms = max(self._busy_until_ms, begins_ms + self._takes_ms(now_ms))
        self.longest_backlog_ms = max(self.longest_backlog_ms, self._busy_until_ms - now_ms)
        return self._busy_until_ms

    def _reply(self, frame: bytes, now_ms: int) -> bytes:
        frame = frame[frame.rfind(b"\x02") :] if b"\x02" in frame else b""
        if frame != framed(frame[1:-5]):
            return b""
        device_id = self._device_id(now_ms)
        if frame == bytes_of("T1"):
            return packet("REP", device_id) if device_id else b""
        if f"<DEVID>{device_id}</DEVID>".encode() not in frame:
            return b""
        said = self._says(now_ms)
        number = block_of(frame)[0] if self._repeats_numbers else 0
        return said if not said or not said.startswith(b"\x02") else numbered(said, number)


class TerumoDialogue(Dialogue):
    """A dialogue whose questions can be read."""

    def asked(self) -> list[str]:
        """What was asked, in order."""
        return [query for _, query in self.asked_at()]

    def asked_at(self) -> list[tuple[int, str]]:
        """What was asked, and when."""
        return [(at_ms, WHO if data == bytes_of("T1") else STATUS) for at_ms, data in self.sent]

    def numbers(self) -> list[int]:
        """The numbers of the status queries."""
        return [block_of(data)[0] for _, data in self.sent if data != bytes_of("T1")]
