"""What a gateway takes of its machine: memory and processor, against the least that it could be made of.

*Memory*: four pumps read each second for a simulated day, in a process of its own, once with a collector and
once with nobody there; against a Python that has imported numpy, paho, pyserial and sqlite3, in the same run.
What the kernel says is resident, after two hours and at the end. *Processor*: a real gateway with four
simulated pumps on pseudo-terminals, each read once a second, and a real Mosquitto. ``make bench-resources``.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import msgspec

import gateway.app  # noqa: F401  # all that a gateway imports, and nothing else that is not needed here
from benchmarks.days import Days, Receipts

ROOT = Path(__file__).parents[1]
PUMPS = 4
POLL_MS = 1_000
TWO_HOURS_S = 2 * 3_600.0
DAY_S = 24 * 3_600.0
TIMES_THE_BASE = 1.35
GROWTH = 1.05
"""What an allocator may still find to keep after two hours."""
SHARE = 0.03
_BASE = (
    "import numpy, paho.mqtt.client, serial, sqlite3, pathlib;"
    "print(pathlib.Path('/proc/self/status').read_text().split('VmRSS:')[1].split()[0])"
)


def resident_kb() -> int:
    """What this process has in memory."""
    return int(Path("/proc/self/status").read_text().split("VmRSS:")[1].split()[0])


def a_day(connected: bool) -> None:
    """Prints what is resident after two hours and after a day."""
    with tempfile.TemporaryDirectory(prefix="dripwatch-memory-") as name:
        days = Days(Path(name), pumps=PUMPS, poll_ms=POLL_MS)
        if connected:
            days.arrives = Receipts(days).arrived
            days.connect()
        days.pass_time(TWO_HOURS_S)
        early_kb = resident_kb()
        days.pass_time(DAY_S - TWO_HOURS_S)
        print(early_kb, resident_kb(), flush=True)


def main() -> int:
    """Print the results as JSON; 1 if a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--a-day", choices=("online", "offline"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.a_day:
        a_day(options.a_day == "online")
        return 0
    from benchmarks.reading_pumps import share_of_a_core
    from tests.live.broker import Mosquitto

    base_kb = int(
        subprocess.run([sys.executable, "-c", _BASE], capture_output=True, text=True, check=True).stdout
    )
    with ExitStack() as ends:
        folder = Path(ends.enter_context(tempfile.TemporaryDirectory(prefix="dripwatch-bench-")))
        broker = Mosquitto(folder / "mosquitto")
        ends.callback(broker.kill)
        broker.start()
        tables = f'[mqtt]\nhost = "127.0.0.1"\nport = {broker.port}\ncollector = ""\n'
        share = share_of_a_core(folder, PUMPS, tables)
    result: dict[str, float | str] = {
        "benchmark": "resources",
        "processor_share": round(share, 4),
        "processor_share_allowed": SHARE,
        "base_mb": round(base_kb / 1e3, 1),
        "memory_allowed": TIMES_THE_BASE,
        "growth_allowed": GROWTH,
    }
    good = share <= SHARE
    # Side by side: it is memory that is measured.
    command = [sys.executable, "-m", "benchmarks.resources", "--a-day"]
    runs = {
        how: subprocess.Popen([*command, how], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        for how in ("online", "offline")
    }
    for how, run in runs.items():
        early_kb, late_kb = map(int, run.communicate()[0].split())
        result[f"{how}_memory_ratio"] = round(late_kb / base_kb, 3)
        result[f"{how}_growth_after_two_hours"] = round(late_kb / early_kb, 3)
        good = good and late_kb <= TIMES_THE_BASE * base_kb and late_kb <= GROWTH * early_kb
    sys.stdout.write(msgspec.json.encode(result).decode() + "\n")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
