"""The gateway's machine in the fake world: an engine that lives from one power cut to the next, and a card
that outlives them.

The engine and the store are the real ones. Fakes are the clock, the wire, the thread that waits for the card,
and the power switch.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from hashlib import sha256
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from alerts.mqtt import BrokerEvent
from alerts.sink import Message
from drivers import families
from gateway.core.timeline import Moment
from gateway.effects import Commit, Send, Write
from gateway.engine import Engine, EngineSetup
from gateway.inputs import (
    BytesArrived,
    CommitFailed,
    Committed,
    Fetched,
    FromBroker,
    Input,
    PortLost,
    PortOpened,
    StopRequested,
    Tick,
)
from gateway.lanes import Fetch
from gateway.pump import PumpSetup
from gateway.run import RECOMMIT_AFTER_MAX_S, RECOMMIT_AFTER_MIN_S, perform
from gateway.store import Store
from tests.world.names import BEGINNING_UTC_MS, COLLECTOR, HOME, port_of

if TYPE_CHECKING:
    from tests.world.world import World


AT_RISK_MS = 60_000
"""So much telemetry may be gone with a power cut; more while the card refuses, or nothing can be dated."""


class PowerCut(Exception):
    """The power goes at this instant."""


class Card:
    """As gateway/run.py's: commits in order, all that wait as one, tried again for as long as it refuses;
    what is to be fetched is read behind them.
    """

    def __init__(self, home: Home) -> None:
        self._home = home
        self._commits: list[Commit] = []
        self._fetches: list[Fetch] = []
        self._busy = False
        self._again_after_s = RECOMMIT_AFTER_MIN_S

    def take(self, what: Commit | Fetch) -> None:
        if isinstance(what, Fetch):
            self._fetches.append(what)
        else:
            self._commits.append(what)
        if not self._busy:
            self._busy = True
            self._home.soon(self._home.world.card_ms, self._try)

    def _try(self) -> None:
        home = self._home
        if home.card_refuses:
            again_after_ms = round(self._again_after_s * 1000)
            self._again_after_s = min(self._again_after_s * 2, RECOMMIT_AFTER_MAX_S)
            home.soon(again_after_ms, self._try)
            number = self._commits[-1].number if self._commits else 0
            home.put(CommitFailed(moment=home.moment(), number=number, reason="the card refuses"))
            return
        self._again_after_s = RECOMMIT_AFTER_MIN_S
        commits, self._commits = self._commits, []
        fetches, self._fetches = self._fetches, []
        self._busy = False
        assert home.store is not None
        if commits:
            waiting = reduce(Commit.followed_by, commits)
            if home.power_goes("writing"):
                return
            home.store.commit(waiting)
            home.commits += 1
            home.on_card(waiting)
            home.world.promises.committed(home, waiting)
            if home.power_goes("written"):
                return
            home.put(Committed(moment=home.moment(), number=waiting.number))
        for fetch in fetches:
            if home.store is not None:
                found = home.store.fetch(fetch)
                home.put(Fetched(moment=home.moment(), fetch=fetch, found=found))


class Home:
    """See the head of this file."""

    def __init__(self, world: World, folder: Path, name: str = "b") -> None:
        """``name``: what its starts are called after."""
        self.world = world
        self.card = folder / "dripwatch.sqlite"
        self.engine: Engine | None = None
        self.store: Store | None = None
        self.starts = 0
        self.commits = 0
        self.card_refuses = False
        self.clock_error_ms = 0
        """By how much the machine's wall clock is wrong."""
        self.clock_is_set = True
        self.cut_at: str | None = None
        """At which effect the power goes next, by its name (``_boundary``)."""
        self.cuts: list[tuple[int, int]] = []
        """When the power was cut, and how much telemetry was at risk then, both in ms."""
        self._card_bad_since_ms: int | None = None
        self._commits_when_good: int | None = None
        self._unset_since_ms: int | None = None
        self._commits_when_set: int | None = None
        self.losses = 0
        self.unplugged: set[str] = set()
        self.started_ms = 0
        self._monotonic_at_boot_ms = 0
        self._card = Card(self)
        self._wake = count()
        self._next_wake = 0
        self.name = name
        self._cut_last = False
        self._stop_asked = False
        self._stop_number: int | None = None
        self._stop_on_card = False

    @property
    def on(self) -> bool:
        return self.engine is not None

    def power_on(self) -> None:
        """Boot: another monotonic clock, the same card."""
        if self.on:
            return
        world = self.world
        self.starts += 1
        self.started_ms = world.now_ms
        self._monotonic_at_boot_ms = 15_000 + 1_000 * self.starts
        self.store = Store(self.card)
        if world.fast:
            self.store._database.execute("pragma synchronous=off")
        restored = self.store.restore()
        assert restored.set_aside is None
        self._card = Card(self)
        self._stop_asked, self._stop_number, self._stop_on_card = False, None, False
        self.losses = 0
        self.engine = Engine(
            EngineSetup(
                home=HOME,
                version="world",
                pumps=tuple(
                    PumpSetup(
                        pump=bed.pump,
                        port=port_of(bed.pump),
                        address=None,
                        poll_ms=bed.poll_ms,
                        origin="test",
                        driver_status="experimental",
                        serial_number=None,
                        prescription=bed.order,
                        prescription_text=bed.order_text,
                        prescription_sha256=sha256(bed.order_text.encode()).hexdigest(),
                    )
                    for bed in world.beds
                ),
                families={port_of(bed.pump): families.find(bed.family) for bed in world.beds},
                collector=COLLECTOR,
                mqtt=True,
                boot=f"{self.name}-{self.starts}",
            ),
            store=restored.store,
            alerts=restored.alerts,
            lanes=restored.lanes,
            kept=restored.kept,
        )
        world.promises.started(self, restored)
        self.put(Tick(moment=self.moment()))
        for bed in world.beds:
            if bed.pump not in self.unplugged:
                self.soon(10, lambda pump=bed.pump: self._opened(pump))
        world.broker.gateway_comes(self)

    def card_fails(self) -> None:
        """From now on what happens is in memory only."""
        if self.card_bad_since_ms is None:
            self._card_bad_since_ms = self.world.now_ms
        self._commits_when_good = None

    def card_recovers(self) -> None:
        """What was in memory goes to the card with the next commit or the one after it."""
        self._commits_when_good = self.commits

    @property
    def card_bad_since_ms(self) -> int | None:
        """From when on the card may lack what has happened."""
        good = self._commits_when_good
        return None if good is not None and self.commits >= good + 2 else self._card_bad_since_ms

    @property
    def unset_since_ms(self) -> int | None:
        """From when on what has happened may wait for a date, and be nowhere but in memory."""
        dated = self._commits_when_set
        return None if dated is not None and self.commits >= dated + 2 else self._unset_since_ms

    def cut_power(self) -> None:
        """What is not on the card is gone; what was under way to the world may or may not arrive."""
        if self._switch_off():
            now_ms = self.world.now_ms
            since_ms = [ms for ms in (self.card_bad_since_ms, self.unset_since_ms) if ms is not None]
            self.cuts.append((now_ms, AT_RISK_MS + now_ms - min(since_ms, default=now_ms)))
            # A stop that is on the card was one, whenever the power goes after it.
            self._cut_last = not self._stop_on_card
            self.world.promises.power_cut(self)

    @property
    def cut_last(self) -> bool:
        """Whether the start before ended without a clean stop."""
        return self._cut_last

    def _switch_off(self) -> bool:
        if self.store is None:
            return False
        self.engine = None
        self.store.close()
        self.store = None
        self.cut_at = None
        self.world.broker.gateway_goes(self)
        return True

    def stop(self) -> None:
        """A clean stop."""
        if self.on:
            self._stop_asked = True
            self.put(StopRequested(moment=self.moment()))

    def on_card(self, commit: Commit) -> None:
        """The card holds this; what was decided after a stop was asked for says that it was a clean one."""
        self._stop_on_card = self._stop_number is not None and commit.number >= self._stop_number

    def moment(self) -> Moment:
        return Moment(
            monotonic_ms=self._monotonic_at_boot_ms + self.world.now_ms - self.started_ms,
            utc_ms=max(0, BEGINNING_UTC_MS + self.world.now_ms + self.clock_error_ms),
            synced=self.clock_is_set,
            boot=f"machine-{self.starts}",
        )

    def soon(self, delay_ms: int, do: Callable[[], None]) -> None:
        """Have something happen in this life of the machine, if it still lasts."""
        life = self.starts

        def if_alive() -> None:
            if self.on and self.starts == life:
                do()

        self.world.after(delay_ms, if_alive)

    def deliver(self, event: BrokerEvent) -> None:
        if self.on:
            self.put(FromBroker(moment=self.moment(), event=event))

    def clock_is(self, *, error_ms: int, is_set: bool) -> None:
        """The wall clock is set, or said to be wrong."""
        self.clock_error_ms = error_ms
        if not is_set and self.clock_is_set:
            self._unset_since_ms = self.world.now_ms
            self._commits_when_set = None
        elif is_set and not self.clock_is_set:
            self._commits_when_set = self.commits
        self.clock_is_set = is_set
        # seen before anything else befalls it: what two settings between two looks were cannot be told apart
        self.put(Tick(moment=self.moment(), inbox_losses=self.losses))

    def unplug(self, pump: str) -> None:
        """The cable is drawn out of the gateway."""
        self.unplugged.add(pump)
        if self.on:
            self.put(PortLost(moment=self.moment(), port=port_of(pump), reason="the cable is out"))

    def plug_in(self, pump: str) -> None:
        self.unplugged.discard(pump)
        if self.on:
            self._opened(pump)

    def _opened(self, pump: str) -> None:
        if pump not in self.unplugged:
            self.put(PortOpened(moment=self.moment(), port=port_of(pump)))

    def put(self, happened: Input) -> None:
        """Something happens to the gateway: what follows from it is done at once."""
        if self.engine is None:
            return
        self.world.last.append((self.world.now_ms, happened))
        effects = self.engine.handle(happened)
        self._next_wake = next(self._wake)
        wake = self._next_wake
        self.world.promises.handled(self)
        try:
            perform(effects, self)
        except PowerCut:
            self.cut_power()
            return
        if effects.stop:
            if self.card_bad_since_ms is not None:
                self.cuts.append((self.world.now_ms, AT_RISK_MS + self.world.now_ms - self.card_bad_since_ms))
            self._switch_off()
            self._cut_last = False
            return
        if self._next_wake == wake:
            self.soon(max(1, effects.wake_in_ms), lambda: self._tick(wake))

    def _tick(self, wake: int) -> None:
        if wake == self._next_wake:
            self.put(Tick(moment=self.moment(), inbox_losses=self.losses))

    # -- the performer -----------------------------------------------------------------------------

    def show(self, line: str) -> None:
        self._boundary("show")

    def write(self, write: Write) -> None:
        self._boundary("write")
        pump = write.port.removeprefix("port-")
        self.world.promises.written(self, pump, write.data)
        if pump in self.unplugged:
            return
        for sent in self.world.devices[pump].receive(write.data, self.world.now_ms):
            if sent.data:
                self.soon(
                    sent.at_ms - self.world.now_ms,
                    lambda data=sent.data: self._hear(pump, write.port, data),
                )

    def _hear(self, pump: str, port: str, data: bytes) -> None:
        if pump not in self.unplugged:
            self.put(BytesArrived(moment=self.moment(), port=port, data=data))

    def commit(self, commit: Commit) -> None:
        self.world.promises.decided(self, commit)
        if self._stop_asked and self._stop_number is None:
            self._stop_number = commit.number
        self._boundary("commit")
        self._card.take(commit)

    def fetch(self, fetch: Fetch) -> None:
        self._boundary("fetch")
        self._card.take(fetch)

    def release(self, send: Send) -> None:
        self._boundary("release")
        self.world.promises.released(self, send)
        self.world.broker.from_gateway(self, send)
        self._boundary("released")

    def write_history(self, batch: Message) -> None:
        """This world has no server for the history."""

    def power_goes(self, place: str) -> bool:
        """Whether the power goes here; then it has gone."""
        try:
            self._boundary(place)
        except PowerCut:
            self.cut_power()
            return True
        return False

    def _boundary(self, place: str) -> None:
        self.world.effect_boundaries += 1
        if self.world.effect_boundaries == self.world.cut_power_at_boundary or place == self.cut_at:
            raise PowerCut
