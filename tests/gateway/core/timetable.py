"""Stories as timetables: what a pump does from which time on, and what people must be told, and when.

    0:00  idle
    0:10  running  rate=10
    1:00  paused

Times are hours:minutes[:seconds] after the prescription's start, negative before it. The pump is read every
five seconds and counts exactly what its rate gives, unless the row says otherwise:

``rate``    what it is set to, mL/h
``flow``    what it really counts, mL/h, if that is something else
``counter`` the counter stands at this from here on (a reset)
``add``     so much is counted at once
``alarms``  codes with semicolons; ``?``: not reported
``vtbi``    volume to be infused
``clock``   ``unsynced``
``step``    the wall clock is set by so many minutes
``boot``    the gateway's machine is started here (``boot=anew``)
``silence`` (in place of a state): no readings
``nocount`` readings without a volume

Where the prescription has a ``[sensor]`` it sees what flows, in its counts, unless the row says otherwise:

``seen``    what the sensor sees, mL/h
``jump``    the sensor shows so much more at once
``blind``   readings without the sensor
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import floor

from msgspec.structs import replace

from alerts.condition import Kind
from drivers.reading import PumpState, Reading
from gateway.core.prescription import Prescription
from gateway.core.timeline import Moment
from tests.gateway.core.pump_days import INFO, START_UTC_MS, Ward

POLL_S = 5
BOOT_MS = 1_000_000_000


@dataclass
class Row:
    at_s: int
    state: str
    options: dict[str, str] = field(default_factory=dict)


def seconds(text: str) -> int:
    """``1:30`` or ``1:30:05`` or ``-0:10`` in seconds."""
    sign = -1 if text.startswith("-") else 1
    parts = [int(part) for part in text.lstrip("-").split(":")]
    return sign * sum(part * unit for part, unit in zip(parts, (3600, 60, 1), strict=False))


def rows_of(table: str) -> list[Row]:
    rows = []
    for line in table.strip().splitlines():
        words = line.split()
        options = {word.partition("=")[0]: word.partition("=")[2] for word in words[2:]}
        rows.append(Row(seconds(words[0]), words[1], options))
    return rows


def live(prescription: Prescription | None, table: str, *, until: str, phase_s: int = 2) -> Ward:
    """The ward after this timetable. ``phase_s``: readings come this long after each full five seconds."""
    ward = Ward(prescription)
    play(ward, table, until=until, phase_s=phase_s)
    return ward


def play(ward: Ward, table: str, *, until: str, phase_s: int = 2) -> None:
    rows = rows_of(table)
    counter_ml = true_ml = seen_ml = 0.0
    sensor = None if ward.prescription is None else ward.prescription.sensor
    step_ms = 0
    booted_s: int | None = None
    now_s = last_s = rows[0].at_s + phase_s
    done: set[int] = set()
    while now_s < seconds(until):
        row = rows[0]
        for index, one in enumerate(rows):
            if one.at_s > now_s:
                break
            flowing_from_s = max(last_s, one.at_s)
            flows_until_s = min(now_s, rows[index + 1].at_s) if index + 1 < len(rows) else now_s
            if index not in done:
                done.add(index)
                if "counter" in one.options:
                    true_ml = float(one.options["counter"])
                true_ml += float(one.options.get("add", 0))
                seen_ml += float(one.options.get("add", 0)) + float(one.options.get("jump", 0))
                step_ms += round(float(one.options.get("step", 0)) * 60_000)
                if "boot" in one.options:
                    booted_s = one.at_s
            if flows_until_s > flowing_from_s:
                true_ml += flow_ml_h(one) * (flows_until_s - flowing_from_s) / 3600
                seen_ml_h = float(one.options.get("seen", flow_ml_h(one)))
                seen_ml += seen_ml_h * (flows_until_s - flowing_from_s) / 3600
            row = one
        last_s = now_s
        counter_ml = int(true_ml * 100 + 1e-6) / 100
        if row.state != "silence":
            now_ms = now_s * 1000
            moment = Moment(
                monotonic_ms=BOOT_MS + now_ms if booted_s is None else (now_s - booted_s) * 1000,
                utc_ms=START_UTC_MS + now_ms + step_ms,
                synced=row.options.get("clock") != "unsynced",
            )
            told = reading(row, counter_ml)
            if sensor is not None and "blind" not in row.options:
                counts = floor(seen_ml / sensor.resolution_ml + 1e-6)
                told = replace(told, independent_ml=counts * sensor.resolution_ml)
            ward.take(moment, told)
        now_s += POLL_S


def flow_ml_h(row: Row) -> float:
    flows = row.state in ("running", "bolus", "kvo", "silence") or "flow" in row.options
    return float(row.options.get("flow", row.options.get("rate", 0))) if flows else 0.0


def reading(row: Row, counter_ml: float) -> Reading:
    alarms = row.options.get("alarms", "")
    return Reading(
        pump="pump",
        at_ms=0,
        state=PumpState(row.state),
        rate_ml_h=float(row.options["rate"]) if "rate" in row.options else 0.0,
        volume_ml=None if "nocount" in row.options else counter_ml,
        vtbi_ml=float(row.options["vtbi"]) if "vtbi" in row.options else None,
        alarms=None if alarms == "?" else tuple(alarms.split(";")) if alarms else (),
    )


def must_be_told(ward: Ward, expected: str, *, info: bool = False, within_s: int = 12) -> None:
    """Exactly these events, in this order, each not before its time and at most ``within_s`` after it."""
    told = [event for event in ward.told if info or Kind(event[1]) not in INFO]
    wanted = [line.split() for line in expected.strip().splitlines()]
    names = [(kind, phase) for _, kind, phase in told]
    assert names == [(words[1], words[2] if len(words) > 2 else "start") for words in wanted], told
    for (at_s, kind, phase), words in zip(told, wanted, strict=True):
        assert 0 <= at_s - seconds(words[0]) <= within_s, (kind, phase, at_s, words)
