"""``tidemill runs compare`` on run directories as runs leave them."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from tidemill.errors import UsageError
from tidemill.files import write_json
from tidemill.runs import Artifact, RunRecord, TaskRecord

Invoke = Callable[..., Result]
TARIFF = {"currency": "EUR", "cpu_hour": 0.36, "gib_hour": 0.0, "hourly": {}}


def estimate(value: float, half: float = 0.01) -> dict[str, float]:
    return {"value": value, "low": value - half, "high": value + half}


def lay_run(
    root: Path,
    name: str,
    *,
    auc: dict[str, float],
    log_loss: dict[str, float],
    problem: dict[str, Any],
    data: str = "sha256:aa",
    speed: float = 100_000.0,
    passed: bool = True,
    cpu_s: float = 100.0,
) -> None:
    """Writes a run that got as far as its evaluation."""
    run_dir = root / "runs" / name
    evaluation, blessing = run_dir / "artifacts" / "evaluation", run_dir / "artifacts" / "blessing"
    gap = {"over": ["sex"], "groups": [], "metrics": {"equal_opportunity_gap": estimate(0.3 - auc["value"] / 4)}}
    whole = {"slice": {}, "count": 100, "values": {"auc": auc, "log_loss": log_loss}}
    task = "binary_classification"
    write_json(evaluation / "metrics.json", {"task": task, "metrics": [whole], "fairness": [gap]})
    check = {"name": "auc", "passed": passed, "expected": ">= 0.8", "got": "", "message": "", "slice": {"sex": "f"}}
    write_json(blessing / "blessing.json", {"decision": {"gate": "model", "passed": passed, "checks": [check]}})
    outputs = {"evaluation": Artifact(str(evaluation), "0"), "blessing": Artifact(str(blessing), "0")}
    started = "2026-03-01T12:00:00+00:00"
    summary = {"examples_per_second": speed, "steps": 40, "strategy": "default"}
    TaskRecord("train", "tensorflow", "succeeded", started, 30.0, cpu_s=cpu_s, summary=summary).write(run_dir)
    TaskRecord("evaluate", "tensorflow", "succeeded", f"{started[:18]}1+00:00", 5.0, outputs=outputs).write(run_dir)
    (root / "bundles").mkdir(exist_ok=True)
    with zipfile.ZipFile(root / "bundles" / f"{name}.zip", "w") as archive:
        archive.writestr("problem.yaml", json.dumps(problem))
    RunRecord(
        name, "loans", "training", "completed", started, started, 40.0, "loans.csv", data, bundle=name, tariff=TARIFF
    ).write(run_dir)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A first run, and a second that learns faster, separates better and is calibrated worse."""
    first = {"name": "loans", "training": {"hidden_units": [64, 32], "dropout": 0.1}}
    second = {"name": "loans", "training": {"hidden_units": [16], "dropout": 0.1, "max_epochs": 3}}
    lay_run(tmp_path, "one", auc=estimate(0.80), log_loss=estimate(0.40), problem=first, passed=False)
    lay_run(
        tmp_path,
        "two",
        auc=estimate(0.90),
        log_loss=estimate(0.45),
        problem=second,
        speed=200_000.0,
        cpu_s=50.0,
    )
    return tmp_path


@pytest.fixture
def compared(root: Path, invoke: Invoke) -> dict[str, Any]:
    answer = invoke("runs", "compare", "one", "two", "--runs-dir", str(root), "--json")
    return dict(json.loads(answer.stdout))


def rows(compared: dict[str, Any], section: str) -> dict[str, tuple[Any, Any, str]]:
    return {row["name"]: (row["first"], row["second"], row["judgement"]) for row in compared[section]}


def test_settings_that_differ_are_told_by_path(compared: dict[str, Any]) -> None:
    assert rows(compared, "settings") == {
        "training.hidden_units": ([64, 32], [16], ""),
        "training.max_epochs": (None, 3, ""),
    }


def test_metrics_are_judged_by_their_own_direction(compared: dict[str, Any]) -> None:
    metrics = rows(compared, "metrics")
    assert metrics["auc"] == (estimate(0.80), estimate(0.90), "better")
    assert metrics["log_loss"][2] == "worse"
    assert rows(compared, "fairness")["equal_opportunity_gap[sex]"][2] == "better"


def test_what_intervals_do_not_tell_apart_is_noise(tmp_path: Path, invoke: Invoke) -> None:
    for name, auc in (("one", 0.80), ("two", 0.81)):
        lay_run(tmp_path, name, auc=estimate(auc, 0.02), log_loss=estimate(0.4), problem={})
    answer = invoke("runs", "compare", "one", "two", "--runs-dir", str(tmp_path), "--json")
    assert rows(json.loads(answer.stdout), "metrics")["auc"][2] == "same"


def lay_output(run_dir: Path, task: str, name: str, file: str, content: Any) -> None:
    """Adds a task with one artefact to a run."""
    write_json(run_dir / "artifacts" / name / file, content)
    outputs = {name: Artifact(str(run_dir / "artifacts" / name), "0")}
    TaskRecord(task, "tensorflow", "succeeded", "2026-03-01T12:00:09+00:00", 1.0, outputs=outputs).write(run_dir)


def test_what_a_tuning_found_takes_the_place_of_the_problems_own(root: Path, invoke: Invoke) -> None:
    found = {"dropout": 0.3, "optimizer.kind": "lion"}
    lay_output(root / "runs" / "two", "conclude", "hyperparameters", "hyperparameters.json", found)
    settings = rows(
        json.loads(invoke("runs", "compare", "one", "two", "--runs-dir", str(root), "--json").stdout), "settings"
    )
    assert settings["training.dropout"] == (0.1, 0.3, "")
    assert settings["training.optimizer.kind"] == (None, "lion", "")


def test_checks_of_variants_that_turned_are_named(root: Path, invoke: Invoke) -> None:
    for name, passed in (("one", True), ("two", False)):
        check = {"name": "auc.edge", "passed": passed, "expected": "", "got": "", "message": ""}
        decision = {"gate": "compression", "passed": passed, "checks": [check]}
        lay_output(root / "runs" / name, "compress", "compression", "compression.json", {"decision": decision})
    answer = invoke("runs", "compare", "one", "two", "--runs-dir", str(root), "--json")
    assert rows(json.loads(answer.stdout), "checks")["auc.edge"] == ("passed", "failed", "")


def test_checks_that_turned_are_named(compared: dict[str, Any]) -> None:
    assert rows(compared, "checks") == {"auc of sex=f": ("failed", "passed", "")}


def test_speed_and_cost_are_compared(compared: dict[str, Any]) -> None:
    efficiency = rows(compared, "efficiency")
    assert efficiency["examples/s"] == (100_000.0, 200_000.0, "better")
    assert efficiency["cost, EUR"][:2] == (pytest.approx(0.01), pytest.approx(0.005))
    assert efficiency["strategy"] == ("default", "default", "")


def test_people_are_shown_what_changed(root: Path, invoke: Invoke) -> None:
    shown = invoke("runs", "compare", "one", "two", "--runs-dir", str(root)).stdout
    lines = [line.split() for line in shown.splitlines()]
    assert ["training.max_epochs", "–", "3"] in lines
    assert ["auc", "0.8", "[0.79,", "0.81]", "0.9", "[0.89,", "0.91]", "+0.1", "better"] in lines
    assert ["examples/s", "100,000", "200,000", "+100", "%", "better"] in lines
    assert "The data differ" not in shown


def test_runs_on_other_data_are_told_apart(root: Path, invoke: Invoke) -> None:
    lay_run(root, "three", auc=estimate(0.8), log_loss=estimate(0.4), problem={}, data="sha256:bb")
    shown = invoke("runs", "compare", "one", "three", "--runs-dir", str(root)).stdout
    assert "The data differ, and the test rows with them" in shown


def test_a_run_may_be_given_by_its_directory(
    root: Path, tmp_path_factory: pytest.TempPathFactory, invoke: Invoke
) -> None:
    copied = tmp_path_factory.mktemp("copied") / "two"
    (root / "runs" / "two").rename(copied)
    shown = invoke("runs", "compare", "one", str(copied), "--runs-dir", str(root), "--json").stdout
    assert json.loads(shown)["second"] == "two"


def test_a_run_that_failed_early_is_compared_as_far_as_it_got(root: Path, invoke: Invoke) -> None:
    run_dir = root / "runs" / "early"
    RunRecord("early", "loans", "training", "bad_input", "2026-03-02T12:00:00+00:00").write(run_dir)
    shown = invoke("runs", "compare", "early", "two", "--runs-dir", str(root)).stdout
    assert "bad_input" in shown
    assert ["auc", "–", "0.9", "[0.89,", "0.91]"] in [line.split() for line in shown.splitlines()]


def test_an_unknown_run_is_refused(root: Path, invoke: Invoke) -> None:
    with pytest.raises(UsageError, match="run none: no such run"):
        invoke("runs", "compare", "none", "two", "--runs-dir", str(root))
