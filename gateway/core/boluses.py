"""Boluses: found, told apart from what the phases give, and judged by ``[demand]`` (prescription page,
sections 1.1, rule 6, and 3).

A bolus is found by the state ``bolus`` (``rates.py`` names it where the pump only shows its rate) or, where
one can have begun and ended between two readings, by its counts. It is certain with the second reading that
says so, or as soon as more is counted than the phases can have given. Without a bolus an ordinary reading
needs nothing here.
"""

from __future__ import annotations

from math import inf, sqrt

from msgspec import structs

from alerts.condition import Kind
from drivers.reading import PumpState, Reading
from gateway.core import assess
from gateway.core.assess import RateVerdict
from gateway.core.bolus_ledger import (
    NEARLY_EVERY,
    NO_LONGER_NEARLY_EVERY,
    Bolus,
    Given,
    demands,
    is_prompt,
    most_between,
    pattern_window_ms,
    prompt_share,
    remembered_ms,
)
from gateway.core.case import CONFIRMING_READINGS, Case
from gateway.core.counter import MS_PER_HOUR
from gateway.core.delivery import STROKE_VARIANCE, TIMING_MS
from gateway.core.memory import Carry
from gateway.core.occurrence import Occurrence
from gateway.core.prescription import Demand
from gateway.core.rates import Rates

WALK_DEVIATIONS = 4
"""So many standard deviations of the strokes' random walk are no surplus."""
MOST_WAITS = 2
"""A count of the phases, and after it the first part of a bolus; what comes together in more is judged."""
LOOK_AGAIN_MS = 60_000
"""While there is a pattern of demands, how often it is looked at though nothing happens."""
LOCKOUT_SETTING_MARGIN_S = 1.0
"""A lockout is shown in whole seconds."""
BOLUS_SETTING_MARGIN_ML = 0.005
"""Half a digit of the display; never more than the tolerance of the bolus."""

_HELD_UP_STATES = frozenset({PumpState.PAUSED, PumpState.ALARM})


class Boluses:
    """Follows each bolus from its beginning to its last count."""

    def __init__(self, case: Case, rates: Rates) -> None:
        self._case = case
        self._rates = rates
        self._ledger = case.memory.boluses
        self._demand = case.order.demand
        self._bounded_ml = case.expected.counter_ml + case.expected.ripple_ml
        self._remembered_ms = 0.0 if self._demand is None else remembered_ms(self._demand)

    # --- found -------------------------------------------------------------------------------------------

    def see(self, reading: Reading, t_ms: int, *, length_known: bool) -> None:
        """What this reading says of a bolus, before its counts are looked at.

        Needed only with the state ``bolus``, while a bolus is on, and after a gap of unknown length.
        """
        ledger = self._ledger
        if not length_known:
            ledger.forget_times()
        now = ledger.now
        if reading.state is PumpState.BOLUS:
            says_so = self._says_so(reading)
            if now is None or now.ended_t_ms is not None:
                if self._demand is None and not says_so and reading.rate_ml_h is not None:
                    return  # it only calls the phases' own delivery so
                now = self._open(t_ms, length_known, before=now)
            now.by_counts = False
            now.seen_t_ms = t_ms
            now.readings += says_so
        elif (
            now is not None
            and now.ended_t_ms is None
            and not now.by_counts
            and not self._is_held_up(now, reading, t_ms)
        ):
            now.ended_t_ms = t_ms

    def _says_so(self, reading: Reading) -> bool:
        """Whether the state alone makes this a bolus: a pump may call the phases' own delivery so."""
        if reading.rate_ml_h is None:
            return self._demand is not None or self._case.memory.counter_ml is None
        as_running = structs.replace(reading, state=PumpState.RUNNING)
        return self._rates.verdict(self._case.memory.occurrence, as_running) is RateVerdict.ABOVE

    def _open(self, t_ms: int, length_known: bool, *, before: Bolus | None) -> Bolus:
        """A bolus has begun since the last reading. ``before``: one whose last counts have not come."""
        last_t_ms = self._case.memory.seen_t_ms
        if last_t_ms is None or not length_known:
            last_t_ms = t_ms - round(self._remembered_ms)  # nobody knows how long it has been on
        now = Bolus(begun_after_t_ms=last_t_ms, begun_t_ms=t_ms, seen_t_ms=t_ms)
        if before is not None:
            now.at_most += before.at_most
            now.counted_ml, now.ordered_ml, now.own_ml = (
                before.counted_ml,
                before.ordered_ml,
                before.own_ml,
            )
            if before.certain:
                self._file(before, 0.0)
        self._ledger.now = now
        return now

    def _is_held_up(self, now: Bolus, reading: Reading, t_ms: int) -> bool:
        """Whether the bolus is only interrupted: it is short, and may go on."""
        demand = self._demand
        if demand is None or reading.state not in _HELD_UP_STATES or self._case.memory.counter_ml is None:
            return False
        whole_ml = demand.bolus_ml * (1 - self._case.limits.tolerance) - self._case.expected.counter_ml
        return now.volume_ml < whole_ml and t_ms - now.seen_t_ms < demand.lockout_ms

    # --- told apart --------------------------------------------------------------------------------------

    def separate(
        self, occurrence: Occurrence, delivered_ml: float, high_ml: float, carry: Carry, t_ms: int
    ) -> tuple[float, float]:
        """What of a counted volume is the phases' own, and the most that may be held against it.

        ``high_ml`` is the most that the phases gave since the last counter value (``carry``).
        """
        ledger = self._ledger
        now = ledger.now
        demand = self._demand
        if now is None and demand is not None and (delivered_ml > high_ml or ledger.waits):
            waited_ml, ledger.waiting_ml = ledger.waiting_ml, 0.0
            surplus_ml = delivered_ml - high_ml
            largest_ml = self._bounded_ml + 2 * high_ml
            if not self._may_be_hidden(demand, carry.elapsed_ms):
                return delivered_ml, high_ml
            if demand.bolus_ml <= 2 * largest_ml:
                allowed_ml = self._allowance_ml(occurrence, demand, surplus_ml, carry.elapsed_ms, t_ms)
                return delivered_ml, high_ml + allowed_ml
            if surplus_ml <= largest_ml:
                ledger.waits = ledger.waits + 1 if surplus_ml > 0 else 0
                if 0 < ledger.waits <= MOST_WAITS:
                    ledger.waiting_ml = surplus_ml
                return delivered_ml, high_ml
            occurrence.bank.forgive_over(waited_ml)
            now = self._open_by_counts(demand, carry.elapsed_ms, t_ms)
        if now is None:
            return delivered_ml, high_ml
        return self._take(now, occurrence, delivered_ml, high_ml, t_ms)

    def _may_be_hidden(self, demand: Demand, elapsed_ms: int) -> bool:
        """Whether a bolus can have begun and ended since the last counter value without being seen."""
        if not self._ledger.state_seen or demand.bolus_over_ms is None:
            return True
        return demand.bolus_over_ms <= 2 * elapsed_ms

    def _open_by_counts(self, demand: Demand, elapsed_ms: int, t_ms: int) -> Bolus:
        # a first part of it may be too small to be told from a count of the phases
        begun_after_t_ms = t_ms - elapsed_ms - self._case.poll_ms
        now = Bolus(begun_after_t_ms=begun_after_t_ms, begun_t_ms=t_ms, seen_t_ms=t_ms, by_counts=True)
        now.at_most = most_between(demand, elapsed_ms)
        self._ledger.now = now
        return now

    def _take(
        self, now: Bolus, occurrence: Occurrence, delivered_ml: float, high_ml: float, t_ms: int
    ) -> tuple[float, float]:
        if now.ordered_ml == 0.0:
            # which counts of the phases fall into a bolus, and which of its counts beside it, is not seen
            occurrence.bank.forgive_under(self._bounded_ml)
            occurrence.bank.forgive_over(self._bounded_ml)
        now.counted_ml += delivered_ml
        now.ordered_ml += high_ml
        own_ml = now.counted_ml
        if now.readings or now.by_counts or now.certain or self._is_more_than_ordered(now):
            own_ml = min(own_ml, now.ordered_ml)
        if now.by_counts:
            if delivered_ml > 2 * high_ml + self._bounded_ml:
                now.seen_t_ms = t_ms
            else:
                now.ended_t_ms = t_ms
                if not self._is_half_a_bolus(now):
                    own_ml = now.counted_ml  # no bolus: the phases flow too fast
        own_ml, now.own_ml = own_ml - now.own_ml, own_ml
        return own_ml, max(high_ml, own_ml) if now.volume_ml > 0 else high_ml

    def _is_more_than_ordered(self, now: Bolus) -> bool:
        """Whether more has been counted than the phases can have given."""
        rate_ml_h = self._rates.ordered_ml_h(self._case.memory.occurrence)
        slack_ml = self._bounded_ml + rate_ml_h * 2 * self._case.poll_ms / MS_PER_HOUR
        return now.counted_ml > now.ordered_ml * (1 + self._case.limits.tolerance) + slack_ml

    def _is_half_a_bolus(self, now: Bolus) -> bool:
        return self._demand is not None and now.counted_ml - now.ordered_ml >= self._demand.bolus_ml / 2

    def _allowance_ml(
        self, occurrence: Occurrence, demand: Demand, surplus_ml: float, elapsed_ms: int, t_ms: int
    ) -> float:
        """Of boluses that cannot be told from the phases' counts: what they may give is no surplus."""
        ledger = self._ledger
        last_t_ms = ledger.allowance_t_ms
        most_ml = demand.bolus_ml * most_between(demand, elapsed_ms)
        if last_t_ms is None:
            ledger.allowance_ml = most_ml
        else:
            earned_ml = demand.bolus_ml * (t_ms - last_t_ms) / demand.lockout_ms
            ledger.allowance_ml = min(most_ml, ledger.allowance_ml + earned_ml)
        ledger.allowance_t_ms = t_ms
        taken_ml = min(ledger.allowance_ml, max(0.0, surplus_ml))
        ledger.allowance_ml -= taken_ml
        occurrence.untold_ml += taken_ml
        return taken_ml

    def outside(self, delivered_ml: float, elapsed_ms: int) -> None:
        """The same outside an occurrence, where nobody knows which phase the pump is in."""
        now = self._ledger.now
        if now is None or self._demand is None:
            return
        phases = self._case.schedule.phases
        most_ml_h = max(max(phase.from_ml_h, phase.to_ml_h) for phase in phases)
        now.counted_ml += delivered_ml
        now.ordered_ml += most_ml_h * elapsed_ms / MS_PER_HOUR
        now.own_ml = min(now.counted_ml, now.ordered_ml)

    def longest_unhidden_ms(self) -> float | None:
        """A bolus of this pump is seen in every two readings that lie less than this apart.

        Infinite without ``[demand]``; ``None`` if a bolus can only be told from the counts.
        """
        if self._demand is None:
            return inf
        over_ms = self._demand.bolus_over_ms
        return (over_ms - 1) / 2 if self._ledger.state_seen and over_ms is not None else None

    # --- judged ------------------------------------------------------------------------------------------

    def judge(self, reading: Reading, t_ms: int) -> None:
        """What has become of the bolus that is on, of the pattern of demands, and of the pump's settings."""
        ledger = self._ledger
        if ledger.now is not None:
            self._follow(ledger.now, reading, t_ms)
        if ledger.look_t_ms is not None and t_ms >= ledger.look_t_ms:
            self._judge_pattern(t_ms)
        if reading.bolus_ml is not None or reading.lockout_s is not None:
            self._judge_program(reading, t_ms)

    def _follow(self, now: Bolus, reading: Reading, t_ms: int) -> None:
        if not now.certain and self._is_certain(now):
            now.certain = True
            self._ledger.state_seen = self._ledger.state_seen or now.readings > 0
            self._begun(now, t_ms)
        if now.certain and self._demand is not None and not now.too_much_told:
            self._judge_volume(now, self._demand, t_ms)
        shows_counter = self._case.memory.counter_ml is not None
        if now.ended_t_ms is not None and (reading.volume_ml is not None or not shows_counter):
            self._ledger.now = None
            if now.certain:
                self._file(now, now.volume_ml)
                self._judge_pattern(t_ms)

    def _is_certain(self, now: Bolus) -> bool:
        if now.by_counts:
            return self._is_half_a_bolus(now)
        if now.readings >= CONFIRMING_READINGS or self._is_more_than_ordered(now):
            return True
        # a short one is seen once; its counts must show it if the pump has any that are fine enough
        fine = self._demand is not None and self._demand.bolus_ml > 2 * self._bounded_ml
        shown = self._case.memory.counter_ml is not None and fine
        return now.ended_t_ms is not None and now.readings > 0 and not shown

    def _begun(self, now: Bolus, t_ms: int) -> None:
        """It is a bolus: may there be one?"""
        demand = self._demand
        if demand is None:
            self._case.findings.present(
                Kind.BOLUS_NOT_ORDERED,
                t_ms,
                "The pump gives a bolus, and none is ordered.",
                since_t_ms=now.begun_t_ms,
            )
        elif self._ledger.given:
            self._judge_lockout(now, self._ledger.given[-1], demand, t_ms)

    def _judge_lockout(self, now: Bolus, last: Given, demand: Demand, t_ms: int) -> None:
        """Within the lockout by more than a poll, whenever between their readings the two really began."""
        if demand.lockout_from_end:
            from_t_ms, earliest_t_ms, edge = last.ended_t_ms, last.seen_t_ms, "end"
        else:
            from_t_ms, earliest_t_ms, edge = last.begun_t_ms, last.begun_after_t_ms, "start"
        longest_ms = now.begun_t_ms - earliest_t_ms + TIMING_MS
        if longest_ms >= demand.lockout_ms - self._case.poll_ms:
            return
        self._case.findings.present(
            Kind.BOLUS_IN_LOCKOUT,
            t_ms,
            f"A bolus began {assess.minutes(max(0, now.begun_t_ms - from_t_ms))} after the {edge} of the last"
            f" one; at least {assess.minutes(demand.lockout_ms)} are ordered.",
            since_t_ms=now.begun_t_ms,
        )

    def _judge_volume(self, now: Bolus, demand: Demand, t_ms: int) -> None:
        """One bolus, and all within the window, as the volume comes."""
        ordered_ml = demand.bolus_ml * now.at_most
        if now.volume_ml > self._most_ml(ordered_ml):
            many = "one bolus" if now.at_most == 1 else f"{now.at_most} boluses"
            words = f"pump counted {assess.volume(now.volume_ml)} by bolus"
            words += f", and {assess.volume(ordered_ml)} are ordered for {many}"
        elif demand.limit_ml is not None and now.begun_after_t_ms >= t_ms - demand.limit_window_ms:
            before_ml = self._ledger.given_after_ml(t_ms - demand.limit_window_ms + TIMING_MS)
            in_window_ml = before_ml + min(now.volume_ml, ordered_ml)
            if in_window_ml <= self._most_ml(demand.limit_ml):
                return
            words = f"pump counted {assess.volume(in_window_ml)} by bolus within"
            words += f" {assess.minutes(demand.limit_window_ms)}"
            words += f", and at most {assess.volume(demand.limit_ml)} are ordered"
        else:
            return
        now.too_much_told = True
        self._case.findings.present(
            Kind.BOLUS_LIMIT_EXCEEDED,
            t_ms,
            f"More by bolus than ordered: {words}.",
            since_t_ms=now.begun_t_ms,
        )

    def _most_ml(self, ordered_ml: float) -> float:
        """What may be counted of an ordered volume before it is more than tolerated."""
        walk_ml = WALK_DEVIATIONS * sqrt(STROKE_VARIANCE * self._case.expected.stroke_ml * ordered_ml)
        return ordered_ml * (1 + self._case.limits.tolerance) + self._bounded_ml + walk_ml

    def _file(self, bolus: Bolus, volume_ml: float) -> None:
        """It is over, and will be remembered as long as anything hangs on it."""
        demand = self._demand
        if demand is None:
            return
        ledger = self._ledger
        ordered_ml = demand.bolus_ml * bolus.at_most
        alone = bolus.at_most == 1
        ledger.forget_before(bolus.seen_t_ms - round(self._remembered_ms))
        ledger.given.append(
            Given(
                bolus.begun_after_t_ms,
                bolus.begun_t_ms,
                bolus.seen_t_ms,
                bolus.seen_t_ms if bolus.ended_t_ms is None else bolus.ended_t_ms,
                volume_ml if volume_ml > self._most_ml(ordered_ml) else min(volume_ml, ordered_ml),
                alone and is_prompt(ledger, demand, bolus.begun_t_ms, self._case.poll_ms),
            )
        )

    # --- demands -----------------------------------------------------------------------------------------

    def asked(self, t_ms: int, *, refused: bool) -> None:
        """The pump has reported that the patient asked for a bolus, or that it refused one."""
        if self._demand is None:
            return
        (self._ledger.refused_t_ms if refused else self._ledger.asked_t_ms).append(t_ms)
        self._ledger.forget_before(t_ms - round(self._remembered_ms))
        self._judge_pattern(t_ms)

    def _judge_pattern(self, t_ms: int) -> None:
        demand = self._demand
        if demand is None:
            return
        ledger = self._ledger
        share = prompt_share(ledger, demand, t_ms)
        asked = demands(ledger, t_ms)
        if self._case.findings.is_present(Kind.DEMAND_PATTERN):
            if share < NO_LONGER_NEARLY_EVERY and not asked.goes_on():
                ledger.look_t_ms = None
                self._case.findings.absent(
                    Kind.DEMAND_PATTERN, t_ms, "The patient's demands are no longer unusual."
                )
                return
        elif share >= NEARLY_EVERY:
            window = assess.minutes(pattern_window_ms(demand))
            self._case.findings.present(
                Kind.DEMAND_PATTERN,
                t_ms,
                f"In {window} {share:.0%} of all possible boluses were given, each about as soon as it could"
                " be: who presses, can the patient be roused, is the pain controlled?",
            )
        elif asked.is_pattern():
            self._case.findings.present(
                Kind.DEMAND_PATTERN,
                t_ms,
                f"In 2 h {asked.asked} boluses were asked for and {asked.given} given:"
                " who presses, and is the pain controlled?",
            )
        else:
            return
        ledger.look_t_ms = t_ms + LOOK_AGAIN_MS

    # --- settings ----------------------------------------------------------------------------------------

    def _judge_program(self, reading: Reading, t_ms: int) -> None:
        """Bolus and lockout as set. What the pump does not show neither raises nor ends anything."""
        demand = self._demand
        if demand is None:
            return
        ledger = self._ledger
        if reading.bolus_ml is not None:
            margin_ml = min(BOLUS_SETTING_MARGIN_ML, demand.bolus_ml * self._case.limits.tolerance)
            right = abs(reading.bolus_ml - demand.bolus_ml) <= margin_ml + 1e-9
            ledger.bolus_setting_wrong = 0 if right else ledger.bolus_setting_wrong + 1
        if reading.lockout_s is not None:
            right = abs(reading.lockout_s - demand.lockout_ms / 1000) <= LOCKOUT_SETTING_MARGIN_S
            ledger.lockout_setting_wrong = 0 if right else ledger.lockout_setting_wrong + 1
        wrong: list[str] = []
        if ledger.bolus_setting_wrong >= CONFIRMING_READINGS and reading.bolus_ml is not None:
            wrong.append(
                f"a bolus of {assess.volume(reading.bolus_ml)} instead of {assess.volume(demand.bolus_ml)}"
            )
        if ledger.lockout_setting_wrong >= CONFIRMING_READINGS and reading.lockout_s is not None:
            wrong.append(
                f"a lockout of {assess.minutes(reading.lockout_s * 1000)}"
                f" instead of {assess.minutes(demand.lockout_ms)}"
            )
        if wrong:
            self._case.findings.present(
                Kind.PROGRAM_CHANGED, t_ms, f"The pump is set to {' and '.join(wrong)}."
            )
        elif not ledger.bolus_setting_wrong and not ledger.lockout_setting_wrong:
            self._case.findings.absent(
                Kind.PROGRAM_CHANGED, t_ms, "Bolus and lockout are set as ordered again."
            )
