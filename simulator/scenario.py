"""Scenarios: what the pump was told, what happens to it, from one seed. TOML to a frozen ``Scenario``.

The format is ``dripwatch-scenario/1``. One key goes beyond its first description: ``expect``, the kinds of
alert that are due, so that a demonstration knows what to wait for; the first is the one that it follows to
the end. ``scenarios/*.toml`` are the named stories, each with its prescription (``prescription-*.toml``)
beside it. ``regimens/*.toml`` are therapies in the same form, one by one as they should go.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

from msgspec import Struct

from simulator.faults import FAULT_KINDS, Fault, Mishaps
from simulator.line import Gauge
from simulator.tables import BadFile, Problem, Table, parse_toml
from simulator.therapy import Order, Program, PumpSetting, program_from_steps, read_order, read_pump_setting

SCENARIO_FORMAT = "dripwatch-scenario/1"
SCENARIO_DIR = Path(__file__).parent / "scenarios"
REGIMEN_DIR = Path(__file__).parent / "regimens"
_START = re.compile(r"^start\s*=\s*[^#\n]*", re.MULTILINE)


class Machine(Struct, frozen=True, kw_only=True):
    """What is true of this one pump and its line, as far as no client can know it."""

    setting: PumpSetting = PumpSetting()
    calibration_percent: float = 0.0
    """Constant error of the delivered volume."""
    ripple_period_ms: int = 120_000
    compliance_ml_mmhg: float = 0.0025
    """What the line takes up for each mmHg."""
    occlusion_alarm_mmhg: float = 500.0
    gauge: Gauge = Gauge()
    bag_ml: float | None = None
    """What is really in the bag; None: it never runs out."""
    bag_change_ms: int | None = None
    """How long it takes to hang the next bag, where one does not hold another dose; None: nobody does."""
    battery_life_ms: int = 8 * 3_600_000
    """How long a full battery runs."""
    serial_number: str = "8002-51740"


class Scenario(Struct, frozen=True, kw_only=True):
    """One story, complete: the same seed gives the same pump, to the last byte."""

    name: str
    title: str
    prescription_text: str
    program: Program
    counter_follows: Literal["motor", "flow"] = "motor"
    seed: int = 1
    machine: Machine = Machine()
    mishaps: Mishaps = Mishaps()
    expect: tuple[str, ...] = ()


def read_scenario(text: str, name: str, prescription_text: str | None) -> Scenario:
    """A scenario's TOML text, and that of the prescription it names, as a ``Scenario``.

    ``prescription_text`` None says that the file is not there. Raises ``BadFile`` with every problem.
    """
    problems: list[Problem] = []
    top = Table(parse_toml(text), "", problems)
    top.choice("format", (SCENARIO_FORMAT,), required=True)
    title = top.text("title", required=True)
    beside = top.text("prescription", required=True)
    follows = top.choice("counter_follows", ("motor", "flow"), "motor")
    seed = top.whole("seed", 1)
    expect = top.words("expect")
    order = _read_prescription(prescription_text, beside, problems)
    machine = _read_machine(top.table("pump"), order)
    steps = _read_steps(top.tables("program"))
    faults = tuple(_read_fault(one) for one in top.tables("fault"))
    top.no_other_keys()
    if problems or order is None or prescription_text is None:
        raise BadFile(problems)
    return Scenario(
        name=name,
        title=title,
        prescription_text=prescription_text,
        program=program_from_steps(steps, order.program) if steps else order.program,
        counter_follows="flow" if follows == "flow" else "motor",
        seed=seed,
        machine=machine,
        mishaps=Mishaps(faults),
        expect=expect,
    )


def _read_prescription(text: str | None, name: str, problems: list[Problem]) -> Order | None:
    if text is None:
        if name:
            problems.append(Problem("prescription", f"{name} is not there; it must lie beside the scenario"))
        return None
    try:
        return read_order(parse_toml(text))
    except BadFile as error:
        problems += [Problem(f"prescription({name}).{one.key}", one.message) for one in error.problems]
        return None


def _read_machine(pump: Table, order: Order | None) -> Machine:
    """``[pump]``: the prescription's keys of that name, and what is true of this pump."""
    ordered = order.pump if order else PumpSetting()
    for only_expected in ("model", "accuracy_percent", "occlusion_ml", "poll"):
        if only_expected in pump:
            pump.complain(only_expected, "says what is expected of a pump; write it in the prescription")
    machine = Machine(
        setting=read_pump_setting(pump, ordered),
        calibration_percent=pump.number("calibration_percent", 0.0, least=-50.0, most=50.0),
        ripple_period_ms=pump.duration("ripple_period", 120_000),
        compliance_ml_mmhg=pump.number("compliance_ml_mmhg", 0.0025, above_zero=True),
        occlusion_alarm_mmhg=pump.number("occlusion_alarm_mmhg", 500.0, least=50.0, most=2000.0),
        gauge=Gauge(
            resting_mmhg=pump.number("resting_mmhg", 18.0, most=49.0),
            noise_mmhg=pump.number("pressure_noise_mmhg", 0.0, most=50.0),
            posture_mmhg=pump.number("posture_mmhg", 0.0, most=100.0),
            resistance_mmhg_h_ml=pump.number("resistance_mmhg_h_ml", 0.0, most=10.0),
        ),
        bag_ml=pump.number("bag_ml", (order and order.bag_ml) or 0.0) or None,
        bag_change_ms=pump.duration("bag_change", 0) or None,
        battery_life_ms=pump.duration("battery_life", 8 * 3_600_000),
        serial_number=pump.text("serial_number", "8002-51740"),
    )
    pump.no_other_keys()
    return machine


def _read_steps(tables: tuple[Table, ...]) -> tuple[tuple[int, float], ...]:
    steps: list[tuple[int, float]] = []
    for table in tables:
        at_ms = table.duration("at", 0, zero=True, required=True)
        rate_ml_h = table.number("rate_ml_h", 0.0, most=10_000.0, required=True)
        table.no_other_keys()
        if steps and at_ms <= steps[-1][0]:
            table.complain("at", "must be later than that of the step before")
        steps.append((at_ms, rate_ml_h))
    return tuple(steps)


def _read_fault(table: Table) -> Fault:
    at_ms = table.duration("at", 0, zero=True, required=True)
    kind = table.choice("kind", tuple(FAULT_KINDS), "silent", required=True)
    lasts_ms = table.duration("lasts", 0)
    row = FAULT_KINDS[kind]
    if "strength" in table and not row.strength:
        table.complain("strength", f"{kind} has none")
    strength = table.number("strength", row.default, least=row.least, most=row.most)
    table.no_other_keys()
    return Fault(kind=kind, at_ms=at_ms, until_ms=at_ms + lasts_ms if lasts_ms else None, strength=strength)


def scenario_names() -> tuple[str, ...]:
    """The named stories."""
    return _names_in(SCENARIO_DIR)


def regimen_names() -> tuple[str, ...]:
    """The therapies for engineering tests: not medical advice."""
    return _names_in(REGIMEN_DIR)


def _names_in(folder: Path) -> tuple[str, ...]:
    return tuple(
        sorted(path.stem for path in folder.glob("*.toml") if not path.stem.startswith("prescription-"))
    )


def load_scenario(name_or_file: str) -> Scenario:
    """A named story or regimen, or the scenario in a file.

    Raises ``BadFile`` if it is none of them or cannot be used.
    """
    if name_or_file in scenario_names():
        path = SCENARIO_DIR / f"{name_or_file}.toml"
    elif name_or_file in regimen_names():
        path = REGIMEN_DIR / f"{name_or_file}.toml"
    else:
        path = Path(name_or_file)
    text = _text_of(path)
    if text is None:
        known = ", ".join((*scenario_names(), *regimen_names()))
        message = f"is no scenario and no file that can be read; known are {known}"
        raise BadFile([Problem(name_or_file, message)])
    return read_scenario(text, path.stem, _text_of(path.parent / _prescription_named(parse_toml(text))))


def _prescription_named(content: dict[str, Any]) -> str:
    """The prescription's file name, which lies beside the scenario: a bare name, never a way elsewhere."""
    return Path(str(content.get("prescription", ""))).name


def _text_of(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8") if path.is_file() else None
    except (OSError, UnicodeDecodeError):
        return None


def prescription_starting(text: str, start: str) -> str:
    """The prescription with its start moved to ``start`` (a TOML offset date-time); all else as it stands."""
    return _START.sub(f"start = {start}", text, count=1)
