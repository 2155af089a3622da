"""The pump's side of a protocol: what every family here can do, and the table of families."""

from __future__ import annotations

from typing import Protocol

from msgspec import Struct

from simulator.pump import Truth


class Answer(Struct, frozen=True):
    """One request that was understood as a frame, and what the pump says to it."""

    request: bytes
    reply: bytes
    """Empty: the pump stays silent."""


class Wire(Protocol):
    """One client's conversation with one pump. Holds no port and no clock."""

    byte_ms: float
    """How long one byte takes on the line."""
    thinking_ms: int
    """How long the pump takes before it answers."""

    def receive(self, data: bytes, truth: Truth) -> list[Answer]:
        """The answers to the requests that these bytes complete, the pump being as ``truth`` says.

        Takes any bytes in any portions, raises nothing, holds a bounded number of them.
        """
        ...
