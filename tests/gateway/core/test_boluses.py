"""Boluses on demand, and pulses (prescription page, ``[demand]``, sections 1.1, rule 6, 3 and 4)."""

from __future__ import annotations

import random

import pytest
from msgspec.structs import replace

from alerts.condition import Kind, Verdict
from drivers.reading import PumpState
from gateway.core.monitor import Monitor
from tests.gateway.core.pca_days import (
    BY_RATE,
    BY_STATE,
    WORDLESS,
    ButtonPump,
    legal_presses,
    pca,
    watch_button,
)
from tests.gateway.core.pump_days import NoisyPump, Segment, Ward, continuous, order, watch
from tests.gateway.core.timetable import live, must_be_told

PCA = pca()
"""1 mL over 2 min, 10 min from start to start, 4 mL in an hour, on 1 mL/h."""
FROM_THE_END = pca(lockout_from="end")
SHOT = pca(bolus_ml=0.5, bolus_over="2s", lockout="8min", limit_ml=2.0)
"""Over before the next reading."""

BOLUS = "bolus rate=31"
BASAL = "running rate=1"


def pressed(*rows: str, length: int = 2) -> str:
    """A timetable of boluses begun at these times (h:mm), each so many minutes long."""
    lines = ["-0:10 idle", f"0:00 {BASAL}"]
    for row in rows:
        hour, minute = (int(part) for part in row.split(":"))
        end = hour * 60 + minute + length
        lines += [f"{row} {BOLUS}", f"{end // 60}:{end % 60:02} {BASAL}"]
    return "\n".join(lines)


def message(ward: Ward, kind: Kind) -> str:
    return next(one.message for one in ward.findings if one.kind is kind and one.verdict is Verdict.PRESENT)


class TestLegalDays:
    @pytest.mark.parametrize(
        ("basal_ml_h", "bolus_ml", "over", "over_s", "lockout", "limit_ml", "counter_ml", "poll_s", "says"),
        [
            (1.0, 1.0, "2min", 120, "10min", 4.0, 0.01, 5, BY_STATE),
            (1.0, 1.0, "2min", 120, "10min", 4.0, 0.1, 5, BY_RATE),
            (0.5, 0.5, "1min", 60, "8min", 2.0, 0.1, 5, BY_STATE),
            (0.5, 0.5, "1min", 60, "8min", 2.0, 0.01, 30, BY_RATE),
            (1.0, 0.5, "14s", 14, "15min", 3.0, 0.05, 5, BY_STATE),
            (1.0, 0.5, "14s", 14, "15min", 3.0, 0.1, 30, WORDLESS),
            (1.0, 0.5, "14s", 14, "15min", 3.0, 0.01, 30, BY_STATE),
            (0.5, 0.5, None, 2, "8min", 2.0, 0.05, 5, WORDLESS),
            (0.5, 0.5, None, 2, "8min", 2.0, 0.01, 30, BY_STATE),
            (0.2, 0.1, "3s", 3, "15min", 0.6, 0.1, 5, BY_STATE),
            (0.2, 0.1, "3s", 3, "15min", 0.6, 0.01, 5, WORDLESS),
            (0.2, 0.1, "3s", 3, "15min", 0.6, 0.1, 30, WORDLESS),
        ],
    )
    @pytest.mark.parametrize("lockout_from", ["start", "end"])
    def test_boluses_that_the_order_allows_are_silent(
        self,
        basal_ml_h: float,
        bolus_ml: float,
        over: str | None,
        over_s: float,
        lockout: str,
        limit_ml: float,
        counter_ml: float,
        poll_s: float,
        says: str,
        lockout_from: str,
    ) -> None:
        hours = 12
        prescription = pca(
            basal_ml_h=basal_ml_h,
            bolus_ml=bolus_ml,
            bolus_over=over,
            lockout=lockout,
            lockout_from=lockout_from,
            limit_ml=limit_ml,
            counter_ml=counter_ml,
            poll=f"{poll_s}s",
        )
        assert prescription.demand is not None
        random_ = random.Random(f"{bolus_ml} {counter_ml} {poll_s} {says} {lockout_from}")
        pump = ButtonPump(
            basal_ml_h,
            legal_presses(prescription.demand, over_s, hours, random_.choice([900, 1500]), random_),
            bolus_ml,
            over_s,
            counter_ml=counter_ml,
            poll_s=poll_s,
            calibration=random_.choice([-0.04, 0.0, 0.04]),
            says=says,
            seed=random_.randrange(10**6),
            missing=random_.choice([0.0, 0.05]),
            lost=random_.choice([0.0, 0.02]),
        )
        assert watch_button(prescription, pump, hours * 3600).alerts() == []

    def test_a_bolus_just_before_and_just_after_a_bag_change(self) -> None:
        pump = ButtonPump(1.0, [3000, 3900], 1.0, 120, pauses_s=[(3125, 3600)], seed=3)
        assert watch_button(PCA, pump, 6 * 3600).alerts() == []

    def test_volumes_that_do_not_come_at_the_end_of_a_bolus_are_no_surplus(self) -> None:
        ward = live(
            PCA,
            f"""
            -0:10     idle
             0:00     {BASAL}
             1:00     {BOLUS}
             1:01:50  {BOLUS} nocount
             1:02:00  {BASAL} nocount
             1:02:30  {BASAL}
            """,
            until="4:00",
        )
        must_be_told(ward, "")

    def test_a_bolus_that_an_occlusion_interrupts_and_that_goes_on_is_one(self) -> None:
        ward = live(
            PCA,
            f"""
            -0:10  idle
             0:00  {BASAL}
             1:00  {BOLUS}
             1:01  paused
             1:03  {BOLUS}
             1:04  {BASAL}
            """,
            until="2:00",
        )
        must_be_told(ward, "")

    @pytest.mark.parametrize("says", [BY_STATE, BY_RATE])
    @pytest.mark.parametrize("presses", [[300.0, 900.0, 9000.0], [1800.0, 3600.0, 9000.0], [2.0, 900.0]])
    def test_boluses_may_be_all_that_is_ordered(self, says: str, presses: list[float]) -> None:
        prescription = pca(basal_ml_h=0, bolus_ml=0.5, bolus_over="1min", lockout="8min", limit_ml=2)
        pump = ButtonPump(0.0, presses, 0.5, 60, says=says, pauses_s=[(5000, 5300)])
        assert watch_button(prescription, pump, 5 * 3600).alerts() == []

    def test_a_loading_dose_that_the_pump_calls_a_bolus_is_the_phases_own(self) -> None:
        prescription = order(
            phases='[[schedule.phase]]\nduration = "5min"\nvolume_ml = 2\n'
            '[[schedule.phase]]\nduration = "24h"\nrate_ml_h = 0.5\n',
            tail='[demand]\nbolus_ml = 0.5\nbolus_over = "1min"\nlockout = "8min"\nlimit_ml = 2\n'
            "[pump]\ncounter_ml = 0.01\nstroke_ml = 0.005\n",
        )
        ward = live(
            prescription,
            """
            -0:10  idle
             0:00  bolus    rate=24
             0:05  running  rate=0.5
             0:06  bolus    rate=30.5
             0:07  running  rate=0.5
            """,
            until="2:00",
        )
        must_be_told(ward, "")


class TestLockout:
    def test_a_bolus_within_the_lockout_is_told_with_the_second_reading_that_shows_it(self) -> None:
        ward = live(PCA, pressed("1:00", "1:05"), until="2:00")
        must_be_told(ward, "1:05 bolus_in_lockout\n1:05 bolus_in_lockout end")
        assert message(ward, Kind.BOLUS_IN_LOCKOUT) == (
            "A bolus began 5 min after the start of the last one; at least 10 min are ordered."
        )

    @pytest.mark.parametrize(
        ("prescription", "second", "told"),
        [
            (PCA, "1:10", ""),
            (PCA, "1:09", "1:09 bolus_in_lockout\n1:09 bolus_in_lockout end"),
            (FROM_THE_END, "1:12", ""),
            (FROM_THE_END, "1:11", "1:11 bolus_in_lockout\n1:11 bolus_in_lockout end"),
        ],
    )
    def test_the_lockout_is_from_the_start_or_the_end_of_the_last_one(
        self, prescription, second, told
    ) -> None:
        must_be_told(live(prescription, pressed("1:00", second), until="2:00"), told)

    @pytest.mark.parametrize("early_s", [-60.0, 0.0, 4.0, 20.0, 100.0])
    def test_less_than_a_poll_too_early_is_silent_and_three_polls_are_told(self, early_s: float) -> None:
        told = {
            kind
            for seed in range(8)
            for _, kind in watch_button(
                PCA, ButtonPump(1.0, [3600, 4200 - early_s + 0.1], 1.0, 120, seed=seed), 5000
            ).alerts()
        }
        assert told == ({"bolus_in_lockout"} if early_s >= 20 else set())

    def test_boluses_that_only_counts_show_are_judged_too(self) -> None:
        legal = ButtonPump(1.0, [3600, 4090, 7200], 0.5, 2, says=WORDLESS)
        assert watch_button(SHOT, legal, 9000).alerts() == []
        early = ButtonPump(1.0, [3600, 3900, 7200], 0.5, 2, says=WORDLESS)
        (alert,) = watch_button(SHOT, early, 9000).alerts()
        assert alert[1] == "bolus_in_lockout"
        assert 3900 <= alert[0] <= 3912

    def test_one_reading_that_says_bolus_while_nothing_is_counted_is_none(self) -> None:
        ward = live(PCA, pressed("1:00") + f"\n1:05 {BOLUS} flow=0\n1:05:05 {BASAL}", until="2:00")
        must_be_told(ward, "")

    @pytest.mark.parametrize("restarted_at_s", [3650, 3800, 3903])
    def test_it_is_found_over_a_restart_of_the_gateway(self, restarted_at_s: int) -> None:
        pump = ButtonPump(1.0, [3600, 3900], 1.0, 120)
        ward = Ward(PCA)
        for moment, reading in pump.readings(-600, 5000):
            if restarted_at_s <= reading.at_ms / 1000 < restarted_at_s + 5:
                ward.monitor = Monitor.restore("pump", PCA, ward.monitor.snapshot())
            ward.take(moment, reading)
        assert [kind for _, kind in ward.alerts()] == ["bolus_in_lockout"]


class TestLimit:
    def test_more_in_the_window_than_ordered_is_told_when_the_volume_passes(self) -> None:
        ward = live(PCA, pressed("1:00", "1:11", "1:22", "1:33", "1:44"), until="1:50")
        # 4 mL and a tenth, a count and the pump's noise: about 0.5 of the fifth
        must_be_told(ward, "1:44:50 bolus_limit_exceeded\n1:44:50 bolus_limit_exceeded end", within_s=20)
        assert "at most 4.00 mL are ordered" in message(ward, Kind.BOLUS_LIMIT_EXCEEDED)

    def test_the_fifth_an_hour_after_the_first_is_legal(self) -> None:
        ward = live(PCA, pressed("1:00", "1:15", "1:30", "1:45", "2:00"), until="2:10")
        must_be_told(ward, "")

    @pytest.mark.parametrize("counter_ml", [0.01, 0.1])
    def test_a_fifth_is_found_with_a_coarse_counter_and_four_never_are(self, counter_ml: float) -> None:
        prescription = pca(counter_ml=counter_ml)
        for seed in range(5):
            presses = [3600.0 + 660 * number for number in range(5)]
            pump = ButtonPump(1.0, presses, 1.0, 120, counter_ml=counter_ml, calibration=0.04, seed=seed)
            assert [kind for _, kind in watch_button(prescription, pump, 6600).alerts()] == [
                "bolus_limit_exceeded"
            ]
            pump = ButtonPump(1.0, presses[:4], 1.0, 120, counter_ml=counter_ml, calibration=0.04, seed=seed)
            assert watch_button(prescription, pump, 6300).alerts() == []

    def test_one_bolus_larger_than_ordered_is_told_before_it_ends(self) -> None:
        ward = live(PCA, pressed("1:00", length=4), until="2:00")
        must_be_told(ward, "1:02:10 bolus_limit_exceeded\n1:02:10 bolus_limit_exceeded end", within_s=25)
        assert "1.00 mL are ordered for one bolus" in message(ward, Kind.BOLUS_LIMIT_EXCEEDED)

    def test_one_that_only_counts_show_may_be_too_large_as_well(self) -> None:
        pump = ButtonPump(1.0, [3600], 0.8, 2, says=WORDLESS)
        assert [kind for _, kind in watch_button(SHOT, pump, 5000).alerts()] == ["bolus_limit_exceeded"]

    def test_what_was_given_in_a_silence_may_be_as_many_as_fit_into_it(self) -> None:
        silence = f"-0:10 idle\n0:00 {BASAL}\n1:00 silence rate=1 add={{}}\n1:32 {BASAL}"
        must_be_told(live(PCA, silence.format(4), until="2:00"), "1:04:57 no_data\n1:32 no_data end")
        ward = live(PCA, silence.format(6), until="2:00")
        assert [kind for _, kind in ward.alerts()] == ["no_data", "over_infusion"]


class TestNotOrdered:
    A_DAY = continuous(1, 24, pump="counter_ml = 0.01\nstroke_ml = 0.005\nripple_ml = 0.01")

    def test_a_bolus_where_none_is_ordered_is_told_and_is_no_over_infusion_besides(self) -> None:
        ward = live(self.A_DAY, pressed("1:00"), until="2:00")
        must_be_told(ward, "1:00 bolus_not_ordered\n1:00 bolus_not_ordered end")

    def test_the_phases_own_delivery_may_be_called_so(self) -> None:
        ward = live(self.A_DAY, "-0:10 idle\n0:00 bolus rate=1", until="3:00")
        must_be_told(ward, "")

    def test_priming_is_no_bolus(self) -> None:
        ward = live(
            self.A_DAY,
            f"-0:10 idle\n0:00 {BASAL}\n1:00 priming rate=500 flow=500\n1:01 {BASAL}",
            until="2:00",
        )
        must_be_told(ward, "")


class TestDemandPattern:
    def test_a_bolus_at_every_lockout_for_two_hours_is_told_and_ends_when_it_stops(self) -> None:
        free = pca(limit_ml=None, bolus_ml=0.5)
        presses = [3600 + 610.0 * number for number in range(14)]
        told = watch_button(free, ButtonPump(1.0, presses, 0.5, 120), 6 * 3600).told
        start, end = ((at_s, phase) for at_s, kind, phase in told if kind == "demand_pattern")
        assert start[1] == "start"
        assert 3600 + 5400 <= start[0] <= 3600 + 7200 + 700
        assert end[1] == "end"
        assert presses[-1] < end[0] < presses[-1] + 7200

    def test_it_is_told_as_well_where_the_limit_allows_fewer_than_the_lockout(self) -> None:
        presses = [3600.0 * hour + 605 * number for hour in range(1, 4) for number in range(4)]
        assert [
            kind for _, kind in watch_button(PCA, ButtonPump(1.0, presses, 1.0, 120), 15000).alerts()
        ] == ["demand_pattern"]

    @pytest.mark.parametrize("apart_s", [900, 1200])
    def test_as_many_as_somebody_in_pain_needs_are_none(self, apart_s: int) -> None:
        presses = [3600.0 + apart_s * number for number in range(16)]
        free = pca(limit_ml=None, bolus_ml=0.5)
        assert watch_button(free, ButtonPump(1.0, presses, 0.5, 120), 7 * 3600).alerts() == []

    def test_three_demands_for_each_one_given_are_told_after_two_hours_and_end(self) -> None:
        presses = [3600.0 + 1800 * number for number in range(5)]
        refused = [press + 100.0 * number for press in presses for number in (1, 2, 3)]
        told = watch_button(PCA, ButtonPump(1.0, presses, 1.0, 120, refused_s=refused), 6 * 3600).told
        start, end = ((at_s, phase) for at_s, kind, phase in told if kind == "demand_pattern")
        assert 3600 + 5400 <= start[0] <= 3600 + 7200
        assert refused[-1] + 3600 <= end[0] <= refused[-1] + 3700

    @pytest.mark.parametrize(
        "refused",
        [
            pytest.param([3610.0 + 20 * number for number in range(20)], id="one bad quarter of an hour"),
            pytest.param([3700.0 + 1800 * number for number in range(5)], id="one for each one given"),
        ],
    )
    def test_fewer_refused_demands_are_only_information(self, refused: list[float]) -> None:
        presses = [3600.0 + 1800 * number for number in range(5)]
        ward = watch_button(PCA, ButtonPump(1.0, presses, 1.0, 120, refused_s=refused), 5 * 3600)
        assert ward.alerts() == []
        assert sum(kind == "demand_denied" for _, kind, _ in ward.told) == len(refused)


class TestProgram:
    @pytest.mark.parametrize(
        ("bolus_ml", "lockout_s", "words"),
        [
            (2.0, 600.0, "a bolus of 2.00 mL instead of 1.00 mL"),
            (1.0, 300.0, "a lockout of 5 min instead of 10 min"),
            (0.5, 60.0, "a bolus of 0.50 mL instead of 1.00 mL and a lockout of 60 s instead of 10 min"),
            (None, 300.0, "a lockout of 5 min instead of 10 min"),
        ],
    )
    def test_another_bolus_or_lockout_than_ordered_is_told_until_it_is_right(
        self, bolus_ml: float | None, lockout_s: float | None, words: str
    ) -> None:
        pump = ButtonPump(1.0, [], 1.0, 120, settings=(bolus_ml, lockout_s))
        ward = Ward(PCA)
        for moment, reading in pump.readings(-60, 600):
            ward.take(moment, reading)
        assert [kind for _, kind in ward.alerts()] == ["program_changed"]
        assert message(ward, Kind.PROGRAM_CHANGED) == f"The pump is set to {words}."
        pump.settings = (None, None)
        for moment, reading in pump.readings(600, 900):
            ward.take(moment, reading)
        assert "program_changed" in ward.present(), "what the pump does not show is not known to be right"
        pump.settings = (1.0, 600.0)
        for moment, reading in pump.readings(900, 950):
            ward.take(moment, reading)
        assert "program_changed" not in ward.present()

    @pytest.mark.parametrize("settings", [(1.0, 600.0), (None, None), (None, 600.4), (1.003, None)])
    def test_what_is_right_or_not_shown_is_silent(self, settings: tuple[float | None, float | None]) -> None:
        assert watch_button(PCA, ButtonPump(1.0, [], 1.0, 120, settings=settings), 1000).alerts() == []


class TestAmongBoluses:
    @pytest.mark.parametrize(("flow_ml_h", "kind"), [(0.7, "under_infusion"), (1.6, "over_infusion")])
    def test_a_flow_beyond_the_tolerance_is_found(self, flow_ml_h: float, kind: str) -> None:
        presses = [3600.0 + 1500 * number for number in range(6)]
        pump = ButtonPump(flow_ml_h, presses, 1.0, 120)
        ward = Ward(PCA)
        for moment, reading in pump.readings(-600, 4 * 3600):
            if reading.state is PumpState.RUNNING:
                reading = replace(reading, rate_ml_h=1.0)
            ward.take(moment, reading)
        assert {told for _, told in ward.alerts()} == {kind}


class TestPulses:
    """Gonadorelin: 0.05 mL over 1 min each 90 min (section 4)."""

    def told(
        self,
        counter_ml: float,
        poll_s: float,
        state: PumpState,
        *,
        missed: int | None = None,
        doubled: int | None = None,
        extra_s: float | None = None,
        seed: int = 1,
    ) -> list[str]:
        prescription = order(
            head='every = "90min"\ntimes = 112\n',
            phases='[[schedule.phase]]\nduration = "1min"\nvolume_ml = 0.05\n',
            tail='[limits]\ntolerance_percent = 20.0\nstart_window = "5min"\n'
            f"[pump]\ncounter_ml = {counter_ml}\nstroke_ml = 0.0005\nripple_ml = 0.001\n"
            f'poll = "{round(poll_s)}s"\n',
        )
        random_ = random.Random(seed)
        pulses = {number * 5400 + random_.uniform(-60, 60): number for number in range(8)}
        if extra_s is not None:
            pulses[extra_s] = -1
        segments = [Segment(-600, PumpState.IDLE)]
        for at_s, number in sorted(pulses.items()):
            if number != missed:
                segments.append(Segment(at_s, state, 6.0 if number == doubled else 3.0))
                segments.append(Segment(at_s + 60, PumpState.IDLE))
        pump = NoisyPump(
            segments, counter_ml=counter_ml, stroke_ml=0.0005, ripple_ml=0.001, poll_s=poll_s, seed=seed
        )
        return [kind for _, kind in watch(prescription, pump, -600, 8 * 5400 - 400).alerts()]

    CASES = pytest.mark.parametrize(
        ("counter_ml", "poll_s", "state"),
        [
            (counter_ml, poll_s, state)
            for counter_ml in (0.001, 0.01)
            for poll_s in (5.0, 30.0, 120.0)
            for state in (PumpState.RUNNING, PumpState.BOLUS)
        ],
    )

    @CASES
    @pytest.mark.parametrize("seed", [1, 2, 3])
    def test_pulses_in_time_are_silent_also_between_two_readings(
        self, counter_ml: float, poll_s: float, state: PumpState, seed: int
    ) -> None:
        assert self.told(counter_ml, poll_s, state, seed=seed) == []

    @CASES
    def test_one_that_does_not_come_is_missed(
        self, counter_ml: float, poll_s: float, state: PumpState
    ) -> None:
        assert self.told(counter_ml, poll_s, state, missed=4) == ["not_started", "dose_missed"]

    @CASES
    @pytest.mark.parametrize("after_s", [600, 2000, 3333])
    def test_one_more_is_told(
        self, counter_ml: float, poll_s: float, state: PumpState, after_s: float
    ) -> None:
        told = self.told(counter_ml, poll_s, state, extra_s=4 * 5400 + after_s)
        assert told == ["unscheduled_delivery"]

    @CASES
    def test_one_of_twice_the_volume_is_told(
        self, counter_ml: float, poll_s: float, state: PumpState
    ) -> None:
        told = self.told(counter_ml, poll_s, state, doubled=4)
        assert told
        assert set(told) <= {"wrong_rate", "bolus_not_ordered", "over_infusion", "unscheduled_delivery"}
