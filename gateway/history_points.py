"""Points and annotations for the history, as lines that a time-series server understands (InfluxDB line
protocol), gathered into batches.

Tags say whose a line is (home, pump, origin) and never hold a name, a serial number or an address. Fields
carry their unit last. A line with the tags and the time of another overwrites it, so a batch may be written
again; and no line may have those of another: the tag ``boot`` tells the starts of the gateway apart, with a
count of how often the clock was set back since.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from msgspec import Struct

from alerts.alert import AlertState
from drivers.reading import PumpState
from gateway.changes import AlertChanged, Change, EventHappened, PointTaken
from gateway.core.timeline import Moment
from gateway.lanes import Draft
from gateway.projections import point, uptime_ms

LINES_MAX = 500
"""Of one batch: about 100 kB."""

STATE_NUMBERS: Mapping[str, int] = {
    PumpState.OFF: 0,
    PumpState.STANDBY: 1,
    PumpState.IDLE: 2,
    PumpState.PRIMING: 3,
    PumpState.RUNNING: 4,
    PumpState.BOLUS: 5,
    PumpState.KVO: 6,
    PumpState.PAUSED: 7,
    PumpState.ALARM: 8,
    PumpState.COMPLETE: 9,
    PumpState.UNKNOWN: 10,
}
"""For a server that keeps no texts (VictoriaMetrics keeps 0 in their place)."""

FieldValue = float | int | str | None


class Line(Struct, frozen=True, kw_only=True):
    """What will be one line, dated only when it leaves: the clock may not have been set when it was made."""

    measurement: str
    tags: tuple[tuple[str, str], ...]
    fields: tuple[tuple[str, FieldValue], ...]
    t_ms: int
    uptime_ms: int


class HistoryPoints:
    """What is to be told to the history and is in no batch yet."""

    def __init__(self, *, home: str, boot: str, origins: Mapping[str, str]) -> None:
        self.left_out = 0
        """Lines for which there was never a time: without one a server would take its own."""
        self._home = home
        self._boot = boot
        self._origins = origins
        self._lines: list[Line] = []
        self._batches = 0
        self._last_utc_ms: int | None = None
        self._times_set_back = 0

    def take(self, change: Change, t_ms: int, moment: Moment) -> None:
        """A reading, a new revision of an alert or an event becomes a line; all else does not."""
        match change:
            case PointTaken():
                taken = point(change)
                self._lines.append(
                    Line(
                        measurement="infusion",
                        tags=(
                            ("home", self._home),
                            ("origin", self._origins[change.pump]),
                            ("pump", change.pump),
                        ),
                        fields=(
                            ("delivered_ml", taken.delivered_ml),
                            ("expected_ml", taken.expected_ml),
                            ("pressure_mmhg", taken.pressure_mmhg),
                            ("rate_ml_h", taken.rate_ml_h),
                            ("state", taken.state),
                            ("state_number", STATE_NUMBERS[taken.state]),
                            ("volume_ml", taken.volume_ml),
                        ),
                        t_ms=taken.t_ms,
                        uptime_ms=taken.uptime_ms,
                    )
                )
            case AlertChanged(alert=alert):
                self._annotate(
                    "alert",
                    alert.pump,
                    (("code", alert.code), ("kind", alert.kind), ("priority", alert.priority)),
                    (
                        ("alert_id", alert.alert_id),
                        ("open", int(alert.state is not AlertState.CLOSED)),
                        ("reason", alert.reason),
                        ("rev", alert.rev),
                        ("state", alert.state),
                    ),
                    t_ms,
                    moment,
                )
            case EventHappened(finding=finding):
                self._annotate(
                    "event",
                    change.pump,
                    (("code", finding.code), ("kind", finding.kind)),
                    (("count", 1),),
                    t_ms,
                    moment,
                )

    def dropped(self, batches: int, t_ms: int, moment: Moment) -> None:
        """So many of the oldest batches had to go: a hole in the history says so itself."""
        self._annotate("dropped", "gateway", (), (("batches", batches),), t_ms, moment)

    def batches(self, now: Moment, t_ms: int, until_t_ms: int) -> list[Draft]:
        """All that was made until then, dated backwards from now by the machine's own clock.

        What leaves while the clock is not set has waited long enough, and is left out and counted.
        """
        leaving = [line for line in self._lines if line.t_ms <= until_t_ms]
        if not leaving:
            return []
        self._lines = [line for line in self._lines if line.t_ms > until_t_ms]
        if not now.synced:
            self.left_out += len(leaving)
            return []
        offset_ms = now.utc_ms - uptime_ms(now)
        if self._last_utc_ms is not None and offset_ms + leaving[0].uptime_ms < self._last_utc_ms:
            self._times_set_back += 1
        self._last_utc_ms = offset_ms + leaving[-1].uptime_ms
        boot = f"{self._boot}.{self._times_set_back}" if self._times_set_back else self._boot
        texts = [text for line in leaving if (text := _text(line, boot, offset_ms))]
        return [self._draft(texts[at : at + LINES_MAX], t_ms) for at in range(0, len(texts), LINES_MAX)]

    def _annotate(
        self,
        measurement: str,
        pump: str,
        tags: tuple[tuple[str, str | None], ...],
        fields: tuple[tuple[str, FieldValue], ...],
        t_ms: int,
        moment: Moment,
    ) -> None:
        known = [(name, value) for name, value in tags if value]
        self._lines.append(
            Line(
                measurement=measurement,
                tags=tuple(sorted([*known, ("home", self._home), ("pump", pump)])),
                fields=fields,
                t_ms=t_ms,
                uptime_ms=uptime_ms(moment),
            )
        )

    def _draft(self, texts: list[str], t_ms: int) -> Draft:
        self._batches += 1
        return Draft(
            key=f"history/{self._boot}/{self._batches}",
            topic="",
            payload="\n".join(texts).encode(),
            made_t_ms=t_ms,
        )


def _text(line: Line, boot: str, offset_ms: int) -> str | None:
    """One line; ``None`` if no field of it has a value."""
    fields = [f"{name}={written}" for name, value in line.fields if (written := _field(value)) is not None]
    if not fields:
        return None
    tags = ",".join(f"{name}={_tag(value)}" for name, value in sorted([*line.tags, ("boot", boot)]))
    return f"{line.measurement},{tags} {','.join(fields)} {offset_ms + line.uptime_ms}"


def _field(value: FieldValue) -> str | None:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return None
    if isinstance(value, int):
        return f"{value}i"
    if isinstance(value, float):
        return repr(value)
    escaped = _printable(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _tag(value: str) -> str:
    escaped = _printable(value).replace("\\", "/")
    for character in ",= ":
        escaped = escaped.replace(character, f"\\{character}")
    return escaped


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text)
