"""What was written, as sums over batches."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from tidemill.ingest.labels import count_classes
from tidemill.ingest.quarantine import FaultCount
from tidemill.problem import Task


@dataclass(frozen=True)
class LabelSummary:
    """The distribution of the label in some rows: by class, or its moments if it is a number to be predicted."""

    classes: Counter[str] = field(default_factory=Counter)
    count: int = 0
    mean: float = 0.0
    squares: float = 0.0
    low: float = math.inf
    high: float = -math.inf

    @classmethod
    def of(cls, column: pa.Array, task: Task) -> LabelSummary:
        if task != "regression":
            return cls(count_classes(column))
        values = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
        mean = float(values.mean())
        return cls(
            Counter(), len(values), mean, float(((values - mean) ** 2).sum()), float(values.min()), float(values.max())
        )

    def merge(self, other: LabelSummary) -> LabelSummary:
        """Adds two distributions. Moments: Chan, Golub, LeVeque 1979."""
        count = self.count + other.count
        delta, weight = other.mean - self.mean, other.count / count if count else 0.0
        return LabelSummary(
            self.classes + other.classes,
            count,
            self.mean + delta * weight,
            self.squares + other.squares + delta**2 * self.count * weight,
            min(self.low, other.low),
            max(self.high, other.high),
        )

    def shown(self) -> dict[str, Any]:
        """Returns rows by class, or mean, standard deviation, minimum and maximum."""
        if not self.count:
            return dict(sorted(self.classes.items()))
        return {"mean": self.mean, "std": math.sqrt(self.squares / self.count), "min": self.low, "max": self.high}


@dataclass(frozen=True)
class Summary:
    """What some batches amounted to.

    Attributes:
        rows: rows by split.
        labels: distribution of the label by split.
        columns: stored type by column.
        nulls, non_finite: values by column.
        samples: up to two hashes of values by column, which tell none, one and several apart.
        faults: rows that were refused.
        files: rows, bytes and sha256 by path relative to the examples.
    """

    rows: Mapping[str, int] = field(default_factory=dict)
    labels: Mapping[str, LabelSummary] = field(default_factory=dict)
    columns: Mapping[str, str] = field(default_factory=dict)
    nulls: Mapping[str, int] = field(default_factory=dict)
    non_finite: Mapping[str, int] = field(default_factory=dict)
    samples: Mapping[str, frozenset[int]] = field(default_factory=dict)
    faults: FaultCount = field(default_factory=lambda: FaultCount(Counter()))
    files: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @classmethod
    def merge(cls, summaries: Iterable[Summary]) -> Summary:
        total = cls()
        for other in summaries:
            labels = dict(total.labels)
            for split, label in other.labels.items():
                labels[split] = labels[split].merge(label) if split in labels else label
            samples = {
                name: frozenset(sorted(total.samples.get(name, frozenset()) | seen)[:2])
                for name, seen in other.samples.items()
            }
            total = cls(
                _sum(total.rows, other.rows),
                labels,
                other.columns,
                _sum(total.nulls, other.nulls),
                _sum(total.non_finite, other.non_finite),
                {**total.samples, **samples},
                FaultCount.merge([total.faults, other.faults]),
                {**total.files, **other.files},
            )
        return total

    def columns_with(self, values: int) -> tuple[str, ...]:
        """Returns the columns that have no (0) or a single (1) distinct value."""
        return tuple(name for name, seen in self.samples.items() if len(seen) == values)


def _sum(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    return {key: one.get(key, 0) + other.get(key, 0) for key in dict.fromkeys([*one, *other])}
