"""What the keys of a prescription say together and cannot all mean (prescription page, section 1).

Each rule is a small function that yields what it finds. Only what somebody wrote can contradict: where a written
value fights a default, the written one is named.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from msgspec import Struct

from gateway.core.prescription import Prescription
from gateway.core.toml_table import OrderProblem


class Written(Struct, frozen=True, kw_only=True):
    """What the text itself said, where the prescription no longer shows it."""

    keys: frozenset[str]
    """Such as ``limits.kvo_ml_h``."""
    rate_keys: tuple[str, ...]
    """For each phase the key that set its greatest rate."""


class Contradiction(Struct, frozen=True, kw_only=True):
    """A problem, and the keys on which it rests."""

    problem: OrderProblem
    rests: tuple[str, ...]

    def rests_on(self, blamed: Iterable[str]) -> bool:
        """Whether one of these keys is part of it; what follows from another fault is not said."""
        mine = (self.problem.key, *self.rests)
        return any(key.startswith(own) or own.startswith(key) for key in blamed for own in mine)


def contradictions(prescription: Prescription, written: Written) -> Iterator[Contradiction]:
    """All that the keys say against one another."""
    return iter(())
