"""Milestones of an alert on its way out, as ``dripwatch run --trace`` prints them and ``demo --once`` reads
them.
"""

from __future__ import annotations

from collections import OrderedDict

from msgspec import Struct

from alerts import wire
from alerts.alert import Reason
from alerts.mqtt import BrokerConfirmed, BrokerMessage
from alerts.sink import Lane, Message
from gateway.broker_answers import is_taken
from gateway.effects import Effects
from gateway.inputs import Committed, FromBroker, Input

_REMEMBERED_MAX = 1_000
_DECIDED = {Reason.FIRST: "detected", Reason.ACKNOWLEDGED: "acknowledged"}


class Milestone(Struct, frozen=True, kw_only=True):
    """One step: ``detected``, ``acknowledged``, ``outbox`` (on the card), ``broker_confirmed`` or
    ``receipt``.
    """

    step: str
    time: str
    alert_id: str
    kind: str
    rev: int
    seq: int | None = None


class Tracer:
    """Watches what goes into the engine and what comes out; decides nothing."""

    def __init__(self) -> None:
        self._commits: OrderedDict[int, list[Message]] = OrderedDict()
        self._tokens: OrderedDict[int, Message] = OrderedDict()
        self._unreceipted: OrderedDict[int, Message] = OrderedDict()

    def observe(self, happened: Input, effects: Effects) -> list[Milestone]:
        """What has been reached by this input."""
        time = wire.iso_utc(happened.moment.utc_ms)
        reached: list[Milestone] = []
        match happened:
            case Committed():
                while self._commits and next(iter(self._commits)) <= happened.number:
                    _, messages = self._commits.popitem(last=False)
                    for message in messages:
                        reached.extend(_about("outbox", time, message))
            case FromBroker(event=BrokerConfirmed(token=token, reason_code=code)):
                confirmed = self._tokens.pop(token, None)
                if confirmed is not None and is_taken(code):
                    reached.extend(_about("broker_confirmed", time, confirmed))
            case FromBroker(event=BrokerMessage(topic=topic, payload=payload)) if topic.endswith(
                "/down/receipt"
            ):
                reached.extend(self._receipted(time, payload))
        if effects.commit is not None:
            reached.extend(
                Milestone(
                    step=_DECIDED[alert.reason],
                    time=time,
                    alert_id=alert.alert_id,
                    kind=alert.kind,
                    rev=alert.rev,
                )
                for alert in effects.commit.alerts
                if alert.reason in _DECIDED
            )
            messages = [
                message
                for changes in effects.commit.lanes
                for message in changes.numbered
                if changes.lane is Lane.ALERTS
            ]
            self._commits[effects.commit.number] = messages
            for message in messages:
                assert message.seq is not None
                self._unreceipted[message.seq] = message
        for send in effects.sends:
            if send.message.lane is Lane.ALERTS:
                self._tokens[send.token] = send.message
        for remembered in (self._commits, self._tokens, self._unreceipted):
            while len(remembered) > _REMEMBERED_MAX:
                remembered.popitem(last=False)
        return reached

    def _receipted(self, time: str, payload: bytes) -> list[Milestone]:
        try:
            receipt = wire.decode(payload, wire.Receipt)
        except wire.WireError:
            return []
        reached: list[Milestone] = []
        while self._unreceipted and next(iter(self._unreceipted)) <= receipt.alerts:
            number = wire.decode_number(next(iter(self._unreceipted.values())).payload)
            if number is None or number.store != receipt.store:
                break
            _, message = self._unreceipted.popitem(last=False)
            reached.extend(_about("receipt", time, message))
        return reached


def _about(step: str, time: str, message: Message) -> list[Milestone]:
    place = wire.parse_topic(message.topic)
    if place is None or place.alert_id is None:
        return []
    try:
        told = wire.decode(message.payload, wire.Alert)
    except wire.WireError:
        return []
    return [
        Milestone(step=step, time=time, alert_id=told.alert_id, kind=told.kind, rev=told.rev, seq=message.seq)
    ]
