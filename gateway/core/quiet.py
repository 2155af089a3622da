"""Readings that bring no news: the quick way through the core.

Nearly every reading says what the one before it said, a few counts later. For these the judgements come to
nothing, and it is known beforehand until when: until a timer is up, a phase of the schedule ends, a volume is
reached, or a test goes beyond its threshold. ``Bounds`` holds all of that; ``passes`` takes a reading that
stays within, and does the sums alone. A reading that does not goes the whole way (``watch.py``) from a memory
that was not touched: with or without the quick way the same is told at the same time.
"""

from __future__ import annotations

from math import inf

from msgspec import Struct

from drivers.reading import PumpState, Reading
from gateway.core.boluses import Boluses
from gateway.core.case import Case
from gateway.core.counter import MS_PER_HOUR
from gateway.core.delivery import NOTHING_ML, Edges, Mark
from gateway.core.doses import Doses
from gateway.core.free_flow import surplus_begins_ml_h
from gateway.core.learned import Learning
from gateway.core.line import Line
from gateway.core.memory import Doing
from gateway.core.occurrence import Occurrence
from gateway.core.rates import Rates
from gateway.core.timeline import GapKind, Instant
from gateway.core.timers import Timers
from gateway.core.volumes import Volumes


class Bounds(Struct, frozen=True, kw_only=True):
    """What a reading must be like to bring no news."""

    state: PumpState
    rate_ml_h: float | None
    alarms: tuple[str, ...] | None
    serial: str | None
    t_until_ms: float
    """At this time a timer is up."""
    longest_ms: float
    """More time than this between two readings is a silence."""
    most_at_once_ml: float
    """More than this between two readings is something else than what goes on."""
    surplus_at_once_ml: float
    """More than this above what is ordered between two readings may be a bolus."""
    ordered_ml_h: float
    """What is prescribed now, without a step or a ramp; 0 where nothing is delivered."""
    tau_until_ms: float
    """There the part of the schedule with that rate ends."""
    delivered_until_ml: float
    """Beyond this volume of the occurrence it is too much, or the bag must be looked at."""
    uncounted_until_ml: float
    """With so much prescribed and no count the counter stands still."""
    thresholds: tuple[float, ...]
    """Of the tests on volume; empty where nothing is delivered."""
    edges: Edges
    """What these tolerate."""
    allowed_ml_h: float
    """The hard limit of rate, with the pump's accuracy."""
    surplus_until_ml: float
    """Beyond this surplus the hard limit of rate is passed."""
    day_until_ml: float
    flow_ml_h: float
    """What the pump is set to, and what may come beside it; 0 while it does not deliver."""
    flow_edge_ml_h: float
    """What moves faster than this is surplus, ..."""
    flow_until_ml: float
    """... and beyond so much of it there is free flow."""
    """Beyond this volume within 24 h the hard limit of volume may be passed."""


class Quiet:
    """Finds the bounds, and takes readings that stay within them."""

    def __init__(
        self,
        case: Case,
        *,
        rates: Rates,
        volumes: Volumes,
        timers: Timers,
        boluses: Boluses,
        learning: Learning,
        line: Line,
        doses: Doses,
    ) -> None:
        self._doses = doses
        self._line = line
        self._boluses = boluses
        self._learning = learning
        self._case = case
        self._rates = rates
        self._volumes = volumes
        self._timers = timers

    def bounds(self, reading: Reading) -> Bounds | None:
        """The bounds for readings like this one, the last that was judged; ``None`` if all must be judged."""
        memory = self._case.memory
        if (
            memory.present
            or memory.notices
            or memory.orders.waiting is not None
            or memory.next_number is None
            or memory.schedule_offset_ms is None
            or memory.run is not None
            or memory.counter_ml is None
            or memory.carry.elapsed_ms
            or memory.bag.has_news()
            or memory.boluses.now is not None
            or memory.boluses.waits
            or reading.bolus_ml is not None
            or reading.lockout_s is not None
            or reading.alarms
            or reading.state is PumpState.ALARM
            or not self._line.is_quiet(reading)
        ):
            return None
        if memory.doing is Doing.DELIVERING:
            return self._delivering(reading)
        if memory.doing is Doing.INTERRUPTED or memory.occurrence is None:
            return self._still(reading)
        return None

    def _still(self, reading: Reading) -> Bounds | None:
        memory = self._case.memory
        kvo = memory.doing is Doing.KVO
        if (memory.doing is Doing.INTERRUPTED) != (memory.occurrence is not None) or (
            kvo and memory.kvo_too_fast_readings
        ):
            return None
        counter_ml = self._case.expected.counter_ml
        return self._bounds(reading, most_at_once_ml=counter_ml if kvo else 0.0)

    def _delivering(self, reading: Reading) -> Bounds | None:
        memory = self._case.memory
        occurrence = memory.occurrence
        rate_ml_h = reading.rate_ml_h
        if (
            occurrence is None
            or reading.state is not PumpState.RUNNING
            or rate_ml_h is None
            or rate_ml_h <= self._case.kvo_ml_h
            or memory.wrong_readings
            or occurrence.under is not None
            or occurrence.over is not None
            or occurrence.suspected is not None
            or occurrence.unseen_ml > 0
        ):
            return None
        flat_from_ms, flat_to_ms, flat_ml_h = self._rates.flat
        tau_until_ms = min(flat_to_ms, self._doses.next_looked_for_tau_ms(occurrence))
        if not flat_from_ms <= occurrence.tau_ms < tau_until_ms:
            return None
        ordered_ml_h = flat_ml_h if self._case.order.titration is None else rate_ml_h
        unhidden_ms = self._boluses.longest_unhidden_ms()
        thresholds = self._volumes.thresholds_now(occurrence)
        bag = memory.bag
        return self._bounds(
            reading,
            most_at_once_ml=inf,
            surplus_at_once_ml=0.0 if unhidden_ms is None else inf,
            longest_ms=min(self._learning.longest_ms, unhidden_ms or inf),
            ordered_ml_h=ordered_ml_h,
            tau_until_ms=min(tau_until_ms, bag.look_again_tau_ms),
            delivered_until_ml=min(
                self._volumes.most_now_ml(occurrence) + occurrence.untold_ml,
                occurrence.delivered_ml + bag.look_again_ml - bag.taken_ml,
            ),
            uncounted_until_ml=self._volumes.standstill_ml(thresholds),
            thresholds=thresholds,
        )

    def _bounds(
        self,
        reading: Reading,
        *,
        most_at_once_ml: float,
        surplus_at_once_ml: float = inf,
        longest_ms: float = inf,
        ordered_ml_h: float = 0.0,
        tau_until_ms: float = inf,
        delivered_until_ml: float = inf,
        uncounted_until_ml: float = inf,
        thresholds: tuple[float, ...] = (),
    ) -> Bounds | None:
        limits = self._case.limits
        if self._case.memory.above_limit_readings:
            return None
        flow_ml_h = self._line.set_ml_h(reading)
        return Bounds(
            state=reading.state,
            rate_ml_h=reading.rate_ml_h,
            alarms=reading.alarms,
            serial=reading.serial,
            t_until_ms=min(self._timers.next_but_silence_t_ms(), self._case.memory.boluses.look_t_ms or inf),
            longest_ms=min(limits.no_data_after_ms, 2 * self._case.poll_ms, longest_ms),
            most_at_once_ml=most_at_once_ml,
            surplus_at_once_ml=surplus_at_once_ml,
            ordered_ml_h=ordered_ml_h,
            tau_until_ms=tau_until_ms,
            delivered_until_ml=delivered_until_ml,
            uncounted_until_ml=uncounted_until_ml,
            thresholds=thresholds,
            edges=self._case.edges,
            allowed_ml_h=self._volumes.allowed_ml_h,
            surplus_until_ml=self._volumes.surplus_allowed_ml,
            day_until_ml=inf if limits.max_volume_ml is None else limits.max_volume_ml,
            flow_ml_h=flow_ml_h,
            flow_edge_ml_h=surplus_begins_ml_h(flow_ml_h),
            flow_until_ml=self._line.free_flow_threshold_ml(flow_ml_h),
        )

    def passes(self, bounds: Bounds, instant: Instant, reading: Reading) -> bool:
        """Take a reading that stays within the bounds; ``False``, and nothing done, if it does not."""
        memory = self._case.memory
        t_ms = instant.t_ms
        elapsed_ms = t_ms - memory.t_ms
        volume_ml = reading.volume_ml
        if (
            volume_ml is None
            or reading.state is not bounds.state
            or reading.rate_ml_h != bounds.rate_ml_h
            or reading.alarms != bounds.alarms
            or reading.serial != bounds.serial
            or reading.bolus_ml is not None
            or reading.lockout_s is not None
            or t_ms >= bounds.t_until_ms
            or elapsed_ms > bounds.longest_ms
            or instant.gap is not GapKind.NONE
            or instant.stepped_ms
            or memory.seen_t_ms != memory.t_ms
        ):
            return False
        delivered_ml = volume_ml - memory.counter_ml  # type: ignore[operator]
        if not 0.0 <= delivered_ml <= bounds.most_at_once_ml:
            return False
        flow, flow_ml_h = memory.free_flow.counter, bounds.flow_ml_h
        flow_ml = flow.value_ml + delivered_ml - bounds.flow_edge_ml_h * elapsed_ms / MS_PER_HOUR
        rise = memory.pressure
        pressure_mmhg = reading.pressure_mmhg if flow_ml_h else None
        if flow_ml > bounds.flow_until_ml or (pressure_mmhg is not None and pressure_mmhg > rise.limit_mmhg):
            return False
        rate_limit, day = memory.rate_limit, memory.day
        surplus_ml = 0.0
        if rate_limit is not None:
            surplus_ml = rate_limit.after(delivered_ml, bounds.allowed_ml_h * elapsed_ms / MS_PER_HOUR)
            if surplus_ml > bounds.surplus_until_ml:
                return False
        if day is not None and day.total_ml + delivered_ml > bounds.day_until_ml:
            return False
        occurrence = memory.occurrence
        if occurrence is not None and not _brings_forward(bounds, occurrence, t_ms, elapsed_ms, delivered_ml):
            return False
        if rate_limit is not None:
            rate_limit.surplus_ml = surplus_ml
        if day is not None:
            day.add(t_ms, delivered_ml)
        if flow_ml > NOTHING_ML or flow.value_ml:
            flow.add(t_ms, delivered_ml, flow_ml_h, flow_ml)
        else:
            flow.seen_t_ms = flow.since_t_ms = t_ms
        if pressure_mmhg is None:
            pass
        elif t_ms < rise.piece_ends_t_ms:
            rise.sum_mmhg += pressure_mmhg
            rise.readings += 1
        else:
            case = self._case
            rise.deliver(t_ms, pressure_mmhg, bounds.rate_ml_h, case.poll_ms, case.limits.no_data_after_ms)
        memory.bag.taken_ml += delivered_ml
        memory.counter_ml = volume_ml
        memory.t_ms = memory.seen_t_ms = t_ms
        memory.utc_offset_ms = instant.utc_ms - t_ms
        return True


def _brings_forward(
    bounds: Bounds, occurrence: Occurrence, t_ms: int, elapsed_ms: int, delivered_ml: float
) -> bool:
    """Let an occurrence's time pass and test its volume; ``False``, and nothing done, beyond a bound."""
    bank = occurrence.bank
    if not bounds.thresholds:
        bank.mark = Mark(t_ms, occurrence.tau_ms, occurrence.expected_ml, occurrence.delivered_ml)
        return True
    tau_ms = occurrence.tau_ms + elapsed_ms
    ordered_ml = bounds.ordered_ml_h * elapsed_ms / MS_PER_HOUR
    total_ml = occurrence.delivered_ml + delivered_ml
    uncounted_ml = 0.0 if delivered_ml else occurrence.uncounted_ml + ordered_ml
    if (
        tau_ms > bounds.tau_until_ms
        or total_ml > bounds.delivered_until_ml
        or uncounted_ml >= bounds.uncounted_until_ml
        or delivered_ml - ordered_ml > bounds.surplus_at_once_ml
    ):
        return False
    expected_ml = occurrence.expected_ml + ordered_ml
    before = bank.under_ml[:], bank.over_ml[:], bank.mark
    mark = Mark(t_ms, tau_ms, expected_ml, total_ml)
    if not bank.update(ordered_ml, ordered_ml, delivered_ml, bounds.edges, mark, bounds.thresholds):
        bank.under_ml, bank.over_ml, bank.mark = before
        return False
    occurrence.tau_ms = tau_ms
    occurrence.expected_ml = expected_ml
    occurrence.delivered_ml = total_ml
    occurrence.uncounted_ml = uncounted_ml
    occurrence.last_delivery_t_ms = t_ms
    if delivered_ml:
        occurrence.counted_t_ms = t_ms
    return True
