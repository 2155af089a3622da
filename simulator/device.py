"""Simulated pumps at the end of a cable: bytes in, bytes out, each at a time. No port, no clock.

``receive(data, now_ms)`` answers with transmissions: bytes and the time at which the last of them has
arrived; ``unasked(now_ms)`` with those that the pumps send of their own accord. Mishaps of the wire (noise,
loss, delay, silence, a pulled cable) happen here, all from one seed. Where several pumps share a line, that
what one of them says is lost or late is its own mishap; a cable that is pulled or noisy is everybody's.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from msgspec import Struct, structs

from simulator.faults import Fault
from simulator.pump import LogEntry, Pump, Truth
from simulator.scenario import Scenario
from simulator.wire.families import WIRES
from simulator.wire.wire import Address, Answer, Pumps

DOUBLED_AFTER_MS = 40


class Transmission(Struct, frozen=True, kw_only=True):
    """One answer on its way, and what was true when it was given."""

    at_ms: int
    """When its last byte arrives."""
    data: bytes
    """The bytes that arrive."""
    request: bytes
    """The body of the request, as the pump understood it; empty if nobody had asked."""
    reply: bytes
    """The bytes that the pump sent, before anything happened to them on the way; empty: it was silent."""
    answered_ms: int
    """When the pump looked at itself for this answer."""
    truth: Truth
    """Of the pump that answers; of the first one where a whole base does."""
    address: Address = None


class _PumpsNow(Pumps):
    """The pumps at one moment: each is looked at once."""

    def __init__(self, pumps: Mapping[Address, Pump], now_ms: int) -> None:
        self._pumps = pumps
        self._now_ms = now_ms
        self._truths: dict[Address, Truth] = {}

    @property
    def now_ms(self) -> int:
        return self._now_ms

    @property
    def addresses(self) -> Sequence[Address]:
        return tuple(self._pumps)

    def truth(self, address: Address) -> Truth:
        if address not in self._truths:
            self._truths[address] = self._pumps[address].truth_at(self._now_ms)
        return self._truths[address]

    def log(self, address: Address) -> Sequence[LogEntry]:
        return self._pumps[address].log_until(self._now_ms)


class Device:
    """Pumps with their cable: one, or several at a base or in a chain."""

    def __init__(self, family: str, scenarios: Scenario | Mapping[Address, Scenario]) -> None:
        """Raises ValueError, in words, where this family cannot have these pumps."""
        if family not in WIRES:
            raise ValueError(f"{family!r} is no family here; known are {', '.join(WIRES)}")
        self.family = family
        wires = WIRES[family]
        if isinstance(scenarios, Scenario):
            scenarios = {wires.alone_at: scenarios}
        possible = (wires.alone_at, *wires.addresses)
        for address in scenarios:
            if address not in possible or (address is None and len(scenarios) > 1):
                raise ValueError(
                    f"{family} pumps have the addresses {wires.addresses[0]} to {wires.addresses[-1]},"
                    f" not {'none' if address is None else address}"
                    if wires.addresses
                    else f"{family} pumps have no address, and a port each"
                )
        if not scenarios:
            raise ValueError("a line without a pump answers nothing; give it at least one")
        self.scenarios = dict(scenarios)
        self.pumps = {address: Pump(scenario) for address, scenario in scenarios.items()}
        self._byte_ms = wires.line.byte_ms
        self._wire = wires.open_wire(
            {address: scenario.machine.serial_number for address, scenario in scenarios.items()}
        )
        self._random = random.Random(f"{self.scenario.seed} wire")
        self._busy_until_ms = 0
        self._was_plugged_in = True

    @property
    def scenario(self) -> Scenario:
        """The story of the first pump, which is the only one of most families."""
        return next(iter(self.scenarios.values()))

    @property
    def pump(self) -> Pump:
        """The first pump."""
        return next(iter(self.pumps.values()))

    def is_plugged_in(self, now_ms: int) -> bool:
        """Whether the cable is in."""
        return "cable_pulled" not in self._of_the_line(now_ms)

    def next_change_ms(self, now_ms: int) -> int | None:
        """When, after ``now_ms``, a mishap begins or ends, or a pump says something unasked."""
        times = [pump.mishaps.next_change_ms(now_ms) for pump in self.pumps.values()]
        times.append(self._wire.next_unasked_ms() if self.is_plugged_in(now_ms) else None)
        return min((time for time in times if time is not None), default=None)

    def receive(self, data: bytes, now_ms: int) -> tuple[Transmission, ...]:
        """What comes back for these bytes, in order of time; for an answer that is lost, no ``data``.

        A pump answers one request after the other: the next waits until the answer before it is out.
        """
        faults = self._of_the_line(now_ms)
        if not self._is_connected(faults, now_ms):
            return ()
        pumps = _PumpsNow(self.pumps, now_ms)
        return self._sent(self._wire.receive(self._noisy(data, faults), pumps), pumps)

    def unasked(self, now_ms: int) -> tuple[Transmission, ...]:
        """What the pumps say of their own accord by now."""
        if not self._is_connected(self._of_the_line(now_ms), now_ms):
            return ()
        pumps = _PumpsNow(self.pumps, now_ms)
        return self._sent(self._wire.unasked(pumps), pumps)

    def _is_connected(self, faults: dict[str, Fault], now_ms: int) -> bool:
        """Whether the cable is in; when it has been put in again, the line begins anew."""
        is_plugged_in = "cable_pulled" not in faults
        if is_plugged_in and not self._was_plugged_in:
            self._wire.connected(now_ms)
        self._was_plugged_in = is_plugged_in
        return is_plugged_in

    def _of_the_line(self, now_ms: int) -> dict[str, Fault]:
        """What is wrong now with any pump: the cable is everybody's."""
        return {
            kind: fault for pump in self.pumps.values() for kind, fault in pump.mishaps.active(now_ms).items()
        }

    def _sent(self, answers: list[Answer], pumps: _PumpsNow) -> tuple[Transmission, ...]:
        sent: list[Transmission] = []
        everybodys = self._of_the_line(pumps.now_ms)
        for answer in answers:
            address = answer.address if answer.address in self.pumps else next(iter(self.pumps))
            faults = self.pumps[address].mishaps.active(pumps.now_ms)
            if "noisy_line" in everybodys:
                faults["noisy_line"] = everybodys["noisy_line"]
            first = Transmission(
                at_ms=self._sent_ms(answer, pumps.now_ms, faults),
                data=self._on_the_way(answer.reply, faults),
                request=answer.request,
                reply=answer.reply,
                answered_ms=pumps.now_ms,
                truth=pumps.truth(address),
                address=answer.address,
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
            thinking_ms = self._wire.thinking_ms if answer.request else 0
            takes_ms = thinking_ms + late_ms + len(answer.reply) * self._byte_ms
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
