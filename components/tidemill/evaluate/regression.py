"""Metrics of regression from weighted sums."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tidemill.evaluate.counts import Cells, Counts, replicates
from tidemill.evaluate.metrics import Computed, divide

MOMENTS = ("count", "weight", "label", "prediction", "squared_label", "absolute_error", "squared_error", "invalid")


@dataclass(frozen=True)
class RegressionCells:
    """Cells of a regression model.

    Attributes:
        centre: subtracted from labels before they are squared, so that R² keeps its digits when the labels' mean is
            large against their spread; the training labels' mean.
        edges: ascending bounds of the bins in which mean prediction and mean label are compared.
    """

    centre: float
    edges: tuple[float, ...]

    def __call__(self, labels: np.ndarray, outputs: np.ndarray, weights: np.ndarray) -> dict[str, Cells]:
        valid = np.isfinite(outputs)
        predictions = np.where(valid, outputs, 0).astype(np.float64)
        error = predictions - labels
        moments = {
            "count": np.ones_like(weights),
            "weight": weights,
            "label": weights * (labels - self.centre),
            "prediction": weights * (predictions - self.centre),
            "squared_label": weights * (labels - self.centre) ** 2,
            "absolute_error": weights * np.abs(error),
            "squared_error": weights * error**2,
            "invalid": (~valid).astype(np.float64),
        }
        bins = np.searchsorted(self.edges, predictions, side="right")
        return {
            "moments": Cells(np.zeros(len(labels), np.int64), 1, np.stack([moments[m] for m in MOMENTS], -1)),
            "calibration": Cells(
                bins,
                len(self.edges) + 1,
                np.stack([weights, weights * labels, weights * predictions, weights**2], -1),
                replicated=False,
            ),
        }


def regression_metrics(counts: Counts, model: str, centre: float) -> tuple[Computed, Computed]:
    """Returns the metrics of each slice, and their bootstrap replicates."""
    return _compute(counts[f"{model}/moments"], centre), _compute(replicates(counts, f"{model}/moments"), centre)


def _compute(array: np.ndarray, centre: float) -> Computed:
    m = {name: array[..., 0, i] for i, name in enumerate(MOMENTS)}
    weight = m["weight"]
    mean_label = divide(m["label"], weight) + centre
    mean_prediction = divide(m["prediction"], weight) + centre
    mse = divide(m["squared_error"], weight)
    spread = m["squared_label"] - np.where(weight > 0, divide(m["label"] ** 2, weight), 0)
    # Rounding leaves a tiny spread of either sign where all labels are equal, and R² isn't defined there.
    spread = np.where(spread > 1e-12 * m["squared_label"], spread, 0)
    calibration = np.divide(mean_prediction, mean_label, out=np.full_like(mse, np.nan), where=mean_label != 0)
    values = {
        "mae": divide(m["absolute_error"], weight),
        "mse": mse,
        "rmse": np.sqrt(mse),
        "r2": 1 - divide(m["squared_error"], spread),
        "calibration": calibration,
        "mean_label": mean_label,
        "mean_prediction": mean_prediction,
    }
    values = {name: np.where(m["invalid"] > 0, np.nan, value) for name, value in values.items()}
    return Computed({**values, "example_count": m["count"], "weighted_example_count": weight})
