"""A simulated pump at a port, in time that passes only while somebody reads."""

from __future__ import annotations

from drivers.link import LinkDown
from simulator.device import Device, Transmission


class VirtualLine:
    """The port, and the clock of everybody who uses it. A pulled cable is LinkDown, as with a real one."""

    def __init__(self, device: Device | None, now_ms: int = 0) -> None:
        self.now = now_ms
        self.device = device
        self.written = b""
        self._coming: list[tuple[int, bytes]] = []

    def now_ms(self) -> int:
        return self.now

    def wait_ms(self, duration_ms: int) -> None:
        self.now += duration_ms

    def open(self) -> VirtualLine:
        if not self._is_plugged_in():
            raise LinkDown("the port is not there")
        self._coming.clear()
        return self

    def read(self, timeout_s: float) -> bytes:
        if not self._is_plugged_in():
            raise LinkDown("the port is lost")
        until_ms = self.now + round(timeout_s * 1000)
        self._hear_what_nobody_asked(until_ms)
        if not self._coming or self._coming[0][0] > until_ms:
            self.now = until_ms
            return b""
        at_ms, data = self._coming.pop(0)
        self.now = max(self.now, at_ms)
        return data

    def write(self, data: bytes) -> None:
        self.written += data
        if self.device is not None:
            self._send(self.device.receive(data, self.now))

    def close(self) -> None:
        self._coming.clear()

    def _hear_what_nobody_asked(self, until_ms: int) -> None:
        """Of pumps that speak of their own accord: the first word that they say in this time."""
        at_ms: int | None = self.now
        while self.device is not None and at_ms is not None and at_ms <= until_ms and not self._coming:
            self._send(self.device.unasked(at_ms))
            at_ms = self.device.next_change_ms(at_ms)

    def _send(self, sent: tuple[Transmission, ...]) -> None:
        self._coming = sorted([*self._coming, *((one.at_ms, one.data) for one in sent if one.data)])

    def _is_plugged_in(self) -> bool:
        return self.device is None or self.device.is_plugged_in(self.now)
