"""How delivery stands, for boards: verdict, when it is decidable, end (MQTT page, ``state``)."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alerts.catalogue import ROWS
from alerts.condition import Kind
from drivers.reading import PumpState, Reading
from gateway.core.monitor import DEVIATIONS, DeliveryStatus, DeliveryVerdict, Monitor
from gateway.core.prescription import Prescription
from gateway.core.schedule import Course
from gateway.core.timeline import Moment, Timeline
from tests.gateway.core.pump_days import HOUR_MS, START_UTC_MS, NoisyPump, Segment, Ward, continuous, order
from tests.gateway.core.test_monitor_laws import PRESCRIPTIONS, moments, stories
from tests.gateway.core.timetable import BOOT_MS, live

PUMP = 'counter_ml = 0.01\nstroke_ml = 0.005\nripple_ml = 0.01\npoll = "5s"'
LIMITS = 'start_window = "20min"\nend_window = "30min"\nmax_pause = "10min"\nkvo_ml_h = 0.5'
A_DAY_AT_10 = continuous(10, 24, limits=LIMITS, pump=PUMP)
NOT_OF_DELIVERY = {Kind.BAG_EMPTY_SOON, Kind.DEMAND_PATTERN, Kind.PUMP_ALARM, Kind.NO_DATA}
OF_THE_PAGE = list(Kind)[: list(Kind).index(Kind.NO_DATA) + 1]


def status_of(ward: Ward) -> DeliveryStatus:
    assert ward.instant is not None
    return ward.monitor.status(ward.instant)


def ends_in_h(ward: Ward) -> float | None:
    ends_at_utc_ms = status_of(ward).ends_at_utc_ms
    assert ward.instant is not None
    return None if ends_at_utc_ms is None else (ends_at_utc_ms - ward.instant.utc_ms) / HOUR_MS


class TestVerdict:
    def test_every_kind_that_lasts_is_either_a_deviation_or_known_to_be_none(self) -> None:
        """A kind that is new must be decided upon."""
        lasting = {kind for kind in OF_THE_PAGE if not ROWS[kind].moment}
        assert lasting - NOT_OF_DELIVERY == DEVIATIONS

    @pytest.mark.parametrize(
        ("table", "verdict"),
        [
            ("2:00 running rate=10", DeliveryVerdict.ON_PLAN),
            ("2:00 paused", DeliveryVerdict.ON_PLAN),
            ("2:00 running rate=10 alarms=low_battery", DeliveryVerdict.ON_PLAN),
            ("2:00 running rate=10 alarms=near_empty", DeliveryVerdict.ON_PLAN),
            ("2:00 alarm alarms=door_open", DeliveryVerdict.DEVIATION),
            ("2:00 alarm alarms=occlusion_downstream", DeliveryVerdict.DEVIATION),
            ("2:00 alarm alarms=empty", DeliveryVerdict.DEVIATION),
            ("1:40 paused", DeliveryVerdict.DEVIATION),
            ("2:00 running rate=12", DeliveryVerdict.DEVIATION),
            ("1:00 running rate=10 flow=8", DeliveryVerdict.DEVIATION),
            ("1:00 running rate=10 nocount", DeliveryVerdict.UNKNOWN),
        ],
    )
    def test_it_says_what_is_known(self, table: str, verdict: DeliveryVerdict) -> None:
        ward = live(A_DAY_AT_10, f"-0:30 idle\n0:00 running rate=10\n{table}", until="2:02")
        assert status_of(ward).verdict is verdict

    def test_a_pump_that_shows_no_counter_is_never_on_plan(self) -> None:
        ward = live(A_DAY_AT_10, "-0:30 idle nocount\n0:00 running rate=10 nocount", until="3:00")
        assert status_of(ward).verdict is DeliveryVerdict.UNKNOWN
        assert status_of(ward).decidable_after_s is None

    @settings(max_examples=200, deadline=None)
    @given(st.sampled_from(PRESCRIPTIONS), stories)
    def test_it_is_never_on_plan_beside_a_deviation_nor_in_silence(
        self, prescription: Prescription | None, story: list[tuple[int, str, Reading | None]]
    ) -> None:
        monitor = Monitor("pump", prescription)
        timeline = Timeline()
        present: set[str] = set()
        heard_t_ms: int | None = None
        for moment, reading in moments(story):
            instant = timeline.at(moment)
            if instant is None:
                continue
            for finding in monitor.step(instant, reading):
                if finding.verdict.value == "present" and not ROWS[finding.kind].moment:
                    present.add(finding.kind)
                else:
                    present.discard(finding.kind)
            if reading is not None and reading.state is not PumpState.UNKNOWN:
                heard_t_ms = instant.t_ms
            status = monitor.status(instant)
            if status.verdict is DeliveryVerdict.ON_PLAN:
                assert prescription is not None
                assert present.isdisjoint(DEVIATIONS)
                assert heard_t_ms is not None
                assert instant.t_ms - heard_t_ms <= prescription.limits.no_data_after_ms
                assert status.decidable_after_s == 0
                assert status.occurrence is not None


class TestEnd:
    def test_it_is_what_is_left_of_the_phases_from_now(self) -> None:
        ward = live(A_DAY_AT_10, "-0:10 idle\n0:10 running rate=10", until="4:10")
        assert ends_in_h(ward) == pytest.approx(20, abs=0.01)

    def test_while_it_is_interrupted_it_is_the_end_if_delivery_went_on_now(self) -> None:
        table = "-0:10 idle\n0:00 running rate=10\n4:00 paused"
        assert ends_in_h(live(A_DAY_AT_10, table, until="4:01")) == pytest.approx(20, abs=0.01)
        assert ends_in_h(live(A_DAY_AT_10, table, until="5:00")) == pytest.approx(20, abs=0.01)

    def test_where_the_rate_was_titrated_the_set_rate_decides(self) -> None:
        titrated = continuous(
            10, 24, limits=LIMITS, pump=PUMP, rest="[titration]\nmin_ml_h = 5\nmax_ml_h = 30\n"
        )
        table = "-0:10 idle\n0:00 running rate=10\n4:00 running rate=20"
        assert ends_in_h(live(titrated, table, until="4:01")) == pytest.approx(10, abs=0.05)
        assert ends_in_h(live(titrated, table, until="9:00")) == pytest.approx(5, abs=0.05)
        assert ends_in_h(live(titrated, f"{table}\n9:00 paused", until="9:01")) == pytest.approx(5, abs=0.05)

    @pytest.mark.parametrize("table", ["-0:10 idle", "-0:10 idle\n0:00 running rate=10\n0:10 idle"])
    def test_where_no_dose_is_on_there_is_none(self, table: str) -> None:
        assert ends_in_h(live(A_DAY_AT_10, table, until="0:30")) is None


RAMP = (
    '[[schedule.phase]]\nduration = "1h"\nfrom_ml_h = 0\nto_ml_h = 150\n'
    '[[schedule.phase]]\nduration = "10h"\nrate_ml_h = 150\n'
    '[[schedule.phase]]\nduration = "1h"\nfrom_ml_h = 150\nto_ml_h = 0\n'
)
STEPS = (
    '[[schedule.phase]]\nduration = "15min"\nrate_ml_h = 20\n'
    '[[schedule.phase]]\nduration = "15min"\nrate_ml_h = 40\n'
    '[[schedule.phase]]\nduration = "3h"\nrate_ml_h = 100\n'
)
FINE = "counter_ml = 0.01\nstroke_ml = 0.005\nripple_ml = 0.01\n"
COARSE = "counter_ml = 0.1\nstroke_ml = 0.05\nripple_ml = 0.02\n"
POLL_OF = {"0.2 mL/h, coarse counter": 60}
DOSES = {
    "10 mL/h": continuous(10, 24, pump=FINE),
    "10 mL/h, coarse counter": continuous(10, 24, pump=COARSE),
    "125 mL/h, coarse counter": continuous(125, 8, pump=COARSE),
    "0.2 mL/h, coarse counter": continuous(0.2, 24, pump=COARSE, limits='no_data_after = "20min"'),
    "0.5 mL/h": continuous(0.5, 24, pump=FINE),
    "a ramp": order(phases=RAMP, tail=f"[pump]\n{COARSE}"),
    "a ramp, fine counter": order(phases=RAMP, tail=f"[pump]\n{FINE}"),
    "steps": order(phases=STEPS, tail=f"[pump]\n{COARSE}"),
}


class Walk:
    """A pump that counts a fixed share of what is ordered, until somebody says something of it.

    ``phase``: how much of a count the pump had given, unseen, before it began.
    """

    def __init__(self, name: str, share: float, from_h: float = 0.0, *, phase: float = 0.5) -> None:
        prescription = DOSES[name]
        course = Course(prescription)
        count_ml = prescription.pump.counter_ml
        self.begun_s = from_h * 3600
        self.on_plan_at_s: float | None = None
        self.told_at_s: float | None = None
        self.foretold: list[tuple[float, int | None]] = []
        begun_ml = course.expected_ml(self.begun_s * 1000)
        ward = Ward(prescription)
        at_s = self.begun_s + 2 if from_h else -58.0
        while at_s * 1000 < course.length_ms and self.on_plan_at_s is None and self.told_at_s is None:
            given_ml = share * max(0.0, course.expected_ml(at_s * 1000) - begun_ml) + phase * count_ml
            ward.take(
                Moment(monotonic_ms=BOOT_MS + round(at_s * 1000), utc_ms=START_UTC_MS + round(at_s * 1000)),
                Reading(
                    pump="pump",
                    at_ms=0,
                    state=PumpState.RUNNING if at_s > 0 else PumpState.IDLE,
                    rate_ml_h=course.rate_ml_h(at_s * 1000),
                    volume_ml=round(int(given_ml / count_ml + 1e-9) * count_ml, 6),
                    alarms=(),
                ),
            )
            status = status_of(ward)
            if at_s > 0:
                self.foretold.append((at_s, status.decidable_after_s))
            if status.verdict is DeliveryVerdict.ON_PLAN:
                self.on_plan_at_s = at_s
            if ward.alerts():
                self.told_at_s = at_s
            at_s += POLL_OF.get(name, 5)


@pytest.mark.parametrize("from_h", [0, 0.4, 2.0])
@pytest.mark.parametrize("name", DOSES)
class TestDecidable:
    """A shift of 20 % beyond the tolerance of 10 % from the beginning, or from where the dose was joined."""

    @pytest.mark.parametrize("phase", [0.01, 0.5, 0.99])
    @pytest.mark.parametrize("share", [0.7, 1.3])
    def test_such_a_shift_is_told_before_anybody_says_on_plan(
        self, name: str, from_h: float, share: float, phase: float
    ) -> None:
        walk = Walk(name, share, from_h, phase=phase)
        assert walk.told_at_s is not None
        assert walk.on_plan_at_s is None

    def test_and_on_plan_is_said_when_it_was_foretold_and_not_much_later_than_it_would_be_found(
        self, name: str, from_h: float
    ) -> None:
        right = Walk(name, 1.0, from_h)
        worst = max(Walk(name, 0.7, from_h, phase=phase).told_at_s or 0.0 for phase in (0.01, 0.5, 0.99))
        assert right.on_plan_at_s is not None
        assert right.on_plan_at_s - right.begun_s < 2.5 * (worst - right.begun_s) + 60
        half_way_s = (right.on_plan_at_s + right.begun_s) / 2
        at_s, after_s = next(one for one in right.foretold if one[0] >= half_way_s)
        assert after_s is not None
        assert at_s + after_s == pytest.approx(right.on_plan_at_s, abs=0.3 * (right.on_plan_at_s - at_s) + 10)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(
    ("rate_ml_h", "factor"), [(2, 0.7), (2, 1.3), (10, 0.7), (10, 1.3), (125, 0.7), (125, 1.3)]
)
def test_a_noisy_pump_with_such_a_shift_is_never_called_on_plan(
    rate_ml_h: float, factor: float, seed: int
) -> None:
    ward = Ward(continuous(rate_ml_h, 3, pump=COARSE, limits="tolerance_percent = 10"))
    pump = NoisyPump(
        [Segment(-1e9, PumpState.IDLE), Segment(60, PumpState.RUNNING, rate_ml_h)],
        factor=factor,
        shifted_at_s=-1e9,
        seed=seed,
    )
    for moment, reading in pump.readings(-30, 10_000):
        ward.take(moment, reading)
        assert status_of(ward).verdict is not DeliveryVerdict.ON_PLAN
        if ward.alerts():
            break
    found = {"over_infusion"} if factor > 1 else {"under_infusion", "no_delivery"}
    assert {kind for _, kind in ward.alerts()} <= found
    assert ward.alerts()


def test_a_dose_that_is_over_before_anything_could_be_found_is_never_decidable() -> None:
    small = continuous(2, 0.25, pump=COARSE)
    ward = live(small, "-0:01 idle\n0:00 running rate=2", until="0:14")
    assert status_of(ward).decidable_after_s is None
    assert status_of(ward).verdict is DeliveryVerdict.TOO_EARLY


def test_where_nothing_is_on_there_is_nothing_to_decide() -> None:
    assert status_of(live(A_DAY_AT_10, "-0:10 idle", until="0:05")).decidable_after_s is None
