"""The client of the history against a real HTTP server in this process that answers by a script."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from gateway.config import HistoryConfig
from gateway.history import HistoryServer, history_of
from gateway.history_delivery import PROBE, Answer, Trouble

pytest.importorskip(
    "influxdb_client", reason="influxdb-client is not installed; pip install dripwatch[history]"
)

LINE = "infusion,pump=p1 rate_ml_h=60.0 1795435200000"
TOKEN = "t0ken-that-nobody-may-see"
TIMEOUT_MS = 300

Act = Callable[[BaseHTTPRequestHandler], None]


def says(status: int, body: bytes = b"", **headers: str) -> Act:
    def act(request: BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            request.send_header(name.replace("_", "-"), value)
        request.end_headers()
        request.wfile.write(body)

    return act


def cut(request: BaseHTTPRequestHandler) -> None:
    """In the middle of the answer."""
    request.wfile.write(b"HTTP/1.1 2")
    request.wfile.flush()
    request.connection.shutdown(socket.SHUT_RDWR)
    request.close_connection = True


class Server:
    """Does with each write what the script says next, and remembers what was asked."""

    def __init__(self) -> None:
        self.script: list[Act] = []
        self.asked: list[tuple[str, str | None, str]] = []
        self.released = threading.Event()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                server.asked.append((self.path, self.headers["Authorization"], body))
                server.script.pop(0)(self)

            def log_message(self, *_: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()

    def hang(self, _request: BaseHTTPRequestHandler) -> None:
        """Says nothing for as long as the test lasts."""
        self.released.wait(30)
        _request.close_connection = True

    def close(self) -> None:
        self.released.set()
        self._http.shutdown()
        self._http.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    file = tmp_path / "influx.token"
    file.write_text(TOKEN + "\n")
    return file


def config(url: str, token_file: Path) -> HistoryConfig:
    return HistoryConfig(url=url, org="clinic", bucket="infusion", token_file=str(token_file))


def client(url: str, token_file: Path) -> HistoryServer:
    return HistoryServer(config(url, token_file), timeout_ms=TIMEOUT_MS)


def test_a_write_is_one_request_with_the_lines_as_they_are(server: Server, token_file: Path) -> None:
    server.script = [says(204)]
    assert client(server.url, token_file).write(LINE) == Answer(status=204)
    assert server.asked == [("/api/v2/write?org=clinic&bucket=infusion&precision=ms", f"Token {TOKEN}", LINE)]


INFLUX_SAYS = b'{"code": "invalid", "message": "unable to parse\\nthis line"}'


@pytest.mark.parametrize(
    ("act", "answer"),
    [
        (says(400, INFLUX_SAYS), Answer(status=400, words="unable to parse this line")),
        (says(400, b"remoteAddr: 192.0.2.7"), Answer(status=400)),
        (says(401, b'{"message": "unauthorized"}'), Answer(status=401, words="unauthorized")),
        (says(404), Answer(status=404)),
        (says(413), Answer(status=413)),
        (says(429, Retry_After="17"), Answer(status=429, retry_after_s=17)),
        (says(429, Retry_After="Wed, 25 Nov 2026 14:00:00 GMT"), Answer(status=429)),
        (says(500), Answer(status=500)),
        (says(503, Retry_After="5"), Answer(status=503, retry_after_s=5)),
        (says(302, Location="/elsewhere"), Answer(status=302)),
        (says(200, b"<html>Welcome, log in</html>"), Answer(status=200)),
    ],
)
def test_what_the_server_says_comes_back(server: Server, token_file: Path, act: Act, answer: Answer) -> None:
    server.script = [act]
    assert client(server.url, token_file).write(LINE) == answer
    assert len(server.asked) == 1, "the library must not try again on its own"


@pytest.mark.parametrize("what", ["hang", "cut", "refuse"])
def test_no_answer_is_an_answer_too_and_comes_soon(server: Server, token_file: Path, what: str) -> None:
    url = server.url
    if what == "refuse":
        with socket.socket() as nobody:
            nobody.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{nobody.getsockname()[1]}"
    server.script = [server.hang if what == "hang" else cut]
    answer = client(url, token_file).write(LINE)
    assert (answer.status, answer.trouble) == (None, Trouble.NO_ANSWER)
    assert answer.words.isidentifier(), "the kind of trouble, and no address"


def test_after_a_failure_the_next_write_opens_a_connection_with_the_token_as_it_is_then(
    server: Server, token_file: Path
) -> None:
    of_home = client(server.url, token_file)
    server.script = [says(204), says(401), says(204)]
    of_home.write(LINE)
    token_file.write_text("another")
    of_home.write(LINE)
    of_home.write(LINE)
    assert [token for _, token, _ in server.asked] == [f"Token {TOKEN}"] * 2 + ["Token another"]


@pytest.mark.parametrize(
    "content", [None, b"", b"  \n", b"two\nlines", "t\u00f6ken".encode(), b"\xff", b"x" * 2_000]
)
def test_a_token_file_without_a_token_is_told_of_and_nothing_is_sent(
    server: Server, token_file: Path, content: bytes | None
) -> None:
    token_file.unlink()
    if content is not None:
        token_file.write_bytes(content)
    answer = client(server.url, token_file).write(LINE)
    assert answer.trouble is Trouble.FILE
    assert str(token_file) in answer.words
    assert server.asked == []


class Stopping(threading.Event):
    """Nobody waits; how long each wait was to be is remembered."""

    def __init__(self) -> None:
        super().__init__()
        self.waited_s: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        if timeout:
            self.waited_s.append(timeout)
        return self.is_set()


def test_through_a_day_of_all_troubles_each_batch_is_written_and_each_trouble_is_told_once(
    server: Server, token_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    stopping = Stopping()
    written: list[int] = []
    notes: list[str] = []

    def told(written_up_to: int | None, note: str | None) -> None:
        notes.extend([] if note is None else [note])
        if written_up_to is not None:
            written.append(written_up_to)
        if written_up_to == 3:
            stopping.set()

    history = history_of(config(server.url, token_file), told, stopping)
    for seq, lines in ((1, b"a b=1 1"), (2, b"bad 2\na b=2 2"), (3, b"a b=3 3")):
        history.write(seq, lines)
    refuses = says(400, INFLUX_SAYS)
    server.script = [
        *(says(500), says(500), cut, says(503, Retry_After="30"), says(401), says(401), says(204)),
        *(refuses, says(204), refuses, refuses, says(204)),
        *(says(404), says(204)),
    ]
    history.serve()
    assert written == [1, 2, 3]
    assert [lines for _, _, lines in server.asked[-7:]] == [
        *("bad 2\na b=2 2", PROBE, "bad 2\na b=2 2", "bad 2", "a b=2 2"),
        *("a b=3 3", "a b=3 3"),
    ]
    assert stopping.waited_s == [1, 2, 4, 30, 300, 300, 300]
    beginnings = [note.split(" (")[0] for note in notes]
    assert beginnings[:2] == [
        "history: the server cannot write now",
        "history: the server cannot be reached",
    ]
    assert sum("put one that is valid" in note for note in notes) == 1
    assert sum("1 lines left out" in note for note in notes) == 1
    assert sum("is being written again" in note for note in notes) == 2
    assert TOKEN not in caplog.text + "".join(notes)
