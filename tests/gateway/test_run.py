"""Threads, queues and signals: real threads, a real card and a real port."""

from __future__ import annotations

import queue
import socket
import sqlite3
import threading
from functools import partial
from itertools import permutations

import pytest

from alerts.condition import Kind
from alerts.mqtt import BrokerMessage
from alerts.sink import Message
from drivers.family import LineSettings
from drivers.link import LinkDown, PlayedLink
from gateway import run
from gateway.app import compose
from gateway.clock import SystemClock
from gateway.config import parse_config
from gateway.effects import Commit, Effects, Send, Write
from gateway.inputs import BytesArrived, CommitFailed, Committed, FromBroker, PortLost, PortOpened, Tick
from gateway.run import Card, Inbox, Threads, perform
from gateway.store import Store, StoreFailed
from gateway.watchdog import Pulses, Watchdog

PATIENCE_S = 20.0
CONFIG = """\
format = "dripwatch-gateway/1"
home = "h-1"
state_dir = "state"
clock_trusted = true
[[pump]]
id = "p1"
family = "dummy"
port = "script:day.txt"
origin = "test"
poll = "1s"
"""


@pytest.fixture(autouse=True)
def _own_excepthook(monkeypatch):
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)


class Recorder:
    """A performer that remembers what it was asked for, in order."""

    def __init__(self) -> None:
        self.done: list[str] = []

    def show(self, line: str) -> None:
        self.done.append("show")

    def write(self, write: Write) -> None:
        self.done.append("write")

    def commit(self, commit: Commit) -> None:
        self.done.append("commit")

    def release(self, send: Send) -> None:
        self.done.append("release")

    def write_history(self, batch: Message) -> None:
        self.done.append("history")


EFFECTS = {
    "show": {"show": "a line"},
    "write": {"writes": (Write(port="x", data=b"?"),) * 2},
    "commit": {"commit": Commit(number=1)},
    "release": {"sends": (Send(message=Message(topic="t", payload=b"{}"), token=1),) * 2},
    "history": {"history": (Message(topic="", payload=b"a b=1 1", seq=1),)},
}


def test_whatever_effects_there_are_they_are_shown_written_committed_and_released_in_this_order():
    order = ["show", "write", "commit", "release", "history"]
    for count in range(len(EFFECTS) + 1):
        for names in permutations(EFFECTS, count):
            recorder = Recorder()
            fields = {name: value for effect in names for name, value in EFFECTS[effect].items()}
            perform(Effects(**fields), recorder)
            places = [order.index(what) for what in recorder.done]
            assert places == sorted(places)
            assert {order[place] for place in places} == set(names)


# -- the inbox ------------------------------------------------------------------------------------------


def test_the_inbox_hands_out_what_happened_in_order_each_with_its_time():
    inbox = Inbox(SystemClock())
    for data in (b"1", b"2"):
        inbox.put(partial(BytesArrived, port="x", data=data))
    one, other = inbox.take(0), inbox.take(0)
    assert (one.data, other.data) == (b"1", b"2")
    assert one.moment.monotonic_ms <= other.moment.monotonic_ms


def test_an_empty_inbox_hands_out_the_time(monkeypatch):
    assert isinstance(Inbox(SystemClock()).take(-1.0), Tick)


def test_what_pumps_say_and_finds_no_room_is_counted_and_nothing_else_is_ever_lost(monkeypatch):
    monkeypatch.setattr(run, "INBOX_MAX", 2)
    inbox = Inbox(SystemClock())
    for _ in range(5):
        inbox.put(partial(BytesArrived, port="x", data=b"noise"))
    inbox.put(partial(PortOpened, port="x"))
    inbox.put(partial(Committed, number=1))
    tick = inbox.take(0)
    assert (type(tick), tick.inbox_losses) == (Tick, 3)
    assert [type(inbox.take(0)) for _ in range(4)] == [BytesArrived, BytesArrived, PortOpened, Committed]
    assert inbox.take(0).inbox_losses == 3


def test_what_pumps_and_nurses_say_takes_no_more_memory_than_its_bound(monkeypatch):
    monkeypatch.setattr(run, "INBOX_BYTES_MAX", 1_000)
    inbox = Inbox(SystemClock())
    nurse = BrokerMessage(topic="t", payload=b"x" * 300, retain=False, qos=1)
    for _ in range(3):
        inbox.put(partial(BytesArrived, port="x", data=b"x" * 300))
        inbox.put(partial(FromBroker, event=nurse))
    assert inbox.losses == 3
    taken = [type(inbox.take(0)) for _ in range(5)]
    assert taken == [Tick, BytesArrived, FromBroker, BytesArrived, Tick]
    inbox.put(partial(BytesArrived, port="x", data=b"x" * 900))
    assert type(inbox.take(0)) is BytesArrived


def test_in_a_flood_the_loss_is_told_though_there_is_always_something_to_do(monkeypatch):
    monkeypatch.setattr(run, "INBOX_MAX", 3)
    inbox = Inbox(SystemClock())
    told = []
    for _ in range(20):
        for _ in range(5):
            inbox.put(partial(BytesArrived, port="x", data=b"noise"))
        happened = inbox.take(0)
        told += [happened.inbox_losses] if isinstance(happened, Tick) else []
    assert told
    assert told == sorted(set(told))


# -- the card ---------------------------------------------------------------------------------------------


def test_a_card_that_refuses_is_told_of_and_tried_again_until_it_works(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "RECOMMIT_AFTER_MIN_S", 0.001)
    path = tmp_path / "dripwatch.sqlite"
    store = Store(path)
    harm = sqlite3.connect(path)
    harm.execute("create trigger full before insert on kept begin select raise(fail, 'disk is full'); end")
    harm.commit()
    inbox, threads = Inbox(SystemClock()), Threads()
    card = Card(store, inbox, threads)
    card.start()
    card.commit(Commit(number=1, kept=(("told", b"1"),)))
    for _ in range(2):
        failed = inbox.take(PATIENCE_S)
        assert isinstance(failed, CommitFailed)
        assert "disk is full" in failed.reason
    card.commit(Commit(number=2, kept=(("told", b"2"),)))
    harm.execute("drop trigger full")
    harm.commit()
    harm.close()
    while isinstance(happened := inbox.take(PATIENCE_S), CommitFailed):
        pass
    assert isinstance(happened, Committed)
    if happened.number == 1:
        happened = inbox.take(PATIENCE_S)
    assert happened.number == 2
    threads.join(PATIENCE_S)
    assert store.restore().kept == {"told": b"2"}
    assert threads.broken is None
    store.close()


def test_what_was_handed_over_before_a_stop_is_written_before_the_end(tmp_path):
    store = Store(tmp_path / "dripwatch.sqlite")
    inbox, threads = Inbox(SystemClock()), Threads()
    card = Card(store, inbox, threads)
    for number in range(1, 50):
        card.commit(Commit(number=number, kept=(("n", b"%d" % number),)))
    card.start()
    threads.join(PATIENCE_S)
    assert store.restore().kept == {"n": b"49"}
    store.close()


def test_a_thread_that_breaks_stops_all_others_and_says_why():
    threads = Threads()

    def body() -> None:
        raise ZeroDivisionError("a mistake of ours")

    threads.start("one", body)
    assert threads.stopping.wait(PATIENCE_S)
    threads.join(PATIENCE_S)
    assert isinstance(threads.broken, ZeroDivisionError)


# -- the ports -------------------------------------------------------------------------------------------


class Stopping:
    """Nobody stops before so many waits; how long each was to be is remembered, and nobody waits."""

    def __init__(self, waits: int) -> None:
        self.waited: list[float] = []
        self._waits = waits

    def is_set(self) -> bool:
        return len(self.waited) >= self._waits

    def wait(self, duration_s: float) -> bool:
        self.waited.append(duration_s)
        return self.is_set()


class OneThread:
    """Runs what is started at once."""

    def __init__(self, waits: int) -> None:
        self.pulses = Pulses()
        self.stopping = Stopping(waits)

    def start(self, name, body) -> None:
        body()


class PortThat:
    """An open port that says these words and is lost."""

    def __init__(self, *words: bytes) -> None:
        self._words = list(words)
        self.closed = False

    def read(self, timeout_s: float) -> bytes:
        if not self._words:
            raise LinkDown("lost")
        return self._words.pop(0)

    def close(self) -> None:
        self.closed = True


def waits_between(monkeypatch, opened: list, waits: int) -> tuple[list[float], Inbox]:
    """How long it is waited between tries to open a port of which this becomes, one after another."""

    def open_next(port, line):
        if (link := opened.pop(0)) is None:
            raise LinkDown("not there")
        return link

    monkeypatch.setattr(run, "open_link", open_next)
    inbox, threads = Inbox(SystemClock()), OneThread(waits)
    run.Ports({"x": LineSettings(baud=9_600)}, inbox, threads).start()
    return threads.stopping.waited, inbox


def test_a_port_that_is_not_there_is_tried_again_ever_later_but_within_two_seconds(monkeypatch):
    waited, inbox = waits_between(monkeypatch, [None] * 6, 6)
    assert waited == [0.25, 0.5, 1.0, 2.0, 2.0, 2.0]
    assert isinstance(inbox.take(0), PortLost)
    assert isinstance(inbox.take(0), Tick), "and is told of once"


def test_a_port_that_was_heard_is_tried_again_at_once(monkeypatch):
    waited, _ = waits_between(monkeypatch, [None, None, PortThat(b"a reading"), None], 4)
    assert waited == [0.25, 0.5, 0.25, 0.5]


def test_a_port_that_opens_and_fails_at_once_is_closed_and_not_opened_without_end(monkeypatch):
    links = [PortThat() for _ in range(5)]
    waited, _ = waits_between(monkeypatch, list(links), 5)
    assert waited == [0.25, 0.5, 1.0, 2.0, 2.0]
    assert all(link.closed for link in links)


# -- the whole gateway, without a broker ------------------------------------------------------------------


class Watched:
    """A gateway of real parts in a thread of its own, and what it has seen."""

    def __init__(self, folder, script: str, performer=lambda real: real) -> None:
        (folder / "day.txt").write_text(script)
        self.seen: queue.Queue = queue.Queue()
        self.gateway = compose(
            parse_config(CONFIG, folder),
            observers=(lambda happened, effects: self.seen.put((happened, effects)),),
            performer=performer,
        )
        self.broken: BaseException | None = None
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        try:
            self.gateway.run(handle_signals=False)
        except Exception as error:
            self.broken = error

    def until(self, condition) -> list:
        seen = []
        while True:
            seen.append(self.seen.get(timeout=PATIENCE_S))
            if condition(*seen[-1]):
                return seen

    def stop(self) -> None:
        self.gateway.stop()
        self.thread.join(PATIENCE_S)
        assert not self.thread.is_alive()


def kinds_committed(seen: list) -> list[str]:
    commits = [effects.commit for _, effects in seen if effects.commit is not None]
    return [alert.kind for commit in commits for alert in commit.alerts]


def test_a_gateway_hears_its_pump_raises_what_it_says_and_stops_cleanly(tmp_path):
    alarm = "state=alarm rate_ml_h=60 volume_ml=0 alarms=occlusion_downstream\n"
    watched = Watched(tmp_path, f"0 {alarm}")
    seen = watched.until(lambda *one: Kind.OCCLUSION in kinds_committed([one]))
    assert kinds_committed(seen) == [Kind.NO_PRESCRIPTION, Kind.OCCLUSION]
    happened = [type(one) for one, _ in seen]
    assert happened.index(PortOpened) < happened.index(BytesArrived)
    watched.stop()
    assert watched.broken is None
    again = Watched(tmp_path, f"0 {alarm}")
    seen = again.until(lambda happened, effects: isinstance(happened, BytesArrived))
    again.stop()
    assert kinds_committed(seen) == [], "nothing is told anew, and nobody was interrupted"


def test_a_port_that_cannot_be_opened_is_told_with_its_reason(tmp_path):
    watched = Watched(tmp_path, "0 state=idle alarms=\n")
    watched.stop()
    (tmp_path / "day.txt").write_text("this is no script\n")
    config = parse_config(CONFIG, tmp_path)
    seen: queue.Queue = queue.Queue()
    gateway = compose(config, observers=(lambda happened, effects: seen.put(happened),))
    thread = threading.Thread(target=partial(gateway.run, handle_signals=False))
    thread.start()
    while not isinstance(happened := seen.get(timeout=PATIENCE_S), PortLost):
        pass
    gateway.stop()
    thread.join(PATIENCE_S)
    assert "line 1" in happened.reason


def test_a_broken_promise_of_our_own_ends_the_gateway_and_the_next_start_reports_the_interruption(tmp_path):
    class Breaks:
        def __init__(self, real) -> None:
            self._real = real
            self.commits = 0

        def __getattr__(self, name: str):
            return getattr(self._real, name)

        def commit(self, commit: Commit) -> None:
            self.commits += 1
            assert self.commits < 2, "a promise is broken"
            self._real.commit(commit)

    script = "0.05 state=alarm rate_ml_h=60 volume_ml=0 alarms=occlusion_downstream\n"
    watched = Watched(tmp_path, script, performer=Breaks)
    watched.thread.join(PATIENCE_S)
    assert isinstance(watched.broken, AssertionError)
    again = Watched(tmp_path, script)
    seen = again.until(lambda happened, effects: isinstance(happened, Committed))
    again.stop()
    assert Kind.MONITORING_INTERRUPTED in kinds_committed(seen)


def test_systemd_hears_that_we_are_ready_alive_what_is_shown_and_that_we_stop(tmp_path, monkeypatch):
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(path)
        systemd.settimeout(PATIENCE_S)
        monkeypatch.setattr("gateway.app.Watchdog", partial(Watchdog, {"NOTIFY_SOCKET": path}))
        watched = Watched(tmp_path, "0 state=idle alarms=\n")
        said = []
        while not (said and said[-1].startswith("STATUS=") and "link up, pump says idle" in said[-1]):
            said.append(systemd.recv(4_096).decode())
        watched.stop()
        while said[-1] != "STOPPING=1":
            said.append(systemd.recv(4_096).decode())
    assert said[0] == "READY=1"
    assert "WATCHDOG=1" in said


class Fed:
    """A watchdog that counts how often it was fed."""

    def __init__(self) -> None:
        self.times = 0

    def alive(self) -> None:
        self.times += 1

    def ready(self) -> None: ...
    def stopping(self) -> None: ...
    def status(self, text: str) -> None: ...


class Stuck:
    """Something that never comes back, until it is let go."""

    def __init__(self, monkeypatch, owner: type, name: str) -> None:
        self.reached, self.let_go = threading.Event(), threading.Event()
        real = getattr(owner, name)

        def stuck(*given: object) -> object:
            self.reached.set()
            self.let_go.wait(PATIENCE_S)
            return real(*given)

        monkeypatch.setattr(owner, name, stuck)


def fed_while(watched: Watched, fed: Fed, rounds: int = 3) -> int:
    """How often the watchdog was fed in the last of some rounds of the loop."""
    for _ in range(rounds):
        before = fed.times
        watched.until(lambda happened, effects: isinstance(happened, Tick))
    return fed.times - before


@pytest.fixture
def fed(monkeypatch):
    fed = Fed()
    monkeypatch.setattr("gateway.app.Watchdog", lambda: fed)
    return fed


@pytest.mark.parametrize("part", ["card", "port"])
def test_the_watchdog_is_fed_only_while_everything_comes_round(tmp_path, monkeypatch, fed, part):
    monkeypatch.setattr(run, "READ_FOR_S", 0.05)
    for name in ("CARD_TAKES_S", "ROUND_TAKES_S"):
        monkeypatch.setattr(run, name, 0.5)
    monkeypatch.setattr("gateway.watchdog.Pulses.beat.__defaults__", (0.5,))
    watched = Watched(tmp_path, "0 state=idle alarms=\n")
    assert fed_while(watched, fed) > 0
    where = {"card": (Store, "commit"), "port": (PlayedLink, "read")}[part]
    stuck = Stuck(monkeypatch, *where)
    if part == "card":
        watched.gateway._card.commit(Commit(number=0))
    assert stuck.reached.wait(PATIENCE_S)
    assert fed_while(watched, fed) == 0
    stuck.let_go.set()
    assert fed_while(watched, fed) > 0
    watched.stop()


def test_a_card_that_refuses_and_a_port_that_is_not_there_are_no_reason_to_start_anew(
    tmp_path, monkeypatch, fed
):
    monkeypatch.setattr(run, "RECOMMIT_AFTER_MIN_S", 0.01)

    def refuse(*_: object) -> None:
        raise StoreFailed("disk is full")

    watched = Watched(tmp_path, "this is no script\n")
    monkeypatch.setattr(Store, "commit", refuse)
    watched.gateway._card.commit(Commit(number=0))
    watched.until(lambda happened, effects: isinstance(happened, CommitFailed))
    assert fed_while(watched, fed) > 0
    watched.stop()


def test_a_gateway_whose_card_has_failed_since_watches_without_it_and_says_so(tmp_path):
    card = parse_config(CONFIG, tmp_path).state_dir / "dripwatch.sqlite"
    card.mkdir(parents=True)
    alarm = "state=alarm rate_ml_h=60 volume_ml=0 alarms=occlusion_downstream\n"
    watched = Watched(tmp_path, f"0 {alarm}")
    seen = watched.until(lambda *one: Kind.OCCLUSION in kinds_committed([one]))
    assert Kind.STORAGE_FAILING in kinds_committed(seen)
    watched.stop()
    assert watched.broken is None
    assert list(card.iterdir()) == []


def test_a_gateway_that_never_had_a_card_to_write_to_does_not_begin(tmp_path):
    (tmp_path / "state").write_text("")
    (tmp_path / "day.txt").write_text("")
    with pytest.raises(StoreFailed, match="Set state_dir to a folder that can"):
        compose(parse_config(CONFIG, tmp_path))


def test_a_card_whose_numbers_cannot_be_read_is_set_aside_and_the_gateway_begins_with_a_new_store(tmp_path):
    config = parse_config(CONFIG, tmp_path)
    store = Store(config.state_dir / "dripwatch.sqlite")
    token = store.restore().store
    store.commit(Commit(number=1, kept=(("next_alert", b"\xc1"),)))
    store.close()
    gateway = compose(config)
    assert gateway.store_token != token
    assert list(config.state_dir.glob("dripwatch.sqlite.broken-*"))
