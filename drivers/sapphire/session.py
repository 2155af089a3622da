"""The dialogue with one Sapphire: say that a PC is here, then listen; one Reading is told at every poll.

::

    opened ── "This is PC" ── 1 s ── "This is PC" ── 14 s ──┐ then every 15 s, and never later than 30 s
                                                            │
    pump:     batch  batch  batch  batch  batch  batch  ... ▼ about ten a second, unasked
    told:       ──────► Reading                 ──────► Reading           one at every poll

    no batch for 15 s: silence ── "This is PC" twice, 1 s apart, every 15 s, for ever

Nothing is asked that has an answer, so nothing is owed. The pump pushes all that is known of it in every
batch; who it is stands in each of them too.

Ten batches a second
====================

Of every frame only the head and the checksum are looked at. When a poll has come, the first batch after it is
told; of several that arrive at once, the newest. It is decoded then, and no other: what is kept is one frame.

The checksum is the sum of all bytes: of frames with two damaged bytes it passes one in 256, and batches are
many. So a batch is told only if the one heard before it bears it out: same pump, same rate, and volumes that
a pump can have delivered in between. Nobody knows whether the rate is a momentary one: if it has been another
in every batch for ``DOUBTFUL_FOR_MS`` after a poll, the newest is told all the same. If it is the pump or its
volumes that contradict each other for so long, that is said, and there is no Reading.

Stale data must never look fresh
================================

A batch is as old as the line is long, if no half of it has waited: what is half heard is given up when
nothing follows for ``HALF_HEARD_FOR_MS``. After a silence, and after the port was opened again, nothing that
was heard before counts any more.

Who is pushed at must listen. If nobody looked in here for ``STALLED_MS``, though we ask to be called every
second, then what is handed over now has waited in a queue, nobody knows for how long. It is no Reading: the
next one is made of a batch that came no sooner after another than a line can bring them.

Faults are many on a bad line, as batches are: those of one kind are added up and told once a second.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import structs

from drivers.family import LineSettings, PumpOnLine, the_only_pump
from drivers.framing import Cut, CutKind
from drivers.reading import (
    SAMPLE_BYTES,
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
from drivers.sapphire.codec import (
    KEEP_ALIVE_FRAMES,
    Batch,
    MessageType,
    Unreadable,
    Who,
    decode,
    is_batch,
    keep_alive,
    stream,
)

# The client does so every 15 s; the maker requires it at intervals of at most 30 s. One that is lost leaves
# just that: whether the pump then still pushes is seen from the silence.
KEEP_ALIVE_EVERY_MS = 15_000
# A single message often failed to open the link: the client sends it twice, so far apart.
OPENING_PAIR_MS = 1_000
# The client takes a pump that pushed nothing for so long for lost.
SILENCE_MS = 15_000
# The bytes of one frame follow each other without a pause, and the longest takes 1.1 s on the line. A second
# without any byte is more than adapters and schedulers hold bytes back.
HALF_HEARD_FOR_MS = 1_000
# By so much the volumes of two batches in a row may differ, for each second between them and at the least. At
# 999.9 ml/h, the highest rate in the examples, a pump delivers 0.28 ml in a second.
AGREEING_ML = 1.0
# Five to ten batches: two that agree are found in that time on any line that can be read at all.
DOUBTFUL_FOR_MS = 1_000
# While the link is open we ask to be called so often; half as long again is more than a busy machine is late.
LOOK_IN_EVERY_MS = 1_000
STALLED_MS = 1_500
# Batches out of a queue follow each other within a few milliseconds; from a line they come 100 ms apart, or
# 188 ms if they hold every known field.
FROM_THE_LINE_MS = 60
# Ten damaged batches a second need not be ten lines in a log.
FAULTS_EVERY_MS = 1_000


class SapphireSession:
    """One dialogue with one pump (see the head of this file)."""

    def __init__(self, pump: PumpOnLine) -> None:
        self._pump = pump
        self._sequence = 0
        self.opened(now_ms=0)

    def opened(self, now_ms: int) -> None:
        """The port has (again) been opened: forget every half-heard word and open the link.

        The sequence number goes on, for to the pump it is the same PC.
        """
        self._now_ms = now_ms
        self._stream = stream()
        self._byte_ms = now_ms
        self._keep_alive_ms = now_ms
        self._is_second_of_pair = False
        self._is_open = False
        self._batch_ms = now_ms
        self._before: bytes | None = None
        self._newest: bytes | None = None
        self._between_ms = 0
        self._stalled_ms: int | None = None
        self._others: LinkFault | None = None
        self._round_at_ms = now_ms
        self._facts: list[Fact] = []
        self._faults: dict[FaultKind, LinkFault] = {}
        self._faults_told_ms: dict[FaultKind, int] = {}

    def receive(self, data: bytes, now_ms: int) -> Sequence[Fact]:
        """Take bytes that have just arrived; return what they say, and what is to be told by now."""
        self._let_pass(now_ms)
        if data:
            self._byte_ms = now_ms
        heard = False
        for cut in self._stream.feed(data):
            heard = self._hear(cut) or heard
        if heard and not self._is_catching_up() and now_ms >= self._round_at_ms:
            self._say_newest()
        self._tell_faults()
        facts, self._facts = self._facts, []
        return facts

    def due(self, now_ms: int) -> bytes:
        """ "This is PC" when it is time for it; else ``b""``."""
        self._let_pass(now_ms)
        if now_ms < self._keep_alive_ms:
            return b""
        if self._is_second_of_pair:
            self._is_second_of_pair = False
            self._keep_alive_ms = now_ms + KEEP_ALIVE_EVERY_MS - OPENING_PAIR_MS
        elif self._is_open:
            self._keep_alive_ms = now_ms + KEEP_ALIVE_EVERY_MS
        else:
            self._is_second_of_pair = True
            self._keep_alive_ms = now_ms + OPENING_PAIR_MS
        frame = keep_alive(self._sequence)
        self._sequence = (self._sequence + 1) % 256
        return frame

    def next_due_ms(self) -> int:
        """When there is something to send, to give up or to tell if nothing arrives before."""
        times = [self._keep_alive_ms]
        if self._is_open:
            times += [self._batch_ms + SILENCE_MS, self._now_ms + LOOK_IN_EVERY_MS]
        if self._stream.buffered_bytes:
            times.append(self._byte_ms + HALF_HEARD_FOR_MS)
        times += [self._may_tell_ms(kind) for kind in self._faults]
        return min(times)

    # Time

    def _let_pass(self, now_ms: int) -> None:
        """What the time that has passed means."""
        if self._is_open and now_ms - self._now_ms >= STALLED_MS:
            self._stalled_ms = now_ms
        self._now_ms = now_ms
        if self._stream.buffered_bytes and now_ms - self._byte_ms >= HALF_HEARD_FOR_MS:
            for cut in self._stream.flush():
                self._hear(cut)
        if now_ms - self._batch_ms >= SILENCE_MS:
            self._batch_ms = now_ms
            self._fell_silent()

    def _is_catching_up(self) -> bool:
        """Whether the batch just heard may have waited in a queue since nobody looked in here."""
        if self._stalled_ms is None:
            return False
        if self._now_ms > self._stalled_ms and self._between_ms >= FROM_THE_LINE_MS:
            self._stalled_ms = None
        return self._stalled_ms is not None

    def _fell_silent(self) -> None:
        self._before = self._newest = None
        if self._is_open:
            # The link is opened anew: at once, and twice.
            self._is_open = False
            self._is_second_of_pair = False
            self._keep_alive_ms = self._now_ms
        if self._others is not None:
            others, self._others = self._others, None
            self._fault(others.kind, others.sample, others.detail, others.byte_count)

    # Hearing

    def _hear(self, cut: Cut) -> bool:
        """Whether it is a batch; it is kept, and not yet decoded."""
        if cut.kind is not CutKind.FRAME:
            self._fault(FaultKind.GARBLED, cut.data, cut.why)
            return False
        if not is_batch(cut.data):
            self._hear_other(cut.data)
            return False
        self._is_open = True
        self._others = None
        self._between_ms = self._now_ms - self._batch_ms
        self._batch_ms = self._now_ms
        self._before, self._newest = self._newest, cut.data
        return True

    def _hear_other(self, frame: bytes) -> None:
        message = decode(frame)
        assert not isinstance(message, Batch | Unreadable), "the stream has checked it, and it is no batch"
        if (message.target, message.sender) != (Who.PC, Who.PUMP):
            # Our own words come back, or the line is not ours alone.
            route = f"a message for {_name(message.target)} from {_name(message.sender)}"
            self._fault(FaultKind.UNEXPECTED, frame, route)
            return
        # A response to our command, for instance: its data are not known, and nothing is wrong. But if such
        # are all that ever comes, somebody has to be told why there is no reading.
        seen = self._others.byte_count if self._others is not None else 0
        self._others = LinkFault(
            at_ms=self._now_ms,
            kind=FaultKind.UNSUPPORTED,
            byte_count=seen + len(frame),
            sample=frame[:SAMPLE_BYTES],
            detail=f"no batch, but messages of type {message.type.value} ({_name(message.type)})",
        )

    # Saying

    def _say_newest(self) -> None:
        assert self._newest is not None, "called when a batch was heard"
        newest = decode(self._newest)
        assert isinstance(newest, Batch), "the stream has checked it, and it is a batch"
        if newest.rate_ml_h is None and newest.volume_ml is None:
            size = len(self._newest)
            self._fault(FaultKind.UNSUPPORTED, self._newest, f"a batch of {size} bytes says nothing we know")
            self._next_round()
            return
        before = None if self._before is None else decode(self._before)
        if not isinstance(before, Batch):
            return
        is_doubtful = self._now_ms >= self._round_at_ms + DOUBTFUL_FOR_MS
        if not _agree(before, newest, self._between_ms):
            if is_doubtful:
                self._fault(FaultKind.UNSUPPORTED, self._newest, "two batches in a row contradict each other")
            return
        if before.rate_ml_h != newest.rate_ml_h and not is_doubtful:
            return
        reading = Reading(
            pump=self._pump.pump,
            at_ms=self._now_ms,
            state=state_by_rate(newest.rate_ml_h),
            rate_ml_h=newest.rate_ml_h,
            volume_ml=newest.volume_ml,
            vtbi_ml=newest.vtbi_ml,
            serial=None if newest.serial is None else str(newest.serial),
        )
        self._facts.append(reading)
        self._next_round()

    def _next_round(self) -> None:
        self._round_at_ms = self._pump.next_poll_ms(self._round_at_ms, self._now_ms)

    def _fault(self, kind: FaultKind, data: bytes, detail: str, byte_count: int | None = None) -> None:
        count = len(data) if byte_count is None else byte_count
        waiting = self._faults.get(kind)
        if waiting is None:
            self._faults[kind] = LinkFault(
                at_ms=self._now_ms, kind=kind, byte_count=count, sample=data[:SAMPLE_BYTES], detail=detail
            )
        else:
            self._faults[kind] = structs.replace(waiting, byte_count=waiting.byte_count + count)

    def _may_tell_ms(self, kind: FaultKind) -> int:
        told_ms = self._faults_told_ms.get(kind)
        return self._now_ms if told_ms is None else told_ms + FAULTS_EVERY_MS

    def _tell_faults(self) -> None:
        """Before a reading: it is the newest that is said."""
        told = [kind for kind in self._faults if self._now_ms >= self._may_tell_ms(kind)]
        for kind in told:
            self._facts.insert(0, structs.replace(self._faults.pop(kind), at_ms=self._now_ms))
            self._faults_told_ms[kind] = self._now_ms


def _agree(before: Batch, newest: Batch, between_ms: int) -> bool:
    """Whether two batches can be of one pump within this time, whatever they say of the rate."""
    limit_ml = AGREEING_ML * max(1.0, between_ms / 1_000)
    return (
        before.serial == newest.serial
        and _near(before.volume_ml, newest.volume_ml, limit_ml)
        and _near(before.vtbi_ml, newest.vtbi_ml, limit_ml)
    )


def _near(before_ml: float | None, newest_ml: float | None, limit_ml: float) -> bool:
    if before_ml is None or newest_ml is None:
        return before_ml is newest_ml
    return abs(newest_ml - before_ml) <= limit_ml


def _name(what: Who | MessageType) -> str:
    return what.name.lower().replace("_", " ")


class SapphireFamily:
    """Q Core (Eitan) Sapphire ambulatory pumps behind their communication module or cradle."""

    traits = PumpTraits(
        family="sapphire",
        title="Q Core (Eitan) Sapphire ambulatory pumps",
        reports=("state", "rate_ml_h", "volume_ml", "vtbi_ml", "serial"),
        states=(PumpState.IDLE, PumpState.RUNNING, PumpState.UNKNOWN),
        alarms=(),
        counter_ml=0.01,
        pressure_unit=None,
        evidence=Evidence.THIRD_PARTY_CODE,
        status=DriverStatus.EXPERIMENTAL,
        notes=(
            "Never compared with the display of a real pump: the protocol is known from one client's code.",
            "No alarm of this pump is reported, neither occlusion nor air nor an empty bag nor battery.",
            "Probable: with a rate the pump delivers, without one it is ready; it does not say what it does.",
            "Whether the rate is the programmed one or the momentary one is not known.",
            "Pressure, battery, mains and boluses are not reported.",
            "When the counter of volume infused is cleared, and its wrap, are not known.",
            "Before a software version is relied on: what it reports must be compared with the display.",
            "Probable: the checksum of what the pump sends follows the same rule as that of what it is sent.",
            "Reading needs a message every 15 s that says that a PC is here, and nothing else is ever sent.",
            "Not known: whether the pump alarms when that message stays away for more than 30 s.",
        ),
    )
    line = LineSettings(baud=9_600)

    def may_send(self, data: bytes) -> bool:
        """Whether ``data`` is one of the 256 frames that say "This is PC": no other command is among them."""
        return data in KEEP_ALIVE_FRAMES

    def open_session(self, pumps: Sequence[PumpOnLine]) -> SapphireSession:
        """A dialogue with the one pump that a port can have. Raises ValueError for more, or none."""
        return SapphireSession(the_only_pump(self.traits.family, pumps))
