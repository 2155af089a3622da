"""The envelope that leaves, and the word for a way out that is closed."""

from __future__ import annotations

from enum import StrEnum

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
