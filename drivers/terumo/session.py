"""The dialogue with one Terumo SS3 syringe pump: who are you, then its status at every poll.

::

    opened ── DEVID? ──► DEVID ──┐
                ▲                ▼
                │     each poll: status, number n ──► status, number n ──► Reading
                └── no answer, or one that cannot be placed

One query is outstanding at a time, and one Reading is one answer: all that telemetry needs is in one frame.
The pump only answers. No keep-alive is known, and none is sent.

Stale data must never look fresh
================================

1.  A query is owed its answer, and nothing else is asked, until the answer has come or nothing can be on its
    way any more (nothing was sent and no reply heard for ``LINE_EMPTY_AFTER_MS``).
2.  An answer is the one that bears the number of the newest query. One with another number is an answer to an
    older one: unexpected, and no Reading. Numbers come again after 126 queries, which takes minutes.
3.  The printed answer bears 00 where its request bore 01. So 00 is taken too, but only of a pump that never
    repeated a number, which is then asked each query once; and if one of its answers may still be on its way,
    DEVID is asked before the next status: the line keeps its order, so that answer proves that no older one
    can follow. (A pump of this kind that takes more than ``LINE_EMPTY_AFTER_MS`` cannot be told from one that
    answers in time; whoever repeats numbers can.)
4.  An answer that comes ``TOO_LATE_MS`` after its query is no Reading. Only who the pump is does not age.
5.  A query is sent again, with a new number, only to a pump that repeats numbers and has just shown that it
    answers much faster.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct, structs

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
from drivers.terumo.codec import (
    DEVICE_ID_QUERY,
    FIRST_SEQUENCE,
    LAST_SEQUENCE,
    UNNUMBERED,
    AlarmBit,
    DeviceId,
    Operation,
    Refused,
    Reply,
    Status,
    Unreadable,
    decode,
    encode_status_query,
    is_query,
    stream,
)

# From when on an answer is too old. The manual says nothing; at 1200 baud, the slowest speed to be thought
# of, query and answer alone take 2.8 s on the wire.
TOO_LATE_MS = 4_000
# After so long without an answer none is on its way any more: two and a half times the above, so that a slow
# pump is not asked faster than it answers.
LINE_EMPTY_AFTER_MS = 10_000
# When to ask a fast pump again: an answer takes 0.35 s on the wire at 9600 baud, its query included.
ASK_AGAIN_AFTER_MS = 1_000
# Then the line is given time to become empty.
ASK_AGAIN_LIMIT = 3
# A pump whose last answer took less than this is fast: half of the above, so that an answer that has not come
# by then is far more probably lost than late.
FAST_REPLY_MS = 500

ALARMS: dict[AlarmBit, str] = {
    AlarmBit.SHUTDOWN_NOTICE: "vendor:shutdown_notice",
    AlarmBit.LINK_INTERRUPTION: "vendor:link_interruption",
    AlarmBit.COMPLETION: "vendor:completion",
    AlarmBit.OCCLUSION: PumpAlarm.OCCLUSION_DOWNSTREAM.value,
    # What holds the syringe: the code of readings.csv for whatever is fitted to a pump and sits badly.
    AlarmBit.SYRINGE_DISPLACED: PumpAlarm.CASSETTE.value,
    AlarmBit.PLUNGER_DISPLACED: PumpAlarm.CASSETTE.value,
    AlarmBit.SLIDER_DISPLACED: PumpAlarm.CASSETTE.value,
    AlarmBit.SYRINGE_BARREL: PumpAlarm.CASSETTE.value,
    AlarmBit.NEARLY_EMPTY: PumpAlarm.NEAR_EMPTY.value,
    AlarmBit.POWER_FAILURE: "vendor:power_failure",
    AlarmBit.MAINS_DETECTOR: "vendor:mains_detector",
    AlarmBit.NO_FLOW_RATE: "vendor:no_flow_rate",
    AlarmBit.FLOW_RATE_VTBI_CHECK: "vendor:flow_rate_vtbi_check",
    AlarmBit.NO_VTBI: "vendor:no_vtbi",
    AlarmBit.BATTERY: PumpAlarm.LOW_BATTERY.value,
    AlarmBit.START_REMINDER: "vendor:start_reminder",
    AlarmBit.PRESSURE: "vendor:pressure",
    AlarmBit.MAINTENANCE_TIMER: "vendor:maintenance_timer",
    AlarmBit.BATTERY_REPLACEMENT: "vendor:battery_replacement",
}
"""The name of readings.csv for each bit; what has none there is told in the manual's words."""

STATES = {
    Operation.STOP: PumpState.PAUSED,
    Operation.START: PumpState.RUNNING,
    Operation.STANDBY: PumpState.STANDBY,
    Operation.PURGE: PumpState.PRIMING,
    Operation.HANDS_ON_BOLUS: PumpState.BOLUS,
    Operation.HANDS_FREE_BOLUS: PumpState.BOLUS,
}
"""What the pump does; a stop with the alarm "completion" is ``complete``."""


class _Asked(Struct, frozen=True, kw_only=True):
    """The one query that is owed its answer."""

    number: int | None
    """``None``: who are you?"""
    sent_ms: int
    """When it was sent last."""
    times_sent: int
    line_empty_ms: int
    """When nothing can be on its way any more."""

    @property
    def too_late_ms(self) -> int:
        """From when on an answer would be too old to be told."""
        return self.sent_ms + TOO_LATE_MS

    @property
    def send_again_ms(self) -> int:
        """When to send it again, if that is allowed."""
        return self.sent_ms + ASK_AGAIN_AFTER_MS


class TerumoSession:
    """One dialogue with one pump (see the head of this file)."""

    def __init__(self, pump: PumpOnLine) -> None:
        self._pump = pump
        self._number = LAST_SEQUENCE
        self.opened(now_ms=0)

    def opened(self, now_ms: int) -> None:
        """The port has (again) been opened: forget every half-heard word and ask who is there."""
        # The numbers go on where they were: what a converter still holds back bears an old one.
        self._now_ms = now_ms
        self._stream = stream()
        self._asked: _Asked | None = None
        self._facts: list[Fact] = []
        self._round_at_ms = now_ms
        self._device_id: str | None = None
        self._ask_who = True
        self._older_may_come = False
        self._repeats_numbers = False
        self._answers_fast = False

    def receive(self, data: bytes, now_ms: int) -> Sequence[Fact]:
        """Take bytes that have just arrived; return what they say."""
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
        asked = self._asked
        if asked is not None:
            if not self._may_be_sent_again(asked) or now_ms < asked.send_again_ms:
                return b""
            return self._ask(who=asked.number is None, times_sent=asked.times_sent + 1)
        if self._ask_who or self._device_id is None:
            return self._ask(who=True)
        if now_ms < self._round_at_ms:
            return b""
        if self._older_may_come and not self._repeats_numbers:
            return self._ask(who=True)
        self._round_at_ms = self._pump.next_poll_ms(self._round_at_ms, now_ms)
        return self._ask(who=False)

    def next_due_ms(self) -> int:
        """When ``due`` has something to do if nothing arrives before."""
        asked = self._asked
        if asked is None:
            return self._now_ms if self._ask_who else self._round_at_ms
        if self._may_be_sent_again(asked):
            return min(asked.send_again_ms, asked.line_empty_ms)
        return asked.line_empty_ms

    # Asking

    def _ask(self, *, who: bool, times_sent: int = 1) -> bytes:
        number = None
        query = DEVICE_ID_QUERY
        if not who:
            assert self._device_id is not None, "the status is asked of a pump that has said who it is"
            self._number = number = self._number + 1 if self._number < LAST_SEQUENCE else FIRST_SEQUENCE
            query = encode_status_query(self._device_id, number)
        self._asked = _Asked(
            number=number,
            sent_ms=self._now_ms,
            times_sent=times_sent,
            line_empty_ms=self._now_ms + LINE_EMPTY_AFTER_MS,
        )
        return query

    def _may_be_sent_again(self, asked: _Asked) -> bool:
        return self._answers_fast and self._repeats_numbers and asked.times_sent <= ASK_AGAIN_LIMIT

    def _give_up_in_time(self) -> None:
        asked = self._asked
        if asked is None or self._now_ms < asked.line_empty_ms:
            return
        self._asked = None
        for cut in self._stream.flush():
            self._hear(cut)
        # Nobody there, or another pump with another ID: ask anew who it is, and then at once how it is.
        self._ask_who = True
        self._answers_fast = False
        self._round_at_ms = self._now_ms

    # Hearing

    def _hear(self, cut: Cut) -> None:
        if cut.kind is CutKind.FILLER:
            return
        if cut.kind is CutKind.BROKEN:
            self._fault(FaultKind.GARBLED, cut.data, cut.why)
            return
        reply = decode(cut.data)
        match reply:
            case Unreadable():
                self._fault(reply.kind, cut.data, reply.detail)
            case DeviceId():
                self._hear_who(reply, cut.data)
            case Status() | Refused():
                self._hear_answer(reply, cut.data)

    def _hear_who(self, reply: DeviceId, frame: bytes) -> None:
        asked = self._asked
        if asked is None or asked.number is not None:
            self._unexpected(reply, frame, f"DEVID came, {_words(asked)} was asked")
            return
        self._answered(asked)
        self._ask_who = self._older_may_come = False
        if reply.device_id != self._device_id:
            # Another pump: nothing that was learnt of the one before holds for it.
            self._repeats_numbers = False
        self._device_id = reply.device_id

    def _hear_answer(self, reply: Status | Refused, frame: bytes) -> None:
        asked = self._asked
        if reply.device_id != self._device_id:
            self._unexpected(reply, frame, f"an answer of {reply.device_id}, which is not this pump")
            return
        if asked is None or asked.number is None:
            self._unexpected(reply, frame, f"status {reply.sequence:02X} came, {_words(asked)} was asked")
            return
        repeats = reply.sequence == asked.number
        if not repeats and (reply.sequence != UNNUMBERED or self._repeats_numbers):
            self._unexpected(reply, frame, f"status {reply.sequence:02X} came, {_words(asked)} was asked")
            return
        self._repeats_numbers = repeats
        took_ms = self._now_ms - asked.sent_ms
        self._answered(asked)
        if took_ms >= TOO_LATE_MS:
            self._unexpected(reply, frame, f"the answer came {took_ms} ms after it was asked for: too late")
        elif isinstance(reply, Refused):
            self._fault(FaultKind.UNSUPPORTED, frame, f"refused: {reply.words} ({reply.result:02X})")
        else:
            self._say(reply, frame)

    def _answered(self, asked: _Asked) -> None:
        self._asked = None
        self._answers_fast = self._now_ms - asked.sent_ms < FAST_REPLY_MS

    def _unexpected(self, reply: Reply, frame: bytes, detail: str) -> None:
        self._fault(FaultKind.UNEXPECTED, frame, detail)
        if reply.device_id != self._device_id:
            return
        # One answer too many: the pump is slow, or the line doubles.
        self._answers_fast = False
        if not isinstance(reply, DeviceId):
            self._older_may_come = True
        if self._asked is not None:
            self._asked = structs.replace(self._asked, line_empty_ms=self._now_ms + LINE_EMPTY_AFTER_MS)

    # Saying

    def _say(self, status: Status, frame: bytes) -> None:
        if status.not_understood:
            self._fault(FaultKind.UNSUPPORTED, frame, "; ".join(status.not_understood))
        if status.operation is None and status.volume_ml is None:
            return
        state = _state(status)
        # In a bolus or a purge the set rate is not the one with which the pump moves: that is not reported.
        has_rate = state not in (PumpState.BOLUS, PumpState.PRIMING)
        self._facts.append(
            Reading(
                pump=self._pump.pump,
                at_ms=self._now_ms,
                state=state,
                rate_ml_h=status.set_rate_ml_h if has_rate else None,
                volume_ml=status.volume_ml,
                alarms=_alarms(status),
                on_mains=status.on_mains,
                serial=status.device_id,
            )
        )

    def _fault(self, kind: FaultKind, data: bytes, detail: str) -> None:
        self._facts.append(LinkFault.of(self._now_ms, kind, data, detail))


def _words(asked: _Asked | None) -> str:
    if asked is None:
        return "nothing"
    return "DEVID" if asked.number is None else f"status {asked.number:02X}"


def _state(status: Status) -> PumpState:
    if status.operation is None:
        return PumpState.UNKNOWN
    if status.operation is Operation.STOP and AlarmBit.COMPLETION in (status.alarms or ()):
        return PumpState.COMPLETE
    return STATES[status.operation]


def _alarms(status: Status) -> tuple[str, ...] | None:
    if status.alarms is None:
        return None
    codes = tuple(dict.fromkeys(ALARMS[alarm] for alarm in AlarmBit if alarm in status.alarms))
    if status.alarm_sounds and not codes:
        # It sounds, and says nothing that we can read: not knowing is never good news.
        return (UNKNOWN_ALARM,)
    return codes


class TerumoFamily:
    """Terumo TERUFUSION SS3 syringe pumps with external communication."""

    traits = PumpTraits(
        family="terumo",
        title="Terumo TERUFUSION SS3 syringe pumps (TE-SS730, TE-SS830, TE-SS830P)",
        reports=("state", "rate_ml_h", "volume_ml", "alarms", "on_mains", "serial"),
        states=(
            PumpState.STANDBY,
            PumpState.PRIMING,
            PumpState.RUNNING,
            PumpState.BOLUS,
            PumpState.PAUSED,
            PumpState.COMPLETE,
            PumpState.UNKNOWN,
        ),
        alarms=(*(code for code in dict.fromkeys(ALARMS.values()) if ":" not in code), "vendor:"),
        counter_ml=0.01,
        pressure_unit=None,
        evidence=Evidence.VENDOR_DOCUMENT,
        status=DriverStatus.EXPERIMENTAL,
        notes=(
            "Never compared with the display of a real pump: the protocol is known from single manual pages.",
            "How the serial line is set is not known: 9600 baud, 8N1 is a guess.",
            "If the pump does not answer, choose another `baud`; which cable and port it needs is not known.",
            "The pump has an alarm `link interruption`: it may sound when the gateway stops asking.",
            "Try that at the bench first: unplug the cable, stop the gateway, and see what the pump does.",
            "Only for syringe pumps: a TE-LF630N would be misread, for its alarms are not known.",
            "Probable: rate and volume are in mL/h and mL, and the alarm bits are read in the right order.",
            "The rate is the set rate; a pump that is stopped may show one. A dosage is never taken for it.",
            "During a bolus or a purge no rate is reported: that of the bolus is not known.",
            "A stop is shown as paused: the pump does not say whether anything is left to give.",
            "A stop with the alarm `completion` is shown as complete.",
            "No state for keep-vein-open is known, and alarm bits that the manual reserves are ignored.",
            "The volume to be infused is not reported: whether it counts down is not known.",
            "Pressure is not reported: the pump tells it in four steps of its limit, in no unit.",
            "The charge of the battery is not reported: the pump tells it in five bars; its alarm is.",
            "All alarms of the syringe, its plunger and the slider are shown as `cassette`.",
            "An alarm that sounds without a known cause is shown as `vendor:unknown`.",
            "When the counter of volume delivered wraps is not known; its field ends at 167772.15 mL.",
            "The serial number is the pump's device ID: compare it once with the label of the pump.",
        ),
    )
    line = LineSettings(baud=9_600, bauds=(1_200, 2_400, 4_800, 19_200, 38_400, 57_600, 115_200))

    def may_send(self, data: bytes) -> bool:
        """Whether ``data`` is exactly the question who is there, or for the status of one pump."""
        return is_query(data)

    def open_session(self, pumps: Sequence[PumpOnLine]) -> TerumoSession:
        """A dialogue with the one pump of a port. Raises ValueError for more, or none."""
        return TerumoSession(the_only_pump(self.traits.family, pumps))
