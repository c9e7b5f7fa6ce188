"""What all of the command's parts have in common: a quick start, help with examples, JSON, completion, exit codes."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import typer
from typer.testing import CliRunner

from tidemill.errors import DataError
from tidemill_pipelines import cli
from tidemill_pipelines.cli import app


def leaves(command: click.Command, name: str = "tidemill") -> Iterator[tuple[str, click.Command]]:
    """Yields every command that does something, with its full name."""
    if not hasattr(command, "commands"):
        yield name, command
        return
    for each, sub in command.commands.items():
        yield from leaves(sub, f"{name} {each}")


LEAVES = dict(leaves(typer.main.get_command(app)))


def test_the_commands_are_all_found() -> None:
    assert {"tidemill run", "tidemill init", "tidemill runs show", "tidemill schema diff"} <= set(LEAVES)


@pytest.mark.parametrize("name", LEAVES)
def test_every_commands_help_has_an_example_of_itself(name: str) -> None:
    told = LEAVES[name].help or ""
    assert "Example" in told
    assert name in told.partition("Example")[2]


@pytest.mark.parametrize("name", sorted(set(LEAVES) - {"tidemill runs open", "tidemill schema json"}))
def test_every_command_that_tells_something_tells_it_as_json_too(name: str) -> None:
    assert "--json" in {option for parameter in LEAVES[name].params for option in parameter.opts}


def test_the_command_starts_without_what_only_its_work_needs() -> None:
    heavy = ("kfp", "pydantic", "google.auth", "jinja2", "kubernetes")
    code = f"import sys, tidemill_pipelines.cli; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_shell_completes_commands() -> None:
    asked = {"_TIDEMILL_COMPLETE": "complete_bash", "COMP_WORDS": "tidemill ru", "COMP_CWORD": "1"}
    program = Path(sys.executable).with_name("tidemill")
    done = subprocess.run([program], capture_output=True, text=True, env={**os.environ, **asked})
    assert done.stdout.split() == ["run", "runs"]


@pytest.mark.parametrize(
    ("error", "exit_code", "said"),
    [
        (DataError("t.csv", "is empty"), 4, "error DataError\nt.csv: is empty\n"),
        (OSError(errno.ENOSPC, "No space left on device", "[x]/run.json"), 5, "error PlatformError\n[x]/run.json: "),
        (PermissionError(errno.EACCES, "Permission denied", "runs"), 5, "right to it"),
    ],
)
def test_an_error_ends_in_a_few_lines_with_its_exit_code(
    error: Exception,
    exit_code: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == exit_code
    assert said in capsys.readouterr().err


def test_a_defect_keeps_its_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise FileNotFoundError(errno.ENOENT, "No such file", "x")

    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(FileNotFoundError):
        cli.main()


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "problem", "--beam-runner", "prism"),
        ("run", __file__),
        ("runs", "list", "--runs-dir", __file__),
        ("run", "problem", "--no-such-option"),
    ],
)
def test_a_mistyped_command_is_told_at_once(arguments: tuple[str, ...]) -> None:
    assert CliRunner().invoke(app, arguments).exit_code == 2
