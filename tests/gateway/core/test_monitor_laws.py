"""What holds whatever a pump and its clocks say."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from alerts.catalogue import row
from alerts.condition import Kind, Verdict
from drivers.reading import PumpAlarm, PumpState, Reading
from gateway.core.monitor import Monitor
from gateway.core.timeline import GapKind, Moment, Timeline
from tests.gateway.core.pump_days import START_UTC_MS, continuous, order

PRESCRIPTIONS = [
    None,
    continuous(
        10, 2, limits='max_rate_ml_h = 50\nmax_volume_ml = 100\nmax_total_pause = "20min"\nlate_end = "10min"'
    ),
    order(
        head='every = "2h"\ntimes = 4\nbetween_ml_h = 0.5\n',
        phases='[[schedule.phase]]\nduration = "10min"\nfrom_ml_h = 0\nto_ml_h = 60\n'
        '[[schedule.phase]]\nduration = "20min"\nrate_ml_h = 60\n',
        tail="[bag]\nvolume_ml = 100\n[pump]\ncounter_wrap_ml = 500\n",
    ),
    order(
        head='every = "1h"\ntimes = 0\n',
        phases='[[schedule.phase]]\nduration = "1h"\nrate_ml_h = 5\n',
        tail='[demand]\nbolus_ml = 1\nlockout = "10min"\n'
        "[titration]\nmin_ml_h = 2\nmax_ml_h = 9\nstep_ml_h = 2\n",
    ),
    order(
        head="as_needed = true\ntimes = 3\n",
        phases='[[schedule.phase]]\nduration = "10min"\nvolume_ml = 20\n',
        tail='[limits]\nmin_interval = "1h"\n[response]\nurgency = "vital"\n',
    ),
    continuous(5, 4, rest='[sensor]\nkind = "weight"\nresolution_ml = 1\nnoise_ml = 0.5\n'),
]
CODES = [*PumpAlarm, "vendor:A", "vendor:B"]

readings = st.builds(
    Reading,
    pump=st.just("pump"),
    at_ms=st.just(0),
    state=st.sampled_from(PumpState),
    rate_ml_h=st.none() | st.sampled_from([0.0, 0.5, 5.0, 10.0, 30.0, 60.0, 100.0]),
    volume_ml=st.none() | st.floats(0, 600),
    vtbi_ml=st.none() | st.floats(0, 100),
    pressure_mmhg=st.none() | st.floats(-50, 600),
    independent_ml=st.none() | st.floats(-100, 600),
    alarms=st.none() | st.lists(st.sampled_from(CODES), max_size=3).map(tuple),
)
passing = st.sampled_from([1, 4_000, 5_000, 5_000, 5_000, 60_000, 600_000, 7_200_000])
clocks = st.sampled_from(["plain"] * 12 + ["stepped", "unsynced", "restarted"])
stories = st.lists(st.tuples(passing, clocks, st.none() | readings), max_size=60)


def moments(story: list[tuple[int, str, Reading | None]]) -> list[tuple[Moment, Reading | None]]:
    told = []
    monotonic_ms, utc_ms = 10_000_000, START_UTC_MS - 3_600_000
    for passed_ms, clock, reading in story:
        monotonic_ms += passed_ms
        utc_ms += passed_ms
        if clock == "stepped":
            utc_ms += 3_600_000
        if clock == "restarted":
            monotonic_ms = 1_000
        told.append((Moment(monotonic_ms=monotonic_ms, utc_ms=utc_ms, synced=clock != "unsynced"), reading))
    return told


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(PRESCRIPTIONS), stories)
def test_whatever_is_read_each_change_is_said_once_and_in_order(
    prescription: object, story: list[tuple[int, str, Reading | None]]
) -> None:
    monitor = Monitor("pump", prescription)  # type: ignore[arg-type]
    timeline = Timeline()
    present: set[tuple[Kind, str | None]] = set()
    latest_ms = 0
    for moment, reading in moments(story):
        instant = timeline.at(moment)
        if instant is None:
            continue
        for finding in monitor.step(instant, reading):
            assert finding.at_ms >= latest_ms
            assert finding.at_ms <= instant.t_ms
            assert finding.message
            latest_ms = finding.at_ms
            entry = row(finding.kind)
            condition = (finding.kind, finding.code)
            if entry.moment or entry.info:
                continue
            if finding.verdict is Verdict.ABSENT:
                present.remove(condition)
            else:
                assert condition not in present or finding.priority is not None
                present.add(condition)
        wake_t_ms = monitor.next_wake_t_ms()
        assert wake_t_ms is None or wake_t_ms >= instant.t_ms
        status = monitor.status(instant)
        assert status.delivered_ml is None or status.delivered_ml >= 0


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(PRESCRIPTIONS), stories, st.integers(0, 60))
def test_a_restart_of_the_gateway_between_two_readings_changes_nothing(
    prescription: object, story: list[tuple[int, str, Reading | None]], restart_at: int
) -> None:
    monitor = Monitor("pump", prescription)  # type: ignore[arg-type]
    restarted = Monitor("pump", prescription)  # type: ignore[arg-type]
    timeline = Timeline()
    for number, (moment, reading) in enumerate(moments(story)):
        if number == restart_at:
            restarted = Monitor.restore("pump", prescription, restarted.snapshot())  # type: ignore[arg-type]
        instant = timeline.at(moment)
        if instant is not None:
            assert monitor.step(instant, reading) == restarted.step(instant, reading)
            assert monitor.status(instant) == restarted.status(instant)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(PRESCRIPTIONS), stories)
def test_a_replay_tells_the_same_at_the_same_times_as_a_gateway_that_looks_whenever_a_time_is_up(
    prescription: object, story: list[tuple[int, str, Reading | None]]
) -> None:
    """Prescription page, section 2, "Timers"."""
    replayed = Monitor("pump", prescription)  # type: ignore[arg-type]
    lived = Monitor("pump", prescription)  # type: ignore[arg-type]
    timeline = Timeline()
    last = None
    for moment, reading in moments(story):
        instant = timeline.at(moment)
        if instant is None:
            continue
        told_live = []
        while last is not None and instant.gap is GapKind.NONE and not instant.stepped_ms:
            wake_t_ms = lived.next_wake_t_ms()
            if wake_t_ms is None or not last.t_ms < wake_t_ms < instant.t_ms:
                break
            passed_ms = wake_t_ms - last.t_ms
            woken = structs.replace(
                last,
                t_ms=wake_t_ms,
                utc_ms=last.utc_ms + passed_ms,
                schedule_utc_ms=None if last.schedule_utc_ms is None else last.schedule_utc_ms + passed_ms,
                gap=GapKind.NONE,
                stepped_ms=0,
            )
            told_live.extend(lived.step(woken, None))
            last = woken
        told_live.extend(lived.step(instant, reading))
        assert list(replayed.step(instant, reading)) == told_live
        last = instant
