"""All that leaves and must not be lost: the lanes, what of them is on the card, and what readers were told.

A message leaves by the card's lanes, or, while the card refuses, by those of the second store
(gateway/second_store.py). The outbox knows which commits are under way, so that nothing is sent before it is
on the card; which alerts are open as the messages told them; and what waits for the broker's answer.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence

import msgspec
from msgspec import Struct

from alerts import wire
from alerts.mqtt import BrokerConfirmed
from alerts.sink import Lane as LaneName
from alerts.sink import Message
from gateway import projections
from gateway.broker_answers import REFUSED_FOR_CONTENT, BrokerAnswers, releases
from gateway.closed_topics import ClosedTopics
from gateway.effects import Send
from gateway.lanes import POLICIES, AnyLane, Draft, Fetch, Lane, LaneChanges, LaneKept, OwnLane, Waiting
from gateway.projections import Speaker
from gateway.second_store import SecondStore, SentFromMemory


class OutboxKept(Struct, frozen=True, kw_only=True):
    """What an earlier start has left besides the lanes."""

    told: Mapping[str, int]
    tellings: Mapping[str, Draft]
    closed_topics: Mapping[str, int] | None
    sent_from_memory: SentFromMemory | None


class _CommitUnderWay(Struct, frozen=True, kw_only=True):
    """What will be true once a commit is on the card."""

    seqs: dict[AnyLane, int]
    writes: dict[AnyLane, int]
    told: dict[str, int]


class Outbox:
    """The durable ways out of one gateway. It is told what happens, and asked what to write and to send."""

    def __init__(
        self, speaker: Speaker, *, collector: str, lanes: Mapping[AnyLane, LaneKept], kept: OutboxKept
    ) -> None:
        """``collector``: whose receipts release a message; empty: the broker's confirmation does."""
        self._speaker = speaker
        self._collector = collector
        self._number_t_ms = 0
        self.lanes: dict[LaneName, Lane] = {
            name: Lane(
                name,
                lanes.get(name, LaneKept()),
                lambda draft, seq: self._speaker.numbered(draft, seq, self._number_t_ms),
                POLICIES.get(name),
            )
            for name in (LaneName.ALERTS, LaneName.TELEMETRY)
        }
        self._second_speaker = msgspec.structs.replace(speaker, store=f"m{speaker.boot}")
        self.second = SecondStore(
            self._second_speaker.store,
            lambda draft, seq: self._second_speaker.numbered(draft, seq, self._number_t_ms),
        )
        for name, drafts in kept.sent_from_memory.drafts.items() if kept.sent_from_memory else ():
            for draft in drafts:
                self.lanes[name].put(draft)
        self.history = Lane(
            OwnLane.HISTORY,
            lanes.get(OwnLane.HISTORY, LaneKept()),
            lambda draft, seq: draft.payload,
            POLICIES[OwnLane.HISTORY],
        )
        self._on_card: dict[AnyLane, Lane] = {
            lane.name: lane for lane in (*self.lanes.values(), self.history)
        }
        self.told: dict[str, int] = dict(kept.told)
        """Open alerts as the committed messages tell them: what ``beat`` and ``open`` count."""
        self._told_when_committed = dict(kept.told)
        self._tellings: dict[str, Draft] = dict(kept.tellings)
        """The newest telling of each open alert: what a resync says again."""
        self.closed_topics = ClosedTopics(kept.closed_topics)
        self.broker_answers = BrokerAnswers(speaker.home)
        self._next_commit = 1
        self._commits_under_way: OrderedDict[int, _CommitUnderWay] = OrderedDict()
        self._next_token = 1
        self._tokens: dict[int, Message] = {}
        """What waits for the broker's answer."""

    # -- what there is ------------------------------------------------------------------------------------

    @property
    def alerts(self) -> Lane:
        """Where a new message of the lane ``alerts`` leaves: while the card refuses, not by the card."""
        return self._lane(LaneName.ALERTS)

    @property
    def telemetry(self) -> Lane:
        """And a batch of points."""
        return self._lane(LaneName.TELEMETRY)

    @property
    def as_of(self) -> int:
        """The alerts number that ``told`` includes."""
        return self.lanes[LaneName.ALERTS].committed_seq

    @property
    def in_memory(self) -> int:
        """How many messages and drafts are in memory, of all lanes."""
        return sum(lane.in_memory for lane in (*self._every_lane(), self.history))

    @property
    def telemetry_dropped(self) -> int:
        """How many batches have been given up for want of room."""
        return sum(lanes[LaneName.TELEMETRY].dropped for lanes in (self.lanes, self.second.lanes))

    @property
    def commits_under_way(self) -> int:
        """How many are on their way to the card; what it refuses is tried again as one."""
        return len(self._commits_under_way)

    def next_resend_t_ms(self) -> list[int | None]:
        """When silence becomes a stall, of each lane where something is under way."""
        wakes: list[int | None] = []
        for name in self.lanes:
            both = (self.second.lanes[name], self.lanes[name])
            wakes.extend(lane.next_resend_t_ms() for lane in both)
            if not all(lane.all_sent for lane in both):
                # The next ones wait for these, whatever is due in them.
                break
        return wakes

    def _every_lane(self) -> list[Lane]:
        """In the order in which they are served: alerts before telemetry."""
        return [lanes[name] for name in self.lanes for lanes in (self.second.lanes, self.lanes)]

    def _lane(self, name: LaneName) -> Lane:
        return (self.second.lanes if self.second.in_use else self.lanes)[name]

    # -- what is to leave ---------------------------------------------------------------------------------

    def put_alert(self, alert_id: str, draft: Draft, *, closed: bool) -> None:
        """A telling of an alert: the newest is what a resync says again."""
        self.alerts.put(draft)
        if closed:
            self._tellings.pop(alert_id, None)
        else:
            self._tellings[alert_id] = draft

    def tell_all_again(self) -> None:
        """Each open alert, as it was last told."""
        for draft in self._tellings.values():
            self.alerts.put(draft)

    def put_order(self, draft: Draft, keys: str, most: int) -> None:
        """An answer to an order. It leaves when the order is kept, so never from memory.

        The broker keeps the last one, which must be the newest; of those under ``keys`` at most so many wait.
        """
        lane = self.lanes[LaneName.ALERTS]
        lane.forget(draft.key)
        lane.put(draft)
        lane.keep_newest(keys, most)

    def number(self, t_ms: int, *, connected: bool) -> bool:
        """Give numbers where there is room; whether ``told`` has changed."""
        self._number_t_ms = t_ms
        on_card = not self.second.in_use
        self.lanes[LaneName.ALERTS].number(t_ms, may_leave=on_card)
        # Not before it can leave: what is old then must say so, and a batch that waits grows full.
        self.lanes[LaneName.TELEMETRY].number(t_ms, may_leave=on_card and connected)
        told = self.second.number(t_ms, connected=connected)
        if not told:
            return False
        # They are told without a commit; one that comes later must not forget it.
        self.told = projections.told(self.told, told)
        self._told_when_committed = projections.told(self._told_when_committed, told)
        for number, under_way in self._commits_under_way.items():
            self._commits_under_way[number] = msgspec.structs.replace(
                under_way, told=projections.told(under_way.told, told)
            )
        return True

    # -- the card -----------------------------------------------------------------------------------------

    def must_commit(self, *, connected: bool) -> bool:
        """Whether something waits for the card that somebody else waits for."""
        return (
            self.lanes[LaneName.ALERTS].must_commit
            or (connected and self.lanes[LaneName.TELEMETRY].has_new_numbers)
            or self.history.has_new_numbers
        )

    def take_changes(self) -> tuple[LaneChanges, ...]:
        """What has to be written of the lanes since this was last asked."""
        changes = tuple(
            changes for lane in self._on_card.values() if not (changes := lane.take_changes()).empty
        )
        numbered = [message for one in changes for message in one.numbered]
        self._told_when_committed = projections.told(self._told_when_committed, numbered)
        return changes

    def kept(self) -> list[tuple[str, bytes]]:
        """What a start must find again besides the lanes, by name; after ``take_changes``."""
        return [
            ("tellings", msgspec.msgpack.encode(self._tellings)),
            ("closed_topics", msgspec.msgpack.encode(self.closed_topics.kept)),
            ("sent_from_memory", msgspec.msgpack.encode(self.second.kept())),
            ("told", msgspec.msgpack.encode(self._told_when_committed)),
        ]

    def commit_begins(self) -> int:
        """All that was taken is on its way to the card; the number of that commit."""
        number = self._next_commit
        self._next_commit += 1
        self._commits_under_way[number] = _CommitUnderWay(
            seqs={name: lane.next_seq - 1 for name, lane in self._on_card.items()},
            writes={name: lane.writes for name, lane in self._on_card.items()},
            told=self._told_when_committed,
        )
        return number

    def committed(self, number: int) -> bool:
        """All commits up to this one are on the card; whether ``told`` has changed."""
        changed = False
        while self._commits_under_way and next(iter(self._commits_under_way)) <= number:
            _, under_way = self._commits_under_way.popitem(last=False)
            for name, seq in under_way.seqs.items():
                self._on_card[name].committed(seq, under_way.writes[name])
            if under_way.told != self.told:
                self.told = under_way.told
                changed = True
        return changed

    def card_works(self) -> bool:
        """The card has taken something: messages leave by it again. False if they did already."""
        if not self.second.in_use:
            return False
        self.second.hand_back(self.lanes)
        return True

    def card_refuses(self, number: int) -> bool:
        """The card has refused all up to this commit: messages leave from memory.

        False if they did already.
        """
        # All that was refused is tried again as one.
        for earlier in [earlier for earlier in self._commits_under_way if earlier < number]:
            del self._commits_under_way[earlier]
        if self.second.in_use:
            return False
        self.second.take_over(self.lanes)
        self._not_committed_from(LaneName.ALERTS, self.lanes[LaneName.ALERTS].next_seq)
        return True

    def fetched(self, fetch: Fetch, found: Sequence[Waiting]) -> None:
        """What the card has of what was wanted."""
        self._on_card[fetch.lane].fetched(fetch, found)

    def wanted(self) -> tuple[Fetch, ...]:
        """What must be read from the card, for its turn comes near."""
        return tuple(fetch for lane in self._on_card.values() if (fetch := lane.wanted()) is not None)

    def _not_committed_from(self, name: LaneName, seq: int) -> None:
        """What is under way to the card does not have this number as it is now, nor a later one."""
        for under_way in self._commits_under_way.values():
            under_way.seqs[name] = min(under_way.seqs[name], seq - 1)

    # -- the broker ---------------------------------------------------------------------------------------

    def connected(self, t_ms: int) -> None:
        """A new connection: each lane begins again with the first message without a receipt."""
        self._tokens.clear()
        self.broker_answers.connected()
        self.closed_topics.connected()
        for lane in self._every_lane():
            lane.connected(t_ms)

    def to_send(self, t_ms: int) -> list[Send]:
        """Numbered messages that may leave now, and topics that may be cleared."""
        sends: list[Send] = []
        for name in self.lanes:
            both = (self.second.lanes[name], self.lanes[name])
            sends.extend(self.send(message) for lane in both for message in lane.to_send(t_ms))
            if not all(lane.all_sent for lane in both):
                # Alerts before telemetry: whatever has piled up of them.
                break
        if self.lanes[LaneName.ALERTS].idle and self.second.lanes[LaneName.ALERTS].idle:
            # Whoever wants to know of an end has it: its message is not cleared before it was read.
            sends.extend(
                self.send(Message(topic=topic, payload=b"", retain=True))
                for topic in self.closed_topics.to_clear(t_ms)
            )
        return sends

    def send(self, message: Message) -> Send:
        """A message with the token by which the broker's answer will be known."""
        token = self._next_token
        self._next_token += 1
        if message.qos:
            self._tokens[token] = message
        return Send(message=message, token=token)

    def confirmed(self, event: BrokerConfirmed, t_ms: int, utc_ms: int) -> str | None:
        """The broker's answer to a message. A sentence for the log if it says something new."""
        sent = self._tokens.pop(event.token, None)
        place = wire.parse_topic(sent.topic) if sent is not None else None
        if sent is None or place is None:
            return None
        note = self.broker_answers.heard(place.what, event.reason_code)
        if not sent.payload:
            self.closed_topics.cleared(sent.topic)
        if sent.lane is None or sent.seq is None:
            return note
        lane, seq, speaker = self.lanes[sent.lane], sent.seq, self._speaker
        number = wire.decode_number(sent.payload)
        if number is not None and number.store != self._speaker.store:
            # Also what was sent twice and released by the first answer: its numbers are not the card's.
            lane, speaker = self.second.lanes[sent.lane], self._second_speaker
        message = lane.held(seq)
        if (
            event.reason_code in REFUSED_FOR_CONTENT
            and message is not None
            and not projections.is_void(message)
        ):
            # The collector learns that something is missing; a void that is refused as well it passes over.
            reason = f"refused by the broker: {event.reason_code}"
            lane.replace(seq, speaker.void(utc_ms, sent.lane, seq, reason))
            if speaker is self._speaker:
                self._not_committed_from(sent.lane, seq)
        elif not self._collector and releases(event.reason_code):
            lane.confirmed(seq, t_ms)
        return note

    def receipt(self, receipt: wire.Receipt, t_ms: int) -> int:
        """The collector has stored all up to these numbers. How many of its words are to be ignored."""
        lanes = {self._speaker.store: self.lanes, self.second.store: self.second.lanes}.get(receipt.store)
        if lanes is None or receipt.collector != self._collector or not self._collector:
            return 1
        numbers: Iterable[tuple[LaneName, int]] = (
            (LaneName.ALERTS, receipt.alerts),
            (LaneName.TELEMETRY, receipt.telemetry),
        )
        return sum(not lanes[name].receipt(seq, t_ms) for name, seq in numbers)
