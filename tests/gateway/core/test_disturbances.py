"""A dose that does not come through: repeated interruptions, a late end (prescription page, 1 and 3)."""

from __future__ import annotations

import pytest

from alerts.condition import Kind
from drivers.reading import PumpAlarm
from gateway.core.prescription import Prescription
from tests.gateway.core.pump_days import Ward, continuous, order
from tests.gateway.core.timetable import live, must_be_told

PUMP = 'counter_ml = 0.01\nstroke_ml = 0.005\nripple_ml = 0.01\npoll = "5s"'
LIMITS = 'start_window = "20min"\nend_window = "30min"\nmax_pause = "10min"\nkvo_ml_h = 0.5'
A_DAY_AT_10 = continuous(10, 24, limits=LIMITS, pump=PUMP)


def repeated(ward: Ward) -> list[tuple[str, str]]:
    """When it was told, as hours:minutes, and whether it began or ended."""
    return [
        (f"{int(at_s) // 3600}:{int(at_s) % 3600 // 60:02}", phase)
        for at_s, kind, phase in ward.told
        if kind == Kind.REPEATED_INTERRUPTION
    ]


class TestRepeatedInterruption:
    def test_three_alarms_within_an_hour_are_told_until_an_hour_has_passed_without_one(self) -> None:
        ward = live(
            A_DAY_AT_10,
            """
            -0:10  idle
             0:00  running  rate=10
             1:00  alarm    alarms=occlusion_downstream
             1:05  running  rate=10
             1:20  alarm    alarms=air_in_line
             1:25  running  rate=10
             1:40  alarm    alarms=occlusion_downstream
             1:45  running  rate=10
            """,
            until="3:00",
        )
        must_be_told(
            ward,
            """
            1:00  occlusion
            1:05  occlusion end
            1:20  pump_alarm
            1:25  pump_alarm end
            1:40  repeated_interruption
            1:40  occlusion
            1:45  occlusion end
            2:45  repeated_interruption end
            """,
        )
        said = next(one for one in ward.findings if one.kind is Kind.REPEATED_INTERRUPTION)
        assert "3 times within 40 min" in said.message

    def test_three_in_more_than_an_hour_are_nothing(self) -> None:
        ward = live(
            A_DAY_AT_10,
            """
            -0:10  idle
             0:00  running  rate=10
             1:00  alarm    alarms=occlusion_downstream
             1:05  running  rate=10
             1:30  alarm    alarms=occlusion_downstream
             1:35  running  rate=10
             2:01  alarm    alarms=occlusion_downstream
             2:05  running  rate=10
            """,
            until="3:00",
        )
        assert repeated(ward) == []

    def test_a_fourth_does_not_repeat_it_and_the_hour_begins_anew(self) -> None:
        ward = live(
            A_DAY_AT_10,
            """
            -0:10  idle
             0:00  running  rate=10
             1:00  alarm    alarms=cassette
             1:01  running  rate=10
             1:10  alarm    alarms=cassette
             1:11  running  rate=10
             1:20  alarm    alarms=cassette
             1:21  running  rate=10
             2:00  alarm    alarms=cassette
             2:30  running  rate=10
            """,
            until="4:00",
        )
        assert repeated(ward) == [("1:20", "start"), ("3:30", "end")]

    def test_an_alarm_that_is_silenced_and_left_paused_is_one(self) -> None:
        ward = live(
            A_DAY_AT_10,
            """
            -0:10  idle
             0:00  running  rate=10
             1:00  alarm    alarms=occlusion_downstream
             1:02  paused
             1:04  alarm    alarms=air_in_line
             1:06  paused   alarms=air_in_line
             1:25  running  rate=10
            """,
            until="3:00",
        )
        assert repeated(ward) == []

    def test_a_pump_that_starts_again_by_itself_and_alarms_again_has_had_two(self) -> None:
        ward = live(
            A_DAY_AT_10,
            """
            -0:10     idle
             0:00     running  rate=10
             1:00     alarm    alarms=occlusion_downstream
             1:00:15  running  rate=10
             1:01     alarm    alarms=occlusion_downstream
             1:01:15  running  rate=10
             1:02     alarm    alarms=occlusion_downstream
             1:02:15  running  rate=10
            """,
            until="1:30",
        )
        assert repeated(ward) == [("1:02", "start")]

    def test_allowed_pauses_are_nothing_however_often(self) -> None:
        pauses = "\n".join(
            f"{1 + number // 6}:{number % 6 * 10:02} paused\n"
            f"{1 + number // 6}:{number % 6 * 10 + 4:02} running rate=10"
            for number in range(10)
        )
        ward = live(A_DAY_AT_10, f"-0:10 idle\n0:00 running rate=10\n{pauses}", until="4:00")
        must_be_told(ward, "")

    def test_three_pauses_that_are_too_long_are_told_with_the_third(self) -> None:
        ward = live(
            A_DAY_AT_10,
            """
            -0:10  idle
             0:00  running  rate=10
             1:00  paused
             1:15  running  rate=10
             1:20  off
             1:35  running  rate=10
             1:40  paused
             1:55  running  rate=10
            """,
            until="3:30",
        )
        assert repeated(ward) == [("1:50", "start"), ("2:55", "end")]

    def test_beyond_the_total_of_all_pauses_each_further_one_counts(self) -> None:
        ward = live(
            continuous(10, 24, limits=LIMITS + '\nmax_total_pause = "10min"', pump=PUMP),
            """
            -0:10  idle
             0:00  running  rate=10
             1:00  paused
             1:09  running  rate=10
             1:15  paused
             1:17  running  rate=10
             1:20  paused
             1:22  running  rate=10
             1:25  paused
             1:27  running  rate=10
            """,
            until="2:00",
        )
        assert repeated(ward) == [("1:25", "start")]

    @pytest.mark.parametrize("code", ["low_battery", "near_empty", "demand", "demand_denied", "vendor:E1"])
    def test_a_word_for_which_the_pump_does_not_stop_is_none(self, code: str) -> None:
        ward = live(
            A_DAY_AT_10, "-0:10 idle\n0:00 running rate=10\n" + three_times("running", code), until="3:00"
        )
        assert repeated(ward) == []

    @pytest.mark.parametrize("code", ["low_battery", "vendor:E1", ""])
    def test_any_word_for_which_it_stops_is_one(self, code: str) -> None:
        ward = live(
            A_DAY_AT_10, "-0:10 idle\n0:00 running rate=10\n" + three_times("alarm", code), until="1:30"
        )
        assert repeated(ward) == [("1:20", "start")]

    @pytest.mark.parametrize(
        "code",
        sorted(
            set(PumpAlarm)
            - {PumpAlarm.LOW_BATTERY, PumpAlarm.NEAR_EMPTY, PumpAlarm.DEMAND, PumpAlarm.DEMAND_DENIED}
        ),
    )
    def test_an_alarm_is_one_though_the_state_does_not_say_alarm(self, code: str) -> None:
        ward = live(
            A_DAY_AT_10, "-0:10 idle\n0:00 running rate=10\n" + three_times("running", code), until="1:30"
        )
        assert repeated(ward) == [("1:20", "start")]

    def test_alarms_while_no_dose_is_on_are_nothing(self) -> None:
        as_needed = order(
            head="as_needed = true\ntimes = 3\n",
            phases='[[schedule.phase]]\nduration = "1h"\nvolume_ml = 100\n',
            tail='[limits]\nmin_interval = "2h"',
        )
        ward = live(as_needed, "-0:10 idle\n" + three_times("alarm", "door_open", "idle"), until="1:30")
        assert repeated(ward) == []

    def test_the_alarm_with_which_a_dose_ends_is_none(self) -> None:
        prescription = order(
            head='every = "20min"\ntimes = 4\n',
            phases='[[schedule.phase]]\nduration = "10min"\nvolume_ml = 10\n',
            tail=f'[limits]\nstart_window = "2min"\n[pump]\n{PUMP}',
        )
        doses = "\n".join(
            f"{minute // 60}:{minute % 60:02} running rate=60\n"
            f"{minute // 60}:{minute % 60 + 10} alarm alarms=empty\n"
            f"{minute // 60}:{minute % 60 + 12} idle"
            for minute in (0, 20, 40, 60)
        )
        must_be_told(live(prescription, f"-0:02 idle\n{doses}", until="2:00"), "")

    def test_a_reading_that_does_not_say_does_not_end_an_alarm(self) -> None:
        """Alarmed, not said, alarmed: one."""
        ward = live(
            A_DAY_AT_10,
            """
            -0:10  idle
             0:00  running  rate=10
             1:00  running  rate=10  alarms=door_open
             1:01  running  rate=10  alarms=?
             1:02  running  rate=10  alarms=door_open
             1:03  running  rate=10  alarms=?
             1:04  running  rate=10  alarms=door_open
            """,
            until="1:30",
        )
        assert repeated(ward) == []


def three_times(state: str, code: str, between: str = "running rate=10") -> str:
    """Five minutes at 1:00, 1:10 and 1:20."""
    alarm = f"{state} rate=10 alarms={code}" if code else f"{state} rate=10"
    return "\n".join(f"1:{minute}0 {alarm}\n1:{minute}5 {between}" for minute in range(3))


def four_hours(**extra: str) -> Prescription:
    return continuous(100, 4, limits=f'{LIMITS}\nlate_end = "30min"', pump=PUMP, **extra)


class TestLateEnd:
    """Due 0:00 to 4:00, start window 20 min, late end 30 min: it must be over by 4:50."""

    def test_a_dose_that_is_over_by_then_is_nobodys_trouble(self) -> None:
        ward = live(
            four_hours(),
            """
            -0:10  idle
             0:15  running  rate=100
             2:00  paused
             2:09  running  rate=100
             3:00  paused
             3:09  running  rate=100
             4:33  complete
            """,
            until="6:00",
        )
        must_be_told(ward, "")

    def test_a_dose_that_begins_too_late_to_be_over_by_then_is_told_at_once(self) -> None:
        ward = live(four_hours(), "-0:10 idle\n0:55 running rate=100\n4:55 complete", until="6:00")
        must_be_told(
            ward,
            """
            0:20  not_started
            0:55  not_started end
            0:55  late_end
            4:55  late_end end
            """,
        )

    def test_in_a_pause_it_is_told_at_the_moment_from_which_on_it_cannot_be_over_by_then(self) -> None:
        ward = live(
            four_hours(),
            """
            -0:10  idle
             0:00  running  rate=100
             1:00  paused
             2:00  running  rate=100
             5:00  complete
            """,
            until="6:00",
        )
        must_be_told(
            ward,
            """
            1:10  paused_too_long
            1:50  late_end
            2:00  paused_too_long end
            5:00  late_end end
            """,
        )
        said = next(one for one in ward.findings if one.kind is Kind.LATE_END)
        assert "3.0 h of delivery are left" in said.message

    def test_it_carries_the_moment_also_between_two_readings(self) -> None:
        ward = live(
            four_hours(),
            """
            -0:10  idle
             0:00  running  rate=100
             1:00  paused
             1:48  silence
             1:52  paused
            """,
            until="1:55",
        )
        at_s = next(at_s for at_s, kind, _ in ward.told if kind == Kind.LATE_END)
        assert 6600 <= at_s < 6605

    def test_a_pump_that_goes_on_beyond_it_is_told_then(self) -> None:
        ward = live(
            continuous(
                100, 4, limits='start_window = "20min"\nend_window = "2h"\nlate_end = "10min"', pump=PUMP
            ),
            "-0:10 idle\n0:00 running rate=100 flow=93\n4:40 complete",
            until="6:00",
        )
        must_be_told(ward, "4:30 late_end\n4:40 late_end end")

    def test_without_late_end_in_the_order_nothing_is_late(self) -> None:
        ward = live(
            continuous(100, 4, limits=LIMITS, pump=PUMP),
            "-0:10 idle\n0:00 running rate=100\n1:00 paused\n4:00 running rate=100\n7:00 complete",
            until="8:00",
        )
        assert {kind for _, kind in ward.alerts()} == {"paused_too_long"}

    def test_as_needed_it_counts_from_the_beginning(self) -> None:
        prescription = order(
            head="as_needed = true\ntimes = 3\n",
            phases='[[schedule.phase]]\nduration = "1h"\nvolume_ml = 100\n',
            tail='[limits]\nmin_interval = "2h"\nstart_window = "20min"\nmax_pause = "1h"\n'
            f'late_end = "5min"\n[pump]\n{PUMP}',
        )
        ward = live(
            prescription,
            """
            -0:10  idle
             3:00  running  rate=100
             3:30  paused
             4:00  running  rate=100
             4:30  complete
            """,
            until="6:00",
        )
        must_be_told(ward, "3:55 late_end\n4:30 late_end end")
