"""An alert: what the nursing team is told, from ``first`` to ``closed`` (formats/mqtt.md, "The alert")."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

from alerts.condition import Kind, Priority, Urgency


class AlertState(StrEnum):
    """Where an alert stands. ``pending`` is never told to anybody."""

    PENDING = "pending"
    ACTIVE = "active"
    ACKNOWLEDGED = "acknowledged"
    LATCHED = "latched"
    CLOSED = "closed"


class Reason(StrEnum):
    """Why an alert is told (again): a closed list."""

    FIRST = "first"
    AGAIN = "again"
    WORSE = "worse"
    REPEATED = "repeated"
    ESCALATED = "escalated"
    ACKNOWLEDGED = "acknowledged"
    RESOLVED = "resolved"
    WITHDRAWN = "withdrawn"


class Acknowledgement(Struct, frozen=True, kw_only=True):
    """Who has answered, when (by the gateway's clock, from the arrival), and for how long it holds."""

    by: str
    at_utc_ms: int
    until_utc_ms: int


class Alert(Struct, frozen=True, kw_only=True):
    """One alert as it stands now. Frozen: a change makes a new one, with the next ``rev``."""

    alert_id: str
    rev: int
    pump: str
    kind: Kind
    code: str | None
    state: AlertState
    reason: Reason
    priority: Priority
    level: int
    urgency: Urgency
    time_utc_ms: int
    """When this revision was made."""
    since_utc_ms: int | None
    raised_utc_ms: int
    """When it was first raised."""
    respond_within_s: int
    expected_ml: float | None
    delivered_ml: float | None
    message: str
    acknowledged: Acknowledgement | None = None
    # What the life of the alert needs and nobody is told; times on the gateway's continuous clock.
    answerable_rev: int = 1
    """The lowest ``rev`` that an acknowledgement may have seen (mqtt.md, ``ack``)."""
    present: bool = True
    """Whether the condition holds; an unknown one stays as it was."""
    escalates_at_ms: int | None = None
    acknowledged_until_ms: int | None = None


class AnswerReason(StrEnum):
    """Why what came from the nursing side was not accepted: a closed list (MQTT page, ``answer``)."""

    STALE_REV = "stale_rev"
    TOO_OLD = "too_old"
    UNKNOWN_ALERT = "unknown_alert"
    CLOSED = "closed"
    NOT_ALLOWED = "not_allowed"
