"""One cause makes one alert: what holds back what (prescription page, section 3, last paragraph; MQTT page,
``absence``).

Findings go in, transitions come out. An effect whose cause is open is held back, unless it is of higher
priority than the cause; what is open already stays open. What is held back is not forgotten: when the cause
ends, an effect that is still present starts, with its true beginning, and a moment is told unless it was
retracted.

An absence that somebody has announced is one more cause: from ``absence_began`` on, until ``absence_ended``.

Held back by nothing, because they are nobody's effect here: ``limit_exceeded`` and the bolus kinds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from types import MappingProxyType

from msgspec import Struct
from msgspec.structs import replace

from alerts.catalogue import row
from alerts.condition import AbsenceWhat, Finding, Kind, Priority, Urgency, Verdict

HOLDS_BACK: dict[Kind, frozenset[Kind]] = {
    Kind.WRONG_RATE: frozenset({Kind.UNDER_INFUSION, Kind.OVER_INFUSION}),
    Kind.NO_DELIVERY: frozenset({Kind.UNDER_INFUSION}),
    Kind.FREE_FLOW: frozenset({Kind.OVER_INFUSION}),
    Kind.OCCLUSION_SUSPECTED: frozenset({Kind.UNDER_INFUSION}),
    Kind.OCCLUSION: frozenset({Kind.OCCLUSION_SUSPECTED, Kind.UNDER_INFUSION, Kind.PAUSED_TOO_LONG}),
    Kind.BAG_EMPTY: frozenset({Kind.PAUSED_TOO_LONG, Kind.STOPPED_EARLY}),
    Kind.PUMP_ALARM: frozenset({Kind.PAUSED_TOO_LONG}),
    Kind.NOT_ENDED: frozenset({Kind.OVER_INFUSION}),
}
"""Cause to effects."""

_Effects = Mapping[Kind, frozenset[str] | None]
"""Kinds, each with the codes for which it counts; ``None``: whatever the code."""

ANNOUNCED_HOLDS_BACK: Mapping[str, _Effects] = MappingProxyType(
    {
        AbsenceWhat.SET_CHANGE: {
            Kind.PAUSED_TOO_LONG: None,
            Kind.STOPPED_EARLY: None,
            Kind.NO_DATA: None,
            Kind.COUNTER_RESET: None,
            Kind.PUMP_ALARM: frozenset({"air_in_line", "door_open", "cassette"}),
        },
        AbsenceWhat.AWAY: {Kind.NO_DATA: None},
        AbsenceWhat.NURSE_PRESENT: {Kind.WRONG_RATE: None},
    }
)
"""What an announced absence holds back (MQTT page), ``wrong_rate`` only below high.

An alarm without a code is not one of those named, and a counter reset that nothing explains is told.
"""

TAKES_THE_PLACE_OF: dict[Kind, Kind] = {
    Kind.OCCLUSION: Kind.OCCLUSION_SUSPECTED,
    Kind.DOSE_MISSED: Kind.NOT_STARTED,
}
"""The only open effects that end when another kind starts; the end comes first."""

_IN_ITS_PLACE = {
    Kind.OCCLUSION_SUSPECTED: "No longer only suspected: the pump reports an occlusion.",
    Kind.NOT_STARTED: "Not started, and now missed.",
}

_OUTLASTS = {
    Kind.OCCLUSION_SUSPECTED: "The pump no longer reports an occlusion; the pressure still looks like one.",
}

_LATE_MS = 60_000
"""What has waited longer is told with how long ago it was found."""

_Condition = tuple[Kind, str | None]
"""One condition of one pump: the kind, and the pump's code where there is one."""


class Phase(StrEnum):
    """What a transition says of its condition."""

    START = "start"
    WORSE = "worse"
    """It lasts, and its priority has risen. A replay prints nothing."""
    END = "end"


class Transition(Struct, frozen=True, kw_only=True):
    """A condition begins, grows worse or ends, as people are told. ``finding.at_ms`` is when."""

    phase: Phase
    finding: Finding
    priority: Priority


class OpenCondition(Struct, frozen=True, kw_only=True):
    """A condition that has started and not ended."""

    kind: Kind
    code: str | None
    priority: Priority
    since_utc_ms: int


class InhibitionState(Struct, frozen=True, kw_only=True):
    """What is kept over a restart."""

    open: tuple[OpenCondition, ...] = ()
    held: tuple[Finding, ...] = ()
    """Present, and held back behind a cause: conditions, and at most one moment of a kind."""


class Inhibition:
    """The conditions of one pump: which are open, and which wait behind a cause."""

    def __init__(self, urgency: Urgency, state: InhibitionState | None = None) -> None:
        self.urgency = urgency
        """Of the order in force; a new version of it may have another."""
        state = state or InhibitionState()
        self._open: dict[_Condition, OpenCondition] = {
            (known.kind, known.code): known for known in state.open
        }
        self._held: dict[_Condition, Finding] = {_condition(finding): finding for finding in state.held}

    @property
    def state(self) -> InhibitionState:
        """What must be kept over a restart; it goes into the constructor again."""
        return InhibitionState(open=tuple(self._open.values()), held=tuple(self._held.values()))

    def apply(self, findings: Iterable[Finding]) -> list[Transition]:
        """What people are told of these findings, in order of time.

        Findings of one instant are one picture: what ends comes first, then causes before their effects.
        """
        told: list[Transition] = []
        for instant in _by_instant(findings):
            for finding in instant:
                told.extend(self._one(finding))
            told.extend(self._released(instant[-1]))
            told.extend(self._no_data_as_high_as_the_highest(instant[-1]))
        return told

    def _one(self, finding: Finding) -> Iterator[Transition]:
        condition = _condition(finding)
        if finding.verdict is Verdict.PRESENT:
            yield from self._present(finding)
            return
        if finding.verdict is Verdict.ABSENT or not row(finding.kind).moment:
            # No longer known to be present: it must not start by itself when its cause ends.
            self._held.pop(condition, None)
        if finding.verdict is Verdict.ABSENT and condition in self._open:
            yield Transition(phase=Phase.END, finding=finding, priority=self._open.pop(condition).priority)

    def _present(self, finding: Finding) -> Iterator[Transition]:
        condition = _condition(finding)
        priority = self._priority(finding)
        known = self._open.get(condition)
        if known is not None:
            if priority.rank > known.priority.rank:
                self._open[condition] = replace(known, priority=priority)
                yield Transition(phase=Phase.WORSE, finding=finding, priority=priority)
            return
        waiting = self._held.pop(condition, None)
        if waiting is not None and finding.since_utc_ms is None:
            finding = replace(finding, since_utc_ms=_since(waiting))
        if self._has_open_cause(finding, priority):
            self._held[condition] = finding
            return
        yield from self._ended_by(finding)
        yield from self._start(finding, priority)

    def _start(self, finding: Finding, priority: Priority) -> Iterator[Transition]:
        entry = row(finding.kind)
        yield Transition(phase=Phase.START, finding=finding, priority=priority)
        if entry.moment:
            yield Transition(phase=Phase.END, finding=finding, priority=priority)
        elif not entry.info or finding.kind is Kind.ABSENCE_BEGAN:
            self._open[_condition(finding)] = OpenCondition(
                kind=finding.kind, code=finding.code, priority=priority, since_utc_ms=_since(finding)
            )

    def _ended_by(self, finding: Finding) -> Iterator[Transition]:
        """The end of the kind whose place this finding takes."""
        replaced = TAKES_THE_PLACE_OF.get(finding.kind)
        for condition in [condition for condition in self._open if condition[0] is replaced]:
            known = self._open.pop(condition)
            end = replace(
                finding,
                kind=known.kind,
                verdict=Verdict.ABSENT,
                code=known.code,
                priority=None,
                since_utc_ms=known.since_utc_ms,
                message=_IN_ITS_PLACE[known.kind],
            )
            yield Transition(phase=Phase.END, finding=end, priority=known.priority)
            if known.kind in HOLDS_BACK.get(finding.kind, frozenset()):
                # Nobody has said that it is over: should it outlast what took its place, it is told again.
                self._held[condition] = replace(end, verdict=Verdict.PRESENT, message=_OUTLASTS[known.kind])

    def _released(self, now: Finding) -> Iterator[Transition]:
        """What waited behind a cause that has ended: it starts now, and says since when it holds.

        Its words are of when it was found, and say so. The volumes are those of now (prescription page,
        section 3, ``expected_ml``); of a moment, those of the occurrence to which it happened.
        """
        # Several may have waited for one absence: the causes among them come first, and hold back the rest.
        for condition, waiting in sorted(self._held.items(), key=lambda held: _DEPTH[held[1].kind]):
            priority = self._priority(waiting)
            if not self._has_open_cause(waiting, priority):
                del self._held[condition]
                told = replace(
                    waiting,
                    at_ms=now.at_ms,
                    at_utc_ms=now.at_utc_ms,
                    since_utc_ms=_since(waiting),
                    message=_said_late(waiting.message, now.at_ms - waiting.at_ms),
                )
                if not row(waiting.kind).moment:
                    told = replace(told, expected_ml=now.expected_ml, delivered_ml=now.delivered_ml)
                yield from self._start(told, priority)

    def _no_data_as_high_as_the_highest(self, now: Finding) -> Iterator[Transition]:
        """``no_data`` rises with the highest that is open: that is what nobody can see any more."""
        known = self._open.get((Kind.NO_DATA, None))
        highest = self._highest_open()
        if known is not None and highest is not None and highest.rank > known.priority.rank:
            self._open[(Kind.NO_DATA, None)] = replace(known, priority=highest)
            worse = Finding(
                kind=Kind.NO_DATA,
                verdict=Verdict.PRESENT,
                at_ms=now.at_ms,
                at_utc_ms=now.at_utc_ms,
                since_utc_ms=known.since_utc_ms,
                message="No data from the pump, and what is open there cannot be followed.",
            )
            yield Transition(phase=Phase.WORSE, finding=worse, priority=highest)

    def _priority(self, finding: Finding) -> Priority:
        priority = finding.priority or row(finding.kind).priority(self.urgency, finding.code)
        highest = self._highest_open() if finding.kind is Kind.NO_DATA else None
        return highest if highest is not None and highest.rank > priority.rank else priority

    def _highest_open(self) -> Priority | None:
        return max((known.priority for known in self._open.values()), key=lambda p: p.rank, default=None)

    def _has_open_cause(self, effect: Finding, priority: Priority) -> bool:
        return any(_holds_back(known, effect, priority) for known in self._open.values())


def _holds_back(cause: OpenCondition, effect: Finding, priority: Priority) -> bool:
    """Whether this cause, which is open, holds back that effect, which would have this priority."""
    if cause.kind is not Kind.ABSENCE_BEGAN:
        return effect.kind in HOLDS_BACK.get(cause.kind, frozenset()) and cause.priority.rank >= priority.rank
    if cause.code == AbsenceWhat.NURSE_PRESENT and priority is Priority.HIGH:
        return False
    codes = ANNOUNCED_HOLDS_BACK.get(cause.code or "", {}).get(effect.kind, frozenset())
    return codes is None or effect.code in codes


def _condition(finding: Finding) -> _Condition:
    return finding.kind, finding.code


def _since(finding: Finding) -> int:
    return finding.at_utc_ms if finding.since_utc_ms is None else finding.since_utc_ms


def _said_late(message: str, waited_ms: int) -> str:
    """The words of what was found so long ago: the numbers in them are of then."""
    if waited_ms < _LATE_MS or message in _OUTLASTS.values():
        return message
    minutes = waited_ms / 60_000
    ago = f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"
    return f"Found {ago} ago: {message}"


def _by_instant(findings: Iterable[Finding]) -> Iterator[list[Finding]]:
    """Runs of findings of one time, each condition once; what ends first, then causes before effects."""
    instant: list[Finding] = []
    for finding in findings:
        if instant and (
            finding.at_ms != instant[0].at_ms
            or any(_condition(finding) == _condition(other) for other in instant)
        ):
            yield sorted(instant, key=_order)
            instant = []
        instant.append(finding)
    if instant:
        yield sorted(instant, key=_order)


def _order(finding: Finding) -> tuple[bool, int]:
    return finding.verdict is Verdict.PRESENT, _DEPTH[finding.kind]


def _depth(kind: Kind) -> int:
    """How many causes stand before this kind: 0 for one that is nobody's effect.

    An absence is before all others. ``no_data`` is last of all, because its priority looks at what else is
    open.
    """
    if kind is Kind.ABSENCE_BEGAN:
        return -1
    if kind is Kind.NO_DATA:
        return len(HOLDS_BACK)
    causes = [cause for cause, effects in HOLDS_BACK.items() if kind in effects]
    return 1 + max((_depth(cause) for cause in causes), default=-1)


_DEPTH = {kind: _depth(kind) for kind in Kind}
