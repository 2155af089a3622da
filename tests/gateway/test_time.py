"""A machine without a battery clock: it boots in 1970, is corrected an hour later, and watches meanwhile."""

from __future__ import annotations

from pathlib import Path

import pytest

from alerts import wire
from alerts.sink import Lane
from tests.gateway.home import BEGINNING_UTC_MS, ORDER, Home

TWO_HOURS = ORDER.replace('duration = "12h"', 'duration = "2h"')


class Bedside:
    """A pump at the end of the cable, read each five seconds."""

    def __init__(self, folder: Path, order: str) -> None:
        self.home = Home(folder, order=order, in_1970=True)
        self.volume_ml = 0.0
        self._telemetry = self._received = 0
        self.home.connect()
        self.home.plug_in()

    def delivers(self, minutes: float, rate_ml_h: float = 60.0, state: str = "running") -> None:
        self._passes(minutes, state, rate_ml_h, "", rate_ml_h)

    def is_occluded(self, minutes: float) -> None:
        self._passes(minutes, "alarm", 60.0, "occlusion_downstream", 0.0)

    def is_idle(self, minutes: float) -> None:
        self._passes(minutes, "idle", 0.0, "", 0.0)

    def _passes(self, minutes: float, state: str, set_ml_h: float, alarms: str, flow_ml_h: float) -> None:
        for _ in range(round(minutes * 12)):
            self.home.now_ms += 5_000
            self.volume_ml += flow_ml_h * 5 / 3_600
            self.home.hear(
                f"state={state} rate_ml_h={set_ml_h} volume_ml={self.volume_ml:.3f} alarms={alarms}"
            )
            for send in self.home.sends[self._received :]:
                if send.message.lane is Lane.TELEMETRY:
                    self._telemetry = send.message.seq or 0
            self._received = len(self.home.sends)
            self.home.receipt(self.home.engine.alerts_next_seq - 1, self._telemetry)

    def clock_is_set(self) -> None:
        self.home.synced, self.home.clock_error_ms = True, 0

    def kinds(self) -> list[tuple[str, str]]:
        """Each telling of an alert but what the nurses have made of it: kind and reason."""
        return [(alert["kind"], alert["reason"]) for alert in self.home.said("alert")]

    def state(self) -> dict:
        return self.home.said("state")[-1]


def test_all_is_told_before_the_clock_is_right_and_nothing_is_made_up_when_it_is_set(tmp_path):
    bed = Bedside(tmp_path, ORDER)
    bed.delivers(10)
    assert (bed.kinds(), bed.state()["verdict"]) == ([], "unknown"), "what is due is not known"
    bed.delivers(5, rate_ml_h=600.0)
    assert bed.kinds() == [("wrong_rate", "first")]
    told = bed.home.alert("wrong_rate")
    assert (told["clock"], told["time"][:4]) == ("unsynced", "1970")
    bed.delivers(5)
    bed.is_occluded(1)
    bed.delivers(20)
    before = bed.kinds()
    assert before == [
        ("wrong_rate", "first"),
        ("wrong_rate", "resolved"),
        ("occlusion", "first"),
        ("occlusion", "resolved"),
    ]
    occlusion = bed.home.alert("occlusion")
    bed.home.tell("ack", id="i-1", alert_id=occlusion["alert_id"], rev=2, role="nurse")
    assert bed.home.told("occlusion")[-1] == (3, "closed", "acknowledged"), "an answer from 2026 in 1970"
    bed.delivers(18)
    bed.clock_is_set()
    bed.delivers(10)
    assert bed.kinds()[len(before) + 1 :] == [], "a clock that is set is nobody's fault"
    (event,) = [event for event in bed.home.said("event") if event["kind"] == "clock_stepped"]
    assert (event["clock"], event["time"][:16]) == ("synced", "2026-11-23T12:59")
    state = bed.state()
    assert (state["clock"], state["occurrence"]["number"]) == ("synced", 1)
    assert state["occurrence"]["due"] == "2026-11-23T12:00:00.000Z"
    assert state["delivered_ml"] == pytest.approx(bed.volume_ml, abs=2), "with what came too fast"
    assert state["expected_ml"] == pytest.approx(68, abs=2), "without the minute of the occlusion"


def test_what_was_read_before_the_clock_was_set_is_dated_when_it_is(tmp_path):
    bed = Bedside(tmp_path, ORDER)
    bed.delivers(59)
    assert bed.home.said("telemetry") == []
    bed.clock_is_set()
    bed.delivers(5)
    points = [point for batch in bed.home.said("telemetry") for point in batch["points"]]
    assert len(points) > 12 * 59
    for time, _, _, _, volume_ml, *_ in points:
        read_at_ms = wire.parse_iso_utc(time) - BEGINNING_UTC_MS
        # Each reading is five seconds and some milliseconds after the last: a millisecond for each input.
        assert abs(read_at_ms - volume_ml / 60 * 3_600_000) < 10_000


def test_a_dose_with_a_pause_before_the_clock_was_set_ends_as_it_should_and_not_early(tmp_path):
    bed = Bedside(tmp_path, TWO_HOURS)
    bed.delivers(40)
    bed.delivers(8, rate_ml_h=0.0, state="paused")
    bed.delivers(20)
    bed.clock_is_set()
    bed.delivers(60)
    bed.is_idle(3)
    assert bed.kinds() == []
    assert [event["kind"] for event in bed.home.said("event")] == [
        "clock_stepped",
        "dose_started",
        "dose_ended",
    ]


def test_a_dose_that_was_due_and_never_came_is_told_when_the_clock_is_set_and_not_before(tmp_path):
    bed = Bedside(tmp_path, ORDER)
    bed.is_idle(75)
    assert bed.kinds() == []
    bed.clock_is_set()
    bed.is_idle(1)
    assert bed.kinds() == [("not_started", "first")]


@pytest.mark.parametrize("step_s", [-86_400, -90, 90, 86_400])
def test_a_step_is_an_event_and_nothing_else(tmp_path, step_s):
    bed = Bedside(tmp_path, ORDER)
    bed.clock_is_set()
    bed.delivers(30)
    before = len(bed.home.said("event"))
    bed.home.clock_error_ms = step_s * 1_000
    bed.delivers(30)
    assert [event["kind"] for event in bed.home.said("event")][before:] == ["clock_stepped"]
    assert bed.kinds() == []
    state = bed.state()
    assert state["verdict"] == "on_plan"
    assert state["expected_ml"] == pytest.approx(60, abs=1)
