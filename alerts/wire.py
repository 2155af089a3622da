"""Topics and payloads of MQTT, both directions, version 1 (MQTT page).

One struct for each payload, read and written by the same definition: ``encode`` makes the bytes, ``decode``
reads them or raises WireError, which names the field. Unknown fields are ignored. An unknown kind, reason,
state, priority or urgency is kept as its text. Missing or null means not reported.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache
from types import MappingProxyType
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta, Struct

from alerts import alert as life
from alerts.condition import AbsenceWhat
from alerts.sink import Lane

MAX_READ_BYTES = 64 * 1024
"""No payload is larger: what is, is counted and dropped."""
MAX_MADE_BYTES = 60 * 1024
"""The gateway makes nothing above this."""
GATEWAY = "gateway"
"""The reserved pump token, for alerts about the gateway itself."""


class WireError(ValueError):
    """A payload that cannot be read or made: a sentence that names the field."""


# --- time --------------------------------------------------------------------------------------------------

_YEAR_10000_MS = 253_402_300_800_000


def iso_utc(utc_ms: int) -> str:
    """Milliseconds since 1970 as ISO 8601: ``2026-05-04T08:21:40.102Z``."""
    seconds, ms = divmod(utc_ms, 1000)
    return f"{datetime.fromtimestamp(seconds, UTC).isoformat()[:19]}.{ms:03d}Z"


def parse_iso_utc(text: str) -> int:
    """ISO 8601 with an offset, from 1970 to 9999, as milliseconds since 1970. Raises ValueError."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no UTC offset; write it as 2026-05-04T08:21:40.102Z")
    since_1970 = moment - datetime(1970, 1, 1, tzinfo=UTC)
    utc_ms = (since_1970.days * 86_400 + since_1970.seconds) * 1000 + since_1970.microseconds // 1000
    if not 0 <= utc_ms < _YEAR_10000_MS:
        raise ValueError(f"{text!r} is not between the years 1970 and 9999")
    return utc_ms


class UtcTime:
    """A wall time on the wire."""

    __slots__ = ("utc_ms",)

    def __init__(self, utc_ms: int) -> None:
        self.utc_ms = utc_ms

    def __eq__(self, other: object) -> bool:
        return isinstance(other, UtcTime) and other.utc_ms == self.utc_ms

    def __hash__(self) -> int:
        return hash(self.utc_ms)

    def __repr__(self) -> str:
        return f"UtcTime({self})"

    def __str__(self) -> str:
        return iso_utc(self.utc_ms)


# --- topics ------------------------------------------------------------------------------------------------

_ROOT = "dripwatch/v1"
TOPICS_REMEMBERED = 1_024
"""The same few come again and again: they are not taken apart each time."""
_TOKEN = re.compile(r"[a-z0-9-]{1,32}")
_WORD = re.compile(r"[a-z0-9_-]{1,64}")
_DOWN_FOR_A_PUMP = frozenset({"order", "absence"})


class Direction(StrEnum):
    """``up``: from the home. ``down``: to the home."""

    UP = "up"
    DOWN = "down"


class Topic(Struct, frozen=True, kw_only=True):
    """A topic taken apart. ``what`` also names the schema: ``beat``, ``alert``, ``ack``, ..."""

    home: str
    direction: Direction
    what: str
    pump: str | None = None
    alert_id: str | None = None


def up(home: str, what: str, *, pump: str | None = None, alert_id: str | None = None) -> str:
    """Topic from the home: ``up("h-1", "alert", pump="p1", alert_id="a-s-1-1")``. ``#`` is all of them."""
    words = [_ROOT, home, "up", *(("pump", pump) if pump is not None else ()), what]
    return "/".join(words if alert_id is None else [*words, alert_id])


def down(home: str, what: str, *, pump: str | None = None) -> str:
    """Topic to the home: ``down("h-1", "order", pump="p1")``. ``#`` is all of them."""
    return "/".join([_ROOT, home, "down", what, *(() if pump is None else (pump,))])


@lru_cache(maxsize=TOPICS_REMEMBERED)
def parse_topic(topic: str) -> Topic | None:
    """The topic taken apart, or None if it is none of version 1. A ``what`` that is new is still a topic."""
    if not topic.startswith(f"{_ROOT}/"):
        return None
    match topic.removeprefix(f"{_ROOT}/").split("/"):
        case [home, "up", "pump", pump, "alert" as what, alert_id] if _WORD.fullmatch(alert_id):
            found = Topic(home=home, direction=Direction.UP, what=what, pump=pump, alert_id=alert_id)
        case [home, "up", "pump", pump, what] if what != "alert":
            found = Topic(home=home, direction=Direction.UP, what=what, pump=pump)
        case [home, "down", what, pump] if what in _DOWN_FOR_A_PUMP:
            found = Topic(home=home, direction=Direction.DOWN, what=what, pump=pump)
        case [home, "up" | "down" as direction, what] if what not in _DOWN_FOR_A_PUMP and what != "pump":
            found = Topic(home=home, direction=Direction(direction), what=what)
        case _:
            return None
    tokens = [found.home] if found.pump is None else [found.home, found.pump]
    return found if all(map(_TOKEN.fullmatch, tokens)) and _WORD.fullmatch(found.what) else None


# --- what every payload has --------------------------------------------------------------------------------

_MOST = 2**53 - 1  # above it JSON readers disagree about whole numbers
Count = Annotated[int, Meta(ge=0, le=_MOST)]
Seq = Annotated[int, Meta(ge=1, le=_MOST)]
Name = Annotated[str, Meta(min_length=1, max_length=128)]
Token = Annotated[str, Meta(pattern="^[a-z0-9-]{1,32}$")]


class Clock(StrEnum):
    """Whether the gateway's wall clock could be trusted then."""

    SYNCED = "synced"
    UNSYNCED = "unsynced"


class _Payload(Struct, frozen=True, kw_only=True, tag_field="schema"):
    time: UtcTime


class _FromHome(_Payload, frozen=True, kw_only=True):
    clock: Clock
    boot: Name


class _Durable(_FromHome, frozen=True, kw_only=True):
    store: Name
    lane: Lane
    seq: Seq


class Number(Struct, frozen=True, kw_only=True):
    """The number of a durable message: all that a collector must be able to read."""

    store: Name
    lane: Lane
    seq: Seq


# --- from the home -----------------------------------------------------------------------------------------


class Status(_FromHome, frozen=True, kw_only=True, tag="dripwatch.status/1"):
    """``status``; also the last will, whose ``time`` is that of connecting."""

    online: bool
    version: Name
    pumps: tuple[Token, ...]
    store: Name


class LaneRange(Struct, frozen=True, kw_only=True):
    """``oldest``: the lowest ``seq`` still held. ``next``: the one to be given next."""

    oldest: Seq
    next: Seq


class PumpLink(Struct, frozen=True, kw_only=True):
    """``up``, ``down``, ``silent`` or ``garbled``, and the age of the newest reading."""

    link: str
    age_s: float | None = None


class Beat(_FromHome, frozen=True, kw_only=True, tag="dripwatch.beat/1"):
    """``beat``: what a board compares itself with, every 10 s."""

    store: Name
    open: Count
    digest: str
    as_of: Count
    """The alerts ``seq`` that ``open`` and ``digest`` include."""
    lanes: dict[Lane, LaneRange]
    pumps: dict[Token, PumpLink]


class Open(_FromHome, frozen=True, kw_only=True, tag="dripwatch.open/1"):
    """``open``: which alerts are not closed, by ``rev``."""

    store: Name
    as_of: Count
    alerts: tuple[tuple[Name, Count], ...]


class Occurrence(Struct, frozen=True, kw_only=True):
    """Which occurrence of the schedule, and when it is or was due."""

    number: Count
    due: UtcTime | None = None


class AbsenceNow(Struct, frozen=True, kw_only=True):
    """An announced absence that is on."""

    what: str
    until: UtcTime


class State(_FromHome, frozen=True, kw_only=True, tag="dripwatch.state/1"):
    """``state`` of a pump. ``verdict`` says what the pump counts, never what reaches the patient."""

    state: str
    rate_ml_h: float | None = None
    volume_ml: float | None = None
    vtbi_ml: float | None = None
    pressure_mmhg: float | None = None
    battery_percent: float | None = None
    alarms: tuple[str, ...] | None = None
    expected_ml: float | None = None
    delivered_ml: float | None = None
    ends_at: UtcTime | None = None
    bag_empty_at: UtcTime | None = None
    verdict: str
    decidable_after_s: float | None = None
    """From ``time``; 0 now, null never."""
    occlusion_blind_s: float | None = None
    occurrence: Occurrence | None = None
    absence: AbsenceNow | None = None
    urgency: str | None = None
    origin: str
    driver_status: str
    reading_age_s: float | None = None


class TelemetryPoint(Struct, frozen=True, kw_only=True, array_like=True):
    """One point, on the wire a list in this order. ``time`` is null if the clock was never set meanwhile."""

    time: UtcTime | None
    uptime_s: float | None
    state: str
    rate_ml_h: float | None = None
    volume_ml: float | None = None
    expected_ml: float | None = None
    delivered_ml: float | None = None
    pressure_mmhg: float | None = None


class Telemetry(_Durable, frozen=True, kw_only=True, tag="dripwatch.telemetry/1"):
    """``telemetry``: a batch of points."""

    historical: bool
    points: tuple[TelemetryPoint, ...]


class Acknowledged(Struct, frozen=True, kw_only=True):
    """Who has answered, when (by the gateway's clock), and until when it holds."""

    by: str
    at: UtcTime
    until: UtcTime | None = None


class Alert(Struct, frozen=True, kw_only=True, tag_field="schema", tag="dripwatch.alert/1"):
    """``alert``: how one alert is now. The fields stand in the order of the page."""

    alert_id: Name
    rev: Count
    pump: Token
    kind: str
    code: str | None = None
    state: str
    reason: str
    priority: str | None = None
    """One of ``Priority``; any other, and none, is shown as the highest, never dropped."""
    level: Count = 0
    urgency: str | None = None
    time: UtcTime
    since: UtcTime | None = None
    raised: UtcTime
    respond_within_s: Count
    clock: Clock
    boot: Name
    store: Name
    lane: Lane
    seq: Seq
    expected_ml: float | None = None
    delivered_ml: float | None = None
    message: str = ""
    acknowledged: Acknowledged | None = None


class Event(_Durable, frozen=True, kw_only=True, tag="dripwatch.event/1"):
    """``event``: what happened, and is no alert."""

    kind: str
    message: str = ""
    code: str | None = None
    expected_ml: float | None = None
    delivered_ml: float | None = None
    since: UtcTime | None = None


class OrderInForce(Struct, frozen=True, kw_only=True):
    """An order as the gateway holds it."""

    version: Count
    sha256: str
    prescription: str


class OrderAnswer(_Durable, frozen=True, kw_only=True, tag="dripwatch.order/1"):
    """``order`` from the home: what became of an order. ``id`` is null for a file given to the gateway."""

    id: str | None = None
    version: Count
    sha256: str
    accepted: bool
    reason: str | None = None
    message: str = ""
    in_force: OrderInForce | None = None
    waiting: OrderInForce | None = None
    ended: tuple[str, ...] = ()


class VitalValue(Struct, frozen=True, kw_only=True):
    """One measured value."""

    name: str
    value: float
    unit: str


class Vitals(_Durable, frozen=True, kw_only=True, tag="dripwatch.vitals/1"):
    """``vitals``: a caregiver's entry. ``by`` is a role."""

    values: tuple[VitalValue, ...]
    site: str | None = None
    by: str


class Answer(_Durable, frozen=True, kw_only=True, tag="dripwatch.answer/1"):
    """``answer`` to an ``ack``, ``absence`` or ``resync``."""

    id: str
    accepted: bool
    reason: str | None = None


class Void(_Payload, frozen=True, kw_only=True, tag="dripwatch.void/1"):
    """What goes in the place of a message that the broker refuses for its content, under its number."""

    store: Name
    lane: Lane
    seq: Seq
    reason: str


# --- to the home -------------------------------------------------------------------------------------------


class Receipt(_Payload, frozen=True, kw_only=True, tag="dripwatch.receipt/1"):
    """``receipt``: all up to these numbers is stored or known to be lost; 0: nothing yet."""

    collector: str
    store: str
    alerts: Count
    telemetry: Count


class _FromPerson(_Payload, frozen=True, kw_only=True):
    id: Name
    by: Name


class Role(StrEnum):
    """As whom somebody acknowledges."""

    NURSE = "nurse"
    PHARMACIST = "pharmacist"
    PHYSICIAN = "physician"
    CAREGIVER = "caregiver"


class Ack(_FromPerson, frozen=True, kw_only=True, omit_defaults=True, tag="dripwatch.ack/1"):
    """``ack``: ``rev`` is the one that was seen."""

    alert_id: Name
    rev: Count
    role: Role
    adopt: bool = False
    """Of ``wrong_pump``: the pump that answers is the patient's now (an addition to the MQTT page)."""


class Absence(_FromPerson, frozen=True, kw_only=True, tag="dripwatch.absence/1"):
    """``absence``: counted from its arrival."""

    what: AbsenceWhat
    for_s: Annotated[float, Meta(gt=0)]
    reason: str = ""


class Resync(_FromPerson, frozen=True, kw_only=True, tag="dripwatch.resync/1"):
    """``resync``: all open alerts are published anew."""


class Effective(StrEnum):
    """When an order takes force."""

    NOW = "now"
    ON_PROGRAMMING = "on_programming"


class Order(_FromPerson, frozen=True, kw_only=True, tag="dripwatch.order/1"):
    """``order`` to the home. Whether it can be accepted is judged by the gateway, not here."""

    version: Count
    prescription: str
    sha256: str
    effective: Effective = Effective.NOW
    effective_by: UtcTime | None = None


class Watch(_FromPerson, frozen=True, kw_only=True, tag="dripwatch.watch/1"):
    """``watch``: somebody looks at this home, or can be reached."""


FROM_HOME: Mapping[str, type[Struct]] = MappingProxyType(
    {
        "status": Status,
        "beat": Beat,
        "open": Open,
        "state": State,
        "telemetry": Telemetry,
        "alert": Alert,
        "event": Event,
        "order": OrderAnswer,
        "vitals": Vitals,
        "answer": Answer,
    }
)
"""``Topic.what`` from the home to its payload."""

TO_HOME: Mapping[str, type[Struct]] = MappingProxyType(
    {"receipt": Receipt, "ack": Ack, "absence": Absence, "resync": Resync, "order": Order, "watch": Watch}
)
"""``Topic.what`` to the home to its payload."""

T = TypeVar("T", bound=Struct)


# --- bytes -------------------------------------------------------------------------------------------------


def encode(payload: Struct) -> bytes:
    """The bytes of a payload. Raises WireError above 60 KiB."""
    made = msgspec.json.encode(payload, enc_hook=_write_time)
    if len(made) > MAX_MADE_BYTES:
        raise WireError(f"{len(made)} bytes, and at most {MAX_MADE_BYTES} may be made; shorten its texts")
    return made


def rounded(value: float | None) -> float | None:
    """To 0.001, for numbers that people read; None for what is no number."""
    return None if value is None or not math.isfinite(value) else round(value, 3)


def decode(payload: bytes, type_: type[T]) -> T:
    """The payload as ``type_``. Raises WireError, which names the field, on anything else."""
    if len(payload) > MAX_READ_BYTES:
        raise WireError(f"{len(payload)} bytes, and at most {MAX_READ_BYTES} are read")
    try:
        found = msgspec.json.decode(payload, type=type_, dec_hook=_read_time)
        if type_.__struct_config__.tag is not None:
            msgspec.json.decode(payload, type=_Schema)
    except msgspec.ValidationError as error:
        raise WireError(_named(str(error))) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise WireError(f"not a JSON object in UTF-8: {error}") from error
    return found


def decode_number(payload: bytes) -> Number | None:
    """The number of a durable message, whatever else is wrong with it; None if none can be read."""
    try:
        return decode(payload, Number)
    except WireError:
        return None


class _Schema(Struct):
    schema: str


def _write_time(value: Any) -> Any:
    if isinstance(value, UtcTime):
        return iso_utc(value.utc_ms)
    raise NotImplementedError(f"{type(value)} has no form on the wire")


def _read_time(type_: type, value: Any) -> Any:
    if type_ is not UtcTime:
        raise NotImplementedError(f"{type_} has no form on the wire")
    if not isinstance(value, str):
        raise ValueError("Expected a time such as 2026-05-04T08:21:40.102Z")
    return UtcTime(parse_iso_utc(value))


_FOUND = re.compile(r"(?<=^Invalid )(?P<kept>[a-z ]+?):? ['\"].*$", re.DOTALL)
_PLACE = re.compile(r"^(?P<what>.*?)(?: - at `\$\.?(?P<place>[^`]*)`)?$", re.DOTALL)


def _named(sentence: str) -> str:
    match = _PLACE.match(sentence)
    assert match is not None
    # Not the value that was found: it may be anything, and the sentence goes to logs (mqtt page).
    what = _FOUND.sub(r"\g<kept>", match["what"]).replace("`", "")
    return f"{match['place'] or 'payload'}: {what}"


# --- alerts ------------------------------------------------------------------------------------------------


def digest(pairs: Iterable[tuple[str, int]]) -> str:
    """SHA-256 over (``alert_id``, ``rev``) of the open alerts: so a board knows whether it is complete."""
    lines = sorted(f"{alert_id}:{rev}\n".encode() for alert_id, rev in pairs)
    return hashlib.sha256(b"".join(lines)).hexdigest()


def alert_payload(alert: life.Alert, *, clock_synced: bool, boot: str, store: str, seq: int) -> bytes:
    """The message about an alert as it stands now, under its number of the lane ``alerts``."""
    answer = alert.acknowledged
    return encode(
        Alert(
            alert_id=alert.alert_id,
            rev=alert.rev,
            pump=alert.pump,
            kind=alert.kind,
            code=alert.code,
            state=alert.state,
            reason=alert.reason,
            priority=alert.priority,
            level=alert.level,
            urgency=alert.urgency,
            time=UtcTime(alert.time_utc_ms),
            since=None if alert.since_utc_ms is None else UtcTime(alert.since_utc_ms),
            raised=UtcTime(alert.raised_utc_ms),
            respond_within_s=alert.respond_within_s,
            clock=Clock.SYNCED if clock_synced else Clock.UNSYNCED,
            boot=boot,
            store=store,
            lane=Lane.ALERTS,
            seq=seq,
            expected_ml=rounded(alert.expected_ml),
            delivered_ml=rounded(alert.delivered_ml),
            message=alert.message,
            acknowledged=None
            if answer is None
            else Acknowledged(by=answer.by, at=UtcTime(answer.at_utc_ms), until=UtcTime(answer.until_utc_ms)),
        )
    )
