"""What Dripwatch is for, and what it is not for, as a person who starts it must be told."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.resources import files

SHORT: str = (
    "Dripwatch is an engineering system that no authority has cleared: it is not for active patient "
    "monitoring and does not replace the pump's own alarms. Its silence means nothing; in an emergency "
    "follow your training and call the emergency services."
)
"""Two sentences for a start-up line and the foot of a page; the same words open INTENDED_USE.md."""


def full_text() -> str:
    """The whole of INTENDED_USE.md, which is installed with the package."""
    return files("gateway").joinpath("INTENDED_USE.md").read_text(encoding="utf-8")


def main(_arguments: Sequence[str]) -> int:
    """``dripwatch intended-use``: the whole page on standard output; always 0."""
    sys.stdout.write(full_text())
    return 0
