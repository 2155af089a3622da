"""The history: its lines, its spool on the card, and what becomes of a batch at the server."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from alerts.sink import Lane
from drivers.reading import PumpState, Reading
from gateway.app import compose
from gateway.changes import PointTaken
from gateway.config import HistoryConfig, parse_config
from gateway.core.monitor import DeliveryStatus, DeliveryVerdict
from gateway.core.timeline import Moment
from gateway.history_delivery import PROBE, Answer, Delivery, Step, Target, Trouble
from gateway.history_points import STATE_NUMBERS, HistoryPoints
from gateway.lanes import POLICIES, UNDER_WAY_MAX, OwnLane
from tests.gateway.home import ORDER, Home

UTC_MS = 1_795_435_200_000
TARGET = Target(org="clinic", bucket="infusion", token_file="influx.token")


# -- lines -----------------------------------------------------------------------------------------


def moment(uptime_ms: int, *, utc_ms: int | None = None, synced: bool = True) -> Moment:
    return Moment(
        monotonic_ms=uptime_ms,
        utc_ms=UTC_MS + uptime_ms if utc_ms is None else utc_ms,
        synced=synced,
        boot="machine",
    )


def history_points() -> HistoryPoints:
    return HistoryPoints(home="h-1", boot="b-1", origins={"p1": "real"})


def taken(at: Moment, **fields: float | None) -> PointTaken:
    assert at.monotonic_ms is not None
    return PointTaken(
        pump="p1",
        reading=Reading(pump="p1", at_ms=at.monotonic_ms, state=PumpState.RUNNING, **fields),  # type: ignore[arg-type]
        status=DeliveryStatus(verdict=DeliveryVerdict.ON_PLAN),
        t_ms=at.monotonic_ms,
        moment=at,
    )


def lines(points: HistoryPoints, now: Moment) -> list[str]:
    assert now.monotonic_ms is not None
    drafts = points.batches(now, now.monotonic_ms, now.monotonic_ms)
    return [line for draft in drafts for line in draft.payload.decode().split("\n")]


def test_a_point_is_a_line_with_units_in_the_names_and_nothing_for_what_the_pump_does_not_report() -> None:
    points = history_points()
    points.take(taken(moment(5_000), rate_ml_h=60.0, volume_ml=1.25), 5_000, moment(5_000))
    assert lines(points, moment(9_000)) == [
        "infusion,boot=b-1,home=h-1,origin=real,pump=p1"
        f' rate_ml_h=60.0,state="running",state_number=4i,volume_ml=1.25 {UTC_MS + 5_000}'
    ]


def test_a_number_that_is_none_never_reaches_the_server() -> None:
    points = history_points()
    points.take(taken(moment(1), rate_ml_h=float("nan"), volume_ml=float("inf")), 1, moment(1))
    (line,) = lines(points, moment(2))
    assert ' state="running",state_number=4i ' in line


def test_points_taken_before_the_clock_was_set_get_their_true_time_once_it_is() -> None:
    points = history_points()
    wrong = moment(5_000, utc_ms=0, synced=False)
    points.take(taken(wrong), 5_000, wrong)
    (line,) = lines(points, moment(9_000))
    assert line.endswith(f" {UTC_MS + 5_000}")


def test_points_that_can_never_be_dated_are_left_out_and_counted() -> None:
    points = history_points()
    wrong = moment(5_000, utc_ms=0, synced=False)
    points.take(taken(wrong), 5_000, wrong)
    assert lines(points, wrong) == []
    assert points.left_out == 1


def test_after_a_clock_is_set_back_points_of_the_same_time_do_not_overwrite_the_earlier_ones() -> None:
    points = history_points()
    keys = []
    for uptime_ms, utc_ms in (
        (1_000, UTC_MS),
        (2_000, UTC_MS + 1_000),
        (3_000, UTC_MS),
        (4_000, UTC_MS + 1_000),
    ):
        at = moment(uptime_ms, utc_ms=utc_ms)
        points.take(taken(at), uptime_ms, at)
        (line,) = lines(points, at)
        tags, _, time = line.split(" ")
        keys.append((tags, time))
    assert len(set(keys)) == 4
    assert [tags.split(",")[1] for tags, _ in keys] == ["boot=b-1", "boot=b-1", "boot=b-1.1", "boot=b-1.1"]


# -- the spool -------------------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path, history=True)
    home.plug_in()
    return home


def poll(home: Home, times: int) -> None:
    for _ in range(times):
        home.hear("state=running rate_ml_h=60 volume_ml=1 alarms=")
        home.wait(5)


def test_a_long_time_without_the_server_leaves_by_twenties_and_each_point_once(home: Home) -> None:
    poll(home, 1_200)
    assert len(home.batches) == 1, "one batch is under way, and all others wait on the card"
    assert home.engine.held_in_memory < 150
    home.history_takes()
    points = [line for line in home.history_lines if line.startswith("infusion")]
    assert len(points) == len(set(points)) > 1_180


def test_the_page_of_the_broker_does_not_know_this_lane(home: Home) -> None:
    home.connect()
    poll(home, 20)
    (*_, beat) = home.said("beat")
    assert set(beat["lanes"]) == set(Lane) == {"alerts", "telemetry"}
    assert all(send.message.topic for send in home.sends)


def test_a_batch_that_was_written_but_not_answered_before_a_power_cut_is_written_again_alike(
    home: Home,
) -> None:
    poll(home, 20)
    before = list(home.batches)
    home.batches.clear()
    home.cut_power()
    home.start()
    assert home.batches[: len(before)] == before


def test_history_commits_with_what_is_written_anyhow(tmp_path: Path) -> None:
    commits = []
    for history in (False, True):
        home = Home(tmp_path / str(history), history=history)
        home.plug_in()
        home.connect()
        for _ in range(200):
            poll(home, 1)
            sent = [send.message.seq or 0 for send in home.sends if send.message.lane is Lane.TELEMETRY]
            home.receipt(home.engine.alerts_next_seq - 1, max(sent, default=0))
            if history:
                home.history_takes()
        commits.append(len(home.commits))
    without, with_history = commits
    assert with_history == without


def test_a_full_spool_drops_the_oldest_and_the_history_says_so_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = msgspec.structs.replace(POLICIES[OwnLane.HISTORY], waiting_max=3)
    monkeypatch.setattr("gateway.outbox.POLICIES", {**POLICIES, OwnLane.HISTORY: small})
    home = Home(tmp_path, history=True)
    home.plug_in()
    poll(home, 100)
    assert any("history: 1 batches dropped" in note for note in home.notes)
    home.history_takes()
    home.wait(60)
    home.history_takes()
    assert any(line.startswith("dropped,") for line in home.history_lines)


def test_the_lane_hands_a_batch_over_once_however_long_the_answer_takes(home: Home) -> None:
    poll(home, 20)
    seqs = [batch.seq for batch in home.batches]
    home.wait(3_600)
    assert [batch.seq for batch in home.batches] == seqs
    assert UNDER_WAY_MAX == 20


def test_the_alert_is_in_the_history_when_it_opens_and_when_it_ends(home: Home) -> None:
    home.hear("state=alarm rate_ml_h=0 volume_ml=1 alarms=occlusion_downstream")
    home.wait(60)
    home.hear("state=running rate_ml_h=60 volume_ml=1 alarms=")
    home.wait(600)
    home.history_takes()
    tellings = [line for line in home.history_lines if line.startswith("alert,") and "kind=occlusion" in line]
    assert "open=1i" in tellings[0]
    assert "priority=medium" in tellings[0]
    assert 'state="' in tellings[-1]
    assert tellings[0].rsplit(" ", 1)[1] < tellings[-1].rsplit(" ", 1)[1]


def test_while_the_clock_is_not_set_points_wait_and_get_their_true_time(home: Home) -> None:
    home.history_takes()
    home.synced, home.clock_error_ms = False, -1_000_000_000_000
    true_utc_ms = home.moment.utc_ms + 1_000_000_000_000 + 1
    home.hear("state=running rate_ml_h=60 volume_ml=1 alarms=")
    home.wait(600)
    assert home.batches == []
    home.synced, home.clock_error_ms = True, 0
    home.wait(60)
    home.history_takes()
    points = [line for line in home.history_lines if line.startswith("infusion")]
    assert [line.rsplit(" ", 1)[1] for line in points] == [str(true_utc_ms)]


def test_points_that_are_never_dated_are_told_of_in_the_log(home: Home) -> None:
    home.synced = False
    poll(home, 3)
    home.stop()
    assert "history: 3 lines left out: the clock was never set" in home.notes


def test_no_line_holds_what_the_order_or_the_pump_says_of_people_drugs_and_numbers(tmp_path: Path) -> None:
    home = Home(tmp_path, history=True, order=ORDER, serial_number="8002-12345")
    home.plug_in()
    poll(home, 30)
    home.hear("state=alarm rate_ml_h=0 volume_ml=1 alarms=occlusion_downstream serial=8002-12345")
    home.wait(120)
    home.history_takes()
    everything = "\n".join(home.history_lines)
    assert "kind=" in everything
    for secret in ("sodium", "chloride", "P-1", "8002", "port-"):
        assert secret not in everything


def test_the_client_is_imported_only_when_there_is_a_history() -> None:
    """It takes 18 MB."""
    asks = "import sys, gateway.app; sys.exit('influxdb_client' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", asks], check=False).returncode == 0


def test_a_gateway_without_the_client_watches_all_the_same_and_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    text = """
format = "dripwatch-gateway/1"
home = "h-1"
state_dir = "state"
[[pump]]
id = "p1"
family = "dummy"
port = "script:none"
origin = "test"
[history]
url = "https://influx.example.org"
org = "clinic"
bucket = "infusion"
token_file = "influx.token"
"""
    monkeypatch.setattr("gateway.app.find_spec", lambda name: None)
    compose(parse_config(text, tmp_path))
    assert "pip install 'dripwatch[history]'" in caplog.text


@pytest.mark.parametrize(
    "url", ["influx.example.org", "ftp://x", "http://", "https://me:secret@x", "https://x?a=b"]
)
def test_an_address_that_is_none_is_refused_in_gateway_toml(url: str) -> None:
    with pytest.raises(ValueError, match="no address of a server"):
        HistoryConfig(url=url, org="o", bucket="b", token_file="t")


# -- what the server answers -----------------------------------------------------------------------


def delivery(batch: str = "a b=1 1") -> Delivery:
    of_batch = Delivery(TARGET)
    of_batch.begin(batch)
    return of_batch


def test_what_is_written_is_done() -> None:
    assert delivery().answered(Answer(status=204)) == Step(done=True)


@pytest.mark.parametrize(
    "answer", [Answer(), Answer(status=500), Answer(status=503), Answer(status=429), Answer(status=502)]
)
def test_what_may_pass_is_tried_again_ever_more_slowly_up_to_a_minute_and_said_once(answer: Answer) -> None:
    of_batch = delivery()
    steps = [of_batch.answered(answer) for _ in range(9)]
    assert [step.wait_ms // 1_000 for step in steps] == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert [step.note is not None for step in steps] == [True] + [False] * 8
    assert not any(step.done for step in steps)
    back = of_batch.answered(Answer(status=204))
    assert back == Step(done=True, note="history: is being written again")


@pytest.mark.parametrize(
    ("status", "asked_s", "waits_s"), [(429, 30, 30), (503, 120, 120), (503, 0, 1), (429, 10**8, 3_600)]
)
def test_a_server_that_asks_for_patience_gets_it_within_bounds(
    status: int, asked_s: int, waits_s: int
) -> None:
    step = delivery().answered(Answer(status=status, retry_after_s=asked_s))
    assert step.wait_ms == waits_s * 1_000


@pytest.mark.parametrize(
    ("answer", "what_to_do"),
    [
        (Answer(status=401), "put one that is valid into history.token_file (influx.token)"),
        (Answer(status=403), "give it the right to"),
        (Answer(status=404), "make the bucket"),
        (Answer(status=302), "correct history.url"),
        (Answer(status=200), "correct history.url"),
        (Answer(trouble=Trouble.FILE, words="influx.token cannot be read"), "influx.token cannot be read"),
    ],
)
def test_what_somebody_must_mend_is_said_once_and_tried_every_five_minutes(
    answer: Answer, what_to_do: str
) -> None:
    of_batch = delivery()
    first, second = of_batch.answered(answer), of_batch.answered(answer)
    assert first.note is not None
    assert what_to_do in first.note
    assert (first.wait_ms, second.wait_ms, second.note) == (300_000, 300_000, None)


@pytest.mark.parametrize("status", [400, 413, 422])
def test_of_a_refused_batch_only_the_line_that_is_refused_is_left_out(status: int) -> None:
    of_batch = delivery("\n".join(["good 1", "good 2", "bad", "good 3", "good 4"]))
    taken_by_server: list[str] = []
    for _ in range(100):
        text = of_batch.lines
        if text == PROBE:
            step = of_batch.answered(Answer(status=204))
            continue
        if "bad" in text:
            step = of_batch.answered(Answer(status=status, words="field type conflict"))
        else:
            taken_by_server.extend(text.split("\n"))
            step = of_batch.answered(Answer(status=204))
        assert step.wait_ms == 0
        if step.done:
            break
    assert taken_by_server == ["good 1", "good 2", "good 3", "good 4"]
    assert of_batch.set_aside == 1
    assert step.note is not None
    assert "1 lines left out" in step.note
    assert "field type conflict" in step.note


def test_a_batch_that_is_refused_does_not_hold_up_the_next() -> None:
    of_batch = delivery()
    assert of_batch.answered(Answer(status=400)) == Step()
    assert of_batch.lines == PROBE
    assert not of_batch.answered(Answer(status=204)).done
    assert of_batch.answered(Answer(status=400)).done
    of_batch.begin("c d=1 1")
    assert of_batch.answered(Answer(status=204)) == Step(done=True)


def test_a_server_that_refuses_everything_costs_no_line() -> None:
    """VictoriaMetrics answers 400 to an address that it does not know."""
    of_batch = delivery("a b=1 1\na b=2 2")
    assert of_batch.answered(Answer(status=400)) == Step()
    step = of_batch.answered(Answer(status=400))
    assert (step.done, step.wait_ms) == (False, 300_000)
    assert step.note is not None
    assert "correct history.url" in step.note
    assert of_batch.lines == "a b=1 1\na b=2 2"
    assert of_batch.answered(Answer(status=204)).done
    assert of_batch.set_aside == 0


def test_every_state_has_a_number_of_its_own() -> None:
    assert sorted(STATE_NUMBERS.values()) == list(range(len(PumpState)))
    assert set(STATE_NUMBERS) == set(PumpState)
