"""What a reading costs: live, and in a replay of a year. ``make bench-cost``.

Each is compared in one run with the least that anybody would have to do. *Live*: a reading through the whole
core, ordinary ones of a pump that runs, against a plain loop of 14 CUSUMs plus the parsing of one CSV row.
*Replay*: a year of one pump, 6.3 million rows of eight columns, against a bare ``csv.reader`` pass over the
same file; processor time, best of three. Beside it the most memory that the replay of a tenth and of all of
the year took: it must not grow. Machines are noisy: the ratios are what counts.
"""

from __future__ import annotations

import argparse
import csv
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from benchmarks import pump_year
from gateway.core.monitor import Monitor
from gateway.core.order import parse_order
from gateway.core.timeline import Timeline
from gateway.readings import Row, read_rows

BEST_OF = 3
LIVE_READINGS = 12_000
TESTS = 14
REFERENCES = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.55)
SEED = 20261125


def best_s(run: Callable[[], None]) -> float:
    """The least processor time in s of a few runs."""
    times: list[float] = []
    for _ in range(BEST_OF):
        begun = time.process_time()
        run()
        times.append(time.process_time() - begun)
    return min(times)


def live(lines: list[str]) -> tuple[float, float, float]:
    """Microseconds a reading: the core, a plain loop of 14 CUSUMs, the parsing of a CSV row."""
    order = parse_order(pump_year.ORDER)
    rows = [row for row in read_rows(lines) if isinstance(row, Row)]

    def core() -> None:
        timeline, monitor = Timeline(), Monitor("pump", order)
        for row in rows:
            instant = timeline.at(row.moment)
            assert instant is not None
            monitor.step(instant, row.reading)

    volumes = [row.reading.volume_ml or 0.0 for row in rows]

    def loop() -> None:
        values = [0.0] * TESTS
        alarms = 0
        before_ml = 0.0
        for volume_ml in volumes:
            counted_ml, before_ml = volume_ml - before_ml, volume_ml
            expected_ml = 0.0138889
            for index, reference in enumerate(REFERENCES):
                under_ml = values[index] + expected_ml * (0.9 - reference) - counted_ml
                values[index] = under_ml if under_ml > 0.0 else 0.0
                if under_ml > 0.2:
                    alarms += 1
                over_ml = values[index + 7] + counted_ml - expected_ml * (1.1 + reference)
                values[index + 7] = over_ml if over_ml > 0.0 else 0.0
                if over_ml > 0.2:
                    alarms += 1

    def parse() -> None:
        for cells in csv.reader(lines[1:]):
            datetime.fromisoformat(cells[0])
            for cell in (*cells[2:6], cells[7]):
                if cell:
                    float(cell)

    count = len(rows)
    return best_s(core) / count * 1e6, best_s(loop) / count * 1e6, best_s(parse) / count * 1e6


def bare_pass(path: Path) -> None:
    """What reading a CSV file costs at least."""
    with path.open(newline="", encoding="utf-8") as file:
        for _ in csv.reader(file):
            pass


def replay(order: Path, readings: Path) -> tuple[float, float]:
    """Processor time in s and most memory in MB of ``dripwatch replay``, best of a few runs."""
    program = [sys.executable, "-m", "benchmarks.cost", "--replay", str(order), str(readings)]
    runs = []
    for _ in range(BEST_OF):
        done = subprocess.run(program, check=True, capture_output=True, text=True)
        seconds, megabytes = done.stdout.split()[-2:]
        runs.append((float(seconds), float(megabytes)))
    return min(seconds for seconds, _ in runs), max(megabytes for _, megabytes in runs)


def _replay_here(order: str, readings: str) -> None:
    from gateway.replay import main as replay_main

    begun = time.process_time()
    status = replay_main([order, readings])
    seconds = time.process_time() - begun
    assert status == 0, "the year can be read"
    most_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"\n{seconds} {most_mb}")


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--days", type=int, default=pump_year.DAYS, help="length of the replay")
    parser.add_argument("--replay", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.replay:
        _replay_here(*arguments.replay)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        order, year, tenth = (Path(folder) / name for name in ("rx.toml", "year.csv", "tenth.csv"))
        order.write_text(pump_year.ORDER, encoding="utf-8")
        _say(f"writing {arguments.days} days of readings")
        rows = pump_year.write(year, days=arguments.days, seed=SEED)
        with year.open(encoding="utf-8") as file, tenth.open("w", encoding="utf-8") as part:
            lines = [file.readline() for _ in range(LIVE_READINGS + 1)]
            part.writelines(lines)
            for _ in range(rows // 10 - LIVE_READINGS):
                part.write(file.readline())
        _say("live readings")
        core_us, loop_us, parse_us = live(lines)
        _say("the year")
        bare_s = best_s(lambda: bare_pass(year))
        year_s, year_mb = replay(order, year)
        _, tenth_mb = replay(order, tenth)
    _say("")
    print(f"seed {SEED}, {rows} rows, Python {sys.version.split()[0]}; best of {BEST_OF}")
    print(
        f"live reading:  {core_us:.2f} us in the core; 14 CUSUMs {loop_us:.2f} us + a CSV row"
        f" {parse_us:.2f} us; ratio {core_us / (loop_us + parse_us):.2f} (at most 1.5)"
    )
    print(
        f"replay:        {year_s:.1f} s of processor time ({year_s / rows * 1e6:.2f} us a row);"
        f" a bare csv.reader pass {bare_s:.1f} s; ratio {year_s / bare_s:.2f} (at most 4)"
    )
    print(f"memory:        {year_mb:.0f} MB; for a tenth {tenth_mb:.0f} MB; ratio {year_mb / tenth_mb:.2f}")
    return 0


def _say(words: str) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\033[K{words}{' ...' if words else ''}")
        sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
