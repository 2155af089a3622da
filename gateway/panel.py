"""What the engine knows, as the caregiver's panel needs it, and what the panel remembers.

It remembers who has held the sound off, and since when nobody can be told. It decides nothing about alerts.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from msgspec.structs import replace

from alerts.alert import Alert
from alerts.condition import Kind, Urgency
from alerts.signal import (
    PanelSignal,
    Picture,
    Silence,
    audible,
    left_to_the_pump_until_t_ms,
    panel_signal,
    silence,
    silence_goes_on,
)
from drivers.reading import PumpState
from gateway.core.monitor import DeliveryStatus, DeliveryVerdict
from gateway.pump import WatchedPump

GREEN_HOLDS_MS = 30_000
"""What green rests on may be so old: the last word of a pump, and of whoever watches."""
_TOLD_AFTER_MIN = {Urgency.VITAL: 5, Urgency.CRITICAL: 15, Urgency.TIMED: 30, Urgency.ROUTINE: 60}
"""How long nobody may be reached before the home is told: as long as a dashboard waits before it raises
``home_unreachable`` (mqtt page). A router that starts anew at night disturbs nobody."""
_SAID_BY_THE_PUMP = frozenset({Kind.OCCLUSION, Kind.BAG_EMPTY, Kind.PUMP_ALARM})


class Panel:
    """The panel of one home, as the engine sees it. Times are the engine's continuous ``t_ms``."""

    def __init__(self) -> None:
        self._silence: Silence | None = None
        self._heard: frozenset[tuple[str, int]] = frozenset()
        self._call = 0
        self._shown: PanelSignal | None = None
        self._pressed = False
        self._cut_off_since_uptime_ms: int | None = None
        self._unwatched_since_uptime_ms: int | None = None
        self.next_wake_t_ms: int | None = None
        """When the signal may change though nothing happens."""

    def pressed(self) -> None:
        """Somebody asks for silence: it holds from the next picture on."""
        self._pressed = True

    def signal(
        self,
        t_ms: int,
        uptime_ms: int,
        *,
        alerts: Iterable[Alert],
        pumps: Collection[tuple[WatchedPump, DeliveryStatus]],
        urgency: Urgency,
        has_broker: bool,
        connected: bool,
        watched_t_ms: int | None,
        storage_ok: bool,
    ) -> PanelSignal | None:
        """What to show from now on; ``None`` if that is what is shown already."""
        alerts = tuple(alerts)
        watched_until_t_ms = None if watched_t_ms is None else watched_t_ms + GREEN_HOLDS_MS
        watched = connected and watched_until_t_ms is not None and t_ms < watched_until_t_ms
        picture = Picture(
            t_ms=t_ms,
            alerts=alerts,
            beeping=frozenset(_beeping(alerts, pumps, uptime_ms)),
            local=self._local(uptime_ms, urgency, has_broker, connected, watched),
            pumps_well=bool(pumps) and all(_is_well(pump, status, uptime_ms) for pump, status in pumps),
            watched=watched,
            connected=connected,
            storage_ok=storage_ok,
            silence=self._silence,
        )
        if self._pressed:
            self._pressed = False
            picture = replace(picture, silence=silence(picture))
        self._silence = silence_goes_on(picture.silence, picture)
        picture = replace(picture, silence=self._silence)
        heard = frozenset((one.name, one.rev) for one in audible(picture))
        if heard - self._heard:
            self._call += 1
        self._heard = heard
        wakes = [
            watched_until_t_ms,
            self._silence.until_t_ms if self._silence is not None else None,
            *(
                t_ms + GREEN_HOLDS_MS - age_ms
                for pump, _ in pumps
                if (age_ms := pump.age_ms(uptime_ms)) is not None
            ),
            *(
                t_ms + since_ms + _told_after_ms(urgency) - uptime_ms
                for since_ms in (self._cut_off_since_uptime_ms, self._unwatched_since_uptime_ms)
                if since_ms is not None
            ),
            *(
                left_to_the_pump_until_t_ms(alert)
                for alert in picture.alerts
                if alert.alert_id in picture.beeping
            ),
        ]
        self.next_wake_t_ms = min((wake for wake in wakes if wake is not None and wake > t_ms), default=None)
        signal = panel_signal(picture, call=self._call)
        if signal == self._shown:
            return None
        self._shown = signal
        return signal

    def _local(
        self, uptime_ms: int, urgency: Urgency, has_broker: bool, connected: bool, watched: bool
    ) -> tuple[Kind, ...]:
        """What is told in the home only: that nobody can be told, or that nobody looks."""
        cut_off = has_broker and not connected
        self._cut_off_since_uptime_ms = _since(self._cut_off_since_uptime_ms, cut_off, uptime_ms)
        unwatched = not cut_off and not watched
        self._unwatched_since_uptime_ms = _since(self._unwatched_since_uptime_ms, unwatched, uptime_ms)
        return tuple(
            kind
            for kind, since_ms in (
                (Kind.BROKER_UNREACHABLE, self._cut_off_since_uptime_ms),
                (Kind.NOBODY_WATCHING, self._unwatched_since_uptime_ms),
            )
            if since_ms is not None and uptime_ms - since_ms >= _told_after_ms(urgency)
        )


def _told_after_ms(urgency: Urgency) -> int:
    return _TOLD_AFTER_MIN[urgency] * 60_000


def _since(before_ms: int | None, holds: bool, now_ms: int) -> int | None:
    if not holds:
        return None
    return now_ms if before_ms is None else before_ms


def _is_well(pump: WatchedPump, status: DeliveryStatus, uptime_ms: int) -> bool:
    """Whether the pump was heard just now and either is on plan or has nothing to do.

    Not too early to tell, and not silent because nothing is due: not knowing is never good news.
    """
    age_ms = pump.age_ms(uptime_ms)
    return (
        pump.link(uptime_ms) == "up"
        and age_ms is not None
        and age_ms < GREEN_HOLDS_MS
        and pump.reading is not None
        and pump.reading.state not in (PumpState.UNKNOWN, PumpState.ALARM)
        and status.verdict in (DeliveryVerdict.ON_PLAN, DeliveryVerdict.NOT_EXPECTED)
    )


def _beeping(
    alerts: Iterable[Alert], pumps: Iterable[tuple[WatchedPump, DeliveryStatus]], uptime_ms: int
) -> Iterable[str]:
    """Alerts that repeat what a pump is in alarm about at this moment."""
    readings = {
        pump.setup.pump: pump.reading
        for pump, _ in pumps
        if pump.reading is not None and pump.link(uptime_ms) == "up"
    }
    for alert in alerts:
        reading = readings.get(alert.pump)
        if reading is None or alert.kind not in _SAID_BY_THE_PUMP:
            continue
        if reading.state is PumpState.ALARM or alert.code in (reading.alarms or ()):
            yield alert.alert_id
