"""The way to the history: a server that speaks the InfluxDB 2 API, written to by the vendor's client.

Only its synchronous call is used, from a thread of our own over the spool in our own database: its batching
mode drops points without a word when a server refuses them, and a stop would wait for one that hangs.
"""

from __future__ import annotations

import queue
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from gateway.config import HistoryConfig
from gateway.history_delivery import Answer, Delivery, Target, Trouble

if TYPE_CHECKING:
    from influxdb_client.client.influxdb_client import InfluxDBClient

TIMEOUT_MS = 5_000
"""For connecting, and for each answer."""
TOKEN_CHARACTERS_MAX = 1_000
WORDS_MAX = 120
"""Of a server's own words, so many characters are passed on."""
_LOOK_EVERY_S = 0.5

Told = Callable[[int | None, str | None], None]
"""What the engine hears: the number up to which all is written, and a sentence for the log."""


class HistoryServer:
    """One server. ``write`` never raises for what the server or the network does."""

    def __init__(self, config: HistoryConfig, timeout_ms: int = TIMEOUT_MS) -> None:
        self._config = config
        self._timeout_ms = timeout_ms
        self._client: InfluxDBClient | None = None

    def write(self, lines: str) -> Answer:
        """Write these lines, and wait for the answer."""
        # Here, for it costs 18 MB, which a gateway without a history need not pay.
        from influxdb_client.rest import ApiException
        from influxdb_client.service.write_service import WriteService
        from urllib3.exceptions import HTTPError

        try:
            client = self._connected()
        except _NoToken as problem:
            return Answer(trouble=Trouble.FILE, words=str(problem))
        try:
            writes = WriteService(client.api_client)  # type: ignore[no-untyped-call]
            _, status, _ = writes.post_write_with_http_info(  # type: ignore[no-untyped-call]
                self._config.org, self._config.bucket, lines, precision="ms"
            )
        except ApiException as refused:
            self.close()
            return Answer(
                # 0: the certificate of the server was not accepted.
                status=refused.status or None,
                retry_after_s=_seconds(refused.headers.get("Retry-After") if refused.headers else None),
                words=_words(refused.body),
            )
        except (HTTPError, OSError, ValueError) as failed:
            self.close()
            return Answer(words=type(failed).__name__)
        return Answer(status=status)

    def close(self) -> None:
        """Let go of the connection; the next write opens another, with the token as it is then."""
        if self._client is not None:
            self._client.close()  # type: ignore[no-untyped-call]
            self._client = None

    def _connected(self) -> InfluxDBClient:
        from influxdb_client.client.influxdb_client import InfluxDBClient

        if self._client is None:
            self._client = InfluxDBClient(
                url=self._config.url,
                token=_token(Path(self._config.token_file)),
                org=self._config.org,
                timeout=self._timeout_ms,
                retries=False,
            )
        return self._client


class History:
    """A thread with a queue of its own: neither alerts nor lamps wait for it, nor does a stop."""

    def __init__(
        self,
        server: HistoryServer,
        target: Target,
        told: Told,
        stopping: threading.Event,
    ) -> None:
        self._server = server
        self._delivery = Delivery(target)
        self._told = told
        self._stopping = stopping
        self._queue: queue.Queue[tuple[int, bytes]] = queue.Queue()

    def write(self, seq: int, lines: bytes) -> None:
        """Queue a batch. How many there are at once, the lane bounds."""
        self._queue.put((seq, lines))

    def serve(self) -> None:
        """Write one batch after the other until the gateway stops."""
        while not self._stopping.is_set():
            try:
                seq, lines = self._queue.get(timeout=_LOOK_EVERY_S)
            except queue.Empty:
                continue
            self._deliver(seq, lines.decode())
        self._server.close()

    def _deliver(self, seq: int, lines: str) -> None:
        self._delivery.begin(lines)
        while not self._stopping.is_set():
            step = self._delivery.answered(self._server.write(self._delivery.lines))
            if step.done:
                self._told(seq, step.note)
                return
            if step.note is not None:
                self._told(None, step.note)
            self._stopping.wait(step.wait_ms / 1_000)


def history_of(config: HistoryConfig, told: Told, stopping: threading.Event) -> History:
    """The way to the server that this configuration names."""
    target = Target(org=config.org, bucket=config.bucket, token_file=config.token_file)
    return History(HistoryServer(config), target, told, stopping)


class _NoToken(Exception):
    pass


def _token(file: Path) -> str:
    try:
        token = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise _NoToken(f"{file} cannot be read ({why}): put the token of the server into it") from None
    # It becomes a header of HTTP: what cannot stand there must not get as far.
    if not token or not token.isascii() or not token.isprintable() or len(token) > TOKEN_CHARACTERS_MAX:
        raise _NoToken(f"{file} holds no token: put the one line that the server gave into it") from None
    return token


def _seconds(retry_after: str | None) -> int | None:
    """Retry-After in seconds; the other form, a date, would need a clock that is right."""
    return int(retry_after) if retry_after is not None and re.fullmatch("[0-9]{1,9}", retry_after) else None


class _Complaint(msgspec.Struct):
    """What InfluxDB answers with a refusal."""

    message: str


def _words(body: object) -> str:
    """What InfluxDB says of a refusal, shortened; any other text may hold addresses and is not passed on."""
    try:
        text = msgspec.json.decode(body if isinstance(body, (bytes, str)) else b"", type=_Complaint).message
    except msgspec.DecodeError:
        return ""
    return "".join(character if character.isprintable() else " " for character in text)[:WORDS_MAX].strip()
