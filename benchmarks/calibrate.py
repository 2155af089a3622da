"""Where must the thresholds be? ``make calibrate`` finds them by simulation and judges the closed form.

For each setting the bank of tests of ``gateway.core.delivery`` watches pumps without a fault, at the edge of
the tolerance where they are worst (``benchmarks/fault_free.py``). Printed, for each reference:

- calibrated: the threshold in mL at which every test alarms equally often, and all of them together, for too
  little and for too much, once a pump-year;
- closed form: what ``thresholds_ml`` says, by what is calibrated;
- factor: by what all thresholds of the closed form could be multiplied for one alarm a pump-year. Where it is
  below 1 there are fewer;
- a year: how many pumps alarm a pump-year with the closed form as it is, by any test. In the settings of the
  detection benchmark that must be at most one.

The first settings are those of the detection benchmark; those that follow vary what it holds still: the
period and the share of the ripple, the strokes, the polls, the counter.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import msgspec
import numpy as np

from benchmarks.detectors import Cusums
from benchmarks.fault_free import PUMPS, common_factor, equal_shares, highest
from benchmarks.noise import Noise
from benchmarks.progress import Progress
from benchmarks.settings import COUNTERS_ML, SEED, STROKES_ML, TOLERANCES, Setting
from gateway.core.delivery import REFERENCES, thresholds_ml

USUAL = [Noise(rate_ml_h=rate_ml_h, stroke_ml=stroke_ml) for rate_ml_h, stroke_ml in STROKES_ML.items()]
UNUSUAL = [
    Noise(rate_ml_h=125.0, stroke_ml=0.05, ripple_share=0.08, ripple_period_s=40.0),
    Noise(rate_ml_h=125.0, stroke_ml=0.05, ripple_share=0.08, ripple_period_s=150.0),
    Noise(rate_ml_h=50.0, stroke_ml=0.05, ripple_share=0.08, ripple_period_s=80.0),
    Noise(rate_ml_h=50.0, stroke_ml=0.05, ripple_share=0.05, ripple_period_s=40.0),
    Noise(rate_ml_h=10.0, stroke_ml=0.05, ripple_share=0.5, ripple_period_s=12.0),
    Noise(rate_ml_h=10.0, stroke_ml=0.2, ripple_share=0.0),
    Noise(rate_ml_h=2.0, stroke_ml=0.0005, ripple_share=0.3, ripple_period_s=600.0),
    Noise(rate_ml_h=20.0, stroke_ml=0.02, poll_s=30.0),
    Noise(rate_ml_h=500.0, stroke_ml=0.1, poll_s=1.0, poll_jitter_s=0.1),
]


class Calibrated(msgspec.Struct, frozen=True):
    """What was found for one setting."""

    setting: Setting
    thresholds_ml: tuple[float, ...]
    closed_form_ml: tuple[float, ...]
    factor: float
    alarms_a_year: float
    """With the closed form; too low where every pump alarms more than once."""


def calibrate(
    noise: Noise, tolerances: tuple[float, ...], years: float, progress: Progress
) -> list[Calibrated]:
    """The settings of this noise."""
    settings = [
        Setting(noise=noise, counter_ml=counter_ml, tolerance=tolerance)
        for counter_ml in COUNTERS_ML
        for tolerance in tolerances
    ]
    generator = np.random.Generator(np.random.SFC64([SEED, *msgspec.json.encode(noise)]))
    tested = [(one, [Cusums(REFERENCES, one.tolerance, PUMPS)]) for one in settings]
    peaks = highest(noise, tested, years=years, generator=generator, tick=progress.tick)
    progress.part_done()
    result = []
    for setting, (most,) in zip(settings, peaks, strict=True):
        closed = thresholds_ml(setting.noise.rate_ml_h, setting.pump, setting.poll_ms)
        alarmed = (most > np.array(closed)[:, np.newaxis]).any(axis=(0, 1)).sum()
        result.append(
            Calibrated(
                setting=setting,
                thresholds_ml=tuple(equal_shares(most, round(years)).tolist()),
                closed_form_ml=closed,
                factor=common_factor(most, np.array(closed), round(years)),
                alarms_a_year=float(alarmed / years),
            )
        )
    return result


def report(all_of_them: list[Calibrated]) -> str:
    """Two lines for each setting, in Markdown."""
    head = " | ".join(f"{reference:g}" for reference in REFERENCES)
    lines = [
        f"| mL/h, counter, tolerance; stroke; ripple; poll | | {head} | factor | a year |",
        f"| --- | --- |{' ---: |' * (len(REFERENCES) + 2)}",
    ]
    for one in all_of_them:
        noise = one.setting.noise
        name = (
            f"{noise.rate_ml_h:g}, {one.setting.counter_ml:g}, {one.setting.tolerance * 100:g} %;"
            f" {noise.stroke_ml:g} mL; {noise.ripple_share * 100:g} % in {noise.ripple_period_s:g} s;"
            f" {noise.poll_s:g} s"
        )
        calibrated = " | ".join(f"{threshold:.4f}" for threshold in one.thresholds_ml)
        compared = " | ".join(
            f"{closed / threshold:.2f}" if threshold > 1e-6 else "above 0"
            for closed, threshold in zip(one.closed_form_ml, one.thresholds_ml, strict=True)
        )
        lines.append(f"| {name} | calibrated, mL | {calibrated} | | |")
        lines.append(f"| | closed form | {compared} | {one.factor:.2f} | {one.alarms_a_year:.2g} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Calibrate all settings; ends with 1 if the closed form alarms too often where the benchmark looks."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--years", type=float, default=20, help="pump-years a setting (20)")
    parser.add_argument("--into", type=Path, help="a file for the numbers, as JSON")
    arguments = parser.parse_args()
    progress = Progress(len(USUAL) + len(UNUSUAL))
    usual = [one for noise in USUAL for one in calibrate(noise, TOLERANCES, arguments.years, progress)]
    unusual = [
        one for noise in UNUSUAL for one in calibrate(noise, TOLERANCES[:1], arguments.years, progress)
    ]
    usual_most, most = (max(one.factor for one in some) for some in (usual, usual + unusual))
    sys.stdout.write(report(usual + unusual))
    sys.stdout.write(f"\nSeed {SEED}. Largest factor: {usual_most:.3f} in the settings of the benchmark,")
    sys.stdout.write(f" {most:.3f} in all.\n")
    if arguments.into:
        arguments.into.write_bytes(
            msgspec.json.format(msgspec.json.encode(usual + unusual), indent=1) + b"\n"
        )
    return 0 if usual_most <= 1 else 1


if __name__ == "__main__":
    sys.exit(main())
