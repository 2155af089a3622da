"""The picture of a pump: what is drawn, and what is not."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from alerts.dashboard.chart import HEIGHT, LEFT, POINTS_DRAWN_MAX, RIGHT, TOP, WIDTH, Point, chart

MINUTE_MS = 60_000


def test_one_moment_is_no_picture() -> None:
    assert chart([]) is None
    assert chart([Point(0, 1.0, 1.0)]) is None
    assert chart([Point(0, None, None), Point(MINUTE_MS, None, None)]) is None


def test_the_lines_begin_at_the_left_and_end_at_the_right() -> None:
    drawn = chart([Point(0, 0.0, 0.0), Point(MINUTE_MS, 10.0, 5.0)])
    assert drawn is not None
    assert drawn.expected == f"M{LEFT} 190 L{WIDTH - RIGHT} {TOP}"
    assert drawn.last_counted_y == (190 + TOP) / 2
    assert [tick.value for tick in drawn.volume_ticks] == ["0", "2.5", "5", "7.5", "10"]


def test_a_missing_value_and_the_next_occurrence_break_the_line() -> None:
    counted = [0.0, 1.0, None, 2.0, 3.0, 0.0, 0.5]
    drawn = chart([Point(n * MINUTE_MS, None, value) for n, value in enumerate(counted)])
    assert drawn is not None
    assert [word[0] for word in drawn.counted.split() if word[0] in "ML"] == ["M", "L", "M", "L", "M", "L"]
    assert drawn.expected == ""


def test_many_points_are_thinned_and_the_newest_stays() -> None:
    drawn = chart([Point(n * MINUTE_MS, n, n) for n in range(5_000)])
    assert drawn is not None
    assert drawn.counted.count("L") <= POINTS_DRAWN_MAX
    assert drawn.last_x == WIDTH - RIGHT


@given(
    st.lists(
        st.tuples(st.integers(0, 10**12), st.none() | st.floats(-1e6, 1e6), st.none() | st.floats(-1e6, 1e6)),
        max_size=40,
    )
)
def test_whatever_comes_stays_within_the_picture(rows: list[tuple[int, float | None, float | None]]) -> None:
    drawn = chart([Point(*row) for row in {row[0]: row for row in rows}.values()])
    if drawn is None:
        return
    for word in f"{drawn.expected} {drawn.counted}".replace("M", "").replace("L", "").split()[1::2]:
        assert TOP <= float(word) <= HEIGHT
