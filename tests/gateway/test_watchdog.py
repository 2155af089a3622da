"""The gateway tells systemd how it is, over a real datagram socket."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway.watchdog import Pulses, Watchdog


class Supervisor:
    """The part of systemd that listens: a datagram socket at the address given to the service."""

    def __init__(self, bind_to: str, notify_socket: str) -> None:
        self.environment = {"NOTIFY_SOCKET": notify_socket}
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(bind_to)
        self._socket.setblocking(False)

    def heard(self) -> list[str]:
        datagrams: list[str] = []
        while True:
            try:
                datagrams.append(self._socket.recv(4096).decode())
            except BlockingIOError:
                return datagrams

    def leave(self) -> None:
        self._socket.close()


@pytest.fixture(params=["path", "abstract"])
def supervisor(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Supervisor]:
    if request.param == "path":
        path = str(tmp_path / "notify")
        listening = Supervisor(bind_to=path, notify_socket=path)
    else:
        name = f"dripwatch-test-{os.getpid()}"
        listening = Supervisor(bind_to="\0" + name, notify_socket="@" + name)
    yield listening
    listening.leave()


WHAT_IS_SAID: list[tuple[str, Callable[[Watchdog], None], str]] = [
    ("ready", Watchdog.ready, "READY=1"),
    ("alive", Watchdog.alive, "WATCHDOG=1"),
    ("stopping", Watchdog.stopping, "STOPPING=1"),
    ("status", lambda watchdog: watchdog.status("watching 2 pumps"), "STATUS=watching 2 pumps"),
    ("status with letters outside ASCII", lambda watchdog: watchdog.status("Übergabe"), "STATUS=Übergabe"),
]


@pytest.mark.parametrize(
    ("say", "datagram"), [row[1:] for row in WHAT_IS_SAID], ids=[row[0] for row in WHAT_IS_SAID]
)
def test_each_thing_said_is_one_datagram(
    supervisor: Supervisor, say: Callable[[Watchdog], None], datagram: str
) -> None:
    say(Watchdog(supervisor.environment))
    assert supervisor.heard() == [datagram]


def test_a_life_is_told_in_order(supervisor: Supervisor) -> None:
    watchdog = Watchdog(supervisor.environment)
    watchdog.ready()
    watchdog.alive()
    watchdog.alive()
    watchdog.stopping()
    assert supervisor.heard() == ["READY=1", "WATCHDOG=1", "WATCHDOG=1", "STOPPING=1"]


def test_a_status_of_several_lines_cannot_say_anything_but_a_status(supervisor: Supervisor) -> None:
    Watchdog(supervisor.environment).status("broker refused\nWATCHDOG=1\n")
    assert supervisor.heard() == ["STATUS=broker refused WATCHDOG=1"]


@pytest.mark.parametrize("environment", [{}, {"NOTIFY_SOCKET": ""}], ids=["not set", "empty"])
def test_started_by_hand_it_says_nothing(environment: dict[str, str], supervisor: Supervisor) -> None:
    watchdog = Watchdog(environment)
    watchdog.ready()
    watchdog.alive()
    watchdog.status("watching")
    watchdog.stopping()
    assert supervisor.heard() == []


def test_a_supervisor_that_has_left_does_not_stop_the_gateway(supervisor: Supervisor) -> None:
    watchdog = Watchdog(supervisor.environment)
    supervisor.leave()
    watchdog.alive()


def test_a_supervisor_that_does_not_listen_does_not_hold_the_gateway_up(supervisor: Supervisor) -> None:
    watchdog = Watchdog(supervisor.environment)
    for _ in range(5_000):
        watchdog.alive()
    assert 0 < len(supervisor.heard()) < 5_000


def test_the_address_is_taken_from_the_environment_of_the_process(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", supervisor.environment["NOTIFY_SOCKET"])
    Watchdog().ready()
    assert supervisor.heard() == ["READY=1"]


def test_who_comes_round_is_not_late_and_who_does_not_is_as_a_timetable() -> None:
    pulses = Pulses()
    # seconds, who comes round then, who is late
    timetable = [
        (0, ("card", "port"), []),
        (10, ("port",), []),
        (16, (), ["card"]),
        (20, ("card", "port"), []),
        (34, ("card",), []),
        (36, (), ["port"]),
    ]
    pulses.beat("patient", 3_600.0)
    for at_s, come_round, late in timetable:
        for part in come_round:
            pulses.beat(part)
        assert pulses.late(at_s * 1_000) == late, at_s
