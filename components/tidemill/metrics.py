"""What a metric is, apart from how it is computed: which direction is better, and the range that it cannot leave."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from tidemill.errors import ProblemError

Better = Literal["higher", "lower", "near_one", "neither"]


@dataclass(frozen=True)
class Metric:
    """A metric's nature.

    Attributes:
        title: its name for people.
        better: which values are better; ``neither`` for what merely describes.
        low: smallest possible value.
        high: largest possible value.
    """

    title: str
    better: Better
    low: float = 0.0
    high: float = math.inf

    def badness(self, value: float) -> float:
        """Returns a number that grows as the metric gets worse, in the metric's own unit."""
        if self.better == "higher":
            return -value
        return abs(value - 1) if self.better == "near_one" else value


_SHARED = {
    "log_loss": Metric("log loss", "lower"),
    "brier": Metric("Brier score", "lower", high=2.0),
    "expected_calibration_error": Metric("expected calibration error", "lower", high=1.0),
    "accuracy": Metric("accuracy", "higher", high=1.0),
    "precision": Metric("precision", "higher", high=1.0),
    "recall": Metric("recall", "higher", high=1.0),
    "f1": Metric("F1", "higher", high=1.0),
}
_COUNTS = {
    "example_count": Metric("examples", "neither"),
    "weighted_example_count": Metric("weight of the examples", "neither"),
}
_MEANS = {
    "calibration": Metric("calibration (mean prediction / mean label)", "near_one", low=-math.inf),
    "mean_label": Metric("mean label", "neither", low=-math.inf),
    "mean_prediction": Metric("mean prediction", "neither", low=-math.inf),
}
_DECISIONS: Final = ("accuracy", "precision", "recall", "f1", "example_count", "weighted_example_count")
METRICS: Mapping[str, Mapping[str, Metric]] = {
    "binary_classification": {
        "auc": Metric("area under the ROC curve", "higher", high=1.0),
        "pr_auc": Metric("area under the precision-recall curve", "higher", high=1.0),
        **_SHARED,
        **_MEANS,
        **_COUNTS,
    },
    "multiclass_classification": {
        **_SHARED,
        "top_3_accuracy": Metric("share of rows whose class is among the three likeliest", "higher", high=1.0),
        "micro_precision": Metric("micro-averaged precision", "higher", high=1.0),
        "micro_recall": Metric("micro-averaged recall", "higher", high=1.0),
        "micro_f1": Metric("micro-averaged F1", "higher", high=1.0),
        **_COUNTS,
    },
    "regression": {
        "mae": Metric("mean absolute error", "lower"),
        "mse": Metric("mean squared error", "lower"),
        "rmse": Metric("root mean squared error", "lower"),
        "r2": Metric("R²", "higher", low=-math.inf, high=1.0),
        **_MEANS,
        **_COUNTS,
    },
}
"""By task and name, in the order in which they are shown."""


def find_metric(task: str, name: str) -> Metric:
    """Returns a metric of the task, or of one class of it (``precision[setosa]``).

    Raises:
        ProblemError: if the task has no such metric, listing those that it has.
    """
    metrics = METRICS[task]
    base = name.partition("[")[0]
    if base not in metrics:
        raise ProblemError(
            "problem.yaml: gates.quality", f"{task} has the metrics {', '.join(metrics)}", name, "name one of these"
        )
    return metrics[base]


def comparable_metrics(rule: str, task: str) -> tuple[str, ...]:
    """Returns the metrics that mean something for a baseline: ``majority`` gives no probabilities to judge."""
    return tuple(name for name in METRICS[task] if rule != "majority" or name in _DECISIONS)
