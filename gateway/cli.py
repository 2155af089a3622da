"""The command ``dripwatch``: a table of sub-commands to modules, and nothing else.

``simulate``, ``scenarios`` and ``dashboard`` are processes of their own: the gateway imports neither.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from importlib import metadata

from msgspec import Struct

from gateway.intended_use import SHORT


class Command(Struct, frozen=True):
    """One sub-command: a line of help, and where it is."""

    help: str
    module: str
    process: tuple[str, ...] = ()
    """For parts that are started as ``python -m MODULE``: what is put before the arguments."""


COMMANDS = {
    "demo": Command(
        "everything on this machine: a simulated pump goes wrong and a nurse is told", "gateway.demo"
    ),
    "run": Command("the gateway: watch the pumps of one home", "gateway.app"),
    "dashboard": Command("the nurse dashboard", "alerts.dashboard"),
    "simulate": Command("a simulated pump behind a pseudo-terminal, a TCP port or a real port", "simulator"),
    "scenarios": Command("what a simulated pump can do, one line each", "simulator", ("scenarios",)),
    "families": Command("what each pump family reports, and on what evidence", "gateway.families"),
    "capture": Command("record a serial line with its times", "gateway.capture"),
    "decode": Command("a capture to readings.csv", "gateway.decode"),
    "probe": Command("ask, with queries only, which pump family answers at a port", "gateway.probe"),
    "replay": Command("recorded readings to events", "gateway.replay"),
    "accuracy": Command("start-up and trumpet curve from a recording", "gateway.accuracy.command"),
    "intended-use": Command("what Dripwatch is for, and what it is not for", "gateway.intended_use"),
    "check": Command("is a prescription, configuration or scenario valid, and if not, why", "gateway.check"),
}
_PROCESSES = frozenset({"alerts.dashboard", "simulator"})


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one sub-command; its exit status is ours."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] in {"-h", "--help", "help"}:
        print(_help())  # noqa: T201
        return 0 if arguments else 2
    if arguments[0] == "--version":
        print(f"dripwatch {metadata.version('dripwatch')}")  # noqa: T201
        return 0
    name, rest = arguments[0], arguments[1:]
    command = COMMANDS.get(name)
    if command is None:
        print(f"dripwatch: there is no command {name!r}.\n\n{_help()}", file=sys.stderr)  # noqa: T201
        return 2
    if command.module in _PROCESSES:
        os.execv(sys.executable, [sys.executable, "-m", command.module, *command.process, *rest])  # noqa: S606
    try:
        status: int = importlib.import_module(command.module).main(rest)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader of our output has gone, as `| head` does.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return status


def _help() -> str:
    width = max(len(name) for name in COMMANDS)
    lines = [f"  {name:<{width}}  {command.help}" for name, command in COMMANDS.items()]
    return "\n".join(
        ["usage: dripwatch COMMAND [...]", "", *lines, "", "dripwatch COMMAND --help tells more.", "", SHORT]
    )


if __name__ == "__main__":
    sys.exit(main())
