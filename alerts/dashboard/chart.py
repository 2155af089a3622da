"""The picture of one pump: expected against counted volume, as the numbers of an SVG.

Pure. The template draws what is worked out here, so no number is computed in HTML.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec import Struct

WIDTH = 640
HEIGHT = 200
LEFT = 52
RIGHT = 12
TOP = 12
BOTTOM = 10
POINTS_DRAWN_MAX = 240
_TICKS = 4
SHORT_SPAN_MS = 600_000


class Point(Struct, frozen=True, order=True):
    """What was expected and what the pump had counted at one moment, of the occurrence then running."""

    time_utc_ms: int
    expected_ml: float | None = None
    counted_ml: float | None = None

    @property
    def is_empty(self) -> bool:
        """Whether nothing is known of this moment: the line breaks there, and is not drawn across."""
        return self.expected_ml is None and self.counted_ml is None


class Tick(Struct, frozen=True, kw_only=True):
    """A line of the grid and its label."""

    at: float
    value: str
    utc_ms: int = 0


class Chart(Struct, frozen=True, kw_only=True):
    """All that the template needs; lines are SVG paths, in user units."""

    expected: str
    counted: str
    time_style: str
    """``time``, or ``seconds`` where the whole span is short."""
    volume_ticks: tuple[Tick, ...]
    time_ticks: tuple[Tick, ...]
    last_x: float
    last_expected_y: float | None
    last_counted_y: float | None


def chart(points: Sequence[Point]) -> Chart | None:
    """The chart of these points; None if there are not two moments to draw a line between."""
    known = sorted(points, key=lambda point: point.time_utc_ms)
    while known and known[0].is_empty:
        del known[0]
    while known and known[-1].is_empty:
        del known[-1]
    if len(known) < 2 or known[0].time_utc_ms == known[-1].time_utc_ms:
        return None
    known = _thinned(known)
    first_ms, last_ms = known[0].time_utc_ms, known[-1].time_utc_ms
    volumes = [v for p in known for v in (p.expected_ml, p.counted_ml) if v is not None]
    step_ml = _round_step(max(0.1, *volumes) / _TICKS)
    top_ml = step_ml * _TICKS

    def x(utc_ms: int) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * (utc_ms - first_ms) / (last_ms - first_ms), 1)

    def y(volume_ml: float) -> float:
        share = min(max(volume_ml / top_ml, 0.0), 1.0)
        return round(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * share, 1)

    last = known[-1]
    return Chart(
        expected=_path([(x(p.time_utc_ms), p.expected_ml) for p in known], y),
        counted=_path([(x(p.time_utc_ms), p.counted_ml) for p in known], y),
        time_style="seconds" if last_ms - first_ms < SHORT_SPAN_MS else "time",
        volume_ticks=tuple(Tick(at=y(step_ml * n), value=f"{step_ml * n:g}") for n in range(_TICKS + 1)),
        time_ticks=tuple(
            Tick(at=x(utc_ms), value="", utc_ms=utc_ms)
            for utc_ms in (first_ms, (first_ms + last_ms) // 2, last_ms)
        ),
        last_x=x(last_ms),
        last_expected_y=None if last.expected_ml is None else y(last.expected_ml),
        last_counted_y=None if last.counted_ml is None else y(last.counted_ml),
    )


def _thinned(points: list[Point]) -> list[Point]:
    if len(points) <= POINTS_DRAWN_MAX:
        return points
    stride = -(-len(points) // POINTS_DRAWN_MAX)
    thinned = points[::stride]
    return thinned if thinned[-1] == points[-1] else [*thinned, points[-1]]


def _round_step(least_ml: float) -> float:
    """The least of 1, 2, 2.5, 5 times a power of ten that is not below ``least_ml``."""
    power = 0.001
    while power * 10 < least_ml:
        power *= 10
    return next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= least_ml * (1 - 1e-9))


def _path(points: list[tuple[float, float | None]], y: Callable[[float], float]) -> str:
    """A path, broken where a value is missing, and where an occurrence ends and the next begins at 0."""
    words: list[str] = []
    before: float | None = None
    for x, volume_ml in points:
        if volume_ml is not None:
            is_joined = before is not None and volume_ml >= before - 0.001
            words.append(f"{'L' if is_joined else 'M'}{x:g} {y(volume_ml):g}")
        before = volume_ml
    return " ".join(words)
