"""What the panel shows and sounds: the table, and lamps and bursts in virtual time."""

from __future__ import annotations

from itertools import pairwise

import pytest
from msgspec.structs import replace

from alerts.alert import Alert, AlertState, Reason
from alerts.catalogue import respond_within_s
from alerts.condition import Kind, Priority, Urgency
from alerts.signal import (
    BURSTS,
    LAMP_TEST_MS,
    SILENCE_MS,
    Button,
    Lamp,
    PanelSignal,
    Picture,
    Player,
    Press,
    Sound,
    audible,
    panel_signal,
    silence,
    silence_goes_on,
)

ACTIVE, ACKNOWLEDGED, LATCHED = AlertState.ACTIVE, AlertState.ACKNOWLEDGED, AlertState.LATCHED
HIGH, MEDIUM, LOW = Priority.HIGH, Priority.MEDIUM, Priority.LOW


def alert(
    state: AlertState = ACTIVE,
    priority: Priority = HIGH,
    *,
    name: str = "a-1",
    kind: Kind = Kind.NO_DELIVERY,
    reason: Reason = Reason.FIRST,
    urgency: Urgency = Urgency.TIMED,
    told_t_ms: int = 0,
    rev: int = 1,
) -> Alert:
    within_s = respond_within_s(urgency)[priority]
    return Alert(
        alert_id=name,
        rev=rev,
        pump="p1",
        kind=kind,
        code=None,
        state=state,
        reason=reason,
        priority=priority,
        level=0,
        urgency=urgency,
        time_utc_ms=0,
        since_utc_ms=None,
        raised_utc_ms=0,
        respond_within_s=within_s,
        expected_ml=None,
        delivered_ml=None,
        message="",
        answerable_rev=rev,
        escalates_at_ms=told_t_ms + within_s * 1000 if state is ACTIVE else None,
    )


ALL_WELL = Picture(t_ms=0, alerts=(), pumps_well=True, watched=True, connected=True, storage_ok=True)


def picture(*alerts: Alert, **fields: object) -> Picture:
    return replace(ALL_WELL, alerts=alerts, **fields)


def in_words(signal: PanelSignal) -> str:
    green = "green" if signal.green else "-"
    return f"{green} {signal.yellow} {signal.red} {signal.sound}"


# -- the table ------------------------------------------------------------------------------------------

TABLE = """
state         priority  silence     green  yellow    red       sound
active        high      no          -      off       flashing  high
active        high      before      -      off       flashing  none
active        high      of another  -      off       flashing  high
active        high      run out     -      off       flashing  high
active        medium    no          -      flashing  off       medium
active        medium    before      -      flashing  off       none
active        medium    of another  -      flashing  off       medium
active        medium    run out     -      flashing  off       medium
active        low       no          -      steady    off       low
active        low       before      -      steady    off       none
active        low       of another  -      steady    off       low
active        low       run out     -      steady    off       low
acknowledged  high      no          -      off       flashing  none
acknowledged  high      before      -      off       flashing  none
acknowledged  medium    no          -      flashing  off       none
acknowledged  medium    before      -      flashing  off       none
acknowledged  low       no          -      steady    off       none
acknowledged  low       before      -      steady    off       none
latched       high      no          -      steady    off       none
latched       high      before      -      steady    off       none
latched       medium    no          -      steady    off       none
latched       low       no          -      steady    off       none
"""


@pytest.mark.parametrize("line", TABLE.strip().splitlines()[1:])
def test_state_priority_and_silence_decide_what_is_seen_and_heard(line):
    state, priority, *when, green, yellow, red, sound = line.split()
    one = alert(AlertState(state), Priority(priority))
    held_off = silence(picture(alert(ACTIVE, Priority(priority))))
    other = silence(picture(alert(ACTIVE, Priority(priority), name="a-2")))
    now = {
        "no": picture(one),
        "before": picture(one, silence=held_off, t_ms=SILENCE_MS - 1),
        "of another": picture(one, silence=other, t_ms=1),
        "run out": picture(one, silence=held_off, t_ms=SILENCE_MS),
    }[" ".join(when)]
    assert in_words(panel_signal(now)) == f"{green} {yellow} {red} {sound}"


@pytest.mark.parametrize(
    ("alerts", "expected"),
    [
        ([alert(ACTIVE, LOW, name="1"), alert(ACTIVE, HIGH, name="2")], "- off flashing high"),
        ([alert(ACTIVE, LOW, name="1"), alert(ACTIVE, MEDIUM, name="2")], "- flashing off medium"),
        ([alert(ACKNOWLEDGED, HIGH, name="1"), alert(ACTIVE, LOW, name="2")], "- off flashing low"),
        ([alert(LATCHED, HIGH, name="1"), alert(ACTIVE, MEDIUM, name="2")], "- flashing off medium"),
        ([alert(LATCHED, HIGH, name="1"), alert(ACKNOWLEDGED, LOW, name="2")], "- steady off none"),
    ],
)
def test_of_several_the_highest_that_may_be_seen_is_seen_and_the_highest_that_may_be_heard_is_heard(
    alerts, expected
):
    assert in_words(panel_signal(picture(*alerts))) == expected


@pytest.mark.parametrize(
    ("lacking", "green"),
    [
        ({}, True),
        ({"pumps_well": False}, False),
        ({"watched": False}, False),
        ({"connected": False}, False),
        ({"storage_ok": False}, False),
        ({"local": (Kind.NOBODY_WATCHING,)}, False),
        ({"alerts": (alert(LATCHED, LOW),)}, False),
        ({"alerts": (alert(ACKNOWLEDGED, LOW),)}, False),
        ({"alerts": (alert(ACTIVE, LOW),)}, False),
    ],
)
def test_green_needs_all_at_once(lacking, green):
    assert panel_signal(replace(ALL_WELL, **lacking)).green is green


@pytest.mark.parametrize("kind", [Kind.BROKER_UNREACHABLE, Kind.NOBODY_WATCHING])
def test_that_nobody_can_be_told_is_a_steady_lamp_and_one_low_burst(kind):
    assert in_words(panel_signal(replace(ALL_WELL, local=(kind,)))) == "- steady off low"


def test_who_has_called_sees_it_and_is_not_beeped_at():
    call = alert(kind=Kind.CAREGIVER_CALL)
    assert in_words(panel_signal(picture(call))) == "- off flashing none"


# -- the pump's own alarm -------------------------------------------------------------------------------

MINUTE = 60_000


@pytest.mark.parametrize(
    ("urgency", "reason", "beeps", "minutes", "sound"),
    [
        ("vital", "first", True, 2.99, "none"),
        ("vital", "first", True, 3, "high"),
        ("timed", "first", True, 9.99, "none"),
        ("timed", "first", True, 10, "high"),
        ("timed", "again", True, 9, "none"),
        ("timed", "first", False, 0, "high"),
        ("timed", "worse", True, 0, "high"),
        ("timed", "repeated", True, 0, "high"),
        ("timed", "escalated", True, 0, "high"),
    ],
)
def test_beside_a_pump_that_beeps_the_panel_sounds_only_when_nobody_has_answered(
    urgency, reason, beeps, minutes, sound
):
    one = alert(kind=Kind.OCCLUSION, urgency=Urgency(urgency), reason=Reason(reason))
    now = picture(one, beeping=frozenset({"a-1"} if beeps else ()), t_ms=round(minutes * MINUTE))
    assert in_words(panel_signal(now)) == f"- off flashing {sound}"


# -- the button holds the sound off ---------------------------------------------------------------------


def test_a_press_silences_what_sounds_and_nothing_that_is_to_come():
    assert silence(picture()) is None
    assert silence(picture(alert(ACKNOWLEDGED))) is None
    held = silence(picture(alert(priority=MEDIUM)))
    assert held is not None
    assert audible(picture(alert(priority=MEDIUM), silence=held, t_ms=1)) == []
    worse = picture(alert(priority=HIGH, reason=Reason.WORSE), silence=held, t_ms=1)
    assert [one.priority for one in audible(worse)] == [HIGH]


def test_what_has_gone_and_comes_back_sounds_though_it_was_silenced():
    held = silence(picture(alert()))
    for meanwhile in (alert(LATCHED), alert(ACKNOWLEDGED)):
        held_then = silence_goes_on(held, picture(meanwhile, t_ms=10))
        again = picture(alert(reason=Reason.AGAIN, rev=3), silence=held_then, t_ms=20)
        assert panel_signal(again).sound == "high"


def test_each_further_press_begins_two_minutes_anew_and_none_adds_up():
    held = silence(picture(alert()))
    held = silence(picture(alert(), alert(name="a-2", priority=LOW), silence=held, t_ms=90_000))
    assert held is not None
    assert held.until_t_ms == 90_000 + SILENCE_MS
    both = picture(alert(), alert(name="a-2", priority=LOW), silence=held, t_ms=held.until_t_ms - 1)
    assert panel_signal(both).sound == "none"
    assert panel_signal(replace(both, t_ms=held.until_t_ms)).sound == "high"
    assert panel_signal(both).silent_until_t_ms == held.until_t_ms


# -- in time --------------------------------------------------------------------------------------------


class Stage:
    """A player after its lamp test, looked at in each millisecond in which something may change."""

    def __init__(self) -> None:
        self.player = Player(0)
        self.now_ms = LAMP_TEST_MS
        self.began_ms = self.now_ms
        self.edges: dict[str, list[tuple[int, bool]]] = {
            name: [] for name in ("green", "yellow", "red", "buzzer")
        }

    def show(self, **fields: object) -> None:
        self.player.show(PanelSignal(**fields), self.now_ms)

    def play(self, for_ms: int) -> None:
        until_ms = self.now_ms + for_ms
        while True:
            levels = self.player.levels(self.now_ms)
            for name, seen in self.edges.items():
                level = getattr(levels, name)
                if level is not (seen[-1][1] if seen else False):
                    seen.append((self.now_ms - self.began_ms, level))
            next_ms = self.player.next_change_ms(self.now_ms)
            assert next_ms is None or next_ms > self.now_ms
            if next_ms is None or next_ms > until_ms:
                self.now_ms = until_ms
                return
            self.now_ms = next_ms

    def times(self, name: str) -> list[int]:
        """When the part went on, off, on, ..."""
        return [at_ms for at_ms, _ in self.edges[name]]

    def pulses(self) -> list[tuple[int, int]]:
        times = self.times("buzzer")
        return list(zip(times[::2], times[1::2], strict=False))


@pytest.mark.parametrize(
    ("lamp", "hz_min", "hz_max"), [("red", 1.4, 2.8), ("yellow", 0.4, 0.8)], ids=["high", "medium"]
)
def test_lamps_flash_as_fast_and_are_lit_as_long_as_their_priority_asks(lamp, hz_min, hz_max):
    stage = Stage()
    stage.show(**{lamp: Lamp.FLASHING})
    stage.play(60_000)
    times = stage.times(lamp)
    assert times[0] == 0
    periods = [later - earlier for earlier, later in pairwise(times[::2])]
    lit = [off - on for on, off in zip(times[::2], times[1::2], strict=False)]
    assert len(periods) > 20
    assert all(hz_min <= 1000 / period <= hz_max for period in periods)
    assert all(0.2 <= one / periods[0] <= 0.6 for one in lit)
    other = "yellow" if lamp == "red" else "red"
    assert stage.times(other) == stage.times("buzzer") == []


def test_low_is_constant_on():
    stage = Stage()
    stage.show(yellow=Lamp.STEADY)
    stage.play(60_000)
    assert stage.edges["yellow"] == [(0, True)]


BURST_TABLE = {
    # sound: pulses, pulse ms, gaps ms within a burst, pause ms after it
    Sound.HIGH: (
        10,
        (75, 200),
        [(50, 125)] * 2 + [(250, 450)] + [(50, 125)] + [(350, 1300)],
        (2_500, 15_000),
    ),
    Sound.MEDIUM: (3, (125, 250), [(125, 250)] * 2, (2_500, 30_000)),
    Sound.LOW: (2, (125, 250), [(125, 250)], None),
}


@pytest.mark.parametrize("sound", list(BURST_TABLE))
def test_bursts_have_the_pulses_gaps_and_pauses_of_their_priority(sound):
    count, pulse_ms, gaps_ms, pause_ms = BURST_TABLE[sound]
    stage = Stage()
    stage.show(sound=sound, call=1)
    stage.play(60_000)
    pulses = stage.pulses()
    assert all(pulse_ms[0] <= off - on <= pulse_ms[1] for on, off in pulses)
    gaps = [on - off for (_, off), (on, _) in pairwise(pulses)]
    if sound is Sound.HIGH:
        gaps_ms = [*gaps_ms, *gaps_ms[:-1]]
    assert all(low <= gap <= high for gap, (low, high) in zip(gaps, gaps_ms, strict=False))
    if pause_ms is None:
        assert len(pulses) == count
    else:
        assert pause_ms[0] <= gaps[count - 1] <= pause_ms[1]
        assert len(pulses) > 3 * count


def test_the_higher_the_priority_the_shorter_the_pause():
    pauses = [BURSTS[sound].pause_ms for sound in (Sound.HIGH, Sound.MEDIUM)]
    assert pauses == [5_000, 7_500]
    assert BURSTS[Sound.LOW].pause_ms is None
    assert BURSTS[Sound.HIGH].length_ms == 3_600


@pytest.mark.parametrize(
    ("sound", "pulses"), [(Sound.HIGH, 5), (Sound.MEDIUM, 3), (Sound.LOW, 2)], ids=["half", "all", "all "]
)
def test_of_a_short_event_half_a_high_burst_and_all_of_another_are_heard(sound, pulses):
    stage = Stage()
    stage.show(sound=sound, call=1)
    stage.play(20)
    stage.show(call=1)
    stage.play(30_000)
    assert [off - on for on, off in stage.pulses()] == [150 if sound is Sound.HIGH else 200] * pulses


def test_no_pulse_is_cut_short_when_the_sound_ends_in_the_second_half():
    stage = Stage()
    stage.show(sound=Sound.HIGH, call=1)
    stage.play(2_250)
    stage.show(call=1)
    stage.play(30_000)
    assert len(stage.pulses()) == 10


def test_a_press_stops_the_sound_at_once():
    stage = Stage()
    stage.show(sound=Sound.HIGH, call=1)
    stage.play(50)
    stage.show(red=Lamp.FLASHING, silent_until_t_ms=120_000, call=1)
    stage.play(30_000)
    assert stage.pulses() == [(0, 50)]


def test_a_higher_priority_does_not_wait_for_a_lower_one_and_a_lower_one_waits_for_a_higher():
    stage = Stage()
    stage.show(sound=Sound.MEDIUM, call=1)
    stage.play(450)
    stage.show(sound=Sound.HIGH, call=2)
    stage.play(100)
    stage.show(sound=Sound.LOW, call=3)
    stage.play(30_000)
    # The second pulse of the medium burst runs into the high one; then half of that, a breath, and the low.
    assert stage.pulses()[:3] == [(0, 200), (400, 600), (700, 850)]
    half_ends_ms = 450 + 1_400
    assert stage.pulses()[5:] == [
        (half_ends_ms - 150, half_ends_ms),
        (half_ends_ms + 2_500, half_ends_ms + 2_700),
        (half_ends_ms + 2_900, half_ends_ms + 3_100),
    ]


def test_low_is_heard_once_for_each_alert_and_high_goes_on_as_it_was():
    stage = Stage()
    for call in (1, 1, 2):
        stage.show(sound=Sound.LOW, call=call)
        stage.play(10_000)
    assert [on for on, _ in stage.pulses()] == [0, 400, 20_000, 20_400]
    stage = Stage()
    stage.show(sound=Sound.HIGH, call=1)
    stage.play(1_000)
    stage.show(sound=Sound.HIGH, call=2)
    stage.play(7_599)
    assert len(stage.pulses()) == 10


def test_all_lamps_are_tried_at_the_start_and_the_buzzer_is_not():
    stage = Stage()
    stage.now_ms = stage.began_ms = 0
    stage.play(10_000)
    assert {name: stage.times(name) for name in stage.edges} == {
        "green": [0, 1_000],
        "yellow": [0, 1_000],
        "red": [0, 1_000],
        "buzzer": [],
    }


def test_green_goes_out_by_itself_when_nobody_confirms_it():
    stage = Stage()
    stage.show(green=True)
    for _ in range(30):
        stage.player.refresh(stage.now_ms)
        stage.play(1_000)
    assert stage.times("green") == [0]
    stage.play(60_000)
    assert stage.times("green") == [0, 39_000]


# -- the button -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("contacts", "presses"),
    [
        ([(0, True), (400, False)], [("short", 450)]),
        ([(0, True), (5, False), (9, True), (14, False), (20, True), (400, False)], [("short", 450)]),
        ([(0, True), (400, False), (405, True), (411, False)], [("short", 461)]),
        ([(0, True), (30, False)], []),
        ([(0, True), (2_900, False)], [("short", 2_950)]),
        ([(0, True)], [("long", 3_000)]),
        ([(0, True), (9_000, False)], [("long", 3_000)]),
        ([(0, True), (400, False), (1_000, True), (1_400, False)], [("short", 450), ("short", 1_450)]),
    ],
)
def test_a_bouncing_contact_makes_one_press_short_when_let_go_or_long_while_held(contacts, presses):
    button = Button(False, -1_000)
    down, made = False, []
    moves = dict(contacts)
    for now_ms in range(12_000):
        down = moves.get(now_ms, down)
        press = button.contact(down, now_ms)
        if press is not None:
            made.append((press, now_ms))
    assert made == presses


def test_a_button_that_is_stuck_from_the_start_presses_nothing():
    button = Button(True, 0)
    assert {button.contact(True, now_ms) for now_ms in range(0, 60_000, 10)} == {None}
    assert {button.contact(False, now_ms) for now_ms in range(60_000, 61_000, 10)} == {None}
    made = [button.contact(now_ms < 61_500, now_ms) for now_ms in range(61_000, 62_000, 10)]
    assert made.count(Press.SHORT) == 1
