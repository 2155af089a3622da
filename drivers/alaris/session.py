"""The dialogue with one Alaris pump: who are you, then INF at every poll, and ALARM when INF gives notice of
one.

::

    opened ── INST_SERIALNO ── COMMS_PROTOCOL ── COMMS_RESPONSE_MAX ──┐
                                                                      ▼
    each poll:   [INF_VTBI once a minute]  ──  INF  ──┬─ notice "-" ──────────────► Reading
                                                      └─ notice "A" ──  ALARM  ───► Reading with the code

One command is outstanding at a time, and one Reading is made of one round, never of two. The pump only
answers; nothing that a session writes changes it, and no keep-alive is needed for reading.

Stale data must never look fresh
================================

An answer bears no number that says to which query it belongs. Were a slow pump asked again while it still
owes an answer, every answer would be taken for that to a newer query, and the readings would fall further
behind with every round. What is sure is that a serial line keeps its order, and that answers have names:

1.  A query is owed its answer, and nothing else is asked, until the answer has come or nothing can be on its
    way any more (nothing was sent and no reply heard for ``LINE_EMPTY_AFTER_MS``).
2.  What a round says may be no older than the pump's own promise (COMMS_RESPONSE_MAX, 4000 ms on recorded
    pumps), counted from when it was first asked for. An answer that comes later is unexpected and no Reading,
    and an alarm that has no name by then is told as unknown. Only who the pump is does not age.
3.  A query is sent again only to a pump that has just shown that it answers much faster than the 500 ms after
    which clients do so: they are a habit, and no pump promises them.
4.  If more answers than one may come to an INF (it was sent again, it was never answered, or the line brings
    answers that nobody asked for), then a query of another name is asked before the next INF. The order of
    the line makes its answer the proof that no answer to an older INF can follow: an alternating-bit
    protocol, in which the names are the bit. A name that got no answer is not used again before the others:
    only a pump that answers to none of them is asked INF without a proof.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Sequence

from msgspec import Struct, structs

from drivers.alaris.codec import (
    QUERY_FRAMES,
    Alarm,
    Infusion,
    LongestReply,
    Protocol,
    Query,
    Reply,
    SerialNumber,
    Unreadable,
    VolumeToBeInfused,
    decode,
    encode,
    stream,
)
from drivers.family import LineSettings, PumpOnLine, the_only_pump
from drivers.framing import Cut, CutKind
from drivers.reading import (
    UNKNOWN_ALARM,
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

# When to send the same query again to a fast pump. Three clients do so after 0.5 s against real pumps, so the
# pump is known to bear it; a reply of 84 bytes takes 22 ms on the wire.
RESEND_AFTER_MS = 500
# They do so once. On a wire that spoils every second answer that is lost too often; and what a pump that has
# just become slow is asked in vain, it must answer before it is heard again.
RESEND_LIMIT = 3
# A pump whose last answer took less than this is fast: half of the above, so that an answer that has not come
# by then is far more probably lost than late.
FAST_REPLY_MS = 250
# From when on an answer is too old. 0.5 s is a habit of clients; recorded pumps promise an answer within
# 4000 ms (COMMS_RESPONSE_MAX). To give up earlier would call a slow pump silent that keeps its promise.
LONGEST_REPLY_MS = 4_000
# What we believe of a pump's own figure. Below, a query sent again would have no time to be answered; above,
# the pump would be silent for longer than a nurse may be left.
LONGEST_REPLY_FLOOR_MS = 1_000
LONGEST_REPLY_CEILING_MS = 10_000
# After so long without an answer none is on its way any more. Twice and a half of what pumps promise, because
# one that breaks its promise must not be asked faster than it answers either.
LINE_EMPTY_AFTER_MS = 10_000
# The volume to be infused changes when somebody sets it: often enough to be seen, seldom enough not to be in
# the way.
VOLUME_TO_BE_INFUSED_EVERY_MS = 60_000

_IDENTITY = (Query.SERIAL_NUMBER, Query.PROTOCOL, Query.LONGEST_REPLY)
_PROOFS = (Query.VOLUME_TO_BE_INFUSED, *_IDENTITY)
_ANSWER: dict[Query, type[Reply]] = {
    Query.SERIAL_NUMBER: SerialNumber,
    Query.PROTOCOL: Protocol,
    Query.LONGEST_REPLY: LongestReply,
    Query.INFUSION: Infusion,
    Query.VOLUME_TO_BE_INFUSED: VolumeToBeInfused,
    Query.ALARM: Alarm,
}
_KNOWN_PROTOCOL = "Asena Rev 2."
_NO_ALARM_NOTICE = "-"
_NO_ALARM_CODE = "AL_NOALM"
_VENDOR_TEXT_LIMIT = 40

ALARMS = {
    # No source explains the names: all but the first are read from the abbreviation, and are only probable.
    "AL_OCCLU": PumpAlarm.OCCLUSION_DOWNSTREAM,
    "AL_EOIST": PumpAlarm.EMPTY,
    "AL_NEOIN": PumpAlarm.NEAR_EMPTY,
    "AL_LWBAT": PumpAlarm.LOW_BATTERY,
    "AL_LBTAC": PumpAlarm.LOW_BATTERY,
    "AL_EMBAT": PumpAlarm.BATTERY_EMPTY,
    "AL_SYRCO": PumpAlarm.CASSETTE,
    "AL_DRDIS": PumpAlarm.CASSETTE,
    "AL_FAULT": PumpAlarm.MALFUNCTION,
}
"""The pump's codes that have a name in readings.csv; every other code is ``vendor:CODE``."""


class _Asked(Struct, frozen=True, kw_only=True):
    """The one query that is owed its answer."""

    query: Query
    sent_ms: int
    too_late_ms: int
    """From when on an answer would be too old to be told."""
    line_empty_ms: int
    """When nothing can be on its way any more."""
    last_sent_ms: int
    times_sent: int = 1
    given_up: bool = False
    """It is too late; what comes now only shows that the line is free again."""

    @property
    def send_again_ms(self) -> int:
        """When to send it again, if that is allowed."""
        return self.last_sent_ms + RESEND_AFTER_MS


class AlarisSession:
    """One dialogue with one pump (see the head of this file)."""

    def __init__(self, pump: PumpOnLine) -> None:
        self._pump = pump
        self.opened(now_ms=0)

    def opened(self, now_ms: int) -> None:
        """The port has (again) been opened: forget every half-heard word and ask who is there."""
        self._now_ms = now_ms
        self._stream = stream()
        self._asked: _Asked | None = None
        self._to_ask = deque(_IDENTITY)
        self._facts: list[Fact] = []
        self._round_at_ms = now_ms
        self._identified = False
        self._serial: str | None = None
        self._longest_reply_ms = LONGEST_REPLY_MS
        self._volume_to_be_infused_at_ms = now_ms
        self._vtbi_ml: float | None = None
        self._vtbi_too_late_ms = now_ms
        self._noticed: Infusion | None = None
        self._noticed_too_late_ms = now_ms
        self._answers_fast = False
        self._older_may_come = False
        self._proofs = deque(_PROOFS)
        self._proofs_in_vain = 0

    def receive(self, data: bytes, now_ms: int) -> Sequence[Fact]:
        """Take bytes that have just arrived; return what they say, and what time without an answer says."""
        self._now_ms = now_ms
        self._give_up_in_time()
        for cut in self._stream.feed(data):
            self._hear(cut)
        facts, self._facts = self._facts, []
        return facts

    def due(self, now_ms: int) -> bytes:
        """The query to send now; ``b""`` if none is to be sent."""
        self._now_ms = now_ms
        self._give_up_in_time()
        if self._asked is not None:
            return self._ask_again(self._asked)
        if not self._to_ask and now_ms >= self._round_at_ms:
            self._begin_round()
        if not self._to_ask:
            return b""
        query = self._to_ask.popleft()
        self._asked = _Asked(
            query=query,
            sent_ms=now_ms,
            last_sent_ms=now_ms,
            too_late_ms=self._too_late_ms(query),
            line_empty_ms=now_ms + LINE_EMPTY_AFTER_MS,
        )
        return encode(query)

    def next_due_ms(self) -> int:
        """When ``due`` has something to do if nothing arrives before."""
        asked = self._asked
        if asked is None:
            return self._now_ms if self._to_ask else self._round_at_ms
        if self._may_be_sent_again(asked):
            return min(asked.send_again_ms, asked.too_late_ms)
        return asked.line_empty_ms if asked.given_up else min(asked.too_late_ms, asked.line_empty_ms)

    # Asking

    def _begin_round(self) -> None:
        if self._older_may_come:
            self._to_ask.append(self._proofs[0])
        if self._round_at_ms >= self._volume_to_be_infused_at_ms:
            self._volume_to_be_infused_at_ms = self._round_at_ms + VOLUME_TO_BE_INFUSED_EVERY_MS
            if Query.VOLUME_TO_BE_INFUSED not in self._to_ask:
                self._to_ask.append(Query.VOLUME_TO_BE_INFUSED)
        self._to_ask.append(Query.INFUSION)
        self._vtbi_ml = None
        self._round_at_ms = self._pump.next_poll_ms(self._round_at_ms, self._now_ms)

    def _too_late_ms(self, query: Query) -> int:
        """When an answer to this query, sent now, would be too old (head of this file, rule 2)."""
        if query in _IDENTITY:
            return self._now_ms + LINE_EMPTY_AFTER_MS
        if query is Query.ALARM:
            return self._noticed_too_late_ms
        return self._now_ms + self._longest_reply_ms

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
        if asked.query is Query.INFUSION:
            self._older_may_come = True
        return encode(asked.query)

    def _give_up_in_time(self) -> None:
        asked = self._asked
        if asked is not None and not asked.given_up and self._now_ms >= asked.too_late_ms:
            self._asked = asked = structs.replace(asked, given_up=True)
            if asked.query is Query.ALARM:
                self._say_what_was_noticed(UNKNOWN_ALARM)
        if asked is None or self._now_ms < asked.line_empty_ms:
            return
        self._asked = None
        for cut in self._stream.flush():
            self._hear(cut)
        self._was_in_vain(asked.query)

    def _was_in_vain(self, query: Query) -> None:
        # Nobody there, or one that does not answer to this name: what was to follow is asked in its own time.
        self._to_ask.clear()
        self._proofs_in_vain = 0 if query is Query.INFUSION else self._proofs_in_vain + 1
        self._older_may_come = self._proofs_in_vain < len(_PROOFS)
        self._proofs.rotate(-1)
        if self._proofs[0] is query:
            self._proofs.rotate(-1)

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
        else:
            self._hear_reply(reply, cut.data)

    def _hear_reply(self, reply: Reply, frame: bytes) -> None:
        asked = self._asked
        if asked is None or type(reply) is not _ANSWER[asked.query]:
            waiting = "nothing" if asked is None else asked.query.value
            if asked is not None:
                self._asked = structs.replace(asked, line_empty_ms=self._now_ms + LINE_EMPTY_AFTER_MS)
            # One answer too many: the pump is slow, or the line doubles.
            self._answers_fast = False
            self._older_may_come = True
            self._fault(FaultKind.UNEXPECTED, frame, f"{type(reply).__name__} came, {waiting} was asked")
            return
        took_ms = self._now_ms - asked.sent_ms
        self._asked = None
        self._proofs_in_vain = 0
        if asked.query is not Query.INFUSION:
            # All that was asked before it has been answered before it.
            self._older_may_come = False
        if asked.given_up:
            self._answers_fast = False
            self._fault(
                FaultKind.UNEXPECTED,
                frame,
                f"{type(reply).__name__} came {took_ms} ms after it was asked: too late",
            )
            return
        if asked.times_sent == 1:
            # Of a query sent more than once nobody knows which one was answered.
            self._answers_fast = took_ms < FAST_REPLY_MS
        self._answered(reply, frame, asked)

    def _answered(self, reply: Reply, frame: bytes, asked: _Asked) -> None:
        match reply:
            case SerialNumber():
                # Asked alone, as a proof, it does not tell all that is to be known.
                self._identified = Query.PROTOCOL in self._to_ask
            case Protocol(revision=revision):
                if not revision.startswith(_KNOWN_PROTOCOL):
                    self._fault(
                        FaultKind.UNSUPPORTED, frame, f"{revision[:40]} is a protocol not seen before"
                    )
            case LongestReply(longest_ms=longest_ms):
                self._longest_reply_ms = min(
                    max(longest_ms, LONGEST_REPLY_FLOOR_MS), LONGEST_REPLY_CEILING_MS
                )
            case VolumeToBeInfused(vtbi_ml=vtbi_ml):
                self._vtbi_ml = vtbi_ml
                self._vtbi_too_late_ms = asked.too_late_ms
            case Infusion():
                self._noticed_too_late_ms = asked.too_late_ms
                self._answered_infusion(reply, frame)
            case Alarm(code=code):
                self._say_what_was_noticed(_alarm(code))

    def _answered_infusion(self, infusion: Infusion, frame: bytes) -> None:
        not_understood = list(infusion.not_understood)
        if _state(infusion) is PumpState.UNKNOWN:
            not_understood.append(f"mode {infusion.mode[:20]!r} with rate {infusion.rate_ml_h}")
        if not_understood:
            self._fault(FaultKind.UNSUPPORTED, frame, "; ".join(not_understood))
        switched_on_late = self._serial is None and not self._identified
        exchanged = self._serial is not None and self._serial != infusion.serial
        if switched_on_late or exchanged:
            self._to_ask.extend(_IDENTITY)
        self._serial = infusion.serial
        if infusion.notice == _NO_ALARM_NOTICE:
            self._say(infusion, alarms=())
        else:
            self._noticed = infusion
            self._to_ask.appendleft(Query.ALARM)

    # Saying

    def _say_what_was_noticed(self, alarm: str) -> None:
        infusion, self._noticed = self._noticed, None
        assert infusion is not None, "ALARM is asked only after an INF with a notice"
        self._say(infusion, alarms=(alarm,))

    def _say(self, infusion: Infusion, alarms: tuple[str, ...]) -> None:
        # `at_ms` is when the round was complete: with an alarm one answer later than the numbers.
        reading = Reading(
            pump=self._pump.pump,
            at_ms=self._now_ms,
            state=_state(infusion),
            rate_ml_h=infusion.rate_ml_h,
            volume_ml=infusion.volume_ml,
            vtbi_ml=self._vtbi_ml if self._now_ms <= self._vtbi_too_late_ms else None,
            pressure_mmhg=infusion.pressure_mmhg,
            alarms=alarms,
            serial=infusion.serial or None,
        )
        self._facts.append(reading)

    def _fault(self, kind: FaultKind, data: bytes, detail: str) -> None:
        self._facts.append(LinkFault.of(self._now_ms, kind, data, detail))


def _state(infusion: Infusion) -> PumpState:
    """SET with a rate above zero delivers, without one is ready; HLD is on hold (probable)."""
    if infusion.mode == "HLD":
        return PumpState.PAUSED
    if infusion.mode == "SET" and infusion.rate_ml_h is not None:
        return PumpState.RUNNING if infusion.rate_ml_h > 0 else PumpState.IDLE
    return PumpState.UNKNOWN


def _alarm(code: str) -> str:
    """The name of readings.csv for a pump's code; what we cannot name is passed on as the pump says it."""
    if code in ALARMS:
        return ALARMS[code].value
    if code in ("", _NO_ALARM_CODE):
        # Notice of an alarm, and then none: not knowing is never good news. The next round will tell.
        return UNKNOWN_ALARM
    return "vendor:" + re.sub(r"[^A-Za-z0-9_-]", "_", code)[:_VENDOR_TEXT_LIMIT]


class AlarisFamily:
    """Alaris "Asena" GH, CC and TIVA syringe pumps on their RS-232 port."""

    traits = PumpTraits(
        family="alaris",
        title="Alaris (Asena) GH, CC, TIVA syringe pumps",
        reports=("state", "rate_ml_h", "volume_ml", "vtbi_ml", "pressure_mmhg", "alarms", "serial"),
        states=(PumpState.IDLE, PumpState.RUNNING, PumpState.PAUSED, PumpState.UNKNOWN),
        alarms=(*dict.fromkeys(alarm.value for alarm in ALARMS.values()), "vendor:"),
        counter_ml=0.001,
        pressure_unit="mmHg",
        evidence=Evidence.THIRD_PARTY_CODE,
        status=DriverStatus.EXPERIMENTAL,
        notes=(
            "Never compared with the display of a real pump: the protocol is known from other people's code.",
            "Probable: mode SET with a rate means delivering, SET without a rate ready, HLD on hold.",
            "The modes of bolus, purge and KVO are not known: they are shown as unknown.",
            "Boluses are not reported.",
            "Probable: AL_EOIST is the end of the infusion, and is shown as empty.",
            "Probable: the other alarms except occlusion; their codes were read from the abbreviations.",
            "An alarm code whose meaning is not even probable is shown as the pump sends it.",
            "The pump names one alarm at a time: a second one may be hidden behind it.",
            "Probable: the volume to be infused counts down; it is asked once a minute.",
            "Probable: the counter of volume infused falls only when it is cleared; its wrap is not known.",
            "Battery, mains and occlusion limit are not reported.",
            "Reading needs no remote control: it stays off, and the pump stays as its keys have set it.",
        ),
    )
    line = LineSettings(baud=38_400)

    def may_send(self, data: bytes) -> bool:
        """Whether ``data`` is one of the ten query frames: no command that carries a field is among them."""
        return data in QUERY_FRAMES

    def open_session(self, pumps: Sequence[PumpOnLine]) -> AlarisSession:
        """A dialogue with the one pump that an Alaris port can have. Raises ValueError for more, or none."""
        return AlarisSession(the_only_pump(self.traits.family, pumps))
