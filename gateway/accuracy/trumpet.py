"""Mean error, start-up curve and trumpet curve after IEC 60601-2-24, from the pump's own counter.

With the volumes ``V_i`` each ``S`` = 0.5 min and the set rate ``r``::

    flow sample   Q_i = (V_i - V_{i-1}) / S                                [mL/h]
    mean error    A   = 100 (Q - r) / r, Q the mean flow                   [%]
    trumpet       Ep(max), Ep(min) = the greatest and the least mean of 100 (Q_i - r) / r
                  over any P = 2, 5, 11, 19, 31 min                        [%]

The standard weighs; here the counter takes the balance's place, and what it cannot show it cannot show: a
count of ``q`` mL hides up to ``100 q 60 / (P r)`` % in a window of P min (the floor).

The uncertainty of A is that of its volume: one count at both ends (or what flows between two readings, if
that is less), the mechanism's ripple at both ends, the moment of which the pump spoke at both ends, and the
random walk of the strokes between (prescription page, ``[pump]``).
"""

from __future__ import annotations

from math import isfinite, sqrt
from typing import TypeAlias

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from gateway.accuracy.stretches import LEAST_SAMPLES, SAMPLE_MS, Recorded, Stretch
from gateway.core.counter import MS_PER_HOUR
from gateway.core.delivery import STROKE_VARIANCE, TIMING_MS
from gateway.core.prescription import PumpExpected

WINDOWS_MIN = (2, 5, 11, 19, 31)
"""The observation windows P of IEC 60601-2-24."""
STARTUP_MIN = 120
"""T1, the length of the start-up graph."""
SETTLING_MIN = 60
"""The analysis begins with the second hour of each stretch."""
COVERAGE_DEVIATIONS = 1.96
"""So many standard deviations to each side hold 95 %."""
COARSER_COUNTS = 1.5
"""The counter moves by more than so many of the counts that the order states: it is coarser than stated."""
_SAMPLES_PER_MIN = 60_000 // SAMPLE_MS

_Numbers: TypeAlias = NDArray[np.float64]


class AccuracyError(ValueError):
    """The recording does not tell the accuracy: why, and what to do."""


class Window(Struct, frozen=True, kw_only=True):
    """One point of the trumpet curve; errors are None where no stretch is as long as the window."""

    window_min: int
    ep_max_percent: float | None
    ep_min_percent: float | None
    floor_percent: float
    windows: int
    """Over how many windows the extremes are."""


class Uncertainty(Struct, frozen=True, kw_only=True):
    """Half-widths in % that each hold 95 %, and all together."""

    total_percent: float
    count_percent: float
    strokes_percent: float
    ripple_percent: float
    reading_time_percent: float


class Startup(Struct, frozen=True, kw_only=True):
    """The first two hours of the stretch of which the beginning is known best."""

    began_utc_ms: int
    start_seen: bool
    flow_ml_h: tuple[float, ...]
    """Q_i, one each half minute."""


class Accuracy(Struct, frozen=True, kw_only=True):
    """What the counter shows of the pump's accuracy at one set rate."""

    set_rate_ml_h: float
    counter_ml: float
    """One count, as it was reckoned with."""
    counter_is_coarser: bool
    """Whether that is more than the order states."""
    settled: bool
    """Whether the first hour of each stretch is left out, as it should be."""
    stretches: int
    analysed_ms: int
    settling_ms: int
    """What lies before the analysis in its stretches, and in stretches too short for any."""
    other_rates_ms: int
    """Steady stretches at another set rate."""
    began_utc_ms: int
    """The beginning of the first stretch."""
    mean_error_percent: float
    uncertainty: Uncertainty
    trumpet: tuple[Window, ...]
    startup: Startup


class _Analysed(Struct, frozen=True):
    """The part of a stretch from ``begin`` on, volumes from 0."""

    stretch: Stretch
    begin: int

    @property
    def samples(self) -> int:
        return self.stretch.samples - self.begin

    @property
    def volume_ml(self) -> float:
        return self.stretch.volumes_ml[-1] - self.stretch.volumes_ml[self.begin]

    def error_sums_percent(self) -> _Numbers:
        """The running sum of 100 (Q_i - r) / r, from 0."""
        volumes_ml = np.frombuffer(self.stretch.volumes_ml)[self.begin :]
        due_ml = np.arange(len(volumes_ml)) * (self.stretch.rate_ml_h * SAMPLE_MS / MS_PER_HOUR)
        per_sample_ml = self.stretch.rate_ml_h * SAMPLE_MS / MS_PER_HOUR
        sums: _Numbers = 100 * (volumes_ml - volumes_ml[0] - due_ml) / per_sample_ml
        return sums


def accuracy(recorded: Recorded, pump: PumpExpected) -> Accuracy:
    """All three, at the set rate of which there is most. Raises AccuracyError."""
    _check(recorded)
    stated_ml, least_ml = pump.counter_ml, recorded.least_count_ml
    is_coarser = least_ml is not None and least_ml > COARSER_COUNTS * stated_ml
    counter_ml = least_ml if is_coarser and least_ml is not None else stated_ml
    rate_ml_h, settled = _rate_with_most(recorded.stretches)
    chosen = [stretch for stretch in recorded.stretches if stretch.rate_ml_h == rate_ml_h]
    parts = [part for stretch in chosen if (part := _analysed(stretch, settled)) is not None]
    volume_ml = sum(part.volume_ml for part in parts)
    samples = sum(part.samples for part in parts)
    due_ml = rate_ml_h * samples * SAMPLE_MS / MS_PER_HOUR
    all_samples = sum(stretch.samples for stretch in chosen)
    others = sum(stretch.samples for stretch in recorded.stretches) - all_samples
    return Accuracy(
        set_rate_ml_h=rate_ml_h,
        counter_ml=counter_ml,
        counter_is_coarser=is_coarser,
        settled=settled,
        stretches=len(parts),
        analysed_ms=samples * SAMPLE_MS,
        settling_ms=(all_samples - samples) * SAMPLE_MS,
        other_rates_ms=others * SAMPLE_MS,
        began_utc_ms=parts[0].stretch.began_utc_ms,
        mean_error_percent=100 * (volume_ml - due_ml) / due_ml,
        uncertainty=_uncertainty(parts, due_ml, counter_ml, pump),
        trumpet=_trumpet(parts, rate_ml_h, counter_ml),
        startup=_startup(chosen),
    )


def floor_percent(counter_ml: float, window_min: float, rate_ml_h: float) -> float:
    """How much error one count can feign or hide in a window: 100 q 60 / (P r)."""
    return 100 * counter_ml * 60 / (window_min * rate_ml_h)


def _check(recorded: Recorded) -> None:
    if not recorded.running_seen:
        raise AccuracyError("the pump was never 'running' in these readings; take a recording of an infusion")
    if not recorded.volume_seen:
        raise AccuracyError(
            "no reading has a volume_ml; record with a pump that reports its counter (dripwatch families)"
        )
    if not recorded.rate_seen:
        raise AccuracyError(
            "no running reading has a rate_ml_h, and without the set rate there is no error;"
            " record with a pump that reports it (dripwatch families)"
        )
    if not recorded.stretches:
        raise AccuracyError(
            "the pump nowhere ran for 2 min at one set rate while its counter moved;"
            " record longer, or read it more often"
        )
    if all(stretch.volumes_ml[-1] == stretch.volumes_ml[0] for stretch in recorded.stretches):
        raise AccuracyError(
            "nothing was delivered: the counter stood still while the pump said 'running';"
            " look at the line and at the pump"
        )


def _rate_with_most(stretches: list[Stretch]) -> tuple[float, bool]:
    """The set rate with the longest analysis, and whether its first hours can be left out."""
    for settled in (True, False):
        samples: dict[float, int] = {}
        for stretch in stretches:
            part = _analysed(stretch, settled)
            if part is not None:
                samples[stretch.rate_ml_h] = samples.get(stretch.rate_ml_h, 0) + part.samples
        if samples and (max(samples.values()) >= WINDOWS_MIN[-1] * _SAMPLES_PER_MIN or not settled):
            return max(samples, key=samples.__getitem__), settled
    raise AccuracyError("no stretch at one set rate holds two counts; record longer")


def _analysed(stretch: Stretch, settled: bool) -> _Analysed | None:
    """The part to be analysed: from the second hour on, and from where the counter tells the volume well."""
    earliest = SETTLING_MIN * _SAMPLES_PER_MIN if settled else 0
    last = stretch.samples - LEAST_SAMPLES
    if earliest > last:
        return None
    spacings_ms = np.frombuffer(stretch.spacings_ms)[earliest : last + 1]
    well_known = np.flatnonzero(np.isfinite(spacings_ms))
    return _Analysed(stretch, earliest + int(well_known[0]) if len(well_known) else earliest)


def _uncertainty(parts: list[_Analysed], due_ml: float, counter_ml: float, pump: PumpExpected) -> Uncertainty:
    """Variances in mL2 of each part, added over the parts."""
    count = strokes = ripple = reading_time = 0.0
    for part in parts:
        rate_ml_h = part.stretch.rate_ml_h
        for index in (part.begin, -1):
            known_to_ml = _known_to_ml(part.stretch, index, counter_ml)
            count += known_to_ml**2 / 12
        strokes += STROKE_VARIANCE * pump.stroke_ml * part.volume_ml
        ripple += 2 * (pump.ripple_ml / 2) ** 2 / 2  # two ends of a sine
        may_be_old_ml = rate_ml_h * (pump.poll_ms / 3 + TIMING_MS) / MS_PER_HOUR
        reading_time += 2 * may_be_old_ml**2 / 12

    def half_width_percent(variance_ml2: float) -> float:
        return 100 * COVERAGE_DEVIATIONS * sqrt(variance_ml2) / due_ml

    return Uncertainty(
        total_percent=half_width_percent(count + strokes + ripple + reading_time),
        count_percent=half_width_percent(count),
        strokes_percent=half_width_percent(strokes),
        ripple_percent=half_width_percent(ripple),
        reading_time_percent=half_width_percent(reading_time),
    )


def _known_to_ml(stretch: Stretch, index: int, counter_ml: float) -> float:
    """The width of the interval in which the volume lies: a count, or what flows between two readings."""
    spacing_ms = stretch.spacings_ms[index]
    if not isfinite(spacing_ms):
        return counter_ml
    return min(counter_ml, stretch.rate_ml_h * spacing_ms / MS_PER_HOUR)


def _trumpet(parts: list[_Analysed], rate_ml_h: float, counter_ml: float) -> tuple[Window, ...]:
    sums_percent = [part.error_sums_percent() for part in parts]
    trumpet: list[Window] = []
    for window_min in WINDOWS_MIN:
        length = window_min * _SAMPLES_PER_MIN
        means = [(sums[length:] - sums[:-length]) / length for sums in sums_percent if len(sums) > length]
        trumpet.append(
            Window(
                window_min=window_min,
                ep_max_percent=max((float(mean.max()) for mean in means), default=None),
                ep_min_percent=min((float(mean.min()) for mean in means), default=None),
                floor_percent=floor_percent(counter_ml, window_min, rate_ml_h),
                windows=sum(len(mean) for mean in means),
            )
        )
    return tuple(trumpet)


def _startup(chosen: list[Stretch]) -> Startup:
    """Of the first stretch that was seen to start; of the first of all where none was."""
    stretch = next((one for one in chosen if one.start_seen), chosen[0])
    volumes_ml = np.frombuffer(stretch.volumes_ml)[: STARTUP_MIN * _SAMPLES_PER_MIN + 1]
    flow_ml_h = np.diff(volumes_ml) * (MS_PER_HOUR / SAMPLE_MS)
    return Startup(
        began_utc_ms=stretch.began_utc_ms,
        start_seen=stretch.start_seen,
        flow_ml_h=tuple(flow_ml_h.tolist()),
    )
