"""The project stands on its own: no path of a machine, no host of a registry, and every version pinned."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.architecture.house import ROOT

# Written in parts: this file is searched too.
NOWHERE = tuple(
    "".join(parts)
    for parts in (
        ("/", "work/"),
        ("/", "root/"),
        ("/", "home/pi/"),
        ("py", "pi.org"),
        ("python", "hosted.org"),
        ("registry.", "npm"),
        ("deb.", "debian.org"),
        ("index", "-url"),
    )
)
LEFT_BY_TOOLS = re.compile(r"\.(?!ci$|gitignore$)|__pycache__$|build$|state$|.*\.egg-info$")


def files_in(folder: Path) -> Iterator[Path]:
    for entry in sorted(folder.iterdir()):
        if LEFT_BY_TOOLS.match(entry.name):
            continue
        if entry.is_dir():
            yield from files_in(entry)
        elif entry.is_file():
            yield entry


def mentions(text: str) -> list[str]:
    return [words for words in NOWHERE if words in text]


def test_no_file_mentions_a_path_of_one_machine_or_the_host_of_a_registry() -> None:
    found = {
        file.relative_to(ROOT).as_posix(): mentions(file.read_bytes().decode("utf-8", "replace"))
        for file in files_in(ROOT)
    }
    assert {"Makefile", "gateway/cli.py", ".ci/run"} <= set(found)
    assert {path: words for path, words in found.items() if words} == {}


@pytest.mark.parametrize("words", NOWHERE)
def test_a_mention_is_seen(words: str) -> None:
    assert mentions(f"see {words}simple") == [words]


def required_by_the_developers() -> set[str]:
    """The distributions that the extra `dev` asks for, through the extras that it names."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted: set[str] = set()
    waiting = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    while waiting:
        name, extras = re.match(r"([\w.-]+)(?:\[([\w,]+)\])?", waiting.pop()).groups()  # type: ignore[union-attr]
        if name == project["name"]:
            waiting += [
                line for extra in extras.split(",") for line in project["optional-dependencies"][extra]
            ]
        else:
            wanted.add(one_spelling(name))
    return wanted


def one_spelling(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


def test_every_version_is_pinned() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert [line for line in pins if not re.fullmatch(r"[\w.-]+==[\w.]+", line)] == []
    assert required_by_the_developers() - {one_spelling(line.partition("==")[0]) for line in pins} == set()
