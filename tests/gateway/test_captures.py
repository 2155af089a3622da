"""Captures are the suite: what each of them is read as stands beside it."""

from __future__ import annotations

from pathlib import Path

import pytest

from drivers.capture import parse_capture, write_capture
from drivers.reading import PumpState
from gateway.decode import decode
from gateway.readings import Row, read_rows
from simulator.wire.families import WIRES
from tests.captures.make import STORIES, of_public_frames, of_story

CAPTURES = sorted((Path(__file__).parents[1] / "captures").glob("*.cap"))


@pytest.mark.parametrize("file", CAPTURES, ids=lambda file: file.stem)
def test_a_capture_is_read_byte_for_byte_as_it_was_when_somebody_looked_at_it(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    capture = parse_capture(text)
    assert write_capture(capture) == text
    read = "".join(decode(dict(capture.head)["family"], capture).lines)
    assert read == file.with_suffix(".csv").read_text(encoding="utf-8")


def test_every_family_has_a_capture_of_each_story() -> None:
    expected = {f"{family}-{story}" for family in WIRES for story in STORIES}
    assert {file.stem for file in CAPTURES} == {*expected, "alaris-public_frames"}


@pytest.mark.parametrize("family", WIRES)
def test_the_simulator_still_tells_the_story_that_was_recorded(family: str) -> None:
    file = Path(__file__).parents[1] / "captures" / f"{family}-occlusion.cap"
    assert write_capture(of_story(family, "occlusion")) == file.read_text(encoding="utf-8")


def test_what_real_pumps_were_seen_to_say_is_an_occlusion_on_hold() -> None:
    [reading] = [
        row.reading for row in read_rows(decode("alaris", of_public_frames()).lines) if isinstance(row, Row)
    ]
    assert (reading.state, reading.rate_ml_h, reading.volume_ml, reading.pressure_mmhg) == (
        PumpState.PAUSED,
        0.0,
        0.969,
        530.15,
    )
    assert reading.alarms == ("occlusion_downstream",)
