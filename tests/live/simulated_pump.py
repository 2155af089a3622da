"""A simulated pump as a process of its own, as a user starts it."""

from __future__ import annotations

from pathlib import Path

from simulator.process import PATIENCE_S, SimulatedPump, simulated_pump

__all__ = ["PATIENCE_S", "ROOT", "SimulatedPump", "simulated_pump"]

ROOT = Path(__file__).parents[2]
