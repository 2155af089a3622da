"""The second store: how messages leave while the card refuses (mqtt page, "Numbers, stores and receipts").

It has a token of its own, made in memory, and numbers from 1, so what leaves by it needs no commit. Each
message leaves under one store only. When the card refuses, what the first store has numbered and not written,
and its alerts that wait, are taken back and leave by this one. When the card works again, what nobody can
have received goes back; what was sent goes on to be sent under its number until its receipt, and is kept on
the card meanwhile, for a start that does not know this store any more: that one says it again under the
first.
"""

from __future__ import annotations

from msgspec import Struct

from alerts import wire
from alerts.sink import Lane as LaneName
from alerts.sink import Message
from gateway.lanes import Draft, Lane, LaneKept, LanePolicy, NumberDraft

_POLICIES = {
    LaneName.ALERTS: LanePolicy(in_memory_only=True),
    # Some megabytes: memory is all there is.
    LaneName.TELEMETRY: LanePolicy(in_memory_only=True, waiting_max=200),
}


class SentFromMemory(Struct, frozen=True, kw_only=True):
    """What has left by the second store and has no receipt yet, by lane."""

    drafts: dict[LaneName, list[Draft]]


class SecondStore:
    """The lanes of messages that no card has."""

    def __init__(self, store: str, number_draft: NumberDraft) -> None:
        self.store = store
        self.in_use = False
        """The card refuses: everything leaves by this one."""
        self.lanes = {
            name: Lane(name, LaneKept(), number_draft, policy) for name, policy in _POLICIES.items()
        }

    @property
    def idle(self) -> bool:
        """Whether there is nothing to send and no receipt to wait for."""
        return all(lane.idle for lane in self.lanes.values())

    def take_over(self, first: dict[LaneName, Lane]) -> None:
        """The card refuses. Telemetry that the card would have waits for it, and so do answers to orders: no
        order is told to be in force before it is kept.
        """
        self.in_use = True
        for draft in first[LaneName.ALERTS].take_back():
            place = wire.parse_topic(draft.topic)
            waits = place is not None and place.what == "order"
            (first if waits else self.lanes)[LaneName.ALERTS].put(draft)

    def hand_back(self, first: dict[LaneName, Lane]) -> None:
        """The card works again."""
        self.in_use = False
        for name, lane in self.lanes.items():
            for draft in lane.take_back():
                first[name].put(draft)

    def number(self, t_ms: int, *, connected: bool) -> list[Message]:
        """Give numbers, which count at once; what is new of the alerts."""
        if self.idle:
            return []
        self.lanes[LaneName.TELEMETRY].number(t_ms, may_leave=connected)
        new = self.lanes[LaneName.ALERTS].number(t_ms)
        for lane in self.lanes.values():
            lane.take_changes()
            lane.committed(lane.next_seq - 1)
        return new

    def kept(self) -> SentFromMemory:
        """What the card must have of it while it works."""
        return SentFromMemory(drafts={name: lane.perhaps_received for name, lane in self.lanes.items()})
