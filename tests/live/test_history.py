"""The history against VictoriaMetrics, which speaks the InfluxDB 2 API, and the gateway as a process."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.config import HistoryConfig
from gateway.history import HistoryServer
from gateway.history_delivery import Delivery, Target
from gateway.inputs import HistoryAnswered
from tests.gateway.home import BEGINNING_UTC_MS, Home
from tests.live.broker import free_port
from tests.live.house import Gateway, wait_until

pytestmark = pytest.mark.live
pytest.importorskip(
    "influxdb_client", reason="influxdb-client is not installed; pip install dripwatch[history]"
)

VICTORIA_METRICS = shutil.which("victoria-metrics")
POLL_MS = 5_000
POLLS_A_DAY = 24 * 3_600_000 // POLL_MS
STOPS_WITHIN_S = 5.0


class VictoriaMetrics:
    """A database that may be down: on one port, with what it has kept."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        assert VICTORIA_METRICS is not None
        with (self._folder / "victoria-metrics.log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    VICTORIA_METRICS,
                    f"-storageDataPath={self._folder / 'data'}",
                    f"-httpListenAddr=127.0.0.1:{self._port}",
                    "-retentionPeriod=12",
                    # Without it a repeat stands beside the first: this database does not overwrite.
                    "-dedup.minScrapeInterval=1ms",
                ],
                stdout=log,
                stderr=log,
            )
        wait_until(self._listens, "VictoriaMetrics listens")

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(30)
            self._process = None

    def series(self, name: str) -> list[tuple[dict[str, str], list[int], list[float]]]:
        """Each series of a metric: its labels, times and values."""
        self._get("/internal/force_flush")
        match = urllib.parse.urlencode({"match[]": f'{{__name__="{name}"}}'})
        found = map(json.loads, self._get(f"/api/v1/export?{match}").splitlines())
        return [(one["metric"], one["timestamps"], one["values"]) for one in found]

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self._port)) == 0

    def _get(self, path: str) -> str:
        with urllib.request.urlopen(self.url + path, timeout=30) as answer:
            text: str = answer.read().decode()
            return text


@pytest.fixture
def database(tmp_path: Path) -> Iterator[VictoriaMetrics]:
    if VICTORIA_METRICS is None:
        pytest.skip("victoria-metrics is not installed; apt-get install victoria-metrics")
    database = VictoriaMetrics(tmp_path)
    yield database
    database.stop()


def server(url: str, folder: Path) -> HistoryServer:
    token = folder / "influx.token"
    token.write_text("any")
    return HistoryServer(HistoryConfig(url=url, org="clinic", bucket="infusion", token_file=str(token)))


def delivery() -> Delivery:
    return Delivery(Target(org="clinic", bucket="infusion", token_file="influx.token"))


def write(home: Home, of_home: HistoryServer, way: Delivery, count: int, *, answer: bool = True) -> int:
    """Write so many of the batches that the gateway has handed over; it hears of each, if it does."""
    written = 0
    while home.batches and written < count:
        batch = home.batches.pop(0)
        way.begin(batch.payload.decode())
        while not way.answered(of_home.write(way.lines)).done:
            pass
        written += 1
        home.history_lines.extend(batch.payload.decode().split("\n"))
        if answer:
            home.put(HistoryAnswered, written_up_to=batch.seq)
    return written


def test_after_a_day_without_the_server_every_point_is_there_once_though_the_gateway_was_killed_meanwhile(
    tmp_path: Path, database: VictoriaMetrics
) -> None:
    home = Home(tmp_path / "home", history=True)
    # A day ago on the clock of this machine: the database refuses what it thinks is in the future.
    home.clock_error_ms = round(time.time() * 1_000) - 26 * 3_600_000 - BEGINNING_UTC_MS
    home.plug_in()
    times = []
    for number in range(POLLS_A_DAY):
        home.now_ms += POLL_MS - 1
        times.append(home.moment.utc_ms + 1)
        home.hear(f"state=running rate_ml_h=60 volume_ml={number / 12:.3f} alarms=")
    home.wait(60)
    of_home, way = server(database.url, tmp_path), delivery()
    way.begin(home.batches[0].payload.decode())
    assert not way.answered(of_home.write(way.lines)).done, "the server is down"

    database.start()
    began = time.monotonic()
    assert write(home, of_home, way, 490) == 490
    assert write(home, of_home, way, 5, answer=False) == 5
    assert len(home.history_lines) == len(set(home.history_lines)), "without a kill nothing is written twice"
    home.cut_power(off_ms=1_000)
    home.batches.clear()
    home.start()
    write(home, of_home, way, 10**6)
    took_s = time.monotonic() - began
    assert len(home.history_lines) > len(set(home.history_lines)), "what was not answered was written again"

    (_, stamps, values) = next(one for one in database.series("infusion_volume_ml"))
    assert Counter(stamps) == Counter(times)
    of_time = dict(zip(stamps, values, strict=True))
    assert [of_time[at] for at in times] == pytest.approx([round(n / 12, 3) for n in range(POLLS_A_DAY)])
    assert home.engine.held_in_memory < 100
    assert took_s < 86_400 / 500


def test_a_wrong_address_of_the_server_costs_no_point(tmp_path: Path, database: VictoriaMetrics) -> None:
    database.start()
    wrong, right, way = server(f"{database.url}/wrong", tmp_path), server(database.url, tmp_path), delivery()
    now_ms = round(time.time() * 1_000) - 60_000
    way.begin(f"infusion,pump=p1 rate_ml_h=1.0 {now_ms}\ninfusion,pump=p1 rate_ml_h=2.0 {now_ms + 1}")
    assert not way.answered(wrong.write(way.lines)).done
    step = way.answered(wrong.write(way.lines))
    assert step.note is not None
    assert "correct history.url" in step.note
    assert way.answered(right.write(way.lines)).done
    ((_, stamps, values),) = database.series("infusion_rate_ml_h")
    assert (stamps, values) == ([now_ms, now_ms + 1], [1, 2])


def gateway_with_history(folder: Path, url: str) -> Gateway:
    """A gateway whose broker is not there, with a pump that says one thing."""
    script = folder / "pump.script"
    script.write_text("0 state=running rate_ml_h=60 volume_ml=1 alarms=\n")
    (folder / "influx.token").write_text("any")
    gateway = Gateway(folder, home="h-1", broker_port=free_port(), port=f"script:{script}", family="dummy")
    with gateway.config.open("a") as file:
        file.write(
            f'[history]\nurl = "{url}"\norg = "clinic"\nbucket = "infusion"\ntoken_file = "influx.token"\n'
        )
    return gateway


def test_a_killed_gateway_writes_what_it_had_and_the_next_start_does_not_double_it(
    tmp_path: Path, database: VictoriaMetrics
) -> None:
    """The alert of a start is in the history at once; a stop hands over what was gathered since."""
    gateway = gateway_with_history(tmp_path, database.url)
    gateway.start()
    # The server is still down.
    wait_until(lambda: "history: the server cannot be reached" in gateway.said(), "the gateway says so")
    gateway.kill()
    gateway.start()
    database.start()
    wait_until(lambda: len(database.series("alert_open")) >= 1, "the first batch is written")
    wait_until(lambda: "p1: link up, pump says running" in gateway.said(), "a point is taken")
    assert gateway.terminate() == 0
    gateway.start()
    wait_until(lambda: len(database.series("infusion_rate_ml_h")) >= 1, "what the stop had left is written")
    gateway.kill()
    for name in ("alert_open", "infusion_rate_ml_h"):
        for _, stamps, _ in database.series(name):
            assert len(stamps) == len(set(stamps))
    boots = {labels["boot"] for labels, _, _ in database.series("alert_open")}
    assert len(boots) >= 2, "the start that was killed is there too"


def test_a_gateway_stops_in_time_while_the_server_hangs(tmp_path: Path) -> None:
    with socket.socket() as hangs:
        hangs.bind(("127.0.0.1", 0))
        hangs.listen()
        asked = threading.Event()
        connections = []

        def accept() -> None:
            connection, _ = hangs.accept()
            connections.append(connection)
            connection.recv(1)
            asked.set()

        threading.Thread(target=accept, daemon=True).start()
        gateway = gateway_with_history(tmp_path, f"http://127.0.0.1:{hangs.getsockname()[1]}")
        gateway.start()
        assert asked.wait(30), gateway.said()
        began = time.monotonic()
        assert gateway.terminate() == 0, gateway.said()
        assert time.monotonic() - began < STOPS_WITHIN_S
        for connection in connections:
            connection.close()
