"""The table of families. A new driver is one line here."""

from __future__ import annotations

from drivers.alaris.session import AlarisFamily
from drivers.dummy import DummyFamily
from drivers.family import Family
from drivers.fresenius.session import FreseniusFamily
from drivers.miva.session import MivaFamily
from drivers.newera.session import NewEraFamily
from drivers.sapphire.session import SapphireFamily
from drivers.terumo.session import TerumoFamily

_FAMILIES: dict[str, Family] = {
    "alaris": AlarisFamily(),
    "fresenius": FreseniusFamily(),
    "miva": MivaFamily(),
    "newera": NewEraFamily(),
    "sapphire": SapphireFamily(),
    "terumo": TerumoFamily(),
    "dummy": DummyFamily(),
}


def known() -> tuple[str, ...]:
    """The names of all families, in the order in which they are shown."""
    return tuple(_FAMILIES)


def find(name: str) -> Family:
    """The family of that name. Raises ValueError, with a sentence that names the known ones."""
    family = _FAMILIES.get(name)
    if family is None:
        raise ValueError(f"{name!r} is not known; known are {', '.join(known())}")
    return family
