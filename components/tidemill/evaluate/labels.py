"""Labels and example weights as numbers, and what the training split says about them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tidemill.artifacts import ExamplesManifest, parts
from tidemill.errors import DataError
from tidemill.problem import Problem

_CALIBRATION_BINS = 10
_SAMPLE = 1_000_000  # training labels that the bins' bounds are taken from


@dataclass(frozen=True)
class LabelReader:
    """Reads labels and weights out of raw batches.

    Attributes:
        column: the label's column.
        classes: class values in the order of their index; empty for regression.
        weight: the weight's column, if the problem has one.
    """

    column: str
    classes: tuple[str, ...]
    weight: str | None

    @classmethod
    def of(cls, problem: Problem, manifest: ExamplesManifest) -> LabelReader:
        """Raises DataError if the examples lack the label, the weight or the classes."""
        for column in filter(None, (problem.label.output, problem.weight)):
            if column not in manifest.columns:
                raise DataError("examples", f"the column {column} is needed", ", ".join(sorted(manifest.columns)))
        if problem.task != "regression" and len(manifest.classes) < 2:
            raise DataError("examples", f"{problem.task} needs two classes or more", str(list(manifest.classes)))
        return cls(problem.label.output, tuple(manifest.classes), problem.weight)

    @property
    def columns(self) -> list[str]:
        return [self.column, *([self.weight] if self.weight else [])]

    def labels(self, batch: pa.RecordBatch) -> np.ndarray:
        """Returns float64 [rows]: the class index, or the value itself for regression.

        Raises:
            DataError: if a label is missing or is none of the classes.
        """
        column = batch.column(self.column)
        if not self.classes:
            values = pc.cast(column, pa.float64()).to_numpy(zero_copy_only=False)
            self._complain(~np.isfinite(values), column, "a finite number")
            return values
        found = pc.index_in(pc.cast(column, pa.string()), value_set=pa.array(self.classes))
        if found.null_count and not pa.types.is_string(column.type):
            # The class 1 may be written 1 or 1.0, as the column was whole-numbered or not when it was named.
            found = pc.index_in(pc.cast(column, pa.float64()), value_set=pa.array([float(c) for c in self.classes]))
        self._complain(found.is_null().to_numpy(zero_copy_only=False), column, f"one of {', '.join(self.classes)}")
        return found.to_numpy(zero_copy_only=False).astype(np.float64)

    def weights(self, batch: pa.RecordBatch) -> np.ndarray:
        """Returns float64 [rows]; ones without a weight column.

        Raises:
            DataError: if a weight is missing, negative or not finite.
        """
        if self.weight is None:
            return np.ones(batch.num_rows)
        column = batch.column(self.weight)
        values = pc.cast(column, pa.float64()).to_numpy(zero_copy_only=False)
        self._complain(~(np.isfinite(values) & (values >= 0)), column, "a weight of 0 or more", self.weight)
        return values

    def _complain(self, wrong: np.ndarray, column: pa.Array, expected: str, name: str | None = None) -> None:
        if wrong.any():
            first = column[int(wrong.argmax())].as_py()
            raise DataError(f"examples: {name or self.column}", f"every row needs {expected}", f"{first!r}")


@dataclass(frozen=True)
class TrainLabels:
    """What a rule that knows no feature can know: the labels of the training split, weighted.

    Attributes:
        prior: share of each class, float64 [classes]; empty for regression.
        mean: mean label (class index for classification).
        edges: deciles of the labels (regression), ascending and distinct.
    """

    prior: np.ndarray
    mean: float
    edges: tuple[float, ...]

    @classmethod
    def read(cls, examples: Path, reader: LabelReader) -> TrainLabels:
        """Reads the label and weight columns of the training split.

        Raises:
            DataError: if the training split has no row of positive weight.
        """
        prior = np.zeros(len(reader.classes))
        total = weighted = 0.0
        sample: list[np.ndarray] = []
        sampled = 0
        for batch in _batches(examples, reader.columns):
            labels, weights = reader.labels(batch), reader.weights(batch)
            total, weighted = total + weights.sum(), weighted + (weights * labels).sum()
            if reader.classes:
                prior += np.bincount(labels.astype(np.int64), weights, len(prior))
            elif sampled < _SAMPLE:
                sample.append(labels)
                sampled += len(labels)
        if total <= 0:
            raise DataError("examples: train", "needs rows of positive weight", "none")
        inner = np.linspace(0, 1, _CALIBRATION_BINS + 1)[1:-1]
        edges = tuple(np.unique(np.quantile(np.concatenate(sample), inner)).tolist()) if sample else ()
        return cls(prior / total, weighted / total, edges)


def _batches(examples: Path, columns: list[str]) -> Iterator[pa.RecordBatch]:
    for part in parts(examples, "train"):
        with pq.ParquetFile(part, pre_buffer=False) as file:
            yield from file.iter_batches(columns=columns)
