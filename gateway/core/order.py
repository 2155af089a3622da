"""The text of ``prescription.toml`` to a ``Prescription``, or to everything that is wrong with it.

The format is the prescription page, section 1. Reading goes in two steps: every key by itself (is it known,
of the right type, in its range), then what the keys say together (``gateway/core/contradictions.py``). Keys
in messages are written as in the file. Phases count from 1: the rate of the second is
``schedule.phase[2].rate_ml_h``.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import TypeVar
from zoneinfo import ZoneInfo, available_timezones

from msgspec import Struct

from alerts.condition import Priority, Urgency
from gateway.core import quantity
from gateway.core.contradictions import Written, contradictions
from gateway.core.prescription import (
    Bag,
    Demand,
    Limits,
    Phase,
    Prescription,
    PumpExpected,
    Schedule,
    Sensor,
    Titration,
)
from gateway.core.schedule import MS_PER_HOUR, MS_PER_MINUTE, shortest_distance_ms, shortest_gap_ms
from gateway.core.toml_table import GREATEST_NUMBER, OrderProblem, Table

__all__ = ["LONGEST_TEXT_BYTES", "OrderError", "OrderProblem", "parse_order"]

FORMAT = "infusion-prescription/1"
LONGEST_TEXT_BYTES = 16 * 1024
"""As an order over MQTT may have (mqtt page, ``order``)."""
MOST_PHASES = 200
MOST_TIMES = 1_000_000


class OrderError(Exception):
    """The text is not a valid prescription. Its words name every key that is at fault."""

    def __init__(self, problems: tuple[OrderProblem, ...]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems


class UrgencyTimes(Struct, frozen=True, kw_only=True):
    """One column of the table in section 1.2, in minutes."""

    max_pause_min: int
    no_data_after_min: int
    respond_high_min: int
    respond_medium_min: int
    respond_low_min: int
    warn_before_min: int


DEFAULT_TIMES: dict[Urgency, UrgencyTimes] = {
    Urgency.VITAL: UrgencyTimes(
        max_pause_min=3,
        no_data_after_min=1,
        respond_high_min=3,
        respond_medium_min=10,
        respond_low_min=60,
        warn_before_min=240,
    ),
    Urgency.CRITICAL: UrgencyTimes(
        max_pause_min=10,
        no_data_after_min=2,
        respond_high_min=5,
        respond_medium_min=15,
        respond_low_min=60,
        warn_before_min=120,
    ),
    Urgency.TIMED: UrgencyTimes(
        max_pause_min=15,
        no_data_after_min=5,
        respond_high_min=10,
        respond_medium_min=30,
        respond_low_min=240,
        warn_before_min=120,
    ),
    Urgency.ROUTINE: UrgencyTimes(
        max_pause_min=30,
        no_data_after_min=15,
        respond_high_min=30,
        respond_medium_min=120,
        respond_low_min=720,
        warn_before_min=30,
    ),
}
"""Prescription page, section 1.2. How long an acknowledgement holds is the business of ``alerts``."""

_KEYS: dict[str, tuple[str, ...]] = {
    "": (
        "format",
        "patient",
        "drug",
        "schedule",
        "demand",
        "titration",
        "response",
        "limits",
        "pump",
        "sensor",
        "bag",
    ),
    "patient": ("id", "weight_kg"),
    "drug": ("name", "concentration", "dose_rate"),
    "schedule": (
        "therapy",
        "start",
        "every",
        "at",
        "days",
        "zone",
        "times",
        "as_needed",
        "between_ml_h",
        "phase",
    ),
    "schedule.phase": ("duration", "rate_ml_h", "volume_ml", "from_ml_h", "to_ml_h"),
    "demand": ("bolus_ml", "bolus_over", "lockout", "lockout_from", "limit_ml", "limit_window"),
    "titration": ("min_ml_h", "max_ml_h", "step_ml_h", "min_interval"),
    "response": ("urgency", "respond_within", "never_flush"),
    "response.respond_within": ("high", "medium", "low"),
    "limits": (
        "tolerance_percent",
        "start_window",
        "give_within",
        "min_interval",
        "end_window",
        "late_end",
        "max_pause",
        "max_total_pause",
        "kvo_ml_h",
        "kvo_max",
        "max_rate_ml_h",
        "max_volume_ml",
        "no_data_after",
    ),
    "pump": (
        "model",
        "accuracy_percent",
        "counter_ml",
        "counter_wrap_ml",
        "stroke_ml",
        "ripple_ml",
        "occlusion_ml",
        "poll",
    ),
    "sensor": ("kind", "resolution_ml", "noise_ml", "accuracy_percent"),
    "bag": ("volume_ml", "warn_before"),
}

_WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_TIME_OF_DAY = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])")
_ZONE_NAME = re.compile(r"[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+){0,2}")
_NOT_A_PLACE = frozenset({"localtime", "posixrules", "Factory"})
_AGREEMENT = 0.005
"""How far rate, volume and duration may differ when all three are written: rounding, not a slip."""


def parse_order(text: str) -> Prescription:
    """Reads and judges a prescription; every default of section 1 is filled in.

    Raises ``OrderError`` with all problems that were found, not only the first.
    """
    problems: list[OrderProblem] = []
    prescription, written = _read(_toml(text), problems)
    blamed = [problem.key for problem in problems]
    problems.extend(
        found.problem for found in contradictions(prescription, written) if not found.rests_on(blamed)
    )
    if problems:
        raise OrderError(tuple(problems))
    return prescription


def _toml(text: str) -> dict[str, object]:
    size = len(text.encode("utf-8", "surrogatepass"))
    if size > LONGEST_TEXT_BYTES:
        raise OrderError(
            (OrderProblem("file", f"has {size} bytes; at most {LONGEST_TEXT_BYTES} are possible"),)
        )
    if text.startswith("\ufeff"):
        message = "begins with a byte order mark; save it as UTF-8 without BOM"
        raise OrderError((OrderProblem("file", message),))
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise OrderError((_syntax_problem(error),)) from None


def _syntax_problem(error: Exception) -> OrderProblem:
    """The place, where the TOML reader says one."""
    if isinstance(error, RecursionError):
        return OrderProblem("file", "is nested too deeply; write it flatter")
    words = str(error)
    place = re.search(r"\(at (line [0-9]+), column [0-9]+\)", words)
    key = place[1] if place else "file"
    return OrderProblem(key, f"is not TOML: {words[:200]}; look for a missing quote, bracket or =")


def _read(values: dict[str, object], problems: list[OrderProblem]) -> tuple[Prescription, Written]:
    """Each key by itself. Where one is at fault, something harmless stands in for it until the end."""
    root = Table(values, "", problems)
    _refuse_unknown(root, "")
    if root.require("format", f'"{FORMAT}"'):
        written_format = root.text("format")
        if written_format not in (None, FORMAT):
            root.problem("format", f"{written_format!r} is not known; this program reads {FORMAT!r}")

    def section(name: str) -> Table:
        # one that is not there counts as empty: what it must contain is then missed by its own name
        return _optional(root, name) or Table({}, name, problems)

    patient = section("patient")
    drug = section("drug")
    response = section("response")
    patient.require("id", "a pseudonym, never a name")
    drug.require("name", "the drug's name or token")
    concentration = _concentration(drug)
    urgency = Urgency(response.choice("urgency", Urgency) or Urgency.TIMED)
    times = DEFAULT_TIMES[urgency]
    pump = _pump(section("pump"))
    schedule, rate_keys = _schedule(section("schedule"))
    limits = _limits(section("limits"), schedule, urgency, times)
    prescription = Prescription(
        patient_id=patient.text("id") or "-",
        weight_kg=patient.number("weight_kg", least=0.1, greatest=1000),
        drug_name=drug.text("name", longest=200) or "-",
        concentration_per_ml=concentration.amount if concentration else None,
        concentration_unit=concentration.unit if concentration else None,
        dose_rate=_dose_rate(drug),
        schedule=schedule,
        demand=_demand(_optional(root, "demand")),
        titration=_titration(_optional(root, "titration")),
        urgency=urgency,
        respond_within_ms=_respond_within(response, times),
        never_flush=response.flag("never_flush") or False,
        limits=limits,
        pump=pump,
        sensor=_sensor(_optional(root, "sensor")),
        bag=_bag(_optional(root, "bag"), times),
    )
    return prescription, Written(keys=frozenset(_written_keys(values)), rate_keys=rate_keys)


def _refuse_unknown(table: Table, name: str) -> None:
    homes = {
        key: f"[{home}]"
        for home, keys in _KEYS.items()
        if home not in ("", name)
        for key in keys
        if home != "response.respond_within"
    }
    table.refuse_unknown(_KEYS[name], homes)


def _optional(root: Table, name: str) -> Table | None:
    table = root.table(name)
    if table is not None:
        _refuse_unknown(table, name)
    return table


def _written_keys(values: Mapping[str, object], path: str = "") -> Iterator[str]:
    """The keys that stand in the text, tables in tables included."""
    for key, value in values.items():
        yield path + key
        if isinstance(value, dict) and len(path) < 10:  # no known key lies deeper
            yield from _written_keys(value, f"{path}{key}.")


def _concentration(drug: Table) -> quantity.Concentration | None:
    text = drug.text("concentration")
    if text is None:
        return None
    try:
        return quantity.concentration(text)
    except ValueError as error:
        drug.problem("concentration", str(error))
        return None


def _dose_rate(drug: Table) -> str | None:
    text = drug.text("dose_rate")
    if text is None:
        return None
    try:
        quantity.dose_rate(text)
    except ValueError as error:
        drug.problem("dose_rate", str(error))
        return None
    return text


def _schedule(table: Table) -> tuple[Schedule, tuple[str, ...]]:
    """The schedule, and for each phase the key that set its rate."""
    table.require("start", "when the first dose is due, like 2026-03-02T10:00:00+01:00")
    phases, rate_keys = _phases(table)
    every_ms = table.duration("every")
    if every_ms is not None and every_ms < 1000:
        table.problem("every", "is less than a second; give at least 1s")
        every_ms = None
    at_minutes = _at_minutes(table)
    weekdays = _weekdays(table)
    repeats = "every" in table or "at" in table
    as_needed = table.flag("as_needed") or False
    times = table.whole("times", greatest=MOST_TIMES)
    if "every" in table and "at" in table:
        table.problem("at", "cannot be together with every; keep one of them")
    if "days" in table and "at" not in table:
        table.problem("days", "needs at, the times of day; give at, or leave days out")
    if "at" in table and "zone" not in table:
        table.problem("zone", 'is missing; times of day need one, like "Europe/Berlin"')
    if as_needed:
        for key in ("every", "at"):
            if key in table:
                table.problem(
                    key, "cannot be together with as_needed, which has no due times; keep one of them"
                )
    elif repeats and "times" not in table:
        table.problem(
            "times", "is missing; with every or at give how often in all (0: until a new prescription)"
        )
    elif not repeats and times not in (None, 1):
        table.problem("times", f"is {times}, and neither every nor at says when again; give one of them")
    schedule = Schedule(
        therapy=table.text("therapy"),
        start_utc_ms=table.moment_utc_ms("start") or 946_684_800_000,
        every_ms=every_ms,
        at_minutes=at_minutes,
        weekdays=weekdays,
        zone=_zone(table),
        # as needed each start is legitimate: only a written number bounds them
        times=times if times is not None else (0 if as_needed else 1),
        as_needed=as_needed,
        between_ml_h=_or(table.number("between_ml_h", zero=True), 0.0),
        phases=phases,
    )
    return schedule, rate_keys


def _phases(schedule: Table) -> tuple[tuple[Phase, ...], tuple[str, ...]]:
    stand_in = ((Phase(duration_ms=MS_PER_HOUR, from_ml_h=1.0, to_ml_h=1.0),), ("schedule.phase",))
    if not schedule.require("phase", "at least one [[schedule.phase]]"):
        return stand_in
    tables = schedule.tables("phase", most=MOST_PHASES) or []
    phases: list[Phase] = []
    keys: list[str] = []
    for table in tables:
        _refuse_unknown(table, "schedule.phase")
        ramp = "from_ml_h" in table or "to_ml_h" in table
        phase = _ramp(table) if ramp else _constant(table)
        if phase is not None:
            phases.append(phase)
            set_by = "volume_ml" if "rate_ml_h" not in table else "rate_ml_h"
            if ramp:
                set_by = "from_ml_h" if phase.from_ml_h > phase.to_ml_h else "to_ml_h"
            keys.append(table.path_of(set_by))
    total_ms = sum(phase.duration_ms for phase in phases)
    if total_ms > quantity.LONGEST_DURATION_MS:
        schedule.problem(
            "phase", f"all phases together take {quantity.in_words(total_ms)}; possible are 400d"
        )
        return stand_in
    return (tuple(phases), tuple(keys)) if phases else stand_in


def _ramp(table: Table) -> Phase | None:
    for key in ("rate_ml_h", "volume_ml"):
        if key in table:
            table.problem(key, "cannot be in a ramp; a ramp has duration, from_ml_h and to_ml_h, no more")
    for key in ("duration", "from_ml_h", "to_ml_h"):
        table.require(key, "all three of duration, from_ml_h and to_ml_h")
    duration_ms = table.duration("duration")
    from_ml_h = table.number("from_ml_h", zero=True)
    to_ml_h = table.number("to_ml_h", zero=True)
    if duration_ms is None or from_ml_h is None or to_ml_h is None:
        return None
    return Phase(duration_ms=duration_ms, from_ml_h=from_ml_h, to_ml_h=to_ml_h)


def _constant(table: Table) -> Phase | None:
    """Any two of duration, rate and volume; the third follows."""
    written = [key for key in ("duration", "rate_ml_h", "volume_ml") if key in table]
    duration_ms = table.duration("duration")
    rate_ml_h = table.number("rate_ml_h", zero=True)
    volume_ml = table.number("volume_ml")
    if len(written) < 2:
        missing = "duration" if "duration" not in table else "rate_ml_h"
        table.problem(missing, "is missing; a phase needs two of duration, rate_ml_h and volume_ml")
        return None
    if "volume_ml" in table and rate_ml_h == 0:
        table.problem(
            "rate_ml_h", "is 0, and volume_ml is more than that; give the rate that gives the volume"
        )
        return None
    if "duration" not in table:
        if rate_ml_h is None or volume_ml is None:
            return None
        duration_ms = round(volume_ml / rate_ml_h * MS_PER_HOUR)
        if not 0 < duration_ms <= quantity.LONGEST_DURATION_MS:
            hours = volume_ml / rate_ml_h
            table.problem("rate_ml_h", f"gives volume_ml in {hours:.3g} h; possible are 1 ms to 400d")
            return None
        return Phase(duration_ms=duration_ms, from_ml_h=rate_ml_h, to_ml_h=rate_ml_h)
    if duration_ms is None:
        return None
    if volume_ml is not None:
        from_volume_ml_h = volume_ml / duration_ms * MS_PER_HOUR
        if rate_ml_h is not None and abs(from_volume_ml_h - rate_ml_h) > _AGREEMENT * rate_ml_h:
            table.problem(
                "rate_ml_h",
                f"is {rate_ml_h:g}, but volume_ml in duration makes {from_volume_ml_h:.4g} mL/h; "
                "correct one of the three, or leave one out",
            )
            return None
        return Phase(duration_ms=duration_ms, from_ml_h=from_volume_ml_h, to_ml_h=from_volume_ml_h)
    if rate_ml_h is None:
        return None
    return Phase(duration_ms=duration_ms, from_ml_h=rate_ml_h, to_ml_h=rate_ml_h)


def _at_minutes(table: Table) -> tuple[int, ...]:
    minutes: list[int] = []
    for text in table.texts("at", most=96) or []:
        found = _TIME_OF_DAY.fullmatch(text)
        if found is None:
            table.problem("at", f'{text[:20]!r} is not a time of day; write it like "06:00" or "22:30"')
        else:
            minutes.append(int(found[1]) * 60 + int(found[2]))
    return tuple(sorted(minutes))


def _weekdays(table: Table) -> tuple[int, ...]:
    names = table.texts("days", most=7)
    if names is None:
        return tuple(range(7))
    unknown = [name for name in names if name not in _WEEKDAYS]
    for name in unknown:
        table.problem("days", f"{name[:20]!r} is not a weekday; known are {', '.join(_WEEKDAYS)}")
    return tuple(range(7)) if unknown else tuple(sorted(_WEEKDAYS.index(name) for name in names))


def _zone(table: Table) -> ZoneInfo | None:
    name = table.text("zone")
    if name is None:
        return None
    if _ZONE_NAME.fullmatch(name) and name not in _NOT_A_PLACE:
        try:
            return ZoneInfo(name)
        except (KeyError, ValueError, OSError):
            pass  # said below, with the nearest name
    near = _nearest_zone(name)
    hint = f"did you mean {near}?" if near else 'write an IANA zone, like "Europe/Berlin"'
    table.problem("zone", f"{name!r} is not known; {hint}")
    return None


def _nearest_zone(name: str) -> str | None:
    known = sorted(available_timezones() - _NOT_A_PLACE)
    lowered = {zone.lower(): zone for zone in known}
    near = get_close_matches(name.lower(), lowered, n=1)
    by_city = [zone for zone in known if zone.lower().endswith("/" + name.lower())]
    return by_city[0] if by_city else lowered[near[0]] if near else None


def _demand(table: Table | None) -> Demand | None:
    if table is None:
        return None
    table.require("bolus_ml", "the volume of one bolus")
    table.require("lockout", "the least time between two boluses")
    bolus_ml = table.number("bolus_ml")
    lockout_ms = table.duration("lockout")
    return Demand(
        bolus_ml=_or(bolus_ml, 1.0),
        bolus_over_ms=table.duration("bolus_over"),
        lockout_ms=_or(lockout_ms, MS_PER_HOUR),
        lockout_from_end=table.choice("lockout_from", ("start", "end")) == "end",
        limit_ml=table.number("limit_ml"),
        limit_window_ms=_or(table.duration("limit_window"), MS_PER_HOUR),
    )


def _titration(table: Table | None) -> Titration | None:
    if table is None:
        return None
    table.require("min_ml_h", "the lowest rate that may be set")
    table.require("max_ml_h", "the highest rate that may be set")
    return Titration(
        min_ml_h=_or(table.number("min_ml_h", zero=True), 0.0),
        max_ml_h=_or(table.number("max_ml_h"), GREATEST_NUMBER),
        step_ml_h=table.number("step_ml_h"),
        min_interval_ms=table.duration("min_interval"),
    )


def _respond_within(response: Table, times: UrgencyTimes) -> dict[Priority, int]:
    defaults = {
        Priority.HIGH: times.respond_high_min * MS_PER_MINUTE,
        Priority.MEDIUM: times.respond_medium_min * MS_PER_MINUTE,
        Priority.LOW: times.respond_low_min * MS_PER_MINUTE,
    }
    table = response.table("respond_within")
    if table is None:
        return defaults
    _refuse_unknown(table, "response.respond_within")
    return {
        priority: _or(table.duration(priority.value, default_ms=default_ms), default_ms)
        for priority, default_ms in defaults.items()
    }


def _limits(table: Table, schedule: Schedule, urgency: Urgency, times: UrgencyTimes) -> Limits:
    length_ms = sum(phase.duration_ms for phase in schedule.phases)
    tolerance = _or(table.number("tolerance_percent", least=1, greatest=50), 10.0) / 100
    start_window_ms = _or(table.duration("start_window"), _default_start_window_ms(schedule, urgency))
    if schedule.as_needed:
        table.require("min_interval", "with as_needed the least time from one start to the next")
    max_pause_ms = times.max_pause_min * MS_PER_MINUTE
    no_data_after_ms = times.no_data_after_min * MS_PER_MINUTE
    return Limits(
        tolerance=tolerance,
        start_window_ms=start_window_ms,
        give_within_ms=_or(table.duration("give_within"), length_ms + start_window_ms),
        min_interval_ms=_or(table.duration("min_interval"), (shortest_distance_ms(schedule) or 0) // 2),
        end_window_ms=_or(
            table.duration("end_window"), max(10 * MS_PER_MINUTE, round(tolerance * length_ms))
        ),
        late_end_ms=table.duration("late_end"),
        max_pause_ms=_or(table.duration("max_pause", default_ms=max_pause_ms), max_pause_ms),
        max_total_pause_ms=table.duration("max_total_pause"),
        kvo_ml_h=_or(table.number("kvo_ml_h", zero=True), 0.0),
        kvo_max_ms=_or(table.duration("kvo_max"), 30 * MS_PER_MINUTE),
        max_rate_ml_h=table.number("max_rate_ml_h"),
        max_volume_ml=table.number("max_volume_ml"),
        no_data_after_ms=_or(table.duration("no_data_after", default_ms=no_data_after_ms), no_data_after_ms),
    )


def _default_start_window_ms(schedule: Schedule, urgency: Urgency) -> int:
    """Section 1, ``start_window``: never more than half of the gap between two occurrences."""
    if urgency is Urgency.VITAL:
        window_ms = 5 * MS_PER_MINUTE
    elif schedule.every_ms is not None:
        window_ms = min(max(schedule.every_ms // 4, 5 * MS_PER_MINUTE), MS_PER_HOUR)
    else:
        window_ms = MS_PER_HOUR
    gap_ms = shortest_gap_ms(schedule)
    return window_ms if gap_ms is None else min(window_ms, gap_ms // 2)


def _pump(table: Table) -> PumpExpected:
    return PumpExpected(
        model=table.text("model"),
        accuracy=_or(table.number("accuracy_percent", zero=True, greatest=50), 5.0) / 100,
        counter_ml=_or(table.number("counter_ml"), 0.1),
        counter_wrap_ml=table.number("counter_wrap_ml"),
        stroke_ml=_or(table.number("stroke_ml"), 0.05),
        ripple_ml=_or(table.number("ripple_ml", zero=True), 0.0),
        occlusion_ml=_or(table.number("occlusion_ml"), 0.5),
        poll_ms=_or(table.duration("poll"), 5_000),
    )


def _sensor(table: Table | None) -> Sensor | None:
    if table is None:
        return None
    table.require("kind", "weight, drip or flow")
    table.require("resolution_ml", "the volume of one count")
    return Sensor(
        kind=table.choice("kind", ("weight", "drip", "flow")) or "flow",
        resolution_ml=_or(table.number("resolution_ml"), 1.0),
        noise_ml=_or(table.number("noise_ml", zero=True), 0.0),
        accuracy=_or(table.number("accuracy_percent", zero=True, greatest=50), 5.0) / 100,
    )


def _bag(table: Table | None, times: UrgencyTimes) -> Bag | None:
    if table is None:
        return None
    table.require("volume_ml", "what is in the bag when the infusion starts")
    return Bag(
        volume_ml=_or(table.number("volume_ml"), 1.0),
        warn_before_ms=_or(table.duration("warn_before"), times.warn_before_min * MS_PER_MINUTE),
    )


_Value = TypeVar("_Value")


def _or(value: _Value | None, default: _Value) -> _Value:
    """The value, 0 included, or what holds when the key is not there."""
    return default if value is None else value
