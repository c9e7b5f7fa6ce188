"""The evaluation as tidemill writes it: ``metrics.json`` for reports and machines, ``metrics.parquet`` for queries.

``metrics.json`` (numbers that aren't defined are null)::

    task, threshold, digest, rows, weighted, classes
    confidence   0.95, the level of all intervals
    metrics      [{"slice": {column: value}, "over": [columns], "sensitive": bool, "count": rows, "weight": weight,
                   "values": {metric: {"value": v, "low": l, "high": h}}}]     the whole first: slice {}
    fairness     [{"over": [columns], "min_examples": n,
                   "groups": [{"slice", "count", "weight", "small": bool,
                               "rates": {selection_rate, tpr, fpr, fnr, ppv: {"value", "low", "high", "size"}}}],
                   "metrics": {metric: {"value", "low", "high", "rate", "lowest": slice, "highest": slice}}}]
    calibration  {"bins": [{"low", "high", "weight", "mean_prediction", "mean_label",
                            "label_low", "label_high"}]}    for multiclass: the confidence in the answer, and hits
    roc          {"fpr": [...], "tpr": [...], "thresholds": [...], "auc_resolution": v}    binary only, else null
    pr           {"recall": [...], "precision": [...], "thresholds": [...]}                binary only, else null
    confusion    {"classes": [...], "matrix": [[weight by predicted class] by actual class]}    classification
    baseline     {"rule", "metrics": [{"slice", "values": {metric: {"value", "difference", "low", "high"}}}]} or null
    champion     {"digest", "comparable": bool, "reason", "metrics": as for baseline} or null
    decision     the model gate's, as in blessing.json

A difference is candidate minus rival on the same rows, with a paired 95 % interval.

``metrics.parquet`` has a row per model, slice and metric: model, slice (JSON), metric, value, low, high, count, weight.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa

from tidemill.evaluate import curves
from tidemill.evaluate.fairness import Group, disparities
from tidemill.evaluate.intervals import effective_size, wilson
from tidemill.evaluate.metrics import Estimates, compare
from tidemill.evaluate.slices import SlicePlan

_CURVE_POINTS = 200
SHOWN_MIN_EXAMPLES = 50


def number(value: float) -> float | None:
    """Returns a value as JSON takes it: null for what isn't defined or infinite."""
    return float(value) if math.isfinite(value) else None


def metric_rows(plan: SlicePlan, estimates: Estimates, sensitive: Sequence[tuple[str, ...]]) -> list[dict[str, Any]]:
    """Returns ``metrics`` of metrics.json."""
    return [
        {
            "slice": values,
            "over": list(values),
            "sensitive": tuple(values) in sensitive,
            "count": int(estimates.values["example_count"][i]),
            "weight": number(estimates.values["weighted_example_count"][i]),
            "values": {
                name: {
                    "value": number(estimates.values[name][i]),
                    "low": number(estimates.low[name][i]),
                    "high": number(estimates.high[name][i]),
                }
                for name in estimates.values
            },
        }
        for i, values in enumerate(plan.slices)
    ]


def rival_rows(plan: SlicePlan, ours: Estimates, theirs: Estimates) -> list[dict[str, Any]]:
    """Returns ``metrics`` of ``baseline`` and ``champion``."""
    paired = compare(ours, theirs)
    return [
        {
            "slice": values,
            "values": {
                name: {
                    "value": number(theirs.values[name][i]),
                    "difference": number(paired.values[name][i]),
                    "low": number(paired.low[name][i]),
                    "high": number(paired.high[name][i]),
                }
                for name in paired.values
            },
        }
        for i, values in enumerate(plan.slices)
    ]


def fairness_rows(groups: Mapping[tuple[str, ...], Sequence[Group]]) -> list[dict[str, Any]]:
    """Returns ``fairness`` of metrics.json."""
    return [
        {
            "over": list(key),
            "min_examples": SHOWN_MIN_EXAMPLES,
            "groups": [
                {
                    "slice": dict(group.slice),
                    "count": group.count,
                    "weight": group.weight,
                    "small": group.count < SHOWN_MIN_EXAMPLES,
                    "rates": {
                        name: {k: number(v) for k, v in asdict(rate).items()} for name, rate in group.rates.items()
                    },
                }
                for group in members
            ],
            "metrics": {
                name: {
                    "value": number(found.value),
                    "low": number(found.low),
                    "high": number(found.high),
                    "rate": found.rate,
                    "lowest": found.lowest,
                    "highest": found.highest,
                }
                for name, found in disparities(members, SHOWN_MIN_EXAMPLES).items()
            },
        }
        for key, members in groups.items()
    ]


def calibration_bins(bins: np.ndarray, edges: Sequence[float], rates: bool) -> dict[str, Any]:
    """Returns ``calibration`` of metrics.json.

    Args:
        bins: [bins, 4]: weight, weighted label, weighted prediction, squared weight.
        edges: [bins + 1]; the outermost may be infinite.
        rates: whether the labels are 0 or 1, so that their mean is a rate with a Wilson interval.
    """
    rows = []
    for (weight, label, prediction, squared), (low, high) in zip(bins.tolist(), pairwise(edges), strict=True):
        mean = label / weight if weight else math.nan
        size = effective_size(np.float64(weight), np.float64(squared))
        bounds = wilson(np.float64(mean), size) if rates and weight else (math.nan, math.nan)
        rows.append(
            {
                "low": number(low),
                "high": number(high),
                "weight": weight,
                "mean_label": number(mean),
                "mean_prediction": number(prediction / weight if weight else math.nan),
                "label_low": number(float(bounds[0])),
                "label_high": number(float(bounds[1])),
            }
        )
    return {"bins": rows}


def roc_and_pr(histogram: np.ndarray) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """Returns ``roc`` and ``pr``: about 200 points of each curve; None where there is one class only.

    Args:
        histogram: weight by label and interval between thresholds for the whole, [2, bins].
    """
    tp, fp = curves.cumulative(histogram)
    if not tp[0] or not fp[0]:
        return None, None
    thresholds = np.clip(curves.thresholds(), 0, 1)
    tpr, fpr = tp / tp[0], fp / fp[0]
    # Points that are even along the curve say more than thresholds that are even.
    length = np.concatenate([[0], np.cumsum(np.abs(np.diff(tpr)) + np.abs(np.diff(fpr)))])
    kept = np.unique(np.searchsorted(length, np.linspace(0, length[-1], _CURVE_POINTS)))
    kept = np.unique(np.concatenate([[0], np.minimum(kept, len(tp) - 1), [len(tp) - 1]]))[::-1]
    selected = tp + fp
    some = kept[selected[kept] > 0]
    return (
        {
            "fpr": fpr[kept].tolist(),
            "tpr": tpr[kept].tolist(),
            "thresholds": thresholds[kept].tolist(),
            "auc_resolution": float(curves.auc_resolution(histogram)),
        },
        {
            "recall": tpr[some].tolist(),
            "precision": (tp[some] / selected[some]).tolist(),
            "thresholds": thresholds[some].tolist(),
        },
    )


def metrics_table(plan: SlicePlan, models: Mapping[str, Estimates]) -> pa.Table:
    """Returns the long table of metrics.parquet."""
    slices = [json.dumps(values, sort_keys=True) for values in plan.slices]
    rows: dict[str, list[Any]] = {
        name: [] for name in ("model", "slice", "metric", "value", "low", "high", "count", "weight")
    }
    for model, estimates in models.items():
        for metric, values in estimates.values.items():
            rows["model"] += [model] * len(slices)
            rows["slice"] += slices
            rows["metric"] += [metric] * len(slices)
            rows["value"] += values.tolist()
            rows["low"] += estimates.low[metric].tolist()
            rows["high"] += estimates.high[metric].tolist()
            rows["count"] += [int(n) for n in estimates.values["example_count"]]
            rows["weight"] += estimates.values["weighted_example_count"].tolist()
    return pa.table(rows)
