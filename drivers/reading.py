"""What a pump said: the vocabulary of the drivers. Read this first.

A driver reports; it does not repair. No value here is smoothed, filled in or derived. What a pump does not
report is ``None``, which is never the same as zero.
"""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct


class PumpState(StrEnum):
    """What the pump says it is doing (readings.csv, column ``state``)."""

    IDLE = "idle"
    STANDBY = "standby"
    PRIMING = "priming"
    RUNNING = "running"
    BOLUS = "bolus"
    KVO = "kvo"
    PAUSED = "paused"
    ALARM = "alarm"
    COMPLETE = "complete"
    OFF = "off"
    UNKNOWN = "unknown"


def state_by_rate(rate_ml_h: float | None) -> PumpState:
    """What a pump probably does that tells its rate and not its state: with a rate it delivers.

    Where it does not although its rate stands, its counter stands too, and that is found as such. Without a
    state nothing of it could be judged: ``unknown`` is as no reading (prescription page, section 2).
    """
    if rate_ml_h is None:
        return PumpState.UNKNOWN
    return PumpState.RUNNING if rate_ml_h > 0 else PumpState.IDLE


class PumpAlarm(StrEnum):
    """The codes of readings.csv, column ``alarms``. Any other is ``vendor:TEXT``."""

    OCCLUSION_DOWNSTREAM = "occlusion_downstream"
    OCCLUSION_UPSTREAM = "occlusion_upstream"
    AIR_IN_LINE = "air_in_line"
    EMPTY = "empty"
    NEAR_EMPTY = "near_empty"
    LOW_BATTERY = "low_battery"
    BATTERY_EMPTY = "battery_empty"
    DOOR_OPEN = "door_open"
    CASSETTE = "cassette"
    MALFUNCTION = "malfunction"
    DEMAND = "demand"
    DEMAND_DENIED = "demand_denied"


UNKNOWN_ALARM = "vendor:unknown"
"""The pump gives notice of an alarm, and which one is not known."""


class Reading(Struct, frozen=True, kw_only=True):
    """One consistent answer of one pump.

    ``at_ms`` is the gateway's monotonic clock when the last byte of the answer arrived. ``volume_ml`` is the
    pump's delivered-volume counter since its last reset. ``alarms`` is ``None`` if the answer did not say
    whether any is active, and empty if it said that none is.
    """

    pump: str
    at_ms: int
    state: PumpState = PumpState.UNKNOWN
    rate_ml_h: float | None = None
    volume_ml: float | None = None
    vtbi_ml: float | None = None
    pressure_mmhg: float | None = None
    alarms: tuple[str, ...] | None = None
    independent_ml: float | None = None
    battery_percent: float | None = None
    on_mains: bool | None = None
    bolus_ml: float | None = None
    lockout_s: float | None = None
    serial: str | None = None


class FaultKind(StrEnum):
    """Why bytes from a pump became no reading."""

    GARBLED = "garbled"
    UNEXPECTED = "unexpected"
    UNSUPPORTED = "unsupported"


SAMPLE_BYTES = 32


class LinkFault(Struct, frozen=True, kw_only=True):
    """Bytes that could not be read: counted, sampled, never thrown away in silence."""

    at_ms: int
    kind: FaultKind
    byte_count: int
    sample: bytes
    """The first bytes of them, at most ``SAMPLE_BYTES``."""
    detail: str = ""

    @classmethod
    def of(cls, at_ms: int, kind: FaultKind, data: bytes, detail: str) -> LinkFault:
        """All of ``data`` counted, and its beginning as the sample."""
        return cls(at_ms=at_ms, kind=kind, byte_count=len(data), sample=data[:SAMPLE_BYTES], detail=detail)


Fact = Reading | LinkFault
"""What a session makes of the bytes that arrive."""


class Evidence(StrEnum):
    """Where our knowledge of a protocol comes from."""

    VENDOR_DOCUMENT = "vendor document"
    VENDOR_CLIENT = "vendor's own client"
    THIRD_PARTY_CODE = "third-party code"
    OWN = "own format"


class DriverStatus(StrEnum):
    """How far a driver may be trusted."""

    PROVED = "proved"
    """Read from a real pump and compared with its display."""
    EXPERIMENTAL = "experimental"
    BENCH = "bench"
    """Polling changes the pump: never at a patient."""


class PumpTraits(Struct, frozen=True, kw_only=True):
    """What one family of pumps reports, and how we know."""

    family: str
    title: str
    reports: tuple[str, ...]
    """Names of the fields of ``Reading`` that are ever filled."""
    states: tuple[PumpState, ...]
    alarms: tuple[str, ...]
    counter_ml: float | None
    pressure_unit: str | None
    evidence: Evidence
    status: DriverStatus
    notes: tuple[str, ...] = ()
    """What a nurse or an engineer must know, one sentence each."""
