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
from drivers.reading import PumpAlarm, PumpState, Reading
from gateway.core import assess
from gateway.core.case import CONFIRMING_READINGS
from gateway.core.memory import Doing, Findings, Memory
from gateway.core.prescription import Prescription, PumpExpected
from gateway.core.pressure import occlusion_blind_s
from gateway.core.timeline import GapKind, Instant
from gateway.core.watch import Watch

_SNAPSHOT_VERSION = 1
_DELIVERY_KINDS = (
    Kind.NOT_STARTED,
    Kind.DOSE_TOO_SOON,
    Kind.WRONG_RATE,
    Kind.UNDER_INFUSION,
    Kind.OVER_INFUSION,
    Kind.NO_DELIVERY,
    Kind.UNSCHEDULED_DELIVERY,
    Kind.NOT_ENDED,
    Kind.PAUSED_TOO_LONG,
    Kind.KVO_TOO_LONG,
    Kind.LIMIT_EXCEEDED,
)
_NOTICES = (PumpAlarm.DEMAND, PumpAlarm.DEMAND_DENIED, PumpAlarm.NEAR_EMPTY)


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
    decidable_after_s: int | None = None
    """From when on silence would mean "on plan"; 0 now, ``None`` never or nothing to decide."""
    rate_ml_h: float | None = None
    bag_empty_at_utc_ms: int | None = None
    occlusion_blind_s: int | None = None
    """How long a closed line could stay hidden at this rate; ``None`` while nothing is delivered."""


class _Snapshot(Struct, array_like=True):
    version: int
    memory: Memory


class Monitor:
    """Watches one pump. Owns its memory and changes it in place; what goes in and out is frozen.

    Without a prescription only what the pump says outright is judged, and the verdict is unknown.
    """

    def __init__(self, pump: str, prescription: Prescription | None, *, poll_ms: int | None = None) -> None:
        self._build(pump, prescription, poll_ms, Memory())

    def _build(
        self, pump: str, prescription: Prescription | None, poll_ms: int | None, memory: Memory
    ) -> None:
        self.pump = pump
        self._prescription = prescription
        self._memory = memory
        self._findings = Findings(memory)
        self._watch: Watch | None = None
        if prescription is not None:
            self._watch = Watch(prescription, poll_ms, memory, self._findings)

    def step(self, instant: Instant, reading: Reading | None) -> tuple[Finding, ...]:
        """Take one reading, or (``None``) only the time. What has changed, in order of ``at_ms``.

        Instants must come in order of ``t_ms``.
        """
        watch = self._watch
        t_ms = instant.t_ms
        known = reading is not None and reading.state is not PumpState.UNKNOWN
        # what a gap of unknown length turns out to have added is time that nobody could see pass
        if watch is not None and instant.gap is not GapKind.RESTART_RESOLVED:
            watch.timers.run(t_ms, inclusive=not known)
        self._take_time(instant)
        if reading is not None and known:
            if watch is not None:
                watch.timers.heard(t_ms)
                watch.read(reading, t_ms, length_known=instant.gap in (GapKind.NONE, GapKind.RESTART))
            self._hear_alarms(reading, t_ms)
            if watch is not None:
                watch.timers.run(t_ms, inclusive=True)
        return self._findings.take()

    def next_wake_t_ms(self) -> int | None:
        """When a timer is up if nothing is heard before; ``None`` if none runs."""
        wake_t_ms = None if self._watch is None else self._watch.timers.next_t_ms()
        return None if wake_t_ms is None else max(wake_t_ms, self._memory.t_ms)

    def status(self, instant: Instant) -> DeliveryStatus:
        """How delivery stands at this instant, as far as the last reading tells."""
        memory = self._memory
        occurrence = memory.occurrence
        if self._watch is None or memory.next_number is None or self._findings.is_present(Kind.NO_DATA):
            return DeliveryStatus(verdict=DeliveryVerdict.UNKNOWN, rate_ml_h=memory.rate_ml_h)
        decidable_after_s = self._watch.volumes.decidable_after_s()
        if any(self._findings.is_present(kind) for kind in _DELIVERY_KINDS):
            verdict = DeliveryVerdict.DEVIATION
        elif occurrence is None:
            due = self._watch.case.is_due(instant.t_ms)
            verdict = DeliveryVerdict.TOO_EARLY if due else DeliveryVerdict.NOT_EXPECTED
        else:
            verdict = DeliveryVerdict.ON_PLAN if decidable_after_s == 0 else DeliveryVerdict.TOO_EARLY
        blind_s = self._occlusion_blind_s(self._watch.case.expected)
        if occurrence is None:
            return DeliveryStatus(verdict=verdict, rate_ml_h=memory.rate_ml_h, occlusion_blind_s=blind_s)
        left_ms = self._watch.case.left_ms()
        return DeliveryStatus(
            verdict=verdict,
            expected_ml=occurrence.expected_ml,
            delivered_ml=occurrence.counted_ml,
            occurrence=(occurrence.number, occurrence.due_utc_ms),
            ends_at_utc_ms=instant.utc_ms + left_ms if memory.doing is Doing.DELIVERING else None,
            decidable_after_s=decidable_after_s,
            rate_ml_h=memory.rate_ml_h,
            occlusion_blind_s=blind_s,
        )

    def _occlusion_blind_s(self, pump: PumpExpected) -> int | None:
        memory = self._memory
        if memory.doing not in (Doing.DELIVERING, Doing.KVO):
            return None
        return occlusion_blind_s(memory.rate_ml_h, pump, pressure_is_seen=memory.pressure.is_known)

    def snapshot(self) -> bytes:
        """All that is remembered, for the way over a restart."""
        return msgspec.msgpack.encode(_Snapshot(_SNAPSHOT_VERSION, self._memory))

    @classmethod
    def restore(
        cls, pump: str, prescription: Prescription | None, data: bytes, *, poll_ms: int | None = None
    ) -> Monitor:
        """The monitor that ``snapshot`` was taken of, with the same prescription.

        Raises ValueError if ``data`` is not a snapshot of this version.
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
        monitor._build(pump, prescription, poll_ms, snapshot.memory)
        return monitor

    def _take_time(self, instant: Instant) -> None:
        memory = self._memory
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
        memory = self._memory
        findings = self._findings
        codes = reading.alarms
        self._hear_wordless_alarm(reading, t_ms)
        if codes is None:
            return
        if not codes and not memory.notices and not memory.present:
            return
        if PumpAlarm.DEMAND_DENIED in codes and PumpAlarm.DEMAND_DENIED not in memory.notices:
            findings.present(
                Kind.DEMAND_DENIED, t_ms, "The patient asked for a bolus, and the pump refused it."
            )
        memory.notices = tuple(code for code in codes if code == PumpAlarm.DEMAND_DENIED)
        open_codes = {
            kind: findings.present_codes(kind) for kind in (Kind.PUMP_ALARM, Kind.OCCLUSION, Kind.BAG_EMPTY)
        }
        heard = assess.alarm_conditions(
            codes,
            volume_in=self._watch is not None and self._watch.case.volume_has_come_in(),
            open_vendor_codes=frozenset(open_codes[Kind.PUMP_ALARM]),
        )
        for kind, code in heard:
            words = assess.words_of_code(code)
            findings.present(kind, t_ms, f"The pump reports: {words}.", code=code)
        delivers = reading.state in (PumpState.RUNNING, PumpState.BOLUS)
        for kind, known in open_codes.items():
            for code in known:
                if (kind, code) not in heard and (kind is not Kind.BAG_EMPTY or delivers):
                    findings.absent(kind, t_ms, self._end_words(kind, code), code=code)

    def _hear_wordless_alarm(self, reading: Reading, t_ms: int) -> None:
        """A pump in alarm that does not say why (or only something that is no alarm)."""
        memory = self._memory
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
        if self._prescription is None:
            return (
                "The pump no longer reports the occlusion; what was pent up may have been released at once."
            )
        pent_up = assess.volume(self._prescription.pump.occlusion_ml)
        return (
            f"The pump no longer reports the occlusion: up to {pent_up} may have been released at once,"
            f" and up to {pent_up} of what the pump counted may not have arrived."
        )
