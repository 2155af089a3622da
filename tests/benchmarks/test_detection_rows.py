"""What was measured is told as it is: also what was never found."""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks.detection_rows import Delay, Row, summary, table


def delay(*seconds: float) -> Delay:
    return Delay.of(np.array(seconds))


def row(ours: Delay, *, windows: Delay | None = None) -> Row:
    return Row(
        rate_ml_h=10.0,
        counter_ml=0.1,
        tolerance=0.05,
        shift=0.2,
        delays={
            "ours": ours,
            "told": delay(10.0, 10.0),
            "windows": windows or delay(30.0),
            "cumulative": delay(math.inf),
        },
    )


class TestDelay:
    def test_it_is_a_mean_and_a_95th_percentile(self) -> None:
        found = delay(*range(101))
        assert (found.mean_s, found.p95_s, found.missed) == (50.0, 95.0, 0.0)

    def test_what_is_not_found_counts_as_missed_not_as_soon_found(self) -> None:
        found = delay(10.0, 20.0, math.inf, math.inf)
        assert (found.mean_s, found.missed, found.always_found) == (15.0, 0.5, False)

    def test_where_nothing_is_found_there_is_no_delay(self) -> None:
        assert delay(math.inf, math.inf) == Delay(None, None, 1.0)


class TestSummary:
    def test_it_compares_with_the_detector_that_was_told(self) -> None:
        rows = [row(delay(seconds)) for seconds in (10.0, 11.0, 20.0)]
        ours = summary(rows)["ours"]
        assert (ours["median"], ours["worst"]) == (1.1, 2.0)
        assert ours["p95"] == pytest.approx(1.91)
        assert summary(rows)["windows"]["median"] == 3.0

    def test_rows_that_are_not_always_found_are_counted_not_compared(self) -> None:
        rows = [row(delay(10.0), windows=delay(5.0, math.inf)), row(delay(10.0))]
        assert summary(rows)["windows"] == {
            "median": 3.0,
            "p95": 3.0,
            "worst": 3.0,
            "never_or_not_always": "1 of 2",
        }

    def test_a_detector_that_never_finds_anything_has_no_ratio(self) -> None:
        assert summary([row(delay(10.0))])["cumulative"] == {
            "median": None,
            "p95": None,
            "worst": None,
            "never_or_not_always": "1 of 1",
        }


def test_the_table_says_each_delay_in_words() -> None:
    text = table([row(delay(11.0, 11.0), windows=delay(300.0, 300.0, 300.0, math.inf))])
    assert "Tolerance 5 %, counter 0.1 mL" in text
    assert "| 10 | 20 % | never | 25 % never, else 5 min / 5 min | 11 s / 11 s | 10 s / 10 s | 1.10 |" in text
