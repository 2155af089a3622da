"""The only clock of the gateway: two times, and whether the wall clock can be believed."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from gateway.clock import SystemClock


def test_the_machines_own_clock_never_goes_back_and_knows_which_start_it_counts_from():
    clock = SystemClock()
    moments = [clock.moment() for _ in range(100)]
    uptimes = [moment.monotonic_ms for moment in moments]
    assert uptimes == sorted(uptimes)
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert {moment.boot for moment in moments} == {boot}


def test_the_wall_clock_is_that_of_the_machine_in_milliseconds():
    before_ms = time.time_ns() // 1_000_000
    utc_ms = SystemClock().moment().utc_ms
    assert before_ms <= utc_ms <= time.time_ns() // 1_000_000


def test_who_says_that_the_clock_is_trusted_is_believed():
    assert SystemClock(always_synced=True).moment().synced


def test_a_clock_that_has_lost_its_battery_is_not_believed_whatever_the_system_says(monkeypatch):
    monkeypatch.setattr("gateway.clock._FIRST_PLAUSIBLE_UTC_S", 32_503_680_000)  # the year 3000
    assert not SystemClock().moment().synced


@pytest.mark.parametrize("synced_status", [0, 0x0040])
def test_the_kernels_word_is_asked_for_once_a_second(monkeypatch, synced_status):
    clock = SystemClock()
    asked = []
    monkeypatch.setattr(clock, "_is_synced", lambda: asked.append(1) or not synced_status)
    first = clock.moment()
    assert clock.moment().synced is first.synced is (synced_status == 0)
    assert len(asked) == 1
    clock._looked_at_ms -= 1_000
    clock.moment()
    assert len(asked) == 2
