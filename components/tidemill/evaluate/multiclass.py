"""Metrics of multiclass classification from counts. The answer is the likeliest class (the first of equals).

``precision``, ``recall`` and ``f1`` are macro averages over the classes that occur among a slice's labels; a class
that is never predicted has precision 0 in them (scikit-learn's ``zero_division=0``). ``precision[<class>]`` and its
like are those of one class. The micro averages all equal the accuracy, as every row has exactly one class; they are
there because TFMA has them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tidemill.evaluate.counts import Cells, Counts, replicates
from tidemill.evaluate.intervals import effective_size
from tidemill.evaluate.metrics import Computed, divide, expected_calibration_error

CALIBRATION_BINS = 10
TOP = 3
_EPSILON = 1e-7
MOMENTS = ("count", "weight", "log_loss", "squared_error", "hit", "top", "weight2", "invalid")


@dataclass(frozen=True)
class MulticlassCells:
    """Cells of a classifier with ``classes`` classes."""

    classes: int

    def __call__(self, labels: np.ndarray, outputs: np.ndarray, weights: np.ndarray) -> dict[str, Cells]:
        rows, actual = np.arange(len(labels)), labels.astype(np.int64)
        valid = np.isfinite(outputs).all(-1)
        probabilities = np.where(valid[:, None], outputs, 1 / self.classes).astype(np.float64)
        predicted = probabilities.argmax(-1)
        own, confidence = probabilities[rows, actual], probabilities[rows, predicted]
        hit = predicted == actual
        normalised = own / probabilities.sum(-1)
        moments = {
            "count": np.ones_like(weights),
            "weight": weights,
            "log_loss": -weights * np.log(np.clip(normalised, _EPSILON, 1)),
            "squared_error": weights * ((probabilities**2).sum(-1) - 2 * own + 1),
            "hit": weights * hit,
            "top": weights * ((probabilities > own[:, None]).sum(-1) < TOP),
            "weight2": weights**2,
            "invalid": (~valid).astype(np.float64),
        }
        calibration = np.minimum((confidence * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)
        return {
            "moments": Cells(np.zeros(len(labels), np.int64), 1, np.stack([moments[m] for m in MOMENTS], -1)),
            "actual": Cells(actual, self.classes, np.stack([weights, weights * hit, weights**2], -1)),
            "predicted": Cells(predicted, self.classes, np.stack([weights, weights**2], -1)),
            "calibration": Cells(
                calibration, CALIBRATION_BINS, np.stack([weights, weights * hit, weights * confidence, weights**2], -1)
            ),
            "confusion": Cells(
                actual * self.classes + predicted, self.classes**2, weights[:, None], replicated=False, overall=True
            ),
        }


def multiclass_metrics(counts: Counts, model: str, classes: Sequence[str]) -> tuple[Computed, Computed]:
    """Returns the metrics of each slice, and their bootstrap replicates."""
    names = ("moments", "actual", "predicted", "calibration")
    point = {name: counts[f"{model}/{name}"] for name in names}
    resampled = {name: replicates(counts, f"{model}/{name}") for name in names}
    return _compute(point, classes), _compute(resampled, classes)


def confusion_of(counts: Counts, model: str, classes: int) -> np.ndarray:
    """Returns the weight by actual and predicted class over all rows, [classes, classes]."""
    return counts[f"{model}/confusion"].reshape(classes, classes)


def _compute(sums: dict[str, np.ndarray], classes: Sequence[str]) -> Computed:
    m = {name: sums["moments"][..., 0, i] for i, name in enumerate(MOMENTS)}
    by_actual, by_predicted = sums["actual"], sums["predicted"]
    actual, hit, predicted = by_actual[..., 0], by_actual[..., 1], by_predicted[..., 0]
    weight = m["weight"]
    precision, recall = divide(hit, predicted), divide(hit, actual)
    f1 = divide(2 * hit, predicted + actual)
    occurs = actual > 0
    present = occurs.sum(-1)
    accuracy = divide(m["hit"], weight)
    values = {
        "log_loss": divide(m["log_loss"], weight),
        "brier": divide(m["squared_error"], weight),
        "expected_calibration_error": expected_calibration_error(sums["calibration"]),
        "accuracy": accuracy,
        "precision": divide(np.where(occurs, np.nan_to_num(precision), 0).sum(-1), present),
        "recall": divide(np.where(occurs, recall, 0).sum(-1), present),
        "f1": divide(np.where(occurs, f1, 0).sum(-1), present),
        "top_3_accuracy": divide(m["top"], weight),
        "micro_precision": accuracy,
        "micro_recall": accuracy,
        "micro_f1": accuracy,
    }
    sizes = {
        name: effective_size(weight, m["weight2"])
        for name in ("accuracy", "top_3_accuracy", "micro_precision", "micro_recall", "micro_f1")
    }
    for i, name in enumerate(classes):
        values |= {
            f"precision[{name}]": precision[..., i],
            f"recall[{name}]": recall[..., i],
            f"f1[{name}]": f1[..., i],
        }
        sizes[f"precision[{name}]"] = effective_size(predicted[..., i], by_predicted[..., i, 1])
        sizes[f"recall[{name}]"] = effective_size(actual[..., i], by_actual[..., i, 2])
    values = {name: np.where(m["invalid"] > 0, np.nan, value) for name, value in values.items()}
    values |= {"example_count": m["count"], "weighted_example_count": weight}
    return Computed(values, sizes)
