"""One pump as the engine holds it: its setting, the watch over it, and what is kept of it over a restart."""

from __future__ import annotations

from enum import StrEnum

import msgspec
from msgspec import Struct

from alerts.catalogue import respond_within_s
from alerts.condition import Finding, Kind, Priority, Urgency
from alerts.inhibition import Inhibition, InhibitionState
from drivers.reading import Reading
from gateway import absences, projections
from gateway.absences import Absences
from gateway.core.monitor import DeliveryStatus, DeliveryVerdict, Monitor
from gateway.core.order import OrderError, parse_order
from gateway.core.prescription import Prescription
from gateway.core.timeline import GapKind, Instant
from gateway.orders import FILE_VERSION, KnownOrder, PumpOrders, at_start

SILENT_AFTER_POLLS = 3
SILENT_AFTER_MIN_MS = 10_000
GARBLED_FOR_MS = 30_000
SEEN_BY_THE_ENGINE = frozenset(
    {
        Kind.NO_PRESCRIPTION,
        Kind.GARBLED_LINK,
        Kind.WRONG_PUMP,
        Kind.ABSENCE_BEGAN,
        Kind.ABSENCE_OVERDUE,
    }
)
"""Conditions of a pump that no prescription is needed for: they go on over a change of it."""


class PumpSetup(Struct, frozen=True, kw_only=True):
    """One pump, ready to be watched."""

    pump: str
    port: str
    address: int | None
    poll_ms: int
    """As configured; an order may ask for less between two readings."""
    origin: str
    driver_status: str
    serial_number: str | None
    prescription: Prescription | None
    """That of the file, if one was given: version 0 of the order."""
    prescription_text: str | None
    """What ``prescription`` was read from; ``None`` without one."""
    prescription_sha256: str | None

    @property
    def file(self) -> KnownOrder | None:
        """The prescription that was given as a file."""
        if self.prescription is None or self.prescription_sha256 is None:
            return None
        text = self.prescription_text or ""
        return KnownOrder(version=FILE_VERSION, sha256=self.prescription_sha256, text=text)


class PumpKept(Struct, frozen=True, kw_only=True):
    """What is kept of a pump over a restart."""

    prescription_sha256: str | None
    """Of the order in force."""
    monitor: bytes
    inhibition: InhibitionState
    urgency: Urgency
    origin: str
    driver_status: str
    adopted_serial: str | None = None
    configured_serial: str | None = None
    """Which serial number was configured when that one was adopted."""
    absences: Absences = Absences()
    gap_before_next_reading: GapKind = GapKind.NONE


class Resumed(StrEnum):
    """How the watch over a pump goes on after a start of the gateway."""

    AS_LEFT = "as_left"
    WITH_A_NEW_ORDER = "with_a_new_order"
    """The order that was in force is remembered, and its file holds another one now."""
    ANEW = "anew"


class WatchedPump:
    """All that the engine holds of one pump. Only the engine touches it."""

    def __init__(self, setup: PumpSetup, kept: PumpKept | None, orders: PumpOrders | None) -> None:
        self.setup = setup
        self.orders_told = orders or PumpOrders()
        """As the newest answer on the order's topic tells them."""
        self.orders = at_start(self.orders_told, setup.file)
        self.monitor, self.inhibition, self.resumed = _resume(setup, self.orders, kept, self.orders_told)
        self._poll_of: Prescription | None = None
        self._poll_ms = setup.poll_ms
        self.reading: Reading | None = None
        self.heard_uptime_ms: int | None = None
        self.port_open = False
        self.has_said_who_it_is = False
        """Since the port was opened: while it was not, somebody may have put another pump there."""
        self.gap_before_next_reading = kept.gap_before_next_reading if kept is not None else GapKind.NONE
        """Of unknown length: nobody knows how much time lies between the last reading and the next."""
        self.timers_wait_until_t_ms = 0
        self.garbled_since_uptime_ms: int | None = None
        self.garbled = self.has(Kind.GARBLED_LINK)
        self.wrong_pump = setup.serial_number is not None and self.has(Kind.WRONG_PUMP)
        self.other_serial: str | None = None
        """Of the pump that answers and is not the right one."""
        self.adopted_serial = (
            kept.adopted_serial
            if kept is not None and kept.configured_serial == setup.serial_number
            else None
        )
        self.absences = kept.absences if kept is not None else Absences()
        self.link_told = ""
        self.points: list[projections.Point] = []
        self.points_since_t_ms: int | None = None
        self.batch = 0
        self.points_in_waiting_batch = 0
        self.published: tuple[object, ...] | None = None
        self.published_t_ms: int | None = None

    @property
    def right_serial(self) -> str | None:
        """Of the pump that may be judged: the adopted one, else that of the configuration; ``None``: any."""
        return self.adopted_serial or self.setup.serial_number

    @property
    def prescription(self) -> Prescription | None:
        """The order in force."""
        return self.monitor.prescription

    @property
    def poll_ms(self) -> int:
        """How often it is to be read: as configured, or more often if the order asks for it."""
        prescription = self.prescription
        if prescription is not self._poll_of:
            # Asked for with every input, and another only with another order.
            self._poll_of = prescription
            at_most_ms = self.setup.poll_ms if prescription is None else prescription.poll_at_most_ms
            self._poll_ms = min(self.setup.poll_ms, at_most_ms)
        return self._poll_ms

    @property
    def urgency(self) -> Urgency:
        """What is at stake; without an order, the middle of the table."""
        return _urgency(self.prescription)

    @property
    def respond_within_s(self) -> dict[Priority, int]:
        """How soon somebody must have acknowledged."""
        prescription = self.prescription
        if prescription is None:
            return respond_within_s(self.urgency)
        return {priority: ms // 1000 for priority, ms in prescription.respond_within_ms.items()}

    def has(self, kind: Kind) -> bool:
        """Whether this condition of it is open."""
        return any(known.kind is kind for known in self.inhibition.state.open)

    def link(self, uptime_ms: int) -> str:
        """``up``, ``down``, ``silent`` or ``garbled`` (mqtt page, ``beat``)."""
        if not self.port_open:
            return "down"
        silent_from_uptime_ms = self.silent_from_uptime_ms
        if silent_from_uptime_ms is not None and uptime_ms < silent_from_uptime_ms:
            return "up"
        return "garbled" if self.garbled_since_uptime_ms is not None else "silent"

    @property
    def silent_from_uptime_ms(self) -> int | None:
        """From when on its link is no longer up, if nothing more is heard; ``None``: it never was."""
        if self.heard_uptime_ms is None:
            return None
        return self.heard_uptime_ms + max(SILENT_AFTER_POLLS * self.poll_ms, SILENT_AFTER_MIN_MS) + 1

    @property
    def garbled_from_uptime_ms(self) -> int | None:
        """From when on its link is garbled for too long, if nothing is heard that makes sense."""
        since_uptime_ms = self.garbled_since_uptime_ms
        return None if since_uptime_ms is None else since_uptime_ms + GARBLED_FOR_MS

    def status(self, instant: Instant) -> DeliveryStatus:
        """How delivery stands, as a board shows it: while an absence is on it is not judged (mqtt page)."""
        status = self.monitor.status(instant)
        if not self.absences.on:
            return status
        return msgspec.structs.replace(status, verdict=DeliveryVerdict.UNKNOWN, decidable_after_s=None)

    def seen(self, uptime_ms: int) -> absences.Seen:
        """What of it tells whether an absence is over."""
        return absences.Seen(
            heard=self.link(uptime_ms) == "up",
            silence_is_told=self.has(Kind.NO_DATA),
            stands=self.monitor.is_interrupted,
        )

    def seen_by(self, instant: Instant) -> Instant:
        """The same for its monitor: a restart before it is heard again belongs to that same gap."""
        if self.gap_before_next_reading is GapKind.NONE or instant.gap is not GapKind.RESTART:
            return instant
        return msgspec.structs.replace(instant, gap=GapKind.RESTART_RESOLVED)

    def meets_gap(self, instant: Instant, unseen_ms: int) -> None:
        """A restart has left a gap of unknown length, or its length has become known.

        Time that was added passed while nobody could see it: it is no silence of the pump. So its timers wait
        until it has been heard again, or has been silent for as long as it may be. ``unseen_ms`` is how much
        was added.
        """
        if instant.gap is GapKind.RESTART_UNKNOWN:
            self.absences = absences.cut_off(self.absences, instant.t_ms)
        elif instant.gap is GapKind.RESTART_RESOLVED:
            self.absences = absences.moved(self.absences, unseen_ms)
        if instant.gap in (GapKind.RESTART_UNKNOWN, GapKind.RESTART_RESOLVED):
            self.gap_before_next_reading = instant.gap
        if instant.gap is GapKind.RESTART_RESOLVED and self.prescription is not None:
            self.timers_wait_until_t_ms = instant.t_ms + self.prescription.limits.no_data_after_ms

    def revise(self, order: KnownOrder, instant: Instant) -> tuple[Finding, ...]:
        """Take a new version of the order: what has changed by that. ``follow`` says whether it is in force.

        Raises OrderError, and changes nothing, if its text is no prescription.
        """
        # Times that wait until the pump has been heard again do not run out by this.
        in_time = instant.t_ms >= self.timers_wait_until_t_ms
        passed = self.monitor.step(instant, None) if in_time else ()
        return (
            *passed,
            *self.monitor.revise(
                order.text,
                instant,
                on_programming=order.on_programming,
                effective_by_utc_ms=order.effective_by_utc_ms,
            ),
        )

    def follow(self) -> PumpOrders | None:
        """What the newest answer told of the orders, if others hold now; what holds counts as told then."""
        if self.orders.waiting is not None and not self.monitor.waits_for_programming:
            self.orders = self.orders.with_force_taken()
        told, self.orders_told = self.orders_told, self.orders
        as_told = (told.in_force, told.waiting) == (self.orders.in_force, self.orders.waiting)
        return None if as_told else told

    def next_wake_t_ms(self) -> int | None:
        """When a timer of the watch over this pump is up."""
        wake_t_ms = self.monitor.next_wake_t_ms()
        return None if wake_t_ms is None else max(wake_t_ms, self.timers_wait_until_t_ms)

    def age_ms(self, uptime_ms: int) -> int | None:
        """Age of the newest reading."""
        return None if self.heard_uptime_ms is None else uptime_ms - self.heard_uptime_ms

    def kept(self) -> bytes:
        """What must be found again after a restart."""
        return msgspec.msgpack.encode(
            PumpKept(
                prescription_sha256=self.orders.in_force.sha256 if self.orders.in_force else None,
                # The texts stand with the orders: they are long, and this is written each half minute.
                monitor=self.monitor.snapshot(with_orders=False),
                inhibition=self.inhibition.state,
                urgency=self.urgency,
                origin=self.setup.origin,
                driver_status=self.setup.driver_status,
                adopted_serial=self.adopted_serial,
                configured_serial=self.setup.serial_number,
                absences=self.absences,
                gap_before_next_reading=self.gap_before_next_reading,
            )
        )


def _urgency(prescription: Prescription | None) -> Urgency:
    return prescription.urgency if prescription else Urgency.TIMED


def _prescription(setup: PumpSetup, order: KnownOrder | None) -> Prescription | None:
    """The order that is to be in force; ``None`` also if it was accepted by another version of Dripwatch, and
    this one cannot read it.
    """
    if order is None or order.is_file:
        return setup.prescription
    try:
        return parse_order(order.text)
    except OrderError:
        return None


def _resume(
    setup: PumpSetup, orders: PumpOrders, kept: PumpKept | None, orders_then: PumpOrders
) -> tuple[Monitor, Inhibition, Resumed]:
    """The watch over a pump as it was left, or a new one; and which of them.

    It begins anew where the prescription has been taken away, and where what was remembered was written by
    another version: then the infusion is joined as one that is found running.
    """
    order = orders.in_force
    prescription = _prescription(setup, order)
    urgency = _urgency(prescription)
    if kept is not None:
        same = kept.prescription_sha256 == (None if order is None else order.sha256)
        try:
            monitor = Monitor.restore(
                setup.pump,
                prescription if same else None,
                kept.monitor,
                poll_ms=setup.poll_ms,
                orders=orders_then.versions(),
            )
        except ValueError:
            pass
        else:
            old_is_known = kept.prescription_sha256 is None or monitor.prescription is not None
            if same:
                return monitor, Inhibition(urgency, kept.inhibition), Resumed.AS_LEFT
            if prescription is not None and old_is_known:
                return monitor, Inhibition(urgency, kept.inhibition), Resumed.WITH_A_NEW_ORDER
    known = kept.inhibition.open if kept is not None else ()
    still_seen = InhibitionState(open=tuple(one for one in known if one.kind in SEEN_BY_THE_ENGINE))
    text = order.text if order is not None and prescription is not None else ""
    monitor = Monitor(setup.pump, prescription, poll_ms=setup.poll_ms, order_text=text or None)
    return monitor, Inhibition(urgency, still_seen), Resumed.ANEW
