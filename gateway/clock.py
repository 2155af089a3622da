"""The only file of the gateway that looks at a clock."""

from __future__ import annotations

import ctypes
import time
from pathlib import Path
from typing import Protocol

from gateway.core.timeline import Moment

_CLOCK_UNSYNCED = 0x0040
"""STA_UNSYNC of adjtimex(2): the kernel's word that nobody has set the clock."""
_FIRST_PLAUSIBLE_UTC_S = 1_780_000_000
"""Mid 2026: a clock that shows less has lost its battery, whatever else it claims."""


def boottime_ms() -> int:
    """CLOCK_BOOTTIME of this machine, which goes on while it sleeps."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000


class Clock(Protocol):
    """Tells the time to those who may not look."""

    def moment(self) -> Moment:
        """What the machine's clocks say now."""


class _Timex(ctypes.Structure):
    _fields_ = (("modes", ctypes.c_uint), ("offset", ctypes.c_long), ("freq", ctypes.c_long),
                ("maxerror", ctypes.c_long), ("esterror", ctypes.c_long), ("status", ctypes.c_int),
                ("padding", ctypes.c_byte * 256))  # fmt: skip


class SystemClock:
    """The clocks of this machine: CLOCK_BOOTTIME, which goes on while it sleeps, and the wall clock.

    The wall clock is trusted if the kernel says that it has been disciplined, or systemd-timesyncd has left
    its mark, or a battery-backed clock set it at boot. ``always_synced`` overrules that, for machines that
    are set in another way (gateway.toml, ``clock_trusted``).
    """

    def __init__(self, *, always_synced: bool = False) -> None:
        self._always_synced = always_synced
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._synced = False
        self._looked_at_ms: int | None = None
        try:
            self._boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip() or None
        except OSError:
            self._boot = None

    def moment(self) -> Moment:
        """What the machine's clocks say now."""
        monotonic_ms = boottime_ms()
        if self._looked_at_ms is None or monotonic_ms - self._looked_at_ms >= 1_000:
            self._synced = self._is_synced()
            self._looked_at_ms = monotonic_ms
        return Moment(
            monotonic_ms=monotonic_ms,
            utc_ms=time.time_ns() // 1_000_000,
            synced=self._synced,
            boot=self._boot,
        )

    def _is_synced(self) -> bool:
        if self._always_synced:
            return True
        if time.time() < _FIRST_PLAUSIBLE_UTC_S:
            return False
        timex = _Timex()
        if self._libc.adjtimex(ctypes.byref(timex)) >= 0 and not timex.status & _CLOCK_UNSYNCED:
            return True
        if Path("/run/systemd/timesync/synchronized").exists():
            return True
        try:
            return Path("/sys/class/rtc/rtc0/hctosys").read_text().strip() == "1"
        except OSError:
            return False
