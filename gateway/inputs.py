"""Everything that can happen to the gateway. One inbox, one type for each happening, each with its time."""

from __future__ import annotations

from msgspec import Struct

from alerts.mqtt import BrokerEvent
from gateway.core.timeline import Moment
from gateway.lanes import Fetch, Waiting


class Tick(Struct, frozen=True, kw_only=True):
    """Time has passed and nothing else."""

    moment: Moment
    inbox_losses: int = 0
    """How many happenings the full inbox has refused since the start."""


class PortOpened(Struct, frozen=True, kw_only=True):
    """A port can be read and written (again)."""

    moment: Moment
    port: str


class PortLost(Struct, frozen=True, kw_only=True):
    """A port is gone, or could not be opened; ``reason`` is a sentence for a person."""

    moment: Moment
    port: str
    reason: str


class BytesArrived(Struct, frozen=True, kw_only=True):
    """A pump has spoken."""

    moment: Moment
    port: str
    data: bytes


class FromBroker(Struct, frozen=True, kw_only=True):
    """The broker has connected, gone, refused, confirmed or delivered something."""

    moment: Moment
    event: BrokerEvent


class Committed(Struct, frozen=True, kw_only=True):
    """All commits up to this number are on the card."""

    moment: Moment
    number: int


class CommitFailed(Struct, frozen=True, kw_only=True):
    """The card refused a commit; the store goes on trying."""

    moment: Moment
    number: int
    reason: str


class Fetched(Struct, frozen=True, kw_only=True):
    """What the card has of what was to be read from it."""

    moment: Moment
    fetch: Fetch
    found: tuple[Waiting, ...]


class CertificateRead(Struct, frozen=True, kw_only=True):
    """The certificate by which the broker knows this home has been looked at.

    ``expires_utc_ms`` is ``None`` if the configuration names none; ``problem`` is a sentence if it could not
    be read.
    """

    moment: Moment
    expires_utc_ms: int | None = None
    problem: str | None = None


class HistoryAnswered(Struct, frozen=True, kw_only=True):
    """The history has been written up to this number, or why it is not."""

    moment: Moment
    written_up_to: int | None = None
    note: str | None = None


class ButtonPressed(Struct, frozen=True, kw_only=True):
    """Somebody in the home presses the panel's button and lets it go: silence, for two minutes at most."""

    moment: Moment


class ButtonHeld(Struct, frozen=True, kw_only=True):
    """Somebody in the home holds the panel's button: a call for the nurse."""

    moment: Moment


class StopRequested(Struct, frozen=True, kw_only=True):
    """A person or systemd asks the gateway to end."""

    moment: Moment


Input = (
    Tick
    | PortOpened
    | PortLost
    | BytesArrived
    | FromBroker
    | Committed
    | CommitFailed
    | Fetched
    | CertificateRead
    | HistoryAnswered
    | ButtonPressed
    | ButtonHeld
    | StopRequested
)
