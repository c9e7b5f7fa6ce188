"""``tidemill run`` and ``tidemill runs`` on records that are there; whole runs are in tests/integration."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from tidemill.decisions import Check, Decision
from tidemill.errors import ProblemError, UsageError
from tidemill.files import write_json
from tidemill.runs import Artifact, RunRecord, TaskRecord
from tidemill_pipelines.cli import app
from tidemill_pipelines.commands.live import RunView
from tidemill_pipelines.commands.run import _conclude
from tidemill_pipelines.targets.local.layout import Layout
from tidemill_pipelines.targets.local.runner import Observer, Request
from tidemill_pipelines.targets.local.runner import run as run_locally

PROBLEM = """
name: loans
task: regression
label: {column: y}
features: {x: numeric}
"""
RECORD = RunRecord(
    "loans-1", "loans", "training", "refused", "2026-01-01T10:00:00", wall_s=3.0, source="data/[a-z]:car:.csv"
)


@pytest.fixture
def runs_dir(tmp_path: Path) -> Path:
    """One run that a gate refused."""
    run_dir = tmp_path / "runs" / RECORD.id
    RECORD.write(run_dir)
    group = Check("auc", False, ">= 0.9", "0.8", "auc of [bold] is 0.8.", 0.8, 0.9, {"income": "[low, high]"})
    write_json(run_dir / "blessing" / "blessing.json", {"decision": Decision("model", (group,)).to_json()})
    outputs = {"blessing": Artifact(str(run_dir / "blessing"), "")}
    TaskRecord("evaluate", "tensorflow", "cached", "1", outputs=outputs, cache_reason="the same").write(run_dir)
    error = {"message": "model gate: 1 of 1 checks failed\n  - auc of [bold] is 0.8."}
    TaskRecord("model-gate", "control", "failed", "2", exit_code=3, error=error).write(run_dir)
    return tmp_path


@pytest.fixture
def problem_dir(tmp_path: Path) -> Path:
    directory = tmp_path / "a problem [bold]"
    directory.mkdir()
    (directory / "problem.yaml").write_text(PROBLEM)
    return directory


def invoke(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False, env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    return result.output


def test_a_run_is_shown_with_its_reasons_as_they_were_written(runs_dir: Path) -> None:
    text = invoke("runs", "show", "--runs-dir", runs_dir)
    assert text.splitlines()[0] == "loans-1  refused  2026-01-01 10:00:00 UTC"
    assert "data/[a-z]:car:.csv" in text
    assert "auc of [bold] is 0.8." in text
    assert "the same" in invoke("runs", "show", "loans-1", "--why-cached", "--runs-dir", runs_dir)


def test_the_json_of_a_run_has_its_record_its_reasons_and_its_tasks(runs_dir: Path) -> None:
    shown = json.loads(invoke("runs", "show", "loans-1", "--json", "--runs-dir", runs_dir))
    assert (shown["run"], shown["problem"], shown["source"]) == ("loans-1", "loans", RECORD.source)
    assert (shown["verdict"], shown["exit_code"]) == ("refused", 3)
    assert shown["refusals"] == ["auc of [bold] is 0.8."]
    assert [task["name"] for task in shown["tasks"]] == ["evaluate", "model-gate"]


def test_runs_are_listed_and_filtered_by_problem(runs_dir: Path) -> None:
    assert "refused" in invoke("runs", "list", "--runs-dir", runs_dir)
    assert json.loads(invoke("runs", "list", "--problem", "taxi", "--json", "--runs-dir", runs_dir)) == []
    assert "no runs below" in invoke("runs", "list", "--problem", "taxi", "--runs-dir", runs_dir)


def test_a_run_without_report_cannot_be_opened(runs_dir: Path) -> None:
    with pytest.raises(UsageError, match="has no report"):
        invoke("runs", "open", "--runs-dir", runs_dir)


def test_the_conclusion_shows_names_from_the_data_as_they_are(
    runs_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _conclude(RECORD, runs_dir / "runs" / RECORD.id)
    told = capsys.readouterr().out
    assert "refused by a gate in 3.0 s" in told
    assert "✗ auc of income=[low, high]: 0.8, limit >= 0.9" in told


def test_without_a_terminal_the_stages_are_plain_lines() -> None:
    console = Console(width=200, record=True, markup=False, emoji=False, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    with RunView(console) as view:
        view.planned(RECORD)
        view.task(TaskRecord("ingest", "tensorflow", "running", ""))
        view.task(TaskRecord("ingest", "tensorflow", "failed", "", wall_s=1.0, exit_code=4))
    console.file.close()
    assert console.export_text().splitlines() == [
        "run loans-1: loans from data/[a-z]:car:.csv",
        "ingest: started",
        "ingest: failed in 1.0 s",
    ]


def test_the_runs_of_a_loop_take_its_place_among_the_stages() -> None:
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    with RunView(console, quiet=True) as view:
        view.planned(replace(RECORD, stages=("suggest-1", "round-1", "round-10", "conclude")))
        for name in ("round-1-trial-0", "round-1-trial-1"):
            view.task(TaskRecord(name, "tensorflow", "succeeded", "", wall_s=1.0, iteration_of="round-1"))
        console.print(view)
    console.file.close()
    shown = [word for line in console.export_text().splitlines() for word in line.split() if "-" in word or "c" in word]
    assert [word for word in shown if not word.startswith("MB")] == [
        *("suggest-1", "round-1-trial-0", "round-1-trial-1", "round-10", "conclude"),
    ]


def test_a_source_may_be_set_like_any_other_value_of_the_problem(problem_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"names no `ingest.source`"):
        invoke("run", problem_dir, "--runs-dir", tmp_path)
    with pytest.raises(Exception, match=r"elsewhere\.csv"):
        invoke("run", problem_dir, "--set", "ingest.source=elsewhere.csv", "--runs-dir", tmp_path)


def test_all_values_that_are_none_are_named(problem_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--set a, b: expected KEY=VALUE"):
        invoke("run", problem_dir, "--set", "a", "--set", "b", "--runs-dir", tmp_path)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"pipeline": "trainning"}, UsageError, "expected one of training"),
        ({"resume": ""}, UsageError, "no such run"),
        ({"resume": "taxi-1"}, UsageError, "expected|a run of taxi"),
        ({"overrides": {"training.max_epochs": "none"}}, ProblemError, "--set training.max_epochs"),
    ],
)
def test_what_cannot_begin_leaves_no_run(
    changes: dict[str, Any], error: type[Exception], message: str, problem_dir: Path, tmp_path: Path
) -> None:
    RunRecord("taxi-1", "taxi", "training", "released", "2026-01-01").write(tmp_path / "runs" / "taxi-1")
    (tmp_path / "t.csv").write_text("x,y\n1,2\n")
    observer = Observer(planned=lambda record: pytest.fail("began"), task=lambda record: None)
    with pytest.raises(error, match=message):
        run_locally(Request(problem_dir, str(tmp_path / "t.csv"), **changes), Layout(tmp_path), observer)
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["taxi-1"]


class Sudden(Exception):
    """Something that nobody foresaw."""


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (OSError(28, "No space left on device"), "platform_failure"),
        (KeyboardInterrupt(), "interrupted"),
        (Sudden(), "defect"),
    ],
)
def test_an_error_of_the_runner_itself_is_recorded(
    error: BaseException, verdict: str, problem_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tidemill_pipelines.targets.local import ir

    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(ir, "execute", fail)
    (tmp_path / "t.csv").write_text("x,y\n1,2\n")
    observer = Observer(planned=lambda record: None, task=lambda record: None)
    with pytest.raises(type(error)):
        run_locally(Request(problem_dir, str(tmp_path / "t.csv")), Layout(tmp_path), observer)
    assert Layout(tmp_path).find("latest").verdict == verdict


def test_a_run_in_which_nothing_happened_is_no_release(
    problem_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tidemill_pipelines.targets.local import ir

    monkeypatch.setattr(ir, "execute", lambda *_: None)
    (tmp_path / "t.csv").write_text("x,y\n1,2\n")
    observer = Observer(planned=lambda record: None, task=lambda record: None)
    record = run_locally(Request(problem_dir, str(tmp_path / "t.csv")), Layout(tmp_path), observer)
    assert record.verdict == "defect"


def test_a_resumed_run_forgets_what_the_tries_before_said(
    problem_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tidemill_pipelines.targets.local import ir

    monkeypatch.setattr(ir, "execute", lambda *_: None)
    (tmp_path / "t.csv").write_text("x,y\n1,2\n")
    observer = Observer(planned=lambda record: None, task=lambda record: None)
    request = Request(problem_dir, str(tmp_path / "t.csv"))
    first = run_locally(request, Layout(tmp_path), observer)
    stale = tmp_path / "runs" / first.id / "report.html"
    stale.write_text("of the first try")
    half = tmp_path / "runs" / first.id / "artifacts" / "training-1" / "ingest" / ".examples.0a1b.partial"
    half.mkdir(parents=True)
    again = run_locally(Request(problem_dir, request.source, resume="latest"), Layout(tmp_path), observer)
    assert again.id == first.id
    assert not stale.exists()
    assert not half.exists()


def test_what_has_ended_or_is_of_another_table_is_not_resumed(
    problem_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A finished run is evidence for a release: nothing may write over it."""
    from tidemill_pipelines.targets.local import ir

    monkeypatch.setattr(ir, "execute", lambda *_: None)
    table = tmp_path / "t.csv"
    table.write_text("x,y\n1,2\n")
    observer = Observer(planned=lambda record: None, task=lambda record: None)
    first = run_locally(Request(problem_dir, str(table)), Layout(tmp_path), observer)
    again = Request(problem_dir, str(table), resume=first.id)
    table.write_text("x,y\n3,4\n")
    with pytest.raises(UsageError, match="the table is not that of the run"):
        run_locally(again, Layout(tmp_path), observer)
    table.write_text("x,y\n1,2\n")
    changed = Request(problem_dir, str(table), resume=first.id, overrides={"training.seed": "7"})
    with pytest.raises(UsageError, match="the problem is not that of the run"):
        run_locally(changed, Layout(tmp_path), observer)
    dataclasses.replace(first, verdict="released").write(tmp_path / "runs" / first.id)
    with pytest.raises(UsageError, match="has ended: released"):
        run_locally(again, Layout(tmp_path), observer)
