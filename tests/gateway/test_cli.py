"""The command ``dripwatch``: a table of sub-commands, and what a person is told who types another word."""

from __future__ import annotations

import importlib
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from gateway import cli
from gateway.app import main as run_main
from gateway.intended_use import SHORT

ROOT = Path(__file__).parents[2]


def test_without_a_command_all_are_listed_and_the_status_is_2(capsys):
    assert cli.main([]) == 2
    said = capsys.readouterr().out
    assert all(f"  {name} " in said for name in cli.COMMANDS)
    assert SHORT in said


@pytest.mark.parametrize("word", ["-h", "--help", "help"])
def test_who_asks_for_help_gets_it_with_status_0(capsys, word):
    assert cli.main([word]) == 0
    assert "usage: dripwatch COMMAND" in capsys.readouterr().out


def test_the_version_is_that_of_the_package(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"dripwatch {metadata.version('dripwatch')}\n"


def test_a_word_that_is_no_command_is_named_and_all_that_are_listed(capsys):
    assert cli.main(["wach"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("dripwatch: there is no command 'wach'.")
    assert "dashboard" in said.err


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_each_command_is_where_the_table_says(name):
    command = cli.COMMANDS[name]
    if command.module in {"simulator", "alerts.dashboard"}:
        assert (ROOT / command.module.replace(".", "/") / "__main__.py").exists()
    else:
        assert callable(importlib.import_module(command.module).main)


def test_a_command_is_handed_what_stands_after_it_and_its_status_is_ours(capsys):
    assert cli.main(["families", "--json"]) == 0
    assert capsys.readouterr().out.startswith("[{")


def test_a_reader_that_goes_away_is_no_error():
    shell = f"set -o pipefail; {sys.executable} -m gateway families | head -c 1"
    done = subprocess.run(["bash", "-c", shell], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "a", "")


def test_the_simulator_is_a_process_of_its_own():
    command = [sys.executable, "-m", "gateway", "scenarios"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "occlusion" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["simulate"], "dripwatch simulate"),
        (["simulate", "alaris"], "dripwatch simulate alaris"),
        (["scenarios"], "dripwatch scenarios"),
    ],
)
def test_the_help_of_the_simulator_names_the_command_that_was_typed(arguments, name):
    command = [sys.executable, "-m", "gateway", *arguments, "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert done.stdout.startswith(f"usage: {name} [-h] ")
    assert "`" not in done.stdout
    assert "python -m" not in done.stdout


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (None, "cannot be read (No such file or directory)"),
        (b"\xff", "is not UTF-8 text"),
        (b"x = ", "it is not TOML 1.0"),
        (b'format = "dripwatch-gateway/1"\nhome = "h"\nstate_dir = "state"\n', "pump: there is none"),
    ],
)
def test_a_gateway_that_cannot_begin_says_why_with_the_file_and_ends_with_status_1(
    tmp_path, caplog, text, sentence
):
    file = tmp_path / "gateway.toml"
    if text is not None:
        file.write_bytes(text)
    assert run_main(["--config", str(file)]) == 1
    (said,) = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert said.startswith(f"{file}: {sentence}")
