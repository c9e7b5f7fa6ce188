"""Magnitude pruning while a network is trained on.

Source: Zhu & Gupta 2017, "To prune, or not to prune": the share of zeros grows to its end by a polynomial of degree 3
(eq. 1, from 0 and from the first step on), the smallest weights go first, and what is pruned stays so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import keras
import numpy as np
import tensorflow as tf

from tidemill.train.steps import Steps

_FEW: Final = ("bias", "token")


@dataclass(frozen=True)
class Schedule:
    """How the share of zeros grows.

    Attributes:
        sparsity: at the end.
        steps: from the first to the last in which something is pruned, 1 or more.
        every: steps from one pruning to the next.
    """

    sparsity: float
    steps: int
    every: int

    def share(self, step: Any) -> Any:
        """Returns the share of zeros after a step (from 0)."""
        done = tf.minimum((tf.cast(step, tf.float32) + 1) / self.steps, 1.0)
        return self.sparsity * (1 - (1 - done) ** 3)

    def due(self, step: Any) -> Any:
        """Tells whether something is pruned after a step: every so many steps and once more at the end."""
        last = tf.constant(self.steps - 1, step.dtype)
        return ((step % self.every == 0) & (step < last)) | (step == last)


class Pruner:
    """Prunes the kernels and tables of a model, each by itself, whenever its optimizer has moved them.

    Masks are variables of the optimizer, so that checkpoints have them.
    """

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule
        self._masked: list[tuple[keras.Variable, keras.Variable]] = []

    def attach(self, steps: Steps) -> None:
        """Gives every kernel and table a constraint, which the optimizer applies after each update."""
        optimizer = getattr(steps.model.optimizer, "inner_optimizer", steps.model.optimizer)
        for variable in prunable(steps.model.trainable_variables):
            mask = optimizer.add_variable_from_reference(variable, name="mask", initializer="ones")
            variable.constraint = _Masked(mask, optimizer, self._schedule)
            self._masked.append((variable, mask))

    def finish(self) -> float:
        """Sets what is pruned to zero for good, which an average of weights is not, and returns the share of zeros."""
        for variable, mask in self._masked:
            variable.constraint = None
            variable.assign(variable * mask)
        zeros = sum(int((np.array(variable) == 0).sum()) for variable, _ in self._masked)
        return zeros / sum(int(np.prod(variable.shape)) for variable, _ in self._masked)


class _Masked(keras.constraints.Constraint):
    """Updates the mask when it is due, and returns the weights behind it."""

    def __init__(self, mask: keras.Variable, optimizer: keras.optimizers.Optimizer, schedule: Schedule) -> None:
        self._mask, self._optimizer, self._schedule = mask, optimizer, schedule

    def __call__(self, weights: Any) -> tf.Tensor:
        values, mask = tf.convert_to_tensor(weights), tf.convert_to_tensor(self._mask)
        step = tf.convert_to_tensor(self._optimizer.iterations)
        mask = tf.cond(self._schedule.due(step), lambda: self._renewed(values * mask, step), lambda: mask)
        self._mask.assign(mask)
        return values * mask

    def _renewed(self, values: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
        magnitudes = tf.abs(values)
        ranked = tf.sort(tf.reshape(magnitudes, [-1]))
        size = tf.cast(tf.size(ranked), tf.float32)
        number = tf.cast(tf.round(self._schedule.share(step) * size), tf.int32)
        threshold = ranked[tf.maximum(number - 1, 0)]
        return tf.where(number > 0, tf.cast(magnitudes > threshold, values.dtype), tf.ones_like(values))


def prunable(variables: Sequence[keras.Variable]) -> list[keras.Variable]:
    """Returns those with two dimensions or more, but no biases, which attention has per head: they matter."""
    return [variable for variable in variables if len(variable.shape) > 1 and variable.name not in _FEW]
