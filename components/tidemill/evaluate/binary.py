"""Metrics of binary classification from counts, by TFMA's definitions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tidemill.evaluate import curves
from tidemill.evaluate.counts import Cells, Counts, replicates
from tidemill.evaluate.intervals import effective_size
from tidemill.evaluate.metrics import Computed, divide, expected_calibration_error

CALIBRATION_BINS = 10
_EPSILON = 1e-7  # Keras' clip: an impossible label costs 16.1, not infinity
MOMENTS = (
    "count",
    "weight",
    "label",
    "prediction",
    "log_loss",
    "squared_error",
    "tp",
    "fp",
    "fn",
    "tn",
    "weight2",
    "positive_weight2",
    "selected_weight2",
    "invalid",
)


@dataclass(frozen=True)
class BinaryCells:
    """Cells of a binary classifier that answers positive from ``threshold`` on.

    The comparison is made in float32, as the model makes it.
    """

    threshold: float

    def __call__(self, labels: np.ndarray, outputs: np.ndarray, weights: np.ndarray) -> dict[str, Cells]:
        valid = np.isfinite(outputs)
        probability = np.where(valid, outputs, 0).astype(np.float64)
        positive, selected = labels == 1, valid & (outputs.astype(np.float32) >= np.float32(self.threshold))
        clipped = np.clip(probability, _EPSILON, 1 - _EPSILON)
        moments = {
            "count": np.ones_like(weights),
            "weight": weights,
            "label": weights * labels,
            "prediction": weights * probability,
            "log_loss": -weights * np.where(positive, np.log(clipped), np.log1p(-clipped)),
            "squared_error": weights * (probability - labels) ** 2,
            "tp": weights * (positive & selected),
            "fp": weights * (~positive & selected),
            "fn": weights * (positive & ~selected),
            "tn": weights * ~(positive | selected),
            "weight2": weights**2,
            "positive_weight2": weights**2 * positive,
            "selected_weight2": weights**2 * selected,
            "invalid": (~valid).astype(np.float64),
        }
        label_index = positive.astype(np.int64)
        weight_only = weights[:, None]
        calibration = np.minimum((probability * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)
        return {
            "moments": Cells(np.zeros(len(labels), np.int64), 1, np.stack([moments[m] for m in MOMENTS], -1)),
            "histogram": Cells(
                label_index * curves.BINS + curves.bin_index(probability),
                2 * curves.BINS,
                weight_only,
                replicated=False,
            ),
            "coarse": Cells(
                label_index * curves.COARSE_BINS + curves.coarse_bin_index(probability),
                2 * curves.COARSE_BINS,
                weight_only,
                point=False,
            ),
            "calibration": Cells(
                calibration,
                CALIBRATION_BINS,
                np.stack([weights, moments["label"], moments["prediction"], weights**2], -1),
            ),
        }


def moments_of(counts: Counts, model: str) -> dict[str, np.ndarray]:
    """Returns the sums of :data:`MOMENTS` by name, float64 [slices]."""
    return _named(counts[f"{model}/moments"])


def _named(array: np.ndarray) -> dict[str, np.ndarray]:
    return {moment: array[..., 0, i] for i, moment in enumerate(MOMENTS)}


def histogram_of(counts: Counts, model: str) -> np.ndarray:
    """Returns the weight by label and interval between TFMA's thresholds, [slices, 2, 9999]."""
    return _by_label(counts[f"{model}/histogram"])


def _by_label(array: np.ndarray) -> np.ndarray:
    return array[..., 0].reshape(*array.shape[:-2], 2, -1)


def binary_metrics(counts: Counts, model: str) -> tuple[Computed, Computed]:
    """Returns the metrics of each slice, and their bootstrap replicates."""
    point = _compute(moments_of(counts, model), histogram_of(counts, model), counts[f"{model}/calibration"])
    resampled = _compute(
        _named(replicates(counts, f"{model}/moments")),
        _by_label(replicates(counts, f"{model}/coarse")),
        replicates(counts, f"{model}/calibration"),
    )
    return point, resampled


def _compute(m: dict[str, np.ndarray], histogram: np.ndarray, calibration: np.ndarray) -> Computed:
    tp, fp, fn, weight = m["tp"], m["fp"], m["fn"], m["weight"]
    values = {
        "auc": curves.auc(histogram),
        "pr_auc": curves.pr_auc(histogram),
        "log_loss": divide(m["log_loss"], weight),
        "brier": divide(m["squared_error"], weight),
        "expected_calibration_error": expected_calibration_error(calibration),
        "accuracy": divide(tp + m["tn"], weight),
        "precision": divide(tp, tp + fp),
        "recall": divide(tp, tp + fn),
        "f1": divide(2 * tp, 2 * tp + fp + fn),
        "calibration": divide(m["prediction"], m["label"]),
        "mean_label": divide(m["label"], weight),
        "mean_prediction": divide(m["prediction"], weight),
    }
    # One answer that is not a number makes every metric of its slices undefined, and so visible.
    values = {name: np.where(m["invalid"] > 0, np.nan, value) for name, value in values.items()}
    values |= {"example_count": m["count"], "weighted_example_count": weight}
    sizes = {
        "accuracy": effective_size(weight, m["weight2"]),
        "precision": effective_size(tp + fp, m["selected_weight2"]),
        "recall": effective_size(tp + fn, m["positive_weight2"]),
        "mean_label": effective_size(weight, m["weight2"]),
    }
    return Computed(values, sizes)
