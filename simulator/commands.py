"""The lines that a person or a test types at a running simulator, each answered with one object."""

from __future__ import annotations

from math import isfinite
from typing import Any

import msgspec

from simulator.device import Device
from simulator.pump import Pump

HELP = (
    "fault KIND [STRENGTH] | clear | truth | set rate_ml_h NUMBER | press demand | quit "
    "(python -m simulator faults lists the kinds); of several pumps one is meant by: pump ADDRESS ..."
)
RATE_MOST_ML_H = 10_000.0


def obey(device: Device, line: str, now_ms: int) -> dict[str, Any]:
    """Do what the line says and answer; a line that makes no sense is answered with ``error``."""
    try:
        words = line.split()
        pump, words = _meant(device, words)
        return _obey(pump, words, now_ms)
    except ValueError as error:
        return {"error": str(error)}


def _meant(device: Device, words: list[str]) -> tuple[Pump, list[str]]:
    """Which pump is meant, the first if none is named, and what it is to do."""
    if words[:1] != ["pump"]:
        return device.pump, words
    named = {str(address): pump for address, pump in device.pumps.items()}
    address = " ".join(words[1:2])
    if address not in named:
        raise ValueError(f"there is no pump {address!r} here; there is {', '.join(named)}")
    return named[address], words[2:]


def _obey(pump: Pump, words: list[str], now_ms: int) -> dict[str, Any]:
    match words:
        case ["truth"]:
            return {"t_s": now_ms / 1000, **msgspec.to_builtins(pump.truth_at(now_ms))}
        case ["fault", kind, *given] if len(given) <= 1:
            pump.befall(pump.mishaps.begin(kind, now_ms, *map(_number, given)), now_ms)
            strength = pump.mishaps.active(now_ms)[kind].strength
            return {"fault": kind, "t_s": now_ms / 1000, "strength": strength}
        case ["clear"]:
            return {"cleared": pump.clear(now_ms), "t_s": now_ms / 1000}
        case ["set", "rate_ml_h", rate]:
            rate_ml_h = _number(rate)
            if rate_ml_h > RATE_MOST_ML_H:
                raise ValueError(f"the rate goes from 0 to {RATE_MOST_ML_H:g} mL/h, not {rate}")
            pump.set_rate(rate_ml_h, now_ms)
            return {"rate_ml_h": rate_ml_h, "t_s": now_ms / 1000}
        case ["press", "demand"]:
            return {"demand": pump.press_demand(now_ms), "t_s": now_ms / 1000}
        case ["quit"]:
            return {"quit": True, "t_s": now_ms / 1000}
    raise ValueError(f"{' '.join(words)[:80]!r} makes no sense here; possible are: {HELP}")


def _number(text: str) -> float:
    """A number from a line. Raises ValueError in words."""
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"{text!r} is no number") from None
    if not isfinite(value) or value < 0:
        raise ValueError(f"{text} is no number that is 0 or more")
    return value
