"""Seven days without the broker, and then it is back: how fast the backlog goes. ``make bench-spool``.

One pump read each 5 s, in virtual time through the real engine onto a real file. Then the broker is there,
and with it the desk and the database of the real dashboard, which stores and receipts as fast as it can; that
is measured by the wall clock. All in one process and one thread: the broker between them costs nothing here,
and gives nothing.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import msgspec

from alerts import wire
from alerts.dashboard.clock import Clock
from alerts.dashboard.desk import Desk
from alerts.dashboard.store import Store as CollectorStore
from alerts.mqtt import BrokerConfirmed, BrokerConnected, BrokerMessage
from alerts.sink import Lane, Message
from benchmarks.days import COLLECTOR, Days
from benchmarks.progress import Progress
from gateway.inputs import Tick

ROOT = Path(__file__).parents[1]
OFFLINE_S = 7 * 24 * 3_600.0
POLL_MS = 5_000
TIMES_FASTER = 5_000.0
PATIENCE_S = 300.0


class Collector:
    """The real desk with its real database, on the other side."""

    def __init__(self, days: Days, folder: Path) -> None:
        self._days = days
        self.points: list[wire.TelemetryPoint] = []
        self.first_of_lane: dict[Lane, int] = {}
        self.last_of_lane: dict[Lane, int] = {}
        self.not_historical = 0
        self._arrived = 0
        self.desk = Desk(
            collector_name=COLLECTOR, store=CollectorStore(f"sqlite:///{folder / 'd.sqlite'}"), clock=Clock()
        )
        self.desk.connect(self)
        self.desk.deliver(BrokerConnected(session_present=False, maximum_packet_size=None))
        self.desk.turn()

    def arrived(self, message: Message) -> None:
        """The gateway has said something."""
        self.desk.deliver(
            BrokerMessage(topic=message.topic, payload=message.payload, retain=False, qos=message.qos)
        )
        if message.lane is None:
            return
        self._arrived += 1
        self.first_of_lane.setdefault(message.lane, self._arrived)
        self.last_of_lane[message.lane] = self._arrived
        if message.lane is Lane.TELEMETRY:
            batch = wire.decode(message.payload, wire.Telemetry)
            self.points.extend(batch.points)
            self.not_historical += not batch.historical

    def send(self, message: Message, token: int) -> None:
        """The desk says something."""
        self._days.hear_from_the_nurses(message.topic, message.payload)
        self.desk.deliver(BrokerConfirmed(token=token, reason_code=0))


def main() -> int:
    """Print the result as JSON; 1 if the backlog goes too slowly, or not as it should."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    progress = Progress(1)
    with tempfile.TemporaryDirectory(prefix="dripwatch-spool-", dir=ROOT) as name:
        days = Days(Path(name), pumps=1, poll_ms=POLL_MS)
        days.pass_time(OFFLINE_S, progress.tick)
        progress.part_done()
        collector = Collector(days, Path(name))
        days.arrives = collector.arrived
        began = time.perf_counter()
        days.connect()
        while not days.lane_is_empty(Lane.TELEMETRY) and time.perf_counter() - began < PATIENCE_S:
            collector.desk.turn()
            days.now_ms += 1
            days.put(Tick(moment=days.moment()))
        took_s = time.perf_counter() - began
    expected = round(OFFLINE_S * 1_000 / POLL_MS)
    uptimes = [point.uptime_s for point in collector.points]
    in_order = uptimes == sorted(set(uptimes))
    complete = len(uptimes) == expected
    result = {
        "benchmark": "spool",
        "points": len(uptimes),
        "complete_and_in_order": complete and in_order,
        "drained_in_s": round(took_s, 2),
        "points_a_second": round(len(uptimes) / took_s),
        "times_faster_than_it_grew": round(OFFLINE_S / took_s),
        "at_least": TIMES_FASTER,
    }
    sys.stdout.write(msgspec.json.encode(result).decode() + "\n")
    return 0 if complete and in_order and took_s * TIMES_FASTER <= OFFLINE_S else 1


if __name__ == "__main__":
    sys.exit(main())
