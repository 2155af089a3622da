"""Small scenarios for the tests, built without files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from msgspec import structs

from simulator.faults import FAULT_KINDS, Fault, Mishaps
from simulator.pump import LogEntry, Truth
from simulator.scenario import Machine, Scenario
from simulator.therapy import Leg, Program, PumpSetting
from simulator.wire.wire import Address

S = 1_000
MIN = 60_000
H = 3_600_000
DAY = 24 * H

PLAIN = PumpSetting(counter_ml=0.001, stroke_ml=0.01)
"""A fine counter and no ripple."""


def constant(rate_ml_h: float, duration_ms: int) -> Program:
    return legs((duration_ms, rate_ml_h, rate_ml_h))


def legs(*rows: tuple[int, float, float]) -> Program:
    steps = tuple(Leg(duration_ms=ms, from_ml_h=begin, to_ml_h=end) for ms, begin, end in rows)
    return Program(legs=steps, vtbi_ml=sum(leg.volume_ml for leg in steps))


def scenario(
    program: Program | None = None,
    *faults: Fault,
    setting: PumpSetting = PLAIN,
    follows: str = "motor",
    seed: int = 1,
    machine: Mapping[str, object] | None = None,
) -> Scenario:
    return Scenario(
        name="test",
        title="a test",
        prescription_text="",
        program=program or constant(125.0, H),
        counter_follows="flow" if follows == "flow" else "motor",
        seed=seed,
        machine=structs.replace(Machine(setting=setting), **(machine or {})),
        mishaps=Mishaps(faults),
    )


def fault(kind: str, at_ms: int, lasts_ms: int | None = None, strength: float | None = None) -> Fault:
    return Fault(
        kind=kind,
        at_ms=at_ms,
        until_ms=None if lasts_ms is None else at_ms + lasts_ms,
        strength=FAULT_KINDS[kind].default if strength is None else strength,
    )


@dataclass
class PumpsAre:
    """Pumps as a wire sees them, at the moment that a test sets."""

    truths: dict[Address, Truth]
    now_ms: int = 0
    logs: dict[Address, Sequence[LogEntry]] = field(default_factory=dict)

    @property
    def addresses(self) -> Sequence[Address]:
        return tuple(self.truths)

    def truth(self, address: Address) -> Truth:
        return self.truths[address]

    def log(self, address: Address) -> Sequence[LogEntry]:
        return self.logs.get(address, ())
