"""How soon a shift can be found at best: what the deadlines of the tests are made of."""

from __future__ import annotations

import math


def the_bound_s(
    rate_ml_h: float,
    beyond: float,
    counter_ml: float,
    stroke_ml: float,
    ripple_ml: float,
    poll_s: float = 5.0,
) -> float:
    """Delay in s of a test that is told the shift, at the worst phase of counter and mechanism.

    ``beyond`` is the shift beyond the edge of the tolerance, as a fraction::

        q / r + min over k of (B + c h(k) / (2 k)) / ((beyond - k) r),    B = ripple + r x one poll

    with h from the two years between false alarms on one side, at I = 2 k^2 r / c an hour.
    """
    walk_ml = 0.0025 * stroke_ml
    rate_ml_s = rate_ml_h / 3600
    bounded_ml = ripple_ml + rate_ml_s * poll_s
    best_s = math.inf
    for part in range(1, 100):
        k = beyond * part / 100
        information = 2 * k * k * rate_ml_h / walk_ml
        level = 1.0
        for _ in range(30):
            level = math.log(2 * 8766 * information + level + 1)
        best_s = min(best_s, (bounded_ml + walk_ml * level / (2 * k)) / ((beyond - k) * rate_ml_s))
    return counter_ml / rate_ml_s + best_s
