"""``dripwatch accuracy``: mean error, start-up curve and trumpet curve from a recording.

Usage: ``dripwatch accuracy PRESCRIPTION READINGS [--svg FILE] [--json]``; ``-`` is standard input. A table
for people, or with ``--json`` one JSON object, goes to standard output; what was not read to standard error.
Exit status 0; 2 if the input cannot be read, or does not tell the accuracy.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from alerts.wire import iso_utc
from gateway.accuracy.picture import picture
from gateway.accuracy.stretches import LeftOut, Recorded, Recorder
from gateway.accuracy.trumpet import Accuracy, AccuracyError, Startup, Uncertainty, Window, accuracy
from gateway.blocks import rows_of
from gateway.core.counter import MS_PER_HOUR
from gateway.core.prescription import Prescription
from gateway.recording import UNREADABLE, Tally, UnreadableError, in_order_of_time, order_from, recording

BELIEF = (
    "A counter of motor steps shows what the pump believes, not what flowed:"
    " an error of its calibration is then not seen."
)


class StartupLine(Struct, frozen=True, kw_only=True):
    """The start-up curve in ``--json``."""

    began: str
    start_seen: bool
    sample_s: int
    flow_ml_h: tuple[float, ...]


class AccuracyLine(Struct, frozen=True, kw_only=True):
    """What ``--json`` prints. Uncertainties are half-widths that hold 95 %."""

    set_rate_ml_h: float
    counter_ml: float
    began: str
    stretches: int
    analysed_s: int
    mean_error_percent: float
    uncertainty: Uncertainty
    trumpet: tuple[Window, ...]
    startup: StartupLine
    left_out_s: dict[str, int]
    notes: tuple[str, ...]


def main(argv: Sequence[str] | None = None) -> int:
    """The command; the exit status."""
    arguments = _arguments(argv)
    tally = Tally()
    try:
        if arguments.prescription == arguments.readings == "-":
            raise UnreadableError("only one of the two can come from standard input")
        _, order = order_from(arguments.prescription)
        recorder = Recorder(order)
        with recording("accuracy", arguments.readings, tally) as blocks:
            for instant, reading in in_order_of_time(rows_of(blocks), tally):
                recorder.take(instant, reading)
        recorded = recorder.recorded()
        result = accuracy(recorded, order.pump)
        if arguments.svg is not None:
            _write(arguments.svg, picture(result, order.pump))
    except UnreadableError as error:
        sys.stderr.write(f"accuracy: {error}\n")
        return UNREADABLE
    except AccuracyError as error:
        sys.stderr.write(f"accuracy: {arguments.readings}: {error} ({tally.in_words()})\n")
        return UNREADABLE
    left_out = _left_out(result, recorded)
    notes = _notes(result, recorded, order)
    if arguments.json:
        line = _line(result, left_out, notes)
        sys.stdout.write(msgspec.json.encode(line).decode() + "\n")
    else:
        sys.stdout.write(_table(result, left_out, notes))
    sys.stdout.flush()
    sys.stderr.write(f"accuracy: {tally.in_words()}\n")
    return 0


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="dripwatch accuracy",
        description="Mean error, start-up curve and trumpet curve after IEC 60601-2-24, from the pump's own"
        f" counter, at the set rate of which there is most. {BELIEF}",
    )
    parser.add_argument(
        "prescription",
        metavar="PRESCRIPTION",
        help="prescription.toml, whose [pump] says count, stroke and ripple; or - for standard input",
    )
    parser.add_argument("readings", metavar="READINGS", help="readings.csv, or - for standard input")
    parser.add_argument("--svg", metavar="FILE", help="also draw both curves into this file")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    return parser.parse_args(argv)


def _write(name: str, text: str) -> None:
    try:
        Path(name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise UnreadableError(
            f"{name}: cannot be written: {error.strerror}; look at its name and its permissions"
        ) from error


def _left_out(result: Accuracy, recorded: Recorded) -> dict[str, int]:
    """Milliseconds by reason, in words; what is 0 is not there."""
    before = (
        "first hour of each stretch, or stretches too short" if result.settled else "before the first count"
    )
    left_out_ms = {
        before: result.settling_ms,
        "at another set rate": result.other_rates_ms,
        **{why.value: recorded.left_out_ms[why] for why in LeftOut},
    }
    return {why: length_ms for why, length_ms in left_out_ms.items() if length_ms}


def _notes(result: Accuracy, recorded: Recorded, order: Prescription) -> tuple[str, ...]:
    """What must be known of these numbers, a sentence each."""
    notes = [BELIEF]
    if not result.settled:
        notes.append(
            "Less than 31 min lie after the first hour of the stretches, so that hour is in it: the start-up"
            " may widen the trumpet and move the mean error."
        )
    if result.trumpet[-1].ep_max_percent is None:
        notes.append("No stretch is as long as the longest window: record at least an hour and a half.")
    if not result.startup.start_seen:
        notes.append(
            "No start from standstill was recorded at this rate: the start-up curve begins where the rate was"
            " first seen."
        )
    if result.counter_is_coarser:
        notes.append(
            f"The counter moves by {result.counter_ml:.4g} mL at a time, more than the prescription's"
            f" counter_ml of {order.pump.counter_ml:g}: reckoned with what it does."
        )
    if recorded.falls:
        notes.append(
            f"The counter fell {_times(recorded.falls)} while the pump ran: no window reaches over it."
        )
    if order.demand is not None:
        notes.append("A bolus that the pump did not report as its state is counted as flow.")
    return tuple(notes)


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _line(result: Accuracy, left_out_ms: dict[str, int], notes: tuple[str, ...]) -> AccuracyLine:
    return AccuracyLine(
        set_rate_ml_h=result.set_rate_ml_h,
        counter_ml=result.counter_ml,
        began=iso_utc(result.began_utc_ms),
        stretches=result.stretches,
        analysed_s=result.analysed_ms // 1000,
        mean_error_percent=result.mean_error_percent,
        uncertainty=result.uncertainty,
        trumpet=result.trumpet,
        startup=_startup_line(result.startup),
        left_out_s={why: round(length_ms / 1000) for why, length_ms in left_out_ms.items()},
        notes=notes,
    )


def _startup_line(startup: Startup) -> StartupLine:
    return StartupLine(
        began=iso_utc(startup.began_utc_ms),
        start_seen=startup.start_seen,
        sample_s=30,
        flow_ml_h=startup.flow_ml_h,
    )


def _table(result: Accuracy, left_out_ms: dict[str, int], notes: tuple[str, ...]) -> str:
    unsure = result.uncertainty
    stretches = "1 stretch" if result.stretches == 1 else f"{result.stretches} stretches"
    from_when = ", each from its second hour on" if result.settled else ""
    lines = [
        f"Flow accuracy at {result.set_rate_ml_h:g} mL/h, as the pump counted",
        "",
        f"mean error  {result.mean_error_percent:+z.2f} % +/- {unsure.total_percent:.2f} % (95 %: one count"
        f" {unsure.count_percent:.2f}, strokes {unsure.strokes_percent:.2f},"
        f" ripple {unsure.ripple_percent:.2f}, time of readings {unsure.reading_time_percent:.2f})",
        f"analysed    {_length(result.analysed_ms)} in {stretches} since {iso_utc(result.began_utc_ms)}"
        f"{from_when}",
        f"start-up    {_startup_words(result)}",
        "",
        f"window    Ep(max)    Ep(min)   one count of {result.counter_ml:.4g} mL   windows",
        *(_row(window, result.counter_ml) for window in result.trumpet),
        "",
    ]
    if left_out_ms:
        lines.append("left out    " + "; ".join(f"{_length(ms)} {why}" for why, ms in left_out_ms.items()))
    lines.extend(f"note        {note}" for note in notes)
    return "\n".join(lines) + "\n"


def _row(window: Window, counter_ml: float) -> str:
    highest, lowest = _percent(window.ep_max_percent), _percent(window.ep_min_percent)
    floor = f"+/- {window.floor_percent:.1f} %".rjust(len(f"one count of {counter_ml:.4g} mL"))
    return f"{window.window_min:>2} min  {highest:>9}  {lowest:>9}   {floor}   {window.windows:>7}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:+z.1f} %"


def _startup_words(result: Accuracy) -> str:
    """The mean flow of the first and the second hour."""
    flows = result.startup.flow_ml_h
    hour = len(flows) // 2 if len(flows) == 240 else len(flows)
    words = [f"{sum(part) / len(part):.3g} mL/h" for part in (flows[:hour], flows[hour:]) if part]
    if len(words) == 2:
        return f"{words[0]} in the first hour, {words[1]} in the second"
    return f"{words[0]} in the first {_length(len(flows) * 30_000)}"


def _length(length_ms: float) -> str:
    if length_ms < MS_PER_HOUR:
        return f"{length_ms / 60_000:.1f} min"
    return f"{length_ms / MS_PER_HOUR:.2f} h"
