"""What the engine wants done, in the order in which it must be done: show, write, commit, release."""

from __future__ import annotations

from msgspec import Struct

from alerts.alert import Alert
from alerts.signal import PanelSignal
from alerts.sink import Message
from gateway.lanes import Fetch, LaneChanges


class Write(Struct, frozen=True, kw_only=True):
    """Bytes for a pump: always one of the family's queries (drivers/family.py)."""

    port: str
    data: bytes


class Commit(Struct, frozen=True, kw_only=True):
    """What must be on the card, all of it or nothing, before anything of it is said."""

    number: int
    alerts: tuple[Alert, ...] = ()
    """New revisions; a closed one is forgotten."""
    lanes: tuple[LaneChanges, ...] = ()
    kept: tuple[tuple[str, bytes], ...] = ()
    """Whatever the engine must find again after a restart, by name."""

    def followed_by(self, later: Commit) -> Commit:
        """Both as one: what the later one writes anew need not be written twice.

        So what waits for a card that refuses does not grow with the time that it refuses.
        """
        alerts = {alert.alert_id: alert for alert in (*self.alerts, *later.alerts)}
        lanes = {changes.lane: changes for changes in self.lanes}
        for changes in later.lanes:
            earlier = lanes.get(changes.lane)
            lanes[changes.lane] = changes if earlier is None else earlier.followed_by(changes)
        return Commit(
            number=later.number,
            alerts=tuple(alerts.values()),
            lanes=tuple(lanes.values()),
            kept=tuple({**dict(self.kept), **dict(later.kept)}.items()),
        )


class Send(Struct, frozen=True, kw_only=True):
    """A message that may leave now; ``token`` comes back with the broker's confirmation."""

    message: Message
    token: int


class Effects(Struct, frozen=True, kw_only=True):
    """All that follows from one input."""

    show: str | None = None
    """One line for a person at the gateway, when it has changed."""
    panel: PanelSignal | None = None
    """What the panel in the home shows and sounds from now on, when it has changed."""
    notes: tuple[str, ...] = ()
    """Sentences for the engineer's log."""
    writes: tuple[Write, ...] = ()
    commit: Commit | None = None
    fetches: tuple[Fetch, ...] = ()
    """What is to be read from the card, behind the commit; it comes back as ``Fetched``."""
    sends: tuple[Send, ...] = ()
    history: tuple[Message, ...] = ()
    """Batches of lines for the history, behind all that the broker gets; answered by ``HistoryAnswered``."""
    wake_in_ms: int = 0
    """How long after this input the loop may wait for the next one."""
    stop: bool = False
    """Everything has been said that can be: the loop may end."""
