"""What the engine decided: the only stream from which every way out is made (gateway/projections.py)."""

from __future__ import annotations

from msgspec import Struct

from alerts.alert import Alert
from alerts.condition import Finding
from drivers.reading import Reading
from gateway.core.monitor import DeliveryStatus
from gateway.core.timeline import Moment
from gateway.orders import OrderReason, PumpOrders


class AlertChanged(Struct, frozen=True, kw_only=True):
    """An alert has a new revision."""

    alert: Alert


class AllToldAgain(Struct, frozen=True, kw_only=True):
    """Somebody who is not complete asked for it: each open alert is told as it was last told."""


class EventHappened(Struct, frozen=True, kw_only=True):
    """Something happened that is no alert (the ``info`` kinds)."""

    pump: str
    finding: Finding


class PointTaken(Struct, frozen=True, kw_only=True):
    """A reading, and what was expected of it."""

    pump: str
    reading: Reading
    status: DeliveryStatus
    t_ms: int
    moment: Moment


class Answered(Struct, frozen=True, kw_only=True):
    """Somebody asked for something, and this is what became of it; ``reason`` is ``None`` if it was done."""

    id: str
    reason: str | None


class OrderAnswered(Struct, frozen=True, kw_only=True):
    """What became of an order for this pump, or that one has taken force."""

    pump: str
    id: str | None
    """``None``: a file given to the gateway."""
    version: int
    sha256: str
    reason: OrderReason | None
    """``None``: it was accepted."""
    message: str
    orders: PumpOrders
    """As they hold now."""
    ended: tuple[str, ...] = ()
    """Alerts that the new limits no longer hold."""


Change = AlertChanged | AllToldAgain | EventHappened | PointTaken | Answered | OrderAnswered
