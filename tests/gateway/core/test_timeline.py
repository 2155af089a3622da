"""One continuous time: timetables of what the clocks say, and what the rules see.

A row is (uptime in s, wall clock, marks) and (t in s, schedule clock, gap, step in s). ``-`` is a moment that
is dropped. Marks: ``u`` the clock is unsynced. ``t`` begins with the first uptime.
"""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.timeline import GapKind, Moment, Timeline, TimelineState

NONE, RESTART = GapKind.NONE, GapKind.RESTART
UNKNOWN, RESOLVED = GapKind.RESTART_UNKNOWN, GapKind.RESTART_RESOLVED
DROPPED = "-"


def ms(clock: str) -> int:
    """Milliseconds of a wall clock, ``10:00:05`` of some day; ``+1 10:00:05`` of the next."""
    day, _, time = clock.rpartition(" ")
    hours, minutes, seconds = time.split(":")
    whole = 1_800_000_000 // 86_400 + int(day or 0)
    return round((whole * 86_400 + int(hours) * 3600 + int(minutes) * 60 + float(seconds)) * 1000)


def moment(uptime_s: float | None, clock: str, marks: str = "", boot: str | None = None) -> Moment:
    return Moment(
        monotonic_ms=None if uptime_s is None else round(uptime_s * 1000),
        utc_ms=ms(clock),
        synced="u" not in marks,
        boot=boot,
    )


TIMETABLES = {
    "time goes on": [
        ((100, "10:00:00", ""), (100, "10:00:00", NONE, 0)),
        ((105, "10:00:05", ""), (105, "10:00:05", NONE, 0)),
        ((110, "10:00:10.4", ""), (110, "10:00:10", NONE, 0)),  # kept right, not set
    ],
    "duplicates and late readings are dropped": [
        ((100, "10:00:00", ""), (100, "10:00:00", NONE, 0)),
        ((110, "10:00:10", ""), (110, "10:00:10", NONE, 0)),
        ((110, "10:00:10", ""), DROPPED),
        ((105, "10:00:05", ""), DROPPED),
        ((115, "10:00:15", ""), (115, "10:00:15", NONE, 0)),
    ],
    "the clock is set forward: no time has passed and the schedule keeps its clock": [
        ((100, "10:00:00", ""), (100, "10:00:00", NONE, 0)),
        ((105, "12:00:05", ""), (105, "10:00:05", NONE, 7200)),
        ((110, "12:00:10", ""), (110, "10:00:10", NONE, 0)),
    ],
    "the clock is set back": [
        ((100, "10:00:00", ""), (100, "10:00:00", NONE, 0)),
        ((105, "09:00:05", ""), (105, "10:00:05", NONE, -3600)),
        ((110, "09:00:10", ""), (110, "10:00:10", NONE, 0)),
    ],
    "a reading from before the clock was set arrives late: it is old, and no restart": [
        ((100, "10:00:00", ""), (100, "10:00:00", NONE, 0)),
        ((105, "10:00:05", ""), (105, "10:00:05", NONE, 0)),
        ((110, "11:00:10", ""), (110, "10:00:10", NONE, 3600)),
        ((100, "10:00:00", ""), DROPPED),
        ((115, "11:00:15", ""), (115, "10:00:15", NONE, 0)),
    ],
    "the schedule is anchored when the clock is first synced": [
        ((100, "03:00:00", "u"), (100, None, NONE, 0)),
        ((105, "03:00:05", "u"), (105, None, NONE, 0)),
        ((110, "10:00:00", ""), (110, "10:00:00", NONE, 25_190)),
        ((115, "10:00:05", ""), (115, "10:00:05", NONE, 0)),
    ],
    "a restart is bridged by the wall clock if it was synced on both sides": [
        ((100, "10:00:00", ""), (100, "10:00:00", NONE, 0)),
        ((20, "10:30:00", ""), (1900, "10:30:00", RESTART, 0)),
        ((25, "10:30:05", ""), (1905, "10:30:05", NONE, 0)),
    ],
    "a restart keeps the schedule's clock though the wall clock had been set": [
        ((100, "10:00:00", ""), (100, "10:00:00", NONE, 0)),
        ((105, "12:00:05", ""), (105, "10:00:05", NONE, 7200)),
        ((20, "12:30:05", ""), (1905, "10:30:05", RESTART, 0)),
    ],
    "an uptime that falls while the wall clock agrees is disorder, not a restart": [
        ((100, "10:00:00", ""), (100, "10:00:00", NONE, 0)),
        ((90, "09:59:54", ""), DROPPED),
        ((105, "10:00:05", ""), (105, "10:00:05", NONE, 0)),
    ],
    "a reading of before the restart arrives late": [
        ((100, "10:00:00", ""), (100, "10:00:00", NONE, 0)),
        ((105, "10:00:05", ""), (105, "10:00:05", NONE, 0)),
        ((20, "10:30:05", ""), (1905, "10:30:05", RESTART, 0)),
        ((100, "10:00:00", ""), DROPPED),
        ((25, "10:30:10", ""), (1910, "10:30:10", NONE, 0)),
    ],
    "a restart with a wrong clock is of unknown length until the clock is synced": [
        ((100, "10:00:00", ""), (100, "10:00:00", NONE, 0)),
        ((20, "03:00:00", "u"), (100.001, None, UNKNOWN, 0)),
        ((25, "03:00:05", "u"), (105.001, None, NONE, 0)),
        ((30, "10:30:00", ""), (1900, "10:30:00", RESOLVED, 0)),
        ((35, "10:30:05", ""), (1905, "10:30:05", NONE, 0)),
    ],
    "the first step after the clock is synced belongs to the gap": [
        ((100, "10:00:00", ""), (100, "10:00:00", NONE, 0)),
        ((20, "10:01:00", "u"), (100.001, None, UNKNOWN, 0)),
        ((25, "10:01:05", ""), (165, "10:01:05", RESOLVED, 0)),
        ((30, "10:30:00", ""), (1900, "10:30:00", RESOLVED, 0)),
        ((35, "11:30:05", ""), (1905, "10:30:05", NONE, 3600)),  # the second is a setting of the clock
    ],
    "a clock that went back over a restart is not believed until it steps forward": [
        ((100, "10:00:00", ""), (100, "10:00:00", NONE, 0)),
        ((20, "09:00:00", ""), (100.001, None, UNKNOWN, 0)),
        ((25, "09:00:05", ""), (105.001, None, NONE, 0)),
        ((30, "10:30:00", ""), (1900, "10:30:00", RESOLVED, 0)),
    ],
    "two restarts in a row are one gap": [
        ((100, "10:00:00", ""), (100, "10:00:00", NONE, 0)),
        ((20, "03:00:00", "u"), (100.001, None, UNKNOWN, 0)),
        ((10, "03:10:00", "u"), (100.002, None, UNKNOWN, 0)),
        ((15, "10:30:00", ""), (1900, "10:30:00", RESOLVED, 0)),
    ],
    "of two gaps that become known together nobody knows which is how long": [
        ((100, "10:00:00", ""), (100, "10:00:00", NONE, 0)),
        ((20, "03:00:00", "u"), (100.001, None, UNKNOWN, 0)),
        ((120, "03:01:40", "u"), (200.001, None, NONE, 0)),  # watched for a while, without a clock
        ((20, "10:30:00", ""), (1900, "10:30:00", UNKNOWN, 0)),
        ((25, "10:30:05", ""), (1905, "10:30:05", NONE, 0)),
    ],
    "the gap before the first sync stays of unknown length, and then the schedule is anchored": [
        ((100, "03:00:00", "u"), (100, None, NONE, 0)),
        ((20, "03:00:00", "u"), (100.001, None, UNKNOWN, 0)),
        ((25, "10:00:00", ""), (105.001, "10:00:00", RESOLVED, 0)),
        ((30, "10:00:05", ""), (110.001, "10:00:05", NONE, 0)),
    ],
    "nor does the clock of the next start tell how long the one that never had any was gone": [
        ((100, "03:00:00", "u"), (100, None, NONE, 0)),
        ((20, "10:00:00", ""), (100.001, "10:00:00", UNKNOWN, 0)),
        ((25, "10:00:05", ""), (105.001, "10:00:05", NONE, 0)),
    ],
    "one second more or less is the clock being kept right, and five are disorder": [
        ((100, "10:00:00", ""), (100, "10:00:00", NONE, 0)),
        ((105, "10:00:06", ""), (105, "10:00:05", NONE, 0)),
        ((110, "10:00:12.001", ""), (110, "10:00:10", NONE, 1.001)),
        ((109, "10:00:16.001", ""), DROPPED),
    ],
    "after a gap that was bridged a step is a setting of the clock": [
        ((100, "10:00:00", ""), (100, "10:00:00", NONE, 0)),
        ((20, "10:30:00", ""), (1900, "10:30:00", RESTART, 0)),
        ((25, "11:30:05", ""), (1905, "10:30:05", NONE, 3600)),
    ],
    "a gap shorter than the uptime since: the clock was wrong before, and the schedule follows the new one": [
        ((100, "10:00:00", ""), (100, "10:00:00", NONE, 0)),
        ((20, "03:00:00", "u"), (100.001, None, UNKNOWN, 0)),
        ((3620, "04:00:00", "u"), (3700.001, None, NONE, 0)),
        ((3625, "10:30:00", ""), (3705.001, "10:30:00", RESOLVED, 0)),
        ((3630, "10:30:05", ""), (3710.001, "10:30:05", NONE, 0)),
    ],
    "without an uptime everything goes by the wall clock": [
        ((None, "10:00:00", ""), ("wall", "10:00:00", NONE, 0)),
        ((None, "10:00:00", ""), DROPPED),
        ((None, "09:00:00", ""), DROPPED),
        ((None, "11:00:00", ""), ("wall", "11:00:00", NONE, 0)),
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", TIMETABLES)
def test_the_timetable(name):
    timeline = Timeline()
    for row, ((uptime_s, clock, marks), seen) in enumerate(TIMETABLES[name]):
        instant = timeline.at(moment(uptime_s, clock, marks))
        if seen == DROPPED:
            assert instant is None, f"row {row}"
            continue
        t_s, schedule, gap, stepped_s = seen
        assert instant is not None, f"row {row}"
        assert instant.t_ms == (ms(clock) if t_s == "wall" else round(t_s * 1000)), f"row {row}"
        assert instant.utc_ms == ms(clock), f"row {row}"
        assert instant.schedule_utc_ms == (ms(schedule) if schedule else None), f"row {row}"
        assert (instant.gap, instant.stepped_ms) == (gap, round(stepped_s * 1000)), f"row {row}"


@pytest.mark.parametrize("name", TIMETABLES)
def test_the_timetable_goes_on_the_same_when_the_state_was_stored_after_each_row(name):
    whole, stored = Timeline(), Timeline()
    for (uptime_s, clock, marks), _ in TIMETABLES[name]:
        stored = Timeline(msgspec.json.decode(msgspec.json.encode(stored.state), type=TimelineState))
        now = moment(uptime_s, clock, marks)
        assert stored.at(now) == whole.at(now)


def test_another_boot_is_a_restart_even_where_the_uptime_has_not_fallen():
    timeline = Timeline()
    timeline.at(moment(100, "10:00:00", boot="a"))
    instant = timeline.at(moment(200, "10:30:00", boot="b"))
    assert (instant.t_ms, instant.gap) == (1_900_000, RESTART)
    assert timeline.at(moment(101, "10:00:01", boot="a")) is None


def test_where_only_one_side_knows_its_boot_the_clocks_decide():
    timeline = Timeline()
    timeline.at(moment(100, "10:00:00"))
    assert timeline.at(moment(105, "10:00:05", boot="a")).gap is NONE
    assert timeline.at(moment(20, "10:30:05")).gap is RESTART


def test_the_same_boot_is_no_restart_whatever_the_clocks_say():
    timeline = Timeline()
    timeline.at(moment(100, "10:00:00", boot="a"))
    assert timeline.at(moment(90, "12:00:00", boot="a")) is None


clocks = st.integers(0, 10**6).map(lambda seconds: f"{seconds // 3600}:{seconds // 60 % 60}:{seconds % 60}")
moments = st.lists(
    st.builds(moment, st.one_of(st.none(), st.integers(0, 10**6)), clocks, st.sampled_from(["", "u"])),
    max_size=30,
)


@given(moments)
def test_continuous_time_only_goes_forward(moments):
    timeline = Timeline()
    last_ms = None
    for now in moments:
        instant = timeline.at(now)
        if instant is not None:
            assert last_ms is None or instant.t_ms > last_ms
            last_ms = instant.t_ms


@given(moments)
def test_the_schedule_has_no_clock_before_the_first_synced_moment(moments):
    timeline = Timeline()
    synced = False
    for now in moments:
        instant = timeline.at(now)
        synced = synced or (now.synced and instant is not None)
        if not synced and instant is not None:
            assert instant.schedule_utc_ms is None


@given(st.lists(st.tuples(st.integers(1, 10**7), st.integers(-(10**9), 10**9)), max_size=30))
def test_within_one_start_the_schedule_keeps_its_clock_whatever_is_done_to_the_wall_clock(steps):
    timeline = Timeline()
    started = moment(100, "10:00:00", boot="a")
    timeline.at(started)
    uptime_ms = 100_000
    for passed_ms, set_by_ms in steps:
        uptime_ms += passed_ms
        now = Moment(monotonic_ms=uptime_ms, utc_ms=started.utc_ms + set_by_ms, boot="a")
        instant = timeline.at(now)
        assert instant.t_ms == uptime_ms
        assert instant.schedule_utc_ms == started.utc_ms + uptime_ms - 100_000
