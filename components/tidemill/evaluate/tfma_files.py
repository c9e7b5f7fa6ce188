"""Results in TFMA's own format, so that ``tfma.load_eval_result`` and TFMA's views read them.

The EvalConfig that is written beside is the one with which TFMA would compute the same metrics under the same names
from rows of ``label`` (class index or value), ``score`` and the weight; the tests do just that.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import tensorflow as tf
import tensorflow_model_analysis as tfma
from google.protobuf import json_format
from tensorflow_model_analysis.metrics.metric_types import MetricKey
from tensorflow_model_analysis.proto import config_pb2, metrics_for_slice_pb2, validation_result_pb2

from tidemill.decisions import Decision
from tidemill.evaluate.metrics import Estimates
from tidemill.evaluate.slices import SlicePlan

EQUIVALENTS: Mapping[str, Mapping[str, tuple[str, Mapping[str, object]]]] = {
    "binary_classification": {
        "auc": ("AUC", {}),
        "pr_auc": ("AUC", {"curve": "PR"}),
        "log_loss": ("BinaryCrossEntropy", {}),
        "brier": ("MeanSquaredError", {}),
        "accuracy": ("BinaryAccuracy", {"threshold": ...}),
        "precision": ("Precision", {"thresholds": ...}),
        "recall": ("Recall", {"thresholds": ...}),
        "f1": ("F1Score", {"thresholds": ...}),
        "calibration": ("Calibration", {}),
        "mean_label": ("MeanLabel", {}),
        "mean_prediction": ("MeanPrediction", {}),
        "example_count": ("ExampleCount", {}),
        "weighted_example_count": ("WeightedExampleCount", {}),
    },
    "multiclass_classification": {
        "log_loss": ("SparseCategoricalCrossentropy", {}),
        "accuracy": ("SparseCategoricalAccuracy", {}),
        "top_3_accuracy": ("SparseTopKCategoricalAccuracy", {"k": 3}),
        "example_count": ("ExampleCount", {}),
        "weighted_example_count": ("WeightedExampleCount", {}),
    },
    "regression": {
        "mae": ("MeanAbsoluteError", {}),
        "mse": ("MeanSquaredError", {}),
        "rmse": ("RootMeanSquaredError", {}),
        "calibration": ("Calibration", {}),
        "mean_label": ("MeanLabel", {}),
        "mean_prediction": ("MeanPrediction", {}),
        "example_count": ("ExampleCount", {}),
        "weighted_example_count": ("WeightedExampleCount", {}),
    },
}


def equivalent_options(options: Mapping[str, object], threshold: float) -> dict[str, object]:
    """Returns the options of a metric of :data:`EQUIVALENTS` with the model's threshold filled in."""
    cut = tfma_threshold(threshold)
    return {k: ([cut] if k == "thresholds" else cut) if v is ... else v for k, v in options.items()}


def tfma_threshold(threshold: float) -> float:
    """Returns the threshold t' for which TFMA's ``score > t'`` is the model's float32 ``score >= threshold``."""
    return float(np.nextafter(np.float32(threshold), np.float32(-1)))


def eval_config(
    task: str, label: str, score: str, weight: str | None, threshold: float, keys: Sequence[Sequence[str]]
) -> config_pb2.EvalConfig:
    """Returns the EvalConfig that describes the evaluation in TFMA's terms.

    Args:
        score: the model's output that metrics are computed from.
        keys: columns of each slice key.
    """
    metrics = {
        name: config_pb2.MetricConfig(
            class_name=class_name, config=json.dumps({"name": name, **equivalent_options(options, threshold)})
        )
        for name, (class_name, options) in EQUIVALENTS[task].items()
    }
    # TFMA would weight the count of rows too, if it were not told otherwise.
    unweighted = config_pb2.ExampleWeightOptions(unweighted=True)
    rows = config_pb2.MetricsSpec(metrics=[metrics.pop("example_count")], example_weights=unweighted)
    return config_pb2.EvalConfig(
        model_specs=[
            config_pb2.ModelSpec(
                signature_name="serving_default",
                label_key=label,
                prediction_key=score,
                example_weight_key=weight or "",
            )
        ],
        slicing_specs=[config_pb2.SlicingSpec(feature_keys=key) for key in keys],
        metrics_specs=[config_pb2.MetricsSpec(metrics=metrics.values()), rows],
    )


def write_result(
    directory: Path,
    config: config_pb2.EvalConfig,
    plan: SlicePlan,
    estimates: Estimates,
    decision: Decision,
    histogram: np.ndarray | None,
) -> None:
    """Writes metrics, plots, validations and eval_config.json.

    Args:
        histogram: weighted rows, labels and predictions by calibration bucket for the whole, [buckets, 4], the
            last the squared weights; None for
            tasks that have no such plot.
    """
    weighted = bool(config.model_specs[0].example_weight_key)
    records = [_metrics_for_slice(plan, estimates, i, weighted) for i in range(plan.size)]
    _write(directory / "metrics-00000-of-00001.tfrecord", [record.SerializeToString() for record in records])
    plots = [] if histogram is None else [_plots(histogram, weighted).SerializeToString()]
    _write(directory / "plots-00000-of-00001.tfrecord", plots)
    _write(directory / "validations.tfrecord", [_validation(decision, plan, weighted).SerializeToString()])
    run = config_pb2.EvalRun(
        eval_config=config, version=tfma.__version__, data_location="test split", file_format="parquet"
    )
    run.model_locations[""] = "candidate"
    (directory / "eval_config.json").write_text(json_format.MessageToJson(run))


def _write(path: Path, records: Sequence[bytes]) -> None:
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)


def _slice_key(values: Mapping[str, str]) -> metrics_for_slice_pb2.SliceKey:
    key = metrics_for_slice_pb2.SliceKey()
    for column in sorted(values):  # TFMA sorts the columns of a crossed slice
        key.single_slice_keys.add(column=column, bytes_value=values[column].encode())
    return key


def _metric_key(name: str, weighted: bool) -> metrics_for_slice_pb2.MetricKey:
    return MetricKey(name=name, example_weighted=weighted and name != "example_count").to_proto()


def _metrics_for_slice(
    plan: SlicePlan, estimates: Estimates, number: int, weighted: bool
) -> metrics_for_slice_pb2.MetricsForSlice:
    record = metrics_for_slice_pb2.MetricsForSlice(slice_key=_slice_key(plan.slices[number]))
    for name in sorted(estimates.values):
        entry = record.metric_keys_and_values.add(key=_metric_key(name, weighted))
        entry.value.double_value.value = estimates.values[name][number]
        low, high = estimates.low[name][number], estimates.high[name][number]
        if math.isfinite(low) and math.isfinite(high) and not name.endswith("example_count"):
            entry.confidence_interval.lower_bound.double_value.value = low
            entry.confidence_interval.upper_bound.double_value.value = high
    return record


def _plots(histogram: np.ndarray, weighted: bool) -> metrics_for_slice_pb2.PlotsForSlice:
    record = metrics_for_slice_pb2.PlotsForSlice(slice_key=_slice_key({}))
    entry = record.plot_keys_and_values.add(key={"example_weighted": {"value": weighted}})
    edges = np.linspace(0, 1, len(histogram) + 1)
    for (low, high), (weight, label, prediction, _) in zip(pairwise(edges.tolist()), histogram.tolist(), strict=True):
        entry.value.calibration_histogram_buckets.buckets.add(
            lower_threshold_inclusive=low,
            upper_threshold_exclusive=high,
            num_weighted_examples={"value": weight},
            total_weighted_label={"value": label},
            total_weighted_refined_prediction={"value": prediction},
        )
    return record


def _validation(decision: Decision, plan: SlicePlan, weighted: bool) -> validation_result_pb2.ValidationResult:
    result = validation_result_pb2.ValidationResult(validation_ok=decision.passed)
    slices = plan.slices
    for check in decision.refusals:
        entry = result.metric_validations_per_slice.add()
        if check.slice in slices:
            entry.slice_key.CopyFrom(_slice_key(check.slice))
        entry.failures.add(metric_key=_metric_key(check.name, weighted), message=check.message)
    return result
