"""What is remembered of the bag that hangs."""

from __future__ import annotations

from msgspec import Struct


class HungBag(Struct):
    """The bag that hangs, as far as the pump's counter and its words tell. Mutable."""

    taken_ml: float = 0.0
    """What the pump counted since it was hung, whatever for."""
    number: int = 0
    """The occurrence for which it was last looked at; 0 before the infusion starts."""
    is_new: bool = False
    """It was hung since it was last looked at."""
    near_empty: bool = False
    """The pump says so, or said so when it last said anything."""
    ran_empty: bool = False
    """The pump has reported it empty, and has not delivered since."""
    look_again_tau_ms: float = 0.0
    """Nothing can have become of it before the occurrence's own time has come to this, ..."""
    look_again_ml: float = 0.0
    """... and not more than this has been taken, unless the pump says something new."""

    def has_news(self) -> bool:
        """Whether each reading must be looked at: it has just been hung, or is, or was, nearly empty."""
        return self.is_new or self.near_empty or self.ran_empty

    def hang(self) -> None:
        """A full bag in its place."""
        self.taken_ml = 0.0
        self.is_new = True
        self.ran_empty = False
