"""A tuning as a user runs it: rounds of trials that go on from their checkpoints, and a model of the best."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from command import Command

SPACE = "{learning_rate: {low: 1.0e-3, high: 1.0e-1, log: true}, hidden_units: {choices: [[8], [16, 8]]}}"
SEARCH = (
    f"tuning={{space: {SPACE}, objective: auc, budget: {{trials: 2}}, trials_per_round: 2, pruning: {{kind: halving}}}}"
)
# No model passes: what comes after the gate is other tests' matter.
HOPELESS = "gates={data: {min_rows: 500}, quality: [{metric: auc, min: 0.9999}]}"
ARGUMENTS = ("--pipeline", "tuning", "--set", SEARCH, "--set", HOPELESS)


@pytest.fixture(scope="module")
def searched(tidemill: Command, released: Any, loans: Path) -> Any:
    """The summary of a first tuning; the stages before it are those of the released run."""
    return tidemill.run(loans, *ARGUMENTS)


def document(tidemill: Command, run: str, task: str, output: str, file: str) -> Any:
    record = json.loads((tidemill.runs_dir / "runs" / run / "tasks" / f"{task}.json").read_text())
    return json.loads((Path(record["outputs"][output]["uri"]) / file).read_text())


def test_the_best_trial_goes_on_from_its_checkpoint_and_its_hyperparameters_train_the_model(
    tidemill: Command, searched: Any
) -> None:
    assert searched["verdict"] == "refused", searched
    tasks = searched["tasks"]
    assert {name for name in tasks if name.startswith("round-1-")} == {"round-1-trial-0", "round-1-trial-1"}
    (again,) = (name for name in tasks if name.startswith("round-2-"))
    assert tasks["transform"]["status"] == "cached"
    log = (tidemill.runs_dir / "runs" / searched["run"] / "logs" / f"{again}.log").read_text()
    assert "resumed in epoch 2" in log
    found = document(tidemill, searched["run"], "conclude", "tuning", "tuning.json")
    assert again == f"round-2-trial-{found['best']}"
    assert found["trials"] == {"complete": 1, "pruned": 1}
    training = document(tidemill, searched["run"], "train", "history", "history.json")["training"]
    assert found["hyperparameters"].items() <= training.items()


def test_the_report_tells_what_was_found(searched: Any) -> None:
    page = Path(searched["report"]).read_text()
    assert '<section id="tuning"' in page
    assert "Trials by their hyperparameters" in page


def test_the_same_search_is_reused_trial_by_trial(tidemill: Command, searched: Any, loans: Path) -> None:
    again = tidemill.run(loans, *ARGUMENTS)
    trials = {name: task for name, task in again["tasks"].items() if name.startswith("round-")}
    assert {task["status"] for task in trials.values()} == {"cached"}
    assert trials.keys() == {name for name in searched["tasks"] if name.startswith("round-")}


def test_a_problem_that_says_nothing_of_tuning_is_refused_with_a_remedy(
    tidemill: Command, loans: Path, tmp_path: Path
) -> None:
    (tmp_path / "problem.yaml").write_text(
        "{name: toy, task: binary_classification, label: {column: repaid, positive: 'yes'}, features: {age: numeric}}"
    )
    done = tidemill("run", str(tmp_path), "--source", str(loans), "--pipeline", "tuning")
    assert done.returncode == 4
    assert "needs `tuning` in problem.yaml" in done.stderr
