"""One row per kind: why did it beep? Priorities, what latches, what is a moment, words for people.

Prescription page, sections 1.2 and 3; MQTT page, "The alert". How long a condition must hold before it is
raised stands with its rule in gateway/core; what holds back what stands in alerts/inhibition.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from msgspec import Struct

from alerts.condition import Kind, Priority, Urgency

ABOVE = "above"
"""For ``Row.priority`` of ``wrong_rate``: the set rate is above what was ordered."""
BELOW = "below"
"""For ``Row.priority`` of ``wrong_rate``: the set rate is below what was ordered."""

_LETTER = {"H": Priority.HIGH, "M": Priority.MEDIUM, "L": Priority.LOW, "i": Priority.INFO}


class Row(Struct, frozen=True, kw_only=True):
    """What is fixed about one kind."""

    kind: Kind
    priorities: str
    """One letter for each urgency, in the order vital, critical, timed, routine: H, M, L, i."""
    lesser: str = ""
    """Where the page gives two: the second row of letters."""
    lesser_codes: frozenset[str] = frozenset()
    """The codes for which the second row holds."""
    moment: bool = False
    """It happens and is over; its alert stays until somebody has acknowledged it."""
    latches: bool = False
    """It stays, silently, until somebody has seen it, though the condition has gone."""
    info: bool = False
    """What happened, and is no alert."""
    local_only: bool = False
    """Shown on the panel in the home only, and never sent."""
    title: str
    """A few words for a nurse."""
    first_step: str = ""
    """What a caregiver may do first: one neutral sentence. Never flush, never change the rate."""

    def priority(self, urgency: Urgency, code: str | None = None) -> Priority:
        """The priority at this urgency.

        ``code`` is the pump's code for ``pump_alarm``, and ``above`` or ``below`` for ``wrong_rate``; other
        kinds do not look at it. A code that is not known has the higher of the two.
        """
        if self.kind is Kind.PUMP_ALARM and code is not None and code.startswith("vendor:"):
            return Priority.MEDIUM
        letters = self.lesser if code in self.lesser_codes else self.priorities
        return _LETTER[letters[_URGENCIES.index(urgency)]]


_URGENCIES = (Urgency.VITAL, Urgency.CRITICAL, Urgency.TIMED, Urgency.ROUTINE)

_CALL = "Call the nurse."
_LOOK = "Look at the pump's display and read it to the nurse."

_ROWS = (
    Row(
        kind=Kind.NOT_STARTED,
        priorities="HMML",
        title="Dose not started",
        first_step="See whether the pump has been started, and tell the nurse.",
    ),
    Row(
        kind=Kind.DOSE_MISSED,
        priorities="HHMM",
        moment=True,
        latches=True,
        title="Dose missed",
        first_step="Do not start the missed dose by yourself; call the nurse.",
    ),
    Row(
        kind=Kind.DOSE_TOO_SOON,
        priorities="HHHM",
        latches=True,
        title="Dose too soon",
        first_step="Call the nurse at once and read out the pump's display.",
    ),
    Row(
        kind=Kind.WRONG_RATE,
        priorities="HHHM",
        lesser="HMML",
        lesser_codes=frozenset({BELOW}),
        title="Wrong rate set",
        first_step="Read the rate on the pump's display to the nurse, and leave the pump as it is.",
    ),
    Row(
        kind=Kind.UNDER_INFUSION,
        priorities="HMML",
        title="Under-infusion",
        first_step="See whether a clamp is closed or the line is kinked, and tell the nurse.",
    ),
    Row(
        kind=Kind.OVER_INFUSION,
        priorities="HHHM",
        latches=True,
        title="Over-infusion",
        first_step="Call the nurse at once; be ready to say how the patient is.",
    ),
    Row(
        kind=Kind.NO_DELIVERY,
        priorities="HHMM",
        latches=True,
        title="Pump runs, nothing is delivered",
        first_step="See whether the set sits properly in the pump, and tell the nurse.",
    ),
    Row(
        kind=Kind.FREE_FLOW,
        priorities="HHHH",
        latches=True,
        title="Free flow",
        first_step="Close the clamp of the line and call the nurse at once.",
    ),
    Row(
        kind=Kind.UNSCHEDULED_DELIVERY,
        priorities="HHMM",
        title="Delivery when none is due",
        first_step="Call the nurse and ask whether this delivery is meant.",
    ),
    Row(
        kind=Kind.STOPPED_EARLY,
        priorities="HHML",
        moment=True,
        latches=True,
        title="Stopped early",
        first_step="Leave the bag connected and call the nurse.",
    ),
    Row(kind=Kind.NOT_ENDED, priorities="MMLL", title="Not ended in time", first_step=_LOOK),
    Row(kind=Kind.LATE_END, priorities="MLLL", title="Will end late", first_step=_LOOK),
    Row(
        kind=Kind.PAUSED_TOO_LONG,
        priorities="HMML",
        title="Paused too long",
        first_step="See what the pump's display asks for, and tell the nurse.",
    ),
    Row(
        kind=Kind.REPEATED_INTERRUPTION,
        priorities="HMML",
        title="Interrupted again and again",
        first_step="See whether the line is bent or pulled when the patient moves, and tell the nurse.",
    ),
    Row(kind=Kind.KVO_TOO_LONG, priorities="MLLL", title="Keep-vein-open too long", first_step=_LOOK),
    Row(
        kind=Kind.LIMIT_EXCEEDED,
        priorities="HHHH",
        latches=True,
        title="Hard limit exceeded",
        first_step="Call the nurse at once; be ready to say how the patient is.",
    ),
    Row(
        kind=Kind.BOLUS_IN_LOCKOUT,
        priorities="HHHH",
        moment=True,
        latches=True,
        title="Bolus within the lockout",
        first_step="See whether the patient can be roused, and call the nurse at once.",
    ),
    Row(
        kind=Kind.BOLUS_LIMIT_EXCEEDED,
        priorities="HHHH",
        moment=True,
        latches=True,
        title="More by bolus than ordered",
        first_step="See whether the patient can be roused, and call the nurse at once.",
    ),
    Row(
        kind=Kind.BOLUS_NOT_ORDERED,
        priorities="HHHH",
        moment=True,
        latches=True,
        title="Bolus not ordered",
        first_step="See how the patient is, and call the nurse at once.",
    ),
    Row(
        kind=Kind.DEMAND_PATTERN,
        priorities="MMLL",
        title="Unusual demands",
        first_step="Tell the nurse who presses the button, how the patient is, and how much pain there is.",
    ),
    Row(
        kind=Kind.PROGRAM_CHANGED,
        priorities="HHMM",
        title="Pump set otherwise than ordered",
        first_step=_LOOK,
    ),
    Row(
        kind=Kind.OCCLUSION,
        priorities="HHMM",
        latches=True,
        title="Occlusion",
        first_step="Look for a closed clamp or a kink, and call the nurse before opening anything.",
    ),
    Row(
        kind=Kind.OCCLUSION_SUSPECTED,
        priorities="HMML",
        title="Occlusion suspected",
        first_step="Look for a closed clamp or a kink, and call the nurse before opening anything.",
    ),
    Row(
        kind=Kind.BAG_EMPTY,
        priorities="HHML",
        title="Bag empty",
        first_step="Have the next bag ready and call the nurse.",
    ),
    Row(
        kind=Kind.BAG_EMPTY_SOON,
        priorities="MLLL",
        title="Bag empty soon",
        first_step="See whether the next bag is there, and tell the nurse.",
    ),
    Row(
        kind=Kind.PUMP_ALARM,
        priorities="HHMM",
        lesser="MLLL",
        lesser_codes=frozenset({"low_battery"}),
        title="Pump alarm",
        first_step=_LOOK,
    ),
    Row(
        kind=Kind.MEASUREMENT_MISMATCH,
        priorities="HMML",
        latches=True,
        title="Measurements disagree",
        first_step="See how much is left in the bag, and tell the nurse.",
    ),
    Row(
        kind=Kind.COUNTER_RESET_UNEXPLAINED,
        priorities="MLLL",
        moment=True,
        title="Volume counter reset without a reason",
        first_step="Tell the nurse whether somebody has touched the pump.",
    ),
    Row(
        kind=Kind.NO_DATA,
        priorities="HMML",
        title="No data from the pump",
        first_step="See whether the pump is on and its data cable is plugged in, and tell the nurse.",
    ),
    Row(kind=Kind.DOSE_STARTED, priorities="iiii", info=True, title="Dose started"),
    Row(kind=Kind.DOSE_ENDED, priorities="iiii", info=True, title="Dose ended"),
    Row(kind=Kind.COUNTER_RESET, priorities="iiii", info=True, title="Volume counter reset"),
    Row(kind=Kind.CLOCK_STEPPED, priorities="iiii", info=True, title="Clock was set"),
    Row(kind=Kind.DEMAND_DENIED, priorities="iiii", info=True, title="Demand denied"),
    Row(kind=Kind.BAG_CHANGED, priorities="iiii", info=True, title="Bag changed"),
    Row(kind=Kind.TELEMETRY_DROPPED, priorities="iiii", info=True, title="Readings were given up"),
    Row(kind=Kind.TITRATED, priorities="iiii", info=True, title="Rate changed within the range"),
    Row(kind=Kind.ORDER_CHANGED, priorities="iiii", info=True, title="New order in force"),
    Row(kind=Kind.ABSENCE_BEGAN, priorities="iiii", info=True, title="Absence announced"),
    Row(kind=Kind.ABSENCE_ENDED, priorities="iiii", info=True, title="Announced absence has ended"),
    Row(kind=Kind.CAREGIVER_STEP, priorities="iiii", info=True, title="A step taken in the home"),
    Row(
        kind=Kind.MONITORING_INTERRUPTED,
        priorities="HMML",
        moment=True,
        latches=True,
        title="Monitoring was interrupted",
        first_step="Tell the nurse what happened to the pump meanwhile.",
    ),
    Row(
        kind=Kind.ORDER_REFUSED,
        priorities="HMML",
        moment=True,
        latches=True,
        title="Order refused, the old one is in force",
        first_step=_CALL,
    ),
    Row(kind=Kind.NO_PRESCRIPTION, priorities="HMML", title="No prescription to watch by", first_step=_CALL),
    Row(
        kind=Kind.GARBLED_LINK,
        priorities="HMML",
        title="Data from the pump cannot be read",
        first_step="See whether the data cable sits firmly at both ends.",
    ),
    Row(
        kind=Kind.ORDER_NOT_PROGRAMMED,
        priorities="HMML",
        title="New order not programmed",
        first_step="Call the nurse, and leave the pump as it is.",
    ),
    Row(
        kind=Kind.ABSENCE_OVERDUE,
        priorities="HMML",
        title="Announced absence is overdue",
        first_step="Tell the nurse whether you are back and what has been done.",
    ),
    Row(
        kind=Kind.WRONG_PUMP,
        priorities="HHHH",
        latches=True,
        title="Another pump answers",
        first_step="Read the pump's serial number to the nurse.",
    ),
    Row(
        kind=Kind.STORAGE_FAILING,
        priorities="HMMM",
        latches=True,
        title="The gateway cannot store",
        first_step=_CALL,
    ),
    Row(
        kind=Kind.OVERLOADED,
        priorities="HMMM",
        latches=True,
        title="The gateway is overloaded",
        first_step=_CALL,
    ),
    Row(
        kind=Kind.DUPLICATE_GATEWAY,
        priorities="HMMM",
        latches=True,
        title="Two gateways under one name",
        first_step=_CALL,
    ),
    Row(
        kind=Kind.CAREGIVER_CALL,
        priorities="HHHH",
        moment=True,
        latches=True,
        title="Somebody in the home calls",
        first_step="Stay with the patient; the nurse has been told.",
    ),
    Row(
        kind=Kind.VITAL_SIGN,
        priorities="HMML",
        latches=True,
        title="Vital sign out of range",
        first_step="See how the patient is, and call the nurse.",
    ),
    Row(
        kind=Kind.VITAL_OVERDUE,
        priorities="HMML",
        latches=True,
        title="Vital sign overdue",
        first_step="Measure and enter the value.",
    ),
    Row(
        kind=Kind.CERTIFICATE_EXPIRING, priorities="LLLL", title="Certificate expires soon", first_step=_CALL
    ),
    Row(
        kind=Kind.BROKER_UNREACHABLE,
        priorities="LLLL",
        local_only=True,
        title="No connection to the nursing team",
        first_step="See whether the internet works in the home, and telephone the nurse.",
    ),
    Row(
        kind=Kind.NOBODY_WATCHING,
        priorities="LLLL",
        local_only=True,
        title="Nobody is watching",
        first_step="Telephone the nurse.",
    ),
    Row(
        kind=Kind.HOME_UNREACHABLE,
        priorities="HMML",
        title="Nothing comes from the home",
        first_step="Telephone the home.",
    ),
)

ROWS: Mapping[Kind, Row] = MappingProxyType({entry.kind: entry for entry in _ROWS})


def row(kind: Kind) -> Row:
    """What is fixed about this kind. There is one for each."""
    return ROWS[kind]


# Prescription page, section 1.2, in minutes: respond_within high / medium / low.
_RESPOND_WITHIN_MIN = {
    Urgency.VITAL: (3, 10, 60),
    Urgency.CRITICAL: (5, 15, 60),
    Urgency.TIMED: (10, 30, 240),
    Urgency.ROUTINE: (30, 120, 720),
}
_ACKNOWLEDGEMENT_HOLDS_MIN = {Urgency.VITAL: 5, Urgency.CRITICAL: 15, Urgency.TIMED: 30, Urgency.ROUTINE: 60}


def respond_within_s(urgency: Urgency) -> dict[Priority, int]:
    """By priority, how soon somebody must have acknowledged by default (prescription page, section 1.2)."""
    minutes = _RESPOND_WITHIN_MIN[urgency]
    priorities = (Priority.HIGH, Priority.MEDIUM, Priority.LOW)
    return {priority: of_it * 60 for priority, of_it in zip(priorities, minutes, strict=True)}


def acknowledgement_holds_ms(urgency: Urgency) -> int:
    """For how long an acknowledgement holds (prescription page, section 1.2)."""
    return _ACKNOWLEDGEMENT_HOLDS_MIN[urgency] * 60_000


def highest_urgency(urgencies: Iterable[Urgency]) -> Urgency:
    """The urgency of alerts about the gateway itself: the highest of its pumps (MQTT page).

    Without any it is ``vital``: not knowing is never good news.
    """
    return min(urgencies, key=_URGENCIES.index, default=Urgency.VITAL)
