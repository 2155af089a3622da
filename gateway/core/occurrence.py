"""One occurrence of the phases, from its beginning to its end (prescription page, section 1.1)."""

from __future__ import annotations

from msgspec import Struct

from alerts.condition import Urgency
from gateway.core.delivery import Bank, Deviation, Excess
from gateway.core.prescription import Prescription
from gateway.core.schedule import Course


class Occurrence(Struct, kw_only=True):
    """What is known of an occurrence that has begun. Mutable: only the monitor changes it."""

    number: int
    due_utc_ms: int
    begun_t_ms: int
    bank: Bank
    tau_ms: float = 0.0
    """For how long the pump has delivered: the phases run on this."""
    expected_ml: float = 0.0
    delivered_ml: float = 0.0
    """As the pump counted, boluses apart."""
    counter_seen: bool = False
    """The pump has shown its counter. Without, only the time for which it delivered is known."""
    unshown_ml: float = 0.0
    """Expected since the pump last showed its counter: of that only the time for which it ran is known."""
    untold_ml: float = 0.0
    """What of it may be boluses that cannot be told from the phases' counts."""
    joined_at_ml: float = 0.0
    """How much was expected when the occurrence was joined; the tests know nothing of it."""
    uncertain_ms: float = 0.0
    """By how much ``tau_ms`` may be wrong: the pump is started and stopped between two readings."""
    interrupted_t_ms: int | None = None
    interrupted_before_ms: int = 0
    """All interruptions that are over, together."""
    end_readings: int = 0
    """Readings in a row that say that it has ended, although its volume is not in."""
    last_delivery_t_ms: int
    counter_reset: bool = False
    """The counter was reset in this interruption."""
    uncounted_ml: float = 0.0
    """Expected since the counter last moved."""
    counted_t_ms: int
    """When the counter last moved."""
    suspected: Excess | None = None
    """A deficit of which it is not yet known whether the counter is slow or stands still."""
    unseen_ml: float = 0.0
    """What a gap of unknown length may have left to be counted after it: at most a count."""
    under: Deviation | None = None
    over: Deviation | None = None

    @property
    def counted_ml(self) -> float | None:
        """What the pump counted; ``None`` if it does not show its counter."""
        return self.delivered_ml if self.counter_seen else None


def volume_is_in(occurrence: Occurrence, prescription: Prescription, course: Course) -> bool:
    """Whether the volume counts as in (prescription page, section 1.1, rule 4).

    At (1 - tolerance) x volume - one count; with urgency ``vital`` moreover only when what is left of the
    volume, or of the phases' time, is less than ``max_pause`` of it.
    """
    if course.volume_ml == 0:  # there is nothing but boluses: only its time can be over
        return occurrence.tau_ms >= course.length_ms * (1 - prescription.limits.tolerance)
    given_ml = occurrence.delivered_ml + occurrence.unshown_ml
    if not occurrence.counter_seen:
        given_ml = occurrence.expected_ml
    if occurrence.untold_ml > 0:
        given_ml = min(given_ml, occurrence.expected_ml)
    if given_ml < _tolerated_ml(prescription, course) - 1e-9:
        return False
    if prescription.urgency is not Urgency.VITAL:
        return True
    if course.length_ms - occurrence.tau_ms < prescription.limits.max_pause_ms:
        return True
    return course.volume_ml - given_ml < _last_ml(prescription, course)


def least_volume_ml(prescription: Prescription, course: Course) -> float:
    """The least volume in mL with which an occurrence counts as given (section 1.1, rule 4)."""
    least_ml = _tolerated_ml(prescription, course)
    if prescription.urgency is not Urgency.VITAL:
        return least_ml
    return max(least_ml, course.volume_ml - _last_ml(prescription, course) - prescription.pump.counter_ml)


def _tolerated_ml(prescription: Prescription, course: Course) -> float:
    return (1 - prescription.limits.tolerance) * course.volume_ml - prescription.pump.counter_ml


def _last_ml(prescription: Prescription, course: Course) -> float:
    """What the phases give in their last ``max_pause``."""
    return course.volume_ml - course.expected_ml(course.length_ms - prescription.limits.max_pause_ms)
