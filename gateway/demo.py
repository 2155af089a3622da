"""``dripwatch demo``: the whole of it on this machine, every part a process of its own, on free loopback
ports.

A simulated pump behind a pseudo-terminal goes wrong, the gateway sees it, the broker carries it, the
dashboard shows it. Nothing is left behind: the parts end with the demo, however the demo ends.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import http.cookiejar
import os
import queue
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import IO

import msgspec
from msgspec import Struct

from alerts import wire
from gateway.clock import SystemClock
from gateway.intended_use import SHORT

STEPS = (
    "fault_begun",
    "detected",
    "outbox",
    "broker_confirmed",
    "dashboard_stored",
    "receipt",
    "shown",
    "acknowledged",
    "ack_back",
)
"""What ``--once`` prints, in this order (tools page)."""
ONCE_WITHIN_S = 85.0
PART_READY_WITHIN_S = 20.0
PART_ENDS_WITHIN_S = 5.0
HOME = "h-demo"
NURSE = "nurse-demo"
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)


class DemoFailed(Exception):
    """The demo cannot be shown; the sentence says why and what to do."""


class Line(Struct, frozen=True, kw_only=True):
    """One line that a part has printed on its standard output; ``None`` when it has ended."""

    part: str
    text: str | None


class Part:
    """One process of the demo, with its standard output on a queue and its standard error in a file."""

    def __init__(self, name: str, command: Sequence[str], folder: Path, lines: queue.Queue[Line]) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        with self.log.open("wb") as errors:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL if name != "simulator" else subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                # Its own session: a Ctrl-C reaches the demo alone, which ends the parts in order.
                start_new_session=True,
                # Safe here: it only calls the kernel, and takes no lock that another thread could hold.
                preexec_fn=_end_with_parent,  # noqa: PLW1509
                text=True,
            )
        assert self.process.stdout is not None
        threading.Thread(target=self._read, args=(self.process.stdout, lines), daemon=True).start()

    def end(self) -> None:
        """Ask it to end, and if it does not, end it."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(PART_ENDS_WITHIN_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        if self.process.stdin is not None:
            with contextlib.suppress(OSError):
                self.process.stdin.close()

    def last_words(self) -> str:
        """The end of its log, for a person."""
        words = self.log.read_text(errors="replace").strip().splitlines()
        return " / ".join(words[-3:]) or "it said nothing"

    def _read(self, stream: IO[str], lines: queue.Queue[Line]) -> None:
        for text in stream:
            lines.put(Line(part=self.name, text=text.rstrip("\n")))
        lines.put(Line(part=self.name, text=None))


def _end_with_parent() -> None:
    """Have the kernel end this process when the demo dies, even by a signal that nobody can catch."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


class Stage:
    """The parts of one demo, started in the order in which they need each other."""

    def __init__(self, folder: Path, scenario: str, broker: str, seed: int | None) -> None:
        self.folder = folder
        self.lines: queue.Queue[Line] = queue.Queue()
        self.parts: list[Part] = []
        self.web_port = _free_port()
        self.broker = broker
        self._scenario = scenario
        self._seed = seed
        self._mqtt_port = _free_port()

    @property
    def address(self) -> str:
        """Where the dashboard is."""
        return f"http://127.0.0.1:{self.web_port}/"

    def start(self) -> None:
        """Start all parts; returns when the pump is being watched. Raises DemoFailed."""
        self._start_broker()
        self._start_dashboard()
        prescription = self.folder / "prescription.toml"
        link = self.folder / "pump"
        prescription.write_text(_simulator_says("scenarios", self._scenario, "--prescription"))
        self._start(
            "simulator",
            [
                sys.executable, "-m", "simulator", "alaris",
                "--scenario", self._scenario, "--link", str(link),
                *(["--seed", str(self._seed)] if self._seed is not None else []),
            ],
        )  # fmt: skip
        self._wait_until(link.exists, "simulator")
        self._start_gateway(link, prescription)

    def end(self) -> None:
        """End all parts, the last started first."""
        for part in reversed(self.parts):
            part.end()

    def check(self) -> None:
        """Raises DemoFailed if a part has ended."""
        for part in self.parts:
            if part.process.poll() is not None:
                raise DemoFailed(f"the {part.name} has ended by itself: {part.last_words()}")

    def _start(self, name: str, command: Sequence[str]) -> None:
        self.parts.append(Part(name, command, self.folder, self.lines))

    def _start_broker(self) -> None:
        if self.broker == "mosquitto":
            program = _mosquitto()
            assert program is not None
            config = self.folder / "mosquitto.conf"
            config.write_text(
                "\n".join(
                    [
                        f"listener {self._mqtt_port} 127.0.0.1",
                        "allow_anonymous true",
                        "persistence false",
                        # Started by root it would become another user, who may not read this folder.
                        *(["user root"] if os.geteuid() == 0 else []),
                        "",
                    ]
                )
            )
            self._start("broker", [program, "-c", str(config)])
        else:
            self._start("broker", [sys.executable, "-m", "gateway.demo_broker", str(self._mqtt_port)])
        self._wait_until(lambda: _listens(self._mqtt_port), "broker")

    def _start_dashboard(self) -> None:
        config = self.folder / "dashboard.toml"
        config.write_text(
            f"""\
format = "dripwatch-dashboard/1"

[web]
host = "127.0.0.1"
port = {self.web_port}

[store]
url = "sqlite:///{self.folder / "dashboard.sqlite"}"

[mqtt]
host = "127.0.0.1"
port = {self._mqtt_port}
version = {self._mqtt_version}
collector = "main"

[site]
name = "Demo"
"""
        )
        self._start(
            "dashboard", [sys.executable, "-m", "alerts.dashboard", "--config", str(config), "--trace"]
        )
        self._wait_until(lambda: _listens(self.web_port), "dashboard")

    def _start_gateway(self, link: Path, prescription: Path) -> None:
        config = self.folder / "gateway.toml"
        config.write_text(
            f"""\
format = "dripwatch-gateway/1"
home = "{HOME}"
state_dir = "state"
clock_trusted = true

[mqtt]
host = "127.0.0.1"
port = {self._mqtt_port}
version = {self._mqtt_version}
collector = "main"

[[pump]]
id = "p1"
family = "alaris"
port = "{link}"
origin = "demo"
prescription = "{prescription}"
poll = "1s"
"""
        )
        self._start("gateway", [sys.executable, "-m", "gateway", "run", "--config", str(config), "--trace"])

    @property
    def _mqtt_version(self) -> int:
        # amqtt speaks 3.1.1 only.
        return 5 if self.broker == "mosquitto" else 3

    def _wait_until(self, ready: Callable[[], bool], name: str) -> None:
        waiting = threading.Event()
        for _ in range(int(PART_READY_WITHIN_S / 0.05)):
            if ready():
                return
            self.check()
            waiting.wait(0.05)
        part = next(part for part in self.parts if part.name == name)
        raise DemoFailed(f"the {name} was not ready within {PART_READY_WITHIN_S:.0f} s: {part.last_words()}")


class Nurse:
    """Somebody at the dashboard's page: gives a name, watches, acknowledges, over HTTP as a browser does."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())
        )

    def sign_in(self) -> None:
        """Give a pseudonym."""
        self._post("name", {"name": NURSE, "role": "nurse"})

    def acknowledge(self, alert_id: str) -> None:
        """Press the button on the alert's page."""
        page = self._get(f"alert/{HOME}/{alert_id}")
        form = {name: _hidden(page, name) for name in ("token", "home", "alert_id", "rev")}
        self._post("ack", form)

    def events(self) -> Iterator[str]:
        """The page's event stream, a line at a time, until it ends."""
        with self._opener.open(self._address + "events", timeout=ONCE_WITHIN_S) as stream:
            for line in stream:
                yield line.decode()

    def _get(self, path: str) -> str:
        with self._opener.open(self._address + path, timeout=10) as answer:
            return str(answer.read().decode())

    def _post(self, path: str, form: dict[str, str]) -> None:
        request = urllib.request.Request(  # noqa: S310
            self._address + path,
            data=urllib.parse.urlencode(form).encode(),
            headers={"Origin": self._address.rstrip("/")},
        )
        self._opener.open(request, timeout=10).close()


class Once:
    """Follows one alert the whole way, for ``demo --once``."""

    def __init__(self, stage: Stage, expected: frozenset[str]) -> None:
        self._stage = stage
        self._expected = expected
        self._clock = SystemClock(always_synced=True)
        self._began_ms = self._now_ms()
        self._reached: dict[str, tuple[str, float]] = {}
        self._printed = 0
        self.alert_id: str | None = None
        self._shown: queue.Queue[str] = queue.Queue()
        self._acknowledged = False

    def run(self) -> None:
        """Returns when the acknowledgement is back. Raises DemoFailed."""
        nurse = Nurse(self._stage.address)
        nurse.sign_in()
        threading.Thread(target=self._watch_page, args=(nurse,), daemon=True).start()
        while self._printed < len(STEPS):
            if (self._now_ms() - self._began_ms) / 1000 > ONCE_WITHIN_S:
                missing = STEPS[self._printed]
                raise DemoFailed(f"the step {missing!r} was not reached within {ONCE_WITHIN_S:.0f} s")
            self._stage.check()
            with contextlib.suppress(queue.Empty):
                self._heard(self._stage.lines.get(timeout=0.05))
            self._look_at_page()
            if "shown" in self._reached and "receipt" in self._reached and not self._acknowledged:
                assert self.alert_id is not None
                self._acknowledged = True
                nurse.acknowledge(self.alert_id)
            self._print()

    def _now_ms(self) -> int:
        return self._clock.moment().monotonic_ms or 0

    def _heard(self, line: Line) -> None:
        if line.text is None or not line.text.startswith("{"):
            return
        said = msgspec.json.decode(line.text, type=dict[str, object])
        if line.part == "simulator" and said.get("event") == "fault_begun":
            self._reach("fault_begun")
        elif line.part == "gateway" and said.get("step") == "detected" and said.get("kind") in self._expected:
            if self.alert_id is None and "fault_begun" in self._reached:
                self.alert_id = str(said["alert_id"])
                self._reach("detected")
        elif self.alert_id is not None and said.get("alert_id") == self.alert_id:
            self._reach(str(said.get("step")))

    def _reach(self, step: str) -> None:
        if step in STEPS and step not in self._reached:
            moment = self._clock.moment()
            self._reached[step] = (wire.iso_utc(moment.utc_ms), (self._now_ms() - self._began_ms) / 1000)

    def _watch_page(self, nurse: Nurse) -> None:
        with contextlib.suppress(OSError, urllib.error.URLError, ValueError):
            for line in nurse.events():
                self._shown.put(line)

    def _look_at_page(self) -> None:
        while not self._shown.empty():
            line = self._shown.get()
            if self.alert_id is not None and self.alert_id in line:
                self._reach("shown")

    def _print(self) -> None:
        while self._printed < len(STEPS) and STEPS[self._printed] in self._reached:
            step = STEPS[self._printed]
            time, t_s = self._reached[step]
            line = msgspec.json.encode({"step": step, "time": time, "t_s": round(t_s, 3)}).decode()
            print(line, flush=True)  # noqa: T201
            self._printed += 1


class Progress:
    """One line for people: rewritten on a terminal, printed on change elsewhere."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._last = ""

    def say(self, text: str) -> None:
        """Show ``text`` in the place of what was shown before."""
        if text == self._last:
            return
        self._last = text
        if self._stream.isatty():
            width = shutil.get_terminal_size().columns - 1
            self._stream.write(f"\r\x1b[2K{text[:width]}")
        else:
            self._stream.write(f"{text}\n")
        self._stream.flush()

    def end(self) -> None:
        """Leave the line."""
        if self._last and self._stream.isatty():
            self._stream.write("\n")
            self._stream.flush()


def main(arguments: Sequence[str]) -> int:
    """``dripwatch demo``: 0; 1 if it could not be shown, or with ``--once`` if the alert did not arrive."""
    parser = argparse.ArgumentParser(
        prog="dripwatch demo",
        description="Everything on this machine and on free loopback ports: a simulated pump goes wrong,"
        " and a nurse is told. Open the address that is printed in a browser. Ctrl-C ends it, and nothing is"
        " left behind.",
        epilog=SHORT,
    )
    parser.add_argument("--scenario", default="occlusion", metavar="NAME", help="see: dripwatch scenarios")
    parser.add_argument(
        "--once",
        action="store_true",
        help="end when the scenario's alert has gone the whole way; print its steps as JSON",
    )
    parser.add_argument(
        "--broker",
        choices=("auto", "mosquitto", "amqtt"),
        default="auto",
        help="auto: Mosquitto when it is on this machine, else amqtt",
    )
    parser.add_argument("--seed", type=int, metavar="N", help="other random errors of the pump")
    options = parser.parse_args(arguments)
    progress = Progress(sys.stderr)
    try:
        with _interrupts(), tempfile.TemporaryDirectory(prefix="dripwatch-demo-") as folder:
            return _show(options, Path(folder), progress)
    except DemoFailed as failed:
        progress.end()
        print(f"dripwatch demo: {failed}", file=sys.stderr)  # noqa: T201
        return 1
    except KeyboardInterrupt:
        progress.end()
        return 1 if options.once else 0


def _show(options: argparse.Namespace, folder: Path, progress: Progress) -> int:
    broker = _choose_broker(options.broker)
    about = msgspec.json.decode(_simulator_says("scenarios", options.scenario), type=_AboutScenario)
    if options.once and not about.expect:
        raise DemoFailed(
            f"the scenario {about.name!r} raises no alert, so --once would wait for ever; choose another"
        )
    stage = Stage(folder, options.scenario, broker, options.seed)
    try:
        progress.say(f"Starting broker ({broker}), dashboard, pump and gateway ...")
        stage.start()
        if options.once:
            Once(stage, frozenset(about.expect)).run()
            return 0
        progress.end()
        print(  # noqa: T201
            f"Dashboard: {stage.address}\n{about.title}. Open the address; Ctrl-C ends the demo.\n{SHORT}",
            flush=True,
        )
        _follow(stage, progress)
    finally:
        progress.say("Ending ...")
        stage.end()
        progress.say("Nothing is left running.")
        progress.end()
    return 0


def _follow(stage: Stage, progress: Progress) -> None:
    """Tell what happens, in one line, until somebody presses Ctrl-C. Raises DemoFailed if a part ends."""
    said = "watching the pump"
    clock = SystemClock(always_synced=True)
    began_ms = clock.moment().monotonic_ms or 0
    while True:
        stage.check()
        with contextlib.suppress(queue.Empty):
            said = _in_words(stage.lines.get(timeout=0.5)) or said
        elapsed_s = ((clock.moment().monotonic_ms or 0) - began_ms) // 1000
        if sys.stderr.isatty():
            progress.say(f"{elapsed_s:4d} s  {said}")
        else:
            progress.say(said)


def _in_words(line: Line) -> str | None:
    if line.text is None or not line.text.startswith("{"):
        return None
    said = msgspec.json.decode(line.text, type=dict[str, object])
    kind = str(said.get("kind", "")).replace("_", " ")
    match line.part, said.get("event") or said.get("step"):
        case "simulator", "fault_begun":
            return f"the pump goes wrong: {kind}"
        case "gateway", "detected":
            return f"the gateway has found: {kind}"
        case "gateway", "receipt":
            return f"the nursing team's dashboard has it: {kind}"
        case "gateway", "acknowledged":
            return f"acknowledged: {kind}"
    return None


class _AboutScenario(Struct, frozen=True):
    name: str
    title: str
    expect: list[str]


def _simulator_says(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "simulator", *arguments], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise DemoFailed(done.stderr.strip().removeprefix("simulator: ") or "the simulator does not start")
    return done.stdout


def _choose_broker(wish: str) -> str:
    if wish != "amqtt" and _mosquitto() is not None:
        return "mosquitto"
    if wish == "mosquitto":
        raise DemoFailed(
            "Mosquitto is not on this machine; install it (Debian: apt install mosquitto), or --broker amqtt"
        )
    done = subprocess.run([sys.executable, "-c", "import amqtt"], capture_output=True, check=False)
    if done.returncode != 0:
        raise DemoFailed(
            "there is no broker: install Mosquitto (Debian: apt install mosquitto), or amqtt with"
            " pip install 'dripwatch[demo]'"
        )
    return "amqtt"


def _mosquitto() -> str | None:
    # Debian puts it where an ordinary user's PATH does not look.
    return shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _hidden(page: str, name: str) -> str:
    match = re.search(rf'name="{name}"[^>]*value="([^"]*)"', page)
    if match is None:
        raise DemoFailed(f"the dashboard's page has no field {name!r}")
    return match[1]


@contextlib.contextmanager
def _interrupts() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the demo as Ctrl-C does."""

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # a shell may have it ignore the first
        signal.signal(name, interrupt)
    yield
