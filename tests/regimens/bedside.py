"""A regimen's simulated pump at a bedside: what it says goes through timeline, core and inhibition.

The truth of the simulator is read directly, without bytes; polls come with jitter, from a seed. What a cable
or a clock makes of the readings is a function from readings to readings.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from zlib import crc32

import numpy as np
from msgspec import structs
from numpy.typing import NDArray

from alerts.catalogue import row
from alerts.condition import Priority
from drivers.reading import PumpState, Reading
from gateway.core.order import parse_order
from gateway.core.prescription import Prescription
from gateway.core.schedule import Course
from simulator.faults import Fault, Mishaps
from simulator.line import Gauge
from simulator.pump import Pump
from simulator.scenario import Scenario, load_scenario, prescription_starting
from simulator.therapy import Program
from tests.gateway.core.pump_days import START_UTC_MS, Moment, Ward

LEAD_MS = 120_000
"""For so long the pump is read before the first dose is due."""
A_PIECE = 20_000
"""So many polls at once."""
BOOT_MS = 1_000_000_000
GAUGE = Gauge(resting_mmhg=30.0, noise_mmhg=1.5, posture_mmhg=15.0, resistance_mmhg_h_ml=0.02)
START = "2026-05-04T06:00:00+00:00"
_STATES = {state.value: state for state in PumpState}

Told = tuple[Moment, Reading]
Link = Callable[[Iterable[Told]], Iterator[Told]]


@cache
def story_of(regimen: str) -> Scenario:
    return load_scenario(regimen)


@cache
def ordered(regimen: str, poll_ms: int | None = None) -> Prescription:
    """The regimen's order, beginning at ``START_UTC_MS``, for a gateway that polls so."""
    order = parse_order(prescription_starting(story_of(regimen).prescription_text, START))
    return (
        order
        if poll_ms is None
        else structs.replace(order, pump=structs.replace(order.pump, poll_ms=poll_ms))
    )


@cache
def course_of(regimen: str) -> Course:
    return Course(ordered(regimen))


@dataclass(frozen=True, kw_only=True)
class Bedside:
    """One run: the pump, what happens to it, how it is read. Times are ms after the first dose is due."""

    regimen: str
    until_ms: int
    from_ms: int = -LEAD_MS
    poll_ms: int | None = None
    """None: as ordered."""
    faults: tuple[Fault, ...] = ()
    program: Callable[[Program], Program] | None = None
    """What was programmed in place of what was ordered."""
    machine: dict[str, object] = field(default_factory=dict)
    counter_follows: str = "flow"
    seed: int | None = None
    link: Link | None = None
    restarts_ms: int | None = None
    """When the gateway is started anew, from its snapshot."""
    order: Prescription | None = None
    """Another order than the regimen's own."""
    revised: tuple[int, str] | None = None
    """When a new version of the order comes, and its text."""

    def prescription(self) -> Prescription:
        order = self.order or ordered(self.regimen)
        if self.poll_ms is None:
            return order
        return structs.replace(order, pump=structs.replace(order.pump, poll_ms=self.poll_ms))

    def pump(self) -> Pump:
        return Pump(self.scenario())

    def scenario(self) -> Scenario:
        """What happens, on a clock that begins ``LEAD_MS`` before the first dose is due."""
        story = story_of(self.regimen)
        program = story.program if self.program is None else self.program(story.program)
        machine = structs.replace(story.machine, **{"gauge": GAUGE, **self.machine})
        return structs.replace(
            story,
            program=structs.replace(program, start_ms=LEAD_MS),
            machine=machine,
            counter_follows="motor" if self.counter_follows == "motor" else "flow",
            seed=story.seed if self.seed is None else self.seed,
            mishaps=Mishaps(tuple(shifted(fault) for fault in self.faults)),
        )

    def readings(self) -> Iterator[Told]:
        """What the pump says at each poll, with a jitter of a tenth of a poll."""
        pump = self.pump()
        polls_ms = self._polls_ms()
        for begin in range(0, len(polls_ms), A_PIECE):
            at_ms = polls_ms[begin : begin + A_PIECE]
            said = pump.columns_at(at_ms)
            rows = zip(
                (at_ms - LEAD_MS).tolist(),
                said.state,
                np.round(said.rate_ml_h, 4).tolist(),
                said.counter_ml.tolist(),
                said.vtbi_ml.tolist(),
                said.pressure_mmhg.tolist(),
                said.alarms,
                said.battery_percent.tolist(),
                said.bolus_ml,
                said.lockout_s,
                strict=True,
            )
            for at, state, rate, counter, vtbi, pressure, alarms, battery, bolus, lockout in rows:
                yield (
                    Moment(monotonic_ms=BOOT_MS + at, utc_ms=START_UTC_MS + at),
                    Reading(
                        pump="pump",
                        at_ms=BOOT_MS + at,
                        state=_STATES[state],
                        rate_ml_h=rate,
                        volume_ml=counter,
                        vtbi_ml=vtbi,
                        pressure_mmhg=pressure,
                        alarms=alarms,
                        battery_percent=battery,
                        bolus_ml=bolus,
                        lockout_s=lockout,
                    ),
                )

    def _polls_ms(self) -> NDArray[np.int64]:
        """On the clock of the scenario."""
        poll_ms = self.poll_ms or self.prescription().pump.poll_ms
        jitter = np.random.default_rng(crc32(f"{self.regimen} {self.seed} polls".encode()))
        begin_ms, until_ms = self.from_ms + LEAD_MS, self.until_ms + LEAD_MS
        most = int((until_ms - begin_ms) / (0.9 * poll_ms)) + 2
        steps_ms = np.round(poll_ms * jitter.uniform(0.9, 1.1, most)).astype(np.int64)
        polls_ms: NDArray[np.int64] = begin_ms + np.cumsum(steps_ms) - steps_ms[0]
        return polls_ms[polls_ms < until_ms]

    def watched(self) -> Ward:
        """All that is told of this run."""
        ward = Ward(self.prescription())
        told: Iterable[Told] = self.readings()
        if self.link is not None:
            told = self.link(told)
        restarts_ms, revised = self.restarts_ms, self.revised
        for moment, reading in told:
            if revised is not None and reading.at_ms - BOOT_MS >= revised[0]:
                ward.revise(revised[1])
                revised = None
            if restarts_ms is not None and reading.at_ms - BOOT_MS >= restarts_ms:
                ward.restart()
                restarts_ms = None
            ward.take(moment, reading)
        return ward


def shifted(fault: Fault) -> Fault:
    """The same mishap on the clock of the scenario, which begins before the dose is due."""
    until_ms = None if fault.until_ms is None else fault.until_ms + LEAD_MS
    return structs.replace(fault, at_ms=max(0, fault.at_ms + LEAD_MS), until_ms=until_ms)


@dataclass(frozen=True)
class Alert:
    """What people were told first of one thing."""

    at_s: float
    """After the first dose was due."""
    kind: str
    priority: Priority
    message: str
    code: str | None

    def __str__(self) -> str:
        return f"{self.at_s:9.1f} s  {self.kind} ({self.priority})  {self.message}"


def alerts_of(ward: Ward) -> list[Alert]:
    """What was told and is no mere information."""
    return [
        Alert(
            (one.finding.at_ms - BOOT_MS) / 1000,  # not on the wall clock: it may be set
            one.finding.kind.value,
            one.priority,
            one.finding.message,
            one.finding.code,
        )
        for one in ward.started
        if not row(one.finding.kind).info
    ]


# What the cable and the clocks make of the readings.


def silence(from_ms: int, until_ms: int) -> Link:
    """Nothing is heard in this time."""

    def link(told: Iterable[Told]) -> Iterator[Told]:
        return (one for one in told if not from_ms <= one[1].at_ms - BOOT_MS < until_ms)

    return link


def lost(share: float, seed: int) -> Link:
    """So many of the answers cannot be read."""

    def link(told: Iterable[Told]) -> Iterator[Told]:
        chance = random.Random(f"{seed} lost")
        return (one for one in told if chance.random() >= share)

    return link


def burst_after(from_ms: int, until_ms: int) -> Link:
    """What was said in this time comes at its end, the latest first, and each of it twice."""

    def link(told: Iterable[Told]) -> Iterator[Told]:
        held: list[Told] = []
        for moment, reading in told:
            at_ms = reading.at_ms - BOOT_MS
            if from_ms <= at_ms < until_ms:
                held.append((moment, reading))
                continue
            if held and at_ms >= until_ms:
                yield moment, reading
                for late in reversed(held):
                    yield late
                    yield late
                held.clear()
            yield moment, reading

    return link


def clock_set(at_ms: int, by_ms: int) -> Link:
    """The gateway's wall clock is set by so much."""

    def link(told: Iterable[Told]) -> Iterator[Told]:
        for moment, reading in told:
            moved_ms = by_ms if reading.at_ms - BOOT_MS >= at_ms else 0
            yield structs.replace(moment, utc_ms=moment.utc_ms + moved_ms), reading

    return link


def moved(by_ms: int) -> Link:
    """All of it happens so much later in the calendar."""

    def link(told: Iterable[Told]) -> Iterator[Told]:
        return ((structs.replace(moment, utc_ms=moment.utc_ms + by_ms), reading) for moment, reading in told)

    return link


def clock_drifts(share: float) -> Link:
    """The gateway's monotonic clock runs fast by this share against the wall clock."""

    def link(told: Iterable[Told]) -> Iterator[Told]:
        for moment, reading in told:
            at_ms = reading.at_ms - BOOT_MS
            yield structs.replace(moment, monotonic_ms=BOOT_MS + round(at_ms * (1 + share))), reading

    return link


def restarted(from_ms: int, until_ms: int, unsynced_ms: int = 0) -> Link:
    """The mains fail: silence, then the monotonic clock begins at 0, the wall clock maybe in 1970."""

    def link(told: Iterable[Told]) -> Iterator[Told]:
        for moment, reading in told:
            at_ms = reading.at_ms - BOOT_MS
            if at_ms < from_ms:
                yield moment, reading
            elif at_ms >= until_ms:
                up_ms = 20_000 + at_ms - until_ms
                if at_ms < until_ms + unsynced_ms:
                    yield Moment(monotonic_ms=up_ms, utc_ms=up_ms, synced=False), reading
                else:
                    yield structs.replace(moment, monotonic_ms=up_ms), reading

    return link


def counted(convert: Callable[[int, float], float]) -> Link:
    """The counter as a driver or a pump writes it otherwise: from time in ms and mL."""

    def link(told: Iterable[Told]) -> Iterator[Told]:
        for moment, reading in told:
            assert reading.volume_ml is not None
            volume_ml = convert(reading.at_ms - BOOT_MS, reading.volume_ml)
            yield moment, structs.replace(reading, volume_ml=volume_ml)

    return link
