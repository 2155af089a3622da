"""A pump with a button: days of patient-controlled analgesia as a pump gives and counts them.

Boluses are part of the flow, so a press may fall anywhere between two readings. The noise is that of
``pump_days.py``; seeded, and it knows nothing of the core.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, field

from drivers.reading import PumpAlarm, PumpState, Reading
from gateway.core.prescription import Demand, Prescription
from gateway.core.timeline import Moment
from tests.gateway.core.pump_days import HOUR_MS, START_UTC_MS, Ward, order

WORDLESS = "wordless"
"""A pump that shows a bolus by neither state nor rate."""
BY_RATE = "by rate"
BY_STATE = "by state"


def pca(
    *,
    basal_ml_h: float = 1.0,
    hours: int = 24,
    bolus_ml: float = 1.0,
    bolus_over: str | None = "2min",
    lockout: str = "10min",
    lockout_from: str = "start",
    limit_ml: float | None = 4.0,
    counter_ml: float = 0.01,
    poll: str = "5s",
    limits: str = "",
    rest: str = "",
) -> Prescription:
    """An order for a basal rate and boluses on demand."""
    over = "" if bolus_over is None else f'bolus_over = "{bolus_over}"\n'
    limit = "" if limit_ml is None else f"limit_ml = {limit_ml}\n"
    return order(
        phases=f'[[schedule.phase]]\nrate_ml_h = {basal_ml_h}\nduration = "{hours}h"\n',
        tail=(
            f'[demand]\nbolus_ml = {bolus_ml}\n{over}lockout = "{lockout}"\nlockout_from = "{lockout_from}"\n'
            f'{limit}[limits]\nstart_window = "15min"\nmax_pause = "10min"\n{limits}\n'
            f"[pump]\ncounter_ml = {counter_ml}\nstroke_ml = 0.005\nripple_ml = 0.01\n"
            f'poll = "{poll}"\n{rest}\n'
        ),
    )


def legal_presses(
    demand: Demand, over_s: float, hours: float, mean_s: float, random_: random.Random
) -> list[float]:
    """Moments in seconds at which a pump that keeps to the order gives a bolus, pressed at random."""
    given: list[float] = []
    now_s = random_.expovariate(1 / mean_s)
    lockout_s = demand.lockout_ms / 1000 + (over_s if demand.lockout_from_end else 0)
    while now_s < hours * 3600 - over_s:
        locked = bool(given) and now_s - given[-1] < max(lockout_s, over_s)
        recent = sum(now_s - one < demand.limit_window_ms / 1000 for one in given)
        over_limit = demand.limit_ml is not None and (recent + 1) * demand.bolus_ml > demand.limit_ml + 1e-9
        if not locked and not over_limit:
            given.append(now_s)
        now_s += random_.expovariate(1 / mean_s)
    return given


@dataclass
class ButtonPump:
    """Readings of a pump that gives a basal rate and a bolus at each press."""

    basal_ml_h: float
    presses_s: list[float]
    bolus_ml: float
    over_s: float
    counter_ml: float = 0.01
    poll_s: float = 5.0
    calibration: float = 0.0
    says: str = BY_STATE
    seed: int = 1
    missing: float = 0.0
    """Share of the readings without a volume."""
    lost: float = 0.0
    """Share of the readings that never come."""
    pauses_s: list[tuple[float, float]] = field(default_factory=list)
    """From and until; with a new bag: the counter begins again."""
    refused_s: list[float] = field(default_factory=list)
    settings: tuple[float | None, float | None] = (None, None)
    """Bolus in mL and lockout in seconds, as the pump shows them."""

    def readings(self, from_s: float, until_s: float) -> Iterator[tuple[Moment, Reading]]:
        """Readings from ``from_s`` to ``until_s``, in seconds after ``START_UTC_MS``."""
        random_ = random.Random(self.seed)
        offset_ml = random_.uniform(0, self.counter_ml)
        given_ml = reset_at_ml = shown_ml = 0.0
        phase = random_.uniform(0, 2 * math.pi)
        refused = sorted(self.refused_s)
        was_paused = False
        now_s = last_s = from_s
        while now_s < until_s:
            taken_s = now_s - random_.uniform(0, 0.1)
            flow_ml = self._flow_ml(last_s, taken_s)
            given_ml += max(0.0, flow_ml + random_.gauss(0, math.sqrt(0.0025 * 0.005 * flow_ml)))
            ripple_ml = 0.005 * math.sin(2 * math.pi * taken_s / 120 + phase)
            if flow_ml:
                shown_ml = max(shown_ml, given_ml + ripple_ml)
            paused = any(begin <= taken_s < end for begin, end in self.pauses_s)
            if paused and not was_paused:
                reset_at_ml, offset_ml = shown_ml, 0.0
            was_paused = paused
            last_s = taken_s
            if random_.random() >= self.lost:
                alarms: tuple[str, ...] = ()
                if refused and refused[0] <= taken_s:
                    refused.pop(0)
                    alarms = (PumpAlarm.DEMAND_DENIED,)
                counts = math.floor((shown_ml - reset_at_ml + offset_ml) / self.counter_ml + 1e-9)
                yield self._reading(now_s, taken_s, paused, counts, random_.random() < self.missing, alarms)
            now_s += self.poll_s + random_.uniform(-0.1, 0.1) * self.poll_s

    def _reading(
        self, now_s: float, taken_s: float, paused: bool, counts: int, missing: bool, alarms: tuple[str, ...]
    ) -> tuple[Moment, Reading]:
        now_ms = round(now_s * 1000)
        giving = self._gives(taken_s) and not paused
        if taken_s < 0:
            state, rate_ml_h = PumpState.IDLE, 0.0
        elif paused:
            state, rate_ml_h = PumpState.PAUSED, 0.0
        elif giving and self.says != WORDLESS:
            state = PumpState.BOLUS if self.says == BY_STATE else PumpState.RUNNING
            rate_ml_h = self.basal_ml_h + self.bolus_ml / self.over_s * 3600
        else:
            state, rate_ml_h = PumpState.RUNNING, self.basal_ml_h
        return (
            Moment(monotonic_ms=now_ms + HOUR_MS * 100, utc_ms=START_UTC_MS + now_ms),
            Reading(
                pump="pump",
                at_ms=now_ms,
                state=state,
                rate_ml_h=rate_ml_h,
                volume_ml=None if missing else round(counts * self.counter_ml, 6),
                alarms=alarms,
                bolus_ml=self.settings[0],
                lockout_s=self.settings[1],
            ),
        )

    def _gives(self, at_s: float) -> bool:
        return any(press <= at_s < press + self.over_s for press in self.presses_s)

    def _flow_ml(self, from_s: float, to_s: float) -> float:
        basal_s = max(0.0, to_s - max(from_s, 0.0)) - sum(
            max(0.0, min(to_s, end) - max(from_s, begin)) for begin, end in self.pauses_s
        )
        bolus_s = sum(
            max(0.0, min(to_s, press + self.over_s) - max(from_s, press)) for press in self.presses_s
        )
        return (
            (1 + self.calibration)
            * (self.basal_ml_h * max(0.0, basal_s) + self.bolus_ml / self.over_s * 3600 * bolus_s)
            / 3600
        )


def watch_button(prescription: Prescription, pump: ButtonPump, until_s: float) -> Ward:
    """All that is told of these readings, from ten minutes before the start."""
    ward = Ward(prescription)
    for moment, reading in pump.readings(-600, until_s):
        ward.take(moment, reading)
    return ward
