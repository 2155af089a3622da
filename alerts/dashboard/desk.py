"""The one thread that takes in what arrives, stores it, folds it into the board, and answers for it.

Order of each turn: **store** (one transaction on the disk), **fold** (the board that the pages read), then
**say** (receipts, resyncs, what a person has sent). Pages read ``showing``, which is frozen and swapped
whole.
"""

from __future__ import annotations

import itertools
import logging
import queue
import secrets
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from typing import Protocol

import msgspec
from msgspec import Struct
from sqlalchemy.exc import SQLAlchemyError

from alerts import wire
from alerts.alert import AlertState
from alerts.condition import Kind
from alerts.dashboard import collector
from alerts.dashboard.board import (
    NOT_SENT,
    Arrived,
    Board,
    Cleared,
    ClosedHere,
    Deed,
    DeedDone,
    DeedWithBroker,
    Disconnected,
    Fact,
    FromHome,
    ResyncAsked,
    Subscribed,
    fold,
    is_orphan,
)
from alerts.dashboard.clock import Clock
from alerts.dashboard.collector import LaneProgress, Lost, ReceiptTimer
from alerts.dashboard.store import Durable, LaneKey, Notice, Store
from alerts.dashboard.views import is_on_its_way, wants_resync
from alerts.mqtt import (
    BrokerConfirmed,
    BrokerConnected,
    BrokerEvent,
    BrokerLost,
    BrokerMessage,
    BrokerRefused,
)
from alerts.sink import Lane, Message, SinkDown

TURN_EVENTS_MAX = 200
TURN_EVERY_S = 0.2
QUEUE_MAX = 20_000
"""What does not fit is not stored and not receipted, so the gateways send it again."""
WATCH_EVERY_MS = 10_000
CLOSED_SHOWN_MS = 8 * 24 * 3_600_000
"""How long closed alerts are remembered, so that a late message does not open one again."""
TELEMETRY_SHOWN_MS = 12 * 3_600_000
KEPT_MS = {Lane.ALERTS: 366 * 24 * 3_600_000, Lane.TELEMETRY: 30 * 24 * 3_600_000}
"""How long messages are kept, and alerts after they were closed."""
FORGETS_EVERY_MS = 10_000
FORGETS_MOST = 500
"""Of each lane at a time: more than thousands of pumps send meanwhile, and a moment's work for the disk."""
NOTHING_OLD_FOR_MS = 600_000
"""When all that was old is gone, it is looked again after so long."""
EXPIRY_S_MAX = 2**32 - 1
"""MQTT 5: four bytes."""
BROKER_REFUSES_FROM = 128
"""MQTT 5: reason codes from here on say no."""
OURSELVES = "dashboard"
"""The pseudonym under which the dashboard itself asks for a resync."""

log = logging.getLogger("dripwatch.dashboard")

Trace = Callable[..., None]
"""``trace(step, **fields)``: a milestone was reached."""


class Sender(Protocol):
    """The way to the broker."""

    def send(self, message: Message, token: int) -> None:
        """Raises SinkDown while there is no connection."""


class Acknowledge(Struct, frozen=True, kw_only=True):
    """Somebody acknowledges the alert that they saw at ``rev``."""

    home: str
    alert_id: str
    rev: int
    by: str
    role: wire.Role
    adopt: bool = False
    """They say that the pump that answers is the patient's now."""
    closes: bool = False
    """They were told that the gateway no longer knows it, and close it here."""


class CloseNotice(Struct, frozen=True, kw_only=True):
    """Somebody has seen to what the dashboard itself said."""

    home: str
    key: str
    by: str


Request = Acknowledge | CloseNotice


class Showing(Struct, frozen=True, kw_only=True):
    """What the pages show, as of one moment."""

    board: Board = Board()
    notices: tuple[Notice, ...] = ()
    storage_words: str = ""
    """Why nothing can be stored, or empty."""


class Desk:
    """See the head of this file. ``turn`` may be called by a test in place of the thread that ``run`` is."""

    def __init__(
        self,
        *,
        collector_name: str,
        store: Store,
        clock: Clock,
        watcher: Callable[[], str | None] = lambda: None,
        changed: Callable[[], None] = lambda: None,
        trace: Trace = lambda step, **fields: None,
    ) -> None:
        """``watcher`` names somebody who watches now; ``changed`` is told after each new ``showing``."""
        self._collector_name = collector_name
        self._store = store
        self._clock = clock
        self._watcher = watcher
        self._changed = changed
        self._trace = trace
        self._sender: Sender | None = None
        self._queue: queue.Queue[BrokerEvent | tuple[Request, Future[None]]] = queue.Queue()
        self._tokens = itertools.count(1)
        self._deed_of_token: dict[int, str] = {}
        self._progress: dict[LaneKey, LaneProgress] = {}
        self._timers: dict[tuple[str, str], ReceiptTimer] = {}
        self._watched_ms: int | None = None
        self._forgets_ms: int | None = None
        self.missed = 0
        """How many messages found no place."""
        self.showing = self._remembered()

    def connect(self, sender: Sender) -> None:
        """From now on ``sender`` carries what is said."""
        self._sender = sender

    def deliver(self, event: BrokerEvent) -> None:
        """Takes what the broker has, from any thread; never waits."""
        if isinstance(event, BrokerMessage) and self._queue.qsize() >= QUEUE_MAX:
            self.missed += 1
        else:  # whether there is a broker at all is never missed
            self._queue.put(event)

    def ask(self, request: Request) -> Future[None]:
        """Takes what a person wants done, from any thread; done when the board shows it.

        Raises queue.Full if there is too much to do.
        """
        if self._queue.qsize() >= QUEUE_MAX:
            raise queue.Full
        done: Future[None] = Future()
        self._queue.put((request, done))
        return done

    def run(self, should_stop: Callable[[], bool]) -> None:
        """Turns until told to stop."""
        while not should_stop():
            self.turn(wait_s=TURN_EVERY_S)

    def turn(self, wait_s: float = 0.0) -> None:
        """One turn: what waits (at most so many), then what is due."""
        events, requests = self._waiting(wait_s)
        before = self.showing
        if events:
            self._take(events)
        for request, done in requests:
            if not done.set_running_or_notify_cancel():
                continue  # whoever asked has been told that it was not done
            try:
                self._do(request)
            except SQLAlchemyError as error:
                done.set_exception(error)
            else:
                done.set_result(None)
        self._when_due()
        if self.showing is not before:
            self._changed()

    # What was known before the last stop

    def _remembered(self) -> Showing:
        now_ms, utc_ms = self._clock.now_ms(), self._clock.utc_ms()
        for lane, (done, above) in self._store.progress().items():
            self._progress[lane] = LaneProgress(done=done, above=tuple((seq, now_ms) for seq in above))
        board = Board()
        kept = (
            *self._store.newest_revisions(utc_ms - CLOSED_SHOWN_MS),
            *self._store.telemetry_since(utc_ms - TELEMETRY_SHOWN_MS),
        )
        for message in kept:
            found = _read(message.topic, message.payload)
            if isinstance(found, _Readable):
                board = fold(
                    board,
                    Arrived(
                        topic=found.topic,
                        message=found.message,
                        at_ms=now_ms,
                        at_utc_ms=message.arrived_utc_ms,
                        retained=True,
                    ),
                )
        for home, alert_id, rev in self._store.closed_here():
            board = fold(board, ClosedHere(home=home, alert_id=alert_id, rev=rev))
        return Showing(board=board, notices=self._store.open_notices())

    # Taking in

    def _waiting(self, wait_s: float) -> tuple[list[BrokerEvent], list[tuple[Request, Future[None]]]]:
        events: list[BrokerEvent] = []
        requests: list[tuple[Request, Future[None]]] = []
        while len(events) + len(requests) < TURN_EVENTS_MAX:
            try:
                is_first = not events and not requests and wait_s > 0
                item = self._queue.get(timeout=wait_s) if is_first else self._queue.get_nowait()
            except queue.Empty:
                break
            if isinstance(item, tuple):
                requests.append(item)
            else:
                events.append(item)
        return events, requests

    def _take(self, events: Sequence[BrokerEvent]) -> None:
        now_ms, utc_ms = self._clock.now_ms(), self._clock.utc_ms()
        facts: list[Fact] = []
        durables: list[Durable] = []
        notices: list[Notice] = []
        progress = dict(self._progress)
        lost: list[tuple[LaneKey, Lost]] = []
        for event in events:
            match event:
                case BrokerConnected():
                    facts.append(Subscribed(at_ms=now_ms))
                    progress = {lane: collector.waiting_anew(p, now_ms) for lane, p in progress.items()}
                    self._trace("subscribed")
                case BrokerLost(reason=reason) | BrokerRefused(reason=reason):
                    facts.append(Disconnected(at_utc_ms=utc_ms, words=reason))
                    self._deed_of_token.clear()
                case BrokerConfirmed(token=token, reason_code=code):
                    deed_id = self._deed_of_token.pop(token, None)
                    if deed_id is not None:
                        facts.append(DeedWithBroker(deed_id=deed_id, is_refused=code >= BROKER_REFUSES_FROM))
                case BrokerMessage():
                    found = _read(event.topic, event.payload)
                    durable = None if event.retain else _durable(event, found, utc_ms)
                    if durable is not None:
                        durables.append(durable)
                        lane = LaneKey(durable.home, durable.store, durable.lane)
                        progress[lane] = collector.stored(
                            progress.get(lane, LaneProgress()), durable.seq, now_ms
                        )
                        if not durable.readable:
                            notices.append(_unreadable(durable, found))
                    if isinstance(found, _Readable):
                        facts.append(
                            Arrived(
                                topic=found.topic,
                                message=found.message,
                                at_ms=now_ms,
                                at_utc_ms=utc_ms,
                                retained=event.retain,
                            )
                        )
                        if isinstance(found.message, wire.Beat) and not event.retain:
                            for name, held in found.message.lanes.items():
                                lane = LaneKey(found.topic.home, found.message.store, name)
                                progress[lane], passed = collector.beat(
                                    progress.get(lane, LaneProgress()), held.oldest
                                )
                                lost += [(lane, run) for run in passed]
                    elif isinstance(found, _Empty):
                        facts.append(Cleared(topic=found.topic))
        self._keep(durables, progress, lost, notices)
        self._fold(facts)

    def _keep(
        self,
        durables: Sequence[Durable],
        progress: dict[LaneKey, LaneProgress],
        lost: Sequence[tuple[LaneKey, Lost]],
        notices: Sequence[Notice],
    ) -> None:
        """Stores; only then numbers count as done. What cannot be stored is not receipted and comes again."""
        now_ms, utc_ms = self._clock.now_ms(), self._clock.utc_ms()
        done = {
            lane: after.done
            for lane, after in progress.items()
            if after.done is not None and after.done != self._progress.get(lane, LaneProgress()).done
        }
        if not (durables or done or lost or notices):
            self._progress = progress
            return
        notices = [*notices, *(_missing(lane, run, utc_ms) for lane, run in lost)]
        try:
            kept = self._store.keep(
                durables, done, lost, notices, now_utc_ms=utc_ms, contradiction=_other_bytes
            )
        except SQLAlchemyError as error:
            log.error("nothing can be stored, so nothing is receipted: %s", error)
            self._show(storage_words=f"This dashboard cannot store what arrives ({type(error).__name__}).")
            return
        self._progress = progress
        for durable, is_new in zip(durables, kept.new, strict=True):
            if is_new and durable.alert_id is not None:
                self._trace(
                    "dashboard_stored",
                    alert_id=durable.alert_id,
                    store=durable.store,
                    lane=durable.lane.value,
                    seq=durable.seq,
                    rev=durable.rev,
                )
        for home, store in [
            *((durable.home, durable.store) for durable in durables),
            *((lane.home, lane.store) for lane in done),
        ]:
            timer = self._timers.get((home, store), ReceiptTimer())
            self._timers[home, store] = timer.handled(now_ms)
        if notices or any(kept.contradicts):
            self._show(notices=self._store.open_notices())
        if self.showing.storage_words:
            self._show(storage_words="")

    def _fold(self, facts: Iterable[Fact]) -> None:
        notices: list[Notice] = []
        for fact in facts:
            before = self.showing.board
            after = fold(before, fact)
            self._show(board=after)
            if isinstance(fact, Arrived):
                notices += _two_gateways(before, after, fact)
                self._trace_confirmed(after, fact)
        if notices:
            self._keep((), self._progress, (), notices)

    def _show(self, **changes: object) -> None:
        self.showing = msgspec.structs.replace(self.showing, **changes)

    def _trace_confirmed(self, board: Board, fact: Arrived) -> None:
        message = fact.message
        if isinstance(message, wire.Alert) and message.reason == "acknowledged":
            ours = [deed for deed in board.deeds.values() if deed.alert_id == message.alert_id]
            if ours and not fact.retained:
                self._trace("ack_back", alert_id=message.alert_id, rev=message.rev)

    # What people want done

    def _do(self, request: Request) -> None:
        utc_ms = self._clock.utc_ms()
        match request:
            case CloseNotice(home=home, key=key, by=by):
                self._store.close_notice(home, key, by, utc_ms)
                self._show(notices=self._store.open_notices())
            case Acknowledge(home=name, alert_id=alert_id, rev=rev, by=by):
                known_home = self.showing.board.homes.get(name)
                known = known_home.alerts.get(alert_id) if known_home else None
                if known_home is None or known is None:
                    return
                if is_orphan(known_home, known):
                    if not request.closes:
                        return  # it was none when they saw it: now the page says what closing it means
                    self._store.close_here(name, alert_id, rev, by, utc_ms)
                    self._fold([ClosedHere(home=name, alert_id=alert_id, rev=rev)])
                    return
                if any(
                    (deed.home, deed.alert_id, deed.rev) == (name, alert_id, rev)
                    and is_on_its_way(deed, self._clock.now_ms())
                    for deed in self.showing.board.deeds.values()
                ):
                    return  # pressed twice, or by two nurses at once: the page says whose is on its way
                self._acknowledge(request, min(max(1, known.newest.respond_within_s), EXPIRY_S_MAX))

    def _acknowledge(self, request: Acknowledge, expiry_s: int) -> None:
        utc_ms = self._clock.utc_ms()
        deed = Deed(
            deed_id=secrets.token_hex(8),
            home=request.home,
            alert_id=request.alert_id,
            rev=request.rev,
            by=request.by,
            role=request.role.value,
            at_ms=self._clock.now_ms(),
            at_utc_ms=utc_ms,
        )
        payload = wire.encode(
            wire.Ack(
                time=wire.UtcTime(utc_ms),
                id=deed.deed_id,
                by=request.by,
                alert_id=request.alert_id,
                rev=request.rev,
                role=request.role,
                adopt=request.adopt,
            )
        )
        message = Message(topic=wire.down(request.home, "ack"), payload=payload, expiry_s=expiry_s)
        self._store.keep_deed(deed.deed_id, request.home, message.topic, payload, utc_ms)
        token = self._say(message)
        if token is None:
            deed = msgspec.structs.replace(deed, accepted=False, reason=NOT_SENT)
        else:
            self._deed_of_token[token] = deed.deed_id
            self._trace("acknowledged", alert_id=request.alert_id, rev=request.rev)
        self._fold([DeedDone(deed=deed)])

    # What is due

    def _when_due(self) -> None:
        now_ms = self._clock.now_ms()
        if self._forgets_ms is None or now_ms >= self._forgets_ms:
            there_is_more = self._forget_what_is_old()
            self._forgets_ms = now_ms + (FORGETS_EVERY_MS if there_is_more else NOTHING_OLD_FOR_MS)
        if self.showing.board.subscribed_ms is None:
            return
        self._give_up(now_ms)
        for (home, store), timer in list(self._timers.items()):
            if timer.is_due(now_ms) and self._receipt(home, store):
                del self._timers[home, store]
        for name, home_board in self.showing.board.homes.items():
            if wants_resync(home_board, now_ms):
                self._resync(name, now_ms)
        if self._watched_ms is None or now_ms - self._watched_ms >= WATCH_EVERY_MS:
            self._watch(now_ms)

    def _forget_what_is_old(self) -> bool:
        """Whether there may be more."""
        there_is_more = False
        try:
            for lane, kept_ms in KEPT_MS.items():
                forgotten = self._store.forget(lane, self._clock.utc_ms() - kept_ms, FORGETS_MOST)
                there_is_more |= forgotten == FORGETS_MOST
        except SQLAlchemyError as error:
            log.warning("what is old could not be deleted, and is tried again: %s", error)
            return True
        return there_is_more

    def _give_up(self, now_ms: int) -> None:
        progress = dict(self._progress)
        lost: list[tuple[LaneKey, Lost]] = []
        for lane, so_far in self._progress.items():
            if so_far.above:
                progress[lane], passed = collector.give_up(so_far, now_ms)
                lost += [(lane, run) for run in passed]
        if lost:
            self._keep((), progress, lost, ())

    def _receipt(self, home: str, store: str) -> bool:
        done = {
            lane: self._progress.get(LaneKey(home, store, lane), LaneProgress()).done or 0 for lane in Lane
        }
        receipt = wire.Receipt(
            time=wire.UtcTime(self._clock.utc_ms()),
            collector=self._collector_name,
            store=store,
            alerts=done[Lane.ALERTS],
            telemetry=done[Lane.TELEMETRY],
        )
        message = Message(topic=wire.down(home, "receipt"), payload=wire.encode(receipt))
        if self._say(message) is None:
            return False
        self._trace("receipt", store=store, alerts=receipt.alerts, telemetry=receipt.telemetry)
        return True

    def _resync(self, home: str, now_ms: int) -> None:
        resync = wire.Resync(time=wire.UtcTime(self._clock.utc_ms()), id=secrets.token_hex(8), by=OURSELVES)
        if self._say(Message(topic=wire.down(home, "resync"), payload=wire.encode(resync))) is not None:
            self._fold([ResyncAsked(home=home, at_ms=now_ms)])

    def _watch(self, now_ms: int) -> None:
        by = self._watcher()
        if by is None:
            return
        self._watched_ms = now_ms
        for home in self.showing.board.homes:
            watch = wire.Watch(time=wire.UtcTime(self._clock.utc_ms()), id=secrets.token_hex(8), by=by)
            self._say(Message(topic=wire.down(home, "watch"), payload=wire.encode(watch), qos=0))

    def _say(self, message: Message) -> int | None:
        """The token under which the message went out; None if there is no connection."""
        if self._sender is None or self.showing.board.subscribed_ms is None:
            return None
        token = next(self._tokens)
        try:
            self._sender.send(message, token)
        except SinkDown:
            return None
        return token


# Reading


class _Readable(Struct, frozen=True, kw_only=True):
    topic: wire.Topic
    message: FromHome


class _Empty(Struct, frozen=True, kw_only=True):
    topic: wire.Topic


class _Later(Struct, frozen=True, kw_only=True):
    """A topic or a payload that a later version may understand."""

    topic: wire.Topic


class _Unreadable(Struct, frozen=True, kw_only=True):
    home: str | None
    why: str


def _read(topic_text: str, payload: bytes) -> _Readable | _Empty | _Later | _Unreadable:
    topic = wire.parse_topic(topic_text)
    if topic is None or topic.direction is not wire.Direction.UP:
        return _Unreadable(home=_home_of(topic_text), why="its topic is none of this version")
    if not payload:
        return _Empty(topic=topic)
    if len(payload) > wire.MAX_READ_BYTES:
        return _Unreadable(home=None, why="it is too large")
    if topic.what not in wire.FROM_HOME:
        return _Later(topic=topic)
    try:
        message = wire.decode(payload, wire.FROM_HOME[topic.what])
    except wire.WireError as error:
        return _Unreadable(home=topic.home, why=_void_words(payload) or str(error))
    if isinstance(message, wire.Alert) and (message.alert_id, message.pump) != (topic.alert_id, topic.pump):
        return _Unreadable(home=topic.home, why="it names another alert or pump than its topic does")
    return _Readable(topic=topic, message=message)  # type: ignore[arg-type]  # FROM_HOME holds FromHome's types


def _void_words(payload: bytes) -> str:
    try:
        return f"the broker refused it ({wire.decode(payload, wire.Void).reason})"
    except wire.WireError:
        return ""


def _home_of(topic: str) -> str | None:
    """The home of a topic that is none of this version, if it has one."""
    words = topic.split("/")
    probe = wire.parse_topic(wire.up(words[2], "beat")) if len(words) > 3 and words[3] == "up" else None
    return probe.home if probe else None


_NEVER_NUMBERED = (wire.Status, wire.Beat, wire.Open, wire.State)


def _durable(
    event: BrokerMessage, found: _Readable | _Empty | _Later | _Unreadable, utc_ms: int
) -> Durable | None:
    """The message as it is stored, if it has a number; whatever else is wrong with it."""
    if isinstance(found, _Readable) and isinstance(found.message, _NEVER_NUMBERED):
        return None
    home = found.home if isinstance(found, _Unreadable) else found.topic.home
    number = wire.decode_number(event.payload) if home is not None else None
    if home is None or number is None:
        return None
    message = found.message if isinstance(found, _Readable) else None
    alert = message if isinstance(message, wire.Alert) else None
    return Durable(
        home=home,
        store=number.store,
        lane=number.lane,
        seq=number.seq,
        topic=event.topic,
        payload=event.payload,
        arrived_utc_ms=utc_ms,
        readable=not isinstance(found, _Unreadable),
        pump=None if isinstance(found, _Unreadable) else found.topic.pump,
        alert_id=alert.alert_id if alert else None,
        rev=alert.rev if alert else None,
        closed=alert is not None and alert.state == AlertState.CLOSED,
    )


# What the dashboard itself has to say


def _unreadable(durable: Durable, found: _Readable | _Empty | _Later | _Unreadable) -> Notice:
    why = found.why if isinstance(found, _Unreadable) else ""
    return Notice(
        home=durable.home,
        key=f"unreadable-{durable.store}-{durable.lane}",
        kind="unreadable",
        message=f"Message {durable.seq} of {_lane_words(durable.lane)} could not be read: {why}. What it "
        "said is not on this board. Telephone the home if you do not know how things are there.",
        raised_utc_ms=durable.arrived_utc_ms,
    )


def _missing(lane: LaneKey, run: Lost, utc_ms: int) -> Notice:
    numbers = f"{run.first}" if run.first == run.last else f"{run.first} to {run.last}"
    why = (
        "the gateway no longer holds them"
        if run.reason == "released"
        else "they have not come for ten minutes"
    )
    return Notice(
        home=lane.home,
        key=f"lost-{lane.store}-{lane.lane}",
        kind="numbers_lost",
        message=f"Missing, of {_lane_words(lane.lane)}: {numbers} ({why}). What they said is not on this "
        "board.",
        raised_utc_ms=utc_ms,
    )


def _lane_words(lane: Lane) -> str:
    return "the alerts" if lane is Lane.ALERTS else "the telemetry"


def _other_bytes(durable: Durable) -> Notice:
    return _duplicate_gateway(
        durable.home,
        f"Number {durable.seq} of {_lane_words(durable.lane)} came twice, with different content.",
        durable.arrived_utc_ms,
    )


def _two_gateways(before: Board, after: Board, fact: Arrived) -> list[Notice]:
    name = fact.topic.home
    old, new = before.homes.get(name), after.homes.get(name)
    if new is None:
        return []
    if new.boots_went_back > (old.boots_went_back if old else 0):
        return [_duplicate_gateway(name, "Beats of two starts of its gateway come in turns.", fact.at_utc_ms)]
    if isinstance(fact.message, wire.Alert):
        alert_id = fact.message.alert_id
        was = old.alerts.get(alert_id) if old else None
        now = new.alerts.get(alert_id)
        if now and now.is_contradicted and not (was and was.is_contradicted):
            words = f"Alert {alert_id} came with two contents under one revision."
            return [_duplicate_gateway(name, words, fact.at_utc_ms)]
    return []


def _duplicate_gateway(home: str, words: str, utc_ms: int) -> Notice:
    return Notice(
        home=home,
        key="duplicate_gateway",
        kind=Kind.DUPLICATE_GATEWAY.value,
        message=f"{words} Two gateways may speak for this home: what is shown of it cannot be relied on.",
        raised_utc_ms=utc_ms,
    )
