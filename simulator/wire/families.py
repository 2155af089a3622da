"""The table of families: adding one is a line here."""

from __future__ import annotations

from collections.abc import Callable

from simulator.wire.alaris import AlarisWire
from simulator.wire.wire import Wire

WIRES: dict[str, Callable[[str], Wire]] = {
    "alaris": AlarisWire,
}
"""For each family: from the pump's serial number to its side of the protocol."""
