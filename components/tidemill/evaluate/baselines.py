"""Rules that know no feature: what a model must beat to be worth having."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tidemill.evaluate.labels import TrainLabels

DECIDING_METRIC: Mapping[str, str] = {"majority": "accuracy", "prior": "log_loss", "mean": "rmse"}
"""The metric on which a model must beat the rule, where the problem sets no limit of its own."""


def constant_answer(rule: str, task: str, labels: TrainLabels) -> np.ndarray:
    """Returns what the rule answers to every row: a probability, one per class, or a value.

    ``majority`` is certain of the most frequent class of the training split, ``prior`` gives the classes' shares in
    it, ``mean`` the mean label.
    """
    if rule == "mean":
        return np.float64(labels.mean)  # type: ignore[return-value]
    shares = labels.prior
    if rule == "majority":
        shares = np.eye(len(shares))[int(shares.argmax())]
    return shares[1] if task == "binary_classification" else shares  # type: ignore[no-any-return]
