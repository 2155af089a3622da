"""Laws that every replay keeps, on days of a noisy pump, good and bad, and on one recording."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from alerts.condition import Kind
from alerts.inhibition import HOLDS_BACK, Inhibition, InhibitionState, Phase
from drivers.reading import PumpState
from gateway.core.monitor import Monitor
from gateway.core.order import parse_order
from gateway.core.prescription import Prescription
from gateway.core.timeline import Timeline, TimelineState
from gateway.readings import read_rows
from gateway.recording import Tally, in_order_of_time
from gateway.replay import Event, event, iso_utc, replay
from tests.gateway.core.pump_days import NoisyPump, Segment

HEADER = "time,state,rate_ml_h,volume_ml,alarms,uptime_s\n"
RECORDING = Path(__file__).parents[1] / "recordings" / "infliximab-kvo-left"
ORDER = """
format = "infusion-prescription/1"
[patient]
id = "P-0001"
[drug]
name = "test"
[schedule]
start = 2026-05-04T06:00:00+00:00
[[schedule.phase]]
duration = "2h"
rate_ml_h = {rate_ml_h}
[limits]
tolerance_percent = 10
start_window = "10min"
max_pause = "10min"
no_data_after = "3min"
max_rate_ml_h = {max_rate_ml_h}
[pump]
counter_ml = {counter_ml}
stroke_ml = {stroke_ml}
ripple_ml = {ripple_ml}
poll = "10s"
{pump}
"""


def order_text(scale: float = 1.0, pump: str = "") -> str:
    return ORDER.format(
        rate_ml_h=10.0 * scale,
        max_rate_ml_h=64.0 * scale,
        counter_ml=0.125 * scale,
        stroke_ml=0.0625 * scale,
        ripple_ml=0.03125 * scale,
        pump=pump,
    )


def day(*segments: tuple[int, PumpState, float], **pump: float) -> NoisyPump:
    """``(minute, state, rate)`` rows; the pump as the order expects it."""
    rows = [Segment(minute * 60.0, state, rate_ml_h) for minute, state, rate_ml_h in segments]
    return NoisyPump(
        rows,
        counter_ml=0.125,
        stroke_ml=0.0625,
        ripple_ml=0.03125,
        poll_s=10.0,
        **pump,  # type: ignore[arg-type]
    )


IDLE, RUNNING, PAUSED = PumpState.IDLE, PumpState.RUNNING, PumpState.PAUSED
DAYS = {
    "all is well": day((-5, IDLE, 0), (0, RUNNING, 10), (121, IDLE, 0)),
    "a pause that is allowed": day(
        (-5, IDLE, 0), (0, RUNNING, 10), (40, PAUSED, 0), (45, RUNNING, 10), (126, IDLE, 0)
    ),
    "a pause too long": day((-5, IDLE, 0), (0, RUNNING, 10), (40, PAUSED, 0), (70, RUNNING, 10)),
    "too slow from half an hour on": day((-5, IDLE, 0), (0, RUNNING, 10), factor=0.75, shifted_at_s=1800),
    "too fast from half an hour on": day((-5, IDLE, 0), (0, RUNNING, 10), factor=1.5, shifted_at_s=1800),
    "it stands still and says that it runs": day(
        (-5, IDLE, 0), (0, RUNNING, 10), factor=0.0, shifted_at_s=2400
    ),
    "set to another rate": day((-5, IDLE, 0), (0, RUNNING, 10), (30, RUNNING, 24), (60, RUNNING, 10)),
    "above the hard limit": day((-5, IDLE, 0), (0, RUNNING, 10), (30, RUNNING, 80), (35, RUNNING, 10)),
    "begun too late": day((-5, IDLE, 0), (25, RUNNING, 10), (110, IDLE, 0)),
    "ended too early": day((-5, IDLE, 0), (0, RUNNING, 10), (60, IDLE, 0)),
}
names = st.sampled_from(sorted(DAYS))


@dataclass(frozen=True)
class Line:
    """One reading, not yet written."""

    utc_ms: int
    uptime_ms: int
    state: str
    rate_ml_h: float
    volume_ml: float


@cache
def lines_of(name: str) -> tuple[Line, ...]:
    return tuple(
        Line(
            moment.utc_ms,
            moment.monotonic_ms or 0,
            reading.state,
            reading.rate_ml_h or 0.0,
            reading.volume_ml or 0.0,
        )
        for moment, reading in DAYS[name].readings(-300.0, 130 * 60.0)
    )


def written(line: Line, offset: timedelta = timedelta()) -> str:
    """A row of readings.csv; its time on the clock of another zone."""
    time = datetime.fromisoformat(iso_utc(line.utc_ms)).astimezone(timezone(offset))
    return (
        f"{time.isoformat(timespec='milliseconds')},{line.state},{line.rate_ml_h!r},{line.volume_ml!r},,"
        f"{line.uptime_ms / 1000:.3f}\n"
    )


def told(lines: Iterable[Line], order: str | None = None) -> list[Event]:
    return told_of_text([HEADER, *map(written, lines)], parse_order(order or order_text()))


def told_of_text(text: Iterable[str], order: Prescription) -> list[Event]:
    return [one for one in replay(order, read_rows(text), Tally()) if isinstance(one, Event)]


@cache
def whole(name: str) -> tuple[Event, ...]:
    return tuple(told(lines_of(name)))


def alerts(events: Iterable[Event]) -> list[Event]:
    return [one for one in events if one.phase == "start" and one.priority != "info"]


def first_ms(events: Iterable[Event]) -> dict[str, float]:
    """When each kind of alert was first raised."""
    firsts: dict[str, float] = {}
    for one in alerts(events):
        firsts.setdefault(one.kind, ms(one.time))
    return firsts


def ms(time: str) -> float:
    return datetime.fromisoformat(time).timestamp() * 1000


def close(one: float | None, other: float | None) -> bool:
    """The same volume, printed to 0.001 mL."""
    return one == other or (one is not None and other is not None and abs(one - other) <= 0.002)


def test_the_days_are_what_they_are_called() -> None:
    """The laws below say nothing of days on which nothing is told."""
    assert {name: sorted(first_ms(whole(name))) for name in DAYS} == {
        "all is well": [],
        "a pause that is allowed": [],
        "a pause too long": ["paused_too_long"],
        "too slow from half an hour on": ["under_infusion"],
        "too fast from half an hour on": ["over_infusion"],
        "it stands still and says that it runs": ["no_delivery"],
        "set to another rate": ["over_infusion", "wrong_rate"],
        "above the hard limit": ["limit_exceeded", "over_infusion", "wrong_rate"],
        "begun too late": ["not_started", "stopped_early"],
        "ended too early": ["stopped_early"],
    }


@settings(max_examples=20, deadline=None)
@given(names, st.integers(0, 2**32), st.integers(1, 40))
def test_duplicates_and_disorder_change_nothing(name: str, seed: int, often: int) -> None:
    lines = lines_of(name)
    mixed: list[Line] = []
    for number, line in enumerate(lines):
        mixed.append(line)
        if (number * 2654435761 + seed) % often == 0:
            mixed.extend(lines[max(0, number - often) : number + 1])
    assert told(mixed) == list(whole(name))


@settings(max_examples=20, deadline=None)
@given(names, st.integers(-14 * 4, 14 * 4), st.integers(-14 * 4, 14 * 4))
def test_another_time_zone_changes_nothing(name: str, quarters: int, ordered_quarters: int) -> None:
    """Neither that of the readings nor that of the order."""
    offset = timedelta(minutes=15 * quarters)
    start = datetime.fromisoformat("2026-05-04T06:00:00+00:00")
    elsewhere = start.astimezone(timezone(timedelta(minutes=15 * ordered_quarters))).isoformat()
    order = re.sub(r"start = \S+", f"start = {elsewhere}", order_text())
    text = [HEADER, *(written(line, offset) for line in lines_of(name))]
    assert told_of_text(text, parse_order(order)) == list(whole(name))


@settings(max_examples=20, deadline=None)
@given(names, st.integers(60, 750), st.integers(-7_200_000, 7_200_000).filter(lambda ms: abs(ms) > 1_000))
def test_a_step_of_the_clock_changes_nothing_but_the_times_that_are_printed(
    name: str, at: int, by_ms: int
) -> None:
    lines = lines_of(name)
    stepped = [
        replace(line, utc_ms=line.utc_ms + by_ms) if number >= at else line
        for number, line in enumerate(lines)
    ]
    after = [one for one in told(stepped) if one.kind != "clock_stepped"]
    before = whole(name)
    assert [(one.kind, one.phase, one.priority) for one in after] == [
        (one.kind, one.phase, one.priority) for one in before
    ]
    for one, other in zip(after, before, strict=True):
        assert ms(one.time) - ms(other.time) in (0, by_ms)
        assert close(one.expected_ml, other.expected_ml)
        assert close(one.delivered_ml, other.delivered_ml)


@settings(max_examples=20, deadline=None)
@given(names, st.sampled_from([4.0, 7.5, 10.0, 16.0]))
def test_a_counter_that_wraps_changes_nothing(name: str, wrap_ml: float) -> None:
    wrapping = [replace(line, volume_ml=line.volume_ml % wrap_ml) for line in lines_of(name)]
    order = order_text(pump=f"counter_wrap_ml = {wrap_ml}")
    # a message may name what the pump's display shows
    assert [structs.replace(one, message="") for one in told(wrapping, order)] == [
        structs.replace(one, message="") for one in whole(name)
    ]


@settings(max_examples=20, deadline=None)
@given(names, st.lists(st.integers(1, 780), max_size=4))
def test_a_file_in_pieces_tells_what_it_tells_in_one(name: str, cuts: list[int]) -> None:
    """Between two pieces all that is remembered is written down and read again."""
    text = [written(line) for line in lines_of(name)]
    edges = [0, *sorted(cuts), len(text)]
    pieces = [[HEADER, *text[begin:end]] for begin, end in pairwise(edges)]
    assert list(told_in_pieces(parse_order(order_text()), pieces)) == list(whole(name))


def told_in_pieces(order: Prescription, pieces: list[list[str]]) -> Iterator[Event]:
    state = TimelineState()
    monitor = Monitor("pump", order)
    held = InhibitionState()
    for piece in pieces:
        monitor = Monitor.restore("pump", order, monitor.snapshot())
        state = read_again(state)
        inhibition = Inhibition(order.urgency, read_again(held))
        for instant, reading in in_order_of_time(read_rows(piece), Tally(), Timeline(state)):
            for transition in inhibition.apply(monitor.step(instant, reading)):
                if transition.phase is not Phase.WORSE:
                    yield event(transition)
        held = inhibition.state


Kept = TypeVar("Kept", TimelineState, InhibitionState)


def read_again(kept: Kept) -> Kept:
    return msgspec.msgpack.decode(msgspec.msgpack.encode(kept), type=type(kept))


@settings(max_examples=40, deadline=None)
@given(names, st.integers(40, 700), st.integers(1, 120), st.integers(1, 120))
def test_a_longer_gap_never_makes_an_alert_earlier(name: str, begin: int, shorter: int, more: int) -> None:
    lines = lines_of(name)
    with_gap = [told([*lines[:begin], *lines[begin + length :]]) for length in (shorter, shorter + more)]
    sooner, later = map(first_ms, with_gap)
    for kind in later.keys() - {"no_data"}:
        # a cause that fell into the gap no longer holds its effect back: the fault itself was told before
        already = [sooner[one] for one in (kind, *causes_of(kind)) if one in sooner]
        assert not already or later[kind] >= min(already), kind

    # nor does it make a fault of a day without one, the silence itself apart
    if name == "all is well":
        assert later.keys() <= {"no_data"}


def causes_of(kind: str) -> list[str]:
    """Kinds that hold this one back."""
    return [cause.value for cause, effects in HOLDS_BACK.items() if Kind(kind) in effects]


@settings(max_examples=20, deadline=None)
@given(names, st.sampled_from([0.25, 0.5, 2.0, 8.0]))
def test_rates_volumes_and_steps_scaled_together_tell_the_same(name: str, scale: float) -> None:
    scaled = [
        replace(line, rate_ml_h=line.rate_ml_h * scale, volume_ml=line.volume_ml * scale)
        for line in lines_of(name)
    ]
    events = told(scaled, order_text(scale))
    assert [(one.time, one.kind, one.phase, one.priority, one.since) for one in events] == [
        (one.time, one.kind, one.phase, one.priority, one.since) for one in whole(name)
    ]
    for one, other in zip(events, whole(name), strict=True):
        for volume_ml, was_ml in (
            (one.expected_ml, other.expected_ml),
            (one.delivered_ml, other.delivered_ml),
        ):
            if volume_ml is not None and was_ml is not None:
                assert volume_ml == pytest.approx(was_ml * scale, abs=0.001 * max(1.0, scale))


@settings(max_examples=20, deadline=None)
@given(names, st.integers(0, 810))
def test_what_was_told_stays_told_wherever_the_input_is_cut(name: str, kept: int) -> None:
    events = told(lines_of(name)[:kept])
    assert events == list(whole(name)[: len(events)])


@pytest.mark.parametrize("name", sorted(DAYS))
def test_an_alert_is_told_by_the_reading_that_shows_it_whatever_comes_after(name: str) -> None:
    lines = lines_of(name)
    for number, alert in enumerate(whole(name)):
        kept = [line for line in lines if line.utc_ms <= ms(alert.time)]
        # a time that runs out between two readings is told with the second of them
        following = lines[len(kept) : len(kept) + 1]
        events = told([*kept, *following])
        assert events[: number + 1] == list(whole(name)[: number + 1])


RECORDED = (RECORDING / "readings.csv").read_text().splitlines(keepends=True)
CELLS = [
    "",
    "0",
    "-3",
    "1e9",
    "1e400",
    "nan",
    "inf",
    "unknown",
    "off",
    "bolus",
    "garbage",
    "\x00",
    '"',
    ",",
    "\r",
]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 300), st.integers(0, 7), st.sampled_from(CELLS) | st.text()), max_size=60
    )
)
def test_no_row_however_mangled_raises_anything_but_a_counted_rejection(
    wounds: list[tuple[int, int, str]],
) -> None:
    lines = RECORDED[601:901]
    for number, column, cell in wounds:
        if number < len(lines):
            cells = lines[number].split(",")
            cells[min(column, len(cells) - 1)] = cell
            lines[number] = ",".join(cells)
    tally = Tally()
    order = parse_order((RECORDING / "prescription.toml").read_text())
    rows = list(read_rows([RECORDED[0], *lines]))
    list(replay(order, rows, tally))
    assert tally.rows == len(rows)
    assert 0 <= tally.bad + tally.dropped <= tally.rows
    assert (tally.bad > 0) == (tally.first_bad is not None)
