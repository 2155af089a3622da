"""The dashboard as a process, with a real broker and a real browser; the home is played by this file."""

from __future__ import annotations

import ctypes
import json
import os
import queue
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from alerts import wire
from alerts.dashboard.clock import Clock
from alerts.dashboard.store import Store
from alerts.mqtt import BrokerConnected, BrokerEvent, BrokerMessage, MqttClient, MqttConfig
from alerts.sink import Message
from tests.dashboard.home import SpeakingHome
from tests.live.broker import ACCESS_LIST, MOSQUITTO, Mosquitto

pytestmark = [pytest.mark.live, pytest.mark.timeout(180)]

PATIENCE_S = 60.0
SENT_AGAIN_AFTER_S = 10.0
ROOT = Path(__file__).parents[2]
CHROMIUM = Path("/usr/bin/chromium")
CHROMIUM_ARGUMENTS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


class Gateway:
    """Plays a home: says what it is told to, sends again what has no receipt, answers acknowledgements."""

    def __init__(self, broker: Mosquitto) -> None:
        self.home = SpeakingHome(Clock(), home="h-7f3a")
        self.receipts: queue.Queue[dict[str, Any]] = queue.Queue()
        self.down: queue.Queue[wire.Topic] = queue.Queue()
        self.connected = threading.Event()
        self.answers = True
        self.watched = threading.Event()
        self._tokens = iter(range(1, 1_000_000))
        self.client = MqttClient(
            MqttConfig(host=broker.host, port=broker.port),
            client_id="dw-h-7f3a",
            username="h-7f3a",
            will=None,
            subscriptions=((wire.down("h-7f3a", "#"), 1),),
            session_expiry_s=600,
            deliver=self._deliver,
        )
        self.client.start()
        assert self.connected.wait(PATIENCE_S)

    def _deliver(self, event: BrokerEvent) -> None:
        if isinstance(event, BrokerConnected):
            self.connected.set()
        if not isinstance(event, BrokerMessage):
            return
        payload = json.loads(event.payload)
        match event.topic.rsplit("/", 1)[1]:
            case "receipt":
                self.receipts.put(payload)
            case "watch":
                self.watched.set()
            case "ack" if self.answers:
                self.say(self.home.answer(payload["id"], True))
                number = int(payload["alert_id"].rsplit("-", 1)[1])
                self.say(self.home.acknowledged(number, payload["rev"] + 1, payload["by"]))

    def say(self, *messages: BrokerMessage) -> None:
        for message in messages:
            retain = "/alert/" in message.topic or message.topic.endswith(("/state", "/open", "/status"))
            self.client.send(
                Message(topic=message.topic, payload=message.payload, retain=retain), next(self._tokens)
            )

    def say_until_receipt(self, *messages: BrokerMessage) -> None:
        """As a gateway does: what has no receipt is sent again after a while without progress."""
        wanted = json.loads(messages[-1].payload)["seq"]
        for _ in range(round(PATIENCE_S / SENT_AGAIN_AFTER_S)):
            self.say(*messages)
            try:
                while self.receipts.get(timeout=SENT_AGAIN_AFTER_S)["alerts"] < wanted:
                    pass
            except queue.Empty:
                continue
            return
        raise AssertionError(f"no receipt of {wanted} within {PATIENCE_S:.0f} s")


class Dashboard:
    """``python -m alerts.dashboard --trace`` as a process."""

    def __init__(self, folder: Path, broker: Mosquitto) -> None:
        self.folder = folder
        self.config = folder / "dashboard.toml"
        self.config.write_text(
            'format = "dripwatch-dashboard/1"\n[web]\nport = 0\n[store]\nurl = "sqlite:///d.sqlite3"\n'
            f'[mqtt]\nhost = "{broker.host}"\nport = {broker.port}\n[site]\nname = "North valley"\n'
        )
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "alerts.dashboard", "--config", str(self.config), "--trace"],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.steps: queue.Queue[dict[str, Any]] = queue.Queue()
        assert self.process.stderr is not None
        line = self.process.stderr.readline()
        found = re.search(r"Nurse dashboard: (\S+)", line)
        assert found is not None, line + self.process.stderr.read()
        self.address = found[1]
        threading.Thread(target=self._read, args=(self.process,), daemon=True).start()
        self.wait_for("subscribed")

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self.steps.put(json.loads(line))

    def wait_for(self, step: str, **fields: Any) -> dict[str, Any]:
        while True:
            found = self.steps.get(timeout=PATIENCE_S)
            if found["step"] == step and all(found.get(name) == value for name, value in fields.items()):
                return found

    def end(self, how: signal.Signals) -> int:
        if self.process.poll() is None:
            self.process.send_signal(how)
        return self.process.wait(timeout=PATIENCE_S)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    if MOSQUITTO is None:
        pytest.skip("mosquitto is not installed; apt-get install mosquitto mosquitto-clients")
    made = Mosquitto(tmp_path / "mosquitto", access_list=ACCESS_LIST)
    made.start()
    yield made
    made.kill()


@pytest.fixture
def dashboard(tmp_path: Path, broker: Mosquitto) -> Iterator[Dashboard]:
    made = Dashboard(tmp_path, broker)
    yield made
    made.end(signal.SIGKILL)


@pytest.fixture
def gateway(broker: Mosquitto, dashboard: Dashboard) -> Iterator[Gateway]:
    """A home whose first message the dashboard has receipted: so its subscription is known to hold."""
    made = Gateway(broker)
    made.say_until_receipt(made.home.event())
    yield made
    made.client.stop()


@pytest.fixture
def browser() -> Iterator[Any]:
    if not CHROMIUM.exists():
        pytest.skip("chromium is not installed; apt-get install chromium")
    try:
        ctypes.CDLL("libatomic.so.1")
    except OSError:
        pytest.skip("libatomic1 is not installed, which playwright needs; apt-get install libatomic1")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=str(CHROMIUM), args=CHROMIUM_ARGUMENTS)
        yield started
        started.close()


def test_an_alert_is_stored_and_receipted_and_the_process_ends_well(
    gateway: Gateway, dashboard: Dashboard
) -> None:
    gateway.say_until_receipt(gateway.home.alert(1, 1))
    found = dashboard.wait_for("dashboard_stored", alert_id="a-s-1-1")
    assert (found["store"], found["lane"], found["seq"], found["rev"]) == ("s-1", "alerts", 2, 1)
    assert dashboard.end(signal.SIGTERM) == 0


def test_a_dashboard_that_was_killed_receipts_what_is_sent_again_and_shows_it_once(
    gateway: Gateway, dashboard: Dashboard
) -> None:
    messages = [gateway.home.alert(number, 1) for number in range(1, 31)]
    gateway.say(*messages[:15])
    dashboard.wait_for("dashboard_stored")
    dashboard.end(signal.SIGKILL)
    gateway.say(*messages[15:])
    dashboard.start()
    gateway.say_until_receipt(*messages)
    dashboard.end(signal.SIGTERM)
    kept = Store(f"sqlite:///{dashboard.folder / 'd.sqlite3'}")
    assert all(len(kept.revisions("h-7f3a", f"a-s-1-{number}")) == 1 for number in range(1, 31))


def test_killed_at_random_instants_under_load_nothing_is_lost_and_nothing_comes_twice(
    gateway: Gateway, dashboard: Dashboard
) -> None:
    numbers = range(1, 181)
    messages = [gateway.home.alert(number, 1) for number in numbers]
    instants = random.Random(20260504)
    for first in range(0, len(messages), 30):
        gateway.say(*messages[first : first + 30])
        for _ in range(instants.randrange(1, 30)):
            dashboard.wait_for("dashboard_stored")
        dashboard.end(signal.SIGKILL)
        dashboard.start()
    gateway.say_until_receipt(*messages)
    with urllib.request.urlopen(dashboard.address, timeout=PATIENCE_S) as page:
        shown = re.findall(r'<article[^>]* id="alert-h-7f3a-a-s-1-(\d+)"', page.read().decode())
    assert sorted(map(int, shown)) == list(numbers)
    assert dashboard.end(signal.SIGTERM) == 0
    kept = Store(f"sqlite:///{dashboard.folder / 'd.sqlite3'}")
    assert all(len(kept.revisions("h-7f3a", f"a-s-1-{number}")) == 1 for number in numbers)
    assert (kept.lost(), kept.open_notices()) == ((), ())


def test_two_pages_show_the_acknowledgement_that_the_gateway_has_confirmed(
    gateway: Gateway, dashboard: Dashboard, browser: Any, tmp_path: Path
) -> None:
    home = gateway.home
    gateway.answers = False
    gateway.say(home.alert(1, 1, priority="high", kind="occlusion", code="occlusion_downstream"))
    gateway.say(home.state(origin="demo", driver_status="experimental"), home.beat((("a-s-1-1", 1),)))
    dashboard.wait_for("dashboard_stored")
    errors: list[str] = []
    seen = []
    for width in (1280, 375):
        page = browser.new_context(viewport={"width": width, "height": 800}).new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.goto(dashboard.address)
        page.get_by_role("heading", name="Occlusion").wait_for()
        page.get_by_text("DEMO").first.wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.get_by_role("button", name="Acknowledge").count() == 0
        seen.append(page)
    dashboard.wait_for("shown", alert_id="a-s-1-1", rev=1)
    wide, phone = seen

    phone.get_by_label("Pseudonym").fill("nurse-07")
    phone.get_by_role("button", name="Start watching").click()
    assert gateway.watched.wait(PATIENCE_S)
    phone.get_by_role("button", name="Acknowledge").focus()
    phone.keyboard.press("Enter")
    dashboard.wait_for("acknowledged", alert_id="a-s-1-1")
    wide.get_by_text("Acknowledgement of nurse-07 sent, waiting for the gateway.").wait_for()
    assert wide.get_by_text("Acknowledged by").count() == 0

    gateway.say(home.acknowledged(1, 2))
    dashboard.wait_for("ack_back", alert_id="a-s-1-1")
    for page in seen:
        page.get_by_text("Acknowledged by nurse-07").wait_for()
        page.get_by_text("waiting for the gateway").wait_for(state="detached")
    assert errors == []
    wide.screenshot(path=str(tmp_path / "wide.png"), full_page=True)
    phone.screenshot(path=str(tmp_path / "phone.png"), full_page=True)
    kept = os.environ.get("DRIPWATCH_SCREENSHOTS")
    if kept:
        for name in ("wide.png", "phone.png"):
            (tmp_path / name).rename(Path(kept) / name)


def test_a_page_whose_dashboard_has_gone_says_that_all_of_it_is_old(
    gateway: Gateway, dashboard: Dashboard, browser: Any
) -> None:
    gateway.say(gateway.home.state(), gateway.home.beat())
    page = browser.new_page()
    page.goto(dashboard.address)
    page.get_by_text("Pump on plan").wait_for()
    dashboard.end(signal.SIGKILL)
    page.get_by_text("All that you see below is OLD").wait_for()


def test_a_lost_broker_is_said_on_the_page_and_forgotten_when_it_is_back(
    gateway: Gateway, dashboard: Dashboard, browser: Any, broker: Mosquitto
) -> None:
    gateway.say(gateway.home.state(), gateway.home.beat())
    page = browser.new_page()
    page.goto(dashboard.address)
    page.get_by_text("Pump on plan").wait_for()
    gateway.connected.clear()
    broker.kill()
    no_connection = page.get_by_role("alert").filter(has_text="no connection to the broker")
    no_connection.wait_for()
    assert page.get_by_text("Pump on plan").count() == 0
    broker.start()
    assert gateway.connected.wait(PATIENCE_S)
    page.get_by_text("This dashboard has no connection to the broker.").first.wait_for(
        state="detached", timeout=60_000
    )
    gateway.say(gateway.home.state(), gateway.home.beat())
    page.get_by_text("Pump on plan").wait_for()


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("port = 0", 'host = "0.0.0.0"', "no accounts yet"),
        ("port = 0", "prot = 0", "did you mean 'port'"),
        ("sqlite:///d.sqlite3", "sqlite:////no/such/folder/d.sqlite3", "the database cannot be opened"),
    ],
)
def test_a_start_that_cannot_be_says_why_in_a_sentence(
    tmp_path: Path, old: str, new: str, words: str
) -> None:
    text = (
        'format = "dripwatch-dashboard/1"\n[web]\nport = 0\n[store]\nurl = "sqlite:///d.sqlite3"\n'
        '[mqtt]\nhost = "127.0.0.1"\nport = 1\n'
    )
    (tmp_path / "d.toml").write_text(text.replace(old, new))
    assert_refused(tmp_path / "d.toml", words)


def test_a_port_that_is_taken_and_a_file_that_is_not_there_are_told(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        (tmp_path / "d.toml").write_text(
            f'format = "dripwatch-dashboard/1"\n[web]\nport = {taken.getsockname()[1]}\n[store]\n'
            'url = "sqlite:///d.sqlite3"\n[mqtt]\nhost = "127.0.0.1"\nport = 1\n'
        )
        assert_refused(tmp_path / "d.toml", "choose another port")
    assert_refused(tmp_path / "nowhere.toml", "cannot be read")


def assert_refused(config: Path, words: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "alerts.dashboard", "--config", str(config)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert ended.returncode == 1
    assert words in ended.stderr
    assert "Traceback" not in ended.stderr
