"""Scripted readings: what a script may say, and how it is read back from the bytes of its port."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.dummy import DummyFamily, DummySession, ScriptError, ScriptLine, decode_line, parse_script
from drivers.family import PumpOnLine
from drivers.reading import FaultKind, LinkFault, PumpState, Reading
from tests.drivers.three_ways import Hear, hears_three_ways

FAMILY = DummyFamily()


def a_session() -> DummySession:
    return FAMILY.open_session([PumpOnLine(pump="p1")])


def test_a_script_says_what_comes_when():
    text = """\
# seconds  what the pump says
0          state=idle   rate_ml_h=0 alarms=

5          state=running rate_ml_h=125   # delivery begins
10.5       state=paused alarms=occlusion_downstream;low_battery
"""
    assert parse_script(text) == (
        ScriptLine(at_ms=0, data=b"state=idle rate_ml_h=0 alarms=\n"),
        ScriptLine(at_ms=5_000, data=b"state=running rate_ml_h=125\n"),
        ScriptLine(at_ms=10_500, data=b"state=paused alarms=occlusion_downstream;low_battery\n"),
    )


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("state=running", {"state": PumpState.RUNNING}),
        ("rate_ml_h=0", {"rate_ml_h": 0.0}),
        ("volume_ml=1.25 vtbi_ml=98.75", {"volume_ml": 1.25, "vtbi_ml": 98.75}),
        ("alarms=", {"alarms": ()}),
        ("alarms=empty", {"alarms": ("empty",)}),
        ("alarms=occlusion_downstream;vendor:AL_X-1", {"alarms": ("occlusion_downstream", "vendor:AL_X-1")}),
        ("on_mains=false battery_percent=40", {"on_mains": False, "battery_percent": 40.0}),
        ("serial=T-1", {"serial": "T-1"}),
        ("serial=12", {"serial": "12"}),
        ("", {}),
    ],
)
def test_a_line_says_what_it_names_and_nothing_else(line, said):
    data = line.encode() + b"\n"
    expected: list[object] = [Reading(pump="p1", at_ms=7, **said)]

    def hear() -> Hear[object]:
        session = a_session()
        return lambda heard: session.receive(heard, 7)

    hears_three_ways(hear, data, expected, next_frame=b"state=idle\n")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("soon state=idle", "line 1: 'soon' is no time"),
        ("state=idle", "line 1: 'state=idle' is no time"),
        ("0 state=idle\n\n0 state=asleep", "line 3: 'asleep' is no state; known are idle, standby"),
        ("0 rate=5", "line 1: 'rate=5' is not one of state=, rate_ml_h="),
        ("0 idle", "line 1: 'idle' is not one of"),
        ("0 pump=p2", "line 1: 'pump=p2' is not one of"),
        ("0 rate_ml_h=nan", "line 1: rate_ml_h is a number from 0 on, not 'nan'"),
        ("0 rate_ml_h=-1", "line 1: rate_ml_h is a number from 0 on, not '-1'"),
        ("0 rate_ml_h=", "line 1: rate_ml_h is a number from 0 on, not ''"),
        ("0 alarms=occlusion", "line 1: 'occlusion' is no alarm; known are occlusion_downstream"),
        ("0 alarms=vendor:" + "x" * 41, "is no alarm"),
        ("0 on_mains=yes", "line 1: on_mains is true or false, not 'yes'"),
        ("0 state=idle state=running", "line 1: state is said twice"),
        ("5 state=idle\n4 state=idle", "line 2: 4 s is earlier than the line before"),
        ("0 serial=é", "line 1: "),
        ("0 serial=" + "x" * 600, "line 1: longer than 512 characters"),
    ],
)
def test_what_is_wrong_in_a_script_is_named_with_its_line(text, words):
    with pytest.raises(ScriptError) as problem:
        parse_script(text)
    assert words in str(problem.value)


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"hello\n", FaultKind.UNSUPPORTED),
        (b"state=running rate_ml_h=many\n", FaultKind.UNSUPPORTED),
        (b"state=\xff\n", FaultKind.GARBLED),
        (b"x" * 512, FaultKind.GARBLED),
    ],
)
def test_a_line_that_cannot_be_read_is_counted_and_the_next_is_read(data, kind):
    fault, *rest = a_session().receive(data + b"state=idle\n", 7)
    assert isinstance(fault, LinkFault)
    assert (fault.kind, fault.byte_count, fault.sample) == (kind, len(data), data[:32])
    assert rest == [Reading(pump="p1", at_ms=7, state=PumpState.IDLE)]


@given(st.binary(max_size=600))
def test_whatever_arrives_nothing_is_raised(data):
    for fact in a_session().receive(data, 7):
        assert isinstance(fact, Reading | LinkFault)


@given(st.text(max_size=200))
def test_any_text_is_a_script_or_a_named_error(text):
    try:
        for line in parse_script(text):
            decode_line(line.data.decode(), pump="p1", at_ms=0)
    except ScriptError as problem:
        assert str(problem).startswith("line ")


def test_opened_again_half_a_line_is_forgotten():
    session = a_session()
    session.receive(b"state=run", 0)
    session.opened(5)
    assert session.receive(b"state=idle\n", 6) == [Reading(pump="p1", at_ms=6, state=PumpState.IDLE)]


def test_nothing_is_ever_asked_and_nothing_may_be_sent():
    session = a_session()
    assert session.due(0) == b""
    assert session.next_due_ms() == 5_000
    assert not FAMILY.may_send(b"")
    assert not FAMILY.may_send(b"state=idle\n")


@pytest.mark.parametrize(
    ("pumps", "words"),
    [
        ([], "a script speaks for one pump; 0 are set"),
        ([PumpOnLine(pump="p1"), PumpOnLine(pump="p2")], "2 are set"),
        ([PumpOnLine(pump="p1", address=1)], "p1: dummy pumps have no address"),
    ],
)
def test_what_a_script_cannot_speak_for_is_refused(pumps, words):
    with pytest.raises(ValueError, match=words):
        FAMILY.open_session(pumps)
