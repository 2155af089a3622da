"""Who may import whom, who may touch the world, and who may look at a clock.

The rules are the tables. Each rule is a function from a file to its complaints; every file of the house is
put to every rule, and each rule is shown a file that breaks it.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from typing import TypeAlias

import pytest

from tests.architecture.house import Source, names, source_of, the_house

MAY_IMPORT_OF_THE_HOUSE: dict[str, tuple[str, ...]] = {
    "drivers": (),
    "alerts": (),
    "simulator": (),
    "gateway": ("drivers", "alerts"),
}
MAY_IMPORT_PYTEST = ("simulator/pytest_plugin.py",)
NOT_FOR_THE_HOUSE = ("tests", "benchmarks", "pytest", "hypothesis", "infupy", "playwright")

CLOCKS = (
    "gateway/clock.py",
    "drivers/link.py",
    "simulator/clock.py",
    "simulator/serialport.py",
    "alerts/dashboard/clock.py",
)

ONLY_IN: dict[str, tuple[str, ...]] = {
    "time": CLOCKS,
    "random": ("simulator/*",),
    "secrets": ("gateway/app.py", "gateway/store.py", "alerts/dashboard/*"),
    "serial": ("drivers/link.py", "simulator/serialport.py"),
    "sqlite3": ("gateway/store.py",),
    "paho": ("alerts/mqtt.py",),
    "gpiozero": ("alerts/gpio.py",),
    "influxdb_client": ("gateway/history.py",),
    "amqtt": ("gateway/demo*.py",),
    "starlette": ("alerts/dashboard/*",),
    "uvicorn": ("alerts/dashboard/*",),
    "jinja2": ("alerts/dashboard/*",),
    "sqlalchemy": ("alerts/dashboard/*",),
}

# The edges touch the world. Every other file is pure: no I/O, no clock, no chance without a seed.
EDGES = (
    "*/__main__.py",
    "alerts/dashboard/*",
    "alerts/gpio.py",
    "alerts/mqtt.py",
    "drivers/link.py",
    "gateway/accuracy/command.py",
    "gateway/app.py",
    "gateway/capture.py",
    "gateway/check.py",
    "gateway/cli.py",
    "gateway/clock.py",
    "gateway/decode.py",
    "gateway/demo*.py",
    "gateway/families.py",
    "gateway/history.py",
    "gateway/intended_use.py",
    "gateway/probe.py",
    "gateway/progress.py",
    "gateway/recording.py",
    "gateway/replay.py",
    "gateway/run.py",
    "gateway/store.py",
    "gateway/watchdog.py",
    "simulator/cli.py",
    "simulator/clock.py",
    "simulator/process.py",
    "simulator/pytest_plugin.py",
    "simulator/scenario.py",
    "simulator/serialport.py",
)
PURE_THOUGH_AMONG_EDGES = ("alerts/dashboard/board.py", "alerts/dashboard/chart.py")

NOT_IN_A_PURE_FILE = (
    "asyncio",
    "ctypes",
    "http",
    "logging",
    "multiprocessing",
    "os",
    "paho",
    "queue",
    "secrets",
    "select",
    "selectors",
    "serial",
    "shutil",
    "signal",
    "socket",
    "sqlalchemy",
    "sqlite3",
    "ssl",
    "starlette",
    "subprocess",
    "sys",
    "tempfile",
    "threading",
    "time",
    "urllib.request",
    "uuid",
)
NOT_CALLED_IN_A_PURE_FILE = ("open", "print", "input", "breakpoint")
NOT_ASKED_OF_A_PATH_IN_A_PURE_FILE = (
    "read_text",
    "read_bytes",
    "write_text",
    "write_bytes",
    "iterdir",
    "unlink",
)

WALL_CLOCK_CALLS = ("datetime.now", "datetime.utcnow", "datetime.today", "date.today")
SEEDED = ("random.Random", "random.default_rng", "default_rng", "Random")
CATCHES_EVERYTHING = ("Exception", "BaseException")
MAY_CATCH_EVERYTHING = ("gateway/run.py",)

Rule: TypeAlias = Callable[[Source], Iterator[str]]


def is_pure(source: Source) -> bool:
    return source.is_one_of(PURE_THOUGH_AMONG_EDGES) or not source.is_one_of(EDGES)


def siblings_are_strangers(source: Source) -> Iterator[str]:
    """Of the house a package imports only itself and what the table allows it."""
    for line, imported in source.imports():
        package = imported.partition(".")[0]
        allowed = (source.package, *MAY_IMPORT_OF_THE_HOUSE[source.package])
        if package in MAY_IMPORT_OF_THE_HOUSE and package not in allowed:
            yield source.complaint(line, f"{source.package} must not import {package}")


def nobody_imports_tests(source: Source) -> Iterator[str]:
    """What is there for tests and measurements is not needed to run."""
    for line, imported in source.imports():
        if names("pytest", imported) and source.is_one_of(MAY_IMPORT_PYTEST):
            continue
        if any(names(module, imported) for module in NOT_FOR_THE_HOUSE):
            yield source.complaint(line, f"{imported} is for tests only")


def each_part_of_the_world_has_its_door(source: Source) -> Iterator[str]:
    """A library that touches the world, or that only one part needs, is imported in its place alone."""
    for line, imported in source.imports():
        for module, places in ONLY_IN.items():
            if names(module, imported) and not source.is_one_of(places):
                yield source.complaint(line, f"{module} belongs in {' or '.join(places)}")


def only_clocks_tell_the_time(source: Source) -> Iterator[str]:
    """The wall clock is read where the other clock is read."""
    for call, called in source.calls():
        if called.endswith(WALL_CLOCK_CALLS) and not source.is_one_of(CLOCKS):
            yield source.complaint(call.lineno, f"{called}() belongs in a clock")


def pure_files_stay_pure(source: Source) -> Iterator[str]:
    """A file that is not among the edges does nothing but compute."""
    if not is_pure(source):
        return
    for line, imported in source.imports():
        if any(names(module, imported) for module in NOT_IN_A_PURE_FILE):
            yield source.complaint(line, f"imports {imported}, but is a pure file")
    for call, called in source.calls():
        asked = called.rpartition(".")[2] if "." in called else ""
        if called in NOT_CALLED_IN_A_PURE_FILE or asked in NOT_ASKED_OF_A_PATH_IN_A_PURE_FILE:
            yield source.complaint(call.lineno, f"calls {called}(), but is a pure file")


def chance_has_a_seed(source: Source) -> Iterator[str]:
    """The same seed gives the same story: no generator without one, and not the one that all share."""
    for call, called in source.calls():
        if called in SEEDED and not call.args and not call.keywords:
            yield source.complaint(call.lineno, f"{called}() has no seed")
        elif called.startswith("random.") and called not in SEEDED:
            yield source.complaint(call.lineno, f"{called}() draws from the generator that all share")


def passes_it_on(handler: ast.ExceptHandler) -> bool:
    last = handler.body[-1]
    return isinstance(last, ast.Raise) and last.exc is None


def one_place_catches_everything(source: Source) -> Iterator[str]:
    """A broken promise of our own is reported in one place; others may tidy up and pass it on."""
    for node in ast.walk(source.tree):
        if source.is_one_of(MAY_CATCH_EVERYTHING):
            return
        if isinstance(node, ast.ExceptHandler) and not passes_it_on(node):
            caught = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
            for kind in caught:
                if kind is None or (isinstance(kind, ast.Name) and kind.id in CATCHES_EVERYTHING):
                    yield source.complaint(node.lineno, "catches everything; name what can go wrong")


# Each rule, and a file that breaks it.
RULES: list[tuple[Rule, str, str]] = [
    (siblings_are_strangers, "alerts/wire.py", "from gateway.core import prescription"),
    (siblings_are_strangers, "drivers/link.py", "def late():\n    import alerts"),
    (siblings_are_strangers, "gateway/demo.py", "from simulator.pump import Pump"),
    (nobody_imports_tests, "gateway/app.py", "from tests.world import World"),
    (nobody_imports_tests, "gateway/app.py", "import pytest"),
    (each_part_of_the_world_has_its_door, "gateway/engine.py", "import time"),
    (each_part_of_the_world_has_its_door, "gateway/engine.py", "from time import monotonic"),
    (each_part_of_the_world_has_its_door, "alerts/mqtt.py", "import sqlalchemy.orm"),
    (each_part_of_the_world_has_its_door, "alerts/dashboard/collector.py", "import paho.mqtt.client"),
    (only_clocks_tell_the_time, "gateway/core/schedule.py", "x = datetime.now(tz)"),
    (only_clocks_tell_the_time, "alerts/wire.py", "x = datetime.datetime.utcnow()"),
    (pure_files_stay_pure, "gateway/core/monitor.py", "import os.path"),
    (pure_files_stay_pure, "gateway/lanes.py", "from urllib import request"),
    (pure_files_stay_pure, "alerts/dashboard/board.py", "import threading"),
    (pure_files_stay_pure, "gateway/config.py", "text = open('gateway.toml').read()"),
    (pure_files_stay_pure, "alerts/catalogue.py", "text = (path / 'a.toml').read_text()"),
    (chance_has_a_seed, "simulator/faults.py", "x = random.Random()"),
    (chance_has_a_seed, "simulator/faults.py", "x = random.uniform(0, 1)"),
    (chance_has_a_seed, "simulator/faults.py", "x = numpy.random.default_rng()\ny = random.default_rng()"),
    (one_place_catches_everything, "gateway/store.py", "try: pass\nexcept Exception: pass"),
    (one_place_catches_everything, "gateway/store.py", "try: pass\nexcept: pass"),
    (one_place_catches_everything, "gateway/store.py", "try: pass\nexcept (OSError, BaseException): pass"),
]
EACH_RULE = list(dict.fromkeys(rule for rule, _, _ in RULES))

LAWFUL: list[tuple[Rule, str, str]] = [
    (siblings_are_strangers, "gateway/engine.py", "from alerts import wire\nfrom gateway.lanes import Lanes"),
    (siblings_are_strangers, "alerts/mqtt.py", "from . import sink\nfrom .dashboard import store"),
    (each_part_of_the_world_has_its_door, "gateway/core/toml_table.py", "from datetime import time"),
    (each_part_of_the_world_has_its_door, "gateway/clock.py", "import time"),
    (only_clocks_tell_the_time, "gateway/run.py", "moment = clock.now()"),
    (pure_files_stay_pure, "gateway/store.py", "import os"),
    (chance_has_a_seed, "simulator/faults.py", "x = random.Random(seed)"),
    (one_place_catches_everything, "gateway/run.py", "try: pass\nexcept Exception: pass"),
    (
        one_place_catches_everything,
        "gateway/store.py",
        "try: pass\nexcept BaseException:\n    close()\n    raise",
    ),
]


def name_of(case: Rule | str) -> str | None:
    return None if isinstance(case, str) else case.__name__


@pytest.mark.parametrize("rule", EACH_RULE, ids=name_of)
def test_the_house_keeps_the_rule(rule: Rule) -> None:
    assert [complaint for source in the_house() for complaint in rule(source)] == []


@pytest.mark.parametrize(("rule", "path", "text"), RULES, ids=name_of)
def test_the_rule_sees_a_file_that_breaks_it(rule: Rule, path: str, text: str) -> None:
    assert list(rule(source_of(path, text))) != []


@pytest.mark.parametrize(("rule", "path", "text"), LAWFUL, ids=name_of)
def test_the_rule_lets_a_lawful_file_be(rule: Rule, path: str, text: str) -> None:
    assert list(rule(source_of(path, text))) == []


@pytest.mark.parametrize("place", [*EDGES, *PURE_THOUGH_AMONG_EDGES, *MAY_CATCH_EVERYTHING])
def test_a_file_with_leave_to_do_more_is_there(place: str) -> None:
    """Leave for a file that has gone, or was misspelt, is leave for whoever takes the name next."""
    assert any(source.is_one_of((place,)) for source in the_house())
