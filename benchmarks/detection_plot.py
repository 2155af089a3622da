"""The picture of the detection benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl

mpl.use("svg")

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from benchmarks.detection_rows import NAMES, Row

COLOURS = {"cumulative": "#b35900", "windows": "#7a5195", "ours": "#00796b", "told": "#444444"}
MARKERS = {"cumulative": "s", "windows": "^", "ours": "o", "told": "_"}
EXAMPLE_SHIFT, EXAMPLE_COUNTER_ML, EXAMPLE_TOLERANCE = 0.2, 0.01, 0.05
TIMES = {
    2: "2 s",
    10: "10 s",
    60: "1 min",
    300: "5 min",
    1800: "30 min",
    7200: "2 h",
    36_000: "10 h",
    86_400: "24 h",
}
RATIOS = {1: "1", 2: "2", 5: "5", 10: "10", 20: "20", 50: "50", 100: "100", 200: "200"}
NEVER = 700.0
"""Where in the picture that stands which is never or not always found."""


def plot(rows: Sequence[Row], path: Path) -> None:
    """Draw an SVG: delay over rate for one shift, and all rows against the CUSUM that was told."""
    mpl.rcParams.update({"font.family": "sans-serif", "font.size": 10, "svg.hashsalt": "dripwatch"})
    figure = Figure(figsize=(11, 5), layout="constrained")
    figure.suptitle("How soon a wrong flow is found, at one false alarm a pump-year", fontweight="bold")
    example, every = figure.subplots(1, 2, width_ratios=(1, 1.25))
    _draw_example(example, rows)
    _draw_every_row(every, rows)
    for axes in (example, every):
        axes.grid(visible=True, color="#dddddd", linewidth=0.6)
        axes.set_axisbelow(True)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    handles, labels = example.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(NAMES), frameon=False)
    figure.savefig(path, format="svg", metadata={"Date": None})


def _draw_example(axes: Axes, rows: Sequence[Row]) -> None:
    wanted = (EXAMPLE_SHIFT, EXAMPLE_COUNTER_ML, EXAMPLE_TOLERANCE)
    chosen = [row for row in rows if (row.shift, row.counter_ml, row.tolerance) == wanted]
    for name, words in NAMES.items():
        points = [(row.rate_ml_h, row.delays[name].mean_s) for row in chosen if row.delays[name].always_found]
        axes.plot(
            [rate_ml_h for rate_ml_h, _ in points],
            [mean_s for _, mean_s in points],
            color=COLOURS[name],
            marker=MARKERS[name],
            markersize=14 if name == "told" else 7,
            linestyle=":" if name == "told" else "-",
            label=words,
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    rates_ml_h = [row.rate_ml_h for row in chosen]
    axes.xaxis.set_major_locator(FixedLocator(rates_ml_h))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    _label(axes, "y", TIMES)
    axes.set_xlabel("rate, mL/h")
    axes.set_ylabel("mean delay")
    axes.set_title("A change of 20 %: tolerance 5 %, counter 0.01 mL", fontsize=10)


def _draw_every_row(axes: Axes, rows: Sequence[Row]) -> None:
    for name in NAMES:
        if name == "told":
            continue
        points = [(row.delays["told"].mean_s, row.ratio(name)) for row in rows]
        axes.scatter(
            [told_s for told_s, _ in points],
            [NEVER if ratio is None else ratio for _, ratio in points],
            color=COLOURS[name],
            marker=MARKERS[name],
            s=26,
            alpha=0.8,
            linewidths=0,
        )
    axes.axhline(1.0, color=COLOURS["told"], linestyle=":")
    axes.set_xscale("log")
    axes.set_yscale("log")
    _label(axes, "x", TIMES)
    _label(axes, "y", {**RATIOS, int(NEVER): "never, or\nnot always"})
    axes.set_ylim(0.75, 1000)
    axes.set_xlim(2, 7200)
    axes.set_xlabel("mean delay of the CUSUM that was told the shift")
    axes.set_ylabel("times as long")
    axes.set_title(f"All {len(rows)} rows: rates, counters, tolerances, shifts from 5 to 100 %", fontsize=10)


def _label(axes: Axes, which: str, ticks: dict[int, str]) -> None:
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_locator(FixedLocator(list(ticks)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: ticks.get(round(value), "")))
