"""How late is the whole core, in units of the best that is possible? A part of ``make calibrate``.

Pumps with the noise of the published model, at all ten rates and counters of the detection benchmark, get a
true shift of 20 to 100 % at a random phase of counter, stroke and poll; what is told comes through the whole
core and its inhibition. Printed: delay divided by the worst-phase bound of a test that is told the shift
(``tests/gateway/core/bound.py``), for each pump and over all; ends with 1 if the goals are missed. With the
fault-free days (``python -m benchmarks.messy_home --clean``) it shows that the thresholds are neither too
high nor too low.
"""

from __future__ import annotations

import argparse
import math
import random
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

from benchmarks.progress import Progress
from benchmarks.settings import COUNTERS_ML, STROKES_ML
from drivers.reading import PumpState
from tests.gateway.core.bound import the_bound_s
from tests.gateway.core.pump_days import NoisyPump, Segment, Ward, continuous

SHIFTS = (-1.0, -0.5, -0.3, -0.2, 0.2, 0.3, 0.5, 1.0)
TOLERANCES_PERCENT = (5, 10)
CALIBRATION = 0.02
"""The pumps' own errors lie within this, as a fraction."""
LEAST_BEYOND = 0.03
"""A shift that comes less far beyond the tolerance is not looked at: the core may lie at its edge."""
MEDIAN, P95 = 0.9, 1.1
"""The goals."""
DEADLINE = 1.5
"""Times the bound, and two polls and 10 s: the deadline of every test on a deviation of volume."""
POLL_S = 5.0


@dataclass(frozen=True)
class Shifted:
    """One pump that delivers too much or too little from some moment on."""

    rate_ml_h: float
    counter_ml: float
    stroke_ml: float
    shift: float
    number: int


@dataclass(frozen=True)
class Found:
    """When this was told."""

    shifted: Shifted
    bound_s: float
    delay_s: float
    """Infinite if it was not."""

    @property
    def ratio(self) -> float:
        """The delay in units of the bound."""
        return self.delay_s / self.bound_s

    @property
    def is_late(self) -> bool:
        """Whether it came after the deadline."""
        return self.delay_s > DEADLINE * self.bound_s + 2 * POLL_S + 10


def all_pumps(times: int) -> Iterator[Shifted]:
    """Each pump and shift so many times."""
    for rate_ml_h, stroke_ml in STROKES_ML.items():
        for counter_ml in COUNTERS_ML:
            for shift in SHIFTS:
                for number in range(times):
                    yield Shifted(rate_ml_h, counter_ml, stroke_ml, shift, number)


def find(shifted: Shifted) -> Found | None:
    """How long it takes; ``None`` if the shift is none beyond the tolerance."""
    chance = random.Random(repr(shifted))
    rate_ml_h, counter_ml = shifted.rate_ml_h, shifted.counter_ml
    tolerance_percent = TOLERANCES_PERCENT[shifted.number % 2]
    calibration = chance.uniform(-CALIBRATION, CALIBRATION)
    beyond = abs((1 + calibration) * (1 + shifted.shift) - 1) - tolerance_percent / 100
    if beyond < LEAST_BEYOND:
        return None
    ripple_ml = rate_ml_h * 0.05 * (120 / 3600) / math.pi
    bound_s = the_bound_s(rate_ml_h, beyond, counter_ml, shifted.stroke_ml, ripple_ml, POLL_S)
    at_s = 3600 + chance.uniform(0, max(120, counter_ml / rate_ml_h * 3600))
    pump = NoisyPump(
        [Segment(-1e9, PumpState.IDLE), Segment(30, PumpState.RUNNING, rate_ml_h)],
        counter_ml=counter_ml,
        stroke_ml=shifted.stroke_ml,
        ripple_ml=ripple_ml,
        calibration=calibration,
        factor=1 + shifted.shift,
        shifted_at_s=at_s,
        seed=chance.randrange(1 << 30),
    )
    expected = f"accuracy_percent = 5\ncounter_ml = {counter_ml}\nstroke_ml = {shifted.stroke_ml}\n"
    ward = Ward(
        continuous(
            rate_ml_h,
            48,
            limits=f"tolerance_percent = {tolerance_percent}",
            pump=f"{expected}ripple_ml = {ripple_ml:.6f}",
        )
    )
    for moment, reading in pump.readings(-60, at_s + 5 * bound_s + 300):
        ward.take(moment, reading)
        if alerts := ward.alerts():
            return Found(shifted, bound_s, alerts[0][0] - at_s)
    return Found(shifted, bound_s, math.inf)


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which this share of them lies."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def report(found: Sequence[Found]) -> Iterator[str]:
    """A line for each pump, and one over all."""
    yield f"{'mL/h':>6}{'counter':>9}{'median':>9}{'p95':>7}{'worst':>7}   delay / worst-phase bound"
    for rate_ml_h in STROKES_ML:
        for counter_ml in COUNTERS_ML:
            here = (rate_ml_h, counter_ml)
            ratios = [one.ratio for one in found if (one.shifted.rate_ml_h, one.shifted.counter_ml) == here]
            yield (
                f"{rate_ml_h:6g}{counter_ml:9g}{quantile(ratios, 0.5):9.2f}"
                f"{quantile(ratios, 0.95):7.2f}{max(ratios):7.2f}"
            )
    ratios = [one.ratio for one in found]
    early, late = sum(ratio < 0 for ratio in ratios), sum(one.is_late for one in found)
    yield (
        f"all {len(found)}: median {quantile(ratios, 0.5):.3f} (at most {MEDIAN}),"
        f" p95 {quantile(ratios, 0.95):.3f} (at most {P95}), worst {max(ratios):.3f};"
        f" {late} past their deadline, {early} told before the shift"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """0 if the goals are met, 1 if not."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bound", description=__doc__)
    parser.add_argument("--times", type=int, default=16, help="each shift (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=2, help="processes (default: %(default)s)")
    asked = parser.parse_args(arguments)
    pumps = list(all_pumps(asked.times))
    progress = Progress(len(pumps))
    found: list[Found] = []
    with ProcessPoolExecutor(asked.jobs) as pool:
        for one in pool.map(find, pumps, chunksize=4):
            progress.part_done()
            if one is not None:
                found.append(one)
    print("\n".join(report(found)))
    ratios = [one.ratio for one in found]
    good = quantile(ratios, 0.5) <= MEDIAN and quantile(ratios, 0.95) <= P95
    return 0 if good and not any(one.is_late or one.ratio < 0 for one in found) else 1


if __name__ == "__main__":
    raise SystemExit(main())
