"""Every regimen with every fault that applies to it: told in time, as what it is, and nothing else.

By default one variant of each fault for each regimen, another from regimen to regimen; ``make matrix`` runs
all of them.
"""

from __future__ import annotations

from collections import defaultdict

import pytest

from alerts.condition import Kind
from simulator.scenario import regimen_names
from tests.regimens.bedside import Alert, alerts_of
from tests.regimens.cells import ROWS, Cell, cells


def one_of_each() -> frozenset[str]:
    """Names of the cells of the default run: of each fault and regimen one variant, in turn."""
    variants: dict[tuple[str, str], list[str]] = defaultdict(list)
    for cell in cells():
        variants[cell.code, cell.regimen or cell.bedside.regimen].append(cell.name)
    return frozenset(
        names[regimen_names().index(regimen) % len(names)] for (_, regimen), names in variants.items()
    )


def parameters() -> list[object]:
    chosen = one_of_each()
    marked = []
    for cell in cells():
        marks = [] if cell.name in chosen else [pytest.mark.long]
        marked.append(pytest.param(cell, id=cell.name, marks=marks))
    return marked


@pytest.mark.parametrize("cell", parameters())
def test_a_fault_is_told_in_time_as_what_it_is_and_nothing_else(cell: Cell) -> None:
    told = alerts_of(cell.bedside.watched())
    wrong = [*what_is_missing(cell, told), *what_is_false(cell, told)]
    assert not wrong, "\n".join([cell.name, *wrong])


def what_is_missing(cell: Cell, told: list[Alert]) -> list[str]:
    if cell.undecidable:
        return []
    return [
        f"not told by {due.by_ms / 1000:.0f} s: {' or '.join(sorted(due.kinds))}"
        for due in cell.due
        if not any(is_of(due.kinds, due.code, one) and one.at_s * 1000 <= due.by_ms for one in told)
    ]


def what_is_false(cell: Cell, told: list[Alert]) -> list[str]:
    wrong = []
    for one in told:
        fits = [due for due in cell.due if is_of(due.kinds, due.code, one)]
        if not fits and Kind(one.kind) not in cell.also:
            wrong.append(f"false: {one}")
        elif fits and all(one.at_s * 1000 < due.from_ms - 1 for due in fits):
            wrong.append(f"told before it was true: {one}")
    return wrong


def is_of(kinds: frozenset[Kind], code: str | None, one: Alert) -> bool:
    return Kind(one.kind) in kinds and code in (None, one.code)


def test_each_fault_of_the_catalogue_has_its_cells_and_most_of_them_are_decidable() -> None:
    by_code: dict[str, list[Cell]] = defaultdict(list)
    for cell in cells():
        by_code[cell.code].append(cell)
    assert set(by_code) == set(ROWS)
    assert len(cells()) > 1_500
    asked = [cell for cell in cells() if cell.due]
    assert sum(not cell.undecidable for cell in asked) / len(asked) > 0.85
    assert len({cell.name for cell in cells()}) == len(cells())
