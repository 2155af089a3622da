"""No rule on wall time: where times of the wall clock are subtracted or compared is named here, with why."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from fnmatch import fnmatchcase

import pytest

from tests.architecture.house import Source, source_of, the_house

MAY: dict[str, str] = {
    "gateway/core/timeline.py:*": "makes the continuous time of all rules out of what the clocks say",
    "gateway/replay.py:*": "recordings without uptime_s have no other time",
    "gateway/core/case.py:*": "due times, by the clock that the schedule was anchored with",
    "gateway/core/doses.py:*": "due times, by the clock that the schedule was anchored with",
    "gateway/core/revision.py:*": "due times, by the clock that the schedule was anchored with",
    "gateway/core/schedule.py:*": "due times, by the clock that the schedule was anchored with",
    "alerts/lifecycle.py:acknowledge": "an answer out of a broker's queue may be too old (mqtt page, ack)",
    "gateway/engine.py:_absence": "a request out of a broker's queue may be too old (mqtt page, answer)",
    "gateway/engine.py:_order*": "effective_by is a date (mqtt page, order)",
    "gateway/order*.py:*": "effective_by is a date (mqtt page, order)",
    "gateway/certificate.py:judged": "the end of a certificate is a date, judged while the clock is trusted",
}
"""Function to its reason. A new rule counts on ``t_ms``; what is a date by nature gets a line here."""
COMPARES = (ast.Lt, ast.LtE, ast.Gt, ast.GtE)


def is_wall_time(node: ast.expr) -> bool:
    names = (
        part.attr if isinstance(part, ast.Attribute) else part.id
        for part in ast.walk(node)
        if isinstance(part, ast.Attribute | ast.Name)
    )
    return any(name.endswith("utc_ms") for name in names)


def by_wall_time(source: Source) -> Iterator[str]:
    """Each function that takes one wall time from another, or asks which is later."""
    for function in ast.walk(source.tree):
        if not isinstance(function, ast.FunctionDef):
            continue
        for node in ast.walk(function):
            operands: list[ast.expr] = []
            if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Sub):
                operands = [node.left, node.right]
            elif isinstance(node, ast.Compare) and isinstance(node.ops[0], COMPARES):
                operands = [node.left, *node.comparators]
            if len(list(filter(is_wall_time, operands))) > 1:
                yield f"{source.path}:{function.name}"


def is_of_the_home(source: Source) -> bool:
    return source.package in ("gateway", "alerts") and not source.path.startswith("alerts/dashboard/")


def test_no_rule_of_the_home_is_on_wall_time_but_those_with_a_reason() -> None:
    found = {place for source in the_house() if is_of_the_home(source) for place in by_wall_time(source)}
    assert [place for place in sorted(found) if not any(fnmatchcase(place, may) for may in MAY)] == []


@pytest.mark.parametrize(
    "rule",
    [
        "def f():\n    return now_utc_ms - self.since_utc_ms > 5",
        "def f():\n    return turn.instant.utc_ms >= due_utc_ms",
        "def f():\n    return first.utc_ms + 5 < later.utc_ms",
    ],
)
def test_a_rule_on_wall_time_is_seen(rule: str) -> None:
    assert list(by_wall_time(source_of("gateway/example.py", rule))) == ["gateway/example.py:f"]


@pytest.mark.parametrize(
    "rule",
    [
        "def f():\n    return utc_ms - (t_ms - since_t_ms)",
        "def f():\n    return self._utc_ms == told.utc_ms",
        "def f():\n    return t_ms - since_t_ms >= 5",
    ],
)
def test_a_date_for_people_is_no_rule(rule: str) -> None:
    assert list(by_wall_time(source_of("gateway/example.py", rule))) == []
