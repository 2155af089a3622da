"""``dripwatch probe``: which pump family answers at a port?

Usage: ``dripwatch probe PORT``. Each family's own session asks for a few seconds, at the family's own line
settings: nothing is sent but the queries that it would send at a patient. Families whose pumps are changed
when they are asked come last, and only with ``--bench``. At their usual speeds first, then at the others
among which a pump leaves a choice. Ends with the first that answers. Exit status 0 if one did, else 1.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence

import msgspec
from msgspec import Struct, structs

from drivers import families
from drivers.family import Family, LineSettings, PumpOnLine
from drivers.link import Clock, Link, LinkDown, SystemClock, open_link
from drivers.reading import DriverStatus, Evidence, LinkFault, PumpState, Reading
from gateway.dialogue import Dialogue, pumps_that_can_be

POLL_MS = 1_000
USUAL_S = 5.0
"""A pump that promises an answer within 4 s must have had the time for it."""
WHILE_IT_SPEAKS = 4
"""So many times longer a family is given while what arrives makes sense to it, as from a slow pump."""
LOOKS_UP_EVERY_S = 0.25
ADDRESSES_TO_TRY = (tuple(range(6)), tuple(range(1, 6)), (0,), (1,))
"""Of families with addresses, the first of these that they can have on one line is asked."""
TRY_AGAIN_AFTER_MS = 200
"""The line falls silent before another family speaks."""


class Attempt(Struct, frozen=True, kw_only=True):
    """One family, at one speed, with these pumps on the line."""

    family: str
    line: LineSettings
    pumps: tuple[PumpOnLine, ...]

    def in_words(self) -> str:
        """For people."""
        addresses = [str(pump.address) for pump in self.pumps if pump.address is not None]
        at = f", address {', '.join(addresses)}" if addresses else ""
        line = self.line
        return f"{self.family} at {line.baud} baud {line.data_bits}{line.parity}{line.stop_bits:g}{at}"


class PumpFound(Struct, frozen=True, kw_only=True):
    """One pump that has answered."""

    address: int | None
    serial: str | None
    state: str


class Tried(Struct, frozen=True, kw_only=True):
    """What came of one attempt."""

    family: str
    baud: int
    received_bytes: int
    faults: int
    """Pieces of what was received that make no sense to this family."""
    pumps: tuple[PumpFound, ...]


class Answered(Struct, frozen=True, kw_only=True):
    """Who answers at the port."""

    family: str
    title: str
    status: str
    baud: int
    pumps: tuple[PumpFound, ...]


class Report(Struct, frozen=True, kw_only=True):
    """All that was found out; ``--json`` prints it."""

    port: str
    answered: Answered | None
    tried: tuple[Tried, ...]
    not_tried: tuple[str, ...]
    """Families that are asked only with ``--bench``."""
    problem: str | None
    """Why the port cannot be used, or what the silence may mean."""


OpenPort = Callable[[LineSettings], Link]


def names_to_try(known: Iterable[str], *, bench: bool) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The families that are asked, in this order, and those that are not for want of ``--bench``."""
    pumps = [name for name in known if families.find(name).traits.evidence is not Evidence.OWN]
    only_at_the_bench = [name for name in pumps if families.find(name).traits.status is DriverStatus.BENCH]
    safe = tuple(name for name in pumps if name not in only_at_the_bench)
    if bench:
        return (*safe, *only_at_the_bench), ()
    return safe, tuple(only_at_the_bench)


def attempts(names: Sequence[str], *, address: int | None = None, baud: int | None = None) -> list[Attempt]:
    """What is tried, in this order. Raises ValueError, with a sentence, if nothing can be."""
    planned: list[tuple[int, int, Attempt]] = []
    refused = ""
    for place, name in enumerate(names):
        family = families.find(name)
        try:
            lines_of_pumps = list(_pumps(family, address))
        except ValueError as error:
            refused = str(error)
            continue
        speeds = (family.line.baud, *(other for other in family.line.bauds if other != family.line.baud))
        for turn, speed in enumerate(speeds if baud is None else (baud,)):
            line = structs.replace(family.line, baud=speed)
            planned += [
                (turn, place, Attempt(family=name, line=line, pumps=pumps)) for pumps in lines_of_pumps
            ]
    if not planned:
        raise ValueError(refused or "there is no family to ask")
    return [attempt for _, _, attempt in sorted(planned, key=lambda one: one[:2])]


def _pumps(family: Family, address: int | None) -> Iterator[tuple[PumpOnLine, ...]]:
    if address is not None:
        yield pumps_that_can_be(family, (address,), POLL_MS)
        return
    alone = _possible(family, (None,))
    if alone is not None:
        yield alone
    with_addresses = (_possible(family, addresses) for addresses in ADDRESSES_TO_TRY)
    first = next((pumps for pumps in with_addresses if pumps is not None), None)
    if first is not None:
        yield first


def _possible(family: Family, addresses: Sequence[int | None]) -> tuple[PumpOnLine, ...] | None:
    try:
        return pumps_that_can_be(family, addresses, POLL_MS)
    except ValueError:
        return None


def ask(attempt: Attempt, link: Link, clock: Clock, *, for_ms: int) -> Tried:
    """Ask until every pump has said who it is and what it does, or the time is up. Raises LinkDown."""
    family = families.find(attempt.family)
    dialogue = Dialogue(family, family.open_session(attempt.pumps), link, clock.now_ms)
    says_serial = "serial" in family.traits.reports
    began_ms = clock.now_ms()
    received_bytes = faults = 0
    found: dict[str, Reading] = {}
    while True:
        speaks_sense = received_bytes > 0 and faults == 0 and not found
        until_ms = began_ms + for_ms * (WHILE_IT_SPEAKS if speaks_sense else 1)
        if clock.now_ms() >= until_ms:
            break
        talk = dialogue.turn(min(LOOKS_UP_EVERY_S, (until_ms - clock.now_ms()) / 1000))
        received_bytes += len(talk.received)
        for fact in talk.facts:
            if isinstance(fact, LinkFault):
                faults += 1
            elif fact.pump not in found or _tells_more(fact, found[fact.pump]):
                found[fact.pump] = fact
        all_is_said = all(
            one.state is not PumpState.UNKNOWN and (one.serial is not None or not says_serial)
            for one in found.values()
        )
        if all_is_said and len(found) == len(attempt.pumps):
            break
    return Tried(
        family=attempt.family,
        baud=attempt.line.baud,
        received_bytes=received_bytes,
        faults=faults,
        pumps=tuple(
            PumpFound(
                address=pump.address, serial=found[pump.pump].serial, state=found[pump.pump].state.value
            )
            for pump in attempt.pumps
            if pump.pump in found
        ),
    )


def _tells_more(one: Reading, than: Reading) -> bool:
    """What a pump is, and what it does, is said in one reading or in several."""
    says_who = one.serial is not None or than.serial is None
    return says_who and (one.state is not PumpState.UNKNOWN or than.state is PumpState.UNKNOWN)


def probe(
    port: str,
    planned: Sequence[Attempt],
    open_port: OpenPort,
    clock: Clock,
    *,
    for_ms: int,
    not_tried: tuple[str, ...] = (),
    progress: Callable[[str], None] = lambda words: None,
) -> Report:
    """Ask one after the other until one answers."""
    tried: list[Tried] = []
    answered: Answered | None = None
    problem: str | None = None
    for number, attempt in enumerate(planned, start=1):
        if tried:
            clock.wait_ms(TRY_AGAIN_AFTER_MS)
        progress(f"{number} of {len(planned)}: {attempt.in_words()}")
        try:
            link = open_port(attempt.line)
            try:
                tried.append(ask(attempt, link, clock, for_ms=for_ms))
            finally:
                link.close()
        except LinkDown as down:
            problem = str(down)
            break
        if tried[-1].pumps:
            traits = families.find(attempt.family).traits
            answered = Answered(
                family=traits.family,
                title=traits.title,
                status=traits.status.value,
                baud=attempt.line.baud,
                pumps=tried[-1].pumps,
            )
            break
    if answered is None and problem is None:
        problem = what_it_may_mean(tried, not_tried)
    return Report(port=port, answered=answered, tried=tuple(tried), not_tried=not_tried, problem=problem)


def what_it_may_mean(tried: Sequence[Tried], not_tried: Sequence[str]) -> str:
    """Nobody has answered: where to look."""
    received_bytes = sum(one.received_bytes for one in tried)
    if received_bytes:
        words = [
            f"Something speaks ({received_bytes} bytes), but no family understands it.",
            "Does the pump's menu set another speed, parity or protocol than was tried?",
            "Is it a pump that Dripwatch does not know, or does another program talk on this line?",
            "Is the cable long, or beside a mains cable?",
        ]
    else:
        words = [
            "Nothing was heard.",
            "Is the pump on, and is communication switched on in its menu?",
            "Is it the pump's own cable (a crossed one where a straight one belongs is silent)?",
            "Is it the right port (`ls -l /dev/serial/by-id` tells them apart)?",
            "Does the pump's menu set another speed than was tried, or an address (--address)?",
        ]
    if not_tried:
        words.append(
            f"Not asked: {', '.join(not_tried)}; being asked changes these pumps. With no patient connected,"
            " give --bench."
        )
    return " ".join(words)


def in_words(report: Report) -> str:
    """For people."""
    lines = [f"{report.port}:"]
    lines += [f"  {_tried_in_words(one)}" for one in report.tried]
    if report.answered is not None:
        answered = report.answered
        lines.append(f"{answered.family} answers: {answered.title}, at {answered.baud} baud")
        for pump in answered.pumps:
            at = "" if pump.address is None else f"address {pump.address}, "
            lines.append(f"  {at}serial number {pump.serial or 'not said'}, pump says {pump.state}")
    if report.problem is not None:
        lines.append(report.problem)
    return "\n".join(lines) + "\n"


def _tried_in_words(tried: Tried) -> str:
    if tried.pumps:
        said = "answers"
    elif tried.received_bytes:
        said = f"{tried.received_bytes} bytes, but no answer"
    else:
        said = "silent"
    return f"{tried.family} at {tried.baud} baud: {said}"


def main(argv: Sequence[str]) -> int:
    """The command; the exit status."""
    parser = argparse.ArgumentParser(
        prog="dripwatch probe",
        description="Asks, with queries only, which pump family answers at a port.",
    )
    parser.add_argument("port", metavar="PORT", help="a device, socket://HOST:PORT or rfc2217://HOST:PORT")
    parser.add_argument("--family", help="ask only this one")
    parser.add_argument("--address", type=int, metavar="N", help="the pump's place on the line")
    parser.add_argument("--baud", type=int, help="only at this speed")
    parser.add_argument(
        "--seconds", type=float, default=USUAL_S, metavar="S", help=f"for each attempt (default {USUAL_S:g})"
    )
    parser.add_argument(
        "--bench",
        action="store_true",
        help="no patient is connected: ask also the families whose pumps are changed when they are asked",
    )
    parser.add_argument("--json", action="store_true", help="the same as JSON, for programs")
    arguments = parser.parse_args(argv)
    if not 0.1 <= arguments.seconds <= 600:
        parser.error(f"--seconds {arguments.seconds:g} is not between 0.1 and 600")
    if arguments.baud is not None and arguments.baud <= 0:
        parser.error(f"--baud {arguments.baud} is not possible")
    try:
        known = families.known()
        if arguments.family is not None:
            families.find(arguments.family)
            known = (arguments.family,)
        names, not_tried = names_to_try(known, bench=arguments.bench)
        if not names:
            raise ValueError(
                f"--family {arguments.family} is asked only with --bench, and no patient connected"
                if not_tried
                else f"--family {arguments.family} is no pump that could answer"
            )
        planned = attempts(names, address=arguments.address, baud=arguments.baud)
    except ValueError as error:
        parser.error(str(error))
    report = probe(
        arguments.port,
        planned,
        lambda line: open_link(arguments.port, line),
        SystemClock(),
        for_ms=round(arguments.seconds * 1000),
        not_tried=not_tried,
        progress=_progress,
    )
    _progress("")
    if arguments.json:
        sys.stdout.write(msgspec.json.encode(report).decode() + "\n")
    else:
        sys.stdout.write(in_words(report))
    sys.stdout.flush()
    return 0 if report.answered is not None else 1


def _progress(words: str) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\033[K{f'probe: {words}' if words else ''}")
        sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
