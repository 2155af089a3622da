"""What the pump was told to do: rates over time, volume to be infused, several occurrences.

Read here from the prescription file (prescription page, sections 1 and 1.1), only what a pump needs of it and
written without a look at how the gateway reads it: two readers of one text find each other's mistakes.
"""

from __future__ import annotations

from datetime import datetime
from itertools import pairwise
from math import ceil
from typing import Any

from msgspec import Struct, structs

from simulator.tables import BadFile, Problem, Table

MS_PER_H = 3_600_000.0


class Leg(Struct, frozen=True, kw_only=True):
    """A straight line of rate over ``duration_ms``."""

    duration_ms: int
    from_ml_h: float
    to_ml_h: float

    @property
    def volume_ml(self) -> float:
        """What the whole leg delivers."""
        return (self.from_ml_h + self.to_ml_h) / 2 * self.duration_ms / MS_PER_H

    @property
    def slope_ml_h_ms(self) -> float:
        """By how much the rate grows in a millisecond."""
        return (self.to_ml_h - self.from_ml_h) / self.duration_ms


class DemandSetting(Struct, frozen=True, kw_only=True):
    """How the pump is set for boluses that the patient asks for."""

    bolus_ml: float
    bolus_over_ms: int
    lockout_ms: int
    lockout_from_end: bool
    limit_ml: float | None
    limit_window_ms: int


class Program(Struct, frozen=True, kw_only=True):
    """What was programmed. Times are ms of the scenario; the first occurrence is due at ``start_ms``.

    ``every_ms`` is None where the legs are given once; ``times`` 0 says again and again.
    """

    legs: tuple[Leg, ...]
    vtbi_ml: float
    start_ms: int = 0
    every_ms: int | None = None
    times: int = 1
    between_ml_h: float = 0.0
    kvo_ml_h: float = 0.0
    kvo_max_ms: int = 0
    demand: DemandSetting | None = None

    @property
    def length_ms(self) -> int:
        """How long one occurrence takes without a pause."""
        return sum(leg.duration_ms for leg in self.legs)

    @property
    def highest_ml_h(self) -> float:
        """The highest rate that is programmed, a bolus included."""
        rates = [max(leg.from_ml_h, leg.to_ml_h) for leg in self.legs]
        bolus = self.demand.bolus_ml / self.demand.bolus_over_ms * MS_PER_H if self.demand else 0.0
        return max([*rates, self.kvo_ml_h, self.between_ml_h]) + bolus

    def due_ms(self, occurrence: int) -> int | None:
        """When an occurrence (from 0) is due; None if there are not so many."""
        times = self.times if self.every_ms else 1
        if times and occurrence >= times:
            return None
        return self.start_ms + occurrence * (self.every_ms or 0)

    def leg_at(self, position_ms: int) -> tuple[float, float, int | None]:
        """Rate (mL/h), its slope (mL/h in a ms) and the end of the leg, after so long a time of running.

        Past the last leg its final rate goes on, without an end: so does a pump that has not yet given its
        volume.
        """
        end_ms = 0
        for leg in self.legs:
            begin_ms, end_ms = end_ms, end_ms + leg.duration_ms
            if position_ms < end_ms:
                return leg.from_ml_h + leg.slope_ml_h_ms * (position_ms - begin_ms), leg.slope_ml_h_ms, end_ms
        return self.legs[-1].to_ml_h, 0.0, None


class PumpSetting(Struct, frozen=True, kw_only=True):
    """The prescription's ``[pump]``, as far as it describes the machine."""

    counter_ml: float = 0.1
    counter_wrap_ml: float | None = None
    stroke_ml: float = 0.05
    ripple_ml: float = 0.0


class Order(Struct, frozen=True, kw_only=True):
    """What the simulator needs to know of a prescription."""

    program: Program
    pump: PumpSetting
    bag_ml: float | None


def read_order(content: dict[str, Any]) -> Order:
    """A prescription file's content as the program of a pump.

    Raises ``BadFile`` if what a pump needs is not there or makes no sense. Whether the prescription is a good
    one is the gateway's business, so keys that a pump does not need are passed over.
    """
    problems: list[Problem] = []
    top = Table(content, "", problems)
    top.choice("format", ("infusion-prescription/1",), required=True)
    schedule = top.table("schedule", required=True)
    for key in ("at", "days", "as_needed"):
        if key in schedule:
            schedule.complain(key, "a scenario's prescription is moved in time; repeat it with `every`")
    if not isinstance(content.get("schedule", {}).get("start"), datetime):
        schedule.complain("start", "must be a date and time with its UTC offset")
    legs = tuple(_leg(phase, problems) for phase in schedule.tables("phase", required=True))
    if not legs:
        schedule.complain("phase", "at least one is needed")
    every_ms = schedule.duration("every", 0)
    limits = top.table("limits")
    machine = top.table("pump")
    bag = top.table("bag") if "bag" in top else None
    order = Order(
        program=Program(
            legs=legs,
            vtbi_ml=sum(leg.volume_ml for leg in legs),
            every_ms=every_ms or None,
            times=schedule.whole("times", 1, required=bool(every_ms)),
            between_ml_h=schedule.number("between_ml_h", 0.0),
            kvo_ml_h=limits.number("kvo_ml_h", 0.0),
            kvo_max_ms=limits.duration("kvo_max", 30 * 60_000),
            demand=_demand(top.table("demand")) if "demand" in top else None,
        ),
        pump=read_pump_setting(machine, PumpSetting()),
        bag_ml=bag.number("volume_ml", 0.0, above_zero=True, required=True) if bag else None,
    )
    if problems:
        raise BadFile(problems)
    return order


def program_from_steps(steps: tuple[tuple[int, float], ...], ordered: Program) -> Program:
    """What was programmed when it is not what was ordered: (time in ms, rate) steps, in order of time.

    The volume to be infused stays the ordered one; the last rate goes on until it is in. What comes after the
    infusion (KVO, boluses) stays as ordered too.
    """
    legs = [
        Leg(duration_ms=until_ms - at_ms, from_ml_h=rate_ml_h, to_ml_h=rate_ml_h)
        for (at_ms, rate_ml_h), (until_ms, _) in pairwise(steps)
    ]
    last_ml_h = steps[-1][1]
    left_ml = ordered.vtbi_ml - sum(leg.volume_ml for leg in legs)
    last_ms = ceil(left_ml / last_ml_h * MS_PER_H) if last_ml_h > 0 and left_ml > 0 else 1
    legs.append(Leg(duration_ms=last_ms, from_ml_h=last_ml_h, to_ml_h=last_ml_h))
    return structs.replace(ordered, legs=tuple(legs), start_ms=steps[0][0], every_ms=None, times=1)


def read_pump_setting(machine: Table, otherwise: PumpSetting) -> PumpSetting:
    """The keys of ``[pump]`` that describe the machine; ``otherwise`` where one is not given."""
    wrap_ml = machine.number("counter_wrap_ml", otherwise.counter_wrap_ml or 0.0)
    return PumpSetting(
        counter_ml=machine.number("counter_ml", otherwise.counter_ml, above_zero=True),
        counter_wrap_ml=wrap_ml or None,
        stroke_ml=machine.number("stroke_ml", otherwise.stroke_ml, above_zero=True),
        ripple_ml=machine.number("ripple_ml", otherwise.ripple_ml),
    )


def _leg(phase: Table, problems: list[Problem]) -> Leg:
    """One phase: any two of duration, rate and volume, or a ramp with its duration."""
    duration_ms = phase.duration("duration", 0)
    if "from_ml_h" in phase or "to_ml_h" in phase:
        from_ml_h = phase.number("from_ml_h", 0.0, required=True)
        to_ml_h = phase.number("to_ml_h", 0.0, required=True)
    else:
        rate_ml_h = phase.number("rate_ml_h", 0.0)
        volume_ml = phase.number("volume_ml", 0.0, above_zero=True)
        if "rate_ml_h" not in phase and duration_ms:
            rate_ml_h = volume_ml / duration_ms * MS_PER_H
        elif not duration_ms and rate_ml_h:
            duration_ms = round(volume_ml / rate_ml_h * MS_PER_H)
        from_ml_h = to_ml_h = rate_ml_h
    if duration_ms <= 0:
        phase.complain("duration", "cannot be told: give two of duration, rate_ml_h and volume_ml")
        duration_ms = 1
    phase.no_other_keys()
    return Leg(duration_ms=duration_ms, from_ml_h=from_ml_h, to_ml_h=to_ml_h)


def _demand(demand: Table) -> DemandSetting:
    limit_ml = demand.number("limit_ml", 0.0)
    return DemandSetting(
        bolus_ml=demand.number("bolus_ml", 1.0, above_zero=True, required=True),
        bolus_over_ms=demand.duration("bolus_over", 60_000),
        lockout_ms=demand.duration("lockout", 0, required=True),
        lockout_from_end=demand.choice("lockout_from", ("start", "end"), "start") == "end",
        limit_ml=limit_ml or None,
        limit_window_ms=demand.duration("limit_window", 3_600_000),
    )
