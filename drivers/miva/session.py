"""The dialogue with one MIVA: at every poll who it is, what is new in its log, and how the infusion stands.

::

    each poll:  [RE n]  [QI :PROT:DB:LOCK?]  RN  RI ── RE RE ...  :INFU:RUN?  Q7  :INFU:RATE?  Q5 ──► Reading
                doubt    once a minute               what is new

One question is outstanding at a time, and one Reading is made of one round. The pump only answers; nothing
that a session writes changes it. A pump whose sensor stream somebody has switched on says S9 between a
question and its answer: that is no answer, and nothing is wrong.

Stale data must never look fresh
================================

A slow answer is not flushed by anything: the maker's own client takes it for the answer to its next question.
And the answers to texts (``:INFU:RATE?``) bear no name at all. What is sure is that a serial line keeps its
order, that answers to mnemonics have names, and that the answer to RE bears the place that was asked for.

1.  Nothing else is asked until the answer has come, or nothing can be on its way any more.
2.  Between two texts a mnemonic is asked: its answer proves that no answer to the first text can follow.
3.  If more answers than one may come to a question (it was sent again or never answered, or the line brings
    answers that nobody asked for), the next round begins with the record of a place that was not asked for
    lately. Its answer is the proof that nothing older can follow; the place is the number that the other
    answers lack. Within one round no name is asked twice.
4.  An answer is too old after ``ANSWER_TOO_OLD_MS``, a round after ``ROUND_TOO_OLD_MS``: no Reading.
5.  A question is sent again only to a pump that has just shown that it answers fast.

Access codes
============

The log holds the codes that people typed. They are not decoded, and no sample of a fault shows the digits
of a record, or of anything that might be a piece of one.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Sequence

from msgspec import Struct, structs

from drivers.family import LineSettings, PumpOnLine, the_only_pump
from drivers.framing import Cut, CutKind
from drivers.miva.codec import (
    RING_RECORDS,
    Bare,
    Flag,
    LogIndices,
    NotAvailable,
    Number,
    Query,
    Record,
    Reply,
    Snapshot,
    Text,
    Unreadable,
    decimal_of,
    decode,
    encode,
    encode_record,
    flag_of,
    is_query,
    stream,
)
from drivers.miva.log import NEWEST_RECORDS, EventLog, Move
from drivers.reading import (
    SAMPLE_BYTES,
    DriverStatus,
    Evidence,
    Fact,
    FaultKind,
    LinkFault,
    PumpAlarm,
    PumpState,
    PumpTraits,
    Reading,
)

# A pump that the maker's client can read begins its answer within 50 ms of the question; a record of 42
# characters was measured to take 76 ms in all. Nothing promises that, so we wait long and ask again early.
RESEND_AFTER_MS = 500
RESEND_LIMIT = 3
# A pump whose last answer took less than this is fast: an answer that has not come by RESEND_AFTER_MS is then
# far more probably lost than late.
FAST_REPLY_MS = 250
# From when on an answer is too old: no source has a figure. The least silence that is an alert is 60 s; this
# leaves room for a slow network between the port and us.
ANSWER_TOO_OLD_MS = 4_000
# From when on what a round said first is too old beside what it said last. It takes half a second usually.
ROUND_TOO_OLD_MS = 15_000
# After so long without an answer none is on its way any more.
LINE_EMPTY_AFTER_MS = 10_000
# How long one round may read the log before it asks how the infusion stands.
LOG_FOR_AT_MOST_MS = 3_000
# A log that could not be read three times running is left alone for a while: the rest is still worth reading.
LOG_FAILURES = 3
LOG_AGAIN_AFTER_MS = 60_000
# What somebody sets at the pump: often enough to be seen, seldom enough not to be in the way.
SETTINGS_EVERY_MS = 60_000
# What the patient asked for is told only if it was asked for since a look that is not longer ago than this.
NOTICE_NEWS_MS = 15_000

_SETTINGS = (Query.DEMAND_BOLUS, Query.DEMAND_LOCKOUT)
_STATUS = (Query.RUNNING, Query.BOLUS_RUNNING, Query.RATE, Query.VOLUME_INFUSED)


class _RecordAt(Struct, frozen=True):
    """The question for one record: read for what it says, or as a proof."""

    index: int
    is_proof: bool = False


_Question = Query | _RecordAt


class _Asked(Struct, frozen=True, kw_only=True):
    """The one question that is owed its answer."""

    question: _Question
    sent_ms: int
    last_sent_ms: int
    line_empty_ms: int
    times_sent: int = 1
    given_up: bool = False
    """It is too late; what comes now only shows that the line is free again."""

    @property
    def too_old_ms(self) -> int:
        """From when on an answer would be too old to be told."""
        return self.sent_ms + ANSWER_TOO_OLD_MS

    @property
    def send_again_ms(self) -> int:
        """When to send it again, if that is allowed."""
        return self.last_sent_ms + RESEND_AFTER_MS


class MivaSession:
    """One dialogue with one pump (see the head of this file)."""

    def __init__(self, pump: PumpOnLine) -> None:
        self._pump = pump
        self._now_ms = 0
        self._proof_index = 0
        self._places_asked: deque[int] = deque(maxlen=4 * NEWEST_RECORDS)
        self._another_pump(serial=None)
        self.opened(now_ms=0)

    def opened(self, now_ms: int) -> None:
        """The port has (again) been opened: forget every half-heard word and ask who is there.

        Where we were in the log is kept: if the same pump is there, its reading goes on from there.
        """
        self._now_ms = now_ms
        self._stream = stream()
        self._facts: list[Fact] = []
        self._asked: _Asked | None = None
        self._to_ask: deque[_Question] = deque()
        self._said: dict[Query, Reply] = {}
        self._round_at_ms = now_ms
        self._round_since_ms = now_ms
        self._settings_at_ms = now_ms
        self._answers_fast = False
        # What was asked before the port was closed may still be answered.
        self._older_may_come = True
        self._proofs_in_vain = 0
        self._log_failures = 0
        self._log_rests_until_ms = now_ms
        self._stands_unexplained = False

    def _another_pump(self, serial: str | None) -> None:
        self._serial = serial
        self._log = EventLog()
        self._looked_ms: int | None = None
        self._news_are_new = False
        self._notices: dict[str, int] = {}
        self._log_failures = 0
        self._log_rests_until_ms = self._now_ms
        self._stands_unexplained = False

    def receive(self, data: bytes, now_ms: int) -> Sequence[Fact]:
        """Take bytes that have just arrived; return what they say, and what time without an answer says."""
        self._now_ms = now_ms
        self._give_up_in_time()
        for cut in self._stream.feed(data):
            self._hear(cut)
        facts, self._facts = self._facts, []
        return facts

    def due(self, now_ms: int) -> bytes:
        """The question to send now; ``b""`` if none is to be sent."""
        self._now_ms = now_ms
        self._give_up_in_time()
        if self._asked is not None:
            return self._ask_again(self._asked)
        if not self._to_ask and now_ms >= self._round_at_ms:
            self._begin_round()
        if not self._to_ask:
            return b""
        question = self._to_ask.popleft()
        if question is Query.SERIAL_NUMBER:
            self._round_since_ms = now_ms
        elif isinstance(question, _RecordAt):
            self._places_asked.append(question.index)
        self._asked = _Asked(
            question=question,
            sent_ms=now_ms,
            last_sent_ms=now_ms,
            line_empty_ms=now_ms + LINE_EMPTY_AFTER_MS,
        )
        return _frame(question)

    def next_due_ms(self) -> int:
        """When ``due`` has something to do if nothing arrives before."""
        asked = self._asked
        if asked is None:
            return self._now_ms if self._to_ask else self._round_at_ms
        if asked.given_up:
            return asked.line_empty_ms
        if self._may_be_sent_again(asked):
            return min(asked.send_again_ms, asked.too_old_ms)
        return asked.too_old_ms

    # Asking

    def _begin_round(self) -> None:
        self._said = {}
        if self._older_may_come:
            self._to_ask.append(self._next_proof())
        if self._now_ms >= self._settings_at_ms:
            self._settings_at_ms = self._now_ms + SETTINGS_EVERY_MS
            self._to_ask.extend(_SETTINGS)
        self._to_ask.append(Query.SERIAL_NUMBER)
        if self._now_ms >= self._log_rests_until_ms:
            self._to_ask.append(Query.LOG)
        self._to_ask.extend(_STATUS)
        self._round_at_ms = self._pump.next_poll_ms(self._round_at_ms, self._now_ms)

    def _next_proof(self) -> _RecordAt:
        self._proof_index = (self._proof_index + 1) % RING_RECORDS
        while self._proof_index in self._places_asked:
            self._proof_index = (self._proof_index + 1) % RING_RECORDS
        return _RecordAt(self._proof_index, is_proof=True)

    def _may_be_sent_again(self, asked: _Asked) -> bool:
        return self._answers_fast and asked.times_sent <= RESEND_LIMIT and not asked.given_up

    def _ask_again(self, asked: _Asked) -> bytes:
        if not self._may_be_sent_again(asked) or self._now_ms < asked.send_again_ms:
            return b""
        self._asked = structs.replace(
            asked,
            times_sent=asked.times_sent + 1,
            last_sent_ms=self._now_ms,
            line_empty_ms=self._now_ms + LINE_EMPTY_AFTER_MS,
        )
        self._older_may_come = True
        return _frame(asked.question)

    def _give_up_in_time(self) -> None:
        asked = self._asked
        if asked is None:
            return
        if not asked.given_up and self._now_ms >= asked.too_old_ms:
            self._asked = asked = structs.replace(asked, given_up=True)
            self._older_may_come = True
            self._was_in_vain(asked.question)
        if self._now_ms < asked.line_empty_ms:
            return
        self._asked = None
        for cut in self._stream.flush():
            self._hear(cut)
        if isinstance(asked.question, _RecordAt) and asked.question.is_proof and self._proofs_in_vain > 1:
            # A pump that does not tell of its log: that the line is empty must be proof enough.
            self._older_may_come = False

    def _was_in_vain(self, question: _Question) -> None:
        """What to do without an answer: a setting can be missed, and the round goes on; else it is over."""
        if question in _SETTINGS:
            self._to_ask.appendleft(self._next_proof())
            return
        self._to_ask.clear()
        if isinstance(question, _RecordAt) and question.is_proof:
            self._proofs_in_vain += 1
        elif question is Query.LOG or isinstance(question, _RecordAt):
            self._log_failures += 1
            if self._log_failures >= LOG_FAILURES:
                self._log_failures = 0
                self._log_rests_until_ms = self._now_ms + LOG_AGAIN_AFTER_MS

    # Hearing

    def _hear(self, cut: Cut) -> None:
        if cut.kind is CutKind.FILLER:
            return
        if cut.kind is CutKind.BROKEN:
            self._fault(FaultKind.GARBLED, cut.data, cut.why)
            return
        reply = decode(cut.data)
        if isinstance(reply, Unreadable):
            self._fault(reply.kind, cut.data, reply.detail)
        elif not isinstance(reply, Snapshot):
            self._hear_reply(reply, cut.data)

    def _hear_reply(self, reply: Reply, frame: bytes) -> None:
        asked = self._asked
        if asked is None or not _answers(reply, asked.question):
            if asked is not None:
                self._asked = structs.replace(asked, line_empty_ms=self._now_ms + LINE_EMPTY_AFTER_MS)
            # One answer too many: the pump is slow, or the line doubles.
            self._answers_fast = False
            self._older_may_come = True
            asked_for = "nothing" if asked is None else _name(asked.question)
            self._fault(
                FaultKind.UNEXPECTED, frame, f"{_name_of_answer(reply)} came, {asked_for} was asked", reply
            )
            return
        took_ms = self._now_ms - asked.sent_ms
        self._asked = None
        if isinstance(asked.question, _RecordAt) and asked.question.is_proof:
            # All that was asked before it has been answered before it.
            self._proofs_in_vain = 0
            self._older_may_come = False
        if asked.given_up:
            self._answers_fast = False
            self._fault(
                FaultKind.UNEXPECTED,
                frame,
                f"{_name_of_answer(reply)} came {took_ms} ms after it was asked: too late",
                reply,
            )
            return
        if asked.times_sent == 1:
            # Of a question sent more than once nobody knows which one was answered.
            self._answers_fast = took_ms < FAST_REPLY_MS
        self._answered(asked.question, reply, asked)

    def _answered(self, question: _Question, reply: Reply, asked: _Asked) -> None:
        if isinstance(question, _RecordAt):
            if not question.is_proof and isinstance(reply, Record):
                self._read_record(reply)
            return
        self._said[question] = reply
        match reply:
            case Text(query=Query.SERIAL_NUMBER, text=serial):
                if self._serial is not None and serial != self._serial:
                    self._another_pump(serial)
                self._serial = serial
            case LogIndices():
                self._look(reply, asked.sent_ms)
            case Number(query=Query.VOLUME_INFUSED):
                self._say()

    def _look(self, indices: LogIndices, sent_ms: int) -> None:
        since_ms = None if self._looked_ms is None else self._now_ms - self._looked_ms
        self._news_are_new = since_ms is not None and since_ms <= max(NOTICE_NEWS_MS, 2 * self._pump.poll_ms)
        self._looked_ms = sent_ms
        self._log.look(indices)
        if self._log.wanted is None:
            self._log_failures = 0
        self._ask_for_records()

    def _read_record(self, record: Record) -> None:
        self._log_failures = 0
        if record.index == self._log.wanted:
            wrong = self._log.take(record.raw)
            if self._news_are_new:
                self._notices |= dict.fromkeys(self._log.notices(), self._now_ms)
            if wrong:
                # Its type and no more: a record that is not understood may be anything.
                self._fault(FaultKind.UNSUPPORTED, record.raw[:1], wrong, record)
        self._ask_for_records()

    def _ask_for_records(self) -> None:
        wanted = self._log.wanted
        if wanted is not None and self._now_ms - self._round_since_ms < LOG_FOR_AT_MOST_MS:
            self._to_ask.appendleft(_RecordAt(wanted))

    # Saying

    def _say(self) -> None:
        said = self._said
        took_ms = self._now_ms - self._round_since_ms
        running, bolus, rate = said[Query.RUNNING], said[Query.BOLUS_RUNNING], said[Query.RATE]
        volume = said[Query.VOLUME_INFUSED]
        assert isinstance(running, Bare), "the answer was checked when it came"
        assert isinstance(rate, Bare), "the answer was checked when it came"
        assert isinstance(bolus, Flag), "the answer was checked when it came"
        assert isinstance(volume, Number), "the answer was checked when it came"
        is_running = flag_of(running.text) is True
        if took_ms > ROUND_TOO_OLD_MS:
            self._fault(FaultKind.UNEXPECTED, b"", f"the round took {took_ms} ms: too old")
            return
        is_read = Query.LOG in said and self._log.wanted is None
        alarms: tuple[str, ...] | None = None
        if is_read and (self._log.active or self._log.is_complete or is_running):
            new = [
                notice
                for notice, read_ms in self._notices.items()
                if self._now_ms - read_ms <= NOTICE_NEWS_MS
            ]
            alarms = (*self._log.active, *new)
            self._notices.clear()
        demand_bolus, lockout = said.get(Query.DEMAND_BOLUS), said.get(Query.DEMAND_LOCKOUT)
        self._facts.append(
            Reading(
                pump=self._pump.pump,
                at_ms=self._now_ms,
                state=self._state(is_running=is_running, gives_bolus=bolus.is_on, is_read=is_read),
                rate_ml_h=decimal_of(rate.text),
                volume_ml=volume.value,
                alarms=alarms,
                bolus_ml=demand_bolus.value if isinstance(demand_bolus, Number) else None,
                lockout_s=decimal_of(lockout.text) if isinstance(lockout, Bare) else None,
                serial=self._serial,
            )
        )

    def _state(self, *, is_running: bool, gives_bolus: bool, is_read: bool) -> PumpState:
        """From ``:INFU:RUN?``, and from the log why it does not run."""
        stood_unexplained, self._stands_unexplained = self._stands_unexplained, False
        if is_running:
            return PumpState.BOLUS if gives_bolus else PumpState.RUNNING
        if not is_read:
            return PumpState.UNKNOWN
        if self._log.is_stopped_by_alarm:
            return PumpState.ALARM
        match self._log.move:
            case Move.PAUSED:
                return PumpState.PAUSED
            case Move.SWITCHED_ON:
                return PumpState.IDLE
            case Move.STARTED:
                # It was started, and stands. Why may have been written since we read the log; if the next
                # round finds nothing either, nobody paused it and no alarm did: it has come to its end.
                self._stands_unexplained = True
                return PumpState.IDLE if stood_unexplained else PumpState.UNKNOWN
            case None:
                return PumpState.IDLE if self._log.is_complete else PumpState.UNKNOWN

    def _fault(self, kind: FaultKind, data: bytes, detail: str, reply: Reply | None = None) -> None:
        fault = LinkFault(
            at_ms=self._now_ms,
            kind=kind,
            byte_count=len(data),
            sample=_sample(data, reply),
            detail=detail,
        )
        self._facts.append(fault)


def _sample(data: bytes, reply: Reply | None) -> bytes:
    """The first bytes; without digits where they are, or may be a piece of, a record (head of this file)."""
    sample = data[:SAMPLE_BYTES]
    if reply is not None and not isinstance(reply, Record):
        return sample
    return re.sub(rb"[0-9A-Fa-f]", b"x", sample)


def _frame(question: _Question) -> bytes:
    return encode_record(question.index) if isinstance(question, _RecordAt) else encode(question)


def _name(question: _Question) -> str:
    return f"RE{question.index:08X}" if isinstance(question, _RecordAt) else question.value


def _name_of_answer(reply: Reply) -> str:
    match reply:
        case Record(index=index):
            return f"RE{index:08X}"
        case Bare():
            return "a bare value"
        case _:
            return reply.query.value


def _answers(reply: Reply, question: _Question) -> bool:
    """Whether this can be the answer: for a bare value that is all that can be said of it."""
    if isinstance(question, _RecordAt):
        return isinstance(reply, Record) and reply.index == question.index
    match reply:
        case Record():
            return False
        case Bare(text=text):
            if question is Query.RUNNING:
                return flag_of(text) is not None
            return question in (Query.RATE, Query.DEMAND_LOCKOUT) and decimal_of(text) is not None
        case NotAvailable(query=query):
            return query is question
        case _:
            return reply.query is question


class MivaFamily:
    """Zyno Medical MIVA ambulatory pumps on their service port."""

    traits = PumpTraits(
        family="miva",
        title="Zyno Medical MIVA ambulatory pump",
        reports=("state", "rate_ml_h", "volume_ml", "alarms", "bolus_ml", "lockout_s", "serial"),
        states=(
            PumpState.IDLE,
            PumpState.RUNNING,
            PumpState.BOLUS,
            PumpState.PAUSED,
            PumpState.ALARM,
            PumpState.UNKNOWN,
        ),
        alarms=(
            PumpAlarm.OCCLUSION_DOWNSTREAM.value,
            PumpAlarm.OCCLUSION_UPSTREAM.value,
            PumpAlarm.EMPTY.value,
            PumpAlarm.LOW_BATTERY.value,
            PumpAlarm.BATTERY_EMPTY.value,
            PumpAlarm.CASSETTE.value,
            PumpAlarm.MALFUNCTION.value,
            PumpAlarm.DEMAND.value,
            PumpAlarm.DEMAND_DENIED.value,
            "vendor:",
        ),
        counter_ml=0.01,
        pressure_unit=None,
        evidence=Evidence.VENDOR_CLIENT,
        status=DriverStatus.EXPERIMENTAL,
        notes=(
            "Never compared with the display of a real pump: the protocol is known from the maker's client.",
            "The pump has no register of alarms: they are read from its event log, at every poll.",
            "An alarm is shown from its event until it is cleared, or the infusion is started again.",
            "At first contact only the newest part of the log is read: an older alarm can be missed.",
            "Probable: starting the infusion again ends every alarm but that of a low battery.",
            "There is no alarm for air in the line or an open door; the cassette's are the nearest.",
            "Probable: the empty cassette is also how the end of an infusion is shown.",
            "Started, standing, and neither paused nor in alarm is shown as idle.",
            "KVO is not told apart from running, and a pump in KVO shows the rate of KVO.",
            "Probable: the rate is in mL/h, and the volume infused falls only when it is cleared.",
            "The volume to be infused is not reported: whether it counts down is not known.",
            "Battery, mains and pressure are not reported: the pump gives volts and raw counts only.",
            "The check of this protocol is weak: two damaged digits can cancel each other out.",
            "Some older firmware numbers its events otherwise, which cannot be seen; compare alarms first.",
            "Older pumps of platform H form their check otherwise and are not read.",
            "Whether polling keeps the pump awake or costs battery is not known.",
            "A capture of its line may hold the access codes that people typed: keep it as one keeps those.",
        ),
    )
    line = LineSettings(baud=9_600)

    def may_send(self, data: bytes) -> bool:
        """Whether ``data`` is one frame of the listed queries, or asks for one record of the log."""
        return is_query(data)

    def open_session(self, pumps: Sequence[PumpOnLine]) -> MivaSession:
        """A dialogue with the one pump that a MIVA's port can have. Raises ValueError for more, or none."""
        return MivaSession(the_only_pump(self.traits.family, pumps))
