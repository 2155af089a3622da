"""Announced absences of one pump: for how long each may last, when the next may come, and when one is overdue
(mqtt page, ``absence``).

Pure: all is reckoned from ``t_ms``. What an absence holds back stands in alerts/inhibition.py, for which it
is one more cause. Where the page is silent:

- A length above the bound is refused, not cut: what was accepted is what was asked for.
- Once more while it is on is its one extension, counted from the arrival of that. A length that ends it no
  later than before only shortens it, and is always accepted: so it can be ended.
- Each kind is reckoned by itself. A visit may hold a change of the set.
- A bound that a new order makes shorter ends what is on accordingly; a longer one lengthens nothing.
- After a gap of unknown length nobody knows how much of an absence is left: it is over.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from msgspec import Struct
from msgspec.structs import replace

from alerts.condition import AbsenceWhat, Finding, Kind, Urgency, Verdict
from gateway.core.assess import minutes

_MS_PER_MIN = 60_000
_URGENCIES = (Urgency.VITAL, Urgency.CRITICAL, Urgency.TIMED, Urgency.ROUTINE)
_BOUNDS_MIN: Mapping[AbsenceWhat, tuple[int, int, int, int]] = MappingProxyType(
    {
        AbsenceWhat.SET_CHANGE: (3, 15, 30, 60),
        AbsenceWhat.AWAY: (0, 720, 720, 720),
        AbsenceWhat.NURSE_PRESENT: (120, 120, 120, 120),
    }
)
"""By urgency, from vital to routine. 0: not at all."""


def bound_ms(what: AbsenceWhat, urgency: Urgency) -> int:
    """The longest that one announcement may ask for; 0: none is allowed."""
    return _BOUNDS_MIN[what][_URGENCIES.index(urgency)] * _MS_PER_MIN


class Absence(Struct, frozen=True, kw_only=True):
    """One that is on, or that has just ended."""

    what: AbsenceWhat
    began_t_ms: int
    counted_from_t_ms: int
    """The arrival of the announcement that set its end: the first, or the extension."""
    until_t_ms: int
    extended: bool = False

    def words(self) -> str:
        """As it is called."""
        return _WORDS[self.what]


_WORDS = {
    AbsenceWhat.SET_CHANGE: "Change of the set",
    AbsenceWhat.AWAY: "Away",
    AbsenceWhat.NURSE_PRESENT: "Nurse present",
}


class Rest(Struct, frozen=True, kw_only=True):
    """None of this kind until then."""

    what: AbsenceWhat
    until_t_ms: int


class Absences(Struct, frozen=True, kw_only=True):
    """All that is to be known of the absences of a pump; kept over a restart. At most one of each kind."""

    on: tuple[Absence, ...] = ()
    rests: tuple[Rest, ...] = ()
    not_seen_over: tuple[Absence, ...] = ()
    """Its end has passed, and nothing has shown yet that what it announced is over."""

    def longest(self) -> Absence | None:
        """Of those that are on, the one that ends last."""
        return max(self.on, key=lambda absence: absence.until_t_ms, default=None)


def announced(
    absences: Absences, what: AbsenceWhat, for_ms: float, urgency: Urgency, t_ms: int
) -> Absences | None:
    """With what is announced now; ``None`` if it is not allowed."""
    if not 0 < for_ms <= bound_ms(what, urgency):
        return None
    until_t_ms = t_ms + max(1, round(for_ms))
    known = next((absence for absence in absences.on if absence.what is what), None)
    others = tuple(absence for absence in absences.on if absence.what is not what)
    if known is not None:
        if until_t_ms <= known.until_t_ms:
            changed = replace(known, until_t_ms=until_t_ms)
        elif known.extended:
            return None
        else:
            changed = replace(known, until_t_ms=until_t_ms, counted_from_t_ms=t_ms, extended=True)
        return replace(absences, on=(*others, changed))
    if any(rest.what is what and rest.until_t_ms > t_ms for rest in absences.rests):
        return None
    begins = Absence(what=what, began_t_ms=t_ms, counted_from_t_ms=t_ms, until_t_ms=until_t_ms)
    return replace(absences, on=(*others, begins))


def passed(absences: Absences, urgency: Urgency, t_ms: int) -> tuple[Absences, tuple[Absence, ...]]:
    """What the time, and the bounds of this urgency, leave of them; and those that have ended.

    Of one that has ended ``until_t_ms`` is when it did.
    """
    on: list[Absence] = []
    ended: list[Absence] = []
    for absence in absences.on:
        allowed_until_t_ms = absence.counted_from_t_ms + bound_ms(absence.what, urgency)
        if min(absence.until_t_ms, allowed_until_t_ms) > t_ms:
            on.append(replace(absence, until_t_ms=min(absence.until_t_ms, allowed_until_t_ms)))
        else:
            ended.append(replace(absence, until_t_ms=min(absence.until_t_ms, t_ms)))
    if not ended and tuple(on) == absences.on:
        return absences, ()
    kinds = {absence.what for absence in ended}
    return (
        Absences(
            on=tuple(on),
            rests=(
                *(rest for rest in absences.rests if rest.what not in kinds and rest.until_t_ms > t_ms),
                *(Rest(what=one.what, until_t_ms=2 * one.until_t_ms - one.began_t_ms) for one in ended),
            ),
            not_seen_over=(
                *(late for late in absences.not_seen_over if late.what not in kinds),
                # Whether the nurse has gone nobody can see; what she left behind is told by itself.
                *(one for one in ended if one.what is not AbsenceWhat.NURSE_PRESENT),
            ),
        ),
        tuple(ended),
    )


def cut_off(absences: Absences, t_ms: int) -> Absences:
    """As if the end of each were now at the latest: ``passed`` ends them."""
    return replace(
        absences, on=tuple(replace(one, until_t_ms=min(one.until_t_ms, t_ms)) for one in absences.on)
    )


def moved(absences: Absences, by_ms: int) -> Absences:
    """The length of an earlier gap has become known, and ``t_ms`` has moved by it: no absence has passed."""

    def later(absence: Absence) -> Absence:
        return replace(
            absence,
            began_t_ms=absence.began_t_ms + by_ms,
            counted_from_t_ms=absence.counted_from_t_ms + by_ms,
            until_t_ms=absence.until_t_ms + by_ms,
        )

    return Absences(
        on=tuple(map(later, absences.on)),
        rests=tuple(replace(rest, until_t_ms=rest.until_t_ms + by_ms) for rest in absences.rests),
        not_seen_over=tuple(map(later, absences.not_seen_over)),
    )


class Seen(Struct, frozen=True, kw_only=True):
    """What of a pump tells whether an absence is over."""

    heard: bool
    """Its line is up."""
    silence_is_told: bool
    """``no_data`` is open."""
    stands: bool
    """By its last reading it is interrupted within an occurrence."""


def overdue(what: AbsenceWhat, seen: Seen) -> Verdict:
    """Whether what was announced goes on after its end.

    Somebody who was away is back when the pump is heard again; a change of the set is over when it is heard
    and does not stand. A pump that is silent where nothing is expected of it shows neither.
    """
    if seen.silence_is_told:
        return Verdict.PRESENT
    if not seen.heard:
        return Verdict.UNKNOWN
    return Verdict.PRESENT if what is AbsenceWhat.SET_CHANGE and seen.stands else Verdict.ABSENT


class Now(Struct, frozen=True, kw_only=True):
    """When, and how far the occurrence is: what a finding says besides."""

    t_ms: int
    utc_ms: int
    expected_ml: float | None = None
    delivered_ml: float | None = None

    def finding(
        self,
        kind: Kind,
        verdict: Verdict,
        message: str,
        *,
        code: str | None = None,
        since_t_ms: int | None = None,
    ) -> Finding:
        """A finding of now."""
        return Finding(
            kind=kind,
            verdict=verdict,
            at_ms=self.t_ms,
            at_utc_ms=self.utc_ms,
            code=code,
            since_utc_ms=None if since_t_ms is None else self.utc_ms - (self.t_ms - since_t_ms),
            expected_ml=self.expected_ml,
            delivered_ml=self.delivered_ml,
            message=message,
        )


def began(absence: Absence, by: str, now: Now) -> Finding:
    """The event, and the cause that holds back. ``by``: a pseudonym. The reason is not repeated: it is free
    text, and may hold a name.
    """
    return now.finding(
        Kind.ABSENCE_BEGAN,
        Verdict.PRESENT,
        f"{absence.words()}: announced by {by} for {minutes(absence.until_t_ms - absence.began_t_ms)}."
        " What stands at its end is told then.",
        code=absence.what,
    )


def ended(absence: Absence, now: Now) -> tuple[Finding, Finding]:
    """The cause is over, which lets go what it has held back; and the event."""
    lasted = minutes(absence.until_t_ms - absence.began_t_ms)
    return (
        now.finding(Kind.ABSENCE_BEGAN, Verdict.ABSENT, "", code=absence.what),
        now.finding(
            Kind.ABSENCE_ENDED,
            Verdict.PRESENT,
            f"{absence.words()}: what was announced has ended after {lasted}.",
            code=absence.what,
            since_t_ms=absence.began_t_ms,
        ),
    )


def looked_at(
    absences: Absences, seen: Seen, now: Now, *, is_told: bool
) -> tuple[Absences, tuple[Finding, ...]]:
    """Those whose end has passed, judged by what is seen now. ``is_told``: ``absence_overdue`` is open."""
    late = tuple(
        absence for absence in absences.not_seen_over if overdue(absence.what, seen) is not Verdict.ABSENT
    )
    found: tuple[Finding, ...] = ()
    present = next((absence for absence in late if overdue(absence.what, seen) is Verdict.PRESENT), None)
    if present is not None and not is_told:
        why = "nothing is heard from the pump" if seen.silence_is_told else "the pump stands"
        found = (
            now.finding(
                Kind.ABSENCE_OVERDUE,
                Verdict.PRESENT,
                f"{present.words()}: the announced time is over, and {why}.",
                since_t_ms=present.until_t_ms,
            ),
        )
    elif is_told and not late:
        found = (
            now.finding(
                Kind.ABSENCE_OVERDUE,
                Verdict.ABSENT,
                "What was announced is over: the pump is heard and does not stand.",
            ),
        )
    return replace(absences, not_seen_over=late), found
