"""The simulated pumps of a family with their cable, and the dialogue with them."""

from __future__ import annotations

from collections.abc import Mapping

from drivers.family import Family, PumpOnLine
from simulator.device import Device
from simulator.scenario import Scenario
from simulator.wire.wire import Address
from tests.drivers.dialogue import Dialogue
from tests.drivers.wires import Wire


class Bedside(Dialogue):
    """Any family, found by its name on both sides."""

    def __init__(
        self,
        family: Family,
        scenarios: Scenario | Mapping[Address, Scenario],
        *,
        poll_ms: int = 5_000,
        there: Wire | None = None,
        back: Wire | None = None,
    ) -> None:
        self.device = Device(family.traits.family, scenarios)
        pumps = [
            PumpOnLine(pump=token_of(address), address=address, poll_ms=poll_ms)
            for address in self.device.pumps
        ]
        super().__init__(family.open_session(pumps), self.device, there=there, back=back)


def token_of(address: Address) -> str:
    """What a pump is called in these tests."""
    return "p" if address is None else f"p{address}"
