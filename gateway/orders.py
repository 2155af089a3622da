"""Orders that come over MQTT: whether one is accepted, and which one holds (MQTT page, ``order``).

Pure: the engine hands in what came and what is known of the pump's orders, and hands on what was decided.
When an accepted one takes force is the business of ``gateway/core/revision.py``.

Where the page says nothing: a copy of an order that was damaged on its way is ``hash_mismatch`` whatever its
version; version 0 is the file's, so an order with it is refused unless it is that very file. A version is too
low if one with a higher number was accepted, also if that one still waits. An order that has been judged is
known by pump, id, version and hash together: one with another content is judged, though its id be used again.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from enum import StrEnum
from hashlib import sha256

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from alerts import wire
from gateway.core.order import LONGEST_TEXT_BYTES, OrderError, OrderProblem, parse_order
from gateway.core.timeline import Instant
from gateway.core.versions import Orders, WaitingOrder

FILE_VERSION = 0
"""Of a prescription that the gateway was given as a file (MQTT page)."""
SHA256_LENGTH = 64
"""What of a hash that somebody sends is repeated."""
ANSWERS_WAITING_MAX = 8
"""Answers for one pump that may wait for the broker; the newest say how things are."""
_HEAD_IS_SOUGHT_IN = 1024 * 1024
_PROBLEMS_SHOWN = 3
_MESSAGE_LENGTH = 600
_SHORTEST_SECRET = 3
_PLAIN_KEY = re.compile(r"[a-z0-9_.\[\]]{1,64}|line [0-9]{1,6}")
_HARMLESS = re.compile(r"[0-9.:]*|([0-9.]+(d|h|min|s))+")


class OrderReason(StrEnum):
    """Why an order is refused."""

    INVALID = "invalid"
    VERSION_TOO_LOW = "version_too_low"
    VERSION_CONFLICT = "version_conflict"
    HASH_MISMATCH = "hash_mismatch"
    TOO_LARGE = "too_large"


class Outcome(StrEnum):
    """What becomes of an order."""

    ACCEPTED = "accepted"
    IGNORED = "ignored"
    """It is in force, or waits, already."""
    REFUSED = "refused"


class Judgement(Struct, frozen=True):
    """What becomes of an order, and why; ``message`` says what to do, and repeats nothing of its text."""

    outcome: Outcome
    reason: OrderReason | None = None
    message: str = ""


class Refusal(Struct, frozen=True):
    """An order that was refused."""

    request: str
    """Its fingerprint."""
    reason: OrderReason


class OrderHead(Struct, frozen=True, kw_only=True):
    """By what an order can be answered that is otherwise none."""

    id: wire.Name
    version: wire.Count
    sha256: str = ""


class KnownOrder(Struct, frozen=True, kw_only=True):
    """One version of a pump's order: an accepted one, or the file that the gateway was given."""

    version: int
    sha256: str
    text: str
    """prescription.toml. Never in a log: it names a drug and a patient by their tokens."""
    id: str | None = None
    """Of the message that brought it; ``None``: a file."""
    on_programming: bool = False
    effective_by_utc_ms: int | None = None
    """By the clock that the schedule was anchored with (``by_the_schedules_clock``)."""

    @property
    def is_file(self) -> bool:
        """Whether it was given as a file."""
        return self.version == FILE_VERSION


class PumpOrders(Struct, frozen=True, kw_only=True):
    """All that is kept of the orders of one pump over a restart."""

    in_force: KnownOrder | None = None
    waiting: KnownOrder | None = None
    """Accepted, and in force when the pump is set to it."""
    refused: Refusal | None = None
    """The newest: the broker may have kept it, and hands it out with each connection."""

    def versions(self) -> Orders:
        """As the monitor of the pump remembers them."""
        waiting = self.waiting
        return Orders(
            in_force=(self.in_force.text or None) if self.in_force else None,
            waiting=WaitingOrder(text=waiting.text, effective_by_utc_ms=waiting.effective_by_utc_ms)
            if waiting
            else None,
        )

    def with_force_taken(self) -> PumpOrders:
        """The one that waited is in force."""
        return replace(self, in_force=self.waiting, waiting=None)


def at_start(kept: PumpOrders, file: KnownOrder | None) -> PumpOrders:
    """What holds when the gateway starts: an accepted order wins over a file (gateway page)."""
    accepted = kept.in_force is not None and not kept.in_force.is_file
    return kept if accepted else replace(kept, in_force=file)


def fingerprint(pump: str, order: wire.Order) -> str:
    """By which an order that was judged is known again; of bounded length."""
    whole = "\n".join((pump, order.id, str(order.version), order.sha256))
    return f"order/{sha256(whole.encode('utf-8', 'surrogatepass')).hexdigest()[:32]}"


def fingerprint_of(pump: str, payload: bytes) -> str:
    """The same for what came in the place of an order and cannot be read."""
    return f"order/{sha256(pump.encode() + b' ' + payload).hexdigest()[:32]}"


def head(payload: bytes) -> OrderHead | None:
    """Of an order that cannot be read; ``None`` if not even that much can."""
    if len(payload) > _HEAD_IS_SOUGHT_IN:
        return None
    try:
        return msgspec.json.decode(payload, type=OrderHead)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def judge_unreadable(payload: bytes, error: wire.WireError) -> Judgement:
    """Why what came in the place of an order is refused."""
    if len(payload) > wire.MAX_READ_BYTES:
        words = f"the message has {len(payload)} bytes, and at most {wire.MAX_READ_BYTES} are read."
        return _refused(OrderReason.TOO_LARGE, f"{words} Shorten its prescription.")
    words = str(error)
    # A value that is quoted is not repeated.
    return _refused(OrderReason.INVALID, words if "'" not in words else "a field has a value that is none.")


def judge(order: wire.Order, known: PumpOrders) -> Judgement:
    """What becomes of an order that has come for a pump with these orders."""
    text = order.prescription.encode("utf-8", "surrogatepass")
    if len(text) > LONGEST_TEXT_BYTES:
        return _refused(
            OrderReason.TOO_LARGE,
            f"prescription has {len(text)} bytes, and at most {LONGEST_TEXT_BYTES} are possible: shorten it.",
        )
    if sha256(text).hexdigest() != order.sha256:
        return _refused(
            OrderReason.HASH_MISMATCH,
            "sha256 is not that of prescription: it was damaged on its way, or the hash is of another text."
            " Send it again, with the lowercase hex SHA-256 of its UTF-8 bytes.",
        )
    versions = [one for one in (known.in_force, known.waiting) if one is not None]
    if any((one.version, one.sha256) == (order.version, order.sha256) for one in versions):
        return Judgement(Outcome.IGNORED)
    if any(one.version == order.version for one in versions):
        return _refused(
            OrderReason.VERSION_CONFLICT,
            f"version {order.version} is known with another text: give the new text the next version.",
        )
    highest = max((one.version for one in versions), default=FILE_VERSION)
    if order.version <= highest:
        return _refused(
            OrderReason.VERSION_TOO_LOW,
            f"version is {order.version}, and must be above {highest}: give it the next version.",
        )
    try:
        parse_order(order.prescription)
    except OrderError as error:
        return _refused(OrderReason.INVALID, in_words(error, order.prescription))
    return Judgement(Outcome.ACCEPTED)


def accepted(order: wire.Order, instant: Instant, *, synced: bool) -> KnownOrder:
    """An order that was accepted, as it is kept. ``synced``: the wall clock can be trusted now."""
    by = order.effective_by
    waits = order.effective is wire.Effective.ON_PROGRAMMING
    return KnownOrder(
        version=order.version,
        sha256=order.sha256,
        text=order.prescription,
        id=order.id,
        on_programming=waits,
        effective_by_utc_ms=by_the_schedules_clock(by.utc_ms, instant, synced=synced)
        if waits and by is not None
        else None,
    )


def by_the_schedules_clock(utc_ms: int, instant: Instant, *, synced: bool) -> int:
    """A wall time from outside, on the clock that the schedule was anchored with.

    While the wall clock is trusted, that makes it a time so long after its arrival: no later step of the wall
    clock moves it. While it is not, the time is taken as it is, as the due times of a schedule are: it runs
    out by the schedule's clock, and if there is none yet, not before there is one.
    """
    if not synced or instant.schedule_utc_ms is None:
        return utc_ms
    return instant.schedule_utc_ms + utc_ms - instant.utc_ms


def _refused(reason: OrderReason, message: str) -> Judgement:
    return Judgement(Outcome.REFUSED, reason, message[:_MESSAGE_LENGTH])


def in_words(error: OrderError, text: str) -> str:
    """What is wrong with this order, for answers and logs: nothing of its texts is repeated."""
    secrets = _secrets(text)
    shown = [_problem_in_words(problem, secrets) for problem in error.problems[:_PROBLEMS_SHOWN]]
    more = len(error.problems) - len(shown)
    if more:
        shown.append(f"and {more} more: `dripwatch check` shows all.")
    return " ".join(shown)


def _problem_in_words(problem: OrderProblem, secrets: tuple[str, ...]) -> str:
    """One fault by its key. Values that are not plain numbers or times are not repeated: the answer stays
    with the broker, and the alert goes to others than the one who wrote the order.
    """
    key = problem.key if _PLAIN_KEY.fullmatch(problem.key) else "a key of it"
    message = problem.message
    if problem.key.startswith("line ") or problem.key == "file":
        message = message.partition(": ")[0]
    elif any(secret in message for secret in secrets):
        message = "has a value that is not possible; `dripwatch check` says more"
    return f"{key} {message}{'' if message.endswith('?') else '.'}"


def _secrets(text: str) -> tuple[str, ...]:
    """What an answer must not repeat: every text in the order, and every key that is no plain word."""
    try:
        values = tomllib.loads(text)
    except (ValueError, RecursionError):
        return ()
    found = {written[:40] for written in _texts(values)}
    found |= {repr(written)[1:41] for written in found}
    return tuple(one for one in found if len(one) >= _SHORTEST_SECRET and not _HARMLESS.fullmatch(one))


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            if not _PLAIN_KEY.fullmatch(key):
                yield key
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)
