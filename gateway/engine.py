"""The one place that decides: ``Engine.handle(input) -> Effects``. No port, no thread, no clock, no file.

Order of thought for each input: what the time is on the continuous axis; what the input says; which timers
are up; what of all that leaves by which way; what must be on the card first. The loop in gateway/run.py
performs the effects and puts what comes of them back into the inbox.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping
from typing import TypeVar

import msgspec
from msgspec import Struct

from alerts import wire
from alerts.alert import Alert, AlertState, AnswerReason
from alerts.catalogue import highest_urgency, respond_within_s
from alerts.condition import AbsenceWhat, Finding, Kind, Priority, Urgency, Verdict
from alerts.inhibition import Inhibition, InhibitionState, Phase
from alerts.lifecycle import CLOCK_TOLERANCE_MS, AlertBook, When
from alerts.mqtt import (
    SESSION_TAKEN_OVER,
    BrokerConfirmed,
    BrokerConnected,
    BrokerLost,
    BrokerMessage,
    BrokerRefused,
)
from alerts.signal import PanelSignal
from alerts.sink import Lane as LaneName
from alerts.sink import Message
from drivers.family import Family, PumpOnLine, Session
from drivers.reading import LinkFault, PumpState, Reading
from gateway import absences, certificate, projections
from gateway.changes import (
    AlertChanged,
    AllToldAgain,
    Answered,
    Change,
    EventHappened,
    OrderAnswered,
    PointTaken,
)
from gateway.core.monitor import Condition, DeliveryStatus, DeliveryVerdict
from gateway.core.timeline import GapKind, Instant, Moment, Timeline, TimelineState
from gateway.effects import Commit, Effects, Send, Write
from gateway.history_points import HistoryPoints
from gateway.inputs import (
    ButtonHeld,
    ButtonPressed,
    BytesArrived,
    CertificateRead,
    CommitFailed,
    Committed,
    Fetched,
    FromBroker,
    HistoryAnswered,
    Input,
    PortLost,
    PortOpened,
    StopRequested,
    Tick,
)
from gateway.lanes import AnyLane, Draft, LaneKept
from gateway.orders import (
    ANSWERS_WAITING_MAX,
    FILE_VERSION,
    SHA256_LENGTH,
    Judgement,
    OrderHead,
    OrderReason,
    Outcome,
    PumpOrders,
    Refusal,
    accepted,
    fingerprint,
    fingerprint_of,
    head,
    judge,
    judge_unreadable,
)
from gateway.outbox import Outbox, OutboxKept
from gateway.panel import Panel
from gateway.pump import SEEN_BY_THE_ENGINE, PumpKept, PumpSetup, Resumed, WatchedPump
from gateway.second_store import SentFromMemory

BEAT_EVERY_MS = 10_000
STATE_EVERY_MS = 60_000
STATE_WHILE_WATCHED_EVERY_MS = 10_000
WATCH_HOLDS_MS = 30_000
SIGN_OF_LIFE_EVERY_MS = 50_000
"""How often what need not be written at once is written: at most so much of it a power cut can cost."""
SIGN_OF_LIFE_ALONG_AFTER_MS = 25_000
"""A commit that comes so long after the last such takes it along: one sync in the place of two."""
TELEMETRY_EVERY_MS = 30_000
TELL_OF_DROPPED_EVERY_MS = 3_600_000
UNDATED_POINTS_WAIT_MS = 3_600_000
"""So long points wait for the clock to be set before they leave without a time (mqtt page, ``telemetry``)."""
RESYNC_AT_MOST_EVERY_MS = 60_000
KEEPS_UP_AFTER_MS = 60_000
"""So long nothing was lost, and the gateway keeps up again: a flood comes in waves."""
ALONE_AFTER_MS = 600_000
"""So long without being thrown out, and there is no second gateway under our name any more."""
IDS_KEPT = 1_000
"""Requests from the broker that are remembered, so that none is done twice (mqtt page)."""
STOPPING_TAKES_MS = 3_000
GATEWAY = "gateway"
_Kept = TypeVar("_Kept")


class EngineSetup(Struct, frozen=True, kw_only=True):
    """What the engine is told once."""

    home: str
    version: str
    pumps: tuple[PumpSetup, ...]
    families: Mapping[str, Family]
    """By port."""
    collector: str
    """Whose receipts release a message; empty: the broker's confirmation does."""
    mqtt: bool
    """Whether there is a broker at all."""
    mqtt_version: int = 5
    """3 for MQTT 3.1.1, by which nothing expires on the broker."""
    history: bool = False
    """Whether there is a server for the history."""
    boot: str
    """A token for this start of the gateway."""
    panel: bool = False
    """Whether there is a caregiver's panel."""


class KeptUnreadable(Exception):
    """What the card has kept was written by another version, or is broken: the database must be set aside."""


class _SignOfLife(Struct, frozen=True, kw_only=True):
    """The last that is known of the start before."""

    utc_ms: int
    clean: bool
    timeline: TimelineState


class _Requests(Struct, frozen=True, kw_only=True):
    """What has been answered, by id."""

    answered: dict[str, str | None]


class _Turn:
    """What is gathered while one input is handled."""

    def __init__(self, moment: Moment, instant: Instant) -> None:
        self.moment = moment
        self.instant = instant
        self.t_ms = instant.t_ms
        self.uptime_ms = projections.uptime_ms(moment)
        """For the age of what was heard since the start: it does not move with a gap that becomes known."""
        self.when = When(t_ms=instant.t_ms, utc_ms=instant.utc_ms)
        self.changes: list[Change] = []
        self.notes: list[str] = []
        self.writes: list[Write] = []
        self.alerts: list[Alert] = []
        self.urgent_pumps: set[str] = set()
        """Pumps whose state must be on the card together with what was decided."""
        self.ended: dict[str, list[str]] = {}
        """Alerts of a pump that the limits of a new order no longer hold."""
        self.must_commit = False
        self.gathers = False
        """Telemetry that waits in groups is handed to the card."""
        self.open_changed = False
        self.connected = False
        """The broker has just been reached."""
        self.statuses: dict[str, DeliveryStatus] = {}
        """How delivery stands when all is decided, as far as it was asked for."""


class Engine:
    """Sessions, core, alert life and lanes, stepped by one input at a time."""

    def __init__(
        self,
        setup: EngineSetup,
        *,
        store: str,
        alerts: Iterable[Alert],
        lanes: Mapping[AnyLane, LaneKept],
        kept: Mapping[str, bytes],
        set_aside: str | None = None,
        without_card: bool = False,
    ) -> None:
        self.setup = setup
        self.store = store
        sign_of_life = _decoded(kept.get("sign_of_life"), _SignOfLife)
        next_number = _decoded(kept.get("next_alert"), int) or 1
        next_revs = _decoded(kept.get("next_revs"), dict[str, int])
        self.book = AlertBook(alerts, store=store, next_number=next_number, next_revs=next_revs)
        self._interrupted = sign_of_life if sign_of_life is not None and not sign_of_life.clean else None
        # The timeline goes on with this very state, and will change it.
        self._left_at_t_ms = sign_of_life.timeline.t_ms if sign_of_life is not None else None
        if self._interrupted is not None:
            self.book.skip_revs()
        self._set_aside = set_aside
        self._without_card = without_card
        self._timeline = Timeline(sign_of_life.timeline if sign_of_life else None)
        self._instant: Instant | None = None
        self._began_t_ms = 0
        self._uptime_ms = 0
        """Of the last input."""
        self._pumps = {
            pump.pump: WatchedPump(
                pump,
                _known(kept.get(f"pump/{pump.pump}"), PumpKept),
                # Not as if none had been accepted: an older one would be in force.
                _decoded(kept.get(f"order/{pump.pump}"), PumpOrders),
            )
            for pump in setup.pumps
        }
        self._gateway_inhibition = Inhibition(
            self._highest_urgency(), _known(kept.get("pump/gateway"), InhibitionState)
        )
        self._taken_away = {
            token: _known(data, PumpKept)
            for name, data in kept.items()
            if (token := name.removeprefix("pump/")) != name and token not in {*self._pumps, GATEWAY}
        }
        """Pumps that an earlier start has watched and this one does not."""
        self._ports: dict[str, list[WatchedPump]] = {}
        for pump in self._pumps.values():
            self._ports.setdefault(pump.setup.port, []).append(pump)
        self._on_line = {port: self._pumps_on_line(port) for port in self._ports}
        self._sessions: dict[str, Session] = {
            port: setup.families[port].open_session(pumps) for port, pumps in self._on_line.items()
        }
        self._speaker = projections.Speaker(home=setup.home, store=store, boot=setup.boot)
        self._outbox = Outbox(
            self._speaker,
            collector=setup.collector,
            lanes=lanes,
            kept=OutboxKept(
                told=_decoded(kept.get("told"), dict[str, int]) or {},
                tellings=_decoded(kept.get("tellings"), dict[str, Draft]) or {},
                closed_topics=_known(kept.get("closed_topics"), dict[str, int]),
                sent_from_memory=_known(kept.get("sent_from_memory"), SentFromMemory),
            ),
        )
        self._history_points = HistoryPoints(
            home=setup.home, boot=setup.boot, origins={pump.pump: pump.origin for pump in setup.pumps}
        )
        requests = _decoded(kept.get("requests"), _Requests)
        self._answered: OrderedDict[str, str | None] = OrderedDict(requests.answered if requests else {})
        self._handed_over = dict(kept)
        """What the card has, or will have, under each name."""
        self._certificate_said = ""
        self._connected = False
        self._next_beat_t_ms = 0
        self._next_sign_of_life_t_ms: int | None = None
        self._resync_t_ms: int | None = None
        self._watched_t_ms: int | None = None
        self._panel = Panel() if setup.panel else None
        self._storage_failing = self._gateway_has(Kind.STORAGE_FAILING)
        self._inbox_losses = 0
        self._lost_t_ms: int | None = None
        self._thrown_out_t_ms: int | None = None
        self._batches_dropped = 0
        self._dropped_untold: int = _known(kept.get("telemetry_dropped"), int) or 0
        self._dropped_told_t_ms: int | None = None
        self._points_max = projections.points_that_fit(None)
        self._history_dropped = 0
        self.ignored = 0
        """How many messages to the home were passed over: retained, unreadable, or not for this gateway."""
        self._stopping_since_t_ms: int | None = None
        self._shown: object = None
        """What the line at the gateway was made of."""

    @property
    def alerts_next_seq(self) -> int:
        """The number that the next message of the alerts lane will get."""
        return self._outbox.lanes[LaneName.ALERTS].next_seq

    def lane_is_empty(self, lane: LaneName) -> bool:
        """Whether all that was to leave by this lane has been receipted."""
        return self._outbox.lanes[lane].idle

    @property
    def held_in_memory(self) -> int:
        """How many messages and drafts are in memory, of all lanes."""
        return self._outbox.in_memory

    @property
    def heard_uptime_ms(self) -> dict[str, int | None]:
        """When each pump was last heard, on the machine's own clock."""
        return {token: pump.heard_uptime_ms for token, pump in self._pumps.items()}

    # -- what happened -----------------------------------------------------------------------------

    def handle(self, happened: Input) -> Effects:
        """Take one input; return all that follows from it."""
        turn = self._begin(happened.moment)
        match happened:
            case BytesArrived():
                self._bytes_arrived(turn, happened)
            case Tick():
                self._overloaded(turn, happened.inbox_losses)
            case FromBroker():
                self._from_broker(turn, happened)
            case Committed():
                self._committed(turn, happened.number)
            case CommitFailed():
                self._commit_failed(turn, happened)
            case Fetched():
                self._outbox.fetched(happened.fetch, happened.found)
            case PortOpened():
                self._port_opened(turn, happened.port)
            case PortLost():
                self._port_lost(turn, happened)
            case CertificateRead():
                self._certificate_read(turn, happened)
            case HistoryAnswered():
                turn.notes.extend([] if happened.note is None else [happened.note])
                if happened.written_up_to is not None:
                    self._outbox.history.receipt(happened.written_up_to, turn.t_ms)
            case ButtonPressed():
                if self._panel is not None:
                    self._panel.pressed()
            case ButtonHeld():
                self._about_gateway(
                    turn, Kind.CAREGIVER_CALL, Verdict.PRESENT, "Somebody in the home calls for the nurse."
                )
            case StopRequested():
                if self._stopping_since_t_ms is None:
                    self._stopping_since_t_ms = turn.t_ms
                    turn.must_commit = True
        self._timers(turn)
        for pump in self._pumps.values():
            self._follow_its_order(turn, pump)
        self._project(turn)
        return self._effects(turn)

    def _begin(self, moment: Moment) -> _Turn:
        instant = self._timeline.at(moment)
        if instant is None:
            # Two happenings within one millisecond, or out of order between threads: no time has passed.
            assert self._instant is not None
            instant = msgspec.structs.replace(self._instant, gap=GapKind.NONE, stepped_ms=0)
        before, self._instant = self._instant, instant
        first = before is None
        if before is None:
            self._began_t_ms = instant.t_ms
        dated = instant.schedule_utc_ms is not None and (before is None or before.schedule_utc_ms is None)
        turn = _Turn(moment, instant)
        seen_ms, self._uptime_ms = turn.uptime_ms - self._uptime_ms, turn.uptime_ms
        unseen_ms = 0 if before is None else instant.t_ms - before.t_ms - seen_ms
        if before is None:
            self._first(turn)
        elif instant.gap is GapKind.RESTART_RESOLVED:
            turn.alerts.extend(self.book.time_was_added(unseen_ms, self._began_t_ms))
        if instant.stepped_ms:
            turn.notes.append(f"the wall clock was set by {instant.stepped_ms / 1000:+.1f} s")
        if first or dated or instant.stepped_ms or instant.gap is not GapKind.NONE:
            # At the start too: a pump that is never heard is silent from then on. And when it is known what
            # the date is: what is due is expected of it from then on.
            for pump in self._pumps.values():
                seen = pump.seen_by(instant)
                self._found(turn, pump, pump.monitor.step(seen, None))
                pump.meets_gap(seen, unseen_ms)
                if pump.gap_before_next_reading is not GapKind.NONE:
                    # It goes to the card with the time that it adds: there its last reading is older.
                    turn.urgent_pumps.add(pump.setup.pump)
            # Said once; what else happens at this instant happens at an ordinary one.
            turn.instant = msgspec.structs.replace(instant, gap=GapKind.NONE, stepped_ms=0)
        if first:
            self._take_new_orders(turn)
        return turn

    def _take_new_orders(self, turn: _Turn) -> None:
        """A file that holds another order than before is a new version (prescription page, 1.1, rule 8).

        What waits goes on waiting, for the new one too.
        """
        for pump in self._pumps.values():
            file, waiting = pump.orders.in_force, pump.orders.waiting
            if pump.resumed is Resumed.WITH_A_NEW_ORDER and file is not None and file.text:
                self._found(turn, pump, pump.revise(file, turn.instant))
            if waiting is not None and not pump.monitor.waits_for_programming:
                self._found(turn, pump, pump.revise(waiting, turn.instant))

    def _first(self, turn: _Turn) -> None:
        """What there is to say once, at the start."""
        self._next_sign_of_life_t_ms = turn.t_ms
        if self._interrupted is not None:
            length_is_known = (
                self._left_at_t_ms is not None and turn.instant.gap is not GapKind.RESTART_UNKNOWN
            )
            length = (
                f"for about {_span(turn.t_ms - (self._left_at_t_ms or 0))}"
                if length_is_known
                else "for an unknown time"
            )
            self._about_gateway(
                turn,
                Kind.MONITORING_INTERRUPTED,
                Verdict.PRESENT,
                f"The gateway was not watching {length}: it stopped without being asked to."
                " What the pump counted meanwhile is judged now.",
                since_utc_ms=self._interrupted.utc_ms,
            )
        self._about_gateway(
            turn,
            Kind.STORAGE_FAILING,
            # It holds until the next start: nobody has looked at the card before.
            Verdict.ABSENT if self._set_aside is None else Verdict.PRESENT,
            ""
            if self._set_aside is None
            else "The gateway's database could not be read and was set aside; alerts that were open in it are"
            " not known here any more. Check the memory card.",
            code="set_aside",
        )
        self._about_gateway(
            turn,
            Kind.STORAGE_FAILING,
            Verdict.PRESENT if self._without_card else Verdict.ABSENT,
            "The gateway cannot use its memory card: alerts that were open are not known here any more, and a"
            " power cut loses what happens now. Mend the card, then start the gateway anew.",
            code="no_card",
        )
        for pump in self._pumps.values():
            missing = pump.prescription is None
            self._about_pump(
                turn,
                pump,
                Kind.NO_PRESCRIPTION,
                Verdict.PRESENT if missing else Verdict.ABSENT,
                "No valid prescription is known for this pump: only what the pump says itself is watched."
                if missing
                else "",
            )
            if pump.setup.serial_number is None:
                # Whatever answers has been adopted.
                self._about_pump(turn, pump, Kind.WRONG_PUMP, Verdict.ABSENT, "")
            if pump.resumed is Resumed.ANEW:
                of_the_prescription = {
                    alert.alert_id
                    for alert in self.book.open.values()
                    if alert.pump == pump.setup.pump and alert.kind not in SEEN_BY_THE_ENGINE
                }
                withdrawn = self.book.withdraw(pump.setup.pump, turn.when, only=of_the_prescription)
                self._alerts_changed(turn, withdrawn)
        configured = {*self._pumps, GATEWAY}
        for token in {alert.pump for alert in self.book.open.values()} - configured:
            self._alerts_changed(turn, self.book.withdraw(token, turn.when))

    def _port_opened(self, turn: _Turn, port: str) -> None:
        self._sessions[port].opened(turn.t_ms)
        for pump in self._ports[port]:
            pump.port_open = True
            pump.has_said_who_it_is = False
        turn.notes.append(f"port {port}: open")

    def _port_lost(self, turn: _Turn, happened: PortLost) -> None:
        for pump in self._ports[happened.port]:
            pump.port_open = False
            pump.garbled_since_uptime_ms = None
        turn.notes.append(f"port {happened.port}: {happened.reason}")

    def _bytes_arrived(self, turn: _Turn, happened: BytesArrived) -> None:
        self._hear(turn, happened.port, happened.data)

    def _hear(self, turn: _Turn, port: str, data: bytes) -> None:
        """What the session of a port makes of these bytes; without any, of the time that has passed."""
        for fact in self._sessions[port].receive(data, turn.t_ms):
            if isinstance(fact, LinkFault):
                for pump in self._ports[port]:
                    if pump.garbled_since_uptime_ms is None:
                        pump.garbled_since_uptime_ms = turn.uptime_ms
                # Not the bytes themselves: they may hold a serial number or a drug (mqtt page).
                turn.notes.append(
                    f"port {port}: {fact.byte_count} bytes make no sense"
                    f" ({fact.kind}{': ' if fact.detail else ''}{fact.detail})"
                )
            else:
                self._reading(turn, self._pumps[fact.pump], fact)

    def _reading(self, turn: _Turn, pump: WatchedPump, reading: Reading) -> None:
        pump.garbled_since_uptime_ms = None
        right_serial = pump.right_serial
        if right_serial is not None and reading.serial is not None:
            pump.wrong_pump = reading.serial != right_serial
            pump.other_serial = reading.serial if pump.wrong_pump else None
            self._about_pump(
                turn,
                pump,
                Kind.WRONG_PUMP,
                Verdict.PRESENT if pump.wrong_pump else Verdict.ABSENT,
                "Another pump than the configured one answers on this port: its readings are not used."
                if pump.wrong_pump
                else "",
            )
            pump.has_said_who_it_is = True
        if pump.wrong_pump or self._may_be_another(pump):
            return
        pump.reading = reading
        pump.heard_uptime_ms = turn.uptime_ms
        instant = turn.instant
        if reading.state is not PumpState.UNKNOWN:
            instant = msgspec.structs.replace(instant, gap=pump.gap_before_next_reading)
            pump.gap_before_next_reading = GapKind.NONE
            pump.timers_wait_until_t_ms = 0
        self._found(turn, pump, pump.monitor.step(instant, reading))
        turn.changes.append(
            PointTaken(
                pump=pump.setup.pump,
                reading=reading,
                status=pump.monitor.status(turn.instant),
                t_ms=turn.t_ms,
                moment=turn.moment,
            )
        )

    def _may_be_another(self, pump: WatchedPump) -> bool:
        """Whether a pump that should have a certain serial number has not said any since its port was opened.

        Of a family that never says one it cannot be asked.
        """
        family = self.setup.families[pump.setup.port]
        must_say_who_it_is = pump.setup.serial_number is not None and "serial" in family.traits.reports
        return must_say_who_it_is and not pump.has_said_who_it_is

    def _overloaded(self, turn: _Turn, losses: int) -> None:
        if losses != self._inbox_losses:
            lost, self._inbox_losses = losses - self._inbox_losses, losses
            self._lost_t_ms = turn.t_ms
            if self._gateway_has(Kind.OVERLOADED):
                return
            self._about_gateway(
                turn,
                Kind.OVERLOADED,
                Verdict.PRESENT,
                f"The gateway could not keep up: {lost} happenings were not looked at.",
            )
        elif self._lost_t_ms is None or turn.t_ms - self._lost_t_ms >= KEEPS_UP_AFTER_MS:
            self._about_gateway(turn, Kind.OVERLOADED, Verdict.ABSENT, "")

    def _certificate_read(self, turn: _Turn, happened: CertificateRead) -> None:
        if happened.problem is not None:
            verdict, words = Verdict.UNKNOWN, happened.problem
        else:
            verdict, words = certificate.judged(
                happened.expires_utc_ms, turn.instant.utc_ms, synced=turn.moment.synced
            )
        if words and words != self._certificate_said:
            turn.notes.append(words)
        self._certificate_said = words
        if verdict is not Verdict.UNKNOWN:
            self._about_gateway(turn, Kind.CERTIFICATE_EXPIRING, verdict, words)

    # -- the broker --------------------------------------------------------------------------------

    def _from_broker(self, turn: _Turn, happened: FromBroker) -> None:
        event = happened.event
        match event:
            case BrokerConnected():
                self._connected = True
                self._outbox.connected(turn.t_ms)
                self._points_max = projections.points_that_fit(event.maximum_packet_size)
                self._next_beat_t_ms = turn.t_ms
                turn.connected = True
                turn.open_changed = True
                for pump in self._pumps.values():
                    pump.published = None
                turn.notes.append("broker: connected")
            case BrokerLost():
                if self._connected:
                    turn.notes.append(f"broker: {event.reason}")
                self._connected = False
                self._watch_for_a_second_gateway(turn, event)
            case BrokerRefused():
                self._connected = False
                turn.notes.append(f"broker: {event.reason}")
            case BrokerConfirmed():
                note = self._outbox.confirmed(event, turn.t_ms, turn.instant.utc_ms)
                turn.notes.extend([] if note is None else [note])
            case BrokerMessage():
                self._from_the_nurses(turn, event)

    def _watch_for_a_second_gateway(self, turn: _Turn, lost: BrokerLost | None = None) -> None:
        if lost is not None and lost.reason_code == SESSION_TAKEN_OVER:
            self._thrown_out_t_ms = turn.t_ms
            self._about_gateway(
                turn,
                Kind.DUPLICATE_GATEWAY,
                Verdict.PRESENT,
                "A second gateway has connected under this home's name: find it and switch it off.",
            )
        elif self._thrown_out_t_ms is None or turn.t_ms - self._thrown_out_t_ms >= ALONE_AFTER_MS:
            self._about_gateway(turn, Kind.DUPLICATE_GATEWAY, Verdict.ABSENT, "")

    def _introduction(self, turn: _Turn) -> list[Message]:
        """What is said first on a new connection: who is here, and that pumps taken away are not known."""
        utc_ms, synced = turn.instant.utc_ms, turn.moment.synced
        return [
            self._speaker.status(
                utc_ms, synced, online=True, version=self.setup.version, pumps=tuple(self._pumps)
            ),
            *(
                self._speaker.state(
                    token,
                    utc_ms,
                    synced,
                    reading=None,
                    age_ms=None,
                    status=DeliveryStatus(verdict=DeliveryVerdict.UNKNOWN),
                    urgency=kept.urgency,
                    origin=kept.origin,
                    driver_status=kept.driver_status,
                )
                for token, kept in self._taken_away.items()
                if kept is not None
            ),
        ]

    def _from_the_nurses(self, turn: _Turn, event: BrokerMessage) -> None:
        place = wire.parse_topic(event.topic)
        if place is None or place.home != self.setup.home or place.direction is not wire.Direction.DOWN:
            self.ignored += 1
            return
        if event.retain and place.what != "order":
            self.ignored += 1
            return
        try:
            match place.what:
                case "receipt":
                    receipt = wire.decode(event.payload, wire.Receipt)
                    self.ignored += self._outbox.receipt(receipt, turn.t_ms)
                case "ack":
                    self._ack(turn, wire.decode(event.payload, wire.Ack))
                case "resync":
                    self._resync(turn, wire.decode(event.payload, wire.Resync))
                case "watch":
                    wire.decode(event.payload, wire.Watch)
                    self._watched_t_ms = turn.t_ms
                case "absence":
                    self._absence(turn, place.pump, wire.decode(event.payload, wire.Absence))
                case "order":
                    self._order(turn, place.pump, event)
                case _:
                    self.ignored += 1
        except wire.WireError as error:
            self.ignored += 1
            turn.notes.append(f"broker: a message on down/{place.what} cannot be read: {str(error)[:200]}")

    def _ack(self, turn: _Turn, ack: wire.Ack) -> None:
        if self._answered_before(turn, ack.id):
            return
        adopted = self._adoptable(ack) if ack.adopt else None
        if ack.adopt and adopted is None:
            self._answer(turn, ack.id, AnswerReason.NOT_ALLOWED)
            return
        reason, alert = self.book.acknowledge(
            ack.alert_id,
            ack.rev,
            ack.by,
            sent_utc_ms=ack.time.utc_ms,
            clock_synced=turn.moment.synced,
            when=turn.when,
        )
        if alert is not None:
            self._alerts_changed(turn, [alert])
        if adopted is not None and reason is None:
            self._adopt(turn, adopted)
        self._answer(turn, ack.id, reason)

    def _adoptable(self, ack: wire.Ack) -> WatchedPump | None:
        """The pump of an open ``wrong_pump`` that has said who it is; ``None``: nothing can be adopted."""
        alert = self.book.open.get(ack.alert_id)
        pump = self._pumps.get(alert.pump) if alert is not None and alert.kind is Kind.WRONG_PUMP else None
        return pump if pump is not None and pump.wrong_pump and pump.other_serial is not None else None

    def _adopt(self, turn: _Turn, pump: WatchedPump) -> None:
        """The pump that answers is the patient's now: somebody has said so by name."""
        pump.adopted_serial, pump.other_serial = pump.other_serial, None
        pump.wrong_pump = False
        self._about_pump(turn, pump, Kind.WRONG_PUMP, Verdict.ABSENT, "The pump that answers was adopted.")

    def _resync(self, turn: _Turn, resync: wire.Resync) -> None:
        if self._answered_before(turn, resync.id):
            return
        if self._resync_t_ms is not None and turn.t_ms - self._resync_t_ms < RESYNC_AT_MOST_EVERY_MS:
            self._answer(turn, resync.id, AnswerReason.NOT_ALLOWED)
            return
        self._resync_t_ms = turn.t_ms
        turn.changes.append(AllToldAgain())
        self._answer(turn, resync.id, None)

    def _absence(self, turn: _Turn, pump: str | None, absence: wire.Absence) -> None:
        if self._answered_before(turn, absence.id):
            return
        for_ms = absence.for_s * 1000
        age_ms = turn.instant.utc_ms - absence.time.utc_ms
        if turn.moment.synced and age_ms > for_ms + CLOCK_TOLERANCE_MS:
            # It lay in the broker for longer than it was meant to last: whoever announced it is back.
            reason: AnswerReason | None = AnswerReason.TOO_OLD
        else:
            reason = self._announce(turn, pump, absence.what, for_ms, by=absence.by)
        self._answer(turn, absence.id, reason)

    def _announce(
        self, turn: _Turn, token: str | None, what: AbsenceWhat, for_ms: float, *, by: str
    ) -> AnswerReason | None:
        """Somebody, in the home or far from it, announces an absence. ``None``: it holds from now on."""
        pump = self._pumps.get(token or "")
        if pump is None:
            return AnswerReason.NOT_ALLOWED
        before = pump.absences
        after = absences.announced(before, what, for_ms, pump.urgency, turn.t_ms)
        if after is None:
            return AnswerReason.NOT_ALLOWED
        pump.absences = after
        turn.urgent_pumps.add(pump.setup.pump)
        if len(after.on) > len(before.on):
            self._found(turn, pump, (absences.began(after.on[-1], by, self._absences_now(turn, pump)),))
        return None

    def _absences_now(self, turn: _Turn, pump: WatchedPump) -> absences.Now:
        status = pump.monitor.status(turn.instant)
        return absences.Now(
            t_ms=turn.t_ms,
            utc_ms=turn.instant.utc_ms,
            expected_ml=status.expected_ml,
            delivered_ml=status.delivered_ml,
        )

    def _watch_the_absences(self, turn: _Turn, pump: WatchedPump) -> None:
        if not pump.absences.on and not pump.absences.not_seen_over:
            return
        now = self._absences_now(turn, pump)
        pump.absences, ended = absences.passed(pump.absences, pump.urgency, turn.t_ms)
        for absence in ended:
            self._found(turn, pump, absences.ended(absence, now))
        pump.absences, findings = absences.looked_at(
            pump.absences, pump.seen(turn.uptime_ms), now, is_told=pump.has(Kind.ABSENCE_OVERDUE)
        )
        self._found(turn, pump, findings)

    def _order(self, turn: _Turn, token: str | None, event: BrokerMessage) -> None:
        pump = self._pumps.get(token or "")
        if pump is None or not event.payload:
            # An empty payload clears the broker's copy, and nothing else.
            self.ignored += 1
            return
        try:
            order = wire.decode(event.payload, wire.Order)
        except wire.WireError as error:
            request = fingerprint_of(pump.setup.pump, event.payload)
            if not self._judged_before(turn, pump, request, head(event.payload), event.retain):
                judgement = judge_unreadable(event.payload, error)
                self._refuse_order(turn, pump, request, head(event.payload), judgement)
            return
        request = fingerprint(pump.setup.pump, order)
        about = OrderHead(id=order.id, version=order.version, sha256=order.sha256)
        if self._judged_before(turn, pump, request, about, event.retain):
            return
        judgement = judge(order, pump.orders)
        if judgement.outcome is Outcome.REFUSED:
            self._refuse_order(turn, pump, request, about, judgement)
        elif judgement.outcome is Outcome.ACCEPTED:
            self._remember(request, None)
            new = accepted(order, turn.instant, synced=turn.moment.synced)
            findings = pump.revise(new, turn.instant)
            pump.orders = msgspec.structs.replace(pump.orders, waiting=new)
            self._found(turn, pump, findings)
            turn.notes.append(f"order for {pump.setup.pump}: version {new.version} is accepted")

    def _judged_before(
        self, turn: _Turn, pump: WatchedPump, request: str, about: OrderHead | None, retained: bool
    ) -> bool:
        """Whether this very order was: then nothing is done.

        What the broker has kept comes with each connection, and it keeps the answer too; whoever sends it
        again is answered as before.
        """
        refused = pump.orders.refused
        if request in self._answered:
            before = self._answered[request]
            reason = None if before is None else OrderReason(before)
        elif refused is not None and refused.request == request:
            reason = refused.reason
        else:
            return False
        if not retained and about is not None:
            self._answer_order(turn, pump, about, reason, "This order was answered before.")
        return True

    def _refuse_order(
        self, turn: _Turn, pump: WatchedPump, request: str, about: OrderHead | None, judgement: Judgement
    ) -> None:
        assert judgement.reason is not None, "a refusal has a reason"
        self._remember(request, judgement.reason)
        pump.orders = msgspec.structs.replace(pump.orders, refused=Refusal(request, judgement.reason))
        pump.orders_told = msgspec.structs.replace(pump.orders_told, refused=pump.orders.refused)
        which = "An order" if about is None else f"Order version {about.version}"
        holds = "No order is in force." if pump.prescription is None else "The order before it holds."
        self._about_pump(
            turn,
            pump,
            Kind.ORDER_REFUSED,
            Verdict.PRESENT,
            f"{which} was refused: {judgement.message} {holds}",
        )
        if about is not None:
            self._answer_order(turn, pump, about, judgement.reason, judgement.message)
        turn.notes.append(f"order for {pump.setup.pump}: {which} is refused ({judgement.reason})")

    def _answer_order(
        self, turn: _Turn, pump: WatchedPump, about: OrderHead, reason: OrderReason | None, message: str
    ) -> None:
        turn.changes.append(
            OrderAnswered(
                pump=pump.setup.pump,
                id=about.id,
                version=about.version,
                sha256=about.sha256[:SHA256_LENGTH],
                reason=reason,
                message=message,
                orders=pump.orders,
            )
        )

    def _follow_its_order(self, turn: _Turn, pump: WatchedPump) -> None:
        """Once another order is in force, or waits: it is told, and the rest of the gateway goes by it."""
        told = pump.follow()
        if told is None:
            return
        token, now = pump.setup.pump, pump.orders
        turn.urgent_pumps.add(token)
        if pump.prescription is not None:
            self._about_pump(turn, pump, Kind.NO_PRESCRIPTION, Verdict.ABSENT, "An order is in force.")
        in_force_is_new = now.in_force != told.in_force
        about = now.in_force if in_force_is_new else now.waiting
        if about is None:
            reason: OrderReason | None = OrderReason.INVALID
            message = "The prescription's file was taken away, or is no valid one: no order is in force."
        elif in_force_is_new:
            reason, message = None, f"Version {about.version} is in force."
        else:
            reason, message = None, f"Version {about.version} waits until the pump is set to it."
        turn.changes.append(
            OrderAnswered(
                pump=token,
                id=None if about is None else about.id,
                version=FILE_VERSION if about is None else about.version,
                sha256="" if about is None else about.sha256,
                reason=reason,
                message=message,
                orders=now,
                ended=tuple(turn.ended.get(token, ())),
            )
        )
        turn.notes.append(f"order for {token}: {message}")
        # Its urgency is in its state, and a board goes by that when this home falls silent.
        pump.published = None
        self._read_as_often_as_ordered(turn, pump.setup.port)

    def _read_as_often_as_ordered(self, turn: _Turn, port: str) -> None:
        """An order may ask for more readings than the one before: then the dialogue begins anew."""
        pumps = self._pumps_on_line(port)
        if pumps == self._on_line[port]:
            return
        self._on_line[port] = pumps
        self._sessions[port] = self.setup.families[port].open_session(pumps)
        if self._ports[port][0].port_open:
            self._sessions[port].opened(turn.t_ms)

    def _pumps_on_line(self, port: str) -> list[PumpOnLine]:
        return [
            PumpOnLine(pump=pump.setup.pump, address=pump.setup.address, poll_ms=pump.poll_ms)
            for pump in self._ports[port]
        ]

    def _answered_before(self, turn: _Turn, request: str) -> bool:
        if request not in self._answered:
            return False
        turn.changes.append(Answered(id=request, reason=self._answered[request]))
        return True

    def _answer(self, turn: _Turn, request: str, reason: str | None) -> None:
        turn.changes.append(Answered(id=request, reason=reason))
        self._remember(request, reason)

    def _remember(self, request: str, reason: str | None) -> None:
        self._answered[request] = reason
        while len(self._answered) > IDS_KEPT:
            forgotten, _ = self._answered.popitem(last=False)
            # Nobody waits for so old an answer: so what is asked of us cannot fill the card.
            self._outbox.alerts.forget(f"answer/{forgotten}")

    # -- the card ----------------------------------------------------------------------------------

    def _committed(self, turn: _Turn, number: int) -> None:
        if self._outbox.committed(number):
            turn.open_changed = True
        if self._outbox.card_works():
            self.book.begin_in(self.store)
            turn.notes.append("card: works again; messages leave by it")
        if self._storage_failing:
            self._storage_failing = False
            self._about_gateway(turn, Kind.STORAGE_FAILING, Verdict.ABSENT, "")

    def _commit_failed(self, turn: _Turn, happened: CommitFailed) -> None:
        turn.notes.append(f"card: {happened.reason}; trying again")
        if self._outbox.card_refuses(happened.number):
            self.book.begin_in(self._outbox.second.store)
        if not self._storage_failing:
            self._storage_failing = True
            self._about_gateway(
                turn,
                Kind.STORAGE_FAILING,
                Verdict.PRESENT,
                "The gateway cannot write to its memory card: a power cut would lose what happens now."
                " Is the card full?",
            )

    # -- findings and alerts -----------------------------------------------------------------------

    def _found(self, turn: _Turn, pump: WatchedPump, findings: Iterable[Finding]) -> None:
        findings = tuple(findings)
        if not findings:
            return
        turn.urgent_pumps.add(pump.setup.pump)
        pump.inhibition.urgency = pump.urgency
        self._decide(
            turn,
            pump.setup.pump,
            pump.urgency,
            pump.respond_within_s,
            pump.inhibition,
            findings,
            ended_by_order=pump.monitor.take_ended_by_order(),
        )

    def _decide(
        self,
        turn: _Turn,
        pump: str,
        urgency: Urgency,
        respond_within_s: Mapping[Priority, int],
        inhibition: Inhibition,
        findings: Iterable[Finding],
        *,
        ended_by_order: Collection[Condition] = (),
    ) -> None:
        for transition in inhibition.apply(findings):
            condition = (transition.finding.kind, transition.finding.code)
            if transition.phase is Phase.END and condition in ended_by_order:
                self._latch(turn, pump, condition)
                continue
            if transition.priority is Priority.INFO:
                if transition.phase is Phase.START:
                    turn.changes.append(EventHappened(pump=pump, finding=transition.finding))
                continue
            alert = self.book.condition(pump, urgency, respond_within_s, transition, turn.when)
            if alert is not None:
                self._alerts_changed(turn, [alert])

    def _latch(self, turn: _Turn, pump: str, condition: Condition) -> None:
        """New limits no longer hold it: somebody must have seen it all the same (MQTT page, ``ended``)."""
        only = {
            alert.alert_id
            for alert in self.book.open.values()
            if (alert.pump, (alert.kind, alert.code)) == (pump, condition)
        }
        latched = self.book.withdraw(pump, turn.when, only=only)
        turn.ended.setdefault(pump, []).extend(alert.alert_id for alert in latched)
        self._alerts_changed(turn, latched)

    def _about_pump(self, turn: _Turn, pump: WatchedPump, kind: Kind, verdict: Verdict, message: str) -> None:
        """A condition of the monitoring of one pump, which the engine itself sees."""
        if pump.has(kind) is (verdict is Verdict.PRESENT):
            return
        self._found(
            turn,
            pump,
            (
                Finding(
                    kind=kind,
                    verdict=verdict,
                    at_ms=turn.t_ms,
                    at_utc_ms=turn.instant.utc_ms,
                    message=message,
                ),
            ),
        )

    def _about_gateway(
        self,
        turn: _Turn,
        kind: Kind,
        verdict: Verdict,
        message: str,
        *,
        code: str | None = None,
        since_utc_ms: int | None = None,
    ) -> None:
        """A condition of the gateway itself."""
        if verdict is Verdict.ABSENT and not self._gateway_has(kind, code):
            return
        urgency = self._highest_urgency()
        finding = Finding(
            kind=kind,
            verdict=verdict,
            at_ms=turn.t_ms,
            at_utc_ms=turn.instant.utc_ms,
            code=code,
            since_utc_ms=since_utc_ms,
            message=message,
        )
        turn.urgent_pumps.add(GATEWAY)
        self._gateway_inhibition.urgency = urgency
        within_s = respond_within_s(urgency)
        self._decide(turn, GATEWAY, urgency, within_s, self._gateway_inhibition, (finding,))

    def _gateway_has(self, kind: Kind, code: str | None = None) -> bool:
        return any((known.kind, known.code) == (kind, code) for known in self._gateway_inhibition.state.open)

    def _alerts_changed(self, turn: _Turn, alerts: Iterable[Alert]) -> None:
        for alert in alerts:
            turn.alerts.append(alert)
            code = f" ({alert.code})" if alert.code else ""
            turn.notes.append(
                f"alert {alert.alert_id} rev {alert.rev}: {alert.kind}{code} on {alert.pump},"
                f" {alert.priority}, {alert.reason}, now {alert.state}"
            )
            turn.changes.append(AlertChanged(alert=alert))

    def _highest_urgency(self) -> Urgency:
        return highest_urgency(pump.urgency for pump in self._pumps.values())

    # -- time --------------------------------------------------------------------------------------

    def _timers(self, turn: _Turn) -> None:
        for pump in self._pumps.values():
            wake_t_ms = pump.next_wake_t_ms()
            if wake_t_ms is not None and wake_t_ms <= turn.t_ms:
                self._found(turn, pump, pump.monitor.step(turn.instant, None))
            self._watch_the_link(turn, pump)
            self._watch_the_absences(turn, pump)
            link = pump.link(turn.uptime_ms)
            if link != pump.link_told:
                # A board believes the link that the last beat told: it need not wait for the next.
                pump.link_told = link
                self._next_beat_t_ms = turn.t_ms
        self._watch_for_a_second_gateway(turn)
        next_due_t_ms = self.book.next_due_t_ms()
        if next_due_t_ms is not None and next_due_t_ms <= turn.t_ms:
            self._alerts_changed(turn, self.book.due(turn.when))
        for port, session in self._sessions.items():
            if self._ports[port][0].port_open and session.next_due_ms() <= turn.t_ms:
                self._hear(turn, port, b"")
                data = session.due(turn.t_ms)
                if data:
                    if not self.setup.families[port].may_send(data):
                        # Not an assert statement: this one must hold under `python -O` too.
                        raise AssertionError("a session may send nothing but its queries")
                    turn.writes.append(Write(port=port, data=data))

    def _watch_the_link(self, turn: _Turn, pump: WatchedPump) -> None:
        from_uptime_ms = pump.garbled_from_uptime_ms
        garbled = from_uptime_ms is not None and turn.uptime_ms >= from_uptime_ms
        if garbled and not pump.garbled:
            pump.garbled = True
            self._about_pump(
                turn,
                pump,
                Kind.GARBLED_LINK,
                Verdict.PRESENT,
                "What comes from the pump makes no sense: check the cable and its plugs.",
            )
        elif pump.garbled and not garbled and pump.link(turn.uptime_ms) == "up":
            pump.garbled = False
            self._about_pump(turn, pump, Kind.GARBLED_LINK, Verdict.ABSENT, "")

    # -- ways out ----------------------------------------------------------------------------------

    def _tell_of_dropped_telemetry(self, turn: _Turn) -> None:
        """Batches without a number leave no gap that a collector could see: so it is said, when it can be."""
        last_t_ms = self._dropped_told_t_ms
        just_told = last_t_ms is not None and turn.t_ms - last_t_ms < TELL_OF_DROPPED_EVERY_MS
        if not self._dropped_untold or not self._connected or just_told:
            return
        finding = Finding(
            kind=Kind.TELEMETRY_DROPPED,
            verdict=Verdict.PRESENT,
            at_ms=turn.t_ms,
            at_utc_ms=turn.instant.utc_ms,
            message=f"{self._dropped_untold} batches of readings were given up, the oldest first:"
            " for too long nobody has fetched them.",
        )
        turn.changes.append(EventHappened(pump=GATEWAY, finding=finding))
        self._dropped_told_t_ms, self._dropped_untold = turn.t_ms, 0

    def _project(self, turn: _Turn) -> None:
        self._tell_of_dropped_telemetry(turn)
        speaker, utc_ms, synced = self._speaker, turn.instant.utc_ms, turn.moment.synced
        for change in turn.changes:
            if self.setup.history:
                self._history_points.take(change, turn.t_ms, turn.moment)
            match change:
                case AlertChanged(alert=alert):
                    draft = speaker.alert(alert, turn.t_ms, synced)
                    closed = alert.state is AlertState.CLOSED
                    self._outbox.put_alert(alert.alert_id, draft, closed=closed)
                    if closed and self.setup.mqtt_version == 3:
                        self._outbox.closed_topics.closed(draft.topic, turn.t_ms)
                case AllToldAgain():
                    self._outbox.tell_all_again()
                case EventHappened():
                    self._outbox.alerts.put(speaker.event(change, turn.t_ms, synced))
                case Answered():
                    self._outbox.alerts.put(speaker.answer(change, turn.t_ms, utc_ms, synced))
                case OrderAnswered(pump=token):
                    draft = speaker.order(change, turn.t_ms, utc_ms, synced)
                    self._outbox.put_order(draft, speaker.order_keys(token), ANSWERS_WAITING_MAX)
                case PointTaken():
                    pump = self._pumps[change.pump]
                    pump.points.append(projections.point(change))
                    if pump.points_since_t_ms is None:
                        pump.points_since_t_ms = turn.t_ms
        turn.gathers = self._telemetry_is_due(turn)
        for pump in self._pumps.values():
            self._gather_telemetry(turn, pump, turn.gathers)
        if self.setup.history:
            self._gather_history(turn, turn.gathers)

    def _telemetry_is_due(self, turn: _Turn) -> bool:
        """Of all pumps at once, so that one commit serves for all; while nobody hears us, only at the rate at
        which the card is written anyhow.
        """
        assert self._next_sign_of_life_t_ms is not None
        if turn.t_ms >= self._next_sign_of_life_t_ms or self._stopping_since_t_ms is not None:
            return True
        if self._is_urgent(turn) and turn.t_ms >= self._along_from_t_ms:
            return True
        return self._connected and any(
            pump.points_since_t_ms is not None and turn.t_ms - pump.points_since_t_ms >= TELEMETRY_EVERY_MS
            for pump in self._pumps.values()
        )

    def _gather_telemetry(self, turn: _Turn, pump: WatchedPump, gather: bool) -> None:
        lane = self._outbox.telemetry
        if pump.points_in_waiting_batch and not lane.waits(
            self._speaker.batch_key(pump.setup.pump, pump.batch)
        ):
            # It has its number (or was dropped from a full lane): what is taken now goes into another.
            self._batch_is_gone(pump, pump.points_in_waiting_batch)
        until_t_ms = self._leaves_if_taken_until_t_ms(turn)
        ready = (
            pump.points
            if until_t_ms >= turn.t_ms
            else [point for point in pump.points if point.t_ms <= until_t_ms]
        )
        if not ready or pump.points_since_t_ms is None:
            return
        if not gather and len(ready) < self._points_max:
            return
        pump.points_since_t_ms = turn.t_ms
        while ready:
            batch, ready = ready[: self._points_max], ready[self._points_max :]
            leaves_now = self._connected and lane.has_room
            grows = not leaves_now and len(batch) < self._points_max
            lane.put(
                self._speaker.telemetry(
                    pump.setup.pump, pump.batch, batch, turn.moment, made_t_ms=batch[0].t_ms
                ),
                grows=grows,
            )
            if grows:
                # Further points go into the same batch for as long as it has no number.
                pump.points_in_waiting_batch = len(batch)
            else:
                self._batch_is_gone(pump, len(batch))

    def _leaves_if_taken_until_t_ms(self, turn: _Turn) -> int:
        """All can be dated; while the clock is not set, what was taken so early has waited long enough."""
        if turn.moment.synced or self._stopping_since_t_ms is not None:
            return turn.t_ms
        return turn.t_ms - UNDATED_POINTS_WAIT_MS

    def _gather_history(self, turn: _Turn, gather: bool) -> None:
        """With the telemetry, so that one commit serves for both."""
        points, lane = self._history_points, self._outbox.history
        if gather:
            left_out = points.left_out
            for draft in points.batches(turn.moment, turn.t_ms, self._leaves_if_taken_until_t_ms(turn)):
                lane.put(draft)
            if points.left_out != left_out:
                turn.notes.append(
                    f"history: {points.left_out - left_out} lines left out: the clock was never set"
                )
        # By twenties: each time some are numbered, the card must be written.
        lane.number(turn.t_ms, may_leave=not lane.under_way)
        if lane.dropped != self._history_dropped:
            dropped, self._history_dropped = lane.dropped - self._history_dropped, lane.dropped
            points.dropped(dropped, turn.t_ms, turn.moment)
            turn.notes.append(f"history: {dropped} batches dropped: the server has taken none for too long")

    def _batch_is_gone(self, pump: WatchedPump, points: int) -> None:
        pump.batch += 1
        pump.points = pump.points[points:]
        pump.points_in_waiting_batch = 0

    def _effects(self, turn: _Turn) -> Effects:
        if self._outbox.number(turn.t_ms, connected=self._connected):
            turn.open_changed = True
        dropped = self._outbox.telemetry_dropped
        if dropped != self._batches_dropped:
            turn.notes.append(
                f"telemetry: {dropped - self._batches_dropped} batches dropped, nobody fetches them"
            )
            self._dropped_untold += dropped - self._batches_dropped
            self._batches_dropped = dropped
        commit = self._commit(turn)
        sends = self._sends(turn)
        stopped = self._stopped(turn)
        show = self._status_line(turn)
        panel = self._panel_signal(turn)
        return Effects(
            show=show,
            panel=panel,
            notes=tuple(turn.notes),
            writes=tuple(turn.writes),
            commit=commit,
            fetches=self._outbox.wanted(),
            sends=tuple(sends),
            history=tuple(self._outbox.history.to_send(turn.t_ms)) if self.setup.history else (),
            wake_in_ms=self._wake_in_ms(turn),
            stop=stopped,
        )

    def _is_urgent(self, turn: _Turn) -> bool:
        """Whether something must be on the card at once."""
        return (
            bool(turn.alerts)
            or bool(turn.urgent_pumps)
            or self._outbox.must_commit(connected=self._connected)
            or turn.must_commit
        )

    @property
    def _along_from_t_ms(self) -> int:
        """From when on a commit takes along what need not be written at once."""
        assert self._next_sign_of_life_t_ms is not None
        return self._next_sign_of_life_t_ms - SIGN_OF_LIFE_EVERY_MS + SIGN_OF_LIFE_ALONG_AFTER_MS

    def _commit(self, turn: _Turn) -> Commit | None:
        assert self._next_sign_of_life_t_ms is not None
        if not self._is_urgent(turn) and turn.t_ms < self._next_sign_of_life_t_ms:
            return None
        # Without the telemetry that waits it is none of these: that would wait for another whole time.
        periodic = turn.gathers and (
            turn.t_ms >= self._along_from_t_ms or self._stopping_since_t_ms is not None
        )
        if periodic:
            self._next_sign_of_life_t_ms = turn.t_ms + SIGN_OF_LIFE_EVERY_MS
        lanes = self._outbox.take_changes()
        kept: list[tuple[str, bytes]] = [
            (
                "sign_of_life",
                msgspec.msgpack.encode(
                    _SignOfLife(
                        utc_ms=turn.instant.utc_ms,
                        clean=self._stopping_since_t_ms is not None,
                        timeline=self._timeline.state,
                    )
                ),
            ),
            ("next_alert", msgspec.msgpack.encode(self.book.next_number)),
            ("next_revs", msgspec.msgpack.encode(dict(self.book.next_revs))),
            ("requests", msgspec.msgpack.encode(_Requests(answered=dict(self._answered)))),
            ("pump/gateway", msgspec.msgpack.encode(self._gateway_inhibition.state)),
            ("telemetry_dropped", msgspec.msgpack.encode(self._dropped_untold)),
            *self._outbox.kept(),
        ]
        kept.extend(
            (f"pump/{token}", pump.kept())
            for token, pump in self._pumps.items()
            if periodic or token in turn.urgent_pumps
        )
        kept.extend(
            (f"order/{token}", msgspec.msgpack.encode(pump.orders))
            for token, pump in self._pumps.items()
            if token in turn.urgent_pumps
        )
        changed = tuple((name, data) for name, data in kept if self._handed_over.get(name) != data)
        self._handed_over.update(changed)
        number = self._outbox.commit_begins()
        return Commit(number=number, alerts=tuple(turn.alerts), lanes=lanes, kept=changed)

    def _sends(self, turn: _Turn) -> list[Send]:
        if not self._connected:
            return []
        sends = [self._outbox.send(message) for message in self._introduction(turn)] if turn.connected else []
        sends.extend(self._outbox.to_send(turn.t_ms))
        utc_ms, synced = turn.instant.utc_ms, turn.moment.synced
        outbox, as_of = self._outbox, self._outbox.as_of
        if turn.open_changed:
            sends.append(self._outbox.send(self._speaker.open(outbox.told, as_of, utc_ms, synced)))
        if turn.alerts:
            # The card and the alert come first: how the pump is now follows with the next turn, behind them.
            return sends
        for pump in self._pumps.values():
            message = self._state_message(turn, pump)
            if message is not None:
                sends.append(self._outbox.send(message))
        if turn.t_ms >= self._next_beat_t_ms:
            self._next_beat_t_ms = turn.t_ms + BEAT_EVERY_MS
            sends.append(
                self._outbox.send(
                    self._speaker.beat(
                        utc_ms,
                        synced,
                        told_alerts=outbox.told,
                        as_of=as_of,
                        lanes={name: (lane.oldest, lane.next_seq) for name, lane in outbox.lanes.items()},
                        pumps={
                            token: (pump.link(turn.uptime_ms), pump.age_ms(turn.uptime_ms))
                            for token, pump in self._pumps.items()
                        },
                    )
                )
            )
        return sends

    def _state_message(self, turn: _Turn, pump: WatchedPump) -> Message | None:
        """The pump's state, if it is time for it: on change, each minute, more often while watched."""
        status = self._status(turn, pump)
        link = pump.link(turn.uptime_ms)
        absence = pump.absences.longest()
        essence = projections.essence(pump.reading, status, link, absence)
        due = pump.published_t_ms is None or turn.t_ms - pump.published_t_ms >= self._state_every_ms(turn)
        if essence == pump.published and not due:
            return None
        pump.published = essence
        pump.published_t_ms = turn.t_ms
        return self._speaker.state(
            pump.setup.pump,
            turn.instant.utc_ms,
            turn.moment.synced,
            reading=pump.reading,
            age_ms=pump.age_ms(turn.uptime_ms),
            status=status,
            urgency=pump.urgency,
            origin=pump.setup.origin,
            driver_status=pump.setup.driver_status,
            absence=None
            if absence is None
            else (absence.what, turn.instant.utc_ms + absence.until_t_ms - turn.t_ms),
        )

    def _status(self, turn: _Turn, pump: WatchedPump) -> DeliveryStatus:
        status = turn.statuses.get(pump.setup.pump)
        if status is None:
            status = turn.statuses[pump.setup.pump] = pump.status(turn.instant)
        return status

    def _state_every_ms(self, turn: _Turn) -> int:
        watched = self._watched_t_ms is not None and turn.t_ms - self._watched_t_ms <= WATCH_HOLDS_MS
        return STATE_WHILE_WATCHED_EVERY_MS if watched else STATE_EVERY_MS

    def _stopped(self, turn: _Turn) -> bool:
        """Whether a requested stop is complete: everything on the card, and the goodbye handed to the
        broker.
        """
        if self._stopping_since_t_ms is None:
            return False
        given_up = turn.t_ms - self._stopping_since_t_ms >= STOPPING_TAKES_MS
        return given_up or not self._outbox.commits_under_way

    def last_will(self, moment: Moment) -> Message:
        """What the broker is to say when the gateway is lost; its ``time`` is that of connecting.

        May be asked from another thread: it looks at nothing that changes.
        """
        return self._speaker.status(
            moment.utc_ms, moment.synced, online=False, version=self.setup.version, pumps=tuple(self._pumps)
        )

    def goodbye(self, moment: Moment) -> Message | None:
        """The status for a clean stop, to be sent last; ``None`` while there is no broker."""
        if not self._connected:
            return None
        return self.last_will(moment)

    def _panel_signal(self, turn: _Turn) -> PanelSignal | None:
        if self._panel is None:
            return None
        return self._panel.signal(
            turn.t_ms,
            turn.uptime_ms,
            alerts=self.book.open.values(),
            pumps=[(pump, self._status(turn, pump)) for pump in self._pumps.values()],
            urgency=self._highest_urgency(),
            has_broker=self.setup.mqtt,
            connected=self._connected,
            watched_t_ms=self._watched_t_ms,
            storage_ok=not self._storage_failing,
        )

    def _wake_in_ms(self, turn: _Turn) -> int:
        wakes: list[int | None] = [self._next_sign_of_life_t_ms, self.book.next_due_t_ms()]
        for pump in self._pumps.values():
            wakes.append(pump.next_wake_t_ms())
            for uptime_ms in (pump.silent_from_uptime_ms, pump.garbled_from_uptime_ms):
                if uptime_ms is not None and uptime_ms > turn.uptime_ms:
                    wakes.append(turn.t_ms + uptime_ms - turn.uptime_ms)
            if self._connected and pump.points and pump.points_since_t_ms is not None:
                due_t_ms = pump.points_since_t_ms + TELEMETRY_EVERY_MS
                # What is due and not gathered cannot be dated yet.
                wakes.append(due_t_ms if due_t_ms > turn.t_ms else None)
            if pump.absences.on or pump.absences.not_seen_over:
                wakes.append(turn.t_ms + 1_000)
            if self._connected and pump.published_t_ms is not None:
                wakes.append(pump.published_t_ms + self._state_every_ms(turn))
        if self._stopping_since_t_ms is not None:
            wakes.append(turn.t_ms + 1_000)
        if self._thrown_out_t_ms is not None:
            wakes.append(max(turn.t_ms + 1_000, self._thrown_out_t_ms + ALONE_AFTER_MS))
        wakes.append(self._panel.next_wake_t_ms if self._panel is not None else None)
        wakes.extend(
            session.next_due_ms()
            for port, session in self._sessions.items()
            if self._ports[port][0].port_open
        )
        if self._connected:
            wakes.append(self._next_beat_t_ms)
            wakes.extend(self._outbox.next_resend_t_ms())
        return max(0, min(wake for wake in wakes if wake is not None) - turn.t_ms)

    def _status_line(self, turn: _Turn) -> str | None:
        """One line for the person at the gateway; ``None`` if it has not changed."""
        open_now = sum(alert.state is not AlertState.LATCHED for alert in self.book.open.values())
        broker = self._outbox.broker_answers.shown() if self._connected else None
        pumps = [
            (
                token,
                pump.link(turn.uptime_ms),
                PumpState.UNKNOWN if pump.reading is None else pump.reading.state,
                self._status(turn, pump).verdict,
            )
            for token, pump in self._pumps.items()
        ]
        shown = (broker, pumps, open_now)
        if shown == self._shown:
            return None
        self._shown = shown
        if broker is not None:
            parts = [f"broker connected{broker}"]
        else:
            parts = ["no broker" if self.setup.mqtt else "no broker configured"]
        parts += [
            f"{token}: link {link}, pump says {said}, {verdict.replace('_', ' ')}"
            for token, link, said, verdict in pumps
        ]
        parts.append(f"{open_now} open alerts" if open_now != 1 else "1 open alert")
        return "; ".join(parts)


def _decoded(data: bytes | None, type_: type[_Kept]) -> _Kept | None:
    """Raises KeptUnreadable: without it numbers and names would be given twice."""
    if data is None:
        return None
    try:
        return msgspec.msgpack.decode(data, type=type_)
    except msgspec.DecodeError as error:
        raise KeptUnreadable(str(error)) from error


def _known(data: bytes | None, type_: type[_Kept]) -> _Kept | None:
    """As ``_decoded`` for what can be done without: what cannot be read is as if it had not been kept."""
    try:
        return _decoded(data, type_)
    except KeptUnreadable:
        return None


def _span(duration_ms: int) -> str:
    seconds = max(0, duration_ms) // 1000
    if seconds < 120:
        return f"{seconds} s"
    if seconds < 7_200:
        return f"{seconds // 60} min"
    return f"{seconds // 3600} h {seconds % 3600 // 60} min"
