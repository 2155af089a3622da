"""Change to message: which way out hears of what, and in what form (architecture, "The way out"; mqtt page).

Pure functions of what has been decided. A draft's payload is complete but for its number: ``seq`` is 0 until
the lane gives one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypedDict

import msgspec
from msgspec import Struct

from alerts import alert as life
from alerts import wire
from alerts.alert import AlertState
from alerts.condition import Urgency
from alerts.sink import Lane, Message
from drivers.reading import PumpState, Reading
from gateway.absences import Absence
from gateway.changes import Answered, EventHappened, OrderAnswered, PointTaken
from gateway.core.monitor import DeliveryStatus
from gateway.core.timeline import Moment
from gateway.lanes import Draft
from gateway.orders import KnownOrder

CLOSED_EXPIRY_S = 7 * 24 * 3600
"""How long the broker keeps a closed alert (mqtt page)."""
HISTORICAL_AFTER_MS = 60_000
TELEMETRY_POINTS_MAX = 100
_POINT_BYTES_MAX = 200
_BATCH_BYTES_MAX = 600
"""Of a batch without its points: topic, header and the fields that every message has."""
_NO_NUMBER_YET = 0


class Point(Struct, frozen=True, kw_only=True):
    """One telemetry point, dated only when it leaves: the clock may not have been set when it was taken."""

    t_ms: int
    uptime_ms: int
    state: str
    rate_ml_h: float | None
    volume_ml: float | None
    expected_ml: float | None
    delivered_ml: float | None
    pressure_mmhg: float | None


def uptime_ms(moment: Moment) -> int:
    """The machine's own clock, which every moment of a running gateway has."""
    assert moment.monotonic_ms is not None, "only recordings lack the machine's own clock"
    return moment.monotonic_ms


def points_that_fit(packet_bytes_max: int | None) -> int:
    """How many points a batch may have, so that the broker takes it (its Maximum Packet Size)."""
    if packet_bytes_max is None:
        return TELEMETRY_POINTS_MAX
    return max(1, min(TELEMETRY_POINTS_MAX, (packet_bytes_max - _BATCH_BYTES_MAX) // _POINT_BYTES_MAX))


def point(taken: PointTaken) -> Point:
    """What history keeps of a reading."""
    reading = taken.reading
    return Point(
        t_ms=taken.t_ms,
        uptime_ms=uptime_ms(taken.moment),
        state=reading.state,
        rate_ml_h=reading.rate_ml_h,
        volume_ml=reading.volume_ml,
        expected_ml=_ml(taken.status.expected_ml),
        delivered_ml=_ml(taken.status.delivered_ml),
        pressure_mmhg=reading.pressure_mmhg,
    )


def essence(
    reading: Reading | None, status: DeliveryStatus, link: str, absence: Absence | None = None
) -> tuple[object, ...]:
    """What of a pump's state is published at once when it changes.

    Volumes change all the time and do not count.
    """
    return (
        link,
        status.verdict,
        status.occurrence,
        absence and (absence.what, absence.until_t_ms),
        reading and (reading.state, reading.rate_ml_h, reading.alarms),
    )


def told(before: Mapping[str, int], numbered: Iterable[Message]) -> dict[str, int]:
    """Open alerts by ``rev``, as a reader knows them who has read these messages too."""
    after = dict(before)
    for message in numbered:
        place = wire.parse_topic(message.topic)
        if place is None or place.alert_id is None or is_void(message):
            continue
        alert = wire.decode(message.payload, wire.Alert)
        if alert.state == AlertState.CLOSED:
            after.pop(alert.alert_id, None)
        else:
            after[alert.alert_id] = alert.rev
    return after


def is_void(message: Message) -> bool:
    """Whether this is what went in the place of a message that the broker has refused."""
    try:
        wire.decode(message.payload, wire.Void)
    except wire.WireError:
        return False
    return True


class _SaidAt(TypedDict):
    """What every payload from a home begins with."""

    time: wire.UtcTime
    clock: wire.Clock
    boot: str


class _NumberedLater(_SaidAt):
    """And what a durable one has besides."""

    store: str
    lane: Lane
    seq: int


class Speaker(Struct, frozen=True, kw_only=True):
    """Who speaks: one home, one database, one start of the gateway."""

    home: str
    store: str
    boot: str

    def _said_at(self, utc_ms: int, synced: bool) -> _SaidAt:
        return {"time": wire.UtcTime(utc_ms), "clock": _clock(synced), "boot": self.boot}

    def _numbered_later(self, lane: Lane, utc_ms: int, synced: bool) -> _NumberedLater:
        return {**self._said_at(utc_ms, synced), "store": self.store, "lane": lane, "seq": _NO_NUMBER_YET}

    # -- durable messages, as drafts ---------------------------------------------------------------

    def alert(self, alert: life.Alert, t_ms: int, synced: bool) -> Draft:
        """The state of an alert; the newest that waits takes the place of an older one."""
        return Draft(
            key=f"alert/{alert.alert_id}",
            topic=wire.up(self.home, "alert", pump=alert.pump, alert_id=alert.alert_id),
            payload=wire.alert_payload(
                alert, clock_synced=synced, boot=self.boot, store=self.store, seq=_NO_NUMBER_YET
            ),
            made_t_ms=t_ms,
            retain=True,
            expiry_s=CLOSED_EXPIRY_S if alert.state is AlertState.CLOSED else None,
        )

    def event(self, happened: EventHappened, t_ms: int, synced: bool) -> Draft:
        """Something that is no alert. Each is told."""
        finding = happened.finding
        since = finding.since_utc_ms
        return Draft(
            key=f"event/{happened.pump}/{finding.kind}/{finding.code}/{finding.at_ms}/{finding.at_utc_ms}",
            topic=wire.up(self.home, "event", pump=happened.pump),
            payload=wire.encode(
                wire.Event(
                    **self._numbered_later(Lane.ALERTS, finding.at_utc_ms, synced),
                    kind=finding.kind,
                    message=finding.message,
                    code=finding.code,
                    expected_ml=_ml(finding.expected_ml),
                    delivered_ml=_ml(finding.delivered_ml),
                    since=None if since is None else wire.UtcTime(since),
                )
            ),
            made_t_ms=t_ms,
        )

    def answer(self, answered: Answered, t_ms: int, utc_ms: int, synced: bool) -> Draft:
        """What became of a request."""
        return Draft(
            key=f"answer/{answered.id}",
            topic=wire.up(self.home, "answer"),
            payload=wire.encode(
                wire.Answer(
                    **self._numbered_later(Lane.ALERTS, utc_ms, synced),
                    id=answered.id,
                    accepted=answered.reason is None,
                    reason=answered.reason,
                )
            ),
            made_t_ms=t_ms,
        )

    def order_keys(self, pump: str) -> str:
        """With what the keys of all answers to orders for a pump begin."""
        return f"order/{pump}/"

    def order(self, answered: OrderAnswered, t_ms: int, utc_ms: int, synced: bool) -> Draft:
        """What became of an order.

        Two orders as long as they may be can be more than a message may hold, if nearly every character of
        theirs is doubled in JSON. Then the text of the one in force is empty: its version and hash say which
        it is, and it has been told before.
        """
        answer = wire.OrderAnswer(
            **self._numbered_later(Lane.ALERTS, utc_ms, synced),
            id=answered.id,
            version=answered.version,
            sha256=answered.sha256,
            accepted=answered.reason is None,
            reason=answered.reason,
            message=answered.message,
            in_force=_order(answered.orders.in_force),
            waiting=_order(answered.orders.waiting),
            ended=answered.ended,
        )
        try:
            payload = wire.encode(answer)
        except wire.WireError:
            assert answer.in_force is not None, "one order alone is short enough"
            in_force = msgspec.structs.replace(answer.in_force, prescription="")
            payload = wire.encode(msgspec.structs.replace(answer, in_force=in_force))
        return Draft(
            key=f"{self.order_keys(answered.pump)}{answered.id}",
            topic=wire.up(self.home, "order", pump=answered.pump),
            payload=payload,
            made_t_ms=t_ms,
            retain=True,
        )

    def batch_key(self, pump: str, batch: int) -> str:
        """Under which a batch of points waits."""
        return f"telemetry/{pump}/{self.boot}/{batch}"

    def telemetry(
        self, pump: str, batch: int, points: Sequence[Point], now: Moment, *, made_t_ms: int
    ) -> Draft:
        """A batch of points; while it waits, the same batch with more points takes its place.

        Points are dated by the machine's own clock, backwards from now: unlike the time of the rules, it does
        not jump when the length of a power cut becomes known.
        """
        utc_ms, synced = now.utc_ms, now.synced
        return Draft(
            key=self.batch_key(pump, batch),
            topic=wire.up(self.home, "telemetry", pump=pump),
            payload=wire.encode(
                wire.Telemetry(
                    **self._numbered_later(Lane.TELEMETRY, utc_ms, synced),
                    historical=False,
                    points=tuple(
                        wire.TelemetryPoint(
                            time=wire.UtcTime(utc_ms - (uptime_ms(now) - taken.uptime_ms))
                            if synced
                            else None,
                            uptime_s=taken.uptime_ms / 1000,
                            state=taken.state,
                            rate_ml_h=taken.rate_ml_h,
                            volume_ml=taken.volume_ml,
                            expected_ml=taken.expected_ml,
                            delivered_ml=taken.delivered_ml,
                            pressure_mmhg=taken.pressure_mmhg,
                        )
                        for taken in points
                    ),
                )
            ),
            made_t_ms=made_t_ms,
        )

    def numbered(self, draft: Draft, seq: int, t_ms: int) -> bytes:
        """The payload of a draft under its number; from now on its bytes never change."""
        fields = msgspec.json.decode(draft.payload)
        fields["store"], fields["seq"] = self.store, seq
        if fields["lane"] == Lane.TELEMETRY:
            fields["historical"] = t_ms - draft.made_t_ms > HISTORICAL_AFTER_MS
        return msgspec.json.encode(fields)

    def void(self, utc_ms: int, lane: Lane, seq: int, reason: str) -> bytes:
        """What goes in the place of a message that the broker refuses for its content."""
        return wire.encode(
            wire.Void(time=wire.UtcTime(utc_ms), store=self.store, lane=lane, seq=seq, reason=reason)
        )

    # -- messages that are worth nothing when they are old -----------------------------------------

    def status(
        self, utc_ms: int, synced: bool, *, online: bool, version: str, pumps: tuple[str, ...]
    ) -> Message:
        """Whether the gateway is there; also its last will."""
        return Message(
            topic=wire.up(self.home, "status"),
            payload=wire.encode(
                wire.Status(
                    **self._said_at(utc_ms, synced),
                    online=online,
                    version=version,
                    pumps=pumps,
                    store=self.store,
                )
            ),
            retain=True,
        )

    def open(self, told_alerts: Mapping[str, int], as_of: int, utc_ms: int, synced: bool) -> Message:
        """The list of open alerts."""
        return Message(
            topic=wire.up(self.home, "open"),
            payload=wire.encode(
                wire.Open(
                    **self._said_at(utc_ms, synced),
                    store=self.store,
                    as_of=as_of,
                    alerts=tuple(sorted(told_alerts.items())),
                )
            ),
            retain=True,
        )

    def beat(
        self,
        utc_ms: int,
        synced: bool,
        *,
        told_alerts: Mapping[str, int],
        as_of: int,
        lanes: Mapping[Lane, tuple[int, int]],
        pumps: Mapping[str, tuple[str, int | None]],
    ) -> Message:
        """The sign of life, by which a board compares itself with the gateway. Not kept by anybody."""
        return Message(
            topic=wire.up(self.home, "beat"),
            payload=wire.encode(
                wire.Beat(
                    **self._said_at(utc_ms, synced),
                    store=self.store,
                    open=len(told_alerts),
                    digest=wire.digest(told_alerts.items()),
                    as_of=as_of,
                    lanes={
                        name: wire.LaneRange(oldest=oldest, next=next_)
                        for name, (oldest, next_) in lanes.items()
                    },
                    pumps={
                        pump: wire.PumpLink(link=link, age_s=_seconds(age_ms))
                        for pump, (link, age_ms) in pumps.items()
                    },
                )
            ),
            qos=0,
        )

    def state(
        self,
        pump: str,
        utc_ms: int,
        synced: bool,
        *,
        reading: Reading | None,
        age_ms: int | None,
        status: DeliveryStatus,
        urgency: Urgency,
        origin: str,
        driver_status: str,
        absence: tuple[str, int] | None = None,
    ) -> Message:
        """How a pump is now. ``absence``: what has been announced, and until when on the wall clock."""
        due = status.occurrence[1] if status.occurrence is not None else None
        return Message(
            topic=wire.up(self.home, "state", pump=pump),
            payload=wire.encode(
                wire.State(
                    **self._said_at(utc_ms, synced),
                    state=reading.state if reading is not None else PumpState.UNKNOWN,
                    rate_ml_h=reading.rate_ml_h if reading is not None else None,
                    volume_ml=reading.volume_ml if reading is not None else None,
                    vtbi_ml=reading.vtbi_ml if reading is not None else None,
                    pressure_mmhg=reading.pressure_mmhg if reading is not None else None,
                    battery_percent=reading.battery_percent if reading is not None else None,
                    alarms=reading.alarms if reading is not None else None,
                    expected_ml=_ml(status.expected_ml),
                    delivered_ml=_ml(status.delivered_ml),
                    ends_at=_at(status.ends_at_utc_ms),
                    bag_empty_at=_at(status.bag_empty_at_utc_ms),
                    verdict=status.verdict,
                    decidable_after_s=status.decidable_after_s,
                    occlusion_blind_s=status.occlusion_blind_s,
                    occurrence=wire.Occurrence(number=status.occurrence[0], due=_at(due))
                    if status.occurrence is not None
                    else None,
                    absence=wire.AbsenceNow(what=absence[0], until=wire.UtcTime(absence[1]))
                    if absence is not None
                    else None,
                    urgency=urgency,
                    origin=origin,
                    driver_status=driver_status,
                    reading_age_s=_seconds(age_ms),
                )
            ),
            retain=True,
        )


def _clock(synced: bool) -> wire.Clock:
    return wire.Clock.SYNCED if synced else wire.Clock.UNSYNCED


def _order(known: KnownOrder | None) -> wire.OrderInForce | None:
    if known is None:
        return None
    return wire.OrderInForce(version=known.version, sha256=known.sha256, prescription=known.text)


def _at(utc_ms: int | None) -> wire.UtcTime | None:
    return None if utc_ms is None else wire.UtcTime(utc_ms)


def _ml(volume_ml: float | None) -> float | None:
    return None if volume_ml is None else round(volume_ml, 3)


def _seconds(duration_ms: int | None) -> float | None:
    return None if duration_ms is None else duration_ms / 1000
