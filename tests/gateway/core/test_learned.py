"""A pump's own constant error, learnt from its doses: how well, from what, and that it decides nothing."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from alerts.condition import Finding, Kind
from drivers.reading import PumpState, Reading
from gateway.core.learned import BETWEEN_DOSES, LATEST_VALUES, Learned, pump_error
from gateway.core.monitor import DeliveryStatus, Monitor
from gateway.core.order import parse_order
from gateway.core.prescription import Prescription
from gateway.core.timeline import Timeline
from tests.gateway.core.pump_days import NoisyPump, Segment, Ward, order, order_text
from tests.gateway.core.test_monitor_laws import PRESCRIPTIONS, moments, stories

PUMP = "accuracy_percent = 6\ncounter_ml = 0.1\nstroke_ml = 0.05\nripple_ml = 0.02\n"
RUN_S = 7_200


def doses_text(*, tolerance_percent: float = 10, pump: str = PUMP, rest: str = "", phase: str = "") -> str:
    """200 mL over two hours, every four."""
    phase = phase or 'duration = "2h"\nrate_ml_h = 100\n'
    return order_text(
        head='every = "4h"\ntimes = 0\n',
        phases=f"[[schedule.phase]]\n{phase}",
        tail=f"[limits]\ntolerance_percent = {tolerance_percent}\n[pump]\n{pump}\n{rest}",
    )


def doses(**parts: object) -> Prescription:
    return parse_order(doses_text(**parts))  # type: ignore[arg-type]


def given_doses(prescription: Prescription, errors: list[float], *, serial: str | None = None) -> Ward:
    """One dose with each of these errors, and the beginning of another one."""
    ward = Ward(prescription)
    counter_ml = 0.0
    for number, error in enumerate([*errors, errors[-1]]):
        due_s = number * 14_400.0
        runs_s = RUN_S if number < len(errors) else 60
        pump = NoisyPump(
            [
                Segment(due_s - 600, PumpState.IDLE),
                Segment(due_s, PumpState.RUNNING, 100.0),
                Segment(due_s + runs_s / (1 + error), PumpState.COMPLETE),
            ],
            calibration=error,
            poll_s=10.0,
            seed=number,
        )
        base_ml = counter_ml
        for moment, reading in pump.readings(due_s - 60, due_s + runs_s + 200):
            assert reading.volume_ml is not None
            counter_ml = base_ml + reading.volume_ml
            ward.take(moment, structs.replace(reading, volume_ml=counter_ml, serial=serial))
    return ward


def status(ward: Ward) -> DeliveryStatus:
    assert ward.instant is not None
    return ward.monitor.status(ward.instant)


class TestEstimate:
    @pytest.mark.parametrize("error", [-0.05, -0.012, 0.0, 0.03])
    def test_after_six_doses_the_error_is_known_to_less_than_a_percent(self, error: float) -> None:
        now = status(given_doses(doses(), [error] * 6))
        assert now.pump_error_percent is not None and now.pump_error_half_width_percent is not None
        assert now.pump_error_half_width_percent < 1
        assert abs(now.pump_error_percent - 100 * error) < now.pump_error_half_width_percent

    @pytest.mark.parametrize("count", [1, 2])
    def test_of_fewer_than_three_doses_nothing_is_claimed(self, count: int) -> None:
        now = status(given_doses(doses(), [0.02] * count))
        assert now.pump_error_percent is None and now.pump_error_half_width_percent is None

    def test_doses_that_differ_make_it_less_certain(self) -> None:
        alike = pump_error((0.01, 0.01, 0.01, 0.01))
        scattered = pump_error((-0.01, 0.03, 0.02, 0.0))
        assert alike is not None and scattered is not None
        assert scattered.half_width > 3 * alike.half_width

    def test_however_alike_they_are_it_is_never_more_certain_than_doses_are_alike(self) -> None:
        known = pump_error((0.01,) * LATEST_VALUES)
        assert known is not None
        assert known.half_width >= 1.96 * BETWEEN_DOSES / LATEST_VALUES**0.5

    @pytest.mark.parametrize("count", [3, 5, 12, 20])
    def test_the_truth_lies_within_it_for_at_least_95_of_100_pumps(self, count: int) -> None:
        """Doses differ twice as much as the least that is assumed."""
        random_ = random.Random(count)
        held = 0
        for _ in range(4_000):
            truth = random_.uniform(-0.05, 0.05)
            known = pump_error(tuple(random_.gauss(truth, 2 * BETWEEN_DOSES) for _ in range(count)))
            assert known is not None
            held += abs(known.error - truth) <= known.half_width
        assert held >= 0.94 * 4_000

    def test_only_the_latest_doses_count(self) -> None:
        ward = given_doses(doses(), [0.04] * 3 + [-0.02] * LATEST_VALUES)
        now = status(ward)
        assert now.pump_error_percent == pytest.approx(-2, abs=0.3)


class TestWhatIsLearnt:
    @pytest.mark.parametrize(
        ("what", "prescription", "errors"),
        [
            ("a pump beyond its maker's accuracy", doses(tolerance_percent=20), [0.08] * 5),
            ("a deviation", doses(tolerance_percent=6), [-0.12] * 5),
            (
                "a pump from which the patient has boluses",
                doses(rest='[demand]\nbolus_ml = 1\nlockout = "10min"\n'),
                [0.0] * 5,
            ),
            ("too coarse a counter", doses(pump="counter_ml = 20"), [0.0] * 5),
        ],
    )
    def test_nothing_is_learnt_from(self, what: str, prescription: Prescription, errors: list[float]) -> None:
        assert status(given_doses(prescription, errors)).pump_error_percent is None, what

    def test_small_doses_are_put_together(self) -> None:
        ward = Ward(doses(phase='duration = "3min"\nrate_ml_h = 100\n'))
        counter_ml = 0.0
        for dose in range(60):
            begin_s = dose * 14_400
            pump = NoisyPump(
                [
                    Segment(begin_s - 600, PumpState.IDLE),
                    Segment(begin_s, PumpState.RUNNING, 100.0),
                    Segment(begin_s + 180, PumpState.COMPLETE),
                ],
                calibration=0.03,
                poll_s=10.0,
                seed=dose,
            )
            base_ml = counter_ml
            for moment, reading in pump.readings(begin_s - 30, begin_s + 240):
                assert reading.volume_ml is not None
                counter_ml = base_ml + reading.volume_ml
                ward.take(moment, structs.replace(reading, volume_ml=counter_ml))
        now = status(ward)
        assert now.pump_error_percent is not None and now.pump_error_half_width_percent is not None
        assert abs(now.pump_error_percent - 3) < now.pump_error_half_width_percent

    def test_another_pump_is_another_pump(self) -> None:
        ward = given_doses(doses(), [0.03] * 5, serial="A-1")
        assert status(ward).pump_error_percent is not None
        last = ward.instant
        assert last is not None
        reading = Reading(
            pump="pump",
            at_ms=0,
            state=PumpState.RUNNING,
            rate_ml_h=100.0,
            volume_ml=2_000.0,
            alarms=(),
            serial="B-2",
        )
        later = structs.replace(last, t_ms=last.t_ms + 10_000, utc_ms=last.utc_ms + 10_000)
        ward.monitor.step(later, reading)
        assert ward.monitor.status(later).pump_error_percent is None

    def test_it_is_kept_over_a_restart_and_over_a_new_version_of_the_order(self) -> None:
        ward = given_doses(doses(), [0.03] * 5)
        before = status(ward)
        restored = Monitor.restore("pump", ward.prescription, ward.monitor.snapshot())
        assert ward.instant is not None
        restored.revise(doses_text(tolerance_percent=15), ward.instant)
        assert restored.status(ward.instant).pump_error_percent == before.pump_error_percent

    def test_an_order_for_another_model_begins_anew(self) -> None:
        ward = given_doses(doses(), [0.03] * 5)
        assert ward.instant is not None
        ward.monitor.revise(doses_text(pump=PUMP + 'model = "another"'), ward.instant)
        assert status(ward).pump_error_percent is None


class TestWhatItIsFor:
    def test_a_deviation_says_what_the_pump_usually_does(self) -> None:
        ward = given_doses(doses(tolerance_percent=8), [-0.03] * 5)
        words = [one.message for one in ward.findings if one.kind is Kind.UNDER_INFUSION]
        assert not words
        ward = given_doses(doses(tolerance_percent=8), [-0.03] * 5 + [-0.2])
        words = [one.message for one in ward.findings if one.kind is Kind.UNDER_INFUSION]
        assert "; in earlier doses it counted 3.0 % less than it was set to." in words[0] or (
            "; in earlier doses it counted 2.9 % less than it was set to." in words[0]
        )

    def test_nothing_is_said_of_an_error_that_may_be_none(self) -> None:
        ward = given_doses(doses(tolerance_percent=8), [0.0] * 5 + [-0.2])
        words = [one.message for one in ward.findings if one.kind is Kind.UNDER_INFUSION]
        assert words and "earlier doses" not in words[0]


def with_experience(prescription: Prescription | None, values: tuple[float, ...]) -> Monitor:
    monitor = Monitor("pump", prescription)
    monitor.memory.learned = Learned(values=values)
    return Monitor.restore("pump", prescription, monitor.snapshot())


def bare(findings: tuple[Finding, ...]) -> list[Finding]:
    return [structs.replace(finding, message="") for finding in findings]


values = st.lists(st.floats(-0.06, 0.06), min_size=3, max_size=LATEST_VALUES).map(tuple)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(PRESCRIPTIONS), stories, values)
def test_whatever_has_been_learnt_raises_delays_and_ends_nothing(
    prescription: Prescription | None,
    story: list[tuple[int, str, Reading | None]],
    values: tuple[float, ...],
) -> None:
    """So no pump inside the tolerance is accused by it, and no alert comes later than without."""
    unknown = Monitor("pump", prescription)
    known = with_experience(prescription, values)
    timeline = Timeline()
    for moment, reading in moments(story):
        instant = timeline.at(moment)
        if instant is not None:
            assert bare(known.step(instant, reading)) == bare(unknown.step(instant, reading))


@settings(max_examples=15, deadline=None)
@given(
    st.floats(-0.06, 0.06),
    st.sampled_from([0.8, 0.9, 0.97, 1.03, 1.1, 1.25]),
    st.integers(0, 1_000),
    values,
)
def test_a_pump_that_changes_is_found_at_the_same_reading_whatever_it_was_like(
    calibration: float, factor: float, seed: int, values: tuple[float, ...]
) -> None:
    prescription = order(
        phases='[[schedule.phase]]\nduration = "2h"\nrate_ml_h = 100\n',
        tail=f"[limits]\ntolerance_percent = 10\n[pump]\n{PUMP}",
    )
    unknown = Monitor("pump", prescription)
    known = with_experience(prescription, values)
    pump = NoisyPump(
        [Segment(-600, PumpState.IDLE), Segment(0, PumpState.RUNNING, 100.0)],
        calibration=calibration,
        factor=factor,
        shifted_at_s=1_800,
        seed=seed,
    )
    timeline = Timeline()
    found: set[Kind] = set()
    for moment, reading in pump.readings(-30, 3_600):
        instant = timeline.at(moment)
        assert instant is not None
        told = known.step(instant, reading)
        assert bare(told) == bare(unknown.step(instant, reading))
        found |= {finding.kind for finding in told}
    if abs((1 + calibration) * factor - 1) < 0.1:
        assert not found & {Kind.UNDER_INFUSION, Kind.OVER_INFUSION}
