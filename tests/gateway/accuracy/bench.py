"""A simulated pump on a test bench: what it is like is known, and its readings are taken at times not quite
on time."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from msgspec import structs

from drivers.reading import PumpState, Reading
from gateway.accuracy.stretches import Recorder
from gateway.accuracy.trumpet import Accuracy, accuracy
from gateway.core.prescription import Prescription
from gateway.core.timeline import Moment, Timeline
from simulator.pump import Pump
from simulator.therapy import PumpSetting
from tests.gateway.core.pump_days import START_UTC_MS, continuous
from tests.simulator.scenarios import constant, scenario

MINUTE_MS = 60_000
HOUR_MS = 3_600_000
STARTS_AT_MS = 2 * MINUTE_MS
"""The pump stands idle so long before it is started."""

Taken = tuple[Moment, Reading]


@dataclass(frozen=True)
class Bench:
    """One pump, one rate."""

    rate_ml_h: float = 10.0
    calibration_percent: float = 0.0
    counter_ml: float = 0.1
    stroke_ml: float = 0.05
    ripple_ml: float = 0.02
    counter_wrap_ml: float | None = None
    poll_ms: int = 5_000
    hours: float = 3.0
    follows: str = "flow"
    seed: int = 1

    @property
    def order(self) -> Prescription:
        wrap = "" if self.counter_wrap_ml is None else f"counter_wrap_ml = {self.counter_wrap_ml}\n"
        return continuous(
            self.rate_ml_h,
            self.hours,
            pump=f"counter_ml = {self.counter_ml}\nstroke_ml = {self.stroke_ml}\n"
            f'ripple_ml = {self.ripple_ml}\npoll = "{self.poll_ms // 1000}s"\n{wrap}',
        )

    def readings(self) -> Iterator[Taken]:
        setting = PumpSetting(
            counter_ml=self.counter_ml,
            counter_wrap_ml=self.counter_wrap_ml,
            stroke_ml=self.stroke_ml,
            ripple_ml=self.ripple_ml,
        )
        length_ms = round(self.hours * HOUR_MS)
        pump = Pump(
            scenario(
                structs.replace(constant(self.rate_ml_h, length_ms), start_ms=STARTS_AT_MS),
                setting=setting,
                follows=self.follows,
                seed=self.seed,
                machine={"calibration_percent": self.calibration_percent},
            )
        )
        chance = random.Random(self.seed)
        now_ms = chance.randrange(self.poll_ms)
        while now_ms < STARTS_AT_MS + length_ms:
            truth = pump.truth_at(now_ms)
            taken_ms = now_ms + chance.randrange(100)
            yield (
                Moment(monotonic_ms=taken_ms, utc_ms=START_UTC_MS - STARTS_AT_MS + taken_ms),
                Reading(
                    pump="pump",
                    at_ms=taken_ms,
                    state=PumpState(truth.state),
                    rate_ml_h=truth.rate_ml_h,
                    volume_ml=truth.counter_ml,
                    alarms=truth.alarms,
                ),
            )
            now_ms += round(self.poll_ms * chance.uniform(0.9, 1.1))


def measured(order: Prescription, readings: Iterator[Taken] | list[Taken]) -> Accuracy:
    """What these readings show. Raises AccuracyError."""
    recorder = Recorder(order)
    timeline = Timeline()
    for moment, reading in readings:
        instant = timeline.at(moment)
        if instant is not None:
            recorder.take(instant, reading)
    return accuracy(recorder.recorded(), order.pump)
