"""What the counter shows, against what was ordered (prescription page, sections 1.1 and 3)."""

from __future__ import annotations

from math import sqrt

from alerts.condition import Kind
from drivers.reading import PumpState, Reading
from gateway.core import assess
from gateway.core.assess import RateVerdict
from gateway.core.boluses import Boluses
from gateway.core.case import CONFIRMING_READINGS, DELIVERING_STATES, Case
from gateway.core.counter import MS_PER_HOUR, CounterFall, delivered_across_fall
from gateway.core.delivery import (
    STROKE_VARIANCE,
    DayVolume,
    Deviation,
    Excess,
    Mark,
    RateLimit,
    decidable_volume_ml,
    thresholds_ml,
)
from gateway.core.learned import Learning
from gateway.core.memory import Carry, Doing
from gateway.core.occurrence import Occurrence
from gateway.core.rates import Rates

DECIDABLE_SHIFT = 0.2
"""The verdict is "too early" until a shift this far beyond the tolerance would have been found."""
STANDSTILL_SHARE = 0.8
"""A deficit is a standstill if this much of it arose since the counter last moved, ..."""
OVERDUE_COUNTS = 1.2
"""... and this many counts are due and none has come; before that the counter may be slow."""
STANDSTILL_COUNTS = 5.0
"""With so many counts due and none come it stands still, whatever was missing before."""
STOPPING_SHARE = 0.5
"""A deficit of which this much arose in the last interval may come from a pump that stopped within it."""
COUNTS_KEPT_UP = 1.5
"""So many counts must come as ordered before delivery has kept up: the tests look as if it had for about one
count while a flow that is too slow or too fast goes on."""
TELLING_WITHIN = 0.01
"""The pump's own error is told with a deviation if it is known to this, as a fraction."""

_COUNTING_STATES = frozenset({PumpState.RUNNING, PumpState.BOLUS, PumpState.KVO})


class Volumes:
    """Counts what the patient was given, tests it against the order, and judges the hard limits."""

    def __init__(self, case: Case, rates: Rates, boluses: Boluses, learning: Learning) -> None:
        self._case = case
        self._rates = rates
        self._boluses = boluses
        self._learning = learning
        self._thresholds: tuple[float, ...] = ()
        self._thresholds_for_ml_h = -1.0
        self._missing_ml = 0.0
        """How much less was counted in the last interval than was due in it."""
        self.highest_ml_h = self._highest_allowed_ml_h()
        """The highest rate that may be right at any time, boluses included."""
        self.allowed_ml_h = (case.limits.max_rate_ml_h or 0.0) * (1 + case.expected.accuracy)
        """The hard limit of rate, with the pump's accuracy; meaningless where there is none."""
        self.surplus_allowed_ml = self._surplus_allowed_ml()
        """How far the test of the hard limit of rate may go."""
        between_counts_ml = self.surplus_allowed_ml - case.expected.counter_ml
        self._surplus_kept_ml = max(0.0, min(self.surplus_allowed_ml / 2, between_counts_ml))
        """How far it must come back until the limit is kept again: further than between two counts."""
        self.most_ml = self._most_ml(case.course.volume_ml)
        """What may be counted in a whole occurrence before it is more than tolerated."""
        if case.memory.day is None and case.limits.max_volume_ml is not None:
            case.memory.day = DayVolume([])
        if case.memory.rate_limit is None and case.limits.max_rate_ml_h is not None:
            case.memory.rate_limit = RateLimit()

    def count(self, reading: Reading, t_ms: int, elapsed_ms: int, *, length_known: bool) -> float | None:
        """What the patient was given since the last counter value; ``None`` if there is no value now."""
        memory = self._case.memory
        carry = memory.carry
        self._missing_ml = 0.0
        carry.elapsed_ms += elapsed_ms
        carry.length_unknown = carry.length_unknown or not length_known
        carry.stopped = carry.stopped or reading.state not in _COUNTING_STATES
        carry.priming = carry.priming or reading.state is PumpState.PRIMING
        value_ml = reading.volume_ml
        if value_ml is None:
            return None
        previous_ml, memory.counter_ml = memory.counter_ml, value_ml
        if previous_ml is None:
            return 0.0
        delivered_ml = value_ml - previous_ml
        if delivered_ml < 0:
            delivered_ml = self._across_fall(previous_ml, value_ml, reading, t_ms)
        memory.bag.taken_ml += delivered_ml
        if carry.priming:
            delivered_ml = min(delivered_ml, self._besides_priming_ml(reading, carry))
        if memory.day is not None:
            memory.day.add(t_ms, delivered_ml)
        known = not carry.length_unknown
        if known and memory.rate_limit is not None and self._case.limits.max_rate_ml_h is not None:
            allowed_ml = self.allowed_ml_h * carry.elapsed_ms / MS_PER_HOUR
            memory.rate_limit.update(delivered_ml, allowed_ml, 2 * self.surplus_allowed_ml)
        return delivered_ml

    def begin_with_another_pump(self) -> None:
        """Another pump has been put in place of this one, and somebody has adopted it.

        What was given stays; its counter's first value was not delivered, and what it or the one before gave
        since the last reading has not been seen.
        """
        memory = self._case.memory
        memory.counter_ml = None
        memory.carry.fell = True

    def _across_fall(self, previous_ml: float, value_ml: float, reading: Reading, t_ms: int) -> float:
        memory = self._case.memory
        carry = memory.carry
        # a gap of which nobody knows the length may have been long enough for a reset
        unseen = carry.length_unknown or carry.elapsed_ms > self._case.limits.no_data_after_ms
        delivered = delivered_across_fall(
            previous_ml,
            value_ml,
            elapsed_ms=carry.elapsed_ms,
            may_be_reset=carry.stopped or unseen,
            counter_ml=self._case.expected.counter_ml,
            counter_wrap_ml=self._case.expected.counter_wrap_ml,
            # a pump within its accuracy may count more than it is set to
            highest_ml_h=max(self.highest_ml_h, self.allowed_ml_h),
            set_ml_h=max(memory.rate_ml_h or 0.0, reading.rate_ml_h or 0.0),
        )
        if delivered.fall is CounterFall.WRAPPED:
            return delivered.volume_ml
        carry.fell = True
        if memory.left_off is not None:
            memory.left_off.counter_reset = True
        occurrence = memory.occurrence
        if occurrence is not None:
            occurrence.counter_reset = True
            self.forgive_reset(occurrence)
        fell = f"from {assess.volume(previous_ml)} to {assess.volume(value_ml)}"
        if delivered.fall is CounterFall.RESET:
            self._case.findings.present(Kind.COUNTER_RESET, t_ms, f"The pump's counter was reset, {fell}.")
            memory.bag.hang()
            if self._case.order.bag is not None:
                full = assess.volume(self._case.order.bag.volume_ml)
                self._case.findings.present(Kind.BAG_CHANGED, t_ms, f"New bag taken to be hung, with {full}.")
        else:
            if occurrence is not None:
                # of the new value, up to a count was there before it fell
                occurrence.bank.forgive_over(self._case.expected.counter_ml)
            self._case.findings.present(
                Kind.COUNTER_RESET_UNEXPLAINED,
                t_ms,
                f"The pump's counter fell {fell} although the pump did not stop:"
                " ask what was done to the pump.",
            )
        return delivered.volume_ml

    def forgive_reset(self, occurrence: Occurrence) -> None:
        """A reset of the counter hides up to one count, once."""
        occurrence.uncounted_ml = 0.0
        occurrence.bank.forgive_under(self._case.expected.counter_ml)

    def _besides_priming_ml(self, reading: Reading, carry: Carry) -> float:
        """The most that can have gone to the patient where priming was seen (section 1.1, rule 7)."""
        rates = [
            rate or 0.0
            for state, rate in (
                (self._case.memory.pump_state, self._case.memory.rate_ml_h),
                (reading.state, reading.rate_ml_h),
            )
            if state in DELIVERING_STATES
        ]
        return max(rates, default=0.0) * carry.elapsed_ms / MS_PER_HOUR

    def bring_forward(
        self,
        occurrence: Occurrence,
        reading: Reading,
        t_ms: int,
        elapsed_ms: int,
        delivered_ml: float | None,
        length_known: bool,
    ) -> None:
        """Let the occurrence's own time pass up to this reading, and test what the counter shows of it."""
        memory = self._case.memory
        carry = memory.carry
        was_delivering = memory.doing is Doing.DELIVERING
        delivers = reading.state in DELIVERING_STATES
        # a pump that stood at both readings and has counted ran in between
        if was_delivering or delivers or delivered_ml:
            steady = was_delivering and delivers and length_known
            passed_ms = self._passed_ms(occurrence, elapsed_ms, delivered_ml, steady, length_known)
            tau_ms = occurrence.tau_ms
            occurrence.tau_ms = tau_ms + passed_ms
            low_ml, high_ml, ordered_ml = self._prescribed_ml(occurrence, tau_ms, elapsed_ms, reading, steady)
            occurrence.expected_ml += ordered_ml
            occurrence.unshown_ml += ordered_ml
            occurrence.last_delivery_t_ms = t_ms
            carry.low_ml += low_ml
            carry.high_ml += high_ml
            if not length_known:
                carry.low_ml, carry.high_ml = 0.0, max(carry.high_ml, delivered_ml or 0.0)
                occurrence.unseen_ml = self._case.expected.counter_ml
        if delivered_ml is not None:
            self._test(occurrence, delivered_ml, t_ms, reading)

    def bring_run_forward(
        self, reading: Reading, elapsed_ms: int, delivered_ml: float | None, length_known: bool
    ) -> None:
        """The same outside an occurrence: only how long and how much."""
        memory = self._case.memory
        run = memory.run
        if run is not None:
            before_ml = run.volume_ml
            run.volume_ml += delivered_ml or 0.0
            if length_known:
                ends = (memory.doing is Doing.DELIVERING) + (reading.state in DELIVERING_STATES)
                run.delivering_ms += elapsed_ms * ends / 2
            else:
                tau_of_volume = self._case.course.tau_of_volume
                run.delivering_ms += tau_of_volume(run.volume_ml) - tau_of_volume(before_ml)
        if delivered_ml is not None:
            self._boluses.outside(delivered_ml, memory.carry.elapsed_ms)
            memory.carry = _carry_from(reading)

    def _passed_ms(
        self,
        occurrence: Occurrence,
        elapsed_ms: int,
        delivered_ml: float | None,
        steady: bool,
        length_known: bool,
    ) -> float:
        """For how long the pump delivered in an interval: all of it, or an unknown part."""
        if steady:
            return float(elapsed_ms)
        unseen_ms = min(float(elapsed_ms), self._case.one_count_ms(occurrence.expected_ml))
        occurrence.uncertain_ms += max(unseen_ms, min(elapsed_ms, self._case.poll_ms))
        if delivered_ml is None and not length_known:
            return 0.0
        if delivered_ml is None or (elapsed_ms <= 2 * self._case.poll_ms and length_known):
            return elapsed_ms / 2
        reached_ms = self._case.course.tau_of_volume(
            self._case.course.expected_ml(occurrence.tau_ms) + delivered_ml
        )
        passed_ms = max(0.0, reached_ms - occurrence.tau_ms)
        return min(passed_ms, float(elapsed_ms)) if length_known else passed_ms

    def _prescribed_ml(
        self, occurrence: Occurrence, tau_ms: float, elapsed_ms: int, reading: Reading, steady: bool
    ) -> tuple[float, float, float]:
        """What was prescribed from ``tau_ms`` to the occurrence's time now: at least, at most, as ordered.

        While the set rate is wrong, or may be titrated, delivery is judged against the set rate (section 3).
        At a step, or on a ramp, the pump may be two polls ahead or behind, as for the set rate.
        """
        memory = self._case.memory
        now_ms = occurrence.tau_ms
        flat_from_ms, flat_to_ms, flat_ml_h = self._rates.flat
        if flat_from_ms <= tau_ms and now_ms <= flat_to_ms and steady:
            low_ml = high_ml = ordered_ml = flat_ml_h * (now_ms - tau_ms) / MS_PER_HOUR
        else:
            course = self._case.course
            slack_ms = 2 * self._case.poll_ms + occurrence.uncertain_ms
            ordered_ml = course.expected_ml(now_ms) - course.expected_ml(tau_ms)
            until_ms = tau_ms + elapsed_ms
            shifted = [
                course.expected_ml(until_ms + shift_ms) - course.expected_ml(tau_ms + shift_ms)
                for shift_ms in (-slack_ms, 0.0, slack_ms)
            ]
            low_ml = min(shifted) if steady else 0.0
            high_ml = max(shifted)
        set_before = memory.rate_ml_h
        set_now = reading.rate_ml_h
        titrated = self._case.order.titration is not None
        wrong = memory.rate_is_wrong or self._rates.verdict(occurrence, reading) is not RateVerdict.RIGHT
        if (titrated or wrong) and (set_before is not None or set_now is not None):
            rates = [rate for rate in (set_before, set_now) if rate is not None]
            if steady:
                low_ml = min(rates) * elapsed_ms / MS_PER_HOUR
                high_ml = max(rates) * elapsed_ms / MS_PER_HOUR
            else:
                high_ml = max(high_ml, max(rates) * elapsed_ms / MS_PER_HOUR)
            if titrated and not wrong:
                # after the phases' time nothing more is ordered, at whatever rate
                length_ms = self._case.course.length_ms
                ordered_ml = max(rates) * max(0.0, min(now_ms, length_ms) - tau_ms) / MS_PER_HOUR
        return low_ml, high_ml, ordered_ml

    def _test(self, occurrence: Occurrence, delivered_ml: float, t_ms: int, reading: Reading) -> None:
        """Hand what has come together since the last counter value to the tests, and begin a new carry."""
        memory = self._case.memory
        carry = memory.carry
        low_ml, high_ml = carry.low_ml, carry.high_ml
        if carry.fell:
            low_ml = min(low_ml, delivered_ml)  # what was counted before the fall has not been seen
        if carry.revised:
            low_ml, high_ml = min(low_ml, delivered_ml), max(high_ml, delivered_ml)
        memory.carry = _carry_from(reading)
        occurrence.counter_seen = True
        occurrence.unshown_ml = 0.0
        self._missing_ml = low_ml - delivered_ml
        if delivered_ml > 0:
            occurrence.uncounted_ml = 0.0
            occurrence.counted_t_ms = t_ms
        else:
            occurrence.uncounted_ml += low_ml
        own_ml, high_ml = self._boluses.separate(occurrence, delivered_ml, high_ml, carry, t_ms)
        occurrence.delivered_ml += own_ml
        if occurrence.unseen_ml > 0 and own_ml > high_ml:
            seen_ml = min(occurrence.unseen_ml, own_ml - high_ml)
            occurrence.unseen_ml -= seen_ml
            high_ml += seen_ml
        over_ms = self._case.course.length_ms - self._case.poll_ms - occurrence.uncertain_ms
        if occurrence.tau_ms > over_ms and high_ml < own_ml:
            high_ml = own_ml  # after the phases' time only the whole volume is judged
        mark = Mark(t_ms, occurrence.tau_ms, occurrence.expected_ml, occurrence.delivered_ml)
        occurrence.bank.update(low_ml, high_ml, own_ml, self._case.edges, mark)

    def _highest_allowed_ml_h(self) -> float:
        if self._case.limits.max_rate_ml_h is not None:
            return self._case.limits.max_rate_ml_h
        rates = [rate for phase in self._case.schedule.phases for rate in (phase.from_ml_h, phase.to_ml_h)]
        if self._case.order.titration is not None:
            rates.append(self._case.order.titration.max_ml_h)
        demand = self._case.order.demand
        bolus_ml_h = 0.0
        if demand is not None:
            bolus_ml_h = demand.bolus_ml * MS_PER_HOUR / max(demand.bolus_over_ms or 0, self._case.poll_ms)
        return (max(rates) + bolus_ml_h) * (1 + self._case.limits.tolerance)

    def judge(self, occurrence: Occurrence, t_ms: int) -> None:
        """Under- and over-infusion by the tests, a standstill, and the volume as a whole."""
        thresholds = self.thresholds_now(occurrence)
        bank = occurrence.bank
        count_ml = self._case.expected.counter_ml
        passed_ms = t_ms - (self._case.memory.seen_t_ms or t_ms)
        certain_ms = self._case.course.length_ms - 2 * self._case.poll_ms - occurrence.uncertain_ms
        if occurrence.tau_ms >= certain_ms or self._case.memory.boluses.now is not None:
            passed_ms = 0  # nothing more is sure to come, or a bolus hides it: it cannot be seen to keep up
        if self._case.findings.is_present(Kind.NO_DELIVERY) and occurrence.uncounted_ml == 0.0:
            self._case.findings.absent(Kind.NO_DELIVERY, t_ms, "The pump's counter moves again.")
            bank.under_ml = [
                min(value, threshold / 2) for value, threshold in zip(bank.under_ml, thresholds, strict=True)
            ]
        if self._stands_still(occurrence, thresholds):
            self._no_delivery(occurrence, t_ms)
        if occurrence.under is None:
            deficit = bank.too_little(thresholds)
            if deficit is not None:
                self._too_little(occurrence, deficit, t_ms)
            elif occurrence.suspected is not None:
                # the counter has moved after all, but later than the tests bear: it is slow
                self._under_infusion(occurrence, occurrence.suspected, t_ms)
        elif not occurrence.under.goes_on(bank.under_ml, thresholds, passed_ms, count_ml=count_ml):
            occurrence.under = None
            self._case.findings.absent(Kind.UNDER_INFUSION, t_ms, "Pump counted what was ordered again.")
        whole_exceeded = self._whole_is_exceeded(occurrence)
        if occurrence.over is None:
            waits = self._case.memory.boluses.waiting_ml > 0
            surplus = None if waits else bank.too_much(thresholds)
            if surplus is not None:
                occurrence.over = Deviation(self._took_ms(occurrence, surplus))
                self._case.findings.present(
                    Kind.OVER_INFUSION,
                    t_ms,
                    self._deviation_words("Over-infusion", occurrence, surplus, t_ms),
                    since_t_ms=surplus.since.t_ms,
                )
            elif whole_exceeded:
                self.judge_whole(occurrence, t_ms)
        elif not occurrence.over.goes_on(bank.over_ml, thresholds, passed_ms, count_ml=count_ml):
            occurrence.over = None
            if not whole_exceeded:
                self._case.findings.absent(Kind.OVER_INFUSION, t_ms, "Pump counted what was ordered again.")

    def judge_whole(self, occurrence: Occurrence, t_ms: int) -> None:
        """The occurrence's volume against what is ordered for it; also where it ends with that."""
        if self._whole_is_exceeded(occurrence):
            self._case.findings.present(
                Kind.OVER_INFUSION,
                t_ms,
                f"Over-infusion: pump counted {assess.volume(occurrence.delivered_ml)},"
                f" and {assess.volume(self._case.course.volume_ml)} are ordered for the whole dose.",
            )

    def _whole_is_exceeded(self, occurrence: Occurrence) -> bool:
        return occurrence.delivered_ml - occurrence.untold_ml > self.most_now_ml(occurrence)

    def most_now_ml(self, occurrence: Occurrence) -> float:
        """What may be counted in the whole occurrence as it stands: the phases' volume and what is tolerated.

        With ``[titration]`` the set rate is what is expected (section 1): where that has made more, that.
        """
        if self._case.order.titration is None or occurrence.expected_ml <= self._case.course.volume_ml:
            return self.most_ml
        return self._most_ml(occurrence.expected_ml)

    def _most_ml(self, volume_ml: float) -> float:
        pump = self._case.expected
        walk_ml = 4 * sqrt(STROKE_VARIANCE * pump.stroke_ml * volume_ml)
        return volume_ml * (1 + self._case.limits.tolerance) + pump.counter_ml + pump.ripple_ml + walk_ml

    def thresholds_now(self, occurrence: Occurrence) -> tuple[float, ...]:
        """The tests' thresholds at the rate of now: the ordered one, or the set one if judged by that."""
        rate_ml_h = self._rates.ordered_ml_h(occurrence)
        set_ml_h = self._case.memory.rate_ml_h
        if set_ml_h is not None and self._is_judged_by_set_rate():
            rate_ml_h = max(rate_ml_h, set_ml_h)
        if abs(rate_ml_h - self._thresholds_for_ml_h) > 0.05 * self._thresholds_for_ml_h:
            self._thresholds_for_ml_h = rate_ml_h
            self._thresholds = thresholds_ml(rate_ml_h * 1.05, self._case.expected, self._case.poll_ms)
        return self._thresholds

    def _is_judged_by_set_rate(self) -> bool:
        """Whether the set rate is what is expected: while it is wrong, or may be titrated (section 3)."""
        return self._case.memory.rate_is_wrong or self._case.order.titration is not None

    def _stands_still(self, occurrence: Occurrence, thresholds: tuple[float, ...]) -> bool:
        """Whether what is missing since the counter last moved is by itself enough to say so."""
        return occurrence.uncounted_ml > self.standstill_ml(thresholds)

    def standstill_ml(self, thresholds: tuple[float, ...]) -> float:
        """How much may be prescribed without a count before the counter is said to stand still."""
        pump = self._case.expected
        by_tests_ml = min(
            threshold / share
            for threshold, share in zip(thresholds, self._case.edges.under, strict=True)
            if share > 0
        )
        return max(STANDSTILL_COUNTS * pump.counter_ml + pump.ripple_ml, by_tests_ml)

    def _too_little(self, occurrence: Occurrence, deficit: Excess, t_ms: int) -> None:
        """Much less has been counted than was prescribed: does the counter move slowly, or not at all?

        If the deficit arose since the last count, both look the same until the next one is overdue: so long
        nothing is said; a test that is told the shift would have to wait as long. If the last interval fell
        short, the pump may have come to a stop within it: the next reading decides.
        """
        pump = self._case.expected
        standing_ml = occurrence.uncounted_ml * (1 - self._case.limits.tolerance - deficit.reference)
        mostly_standing = occurrence.uncounted_ml > 0 and standing_ml >= STANDSTILL_SHARE * deficit.value_ml
        arose_now = self._missing_ml >= STOPPING_SHARE * deficit.value_ml
        stopping = arose_now and occurrence.suspected is None
        if occurrence.uncounted_ml >= OVERDUE_COUNTS * pump.counter_ml + pump.ripple_ml:
            self._no_delivery(occurrence, t_ms)
        elif mostly_standing or stopping:
            occurrence.suspected = occurrence.suspected or deficit
        else:
            self._under_infusion(occurrence, deficit, t_ms)

    def _no_delivery(self, occurrence: Occurrence, t_ms: int) -> None:
        occurrence.suspected = None
        self._case.findings.present(
            Kind.NO_DELIVERY,
            t_ms,
            f"The pump says that it delivers, and its counter has stood still at"
            f" {assess.volume(self._case.memory.counter_ml or 0.0)}"
            f" for {assess.minutes(t_ms - occurrence.counted_t_ms)}.",
            since_t_ms=occurrence.counted_t_ms,
        )

    def _under_infusion(self, occurrence: Occurrence, deficit: Excess, t_ms: int) -> None:
        occurrence.suspected = None
        if self._case.findings.is_present(Kind.NO_DELIVERY):
            return
        occurrence.under = Deviation(self._took_ms(occurrence, deficit))
        self._case.findings.present(
            Kind.UNDER_INFUSION,
            t_ms,
            self._deviation_words("Under-infusion", occurrence, deficit, t_ms),
            since_t_ms=deficit.since.t_ms,
        )

    def _took_ms(self, occurrence: Occurrence, excess: Excess) -> float:
        """How long it took to be found; not less than the time after which the counter tells that it is over.

        Between two counts of a slow pump nothing is seen of a flow that is still wrong.
        """
        count_ms = self._case.one_count_ms(occurrence.expected_ml)
        set_ml_h = self._case.memory.rate_ml_h
        if set_ml_h and self._is_judged_by_set_rate():
            count_ms = max(count_ms, self._case.expected.counter_ml / set_ml_h * MS_PER_HOUR)
        found_ms = occurrence.tau_ms - excess.since.tau_ms
        return max(found_ms, 2 * self._case.poll_ms, COUNTS_KEPT_UP * count_ms)

    def _deviation_words(self, name: str, occurrence: Occurrence, excess: Excess, t_ms: int) -> str:
        """How much is counted, by how much it is beside the order, and with what flow since when."""
        since = excess.since
        difference_ml = occurrence.delivered_ml - occurrence.expected_ml
        percent = abs(difference_ml) / occurrence.expected_ml * 100 if occurrence.expected_ml > 0 else 0.0
        lasted_ms = max(occurrence.tau_ms - since.tau_ms, 1.0)
        flow_ml_h = (occurrence.delivered_ml - since.delivered_ml) * MS_PER_HOUR / lasted_ms
        ordered_ml_h = (occurrence.expected_ml - since.expected_ml) * MS_PER_HOUR / lasted_ms
        place = "ahead" if difference_ml > 0 else "behind"
        return (
            f"{name}: pump counted {assess.volume(occurrence.delivered_ml)},"
            f" {assess.volume(abs(difference_ml))} ({percent:.1f} %) {place};"
            f" flow {assess.rate(flow_ml_h)} instead of {assess.rate(ordered_ml_h)}"
            f" for about {assess.minutes(t_ms - since.t_ms)}{self._usual_words()}."
        )

    def _usual_words(self) -> str:
        """What the pump usually does, if that is known well enough to be told from nothing."""
        usual = self._learning.error
        if usual is None or abs(usual.error) < usual.half_width or usual.half_width > TELLING_WITHIN:
            return ""
        way = "more" if usual.error > 0 else "less"
        return f"; in earlier doses it counted {abs(usual.error) * 100:.1f} % {way} than it was set to"

    def judge_limits(self, reading: Reading, t_ms: int) -> None:
        """Hard limits of rate (programmed, delivered) and of volume in any 24 h."""
        memory = self._case.memory
        limits = self._case.limits
        if limits.max_rate_ml_h is None and limits.max_volume_ml is None:
            return
        passed: list[str] = []
        if limits.max_rate_ml_h is not None and memory.rate_limit is not None:
            # a rate that is not shown neither raises nor ends anything; what is primed goes to no patient
            if reading.rate_ml_h is not None and reading.state is not PumpState.PRIMING:
                too_fast = reading.rate_ml_h > limits.max_rate_ml_h + assess.DISPLAY_MARGIN_ML_H
                memory.above_limit_readings = memory.above_limit_readings + 1 if too_fast else 0
            if memory.above_limit_readings >= CONFIRMING_READINGS:
                passed.append(
                    f"set to {assess.rate(reading.rate_ml_h or memory.rate_ml_h or 0.0)},"
                    f" and never more than {assess.rate(limits.max_rate_ml_h)} are allowed"
                )
            elif memory.rate_limit.surplus_ml > self.surplus_allowed_ml:
                passed.append(
                    f"pump counted more than {assess.rate(limits.max_rate_ml_h)}, the most that is allowed"
                )
        if limits.max_volume_ml is not None and memory.day is not None:
            day_ml = memory.day.within_ml(t_ms)
            if day_ml > limits.max_volume_ml + self._case.expected.counter_ml:
                passed.append(
                    f"pump counted {assess.volume(day_ml)} within 24 h,"
                    f" and at most {assess.volume(limits.max_volume_ml)} are allowed"
                )
        if passed:
            self._case.findings.present(Kind.LIMIT_EXCEEDED, t_ms, f"Limit passed: {'; '.join(passed)}.")
        elif (
            limits.max_volume_ml is not None
            and reading.volume_ml is None
            and reading.state in _COUNTING_STATES
        ):
            return  # it delivers and does not say how much: that the limit is kept again is not known
        elif memory.above_limit_readings == 0 and (
            memory.rate_limit is None or memory.rate_limit.surplus_ml <= self._surplus_kept_ml
        ):
            self._case.findings.absent(Kind.LIMIT_EXCEEDED, t_ms, "The limit is kept again.")

    def _surplus_allowed_ml(self) -> float:
        limit_ml_h = self._case.limits.max_rate_ml_h or 0.0
        demand = self._case.order.demand
        # a bolus of which only the counts are seen comes all at once
        at_once_ml = demand.bolus_ml if demand is not None and demand.bolus_over_ms is None else 0.0
        return thresholds_ml(limit_ml_h, self._case.expected, self._case.poll_ms)[2] + at_once_ml

    def decidable_after_s(self) -> int | None:
        """In how long a clear shift would have been found; 0 now, ``None`` if the dose is over before.

        Time is that for which the pump delivers as ordered. ``None`` too where no counter was ever shown.
        """
        occurrence = self._case.memory.occurrence
        if occurrence is None or not occurrence.counter_seen:
            return None
        course = self._case.course
        needed_ml = decidable_volume_ml(
            self.thresholds_now(occurrence),
            DECIDABLE_SHIFT,
            self._case.expected,
            tolerance=self._case.limits.tolerance,
            poll_ml=self._thresholds_for_ml_h * self._case.poll_ms / MS_PER_HOUR,
        )
        missing_ml = occurrence.joined_at_ml + needed_ml - occurrence.expected_ml
        if missing_ml <= 0:
            return 0
        reached_ml = course.expected_ml(occurrence.tau_ms) + missing_ml
        if reached_ml > course.volume_ml:
            return None
        return max(1, round((course.tau_of_volume(reached_ml) - occurrence.tau_ms) / 1000))

    def counts_unseen(self) -> bool:
        """Whether the pump delivers, and has not shown its counter for as long as is silence."""
        memory = self._case.memory
        unseen_ms = memory.carry.elapsed_ms
        return memory.doing is Doing.DELIVERING and unseen_ms > self._case.limits.no_data_after_ms


def _carry_from(reading: Reading) -> Carry:
    """A new beginning at a reading with a counter value."""
    return Carry(
        stopped=reading.state not in _COUNTING_STATES,
        priming=reading.state is PumpState.PRIMING,
    )
