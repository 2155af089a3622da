"""Stale data never looks fresh: a pump of any slowness, on any wire, at any poll, in virtual time.

The pump here answers one query after the other, as a pump does: whoever asks it faster than it answers hears
ever older answers.
"""

from __future__ import annotations

from itertools import pairwise
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.alaris.session import AlarisFamily
from drivers.family import PumpOnLine
from drivers.reading import FaultKind, LinkFault, Reading
from tests.drivers.alaris_pump import IDENTITY, AlarisDialogue, BusyPump, framed, infusion
from tests.drivers.wires import WIRES, Wire

FAMILY = AlarisFamily()
PROMISE_MS = 4_000
"""What the pump announces as COMMS_RESPONSE_MAX."""
END_MS = 600_000
WIRE_MS = 10
"""What a clean wire takes there and back."""
ML_PER_MS = 0.001
LATENCIES_MS = (10, 240, 260, 490, 500, 510, 950, 1_000, 1_050, 2_000, 3_000, 3_900)
POLLS_MS = (1_000, 2_000, 5_000, 10_000)


def how_it_stands(now_ms: int) -> bytes:
    """An INF that tells to the millisecond when the pump looked at itself; sometimes with an alarm."""
    alarmed = 60_000 <= now_ms % 240_000 < 120_000
    return framed(infusion(volume=f"{now_ms * ML_PER_MS:.3f}", notice="A" if alarmed else "-"))


def volume_to_be_infused(now_ms: int) -> bytes:
    return framed(f"INF_VTBI^ACTIV^{now_ms * ML_PER_MS:.3f}^ml^STOP")


def told_ms(volume_ml: float) -> int:
    return round(volume_ml / ML_PER_MS)


def a_talk(takes_ms, poll_ms: int, wire: str = "clean", seed: int = 0) -> tuple[AlarisDialogue, BusyPump]:
    pump = BusyPump(
        {
            **IDENTITY,
            "INF": how_it_stands,
            "INF_VTBI": volume_to_be_infused,
            "ALARM": "ALARM^AL_OCCLU^ ^ ",
        },
        takes_ms,
    )
    dialogue = AlarisDialogue(
        FAMILY.open_session([PumpOnLine(pump="p1", poll_ms=poll_ms)]),
        pump,
        there=Wire(WIRES[wire], seed=seed),
        back=Wire(WIRES[wire], seed=seed + 1_000),
    )
    dialogue.run(END_MS)
    return dialogue, pump


def readings(dialogue: AlarisDialogue) -> list[Reading]:
    return [fact for fact in dialogue.facts if isinstance(fact, Reading)]


def nothing_stale_looks_fresh(dialogue: AlarisDialogue) -> None:
    """No number of any reading is older than the pump's promise, and none goes back in time."""
    read = readings(dialogue)
    for reading in read:
        assert reading.volume_ml is not None
        assert 0 <= reading.at_ms - told_ms(reading.volume_ml) <= PROMISE_MS
        assert reading.vtbi_ml is None or 0 <= reading.at_ms - told_ms(reading.vtbi_ml) <= PROMISE_MS
    told = [reading.volume_ml for reading in read]
    assert told == sorted(set(told)), "each answer is told once, in order"
    assert all(FAMILY.may_send(data) for _, data in dialogue.sent)


@pytest.mark.parametrize("poll_ms", POLLS_MS)
@pytest.mark.parametrize("latency_ms", LATENCIES_MS)
def test_a_pump_of_a_steady_slowness_within_its_promise_is_read_without_falling_behind(latency_ms, poll_ms):
    dialogue, pump = a_talk(lambda _: latency_ms, poll_ms)
    nothing_stale_looks_fresh(dialogue)
    answer_ms = latency_ms + WIRE_MS
    for reading in readings(dialogue):
        if reading.alarms == ():
            assert reading.volume_ml is not None
            assert reading.at_ms - told_ms(reading.volume_ml) <= answer_ms, "as fresh as it can be"
    assert pump.longest_backlog_ms == latency_ms, "never asked before it has answered"
    # Beside INF, a round may hold INF_VTBI and ALARM.
    for before, after in pairwise(readings(dialogue)):
        extra_ms = (after.vtbi_ml is not None or 2 * answer_ms > PROMISE_MS) * answer_ms
        extra_ms += (before.alarms != ()) * answer_ms + (after.alarms != ()) * answer_ms
        assert after.at_ms - before.at_ms <= answer_ms + poll_ms + extra_ms


@pytest.mark.parametrize("latency_ms", [4_100, 5_000, 6_000, 9_000, 30_000])
def test_a_pump_that_breaks_its_promise_is_not_read_and_not_asked_faster_than_it_answers(latency_ms):
    dialogue, pump = a_talk(lambda _: latency_ms, 1_000)
    assert readings(dialogue) == []
    assert {fact.kind for fact in dialogue.facts if isinstance(fact, LinkFault)} == {FaultKind.UNEXPECTED}
    if latency_ms < 10_000:
        assert pump.longest_backlog_ms == latency_ms


@pytest.mark.parametrize("slow_ms", [510, 1_000, 2_000, 3_000, 3_900, 6_000])
@pytest.mark.parametrize("poll_ms", POLLS_MS)
def test_a_fast_pump_that_becomes_slow_and_fast_again_is_never_behind(slow_ms, poll_ms):
    dialogue, _ = a_talk(lambda now_ms: slow_ms if 120_000 <= now_ms < 360_000 else 20, poll_ms)
    nothing_stale_looks_fresh(dialogue)
    moments = [reading.at_ms for reading in readings(dialogue)]
    assert all(
        any(before < moment <= before + 2 * poll_ms for moment in moments)
        for before in range(400_000, END_MS - 2 * poll_ms, 10_000)
    ), "as often as before when it is fast again"
    if slow_ms < PROMISE_MS:
        assert any(300_000 < moment < 360_000 for moment in moments), "and while it is slow it is read"


@settings(max_examples=60, deadline=None)
@given(
    longest_ms=st.integers(10, 6_000),
    steady=st.booleans(),
    calm_from_ms=st.sampled_from([0, 120_000, 300_000]),
    poll_ms=st.integers(1_000, 10_000),
    wire=st.sampled_from(list(WIRES)),
    seed=st.integers(0, 1_000_000),
)
def test_whatever_the_pump_and_the_wire_do_no_reading_is_older_than_the_promise(
    longest_ms, steady, calm_from_ms, poll_ms, wire, seed
):
    chance = Random(seed)

    def takes_ms(now_ms: int) -> int:
        if now_ms < calm_from_ms:
            return 10
        return longest_ms if steady else chance.randint(10, longest_ms)

    dialogue, pump = a_talk(takes_ms, poll_ms, wire, seed)
    nothing_stale_looks_fresh(dialogue)
    # A query is sent four times at most, and a line that doubles makes eight of them; those before and after
    # it may be on their way too.
    assert pump.longest_backlog_ms <= 24 * longest_ms
