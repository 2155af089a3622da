"""What a day costs the memory card: bytes written and syncs. ``make bench-card``.

One pump read each 5 s, a day in virtual time through the real engine onto a real file, in a process of its
own: what the kernel has counted for it (``write_bytes`` in /proc/PID/io) after the last sync. Once with the
broker and a collector that receipts, and once with nobody there; the same with a history beside it, whose
server answers or does not. Each with an hour's start taken off.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import msgspec

from benchmarks.days import Days, Receipts

ROOT = Path(__file__).parents[1]
DAY_S = 24 * 3_600.0
POLL_MS = 5_000
MB_A_DAY = 60.0
CASES = ("online", "offline", "online_history", "offline_history")


def written_bytes() -> int:
    """What this process has had written to disks so far."""
    os.sync()
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(dict(line.split(": ", 1) for line in lines)["write_bytes"])


def a_day(connected: bool, history: bool) -> None:
    """Prints bytes and commits of one day."""
    with tempfile.TemporaryDirectory(prefix="dripwatch-card-", dir=ROOT) as name:
        days = Days(Path(name), pumps=1, poll_ms=POLL_MS, history=history)
        days.history_answers = connected
        if connected:
            days.arrives = Receipts(days).arrived
            days.connect()
        days.pass_time(3_600)
        bytes_before, commits_before = written_bytes(), days.commits
        days.pass_time(DAY_S)
        print(written_bytes() - bytes_before, days.commits - commits_before, flush=True)


def main() -> int:
    """Print the results as JSON; 1 if a day writes more than is kind."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--a-day", choices=CASES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.a_day:
        a_day("online" in options.a_day, "history" in options.a_day)
        return 0
    result: dict[str, float | str] = {"benchmark": "card", "allowed_mb_a_day": MB_A_DAY}
    kind = True
    for how in CASES:
        command = [sys.executable, "-m", "benchmarks.card", "--a-day", how]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        written, commits = map(int, done.stdout.split())
        result[f"{how}_mb_a_day"] = round(written / 1e6, 1)
        result[f"{how}_commits_a_day"] = commits
        kind = kind and 0 < written <= MB_A_DAY * 1e6
    sys.stdout.write(msgspec.json.encode(result).decode() + "\n")
    return 0 if kind else 1


if __name__ == "__main__":
    sys.exit(main())
