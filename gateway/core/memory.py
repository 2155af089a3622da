"""What the monitor of one pump remembers, and how it says what has changed.

The structs are mutable and small: the monitor owns them, changes them in place, and they are encoded as they
are for the way over a restart.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec
from msgspec import Struct

from alerts.catalogue import row
from alerts.condition import Finding, Kind, Priority, Verdict
from drivers.reading import PumpState
from gateway.core.bolus_ledger import BolusLedger
from gateway.core.delivery import DayVolume, RateLimit
from gateway.core.free_flow import FreeFlow
from gateway.core.hung_bag import HungBag
from gateway.core.interruptions import Interruptions
from gateway.core.learned import Learned
from gateway.core.occurrence import Occurrence
from gateway.core.pressure import PressureRise
from gateway.core.sensor import Comparison
from gateway.core.versions import Orders


class Doing(StrEnum):
    """What the pump does, as the schedule sees it (prescription page, section 1.1)."""

    DELIVERING = "delivering"
    INTERRUPTED = "interrupted"
    """``paused``, ``off``, ``alarm`` or ``priming`` within an occurrence."""
    KVO = "kvo"
    STILL = "still"
    """``idle``, ``standby``, ``complete``, or anything that does not deliver outside an occurrence."""


class Run(Struct):
    """Delivery outside an occurrence: too early, once more, or while due times are not judged."""

    since_t_ms: int
    readings: int = 0
    """That showed it; 0: nobody knows any more when it was, only what the counter says."""
    delivering_ms: float = 0.0
    volume_ml: float = 0.0
    stopped_t_ms: int | None = None
    """Since when it stands; ``None`` while it goes on."""
    stops: int = 0


class Carry(Struct):
    """What has come together since the last reading with a counter value."""

    low_ml: float = 0.0
    """The least that was prescribed meanwhile."""
    high_ml: float = 0.0
    """The most."""
    elapsed_ms: int = 0
    stopped: bool = False
    """A reading since then, or the one with that value, did not deliver."""
    priming: bool = False
    fell: bool = False
    """The counter stands lower than it did, and has not wrapped."""
    revised: bool = False
    """A new version of the order took force: which of the two the pump followed is not known."""
    length_unknown: bool = False
    """Nobody knows how long it is: the gateway was restarted and its clock not yet right."""


class Memory(Struct, kw_only=True):
    """All that is remembered of one pump."""

    # the clocks
    started_t_ms: int | None = None
    t_ms: int = 0
    """The latest step. No finding is dated before it: what ran out unseen carries the first reading after."""
    utc_offset_ms: int = 0
    """Wall clock minus ``t_ms``."""
    schedule_offset_ms: int | None = None
    """Schedule clock minus ``t_ms``; ``None`` until it has been synced."""
    # the order
    orders: Orders = msgspec.field(default_factory=Orders)
    # the last reading
    first_t_ms: int | None = None
    """When the first reading ever came."""
    first_was_busy: bool = False
    """It found the pump running, paused or in alarm (prescription page, section 1.1, rule 5)."""
    seen_t_ms: int | None = None
    serial: str | None = None
    """Of the pump that was read last, if it says its number."""
    pump_state: PumpState = PumpState.UNKNOWN
    doing: Doing = Doing.STILL
    rate_ml_h: float | None = None
    rate_is_wrong: bool = False
    wrong_since_t_ms: int | None = None
    wrong_readings: int = 0
    notices: tuple[str, ...] = ()
    """What the patient asked for, as the last reading said."""
    wordless_alarm_readings: int = 0
    nameless_alarm_readings: int = 0
    """So many in succession gave notice of an alarm, and its name could not be had."""
    runs_out: bool = False
    """The pump goes on to say that the bag of a dose that has its volume is empty, or that air comes."""
    # the counter
    counter_ml: float | None = None
    carry: Carry = msgspec.field(default_factory=Carry)
    bag: HungBag = msgspec.field(default_factory=HungBag)
    day: DayVolume | None = None
    rate_limit: RateLimit | None = None
    above_limit_readings: int = 0
    learned: Learned = msgspec.field(default_factory=Learned)
    # the line
    pressure: PressureRise = msgspec.field(default_factory=PressureRise)
    sensor: Comparison = msgspec.field(default_factory=Comparison)
    free_flow: FreeFlow = msgspec.field(default_factory=FreeFlow)
    # the schedule
    next_number: int | None = None
    """The earliest occurrence neither begun nor missed; ``None`` until the schedule is anchored."""
    occurrence: Occurrence | None = None
    left_off: Occurrence | None = None
    """One that goes on if delivery does before the next: it stopped early because the bag was empty, or was
    paused with its volume in but for a rest."""
    run: Run | None = None
    undated: list[Run] = []
    """What was delivered and had ended while due times were not judged, in order of time."""
    restarted_t_ms: int | None = None
    """After a gap of unknown length, until its length is known: when the gateway began to watch again."""
    last_begin_t_ms: int | None = None
    last_end_t_ms: int | None = None
    last_volume_in: bool = False
    interruptions: Interruptions = msgspec.field(default_factory=Interruptions)
    kvo_since_t_ms: int | None = None
    kvo_too_fast_readings: int = 0
    titrated_ml_h: float | None = None
    """The set rate, where the bedside has changed it; ``None`` while it is that of the phases."""
    titrated_t_ms: int | None = None
    boluses: BolusLedger = msgspec.field(default_factory=BolusLedger)
    present: dict[str, int] = {}
    """What is held to be present, by ``kind`` and code, with the rank of its priority."""


class Findings:
    """Says what has changed, each thing once."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._said: list[Finding] = []
        self.changes = 0
        """How often what is present has changed."""

    def take(self) -> tuple[Finding, ...]:
        """What has been said since this was last asked, in order of time."""
        said = tuple(self._said)
        self._said.clear()
        return said

    def is_present(self, kind: Kind, code: str | None = None) -> bool:
        """Whether this condition is held to be present."""
        return _key(kind, code) in self._memory.present

    def present_kinds(self) -> set[str]:
        """The kinds that are held to be present, whatever their codes."""
        return {key.partition("|")[0] for key in self._memory.present}

    def present_conditions(self) -> set[tuple[Kind, str | None]]:
        """All that is held to be present: kind and code."""
        parted = (key.partition("|") for key in self._memory.present)
        return {(Kind(kind), code if bar else None) for kind, bar, code in parted}

    def present_codes(self, kind: Kind) -> list[str]:
        """The codes with which a kind is present."""
        beginning = f"{kind}|"
        return [key[len(beginning) :] for key in self._memory.present if key.startswith(beginning)]

    def present(
        self,
        kind: Kind,
        t_ms: int,
        message: str,
        *,
        code: str | None = None,
        priority: Priority | None = None,
        since_t_ms: int | None = None,
    ) -> None:
        """The condition holds from ``t_ms`` on. Said again only if its priority has risen; moments always."""
        entry = row(kind)
        if not entry.moment and not entry.info:
            rank = priority.rank if priority is not None else 0
            known = self._memory.present.get(_key(kind, code))
            if known is not None and known >= rank:
                return
            self._memory.present[_key(kind, code)] = rank
            self.changes += 1
        self._say(kind, Verdict.PRESENT, t_ms, message, code, priority, since_t_ms)

    def absent(self, kind: Kind, t_ms: int, message: str, *, code: str | None = None) -> None:
        """The condition is over, if it held."""
        if self._memory.present.pop(_key(kind, code), None) is not None:
            self.changes += 1
            self._say(kind, Verdict.ABSENT, t_ms, message, code, None, None)

    def retract(self, kind: Kind, t_ms: int, message: str) -> None:
        """A moment has turned out not to be one: whoever holds it back may forget it."""
        self._say(kind, Verdict.ABSENT, t_ms, message, None, None, None)

    def _say(
        self,
        kind: Kind,
        verdict: Verdict,
        t_ms: int,
        message: str,
        code: str | None,
        priority: Priority | None,
        since_t_ms: int | None,
    ) -> None:
        memory = self._memory
        occurrence = memory.occurrence
        offset_ms = memory.utc_offset_ms
        self._said.append(
            Finding(
                kind=kind,
                verdict=verdict,
                at_ms=t_ms,
                at_utc_ms=t_ms + offset_ms,
                code=code,
                priority=priority,
                since_utc_ms=None if since_t_ms is None else since_t_ms + offset_ms,
                expected_ml=None if occurrence is None else occurrence.expected_ml,
                delivered_ml=None if occurrence is None else occurrence.counted_ml,
                message=message,
            )
        )


def _key(kind: Kind, code: str | None) -> str:
    return kind if code is None else f"{kind}|{code}"
