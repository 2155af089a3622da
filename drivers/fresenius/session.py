"""The dialogue with all Fresenius pumps of one port: a base with up to five modules, or one pump alone.

::

    opened ── 0DC ── 1 s ── 0LE;b ──┐          (a stand-alone pump has no base: its own DC comes at once)
                                    ▼
    each pump in its turn:  [DC] [AE] [LE;d or LE;r, as a proof] LE;dr [LE;d] [LE;r, in doubt] ──► Reading

    at any time:  ENQ ──► DC4 before all else     frame ──► ACK, or NAK 2     E message ──► ACK, address and E

One command is outstanding on the whole line; the pumps have their turns one after the other, the one that
waits longest first. Nothing that a session writes changes a pump. Asking (LE) is preferred to subscribing
(DE): a pump speaks of its own accord only when a value changes, and forgets its subscriptions when it
restarts; the silence of a subscribed pump may mean that nothing changed, or that nobody will ever say so. An
answer to a question is as old as the question at most. Messages that somebody else has subscribed to are
acknowledged, are no Readings, and are asked to end (AE).

Stale data must never look fresh
================================

An answer does not say to which command it belongs; but it bears its address and the letters of its values,
and a serial line keeps its order.

1.  A command that got no answer within ``REPEAT_AFTER_MS`` is repeated once; what comes later than
    ``TOO_LATE_MS`` after the first time is unexpected and no Reading. The line is then free for the others,
    for an answer bears its address; the silent pump itself is not asked again until its answer came after
    all, or nothing can be on its way any more (``LINE_EMPTY_AFTER_MS``). As long as it is silent it is not
    repeated and waited for a second only, so that four silent pumps delay the fifth by four seconds.
2.  If more answers than one may come to LE;dr (it was repeated, it was never answered, or something came that
    nobody had asked for), LE;d or LE;r, in turn, is asked before it. Its answer bears one letter only, and
    so it is the proof that no answer to an older LE;dr can follow.
3.  A Reading is made of one LE;dr, and is not told if more than ``TOO_OLD_MS`` passed since it was asked.

A jump needs a second reading
=============================

The checksum does not see two digits that changed places. A rate that is not the last one, or a volume that
did not come from the last one at about that rate, is asked for once more, alone, at once; only when the pump
says it again it is believed. Ordinary readings are told without delay.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from msgspec import Struct, structs

from drivers.family import LineSettings, PumpOnLine, can_be_polled
from drivers.framing import Cut, CutKind
from drivers.fresenius.codec import (
    ACK,
    BASE,
    DC4,
    ENQ,
    MODULES,
    NAK_CHECKSUM,
    NOT_ACKNOWLEDGED,
    REFUSED,
    Address,
    Answer,
    Command,
    NotAcknowledged,
    Refusal,
    Spontaneous,
    Unreadable,
    decode,
    encode,
    encode_seen,
    is_harmless,
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
    state_by_rate,
)

# When a command without an answer is repeated, once. The client that is known to work waits so long (2 s in
# early versions); a reply of 25 characters takes 13 ms on the wire.
REPEAT_AFTER_MS = 1_000
# From when on an answer is too old: a second more than that client waits for its repeated command.
TOO_LATE_MS = 3_000
# How long a pump is waited for that did not answer the last time: the others wait behind it.
TOO_LATE_OF_A_SILENT_MS = 1_000
# After so long without an answer none is on its way any more. Two and a half times as long as that client
# ever waits for an answer and its repetition together; the pumps promise nothing.
LINE_EMPTY_AFTER_MS = 5_000
# When a receiver that was not ready is asked again.
NOT_READY_AGAIN_AFTER_MS = 100
# After the base has been opened (vendor's document, quoted in a client).
BASE_OPENS_IN_MS = 1_000
# How often the base is asked again which modules it has, while one is missing. That client does so.
MODULES_EVERY_MS = 5_000
# If nobody on the line has answered for so long, the base may have been restarted: all is opened again.
LINE_SILENT_AFTER_MS = 10_000
# The oldest that the numbers of a Reading may be, counted from when they were asked for.
TOO_OLD_MS = 4_000
# What a new value is compared with may not be older.
BELIEVED_FOR_MS = 60_000
# What a volume may have gained beyond the last rate before it is asked for again.
VOLUME_MARGIN_ML = 0.05
RATE_MARGIN = 1.25
# The highest that a pump may deliver while its volume is asked for twice, a bolus included; and the step of
# a plunger.
HIGHEST_RATE_ML_H = 1_500.0
HIGHEST_STEP_ML = 0.5
# How often in one turn numbers are asked for again that the pump did not confirm.
DOUBTS_LIMIT = 2

_ANSWER_LETTERS = {
    Command.OPEN: "",
    Command.UNSUBSCRIBE: "",
    Command.MODULES: "b",
    Command.RATE: "d",
    Command.VOLUME: "r",
    Command.RATE_AND_VOLUME: "dr",
}
_BASE_NOT_OPEN = "0D"
_MODULE_NOT_OPEN = "1E"
_MODULE_IMPOSSIBLE = "0E"
# The first version of the table of errors has this code for a session that is open already.
_ALREADY_OPEN = "1F"
_NOT_READY = "6"
_DAMAGED_ON_THE_WAY = ("1", "2", "7", "8")
_REPEATED = ("5", _NOT_READY, *_DAMAGED_ON_THE_WAY)
# More than this many in one piece is noise, and need not be answered.
_OWED_LIMIT = 16
_LINE_CHECKS_LIMIT = 8
_NEVER_MS = 1 << 62
_MS_PER_H = 3_600_000


class _Asked(Struct, frozen=True, kw_only=True):
    """The one command that is owed its answer."""

    address: Address
    command: Command
    sent_ms: int
    """When it was first sent."""
    too_late_ms: int
    again_ms: int | None
    """When to repeat it; ``None``: not any more."""
    times_sent: int = 1


class _Numbers(Struct, frozen=True, kw_only=True):
    """What one LE;dr said."""

    at_ms: int
    rate_ml_h: float | None
    volume_ml: float | None
    asked_ms: int


class _Unit:
    """A pump of the line, or its base, as we know it."""

    def __init__(self, address: Address, pump: PumpOnLine | None, now_ms: int) -> None:
        self.address = address
        self.pump = pump
        self.is_open = False
        self.due_ms = now_ms
        self.not_before_ms = now_ms
        self.is_silent = False
        self.reopening = False
        """Its turn is to be had again because the base was not open."""
        self.older_may_come = False
        self.unsubscribe = False
        self.proofs = deque((Command.RATE, Command.VOLUME))
        self.believed: _Numbers | None = None

    @property
    def waits_since_ms(self) -> int:
        """From when on it is its turn."""
        return max(self.due_ms, self.not_before_ms)


class _Turn:
    """What is still to be said to one of them before the next has its turn."""

    def __init__(self, unit: _Unit, steps: Sequence[Command], now_ms: int) -> None:
        self.unit = unit
        self.steps = deque(steps)
        self.not_before_ms = now_ms
        self.opened_again = False
        self.numbers: _Numbers | None = None
        """What is to be confirmed."""
        self.doubts = 0


class FreseniusSession:
    """One dialogue with all pumps of one port (see the head of this file)."""

    def __init__(self, pumps: Sequence[PumpOnLine]) -> None:
        self._pumps = tuple(pumps)
        self.opened(now_ms=0)

    def opened(self, now_ms: int) -> None:
        """The port has (again) been opened: forget every half-heard word and open the base or the pump."""
        self._now_ms = now_ms
        self._silent_since_ms: int | None = None
        self._stream = stream()
        self._facts: list[Fact] = []
        self._line_checks = 0
        self._owed: list[bytes] = []
        self._asked: _Asked | None = None
        self._turn: _Turn | None = None
        self._units = {pump.address: _Unit(pump.address, pump, now_ms) for pump in self._pumps}
        self._base = None if None in self._units else _Unit(BASE, None, now_ms)
        self._absent: frozenset[Address] = frozenset()

    def receive(self, data: bytes, now_ms: int) -> Sequence[Fact]:
        """Take bytes that have just arrived; return what they say, and what time without an answer says."""
        self._now_ms = now_ms
        # Wherever it stands, also in a frame that is not complete: the answer may not wait for the rest.
        self._line_checks = min(self._line_checks + data.count(ENQ), _LINE_CHECKS_LIMIT)
        self._give_up_in_time()
        for cut in self._stream.feed(data):
            self._hear(cut)
        facts, self._facts = self._facts, []
        return facts

    def due(self, now_ms: int) -> bytes:
        """What to send now: answers to line checks, then what is owed to the frames heard, then a command."""
        self._now_ms = now_ms
        self._give_up_in_time()
        line = DC4 * self._line_checks + b"".join(self._owed)
        self._line_checks = 0
        self._owed = []
        return line + self._command()

    def next_due_ms(self) -> int:
        """When ``due`` has something to do if nothing arrives before."""
        if self._line_checks or self._owed:
            return self._now_ms
        asked = self._asked
        if asked is not None:
            return asked.too_late_ms if asked.again_ms is None else min(asked.again_ms, asked.too_late_ms)
        if self._turn is not None:
            return self._turn.not_before_ms
        return min(unit.waits_since_ms for unit in self._who_may_have_a_turn())

    # Asking

    def _command(self) -> bytes:
        asked = self._asked
        if asked is not None:
            return self._ask_again(asked)
        if self._turn is None:
            self._begin_turn()
        turn = self._turn
        if turn is None or self._now_ms < turn.not_before_ms:
            return b""
        command = turn.steps.popleft()
        silent = turn.unit.is_silent
        self._asked = _Asked(
            address=turn.unit.address,
            command=command,
            sent_ms=self._now_ms,
            too_late_ms=self._now_ms + (TOO_LATE_OF_A_SILENT_MS if silent else TOO_LATE_MS),
            again_ms=None if silent else self._now_ms + REPEAT_AFTER_MS,
        )
        return encode(turn.unit.address, command)

    def _ask_again(self, asked: _Asked) -> bytes:
        if asked.again_ms is None or self._now_ms < asked.again_ms:
            return b""
        self._asked = structs.replace(asked, again_ms=None, times_sent=asked.times_sent + 1)
        self._asked_unit(asked).older_may_come = True
        return encode(asked.address, asked.command)

    def _who_may_have_a_turn(self) -> list[_Unit]:
        if self._base is None:
            return list(self._units.values())
        if not self._base.is_open:
            return [self._base]
        present = [unit for address, unit in self._units.items() if address not in self._absent]
        return [self._base, *present]

    def _begin_turn(self) -> None:
        unit = min(self._who_may_have_a_turn(), key=lambda unit: unit.waits_since_ms)
        if unit.waits_since_ms > self._now_ms:
            return
        if unit.pump is None:
            # What follows its opening says when it is to be asked again.
            unit.due_ms = _NEVER_MS
            steps = [Command.MODULES] if unit.is_open else [Command.OPEN, Command.MODULES]
        else:
            unit.due_ms = unit.pump.next_poll_ms(unit.due_ms, self._now_ms)
            steps = [] if unit.is_open else [Command.OPEN]
            if unit.unsubscribe:
                unit.unsubscribe = False
                steps.append(Command.UNSUBSCRIBE)
            if unit.older_may_come:
                steps.append(unit.proofs[0])
                unit.proofs.rotate()
            steps.append(Command.RATE_AND_VOLUME)
        self._turn = _Turn(unit, steps, self._now_ms)

    def _end_turn(self) -> None:
        turn, self._turn = self._turn, None
        assert turn is not None, "only a turn that began ends"
        base = self._base
        if turn.unit is not base or base is None:
            return
        if not base.is_open or self._absent:
            base.due_ms = self._now_ms + MODULES_EVERY_MS
        else:
            base.due_ms = _NEVER_MS

    def _asked_unit(self, asked: _Asked) -> _Unit:
        unit = self._unit(asked.address)
        assert unit is not None, "only who is on the line is asked"
        return unit

    def _unit(self, address: Address) -> _Unit | None:
        return self._base if address == BASE else self._units.get(address)

    def _give_up_in_time(self) -> None:
        asked = self._asked
        if asked is None or self._now_ms < asked.too_late_ms:
            return
        self._asked = None
        unit = self._asked_unit(asked)
        unit.is_silent = True
        unit.older_may_come = True
        unit.not_before_ms = self._now_ms + LINE_EMPTY_AFTER_MS
        for cut in self._stream.flush():
            self._hear(cut)
        self._end_turn()
        if not unit.is_open:
            unit.due_ms = min(unit.due_ms, unit.not_before_ms)
        if self._silent_since_ms is None:
            self._silent_since_ms = asked.sent_ms
        if self._now_ms - self._silent_since_ms >= LINE_SILENT_AFTER_MS:
            self._silent_since_ms = None
            self._close_all()

    def _close_all(self) -> None:
        """Nobody's session is open any more, as far as we know."""
        for unit in self._units.values():
            unit.is_open = False
        self._absent = frozenset()
        if self._base is not None and self._base.is_open:
            self._base.is_open = False
            self._base.due_ms = self._now_ms

    # Hearing

    def _hear(self, cut: Cut) -> None:
        if cut.kind is not CutKind.FRAME:
            self._fault(FaultKind.GARBLED, cut.data, cut.why)
            return
        match decode(cut.data):
            case Unreadable(kind=kind, detail=detail):
                self._owe(NAK_CHECKSUM if kind is FaultKind.GARBLED else ACK)
                self._fault(kind, cut.data, detail)
            case NotAcknowledged(reason=reason):
                self._hear_not_acknowledged(reason, cut.data)
            case Spontaneous(address=address, letter=letter):
                self._hear_spontaneous(address, letter, cut.data)
            case Answer() as answer:
                self._owe(ACK)
                self._hear_answer(answer, cut.data)
            case Refusal() as refusal:
                self._owe(ACK)
                self._hear_refusal(refusal, cut.data)
            case _:
                # An acknowledgement, a line check (already seen), an empty frame: nothing more to be done.
                pass

    def _owe(self, data: bytes) -> None:
        if len(self._owed) < _OWED_LIMIT:
            self._owed.append(data)

    def _hear_not_acknowledged(self, reason: str, data: bytes) -> None:
        asked = self._asked
        again = asked is not None and asked.times_sent == 1 and reason in _REPEATED
        if not again or reason != _NOT_READY:
            why = NOT_ACKNOWLEDGED.get(reason, f"reason {reason!r}")
            kind = FaultKind.GARBLED if reason in _DAMAGED_ON_THE_WAY else FaultKind.UNEXPECTED
            self._fault(kind, data, f"the pump did not take our frame: {why}")
        if asked is None:
            return
        if again:
            after_ms = NOT_READY_AGAIN_AFTER_MS if reason == _NOT_READY else 0
            self._asked = structs.replace(asked, again_ms=self._now_ms + after_ms)
        else:
            self._asked = None
            self._end_turn()

    def _hear_spontaneous(self, address: Address, letter: str, frame: bytes) -> None:
        self._owe(ACK)
        unit = self._unit(address)
        detail = f"{letter} message from {_named(address)}, and nothing was subscribed"
        if unit is not None:
            self._owe(encode_seen(address, letter))
            unit.unsubscribe = unit.pump is not None
        self._fault(FaultKind.UNEXPECTED, frame, detail)

    def _hear_answer(self, answer: Answer, frame: bytes) -> None:
        asked = self._asked
        if (
            asked is None
            or answer.address != asked.address
            or "".join(sorted(answer.letters)) != _ANSWER_LETTERS[asked.command]
        ):
            self._unexpected(answer.address, f"an answer with {answer.letters!r}", frame)
            return
        turn = self._exchanged()
        match asked.command:
            case Command.OPEN:
                self._opened(turn)
            case Command.MODULES:
                self._answered_modules(answer, frame)
            case Command.RATE | Command.VOLUME:
                turn.unit.older_may_come = False
                if turn.numbers is not None:
                    self._answered_in_doubt(asked.command, answer, turn.numbers, turn, frame)
            case Command.RATE_AND_VOLUME:
                self._answered_numbers(answer, asked, turn, frame)
        self._go_on(turn)

    def _exchanged(self) -> _Turn:
        """The command that was asked has had its answer."""
        turn = self._turn
        assert turn is not None, "nothing is asked outside a turn"
        self._asked = None
        self._silent_since_ms = None
        turn.unit.is_silent = False
        return turn

    def _go_on(self, turn: _Turn) -> None:
        if self._turn is turn and not turn.steps:
            self._end_turn()

    def _unexpected(self, address: Address, what: str, frame: bytes) -> None:
        """Something that answers nothing: too late, twice, or by another."""
        unit = self._unit(address)
        if unit is not None:
            # So it is there, and what it owed for longest has come.
            self._silent_since_ms = None
            unit.is_silent = False
            unit.older_may_come = True
            unit.not_before_ms = self._now_ms
        asked = self._asked
        waiting = (
            "nothing was asked"
            if asked is None
            else f"{_named(asked.address)} was asked {asked.command.value}"
        )
        self._fault(FaultKind.UNEXPECTED, frame, f"{what} came from {_named(address)}, {waiting}")

    def _opened(self, turn: _Turn) -> None:
        turn.unit.is_open = True
        if turn.unit is self._base:
            turn.not_before_ms = self._now_ms + BASE_OPENS_IN_MS
            for unit in self._units.values():
                unit.is_open = False

    def _answered_modules(self, answer: Answer, frame: bytes) -> None:
        try:
            absent = frozenset(self._units) - frozenset(answer.modules)
        except ValueError as problem:
            # Then all are asked: to believe that one is missing takes more than an answer we cannot read.
            self._absent = frozenset()
            self._fault(FaultKind.UNSUPPORTED, frame, str(problem))
            return
        for address in sorted(absent - self._absent, key=str):
            self._fault(FaultKind.UNEXPECTED, frame, f"the base says that it has no module {address}")
        for address in self._absent - absent:
            self._units[address].is_open = False
        self._absent = absent

    # Reading

    def _answered_numbers(self, answer: Answer, asked: _Asked, turn: _Turn, frame: bytes) -> None:
        turn.unit.reopening = False
        rate_ml_h, volume_ml = None, None
        try:
            rate_ml_h = answer.rate_ml_h
        except ValueError as problem:
            self._fault(FaultKind.UNSUPPORTED, frame, str(problem))
        try:
            volume_ml = answer.volume_ml
        except ValueError as problem:
            self._fault(FaultKind.UNSUPPORTED, frame, str(problem))
        numbers = _Numbers(
            at_ms=self._now_ms, rate_ml_h=rate_ml_h, volume_ml=volume_ml, asked_ms=asked.sent_ms
        )
        turn.steps.extend(_in_doubt(numbers, turn.unit.believed))
        if turn.steps:
            turn.numbers = numbers
        else:
            self._believe(numbers, turn.unit, frame)

    def _answered_in_doubt(
        self, command: Command, answer: Answer, numbers: _Numbers, turn: _Turn, frame: bytes
    ) -> None:
        if self._is_confirmed(command, answer, numbers):
            if not turn.steps:
                turn.numbers = None
                self._believe(numbers, turn.unit, frame)
            return
        self._fault(
            FaultKind.UNEXPECTED,
            frame,
            f"rate {numbers.rate_ml_h}, volume {numbers.volume_ml} just before it are not confirmed",
        )
        turn.numbers = None
        turn.steps.clear()
        turn.doubts += 1
        if turn.doubts <= DOUBTS_LIMIT:
            turn.steps.append(Command.RATE_AND_VOLUME)

    def _is_confirmed(self, command: Command, answer: Answer, numbers: _Numbers) -> bool:
        try:
            if command is Command.RATE:
                return answer.rate_ml_h == numbers.rate_ml_h
            volume_ml = answer.volume_ml
        except ValueError:
            return False
        assert numbers.volume_ml is not None, "what was not said is not in doubt"
        gained_ml = volume_ml - numbers.volume_ml
        most_ml = HIGHEST_RATE_ML_H * (self._now_ms - numbers.asked_ms) / _MS_PER_H + HIGHEST_STEP_ML
        return 0 <= gained_ml <= most_ml

    def _believe(self, numbers: _Numbers, unit: _Unit, frame: bytes) -> None:
        assert unit.pump is not None, "a base measures nothing"
        if numbers.rate_ml_h is None and numbers.volume_ml is None:
            return
        unit.believed = numbers
        if self._now_ms - numbers.asked_ms > TOO_OLD_MS:
            took_ms = self._now_ms - numbers.asked_ms
            self._fault(FaultKind.UNEXPECTED, frame, f"confirmed only {took_ms} ms after it was asked")
            return
        # `at_ms` is when the round was complete: with a doubt a little later than the numbers.
        self._facts.append(
            Reading(
                pump=unit.pump.pump,
                at_ms=self._now_ms,
                state=state_by_rate(numbers.rate_ml_h),
                rate_ml_h=numbers.rate_ml_h,
                volume_ml=numbers.volume_ml,
            )
        )

    # Refusals

    def _hear_refusal(self, refusal: Refusal, frame: bytes) -> None:
        asked, code = self._asked, refusal.code
        whose = (BASE,) if self._base is not None and code == _BASE_NOT_OPEN else ()
        if asked is None or refusal.address not in (asked.address, *whose):
            self._unexpected(refusal.address, f"error {code}", frame)
            return
        turn = self._exchanged()
        base_opens = asked.command is Command.OPEN and turn.unit is self._base
        if code == _BASE_NOT_OPEN and self._base is not None and not base_opens:
            self._open_base_again(turn, frame)
        elif asked.command is Command.OPEN:
            self._refused_to_open(code, turn, frame)
        elif code in (_BASE_NOT_OPEN, _MODULE_NOT_OPEN) and turn.unit is not self._base:
            self._open_again(asked, turn, frame)
        else:
            self._refused(asked, code, frame)
            if asked.command is not Command.UNSUBSCRIBE:
                turn.steps.clear()
        self._go_on(turn)

    def _refused(self, asked: _Asked, code: str, frame: bytes) -> None:
        why = REFUSED.get(code, "an error that we do not know")
        self._fault(
            FaultKind.UNSUPPORTED,
            frame,
            f"{_named(asked.address)} refused {asked.command.value}: {code}, {why}",
        )

    def _refused_to_open(self, code: str, turn: _Turn, frame: bytes) -> None:
        if code == _ALREADY_OPEN:
            self._opened(turn)
            return
        why = REFUSED.get(code, "an error that we do not know")
        self._fault(
            FaultKind.UNSUPPORTED, frame, f"{_named(turn.unit.address)} was not opened: {code}, {why}"
        )
        if code in (_BASE_NOT_OPEN, _MODULE_NOT_OPEN, _MODULE_IMPOSSIBLE):
            turn.unit.is_open = False
            turn.steps.clear()
        else:
            # Whether it is open all the same, only reading can tell.
            self._opened(turn)

    def _open_again(self, asked: _Asked, turn: _Turn, frame: bytes) -> None:
        turn.unit.is_open = False
        if turn.opened_again:
            self._refused(asked, _MODULE_NOT_OPEN, frame)
            turn.steps.clear()
            return
        turn.opened_again = True
        turn.steps.extendleft((asked.command, Command.OPEN))

    def _open_base_again(self, turn: _Turn, frame: bytes) -> None:
        unit = turn.unit
        turn.steps.clear()
        self._close_all()
        if unit.reopening:
            unit.reopening = False
            self._fault(FaultKind.UNSUPPORTED, frame, "the base was opened, and says that it is not")
            return
        unit.reopening = unit is not self._base
        if unit.reopening:
            # The round that was refused is had as soon as the base is open.
            unit.due_ms = self._now_ms

    def _fault(self, kind: FaultKind, data: bytes, detail: str) -> None:
        self._facts.append(LinkFault.of(self._now_ms, kind, data, detail))


def _named(address: Address) -> str:
    if address is None:
        return "the pump"
    return "the base" if address == BASE else f"module {address}"


def _in_doubt(numbers: _Numbers, believed: _Numbers | None) -> list[Command]:
    """Which of the numbers have to be said again before they are believed."""
    if believed is not None and numbers.at_ms - believed.at_ms > BELIEVED_FOR_MS:
        believed = None
    doubts = []
    if numbers.rate_ml_h is not None and (believed is None or numbers.rate_ml_h != believed.rate_ml_h):
        doubts.append(Command.RATE)
    if numbers.volume_ml is not None and (believed is None or not _follows(numbers, believed)):
        doubts.append(Command.VOLUME)
    return doubts


def _follows(numbers: _Numbers, believed: _Numbers) -> bool:
    """Whether the volume came from the last one at about the rate of the two."""
    if numbers.volume_ml is None or believed.volume_ml is None:
        return False
    gained_ml = numbers.volume_ml - believed.volume_ml
    rate_ml_h = max(numbers.rate_ml_h or 0.0, believed.rate_ml_h or 0.0)
    passed_h = (numbers.at_ms - believed.asked_ms) / _MS_PER_H
    return 0 <= gained_ml <= RATE_MARGIN * rate_ml_h * passed_h + VOLUME_MARGIN_ML


class FreseniusFamily:
    """Fresenius Pilote pumps: modules in an Orchestra Base A or Base Primea, or a Pilote C alone."""

    traits = PumpTraits(
        family="fresenius",
        title="Fresenius Pilote syringe pumps, in an Orchestra Base A or alone",
        reports=("state", "rate_ml_h", "volume_ml"),
        states=(PumpState.IDLE, PumpState.RUNNING, PumpState.UNKNOWN),
        alarms=(),
        counter_ml=0.001,
        pressure_unit=None,
        evidence=Evidence.THIRD_PARTY_CODE,
        status=DriverStatus.EXPERIMENTAL,
        notes=(
            "Not for Agilia pumps or Link+: they speak another protocol, which is not supported.",
            "Never compared with the display of a real pump: the protocol is known from other people's code.",
            "Alarms are not reported: how it writes them is not known.",
            "Probable: with a rate the pump delivers, without one it is ready; it does not say what it does.",
            "Whether the rate falls to 0 while the pump is paused or in alarm is not known.",
            "Serial number, pressure, volume to be infused, battery and mains are not reported.",
            "Probable: the counter of volume infused falls only when it is cleared; its wrap is not known.",
            "A rate or volume that jumps is told when the pump has said it twice, a moment later.",
            "The checksum does not see two characters that changed places.",
            "All pumps of a base share one port; each needs the address of its slot, 1 to 5.",
            "A pump that answers nothing delays the others of its base by up to three seconds at first,"
            " then by one.",
            "Reading opens a session with the base and each pump; it needs no remote control mode.",
            "Messages that another program has subscribed to at the pump are ended.",
        ),
    )
    line = LineSettings(baud=19_200, data_bits=7, parity="E")

    def may_send(self, data: bytes) -> bool:
        """Whether ``data`` is answers of the line and at most one command that reads, opens or closes."""
        return is_harmless(data)

    def open_session(self, pumps: Sequence[PumpOnLine]) -> FreseniusSession:
        """A dialogue with the modules of one base, or with one pump that stands alone and has no address.

        Raises ValueError for pumps that cannot share a port.
        """
        if not pumps:
            raise ValueError("a fresenius port needs at least one pump")
        for pump in pumps:
            can_be_polled(pump)
            if pump.address is None and len(pumps) > 1:
                raise ValueError(
                    f"pump {pump.pump}: of several fresenius pumps on a port each needs `address`, 1 to 5"
                )
            if pump.address is not None and pump.address not in MODULES:
                raise ValueError(
                    f"pump {pump.pump}: a fresenius base has the addresses 1 to 5, not {pump.address};"
                    " a stand-alone pump has none"
                )
        addresses = [pump.address for pump in pumps]
        for pump in pumps:
            if addresses.count(pump.address) > 1:
                raise ValueError(f"pump {pump.pump}: address {pump.address} is set twice on this port")
        return FreseniusSession(pumps)
