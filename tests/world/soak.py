"""Many seeds of the fake world: ``python -m tests.world.soak --seeds N``, or ``make soak SEEDS=N``.

Each seed is one home for a simulated day, every tenth for a week: pumps, people and a timetable of mishaps,
all drawn from the seed (draw.py). The promises are watched all the while, and what is owed is asked at the
end. Exit 1 with, for each seed that failed: its number, the last that the gateway was told, and the broken
promise in words. The same seed gives the same log.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from pathlib import Path

from benchmarks.progress import Progress
from gateway.inputs import BytesArrived, FromBroker, Input
from tests.world.draw import DAY, Drawn, draw
from tests.world.promises import BEGINS, Broken
from tests.world.world import World

MEMORY = Path("/dev/shm")
"""Where a folder costs no disk, if the machine has it."""


@dataclass(frozen=True, kw_only=True)
class Lived:
    """What became of one seed."""

    seed: int
    days: float
    faults: Counter[str] = field(default_factory=Counter)
    told: Counter[str] = field(default_factory=Counter)
    readings: int = 0
    cpu_s: float = 0.0
    log: str = ""
    """A digest of all that the gateway did."""
    failed: str = ""
    """Which promise was broken, or what is owed; empty: all were kept."""
    last: str = ""
    """The last inputs of a gateway that failed."""


def live(seed: int, hours: float | None = None) -> Lived:
    """One seed, from its beginning to its end (``draw``)."""
    began_s = time.process_time()
    drawn = draw(seed, hours)
    length_ms = drawn.length_ms
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
        world: World | None = None
        failed = ""
        try:
            world = drawn.world(Path(folder))
            world.run_for(length_ms / 1000)
            failed = "\n".join(world.promises.owed())
        except Broken as broken:
            failed = str(broken)
        except Exception:
            failed = f"the code broke: {traceback.format_exc()}"
        finally:
            if world is not None:
                world.close()
    return Lived(
        seed=seed,
        days=length_ms / DAY,
        faults=Counter([*(one.kind for one in drawn.mishaps), *(one.words for one in drawn.deviations)]),
        told=Counter(alert.kind.value for _, alert in world.promises.told if alert.reason in BEGINS)
        if world
        else Counter(),
        readings=len(world.promises.readings) if world else 0,
        cpu_s=time.process_time() - began_s,
        log=digest(world) if world else "",
        failed=failed,
        last=in_words(drawn, world) if failed and world is not None else "",
    )


def digest(world: World) -> str:
    """One word for all that happened: the same for the same seed."""
    said = [
        (at_ms, alert.kind, alert.rev, alert.reason, alert.pump, alert.message)
        for at_ms, alert in world.promises.told
    ]
    taken = sorted(world.promises.readings.items())
    state = (said, taken, world.home.commits, world.effect_boundaries, world.now_ms)
    return sha256(repr(state).encode()).hexdigest()


def in_words(drawn: Drawn, world: World) -> str:
    """What went before a failure."""
    near = [
        str(one)
        for one in drawn.mishaps
        if one.at_ms <= world.now_ms and one.until_ms >= world.now_ms - 3_600_000
    ]
    last = [f"{at_ms / 1000:10.3f} s: {_said(happened)}" for at_ms, happened in world.last]
    pumps = [f"{bed.pump}: {bed.scenario.name}, read each {bed.poll_ms // 1000} s" for bed in drawn.beds]
    wrong = [
        f"{one.pump}: {one.words} from {one.at_ms / 1000} s on, to be told by {one.by_ms / 1000} s"
        for one in drawn.deviations
    ]
    return "\n".join(
        [
            "pumps:",
            *pumps,
            *wrong,
            "the last hour's mishaps:",
            *near,
            "the last that the gateway was told:",
            *last,
        ]
    )


def _said(happened: Input) -> str:
    match happened:
        case FromBroker(event=event):
            return f"from the broker: {str(event)[:160]}"
        case BytesArrived(port=port, data=data):
            return f"{port}: {data!r}"
    return type(happened).__name__


def summary(lived: Sequence[Lived]) -> str:
    """What to say of all of them."""
    faults: Counter[str] = sum((one.faults for one in lived), Counter())
    told: Counter[str] = sum((one.told for one in lived), Counter())
    days = sum(one.days for one in lived)
    cpu_s = sum(one.cpu_s for one in lived)
    failed = [one.seed for one in lived if one.failed]
    lines = [
        f"{len(lived)} seeds, {days:.0f} simulated days, {sum(one.readings for one in lived)} readings,"
        f" {cpu_s / days:.1f} s of processor a day",
        "what went wrong: " + ", ".join(f"{kind} {number}" for kind, number in faults.most_common()),
        "what was told: " + ", ".join(f"{kind} {number}" for kind, number in told.most_common()),
        f"seeds failed: {', '.join(map(str, failed))}" if failed else "all promises kept",
    ]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """0 if all promises were kept, 1 if not."""
    parser = argparse.ArgumentParser(prog="python -m tests.world.soak", description=__doc__)
    parser.add_argument("--seeds", type=int, default=20, help="how many (default: %(default)s)")
    parser.add_argument("--first", type=int, default=1, help="the first of them (default: %(default)s)")
    parser.add_argument("--processes", type=int, default=2, help="(default: %(default)s)")
    parser.add_argument("--hours", type=float, help="so many in the place of days, with the faults of a day")
    asked = parser.parse_args(arguments)
    seeds = range(asked.first, asked.first + asked.seeds)
    progress = Progress(asked.seeds)
    lived: list[Lived] = []
    with ProcessPoolExecutor(asked.processes) as pool:
        for one in pool.map(partial(live, hours=asked.hours), seeds):
            progress.part_done()
            lived.append(one)
            if one.failed:
                print(f"seed {one.seed}: {one.failed}\n{one.last}\n", flush=True)
    print(summary(lived))
    return 1 if any(one.failed for one in lived) else 0


if __name__ == "__main__":
    sys.exit(main())
