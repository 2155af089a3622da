"""``dripwatch families``: what each pump family reports, and how we know."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import msgspec

from drivers import families
from drivers.reading import DriverStatus, PumpTraits

NOT_FOR_CARE = "not for care"


def main(arguments: Sequence[str]) -> int:
    """Print the table; always 0."""
    parser = argparse.ArgumentParser(
        prog="dripwatch families",
        description="What each pump family reports, and on what evidence. What comes from a driver that is"
        f" not 'proved' (read from a real pump and compared with its display) is {NOT_FOR_CARE}.",
    )
    parser.add_argument("--json", action="store_true", help="the same as JSON, for programs")
    options = parser.parse_args(arguments)
    traits = [families.find(name).traits for name in families.known()]
    if options.json:
        sys.stdout.write(msgspec.json.encode(traits).decode() + "\n")
    else:
        sys.stdout.write("\n\n".join(_described(family) for family in traits) + "\n")
    return 0


def _described(traits: PumpTraits) -> str:
    status = str(traits.status)
    if traits.status is not DriverStatus.PROVED:
        status += f", {NOT_FOR_CARE}"
    rows = {
        "pumps": traits.title,
        "status": status,
        "evidence": str(traits.evidence),
        "reports": ", ".join(traits.reports) or "nothing",
        "states": ", ".join(traits.states),
        "alarms": ", ".join(traits.alarms) or "none",
        "counter": f"{traits.counter_ml:g} mL" if traits.counter_ml is not None else "not known",
    }
    lines = [traits.family, *(f"  {name:<9} {value}" for name, value in rows.items())]
    lines.extend(f"  note      {note}" for note in traits.notes)
    return "\n".join(lines)
