"""The dialogue with one Alaris pump: who are you, then INF at every poll, and ALARM when INF gives notice of
one.

::

    opened ── INST_SERIALNO ── COMMS_PROTOCOL ── COMMS_RESPONSE_MAX ──┐
                                                                      ▼
    each poll:   [INF_VTBI once a minute]  ──  INF  ──┬─ notice "-" ──────────────► Reading
                                                      └─ notice "A" ──  ALARM  ───► Reading with the code

One command is outstanding at a time, and one Reading is made of one round, never of two. The pump only
answers; nothing that a session writes changes it, and no keep-alive is needed for reading.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Sequence

from msgspec import Struct

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
from drivers.family import LineSettings, PumpOnLine
from drivers.framing import Cut, CutKind
from drivers.reading import (
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

# When to send the same query once more. Three clients do so after 0.5 s against real pumps, so the pump is
# known to bear it; a reply of 84 bytes takes 22 ms on the wire. A query changes nothing, so asking twice is
# harmless.
RESEND_AFTER_MS = 500
# When to give up. 0.5 s is a habit of clients; recorded pumps promise an answer within 4000 ms
# (COMMS_RESPONSE_MAX). To give up earlier would call a slow pump silent that keeps its promise.
LONGEST_REPLY_MS = 4_000
# What we believe of a pump's own figure: beyond it, it would be silent for longer than a nurse may be left.
LONGEST_REPLY_CEILING_MS = 10_000
# The volume to be infused changes when somebody sets it: often enough to be seen, seldom enough not to be in
# the way.
VOLUME_TO_BE_INFUSED_EVERY_MS = 60_000

UNKNOWN_ALARM = "vendor:unknown"
"""The pump gives notice of an alarm and does not say which."""

_IDENTITY = (Query.SERIAL_NUMBER, Query.PROTOCOL, Query.LONGEST_REPLY)
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
_SAMPLE_BYTES = 32
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
    """The one query that waits for its answer."""

    query: Query
    sent_ms: int
    sent_again_ms: int | None = None

    def due_ms(self, longest_reply_ms: int) -> int:
        """When something is to be done if no answer comes: send again, and then give up."""
        if self.sent_again_ms is None:
            return self.sent_ms + RESEND_AFTER_MS
        return self.sent_again_ms + longest_reply_ms


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
        self._noticed: Infusion | None = None

    def receive(self, data: bytes, now_ms: int) -> Sequence[Fact]:
        """Take bytes that have just arrived; return what they say, and what time without an answer says."""
        self._now_ms = now_ms
        for cut in self._stream.feed(data):
            self._hear(cut)
        self._give_up_in_time()
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
        self._asked = _Asked(query=self._to_ask.popleft(), sent_ms=now_ms)
        return encode(self._asked.query)

    def next_due_ms(self) -> int:
        """When ``due`` has something to do if nothing arrives before."""
        if self._asked is not None:
            return self._asked.due_ms(self._longest_reply_ms)
        return self._now_ms if self._to_ask else self._round_at_ms

    # Asking

    def _begin_round(self) -> None:
        if self._round_at_ms >= self._volume_to_be_infused_at_ms:
            self._volume_to_be_infused_at_ms = self._round_at_ms + VOLUME_TO_BE_INFUSED_EVERY_MS
            self._to_ask.append(Query.VOLUME_TO_BE_INFUSED)
        self._to_ask.append(Query.INFUSION)
        self._vtbi_ml = None
        self._round_at_ms += self._pump.poll_ms
        if self._round_at_ms <= self._now_ms:
            # Late by more than a poll: what was missed is not made up for.
            self._round_at_ms = self._now_ms + self._pump.poll_ms

    def _ask_again(self, asked: _Asked) -> bytes:
        if asked.sent_again_ms is not None or self._now_ms < asked.due_ms(self._longest_reply_ms):
            return b""
        self._asked = _Asked(query=asked.query, sent_ms=asked.sent_ms, sent_again_ms=self._now_ms)
        return encode(asked.query)

    def _give_up_in_time(self) -> None:
        asked = self._asked
        if asked is None or asked.sent_again_ms is None:
            return
        if self._now_ms < asked.due_ms(self._longest_reply_ms):
            return
        self._asked = None
        for cut in self._stream.flush():
            self._hear(cut)
        if asked.query is Query.ALARM:
            self._say_what_was_noticed(UNKNOWN_ALARM)
        elif asked.query in _IDENTITY:
            # Nobody there, or one that does not say who he is: INF will tell, and brings the serial number.
            self._to_ask.clear()

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
        elif self._asked is None or type(reply) is not _ANSWER[self._asked.query]:
            waiting = "nothing" if self._asked is None else self._asked.query.value
            self._fault(FaultKind.UNEXPECTED, cut.data, f"{type(reply).__name__} came, {waiting} was asked")
        else:
            self._asked = None
            self._answered(reply, cut.data)

    def _answered(self, reply: Reply, frame: bytes) -> None:
        match reply:
            case SerialNumber():
                self._identified = True
            case Protocol(revision=revision):
                if not revision.startswith(_KNOWN_PROTOCOL):
                    self._fault(
                        FaultKind.UNSUPPORTED, frame, f"{revision[:40]} is a protocol not seen before"
                    )
            case LongestReply(longest_ms=longest_ms):
                self._longest_reply_ms = min(max(longest_ms, RESEND_AFTER_MS), LONGEST_REPLY_CEILING_MS)
            case VolumeToBeInfused(vtbi_ml=vtbi_ml):
                self._vtbi_ml = vtbi_ml
            case Infusion():
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
            vtbi_ml=self._vtbi_ml,
            pressure_mmhg=infusion.pressure_mmhg,
            alarms=alarms,
            serial=infusion.serial or None,
        )
        self._facts.append(reading)

    def _fault(self, kind: FaultKind, data: bytes, detail: str) -> None:
        fault = LinkFault(
            at_ms=self._now_ms, kind=kind, byte_count=len(data), sample=data[:_SAMPLE_BYTES], detail=detail
        )
        self._facts.append(fault)


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
        if len(pumps) != 1:
            raise ValueError(f"an alaris pump needs a port of its own; {len(pumps)} are set on this one")
        if pumps[0].address is not None:
            raise ValueError(f"pump {pumps[0].pump}: alaris pumps have no address; remove `address`")
        if pumps[0].poll_ms <= 0:
            raise ValueError(
                f"pump {pumps[0].pump}: a poll of {pumps[0].poll_ms} ms is not possible; 5s is usual"
            )
        return AlarisSession(pumps[0])
