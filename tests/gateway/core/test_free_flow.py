"""Volume that moves by itself: ``free_flow`` (prescription page, section 3)."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from alerts.condition import Kind, Priority
from alerts.inhibition import Inhibition
from drivers.reading import PumpState
from gateway.core.free_flow import Surplus, of_counter, surplus_begins_ml_h
from gateway.core.prescription import Prescription
from tests.gateway.core.pump_days import NoisyPump, Segment, Ward, continuous, order, watch
from tests.gateway.core.timetable import live, must_be_told

PUMP = 'counter_ml = 0.01\nstroke_ml = 0.005\nripple_ml = 0.01\npoll = "5s"'
LIMITS = 'start_window = "20min"\nend_window = "30min"\nmax_pause = "1h"\nkvo_ml_h = 0.5'
A_DAY_AT_10 = continuous(10, 24, limits=LIMITS, pump=PUMP)
SENSOR = '[sensor]\nkind = "{kind}"\nresolution_ml = {resolution}\nnoise_ml = {noise}\n'
DRIPS_AT_10 = continuous(
    10, 24, limits=LIMITS, pump=PUMP, rest=SENSOR.format(kind="drip", resolution=0.05, noise=0)
)
SCALE_AT_125 = continuous(
    125, 8, limits=LIMITS, pump=PUMP, rest=SENSOR.format(kind="weight", resolution=1, noise=0.5)
)
BOLUSES = order(
    phases='[[schedule.phase]]\nduration = "24h"\nrate_ml_h = 1\n',
    tail='[demand]\nbolus_ml = 0.5\nbolus_over = "1min"\nlockout = "8min"\n'
    f"[limits]\n{LIMITS}\n[pump]\n{PUMP}",
)
STEPS = order(
    phases="".join(
        f'[[schedule.phase]]\nduration = "15min"\nrate_ml_h = {rate}\n' for rate in (10, 40, 160, 20)
    ),
    tail=f"[limits]\n{LIMITS}\n[pump]\n{PUMP}",
)


def free_flows(ward: Ward) -> list[tuple[float, str]]:
    return [(at_s, phase) for at_s, kind, phase in ward.told if kind == Kind.FREE_FLOW]


class TestWhileThePumpDoesNotDeliver:
    @pytest.mark.parametrize("state", ["paused", "alarm", "idle", "complete", "standby", "off"])
    def test_volume_that_goes_on_moving_is_told_within_seconds(self, state: str) -> None:
        ward = live(
            A_DAY_AT_10,
            f"-0:10 idle\n0:00 running rate=10\n1:00 {state} flow=300\n1:01 {state}",
            until="1:10",
        )
        (start_s, start), (end_s, end) = free_flows(ward)
        assert (start, end) == ("start", "end")
        assert 3600 < start_s <= 3612
        assert 3660 + 60 <= end_s <= 3660 + 75

    def test_its_words_say_how_much_in_how_long(self) -> None:
        ward = live(A_DAY_AT_10, "-0:10 idle\n0:00 running rate=10\n1:00 paused flow=300", until="1:01")
        finding = next(one for one in ward.findings if one.kind is Kind.FREE_FLOW)
        assert finding.message.startswith("Free flow: the pump counted ")
        assert finding.message.endswith(" s, and the pump says that it does not deliver.")

    def test_a_slow_siphon_is_told_when_it_is_a_fifth_of_a_millilitre(self) -> None:
        ward = live(A_DAY_AT_10, "-0:10 idle\n0:00 running rate=10\n1:00 paused flow=2", until="1:10")
        assert [(370 < at_s - 3600 < 400, phase) for at_s, phase in free_flows(ward)] == [(True, "start")]

    @pytest.mark.parametrize(
        "story",
        [
            "1:00 paused add=0.01\n1:10 running rate=10",
            "1:00 paused add=0.1\n1:10 running rate=10",
            "1:00 paused flow=0.05\n1:50 running rate=10",
            "1:00 paused\n1:01 priming flow=300\n1:02 paused\n1:05 running rate=10",
            "1:00 paused\n1:01 paused counter=0\n1:02 paused flow=300\n1:03 paused\n1:05 running rate=10",
            "1:00 paused alarms=door_open\n1:02 paused flow=300\n1:03 paused\n1:05 running rate=10",
            "1:00 alarm alarms=air_in_line flow=300\n1:02 paused\n1:05 running rate=10",
            "1:00 alarm alarms=cassette flow=300\n1:02 paused\n1:05 running rate=10",
            "1:00 paused\n1:01 paused add=3\n1:05 running rate=10",
            "1:00 silence rate=10\n1:03 paused",
        ],
    )
    def test_settling_creep_priming_and_a_set_that_is_changed_are_none(self, story: str) -> None:
        ward = live(A_DAY_AT_10, f"-0:10 idle\n0:00 running rate=10\n{story}", until="2:00")
        assert free_flows(ward) == []

    def test_a_counter_that_creeps_all_night_is_none(self) -> None:
        ward = live(A_DAY_AT_10, "-12:00 idle flow=0.08\n-0:10 idle", until="0:00")
        assert free_flows(ward) == []

    def test_a_set_change_is_over_when_the_pump_delivers_again(self) -> None:
        ward = live(
            A_DAY_AT_10,
            """
            -0:10  idle
             0:00  running  rate=10
             1:00  paused   alarms=door_open
             1:05  running  rate=10
             1:30  paused   flow=300
            """,
            until="1:31",
        )
        assert [phase for _, phase in free_flows(ward)] == ["start"]

    @pytest.mark.parametrize(("counter_ml", "counts", "is_free_flow"), [(0.5, 2, False), (0.5, 5, True)])
    def test_two_counts_of_a_coarse_counter_are_none(
        self, counter_ml: float, counts: int, is_free_flow: bool
    ) -> None:
        coarse = continuous(10, 24, limits=LIMITS, pump=f"counter_ml = {counter_ml}")
        moving = "\n".join(f"1:00:{10 * count:02d} paused add={counter_ml}" for count in range(1, counts + 1))
        ward = live(coarse, f"-0:10 idle\n0:00 running rate=10\n1:00 paused\n{moving}", until="1:02")
        assert bool(free_flows(ward)) is is_free_flow


class TestFarFasterThanSet:
    def test_it_is_told_and_holds_back_over_infusion(self) -> None:
        ward = live(
            A_DAY_AT_10, "-0:10 idle\n0:00 running rate=10\n1:00 running rate=10 flow=600", until="1:05"
        )
        must_be_told(ward, "1:00 free_flow", within_s=12)
        finding = next(one for one in ward.findings if one.kind is Kind.FREE_FLOW)
        assert finding.message.endswith(" s, and the pump is set to 10.0 mL/h.")

    def test_it_ends_when_the_flow_is_what_is_set(self) -> None:
        ward = live(
            A_DAY_AT_10,
            "-0:10 idle\n0:00 running rate=10\n1:00 running rate=10 flow=600\n1:01 running rate=10",
            until="1:30",
        )
        assert [phase for _, phase in free_flows(ward)] == ["start", "end"]

    @pytest.mark.parametrize("flow", [12, 20, 28])
    def test_less_than_three_times_is_over_infusion(self, flow: float) -> None:
        ward = live(
            A_DAY_AT_10,
            f"-0:10 idle\n0:00 running rate=10\n1:00 running rate=10 flow={flow}",
            until="3:00",
        )
        assert free_flows(ward) == []
        assert Kind.OVER_INFUSION in ward.present()

    @pytest.mark.parametrize(
        ("prescription", "story"),
        [
            (BOLUSES, "0:00 running rate=1\n1:00 bolus rate=31\n1:01 running rate=1"),
            (BOLUSES, "0:00 running rate=1\n1:00 bolus rate=1 flow=31\n1:01 running rate=1"),
            (BOLUSES, "0:00 running rate=1\n1:00 running rate=1 flow=31\n1:01 running rate=1"),
            (BOLUSES, "0:00 running rate=1\n1:00 running rate=1 add=0.5\n1:08 running rate=1 add=0.5"),
            (A_DAY_AT_10, "0:00 running rate=10\n1:00 silence rate=10\n4:00 running rate=10"),
            (A_DAY_AT_10, "0:00 running rate=10\n1:00 running rate=10 nocount\n2:00 running rate=10"),
            (
                STEPS,
                "0:00 running rate=10\n0:15 running rate=40\n0:30 running rate=160\n0:45 running rate=20",
            ),
            (
                STEPS,
                "0:00 running rate=10\n0:15 running rate=40\n0:30 silence rate=160\n0:45 running rate=20",
            ),
        ],
    )
    def test_boluses_gaps_missing_cells_and_steps_are_none(
        self, prescription: Prescription, story: str
    ) -> None:
        assert free_flows(live(prescription, f"-0:10 idle\n{story}", until="5:00")) == []

    @pytest.mark.parametrize("rate_ml_h", [1.0, 10.0, 125.0])
    @pytest.mark.parametrize("counter_ml", [0.01, 0.1])
    def test_a_pump_within_its_data_sheet_never_flows_freely(
        self, rate_ml_h: float, counter_ml: float
    ) -> None:
        pump = NoisyPump(
            [
                Segment(-600, PumpState.IDLE),
                Segment(0, PumpState.RUNNING, rate_ml_h),
                Segment(7200, PumpState.PAUSED),
                Segment(7400, PumpState.RUNNING, rate_ml_h),
            ],
            counter_ml=counter_ml,
            calibration=0.05,
            missing=0.2,
            lost=0.1,
        )
        pump_words = f"counter_ml = {counter_ml}\nstroke_ml = 0.05\nripple_ml = 0.02"
        prescription = continuous(rate_ml_h, 24, limits=LIMITS, pump=pump_words)
        assert free_flows(watch(prescription, pump, -600, 5 * 3600)) == []


class TestBySensor:
    def test_what_the_counter_does_not_see_the_sensor_does(self) -> None:
        ward = live(
            DRIPS_AT_10, "-0:10 idle\n0:00 running rate=10\n1:00 paused seen=300\n1:02 paused", until="1:10"
        )
        (start_s, _), (end_s, _) = free_flows(ward)
        assert 3600 < start_s <= 3615
        assert 3720 + 60 <= end_s <= 3720 + 75
        finding = next(one for one in ward.findings if one.kind is Kind.FREE_FLOW)
        assert finding.message.startswith("Free flow: the independent sensor saw ")

    def test_far_faster_than_set_through_a_pump_that_counts_its_motor(self) -> None:
        ward = live(
            SCALE_AT_125, "-0:10 idle\n0:00 running rate=125\n1:00 running rate=125 seen=900", until="1:10"
        )
        assert [(at_s - 3600 < 60, phase) for at_s, phase in free_flows(ward)] == [(True, "start")]

    @pytest.mark.parametrize(
        "story",
        [
            "1:00 paused jump=400\n1:05 running rate=125",
            "1:00 paused\n1:01 paused jump=12\n1:02 paused jump=-9\n1:05 running rate=125",
            "1:00 running rate=125 jump=700\n1:08 running rate=125 jump=-690",
            "1:00 paused\n1:01 paused jump=-600\n1:05 running rate=125",
            "1:00 running rate=125 blind\n1:30 running rate=125",
        ],
    )
    def test_a_bag_that_is_handled_is_none(self, story: str) -> None:
        ward = live(SCALE_AT_125, f"-0:10 idle\n0:00 running rate=125\n{story}", until="2:00")
        assert free_flows(ward) == []


@pytest.mark.parametrize("urgency", ["vital", "critical", "timed", "routine"])
def test_its_priority_is_always_high(urgency: str) -> None:
    prescription = continuous(
        10,
        24,
        limits=LIMITS.replace('max_pause = "1h"', ""),
        pump=PUMP,
        rest=f'[response]\nurgency = "{urgency}"',
    )
    ward = live(prescription, "-0:10 idle\n0:00 running rate=10\n0:30 paused flow=300", until="0:31")
    inhibition = Inhibition(prescription.urgency)
    told = [one for one in inhibition.apply(ward.findings) if one.finding.kind is Kind.FREE_FLOW]
    assert [one.priority for one in told] == [Priority.HIGH]


@settings(max_examples=200)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([5_000, 5_000, 5_000, 60_000]),
            st.none() | st.sampled_from([0.0, 0.01, 0.02, 0.1, 1.0]),
            st.sampled_from([0.0, 10.0, 10.0, 10.0, 20.0]),
            st.sampled_from([False] * 9 + [True]),
        ),
        max_size=60,
    )
)
@example(
    [
        (5_000, 0.0, 0.0, False),
        (5_000, None, 20.0, False),
        (5_000, 0.1, 10.0, False),
        (5_000, 0.01, 10.0, False),
    ]
)
def test_the_short_way_of_ordinary_readings_leads_to_the_same(
    story: list[tuple[int, float | None, float, bool]],
) -> None:
    threshold = of_counter(A_DAY_AT_10.pump, 5000, 0.0)
    short, long = Surplus(), Surplus()
    t_ms = 0
    for passed_ms, moved_ml, set_ml_h, legal in story:
        t_ms += passed_ms
        told = long.take(t_ms, moved_ml, set_ml_h, threshold, legal=legal)
        value_ml = None
        if not legal and moved_ml is not None and short.is_ordinary(set_ml_h):
            edge_ml = surplus_begins_ml_h(set_ml_h) * (t_ms - (short.seen_t_ms or 0)) / 3_600_000
            value_ml = short.value_ml + moved_ml - edge_ml
        if value_ml is not None and value_ml <= threshold.volume_ml(set_ml_h, at_rest=set_ml_h <= 0):
            assert told is None
            assert moved_ml is not None
            short.add(t_ms, moved_ml, set_ml_h, value_ml)
        else:
            assert short.take(t_ms, moved_ml, set_ml_h, threshold, legal=legal) is told
        assert short == long
