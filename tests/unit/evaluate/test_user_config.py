"""A user's own EvalConfig: what it adds, and what of it can't be taken."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from tidemill.artifacts import parts
from tidemill.bundle import pack
from tidemill.decisions import read_decision
from tidemill.errors import ProblemError
from tidemill.evaluate.run import run
from tidemill.evaluate.user_config import UserConfig, read_user_config
from tidemill.problem import Problem, parse_problem

BINARY = "binary_classification"

CONFIG = """
slicing_specs {}
slicing_specs { feature_keys: "age" }
slicing_specs { feature_values { key: "sex" value: "Female" } }
metrics_specs {
  metrics { class_name: "AUC" threshold { value_threshold { lower_bound { value: 0.5 } upper_bound { value: 0.99 } } } }
  metrics {
    class_name: "BinaryCrossEntropy"
    config: '{"name": "bce"}'
    threshold { change_threshold { direction: LOWER_IS_BETTER absolute { value: 0.0 } relative { value: 0.01 } } }
  }
  metrics {
    class_name: "BalancedAccuracy"
    per_slice_thresholds {
      slicing_specs { feature_values { key: "sex" value: "Female" } }
      threshold { value_threshold { lower_bound { value: 0.95 } } }
    }
  }
  metrics { class_name: "BinaryAccuracy" }
  thresholds { key: "binary_accuracy" value { value_threshold { lower_bound { value: 0.6 } } } }
}
"""


@pytest.fixture
def problem(problem_of: Callable[..., dict[str, Any]]) -> Problem:
    return parse_problem(yaml.safe_dump(problem_of(BINARY, sensitive=[])), "problem.yaml")


def read(directory: Path, text: str, problem: Problem) -> UserConfig:
    (directory / "eval_config.pbtxt").write_text(text)
    return read_user_config(directory / "eval_config.pbtxt", problem)


def test_without_a_file_nothing_is_added(tmp_path: Path, problem: Problem) -> None:
    assert read_user_config(tmp_path / "eval_config.pbtxt", problem) == UserConfig()


def test_only_what_counts_cannot_give_is_left_to_tfma(tmp_path: Path, problem: Problem) -> None:
    config = read(tmp_path, CONFIG, problem)
    assert [[m.class_name for m in spec.metrics] for spec in config.engine] == [["BalancedAccuracy"]]
    assert config.keys == [("age",), ("sex",), ("sex",)]
    assert [(t.metric, t.shown) for t in config.thresholds] == [
        ("auc", "auc"),
        ("log_loss", "bce"),
        ("balanced_accuracy", "balanced_accuracy"),
        ("accuracy", "binary_accuracy"),
    ]


def test_a_threshold_of_another_cut_is_not_the_counts_own(tmp_path: Path, problem: Problem) -> None:
    config = read(
        tmp_path, """metrics_specs { metrics { class_name: "Recall" config: '{"thresholds": [0.9]}' } }""", problem
    )
    assert config.engine[0].metrics[0].class_name == "Recall"


def test_slices_metrics_and_thresholds_of_the_config_take_effect(
    tmp_path: Path, problem: Problem, examples_of: Callable[[str], Path], model_of: Callable[..., Path]
) -> None:
    (tmp_path / "eval_config.pbtxt").write_text(CONFIG)
    evaluation, blessing, predictions = (tmp_path / name for name in ("evaluation", "blessing", "predictions"))
    report = run(
        pack(problem, tmp_path, tmp_path / "bundles"),
        examples_of(BINARY),
        model_of(BINARY),
        model_of(BINARY, noise=0.5),
        evaluation,
        blessing,
        predictions,
    )
    checks = {check.name: check for check in read_decision(blessing).checks}
    assert {name: check.passed for name, check in checks.items()} == {
        "auc": True,
        "bce.change": True,
        "bce.relative_change": True,
        "balanced_accuracy": False,
        "binary_accuracy": True,
    }
    assert checks["balanced_accuracy"].slice == {"sex": "Female"}
    assert not report.passed

    rows = pa.concat_tables([pq.read_table(p) for p in parts(examples_of(BINARY), "test")]).to_pandas()
    # To TFMA a score at the threshold is negative, and rows without a score get exactly 0.5 from this model.
    answers = np.where(pq.read_table(predictions).to_pandas()["probability"] > 0.5, "yes", "no")
    for shown in json.loads((evaluation / "metrics.json").read_text())["metrics"]:
        if shown["slice"] in ({}, {"sex": "Female"}):
            chosen = (rows["sex"] == shown["slice"].get("sex", rows["sex"])).to_numpy()
            truth, answer = rows["label"].to_numpy()[chosen], answers[chosen]
            recalls = [np.mean(answer[truth == label] == label) for label in ("yes", "no")]
            assert shown["values"]["balanced_accuracy"]["value"] == pytest.approx(np.mean(recalls), abs=1e-6)
    assert (evaluation / "engine").is_dir()


def test_a_threshold_that_cannot_be_held_refuses(
    tmp_path: Path, problem: Problem, examples_of: Callable[[str], Path], model_of: Callable[..., Path]
) -> None:
    """A slice that no row is in, and a matrix, which is not a number: TFMA doesn't let either pass."""
    text = """metrics_specs { metrics { class_name: "AUC" per_slice_thresholds {
          slicing_specs { feature_values { key: "sex" value: "Other" } }
          threshold { value_threshold { lower_bound { value: 0.1 } } } } }
        metrics { class_name: "ConfusionMatrixPlot" threshold { value_threshold { lower_bound { value: 0.1 } } } } }"""
    (tmp_path / "eval_config.pbtxt").write_text(text)
    names = (tmp_path / name for name in ("none", "evaluation", "blessing", "predictions"))
    assert not run(pack(problem, tmp_path, tmp_path / "bundles"), examples_of(BINARY), model_of(BINARY), *names).passed
    slice_, matrix = read_decision(tmp_path / "blessing").refusals
    assert "no test row is in the slice sex = Other" in slice_.message
    assert "TFMA gives no single number for it" in matrix.message


def test_a_change_without_a_champion_holds(
    tmp_path: Path, problem: Problem, examples_of: Callable[[str], Path], model_of: Callable[..., Path]
) -> None:
    text = """metrics_specs { metrics { class_name: "AUC" threshold { change_threshold {
        direction: HIGHER_IS_BETTER absolute { value: 0.5 } } } } }"""
    (tmp_path / "eval_config.pbtxt").write_text(text)
    names = (tmp_path / name for name in ("none", "evaluation", "blessing", "predictions"))
    assert run(pack(problem, tmp_path, tmp_path / "bundles"), examples_of(BINARY), model_of(BINARY), *names).passed
    (check,) = read_decision(tmp_path / "blessing").checks
    assert "no champion yet" in check.message


def test_what_tfma_fails_to_compute_is_the_configs_fault(
    tmp_path: Path, problem: Problem, examples_of: Callable[[str], Path], model_of: Callable[..., Path]
) -> None:
    text = 'metrics_specs { metrics { class_name: "MultiClassConfusionMatrixAtThresholds" } }'
    (tmp_path / "eval_config.pbtxt").write_text(text)
    names = (tmp_path / name for name in ("none", "evaluation", "blessing", "predictions"))
    with pytest.raises(ProblemError, match=r"TFMA could not compute these metrics.*Predictions shape must be > 1"):
        run(pack(problem, tmp_path, tmp_path / "bundles"), examples_of(BINARY), model_of(BINARY), *names)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("slicing_specs {", "not an EvalConfig"),
        ('slicing_specs { slice_keys_sql: "select 1" }', "slice_keys_sql"),
        ("cross_slicing_specs {}", "cross_slicing_specs"),
        ("model_specs {} model_specs {}", "more than one model"),
        ('metrics_specs { query_key: "q" }', "query_key"),
        ('metrics_specs { metrics { class_name: "Acuity" } }', "there is no metric Acuity"),
        ('metrics_specs { metrics { class_name: "AUC" cross_slice_thresholds {} } }', "cross_slice_thresholds"),
        ("""metrics_specs { metrics { class_name: "AUC" config: '{"colour": 1}' } }""", "AUC cannot be made"),
        ('metrics_specs { thresholds { key: "auc" value {} } }', "no such metric"),
        (
            'metrics_specs { metrics { class_name: "TPR" threshold { change_threshold { absolute { value: 1 } } } } }',
            "change thresholds need a metric that counts give",
        ),
    ],
)
def test_what_cannot_be_taken_is_named(tmp_path: Path, problem: Problem, text: str, message: str) -> None:
    with pytest.raises(ProblemError, match=message):
        read(tmp_path, text, problem)
