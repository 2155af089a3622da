"""Threads, queues, signals: moves things between the world and the engine, and decides nothing.

One small thread for each port and one for the card; the broker has its own; one loop asks the engine. The
effects of one input are performed in the order show, write, commit, release (architecture, "The way out"): a
message is released only when the engine has been told that its commit is on the card.
"""

from __future__ import annotations

import logging
import queue
import signal
import threading
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Protocol

from alerts.mqtt import BrokerEvent, BrokerMessage, MqttClient
from alerts.signal import PanelSignal, Press
from alerts.sink import Message, SinkDown
from drivers.family import LineSettings
from drivers.link import Link, LinkDown, open_link
from gateway.certificate import not_after_utc_ms
from gateway.clock import Clock
from gateway.config import HistoryConfig
from gateway.effects import Commit, Effects, Send, Write
from gateway.engine import Engine
from gateway.history import History, history_of
from gateway.inputs import (
    ButtonHeld,
    ButtonPressed,
    BytesArrived,
    CertificateRead,
    CommitFailed,
    Committed,
    Fetched,
    FromBroker,
    HistoryAnswered,
    Input,
    PortLost,
    PortOpened,
    StopRequested,
    Tick,
)
from gateway.lanes import Fetch
from gateway.store import Store, StoreFailed
from gateway.watchdog import ROUND_TAKES_S, Pulses, Watchdog

INBOX_MAX = 10_000
INBOX_BYTES_MAX = 4_000_000
"""What pumps and nurses have said and nobody has looked at yet takes no more memory than this."""
READ_FOR_S = 0.5
REOPEN_AFTER_MIN_S = 0.25
REOPEN_AFTER_MAX_S = 2.0
"""A pump must be watched again within 5 s of the return of its port: this long it may wait to be noticed."""
RECOMMIT_AFTER_MIN_S = 0.5
RECOMMIT_AFTER_MAX_S = 30.0
CARD_TAKES_S = 30.0
"""So long one transaction may take: a worn card needs seconds, and SQLite itself waits for 5 s."""
CERTIFICATE_EVERY_S = 3_600.0

log = logging.getLogger("dripwatch")


class Inbox:
    """Where everything that happens is put, with its time.

    Bounded for what others send: what pumps and nurses say and finds no room is counted. All else comes in
    small numbers and is never lost; a port that was opened would else stay silent for ever.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._queue = _MeasuredQueue()
        self._next: Input | None = None
        self._losses_told = 0
        self.losses = 0

    def put(self, make: Callable[..., Input]) -> None:
        """Put what ``make(moment=...)`` makes of now."""
        happened = make(moment=self._clock.moment())
        said = said_bytes(happened)
        full = self._queue.qsize() >= INBOX_MAX or self._queue.bytes + (said or 0) > INBOX_BYTES_MAX
        if said is not None and full:
            self.losses += 1
        else:
            self._queue.put(happened)

    def take(self, wait_s: float) -> Input:
        """The next happening, or a ``Tick`` when nothing has happened for ``wait_s``.

        And a ``Tick`` before it if something was lost since: a flood leaves no moment without a happening.
        """
        if self._next is not None:
            happened, self._next = self._next, None
            return happened
        try:
            happened = self._queue.get(timeout=max(0.0, wait_s))
        except queue.Empty:
            self._losses_told = self.losses
            return Tick(moment=self._clock.moment(), inbox_losses=self.losses)
        if self._losses_told != self.losses:
            self._losses_told, self._next = self.losses, happened
            return Tick(moment=happened.moment, inbox_losses=self.losses)
        return happened


class _MeasuredQueue(queue.Queue[Input]):
    """Knows how many bytes of others it holds. What is done here is done under the queue's own lock."""

    bytes = 0

    def _put(self, item: Input) -> None:
        super()._put(item)
        self.bytes += said_bytes(item) or 0

    def _get(self) -> Input:
        item = super()._get()
        self.bytes -= said_bytes(item) or 0
        return item


def said_bytes(happened: Input) -> int | None:
    """How much a pump or a nurse has said; ``None``: it comes from neither."""
    if isinstance(happened, FromBroker):
        return len(happened.event.payload) if isinstance(happened.event, BrokerMessage) else None
    return len(happened.data) if isinstance(happened, BytesArrived) else None


class Performer(Protocol):
    """Does what the engine wants done; handed in, so that a test can stop the world between two effects."""

    def show(self, line: str) -> None:
        """Tell the person at the gateway."""

    def light(self, signal: PanelSignal) -> None:
        """Hand the panel in the home what it is to show and to sound."""

    def write(self, write: Write) -> None:
        """Hand bytes to a pump."""

    def commit(self, commit: Commit) -> None:
        """Hand over what must be on the card; the answer comes through the inbox."""

    def fetch(self, fetch: Fetch) -> None:
        """Ask for what the card has; the answer comes through the inbox."""

    def release(self, send: Send) -> None:
        """Hand a message to the broker; the answer comes through the inbox."""

    def write_history(self, batch: Message) -> None:
        """Hand a batch to the history; the answer comes through the inbox."""


class Threads:
    """The threads at the edge. If one of them breaks, the whole gateway ends, and systemd starts it again."""

    def __init__(self) -> None:
        self.stopping = threading.Event()
        self.pulses = Pulses()
        self.broken: BaseException | None = None
        self._threads: list[threading.Thread] = []

    def start(self, name: str, body: Callable[[], None]) -> None:
        """Run ``body`` in a thread of its own."""

        def guarded() -> None:
            try:
                body()
            except Exception as error:
                log.exception("thread %s broke", name)
                self.broken = error
                self.stopping.set()

        thread = threading.Thread(target=guarded, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def watch_others(self) -> None:
        """A library's thread that breaks must not die in silence: it ends the gateway as one of ours does."""

        def broke(arguments: threading.ExceptHookArgs) -> None:
            name = arguments.thread.name if arguments.thread is not None else "unknown"
            log.error("thread %s broke", name, exc_info=arguments.exc_value)
            self.broken = arguments.exc_value or RuntimeError(f"thread {name} broke")
            self.stopping.set()

        threading.excepthook = broke

    def join(self, wait_s: float) -> None:
        """Ask all to end, and give them a while."""
        self.stopping.set()
        for thread in self._threads:
            thread.join(wait_s)


class Ports:
    """The serial ports: opened, read, and opened again for as long as the gateway lives."""

    def __init__(self, lines: Mapping[str, LineSettings], inbox: Inbox, threads: Threads) -> None:
        self._links: dict[str, Link] = {}
        self._inbox = inbox
        self._threads = threads
        self._lines = lines

    def start(self) -> None:
        """Begin to read all ports."""
        for port, line in self._lines.items():
            self._came_round(port)
            self._threads.start(f"port {port}", partial(self._serve, port, line))

    def _came_round(self, port: str) -> None:
        self._threads.pulses.beat(f"port {port}")

    def write(self, write: Write) -> None:
        """Hand bytes to the pump; a port that is gone is noticed by its reader."""
        link = self._links.get(write.port)
        if link is None:
            return
        try:
            link.write(write.data)
        except LinkDown:
            link.close()

    def _serve(self, port: str, line: LineSettings) -> None:
        stopping = self._threads.stopping
        reopen_after_s = REOPEN_AFTER_MIN_S
        said = ""
        while not stopping.is_set():
            self._came_round(port)
            try:
                link = open_link(port, line)
            except LinkDown as down:
                if str(down) != said:
                    said = str(down)
                    self._lost(port, said)
            else:
                said, heard = self._read(port, link)
                if heard:
                    reopen_after_s = REOPEN_AFTER_MIN_S
            # Also after a port that could be opened: one that fails at once would else be opened without end.
            stopping.wait(reopen_after_s)
            reopen_after_s = min(reopen_after_s * 2, REOPEN_AFTER_MAX_S)

    def _read(self, port: str, link: Link) -> tuple[str, bool]:
        """Read an open port until it is lost: why it was, and whether anything had been heard."""
        stopping = self._threads.stopping
        heard = False
        self._links[port] = link
        self._inbox.put(partial(PortOpened, port=port))
        try:
            while not stopping.is_set():
                self._came_round(port)
                data = link.read(READ_FOR_S)
                if data:
                    heard = True
                    self._inbox.put(partial(BytesArrived, port=port, data=data))
        except LinkDown as down:
            self._lost(port, str(down))
            return str(down), heard
        finally:
            self._links.pop(port, None)
            link.close()
        return "", heard

    def _lost(self, port: str, reason: str) -> None:
        self._inbox.put(partial(PortLost, port=port, reason=reason))


class Card:
    """Performs commits in order, all that wait as one, and goes on trying if the card refuses.

    What is to be fetched is read behind the commits that were asked for before it, or later ones: a lane
    knows what it has let go of since.
    """

    def __init__(self, store: Store, inbox: Inbox, threads: Threads) -> None:
        self._store = store
        self._inbox = inbox
        self._threads = threads
        self._queue: queue.Queue[Commit | Fetch] = queue.Queue()
        self._commit: Commit | None = None
        self._number = 0
        self._fetches: list[Fetch] = []

    def start(self) -> None:
        """Begin to write."""
        self._threads.pulses.beat("card")
        self._threads.start("card", self._serve)

    def commit(self, commit: Commit) -> None:
        """Queue a commit."""
        self._queue.put(commit)

    def fetch(self, fetch: Fetch) -> None:
        """Queue a question."""
        self._queue.put(fetch)

    def _serve(self) -> None:
        stopping = self._threads.stopping
        again_after_s = RECOMMIT_AFTER_MIN_S
        while not (stopping.is_set() and self._queue.empty()):
            self._threads.pulses.beat("card")
            try:
                self._take(self._queue.get(timeout=READ_FOR_S))
            except queue.Empty:
                continue
            while True:
                while not self._queue.empty():
                    self._take(self._queue.get_nowait())
                self._threads.pulses.beat("card", CARD_TAKES_S)
                try:
                    self._perform()
                except StoreFailed as error:
                    self._inbox.put(partial(CommitFailed, number=self._number, reason=str(error)))
                    self._threads.pulses.beat("card", again_after_s + ROUND_TAKES_S)
                    if stopping.wait(again_after_s):
                        return
                    again_after_s = min(again_after_s * 2, RECOMMIT_AFTER_MAX_S)
                else:
                    again_after_s = RECOMMIT_AFTER_MIN_S
                    break

    def _take(self, what: Commit | Fetch) -> None:
        if isinstance(what, Fetch):
            self._fetches.append(what)
        else:
            self._number = what.number
            self._commit = what if self._commit is None else self._commit.followed_by(what)

    def _perform(self) -> None:
        """Write, then read; raises StoreFailed, and then what is left to do is kept for the next time."""
        if self._commit is not None:
            self._store.commit(self._commit)
            self._commit = None
            self._inbox.put(partial(Committed, number=self._number))
        while self._fetches:
            found = self._store.fetch(self._fetches[0])
            self._inbox.put(partial(Fetched, fetch=self._fetches.pop(0), found=found))


class Certificate:
    """Looks at the certificate for the broker: at the start, and then each hour, so a new one is noticed."""

    def __init__(self, file: Path | None, inbox: Inbox, threads: Threads) -> None:
        self._file = file
        self._inbox = inbox
        self._threads = threads

    def start(self) -> None:
        """Begin to look; if there is none, that is told once."""
        if self._file is None:
            self._inbox.put(CertificateRead)
        else:
            self._threads.start("certificate", partial(self._serve, self._file))

    def _serve(self, file: Path) -> None:
        while True:
            self._look(file)
            if self._threads.stopping.wait(CERTIFICATE_EVERY_S):
                return

    def _look(self, file: Path) -> None:
        try:
            expires_utc_ms = not_after_utc_ms(file.read_text(encoding="utf-8", errors="replace"))
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else str(error)
            problem = f"mqtt.cert_file: until when {file} holds is not known ({why})"
            self._inbox.put(partial(CertificateRead, problem=problem))
        else:
            self._inbox.put(partial(CertificateRead, expires_utc_ms=expires_utc_ms))


class RealPerformer:
    """Show on standard error, write to the ports, commit to the card, release to the broker."""

    def __init__(
        self,
        ports: Ports,
        card: Card,
        broker: MqttClient | None,
        history: History | None = None,
        panel: PanelParts | None = None,
    ) -> None:
        self._ports = ports
        self._card = card
        self._broker = broker
        self._history = history
        self._panel = panel

    def show(self, line: str) -> None:
        """Tell the person at the gateway."""
        log.info("%s", line)

    def light(self, signal: PanelSignal) -> None:
        """Hand the panel in the home what it is to show and to sound."""
        if self._panel is not None:
            self._panel.show(signal)

    def write(self, write: Write) -> None:
        """Hand bytes to a pump."""
        self._ports.write(write)

    def commit(self, commit: Commit) -> None:
        """Hand over what must be on the card."""
        self._card.commit(commit)

    def fetch(self, fetch: Fetch) -> None:
        """Ask for what the card has."""
        self._card.fetch(fetch)

    def release(self, send: Send) -> None:
        """Hand a message to the broker.

        If it has just gone, the lane sends again after the next connection.
        """
        if self._broker is None:
            return
        try:
            self._broker.send(send.message, send.token)
        except SinkDown:
            log.debug("not sent: %s", send.message.topic)

    def write_history(self, batch: Message) -> None:
        """Hand a batch to the history; its thread takes its time."""
        if self._history is not None and batch.seq is not None:
            self._history.write(batch.seq, batch.payload)


class PanelParts(Protocol):
    """The lamps, the buzzer and the button of the panel in the home (alerts/gpio.py)."""

    def show(self, signal: PanelSignal) -> None:
        """From now on this signal; the newest wins."""

    def refresh(self) -> None:
        """The gateway's loop has come round: what is shown holds."""

    def serve(self, stopping: threading.Event, press: Callable[[Press], None]) -> None:
        """Play until it is to end: the body of a thread. Raises whatever the pins do."""

    def close(self) -> None:
        """Everything off, for good."""


def perform(effects: Effects, performer: Performer) -> None:
    """Perform the effects of one input, in the order that keeps the promises."""
    for note in effects.notes:
        log.info("%s", note)
    if effects.show is not None:
        performer.show(effects.show)
    if effects.panel is not None:
        performer.light(effects.panel)
    for write in effects.writes:
        performer.write(write)
    if effects.commit is not None:
        performer.commit(effects.commit)
    for fetch in effects.fetches:
        performer.fetch(fetch)
    for send in effects.sends:
        performer.release(send)
    for batch in effects.history:
        performer.write_history(batch)


Observer = Callable[[Input, Effects], None]


class Gateway:
    """The running gateway: the engine with the world around it."""

    def __init__(
        self,
        engine: Engine,
        *,
        clock: Clock,
        store: Store,
        lines: Mapping[str, LineSettings],
        broker: Callable[[Callable[[BrokerEvent], None]], MqttClient] | None,
        watchdog: Watchdog,
        certificate: Path | None = None,
        history: HistoryConfig | None = None,
        panel: PanelParts | None = None,
        observers: Iterable[Observer] = (),
        performer: Callable[[Performer], Performer] = lambda real: real,
    ) -> None:
        self._engine = engine
        self._clock = clock
        self._store = store
        self._inbox = Inbox(clock)
        self._threads = Threads()
        self._ports = Ports(lines, self._inbox, self._threads)
        self._card = Card(store, self._inbox, self._threads)
        self._certificate = Certificate(certificate, self._inbox, self._threads)
        self._broker = broker(self._deliver) if broker is not None else None
        self._history = (
            history_of(history, self._heard_from_history, self._threads.stopping)
            if history is not None
            else None
        )
        self._panel = panel
        self._watchdog = watchdog
        self._late: list[str] = []
        self._observers = tuple(observers)
        self._performer = performer(
            RealPerformer(self._ports, self._card, self._broker, self._history, panel)
        )

    @property
    def store_token(self) -> str:
        """The token of the database it numbers its messages in."""
        return self._engine.store

    def stop(self) -> None:
        """Ask for a clean stop, from any thread."""
        self._inbox.put(StopRequested)

    def run(self, *, handle_signals: bool = True) -> None:
        """Watch until somebody asks to stop. Raises what broke a thread."""
        if handle_signals:
            for name in (signal.SIGTERM, signal.SIGINT):
                signal.signal(name, self._asked_to_stop)
        self._threads.watch_others()
        self._card.start()
        self._ports.start()
        self._certificate.start()
        if self._history is not None:
            self._threads.start("history", self._history.serve)
        if self._panel is not None:
            self._threads.start("panel", partial(self._serve_panel, self._panel))
        if self._broker is not None:
            self._broker.start()
        self._watchdog.ready()
        try:
            self._loop()
        finally:
            if self._panel is not None:
                # First of all: from here on nobody watches.
                self._panel.close()
            goodbye = self._engine.goodbye(self._clock.moment())
            if self._broker is not None:
                self._broker.stop(goodbye)
            self._watchdog.stopping()
            self._threads.join(2.0)
            self._store.close()

    def _loop(self) -> None:
        wait_s = 0.0
        while True:
            happened = self._inbox.take(wait_s)
            effects = self._engine.handle(happened)
            perform(effects, self._performer)
            if effects.show is not None:
                self._watchdog.status(effects.show)
            for observe in self._observers:
                observe(happened, effects)
            self._feed_the_watchdog()
            if self._panel is not None:
                self._panel.refresh()
            if self._threads.broken is not None:
                raise self._threads.broken
            if effects.stop:
                return
            wait_s = min(1.0, (effects.wake_in_ms - self._age_ms(happened)) / 1000)

    def _feed_the_watchdog(self) -> None:
        """Only while everything comes round: acquisition, card, broker, and this loop itself.

        What is stuck cannot be mended from here; systemd starts the gateway anew, which reports the
        interruption.
        """
        now_ms = self._clock.moment().monotonic_ms
        late = self._threads.pulses.late(now_ms) if now_ms is not None else []
        if self._broker is not None and not self._broker.is_running:
            late.append("mqtt")
        if late and late != self._late:
            log.error("does not come round any more: %s; the watchdog is not fed", ", ".join(late))
        self._late = late
        if not late:
            self._watchdog.alive()

    def _age_ms(self, happened: Input) -> int:
        now_ms, then_ms = self._clock.moment().monotonic_ms, happened.moment.monotonic_ms
        return now_ms - then_ms if now_ms is not None and then_ms is not None else 0

    def _deliver(self, event: BrokerEvent) -> None:
        self._inbox.put(partial(FromBroker, event=event))

    def _heard_from_history(self, written_up_to: int | None, note: str | None) -> None:
        self._inbox.put(partial(HistoryAnswered, written_up_to=written_up_to, note=note))

    def _serve_panel(self, panel: PanelParts) -> None:
        """Pins that fail end the panel, not the watch over the pump."""
        try:
            panel.serve(self._threads.stopping, self._press)
        except Exception:
            log.exception("the panel's pins fail: nothing is shown on it until the next start of the gateway")

    def _press(self, press: Press) -> None:
        self._inbox.put(ButtonPressed if press is Press.SHORT else ButtonHeld)

    def _asked_to_stop(self, _signal: int, _frame: FrameType | None) -> None:
        # Not in the handler itself: it may have interrupted the very queue that it would put into.
        threading.Thread(target=self.stop, daemon=True).start()
