"""What the panel in the home shows, as timetables: the real engine over the real store, in virtual time."""

from __future__ import annotations

import pytest

from alerts.signal import PanelSignal
from gateway.inputs import ButtonHeld, ButtonPressed, Tick
from tests.gateway.home import ORDER, Home

NOTHING_DUE = ORDER.replace("start = 2026-11-23T12:00:00", "start = 2026-11-24T12:00:00")
COARSE = ORDER.replace("counter_ml = 0.001", "counter_ml = 0.5").replace(
    "stroke_ml = 0.01", "stroke_ml = 0.5"
)
VITAL = ORDER + '[response]\nurgency = "vital"\n'
MINUTE = 60
MS_PER_ML = 60_000


class Room:
    """A home with a panel, a pump and somebody who watches; each of them can stop."""

    def __init__(self, folder, order: str | None = ORDER) -> None:
        self.signals: list[tuple[float, PanelSignal]] = []
        self.pump_speaks = self.watched = True
        self.alarm = ""
        self.runs = order != NOTHING_DUE
        self.volume_ml = 0.0
        self._counted_ms = 0
        self.home = Home(folder, panel=True, order=order, observe=self._observe)
        self.home.connect()
        self.home.plug_in()

    def _observe(self, happened, effects) -> None:
        if effects.panel is not None:
            self.signals.append((happened.moment.monotonic_ms / 1000, effects.panel))

    @property
    def shown(self) -> PanelSignal:
        return self.signals[-1][1]

    @property
    def now_s(self) -> float:
        return self.home.now_ms / 1000

    def live(self, seconds: float) -> None:
        """Time passes; each second the pump is heard and the loop looks, as soon as it has asked for it."""
        home = self.home
        end_ms = home.now_ms + round(seconds * 1000)
        while home.now_ms < end_ms:
            next_second_ms = min(end_ms, home.now_ms // 1_000 * 1_000 + 1_000)
            while home.now_ms < next_second_ms:
                wake_in_ms = home.put(Tick).wake_in_ms
                home.now_ms = min(next_second_ms, home.now_ms + max(1, wake_in_ms) - 1)
                if wake_in_ms <= 1:
                    home.now_ms = min(next_second_ms, home.now_ms + 1)
            self._pump_goes_on()
            if self.watched and round(self.now_s) % 10 == 0:
                home.tell("watch", id=f"w-{home.now_ms}")

    def _pump_goes_on(self) -> None:
        elapsed_ms, self._counted_ms = self.home.now_ms - self._counted_ms, self.home.now_ms
        delivers = self.runs and not self.alarm
        self.volume_ml += elapsed_ms / MS_PER_ML if delivers else 0.0
        if self.pump_speaks:
            doing = "alarm" if self.alarm else "running" if delivers else "idle"
            counter = f"rate_ml_h={60 if self.runs else 0} volume_ml={self.volume_ml:.3f}"
            self.home.hear(f"state={doing} {counter} alarms={self.alarm}")

    def acknowledge(self, kind: str) -> None:
        alert = self.home.alert(kind)
        self.home.tell(
            "ack", id=f"k-{self.now_s}", alert_id=alert["alert_id"], rev=alert["rev"], role="nurse"
        )

    def says(self) -> str:
        shown = self.shown
        return f"{'green' if shown.green else '-'} {shown.yellow} {shown.red} {shown.sound}"


@pytest.fixture
def room(tmp_path):
    """Twenty minutes into a faultless infusion that somebody watches."""
    room = Room(tmp_path)
    room.live(20 * MINUTE)
    return room


def no_watch(room: Room) -> None:
    room.watched = False


def no_network(room: Room) -> None:
    room.watched = False
    room.home.lose_broker()


def unplugged(room: Room) -> None:
    room.pump_speaks = False
    room.home.unplug()


def pump_falls_silent(room: Room) -> None:
    room.pump_speaks = False


def card_refuses(room: Room) -> None:
    room.home.card_refuses = True


# -- green ----------------------------------------------------------------------------------------------


def test_green_waits_until_it_is_decided_that_the_pump_is_on_plan(tmp_path):
    room = Room(tmp_path, COARSE)
    verdicts = []
    for _ in range(40):
        room.live(MINUTE)
        verdicts.append((room.home.said("state")[-1]["verdict"], room.shown.green))
    assert {green for verdict, green in verdicts if verdict == "too_early"} == {False}
    assert verdicts[0][0] == "too_early"
    assert verdicts[-1] == ("on_plan", True)


def test_green_also_where_nothing_is_due_and_the_pump_says_so_itself(tmp_path):
    room = Room(tmp_path, NOTHING_DUE)
    room.live(MINUTE)
    assert room.says() == "green off off none"


@pytest.mark.parametrize("order", [ORDER, NOTHING_DUE], ids=["on plan", "nothing due"])
@pytest.mark.parametrize("end", [no_watch, no_network, unplugged, pump_falls_silent])
def test_green_goes_out_within_thirty_seconds(tmp_path, order, end):
    room = Room(tmp_path, order)
    room.live(20 * MINUTE)
    assert room.shown.green
    # Just after the dashboard and the pump have spoken: the longest that there is to wait.
    ended_s = room.now_s
    end(room)
    room.live(MINUTE)
    out_s = [at_s for at_s, signal in room.signals if at_s >= ended_s and not signal.green]
    assert out_s
    assert out_s[0] - ended_s <= 30.0
    assert not room.shown.green


def test_green_goes_out_while_a_nurse_has_announced_that_she_is_there(room):
    room.home.tell("absence", pump="p1", id="n-1", what="nurse_present", for_s=600)
    room.live(5)
    assert not room.shown.green, "what the pump does is not judged meanwhile"
    room.home.tell("absence", pump="p1", id="n-2", what="nurse_present", for_s=1)
    room.live(30)
    assert room.shown.green


def test_green_goes_out_with_a_card_that_refuses(room):
    card_refuses(room)
    room.live(MINUTE)
    assert not room.shown.green


def test_without_a_prescription_it_is_never_green(tmp_path):
    room = Room(tmp_path, None)
    room.live(20 * MINUTE)
    assert not any(signal.green for _, signal in room.signals)


def test_green_comes_back_by_itself_after_a_cut(room):
    no_network(room)
    room.live(3 * MINUTE)
    room.watched = True
    room.home.connect()
    room.live(30)
    assert room.says() == "green off off none"


# -- what only the home is told -------------------------------------------------------------------------


def test_a_router_that_starts_anew_at_night_disturbs_nobody(room):
    before = len(room.signals)
    no_network(room)
    room.live(3 * MINUTE)
    assert {signal.sound for _, signal in room.signals[before:]} == {"none"}
    assert room.says() == "- off off none"


@pytest.mark.parametrize(("order", "minutes"), [(VITAL, 5), (ORDER, 30)], ids=["vital", "timed"])
@pytest.mark.parametrize("end", [no_watch, no_network])
def test_that_nobody_can_be_told_or_nobody_watches_is_told_in_the_home_and_never_sent(
    tmp_path, order, minutes, end
):
    room = Room(tmp_path, order)
    room.live(20 * MINUTE)
    end(room)
    room.live((minutes - 1) * MINUTE)
    assert room.says() == "- off off none"
    room.live(2 * MINUTE)
    assert room.says() == "- steady off low"
    assert room.shown.call == 1
    if end is no_network:
        room.home.connect()
    room.watched = True
    room.live(30)
    assert room.says() == "green off off none"
    assert {alert["kind"] for alert in room.home.said("alert")} == set()


# -- alerts ---------------------------------------------------------------------------------------------


def test_an_alert_from_beginning_to_end(room):
    seen = []
    room.alarm = "occlusion_downstream"
    for minutes in (1, 10):
        room.live(minutes * MINUTE)
        seen.append(room.says())
    room.acknowledge("occlusion")
    room.live(1)
    seen.append(room.says())
    room.alarm = ""
    room.live(5 * MINUTE)
    seen.append(room.says().partition(" ")[2])
    assert seen == [
        "- flashing off none",  # the pump beeps, and is to be answered there
        "- flashing off medium",  # nobody has
        "- flashing off none",  # a nurse knows
        "off off none",
    ]


def test_an_alert_that_the_pump_does_not_beep_about_sounds_at_once(room):
    room.runs = False
    while "none" in room.says():
        room.live(1)
        assert room.now_s < 3_600
    assert (
        room.shown.sound
        == {"high": "high", "medium": "medium", "low": "low"}[room.home.said("alert")[-1]["priority"]]
    )


def test_a_press_holds_the_sound_off_for_two_minutes_to_the_millisecond(room):
    room.alarm = "occlusion_downstream"
    room.live(11 * MINUTE)
    assert room.shown.sound == "medium"
    pressed_s = room.now_s
    room.home.put(ButtonPressed)
    assert room.says() == "- flashing off none"
    before = len(room.signals)
    room.live(3 * MINUTE)
    sounds_s, signal = room.signals[before]
    assert signal.sound == "medium"
    assert 119.9 <= sounds_s - pressed_s <= 120.01


def test_a_held_button_calls_the_nurse_and_shows_until_she_answers(room):
    room.home.put(ButtonHeld)
    assert room.home.told("caregiver_call") == [(1, "active", "first")]
    assert room.home.alert("caregiver_call")["priority"] == "high"
    assert room.says() == "- off flashing none"
    room.home.put(ButtonHeld)
    assert room.home.told("caregiver_call")[-1] == (2, "active", "again")
    room.acknowledge("caregiver_call")
    assert room.home.told("caregiver_call")[-1] == (3, "closed", "acknowledged")
    assert room.says() == "green off off none"


def test_a_home_without_a_panel_is_shown_nothing(tmp_path):
    signals: list[object] = []
    home = Home(tmp_path, order=ORDER, observe=lambda happened, effects: signals.append(effects.panel))
    home.connect()
    home.put(ButtonPressed)
    home.wait(60)
    assert set(signals) == {None}
