"""What a MIVA's event log tells of its alarms: it has no other register of them.

::

    RI ── head ──► records that are new since the last look, modulo 43 264 ──► what is active now
                   at the first look, or after too many: only the newest NEWEST_RECORDS

An alarm is active from its event until it is cleared or the infusion is started again; a low battery until
the pump says that the battery is better. Raw records of a programme lie between two marks and are passed
over; at the first look the reading may begin among them, and then the mark at their end makes void what was
taken for events before it.

Source: the maker's own client (see ``drivers/miva/codec.py``); that starting again ends an alarm is probable.
"""

from __future__ import annotations

from enum import StrEnum

from drivers.miva.codec import (
    RING_RECORDS,
    Event,
    EventKind,
    LogIndices,
    is_data_mark,
    is_erased,
    read_event,
)
from drivers.reading import PumpAlarm

# The newest part of the log that is read at the first look: twice the longest block of raw records, so that
# its end is seen. A record takes about 80 ms, so this takes three seconds, and the whole ring an hour.
NEWEST_RECORDS = 36
_BEGIN, _END = 1, 2
_RAW_RECORDS = (2, 16)
"""On a MIVA, and on pumps of the CAPS generation."""
_NOT_STOPPING = (
    PumpAlarm.LOW_BATTERY.value,
    "vendor:INFUSION_LIMIT_REACHED",
    "vendor:PUMP_LIMIT_REACHED",
    "vendor:PUMP_HARD_LIMIT_REACHED",
)
"""Alarms with which the pump may go on."""

ALARMS: dict[EventKind, str] = {
    EventKind.CASSETTE_EMPTY_ALARM: PumpAlarm.EMPTY.value,
    EventKind.CASSETTE_DETACHED_ALARM: PumpAlarm.CASSETTE.value,
    EventKind.FIRMWARE_ERROR_ALARM: PumpAlarm.MALFUNCTION.value,
    EventKind.SYSTEM_ERROR_ALARM: PumpAlarm.MALFUNCTION.value,
    EventKind.SYSTEM_ERROR2_ALARM: PumpAlarm.MALFUNCTION.value,
    EventKind.BATTERY_DEPLETED_ALARM: PumpAlarm.BATTERY_EMPTY.value,
    EventKind.BATTERY_CHECK_STATUS: PumpAlarm.BATTERY_EMPTY.value,
    EventKind.BATTERY_LOW_ALARM: PumpAlarm.LOW_BATTERY.value,
    EventKind.UNATTENDED_ALARM: "vendor:UNATTENDED",
    EventKind.PROGRAMMING_INCOMPLETE_ALARM: "vendor:PROGRAMMING_INCOMPLETE",
    EventKind.PUMP_LIMIT_REACHED_ALARM: "vendor:PUMP_LIMIT_REACHED",
    EventKind.PUMP_HARD_LIMIT_REACHED_ALARM: "vendor:PUMP_HARD_LIMIT_REACHED",
}
"""Events that are an alarm whatever else they hold."""

_OCCLUSIONS = {1: PumpAlarm.OCCLUSION_UPSTREAM.value, 2: PumpAlarm.OCCLUSION_DOWNSTREAM.value}
_CLEARED = 4
_BATTERY_ALARMS = (PumpAlarm.LOW_BATTERY.value, PumpAlarm.BATTERY_EMPTY.value, "vendor:BATTERY_OVERHEATED")
# The flags of BATTERY: empty or depleted; low; medium, mains, high or new. The others say nothing of these.
_BATTERY_FLAGS_EMPTY, _BATTERY_FLAGS_LOW, _BATTERY_FLAGS_GOOD = 0x104, 0x002, 0x071
# The states of POWER_ON: low and critical; depleted and empty; high, medium, mains and new.
_BATTERY_STATES_LOW, _BATTERY_STATES_EMPTY, _BATTERY_STATES_GOOD = (3, 4), (7, 8), (1, 2, 5, 6)
_EXTRA_DOSE = 2


class Move(StrEnum):
    """What the log says last of how the infusion stands."""

    STARTED = "started"
    PAUSED = "paused"
    """By hand, or by an alarm."""
    SWITCHED_ON = "switched on"


class EventLog:
    """The log of one pump as far as it was read. Holds no record, only what they add up to."""

    def __init__(self) -> None:
        self._next: int | None = None
        self._left = 0
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._active: dict[str, None] = {}
        self._raw_count: int | None = None
        self._read_count = 0
        self._is_complete = False
        self._is_first_look = True
        self._notices: list[str] = []
        self.move: Move | None = None
        """What happened last to the infusion; ``None`` if that part of the log was not read."""

    def look(self, indices: LogIndices) -> None:
        """The log goes from ``indices.tail`` to ``indices.head`` now."""
        if self._next is not None:
            self._left = (indices.head - self._next + 1) % RING_RECORDS
            if self._left <= NEWEST_RECORDS:
                return
            # Far behind, or another log: what was known of it may hold no longer.
            self._begin_anew()
        self._left = min(NEWEST_RECORDS, indices.record_count)
        self._is_complete = self._left == indices.record_count
        self._next = (indices.head - self._left + 1) % RING_RECORDS

    @property
    def wanted(self) -> int | None:
        """The place of the record to be read next; ``None`` if all is read."""
        return self._next if self._left else None

    @property
    def is_complete(self) -> bool:
        """Whether nothing that could still matter lies before what was read."""
        return self._is_complete

    @property
    def active(self) -> tuple[str, ...]:
        """The alarms that are active as far as the log was read, oldest first."""
        return tuple(self._active)

    @property
    def is_stopped_by_alarm(self) -> bool:
        """Whether one of them stops the infusion."""
        return any(alarm not in _NOT_STOPPING for alarm in self._active)

    def notices(self) -> tuple[str, ...]:
        """What the patient asked for in the records read since this was called last."""
        notices, self._notices = tuple(dict.fromkeys(self._notices)), []
        return notices

    def take(self, raw: bytes) -> str:
        """The record at ``wanted``; returns, in words, what is wrong with it (nothing: empty)."""
        assert self._next is not None, "a record is read only after a look"
        assert self._left > 0, "a record is read only where one is wanted"
        self._next = (self._next + 1) % RING_RECORDS
        self._left -= 1
        self._read_count += 1
        wrong = self._read(raw)
        if not self._left:
            if self._is_first_look:
                self._notices.clear()
            self._is_first_look = False
        return wrong

    def _read(self, raw: bytes) -> str:
        if self._raw_count is not None:
            self._raw_count += 1
            if self._raw_count <= max(_RAW_RECORDS):
                if self._raw_count - 1 in _RAW_RECORDS and is_data_mark(raw, _END):
                    self._raw_count = None
                return ""
            self._raw_count = None
            if is_data_mark(raw, _END):
                return ""
            return "a block of raw records has no end; " + self._read(raw)
        if is_erased(raw):
            return ""
        if is_data_mark(raw, _BEGIN):
            self._raw_count = 0
            return ""
        if is_data_mark(raw, _END):
            if self._is_first_look and self._read_count <= max(_RAW_RECORDS) + 1:
                # The reading began among raw records: what they were taken for was nothing.
                count, left = self._read_count, self._left
                self._begin_anew()
                self._read_count, self._left = count, left
            return ""
        event = read_event(raw)
        if event is None:
            return "" if self._is_first_look else f"an event of type {raw[0]} is not known"
        self._hear(event)
        return ""

    def _hear(self, event: Event) -> None:
        match event.kind:
            case EventKind.RUN_INFUSION:
                self.move = Move.STARTED
                self._is_complete = True
                self._end(*(alarm for alarm in self._active if alarm != PumpAlarm.LOW_BATTERY))
            case EventKind.INFUSION_PAUSED:
                self.move = Move.PAUSED
            case EventKind.POWER_ON:
                self.move = Move.SWITCHED_ON
                self._battery(
                    is_empty=event.word in _BATTERY_STATES_EMPTY,
                    is_low=event.word in _BATTERY_STATES_LOW,
                    is_good=event.word in _BATTERY_STATES_GOOD,
                )
            case EventKind.OCCLUSION_ALARM:
                if event.word == _CLEARED:
                    self._end(*_OCCLUSIONS.values())
                else:
                    self._begin(_OCCLUSIONS.get(event.word, f"vendor:OCCLUSION_{event.word}"))
            case EventKind.INFUSION_LIMIT_REACHED:
                if event.word == _CLEARED:
                    self._end("vendor:INFUSION_LIMIT_REACHED")
                else:
                    self._begin("vendor:INFUSION_LIMIT_REACHED")
            case EventKind.BATTERY:
                self._battery(
                    is_empty=bool(event.word & _BATTERY_FLAGS_EMPTY),
                    is_low=bool(event.word & _BATTERY_FLAGS_LOW),
                    is_good=bool(event.word & _BATTERY_FLAGS_GOOD),
                )
            case EventKind.BATTERY_FAILURE:
                self._begin("vendor:BATTERY_OVERHEATED" if event.word == 1 else PumpAlarm.BATTERY_EMPTY.value)
            case EventKind.DOSE_GRANTED if event.byte_5 == _EXTRA_DOSE:
                self._notices.append(PumpAlarm.DEMAND.value)
            case EventKind.EXTRA_DOSE_DENIED:
                self._notices.append(PumpAlarm.DEMAND_DENIED.value)
            case kind if kind in ALARMS:
                self._begin(ALARMS[kind])

    def _battery(self, *, is_empty: bool, is_low: bool, is_good: bool) -> None:
        if is_empty:
            self._begin(PumpAlarm.BATTERY_EMPTY.value)
        elif is_low:
            self._begin(PumpAlarm.LOW_BATTERY.value)
        elif is_good:
            self._end(*_BATTERY_ALARMS)

    def _begin(self, alarm: str) -> None:
        self._active[alarm] = None
        if alarm not in _NOT_STOPPING:
            self.move = Move.PAUSED

    def _end(self, *alarms: str) -> None:
        for alarm in alarms:
            self._active.pop(alarm, None)
