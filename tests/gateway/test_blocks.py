"""Readings in blocks say what they say one by one, and a replay of either tells the same."""

from __future__ import annotations

import io
import math
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from drivers.reading import PumpState
from gateway import blocks
from gateway.blocks import Block, read_blocks, rows_of
from gateway.core.order import parse_order
from gateway.core.prescription import Prescription
from gateway.core.stretch import SHORTEST
from gateway.readings import BadRow, HeaderError, Row, lines_of, read_rows
from gateway.recording import Tally
from gateway.replay import Event, StateLine, replay, replay_blocks
from tests.gateway.core.pump_days import NoisyPump, Segment, continuous

RECORDINGS = Path(__file__).parents[1] / "recordings"
NAMES = sorted(path.parent.name for path in RECORDINGS.glob("*/truth.json"))
HEADER, *BODY = (RECORDINGS / NAMES[0] / "readings.csv").read_bytes().splitlines(keepends=True)
STATES = tuple(PumpState)


def one_by_one(data: bytes) -> list[Row | BadRow]:
    text = io.TextIOWrapper(io.BytesIO(data), encoding="utf-8", errors="replace", newline="")
    return list(read_rows(lines_of(text)))


def assert_arrays_say_what_the_rows_say(data: bytes) -> int:
    """How many rows the arrays know."""
    plain = 0
    for block in read_blocks(io.BytesIO(data)):
        columns = block.columns
        if columns is None:
            continue
        for place in range(len(block)):
            if not columns.plain[place]:
                continue
            plain += 1
            row = block.row(place)
            assert isinstance(row, Row)
            assert row.moment.synced
            assert row.moment.utc_ms == columns.utc_ms[place]
            assert row.moment.monotonic_ms == columns.uptime_ms[place]
            assert row.reading.state is STATES[columns.state[place]]
            assert bool(row.reading.alarms) == columns.alarms[place]
            for value, number in (
                (row.reading.rate_ml_h, columns.rate_ml_h[place]),
                (row.reading.volume_ml, columns.volume_ml[place]),
                (row.reading.pressure_mmhg, columns.pressure_mmhg[place]),
            ):
                assert math.isnan(number) if value is None else value == number
    return plain


class TestReading:
    @pytest.mark.parametrize("name", NAMES)
    def test_a_recording_is_the_same_in_blocks(self, name: str) -> None:
        data = (RECORDINGS / name / "readings.csv").read_bytes()
        assert list(rows_of(read_blocks(io.BytesIO(data)))) == one_by_one(data)

    def test_nearly_all_rows_of_a_recording_are_in_the_arrays(self) -> None:
        data = HEADER + b"".join(BODY)
        assert assert_arrays_say_what_the_rows_say(data) > 0.9 * len(BODY)

    @settings(max_examples=60, deadline=None)
    @given(
        st.lists(
            st.tuples(
                st.integers(0, 119),
                st.integers(0, 7),
                st.sampled_from(
                    [
                        *[
                            "",
                            "0",
                            "-3",
                            "1e9",
                            "1e10",
                            "nan",
                            "inf",
                            ".",
                            ".5",
                            "5.",
                            "1.2.3",
                            "١",
                            " 7",
                            "7 ",
                        ],
                        *[
                            "unknown",
                            "off",
                            "runningrunning",
                            "\x00",
                            "\u00e9",
                            "123456789012345678",
                            "000.1",
                        ],
                        *["0.30000000000000004", "1234567890.5", "1_0", "2026-02-30T00:00:00.000Z", "+1"],
                        *["2026-05-04T24:00:00.000Z", "2026-05-04T07:00:00Z", "2026-05-04 07:00:00.000Z"],
                    ]
                ),
            ),
            max_size=30,
        ),
        st.sampled_from([b"\n", b"\r\n"]),
        st.booleans(),
        st.sampled_from([200, 1_000, 1 << 20]),
    )
    def test_a_mangled_file_is_the_same_in_blocks(
        self, wounds: list[tuple[int, int, str]], ending: bytes, ended: bool, block_bytes: int
    ) -> None:
        lines = [line.rstrip(b"\r\n") for line in BODY[1_000:1_120]]
        for number, column, cell in wounds:
            cells = lines[number].split(b",")
            cells[min(column, len(cells) - 1)] = cell.encode()
            lines[number] = b",".join(cells)
        data = ending.join([HEADER.rstrip(b"\r\n"), *lines]) + (ending if ended else b"")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(blocks, "BLOCK_BYTES", block_bytes)
            assert list(rows_of(read_blocks(io.BytesIO(data)))) == one_by_one(data)
            assert_arrays_say_what_the_rows_say(data)

    @settings(max_examples=80, deadline=None)
    @given(st.integers(0, 10**15), st.integers(0, 6))
    def test_every_decimal_number_is_read_as_python_reads_it(self, digits: int, after_the_point: int) -> None:
        text = f"{digits / 10**after_the_point:.{after_the_point}f}"
        line = f"2026-05-04T07:00:00.000Z,running,1,{text},,,,100.0\n"
        (block,) = read_blocks(io.BytesIO(HEADER + line.encode()))
        assert block.columns is not None
        if float(text) <= 1e9 and len(text) <= 15:
            assert block.columns.volume_ml[0] == float(text)
        else:
            assert not block.columns.plain[0]

    @pytest.mark.parametrize(
        "extra",
        [
            b'2026-05-04T07:00:00.000Z,"running",1,2,,,,100.0\n',
            b"\n",
            b"x" * 30_000 + b"\n",
            b"x" * 3_000_000,
            b"2026-05-04T07:00:00.000Z,running\n",
            b"2026-05-04T07:00:00.000Z,running,1,2,,,,100.0,more\n",
            b"2026-05-04T07:00:00.000Z,run\rning,1,2,,,,100.0\n",
            b"\xff\xfe,running,1,2,,,,100.0\n",
        ],
    )
    def test_a_line_of_another_kind_spoils_no_other(self, extra: bytes) -> None:
        data = HEADER + b"".join([*BODY[:50], extra, *BODY[50:60]])
        assert list(rows_of(read_blocks(io.BytesIO(data)))) == one_by_one(data)

    @pytest.mark.parametrize("header", [b"", b"a,b\n", b"time\n", b'"time\n', b"x" * 20_000 + b"\n"])
    def test_a_header_that_names_no_columns_is_an_error(self, header: bytes) -> None:
        with pytest.raises(HeaderError):
            list(read_blocks(io.BytesIO(header)))

    def test_one_block_is_held_at_a_time(self) -> None:
        file = io.BytesIO(HEADER + b"".join(BODY * 40))
        stream = read_blocks(file)
        first = next(stream)
        assert isinstance(first, Block)
        assert file.tell() < 2 * blocks.BLOCK_BYTES


def told(prescription: Prescription, data: bytes) -> tuple[list[Event | StateLine], Tally]:
    tally = Tally()
    return list(replay_blocks(prescription, read_blocks(io.BytesIO(data)), tally)), tally


def told_one_by_one(prescription: Prescription, data: bytes) -> tuple[list[Event | StateLine], Tally]:
    tally = Tally()
    return list(replay(prescription, one_by_one(data), tally)), tally


def as_csv(pump: NoisyPump, from_s: float, until_s: float) -> bytes:
    lines = ["time,state,rate_ml_h,volume_ml,pressure_mmhg,alarms,uptime_s\n"]
    for row in (Row(*both) for both in pump.readings(from_s, until_s)):
        at = row.moment.utc_ms
        time = f"2026-05-{4 + at // 86_400_000 - 20_577:02}T"
        time += f"{at // 3_600_000 % 24:02}:{at // 60_000 % 60:02}:{at // 1000 % 60:02}.{at % 1000:03}Z"
        volume = "" if row.reading.volume_ml is None else f"{row.reading.volume_ml:.4f}"
        assert row.moment.monotonic_ms is not None
        uptime_s = row.moment.monotonic_ms / 1000
        lines.append(f"{time},{row.reading.state},{row.reading.rate_ml_h},{volume},50,,{uptime_s:.3f}\n")
    return "".join(lines).encode()


class TestReplay:
    @pytest.mark.parametrize("name", NAMES)
    def test_a_recording_tells_the_same_in_blocks(self, name: str) -> None:
        data = (RECORDINGS / name / "readings.csv").read_bytes()
        order = parse_order((RECORDINGS / name / "prescription.toml").read_text())
        assert told(order, data) == told_one_by_one(order, data)

    @settings(max_examples=30, deadline=None)
    @given(
        rate_ml_h=st.sampled_from([0.5, 2.0, 10.0, 125.0]),
        counter_ml=st.sampled_from([0.01, 0.1]),
        factor=st.sampled_from([0.0, 0.5, 0.85, 1.0, 1.2, 2.0]),
        pauses=st.lists(st.integers(10, 170), max_size=3),
        limits=st.sampled_from(["", "max_rate_ml_h = 130.0", "max_volume_ml = 380.0", "kvo_ml_h = 0.4"]),
        missing=st.sampled_from([0.0, 0.01]),
        seed=st.integers(0, 2**32),
    )
    @example(
        rate_ml_h=10.0, counter_ml=0.01, factor=0.0, pauses=[91], limits="", missing=0.0, seed=91
    )  # 29.1665 mL were expected, which is rounded by its last bit
    def test_any_pump_tells_the_same_in_blocks(
        self,
        rate_ml_h: float,
        counter_ml: float,
        factor: float,
        pauses: list[int],
        limits: str,
        missing: float,
        seed: int,
    ) -> None:
        order = continuous(rate_ml_h, 3.0, limits=limits, pump=f"counter_ml = {counter_ml}")
        segments = [Segment(-600, PumpState.IDLE), Segment(0, PumpState.RUNNING, rate_ml_h)]
        for minute in sorted(set(pauses)):
            segments.append(Segment(minute * 60, PumpState.PAUSED, resets_counter=seed % 2 == 0))
            segments.append(Segment(minute * 60 + 400, PumpState.RUNNING, rate_ml_h))
        segments.append(Segment(10_900, PumpState.KVO, 0.4))
        segments.append(Segment(13_000, PumpState.COMPLETE))
        segments.sort(key=lambda segment: segment.at_s)
        pump = NoisyPump(
            segments, counter_ml=counter_ml, factor=factor, shifted_at_s=5_000, missing=missing, seed=seed
        )
        data = as_csv(pump, -600, 14_400)
        assert told(order, data) == told_one_by_one(order, data)

    def test_ordinary_readings_are_passed_over_together(self) -> None:
        """Otherwise the tests above compare one way with itself."""
        order = continuous(10.0, 3.0)
        pump = NoisyPump([Segment(-60, PumpState.IDLE), Segment(0, PumpState.RUNNING, 10.0)])
        data = as_csv(pump, -60, 7_200)
        singly = 0
        take = Block.row

        def counted(self: Block, index: int) -> Row | BadRow | None:
            nonlocal singly
            singly += 1
            return take(self, index)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Block, "row", counted)
            _, tally = told(order, data)
        assert tally.rows > 1_300
        assert singly < tally.rows / 4
        assert tally.rows > SHORTEST
