"""Does the pressure rise as behind a closed line? ``occlusion_suspected`` (prescription page, section 3).

Behind a closed line the pump fills the set: pressure rises by rate / compliance until the pump's own alarm.
Beside that it changes when the patient moves (steps of up to 30 mmHg, then level) and with the set rate.

A slow average tells what is usual. It is the mean of the last 15 completed *pieces*, each the mean of its
readings, a minute long or, at rates below 1 mL/h, as long as a sixtieth of a mL takes: in these 0.25 mL a
closed line outruns its own average by 50 mmHg at any rate. While a piece lasts its limit is a constant, and
an ordinary reading is compared with it and added up, no more.

A reading more than 25 mmHg above the average begins a *hold*: the average stands still, and what comes shows
which it is. A patient who has moved has made a step, and the pressure is level after it. Behind a closed line
it goes on growing from there, and two readings in a row must show that. As far as the deadline leaves time
(that for 90 mmHg and a minute more, or the pump's own alarm), what is over within a minute is waited for: a
patient who lay on the line.
"""

from __future__ import annotations

from enum import Enum
from math import inf

from msgspec import Struct

from gateway.core.counter import MS_PER_HOUR
from gateway.core.prescription import PumpExpected

COMPLIANCE_ML_MMHG = 0.0025
"""Volume that a set takes up for each mmHg, about."""
HOLD_MMHG = 25.0
"""So far above the average it stands still."""
GROWTH_MMHG = 12.0
"""So much more must come after that: four standard deviations of the difference of two readings at rest."""
MOST_GROWTH_MMHG = 30.0
"""Where half of what a closed line would add is more than ``GROWTH_MMHG`` that must come, up to this."""
CONFIRMED_BY = 2
"""Readings in a row that must show it; and that it has fallen again."""
PASSING_MS = 75_000
"""A line that the patient lies on is free again within about a minute."""
CERTAIN_MMHG = 90.0
CERTAIN_MS = 60_000
"""A closed line is to be found within the time for 90 mmHg and a minute more."""
PUMP_ALARM_MMHG = 500.0
"""At about this pressure the pump stops by itself."""
PIECES = 15
PIECE_MS = 60_000
PIECE_ML = 1 / 60
LONGEST_PIECE_MS = 600_000
FIRST_PIECE_MS = 12_000
"""An average that has just begun soon has something to go by."""
SETTLING_MS = 15_000
"""After the start, a bolus or another rate the pressure is at its new level."""
RATE_STEP_ML_H = 5.0
"""Pressure comes with the rate, up to about 1 mmHg for each mL/h: a smaller step changes little."""


class PressureChange(Enum):
    """What a reading has shown."""

    RISES = "rises"
    """As behind a closed line."""
    FELL = "fell"
    """It had risen, and has fallen again."""


class Hold(Struct):
    """The pressure stands above the limit, and the average stands still."""

    since_t_ms: int
    first_mmhg: float
    grown_readings: int = 0


class Suspicion(Struct):
    """The pressure has risen as behind a closed line and has not fallen again."""

    average_mmhg: float
    since_t_ms: int
    peak_mmhg: float
    fallen_readings: int = 0


class PressureRise(Struct):
    """The slow average of the pressure while the pump delivers, and what stands above it. Mutable."""

    set_ml_h: float = 0.0
    """The rate of now."""
    began_ml_h: float = 0.0
    """The rate at which the average began."""
    pieces_mmhg: list[float] = []
    sum_mmhg: float = 0.0
    readings: int = 0
    """Sum and number of the readings of the running piece."""
    piece_ends_t_ms: int = -1
    """Until then ``limit_mmhg`` holds."""
    limit_mmhg: float = inf
    """Above it a reading is news; infinite while there is no average yet."""
    used_from_t_ms: int | None = None
    """Readings before this are not used: the pressure settles. ``None`` while nothing is delivered."""
    hold: Hold | None = None
    suspicion: Suspicion | None = None

    @property
    def is_known(self) -> bool:
        """Whether there is an average to compare with."""
        return self.limit_mmhg < inf

    def deliver(
        self, t_ms: int, pressure_mmhg: float, rate_ml_h: float | None, poll_ms: int, gap_ms: int
    ) -> PressureChange | None:
        """Take a reading of a pump that runs at this set rate (``None``: not shown, unchanged).

        ``gap_ms`` is the silence after which the average begins anew.
        """
        if rate_ml_h is not None and rate_ml_h != self.set_ml_h:
            self._set_rate(t_ms, rate_ml_h)
        if pressure_mmhg <= self.limit_mmhg and t_ms < self.piece_ends_t_ms and self.hold is None:
            self.sum_mmhg += pressure_mmhg
            self.readings += 1
            return None
        return self._look(t_ms, pressure_mmhg, poll_ms, gap_ms)

    def bolus(self, t_ms: int) -> None:
        """A bolus runs: its pressure does not count, and the average is kept for after it."""
        if self.used_from_t_ms is not None:
            self.used_from_t_ms = t_ms + SETTLING_MS
            self.piece_ends_t_ms = -1
            self.hold = None

    def stop(self, pressure_mmhg: float | None) -> PressureChange | None:
        """The pump does not deliver: the average begins anew when it does; a pressure may still fall."""
        if self.used_from_t_ms is not None:
            self._begin(None)
        if self.suspicion is None or pressure_mmhg is None:
            return None
        return self._follow(self.suspicion, pressure_mmhg)

    def alarm_is_over(self) -> None:
        """The pump no longer reports an occlusion: a fall with that needs no second reading."""
        if self.suspicion is not None:
            self.suspicion.fallen_readings = CONFIRMED_BY - 1

    def forget(self, t_ms: int) -> None:
        """Another line, or the counter fell and nobody knows why: what was usual tells nothing any more."""
        if self.used_from_t_ms is not None:
            self._begin(t_ms)

    def _set_rate(self, t_ms: int, rate_ml_h: float) -> None:
        self.set_ml_h = rate_ml_h
        if self.used_from_t_ms is not None and abs(rate_ml_h - self.began_ml_h) > RATE_STEP_ML_H:
            self._begin(t_ms)

    def _begin(self, t_ms: int | None) -> None:
        self.began_ml_h = self.set_ml_h
        self.pieces_mmhg = []
        self.sum_mmhg = 0.0
        self.readings = 0
        self.piece_ends_t_ms = -1
        self.limit_mmhg = inf
        self.used_from_t_ms = None if t_ms is None else t_ms + SETTLING_MS
        self.hold = None

    def _look(self, t_ms: int, pressure_mmhg: float, poll_ms: int, gap_ms: int) -> PressureChange | None:
        """A piece is over, or the pressure is above its limit, or was."""
        if self.suspicion is not None:
            return self._follow(self.suspicion, pressure_mmhg, restart_t_ms=t_ms)
        if self.used_from_t_ms is None:
            self._begin(t_ms)
            return None
        if t_ms < self.used_from_t_ms:
            return None
        last_t_ms = max(self.piece_ends_t_ms, self.used_from_t_ms)
        if self.hold is None and t_ms - last_t_ms > gap_ms:
            self._begin(t_ms)
            return None
        if pressure_mmhg > self.limit_mmhg:
            return self._held(t_ms, pressure_mmhg, poll_ms)
        self.hold = None
        if t_ms >= self.piece_ends_t_ms:
            self._end_piece(t_ms)
        self.sum_mmhg += pressure_mmhg
        self.readings += 1
        return None

    def _end_piece(self, t_ms: int) -> None:
        """End the piece, if there is one, and begin another."""
        if self.readings:
            self.pieces_mmhg.append(self.sum_mmhg / self.readings)
            del self.pieces_mmhg[:-PIECES]
            self.limit_mmhg = limit_mmhg(self.pieces_mmhg)
        self.sum_mmhg = 0.0
        self.readings = 0
        self.piece_ends_t_ms = t_ms + (piece_ms(self.set_ml_h) if self.pieces_mmhg else FIRST_PIECE_MS)

    def _held(self, t_ms: int, pressure_mmhg: float, poll_ms: int) -> PressureChange | None:
        """Above the limit: a step, or the growth behind a closed line?"""
        hold = self.hold
        if hold is None:
            self.hold = Hold(t_ms, pressure_mmhg)
            return None
        slope_mmhg_ms = self.set_ml_h / COMPLIANCE_ML_MMHG / MS_PER_HOUR
        held_ms = t_ms - hold.since_t_ms
        needed_mmhg = min(MOST_GROWTH_MMHG, max(GROWTH_MMHG, slope_mmhg_ms * held_ms / 2))
        if pressure_mmhg - hold.first_mmhg < needed_mmhg:
            hold.grown_readings = 0
            if held_ms > rise_ms(self.set_ml_h, CERTAIN_MMHG) + CERTAIN_MS:
                self._begin(t_ms)  # it has long been level: this is usual now
            return None
        hold.grown_readings += 1
        average_mmhg = self.limit_mmhg - HOLD_MMHG
        begun_t_ms = hold.since_t_ms - round(rise_ms(self.set_ml_h, HOLD_MMHG))
        may_pass_ms = passing_ms(self.set_ml_h, PUMP_ALARM_MMHG - average_mmhg, poll_ms)
        if hold.grown_readings < CONFIRMED_BY or t_ms - begun_t_ms < may_pass_ms:
            return None
        self.suspicion = Suspicion(average_mmhg, begun_t_ms, pressure_mmhg)
        return PressureChange.RISES

    def _follow(
        self, suspicion: Suspicion, pressure_mmhg: float, *, restart_t_ms: int | None = None
    ) -> PressureChange | None:
        """Whether what was suspected is over: less is left than half of the rise, or than begins a hold."""
        suspicion.peak_mmhg = max(suspicion.peak_mmhg, pressure_mmhg)
        half_mmhg = (suspicion.peak_mmhg - suspicion.average_mmhg) / 2
        if pressure_mmhg - suspicion.average_mmhg >= max(HOLD_MMHG, half_mmhg):
            suspicion.fallen_readings = 0
            return None
        suspicion.fallen_readings += 1
        if suspicion.fallen_readings < CONFIRMED_BY:
            return None
        self.suspicion = None
        self._begin(restart_t_ms)
        return PressureChange.FELL


def limit_mmhg(pieces_mmhg: list[float]) -> float:
    """Above this a reading is news: the mean of these pieces, and what begins a hold."""
    return sum(pieces_mmhg) / len(pieces_mmhg) + HOLD_MMHG


def piece_ms(rate_ml_h: float) -> int:
    """Length of one piece of the average at this rate, in ms."""
    if rate_ml_h <= 0:
        return PIECE_MS
    return round(min(LONGEST_PIECE_MS, max(PIECE_MS, PIECE_ML * MS_PER_HOUR / rate_ml_h)))


def rise_ms(rate_ml_h: float, pressure_mmhg: float) -> float:
    """How long a pump at this rate takes to raise the pressure so far behind a closed line; at most a day."""
    most_ms = 24.0 * MS_PER_HOUR
    if rate_ml_h <= 0:
        return most_ms
    return min(most_ms, max(0.0, pressure_mmhg) * COMPLIANCE_ML_MMHG * MS_PER_HOUR / rate_ml_h)


def passing_ms(rate_ml_h: float, until_alarm_mmhg: float, poll_ms: int) -> float:
    """How long after its beginning a rise may still be one that passes, in ms.

    ``PASSING_MS``, but never so long that a closed line would be found too late: two polls and
    ``SETTLING_MS`` before the deadline, or before the pump's alarm at ``until_alarm_mmhg`` above rest.
    """
    deadline_ms = min(
        rise_ms(rate_ml_h, CERTAIN_MMHG) + CERTAIN_MS,
        rise_ms(rate_ml_h, until_alarm_mmhg),
    )
    return min(PASSING_MS, deadline_ms - SETTLING_MS - 2 * poll_ms)


def occlusion_blind_s(rate_ml_h: float | None, pump: PumpExpected, *, pressure_is_seen: bool) -> int | None:
    """How long a closed line could stay hidden at this rate, in s (MQTT page, ``state``).

    Until the pump's own alarm: the volume that is pent up by then (``occlusion_ml``) at this rate. Where the
    pump shows its pressure, at most as long as ``occlusion_suspected`` may take. ``None`` if nothing flows or
    the rate is not known.
    """
    if rate_ml_h is None or rate_ml_h <= 0:
        return None
    hidden_ms = pump.occlusion_ml * MS_PER_HOUR / rate_ml_h
    if pressure_is_seen:
        hidden_ms = min(hidden_ms, rise_ms(rate_ml_h, CERTAIN_MMHG) + CERTAIN_MS)
    return max(1, round(hidden_ms / 1000))
