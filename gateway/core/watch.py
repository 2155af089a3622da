"""One pump against its prescription: a reading goes through counter, occurrence, act and judgements.

The parts: ``case.py`` (what all look at), ``rates.py`` (the set rate), ``volumes.py`` (the counter),
``boluses.py`` (on demand), ``doses.py`` (begin, interruption, end), ``disturbances.py`` (interrupted again
and again, over too late), ``bag.py`` (what is left), ``line.py`` (pressure, sensor, free flow), ``timers.py``
(times that run out), ``learned.py`` (the pump's own error), ``quiet.py`` (the quick way through). Only the
memory is changed.
"""

from __future__ import annotations

from alerts.condition import Kind
from drivers.reading import PumpState, Reading
from gateway.core import assess
from gateway.core.bag import BagWatch
from gateway.core.boluses import Boluses
from gateway.core.case import CONFIRMING_READINGS, Case
from gateway.core.disturbances import Disturbances
from gateway.core.doses import Doses
from gateway.core.learned import Learning
from gateway.core.line import Line
from gateway.core.memory import Doing, Findings, Memory
from gateway.core.prescription import Prescription
from gateway.core.quiet import Quiet
from gateway.core.rates import Rates
from gateway.core.timers import Timers
from gateway.core.volumes import Volumes

_DEVIATIONS = frozenset(
    {Kind.UNDER_INFUSION, Kind.OVER_INFUSION, Kind.NO_DELIVERY, Kind.FREE_FLOW, Kind.OCCLUSION_SUSPECTED}
)


class Watch:
    """Judges what a pump does by its prescription; changes the memory it is given."""

    def __init__(
        self, prescription: Prescription, poll_ms: int | None, memory: Memory, findings: Findings
    ) -> None:
        self.case = Case(prescription, poll_ms, memory, findings)
        self._rates = Rates(self.case)
        self.learning = Learning(memory.learned, self.case.expected, self.case.poll_ms)
        self.boluses = Boluses(self.case, self._rates)
        self.volumes = Volumes(self.case, self._rates, self.boluses, self.learning)
        self._doses = Doses(self.case, self._rates, self.volumes)
        self.bag = BagWatch(self.case, self._rates)
        self._line = Line(self.case, self.volumes.highest_ml_h)
        self._disturbances = Disturbances(self.case)
        self.timers = Timers(self.case, self._doses, self._disturbances)
        self.quiet = Quiet(
            self.case,
            rates=self._rates,
            volumes=self.volumes,
            timers=self.timers,
            boluses=self.boluses,
            learning=self.learning,
            line=self._line,
            doses=self._doses,
        )

    def read(self, reading: Reading, t_ms: int, *, length_known: bool) -> None:
        """Take one reading; ``length_known`` is False if nobody knows how long it is since the last one."""
        memory = self.case.memory
        reading = self._rates.with_bolus_named(reading)
        if reading.serial is not None:
            if memory.serial not in (None, reading.serial):
                self.volumes.begin_with_another_pump()
            memory.serial = reading.serial
        last_t_ms = memory.seen_t_ms
        elapsed_ms = 0 if last_t_ms is None else t_ms - last_t_ms
        if not (
            length_known
            and self.learning.is_ordinary(reading, elapsed_ms, memory.counter_ml)
            and not self._deviates()
        ):
            self._learn(reading, t_ms, length_known)
        if reading.state is PumpState.BOLUS or memory.boluses.now is not None or not length_known:
            self.boluses.see(reading, t_ms, length_known=length_known)
        delivered_ml = self.volumes.count(reading, t_ms, elapsed_ms, length_known=length_known)
        fell = delivered_ml is not None and memory.carry.fell
        if memory.occurrence is not None:
            self.volumes.bring_forward(
                memory.occurrence, reading, t_ms, elapsed_ms, delivered_ml, length_known
            )
        else:
            self.volumes.bring_run_forward(reading, elapsed_ms, delivered_ml, length_known)
        # of what was given before anybody looked nothing is known
        dosed_ml = 0.0 if memory.first_t_ms is None and delivered_ml else delivered_ml
        self._doses.anchor(reading, t_ms)
        self._doses.act(reading, t_ms, elapsed_ms, dosed_ml)
        self._judge(reading, t_ms)
        self.boluses.judge(reading, t_ms)
        self._line.read(reading, t_ms, elapsed_ms, delivered_ml, fell=fell, length_known=length_known)
        memory.seen_t_ms = t_ms
        memory.pump_state = reading.state
        memory.rate_ml_h = reading.rate_ml_h

    def forget_dates(self, t_ms: int) -> None:
        """The gateway was restarted, and nobody knows how long it was gone (``Doses.forget_dates``)."""
        self._doses.forget_dates(t_ms)

    def date(self, t_ms: int, moved_ms: int) -> None:
        """The length of a gap may have become known by this instant (``Doses.date``)."""
        if self.case.memory.restarted_t_ms is not None:
            self._doses.date(t_ms, moved_ms)

    def _deviates(self) -> bool:
        """Whether what the pump counts now is not what it usually does."""
        present = self.case.memory.present
        return bool(present) and not _DEVIATIONS.isdisjoint(present)

    def _learn(self, reading: Reading, t_ms: int, length_known: bool) -> None:
        """A stretch that the pump's error may be learnt from is over, or one may begin (``learned.py``)."""
        memory = self.case.memory
        learning = self.learning
        if self._deviates():
            learning.give_up_stretch()
            return
        learning.end_stretch(memory.seen_t_ms, memory.counter_ml)
        if reading.serial is not None:
            learning.hear_serial(reading.serial)
        # a bolus that is not named, only counted, would be learnt as an error
        if memory.occurrence is not None and length_known and self.case.order.demand is None:
            learning.begin_stretch(reading, t_ms, memory.occurrence.begun_t_ms)

    def _judge(self, reading: Reading, t_ms: int) -> None:
        memory = self.case.memory
        self._rates.judge(reading, t_ms)
        self._judge_kvo(reading, t_ms)
        self.volumes.judge_limits(reading, t_ms)
        self._disturbances.judge(reading, t_ms)
        self.bag.judge(reading, t_ms)
        occurrence = memory.occurrence
        if occurrence is not None and memory.doing is Doing.DELIVERING:
            self.volumes.judge(occurrence, t_ms)
            late_ms = occurrence.tau_ms - self.case.course.length_ms
            if late_ms > self.case.limits.end_window_ms:
                self.case.findings.present(
                    Kind.NOT_ENDED,
                    t_ms,
                    f"Delivery goes on {assess.minutes(late_ms)} after its end:"
                    f" {self.case.counted_words(occurrence)}.",
                    since_t_ms=t_ms - round(late_ms),
                )

    def _judge_kvo(self, reading: Reading, t_ms: int) -> None:
        memory = self.case.memory
        if memory.doing is not Doing.KVO or reading.rate_ml_h is None:
            return
        too_fast = reading.rate_ml_h > self.case.most_kvo_ml_h
        memory.kvo_too_fast_readings = memory.kvo_too_fast_readings + 1 if too_fast else 0
        if not too_fast and not self.timers.kvo_runs_too_long(t_ms):
            self.case.findings.absent(Kind.KVO_TOO_LONG, t_ms, "Keep-vein-open runs as ordered again.")
        if memory.kvo_too_fast_readings >= CONFIRMING_READINGS:
            self.case.findings.present(
                Kind.KVO_TOO_LONG,
                t_ms,
                f"Keep-vein-open runs at {assess.rate(reading.rate_ml_h)};"
                f" at most {assess.rate(self.case.kvo_ml_h)} are ordered.",
            )
