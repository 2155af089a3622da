"""What the mechanism makes of the motor's turns: strokes that differ, a ripple, and a counter.

The noise model: one stroke's volume varies by 5 %, so the delivered volume walks with variance 0.0025 x
stroke x volume (prescription page, ``stroke_ml``). The ripple is a sine in time, by default of 2 min; the
volume by which delivery runs ahead or behind stays within ``ripple_ml`` peak to peak (same page).
"""

from __future__ import annotations

import random
from array import array
from math import cos, floor, pi, sin

import numpy as np
from numpy.typing import NDArray

from simulator.therapy import MS_PER_H, PumpSetting

STROKE_DEVIATION = 0.05
"""Standard deviation of one stroke's volume."""
STROKE_DEVIATIONS_MOST = 4.0
"""A stroke never lies further off than so many of them: it always moves forwards."""
RIPPLE_MOST = 0.5
"""Largest share of the flow that the ripple may be: delivery never runs backwards."""
ROUNDING_COUNTS = 1e-6
"""Sums of binary fractions end just below a whole count; this lifts them over it."""


class Strokes:
    """The mechanism's volume as a function of the motor's: each stroke with an error of its own.

    The errors are drawn in the order of the strokes, as far as needed, from the seed: so the volume after a
    given number of strokes does not depend on when somebody asked for it.
    """

    def __init__(self, seed: int, stroke_ml: float) -> None:
        self._random = random.Random(f"{seed} strokes")
        self._stroke_ml = stroke_ml
        self._after_ml = array("d", [0.0])

    def volume_ml(self, motor_ml: float) -> float:
        """What has left the mechanism after so much motor volume, calibration and ripple apart."""
        strokes = motor_ml / self._stroke_ml
        whole = int(strokes)
        after_ml = self._after_ml
        self._draw(whole)
        return after_ml[whole] + (strokes - whole) * (after_ml[whole + 1] - after_ml[whole])

    def volumes_ml(self, motor_ml: NDArray[np.float64]) -> NDArray[np.float64]:
        """The same for many motor volumes."""
        strokes = motor_ml / self._stroke_ml
        whole = strokes.astype(np.int64)
        self._draw(int(whole.max(initial=0)))
        after_ml = np.frombuffer(self._after_ml, dtype=np.float64)[: int(whole.max(initial=0)) + 2].copy()
        volumes: NDArray[np.float64] = after_ml[whole] + (strokes - whole) * (
            after_ml[whole + 1] - after_ml[whole]
        )
        return volumes

    def _draw(self, whole: int) -> None:
        """Errors for so many strokes and the next."""
        after_ml, most = self._after_ml, STROKE_DEVIATIONS_MOST
        while len(after_ml) <= whole + 1:
            error = max(-most, min(most, self._random.gauss(0.0, 1.0)))
            after_ml.append(after_ml[-1] + self._stroke_ml * (1 + STROKE_DEVIATION * error))


def ripple_share(ripple_ml: float, highest_ml_h: float, period_ms: int) -> float:
    """The ripple as a share of the flow: at ``highest_ml_h`` it swings the volume by ``ripple_ml``.

    A share a of the flow swings the volume by a x flow x period / pi, peak to peak.
    """
    period_ml = highest_ml_h * period_ms / MS_PER_H
    return min(RIPPLE_MOST, ripple_ml * pi / period_ml) if period_ml else 0.0


def ripple_volume_ml(
    share: float, rate_ml_h: float, slope_ml_h_ms: float, *, from_ms: float, length_ms: int, period_ms: int
) -> float:
    """What the ripple adds over ``length_ms``: the integral of share x rate x sine, the rate a straight line.

    ``from_ms`` is where in its cycles the mechanism stands, ``rate_ml_h`` the rate there.
    """
    if not share:
        return 0.0
    turn = 2 * pi / period_ms
    begin, end = turn * from_ms, turn * (from_ms + length_ms)
    end_ml_h = rate_ml_h + slope_ml_h_ms * length_ms
    waves = rate_ml_h * cos(begin) - end_ml_h * cos(end)
    waves += slope_ml_h_ms * (sin(end) - sin(begin)) / turn
    return share * waves / turn / MS_PER_H


def counter_shows(counted_ml: float, setting: PumpSetting) -> float:
    """The counter's display: whole counts, cut off below, back to 0 at the wrap."""
    if setting.counter_wrap_ml:
        counted_ml %= setting.counter_wrap_ml
    return round(floor(counted_ml / setting.counter_ml + ROUNDING_COUNTS) * setting.counter_ml, 6)
