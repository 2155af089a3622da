"""A byte buffer with a limit, and the ways in which the protocols of this house cut a stream.

A stream is cut, never filtered: joined together, the cuts and what is still buffered are the bytes that
arrived, in their order. So no byte can be lost without being counted, and the tests hold this as a law. How
the bytes were divided on arrival makes no difference to the cuts.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from enum import StrEnum

from msgspec import Struct


class CutKind(StrEnum):
    """What a piece of the stream is, as far as its marks tell."""

    FRAME = "frame"
    """From start mark to end mark; what is in it is for the codec to judge."""
    FILLER = "filler"
    """Bytes that may stand between two frames and mean nothing."""
    BROKEN = "broken"
    """Bytes that can belong to no frame."""


class Cut(Struct, frozen=True, kw_only=True):
    """A piece of the stream; ``why`` says of a broken piece what is wrong with it."""

    kind: CutKind
    data: bytes
    why: str = ""


class Stream(ABC):
    """Bytes that have arrived, and are cut off at the front as soon as it is clear what they are."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._buffer = bytearray()

    @property
    def buffered_bytes(self) -> int:
        """Bytes that have arrived and are in no cut yet; always fewer than the limit."""
        return len(self._buffer)

    def feed(self, data: bytes) -> list[Cut]:
        """Take bytes that have arrived; return what can now be cut off."""
        self._buffer += data
        cuts = []
        while (cut := self._next()) is not None:
            cuts.append(cut)
        return cuts

    def flush(self) -> list[Cut]:
        """Give up what is buffered: nothing more is expected to follow it."""
        return [self._not_a_frame(len(self._buffer), "it was never finished")] if self._buffer else []

    @abstractmethod
    def _next(self) -> Cut | None:
        """Cut off the next piece, or ``None`` if more bytes are needed to know it."""

    def _not_a_frame(self, byte_count: int, why: str) -> Cut:
        return Cut(kind=CutKind.BROKEN, data=self._take(byte_count), why=why)

    def _too_long(self) -> Cut | None:
        if len(self._buffer) < self._limit_bytes:
            return None
        return self._not_a_frame(self._limit_bytes, f"no end within {self._limit_bytes} bytes")

    def _take(self, byte_count: int) -> bytes:
        data = bytes(self._buffer[:byte_count])
        del self._buffer[:byte_count]
        return data


class MarkedStream(Stream):
    """Frames between a start byte and an end byte; a start or an abort within a frame makes what was before
    void.

    ``filler`` are bytes that may stand between two frames. A frame that would be longer than ``limit_bytes``,
    or as many bytes without any start, are given up as broken.
    """

    def __init__(self, *, start: bytes, end: bytes, abort: bytes, filler: bytes, limit_bytes: int) -> None:
        super().__init__(limit_bytes)
        self._start = start
        self._end = end
        self._filler = filler
        self._mark_inside = re.compile(b"[" + re.escape(start + end + abort) + b"]")

    def _next(self) -> Cut | None:
        if not self._buffer.startswith(self._start):
            start_at = self._buffer.find(self._start, 0, self._limit_bytes)
            if start_at < 0:
                return self._too_long()
            return self._not_a_frame(start_at, "no frame begins there")
        mark = self._mark_inside.search(self._buffer, 1, self._limit_bytes)
        if mark is None:
            return self._too_long()
        if mark[0] == self._end:
            return Cut(kind=CutKind.FRAME, data=self._take(mark.end()))
        if mark[0] == self._start:
            return self._not_a_frame(mark.start(), "another frame began before its end")
        return self._not_a_frame(mark.end(), "the sender broke it off")

    def _not_a_frame(self, byte_count: int, why: str) -> Cut:
        cut = super()._not_a_frame(byte_count, why)
        return cut if cut.data.strip(self._filler) else Cut(kind=CutKind.FILLER, data=cut.data)


class LineStream(Stream):
    """Lines, each ended by a line feed. A line longer than ``limit_bytes`` is given up as broken."""

    def __init__(self, *, limit_bytes: int) -> None:
        super().__init__(limit_bytes)

    def _next(self) -> Cut | None:
        end_at = self._buffer.find(b"\n", 0, self._limit_bytes)
        if end_at < 0:
            return self._too_long()
        return Cut(kind=CutKind.FRAME, data=self._take(end_at + 1))


class SizedStream(Stream):
    """Frames that begin with a start byte and tell in their head how long they are; the start byte may occur
    anywhere inside them.

    ``measure`` is given the first bytes of what may be a frame, at most ``head_bytes`` of them, and returns
    the length of the whole frame, 0 if it needs more bytes to know, or words: why no frame begins there. It
    must judge the bytes in their order, so that more of them never change the words. ``flaw`` is given a
    whole frame and returns what is wrong with it, or nothing. Of a flawed frame only so much is given up as
    comes before the next place where a frame may begin.

    With ``believe_flawed``, a flawed frame is cut off as a frame all the same, unless another one begins
    inside it. ``flawed`` counts them either way.
    """

    def __init__(
        self,
        *,
        start: int,
        head_bytes: int,
        measure: Callable[[bytes], int | str],
        flaw: Callable[[bytes], str],
        believe_flawed: bool,
        limit_bytes: int,
    ) -> None:
        super().__init__(limit_bytes)
        self.flawed = 0
        self._needed_bytes = 0
        self._start = bytes([start])
        self._head_bytes = head_bytes
        self._measure = measure
        self._flaw = flaw
        self._believe_flawed = believe_flawed

    def _next(self) -> Cut | None:
        if not self._buffer or len(self._buffer) < self._needed_bytes:
            return None
        if not self._buffer.startswith(self._start):
            return self._up_to_a_start(0, "no frame begins there")
        length = self._measure(bytes(self._buffer[: self._head_bytes]))
        if isinstance(length, str):
            return self._up_to_a_start(1, length)
        if length > self._limit_bytes:
            return self._up_to_a_start(1, f"longer than {self._limit_bytes} bytes")
        if not length or len(self._buffer) < length:
            self._needed_bytes = length
            return None
        frame = bytes(self._buffer[:length])
        why = self._flaw(frame)
        if not why:
            return Cut(kind=CutKind.FRAME, data=self._take(length))
        self.flawed += 1
        # Only bytes of the frame are looked at: how the stream was divided must make no difference.
        inside = self._begins_inside(frame)
        if inside is None and self._believe_flawed:
            return Cut(kind=CutKind.FRAME, data=self._take(length))
        return self._not_a_frame(length if inside is None else inside, why)

    def _take(self, byte_count: int) -> bytes:
        self._needed_bytes = 0
        return super()._take(byte_count)

    def _up_to_a_start(self, from_byte: int, why: str) -> Cut | None:
        start_at = self._buffer.find(self._start, from_byte, self._limit_bytes)
        return self._too_long() if start_at < 0 else self._not_a_frame(start_at, why)

    def _begins_inside(self, frame: bytes) -> int | None:
        """Where in a flawed frame the next one may begin; a start too near to the end to be judged counts
        only if flawed frames are not believed."""
        at = frame.find(self._start, 1)
        while at >= 0:
            length = self._measure(frame[at : at + self._head_bytes])
            if isinstance(length, int) and (length or not self._believe_flawed):
                return at
            at = frame.find(self._start, at + 1)
        return None


class HandshakeStream(Stream):
    """Frames between a start byte and an end byte, and, between frames, control codes that stand for a word.

    ``words`` are the control codes that say something by themselves (an acknowledgement, a line check);
    ``pairs`` those that say it together with the byte behind them. Both are cut as frames, at once, and so
    the cut of a frame is one or two bytes, or begins with the start byte. ``anywhere`` is the one control
    code that may stand even within a frame or a pair, and is left in it. Any other control code within a
    frame makes what was before void. A frame that would be longer than ``limit_bytes`` is given up as broken.
    """

    def __init__(
        self, *, start: bytes, end: bytes, words: bytes, pairs: bytes, anywhere: bytes, limit_bytes: int
    ) -> None:
        super().__init__(limit_bytes)
        self._start = start
        self._end = end
        self._words = words
        self._pairs = pairs
        self._anywhere = anywhere
        self._control_code = re.compile(b"[^\\x20-\\xff" + re.escape(anywhere) + b"]")
        self._meaningful = re.compile(b"[" + re.escape(start + words + pairs) + b"]")

    def _next(self) -> Cut | None:
        first = bytes(self._buffer[:1])
        if not first:
            return None
        if first in self._words:
            return Cut(kind=CutKind.FRAME, data=self._take(1))
        if first in self._pairs:
            return self._pair()
        if first == self._start:
            return self._frame()
        meaningful = self._meaningful.search(self._buffer, 0, self._limit_bytes)
        return (
            self._too_long()
            if meaningful is None
            else self._not_a_frame(meaningful.start(), "no frame begins there")
        )

    def _pair(self) -> Cut | None:
        for place in range(1, min(len(self._buffer), self._limit_bytes)):
            byte = bytes(self._buffer[place : place + 1])
            if byte == self._anywhere:
                continue
            if byte < b"\x20":
                return self._not_a_frame(place, "another control code came before its second byte")
            return Cut(kind=CutKind.FRAME, data=self._take(place + 1))
        return self._too_long()

    def _frame(self) -> Cut | None:
        mark = self._control_code.search(self._buffer, 1, self._limit_bytes)
        if mark is None:
            return self._too_long()
        if mark[0] == self._end:
            return Cut(kind=CutKind.FRAME, data=self._take(mark.end()))
        return self._not_a_frame(mark.start(), "a control code came before its end")
