"""What people are shown of a board at a moment: words, order, and what is too old to be the present.

Pure. Old numbers never stand without a mark: everything of a home is ``unknown`` until a beat has arrived
since we subscribed, after 30 s without one, while its link to the pump is other than up, and with a state
older than 90 s (mqtt page). All by arrival, on the dashboard's own monotonic clock.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from msgspec import Struct

from alerts import catalogue, wire
from alerts.alert import AlertState, Reason
from alerts.condition import Kind, Priority, Urgency
from alerts.dashboard.board import (
    HOMES_MAX,
    LONG_AGO_S,
    NOT_SENT,
    REFUSED_BY_BROKER,
    Board,
    Deed,
    Happening,
    KnownAlert,
    KnownHome,
    KnownPump,
    is_orphan,
    open_alerts,
)
from alerts.dashboard.chart import Chart, Point, chart
from alerts.dashboard.store import Notice

BEAT_SILENT_AFTER_MS = 30_000
STATE_OLD_AFTER_MS = 90_000
DISAGREEMENTS_BEFORE_RESYNC = 2
RESYNC_EVERY_MS = 60_000
UNREACHABLE_AFTER_MS = {
    Urgency.VITAL: 5 * 60_000,
    Urgency.CRITICAL: 15 * 60_000,
    Urgency.TIMED: 30 * 60_000,
    Urgency.ROUTINE: 60 * 60_000,
}
TOGETHER_MS = 60_000
"""Homes whose last beats are this close fell silent together: one incident."""
ANSWER_EXPECTED_WITHIN_MS = 20_000
CHART_SPAN_MS = 6 * 3_600_000


class Who(Struct, frozen=True, kw_only=True):
    """Who has acknowledged, as the gateway has confirmed it."""

    by: str
    at_utc_ms: int
    until_utc_ms: int | None


class Outcome(Struct, frozen=True, kw_only=True):
    """What became of an acknowledgement that was given here."""

    kind: str
    """``waiting``, ``late`` (no answer for long) or ``refused``."""
    words: str


class AlertRow(Struct, frozen=True, kw_only=True):
    """One open alert."""

    anchor: str
    home: str
    pump: str
    alert_id: str
    rev: int
    kind: str
    code: str | None
    priority: Priority
    priority_words: str
    title: str
    message: str
    state: str
    state_words: str
    level_words: str
    since_utc_ms: int | None
    raised_utc_ms: int
    respond_by_utc_ms: int | None
    acknowledged: Who | None
    doubt: str
    """Why this may not be how things are, or empty."""
    outcome: Outcome | None
    may_adopt: bool
    """Whether another pump answers, and may be taken as the patient's."""
    button: str
    """What the button says; empty if there is nothing to acknowledge."""
    is_orphan: bool
    """Whether the button closes it here, because its gateway no longer knows it."""
    link: str
    origin: str
    not_for_care: bool


class NoticeRow(Struct, frozen=True, kw_only=True):
    """Something this dashboard itself has to say."""

    anchor: str
    home: str
    key: str
    """Empty: it goes when its cause has gone, and nobody can close it."""
    priority: Priority
    priority_words: str
    title: str
    message: str
    since_utc_ms: int


class Fact(Struct, frozen=True, kw_only=True):
    """One named figure of a pump."""

    name: str
    value: str = ""
    utc_ms: int | None = None
    style: str = "time"


class PumpView(Struct, frozen=True, kw_only=True):
    """One pump."""

    anchor: str
    pump: str
    is_known: bool
    verdict: str
    verdict_words: str
    why: str
    volume_words: str
    as_of_utc_ms: int | None
    facts: tuple[Fact, ...]
    chart: Chart | None
    origin: str
    not_for_care: bool


class HomeView(Struct, frozen=True, kw_only=True):
    """One home."""

    anchor: str
    home: str
    is_heard: bool
    words: str
    heard_utc_ms: int | None
    pumps: tuple[PumpView, ...]
    happenings: tuple[Happening, ...]


class BoardView(Struct, frozen=True, kw_only=True):
    """The whole page."""

    connection: str
    doubts: tuple[str, ...]
    alerts: tuple[AlertRow, ...]
    notices: tuple[NoticeRow, ...]
    homes: tuple[HomeView, ...]
    empty_words: str

    @property
    def cards(self) -> tuple[AlertRow | NoticeRow, ...]:
        """Alerts and what the dashboard itself has to say, the most urgent first."""
        return tuple(
            sorted(
                (*self.notices, *self.alerts),
                key=lambda card: (
                    -card.priority.rank,
                    _STATE_ORDER.get(card.state, 0) if isinstance(card, AlertRow) else 0,
                ),
            )
        )


def view(board: Board, notices: Sequence[Notice], now_ms: int, storage_words: str = "") -> BoardView:
    """All that the board's page shows at ``now_ms``; ``storage_words`` say why nothing can be stored."""
    silences = {name: why_home_unknown(board, home, now_ms) for name, home in board.homes.items()}
    return BoardView(
        connection=_connection(board),
        doubts=(*((storage_words,) if storage_words else ()), *_doubts(board)),
        alerts=alert_rows(board, now_ms),
        notices=_notice_rows(board, notices, now_ms),
        homes=tuple(
            _home_view(name, home, silences[name], now_ms) for name, home in sorted(board.homes.items())
        ),
        empty_words=_empty_words(board, silences),
    )


# Whether we know


def _connection(board: Board) -> str:
    if board.subscribed_ms is not None:
        return ""
    why = f" {board.broker_words}" if board.broker_words else ""
    return (
        f"This dashboard has no connection to the broker.{why} Nothing below is up to date, and new alerts "
        "do not come through. Look at the pumps by other means."
    )


def why_home_unknown(board: Board, home: KnownHome, now_ms: int) -> str:
    """Why nothing of this home may be shown as the present; empty if it may."""
    if board.subscribed_ms is None:
        return "this dashboard has no connection to the broker"
    is_offline = home.status is not None and not home.status.online
    if home.offline_since_ms is not None:
        return "the connection of the home's gateway has ended"
    if home.beat_at_ms is None or home.beat_at_ms < board.subscribed_ms:
        return (
            "the home's gateway is not connected"
            if is_offline
            else "waiting for the home's gateway to report"
        )
    if now_ms - home.beat_at_ms > BEAT_SILENT_AFTER_MS:
        return "nothing has come from the home's gateway for more than 30 s"
    return ""


def _why_pump_unknown(home: KnownHome, pump: str, now_ms: int) -> str:
    link = home.beat.pumps.get(pump) if home.beat else None
    if link is None:
        return "the home's gateway does not report this pump"
    if link.link != "up":
        words = {
            "down": "the gateway has no connection to the pump: is its cable plugged in?",
            "silent": "the pump does not answer the gateway: is it switched on?",
            "garbled": "the gateway cannot read what the pump sends: is the cable sound?",
        }
        return words.get(link.link, f"the link to the pump is {link.link!r}")
    known = home.pumps.get(pump)
    if home.beat is None or known is None or known.state is None or known.state_at_ms is None:
        return "waiting for the pump's state"
    # What the broker has kept for us while we were away is old when it comes: by the gateway's own clock.
    lag_ms = home.beat.time.utc_ms - known.state.time.utc_ms
    if max(now_ms - known.state_at_ms, lag_ms) > STATE_OLD_AFTER_MS:
        return "the pump's last state is older than 90 s"
    return ""


def wants_resync(home: KnownHome, now_ms: int) -> bool:
    """Whether to ask the gateway for all its open alerts now: at most once a minute."""
    if home.resync_asked_ms is not None and now_ms - home.resync_asked_ms < RESYNC_EVERY_MS:
        return False
    return home.disagreements >= DISAGREEMENTS_BEFORE_RESYNC or bool(home.cleared_alerts)


def _doubts(board: Board) -> tuple[str, ...]:
    beyond = [
        f"Home {name} has more pumps or open alerts than this dashboard can show: some are missing below. "
        "Telephone the home, and whoever looks after its gateway."
        for name, home in sorted(board.homes.items())
        if home.has_more
    ]
    if board.has_more_homes:
        beyond.append(
            f"More than {HOMES_MAX} homes report to this dashboard: some are not shown at all. Tell whoever "
            "runs it."
        )
    return *beyond, *_incomplete(board)


def _incomplete(board: Board) -> tuple[str, ...]:
    return tuple(
        f"Home {name}: this list is not complete. Its gateway has other open alerts than are shown here; "
        "it has been asked to send them again."
        for name, home in sorted(board.homes.items())
        if home.disagreements >= DISAGREEMENTS_BEFORE_RESYNC
    )


def _empty_words(board: Board, silences: dict[str, str]) -> str:
    if board.subscribed_ms is None:
        return (
            "No alert is known here, but this dashboard hears nothing: we do not know whether there are any."
        )
    unknown = sorted(
        name
        for name, why in silences.items()
        if why
        or not board.homes[name].is_compared
        or board.homes[name].disagreements
        or board.homes[name].has_more
    )
    if not silences:
        return "No home has reported yet: we do not know whether there are any alerts."
    if unknown:
        return f"No alert is known here, but we do not know of {_listed('home', unknown)}."
    return (
        "No open alerts. The gateways of all homes say the same. This says nothing of what a pump cannot "
        "count: look below at what each pump reports."
    )


def _listed(noun: str, names: Sequence[str]) -> str:
    if len(names) == 1:
        return f"{noun} {names[0]}"
    return f"{noun}s {', '.join(names[:-1])} and {names[-1]}"


# Alerts

_PRIORITY_WORDS = {
    Priority.HIGH: "HIGH",
    Priority.MEDIUM: "Medium",
    Priority.LOW: "Low",
    Priority.INFO: "Information",
}


def priority(text: str | None) -> Priority:
    """The priority of an alert; one that is not known, or not said, is the highest."""
    return Priority(text) if text in set(Priority) else Priority.HIGH


def priority_words(text: str | None) -> str:
    """How a priority is said; one that is not known as its text, with the highest, as which it counts."""
    found = _PRIORITY_WORDS[priority(text)]
    return found if text in set(Priority) else f"{found} ({text or 'priority not given'})"


_STATE_ORDER = {"active": 0, "acknowledged": 1, "latched": 2}
_REFUSALS = {
    "stale_rev": "it has become worse or has been told again since this page showed it. Look at it as it "
    "is now, and acknowledge that.",
    "too_old": "it arrived too late. Please acknowledge again.",
    "unknown_alert": "the gateway does not know this alert.",
    "closed": "it is closed already.",
    "not_allowed": "the gateway does not allow it.",
    NOT_SENT: "there is no connection to the broker, so nothing was sent. Please try again.",
    REFUSED_BY_BROKER: "the broker does not let this dashboard write to the home. Tell whoever runs it.",
}


def alert_rows(board: Board, now_ms: int) -> tuple[AlertRow, ...]:
    """The open alerts: highest priority first, then unanswered, then most escalated, then oldest."""
    rows = [
        alert_row(board, name, known, now_ms)
        for name, home in board.homes.items()
        for known in open_alerts(home)
    ]
    levels = {
        (name, known.newest.alert_id): known.newest.level
        for name, home in board.homes.items()
        for known in home.alerts.values()
    }
    return tuple(
        sorted(
            rows,
            key=lambda row: (
                -row.priority.rank,
                _STATE_ORDER.get(row.state, 0),
                -levels[row.home, row.alert_id],
                row.raised_utc_ms,
                row.home,
                row.alert_id,
            ),
        )
    )


def alert_row(board: Board, name: str, known: KnownAlert, now_ms: int) -> AlertRow:
    """How one alert is shown."""
    home = board.homes[name]
    newest = known.newest
    outcome = _outcome(board, name, newest, now_ms)
    acknowledged = _who(newest)
    return AlertRow(
        anchor=f"alert-{name}-{newest.alert_id}",
        home=name,
        pump=newest.pump,
        alert_id=newest.alert_id,
        rev=newest.rev,
        kind=newest.kind,
        code=newest.code.replace("_", " ") if newest.code else None,
        priority=priority(newest.priority),
        priority_words=priority_words(newest.priority),
        title=title(newest.kind),
        message=newest.message,
        state=newest.state,
        state_words=_state_words(newest),
        level_words=level_words(newest.level) if newest.state == AlertState.ACTIVE else "",
        since_utc_ms=_utc_ms(newest.since),
        raised_utc_ms=newest.raised.utc_ms,
        respond_by_utc_ms=_respond_by(newest),
        acknowledged=acknowledged if newest.state == AlertState.ACKNOWLEDGED else None,
        doubt=_alert_doubt(board, home, known, now_ms),
        outcome=outcome,
        may_adopt=newest.kind == Kind.WRONG_PUMP and newest.state != AlertState.LATCHED,
        button=_button(board, home, known, outcome),
        is_orphan=is_orphan(home, known),
        link=f"/alert/{name}/{newest.alert_id}",
        origin=_origin(home, newest.pump),
        not_for_care=_is_not_for_care(home, newest.pump),
    )


def _is_not_for_care(home: KnownHome, pump: str) -> bool:
    """Whether its driver is not known to be proved; of the gateway, whether that of any pump is not."""
    states = [
        known.state.driver_status if known.state else None
        for name, known in home.pumps.items()
        if pump in (name, wire.GATEWAY)
    ]
    return not states or any(status != "proved" for status in states)


def _origin(home: KnownHome, pump: str) -> str:
    """Of the pump, or of an alert about the gateway: ``real`` unless no pump of the home is."""
    state = home.pumps.get(pump, KnownPump()).state
    if state is not None:
        return state.origin or "real"
    origins = {known.state.origin for known in home.pumps.values() if known.state}
    return origins.pop() or "real" if len(origins) == 1 else "real"


def _alert_doubt(board: Board, home: KnownHome, known: KnownAlert, now_ms: int) -> str:
    if is_orphan(home, known):
        return (
            "The home's gateway no longer knows this alert. It stays here until somebody who has looked "
            "into it closes it."
        )
    why = why_home_unknown(board, home, now_ms)
    if why:
        return f"How this stands now is unknown: {why}."
    return ""


def _button(board: Board, home: KnownHome, known: KnownAlert, outcome: Outcome | None) -> str:
    if is_orphan(home, known):
        return "I have looked into it: close"
    if outcome is not None and outcome.kind == "waiting":
        return ""
    if known.newest.state == AlertState.LATCHED:
        return "Seen: acknowledge and close"
    if known.newest.state == AlertState.ACKNOWLEDGED:
        return "Acknowledge again (holds longer)"
    return "Acknowledge" if known.is_open else ""


def _outcome(board: Board, name: str, newest: wire.Alert, now_ms: int) -> Outcome | None:
    still_said = [
        deed
        for deed in board.deeds.values()
        if (deed.home, deed.alert_id) == (name, newest.alert_id)
        and (deed.rev >= newest.rev or (deed.accepted is False and newest.state == AlertState.ACTIVE))
    ]
    latest = max(still_said, key=lambda deed: deed.at_ms, default=None)
    if latest is None:
        return None
    if latest.accepted is False:
        why = _REFUSALS.get(latest.reason or "", f"the gateway says {latest.reason!r}.")
        return Outcome(kind="refused", words=f"Not acknowledged: {why}")
    sent = f"Acknowledgement of {latest.by} sent, waiting for the gateway."
    if latest.accepted:
        words = f"Acknowledgement of {latest.by} accepted, waiting for the gateway's confirmation."
        return Outcome(kind="waiting", words=words)
    if is_on_its_way(latest, now_ms):
        return Outcome(kind="waiting", words=sent)
    return Outcome(
        kind="late",
        words=f"{sent} No answer has come yet: the home may be cut off, and it does not know that somebody "
        "has seen this. Telephone the home, or acknowledge once more.",
    )


def is_on_its_way(deed: Deed, now_ms: int) -> bool:
    """Whether the home's answer can still be on its way: until then nobody need send it again."""
    return deed.accepted is None and now_ms - deed.at_ms < ANSWER_EXPECTED_WITHIN_MS


def _who(newest: wire.Alert) -> Who | None:
    given = newest.acknowledged
    if given is None:
        return None
    return Who(by=given.by, at_utc_ms=given.at.utc_ms, until_utc_ms=_utc_ms(given.until))


def _respond_by(newest: wire.Alert) -> int | None:
    """Until when somebody should answer, counted from the revision that asked for it."""
    if newest.state != AlertState.ACTIVE:
        return None
    return newest.time.utc_ms + newest.respond_within_s * 1_000


def _utc_ms(moment: wire.UtcTime | None) -> int | None:
    return None if moment is None else moment.utc_ms


def title(kind: str) -> str:
    """The catalogue's words; of a kind that is not known its own text."""
    try:
        return catalogue.row(Kind(kind)).title
    except ValueError:
        return kind


def level_words(level: int) -> str:
    """How often nobody has answered."""
    if level <= 0:
        return ""
    times = {1: "once", 2: "twice"}.get(level, f"{level} times")
    return f"Nobody answered: escalated {times}"


_REASON_WORDS = {
    Reason.FIRST.value: "raised",
    Reason.AGAIN.value: "it has come back",
    Reason.WORSE.value: "it has become worse",
    Reason.REPEATED.value: "told again: the acknowledgement has run out and it still stands",
    Reason.ESCALATED.value: "nobody has answered in time: escalated",
    Reason.ACKNOWLEDGED.value: "acknowledged",
    Reason.RESOLVED.value: "the condition has gone",
    Reason.WITHDRAWN.value: "taken out of the gateway's configuration",
}


def reason_words(reason: str, state: str) -> str:
    """Why a revision was sent, in words; a reason that is not known as its text."""
    words = _REASON_WORDS.get(reason, reason)
    return f"{words}, closed" if state == AlertState.CLOSED else words


def _state_words(newest: wire.Alert) -> str:
    words = {
        "active": "nobody has acknowledged it",
        "acknowledged": "acknowledged; it still stands",
        "latched": "over, and waits to be seen",
        "closed": "closed",
    }.get(newest.state, newest.state)
    if newest.state == AlertState.LATCHED and newest.reason == Reason.WITHDRAWN:
        return "no longer watched: taken out of the gateway's configuration"
    if newest.state == AlertState.ACTIVE and newest.reason in (Reason.AGAIN, Reason.WORSE, Reason.REPEATED):
        return f"{words} ({_REASON_WORDS[newest.reason]})"
    return words


class HistoryEntry(Struct, frozen=True, kw_only=True):
    """One revision of an alert."""

    rev: int
    utc_ms: int
    what: str
    priority_words: str
    level_words: str
    message: str
    acknowledged: Who | None


def history_entry(message: wire.Alert) -> HistoryEntry:
    """One line of an alert's history."""
    return HistoryEntry(
        rev=message.rev,
        utc_ms=message.time.utc_ms,
        what=reason_words(message.reason, message.state).capitalize(),
        priority_words=priority_words(message.priority),
        level_words=level_words(message.level),
        message=message.message,
        acknowledged=_who(message) if message.reason == Reason.ACKNOWLEDGED else None,
    )


def without_repeats(history: Sequence[HistoryEntry]) -> tuple[HistoryEntry, ...]:
    """Each revision once, though a resync may have sent it again."""
    return tuple(dict.fromkeys(history))


# What the dashboard itself has to say


class Unreachable(Struct, frozen=True, kw_only=True):
    """Homes of which nothing comes, and which fell silent together."""

    homes: tuple[str, ...]
    urgency: Urgency
    since_utc_ms: int


def unreachable(board: Board, now_ms: int) -> tuple[Unreachable, ...]:
    """``home_unreachable``: no beat for as long as the highest urgency in the home allows (mqtt page).

    It cannot be acknowledged: an acknowledgement is what the home's gateway has confirmed, and there is none
    to confirm it. It goes with the next beat.
    """
    silent: list[tuple[int, int, str, Urgency]] = []
    for name, home in board.homes.items():
        heard_ms = home.first_heard_ms if home.beat_at_ms is None else home.beat_at_ms
        heard_utc_ms = home.first_heard_utc_ms if home.beat_at_utc_ms is None else home.beat_at_utc_ms
        urgency = _urgency(home)
        if now_ms - heard_ms < UNREACHABLE_AFTER_MS[urgency]:
            continue
        if urgency is Urgency.ROUTINE and not _is_running_or_due(home):
            continue
        silent.append((heard_ms, heard_utc_ms, name, urgency))
    incidents: list[list[tuple[int, int, str, Urgency]]] = []
    for each in sorted(silent):
        if incidents and each[0] - incidents[-1][-1][0] <= TOGETHER_MS:
            incidents[-1].append(each)
        else:
            incidents.append([each])
    return tuple(
        Unreachable(
            homes=tuple(sorted(name for _, _, name, _ in incident)),
            urgency=catalogue.highest_urgency(urgency for _, _, _, urgency in incident),
            since_utc_ms=min(utc_ms for _, utc_ms, _, _ in incident),
        )
        for incident in incidents
    )


def _urgency(home: KnownHome) -> Urgency:
    """The highest in the last states; one that is not known counts as vital."""
    urgencies = []
    for known in home.pumps.values():
        if known.state is not None:
            said = known.state.urgency
            urgencies.append(Urgency(said) if said in set(Urgency) else Urgency.VITAL)
    return catalogue.highest_urgency(urgencies)


def _is_running_or_due(home: KnownHome) -> bool:
    states = [known.state for known in home.pumps.values() if known.state]
    return not states or any(state.verdict != "not_expected" or state.state == "running" for state in states)


def _notice_rows(board: Board, notices: Sequence[Notice], now_ms: int) -> tuple[NoticeRow, ...]:
    rows = [
        NoticeRow(
            anchor=f"unreachable-{'-'.join(incident.homes)}"[:80],
            home=incident.homes[0],
            key="",
            priority=(priority := catalogue.row(Kind.HOME_UNREACHABLE).priority(incident.urgency)),
            priority_words=_PRIORITY_WORDS[priority],
            title=title(Kind.HOME_UNREACHABLE),
            message=f"Nothing has come from {_listed('home', incident.homes)}. What happens there is "
            "unknown: telephone, and look at the pump by other means. This stays until the home reports "
            "again.",
            since_utc_ms=incident.since_utc_ms,
        )
        for incident in unreachable(board, now_ms)
    ]
    for notice in notices:
        priority = _notice_priority(board, notice)
        rows.append(
            NoticeRow(
                anchor=f"notice-{notice.home}-{notice.key}",
                home=notice.home,
                key=notice.key,
                priority=priority,
                priority_words=_PRIORITY_WORDS[priority],
                title=f"{_NOTICE_TITLES.get(notice.kind) or title(notice.kind)}: home {notice.home}",
                message=notice.message,
                since_utc_ms=notice.raised_utc_ms,
            )
        )
    return tuple(sorted(rows, key=lambda row: (-row.priority.rank, row.since_utc_ms, row.anchor)))


_NOTICE_TITLES = {"unreadable": "A message could not be read", "numbers_lost": "Messages are missing"}


def _notice_priority(board: Board, notice: Notice) -> Priority:
    """As of ``duplicate_gateway``: what could not be read, or is missing, may have been the worst."""
    home = board.homes.get(notice.home)
    return catalogue.row(Kind.DUPLICATE_GATEWAY).priority(Urgency.VITAL if home is None else _urgency(home))


# Homes and pumps


def _home_view(name: str, home: KnownHome, silence: str, now_ms: int) -> HomeView:
    pumps = sorted(set(home.pumps) | set(home.beat.pumps if home.beat else ()))
    return HomeView(
        anchor=f"home-{name}",
        home=name,
        is_heard=not silence,
        words=f"Unknown: {silence}." if silence else "Its gateway reports.",
        heard_utc_ms=home.beat_at_utc_ms,
        pumps=tuple(_pump_view(name, home, pump, silence, now_ms) for pump in pumps),
        happenings=tuple(reversed(home.happenings)),
    )


_VERDICT_WORDS = {
    "on_plan": "Pump on plan",
    "deviation": "Not as ordered",
    "too_early": "Too early to tell",
    "not_expected": "Nothing due now",
    "unknown": "Unknown",
}


def _pump_view(name: str, home: KnownHome, pump: str, silence: str, now_ms: int) -> PumpView:
    why = silence or _why_pump_unknown(home, pump, now_ms)
    known = home.pumps.get(pump, KnownPump())
    state = known.state
    verdict = state.verdict if state is not None and not why else "unknown"
    words = _VERDICT_WORDS.get(verdict, verdict)
    return PumpView(
        anchor=f"pump-{name}-{pump}",
        pump=pump,
        is_known=not why,
        verdict=verdict if verdict in _VERDICT_WORDS else "unknown",
        verdict_words=f"Unknown: {why}" if why else words,
        why="" if why or state is None else _explanation(state),
        volume_words="" if state is None else _volume_words(state),
        as_of_utc_ms=known.read_at_utc_ms,
        facts=_facts(home, known, pump),
        chart=chart(_recent(known.points)),
        origin=(state.origin or "real") if state else "real",
        not_for_care=_is_not_for_care(home, pump),
    )


def _recent(points: tuple[Point, ...]) -> tuple[Point, ...]:
    return tuple(p for p in points if p.time_utc_ms >= points[-1].time_utc_ms - CHART_SPAN_MS)


def _explanation(state: wire.State) -> str:
    if state.absence is not None:
        return (
            f"Announced: {state.absence.what.replace('_', ' ')}. What the pump does meanwhile is not judged."
        )
    match state.verdict:
        case "on_plan":
            return "It counts what was ordered. That says nothing of what reaches the patient."
        case "too_early":
            if state.decidable_after_s is None:
                return "At this rate a deviation cannot be told from the pump's steps."
            return f"A deviation could be told in about {_duration(state.decidable_after_s)}."
        case "unknown":
            return "The gateway cannot judge it: no prescription, no reading, or nobody knows what is due."
    return ""


def _volume_words(state: wire.State) -> str:
    if state.delivered_ml is None and state.expected_ml is None:
        return ""
    if state.expected_ml is None:
        return f"Pump counted {_ml(state.delivered_ml)}"
    if state.delivered_ml is None:
        return f"{_ml(state.expected_ml)} expected by now; what the pump counted is not known"
    return f"Pump counted {_ml(state.delivered_ml)} of {_ml(state.expected_ml)} expected by now"


def _ml(volume_ml: float | None) -> str:
    if volume_ml is None:
        return "unknown"
    return f"{volume_ml:.1f} mL" if abs(volume_ml) >= 10 else f"{volume_ml:.2f} mL"


_LINK_WORDS = {"up": "in order", "down": "no connection", "silent": "no answer", "garbled": "cannot be read"}
_PUMP_STATE_WORDS = {"kvo": "keeping the vein open (KVO)"}


def _facts(home: KnownHome, known: KnownPump, pump: str) -> tuple[Fact, ...]:
    state = known.state
    facts: list[Fact] = []
    link = home.beat.pumps.get(pump) if home.beat else None
    if state is not None:
        if state.absence is not None:
            facts.append(
                Fact(
                    name=f"Announced, {state.absence.what.replace('_', ' ')}: until",
                    utc_ms=state.absence.until.utc_ms,
                )
            )
        facts.append(
            Fact(name="Pump says", value=_PUMP_STATE_WORDS.get(state.state, state.state.replace("_", " ")))
        )
        for name, value, unit, digits in (
            ("Set rate", state.rate_ml_h, "mL/h", 1),
            ("Line pressure", state.pressure_mmhg, "mmHg", 0),
            ("Battery", state.battery_percent, "%", 0),
        ):
            if value is not None:
                facts.append(Fact(name=name, value=f"{value:.{digits}f} {unit}"))
        if state.alarms:
            facts.append(
                Fact(name="Pump alarms", value=", ".join(alarm.replace("_", " ") for alarm in state.alarms))
            )
        for name, moment in (("Ends about", state.ends_at), ("Bag empty about", state.bag_empty_at)):
            if moment is not None:
                facts.append(Fact(name=name, utc_ms=moment.utc_ms))
        if (
            state.occurrence is not None
            and state.occurrence.due is not None
            and state.verdict == "not_expected"
        ):
            facts.append(Fact(name="Next due", utc_ms=state.occurrence.due.utc_ms))
        if state.occlusion_blind_s is not None:
            facts.append(
                Fact(name="A closed line could stay hidden for", value=_duration(state.occlusion_blind_s))
            )
    facts.extend(_order_facts(known.order))
    if link is not None:
        facts.append(Fact(name="Link to the pump", value=_LINK_WORDS.get(link.link, link.link)))
        if link.age_s is not None and home.beat_at_utc_ms is not None:
            read_utc_ms = round(home.beat_at_utc_ms - min(max(link.age_s, 0.0), LONG_AGO_S) * 1_000)
            facts.append(Fact(name="Newest reading", utc_ms=read_utc_ms, style="seconds"))
    return tuple(facts)


def _order_facts(told: wire.OrderAnswer | None) -> Iterator[Fact]:
    """Which order is in force, which waits, and that the newest was refused."""
    if told is None:
        return
    yield Fact(name="Order in force", value=_version(told.in_force) if told.in_force else "none")
    if told.waiting is not None:
        yield Fact(name="Waits until the pump is set to it", value=_version(told.waiting))
    if not told.accepted and told.id is not None:
        why = told.message or (told.reason or "").replace("_", " ")
        yield Fact(name="Refused", value=f"version {told.version}: {why}")


def _version(order: wire.OrderInForce) -> str:
    return f"version {order.version}" if order.version else "the gateway's file"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
