"""Announced absences: how long, how often, what they hold back, what comes after (mqtt page, ``absence``)."""

from __future__ import annotations

import hashlib
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alerts.condition import AbsenceWhat, Kind, Urgency, Verdict
from alerts.inhibition import ANNOUNCED_HOLDS_BACK
from alerts.wire import iso_utc, parse_iso_utc
from gateway.absences import Absences, Seen, announced, bound_ms, cut_off, moved, overdue, passed
from tests.gateway.home import BEGINNING_UTC_MS, ORDER, Home

MIN = 60_000
HOUR = 60 * MIN

# -- how long, and how often ---------------------------------------------------------------------------

PAGE = """
set_change     3   15   30   60
away           0  720  720  720
nurse_present 120 120  120  120
"""


@pytest.mark.parametrize("line", PAGE.strip().splitlines())
def test_the_bounds_by_urgency_are_those_of_the_page(line):
    what, *bounds_min = line.split()
    assert [bound_ms(AbsenceWhat(what), urgency) // MIN for urgency in Urgency] == [
        int(b) for b in bounds_min
    ]


@pytest.mark.parametrize("urgency", list(Urgency))
@pytest.mark.parametrize("what", list(AbsenceWhat))
def test_up_to_its_bound_it_is_allowed_and_not_a_millisecond_more(what, urgency):
    bound = bound_ms(what, urgency)
    assert announced(Absences(), what, bound + 1, urgency, 1_000) is None
    allowed = announced(Absences(), what, bound, urgency, 1_000)
    assert (allowed is not None) == (bound > 0)
    if allowed is not None:
        assert allowed.on[0].until_t_ms == 1_000 + bound


@pytest.mark.parametrize("for_ms", [0.0, -1.0, 1e300, float("inf"), float("nan")])
def test_a_length_that_is_none_is_not_allowed(for_ms):
    assert announced(Absences(), AbsenceWhat.AWAY, for_ms, Urgency.ROUTINE, 0) is None


STORIES = {
    "one extension, and no second": ("0 10 yes", "5 15 yes", "19 10 no"),
    "shorter than what is left only shortens, as often as one likes": (
        "0 15 yes",
        "1 10 yes",
        "2 5 yes",
        "3 15 yes",
        "4 15 no",
    ),
    "after its end none for as long as it lasted": ("0 10 yes", "11 5 no", "19.9 5 no", "20 5 yes"),
    "an extension lengthens the rest as well": ("0 5 yes", "4 6 yes", "19 5 no", "20 5 yes"),
    "two bounds are the most": ("0 15 yes", "14 15 yes", "14.5 15 no", "57 5 no", "58 5 yes"),
    "what was ended early has a short rest": ("0 15 yes", "2 0.001 yes", "3 5 no", "4.1 5 yes"),
}


@pytest.mark.parametrize("story", STORIES.values(), ids=STORIES.keys())
def test_of_a_critical_therapys_set_change(story):
    """Each line: at which minute it is announced, for how many minutes, and whether that is allowed."""
    absences = Absences()
    for line in story:
        at_min, for_min, allowed = line.split()
        t_ms = round(float(at_min) * MIN)
        absences, _ = passed(absences, Urgency.CRITICAL, t_ms)
        after = announced(absences, AbsenceWhat.SET_CHANGE, float(for_min) * MIN, Urgency.CRITICAL, t_ms)
        assert (after is not None) == (allowed == "yes"), line
        absences = after or absences


def test_each_kind_is_reckoned_by_itself():
    absences = announced(Absences(), AbsenceWhat.NURSE_PRESENT, 2 * HOUR, Urgency.TIMED, 0)
    absences = announced(absences, AbsenceWhat.SET_CHANGE, 10 * MIN, Urgency.TIMED, 5 * MIN)
    assert absences.longest().what is AbsenceWhat.NURSE_PRESENT
    absences, ended = passed(absences, Urgency.TIMED, 20 * MIN)
    assert [absence.what for absence in ended] == [AbsenceWhat.SET_CHANGE]
    assert [absence.what for absence in absences.on] == [AbsenceWhat.NURSE_PRESENT]


@pytest.mark.parametrize(
    ("what", "before", "after", "minutes_left"),
    [
        ("set_change", "routine", "timed", 25),
        ("set_change", "routine", "critical", 10),
        ("set_change", "routine", "vital", None),
        ("set_change", "critical", "routine", 10),
        ("away", "timed", "critical", 55),
        ("away", "timed", "vital", None),
        ("nurse_present", "routine", "vital", 55),
    ],
)
def test_an_order_of_another_urgency_shortens_what_is_on_and_lengthens_nothing(
    what, before, after, minutes_left
):
    what = AbsenceWhat(what)
    for_ms = min(bound_ms(what, Urgency(before)), HOUR)
    absences = announced(Absences(), what, for_ms, Urgency(before), 0)
    absences, ended = passed(absences, Urgency(after), 5 * MIN)
    left = [(absence.until_t_ms - 5 * MIN) / MIN for absence in absences.on]
    assert left == ([] if minutes_left is None else [minutes_left])
    assert [absence.until_t_ms for absence in ended] == ([5 * MIN] if minutes_left is None else [])


def test_time_that_is_found_to_have_passed_unseen_takes_nothing_from_an_absence():
    absences = announced(Absences(), AbsenceWhat.AWAY, HOUR, Urgency.TIMED, 0)
    absences, ended = passed(moved(absences, 8 * HOUR), Urgency.TIMED, 8 * HOUR + 30 * MIN)
    assert ended == ()
    absences, (ended,) = passed(absences, Urgency.TIMED, 9 * HOUR)
    assert ended.until_t_ms - ended.began_t_ms == HOUR


def test_what_is_cut_off_ends_now():
    absences = announced(Absences(), AbsenceWhat.AWAY, HOUR, Urgency.TIMED, 0)
    absences, (ended,) = passed(cut_off(absences, MIN), Urgency.TIMED, MIN)
    assert (absences.on, ended.until_t_ms) == ((), MIN)


ANNOUNCEMENTS = st.lists(
    st.tuples(
        st.integers(0, 3 * HOUR),
        st.sampled_from(list(AbsenceWhat)),
        st.one_of(st.integers(1, 15 * HOUR), st.sampled_from([3 * MIN, 15 * MIN, 30 * MIN, HOUR, 2 * HOUR])),
        st.sampled_from(list(Urgency)),
    ),
    max_size=30,
)


@settings(max_examples=300, deadline=None)
@given(happenings=ANNOUNCEMENTS, fixed=st.none() | st.sampled_from(list(Urgency)))
def test_no_announcements_whatever_make_an_absence_outlast_its_bound_and_one_extension_or_skip_its_rest(
    happenings, fixed
):
    """At a pump whose urgency a new order may change at any time; bounds are those of the mildest of all."""
    absences, t_ms = Absences(), 0
    over: list = []
    for later_ms, what, for_ms, urgency in happenings:
        t_ms += later_ms
        urgency = fixed or urgency
        absences, ended = passed(absences, urgency, t_ms)
        over.extend(ended)
        for absence in absences.on:
            assert absence.until_t_ms <= absence.counted_from_t_ms + bound_ms(absence.what, urgency)
            assert (
                t_ms < absence.until_t_ms <= absence.began_t_ms + 2 * bound_ms(absence.what, Urgency.ROUTINE)
            )
        absences = announced(absences, what, for_ms, urgency, t_ms) or absences
        assert len({absence.what for absence in absences.on}) == len(absences.on) <= len(AbsenceWhat)
        assert max(len(absences.rests), len(absences.not_seen_over)) <= len(AbsenceWhat)
    absences, ended = passed(absences, Urgency.ROUTINE, t_ms + 100 * HOUR)
    over.extend(ended)
    assert absences.on == ()
    for what in AbsenceWhat:
        mine = [absence for absence in over if absence.what is what]
        longest = 2 * bound_ms(what, fixed or Urgency.ROUTINE)
        assert all(0 <= absence.until_t_ms - absence.began_t_ms <= longest for absence in mine)
        for earlier, later in pairwise(mine):
            rested_ms = later.began_t_ms - earlier.until_t_ms
            assert rested_ms >= earlier.until_t_ms - earlier.began_t_ms


# -- when one is overdue -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "heard", "silence_is_told", "stands", "expected"),
    [
        ("away", True, False, False, "absent"),
        ("away", True, False, True, "absent"),
        ("away", False, False, False, "unknown"),
        ("away", False, True, False, "present"),
        ("set_change", True, False, False, "absent"),
        ("set_change", True, False, True, "present"),
        ("set_change", False, False, True, "unknown"),
        ("set_change", False, True, False, "present"),
    ],
)
def test_what_shows_whether_an_absence_is_over(what, heard, silence_is_told, stands, expected):
    seen = Seen(heard=heard, silence_is_told=silence_is_told, stands=stands)
    assert overdue(AbsenceWhat(what), seen) is Verdict(expected)


# -- what is held back ---------------------------------------------------------------------------------

NEVER = {
    Kind.OVER_INFUSION,
    Kind.LIMIT_EXCEEDED,
    Kind.BOLUS_IN_LOCKOUT,
    Kind.BOLUS_LIMIT_EXCEEDED,
    Kind.BOLUS_NOT_ORDERED,
    Kind.FREE_FLOW,
    Kind.WRONG_PUMP,
    Kind.DOSE_TOO_SOON,
    Kind.UNSCHEDULED_DELIVERY,
}


def test_no_absence_hides_over_delivery_limits_boluses_free_flow_or_a_wrong_pump():
    assert set(ANNOUNCED_HOLDS_BACK) == set(AbsenceWhat)
    for effects in ANNOUNCED_HOLDS_BACK.values():
        assert NEVER.isdisjoint(effects)


# -- at a pump -------------------------------------------------------------------------------------------


class Bed:
    """A home whose pump says one line each second, unless its cable is out."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.volume_ml = 0.0
        self.asked = 0

    def go(self, minutes: float, state: str = "running", alarms: str = "", rate_ml_h: float = 60.0) -> None:
        for second in range(round(minutes * 60)):
            if second % 60 == 0:
                self.receive()
            if state == "running":
                self.volume_ml += rate_ml_h / 3_600
            self.home.wait(1)
            self.home.hear(
                f"state={state} rate_ml_h={rate_ml_h} volume_ml={self.volume_ml:.3f} alarms={alarms}"
            )

    def receive(self) -> None:
        """The collector stores all that has come."""
        numbers = [message.seq or 0 for message in self.home.messages("telemetry")]
        self.home.receipt(self.home.engine.alerts_next_seq - 1, max(numbers, default=0))

    def announce(self, what: str, for_min: float, **fields: object) -> str | None:
        self.asked += 1
        request = f"i-{self.asked}"
        self.home.tell("absence", pump="p1", id=request, what=what, for_s=for_min * 60, **fields)
        return dict(self.home.answers())[request]

    def kinds(self) -> set[str]:
        """What is open, and not only waiting to be seen."""
        return {alert.kind for alert in self.home.engine.book.open.values() if alert.state != "latched"}

    def events(self) -> list[tuple[str, str | None]]:
        return [
            (event["kind"], event["code"]) for event in self.home.said("event") if "absence" in event["kind"]
        ]

    def happened(self) -> list[str]:
        return [event["kind"] for event in self.home.said("event")]

    def state(self) -> dict:
        return self.home.said("state")[-1]


@pytest.fixture
def bed(tmp_path):
    """A pump that has run on plan for a while; ``timed``."""
    home = Home(tmp_path, order=ORDER)
    home.connect()
    home.plug_in()
    bed = Bed(home)
    bed.go(6)
    assert bed.kinds() == set()
    return bed


def test_a_set_change_in_its_time_is_two_events_and_no_alert(bed):
    assert bed.announce("set_change", 25) is None
    bed.go(1, "alarm", "door_open")
    bed.home.unplug()
    bed.home.wait(8 * 60)
    bed.home.plug_in()
    bed.volume_ml = 0.0
    bed.go(9, "paused", "air_in_line;cassette")
    bed.go(8)
    assert bed.home.said("alert") == []
    assert bed.events() == [("absence_began", "set_change"), ("absence_ended", "set_change")]
    assert bed.kinds() == set()


def test_what_still_stands_at_its_end_is_told_at_once_with_its_true_beginning(bed):
    bed.announce("set_change", 20)
    paused_ms = bed.home.now_ms
    bed.go(19.9, "paused")
    assert bed.kinds() == set()
    bed.go(0.2, "paused")
    assert bed.kinds() == {"paused_too_long", "absence_overdue"}
    since = bed.home.alert("paused_too_long")["since"]
    assert abs(parse_iso_utc(since) - (BEGINNING_UTC_MS + paused_ms)) <= 2_000
    bed.go(3)
    assert bed.kinds() == set()
    assert bed.home.told("absence_overdue")[-1][1:] == ("closed", "resolved")


def test_the_reset_of_its_counter_is_told_when_the_set_change_is_over(bed):
    bed.announce("set_change", 15)
    bed.go(2, "paused")
    bed.volume_ml = 0.0
    bed.go(2, "paused")
    bed.go(10)
    assert "counter_reset" not in bed.happened()
    bed.go(2)
    assert bed.happened()[-2:] == ["absence_ended", "counter_reset"]
    assert bed.kinds() == set()


HELD_BACK = [
    # what, for how many minutes the pump says what, and what a nurse is told meanwhile
    ("set_change", "alarm", "door_open", 60.0, set()),
    ("set_change", "alarm", "air_in_line;cassette", 60.0, set()),
    ("set_change", "alarm", "malfunction", 60.0, {"pump_alarm"}),
    ("set_change", "alarm", "occlusion_downstream", 60.0, {"occlusion"}),
    ("set_change", "alarm", "low_battery", 60.0, {"pump_alarm"}),
    ("set_change", "alarm", "", 60.0, {"pump_alarm"}),
    ("set_change", "running", "", 20.0, {"wrong_rate"}),
    ("set_change", "running", "", 90.0, {"wrong_rate"}),
    ("away", "paused", "", 60.0, {"paused_too_long"}),
    ("away", "alarm", "door_open", 60.0, {"pump_alarm"}),
    ("away", "running", "", 20.0, {"wrong_rate"}),
    ("nurse_present", "paused", "", 60.0, {"paused_too_long"}),
    ("nurse_present", "alarm", "air_in_line", 60.0, {"pump_alarm"}),
    ("nurse_present", "running", "", 20.0, set()),
    ("nurse_present", "running", "", 90.0, {"wrong_rate"}),
]


@pytest.mark.parametrize(("what", "state", "alarms", "rate_ml_h", "told"), HELD_BACK)
def test_meanwhile_this_is_told_and_no_more(bed, what, state, alarms, rate_ml_h, told):
    assert bed.announce(what, 20) is None
    bed.go(16, state, alarms, rate_ml_h)
    assert bed.kinds() == told


def counts_too_fast(bed):
    for _ in range(40 * 60):
        bed.volume_ml += 90 / 3_600
        bed.home.wait(1)
        bed.home.hear(f"state=running rate_ml_h=60 volume_ml={bed.volume_ml:.3f} alarms=")
        if "over_infusion" in bed.kinds():
            break


def flows_while_it_stands(bed):
    for _ in range(10 * 60):
        bed.volume_ml += 300 / 3_600
        bed.home.wait(1)
        bed.home.hear(f"state=paused rate_ml_h=60 volume_ml={bed.volume_ml:.3f} alarms=")


def gives_a_bolus(bed):
    bed.volume_ml += 2
    bed.home.wait(1)
    bed.home.hear(f"state=bolus rate_ml_h=600 volume_ml={bed.volume_ml:.3f} alarms=")
    bed.go(1)


@pytest.mark.parametrize("what", list(AbsenceWhat))
@pytest.mark.parametrize(
    ("happens", "kind"),
    [
        (counts_too_fast, "over_infusion"),
        (flows_while_it_stands, "free_flow"),
        (gives_a_bolus, "bolus_not_ordered"),
    ],
)
def test_too_much_is_told_whatever_was_announced(bed, what, happens, kind):
    assert bed.announce(what, 30) is None
    happens(bed)
    assert bed.home.told(kind)[0] == (1, "active", "first")


def test_an_alert_that_is_open_stays_open_and_is_not_hidden(bed):
    bed.go(16, "paused")
    told = bed.home.told("paused_too_long")
    assert told == [(1, "active", "first")]
    assert bed.announce("set_change", 30) is None
    bed.go(29.5, "paused")
    assert bed.kinds() == {"paused_too_long"}
    assert ("active", "escalated") in {telling[1:] for telling in bed.home.told("paused_too_long")}
    bed.go(2)
    assert bed.home.told("paused_too_long")[-1][1:] == ("closed", "resolved")


def test_somebody_who_is_away_with_the_cable_out_and_comes_back_in_time_is_no_alert(bed):
    bed.announce("away", 40)
    bed.home.unplug()
    bed.home.wait(35 * 60)
    bed.volume_ml += 35
    bed.home.plug_in()
    bed.go(6)
    assert bed.home.said("alert") == []
    assert bed.events() == [("absence_began", "away"), ("absence_ended", "away")]


def test_who_does_not_come_back_in_time_is_overdue_until_the_pump_is_heard_again(bed):
    bed.announce("away", 60)
    gone_ms = bed.home.now_ms
    bed.home.unplug()
    bed.home.wait(59.9 * 60)
    assert bed.kinds() == set()
    bed.home.wait(10)
    assert bed.kinds() == {"no_data", "absence_overdue"}
    assert abs(parse_iso_utc(bed.home.alert("no_data")["since"]) - (BEGINNING_UTC_MS + gone_ms)) < 2_000
    overdue = bed.home.alert("absence_overdue")
    assert abs(parse_iso_utc(overdue["since"]) - (BEGINNING_UTC_MS + gone_ms + HOUR)) < 2_000
    bed.home.tell("ack", id="a-1", alert_id=overdue["alert_id"], rev=1, role="nurse")
    assert bed.home.told("absence_overdue")[-1][1:] == ("acknowledged", "acknowledged")
    bed.home.plug_in()
    bed.volume_ml += 60
    bed.go(1)
    assert bed.kinds() == set()
    assert bed.home.told("absence_overdue")[-1][1:] == ("closed", "resolved")


def test_a_rate_that_the_nurse_has_left_too_low_is_told_when_the_visit_is_over_and_nobody_is_overdue(bed):
    bed.announce("nurse_present", 30)
    bed.go(29, rate_ml_h=40.0)
    assert bed.kinds() == set()
    bed.go(2, rate_ml_h=40.0)
    assert bed.kinds() == {"wrong_rate"}


def test_the_state_says_what_was_announced_until_when_and_judges_nothing_meanwhile(bed):
    assert (bed.state()["verdict"], bed.state()["absence"]) == ("on_plan", None)
    began_ms = bed.home.now_ms
    bed.announce("nurse_present", 30)
    bed.announce("set_change", 10)
    bed.go(0.1)
    state = bed.state()
    assert state["verdict"] == "unknown"
    assert state["decidable_after_s"] is None
    assert state["absence"]["what"] == "nurse_present"
    until_ms = parse_iso_utc(state["absence"]["until"]) - BEGINNING_UTC_MS
    assert abs(until_ms - (began_ms + 30 * MIN)) < 10
    bed.announce("nurse_present", 32)
    bed.home.wait(1)
    until_ms = parse_iso_utc(bed.state()["absence"]["until"]) - BEGINNING_UTC_MS
    assert abs(until_ms - (bed.home.now_ms + 32 * MIN)) < 2_000
    bed.go(33)
    assert (bed.state()["verdict"], bed.state()["absence"]) == ("on_plan", None)


# -- answers ---------------------------------------------------------------------------------------------


def ago(minutes: float, home: Home) -> str:
    return iso_utc(BEGINNING_UTC_MS + home.now_ms - round(minutes * MIN))


def test_what_is_asked_is_answered_with_its_reason(bed):
    assert bed.announce("set_change", 31) == "not_allowed"
    assert bed.announce("away", 12 * 60 + 1) == "not_allowed"
    assert bed.announce("set_change", 10, time=ago(11.1, bed.home)) == "too_old"
    assert bed.announce("set_change", 10, time=ago(10.9, bed.home)) is None
    assert bed.announce("set_change", 20) is None
    assert bed.announce("set_change", 30) == "not_allowed"
    bed.go(21)
    assert bed.announce("set_change", 1) == "not_allowed"
    bed.go(20)
    assert bed.announce("set_change", 1) is None
    assert bed.events()[0::2] == [("absence_began", "set_change")] * 2


def test_the_age_of_an_announcement_does_not_count_while_the_clock_is_not_set(bed):
    bed.home.synced = False
    assert bed.announce("set_change", 10, time=ago(600, bed.home)) is None


def test_the_same_announcement_again_is_answered_as_before_and_lengthens_nothing(bed):
    for _ in range(3):
        bed.home.tell("absence", pump="p1", id="i-0", what="set_change", for_s=600)
        bed.go(4)
    assert bed.home.answers() == [("i-0", None)] * 3
    assert [absence.extended for absence in bed.home.engine._pumps["p1"].absences.on] == []
    assert len(bed.events()) == 2


def test_an_announcement_for_a_pump_that_is_not_here_is_not_allowed(bed):
    bed.home.tell("absence", pump="p9", id="i-1", what="away", for_s=60)
    assert bed.home.answers() == [("i-1", "not_allowed")]


@pytest.mark.parametrize("fields", [{"what": "asleep"}, {"for_s": 0}, {"for_s": "long"}, {"by": ""}])
def test_what_cannot_be_read_is_counted_noted_and_changes_nothing(bed, fields):
    ignored = bed.home.engine.ignored
    bed.home.tell("absence", pump="p1", **{"id": "i-1", "what": "away", "for_s": 60, **fields})
    bed.home.wait(1)
    assert bed.home.engine.ignored == ignored + 1
    assert any("down/absence cannot be read" in note for note in bed.home.notes)
    assert (bed.events(), bed.state()["absence"]) == ([], None)


def test_away_is_not_for_a_vital_therapy(tmp_path):
    home = Home(tmp_path, order=ORDER.replace("[limits]", '[response]\nurgency = "vital"\n[limits]'))
    home.connect()
    home.plug_in()
    bed = Bed(home)
    bed.go(1)
    assert bed.announce("away", 1) == "not_allowed"
    assert bed.announce("set_change", 3.1) == "not_allowed"
    assert bed.announce("set_change", 3) is None


def test_the_reason_is_free_text_and_is_repeated_nowhere(bed):
    bed.home.forget()
    bed.announce("nurse_present", 30, reason="visit to Mrs Example")
    bed.go(31)
    said = b"".join(send.message.payload for send in bed.home.sends) + "".join(bed.home.notes).encode()
    assert b"nurse-07" in said
    assert b"Example" not in said


# -- over restarts -------------------------------------------------------------------------------------


def test_an_absence_goes_on_over_a_clean_stop_and_over_a_power_cut_of_known_length(bed):
    bed.announce("away", 60)
    bed.home.stop()
    bed.home.start()
    bed.home.wait(10 * 60)
    bed.home.cut_power(20 * MIN)
    bed.home.start()
    bed.home.connect()
    bed.home.forget()
    bed.home.wait(28 * 60)
    assert "no_data" not in bed.kinds()
    assert bed.state()["absence"]["what"] == "away"
    bed.home.wait(3 * 60)
    assert {"no_data", "absence_overdue"} <= bed.kinds()


def test_an_absence_that_ended_while_the_power_was_off_is_over_at_the_start(bed):
    bed.announce("away", 60)
    bed.home.unplug()
    bed.home.wait(20 * 60)
    bed.home.cut_power(3 * HOUR)
    bed.home.start()
    bed.home.connect()
    assert {"no_data", "absence_overdue"} <= bed.kinds()
    assert bed.announce("away", 10) is None


def test_after_a_power_cut_of_unknown_length_it_is_over(bed):
    bed.announce("away", 600)
    bed.home.unplug()
    bed.home.wait(20 * 60)
    bed.home.cut_power(MIN)
    bed.home.clock_error_ms, bed.home.synced = -24 * HOUR, False
    bed.home.start()
    bed.home.connect()
    assert {"no_data", "absence_overdue"} <= bed.kinds()
    assert bed.announce("away", 10) == "not_allowed"


def test_a_gap_that_becomes_known_takes_nothing_from_what_was_announced_since(bed):
    bed.home.cut_power(8 * HOUR)
    bed.home.clock_error_ms, bed.home.synced = -240 * HOUR, False
    bed.home.start()
    bed.home.connect()
    bed.home.plug_in()
    bed.go(1)
    assert bed.announce("set_change", 20) is None
    bed.go(5, "paused")
    bed.home.clock_error_ms, bed.home.synced = 0, True
    bed.go(10, "paused")
    assert bed.state()["absence"]["what"] == "set_change"
    bed.go(6, "paused")
    assert bed.state()["absence"] is None


def test_a_pump_without_a_prescription_can_have_one_as_well(tmp_path):
    home = Home(tmp_path)
    home.connect()
    home.plug_in()
    bed = Bed(home)
    bed.go(1)
    assert bed.announce("set_change", 10) is None
    bed.go(5, "alarm", "door_open")
    assert bed.kinds() == {"no_prescription"}
    bed.go(6, "alarm", "door_open")
    assert bed.kinds() == {"no_prescription", "pump_alarm"}
    home.stop()
    home.order = ORDER
    home.start()
    assert "pump_alarm" in bed.kinds()


def test_an_absence_outlasts_the_order_that_is_taken_away(bed):
    bed.announce("set_change", 20)
    bed.home.stop()
    bed.home.order = None
    bed.home.start()
    bed.home.connect()
    bed.home.plug_in()
    bed.go(5, "alarm", "door_open")
    assert bed.state()["absence"]["what"] == "set_change"
    assert bed.kinds() == {"no_prescription"}
    bed.go(16, "alarm", "door_open")
    assert bed.kinds() == {"no_prescription", "pump_alarm"}


def test_who_is_overdue_is_so_still_when_the_order_is_taken_away(bed):
    bed.announce("away", 30)
    bed.home.unplug()
    bed.home.wait(31 * 60)
    bed.home.stop()
    bed.home.order = None
    bed.home.start()
    bed.home.connect()
    assert "absence_overdue" in bed.kinds()
    bed.home.plug_in()
    bed.go(0.1)
    assert bed.kinds() == {"no_prescription"}


def test_an_extension_that_was_accepted_is_on_the_card(bed):
    bed.announce("set_change", 10)
    bed.go(1.3)
    bed.announce("set_change", 20)
    bed.home.cut_power(MIN)
    bed.home.start()
    bed.home.connect()
    bed.home.plug_in()
    bed.go(12, "alarm", "door_open")
    assert "pump_alarm" not in bed.kinds()


def test_of_a_nurse_who_was_present_nobody_asks_whether_she_is_back(bed):
    bed.announce("nurse_present", 30)
    bed.home.unplug()
    bed.home.wait(31 * 60)
    assert bed.kinds() == {"no_data"}


def test_a_new_order_of_another_urgency_has_its_bounds_from_then_on(bed):
    bed.announce("away", 60)
    bed.announce("set_change", 25)
    bed.go(5)
    text = ORDER.replace("[limits]", '[response]\nurgency = "vital"\n[limits]')
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    bed.home.tell("order", pump="p1", id="o-1", version=1, prescription=text, sha256=sha256)
    bed.home.wait(1)
    assert sorted(bed.events()[2:]) == [("absence_ended", "away"), ("absence_ended", "set_change")]
    assert bed.announce("away", 1) == "not_allowed"
