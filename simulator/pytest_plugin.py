"""The fixture ``pump`` for whoever writes a client for infusion pumps (entry point of pytest).

::

    def test_my_client(pump):
        alaris = pump("alaris", scenario="steady")
        ...                           # open alaris.port
        alaris.fault("occlusion_downstream")
        alaris.truth().pressure_mmhg
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from simulator.process import SimulatedPump, scenario_arguments, simulated_pump

MakePump = Callable[..., SimulatedPump]
"""``pump(family, scenario="steady", *, seed=None, tcp=False)``."""


@pytest.fixture
def pump(tmp_path: Path) -> Iterator[MakePump]:
    """Makes simulated pumps, each behind a pseudo-terminal of its own, and ends them with the test.

    ``scenario`` is a name, a file, or one of these for each address. With ``tcp`` the port is one of TCP.
    """
    with ExitStack() as stack:
        count = 0

        def make(
            family: str,
            scenario: str | Mapping[int, str] = "steady",
            *,
            seed: int | None = None,
            tcp: bool = False,
        ) -> SimulatedPump:
            nonlocal count
            count += 1
            place = ["--tcp", "127.0.0.1:0"] if tcp else ["--link", str(tmp_path / f"pump-{count}")]
            seeded = [] if seed is None else ["--seed", str(seed)]
            return stack.enter_context(simulated_pump(family, *scenario_arguments(scenario), *place, *seeded))

        yield make
