"""A simulated pump as a process of its own, for tests: with a port, the truth, and faults by call.

One line of JSON comes for each line that is typed (``dripwatch simulate --help``). Who does not answer for
``PATIENCE_S`` is broken, and the test that waits for it fails in words.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from simulator.pump import Truth

PATIENCE_S = 20.0
READ_MOST = 65_536


class SimulatedPump:
    """A running simulator. ``port`` is what a client opens."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self._unread = b""
        self.first_line = self.next_line()
        self.port: str = self.first_line["link"] or self.first_line["port"]

    def truth(self, address: int | None = None) -> Truth:
        """What is really so now: what was delivered, what the counter says, what is wrong."""
        said = self.say(_of(address, "truth"))
        del said["t_s"]
        return msgspec.convert(said, Truth)

    def fault(self, kind: str, strength: float | None = None, *, address: int | None = None) -> None:
        """Something goes wrong from now on: any of ``dripwatch simulate faults``. Raises ValueError."""
        self._do(_of(address, f"fault {kind}" + (f" {strength:g}" if strength is not None else "")))

    def clear(self, *, address: int | None = None) -> None:
        """All that is wrong now is right again."""
        self._do(_of(address, "clear"))

    def set_rate(self, rate_ml_h: float, *, address: int | None = None) -> None:
        """Somebody sets the pump to this rate, in mL/h; 0 stops it. Raises ValueError."""
        self._do(_of(address, f"set rate_ml_h {rate_ml_h:g}"))

    def press_demand(self, *, address: int | None = None) -> str:
        """The patient asks for a bolus; what the pump makes of it."""
        return str(self._do(_of(address, "press demand"))["demand"])

    def _do(self, line: str) -> dict[str, Any]:
        said = self.say(line)
        if "error" in said:
            raise ValueError(said["error"])
        return said

    def say(self, line: str) -> dict[str, Any]:
        """Type a line; the answer to it (events that come between are passed over)."""
        self.type(line)
        while "event" in (answer := self.next_line()):
            pass
        return answer

    def type(self, line: str) -> None:
        """Type a line and do not wait."""
        assert self.process.stdin is not None
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()

    def next_line(self) -> dict[str, Any]:
        """What it says next, an answer or an event. Raises RuntimeError if it says nothing or has ended."""
        assert self.process.stdout is not None
        while b"\n" not in self._unread:
            ready, _, _ = select.select([self.process.stdout], [], [], PATIENCE_S)
            if not ready:
                raise RuntimeError(f"the simulator has said nothing for {PATIENCE_S:g} s")
            data = os.read(self.process.stdout.fileno(), READ_MOST)
            if not data:
                raise RuntimeError(f"the simulator has ended with {self.process.wait()}: see standard error")
            self._unread += data
        line, _, self._unread = self._unread.partition(b"\n")
        answer: dict[str, Any] = msgspec.json.decode(line)
        return answer


def _of(address: int | None, line: str) -> str:
    return line if address is None else f"pump {address} {line}"


def scenario_arguments(scenario: str | Mapping[int, str]) -> list[str]:
    """The options for one story, or for one at each address."""
    if isinstance(scenario, str):
        return ["--scenario", scenario]
    return [part for address, name in scenario.items() for part in ("--scenario", f"{address}={name}")]


@contextmanager
def simulated_pump(*arguments: str | Path) -> Iterator[SimulatedPump]:
    """``dripwatch simulate`` with these arguments, until the block ends."""
    root = Path(__file__).parents[1]
    command = [sys.executable, "-m", "simulator", *map(str, arguments)]
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])},
    )
    try:
        yield SimulatedPump(process)
    finally:
        process.terminate()
        process.communicate(timeout=PATIENCE_S)
