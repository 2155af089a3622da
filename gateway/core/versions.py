"""Which version of an order is in force, and which one waits until the pump is set to it."""

from __future__ import annotations

from msgspec import Struct


class WaitingOrder(Struct, frozen=True, kw_only=True):
    """A version that takes force when the pump is set to it (MQTT page, ``order``, ``on_programming``)."""

    text: str
    """Its prescription.toml."""
    effective_by_utc_ms: int | None = None
    """Until when it should have been programmed; ``None``: nobody is told that it has not been."""


class Orders(Struct):
    """What is remembered of the versions. The texts, because a prescription itself cannot be encoded."""

    in_force: str | None = None
    """The text of the order in force; ``None`` where whoever built the monitor keeps it."""
    waiting: WaitingOrder | None = None
