"""Closed alerts that a broker keeps for ever: cleared after a day (mqtt page, "With MQTT 3.1.1").

With MQTT 5 a closed alert expires on the broker by itself.
"""

from __future__ import annotations

from collections.abc import Mapping

CLEARED_AFTER_MS = 24 * 3_600_000
AT_ONCE_MAX = 20


class ClosedTopics:
    """Topics whose last message tells of a closed alert, by the time at which it was closed."""

    def __init__(self, kept: Mapping[str, int] | None = None) -> None:
        self._closed = dict(kept or {})
        self._under_way: set[str] = set()

    @property
    def kept(self) -> dict[str, int]:
        """What must be kept over a restart; it goes into the constructor again."""
        return self._closed

    def closed(self, topic: str, t_ms: int) -> None:
        """An alert has been closed; its message is retained."""
        self._closed[topic] = t_ms

    def connected(self) -> None:
        """A new connection: what has no answer may not have arrived."""
        self._under_way.clear()

    def to_clear(self, t_ms: int) -> list[str]:
        """Topics that an empty message must clear now. They count as under way."""
        ready = [
            topic
            for topic, closed_t_ms in self._closed.items()
            if t_ms - closed_t_ms >= CLEARED_AFTER_MS and topic not in self._under_way
        ][: max(0, AT_ONCE_MAX - len(self._under_way))]
        self._under_way.update(ready)
        return ready

    def cleared(self, topic: str) -> None:
        """The broker has confirmed it."""
        self._closed.pop(topic, None)
        self._under_way.discard(topic)
