"""What everybody in the fake world is called, and when it begins."""

BEGINNING_UTC_MS = 1_795_435_200_000
"""2026-11-23T12:00:00Z."""
HOME = "h-world"
COLLECTOR = "main"
PUMP = "p1"
"""The first, and in most stories the only one."""


def port_of(pump: str) -> str:
    """Each pump has a port of its own."""
    return f"port-{pump}"
