"""Training and evaluation of many steps within one call of TensorFlow.

``keras.Model.fit`` spends half its time between steps; here a block of steps is one graph call. The loop is also what
distribution needs: Keras 3's ``fit`` fails under several of TensorFlow's strategies (see ``tidemill.train.replicas``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import keras
import numpy as np
import tensorflow as tf

from tidemill.train.accumulation import in_parts
from tidemill.train.batches import Block, Packing
from tidemill.train.context import TrainContext
from tidemill.train.models import call_model, sample

CALL_SECONDS: Final = 5.0
"""A call ends with the step in which so much time has gone by, so that nobody waits long for what comes between calls:
a signal to end, a sign of life. Fast models never get there, so where their calls end doesn't depend on the clock."""


@dataclass(frozen=True)
class Taken:
    """What became of a block.

    Attributes:
        steps: steps taken, of all workers together; at least one.
        loss: sum over those steps' examples (of all workers) of the loss at their step.
        stop: whether any worker was asked to stop.
    """

    steps: int
    loss: float
    stop: bool


class Steps:
    """A compiled model, its packing and the graph functions over blocks, on one device.

    Metrics are updated once per block with all the block's predictions, which costs a fraction of updating them in
    every step and is the same sum.

    Args:
        model: compiled, taking a dict of features.
        packing: of the blocks.
        context: what the model was built from.
        weighted: whether blocks have example weights.
    """

    def __init__(self, model: keras.Model, packing: Packing, context: TrainContext, weighted: bool) -> None:
        self.model, self._packing, self._context, self._weighted = model, packing, context, weighted
        self._build()
        self.retrace()

    @property
    def variables(self) -> list[keras.Variable]:
        """All that a step changes: weights, seeds of random layers, optimizer, metrics."""
        return [*self.model.variables, *self.model.optimizer.variables, *self._metric_variables]

    def retrace(self) -> None:
        """Takes up what has changed of the model since it was traced: which layers are trainable, or the optimizer.

        An optimizer can't be told of other variables than those it was built for: who thaws a layer gives the model a
        new one (``model.optimizer``) first.
        """
        with self._context.strategy.scope():
            if not self.model.optimizer.built:
                self.model.optimizer.build(self.model.trainable_variables)
        self._trace()

    def train(
        self,
        block: Block,
        examples: np.ndarray | None = None,  # noqa: ARG002  # where there is one worker the block tells them
        asked: Callable[[], bool] = bool,
    ) -> Taken:
        """Takes a step per batch of the block, all of them unless that takes long: see ``CALL_SECONDS``.

        Args:
            block: this worker's rows.
            examples: rows of all workers together by step, int32 [steps]; the block's by default.
            asked: tells whether this worker was asked to stop, which all hear of.
        """
        steps, loss = self._train(block.tensors())
        return Taken(int(steps), float(loss), asked())

    def evaluate(self, blocks: Iterable[Block]) -> dict[str, float | None]:
        """Returns loss and metrics over all the examples; none is left out. The model's metrics are reset."""
        self.model.reset_metrics()
        total, rows = 0.0, 0
        for block in blocks:
            total += float(self._evaluate(block.tensors())[1])
            rows += len(block)
        return self.results(total / rows)

    def results(self, loss: float) -> dict[str, float | None]:
        """Returns ``loss`` and the model's metrics as they stand (None where one isn't finite), and resets these."""
        values = {name: np.asarray(value) for name, value in self.model.get_metrics_result().items()}
        self.model.reset_metrics()
        scalars = {name: float(value) for name, value in values.items() if value.ndim == 0}
        finite = {name: value if math.isfinite(value) else None for name, value in scalars.items()}
        return {**finite, "loss": loss}

    def settle(self) -> None:
        """Makes all replicas agree on what each keeps for itself, before it is saved or evaluated."""

    def values(self) -> list[np.ndarray]:
        """Returns copies of the variables, to be restored by any worker."""
        return [np.array(variable) for variable in self.variables]

    def restore(self, values: Sequence[np.ndarray]) -> None:
        """Assigns what ``values`` returned."""
        for variable, value in zip(self.variables, values, strict=True):
            variable.assign(value)

    def agreed(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Returns the chief's arrays at every worker. All give arrays of the same shapes and dtypes."""
        return list(arrays)

    def agreed_text(self, text: str) -> str:
        """Returns the chief's text at every worker."""
        return text

    @property
    def _metric_variables(self) -> list[keras.Variable]:
        return [variable for metric in self.model.metrics for variable in metric.variables]

    def _build(self) -> None:
        """Creates all variables, which a traced function can't."""
        labels = tf.zeros([2] if self._packing.label_dtype == "int64" else [2, 1], self._packing.label_dtype)
        weights = tf.ones([2]) if self._weighted else None
        inputs = sample(self._context, 2)
        with self._context.strategy.scope():
            prediction = tf.cast(call_model(self.model, inputs, training=False), tf.float32)
        self.model.compute_loss(inputs, labels, prediction, weights)
        self.model.compute_metrics(inputs, labels, prediction, weights)
        self._own_metrics()  # all of them, now that Keras has made them
        self.model.reset_metrics()

    def _own_metrics(self) -> None:
        """Sees to it that the metrics' variables are this process's own."""

    def _trace(self) -> None:
        # One trace each, made here, so that what user code raises is raised now. No autograph, as under fit().
        signature = [self._packing.specs(self._weighted)]
        step = self._compiled_step() if self._context.training.xla else self._train_step
        self._train = traced(lambda tensors: self._over_batches(tensors, step, CALL_SECONDS), signature)
        self._evaluate = traced(lambda tensors: self._over_batches(tensors, self._evaluate_step, None), signature)

    def _compiled_step(self) -> Callable[..., Any]:
        batch = self._packing.zeros(self._context.batch_size, self._weighted)
        return compiled(self._train_step, self._packing.unpack(batch))

    def _over_batches(
        self, tensors: dict[str, tf.Tensor], step: Callable[..., Any], seconds: float | None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Runs ``step`` on each batch in turn. Returns the steps, and the sum of their losses over examples.

        Args:
            seconds: after which no further step is begun.
        """
        rows, size = tf.shape(tensors["label"])[0], self._context.batch_size
        steps = (rows + size - 1) // size
        predictions = tf.TensorArray(tf.float32, steps, infer_shape=False, element_shape=[None, self._context.outputs])
        begun = tf.timestamp()

        def goes_on(i: tf.Tensor, *_: Any) -> tf.Tensor:
            return i < steps if seconds is None else (i < steps) & ((i < 1) | (tf.timestamp() - begun < seconds))

        def body(i: tf.Tensor, total: tf.Tensor, predictions: tf.TensorArray) -> tuple[Any, ...]:
            batch = {name: tensor[i * size : (i + 1) * size] for name, tensor in tensors.items()}
            prediction, loss = step(*self._packing.unpack(batch))
            examples = tf.cast(tf.shape(batch["label"])[0], tf.float32)
            return i + 1, total + tf.cast(loss, tf.float32) * examples, predictions.write(i, prediction)

        taken, total, predictions = tf.while_loop(goes_on, body, (0, 0.0, predictions), parallel_iterations=1)
        self._measure(tensors, tf.minimum(taken * size, rows), predictions.concat())
        return taken, total

    def _measure(self, tensors: dict[str, tf.Tensor], rows: tf.Tensor, predictions: tf.Tensor) -> None:
        """Updates the metrics with the first ``rows`` rows."""
        inputs, labels, weights = self._packing.unpack({name: tensor[:rows] for name, tensor in tensors.items()})
        self.model.compute_metrics(inputs, labels, predictions[:rows], weights)

    def _train_step(
        self, inputs: dict[str, tf.Tensor], labels: tf.Tensor, weights: tf.Tensor | None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        prediction, loss, gradients = self._gradients(inputs, labels, weights)
        self.model.optimizer.apply(gradients, self.model.trainable_variables)
        return prediction, loss

    def _gradients(
        self, inputs: dict[str, tf.Tensor], labels: tf.Tensor, weights: tf.Tensor | None
    ) -> tuple[tf.Tensor, tf.Tensor, list[tf.Tensor]]:
        """Returns predictions float32 [batch, outputs], loss, and gradients, dense, as the optimizer scales them."""
        parts, variables = self._context.training.optimizer.accumulate_steps, self.model.trainable_variables
        return in_parts(self._part_gradients, (inputs, labels, weights), parts, [v.value for v in variables])

    def _part_gradients(
        self, inputs: dict[str, tf.Tensor], labels: tf.Tensor, weights: tf.Tensor | None
    ) -> tuple[tf.Tensor, tf.Tensor, list[tf.Tensor]]:
        with tf.GradientTape() as tape:
            prediction = tf.cast(call_model(self.model, inputs, training=True), tf.float32)
            loss = self.model.compute_loss(inputs, labels, prediction, weights)
            scaled = self.model.optimizer.scale_loss(loss)
        gradients = tape.gradient(scaled, [v.value for v in self.model.trainable_variables])
        return prediction, loss, [summed(gradient) for gradient in gradients]

    def _evaluate_step(
        self, inputs: dict[str, tf.Tensor], labels: tf.Tensor, weights: tf.Tensor | None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        prediction = tf.cast(call_model(self.model, inputs, training=False), tf.float32)
        return prediction, self.model.compute_loss(inputs, labels, prediction, weights, training=False)


def traced(function: Callable[..., Any], signature: Sequence[Any]) -> Callable[..., Any]:
    """Returns the function as one graph."""
    concrete: Callable[..., Any] = tf.function(
        function, input_signature=signature, autograph=False
    ).get_concrete_function()
    return concrete


def compiled(function: Callable[..., Any], arguments: Sequence[Any]) -> Callable[..., Any]:
    """Returns the function compiled by XLA, or as it is, said aloud, where it has something that XLA can't compile.

    Args:
        function: of tensors; it is compiled here, and not run.
        arguments: of the shapes that it will be called with most.
    """
    candidate = tf.function(function, jit_compile=True, autograph=False)
    try:
        candidate.experimental_get_compiler_ir(*arguments)(stage="hlo")
    except (tf.errors.OpError, ValueError, TypeError) as error:
        reason = " ".join(str(error).split())[:300]
        print(f"train: XLA can't compile a step of this model, which is trained without: {reason}", flush=True)
        return function
    return candidate  # type: ignore[no-any-return]  # TensorFlow has no types


def summed(gradient: Any) -> Any:
    """Sums the slices of a sparse gradient that belong to one row of the table.

    Keras 3.15's optimizers square the slices before they are summed: with an id 30 times in a batch, Adam moves its
    embedding sqrt(30) times too far.
    """
    return tf.convert_to_tensor(gradient) if isinstance(gradient, tf.IndexedSlices) else gradient
