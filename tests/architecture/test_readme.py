"""The tree that the README shows is the real tree."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from alerts.lifecycle import life_table_markdown
from gateway.families import table_markdown
from tests.architecture.house import ROOT

HEAD = "dripwatch/"
AND_MORE = {"...", "…"}
NOT_SHOWN = re.compile(r"[._]|build$|.*\.egg-info$|state$")
"""Hidden and private files, and what building and running leave behind."""

A_LINE = re.compile(r"(?P<branches>[\s│├└─|`+-]*)(?P<name>[^\s│├└─]+)")


def trees_shown(markdown: str) -> list[str]:
    """The fenced blocks whose first line is the name of the project's folder."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", markdown, re.DOTALL | re.MULTILINE)
    return [block for block in blocks if block.split("\n", 1)[0].split()[:1] == [HEAD]]


def paths_in(tree: str) -> list[str]:
    """The paths that a tree draws, from the root of the project. What follows a name is a comment."""
    paths: list[str] = []
    above: list[tuple[int, str]] = []
    for line in tree.splitlines()[1:]:
        drawn = A_LINE.match(line)
        if drawn is None:
            continue
        column, name = drawn.start("name"), drawn["name"]
        while above and above[-1][0] >= column:
            above.pop()
        paths.append("".join(folder for _, folder in above) + name)
        if name.endswith("/"):
            above.append((column, name))
    return paths


def differences(paths: list[str], root: Path) -> list[str]:
    """What is drawn and not there, and what is there and not drawn in a folder that is drawn open."""
    drawn = {path.rstrip("/") for path in paths if Path(path).name not in AND_MORE}
    wrong = [f"{path} is drawn, but is not there" for path in sorted(drawn) if not (root / path).exists()]
    parents = [Path(path.rstrip("/")).parent for path in paths]
    cut_short = {Path(path).parent for path in paths if Path(path).name in AND_MORE}
    for folder in sorted({*parents, Path()} - cut_short):
        for entry in sorted((root / folder).iterdir()) if (root / folder).is_dir() else []:
            path = entry.relative_to(root).as_posix()
            if not NOT_SHOWN.match(entry.name) and path not in drawn:
                wrong.append(f"{path} is there, but is not drawn")
    return wrong


def test_the_tree_in_the_readme_is_the_real_tree() -> None:
    for readme in ROOT.glob("README.md"):
        shown = trees_shown(readme.read_text(encoding="utf-8"))
        assert len(shown) == 1, f"README.md must show one tree: a fenced block that begins with {HEAD}"
        assert differences(paths_in(shown[0]), ROOT) == []


A_TREE = """\
dripwatch/
├── gateway/            compose, judge
│   ├── core/
│   │   └── monitor.py  the heart
│   └── engine.py
└── README.md
"""


def test_a_tree_is_read_as_it_is_drawn() -> None:
    assert paths_in(A_TREE) == [
        "gateway/",
        "gateway/core/",
        "gateway/core/monitor.py",
        "gateway/engine.py",
        "README.md",
    ]


def test_a_tree_drawn_with_spaces_alone_is_read_too() -> None:
    assert paths_in(re.sub("[│├└─]", " ", A_TREE)) == paths_in(A_TREE)


@pytest.fixture
def real(tmp_path: Path) -> Path:
    for path in paths_in(A_TREE):
        if path.endswith("/"):
            (tmp_path / path).mkdir()
        else:
            (tmp_path / path).touch()
    return tmp_path


def test_a_true_tree_differs_in_nothing(real: Path) -> None:
    assert differences(paths_in(A_TREE), real) == []


def test_a_file_that_has_gone_is_seen(real: Path) -> None:
    (real / "gateway/engine.py").unlink()
    assert differences(paths_in(A_TREE), real) == ["gateway/engine.py is drawn, but is not there"]


@pytest.mark.parametrize("new", ["drivers", "gateway/lanes.py", "gateway/core/assess.py"])
def test_a_new_file_is_seen(real: Path, new: str) -> None:
    (real / new).touch()
    assert differences(paths_in(A_TREE), real) == [f"{new} is there, but is not drawn"]


@pytest.mark.parametrize("new", [".git", "gateway/__init__.py", "build"])
def test_a_file_that_is_nobodys_subject_is_not_asked_for(real: Path, new: str) -> None:
    (real / new).touch()
    assert differences(paths_in(A_TREE), real) == []


def test_a_folder_may_say_that_there_is_more_in_it(real: Path) -> None:
    (real / "gateway/core/assess.py").touch()
    tree = A_TREE.replace("│   │   └── monitor.py", "│   │   ├── ...\n│   │   └── monitor.py")
    assert differences(paths_in(tree), real) == []


def test_the_life_of_an_alert_in_the_readme_is_the_one_in_the_code() -> None:
    assert life_table_markdown() in (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_families_in_the_readme_are_those_in_the_code() -> None:
    assert table_markdown() in (ROOT / "README.md").read_text(encoding="utf-8")
