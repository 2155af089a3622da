"""Mishaps as data: what can go wrong with the pump, the line, the schedule and the wire.

A mishap has a name, a beginning, an end and a strength. It can be written in a scenario (``[[fault]]``) or
switched on by hand (``fault occlusion_downstream`` on standard input). What each does to the delivery is in
``pump.py``, what it does to the bytes in ``device.py``.
"""

from __future__ import annotations

from enum import StrEnum
from itertools import chain

from msgspec import Struct, structs


class Place(StrEnum):
    """Where a mishap happens."""

    PUMP = "pump"
    LINE = "line"
    SCHEDULE = "schedule"
    WIRE = "wire"


class FaultKind(Struct, frozen=True, kw_only=True):
    """One row of the table of mishaps."""

    name: str
    place: Place
    meaning: str
    strength: str = ""
    """What the strength says; empty: it says nothing."""
    default: float = 1.0
    least: float = 0.0
    most: float = 1.0


def _rows(*rows: FaultKind) -> dict[str, FaultKind]:
    return {row.name: row for row in rows}


FAULT_KINDS: dict[str, FaultKind] = _rows(
    FaultKind(name="stopped", place=Place.PUMP, meaning="the motor stalls, the pump still says running"),
    FaultKind(
        name="under_delivery",
        place=Place.PUMP,
        meaning="the motor turns, but part of each stroke goes nowhere",
        strength="share of the volume that is lost",
        default=0.5,
    ),
    FaultKind(
        name="wrong_rate",
        place=Place.PUMP,
        meaning="the pump is programmed with another rate",
        strength="programmed rate over the prescribed one",
        default=0.1,
        most=10_000.0,
    ),
    FaultKind(
        name="over_delivery",
        place=Place.PUMP,
        meaning="each stroke moves more than it should",
        strength="share of the volume that comes on top",
        default=0.25,
    ),
    FaultKind(name="paused", place=Place.PUMP, meaning="somebody has paused the pump"),
    FaultKind(
        name="run_by_hand",
        place=Place.PUMP,
        meaning="somebody runs the pump at a rate of their own, whatever is programmed",
        strength="rate in mL/h",
        default=10.0,
        most=10_000.0,
    ),
    FaultKind(
        name="flush",
        place=Place.PUMP,
        meaning="somebody flushes the line with the pump: a bolus on top of what runs",
        strength="rate in mL/h",
        default=100.0,
        most=10_000.0,
    ),
    FaultKind(
        name="primed",
        place=Place.PUMP,
        meaning="somebody primes the set: it is counted, and goes not into the patient",
        strength="rate in mL/h",
        default=300.0,
        most=10_000.0,
    ),
    FaultKind(
        name="counter_reset",
        place=Place.PUMP,
        meaning="the counter goes to 0 when this begins, and the pump runs on",
    ),
    FaultKind(
        name="counter_frozen", place=Place.PUMP, meaning="the counter stands, though the pump delivers"
    ),
    FaultKind(
        name="battery",
        place=Place.PUMP,
        meaning="mains are gone and the battery runs down: low at 20 %, at 0 % the pump stops",
        strength="charge that is left in it",
        default=0.21,
    ),
    FaultKind(name="air_in_line", place=Place.PUMP, meaning="the pump sees air: alarm and stop"),
    FaultKind(name="door_open", place=Place.PUMP, meaning="the door is open: alarm and stop"),
    FaultKind(name="cassette", place=Place.PUMP, meaning="the cassette sits badly: alarm and stop"),
    FaultKind(name="malfunction", place=Place.PUMP, meaning="an internal fault: alarm and stop"),
    FaultKind(name="near_empty", place=Place.PUMP, meaning="the pump warns that the bag is nearly empty"),
    FaultKind(
        name="occlusion_downstream",
        place=Place.LINE,
        meaning="the line to the patient closes: pressure rises until the pump alarms and stops",
        strength="share of the flow that is held back",
    ),
    FaultKind(
        name="occlusion_upstream",
        place=Place.LINE,
        meaning="nothing comes from the bag any more; the pump alarms after 0.2 mL of it",
    ),
    FaultKind(
        name="bag_empty",
        place=Place.LINE,
        meaning="the bag runs out before its time (it had leaked); at its end a full one is hung",
    ),
    FaultKind(
        name="bag_change",
        place=Place.LINE,
        meaning="the pump is stopped and another bag hung; at the end it is full and the counter at 0",
    ),
    FaultKind(
        name="pressed_line",
        place=Place.LINE,
        meaning="the patient lies on the line: the pressure is higher, and nothing is held back",
        strength="mmHg",
        default=40.0,
        most=400.0,
    ),
    FaultKind(
        name="free_flow",
        place=Place.LINE,
        meaning="the bag runs into the patient by its own weight, past the mechanism",
        strength="flow in mL/h",
        default=600.0,
        most=20_000.0,
    ),
    FaultKind(
        name="missed_dose",
        place=Place.SCHEDULE,
        meaning="an occurrence that falls due meanwhile is not given",
    ),
    FaultKind(
        name="late_start",
        place=Place.SCHEDULE,
        meaning="an occurrence that falls due meanwhile begins when this is over",
    ),
    FaultKind(name="kvo_left", place=Place.SCHEDULE, meaning="nobody switches keep-vein-open off meanwhile"),
    FaultKind(
        name="presses",
        place=Place.SCHEDULE,
        meaning="the demand button is pressed again and again; the pump gives what its lockout allows",
        strength="times an hour",
        default=4.0,
        least=0.01,
        most=600.0,
    ),
    FaultKind(
        name="lockout_changed",
        place=Place.SCHEDULE,
        meaning="the pump is set to another lockout",
        strength="share of the ordered one",
        most=10.0,
    ),
    FaultKind(
        name="bolus_changed",
        place=Place.SCHEDULE,
        meaning="the pump is set to another demand bolus, with a limit to match",
        strength="share of the ordered one",
        default=2.0,
        least=0.01,
        most=100.0,
    ),
    FaultKind(
        name="cable_pulled",
        place=Place.WIRE,
        meaning="the cable is out of the pump; when this is over it is put in again",
    ),
    FaultKind(
        name="noisy_line",
        place=Place.WIRE,
        meaning="bytes are changed at random, both ways",
        strength="share of the bytes",
        default=0.02,
    ),
    FaultKind(
        name="lossy_line",
        place=Place.WIRE,
        meaning="answers are lost",
        strength="share of the answers",
        default=0.3,
    ),
    FaultKind(
        name="doubled",
        place=Place.WIRE,
        meaning="answers come twice",
        strength="share of the answers",
        default=0.3,
    ),
    FaultKind(
        name="slow",
        place=Place.WIRE,
        meaning="answers come late",
        strength="seconds",
        default=2.0,
        most=60.0,
    ),
    FaultKind(name="silent", place=Place.WIRE, meaning="the pump does not answer"),
)

ALARM_FAULTS = ("malfunction", "door_open", "cassette", "air_in_line")
"""Mishaps that are an alarm by themselves: the pump stops for as long as they last."""


class Fault(Struct, frozen=True, kw_only=True):
    """One mishap: from ``at_ms`` (of the scenario) up to but not including ``until_ms``; None: it stays."""

    kind: str
    at_ms: int
    until_ms: int | None = None
    strength: float = 1.0

    def active(self, now_ms: int) -> bool:
        """Whether it is on at that time."""
        return self.at_ms <= now_ms and (self.until_ms is None or now_ms < self.until_ms)


class Mishaps(Struct, frozen=True):
    """Everything that goes wrong in one run, past and to come."""

    faults: tuple[Fault, ...] = ()

    def active(self, now_ms: int) -> dict[str, Fault]:
        """The mishaps of that moment by kind; of two of one kind the later counts."""
        return {fault.kind: fault for fault in self.faults if fault.active(now_ms)}

    def next_change_ms(self, now_ms: int) -> int | None:
        """When, after ``now_ms``, the next mishap begins or ends; None: never."""
        edges = chain.from_iterable((fault.at_ms, fault.until_ms) for fault in self.faults)
        return min((edge for edge in edges if edge is not None and edge > now_ms), default=None)

    def begin(self, kind: str, now_ms: int, strength: float | None = None) -> Mishaps:
        """The same with one more mishap from now on. Raises ValueError if there is no such thing."""
        row = fault_kind(kind)
        value = row.default if strength is None else strength
        if not row.least <= value <= row.most:
            raise ValueError(f"the strength of {kind} goes from {row.least:g} to {row.most:g}, not {value:g}")
        return Mishaps((*self.faults, Fault(kind=kind, at_ms=now_ms, strength=value)))

    def clear(self, now_ms: int) -> Mishaps:
        """The same with all that is on now ended now; what is still to come stays."""
        return Mishaps(
            tuple(
                structs.replace(fault, until_ms=now_ms) if fault.active(now_ms) else fault
                for fault in self.faults
            )
        )


def fault_kind(name: str) -> FaultKind:
    """The row of the table. Raises ValueError that names what is possible."""
    if name not in FAULT_KINDS:
        raise ValueError(f"{name!r} is no fault; known are {', '.join(FAULT_KINDS)}")
    return FAULT_KINDS[name]
