"""What the dashboard holds to be so: a pure fold of what has arrived.

``fold(board, fact) -> board`` and nothing else changes a board. Times are the dashboard's own monotonic
milliseconds (``at_ms``), because a home's clock may be wrong; ``at_utc_ms`` is for people only.

Of an alert the highest ``rev`` holds, whatever the order and however often it comes; a retained message
updates an alert by its ``rev`` and says nothing of the present (mqtt page). What is shown of it, and what is
too old to be shown as the present, is worked out in views.py.
"""

from __future__ import annotations

from bisect import bisect_left
from hashlib import sha256

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from alerts import wire
from alerts.alert import AlertState
from alerts.dashboard.chart import Point

POINTS_MAX = 1_500
"""Per pump: twelve hours and more at a point each 30 s, and the minutes before in finer steps."""
HAPPENINGS_MAX = 20
REVISIONS_MAX = 64
CLOSED_ALERTS_MAX = 1_000
DEEDS_MAX = 200
HOMES_MAX = 2_000
"""More are not shown, and the page says so."""
LONG_AGO_S = 100 * 366 * 86_400
"""As old as anything can be said to be."""
NOT_SENT = "not_sent"
"""Why an acknowledgement was not accepted: there was no connection."""
REFUSED_BY_BROKER = "refused_by_broker"
"""Likewise: the broker's access list does not let this dashboard write to the home."""
PUMPS_MAX = 64
"""Of one home. More, also of open alerts, is a fault of the sender: not shown, and the page says so."""
OPEN_ALERTS_MAX = 500

FromHome = (
    wire.Status
    | wire.Beat
    | wire.Open
    | wire.State
    | wire.Telemetry
    | wire.Alert
    | wire.Event
    | wire.OrderAnswer
    | wire.Vitals
    | wire.Answer
)
"""Every payload that a board understands."""


class KnownAlert(Struct, frozen=True, kw_only=True):
    """One alert: its newest revision, and which revisions have been seen with what content."""

    newest: wire.Alert
    contents: frozenset[tuple[int, str]] = frozenset()

    @property
    def is_open(self) -> bool:
        """Whether it belongs on the board; a state that is not known does."""
        return self.newest.state != AlertState.CLOSED.value

    @property
    def is_contradicted(self) -> bool:
        """Whether one revision came with two contents: two gateways speak for this home."""
        revisions = [rev for rev, _ in self.contents]
        return len(revisions) != len(set(revisions))


class KnownPump(Struct, frozen=True, kw_only=True):
    """The last that came of one pump."""

    state: wire.State | None = None
    state_at_ms: int | None = None
    """When it came. None: it was retained, so nobody knows how old it is."""
    read_at_utc_ms: int | None = None
    """When the numbers of ``state`` were read from the pump."""
    points: tuple[Point, ...] = ()
    order: wire.OrderAnswer | None = None
    """The newest that was told of its orders, without their texts: those are in the store."""


class Happening(Struct, frozen=True, kw_only=True):
    """Something that is no alert: an ``info`` event, a caregiver's entry, an order."""

    utc_ms: int
    pump: str | None
    words: str


class KnownHome(Struct, frozen=True, kw_only=True):
    """The last that came of one home."""

    first_heard_ms: int
    """When it was first heard of, in whatever way."""
    first_heard_utc_ms: int
    status: wire.Status | None = None
    offline_since_ms: int | None = None
    """When the last will, or a goodbye, came while we listened; None after the next beat."""
    beat: wire.Beat | None = None
    beat_at_ms: int | None = None
    beat_at_utc_ms: int | None = None
    open_list: wire.Open | None = None
    disagreements: int = 0
    """How many beats in a row have shown another set of open alerts than ours."""
    is_compared: bool = False
    """Whether any beat since the start could be compared with what we hold."""
    closed_here: frozenset[tuple[str, int]] = frozenset()
    """(alert_id, rev) of orphans that somebody here has closed."""
    cleared_alerts: frozenset[str] = frozenset()
    """Open alerts whose retained copy was cleared: a reason to ask, not to close."""
    resync_asked_ms: int | None = None
    boots: tuple[str, ...] = ()
    """The starts of the gateway whose beats we heard, oldest first, each once."""
    boots_went_back: int = 0
    """How often a beat came from an earlier start than the one before: two gateways speak for this home."""
    pumps: dict[str, KnownPump] = {}
    alerts: dict[str, KnownAlert] = {}
    happenings: tuple[Happening, ...] = ()
    has_more: bool = False
    """Whether it has more open alerts or pumps than are kept here."""


class Deed(Struct, frozen=True, kw_only=True):
    """An acknowledgement that somebody here has given, and what became of it."""

    deed_id: str
    home: str
    alert_id: str
    rev: int
    by: str
    role: str
    at_ms: int
    at_utc_ms: int
    is_with_broker: bool = False
    accepted: bool | None = None
    """What the gateway has answered; None: nothing yet."""
    reason: str | None = None


class Board(Struct, frozen=True, kw_only=True):
    """All homes, and whether we can hear them."""

    subscribed_ms: int | None = None
    """Since when the broker sends us what comes; None: it does not."""
    lost_broker_utc_ms: int | None = None
    broker_words: str = ""
    """Why there is no connection, in words."""
    homes: dict[str, KnownHome] = {}
    has_more_homes: bool = False
    """Whether more homes report than are kept here."""
    deeds: dict[str, Deed] = {}


# Facts: what may happen to a board.


class Arrived(Struct, frozen=True, kw_only=True):
    """A message of a home that could be read."""

    topic: wire.Topic
    message: FromHome
    at_ms: int
    at_utc_ms: int
    retained: bool = False


class Cleared(Struct, frozen=True, kw_only=True):
    """An empty payload: the broker's copy is gone, and nothing else."""

    topic: wire.Topic


class Subscribed(Struct, frozen=True, kw_only=True):
    """The broker has granted the subscription."""

    at_ms: int


class Disconnected(Struct, frozen=True, kw_only=True):
    """The broker is gone, or refuses us."""

    at_utc_ms: int
    words: str


class DeedDone(Struct, frozen=True, kw_only=True):
    """Somebody has acknowledged."""

    deed: Deed


class DeedWithBroker(Struct, frozen=True, kw_only=True):
    """The broker has taken the message over, or refused it."""

    deed_id: str
    is_refused: bool


class ResyncAsked(Struct, frozen=True, kw_only=True):
    """We have asked a home for all its open alerts."""

    home: str
    at_ms: int


class ClosedHere(Struct, frozen=True, kw_only=True):
    """Somebody has looked into an orphan and closed it; a higher revision would show it again."""

    home: str
    alert_id: str
    rev: int


Fact = Arrived | Cleared | ClosedHere | Subscribed | Disconnected | DeedDone | DeedWithBroker | ResyncAsked


def fold(board: Board, fact: Fact) -> Board:
    """The board after ``fact``. Pure; the board that was handed in stays as it is."""
    match fact:
        case Arrived():
            return _arrived(board, fact)
        case Cleared(topic=topic):
            home = board.homes.get(topic.home)
            known = home.alerts.get(topic.alert_id) if home and topic.alert_id else None
            if home is None or known is None or not known.is_open:
                return board
            cleared = home.cleared_alerts | {known.newest.alert_id}
            return _with_home(board, topic.home, replace(home, cleared_alerts=cleared))
        case ClosedHere(home=name, alert_id=alert_id, rev=rev):
            home = board.homes.get(name)
            if home is None:
                return board
            return _with_home(board, name, replace(home, closed_here=home.closed_here | {(alert_id, rev)}))
        case Subscribed(at_ms=at_ms):
            return replace(board, subscribed_ms=at_ms, lost_broker_utc_ms=None, broker_words="")
        case Disconnected(at_utc_ms=at_utc_ms, words=words):
            since = board.lost_broker_utc_ms if board.subscribed_ms is None else None
            return replace(
                board,
                subscribed_ms=None,
                lost_broker_utc_ms=at_utc_ms if since is None else since,
                broker_words=words,
            )
        case DeedDone(deed=deed):
            deeds = {**board.deeds, deed.deed_id: deed}
            return replace(board, deeds=dict(list(deeds.items())[-DEEDS_MAX:]))
        case DeedWithBroker(deed_id=deed_id, is_refused=True):
            return _with_deed(board, deed_id, accepted=False, reason=REFUSED_BY_BROKER)
        case DeedWithBroker(deed_id=deed_id):
            return _with_deed(board, deed_id, is_with_broker=True)
        case ResyncAsked(home=name, at_ms=at_ms):
            home = board.homes.get(name)
            if home is None:
                return board
            asked = replace(home, resync_asked_ms=at_ms, cleared_alerts=frozenset())
            return _with_home(board, name, asked)


def _arrived(board: Board, fact: Arrived) -> Board:
    name = fact.topic.home
    home = board.homes.get(name)
    if home is None:
        if len(board.homes) >= HOMES_MAX:
            return board if board.has_more_homes else replace(board, has_more_homes=True)
        home = KnownHome(first_heard_ms=fact.at_ms, first_heard_utc_ms=fact.at_utc_ms)
    message = fact.message
    match message:
        case wire.Alert():
            home = _with_alert(home, message)
        case wire.Beat():
            home = home if fact.retained else _with_beat(home, message, fact)
        case wire.Status():
            home = _with_status(home, message, fact)
        case wire.Open():
            home = _with_open_list(home, message)
        case wire.State():
            home = _with_state(home, message, fact)
        case wire.Telemetry():
            home = _with_points(home, fact.topic.pump, _points(message))
        case wire.Answer():
            board = _with_deed(board, message.id, accepted=message.accepted, reason=message.reason)
        case wire.OrderAnswer():
            home = _with_happening(_with_order(home, message, fact.topic.pump), fact)
        case wire.Event() | wire.Vitals():
            home = _with_happening(home, fact)
    return _with_home(board, name, home)


def _with_home(board: Board, name: str, home: KnownHome) -> Board:
    return replace(board, homes={**board.homes, name: home})


def _with_deed(board: Board, deed_id: str, **changes: object) -> Board:
    deed = board.deeds.get(deed_id)
    if deed is None:
        return board
    return replace(board, deeds={**board.deeds, deed_id: replace(deed, **changes)})


# Alerts


def _content(message: wire.Alert) -> str:
    """A digest of all of a revision but its number: a resync sends the same bytes but for that, and while the
    card of the gateway refuses, under another store.
    """
    return sha256(msgspec.json.encode(replace(message, store="", seq=1), enc_hook=str)).hexdigest()


def _order(message: wire.Alert) -> tuple[int, int, str, int]:
    """The highest ``rev`` holds; of one ``rev`` the later ``time``; the rest only makes it a total order."""
    return (message.rev, message.time.utc_ms, _content(message), message.seq)


def _with_alert(home: KnownHome, message: wire.Alert) -> KnownHome:
    known = home.alerts.get(message.alert_id)
    if known is None and _is_full(home.alerts):
        return replace(home, has_more=True)
    contents = frozenset() if known is None else known.contents
    contents = _highest_revisions(contents | {(message.rev, _content(message))})
    newest = message if known is None else max(known.newest, message, key=_order)
    alerts = {**home.alerts, message.alert_id: KnownAlert(newest=newest, contents=contents)}
    return replace(
        home, alerts=_without_old_closed(alerts), cleared_alerts=home.cleared_alerts - {message.alert_id}
    )


def _is_full(alerts: dict[str, KnownAlert]) -> bool:
    if len(alerts) < OPEN_ALERTS_MAX:
        return False
    return sum(known.is_open for known in alerts.values()) >= OPEN_ALERTS_MAX


def _highest_revisions(contents: frozenset[tuple[int, str]]) -> frozenset[tuple[int, str]]:
    return contents if len(contents) <= REVISIONS_MAX else frozenset(sorted(contents)[-REVISIONS_MAX:])


def _without_old_closed(alerts: dict[str, KnownAlert]) -> dict[str, KnownAlert]:
    closed = [known for known in alerts.values() if not known.is_open]
    if len(closed) <= CLOSED_ALERTS_MAX:
        return alerts
    oldest = min(closed, key=lambda known: (known.newest.time.utc_ms, known.newest.alert_id))
    return {alert_id: known for alert_id, known in alerts.items() if known is not oldest}


def open_alerts(home: KnownHome) -> tuple[KnownAlert, ...]:
    """What of this home belongs on the board."""
    return tuple(
        known
        for known in home.alerts.values()
        if known.is_open and (known.newest.alert_id, known.newest.rev) not in home.closed_here
    )


def _with_open_list(home: KnownHome, listed: wire.Open) -> KnownHome:
    """The newest list of a store holds, however late an older one comes."""
    before = home.open_list
    is_older = before is not None and (before.store, before.as_of > listed.as_of) == (listed.store, True)
    return home if is_older else replace(home, open_list=listed)


def is_orphan(home: KnownHome, known: KnownAlert) -> bool:
    """Whether the gateway no longer has an alert that we have open (mqtt page, ``open``)."""
    listed = home.open_list
    if listed is None or not known.is_open:
        return False
    newest = known.newest
    if any(entry[0] == newest.alert_id for entry in listed.alerts):
        return False
    return newest.store != listed.store or newest.seq < listed.as_of


# The beat


def _with_beat(home: KnownHome, beat: wire.Beat, fact: Arrived) -> KnownHome:
    went_back = home.boots_went_back
    boots = home.boots
    if not boots or boots[-1] != beat.boot:
        went_back += beat.boot in boots
        boots = (*(seen for seen in boots if seen != beat.boot), beat.boot)[-16:]
    agrees = _agrees(home, beat)
    return replace(
        home,
        beat=beat,
        beat_at_ms=fact.at_ms,
        beat_at_utc_ms=fact.at_utc_ms,
        offline_since_ms=None,
        boots=boots,
        boots_went_back=went_back,
        disagreements=home.disagreements if agrees is None else 0 if agrees else home.disagreements + 1,
        is_compared=home.is_compared or agrees is not None,
        has_more=home.has_more and not (agrees and len(home.pumps) < PUMPS_MAX),
    )


def _agrees(home: KnownHome, beat: wire.Beat) -> bool | None:
    """Whether we have the same alerts open as the gateway; None: we have newer ones than the beat."""
    ours = [known.newest for known in home.alerts.values() if not is_orphan(home, known)]
    if any(alert.store == beat.store and alert.seq > beat.as_of for alert in ours):
        return None
    still_open = [(alert.alert_id, alert.rev) for alert in ours if alert.state != AlertState.CLOSED.value]
    return len(still_open) == beat.open and wire.digest(still_open) == beat.digest


def _with_status(home: KnownHome, status: wire.Status, fact: Arrived) -> KnownHome:
    is_goodbye = not status.online and not fact.retained
    return replace(home, status=status, offline_since_ms=fact.at_ms if is_goodbye else home.offline_since_ms)


# Pumps


def _with_state(home: KnownHome, state: wire.State, fact: Arrived) -> KnownHome:
    pump = fact.topic.pump
    if pump is None:
        return home
    known = home.pumps.get(pump, KnownPump())
    if fact.retained and known.state_at_ms is not None:
        return home
    age_ms = round(min(max(state.reading_age_s or 0.0, 0.0), LONG_AGO_S) * 1_000)
    home = _with_pump(
        home,
        pump,
        replace(
            known,
            state=state,
            state_at_ms=None if fact.retained else fact.at_ms,
            read_at_utc_ms=(state.time.utc_ms if fact.retained else fact.at_utc_ms) - age_ms,
        ),
    )
    if fact.retained:
        return home
    read = Point(state.time.utc_ms - age_ms, state.expected_ml, state.delivered_ml)
    # That nothing is known any more is no reading: it is so from now on.
    return _with_points(home, pump, (Point(state.time.utc_ms) if read.is_empty else read,))


def _points(message: wire.Telemetry) -> tuple[Point, ...]:
    return tuple(
        Point(point.time.utc_ms, point.expected_ml, point.delivered_ml)
        for point in message.points
        if point.time is not None
    )


def _with_points(home: KnownHome, pump: str | None, points: tuple[Point, ...]) -> KnownHome:
    if pump is None or not points:
        return home
    known = home.pumps.get(pump, KnownPump())
    if len(points) == 1 and (not known.points or points[0].time_utc_ms > known.points[-1].time_utc_ms):
        # nearly always: the newest of all
        newest = (*known.points[-POINTS_MAX + 1 :], *points)
        return _with_pump(home, pump, replace(known, points=newest))
    # What is earlier than all of these stays as it is: points come late, but seldom by much.
    first = bisect_left(known.points, min(map(_time, points)), key=_time)
    by_time = {point.time_utc_ms: point for point in (*known.points[first:], *points)}
    newest = (*known.points[:first], *sorted(by_time.values(), key=_time))[-POINTS_MAX:]
    return _with_pump(home, pump, replace(known, points=newest))


def _time(point: Point) -> int:
    return point.time_utc_ms


def _with_order(home: KnownHome, answer: wire.OrderAnswer, pump: str | None) -> KnownHome:
    """The newest of a store holds, however late an older one comes."""
    if pump is None:
        return home
    known = home.pumps.get(pump, KnownPump())
    before = known.order
    if before is not None and (before.store, before.seq > answer.seq) == (answer.store, True):
        return home
    without_texts = replace(
        answer, in_force=_without_text(answer.in_force), waiting=_without_text(answer.waiting)
    )
    return _with_pump(home, pump, replace(known, order=without_texts))


def _without_text(order: wire.OrderInForce | None) -> wire.OrderInForce | None:
    return None if order is None else replace(order, prescription="")


def _with_pump(home: KnownHome, pump: str, known: KnownPump) -> KnownHome:
    if pump not in home.pumps and len(home.pumps) >= PUMPS_MAX:
        return replace(home, has_more=True)
    return replace(home, pumps={**home.pumps, pump: known})


# What happened


def _with_happening(home: KnownHome, fact: Arrived) -> KnownHome:
    happening = Happening(
        utc_ms=fact.message.time.utc_ms,
        pump=fact.topic.pump,
        words=_words(fact.message),
    )
    if happening in home.happenings:
        return home
    newest = sorted((*home.happenings, happening), key=lambda each: (each.utc_ms, each.words))
    return replace(home, happenings=tuple(newest[-HAPPENINGS_MAX:]))


def _words(message: FromHome) -> str:
    match message:
        case wire.Event():
            return message.message or message.kind
        case wire.OrderAnswer(accepted=True):
            return f"Order version {message.version} accepted. {message.message}".strip()
        case wire.OrderAnswer():
            return f"Order version {message.version} refused ({message.reason}). {message.message}".strip()
        case wire.Vitals():
            values = ", ".join(f"{value.name} {value.value:g} {value.unit}" for value in message.values)
            return f"Entered by {message.by}: {values}"
    return ""
