"""The limits that a problem sets, in the four places where a run can be refused."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from tidemill.features import Strict

QualityMetric = Literal[
    "accuracy",
    "auc",
    "pr_auc",
    "precision",
    "recall",
    "f1",
    "log_loss",
    "brier",
    "calibration",
    "expected_calibration_error",
    "top_3_accuracy",
    "mae",
    "mse",
    "rmse",
    "r2",
    "mean_label",
    "mean_prediction",
]
"""``calibration`` is the mean prediction divided by the mean label; 1 is ideal (TFMA's definition)."""

FairnessMetric = Literal[
    "demographic_parity_gap",
    "demographic_parity_ratio",
    "equal_opportunity_gap",
    "equal_opportunity_ratio",
    "equalized_odds_gap",
    "predictive_parity_gap",
    "predictive_parity_ratio",
]


class DataGate(Strict):
    """Limits on the data, held before anything is trained."""

    min_rows: int = Field(default=100, ge=1, description="Rows over all splits.")
    max_quarantined: float = Field(default=0.01, ge=0, le=1, description="Share of rows that could not be read.")
    max_skew: float = Field(default=0.1, gt=0, description="Distance of training from eval, per feature.")
    max_drift: float = Field(default=0.15, gt=0, description="Distance from the last released run, per feature.")
    allow: tuple[str, ...] = Field(
        default=(), description="Anomalies that warn and don't block: `column` or `column:TYPE`."
    )


class QualityLimit(Strict):
    """One limit on a metric. Any of the bounds may be given together."""

    metric: QualityMetric
    min: float | None = None
    max: float | None = None
    max_worse_than_champion: float | None = Field(default=None, ge=0)
    min_better_than_baseline: float | None = None
    slices: Literal["overall", "sensitive"] = "overall"
    min_examples: int = Field(default=50, ge=1, description="Smaller slices are shown and don't decide.")

    @model_validator(mode="after")
    def _bounded(self) -> QualityLimit:
        bounds = (self.min, self.max, self.max_worse_than_champion, self.min_better_than_baseline)
        if all(bound is None for bound in bounds):
            raise ValueError("needs one of min, max, max_worse_than_champion, min_better_than_baseline")
        return self


class FairnessLimit(Strict):
    """One limit on the gap (largest minus smallest) or ratio (smallest over largest) between groups."""

    metric: FairnessMetric
    min: float | None = Field(default=None, description="For ratios.")
    max: float | None = Field(default=None, description="For gaps.")
    over: tuple[str, ...] | None = Field(
        default=None, description="Columns of one entry of `sensitive`; all by default."
    )
    min_examples: int = Field(default=50, ge=1, description="Smaller groups are shown and don't decide.")

    @model_validator(mode="after")
    def _bounded(self) -> FairnessLimit:
        wanted = "min" if self.metric.endswith("_ratio") else "max"
        if getattr(self, wanted) is None or (self.min is not None and self.max is not None):
            raise ValueError(f"{self.metric} needs `{wanted}` and nothing else")
        return self


class ServingGate(Strict):
    """Limits on the answering model, held before it is registered."""

    rows: int = Field(default=256, ge=1, description="Raw rows that are replayed.")
    tolerance: float = Field(
        default=1e-5, ge=0, description="Largest difference from the offline prediction, relative beyond 1."
    )
    p50_ms: float | None = Field(default=None, gt=0)
    p99_ms: float = Field(default=250.0, gt=0, description="Latency of a single-row request.")


class Gates(Strict):
    """Everything that can refuse a model."""

    data: DataGate = DataGate()
    quality: tuple[QualityLimit, ...] = ()
    fairness: tuple[FairnessLimit, ...] = ()
    serving: ServingGate = ServingGate()
