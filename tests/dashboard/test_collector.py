"""Which numbers may be receipted: mqtt page, "Numbers, stores and receipts"."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alerts.dashboard import collector
from alerts.dashboard.collector import ABOVE_MAX, GIVE_UP_AFTER_MS, LaneProgress, Lost, ReceiptTimer


def after(*numbers: int, at_ms: int = 0, start: LaneProgress | None = None) -> LaneProgress:
    progress = start or LaneProgress()
    for number in numbers:
        progress = collector.stored(progress, number, at_ms)
    return progress


@pytest.mark.parametrize(
    ("came", "done"),
    [
        ((1,), 1),
        ((1, 2, 3), 3),
        ((3, 1, 2), 3),
        ((1, 3), 1),
        ((1, 1, 1), 1),
        ((7,), None),
        ((), None),
    ],
)
def test_only_contiguous_numbers_are_done(came: tuple[int, ...], done: int | None) -> None:
    assert after(*came).done == done


def test_a_collector_that_knows_nothing_of_a_store_begins_at_the_oldest_of_the_beat() -> None:
    progress, lost = collector.beat(after(12, 11), oldest=11)
    assert (progress.done, lost) == (12, ())


def test_numbers_below_the_oldest_that_it_lacks_are_lost_and_passed_over() -> None:
    progress, lost = collector.beat(after(1, 2, 5, 9), oldest=8)
    assert progress.done == 7
    assert lost == (
        Lost(first=3, last=4, reason="released"),
        Lost(first=6, last=7, reason="released"),
    )
    assert collector.stored(progress, 8, 0).done == 9


def test_a_beat_that_still_holds_what_is_done_loses_nothing() -> None:
    assert collector.beat(after(1, 2, 3), oldest=1) == (after(1, 2, 3), ())


def test_a_missing_number_is_passed_over_ten_minutes_after_a_later_one_came() -> None:
    waiting = after(4, at_ms=60_000, start=after(1, 2))
    early, lost = collector.give_up(waiting, 60_000 + GIVE_UP_AFTER_MS - 1)
    assert (early.done, lost) == (2, ())
    late, lost = collector.give_up(waiting, 60_000 + GIVE_UP_AFTER_MS)
    assert (late.done, lost) == (4, (Lost(first=3, last=3, reason="not_come"),))


def test_a_number_that_came_in_time_is_not_given_up_with_the_ones_before_it() -> None:
    waiting = after(6, at_ms=500_000, start=after(4, at_ms=0, start=after(1, 2)))
    progress, lost = collector.give_up(waiting, GIVE_UP_AFTER_MS)
    assert (progress.done, lost) == (4, (Lost(first=3, last=3, reason="not_come"),))


@pytest.mark.parametrize("done", [(), (1,)])
def test_a_flood_of_numbers_with_gaps_is_not_remembered_without_end(done: tuple[int, ...]) -> None:
    waiting = after(*done, *range(3, 2 * ABOVE_MAX + 3, 2))
    assert collector.give_up(waiting, 0) == (waiting, ())
    flood = after(2 * ABOVE_MAX + 3, start=waiting)
    progress, lost = collector.give_up(flood, 0)
    assert (progress.done, progress.above) == (2 * ABOVE_MAX + 3, ())
    assert len(lost) == ABOVE_MAX + len(done)


def test_a_receipt_is_due_after_ten_messages_or_within_a_second() -> None:
    timer = ReceiptTimer().handled(5_000)
    assert not timer.is_due(5_699)
    assert timer.is_due(5_700)
    for _ in range(9):
        timer = timer.handled(5_000)
    assert timer.is_due(5_000)
    assert not ReceiptTimer().is_due(10**9)


@given(st.permutations(range(1, 9)), st.lists(st.integers(1, 8)))
def test_the_order_of_arrival_and_duplicates_do_not_matter(order: list[int], again: list[int]) -> None:
    assert after(*order, *again) == after(*range(1, 9))


@given(st.sets(st.integers(1, 30)), st.integers(1, 30))
def test_every_number_up_to_what_is_done_is_either_stored_or_known_to_be_lost(
    came: set[int], oldest: int
) -> None:
    progress, lost = collector.beat(after(*sorted(came)), oldest)
    known_lost = {number for run in lost for number in range(run.first, run.last + 1)}
    assert progress.done is not None
    assert not known_lost & came
    if 1 in came:
        assert set(range(1, progress.done + 1)) <= came | known_lost
