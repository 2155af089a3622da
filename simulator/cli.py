"""``python -m simulator``: a simulated pump at a port, and what there is to know about its scenarios."""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
from msgspec import structs

from simulator.clock import ScenarioClock, utc_now_text
from simulator.device import Device
from simulator.faults import FAULT_KINDS
from simulator.scenario import Scenario, load_scenario, prescription_starting, regimen_names, scenario_names
from simulator.serialport import (
    Port,
    PortFault,
    PseudoTerminal,
    RealPort,
    Simulation,
    TcpPort,
    ending_signals,
    say,
)
from simulator.tables import BadFile, Problem, duration_ms
from simulator.wire.families import WIRES
from simulator.wire.wire import Address

DESCRIPTION = "A simulated pump at a port, and what there is to know about its scenarios."
EPILOG = """\
The first line on standard output is JSON with the port, when it is ready; after it comes a line for each
mishap of the scenario as it begins. Standard input takes a line a time, each answered with a line of JSON:
  fault KIND [STRENGTH]    a mishap, from now on (see: dripwatch simulate faults)
  clear                    the end of all that is wrong now
  truth                    what was really delivered
  set rate_ml_h NUMBER     somebody sets the pump to another rate
  press demand             the patient asks for a bolus
  quit
Of several pumps one is meant by its address before all this, as in: pump 3 fault stopped
"""


def main(arguments: list[str] | None = None) -> int:
    """The exit status: 0; 1 where something is not valid or cannot be had; 2 for a bad command line."""
    parsed = _parser().parse_args(arguments)
    try:
        return int(parsed.act(parsed))
    except BadFile as error:
        for problem in error.problems:
            print(f"simulator: {problem.key}: {problem.message}", file=sys.stderr)  # noqa: T201
    except PortFault as error:
        print(f"simulator: {error}", file=sys.stderr)  # noqa: T201
    except BrokenPipeError:
        # Whoever started us has gone; nothing may be written to it at interpreter exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="dripwatch simulate", description=DESCRIPTION)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for family in WIRES:
        _add_family(commands, family)
    listing = commands.add_parser(
        "scenarios",
        prog="dripwatch scenarios",
        help="list the scenarios, or print the prescription that goes with one",
        description="What a simulated pump can do, one line each; or the prescription that goes with it.",
    )
    listing.add_argument("name", nargs="?", metavar="NAME", help="a scenario's name, or a file")
    listing.add_argument(
        "--prescription", action="store_true", help="print NAME's prescription, its start set to now"
    )
    listing.set_defaults(act=_list_scenarios)
    faults = commands.add_parser(
        "faults", help="list the mishaps that a scenario or a person can bring about"
    )
    faults.set_defaults(act=_list_faults)
    checking = commands.add_parser("check", help="say whether a scenario file is valid, as one line of JSON")
    checking.add_argument("file", metavar="FILE")
    checking.set_defaults(act=_check)
    return parser


def _add_family(commands: argparse._SubParsersAction[argparse.ArgumentParser], family: str) -> None:
    command = commands.add_parser(
        family,
        help=f"a simulated pump that speaks {family}",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    addresses = WIRES[family].addresses
    several = (
        f"; several pumps, each with an address from {addresses[0]} to {addresses[-1]}: once for each, as in "
        f"--scenario {addresses[0]}=steady --scenario {addresses[1]}=occlusion"
        if addresses
        else ""
    )
    command.add_argument(
        "--scenario",
        action="append",
        metavar="[ADDRESS=]NAME|FILE" if addresses else "NAME|FILE",
        help=f"what happens to it (default: steady){several}",
    )
    place = command.add_mutually_exclusive_group(required=True)
    place.add_argument("--link", type=Path, help="a symbolic link to make to a pseudo-terminal")
    place.add_argument(
        "--tcp", type=_host_and_port, metavar="HOST:PORT", help="listen there; port 0: a free one"
    )
    place.add_argument(
        "--port", metavar="DEVICE", help=f"a serial port of this machine, at {WIRES[family].line.baud} baud"
    )
    command.add_argument("--seed", type=int, help="other random errors than the scenario's own")
    command.add_argument(
        "--speed",
        type=_speed,
        default=1.0,
        help="so many times as fast as time; only for clients without a clock of their own",
    )
    command.add_argument("--duration", type=_duration, metavar="D", help='end after this, for example "90s"')
    command.add_argument(
        "--log",
        type=Path,
        metavar="FILE",
        help="write a JSON line for each reply: time, request, reply, truth",
    )
    command.set_defaults(act=_simulate, family=family)


def _host_and_port(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT, as in 127.0.0.1:4001")
    return host, int(port)


def _speed(text: str) -> float:
    try:
        speed = float(text)
    except ValueError:
        speed = 0.0
    if not 0.001 <= speed <= 10_000:
        raise argparse.ArgumentTypeError(f"must be a number from 0.001 to 10000, not {text!r}")
    return speed


def _duration(text: str) -> int:
    try:
        return duration_ms(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _simulate(parsed: argparse.Namespace) -> int:
    device = Device(parsed.family, _scenarios(parsed))
    with ExitStack() as stack:
        wakened = stack.enter_context(ending_signals())
        try:
            log = stack.enter_context(parsed.log.open("w", encoding="utf-8")) if parsed.log else None
        except OSError as error:
            raise PortFault(f"the log {parsed.log} cannot be written: {error.strerror}") from error
        port = _open_port(parsed)
        stack.callback(port.unplug)
        link = str(parsed.link) if parsed.link else None
        first = {"port": port.name, "link": link, "family": parsed.family, **_told_of(device.scenario)}
        if any(address is not None for address in device.pumps):
            first["pumps"] = [{"address": one, **_told_of(story)} for one, story in device.scenarios.items()]
        say(first)
        clock = ScenarioClock(parsed.speed)
        Simulation(device, port, clock, log=log, duration_ms=parsed.duration).run(wakened)
    return 0


def _scenarios(parsed: argparse.Namespace) -> Scenario | dict[Address, Scenario]:
    """One story, or one for each address. Raises BadFile."""
    stories: dict[Address, Scenario] = {}
    for number, text in enumerate(parsed.scenario or ["steady"]):
        address, name = _address_and_name(text, parsed.family)
        if address in stories:
            raise BadFile([Problem("--scenario", f"{text!r}: there is a pump at that place already")])
        scenario = load_scenario(name)
        if parsed.seed is not None:
            scenario = structs.replace(scenario, seed=parsed.seed + number)
        stories[address] = scenario
    if None not in stories:
        return stories
    if len(stories) > 1:
        raise BadFile([Problem("--scenario", "of several pumps each needs an address, as in 1=steady")])
    return stories[None]


def _address_and_name(text: str, family: str) -> tuple[Address, str]:
    """``3=occlusion``, or the name alone; a family without addresses has no such prefix."""
    address, equals, name = text.partition("=")
    if not (equals and WIRES[family].addresses and address.isdigit()):
        return None, text
    if int(address) not in WIRES[family].addresses:
        first, last = WIRES[family].addresses[0], WIRES[family].addresses[-1]
        raise BadFile([Problem("--scenario", f"{text!r}: addresses of {family} go from {first} to {last}")])
    return int(address), name


def _told_of(scenario: Scenario) -> dict[str, Any]:
    return {
        "scenario": scenario.name,
        "seed": scenario.seed,
        "counter_follows": scenario.counter_follows,
    }


def _open_port(parsed: argparse.Namespace) -> Port:
    if parsed.link:
        return PseudoTerminal(parsed.link)
    if parsed.tcp:
        return TcpPort(*parsed.tcp)
    return RealPort(parsed.port, WIRES[parsed.family].line)


def _list_scenarios(parsed: argparse.Namespace) -> int:
    if parsed.name is None:
        for name in scenario_names():
            print(f"{name:16} {load_scenario(name).title}")  # noqa: T201
        print("\nEngineering test regimens, not medical advice; nothing goes wrong in them:")  # noqa: T201
        for name in regimen_names():
            print(f"{name:16} {load_scenario(name).title}")  # noqa: T201
        return 0
    scenario = load_scenario(parsed.name)
    if parsed.prescription:
        print(prescription_starting(scenario.prescription_text, utc_now_text()), end="")  # noqa: T201
    else:
        say({"name": scenario.name, "title": scenario.title, "expect": scenario.expect})
    return 0


def _list_faults(_parsed: argparse.Namespace) -> int:
    for row in FAULT_KINDS.values():
        strength = f" Strength: {row.strength}, {row.default:g} if not given." if row.strength else ""
        print(f"{row.name:21} {row.place:9} {row.meaning}.{strength}")  # noqa: T201
    return 0


def _check(parsed: argparse.Namespace) -> int:
    problems: tuple[Problem, ...] = ()
    try:
        load_scenario(parsed.file)
    except BadFile as error:
        problems = error.problems
    say({"valid": not problems, "errors": msgspec.to_builtins(problems)})
    return 1 if problems else 0
