"""The port: a device, a pseudo-terminal, a serial server on the network, or a recording played as one.

Bytes are moved here and not understood. Whatever goes wrong outside is ``LinkDown``, with a sentence for a
person; the one who holds the link closes it, waits, and opens another. Reading takes what is waiting, in one
piece: to look for the end of a frame byte by byte costs fourteen times the processor.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import termios
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

import serial

from drivers.capture import Entry, EntryKind, parse_capture
from drivers.dummy import parse_script
from drivers.family import LineSettings

READ_LIMIT_BYTES = 4_096
"""The most that one read hands over."""

# A port that takes no bytes for so long is stuck; the longest query takes 6 ms at 38400 baud.
_WRITE_TIMEOUT_S = 2.0
_CONNECT_TIMEOUT_S = 5.0
# When what we sent to a serial server has not been acknowledged for so long, the connection is given up.
# Without it a server that lost its power would look like a silent pump for a quarter of an hour.
_UNACKNOWLEDGED_LIMIT_MS = 30_000
# What pyserial raises when a port is not there, is unplugged, or does not take its settings. SerialException
# is an OSError, but `in_waiting` of an unplugged port raises a bare one; ValueError is a remote port that
# refuses; TypeError is a port that another thread has closed while this one was waiting for it.
_LOST = (OSError, ValueError, TypeError, termios.error)
_NAMED_PORTS = ("socket://HOST:PORT", "rfc2217://HOST:PORT", "capture:FILE", "script:FILE")
# A day of a line that talks at every second is a few megabytes.
_FILE_LIMIT_BYTES = 64 * 1024 * 1024


class LinkDown(Exception):
    """The port cannot be used now. The message says what is wrong and what to do."""


class Clock(Protocol):
    """Time as the links see it."""

    def now_ms(self) -> int:
        """Monotonic milliseconds."""

    def wait_ms(self, duration_ms: int) -> None:
        """Return after ``duration_ms``."""


class SystemClock:
    """The machine's monotonic clock."""

    def now_ms(self) -> int:
        """Monotonic milliseconds."""
        return time.monotonic_ns() // 1_000_000

    def wait_ms(self, duration_ms: int) -> None:
        """Return after ``duration_ms``."""
        time.sleep(duration_ms / 1_000)


class Link(Protocol):
    """An open port."""

    def read(self, timeout_s: float) -> bytes:
        """What has arrived, at least one byte; ``b""`` if nothing did in ``timeout_s``. Raises LinkDown."""

    def write(self, data: bytes) -> None:
        """Send ``data``. Raises LinkDown."""

    def close(self) -> None:
        """Give the port back. Raises nothing; a second time does nothing.

        Another thread that is reading then gets LinkDown, at the latest when its time is up.
        """


Tap = Callable[[Entry], None]
"""Hears all that happens on a link, with the clock's time: for recording a capture."""


def open_link(
    port: str, line: LineSettings, *, clock: Clock | None = None, tap: Tap | None = None, speed: float = 1.0
) -> Link:
    """Open ``port`` as gateway.toml names it: a device or pseudo-terminal, ``socket://HOST:PORT``,
    ``rfc2217://HOST:PORT``, ``capture:FILE`` or ``script:FILE``.

    ``line`` sets a serial port; a socket and a recording have no settings. ``speed`` plays recordings faster.
    Bytes that were received before the port was opened are thrown away. Raises LinkDown.
    """
    clock = clock or SystemClock()
    kind, _, rest = port.partition(":")
    if kind == "capture":
        entries = _read_recording(port, Path(rest), lambda text: _heard(parse_capture(text).entries))
        link: Link = PlayedLink(entries, clock, speed)
    elif kind == "script":
        entries = _read_recording(
            port, Path(rest), lambda text: [(s.at_ms, s.data) for s in parse_script(text)]
        )
        link = PlayedLink(entries, clock, speed)
    elif kind == "socket":
        link = SocketLink(port)
    elif kind == "rfc2217" or "://" not in port:
        link = SerialLink(port, line)
    else:
        raise LinkDown(f"{port} is no kind of port: write a device, {', '.join(_NAMED_PORTS)}")
    if tap is None:
        return link
    return TappedLink(link, clock, tap)


class SerialLink:
    """A serial device, a pseudo-terminal, or a serial port on the network that can be set (RFC 2217)."""

    def __init__(self, port: str, line: LineSettings) -> None:
        self._name = port
        self._is_device = "://" not in port
        try:
            self._port = serial.serial_for_url(
                port,
                do_not_open=True,
                baudrate=line.baud,
                bytesize=line.data_bits,
                parity=line.parity,
                stopbits=line.stop_bits,
            )
            if self._is_device:
                self._port.write_timeout = _WRITE_TIMEOUT_S
                # Two programs on one line would each hear half of the answers.
                self._port.exclusive = True
            self._port.open()
        except _LOST as problem:
            raise LinkDown(_why_not_opened(port, problem)) from problem

    def read(self, timeout_s: float) -> bytes:
        """What is waiting; when nothing is, what comes first within ``timeout_s``."""
        try:
            if self._is_device:
                return self._read_device(timeout_s)
            if self._port.timeout != timeout_s:
                self._port.timeout = timeout_s
            return self._port.read(min(max(1, self._port.in_waiting), READ_LIMIT_BYTES))
        except _LOST as problem:
            raise LinkDown(_lost(self._name, problem)) from problem

    def _read_device(self, timeout_s: float) -> bytes:
        """As pyserial does it, with half as many calls of the system: that is what reading a pump costs."""
        descriptor = self._port.fileno()
        ready, _, _ = select.select([descriptor], [], [], timeout_s)
        if not ready:
            return b""
        # Another thread may have closed the port meanwhile; its number may be another file's by now.
        data = os.read(self._port.fileno(), READ_LIMIT_BYTES) if self._port.is_open else b""
        if not data:
            raise OSError("the device answers no more")
        return data

    def _written_at_once(self, data: bytes) -> int:
        """How many bytes the device takes without being waited for: nearly always all of a query."""
        try:
            return os.write(self._port.fileno(), data)
        except BlockingIOError:
            return 0

    def write(self, data: bytes) -> None:
        """Send ``data``."""
        try:
            rest = data[self._written_at_once(data) :] if self._is_device else data
            if rest:
                self._port.write(rest)
        except serial.SerialTimeoutException as problem:
            raise LinkDown(
                f"{self._name} takes no bytes: look at cable and adapter; it will be opened anew"
            ) from problem
        except _LOST as problem:
            raise LinkDown(_lost(self._name, problem)) from problem

    def close(self) -> None:
        """Give the port back."""
        try:
            self._port.close()
        except _LOST:
            # A port that was unplugged is closed as far as anybody can.
            return


class SocketLink:
    """A serial server on the network that passes bytes through as they are."""

    def __init__(self, port: str) -> None:
        self._name = port
        try:
            address = urlsplit(port)
            host, number = address.hostname, address.port
        except ValueError:
            host, number = None, None
        if not host or not number or address.path not in ("", "/") or address.query:
            raise LinkDown(f"{port} is no address: write socket://HOST:PORT, as socket://192.0.2.7:4001")
        try:
            self._socket = socket.create_connection((host, number), timeout=_CONNECT_TIMEOUT_S)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNACKNOWLEDGED_LIMIT_MS)
        except OSError as problem:
            raise LinkDown(
                f"{port} does not answer ({problem}): is the serial server on, and are host and port right?"
            ) from problem

    def read(self, timeout_s: float) -> bytes:
        """What has arrived; ``b""`` if nothing came within ``timeout_s``."""
        try:
            # Zero would mean: not blocking, which is an error and not an empty answer when nothing is there.
            self._socket.settimeout(max(timeout_s, 0.001))
            data = self._socket.recv(READ_LIMIT_BYTES)
        except TimeoutError as problem:
            if problem.errno == errno.ETIMEDOUT:
                raise LinkDown(_lost(self._name, problem)) from problem
            return b""
        except OSError as problem:
            raise LinkDown(_lost(self._name, problem)) from problem
        if not data:
            raise LinkDown(
                f"{self._name} has ended the connection: does another program use the serial server?"
            )
        return data

    def write(self, data: bytes) -> None:
        """Send ``data``."""
        try:
            self._socket.settimeout(_WRITE_TIMEOUT_S)
            self._socket.sendall(data)
        except OSError as problem:
            raise LinkDown(_lost(self._name, problem)) from problem

    def close(self) -> None:
        """End the connection."""
        self._socket.close()


class PlayedLink:
    """A recording as a port: what the pump said comes again, at its time. What is written goes nowhere.

    After the last entry the line is silent, as if somebody had switched the pump off.
    """

    def __init__(self, heard: Sequence[tuple[int, bytes]], clock: Clock, speed: float) -> None:
        self._heard = list(heard)
        self._next = 0
        self._clock = clock
        assert speed > 0, "time goes forward"
        self._speed = speed
        self._began_ms = clock.now_ms()

    def read(self, timeout_s: float) -> bytes:
        """What is due by now; ``b""`` if nothing comes due within ``timeout_s``."""
        until_ms = self._clock.now_ms() + round(timeout_s * 1_000)
        if self._next == len(self._heard) or self._due_ms() > until_ms:
            self._clock.wait_ms(max(0, until_ms - self._clock.now_ms()))
            return b""
        self._clock.wait_ms(max(0, self._due_ms() - self._clock.now_ms()))
        _, data = self._heard[self._next]
        self._next += 1
        return data

    def write(self, data: bytes) -> None:
        """A recording hears nothing."""

    def close(self) -> None:
        """There is nothing to give back."""

    def _due_ms(self) -> int:
        at_ms, _ = self._heard[self._next]
        return self._began_ms + round(at_ms / self._speed)


class TappedLink:
    """A link, and somebody who listens in."""

    def __init__(self, link: Link, clock: Clock, tap: Tap) -> None:
        self._link = link
        self._clock = clock
        self._tap = tap
        self._tell(EntryKind.UP)

    def read(self, timeout_s: float) -> bytes:
        """What has arrived; the tap hears it too."""
        try:
            data = self._link.read(timeout_s)
        except LinkDown:
            self._tell(EntryKind.DOWN)
            raise
        if data:
            self._tell(EntryKind.RX, data)
        return data

    def write(self, data: bytes) -> None:
        """Send ``data``; the tap hears it too."""
        try:
            self._link.write(data)
        except LinkDown:
            self._tell(EntryKind.DOWN)
            raise
        self._tell(EntryKind.TX, data)

    def close(self) -> None:
        """Give the port back."""
        self._link.close()

    def _tell(self, kind: EntryKind, data: bytes = b"") -> None:
        self._tap(Entry(at_ms=self._clock.now_ms(), kind=kind, data=data))


def _heard(entries: Sequence[Entry]) -> list[tuple[int, bytes]]:
    return [(entry.at_ms, entry.data) for entry in entries if entry.kind is EntryKind.RX]


def _read_recording(
    port: str, path: Path, parse: Callable[[str], list[tuple[int, bytes]]]
) -> list[tuple[int, bytes]]:
    try:
        if path.stat().st_size > _FILE_LIMIT_BYTES:
            raise LinkDown(f"{port} is larger than {_FILE_LIMIT_BYTES // 2**20} MiB: divide it")
        return parse(path.read_text(encoding="utf-8"))
    except OSError as problem:
        raise LinkDown(f"{port} cannot be read ({problem.strerror}): is the path right?") from problem
    except UnicodeDecodeError as problem:
        raise LinkDown(f"{port} is not text in UTF-8: is it the right file?") from problem
    except ValueError as problem:
        raise LinkDown(f"{port}, {problem}") from problem


def _why_not_opened(port: str, problem: Exception) -> str:
    number = problem.errno if isinstance(problem, OSError) else None
    match number:
        case errno.ENOENT | errno.ENODEV | errno.ENXIO:
            return f"{port} is not there: plug in the cable; `ls /dev/serial/by-id` lists what is"
        case errno.EACCES | errno.EPERM:
            return (
                f"{port} may not be opened by this user: "
                "add the user to the group dialout (usermod -aG dialout USER) and log in again"
            )
        case errno.EBUSY | errno.EWOULDBLOCK:
            return f"{port} is held by another program: end it (`fuser -v {port}` names it)"
    if "://" in port:
        return f"{port} cannot be opened ({problem}): is the serial server on, and are host and port right?"
    return f"{port} cannot be opened as a serial port ({problem}): is it the right device?"


def _lost(port: str, problem: Exception) -> str:
    return f"{port} is lost: is the cable still plugged in, and has the adapter power? ({problem})"
