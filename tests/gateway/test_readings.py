"""readings.csv: cells that are not there are not zeros, and a bad row spoils no other."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.reading import PumpState
from gateway.readings import LONGEST_LINE, BadRow, HeaderError, Row, lines_of, read_rows

HEADER = "time,state,rate_ml_h,volume_ml,alarms,uptime_s,clock\n"
GOOD = "2026-05-04T07:00:05.123Z,running,10.00,1.5,,44621.404,synced\n"


def rows(*lines: str) -> list[Row | BadRow]:
    return list(read_rows([HEADER, *lines]))


def test_a_row_is_a_moment_and_a_reading() -> None:
    (row,) = rows(GOOD)
    assert isinstance(row, Row)
    assert row.moment.utc_ms == 1_777_878_005_123
    assert row.moment.monotonic_ms == 44_621_404
    assert row.moment.synced
    assert row.reading.state is PumpState.RUNNING
    assert row.reading.rate_ml_h == 10.0
    assert row.reading.volume_ml == 1.5
    assert row.reading.vtbi_ml is None


def test_an_empty_cell_is_not_a_zero() -> None:
    (row,) = rows("2026-05-04T07:00:05Z,,,,,,\n")
    assert isinstance(row, Row)
    assert row.reading.state is PumpState.UNKNOWN
    assert row.reading.volume_ml is None
    assert row.moment.monotonic_ms is None


@pytest.mark.parametrize(
    ("state", "cell", "alarms"),
    [
        ("running", "", ()),
        ("unknown", "", None),
        ("", "", None),
        ("alarm", "empty", ("empty",)),
        ("alarm", "empty;vendor:E-42", ("empty", "vendor:E-42")),
        ("alarm", "no such code!", ("vendor:no_such_code_",)),
    ],
)
def test_an_empty_alarms_cell_says_none_only_where_the_state_is_known(
    state: str, cell: str, alarms: tuple[str, ...] | None
) -> None:
    (row,) = rows(f"2026-05-04T07:00:05Z,{state},,,{cell},,\n")
    assert isinstance(row, Row)
    assert row.reading.alarms == alarms


def test_without_the_column_nothing_is_known_of_alarms() -> None:
    (row,) = read_rows(["state,time\n", "running,2026-05-04T07:00:05Z\n"])
    assert isinstance(row, Row)
    assert row.reading.alarms is None


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("yesterday,running,,,,,\n", "time: 'yesterday'"),
        ("2026-05-04T07:00:05,running,,,,,\n", "offset"),
        ("2026-05-04T07:00:05Z,flying,,,,,\n", "state: 'flying'"),
        ("2026-05-04T07:00:05Z,running,ten,,,,\n", "rate_ml_h: 'ten'"),
        ("2026-05-04T07:00:05Z,running,nan,,,,\n", "rate_ml_h: 'nan'"),
        ("2026-05-04T07:00:05Z,running,,-1,,,\n", "volume_ml: '-1'"),
        ("2026-05-04T07:00:05Z,running,inf,,,,\n", "rate_ml_h: 'inf'"),
        ("2026-05-04T07:00:05Z,running,,,,,maybe\n", "clock: 'maybe'"),
        ("2026-05-04T07:00:05Z,running\n", "2 cells"),
    ],
)
def test_a_bad_row_is_counted_with_its_line_and_its_reason_and_the_next_is_read(
    line: str, words: str
) -> None:
    bad, good = rows(line, GOOD)
    assert isinstance(bad, BadRow)
    assert bad.line == 2
    assert words in bad.reason
    assert isinstance(good, Row)


class EndlessLine(io.StringIO):
    """A file that never ends its line, as /dev/zero; refuses to be read on without bound."""

    def readline(self, size: int | None = -1, /) -> str:
        assert size is not None and 0 < size <= LONGEST_LINE + 1
        return "\0" * size


@pytest.mark.parametrize("length", [LONGEST_LINE, 3 * LONGEST_LINE, 3 * LONGEST_LINE + 7])
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_a_line_that_is_too_long_is_one_bad_row_and_the_next_is_read(length: int, ending: str) -> None:
    text = io.StringIO(f"{HEADER}{'1,' * (length // 2)}1{ending}{GOOD}yesterday\n", newline="")
    bad, good, last = read_rows(lines_of(text))
    assert bad == BadRow(2, f"is longer than {LONGEST_LINE} characters")
    assert isinstance(good, Row)
    assert isinstance(last, BadRow)
    assert last.line == 4


def test_a_first_line_without_an_end_is_refused_and_never_held_whole() -> None:
    with pytest.raises(HeaderError, match="line 1: is longer than"):
        next(read_rows(lines_of(EndlessLine())))


@pytest.mark.parametrize("lines", [[], ["\n"], ["state,volume_ml\n"], ["garbage"]])
def test_without_a_header_nothing_can_be_read(lines: list[str]) -> None:
    with pytest.raises(HeaderError):
        list(read_rows(lines))


@given(
    st.lists(
        st.one_of(st.text(max_size=60), st.just(GOOD.strip()), st.text(",;0123456789TZ:-.e+", max_size=80))
    )
)
def test_whatever_the_lines_the_answer_is_rows(lines: list[str]) -> None:
    for row in read_rows([HEADER, *(line + "\n" for line in lines)]):
        assert isinstance(row, Row | BadRow)
