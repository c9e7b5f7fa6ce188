"""A trial that Vertex AI runs: what it appends to the arguments is tried, and the objective is left where it looks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tidemill.errors import UsageError
from tidemill.tune.managed import hyperparameters
from tidemill.tune.run import conclude
from tidemill.tuning import Tuning
from tidemill.vertex.study import drawn


def test_what_vertex_ai_appends_is_read_as_json() -> None:
    words = ["--learning_rate=1e-05", '--optimizer.kind="sgd"', "--hidden_units=[8, 4]", "--max_steps=null"]
    assert hyperparameters(words) == {
        "learning_rate": 1e-05,
        "optimizer.kind": "sgd",
        "hidden_units": [8, 4],
        "max_steps": None,
    }


@pytest.mark.parametrize("word", ["--learning_rate", "learning_rate=1", "--optimizer.kind=sgd"])
def test_words_of_another_form_are_refused(word: str) -> None:
    with pytest.raises(UsageError, match="must be --<path>=<JSON>"):
        hyperparameters([word])


def trial(data: Any, directory: Path, *words: str, number: str = "3") -> subprocess.CompletedProcess[str]:
    given = {"bundle": data.pack({"space": {"learning_rate": {"low": 0.001, "high": 0.1}}, "objective": "auc"})}
    given |= {"transformed": data.transformed, "transform-graph": data.graph, "trials": directory / "trials"}
    arguments = [word for name, path in given.items() for word in (f"--{name}", str(path))]
    environment = {"CLOUD_ML_TRIAL_ID": number, "CLOUD_ML_HP_METRIC_FILE": str(directory / "hypertune" / "metrics")}
    return subprocess.run(
        [sys.executable, "-m", "tidemill.tune.managed", *arguments, "--objective", "auc", *words],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_trial_reports_its_objective_as_the_service_reads_it(data: Any, tmp_path: Path) -> None:
    done = trial(data, tmp_path, "--learning_rate=0.05", "--hidden_units=[4]")
    assert done.returncode == 0, done.stderr
    (line,) = (tmp_path / "hypertune" / "metrics").read_text().splitlines()
    told = json.loads(line)
    result = json.loads((tmp_path / "trials" / "3" / "result.json").read_text())
    assert float(told["auc"]) == result["metrics"]["auc"] > 0.5
    assert told["trial"] == "3"
    assert int(told["global_step"]) == result["epochs"] > 0
    assert isinstance(told["timestamp"], float)
    record = json.loads((tmp_path / "trials" / "3.json").read_text())
    assert record["summary"]["hyperparameters"] == {"learning_rate": 0.05, "hidden_units": [4]}


def test_the_study_that_vertex_ai_made_is_concluded(data: Any, tmp_path: Path) -> None:
    """As `tidemill.vertex.tuning_jobs` writes it: what was measured, and what it was drawn from."""
    space = {
        "learning_rate": {"low": 0.001, "high": 0.1, "log": True},
        "dropout": {"low": 0.0, "high": 0.5, "step": 0.2},
        "batch_size": {"low": 16, "high": 64, "step": 16},
        "hidden_units": {"choices": [[4], [8, 4]]},
    }
    tuning = {"space": space, "objective": "auc", "budget": {"trials": 6}}
    trials = []
    for number in range(6):
        values = {
            "learning_rate": 0.01 * (number + 1),
            "dropout": 0.2 * (number % 3),
            "batch_size": 16 * (number % 4 + 1),
            "hidden_units": [[4], [8, 4]][number % 2],
        }
        parameters, distributions = drawn(values, Tuning.model_validate(tuning))
        result = {"number": number, "rung": 0, "metrics": {"auc": 0.6 + 0.01 * number}, "folds": []}
        trial = {"number": number, "cohort": 0, "bracket": 0, "state": "complete", "reason": "", "results": [result]}
        trials.append({**trial, "hyperparameters": values, "parameters": parameters, "distributions": distributions})
    trials[5] |= {"state": "failed", "reason": "The trial reported no measurement.", "results": []}
    (tmp_path / "study").mkdir()
    study = {"trials": trials, "round": 1, "stopped": "Vertex AI has run all trials"}
    (tmp_path / "study" / "study.json").write_text(json.dumps(study))
    found = conclude(data.pack(tuning), tmp_path / "study", [], tmp_path / "hyperparameters", tmp_path / "tuning")
    assert (found.best, found.value) == (4, pytest.approx(0.64))
    told = json.loads((tmp_path / "hyperparameters" / "hyperparameters.json").read_text())
    assert told == trials[4]["hyperparameters"]
    document = json.loads((tmp_path / "tuning" / "tuning.json").read_text())
    assert document["importance"].keys() == space.keys()
    assert document["trials"] == {"complete": 5, "failed": 1}


def test_a_configuration_that_cannot_be_trained_measures_nothing(data: Any, tmp_path: Path) -> None:
    """Vertex AI calls a trial without a measurement infeasible, and suggests another."""
    done = trial(data, tmp_path, "--batch_size=32", "--per_replica_batch_size=32")
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "hypertune").exists()
    assert "not both" in json.loads((tmp_path / "trials" / "3" / "result.json").read_text())["error"]


def test_without_vertex_ais_variables_there_is_no_trial(data: Any, tmp_path: Path) -> None:
    done = trial(data, tmp_path, number="")
    assert (done.returncode, "needs CLOUD_ML_TRIAL_ID" in done.stderr) == (5, True)
