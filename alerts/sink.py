"""The envelope that leaves, and the door it leaves by."""

from __future__ import annotations

from enum import StrEnum
from typing import Protocol

from msgspec import Struct


class Lane(StrEnum):
    """The durable ways over MQTT: each with an order and numbers of its own."""

    ALERTS = "alerts"
    TELEMETRY = "telemetry"


class Message(Struct, frozen=True, kw_only=True):
    """One MQTT publish. ``lane`` and ``seq`` are those of a durable message, else ``None``."""

    topic: str
    payload: bytes
    qos: int = 1
    retain: bool = False
    expiry_s: int | None = None
    lane: Lane | None = None
    seq: int | None = None


class SinkDown(Exception):
    """The way out is closed for now: wait and try again."""


class SinkRefused(Exception):
    """The other side says no, and will say so again: stop, and tell a person."""


class Sink(Protocol):
    """A way out. ``send`` hands over one message and returns; what became of it comes back as an input."""

    def send(self, message: Message) -> None:
        """Raises SinkDown or SinkRefused."""
