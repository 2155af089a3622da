"""What holds for every family: who adds one adds a row to ``CONFORMING`` and has all of this.

The other end is the simulator's, written from the protocol page and not from the driver. What is read is held
against its truth, over good and bad wires, through silence, garbage and a pulled cable.
"""

from __future__ import annotations

import random
import tracemalloc
from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers import families
from drivers.family import Family, PumpOnLine, Session
from drivers.reading import DriverStatus, LinkFault, Reading
from simulator.device import Device
from simulator.scenario import Scenario
from simulator.wire.families import WIRES as PUMP_SIDES
from simulator.wire.wire import Address
from tests.drivers.bedside import Bedside, token_of
from tests.drivers.laws import goes_through, steps_with
from tests.drivers.wires import WIRES, Wire
from tests.simulator.scenarios import MIN, H, constant, fault, scenario

POLL_MS = 5_000
RATE_ML_H = 30.0
MINUTES = 6
END_MS = MINUTES * MIN
FUZZED = 10_000
FUZZED_LONG = 1_000_000


@dataclass(frozen=True)
class Conforming:
    """One family, and what its protocol can and cannot show."""

    name: str
    addresses: tuple[Address, ...] = (None,)
    step_ml: float = 0.01
    """How fine it tells a volume."""
    rate_step_ml_h: float = 0.1
    old_ms: int = 4_000
    """A reading may be so much older than its time."""
    silence_ms: int = 60_000
    """On the worst of these wires it is at most so long without a reading."""
    first_by_ms: int = 15_000
    """On a good wire the first reading is there."""
    has_checksum: bool = True
    """Without one a digit that was changed on the way cannot be told."""
    question_bytes: int | None = None
    """So many bytes of what is sent say what is asked; the rest counts on."""

    @property
    def family(self) -> Family:
        return families.find(self.name)

    def __str__(self) -> str:
        places = "" if self.addresses == (None,) else "-" + "-".join(map(str, self.addresses))
        return f"{self.name}{places}"


CONFORMING = [
    Conforming("alaris", step_ml=0.001, rate_step_ml_h=0.01),
    Conforming("fresenius", step_ml=0.001),
    Conforming("fresenius", addresses=(1, 3, 5), step_ml=0.001),
    Conforming("miva", question_bytes=3),
    Conforming("newera", addresses=(0,), has_checksum=False),
    Conforming("newera", addresses=(0, 7, 42), has_checksum=False),
    Conforming("sapphire", question_bytes=7),
    # of its frames of 230 bytes hardly one in ten survives the noisy wire
    Conforming("terumo", silence_ms=4 * MIN),
]
EVERY = pytest.mark.parametrize("one", CONFORMING, ids=str)


def bedside(one: Conforming, *faults: object, wire: str = "clean", seed: int = 0) -> Bedside:
    stories: dict[Address, Scenario] = {
        address: scenario(constant(RATE_ML_H, 10 * H), *faults, seed=place + 1)
        for place, address in enumerate(one.addresses)
    }
    return Bedside(
        one.family,
        stories,
        poll_ms=POLL_MS,
        there=Wire(WIRES[wire], seed=seed),
        back=Wire(WIRES[wire], seed=seed + 1_000),
    )


def assert_true(one: Conforming, at: Bedside) -> None:
    """Each reading says what was true not long before it, of the pump that it names."""
    pumps = {token_of(address): pump for address, pump in at.device.pumps.items()}
    for reading in at.readings:
        pump = pumps[reading.pump]
        now, then = pump.truth_at(reading.at_ms), pump.truth_at(max(0, reading.at_ms - one.old_ms))
        if reading.volume_ml is not None:
            assert then.counter_ml - one.step_ml <= reading.volume_ml <= now.counter_ml + one.step_ml, reading
        if reading.rate_ml_h is not None:
            rates = [then.rate_ml_h, now.rate_ml_h]
            assert any(abs(reading.rate_ml_h - rate) <= one.rate_step_ml_h for rate in rates), reading


def test_every_family_is_held_to_this_but_that_of_scripted_readings():
    assert {one.name for one in CONFORMING} == {*families.known()} - {"dummy"} == {*PUMP_SIDES}


@EVERY
def test_over_a_good_wire_every_poll_is_a_true_reading_of_each_pump_and_nothing_is_faulty(one):
    at = bedside(one)
    at.run(END_MS)
    assert_true(one, at)
    assert at.faults == []
    for address in one.addresses:
        moments = [reading.at_ms for reading in at.readings if reading.pump == token_of(address)]
        assert moments[0] <= one.first_by_ms
        assert len(moments) >= (END_MS - one.first_by_ms) // POLL_MS - 1
        assert all(after - before <= 2 * POLL_MS for before, after in pairwise(moments))


@EVERY
@pytest.mark.parametrize("wire", WIRES)
def test_over_any_wire_what_is_read_is_true_and_no_pump_is_lost(one, wire):
    at = bedside(one, wire=wire, seed=1)
    at.run(END_MS)
    if one.has_checksum or wire not in ("noisy", "lossy"):
        assert_true(one, at)
    for address in one.addresses:
        moments = [
            0,
            *(reading.at_ms for reading in at.readings if reading.pump == token_of(address)),
            END_MS,
        ]
        assert max(after - before for before, after in pairwise(moments)) <= one.silence_ms


@EVERY
@pytest.mark.parametrize("wire", WIRES)
def test_only_what_the_family_may_send_is_ever_sent(one, wire):
    at = bedside(one, wire=wire, seed=2)
    at.run(END_MS)
    assert at.sent
    assert all(one.family.may_send(data) for _, data in at.sent)


@EVERY
def test_what_a_family_reports_is_what_its_readings_hold(one):
    at = bedside(one, fault("paused", 2 * MIN, MIN))
    at.run(END_MS)
    reported = set(one.family.traits.reports)
    for reading in at.readings:
        filled = {
            name
            for name in Reading.__struct_fields__
            if name not in ("pump", "at_ms", "state") and getattr(reading, name) is not None
        }
        assert filled <= reported
        assert reading.state in one.family.traits.states
    seen = {
        name
        for name in ("rate_ml_h", "volume_ml")
        for reading in at.readings
        if getattr(reading, name) is not None
    }
    assert seen == reported & {"rate_ml_h", "volume_ml"}


@EVERY
def test_a_silent_pump_gives_no_reading_and_is_asked_for_ever(one):
    at = bedside(one, fault("silent", 0))
    at.run(10 * MIN)
    assert at.readings == []
    moments = [at_ms for at_ms, _ in at.sent]
    assert moments[-1] > 9 * MIN, "it is still asked"


@EVERY
def test_one_that_falls_silent_is_not_told_from_memory_and_is_read_again_when_it_speaks(one):
    at = bedside(one, fault("silent", 2 * MIN, 2 * MIN))
    at.run(END_MS)
    silent = [r for r in at.readings if 2 * MIN + one.old_ms < r.at_ms < 4 * MIN]
    assert silent == []
    assert any(r.at_ms > 4 * MIN for r in at.readings)
    assert_true(one, at)


@EVERY
def test_a_cable_that_was_out_is_followed_by_the_whole_beginning(one):
    at = bedside(one, fault("cable_pulled", 2 * MIN, MIN))
    at.run(END_MS)
    first = at.sent[0][1][: one.question_bytes]
    again_ms = next(
        at_ms for at_ms, data in at.sent if at_ms >= 3 * MIN and data[: one.question_bytes] == first
    )
    assert again_ms <= 3 * MIN + one.first_by_ms
    assert [r for r in at.readings if 2 * MIN + one.old_ms < r.at_ms < 3 * MIN] == []
    assert any(3 * MIN < r.at_ms <= 3 * MIN + one.first_by_ms for r in at.readings)
    assert_true(one, at)


def a_session(one: Conforming) -> Session:
    pumps = [PumpOnLine(pump=token_of(address), address=address) for address in one.addresses]
    return one.family.open_session(pumps)


def garbage(chance: random.Random, corpus: list[bytes]) -> bytes:
    """Noise, frames of the pump, and frames that were cut, joined or spoilt."""
    what = chance.randrange(4)
    if what == 0 or not corpus:
        return chance.randbytes(chance.randrange(1, 60))
    data = bytearray(chance.choice(corpus))
    if what == 1:
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    elif what == 2:
        del data[chance.randrange(len(data)) :]
    return bytes(data)


def hear_garbage(one: Conforming, times: int, seed: int) -> tuple[int, int]:
    """The growth in bytes of memory from a tenth of the way on, and the bytes that were counted as faulty."""
    at = bedside(one)
    at.run(2 * MIN)
    corpus = [entry.data for entry in at.heard]
    chance = random.Random(seed)
    session = a_session(one)
    session.opened(0)
    now_ms, counted = 0, 0
    tracemalloc.start()
    try:
        early = 0
        for number in range(times):
            now_ms += chance.choice((0, 1, 40, 700, 20_000))
            for fact in session.receive(garbage(chance, corpus), now_ms):
                if isinstance(fact, LinkFault):
                    counted += fact.byte_count
            data = session.due(now_ms)
            assert not data or one.family.may_send(data)
            if number == times // 10:
                early, _ = tracemalloc.get_traced_memory()
        late, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return late - early, counted


@EVERY
def test_ten_thousand_pieces_of_garbage_raise_nothing_and_leave_nothing_in_memory(one):
    grown_bytes, counted = hear_garbage(one, FUZZED, seed=4)
    assert grown_bytes < 64 * 1024
    assert counted > FUZZED


@pytest.mark.long
@pytest.mark.timeout(1_800)
@EVERY
def test_a_million_pieces_of_garbage_raise_nothing_and_leave_nothing_in_memory(one):
    grown_bytes, counted = hear_garbage(one, FUZZED_LONG, seed=5)
    assert grown_bytes < 64 * 1024
    assert counted > FUZZED_LONG


@EVERY
@pytest.mark.parametrize("seed", range(20))
def test_after_any_garbage_the_pump_is_read_again(one, seed):
    chance = random.Random(seed)
    at = bedside(one)
    at.run(MIN)
    corpus = [entry.data for entry in at.heard]
    for _ in range(chance.randrange(1, 30)):
        at.facts += at.session.receive(garbage(chance, corpus), at.now_ms)
    from_ms = at.now_ms
    at.run(from_ms + one.silence_ms)
    assert any(reading.at_ms > from_ms for reading in at.readings)


@EVERY
@settings(max_examples=60, deadline=None)
@given(steps=steps_with(st.binary(max_size=90)))
def test_whatever_arrives_and_whenever_nothing_else_is_written_and_nothing_is_raised(one, steps):
    session = a_session(one)
    session.opened(0)
    for _ in goes_through(one.family, session, steps):
        pass


@pytest.mark.parametrize("name", [name for name, side in PUMP_SIDES.items() if not side.addresses])
@pytest.mark.parametrize(
    ("pumps", "words"),
    [
        ([], "a port of its own; 0 are set"),
        ([PumpOnLine(pump="p1"), PumpOnLine(pump="p2")], "a port of its own; 2 are set"),
        ([PumpOnLine(pump="p1", address=2)], "p1: {name} pumps have no address"),
        ([PumpOnLine(pump="p1", poll_ms=0)], "a poll of 0 ms is not possible"),
    ],
)
def test_what_a_port_for_one_pump_cannot_have_is_refused_with_the_reason(name, pumps, words):
    with pytest.raises(ValueError, match=words.format(name=name)):
        families.find(name).open_session(pumps)


@EVERY
def test_a_family_whose_polling_changes_the_pump_is_for_the_bench(one):
    """Only what was named so may have its alarms acknowledged by being read."""
    is_bench = one.family.traits.status is DriverStatus.BENCH
    assert is_bench == (one.name == "newera")


@EVERY
def test_the_simulated_pump_of_a_family_hears_anything_and_keeps_little(one):
    stories = {address: scenario(constant(RATE_ML_H, H)) for address in one.addresses}
    device = Device(one.name, stories)
    chance = random.Random(3)
    for number in range(2_000):
        device.receive(chance.randbytes(40), number * 10)
        device.unasked(number * 10)
