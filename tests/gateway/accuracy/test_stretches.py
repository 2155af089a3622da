"""Which parts of a recording are steady running, told as timetables (``tests/gateway/core/timetable.py``)."""

from __future__ import annotations

from array import array
from collections.abc import Iterator

import pytest
from msgspec import structs

from drivers.reading import PumpState, Reading
from gateway.accuracy.stretches import LeftOut, Recorded, Recorder, Stretch
from gateway.core.prescription import Prescription
from gateway.core.timeline import Moment, Timeline
from tests.gateway.accuracy.bench import Bench, measured
from tests.gateway.core.pump_days import START_UTC_MS, continuous
from tests.gateway.core.timetable import play

ORDER = continuous(12.0, 3.0, pump="counter_ml = 0.01")


class Listener:
    """Stands where a ward stands, and cuts stretches."""

    def __init__(self, order: Prescription) -> None:
        self.prescription = order
        self.recorder = Recorder(order)
        self.timeline = Timeline()

    def take(self, moment: Moment, reading: Reading) -> None:
        instant = self.timeline.at(moment)
        if instant is not None:
            self.recorder.take(instant, reading)


def recorded(table: str, *, until: str = "2:00", order: Prescription = ORDER) -> Recorded:
    listener = Listener(order)
    play(listener, table, until=until)  # type: ignore[arg-type]
    return listener.recorder.recorded()


def lengths_min(found: Recorded) -> list[tuple[float, float]]:
    """Rate, and length in minutes, of each stretch."""
    return [(stretch.rate_ml_h, stretch.samples / 2) for stretch in found.stretches]


def volume_ml(stretch: Stretch) -> float:
    return stretch.volumes_ml[-1] - stretch.volumes_ml[0]


class TestWhatIsOneStretch:
    @pytest.mark.parametrize(
        "meanwhile",
        [
            "1:00 running rate=12 step=60",
            "1:00 running rate=12 step=-180",
            "1:00 running rate=12 nocount\n1:01:30 running rate=12",
            "1:00 unknown flow=12\n1:01:30 running rate=12",
            "1:00 silence rate=12\n1:01:50 running rate=12",
            "1:00 running rate=12 alarms=near_empty",
        ],
        ids=["clock set", "clock set back", "no count", "unknown", "short silence", "notice"],
    )
    def test_nothing_that_leaves_the_counter_readable_ends_it(self, meanwhile: str) -> None:
        found = recorded(f"-0:02 idle\n0:00 running rate=12\n{meanwhile}")
        assert lengths_min(found) == [(12.0, 119.5)]
        assert volume_ml(found.stretches[0]) == pytest.approx(12 * 119.5 / 60, abs=0.02)

    def test_readings_that_do_not_say_their_rate_do_not_end_it(self) -> None:
        bench = Bench(hours=1.0, poll_ms=10_000)
        said = list(bench.readings())
        some = [
            (moment, structs.replace(reading, rate_ml_h=None) if number % 3 else reading)
            for number, (moment, reading) in enumerate(said)
        ]
        result = measured(bench.order, some)
        assert result.stretches == 1
        whole = measured(bench.order, said)
        assert abs(result.mean_error_percent - whole.mean_error_percent) < whole.uncertainty.total_percent

    def test_a_wrap_does_not_end_it(self) -> None:
        order = continuous(12.0, 3.0, pump="counter_ml = 0.01\ncounter_wrap_ml = 10")
        found = recorded("-0:02 idle\n0:00 running rate=12\n0:50 running rate=12 counter=0.0", order=order)
        assert lengths_min(found) == [(12.0, 119.5)]
        assert volume_ml(found.stretches[0]) == pytest.approx(12 * 119.5 / 60, abs=0.02)
        assert found.falls == 0


class TestWhatEndsOne:
    @pytest.mark.parametrize(
        ("meanwhile", "why"),
        [
            ("1:00 paused\n1:10 running rate=12", LeftOut.NOT_RUNNING),
            ("1:00 bolus rate=60\n1:10 running rate=12", LeftOut.NOT_RUNNING),
            ("1:00 kvo rate=12\n1:10 running rate=12", LeftOut.NOT_RUNNING),
            ("1:00 running rate=0\n1:10 running rate=12", LeftOut.NOT_RUNNING),
            ("1:00 silence rate=12\n1:10 running rate=12", LeftOut.SILENT),
            ("1:00 running rate=12 nocount\n1:10 running rate=12", LeftOut.SILENT),
        ],
    )
    def test_what_lies_between_is_left_out_and_said(self, meanwhile: str, why: LeftOut) -> None:
        found = recorded(f"-0:02 idle\n0:00 running rate=12\n{meanwhile}")
        assert lengths_min(found) == [(12.0, pytest.approx(60, abs=0.5)), (12.0, pytest.approx(50, abs=0.5))]
        minutes = found.left_out_ms[why] / 60_000
        # two minutes before the start, which was seen only with the reading after it
        before = 2 if why is LeftOut.NOT_RUNNING else 0
        assert minutes == pytest.approx(10 + before, abs=0.3)

    def test_another_set_rate_is_another_stretch(self) -> None:
        found = recorded("-0:02 idle\n0:00 running rate=12\n1:00 running rate=18")
        assert lengths_min(found) == [(12.0, 59.5), (18.0, 59.5)]
        assert [stretch.start_seen for stretch in found.stretches] == [True, False]
        assert volume_ml(found.stretches[1]) == pytest.approx(18 * 59.5 / 60, abs=0.05)

    def test_a_counter_that_falls_without_a_stop_is_followed_anew(self) -> None:
        found = recorded("-0:02 idle\n0:00 running rate=12\n1:00 running rate=12 counter=0.0")
        assert found.falls == 1
        assert lengths_min(found) == [(12.0, 59.5), (12.0, 59.5)]

    def test_a_restart_of_the_gateway_ends_it(self) -> None:
        order = ORDER
        listener = Listener(order)
        for seconds in range(0, 3600, 5):
            # the monotonic clock begins anew after half an hour
            listener.take(
                Moment(
                    monotonic_ms=1000 * (seconds if seconds < 1800 else seconds - 1750),
                    utc_ms=START_UTC_MS + 1000 * seconds,
                ),
                Reading(
                    pump="pump",
                    at_ms=0,
                    state=PumpState.RUNNING,
                    rate_ml_h=12.0,
                    volume_ml=int(12 * seconds / 36) / 100,
                ),
            )
        assert lengths_min(listener.recorder.recorded()) == [(12.0, 29.5), (12.0, 29.5)]

    def test_a_ramp_has_no_steady_stretch(self) -> None:
        steps = "\n".join(f"0:{minute:02} running rate={minute + 1}" for minute in range(50))
        found = recorded(f"-0:02 idle\n{steps}\n0:50 idle")
        assert found.stretches == []
        assert found.left_out_ms[LeftOut.UNFOLLOWED] / 60_000 == pytest.approx(50, abs=5)


class TestTheVolume:
    def test_a_counter_that_stands_still_at_the_end_is_not_cut_off(self) -> None:
        found = recorded("-0:02 idle\n0:00 running rate=12\n1:00 running rate=12 flow=0", until="1:30")
        (stretch,) = found.stretches
        assert stretch.samples / 2 == pytest.approx(90, abs=0.5)
        assert volume_ml(stretch) == pytest.approx(12.0, abs=0.02)

    def test_a_counter_that_never_moves_is_a_stretch_of_nothing(self) -> None:
        (stretch,) = recorded("-0:02 idle\n0:00 running rate=12 flow=0").stretches
        assert volume_ml(stretch) == 0.0

    @pytest.mark.parametrize("counter_ml", [0.01, 0.1, 0.5])
    def test_is_known_far_better_than_to_a_count_where_a_coarse_counter_is_read_often(
        self, counter_ml: float
    ) -> None:
        bench = Bench(rate_ml_h=2.0, counter_ml=counter_ml, stroke_ml=0.0005, ripple_ml=0.0, hours=2.0)
        listener = Listener(bench.order)
        for moment, reading in bench.readings():
            listener.take(moment, reading)
        (stretch,) = listener.recorder.recorded().stretches
        between_readings_ml = 2.0 * 5.5 / 3600
        assert all(
            abs(volume_ml - 2.0 * sample / 120) <= 2 * between_readings_ml + 0.002
            for sample, volume_ml in enumerate(stretch.volumes_ml)
        )

    def test_no_reading_is_kept_only_the_volume_each_half_minute(self) -> None:
        bench = Bench(hours=6.0)
        listener = Listener(bench.order)
        readings = 0
        for moment, reading in bench.readings():
            listener.take(moment, reading)
            readings += 1
        held = sum(len(numbers) for numbers in arrays_in(listener.recorder))
        assert readings > 4_000
        assert held <= 2 * (6 * 120 + 1)


def arrays_in(thing: object) -> Iterator[array[float]]:
    """All arrays that hang on it; and there is no list of anything else."""
    if isinstance(thing, array):
        yield thing
    elif isinstance(thing, Recorder):
        for value in vars(thing).values():
            yield from arrays_in(value)
    elif isinstance(thing, list):
        for value in thing:
            assert isinstance(value, Stretch)
            yield from arrays_in(value)
    elif hasattr(thing, "__struct_fields__") and not isinstance(thing, Prescription):
        for value in structs.asdict(thing).values():  # type: ignore[type-var]
            yield from arrays_in(value)


def test_duplicates_and_disorder_change_nothing() -> None:
    bench = Bench(hours=1.0)
    readings = list(bench.readings())
    mixed = [one for number, one in enumerate(readings) for one in (one, readings[max(0, number - 3)])]
    assert measured(bench.order, mixed) == measured(bench.order, readings)
