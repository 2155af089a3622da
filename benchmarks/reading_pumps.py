"""What it costs to read pumps. ``make bench-pumps``.

*A polled reading*: processor time of a client for rate and volume of one pump, over a pseudo-terminal, ours
against infupy's, which others wrote for the same pumps, in one run. *Sixteen pumps*: the share of one core
that a real gateway takes for sixteen simulated pumps, each read once a second and judged against its order.

Each client is a process of its own; what it takes to start is measured by a short run, and taken off.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from benchmarks.progress import Progress
from drivers import families
from drivers.family import PumpOnLine
from drivers.link import open_link
from drivers.reading import Reading
from simulator.process import simulated_pump

ROOT = Path(__file__).parents[1]
POLL_MS = 1
"""As often as the pump answers, both: so nobody's waiting is measured."""
READ_FOR_S = 0.5
READINGS = 300
BEST_OF = 3
SIXTEEN = 16
WATCHED_S = 40.0
SETTLED_S = 10.0
A_FIFTH = 0.2
SHARE = 0.08


def ours(family: str, port: str, readings: int) -> None:
    """Read through our driver, as the gateway does."""
    found = families.find(family)
    session = found.open_session([PumpOnLine(pump="p", poll_ms=POLL_MS)])
    link = open_link(port, found.line)
    session.opened(time.monotonic_ns() // 1_000_000)
    got = 0
    while got < readings:
        now_ms = time.monotonic_ns() // 1_000_000
        asked = session.due(now_ms)
        if asked:
            link.write(asked)
        heard = link.read(READ_FOR_S)  # always as long: pyserial sets the whole port anew for another time
        for fact in session.receive(heard, time.monotonic_ns() // 1_000_000):
            got += isinstance(fact, Reading) and fact.volume_ml is not None


def infupys(family: str, port: str, readings: int) -> None:
    """Read through infupy, as its own monitor does: rate, then volume."""
    if family == "alaris":
        from infupy.backends.alaris import AlarisComm, AlarisSyringe

        syringe = AlarisSyringe(AlarisComm(port))
        syringe.stopKeepAlive()
    else:
        from infupy.backends.fresenius import FreseniusComm, FreseniusSyringe

        syringe = FreseniusSyringe(FreseniusComm(port), "")
    for _ in range(readings):
        syringe.readRate()
        syringe.readVolume()


def client(whose: str, family: str, port: str, readings: int) -> None:
    """One client; prints the processor time in s that it has taken."""
    (ours if whose == "ours" else infupys)(family, port, readings)
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(used.ru_utime + used.ru_stime, flush=True)
    os._exit(0)  # infupy's threads outlive its port


def cost_s(whose: str, family: str, folder: Path) -> float:
    """Processor time in s for one reading."""
    taken: list[float] = []
    for number, readings in enumerate((READINGS // 10, READINGS)):
        link = folder / f"{whose}-{family}-{number}"
        with simulated_pump(family, "--link", link):
            command = [sys.executable, "-m", "benchmarks.reading_pumps", "--client", whose, family, str(link)]
            done = subprocess.run(
                [*command, str(readings)], cwd=ROOT, capture_output=True, text=True, timeout=300, check=True
            )
        taken.append(float(done.stdout.split()[-1]))
    return (taken[1] - taken[0]) / (READINGS - READINGS // 10)


def share_of_a_core(folder: Path, pumps: int = SIXTEEN, tables: str = "") -> float:
    """What part of one core a gateway with so many pumps takes; ``tables`` end its configuration."""
    order = subprocess.run(
        [sys.executable, "-m", "simulator", "scenarios", "steady", "--prescription"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    (folder / "rx.toml").write_text(order)
    config = 'format = "dripwatch-gateway/1"\nhome = "h-bench"\nstate_dir = "state"\nclock_trusted = true\n'
    with ExitStack() as stack:
        for number in range(pumps):
            link = folder / f"pump-{number}"
            log = folder / f"log-{number}"
            stack.enter_context(simulated_pump("alaris", "--link", link, "--seed", str(number), "--log", log))
            config += (
                f'[[pump]]\nid = "p{number}"\nfamily = "alaris"\nport = "{link}"\norigin = "test"\n'
                'poll = "1s"\nprescription = "rx.toml"\n'
            )
        (folder / "gateway.toml").write_text(config + tables)
        gateway = subprocess.Popen(
            [sys.executable, "-m", "gateway", "run", "--config", str(folder / "gateway.toml")],
            cwd=ROOT,
            stderr=subprocess.DEVNULL,
        )
        try:
            time.sleep(SETTLED_S)
            before_s, answered = _processor_s(gateway.pid), _answered(folder)
            time.sleep(WATCHED_S)
            share = (_processor_s(gateway.pid) - before_s) / WATCHED_S
            assert gateway.poll() is None, "the gateway has ended"
            read = (_answered(folder) - answered) / (pumps * WATCHED_S)
            assert 0.9 < read < 1.2, f"each pump was read {read:.2f} times a second"
            return share
        finally:
            gateway.terminate()
            gateway.wait()


def _answered(folder: Path) -> int:
    """How often all simulated pumps have said how the infusion stands."""
    return sum(log.read_text(encoding="utf-8").count('"request":"INF"') for log in folder.glob("log-*"))


def _processor_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> int:
    """0 if the goals are met, 1 if not."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reading_pumps", description=__doc__)
    parser.add_argument("--client", nargs=4, metavar=("WHOSE", "FAMILY", "PORT", "READINGS"))
    asked = parser.parse_args()
    if asked.client:
        whose, family, port, readings = asked.client
        client(whose, family, port, int(readings))
    good = True
    progress = Progress(2 * 2 * BEST_OF + 1)

    def costs_s(whose: str, family: str, folder: Path) -> float:
        cost = cost_s(whose, family, folder)
        progress.part_done()
        return cost

    with tempfile.TemporaryDirectory() as name:
        for family in ("alaris", "fresenius"):
            one, other = (
                min(costs_s(whose, family, Path(name)) for _ in range(BEST_OF))
                for whose in ("ours", "infupy")
            )
            good = good and one / other <= A_FIFTH
            print(
                f"{family:10} {one * 1e6:6.0f} us a reading; infupy {other * 1e6:6.0f} us;"
                f" ratio {one / other:.3f} (at most {A_FIFTH})"
            )
        share = share_of_a_core(Path(name))
        progress.part_done()
        print(f"sixteen pumps at one reading a second: {share:.1%} of one core (less than {SHARE:.0%})")
    return 0 if good and share < SHARE else 1


if __name__ == "__main__":
    raise SystemExit(main())
