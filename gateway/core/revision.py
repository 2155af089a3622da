"""A new version of the order takes force (prescription page, section 1.1, rule 8; MQTT page, ``order``).

What was delivered before has been judged by the old version. An occurrence that is on goes on as the one of
the new version that is meant, joined at the time for which it has run; its tests begin anew. Nothing that is
open is withdrawn: what is judged with each reading is judged by the new version from the next reading on,
and what hangs on a time is looked at anew here.

Where the page says nothing: an occurrence of the new version that is due at the same time, or in whose time
the present one was begun, is the present one. If the new version's own time began only later (its author let
it start with the change), it has run since then. Due times that have gone by are neither given nor missed
under an order that did not exist then, unless a dose of the old one was due and had not been begun: that one
is still owed. And what was given, or missed, is not due once more.
"""

from __future__ import annotations

from msgspec import Struct

from alerts.condition import Kind
from drivers.reading import PumpState, Reading
from gateway.core import assess
from gateway.core.case import Case
from gateway.core.delivery import Bank, Deviation, Mark, RateLimit
from gateway.core.doses import OF_THE_OCCURRENCE
from gateway.core.memory import Doing, Run
from gateway.core.occurrence import Occurrence
from gateway.core.watch import Watch

PROGRAMMED_WITHIN = 0.02
"""So near to the ordered rate the pump is set to it (MQTT page, ``order``)."""


class _Place(Struct, frozen=True):
    """Where in the new version the present occurrence stands."""

    number: int
    due_utc_ms: int
    tau_ms: float


def is_programmed(reading: Reading, old: Case, new: Case) -> bool:
    """Whether the pump is set to the rate of the new version's phase, and not to that of the old one's.

    A rate that is not shown, or is that of a bolus or of keep-vein-open, tells nothing.
    """
    rate_ml_h = reading.rate_ml_h
    if not rate_ml_h or reading.state in (PumpState.BOLUS, PumpState.KVO):
        return False
    occurrence = new.memory.occurrence
    tau_ms = 0.0 if occurrence is None else occurrence.tau_ms
    return _is_set_to(rate_ml_h, new, _tau_ms(old, new)) and not _is_set_to(rate_ml_h, old, tau_ms)


def rates_agree(old: Case, new: Case) -> bool:
    """Whether both versions order the same rate now; with no occurrence on, at the beginning of one."""
    occurrence = new.memory.occurrence
    old_ml_h = old.course.rate_ml_h(0.0 if occurrence is None else occurrence.tau_ms)
    new_ml_h = new.course.rate_ml_h(_tau_ms(old, new))
    return abs(new_ml_h - old_ml_h) <= PROGRAMMED_WITHIN * new_ml_h


def take_force(old: Case, new: Watch, t_ms: int) -> None:
    """Judge by the new version from now on. Both look at the same memory, which is changed."""
    memory = new.case.memory
    message = _words(old, new.case)
    memory.carry.revised = True
    memory.titrated_ml_h = memory.titrated_t_ms = None
    memory.bag.look_again_tau_ms = memory.bag.look_again_ml = 0.0
    _limits_anew(old, new.case, t_ms)
    if old.expected.model != new.case.expected.model:
        new.learning.forget()
    if memory.next_number is not None:
        _schedule_anew(old, new.case, t_ms)
    new.case.findings.present(Kind.ORDER_CHANGED, t_ms, message)
    new.timers.judge_anew(t_ms)


def _is_set_to(rate_ml_h: float, case: Case, tau_ms: float) -> bool:
    slack_ms = 2 * case.poll_ms
    return any(
        low_ml_h * (1 - PROGRAMMED_WITHIN) <= rate_ml_h <= high_ml_h * (1 + PROGRAMMED_WITHIN)
        for low_ml_h, high_ml_h in case.course.rates_between(tau_ms - slack_ms, tau_ms + slack_ms)
    )


def _tau_ms(old: Case, new: Case) -> float:
    """How far the present occurrence would stand in the new version; 0 at its beginning."""
    occurrence = new.memory.occurrence
    place = None if occurrence is None else _place(occurrence, old, new, new.memory.t_ms)
    return 0.0 if place is None else place.tau_ms


def _schedule_anew(old: Case, new: Case, t_ms: int) -> None:
    memory = new.memory
    first_open = _first_open_number(old, new, t_ms)
    occurrence = memory.occurrence
    if occurrence is None:
        memory.next_number = first_open
        if memory.left_off is not None:
            place = _place(memory.left_off, old, new, t_ms)
            if place is None:
                memory.left_off = None
            else:
                _join(memory.left_off, place, new, t_ms)
        return
    place = _place(occurrence, old, new, t_ms)
    if place is None:
        memory.next_number = first_open
        _no_longer_ordered(new, t_ms)
        return
    memory.next_number = place.number + 1
    _join(occurrence, place, new, t_ms)
    late_ms = occurrence.tau_ms - new.course.length_ms
    if late_ms <= new.limits.end_window_ms:
        new.findings.absent(Kind.NOT_ENDED, t_ms, "By the new order the dose goes on.")


def _place(occurrence: Occurrence, old: Case, new: Case, t_ms: int) -> _Place | None:
    """Which occurrence of the new version the present one is; ``None`` if it has none for it."""
    course = new.course
    if new.schedule.as_needed:
        number = occurrence.number if old.schedule.as_needed else 1
        return _Place(number, occurrence.due_utc_ms, occurrence.tau_ms)
    number = course.number_due_at_or_before(occurrence.due_utc_ms)
    if course.due_utc_ms(number) == occurrence.due_utc_ms:
        return _Place(number, occurrence.due_utc_ms, occurrence.tau_ms)
    begun_utc_ms = new.schedule_utc_ms(occurrence.begun_t_ms)
    now_utc_ms = new.schedule_utc_ms(t_ms)
    if begun_utc_ms is None or now_utc_ms is None:
        begun_utc_ms = now_utc_ms = occurrence.due_utc_ms
    window_ms = new.limits.start_window_ms
    number = course.number_due_at_or_before(begun_utc_ms + window_ms)
    due_utc_ms = course.due_utc_ms(number)
    latest_utc_ms = new.latest_begin_utc_ms(number)
    if due_utc_ms is not None and latest_utc_ms is not None and begun_utc_ms <= latest_utc_ms:
        return _Place(number, due_utc_ms, occurrence.tau_ms)
    number = course.number_due_at_or_before(now_utc_ms + window_ms)
    due_utc_ms = course.due_utc_ms(number)
    if due_utc_ms is None or due_utc_ms <= begun_utc_ms:
        return None
    return _Place(number, due_utc_ms, min(occurrence.tau_ms, float(max(0, now_utc_ms - due_utc_ms))))


def _join(occurrence: Occurrence, place: _Place, new: Case, t_ms: int) -> None:
    joined_ml = new.course.expected_ml(place.tau_ms)
    occurrence.number = place.number
    occurrence.due_utc_ms = place.due_utc_ms
    occurrence.tau_ms = place.tau_ms
    occurrence.expected_ml = occurrence.delivered_ml = occurrence.joined_at_ml = joined_ml
    occurrence.bank = Bank.fresh(Mark(t_ms, place.tau_ms, joined_ml, joined_ml))
    occurrence.suspected = None
    occurrence.unshown_ml = 0.0
    if not new.findings.is_present(Kind.NO_DELIVERY):
        occurrence.uncounted_ml = 0.0
    if occurrence.over is None and new.findings.is_present(Kind.OVER_INFUSION):
        # found by the volume as a whole: over when it keeps to the new version
        occurrence.over = Deviation(2.0 * new.poll_ms)
    for deviation in (occurrence.under, occurrence.over):
        if deviation is not None:
            deviation.kept_up_ms = 0.0


def _no_longer_ordered(new: Case, t_ms: int) -> None:
    """The new version orders nothing now: what the pump still delivers is nobody's dose."""
    memory = new.memory
    for kind in OF_THE_OCCURRENCE:
        new.findings.absent(kind, t_ms, "By the new order no dose is on.")
    memory.occurrence = None
    memory.rate_is_wrong = False
    memory.wrong_readings = 0
    memory.last_end_t_ms = t_ms
    memory.last_volume_in = False
    memory.kvo_since_t_ms = None
    if memory.doing is Doing.DELIVERING:
        memory.run = Run(t_ms)


def _first_open_number(old: Case, new: Case, t_ms: int) -> int:
    """The earliest occurrence of the new version that is still to be given."""
    memory = new.memory
    assert memory.next_number is not None, "asked only once the schedule is anchored"
    if new.schedule.as_needed:
        return memory.next_number if old.schedule.as_needed else 1
    settled_utc_ms = old.course.due_utc_ms(memory.next_number - 1)
    begun_utc_ms = None if memory.last_begin_t_ms is None else new.schedule_utc_ms(memory.last_begin_t_ms)
    owed = old.is_due(t_ms) and memory.occurrence is None
    now_utc_ms = new.schedule_utc_ms(t_ms)
    number = max(1, new.course.number_due_at_or_before(now_utc_ms or settled_utc_ms or 0))
    while True:
        due_utc_ms = new.course.due_utc_ms(number)
        latest_utc_ms = new.latest_begin_utc_ms(number)
        if due_utc_ms is None or latest_utc_ms is None:
            return number
        settled = settled_utc_ms is not None and due_utc_ms <= settled_utc_ms
        given = begun_utc_ms is not None and begun_utc_ms >= due_utc_ms - new.limits.start_window_ms
        gone_by = not owed and now_utc_ms is not None and latest_utc_ms < now_utc_ms
        if not settled and not given and not gone_by:
            return number
        number += 1


def _limits_anew(old: Case, new: Case, t_ms: int) -> None:
    """What was counted against another hard limit of rate says nothing of this one."""
    memory = new.memory
    if new.limits.max_rate_ml_h != old.limits.max_rate_ml_h:
        memory.rate_limit = None if new.limits.max_rate_ml_h is None else RateLimit()
        memory.above_limit_readings = 0
    if new.limits.max_rate_ml_h is None and new.limits.max_volume_ml is None:
        new.findings.absent(Kind.LIMIT_EXCEEDED, t_ms, "By the new order there is no such limit.")


def _words(old: Case, new: Case) -> str:
    occurrence = new.memory.occurrence
    old_ml_h = old.course.rate_ml_h(0.0 if occurrence is None else occurrence.tau_ms)
    new_ml_h = new.course.rate_ml_h(_tau_ms(old, new))
    before = f"{assess.rate(old_ml_h)} and {assess.volume(old.course.volume_ml)}"
    now = f"{assess.rate(new_ml_h)} and {assess.volume(new.course.volume_ml)}"
    if before == now:
        return f"A new order is in force: rate and volume stay the same, {now} in all."
    return f"A new order is in force: {now} in all, instead of {before}."


def first_words(new: Case) -> str:
    """What is said of an order where there was none."""
    begins = f"{assess.rate(new.course.rate_ml_h(0))} at its beginning"
    return f"An order is in force: {begins}, {assess.volume(new.course.volume_ml)} in all."
