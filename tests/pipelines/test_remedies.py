"""Commands that error texts name are commands of the CLI, given what they take in the order in which they take it."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

ROOT = Path(__file__).parents[2]
SOURCES = sorted([*(ROOT / "components").rglob("*.py"), *(ROOT / "pipelines" / "tidemill_pipelines").rglob("*.py")])
COMMAND = re.compile(r"`tidemill ([^`]+)`")
ELLIPSIS = "…"
ALSO = {"name": {"model"}}
"""What stands for an argument, beside its own name."""


def texts(source: str) -> Iterator[str]:
    """Yields the strings of a module, what an f-string fills in as ``⟨expression⟩``; docstrings apart."""
    tree = ast.parse(source)
    inner = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in ast.walk(node)}
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(
                str(part.value) if isinstance(part, ast.Constant) else f"⟨{ast.unparse(part.value)}⟩"
                for part in node.values
                if isinstance(part, (ast.Constant, ast.FormattedValue))
            )
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and not {id(node)} & (inner | prose):
            yield node.value


def faults(line: str) -> list[str]:
    """Returns what is wrong with a command line, without the program's name.

    An upper-case word stands for the argument of that name. What is filled in must be named as the argument is, or as
    the option that it follows.
    """
    from tidemill_pipelines.cli import app

    command: Any = typer.main.get_command(app)
    words = shlex.split(
        re.sub(r"⟨([^⟩]*)⟩", lambda filled: f"⟨{'.'.join(re.findall(r'[A-Za-z_]+', filled[1]))}⟩", line)
    )
    while hasattr(command, "commands"):
        if not words or words[0] not in command.commands:
            return [f"no command {words[0] if words else ''}"]
        command, *words = command.commands[words[0]], *words[1:]
    options = {option: p for p in command.params for option in [*p.opts, *p.secondary_opts] if option.startswith("-")}
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    found, rest = [], iter(words)
    for word in rest:
        if word == ELLIPSIS:
            continue
        if word.startswith("-"):
            if (option := options.get(word.split("=")[0])) is None:
                found.append(f"no option {word}")
            elif not option.is_flag and "=" not in word:
                next(rest, None)
        elif not arguments:
            found.append(f"no argument for {word}")
        else:
            argument = arguments.pop(0)
            names = {argument.name, (argument.metavar or argument.name).lower(), *ALSO.get(argument.name, ())}
            told = word.strip("⟨⟩").lower().split(".") if word.startswith("⟨") or word.isupper() else ()
            if told and names.isdisjoint(told):
                found.append(f"{word} stands where {argument.name} is due")
    return found


def named() -> list[tuple[str, str]]:
    return [
        (str(path.relative_to(ROOT)), line)
        for path in SOURCES
        for text in texts(path.read_text(encoding="utf-8"))
        for line in COMMAND.findall(text)
    ]


@pytest.mark.parametrize(("path", "line"), named())
def test_what_an_error_tells_one_to_run_can_be_run(path: str, line: str) -> None:
    assert not faults(line), f"{path}: `tidemill {line}`"


def test_there_are_some() -> None:
    assert len(named()) > 10


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("schedule update ⟨name⟩ …", "⟨name⟩ stands where problem_dir is due"),
        ("schedule change PROBLEM_DIR", "no command change"),
        ("schedule", "no command "),
        ("runs show ⟨run⟩ --targets …", "no option --targets"),
        ("models list NAME OTHER", "no argument for"),
    ],
)
def test_a_command_that_is_none_is_found(line: str, fault: str) -> None:
    assert any(fault in found for found in faults(line))


def test_every_kind_of_string_is_read() -> None:
    source = '''
"""`tidemill docstring`"""
a = "`tidemill plain`"
b = f"`tidemill filled {self.name} --to {x!r}`" "`tidemill joined`"
'''
    assert [line for text in texts(source) for line in COMMAND.findall(text)] == [
        "plain",
        "filled ⟨self.name⟩ --to ⟨x⟩",
        "joined",
    ]
