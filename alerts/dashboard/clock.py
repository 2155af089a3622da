"""The dashboard's two times. The only file of the dashboard that imports ``time``."""

from __future__ import annotations

import time


class Clock:
    """``now_ms`` for every rule, ``utc_ms`` for people and for the log."""

    def now_ms(self) -> int:
        """Monotonic milliseconds since some moment in the past. Never jumps."""
        return time.monotonic_ns() // 1_000_000

    def utc_ms(self) -> int:
        """Milliseconds since 1970 UTC, as this machine believes."""
        return time.time_ns() // 1_000_000
