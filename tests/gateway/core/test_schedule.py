"""When doses are due and how much should be in: laws, and the days on which the clocks change."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gateway.core.order import parse_order
from gateway.core.prescription import Phase, Prescription, Schedule
from gateway.core.schedule import Course

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS

ORDER = """
format = "infusion-prescription/1"
[patient]
id = "P-1"
[drug]
name = "D-1"
[schedule]
{schedule}
[[schedule.phase]]
duration = "10min"
volume_ml = 5.0
"""


def order(schedule: str) -> Prescription:
    return parse_order(ORDER.format(schedule=schedule))


def with_schedule(prescription: Prescription, **changes: object) -> Prescription:
    schedule = msgspec.structs.replace(prescription.schedule, **changes)
    return msgspec.structs.replace(prescription, schedule=schedule)


SINGLE = order("start = 2026-03-02T10:00:00+01:00")


def course_of(*phases: tuple[int, float, float]) -> Course:
    """Phases as (duration_ms, from_ml_h, to_ml_h)."""
    made = tuple(Phase(duration_ms=d, from_ml_h=a, to_ml_h=b) for d, a, b in phases)
    return Course(with_schedule(SINGLE, phases=made))


def utc(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000)


def shown(utc_ms: int | None, zone: str = "UTC") -> str | None:
    if utc_ms is None:
        return None
    return datetime.fromtimestamp(utc_ms / 1000, ZoneInfo(zone)).strftime("%a %d %b %H:%M")


# --- the course of one occurrence ---

STEPS = course_of((HOUR_MS, 10, 10), (HOUR_MS, 20, 20), (HOUR_MS, 0, 60), (HOUR_MS, 60, 0))


@pytest.mark.parametrize(
    ("tau_h", "rate_ml_h", "expected_ml"),
    [
        (-1, 0, 0),
        (0, 10, 0),
        (0.5, 10, 5),
        (1, 20, 10),
        (1.5, 20, 20),
        (2, 0, 30),
        (2.5, 30, 37.5),
        (3, 60, 60),
        (3.5, 30, 82.5),
        (4, 0, 90),
        (9, 0, 90),
    ],
)
def test_rate_and_expected_volume_follow_the_phases(tau_h, rate_ml_h, expected_ml):
    assert STEPS.rate_ml_h(tau_h * HOUR_MS) == pytest.approx(rate_ml_h)
    assert STEPS.expected_ml(tau_h * HOUR_MS) == pytest.approx(expected_ml)


@pytest.mark.parametrize(
    ("from_h", "to_h", "rates"),
    [
        (0.2, 0.4, [(10, 10)]),
        (0.9, 1.1, [(10, 10), (20, 20)]),  # at a step either neighbour
        (1.0, 1.0, [(10, 10), (20, 20)]),
        (2.25, 2.5, [(15, 30)]),  # on a ramp the interval
        (2.75, 3.5, [(45, 60), (30, 60)]),
        (-1.0, 0.1, [(10, 10)]),  # what lies outside is left out
        (3.5, 9.0, [(0, 30)]),
        (4.1, 9.0, []),
        (-2.0, -1.0, []),
    ],
)
def test_the_rates_between_two_moments_are_those_of_each_phase_touched(from_h, to_h, rates):
    found = STEPS.rates_between(from_h * HOUR_MS, to_h * HOUR_MS)
    assert [(pytest.approx(low), pytest.approx(high)) for low, high in found] == rates


rates = st.one_of(st.just(0.0), st.floats(0.01, 1000))
phases = st.builds(
    lambda duration_ms, a, b, ramp: (duration_ms, a, b if ramp else a),
    st.integers(1000, 3 * DAY_MS),
    rates,
    rates,
    st.booleans(),
)
courses = st.lists(phases, min_size=1, max_size=6).map(lambda made: course_of(*made))
parts = st.floats(0, 1)


@given(courses, parts, parts)
def test_expected_volume_never_falls(course, one, other):
    low, high = sorted((one * course.length_ms, other * course.length_ms))
    assert course.expected_ml(low) <= course.expected_ml(high) * (1 + 1e-12)


@given(courses, parts, parts)
def test_expected_volume_is_the_integral_of_the_rate(course, one, other):
    """Between corners the rate is a straight line: its value in the middle is its mean."""
    low, high = sorted((one * course.length_ms, other * course.length_ms))
    corners = sorted({low, high, *(c for c in course._starts_ms if low < c < high)})
    total_ml = 0.0
    for left, right in pairwise(corners):
        middle_ml_h = course.rate_ml_h((left + right) / 2)
        total_ml += middle_ml_h * (right - left) / HOUR_MS
    assert course.expected_ml(high) - course.expected_ml(low) == pytest.approx(total_ml, rel=1e-6, abs=1e-6)


@given(courses, parts)
def test_the_moment_of_a_volume_gives_that_volume(course, part):
    assume(course.volume_ml > 0)
    volume_ml = part * course.volume_ml
    tau_ms = course.tau_of_volume(volume_ml)
    assert 0 <= tau_ms <= course.length_ms
    assert course.expected_ml(tau_ms) == pytest.approx(volume_ml, rel=1e-6, abs=1e-6)


@given(courses, parts, parts, parts)
def test_every_rate_within_an_interval_lies_in_its_bounds(course, one, other, inner):
    low, high = sorted((one * course.length_ms, other * course.length_ms))
    tau_ms = low + inner * (high - low)
    assume(tau_ms < course.length_ms)
    rate_ml_h = course.rate_ml_h(tau_ms)
    assert any(
        least * (1 - 1e-9) - 1e-9 <= rate_ml_h <= greatest * (1 + 1e-9) + 1e-9
        for least, greatest in course.rates_between(low, high)
    )


def test_a_volume_is_reached_before_a_pause_and_not_after_it():
    course = course_of((HOUR_MS, 10, 10), (HOUR_MS, 0, 0), (HOUR_MS, 10, 10))
    assert course.tau_of_volume(10) == HOUR_MS
    assert course.tau_of_volume(10.001) > 2 * HOUR_MS


# --- due times ---


def test_a_single_dose_is_due_at_its_start_and_never_again():
    course = Course(SINGLE)
    assert course.due_utc_ms(1) == utc("2026-03-02T09:00:00+00:00")
    assert course.due_utc_ms(0) is None
    assert course.due_utc_ms(2) is None
    assert course.gap_ms(1) is None
    assert course.number_due_at_or_before(utc("2026-03-02T08:59:59+00:00")) == 0
    assert course.number_due_at_or_before(utc("2099-01-01T00:00:00+00:00")) == 1


def test_therapy_as_needed_is_never_due():
    course = Course(with_schedule(SINGLE, as_needed=True, times=0))
    assert course.due_utc_ms(1) is None
    assert course.number_due_at_or_before(utc("2099-01-01T00:00:00+00:00")) == 0


def test_without_a_zone_due_times_keep_to_elapsed_time_through_a_clock_change():
    course = Course(order('start = 2026-03-28T20:00:00+01:00\nevery = "24h"\ntimes = 3'))
    assert [shown(course.due_utc_ms(n), "Europe/Berlin") for n in (1, 2, 3, 4)] == [
        "Sat 28 Mar 20:00",
        "Sun 29 Mar 21:00",
        "Mon 30 Mar 21:00",
        None,
    ]


def test_with_a_zone_due_times_keep_to_the_local_clock_through_a_clock_change():
    course = Course(
        order('start = 2026-03-28T20:00:00+01:00\nevery = "24h"\ntimes = 3\nzone = "Europe/Berlin"')
    )
    assert [shown(course.due_utc_ms(n), "Europe/Berlin") for n in (1, 2, 3, 4)] == [
        "Sat 28 Mar 20:00",
        "Sun 29 Mar 20:00",
        "Mon 30 Mar 20:00",
        None,
    ]
    assert course.gap_ms(1) == 23 * HOUR_MS - 10 * 60_000


AT = 'start = {start}\nat = {at}\nzone = "Europe/Berlin"\ntimes = {times}\n{more}'


@pytest.mark.parametrize(
    ("start", "at", "more", "due"),
    [
        # the first is the first such time not before the start
        ("2026-03-04T08:00:00+01:00", '["06:00", "14:00"]', "", ["Wed 04 Mar 14:00", "Thu 05 Mar 06:00"]),
        ("2026-03-04T06:00:00+01:00", '["14:00", "06:00"]', "", ["Wed 04 Mar 06:00", "Wed 04 Mar 14:00"]),
        ("2026-03-04T06:00:01+01:00", '["06:00"]', "", ["Thu 05 Mar 06:00", "Fri 06 Mar 06:00"]),
        (
            "2026-03-04T06:00:00+01:00",
            '["20:00"]',
            'days = ["mon", "fri"]',
            ["Fri 06 Mar 20:00", "Mon 09 Mar 20:00", "Fri 13 Mar 20:00"],
        ),
        # 02:30 does not exist on 29 March: the next time that does
        (
            "2026-03-28T00:00:00+01:00",
            '["02:30"]',
            "",
            ["Sat 28 Mar 02:30", "Sun 29 Mar 03:00", "Mon 30 Mar 02:30"],
        ),
    ],
)
def test_times_of_day_and_weekdays(start, at, more, due):
    course = Course(order(AT.format(start=start, at=at, times=0, more=more)))
    assert [shown(course.due_utc_ms(n), "Europe/Berlin") for n in range(1, len(due) + 1)] == due


def test_a_local_time_that_comes_twice_is_its_first():
    course = Course(order(AT.format(start="2026-10-24T12:00:00+02:00", at='["02:30"]', times=0, more="")))
    assert course.due_utc_ms(1) == utc("2026-10-25T02:30:00+02:00")
    assert course.due_utc_ms(2) == utc("2026-10-26T02:30:00+01:00")


def test_the_start_keeps_its_own_offset_in_an_hour_that_comes_twice():
    text = 'start = 2026-10-25T02:30:00+01:00\nevery = "24h"\ntimes = 2\nzone = "Europe/Berlin"'
    course = Course(order(text))
    assert course.due_utc_ms(1) == utc("2026-10-25T02:30:00+01:00")
    assert course.due_utc_ms(2) == utc("2026-10-26T02:30:00+01:00")


def test_doses_that_follow_one_another_have_no_gap():
    text = ORDER.replace('"10min"', '"24h"').format(
        schedule='start = 2026-03-02T10:00:00+01:00\nevery = "24h"\ntimes = 3'
    )
    course = Course(parse_order(text))
    assert [course.gap_ms(n) for n in (1, 2, 3)] == [0, 0, None]


def test_a_century_of_doses_every_ten_minutes_is_found_as_fast_as_the_first():
    """A look-up that walked over the doses between would not come to an end here."""
    course = Course(order('start = 2026-03-02T10:00:00+01:00\nevery = "10min"\ntimes = 0'))
    late = utc("2126-03-02T09:05:00+00:00")
    number = course.number_due_at_or_before(late)
    assert number == 5_259_457
    assert shown(course.due_utc_ms(number)) == "Sat 02 Mar 09:00"


zones = st.sampled_from(
    ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "America/Santiago", "UTC"]
)
starts = st.integers(utc("2024-01-01T00:00:00+00:00"), utc("2030-01-01T00:00:00+00:00"))


def repeated(start_utc_ms: int, zone: ZoneInfo | None, times: int, **when: object) -> Schedule:
    return msgspec.structs.replace(
        SINGLE.schedule, start_utc_ms=start_utc_ms, zone=zone, times=times, as_needed=False, **when
    )


numbers_of_times = st.integers(0, 400)
local_intervals = st.builds(
    lambda start, zone, times, hours: repeated(start, zone, times, every_ms=hours * HOUR_MS),
    starts,
    st.one_of(st.none(), zones.map(ZoneInfo)),
    numbers_of_times,
    st.integers(2, 100),
)
times_of_day = st.builds(
    lambda start, zone, times, hours, days: repeated(
        start,
        zone,
        times,
        at_minutes=tuple(sorted(hour * 60 + 30 for hour in hours)),
        weekdays=tuple(sorted(days)),
    ),
    starts,
    zones.map(ZoneInfo),
    numbers_of_times,
    st.sets(st.sampled_from(range(0, 24, 2)), min_size=1),
    st.sets(st.integers(0, 6), min_size=1),
)
schedules = st.one_of(local_intervals, times_of_day)


def course_on(schedule: Schedule) -> Course:
    return Course(msgspec.structs.replace(SINGLE, schedule=schedule))


@given(schedules, st.integers(1, 3000))
def test_due_times_strictly_increase_until_the_last(schedule, number):
    course = course_on(schedule)
    due, following = course.due_utc_ms(number), course.due_utc_ms(number + 1)
    if schedule.times and number >= schedule.times:
        assert following is None
    else:
        assert due is not None
        assert following is not None
        assert due < following


@given(schedules, st.integers(1, 3000))
def test_the_number_of_a_due_time_is_found_again(schedule, number):
    course = course_on(schedule)
    due = course.due_utc_ms(number)
    assume(due is not None)
    assert course.number_due_at_or_before(due) == number
    assert course.number_due_at_or_before(due - 1) == number - 1


@given(schedules)
def test_nothing_is_due_before_the_start(schedule):
    first = course_on(schedule).due_utc_ms(1)
    assert first is not None
    assert first >= schedule.start_utc_ms


@given(times_of_day, st.integers(1, 2000))
def test_a_due_time_shows_an_ordered_time_or_the_first_after_a_clock_change(schedule, number):
    due = course_on(schedule).due_utc_ms(number)
    assume(due is not None)
    local = datetime.fromtimestamp(due / 1000, schedule.zone)
    if local.hour * 60 + local.minute in schedule.at_minutes and local.weekday() in schedule.weekdays:
        return
    just_before = (local.astimezone(UTC) - timedelta(seconds=1)).astimezone(schedule.zone)
    assert just_before.utcoffset() < local.utcoffset(), "moved, and the clocks did not go forward here"


@given(local_intervals, st.integers(2, 2000))
def test_elapsed_time_is_kept_exactly_where_no_zone_is_given(schedule, number):
    assume(schedule.zone is None)
    course = course_on(schedule)
    due = course.due_utc_ms(number)
    assume(due is not None)
    assert due == schedule.start_utc_ms + (number - 1) * schedule.every_ms


@pytest.mark.parametrize("start", ["2026-10-23T02:30:00+02:00", "2026-03-27T02:30:00+01:00"])
def test_day_after_day_there_is_no_gap_in_a_night_of_25_hours_either(start: str) -> None:
    course = Course(
        parse_order(
            f"""
format = "infusion-prescription/1"
[patient]
id = "P-0001"
[drug]
name = "test"
[schedule]
start = {start}
every = "24h"
zone = "Europe/Berlin"
times = 5
[[schedule.phase]]
duration = "24h"
rate_ml_h = 5
"""
        )
    )
    assert [course.gap_ms(number) for number in (1, 2, 3, 4, 5)] == [0, 0, 0, 0, None]
