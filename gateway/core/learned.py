"""How much more or less a pump counts than it is set to: its own constant error, learnt from its doses.

From long stretches at one set rate, counted volume is compared with set rate x time. What comes together in
one dose (or several small ones) is one value of the error, once its own uncertainty is small enough: one
count and the ripple at both ends of each stretch, what flows while a reading is on its way, and the random
walk of the strokes. The error of the pump is the mean of the latest values. How far the mean may be wrong is
told by their scatter (Student's t), and never taken to be less than doses differ anyway: bag, set and syringe
are new each time. A value beyond the maker's accuracy is a fault and no property of the pump, and is not
learnt; nor is what was counted while a deviation was open.

What has been learnt is told, and decides nothing: it is said with a deviation, and shown with the state.
Within the rules of the prescription page it cannot find a deviation sooner. Delivery inside the tolerance is
never a deviation, also not that of a pump that has changed and is still inside; so every test must bear a
pump at the very edge of the tolerance, whatever it was like before, and the thresholds are set for that one
(``delivery.py``). Lower ones, with which a pump known to be 5 % inside would be as seldom accused as one at
the edge is now, are a quick way to accuse it when it has come to the edge: at 10 mL/h and counts of 0.01 mL
399 of 400 simulated pumps there within 42 h, and none with the thresholds as they are. And a test that has
nothing against a pump stands at 0: a good past is no credit that a deviation must use up first.
"""

from __future__ import annotations

from math import sqrt

from msgspec import Struct

from drivers.reading import PumpState, Reading
from gateway.core.counter import MS_PER_HOUR
from gateway.core.delivery import STROKE_VARIANCE, TIMING_MS
from gateway.core.prescription import PumpExpected

LEAST_COUNTS = 20
"""A stretch that should have given fewer counts tells nothing."""
VALUE_WITHIN = 0.005
"""A value of the error is one when its own standard error is at most this, as a fraction."""
BETWEEN_DOSES = 0.005
"""Bag, set and syringe make at least this much difference from dose to dose (standard deviation)."""
LEAST_VALUES = 3
LATEST_VALUES = 20
_STUDENT_T = (12.71, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
"""97.5 % points for 1 to 10 degrees of freedom; more are taken for 10."""


class Stretch(Struct, frozen=True, array_like=True):
    """The beginning of delivery at one set rate."""

    t_ms: int
    counter_ml: float
    rate_ml_h: float


class Learned(Struct):
    """What is remembered of a pump's error."""

    serial: str | None = None
    """Whose error it is, if the pump says its serial number."""
    stretch: Stretch | None = None
    """The one that goes on."""
    begun_t_ms: int | None = None
    """When the dose was begun from which the sums below last grew."""
    commanded_ml: float = 0.0
    counted_ml: float = 0.0
    variance_ml2: float = 0.0
    """Of ``counted_ml``."""
    values: tuple[float, ...] = ()
    """The latest values of the error, as fractions."""


class PumpError(Struct, frozen=True, kw_only=True):
    """A pump's constant error, as fractions of what it is set to; positive if it counts more."""

    error: float
    half_width: float
    """Of the 95 % interval."""


def pump_error(values: tuple[float, ...]) -> PumpError | None:
    """The mean of the values and how far it may be wrong; ``None`` of fewer than three."""
    count = len(values)
    if count < LEAST_VALUES:
        return None
    mean = sum(values) / count
    scatter = sum((value - mean) ** 2 for value in values) / (count - 1)
    student_t = _STUDENT_T[min(count - 1, len(_STUDENT_T)) - 1]
    return PumpError(error=mean, half_width=student_t * sqrt(max(scatter, BETWEEN_DOSES**2) / count))


class Learning:
    """Takes the readings of one pump; only ``learned`` is changed."""

    def __init__(self, learned: Learned, pump: PumpExpected, poll_ms: int) -> None:
        self._learned = learned
        self._pump = pump
        self.longest_ms = 4 * poll_ms
        """A stretch does not go on over a longer silence."""
        """Longer between two readings, and a pause might not have been seen."""
        self._on_the_way_ms = poll_ms / 3 + TIMING_MS
        self.error = pump_error(learned.values)
        """What is known of the pump now."""

    def is_ordinary(self, reading: Reading, elapsed_ms: int, counter_ml: float | None) -> bool:
        """Whether a stretch simply goes on with this reading; ``counter_ml`` is that of the one before."""
        stretch = self._learned.stretch
        return (
            stretch is not None
            and reading.rate_ml_h == stretch.rate_ml_h
            and reading.state is PumpState.RUNNING
            and reading.volume_ml is not None
            and counter_ml is not None
            and reading.volume_ml >= counter_ml
            and elapsed_ms <= self.longest_ms
            and (reading.serial is None or reading.serial == self._learned.serial)
        )

    def end_stretch(self, t_ms: int | None, counter_ml: float | None) -> None:
        """The stretch, if one goes on, ended with a reading at ``t_ms`` that showed this counter."""
        learned = self._learned
        stretch, learned.stretch = learned.stretch, None
        if stretch is None or t_ms is None or counter_ml is None:
            return
        pump = self._pump
        commanded_ml = stretch.rate_ml_h * (t_ms - stretch.t_ms) / MS_PER_HOUR
        if commanded_ml < LEAST_COUNTS * pump.counter_ml:
            return
        on_the_way_ml = stretch.rate_ml_h * self._on_the_way_ms / MS_PER_HOUR
        learned.commanded_ml += commanded_ml
        learned.counted_ml += counter_ml - stretch.counter_ml
        learned.variance_ml2 += (
            pump.counter_ml**2 / 6
            + pump.ripple_ml**2 / 4
            + on_the_way_ml**2
            + STROKE_VARIANCE * pump.stroke_ml * commanded_ml
        )

    def begin_stretch(self, reading: Reading, t_ms: int, begun_t_ms: int) -> None:
        """Delivery goes on steadily from here, in the dose that was begun at ``begun_t_ms``."""
        learned = self._learned
        if learned.begun_t_ms != begun_t_ms:
            learned.begun_t_ms = begun_t_ms
            self._take_value()
        if reading.state is PumpState.RUNNING and reading.rate_ml_h and reading.volume_ml is not None:
            learned.stretch = Stretch(t_ms, reading.volume_ml, reading.rate_ml_h)

    def give_up_stretch(self) -> None:
        """What was counted in it is not to be learnt."""
        self._learned.stretch = None

    def hear_serial(self, serial: str) -> None:
        """Another pump: what was known of the one before says nothing of this one."""
        learned = self._learned
        if learned.serial not in (None, serial):
            self.forget()
        learned.serial = serial

    def forget(self) -> None:
        """Begin anew."""
        learned = self._learned
        learned.stretch = learned.begun_t_ms = None
        learned.commanded_ml = learned.counted_ml = learned.variance_ml2 = 0.0
        learned.values = ()
        self.error = None

    def _take_value(self) -> None:
        """A dose is over: is what has come together enough for a value of the error?"""
        learned = self._learned
        commanded_ml = learned.commanded_ml
        if not commanded_ml or sqrt(learned.variance_ml2) > VALUE_WITHIN * commanded_ml:
            return
        value = learned.counted_ml / commanded_ml - 1
        learned.commanded_ml = learned.counted_ml = learned.variance_ml2 = 0.0
        if abs(value) <= self._pump.accuracy:
            learned.values = (*learned.values, value)[-LATEST_VALUES:]
            self.error = pump_error(learned.values)
