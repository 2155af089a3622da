"""A year of one pump as readings.csv: a day's bag each day at 10 mL/h, read every 5 seconds.

Each day the bag is changed: the pump is paused for two to six minutes and its counter reset. Now and then
somebody pauses it. The noise is that of the pump model that the tests of the core use: calibration, strokes,
ripple, whole counts, polls that are not quite on time.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

START = np.datetime64("2026-01-01T06:00:00.000")
DAYS = 365
POLL_S = 5.0
RATE_ML_H = 10.0
COUNTER_ML = 0.01
STROKE_VARIANCE_ML = 1.25e-4
HEADER = "time,state,rate_ml_h,volume_ml,vtbi_ml,pressure_mmhg,alarms,uptime_s\n"
ORDER = """
format = "infusion-prescription/1"
[patient]
id = "P-bench"
[drug]
name = "flucloxacillin"
[schedule]
start = 2026-01-01T06:00:00Z
every = "24h"
times = 0
[[schedule.phase]]
rate_ml_h = 10.0
duration = "24h"
[limits]
start_window = "20min"
max_rate_ml_h = 15.0
[pump]
counter_ml = 0.01
ripple_ml = 0.01
"""


def write(path: Path, *, days: int = DAYS, seed: int = 1) -> int:
    """Write the file; the number of readings in it."""
    random = np.random.default_rng(seed)
    rows = 0
    with path.open("w", encoding="utf-8") as file:
        file.write(HEADER)
        for day in range(days):
            lines = _day(day, random)
            file.writelines(lines)
            rows += len(lines)
    return rows


def _day(day: int, random: np.random.Generator) -> list[str]:
    count = round(86_400 / POLL_S)
    at_s = day * 86_400 + np.arange(count) * POLL_S + random.uniform(0, 0.5, count)
    running = np.ones(count, bool)
    running[: round(random.uniform(120, 360) / POLL_S)] = False
    if random.random() < 0.3:
        pause = int(random.integers(count // 4, count // 2))
        running[pause : pause + int(random.integers(12, 100))] = False
    passed_s = np.diff(at_s, prepend=at_s[0])
    flow_ml = RATE_ML_H * (1 + random.uniform(-0.03, 0.03)) * passed_s / 3600 * running
    walk_ml = random.normal(0, np.sqrt(STROKE_VARIANCE_ML * flow_ml))
    ripple_ml = 0.005 * np.sin(2 * np.pi * at_s / 120)
    shown_ml = np.maximum.accumulate(np.cumsum(flow_ml + walk_ml) + ripple_ml * running)
    counts = np.floor(np.maximum(shown_ml, 0) / COUNTER_ML + 1e-9)
    pressure = np.rint(random.normal(50, 2, count)).astype(int)
    times = START + np.rint(at_s * 1000).astype("timedelta64[ms]")
    return [
        f"{time}Z,{'running' if runs else 'paused'},{RATE_ML_H if runs else 0:.2f},"
        f"{volume:.2f},{max(0.0, 240 - volume):.2f},{mmhg},,{up:.3f}\n"
        for time, runs, volume, mmhg, up in zip(
            np.datetime_as_string(times),
            running.tolist(),
            (counts * COUNTER_ML).tolist(),
            pressure.tolist(),
            (at_s + 1000).tolist(),
            strict=True,
        )
    ]
