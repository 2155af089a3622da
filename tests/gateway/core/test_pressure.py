"""Pressure: what a closed line looks like, and what only looks like one (prescription page, section 3)."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alerts.condition import Kind
from drivers.reading import PumpState, Reading
from gateway.core.prescription import Prescription
from gateway.core.pressure import PressureChange, PressureRise, occlusion_blind_s, passing_ms
from gateway.core.timeline import Moment
from tests.gateway.core.pump_days import HOUR_MS, START_UTC_MS, Ward, continuous
from tests.gateway.core.timetable import BOOT_MS

POLL_S = 5
COMPLIANCE_ML_MMHG = 0.0025
POSTURE_S = 5400
RATES = (0.1, 0.5, 2.0, 10.0, 50.0, 125.0)


def resting_pressure(seed: int, *, posture_mmhg: float = 15.0) -> Callable[[int], float]:
    """A model of a line at rest, asked in order of time (s).

    1.5 mmHg white and 1.5 mmHg slow (5 min) noise, and a posture within +-15 mmHg, another each 1.5 h.
    """
    random_ = random.Random(seed)
    kept = math.exp(-POLL_S / 300)
    slow_mmhg = 0.0
    posture = 0.0

    def at(second: int) -> float:
        nonlocal slow_mmhg, posture
        if second % POSTURE_S < POLL_S:
            posture = random_.uniform(-posture_mmhg, posture_mmhg)
        slow_mmhg = slow_mmhg * kept + random_.gauss(0, 1.5 * math.sqrt(1 - kept * kept))
        return 60.0 + posture + slow_mmhg + random_.gauss(0, 1.5)

    return at


def first_rise_s(
    rise: PressureRise, rate_ml_h: float, until_s: int, at: Callable[[int], float]
) -> int | None:
    """When a rise is seen first."""
    for second in range(0, until_s, POLL_S):
        change = rise.deliver(second * 1000, at(second), rate_ml_h, POLL_S * 1000, 300_000)
        if change is PressureChange.RISES:
            return second
    return None


def deadline_s(rate_ml_h: float, resting_mmhg: float) -> float:
    """90 mmHg and a minute, or the pump's alarm at 500 mmHg if that is earlier."""
    s_per_mmhg = COMPLIANCE_ML_MMHG * 3600 / rate_ml_h
    return min(90 * s_per_mmhg + 60, (500 - resting_mmhg) * s_per_mmhg)


class TestClosedLine:
    @pytest.mark.parametrize("seed", range(6))
    @pytest.mark.parametrize("rate_ml_h", RATES)
    def test_it_is_found_before_the_deadline(self, rate_ml_h: float, seed: int) -> None:
        closes_s = 7203 + 37 * seed
        at_rest = resting_pressure(seed, posture_mmhg=10.0)

        def at(second: int) -> float:
            pent_up_s = max(0, second - closes_s)
            return at_rest(second) + rate_ml_h / 3600 / COMPLIANCE_ML_MMHG * pent_up_s

        latest_s = closes_s + deadline_s(rate_ml_h, 60.0)
        found_s = first_rise_s(PressureRise(), rate_ml_h, round(latest_s) + 3600, at)
        assert found_s is not None
        assert closes_s < found_s <= latest_s

    @pytest.mark.parametrize("rate_ml_h", (0.5, 2.0, 10.0, 50.0))
    def test_it_is_found_also_when_it_was_closed_from_the_start(self, rate_ml_h: float) -> None:
        at_rest = resting_pressure(3, posture_mmhg=0.0)

        def at(second: int) -> float:
            return at_rest(second) + rate_ml_h / 3600 / COMPLIANCE_ML_MMHG * second

        found_s = first_rise_s(PressureRise(), rate_ml_h, 7200, at)
        assert found_s is not None and found_s <= deadline_s(rate_ml_h, 60.0)

    @settings(max_examples=40, deadline=None)
    @given(st.sampled_from((0.5, 2.0, 10.0, 50.0)), st.floats(0.0008, 0.0025), st.integers(0, 1000))
    def test_a_stiffer_set_is_found_no_later(
        self, rate_ml_h: float, compliance_ml_mmhg: float, seed: int
    ) -> None:
        at_rest = resting_pressure(seed, posture_mmhg=0.0)

        def at(second: int) -> float:
            return at_rest(second) + rate_ml_h / 3600 / compliance_ml_mmhg * max(0, second - 1800)

        found_s = first_rise_s(PressureRise(), rate_ml_h, 5400, at)
        assert found_s is not None and found_s - 1800 <= 90 * COMPLIANCE_ML_MMHG * 3600 / rate_ml_h + 60


class TestPatient:
    @pytest.mark.parametrize("rate_ml_h", RATES)
    def test_who_moves_each_hour_and_a_half_for_three_days_is_no_closed_line(self, rate_ml_h: float) -> None:
        assert first_rise_s(PressureRise(), rate_ml_h, 72 * 3600, resting_pressure(11)) is None

    @pytest.mark.parametrize("rate_ml_h", RATES)
    @pytest.mark.parametrize("step_mmhg", (26.0, 30.0))
    def test_who_moves_as_far_as_can_be_is_no_closed_line(self, rate_ml_h: float, step_mmhg: float) -> None:
        at_rest = resting_pressure(5, posture_mmhg=0.0)

        def at(second: int) -> float:
            return at_rest(second) + (step_mmhg if second // POSTURE_S % 2 else 0.0)

        assert first_rise_s(PressureRise(), rate_ml_h, 12 * 3600, at) is None

    @pytest.mark.parametrize("rate_ml_h", RATES)
    @pytest.mark.parametrize("up_mmhg", (30.0, 60.0, 120.0))
    def test_who_lies_on_the_line_for_a_minute_is_no_closed_line(
        self, rate_ml_h: float, up_mmhg: float
    ) -> None:
        at_rest = resting_pressure(7, posture_mmhg=0.0)

        def at(second: int) -> float:
            return at_rest(second) + (up_mmhg if second % 1800 < 60 else 0.0)

        assert first_rise_s(PressureRise(), rate_ml_h, 4 * 3600, at) is None

    @pytest.mark.parametrize("rate_ml_h", (0.5, 2.0, 10.0, 20.0))
    def test_a_line_that_is_closed_for_a_minute_is_waited_for_where_there_is_time(
        self, rate_ml_h: float
    ) -> None:
        at_rest = resting_pressure(7, posture_mmhg=0.0)

        def at(second: int) -> float:
            closed_s = second % 1800
            return at_rest(second) + (rate_ml_h / 9 * closed_s if closed_s < 60 else 0.0)

        assert first_rise_s(PressureRise(), rate_ml_h, 4 * 3600, at) is None

    def test_a_line_that_closes_after_a_move_is_found_all_the_same(self) -> None:
        at_rest = resting_pressure(2, posture_mmhg=0.0)

        def at(second: int) -> float:
            return at_rest(second) + (28.0 if second >= 3600 else 0.0) + 10.0 / 9 * max(0, second - 3660)

        found_s = first_rise_s(PressureRise(), 10.0, 5400, at)
        assert found_s is not None and 3660 < found_s <= 3660 + deadline_s(10.0, 88.0)


class TestWaitingForWhatPasses:
    @pytest.mark.parametrize(
        ("rate_ml_h", "most_s"), [(0.5, 75), (10, 75), (20, 75), (50, 51.2), (125, 6.7), (1000, 0)]
    )
    def test_it_never_costs_the_deadline(self, rate_ml_h: float, most_s: float) -> None:
        waits_ms = passing_ms(rate_ml_h, 440.0, 5000)
        assert max(0.0, waits_ms) == pytest.approx(most_s * 1000, abs=100)


PUMP = 'counter_ml = 0.01\nstroke_ml = 0.005\nripple_ml = 0.01\npoll = "5s"'
LIMITS = 'start_window = "20min"\nend_window = "30min"\nmax_pause = "10min"\nkvo_ml_h = 0.5'
A_DAY_AT_10 = continuous(10, 24, limits=LIMITS, pump=PUMP)
STEPS = continuous(20, 24, limits=LIMITS, pump=PUMP, rest="[titration]\nmin_ml_h = 1\nmax_ml_h = 300\n")


def ward_of(
    story: str,
    *,
    until_s: int,
    prescription: Prescription = A_DAY_AT_10,
    ward: Ward | None = None,
    given_ml: float = 0.0,
) -> Ward:
    """``second state rate pressure [growth [counter]]``: mmHg, mmHg a second; ``-`` is not reported."""
    ward = ward or Ward(prescription)
    rows = [line.split() for line in story.strip().splitlines()]
    for second in range(int(rows[0][0]), until_s, POLL_S):
        row = [one for one in rows if int(one[0]) <= second][-1]
        if "counter" in row[5:6] and second == int(row[0]):
            given_ml = 0.0
        rate_ml_h = float(row[2])
        if row[1] in ("running", "bolus", "kvo"):
            given_ml += rate_ml_h * POLL_S / 3600
        if row[1] == "silence":
            continue
        growth = float(row[4]) if len(row) > 4 else 0.0
        ward.take(
            Moment(monotonic_ms=BOOT_MS + second * 1000, utc_ms=START_UTC_MS + second * 1000),
            Reading(
                pump="pump",
                at_ms=0,
                state=PumpState(row[1]),
                rate_ml_h=rate_ml_h,
                volume_ml=math.floor(given_ml * 100 + 1e-6) / 100,
                pressure_mmhg=None if row[3] == "-" else float(row[3]) + growth * (second - int(row[0])),
                alarms=("occlusion_downstream",) if row[1] == "alarm" else (),
            ),
        )
    return ward


def told(ward: Ward) -> list[tuple[str, str]]:
    return [(kind, phase) for _, kind, phase in ward.told if kind.startswith("occlusion")]


RISE = 10.0 / 9
"""mmHg a second at 10 mL/h."""


class TestStory:
    def test_it_is_suspected_and_gives_place_to_the_pumps_own_alarm(self) -> None:
        ward = ward_of(
            f"""
            -300  idle     0   50
               0  running  10  60
            1800  running  10  60   {RISE}
            2195  alarm    0   500
            """,
            until_s=2400,
        )
        assert told(ward) == [
            ("occlusion_suspected", "start"),
            ("occlusion_suspected", "end"),
            ("occlusion", "start"),
        ]
        at_s = next(at_s for at_s, kind, _ in ward.told if kind == "occlusion_suspected")
        assert 1800 + 75 <= at_s <= 1800 + 90

    def test_it_does_not_come_back_where_the_pressure_falls_with_the_end_of_the_alarm(self) -> None:
        ward = ward_of(
            f"""
            -300  idle     0   50
               0  running  10  60
            1800  running  10  60   {RISE}
            2195  alarm    0   500
            2400  running  10  62
            """,
            until_s=2600,
        )
        assert told(ward)[2:] == [("occlusion", "start"), ("occlusion", "end")]

    def test_it_comes_back_where_the_alarm_is_only_silenced(self) -> None:
        ward = ward_of(
            f"""
            -300  idle     0   50
               0  running  10  60
            1800  running  10  60   {RISE}
            2195  alarm    0   500
            2400  running  10  490
            """,
            until_s=2600,
        )
        assert told(ward)[3:] == [("occlusion", "end"), ("occlusion_suspected", "start")]

    def test_its_words_say_from_where_to_where_and_in_how_long(self) -> None:
        ward = ward_of(
            f"-300 idle 0 50\n0 running 10 60\n1800 running 10 60 {RISE}",
            until_s=2000,
        )
        finding = next(one for one in ward.findings if one.kind is Kind.OCCLUSION_SUSPECTED)
        assert finding.message == (
            "Occlusion suspected: the pressure has risen from 60 to 149 mmHg in about 78 s,"
            " as it does behind a closed line."
        )
        assert finding.since_utc_ms is not None
        assert abs(finding.since_utc_ms - START_UTC_MS - 1_800_000) < 10_000

    def test_it_ends_when_the_pressure_falls_again(self) -> None:
        ward = ward_of(
            f"""
            -300  idle     0   50
               0  running  10  60
            1800  running  10  60   {RISE}
            1950  running  10  65
            """,
            until_s=2400,
        )
        assert told(ward) == [("occlusion_suspected", "start"), ("occlusion_suspected", "end")]

    def test_no_pressure_does_not_end_it_nor_does_a_pause(self) -> None:
        ward = ward_of(
            f"""
            -300  idle     0   50
               0  running  10  60
            1800  running  10  60   {RISE}
            1950  running  10  -
            2000  paused   0   -
            2100  running  10  225
            """,
            until_s=2400,
        )
        assert told(ward) == [("occlusion_suspected", "start")]

    @pytest.mark.parametrize(
        "between",
        [
            "1790 paused 0 60\n1820 running 10 90",
            "1790 running 10 60\n1800 silence 0 0\n2200 running 10 95",
            "1800 running 16 95",
            "1795 bolus 100 190\n1815 running 10 60",
            "1790 running 10 60\n1795 paused 0 60\n1800 paused 0 60 0 counter\n1830 running 10 100",
        ],
    )
    def test_after_a_pause_a_gap_a_step_up_or_a_bolus_pressure_is_not_compared_with_before(
        self, between: str
    ) -> None:
        ward = ward_of(f"-300 idle 0 50\n0 running 10 60\n{between}", until_s=4000)
        assert told(ward) == []

    def test_a_step_up_of_rate_brings_pressure_of_its_own(self) -> None:
        ward = ward_of(
            "-300 idle 0 50\n0 running 20 60\n1800 running 60 95\n3600 running 150 180\n5400 running 250 280",
            until_s=7200,
            prescription=STEPS,
        )
        assert told(ward) == []

    def test_a_closed_line_before_a_bolus_is_found_after_it(self) -> None:
        ward = ward_of(
            f"-300 idle 0 50\n0 running 10 60\n1800 running 10 60 {RISE}\n1830 bolus 30 100 3.3"
            f"\n1840 running 10 133 {RISE}",
            until_s=2400,
        )
        assert told(ward)[:1] == [("occlusion_suspected", "start")]

    def test_without_pressure_there_is_nothing(self) -> None:
        assert told(ward_of("-300 idle 0 -\n0 running 10 -", until_s=3600)) == []

    def test_a_restart_of_the_gateway_forgets_nothing(self) -> None:
        ward = ward_of("-300 idle 0 50\n0 running 10 60", until_s=1800)
        ward.monitor = type(ward.monitor).restore("pump", A_DAY_AT_10, ward.monitor.snapshot())
        ward_of(f"1800 running 10 60 {RISE}", until_s=1900, ward=ward, given_ml=5.0)
        assert told(ward) == [("occlusion_suspected", "start")]


class TestHowLongItCouldStayHidden:
    @pytest.mark.parametrize(
        ("rate_ml_h", "occlusion_ml", "seen", "blind_s"),
        [
            (2.0, 0.5, False, 900),
            (2.0, 0.5, True, 465),
            (0.5, 0.5, False, 3600),
            (0.5, 0.5, True, 1680),
            (125.0, 0.5, False, 14),
            (125.0, 0.5, True, 14),
            (0.1, 1.0, False, 36_000),
            (0.0, 0.5, True, None),
            (None, 0.5, True, None),
        ],
    )
    def test_until_the_pumps_alarm_or_until_the_rise_is_seen(
        self, rate_ml_h: float | None, occlusion_ml: float, seen: bool, blind_s: int | None
    ) -> None:
        pump = continuous(10, 24, pump=f"occlusion_ml = {occlusion_ml}").pump
        assert occlusion_blind_s(rate_ml_h, pump, pressure_is_seen=seen) == blind_s

    @pytest.mark.parametrize(
        ("story", "blind_s"),
        [
            ("0 running 10 -", 180),
            ("0 running 10 60", 141),
            ("0 running 10 60\n900 paused 0 60", None),
        ],
    )
    def test_the_board_is_told_while_the_pump_delivers(self, story: str, blind_s: int | None) -> None:
        ward = ward_of(f"-300 idle 0 50\n{story}", until_s=1000)
        assert ward.instant is not None
        assert ward.monitor.status(ward.instant).occlusion_blind_s == blind_s


def test_an_hour_of_ordinary_readings_looks_sixty_times() -> None:
    """While a piece of the average lasts, its limit stays: nothing else is worked out."""
    rise = PressureRise()
    limits = []
    for second in range(0, HOUR_MS // 1000, POLL_S):
        rise.deliver(second * 1000, 60.0 + second % 3, 10.0, POLL_S * 1000, 300_000)
        limits.append((rise.limit_mmhg, rise.piece_ends_t_ms))
    assert len(set(limits)) <= 62


class TestWhatIsUsual:
    """What the average is made of, and when it begins anew."""

    def at_rest_for(self, seconds: int, *, pressure_mmhg: float = 60.0) -> PressureRise:
        rise = PressureRise()
        for second in range(0, seconds, POLL_S):
            rise.deliver(second * 1000, pressure_mmhg, 20.0, POLL_S * 1000, 300_000)
        return rise

    def test_it_is_the_mean_of_the_last_quarter_of_an_hour(self) -> None:
        rise = self.at_rest_for(1800)
        assert len(rise.pieces_mmhg) == 15
        assert rise.limit_mmhg == 85.0

    @pytest.mark.parametrize(("silence_s", "is_known"), [(240, True), (900, False)])
    def test_a_gap_begins_it_anew(self, silence_s: int, is_known: bool) -> None:
        rise = self.at_rest_for(1800)
        rise.deliver((1800 + silence_s) * 1000, 60.0, 20.0, POLL_S * 1000, 300_000)
        assert rise.is_known is is_known

    @pytest.mark.parametrize(("rate_ml_h", "is_known"), [(24.0, True), (26.0, False), (14.0, False)])
    def test_another_rate_begins_it_anew(self, rate_ml_h: float, is_known: bool) -> None:
        rise = self.at_rest_for(1800)
        rise.deliver(1_800_000, 60.0, rate_ml_h, POLL_S * 1000, 300_000)
        assert rise.is_known is is_known

    def test_pressure_that_follows_a_step_up_slowly_is_the_rates_own(self) -> None:
        rise = self.at_rest_for(1800)
        changes = [
            rise.deliver(
                (1800 + second) * 1000, 160.0 - 100.0 * math.exp(-second / 9), 60.0, POLL_S * 1000, 300_000
            )
            for second in range(0, 1800, POLL_S)
        ]
        assert set(changes) == {None}

    def test_readings_within_fifteen_seconds_after_a_bolus_are_not_used(self) -> None:
        rise = self.at_rest_for(1800)
        rise.bolus(1_800_000)
        for second in (1805, 1810):
            rise.deliver(second * 1000, 150.0, 20.0, POLL_S * 1000, 300_000)
            assert rise.hold is None
        rise.deliver(1_815_000, 150.0, 20.0, POLL_S * 1000, 300_000)
        assert rise.hold is not None
        assert rise.limit_mmhg == 85.0

    def test_a_level_that_lasts_becomes_usual(self) -> None:
        rise = self.at_rest_for(1800)
        for second in range(1800, 3600, POLL_S):
            rise.deliver(second * 1000, 88.0, 20.0, POLL_S * 1000, 300_000)
        assert rise.hold is None
        assert rise.limit_mmhg == 88.0 + 25.0
