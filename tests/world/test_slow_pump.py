"""The gateway's dialogue with the simulated pump when it answers slowly: what is read is what was so."""

from __future__ import annotations

import heapq

import pytest

from drivers import families
from drivers.family import PumpOnLine
from drivers.reading import Reading
from simulator.device import Device
from tests.simulator.scenarios import fault, scenario

END_MS = 600_000
PROMISE_MS = 4_000


def read_from(device: Device, poll_ms: int) -> list[Reading]:
    """What a session reads from the device in virtual time."""
    session = families.find("alaris").open_session([PumpOnLine(pump="p1", poll_ms=poll_ms)])
    arriving: list[tuple[int, bytes]] = []
    heard: list[Reading] = []
    session.opened(0)
    now_ms = 0
    while now_ms < END_MS:
        data = b""
        if arriving and arriving[0][0] <= now_ms:
            data = heapq.heappop(arriving)[1]
        heard += [fact for fact in session.receive(data, now_ms) if isinstance(fact, Reading)]
        if query := session.due(now_ms):
            for sent in device.receive(query, now_ms):
                heapq.heappush(arriving, (sent.at_ms, sent.data))
        soonest_ms = min(session.next_due_ms(), arriving[0][0]) if arriving else session.next_due_ms()
        now_ms = max(soonest_ms, now_ms + (not arriving or arriving[0][0] > now_ms))
    return heard


@pytest.mark.parametrize("poll_ms", [1_000, 5_000])
@pytest.mark.parametrize("slow_s", [0.5, 1.0, 2.0, 3.0])
@pytest.mark.parametrize("from_s", [0, 60])
def test_a_slow_pump_is_never_read_further_behind_than_it_promises(slow_s, poll_ms, from_s):
    device = Device("alaris", scenario(None, fault("slow", from_s * 1_000, strength=slow_s)))
    read = read_from(device, poll_ms)
    for reading in read:
        assert reading.volume_ml is not None
        promised_ms = max(0, reading.at_ms - PROMISE_MS)
        least_ml = device.pump.truth_at(promised_ms).counter_ml
        most_ml = device.pump.truth_at(reading.at_ms).counter_ml
        assert least_ml - 0.001 <= reading.volume_ml <= most_ml + 0.001
    answer_ms = slow_s * 1_000 + 100
    # INF_VTBI once a minute, and the minute in which the pump becomes slow, are what may be missing.
    assert len(read) >= END_MS * 0.8 / (answer_ms + poll_ms)
