"""What may be receipted: the numbers of one lane that are stored or known to be lost (mqtt page, "Numbers").

Pure. A collector receipts contiguous numbers only. It begins at 1, or at the ``oldest`` of a beat where it
knows nothing of the store; passes over what the gateway no longer holds; and passes over what has not
come for ten minutes although later numbers have.
"""

from __future__ import annotations

from msgspec import Struct

GIVE_UP_AFTER_MS = 600_000
"""How long a missing number is waited for once later ones have come (mqtt page)."""
ABOVE_MAX = 1_000
"""A gateway has at most 20 messages under way: with so many beyond a missing one, that one will not come."""
RECEIPT_AFTER_MESSAGES = 10
RECEIPT_AFTER_MS = 700
"""So that with the desk's turns it goes out within the second that the page allows."""


class Lost(Struct, frozen=True, kw_only=True):
    """Numbers that will not come any more, ``first`` and ``last`` included."""

    first: int
    last: int
    reason: str
    """``released`` (the gateway no longer holds them) or ``not_come`` (waited for in vain)."""


class LaneProgress(Struct, frozen=True, kw_only=True):
    """How far one lane of one store has come."""

    done: int | None = None
    """All up to this number is stored or known to be lost. None: where this store begins is not known yet."""
    above: tuple[tuple[int, int], ...] = ()
    """(number, when it came in ms) for what is stored above ``done``, sorted."""


def stored(progress: LaneProgress, seq: int, now_ms: int) -> LaneProgress:
    """The lane after number ``seq`` was stored at ``now_ms``; storing one again changes nothing."""
    if progress.done is not None and seq <= progress.done:
        return progress
    done = 0 if progress.done is None and seq == 1 else progress.done
    above = dict(progress.above)
    above.setdefault(seq, now_ms)
    return _advanced(done, above)


def beat(progress: LaneProgress, oldest: int) -> tuple[LaneProgress, tuple[Lost, ...]]:
    """The lane after a beat said that ``oldest`` is the lowest number the gateway still holds."""
    above = dict(progress.above)
    if progress.done is None:
        begin = min([oldest, *above])
        return _advanced(begin - 1, above), ()
    if oldest <= progress.done + 1:
        return progress, ()
    missing = _runs(progress.done, above, oldest)
    lost = tuple(Lost(first=first, last=last, reason="released") for first, last in missing)
    return _advanced(oldest - 1, above), lost


def waiting_anew(progress: LaneProgress, now_ms: int) -> LaneProgress:
    """The lane when the broker is back: while it was away nothing could come, so the wait begins now."""
    return LaneProgress(done=progress.done, above=tuple((seq, now_ms) for seq, _ in progress.above))


def give_up(progress: LaneProgress, now_ms: int) -> tuple[LaneProgress, tuple[Lost, ...]]:
    """The lane at ``now_ms``: what has not come for ten minutes, although later numbers have, is lost."""
    above = dict(progress.above)
    is_flood = len(above) > ABOVE_MAX
    done = min(above) - 1 if progress.done is None and is_flood else progress.done
    ripe = [seq for seq, since_ms in above.items() if is_flood or now_ms - since_ms >= GIVE_UP_AFTER_MS]
    if done is None or not ripe:
        return progress, ()
    newest_ripe = max(ripe)
    missing = _runs(done, above, newest_ripe)
    lost = tuple(Lost(first=first, last=last, reason="not_come") for first, last in missing)
    return _advanced(newest_ripe - 1, above), lost


def _runs(done: int, above: dict[int, int], end: int) -> list[tuple[int, int]]:
    """The missing runs in ``done + 1 .. end - 1``."""
    runs = []
    first = done + 1
    for seq in [*sorted(seq for seq in above if done < seq < end), end]:
        if seq > first:
            runs.append((first, seq - 1))
        first = seq + 1
    return runs


def _advanced(done: int | None, above: dict[int, int]) -> LaneProgress:
    if done is not None:
        while done + 1 in above:
            done += 1
        above = {seq: since_ms for seq, since_ms in above.items() if seq > done}
    return LaneProgress(done=done, above=tuple(sorted(above.items())))


class ReceiptTimer(Struct, frozen=True, kw_only=True):
    """When the next receipt of one store is due: after ten messages, or a moment after the first of them."""

    waiting: int = 0
    since_ms: int = 0

    def handled(self, now_ms: int) -> ReceiptTimer:
        """One more durable message, new or duplicate, has been stored."""
        return ReceiptTimer(waiting=self.waiting + 1, since_ms=self.since_ms if self.waiting else now_ms)

    def is_due(self, now_ms: int) -> bool:
        """Whether a receipt goes out now."""
        return self.waiting >= RECEIPT_AFTER_MESSAGES or (
            self.waiting > 0 and now_ms - self.since_ms >= RECEIPT_AFTER_MS
        )
