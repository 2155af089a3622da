"""How soon a wrong flow is found, beside simpler detectors and beside the best: ``make bench-detection``.

Compared in one run, on the same noise (``benchmarks/noise.py``), with the same counters and changes:

- ours: the bank of tests of ``gateway.core.delivery`` with its thresholds, all multiplied by one factor;
- cumulative: delivered by expected since the start against a limit, from 30 min on; the fault comes after 6
  h;
- windows: the mean flow over 2, 5, 11, 19 and 31 min, a limit for each;
- told: the best single CUSUM for the shift at hand. It is told what no detector can know.

The factor and the limits are such that each detector alarms once a pump-year where a pump without a fault is
worst: at the edge of the tolerance, lower and upper, 20 pump-years a setting on both sides. From there it
loses or gains flow, half of the changes each, at any moment. The delay is the time from the change to the
reading that finds it, over all changes of a row.

Prints a table (Markdown) and a summary, and writes ``detection.json`` and ``detection.svg``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from benchmarks.changes import LONGEST_H, Asked, delays_s
from benchmarks.detection_plot import plot
from benchmarks.detection_rows import Delay, Row, summary, table
from benchmarks.detectors import Cumulative, Cusums, Detector, TrumpetWindows
from benchmarks.fault_free import PUMPS, common_factor, equal_shares, highest
from benchmarks.noise import Noise, Volumes
from benchmarks.progress import Progress
from benchmarks.settings import COUNTERS_ML, SEED, SHIFTS, STROKES_ML, TOLERANCES, Setting
from gateway.core.delivery import REFERENCES, thresholds_ml

TOLD_REFERENCES = tuple(sorted({*REFERENCES, 0.015, 0.055, 0.11, 0.22, 0.45}))
"""Of which the best for a shift is taken; so close to each other that none between them would be better."""
HIDDEN_H = 6.0
"""A detector that forgets finds in so many hours what it ever finds."""


class Contender(Struct, frozen=True):
    """A detector that is compared."""

    make: Callable[[Setting, int], Detector]
    """For a setting and so many pumps."""
    match: Callable[[Volumes, Setting, int], NDArray[np.float64]]
    """Thresholds at which so many pumps alarm, from the peaks without a fault."""
    until_h: float = HIDDEN_H
    told: bool = False
    """Its statistics are detectors of their own, of which the best counts."""


def _ours(peaks: Volumes, setting: Setting, alarms: int) -> NDArray[np.float64]:
    thresholds = np.array(thresholds_ml(setting.noise.rate_ml_h, setting.pump, setting.poll_ms))
    return thresholds * common_factor(peaks, thresholds, alarms)


def _each_alone(peaks: Volumes, setting: Setting, alarms: int) -> NDArray[np.float64]:
    return np.sort(peaks.max(axis=0), axis=1)[:, -1 - alarms].astype(float)


def _equal(peaks: Volumes, setting: Setting, alarms: int) -> NDArray[np.float64]:
    return equal_shares(peaks, alarms)


CONTENDERS = {
    "ours": Contender(lambda setting, pumps: Cusums(REFERENCES, setting.tolerance, pumps), _ours),
    "cumulative": Contender(
        lambda setting, pumps: Cumulative(setting.noise.poll_s, pumps), _each_alone, until_h=LONGEST_H
    ),
    "windows": Contender(
        lambda setting, pumps: TrumpetWindows(setting.noise.poll_s, setting.tolerance, pumps), _equal
    ),
    "told": Contender(
        lambda setting, pumps: Cusums(TOLD_REFERENCES, setting.tolerance, pumps), _each_alone, told=True
    ),
}


class Run(Struct, frozen=True):
    """How much is simulated."""

    years: float
    """Pump-years without a fault for each setting."""
    changes: int
    """Changes for each row, half of them losses."""
    seed: int


def measure(run: Run, rates_ml_h: tuple[float, ...] = tuple(STROKES_ML)) -> list[Row]:
    """All rows of the table."""
    rows: list[Row] = []
    progress = Progress(2 * len(rates_ml_h))
    for rate_ml_h in rates_ml_h:
        noise = Noise(rate_ml_h=rate_ml_h, stroke_ml=STROKES_ML[rate_ml_h])
        settings = [
            Setting(noise=noise, counter_ml=counter_ml, tolerance=tolerance)
            for tolerance in TOLERANCES
            for counter_ml in COUNTERS_ML
        ]
        thresholds = _matched(noise, settings, run, progress.tick)
        progress.part_done()
        for number, setting in enumerate(settings):
            rows += _rows(setting, thresholds[number], run)
            progress.tick((number + 1) / len(settings))
        progress.part_done()
    return rows


def _generator(run: Run, rate_ml_h: float, what: int) -> np.random.Generator:
    return np.random.Generator(np.random.SFC64([run.seed, round(rate_ml_h * 10), what]))


def _matched(
    noise: Noise, settings: list[Setting], run: Run, tick: Callable[[float], None]
) -> list[dict[str, NDArray[np.float64]]]:
    """For each setting the thresholds of each contender."""
    alone = {
        name: each for name, each in CONTENDERS.items() if name != "ours"
    }  # ours is some of told's tests
    tested = [(one, [each.make(one, PUMPS) for each in alone.values()]) for one in settings]
    generator = _generator(run, noise.rate_ml_h, 0)
    found = highest(noise, tested, years=run.years, generator=generator, tick=tick)
    matched = []
    for setting, each in zip(settings, found, strict=True):
        peaks = dict(zip(alone, each, strict=True))
        peaks["ours"] = peaks["told"][:, [TOLD_REFERENCES.index(reference) for reference in REFERENCES]]
        matched.append(
            {
                name: contender.match(peaks[name], setting, round(run.years))
                for name, contender in CONTENDERS.items()
            }
        )
    return matched


def _rows(setting: Setting, thresholds: dict[str, NDArray[np.float64]], run: Run) -> list[Row]:
    shifts = [shift for shift in SHIFTS if shift > setting.tolerance]
    found_s = delays_s(
        setting,
        shifts,
        run.changes // 2,
        lambda pumps: [
            Asked(each.make(setting, pumps), thresholds[name], each.until_h)
            for name, each in CONTENDERS.items()
        ],
        _generator(run, setting.noise.rate_ml_h, 1),
    )
    rows = []
    for index, shift in enumerate(shifts):
        delays = {}
        for (name, contender), found in zip(CONTENDERS.items(), found_s, strict=True):
            of_shift_s = found[:, :, index]
            if contender.told:
                best = of_shift_s.mean(axis=(0, 2)).argmin()
                delays[name] = Delay.of(of_shift_s[:, best].ravel())
            else:
                delays[name] = Delay.of(of_shift_s.min(axis=1).ravel())
        rows.append(
            Row(
                rate_ml_h=setting.noise.rate_ml_h,
                counter_ml=setting.counter_ml,
                tolerance=setting.tolerance,
                shift=shift,
                delays=delays,
            )
        )
    return rows


def main() -> int:
    """Measure, print, and write what has been measured."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--years", type=float, default=20, help="pump-years without a fault a setting (20)")
    parser.add_argument("--changes", type=int, default=800, help="changes a row, half of them losses (800)")
    parser.add_argument("--seed", type=int, default=SEED, help=f"({SEED})")
    parser.add_argument("--into", type=Path, default=Path("docs"), help="folder for json and picture (docs)")
    arguments = parser.parse_args()
    run = Run(years=arguments.years, changes=arguments.changes, seed=arguments.seed)
    rows = measure(run)
    result = {"benchmark": "detection", **msgspec.to_builtins(run), "ratio_to_told": summary(rows)}
    sys.stdout.write(f"{table(rows)}\n{msgspec.json.encode(result).decode()}\n")
    text = msgspec.json.format(msgspec.json.encode({**result, "rows": rows}), indent=1)
    (arguments.into / "detection.json").write_bytes(text + b"\n")
    plot(rows, arguments.into / "detection.svg")
    return 0


if __name__ == "__main__":
    sys.exit(main())
