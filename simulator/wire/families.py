"""The table of families: adding one is a line here."""

from __future__ import annotations

from simulator.wire import alaris, fresenius
from simulator.wire.wire import WireFamily

WIRES: dict[str, WireFamily] = {
    "alaris": alaris.FAMILY,
    "fresenius": fresenius.FAMILY,
}
