"""A simulated pump as a process of its own, as a user starts it."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PATIENCE_S = 20.0


@dataclass
class SimulatedPump:
    process: subprocess.Popen[bytes]
    first_line: dict[str, Any]
    unread: bytes = b""

    def say(self, line: str) -> dict[str, Any]:
        """Type a line; the answer to it (events that come between are passed over)."""
        self.type(line)
        while "event" in (answer := self.next_line()):
            pass
        return answer

    def type(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()

    def next_line(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        until = time.monotonic() + PATIENCE_S
        while b"\n" not in self.unread:
            ready, _, _ = select.select([self.process.stdout], [], [], max(0.0, until - time.monotonic()))
            assert ready, "the simulator said nothing"
            data = os.read(self.process.stdout.fileno(), 65536)
            assert data, f"the simulator ended with {self.process.wait()}"
            self.unread += data
        line, _, self.unread = self.unread.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer


@contextmanager
def simulated_pump(*arguments: str | Path) -> Iterator[SimulatedPump]:
    process = subprocess.Popen(
        [sys.executable, "-m", "simulator", *map(str, arguments)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        pump = SimulatedPump(process, {})
        pump.first_line = pump.next_line()
        yield pump
    finally:
        process.terminate()
        process.communicate(timeout=PATIENCE_S)
