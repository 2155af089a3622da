"""The heart: one pump, one prescription, one reading after another.

``Monitor.step`` takes a reading, or only the time, and returns what has changed: findings that a condition of
the prescription page is now present or absent. Live operation and replay call the same. What is held back
behind a cause, and what becomes of an alert, is decided in ``alerts/``.

Within a step the order is always this: timers whose time was up before the reading; the reading
(``watch.py``); what the pump says outright; timers that are up now. All arithmetic is on ``t_ms``; the wall
clock only anchors the schedule and is printed. ``unknown`` is no reading.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec
from msgspec import Struct

from alerts.condition import Finding, Kind
from drivers.reading import UNKNOWN_ALARM, PumpAlarm, PumpState, Reading
from gateway.core import assess, revision
from gateway.core.case import CONFIRMING_READINGS, Case
from gateway.core.memory import Doing, Findings, Memory
from gateway.core.order import OrderError, parse_order
from gateway.core.prescription import Prescription, PumpExpected
from gateway.core.pressure import occlusion_blind_s
from gateway.core.quiet import Bounds
from gateway.core.timeline import GapKind, Instant
from gateway.core.versions import Orders, WaitingOrder
from gateway.core.watch import Watch

_SNAPSHOT_VERSION = 8
DEVIATIONS = frozenset(
    {
        Kind.NOT_STARTED,
        Kind.DOSE_TOO_SOON,
        Kind.WRONG_RATE,
        Kind.UNDER_INFUSION,
        Kind.OVER_INFUSION,
        Kind.NO_DELIVERY,
        Kind.FREE_FLOW,
        Kind.UNSCHEDULED_DELIVERY,
        Kind.NOT_ENDED,
        Kind.LATE_END,
        Kind.PAUSED_TOO_LONG,
        Kind.REPEATED_INTERRUPTION,
        Kind.KVO_TOO_LONG,
        Kind.LIMIT_EXCEEDED,
        Kind.PROGRAM_CHANGED,
        Kind.OCCLUSION,
        Kind.OCCLUSION_SUSPECTED,
        Kind.BAG_EMPTY,
        Kind.MEASUREMENT_MISMATCH,
    }
)
"""With one of these present delivery is not, or will not be, as ordered: the verdict is ``deviation``.

Not among them: ``bag_empty_soon`` (so far all is as ordered, and a new bag keeps it so), ``demand_pattern``
(the pump gives what is ordered; it is the patient who is asked after), ``no_data`` (``unknown``). A
``pump_alarm`` is one while the pump stands in it: a low battery is not.
"""
_DEMANDS = (PumpAlarm.DEMAND, PumpAlarm.DEMAND_DENIED)
_NOTICES = (*_DEMANDS, PumpAlarm.NEAR_EMPTY)


class DeliveryVerdict(StrEnum):
    """What a board says of a pump (MQTT page, ``state``)."""

    ON_PLAN = "on_plan"
    """The pump counts what was ordered. It says nothing of what reaches the patient."""
    DEVIATION = "deviation"
    TOO_EARLY = "too_early"
    """Not yet decidable."""
    UNKNOWN = "unknown"
    NOT_EXPECTED = "not_expected"
    """Nothing is due."""


class DeliveryStatus(Struct, frozen=True, kw_only=True):
    """How delivery stands now, for boards and ``replay --states``."""

    verdict: DeliveryVerdict
    expected_ml: float | None = None
    delivered_ml: float | None = None
    occurrence: tuple[int, int] | None = None
    """Number, and due time on the wall clock (``utc_ms``)."""
    ends_at_utc_ms: int | None = None
    """When the occurrence will be over if delivery goes on now; also while it is interrupted."""
    decidable_after_s: int | None = None
    """From when on silence would mean "on plan"; 0 now, ``None`` never or nothing to decide."""
    rate_ml_h: float | None = None
    bag_empty_at_utc_ms: int | None = None
    """At the present set rate; ``None`` while nothing runs, and without ``[bag]``."""
    occlusion_blind_s: int | None = None
    """How long a closed line could stay hidden at this rate; ``None`` while nothing is delivered."""
    pump_error_percent: float | None = None
    """By how much the pump counts more than it is set to, as learnt from earlier doses."""
    pump_error_half_width_percent: float | None = None
    """Of the 95 % interval."""


Condition = tuple[Kind, str | None]
"""A kind, and the pump's code where there is one."""


class _Standing(Struct, frozen=True, kw_only=True):
    """How delivery stands after a step, as far as it does not hang on what the time is."""

    status: DeliveryStatus
    is_judged: bool
    """If not, the verdict hangs on whether something is due by now."""
    ends_in_ms: int | None
    empty_in_ms: int | None


class _Snapshot(Struct, array_like=True):
    version: int
    memory: Memory


class Monitor:
    """Watches one pump. Owns its memory and changes it in place; what goes in and out is frozen.

    Without a prescription only what the pump says outright is judged, and the verdict is unknown.
    """

    def __init__(
        self,
        pump: str,
        prescription: Prescription | None,
        *,
        poll_ms: int | None = None,
        order_text: str | None = None,
    ) -> None:
        """``order_text``, where given, is that of ``prescription``: then a snapshot holds it too."""
        self._build(pump, prescription, poll_ms, Memory(orders=Orders(in_force=order_text)))

    def _build(
        self, pump: str, prescription: Prescription | None, poll_ms: int | None, memory: Memory
    ) -> None:
        self.pump = pump
        self.prescription = prescription
        """The order in force: what was given, or a later version."""
        self._poll_ms = poll_ms
        self.memory = memory
        """All that is remembered; only this and ``stretch.py`` change it."""
        self._findings = Findings(memory)
        self._watch: Watch | None = None
        self._waiting: Case | None = None
        self._ended_by_order: set[Condition] = set()
        self.bounds: Bounds | None = None
        """Within these a reading brings no news."""
        self._standing: _Standing | None = None
        """Until the next step: it is asked for far more often than it changes."""
        if prescription is not None:
            self._watch = Watch(prescription, poll_ms, memory, self._findings)
        if memory.orders.waiting is not None:
            self._waiting = self._case_of(parse_order(memory.orders.waiting.text))

    def step(self, instant: Instant, reading: Reading | None) -> tuple[Finding, ...]:
        """Take one reading, or (``None``) only the time. What has changed, in order of ``at_ms``.

        Instants must come in order of ``t_ms``.
        """
        watch = self._watch
        bounds = self.bounds
        self._standing = None
        if bounds is not None:
            assert watch is not None, "bounds come from a prescription"
            if reading is not None and watch.quiet.passes(bounds, instant, reading):
                return ()
            self.bounds = None
        t_ms = instant.t_ms
        known = reading is not None and reading.state is not PumpState.UNKNOWN
        # what a gap of unknown length turns out to have added is time that nobody could see pass
        if watch is not None and instant.gap is not GapKind.RESTART_RESOLVED:
            watch.timers.run(t_ms, inclusive=not known)
        moved_ms = instant.moved_ms if t_ms > self.memory.t_ms else 0
        self._take_time(instant)
        if watch is not None:
            if instant.gap is GapKind.RESTART_UNKNOWN:
                watch.forget_dates(t_ms)
            watch.date(t_ms, moved_ms)
        if reading is not None and known:
            if self._waiting is not None:
                self._look_whether_programmed(reading, t_ms)
                watch = self._watch
            if watch is None:
                self.memory.seen_t_ms = t_ms
            else:
                watch.timers.heard(t_ms)
                watch.read(reading, t_ms, length_known=instant.gap in (GapKind.NONE, GapKind.RESTART))
            self._hear_alarms(reading, t_ms)
            if watch is not None:
                watch.timers.run(t_ms, inclusive=True)
        said = self._findings.take()
        if not said and known and watch is not None and reading is not None:
            self.bounds = watch.quiet.bounds(reading)
        return said

    def revise(
        self,
        order_text: str,
        instant: Instant,
        *,
        on_programming: bool = False,
        effective_by_utc_ms: int | None = None,
    ) -> tuple[Finding, ...]:
        """Take a new version of the order, as prescription.toml's text. What has changed by that.

        It takes force now; with ``on_programming`` when the pump is set to it, and until then the old one
        holds (at once if both order the same rate now, or none was in force). If that has not happened by
        ``effective_by_utc_ms``, there is ``order_not_programmed``. A version that still waits is replaced.
        ``gateway/core/revision.py`` has the rules.

        No time passes by this: ``step`` to the same instant first. Raises OrderError, and changes nothing,
        if the text is no prescription.
        """
        prescription = parse_order(order_text)
        memory = self.memory
        self._standing = None
        self._take_time(msgspec.structs.replace(instant, stepped_ms=0))
        self._findings.absent(
            Kind.ORDER_NOT_PROGRAMMED, instant.t_ms, "A newer order has come in place of the one that waited."
        )
        new = self._case_of(prescription)
        if on_programming and self._watch is not None and not revision.rates_agree(self._watch.case, new):
            memory.orders.waiting = WaitingOrder(text=order_text, effective_by_utc_ms=effective_by_utc_ms)
            self._waiting = new
            self.bounds = None
        else:
            self._put_in_force(order_text, prescription, instant.t_ms)
        return self._findings.take()

    @property
    def is_interrupted(self) -> bool:
        """Whether the pump stands within an occurrence, by its last reading."""
        return self.memory.doing is Doing.INTERRUPTED

    @property
    def waits_for_programming(self) -> bool:
        """Whether a version of the order waits until the pump is set to it."""
        return self._waiting is not None

    def take_ended_by_order(self) -> frozenset[Condition]:
        """What was present, and is not so by the limits of a version that has taken force since this was last
        asked: nobody has examined it, and nothing says that it is over.
        """
        ended = frozenset(self._ended_by_order)
        self._ended_by_order.clear()
        return ended

    def next_wake_t_ms(self) -> int | None:
        """When a timer is up if nothing is heard before; ``None`` if none runs."""
        wake_t_ms = None if self._watch is None else self._watch.timers.next_t_ms()
        return None if wake_t_ms is None else max(wake_t_ms, self.memory.t_ms)

    def status(self, instant: Instant) -> DeliveryStatus:
        """How delivery stands at this instant, as far as the last reading tells."""
        standing = self._standing
        if standing is None:
            standing = self._standing = self._stand()
        status = standing.status
        if not standing.is_judged:
            assert self._watch is not None, "without an order the verdict is unknown"
            if self._watch.case.is_due(instant.t_ms):
                return msgspec.structs.replace(status, verdict=DeliveryVerdict.TOO_EARLY)
        if standing.ends_in_ms is None:
            return status
        return msgspec.structs.replace(
            status,
            ends_at_utc_ms=instant.utc_ms + standing.ends_in_ms,
            bag_empty_at_utc_ms=None
            if standing.empty_in_ms is None
            else instant.utc_ms + standing.empty_in_ms,
        )

    def _stand(self) -> _Standing:
        memory = self.memory
        occurrence = memory.occurrence
        watch = self._watch
        if watch is None or memory.next_number is None or self._findings.is_present(Kind.NO_DATA):
            return _Standing(
                status=DeliveryStatus(verdict=DeliveryVerdict.UNKNOWN, rate_ml_h=memory.rate_ml_h),
                is_judged=True,
                ends_in_ms=None,
                empty_in_ms=None,
            )
        decidable_after_s = watch.volumes.decidable_after_s()
        verdict = self._verdict(watch, decidable_after_s)
        usual = watch.learning.error
        error_percent = None if usual is None else usual.error * 100
        half_width_percent = None if usual is None else usual.half_width * 100
        blind_s = self._occlusion_blind_s(watch.case.expected)
        if occurrence is None:
            return _Standing(
                status=DeliveryStatus(
                    verdict=verdict or DeliveryVerdict.NOT_EXPECTED,
                    rate_ml_h=memory.rate_ml_h,
                    occlusion_blind_s=blind_s,
                    pump_error_percent=error_percent,
                    pump_error_half_width_percent=half_width_percent,
                ),
                is_judged=verdict is not None,
                ends_in_ms=None,
                empty_in_ms=None,
            )
        assert verdict is not None, "within an occurrence something is due"
        return _Standing(
            status=DeliveryStatus(
                verdict=verdict,
                expected_ml=occurrence.expected_ml,
                delivered_ml=occurrence.counted_ml,
                occurrence=(occurrence.number, occurrence.due_utc_ms),
                decidable_after_s=decidable_after_s,
                rate_ml_h=memory.rate_ml_h,
                occlusion_blind_s=blind_s,
                pump_error_percent=error_percent,
                pump_error_half_width_percent=half_width_percent,
            ),
            is_judged=True,
            ends_in_ms=watch.case.ends_in_ms(),
            empty_in_ms=watch.bag.empty_in_ms(),
        )

    def _occlusion_blind_s(self, pump: PumpExpected) -> int | None:
        memory = self.memory
        if memory.doing not in (Doing.DELIVERING, Doing.KVO):
            return None
        return occlusion_blind_s(memory.rate_ml_h, pump, pressure_is_seen=memory.pressure.is_known)

    def _verdict(self, watch: Watch, decidable_after_s: int | None) -> DeliveryVerdict | None:
        """``None``: it hangs on whether something is due by now."""
        memory = self.memory
        if memory.present and self._deviates():
            return DeliveryVerdict.DEVIATION
        if memory.occurrence is None:
            return None
        if watch.volumes.counts_unseen():
            return DeliveryVerdict.UNKNOWN
        return DeliveryVerdict.ON_PLAN if decidable_after_s == 0 else DeliveryVerdict.TOO_EARLY

    def _deviates(self) -> bool:
        kinds = self._findings.present_kinds()
        stands = self.memory.doing is Doing.INTERRUPTED
        return not DEVIATIONS.isdisjoint(kinds) or (stands and Kind.PUMP_ALARM in kinds)

    def snapshot(self, *, with_orders: bool = True) -> bytes:
        """All that is remembered, for the way over a restart; the orders' texts may be kept elsewhere."""
        memory = self.memory if with_orders else msgspec.structs.replace(self.memory, orders=Orders())
        return msgspec.msgpack.encode(_Snapshot(_SNAPSHOT_VERSION, memory))

    @classmethod
    def restore(
        cls,
        pump: str,
        prescription: Prescription | None,
        data: bytes,
        *,
        poll_ms: int | None = None,
        orders: Orders | None = None,
    ) -> Monitor:
        """The monitor that ``snapshot`` was taken of.

        ``orders`` are those of then, for a snapshot that does not hold them; ``prescription``, the order in
        force then, counts only if neither holds its text. Raises ValueError if ``data`` is not a snapshot of
        this version, or an order in it cannot be read.
        """
        try:
            version = msgspec.msgpack.decode(data, type=list)[0]
            if version != _SNAPSHOT_VERSION:
                raise ValueError(
                    f"what was remembered of {pump} is of version {version!r}: watching starts anew"
                )
            snapshot = msgspec.msgpack.decode(data, type=_Snapshot)
        except (msgspec.MsgspecError, IndexError) as error:
            raise ValueError(f"what was remembered of {pump} cannot be read: {error}") from error
        monitor = cls.__new__(cls)
        if orders is not None and snapshot.memory.orders == Orders():
            snapshot.memory.orders = orders
        in_force = snapshot.memory.orders.in_force
        try:
            if in_force is not None:
                prescription = parse_order(in_force)
            monitor._build(pump, prescription, poll_ms, snapshot.memory)
        except OrderError as error:
            raise ValueError(f"an order that was remembered of {pump} cannot be read: {error}") from error
        return monitor

    def _case_of(self, prescription: Prescription) -> Case:
        return Case(prescription, self._poll_ms, self.memory, self._findings)

    def _look_whether_programmed(self, reading: Reading, t_ms: int) -> None:
        """A version that waits takes force with the reading that shows the pump set to it."""
        waiting = self.memory.orders.waiting
        new = self._waiting
        assert waiting is not None and new is not None, "asked only while one waits"
        assert self._watch is not None, "without an order in force nothing waits"
        if revision.is_programmed(reading, self._watch.case, new):
            self._findings.absent(Kind.ORDER_NOT_PROGRAMMED, t_ms, "The pump is set to the new order.")
            self._put_in_force(waiting.text, new.order, t_ms)

    def _put_in_force(self, order_text: str, prescription: Prescription, t_ms: int) -> None:
        old = self._watch
        self.memory.orders = Orders(in_force=order_text)
        self._waiting = None
        self.bounds = None
        self.prescription = prescription
        self._watch = Watch(prescription, self._poll_ms, self.memory, self._findings)
        if old is None:
            words = revision.first_words(self._watch.case)
            self._findings.present(Kind.ORDER_CHANGED, t_ms, words)
        else:
            before = self._findings.present_conditions()
            revision.take_force(old.case, self._watch, t_ms)
            self._ended_by_order |= before - self._findings.present_conditions()

    def _take_time(self, instant: Instant) -> None:
        memory = self.memory
        if memory.started_t_ms is None:
            memory.started_t_ms = instant.t_ms
        memory.t_ms = instant.t_ms
        memory.utc_offset_ms = instant.utc_ms - instant.t_ms
        schedule_utc_ms = instant.schedule_utc_ms
        memory.schedule_offset_ms = None if schedule_utc_ms is None else schedule_utc_ms - instant.t_ms
        if instant.stepped_ms:
            way = "forward" if instant.stepped_ms > 0 else "back"
            self._findings.present(
                Kind.CLOCK_STEPPED,
                instant.t_ms,
                f"The gateway's clock was set {way} by {assess.minutes(abs(instant.stepped_ms))};"
                " no time has passed by that, and nothing was missed.",
            )

    # --- what the pump says outright ---------------------------------------------------------------------

    def _hear_alarms(self, reading: Reading, t_ms: int) -> None:
        memory = self.memory
        findings = self._findings
        codes = reading.alarms
        self._hear_wordless_alarm(reading, t_ms)
        # which alarm it is that has no name is not known: so of none it is known that it is over
        nameless = codes is not None and UNKNOWN_ALARM in codes
        memory.nameless_alarm_readings = memory.nameless_alarm_readings + 1 if nameless else 0
        if codes is None or 0 < memory.nameless_alarm_readings < CONFIRMING_READINGS:
            return
        runs_out = self._watch is not None and self._watch.case.runs_out(t_ms)
        memory.runs_out = runs_out and (nameless or not assess.ENDS_A_DOSE.isdisjoint(codes))
        if not codes and not memory.notices and not memory.present:
            return
        self._hear_demands(codes, t_ms)
        open_codes = {
            kind: findings.present_codes(kind) for kind in (Kind.PUMP_ALARM, Kind.OCCLUSION, Kind.BAG_EMPTY)
        }
        heard = assess.alarm_conditions(
            codes,
            runs_out=runs_out,
            open_vendor_codes=frozenset(open_codes[Kind.PUMP_ALARM]),
        )
        for kind, code in heard:
            words = assess.words_of_code(code)
            findings.present(kind, t_ms, f"The pump reports: {words}.", code=code)
        if nameless:
            return
        delivers = reading.state in (PumpState.RUNNING, PumpState.BOLUS)
        for kind, known in open_codes.items():
            for code in known:
                if (kind, code) not in heard and (kind is not Kind.BAG_EMPTY or delivers):
                    findings.absent(kind, t_ms, self._end_words(kind, code), code=code)

    def _hear_demands(self, codes: tuple[str, ...], t_ms: int) -> None:
        """Notices of what the patient asked for: each is one demand, however many readings show it."""
        memory = self.memory
        before, memory.notices = memory.notices, tuple(code for code in codes if code in _DEMANDS)
        for code in memory.notices:
            if code in before:
                continue
            refused = code == PumpAlarm.DEMAND_DENIED
            if refused:
                self._findings.present(
                    Kind.DEMAND_DENIED, t_ms, "The patient asked for a bolus, and the pump refused it."
                )
            if self._watch is not None:
                self._watch.boluses.asked(t_ms, refused=refused)

    def _hear_wordless_alarm(self, reading: Reading, t_ms: int) -> None:
        """A pump in alarm that does not say why (or only something that is no alarm)."""
        memory = self.memory
        if reading.state is PumpState.ALARM and not any(
            code not in _NOTICES for code in reading.alarms or ()
        ):
            memory.wordless_alarm_readings += 1
            if memory.wordless_alarm_readings >= CONFIRMING_READINGS:
                self._findings.present(
                    Kind.PUMP_ALARM, t_ms, "The pump is in alarm and does not say why: read its display."
                )
        elif memory.wordless_alarm_readings:
            memory.wordless_alarm_readings = 0
            self._findings.absent(Kind.PUMP_ALARM, t_ms, "The pump is no longer in alarm.")

    def _end_words(self, kind: Kind, code: str) -> str:
        if kind is Kind.BAG_EMPTY:
            return "The pump delivers again."
        if kind is not Kind.OCCLUSION:
            return f"The pump no longer reports: {assess.words_of_code(code)}."
        if self.prescription is None:
            return (
                "The pump no longer reports the occlusion; what was pent up may have been released at once."
            )
        pent_up = assess.volume(self.prescription.pump.occlusion_ml)
        return (
            f"The pump no longer reports the occlusion: up to {pent_up} may have been released at once,"
            f" and up to {pent_up} of what the pump counted may not have arrived."
        )
