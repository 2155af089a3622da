"""What is really delivered, as a function of time: ``Pump.truth_at(t)``.

The run is a chain of *spans*. Within a span nothing happens: the motor's rate is a straight line, the same
faults are on. So every amount has a closed form within it, and a moment of any day is found by one search in
the chain. The chain grows on demand, from its end, by asking "what happens next?"; what was answered once
never changes, however often or in whatever order the truth is asked. A hand on the pump (``set_rate``,
``press_demand``, a fault switched on) cuts the chain *now* and lets it grow anew: the past stays.

From the program to the patient::

    commanded_ml   what the pump was set to            rate x time while it says that it delivers
        | the motor may stall
    motor_ml       motor steps x nominal stroke        what a counter that follows the motor counts
        | calibration, each stroke its own error (random walk), ripple, lost share, bag, clamp above
    mechanism_ml   what left the mechanism             what a counter that follows the flow counts
        | the closed line takes it up: pressure rises by rate / compliance; free flow comes past
    patient_ml     what arrived

What the mechanism makes of the motor's turns, noise and all, is in ``mechanism.py``.
"""

from __future__ import annotations

import random
from bisect import bisect_left, bisect_right
from collections.abc import Callable
from math import ceil, inf
from typing import Literal

import numpy as np
from msgspec import Struct, structs

from simulator import columns
from simulator.columns import Times
from simulator.faults import ALARM_FAULTS, Fault, Mishaps
from simulator.line import gauge_shows_mmhg
from simulator.mechanism import Strokes, counter_shows, ripple_share, ripple_volume_ml
from simulator.scenario import Machine, Scenario
from simulator.therapy import MS_PER_H, DemandSetting

UPSTREAM_ALARM_ML = 0.2
"""The motor turns for so much before the pump notices that nothing comes from the bag."""
LEAST_RATE_ML_H = 0.01
"""Below this, a pump's display shows no rate, and the time left cannot be worked out from it."""
LOW_CHARGE = 0.2
MOST_BOLUSES_KEPT = 1_000
NOTICE_SHOWN_MS = 4_000
"""For so long the pump shows that the button was pressed, or pressed in vain."""
ROUNDING_ML = 1e-9
LONGEST_SPAN_MS = 86_400_000

Stage = Literal["waiting", "giving", "keeping_open"]


class Truth(Struct, frozen=True, kw_only=True):
    """How things are at one moment. Volumes since the scenario began."""

    commanded_ml: float
    """What it was set to."""
    mechanism_ml: float
    """What left the mechanism when the motor turned."""
    patient_ml: float
    """What arrived."""
    counter_ml: float
    """What the pump's counter says: clients are compared with this."""
    pressure_mmhg: float
    bag_ml: float | None
    state: str
    faults: tuple[str, ...]
    rate_ml_h: float
    """The set rate; 0 while the pump does not deliver."""
    vtbi_ml: float
    """What the pump still has to give, as it believes."""
    remaining_s: int
    """Time until that is in."""
    alarms: tuple[str, ...]
    battery_percent: float
    log_entries: int
    """How often the pump has written something into its log."""
    bolus_ml: float | None = None
    """The demand bolus that the pump is set to."""
    lockout_s: float | None = None


class LogEntry(Struct, frozen=True, kw_only=True):
    """Something that a pump with a memory writes into its log: how it was from ``at_ms`` on."""

    at_ms: int
    state: str
    rate_ml_h: float
    alarms: tuple[str, ...]
    counter_ml: float
    notice: str | None = None
    """``demand`` or ``demand_denied``: the button was pressed just then."""


class _Moment(Struct, frozen=True, kw_only=True):
    """All that a span begins with."""

    at_ms: int
    commanded_ml: float = 0.0
    motor_ml: float = 0.0
    turning_ms: int = 0
    ripple_ml: float = 0.0
    mechanism_ml: float = 0.0
    free_ml: float = 0.0
    patient_ml: float = 0.0
    stored_ml: float = 0.0
    bag_ml: float = inf
    dry_ml: float = 0.0
    stage: Stage = "waiting"
    stage_since_ms: int = 0
    occurrence: int = 0
    position_ms: int = 0
    given_ml: float = 0.0
    alarm: str | None = None
    bag_lost: bool = False
    set_rate_ml_h: float | None = None
    bolus_until_ms: int = 0
    bolus_ml_h: float = 0.0
    boluses: tuple[int, ...] = ()
    notice: str | None = None
    """What the pump says of the last press of the button, for ``NOTICE_SHOWN_MS``."""
    pressed_ms: int = -1
    bag_off: bool = False
    """The bag is being changed."""
    counter_from_ml: float = 0.0
    """What had been counted when the counter was last set to 0."""
    counter_cleared: bool = False
    counter_held_ml: float | None = None
    """Where the counter stands while it is frozen."""
    log_entries: int = 0


class _Regime(Struct, frozen=True, kw_only=True):
    """What holds throughout a span."""

    state: str
    rate_ml_h: float
    slope_ml_h_ms: float
    bolus_ml_h: float
    """The part of ``rate_ml_h`` that a bolus adds."""
    turning: bool
    passing: float
    """Share of what the motor moves that leaves the mechanism."""
    primes: bool
    """What leaves the mechanism goes not into the patient."""
    held_back: float
    """Share of what leaves the mechanism that the line takes up."""
    free_ml_h: float
    ripple: float
    dry: bool
    alarms: tuple[str, ...]
    faults: tuple[str, ...]


class _Span(Struct, frozen=True):
    """From ``begin`` up to but not including ``until_ms``."""

    begin: _Moment
    regime: _Regime
    until_ms: int


class Pump:
    """A pump that lives through a scenario. Times are ms since the scenario began, 0 or later."""

    def __init__(self, scenario: Scenario) -> None:
        self._machine: Machine = scenario.machine
        self._program = scenario.program
        self._follows_motor = scenario.counter_follows == "motor"
        self._mishaps: Mishaps = scenario.mishaps
        self._seed = scenario.seed
        self._strokes = Strokes(scenario.seed, scenario.machine.setting.stroke_ml)
        phase = random.Random(f"{scenario.seed} ripple").random()
        self._ripple_phase_ms = phase * self._machine.ripple_period_ms
        self._full_bag_ml = inf if self._machine.bag_ml is None else self._machine.bag_ml
        self._spans: list[_Span] = []
        self._begins: list[int] = []
        self._append(_Moment(at_ms=0, bag_ml=self._full_bag_ml))

    # What can be asked and done.

    def truth_at(self, now_ms: int) -> Truth:
        """How things are at ``now_ms``. Raises ValueError before the scenario's beginning."""
        return self._truth(self._span_at(now_ms), now_ms)

    def columns_at(self, times_ms: Times) -> columns.Columns:
        """What the pump says at many moments, which must be in order: a quicker way for long runs."""
        parts = []
        place = 0
        while place < len(times_ms):
            span = self._span_at(int(times_ms[place]))
            until = int(np.searchsorted(times_ms, span.until_ms))
            parts.append(self._columns(span, times_ms[place:until]))
            place = until
        return columns.joined(parts)

    def log_until(self, now_ms: int) -> tuple[LogEntry, ...]:
        """What a pump with a memory has in its log at ``now_ms``, in order of time."""
        self._span_at(now_ms)
        entries: list[LogEntry] = []
        written = pressed_ms = -1
        for span in self._spans:
            begin, regime = span.begin, span.regime
            if begin.at_ms > now_ms:
                break
            is_pressed = begin.notice is not None and begin.pressed_ms not in (-1, pressed_ms)
            if begin.log_entries == written and not is_pressed:
                continue
            entries.append(
                LogEntry(
                    at_ms=begin.at_ms,
                    state=regime.state,
                    rate_ml_h=regime.rate_ml_h,
                    alarms=regime.alarms,
                    counter_ml=self._counter_ml(begin),
                    notice=begin.notice if is_pressed else None,
                )
            )
            written = begin.log_entries
            pressed_ms = begin.pressed_ms
        return tuple(entries)

    @property
    def mishaps(self) -> Mishaps:
        """What goes wrong in this run."""
        return self._mishaps

    def befall(self, mishaps: Mishaps, now_ms: int) -> None:
        """From now on these mishaps are the ones that happen."""
        self._change(now_ms, lambda moment: moment, mishaps)

    def clear(self, now_ms: int) -> tuple[str, ...]:
        """End what is wrong now; an empty bag is replaced, a rate set by hand is taken back."""
        ended = tuple(self._mishaps.active(now_ms))

        def repaired(moment: _Moment) -> _Moment:
            bag_ml = self._full_bag_ml if _is_bag_empty(moment) else moment.bag_ml
            return structs.replace(moment, bag_ml=bag_ml, bag_lost=False, set_rate_ml_h=None)

        self._change(now_ms, repaired, self._mishaps.clear(now_ms))
        return ended

    def set_rate(self, rate_ml_h: float, now_ms: int) -> None:
        """Somebody sets the pump to another rate, whatever was programmed; 0 stops it."""
        self._change(now_ms, lambda moment: structs.replace(moment, set_rate_ml_h=rate_ml_h))

    def press_demand(self, now_ms: int) -> str:
        """The patient asks for a bolus: ``given``, or why not."""
        span = self._span_at(now_ms)
        pressed, answer = self._pressed(self._moved_on(span, now_ms), span.regime.state)
        if answer in ("given", "denied"):
            self._change(now_ms, lambda _: pressed)
        return answer

    def _pressed(self, moment: _Moment, state: str) -> tuple[_Moment, str]:
        """The button is pressed: the moment after that, and the pump's answer."""
        now_ms = moment.at_ms
        demand = self._demand(self._mishaps.active(now_ms))
        if demand is None:
            return moment, "not set up"
        if state not in ("running", "bolus", "kvo", "idle"):
            return moment, "not possible"
        locked_ms = demand.lockout_ms + (demand.bolus_over_ms if demand.lockout_from_end else 0)
        recent = sum(now_ms - begun < demand.limit_window_ms for begun in moment.boluses)
        spent = demand.limit_ml is not None and (recent + 1) * demand.bolus_ml > demand.limit_ml + 1e-9
        locked = any(now_ms - begun < locked_ms for begun in moment.boluses)
        if now_ms < moment.bolus_until_ms or locked or spent:
            return structs.replace(moment, notice="demand_denied", pressed_ms=now_ms), "denied"
        given = structs.replace(
            moment,
            bolus_until_ms=now_ms + demand.bolus_over_ms,
            bolus_ml_h=demand.bolus_ml / demand.bolus_over_ms * MS_PER_H,
            boluses=(*moment.boluses[-MOST_BOLUSES_KEPT:], now_ms),
            notice="demand",
            pressed_ms=now_ms,
            log_entries=moment.log_entries + 1,
        )
        return given, "given"

    def _demand(self, faults: dict[str, Fault]) -> DemandSetting | None:
        """How the pump is set for boluses, rightly or wrongly."""
        demand = self._program.demand
        if demand is None or not {"lockout_changed", "bolus_changed"} & faults.keys():
            return demand
        size = _strength(faults, "bolus_changed") if "bolus_changed" in faults else 1.0
        locked = _strength(faults, "lockout_changed") if "lockout_changed" in faults else 1.0
        # whoever sets a pump so finds its limit in the way, and raises it as well
        limit_ml = None if demand.limit_ml is None else demand.limit_ml * max(1.0, size / max(locked, 0.01))
        return structs.replace(
            demand,
            bolus_ml=demand.bolus_ml * size,
            bolus_over_ms=max(1, round(demand.bolus_over_ms * size)),
            lockout_ms=round(demand.lockout_ms * locked),
            limit_ml=limit_ml,
        )

    # The chain of spans.

    def _span_at(self, now_ms: int) -> _Span:
        if now_ms < 0:
            raise ValueError(f"the scenario begins at 0 ms, not {now_ms}")
        while (last := self._spans[-1]).until_ms <= now_ms:
            self._append(self._moved_on(last, last.until_ms))
        return self._spans[bisect_right(self._begins, now_ms) - 1]

    def _append(self, moment: _Moment) -> None:
        """Settle what happens at this moment and begin the span that follows it."""
        settled = self._settled(moment)
        regime = self._regime(settled)
        if self._spans:
            before = self._spans[-1].regime
            news = (regime.state, regime.alarms) != (before.state, before.alarms) or (
                regime.rate_ml_h != before.rate_ml_h and not before.slope_ml_h_ms
            )
            settled = structs.replace(settled, log_entries=settled.log_entries + news)
        endless = _Span(settled, regime, moment.at_ms + LONGEST_SPAN_MS)
        self._spans.append(structs.replace(endless, until_ms=self._next_event_ms(endless)))
        self._begins.append(moment.at_ms)

    def _change(
        self, now_ms: int, hand: Callable[[_Moment], _Moment], mishaps: Mishaps | None = None
    ) -> None:
        """Cut the chain now, let a hand act on the pump, and go on from there."""
        moment = hand(self._moved_on(self._span_at(now_ms), now_ms))
        keep = bisect_left(self._begins, now_ms)
        del self._spans[keep:], self._begins[keep:]
        if self._spans:
            self._spans[-1] = structs.replace(self._spans[-1], until_ms=now_ms)
        if mishaps is not None:
            self._mishaps = mishaps
        self._append(moment)

    # Within a span.

    def _moved_on(self, span: _Span, now_ms: int) -> _Moment:
        """The moment ``now_ms`` of a span, in closed form."""
        begin, regime = span.begin, span.regime
        length_ms = now_ms - begin.at_ms
        if length_ms == 0:
            return begin
        set_ml = (regime.rate_ml_h + regime.slope_ml_h_ms * length_ms / 2) * length_ms / MS_PER_H
        bolus_ml = regime.bolus_ml_h * length_ms / MS_PER_H
        giving = begin.stage == "giving" and regime.state in ("running", "bolus")
        changes: dict[str, object] = {
            "at_ms": now_ms,
            "commanded_ml": begin.commanded_ml + set_ml,
            "given_ml": begin.given_ml + set_ml - bolus_ml if giving else begin.given_ml,
            "position_ms": begin.position_ms + length_ms if giving else begin.position_ms,
        }
        moved_ml = free_ml = 0.0
        if regime.turning:
            motor_ml = begin.motor_ml + set_ml
            ripple_ml = begin.ripple_ml + ripple_volume_ml(
                regime.ripple,
                regime.rate_ml_h,
                regime.slope_ml_h_ms,
                from_ms=self._ripple_phase_ms + begin.turning_ms,
                length_ms=length_ms,
                period_ms=self._machine.ripple_period_ms,
            )
            stroked_ml = self._strokes.volume_ml(motor_ml) - self._strokes.volume_ml(begin.motor_ml)
            true_share = (1 + self._machine.calibration_percent / 100) * regime.passing
            moved_ml = min((stroked_ml + ripple_ml - begin.ripple_ml) * true_share, begin.bag_ml)
            changes |= {
                "motor_ml": motor_ml,
                "turning_ms": begin.turning_ms + length_ms,
                "ripple_ml": ripple_ml,
                "mechanism_ml": begin.mechanism_ml + moved_ml,
                "dry_ml": begin.dry_ml + set_ml if regime.dry else 0.0,
            }
        if regime.free_ml_h:
            free_ml = min(regime.free_ml_h * length_ms / MS_PER_H, begin.bag_ml - moved_ml)
        stored_ml = moved_ml * regime.held_back
        arrived_ml = 0.0 if regime.primes else moved_ml - stored_ml
        changes |= {
            "free_ml": begin.free_ml + free_ml,
            "stored_ml": begin.stored_ml + stored_ml,
            "patient_ml": begin.patient_ml + arrived_ml + free_ml,
            "bag_ml": begin.bag_ml - moved_ml - free_ml,
        }
        return structs.replace(begin, **changes)

    def _truth(self, span: _Span, now_ms: int) -> Truth:
        moment, regime, machine = self._moved_on(span, now_ms), span.regime, self._machine
        rate_ml_h = regime.rate_ml_h + regime.slope_ml_h_ms * (now_ms - span.begin.at_ms)
        to_come = moment.stage == "giving" or self._program.due_ms(moment.occurrence) is not None
        left_ml = max(0.0, self._program.vtbi_ml - moment.given_ml) if to_come else 0.0
        left_ms = (self._program.length_ms - moment.position_ms) if to_come else 0
        if rate_ml_h >= LEAST_RATE_ML_H and moment.stage == "giving":
            left_ms = round(left_ml / rate_ml_h * MS_PER_H)
        faults = self._mishaps.active(now_ms)
        demand = self._demand(faults)
        stored_mmhg = moment.stored_ml / machine.compliance_ml_mmhg + _strength(faults, "pressed_line")
        notices = regime.alarms
        if moment.notice is not None and now_ms < moment.pressed_ms + NOTICE_SHOWN_MS:
            notices = (*notices, moment.notice)
        return Truth(
            commanded_ml=moment.commanded_ml,
            mechanism_ml=moment.mechanism_ml,
            patient_ml=moment.patient_ml,
            counter_ml=self._counter_ml(moment),
            pressure_mmhg=gauge_shows_mmhg(machine.gauge, self._seed, now_ms, stored_mmhg, rate_ml_h),
            bag_ml=None if moment.bag_ml == inf else moment.bag_ml,
            state=regime.state,
            faults=regime.faults,
            rate_ml_h=rate_ml_h,
            vtbi_ml=left_ml,
            remaining_s=max(0, left_ms) // 1000,
            alarms=notices,
            battery_percent=100 * self._charge(faults, now_ms),
            log_entries=moment.log_entries,
            bolus_ml=demand.bolus_ml if demand is not None else None,
            lockout_s=demand.lockout_ms / 1000 if demand is not None else None,
        )

    def _columns(self, span: _Span, times_ms: Times) -> columns.Columns:
        """``_moved_on`` and ``_truth`` for many moments of one span."""
        begin, regime, machine = span.begin, span.regime, self._machine
        lengths_ms = (times_ms - begin.at_ms).astype(np.float64)
        rates_ml_h = regime.rate_ml_h + regime.slope_ml_h_ms * lengths_ms
        set_ml = (regime.rate_ml_h + regime.slope_ml_h_ms * lengths_ms / 2) * lengths_ms / MS_PER_H
        motor_ml = np.full_like(lengths_ms, begin.motor_ml)
        moved_ml = np.zeros_like(lengths_ms)
        if regime.turning:
            motor_ml = begin.motor_ml + set_ml
            ripple_ml = columns.ripple_volumes_ml(
                regime.ripple,
                regime.rate_ml_h,
                regime.slope_ml_h_ms,
                from_ms=self._ripple_phase_ms + begin.turning_ms,
                lengths_ms=lengths_ms,
                period_ms=machine.ripple_period_ms,
            )
            stroked_ml = self._strokes.volumes_ml(motor_ml) - self._strokes.volume_ml(begin.motor_ml)
            true_share = (1 + machine.calibration_percent / 100) * regime.passing
            moved_ml = np.minimum((stroked_ml + ripple_ml) * true_share, begin.bag_ml)
        free_ml = np.minimum(regime.free_ml_h * lengths_ms / MS_PER_H, begin.bag_ml - moved_ml)
        counted_ml = (
            motor_ml if self._follows_motor else begin.mechanism_ml + moved_ml + begin.free_ml + free_ml
        )
        shown_ml = columns.counter_shows_ml(counted_ml - begin.counter_from_ml, machine.setting)
        if begin.counter_held_ml is not None:
            shown_ml = np.full_like(lengths_ms, begin.counter_held_ml)
        to_come = begin.stage == "giving" or self._program.due_ms(begin.occurrence) is not None
        giving = begin.stage == "giving" and regime.state in ("running", "bolus")
        given_ml = begin.given_ml + giving * (set_ml - regime.bolus_ml_h * lengths_ms / MS_PER_H)
        faults = self._mishaps.active(begin.at_ms)
        demand = self._demand(faults)
        stored_ml = begin.stored_ml + moved_ml * regime.held_back
        stored_mmhg = stored_ml / machine.compliance_ml_mmhg + _strength(faults, "pressed_line")
        count = len(times_ms)
        notified = 0
        if begin.notice is not None:
            notified = int(np.searchsorted(times_ms, begin.pressed_ms + NOTICE_SHOWN_MS))
        said = [(*regime.alarms, begin.notice or "")] * notified + [regime.alarms] * (count - notified)
        return columns.Columns(
            state=[regime.state] * count,
            rate_ml_h=rates_ml_h,
            counter_ml=shown_ml,
            vtbi_ml=np.maximum(0.0, self._program.vtbi_ml - given_ml) * to_come,
            pressure_mmhg=columns.gauge_shows_mmhg(
                machine.gauge, self._seed, times_ms, stored_mmhg, rates_ml_h
            ),
            battery_percent=np.array([100 * self._charge(faults, int(at_ms)) for at_ms in times_ms])
            if "battery" in faults
            else np.full_like(lengths_ms, 100.0),
            alarms=said,
            bolus_ml=[demand.bolus_ml if demand is not None else None] * count,
            lockout_s=[demand.lockout_ms / 1000 if demand is not None else None] * count,
        )

    def _counted_ml(self, moment: _Moment) -> float:
        return moment.motor_ml if self._follows_motor else moment.mechanism_ml + moment.free_ml

    def _counter_ml(self, moment: _Moment) -> float:
        """What the counter shows."""
        if moment.counter_held_ml is not None:
            return moment.counter_held_ml
        return counter_shows(self._counted_ml(moment) - moment.counter_from_ml, self._machine.setting)

    def _charge(self, faults: dict[str, Fault], now_ms: int) -> float:
        fault = faults.get("battery")
        if fault is None:
            return 1.0
        return max(0.0, fault.strength - (now_ms - fault.at_ms) / self._machine.battery_life_ms)

    # What happens at a moment, and when something happens next.

    def _settled(self, moment: _Moment) -> _Moment:
        """The moment after all that happens at once has happened: the line opens, alarms, doses begin."""
        faults = self._mishaps.active(moment.at_ms)
        if moment.stored_ml and "occlusion_downstream" not in faults:
            moment = structs.replace(moment, patient_ml=moment.patient_ml + moment.stored_ml, stored_ml=0.0)
        if "bag_empty" in faults and not moment.bag_lost:
            moment = structs.replace(moment, bag_ml=0.0, bag_lost=True)
        elif "bag_empty" not in faults and moment.bag_lost:
            moment = structs.replace(moment, bag_ml=self._full_bag_ml, bag_lost=False)
        moment = self._with_bag_and_counter(moment, faults)
        moment = structs.replace(moment, alarm=self._alarm(moment, faults))
        while (later := self._next_stage(moment, faults)) is not moment:
            moment = later
        press_ms = _next_press_ms(faults.get("presses"), moment.at_ms - 1)
        if press_ms == moment.at_ms and moment.pressed_ms < press_ms:
            moment, _ = self._pressed(moment, self._regime(moment).state)
        return moment

    def _with_bag_and_counter(self, moment: _Moment, faults: dict[str, Fault]) -> _Moment:
        """What hands do to the bag and to the counter."""
        change_ms = self._bag_change_ms(moment)
        is_changed = change_ms is not None and change_ms[1] <= moment.at_ms
        if is_changed or (moment.bag_off and "bag_change" not in faults):
            moment = self._with_new_bag(moment)
        moment = structs.replace(moment, bag_off="bag_change" in faults)
        if "counter_reset" in faults and not moment.counter_cleared:
            moment = structs.replace(moment, counter_from_ml=self._counted_ml(moment))
        held_ml = self._counter_ml(moment) if "counter_frozen" in faults else None
        return structs.replace(moment, counter_cleared="counter_reset" in faults, counter_held_ml=held_ml)

    def _with_new_bag(self, moment: _Moment) -> _Moment:
        """A full bag, and the counter at 0."""
        return structs.replace(moment, bag_ml=self._full_bag_ml, counter_from_ml=self._counted_ml(moment))

    def _bag_change_ms(self, moment: _Moment) -> tuple[int, int] | None:
        """From when to when the next bag is hung: where the old one does not hold the dose to come."""
        due_ms = self._program.due_ms(moment.occurrence)
        length_ms = self._machine.bag_change_ms
        if length_ms is None or due_ms is None or moment.stage == "giving" or not moment.occurrence:
            return None
        if moment.bag_ml >= self._program.vtbi_ml:
            return None
        begin_ms = max(due_ms - length_ms, moment.stage_since_ms)
        return begin_ms, begin_ms + length_ms

    def _alarm(self, moment: _Moment, faults: dict[str, Fault]) -> str | None:
        """The alarm that stops the pump. It stays until its cause is gone; then somebody starts it again."""
        for kind in ALARM_FAULTS:
            if kind in faults:
                return kind
        if self._charge(faults, moment.at_ms) <= 0:
            return "battery_empty"
        if "occlusion_downstream" in faults and (
            moment.alarm == "occlusion_downstream" or self._is_pressure_high(moment)
        ):
            return "occlusion_downstream"
        if "occlusion_upstream" in faults and _is_dry(moment):
            return "occlusion_upstream"
        if _is_bag_empty(moment) and (moment.stage != "waiting" or moment.set_rate_ml_h):
            return "empty"
        return None

    def _is_pressure_high(self, moment: _Moment) -> bool:
        stored_mmhg = moment.stored_ml / self._machine.compliance_ml_mmhg
        return self._machine.gauge.resting_mmhg + stored_mmhg >= self._machine.occlusion_alarm_mmhg

    def _is_given(self, moment: _Moment) -> bool:
        return moment.stage == "giving" and moment.given_ml >= self._program.vtbi_ml - ROUNDING_ML

    def _next_stage(self, moment: _Moment, faults: dict[str, Fault]) -> _Moment:
        """One step from waiting to giving to keeping open; the same moment if there is none to take."""
        program, now_ms = self._program, moment.at_ms
        due_ms = program.due_ms(moment.occurrence)
        if moment.stage == "giving":
            rests_at_zero = moment.position_ms >= program.length_ms and program.legs[-1].to_ml_h == 0
            if not self._is_given(moment) and not rests_at_zero:
                return moment
            after_ml_h = self._keep_open_ml_h(moment.occurrence + 1)
            return structs.replace(
                moment,
                stage="keeping_open" if after_ml_h > 0 else "waiting",
                stage_since_ms=now_ms,
                occurrence=moment.occurrence + 1,
                position_ms=0,
                given_ml=0.0,
                set_rate_ml_h=None,
            )
        if due_ms is not None and due_ms <= now_ms:
            if "missed_dose" in faults:
                return structs.replace(moment, occurrence=moment.occurrence + 1)
            waits = not {"late_start", "paused", "bag_change"}.isdisjoint(faults) or moment.alarm is not None
            if not waits and self._bag_change_ms(moment) is None:
                return structs.replace(moment, stage="giving", stage_since_ms=now_ms)
        off = now_ms >= self._kvo_end_ms(moment) and "kvo_left" not in faults
        if moment.stage == "keeping_open" and due_ms is None and off:
            return structs.replace(moment, stage="waiting", stage_since_ms=now_ms)
        return moment

    def _keep_open_ml_h(self, occurrence: int) -> float:
        """The rate before an occurrence: between two of them, or KVO when none is to come."""
        is_last_over = self._program.due_ms(occurrence) is None
        return self._program.kvo_ml_h if is_last_over else self._program.between_ml_h

    def _kvo_end_ms(self, moment: _Moment) -> int:
        """Somebody comes and switches KVO off half-way through the time that it may run."""
        return moment.stage_since_ms + self._program.kvo_max_ms // 2

    def _regime(self, moment: _Moment) -> _Regime:
        """What holds from this (settled) moment on."""
        faults = self._mishaps.active(moment.at_ms)
        rate_ml_h, slope_ml_h_ms = self._basal(moment, faults)
        bolus_ml_h = _strength(faults, "flush")
        if moment.at_ms < moment.bolus_until_ms:
            bolus_ml_h += moment.bolus_ml_h
        change_ms = self._bag_change_ms(moment)
        state = self._working_state(moment, rate_ml_h, bolus_ml_h, by_hand="run_by_hand" in faults)
        if change_ms is not None and change_ms[0] <= moment.at_ms < change_ms[1]:
            state = "complete"
        delivers = state not in ("idle", "complete")
        primes = "primed" in faults and moment.alarm is None
        if moment.alarm is not None:
            state, delivers = "alarm", False
        elif primes:
            state, delivers = "priming", False
        elif delivers and ("paused" in faults or "bag_change" in faults):
            state, delivers = "paused", False
        if not delivers:
            rate_ml_h = slope_ml_h_ms = bolus_ml_h = 0.0
        if primes:
            rate_ml_h, delivers = _strength(faults, "primed"), True
        passing = 1.0 - _strength(faults, "under_delivery") + _strength(faults, "over_delivery")
        is_dry = "occlusion_upstream" in faults
        notices = [kind for kind in ("near_empty",) if kind in faults]
        if "battery" in faults and 0 < self._charge(faults, moment.at_ms) <= LOW_CHARGE:
            notices.append("low_battery")
        return _Regime(
            state=state,
            rate_ml_h=rate_ml_h + bolus_ml_h,
            slope_ml_h_ms=slope_ml_h_ms,
            bolus_ml_h=bolus_ml_h,
            turning=delivers and "stopped" not in faults,
            passing=0.0 if is_dry else passing,
            primes=primes,
            held_back=_strength(faults, "occlusion_downstream"),
            free_ml_h=_strength(faults, "free_flow"),
            ripple=ripple_share(
                self._machine.setting.ripple_ml,
                max(rate_ml_h + bolus_ml_h, self._program.highest_ml_h),
                self._machine.ripple_period_ms,
            ),
            dry=is_dry,
            alarms=(*([moment.alarm] if moment.alarm else []), *notices),
            faults=tuple(faults),
        )

    def _basal(self, moment: _Moment, faults: dict[str, Fault]) -> tuple[float, float]:
        """The set rate without boluses, and its slope."""
        if moment.set_rate_ml_h is not None:
            return moment.set_rate_ml_h, 0.0
        if "run_by_hand" in faults:
            return faults["run_by_hand"].strength, 0.0
        if moment.stage == "giving":
            rate_ml_h, slope_ml_h_ms, _ = self._program.leg_at(moment.position_ms)
            factor = faults["wrong_rate"].strength if "wrong_rate" in faults else 1.0
            return rate_ml_h * factor, slope_ml_h_ms * factor
        if moment.stage == "keeping_open":
            return self._keep_open_ml_h(moment.occurrence), 0.0
        return 0.0, 0.0

    def _working_state(self, moment: _Moment, rate_ml_h: float, bolus_ml_h: float, *, by_hand: bool) -> str:
        """What the pump says it does while nothing is in its way."""
        if bolus_ml_h:
            return "bolus"
        if (by_hand or moment.set_rate_ml_h is not None) and rate_ml_h:
            return "running"
        if moment.stage == "giving":
            return "idle" if moment.set_rate_ml_h == 0 else "running"
        if moment.stage == "keeping_open" and rate_ml_h:
            return "kvo"
        return "complete" if moment.occurrence and moment.commanded_ml else "idle"

    def _next_event_ms(self, span: _Span) -> int:
        """When this span is over: the next known time, or a level that is reached before it."""
        begin, now_ms = span.begin, span.begin.at_ms
        times: list[int | None] = [
            span.until_ms,
            self._mishaps.next_change_ms(now_ms),
            begin.bolus_until_ms,
            self._program.due_ms(begin.occurrence),
            *self._battery_times_ms(now_ms),
            *(self._bag_change_ms(begin) or ()),
            _next_press_ms(self._mishaps.active(now_ms).get("presses"), now_ms),
        ]
        if begin.stage == "giving" and span.regime.state in ("running", "bolus"):
            leg_end_ms = self._program.leg_at(begin.position_ms)[2]
            times.append(None if leg_end_ms is None else now_ms + leg_end_ms - begin.position_ms)
        if begin.stage == "keeping_open":
            times.append(self._kvo_end_ms(begin))
        until_ms = min(time for time in times if time is not None and time > now_ms)
        for is_reached in (self._is_given, self._is_pressure_high, _is_dry, _is_bag_empty):
            if not is_reached(begin):
                until_ms = self._first_ms(span, until_ms, is_reached)
        return until_ms

    def _first_ms(self, span: _Span, until_ms: int, is_reached: Callable[[_Moment], bool]) -> int:
        """When a level is first reached in the span; ``until_ms`` if it is not before that."""
        if not is_reached(self._moved_on(span, until_ms)):
            return until_ms
        times = range(span.begin.at_ms, until_ms)
        return span.begin.at_ms + bisect_left(
            times, True, key=lambda at_ms: is_reached(self._moved_on(span, at_ms))
        )

    def _battery_times_ms(self, now_ms: int) -> tuple[int, ...]:
        """When the battery will be low, and when empty."""
        fault = self._mishaps.active(now_ms).get("battery")
        if fault is None:
            return ()
        life_ms = self._machine.battery_life_ms
        return tuple(fault.at_ms + ceil((fault.strength - level) * life_ms) for level in (LOW_CHARGE, 0.0))


def _next_press_ms(presses: Fault | None, now_ms: int) -> int | None:
    """When, after ``now_ms``, the button is pressed next; None while nobody presses."""
    if presses is None:
        return None
    between_ms = MS_PER_H / presses.strength
    # half a millisecond on: presses fall on whole ones, rounded down as often as up
    number = max(0, int((now_ms + 0.5 - presses.at_ms) // between_ms) + 1)
    press_ms: int = presses.at_ms + round(number * between_ms)
    return press_ms


def _is_dry(moment: _Moment) -> bool:
    return moment.dry_ml >= UPSTREAM_ALARM_ML


def _is_bag_empty(moment: _Moment) -> bool:
    return moment.bag_ml <= 0


def _strength(faults: dict[str, Fault], kind: str) -> float:
    """The strength of a mishap, 0 if it is not on."""
    return faults[kind].strength if kind in faults else 0.0
