"""HAZARDS.md is true: what it names exists, and nothing that alerts is missing from it."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from alerts.catalogue import row
from alerts.condition import Kind
from tests.hazards.page import page
from tests.hazards.table import CHAPTERS, MATRIX, TESTS
from tests.regimens.cells import cells

ROOT = Path(__file__).parents[2]
ROWS = [hazard for chapter in CHAPTERS for hazard in chapter.hazards]
FAULT = re.compile(r"F[0-3][0-9]")


@cache
def names_in(path: str) -> frozenset[str]:
    """The names of the tests of a file, as pytest would call them."""
    names: list[str] = []
    for node in ast.parse((ROOT / path).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef):
            names.append(node.name)
        elif isinstance(node, ast.ClassDef):
            names += [f"{node.name}::{one.name}" for one in node.body if isinstance(one, ast.FunctionDef)]
    return frozenset(names)


def test_the_page_is_the_one_that_the_table_makes():
    assert (ROOT / "HAZARDS.md").read_text(encoding="utf-8") == page(), (
        "make it again: python -m tests.hazards.page > HAZARDS.md"
    )


@pytest.mark.parametrize("test", [*TESTS.values(), MATRIX])
def test_each_test_that_it_names_exists(test):
    path, _, name = test.partition("::")
    assert name in names_in(path)


def test_what_shows_a_hazard_has_a_name_and_each_name_is_used():
    shown_by = {name for hazard in ROWS for name in hazard.shown_by if not FAULT.fullmatch(name)}
    assert shown_by == set(TESTS)


@pytest.mark.parametrize("hazard", ROWS, ids=lambda hazard: hazard.id)
def test_a_hazard_is_shown_or_its_row_says_why_it_cannot_be(hazard):
    if hazard.shown_by:
        return
    assert not hazard.kinds, "a kind without a test that shows it"
    assert hazard.remark.startswith(("not observable", "not watched", "not reported", "does not")), (
        hazard.remark
    )


def test_each_kind_of_alert_stands_in_some_row():
    reported = {kind for hazard in ROWS for kind in hazard.kinds}
    assert {kind for kind in Kind if not row(kind).info} - reported == NOT_YET_ENTERED


NOT_YET_ENTERED = frozenset({Kind.VITAL_SIGN, Kind.VITAL_OVERDUE})
"""Kinds of the pages that nothing raises yet."""


def test_a_fault_of_the_matrix_is_due_as_a_kind_of_each_row_that_names_it():
    due: dict[str, set[Kind]] = {}
    for cell in cells():
        kinds = {kind for one in cell.due for kind in one.kinds} | cell.also
        due.setdefault(cell.code, set()).update(kinds)
    wrong = [
        (hazard.id, code)
        for hazard in ROWS
        for code in hazard.shown_by
        if FAULT.fullmatch(code) and hazard.kinds and not due[code] & set(hazard.kinds)
    ]
    assert wrong == []
