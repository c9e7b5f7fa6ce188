"""What the documents say exists, exists: commands, options, make targets, paths and links."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

ROOT = Path(__file__).parents[2]
TRACKED = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True).stdout.split()
DOCUMENTS = [ROOT / name for name in TRACKED] or sorted(p for p in ROOT.glob("*.md"))
BLOCK = re.compile(r"^```(?:sh|console|bash)\n(.*?)^```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`((?:make|tidemill) [^`]+)`")
LINK = re.compile(r"\]\((?!https?:|#|mailto:)([^)#\s]+)")


def commands(document: Path) -> list[str]:
    """Returns every command line of a document that starts with make or tidemill."""
    text = document.read_text()
    lines = "\n".join(BLOCK.findall(text)).replace("\\\n", " ").splitlines()
    lines = [line.removeprefix("$ ").removeprefix(".venv/bin/").split("  #")[0].split(" #")[0] for line in lines]
    return [line.strip() for line in [*lines, *INLINE.findall(text)] if re.match(r"(make|tidemill) ", line)]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_somewhere(document: Path) -> None:
    missing = [link for link in LINK.findall(document.read_text()) if not (document.parent / link).exists()]
    assert not missing


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_command_is_one(document: Path) -> None:
    from tidemill_pipelines.cli import app

    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    root = typer.main.get_command(app)
    for line in commands(document):
        program, *words = shlex.split(line.replace("…", "").replace("...", ""))
        if program == "make":
            goals = [word for word in words if "=" not in word]
            assert set(goals) <= targets, line
        else:
            check(root, words, line)


def check(command: Any, words: list[str], line: str) -> None:
    """Asserts that the subcommands and options of a command line exist."""
    while hasattr(command, "commands") and words:
        name = words[0]
        if name.startswith("-") or "|" in name:
            break
        assert name in command.commands, f"{line}: no command {name}"
        command, words = command.commands[name], words[1:]
    known = {option for parameter in command.params for option in [*parameter.opts, *parameter.secondary_opts]}
    known |= {"--help", "-h", "--install-completion", "--show-completion"}
    for word in words:
        if word.startswith("--"):
            assert word.split("=")[0] in known, f"{line}: no option {word}"


def test_every_directory_of_tests_is_run_by_make_and_every_path_of_make_exists() -> None:
    text = (ROOT / "Makefile").read_text()
    named = set(re.findall(r"(?<![\w/.])(?:tests|components|pipelines)/[\w./-]+", text))
    assert not [path for path in named if not (ROOT / path).exists()]
    kept = {path.parent for path in ROOT.glob("tests/**/test_*.py") if "benchmarks" not in path.parts}
    assert {str(path.relative_to(ROOT)) for path in kept} <= named


def test_every_command_of_make_is_one() -> None:
    from tidemill_pipelines.cli import app

    lines = re.findall(r"\$\(BIN\)/tidemill (.+)", (ROOT / "Makefile").read_text())
    assert lines
    for line in lines:
        check(typer.main.get_command(app), shlex.split(line.partition(" 2>")[0]), line)


def test_the_checks_above_can_fail(tmp_path: Path) -> None:
    faulty = tmp_path / "faulty.md"
    faulty.write_text("```sh\ntidemill run . --no-such-option\n```\n[link](nowhere.md)\n")
    with pytest.raises(AssertionError):
        test_every_link_leads_somewhere(faulty)
    with pytest.raises(AssertionError):
        test_every_command_is_one(faulty)


def test_the_picture_of_the_pipeline_shows_every_task_of_it() -> None:
    from tidemill.report.graph import edges_of

    ir = yaml.safe_load((ROOT / "tests" / "pipelines" / "goldens" / "training.local.yaml").read_text())
    picture = (ROOT / "pipelines" / "pictures" / "training.svg").read_text()
    assert set(re.findall(r'font-weight="600"[^>]*>([\w-]+)<', picture)) == set(edges_of(ir))
