"""A new version of the order while the pump is watched (prescription page, section 1.1, rule 8; MQTT page,
``order``)."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alerts.catalogue import row
from alerts.condition import Kind, Verdict
from drivers.reading import Reading
from gateway.core.monitor import DeliveryStatus, Monitor
from gateway.core.order import OrderError, parse_order
from gateway.core.timeline import Timeline
from tests.gateway.core.pump_days import Ward, order_text
from tests.gateway.core.test_monitor_laws import moments, stories
from tests.gateway.core.timetable import live, must_be_told, play, seconds

PUMP = 'counter_ml = 0.01\nstroke_ml = 0.005\nripple_ml = 0.01\npoll = "5s"'
LIMITS = (
    'start_window = "20min"\nend_window = "10min"\nmax_pause = "10min"\nkvo_ml_h = 0.5\nkvo_max = "30min"\n'
)


def at(rate_ml_h: float, *, hours: float = 24, limits: str = LIMITS, **parts: str) -> str:
    """One constant rate from 0:00 on."""
    return order_text(
        phases=f'[[schedule.phase]]\nrate_ml_h = {rate_ml_h}\nduration = "{round(hours * 60)}min"\n',
        tail=f"[limits]\n{limits}\n[pump]\n{PUMP}",
        **parts,
    )


def hourly_of(every: str, *, start: str = "2026-05-04T06:00:00Z", limits: str = LIMITS) -> str:
    """100 mL in an hour, four times."""
    return at(100, hours=1, limits=limits, head=f'every = "{every}"\ntimes = 4\n', start=start)


def watched(text: str, table: str, *, until: str) -> Ward:
    return live(parse_order(text), table, until=until)


def status(ward: Ward) -> DeliveryStatus:
    assert ward.instant is not None
    return ward.monitor.status(ward.instant)


def said(ward: Ward, kind: Kind) -> str:
    return next(finding.message for finding in ward.findings if finding.kind is kind)


class TestDuringAnOccurrence:
    def test_it_is_joined_at_the_time_for_which_it_has_run_and_the_volumes_start_anew(self) -> None:
        ward = watched(at(10), "0:00 running rate=10", until="6:00")
        ward.revise(at(5), seconds("6:00"))
        now = status(ward)
        assert now.expected_ml == now.delivered_ml == pytest.approx(30, abs=0.02)
        assert now.occurrence is not None
        assert now.occurrence[0] == 1
        play(ward, "6:00 running rate=5 counter=60", until="12:00")
        must_be_told(ward, "")
        now = status(ward)
        assert now.expected_ml == pytest.approx(60, abs=0.05)
        assert now.delivered_ml == pytest.approx(60, abs=0.05)

    def test_it_is_an_event_that_says_old_and_new(self) -> None:
        ward = watched(at(10), "0:00 running rate=10", until="6:00")
        ward.revise(at(5), seconds("6:00"))
        must_be_told(ward, "0:00 dose_started\n6:00 order_changed", info=True)
        assert said(ward, Kind.ORDER_CHANGED) == (
            "A new order is in force: 5.00 mL/h and 120.0 mL in all, instead of 10.0 mL/h and 240.0 mL."
        )

    def test_a_pump_that_is_left_at_the_old_rate_is_set_wrongly_from_then_on(self) -> None:
        ward = watched(at(10), "0:00 running rate=10", until="6:00")
        ward.revise(at(5), seconds("6:00"))
        play(ward, "6:00 running rate=10 counter=60\n6:30 running rate=5", until="8:00")
        must_be_told(ward, "6:00 wrong_rate\n6:30 wrong_rate end")

    def test_what_was_delivered_before_is_no_deviation_from_the_new_one(self) -> None:
        """A sixth too much was tolerated by the old, and would not be by the new."""
        ward = watched(
            at(10, limits="tolerance_percent = 20"), "0:00 running rate=10 flow=11.5", until="6:00"
        )
        ward.revise(at(10, limits="tolerance_percent = 10"), seconds("6:00"))
        play(ward, "6:00 running rate=10 counter=69", until="9:00")
        must_be_told(ward, "")

    def test_what_is_a_deviation_by_the_new_one_only_is_found_after_it_took_force(self) -> None:
        ward = watched(
            at(10, limits="tolerance_percent = 20"), "0:00 running rate=10 flow=11.5", until="6:00"
        )
        ward.revise(at(10, limits="tolerance_percent = 10"), seconds("6:00"))
        play(ward, "6:00 running rate=10 flow=11.5 counter=69", until="9:00")
        assert [kind for _, kind in ward.alerts()] == ["over_infusion"]
        assert ward.alerts()[0][0] > seconds("6:00")

    def test_a_deviation_that_lasts_is_not_told_twice(self) -> None:
        ward = watched(at(10), "0:00 running rate=10\n1:00 running rate=10 flow=5", until="2:00")
        ward.revise(at(10, limits=LIMITS + "tolerance_percent = 15"), seconds("2:00"))
        play(ward, "2:00 running rate=10 flow=5 counter=15", until="8:00")
        assert [(kind, phase) for _, kind, phase in ward.told if kind == "under_infusion"] == [
            ("under_infusion", "start")
        ]

    def test_a_deviation_that_is_none_by_the_new_one_ends(self) -> None:
        ward = watched(at(10), "0:00 running rate=10\n1:00 running rate=10 flow=8.5", until="3:00")
        ward.revise(at(10, limits=LIMITS + "tolerance_percent = 20"), seconds("3:00"))
        play(ward, "3:00 running rate=10 flow=8.5 counter=27", until="8:00")
        assert [(kind, phase) for _, kind, phase in ward.told if kind == "under_infusion"] == [
            ("under_infusion", "start"),
            ("under_infusion", "end"),
        ]

    def test_too_much_in_the_whole_dose_is_over_when_the_new_one_orders_more(self) -> None:
        once = at(100, hours=1, limits=LIMITS + "tolerance_percent = 10")
        ward = watched(once, "0:00 running rate=100\n1:00 running rate=100 flow=150", until="1:09")
        assert ward.present() >= {"over_infusion"}
        ward.revise(at(100, hours=3), seconds("1:09"))
        play(ward, "1:09 running rate=100 counter=122", until="2:00")
        assert "over_infusion" not in ward.present()

    def test_a_pause_is_as_long_as_the_new_one_allows(self) -> None:
        ward = watched(at(10), "0:00 running rate=10\n1:00 paused", until="1:15")
        must_be_told(ward, "1:10 paused_too_long")
        ward.revise(at(10, limits='max_pause = "30min"'), seconds("1:15"))
        play(ward, "1:15 paused counter=10", until="1:50")
        must_be_told(
            ward,
            """
            1:10 paused_too_long
            1:15 paused_too_long end
            1:30 paused_too_long
            """,
        )

    def test_a_pause_that_is_too_long_by_both_stays_told(self) -> None:
        ward = watched(at(10), "0:00 running rate=10\n1:00 paused", until="1:15")
        ward.revise(at(5), seconds("1:15"))
        play(ward, "1:15 paused counter=10", until="1:50")
        must_be_told(ward, "1:10 paused_too_long")

    def test_delivery_after_the_end_that_the_new_one_sets_is_told(self) -> None:
        ward = watched(at(10), "0:00 running rate=10", until="6:00")
        ward.revise(at(10, hours=5), seconds("6:00"))
        play(ward, "6:00 running rate=10 counter=60", until="6:10")
        must_be_told(ward, "6:00 not_ended")

    def test_delivery_after_the_end_of_the_old_one_goes_on_by_a_longer_new_one(self) -> None:
        ward = watched(at(10, hours=1), "0:00 running rate=10", until="1:20")
        ward.revise(at(10), seconds("1:20"))
        play(ward, "1:20 running rate=10 counter=13.33", until="3:00")
        must_be_told(
            ward,
            """
            1:06 over_infusion
            1:10 not_ended
            1:20 not_ended end
            1:20 over_infusion end
            """,
            within_s=30,
        )

    def test_a_hard_limit_is_that_of_the_new_one(self) -> None:
        ward = watched(
            at(10, limits=LIMITS + "max_rate_ml_h = 20"),
            "0:00 running rate=10\n1:00 running rate=30",
            until="1:05",
        )
        assert "limit_exceeded" in ward.present()
        ward.revise(at(30), seconds("1:05"))
        play(ward, "1:05 running rate=30 counter=12.5", until="2:00")
        assert ward.present() <= {"dose_started", "order_changed"}

    def test_one_that_starts_with_the_change_has_run_since_then(self) -> None:
        ward = watched(at(10), "0:00 running rate=10", until="6:00")
        ward.revise(at(5, hours=2, start="2026-05-04T12:00:00Z"), seconds("6:00"))
        assert status(ward).expected_ml == pytest.approx(0, abs=0.02)
        play(ward, "6:00 running rate=5 counter=60\n8:00 complete", until="9:00")
        must_be_told(ward, "0:00 dose_started\n6:00 order_changed\n8:00 dose_ended", info=True)

    def test_one_that_orders_nothing_yet_leaves_delivery_that_nobody_ordered(self) -> None:
        ward = watched(at(10), "0:00 running rate=10", until="6:00")
        ward.revise(at(5, start="2026-05-05T06:00:00Z"), seconds("6:00"))
        play(ward, "6:00 running rate=10 counter=60", until="7:00")
        must_be_told(ward, "6:00 unscheduled_delivery")

    def test_the_third_dose_is_still_the_third(self) -> None:
        table = """
         0:00  running rate=100
         1:00  complete
         2:00  running rate=100
         3:00  complete
         4:00  running rate=100
        """
        ward = watched(hourly_of("2h"), table, until="4:30")
        ward.revise(hourly_of("2h", limits=LIMITS + "tolerance_percent = 20"), seconds("4:30"))
        now = status(ward).occurrence
        assert now is not None
        assert now[0] == 3
        play(ward, "4:30 running rate=100 counter=250\n5:00 complete", until="5:10")
        must_be_told(ward, "")


class TestBetweenOccurrences:
    def test_a_dose_that_was_given_is_not_due_once_more(self) -> None:
        ward = watched(hourly_of("8h"), "0:00 running rate=100\n1:00 complete", until="1:30")
        ward.revise(hourly_of("8h", limits=LIMITS + 'give_within = "4h"'), seconds("1:30"))
        play(ward, "1:30 idle counter=100", until="7:00")
        must_be_told(ward, "")

    def test_due_times_follow_the_new_one(self) -> None:
        ward = watched(hourly_of("8h"), "0:00 running rate=100\n1:00 complete", until="1:30")
        ward.revise(hourly_of("4h"), seconds("1:30"))
        play(ward, "1:30 idle counter=100", until="4:30")
        must_be_told(ward, "4:20 not_started")

    def test_what_the_new_one_would_have_had_before_it_came_was_not_missed(self) -> None:
        ward = watched(at(100, hours=1, start="2026-05-04T18:00:00Z"), "0:00 idle", until="5:30")
        ward.revise(hourly_of("2h"), seconds("5:30"))
        play(ward, "5:30 idle", until="6:30")
        must_be_told(ward, "6:20 not_started")

    def test_the_latest_that_may_still_be_begun_is_due(self) -> None:
        ward = watched(at(100, hours=1, start="2026-05-04T18:00:00Z"), "0:00 idle", until="5:00")
        ward.revise(hourly_of("2h"), seconds("5:00"))
        play(ward, "5:00 idle\n5:10 running rate=100", until="5:30")
        must_be_told(ward, "5:00 not_started\n5:10 not_started end")

    def test_a_dose_that_was_missed_is_not_missed_once_more(self) -> None:
        ward = watched(hourly_of("8h"), "0:00 idle", until="2:00")
        ward.revise(hourly_of("8h", limits=LIMITS + 'give_within = "4h"'), seconds("2:00"))
        play(ward, "2:00 idle", until="7:00")
        must_be_told(ward, "0:20 not_started\n1:20 not_started end\n1:20 dose_missed\n1:20 dose_missed end")

    def test_a_dose_that_is_owed_is_missed_if_it_is_too_late_by_the_new_one(self) -> None:
        ward = watched(hourly_of("8h", limits=LIMITS + 'give_within = "5h"'), "0:00 idle", until="3:00")
        ward.revise(hourly_of("8h", limits=LIMITS + 'give_within = "1h"'), seconds("3:00"))
        play(ward, "3:00 idle", until="4:00")
        must_be_told(ward, "0:20 not_started\n3:00 not_started end\n3:00 dose_missed\n3:00 dose_missed end")

    def test_not_started_stays_told_if_it_is_so_by_both_and_ends_if_not(self) -> None:
        ward = watched(hourly_of("8h"), "0:00 idle", until="0:30")
        ward.revise(hourly_of("8h", limits='start_window = "15min"\ngive_within = "3h"'), seconds("0:30"))
        play(ward, "0:30 idle", until="0:40")
        must_be_told(ward, "0:20 not_started")
        ward.revise(hourly_of("8h", start="2026-05-04T07:00:00Z"), seconds("0:40"))
        play(ward, "0:40 idle", until="1:30")
        must_be_told(ward, "0:20 not_started\n0:40 not_started end\n1:20 not_started")

    def test_a_dose_that_stopped_because_the_bag_was_empty_goes_on_under_the_new_one(self) -> None:
        table = "0:00 running rate=100\n0:30 alarm alarms=empty\n0:31 idle alarms=empty"
        ward = watched(hourly_of("8h"), table, until="0:35")
        ward.revise(hourly_of("8h", limits=LIMITS + "tolerance_percent = 12"), seconds("0:35"))
        play(ward, "0:35 running rate=100 counter=50\n1:05 complete", until="2:00")
        assert ("bag_empty", "start") in [(kind, phase) for _, kind, phase in ward.told]
        assert {kind for _, kind in ward.alerts()} == {"bag_empty"}


class TestOnProgramming:
    def test_the_old_one_holds_until_the_pump_is_set_to_the_new(self) -> None:
        ward = watched(at(10), "0:00 running rate=10", until="6:00")
        ward.revise(at(5), seconds("6:00"), on_programming=True)
        play(ward, "6:00 running rate=10 counter=60\n7:00 running rate=5.05", until="9:00")
        must_be_told(ward, "0:00 dose_started\n7:00 order_changed", info=True)

    def test_another_rate_than_that_of_the_new_one_is_wrong_by_the_old(self) -> None:
        ward = watched(at(10), "0:00 running rate=10", until="6:00")
        ward.revise(at(5), seconds("6:00"), on_programming=True)
        play(ward, "6:00 running rate=10 counter=60\n7:00 running rate=5.2", until="7:05")
        must_be_told(ward, "7:00 wrong_rate")

    @pytest.mark.parametrize("text", [at(10.1, hours=30), at(10, limits='max_pause = "30min"')])
    def test_it_takes_force_at_once_if_the_rates_agree(self, text: str) -> None:
        ward = watched(at(10), "0:00 running rate=10", until="6:00")
        ward.revise(text, seconds("6:00"), on_programming=True)
        must_be_told(ward, "0:00 dose_started\n6:00 order_changed", info=True)

    def test_it_takes_force_at_once_if_none_is_in_force(self) -> None:
        ward = live(None, "0:00 running rate=10", until="1:00")
        ward.revise(at(10), seconds("1:00"), on_programming=True)
        play(ward, "1:00 running rate=10 counter=10", until="2:00")
        must_be_told(ward, "1:00 order_changed\n1:00 dose_started", info=True)

    def test_a_pump_that_was_set_to_it_before_it_came_has_been_programmed(self) -> None:
        ward = watched(at(10), "0:00 running rate=10\n5:00 running rate=5", until="6:00")
        ward.revise(at(5), seconds("6:00"), on_programming=True)
        play(ward, "6:00 running rate=5 counter=55", until="7:00")
        must_be_told(ward, "5:00 wrong_rate\n6:00 wrong_rate end")

    def test_a_taper_that_passes_through_the_new_rate_is_no_programming(self) -> None:
        taper = order_text(
            phases='[[schedule.phase]]\nduration = "2h"\nfrom_ml_h = 20\nto_ml_h = 0\n',
            tail=f"[limits]\n{LIMITS}\n[pump]\n{PUMP}",
        )
        rows = "\n".join(
            f"{minute // 60}:{minute % 60:02} running rate={20 - minute / 6:.2f}" for minute in range(120)
        )
        ward = watched(taper, rows, until="0:30")
        ward.revise(at(10, hours=2), seconds("0:30"), on_programming=True)
        later = [line for line in rows.splitlines() if seconds(line.split()[0]) >= seconds("0:30")]
        later[0] += " counter=8.75"
        play(ward, "\n".join(later), until="1:10")
        assert "order_changed" not in [kind for _, kind, _ in ward.told]

    def test_nobody_has_programmed_it_in_time(self) -> None:
        ward = watched(at(10), "0:00 running rate=10", until="6:00")
        ward.revise(at(5), seconds("6:00"), on_programming=True, effective_by_s=seconds("7:00"))
        play(ward, "6:00 running rate=10 counter=60\n7:30 running rate=5", until="8:00")
        must_be_told(ward, "7:00 order_not_programmed\n7:30 order_not_programmed end")
        assert said(ward, Kind.ORDER_NOT_PROGRAMMED) == (
            "The pump has not been set to the new order in time,"
            " and is set to 10.0 mL/h: the old order holds."
        )

    def test_a_newer_version_takes_the_place_of_one_that_waits(self) -> None:
        ward = watched(at(10), "0:00 running rate=10", until="6:00")
        ward.revise(at(5), seconds("6:00"), on_programming=True, effective_by_s=seconds("6:10"))
        play(ward, "6:00 running rate=10 counter=60", until="6:20")
        ward.revise(at(7), seconds("6:20"), on_programming=True)
        play(
            ward, "6:20 running rate=10 counter=63.33\n6:30 running rate=5\n6:40 running rate=7", until="7:00"
        )
        must_be_told(
            ward,
            """
            6:10 order_not_programmed
            6:20 order_not_programmed end
            6:30 wrong_rate
            6:40 wrong_rate end
            """,
        )

    def test_the_next_dose_begins_under_the_version_to_which_the_pump_is_set(self) -> None:
        ward = watched(hourly_of("8h"), "0:00 running rate=100\n1:00 complete", until="2:00")
        slower = at(50, hours=2, head='every = "8h"\ntimes = 4\n')
        ward.revise(slower, seconds("2:00"), on_programming=True)
        play(ward, "2:00 idle counter=100\n8:00 running rate=50\n10:00 complete", until="11:00")
        must_be_told(
            ward,
            """
            0:00  dose_started
            1:00  dose_ended
            8:00  order_changed
            8:00  dose_started
            10:00 dose_ended
            """,
            info=True,
        )


def test_a_text_that_is_no_prescription_changes_nothing() -> None:
    ward = watched(at(10), "0:00 running rate=10", until="1:00")
    before = ward.monitor.snapshot()
    assert ward.instant is not None
    with pytest.raises(OrderError):
        ward.monitor.revise("format = 1", ward.instant)
    assert ward.monitor.snapshot() == before


VERSIONS = [
    at(10, hours=2),
    at(5, hours=3, limits=LIMITS + "max_rate_ml_h = 50\nmax_volume_ml = 100"),
    at(60, hours=1, head='every = "2h"\ntimes = 0\n'),
    at(30, hours=1, head="as_needed = true\ntimes = 3\n", limits='min_interval = "1h"'),
    order_text(
        phases='[[schedule.phase]]\nduration = "1h"\nfrom_ml_h = 0\nto_ml_h = 60\n',
        start="2026-05-04T07:00:00Z",
        tail="[titration]\nmin_ml_h = 2\nmax_ml_h = 60\n",
    ),
]
changes = st.lists(st.tuples(st.integers(0, 60), st.sampled_from(VERSIONS), st.booleans()), max_size=4)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(VERSIONS), stories, changes, st.integers(0, 60))
def test_a_restart_changes_nothing_whatever_versions_come_and_each_change_is_said_once(
    first: str,
    story: list[tuple[int, str, Reading | None]],
    versions: list[tuple[int, str, bool]],
    restart_at: int,
) -> None:
    monitor = Monitor("pump", parse_order(first), order_text=first)
    restarted = Monitor("pump", parse_order(first), order_text=first)
    timeline = Timeline()
    present: set[tuple[Kind, str | None]] = set()
    for number, (moment, reading) in enumerate(moments(story)):
        if number == restart_at:
            restarted = Monitor.restore("pump", None, restarted.snapshot())
        instant = timeline.at(moment)
        if instant is None:
            continue
        told = monitor.step(instant, reading)
        assert told == restarted.step(instant, reading)
        for when, text, on_programming in versions:
            if when == number:
                more = monitor.revise(
                    text,
                    instant,
                    on_programming=on_programming,
                    effective_by_utc_ms=instant.utc_ms + 600_000,
                )
                assert more == restarted.revise(
                    text,
                    instant,
                    on_programming=on_programming,
                    effective_by_utc_ms=instant.utc_ms + 600_000,
                )
                told += more
        assert monitor.status(instant) == restarted.status(instant)
        assert monitor.prescription == restarted.prescription
        for finding in told:
            entry = row(finding.kind)
            condition = (finding.kind, finding.code)
            if entry.moment or entry.info:
                continue
            if finding.verdict is Verdict.ABSENT:
                present.remove(condition)
            else:
                assert condition not in present or finding.priority is not None
                present.add(condition)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(VERSIONS), stories)
def test_the_same_order_once_more_ends_nothing_begins_nothing_and_moves_no_due_time(
    text: str, story: list[tuple[int, str, Reading | None]]
) -> None:
    monitor = Monitor("pump", parse_order(text))
    timeline = Timeline()
    for moment, reading in moments(story):
        instant = timeline.at(moment)
        if instant is None:
            continue
        monitor.step(instant, reading)
        wake_t_ms = monitor.next_wake_t_ms()
        occurrence = monitor.status(instant).occurrence
        (said_now,) = monitor.revise(text, instant)
        assert said_now.kind is Kind.ORDER_CHANGED
        assert "stay the same" in said_now.message
        assert monitor.next_wake_t_ms() == wake_t_ms
        assert monitor.status(instant).occurrence == occurrence
