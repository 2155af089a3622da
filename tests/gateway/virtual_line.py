"""A simulated pump at a port, in time that passes only while somebody reads."""

from __future__ import annotations

from drivers.link import LinkDown
from simulator.device import Device


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
        if not self._coming or self._coming[0][0] > until_ms:
            self.now = until_ms
            return b""
        at_ms, data = self._coming.pop(0)
        self.now = max(self.now, at_ms)
        return data

    def write(self, data: bytes) -> None:
        self.written += data
        sent = self.device.receive(data, self.now) if self.device is not None else ()
        self._coming = sorted([*self._coming, *((one.at_ms, one.data) for one in sent if one.data)])

    def close(self) -> None:
        self._coming.clear()

    def _is_plugged_in(self) -> bool:
        return self.device is None or self.device.is_plugged_in(self.now)
