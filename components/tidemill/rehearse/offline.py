"""Offline predictions, and what a served answer differs from them by."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

NUMBERS: Final = ("probability", "probabilities", "value")

Prediction = Mapping[str, Any]


def read_predictions(directory: Path, positions: Collection[int]) -> dict[int, Prediction]:
    """Returns what `evaluate` predicted, by position in the test split.

    Args:
        directory: Parquet files with the column ``row`` and the model's outputs.
        positions: the rows that are wanted; others are not kept.
    """
    wanted = pc.SetLookupOptions(value_set=pa.array(sorted(positions), pa.int64()))
    found: dict[int, Prediction] = {}
    for part in sorted(directory.glob("*.parquet")):
        with pq.ParquetFile(part, pre_buffer=False) as file:
            columns = [name for name in ("row", "label", *NUMBERS) if name in file.schema_arrow.names]
            for batch in file.iter_batches(columns=columns):
                kept = batch.filter(pc.is_in(batch.column("row").cast("int64"), options=wanted))
                found |= {row.pop("row"): row for row in kept.to_pylist()}
    return found


def difference(served: Any, offline: Prediction, threshold: float, tolerance: float) -> float:
    """Returns the largest difference between two answers to one row; infinite if they cannot be compared.

    Numbers beyond 1 are compared relatively: float32 holds seven digits, wherever the point is.

    A different label is an infinite difference too, unless the number that decides is within ``tolerance`` of where
    the label changes.

    Args:
        served: an entry of ``predictions``.
        threshold: probability from which a binary answer is positive.
    """
    if not isinstance(served, dict):
        served = dict.fromkeys(offline.keys() & set(NUMBERS), served)  # a model with one output gives bare values
    numbers = [name for name in NUMBERS if name in offline]
    if not numbers or any(name not in served for name in numbers):
        return float("inf")
    largest = max(_distance(served[name], offline[name]) for name in numbers)
    relabelled = "label" in offline and "label" in served and served["label"] != offline["label"]
    return float("inf") if relabelled and _margin(offline, threshold) > tolerance else largest


def _distance(one: Any, other: Any) -> float:
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return max((_distance(a, b) for a, b in zip(one, other, strict=True)), default=0.0)
    if isinstance(one, (int, float)) and isinstance(other, (int, float)):
        return abs(one - other) / max(1.0, abs(other))
    return float("inf")


def _margin(offline: Prediction, threshold: float) -> float:
    """Returns how far the numbers are from giving another label."""
    if "probability" in offline:
        return abs(float(offline["probability"]) - threshold)
    first, second, *_ = sorted(offline["probabilities"], reverse=True)
    return float(first - second)
