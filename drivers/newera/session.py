"""The dialogue with the New Era pumps of one port: who are you, then rate and volume at every poll.

::

    opened ── VER ── SAF ──┐                 (each pump of the chain for itself)
                           ▼
    each poll:            RAT ── DIS ──┬────────────────────────────────► Reading
                           ▲           │
                           └───────────┴─ A?x: latched ─────────────────► Reading: the alarm alone, at once

Up to a hundred pumps listen to one line, each answers to its address, and one query is outstanding on the
whole line. The prompt comes with every reply, so a round of two queries says all that there is.

Polling changes the pump
========================

A pump tells an alarm once: the reply that tells it also acknowledges it, and the command itself is not
executed. Whoever polls takes the alarm away from everybody else. So an alarm is told the moment it is heard,
even if its reply comes too late or unasked, and stays active in every Reading, also after the port has been
opened again, until the pump says that it moves. This is why the driver's status is BENCH.

Stale data must never look fresh
================================

A reply does not name its query. What is sure is that a serial line keeps its order, that a reply bears the
address of its pump, and that the answers to our queries have forms that cannot be taken for each other:

1.  A query is owed its answer until the answer has come or ``TOO_LATE_MS`` has passed; then the name of the
    query is *in doubt* for that pump: an answer to it may still come. So is the name of an answer that came
    unasked.
2.  A name in doubt is not asked. First the pump is asked something else; its answer is the proof that no
    older one can follow, and ends all doubt.
3.  A pump that has left every proof unanswered is silent: it rests until nothing has been heard of it for
    ``LINE_EMPTY_AFTER_MS`` and is then asked again, once a rest. The other pumps are asked meanwhile, those
    that answer first.

An alarm and a refusal have no form of their own: they prove nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from msgspec import Struct

from drivers.family import LineSettings, PumpOnLine, can_be_polled
from drivers.framing import Cut, CutKind
from drivers.newera.codec import (
    HIGHEST_ADDRESS,
    QUERY_LINES,
    Dispensed,
    Prompt,
    Query,
    Rate,
    Reply,
    SafeMode,
    Unreadable,
    Value,
    Version,
    decode,
    encode,
    query_of,
    read,
    stream,
)
from drivers.reading import (
    DriverStatus,
    Evidence,
    Fact,
    FaultKind,
    LinkFault,
    PumpState,
    PumpTraits,
    Reading,
)

# How old an answer may be. No manual says how long a pump takes; clients wait for 1 to 2 s.
TOO_LATE_MS = 2_000
# After so long without a word from a pump none of its answers is on its way any more: five times the above,
# because a pump that is slower than anybody expects must not be asked faster than it answers either.
LINE_EMPTY_AFTER_MS = 10_000
# A reply that stops in its middle is given up after this. The manual gives the pump as much for its own side;
# at 300 baud, the slowest, a byte takes 33 ms.
GAP_MS = 500
# A pump that has waited for so long for the line comes before those that answer, else it would never be
# found; but only so often, or a hundred silent ones would keep the line from those that answer.
WAITS_AT_MOST_MS = 20_000
FAVOUR_EVERY_MS = 10_000
# An alarm leaves its command unexecuted, so the round begins again; should a pump say nothing but alarms, the
# next poll is soon enough.
ALARMS_IN_A_ROUND = 2

_WHO = (Query.VERSION, Query.SAFE_MODE)
_ROUND = (Query.RATE, Query.DISPENSED)
_PROOFS = (Query.VERSION, Query.DISPENSED, Query.RATE)
"""``SAF`` is not among them: with a digit too many it would switch Safe mode on, so it is asked once."""
_MOVING = (Prompt.INFUSING, Prompt.WITHDRAWING, Prompt.PURGING)
_FACTORY_ADDRESS = 0
_NO_VALUE_NOW = ("NA", "IGN")
"""Refusals of ``RAT`` that are quite in order: the phase has no rate, or a new one began just then."""
_IS_IN_SAFE_MODE = (
    "is in Safe mode, which this driver neither enters nor leaves: it stops if its program does"
)
_MOST_LATCHED = 8

STATES = {
    Prompt.INFUSING: PumpState.RUNNING,
    # It moves, and delivers nothing: no word of readings.csv says so.
    Prompt.WITHDRAWING: PumpState.UNKNOWN,
    Prompt.STOPPED: PumpState.IDLE,
    Prompt.PAUSED: PumpState.PAUSED,
    Prompt.TIMED_PAUSE: PumpState.PAUSED,
    Prompt.WAITING: PumpState.STANDBY,
    Prompt.PURGING: PumpState.PRIMING,
}
"""The pump's prompt in the words of readings.csv."""

ALARMS = {
    "R": "vendor:reset",
    # Occlusion, end of travel or too much force: the pump does not know which, so neither do we.
    "S": "vendor:stalled",
    "T": "vendor:safe_mode_timeout",
    "E": "vendor:program_error",
    "O": "vendor:program_phase",
}
"""The pump's alarms by their type; another type is ``vendor:`` and its letter."""


class _Pump:
    """What is known of one pump of the line."""

    def __init__(self, pump: PumpOnLine, address: int) -> None:
        self.pump = pump
        self.address = address
        self.latched: tuple[str, ...] = ()
        self.opened(now_ms=0)

    def opened(self, now_ms: int) -> None:
        """Forget everything but the alarms, which the pump would not say again."""
        self.to_ask: deque[Query] = deque()
        self.is_identified = False
        self.answers = False
        """It has answered since it was silent, or since the port was opened."""
        self.is_silent = False
        self.in_doubt: set[Query] = set()
        self.round_at_ms = now_ms
        self.round_began_ms = now_ms
        self.rests_until_ms = now_ms
        self.alarms_in_round = 0
        self.rate: Rate | None = None
        self.rate_prompt: Prompt | None = None
        self.told: set[str] = set()

    def wakes_ms(self) -> int:
        """When it is to be asked something, if the line is free."""
        if self.is_silent:
            return max(self.round_at_ms, self.rests_until_ms)
        return self.round_began_ms if self.to_ask else self.round_at_ms

    def begin_round(self, now_ms: int) -> None:
        """Put down what is to be asked in this round."""
        who = () if self.is_identified else _WHO
        self.to_ask = deque((*_ROUND, *who) if self.is_silent else (*who, *_ROUND))
        self.alarms_in_round = 0
        self.round_began_ms = now_ms
        self.round_at_ms = self.pump.next_poll_ms(self.round_at_ms, now_ms)

    def is_answering(self) -> None:
        """It has answered what it was asked."""
        self.is_silent = False
        self.answers = True

    def ask_again(self, query: Query) -> None:
        """This query got no answer that can be used. Rate and volume are always asked one after the other."""
        who = [waiting for waiting in (query, *self.to_ask) if waiting is Query.SAFE_MODE]
        self.to_ask = deque((*_ROUND, *who) if query is not Query.SAFE_MODE else _ROUND)

    @property
    def has_no_proof(self) -> bool:
        """Whether an old answer could be taken for a new one whatever is asked."""
        return self.in_doubt.issuperset(_PROOFS)

    def rest(self, now_ms: int) -> None:
        """Nothing is asked until none of its answers can be on its way."""
        self.to_ask.clear()
        self.is_silent = True
        self.answers = False
        self.is_identified = False
        self.rests_until_ms = now_ms + LINE_EMPTY_AFTER_MS

    def latch(self, alarm: str) -> bool:
        """Keep an alarm until the pump moves; whether it is a new one."""
        if alarm in self.latched or len(self.latched) >= _MOST_LATCHED:
            return False
        self.latched += (alarm,)
        return True


class _Asked(Struct, frozen=True, kw_only=True):
    """The one query that is owed its answer."""

    pump: _Pump
    query: Query
    is_proof: bool
    too_late_ms: int


def _turn(pump: _Pump) -> tuple[bool, bool]:
    """Those that answer come first, and of them the one whose round is under way and free of doubt."""
    return not pump.answers, not pump.to_ask or bool(pump.in_doubt)


class NewEraSession:
    """One dialogue with the pumps of one line (see the head of this file)."""

    def __init__(self, pumps: Sequence[tuple[PumpOnLine, int]]) -> None:
        self._pumps = {address: _Pump(pump, address) for pump, address in pumps}
        self.opened(now_ms=0)

    def opened(self, now_ms: int) -> None:
        """The port has (again) been opened: forget every half-heard word and ask who is there."""
        self._now_ms = now_ms
        self._stream = stream()
        self._heard_ms = now_ms
        self._asked: _Asked | None = None
        self._facts: list[Fact] = []
        self._favour_at_ms = now_ms
        self._queue = deque(self._pumps.values())
        for pump in self._pumps.values():
            pump.opened(now_ms)

    def receive(self, data: bytes, now_ms: int) -> Sequence[Fact]:
        """Take bytes that have just arrived; return what they say, and what time without an answer says."""
        self._now_ms = now_ms
        self._give_up_in_time()
        if data:
            self._heard_ms = now_ms
        for cut in self._stream.feed(data):
            self._hear(cut)
        facts, self._facts = self._facts, []
        return facts

    def due(self, now_ms: int) -> bytes:
        """The query to send now; ``b""`` if none is to be sent."""
        self._now_ms = now_ms
        self._give_up_in_time()
        if self._asked is not None:
            return b""
        pump = self._next_pump()
        if pump is None:
            return b""
        if pump.is_silent:
            # It has rested: nothing old can come.
            pump.in_doubt.clear()
        if not pump.to_ask:
            pump.begin_round(now_ms)
        is_proof = pump.to_ask[0] in pump.in_doubt
        if is_proof:
            query = next(query for query in _PROOFS if query not in pump.in_doubt)
        else:
            query = pump.to_ask.popleft()
        self._asked = _Asked(pump=pump, query=query, is_proof=is_proof, too_late_ms=now_ms + TOO_LATE_MS)
        return encode(pump.address, query)

    def next_due_ms(self) -> int:
        """When ``due`` has something to do if nothing arrives before."""
        if self._asked is not None:
            next_ms = self._asked.too_late_ms
        else:
            next_ms = min(pump.wakes_ms() for pump in self._queue)
        return min(next_ms, self._heard_ms + GAP_MS) if self._stream.buffered_bytes else next_ms

    # Asking

    def _next_pump(self) -> _Pump | None:
        """The pump whose turn it is."""
        for pump in self._queue:
            if pump.has_no_proof and not pump.is_silent:
                pump.rest(self._now_ms)
        waiting = [pump for pump in self._queue if pump.wakes_ms() <= self._now_ms]
        if self._now_ms >= self._favour_at_ms:
            for pump in waiting:
                if self._now_ms - pump.wakes_ms() >= WAITS_AT_MOST_MS:
                    self._favour_at_ms = self._now_ms + FAVOUR_EVERY_MS
                    return pump
        return min(waiting, key=_turn, default=None)

    def _had_its_turn(self, pump: _Pump) -> None:
        self._queue.remove(pump)
        self._queue.append(pump)

    def _give_up_in_time(self) -> None:
        if self._stream.buffered_bytes and self._now_ms >= self._heard_ms + GAP_MS:
            for cut in self._stream.flush():
                self._hear(cut)
        asked = self._asked
        if asked is None or self._now_ms < asked.too_late_ms:
            return
        self._asked = None
        asked.pump.in_doubt.add(asked.query)
        if asked.pump.is_silent or asked.pump.has_no_proof:
            asked.pump.rest(self._now_ms)
        else:
            asked.pump.ask_again(asked.query)
        self._had_its_turn(asked.pump)

    # Hearing

    def _hear(self, cut: Cut) -> None:
        if cut.kind is not CutKind.FRAME:
            self._fault(FaultKind.GARBLED, cut.data, cut.why)
            return
        reply = decode(cut.data)
        if isinstance(reply, Unreadable):
            self._fault(reply.kind, cut.data, reply.detail)
            return
        pump = self._pumps.get(reply.address)
        if pump is None:
            detail = f"pump {reply.address} answered, which is not set on this port"
            self._fault(FaultKind.UNEXPECTED, cut.data, detail)
            return
        if reply.is_safe:
            self._tell_once(pump, cut.data, _IS_IN_SAFE_MODE)
        if pump.is_silent:
            # Of what it was asked before more may follow.
            pump.rests_until_ms = self._now_ms + LINE_EMPTY_AFTER_MS
        asked = self._asked if self._asked is not None and self._asked.pump is pump else None
        if reply.alarm is not None:
            self._hear_alarm(pump, asked, reply, cut.data)
        elif asked is None:
            self._hear_unasked(pump, reply, cut.data, "nothing was asked of it, or too long ago")
        elif reply.error is not None:
            self._hear_refusal(asked, reply, reply.error, cut.data)
        else:
            value = read(asked.query, reply.data)
            if value is None:
                self._hear_unasked(pump, reply, cut.data, f"{asked.query} was asked")
            else:
                self._hear_answer(asked, reply, value, cut.data)

    def _hear_unasked(self, pump: _Pump, reply: Reply, frame: bytes, why: str) -> None:
        name = query_of(reply.data)
        if name is not None:
            pump.in_doubt.add(name)
        kind = FaultKind.UNSUPPORTED if name is None and reply.data else FaultKind.UNEXPECTED
        self._fault(kind, frame, f"{name or reply.data[:20]!r} came from pump {pump.address}; {why}")

    def _hear_alarm(self, pump: _Pump, asked: _Asked | None, reply: Reply, frame: bytes) -> None:
        assert reply.alarm is not None, "only an alarm is heard here"
        is_new = pump.latch(ALARMS.get(reply.alarm, f"vendor:{reply.alarm}"))
        if asked is None and not reply.is_safe:
            self._fault(FaultKind.UNEXPECTED, frame, f"an alarm came unasked from pump {pump.address}")
        if asked is not None or is_new:
            self._say(pump, PumpState.ALARM)
        if asked is None or reply.is_safe:
            # What a pump in Safe mode says of its own accord is no answer, and the query stays open. Should
            # it be one, the time-out ends it.
            return
        self._asked = None
        pump.is_answering()
        pump.in_doubt.add(asked.query)
        pump.alarms_in_round += 1
        if pump.alarms_in_round > ALARMS_IN_A_ROUND:
            pump.to_ask.clear()
        elif asked.query in _WHO and not asked.is_proof:
            pump.to_ask.appendleft(asked.query)
        else:
            pump.ask_again(asked.query)
        if not pump.to_ask:
            self._had_its_turn(pump)

    def _hear_refusal(self, asked: _Asked, reply: Reply, error: str, frame: bytes) -> None:
        pump = asked.pump
        had_doubt = bool(pump.in_doubt)
        self._asked = None
        pump.is_answering()
        pump.in_doubt.add(asked.query)
        if asked.query is not Query.RATE or error not in _NO_VALUE_NOW:
            kind = FaultKind.GARBLED if error == "COM" else FaultKind.UNSUPPORTED
            self._fault(kind, frame, f"pump {pump.address} answered ?{error[:10]} to {asked.query}")
        if asked.is_proof:
            return
        if asked.query is Query.VERSION:
            pump.is_identified = True
        elif asked.query is Query.RATE:
            pump.rate, pump.rate_prompt = None, reply.prompt
        elif asked.query is Query.DISPENSED and not had_doubt and reply.prompt is not None:
            self._say_round(pump, reply.prompt, None)
        if not pump.to_ask:
            self._had_its_turn(pump)

    def _hear_answer(self, asked: _Asked, reply: Reply, value: Value, frame: bytes) -> None:
        assert reply.prompt is not None, "what is no alarm has a prompt"
        pump = asked.pump
        self._asked = None
        pump.is_answering()
        # The line keeps its order: all that was asked before it has been answered before it, or never.
        pump.in_doubt.clear()
        if reply.prompt in _MOVING:
            pump.latched = ()
        match value:
            case Version():
                pump.is_identified = True
            case SafeMode(timeout_s=timeout_s):
                if timeout_s:
                    words = f"{_IS_IN_SAFE_MODE}; its time-out is {timeout_s} s"
                    self._tell_once(pump, frame, words)
            case Rate() if not asked.is_proof:
                self._tell_not_understood(value.not_understood, frame)
                pump.rate, pump.rate_prompt = value, reply.prompt
            case Dispensed() if not asked.is_proof:
                self._tell_not_understood(value.not_understood, frame)
                self._say_round(pump, reply.prompt, value.infused_ml)
        if not pump.to_ask:
            self._had_its_turn(pump)

    # Saying

    def _say_round(self, pump: _Pump, prompt: Prompt, volume_ml: float | None) -> None:
        # While it does not infuse, a pump answers RAT with a setting, which is no rate of delivery.
        infuses = prompt is Prompt.INFUSING and pump.rate_prompt is Prompt.INFUSING
        rate_ml_h = pump.rate.rate_ml_h if infuses and pump.rate is not None else None
        pump.rate = pump.rate_prompt = None
        self._say(pump, STATES[prompt], rate_ml_h=rate_ml_h, volume_ml=volume_ml)

    def _say(
        self,
        pump: _Pump,
        state: PumpState,
        *,
        rate_ml_h: float | None = None,
        volume_ml: float | None = None,
    ) -> None:
        reading = Reading(
            pump=pump.pump.pump,
            at_ms=self._now_ms,
            state=state,
            rate_ml_h=rate_ml_h,
            volume_ml=volume_ml,
            alarms=pump.latched,
        )
        self._facts.append(reading)

    def _tell_once(self, pump: _Pump, frame: bytes, words: str) -> None:
        if words not in pump.told:
            pump.told.add(words)
            self._fault(FaultKind.UNSUPPORTED, frame, f"pump {pump.address} {words}")

    def _tell_not_understood(self, words: str, frame: bytes) -> None:
        if words:
            self._fault(FaultKind.UNSUPPORTED, frame, words)

    def _fault(self, kind: FaultKind, data: bytes, detail: str) -> None:
        self._facts.append(LinkFault.of(self._now_ms, kind, data, detail))


class NewEraFamily:
    """New Era NE-1000 and relatives on RS-232, one alone or up to a hundred in a daisy chain."""

    traits = PumpTraits(
        family="newera",
        title="New Era NE-1000 family (WPI Aladdin AL-1000) bench syringe pumps",
        reports=("state", "rate_ml_h", "volume_ml", "alarms"),
        states=(*dict.fromkeys(STATES.values()), PumpState.ALARM),
        alarms=("vendor:",),
        counter_ml=0.01,
        pressure_unit=None,
        evidence=Evidence.VENDOR_DOCUMENT,
        status=DriverStatus.BENCH,
        notes=(
            "A laboratory pump, not made for patients: never at a patient.",
            "Reading it acknowledges its alarms: nobody else on the line is told them afterwards.",
            "So an alarm is kept here until the pump runs again; a restart of the gateway forgets it.",
            "Never compared with the display of a real pump.",
            "Probable: how numbers are printed; that is known from other people's code.",
            "Stalled can be an occlusion, the end of travel or too much force: the pump does not know which.",
            "After power-up it says once that it was reset, and that stays until it runs.",
            "The rate is reported only while the pump infuses: else it would be a setting.",
            "The volume is what was infused; it is cleared by hand and by another diameter of syringe.",
            "The counter has four digits: 0.01 mL from 10 mL on, 0.1 mL from 100 mL, 1 mL from 1000 mL.",
            "While it withdraws the state is unknown, and what it has withdrawn is not reported.",
            "Pressure, battery, serial number and what remains to be infused are not reported.",
            "Basic mode has no checksum: a digit that the line changes cannot be seen. Keep the cable short.",
            "The pump may stay in Safe mode only if its own program keeps it alive: this driver does not.",
            "An address that does not answer costs its chain 6 s at first, and then 2 s in 12 s when idle.",
            "Peristaltic NE-9000: only mL/min and mL are read.",
        ),
    )
    line = LineSettings(baud=19_200, bauds=(300, 1_200, 2_400, 9_600))

    def may_send(self, data: bytes) -> bool:
        """Whether ``data`` is one of the four queries to an address: no argument is ever among them."""
        return data in QUERY_LINES

    def open_session(self, pumps: Sequence[PumpOnLine]) -> NewEraSession:
        """A dialogue with the pumps of one line. Raises ValueError for none, and for impossible addresses."""
        if not pumps:
            raise ValueError("a newera port needs at least one pump")
        placed: list[tuple[PumpOnLine, int]] = []
        for pump in pumps:
            address = pump.address
            if address is None and len(pumps) > 1:
                raise ValueError(f"pump {pump.pump}: each of several newera pumps needs an `address`")
            if address is not None and not 0 <= address <= HIGHEST_ADDRESS:
                raise ValueError(
                    f"pump {pump.pump}: newera addresses go from 0 to {HIGHEST_ADDRESS}, not {address}"
                )
            can_be_polled(pump)
            if any(address == other for _, other in placed):
                raise ValueError(f"pump {pump.pump}: address {address} is set twice on this port")
            placed.append((pump, _FACTORY_ADDRESS if address is None else address))
        return NewEraSession(placed)
