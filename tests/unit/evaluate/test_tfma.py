"""The counts against TensorFlow Model Analysis itself: every metric, every slice, the same rows."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow_model_analysis as tfma
from google.protobuf import json_format
from tensorflow_model_analysis.proto import config_pb2

from tidemill.artifacts import parts
from tidemill.beam import pipeline_options
from tidemill.evaluate.run import run
from tidemill.evaluate.slices import plan_slices

CROSSED: list[Any] = [["sex", "colour"], "age"]
SENSITIVE: dict[tuple[str, str | None], list[Any]] = {
    ("binary_classification", None): CROSSED,
    ("binary_classification", "weight"): ["sex", "colour", *CROSSED],
    ("multiclass_classification", "weight"): CROSSED,
    ("regression", "weight"): CROSSED,
}
SCORE = {"binary_classification": "probability", "multiclass_classification": "probabilities", "regression": "value"}
CLASSES = {"binary_classification": ["no", "yes"], "multiclass_classification": ["a", "b", "c", "d"], "regression": []}


@dataclass(frozen=True)
class Evaluated:
    task: str
    evaluation: Path
    rows: pd.DataFrame


@pytest.fixture(scope="module", params=SENSITIVE, ids=lambda case: f"{case[0]}-{case[1] or 'unweighted'}")
def evaluated(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    bundle_of: Callable[..., Path],
    examples_of: Callable[[str], Path],
    model_of: Callable[..., Path],
    problem_of: Callable[..., dict[str, Any]],
) -> Evaluated:
    task, weight = request.param
    directory = tmp_path_factory.mktemp("evaluated")
    examples = examples_of(task)
    run(
        bundle_of(problem_of(task, weight=weight, sensitive=SENSITIVE[task, weight])),
        examples,
        model_of(task),
        directory / "no-champion",
        directory / "evaluation",
        directory / "blessing",
        directory / "predictions",
    )
    return Evaluated(task, directory / "evaluation", rows_for_tfma(task, examples, directory / "predictions"))


def rows_for_tfma(task: str, examples: Path, predictions: Path) -> pd.DataFrame:
    """The test rows as TFMA takes them: label as number, score, weight, and slice values as text."""
    batch = pa.concat_tables([pq.read_table(p) for p in parts(examples, "test")]).combine_chunks().to_batches()[0]
    answers = pq.read_table(predictions).to_pandas()
    labels = batch.column("label").to_pandas()
    plan = plan_slices(parts(examples, "test"), [("sex",), ("colour",), ("age",)])
    frame = pd.DataFrame(
        {
            "label": labels if task == "regression" else labels.map(CLASSES[task].index),
            SCORE[task]: answers[SCORE[task]],
            "weight": batch.column("weight").to_numpy(),
        }
    )
    for key, codes in zip(plan.keys[1:], plan.codes(batch)[1:], strict=True):
        frame[key.columns[0]] = np.asarray([name[0] for name in key.names])[codes]
    return frame


def run_tfma(frame: pd.DataFrame, config: config_pb2.EvalConfig, output: Path) -> tfma.EvalResult:
    score = config.model_specs[0].prediction_key
    columns = {name: pa.array(frame[name]) for name in frame if name != score}
    columns[score] = pa.array(frame[score].tolist(), pa.list_(pa.float64()) if frame[score].dtype == object else None)
    batch = pa.RecordBatch.from_pydict(
        {k: pa.array([v if isinstance(v, list) else [v] for v in c.to_pylist()]) for k, c in columns.items()}
    )
    with beam.Pipeline(options=pipeline_options()) as pipeline:
        _ = (
            pipeline
            | beam.Create([batch])
            | tfma.ExtractEvaluateAndWriteResults(eval_config=config, output_path=str(output))
        )
    return tfma.load_eval_result(str(output))


def metrics_of(result: tfma.EvalResult) -> dict[Any, dict[str, float]]:
    found = {}
    for slice_key, by_output in result.slicing_metrics:
        values = by_output[""][""]
        found[tuple(sorted(slice_key))] = {
            name: (value.get("doubleValue") if "doubleValue" in value else value["boundedValue"]["value"])
            for name, value in values.items()
        }
    return found


@pytest.mark.slow
def test_every_metric_of_every_slice_equals_tfmas_own(evaluated: Evaluated, tmp_path: Path) -> None:
    """The EvalConfig that is written beside the metrics makes TFMA compute the same numbers to 1e-6."""
    text = (evaluated.evaluation / "eval_config.json").read_text()
    config = json_format.Parse(text, config_pb2.EvalRun()).eval_config
    theirs = metrics_of(run_tfma(evaluated.rows, config, tmp_path / "tfma"))
    ours = metrics_of(tfma.load_eval_result(str(evaluated.evaluation)))

    assert set(ours) == set(theirs)
    compared = 0
    for slice_key, values in theirs.items():
        for name, value in values.items():
            mine = ours[slice_key][name]
            if value == "NaN" or mine == "NaN":
                one_class = ours[slice_key]["mean_label"] in (0.0, 1.0)
                assert value == mine or (name in ("auc", "pr_auc") and one_class), (slice_key, name, value, mine)
                continue
            assert float(mine) == pytest.approx(float(value), abs=1e-6, rel=1e-6), (slice_key, name)
            compared += 1
    expected = {"binary_classification": 13, "multiclass_classification": 5, "regression": 8}[evaluated.task]
    assert compared >= expected * len(theirs) * 0.9


def test_tfma_reads_intervals_plots_and_the_verdict(evaluated: Evaluated) -> None:
    result = tfma.load_eval_result(str(evaluated.evaluation))
    overall = dict(result.slicing_metrics)[()][""][""]
    name = {"binary_classification": "auc", "multiclass_classification": "accuracy", "regression": "mae"}[
        evaluated.task
    ]
    bounded = overall[name]["boundedValue"]
    assert bounded["lowerBound"] < bounded["value"] < bounded["upperBound"]
    assert tfma.load_validation_result(str(evaluated.evaluation)).validation_ok
    if evaluated.task == "binary_classification":
        buckets = result.plots[0][1][""][""]["calibrationHistogramBuckets"]["buckets"]
        total = sum(bucket["numWeightedExamples"] for bucket in buckets)
        assert total == pytest.approx(overall["weighted_example_count"]["doubleValue"])


def test_metrics_json_and_parquet_say_the_same(evaluated: Evaluated) -> None:
    table = pq.read_table(evaluated.evaluation / "metrics.parquet").to_pandas().set_index(["slice", "metric"])["value"]
    for row in json.loads((evaluated.evaluation / "metrics.json").read_text())["metrics"]:
        key = json.dumps(row["slice"], sort_keys=True)
        for name, found in row["values"].items():
            value = table[key, name]
            assert math.isnan(value) if found["value"] is None else value == found["value"]
