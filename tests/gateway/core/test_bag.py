"""What is left in the bag: ``[bag]`` and ``bag_empty_soon`` (prescription page, sections 1 and 3)."""

from __future__ import annotations

import pytest

from alerts.condition import Kind, Verdict
from drivers.reading import PumpState
from gateway.core.prescription import Prescription
from tests.gateway.core.pump_days import NoisyPump, Segment, Ward, continuous, order, watch
from tests.gateway.core.timetable import live, must_be_told

PUMP = 'counter_ml = 0.01\nstroke_ml = 0.005\nripple_ml = 0.01\npoll = "5s"'
LIMITS = 'start_window = "20min"\nend_window = "30min"\nmax_pause = "15min"\nkvo_ml_h = 1\nkvo_max = "30min"'


def ten_hours_at_100(bag: str, *, rest: str = "") -> Prescription:
    return continuous(100, 10, limits=LIMITS, pump=PUMP, rest=f"[bag]\n{bag}\n{rest}")


def messages(ward: Ward, verdict: Verdict) -> list[str]:
    return [
        one.message for one in ward.findings if one.kind is Kind.BAG_EMPTY_SOON and one.verdict is verdict
    ]


def test_a_bag_that_is_too_small_is_told_of_within_warn_before_and_no_sooner() -> None:
    ward = live(
        ten_hours_at_100('volume_ml = 500\nwarn_before = "1h"'),
        "-0:10 idle\n0:00 running rate=100",
        until="4:40",
    )
    must_be_told(ward, "4:00 bag_empty_soon")
    assert "enough for 60 min" in messages(ward, Verdict.PRESENT)[0]
    assert "600.0 mL of the dose are still to come" in messages(ward, Verdict.PRESENT)[0]


def test_it_ends_with_a_new_bag() -> None:
    ward = live(
        ten_hours_at_100('volume_ml = 500\nwarn_before = "1h"'),
        """
        -0:10  idle
         0:00  running  rate=100
         4:30  paused
         4:35  paused   counter=0
         4:40  running  rate=100
        10:10  complete
        """,
        until="10:40",
    )
    must_be_told(ward, "4:00 bag_empty_soon\n4:35 bag_empty_soon end")
    assert messages(ward, Verdict.ABSENT) == ["A new bag hangs."]


def test_each_of_several_bags_is_told_of_once_and_the_last_is_enough() -> None:
    ward = live(
        ten_hours_at_100('volume_ml = 400\nwarn_before = "30min"'),
        """
        -0:10  idle
         0:00  running  rate=100
         3:50  paused
         3:52  running  rate=100  counter=0
         7:40  paused
         7:42  running  rate=100  counter=0
        10:04  complete
        """,
        until="10:40",
    )
    must_be_told(
        ward,
        """
        3:30  bag_empty_soon
        3:52  bag_empty_soon end
        7:22  bag_empty_soon
        7:42  bag_empty_soon end
        """,
    )


def test_when_the_bag_is_empty_that_is_told_too_and_a_new_bag_ends_both_and_is_full() -> None:
    ward = live(
        ten_hours_at_100('volume_ml = 500\nwarn_before = "30min"'),
        """
        -0:10  idle
         0:00  running  rate=100
         5:00  alarm    alarms=empty
         5:05  running  rate=100
        """,
        until="6:00",
    )
    must_be_told(
        ward,
        """
        4:30  bag_empty_soon
        5:00  bag_empty
        5:05  bag_empty_soon end
        5:05  bag_empty end
        """,
    )


@pytest.mark.parametrize("bag_ml", [1000, 999, 950, 901])
def test_a_bag_that_runs_to_empty_as_it_should_or_a_little_short_is_nobodys_trouble(bag_ml: float) -> None:
    ran = f"{int(bag_ml / 100)}:{int(bag_ml % 100 * 0.6):02}"
    ward = live(
        ten_hours_at_100(f'volume_ml = {bag_ml}\nwarn_before = "2h"'),
        f"-0:10 idle\n0:00 running rate=100\n{ran} alarm alarms=empty",
        until="11:00",
    )
    must_be_told(ward, "")


@pytest.mark.parametrize("calibration", [-0.04, 0.0, 0.04])
@pytest.mark.parametrize("counter_ml", [0.05, 0.1, 1.0])
def test_a_noisy_pump_with_a_bag_that_is_just_right_is_nobodys_trouble(
    calibration: float, counter_ml: float
) -> None:
    prescription = continuous(
        10,
        24,
        pump=f"counter_ml = {counter_ml}\nripple_ml = 0.02",
        limits='end_window = "2h"',
        rest="[bag]\nvolume_ml = 240",
    )
    pump = NoisyPump(
        [
            Segment(-1e9, PumpState.IDLE),
            Segment(60, PumpState.RUNNING, 10),
            Segment(86_460, PumpState.COMPLETE),
        ],
        calibration=calibration,
        counter_ml=counter_ml,
        poll_s=20,
    )
    assert watch(prescription, pump, -300, 88_000).alerts() == []


@pytest.mark.parametrize(("bag_ml", "told"), [(1000, ""), (996, ""), (950, "8:30 bag_empty_soon")])
def test_for_a_vital_drug_what_rule_4_does_not_count_as_in_is_a_shortage(bag_ml: float, told: str) -> None:
    bag = f'volume_ml = {bag_ml}\nwarn_before = "1h"'
    ward = live(
        continuous(
            100,
            10,
            limits='start_window = "20min"\nmax_pause = "3min"',
            pump=PUMP,
            rest=f'[response]\nurgency = "vital"\n[bag]\n{bag}\n',
        ),
        "-0:01 idle\n0:00 running rate=100",
        until="9:20",
    )
    must_be_told(ward, told)


def test_boluses_priming_and_keep_vein_open_are_taken_from_the_bag() -> None:
    """100 mL of phases from a bag of 120 mL, of which 40 mL are primed."""
    ward = live(
        continuous(10, 10, limits=LIMITS, pump=PUMP, rest='[bag]\nvolume_ml = 120\nwarn_before = "1h"'),
        """
        -0:10  idle
         0:00  running  rate=10
         2:00  priming  flow=600
         2:04  running  rate=10
         9:00  running  rate=10
        """,
        until="7:30",
    )
    must_be_told(ward, "7:04 bag_empty_soon", within_s=40)


def test_several_doses_from_one_bag_are_each_looked_at_for_themselves() -> None:
    prescription = order(
        head='every = "8h"\ntimes = 4\nbetween_ml_h = 0.2\n',
        phases='[[schedule.phase]]\nduration = "30min"\nvolume_ml = 100.0\n',
        tail=f"[limits]\n{LIMITS}\n[pump]\n{PUMP}\n[bag]\nvolume_ml = 260\n",
    )
    ward = live(
        prescription,
        """
        -0:10  idle
         0:00  running  rate=200
         0:30  kvo      rate=0.2
         8:00  running  rate=200
         8:30  kvo      rate=0.2
        16:00  running  rate=200
        16:15  paused
        16:20  running  rate=200  counter=0
        16:35  kvo      rate=0.2
        """,
        until="20:00",
    )
    must_be_told(ward, "16:00 bag_empty_soon\n16:20 bag_empty_soon end")


def test_nobody_begins_a_dose_from_a_bag_that_is_as_good_as_empty_it_was_changed_unseen() -> None:
    prescription = order(
        head='every = "12h"\ntimes = 3\n',
        phases='[[schedule.phase]]\nduration = "2h"\nvolume_ml = 250.0\n',
        tail=f"[limits]\n{LIMITS}\n[pump]\n{PUMP}\n[bag]\nvolume_ml = 250\n",
    )
    ward = live(
        prescription,
        """
        -0:10  idle
         0:00  running  rate=125
         2:00  complete
        12:00  running  rate=125
        14:00  complete
        """,
        until="15:00",
    )
    must_be_told(ward, "")


def test_a_lower_set_rate_makes_the_bag_last() -> None:
    """At 2:30 there are 250 mL left: five hours at 50 mL/h."""
    ward = live(
        ten_hours_at_100(
            'volume_ml = 500\nwarn_before = "2h"', rest="[titration]\nmin_ml_h = 20\nmax_ml_h = 120"
        ),
        """
        -0:10  idle
         0:00  running  rate=100
         2:30  running  rate=50
        """,
        until="6:00",
    )
    must_be_told(ward, "5:30 bag_empty_soon", within_s=30)


class TestTheWordOfThePump:
    def test_nearly_empty_is_told_without_a_bag_in_the_order_and_ends_when_the_pump_no_longer_says_so(
        self,
    ) -> None:
        ward = live(
            continuous(100, 10, limits=LIMITS, pump=PUMP),
            """
            -0:10  idle
             0:00  running  rate=100
             3:00  running  rate=100  alarms=near_empty
             3:10  paused   alarms=near_empty
             3:12  running  rate=100
            """,
            until="4:00",
        )
        must_be_told(ward, "3:00 bag_empty_soon\n3:12 bag_empty_soon end")

    def test_at_the_end_of_a_dose_it_is_as_it_should_be(self) -> None:
        ward = live(
            continuous(100, 1, limits=LIMITS, pump=PUMP),
            """
            -0:10  idle
             0:00  running  rate=100
             0:50  running  rate=100  alarms=near_empty
             1:00  alarm    alarms=empty
            """,
            until="2:00",
        )
        must_be_told(ward, "")

    def test_with_the_volume_in_it_is_nothing(self) -> None:
        ward = live(
            continuous(100, 10, limits=LIMITS, pump=PUMP),
            "-0:10 idle\n0:00 running rate=100\n9:10 running rate=100 alarms=near_empty\n10:00 complete",
            until="11:00",
        )
        must_be_told(ward, "")

    def test_a_bag_that_by_the_order_should_hold_much_more_is_told(self) -> None:
        ward = live(
            ten_hours_at_100('volume_ml = 1000\nwarn_before = "2h"'),
            "-0:10 idle\n0:00 running rate=100\n5:00 running rate=100 alarms=near_empty",
            until="6:00",
        )
        must_be_told(ward, "5:00 bag_empty_soon")
        assert "The pump reports" in messages(ward, Verdict.PRESENT)[0]

    def test_between_doses_it_is_nothing(self) -> None:
        ward = live(
            continuous(100, 1, limits=LIMITS, pump=PUMP),
            "-0:10 idle alarms=near_empty\n0:00 running rate=100\n1:00 complete alarms=near_empty",
            until="2:00",
        )
        must_be_told(ward, "")

    def test_a_reading_that_does_not_say_leaves_it_as_it_was(self) -> None:
        ward = live(
            continuous(100, 10, limits=LIMITS, pump=PUMP),
            """
            -0:10  idle
             0:00  running  rate=100
             3:00  running  rate=100  alarms=near_empty
             3:10  running  rate=100  alarms=?
            """,
            until="4:00",
        )
        must_be_told(ward, "3:00 bag_empty_soon")


class TestForetold:
    def empty_at_s(self, ward: Ward) -> float | None:
        assert ward.instant is not None
        at_utc_ms = ward.monitor.status(ward.instant).bag_empty_at_utc_ms
        return None if at_utc_ms is None else (at_utc_ms - ward.instant.utc_ms) / 1000

    def test_when_it_will_be_empty_is_said_at_the_present_set_rate(self) -> None:
        bag = ten_hours_at_100('volume_ml = 500\nwarn_before = "1h"')
        ward = live(bag, "-0:10 idle\n0:00 running rate=100", until="2:00")
        assert self.empty_at_s(ward) == pytest.approx(3 * 3600, abs=10)
        ward = live(bag, "-0:10 idle\n0:00 running rate=100\n1:00 running rate=200", until="2:00")
        assert self.empty_at_s(ward) == pytest.approx(3600, abs=10)

    @pytest.mark.parametrize(
        "table",
        ["-0:10 idle", "-0:10 idle\n0:00 running rate=100\n1:00 paused", "0:00 running rate=100 nocount"],
    )
    def test_while_nothing_runs_and_without_a_counter_nothing_is_said(self, table: str) -> None:
        ward = live(ten_hours_at_100("volume_ml = 500"), table, until="1:05")
        assert self.empty_at_s(ward) is None

    def test_without_a_bag_in_the_order_nothing_is_said(self) -> None:
        ward = live(continuous(100, 10), "0:00 running rate=100", until="1:00")
        assert self.empty_at_s(ward) is None
