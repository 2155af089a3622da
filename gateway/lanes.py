"""A lane: one durable way out, with an order and numbers of its own (mqtt page, "Numbers, stores and
receipts").

A draft waits without a number; while it waits, a newer draft with the same key takes its place. It gets its
number when there is room among the twenty that may be under way, in the transaction that commits it, and from
then on its bytes never change. It is sent only after that commit, again after each connection and after 30 s
without progress, and is forgotten only on the collector's receipt.

Of a lane with a window the card holds what waits, for days, and memory only the oldest and what is not yet
written: all between is known by its place, and is fetched when its turn comes near.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import TypeAlias

from msgspec import Struct

from alerts.sink import Lane as LaneName
from alerts.sink import Message

UNDER_WAY_MAX = 20
"""How many messages may be under way in a lane (mqtt page)."""
STALLED_AFTER_MS = 30_000
"""So long without progress, and everything without a receipt is sent again (mqtt page)."""


class OwnLane(StrEnum):
    """Durable ways out that are not over MQTT: the broker and its page do not know them."""

    HISTORY = "history"


AnyLane: TypeAlias = LaneName | OwnLane


class LanePolicy(Struct, frozen=True, kw_only=True):
    """How much of a lane may be where. ``None``: no bound."""

    under_way_max: int = UNDER_WAY_MAX
    """How many messages have a number and no receipt."""
    waiting_max: int | None = None
    """How many drafts may wait; the oldest above it are dropped and counted."""
    waiting_bytes_max: int | None = None
    """And how many bytes they may take on the card."""
    window: int | None = None
    """Of how many of the oldest drafts the contents are in memory, when the card has the others."""
    unwritten_max: int | None = None
    """How many drafts may be in memory that the card does not have: it may refuse for long."""
    in_memory_only: bool = False
    """Nothing of it is ever on a card."""
    stalled_after_ms: int | None = STALLED_AFTER_MS
    """So long without progress, and all is sent again; ``None`` if whoever is handed it will answer."""


POLICIES: Mapping[AnyLane, LanePolicy] = {
    LaneName.TELEMETRY: LanePolicy(
        # Seven days of four pumps polled each second, and some batches that a restart has left unfilled.
        waiting_max=25_000,
        waiting_bytes_max=400_000_000,
        window=2 * UNDER_WAY_MAX,
        unwritten_max=200,
    ),
    OwnLane.HISTORY: LanePolicy(
        # Seven days of a batch each 30 s, and some that a restart has made; of four pumps polled each second.
        waiting_max=21_000,
        waiting_bytes_max=450_000_000,
        window=2 * UNDER_WAY_MAX,
        unwritten_max=200,
        stalled_after_ms=None,
    ),
}
"""Of each lane; one that is not named has no bounds."""


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

    lane: AnyLane
    numbered: tuple[Message, ...] = ()
    waiting: tuple[Waiting, ...] = ()
    no_longer_waiting: tuple[int, ...] = ()
    released_up_to: int | None = None
    next_seq: int = 1
    taken_back: bool = False
    """Numbers from ``next_seq`` on were given before, and never sent: what has them is to be forgotten."""

    @property
    def empty(self) -> bool:
        """Whether there is nothing to write."""
        return (
            not self.numbered
            and not self.waiting
            and not self.no_longer_waiting
            and self.released_up_to is None
            and not self.taken_back
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
                if seq is not None and (released_up_to or 0) < seq < later.next_seq
            ),
            waiting=tuple(entry for place, entry in waiting.items() if place not in gone),
            no_longer_waiting=tuple(sorted(gone)),
            released_up_to=released_up_to,
            next_seq=later.next_seq,
            taken_back=self.taken_back or later.taken_back,
        )


class LaneKept(Struct, frozen=True, kw_only=True):
    """What the store kept of one lane."""

    next_seq: int = 1
    numbered: tuple[Message, ...] = ()
    waiting: tuple[Waiting, ...] = ()
    """The oldest that wait, as many as the lane's window takes."""
    further_places: Sequence[int] = ()
    """Places of the others, in order, whose contents stay on the card."""
    further_bytes: Sequence[int] = ()
    """How many bytes each of them takes there."""


class Fetch(Struct, frozen=True, kw_only=True):
    """Drafts whose turn comes near: these places and all between them."""

    lane: AnyLane
    first_place: int
    last_place: int


NumberDraft = Callable[[Draft, int], bytes]
"""Gives a draft its number: (draft, seq) to the payload that will never change again."""


class Lane:
    """The queue of one lane. It is told what happens and asked what to write and what to send."""

    def __init__(
        self, name: AnyLane, kept: LaneKept, number_draft: NumberDraft, policy: LanePolicy | None = None
    ) -> None:
        self.name = name
        self._mqtt_lane = name if isinstance(name, LaneName) else None
        self.next_seq = kept.next_seq
        self.dropped = 0
        """Waiting drafts that were dropped because there was no room for them."""
        self.writes = 0
        """How often changes have been taken: what ``committed`` is told of."""
        self._number_draft = number_draft
        self._policy = policy or LanePolicy()
        self._held: OrderedDict[int, Message] = OrderedDict(
            (message.seq, message) for message in kept.numbered if message.seq is not None
        )
        waiting = sorted(kept.waiting, key=lambda entry: entry.place)
        self._drafts: dict[int, Draft] = {entry.place: entry.draft for entry in waiting}
        """By place; without those that only the card has."""
        self._place_of: dict[str, int] = {entry.draft.key: entry.place for entry in waiting}
        # All that waits, in order. Plain numbers: it may be for days.
        self._places = array("q", [*self._drafts, *kept.further_places])
        self._bytes = array("q", [*(len(entry.draft.payload) for entry in waiting), *kept.further_bytes])
        self._bytes_waiting = sum(self._bytes)
        self._next_place = max(self._places, default=0) + 1
        self._growing: set[int] = set()
        self._unwritten: dict[int, None] = {}
        self._never_taken: set[int] = set()
        self._not_committed: OrderedDict[int, int] = OrderedDict()
        """Places by the write that carries them to the card."""
        self._fetching = False
        self._gone_places: list[int] = []
        self._numbered: list[Message] = []
        self._numbered_drafts: dict[int, Draft] = {}
        """Of what has a number that is not on the card yet; in a lane without a card, of all that is held."""
        self._taken_back = False
        self._released_up_to: int | None = None
        self._committed_seq = kept.next_seq - 1
        self._ever_committed_seq = kept.next_seq - 1
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
    def under_way(self) -> bool:
        """Whether anything has a number and no receipt."""
        return bool(self._held)

    @property
    def idle(self) -> bool:
        """Whether nothing is held and nothing waits."""
        return not self._held and not self._places

    @property
    def all_sent(self) -> bool:
        """Whether nothing is left to send but what is sent again for want of a receipt."""
        return not self._places and self._sent_seq >= self.next_seq - 1

    @property
    def has_room(self) -> bool:
        """Whether a draft put now would be numbered at once."""
        return not self._places and len(self._held) < self._policy.under_way_max

    @property
    def in_memory(self) -> int:
        """How many drafts and messages are in memory."""
        return len(self._held) + len(self._drafts)

    def waits(self, key: str) -> bool:
        """Whether a draft with this key still waits for a number and can be replaced."""
        return key in self._place_of

    def held(self, seq: int) -> Message | None:
        """The message with this number, while there is no receipt for it."""
        return self._held.get(seq)

    def put(self, draft: Draft, *, grows: bool = False) -> None:
        """Take a draft; one with the same key that still waits is replaced, and keeps its place.

        One that ``grows`` will be replaced soon: it stays in memory. In a lane with a window every other may
        soon be known to the card only, and cannot be replaced any more.
        """
        place = self._place_of.get(draft.key)
        size = len(draft.payload)
        if place is None:
            place = self._next_place
            self._next_place += 1
            self._place_of[draft.key] = place
            self._places.append(place)
            self._bytes.append(size)
            self._never_taken.add(place)
        else:
            index = bisect_left(self._places, place)
            self._bytes_waiting -= self._bytes[index]
            self._bytes[index] = size
        self._bytes_waiting += size
        self._drafts[place] = draft
        self._unwritten[place] = None
        if grows:
            self._growing.add(place)
        else:
            self._growing.discard(place)

    def forget(self, key: str) -> None:
        """Drop the draft with this key if it still waits for a number."""
        if key in self._place_of:
            self._drop(bisect_left(self._places, self._place_of[key]))

    def keep_newest(self, beginning: str, count: int) -> None:
        """Of the drafts that wait under keys with this beginning, drop all but the newest."""
        places = sorted(place for key, place in self._place_of.items() if key.startswith(beginning))
        for place in places[: max(0, len(places) - count)]:
            self._drop(bisect_left(self._places, place))

    def number(self, t_ms: int, *, may_leave: bool = True) -> list[Message]:
        """Give numbers to the oldest drafts, as far as there is room; returns the new messages.

        None if nothing may leave now. Of what still waits, the oldest that exceed the lane's bounds are
        dropped and counted.
        """
        new: list[Message] = []
        while (
            may_leave
            and self._places
            and len(self._held) < self._policy.under_way_max
            and (draft := self._drafts.get(self._places[0])) is not None
        ):
            self._remove(0)
            message = Message(
                topic=draft.topic,
                payload=self._number_draft(draft, self.next_seq),
                retain=draft.retain,
                expiry_s=draft.expiry_s,
                lane=self._mqtt_lane,
                seq=self.next_seq,
            )
            if not self._held:
                self._progress_t_ms = t_ms
            self._held[self.next_seq] = message
            self._numbered_drafts[self.next_seq] = draft
            self._numbered.append(message)
            new.append(message)
            self.next_seq += 1
        self._keep_within_bounds()
        return new

    def _keep_within_bounds(self) -> None:
        policy = self._policy
        while self._places and (
            (policy.waiting_max is not None and len(self._places) > policy.waiting_max)
            or (policy.waiting_bytes_max is not None and self._bytes_waiting > policy.waiting_bytes_max)
        ):
            self._drop(0)
        if policy.unwritten_max is None:
            return
        while len(self._not_committed.keys() | self._unwritten.keys()) > policy.unwritten_max:
            # The card refuses, and what it does not have is in memory only.
            self._drop(bisect_left(self._places, min(self._not_committed.keys() | self._unwritten.keys())))

    def wanted(self) -> Fetch | None:
        """What must be fetched from the card, for its turn comes near; said once until it has come."""
        if self._fetching or self._policy.window is None or len(self._drafts) == len(self._places):
            return None
        if all(place in self._drafts for place in self._places[: self._policy.under_way_max]):
            return None
        wanted = [place for place in self._places[: self._policy.window] if place not in self._drafts]
        self._fetching = True
        return Fetch(lane=self.name, first_place=wanted[0], last_place=wanted[-1])

    def fetched(self, fetch: Fetch, found: Sequence[Waiting]) -> None:
        """What the card has of what was wanted. What it does not have any more is dropped and counted."""
        self._fetching = False
        of_place = {entry.place: entry.draft for entry in found}
        index = bisect_left(self._places, fetch.first_place)
        while index < len(self._places) and self._places[index] <= fetch.last_place:
            place = self._places[index]
            draft = of_place.get(place)
            if place in self._drafts:
                index += 1
            elif draft is None:
                self._drop(index)
            else:
                self._drafts[place] = draft
                self._place_of[draft.key] = place
                index += 1

    def replace(self, seq: int, payload: bytes) -> None:
        """Put another payload under a number whose content the broker refuses (``void``, mqtt page).

        It is sent once it is on the card; the numbers after it wait with it.
        """
        message = self._held.get(seq)
        if message is None:
            return
        voided = Message(topic=message.topic, payload=payload, lane=self._mqtt_lane, seq=seq)
        self._held[seq] = voided
        self._numbered_drafts.pop(seq, None)
        self._numbered.append(voided)
        self._sent_seq = min(self._sent_seq, seq - 1)
        self._committed_seq = min(self._committed_seq, seq - 1)

    @property
    def never_sent(self) -> list[Draft]:
        """Of what has a number, that which nobody can have received, in order.

        What is on the card may have been sent by an earlier start.
        """
        floor = self._ever_sent_seq
        if not self._policy.in_memory_only:
            floor = max(floor, self._ever_committed_seq)
        return [draft for seq, draft in self._numbered_drafts.items() if seq > floor]

    @property
    def perhaps_received(self) -> list[Draft]:
        """Of a lane without a card, what was sent and has no receipt."""
        return [draft for seq, draft in self._numbered_drafts.items() if seq <= self._ever_sent_seq]

    def take_back(self) -> list[Draft]:
        """Everything that may leave in another way, in order; its numbers and places are as if never given.

        That is what ``never_sent`` says, and all that waits and is in memory.
        """
        taken = self.never_sent
        for _ in taken:
            self.next_seq -= 1
            del self._held[self.next_seq], self._numbered_drafts[self.next_seq]
        if taken:
            self._taken_back = True
            self._numbered = [m for m in self._numbered if m.seq is not None and m.seq < self.next_seq]
        for place in sorted(self._drafts):
            taken.append(self._drafts[place])
            self._remove(bisect_left(self._places, place))
        return taken

    def take_changes(self) -> LaneChanges:
        """What has to be written since this was last asked."""
        self.writes += 1
        for place in self._unwritten:
            self._not_committed[place] = self.writes
            self._not_committed.move_to_end(place)
        changes = LaneChanges(
            lane=self.name,
            numbered=tuple(self._numbered),
            waiting=tuple(
                Waiting(place=place, draft=self._drafts[place]) for place in sorted(self._unwritten)
            ),
            no_longer_waiting=tuple(self._gone_places),
            released_up_to=self._released_up_to,
            next_seq=self.next_seq,
            taken_back=self._taken_back,
        )
        self._taken_back = False
        self._numbered.clear()
        self._unwritten.clear()
        self._never_taken.clear()
        self._gone_places.clear()
        self._released_up_to = None
        return changes

    @property
    def must_commit(self) -> bool:
        """Whether something waits for the card that somebody else waits for."""
        return bool(self._numbered or self._unwritten)

    @property
    def has_new_numbers(self) -> bool:
        """Whether messages wait for the card before they may be sent."""
        return bool(self._numbered)

    def committed(self, seq: int, writes: int = 0) -> None:
        """All numbers up to this one are on the card and may be sent, and so many writes are."""
        self._committed_seq = max(self._committed_seq, seq)
        self._ever_committed_seq = max(self._ever_committed_seq, seq)
        if not self._policy.in_memory_only:
            for on_the_card in [known for known in self._numbered_drafts if known <= seq]:
                del self._numbered_drafts[on_the_card]
        while self._not_committed and next(iter(self._not_committed.values())) <= writes:
            place, _ = self._not_committed.popitem(last=False)
            self._leave_to_the_card(place)

    def _leave_to_the_card(self, place: int) -> None:
        window = self._policy.window
        if window is None or len(self._places) <= window or place < self._places[window]:
            return
        if place not in self._growing and place not in self._unwritten:
            del self._place_of[self._drafts.pop(place).key]

    def connected(self, t_ms: int) -> None:
        """A new connection: begin again with the first message without a receipt."""
        self._sent_seq = self.oldest - 1
        self._confirmed.clear()
        self._progress_t_ms = t_ms

    def to_send(self, t_ms: int) -> list[Message]:
        """Messages that may leave now, in order. They count as sent."""
        if not self._held:
            return []
        stalls_t_ms = self.next_resend_t_ms()
        if stalls_t_ms is not None and t_ms >= stalls_t_ms:
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
        stalled_after_ms = self._policy.stalled_after_ms
        return self._progress_t_ms + stalled_after_ms if self._held and stalled_after_ms is not None else None

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
            self._numbered_drafts.pop(held, None)
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

    def _drop(self, index: int) -> None:
        self._remove(index)
        self.dropped += 1

    def _remove(self, index: int) -> None:
        place = self._places.pop(index)
        self._bytes_waiting -= self._bytes.pop(index)
        draft = self._drafts.pop(place, None)
        if draft is not None:
            del self._place_of[draft.key]
        self._growing.discard(place)
        self._unwritten.pop(place, None)
        self._not_committed.pop(place, None)
        if place in self._never_taken:
            self._never_taken.discard(place)
        else:
            self._gone_places.append(place)
