"""The life of an alert, as a table (architecture: true is not yet told, told is not yet seen).

``TRANSITIONS`` says what becomes of an alert; a cell that is not there means that nothing changes and nothing
is told. ``AlertBook`` holds the alerts that are not closed and makes their revisions. It owns no clock: times
of rules are ``When.t_ms``, continuous over restarts; ``When.utc_ms`` is for people.

Acknowledged is not silenced, and gone is not seen: a kind that latches waits, silently, until somebody has
looked.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from enum import StrEnum
from types import MappingProxyType

from msgspec import Struct
from msgspec.structs import replace

from alerts.alert import Acknowledgement, Alert, AlertState, AnswerReason, Reason
from alerts.catalogue import acknowledgement_holds_ms, row
from alerts.condition import Kind, Priority, Urgency
from alerts.inhibition import Phase, Transition


class Happening(StrEnum):
    """What can happen to an alert."""

    BEGAN = "a condition begins"
    HAPPENED = "a moment happens"
    GREW_WORSE = "its priority rises"
    ENDED = "the condition ends"
    ENDED_LATCHING = "the condition ends, and its kind latches"
    ACKNOWLEDGED = "somebody acknowledges"
    ACKNOWLEDGED_MOMENT = "somebody acknowledges a moment"
    NOBODY_ANSWERED = "nobody has acknowledged in time"
    ANSWER_RAN_OUT = "the acknowledgement runs out"
    WITHDRAWN = "its pump or prescription is taken away"


TRANSITIONS: Mapping[tuple[AlertState, Happening], tuple[AlertState, Reason]] = MappingProxyType(
    {
        (AlertState.PENDING, Happening.BEGAN): (AlertState.ACTIVE, Reason.FIRST),
        (AlertState.PENDING, Happening.HAPPENED): (AlertState.ACTIVE, Reason.FIRST),
        (AlertState.ACTIVE, Happening.HAPPENED): (AlertState.ACTIVE, Reason.AGAIN),
        (AlertState.ACTIVE, Happening.GREW_WORSE): (AlertState.ACTIVE, Reason.WORSE),
        (AlertState.ACTIVE, Happening.ENDED): (AlertState.CLOSED, Reason.RESOLVED),
        (AlertState.ACTIVE, Happening.ENDED_LATCHING): (AlertState.LATCHED, Reason.RESOLVED),
        (AlertState.ACTIVE, Happening.ACKNOWLEDGED): (AlertState.ACKNOWLEDGED, Reason.ACKNOWLEDGED),
        (AlertState.ACTIVE, Happening.ACKNOWLEDGED_MOMENT): (AlertState.CLOSED, Reason.ACKNOWLEDGED),
        (AlertState.ACTIVE, Happening.NOBODY_ANSWERED): (AlertState.ACTIVE, Reason.ESCALATED),
        (AlertState.ACTIVE, Happening.WITHDRAWN): (AlertState.LATCHED, Reason.WITHDRAWN),
        (AlertState.ACKNOWLEDGED, Happening.GREW_WORSE): (AlertState.ACTIVE, Reason.WORSE),
        (AlertState.ACKNOWLEDGED, Happening.ENDED): (AlertState.CLOSED, Reason.RESOLVED),
        (AlertState.ACKNOWLEDGED, Happening.ENDED_LATCHING): (AlertState.CLOSED, Reason.RESOLVED),
        (AlertState.ACKNOWLEDGED, Happening.ACKNOWLEDGED): (AlertState.ACKNOWLEDGED, Reason.ACKNOWLEDGED),
        (AlertState.ACKNOWLEDGED, Happening.ANSWER_RAN_OUT): (AlertState.ACTIVE, Reason.REPEATED),
        (AlertState.ACKNOWLEDGED, Happening.WITHDRAWN): (AlertState.LATCHED, Reason.WITHDRAWN),
        (AlertState.LATCHED, Happening.BEGAN): (AlertState.ACTIVE, Reason.AGAIN),
        (AlertState.LATCHED, Happening.HAPPENED): (AlertState.ACTIVE, Reason.AGAIN),
        (AlertState.LATCHED, Happening.ACKNOWLEDGED): (AlertState.CLOSED, Reason.ACKNOWLEDGED),
        (AlertState.LATCHED, Happening.ACKNOWLEDGED_MOMENT): (AlertState.CLOSED, Reason.ACKNOWLEDGED),
    }
)
"""(state, what happened) to (next state, the reason that is told). ``closed`` is the end."""

HIGHEST_LEVEL: Mapping[Priority, int | None] = MappingProxyType(
    {Priority.HIGH: None, Priority.MEDIUM: 3, Priority.LOW: 1}
)
"""How far an alert escalates; None: without a ceiling (MQTT page)."""

CLOCK_TOLERANCE_MS = 60_000
"""By how much the clocks of the two sides may differ before an acknowledgement is ``too_old`` (MQTT page)."""

_SOUNDS_ANEW = frozenset({Reason.FIRST, Reason.AGAIN, Reason.WORSE, Reason.REPEATED, Reason.ESCALATED})
"""After these an acknowledgement must have seen this revision, and the time to respond counts anew."""


class When(Struct, frozen=True):
    """Now: ``t_ms`` on the gateway's continuous time for rules, ``utc_ms`` on the wall clock for people."""

    t_ms: int
    utc_ms: int


class AlertBook:
    """All alerts of a gateway that are not closed."""

    def __init__(
        self,
        alerts: Iterable[Alert] = (),
        *,
        store: str,
        next_number: int = 1,
        next_revs: Mapping[str, int] | None = None,
    ) -> None:
        """``store`` and ``next_number`` make the ids of new alerts: ``a-{store}-{n}``.

        ``next_revs`` is what a book of an earlier start had.
        """
        self._open = {alert.alert_id: alert for alert in alerts if alert.state is not AlertState.CLOSED}
        self._stores: tuple[str, ...] = (store,)
        self._next_rev = {id_: rev for id_, rev in (next_revs or {}).items() if id_ in self._open}
        self.next_number = next_number

    @property
    def open(self) -> Mapping[str, Alert]:
        """The alerts that are not closed, by ``alert_id``."""
        return MappingProxyType(self._open)

    @property
    def next_revs(self) -> Mapping[str, int]:
        """Where the ``rev`` of an alert does not simply go on; it must be kept over a restart."""
        return MappingProxyType(self._next_rev)

    def begin_in(self, store: str) -> None:
        """From now on new alerts begin in this store, and are named after it."""
        self._stores = (store, *(known for known in self._stores if known != store))

    def condition(
        self,
        pump: str,
        urgency: Urgency,
        respond_within_s: Mapping[Priority, int],
        transition: Transition,
        when: When,
    ) -> Alert | None:
        """The new revision that a transition of the core makes, or None if nothing is to be told.

        ``respond_within_s`` is by priority, from the prescription. What merely happened, and what only the
        panel shows, makes no alert.
        """
        finding = transition.finding
        entry = row(finding.kind)
        if entry.info or entry.local_only:
            return None
        if finding.kind is Kind.NO_DATA:
            transition = self._as_high_as_the_highest(pump, transition)
        known = self._of(pump, finding.kind, finding.code)
        if transition.phase is not Phase.END:
            known = known or self._pending(pump, urgency, transition, when)
            return self._present(known, urgency, respond_within_s, transition, when)
        if known is None or entry.moment:
            return None
        gone = replace(
            known,
            present=False,
            expected_ml=known.expected_ml if finding.expected_ml is None else finding.expected_ml,
            delivered_ml=known.delivered_ml if finding.delivered_ml is None else finding.delivered_ml,
            message=finding.message or known.message,
        )
        return self._revise(gone, Happening.ENDED_LATCHING if entry.latches else Happening.ENDED, when)

    def _present(
        self,
        known: Alert,
        urgency: Urgency,
        respond_within_s: Mapping[Priority, int],
        transition: Transition,
        when: When,
    ) -> Alert | None:
        """A condition or a moment is there: for the first time, again, or worse than before."""
        finding = transition.finding
        told = known.state in (AlertState.ACTIVE, AlertState.ACKNOWLEDGED)
        rises = told and transition.priority.rank > known.priority.rank
        if rises:
            happening = Happening.GREW_WORSE
        elif row(finding.kind).moment:
            happening = Happening.HAPPENED
        else:
            happening = Happening.BEGAN
        priority = known.priority if told and not rises else transition.priority
        present = replace(
            known,
            present=True,
            urgency=urgency,
            priority=priority,
            respond_within_s=respond_within_s[priority],
            since_utc_ms=known.since_utc_ms if happening is Happening.GREW_WORSE else finding.since_utc_ms,
            expected_ml=finding.expected_ml,
            delivered_ml=finding.delivered_ml,
            message=finding.message or known.message,
        )
        return self._revise(present, happening, when)

    def acknowledge(
        self, alert_id: str, rev: int, by: str, sent_utc_ms: int, clock_synced: bool, when: When
    ) -> tuple[AnswerReason | None, Alert | None]:
        """Somebody has seen revision ``rev`` and answers (MQTT page, ``ack``).

        None and the new revision if it is accepted; else why not, and no revision. It holds from now on, for
        a time by urgency. While the gateway's clock is not synced, ``rev`` alone decides.
        """
        alert = self._open.get(alert_id)
        if alert is None:
            return self._why_not_open(alert_id), None
        if alert.state is not AlertState.LATCHED and rev < alert.answerable_rev:
            return AnswerReason.STALE_REV, None
        age_ms = when.utc_ms - sent_utc_ms
        oldest_ms = alert.respond_within_s * 1000 + CLOCK_TOLERANCE_MS
        if clock_synced and not -CLOCK_TOLERANCE_MS <= age_ms <= oldest_ms:
            return AnswerReason.TOO_OLD, None
        holds_ms = acknowledgement_holds_ms(alert.urgency)
        answer = Acknowledgement(by=by, at_utc_ms=when.utc_ms, until_utc_ms=when.utc_ms + holds_ms)
        moment = row(alert.kind).moment
        happening = Happening.ACKNOWLEDGED_MOMENT if moment else Happening.ACKNOWLEDGED
        return None, self._revise(replace(alert, acknowledged=answer), happening, when)

    def due(self, when: When) -> list[Alert]:
        """What the time has made of the book: alerts that nobody has answered, answers that have run out.

        However long nobody looked, one step each.
        """
        happened = [
            (due_ms, alert, happening)
            for alert in self._open.values()
            for due_ms, happening in (
                (alert.escalates_at_ms, Happening.NOBODY_ANSWERED),
                (alert.acknowledged_until_ms, Happening.ANSWER_RAN_OUT),
            )
            if due_ms is not None and due_ms <= when.t_ms
        ]
        happened.sort(key=lambda one: one[0])
        revised = [self._revise(alert, happening, when) for _, alert, happening in happened]
        return [alert for alert in revised if alert is not None]

    def next_due_t_ms(self) -> int | None:
        """When ``due`` has something to say next, if nothing else happens."""
        times = [
            due_ms
            for alert in self._open.values()
            for due_ms in (alert.escalates_at_ms, alert.acknowledged_until_ms)
            if due_ms is not None
        ]
        return min(times, default=None)

    def time_was_added(self, added_ms: int, since_t_ms: int) -> list[Alert]:
        """Continuous time has just moved on by the length of a gap that was not known at its end.

        What was told or answered after the gap, at ``since_t_ms`` or later, has waited none of it: nobody is
        told sooner for it. Returns what must be kept anew; nothing of it is told.
        """
        moved = []
        for alert in self._open.values():
            escalates_at_ms, until_ms = alert.escalates_at_ms, alert.acknowledged_until_ms
            if escalates_at_ms is not None and escalates_at_ms - alert.respond_within_s * 1000 >= since_t_ms:
                moved.append(replace(alert, escalates_at_ms=escalates_at_ms + added_ms))
            elif until_ms is not None and until_ms - acknowledgement_holds_ms(alert.urgency) >= since_t_ms:
                moved.append(replace(alert, acknowledged_until_ms=until_ms + added_ms))
        self._open.update({alert.alert_id: alert for alert in moved})
        return moved

    def withdraw(self, pump: str, when: When, only: Collection[str] | None = None) -> list[Alert]:
        """The pump or its prescription is taken out of the configuration: its open alerts become latched.

        ``only``: the ids to which that is confined, where new limits no longer hold some alerts (MQTT page,
        ``order``, ``ended``).
        """
        concerned = [
            alert
            for alert in self._open.values()
            if alert.pump == pump and (only is None or alert.alert_id in only)
        ]
        revised = [
            self._revise(replace(alert, present=False), Happening.WITHDRAWN, when) for alert in concerned
        ]
        return [alert for alert in revised if alert is not None]

    def skip_revs(self) -> None:
        """After an unclean stop: each ``rev`` goes on from the next full thousand, and so do the ids.

        What was made while the storage was failing may have been told and is not remembered.
        """
        self.next_number = (self.next_number // 1000 + 1) * 1000
        self._next_rev = {
            alert_id: (max(alert.rev, self._next_rev.get(alert_id, 0)) // 1000 + 1) * 1000
            for alert_id, alert in self._open.items()
        }

    def _of(self, pump: str, kind: Kind, code: str | None) -> Alert | None:
        for alert in self._open.values():
            if (alert.pump, alert.kind, alert.code) == (pump, kind, code):
                return alert
        return None

    def _as_high_as_the_highest(self, pump: str, transition: Transition) -> Transition:
        """``no_data`` is never of lower priority than any open alert of its pump (prescription page, 3).

        The conditions are looked at by the inhibition; here also moments and what is latched.
        """
        priorities = [alert.priority for alert in self._open.values() if alert.pump == pump]
        highest = max((transition.priority, *priorities), key=lambda priority: priority.rank)
        return replace(transition, priority=highest)

    def _pending(self, pump: str, urgency: Urgency, transition: Transition, when: When) -> Alert:
        """An alert that has not been told yet: its first revision is number 1."""
        finding = transition.finding
        alert_id = f"a-{self._stores[0]}-{self.next_number}"
        self.next_number += 1
        return Alert(
            alert_id=alert_id,
            rev=0,
            pump=pump,
            kind=finding.kind,
            code=finding.code,
            state=AlertState.PENDING,
            reason=Reason.FIRST,
            priority=transition.priority,
            level=0,
            urgency=urgency,
            time_utc_ms=when.utc_ms,
            since_utc_ms=finding.since_utc_ms,
            raised_utc_ms=when.utc_ms,
            respond_within_s=0,
            expected_ml=None,
            delivered_ml=None,
            message="",
        )

    def _revise(self, alert: Alert, happening: Happening, when: When) -> Alert | None:
        """Moves an alert by the table; None where the cell is empty, and nothing has changed then."""
        cell = TRANSITIONS.get((alert.state, happening))
        if cell is None:
            return None
        state, reason = cell
        rev = max(alert.rev + 1, self._next_rev.pop(alert.alert_id, 0))
        level = _level(alert.level, reason)
        sounds = state is AlertState.ACTIVE
        ceiling = HIGHEST_LEVEL[alert.priority]
        escalates = sounds and (ceiling is None or level < ceiling)
        revised = replace(
            alert,
            rev=rev,
            state=state,
            reason=reason,
            level=level,
            time_utc_ms=when.utc_ms,
            acknowledged=None if sounds else alert.acknowledged,
            answerable_rev=rev if reason in _SOUNDS_ANEW else alert.answerable_rev,
            escalates_at_ms=when.t_ms + alert.respond_within_s * 1000 if escalates else None,
            acknowledged_until_ms=when.t_ms + acknowledgement_holds_ms(alert.urgency)
            if state is AlertState.ACKNOWLEDGED
            else None,
        )
        if state is AlertState.CLOSED:
            del self._open[alert.alert_id]
        else:
            self._open[alert.alert_id] = revised
        return revised

    def _why_not_open(self, alert_id: str) -> AnswerReason:
        """An id that this book has given and that is not open is closed; any other is unknown."""
        stores = "|".join(map(re.escape, self._stores))
        own = re.fullmatch(rf"a-(?:{stores})-([1-9][0-9]{{0,15}})", alert_id)
        given = own is not None and int(own[1]) < self.next_number
        return AnswerReason.CLOSED if given else AnswerReason.UNKNOWN_ALERT


def _level(level: int, reason: Reason) -> int:
    if reason in (Reason.FIRST, Reason.AGAIN, Reason.ACKNOWLEDGED):
        return 0
    return level + 1 if reason is Reason.ESCALATED else level


def life_table_markdown() -> str:
    """The table for the README: a row for each happening, a column for each state."""
    states = [state for state in AlertState if state is not AlertState.CLOSED]
    lines = [
        f"| what happens | {' | '.join(state.upper() for state in states)} |",
        f"| --- |{' --- |' * len(states)}",
    ]
    for happening in Happening:
        cells = [TRANSITIONS.get((state, happening)) for state in states]
        texts = ["" if cell is None else f"{cell[0].upper()}, *{cell[1]}*" for cell in cells]
        lines.append(f"| {happening} | {' | '.join(texts)} |")
    return "\n".join(lines) + "\n"
