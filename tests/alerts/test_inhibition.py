"""One cause makes one alert. Each story is a timetable: what is found, and what people are told."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from alerts.catalogue import row
from alerts.condition import AbsenceWhat, Finding, Kind, Priority, Urgency, Verdict
from alerts.inhibition import (
    ANNOUNCED_HOLDS_BACK,
    HOLDS_BACK,
    TAKES_THE_PLACE_OF,
    Inhibition,
    InhibitionState,
    Phase,
    Transition,
)

UTC_MS = 1_700_000_000_000
VERDICT = {"+": Verdict.PRESENT, "-": Verdict.ABSENT, "?": Verdict.UNKNOWN}


def finding(text: str, at_s: float) -> Finding:
    """``+`` present, ``-`` absent, ``?`` unknown; then the kind, ``:code``, and ``!priority``."""
    word, _, priority = text[1:].partition("!")
    kind, _, code = word.partition(":")
    return Finding(
        kind=Kind(kind),
        code=code or None,
        verdict=VERDICT[text[0]],
        at_ms=round(at_s * 1000),
        at_utc_ms=UTC_MS + round(at_s * 1000),
        priority=Priority(priority) if priority else None,
        message=f"found at {at_s:g} s",
    )


def told(transitions: list[Transition]) -> str:
    return " ".join(
        f"{transition.phase}:{transition.finding.kind}"
        + (f":{transition.finding.code}" if transition.finding.code else "")
        for transition in transitions
    )


def tell(timetable: str, urgency: Urgency = Urgency.TIMED) -> list[str]:
    """Each line is an instant in seconds and what is found then; the answer is what was told, a line each."""
    inhibition = Inhibition(urgency)
    return [
        told(inhibition.apply([finding(word, at_s) for word in words.split()]))
        for at_s, words in enumerate(timetable.strip().splitlines())
    ]


STORIES = {
    "a cause holds back its effect, which starts when the cause ends and it is still there": (
        "+wrong_rate      -> start:wrong_rate",
        "+under_infusion  ->",
        "-wrong_rate      -> end:wrong_rate start:under_infusion",
        "-under_infusion  -> end:under_infusion",
    ),
    "an effect that has gone meanwhile is never told": (
        "+wrong_rate      -> start:wrong_rate",
        "+under_infusion  ->",
        "-under_infusion  ->",
        "-wrong_rate      -> end:wrong_rate",
    ),
    "an effect and its cause that end together leave nothing behind": (
        "+wrong_rate                  -> start:wrong_rate",
        "+under_infusion              ->",
        "-wrong_rate -under_infusion  -> end:wrong_rate",
    ),
    "found at one instant, the cause is nearer than its effect": (
        "+under_infusion +wrong_rate -> start:wrong_rate",
        "-wrong_rate                 -> end:wrong_rate start:under_infusion",
    ),
    "an effect that is open already stays open and is not repeated": (
        "+under_infusion -> start:under_infusion",
        "+no_delivery    -> start:no_delivery",
        "-no_delivery    -> end:no_delivery",
        "-under_infusion -> end:under_infusion",
    ),
    "an effect that is no longer known to be there does not start when its cause ends": (
        "+no_delivery    -> start:no_delivery",
        "+under_infusion ->",
        "?under_infusion ->",
        "-no_delivery    -> end:no_delivery",
        "+under_infusion -> start:under_infusion",
    ),
    "unknown neither starts nor ends anything, and a cause that is unknown still holds back": (
        "+occlusion:occlusion_downstream -> start:occlusion:occlusion_downstream",
        "?occlusion:occlusion_downstream ->",
        "+under_infusion                 ->",
        "?under_infusion                 ->",
        "-occlusion:occlusion_downstream -> end:occlusion:occlusion_downstream",
    ),
    "an occlusion takes the place of its suspicion, whose end comes first": (
        "+occlusion_suspected            -> start:occlusion_suspected",
        "+occlusion:occlusion_downstream -> end:occlusion_suspected start:occlusion:occlusion_downstream",
        "-occlusion_suspected            ->",
        "-occlusion:occlusion_downstream -> end:occlusion:occlusion_downstream",
    ),
    "a suspicion that outlasts the pump's occlusion is told again": (
        "+occlusion_suspected            -> start:occlusion_suspected",
        "+occlusion:occlusion_downstream -> end:occlusion_suspected start:occlusion:occlusion_downstream",
        "-occlusion:occlusion_downstream -> end:occlusion:occlusion_downstream start:occlusion_suspected",
    ),
    "a dose missed takes the place of a dose not started": (
        "+not_started -> start:not_started",
        "+dose_missed -> end:not_started start:dose_missed end:dose_missed",
    ),
    "two codes of one kind are two conditions, and the effect waits for both": (
        "+pump_alarm:door_open   -> start:pump_alarm:door_open",
        "+pump_alarm:air_in_line -> start:pump_alarm:air_in_line",
        "+paused_too_long        ->",
        "-pump_alarm:door_open   -> end:pump_alarm:door_open",
        "-pump_alarm:air_in_line -> end:pump_alarm:air_in_line start:paused_too_long",
    ),
    "a moment held back is told when its cause ends": (
        "+bag_empty:empty -> start:bag_empty:empty",
        "+stopped_early!medium ->",
        "?stopped_early   ->",
        "-bag_empty:empty -> end:bag_empty:empty start:stopped_early end:stopped_early",
    ),
    "a moment held back and then retracted, because the occurrence goes on, is never told": (
        "+bag_empty:empty -> start:bag_empty:empty",
        "+stopped_early   ->",
        "-stopped_early   ->",
        "-bag_empty:empty -> end:bag_empty:empty",
    ),
    "hard limits and boluses are held back by nothing": (
        "+wrong_rate!high +occlusion:x!high +free_flow +pump_alarm:malfunction!high +bag_empty:empty!high"
        " -> start:wrong_rate start:occlusion:x start:free_flow start:pump_alarm:malfunction"
        " start:bag_empty:empty",
        "+limit_exceeded       -> start:limit_exceeded",
        "+bolus_in_lockout     -> start:bolus_in_lockout end:bolus_in_lockout",
        "+bolus_limit_exceeded -> start:bolus_limit_exceeded end:bolus_limit_exceeded",
        "+bolus_not_ordered    -> start:bolus_not_ordered end:bolus_not_ordered",
    ),
    "what merely happened only starts": (
        "+dose_started -> start:dose_started",
        "+dose_started -> start:dose_started",
    ),
    "the same again is not repeated, a higher priority is worse, a lower one is nothing": (
        "+wrong_rate!medium -> start:wrong_rate",
        "+wrong_rate!medium ->",
        "+wrong_rate!high   -> worse:wrong_rate",
        "+wrong_rate!medium ->",
        "-wrong_rate        -> end:wrong_rate",
    ),
    "an effect that grows worse than its cause comes out from behind it": (
        "+pump_alarm:low_battery!low -> start:pump_alarm:low_battery",
        "+paused_too_long!low        ->",
        "+paused_too_long!medium     -> start:paused_too_long",
    ),
}


@pytest.mark.parametrize("story", STORIES.values(), ids=STORIES.keys())
def test_story(story: tuple[str, ...]):
    found, expected = zip(*(line.split("->") for line in story), strict=True)
    assert tell("\n".join(found)) == [line.strip() for line in expected]


BEFORE = """
wrong_rate           before under_infusion over_infusion
no_delivery          before under_infusion
free_flow            before over_infusion
occlusion_suspected  before under_infusion
occlusion            before paused_too_long occlusion_suspected under_infusion
bag_empty            before paused_too_long stopped_early
pump_alarm           before paused_too_long
not_ended            before over_infusion
"""
"""The page's sentence, "One cause should make one alert". ``occlusion`` stands in the place of its suspicion,
so it holds back what that would; ``not_started`` before ``dose_missed`` is in the places that are taken."""


def test_what_holds_back_what_is_what_the_page_says():
    written = {}
    for line in BEFORE.strip().splitlines():
        cause, _, effects = line.partition(" before ")
        written[Kind(cause.strip())] = frozenset(Kind(effect) for effect in effects.split())
    assert written == HOLDS_BACK
    assert {(Kind.OCCLUSION, Kind.OCCLUSION_SUSPECTED), (Kind.DOSE_MISSED, Kind.NOT_STARTED)} == set(
        TAKES_THE_PLACE_OF.items()
    )


def test_a_hard_limit_and_the_bolus_kinds_are_nobodys_effect():
    never = {
        Kind.LIMIT_EXCEEDED,
        Kind.BOLUS_IN_LOCKOUT,
        Kind.BOLUS_LIMIT_EXCEEDED,
        Kind.BOLUS_NOT_ORDERED,
    }
    assert never.isdisjoint(effect for effects in HOLDS_BACK.values() for effect in effects)


@pytest.mark.parametrize("urgency", list(Urgency))
@pytest.mark.parametrize("cause", list(HOLDS_BACK))
def test_a_cause_never_hides_a_kind_of_higher_priority(cause: Kind, urgency: Urgency):
    for effect in HOLDS_BACK[cause]:
        inhibition = Inhibition(urgency)
        inhibition.apply([finding(f"+{cause}", 0)])
        seen = {t.finding.kind for t in inhibition.apply([finding(f"+{effect}", 1)])}
        hidden = effect not in seen
        assert hidden == (row(effect).priority(urgency).rank <= row(cause).priority(urgency).rank)


def test_an_effect_starts_late_but_says_since_when_it_holds():
    inhibition = Inhibition(Urgency.TIMED)
    inhibition.apply([finding("+no_delivery", 0)])
    inhibition.apply([finding("+under_infusion", 60)])
    start = inhibition.apply([finding("-no_delivery", 90)])[-1]
    assert (start.phase, start.finding.kind) == (Phase.START, Kind.UNDER_INFUSION)
    assert (start.finding.at_ms, start.finding.since_utc_ms) == (90_000, UTC_MS + 60_000)
    assert start.finding.message == "found at 60 s"


def test_an_effect_that_starts_late_says_how_long_ago_its_numbers_are_of_and_has_the_volumes_of_now():
    inhibition = Inhibition(Urgency.TIMED)
    inhibition.apply([finding("+no_delivery", 0)])
    inhibition.apply([replace(finding("+under_infusion", 60), expected_ml=1.0, delivered_ml=0.5)])
    over = replace(finding("-no_delivery", 660), expected_ml=3.0, delivered_ml=2.0)
    start = inhibition.apply([over])[-1].finding
    assert start.message == "Found 10 min ago: found at 60 s"
    assert (start.expected_ml, start.delivered_ml) == (3.0, 2.0)


def test_a_moment_that_is_told_late_keeps_the_volumes_of_the_dose_to_which_it_happened():
    inhibition = Inhibition(Urgency.TIMED)
    inhibition.apply([finding("+bag_empty:empty", 0)])
    inhibition.apply([replace(finding("+stopped_early", 60), expected_ml=1.0, delivered_ml=0.5)])
    over = replace(finding("-bag_empty:empty", 7260), expected_ml=0.1, delivered_ml=0.0)
    start = inhibition.apply([over])[1].finding
    assert start.message == "Found 2.0 h ago: found at 60 s"
    assert (start.expected_ml, start.delivered_ml) == (1.0, 0.5)


def test_a_suspicion_that_outlasts_the_occlusion_is_told_with_words_of_now():
    inhibition = Inhibition(Urgency.TIMED)
    inhibition.apply([finding("+occlusion_suspected", 0)])
    inhibition.apply([finding("+occlusion:occlusion_downstream", 60)])
    start = inhibition.apply([finding("-occlusion:occlusion_downstream", 660)])[-1].finding
    assert start.kind is Kind.OCCLUSION_SUSPECTED
    assert start.message.startswith("The pump no longer reports an occlusion")


def test_the_end_of_a_suspicion_says_why_and_since_when():
    inhibition = Inhibition(Urgency.TIMED)
    inhibition.apply([finding("+occlusion_suspected", 10)])
    end = inhibition.apply([finding("+occlusion:occlusion_downstream", 30)])[0]
    assert end.finding.verdict is Verdict.ABSENT
    assert (end.finding.at_ms, end.finding.since_utc_ms) == (30_000, UTC_MS + 10_000)
    assert "occlusion" in end.finding.message


class TestNoData:
    def test_is_never_of_lower_priority_than_the_highest_open(self):
        inhibition = Inhibition(Urgency.ROUTINE)
        inhibition.apply([finding("+free_flow", 0)])
        (start,) = inhibition.apply([finding("+no_data", 10)])
        assert (start.phase, start.priority) == (Phase.START, Priority.HIGH)

    def test_looks_at_what_is_found_at_the_same_instant(self):
        transitions = Inhibition(Urgency.ROUTINE).apply([finding("+no_data", 5), finding("+free_flow", 5)])
        assert [(t.phase, t.finding.kind, t.priority) for t in transitions] == [
            (Phase.START, Kind.FREE_FLOW, Priority.HIGH),
            (Phase.START, Kind.NO_DATA, Priority.HIGH),
        ]

    def test_rises_with_what_opens_meanwhile(self):
        inhibition = Inhibition(Urgency.ROUTINE)
        inhibition.apply([finding("+no_data", 0)])
        transitions = inhibition.apply([finding("+pump_alarm:malfunction", 10)])
        assert [(t.phase, t.finding.kind, t.priority) for t in transitions] == [
            (Phase.START, Kind.PUMP_ALARM, Priority.MEDIUM),
            (Phase.WORSE, Kind.NO_DATA, Priority.MEDIUM),
        ]

    def test_hides_none_that_is_open(self):
        inhibition = Inhibition(Urgency.TIMED)
        inhibition.apply([finding("+under_infusion", 0)])
        inhibition.apply([finding("+no_data", 10), finding("?under_infusion", 10)])
        assert {known.kind for known in inhibition.state.open} == {Kind.UNDER_INFUSION, Kind.NO_DATA}


def test_findings_of_different_instants_in_one_answer_keep_their_order():
    inhibition = Inhibition(Urgency.TIMED)
    transitions = inhibition.apply(
        [
            finding("+under_infusion", 1),
            finding("+wrong_rate", 2),
            finding("-under_infusion", 3),
            finding("+under_infusion", 4),
        ]
    )
    assert told(transitions) == "start:under_infusion start:wrong_rate end:under_infusion"


def test_what_comes_and_goes_within_one_instant_has_gone():
    inhibition = Inhibition(Urgency.TIMED)
    transitions = inhibition.apply([finding("+paused_too_long", 1), finding("-paused_too_long", 1)])
    assert told(transitions) == "start:paused_too_long end:paused_too_long"
    assert inhibition.state == InhibitionState()


KINDS = sorted(
    {*HOLDS_BACK, *(effect for effects in HOLDS_BACK.values() for effect in effects)}
    | {*TAKES_THE_PLACE_OF, *TAKES_THE_PLACE_OF.values(), Kind.NO_DATA, Kind.LIMIT_EXCEEDED}
)
WORDS = st.builds(
    lambda verdict, kind, priority: f"{verdict}{kind}{priority}",
    st.sampled_from("+-?"),
    st.sampled_from(KINDS),
    st.sampled_from(["", "", "!high", "!medium", "!low"]),
)
HISTORIES = st.lists(st.lists(WORDS, min_size=1, max_size=3), max_size=12)
URGENCIES = st.sampled_from(list(Urgency))


@given(history=HISTORIES, urgency=URGENCIES)
def test_whatever_is_found_starts_and_ends_alternate_and_nothing_present_is_lost(
    history: list[list[str]], urgency: Urgency
):
    inhibition = Inhibition(urgency)
    open_now: dict[Kind, Priority] = {}
    verdicts: dict[Kind, Verdict] = {}
    for at_s, words in enumerate(history):
        found = [finding(word, at_s) for word in words]
        for transition in inhibition.apply(found):
            kind = transition.finding.kind
            match transition.phase:
                case Phase.START:
                    assert kind not in open_now
                    open_now[kind] = transition.priority
                case Phase.WORSE:
                    assert transition.priority.rank > open_now[kind].rank
                    open_now[kind] = transition.priority
                case Phase.END:
                    del open_now[kind]
        verdicts |= {one.kind: one.verdict for one in found}
        for kind, verdict in verdicts.items():
            if row(kind).moment:
                continue
            if verdict is Verdict.ABSENT:
                assert kind not in open_now
            if verdict is Verdict.PRESENT and kind not in open_now:
                taken = any(TAKES_THE_PLACE_OF.get(other) is kind for other in verdicts)
                assert taken or any(kind in HOLDS_BACK.get(cause, ()) for cause in open_now)
        if Kind.NO_DATA in open_now:
            assert all(open_now[Kind.NO_DATA].rank >= priority.rank for priority in open_now.values())


@given(history=HISTORIES, urgency=URGENCIES)
def test_a_restart_between_any_two_instants_changes_nothing(history: list[list[str]], urgency: Urgency):
    unbroken, restarted = Inhibition(urgency), Inhibition(urgency)
    for at_s, words in enumerate(history):
        found = [finding(word, at_s) for word in words]
        kept = msgspec.json.encode(restarted.state)
        restarted = Inhibition(urgency, msgspec.json.decode(kept, type=InhibitionState))
        assert restarted.apply(found) == unbroken.apply(found)


ABSENCES = {
    "a change of the set holds back what it brings about; at its end causes are told before their effects": (
        "+absence_began:set_change          -> start:absence_began:set_change",
        "+paused_too_long                   ->",
        "+pump_alarm:door_open              ->",
        "+no_data                           ->",
        "-no_data                           ->",
        "-absence_began:set_change +absence_ended:set_change"
        " -> end:absence_began:set_change start:absence_ended:set_change start:pump_alarm:door_open",
        "-pump_alarm:door_open              -> end:pump_alarm:door_open start:paused_too_long",
    ),
    "a dose that stopped early within a change of the set is told at its end, unless it goes on": (
        "+absence_began:set_change -> start:absence_began:set_change",
        "+stopped_early            ->",
        "-absence_began:set_change -> end:absence_began:set_change start:stopped_early end:stopped_early",
        "+absence_began:set_change -> start:absence_began:set_change",
        "+stopped_early            ->",
        "-stopped_early            ->",
        "-absence_began:set_change -> end:absence_began:set_change",
    ),
    "what is open stays open, and what ends meanwhile ends": (
        "+no_data            -> start:no_data",
        "+absence_began:away -> start:absence_began:away",
        "-no_data            -> end:no_data",
        "+no_data            ->",
        "-no_data            ->",
        "-absence_began:away -> end:absence_began:away",
    ),
    "a rate that is set too high is told while a nurse is present, one that is too low is not": (
        "+absence_began:nurse_present -> start:absence_began:nurse_present",
        "+wrong_rate!medium           ->",
        "+wrong_rate!high             -> start:wrong_rate",
    ),
    "two absences hold back, each for itself": (
        "+absence_began:away -> start:absence_began:away",
        "+absence_began:set_change -> start:absence_began:set_change",
        "+no_data            ->",
        "-absence_began:away -> end:absence_began:away",
        "+paused_too_long    ->",
        "-absence_began:set_change -> end:absence_began:set_change start:paused_too_long start:no_data",
    ),
}


@pytest.mark.parametrize("story", ABSENCES.values(), ids=ABSENCES.keys())
def test_an_announced_absence_is_one_more_cause(story: tuple[str, ...]):
    test_story(story)


@pytest.mark.parametrize("kind", [kind for kind in Kind if not row(kind).local_only])
@pytest.mark.parametrize("what", list(AbsenceWhat))
def test_what_an_absence_does_not_name_is_told_as_ever(what: AbsenceWhat, kind: Kind):
    for code in (None, "air_in_line", "malfunction"):
        for priority in ("", "!low", "!medium", "!high"):
            inhibition = Inhibition(Urgency.TIMED)
            inhibition.apply([finding(f"+absence_began:{what}", 0)])
            word = f"+{kind}{f':{code}' if code else ''}{priority}"
            hidden = not inhibition.apply([finding(word, 1)])
            codes = ANNOUNCED_HOLDS_BACK[what].get(kind, frozenset())
            named = codes is None or code in codes
            too_high = what is AbsenceWhat.NURSE_PRESENT and (priority or "!high") == "!high"
            assert hidden == (named and not too_high), word


TOO_MUCH = {Kind.OVER_INFUSION, Kind.FREE_FLOW, Kind.LIMIT_EXCEEDED}


@given(
    history=st.lists(
        st.tuples(st.booleans(), st.lists(WORDS, min_size=1, max_size=3)), min_size=1, max_size=12
    ),
    urgency=URGENCIES,
    what=st.sampled_from(list(AbsenceWhat)),
)
def test_whenever_an_absence_is_on_too_much_is_told_as_without_it_and_after_it_nothing_present_is_lost(
    history: list[tuple[bool, list[str]]], urgency: Urgency, what: AbsenceWhat
):
    inhibition, without = Inhibition(urgency), Inhibition(urgency)
    verdicts: dict[Kind, Verdict] = {}
    for at_s, (is_on, words) in enumerate(history):
        sign = "+" if is_on else "-"
        inhibition.apply([finding(f"{sign}absence_began:{what}", at_s - 0.5)])
        found = [finding(word, at_s) for word in words]
        verdicts |= {one.kind: one.verdict for one in found}
        inhibition.apply(found)
        without.apply(found)
        open_now = {known.kind for known in inhibition.state.open}
        open_without = {known.kind for known in without.state.open}
        assert open_without & TOO_MUCH <= open_now
        if not is_on:
            assert open_now >= {
                kind
                for kind in open_without
                if verdicts.get(kind) is Verdict.PRESENT
                and not any(kind in HOLDS_BACK.get(cause, ()) for cause in open_now)
                and not any(TAKES_THE_PLACE_OF.get(other) is kind for other in verdicts)
            }
