"""What happens to one home, drawn from a seed: whose pumps, what they do, and a timetable of mishaps.

The faults fall into a first phase; then they stop, and what is owed can be asked. What may be told of a pump
is known from what was drawn (``Drawn.may_tell``): all else that is told is false.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, field, replace
from pathlib import Path

from msgspec import structs

from alerts import wire
from alerts.condition import Kind
from benchmarks import home_life
from benchmarks.home_life import AFTERMATH_MS, Day, doses_of, patient_of, with_a_true_fault
from drivers.reading import PumpAlarm
from gateway.core.order import parse_order
from simulator.faults import Fault, Mishaps
from simulator.scenario import prescription_starting, regimen_names
from tests.regimens.bedside import LEAD_MS
from tests.regimens.cells import DAY, MIN, H, Patient, S
from tests.world.faults import POWER, WIRE, Mishap, draw_mishaps, happen
from tests.world.names import BEGINNING_UTC_MS
from tests.world.nurse import Nurse
from tests.world.promises import Deviation
from tests.world.world import Bed, World

WEEK = 7 * DAY
SLOWEST_POLL_MS = 120 * S
QUICK_POLL_MS = 60 * S
"""Pumps that are read more often are drawn seldom: a day of them takes two to five times as long."""
QUICK_AGAIN_SHARE = 0.85
"""In the place of so many of them another is drawn."""
EVERY_DAY = (
    home_life.hung_late,
    home_life.bag_runs_to_empty,
    home_life.pump_at_the_edge_of_its_accuracy,
    home_life.ten_short_pauses,
    home_life.lies_on_the_line,
    home_life.nurse_looks_after_the_pump,
)
"""What happens in homes and is no fault.

No change of the line is among them: the family drawn here has no word for priming, and says that it delivers.
"""
NOT_DRAWN = ("pc",)
"""Demand is seen in what the family drawn here does not say."""

NAMELESS = frozenset({"slow", "noisy_line", "lossy_line"})
"""On such a wire a pump can be heard twice, and each time not be heard to name its alarm."""
_NAMED_AGAIN_MS = 10 * S
"""So long after it what was asked meanwhile has been answered, or given up."""
LEAST_SHOWN_ML_H = 0.005
"""The family drawn here shows a rate with two decimals. At less it says 0.00 mL/h, as one that stands."""


@dataclass
class Drawn:
    """One seed's story."""

    seed: int
    length_ms: int
    faults_stop_ms: int
    begins_unset: bool
    """A first boot without a clock: in 1970, and set an hour later."""
    beds: list[Bed] = field(default_factory=list)
    days: dict[str, Day] = field(default_factory=dict)
    """By pump."""
    mishaps: list[Mishap] = field(default_factory=list)
    deviations: list[Deviation] = field(default_factory=list)
    anything_from_ms: dict[str, int] = field(default_factory=dict)
    """From when on a pump is so wrong that anything may be told of it."""

    def world(self, folder: Path) -> World:
        """This story, ready to begin."""
        world = World(folder, self.beds, seed=self.seed, fast=True)
        world.broker.delivered = None
        world.promises.truth = lambda kind, pump, now_ms: self.may_tell(world, kind, pump, now_ms)
        world.promises.deviations = self.deviations
        if self.begins_unset:
            world.home.clock_is(error_ms=-BEGINNING_UTC_MS, is_set=False)
            world.at(H, lambda: world.home.clock_is(error_ms=0, is_set=True))
        world.home.power_on()
        for mishap in self.mishaps:
            happen(world, mishap)
        Nurse(world, self.length_ms)
        world.at(self.faults_stop_ms, world.broker.kill_session)
        return world

    def may_tell(self, world: World, kind: Kind, pump: str, now_ms: int) -> bool:
        """Whether what is true now can be called so."""
        home = world.home
        if kind is Kind.MONITORING_INTERRUPTED:
            return bool(home.cuts) and now_ms - home.started_ms <= MIN
        if kind is Kind.STORAGE_FAILING:
            return home.card_refuses or 0 <= now_ms - world.card_was_bad_ms <= MIN
        if kind is Kind.OVERLOADED:
            return home.losses > 0
        if pump not in self.days:
            return False
        if now_ms >= self.anything_from_ms.get(pump, self.length_ms):
            return True
        day = self.days[pump]
        alarms = world.devices[pump].pump.truth_at(now_ms).alarms
        if kind is Kind.BAG_EMPTY and PumpAlarm.EMPTY in alarms and self.begins_unset and now_ms < H:
            # Alarms are judged, and without a date nobody knows of a dose whose volume could be in.
            return True
        if kind is Kind.PUMP_ALARM and alarms:
            # That there is an alarm is heard, and the answer that names it is not.
            until_ms = now_ms - _NAMED_AGAIN_MS
            if any(
                one.pump == pump and one.kind in NAMELESS and one.at_ms <= now_ms and one.until_ms >= until_ms
                for one in self.mishaps
            ):
                return True
        if kind in (Kind.NO_DATA, Kind.GARBLED_LINK):
            # While the gateway is off nothing is heard either: prescription page, section 2, "Silence".
            after_ms = day.patient.order.limits.no_data_after_ms + 2 * MIN
            silent = POWER if kind is Kind.NO_DATA else frozenset()
            if any(
                one.at_ms <= now_ms <= one.until_ms + after_ms
                for one in self.mishaps
                if (one.pump == pump and one.kind in WIRE) or one.kind in silent
            ):
                return True
        if kind is Kind.BAG_EMPTY_SOON and _label_is_used_up(day, now_ms):
            return True
        return any(
            kind in call.kinds and call.from_ms <= now_ms - LEAD_MS <= call.until_ms + AFTERMATH_MS
            for call in day.called
        )


def draw(seed: int, hours: float | None = None) -> Drawn:
    """The story of a seed: a day, every tenth a week; or so many ``hours`` with the faults of a day."""
    chance = random.Random(f"{seed} story")
    length_ms = WEEK if seed % 10 == 0 else DAY
    if hours is not None:
        length_ms = round(hours * H)
    drawn = Drawn(
        seed=seed,
        length_ms=length_ms,
        faults_stop_ms=round(length_ms * chance.uniform(0.6, 0.85)),
        begins_unset=chance.random() < 0.25,
    )
    for number in range(1 if chance.random() < 0.75 else 2):
        _draw_bed(drawn, f"p{number + 1}", chance)
    drawn.mishaps = draw_mishaps(
        [bed.pump for bed in drawn.beds], drawn.faults_stop_ms, chance, days=max(1.0, length_ms / DAY)
    )
    drawn.mishaps = [mishap for mishap in drawn.mishaps if not _blinds(drawn, mishap)]
    if drawn.begins_unset:
        # Once it is set it is right: the schedule is anchored then.
        drawn.mishaps = [one for one in drawn.mishaps if one.kind != "clock_stepped"]
    drawn.beds = [_on_its_wire(bed, drawn.mishaps) for bed in drawn.beds]
    return drawn


def _blinds(drawn: Drawn, mishap: Mishap) -> bool:
    """Whether a pump is not seen through this while something happens to it.

    What it is told as is only known where somebody watches it from its beginning.
    """
    if mishap.kind not in POWER | WIRE:
        return False
    busy_ms = [(one.pump, one.at_ms - 10 * MIN, one.by_ms + MIN) for one in drawn.deviations]
    for pump, day in drawn.days.items():
        busy_ms += [(pump, begin + LEAD_MS - 10 * MIN, end + LEAD_MS + 30 * MIN) for begin, end in day.busy]
        if mishap.pump in ("", pump) and _hides_a_dose(day, mishap):
            return True
    return any(
        (not mishap.pump or mishap.pump == pump) and mishap.at_ms <= end_ms and mishap.until_ms >= begin_ms
        for pump, begin_ms, end_ms in busy_ms
    )


def _label_is_used_up(day: Day, now_ms: int) -> bool:
    """Whether what is written on a bag that is for many doses is used up: it holds more, and nobody knows."""
    machine, order = day.patient.story.machine, day.patient.order
    if machine.bag_ml is None or order.bag is None:
        return False
    true_share = 1 + float(str(day.machine["calibration_percent"])) / 100
    in_a_bag = max(1, int(machine.bag_ml / (order.volume_ml * true_share)))
    begun = sum(begin_ms + LEAD_MS <= now_ms for begin_ms, _ in day.doses)
    from_this_bag = (begun - 1) % in_a_bag + 1
    return in_a_bag > 1 and from_this_bag * order.volume_ml * true_share >= order.bag.volume_ml * 0.98


def _hides_a_dose(day: Day, mishap: Mishap) -> bool:
    """Whether a dose begins in this with a new bag, and counts to where the last one had ended.

    The counter stands afterwards where it stood before: nobody can know that anything was given.
    """
    story = day.patient.story
    if story.machine.bag_ml is None or story.machine.bag_ml >= 2 * story.program.vtbi_ml:
        return False
    return any(
        mishap.at_ms <= begin_ms + LEAD_MS
        and mishap.until_ms >= begin_ms + LEAD_MS + 0.8 * (end_ms - begin_ms)
        for begin_ms, end_ms in day.doses[1:]
    )


def _poll_ms(patient: Patient) -> int:
    """As seldom as the therapy bears it: a day of this world costs what it is read."""
    limits = patient.order.limits
    slowest_ms = min(SLOWEST_POLL_MS, patient.length_ms // 60, limits.no_data_after_ms // 4)
    return max(patient.poll_ms, slowest_ms // S * S)


def _draw_bed(drawn: Drawn, pump: str, chance: random.Random) -> None:
    names = [name for name in regimen_names() if not name.startswith(NOT_DRAWN)]
    patient = patient_of(chance.choice(names))
    while _poll_ms(patient) < QUICK_POLL_MS and chance.random() < QUICK_AGAIN_SHARE:
        patient = patient_of(chance.choice(names))
    poll_ms = _poll_ms(patient)
    from_ms, until_ms = -LEAD_MS, drawn.length_ms - LEAD_MS
    day = Day(
        patient=patient,
        from_ms=from_ms,
        until_ms=until_ms,
        doses=doses_of(patient.regimen, from_ms, until_ms),
    )
    day.machine["calibration_percent"] = 100 * patient.order.pump.accuracy * chance.uniform(-0.9, 0.9)
    if chance.random() < 0.4:
        chance.choice(EVERY_DAY)(day, chance)
    if chance.random() < 0.6:
        injected = with_a_true_fault(day, poll_ms, chance)
        day.until_ms = until_ms
        if injected is not None:
            begins_ms = injected.at_ms + LEAD_MS
            by_ms = round(injected.by_ms) + LEAD_MS
            ends_ms = round(injected.by_ms + chance.uniform(0.1, 4) * H)
            day.faults[-1] = structs.replace(day.faults[-1], until_ms=ends_ms)
            drawn.anything_from_ms[pump] = begins_ms
        if injected is not None and not (drawn.begins_unset and begins_ms < H + 10 * MIN):
            # Without a date nobody knows what is due.
            fault = day.faults[-1]
            kinds = injected.kinds
            if fault.kind == "wrong_rate" and patient.rate_ml_h * fault.strength < LEAST_SHOWN_ML_H:
                kinds = frozenset({Kind.STOPPED_EARLY})
            drawn.deviations.append(
                Deviation(pump=pump, words=injected.name, kinds=kinds, at_ms=begins_ms, by_ms=by_ms)
            )
    start = wire.iso_utc(BEGINNING_UTC_MS + LEAD_MS).replace("Z", "+00:00")
    text = prescription_starting(patient.story.prescription_text, start)
    text = re.sub(r"^poll = .*$", f'poll = "{poll_ms // S}s"', text, flags=re.MULTILINE)
    drawn.days[pump] = day
    drawn.beds.append(
        Bed(
            pump=pump,
            scenario=day.bedside(poll_ms, drawn.seed).scenario(),
            order=parse_order(text),
            order_text=text,
            poll_ms=poll_ms,
        )
    )


def _on_its_wire(bed: Bed, mishaps: list[Mishap]) -> Bed:
    """What happens on the way from the pump belongs to the device."""
    on_wire = tuple(
        Fault(kind=one.kind, at_ms=one.at_ms, until_ms=one.until_ms, strength=one.strength)
        for one in mishaps
        if one.pump == bed.pump and one.kind in WIRE
    )
    scenario = bed.scenario
    both = Mishaps((*scenario.mishaps.faults, *(one for one in on_wire if one.kind != "unplugged")))
    return replace(bed, scenario=structs.replace(scenario, mishaps=both))
