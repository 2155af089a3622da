"""What the detection benchmark has measured, as a table and as a summary."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

NAMES = {
    "cumulative": "cumulative %",
    "windows": "5 trumpet windows",
    "ours": "ours",
    "told": "told the shift",
}


class Delay(Struct, frozen=True):
    """From a change to the reading that finds it, over all changes of a row, in seconds."""

    mean_s: float | None
    """Of those that are found; None where none is."""
    p95_s: float | None
    missed: float
    """Share that is never found."""

    @classmethod
    def of(cls, delays_s: NDArray[np.float64]) -> Delay:
        """Of the delays of single changes; inf for never."""
        found_s = delays_s[np.isfinite(delays_s)]
        missed = 1 - len(found_s) / len(delays_s)
        if len(found_s) == 0:
            return cls(None, None, 1.0)
        return cls(
            round(float(found_s.mean()), 2), round(float(np.quantile(found_s, 0.95)), 2), round(missed, 4)
        )

    @property
    def always_found(self) -> bool:
        """Whether no change was missed."""
        return self.missed == 0.0


class Row(Struct, frozen=True):
    """One setting and one size of change."""

    rate_ml_h: float
    counter_ml: float
    tolerance: float
    shift: float
    delays: dict[str, Delay]

    def ratio(self, name: str) -> float | None:
        """Mean delay, as a multiple of that of the CUSUM that was told; None unless it always finds it."""
        delay, told = self.delays[name], self.delays["told"]
        if not delay.always_found or delay.mean_s is None or told.mean_s is None:
            return None
        return delay.mean_s / told.mean_s


def summary(rows: Sequence[Row]) -> dict[str, dict[str, Any]]:
    """For each detector: how its mean delays compare with the told CUSUM's, where it always detects."""
    result: dict[str, dict[str, Any]] = {}
    for name in NAMES:
        if name == "told":
            continue
        ratios = [ratio for row in rows if (ratio := row.ratio(name)) is not None]
        result[name] = {
            "median": round(float(np.median(ratios)), 3) if ratios else None,
            "p95": round(float(np.quantile(ratios, 0.95)), 3) if ratios else None,
            "worst": round(max(ratios), 3) if ratios else None,
            "never_or_not_always": f"{len(rows) - len(ratios)} of {len(rows)}",
        }
    return result


def table(rows: Sequence[Row]) -> str:
    """Mean / 95th percentile of the delay of each row, in Markdown."""
    lines: list[str] = []
    group: tuple[float, float] | None = None
    for row in rows:
        if group != (row.tolerance, row.counter_ml) or row is rows[0]:
            group = (row.tolerance, row.counter_ml)
            lines += [
                f"\nTolerance {row.tolerance * 100:g} %, counter {row.counter_ml:g} mL:\n",
                f"| mL/h | shift | {' | '.join(NAMES.values())} | ours / told |",
                f"| ---: | ---: |{' --- |' * len(NAMES)} ---: |",
            ]
        cells = [_words(row.delays[name]) for name in NAMES]
        ratio = row.ratio("ours")
        compared = "" if ratio is None else f"{ratio:.2f}"
        lines.append(f"| {row.rate_ml_h:g} | {row.shift * 100:g} % | {' | '.join(cells)} | {compared} |")
    return "\n".join(lines) + "\n"


def _words(delay: Delay) -> str:
    if delay.mean_s is None or delay.p95_s is None:
        return "never"
    words = f"{_time(delay.mean_s)} / {_time(delay.p95_s)}"
    return words if delay.always_found else f"{delay.missed * 100:.0f} % never, else {words}"


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.3g} min" if seconds < 7200 else f"{seconds / 3600:.3g} h"
