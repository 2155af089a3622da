"""Scenario files: the named stories are complete and consistent, and a bad file says which key is wrong."""

from __future__ import annotations

import pytest

from alerts.condition import Kind
from gateway.core.order import parse_order
from simulator.device import Device
from simulator.faults import FAULT_KINDS
from simulator.pump import Pump
from simulator.scenario import (
    SCENARIO_DIR,
    Scenario,
    load_scenario,
    prescription_starting,
    read_scenario,
    scenario_names,
)
from simulator.tables import BadFile
from tests.simulator.scenarios import MIN, S

NAMED = {
    "steady": (),
    "occlusion": ("occlusion",),
    "stopped": ("no_delivery",),
    "wrong_rate": ("wrong_rate",),
    "under_delivery": ("under_infusion",),
    "bag_empty": ("bag_empty",),
    "missed_dose": ("dose_missed", "not_started"),
    "late_start": ("not_started",),
    "cable_pulled": ("no_data",),
    "noisy_line": (),
}
"""The stories that must be there, and the alerts that are due in them."""

PRESCRIPTION = """
format = "infusion-prescription/1"
[schedule]
start = 2026-03-02T10:00:00+01:00
[[schedule.phase]]
duration = "1h"
rate_ml_h = 10.0
[pump]
counter_ml = 0.05
stroke_ml = 0.02
[bag]
volume_ml = 50.0
"""
GOOD = """
format = "dripwatch-scenario/1"
title = "The line kinks after two minutes"
prescription = "beside.toml"
counter_follows = "flow"
seed = 7
expect = ["occlusion"]

[pump]
calibration_percent = -1.5
compliance_ml_mmhg = 0.0025
occlusion_alarm_mmhg = 500
stroke_ml = 0.1

[[program]]
at = "0s"
rate_ml_h = 12.5

[[fault]]
at = "2min"
kind = "occlusion_downstream"
lasts = "10min"
strength = 1.0
"""


def read(text: str) -> Scenario:
    return read_scenario(text, "test", PRESCRIPTION)


def test_the_named_stories_are_there() -> None:
    assert set(scenario_names()) >= set(NAMED)


@pytest.mark.parametrize("name", scenario_names())
def test_every_named_story_can_be_played_and_says_what_is_due(name: str) -> None:
    story = load_scenario(name)
    assert story.expect == NAMED.get(name, story.expect)
    assert set(story.expect) <= {kind.value for kind in Kind}
    truth = Device("alaris", story).pump.truth_at(5 * MIN)
    assert truth.rate_ml_h in (0.0, 12.5, 125.0)


@pytest.mark.parametrize("name", scenario_names())
def test_every_prescription_beside_a_story_is_one_that_the_gateway_accepts(name: str) -> None:
    story = load_scenario(name)
    order = parse_order(prescription_starting(story.prescription_text, "2026-11-23T10:00:00+00:00"))
    assert order.schedule.start_utc_ms == 1_795_428_000_000
    assert order.volume_ml == pytest.approx(story.program.vtbi_ml)
    assert order.length_ms == story.program.length_ms
    assert order.pump.counter_ml == story.machine.setting.counter_ml
    assert order.pump.poll_ms == S, "a demonstration cannot wait"
    assert order.pump.accuracy >= abs(story.machine.calibration_percent) / 100
    assert order.pump.occlusion_ml >= 482 * story.machine.compliance_ml_mmhg


@pytest.mark.parametrize("name", [name for name, due in NAMED.items() if due])
def test_in_a_story_something_goes_wrong_within_ten_seconds(name: str) -> None:
    [mishap] = load_scenario(name).mishaps.faults
    assert mishap.at_ms <= 10 * S


def test_the_kinked_line_alarms_within_twenty_seconds() -> None:
    pump = Pump(load_scenario("occlusion"))
    assert pump.truth_at(16 * S).alarms == ("occlusion_downstream",)


def test_every_file_beside_the_stories_is_a_story_or_belongs_to_one() -> None:
    used = {load_scenario(name).prescription_text for name in scenario_names()}
    unused = [path for path in SCENARIO_DIR.glob("prescription-*.toml") if path.read_text() not in used]
    assert unused == []


def test_a_scenario_says_what_was_told_what_is_true_and_what_happens() -> None:
    story = read(GOOD)
    assert (story.counter_follows, story.seed, story.expect) == ("flow", 7, ("occlusion",))
    assert (story.machine.setting.stroke_ml, story.machine.setting.counter_ml) == (0.1, 0.05)
    assert (story.machine.calibration_percent, story.machine.bag_ml) == (-1.5, 50.0)
    assert story.program.leg_at(0)[0] == 12.5
    [kink] = story.mishaps.faults
    assert (kink.kind, kink.at_ms, kink.until_ms, kink.strength) == (
        "occlusion_downstream",
        2 * MIN,
        12 * MIN,
        1.0,
    )


def test_a_mishap_without_a_strength_has_its_usual_one() -> None:
    story = read(GOOD.replace("occlusion_downstream", "noisy_line").replace("strength = 1.0", ""))
    assert story.mishaps.faults[0].strength == FAULT_KINDS["noisy_line"].default


@pytest.mark.parametrize(
    ("old", "new", "key", "words"),
    [
        ("title =", "titel =", "titel", "did you mean title?"),
        ("title =", "titel =", "title", "missing"),
        ("scenario/1", "scenario/2", "format", "known are dripwatch-scenario/1"),
        ('"flow"', '"wind"', "counter_follows", "known are motor, flow"),
        ("seed = 7", "seed = -7", "seed", "whole number"),
        ("seed = 7", "seed = true", "seed", "whole number"),
        ('["occlusion"]', '"occlusion"', "expect", "list"),
        ("compliance_ml_mmhg", "complianze_ml_mmhg", "pump.complianze_ml_mmhg", "compliance_ml_mmhg?"),
        ("= 0.0025", "= 0", "pump.compliance_ml_mmhg", "more than 0"),
        ("= -1.5", "= nan", "pump.calibration_percent", "from -50 to 50"),
        ("= -1.5", '= "-1.5"', "pump.calibration_percent", "number"),
        ("stroke_ml = 0.1", 'poll = "1s"', "pump.poll", "prescription"),
        ('at = "0s"', 'at = "soon"', "program[0].at", "is not a duration"),
        ("rate_ml_h = 12.5", "rate_ml_h = -1", "program[0].rate_ml_h", "from 0"),
        ("occlusion_downstream", "oclusion", "fault[0].kind", "known are stopped"),
        ("strength = 1.0", "strength = 1.5", "fault[0].strength", "from 0 to 1"),
        ("occlusion_downstream", "stopped", "fault[0].strength", "has none"),
        ('lasts = "10min"', 'last = "10min"', "fault[0].last", "did you mean lasts?"),
        ('lasts = "10min"', 'lasts = "0s"', "fault[0].lasts", "longer than 0"),
        ("seed = 7", "seed = ", "(file)", "not TOML"),
    ],
)
def test_a_file_that_cannot_be_used_says_which_key_is_wrong(old: str, new: str, key: str, words: str) -> None:
    assert old in GOOD
    with pytest.raises(BadFile) as refused:
        read(GOOD.replace(old, new))
    assert any(problem.key == key and words in problem.message for problem in refused.value.problems), str(
        refused.value
    )


def test_all_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(BadFile) as refused:
        read(GOOD.replace("seed = 7", "sed = 7").replace("= 12.5", "= -1"))
    assert {problem.key for problem in refused.value.problems} == {"sed", "program[0].rate_ml_h"}


def test_a_prescription_that_is_not_there_or_no_good_is_named() -> None:
    with pytest.raises(BadFile, match=r"beside\.toml is not there"):
        read_scenario(GOOD, "test", None)
    with pytest.raises(BadFile, match=r"prescription\(beside\.toml\)\.schedule\.phase\[0\]\.duration"):
        read_scenario(GOOD, "test", PRESCRIPTION.replace('"1h"', '"1 h"'))


def test_a_name_that_is_neither_story_nor_file_is_told_what_there_is() -> None:
    with pytest.raises(BadFile, match="known are bag_empty, cable_pulled"):
        load_scenario("oclusion")


def test_moving_the_start_leaves_all_else_as_it_stands() -> None:
    text = load_scenario("steady").prescription_text
    moved = prescription_starting(text, "2026-11-23T10:00:00+00:00")
    changed = [
        (old, new) for old, new in zip(text.splitlines(), moved.splitlines(), strict=True) if old != new
    ]
    assert changed == [("start = 2026-01-05T08:00:00+00:00", "start = 2026-11-23T10:00:00+00:00")]
