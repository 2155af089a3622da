"""The pump's side of a protocol: what every family here can do, and what it is shown of the pumps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from msgspec import Struct

from simulator.pump import LogEntry, Truth

Address = int | None
"""A pump's place on the line; ``None`` where a pump has none."""


class LineSettings(Struct, frozen=True, kw_only=True):
    """How the serial line is set: ``parity`` is ``N``, ``E`` or ``O``."""

    baud: int
    data_bits: int = 8
    parity: str = "N"
    stop_bits: int = 1

    @property
    def byte_ms(self) -> float:
        """How long one byte takes on the line."""
        return (1 + self.data_bits + (self.parity != "N") + self.stop_bits) * 1000 / self.baud


class Pumps(Protocol):
    """The pumps at one line as they are now."""

    @property
    def now_ms(self) -> int:
        """Scenario time."""
        ...

    @property
    def addresses(self) -> Sequence[Address]:
        """Those that are there, in order."""
        ...

    def truth(self, address: Address) -> Truth:
        """How one of them is now. Raises KeyError for an address where none is."""
        ...

    def log(self, address: Address) -> Sequence[LogEntry]:
        """What one of them has written into its log until now, in order of time."""
        ...


class Answer(Struct, frozen=True):
    """What comes from a pump: for a request that was understood as a frame, or of its own accord."""

    request: bytes
    """Empty: nobody asked."""
    reply: bytes
    """Empty: the pump stays silent."""
    address: Address = None
    """Whose answer it is, where pumps have addresses; ``None``: the base's, or that of the only pump."""


class Wire(Protocol):
    """One client's conversation with the pumps of one line. Holds no port and no clock."""

    thinking_ms: int
    """How long a pump takes before it answers."""

    def receive(self, data: bytes, pumps: Pumps) -> list[Answer]:
        """The answers to the requests that these bytes complete, the pumps being as ``pumps`` says.

        Takes any bytes in any portions, raises nothing, holds a bounded number of them.
        """
        ...

    def unasked(self, pumps: Pumps) -> list[Answer]:
        """What the pumps say of their own accord and has come due by now."""
        ...

    def next_unasked_ms(self) -> int | None:
        """When ``unasked`` should be called next; ``None``: not before something is received."""
        ...

    def connected(self, now_ms: int) -> None:
        """The cable has been put in (again): what was agreed on the line before it no longer holds."""
        ...


class WireFamily(Struct, frozen=True, kw_only=True):
    """One protocol from the pumps' side."""

    line: LineSettings
    open_wire: Callable[[Mapping[Address, str]], Wire]
    """From the serial number of the pump at each address to their side of the protocol."""
    addresses: tuple[int, ...] = ()
    """Where pumps can be; empty for a protocol without addresses."""
    alone_at: Address = None
    """Where a pump is that was given no address."""


class OnlyWhenAsked:
    """The part of a wire whose pumps say nothing of their own accord, and agree on nothing."""

    def unasked(self, pumps: Pumps) -> list[Answer]:
        """See ``Wire.unasked``."""
        return []

    def next_unasked_ms(self) -> int | None:
        """See ``Wire.next_unasked_ms``."""
        return None

    def connected(self, now_ms: int) -> None:
        """See ``Wire.connected``."""
