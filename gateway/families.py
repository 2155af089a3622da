"""``dripwatch families``: what each pump family reports, and how we know."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import msgspec

from drivers import families
from drivers.reading import DriverStatus, Evidence, PumpState, PumpTraits

NOT_FOR_CARE = "not for care"
_SHORT = {
    "rate_ml_h": "rate",
    "volume_ml": "volume",
    "vtbi_ml": "VTBI",
    "pressure_mmhg": "pressure",
    "battery_percent": "battery",
    "on_mains": "mains",
    "bolus_ml": "bolus",
    "lockout_s": "lockout",
    "serial": "serial number",
}
"""What the README calls the fields of a reading."""


def main(arguments: Sequence[str]) -> int:
    """Print the table; always 0."""
    parser = argparse.ArgumentParser(
        prog="dripwatch families",
        description="What each pump family reports, and on what evidence. What comes from a driver that is"
        f" not 'proved' (read from a real pump and compared with its display) is {NOT_FOR_CARE}.",
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="the same as JSON, for programs")
    form.add_argument("--markdown", action="store_true", help="a short table, as in the README")
    options = parser.parse_args(arguments)
    traits = [families.find(name).traits for name in families.known()]
    if options.json:
        sys.stdout.write(msgspec.json.encode(traits).decode() + "\n")
    elif options.markdown:
        sys.stdout.write(table_markdown())
    else:
        sys.stdout.write("\n\n".join(_described(family) for family in traits) + "\n")
    return 0


def table_markdown() -> str:
    """The families of real pumps as a table in Markdown, for the README."""
    lines = [
        "| family | pumps | reads | alarms | evidence | status |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name in families.known():
        traits = families.find(name).traits
        if traits.evidence is Evidence.OWN:
            continue
        reads = [_SHORT[field] for field in traits.reports if field in _SHORT]
        if any(state is not PumpState.UNKNOWN for state in traits.states):
            reads.insert(0, "state")
        alarms = len([alarm for alarm in traits.alarms if alarm != "vendor:"])
        told = (
            f"{alarms} kinds" if alarms else ("as the pump names them" if traits.alarms else "not reported")
        )
        lines.append(
            f"| `{name}` | {traits.title} | {', '.join(reads)} | {told} | {traits.evidence}"
            f" | {_status(traits)} |"
        )
    return "\n".join(lines) + "\n"


def _status(traits: PumpTraits) -> str:
    status = str(traits.status)
    return status if traits.status is DriverStatus.PROVED else f"{status}, {NOT_FOR_CARE}"


def _described(traits: PumpTraits) -> str:
    rows = {
        "pumps": traits.title,
        "status": _status(traits),
        "evidence": str(traits.evidence),
        "reports": ", ".join(traits.reports) or "nothing",
        "states": ", ".join(traits.states),
        "alarms": ", ".join(traits.alarms) or "none",
        "counter": f"{traits.counter_ml:g} mL" if traits.counter_ml is not None else "not known",
        "pressure": traits.pressure_unit or "not reported",
    }
    lines = [traits.family, *(f"  {name:<9} {value}" for name, value in rows.items())]
    lines.extend(f"  note      {note}" for note in traits.notes)
    return "\n".join(lines)
