"""Metrics as computed: values, intervals and replicates, compared between models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from tidemill.evaluate.intervals import bootstrap, wilson
from tidemill.metrics import find_metric


@dataclass(frozen=True)
class Computed:
    """Metrics of one model, computed from sums and from all replicates of the sums at once.

    Attributes:
        values: by metric float64 [..., slices].
        sizes: for metrics that are rates, the effective number of trials [..., slices].
    """

    values: Mapping[str, np.ndarray]
    sizes: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class Estimates:
    """Metrics of one model with 95 % intervals, all float64 [slices] by metric, and their replicates."""

    values: Mapping[str, np.ndarray]
    low: Mapping[str, np.ndarray]
    high: Mapping[str, np.ndarray]
    replicates: Mapping[str, np.ndarray]

    def also(self, values: Mapping[str, np.ndarray]) -> Estimates:
        """Returns these estimates and further values that have no intervals."""
        unknown = {name: np.full_like(value, np.nan) for name, value in values.items()}
        return Estimates({**self.values, **values}, {**self.low, **unknown}, {**self.high, **unknown}, self.replicates)

    def only(self, names: tuple[str, ...]) -> Estimates:
        """Returns the estimates of some metrics."""
        parts = (self.values, self.low, self.high, self.replicates)
        return Estimates(*({name: part[name] for name in names if name in part} for part in parts))


def estimate(task: str, point: Computed, replicated: Computed) -> Estimates:
    """Puts intervals around metrics: Wilson's for rates, the Poisson bootstrap's for all others; none for counts.

    Resampling says nothing of a single row, nor of a few rows that are in perfect order: they have no interval.
    """
    low: dict[str, np.ndarray] = {}
    high: dict[str, np.ndarray] = {}
    for name, value in point.values.items():
        metric = find_metric(task, name)
        if name.endswith("example_count"):
            low[name], high[name] = value, value
        elif name in point.sizes:
            low[name], high[name] = wilson(value, point.sizes[name])
        else:
            below, above = bootstrap(value, replicated.values[name], (metric.low, metric.high))
            stuck = (below == above) & ((value == metric.low) | (value == metric.high))
            stuck |= point.values["example_count"] <= 1
            low[name], high[name] = np.where(stuck, np.nan, below), np.where(stuck, np.nan, above)
    return Estimates(point.values, low, high, replicated.values)


def compare(ours: Estimates, theirs: Estimates) -> Estimates:
    """Returns ``ours - theirs`` per metric and slice, with paired intervals: both were resampled together."""
    names = [name for name in ours.replicates if name in theirs.replicates and not name.endswith("example_count")]
    values = {name: ours.values[name] - theirs.values[name] for name in names}
    replicates = {name: ours.replicates[name] - theirs.replicates[name] for name in names}
    bounds = {name: bootstrap(values[name], replicates[name]) for name in names}
    return Estimates(values, {n: b[0] for n, b in bounds.items()}, {n: b[1] for n, b in bounds.items()}, replicates)


def divide(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Divides where the denominator is positive; elsewhere the result is NaN: the metric isn't defined there."""
    numerator, denominator = np.broadcast_arrays(numerator, denominator)
    return np.divide(numerator, denominator, out=np.full(numerator.shape, np.nan), where=denominator > 0)


def expected_calibration_error(bins: np.ndarray) -> np.ndarray:
    """Returns the mean distance of mean label and mean prediction over bins (Naeini et al. 2015, eq. 3).

    Args:
        bins: float [..., bins, 3 or more]: weight, weighted label, weighted prediction.
    """
    return divide(np.abs(bins[..., 1] - bins[..., 2]).sum(-1), bins[..., 0].sum(-1))
