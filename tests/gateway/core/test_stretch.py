"""Readings that are passed over together leave behind what they would have left one by one."""

from __future__ import annotations

import io
import random

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from drivers.reading import PumpState
from gateway.blocks import Columns, read_blocks
from gateway.core.monitor import Monitor
from gateway.core.prescription import Prescription
from gateway.core.stretch import pass_over
from gateway.core.timeline import Timeline
from gateway.readings import Row
from gateway.replay import iso_utc
from tests.gateway.core.pump_days import NoisyPump, Segment, continuous

DEMAND = '[demand]\nbolus_ml = 0.5\nbolus_over = "2min"\nlockout = "10min"\n'


def as_csv(pump: NoisyPump, from_s: float, until_s: float, pressure_seed: int | None) -> bytes:
    random_ = random.Random(pressure_seed)
    lines = ["time,state,rate_ml_h,volume_ml,pressure_mmhg,alarms,uptime_s\n"]
    posture_mmhg = 0
    for moment, reading in pump.readings(from_s, until_s):
        if random_.random() < 0.002:
            posture_mmhg = random_.choice([-15, 0, 15])
        pressure = "" if pressure_seed is None else str(50 + posture_mmhg + round(random_.gauss(0, 2)))
        volume = "" if reading.volume_ml is None else f"{reading.volume_ml:.4f}"
        assert moment.monotonic_ms is not None
        lines.append(
            f"{iso_utc(moment.utc_ms)},{reading.state},{reading.rate_ml_h},{volume},{pressure},,"
            f"{moment.monotonic_ms / 1000:.3f}\n"
        )
    return "".join(lines).encode()


def after(prescription: Prescription, data: bytes, *, together: bool) -> tuple[object, int]:
    """What is remembered after these readings, and how many of them were passed over together."""
    monitor, timeline = Monitor("pump", prescription), Timeline()
    passed = 0
    for block in read_blocks(io.BytesIO(data)):
        columns: Columns | None = block.columns
        place = 0
        while place < len(block):
            count = 0
            if together and columns is not None:
                count = pass_over(monitor, timeline, columns, place, min(len(block), place + 500))
            if count:
                passed += count
                place += count
                continue
            row = block.row(place)
            assert isinstance(row, Row)
            instant = timeline.at(row.moment)
            assert instant is not None
            monitor.step(instant, row.reading)
            place += 1
    occurrence = monitor.memory.occurrence
    if occurrence is not None:  # where a test last was at 0 tells nothing while it is
        bank = occurrence.bank
        bank.under_since = [
            bank.mark if not v else s for v, s in zip(bank.under_ml, bank.under_since, strict=True)
        ]
        bank.over_since = [
            bank.mark if not v else s for v, s in zip(bank.over_ml, bank.over_since, strict=True)
        ]
    remembered = msgspec.to_builtins(monitor.memory)
    return (remembered, msgspec.to_builtins(timeline.state)), passed


def assert_alike(one: object, other: object, path: str = "") -> None:
    if isinstance(one, dict):
        assert isinstance(other, dict)
        assert one.keys() == other.keys(), path
        for key, value in one.items():
            assert_alike(value, other[key], f"{path}.{key}")
    elif isinstance(one, (list, tuple)):
        assert isinstance(other, (list, tuple))
        assert len(one) == len(other), path
        for index, value in enumerate(one):
            assert_alike(value, other[index], f"{path}[{index}]")
    elif isinstance(one, float):
        assert one == pytest.approx(other, abs=1e-7), path
    else:
        assert one == other, path


@settings(max_examples=15, deadline=None)
@given(
    rate_ml_h=st.sampled_from([0.5, 2.0, 10.0, 125.0]),
    counter_ml=st.sampled_from([0.01, 0.1]),
    pause_at=st.none() | st.integers(10, 100),
    limits=st.sampled_from(["", "max_rate_ml_h = 130.0", "max_volume_ml = 380.0"]),
    rest=st.sampled_from(["", "[bag]\nvolume_ml = 30", DEMAND]),
    missing=st.sampled_from([0.0, 0.002]),
    pressure_seed=st.none() | st.integers(0, 1000),
    until_s=st.integers(2_000, 10_000),
    seed=st.integers(0, 2**32),
)
@example(10.0, 0.1, 10, "", "[bag]\nvolume_ml = 30", 0.0, None, 3664, 0)
def test_what_is_remembered_is_the_same(
    rate_ml_h: float,
    counter_ml: float,
    pause_at: int | None,
    limits: str,
    rest: str,
    missing: float,
    pressure_seed: int | None,
    until_s: int,
    seed: int,
) -> None:
    order = continuous(rate_ml_h, 3.0, limits=limits, pump=f"counter_ml = {counter_ml}", rest=rest)
    segments = [Segment(-600, PumpState.IDLE), Segment(0, PumpState.RUNNING, rate_ml_h)]
    if pause_at is not None:
        segments.append(Segment(pause_at * 60, PumpState.PAUSED, resets_counter=seed % 2 == 0))
        segments.append(Segment(pause_at * 60 + 400, PumpState.RUNNING, rate_ml_h))
    pump = NoisyPump(segments, counter_ml=counter_ml, missing=missing, seed=seed)
    data = as_csv(pump, -600, until_s, pressure_seed)
    together, passed = after(order, data, together=True)
    singly, none = after(order, data, together=False)
    assert none == 0
    assert_alike(together, singly)
    if rest != DEMAND and not missing:
        assert passed > 0
