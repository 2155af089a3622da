"""Which hazards can be seen, by which kind they are reported, and which test shows it: hazards.txt, read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from alerts.condition import Kind

MATRIX = "tests/regimens/test_matrix.py::test_a_fault_is_told_in_time_as_what_it_is_and_nothing_else"
_HERE = Path(__file__).parent


@dataclass(frozen=True)
class Hazard:
    """One row. ``shown_by``: names of ``TESTS``, or codes of faults (``F07``)."""

    id: str
    hazard: str
    kinds: tuple[Kind, ...]
    shown_by: tuple[str, ...]
    remark: str


@dataclass(frozen=True)
class Chapter:
    """One source of hazards."""

    title: str
    source: str
    hazards: tuple[Hazard, ...]


def _lines(name: str) -> list[str]:
    text = (_HERE / name).read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line.strip() and not line.startswith("# ")]


def _chapters() -> tuple[Chapter, ...]:
    chapters: list[Chapter] = []
    for line in _lines("hazards.txt"):
        if line.startswith("## "):
            chapters.append(Chapter(line.removeprefix("## "), "", ()))
            continue
        last = chapters[-1]
        if line.startswith("source: "):
            chapters[-1] = Chapter(last.title, line.removeprefix("source: "), ())
        else:
            chapters[-1] = Chapter(last.title, last.source, (*last.hazards, _hazard(line)))
    return tuple(chapters)


def _hazard(line: str) -> Hazard:
    id_, hazard, kinds, shown_by, remark = (part.strip() for part in line.split("|"))
    return Hazard(id_, hazard, tuple(Kind(kind) for kind in kinds.split()), tuple(shown_by.split()), remark)


CHAPTERS = _chapters()
TESTS: dict[str, str] = dict(line.split() for line in _lines("tests.txt"))  # type: ignore[misc]
"""A short name for each test that shows something."""
