"""`make kills`: gateways and brokers killed (-9) at random instants while alerts come and go.

Real processes: gateways with scripted pumps, Mosquitto, the dashboard as the collector. A gateway that runs
says on standard output what it has put on the card (`--trace`, step `outbox`): that is what the collector
must account for. Whatever was killed when, in the end the collector has every number once and every promise,
each alert's revisions rise, and no condition is told as two alerts.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import queue
import random
import shutil
import sqlite3
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from alerts.mqtt import BrokerConnected, BrokerEvent, BrokerMessage, MqttClient, MqttConfig
from benchmarks.progress import Progress
from gateway.store import Store
from tests.live.broker import MOSQUITTO, Mosquitto
from tests.live.house import Dashboard, Gateway, wait_until

HOMES_AT_ONCE = 10
BROKERS_AT_ONCE = 4
HOMES_AT_A_BROKER = 2
ALARMS = ("occlusion_downstream", "air_in_line", "low_battery", "door_open")
"""The first latches; each of the others begins a new alert each time."""
STANDS_IN_THE_END = "air_in_line"
SETTLES_WITHIN_S = 120.0


def script(changes_every_s: float, lasts_s: float) -> str:
    """A pump whose alarms come and go, in an order that repeats after a while."""
    lines = ["0 state=running alarms="]
    for step in range(1, round(lasts_s / changes_every_s)):
        active = [alarm for place, alarm in enumerate(ALARMS) if step >> place & 1]
        lines.append(f"{0.1 + step * changes_every_s:.2f} state=running alarms={';'.join(active)}")
    return "\n".join(lines) + "\n"


def quiet_script() -> str:
    """A pump with one alarm that stays."""
    return "".join(f"{at_s} state=running alarms={STANDS_IN_THE_END}\n" for at_s in range(300))


class Promise(NamedTuple):
    """A telling that the gateway had on the card before it was killed."""

    alert_id: str
    rev: int
    seq: int


class Home:
    """A gateway with a scripted pump, and what it has promised."""

    def __init__(
        self,
        folder: Path,
        token: str,
        broker_port: int,
        *,
        broker_host: str = "127.0.0.1",
        prescription: Path | None = None,
        clock_trusted: bool = True,
    ) -> None:
        folder.mkdir(parents=True)
        self.token = token
        self._script = folder / "pump.script"
        self.says(script(0.3, 600.0))
        self.gateway = Gateway(
            folder,
            home=token,
            broker_port=broker_port,
            broker_host=broker_host,
            port=f"script:{self._script}",
            family="dummy",
            prescription=prescription,
            clock_trusted=clock_trusted,
        )
        self.card_fails = False
        """Whether it may have told something from memory, under a second store."""
        self.promises: set[Promise] = set()
        self._receipted = 0
        self._receipted_kinds: set[str] = set()
        self.kills = 0
        self.kills_with_something_under_way = 0

    def says(self, text: str) -> None:
        """What its pump says from the next start on."""
        self._script.write_text(text)

    def kill(self) -> None:
        """As a power cut; what it had said by then is noted."""
        self.gateway.kill()
        self.kills += 1
        self.kills_with_something_under_way += self.has_something_under_way()

    def run_and_kill(self, chance: random.Random) -> None:
        """Starts it and kills it: some as they start, most while alarms change."""
        self.gateway.start()
        if chance.random() >= 0.2:
            self._wait_for_a_change()
        wait_s(chance.uniform(0.0, 1.5))
        self.kill()

    def end_with_one_alarm(self) -> None:
        """From the next start on one alarm stands and nothing else happens."""
        self.says(quiet_script())

    def _wait_for_a_change(self) -> None:
        while True:
            line = self.gateway.lines.get(timeout=SETTLES_WITHIN_S)
            self.note(line)
            if line["step"] == "detected" and line["kind"] != "monitoring_interrupted":
                return

    def has_something_under_way(self) -> bool:
        """Whether it has said of a message that it is on the card, and not yet that it is receipted."""
        self._hear()
        return any(promise.seq > self._receipted for promise in self.promises)

    def has_a_receipt_of(self, kind: str) -> bool:
        """Whether it has said that the collector has an alert of this kind."""
        self._hear()
        return kind in self._receipted_kinds

    def _hear(self) -> None:
        while True:
            try:
                self.note(self.gateway.lines.get_nowait())
            except queue.Empty:
                return

    def note(self, line: Mapping[str, Any]) -> None:
        """Heed a line of its trace."""
        if line["step"] == "outbox":
            self.promises.add(Promise(str(line["alert_id"]), int(str(line["rev"])), int(str(line["seq"]))))
        elif line["step"] == "receipt":
            self._receipted = max(self._receipted, int(str(line["seq"])))
            self._receipted_kinds.add(str(line["kind"]))

    def settle(self, board: Dashboard) -> None:
        """Stops it once the collector has the alarm that stands and all else that was ever told."""
        wait_until(
            lambda: "broker connected; p1: link up" in self.gateway.said_since_start(),
            f"{self.token} watches and is connected",
            within_s=SETTLES_WITHIN_S,
        )
        wait_s(0.5)  # what it found at its start is on the card
        wait_until(
            lambda: self._stands(board) and self.gateway.has_told_all(board),
            f"the collector has all that {self.token} has numbered",
            within_s=SETTLES_WITHIN_S,
        )
        self.gateway.kill()
        self._hear()

    def _stands(self, board: Dashboard) -> bool:
        newest = {
            message["alert_id"]: message for message in board.messages(self.token) if "alert_id" in message
        }
        return {one["code"] for one in newest.values() if one["state"] == "active"} >= {STANDS_IN_THE_END}

    def wrong(self, board: Dashboard) -> list[str]:
        """What is lost or doubled at the collector, in sentences."""
        wrong: list[str] = []
        # By number; messages under two stores have no order but that in which they came.
        rows = _select(
            board.database,
            "select store, seq, payload from message where home = ? and lane = 'alerts'"
            f" order by {'id' if self.card_fails else 'seq'}",
            self.token,
        )
        numbers: dict[object, list[int]] = {}
        for store, seq, _ in rows:
            numbers.setdefault(store, []).append(int(str(seq)))
        for store, seqs in numbers.items():
            end = self.gateway.numbered() if store == self.gateway.store_token else seqs[-1] + 1
            wrong += [f"number {seq} of {store} is lost" for seq in sorted(set(range(1, end)) - set(seqs))]
            wrong += [f"number {seq} of {store} was never given" for seq in seqs if seq >= end]
            wrong += [f"number {seq} of {store} is there with other bytes" for seq in _doubled(seqs)]
        if set(numbers) != {self.gateway.store_token} and not self.card_fails:
            wrong.append(f"its messages are of the stores {sorted(map(str, numbers))}")
        for table in ("lost", "notice"):
            for row in _select(board.database, f"select * from {table} where home = ?", self.token):
                wrong.append(f"the collector has noted {table}: {row}")
        messages = [json.loads(payload) for _, _, payload in rows]
        alerts = [message for message in messages if "alert_id" in message]
        told = {Promise(message["alert_id"], message["rev"], message["seq"]) for message in alerts}
        if self.card_fails:  # a promise does not say of which store its number is
            revisions = {one[:2] for one in told}
            told |= {one for one in self.promises if one[:2] in revisions}
        wrong += [f"{one} was on the card, and is lost" for one in sorted(self.promises - told)]
        lives = follow(alerts)
        wrong += lives.wrong
        asked = any(message["schema"] == "dripwatch.answer/1" for message in messages)
        if lives.said_again and not asked and not self.card_fails:
            wrong.append(f"{lives.said_again} tellings were said twice, and no board has asked for it")
        open_at_collector = {key: rev for key, (rev, state) in lives.newest.items() if state != "closed"}
        store = Store(self.gateway.database)
        open_at_home = {alert.alert_id: alert.rev for alert in store.restore().alerts}
        store.close()
        if open_at_collector != open_at_home:
            wrong.append(f"open at the collector {open_at_collector}, in the home {open_at_home}")
        return [f"{self.token}: {one}" for one in wrong]


class Lives(NamedTuple):
    """What the alerts of a home have gone through."""

    newest: dict[str, tuple[int, str]]
    """Rev and state of each."""
    said_again: int
    """Tellings that were the same but for their number: a board may ask for all that are open anew, and after
    a time under a second store they stand once more under the first."""
    wrong: list[str]


def follow(tellings: Sequence[Mapping[str, object]]) -> Lives:
    """Follow all alerts through their lives."""
    said_again = 0
    wrong: list[str] = []
    newest: dict[str, tuple[int, str]] = {}
    essences: dict[str, Mapping[str, object]] = {}
    open_now: dict[tuple[object, object], str] = {}
    for telling in tellings:
        alert_id, rev, state = str(telling["alert_id"]), int(str(telling["rev"])), str(telling["state"])
        what = (telling["kind"], telling["code"])
        essence = {**telling, "store": None, "seq": None}
        rev_before, state_before = newest.get(alert_id, (0, ""))
        if essence == essences.get(alert_id) and state != "closed":
            said_again += 1
            continue
        if rev <= rev_before:
            wrong.append(f"{alert_id}: rev {rev} after {rev_before}")
        if state_before == "closed":
            wrong.append(f"{alert_id} goes on after it was closed")
        if open_now.get(what, alert_id) != alert_id:
            wrong.append(f"{what} is told as two alerts, {open_now[what]} and {alert_id}")
        newest[alert_id] = (rev, state)
        essences[alert_id] = essence
        if state == "closed":
            open_now.pop(what, None)
        else:
            open_now[what] = alert_id
    return Lives(newest, said_again, wrong)


class Witness:
    """Reads all that goes by on the wire: under one number there may never be two different messages."""

    def __init__(self, broker_host: str, broker_port: int) -> None:
        self.wrong: list[str] = []
        self.heard = 0
        self._seen: dict[tuple[str, str, str, int], bytes] = {}
        self._up = threading.Event()
        self._client = MqttClient(
            MqttConfig(host=broker_host, port=broker_port),
            client_id="witness",
            username=None,
            will=None,
            subscriptions=[("dripwatch/v1/+/up/#", 1)],
            session_expiry_s=3600,
            deliver=self._on_event,
        )
        self._client.start()

    def wait(self) -> None:
        """Until it hears."""
        assert self._up.wait(SETTLES_WITHIN_S), "the witness has no broker"

    def stop(self) -> None:
        """It has heard enough."""
        self._client.stop()

    def _on_event(self, event: BrokerEvent) -> None:
        if isinstance(event, BrokerConnected):
            self._up.set()
        if not isinstance(event, BrokerMessage) or not event.payload:
            return
        said = json.loads(event.payload)
        if "seq" not in said:
            return
        number = (event.topic.split("/")[2], said["store"], said["lane"], said["seq"])
        digest = hashlib.sha256(event.payload).digest()
        self.heard += 1
        if self._seen.setdefault(number, digest) != digest:
            self.wrong.append(f"{number} went by with two different messages")


class Street(NamedTuple):
    """Homes at one broker, the collector, and a witness."""

    broker: Mosquitto
    board: Dashboard
    homes: list[Home]
    witness: Witness

    def settle(self) -> None:
        """After the last kill, until nothing waits any more."""
        for home in self.homes:
            home.settle(self.board)

    def wrong(self) -> list[str]:
        """What is lost or doubled."""
        return self.witness.wrong + [one for home in self.homes for one in home.wrong(self.board)]


@contextmanager
def street(folder: Path, homes: int, host: str = "127.0.0.1") -> Iterator[Street]:
    """A broker at ``host``, a dashboard, a witness; the homes are not started yet."""
    broker = Mosquitto(folder / "mosquitto", host=host)
    with ExitStack() as stack:
        broker.start()
        stack.callback(broker.kill)
        board = Dashboard(folder / "dashboard", broker.port, broker_host=host)
        board.start()
        stack.callback(board.kill)
        witness = Witness(host, broker.port)
        stack.callback(witness.stop)
        witness.wait()
        all_homes = [
            Home(folder / f"h-{number}", f"h-{number}", broker.port, broker_host=host)
            for number in range(homes)
        ]
        for home in all_homes:
            stack.callback(home.gateway.kill)
        yield Street(broker, board, all_homes, witness)


class Result(NamedTuple):
    """What a run has come to."""

    kills: int
    under_way: int
    """Of the kills, how many came between "on the card" and the receipt of some message."""
    promises: int
    messages: int
    alerts: int
    wrong: list[str]

    def __str__(self) -> str:
        lines = [
            f"{self.kills} kills, {self.under_way} of them between the card and a receipt;"
            f" {self.messages} messages about {self.alerts} alerts at the collector;"
            f" {self.promises} were seen to be on a card before a kill:"
            f" {'nothing lost, nothing doubled' if not self.wrong else f'{len(self.wrong)} WRONG'}",
            *self.wrong[:20],
        ]
        return "\n".join(lines)


def kill_gateways(folder: Path, kills: int, seed: int, done: Callable[[], None] = lambda: None) -> Result:
    """Gateways are killed, several at a time, again and again; the broker and the collector live."""
    count = min(HOMES_AT_ONCE, kills)

    def one_home(number: int, home: Home) -> None:
        chance = random.Random(f"{seed}/{number}")
        for _ in range(kills // count + (number < kills % count)):
            home.run_and_kill(chance)
            done()
        home.end_with_one_alarm()
        home.gateway.start()

    with street(folder, count) as here:
        _side_by_side([lambda n=n, home=home: one_home(n, home) for n, home in enumerate(here.homes)])
        here.settle()
        return _result(here, sum(home.kills for home in here.homes),
                       sum(home.kills_with_something_under_way for home in here.homes))  # fmt: skip


def kill_brokers(folder: Path, kills: int, seed: int, done: Callable[[], None] = lambda: None) -> Result:
    """Mosquitto is killed again and again, several side by side; gateways and collectors live."""
    count = min(BROKERS_AT_ONCE, max(1, kills // 5))
    results: list[Result] = []

    def one_broker(number: int) -> None:
        chance = random.Random(f"{seed}/{number}")
        mine = kills // count + (number < kills % count)
        under_way = 0
        with street(folder / f"street-{number}", HOMES_AT_A_BROKER) as here:
            for home in here.homes:
                home.gateway.start()
            for home in here.homes:
                home.gateway.next_step("detected")
            for _ in range(mine):
                # A second after a loss it is sought again: some fall before that, most into the traffic.
                wait_s(chance.uniform(0.0, 1.0) if chance.random() < 0.2 else chance.uniform(1.0, 2.5))
                here.broker.kill()
                under_way += any(home.has_something_under_way() for home in here.homes)
                wait_s(chance.choice((0.0, 0.0, 0.5)))
                here.broker.start()
                done()
            for home in here.homes:
                home.gateway.terminate()
                home.end_with_one_alarm()
                home.gateway.start()
            here.settle()
            results.append(_result(here, mine, under_way))

    _side_by_side([lambda n=n: one_broker(n) for n in range(count)])
    return Result(
        *(sum(values) for values in zip(*(result[:-1] for result in results), strict=True)),  # type: ignore[arg-type]
        [one for result in results for one in result.wrong],
    )


def _result(here: Street, kills: int, under_way: int) -> Result:
    messages = [message for home in here.homes for message in here.board.messages(home.token)]
    return Result(
        kills=kills,
        under_way=under_way,
        promises=sum(len(home.promises) for home in here.homes),
        messages=len(messages),
        alerts=sum(
            len({message["alert_id"] for message in here.board.messages(home.token) if "alert_id" in message})
            for home in here.homes
        ),
        wrong=here.wrong(),
    )


def _side_by_side(tasks: list[Callable[[], None]]) -> None:
    with ThreadPoolExecutor(len(tasks)) as pool:
        for future in [pool.submit(task) for task in tasks]:
            future.result()


def wait_s(duration_s: float) -> None:
    """Let the real world go on."""
    threading.Event().wait(duration_s)


def _select(file: Path, statement: str, home: str) -> list[tuple[object, ...]]:
    database = sqlite3.connect(f"file:{file}?mode=ro", uri=True)
    try:
        return database.execute(statement, (home,)).fetchall()
    finally:
        database.close()


def _doubled(numbers: list[int]) -> list[int]:
    return sorted({number for number in numbers if numbers.count(number) > 1})


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.live.kills", description=__doc__.split("\n")[0])
    parser.add_argument(
        "--gateway", type=int, default=1000, metavar="N", help="how often gateways are killed"
    )
    parser.add_argument("--broker", type=int, default=200, metavar="N", help="how often Mosquitto is killed")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    if MOSQUITTO is None:
        print("mosquitto is not installed; apt-get install mosquitto mosquitto-clients", file=sys.stderr)
        return 1
    wrong = False
    for name, run, kills in (
        ("gateways", kill_gateways, options.gateway),
        ("Mosquitto", kill_brokers, options.broker),
    ):
        if kills == 0:
            continue
        began_s = time.monotonic()
        progress = Progress(kills)
        ticking = threading.Lock()

        def done(progress: Progress = progress, ticking: threading.Lock = ticking) -> None:
            with ticking:
                progress.part_done()

        folder = Path(tempfile.mkdtemp(prefix="dripwatch-kills-"))
        result = run(folder, kills, options.seed, done)
        print(f"{name}: {result}\n{time.monotonic() - began_s:.0f} s", flush=True)
        if result.wrong:
            wrong = True
            print(f"databases and logs are in {folder}")
        else:
            shutil.rmtree(folder)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
