"""Ordinary days in a home, from a seed: a pump does as it was told, and it looks like a fault.

A day is 24 h of one regimen. Nothing is wrong with its pump; things happen to it (``ROWS``), several a day or
none. Each says which kinds of alert are then called for, and when: all else that is told is false.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import pairwise
from zoneinfo import ZoneInfo

import numpy as np
from msgspec import structs

from alerts.condition import Kind, Urgency
from gateway.core.order import parse_order
from simulator.faults import Fault
from simulator.pump import Pump
from simulator.scenario import prescription_starting, regimen_names
from tests.gateway.core.pump_days import START_UTC_MS
from tests.regimens.bedside import LEAD_MS, Alert, Bedside, Link, Told, clock_set, lost, moved, silence
from tests.regimens.cells import DAY, MIN, OVER, UNDER, H, Patient, S

CLEAN_SHARE = 0.3
"""Share of the days on which nothing happens."""
GRID_MS = 30 * S
AFTERMATH_MS = 3 * H
"""So long after something has happened what follows from it may still be told."""


@dataclass(frozen=True, kw_only=True)
class Called:
    """These kinds are called for in this time."""

    kinds: frozenset[Kind]
    from_ms: float
    until_ms: float


@dataclass(kw_only=True)
class Day:
    """24 h of one regimen. Times are ms after its first dose was due."""

    patient: Patient
    from_ms: int
    until_ms: int
    doses: tuple[tuple[int, int], ...]
    """When the pump delivers if nothing happens."""
    faults: list[Fault] = field(default_factory=list)
    links: list[Link] = field(default_factory=list)
    machine: dict[str, object] = field(default_factory=dict)
    called: list[Called] = field(default_factory=list)
    rows: list[str] = field(default_factory=list)
    busy: list[tuple[float, float]] = field(default_factory=list)
    """When something happens: a true fault is put elsewhere."""
    zone_start: str = ""
    """The first dose is due then, by the clock of a place."""

    def happens(self, kind: str, at_ms: float, lasts_ms: float, strength: float = 1.0) -> None:
        self.faults.append(self.patient.fault(kind, at_ms, lasts_ms, strength))
        self.busy.append((at_ms - 5 * MIN, at_ms + lasts_ms + 5 * MIN))

    def is_free(self, from_ms: float, until_ms: float) -> bool:
        """Whether nothing else happens then."""
        return all(until_ms < busy[0] or from_ms > busy[1] for busy in self.busy)

    def calls_for(self, from_ms: float, until_ms: float, *kinds: Kind) -> None:
        self.called.append(
            Called(kinds=frozenset(kinds), from_ms=from_ms - MIN, until_ms=until_ms + AFTERMATH_MS)
        )

    def is_called_for(self, one: Alert) -> bool:
        at_ms = one.at_s * 1000
        return any(
            Kind(one.kind) in call.kinds and call.from_ms <= at_ms <= call.until_ms for call in self.called
        )

    def bedside(self, poll_ms: int | None, seed: int) -> Bedside:
        links = tuple(self.links)

        def link(told: Iterable[Told]) -> Iterator[Told]:
            for one in links:
                told = one(told)
            return iter(told)

        order = None
        if self.zone_start:
            text = prescription_starting(self.patient.story.prescription_text, self.zone_start)
            order = parse_order(text)
            zoned = structs.replace(order.schedule, zone=ZoneInfo(DST_ZONE))
            order = structs.replace(order, schedule=zoned)
        return Bedside(
            regimen=self.patient.regimen,
            from_ms=self.from_ms,
            until_ms=self.until_ms,
            poll_ms=poll_ms,
            faults=tuple(self.faults),
            machine=self.machine,
            link=link,
            seed=seed,
            order=order,
        )


@cache
def patient_of(regimen: str) -> Patient:
    return Patient(regimen)


@cache
def doses_of(regimen: str, from_ms: int, until_ms: int) -> tuple[tuple[int, int], ...]:
    """From when to when the pump delivers in this time if nothing happens."""
    return tuple(_delivers(Bedside(regimen=regimen, until_ms=until_ms).pump(), from_ms, until_ms))


def _delivers(pump: Pump, from_ms: int, until_ms: int) -> Iterator[tuple[int, int]]:
    """From when to when the pump delivers, to half a minute."""
    times_ms = np.arange(from_ms, until_ms, GRID_MS)
    states = pump.columns_at(times_ms + LEAD_MS).state
    since_ms: int | None = None
    for at_ms, state in zip(times_ms.tolist(), states, strict=True):
        if state in ("running", "bolus") and since_ms is None:
            since_ms = at_ms
        if state not in ("running", "bolus") and since_ms is not None:
            yield since_ms, at_ms
            since_ms = None
    if since_ms is not None:
        yield since_ms, until_ms


def quiet_day(regimen: str, chance: random.Random) -> Day:
    """A day of a regimen, anywhere in its course."""
    patient = patient_of(regimen)
    times = patient.order.schedule.times
    whole_ms = (patient.every_ms or 0) * (times - 1) + patient.length_ms
    first = chance.randrange(max(1, whole_ms // DAY))
    from_ms = first * DAY - (LEAD_MS if first == 0 else H)
    day = Day(
        patient=patient,
        from_ms=from_ms,
        until_ms=from_ms + DAY,
        doses=doses_of(regimen, from_ms, from_ms + DAY),
    )
    if patient.order.demand is not None:
        begin_ms = max(from_ms, 0) + chance.uniform(5, 60) * MIN
        day.faults.append(patient.fault("presses", begin_ms, None, chance.uniform(0.3, 1.5)))
    day.machine["calibration_percent"] = 100 * patient.order.pump.accuracy * chance.uniform(-1, 1)
    return day


def messy_day(seed: int, number: int) -> Day:
    """The day with this number: always the same for the same seed."""
    chance = random.Random(f"{seed} day {number}")
    day = quiet_day(chance.choice(regimen_names()), chance)
    if chance.random() >= CLEAN_SHARE:
        # who switches a pump off does so after all else
        for make in sorted(
            chance.sample(ROWS, k=chance.choice((1, 1, 2, 3))), key=lambda make: make is off_between_doses
        ):
            before = len(day.faults), len(day.links), len(day.machine)
            make(day, chance)
            if (len(day.faults), len(day.links), len(day.machine)) != before or day.zone_start:
                day.rows.append(make.__name__)
    return day


# --- what happens ----------------------------------------------------------------------------------------


def _gaps(day: Day) -> Iterator[tuple[int, int]]:
    """Between doses, and before the first and after the last of the day."""
    edges = [(day.from_ms, day.from_ms), *day.doses, (day.until_ms, day.until_ms)]
    for (_, end_ms), (begin_ms, _) in pairwise(edges):
        if begin_ms - end_ms > 30 * MIN:
            yield end_ms, begin_ms


def _a_dose(day: Day, chance: random.Random, least_ms: int) -> tuple[int, int] | None:
    """One that lasts at least so long."""
    long_enough = [dose for dose in day.doses if dose[1] - dose[0] >= least_ms]
    return chance.choice(long_enough) if long_enough else None


def _a_beginning(day: Day, chance: random.Random) -> int | None:
    """When a dose is due that does not follow another without a gap."""
    every_ms = day.patient.every_ms
    if day.patient.gapless:
        return None
    number = 0 if every_ms is None else max(0, round((day.from_ms + DAY / 2) / every_ms))
    dues_ms = [(every_ms or 0) * one for one in range(number + 2) if one < day.patient.order.schedule.times]
    dues_ms = [due for due in dues_ms if day.from_ms + 15 * MIN < due < day.until_ms - 6 * H]
    return chance.choice(dues_ms) if dues_ms else None


def off_between_doses(day: Day, chance: random.Random) -> None:
    order = day.patient.order
    if order.schedule.between_ml_h or order.limits.kvo_ml_h:
        return
    day.doses = tuple(_delivers(day.bedside(None, 1).pump(), day.from_ms, day.until_ms))
    every_ms = day.patient.every_ms or 0
    for end_ms, begin_ms in _gaps(day):
        day.links.append(silence(end_ms + 10 * MIN, begin_ms - 10 * MIN))
        for number in range(order.schedule.times):
            if end_ms < number * every_ms < begin_ms - 10 * MIN:
                day.calls_for(number * every_ms, begin_ms, Kind.NO_DATA)  # it is due, and the pump is off


def cable_left_at_home(day: Day, chance: random.Random) -> None:
    dose = _a_dose(day, chance, H)
    if dose is None:
        return
    begin_ms = chance.randrange(dose[0] + 10 * MIN, dose[1] - 10 * MIN)
    until_ms = min(begin_ms + round(chance.uniform(1, 6) * H), day.until_ms - 30 * MIN)
    if not day.is_free(begin_ms, until_ms):
        return
    day.links.append(silence(begin_ms, until_ms))
    day.busy.append((begin_ms - 5 * MIN, until_ms + 5 * MIN))
    day.calls_for(begin_ms, until_ms, Kind.NO_DATA)


def line_changed_before_a_dose(day: Day, chance: random.Random) -> None:
    begin_ms = _a_beginning(day, chance)
    if begin_ms is None:
        return
    bag = day.patient.order.bag
    assert bag is not None
    day.happens("door_open", begin_ms - 10 * MIN, 30 * S)
    day.happens("primed", begin_ms - 9 * MIN, 40 * S, min(300.0, 0.01 * bag.volume_ml * H / (40 * S)))
    day.happens("air_in_line", begin_ms - 7 * MIN, 30 * S)
    day.happens("bag_change", begin_ms - 11 * MIN, 6 * MIN)
    day.calls_for(begin_ms - 10 * MIN, begin_ms, Kind.PUMP_ALARM)


def line_changed_in_a_dose(day: Day, chance: random.Random) -> None:
    dose = _a_dose(day, chance, H)
    if dose is None:
        return
    at_ms = chance.randrange(dose[0] + 10 * MIN, dose[1] - 20 * MIN)
    lasts_ms = min(3 * MIN, day.patient.order.limits.max_pause_ms - 20 * S)
    if not day.is_free(at_ms, at_ms + lasts_ms):
        return
    day.happens("bag_change", at_ms, lasts_ms)
    day.happens("door_open", at_ms + 15 * S, 25 * S)
    day.happens("primed", at_ms + lasts_ms / 2, 45 * S, 30.0)
    day.calls_for(at_ms, at_ms + lasts_ms, Kind.PUMP_ALARM)


def hung_late(day: Day, chance: random.Random) -> None:
    _late(day, chance, 40 * MIN)


def given_hours_late(day: Day, chance: random.Random) -> None:
    if day.patient.regimen != "ho1":  # pulses that fell due meanwhile would all come at once
        _late(day, chance, 5 * H)


def _late(day: Day, chance: random.Random, late_ms: int) -> None:
    due_ms = _a_beginning(day, chance)
    if due_ms is None:
        return
    patient = day.patient
    limits = patient.order.limits
    begun_ms = due_ms + late_ms
    day.happens("late_start", due_ms - S, late_ms + S)
    if late_ms > limits.start_window_ms - 5 * MIN:
        day.calls_for(due_ms, begun_ms, Kind.NOT_STARTED)
    # the dose, and perhaps the next, is not taken for what it is
    day.busy.append((due_ms, begun_ms + 2 * patient.length_ms + (patient.every_ms or 0)))
    latest_ms = limits.give_within_ms
    if patient.every_ms is not None:
        latest_ms = min(latest_ms, patient.every_ms - limits.start_window_ms)
        if patient.every_ms - late_ms < limits.min_interval_ms + 5 * MIN:
            day.calls_for(begun_ms, due_ms + patient.every_ms, Kind.DOSE_TOO_SOON)
        if begun_ms + patient.length_ms > due_ms + patient.every_ms + limits.start_window_ms:
            day.calls_for(due_ms + patient.every_ms, begun_ms + patient.length_ms, Kind.NOT_STARTED)
    if late_ms > latest_ms - 5 * MIN:
        lasting_ms = begun_ms + patient.length_ms
        day.calls_for(due_ms, lasting_ms, Kind.DOSE_MISSED, Kind.UNSCHEDULED_DELIVERY)


def slowed_for_a_reaction(day: Day, chance: random.Random) -> None:
    patient = day.patient
    if patient.order.schedule.therapy != "step-up":
        return
    dose = _a_dose(day, chance, H)
    if dose is None:
        return
    lasts_ms = 20 * MIN
    at_ms = chance.randrange(dose[0] + 5 * MIN, dose[1] - 25 * MIN)
    if not day.is_free(at_ms, at_ms + lasts_ms):
        return
    day.happens("wrong_rate", at_ms, lasts_ms, 0.5)
    day.calls_for(at_ms, at_ms + lasts_ms, Kind.WRONG_RATE)
    # the volume that was not given comes at the end
    day.calls_for(dose[1], dose[1] + lasts_ms, Kind.NOT_ENDED)


def bag_runs_to_empty(day: Day, chance: random.Random) -> None:
    patient = day.patient
    if patient.every_ms is not None or patient.order.urgency is Urgency.VITAL or patient.order.volume_ml < 20:
        return
    day.machine["bag_ml"] = patient.order.volume_ml - chance.choice((0.0, 1.0))
    day.busy.append((patient.length_ms * 0.9, patient.length_ms * 1.1))


def pump_at_the_edge_of_its_accuracy(day: Day, chance: random.Random) -> None:
    accuracy_percent = 100 * day.patient.order.pump.accuracy
    day.machine["calibration_percent"] = chance.choice((-accuracy_percent, accuracy_percent))
    day.machine["occlusion_alarm_mmhg"] = 500.0


def ten_short_pauses(day: Day, chance: random.Random) -> None:
    dose = _a_dose(day, chance, 3 * H)
    if dose is None:
        return
    limits = day.patient.order.limits
    apart_ms = min(H, (dose[1] - dose[0]) // 11)
    if not day.is_free(dose[0], dose[0] + 11 * apart_ms):
        return
    for number in range(1, 11):
        day.happens("paused", dose[0] + number * apart_ms, 4 * MIN)
    if limits.max_pause_ms < 5 * MIN:
        kinds = (Kind.PAUSED_TOO_LONG, Kind.REPEATED_INTERRUPTION)
        day.calls_for(dose[0], dose[0] + 11 * apart_ms, *kinds)
    elif limits.max_total_pause_ms is not None and limits.max_total_pause_ms < 41 * MIN:
        day.calls_for(dose[0], dose[0] + 11 * apart_ms, Kind.PAUSED_TOO_LONG)


def lies_on_the_line(day: Day, chance: random.Random) -> None:
    for _ in range(chance.randrange(2, 6)):
        at_ms = chance.randrange(day.from_ms + MIN, day.until_ms - 5 * MIN)
        day.happens("pressed_line", at_ms, chance.uniform(40, 75) * S, chance.uniform(25, 50))


def presses_through_the_lockout(day: Day, chance: random.Random) -> None:
    if day.patient.order.demand is None:
        return
    at_ms = chance.randrange(day.from_ms + 2 * H, day.until_ms - 6 * H)
    day.happens("presses", at_ms, chance.uniform(20, 40) * MIN, 30.0)
    day.calls_for(at_ms, at_ms + H, Kind.DEMAND_PATTERN)


def nurse_looks_after_the_pump(day: Day, chance: random.Random) -> None:
    dose = _a_dose(day, chance, 2 * H)
    if dose is None:
        return
    at_ms = chance.randrange(dose[0] + 20 * MIN, dose[1] - 40 * MIN)
    lasts_ms = chance.uniform(5, 9) * MIN
    if not day.is_free(at_ms, at_ms + lasts_ms):
        return
    day.happens("paused", at_ms, lasts_ms)
    day.happens("counter_reset", at_ms + lasts_ms / 2, S)
    if lasts_ms > day.patient.order.limits.max_pause_ms - MIN:
        day.calls_for(at_ms, at_ms + lasts_ms, Kind.PAUSED_TOO_LONG)


def answers_are_lost(day: Day, chance: random.Random) -> None:
    day.links.append(lost(chance.uniform(0.01, 0.05), chance.randrange(1000)))


def the_gateway_s_clock_is_set(day: Day, chance: random.Random) -> None:
    at_ms = chance.randrange(day.from_ms + H, day.until_ms - H)
    day.links.append(clock_set(at_ms, chance.choice((-10, -1, 1, 60)) * MIN))


DST_ZONE = "Europe/Berlin"
DAY_BEFORE_WINTER = "2026-10-24T09:00:00+02:00"
DAY_BEFORE_WINTER_UTC_MS = 1_792_825_200_000


def clocks_change_to_winter(day: Day, chance: random.Random) -> None:
    """People keep to the local clock: what is due each day at nine is due after 25 hours."""
    patient = day.patient
    if patient.every_ms != DAY or patient.gapless or day.from_ms > 0:
        return
    day.zone_start = DAY_BEFORE_WINTER
    day.until_ms += 4 * H
    day.happens("late_start", DAY - MIN, H + MIN)
    day.links.append(moved(DAY_BEFORE_WINTER_UTC_MS - START_UTC_MS))


ROWS: tuple[Callable[[Day, random.Random], None], ...] = (
    off_between_doses,
    cable_left_at_home,
    line_changed_before_a_dose,
    line_changed_in_a_dose,
    hung_late,
    given_hours_late,
    slowed_for_a_reaction,
    bag_runs_to_empty,
    pump_at_the_edge_of_its_accuracy,
    ten_short_pauses,
    lies_on_the_line,
    presses_through_the_lockout,
    nurse_looks_after_the_pump,
    answers_are_lost,
    the_gateway_s_clock_is_set,
    clocks_change_to_winter,
)


# --- true faults -----------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Injected:
    """A true fault on a day: what it may be told as, from when and by when."""

    name: str
    kinds: frozenset[Kind]
    at_ms: int
    by_ms: float


def _true_faults(patient: Patient, poll_ms: int) -> dict[str, tuple[str, float, frozenset[Kind], float]]:
    """By name: kind of mishap, strength, what it may be told as, and how soon it must be, in ms."""
    tolerance = patient.order.limits.tolerance
    accuracy = patient.order.pump.accuracy
    least_flow = 0.5 * (1 + accuracy)
    wrong = frozenset({Kind.WRONG_RATE, Kind.LIMIT_EXCEEDED})
    fact_ms = patient.fact_ms(poll_ms)
    return {
        "motor stalls": ("stopped", 1.0, UNDER, patient.volume_ms(1 - tolerance, poll_ms)),
        "half is lost": (
            "under_delivery",
            0.5,
            UNDER,
            patient.volume_ms(1 - tolerance - least_flow, poll_ms),
        ),
        "twice as much": (
            "over_delivery",
            1.0,
            OVER | {Kind.LIMIT_EXCEEDED},
            patient.volume_ms(2 * (1 - accuracy) - 1 - tolerance, poll_ms),
        ),
        "ten times the rate": ("wrong_rate", 10.0, wrong, fact_ms),
        "a tenth of the rate": ("wrong_rate", 0.1, wrong, fact_ms),
        "paused and forgotten": (
            "paused",
            1.0,
            # without a gap, and with its volume in, what is paused is the next dose
            frozenset({Kind.PAUSED_TOO_LONG, Kind.NOT_STARTED}),
            patient.order.limits.max_pause_ms + patient.timed_out_ms(poll_ms),
        ),
        "bag empty": ("bag_empty", 1.0, frozenset({Kind.BAG_EMPTY}), fact_ms),
        "door open": ("door_open", 1.0, frozenset({Kind.PUMP_ALARM}), fact_ms),
    }


def with_a_true_fault(day: Day, poll_ms: int, chance: random.Random) -> Injected | None:
    """Put one into the day, where the pump runs in its longest constant phase and nothing else happens.

    ``None`` where there is no such place.
    """
    patient = day.patient
    pump = replace(day.bedside(poll_ms, 1), link=None).pump()
    name = chance.choice(sorted(faults := _true_faults(patient, poll_ms)))
    kind, strength, kinds, within_ms = faults[name]
    needed_ms = round(within_ms + 2 * poll_ms)
    # with its volume in, a dose that stops has ended, whatever stops it
    order = patient.order
    still_to_come_ml = (order.limits.tolerance + order.pump.accuracy + 0.05) * order.volume_ml
    places = [
        at_ms
        for begin_ms, end_ms in day.doses
        for at_ms in range(begin_ms + 5 * MIN, end_ms - needed_ms, 10 * MIN)
        if day.is_free(at_ms, at_ms + needed_ms)
    ]
    chance.shuffle(places)
    for at_ms in places[:20]:
        truths = [pump.truth_at(at_ms + LEAD_MS + part * needed_ms // 4) for part in range(5)]
        steady = all(t.state == "running" and abs(t.rate_ml_h - patient.rate_ml_h) < 1e-9 for t in truths)
        if steady and truths[-1].vtbi_ml > still_to_come_ml:
            day.faults.append(patient.fault(kind, at_ms, None, strength))
            day.until_ms = min(day.until_ms, round(at_ms + within_ms + MIN))
            return Injected(name=name, kinds=kinds, at_ms=at_ms, by_ms=at_ms + within_ms)
    return None
