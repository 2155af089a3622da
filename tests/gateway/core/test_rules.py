"""What the schedule means, rule by rule, where no other story says it (prescription page, section 1.1)."""

from __future__ import annotations

import pytest

from gateway.core.prescription import Prescription
from tests.gateway.core.pump_days import continuous, order
from tests.gateway.core.timetable import live, must_be_told

PUMP = 'counter_ml = 0.01\nstroke_ml = 0.005\nripple_ml = 0.01\npoll = "5s"'
LIMITS = 'start_window = "20min"\nend_window = "10min"\nmax_pause = "10min"\nkvo_ml_h = 2\nkvo_max = "30min"'
AN_HOUR_AT_100 = continuous(100, 1, limits=LIMITS, pump=PUMP)
EVERY_4H = order(
    head='every = "4h"\ntimes = 2\n',
    phases='[[schedule.phase]]\nduration = "1h"\nvolume_ml = 100.0\n',
    tail=f"[limits]\n{LIMITS}\n[pump]\n{PUMP}",
)


class TestAnchor:
    """Rule 1."""

    def test_keep_vein_open_before_a_dose_does_not_begin_it(self) -> None:
        ward = live(
            AN_HOUR_AT_100,
            "-0:10 idle\n0:10 running rate=2\n0:30 running rate=100\n1:30 complete",
            until="3:00",
        )
        must_be_told(ward, "0:20 not_started\n0:30 not_started end")

    def test_a_ramp_begins_a_dose_from_its_first_drop(self) -> None:
        up = order(
            phases='[[schedule.phase]]\nduration = "1h"\nfrom_ml_h = 0\nto_ml_h = 6\n',
            tail=f"[limits]\n{LIMITS}\n[pump]\n{PUMP}",
        )
        steps = "\n".join(f"0:{minute:02} running rate={minute / 10 + 0.05}" for minute in range(60))
        ward = live(up, f"-0:10 idle\n{steps}\n1:00 complete", until="2:00")
        must_be_told(ward, "0:00 dose_started\n1:00 dose_ended", info=True)

    def test_the_phases_run_on_the_time_of_delivery_a_late_start_moves_them_all(self) -> None:
        steps = order(
            phases='[[schedule.phase]]\nduration = "30min"\nrate_ml_h = 20\n'
            '[[schedule.phase]]\nduration = "30min"\nrate_ml_h = 40\n',
            tail=f"[limits]\n{LIMITS}\n[pump]\n{PUMP}",
        )
        ward = live(
            steps,
            """
            -0:10  idle
             0:18  running  rate=20
             0:30  paused
             0:39  running  rate=20
             0:57  running  rate=40
             1:27  complete
            """,
            until="2:00",
        )
        must_be_told(ward, "")

    def test_a_dose_begun_after_give_within_is_missed_and_its_delivery_unscheduled(self) -> None:
        ward = live(EVERY_4H, "-0:10 idle\n1:30 running rate=100\n1:40 idle", until="2:00")
        must_be_told(
            ward,
            """
            0:20  not_started
            1:20  not_started end
            1:20  dose_missed
            1:20  dose_missed end
            1:30  unscheduled_delivery
            1:40  unscheduled_delivery end
            """,
        )


class TestInterruption:
    """Rule 3."""

    @pytest.mark.parametrize("state", ["paused", "off", "alarm alarms=door_open", "priming"])
    def test_its_time_stands_still_in_each_of_these_states(self, state: str) -> None:
        ward = live(
            AN_HOUR_AT_100,
            f"-0:10 idle\n0:00 running rate=100\n0:30 {state}\n0:39 running rate=100\n1:09 complete",
            until="2:00",
        )
        kinds = {kind for _, kind in ward.alerts()}
        assert kinds == ({"pump_alarm"} if "alarm" in state else set())

    @pytest.mark.parametrize(
        ("vtbi", "told"),
        [
            (100, "1:05 stopped_early\n1:05 stopped_early end"),
            (50, ""),
        ],
    )
    def test_delivery_of_a_whole_volume_within_a_start_window_is_the_next_dose(
        self, vtbi: float, told: str
    ) -> None:
        close = order(
            head='every = "90min"\ntimes = 2\n',
            phases='[[schedule.phase]]\nduration = "1h"\nvolume_ml = 100.0\n',
            tail='[limits]\nstart_window = "15min"\nmax_pause = "50min"\nend_window = "1h"\n'
            f"min_interval = '20min'\n[pump]\n{PUMP}",
        )
        ward = live(
            close,
            f"""
            -0:10  idle
             0:00  running  rate=100
             0:40  paused
             1:20  running  rate=100  vtbi={vtbi}
            """,
            until="1:25",
        )
        must_be_told(ward, told.replace("1:05", "1:20"))

    def test_outside_a_dose_paused_is_idle(self) -> None:
        ward = live(
            AN_HOUR_AT_100, "-0:10 paused\n0:00 running rate=100\n1:00 paused\n9:00 paused", until="10:00"
        )
        must_be_told(ward, "")


class TestEnd:
    """Rule 4."""

    @pytest.mark.parametrize("state", ["idle", "complete", "standby", "kvo rate=2"])
    def test_each_of_these_states_ends_a_dose(self, state: str) -> None:
        early = live(AN_HOUR_AT_100, f"-0:10 idle\n0:00 running rate=100\n0:30 {state}", until="0:40")
        must_be_told(early, "0:30 stopped_early\n0:30 stopped_early end")
        in_time = live(AN_HOUR_AT_100, f"-0:10 idle\n0:00 running rate=100\n1:00 {state}", until="1:20")
        must_be_told(in_time, "0:00 dose_started\n1:00 dose_ended", info=True)

    @pytest.mark.parametrize(
        ("code", "kind"),
        [("empty", "bag_empty"), ("air_in_line", "pump_alarm"), ("occlusion_downstream", "occlusion")],
    )
    def test_an_alarm_with_volume_missing_only_interrupts(self, code: str, kind: str) -> None:
        ward = live(
            AN_HOUR_AT_100,
            f"""
            -0:10  idle
             0:00  running  rate=100
             0:30  alarm    alarms={code}
             0:35  running  rate=100
             1:05  complete
            """,
            until="2:00",
        )
        must_be_told(ward, f"0:30 {kind}\n0:35 {kind} end")

    @pytest.mark.parametrize(("counted_ml", "is_in"), [(100, True), (90.5, True), (89.5, False), (50, False)])
    def test_the_volume_counts_as_in_within_the_tolerance(self, counted_ml: float, is_in: bool) -> None:
        ends = f"0:{int(counted_ml * 0.6)}:{round(counted_ml * 36) % 60:02}" if counted_ml < 100 else "1:00"
        ward = live(AN_HOUR_AT_100, f"-0:10 idle\n0:00 running rate=100\n{ends} idle", until="1:30")
        names = {kind for _, kind, _ in ward.told}
        assert names == {"dose_started", "dose_ended" if is_in else "stopped_early"}


class TestDueTimes:
    """``at``, ``days`` and ``zone``, as a pump lives them."""

    @pytest.fixture
    def mondays_and_wednesdays(self) -> Prescription:
        """The start is a Monday, 6:00 UTC: 8:00 in the zone."""
        return order(
            head='at = ["09:00"]\ndays = ["mon", "wed"]\nzone = "Europe/Berlin"\ntimes = 3\n',
            phases='[[schedule.phase]]\nduration = "1h"\nvolume_ml = 100.0\n',
            tail=f"[limits]\n{LIMITS}\n[pump]\n{PUMP}",
        )

    def test_a_dose_is_due_on_its_weekday_at_its_local_time_and_on_no_other(
        self, mondays_and_wednesdays: Prescription
    ) -> None:
        ward = live(
            mondays_and_wednesdays,
            """
             0:00  idle
             1:10  running  rate=100
             2:10  complete
            25:00  running  rate=100
            25:05  complete
            49:05  running  rate=100
            50:05  complete
            """,
            until="52:00",
        )
        must_be_told(ward, "25:00 unscheduled_delivery\n25:05 unscheduled_delivery end")
        assert [kind for _, kind, _ in ward.told if kind.startswith("dose")] == [
            "dose_started",
            "dose_ended",
        ] * 2

    def test_through_daylight_saving_the_dose_stays_at_its_local_time(self) -> None:
        """In the night to 2026-10-25 the clock goes back: 9:00 is then 8:00 UTC instead of 7:00."""
        autumn = order(
            head='at = ["09:00"]\nzone = "Europe/Berlin"\ntimes = 0\n',
            phases='[[schedule.phase]]\nduration = "1h"\nvolume_ml = 100.0\n',
            tail=f"[limits]\n{LIMITS}\n[pump]\n{PUMP}",
        )
        days_later = 24 * (27 + 30 + 31 + 31 + 30 + 24)  # from 4 May to 24 October
        ward = live(
            autumn,
            f"""
            {days_later - 1}:00   idle
            {days_later + 1}:05   running  rate=100
            {days_later + 2}:05   complete
            {days_later + 26}:05  running  rate=100
            {days_later + 27}:05  complete
            """,
            until=f"{days_later + 30}:00",
        )
        must_be_told(ward, "")


class TestAsNeeded:
    def test_doses_are_never_missed_and_those_beyond_the_ordered_number_are_unscheduled(self) -> None:
        twice = order(
            head="as_needed = true\ntimes = 2\n",
            phases='[[schedule.phase]]\nduration = "30min"\nvolume_ml = 50.0\n',
            tail=f'[limits]\n{LIMITS}\nmin_interval = "2h"\n[pump]\n{PUMP}',
        )
        ward = live(
            twice,
            """
            -0:30  idle
             6:00  running  rate=100
             6:30  complete
             9:00  running  rate=100
             9:30  complete
            12:00  running  rate=100
            12:10  idle
            """,
            until="20:00",
        )
        must_be_told(ward, "12:00 unscheduled_delivery\n12:10 unscheduled_delivery end")

    def test_before_the_start_none_may_be_had(self) -> None:
        later = order(
            head="as_needed = true\ntimes = 2\n",
            phases='[[schedule.phase]]\nduration = "30min"\nvolume_ml = 50.0\n',
            tail=f'[limits]\n{LIMITS}\nmin_interval = "2h"\n[pump]\n{PUMP}',
        )
        ward = live(later, "-1:00 idle\n-0:50 running rate=100\n-0:40 idle", until="-0:20")
        must_be_told(ward, "-0:50 unscheduled_delivery\n-0:40 unscheduled_delivery end")
