"""``summary.json``: the statistics for readers without TFDV, such as the report.

::

    {"schema": "curated" | "inferred",
     "label": {"column": str, "classes": [str, …]},            classes empty for regression
     "columns": {column: {"type": "int64" | "float64" | "string",
                          "role": "quantity" | "category" | "other",
                          "read": bool}},                       whether a feature of the model reads it
     "omitted": {column: rows},                                 training rows in values too rare for a slice
     "splits": {split: {
        "rows": int,
        "label": LABEL,
        "features": {column: FEATURE},
        "slices": [{"slice": {column: value, …}, "rows": int, "label": LABEL, "file": "<split>/slices/….pb"}, …]}}}

    FEATURE   {"count": int, "missing": int, "missing_share": float}, "count" being rows with a value, and
              of a number also {"mean", "std", "min", "median", "max": float | null, "zeros": int, "nan": int,
                                "histogram": {"edges": [float] * (bins + 1), "counts": [float] * bins}}
              (null where not finite; 20 bins of equal width over the finite values, counts interpolated by TFDV),
              of a category {"unique": int, "top": [[value, count], …]} (at most 20, most frequent first).
    LABEL     {"shares": {class: float}}, of those with a label; for binary problems also {"positive_rate": float};
              for regression {"mean": float | null}.

Floats have six significant digits. Integer columns that the model reads as categories are described as such.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from tensorflow_metadata.proto.v0 import statistics_pb2

from tidemill.problem import Problem
from tidemill.validate.cells import file_name
from tidemill.validate.columns import Role
from tidemill.validate.statistics import Description

_TOP = 20


def summarise(
    description: Description,
    problem: Problem,
    columns: Mapping[str, str],
    roles: Mapping[str, Role],
    classes: Sequence[str],
    schema_source: str,
) -> dict[str, Any]:
    """Returns the content of ``summary.json``."""
    label = problem.label.output
    splits = {}
    for split, statistics in description.splits.items():
        dataset = statistics.whole.datasets[0]
        splits[split] = {
            "rows": int(dataset.num_examples),
            "label": _label(dataset, label, classes),
            "features": {feature.path.step[0]: _feature(feature, dataset.num_examples) for feature in dataset.features},
            "slices": [
                {
                    "slice": dict(key),
                    "rows": int(sliced.datasets[0].num_examples),
                    "label": _label(sliced.datasets[0], label, classes),
                    "file": f"{split}/slices/{file_name(key)}.pb",
                }
                for key, sliced in statistics.slices.items()
            ],
        }
    return {
        "schema": schema_source,
        "label": {"column": label, "classes": list(classes)},
        "columns": {
            column: {"type": kind, "role": roles[column], "read": column in problem.raw_columns}
            for column, kind in columns.items()
        },
        "omitted": dict(description.plan.omitted),
        "splits": splits,
    }


def _feature(feature: statistics_pb2.FeatureNameStatistics, rows: int) -> dict[str, Any]:
    stats = getattr(feature, feature.WhichOneof("stats"))
    present = int(stats.common_stats.num_non_missing)
    summary: dict[str, Any] = {
        "count": present,
        "missing": int(rows) - present,
        "missing_share": _rounded((rows - present) / rows) if rows else 0.0,
    }
    if feature.HasField("num_stats"):
        return summary | _number(feature.num_stats, present)
    top = [[value.value, int(value.frequency)] for value in feature.string_stats.top_values[:_TOP]]
    return summary | {"unique": int(feature.string_stats.unique), "top": top}


def _number(stats: statistics_pb2.NumericStatistics, present: int) -> dict[str, Any]:
    equal_width = next((h for h in stats.histograms if h.type == statistics_pb2.Histogram.STANDARD), None)
    nan = int(equal_width.num_nan) if equal_width else 0
    known = present > nan
    bins = [b for b in equal_width.buckets if math.isfinite(b.low_value + b.high_value)] if equal_width else []
    edges = [_rounded(b.low_value) for b in bins] + [_rounded(b.high_value) for b in bins[-1:]]
    values = {"mean": stats.mean, "std": stats.std_dev, "min": stats.min, "median": stats.median, "max": stats.max}
    return {
        **{name: _rounded(value) if known else None for name, value in values.items()},
        "zeros": int(stats.num_zeros),
        "nan": nan,
        "histogram": {"edges": edges, "counts": [_rounded(b.sample_count) for b in bins]},
    }


def _label(dataset: statistics_pb2.DatasetFeatureStatistics, label: str, classes: Sequence[str]) -> dict[str, Any]:
    feature = next((f for f in dataset.features if f.path.step[0] == label), None)
    if feature is None:
        return {"shares": {}} if classes else {"mean": None}
    if not classes:
        return {"mean": _rounded(feature.num_stats.mean) if feature.num_stats.common_stats.num_non_missing else None}
    counts = class_counts(feature, classes)
    total = sum(counts.values())
    shares = {name: _rounded(count / total) for name, count in counts.items()} if total else {}
    rate = {"positive_rate": shares[classes[1]]} if len(classes) == 2 and shares else {}
    return {"shares": shares, **rate}


def class_counts(feature: statistics_pb2.FeatureNameStatistics, classes: Sequence[str]) -> dict[str, int]:
    """Returns the rows of each class; classes that TFDV did not count by value have none."""
    counted = {bucket.label: int(bucket.sample_count) for bucket in feature.string_stats.rank_histogram.buckets}
    return {name: counted.get(name, 0) for name in classes}


def _rounded(value: float) -> float | None:
    return float(f"{value:.6g}") if math.isfinite(value) else None
