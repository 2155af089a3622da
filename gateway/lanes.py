"""A lane: one durable way out, with an order and numbers of its own (mqtt page, "Numbers, stores and
receipts").

A draft waits without a number; while it waits, a newer draft with the same key takes its place. It gets its
number when there is room among the twenty that may be under way, in the transaction that commits it, and from
then on its bytes never change. It is sent only after that commit, again after each connection and after 30 s
without progress, and is forgotten only on the collector's receipt.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from msgspec import Struct

from alerts.sink import Lane as LaneName
from alerts.sink import Message

UNDER_WAY_MAX = 20
"""How many messages may be under way in a lane (mqtt page)."""
STALLED_AFTER_MS = 30_000
"""So long without progress, and everything without a receipt is sent again (mqtt page)."""


class Draft(Struct, frozen=True, kw_only=True):
    """A message that has no number yet. ``payload`` lacks ``store``, ``lane`` and ``seq``."""

    key: str
    topic: str
    payload: bytes
    made_t_ms: int
    retain: bool = False
    expiry_s: int | None = None


class Waiting(Struct, frozen=True, kw_only=True):
    """A draft and its place in the queue."""

    place: int
    draft: Draft


class LaneChanges(Struct, frozen=True, kw_only=True):
    """What a transaction must write of one lane."""

    lane: LaneName
    numbered: tuple[Message, ...] = ()
    waiting: tuple[Waiting, ...] = ()
    no_longer_waiting: tuple[int, ...] = ()
    released_up_to: int | None = None
    next_seq: int = 1

    @property
    def empty(self) -> bool:
        """Whether there is nothing to write."""
        return (
            not self.numbered
            and not self.waiting
            and not self.no_longer_waiting
            and self.released_up_to is None
        )

    def followed_by(self, later: LaneChanges) -> LaneChanges:
        """Both as one. Places and numbers are never given twice, so what is gone stays gone."""
        released_up_to = later.released_up_to if later.released_up_to is not None else self.released_up_to
        gone = {*self.no_longer_waiting, *later.no_longer_waiting}
        numbered = {message.seq: message for message in (*self.numbered, *later.numbered)}
        waiting = {entry.place: entry for entry in (*self.waiting, *later.waiting)}
        return LaneChanges(
            lane=self.lane,
            numbered=tuple(
                message
                for seq, message in numbered.items()
                if seq is not None and seq > (released_up_to or 0)
            ),
            waiting=tuple(entry for place, entry in waiting.items() if place not in gone),
            no_longer_waiting=tuple(sorted(gone)),
            released_up_to=released_up_to,
            next_seq=later.next_seq,
        )


class LaneKept(Struct, frozen=True, kw_only=True):
    """What the store kept of one lane."""

    next_seq: int = 1
    numbered: tuple[Message, ...] = ()
    waiting: tuple[Waiting, ...] = ()


NumberDraft = Callable[[Draft, int], bytes]
"""Gives a draft its number: (draft, seq) to the payload that will never change again."""


class Lane:
    """The queue of one lane. It is told what happens and asked what to write and what to send."""

    def __init__(
        self, name: LaneName, kept: LaneKept, number_draft: NumberDraft, *, waiting_max: int | None = None
    ) -> None:
        self.name = name
        self.next_seq = kept.next_seq
        self.dropped = 0
        """Waiting drafts that were dropped because the lane was full."""
        self._number_draft = number_draft
        self._waiting_max = waiting_max
        self._held: OrderedDict[int, Message] = OrderedDict(
            (message.seq, message) for message in kept.numbered if message.seq is not None
        )
        self._waiting: OrderedDict[str, Waiting] = OrderedDict(
            (waiting.draft.key, waiting)
            for waiting in sorted(kept.waiting, key=lambda waiting: waiting.place)
        )
        self._next_place = max((waiting.place for waiting in kept.waiting), default=0) + 1
        self._stored_places = {waiting.place for waiting in kept.waiting}
        self._unwritten_keys: set[str] = set()
        self._gone_places: list[int] = []
        self._numbered: list[Message] = []
        self._released_up_to: int | None = None
        self._committed_seq = kept.next_seq - 1
        self._sent_seq = 0
        # What an earlier start has sent is not known: all that was committed may have been.
        self._ever_sent_seq = kept.next_seq - 1
        self._confirmed: set[int] = set()
        self._progress_t_ms = 0

    @property
    def oldest(self) -> int:
        """Lowest number still held; the next one if none is (``beat``)."""
        return next(iter(self._held), self.next_seq)

    @property
    def committed_seq(self) -> int:
        """Highest number that is on the card."""
        return self._committed_seq

    @property
    def idle(self) -> bool:
        """Whether nothing is held and nothing waits."""
        return not self._held and not self._waiting

    @property
    def has_room(self) -> bool:
        """Whether a draft put now would be numbered at once."""
        return not self._waiting and len(self._held) < UNDER_WAY_MAX

    def waits(self, key: str) -> bool:
        """Whether a draft with this key still waits for a number."""
        return key in self._waiting

    def held(self, seq: int) -> Message | None:
        """The message with this number, while there is no receipt for it."""
        return self._held.get(seq)

    def put(self, draft: Draft) -> None:
        """Take a draft; one with the same key that still waits is replaced, and keeps its place."""
        earlier = self._waiting.get(draft.key)
        if earlier is not None:
            place = earlier.place
        else:
            place = self._next_place
            self._next_place += 1
        self._waiting[draft.key] = Waiting(place=place, draft=draft)
        self._unwritten_keys.add(draft.key)

    def forget(self, key: str) -> None:
        """Drop the draft with this key if it still waits for a number."""
        if key in self._waiting:
            self._forget_waiting(key)
            self.dropped += 1

    def number(self, t_ms: int) -> list[Message]:
        """Give numbers to the oldest drafts, as far as there is room; returns the new messages.

        Of what still waits, the oldest that exceed the lane's bound are dropped and counted.
        """
        new: list[Message] = []
        while self._waiting and len(self._held) < UNDER_WAY_MAX:
            key = next(iter(self._waiting))
            draft = self._forget_waiting(key).draft
            message = Message(
                topic=draft.topic,
                payload=self._number_draft(draft, self.next_seq),
                retain=draft.retain,
                expiry_s=draft.expiry_s,
                lane=self.name,
                seq=self.next_seq,
            )
            if not self._held:
                self._progress_t_ms = t_ms
            self._held[self.next_seq] = message
            self._numbered.append(message)
            new.append(message)
            self.next_seq += 1
        while self._waiting_max is not None and len(self._waiting) > self._waiting_max:
            self._forget_waiting(next(iter(self._waiting)))
            self.dropped += 1
        return new

    def replace(self, seq: int, payload: bytes) -> None:
        """Put another payload under a number whose content the broker refuses (``void``, mqtt page).

        It is sent once it is on the card; the numbers after it wait with it.
        """
        message = self._held.get(seq)
        if message is None:
            return
        voided = Message(topic=message.topic, payload=payload, lane=self.name, seq=seq)
        self._held[seq] = voided
        self._numbered.append(voided)
        self._sent_seq = min(self._sent_seq, seq - 1)
        self._committed_seq = min(self._committed_seq, seq - 1)

    def take_changes(self) -> LaneChanges:
        """What has to be written since this was last asked."""
        waiting = tuple(self._waiting[key] for key in self._waiting if key in self._unwritten_keys)
        self._stored_places.update(entry.place for entry in waiting)
        changes = LaneChanges(
            lane=self.name,
            numbered=tuple(self._numbered),
            waiting=waiting,
            no_longer_waiting=tuple(self._gone_places),
            released_up_to=self._released_up_to,
            next_seq=self.next_seq,
        )
        self._numbered.clear()
        self._unwritten_keys.clear()
        self._gone_places.clear()
        self._released_up_to = None
        return changes

    @property
    def must_commit(self) -> bool:
        """Whether something waits for the card that somebody else waits for."""
        return bool(self._numbered or self._unwritten_keys)

    def committed(self, seq: int) -> None:
        """All numbers up to this one are on the card and may be sent."""
        self._committed_seq = max(self._committed_seq, seq)

    def connected(self, t_ms: int) -> None:
        """A new connection: begin again with the first message without a receipt."""
        self._sent_seq = self.oldest - 1
        self._confirmed.clear()
        self._progress_t_ms = t_ms

    def to_send(self, t_ms: int) -> list[Message]:
        """Messages that may leave now, in order. They count as sent."""
        if self._held and t_ms - self._progress_t_ms >= STALLED_AFTER_MS:
            self._sent_seq = self.oldest - 1
            self._progress_t_ms = t_ms
        ready = [
            message for seq, message in self._held.items() if self._sent_seq < seq <= self._committed_seq
        ]
        if ready and ready[-1].seq is not None:
            self._sent_seq = ready[-1].seq
            self._ever_sent_seq = max(self._ever_sent_seq, self._sent_seq)
        return ready

    def next_resend_t_ms(self) -> int | None:
        """When silence becomes a stall, if something is under way."""
        return self._progress_t_ms + STALLED_AFTER_MS if self._held else None

    def receipt(self, seq: int, t_ms: int) -> bool:
        """The collector has stored all up to this number. False if it is to be ignored.

        A receipt above what has been sent is not ours (mqtt page); what an earlier connection or start sent
        from the same store counts.
        """
        if seq > self._ever_sent_seq:
            return False
        released = [held for held in self._held if held <= seq]
        for held in released:
            del self._held[held]
        if released:
            self._released_up_to = seq
            self._progress_t_ms = t_ms
        return True

    def confirmed(self, seq: int, t_ms: int) -> None:
        """Without a collector the broker's confirmation releases; in order, for the store keeps a prefix."""
        if seq in self._held:
            self._confirmed.add(seq)
        while self._held and self.oldest in self._confirmed:
            self._confirmed.discard(self.oldest)
            self.receipt(self.oldest, t_ms)

    def _forget_waiting(self, key: str) -> Waiting:
        entry = self._waiting.pop(key)
        self._unwritten_keys.discard(key)
        if entry.place in self._stored_places:
            self._stored_places.discard(entry.place)
            self._gone_places.append(entry.place)
        return entry
