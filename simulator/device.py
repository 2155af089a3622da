"""A simulated pump at the end of a cable: bytes in, bytes out, each at a time. No port, no clock.

``receive(data, now_ms)`` answers with transmissions: bytes and the time at which the last of them has
arrived. Mishaps of the wire (noise, loss, delay, silence, a pulled cable) happen here, all from one seed.
"""

from __future__ import annotations

import random

from msgspec import Struct, structs

from simulator.faults import Fault
from simulator.pump import Pump, Truth
from simulator.scenario import Scenario
from simulator.wire.families import WIRES
from simulator.wire.wire import Answer

DOUBLED_AFTER_MS = 40


class Transmission(Struct, frozen=True, kw_only=True):
    """One answer on its way, and what was true when it was given."""

    at_ms: int
    """When its last byte arrives."""
    data: bytes
    """The bytes that arrive."""
    request: bytes
    """The body of the request, as the pump understood it."""
    reply: bytes
    """The bytes that the pump sent, before anything happened to them on the way; empty: it was silent."""
    answered_ms: int
    """When the pump looked at itself for this answer."""
    truth: Truth


class Device:
    """A pump with its cable."""

    def __init__(self, family: str, scenario: Scenario) -> None:
        if family not in WIRES:
            raise ValueError(f"{family!r} is no family here; known are {', '.join(WIRES)}")
        self.family = family
        self.scenario = scenario
        self.pump = Pump(scenario)
        self._wire = WIRES[family](scenario.machine.serial_number)
        self._random = random.Random(f"{scenario.seed} wire")
        self._busy_until_ms = 0

    def is_plugged_in(self, now_ms: int) -> bool:
        """Whether the cable is in the pump."""
        return "cable_pulled" not in self.pump.mishaps.active(now_ms)

    def receive(self, data: bytes, now_ms: int) -> tuple[Transmission, ...]:
        """What comes back for these bytes, in order of time; for an answer that is lost, no ``data``.

        The pump answers one request after the other: the next waits until the answer before it is out.
        """
        faults = self.pump.mishaps.active(now_ms)
        if "cable_pulled" in faults:
            return ()
        truth = self.pump.truth_at(now_ms)
        sent: list[Transmission] = []
        for answer in self._wire.receive(self._noisy(data, faults), truth):
            first = Transmission(
                at_ms=self._sent_ms(answer, now_ms, faults),
                data=self._on_the_way(answer.reply, faults),
                request=answer.request,
                reply=answer.reply,
                answered_ms=now_ms,
                truth=truth,
            )
            sent.append(first)
            if self._happens("doubled", faults):
                self._busy_until_ms += DOUBLED_AFTER_MS
                sent.append(structs.replace(first, at_ms=self._busy_until_ms))
        return tuple(sent)

    def _sent_ms(self, answer: Answer, now_ms: int, faults: dict[str, Fault]) -> int:
        """When the last byte of this answer is out."""
        if answer.reply:
            late_ms = faults["slow"].strength * 1000 if "slow" in faults else 0
            takes_ms = self._wire.thinking_ms + late_ms + len(answer.reply) * self._wire.byte_ms
            self._busy_until_ms = max(now_ms, self._busy_until_ms) + round(takes_ms)
        return max(now_ms, self._busy_until_ms)

    def _on_the_way(self, reply: bytes, faults: dict[str, Fault]) -> bytes:
        """What of an answer arrives."""
        if "silent" in faults or self._happens("lossy_line", faults):
            return b""
        return self._noisy(reply, faults)

    def _happens(self, kind: str, faults: dict[str, Fault]) -> bool:
        return kind in faults and self._random.random() < faults[kind].strength

    def _noisy(self, data: bytes, faults: dict[str, Fault]) -> bytes:
        """The bytes with, on a noisy line, some of them changed."""
        if "noisy_line" not in faults:
            return data
        share = faults["noisy_line"].strength
        return bytes(
            byte ^ self._random.randrange(1, 256) if self._random.random() < share else byte for byte in data
        )
