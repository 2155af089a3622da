"""One session on one line: talking with a pump now, and hearing a recorded dialogue again.

Both work as the gateway does: what has arrived is heard first; when the session's time has come it is told
so, and then asked what to send.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from msgspec import Struct

from drivers.capture import Entry, EntryKind
from drivers.family import Family, PumpOnLine, Session
from drivers.link import Link
from drivers.reading import Fact

_ASKED_AT_ONE_TIME = 100
"""A session that still has something to ask after so many queries within a millisecond will never end."""


class Talk(Struct, frozen=True):
    """What one turn of a dialogue has brought."""

    received: bytes
    facts: tuple[Fact, ...]


class Dialogue:
    """A session that talks over an open link."""

    def __init__(self, family: Family, session: Session, link: Link, now_ms: Callable[[], int]) -> None:
        self._family = family
        self._session = session
        self._link = link
        self._now_ms = now_ms
        session.opened(now_ms())

    def turn(self, at_most_s: float) -> Talk:
        """Send what is due, and hear what comes before the next is; not longer than ``at_most_s``.

        Raises LinkDown.
        """
        now_ms = self._now_ms()
        facts: list[Fact] = []
        if self._session.next_due_ms() <= now_ms:
            facts += self._session.receive(b"", now_ms)
            query = self._session.due(now_ms)
            if query:
                if not self._family.may_send(query):
                    # Not an assert statement: this one must hold under `python -O` too.
                    raise AssertionError("a session may send nothing but its queries")
                self._link.write(query)
        wait_s = max(0.0, (self._session.next_due_ms() - self._now_ms()) / 1000)
        received = self._link.read(min(at_most_s, wait_s))
        if received:
            facts += self._session.receive(received, self._now_ms())
        return Talk(received, tuple(facts))


class Matched(Struct):
    """How the queries of a recording went with those of the session that hears it again."""

    the_same: int = 0
    others: int = 0
    """Queries that the session would not have asked then: another program, or another setting, did."""


def heard_again(session: Session, entries: Sequence[Entry], matched: Matched) -> Iterator[Fact]:
    """What a session makes of a recorded line. Times are those of the recording; never looks ahead.

    Which query is owed its answer a session decides itself when it is asked what to send. So it is asked at
    the times at which the recording has sent something, and woken between them, as it was live. Of a
    recording in which nothing was sent it is asked whenever it wants to be.
    """
    asks_itself = not any(entry.kind is EntryKind.TX for entry in entries)
    is_open = False
    now_ms = 0
    asked = b""
    for entry in entries:
        if entry.kind is EntryKind.NOTE:
            continue
        if is_open:
            yield from _woken_until(session, now_ms, entry.at_ms, asks_itself)
        now_ms = entry.at_ms
        if entry.kind is EntryKind.DOWN:
            is_open = False
            continue
        if entry.kind is EntryKind.UP or not is_open:
            session.opened(now_ms)
            is_open, asked = True, b""
        if entry.kind is EntryKind.RX:
            yield from session.receive(entry.data, now_ms)
        elif entry.kind is EntryKind.TX:
            yield from session.receive(b"", now_ms)
            asked = asked or session.due(now_ms)
            if asked.startswith(entry.data):
                asked = asked.removeprefix(entry.data)
                matched.the_same += 1
            else:
                asked = b""
                matched.others += 1


def _woken_until(session: Session, now_ms: int, until_ms: int, asks_itself: bool) -> Iterator[Fact]:
    """Time passes, and nothing arrives."""
    at_this_time = 0
    while (due_ms := max(now_ms, session.next_due_ms())) < until_ms:
        at_this_time = at_this_time + 1 if due_ms == now_ms else 1
        now_ms = due_ms
        yield from session.receive(b"", now_ms)
        query = session.due(now_ms) if asks_itself else b""
        waits_to_be_asked = session.next_due_ms() <= now_ms and not query
        if waits_to_be_asked or at_this_time >= _ASKED_AT_ONE_TIME:
            return


def pumps_that_can_be(
    family: Family, addresses: Iterable[int | None], poll_ms: int
) -> tuple[PumpOnLine, ...]:
    """Pumps with these addresses, each under the name of its place on the line.

    Raises ValueError, with a sentence, if this family cannot have them on one port.
    """
    pumps = tuple(
        PumpOnLine(
            pump="pump" if address is None else f"pump at address {address}", address=address, poll_ms=poll_ms
        )
        for address in addresses
    )
    family.open_session(pumps)
    return pumps
