"""Real parts around a real broker: gateways and a dashboard as processes, as a user starts them."""

from __future__ import annotations

import json
import os
import queue
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from alerts.sink import Lane
from gateway.store import Store
from tests.live.broker import free_port
from tests.live.simulated_pump import ROOT

PATIENCE_S = 30.0


def wait_until(condition: Callable[[], bool], what: str, within_s: float = PATIENCE_S) -> None:
    """Poll a real thing until it is so."""
    until = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < until, f"not within {within_s} s: {what}"
        time.sleep(0.02)


class Process:
    """One part of Dripwatch, started from the command line, with what it prints."""

    def __init__(self, folder: Path, *command: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.lines: queue.Queue[dict[str, Any]] = queue.Queue()
        """The lines of its trace, each with the time at which it was printed here (``at_s``)."""
        self.log = folder / f"{command[0].replace('.', '-')}.log"
        self._command = command
        self.environment: dict[str, str] = {}
        """What its environment has besides ours."""
        self.process: subprocess.Popen[str] | None = None

    def start(self, under: Sequence[str] = ()) -> None:
        """``under``: a program, with its arguments, that starts ours, such as strace."""
        self._leads_a_session = bool(under)
        self._log_began = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("a") as errors:
            self.process = subprocess.Popen(
                [*under, sys.executable, "-m", *self._command],
                env={**os.environ, **self.environment},
                # A signal must reach ours too, and not only what it runs under.
                start_new_session=bool(under),
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        self._reader = threading.Thread(target=self._read, args=(self.process,), daemon=True)
        self._reader.start()

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def terminate(self) -> int:
        return self._end(signal.SIGTERM)

    def said(self) -> str:
        return self.log.read_text()

    def said_since_start(self) -> str:
        return self.log.read_bytes()[self._log_began :].decode()

    def next_step(self, step: str, **fields: object) -> dict[str, Any]:
        """The next line of its trace with this step and these fields."""
        until = time.monotonic() + PATIENCE_S
        while True:
            line = self.lines.get(timeout=max(0.01, until - time.monotonic()))
            if line.get("step") == step and all(line.get(name) == value for name, value in fields.items()):
                return line

    def _end(self, how: signal.Signals) -> int:
        if self.process is None:
            return 0
        if self._leads_a_session:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, how)
        else:
            self.process.send_signal(how)
        status = self.process.wait(PATIENCE_S)
        self._reader.join(PATIENCE_S)  # what it had printed is in ``lines``
        self.process = None
        return status

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with process.stdout as stream:
            for line in stream:
                if line.startswith("{"):
                    self.lines.put({**json.loads(line), "at_s": time.time()})


class Point(NamedTuple):
    """When a reading was taken, in seconds since the machine started, and what the counter showed."""

    at_s: float
    volume_ml: float | None


class Gateway(Process):
    """``dripwatch run`` with a pump at ``port``."""

    def __init__(
        self,
        folder: Path,
        *,
        home: str,
        broker_port: int,
        broker_host: str = "127.0.0.1",
        port: str,
        family: str = "alaris",
        prescription: Path | None = None,
        mqtt: str = "",
        serial_number: str | None = None,
        clock_trusted: bool = True,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.home = home
        self.config = folder / "gateway.toml"
        self.config.write_text(
            f"""\
format = "dripwatch-gateway/1"
home = "{home}"
state_dir = "state"
clock_trusted = {str(clock_trusted).lower()}

[mqtt]
host = "{broker_host}"
port = {broker_port}
{mqtt}

[[pump]]
id = "p1"
family = "{family}"
port = "{port}"
origin = "test"
poll = "1s"
{f'prescription = "{prescription}"' if prescription else ""}
{f'serial_number = "{serial_number}"' if serial_number else ""}
"""
        )
        super().__init__(folder, "gateway", "run", "--config", str(self.config), "--trace")

    @property
    def database(self) -> Path:
        return self.folder / "state" / "dripwatch.sqlite"

    def readings(self) -> list[Point]:
        """Each reading on the card of a gateway that was stopped, of the messages that nobody has fetched."""
        store = Store(self.database)
        lane = store.restore().lanes[Lane.TELEMETRY]
        store.close()
        payloads = [message.payload for message in lane.numbered]
        payloads += [waiting.draft.payload for waiting in lane.waiting]
        points = [point for payload in payloads for point in json.loads(payload)["points"]]
        return sorted(Point(uptime_s, volume_ml) for _, uptime_s, _, _, volume_ml, *_ in points)

    def numbered(self) -> int:
        """The number that the next message of the alerts lane will get."""
        return int(self._meta("next_seq/alerts") or 1)

    @property
    def store_token(self) -> str | None:
        """The token of its database."""
        return self._meta("store")

    def _meta(self, name: str) -> str | None:
        if not self.database.exists():
            return None
        database = sqlite3.connect(f"file:{self.database}?mode=ro", uri=True)
        try:
            row = database.execute("select value from meta where name = ?", (name,)).fetchone()
        except sqlite3.OperationalError:
            return None  # it is just being made
        finally:
            database.close()
        return str(row[0]) if row else None

    def waiting(self) -> int:
        """How many messages of the alerts lane wait or are under way."""
        if not self.database.exists():
            return 0
        database = sqlite3.connect(f"file:{self.database}?mode=ro", uri=True)
        try:
            (held,) = database.execute("select count(*) from outbox where lane = 'alerts'").fetchone()
            (unnumbered,) = database.execute("select count(*) from waiting where lane = 'alerts'").fetchone()
        except sqlite3.OperationalError:
            return 0  # it is just being made
        finally:
            database.close()
        return int(held) + int(unnumbered)

    def has_told_all(self, board: Dashboard) -> bool:
        """Whether the collector has all that is on the card, where receipts are written later, in groups."""
        numbered = self.numbered()
        if not self.database.exists():
            return False
        database = sqlite3.connect(f"file:{self.database}?mode=ro", uri=True)
        try:
            (unnumbered,) = database.execute("select count(*) from waiting where lane = 'alerts'").fetchone()
        except sqlite3.OperationalError:
            return False  # it is just being made
        finally:
            database.close()
        return not unnumbered and len(board.messages(self.home)) >= numbered - 1


class Dashboard(Process):
    """``dripwatch dashboard``, and what it has stored."""

    def __init__(
        self, folder: Path, broker_port: int, *, broker_host: str = "127.0.0.1", mqtt: str = ""
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.database = folder / "dashboard.sqlite"
        config = folder / "dashboard.toml"
        config.write_text(
            f"""\
format = "dripwatch-dashboard/1"

[web]
host = "127.0.0.1"
port = {self.port}

[store]
url = "sqlite:///{self.database}"

[mqtt]
host = "{broker_host}"
port = {broker_port}
collector = "main"
{mqtt}
"""
        )
        super().__init__(folder, "alerts.dashboard", "--config", str(config), "--trace")

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def start(self, under: Sequence[str] = ()) -> None:
        super().start(under)
        wait_until(self._answers, "the dashboard answers")

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(self.address + "healthz", timeout=1) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def messages(self, home: str, lane: str = "alerts") -> list[dict[str, Any]]:
        """All that is stored of a home's lane, by number."""
        database = sqlite3.connect(f"file:{self.database}?mode=ro", uri=True)
        try:
            rows = database.execute(
                "select payload from message where home = ? and lane = ? order by seq", (home, lane)
            ).fetchall()
        finally:
            database.close()
        return [json.loads(payload) for (payload,) in rows]

    def alert_ids(self, home: str, kind: str) -> set[str]:
        """The alerts of a kind that have been stored of a home."""
        return {
            message["alert_id"]
            for message in self.messages(home)
            if message.get("kind") == kind and "alert_id" in message
        }
