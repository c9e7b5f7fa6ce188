"""`tidemill schema` shows proposed changes by class and says what it wrote and what it left out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tidemill.errors import UsageError
from tidemill.runs import RunRecord
from tidemill_pipelines.commands import schema

CHANGES = [
    {"column": "city", "kind": "values", "class": "safe", "message": "new 'Paris'", "accepted": True},
    {"column": "age", "kind": "type", "class": "breaking", "message": "int64 → string", "accepted": False},
]


class Curation:
    """Stands in for the module in the validation environment, which has tests of its own."""

    def __init__(self, curated: bool = True, changes: Sequence[dict[str, Any]] = CHANGES) -> None:
        self.arguments: list[str] = []
        self.answer = {"path": "p/schema.pbtxt", "curated": curated, "written": False, "changes": list(changes)}

    def __call__(self, environment: str, module: str, arguments: Sequence[str]) -> Any:
        assert (environment, module) == ("validation", "tidemill.validate.curation")
        self.arguments = list(arguments)
        return {**self.answer, "written": arguments[0] == "accept" and bool(self.answer["changes"])}


PROBLEM = "name: loans\ntask: regression\nlabel: {column: y}\nfeatures: {x: numeric}\n"


@pytest.fixture
def runs_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two runs of the problem whose directory is ``problem``."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "problem").mkdir()
    (tmp_path / "problem" / "problem.yaml").write_text(PROBLEM)
    for name, started in (("loans-1", "2026-01-01T00:00:00"), ("loans-2", "2026-01-02T00:00:00")):
        RunRecord(name, "loans", "training", "refused", started).write(tmp_path / "runs" / name)
    return tmp_path


@pytest.fixture
def curation(monkeypatch: pytest.MonkeyPatch) -> Curation:
    curation = Curation()
    monkeypatch.setattr(schema, "call", curation)
    return curation


def invoke(*arguments: object) -> str:
    result = CliRunner().invoke(schema.app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_diff_lists_changes_with_their_class(curation: Curation, runs_dir: Path) -> None:
    output = invoke("diff", "problem", "loans-1", "--runs-dir", runs_dir)
    assert curation.arguments == ["diff", "problem", str(runs_dir / "runs" / "loans-1")]
    assert "safe" in output
    assert "new 'Paris'" in output
    assert "wrote" not in output


def test_the_latest_run_is_the_default(curation: Curation, runs_dir: Path) -> None:
    invoke("diff", "problem", "--runs-dir", runs_dir)
    assert curation.arguments[2] == str(runs_dir / "runs" / "loans-2")


def test_accept_says_what_it_wrote_and_left_out(curation: Curation, runs_dir: Path) -> None:
    output = invoke("accept", "problem", "loans-1", "--runs-dir", runs_dir)
    assert "wrote p/schema.pbtxt" in output
    assert "left out 1 breaking change; `--breaking` accepts them" in output
    assert "--breaking" not in curation.arguments


def test_accept_hands_on_that_breaking_changes_are_wanted(curation: Curation, runs_dir: Path) -> None:
    invoke("accept", "problem", "loans-1", "--breaking", "--runs-dir", runs_dir)
    assert curation.arguments[-1] == "--breaking"


@pytest.mark.parametrize("command", ["diff", "accept"])
def test_json_is_the_answer_itself(curation: Curation, runs_dir: Path, command: str) -> None:
    answer = json.loads(invoke(command, "problem", "loans-1", "--json", "--runs-dir", runs_dir))
    assert answer["changes"] == CHANGES
    assert answer["written"] is (command == "accept")


def test_agreement_is_said(monkeypatch: pytest.MonkeyPatch, runs_dir: Path) -> None:
    monkeypatch.setattr(schema, "call", Curation(changes=[]))
    assert "agrees with the curated schema" in invoke("diff", "problem", "loans-1", "--runs-dir", runs_dir)
    assert "nothing to accept" in invoke("accept", "problem", "loans-1", "--runs-dir", runs_dir)


def test_a_first_schema_is_announced(monkeypatch: pytest.MonkeyPatch, runs_dir: Path) -> None:
    monkeypatch.setattr(schema, "call", Curation(curated=False))
    assert "no curated schema yet" in invoke("diff", "problem", "loans-1", "--runs-dir", runs_dir)


def test_an_unknown_run_is_refused_before_anything_is_called(curation: Curation, runs_dir: Path) -> None:
    with pytest.raises(UsageError, match="no such run"):
        invoke("diff", "problem", "loans-9", "--runs-dir", runs_dir)
    with pytest.raises(UsageError, match="there is no run"):
        invoke("diff", "problem", "--runs-dir", runs_dir / "elsewhere")
    assert curation.arguments == []


def test_a_run_of_another_problem_is_refused(runs_dir: Path) -> None:
    """Its columns would be taken for this problem's, and the curated schema overwritten."""
    RunRecord("other-1", "other", "training", "released", "2026-01-01").write(runs_dir / "runs" / "other-1")
    for command in ("diff", "accept"):
        with pytest.raises(UsageError, match="expected a run of loans"):
            invoke(command, "problem", "other-1", "--runs-dir", runs_dir)
