"""What was ordered: any therapy as phases (prescription page, sections 1 and 1.1).

Frozen and complete: every default has been filled in, every contradiction has been refused by
``gateway/core/order.py``, which reads the TOML text. Durations are milliseconds, volumes mL, rates mL/h.
"""

from __future__ import annotations

from zoneinfo import ZoneInfo

from msgspec import Struct

from alerts.condition import Priority, Urgency


class Phase(Struct, frozen=True, kw_only=True):
    """A straight line of rate over time; constant where ``from_ml_h == to_ml_h``."""

    duration_ms: int
    from_ml_h: float
    to_ml_h: float

    @property
    def volume_ml(self) -> float:
        """What the whole phase delivers."""
        return (self.from_ml_h + self.to_ml_h) / 2 * self.duration_ms / 3_600_000

    @property
    def is_ramp(self) -> bool:
        """Whether the rate changes within the phase."""
        return self.from_ml_h != self.to_ml_h


class Demand(Struct, frozen=True, kw_only=True):
    """Patient-controlled boluses on top of the phases."""

    bolus_ml: float
    bolus_over_ms: int | None
    lockout_ms: int
    lockout_from_end: bool
    limit_ml: float | None
    limit_window_ms: int


class Titration(Struct, frozen=True, kw_only=True):
    """The range in which the rate may be changed at the bedside."""

    min_ml_h: float
    max_ml_h: float
    step_ml_h: float | None
    min_interval_ms: int | None


class Limits(Struct, frozen=True, kw_only=True):
    """What counts as a deviation, with every default filled in."""

    tolerance: float
    """As a fraction: 0.1 for 10 %."""
    start_window_ms: int
    give_within_ms: int
    min_interval_ms: int
    end_window_ms: int
    late_end_ms: int | None
    max_pause_ms: int
    max_total_pause_ms: int | None
    kvo_ml_h: float
    kvo_max_ms: int
    max_rate_ml_h: float | None
    max_volume_ml: float | None
    no_data_after_ms: int


class PumpExpected(Struct, frozen=True, kw_only=True):
    """What the pump can be expected to do."""

    model: str | None
    accuracy: float
    """As a fraction."""
    counter_ml: float
    counter_wrap_ml: float | None
    stroke_ml: float
    ripple_ml: float
    occlusion_ml: float
    poll_ms: int


class Sensor(Struct, frozen=True, kw_only=True):
    """An independent measurement on the line or the bag."""

    kind: str
    resolution_ml: float
    noise_ml: float
    accuracy: float


class Bag(Struct, frozen=True, kw_only=True):
    """The bag that is hung at the start and at each change."""

    volume_ml: float
    warn_before_ms: int


class Schedule(Struct, frozen=True, kw_only=True):
    """When the phases are given. ``gateway/core/schedule.py`` works out due times and volumes."""

    therapy: str | None
    start_utc_ms: int
    every_ms: int | None
    at_minutes: tuple[int, ...]
    """Local times of day, minutes after midnight, sorted; empty unless ``at`` was given."""
    weekdays: tuple[int, ...]
    """0 is Monday; all seven unless ``days`` was given."""
    zone: ZoneInfo | None
    times: int
    """0: until a new prescription."""
    as_needed: bool
    between_ml_h: float
    phases: tuple[Phase, ...]


LEAST_POLL_MS = 1_000
"""No order has a pump asked more often: some take nearly as long to answer."""
DEMAND_POLL_MS = 2_000
"""A pump that gives boluses on demand is read at least as often (prescription page, ``poll``)."""


class Prescription(Struct, frozen=True, kw_only=True):
    """One order, as the core judges against it."""

    patient_id: str
    weight_kg: float | None
    drug_name: str
    concentration_per_ml: float | None
    concentration_unit: str | None
    """``mg``, ``mcg``, ``unit``, ``kcal``, ... of one mL."""
    dose_rate: str | None
    schedule: Schedule
    demand: Demand | None
    titration: Titration | None
    urgency: Urgency
    respond_within_ms: dict[Priority, int]
    """For high, medium and low."""
    never_flush: bool
    limits: Limits
    pump: PumpExpected
    sensor: Sensor | None
    bag: Bag | None

    @property
    def length_ms(self) -> int:
        """How long one occurrence takes without a pause."""
        return sum(phase.duration_ms for phase in self.schedule.phases)

    @property
    def volume_ml(self) -> float:
        """What one occurrence delivers by its phases, boluses apart."""
        return sum(phase.volume_ml for phase in self.schedule.phases)

    @property
    def poll_at_most_ms(self) -> int:
        """The most time between two readings for which this order asks."""
        asked_for_ms = self.pump.poll_ms if self.demand is None else min(self.pump.poll_ms, DEMAND_POLL_MS)
        return max(LEAST_POLL_MS, asked_for_ms)
