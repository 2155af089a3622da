"""Read-only, whatever happens: the law of every session, for the inputs that each family's tests think of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from hypothesis import strategies as st

from drivers.family import Family, Session
from drivers.reading import Fact

Step = tuple[str, int, bytes]
"""``receive``, ``due`` or ``opened``; how many milliseconds later; what is received."""


def steps_with(data: st.SearchStrategy[bytes]) -> st.SearchStrategy[list[Step]]:
    """Any course of things with such bytes."""
    return st.lists(st.tuples(st.sampled_from(["receive", "due", "opened"]), st.integers(0, 20_000), data))


def moments_with(data: st.SearchStrategy[bytes]) -> st.SearchStrategy[list[tuple[int, bytes]]]:
    """Such bytes at any times, in any order."""
    return st.lists(st.tuples(st.integers(-100_000, 100_000), data))


def goes_through(family: Family, session: Session, steps: Iterable[Step]) -> Iterator[tuple[int, list[Fact]]]:
    """Nothing is raised, nothing written that may not be, and nothing twice at one time.

    After each step the time and what was told, for whatever else must hold.
    """
    now_ms = 0
    for what, after_ms, data in steps:
        now_ms += after_ms
        facts: list[Fact] = []
        if what == "opened":
            session.opened(now_ms)
        elif what == "receive":
            facts += session.receive(data, now_ms)
        written = session.due(now_ms)
        assert not written or family.may_send(written)
        assert session.due(now_ms) == b""
        yield now_ms, facts


def bears_a_clock_that_jumps(family: Family, session: Session, moments: Iterable[tuple[int, bytes]]) -> None:
    """Even then nothing is written that may not be."""
    for now_ms, data in moments:
        session.receive(data, now_ms)
        written = session.due(now_ms)
        assert not written or family.may_send(written)
