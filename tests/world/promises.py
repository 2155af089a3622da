"""What may never happen in the fake world, watched while it happens, and what is owed at its end.

The promises are those of the project: never an alert that the truth does not support, never one that is told
before it is on the card, never an acknowledgement forgotten, no number twice, no old data shown as new, no
byte to a pump that is no query. In the end all is on the board, every point has come once, and each
interruption was itself reported.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from alerts import wire
from alerts.alert import Alert, AlertState, Reason
from alerts.condition import Kind, Priority
from alerts.dashboard.board import is_orphan
from alerts.dashboard.views import why_home_unknown
from alerts.sink import Lane, Message
from drivers import families
from gateway.effects import Commit, Send
from gateway.store import Restored
from tests.world.names import HOME

if TYPE_CHECKING:
    from tests.world.home import Home
    from tests.world.world import World

S = 1_000
LOOKS_EVERY_MS = 30 * S
WHOLE_AFTER_MS = 36 * S
"""So long after all was well again all has come that was under way: 30 s until it is sent again, and 5 s."""
TOLD_WITHIN_MS = 6 * S
REPORTED_WITHIN_MS = 10 * S
GATHERED_MS = 60 * S
"""The newest telemetry need not have come yet."""
SOUNDS = frozenset({Reason.FIRST, Reason.AGAIN, Reason.WORSE, Reason.REPEATED, Reason.ESCALATED})
BEGINS = frozenset({Reason.FIRST, Reason.AGAIN, Reason.WORSE})
SEEN_IN_READINGS = frozenset(
    {
        Kind.WRONG_RATE,
        Kind.UNDER_INFUSION,
        Kind.OVER_INFUSION,
        Kind.NO_DELIVERY,
        Kind.OCCLUSION,
        Kind.OCCLUSION_SUSPECTED,
        Kind.BAG_EMPTY,
        Kind.PUMP_ALARM,
        Kind.NO_DATA,
        Kind.GARBLED_LINK,
        Kind.PAUSED_TOO_LONG,
    }
)
"""They end only with what a pump says."""


class Broken(AssertionError):
    """A promise has not been kept; in words."""


@dataclass(frozen=True, kw_only=True)
class Deviation:
    """Something that is wrong with a pump and must be told as one of these kinds."""

    pump: str
    words: str
    kinds: frozenset[Kind]
    at_ms: int
    by_ms: int


Truth = Callable[[Kind, str, int], bool]
"""Whether a kind may be told of a pump at a time."""


@dataclass
class _Card:
    """What has been seen to be on the card of one gateway."""

    numbers: dict[tuple[Lane, int], int] = field(default_factory=dict)
    alerts: dict[str, tuple[Alert, int]] = field(default_factory=dict)
    """The newest of each that is open, and when it last sounded."""
    store: str = ""


class Promises:
    """The watcher of one world. Raises Broken at the instant at which a promise is broken."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.truth: Truth | None = None
        """``None``: whatever is told is believed."""
        self.one_gateway = True
        self.deviations: list[Deviation] = []
        self.told: list[tuple[int, Alert]] = []
        """Each time that an alert began or sounded anew, as the gateway decided it."""
        self.sent_by: dict[str, tuple[int, int]] = {}
        """The revision that somebody had seen, and when they answered, by the name under which they did."""
        self.path_broken_ms = 0
        """When the way to the board last was not whole."""
        self.readings: dict[tuple[str, str, int], int] = {}
        """When each reading was taken, by start, pump and the machine's clock."""
        self.points: Counter[tuple[str, str, int]] = Counter()
        """What has come of them."""
        self._cards: dict[Home, _Card] = {}
        self._book: dict[str, tuple[Alert, int]] = {}
        self._changed_ms: dict[str, int] = {}
        """When each alert last became another revision: also one that is only answered, or resolved."""
        self._heard: dict[str, int | None] = {}
        self._heard_ms: dict[str, int] = {}
        self._interrupted_ms: int | None = None
        self._interruption_decided = False
        self._card_failed_in = 0
        """In which start ``storage_failing`` was raised last."""
        self._bytes: dict[tuple[str, Lane, int], int] = {}
        self._beat_ms: int | None = None
        self._subscribed_ms = 0
        self._seen_points: set[tuple[str, Lane, int]] = set()
        self._came_from_card: dict[tuple[str, str, int], bool] = {}
        """Of each point that has come, whether it first came from the card and not out of memory."""
        self._may_send = {bed.pump: families.find(bed.family).may_send for bed in world.beds}
        world.after(LOOKS_EVERY_MS, self._look)

    # -- the gateway -----------------------------------------------------------------------------------

    def started(self, home: Home, restored: Restored) -> None:
        """A start of the gateway, from what its card holds."""
        engine = home.engine
        assert engine is not None
        card = self._cards.setdefault(home, _Card())
        if restored.store != card.store:
            card.store, card.numbers, card.alerts = restored.store, {}, {}
        on_card = {alert_id: alert for alert_id, (alert, _) in card.alerts.items()}
        for alert_id, alert in on_card.items():
            known = engine.book.open.get(alert_id)
            self._keeps(known is not None, f"{alert_id} ({alert.kind}) is forgotten by a restart")
            self._keeps(
                known is not None and (known.state, known.acknowledged) == (alert.state, alert.acknowledged),
                f"{alert_id} ({alert.kind}) was {alert.state} before the restart and is"
                f" {known.state if known else 'gone'}: an acknowledgement is forgotten",
            )
        self._book = dict(card.alerts)
        if home.cut_last and home.commits:
            self._interrupted_ms = self.world.now_ms
        self._interruption_decided = False
        self._heard = {}

    def power_cut(self, home: Home) -> None:
        self.path_broke()

    def handled(self, home: Home) -> None:
        """The gateway has taken one input."""
        engine = home.engine
        assert engine is not None
        for pump, uptime_ms in engine.heard_uptime_ms.items():
            if uptime_ms is not None and uptime_ms != self._heard.get(pump):
                self._heard[pump] = uptime_ms
                self._heard_ms[pump] = self.world.now_ms
                self.readings[engine.setup.boot, pump, uptime_ms] = self.world.now_ms

    def written(self, home: Home, pump: str, data: bytes) -> None:
        """Bytes go to a pump."""
        self.world.written.append(data)
        self._keeps(self._may_send[pump](data), f"{data!r} is written to {pump}, and is no query")

    def decided(self, home: Home, commit: Commit) -> None:
        """Alerts have changed, and are on their way to the card."""
        for alert in commit.alerts:
            if alert.alert_id in self._book and self._book[alert.alert_id][0].rev == alert.rev:
                self._book[alert.alert_id] = (alert, self._book[alert.alert_id][1])
                continue
            self._changed(alert)
            self._changed_ms[alert.alert_id] = self.world.now_ms
            sounded_ms = self._book[alert.alert_id][1] if alert.alert_id in self._book else 0
            if alert.reason in SOUNDS:
                sounded_ms = self.world.now_ms
                self.told.append((self.world.now_ms, alert))
            if alert.state is AlertState.CLOSED:
                self._book.pop(alert.alert_id, None)
            else:
                self._book[alert.alert_id] = (alert, sounded_ms)
            if alert.kind is Kind.STORAGE_FAILING and alert.reason in BEGINS:
                self._card_failed_in = self.world.home.starts
            if alert.kind is Kind.MONITORING_INTERRUPTED and alert.reason in BEGINS:
                self._interruption_decided = True

    def _changed(self, alert: Alert) -> None:
        now_ms = self.world.now_ms
        what = f"{alert.alert_id} ({alert.kind} on {alert.pump})"
        before, sounded_ms = self._book.get(alert.alert_id, (None, 0))
        if alert.reason in BEGINS and self.truth is not None:
            self._keeps(
                self.truth(alert.kind, alert.pump, now_ms),
                f"{what} is told ({alert.reason}), and the truth does not support it: {alert.message}",
            )
        if before is None:
            return
        if before.state is AlertState.ACKNOWLEDGED and alert.state is AlertState.ACTIVE:
            self._keeps(
                alert.reason in (Reason.REPEATED, Reason.WORSE),
                f"{what} was acknowledged and is active again ({alert.reason})",
            )
        if alert.reason is Reason.ESCALATED:
            waited_ms = now_ms - sounded_ms
            self._keeps(
                waited_ms >= alert.respond_within_s * S - S,
                f"{what} is escalated {waited_ms // S} s after it sounded, not {alert.respond_within_s} s",
            )
        if alert.reason is Reason.RESOLVED and alert.kind in SEEN_IN_READINGS:
            heard_ms = self._heard_ms.get(alert.pump)
            self._keeps(
                heard_ms is not None and now_ms - heard_ms <= self._poll_ms(alert.pump),
                f"{what} is resolved, and nothing was heard of the pump: it is unknown, not gone",
            )
        if alert.reason is Reason.ACKNOWLEDGED and alert.acknowledged is not None:
            sent = self.sent_by.get(alert.acknowledged.by)
            if sent is not None:
                rev, sent_ms = sent
                self._keeps(
                    before.state is AlertState.LATCHED or rev >= before.answerable_rev,
                    f"{what} is acknowledged by one who saw rev {rev}, and was told anew as rev"
                    f" {before.answerable_rev}",
                )
                home = self.world.home
                if home.clock_is_set and home.clock_error_ms == 0:
                    old_s = (now_ms - sent_ms) // S
                    self._keeps(
                        old_s <= alert.respond_within_s + 62,
                        f"{what} is acknowledged by an answer that is {old_s} s old",
                    )

    def _poll_ms(self, pump: str) -> int:
        return next(2 * bed.poll_ms + 5 * S for bed in self.world.beds if bed.pump == pump)

    def committed(self, home: Home, commit: Commit) -> None:
        """This is on the card now."""
        card = self._cards[home]
        for changes in commit.lanes:
            for message in changes.numbered:
                assert message.seq is not None
                card.numbers[message.lane or changes.lane, message.seq] = hash(message.payload)
        for alert in commit.alerts:
            if alert.state is AlertState.CLOSED:
                card.alerts.pop(alert.alert_id, None)
            else:
                card.alerts[alert.alert_id] = (alert, self._book.get(alert.alert_id, (alert, 0))[1])
            if self._interruption_decided and alert.kind is Kind.MONITORING_INTERRUPTED:
                self._interrupted_ms = None

    def released(self, home: Home, send: Send) -> None:
        """A message leaves the gateway."""
        message = send.message
        if message.lane is None or message.seq is None:
            return
        card = self._cards[home]
        if card.numbers.get((message.lane, message.seq)) == hash(message.payload):
            return
        number = wire.decode_number(message.payload)
        assert number is not None
        if number.store != card.store:
            self._keeps(
                self._card_failed_in == home.starts,
                f"{number} is sent out of memory, and storage_failing was not raised",
            )
            return
        self._keeps(
            False,
            f"number {message.seq} of {message.lane} is sent before it is on the card, or with other bytes"
            f" ({message.topic})",
        )

    # -- the board -------------------------------------------------------------------------------------

    def path_broke(self) -> None:
        """The way from the gateway to the board is not, or was not until now, whole."""
        self.path_broken_ms = self.world.now_ms

    def subscribed(self) -> None:
        self.path_broke()
        self._subscribed_ms = self.world.now_ms
        self._beat_ms = None

    def arrived(self, message: Message, retained: bool) -> None:
        """A message has come to the dashboard."""
        if retained:
            return
        if message.topic.endswith("/beat"):
            self._beat_ms = self.world.now_ms
        number = wire.decode_number(message.payload) if message.lane is not None else None
        if number is None:
            return
        key, content = (number.store, number.lane, number.seq), hash(message.payload)
        first = self._bytes.setdefault(key, content)
        if first != content and self.one_gateway:
            raise Broken(f"number {number.seq} of {number.lane} comes twice, with different content")
        if first == content and number.lane is Lane.TELEMETRY and key not in self._seen_points:
            self._seen_points.add(key)
            on_card = any(number.store == card.store for card in self._cards.values())
            telemetry = wire.decode(message.payload, wire.Telemetry)
            place = wire.parse_topic(message.topic)
            assert place is not None and place.pump is not None
            for point in telemetry.points:
                assert point.uptime_s is not None
                taken = (telemetry.boot, place.pump, round(point.uptime_s * S))
                self.points[taken] += 1
                # One that left out of memory has no receipt from before a power cut: the next start says it
                # again, from the card.
                again = not self._came_from_card.setdefault(taken, on_card) and on_card
                self._keeps(
                    self.points[taken] == (2 if again else 1),
                    f"the point of {taken} has come {self.points[taken]} times",
                )

    def board_turned(self) -> None:
        """The board has looked at what there is."""
        board, now_ms = self.world.board.desk.showing.board, self.world.now_ms
        home = board.homes.get(HOME)
        if home is None or why_home_unknown(board, home, now_ms):
            return
        self._keeps(
            self._beat_ms is not None and now_ms - self._beat_ms <= 30 * S,
            "the board shows the home as known, and no beat has come for 30 s",
        )

    # -- now and then ----------------------------------------------------------------------------------

    def _look(self) -> None:
        self.world.after(LOOKS_EVERY_MS, self._look)
        world = self.world
        if not world.path_is_whole():
            self.path_broke()
        home, now_ms = world.home, world.now_ms
        if home.engine is None or not self.one_gateway:
            return
        if self._interrupted_ms is not None and not home.card_refuses and world.card_ms < S:
            self._keeps(
                now_ms - self._interrupted_ms <= REPORTED_WITHIN_MS
                or world.card_was_bad_ms > home.started_ms,
                f"the interruption that ended at {self._interrupted_ms / S} s is not reported",
            )
        if now_ms - self.path_broken_ms >= WHOLE_AFTER_MS:
            for words in self._not_on_the_board(TOLD_WITHIN_MS):
                raise Broken(words)

    def _not_on_the_board(self, for_ms: int) -> Iterator[str]:
        world = self.world
        assert world.home.engine is not None
        shown = {alert.alert_id: alert for alert in world.board.alerts}
        for alert_id, alert in world.home.engine.book.open.items():
            if world.now_ms - self._changed_ms.get(alert_id, 0) < for_ms:
                continue
            known = shown.get(alert_id)
            if known is None:
                yield f"{alert_id} ({alert.kind}, {alert.state}) is not on the board"
            elif known.rev < alert.rev and alert.rev // 1000 == known.rev // 1000:
                yield f"{alert_id} ({alert.kind}) is on the board as rev {known.rev}, and is rev {alert.rev}"

    # -- at the end ------------------------------------------------------------------------------------

    def owed(self) -> list[str]:
        """What is still owed, in words; to be asked when the faults have stopped for long enough."""
        return [
            *self._owed_numbers(),
            *self._owed_alerts(),
            *self._owed_points(),
            *self._owed_deviations(),
        ]

    def _owed_numbers(self) -> Iterator[str]:
        world = self.world
        home = world.home
        assert home.engine is not None
        if world.board.notices:
            yield f"the dashboard has notices: {[notice.message for notice in world.board.notices]}"
        store = self._cards[home].store
        lost = [
            seq
            for lane, run in world.board.store.lost()
            for seq in range(run.first, run.last + 1)
            if lane.store == store
        ]
        for key, (done, above) in world.board.store.progress().items():
            if key.store != store:
                continue
            come = {seq for (of, lane, seq) in self._bytes if (of, lane) == (store, key.lane)}
            missing = set(range(1, max(come, default=0) + 1)) - come - set(lost)
            if missing:
                yield f"{key.lane}: {sorted(missing)[:5]} are missing, and nobody knows that they are lost"
            if above:
                yield f"{key.lane}: done up to {done}, and {above[:5]} wait above it"
        done = {
            key.lane: done for key, (done, _) in world.board.store.progress().items() if key.store == store
        }
        if (done.get(Lane.ALERTS) or 0) != home.engine.alerts_next_seq - 1:
            yield f"alerts up to {home.engine.alerts_next_seq - 1} were numbered, up to {done} are stored"
        known = world.board.desk.showing.board.homes.get(HOME)
        beat = known.beat if known else None
        if beat is None:
            yield "no beat has come"
        elif any(held.next - held.oldest > len(world.beds) for held in beat.lanes.values()):
            yield f"the lanes are not empty: {beat.lanes}"

    def _owed_alerts(self) -> Iterator[str]:
        world = self.world
        engine = world.home.engine
        assert engine is not None
        book = {alert_id: (alert.kind, alert.state.value) for alert_id, alert in engine.book.open.items()}
        known = world.board.desk.showing.board.homes.get(HOME)
        # What was told out of memory and is not known after a power cut stays there as an orphan.
        shown = {
            alert_id: (one.newest.kind, one.newest.state)
            for alert_id, one in (known.alerts.items() if known else ())
            if one.is_open and not is_orphan(known, one)
        }
        if book != shown:
            yield f"the board has {shown}, and the book {book}"
        if self._interrupted_ms is not None:
            yield f"the interruption that ended at {self._interrupted_ms / S} s was never reported"
        for alert, sounded_ms in self._book.values():
            waits = alert.state is AlertState.ACTIVE and alert.priority is Priority.HIGH
            waited_s = (world.now_ms - max(sounded_ms, world.home.started_ms)) // S
            if waits and waited_s > alert.respond_within_s + 60:
                yield f"{alert.alert_id} ({alert.kind}) waits for {waited_s} s and is not escalated"

    def _owed_points(self) -> Iterator[str]:
        cuts = self.world.home.cuts
        missing = [
            (taken_ms, taken)
            for taken, taken_ms in self.readings.items()
            if taken not in self.points
            and taken_ms < self.world.now_ms - GATHERED_MS
            and not any(0 <= cut_ms - taken_ms <= at_risk_ms for cut_ms, at_risk_ms in cuts)
        ]
        if missing:
            yield f"{len(missing)} points have never come; the first was taken at {missing[0][0] / S} s"
        for taken in self.points.keys() - self.readings.keys():
            yield f"the point of {taken} was never read"
            return

    def _owed_deviations(self) -> Iterator[str]:
        world = self.world
        for one in self.deviations:
            told = [
                (told_ms, alert)
                for told_ms, alert in self.told
                if alert.pump == one.pump and alert.kind in one.kinds and told_ms >= one.at_ms
            ]
            words = f"{one.words} on {one.pump} from {one.at_ms / S} s on"
            if not told:
                yield f"{words} was never told as any of {sorted(one.kinds)}"
            elif told[0][0] > one.by_ms:
                yield f"{words} was told at {told[0][0] / S} s, not by {one.by_ms / S} s"
            elif not any(shown.alert_id == told[0][1].alert_id for shown in world.board.alerts):
                yield f"{words} is not on the board"

    @staticmethod
    def _keeps(kept: bool, words: str) -> None:
        if not kept:
            raise Broken(words)
