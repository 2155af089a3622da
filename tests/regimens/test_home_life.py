"""Ordinary days: nobody is told what nothing called for, and each day is the same whenever it is lived."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from benchmarks.home_life import ROWS, messy_day, quiet_day, with_a_true_fault
from benchmarks.messy_home import live, live_with_a_fault, poll_of, report
from tests.regimens.bedside import alerts_of
from tests.regimens.cells import DAY

SEED = 20_260_504
DAYS = range(24)


def test_a_day_is_the_same_for_the_same_seed_and_another_for_another() -> None:
    one, same, other = messy_day(1, 7), messy_day(1, 7), messy_day(2, 7)
    assert (one.patient.regimen, one.faults, one.rows) == (same.patient.regimen, same.faults, same.rows)
    assert (one.patient.regimen, one.faults, one.rows) != (other.patient.regimen, other.faults, other.rows)


def test_everything_that_happens_in_a_home_happens_in_a_thousand_days() -> None:
    happened = Counter(row for number in range(400) for row in messy_day(SEED, number).rows)
    assert set(happened) == {make.__name__ for make in ROWS}


def test_a_quiet_day_is_24_hours_and_asks_for_nothing() -> None:
    day = quiet_day("in1", random.Random(1))
    assert day.until_ms - day.from_ms == DAY
    assert day.called == []


def test_in_ordinary_days_nothing_is_told_that_nothing_called_for() -> None:
    lived = [live(number, seed=SEED, ordered_poll=False, clean=False) for number in DAYS]
    assert [words for one in lived for words in one.false] == []
    assert "false: 0 in" in "\n".join(report(lived, SEED))


def test_a_true_fault_on_such_a_day_is_told_in_time() -> None:
    lived = [live_with_a_fault(number, seed=SEED, ordered_poll=False) for number in DAYS]
    faulty = [one for one in lived if one is not None]
    assert len(faulty) > len(DAYS) / 2
    assert [(one.number, one.fault) for one in faulty if not one.found] == []


@pytest.mark.parametrize("number", [3, 5])
def test_an_alert_that_nothing_called_for_would_be_counted(number: int) -> None:
    """The true fault of the second part, judged as if it were an ordinary day."""
    day = messy_day(SEED, number)
    poll_ms = poll_of(day, ordered=False)
    assert with_a_true_fault(day, poll_ms, random.Random(f"{SEED} fault {number}")) is not None
    told = day.bedside(poll_ms, number).watched()
    assert any(not day.is_called_for(one) for one in alerts_of(told))
