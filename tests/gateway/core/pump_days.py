"""A small pump of numbers: what it was set to, how it errs, what its counter says. Seeded; knows nothing of
the core.

The noise is that of the published model: constant calibration error, a sine of the mechanism, a random walk
of the strokes with variance 0.0025 x stroke x volume, a counter that shows whole counts only, polls that are
not quite on time. Here are also the orders that the tests of the core are written with.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

from msgspec import structs

from alerts.condition import Finding, Kind, Urgency, Verdict
from alerts.inhibition import Inhibition, Phase, Transition
from drivers.reading import PumpState, Reading
from gateway.core.monitor import Monitor
from gateway.core.order import parse_order
from gateway.core.prescription import Prescription
from gateway.core.timeline import Instant, Moment, Timeline

START_UTC_MS = 1_777_874_400_000  # 2026-05-04T06:00:00Z
HOUR_MS = 3_600_000
MINUTE_MS = 60_000

INFO = {
    Kind.DOSE_STARTED,
    Kind.DOSE_ENDED,
    Kind.COUNTER_RESET,
    Kind.CLOCK_STEPPED,
    Kind.DEMAND_DENIED,
    Kind.BAG_CHANGED,
    Kind.TITRATED,
    Kind.ORDER_CHANGED,
}


def order_text(
    *,
    phases: str,
    head: str = "",
    tail: str = "",
    patient: str = "",
    drug: str = "",
    start: str = "2026-05-04T06:00:00Z",
) -> str:
    """prescription.toml; ``head`` is of ``[schedule]``, ``tail`` behind all."""
    return f"""
format = "infusion-prescription/1"
[patient]
id = "P-0001"
{patient}
[drug]
name = "test"
{drug}
[schedule]
start = {start}
{head}
{phases}
{tail}
"""


def order(*, phases: str, head: str = "", tail: str = "", patient: str = "", drug: str = "") -> Prescription:
    """A prescription that starts at ``START_UTC_MS``, of the same parts."""
    return parse_order(order_text(phases=phases, head=head, tail=tail, patient=patient, drug=drug))


def continuous(
    rate_ml_h: float, hours: float, *, limits: str = "", pump: str = "", rest: str = ""
) -> Prescription:
    """One constant rate."""
    return order(
        phases=f'[[schedule.phase]]\nrate_ml_h = {rate_ml_h}\nduration = "{round(hours * 3600)}s"\n',
        tail=f"[limits]\n{limits}\n[pump]\n{pump}\n{rest}",
    )


@dataclass
class Segment:
    """From ``at_s`` on the pump does this."""

    at_s: float
    state: PumpState
    rate_ml_h: float = 0.0
    resets_counter: bool = False
    """The counter is set to 0 in the middle of this segment."""


@dataclass
class NoisyPump:
    """Readings of a pump that errs within its data sheet, and by ``factor`` from ``shifted_at_s`` on."""

    segments: list[Segment]
    counter_ml: float = 0.1
    stroke_ml: float = 0.05
    ripple_ml: float = 0.02
    ripple_period_s: float = 120.0
    calibration: float = 0.0
    poll_s: float = 5.0
    seed: int = 1
    factor: float = 1.0
    shifted_at_s: float = math.inf
    missing: float = 0.0
    """Share of the readings without a volume."""
    lost: float = 0.0
    """Share of the readings that never come."""
    ends_s: float = field(default=0.0)

    def readings(self, from_s: float, until_s: float) -> Iterator[tuple[Moment, Reading]]:
        """Readings from ``from_s`` to ``until_s``, in seconds after ``START_UTC_MS``."""
        random_ = random.Random(self.seed)
        phase = random_.uniform(0, 2 * math.pi)
        given_ml = shown_ml = reset_at_ml = 0.0
        resets = [
            (first.at_s + second.at_s) / 2
            for first, second in pairwise(self.segments)
            if first.resets_counter
        ]
        now_s = last_s = from_s
        offset_ml = random_.uniform(0, self.counter_ml)
        while now_s < until_s:
            taken_s = now_s - random_.uniform(0, 0.1)
            flow_ml = self._flow_ml(last_s, taken_s)
            given_ml += max(0.0, flow_ml + random_.gauss(0, math.sqrt(0.0025 * self.stroke_ml * flow_ml)))
            ripple_ml = self.ripple_ml / 2 * math.sin(2 * math.pi * taken_s / self.ripple_period_s + phase)
            shown_ml = max(shown_ml, given_ml + ripple_ml if flow_ml else shown_ml)
            if resets and taken_s >= resets[0]:
                resets.pop(0)
                reset_at_ml = shown_ml
                offset_ml = 0.0
            counts = math.floor((shown_ml - reset_at_ml + offset_ml) / self.counter_ml + 1e-9)
            last_s = taken_s
            segment = self._segment(taken_s)
            if random_.random() >= self.lost:
                now_ms = round(now_s * 1000)
                missing = random_.random() < self.missing
                yield (
                    Moment(monotonic_ms=now_ms + HOUR_MS * 100, utc_ms=START_UTC_MS + now_ms),
                    Reading(
                        pump="pump",
                        at_ms=now_ms,
                        state=segment.state,
                        rate_ml_h=segment.rate_ml_h,
                        volume_ml=None if missing else round(counts * self.counter_ml, 6),
                        alarms=(),
                    ),
                )
            now_s += self.poll_s + random_.uniform(-0.1, 0.1) * self.poll_s

    def _segment(self, at_s: float) -> Segment:
        return next((one for one in reversed(self.segments) if one.at_s <= at_s), self.segments[0])

    def _flow_ml(self, from_s: float, to_s: float) -> float:
        edges = sorted(
            {from_s, to_s}
            | {one.at_s for one in self.segments if from_s < one.at_s < to_s}
            | ({self.shifted_at_s} if from_s < self.shifted_at_s < to_s else set())
        )
        flow_ml = 0.0
        for begin_s, end_s in pairwise(edges):
            segment = self._segment(begin_s)
            if segment.state in (PumpState.RUNNING, PumpState.BOLUS, PumpState.KVO):
                factor = self.factor if begin_s >= self.shifted_at_s else 1.0
                flow_ml += segment.rate_ml_h * (1 + self.calibration) * factor * (end_s - begin_s) / 3600
        return flow_ml


class Ward:
    """A monitor and its inhibition, fed as a gateway feeds them; remembers what people were told."""

    def __init__(self, prescription: Prescription | None, urgency: Urgency | None = None) -> None:
        self.prescription = prescription
        self.monitor = Monitor("pump", prescription)
        self.timeline = Timeline()
        self.inhibition = Inhibition(
            urgency or (prescription.urgency if prescription is not None else Urgency.TIMED)
        )
        self.told: list[tuple[float, str, str]] = []
        """Seconds after ``START_UTC_MS``, kind, ``start`` or ``end``."""
        self.findings: list[Finding] = []
        self.started: list[Transition] = []
        """What has started, with its priority and words; information too."""
        self.instant: Instant | None = None

    def take(self, moment: Moment, reading: Reading | None) -> None:
        """One reading, or only the time."""
        instant = self.timeline.at(moment)
        if instant is None:
            return
        self.instant = instant
        self._tell(self.monitor.step(instant, reading))

    def _tell(self, findings: tuple[Finding, ...]) -> None:
        self.findings.extend(findings)
        for transition in self.inhibition.apply(findings):
            if transition.phase is Phase.WORSE:
                continue
            if transition.phase is Phase.START:
                self.started.append(transition)
            seconds = (transition.finding.at_utc_ms - START_UTC_MS) / 1000
            self.told.append((seconds, transition.finding.kind.value, transition.phase.value))

    def revise(
        self,
        text: str,
        at_s: float | None = None,
        *,
        on_programming: bool = False,
        effective_by_s: float | None = None,
    ) -> None:
        """A new version of the order comes, so many seconds after ``START_UTC_MS``, or now."""
        instant = self.instant
        assert instant is not None, "after a reading"
        if at_s is not None:
            passed_ms = START_UTC_MS + round(at_s * 1000) - instant.utc_ms
            instant = structs.replace(
                instant,
                t_ms=instant.t_ms + passed_ms,
                utc_ms=instant.utc_ms + passed_ms,
                schedule_utc_ms=START_UTC_MS + round(at_s * 1000),
            )
            self._tell(self.monitor.step(instant, None))
        effective_by_utc_ms = None if effective_by_s is None else START_UTC_MS + round(effective_by_s * 1000)
        self._tell(
            self.monitor.revise(
                text, instant, on_programming=on_programming, effective_by_utc_ms=effective_by_utc_ms
            )
        )

    def restart(self) -> None:
        """The gateway is started anew, from what it had stored."""
        snapshot = self.monitor.snapshot()
        self.monitor = Monitor.restore("pump", self.prescription, snapshot)

    def alerts(self) -> list[tuple[float, str]]:
        """What has started and is no mere information."""
        return [
            (at_s, kind) for at_s, kind, phase in self.told if phase == "start" and Kind(kind) not in INFO
        ]

    def present(self) -> set[str]:
        """Kinds that are now held to be present."""
        now: set[str] = set()
        for finding in self.findings:
            if finding.verdict is Verdict.PRESENT:
                now.add(finding.kind.value)
            else:
                now.discard(finding.kind.value)
        return now


def watch(prescription: Prescription, pump: NoisyPump, from_s: float, until_s: float) -> Ward:
    """All that is told of these readings."""
    ward = Ward(prescription)
    for moment, reading in pump.readings(from_s, until_s):
        ward.take(moment, reading)
    return ward
