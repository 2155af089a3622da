"""Stories of the schedule: doses begin, are late, missed, too soon, interrupted, over (prescription page,
1.1)."""

from __future__ import annotations

from math import floor

import pytest

from drivers.reading import PumpState, Reading
from gateway.core.prescription import Prescription
from gateway.core.timeline import Moment
from tests.gateway.core.pump_days import START_UTC_MS, Ward, continuous, order
from tests.gateway.core.timetable import live, must_be_told

PUMP = 'counter_ml = 0.01\nstroke_ml = 0.005\nripple_ml = 0.01\npoll = "5s"'
LIMITS = (
    'start_window = "20min"\nend_window = "10min"\nmax_pause = "10min"\nkvo_ml_h = 0.5\nkvo_max = "30min"'
)


def one_hour_at_100(limits: str = LIMITS, **extra: str) -> Prescription:
    return continuous(100, 1, limits=limits, pump=PUMP, **extra)


EVERY_8H = order(
    head='every = "8h"\ntimes = 3\nbetween_ml_h = 0.5\n',
    phases='[[schedule.phase]]\nduration = "1h"\nvolume_ml = 100.0\n',
    tail=f"[limits]\n{LIMITS}\n[pump]\n{PUMP}",
)
EVERY_2H = order(
    head='every = "2h"\ntimes = 4\n',
    phases='[[schedule.phase]]\nduration = "1h"\nvolume_ml = 100.0\n',
    tail=f"[limits]\n{LIMITS}\n[pump]\n{PUMP}",
)
DAY_AFTER_DAY = order(
    head='every = "2h"\ntimes = 3\n',
    phases='[[schedule.phase]]\nduration = "2h"\nrate_ml_h = 10\n',
    tail=f"[limits]\n{LIMITS}\n[pump]\n{PUMP}",
)


def test_a_dose_that_is_given_in_time_is_nobodys_trouble() -> None:
    ward = live(
        one_hour_at_100(),
        """
        -0:10  idle
         0:05  running   rate=100
         1:05  complete
        """,
        until="30:00",
    )
    must_be_told(
        ward,
        """
        0:05  dose_started
        1:05  dose_ended
        """,
        info=True,
    )


def test_a_dose_may_begin_within_the_window_before_it_is_due() -> None:
    ward = live(
        one_hour_at_100(),
        """
        -0:30  idle
        -0:19  running   rate=100
         0:41  complete
        """,
        until="2:00",
    )
    must_be_told(ward, "")


def test_a_dose_that_does_not_start_is_told_at_the_end_of_its_window_and_ends_when_it_starts() -> None:
    ward = live(
        one_hour_at_100(),
        """
        -0:10  idle
         0:50  running   rate=100
         1:50  complete
        """,
        until="3:00",
    )
    must_be_told(
        ward,
        """
        0:20  not_started
        0:50  not_started end
        """,
    )


def test_a_dose_that_nobody_gives_is_missed_and_the_end_of_not_started_comes_first() -> None:
    ward = live(EVERY_8H, "-0:10 idle", until="9:00")
    must_be_told(
        ward,
        """
        0:20  not_started
        1:20  not_started end
        1:20  dose_missed
        1:20  dose_missed end
        8:20  not_started
        """,
        within_s=0,
    )


def test_delivery_before_the_window_is_unscheduled_until_it_is_the_dose() -> None:
    ward = live(
        one_hour_at_100(),
        """
        -1:00  idle
        -0:40  running   rate=100
         0:20  complete
        """,
        until="2:00",
    )
    must_be_told(
        ward,
        """
        -0:40  unscheduled_delivery
        -0:20  unscheduled_delivery end
        """,
    )


def test_a_dose_given_once_more_is_unscheduled() -> None:
    ward = live(
        one_hour_at_100(),
        """
        -0:10  idle
         0:00  running   rate=100
         1:00  complete
         2:00  running   rate=100
         2:10  idle
        """,
        until="3:00",
    )
    must_be_told(
        ward,
        """
        2:00  unscheduled_delivery
        2:10  unscheduled_delivery end
        """,
    )


def test_two_doses_close_together_are_too_soon() -> None:
    ward = live(
        order(
            head='every = "4h"\ntimes = 2\n',
            phases='[[schedule.phase]]\nduration = "30min"\nvolume_ml = 50\n',
            tail=f'[limits]\n{LIMITS}\ngive_within = "3h"\nmin_interval = "2h"\n[pump]\n{PUMP}',
        ),
        """
        -0:10  idle
         2:30  running   rate=100
         3:00  complete
         4:00  running   rate=100
         4:30  complete
        """,
        until="6:00",
    )
    must_be_told(
        ward,
        """
        0:20  not_started
        2:30  not_started end
        4:00  dose_too_soon
        4:30  dose_too_soon end
        """,
    )


def test_an_allowed_pause_moves_the_rest_and_is_nobodys_trouble() -> None:
    ward = live(
        one_hour_at_100(),
        """
        -0:10  idle
         0:00  running   rate=100
         0:30  paused
         0:38  running   rate=100
         1:08  complete
        """,
        until="2:00",
    )
    must_be_told(ward, "")


def test_a_pause_that_is_too_long_is_told_when_its_time_is_up_and_ends_with_delivery() -> None:
    ward = live(
        one_hour_at_100(),
        """
        -0:10  idle
         0:00  running   rate=100
         0:30  paused
         1:00  running   rate=100
         1:30  complete
        """,
        until="2:00",
    )
    must_be_told(
        ward,
        """
        0:40  paused_too_long
        1:00  paused_too_long end
        """,
        within_s=5,
    )


def test_many_short_pauses_count_together_where_the_order_says_so() -> None:
    ward = live(
        one_hour_at_100(LIMITS + '\nmax_total_pause = "12min"'),
        """
        -0:10  idle
         0:00  running   rate=100
         0:10  paused
         0:16  running   rate=100
         0:20  paused
         0:28  running   rate=100
         1:14  complete
        """,
        until="2:00",
    )
    must_be_told(
        ward,
        """
        0:26  paused_too_long
        0:28  paused_too_long end
        """,
        within_s=10,
    )


def test_a_pump_that_is_switched_off_interrupts() -> None:
    ward = live(
        one_hour_at_100(),
        """
        -0:10  idle
         0:00  running   rate=100
         0:30  off
         1:00  running   rate=100
         1:30  complete
        """,
        until="2:00",
    )
    must_be_told(
        ward,
        """
        0:40  paused_too_long
        1:00  paused_too_long end
        """,
        within_s=5,
    )


def test_a_dose_that_ends_with_volume_missing_stopped_early_and_the_message_says_what_is_left() -> None:
    ward = live(
        one_hour_at_100(),
        """
        -0:10  idle
         0:00  running   rate=100
         0:30  idle
        """,
        until="2:00",
    )
    must_be_told(
        ward,
        """
        0:30  stopped_early
        0:30  stopped_early end
        """,
    )
    message = next(one.message for one in ward.findings if one.kind == "stopped_early")
    assert "50.0" in message
    assert "100.0 mL" in message
    assert "is left" in message


def test_one_stray_reading_of_idle_does_not_end_a_dose() -> None:
    ward = live(
        one_hour_at_100(),
        """
        -0:10     idle
         0:00     running   rate=100
         0:30     idle
         0:30:05  running   rate=100
         1:00:05  complete
        """,
        until="2:00",
    )
    must_be_told(ward, "")


def test_paused_with_the_volume_in_is_the_end() -> None:
    ward = live(
        one_hour_at_100(),
        """
        -0:10  idle
         0:00  running   rate=100
         0:58  paused
        """,
        until="3:00",
    )
    must_be_told(
        ward,
        """
        0:00  dose_started
        0:58  dose_ended
        """,
        info=True,
    )


def test_delivery_of_the_rest_after_a_pause_near_the_end_is_the_same_dose() -> None:
    ward = live(
        one_hour_at_100(),
        """
        -0:10  idle
         0:00  running   rate=100
         0:56  paused
         1:06  running   rate=100
         1:10  paused
         1:20  running   rate=100
        """,
        until="1:25",
    )
    must_be_told(
        ward,
        """
        0:00  dose_started
        0:56  dose_ended
        1:10  dose_ended
        1:20  unscheduled_delivery
        """,
        info=True,
    )


def test_for_a_vital_drug_paused_near_the_end_is_still_a_pause() -> None:
    ward = live(
        one_hour_at_100('start_window = "20min"\nmax_pause = "3min"', rest='[response]\nurgency = "vital"'),
        """
        -0:10  idle
         0:00  running   rate=100
         0:56  paused
        """,
        until="1:02",
    )
    must_be_told(ward, "0:59 paused_too_long")


def test_a_bag_that_runs_empty_with_the_volume_in_is_the_end_and_nothing_else() -> None:
    for code in ("empty", "air_in_line"):
        ward = live(
            one_hour_at_100(),
            f"""
            -0:10  idle
             0:00  running   rate=100
             0:57  alarm     alarms={code}
             1:20  idle
            """,
            until="3:00",
        )
        must_be_told(
            ward,
            """
            0:00  dose_started
            0:57  dose_ended
            """,
            info=True,
        )


def test_delivery_that_goes_on_after_the_end_is_not_ended_and_then_too_much() -> None:
    ward = live(
        one_hour_at_100(LIMITS.replace('end_window = "10min"', 'end_window = "4min"')),
        """
        -0:10  idle
         0:00  running   rate=100
         1:30  idle
        """,
        until="2:00",
    )
    must_be_told(
        ward,
        """
        1:04  not_ended
        1:06  over_infusion
        1:30  not_ended end
        1:30  over_infusion end
        """,
    )


def test_keep_vein_open_is_right_for_a_while_after_the_end() -> None:
    ward = live(
        one_hour_at_100(),
        """
        -0:10  idle
         0:00  running   rate=100
         1:00  kvo       rate=0.5
         1:40  idle
        """,
        until="2:00",
    )
    must_be_told(
        ward,
        """
        1:30  kvo_too_long
        1:40  kvo_too_long end
        """,
        within_s=5,
    )


def test_keep_vein_open_between_two_doses_is_right_for_as_long_as_one_is_to_come() -> None:
    ward = live(
        EVERY_8H,
        """
        -0:10  idle
         0:00  running   rate=100
         1:00  kvo       rate=0.5
         8:00  running   rate=100
         9:00  kvo       rate=0.5
        16:00  running   rate=100
        17:00  kvo       rate=0.5
        """,
        until="18:00",
    )
    must_be_told(ward, "17:30 kvo_too_long", within_s=5)


def test_keep_vein_open_faster_than_ordered_is_told() -> None:
    ward = live(
        one_hour_at_100(),
        """
        -0:10  idle
         0:00  running   rate=100
         1:00  kvo       rate=5
        """,
        until="1:02",
    )
    must_be_told(ward, "1:00 kvo_too_long")


def test_keep_vein_open_that_is_set_back_to_what_is_ordered_is_right_again_until_it_runs_too_long() -> None:
    ward = live(
        one_hour_at_100(),
        """
        -0:10  idle
         0:00  running   rate=100
         1:00  kvo       rate=5
         1:05  kvo       rate=0.5
        """,
        until="1:32",
    )
    must_be_told(ward, "1:00 kvo_too_long\n1:05 kvo_too_long end\n1:30 kvo_too_long")


def test_a_pump_without_the_state_kvo_runs_slowly_after_the_end() -> None:
    ward = live(
        one_hour_at_100(),
        """
        -0:10  idle
         0:00  running   rate=100
         1:00  running   rate=0.5
         1:20  idle
        """,
        until="2:00",
    )
    must_be_told(ward, "")


def test_phases_as_slow_as_keep_vein_open_are_given_to_their_end() -> None:
    ward = live(
        order(
            phases='[[schedule.phase]]\nduration = "10min"\nvolume_ml = 2\n'
            '[[schedule.phase]]\nduration = "10h"\nrate_ml_h = 0.5\n',
            tail=f"[limits]\n{LIMITS}\n[pump]\n{PUMP}",
        ),
        """
        -0:10  idle
         0:00  running   rate=12
         0:10  running   rate=0.5
        10:10  idle
        """,
        until="11:00",
    )
    must_be_told(ward, "0:00 dose_started\n10:10 dose_ended", info=True)


def test_doses_that_follow_without_a_gap_leave_time_for_the_change_of_bag() -> None:
    ward = live(
        DAY_AFTER_DAY,
        """
        -0:10  idle
         0:10  running   rate=10
         2:10  complete
         2:25  running   rate=10   counter=0
         4:25  complete
         4:40  running   rate=10   counter=0
         6:40  complete
        """,
        until="8:00",
    )
    must_be_told(ward, "")


@pytest.mark.parametrize("phase_s", [0, 2, 4])
def test_without_a_gap_delivery_that_begins_when_the_next_is_due_is_the_next_and_the_one_before_was_missed(
    phase_s: int,
) -> None:
    ward = live(
        DAY_AFTER_DAY,
        """
        -0:10  idle
         0:00  running   rate=10
         2:00  complete
         4:00  running   rate=10
         6:00  complete
        """,
        until="8:00",
        phase_s=phase_s,
    )
    must_be_told(
        ward,
        """
        2:20  not_started
        4:00  not_started end
        4:00  dose_missed
        4:00  dose_missed end
        """,
    )


@pytest.mark.parametrize(
    ("paused", "resumed", "told"),
    [
        # half an hour is left, and the next may begin twenty minutes before this one would end
        ("5:30", "rate=10", ""),
        ("5:30", "rate=10 counter=0", "5:50 counter_reset\n5:50 dose_started"),
        ("5:30", "rate=10 vtbi=60", "5:50 dose_started"),
        ("5:45", "rate=10", "5:50 dose_started"),
    ],
)
def test_without_a_gap_a_pause_when_little_is_left_is_followed_by_the_rest_unless_it_was_for_the_next_bag(
    paused: str, resumed: str, told: str
) -> None:
    ward = live(
        order(
            head='every = "6h"\ntimes = 3\n',
            phases='[[schedule.phase]]\nduration = "6h"\nrate_ml_h = 10\n',
            tail=f"[limits]\n{LIMITS}\n[pump]\n{PUMP}",
        ),
        f"""
        -0:10  idle
         0:00  running   rate=10
        {paused}  paused
         5:50  running   {resumed}
        """,
        until="6:00",
    )
    must_be_told(ward, f"0:00 dose_started\n{paused} dose_ended\n{told}", info=True)


def test_doses_that_follow_without_a_gap_may_run_without_a_stop() -> None:
    ward = live(
        DAY_AFTER_DAY,
        """
        -0:10  idle
         0:10  running   rate=10
         6:10  complete
        """,
        until="8:00",
    )
    must_be_told(
        ward,
        """
        0:10  dose_started
        2:10  dose_ended
        2:10  dose_started
        4:10  dose_ended
        4:10  dose_started
        6:10  dose_ended
        """,
        info=True,
        within_s=25,
    )


@pytest.mark.parametrize(
    ("flow", "end"),
    [
        ("10", "2:10:12"),  # the clocks differ
        ("9.5", "2:16"),  # the pump is slow within its accuracy, and stops with its volume
    ],
)
def test_a_stop_for_the_next_bag_a_little_late_is_no_beginning_of_the_next(flow: str, end: str) -> None:
    ward = live(
        DAY_AFTER_DAY,
        f"""
        -0:10    idle
         0:10    running   rate=10   flow={flow}
         {end}   complete
         2:20    running   rate=10   counter=0
        """,
        until="4:00",
    )
    must_be_told(
        ward, f"0:10 dose_started\n{end} dose_ended\n2:20 counter_reset\n2:20 dose_started", info=True
    )


def test_a_dose_that_was_joined_may_have_begun_a_change_of_bag_after_it_was_due() -> None:
    ward = live(
        DAY_AFTER_DAY,
        """
         1:00  running   rate=10   counter=8.33
         2:10  complete
         2:15  running   rate=10   counter=0
         4:15  complete
        """,
        until="4:20",
    )
    must_be_told(
        ward,
        """
        1:00  dose_started
        2:10  dose_ended
        2:15  counter_reset
        2:15  dose_started
        4:15  dose_ended
        """,
        info=True,
    )


def test_by_day_and_by_night_without_a_stop_another_rate_tells_that_the_next_has_begun() -> None:
    by_day_and_night = order(
        head='every = "4h"\ntimes = 3\n',
        phases='[[schedule.phase]]\nduration = "2h"\nrate_ml_h = 20\n'
        '[[schedule.phase]]\nduration = "2h"\nrate_ml_h = 10\n',
        tail=f"[limits]\n{LIMITS}\n[pump]\n{PUMP}",
    )
    ward = live(
        by_day_and_night,
        """
        -0:10  idle
         0:00  running  rate=20
         2:00  running  rate=10
         4:00  running  rate=20
         6:00  running  rate=10
         8:00  running  rate=20
        10:00  running  rate=10
        12:00  complete
        """,
        until="13:00",
    )
    starts = "0:00 dose_started\n4:00 dose_ended\n4:00 dose_started\n8:00 dose_ended\n8:00 dose_started"
    must_be_told(ward, f"{starts}\n12:00 dose_ended", info=True)


def test_without_a_gap_the_next_may_begin_as_soon_as_the_one_before_has_its_volume() -> None:
    ward = live(
        DAY_AFTER_DAY,
        """
        -0:20  idle
        -0:15  running   rate=10.5
         1:35  idle
         1:37  running   rate=10   counter=0
         3:37  idle
        """,
        until="3:40",
    )
    must_be_told(ward, "")


def test_without_a_gap_a_dose_that_began_late_may_be_paused_after_the_next_was_due_by_the_clock() -> None:
    ward = live(
        DAY_AFTER_DAY,
        """
        -0:10  idle
         1:00  running   rate=10
         2:10  paused
         2:13  running   rate=10
         3:03  complete
         3:10  running   rate=10   counter=0
         5:10  complete
        """,
        until="5:20",
    )
    must_be_told(
        ward,
        """
        0:20  not_started
        1:00  not_started end
        """,
    )


def test_without_a_gap_an_interrupted_dose_is_over_when_it_should_have_ended() -> None:
    ward = live(
        DAY_AFTER_DAY,
        """
        -0:10  idle
         0:00  running   rate=10
         1:00  paused
        """,
        until="3:00",
    )
    must_be_told(
        ward,
        """
        1:10  paused_too_long
        2:00  paused_too_long end
        2:00  stopped_early
        2:00  stopped_early end
        2:20  not_started
        """,
        within_s=5,
    )


def test_an_interrupted_dose_is_over_when_the_next_is_due() -> None:
    ward = live(
        EVERY_8H,
        """
        -0:10  idle
         0:00  running   rate=100
         0:30  paused
         8:05  running   rate=100
         9:05  complete
        """,
        until="10:00",
    )
    must_be_told(
        ward,
        """
        0:40  paused_too_long
        8:00  paused_too_long end
        8:00  stopped_early
        8:00  stopped_early end
        """,
        within_s=5,
    )


def test_after_a_counter_reset_delivery_in_the_next_window_is_the_next_dose() -> None:
    ward = live(
        EVERY_8H,
        """
        -0:10  idle
         0:00  running   rate=100
         0:30  paused
         7:50  running   rate=100   counter=0
         8:50  complete
        """,
        until="10:00",
    )
    must_be_told(
        ward,
        """
        0:40  paused_too_long
        7:50  paused_too_long end
        7:50  stopped_early
        7:50  stopped_early end
        """,
        within_s=5,
    )


def test_a_counter_that_fell_while_the_pump_ran_says_nothing_of_a_later_pause() -> None:
    ward = live(
        EVERY_2H,
        """
        -0:10  idle
         0:55  running   rate=100
         1:20  running   rate=100   counter=0
         1:45  paused
         1:50  running   rate=100
         2:00  complete
        """,
        until="2:10",
    )
    must_be_told(
        ward,
        """
        0:20  not_started
        0:55  not_started end
        1:20  counter_reset_unexplained
        1:20  counter_reset_unexplained end
        """,
    )


def test_a_single_interrupted_dose_is_over_a_day_after_its_last_delivery() -> None:
    ward = live(
        one_hour_at_100(),
        """
        -0:10  idle
         0:00  running   rate=100
         0:30  paused
        """,
        until="25:00",
    )
    must_be_told(
        ward,
        """
        0:40   paused_too_long
        24:30  paused_too_long end
        24:30  stopped_early
        24:30  stopped_early end
        """,
        within_s=5,
    )


def test_as_needed_each_start_is_right_unless_it_comes_too_soon() -> None:
    ward = live(
        order(
            head="as_needed = true\ntimes = 0\n",
            phases='[[schedule.phase]]\nduration = "30min"\nvolume_ml = 50\n',
            tail=f'[limits]\n{LIMITS}\nmin_interval = "4h"\n[pump]\n{PUMP}',
        ),
        """
        -0:10  idle
         3:00  running   rate=100
         3:30  complete
         8:00  running   rate=100
         8:30  complete
        10:00  running   rate=100
        10:30  complete
        """,
        until="12:00",
    )
    must_be_told(
        ward,
        """
        10:00  dose_too_soon
        10:30  dose_too_soon end
        """,
    )


class TestJoiningLate:
    def test_a_dose_found_running_is_joined_and_its_end_is_right(self) -> None:
        ward = live(
            one_hour_at_100(),
            """
            0:30  running   rate=100
            1:00  complete
            """,
            until="2:00",
        )
        must_be_told(
            ward,
            """
            0:30  dose_started
            1:00  dose_ended
            """,
            info=True,
        )

    def test_a_pause_that_is_found_began_with_the_first_reading(self) -> None:
        ward = live(
            one_hour_at_100(),
            """
            0:30  paused
            """,
            until="1:00",
        )
        must_be_told(ward, "0:40 paused_too_long")

    def test_a_pump_found_running_long_after_the_end_is_unscheduled(self) -> None:
        ward = live(one_hour_at_100(), "1:30 running rate=100", until="1:40")
        must_be_told(ward, "1:30 unscheduled_delivery")

    def test_a_pump_found_running_within_the_window_before_begins_the_dose(self) -> None:
        ward = live(
            one_hour_at_100(),
            """
            -0:10  running   rate=100
             0:50  complete
            """,
            until="2:00",
        )
        must_be_told(ward, "")

    def test_a_dose_that_may_have_been_given_before_anybody_looked_is_not_held_missing(self) -> None:
        ward = live(EVERY_8H, "1:10 idle", until="8:10")
        must_be_told(ward, "")

    @pytest.mark.parametrize("first_looked_at", ["0:00", "0:10", "0:50"])
    @pytest.mark.parametrize(("hours", "counter"), [(0.5, ""), (1.0, "nocount")])
    def test_a_pump_that_is_found_idle_while_the_window_is_open_may_still_begin(
        self, first_looked_at: str, hours: float, counter: str
    ) -> None:
        prescription = continuous(100, hours, limits='start_window = "1h"', pump=PUMP)
        found_idle = f"{first_looked_at} idle {counter}\n"
        begun = live(prescription, f"{found_idle} 0:55 running rate=100 {counter}", until="1:20")
        must_be_told(begun, "0:55 dose_started", info=True)
        must_be_told(live(prescription, found_idle, until="1:10"), "1:00 not_started", within_s=0)

    def test_a_counter_that_shows_the_volume_says_that_a_dose_was_given_early(self) -> None:
        half_an_hour = continuous(100, 0.5, limits='start_window = "1h"', pump=PUMP)
        must_be_told(live(half_an_hour, "0:05 idle counter=50", until="2:00"), "")

    def test_a_dose_that_cannot_have_been_given_yet_is_held_missing_at_the_first_reading(self) -> None:
        ward = live(continuous(10, 24, limits=LIMITS, pump=PUMP), "2:00 idle", until="2:10")
        must_be_told(ward, "2:00 not_started")


class TestBeforeThereWasADate:
    def test_a_dose_given_whole_is_the_one_that_was_due(self) -> None:
        ward = live(
            EVERY_2H,
            """
            -0:10  idle      clock=unsynced
             0:00  running   clock=unsynced  rate=100
             1:00  idle      clock=unsynced
             1:10  idle
             2:00  running   rate=100
             3:00  complete
            """,
            until="3:30",
        )
        must_be_told(
            ward,
            """
            1:10  dose_started
            1:10  dose_ended
            2:00  dose_started
            3:00  dose_ended
            """,
            info=True,
        )

    def test_two_doses_that_a_pump_without_a_word_for_the_end_has_given_are_two(self) -> None:
        ward = live(
            EVERY_2H,
            """
            -0:10  idle      clock=unsynced
             0:00  running   clock=unsynced  rate=100
             1:00  paused    clock=unsynced
             2:00  running   clock=unsynced  rate=100  counter=0
             3:00  paused    clock=unsynced
             3:10  paused
            """,
            until="3:50",
        )
        must_be_told(
            ward,
            """
            2:00  counter_reset
            3:10  dose_started
            3:10  dose_ended
            3:10  dose_started
            3:10  dose_ended
            """,
            info=True,
        )

    def test_a_dose_that_is_paused_when_the_clock_is_set_goes_on_where_it_stood(self) -> None:
        ward = live(
            order(
                head="",
                phases="[[schedule.phase]]\nduration = '30min'\nrate_ml_h = 10\n"
                "[[schedule.phase]]\nduration = '1h'\nrate_ml_h = 40\n",
                tail=f"[limits]\n{LIMITS}\n[pump]\n{PUMP}",
            ),
            """
            -0:10  idle      clock=unsynced
             0:00  running   clock=unsynced  rate=10
             0:30  running   clock=unsynced  rate=40
             0:45  paused    clock=unsynced
             0:50  paused
             0:53  running   rate=40
             1:38  complete
            """,
            until="2:00",
        )
        must_be_told(
            ward,
            """
            0:50  dose_started
            1:38  dose_ended
            """,
            info=True,
        )

    def test_a_pause_that_has_lasted_too_long_is_told_when_there_is_a_date(self) -> None:
        ward = live(
            one_hour_at_100(),
            """
            -0:10  idle      clock=unsynced
             0:00  running   clock=unsynced  rate=100
             0:30  paused    clock=unsynced
             0:50  paused
            """,
            until="1:00",
        )
        must_be_told(ward, "0:50 paused_too_long")

    def test_a_dose_that_stopped_with_volume_missing_is_told_when_there_is_a_date(self) -> None:
        ward = live(
            one_hour_at_100(),
            """
            -0:10  idle      clock=unsynced
             0:00  running   clock=unsynced  rate=100
             0:30  idle      clock=unsynced
             0:50  idle
            """,
            until="4:00",
        )
        must_be_told(ward, "0:50 stopped_early\n0:50 stopped_early end")

    def test_a_dose_that_nobody_gave_is_told_when_there_is_a_date(self) -> None:
        ward = live(one_hour_at_100(), "-0:10 idle clock=unsynced\n 0:50 idle", until="1:00")
        must_be_told(ward, "0:50 not_started")

    def test_a_dose_that_was_found_running_and_ended_is_joined_and_over(self) -> None:
        ward = live(
            EVERY_8H,
            """
            0:30  running   clock=unsynced  rate=100
            1:00  idle      clock=unsynced
            1:10  idle
            """,
            until="7:00",
        )
        must_be_told(ward, "1:10 dose_started\n1:10 dose_ended", info=True)

    def test_a_dose_given_whole_in_silence_was_given(self) -> None:
        ward = live(
            EVERY_8H,
            """
            -0:10  idle      clock=unsynced
            -0:01  silence
             0:00  silence   rate=100
             1:00  silence
             1:10  idle      clock=unsynced
             1:20  idle
            """,
            until="7:00",
        )
        must_be_told(ward, "1:20 dose_started\n1:20 dose_ended", info=True)

    def test_nothing_before_a_restart_can_be_dated(self) -> None:
        """Nobody knows how long the gateway was gone: what runs after it is joined as found running."""
        ward = Ward(
            order(
                head="",
                phases="[[schedule.phase]]\nduration = '1h'\nrate_ml_h = 50\n"
                "[[schedule.phase]]\nduration = '3h'\nrate_ml_h = 100\n",
                tail=f"[limits]\n{LIMITS}\n[pump]\n{PUMP}",
            )
        )
        for second in range(0, 4 * 3600, 5):
            if 1800 <= second < 7200:
                continue  # switched off
            ward.take(
                Moment(
                    monotonic_ms=second * 1000 if second < 7200 else (second - 7190) * 1000,
                    utc_ms=START_UTC_MS + second * 1000 if second >= 7800 else second * 1000,
                    synced=second >= 7800,
                    boot="first" if second < 7200 else "second",
                ),
                Reading(
                    pump="pump",
                    at_ms=0,
                    state=PumpState.RUNNING if second else PumpState.IDLE,
                    rate_ml_h=50.0 if second < 3600 else 100.0,
                    volume_ml=floor((min(second, 3600) / 72 + max(0, second - 3600) / 36) * 100) / 100,
                    alarms=(),
                ),
            )
        must_be_told(ward, "")


class TestInAGapWhoseLengthBecomesKnown:
    """The gateway's machine was started anew, and its clock is right only some time later."""

    def test_a_dose_given_whole_before_the_clock_is_right_is_the_one_that_was_due(self) -> None:
        ward = live(
            EVERY_2H,
            """
            -0:30  idle
            -0:20  silence
            -0:10  idle      clock=unsynced  boot=anew
             0:00  running   clock=unsynced  rate=100
             1:00  idle      clock=unsynced
             1:10  idle
             2:00  running   rate=100
             3:00  complete
            """,
            until="3:30",
        )
        must_be_told(
            ward,
            """
            1:10  dose_started
            1:10  dose_ended
            2:00  dose_started
            3:00  dose_ended
            """,
            info=True,
        )

    def test_doses_that_nobody_saw_were_given(self) -> None:
        ward = live(
            EVERY_2H,
            """
            -0:10  idle
            -0:01  silence
             0:00  silence   rate=100
             1:00  silence
             2:00  silence   rate=100
             3:00  silence
             3:10  idle      clock=unsynced  boot=anew
             3:20  idle
            """,
            until="3:50",
        )
        must_be_told(
            ward,
            """
            3:20  dose_started
            3:20  dose_ended
            3:20  dose_started
            3:20  dose_ended
            """,
            info=True,
        )

    def test_a_dose_that_was_not_due_is_told_when_it_is_known_that_it_was_not(self) -> None:
        ward = live(
            EVERY_8H,
            """
            -0:10  idle
             0:00  running   rate=100
             1:00  complete
             2:00  silence
             2:10  idle      clock=unsynced  boot=anew
             2:20  running   clock=unsynced  rate=100
             3:20  idle      clock=unsynced
             3:30  idle
            """,
            until="4:00",
        )
        must_be_told(ward, "3:30 unscheduled_delivery\n3:30 unscheduled_delivery end")

    def test_a_dose_that_is_paused_when_the_clock_is_right_goes_on_where_it_stood(self) -> None:
        ward = live(
            EVERY_2H,
            """
            -0:30  idle
            -0:20  silence
            -0:10  idle      clock=unsynced  boot=anew
             0:00  running   clock=unsynced  rate=100
             0:45  paused    clock=unsynced
             0:50  paused
             0:53  running   rate=100
             1:08  complete
            """,
            until="1:30",
        )
        must_be_told(ward, "0:50 dose_started\n1:08 dose_ended", info=True)

    def test_the_time_between_two_doses_has_the_gap_in_it(self) -> None:
        ward = live(
            order(
                head='every = "2h"\ntimes = 4\n',
                phases='[[schedule.phase]]\nduration = "1h"\nvolume_ml = 100.0\n',
                tail=f'[limits]\n{LIMITS}\nmin_interval = "90min"\n[pump]\n{PUMP}',
            ),
            """
            -0:10  idle
             0:00  running   rate=100
             1:00  complete
             1:10  silence
             1:58  idle      clock=unsynced  boot=anew
             2:00  running   clock=unsynced  rate=100
             2:05  running   rate=100
             3:00  complete
            """,
            until="3:30",
        )
        must_be_told(ward, "")

    def test_what_was_told_as_not_due_before_the_gap_is_not_told_again_after_it(self) -> None:
        ward = live(
            EVERY_8H,
            """
            -0:10  idle
             0:00  running   rate=100
             1:00  complete
             2:00  running   rate=100
             2:10  silence   rate=100
             2:14  running   rate=100  clock=unsynced  boot=anew
             3:30  idle      clock=unsynced
             3:40  idle
            """,
            until="4:00",
        )
        must_be_told(ward, "2:00 unscheduled_delivery\n3:30 unscheduled_delivery end")

    def test_over_a_second_restart_the_counter_says_still_that_it_was_given(self) -> None:
        """How long the gateway was gone before the dose, and how long after it, nobody knows."""
        ward = live(
            EVERY_2H,
            """
            -0:30  idle
            -0:20  silence
            -0:10  idle      clock=unsynced  boot=anew
             0:00  running   clock=unsynced  rate=100
             1:00  idle      clock=unsynced
             1:10  silence
             1:20  idle      boot=anew
            """,
            until="1:40",
        )
        must_be_told(ward, "1:20 dose_started\n1:20 dose_ended", info=True)

    def test_what_a_pump_within_its_accuracy_counts_more_is_not_yet_of_the_next_dose(self) -> None:
        """One dose follows the other without a gap, and the gateway is off shortly before the first ends."""
        ward = live(
            DAY_AFTER_DAY,
            """
            -0:10  idle
             0:00  running   rate=10  flow=10.3
             1:46  silence   rate=10  flow=10.3
             1:58  running   rate=10  flow=10.3  boot=anew
             2:00  idle
             2:04  running   rate=10
            """,
            until="2:20",
        )
        must_be_told(
            ward,
            """
            0:00     dose_started
            1:50:50  no_data
            1:58     no_data end
            2:00     dose_ended
            2:04     dose_started
            """,
            info=True,
        )


class TestWhileNobodyLooked:
    def test_a_dose_begun_in_silence_is_no_missed_dose(self) -> None:
        ward = live(
            one_hour_at_100(),
            """
            -0:10  idle
            -0:01  silence
             0:05  silence   rate=100
             0:35  running   rate=100
             1:05  complete
            """,
            until="2:00",
        )
        must_be_told(
            ward,
            """
            0:03:57  no_data
            0:35     no_data end
            """,
        )

    def test_a_dose_given_whole_in_silence_was_given(self) -> None:
        ward = live(
            one_hour_at_100(),
            """
            -0:10  idle
            -0:01  silence
             0:05  silence   rate=100
             1:05  silence
             2:30  idle
            """,
            until="5:00",
        )
        must_be_told(
            ward,
            """
            0:03:57  no_data
            2:30     no_data end
            2:30     dose_started
            2:30     dose_ended
            """,
            info=True,
        )

    def test_a_pump_switched_off_between_two_doses_is_nobodys_trouble(self) -> None:
        ward = live(
            order(
                head='every = "24h"\ntimes = 3\n',
                phases='[[schedule.phase]]\nduration = "30min"\nvolume_ml = 50\n',
                tail=f"[limits]\n{LIMITS}\n[pump]\n{PUMP}",
            ),
            """
            -0:10  idle
             0:00  running   rate=100
             0:30  complete
             0:35  silence
            23:55  idle      counter=0
            24:05  running   rate=100
            24:35  complete
            """,
            until="26:00",
        )
        must_be_told(ward, "")

    def test_a_dose_that_ended_and_the_next_that_began_in_silence_are_two_doses(self) -> None:
        ward = live(
            EVERY_2H,
            """
            -0:10  idle
             0:00  running   rate=100
             0:30  silence   rate=100
             1:00  silence
             2:00  silence   rate=100
             2:30  running   rate=100
             3:00  complete
            """,
            until="3:30",
        )
        must_be_told(
            ward,
            """
            0:00     dose_started
            0:34:57  no_data
            2:30     no_data end
            2:30     dose_ended
            2:30     dose_started
            3:00     dose_ended
            """,
            info=True,
        )

    @pytest.mark.parametrize("begun", ["8:00", "7:58", "7:45"])
    def test_of_the_next_dose_it_takes_no_more_than_its_first_drop(self, begun: str) -> None:
        ward = live(
            EVERY_8H,
            f"""
            -0:10  idle
             0:00  running   rate=100
             0:30  silence   rate=100
             1:00  silence
             {begun}  silence   rate=100
             8:01  running   rate=100
            """,
            until="8:30",
        )
        must_be_told(
            ward,
            """
            0:00     dose_started
            0:34:57  no_data
            8:01     no_data end
            8:01     dose_ended
            8:01     dose_started
            """,
            info=True,
        )

    def test_after_a_reset_in_silence_delivery_in_the_next_window_is_the_next_dose(self) -> None:
        ward = live(
            EVERY_8H,
            """
            -0:10  idle
             0:00  running   rate=100
             0:30  silence   rate=100
             1:00  silence
             7:50  silence   rate=100  counter=0
             7:55  running   rate=100
             8:50  complete
            """,
            until="10:00",
        )
        must_be_told(
            ward,
            """
            0:34:57  no_data
            7:55     no_data end
            7:55     stopped_early
            7:55     stopped_early end
            """,
        )

    def test_a_dose_that_ended_and_the_next_given_whole_in_silence_are_two_doses(self) -> None:
        ward = live(
            EVERY_2H,
            """
            -0:10  idle
             0:00  running   rate=100
             0:30  silence   rate=100
             1:00  silence
             2:00  silence   rate=100
             3:00  silence
             3:30  idle
            """,
            until="3:50",
        )
        must_be_told(ward, "0:34:57 no_data\n3:30 no_data end")

    def test_a_dose_given_whole_in_silence_and_the_next_found_running_are_two_doses(self) -> None:
        ward = live(
            EVERY_2H,
            """
            -0:10  idle
            -0:05  silence
             0:00  silence   rate=100
             1:00  silence
             2:00  silence   rate=100
             2:30  running   rate=100
             3:00  complete
            """,
            until="3:30",
        )
        must_be_told(ward, "0:00 no_data\n2:30 no_data end")

    def test_an_interrupted_dose_was_over_when_the_next_came_due_in_silence(self) -> None:
        ward = live(
            EVERY_8H,
            """
            -0:10  idle
             0:00  running   rate=100
             0:30  paused
             0:35  silence
             8:00  silence   rate=100
             8:10  running   rate=100
             9:00  complete
            """,
            until="10:00",
        )
        must_be_told(
            ward,
            """
            0:39:57  no_data
            8:10     no_data end
            8:10     stopped_early
            8:10     stopped_early end
            """,
        )

    def test_what_was_counted_before_a_reset_in_silence_is_not_known_and_accuses_nobody(self) -> None:
        ward = live(
            DAY_AFTER_DAY,
            """
            -0:10  idle
             0:00  running   rate=10
             0:30  silence
             1:00  running   rate=10   counter=0.5
            """,
            until="1:50",
        )
        must_be_told(ward, "0:34:57 no_data\n1:00 no_data end")

    def test_what_was_due_in_silence_is_judged_with_the_first_reading_after_it(self) -> None:
        ward = live(
            one_hour_at_100(),
            """
            -0:10  idle
            -0:01  silence
             1:00  idle
            """,
            until="1:05",
        )
        must_be_told(
            ward,
            """
            0:03:57  no_data
            1:00  no_data end
            1:00  not_started
            """,
        )


def test_a_pump_that_shows_no_counter_is_judged_by_the_time_for_which_it_ran() -> None:
    ward = live(
        one_hour_at_100(),
        """
        -0:10  idle      nocount
         0:00  running   rate=100  nocount
         1:00  complete  nocount
        """,
        until="2:00",
    )
    must_be_told(ward, "0:00 dose_started\n1:00 dose_ended", info=True)
    assert {one.delivered_ml for one in ward.findings} == {None}


def test_of_a_pump_that_shows_no_counter_no_volume_is_said_to_be_counted() -> None:
    ward = live(
        one_hour_at_100(),
        """
        -0:10  idle      nocount
         0:00  running   rate=100  nocount
         0:30  paused    nocount
         0:45  running   rate=100  nocount
         1:30  complete  nocount
        """,
        until="2:00",
    )
    must_be_told(
        ward,
        "0:40 paused_too_long\n0:45 paused_too_long end\n1:25 not_ended\n1:30 not_ended end",
        within_s=20,
    )
    assert all("shows no counter" in one.finding.message for one in ward.started[1:])


@pytest.mark.parametrize(
    ("ends", "told"), [("1:00", ""), ("0:40", "0:40 stopped_early\n0:40 stopped_early end")]
)
def test_from_when_on_a_pump_no_longer_shows_its_counter_it_is_judged_by_the_time_for_which_it_ran(
    ends: str, told: str
) -> None:
    ward = live(
        one_hour_at_100(),
        f"""
        -0:10  idle
         0:00  running   rate=100
         0:30  running   rate=100  nocount
         {ends}  idle      nocount
        """,
        until="2:00",
    )
    must_be_told(ward, told)


def test_keep_vein_open_after_a_dose_that_stopped_early_counts_from_its_own_end() -> None:
    ward = live(
        order(
            head='every = "8h"\ntimes = 2\n',
            phases='[[schedule.phase]]\nduration = "1h"\nvolume_ml = 100.0\n',
            tail=f"[limits]\n{LIMITS}\n[pump]\n{PUMP}",
        ),
        """
        -0:10  idle
         0:00  running   rate=100
         1:00  idle
         8:00  running   rate=100
         8:30  kvo       rate=0.5
         8:50  idle
        """,
        until="10:00",
    )
    must_be_told(ward, "8:30 stopped_early\n8:30 stopped_early end")
