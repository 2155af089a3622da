"""What the pump says outright: alarms, codes, silence; and clocks and restarts (prescription page, section
2)."""

from __future__ import annotations

import pytest

from alerts.condition import Kind, Verdict
from drivers.reading import PumpState, Reading
from gateway.core.monitor import DeliveryVerdict, Monitor
from gateway.core.timeline import Moment
from tests.gateway.core.pump_days import START_UTC_MS, Ward, continuous, order
from tests.gateway.core.timetable import BOOT_MS, live, must_be_told, play

PUMP = 'counter_ml = 0.01\nstroke_ml = 0.005\nripple_ml = 0.01\npoll = "5s"'
LIMITS = 'start_window = "20min"\nend_window = "30min"\nmax_pause = "10min"\nkvo_ml_h = 0.5'
A_DAY_AT_10 = continuous(10, 24, limits=LIMITS, pump=PUMP)


def test_an_occlusion_is_told_as_long_as_the_pump_says_so_and_its_end_warns_of_what_is_released() -> None:
    ward = live(
        A_DAY_AT_10,
        """
        -0:10  idle
         0:00  running  rate=10
         1:00  alarm    alarms=occlusion_downstream
         1:05  running  rate=10
        """,
        until="2:00",
    )
    must_be_told(ward, "1:00 occlusion\n1:05 occlusion end")
    end = next(one for one in ward.findings if one.kind is Kind.OCCLUSION and one.verdict is Verdict.ABSENT)
    assert "released at once" in end.message
    assert "may not have arrived" in end.message
    assert end.code == "occlusion_downstream"


def test_the_pause_behind_an_occlusion_is_held_back_and_told_when_the_occlusion_ends() -> None:
    ward = live(
        A_DAY_AT_10,
        """
        -0:10  idle
         0:00  running  rate=10
         1:00  alarm    alarms=occlusion_downstream
         1:30  paused
         1:40  running  rate=10
        """,
        until="2:00",
    )
    must_be_told(
        ward,
        """
        1:00  occlusion
        1:30  occlusion end
        1:30  paused_too_long
        1:40  paused_too_long end
        """,
    )


class TestAnAlarmWhoseNameCannotBeHad:
    """A pump that says only that there is one, and a line on which the answer to "which?" is lost."""

    @pytest.mark.parametrize("state", ["alarm", "paused", "running"])
    def test_it_is_told_with_the_second_reading(self, state: str) -> None:
        ward = live(
            A_DAY_AT_10,
            f"""
            -0:10     idle
             0:00     running  rate=10
             1:00     {state}  rate=10  alarms=vendor:unknown
             1:00:10  running  rate=10
            """,
            until="1:20",
            phase_s=0,
        )
        must_be_told(ward, "1:00:05 pump_alarm\n1:00:10 pump_alarm end", within_s=0)

    def test_once_between_two_readings_that_name_it_neither_begins_nor_ends_anything(self) -> None:
        ward = live(
            A_DAY_AT_10,
            """
            -0:10     idle
             0:00     running  rate=10
             1:00     alarm    alarms=occlusion_downstream
             1:00:10  alarm    alarms=vendor:unknown
             1:00:15  alarm    alarms=occlusion_downstream
             1:05     running  rate=10
            """,
            until="2:00",
            phase_s=0,
        )
        must_be_told(ward, "1:00 occlusion\n1:05 occlusion end")

    def test_while_it_has_no_name_no_other_alarm_is_known_to_be_over(self) -> None:
        ward = live(
            A_DAY_AT_10,
            """
            -0:10     idle
             0:00     running  rate=10
             1:00     alarm    alarms=occlusion_downstream
             1:01     alarm    alarms=vendor:unknown
             1:02     running  rate=10
            """,
            until="2:00",
            phase_s=0,
        )
        must_be_told(
            ward,
            """
            1:00     occlusion
            1:01:05  pump_alarm
            1:02     pump_alarm end
            1:02     occlusion end
            """,
        )

    def test_at_the_end_of_a_dose_once_is_nothing(self) -> None:
        ward = live(
            THREE_DOSES,
            """
            -0:10     idle
             0:00     running  rate=100
             0:30     paused   alarms=empty
             7:40     paused   alarms=vendor:unknown
             7:40:05  paused   alarms=empty
             7:50     idle
            """,
            until="7:59",
            phase_s=0,
        )
        must_be_told(ward, "")


def test_a_bag_that_is_empty_too_early_is_told_until_the_pump_delivers() -> None:
    ward = live(
        A_DAY_AT_10,
        """
        -0:10  idle
         0:00  running  rate=10
         1:00  alarm    alarms=empty
         1:04  paused
         1:08  running  rate=10   counter=0
        """,
        until="2:00",
    )
    must_be_told(ward, "1:00 bag_empty\n1:08 bag_empty end")


THREE_DOSES = order(
    phases='[[schedule.phase]]\nduration = "30min"\nrate_ml_h = 100\n',
    head='every = "8h"\ntimes = 3\n',
    tail=f"[limits]\n{LIMITS}\n[pump]\n{PUMP}",
)
WITH_A_RATE_BETWEEN = order(
    phases='[[schedule.phase]]\nduration = "30min"\nrate_ml_h = 100\n',
    head='every = "8h"\ntimes = 3\nbetween_ml_h = 0.5\n',
    tail=f"[limits]\n{LIMITS}\n[pump]\n{PUMP}",
)


@pytest.mark.parametrize(("code", "kind"), [("air_in_line", "pump_alarm"), ("empty", "bag_empty")])
class TestEmptyOrAirBesideADose:
    """With the volume in it is the end of the dose and nothing else (1.1, rule 4); but not of the next."""

    def test_after_the_end_and_for_as_long_as_it_is_said_it_is_nothing(self, code: str, kind: str) -> None:
        ward = live(
            THREE_DOSES,
            f"-0:10 idle\n0:00 running rate=100\n0:30 alarm alarms={code}\n7:50 idle",
            until="7:59",
        )
        must_be_told(ward, "")

    def test_a_bag_that_runs_dry_while_nothing_is_to_be_given_is_nothing(self, code: str, kind: str) -> None:
        ward = live(
            THREE_DOSES,
            f"-0:10 idle\n0:00 running rate=100\n0:30 kvo rate=0.5\n0:50 alarm alarms={code}\n1:00 idle",
            until="2:00",
        )
        must_be_told(ward, "")

    def test_when_the_next_dose_may_begin_it_is_told(self, code: str, kind: str) -> None:
        ward = live(
            THREE_DOSES,
            f"-0:10 idle\n0:00 running rate=100\n0:30 complete\n8:00 alarm alarms={code}",
            until="8:15",
        )
        must_be_told(ward, f"8:00 {kind}")

    @pytest.mark.parametrize(("at", "is_told"), [("3:00", False), ("7:50", False), ("8:05", True)])
    def test_while_a_rate_between_two_doses_is_ordered_it_is_the_end_of_the_bag_until_the_next_is_due(
        self, code: str, kind: str, at: str, is_told: bool
    ) -> None:
        ward = live(
            WITH_A_RATE_BETWEEN,
            f"-0:10 idle\n0:00 running rate=100\n0:30 kvo rate=0.5\n{at} alarm alarms={code}",
            until="8:15",
        )
        assert (kind in {str(told) for _, told in ward.alerts()}) == is_told


def test_a_new_bag_in_place_of_the_empty_one_carries_the_same_dose_on() -> None:
    ward = live(
        A_DAY_AT_10,
        """
        -0:10  idle
         0:00  running  rate=10
         1:00  alarm    alarms=empty
         1:02  idle     alarms=empty
         1:08  running  rate=10   counter=0
        """,
        until="2:00",
    )
    must_be_told(ward, "1:00 bag_empty\n1:08 bag_empty end")


def test_each_code_is_an_alert_of_its_own() -> None:
    ward = live(
        A_DAY_AT_10,
        """
        -0:10  idle
         0:00  running  rate=10
         1:00  running  rate=10  alarms=low_battery
         1:10  running  rate=10  alarms=low_battery;vendor:E42
         1:20  running  rate=10  alarms=vendor:E42
         1:30  running  rate=10
        """,
        until="2:00",
    )
    must_be_told(
        ward,
        """
        1:00  pump_alarm
        1:10  pump_alarm
        1:20  pump_alarm end
        1:30  pump_alarm end
        """,
    )
    assert [one.code for one in ward.findings if one.kind is Kind.PUMP_ALARM] == [
        "low_battery",
        "vendor:E42",
        "low_battery",
        "vendor:E42",
    ]


def test_from_the_ninth_vendor_code_on_all_are_many() -> None:
    codes = ";".join(f"vendor:E{number}" for number in range(12))
    ward = live(
        A_DAY_AT_10,
        f"""
        -0:10  idle
         0:00  running  rate=10
         1:00  running  rate=10  alarms={codes}
         1:10  running  rate=10
        """,
        until="2:00",
    )
    begun = [one.code for one in ward.findings if one.verdict is Verdict.PRESENT and one.code]
    ended = [one.code for one in ward.findings if one.verdict is Verdict.ABSENT and one.code]
    assert begun == [f"vendor:E{number}" for number in range(8)] + ["vendor:many"]
    assert sorted(ended) == sorted(begun)


def test_an_alarm_without_a_word_is_told_after_a_second_reading() -> None:
    ward = live(
        A_DAY_AT_10,
        """
        -0:10  idle
         0:00  running  rate=10
         1:00  alarm
         1:05  running  rate=10
        """,
        until="2:00",
    )
    must_be_told(ward, "1:00:05 pump_alarm\n1:05 pump_alarm end")


def test_a_demand_is_no_alarm() -> None:
    ward = live(
        A_DAY_AT_10,
        """
        -0:10  idle
         0:00  running  rate=10
         1:00  running  rate=10  alarms=demand
        """,
        until="2:00",
    )
    must_be_told(ward, "")


def test_a_reading_that_does_not_say_leaves_an_alarm_as_it_was() -> None:
    ward = Ward(A_DAY_AT_10)
    play(ward, "0:00 running rate=10 alarms=door_open", until="0:01")
    silent = Reading(pump="pump", at_ms=0, state=PumpState.RUNNING, rate_ml_h=10.0, alarms=None)
    ward.take(Moment(monotonic_ms=BOOT_MS + 70_000, utc_ms=START_UTC_MS + 70_000), silent)
    assert ward.present() == {"pump_alarm", "dose_started"}


class TestWithoutAPrescription:
    def test_only_what_the_pump_says_is_judged_and_the_verdict_is_unknown(self) -> None:
        ward = live(
            None,
            """
            0:00  running  rate=10
            0:10  alarm    alarms=occlusion_upstream
            0:20  alarm    alarms=empty
            0:30  running  rate=1000
            0:40  silence
            9:00  idle
            """,
            until="9:01",
        )
        must_be_told(
            ward,
            """
            0:10  occlusion
            0:20  occlusion end
            0:20  bag_empty
            0:30  bag_empty end
            """,
        )
        assert ward.instant is not None
        assert ward.monitor.status(ward.instant).verdict is DeliveryVerdict.UNKNOWN
        assert ward.monitor.next_wake_t_ms() is None


class TestSilence:
    def test_it_is_told_while_a_dose_runs_and_ends_with_a_reading(self) -> None:
        ward = live(
            A_DAY_AT_10,
            """
            -0:10  idle
             0:00  running  rate=10
             1:00  silence  rate=10
             1:20  running  rate=10
            """,
            until="2:00",
        )
        must_be_told(ward, "1:04:57 no_data\n1:20 no_data end")

    def test_it_is_no_condition_where_nothing_is_due(self) -> None:
        ward = live(
            A_DAY_AT_10,
            """
            -6:00  idle
            -5:00  silence
            -0:10  idle
             0:00  running  rate=10
            """,
            until="1:00",
        )
        must_be_told(ward, "")

    def test_it_is_one_where_keep_vein_open_is_right_between_two_doses_though_the_first_was_missed(
        self,
    ) -> None:
        ward = live(
            order(
                head='every = "8h"\ntimes = 2\nbetween_ml_h = 0.5\n',
                phases='[[schedule.phase]]\nduration = "1h"\nvolume_ml = 100.0\n',
                tail=f"[limits]\n{LIMITS}\n[pump]\n{PUMP}",
            ),
            """
            -0:10  idle
             1:30  silence
             2:00  idle
            """,
            until="2:05",
        )
        must_be_told(
            ward,
            """
            0:20     not_started
            1:20     not_started end
            1:20     dose_missed
            1:20     dose_missed end
            1:34:57  no_data
            2:00     no_data end
            """,
        )

    def test_it_is_one_where_boluses_may_be_had_as_needed(self) -> None:
        ward = live(
            order(
                head="as_needed = true\n",
                phases='[[schedule.phase]]\nduration = "8h"\nrate_ml_h = 0\n',
                tail=f'[limits]\n{LIMITS}\nmin_interval = "8h"\n[pump]\n{PUMP}\n'
                '[demand]\nbolus_ml = 1.0\nlockout = "10min"\n',
            ),
            """
            -1:00  idle
            -0:50  silence
            -0:30  idle
             1:00  silence
             1:20  idle
            """,
            until="1:25",
        )
        must_be_told(ward, "1:04:57 no_data\n1:20 no_data end")

    def test_a_pause_that_runs_out_in_silence_is_told_with_the_first_reading_after_it(self) -> None:
        ward = live(
            A_DAY_AT_10,
            """
            -0:10  idle
             0:00  running  rate=10
             1:00  paused
             1:02  silence
             1:20  paused
            """,
            until="1:21",
        )
        must_be_told(ward, "1:06:57 no_data\n1:20 no_data end\n1:20 paused_too_long", within_s=5)

    def test_a_pause_that_runs_out_between_two_readings_carries_the_moment(self) -> None:
        ward = live(
            A_DAY_AT_10,
            """
            -0:10     idle
             0:00     running  rate=10
             1:00     paused
             1:08     silence
             1:11     paused
            """,
            until="1:12",
        )
        must_be_told(ward, "1:10:02 paused_too_long", within_s=0)

    def test_a_pump_that_is_never_heard_is_silent_when_it_should_deliver(self) -> None:
        ward = Ward(A_DAY_AT_10)
        for minute in range(-30, 30):
            at_ms = minute * 60_000
            ward.take(Moment(monotonic_ms=BOOT_MS + at_ms, utc_ms=START_UTC_MS + at_ms), None)
        assert ward.alerts() == [(0.0, "no_data")]

    def test_the_loop_is_told_when_to_look_again(self) -> None:
        ward = Ward(A_DAY_AT_10)
        play(ward, "-0:10 idle\n0:00 running rate=10\n1:00 paused", until="1:00:05")
        woken: list[tuple[int, str]] = []
        for _ in range(3):
            wake_t_ms = ward.monitor.next_wake_t_ms()
            assert wake_t_ms is not None
            at_ms = wake_t_ms - BOOT_MS
            before = len(ward.told)
            ward.take(Moment(monotonic_ms=wake_t_ms, utc_ms=START_UTC_MS + at_ms), None)
            woken.extend((at_ms // 1000, kind) for _, kind, _ in ward.told[before:])
            if ward.monitor.next_wake_t_ms() is None:
                break
        assert woken == [(3602 + 300, "no_data")]
        assert ward.monitor.next_wake_t_ms() is None


class TestClocks:
    def test_a_clock_that_is_set_moves_no_due_time_and_no_one_is_alarmed(self) -> None:
        ward = live(
            A_DAY_AT_10,
            """
            -0:10  idle
             0:05  running  rate=10
             1:00  running  rate=10  step=180
             2:00  running  rate=10  step=-180
            """,
            until="3:00",
        )
        assert [kind for _, kind, _ in ward.told] == ["dose_started", "clock_stepped", "clock_stepped"]

    def test_until_the_clock_is_synced_due_times_are_not_judged(self) -> None:
        ward = live(
            A_DAY_AT_10,
            """
            -5:00  idle     clock=unsynced
             3:00  idle     clock=unsynced
            """,
            until="5:00",
        )
        must_be_told(ward, "")

    def test_delivery_that_began_before_the_clock_was_synced_is_the_dose_from_its_beginning(self) -> None:
        ward = live(
            A_DAY_AT_10,
            """
            -0:10  idle             clock=unsynced
             0:05  running  rate=10 clock=unsynced
             2:00  running  rate=10
            """,
            until="3:00",
        )
        must_be_told(ward, "2:00 dose_started", info=True)
        assert ward.instant is not None
        status = ward.monitor.status(ward.instant)
        assert status.expected_ml == pytest.approx(10 * 175 / 60, abs=0.1)
        assert status.delivered_ml == pytest.approx(10 * 175 / 60, abs=0.1)

    def test_a_restart_is_a_gap_that_the_counter_judges(self) -> None:
        ward = Ward(A_DAY_AT_10)
        play(ward, "-0:10 idle\n0:00 running rate=10", until="1:00")
        reading = Reading(
            pump="pump", at_ms=0, state=PumpState.RUNNING, rate_ml_h=10.0, volume_ml=15.0, alarms=()
        )
        ward.take(Moment(monotonic_ms=5_000, utc_ms=START_UTC_MS + 5_400_000), reading)
        must_be_told(ward, "1:04:57 no_data\n1:30 no_data end")

    @pytest.mark.parametrize("limits", ["", "max_rate_ml_h = 12"])
    def test_a_restart_of_unknown_length_judges_nothing_by_time(self, limits: str) -> None:
        ward = Ward(continuous(10, 24, limits=limits, pump=PUMP))
        play(ward, "-0:10 idle\n0:00 running rate=10", until="1:00")
        for second in range(0, 600, 5):
            unsynced = Moment(
                monotonic_ms=5_000 + second * 1000, utc_ms=1_000_000 + second * 1000, synced=False
            )
            ward.take(unsynced, counting(15.0 + second / 360))
        for second in range(600, 1200, 5):
            synced = Moment(
                monotonic_ms=5_000 + second * 1000, utc_ms=START_UTC_MS + 5_400_000 + second * 1000
            )
            ward.take(synced, counting(15.0 + second / 360))
        must_be_told(ward, "")

    def test_a_counter_that_fell_over_a_restart_of_unknown_length_may_have_been_reset(self) -> None:
        ward = Ward(A_DAY_AT_10)
        play(ward, "-0:10 idle\n0:00 running rate=10", until="1:00")
        ward.take(Moment(monotonic_ms=5_000, utc_ms=START_UTC_MS + 3_600_000, synced=False), counting(1.6))
        must_be_told(ward, "0:00 dose_started\n1:00 counter_reset", info=True)

    def test_a_counter_that_falls_after_such_a_restart_is_unexplained_as_ever(self) -> None:
        ward = Ward(A_DAY_AT_10)
        play(ward, "-0:10 idle\n0:00 running rate=10", until="1:00")
        for second, volume_ml in ((0, 15.0), (5, 0.0)):
            unsynced = Moment(
                monotonic_ms=5_000 + second * 1000,
                utc_ms=START_UTC_MS + 3_600_000 + second * 1000,
                synced=False,
            )
            ward.take(unsynced, counting(volume_ml))
        must_be_told(ward, "1:00 counter_reset_unexplained\n1:00 counter_reset_unexplained end")


def counting(volume_ml: float) -> Reading:
    shown_ml = int(volume_ml * 100) / 100
    return Reading(
        pump="pump", at_ms=0, state=PumpState.RUNNING, rate_ml_h=10.0, volume_ml=shown_ml, alarms=()
    )


class TestMemory:
    def test_a_monitor_restored_at_any_time_goes_on_as_if_nothing_had_happened(self) -> None:
        table = """
            -0:10  idle
             0:10  running  rate=10
             1:00  paused
             1:20  running  rate=10
             2:00  running  rate=10  flow=5
             2:40  running  rate=20
             3:00  alarm    alarms=occlusion_downstream
        """
        whole = live(A_DAY_AT_10, table, until="3:20")
        restored = _Forgetful(A_DAY_AT_10)
        play(restored, table, until="3:20")
        assert restored.told == whole.told
        assert len(whole.told) > 6

    def test_what_another_version_remembered_is_refused(self) -> None:
        for data in (b"", b"\x92\x00\x80", b"nonsense", Monitor("p", None).snapshot()[:-1]):
            with pytest.raises(ValueError, match=r"p cannot be read|p is of version"):
                Monitor.restore("p", A_DAY_AT_10, data)


class _Forgetful(Ward):
    """Restarted before each reading."""

    def take(self, moment: Moment, reading: Reading | None) -> None:
        self.monitor = Monitor.restore("pump", self.prescription, self.monitor.snapshot())
        super().take(moment, reading)


class TestStatus:
    @pytest.mark.parametrize(
        ("table", "until", "verdict"),
        [
            ("-0:30 idle", "-0:10", DeliveryVerdict.NOT_EXPECTED),
            ("-0:30 idle", "0:05", DeliveryVerdict.TOO_EARLY),
            ("-0:30 idle", "0:30", DeliveryVerdict.DEVIATION),
            ("-0:30 idle\n0:00 running rate=10", "0:00:10", DeliveryVerdict.TOO_EARLY),
            ("-0:30 idle\n0:00 running rate=10", "2:00", DeliveryVerdict.ON_PLAN),
            ("-0:30 idle\n0:00 running rate=10\n1:00 running rate=30", "2:00", DeliveryVerdict.DEVIATION),
            ("-0:30 idle clock=unsynced", "0:30", DeliveryVerdict.UNKNOWN),
        ],
    )
    def test_the_verdict_says_what_is_known(self, table: str, until: str, verdict: DeliveryVerdict) -> None:
        ward = live(A_DAY_AT_10, table, until=until)
        assert ward.instant is not None
        assert ward.monitor.status(ward.instant).verdict is verdict

    def test_silence_is_unknown_and_never_fine(self) -> None:
        ward = live(A_DAY_AT_10, "-0:10 idle\n0:00 running rate=10", until="1:00")
        ward.take(Moment(monotonic_ms=BOOT_MS + 7_200_000, utc_ms=START_UTC_MS + 7_200_000), None)
        assert ward.instant is not None
        assert ward.monitor.status(ward.instant).verdict is DeliveryVerdict.UNKNOWN

    def test_the_end_is_foretold_from_what_is_left(self) -> None:
        ward = live(A_DAY_AT_10, "-0:10 idle\n0:00 running rate=10", until="1:00")
        assert ward.instant is not None
        ends_at_utc_ms = ward.monitor.status(ward.instant).ends_at_utc_ms
        assert ends_at_utc_ms == pytest.approx(START_UTC_MS + 24 * 3_600_000, abs=10_000)
