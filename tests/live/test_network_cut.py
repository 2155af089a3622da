"""The network between home and provider is cut, in a namespace of the test's own: seen, or in silence."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live.house import wait_until
from tests.live.kills import Home, street, wait_s

pytestmark = pytest.mark.live

NOBODY = "02:00:00:00:00:99"


class Cable:
    """A namespace for the home, and the cable to it."""

    def __init__(self) -> None:
        unique = os.getpid() % 10_000
        self.namespace = f"dripwatch-{unique}"
        self._inside, self._outside = f"dwi{unique}", f"dwo{unique}"
        net = f"10.{64 + unique // 256}.{unique % 256}"
        self.provider, self._home = f"{net}.1", f"{net}.2"

    def plug_in(self) -> None:
        """Raises CalledProcessError where that is not allowed."""
        self._ip(f"netns add {self.namespace}")
        self._ip(f"link add {self._outside} type veth peer name {self._inside} netns {self.namespace}")
        self._ip(f"addr add {self.provider}/24 dev {self._outside}")
        self._ip(f"link set {self._outside} up")
        self._in_home(f"addr add {self._home}/24 dev {self._inside}")
        self._in_home("link set lo up")
        self._in_home(f"link set {self._inside} up")

    def take_away(self) -> None:
        """The cable goes with its namespace."""
        subprocess.run(["ip", "netns", "del", self.namespace], capture_output=True, timeout=30)
        subprocess.run(["ip", "link", "del", self._outside], capture_output=True, timeout=30)

    def cut(self, how: str) -> None:
        """``pulled``: the home sees that there is no network; ``silent``: what it sends comes to nobody."""
        if how == "pulled":
            self._in_home(f"link set {self._inside} down")
        else:
            self._in_home(f"neigh replace {self.provider} lladdr {NOBODY} dev {self._inside} nud permanent")

    def heal(self, how: str) -> None:
        """The end of that."""
        if how == "pulled":
            self._in_home(f"link set {self._inside} up")
        else:
            self._in_home(f"neigh del {self.provider} dev {self._inside}")

    def _in_home(self, arguments: str) -> None:
        self._ip(f"-n {self.namespace} {arguments}")

    def _ip(self, arguments: str) -> None:
        subprocess.run(["ip", *arguments.split()], check=True, capture_output=True, text=True, timeout=30)


@pytest.fixture
def cable() -> Iterator[Cable]:
    """Skips where there may be no namespace."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("only root may make a network namespace, with `ip` of iproute2")
    made = Cable()
    try:
        try:
            made.plug_in()
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no network namespace may be made here: {error.stderr.strip()}")
        yield made
    finally:
        made.take_away()


def check_a_cut(folder: Path, cable: Cable, how: str, lasts_s: float) -> Home:
    under = ["ip", "netns", "exec", cable.namespace]
    with street(folder, 1, host=cable.provider) as here:
        [home] = here.homes
        home.gateway.start(under)
        wait_until(lambda: home.has_a_receipt_of("occlusion"), "it is connected")
        cable.cut(how)
        wait_s(1.0)  # what was on the way arrives
        before = len(here.board.messages(home.token))
        wait_s(lasts_s)
        made = home.gateway.numbered() - 1
        assert made >= before + 5, "alerts come and go meanwhile"
        assert len(here.board.messages(home.token)) == before, "it was not cut"
        cable.heal(how)
        wait_until(
            lambda: len(here.board.messages(home.token)) >= made,
            "what was told meanwhile has come",
            within_s=90,
        )
        assert home.gateway.process is not None
        assert home.gateway.process.poll() is None
        home.kill()
        home.end_with_one_alarm()
        home.gateway.start(under)
        home.settle(here.board)
        assert here.wrong() == []
        return home


@pytest.mark.parametrize("how", ["pulled", "silent"])
def test_what_is_told_while_the_network_is_cut_arrives_once_after_it(
    tmp_path: Path, needs_mosquitto: None, cable: Cable, how: str
):
    check_a_cut(tmp_path, cable, how, lasts_s=4.0)


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize("how", ["pulled", "silent"])
def test_a_cut_so_long_that_it_is_noticed_costs_nothing_either(
    tmp_path: Path, needs_mosquitto: None, cable: Cable, how: str
):
    home = check_a_cut(tmp_path, cable, how, lasts_s=50.0)
    assert "no broker" in home.gateway.said().split("broker: connected", 1)[1]
