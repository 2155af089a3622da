"""HAZARDS.md, made from the table: ``python -m tests.hazards.page > HAZARDS.md``."""

from __future__ import annotations

import sys

from tests.hazards.table import CHAPTERS, MATRIX, TESTS, Chapter, Hazard

_HEAD = """\
# Hazards

What can go wrong with an infusion at home and with Dripwatch itself, which kind of alert reports it, and
which test shows it. Made from `tests/hazards/hazards.txt`; a test holds the two together, and looks that
every test and every kind named here exists.

> **The blind spot.** A pump's "volume infused" is counted from its motor's steps, not measured at the
> patient. A leak, a line that has come apart, free flow past the mechanism, a wrong drug or strength, and
> what is stored in a closed line are not in that count. Dripwatch never says that the patient is well. What
> cannot be seen is marked so.

`F01` to `F34` are faults that `tests/regimens/cells.py` puts into each of the 48 therapies they fit: `make
matrix`.
"""


def page() -> str:
    """The whole page."""
    return "\n".join([_HEAD, *map(_chapter, CHAPTERS), _tests()])


def _chapter(chapter: Chapter) -> str:
    seen = sum(bool(hazard.shown_by) for hazard in chapter.hazards)
    lines = [
        f"## {chapter.title}",
        "",
        f"Source: {chapter.source}. {seen} of {len(chapter.hazards)} rows can be shown.",
        "",
        "| | hazard | reported as | shown by | |",
        "| --- | --- | --- | --- | --- |",
        *map(_row, chapter.hazards),
        "",
    ]
    return "\n".join(lines)


def _row(hazard: Hazard) -> str:
    kinds = ", ".join(f"`{kind}`" for kind in hazard.kinds)
    shown = ", ".join(name if name in TESTS else f"`{name}`" for name in hazard.shown_by)
    return f"| {hazard.id} | {hazard.hazard} | {kinds} | {shown} | {hazard.remark} |"


def _tests() -> str:
    used = sorted({name for chapter in CHAPTERS for hazard in chapter.hazards for name in hazard.shown_by})
    lines = ["## The tests", "", f"F01 to F34: `{MATRIX}`.", "", "| name | test |", "| --- | --- |"]
    lines += [f"| {name} | `{TESTS[name]}` |" for name in used if name in TESTS]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(page())
