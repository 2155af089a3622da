"""Regimen by fault: what is done to the pump, what may be told of it, and until when it must be.

A cell says which kinds may report its fault and the latest time at which one of them must have done so. What
is told beside them is false. Where the dose is over before the worst-phase bound of the test has passed, or
the shift lies within the tolerance, the cell says so: then nothing need be told, and nothing else may be.

The rules for the latest time: volume faults 1.5 x the worst-phase bound + two polls + 10 s; what one reading
shows 1.5 polls + the longer of 30 s and 4 polls (keep-vein-open and line faults 30 s more); an occlusion, by
pressure, the time for 90 mmHg + 60 s, or the pump's alarm if that is earlier; time-outs at their time + two
polls + 10 s.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

from msgspec import structs

from alerts.condition import Kind
from gateway.core.delivery import REFERENCES
from gateway.core.prescription import Prescription
from simulator.faults import Fault
from simulator.scenario import prescription_starting, regimen_names
from simulator.therapy import Leg, Program
from tests.gateway.core.bound import the_bound_s
from tests.regimens.bedside import (
    GAUGE,
    LEAD_MS,
    START,
    Bedside,
    burst_after,
    clock_drifts,
    clock_set,
    counted,
    course_of,
    lost,
    ordered,
    restarted,
    silence,
    story_of,
)

S, MIN, H, DAY = 1_000, 60_000, 3_600_000, 86_400_000

UNDER = frozenset({Kind.UNDER_INFUSION, Kind.NO_DELIVERY})
OVER = frozenset({Kind.OVER_INFUSION})
BOLUS = frozenset(
    {Kind.BOLUS_IN_LOCKOUT, Kind.BOLUS_LIMIT_EXCEEDED, Kind.PROGRAM_CHANGED, Kind.DEMAND_PATTERN}
)


@dataclass(frozen=True, kw_only=True)
class Due:
    """One of these kinds must have been told by then, and none of them before."""

    kinds: frozenset[Kind]
    from_ms: float
    by_ms: float
    code: str | None = None


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One regimen with one fault."""

    code: str
    """As in the catalogue of faults: F01 to F34."""
    label: str
    bedside: Bedside
    due: tuple[Due, ...] = ()
    also: frozenset[Kind] = frozenset()
    """What may be told besides, being true as well."""
    undecidable: str = ""
    """Why nothing need be told; empty: all of ``due`` must be."""
    regimen: str = ""
    """Whose order is watched, where it is not that of the pump."""

    @property
    def name(self) -> str:
        return f"{self.regimen or self.bedside.regimen}-{self.code}-{self.label}"


class Patient:
    """A regimen with the times and deadlines that the cells are made of. Times: ms after the dose is due."""

    def __init__(self, regimen: str) -> None:
        self.regimen = regimen
        self.order: Prescription = ordered(regimen)
        self.course = course_of(regimen)
        self.story = story_of(regimen)
        self.length_ms = self.order.length_ms
        self.poll_ms = self.order.pump.poll_ms
        begin_ms, phase = self._longest_flat()
        self.phase_begin_ms = begin_ms
        self.t0_ms = begin_ms + max(
            min(phase.duration_ms // 4, 30 * MIN), min(phase.duration_ms // 4, 15 * S)
        )
        """When most faults begin: a while into the longest constant phase."""
        self.phase_end_ms = begin_ms + phase.duration_ms
        self.rate_ml_h = phase.from_ml_h
        self.every_ms = self.order.schedule.every_ms
        self.gapless = self.every_ms is not None and self.every_ms <= self.length_ms

    def _longest_flat(self) -> tuple[int, Leg]:
        begin_ms, best = 0, (0, self.story.program.legs[0])
        length_ms = -1
        for leg in self.story.program.legs:
            if leg.from_ml_h == leg.to_ml_h and leg.duration_ms > length_ms:
                best, length_ms = (begin_ms, leg), leg.duration_ms
            begin_ms += leg.duration_ms
        return best

    def slow_poll_ms(self) -> int:
        """For stories of hours, in which no volume is timed."""
        slowest_ms = min(20 * S, self.order.limits.no_data_after_ms // 4)
        return max(self.poll_ms, min(slowest_ms, self.length_ms // 60))

    def fact_ms(self, poll_ms: int | None = None) -> float:
        poll_ms = poll_ms or self.poll_ms
        return 1.5 * poll_ms + max(30 * S, 4 * poll_ms)

    def timed_out_ms(self, poll_ms: int | None = None) -> float:
        return 2 * (poll_ms or self.poll_ms) + 10 * S

    def calibration(self) -> float:
        return self.story.machine.calibration_percent / 100

    def beyond(self, factor: float) -> float:
        """How far a flow of ``factor`` times the pump's lies beyond the tolerance, as a fraction."""
        flow = factor * (1 + self.calibration())
        return abs(flow - 1) - self.order.limits.tolerance

    def bound_ms(self, beyond: float, poll_ms: int | None = None) -> float:
        pump = self.order.pump
        poll_s = (poll_ms or self.poll_ms) / 1000
        return 1000 * the_bound_s(
            self.rate_ml_h, beyond, pump.counter_ml, pump.stroke_ml, pump.ripple_ml, poll_s
        )

    def volume_ms(self, beyond: float, poll_ms: int | None = None) -> float:
        return 1.5 * self.bound_ms(beyond, poll_ms) + self.timed_out_ms(poll_ms)

    def left_ms(self) -> int:
        """From the fault to the end of the constant phase."""
        return self.phase_end_ms - self.t0_ms

    def passes_limit(self, rate_ml_h: float) -> frozenset[Kind]:
        most_ml_h = self.order.limits.max_rate_ml_h
        passed = most_ml_h is not None and rate_ml_h > most_ml_h
        per_day_ml = self.order.limits.max_volume_ml
        passed = passed or (per_day_ml is not None and rate_ml_h * 24 > per_day_ml)
        return frozenset({Kind.LIMIT_EXCEEDED}) if passed else frozenset()

    def broken_off(self, until_ms: float) -> frozenset[Kind]:
        """What a dose of which too little was counted is, if it is over by then."""
        over = until_ms + MIN > self.length_ms
        return frozenset({Kind.STOPPED_EARLY}) if over else frozenset()

    def fault(
        self, kind: str, at_ms: float | None = None, lasts_ms: float | None = None, strength: float = 1.0
    ) -> Fault:
        at_ms = self.t0_ms if at_ms is None else at_ms
        until_ms = None if lasts_ms is None else round(at_ms + lasts_ms)
        return Fault(kind=kind, at_ms=round(at_ms), until_ms=until_ms, strength=strength)

    def bedside(self, until_ms: float, *faults: Fault, **rest: object) -> Bedside:
        return Bedside(regimen=self.regimen, until_ms=round(until_ms), faults=faults, **rest)  # type: ignore[arg-type]

    def before(self, at_ms: float) -> int:
        """From when on to read, where a story late in a long dose is told: the dose is then joined."""
        return round(max(-LEAD_MS, at_ms - 20 * MIN))


Row = Callable[[Patient], Iterator[Cell]]
ROWS: dict[str, tuple[Row, Callable[[str], bool]]] = {}


def row(code: str, *beginnings: str) -> Callable[[Row], Row]:
    """One fault of the catalogue, and the regimens to which it applies: all if none is named."""

    def take(make: Row) -> Row:
        ROWS[code] = (make, lambda name: not beginnings or name.startswith(beginnings))
        return make

    return take


@cache
def cells() -> tuple[Cell, ...]:
    return tuple(
        cell
        for code, (make, applies) in ROWS.items()
        for name in regimen_names()
        if applies(name)
        for cell in make(Patient(name))
    )


# --- programmed wrongly ----------------------------------------------------------------------------------


def _wrong_rate(patient: Patient, code: str, label: str, factor: float) -> Cell:
    by_ms = patient.fact_ms()
    first = patient.order.schedule.phases[0]
    highest_ml_h = max(max(phase.from_ml_h, phase.to_ml_h) for phase in patient.order.schedule.phases)
    if first.is_ramp:
        # a straight line times a factor leaves the straight line within 0.1 mL/h and two polls on either side
        slope_ml_h_ms = first.to_ml_h / first.duration_ms
        apart = abs(factor - 1) - 0.1 * max(1.0, factor)
        by_ms += (0.1 + 2 * patient.poll_ms * slope_ml_h_ms * 2) / (apart * slope_ml_h_ms)
    runs_ms = patient.order.volume_ml / (max(first.to_ml_h, first.from_ml_h) * factor) * H
    over = runs_ms < 3 * patient.poll_ms
    return Cell(
        code=code,
        label=label,
        bedside=patient.bedside(by_ms + 60 * S, patient.fault("wrong_rate", -S, strength=factor)),
        due=(Due(kinds=frozenset({Kind.WRONG_RATE}), from_ms=0, by_ms=by_ms),),
        also=patient.passes_limit(highest_ml_h * factor),
        undecidable="all is in before two readings have shown the rate" if over else "",
    )


@row("F01", "ch", "im", "he2")
def a_day_s_volume_as_an_hour_s(patient: Patient) -> Iterator[Cell]:
    yield _wrong_rate(patient, "F01", "x24", 24.0)


@row("F02")
def a_decimal_point(patient: Patient) -> Iterator[Cell]:
    for label, factor in (("x10", 10.0), ("by_10", 0.1), ("x11", 11.0)):
        yield _wrong_rate(patient, "F02", label, factor)


@row("F03", "in", "pc", "er2")
def a_unit_of_dose_for_one_of_volume(patient: Patient) -> Iterator[Cell]:
    concentration = patient.order.concentration_per_ml
    if concentration is not None:
        yield _wrong_rate(patient, "F03", "x_concentration", concentration)
    weight_kg = patient.order.weight_kg
    if weight_kg is not None:
        yield _wrong_rate(patient, "F03", "without_weight", 1 / weight_kg)


@row("F04", "pc", "in3")
def a_cassette_of_another_strength(patient: Patient) -> Iterator[Cell]:
    yield _wrong_rate(patient, "F04", "half_strength", 2.0)
    yield _wrong_rate(patient, "F04", "double_strength", 0.5)


@row("F05")
def a_wrong_volume_to_be_infused(patient: Patient) -> Iterator[Cell]:
    given_ml = patient.course.expected_ml(patient.t0_ms)
    yield Cell(
        code="F05",
        label="too_small",
        bedside=patient.bedside(
            patient.t0_ms + patient.fact_ms() + MIN,
            program=lambda program: structs.replace(program, vtbi_ml=given_ml),
        ),
        due=(
            Due(
                kinds=frozenset({Kind.STOPPED_EARLY}),
                from_ms=patient.t0_ms,
                by_ms=patient.t0_ms + patient.fact_ms(),
            ),
        ),
    )
    if patient.gapless or patient.order.schedule.phases[-1].to_ml_h == 0:
        return  # what goes on is the next dose; at the end of a ramp to 0 nothing goes on
    poll_ms = patient.slow_poll_ms()
    out_ms = patient.length_ms + patient.order.limits.end_window_ms
    by_ms = out_ms + patient.timed_out_ms(poll_ms)
    # the dose is joined late, with what is expected then
    last_ml_h = patient.order.schedule.phases[-1].to_ml_h
    more_ml = 0.9 * patient.order.volume_ml * patient.order.limits.tolerance
    exceeded_ms = patient.length_ms + more_ml / last_ml_h * H
    yield Cell(
        code="F05",
        label="too_big",
        bedside=patient.bedside(
            by_ms + 2 * MIN,
            program=lambda program: structs.replace(program, vtbi_ml=2 * program.vtbi_ml + 1000),
            machine={"bag_ml": None},
            poll_ms=poll_ms,
            from_ms=patient.before(patient.length_ms),
        ),
        due=(
            Due(
                kinds=frozenset({Kind.NOT_ENDED}) | OVER, from_ms=min(out_ms, exceeded_ms) - MIN, by_ms=by_ms
            ),
        ),
    )


MODES = {"pn1": "pn2", "pn3": "pn1"}
"""Programmed as another therapy of the same volume; else as one rate from dose to dose, demand included."""


@row("F06", "pn", "pc1", "pc2", "ab2")
def a_wrong_mode(patient: Patient) -> Iterator[Cell]:
    if patient.regimen in MODES:
        legs = story_of(MODES[patient.regimen]).program.legs
    else:
        demand = patient.order.demand
        more_ml = 24 * (demand.limit_ml or 0.0) / 2 if demand is not None else 0.0
        lasts_ms = (patient.every_ms or 0) if patient.regimen == "ab2" else patient.length_ms
        rate_ml_h = (patient.order.volume_ml + more_ml) / lasts_ms * H
        legs = (Leg(duration_ms=lasts_ms, from_ml_h=rate_ml_h, to_ml_h=rate_ml_h),)
    # on a ramp from 0 the dose begins above keep-vein-open
    begun_ms = patient.order.limits.kvo_ml_h / legs[0].slope_ml_h_ms if legs[0].slope_ml_h_ms else 0.0
    by_ms = begun_ms + patient.fact_ms()
    yield Cell(
        code="F06",
        label="mode",
        bedside=patient.bedside(
            by_ms + MIN, program=lambda program: structs.replace(program, legs=legs, demand=None)
        ),
        due=(Due(kinds=frozenset({Kind.WRONG_RATE}), from_ms=0, by_ms=by_ms),),
    )


# --- not begun, begun late, paused -----------------------------------------------------------------------


@row("F07")
def nobody_starts_it(patient: Patient) -> Iterator[Cell]:
    poll_ms = patient.slow_poll_ms()
    out_ms = patient.order.limits.start_window_ms
    by_ms = out_ms + patient.timed_out_ms(poll_ms)
    yield Cell(
        code="F07",
        label="not_started",
        bedside=patient.bedside(by_ms + 10 * S, patient.fault("late_start", -S), poll_ms=poll_ms),
        due=(Due(kinds=frozenset({Kind.NOT_STARTED}), from_ms=out_ms, by_ms=by_ms),),
    )


def _given_until_ms(patient: Patient) -> float:
    """Until when the first dose may be begun."""
    limits = patient.order.limits
    until_ms = limits.give_within_ms
    if patient.every_ms is not None:
        until_ms = min(until_ms, patient.every_ms - (0 if patient.gapless else limits.start_window_ms))
    return until_ms


@row("F08", "ab", "pn", "fe3")
def begun_late(patient: Patient) -> Iterator[Cell]:
    poll_ms = patient.slow_poll_ms()
    limits = patient.order.limits
    late = patient.timed_out_ms(poll_ms)
    for minutes in (10, 40, 240):
        begun_ms = minutes * MIN
        due: list[Due] = []
        missed_ms = _given_until_ms(patient)
        if min(abs(begun_ms - limits.start_window_ms), abs(begun_ms - missed_ms)) < late:
            continue  # begun just as the time is up
        if begun_ms > limits.start_window_ms:
            out_ms = limits.start_window_ms
            due.append(Due(kinds=frozenset({Kind.NOT_STARTED}), from_ms=out_ms, by_ms=out_ms + late))
        if begun_ms > missed_ms:
            due.append(Due(kinds=frozenset({Kind.DOSE_MISSED}), from_ms=missed_ms, by_ms=missed_ms + late))
            due.append(
                Due(
                    kinds=frozenset({Kind.UNSCHEDULED_DELIVERY}),
                    from_ms=begun_ms,
                    by_ms=begun_ms + patient.fact_ms(poll_ms),
                )
            )
        yield Cell(
            code="F08",
            label=f"{minutes}min",
            bedside=patient.bedside(
                begun_ms + 15 * MIN, patient.fault("late_start", -S, begun_ms + S), poll_ms=poll_ms
            ),
            due=tuple(due),
        )


@row("F09")
def paused_and_forgotten(patient: Patient) -> Iterator[Cell]:
    poll_ms = patient.slow_poll_ms()
    out_ms = patient.t0_ms + patient.order.limits.max_pause_ms
    by_ms = out_ms + patient.timed_out_ms(poll_ms)
    yield Cell(
        code="F09",
        label="paused",
        bedside=patient.bedside(
            by_ms + MIN, patient.fault("paused"), poll_ms=poll_ms, from_ms=patient.before(patient.t0_ms)
        ),
        due=(Due(kinds=frozenset({Kind.PAUSED_TOO_LONG}), from_ms=out_ms, by_ms=by_ms),),
    )


# --- the line and the bag --------------------------------------------------------------------------------


def _pent_up_ml(patient: Patient) -> float:
    machine = patient.story.machine
    return machine.compliance_ml_mmhg * (machine.occlusion_alarm_mmhg - GAUGE.resting_mmhg)


def _occlusion_alarm_ms(patient: Patient) -> float:
    """From the closing of the line to the pump's alarm, if the rate stays as it is."""
    return _pent_up_ml(patient) / (patient.rate_ml_h * (1 + patient.calibration())) * H


@row("F10")
def the_line_closes(patient: Patient) -> Iterator[Cell]:
    machine = patient.story.machine
    alarm_ms = _occlusion_alarm_ms(patient)
    pressed_ms = 90 * machine.compliance_ml_mmhg / patient.rate_ml_h * H + 60 * S
    over = patient.t0_ms + min(alarm_ms, pressed_ms) > patient.phase_end_ms
    poll_ms = patient.poll_ms if alarm_ms < H else patient.slow_poll_ms()
    by_ms = patient.t0_ms + min(pressed_ms, alarm_ms + patient.fact_ms(poll_ms))
    opened_ms = patient.t0_ms + alarm_ms * 1.1 + MIN
    yield Cell(
        code="F10",
        label="occlusion",
        bedside=patient.bedside(
            min(opened_ms + MIN, patient.phase_end_ms if over else opened_ms + MIN),
            patient.fault("occlusion_downstream", lasts_ms=opened_ms - patient.t0_ms),
            poll_ms=poll_ms,
            from_ms=patient.before(patient.t0_ms),
        ),
        due=(
            Due(
                kinds=frozenset({Kind.OCCLUSION, Kind.OCCLUSION_SUSPECTED}),
                from_ms=patient.t0_ms,
                by_ms=by_ms,
            ),
        ),
        undecidable="the dose is over before the line is full" if over else "",
    )


@row("F11", "he2", "pe1")
def closed_again_and_again(patient: Patient) -> Iterator[Cell]:
    """After each alarm the line opens, and the pump starts again by itself."""
    alarm_ms = _occlusion_alarm_ms(patient) * 1.05
    begins_ms = [patient.t0_ms + turn * (alarm_ms + 20 * S) for turn in range(3)]
    third_ms = begins_ms[2] + alarm_ms
    yield Cell(
        code="F11",
        label="restarts",
        bedside=patient.bedside(
            third_ms + 2 * MIN,
            *(patient.fault("occlusion_downstream", begin, alarm_ms + 15 * S) for begin in begins_ms),
            from_ms=patient.before(patient.t0_ms),
        ),
        due=(
            Due(
                kinds=frozenset({Kind.REPEATED_INTERRUPTION}),
                from_ms=begins_ms[2] + alarm_ms * 0.9,
                by_ms=third_ms + patient.fact_ms(),
            ),
        ),
        also=frozenset({Kind.OCCLUSION, Kind.OCCLUSION_SUSPECTED}),
    )


@row("F12")
def the_clamp_above_is_closed(patient: Patient) -> Iterator[Cell]:
    """The counter goes on for 0.2 mL: it counts the motor's turns."""
    alarm_ms = 0.2 / patient.rate_ml_h * H
    over = patient.t0_ms + alarm_ms > patient.phase_end_ms
    poll_ms = patient.poll_ms if alarm_ms < H else patient.slow_poll_ms()
    by_ms = patient.t0_ms + alarm_ms + patient.fact_ms(poll_ms)
    yield Cell(
        code="F12",
        label="clamp",
        bedside=patient.bedside(
            min(by_ms + MIN, patient.phase_end_ms) if over else by_ms + MIN,
            patient.fault("occlusion_upstream"),
            counter_follows="motor",
            poll_ms=poll_ms,
            from_ms=patient.before(patient.t0_ms),
        ),
        due=(Due(kinds=frozenset({Kind.OCCLUSION}), from_ms=patient.t0_ms, by_ms=by_ms),),
        undecidable="the dose is over before the pump notices" if over else "",
    )


def _alarms_of(patient: Patient, kind: str, begins_ms: list[float], lasts_ms: float) -> tuple[Fault, ...]:
    return tuple(patient.fault(kind, begin_ms, lasts_ms) for begin_ms in begins_ms)


@row("F13", "hy", "pn")
def air_again_and_again(patient: Patient) -> Iterator[Cell]:
    begins_ms = [patient.t0_ms + turn * 6 * MIN for turn in range(3)]
    third_ms = begins_ms[2]
    yield Cell(
        code="F13",
        label="air",
        bedside=patient.bedside(
            third_ms + 5 * MIN,
            *_alarms_of(patient, "air_in_line", begins_ms, 2 * MIN),
            from_ms=patient.before(patient.t0_ms),
        ),
        due=(
            Due(
                kinds=frozenset({Kind.PUMP_ALARM}),
                from_ms=patient.t0_ms,
                by_ms=patient.t0_ms + patient.fact_ms(),
                code="air_in_line",
            ),
            Due(
                kinds=frozenset({Kind.REPEATED_INTERRUPTION}),
                from_ms=third_ms,
                by_ms=third_ms + patient.fact_ms(),
            ),
        ),
    )


@row("F14", "im", "in", "ab5")
def the_bag_is_empty_early(patient: Patient) -> Iterator[Cell]:
    yield Cell(
        code="F14",
        label="empty",
        bedside=patient.bedside(
            patient.t0_ms + 10 * MIN, patient.fault("bag_empty"), from_ms=patient.before(patient.t0_ms)
        ),
        due=(
            Due(
                kinds=frozenset({Kind.BAG_EMPTY}),
                from_ms=patient.t0_ms,
                by_ms=patient.t0_ms + patient.fact_ms(),
            ),
        ),
    )


@row("F15", "im", "in", "ab5")
def a_gap_at_the_change_of_bag(patient: Patient) -> Iterator[Cell]:
    poll_ms = patient.slow_poll_ms()
    limits = patient.order.limits
    late = patient.timed_out_ms(poll_ms)
    for minutes in (2, 10, 45, 240):
        gap_ms = minutes * MIN
        for label, begin_ms, allowed_ms, kind in (
            ("within", patient.t0_ms, limits.max_pause_ms, Kind.PAUSED_TOO_LONG),
            ("between", patient.length_ms, limits.start_window_ms, Kind.NOT_STARTED),
        ):
            if abs(gap_ms - allowed_ms) <= late:
                continue  # just as long as is allowed
            out_ms = begin_ms + allowed_ms
            fault = (
                patient.fault("bag_change", begin_ms, gap_ms)
                if label == "within"
                else patient.fault("late_start", begin_ms - 5 * MIN, gap_ms + 5 * MIN)
            )
            yield Cell(
                code="F15",
                label=f"{label}_{minutes}min",
                bedside=patient.bedside(
                    begin_ms + gap_ms + 15 * MIN, fault, poll_ms=poll_ms, from_ms=patient.before(begin_ms)
                ),
                due=(Due(kinds=frozenset({kind}), from_ms=out_ms - late, by_ms=out_ms + late + poll_ms),)
                if gap_ms > allowed_ms
                else (),
            )


@row("F16", "im", "in")
def a_flush_where_it_is_forbidden(patient: Patient) -> Iterator[Cell]:
    yield Cell(
        code="F16",
        label="flush",
        bedside=patient.bedside(
            patient.t0_ms + 5 * MIN,
            patient.fault("flush", lasts_ms=30 * S, strength=360.0),
            from_ms=patient.before(patient.t0_ms),
        ),
        due=(
            Due(
                kinds=frozenset({Kind.BOLUS_NOT_ORDERED}),
                from_ms=patient.t0_ms,
                by_ms=patient.t0_ms + patient.fact_ms(),
            ),
        ),
        also=frozenset({Kind.BAG_EMPTY_SOON}),  # what was flushed is gone
    )


# --- too little, too much --------------------------------------------------------------------------------

SILENT_MS = 30 * MIN
"""For so long a pump within its tolerance is looked at."""
LEAST_BEYOND = 2 * REFERENCES[0]
"""A test finds a shift of twice its reference soonest: what lies nearer the tolerance than that of the finest
has no deadline."""


def _shift(patient: Patient, code: str, label: str, share: float, lasts_ms: float | None = None) -> Cell:
    factor = 1 + share
    beyond = patient.beyond(factor)
    kind = "under_delivery" if share < 0 else "over_delivery"
    kinds = UNDER if share < 0 else OVER
    why = ""
    also = patient.passes_limit(patient.rate_ml_h * factor * (1 + patient.calibration()))
    by_ms = SILENT_MS
    if beyond > LEAST_BEYOND:
        by_ms = patient.volume_ms(beyond)
        longest_ms = min(patient.left_ms(), lasts_ms or patient.left_ms())
        if by_ms > longest_ms:
            why = "the dose, or the fault, is over before the worst-phase bound"
            by_ms = longest_ms
            if share < 0:
                also |= patient.broken_off(patient.t0_ms + by_ms)
    elif beyond > -0.005:
        why = "at the edge of the tolerance"
    due: tuple[Due, ...] = ()
    if why or beyond > 0:
        due = (Due(kinds=kinds, from_ms=patient.t0_ms, by_ms=patient.t0_ms + by_ms),)
    return Cell(
        code=code,
        label=label,
        bedside=patient.bedside(
            patient.t0_ms + min(by_ms, patient.left_ms()) + 30 * S,
            patient.fault(kind, lasts_ms=lasts_ms, strength=abs(share)),
            from_ms=patient.before(patient.t0_ms),
        ),
        due=due,
        also=also,
        undecidable=why,
    )


@row("F17")
def a_slow_error_of_scale(patient: Patient) -> Iterator[Cell]:
    for percent in (30, 15, 10, 6, 4):
        yield _shift(patient, "F17", f"under_{percent}", -percent / 100)


@row("F18")
def a_quarter_more_for_20_minutes(patient: Patient) -> Iterator[Cell]:
    yield _shift(patient, "F18", "over_25", 0.25, 20 * MIN)


# --- steps -----------------------------------------------------------------------------------------------


def _with_first_leg(program: Program, by_ms: int) -> Program:
    first, *rest = program.legs
    return structs.replace(
        program, legs=(structs.replace(first, duration_ms=first.duration_ms + by_ms), *rest)
    )


@row("F19", "ig1", "bi1", "bi2", "ms3", "ms4", "er1", "er3", "er4")
def a_step_early_late_or_left_out(patient: Patient) -> Iterator[Cell]:
    step_ms = patient.order.schedule.phases[0].duration_ms
    legs = patient.story.program.legs
    wrong = frozenset({Kind.WRONG_RATE})
    two_polls_ms = 2 * patient.poll_ms
    for label, program, begin_ms in (
        ("early", lambda program: _with_first_leg(program, -5 * MIN), step_ms - 5 * MIN),
        ("late", lambda program: _with_first_leg(program, 10 * MIN), step_ms + two_polls_ms),
        ("left_out", lambda program: structs.replace(program, legs=(legs[0], *legs[2:])), step_ms),
    ):
        if label == "left_out" and len(legs) < 3:
            continue
        yield Cell(
            code="F19",
            label=label,
            bedside=patient.bedside(begin_ms + 3 * MIN, program=program),
            due=(Due(kinds=wrong, from_ms=begin_ms, by_ms=begin_ms + patient.fact_ms()),),
        )


@row("F20", "ig1", "bi1", "bi2", "ms3", "ms4", "er1", "er3", "er4")
def halved_after_a_reaction_and_resumed(patient: Patient) -> Iterator[Cell]:
    lasts_ms = min(30 * MIN, patient.left_ms() // 2)
    yield Cell(
        code="F20",
        label="halved",
        bedside=patient.bedside(
            patient.t0_ms + lasts_ms + 5 * MIN,
            patient.fault("wrong_rate", lasts_ms=lasts_ms, strength=0.5),
            from_ms=patient.before(patient.t0_ms),
        ),
        due=(
            Due(
                kinds=frozenset({Kind.WRONG_RATE}),
                from_ms=patient.t0_ms,
                by_ms=patient.t0_ms + patient.fact_ms(),
            ),
        ),
    )


# --- boluses ---------------------------------------------------------------------------------------------


@row("F21", "pc1", "pc2")
def more_by_demand_than_is_ordered(patient: Patient) -> Iterator[Cell]:
    t0_ms = patient.t0_ms
    demand = patient.order.demand
    assert demand is not None
    set_by_ms = t0_ms + patient.fact_ms()
    changed = Due(kinds=frozenset({Kind.PROGRAM_CHANGED}), from_ms=t0_ms, by_ms=set_by_ms)
    second_ms = t0_ms + demand.lockout_ms // 3
    yield Cell(
        code="F21",
        label="short_lockout",
        bedside=patient.bedside(
            t0_ms + 20 * MIN,
            patient.fault("lockout_changed", strength=1 / 3),
            patient.fault("presses", strength=12.0),
            from_ms=patient.before(t0_ms),
        ),
        due=(
            changed,
            Due(
                kinds=frozenset({Kind.BOLUS_IN_LOCKOUT}),
                from_ms=second_ms - MIN,
                by_ms=second_ms + patient.fact_ms(),
            ),
        ),
        also=BOLUS,
    )
    yield Cell(
        code="F21",
        label="large_bolus",
        bedside=patient.bedside(
            t0_ms + 5 * MIN,
            patient.fault("bolus_changed", strength=3.0),
            patient.fault("presses", strength=2.0),
            from_ms=patient.before(t0_ms),
        ),
        due=(
            changed,
            Due(
                kinds=frozenset({Kind.BOLUS_LIMIT_EXCEEDED}),
                from_ms=t0_ms,
                by_ms=t0_ms + 3 * (demand.bolus_over_ms or 0) + patient.fact_ms(),
            ),
        ),
    )
    begun_ms = t0_ms + 2 * H
    yield Cell(
        code="F21",
        label="by_proxy",
        bedside=patient.bedside(
            begun_ms + 45 * MIN, patient.fault("presses", strength=3.9), from_ms=patient.before(t0_ms)
        ),
        due=(
            Due(
                kinds=frozenset({Kind.DEMAND_PATTERN}),
                from_ms=t0_ms + H,
                by_ms=begun_ms + 2 * demand.lockout_ms + patient.fact_ms(),
            ),
        ),
    )


@row("F22", "pc1", "pc2")
def demands_that_are_refused(patient: Patient) -> Iterator[Cell]:
    t0_ms = patient.t0_ms
    yield Cell(
        code="F22",
        label="refused",
        bedside=patient.bedside(
            t0_ms + 2 * H + 45 * MIN, patient.fault("presses", strength=20.0), from_ms=patient.before(t0_ms)
        ),
        due=(
            Due(
                kinds=frozenset({Kind.DEMAND_PATTERN}),
                from_ms=t0_ms,
                by_ms=t0_ms + 2 * H + 30 * MIN + patient.fact_ms(),
            ),
        ),
    )


# --- doses -----------------------------------------------------------------------------------------------


@row("F23", "ab", "ho1", "he1")
def a_dose_too_few_or_too_many(patient: Patient) -> Iterator[Cell]:
    poll_ms = patient.slow_poll_ms()
    late = patient.timed_out_ms(poll_ms)
    out_ms = patient.order.limits.start_window_ms
    missed_ms = _given_until_ms(patient)
    yield Cell(
        code="F23",
        label="missed",
        bedside=patient.bedside(
            missed_ms + late + MIN, patient.fault("missed_dose", -S, missed_ms + S), poll_ms=poll_ms
        ),
        due=(
            Due(kinds=frozenset({Kind.NOT_STARTED}), from_ms=out_ms, by_ms=out_ms + late),
            Due(kinds=frozenset({Kind.DOSE_MISSED}), from_ms=missed_ms, by_ms=missed_ms + late),
        ),
    )
    if patient.gapless:
        return
    again_ms = patient.length_ms + 10 * MIN
    first_ml_h = patient.order.schedule.phases[0].from_ml_h
    yield Cell(
        code="F23",
        label="doubled",
        bedside=patient.bedside(
            again_ms + patient.length_ms + MIN,
            patient.fault("run_by_hand", again_ms, patient.length_ms, first_ml_h),
        ),
        due=(
            Due(
                kinds=frozenset({Kind.UNSCHEDULED_DELIVERY}),
                from_ms=again_ms,
                by_ms=again_ms + patient.fact_ms(),
            ),
        ),
        also=frozenset({Kind.BAG_EMPTY}),  # one that holds a dose runs empty with the second
    )


@row("F24", "pe", "he2")
def a_syringe_that_starts_late_counts_as_it_should(patient: Patient) -> Iterator[Cell]:
    yield Cell(
        code="F24",
        label="start_up",
        bedside=patient.bedside(
            min(patient.length_ms, H),
            patient.fault("under_delivery", -S, min(patient.length_ms // 4, 10 * MIN) + S, 0.9),
            counter_follows="motor",
        ),
    )


@row("F25", "ab3", "hy1", "pn")
def keep_vein_open_is_left_on(patient: Patient) -> Iterator[Cell]:
    poll_ms = patient.slow_poll_ms()
    times = patient.order.schedule.times
    end_ms = (patient.every_ms or 0) * (times - 1) + patient.length_ms
    if patient.gapless:
        end_ms += (times - 1) * (patient.story.machine.bag_change_ms or 0)
    out_ms = end_ms + patient.order.limits.kvo_max_ms
    by_ms = out_ms + patient.timed_out_ms(poll_ms) + 30 * S
    yield Cell(
        code="F25",
        label="kvo",
        bedside=patient.bedside(
            by_ms + 5 * MIN, patient.fault("kvo_left", 0), poll_ms=poll_ms, from_ms=end_ms - 30 * MIN
        ),
        due=(Due(kinds=frozenset({Kind.KVO_TOO_LONG}), from_ms=out_ms - poll_ms, by_ms=by_ms),),
    )


# --- power, counter, clocks, wire, gateway ---------------------------------------------------------------


@row("F26")
def the_battery_runs_down(patient: Patient) -> Iterator[Cell]:
    life_ms = 100 * MIN if patient.left_ms() > 30 * MIN else 8 * patient.left_ms() // 3
    empty_ms = patient.t0_ms + 0.15 * life_ms
    gone_ms = round(empty_ms + MIN)
    silent_ms = gone_ms + patient.order.limits.no_data_after_ms
    low = Due(
        kinds=frozenset({Kind.PUMP_ALARM}),
        from_ms=patient.t0_ms,
        by_ms=patient.t0_ms + patient.fact_ms(),
        code="low_battery",
    )
    empty = Due(
        kinds=frozenset({Kind.PUMP_ALARM}),
        from_ms=empty_ms,
        by_ms=empty_ms + patient.fact_ms(),
        code="battery_empty",
    )
    yield Cell(
        code="F26",
        label="battery",
        bedside=patient.bedside(
            empty_ms + MIN,
            patient.fault("battery", strength=0.15),
            machine={"battery_life_ms": life_ms},
            link=silence(gone_ms, round(silent_ms + H)),
            from_ms=patient.before(patient.t0_ms),
        ),
        due=(low, empty),
    )


@row("F27")
def the_counter_falls(patient: Patient) -> Iterator[Cell]:
    t0_ms = patient.t0_ms
    fell_ms = t0_ms + patient.fact_ms()
    from_ms = patient.before(t0_ms)
    pump = patient.bedside(t0_ms + S, from_ms=from_ms).pump()
    shown_ml = pump.truth_at(t0_ms + LEAD_MS).counter_ml
    counter_ml = patient.order.pump.counter_ml
    flows_ml = patient.rate_ml_h * 3 * patient.poll_ms / H
    hidden = (
        "nothing, or no more than flows in a poll, had been counted"
        if shown_ml <= counter_ml + flows_ml
        else ""
    )
    unexplained = Due(kinds=frozenset({Kind.COUNTER_RESET_UNEXPLAINED}), from_ms=t0_ms, by_ms=fell_ms)
    yield Cell(
        code="F27",
        label="reset",
        bedside=patient.bedside(fell_ms + 5 * MIN, patient.fault("counter_reset"), from_ms=from_ms),
        due=(unexplained,),
        undecidable=hidden,
    )
    # a counter that wraps at its first count would never be seen to move
    wrap_ml = max(2, round(shown_ml / counter_ml)) * counter_ml
    setting = structs.replace(patient.story.machine.setting, counter_wrap_ml=wrap_ml)
    order = structs.replace(patient.order, pump=structs.replace(patient.order.pump, counter_wrap_ml=wrap_ml))
    yield Cell(
        code="F27",
        label="rollover",
        bedside=patient.bedside(
            fell_ms + 5 * MIN, machine={"setting": setting}, order=order, from_ms=from_ms
        ),
    )
    yield Cell(
        code="F27",
        label="unit",
        bedside=patient.bedside(
            fell_ms + MIN,
            from_ms=from_ms,
            link=counted(lambda at_ms, ml: ml / 10 if at_ms >= t0_ms else ml),
        ),
        due=(unexplained,),
        also=UNDER | patient.broken_off(fell_ms + MIN),
        undecidable=hidden,
    )


@row("F28")
def clocks(patient: Patient) -> Iterator[Cell]:
    t0_ms = patient.t0_ms
    until_ms = t0_ms + min(20 * MIN, patient.left_ms() // 2)
    for label, link in (
        ("forward_1h", clock_set(t0_ms, H)),
        ("back_10min", clock_set(t0_ms, -10 * MIN)),
        ("drift_200ppm", clock_drifts(2e-4)),
    ):
        yield Cell(
            code="F28",
            label=label,
            bedside=patient.bedside(until_ms, link=link, from_ms=patient.before(t0_ms)),
        )


@row("F29")
def the_link_is_gone_for_a_while(patient: Patient) -> Iterator[Cell]:
    t0_ms = patient.t0_ms
    silent_ms = patient.order.limits.no_data_after_ms
    poll_ms = patient.slow_poll_ms()
    for label, gap_ms, link in (
        ("30s", 30 * S, silence(t0_ms, t0_ms + 30 * S)),
        ("10min_burst", 10 * MIN, burst_after(t0_ms, t0_ms + 10 * MIN)),
        ("6h", 6 * H, silence(t0_ms, t0_ms + 6 * H)),
    ):
        due: tuple[Due, ...] = ()
        if gap_ms > silent_ms + poll_ms:
            out_ms = t0_ms + silent_ms
            due = (
                Due(
                    kinds=frozenset({Kind.NO_DATA}),
                    from_ms=out_ms - 2 * poll_ms,
                    by_ms=out_ms + patient.timed_out_ms(poll_ms) + 30 * S,
                ),
            )
        expected = t0_ms + silent_ms < patient.length_ms
        if gap_ms == 6 * H and (patient.length_ms < 8 * H or not expected):
            continue
        yield Cell(
            code="F29",
            label=label,
            bedside=patient.bedside(
                t0_ms + gap_ms + 10 * MIN, link=link, poll_ms=poll_ms, from_ms=patient.before(t0_ms)
            ),
            due=due,
            undecidable="" if expected else "the dose is over, and nothing is expected",
        )


@row("F30")
def a_bad_line(patient: Patient) -> Iterator[Cell]:
    t0_ms = patient.t0_ms
    yield Cell(
        code="F30",
        label="lost_5_percent",
        bedside=patient.bedside(
            t0_ms + min(30 * MIN, patient.left_ms()), link=lost(0.05, 7), from_ms=patient.before(t0_ms)
        ),
    )
    by_ms = patient.volume_ms(1 - patient.order.limits.tolerance)
    over = by_ms > patient.left_ms()
    yield Cell(
        code="F30",
        label="frozen_counter",
        bedside=patient.bedside(
            t0_ms + min(by_ms, patient.left_ms()) + 30 * S,
            patient.fault("counter_frozen"),
            from_ms=patient.before(t0_ms),
        ),
        due=(Due(kinds=UNDER, from_ms=t0_ms, by_ms=t0_ms + by_ms),),
        also=patient.broken_off(t0_ms + by_ms),
        undecidable="the dose is over before the worst-phase bound" if over else "",
    )


PAIRS = {"in1": "pe1", "pe1": "in1", "ch1": "ab5", "ab5": "ch1", "pc1": "pc2", "pc2": "pc1"}


@row("F31", *PAIRS)
def two_pumps_taken_for_each_other(patient: Patient) -> Iterator[Cell]:
    other = PAIRS[patient.regimen]
    highest_ml_h = story_of(other).program.highest_ml_h
    yield Cell(
        code="F31",
        label=f"reads_{other}",
        regimen=patient.regimen,
        bedside=Bedside(regimen=other, until_ms=5 * MIN, order=patient.order),
        due=(Due(kinds=frozenset({Kind.WRONG_RATE}), from_ms=0, by_ms=patient.fact_ms()),),
        # the other pump's counts may be coarser than any that are expected of this one
        also=patient.passes_limit(highest_ml_h)
        | UNDER
        | OVER
        | frozenset({Kind.PROGRAM_CHANGED, Kind.FREE_FLOW, Kind.BAG_EMPTY_SOON}),
    )


@row("F32")
def a_storm_of_alarms(patient: Patient) -> Iterator[Cell]:
    t0_ms = patient.t0_ms
    poll_ms = patient.poll_ms
    alarms = _alarms_of(patient, "door_open", [t0_ms + turn * 3 * S for turn in range(20)], 1.5 * S)
    yield Cell(
        code="F32",
        label="20_in_60s",
        bedside=patient.bedside(
            t0_ms + min(5 * MIN, patient.left_ms()), *alarms, from_ms=patient.before(t0_ms)
        ),
        due=(Due(kinds=frozenset({Kind.PUMP_ALARM}), from_ms=t0_ms, by_ms=t0_ms + 60 * S + poll_ms),),
        # between two readings that say running the pump stands for half of the time
        also=UNDER | {Kind.REPEATED_INTERRUPTION},
        undecidable="an alarm of 1.5 s is seen by chance",
    )
    apart_ms = min(3 * MIN, patient.left_ms() // 4)
    begins_ms: list[float] = [t0_ms + turn * apart_ms for turn in range(3)]
    if apart_ms < 6 * poll_ms:
        return
    yield Cell(
        code="F32",
        label="3_in_10min",
        bedside=patient.bedside(
            begins_ms[2] + 3 * MIN,
            *_alarms_of(patient, "cassette", begins_ms, apart_ms / 3),
            from_ms=patient.before(t0_ms),
        ),
        due=(
            Due(
                kinds=frozenset({Kind.PUMP_ALARM}),
                from_ms=t0_ms,
                by_ms=t0_ms + patient.fact_ms(),
                code="cassette",
            ),
            Due(
                kinds=frozenset({Kind.REPEATED_INTERRUPTION}),
                from_ms=begins_ms[2],
                by_ms=begins_ms[2] + patient.fact_ms(),
            ),
        ),
    )


@row("F33")
def the_gateway_loses_its_mains(patient: Patient) -> Iterator[Cell]:
    t0_ms = patient.t0_ms
    gone_ms = min(5 * MIN, patient.left_ms() // 3)
    for label, unsynced_ms in (("5min", 0), ("no_time_at_boot", MIN)):
        back_ms = t0_ms + gone_ms
        yield Cell(
            code="F33",
            label=label,
            bedside=patient.bedside(
                back_ms + min(10 * MIN, patient.left_ms() // 2),
                link=restarted(t0_ms, back_ms, unsynced_ms),
                restarts_ms=back_ms,
                from_ms=patient.before(t0_ms),
            ),
            also=frozenset({Kind.NO_DATA}),
        )


NUMBERS = re.compile(r"^(rate_ml_h|from_ml_h|to_ml_h|volume_ml) = ([0-9.]+)$", re.MULTILINE)


def _order_with_rates(patient: Patient, factor: float) -> str:
    """The regimen's order with all rates times so much, in a bag that holds it."""
    text = prescription_starting(patient.story.prescription_text, START)
    text = NUMBERS.sub(lambda found: f"{found[1]} = {float(found[2]) * factor:.6g}", text)
    return re.sub(r"^(dose_rate|max_rate_ml_h|max_volume_ml) = .*\n", "", text, flags=re.MULTILINE)


SHORT_BAG = frozenset({Kind.BAG_EMPTY_SOON})
"""What is left in the bag was meant for the order before: it may not last for what the new one still asks."""


@row("F34")
def the_order_is_changed_while_it_runs(patient: Patient) -> Iterator[Cell]:
    t0_ms = patient.t0_ms
    text = _order_with_rates(patient, 0.7)
    until_ms = t0_ms + min(20 * MIN, patient.left_ms() // 2)
    yield Cell(
        code="F34",
        label="programmed",
        bedside=patient.bedside(
            until_ms,
            patient.fault("wrong_rate", strength=0.7),
            revised=(t0_ms, text),
            from_ms=patient.before(t0_ms),
        ),
        also=SHORT_BAG,
    )
    by_ms = t0_ms + patient.fact_ms()
    over = by_ms > patient.phase_end_ms
    yield Cell(
        code="F34",
        label="not_programmed",
        bedside=patient.bedside(
            min(by_ms + 30 * S, patient.phase_end_ms), revised=(t0_ms, text), from_ms=patient.before(t0_ms)
        ),
        due=(Due(kinds=frozenset({Kind.WRONG_RATE}), from_ms=t0_ms, by_ms=by_ms),),
        also=patient.broken_off(by_ms) | SHORT_BAG,
        undecidable="the dose is over before two readings have shown the rate" if over else "",
    )
