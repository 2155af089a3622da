"""A device behind a pseudo-terminal, a TCP port or a real serial port: the edge, which decides nothing.

One loop, one thread: it waits for bytes from the client, for a line on standard input, for an answer that is
due, for the next mishap, for a signal, whichever comes first.
"""

from __future__ import annotations

import errno
import os
import selectors
import signal
import socket
import sys
import tty
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Protocol

import msgspec
import serial

from simulator.clock import ScenarioClock
from simulator.commands import obey
from simulator.device import Device, Transmission
from simulator.wire.wire import LineSettings

READ_MOST = 4096
LINE_MOST = 4096
IDLE_S = 3600.0
STANDARD_INPUT = 0


class PortFault(Exception):
    """The port cannot be had; the message says why and what to do."""


class Port(Protocol):
    """What the loop needs of a port. Unplugged, it has no descriptors."""

    name: str
    """What a client opens."""

    def descriptors(self) -> list[int]:
        """What to wait on for bytes from the client."""
        ...

    def read(self, descriptor: int) -> bytes:
        """What has come in; empty if nothing."""
        ...

    def write(self, data: bytes) -> None:
        """Send; what nobody takes off the line is lost, as on a real one."""
        ...

    def plug(self) -> None:
        """Put the cable in."""
        ...

    def unplug(self) -> None:
        """Pull the cable out: the client sees its device go away, as far as this kind of port can show it."""
        ...


class PseudoTerminal:
    """A pseudo-terminal under a symbolic link that a client opens like any serial device."""

    def __init__(self, link: Path) -> None:
        self._link = link
        self._master: int | None = None
        self._client_end: int | None = None
        self.name = ""
        if link.exists() and not link.is_symlink():
            raise PortFault(f"{link} exists and is no link; give --link a path where nothing is")
        self.plug()

    def plug(self) -> None:
        """See ``Port``. Another device behind the same link, as with a real adapter."""
        self._master, self._client_end = os.openpty()
        tty.setraw(self._client_end)
        os.set_blocking(self._master, False)
        self.name = os.ttyname(self._client_end)
        try:
            self._link.unlink(missing_ok=True)
            self._link.symlink_to(self.name)
        except OSError as error:
            raise PortFault(f"the link {self._link} cannot be made: {error.strerror}") from error

    def unplug(self) -> None:
        """See ``Port``. The client's reads fail, and the link is gone."""
        if self._link.is_symlink() and str(self._link.readlink()) == self.name:
            self._link.unlink()
        for descriptor in (self._master, self._client_end):
            if descriptor is not None:
                os.close(descriptor)
        self._master = self._client_end = None

    def descriptors(self) -> list[int]:
        """See ``Port``."""
        return [] if self._master is None else [self._master]

    def read(self, descriptor: int) -> bytes:
        """See ``Port``."""
        try:
            return os.read(descriptor, READ_MOST)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EIO):
                return b""
            raise

    def write(self, data: bytes) -> None:
        """See ``Port``."""
        if self._master is not None:
            with suppress(BlockingIOError):
                os.write(self._master, data)


class TcpPort:
    """A TCP port, as of a serial server: one client at a time, the newest."""

    def __init__(self, host: str, port: int) -> None:
        self._address = (host, port)
        self._listener: socket.socket | None = None
        self._client: socket.socket | None = None
        self.plug()
        assert self._listener is not None
        self._address = self._listener.getsockname()[:2]
        self.name = f"socket://{host}:{self._address[1]}"

    def plug(self) -> None:
        """See ``Port``."""
        try:
            self._listener = socket.create_server(self._address)
        except (OSError, OverflowError) as error:
            place = ":".join(map(str, self._address))
            raise PortFault(
                f"cannot listen on {place}: {error}; is it taken? port 0 takes a free one"
            ) from error
        self._listener.setblocking(False)

    def unplug(self) -> None:
        """See ``Port``. The connection is closed, and nobody listens."""
        self._drop_client()
        if self._listener is not None:
            self._listener.close()
        self._listener = None

    def _drop_client(self) -> None:
        if self._client is not None:
            self._client.close()
        self._client = None

    def descriptors(self) -> list[int]:
        """See ``Port``."""
        return [one.fileno() for one in (self._listener, self._client) if one is not None]

    def read(self, descriptor: int) -> bytes:
        """See ``Port``."""
        if self._listener is not None and descriptor == self._listener.fileno():
            with suppress(BlockingIOError):
                client, _ = self._listener.accept()
                self._drop_client()
                client.setblocking(False)
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._client = client
            return b""
        data = b""
        if self._client is not None:
            try:
                data = self._client.recv(READ_MOST)
            except BlockingIOError:
                return b""
            except OSError:
                data = b""
            if not data:
                self._drop_client()
        return data

    def write(self, data: bytes) -> None:
        """See ``Port``."""
        if self._client is not None:
            try:
                self._client.send(data)
            except BlockingIOError:
                return
            except OSError:
                self._drop_client()


class RealPort:
    """A serial port of this machine, with a cable to whoever reads the pump."""

    def __init__(self, device: str, line: LineSettings) -> None:
        try:
            self._port = serial.Serial(
                device,
                line.baud,
                bytesize=line.data_bits,
                parity=line.parity,
                stopbits=line.stop_bits,
                timeout=0,
                write_timeout=1,
            )
        except (serial.SerialException, ValueError, OSError) as error:
            raise PortFault(f"the port {device} cannot be opened: {error}") from error
        self.name = device

    def plug(self) -> None:
        """See ``Port``. Nothing to do: the device itself is deaf while its cable is out."""

    def unplug(self) -> None:
        """See ``Port``. A real port cannot vanish from here; the device is deaf meanwhile."""

    def descriptors(self) -> list[int]:
        """See ``Port``."""
        return [self._port.fileno()]

    def read(self, descriptor: int) -> bytes:
        """See ``Port``."""
        return bytes(self._port.read(READ_MOST))

    def write(self, data: bytes) -> None:
        """See ``Port``."""
        with suppress(serial.SerialTimeoutException):
            self._port.write(data)


class Simulation:
    """A device at a port, from its first second to its end."""

    def __init__(
        self,
        device: Device,
        port: Port,
        clock: ScenarioClock,
        *,
        log: IO[str] | None,
        duration_ms: int | None,
    ) -> None:
        self._device = device
        self._port = port
        self._clock = clock
        self._log = log
        self._duration_ms = duration_ms
        self._is_plugged = True
        self._pending: list[Transmission] = []
        self._to_announce = sorted(
            (
                (fault.at_ms, fault.kind, address)
                for address, scenario in device.scenarios.items()
                for fault in scenario.mishaps.faults
            ),
            key=lambda one: one[:2],
        )
        self._typed = b""
        self._listens_to_input = sys.stdin is not None
        self._is_over = False

    def run(self, wakened: int) -> None:
        """Serve until the duration is over, ``quit`` is typed, or ``wakened`` says that a signal has come."""
        with selectors.PollSelector() as selector:
            while not self._is_over:
                now_ms = self._clock.now_ms()
                self._do_what_is_due(now_ms)
                if self._duration_ms is not None and now_ms >= self._duration_ms:
                    return
                for descriptor in self._wait(selector, wakened, now_ms):
                    self._serve(descriptor, wakened)

    def _wait(self, selector: selectors.PollSelector, wakened: int, now_ms: int) -> list[int]:
        """The descriptors on which something came in, or none when it is time for something."""
        wanted = {wakened, *self._port.descriptors()}
        if self._listens_to_input:
            wanted.add(STANDARD_INPUT)
        known = {key.fd for key in selector.get_map().values()}
        for descriptor in known - wanted:
            selector.unregister(descriptor)
        for descriptor in wanted - known:
            selector.register(descriptor, selectors.EVENT_READ)
        times = [sent.at_ms for sent in self._pending]
        times += [time for time in (self._duration_ms, self._next_change_ms(now_ms)) if time is not None]
        timeout_s = min((self._clock.seconds_until(time) for time in times), default=IDLE_S)
        return [key.fd for key, _ in selector.select(min(timeout_s, IDLE_S))]

    def _next_change_ms(self, now_ms: int) -> int | None:
        return self._device.next_change_ms(now_ms)

    def _do_what_is_due(self, now_ms: int) -> None:
        while self._to_announce and self._to_announce[0][0] <= now_ms:
            at_ms, kind, address = self._to_announce.pop(0)
            whose = {} if address is None else {"pump": address}
            self._say(event="fault_begun", kind=kind, **whose, **self._at(at_ms))
        is_plugged = self._device.is_plugged_in(now_ms)
        if is_plugged != self._is_plugged:
            self._is_plugged = is_plugged
            self._pending.clear()
            if is_plugged:
                self._port.plug()
                self._say(event="plugged_in", port=self._port.name, **self._at(now_ms))
            else:
                self._port.unplug()
        self._send(self._device.unasked(now_ms))
        while self._pending and self._pending[0].at_ms <= now_ms:
            self._port.write(self._pending.pop(0).data)

    def _serve(self, descriptor: int, wakened: int) -> None:
        if descriptor == wakened:
            self._is_over = True
        elif descriptor in self._port.descriptors():
            self._hear(self._port.read(descriptor))
        elif descriptor == STANDARD_INPUT:
            self._read_typed()
        # else: a client that has just given way to a newer one

    def _hear(self, data: bytes) -> None:
        """Bytes from the client to the device; its answers wait for their time."""
        if data:
            self._send(self._device.receive(data, self._clock.now_ms()))

    def _send(self, sent: tuple[Transmission, ...]) -> None:
        for one in sent:
            self._write_log(one)
        if sent:
            self._pending = sorted((*self._pending, *sent), key=lambda one: one.at_ms)

    def _read_typed(self) -> None:
        """Lines from standard input. At its end the pump goes on: it may have been started without one."""
        data = os.read(STANDARD_INPUT, READ_MOST)
        self._listens_to_input = bool(data)
        *lines, self._typed = (self._typed + data).split(b"\n")
        self._typed = self._typed[-LINE_MOST:]
        for line in lines:
            if line.strip():
                answer = obey(self._device, line.decode("utf-8", "replace"), self._clock.now_ms())
                self._say(**answer)
                self._is_over = self._is_over or "quit" in answer

    def _write_log(self, sent: Transmission) -> None:
        if self._log is not None:
            entry = {
                **self._at(sent.answered_ms),
                "request": sent.request.decode("ascii", "backslashreplace"),
                "reply": sent.reply.decode("ascii", "backslashreplace"),
                "truth": sent.truth,
            }
            if sent.address is not None:
                entry["pump"] = sent.address
            self._log.write(msgspec.json.encode(entry).decode() + "\n")
            self._log.flush()

    def _at(self, at_ms: int) -> dict[str, Any]:
        return {"time": self._clock.utc_text(at_ms), "t_s": at_ms / 1000}

    def _say(self, **line: Any) -> None:
        say(line)


def say(line: dict[str, Any]) -> None:
    """One JSON line on standard output, at once."""
    sys.stdout.write(msgspec.json.encode(line).decode() + "\n")
    sys.stdout.flush()


@contextmanager
def ending_signals() -> Iterator[int]:
    """A descriptor that becomes readable when SIGTERM or SIGINT comes, so that all ends in order."""
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    before_wakeup = signal.set_wakeup_fd(writer.fileno())
    before = {one: signal.signal(one, lambda *_: None) for one in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield reader.fileno()
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
        signal.set_wakeup_fd(before_wakeup)
        reader.close()
        writer.close()
