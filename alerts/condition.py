"""What can be wrong: kinds, verdicts, and what the core says of each.

A *condition* is present, absent or unknown. An *alert* has a life (alerts/lifecycle.py). A *message* is
one telling of it (alerts/wire.py). Not knowing is never good news: an unknown condition neither raises an
alert nor resolves one.
"""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct


class Urgency(StrEnum):
    """How much is at stake with this therapy (prescription.toml, ``[response] urgency``)."""

    VITAL = "vital"
    CRITICAL = "critical"
    TIMED = "timed"
    ROUTINE = "routine"


class Priority(StrEnum):
    """As in IEC 60601-1-8; ``info`` is no alert."""

    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"
    INFO = "info"

    @property
    def rank(self) -> int:
        """3 for high, 0 for info: the greater, the more urgent."""
        return _RANK[self]


_RANK = {Priority.HIGH: 3, Priority.MEDIUM: 2, Priority.LOW: 1, Priority.INFO: 0}


class Verdict(StrEnum):
    """Whether a condition holds."""

    PRESENT = "present"
    ABSENT = "absent"
    UNKNOWN = "unknown"


class Kind(StrEnum):
    """Every condition of the prescription page, section 3, and of the MQTT page."""

    NOT_STARTED = "not_started"
    DOSE_MISSED = "dose_missed"
    DOSE_TOO_SOON = "dose_too_soon"
    WRONG_RATE = "wrong_rate"
    UNDER_INFUSION = "under_infusion"
    OVER_INFUSION = "over_infusion"
    NO_DELIVERY = "no_delivery"
    FREE_FLOW = "free_flow"
    UNSCHEDULED_DELIVERY = "unscheduled_delivery"
    STOPPED_EARLY = "stopped_early"
    NOT_ENDED = "not_ended"
    LATE_END = "late_end"
    PAUSED_TOO_LONG = "paused_too_long"
    REPEATED_INTERRUPTION = "repeated_interruption"
    KVO_TOO_LONG = "kvo_too_long"
    LIMIT_EXCEEDED = "limit_exceeded"
    BOLUS_IN_LOCKOUT = "bolus_in_lockout"
    BOLUS_LIMIT_EXCEEDED = "bolus_limit_exceeded"
    BOLUS_NOT_ORDERED = "bolus_not_ordered"
    DEMAND_PATTERN = "demand_pattern"
    PROGRAM_CHANGED = "program_changed"
    OCCLUSION = "occlusion"
    OCCLUSION_SUSPECTED = "occlusion_suspected"
    BAG_EMPTY = "bag_empty"
    BAG_EMPTY_SOON = "bag_empty_soon"
    PUMP_ALARM = "pump_alarm"
    MEASUREMENT_MISMATCH = "measurement_mismatch"
    COUNTER_RESET_UNEXPLAINED = "counter_reset_unexplained"
    NO_DATA = "no_data"
    # what happened, and is no alert
    DOSE_STARTED = "dose_started"
    DOSE_ENDED = "dose_ended"
    COUNTER_RESET = "counter_reset"
    CLOCK_STEPPED = "clock_stepped"
    DEMAND_DENIED = "demand_denied"
    BAG_CHANGED = "bag_changed"
    TITRATED = "titrated"
    ORDER_CHANGED = "order_changed"
    TELEMETRY_DROPPED = "telemetry_dropped"
    ABSENCE_BEGAN = "absence_began"
    ABSENCE_ENDED = "absence_ended"
    CAREGIVER_STEP = "caregiver_step"
    # about the monitoring itself
    MONITORING_INTERRUPTED = "monitoring_interrupted"
    ORDER_REFUSED = "order_refused"
    NO_PRESCRIPTION = "no_prescription"
    GARBLED_LINK = "garbled_link"
    ORDER_NOT_PROGRAMMED = "order_not_programmed"
    ABSENCE_OVERDUE = "absence_overdue"
    WRONG_PUMP = "wrong_pump"
    STORAGE_FAILING = "storage_failing"
    OVERLOADED = "overloaded"
    DUPLICATE_GATEWAY = "duplicate_gateway"
    CAREGIVER_CALL = "caregiver_call"
    VITAL_SIGN = "vital_sign"
    VITAL_OVERDUE = "vital_overdue"
    CERTIFICATE_EXPIRING = "certificate_expiring"
    # on the panel in the home only
    BROKER_UNREACHABLE = "broker_unreachable"
    NOBODY_WATCHING = "nobody_watching"
    # made by the dashboard
    HOME_UNREACHABLE = "home_unreachable"


class AbsenceWhat(StrEnum):
    """What is announced by an absence (MQTT page, ``absence``)."""

    SET_CHANGE = "set_change"
    AWAY = "away"
    NURSE_PRESENT = "nurse_present"


class Finding(Struct, frozen=True, kw_only=True):
    """What is now held of one condition of one pump. Said when it changes, not each time it is looked at.

    ``at_ms`` is when it became so, on the monitor's own continuous time (gateway/core/timeline.py): for a
    rule that waits, the moment at which the time was up. ``at_utc_ms`` is the same on the wall clock, for
    people. A kind that is a *moment* (alerts/catalogue.py) is only ever PRESENT; ABSENT retracts one that is
    still held back (the occurrence goes on).
    """

    kind: Kind
    verdict: Verdict
    at_ms: int
    at_utc_ms: int
    code: str | None = None
    """The pump's code, for ``pump_alarm``, ``occlusion`` and ``bag_empty``; one condition for each code.

    Of an absence: what was announced.
    """
    priority: Priority | None = None
    """Only where the kind leaves a choice (``wrong_rate`` above or below, ``pump_alarm`` by its code)."""
    since_utc_ms: int | None = None
    """Estimated wall time at which it began."""
    expected_ml: float | None = None
    delivered_ml: float | None = None
    message: str = ""
    """One sentence for a nurse or a caregiver."""
