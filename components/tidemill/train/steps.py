"""Training and evaluation of many steps within one call of TensorFlow.

``keras.Model.fit`` spends half its time between steps; here a block of steps is one graph call. The loop is also what
distribution needs: Keras 3's ``fit`` fails under several of TensorFlow's strategies.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tidemill.train.accumulation import in_parts
from tidemill.train.batches import Block, Packing
from tidemill.train.context import TrainContext
from tidemill.train.models import call_model, sample
from tidemill.train.optimizers import clipped_over_replicas


class Steps:
    """A compiled model, its packing and the graph functions over blocks.

    Metrics are updated once per block with all the block's predictions, which costs a fraction of updating them in
    every step and is the same sum.

    Args:
        model: compiled, taking a dict of features.
        packing: of the blocks.
        context: what the model was built from.
        weighted: whether blocks have example weights.
    """

    def __init__(self, model: keras.Model, packing: Packing, context: TrainContext, weighted: bool) -> None:
        self.model, self._packing, self._context = model, packing, context
        self._build(weighted)
        signature = [packing.specs(weighted)]
        # One trace each, made here, so that what user code raises is raised now. No autograph, as under fit().
        self._train = _traced(self._train_block, signature)
        self._evaluate = _traced(self._evaluate_block, signature)

    @property
    def variables(self) -> list[keras.Variable]:
        """All that a step changes: weights, seeds of random layers, optimizer, metrics."""
        metrics = [v for metric in self.model.metrics for v in metric.variables]
        return [*self.model.variables, *self.model.optimizer.variables, *metrics]

    def train(self, block: Block) -> float:
        """Takes a step per batch of the block. Returns the sum over examples of the loss at their step."""
        return float(self._train(block.tensors()))

    def evaluate(self, blocks: Iterable[Block]) -> dict[str, float | None]:
        """Returns loss and metrics over all the examples; none is left out. The model's metrics are reset."""
        self.model.reset_metrics()
        total, rows = 0.0, 0
        for block in blocks:
            total += float(self._evaluate(block.tensors()))
            rows += len(block)
        return self.results(total / rows)

    def results(self, loss: float) -> dict[str, float | None]:
        """Returns ``loss`` and the model's metrics as they stand (None where one isn't finite), and resets these."""
        values = {name: np.asarray(value) for name, value in self.model.get_metrics_result().items()}
        self.model.reset_metrics()
        scalars = {name: float(value) for name, value in values.items() if value.ndim == 0}
        finite = {name: value if math.isfinite(value) else None for name, value in scalars.items()}
        return {**finite, "loss": loss}

    def _build(self, weighted: bool) -> None:
        """Creates all variables, which a traced function can't."""
        labels = tf.zeros([2] if self._packing.label_dtype == "int64" else [2, 1], self._packing.label_dtype)
        weights = tf.ones([2]) if weighted else None
        inputs = sample(self._context, 2)
        prediction = call_model(self.model, inputs, training=False)
        self.model.compute_loss(inputs, labels, prediction, weights)
        self.model.compute_metrics(inputs, labels, prediction, weights)
        self.model.reset_metrics()
        self.model.optimizer.build(self.model.trainable_variables)

    def _train_block(self, tensors: dict[str, tf.Tensor]) -> tf.Tensor:
        return self._over_batches(tensors, self._train_step)

    def _evaluate_block(self, tensors: dict[str, tf.Tensor]) -> tf.Tensor:
        return self._over_batches(tensors, self._evaluate_step)

    def _over_batches(self, tensors: dict[str, tf.Tensor], step: Callable[..., Any]) -> tf.Tensor:
        """Runs ``step`` on each batch in turn. Returns the sum of its losses over examples."""
        rows, size = tf.shape(tensors["label"])[0], self._context.batch_size
        steps = (rows + size - 1) // size
        predictions = tf.TensorArray(tf.float32, steps, infer_shape=False, element_shape=[None, self._context.outputs])

        def body(i: tf.Tensor, total: tf.Tensor, predictions: tf.TensorArray) -> tuple[Any, ...]:
            batch = {name: tensor[i * size : (i + 1) * size] for name, tensor in tensors.items()}
            prediction, loss = step(*self._packing.unpack(batch))
            examples = tf.cast(tf.shape(batch["label"])[0], tf.float32)
            prediction = tf.cast(prediction, tf.float32)
            return i + 1, total + tf.cast(loss, tf.float32) * examples, predictions.write(i, prediction)

        _, total, predictions = tf.while_loop(
            lambda i, *_: i < steps, body, (0, 0.0, predictions), parallel_iterations=1
        )
        inputs, labels, weights = self._packing.unpack(tensors)
        self.model.compute_metrics(inputs, labels, predictions.concat(), weights)
        return total

    def _train_step(
        self, inputs: dict[str, tf.Tensor], labels: tf.Tensor, weights: tf.Tensor | None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        optimizer, parts = self.model.optimizer, self._context.training.optimizer.accumulate_steps
        variables = self.model.trainable_variables
        batch = (inputs, labels, weights)
        prediction, loss, gradients = in_parts(self._gradients, batch, parts, [v.value for v in variables])
        optimizer.apply(clipped_over_replicas(optimizer, gradients), variables)
        return prediction, loss

    def _gradients(
        self, inputs: dict[str, tf.Tensor], labels: tf.Tensor, weights: tf.Tensor | None
    ) -> tuple[tf.Tensor, tf.Tensor, list[tf.Tensor]]:
        """Returns predictions, loss, and the gradients of the loss as the optimizer scales it."""
        with tf.GradientTape() as tape:
            prediction = call_model(self.model, inputs, training=True)
            loss = self.model.compute_loss(inputs, labels, prediction, weights)
            scaled = self.model.optimizer.scale_loss(loss)
        gradients = tape.gradient(scaled, [v.value for v in self.model.trainable_variables])
        return prediction, loss, [summed(gradient) for gradient in gradients]

    def _evaluate_step(
        self, inputs: dict[str, tf.Tensor], labels: tf.Tensor, weights: tf.Tensor | None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        prediction = call_model(self.model, inputs, training=False)
        return prediction, self.model.compute_loss(inputs, labels, prediction, weights, training=False)


def _traced(function: Callable[..., Any], signature: Sequence[Any]) -> Callable[..., Any]:
    concrete: Callable[..., Any] = tf.function(
        function, input_signature=signature, autograph=False
    ).get_concrete_function()
    return concrete


def summed(gradient: Any) -> Any:
    """Sums the slices of a sparse gradient that belong to one row of the table.

    Keras 3.15's optimizers square the slices before they are summed: with an id 30 times in a batch, Adam moves its
    embedding sqrt(30) times too far.
    """
    return tf.convert_to_tensor(gradient) if isinstance(gradient, tf.IndexedSlices) else gradient
