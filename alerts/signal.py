"""What the caregiver's panel shows and sounds: computed from the whole book, then played in time.

``panel_signal`` says what is to be seen and heard now; ``Player`` makes levels of lamps and buzzer of it, at
any time it is asked for. Flash rates and bursts lie within IEC 60601-1-8 (tables of visual and auditory
signals); a lamp and a buzzer make no conformant alarm system, and the pump's own alarm comes first.

The highest priority wins. Acknowledged: no sound, the lamp goes on. Latched: neither sound nor flash. Green
is called "watched, nothing found": not knowing is never good news.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from enum import StrEnum

from msgspec import Struct

from alerts.alert import Alert, AlertState, Reason
from alerts.catalogue import row
from alerts.condition import Kind, Priority, Urgency

SILENCE_MS = 120_000
"""A press of the button holds the sound off for so long, and never longer (audio pause, infusion pumps)."""
PUMP_ALONE_FOR_VITAL_MS = 180_000
PUMP_ALONE_FOR_MS = 600_000
"""So long the pump's own alarm is left to be answered before the panel sounds beside it."""
BREATH_MS = 2_500
"""Between what sounded and a lower sound in its place: the shortest pause between two bursts."""
LAMP_TEST_MS = 1_000
"""After a start all lamps are lit for so long, that a broken one is noticed."""
REFRESHED_WITHIN_MS = 10_000
"""Green goes out when the gateway has not confirmed what is shown for so long: its loop stands still."""


class Lamp(StrEnum):
    """What a lamp does."""

    OFF = "off"
    STEADY = "steady"
    FLASHING = "flashing"


class Sound(StrEnum):
    """Which burst sounds; each is that of the priority of its name."""

    NONE = "none"
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"


class PanelSignal(Struct, frozen=True, kw_only=True):
    """What the panel is to show and to sound, until the next one. All dark: nothing is known."""

    green: bool = False
    yellow: Lamp = Lamp.OFF
    red: Lamp = Lamp.OFF
    sound: Sound = Sound.NONE
    call: int = 0
    """Rises with each alert that sounds anew: a low burst is given once for each."""
    silent_until_t_ms: int | None = None
    """While somebody holds the sound off; what is new or worse sounds all the same."""


class Silence(Struct, frozen=True, kw_only=True):
    """A press of the button: what sounded then is silent until this time."""

    until_t_ms: int
    of: frozenset[tuple[str, Priority]]
    """(alert or kind, priority), as they sounded when the button was pressed."""


class Picture(Struct, frozen=True, kw_only=True):
    """All that the panel's signal follows from."""

    t_ms: int
    alerts: tuple[Alert, ...]
    """All that are not closed."""
    beeping: frozenset[str] = frozenset()
    """Ids of alerts of what a pump itself is in alarm about at this moment."""
    local: tuple[Kind, ...] = ()
    """Kinds that are shown in the home only, where they hold."""
    pumps_well: bool
    """Of each pump: heard just now, and on plan or nothing due."""
    watched: bool
    connected: bool
    storage_ok: bool
    silence: Silence | None = None


class Audible(Struct, frozen=True, kw_only=True):
    """One thing that sounds."""

    name: str
    """The alert's id, or a local kind."""
    rev: int
    """Of the last time that it was told to sound."""
    priority: Priority


def panel_signal(picture: Picture, *, call: int = 0) -> PanelSignal:
    """What is to be seen and heard."""
    seen = _seen(picture)
    heard = max((one.priority.rank for one in audible(picture)), default=0)
    silence = picture.silence
    silent = silence is not None and picture.t_ms < silence.until_t_ms
    return PanelSignal(
        green=(
            not picture.alerts
            and not picture.local
            and picture.pumps_well
            and picture.watched
            and picture.connected
            and picture.storage_ok
        ),
        yellow=_YELLOW.get(seen, Lamp.OFF) if seen is not None else Lamp.OFF,
        red=Lamp.FLASHING if seen is Priority.HIGH else Lamp.OFF,
        sound=_SOUND[heard],
        call=call,
        silent_until_t_ms=silence.until_t_ms if silent and silence is not None else None,
    )


def audible(picture: Picture) -> list[Audible]:
    """What sounds now: told, not acknowledged, not held off, and not left to the pump's own alarm."""
    silence = picture.silence
    held_off = silence.of if silence is not None and picture.t_ms < silence.until_t_ms else frozenset()
    would = [
        *(
            Audible(name=alert.alert_id, rev=alert.answerable_rev, priority=alert.priority)
            for alert in picture.alerts
            if alert.state is AlertState.ACTIVE
            and alert.kind not in _MADE_IN_THE_HOME
            and not _is_left_to_the_pump(alert, picture)
        ),
        *(Audible(name=kind, rev=1, priority=row(kind).priority(Urgency.VITAL)) for kind in picture.local),
    ]
    return [one for one in would if (one.name, one.priority) not in held_off]


def silence(picture: Picture) -> Silence | None:
    """What a press of the button makes of what sounds; ``None`` if nothing does.

    What is to come cannot be silenced. A further press begins two minutes anew, for what sounds then too.
    """
    now = {(one.name, one.priority) for one in audible(picture)}
    before = picture.silence
    if before is not None and picture.t_ms < before.until_t_ms:
        now |= before.of
    if not now:
        return None
    return Silence(until_t_ms=picture.t_ms + SILENCE_MS, of=frozenset(now))


def silence_goes_on(before: Silence | None, picture: Picture) -> Silence | None:
    """The silence as it still is: over when its time is up, and for whatever has stopped by itself.

    So what comes back, or is told again after an acknowledgement has run out, sounds.
    """
    if before is None or picture.t_ms >= before.until_t_ms:
        return None
    stands = {
        *((alert.alert_id, alert.priority) for alert in picture.alerts if alert.state is AlertState.ACTIVE),
        *((kind, row(kind).priority(Urgency.VITAL)) for kind in picture.local),
    }
    of = frozenset(before.of & stands)
    return Silence(until_t_ms=before.until_t_ms, of=of) if of else None


def left_to_the_pump_until_t_ms(alert: Alert) -> int | None:
    """Until when the pump's own alarm is left to be answered; ``None``: nobody has answered in time.

    Counted from when the alert was told first, or again; not after it has escalated, has grown worse, or its
    acknowledgement has run out.
    """
    if alert.reason not in (Reason.FIRST, Reason.AGAIN) or alert.escalates_at_ms is None:
        return None
    told_t_ms = alert.escalates_at_ms - alert.respond_within_s * 1000
    alone_ms = PUMP_ALONE_FOR_VITAL_MS if alert.urgency is Urgency.VITAL else PUMP_ALONE_FOR_MS
    return told_t_ms + alone_ms


def _is_left_to_the_pump(alert: Alert, picture: Picture) -> bool:
    until_t_ms = left_to_the_pump_until_t_ms(alert)
    return alert.alert_id in picture.beeping and until_t_ms is not None and picture.t_ms < until_t_ms


def _seen(picture: Picture) -> Priority | None:
    """The priority that the lamps show; what only waits to be looked at is shown as low."""
    told = [
        alert.priority
        for alert in picture.alerts
        if alert.state in (AlertState.ACTIVE, AlertState.ACKNOWLEDGED)
    ]
    if told:
        return max(told, key=lambda priority: priority.rank)
    return Priority.LOW if picture.alerts or picture.local else None


_MADE_IN_THE_HOME = frozenset({Kind.CAREGIVER_CALL})
"""Shown until it is answered, but silent: who has called need not be called."""
_YELLOW = {Priority.MEDIUM: Lamp.FLASHING, Priority.LOW: Lamp.STEADY}
_SOUND = (Sound.NONE, Sound.LOW, Sound.MEDIUM, Sound.HIGH)
"""By rank of priority."""


# -- in time --------------------------------------------------------------------------------------------


class Burst(Struct, frozen=True, kw_only=True):
    """One burst: its pulses and parts from its beginning, and the pause before the next."""

    pulses: tuple[tuple[int, int], ...]
    parts: tuple[tuple[int, int], ...]
    """What is finished once it has begun, however short the event: half of a high burst, else all."""
    pause_ms: int | None
    """From its end to the beginning of the next; ``None``: it is not repeated."""

    @property
    def length_ms(self) -> int:
        """From the first pulse to the end of the last."""
        return self.pulses[-1][1]


def _burst(pulse_ms: int, parts: Iterable[Collection[int]], between_ms: int, pause_ms: int | None) -> Burst:
    """``parts``: of each, the gaps between its pulses; ``between_ms``: the gap between two parts."""
    pulses: list[tuple[int, int]] = []
    spans: list[tuple[int, int]] = []
    at_ms = 0
    for gaps in parts:
        began_ms = at_ms
        for gap_ms in (*gaps, between_ms):
            pulses.append((at_ms, at_ms + pulse_ms))
            at_ms += pulse_ms + gap_ms
        spans.append((began_ms, pulses[-1][1]))
    return Burst(pulses=tuple(pulses), parts=tuple(spans), pause_ms=pause_ms)


BURSTS: dict[Sound, Burst] = {
    Sound.HIGH: _burst(150, ((100, 100, 350, 100),) * 2, 800, 5_000),
    Sound.MEDIUM: _burst(200, ((200, 200),), 0, 7_500),
    Sound.LOW: _burst(200, ((200,),), 0, None),
}
"""Pulses of 150 ms in two fives; three of 200 ms; two of 200 ms, once."""

FLASHES_MS: dict[str, tuple[int, int]] = {"red": (500, 250), "yellow": (1_667, 833)}
"""Period and how much of it is lit: 2 Hz for high, 0.6 Hz for medium."""

_LOUDNESS = list(_SOUND)


class Levels(Struct, frozen=True, kw_only=True):
    """Which of the panel's parts are on."""

    green: bool = False
    yellow: bool = False
    red: bool = False
    buzzer: bool = False


class Player:
    """Plays signals. It owns no clock: all times are milliseconds on one that only goes forward."""

    def __init__(self, now_ms: int) -> None:
        self._signal = PanelSignal()
        self._lamps_since_ms = now_ms
        self._tested_at_ms = now_ms + LAMP_TEST_MS
        self._refreshed_ms = now_ms
        self._sound = Sound.NONE
        self._sound_since_ms = now_ms
        self._ends_at_ms: int | None = None
        """When what sounds gives way to what the signal says."""

    def refresh(self, now_ms: int) -> None:
        """Whoever decides is alive: what is shown holds."""
        self._refreshed_ms = now_ms

    def show(self, signal: PanelSignal, now_ms: int) -> None:
        """From now on this signal. What has begun to sound is finished first, unless a person silences it."""
        self._settle(now_ms)
        before, self._signal = self._signal, signal
        if (before.yellow, before.red) != (signal.yellow, signal.red):
            self._lamps_since_ms = now_ms
        pressed = signal.silent_until_t_ms not in (None, before.silent_until_t_ms)
        if signal.sound is self._sound and not pressed:
            self._ends_at_ms = None
            burst = BURSTS.get(self._sound)
            over = burst is not None and now_ms - self._sound_since_ms >= burst.length_ms
            if signal.call != before.call and over and burst is not None and burst.pause_ms is None:
                self._begin(signal.sound, now_ms)
        elif pressed or _LOUDNESS.index(signal.sound) > _LOUDNESS.index(self._sound):
            self._begin(signal.sound, now_ms)
        else:
            self._ends_at_ms = self._part_ends_ms(now_ms)
            self._settle(now_ms)

    def levels(self, now_ms: int) -> Levels:
        """Which parts are on at this time."""
        self._settle(now_ms)
        if now_ms < self._tested_at_ms:
            return Levels(green=True, yellow=True, red=True, buzzer=self._buzzer(now_ms))
        signal = self._signal
        return Levels(
            green=signal.green and now_ms - self._refreshed_ms < REFRESHED_WITHIN_MS,
            yellow=self._lamp("yellow", signal.yellow, now_ms),
            red=self._lamp("red", signal.red, now_ms),
            buzzer=self._buzzer(now_ms),
        )

    def next_change_ms(self, now_ms: int) -> int | None:
        """When the levels may change next without another signal; ``None``: they stay."""
        self._settle(now_ms)
        times = [self._tested_at_ms, self._ends_at_ms]
        if self._signal.green:
            times.append(self._refreshed_ms + REFRESHED_WITHIN_MS)
        for name, lamp in (("yellow", self._signal.yellow), ("red", self._signal.red)):
            if lamp is Lamp.FLASHING:
                period_ms, lit_ms = FLASHES_MS[name]
                into_ms = (now_ms - self._lamps_since_ms) % period_ms
                times.append(now_ms + (lit_ms if into_ms < lit_ms else period_ms) - into_ms)
        times.append(self._next_pulse_edge_ms(now_ms))
        return min((time_ms for time_ms in times if time_ms is not None and time_ms > now_ms), default=None)

    def _begin(self, sound: Sound, at_ms: int) -> None:
        self._sound, self._sound_since_ms, self._ends_at_ms = sound, at_ms, None

    def _settle(self, now_ms: int) -> None:
        if self._ends_at_ms is not None and now_ms >= self._ends_at_ms:
            self._begin(self._signal.sound, self._ends_at_ms + BREATH_MS)

    def _into_burst_ms(self, now_ms: int) -> tuple[Burst, int] | None:
        burst = BURSTS.get(self._sound)
        if burst is None:
            return None
        into_ms = now_ms - self._sound_since_ms
        if into_ms < 0 or burst.pause_ms is None:
            return burst, into_ms
        return burst, into_ms % (burst.length_ms + burst.pause_ms)

    def _part_ends_ms(self, now_ms: int) -> int:
        found = self._into_burst_ms(now_ms)
        if found is not None:
            burst, into_ms = found
            for begins_ms, ends_ms in burst.parts:
                if begins_ms <= into_ms < ends_ms:
                    return now_ms + ends_ms - into_ms
        return now_ms

    def _next_pulse_edge_ms(self, now_ms: int) -> int | None:
        found = self._into_burst_ms(now_ms)
        if found is None:
            return None
        burst, into_ms = found
        edges = [edge_ms for pulse in burst.pulses for edge_ms in pulse]
        if burst.pause_ms is not None:
            edges.append(burst.length_ms + burst.pause_ms)
        return min((now_ms + edge_ms - into_ms for edge_ms in edges if edge_ms > into_ms), default=None)

    def _buzzer(self, now_ms: int) -> bool:
        found = self._into_burst_ms(now_ms)
        return found is not None and any(on_ms <= found[1] < off_ms for on_ms, off_ms in found[0].pulses)

    def _lamp(self, name: str, lamp: Lamp, now_ms: int) -> bool:
        if lamp is not Lamp.FLASHING:
            return lamp is Lamp.STEADY
        period_ms, lit_ms = FLASHES_MS[name]
        return (now_ms - self._lamps_since_ms) % period_ms < lit_ms


# -- the button -----------------------------------------------------------------------------------------


class Press(StrEnum):
    """What a person does with the button."""

    SHORT = "short"
    LONG = "long"


SETTLES_MS = 50
"""A contact bounces: it counts once it has been the same for so long."""
LONG_PRESS_MS = 3_000


class Button:
    """Makes presses of what a bouncing contact shows. One that is stuck from the start makes none."""

    def __init__(self, down: bool, now_ms: int) -> None:
        self._raw, self._raw_since_ms = down, now_ms
        self._down = down
        self._down_since_ms: int | None = None
        """Of a press that has not been told yet."""

    def contact(self, down: bool, now_ms: int) -> Press | None:
        """The contact as it is now: a press, once it is known to be one.

        A short one when it is released, a long one as soon as it has lasted.
        """
        if down is not self._raw:
            self._raw, self._raw_since_ms = down, now_ms
        if self._raw is not self._down and now_ms - self._raw_since_ms >= SETTLES_MS:
            self._down = self._raw
            began_ms, self._down_since_ms = self._down_since_ms, self._raw_since_ms if self._down else None
            if not self._down and began_ms is not None:
                return Press.SHORT
        if self._down and self._down_since_ms is not None and now_ms - self._down_since_ms >= LONG_PRESS_MS:
            self._down_since_ms = None
            return Press.LONG
        return None

    def next_look_ms(self) -> int | None:
        """When to look again although the contact has not moved."""
        if self._raw is not self._down:
            return self._raw_since_ms + SETTLES_MS
        return None if self._down_since_ms is None else self._down_since_ms + LONG_PRESS_MS
