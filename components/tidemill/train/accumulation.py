"""The gradients of a batch that doesn't fit the memory: computed part by part, and the same in the end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

Result = tuple[tf.Tensor, tf.Tensor, list[tf.Tensor]]
"""Predictions [rows, outputs], loss (mean over the rows), and the gradients of that loss."""


def in_parts(compute: Callable[..., Result], batch: Sequence[Any], parts: int, variables: Sequence[Any]) -> Result:
    """Returns what ``compute(*batch)`` does, by computing at most ``parts`` parts of the rows one after the other.

    Nothing is carried over from a batch to the next, as with accumulation over steps: a position within an epoch,
    a checkpoint and a schedule mean the same however many parts there are.

    Args:
        compute: of a batch or a part of it; gradients dense, in the order of ``variables``, None where there is none.
        batch: nested tensors, all [rows, …], rows > 0; or None in place of a tensor.
        parts: 1 calls ``compute`` with the batch itself.
        variables: TensorFlow's, whose shapes and dtypes the gradients have.
    """
    if parts == 1:
        return compute(*batch)
    rows = tf.shape(tf.nest.flatten(batch)[0])[0]
    size = (rows + parts - 1) // parts
    count = (rows + size - 1) // size

    def body(i: tf.Tensor, total: tf.Tensor, predictions: tf.TensorArray, sums: list[tf.Tensor]) -> tuple[Any, ...]:
        part = tf.nest.map_structure(
            lambda tensor: None if tensor is None else tensor[i * size : (i + 1) * size], list(batch)
        )
        prediction, loss, gradients = compute(*part)
        share = tf.cast(tf.shape(prediction)[0], tf.float32) / tf.cast(rows, tf.float32)
        added = [
            total if gradient is None else total + tf.cast(share, total.dtype) * tf.cast(gradient, total.dtype)
            for total, gradient in zip(sums, gradients, strict=True)
        ]
        written = predictions.write(i, tf.cast(prediction, tf.float32))
        return i + 1, total + share * tf.cast(loss, tf.float32), written, added

    predictions = tf.TensorArray(tf.float32, count, infer_shape=False)
    sums = [tf.zeros(variable.shape, variable.dtype) for variable in variables]
    _, total, predictions, sums = tf.while_loop(
        lambda i, *_: i < count, body, (0, 0.0, predictions, sums), parallel_iterations=1
    )
    return predictions.concat(), total, sums
