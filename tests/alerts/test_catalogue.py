"""The catalogue against the tables of the public pages, written out here a second time."""

import pytest

from alerts.catalogue import (
    ABOVE,
    BELOW,
    ROWS,
    acknowledgement_holds_ms,
    highest_urgency,
    respond_within_s,
    row,
)
from alerts.condition import Kind, Priority, Urgency

# kind | vital critical timed routine | moment (.) | latches (L)
PAGE = """
not_started               H M M L
dose_missed               H H M M . L
dose_too_soon             H H H M   L
under_infusion            H M M L
over_infusion             H H H M   L
no_delivery               H H M M   L
free_flow                 H H H H   L
unscheduled_delivery      H H M M
stopped_early             H H M L . L
not_ended                 M M L L
late_end                  M L L L
paused_too_long           H M M L
repeated_interruption     H M M L
kvo_too_long              M L L L
limit_exceeded            H H H H   L
bolus_in_lockout          H H H H . L
bolus_limit_exceeded      H H H H . L
bolus_not_ordered         H H H H . L
demand_pattern            M M L L
program_changed           H H M M
occlusion                 H H M M   L
occlusion_suspected       H M M L
bag_empty                 H H M L
bag_empty_soon            M L L L
measurement_mismatch      H M M L   L
counter_reset_unexplained M L L L .
no_data                   H M M L
monitoring_interrupted    H M M L . L
order_refused             H M M L . L
no_prescription           H M M L
garbled_link              H M M L
order_not_programmed      H M M L
absence_overdue           H M M L
wrong_pump                H H H H   L
storage_failing           H M M M   L
overloaded                H M M M   L
duplicate_gateway         H M M M   L
caregiver_call            H H H H . L
vital_sign                H M M L   L
vital_overdue             H M M L   L
certificate_expiring      L L L L
"""
LETTER = {Priority.HIGH: "H", Priority.MEDIUM: "M", Priority.LOW: "L"}


def letters(kind: Kind, code: str | None = None) -> str:
    return " ".join(LETTER[row(kind).priority(urgency, code)] for urgency in Urgency)


@pytest.mark.parametrize("line", PAGE.strip().splitlines())
def test_priority_moment_and_latch_of_a_kind_are_those_of_the_page(line: str):
    kind, *rest = line.split()
    entry = row(Kind(kind))
    assert letters(entry.kind) == " ".join(rest[:4])
    assert entry.moment == ("." in rest[4:])
    assert entry.latches == ("L" in rest[4:])
    assert not entry.info
    assert not entry.local_only


@pytest.mark.parametrize(
    ("kind", "code", "expected"),
    [
        (Kind.WRONG_RATE, ABOVE, "H H H M"),
        (Kind.WRONG_RATE, BELOW, "H M M L"),
        (Kind.PUMP_ALARM, "air_in_line", "H H M M"),
        (Kind.PUMP_ALARM, "malfunction", "H H M M"),
        (Kind.PUMP_ALARM, "low_battery", "M L L L"),
        (Kind.PUMP_ALARM, "vendor:E-17", "M M M M"),
        (Kind.PUMP_ALARM, "something_new", "H H M M"),
        (Kind.OCCLUSION, "occlusion_upstream", "H H M M"),
    ],
)
def test_where_a_kind_leaves_a_choice_the_code_decides(kind: Kind, code: str, expected: str):
    assert letters(kind, code) == expected


def test_the_table_above_leaves_out_only_what_has_a_choice_is_no_alert_or_is_not_sent_from_a_home():
    written = {Kind(line.split()[0]) for line in PAGE.strip().splitlines()}
    assert set(Kind) - written == {
        Kind.WRONG_RATE,
        Kind.PUMP_ALARM,
        Kind.BROKER_UNREACHABLE,
        Kind.NOBODY_WATCHING,
        Kind.HOME_UNREACHABLE,
        *(kind for kind, entry in ROWS.items() if entry.info),
    }


@pytest.mark.parametrize("kind", [Kind.WRONG_RATE, Kind.PUMP_ALARM])
def test_a_kind_that_leaves_a_choice_neither_latches_nor_is_a_moment(kind: Kind):
    assert not row(kind).latches
    assert not row(kind).moment


def test_every_kind_has_a_row_and_every_row_a_title():
    assert set(ROWS) == set(Kind)
    assert all(entry.title for entry in ROWS.values())


def test_what_merely_happened_is_no_alert():
    happened = {
        "dose_started",
        "dose_ended",
        "counter_reset",
        "clock_stepped",
        "demand_denied",
        "bag_changed",
        "telemetry_dropped",
        "titrated",
        "order_changed",
        "absence_began",
        "absence_ended",
        "caregiver_step",
    }
    assert {kind.value for kind, entry in ROWS.items() if entry.info} == happened
    assert {entry.priority(u) for entry in ROWS.values() if entry.info for u in Urgency} == {Priority.INFO}


def test_two_kinds_stay_on_the_panel_in_the_home():
    assert {kind for kind, entry in ROWS.items() if entry.local_only} == {
        Kind.BROKER_UNREACHABLE,
        Kind.NOBODY_WATCHING,
    }


def test_the_caregiver_is_never_told_to_flush_or_to_change_the_rate():
    for entry in ROWS.values():
        assert entry.info or entry.first_step.endswith(".")
        words = entry.first_step.lower()
        assert not any(
            forbidden in words for forbidden in ("flush", "change the rate", "set the rate", "bolus")
        )


@pytest.mark.parametrize(
    ("urgency", "high_medium_low_min", "holds_min"),
    [
        (Urgency.VITAL, (3, 10, 60), 5),
        (Urgency.CRITICAL, (5, 15, 60), 15),
        (Urgency.TIMED, (10, 30, 240), 30),
        (Urgency.ROUTINE, (30, 120, 720), 60),
    ],
)
def test_the_default_times_of_people_are_those_of_the_page(
    urgency: Urgency, high_medium_low_min: tuple[int, int, int], holds_min: int
):
    within = respond_within_s(urgency)
    assert (
        tuple(within[p] // 60 for p in (Priority.HIGH, Priority.MEDIUM, Priority.LOW)) == high_medium_low_min
    )
    assert acknowledgement_holds_ms(urgency) == holds_min * 60_000


def test_the_gateway_is_as_urgent_as_its_most_urgent_pump():
    assert highest_urgency([Urgency.ROUTINE, Urgency.CRITICAL, Urgency.TIMED]) is Urgency.CRITICAL
    assert highest_urgency([]) is Urgency.VITAL
