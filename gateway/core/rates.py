"""Is the pump set to the ordered rate? ``wrong_rate`` and ``titrated`` of prescription page, section 3."""

from __future__ import annotations

from itertools import accumulate

from msgspec import structs

from alerts.catalogue import row
from alerts.condition import Kind
from drivers.reading import PumpState, Reading
from gateway.core import assess
from gateway.core.assess import RateVerdict
from gateway.core.case import CONFIRMING_READINGS, Case
from gateway.core.counter import MS_PER_HOUR
from gateway.core.memory import Doing
from gateway.core.occurrence import Occurrence

_NOWHERE = (0.0, -1.0, 0.0)
_ROUNDING = 0.005
"""So far a display may round the phases' rate: 33.3 for 33.33 mL/h is no titration."""


class Rates:
    """Judges the set rate."""

    def __init__(self, case: Case) -> None:
        self._case = case
        starts_ms = list(accumulate((phase.duration_ms for phase in case.schedule.phases), initial=0))
        self._flats = [
            (start_ms, end_ms, phase.from_ml_h)
            for phase, start_ms, end_ms in zip(
                case.schedule.phases, starts_ms[:-1], starts_ms[1:], strict=True
            )
            if not phase.is_ramp
        ]
        self.flat = _NOWHERE
        """The part of the course around now in which the rate is certainly constant: from, to, mL/h."""

    def _allowed_rates(self, occurrence: Occurrence | None) -> tuple[tuple[float, float], ...]:
        if occurrence is None:
            return self._case.course.rates_between(0, self._case.course.length_ms)
        slack_ms = 2 * self._case.poll_ms + occurrence.uncertain_ms
        tau_ms = min(occurrence.tau_ms, float(self._case.course.length_ms))
        return self._case.course.rates_between(tau_ms - slack_ms, tau_ms + slack_ms)

    def forget(self) -> None:
        """Another occurrence begins."""
        self.flat = _NOWHERE

    def with_bolus_named(self, reading: Reading) -> Reading:
        """The same reading; of a pump that has no word for a bolus, and shows its rate, as ``bolus``.

        During a bolus the set rate is that with the bolus (readings.csv, ``rate_ml_h``).
        """
        demand = self._case.order.demand
        if demand is None or demand.bolus_over_ms is None:
            return reading
        if reading.state is not PumpState.RUNNING or reading.rate_ml_h is None:
            return reading
        ordered_ml_h = self.ordered_ml_h(self._case.memory.occurrence)
        with_bolus_ml_h = ordered_ml_h + demand.bolus_ml * MS_PER_HOUR / demand.bolus_over_ms
        tolerance = self._case.limits.tolerance
        if reading.rate_ml_h <= ordered_ml_h * (1 + tolerance) + assess.DISPLAY_MARGIN_ML_H:
            return reading
        if abs(reading.rate_ml_h - with_bolus_ml_h) > with_bolus_ml_h * tolerance:
            return reading
        return structs.replace(reading, state=PumpState.BOLUS)

    def verdict(self, occurrence: Occurrence | None, reading: Reading) -> RateVerdict:
        """Whether the set rate is right now. A rate that is not shown is not wrong."""
        rate_ml_h = reading.rate_ml_h
        if rate_ml_h is None or reading.state is not PumpState.RUNNING:
            return RateVerdict.RIGHT
        tolerance = self._case.limits.tolerance
        if occurrence is not None:
            flat_from_ms, flat_to_ms, flat_ml_h = self.flat
            if not flat_from_ms <= occurrence.tau_ms <= flat_to_ms:
                self.flat = self._flat_part(occurrence)
            elif abs(rate_ml_h - flat_ml_h) <= flat_ml_h * tolerance:
                return RateVerdict.RIGHT
        ordered_ml_h = self.ordered_ml_h(occurrence)
        verdict = assess.judge_rate(rate_ml_h, self._allowed_rates(occurrence), ordered_ml_h, tolerance)
        titration = self._case.order.titration
        if verdict is RateVerdict.RIGHT or titration is None:
            return verdict
        if rate_ml_h < titration.min_ml_h - assess.DISPLAY_MARGIN_ML_H:
            return RateVerdict.BELOW
        if rate_ml_h > titration.max_ml_h + assess.DISPLAY_MARGIN_ML_H:
            return RateVerdict.ABOVE
        return RateVerdict.RIGHT if self._may_be_titrated(rate_ml_h, ordered_ml_h) else verdict

    def _may_be_titrated(self, rate_ml_h: float, ordered_ml_h: float) -> bool:
        """Whether the bedside may change the rate to this one now: step and interval of ``[titration]``."""
        titration = self._case.order.titration
        assert titration is not None, "asked only where there is a range"
        memory = self._case.memory
        base_ml_h = ordered_ml_h if memory.titrated_ml_h is None else memory.titrated_ml_h
        change_ml_h = abs(rate_ml_h - base_ml_h)
        if change_ml_h <= assess.DISPLAY_MARGIN_ML_H:
            return True
        if titration.step_ml_h is not None and change_ml_h > titration.step_ml_h + assess.DISPLAY_MARGIN_ML_H:
            return False
        if titration.min_interval_ms is None or memory.titrated_t_ms is None:
            return True
        return memory.t_ms - memory.titrated_t_ms >= titration.min_interval_ms - self._case.poll_ms

    def ordered_ml_h(self, occurrence: Occurrence | None) -> float:
        """The rate that is ordered now; at the very end, and after it, the last."""
        if occurrence is None:
            return self._case.course.rate_ml_h(0)
        return self._case.course.rate_ml_h(min(occurrence.tau_ms, self._case.course.length_ms - 1))

    def _flat_part(self, occurrence: Occurrence) -> tuple[float, float, float]:
        """Where around now the rate is constant whatever the slack, for the quick way through."""
        slack_ms = 2 * self._case.poll_ms + occurrence.uncertain_ms
        for start_ms, end_ms, rate_ml_h in self._flats:
            if start_ms + slack_ms <= occurrence.tau_ms <= end_ms - slack_ms:
                return (start_ms + slack_ms, end_ms - slack_ms, rate_ml_h)
        return _NOWHERE

    def is_of_next(self, reading: Reading) -> bool:
        """Whether the set rate is that with which an occurrence begins, and not that with which it ends."""
        rate_ml_h = reading.rate_ml_h
        if rate_ml_h is None or reading.state is not PumpState.RUNNING:
            return False
        course = self._case.course
        slack_ms = 2 * self._case.poll_ms
        tolerance = self._case.limits.tolerance
        first = course.rates_between(0, slack_ms)
        last = course.rates_between(course.length_ms - slack_ms, course.length_ms)
        if assess.judge_rate(rate_ml_h, last, rate_ml_h, tolerance) is RateVerdict.RIGHT:
            return False
        return assess.judge_rate(rate_ml_h, first, rate_ml_h, tolerance) is RateVerdict.RIGHT

    def judge(self, reading: Reading, t_ms: int) -> None:
        """Say what has become of the set rate with this reading."""
        memory = self._case.memory
        occurrence = memory.occurrence
        anchored = memory.next_number is not None
        if reading.state is not PumpState.RUNNING or reading.rate_ml_h is None:
            return  # a rate that is not shown neither raises nor ends anything
        if memory.doing is not Doing.DELIVERING or (occurrence is None and anchored):
            memory.rate_is_wrong = False
            memory.wrong_readings = 0
            return
        verdict = self.verdict(occurrence, reading)
        memory.rate_is_wrong = verdict is not RateVerdict.RIGHT
        if verdict is RateVerdict.RIGHT:
            memory.wrong_readings = 0
            self._case.findings.absent(Kind.WRONG_RATE, t_ms, "The set rate is right again.")
            self._note_titration(occurrence, reading.rate_ml_h, t_ms)
            return
        memory.wrong_readings += 1
        if memory.wrong_readings == 1:
            memory.wrong_since_t_ms = t_ms
        if memory.wrong_readings < CONFIRMING_READINGS:
            return
        self._case.findings.present(
            Kind.WRONG_RATE,
            t_ms,
            self._wrong_rate_words(reading.rate_ml_h, self.ordered_ml_h(occurrence), verdict),
            priority=row(Kind.WRONG_RATE).priority(self._case.order.urgency, verdict.value),
            since_t_ms=memory.wrong_since_t_ms,
        )

    def _wrong_rate_words(self, rate_ml_h: float, ordered_ml_h: float, verdict: RateVerdict) -> str:
        words = f"The pump is set to {assess.rate(rate_ml_h)} instead of {assess.rate(ordered_ml_h)}"
        slip = assess.slip(rate_ml_h, ordered_ml_h, self._case.order)
        if slip is not None:
            return f"{words}, {slip}"
        if verdict is RateVerdict.BELOW:
            return f"{words}: slowed or held? Ask about a reaction."
        return f"{words}."

    def _note_titration(self, occurrence: Occurrence | None, rate_ml_h: float, t_ms: int) -> None:
        """A change away from the rate of the phases, or back to it; a step or a ramp of theirs is none."""
        memory = self._case.memory
        if self._case.order.titration is None or occurrence is None:
            return
        was_ml_h = memory.titrated_ml_h
        if was_ml_h is not None and abs(rate_ml_h - was_ml_h) <= assess.DISPLAY_MARGIN_ML_H:
            return
        of_the_phases = self._is_of_the_phases(occurrence, rate_ml_h)
        if was_ml_h is None and of_the_phases:
            return
        before_ml_h = self.ordered_ml_h(occurrence) if was_ml_h is None else was_ml_h
        memory.titrated_ml_h = None if of_the_phases else rate_ml_h
        memory.titrated_t_ms = t_ms
        self._case.findings.present(
            Kind.TITRATED,
            t_ms,
            f"Rate changed from {assess.rate(before_ml_h)} to {assess.rate(rate_ml_h)},"
            " within the ordered range.",
        )

    def _is_of_the_phases(self, occurrence: Occurrence, rate_ml_h: float) -> bool:
        """Whether this is the phases' own rate, as a display rounds it, and a pump makes steps of a ramp."""
        flat_from_ms, flat_to_ms, flat_ml_h = self.flat
        if flat_from_ms <= occurrence.tau_ms <= flat_to_ms:
            return abs(rate_ml_h - flat_ml_h) <= max(flat_ml_h * _ROUNDING, assess.DISPLAY_MARGIN_ML_H)
        allowed = self._allowed_rates(occurrence)
        ordered_ml_h = self.ordered_ml_h(occurrence)
        verdict = assess.judge_rate(rate_ml_h, allowed, ordered_ml_h, self._case.limits.tolerance)
        return verdict is RateVerdict.RIGHT
