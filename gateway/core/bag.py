"""What is left in the bag: ``[bag]`` and ``bag_empty_soon`` (prescription page, sections 1 and 3).

A bag is full when the infusion starts and after each explained reset of the counter. What the pump counts is
taken from it: the phases' own, boluses, keep-vein-open, and priming, which does nothing else (section 1.1,
rule 7). A bag that runs empty when the volume counts as in (rule 4) is as it should be.
"""

from __future__ import annotations

from math import floor, inf

from alerts.condition import Kind
from drivers.reading import PumpAlarm, PumpState, Reading
from gateway.core import assess
from gateway.core.case import DELIVERING_STATES, Case
from gateway.core.counter import MS_PER_HOUR
from gateway.core.memory import Doing
from gateway.core.occurrence import Occurrence
from gateway.core.rates import Rates

NEARLY_OVER_MS = 900_000
"""How soon a pump may call its bag nearly empty before the end of a dose without anybody being told, where
the order says nothing of the bag."""
REMAINS_SHARE = 0.5
"""Nobody begins a dose with a bag that holds less than this of it: a new one was hung."""
_LOOK_AGAIN_SHARE = 0.01


class BagWatch:
    """Says when the bag will be empty too early."""

    def __init__(self, case: Case, rates: Rates) -> None:
        self._case = case
        self._rates = rates
        self._bag = case.order.bag

    def judge(self, reading: Reading, t_ms: int) -> None:
        """Take what the pump says of its bag, and look whether what is left is enough.

        On a reading without news only the occurrence's time and what was taken are compared with the bounds
        that were found when it was last looked at.
        """
        memory = self._case.memory
        hung = memory.bag
        occurrence = memory.occurrence
        if occurrence is None:
            return
        if (
            not reading.alarms
            and not hung.has_news()
            and hung.number == occurrence.number
            and reading.rate_ml_h == memory.rate_ml_h
            and reading.state is memory.pump_state
            and occurrence.tau_ms <= hung.look_again_tau_ms
            and hung.taken_ml <= hung.look_again_ml
        ):
            return
        if hung.number != occurrence.number:
            self._begin(occurrence)
        self._hear(reading)
        if hung.is_new:
            hung.is_new = False
            self._case.findings.absent(Kind.BAG_EMPTY_SOON, t_ms, "A new bag hangs.")
        words = self._why_too_soon(occurrence, reading)
        if words is not None:
            self._case.findings.present(Kind.BAG_EMPTY_SOON, t_ms, words)
        elif not hung.ran_empty:  # what was told of a bag that is empty now ends with a new one (section 3)
            self._case.findings.absent(
                Kind.BAG_EMPTY_SOON,
                t_ms,
                "By the pump's count the bag holds enough for the rest of the dose.",
            )

    def empty_in_ms(self) -> int | None:
        """In how long the bag will be empty at the present set rate; ``None`` if it is not known, or not so.

        During a bolus the rate of the phases holds: it goes on after it.
        """
        memory = self._case.memory
        if memory.doing is not Doing.DELIVERING or not memory.bag.number:
            return None
        left_ml = self._left_ml()
        rate_ml_h = self._rate_ml_h(memory.pump_state, memory.rate_ml_h)
        if left_ml is None or rate_ml_h <= 0:
            return None
        return round(left_ml / rate_ml_h * MS_PER_HOUR)

    def _hear(self, reading: Reading) -> None:
        codes = reading.alarms
        if codes is None:
            return
        hung = self._case.memory.bag
        hung.near_empty = PumpAlarm.NEAR_EMPTY in codes
        if PumpAlarm.EMPTY in codes:
            hung.ran_empty = True
        elif hung.ran_empty and reading.state in DELIVERING_STATES:
            hung.hang()  # it delivers again: from a bag whose change the counter has not shown

    def _begin(self, occurrence: Occurrence) -> None:
        """Another occurrence: the infusion starts, or goes on from the bag of the one before."""
        hung = self._case.memory.bag
        taken_ml = occurrence.delivered_ml
        left_ml = self._left_ml() or 0.0
        if not hung.number or left_ml + taken_ml < REMAINS_SHARE * self._case.course.volume_ml:
            hung.hang()
            hung.taken_ml = taken_ml
        hung.is_new = hung.near_empty = hung.ran_empty = False
        hung.number = occurrence.number

    def _left_ml(self) -> float | None:
        """What the bag still holds by the pump's count; ``None`` if that is not known."""
        if self._bag is None or self._case.memory.counter_ml is None:
            return None
        return max(0.0, self._bag.volume_ml - self._case.memory.bag.taken_ml)

    def _why_too_soon(self, occurrence: Occurrence, reading: Reading) -> str | None:
        """Why somebody must be told that the bag will be empty too early; ``None`` if nobody must."""
        hung = self._case.memory.bag
        left_ml = self._left_ml()
        hung.look_again_tau_ms = hung.look_again_ml = inf
        if hung.ran_empty or self._case.volume_in():
            return None
        course_ml = self._case.course.volume_ml
        given_ml = occurrence.delivered_ml if occurrence.counter_seen else occurrence.expected_ml
        to_come = f"{assess.volume(max(0.0, course_ml - given_ml))} of the dose are still to come"
        short = left_ml is not None and given_ml + left_ml < self._case.enough_ml
        if left_ml is not None and self._bag is not None:
            rate_ml_h = self._rate_ml_h(reading.state, reading.rate_ml_h)
            lasts_ms = self._lasts_ms(occurrence, left_ml, rate_ml_h)
            early_ms = lasts_ms - self._bag.warn_before_ms
            if short and (early_ms <= 0 or self._is_told_and_stands(reading)):
                hung.look_again_tau_ms = hung.look_again_ml = 0.0
                return (
                    f"Bag empty soon: by the pump's count {assess.volume(left_ml)} are left in it,"
                    f" enough for {assess.minutes(lasts_ms)}, and {to_come}."
                )
            if short:
                hung.look_again_tau_ms = occurrence.tau_ms + early_ms
                hung.look_again_ml = hung.taken_ml + left_ml * early_ms / lasts_ms
            else:
                # only a bolus, priming or keep-vein-open can make it short; between two counts, where it is
                # the same however the counts were added up
                count_ml = self._case.expected.counter_ml
                counts = floor(_LOOK_AGAIN_SHARE * self._bag.volume_ml / count_ml) + 0.5
                hung.look_again_ml = hung.taken_ml + counts * count_ml
        if hung.near_empty and (short or not self._is_nearly_over(left_ml)):
            return f"The pump reports that its bag or syringe is nearly empty, and {to_come}."
        return None

    def _is_told_and_stands(self, reading: Reading) -> bool:
        """While the pump stands, what was told of the bag stands too."""
        return reading.state not in DELIVERING_STATES and self._case.findings.is_present(Kind.BAG_EMPTY_SOON)

    def _is_nearly_over(self, left_ml: float | None) -> bool:
        """Whether the dose ends so soon that a bag that is nearly empty is as it should be."""
        soon_ms = NEARLY_OVER_MS if self._bag is None or left_ml is None else self._bag.warn_before_ms
        return self._case.left_ms() <= soon_ms

    def _lasts_ms(self, occurrence: Occurrence, left_ml: float, rate_ml_h: float) -> float:
        """How long the bag will last while the pump delivers: as ordered, or at the set rate if by that."""
        memory = self._case.memory
        course = self._case.course
        by_order = not memory.rate_is_wrong and self._case.order.titration is None
        reached_ml = course.expected_ml(occurrence.tau_ms) + left_ml
        if by_order and reached_ml < course.volume_ml:
            return course.tau_of_volume(reached_ml) - occurrence.tau_ms
        return left_ml / max(rate_ml_h, 1e-6) * MS_PER_HOUR

    def _rate_ml_h(self, state: PumpState, set_ml_h: float | None) -> float:
        """The rate to reckon with: the set one while it runs at it, else that which is ordered now."""
        if state is PumpState.RUNNING and set_ml_h:
            return set_ml_h
        return self._rates.ordered_ml_h(self._case.memory.occurrence)
