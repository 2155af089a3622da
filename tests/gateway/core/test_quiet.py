"""With or without the quick way through the same is told at the same time, and the same is remembered."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alerts.condition import Finding
from drivers.reading import PumpState, Reading
from gateway.core.monitor import DeliveryStatus, Monitor
from gateway.core.order import parse_order
from gateway.core.prescription import Prescription
from gateway.core.quiet import Quiet
from gateway.core.timeline import Moment, Timeline
from gateway.readings import Row, read_rows
from tests.gateway.core.pump_days import NoisyPump, Segment, continuous

RECORDINGS = Path(__file__).parents[2] / "recordings"
NAMES = sorted(path.parent.name for path in RECORDINGS.glob("*/truth.json"))


def watched(
    prescription: Prescription, readings: list[tuple[Moment, Reading]]
) -> tuple[list[Finding], list[DeliveryStatus]]:
    timeline = Timeline()
    monitor = Monitor("pump", prescription)
    found: list[Finding] = []
    statuses: list[DeliveryStatus] = []
    for number, (moment, reading) in enumerate(readings):
        instant = timeline.at(moment)
        if instant is not None:
            found.extend(monitor.step(instant, reading))
            if number % 17 == 0:
                statuses.append(monitor.status(instant))
    return found, statuses


def slowly(
    prescription: Prescription, readings: list[tuple[Moment, Reading]]
) -> tuple[list[Finding], list[DeliveryStatus]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Quiet, "bounds", lambda self, reading: None)
        return watched(prescription, readings)


def assert_the_same(prescription: Prescription, readings: list[tuple[Moment, Reading]]) -> None:
    found, statuses = watched(prescription, readings)
    found_slowly, statuses_slowly = slowly(prescription, readings)
    assert [_rounded(one) for one in found] == [_rounded(one) for one in found_slowly]
    assert len(statuses) == len(statuses_slowly)
    for one, other in zip(statuses, statuses_slowly, strict=True):
        assert (one.verdict, one.occurrence, one.decidable_after_s) == (
            other.verdict,
            other.occurrence,
            other.decidable_after_s,
        )
        assert one.expected_ml == pytest.approx(other.expected_ml, abs=1e-6)
        assert one.delivered_ml == pytest.approx(other.delivered_ml, abs=1e-6)
        assert one.ends_at_utc_ms == other.ends_at_utc_ms
        assert one.bag_empty_at_utc_ms == pytest.approx(other.bag_empty_at_utc_ms, abs=2)


def _rounded(finding: Finding) -> tuple[object, ...]:
    return (
        finding.kind,
        finding.verdict,
        finding.at_ms,
        finding.since_utc_ms,
        None if finding.delivered_ml is None else round(finding.delivered_ml, 5),
        finding.message,
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_recording_tells_the_same(name: str) -> None:
    order = parse_order((RECORDINGS / name / "prescription.toml").read_text())
    lines = (RECORDINGS / name / "readings.csv").read_text().splitlines(keepends=True)
    rows = [row for row in read_rows(lines) if isinstance(row, Row)]
    assert_the_same(order, [(row.moment, row.reading) for row in rows])


@settings(max_examples=25, deadline=None)
@given(
    rate_ml_h=st.sampled_from([0.5, 2.0, 10.0, 125.0]),
    counter_ml=st.sampled_from([0.01, 0.1]),
    factor=st.sampled_from([0.0, 0.5, 0.85, 1.0, 1.2, 2.0]),
    pauses=st.lists(st.integers(10, 170), max_size=3),
    limits=st.sampled_from(
        ["", "max_rate_ml_h = 130.0", "max_volume_ml = 380.0", 'kvo_ml_h = 0.4\nlate_end = "5min"']
    ),
    bag=st.sampled_from(["", "[bag]\nvolume_ml = 20", '[bag]\nvolume_ml = 200\nwarn_before = "30min"']),
    missing=st.sampled_from([0.0, 0.05]),
    seed=st.integers(0, 2**32),
)
def test_any_pump_tells_the_same(
    rate_ml_h: float,
    counter_ml: float,
    factor: float,
    pauses: list[int],
    limits: str,
    bag: str,
    missing: float,
    seed: int,
) -> None:
    order = continuous(rate_ml_h, 3.0, limits=limits, pump=f"counter_ml = {counter_ml}", rest=bag)
    segments = [Segment(-600, PumpState.IDLE), Segment(0, PumpState.RUNNING, rate_ml_h)]
    for minute in sorted(set(pauses)):
        segments.append(Segment(minute * 60, PumpState.PAUSED, resets_counter=seed % 2 == 0))
        segments.append(Segment(minute * 60 + 400, PumpState.RUNNING, rate_ml_h))
    segments.append(Segment(10_900, PumpState.KVO, 0.4))
    segments.append(Segment(13_000, PumpState.COMPLETE))
    segments.sort(key=lambda segment: segment.at_s)
    pump = NoisyPump(
        segments, counter_ml=counter_ml, factor=factor, shifted_at_s=5_000, missing=missing, seed=seed
    )
    assert_the_same(order, list(pump.readings(-600, 14_400)))


def test_an_ordinary_reading_goes_the_quick_way() -> None:
    """Otherwise the tests above compare the long way with itself."""
    order = continuous(10.0, 3.0)
    pump = NoisyPump([Segment(-60, PumpState.IDLE), Segment(0, PumpState.RUNNING, 10.0)])
    readings = list(pump.readings(-60, 7_200))
    quick = 0
    passes = Quiet.passes

    def counted(self: Quiet, *arguments: object) -> bool:
        nonlocal quick
        passed = passes(self, *arguments)  # type: ignore[arg-type]
        quick += passed
        return passed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Quiet, "passes", counted)
        watched(order, readings)
    assert quick > 0.95 * len(readings)
