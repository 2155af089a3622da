"""What the keys of a prescription say together and cannot all mean (prescription page, section 1).

Each rule is a small function that yields what it finds. Only what somebody wrote can contradict: where a
written value fights a default, the written one is named.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from zoneinfo import ZoneInfo

from msgspec import Struct

from gateway.core import quantity
from gateway.core.prescription import Prescription
from gateway.core.quantity import in_words
from gateway.core.schedule import (
    MS_PER_DAY,
    MS_PER_HOUR,
    Course,
    due_times,
    local_from_utc_ms,
    shortest_distance_ms,
    shortest_gap_ms,
)
from gateway.core.toml_table import OrderProblem

_DOSE_AGREEMENT = 0.02
"""``dose_rate`` must give the first constant phase's rate within this (section 1)."""
_ROUNDING = 1e-9
"""Relative: what floating point may add to a sum that meets a limit exactly."""


class Written(Struct, frozen=True, kw_only=True):
    """What the text itself said, where the prescription no longer shows it."""

    keys: frozenset[str]
    """Such as ``limits.kvo_ml_h``."""
    rate_keys: tuple[str, ...]
    """For each phase the key that set its greatest rate."""


class Contradiction(Struct, frozen=True, kw_only=True):
    """A problem, and the keys on which it rests."""

    problem: OrderProblem
    rests: tuple[str, ...]

    def rests_on(self, blamed: Iterable[str]) -> bool:
        """Whether one of these keys is part of it: what follows from another fault is not said."""
        mine = (self.problem.key, *self.rests)
        return any(_within(key, own) or _within(own, key) for key in blamed for own in mine)


def _within(key: str, table: str) -> bool:
    """Whether a key is this table or array, or stands in it."""
    return key == table or key.startswith((f"{table}.", f"{table}["))


_Rule = Callable[[Prescription, Written], Iterator[Contradiction]]
_DUE = ("schedule.start", "schedule.every", "schedule.at", "schedule.days", "schedule.zone", "schedule.times")
_WHEN = (*_DUE, "schedule.as_needed", "schedule.phase")


def contradictions(prescription: Prescription, written: Written) -> Iterator[Contradiction]:
    """All that the keys say against one another."""
    for rule in _RULES:
        yield from rule(prescription, written)


def _found(key: str, message: str, *rests: str) -> Contradiction:
    return Contradiction(problem=OrderProblem(key, message), rests=rests)


def _first_written(written: Written, *keys: str) -> str:
    """The first of these keys that stands in the text; the last if none does."""
    return next((key for key in keys if key in written.keys), keys[-1])


def _something_is_given(prescription: Prescription, written: Written) -> Iterator[Contradiction]:
    """A dose begins with delivery (section 1.1, rule 1); only demand boluses may be all there is."""
    if prescription.demand is not None:
        return
    first = prescription.schedule.phases[0]
    if prescription.volume_ml == 0:
        message = "has a rate of 0 in every phase, and there is no [demand]: nothing would be given"
        yield _found("schedule.phase", message, "demand")
    elif first.volume_ml == 0:
        message = "is 0 in the first phase, but a dose begins with delivery; take it away and move start"
        yield _found(written.rate_keys[0], message, "demand")


def _the_start_can_be_told_from_kvo(prescription: Prescription, written: Written) -> Iterator[Contradiction]:
    """Delivery begins an occurrence only above both (section 1.1, rule 1)."""
    delivering = [phase for phase in prescription.schedule.phases if phase.volume_ml > 0]
    if not delivering:
        return
    rate_ml_h = max(delivering[0].from_ml_h, delivering[0].to_ml_h)
    rules = (
        ("limits.kvo_ml_h", prescription.limits.kvo_ml_h),
        ("schedule.between_ml_h", prescription.schedule.between_ml_h),
    )
    for key, low_ml_h in rules:
        if low_ml_h >= rate_ml_h:
            message = (
                f"is {low_ml_h:g}, not below the {rate_ml_h:g} mL/h with which a dose begins: "
                "its start could not be seen; lower one or raise the other"
            )
            yield _found(key, message, "schedule.phase")


def _doses_follow_one_another(prescription: Prescription, written: Written) -> Iterator[Contradiction]:
    distance_ms = shortest_distance_ms(prescription.schedule)
    if distance_ms is not None and distance_ms < prescription.length_ms:
        key = _first_written(written, "schedule.every", "schedule.at")
        message = (
            f"makes a dose due {in_words(distance_ms)} after the last, but its phases take "
            f"{in_words(prescription.length_ms)}; give more time between, or shorten the phases"
        )
        yield _found(key, message, *_WHEN)


def _clock_changes_keep_doses_apart(prescription: Prescription, written: Written) -> Iterator[Contradiction]:
    """Two local times within an hour that a clock change leaves out would be one and the same moment."""
    schedule = prescription.schedule
    due = due_times(schedule)
    if due is None or schedule.zone is None:
        return
    for day_utc_ms in _days_with_a_change(schedule.start_utc_ms, schedule.zone):
        number = due.number_at_or_before(day_utc_ms)
        while (following := due.at(number + 1)) is not None and following <= day_utc_ms + 2 * MS_PER_DAY:
            number += 1
            if due.at(number - 1) == following:
                key = _first_written(written, "schedule.every", "schedule.at")
                message = (
                    f"makes two doses due at one moment when the clocks in {schedule.zone.key} go forward; "
                    "put them further apart, or leave zone out"
                )
                yield _found(key, message, *_WHEN)
                return


def _days_with_a_change(start_utc_ms: int, zone: ZoneInfo) -> Iterator[int]:
    """Within two years, the days on which the offset of a zone changes."""
    days = range(start_utc_ms - MS_PER_DAY, start_utc_ms + 2 * 366 * MS_PER_DAY, MS_PER_DAY)
    for day, following in pairwise(days):
        if local_from_utc_ms(day, zone) - day != local_from_utc_ms(following, zone) - following:
            yield day


def _windows_fit_between(prescription: Prescription, written: Written) -> Iterator[Contradiction]:
    limits = prescription.limits
    gap_ms = shortest_gap_ms(prescription.schedule)
    if gap_ms is not None and limits.start_window_ms > gap_ms // 2:
        message = (
            f"is {in_words(limits.start_window_ms)}, but between two doses there are only "
            f"{in_words(gap_ms)}; at most half of that is possible"
        )
        yield _found("limits.start_window", message, *_WHEN)
    if limits.give_within_ms < limits.start_window_ms:
        message = (
            f"is {in_words(limits.give_within_ms)}, shorter than start_window "
            f"({in_words(limits.start_window_ms)}); a dose in its window would be too late"
        )
        yield _found("limits.give_within", message, "limits.start_window", *_WHEN)
    distance_ms = shortest_distance_ms(prescription.schedule)
    if distance_ms is not None and limits.min_interval_ms > distance_ms:
        message = (
            f"is {in_words(limits.min_interval_ms)}, but doses are due {in_words(distance_ms)} apart: "
            "each would be too soon; shorten it"
        )
        yield _found("limits.min_interval", message, *_WHEN)


def _pauses_agree(prescription: Prescription, written: Written) -> Iterator[Contradiction]:
    limits = prescription.limits
    if limits.max_total_pause_ms is not None and limits.max_total_pause_ms < limits.max_pause_ms:
        message = (
            f"is {in_words(limits.max_total_pause_ms)} for all pauses together, shorter than the "
            f"{in_words(limits.max_pause_ms)} that max_pause allows for one; change one of them"
        )
        yield _found("limits.max_total_pause", message, "limits.max_pause", "response.urgency")
    if prescription.pump.poll_ms >= limits.no_data_after_ms:
        message = (
            f"is {in_words(prescription.pump.poll_ms)}, not shorter than no_data_after "
            f"({in_words(limits.no_data_after_ms)}): each wait for a reading would count as silence"
        )
        yield _found("pump.poll", message, "limits.no_data_after", "response.urgency")


def _response_times_agree(prescription: Prescription, written: Written) -> Iterator[Contradiction]:
    within = list(prescription.respond_within_ms.items())
    for (more, more_ms), (less, less_ms) in pairwise(within):
        if more_ms > less_ms and _both_written(written, more, less):
            message = f"is {in_words(more_ms)}, longer than {less} has ({in_words(less_ms)}); turn them round"
            yield _found(f"response.respond_within.{more}", message, f"response.respond_within.{less}")


def _both_written(written: Written, *priorities: str) -> bool:
    return all(f"response.respond_within.{priority}" in written.keys for priority in priorities)


def _tolerance_covers_the_pump(prescription: Prescription, written: Written) -> Iterator[Contradiction]:
    tolerance, accuracy = prescription.limits.tolerance, prescription.pump.accuracy
    if tolerance >= accuracy:
        return
    key = _first_written(written, "limits.tolerance_percent", "pump.accuracy_percent")
    message = (
        f"tolerance_percent is {tolerance * 100:g} and accuracy_percent {accuracy * 100:g}: what the pump "
        "may stray by itself would be an alert; raise the tolerance, or give the pump's true accuracy"
    )
    yield _found(key, message, "limits.tolerance_percent", "pump.accuracy_percent")


def _no_rate_is_above_the_limit(prescription: Prescription, written: Written) -> Iterator[Contradiction]:
    most_ml_h = prescription.limits.max_rate_ml_h
    if most_ml_h is None:
        return
    above = f"mL/h, above limits.max_rate_ml_h ({most_ml_h:g}); correct one of them"
    rates = [
        (key, max(phase.from_ml_h, phase.to_ml_h))
        for phase, key in zip(prescription.schedule.phases, written.rate_keys, strict=True)
    ]
    rates.append(("limits.kvo_ml_h", prescription.limits.kvo_ml_h))
    rates.append(("schedule.between_ml_h", prescription.schedule.between_ml_h))
    if prescription.titration is not None:
        rates.append(("titration.max_ml_h", prescription.titration.max_ml_h))
    demand = prescription.demand
    if demand is not None and demand.bolus_over_ms is not None:
        rates.append(("demand.bolus_over", demand.bolus_ml / demand.bolus_over_ms * MS_PER_HOUR))
    for key, rate_ml_h in rates:
        if rate_ml_h > most_ml_h * (1 + _ROUNDING):
            rests = ("demand.bolus_ml",) if key.startswith("demand") else ()
            yield _found(key, f"makes {rate_ml_h:.4g} {above}", "limits.max_rate_ml_h", *rests)


def _a_day_keeps_to_max_volume(prescription: Prescription, written: Written) -> Iterator[Contradiction]:
    most_ml = prescription.limits.max_volume_ml
    if most_ml is None:
        return
    ordered_ml = most_in_a_day_ml(prescription)
    if ordered_ml > most_ml * (1 + _ROUNDING):
        message = (
            f"is {most_ml:g} in any 24 h, but the phases alone give {ordered_ml:.4g} mL; correct one of them"
        )
        yield _found("limits.max_volume_ml", message, *_WHEN)
    elif prescription.demand is not None and prescription.demand.bolus_ml > most_ml:
        message = f"is {most_ml:g}, less than one bolus (demand.bolus_ml); correct one of them"
        yield _found("limits.max_volume_ml", message, "demand.bolus_ml")


def most_in_a_day_ml(prescription: Prescription) -> float:
    """What the phases give in the fullest 24 h that begin with a dose or a phase, or end with one."""
    course = Course(prescription)
    first_ms = course.due_utc_ms(1) or 0
    due_ms = [first_ms]
    # eight days see each day of a week followed by the next; the bound is for doses minutes apart
    while len(due_ms) < 2000 and due_ms[-1] < first_ms + 8 * MS_PER_DAY:
        following = course.due_utc_ms(len(due_ms) + 1)
        if following is None:
            break
        due_ms.append(following)

    def given_ml(utc_ms: int) -> float:
        whole = bisect_right(due_ms, utc_ms) - 1
        return whole * course.volume_ml + course.expected_ml(utc_ms - due_ms[whole]) if whole >= 0 else 0.0

    corners_ms = [first_ms]
    for phase in prescription.schedule.phases:
        corners_ms.append(corners_ms[-1] + phase.duration_ms)
    ends_ms = [moment + course.length_ms for moment in due_ms]
    begins_ms = {*due_ms, *corners_ms, *(end - MS_PER_DAY for end in (*ends_ms, *corners_ms))}
    return max(given_ml(begin + MS_PER_DAY) - given_ml(begin) for begin in begins_ms)


def _titration_includes_the_order(prescription: Prescription, written: Written) -> Iterator[Contradiction]:
    titration = prescription.titration
    if titration is None:
        return
    low, high = titration.min_ml_h, titration.max_ml_h
    if low > high:
        message = f"is {low:g}, above max_ml_h ({high:g}); turn them round"
        yield _found("titration.min_ml_h", message, "titration.max_ml_h")
        return
    if titration.step_ml_h is not None and titration.step_ml_h > high - low:
        message = f"is {titration.step_ml_h:g}, more than the whole range ({high - low:g}); correct it"
        yield _found("titration.step_ml_h", message, "titration.min_ml_h", "titration.max_ml_h")
    for phase, key in zip(prescription.schedule.phases, written.rate_keys, strict=True):
        peak_ml_h = max(phase.from_ml_h, phase.to_ml_h)
        below = not phase.is_ramp and 0 < peak_ml_h < low * (1 - _ROUNDING)
        if below or peak_ml_h > high * (1 + _ROUNDING):
            message = (
                f"makes {peak_ml_h:.4g} mL/h, outside [titration] ({low:g} to {high:g}): what is ordered "
                "would be a wrong rate; widen the range or correct the rate"
            )
            yield _found(key, message, "titration")


def _demand_agrees(prescription: Prescription, written: Written) -> Iterator[Contradiction]:
    demand = prescription.demand
    if demand is None:
        return
    if demand.limit_ml is not None and demand.limit_ml < demand.bolus_ml:
        message = f"is {demand.limit_ml:g}, less than one bolus ({demand.bolus_ml:g} mL); correct one of them"
        yield _found("demand.limit_ml", message, "demand.bolus_ml")
    if demand.limit_ml is None and "demand.limit_window" in written.keys:
        message = "is there, but limit_ml is not: nothing is limited; give limit_ml, or leave it out"
        yield _found("demand.limit_window", message, "demand.limit_ml")
    over_ms = demand.bolus_over_ms
    if over_ms is not None and not demand.lockout_from_end and over_ms > demand.lockout_ms:
        message = (
            f"is {in_words(demand.lockout_ms)} from the start of a bolus, but one takes {in_words(over_ms)} "
            "(bolus_over); lengthen it"
        )
        yield _found("demand.lockout", message, "demand.bolus_over", "demand.lockout_from")


def _dose_rate_gives_the_rate(prescription: Prescription, written: Written) -> Iterator[Contradiction]:
    if prescription.dose_rate is None:
        return
    key = "drug.dose_rate"
    rests = ("drug.concentration", "patient.weight_kg", "schedule.phase")
    amount, unit = prescription.concentration_per_ml, prescription.concentration_unit
    if amount is None or unit is None:
        yield _found(key, "cannot be checked without drug.concentration; give it", *rests)
        return
    concentration = quantity.Concentration(amount=amount, unit=unit)
    try:
        dose_ml_h = quantity.dose_rate(prescription.dose_rate).rate_ml_h(
            concentration, prescription.weight_kg
        )
    except ValueError as error:
        yield _found(key, str(error), *rests)
        return
    constant = [phase.from_ml_h for phase in prescription.schedule.phases if not phase.is_ramp]
    ordered_ml_h = next((rate_ml_h for rate_ml_h in constant if rate_ml_h > 0), None)
    if ordered_ml_h is None:
        yield _found(key, "cannot be checked: no phase has a constant rate; leave it out", *rests)
    elif abs(dose_ml_h - ordered_ml_h) > _DOSE_AGREEMENT * ordered_ml_h:
        message = (
            f"makes {dose_ml_h:.4g} mL/h, but the first constant phase has {ordered_ml_h:.4g} mL/h; "
            "correct the dose, the concentration, the weight or the phase"
        )
        yield _found(key, message, *rests)


def _the_counter_can_count(prescription: Prescription, written: Written) -> Iterator[Contradiction]:
    pump = prescription.pump
    if pump.counter_wrap_ml is not None and pump.counter_wrap_ml <= pump.counter_ml:
        message = f"is {pump.counter_wrap_ml:g}, not more than one count (counter_ml); correct one of them"
        yield _found("pump.counter_wrap_ml", message, "pump.counter_ml")


_RULES: tuple[_Rule, ...] = (
    _something_is_given,
    _the_start_can_be_told_from_kvo,
    _doses_follow_one_another,
    _clock_changes_keep_doses_apart,
    _windows_fit_between,
    _pauses_agree,
    _response_times_agree,
    _tolerance_covers_the_pump,
    _no_rate_is_above_the_limit,
    _a_day_keeps_to_max_volume,
    _titration_includes_the_order,
    _demand_agrees,
    _dose_rate_gives_the_rate,
    _the_counter_can_count,
)
