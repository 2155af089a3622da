"""Stories of delivery: rates, volumes, standstills, limits, boluses (prescription page, section 3)."""

from __future__ import annotations

import pytest

from alerts.condition import Kind, Priority
from drivers.reading import PumpState, Reading
from gateway.core.timeline import Moment
from tests.gateway.core.pump_days import HOUR_MS, MINUTE_MS, START_UTC_MS, Ward, continuous, order
from tests.gateway.core.timetable import BOOT_MS, live, must_be_told, play

PUMP = 'counter_ml = 0.01\nstroke_ml = 0.005\nripple_ml = 0.01\npoll = "5s"'
LIMITS = 'start_window = "20min"\nend_window = "30min"\nmax_pause = "10min"\nkvo_ml_h = 0.5'
A_DAY_AT_10 = continuous(10, 24, limits=LIMITS, pump=PUMP)
STEPS = order(
    phases="".join(
        f'[[schedule.phase]]\nduration = "15min"\nrate_ml_h = {rate}\n' for rate in (10, 20, 40, 80)
    ),
    tail=f"[limits]\n{LIMITS}\n[pump]\n{PUMP}",
)
RAMPS = order(
    phases="""
[[schedule.phase]]
duration = "1h"
from_ml_h = 0
to_ml_h = 120
[[schedule.phase]]
duration = "1h"
rate_ml_h = 120
[[schedule.phase]]
duration = "1h"
from_ml_h = 120
to_ml_h = 0
""",
    tail=f"[limits]\n{LIMITS}\n[pump]\n{PUMP}\nstroke_ml = 0.05".replace("stroke_ml = 0.005\n", ""),
)


def message(ward: Ward, kind: Kind) -> str:
    return next(one.message for one in ward.findings if one.kind is kind)


def priority(ward: Ward, kind: Kind) -> Priority | None:
    return next(one.priority for one in ward.findings if one.kind is kind)


class TestWrongRate:
    def test_a_rate_that_is_not_the_ordered_one_is_told_after_two_readings(self) -> None:
        ward = live(
            A_DAY_AT_10,
            """
            -0:10     idle
             0:00     running  rate=10
             1:00     running  rate=12
             1:30     running  rate=10
            """,
            until="2:00",
        )
        must_be_told(
            ward,
            """
            1:00:05  wrong_rate
            1:30     wrong_rate end
            """,
        )
        assert priority(ward, Kind.WRONG_RATE) is Priority.HIGH

    def test_within_the_tolerance_it_is_right(self) -> None:
        ward = live(
            A_DAY_AT_10,
            """
            -0:10  idle
             0:00  running  rate=10.5
            """,
            until="4:00",
        )
        must_be_told(ward, "")

    def test_one_reading_of_another_rate_is_not_told(self) -> None:
        ward = live(
            A_DAY_AT_10,
            """
            -0:10     idle
             0:00     running  rate=10
             1:00     running  rate=12
             1:00:05  running  rate=10
            """,
            until="2:00",
        )
        must_be_told(ward, "")

    def test_slowed_is_of_the_lower_priority_and_asks_about_a_reaction(self) -> None:
        ward = live(
            A_DAY_AT_10,
            """
            -0:10  idle
             0:00  running  rate=10
             1:00  running  rate=6
            """,
            until="1:10",
        )
        must_be_told(ward, "1:00 wrong_rate")
        assert priority(ward, Kind.WRONG_RATE) is Priority.MEDIUM
        assert "reaction" in message(ward, Kind.WRONG_RATE)

    @pytest.mark.parametrize(
        ("rate_ml_h", "words"),
        [
            (240, "24 times"),
            (600, "60 times"),
            (100, "10 times"),
            (10_000, "1000 times"),
            (1, "divided by 10"),
            (700, "70 times the order: the patient's weight"),
            (50, "5 times the order: the concentration"),
        ],
    )
    def test_a_slip_of_programming_is_named(self, rate_ml_h: float, words: str) -> None:
        prescription = order(
            phases='[[schedule.phase]]\nduration = "24h"\nrate_ml_h = 10\n',
            tail=f"[limits]\n{LIMITS}\n[pump]\n{PUMP}",
            patient="weight_kg = 70",
            drug='concentration = "5 mg/mL"',
        )
        ward = live(
            prescription,
            f"""
            -0:10  idle
             0:00  running  rate={rate_ml_h}
            """,
            until="0:01",
        )
        assert words in message(ward, Kind.WRONG_RATE)

    def test_meanwhile_delivery_is_judged_by_the_set_rate_and_what_it_hides_is_told_after_it(self) -> None:
        ward = live(
            A_DAY_AT_10,
            """
            -0:10  idle
             0:00  running  rate=10
             1:00  running  rate=100
             1:10  running  rate=100   flow=50
             1:20  running  rate=10
            """,
            until="2:00",
        )
        must_be_told(
            ward,
            """
            1:00  wrong_rate
            1:20  wrong_rate end
            1:20  under_infusion
            1:20  under_infusion end
            """,
            within_s=120,
        )
        assert Kind.OVER_INFUSION not in {one.kind for one in ward.findings}

    def test_at_a_step_either_neighbour_is_right_for_two_polls(self) -> None:
        ward = live(
            STEPS,
            """
            -0:10     idle
             0:00     running  rate=10
             0:14:52  running  rate=20
             0:30:08  running  rate=40
             0:45     running  rate=80
             1:00     complete
            """,
            until="1:30",
        )
        must_be_told(ward, "")

    def test_a_later_step_too_early_is_above_and_a_step_held_is_below(self) -> None:
        ward = live(
            STEPS,
            """
            -0:10  idle
             0:00  running  rate=10
             0:12  running  rate=20
             0:32  running  rate=40
             0:45  running  rate=80
            """,
            until="0:59",
        )
        must_be_told(
            ward,
            """
            0:12  wrong_rate
            0:14:50  wrong_rate end
            0:30:10  wrong_rate
            0:32  wrong_rate end
            """,
            within_s=15,
        )
        given = [one.priority for one in ward.findings if one.kind is Kind.WRONG_RATE and one.priority]
        assert given == [Priority.HIGH, Priority.MEDIUM]

    def test_rising_from_below_to_above_is_said_again(self) -> None:
        ward = live(
            A_DAY_AT_10,
            """
            -0:10  idle
             0:00  running  rate=6
             0:10  running  rate=60
            """,
            until="0:20",
        )
        must_be_told(ward, "0:00 wrong_rate")
        given = [one.priority for one in ward.findings if one.kind is Kind.WRONG_RATE]
        assert given == [Priority.MEDIUM, Priority.HIGH]

    def test_after_pauses_the_steps_have_moved(self) -> None:
        ward = live(
            STEPS,
            """
            -0:10     idle
             0:00     running  rate=10
             0:05     paused
             0:09     running  rate=10
             0:19     running  rate=20
             0:34     running  rate=40
             0:49     running  rate=80
             1:04     complete
            """,
            until="1:30",
        )
        must_be_told(ward, "")

    def test_before_the_clock_is_synced_rates_are_judged_by_the_whole_course(self) -> None:
        ward = live(
            STEPS,
            """
            -0:10  idle              clock=unsynced
             0:00  running  rate=10  clock=unsynced
             0:10  running  rate=200 clock=unsynced
            """,
            until="0:11",
        )
        must_be_told(ward, "0:10 wrong_rate")


class TestTitration:
    RANGE = order(
        phases='[[schedule.phase]]\nduration = "24h"\nrate_ml_h = 10\n',
        tail=f"[limits]\n{LIMITS}\n[pump]\n{PUMP}\n[titration]\nmin_ml_h = 5\nmax_ml_h = 20\n"
        'step_ml_h = 4\nmin_interval = "30min"\n',
    )

    def test_within_the_range_the_set_rate_is_what_is_expected(self) -> None:
        ward = live(
            self.RANGE,
            """
            -0:10  idle
             0:00  running  rate=10
             1:00  running  rate=14
             2:00  running  rate=18
            """,
            until="4:00",
        )
        must_be_told(
            ward,
            """
            0:00  dose_started
            1:00  titrated
            2:00  titrated
            """,
            info=True,
        )
        assert ward.instant is not None
        status = ward.monitor.status(ward.instant)
        assert status.expected_ml == pytest.approx(10 + 14 + 36, abs=0.2)
        assert status.delivered_ml == pytest.approx(10 + 14 + 36, abs=0.2)

    @pytest.mark.parametrize(
        ("until", "told"),
        [
            ("3:00", ""),
            # by the set rate 55 mL belong into the three hours of the phases, and not what comes after them
            ("3:25", "3:16:30 over_infusion\n3:25 over_infusion end"),
        ],
    )
    def test_what_a_higher_set_rate_gives_in_the_time_of_the_phases_is_not_too_much(
        self, until: str, told: str
    ) -> None:
        ward = live(
            order(
                phases='[[schedule.phase]]\nduration = "3h"\nrate_ml_h = 10\n',
                tail=f"[limits]\n{LIMITS}\n[pump]\n{PUMP}\n[titration]\nmin_ml_h = 5\nmax_ml_h = 20\n",
            ),
            f"""
            -0:10  idle
             0:00  running  rate=10
             0:30  running  rate=20
             {until}  complete
            """,
            until="3:40",
        )
        must_be_told(ward, told, within_s=40)

    def test_the_steps_and_ramps_of_the_phases_are_no_titration_and_take_no_time_from_one(self) -> None:
        steps_and_ramp = order(
            phases='[[schedule.phase]]\nduration = "1h"\nrate_ml_h = 20\n'
            '[[schedule.phase]]\nduration = "1h"\nrate_ml_h = 33.33\n'
            '[[schedule.phase]]\nduration = "30min"\nfrom_ml_h = 33.33\nto_ml_h = 40\n'
            '[[schedule.phase]]\nduration = "2h"\nrate_ml_h = 40\n',
            tail=f"[limits]\n{LIMITS}\n[pump]\n{PUMP}\n[titration]\nmin_ml_h = 5\nmax_ml_h = 60\n"
            'step_ml_h = 5\nmin_interval = "30min"\n',
        )
        ward = live(
            steps_and_ramp,
            """
            -0:10  idle
             0:00  running  rate=20
             1:00  running  rate=33.3
             2:00  running  rate=33.5
             2:10  running  rate=35.6
             2:20  running  rate=38
             2:30  running  rate=40
             2:40  running  rate=44.9
             3:20  running  rate=40
            """,
            until="4:00",
        )
        must_be_told(ward, "0:00 dose_started\n2:40 titrated\n3:20 titrated", info=True)

    @pytest.mark.parametrize("rate_ml_h", [4, 21, 15])
    def test_outside_the_range_or_by_too_large_a_step_it_is_wrong(self, rate_ml_h: float) -> None:
        ward = live(
            self.RANGE,
            f"""
            -0:10  idle
             0:00  running  rate=10
             1:00  running  rate={rate_ml_h}
            """,
            until="1:05",
        )
        must_be_told(ward, "1:00 wrong_rate")

    def test_a_second_change_too_soon_is_wrong_until_the_time_has_passed(self) -> None:
        ward = live(
            self.RANGE,
            """
            -0:10  idle
             0:00  running  rate=10
             1:00  running  rate=13
             1:10  running  rate=16
            """,
            until="2:00",
        )
        must_be_told(
            ward,
            """
            1:10  wrong_rate
            1:29:55  wrong_rate end
            """,
        )


class TestVolume:
    @pytest.mark.parametrize(("flow_ml_h", "kind"), [(8, "under_infusion"), (12, "over_infusion")])
    def test_a_flow_beyond_the_tolerance_is_found_and_its_end_too(self, flow_ml_h: float, kind: str) -> None:
        ward = live(
            A_DAY_AT_10,
            f"""
            -0:10  idle
             0:00  running  rate=10
             2:00  running  rate=10   flow={flow_ml_h}
             2:30  running  rate=10
            """,
            until="3:00",
        )
        must_be_told(
            ward,
            f"""
            2:00  {kind}
            2:30  {kind} end
            """,
            within_s=400,
        )
        said = message(ward, Kind(kind))
        assert "pump counted" in said
        assert "instead of 10.0 mL/h" in said

    @pytest.mark.parametrize("counter_ml", [0.1, 1.0])
    @pytest.mark.parametrize(("flow_ml_h", "kind"), [(7, "under_infusion"), (13, "over_infusion")])
    def test_its_end_is_found_though_the_counter_is_coarse_and_not_before_it(
        self, flow_ml_h: float, kind: str, counter_ml: float
    ) -> None:
        ward = live(
            continuous(10, 24, limits=LIMITS, pump=f"counter_ml = {counter_ml}"),
            f"""
            -0:10  idle
             0:00  running  rate=10
             1:00  running  rate=10   flow={flow_ml_h}
             3:00  running  rate=10
            """,
            until="5:00",
        )
        told = [(at_s, phase) for at_s, what, phase in ward.told if what == kind]
        assert [phase for _, phase in told] == ["start", "end"]
        assert 3600 < told[0][0] < 6000
        took_s = told[0][0] - 3600
        assert 3 * 3600 < told[1][0] < 3 * 3600 + took_s + 600

    def test_a_pump_that_is_behind_at_the_end_of_its_time_has_not_kept_up_again(self) -> None:
        ward = live(
            continuous(10, 2, limits=LIMITS, pump=PUMP),
            """
            -0:10  idle
             0:00  running  rate=10   flow=7
             2:29  idle
            """,
            until="2:30",
        )
        must_be_told(
            ward,
            """
            0:00  under_infusion
            2:29  under_infusion end
            2:29  stopped_early
            2:29  stopped_early end
            """,
            within_s=90,
        )

    def test_nor_within_the_two_polls_before_in_which_it_may_be_over(self) -> None:
        ward = live(
            continuous(500, 0.5, limits=LIMITS, pump='poll = "60s"'),
            """
            -0:10  idle
             0:00  running  rate=500   flow=400
             0:32  idle
            """,
            until="1:00",
        )
        at = {(kind, phase): at_s for at_s, kind, phase in ward.told}
        assert at["under_infusion", "end"] == at["stopped_early", "start"]

    def test_inside_the_tolerance_it_is_never_a_deviation(self) -> None:
        for flow_ml_h in (9.1, 10.9):
            ward = live(
                A_DAY_AT_10,
                f"""
                -0:10  idle
                 0:00  running  rate=10   flow={flow_ml_h}
                """,
                until="20:00",
            )
            must_be_told(ward, "")

    def test_a_counter_that_stands_still_is_no_delivery_and_not_an_under_infusion_too(self) -> None:
        ward = live(
            A_DAY_AT_10,
            """
            -0:10  idle
             0:00  running  rate=10
             2:00  running  rate=10   flow=0
             2:30  running  rate=10
            """,
            until="4:00",
        )
        must_be_told(
            ward,
            """
            2:00  no_delivery
            2:30  no_delivery end
            """,
            within_s=60,
        )

    @pytest.mark.parametrize("stopped_at", ["2:00:00", "2:00:01", "2:00:02", "2:00:03", "2:00:04"])
    @pytest.mark.parametrize("rate_ml_h", [3, 30, 125, 600])
    def test_wherever_within_a_poll_a_pump_stops_it_is_no_delivery(
        self, rate_ml_h: int, stopped_at: str
    ) -> None:
        ward = live(
            continuous(rate_ml_h, 24, limits=LIMITS, pump=PUMP),
            f"""
            -0:10         idle
             0:00         running  rate={rate_ml_h}
             {stopped_at}  running  rate={rate_ml_h}   flow=0
            """,
            until="2:10",
        )
        must_be_told(ward, "2:00 no_delivery", within_s=60)

    def test_a_pump_that_is_slow_and_then_stops_is_told_for_both(self) -> None:
        ward = live(
            A_DAY_AT_10,
            """
            -0:10  idle
             0:00  running  rate=10
             2:00  running  rate=10   flow=5
             2:20  running  rate=10   flow=0
            """,
            until="2:30",
        )
        must_be_told(ward, "2:00 under_infusion\n2:20 no_delivery", within_s=60)

    @pytest.mark.parametrize("flow_ml_h", [0.5, 1, 2])
    def test_a_coarse_counter_of_a_slow_pump_is_never_said_to_stand_still(self, flow_ml_h: float) -> None:
        ward = live(
            continuous(2, 24, limits=LIMITS, pump="counter_ml = 0.1"),
            f"""
            -0:10  idle
             0:00  running  rate=2
             2:00  running  rate=2   flow={flow_ml_h}
            """,
            until="6:00",
        )
        assert "no_delivery" not in ward.present()

    def test_more_than_the_whole_volume_is_an_over_infusion_until_the_dose_is_over(self) -> None:
        ward = live(
            continuous(10, 1, limits=LIMITS, pump=PUMP),
            """
            -0:10  idle
             0:00  running  rate=10   flow=10.8
             1:20  idle
            """,
            until="2:00",
        )
        must_be_told(
            ward,
            """
            1:01  over_infusion
            1:20  over_infusion end
            """,
            within_s=90,
        )

    def test_more_than_the_whole_volume_that_is_seen_only_with_the_end_is_told_too(self) -> None:
        ward = live(
            continuous(10, 1, limits=LIMITS, pump=PUMP),
            """
            -0:10  idle
             0:00  running  rate=10
             1:00  idle     add=2
            """,
            until="2:00",
        )
        must_be_told(ward, "1:00 over_infusion\n1:00 over_infusion end")

    def test_steps_and_ramps_given_as_ordered_are_no_deviation(self) -> None:
        ramp_up = "\n".join(
            f"0:{minute:02}:{second:02} running rate={(minute * 60 + second) / 30:.2f}"
            for minute in range(60)
            for second in range(0, 60, 10)
        )
        ramp_down = "\n".join(
            f"2:{minute:02}:{second:02} running rate={120 - (minute * 60 + second) / 30:.2f}"
            for minute in range(60)
            for second in range(0, 60, 10)
        )
        ward = live(
            RAMPS, f"-0:10 idle\n{ramp_up}\n1:00 running rate=120\n{ramp_down}\n3:00 complete", until="4:00"
        )
        must_be_told(ward, "")

    def test_over_a_silence_the_counter_judges_all_of_it(self) -> None:
        as_it_should = live(
            A_DAY_AT_10,
            """
            -0:10  idle
             0:00  running  rate=10
             1:00  silence  rate=10
             3:00  running  rate=10
            """,
            until="4:00",
        )
        must_be_told(as_it_should, "1:04:57 no_data\n3:00 no_data end")
        too_little = live(
            A_DAY_AT_10,
            """
            -0:10  idle
             0:00  running  rate=10
             1:00  silence  flow=5
             3:00  running  rate=10
            """,
            until="3:01",
        )
        must_be_told(too_little, "1:04:57 no_data\n3:00 no_data end\n3:00 under_infusion")

    def test_readings_without_a_volume_carry_what_was_expected_over_to_the_next(self) -> None:
        ward = live(
            A_DAY_AT_10,
            """
            -0:10  idle
             0:00  running  rate=10
             1:00  running  rate=10   nocount
             2:00  running  rate=10
            """,
            until="4:00",
        )
        must_be_told(ward, "")

    def test_unknown_is_as_if_there_had_been_no_reading(self) -> None:
        ward = live(
            A_DAY_AT_10,
            """
            -0:10  idle
             0:00  running  rate=10
             1:00  unknown  flow=10
             2:00  running  rate=10
            """,
            until="4:00",
        )
        must_be_told(ward, "1:04:57 no_data\n2:00 no_data end")

    @pytest.mark.parametrize("limits", ["", "max_rate_ml_h = 12"])
    def test_priming_is_not_delivered_to_the_patient(self, limits: str) -> None:
        ward = live(
            continuous(10, 24, limits=f"{LIMITS}\n{limits}", pump=PUMP),
            """
            -0:10  idle
             0:00  running  rate=10
             1:00  priming  rate=100 flow=100
             1:05  running  rate=10
            """,
            until="4:00",
        )
        must_be_told(ward, "")
        assert ward.instant is not None
        status = ward.monitor.status(ward.instant)
        assert status.delivered_ml == pytest.approx(status.expected_ml, abs=0.3)


class TestCounter:
    def test_a_reset_while_the_pump_stands_is_only_information(self) -> None:
        ward = live(
            continuous(10, 24, limits=LIMITS, pump=PUMP, rest="[bag]\nvolume_ml = 100"),
            """
            -0:10  idle
             0:00  running  rate=10
             2:00  paused
             2:05  running  rate=10  counter=0
            """,
            until="4:00",
        )
        must_be_told(
            ward,
            """
            0:00  dose_started
            2:05  counter_reset
            2:05  bag_changed
            """,
            info=True,
        )
        assert ward.instant is not None
        assert ward.monitor.status(ward.instant).delivered_ml == pytest.approx(10 * 3.9, abs=0.3)

    def test_a_wrap_is_nothing_at_all(self) -> None:
        ward = live(
            continuous(10, 24, limits=LIMITS, pump=PUMP + "\ncounter_wrap_ml = 20"),
            """
            -0:10  idle
             0:00  running  rate=10
             2:00  running  rate=10  counter=0
            """,
            until="3:00",
        )
        must_be_told(ward, "0:00 dose_started", info=True)
        assert ward.instant is not None
        assert ward.monitor.status(ward.instant).delivered_ml == pytest.approx(30, abs=0.1)

    def test_a_pump_within_its_accuracy_may_have_wrapped_though_the_highest_rate_is_that_it_is_set_to(
        self,
    ) -> None:
        ward = live(
            continuous(
                10,
                24,
                limits=LIMITS + "\nmax_rate_ml_h = 10",
                pump=PUMP + "\ncounter_wrap_ml = 20\naccuracy_percent = 5",
            ),
            """
            -0:10  idle
             0:00  running  rate=10  flow=10.4
             1:00  silence  rate=10  flow=10.4
             1:55:23  silence  rate=10  flow=10.4  counter=0
             2:30  running  rate=10  flow=10.4
            """,
            until="3:00",
        )
        must_be_told(ward, "0:00 dose_started\n1:04:57 no_data\n2:30 no_data end", info=True)

    def test_a_reset_while_the_pump_runs_is_unexplained(self) -> None:
        ward = live(
            A_DAY_AT_10,
            """
            -0:10  idle
             0:00  running  rate=10
             2:00  running  rate=10  counter=0
            """,
            until="3:00",
        )
        must_be_told(ward, "2:00 counter_reset_unexplained\n2:00 counter_reset_unexplained end")


class TestLimits:
    LIMITED = continuous(10, 24, limits=LIMITS + "\nmax_rate_ml_h = 50\nmax_volume_ml = 245", pump=PUMP)

    def test_a_rate_above_the_hard_limit_is_told_beside_wrong_rate(self) -> None:
        ward = live(
            self.LIMITED,
            """
            -0:10  idle
             0:00  running  rate=10
             1:00  running  rate=60
             1:10  running  rate=10
            """,
            until="2:00",
        )
        must_be_told(
            ward,
            """
            1:00  wrong_rate
            1:00  limit_exceeded
            1:10  wrong_rate end
            1:10  limit_exceeded end
            """,
        )

    def test_a_rate_that_is_not_shown_does_not_end_it(self) -> None:
        ward = Ward(self.LIMITED)
        play(ward, "-0:10 idle\n0:00 running rate=10\n0:10 running rate=60", until="0:11")
        at_ms = 11 * 60_000
        silent = Reading(pump="pump", at_ms=0, state=PumpState.RUNNING, rate_ml_h=None, alarms=())
        ward.take(Moment(monotonic_ms=BOOT_MS + at_ms, utc_ms=START_UTC_MS + at_ms), silent)
        assert {"wrong_rate", "limit_exceeded"} <= ward.present()

    @pytest.mark.parametrize("counter_ml", [0.1, 1.0])
    def test_a_coarse_counter_tells_a_flow_above_the_hard_limit_once(self, counter_ml: float) -> None:
        ward = live(
            continuous(10, 24, limits=f"{LIMITS}\nmax_rate_ml_h = 15", pump=f"counter_ml = {counter_ml}"),
            """
            -0:10  idle
             0:00  running  rate=10
             1:00  running  rate=10   flow=20
             2:00  running  rate=10
            """,
            until="4:00",
        )
        told = [(at_s, phase) for at_s, what, phase in ward.told if what == "limit_exceeded"]
        assert [phase for _, phase in told] == ["start", "end"]
        assert 3600 < told[0][0] < 2 * 3600 < told[1][0]

    def test_a_flow_above_the_hard_limit_is_told_though_it_is_not_set(self) -> None:
        ward = live(
            self.LIMITED,
            """
            -0:10  idle
             0:00  running  rate=10
             1:00  running  rate=10   flow=100
            """,
            until="1:02",
        )
        assert "limit_exceeded" in ward.present()

    def test_the_most_in_any_24_h_counts_every_delivery(self) -> None:
        ward = live(
            self.LIMITED,
            """
            -0:10  idle
             0:00  running  rate=10
             1:00  running  rate=10  add=100
            """,
            until="15:00",
        )
        assert pytest.approx(ward.alerts()[-1], abs=20) == (14.5 * 3600, "limit_exceeded")

    @pytest.mark.parametrize(
        ("state", "is_kept_again"), [("running  rate=10  nocount", False), ("idle  nocount", True)]
    )
    def test_a_pump_that_delivers_and_does_not_say_how_much_does_not_end_it(self, state, is_kept_again):
        ward = live(
            self.LIMITED,
            f"""
            -0:10  idle
             0:00  running  rate=10
             1:00  running  rate=10  add=100
            15:00  {state}
            """,
            until="41:00",
        )
        assert ("limit_exceeded" not in ward.present()) is is_kept_again


class TestDemand:
    PCA = order(
        phases='[[schedule.phase]]\nduration = "24h"\nrate_ml_h = 1\n',
        tail=f"[limits]\n{LIMITS}\nmax_rate_ml_h = 40\n[pump]\n{PUMP}\n"
        '[demand]\nbolus_ml = 1\nbolus_over = "2min"\nlockout = "10min"\nlimit_ml = 4\n',
    )

    def test_legal_boluses_are_silent(self) -> None:
        boluses = "\n".join(
            f"{hour}:{minute:02}:00 bolus rate=31\n{hour}:{minute + 2:02}:00 running rate=1"
            for hour in range(1, 8)
            for minute in (5, 20, 45)
        )
        ward = live(self.PCA, f"-0:10 idle\n0:00 running rate=1\n{boluses}", until="9:00")
        must_be_told(ward, "")
        assert ward.instant is not None
        status = ward.monitor.status(ward.instant)
        assert status.delivered_ml == pytest.approx(status.expected_ml, abs=0.3)

    def test_a_pump_that_has_no_word_for_a_bolus_shows_it_by_its_rate(self) -> None:
        boluses = "\n".join(f"{hour}:05 running rate=31\n{hour}:07 running rate=1" for hour in range(1, 8))
        ward = live(self.PCA, f"-0:10 idle\n0:00 running rate=1\n{boluses}", until="9:00")
        must_be_told(ward, "")
        assert ward.instant is not None
        status = ward.monitor.status(ward.instant)
        assert status.delivered_ml == pytest.approx(status.expected_ml, abs=0.3)

    def test_a_rate_that_is_no_bolus_is_wrong(self) -> None:
        ward = live(self.PCA, "-0:10 idle\n0:00 running rate=1\n1:00 running rate=15", until="1:01")
        must_be_told(ward, "1:00 wrong_rate")

    def test_boluses_shorter_than_a_poll_are_seen_by_their_counts(self) -> None:
        shots = "\n".join(
            f"{hour}:{minute:02}:01 running rate=1 add=1" for hour in range(1, 8) for minute in (5, 20)
        )
        prescription = order(
            phases='[[schedule.phase]]\nduration = "24h"\nrate_ml_h = 1\n',
            tail=f"[limits]\n{LIMITS}\n[pump]\n{PUMP}\n"
            '[demand]\nbolus_ml = 1\nlockout = "10min"\nlimit_ml = 4\n',
        )
        ward = live(prescription, f"-0:10 idle\n0:00 running rate=1\n{shots}", until="9:00")
        must_be_told(ward, "")

    def test_a_flow_beyond_the_tolerance_is_found_among_boluses(self) -> None:
        ward = live(
            self.PCA,
            """
            -0:10  idle
             0:00  running  rate=1
             1:00  bolus    rate=31
             1:02  running  rate=1
             2:00  running  rate=1  flow=1.5
             2:20  bolus    rate=31
             2:22  running  rate=1  flow=1.5
            """,
            until="3:00",
        )
        must_be_told(ward, "2:00 over_infusion", within_s=600)

    def test_a_refused_demand_is_only_information(self) -> None:
        ward = live(
            self.PCA,
            """
            -0:10     idle
             0:00     running  rate=1
             1:00     running  rate=1  alarms=demand_denied
             1:00:30  running  rate=1
             1:10     running  rate=1  alarms=demand_denied;demand
            """,
            until="1:20",
        )
        must_be_told(ward, "0:00 dose_started\n1:00 demand_denied\n1:10 demand_denied", info=True)


@pytest.mark.parametrize("first_value_ml", [0.0, 3.0, 34.0, 500.0])
def test_of_another_pump_that_was_adopted_the_first_counter_value_was_not_delivered(first_value_ml):
    prescription = continuous(60.0, 2, pump="counter_ml = 0.1")
    ward = Ward(prescription)
    delivered_ml = []
    for minute in range(0, 60):
        second = minute >= 30
        volume_ml = first_value_ml + (minute - 30) if second else float(minute)
        reading = Reading(
            pump="pump",
            at_ms=minute * MINUTE_MS,
            state=PumpState.RUNNING,
            rate_ml_h=60.0,
            volume_ml=volume_ml,
            alarms=(),
            serial="8002-2" if second else "8002-1",
        )
        passed_ms = minute * MINUTE_MS
        ward.take(Moment(monotonic_ms=HOUR_MS + passed_ms, utc_ms=START_UTC_MS + passed_ms), reading)
        delivered_ml.append(ward.monitor.memory.occurrence.delivered_ml)
    assert ward.alerts() == []
    assert delivered_ml[29:32] == pytest.approx([29.0, 29.0, 30.0])
    assert delivered_ml[-1] == pytest.approx(58.0)
