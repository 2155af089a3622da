"""The source of the house as syntax trees: what the rules of this folder look at."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("alerts", "drivers", "gateway", "simulator")


@dataclass(frozen=True)
class Source:
    """One file. ``path`` counts from the root of the project: ``gateway/core/monitor.py``."""

    path: str
    tree: ast.Module

    @property
    def package(self) -> str:
        return self.path.partition("/")[0]

    def is_one_of(self, patterns: tuple[str, ...]) -> bool:
        return any(fnmatchcase(self.path, pattern) for pattern in patterns)

    def imports(self) -> Iterator[tuple[int, str]]:
        """Line and full name of each import, wherever in the file: ``from a import b`` gives ``a.b``."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                yield from ((node.lineno, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                above = self.path.split("/")[: -node.level] if node.level else []
                base = [*above, *filter(None, [node.module])]
                yield from ((node.lineno, ".".join([*base, alias.name])) for alias in node.names)

    def calls(self) -> Iterator[tuple[ast.Call, str]]:
        """Each call with the dotted name of what is called, as far as it is made of names."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Call):
                yield node, dotted(node.func)

    def complaint(self, line: int, words: str) -> str:
        return f"{self.path}:{line}: {words}"


def dotted(expression: ast.expr) -> str:
    """``datetime.datetime.now`` of that expression; a part that is not a name is ``?``."""
    if isinstance(expression, ast.Name):
        return expression.id
    if isinstance(expression, ast.Attribute):
        return f"{dotted(expression.value)}.{expression.attr}"
    return "?"


def names(module: str, imported: str) -> bool:
    """Whether ``imported`` is ``module`` or something in it."""
    return imported == module or imported.startswith(module + ".")


def source_of(path: str, text: str) -> Source:
    return Source(path=path, tree=ast.parse(text, path))


@cache
def the_house() -> tuple[Source, ...]:
    """Every Python file of the four packages."""
    return tuple(
        source_of(file.relative_to(ROOT).as_posix(), file.read_text(encoding="utf-8"))
        for package in PACKAGES
        for file in sorted((ROOT / package).rglob("*.py"))
    )
