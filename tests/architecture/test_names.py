"""Every number with a unit ends in its unit, written one way: `_s`, `_ms`, `_ml`, `_ml_h`."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from tests.architecture.house import Source, source_of, the_house

WRITTEN: dict[str, tuple[str, ...]] = {
    "_s": ("_sec", "_secs", "_second", "_seconds"),
    "_ms": ("_msec", "_msecs", "_millis", "_milliseconds"),
    "_us": ("_usec", "_micros", "_microseconds"),
    "_ml": ("_millilitre", "_millilitres", "_milliliter", "_milliliters", "_cc"),
    "_ml_h": ("_mlh", "_mlhr", "_ml_hr", "_mlph", "_ml_per_h", "_ml_per_hour"),
    "_percent": ("_pct", "_perc"),
}


def given_names(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and name of everything that a file gives a name to: functions, parameters, variables, fields."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.lineno, node.name
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.attr


def units_written_otherwise(source: Source) -> Iterator[str]:
    for line, name in given_names(source.tree):
        for unit, otherwise in WRITTEN.items():
            if name.lower().lstrip("_").endswith(otherwise):
                yield source.complaint(line, f"{name} ends in a unit that we write {unit}")


def test_units_are_written_one_way() -> None:
    assert [complaint for source in the_house() for complaint in units_written_otherwise(source)] == []


@pytest.mark.parametrize(
    "text",
    [
        "timeout_seconds = 5",
        "def wait(for_sec): ...",
        "def rate_mlh(): ...",
        "class Reading:\n    age_millis: int",
        "RATE_ML_HR = 1.0",
        "self.deviation_pct = 3",
        "for lag_secs in (): ...",
    ],
)
def test_a_unit_written_otherwise_is_seen(text: str) -> None:
    assert len(list(units_written_otherwise(source_of("gateway/example.py", text)))) == 1


@pytest.mark.parametrize(
    "text", ["now_ms = 1", "rate_ml_h = 1.0", "_SECONDS = 60", "sleep(timeout_seconds=5)"]
)
def test_a_unit_written_our_way_or_in_the_words_of_a_library_is_not(text: str) -> None:
    assert list(units_written_otherwise(source_of("gateway/example.py", text))) == []
