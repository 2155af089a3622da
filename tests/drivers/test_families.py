"""The table of families: what holds for every one of them."""

from __future__ import annotations

import pytest

from drivers import families
from drivers.family import PumpOnLine
from drivers.reading import DriverStatus, PumpAlarm, Reading

EVERY = pytest.mark.parametrize("name", families.known())


def test_a_family_that_is_not_known_is_refused_with_those_that_are():
    with pytest.raises(ValueError, match=r"'alariss' is not known; known are alaris, .*dummy"):
        families.find("alariss")


@EVERY
def test_a_family_bears_the_name_under_which_it_is_found(name):
    assert families.find(name).traits.family == name


@EVERY
def test_a_family_reports_only_what_a_reading_has(name):
    traits = families.find(name).traits
    assert set(traits.reports) <= set(Reading.__struct_fields__) - {"pump", "at_ms"}
    assert set(traits.alarms) <= {*PumpAlarm, "vendor:"}
    assert traits.notes


@EVERY
def test_no_family_claims_to_be_proved_without_a_real_pump(name):
    assert families.find(name).traits.status is not DriverStatus.PROVED


@EVERY
def test_a_family_left_alone_for_an_hour_sends_only_what_it_may(name):
    family = families.find(name)
    session = family.open_session([PumpOnLine(pump="p1")])
    session.opened(0)
    now_ms = 0
    while now_ms < 3_600_000:
        session.receive(b"", now_ms)
        data = session.due(now_ms)
        assert not data or family.may_send(data)
        assert session.next_due_ms() > now_ms, "it would spin"
        now_ms = session.next_due_ms()
