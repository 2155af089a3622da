"""The only file of the simulator that looks at a clock."""

from __future__ import annotations

import time
from datetime import UTC, datetime


class ScenarioClock:
    """Scenario time: ms since the scenario began, ``speed`` times as fast as the wall's."""

    def __init__(self, speed: float = 1.0) -> None:
        self._speed = speed
        self._began_s = time.monotonic()
        self._began_utc_s = time.time()

    def now_ms(self) -> int:
        """Scenario time now."""
        return int((time.monotonic() - self._began_s) * self._speed * 1000)

    def seconds_until(self, at_ms: int) -> float:
        """How long to wait, in real seconds, until that scenario time; 0 if it is past."""
        return max(0.0, at_ms / 1000 / self._speed - (time.monotonic() - self._began_s))

    def utc_text(self, at_ms: int) -> str:
        """The wall's time at that scenario time, as everywhere in this project: UTC with ms."""
        moment = datetime.fromtimestamp(self._began_utc_s + at_ms / 1000 / self._speed, UTC)
        return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


def utc_now_text() -> str:
    """The wall's time now, cut to whole seconds, as a TOML offset date-time."""
    return datetime.fromtimestamp(int(time.time()), UTC).strftime("%Y-%m-%dT%H:%M:%S+00:00")
