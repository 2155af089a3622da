"""What is remembered of interruptions: pump alarms, and stops that are not allowed."""

from __future__ import annotations

from msgspec import Struct

TOO_MANY = 3
WITHIN_MS = 3_600_000
"""Three within 60 min (prescription page, section 3, ``repeated_interruption``)."""


class Interruptions(Struct):
    """The latest interruptions of the doses. Mutable."""

    begun_t_ms: list[int] = []
    """When the latest began, at most three of them."""
    going_on: bool = False
    over_t_ms: int | None = None
    """When the latest was over; ``None`` while it goes on."""

    def begin(self, began_t_ms: int) -> bool:
        """Count one more; True if it is one too many."""
        recent = [t_ms for t_ms in self.begun_t_ms if began_t_ms - t_ms <= WITHIN_MS]
        self.begun_t_ms = [*recent, began_t_ms][-TOO_MANY:]
        self.going_on = True
        self.over_t_ms = None
        return len(self.begun_t_ms) == TOO_MANY

    def end(self, t_ms: int) -> None:
        """The latest is over."""
        self.going_on = False
        self.over_t_ms = t_ms
