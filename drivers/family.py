"""The contract of a driver, with its prohibitions.

A family is one serial protocol. A session is one dialogue with the pumps on one port. A session owns no port,
no thread and no clock: it is handed bytes and the time, and hands back facts and the bytes to send. It may
send nothing but the queries, and the frames that the protocol needs to keep the line open, that its family
lists in ``may_send``; ``tests/drivers`` proves that for any input.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct

from drivers.reading import Fact, PumpTraits


class LineSettings(Struct, frozen=True, kw_only=True):
    """How the serial line is set: ``parity`` is ``N``, ``E`` or ``O``."""

    baud: int
    data_bits: int = 8
    parity: str = "N"
    stop_bits: float = 1.0
    bauds: tuple[int, ...] = ()
    """Other speeds among which the pump leaves a choice."""


class PumpOnLine(Struct, frozen=True, kw_only=True):
    """One pump that is expected on a port."""

    pump: str
    """Its token in the gateway's configuration."""
    address: int | None = None
    """Its place on the line, for families that have addresses."""
    poll_ms: int = 5_000
    """How often it is to be read."""

    def next_poll_ms(self, poll_at_ms: int, now_ms: int) -> int:
        """When to read it after the poll that was due at ``poll_at_ms``.

        One that is late by more than a poll does not make up for what was missed.
        """
        next_ms = poll_at_ms + self.poll_ms
        return next_ms if next_ms > now_ms else now_ms + self.poll_ms


class Session(Protocol):
    """One dialogue on one port. All times are monotonic milliseconds."""

    def opened(self, now_ms: int) -> None:
        """The port has (again) been opened: forget every half-heard word and ask who is there."""

    def receive(self, data: bytes, now_ms: int) -> Sequence[Fact]:
        """Take bytes that have just arrived; return what they say. Never raises, whatever the bytes.

        To be called with ``b""`` when ``next_due_ms`` has come and nothing arrived: that an answer did not
        come can be a fact too.
        """

    def due(self, now_ms: int) -> bytes:
        """Bytes to send now; ``b""`` if there is nothing to ask. Asking twice at one time asks once."""

    def next_due_ms(self) -> int:
        """When ``due`` should be called next if nothing arrives before."""


class Family(Protocol):
    """One protocol: what it reports, how its line is set, what may be sent."""

    @property
    def traits(self) -> PumpTraits:
        """What pumps of this family report, and on what evidence."""

    @property
    def line(self) -> LineSettings:
        """How the port is set."""

    def may_send(self, data: bytes) -> bool:
        """Whether ``data`` is one of the frames that a session of this family may write."""

    def open_session(self, pumps: Sequence[PumpOnLine]) -> Session:
        """A dialogue with these pumps on one port.

        Raises ValueError, with a sentence for the person who configures, if this family cannot have these
        pumps on one port.
        """


def can_be_polled(pump: PumpOnLine) -> None:
    """Raises ValueError, in words, for a poll that is none."""
    if pump.poll_ms <= 0:
        raise ValueError(f"pump {pump.pump}: a poll of {pump.poll_ms} ms is not possible; 5s is usual")


def the_only_pump(family: str, pumps: Sequence[PumpOnLine]) -> PumpOnLine:
    """The one pump of a port, in a family without addresses. Raises ValueError, in words, for any other."""
    if len(pumps) != 1:
        raise ValueError(f"a {family} pump needs a port of its own; {len(pumps)} are set on this one")
    [pump] = pumps
    if pump.address is not None:
        raise ValueError(f"pump {pump.pump}: {family} pumps have no address; remove `address`")
    can_be_polled(pump)
    return pump
