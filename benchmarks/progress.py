"""How far a long run has come: on standard error, and only for somebody who sits before it."""

from __future__ import annotations

import sys

_WIDTH = 40


class Progress:
    """A bar of the whole work; each part of it says which share of itself is done."""

    def __init__(self, parts: int) -> None:
        self._parts = parts
        self._done = 0
        self._shown = -1

    def tick(self, share: float) -> None:
        """So much of the part at hand is done, from 0 to 1."""
        filled = int((self._done + share) / self._parts * _WIDTH)
        if filled != self._shown and sys.stderr.isatty():
            self._shown = filled
            sys.stderr.write(f"\r[{'#' * filled}{' ' * (_WIDTH - filled)}]")
            sys.stderr.flush()

    def part_done(self) -> None:
        """The part at hand is done; after the last one the bar goes away."""
        self._done += 1
        self.tick(0.0)
        if self._done == self._parts and sys.stderr.isatty():
            sys.stderr.write("\r\033[K")
            sys.stderr.flush()
