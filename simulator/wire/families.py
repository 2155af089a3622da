"""The table of families: adding one is a line here."""

from __future__ import annotations

from simulator.wire import alaris, fresenius, miva, newera, sapphire, terumo
from simulator.wire.wire import WireFamily

WIRES: dict[str, WireFamily] = {
    "alaris": alaris.FAMILY,
    "fresenius": fresenius.FAMILY,
    "miva": miva.FAMILY,
    "newera": newera.FAMILY,
    "sapphire": sapphire.FAMILY,
    "terumo": terumo.FAMILY,
}
