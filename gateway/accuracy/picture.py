"""The start-up curve and the trumpet curve as one SVG. Pure: numbers in, text out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import ceil, floor

from msgspec import Struct

from alerts.wire import iso_utc
from gateway.accuracy.stretches import SAMPLE_MS
from gateway.accuracy.trumpet import STARTUP_MIN, WINDOWS_MIN, Accuracy, floor_percent
from gateway.core.counter import MS_PER_HOUR
from gateway.core.prescription import PumpExpected

WIDTH = 1100
HEIGHT = 580
_TOP = 144
_BOTTOM = 504
_INK = "#1b1f24"
_QUIET = "#59636e"
_GRID = "#e3e7eb"
_FLOW = "#0b5cad"
_MEAN = "#b3261e"
_BAND = "#dfe5ec"
_MOST_OF_SET = 3.0
"""The flow axis ends at so many times the set rate: single counts of a coarse counter go far beyond."""
_LAST_WINDOW_MIN = 33.0

_Point = tuple[float, float]


class _Panel(Struct, frozen=True, kw_only=True):
    """A coordinate system on the page, and its place."""

    name: str
    left: float
    right: float
    x_from: float
    x_to: float
    y_from: float
    y_to: float

    def x(self, value: float) -> float:
        return self.left + (self.right - self.left) * (value - self.x_from) / (self.x_to - self.x_from)

    def y(self, value: float) -> float:
        return _BOTTOM - (_BOTTOM - _TOP) * (value - self.y_from) / (self.y_to - self.y_from)

    def points(self, points: Iterable[_Point]) -> str:
        return " ".join(f"{self.x(x):.1f},{self.y(y):.1f}" for x, y in points)


def picture(result: Accuracy, pump: PumpExpected) -> str:
    """The two panels: flow against time, and error against observation window."""
    rate = f"{result.set_rate_ml_h:g} mL/h"
    hours = result.analysed_ms / MS_PER_HOUR
    of_what = f"{pump.model}, " if pump.model else ""
    begun = iso_utc(result.began_utc_ms)[:16].replace("T", " ")
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}"'
            f' width="{WIDTH}" height="{HEIGHT}" font-family="Helvetica, Arial, sans-serif" font-size="13">',
            f"<title>Flow accuracy at {rate}</title>",
            f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
            _text(70, 36, f"Flow accuracy at {rate}, as the pump counted", size=20, weight="bold"),
            _text(
                70,
                60,
                f"{_escaped(of_what)}one count {result.counter_ml:.4g} mL, analysed {hours:.1f} h"
                f" in {result.stretches} {'stretch' if result.stretches == 1 else 'stretches'}"
                f" from {begun} UTC on",
                colour=_QUIET,
            ),
            *_startup(result),
            *_trumpet(result, pump),
            _text(
                70,
                HEIGHT - 14,
                "After IEC 60601-2-24, with the pump's counter in place of the balance:"
                " a counter of motor steps shows what the pump believes it delivered.",
                colour=_QUIET,
                size=12,
            ),
            "</svg>",
            "",
        ]
    )


def _startup(result: Accuracy) -> list[str]:
    set_ml_h = result.set_rate_ml_h
    flows = result.startup.flow_ml_h
    top_ml_h = min(_MOST_OF_SET * set_ml_h, max(1.5 * set_ml_h, 1.1 * max(flows)))
    step = _round_step(top_ml_h / 5)
    panel = _Panel(
        name="startup",
        left=70,
        right=510,
        x_from=0,
        x_to=STARTUP_MIN,
        y_from=0,
        y_to=ceil(top_ml_h / step - 1e-9) * step,
    )
    sample_min = SAMPLE_MS / 60_000
    stairs: list[_Point] = []
    for index, flow_ml_h in enumerate(flows):
        stairs += [(index * sample_min, flow_ml_h), ((index + 1) * sample_min, flow_ml_h)]
    since = "start" if result.startup.start_seen else "this rate was first seen (no start recorded)"
    set_y = panel.y(set_ml_h)
    return [
        *_frame(panel, "Start-up curve", "Flow, mL/h", f"Time since {since}, min"),
        *_horizontal_grid(panel, step, lambda value: f"{value:g}"),
        *_vertical_grid(panel, range(0, STARTUP_MIN + 1, 20)),
        f'<polyline points="{panel.points(stairs)}" fill="none" stroke="{_FLOW}" stroke-width="1.5"'
        f' stroke-linejoin="round" clip-path="url(#{panel.name})"/>',
        f'<line x1="{panel.left}" y1="{set_y:.1f}" x2="{panel.right}" y2="{set_y:.1f}"'
        f' stroke="{_MEAN}" stroke-width="1.5" stroke-dasharray="6 4"/>',
        *_legend(
            panel,
            [(_FLOW, "", "flow each 0.5 min, from counts"), (_MEAN, "6 4", f"set rate, {set_ml_h:g} mL/h")],
        ),
    ]


def _trumpet(result: Accuracy, pump: PumpExpected) -> list[str]:
    known = [
        (float(window.window_min), window.ep_max_percent, window.ep_min_percent)
        for window in result.trumpet
        if window.ep_max_percent is not None and window.ep_min_percent is not None
    ]
    mean = result.mean_error_percent
    most = [(window_min, high) for window_min, high, _ in known]
    least = [(window_min, low) for window_min, _, low in known]
    bounds = [0.0, mean, *(error for _, error in most), *(error for _, error in least)]
    # the mouth of the floor may be far wider than that of the pump: it is cut off
    reach = max(1.0, 0.2 * (max(bounds) - min(bounds)), 0.1 * abs(mean))
    low, high = min(bounds) - reach, max(bounds) + reach
    step = _round_step((high - low) / 7)
    panel = _Panel(
        name="trumpet",
        left=600,
        right=1060,
        x_from=0,
        x_to=_LAST_WINDOW_MIN,
        y_from=floor(low / step) * step,
        y_to=ceil(high / step) * step,
    )
    unsure = result.uncertainty.total_percent
    mean_y = panel.y(mean)
    stated_percent = 100 * pump.accuracy
    edges = [edge for edge in (-stated_percent, stated_percent) if panel.y_from < edge < panel.y_to]
    stated = [(_QUIET, "2 4", f"stated accuracy ±{stated_percent:g} %")] if edges else []
    return [
        *_frame(panel, "Trumpet curve", "Error of the mean flow, %", "Observation window, min"),
        f'<polygon points="{panel.points(_floor_outline(result))}" fill="{_BAND}"'
        f' clip-path="url(#{panel.name})"/>',
        *_horizontal_grid(panel, step, _axis_label),
        *_vertical_grid(panel, WINDOWS_MIN),
        *(
            f'<line x1="{panel.left}" y1="{panel.y(edge):.1f}" x2="{panel.right}" y2="{panel.y(edge):.1f}"'
            f' stroke="{_QUIET}" stroke-dasharray="2 4"/>'
            for edge in edges
        ),
        f'<line x1="{panel.left}" y1="{mean_y:.1f}" x2="{panel.right}" y2="{mean_y:.1f}"'
        f' stroke="{_MEAN}" stroke-width="1.5" stroke-dasharray="6 4"/>',
        *_curve(panel, most, above=True),
        *_curve(panel, least, above=False),
        *_legend(
            panel,
            [
                (_MEAN, "6 4", f"mean error {_signed(mean, 2)} ± {unsure:.2f} % (95 %)"),
                (_BAND, "band", f"what one count of {result.counter_ml:.4g} mL can feign"),
                (_FLOW, "", "Ep(max), Ep(min)"),
                *stated,
            ],
        ),
    ]


def _floor_outline(result: Accuracy) -> list[_Point]:
    """The trumpet of a steady pump with this counter lies within it."""
    mean = result.mean_error_percent
    windows_min = [WINDOWS_MIN[0] + index / 4 for index in range(4 * (WINDOWS_MIN[-1] - WINDOWS_MIN[0]) + 1)]
    floors = [
        (window_min, floor_percent(result.counter_ml, window_min, result.set_rate_ml_h))
        for window_min in windows_min
    ]
    upper = [(window_min, mean + floor_) for window_min, floor_ in floors]
    return upper + [(window_min, mean - floor_) for window_min, floor_ in reversed(floors)]


def _curve(panel: _Panel, points: Sequence[_Point], *, above: bool) -> list[str]:
    lines = [
        f'<polyline points="{panel.points(points)}" fill="none" stroke="{_FLOW}" stroke-width="2"'
        ' stroke-linejoin="round"/>'
    ]
    for window_min, error_percent in points:
        x, y = panel.x(window_min), panel.y(error_percent)
        lines.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{_FLOW}"/>')
        label_y = y - 9 if above else y + 18
        anchor = "end" if window_min == WINDOWS_MIN[-1] else "start"
        lines.append(_text(x + 2, label_y, _signed(error_percent, 1), anchor=anchor, colour=_FLOW, size=11))
    return lines


def _frame(panel: _Panel, title: str, y_title: str, x_title: str) -> list[str]:
    middle = (panel.left + panel.right) / 2
    axis_x = panel.left - 48
    width, height = panel.right - panel.left, _BOTTOM - _TOP
    return [
        f'<clipPath id="{panel.name}"><rect x="{panel.left}" y="{_TOP}" width="{width}" height="{height}"/>'
        "</clipPath>",
        _text(panel.left, 94, title, size=15, weight="bold"),
        _text(middle, _BOTTOM + 38, x_title, anchor="middle"),
        f'<text x="{axis_x}" y="{(_TOP + _BOTTOM) / 2}" text-anchor="middle" fill="{_INK}"'
        f' transform="rotate(-90 {axis_x} {(_TOP + _BOTTOM) / 2})">{y_title}</text>',
    ]


def _horizontal_grid(panel: _Panel, step: float, label: Callable[[float], str]) -> list[str]:
    lines: list[str] = []
    for number in range(round((panel.y_to - panel.y_from) / step) + 1):
        value = round(panel.y_from + number * step, 9)
        y = panel.y(value)
        colour = _QUIET if value == 0 else _GRID
        lines.append(
            f'<line x1="{panel.left}" y1="{y:.1f}" x2="{panel.right}" y2="{y:.1f}" stroke="{colour}"/>'
        )
        lines.append(_text(panel.left - 8, y + 4, label(value), anchor="end", colour=_QUIET, size=12))
    return lines


def _vertical_grid(panel: _Panel, values: Iterable[int]) -> list[str]:
    lines: list[str] = []
    for value in values:
        x = panel.x(value)
        lines.append(f'<line x1="{x:.1f}" y1="{_TOP}" x2="{x:.1f}" y2="{_BOTTOM}" stroke="{_GRID}"/>')
        lines.append(_text(x, _BOTTOM + 18, f"{value}", anchor="middle", colour=_QUIET, size=12))
    return lines


def _legend(panel: _Panel, rows: Sequence[tuple[str, str, str]]) -> list[str]:
    """Colour, kind of line (dashes, or ``band``) and words of each, above the panel, in two columns."""
    lines: list[str] = []
    for number, (colour, dashes, words) in enumerate(rows):
        left = panel.left + 268 * (number // 2)
        y = _TOP - 32 + 18 * (number % 2)
        if dashes == "band":
            lines.append(f'<rect x="{left}" y="{y - 6}" width="26" height="12" fill="{colour}"/>')
        else:
            dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
            lines.append(
                f'<line x1="{left}" y1="{y}" x2="{left + 26}" y2="{y}" stroke="{colour}"'
                f' stroke-width="2"{dashed}/>'
            )
        lines.append(_text(left + 34, y + 4, words, size=12))
    return lines


def _text(
    x: float,
    y: float,
    words: str,
    *,
    size: int = 13,
    colour: str = _INK,
    anchor: str = "start",
    weight: str = "normal",
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" font-weight="{weight}" text-anchor="{anchor}"'
        f' fill="{colour}">{words}</text>'
    )


def _signed(value: float, digits: int) -> str:
    return f"{value:+z.{digits}f}".replace("-", "−")


def _axis_label(value: float) -> str:
    return f"{value:+g}".replace("-", "−") if value else "0"


def _escaped(words: str) -> str:
    return words.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _round_step(least: float) -> float:
    """The least of 1, 2, 5 times a power of ten that is not below ``least``."""
    power = 1e-6
    while power * 10 <= least:
        power *= 10
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= least * (1 - 1e-9))
