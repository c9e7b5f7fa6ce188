"""Losses against imbalance, and the layer that makes true probabilities of what a model learns by them.

Two things make a model answer other probabilities than the data have: rows of larger classes that are left out of
the training, and focal loss, whose minimum isn't at the probability. Both are undone exactly, in the model itself, so
that early stopping, evaluation and serving see probabilities of the data as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

_SMALLEST = 1e-30


class Probabilities(layers.Layer):
    """Makes probabilities of logits: in training those that the loss is of, otherwise those of the data.

    Input: float [batch, 1] for two classes, [batch, classes] for more. Output: float32 of the same shape; for two
    classes the probability of the second.

    Sources: Charoenphakdee et al. 2021, theorem 11 (the minimum v of focal loss at a probability p has
    ``p ~ v / ((1 - v)^g - g (1 - v)^(g - 1) v log v)``); King & Zeng 2001, Dal Pozzolo et al. 2015 (leaving out all but
    a share of a class's rows divides its odds by the share).

    Args:
        gamma: of the focal loss that the logits are trained by, if it is one.
        kept: share of the rows that are trained on by class; empty where that is all.
    """

    def __init__(self, gamma: float | None = None, kept: Sequence[float] = (), name: str = "probabilities") -> None:
        super().__init__(name=name, dtype="float32")
        self.gamma, self.kept = gamma, tuple(kept)

    def call(self, logits: Any, training: bool = False) -> Any:
        binary = logits.shape[-1] == 1
        if training or (self.gamma is None and not self.kept):
            return ops.sigmoid(logits) if binary else ops.softmax(logits)
        scores = ops.concatenate([ops.zeros_like(logits), logits], axis=-1) if binary else logits
        scores = ops.log_softmax(scores)
        if self.gamma is not None:
            scores = _focal_scores(scores, self.gamma)
        if self.kept:
            scores -= ops.convert_to_tensor(np.log(self.kept), dtype="float32")
        probabilities = ops.softmax(scores)
        return probabilities[..., 1:] if binary else probabilities

    def get_config(self) -> dict[str, Any]:
        return {"gamma": self.gamma, "kept": self.kept, "name": self.name}


def _focal_scores(log_v: Any, gamma: float) -> Any:
    """Returns log(v / phi(v)), with phi(v) = (1 - v)^(g - 1) ((1 - v) - g v log v): sums of what is positive."""
    v, rest = ops.exp(log_v), ops.maximum(-ops.expm1(log_v), _SMALLEST)
    return log_v - (gamma - 1) * ops.log(rest) - ops.log(ops.maximum(rest - gamma * v * log_v, _SMALLEST))


class SparseFocal(keras.losses.Loss):
    """Focal loss of class indices [batch] and probabilities [batch, classes]. Source: Lin et al. 2017, eq. 4."""

    def __init__(self, gamma: float) -> None:
        super().__init__(name="focal")
        self.gamma = gamma

    def call(self, y_true: Any, y_pred: Any) -> Any:
        chosen = ops.one_hot(ops.cast(y_true, "int32"), y_pred.shape[-1])
        return keras.losses.categorical_focal_crossentropy(chosen, y_pred, alpha=1.0, gamma=self.gamma)


def classification_loss(outputs: int, gamma: float | None = None) -> keras.losses.Loss:
    """Returns log loss, or focal loss where ``gamma`` is given.

    Args:
        outputs: 1 for the probability of the positive class, else the number of classes.
    """
    if gamma is None:
        return keras.losses.BinaryCrossentropy() if outputs == 1 else keras.losses.SparseCategoricalCrossentropy()
    return keras.losses.BinaryFocalCrossentropy(gamma=gamma) if outputs == 1 else SparseFocal(gamma)


class EvaluatedByLogLoss(keras.Model):
    """A classifier that is trained by the loss it is compiled with and evaluated by log loss.

    Focal losses of different gammas can't be compared, nor does one fall when true probabilities get better.
    """

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        if training:
            return super().compute_loss(x, y, y_pred, sample_weight, training)
        # As Keras does: each replica's share of what regularises the weights, its losses being shares already.
        regularization = sum(self.losses) / tf.distribute.get_strategy().num_replicas_in_sync
        return classification_loss(y_pred.shape[-1])(y, y_pred, sample_weight=sample_weight) + regularization
