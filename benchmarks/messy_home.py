"""How much noise would a nurse hear, and what would be missed? ``make noise DAYS=1000``.

Ordinary, fault-free days of all regimens, with all that happens in a home (``home_life.py``), and the same
days with one true fault each. Printed: alerts a patient-day by kind and therapy, those that nothing called
for, and the faults that were not told in time. ``--clean``: days on which nothing happens at all, for which
the goal is no alert. All of it from one seed.
"""

from __future__ import annotations

import argparse
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial

from benchmarks.home_life import Day, messy_day, quiet_day, with_a_true_fault
from benchmarks.progress import Progress
from simulator.scenario import regimen_names
from tests.regimens.bedside import alerts_of
from tests.regimens.cells import DAY

FALSE_A_DAY = 0.02
"""At most so many alerts a patient-day may be false."""


@dataclass(frozen=True)
class Lived:
    """What was told of one day."""

    number: int
    therapy: str
    days: float
    rows: tuple[str, ...]
    kinds: tuple[str, ...]
    """All that was told."""
    false: tuple[str, ...]
    """What nothing called for: regimen, time, kind, words."""
    fault: str | None = None
    found: bool = False


def poll_of(day: Day, ordered: bool) -> int:
    """How often the pump is read: as ordered, or more slowly where the regimen bears it."""
    patient = day.patient
    if ordered or patient.order.demand is not None:
        return patient.poll_ms
    # a few answers that are lost in a row are no silence yet
    return max(patient.poll_ms, min(patient.slow_poll_ms(), patient.order.limits.no_data_after_ms // 6))


def live(number: int, *, seed: int, ordered_poll: bool, clean: bool) -> Lived:
    """One day, as it is lived."""
    if clean:
        names = regimen_names()
        day = quiet_day(names[number % len(names)], random.Random(f"{seed} clean {number}"))
    else:
        day = messy_day(seed, number)
    return told_of(day, number, seed, poll_of(day, ordered_poll))


def live_with_a_fault(number: int, *, seed: int, ordered_poll: bool) -> Lived | None:
    """The same day with one true fault; ``None`` where the day has no room for one."""
    day = messy_day(seed, number)
    poll_ms = poll_of(day, ordered_poll)
    fault = with_a_true_fault(day, poll_ms, random.Random(f"{seed} fault {number}"))
    if fault is None:
        return None
    alerts = alerts_of(day.bedside(poll_ms, number).watched())
    found = any(one.kind in fault.kinds and fault.at_ms <= one.at_s * 1000 <= fault.by_ms for one in alerts)
    return Lived(
        number=number,
        therapy=therapy_of(day),
        days=0.0,
        rows=tuple(day.rows),
        kinds=(),
        false=(),
        fault=fault.name,
        found=found,
    )


def told_of(day: Day, number: int, seed: int, poll_ms: int) -> Lived:
    """What was told of a day, and what of it nothing had called for."""
    alerts = alerts_of(day.bedside(poll_ms, seed * 100_000 + number).watched())
    return Lived(
        number=number,
        therapy=therapy_of(day),
        days=(day.until_ms - day.from_ms) / DAY,
        rows=tuple(day.rows),
        kinds=tuple(one.kind for one in alerts),
        false=tuple(f"{day.patient.regimen} {one}" for one in alerts if not day.is_called_for(one)),
    )


def therapy_of(day: Day) -> str:
    """The therapy that the order names."""
    return day.patient.order.schedule.therapy or "-"


def with_progress(lived: Iterator[Lived | None], total: int) -> list[Lived]:
    """All of them, with a bar on standard error where somebody looks."""
    progress = Progress(total)
    done: list[Lived] = []
    for one in lived:
        progress.part_done()
        if one is not None:
            done.append(one)
    return done


def table(lived: Sequence[Lived]) -> Iterator[str]:
    """Alerts a patient-day, by kind and therapy."""
    days = sum(one.days for one in lived)
    kinds = Counter(kind for one in lived for kind in one.kinds)
    therapies = sorted({one.therapy for one in lived})
    days_of = {name: sum(one.days for one in lived if one.therapy == name) for name in therapies}
    head = "".join(f"{name:>13}" for name in therapies)
    yield f"{'alerts a patient-day':28}{'all':>8}{head}"
    for kind, number in kinds.most_common():
        cells = "".join(
            f"{sum(one.kinds.count(kind) for one in lived if one.therapy == name) / days_of[name]:13.3f}"
            for name in therapies
        )
        yield f"{kind:28}{number / days:8.3f}{cells}"
    cells = "".join(f"{days_of[name]:13.1f}" for name in therapies)
    yield f"{'patient-days':28}{days:8.1f}{cells}"


def report(lived: Sequence[Lived], seed: int) -> Iterator[str]:
    """What is to be said of the days without a fault."""
    days = sum(one.days for one in lived)
    false = [(one, words) for one in lived for words in one.false]
    yield from table(lived)
    yield ""
    rate = f"{len(false) / days:.4f} a day (at most {FALSE_A_DAY})"
    yield f"false: {len(false)} in {days:.1f} patient-days, {rate}; seed {seed}"
    for one, words in false[:40]:
        yield f"  day {one.number} ({', '.join(one.rows) or 'nothing happened'}): {words}"


def missed(lived: Sequence[Lived], days: int) -> Iterator[str]:
    """What is to be said of the days with a fault."""
    late = [one for one in lived if not one.found]
    no_room = f"{days - len(lived)} days had no room for one"
    yield f"missed: {len(late)} of {len(lived)} true faults not told in time ({no_room})"
    names = Counter(one.fault for one in lived)
    for name, number in sorted(names.items(), key=str):
        bad = [one for one in late if one.fault == name]
        where = f": days {', '.join(str(one.number) for one in bad[:10])}" if bad else ""
        yield f"  {name!s:24}{len(bad):4} of {number}{where}"


def main(arguments: Sequence[str] | None = None) -> int:
    """0 if the goals are met, 1 if not."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.messy_home", description=__doc__)
    parser.add_argument("--days", type=int, default=200, help="patient-days (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2, help="processes (default: %(default)s)")
    parser.add_argument("--clean", action="store_true", help="nothing happens on any day; the goal is 0")
    parser.add_argument("--ordered-poll", action="store_true", help="read each pump as often as is ordered")
    asked = parser.parse_args(arguments)
    numbers = range(asked.days)
    alive = partial(live, seed=asked.seed, ordered_poll=asked.ordered_poll, clean=asked.clean)
    with ProcessPoolExecutor(asked.jobs) as pool:
        lived = with_progress(pool.map(alive, numbers, chunksize=4), asked.days)
        faulty: list[Lived] = []
        if not asked.clean:
            harmed = partial(live_with_a_fault, seed=asked.seed, ordered_poll=asked.ordered_poll)
            faulty = with_progress(pool.map(harmed, numbers, chunksize=4), asked.days)
    print("\n".join(report(lived, asked.seed)))
    if not asked.clean:
        print("\n".join(["", *missed(faulty, asked.days)]))
    false = sum(len(one.false) for one in lived)
    allowed = 0.0 if asked.clean else FALSE_A_DAY * sum(one.days for one in lived)
    return 0 if false <= allowed and all(one.found for one in faulty) else 1


if __name__ == "__main__":
    raise SystemExit(main())
