"""One pump against its prescription: a reading goes through counter, occurrence, act and judgements.

The parts: ``case.py`` (what all look at), ``rates.py`` (the set rate), ``volumes.py`` (the counter),
``doses.py`` (begin, interruption, end), ``timers.py`` (times that run out). Only the memory is changed.
"""

from __future__ import annotations

from alerts.condition import Kind
from drivers.reading import Reading
from gateway.core import assess
from gateway.core.case import CONFIRMING_READINGS, Case
from gateway.core.doses import Doses
from gateway.core.memory import Doing, Findings, Memory
from gateway.core.prescription import Prescription
from gateway.core.rates import Rates
from gateway.core.timers import Timers
from gateway.core.volumes import Volumes


class Watch:
    """Judges what a pump does by its prescription; changes the memory it is given."""

    def __init__(
        self, prescription: Prescription, poll_ms: int | None, memory: Memory, findings: Findings
    ) -> None:
        self.case = Case(prescription, poll_ms, memory, findings)
        self._rates = Rates(self.case)
        self.volumes = Volumes(self.case, self._rates)
        self._doses = Doses(self.case, self._rates, self.volumes)
        self.timers = Timers(self.case, self._doses)

    def read(self, reading: Reading, t_ms: int, *, length_known: bool) -> None:
        """Take one reading; ``length_known`` is False if nobody knows how long it is since the last one."""
        memory = self.case.memory
        reading = self._rates.with_bolus_named(reading)
        last_t_ms = memory.seen_t_ms
        elapsed_ms = 0 if last_t_ms is None else t_ms - last_t_ms
        delivered_ml = self.volumes.count(reading, t_ms, elapsed_ms, length_known=length_known)
        if memory.occurrence is not None:
            self.volumes.bring_forward(
                memory.occurrence, reading, t_ms, elapsed_ms, delivered_ml, length_known
            )
        else:
            self.volumes.bring_run_forward(reading, elapsed_ms, delivered_ml)
        self._doses.anchor(reading, t_ms)
        self._doses.act(reading, t_ms, elapsed_ms, delivered_ml)
        self._judge(reading, t_ms)
        memory.seen_t_ms = t_ms
        memory.pump_state = reading.state
        memory.rate_ml_h = reading.rate_ml_h

    def _judge(self, reading: Reading, t_ms: int) -> None:
        memory = self.case.memory
        self._rates.judge(reading, t_ms)
        self._judge_kvo(reading, t_ms)
        self.volumes.judge_limits(reading, t_ms)
        occurrence = memory.occurrence
        if occurrence is not None and memory.doing is Doing.DELIVERING:
            self.volumes.judge(occurrence, t_ms)
            late_ms = occurrence.tau_ms - self.case.course.length_ms
            if late_ms > self.case.limits.end_window_ms:
                self.case.findings.present(
                    Kind.NOT_ENDED,
                    t_ms,
                    f"Delivery goes on {assess.minutes(late_ms)} after its end:"
                    f" pump counted {assess.volume(occurrence.delivered_ml)}"
                    f" of {assess.volume(self.case.course.volume_ml)}.",
                    since_t_ms=t_ms - round(late_ms),
                )

    def _judge_kvo(self, reading: Reading, t_ms: int) -> None:
        memory = self.case.memory
        if memory.doing is not Doing.KVO or reading.rate_ml_h is None:
            return
        most_ml_h = self.case.kvo_ml_h * (1 + self.case.limits.tolerance) + assess.DISPLAY_MARGIN_ML_H
        memory.kvo_too_fast_readings = (
            memory.kvo_too_fast_readings + 1 if reading.rate_ml_h > most_ml_h else 0
        )
        if memory.kvo_too_fast_readings >= CONFIRMING_READINGS:
            self.case.findings.present(
                Kind.KVO_TOO_LONG,
                t_ms,
                f"Keep-vein-open runs at {assess.rate(reading.rate_ml_h)};"
                f" at most {assess.rate(self.case.kvo_ml_h)} are ordered.",
            )
