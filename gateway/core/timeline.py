"""One continuous time for all rules, over clock steps and restarts (readings.csv, rules for who reads it).

Rules never use the wall clock. They use ``t_ms``: monotonic milliseconds that go on over a restart of the
machine. The wall clock is for people, for the schedule's anchor and for what is printed.
"""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct, structs

CLOCK_SET_MS = 1_000
"""Less than this is the clock being kept right, not being set."""
RESTART_MOVED_MS = 5_000
"""The monotonic clock falls, and the wall clock has moved against it by more than this: a restart."""


class Moment(Struct, frozen=True, kw_only=True):
    """What the machine's clocks say at one instant.

    ``monotonic_ms`` is ``None`` for recordings without the column ``uptime_s``. ``boot`` tells one start of
    the machine from another where that is known; without it a restart is recognised by the rule of the
    prescription page (the monotonic clock falls and the wall clock has moved against it by more than 5 s).
    """

    monotonic_ms: int | None
    utc_ms: int
    synced: bool = True
    boot: str | None = None


class GapKind(StrEnum):
    """What lies between two instants besides the time that passed."""

    NONE = "none"
    RESTART = "restart"
    """The machine was restarted; the length is known by the wall clock, and is in ``t_ms``."""
    RESTART_UNKNOWN = "restart_unknown"
    """The machine was restarted; how long it was gone is not (yet) known."""
    RESTART_RESOLVED = "restart_resolved"
    """The clock is synced at last: ``t_ms`` has just moved on by the length of the gap."""


class Instant(Struct, frozen=True, kw_only=True):
    """One instant as the rules see it."""

    t_ms: int
    """Continuous time, for all arithmetic."""
    utc_ms: int
    """The wall clock, for people."""
    schedule_utc_ms: int | None
    """The wall clock that the schedule was anchored with; ``None`` until the clock has first been synced."""
    gap: GapKind = GapKind.NONE
    moved_ms: int = 0
    """How much of the time since the last instant is the length of a gap that has just become known."""
    stepped_ms: int = 0
    """By how much the wall clock was set since the last instant."""


class OpenGap(StrEnum):
    """What a gap of unknown length waits for."""

    UNTIL_SYNCED = "until_synced"
    UNTIL_STEPPED = "until_stepped"


class TimelineState(Struct, kw_only=True):
    """What is kept over a restart. Only ``Timeline`` changes it."""

    t_ms: int | None = None
    moment: Moment | None = None
    """The latest that was seen."""
    earlier_clock: Moment | None = None
    """The last one before the clock was last set or the machine last restarted."""
    anchor_offset_ms: int | None = None
    """Schedule clock minus ``t_ms``."""
    synced_utc_ms: int | None = None
    """The latest trusted wall time outside a gap of unknown length, and ``t_ms`` then."""
    synced_t_ms: int | None = None
    gap: OpenGap | None = None


class Timeline:
    """Turns what the clocks say into instants, one after another.

    It holds the rules *Duplicates and disorder* and *Clock steps* of the prescription page, section 2.
    """

    def __init__(self, state: TimelineState | None = None) -> None:
        self.state = state if state is not None else TimelineState()
        """May be encoded, and given to another ``Timeline`` after a restart."""

    def at(self, moment: Moment) -> Instant | None:
        """The instant of a moment; ``None`` if it is not later than the latest seen, and is to be dropped."""
        state = self.state
        last = state.moment
        offset_ms = state.anchor_offset_ms
        if (
            last is not None
            and last.monotonic_ms is not None
            and moment.monotonic_ms is not None
            and offset_ms is not None
            and state.t_ms is not None
            and state.gap is None
            and moment.synced
            and last.boot == moment.boot
        ):
            # nearly always: the same start of the machine, a clock that is right, and time has passed
            passed_ms = moment.monotonic_ms - last.monotonic_ms
            if passed_ms > 0 and -CLOCK_SET_MS <= moment.utc_ms - last.utc_ms - passed_ms <= CLOCK_SET_MS:
                t_ms = state.t_ms + passed_ms
                state.moment = moment
                state.t_ms = state.synced_t_ms = t_ms
                state.synced_utc_ms = moment.utc_ms
                return Instant(t_ms=t_ms, utc_ms=moment.utc_ms, schedule_utc_ms=t_ms + offset_ms)
        if last is None or state.t_ms is None:
            state.t_ms = moment.utc_ms if moment.monotonic_ms is None else moment.monotonic_ms
            return self._seen(moment, GapKind.NONE, stepped_ms=0)
        if state.earlier_clock is not None and _is_from(state.earlier_clock, last, moment):
            return None
        if _restarted(last, moment):
            return self._after_restart(last, moment, state.t_ms)
        passed_ms = _passed_ms(last, moment)
        if passed_ms <= 0:
            return None
        state.t_ms += passed_ms
        stepped_ms = moment.utc_ms - last.utc_ms - passed_ms
        if abs(stepped_ms) <= CLOCK_SET_MS:
            stepped_ms = 0
        else:
            state.earlier_clock = last
        if state.gap is not None:
            return self._within_gap(moment, stepped_ms, state.t_ms)
        return self._seen(moment, GapKind.NONE, stepped_ms)

    def _after_restart(self, last: Moment, moment: Moment, t_ms: int) -> Instant:
        """Bridged by the wall clock if both sides are synced and it went forward; else of unknown length."""
        state = self.state
        state.earlier_clock = last
        bridged_ms = moment.utc_ms - last.utc_ms
        if state.gap is None and last.synced and moment.synced and bridged_ms > 0:
            state.t_ms = t_ms + bridged_ms
            return self._seen(moment, GapKind.RESTART, stepped_ms=0)
        # later than the last by as little as can be: nothing may be concluded from a length that is not known
        state.t_ms = t_ms + 1
        # If one before was open still, only how long both were together becomes known.
        alone = state.gap is not OpenGap.UNTIL_SYNCED
        state.gap = OpenGap.UNTIL_SYNCED
        was_dated = state.synced_utc_ms is not None
        instant = self._within_gap(moment, stepped_ms=0, t_ms=state.t_ms)
        known = alone and was_dated and instant.gap is GapKind.RESTART_RESOLVED
        gap = GapKind.RESTART if known else GapKind.RESTART_UNKNOWN
        return structs.replace(instant, gap=gap, moved_ms=0)

    def _within_gap(self, moment: Moment, stepped_ms: int, t_ms: int) -> Instant:
        """Its length is known when the clock is synced; the first step after that belongs to it as well."""
        state = self.state
        if state.gap is OpenGap.UNTIL_STEPPED:
            if not moment.synced or not stepped_ms:
                return self._seen(moment, GapKind.NONE, stepped_ms)
            moved_ms = stepped_ms
        elif not moment.synced or moment.utc_ms <= (state.synced_utc_ms or 0):
            # a clock that went back over a restart is not right yet, whatever it says of itself
            return self._seen(moment, GapKind.NONE, stepped_ms)
        elif state.synced_utc_ms is None or state.synced_t_ms is None:
            moved_ms = 0
        else:
            moved_ms = (moment.utc_ms - state.synced_utc_ms) - (t_ms - state.synced_t_ms)
        if moved_ms > 0:
            state.t_ms = t_ms + moved_ms
        elif state.anchor_offset_ms is not None:
            # continuous time cannot go back: the schedule follows the clock that is trusted now
            state.anchor_offset_ms = moment.utc_ms - t_ms
        state.gap = None if stepped_ms else OpenGap.UNTIL_STEPPED
        return structs.replace(
            self._seen(moment, GapKind.RESTART_RESOLVED, stepped_ms=0), moved_ms=max(0, moved_ms)
        )

    def _seen(self, moment: Moment, gap: GapKind, stepped_ms: int) -> Instant:
        state = self.state
        assert state.t_ms is not None
        state.moment = moment
        length_is_known = state.gap is not OpenGap.UNTIL_SYNCED
        if moment.synced and length_is_known:
            state.synced_utc_ms = moment.utc_ms
            state.synced_t_ms = state.t_ms
            if state.anchor_offset_ms is None:
                state.anchor_offset_ms = moment.utc_ms - state.t_ms
        anchored = state.anchor_offset_ms is not None and length_is_known
        return Instant(
            t_ms=state.t_ms,
            utc_ms=moment.utc_ms,
            schedule_utc_ms=state.t_ms + (state.anchor_offset_ms or 0) if anchored else None,
            gap=gap,
            stepped_ms=stepped_ms,
        )


def _passed_ms(last: Moment, moment: Moment) -> int:
    """Time between two moments of one start of the machine; by the wall clock where there is no better."""
    if last.monotonic_ms is None or moment.monotonic_ms is None:
        return moment.utc_ms - last.utc_ms
    return moment.monotonic_ms - last.monotonic_ms


def _is_from(earlier: Moment, last: Moment, moment: Moment) -> bool:
    """Whether this arrives late, from before the clock was set or the machine restarted."""
    if earlier.boot is not None and moment.boot is not None and earlier.boot != last.boot:
        return moment.boot == earlier.boot
    if earlier.monotonic_ms is None or moment.monotonic_ms is None or last.monotonic_ms is None:
        return False
    fits = moment.monotonic_ms <= earlier.monotonic_ms and _moved_ms(earlier, moment) <= CLOCK_SET_MS
    return fits and _moved_ms(last, moment) > CLOCK_SET_MS


def _restarted(last: Moment, moment: Moment) -> bool:
    """Whether the machine was started between the two; without ``boot``, by the page's rule."""
    if last.monotonic_ms is None or moment.monotonic_ms is None:
        return False
    if last.boot is not None and moment.boot is not None:
        return last.boot != moment.boot
    return moment.monotonic_ms < last.monotonic_ms and _moved_ms(last, moment) > RESTART_MOVED_MS


def _moved_ms(last: Moment, moment: Moment) -> int:
    """By how much the wall clock moved against the monotonic one."""
    assert last.monotonic_ms is not None
    assert moment.monotonic_ms is not None
    return abs((moment.utc_ms - moment.monotonic_ms) - (last.utc_ms - last.monotonic_ms))
