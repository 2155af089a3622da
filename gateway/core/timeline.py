"""One continuous time for all rules, over clock steps and restarts (readings.csv, rules for who reads it).

Rules never use the wall clock. They use ``t_ms``: monotonic milliseconds that go on over a restart of the
machine. The wall clock is for people, for the schedule's anchor and for what is printed.
"""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct


class Moment(Struct, frozen=True, kw_only=True):
    """What the machine's clocks say at one instant.

    ``monotonic_ms`` is ``None`` for recordings without the column ``uptime_s``. ``boot`` tells one start of the
    machine from another where that is known; without it a restart is recognised by the rule of the prescription
    page (the monotonic clock falls and the wall clock has moved against it by more than 5 s).
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
    stepped_ms: int = 0
    """By how much the wall clock was set since the last instant."""


class TimelineState(Struct, kw_only=True):
    """What is kept over a restart. Only ``Timeline`` changes it."""

    t_ms: int | None = None
    moment: Moment | None = None
    anchor_offset_ms: int | None = None
    """Schedule clock minus ``t_ms``."""
    unknown_gap_from_utc_ms: int | None = None
    """Wall time before a gap of unknown length, if it was synced then."""
