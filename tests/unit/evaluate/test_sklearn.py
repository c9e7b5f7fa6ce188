"""The metrics against scikit-learn's on the very predictions that the stage wrote."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tidemill.artifacts import parts
from tidemill.evaluate.run import EvaluationReport, run

sk = pytest.importorskip("sklearn.metrics", reason="scikit-learn is in the test group only")


@pytest.fixture(scope="module")
def evaluate(
    tmp_path_factory: pytest.TempPathFactory,
    bundle_of: Callable[..., Path],
    examples_of: Callable[[str], Path],
    model_of: Callable[..., Path],
    problem_of: Callable[..., dict[str, Any]],
) -> Callable[[str], tuple[EvaluationReport, Any, Any, Path]]:
    def make(task: str) -> tuple[EvaluationReport, Any, Any, Path]:
        directory = tmp_path_factory.mktemp("sklearn")
        outputs = [directory / name for name in ("evaluation", "blessing", "predictions")]
        report = run(
            bundle_of(problem_of(task, weight="weight")),
            examples_of(task),
            model_of(task),
            directory / "none",
            *outputs,
        )
        rows = pa.concat_tables([pq.read_table(p) for p in parts(examples_of(task), "test")]).to_pandas()
        return report, rows, pq.read_table(outputs[2]).to_pandas(), outputs[0]

    return make


def test_binary_metrics(evaluate: Callable[..., Any]) -> None:
    report, rows, answers, evaluation = evaluate("binary_classification")
    y, p, w = (rows["label"] == "yes").to_numpy(), answers["probability"].astype(float).to_numpy(), rows["weight"]
    d = answers["label"] == "yes"
    expected = {
        "log_loss": sk.log_loss(y, p, sample_weight=w),
        "brier": sk.brier_score_loss(y, p, sample_weight=w),
        "accuracy": sk.accuracy_score(y, d, sample_weight=w),
        "precision": sk.precision_score(y, d, sample_weight=w),
        "recall": sk.recall_score(y, d, sample_weight=w),
        "f1": sk.f1_score(y, d, sample_weight=w),
        "mean_label": np.average(y, weights=w),
        "mean_prediction": np.average(p, weights=w),
        "weighted_example_count": w.sum(),
    }
    assert {name: report.metrics[name] for name in expected} == pytest.approx(expected, abs=1e-6)
    # Scores within one of TFMA's 9,999 intervals are ties to it; the stated resolution says how much that can be.
    resolution = json.loads((evaluation / "metrics.json").read_text())["roc"]["auc_resolution"]
    assert resolution < 2e-4
    assert report.metrics["auc"] == pytest.approx(sk.roc_auc_score(y, p, sample_weight=w), abs=resolution)
    matrix = sk.confusion_matrix(y, d, sample_weight=w)
    assert np.asarray(report.confusion[1]) == pytest.approx(matrix)


def test_multiclass_metrics(evaluate: Callable[..., Any]) -> None:
    report, rows, answers, _ = evaluate("multiclass_classification")
    classes = ["a", "b", "c", "d"]
    y, w, d = rows["label"], rows["weight"], answers["label"]
    p = np.stack(answers["probabilities"]).astype(float)
    clipped = np.clip(p, 1e-7, 1)  # as Keras and TFMA do
    clipped /= clipped.sum(1, keepdims=True)
    truth = np.asarray(classes)[None, :] == y.to_numpy()[:, None]
    untied = p + 1e-9 * truth  # a class that shares the third place counts as found, as in tf.math.in_top_k
    expected = {
        "log_loss": sk.log_loss(y, clipped, sample_weight=w, labels=classes),
        "brier": np.average(((p - truth) ** 2).sum(1), weights=w),
        "accuracy": sk.accuracy_score(y, d, sample_weight=w),
        "top_3_accuracy": sk.top_k_accuracy_score(y, untied, k=3, sample_weight=w, labels=classes),
    }
    for average, prefix in (("macro", ""), ("micro", "micro_")):
        found = sk.precision_recall_fscore_support(y, d, average=average, sample_weight=w, zero_division=0)
        expected |= {f"{prefix}{name}": v for name, v in zip(("precision", "recall", "f1"), found[:3], strict=True)}
    each = sk.precision_recall_fscore_support(y, d, labels=classes, sample_weight=w)
    for name, values in zip(("precision", "recall", "f1"), each[:3], strict=True):
        expected |= {f"{name}[{c}]": value for c, value in zip(classes, values, strict=True)}
    assert {name: report.metrics[name] for name in expected} == pytest.approx(expected, abs=1e-6)
    assert np.asarray(report.confusion[1]) == pytest.approx(sk.confusion_matrix(y, d, sample_weight=w))


def test_regression_metrics(evaluate: Callable[..., Any]) -> None:
    report, rows, answers, _ = evaluate("regression")
    y, p, w = rows["label"], answers["value"].astype(float), rows["weight"]
    expected = {
        "mae": sk.mean_absolute_error(y, p, sample_weight=w),
        "mse": sk.mean_squared_error(y, p, sample_weight=w),
        "rmse": sk.root_mean_squared_error(y, p, sample_weight=w),
        "r2": sk.r2_score(y, p, sample_weight=w),
    }
    assert {name: report.metrics[name] for name in expected} == pytest.approx(expected, abs=1e-6)
