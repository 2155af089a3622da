"""Which pumps are looked at: one place for the calibration and the comparison."""

from __future__ import annotations

from msgspec import Struct

from benchmarks.noise import Noise
from gateway.core.prescription import PumpExpected

SEED = 20260504
STROKES_ML = {0.5: 0.005, 2.0: 0.005, 10.0: 0.05, 50.0: 0.05, 125.0: 0.05}
"""Of the pumps that give such rates in mL/h: syringe pumps, then volumetric ones."""
COUNTERS_ML = (0.01, 0.1)
TOLERANCES = (0.05, 0.01)
SHIFTS = (0.05, 0.1, 0.2, 0.5, 1.0)


class Setting(Struct, frozen=True, kw_only=True):
    """A pump that is tested: its noise, its counter, and the edge of the tolerance."""

    noise: Noise
    counter_ml: float
    tolerance: float

    @property
    def poll_ms(self) -> int:
        """Between two readings."""
        return round(self.noise.poll_s * 1000)

    @property
    def pump(self) -> PumpExpected:
        """What a prescription would say of this pump."""
        return PumpExpected(
            model=None,
            accuracy=self.tolerance,
            counter_ml=self.counter_ml,
            counter_wrap_ml=None,
            stroke_ml=self.noise.stroke_ml,
            ripple_ml=self.noise.ripple_ml,
            occlusion_ml=0.5,
            poll_ms=self.poll_ms,
        )
