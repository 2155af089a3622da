"""The life of an alert: every cell of its table, its rules one by one, and laws over any sequence."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from alerts.alert import Alert, AlertState, AnswerReason, Reason
from alerts.catalogue import acknowledgement_holds_ms, respond_within_s, row
from alerts.condition import Finding, Kind, Priority, Urgency, Verdict
from alerts.inhibition import Phase, Transition
from alerts.lifecycle import (
    HIGHEST_LEVEL,
    TRANSITIONS,
    AlertBook,
    Happening,
    When,
    life_table_markdown,
)

UTC_MS = 1_700_000_000_000
MINUTE_MS = 60_000
ORDINARY, LATCHING, MOMENT = Kind.PAUSED_TOO_LONG, Kind.OCCLUSION, Kind.STOPPED_EARLY
TIMED = Urgency.TIMED


def at(t_ms: int) -> When:
    return When(t_ms, UTC_MS + t_ms)


def transition(
    kind: Kind, phase: Phase = Phase.START, priority: Priority | None = None, **more
) -> Transition:
    return Transition(
        phase=phase,
        priority=priority or row(kind).priority(TIMED),
        finding=Finding(
            kind=kind,
            verdict=Verdict.ABSENT if phase is Phase.END else Verdict.PRESENT,
            at_ms=0,
            at_utc_ms=UTC_MS,
            **more,
        ),
    )


class Story:
    """A book and a clock, and the words in which its tests are told."""

    def __init__(self, kind: Kind = ORDINARY, urgency: Urgency = TIMED) -> None:
        self.book = AlertBook(store="s-1")
        self.kind, self.urgency = kind, urgency
        self.t_ms = 0
        self.alert: Alert | None = None
        self.told: list[str] = []

    def _tell(self, alert: Alert | None) -> Alert | None:
        if alert is not None:
            self.alert = alert
            self.told.append(alert.reason)
        return alert

    def condition(self, phase: Phase, priority: Priority | None = None, **more) -> Alert | None:
        given_ = transition(self.kind, phase, priority or row(self.kind).priority(self.urgency), **more)
        within = respond_within_s(self.urgency)
        return self._tell(self.book.condition("p1", self.urgency, within, given_, at(self.t_ms)))

    def begins(self, **more) -> Alert | None:
        return self.condition(Phase.START, **more)

    def ends(self, **more) -> Alert | None:
        return self.condition(Phase.END, **more)

    def worse(self, priority: Priority = Priority.HIGH) -> Alert | None:
        return self.condition(Phase.WORSE, priority)

    def acknowledged(self, rev: int | None = None) -> AnswerReason | None:
        assert self.alert is not None
        reason, alert = self.book.acknowledge(
            self.alert.alert_id,
            self.alert.rev if rev is None else rev,
            "nurse-07",
            at(self.t_ms).utc_ms,
            True,
            at(self.t_ms),
        )
        self._tell(alert)
        return reason

    def pass_min(self, minutes: float) -> list[Alert]:
        """Time passes, and the book is asked at each instant that it named."""
        until_ms = self.t_ms + round(minutes * MINUTE_MS)
        seen: list[Alert] = []
        while (due_ms := self.book.next_due_t_ms()) is not None and due_ms <= until_ms:
            self.t_ms = due_ms
            for alert in self.book.due(at(due_ms)):
                self._tell(alert)
                seen.append(alert)
        self.t_ms = until_ms
        return seen

    def withdrawn(self) -> Alert | None:
        revised = self.book.withdraw("p1", at(self.t_ms))
        return self._tell(revised[0]) if revised else None


# --- the table ---------------------------------------------------------------------------------------------

# What a reader of the architecture expects; "." where nothing changes and nothing is told.
WRITTEN_OUT = """
                        pending       active                    acknowledged              latched
BEGAN                   active:first  .                         .                         active:again
HAPPENED                active:first  active:again              .                         active:again
GREW_WORSE              .             active:worse              active:worse              .
ENDED                   .             closed:resolved           closed:resolved           .
ENDED_LATCHING          .             latched:resolved          closed:resolved           .
ACKNOWLEDGED            .             acknowledged:acknowledged acknowledged:acknowledged closed:acknowledged
ACKNOWLEDGED_MOMENT     .             closed:acknowledged       .                         closed:acknowledged
NOBODY_ANSWERED         .             active:escalated          .                         .
ANSWER_RAN_OUT          .             .                         active:repeated           .
WITHDRAWN               .             latched:withdrawn         latched:withdrawn         .
"""


def cells() -> list[tuple[AlertState, Happening, str]]:
    head, *lines = WRITTEN_OUT.strip().splitlines()
    states = [AlertState(word) for word in head.split()]
    return [
        (state, Happening[line.split()[0]], cell)
        for line in lines
        for state, cell in zip(states, line.split()[1:], strict=True)
    ]


def into(state: AlertState, happening: Happening) -> Story:
    """A book with one alert in this state, of a kind to which this can happen."""
    if happening in (Happening.HAPPENED, Happening.ACKNOWLEDGED_MOMENT):
        story = Story(MOMENT)
    else:
        story = Story(LATCHING if happening is Happening.ENDED_LATCHING else ORDINARY)
    if state is not AlertState.PENDING:
        story.begins()
    if state is AlertState.ACKNOWLEDGED:
        story.acknowledged()
    if state is AlertState.LATCHED:
        story.withdrawn()
    return story


def happen(story: Story, happening: Happening) -> None:
    match happening:
        case Happening.BEGAN | Happening.HAPPENED:
            story.begins()
        case Happening.GREW_WORSE:
            story.worse()
        case Happening.ENDED | Happening.ENDED_LATCHING:
            story.ends()
        case Happening.ACKNOWLEDGED | Happening.ACKNOWLEDGED_MOMENT:
            story.acknowledged()
        case Happening.NOBODY_ANSWERED | Happening.ANSWER_RAN_OUT:
            story.pass_min(30)
        case Happening.WITHDRAWN:
            story.withdrawn()


@pytest.mark.parametrize(("state", "happening", "cell"), cells())
def test_every_cell_of_the_table_is_what_was_written_out(state: AlertState, happening: Happening, cell: str):
    found = TRANSITIONS.get((state, happening))
    assert (f"{found[0]}:{found[1]}" if found else ".") == cell


def test_nothing_happens_to_a_closed_alert_and_no_cell_is_unnamed():
    assert set(TRANSITIONS) <= {(state, happening) for state, happening, _ in cells()}
    assert {happening for _, happening, _ in cells()} == set(Happening)


def can_be_played(state: AlertState, happening: Happening) -> bool:
    """Not: an answer, or a worsening, before anything was told; a moment that is acknowledged and open; and
    the two times, which only run in their own states. A latched alert that comes worse has begun again."""
    person_or_time = happening not in (Happening.BEGAN, Happening.HAPPENED, Happening.ENDED)
    if state is AlertState.PENDING:
        return not person_or_time
    moment = happening in (Happening.HAPPENED, Happening.ACKNOWLEDGED_MOMENT)
    if state is AlertState.ACKNOWLEDGED:
        return not moment and happening is not Happening.NOBODY_ANSWERED
    if state is AlertState.LATCHED:
        return happening is not Happening.GREW_WORSE
    return happening is not Happening.ANSWER_RAN_OUT


@pytest.mark.parametrize(
    ("state", "happening", "cell"), [one for one in cells() if can_be_played(one[0], one[1])]
)
def test_the_book_does_what_the_table_says(state: AlertState, happening: Happening, cell: str):
    story = into(state, happening)
    before, told_before = story.alert, len(story.told)
    happen(story, happening)
    if cell == ".":
        assert len(story.told) == told_before
        assert story.alert == before
    else:
        assert story.alert is not None
        assert f"{story.alert.state}:{story.alert.reason}" == cell
        assert (story.alert.alert_id in story.book.open) == (story.alert.state is not AlertState.CLOSED)


def test_the_picture_for_the_readme_shows_each_cell_of_the_table_once():
    picture = life_table_markdown()
    for state, reason in TRANSITIONS.values():
        assert f"{state.upper()}, *{reason}*" in picture
    assert picture.count("*") == 2 * len(TRANSITIONS)
    assert len(picture.splitlines()) == 2 + len(Happening)


# --- the rules, one by one ---------------------------------------------------------------------------------


class TestAnAlert:
    def test_is_born_with_the_first_revision_and_an_id_of_its_store(self):
        alert = Story().begins(since_utc_ms=UTC_MS - 5, expected_ml=1.5, delivered_ml=1.0, message="Paused.")
        assert alert is not None
        assert (alert.alert_id, alert.rev, alert.level, alert.answerable_rev) == ("a-s-1-1", 1, 0, 1)
        assert (alert.since_utc_ms, alert.raised_utc_ms) == (UTC_MS - 5, UTC_MS)
        assert (alert.expected_ml, alert.delivered_ml, alert.message) == (1.5, 1.0, "Paused.")
        assert (alert.priority, alert.respond_within_s) == (Priority.MEDIUM, 30 * 60)

    def test_of_a_condition_that_comes_back_after_its_close_is_a_new_one(self):
        story = Story()
        story.begins()
        story.ends()
        again = story.begins()
        assert again is not None
        assert (again.alert_id, again.reason) == ("a-s-1-2", Reason.FIRST)

    def test_is_one_for_each_pump_kind_and_code(self):
        book = AlertBook(store="s")
        for pump in ("p1", "p2"):
            for code in ("air_in_line", "door_open", "door_open"):
                start = transition(Kind.PUMP_ALARM, code=code)
                book.condition(pump, TIMED, respond_within_s(TIMED), start, at(0))
        assert sorted((alert.pump, alert.code) for alert in book.open.values()) == [
            ("p1", "air_in_line"),
            ("p1", "door_open"),
            ("p2", "air_in_line"),
            ("p2", "door_open"),
        ]

    @pytest.mark.parametrize("kind", [Kind.DOSE_STARTED, Kind.BROKER_UNREACHABLE])
    def test_is_not_made_of_what_merely_happened_nor_of_what_only_the_panel_shows(self, kind: Kind):
        assert Story(kind).begins() is None

    def test_that_ends_says_what_its_end_says(self):
        story = Story(LATCHING)
        story.begins(message="Occlusion.", delivered_ml=1.0)
        story.ends(message="Up to 0.5 mL may have been released at once.")
        assert story.alert is not None
        assert story.alert.message == "Up to 0.5 mL may have been released at once."
        assert story.alert.delivered_ml == 1.0
        assert not story.alert.present

    def test_that_comes_back_while_latched_keeps_its_id_and_when_it_was_raised(self):
        story = Story(LATCHING)
        story.begins()
        story.ends()
        story.pass_min(5)
        again = story.begins(since_utc_ms=UTC_MS + 5 * MINUTE_MS)
        assert again is not None
        assert (again.alert_id, again.rev, again.level) == ("a-s-1-1", 3, 0)
        assert (again.raised_utc_ms, again.since_utc_ms) == (UTC_MS, UTC_MS + 5 * MINUTE_MS)

    def test_of_a_moment_is_not_resolved_by_its_end(self):
        story = Story(MOMENT)
        story.begins()
        assert story.ends() is None
        assert story.alert is not None
        assert story.alert.state is AlertState.ACTIVE
        story.acknowledged()
        assert story.alert.state is AlertState.CLOSED


class TestWorse:
    def test_raises_the_priority_and_with_it_the_time_to_respond(self):
        story = Story()
        story.begins()
        story.pass_min(1)
        worse = story.worse()
        assert worse is not None
        assert (worse.priority, worse.respond_within_s, worse.reason) == (Priority.HIGH, 600, Reason.WORSE)
        assert worse.escalates_at_ms == story.t_ms + 600_000

    def test_voids_the_acknowledgement_of_what_was_less(self):
        story = Story()
        story.begins()
        story.acknowledged()
        worse = story.worse()
        assert worse is not None
        assert (worse.state, worse.acknowledged, worse.answerable_rev) == (AlertState.ACTIVE, None, worse.rev)

    def test_than_nothing_known_is_a_first(self):
        assert Story().worse().reason is Reason.FIRST

    def test_is_not_said_of_the_same_or_a_lower_priority(self):
        story = Story()
        story.begins()
        assert story.worse(Priority.MEDIUM) is None
        assert story.worse(Priority.LOW) is None


class TestEscalation:
    @pytest.mark.parametrize(
        ("priority", "every_min", "levels"),
        [
            (Priority.HIGH, 10, list(range(1, 25))),
            (Priority.MEDIUM, 30, [1, 2, 3]),
            (Priority.LOW, 240, [1]),
        ],
    )
    def test_raises_the_level_up_to_a_ceiling_by_priority_and_never_the_priority(
        self, priority: Priority, every_min: int, levels: list[int]
    ):
        story = Story()
        story.begins(priority=priority)
        seen = story.pass_min(every_min * 24)
        assert [alert.level for alert in seen] == levels
        assert {(alert.reason, alert.priority) for alert in seen} == {(Reason.ESCALATED, priority)}

    def test_counts_from_the_last_telling(self):
        story = Story()
        story.begins()
        story.pass_min(29)
        assert story.told == ["first"]
        story.worse()
        story.pass_min(9.9)
        assert story.told == ["first", "worse"]
        story.pass_min(0.1)
        assert story.told == ["first", "worse", "escalated"]

    def test_is_one_step_however_long_the_gateway_was_away(self):
        story = Story()
        story.begins(priority=Priority.HIGH)
        assert [alert.level for alert in story.book.due(at(24 * 60 * MINUTE_MS))] == [1]

    def test_never_comes_to_what_is_latched(self):
        story = Story(LATCHING)
        story.begins()
        story.ends()
        assert story.book.next_due_t_ms() is None


class TestAnAcknowledgement:
    @pytest.mark.parametrize("urgency", list(Urgency))
    def test_holds_for_a_time_by_urgency_and_then_the_alert_is_repeated(self, urgency: Urgency):
        story = Story(urgency=urgency)
        story.begins()
        story.acknowledged()
        assert story.alert is not None
        answer = story.alert.acknowledged
        assert answer is not None
        holds_ms = acknowledgement_holds_ms(urgency)
        assert (answer.by, answer.at_utc_ms, answer.until_utc_ms) == ("nurse-07", UTC_MS, UTC_MS + holds_ms)
        story.pass_min(holds_ms / MINUTE_MS)
        assert story.told == ["first", "acknowledged", "repeated"]
        assert (story.alert.state, story.alert.acknowledged) == (AlertState.ACTIVE, None)

    def test_may_be_given_again_and_then_holds_longer(self):
        story = Story()
        story.begins()
        story.acknowledged()
        story.pass_min(20)
        story.acknowledged()
        story.pass_min(29)
        assert story.told == ["first", "acknowledged", "acknowledged"]

    def test_brings_the_level_back_to_nought(self):
        story = Story()
        story.begins()
        story.pass_min(60)
        assert story.alert is not None
        assert story.alert.level == 2
        story.acknowledged()
        assert story.alert.level == 0

    @pytest.mark.parametrize("kind", [ORDINARY, LATCHING])
    def test_and_the_end_close_the_alert_in_either_order(self, kind: Kind):
        first_seen, first_gone = Story(kind), Story(kind)
        for story in (first_seen, first_gone):
            story.begins()
        first_seen.acknowledged()
        first_seen.ends()
        first_gone.ends()
        first_gone.acknowledged()
        assert not first_seen.book.open
        assert not first_gone.book.open

    def test_must_have_seen_the_last_telling(self):
        story = Story()
        story.begins()
        story.pass_min(30)
        assert story.acknowledged(rev=1) is AnswerReason.STALE_REV
        assert story.acknowledged(rev=2) is None

    def test_may_have_seen_an_earlier_acknowledgement_only(self):
        story = Story()
        story.begins()
        story.acknowledged()
        assert story.acknowledged(rev=1) is None

    def test_closes_a_latched_alert_whatever_revision_was_seen(self):
        story = Story(LATCHING)
        story.begins()
        story.pass_min(30)
        story.ends()
        assert story.acknowledged(rev=1) is None
        assert not story.book.open

    @pytest.mark.parametrize(
        ("sent_s", "synced", "reason"),
        [
            (-1800 - 60, True, None),
            (-1800 - 61, True, AnswerReason.TOO_OLD),
            (60, True, None),
            (61, True, AnswerReason.TOO_OLD),
            (-99_999, False, None),
            (99_999, False, None),
        ],
    )
    def test_is_too_old_by_its_time_only_while_the_clock_is_synced(
        self, sent_s: int, synced: bool, reason: AnswerReason | None
    ):
        story = Story()
        story.begins()
        found, alert = story.book.acknowledge("a-s-1-1", 1, "n", UTC_MS + sent_s * 1000, synced, at(0))
        assert found is reason
        assert (alert is None) == (reason is not None)

    def test_of_a_closed_alert_is_told_from_one_of_an_unknown(self):
        story = Story()
        story.begins()
        story.ends()
        for alert_id, reason in (
            ("a-s-1-1", AnswerReason.CLOSED),
            ("a-s-1-2", AnswerReason.UNKNOWN_ALERT),
            ("a-s-9-1", AnswerReason.UNKNOWN_ALERT),
            ("a-s-1-0", AnswerReason.UNKNOWN_ALERT),
            ("a-s-1-" + "9" * 5000, AnswerReason.UNKNOWN_ALERT),
            ("", AnswerReason.UNKNOWN_ALERT),
        ):
            assert story.book.acknowledge(alert_id, 1, "n", UTC_MS, True, at(0)) == (reason, None)


class TestWithdrawal:
    def test_latches_the_open_alerts_of_that_pump_and_of_no_other(self):
        book = AlertBook(store="s")
        for pump in ("p1", "p2"):
            book.condition(pump, TIMED, respond_within_s(TIMED), transition(ORDINARY), at(0))
        (revised,) = book.withdraw("p1", at(1))
        assert (revised.pump, revised.state, revised.reason) == ("p1", AlertState.LATCHED, Reason.WITHDRAWN)
        assert [alert.state for alert in book.open.values()] == [AlertState.LATCHED, AlertState.ACTIVE]

    def test_may_be_confined_to_alerts_that_new_limits_no_longer_hold(self):
        book = AlertBook(store="s")
        for kind in (ORDINARY, LATCHING):
            book.condition("p1", TIMED, respond_within_s(TIMED), transition(kind), at(0))
        assert [alert.alert_id for alert in book.withdraw("p1", at(1), only={"a-s-2"})] == ["a-s-2"]

    def test_is_told_once(self):
        story = Story()
        story.begins()
        story.withdrawn()
        assert story.withdrawn() is None


class TestARestart:
    def test_finds_the_book_as_it_was(self):
        story = Story()
        story.begins()
        story.pass_min(10)
        book = AlertBook(story.book.open.values(), store="s-1", next_number=story.book.next_number)
        assert book.open == story.book.open
        assert book.next_due_t_ms() == 30 * MINUTE_MS

    def test_after_an_unclean_stop_goes_on_from_the_next_full_thousand(self):
        story = Story()
        story.begins()
        story.book.skip_revs()
        assert story.book.open["a-s-1-1"].rev == 1
        story.acknowledged()
        assert story.alert is not None
        assert story.alert.rev == 1000
        story.pass_min(30)
        assert story.alert.rev == 1001

    def test_does_not_take_closed_alerts_back(self):
        story = Story()
        story.begins()
        story.ends()
        assert story.alert is not None
        assert not AlertBook([story.alert], store="s").open


@pytest.mark.parametrize(
    "looked_at", [False, True], ids=["nobody has seen it", "over, and nobody has seen it"]
)
def test_no_data_is_never_of_lower_priority_than_an_open_alert_of_its_pump(looked_at: bool):
    story = Story(Kind.BOLUS_NOT_ORDERED)
    story.begins()
    if looked_at:
        story.withdrawn()
    story.kind = Kind.NO_DATA
    assert row(Kind.NO_DATA).priority(TIMED) is Priority.MEDIUM
    silent = story.begins()
    assert silent is not None
    assert (silent.priority, silent.respond_within_s) == (Priority.HIGH, 600)


def test_no_data_of_another_pump_keeps_its_own_priority():
    story = Story(Kind.BOLUS_NOT_ORDERED)
    story.begins()
    given_ = transition(Kind.NO_DATA)
    silent = story.book.condition("p2", TIMED, respond_within_s(TIMED), given_, at(0))
    assert silent is not None
    assert silent.priority is Priority.MEDIUM


# --- laws --------------------------------------------------------------------------------------------------

STEPS = st.sampled_from(
    [
        "begins",
        "ends",
        "high",
        "medium",
        "low",
        "acknowledged",
        "stale",
        "later",
        "much later",
        "withdrawn",
        "restart",
    ]
)


def play(story: Story, step: str) -> None:
    match step:
        case "begins":
            story.begins()
        case "ends":
            story.ends()
        case "high" | "medium" | "low":
            story.worse(Priority(step))
        case "acknowledged" if story.alert is not None:
            story.acknowledged()
        case "stale" if story.alert is not None:
            story.acknowledged(rev=0)
        case "later":
            story.pass_min(15)
        case "much later":
            story.pass_min(300)
        case "withdrawn":
            story.withdrawn()
        case "restart":
            story.book = AlertBook(story.book.open.values(), store="s-1", next_number=story.book.next_number)


@given(
    kind=st.sampled_from([ORDINARY, LATCHING, MOMENT]),
    urgency=st.sampled_from(list(Urgency)),
    steps=st.lists(STEPS, min_size=1, max_size=6),
)
def test_whatever_happens_the_laws_of_a_life_hold(kind: Kind, urgency: Urgency, steps: list[str]):
    story = Story(kind, urgency)
    before: dict[str, Alert] = {}
    for step in steps:
        revisions: list[Alert] = []
        tell = story._tell
        story._tell = lambda alert, tell=tell, seen=revisions: (
            seen.append(alert) if alert else None,
            tell(alert),
        )[1]
        play(story, step)
        story._tell = tell
        for alert in revisions:
            old = before.pop(alert.alert_id, None)
            if old is None:
                assert (alert.rev, alert.reason, alert.state) == (1, Reason.FIRST, AlertState.ACTIVE)
            else:
                lives_on(old, alert, kind)
            if alert.state is not AlertState.CLOSED:
                before[alert.alert_id] = alert
        # Never lost: what was told and not closed is open, exactly as it was last told.
        assert dict(story.book.open) == before
        for alert in before.values():
            waits_for_somebody(alert)


def lives_on(old: Alert, new: Alert, kind: Kind) -> None:
    """What must hold between two revisions of one alert."""
    assert new.rev == old.rev + 1
    assert new.alert_id == old.alert_id
    assert new.raised_utc_ms == old.raised_utc_ms
    assert old.answerable_rev <= new.answerable_rev <= new.rev
    if new.priority is not old.priority:
        assert new.reason is Reason.WORSE or old.state is AlertState.LATCHED
        assert old.state is AlertState.LATCHED or new.priority.rank > old.priority.rank
    if new.level > old.level:
        assert (new.reason, new.level) == (Reason.ESCALATED, old.level + 1)
    if new.reason in (Reason.FIRST, Reason.AGAIN, Reason.ACKNOWLEDGED):
        assert new.level == 0
    if new.state is AlertState.CLOSED:
        seen = new.reason is Reason.ACKNOWLEDGED or old.state is AlertState.ACKNOWLEDGED
        assert seen or (new.reason is Reason.RESOLVED and not row(kind).latches)


def waits_for_somebody(alert: Alert) -> None:
    """What must hold of an open alert: somebody is asked, or has answered, or it waits on the list."""
    ceiling = HIGHEST_LEVEL[alert.priority]
    may_escalate = alert.state is AlertState.ACTIVE and (ceiling is None or alert.level < ceiling)
    assert (alert.escalates_at_ms is not None) == may_escalate
    assert (alert.acknowledged_until_ms is not None) == (alert.state is AlertState.ACKNOWLEDGED)
    if alert.state is AlertState.ACTIVE:
        assert alert.acknowledged is None
        copy = AlertBook([replace(alert)], store="s-1")
        reason, after = copy.acknowledge(alert.alert_id, alert.rev, "n", 0, False, at(0))
        assert reason is None
        assert after is not None
