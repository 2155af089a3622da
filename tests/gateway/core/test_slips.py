"""Slips of programming: which are named, and that no legal profile is ever called one (prescription page,
section 3, ``wrong_rate``)."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alerts.condition import Kind
from drivers.reading import PumpState, Reading
from gateway.core import assess
from gateway.core.prescription import Prescription
from gateway.core.timeline import Moment
from tests.gateway.core.pump_days import START_UTC_MS, Ward, order
from tests.gateway.core.timetable import live, seconds

LIMITS = '[limits]\nstart_window = "20min"\n[pump]\npoll = "5s"\n'


def at_10(*, patient: str = "", drug: str = "") -> Prescription:
    return order(
        phases='[[schedule.phase]]\nduration = "24h"\nrate_ml_h = 10\n',
        tail=LIMITS,
        patient=patient,
        drug=drug,
    )


PLAIN = at_10()
OF_70_KG = at_10(patient="weight_kg = 70")
OF_60_KG = at_10(patient="weight_kg = 60")
OF_10_PER_ML = at_10(drug='concentration = "10 mg/mL"')
OF_A_QUARTER_PER_ML = at_10(drug='concentration = "0.25 mg/mL"')
# 0.5 mcg/kg/min of 0.21 mg/mL at 70 kg: 10 mL/h
BY_WEIGHT = at_10(
    patient="weight_kg = 70",
    drug='concentration = "0.21 mg/mL"\ndose_rate = "0.5 mcg/kg/min"',
)


@pytest.mark.parametrize(
    ("prescription", "rate_ml_h", "words"),
    [
        (PLAIN, 240, "24 times the order: a volume for a day taken for one for an hour?"),
        (PLAIN, 0.417, "the order divided by 24: a volume for a day taken for one for an hour?"),
        (PLAIN, 600, "60 times the order: minutes taken for hours?"),
        (PLAIN, 0.167, "the order divided by 60: minutes taken for hours?"),
        (PLAIN, 100, "10 times the order: a decimal point in the wrong place?"),
        (PLAIN, 1, "the order divided by 10: a decimal point in the wrong place?"),
        (PLAIN, 110, "11 times the order: a digit typed twice?"),
        (PLAIN, 0.91, "the order divided by 11: a digit typed twice?"),
        (PLAIN, 10_000, "1000 times the order: micrograms taken for milligrams?"),
        (PLAIN, 0.01, "the order divided by 1000: micrograms taken for milligrams?"),
        (OF_70_KG, 700, "70 times the order: the patient's weight used wrongly?"),
        (OF_70_KG, 0.143, "the order divided by 70: the patient's weight used wrongly?"),
        (OF_A_QUARTER_PER_ML, 40, "4 times the order: the concentration used wrongly?"),
        (OF_A_QUARTER_PER_ML, 2.5, "the order divided by 4: the concentration used wrongly?"),
        # two that fit are both said
        (
            OF_60_KG,
            600,
            "60 times the order: minutes taken for hours, or the patient's weight used wrongly?",
        ),
        (
            OF_10_PER_ML,
            100,
            "10 times the order: a decimal point in the wrong place, or the concentration used wrongly?",
        ),
        # 70 x 60 / 210 = 20
        (
            BY_WEIGHT,
            0.5,
            "0.5 as in the dose: the number of the dose taken for millilitres an hour,"
            " or a dose for each kilogram and minute taken for millilitres an hour?",
        ),
        (
            BY_WEIGHT,
            200,
            "20 times the order: a dose for each kilogram and minute taken for millilitres an hour?",
        ),
        # as far as a display rounds, and no further
        (PLAIN, 101.9, "10 times the order: a decimal point in the wrong place?"),
        (PLAIN, 102.1, None),
        (PLAIN, 98.1, "10 times the order: a decimal point in the wrong place?"),
        (PLAIN, 97.9, None),
        (PLAIN, 10, None),
        (PLAIN, 30, None),
        (PLAIN, 0, None),
        (OF_70_KG, 600, "60 times the order: minutes taken for hours?"),
    ],
)
def test_each_slip_has_its_words(prescription: Prescription, rate_ml_h: float, words: str | None) -> None:
    assert assess.slip(rate_ml_h, 10.0, prescription) == words


def test_a_rate_that_another_step_orders_is_perhaps_no_slip() -> None:
    stepped = order(
        phases='[[schedule.phase]]\nduration = "15min"\nrate_ml_h = 20\n'
        '[[schedule.phase]]\nduration = "15min"\nrate_ml_h = 200\n',
        tail=LIMITS,
    )
    ward = live(stepped, "0:00 running rate=200", until="0:02")
    assert said(ward) == (
        "The pump is set to 200.0 mL/h instead of 20.0 mL/h, 10 times the order:"
        " a decimal point in the wrong place, or another step of the order?"
    )


@pytest.mark.parametrize("rate_ml_h", [240, 600, 100, 10_000, 1, 0.42, 0.167, 110, 700])
def test_it_is_named_within_two_minutes_of_pumping(rate_ml_h: float) -> None:
    ward = live(OF_70_KG, f"0:00 running rate=10\n1:00 running rate={rate_ml_h}", until="1:02")
    told = [at_s for at_s, kind in ward.alerts() if kind == "wrong_rate"]
    assert told and told[0] <= seconds("1:02")
    assert "?" in said(ward)


def said(ward: Ward) -> str:
    return next(one.message for one in ward.findings if one.kind is Kind.WRONG_RATE)


phases = st.one_of(
    st.tuples(st.sampled_from([1, 5, 24, 60]), st.sampled_from([0.5, 1.0, 5.0, 10.0, 24.0, 60.0, 600.0])),
    st.tuples(
        st.sampled_from([5, 24, 60]), st.sampled_from([0.0, 1.0, 10.0]), st.sampled_from([24.0, 60.0, 240.0])
    ),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(phases, min_size=1, max_size=4), st.booleans(), st.integers(0, 4))
def test_a_pump_that_does_what_is_ordered_never_hears_of_a_slip(
    shape: list[tuple[float, ...]], boluses: bool, phase_s: int
) -> None:
    """Steps, ramps and boluses by any factor: as set, so ordered."""
    text = ""
    for minutes, *rates in shape:
        rate = (
            f"rate_ml_h = {rates[0]}" if len(rates) == 1 else f"from_ml_h = {rates[0]}\nto_ml_h = {rates[1]}"
        )
        text += f'[[schedule.phase]]\nduration = "{round(minutes)}min"\n{rate}\n'
    demand = '[demand]\nbolus_ml = 2.0\nbolus_over = "1min"\nlockout = "5min"\n' if boluses else ""
    prescription = order(
        phases=text, patient="weight_kg = 60", drug='concentration = "10 mg/mL"', tail=demand
    )
    ward = Ward(prescription)
    course = [(minutes * 60, rates[0], rates[-1]) for minutes, *rates in shape]
    length_s = sum(duration_s for duration_s, *_ in course)
    counted_ml = 0.0
    for at_s in range(phase_s, round(length_s), 5):
        rate_ml_h = rate_at(course, at_s)
        bolus = boluses and at_s % 600 < 60
        if bolus:
            rate_ml_h += 120.0
        counted_ml += rate_ml_h * 5 / 3600
        ward.take(
            Moment(monotonic_ms=10**9 + at_s * 1000, utc_ms=START_UTC_MS + at_s * 1000),
            Reading(
                pump="pump",
                at_ms=0,
                state=PumpState.BOLUS if bolus else PumpState.RUNNING,
                rate_ml_h=round(rate_ml_h, 2),
                volume_ml=round(counted_ml, 2),
                alarms=(),
            ),
        )
    assert "wrong_rate" not in {kind for _, kind in ward.alerts()}


def rate_at(course: list[tuple[float, float, float]], at_s: float) -> float:
    for duration_s, from_ml_h, to_ml_h in course:
        if at_s < duration_s:
            return from_ml_h + (to_ml_h - from_ml_h) * at_s / duration_s
        at_s -= duration_s
    return 0.0
