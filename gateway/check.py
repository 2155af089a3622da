"""``dripwatch check``: are prescriptions, configurations and scenarios valid, and if not, where and why.

What a file is, its key ``format`` says; one without it is judged as a prescription. A gateway configuration
is not valid while a file that it names is not there. Exit status 0 if every file is valid, else 1. With
``--json`` a line of JSON for each file goes to standard output (tools page, ``check``); sentences for people
go to standard error.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Protocol

import msgspec
from msgspec import UNSET, Struct, UnsetType

from alerts.strict import ConfigError
from alerts.wire import iso_utc
from gateway.clock import Clock, SystemClock
from gateway.core.order import OrderError, parse_order
from gateway.core.prescription import Prescription
from gateway.core.schedule import Course

MOST_INPUT_BYTES = 64 * 1024
_SCENARIO_TIMEOUT_S = 20
_POINTS_IN_A_RAMP = 8


class KeyProblem(Struct, frozen=True):
    """What is wrong, and where."""

    key: str
    message: str


class Checked(Struct, frozen=True, kw_only=True):
    """One line of ``check --json``. The schedule is there with ``--schedule``; null where there is none."""

    file: str
    valid: bool
    errors: tuple[KeyProblem, ...]
    schedule: tuple[tuple[float, float, float], ...] | UnsetType | None = UNSET
    """Seconds of delivery, the rate in mL/h then, and the volume in mL expected by then."""
    volume_ml: float | UnsetType | None = UNSET
    first_due: str | UnsetType | None = UNSET
    next_due: str | UnsetType | None = UNSET
    """The first due time that is not past."""


def main(argv: Sequence[str]) -> int:
    """Judges each file; 0 if all are valid, 1 if one is not or cannot be read."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.schedule and not arguments.json:
        parser.error("--schedule needs --json")
    checked = [check_file(name, with_schedule=arguments.schedule) for name in arguments.file]
    for one in checked:
        for problem in one.errors:
            sys.stderr.write(f"{one.file}: {problem.key}: {problem.message}\n")
        if one.valid:
            sys.stderr.write(f"{one.file}: valid\n")
        if arguments.json:
            sys.stdout.write(msgspec.json.encode(one).decode() + "\n")
    sys.stdout.flush()
    return 0 if all(one.valid for one in checked) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dripwatch check",
        description="Are prescriptions, configurations and scenarios valid, and if not, why?",
    )
    parser.add_argument("--json", action="store_true", help="a line of JSON for each file on standard output")
    parser.add_argument(
        "--schedule", action="store_true", help="with --json: the schedule, as points to plot"
    )
    parser.add_argument("file", nargs="+", metavar="FILE", help="a TOML file; - is standard input")
    return parser


def check_file(name: str, *, with_schedule: bool = False, clock: Clock | None = None) -> Checked:
    """What is to be said of one file; ``-`` is standard input."""
    try:
        text = _read(name)
    except (OSError, ValueError) as error:
        return _checked(name, [KeyProblem("file", _in_words(error))], None, with_schedule, clock)
    prescription, problems = _judge(name, text)
    return _checked(name, problems, prescription, with_schedule, clock)


def _read(name: str) -> str:
    """The text of a file. Raises ``OSError`` or ``ValueError`` (too large, not UTF-8)."""
    if name == "-":
        content = sys.stdin.buffer.read(MOST_INPUT_BYTES + 1)
    else:
        with Path(name).open("rb") as file:
            content = file.read(MOST_INPUT_BYTES + 1)
    if len(content) > MOST_INPUT_BYTES:
        raise ValueError(f"is longer than {MOST_INPUT_BYTES} bytes, which is the most that is read")
    return content.decode("utf-8")


def _in_words(error: OSError | ValueError) -> str:
    if isinstance(error, OSError):
        return f"cannot be read: {error.strerror or error}; look at its name and its permissions"
    if isinstance(error, UnicodeDecodeError):
        return f"is not UTF-8 text (byte {error.start}); save it as UTF-8"
    return str(error)


def _judge(name: str, text: str) -> tuple[Prescription | None, list[KeyProblem]]:
    base = Path() if name == "-" else Path(name).parent
    # The configurations bring whole parts of the program with them. Prescriptions, which the dashboard has
    # judged one process at a time and within a limit of memory, need none of that.
    match _format_of(text).partition("/")[0]:
        case "dripwatch-gateway":
            return None, _problems_of_gateway(text, base)
        case "dripwatch-dashboard":
            from alerts.dashboard.config import parse_dashboard_config

            return None, _problems_of(lambda: parse_dashboard_config(text, base))
        case "dripwatch-scenario":
            return None, _problems_of_scenario(name)
    try:
        return parse_order(text), []
    except OrderError as error:
        return None, _named(error.problems)


def _format_of(text: str) -> str:
    try:
        written = tomllib.loads(text).get("format")
    except (ValueError, RecursionError):
        return ""
    return written if isinstance(written, str) else ""


def _problems_of(parse: Callable[[], object]) -> list[KeyProblem]:
    try:
        parse()
    except ConfigError as error:
        return _named(error.problems)
    return []


def _problems_of_gateway(text: str, base: Path) -> list[KeyProblem]:
    """Of a configuration that is right in itself: which of the files that it names are not there."""
    from gateway.config import parse_config

    try:
        config = parse_config(text, base)
    except ConfigError as error:
        return _named(error.problems)
    files: list[tuple[str, Path | str | None]] = [
        (f"pump[{place}].prescription", pump.prescription_file) for place, pump in enumerate(config.pumps, 1)
    ]
    if config.mqtt is not None:
        names = ("ca_file", "cert_file", "key_file", "password_file")
        files += [(f"mqtt.{name}", getattr(config.mqtt, name)) for name in names]
    if config.history is not None:
        files.append(("history.token_file", config.history.token_file))
    return [
        KeyProblem(key, f"{_as_seen_from(base, Path(file))} {lack}")
        for key, file in files
        if file is not None and (lack := _lack_of(Path(file)))
    ]


def _as_seen_from(base: Path, file: Path) -> Path:
    return file.relative_to(base.absolute()) if file.is_relative_to(base.absolute()) else file


def _lack_of(file: Path) -> str:
    """Why a file cannot be there for the gateway, and what to do; empty if it is there."""
    try:
        file.stat()
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return "is not there; put it there or mend its name, which counts from the folder of this file"
    except OSError as error:
        return f"cannot be found: {error.strerror}; look at its name and its permissions"
    return ""


class _Problem(Protocol):
    """As the readers of prescriptions and of configurations both tell it."""

    @property
    def key(self) -> str: ...

    @property
    def message(self) -> str: ...


def _named(problems: Iterable[_Problem]) -> list[KeyProblem]:
    return [KeyProblem(problem.key or "file", problem.message) for problem in problems]


class _ScenarioVerdict(Struct, frozen=True):
    """What ``python -m simulator check`` prints."""

    valid: bool
    errors: tuple[KeyProblem, ...]


def _problems_of_scenario(name: str) -> list[KeyProblem]:
    """Scenarios are judged by the simulator, as a process of its own: the gateway does not import it."""
    if name == "-":
        message = (
            "a scenario cannot come from standard input: its prescription stands beside it; give its file"
        )
        return [KeyProblem("file", message)]
    command = [sys.executable, "-m", "simulator", "check", str(Path(name).absolute())]
    try:
        done = subprocess.run(command, capture_output=True, timeout=_SCENARIO_TIMEOUT_S, check=False)
        verdict = msgspec.json.decode(done.stdout, type=_ScenarioVerdict)
    except (OSError, subprocess.TimeoutExpired, msgspec.DecodeError) as error:
        message = f"could not be judged: `{' '.join(command[1:4])}` gave no answer ({type(error).__name__})"
        return [KeyProblem("file", message)]
    if verdict.valid:
        return []
    return list(verdict.errors) or [KeyProblem("file", "is not a valid scenario")]


def _checked(
    name: str,
    problems: Sequence[KeyProblem],
    prescription: Prescription | None,
    with_schedule: bool,
    clock: Clock | None,
) -> Checked:
    judged = Checked(file=name, valid=not problems, errors=tuple(problems))
    if not with_schedule:
        return judged
    if prescription is None:
        return msgspec.structs.replace(judged, schedule=None, volume_ml=None, first_due=None, next_due=None)
    course = Course(prescription)
    now_ms = (clock or SystemClock()).moment().utc_ms
    return msgspec.structs.replace(
        judged,
        schedule=schedule_points(prescription),
        volume_ml=round(course.volume_ml, 6),
        first_due=_time(course.due_utc_ms(1)),
        next_due=_time(course.due_utc_ms(course.number_due_at_or_before(now_ms - 1) + 1)),
    )


def _time(utc_ms: int | None) -> str | None:
    return iso_utc(utc_ms) if utc_ms is not None else None


def schedule_points(prescription: Prescription) -> tuple[tuple[float, float, float], ...]:
    """Points ``(seconds, rate_ml_h, expected_ml)`` of one occurrence, to be joined by straight lines.

    Two at each end of a phase, so that a step of the rate stays upright; on a ramp more between, because the
    volume bends there.
    """
    points: list[tuple[float, float, float]] = []
    start_ms = 0
    course = Course(prescription)
    for phase in prescription.schedule.phases:
        pieces = _POINTS_IN_A_RAMP if phase.is_ramp else 1
        for piece in range(pieces + 1):
            part = piece / pieces
            tau_ms = start_ms + part * phase.duration_ms
            rate_ml_h = phase.from_ml_h + part * (phase.to_ml_h - phase.from_ml_h)
            point = (round(tau_ms / 1000, 3), round(rate_ml_h, 6), round(course.expected_ml(tau_ms), 6))
            if point not in points[-1:]:
                points.append(point)
        start_ms += phase.duration_ms
    return tuple(points)
