"""Small scope, exhaustively: every sequence of up to six happenings through the life of an alert, and of up
to five findings of a cause and its effect.

Findings go through the inhibition into the book, as they do in a gateway. After each happening the laws are
asked; the sequences are counted, so that their number cannot shrink unseen.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import msgspec
import pytest
from msgspec import Struct

from alerts.alert import Alert, AlertState, AnswerReason, Reason
from alerts.catalogue import acknowledgement_holds_ms, respond_within_s, row
from alerts.condition import Finding, Kind, Priority, Urgency, Verdict
from alerts.inhibition import HOLDS_BACK, TAKES_THE_PLACE_OF, Inhibition, InhibitionState, Phase, Transition
from alerts.lifecycle import HIGHEST_LEVEL, AlertBook, When

UTC_MS = 1_700_000_000_000
A_WHILE_MS = 1_000
PUMP, STORE = "p1", "s-1"
HOLDS_MS = {urgency: acknowledgement_holds_ms(urgency) for urgency in Urgency}
WITHIN_S = {urgency: respond_within_s(urgency) for urgency in Urgency}
NEXT_HIGHER = {Priority.LOW: Priority.MEDIUM, Priority.MEDIUM: Priority.HIGH, Priority.HIGH: Priority.HIGH}
SOUNDS = frozenset({Reason.FIRST, Reason.AGAIN, Reason.WORSE, Reason.REPEATED, Reason.ESCALATED})
OF_PEOPLE_AND_CAUSES = frozenset(
    {Reason.WORSE, Reason.AGAIN, Reason.REPEATED, Reason.RESOLVED, Reason.WITHDRAWN}
)


class Life:
    """The conditions of one pump, the book, and the time."""

    def __init__(self, kind: Kind, urgency: Urgency) -> None:
        self.kind, self.urgency = kind, urgency
        self.inhibition = Inhibition(urgency)
        self.book = AlertBook(store=STORE)
        self.t_ms = 1
        self.told: dict[str, Alert] = {}
        """The newest telling of each alert, the closed ones too: what a reader has."""
        self.history: tuple[str, ...] = ()

    def twin(self) -> Life:
        """The same once more, to go on in another way."""
        other = copy.copy(self)
        other.inhibition = copy.copy(self.inhibition)
        other.inhibition._open = dict(self.inhibition._open)
        other.inhibition._held = dict(self.inhibition._held)
        other.book = copy.copy(self.book)
        other.book._open = dict(self.book._open)
        other.book._next_rev = dict(self.book._next_rev)
        other.told = dict(self.told)
        return other

    @property
    def when(self) -> When:
        return When(self.t_ms, UTC_MS + self.t_ms)

    @property
    def open(self) -> Alert | None:
        """The one alert that can be open."""
        return next(iter(self.book.open.values()), None)

    def found(self, verdict: Verdict, priority: Priority | None = None) -> list[Alert]:
        finding = Finding(
            kind=self.kind,
            verdict=verdict,
            at_ms=self.t_ms,
            at_utc_ms=UTC_MS + self.t_ms,
            priority=priority,
        )
        told = [
            self.book.condition(PUMP, self.urgency, WITHIN_S[self.urgency], transition, self.when)
            for transition in self.inhibition.apply((finding,))
        ]
        return [alert for alert in told if alert is not None]

    def acknowledged(self, stale: bool) -> list[Alert]:
        newest = self.open or next(reversed(self.told.values()), None)
        if newest is None:
            return []
        rev = newest.answerable_rev - 1 if stale else newest.rev
        before = self.open
        reason, alert = self.book.acknowledge(
            newest.alert_id, rev, "nurse-07", self.when.utc_ms, True, self.when
        )
        if before is None:
            assert reason is AnswerReason.CLOSED, "its end has been told: the answer says so"
        elif stale and before.state is not AlertState.LATCHED:
            assert reason is AnswerReason.STALE_REV
        else:
            assert reason is None, "who has seen the newest revision, or that it is over, may answer"
        assert (alert is None) == (reason is not None)
        return [alert] if alert is not None else []

    def time_passes(self, short_of_ms: int) -> list[Alert]:
        """Up to the next deadline, or so much short of it; without a deadline a while."""
        due_ms = self.book.next_due_t_ms()
        if due_ms is None:
            self.t_ms += A_WHILE_MS
            assert self.book.due(self.when) == []
            return []
        self.t_ms = max(self.t_ms, due_ms - short_of_ms)
        told = self.book.due(self.when)
        assert len(told) == (0 if short_of_ms else 1), "at its time, not before, and one step"
        return told

    def restart(self, clean: bool) -> list[Alert]:
        """Both are built anew from what was stored."""
        alerts = [
            msgspec.msgpack.decode(msgspec.msgpack.encode(alert), type=Alert)
            for alert in self.book.open.values()
        ]
        state = msgspec.msgpack.decode(msgspec.msgpack.encode(self.inhibition.state), type=InhibitionState)
        book = AlertBook(
            alerts, store=STORE, next_number=self.book.next_number, next_revs=dict(self.book.next_revs)
        )
        assert (dict(book.open), book.next_due_t_ms()) == (dict(self.book.open), self.book.next_due_t_ms())
        self.book, self.inhibition = book, Inhibition(self.urgency, state)
        assert self.inhibition.state == state
        if not clean:
            self.book.skip_revs()
        return []

    def withdrawn(self) -> list[Alert]:
        """The pump is taken away, and its conditions with it."""
        self.inhibition = Inhibition(self.urgency)
        return self.book.withdraw(PUMP, self.when)

    def highest(self) -> Priority:
        """One step worse than it is told."""
        known = self.open
        return NEXT_HIGHER[known.priority if known else row(self.kind).priority(self.urgency)]


HAPPENINGS: dict[str, Callable[[Life], list[Alert]]] = {
    "begins": lambda life: life.found(Verdict.PRESENT),
    "worse": lambda life: life.found(Verdict.PRESENT, life.highest()),
    "ends": lambda life: life.found(Verdict.ABSENT),
    "unknown": lambda life: life.found(Verdict.UNKNOWN),
    "acknowledged": lambda life: life.acknowledged(stale=False),
    "stale answer": lambda life: life.acknowledged(stale=True),
    "nearly time": lambda life: life.time_passes(short_of_ms=1),
    "time is up": lambda life: life.time_passes(short_of_ms=0),
    "restart": lambda life: life.restart(clean=True),
    "power cut": lambda life: life.restart(clean=False),
    "withdrawn": lambda life: life.withdrawn(),
}
CHANGES_NOTHING = frozenset({"unknown", "nearly time", "restart", "power cut"})

LIVES = [
    ("latching", Kind.OCCLUSION, Urgency.TIMED),
    ("not latching", Kind.PAUSED_TOO_LONG, Urgency.ROUTINE),
    ("a moment", Kind.STOPPED_EARLY, Urgency.TIMED),
]


class Count(Struct):
    sequences: int = 0


def every_life(life: Life, depth: int, count: Count, compared: set[object]) -> None:
    for happening, happens in HAPPENINGS.items():
        after = life.twin()
        after.history = (*life.history, happening)
        before = life.open
        skips_to = life.book.next_revs.get(before.alert_id) if before is not None else None
        told = happens(after)
        count.sequences += 1
        try:
            keeps_the_laws(after, happening, before, skips_to, told)
            answers_and_ends_commute(after, compared)
        except AssertionError as error:
            raise AssertionError(f"{', '.join(after.history)}: {error}") from error
        if depth > 1:
            every_life(after, depth - 1, count, compared)


def keeps_the_laws(
    life: Life, happening: str, before: Alert | None, skips_to: int | None, told: list[Alert]
) -> None:
    assert len(told) <= 1 or (happening == "begins" and row(life.kind).moment), "one telling at a time"
    assert not (told and happening in CHANGES_NOTHING), "nothing has changed, and nothing is told"
    for alert in told:
        if before is None:
            begins(life, alert)
        else:
            goes_on(before, alert, skips_to, life)
        life.told[alert.alert_id] = alert
        before, skips_to = (None if alert.state is AlertState.CLOSED else alert), None
    assert life.open == before, "never lost: what was told and not closed is open, as it was last told"
    if before is not None:
        waits_for_somebody(before, life)
    due_ms = life.book.next_due_t_ms()
    assert due_ms is None or due_ms > life.t_ms or happening == "nearly time"


def begins(life: Life, alert: Alert) -> None:
    assert alert.alert_id not in life.told, "an id never comes again"
    assert (alert.rev, alert.reason, alert.state, alert.level) == (1, Reason.FIRST, AlertState.ACTIVE, 0)
    assert alert.raised_utc_ms == life.when.utc_ms


def goes_on(old: Alert, new: Alert, skips_to: int | None, life: Life) -> None:
    assert (new.alert_id, new.raised_utc_ms) == (old.alert_id, old.raised_utc_ms)
    if skips_to is None:
        assert new.rev == old.rev + 1, "one up with each telling"
    else:
        assert new.rev == skips_to > old.rev
        assert new.rev % 1000 == 0, "after a power cut from the next full thousand"
    match new.reason:
        case Reason.FIRST | Reason.AGAIN | Reason.ACKNOWLEDGED:
            assert new.level == 0
        case Reason.ESCALATED:
            ceiling = HIGHEST_LEVEL[old.priority]
            assert new.level == old.level + 1
            assert ceiling is None or new.level <= ceiling
        case _:
            assert new.level == old.level, "only an escalation raises the level"
    if new.priority is not old.priority:
        began_again = new.reason is Reason.AGAIN and old.state is AlertState.LATCHED
        assert began_again or (new.reason is Reason.WORSE and new.priority.rank > old.priority.rank)
    if new.reason is Reason.AGAIN:
        assert old.state is AlertState.LATCHED or row(life.kind).moment
    if old.state is AlertState.ACKNOWLEDGED and new.state is not AlertState.ACKNOWLEDGED:
        assert new.reason in OF_PEOPLE_AND_CAUSES, "what was answered is not asked again without a reason"
    if new.state is AlertState.CLOSED:
        seen = new.reason is Reason.ACKNOWLEDGED or old.state is AlertState.ACKNOWLEDGED
        assert seen or not row(life.kind).latches, "nobody has seen it, and it is gone"
    if new.reason in SOUNDS:
        assert new.answerable_rev == new.rev
        if new.escalates_at_ms is not None:
            assert new.escalates_at_ms == life.t_ms + WITHIN_S[life.urgency][new.priority] * 1000
    else:
        assert new.answerable_rev == old.answerable_rev
    if new.reason is Reason.ACKNOWLEDGED and new.state is AlertState.ACKNOWLEDGED:
        assert new.acknowledged_until_ms == life.t_ms + HOLDS_MS[life.urgency], "counted from its arrival"


def waits_for_somebody(alert: Alert, life: Life) -> None:
    """An open alert asks somebody, or was answered, or waits on the list."""
    ceiling = HIGHEST_LEVEL[alert.priority]
    may_rise = alert.state is AlertState.ACTIVE and (ceiling is None or alert.level < ceiling)
    assert (alert.escalates_at_ms is not None) == may_rise
    assert (alert.acknowledged_until_ms is not None) == (alert.state is AlertState.ACKNOWLEDGED)
    if alert.state is not AlertState.LATCHED:
        assert (alert.acknowledged is not None) == (alert.state is AlertState.ACKNOWLEDGED)
    assert len(life.book.open) == 1


def answers_and_ends_commute(life: Life, compared: set[object]) -> None:
    """Whether the nurse or the condition comes first does not matter in the end."""
    alert = life.open
    if alert is None or alert.state not in (AlertState.ACTIVE, AlertState.ACKNOWLEDGED):
        return
    known = (life.kind, alert.state, alert.priority, alert.level, alert.escalates_at_ms is None)
    if known in compared:
        return
    compared.add(known)
    ends = []
    for order in (("acknowledged", "ends"), ("ends", "acknowledged")):
        way = life.twin()
        for happening in order:
            for told in HAPPENINGS[happening](way):
                way.told[told.alert_id] = told
        ends.append([(one.alert_id, one.state) for one in way.book.open.values()])
    assert ends[0] == ends[1]


def all_sequences(depth: int) -> int:
    return sum(len(HAPPENINGS) ** length for length in range(1, depth + 1))


@pytest.mark.parametrize(("kind", "urgency"), [life[1:] for life in LIVES], ids=[life[0] for life in LIVES])
def test_every_sequence_of_up_to_five_happenings_keeps_the_laws_of_a_life(kind: Kind, urgency: Urgency):
    count = Count()
    every_life(Life(kind, urgency), 5, count, set())
    assert count.sequences == all_sequences(5) == 177_155


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("kind", "urgency"), [life[1:] for life in LIVES], ids=[life[0] for life in LIVES])
def test_every_sequence_of_up_to_six_happenings_keeps_the_laws_of_a_life(kind: Kind, urgency: Urgency):
    count = Count()
    every_life(Life(kind, urgency), 6, count, set())
    assert count.sequences == all_sequences(6) == 1_948_716


# -- a cause and its effect -------------------------------------------------------------------------------


class Pair(Struct):
    """A cause and an effect of it, and what was last found and told of each."""

    cause: Kind
    effect: Kind
    inhibition: Inhibition
    found: dict[Kind, Verdict]
    began: dict[Kind, int]
    """When what is present was found to be."""
    t_ms: int = 0

    def twin(self) -> Pair:
        return Pair(
            cause=self.cause,
            effect=self.effect,
            inhibition=Inhibition(Urgency.TIMED, self.inhibition.state),
            found=dict(self.found),
            began=dict(self.began),
            t_ms=self.t_ms,
        )

    def is_open(self, kind: Kind) -> bool:
        return any(known.kind is kind for known in self.inhibition.state.open)

    def holds_back(self) -> bool:
        causes = [known for known in self.inhibition.state.open if known.kind is self.cause]
        own = row(self.effect).priority(Urgency.TIMED)
        return any(known.priority.rank >= own.rank for known in causes)

    def find(self, kind: Kind, verdict: Verdict) -> list[Transition]:
        self.t_ms += 1_000
        if verdict is not Verdict.PRESENT:
            self.began.pop(kind, None)
        elif self.found.get(kind) is not Verdict.PRESENT:
            self.began[kind] = UTC_MS + self.t_ms
        self.found[kind] = verdict
        finding = Finding(kind=kind, verdict=verdict, at_ms=self.t_ms, at_utc_ms=UTC_MS + self.t_ms)
        return self.inhibition.apply((finding,))


def every_story(pair: Pair, depth: int, count: Count, history: tuple[str, ...] = ()) -> None:
    for kind in (pair.cause, pair.effect):
        for verdict in Verdict:
            after = pair.twin()
            told = after.find(kind, verdict)
            count.sequences += 1
            so_far = (*history, f"{kind} {verdict}")
            try:
                is_told_as_it_should_be(pair, after, kind, verdict, told)
            except AssertionError as error:
                raise AssertionError(f"{'; '.join(so_far)}: {error}") from error
            if depth > 1:
                every_story(after, depth - 1, count, so_far)


def is_told_as_it_should_be(
    before: Pair, after: Pair, kind: Kind, verdict: Verdict, told: list[Transition]
) -> None:
    if verdict is Verdict.UNKNOWN:
        assert told == [], "not knowing neither raises nor resolves"
    for one in (before.cause, before.effect):
        phases = [transition.phase for transition in told if transition.finding.kind is one]
        is_open = before.is_open(one)
        for phase in phases:
            assert phase is (Phase.END if is_open else Phase.START), "starts and ends take turns"
            is_open = not is_open
        assert is_open == after.is_open(one)
        if after.found.get(one) is Verdict.ABSENT:
            assert not after.is_open(one)
    effect = after.effect
    starts = [t for t in told if t.finding.kind is effect and t.phase is Phase.START]
    # A suspicion in whose place the occlusion came was open: nobody has said that it is over.
    if starts and not row(effect).moment and TAKES_THE_PLACE_OF.get(after.cause) is not effect:
        assert after.found[effect] is Verdict.PRESENT, "what is no longer known to be so is not raised"
    assert not (starts and after.holds_back()), "a cause that is open holds its effects back"
    if after.found.get(effect) is Verdict.PRESENT and not row(effect).moment:
        assert after.is_open(effect) or after.holds_back(), "what is present is told when its cause has ended"
    for start in starts if not row(effect).moment else ():
        since_utc_ms = start.finding.since_utc_ms or start.finding.at_utc_ms
        assert since_utc_ms <= after.began.get(effect, since_utc_ms), "with its true beginning"
    if after.found.get(after.cause) is Verdict.PRESENT:
        assert after.is_open(after.cause)
    restored = msgspec.msgpack.decode(msgspec.msgpack.encode(after.inhibition.state), type=InhibitionState)
    assert Inhibition(Urgency.TIMED, restored).state == after.inhibition.state, "a restart changes nothing"


PAIRS = [(cause, effect) for cause, effects in HOLDS_BACK.items() for effect in sorted(effects)]


@pytest.mark.parametrize(("cause", "effect"), PAIRS)
def test_every_sequence_of_up_to_five_findings_of_a_cause_and_its_effect_is_told_as_it_should_be(
    cause: Kind, effect: Kind
):
    count = Count()
    pair = Pair(cause=cause, effect=effect, inhibition=Inhibition(Urgency.TIMED), found={}, began={})
    every_story(pair, 5, count)
    assert count.sequences == sum(6**length for length in range(1, 6)) == 9_330
