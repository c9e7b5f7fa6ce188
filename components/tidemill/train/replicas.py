"""The steps of a training over several replicas: devices of this process, and those of other workers.

A step is one of all replicas together. Its loss is that of the global batch: the mean over the examples that all
replicas have in it, and whatever regularises the weights once. So the gradients, summed over the replicas, are those
of one device with the same batch, however the batch is divided and wherever the last one of an epoch ends.

What differs from Keras's own way: the gradients are summed before the optimizer sees them, so that it clips, checks
for infinities and averages once, with what one device would have; and metrics are this process's own, updated with the
predictions of its replicas, and summed over the workers when somebody asks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tidemill.errors import UserCodeError
from tidemill.train.batches import Block, Packing
from tidemill.train.context import TrainContext
from tidemill.train.optimizers import clipped_over_replicas
from tidemill.train.steps import CALL_SECONDS, Steps, Taken, compiled, traced
from tidemill.train.strategies import Distribution


def make_steps(
    model: keras.Model, packing: Packing, context: TrainContext, weighted: bool, distribution: Distribution
) -> Steps:
    """Returns the steps of a model that was built in the distribution's scope."""
    if distribution.name == "default":
        return Steps(model, packing, context, weighted)
    return ReplicatedSteps(model, packing, context, weighted, distribution)


def applies_within(strategy: tf.distribute.Strategy) -> bool:
    """Tells whether each replica applies the optimizer itself: what a TPU holds is changed only by what runs on it."""
    return isinstance(strategy, tf.distribute.TPUStrategy)


_SEED = "seed_generator_state"


class ReplicatedSteps(Steps):
    """Steps that every replica takes a part in. All workers must call the same methods in the same order.

    Args:
        distribution: the strategy in whose scope the model was built.
    """

    def __init__(
        self,
        model: keras.Model,
        packing: Packing,
        context: TrainContext,
        weighted: bool,
        distribution: Distribution,
    ) -> None:
        self._distribution, self._strategy = distribution, distribution.strategy
        self._size = context.batch_size // distribution.place.workers
        self._applies_within = applies_within(self._strategy)
        self._over_workers = traced(self._sum, [tf.TensorSpec([None], tf.float64)])
        super().__init__(model, packing, context, weighted)
        self._spread_seeds()

    def train(self, block: Block, examples: np.ndarray | None = None, asked: Callable[[], bool] = bool) -> Taken:
        if examples is None:
            begun = range(0, len(block), self._size)
            examples = np.array([min(self._size, len(block) - first) for first in begun], np.int32)
        padded = block.padded(len(examples) * self._size).tensors()
        steps, loss, stops = self._train(padded, len(block), examples, float(asked()))
        return Taken(int(steps), float(loss), bool(stops > 0))

    def evaluate(self, blocks: Iterable[Block]) -> dict[str, float | None]:
        self.model.reset_metrics()
        total, rows = 0.0, 0
        for block in blocks:
            if not len(block):
                continue
            padded = block.padded(-(-len(block) // self._size) * self._size)
            total += float(self._evaluate(padded.tensors(), len(block)))
            rows += len(block)
        total, rows = self._summed([np.array([total, rows])])[0]
        return self.results(float(total / rows))

    def results(self, loss: float) -> dict[str, float | None]:
        self._assign_metrics(self._summed([np.array(variable) for variable in self._metric_variables]))
        return super().results(loss)

    def settle(self) -> None:
        """Averages what layers keep by replica, such as a batch normalisation's means, and leaves all with that."""
        kept = [v for v in self.model.non_trainable_variables if tf.as_dtype(v.dtype).is_floating]
        if not kept:
            return
        means = [np.mean([np.array(part, np.float64) for part in self._parts(v)], axis=0) for v in kept]
        for variable, total in zip(kept, self._summed(means), strict=True):
            variable.assign(total / self._distribution.place.workers)

    def values(self) -> list[np.ndarray]:
        """Returns copies of the variables; those of the metrics are sums over the workers, which the chief keeps."""
        total = self._summed([np.array(variable) for variable in self._metric_variables])
        chief = self._distribution.place.chief
        self._assign_metrics([value if chief else np.zeros_like(value) for value in total])
        return super().values()

    def restore(self, values: Sequence[np.ndarray]) -> None:
        super().restore(values)
        if not self._distribution.place.chief:
            self.model.reset_metrics()
        self._spread_seeds()

    def agreed(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        chief = self._distribution.place.chief
        return self._summed([array if chief else np.zeros_like(array) for array in arrays])

    def agreed_text(self, text: str) -> str:
        data = np.frombuffer(text.encode(), np.uint8)
        (size,) = self.agreed([np.array(len(data))])
        (data,) = self.agreed([np.resize(data, int(size)) if len(data) else np.zeros(int(size), np.uint8)])
        return str(data.tobytes(), "utf-8")

    def _own_metrics(self) -> None:
        """Gives the metrics variables of this process in place of the replicas', which can't be assigned from outside.

        Raises:
            UserCodeError: if what a metric keeps can't be summed over the workers.
        """
        for metric in self.model.metrics:
            for variable in metric.variables:
                if self._distribution.place.workers > 1 and variable.aggregation != "sum":
                    raise UserCodeError(
                        f"metric {variable.path.partition('/')[0]}",
                        "must keep what can be summed over workers",
                        f"a variable of aggregation {variable.aggregation!r}",
                        "add its variables with aggregation='sum', or train with one worker",
                    )
                variable._value = tf.Variable(np.array(variable), dtype=variable.dtype, trainable=False)

    def _trace(self) -> None:
        signature = [self._packing.specs(self._weighted), tf.TensorSpec([], tf.int32)]
        steps, flag = tf.TensorSpec([None], tf.int32), tf.TensorSpec([], tf.float32)
        self._compute = self._compiled_gradients() if self._context.training.xla else self._gradients
        self._train = traced(self._train_block, [*signature, steps, flag])
        self._evaluate = traced(self._evaluate_block, signature)

    def _compiled_gradients(self) -> Callable[..., Any]:
        if self._applies_within:
            return self._gradients  # a TPU runs nothing but what XLA compiled
        batch = self._packing.zeros(self._size // self._distribution.local_replicas, True)
        return compiled(self._gradients, self._packing.unpack(batch))

    def _train_block(
        self, tensors: dict[str, tf.Tensor], rows: tf.Tensor, examples: tf.Tensor, stop: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Takes the steps. Returns how many, the sum of their losses over examples, and how many replicas are to stop.

        Args:
            tensors: whole batches of this worker.
            rows: how many of their rows are examples; the rest are zeros.
            examples: int32 [steps] of all workers.
            stop: 1 if this worker is to stop.
        """
        steps, batch_size, begun = tf.shape(examples)[0], self._context.batch_size, tf.timestamp()
        predictions = self._array(steps)

        def body(i: tf.Tensor, total: tf.Tensor, flags: tf.Tensor, predictions: tf.TensorArray) -> tuple[Any, ...]:
            count = tf.cast(examples[i], tf.float32)
            batch = self._shared_out(tensors, i, rows, batch_size / count)
            late = tf.cast(tf.timestamp() - begun > CALL_SECONDS, tf.float32)
            outcome = self._strategy.run(self._replica_step, args=(batch, tf.stack([late, stop])))
            prediction, (gradients, loss, flags) = outcome[0], tf.nest.map_structure(self._first, outcome[1:])
            if not self._applies_within:
                self.model.optimizer.apply(gradients, self.model.trainable_variables)
            return i + 1, total + loss * count, flags, predictions.write(i, self._joined(prediction))

        # The flags are sums over the replicas, so all workers end the call with the same step.
        taken, total, flags, predictions = tf.while_loop(
            lambda i, _, flags, __: (i < steps) & (flags[0] < 0.5),
            body,
            (0, 0.0, tf.zeros([2]), predictions),
            parallel_iterations=1,
        )
        with tf.device("CPU:0"):
            self._measure(tensors, tf.minimum(taken * self._size, rows), predictions.concat())
        return taken, total, flags[1]

    def _replica_step(self, batch: dict[str, tf.Tensor], flags: tf.Tensor) -> tuple[Any, ...]:
        """Returns this replica's predictions, and summed over all: gradients, loss and flags."""
        prediction, loss, gradients = self._compute(*self._packing.unpack(batch))
        context = tf.distribute.get_replica_context()
        if self._applies_within:
            own = clipped_over_replicas(self.model.optimizer, gradients)
            self.model.optimizer.apply(own, self.model.trainable_variables)
            gradients = []
        present = [gradient for gradient in gradients if gradient is not None]
        *present, loss, flags = context.all_reduce(
            tf.distribute.ReduceOp.SUM, [*present, tf.cast(loss, tf.float32), tf.identity(flags)]
        )
        totals = iter(present)
        return prediction, [None if gradient is None else next(totals) for gradient in gradients], loss, flags

    def _evaluate_block(self, tensors: dict[str, tf.Tensor], rows: tf.Tensor) -> tf.Tensor:
        """Returns the sum over this worker's examples of their loss; other workers are not waited for."""
        steps, replicas = tf.shape(tensors["label"])[0] // self._size, self._distribution.local_replicas
        share = self._distribution.replicas / replicas

        def body(i: tf.Tensor, total: tf.Tensor, predictions: tf.TensorArray) -> tuple[Any, ...]:
            count = tf.cast(tf.minimum(rows - i * self._size, self._size), tf.float32)
            batch = self._shared_out(tensors, i, rows, self._size / count)
            prediction, loss = self._strategy.run(self._replica_evaluation, args=(batch,))
            # Keras divides each replica's loss by the number of all replicas.
            loss = tf.add_n(self._strategy.experimental_local_results(loss)) * share
            return i + 1, total + loss * count, predictions.write(i, self._joined(prediction))

        _, total, predictions = tf.while_loop(
            lambda i, *_: i < steps, body, (0, 0.0, self._array(steps)), parallel_iterations=1
        )
        with tf.device("CPU:0"):
            self._measure(tensors, rows, predictions.concat())
        return total

    def _replica_evaluation(self, batch: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        prediction, loss = self._evaluate_step(*self._packing.unpack(batch))
        return prediction, tf.cast(loss, tf.float32)

    def _array(self, steps: tf.Tensor) -> tf.TensorArray:
        return tf.TensorArray(tf.float32, steps, element_shape=[self._size, self._context.outputs])

    def _shared_out(self, tensors: dict[str, tf.Tensor], step: tf.Tensor, rows: tf.Tensor, scale: tf.Tensor) -> Any:
        """Returns a step's batch by local replica, with weights by which the replicas' mean losses make up the whole.

        Args:
            rows: that are examples; those after them weigh nothing.
            scale: rows of the batch by its examples.
        """
        size = self._size // self._distribution.local_replicas
        first_replica = self._distribution.place.worker * self._distribution.local_replicas

        def part(context: tf.distribute.experimental.ValueContext) -> dict[str, tf.Tensor]:
            first = step * self._size + (context.replica_id_in_sync_group - first_replica) * size
            found = {}
            for name, tensor in tensors.items():
                rest = tensor.shape[1:]
                found[name] = tf.slice(tensor, [first, *[0] * len(rest)], [size, *rest])
            weight = scale * tf.cast(first + tf.range(size) < rows, tf.float32)
            found["weight"] = weight * found["weight"] if "weight" in found else weight
            return found

        return self._strategy.experimental_distribute_values_from_function(part)

    def _joined(self, prediction: Any) -> tf.Tensor:
        """Returns the local replicas' predictions in the order of the rows."""
        return tf.concat(self._strategy.experimental_local_results(prediction), axis=0)

    def _first(self, value: Any) -> tf.Tensor:
        """Returns the one value that all replicas have."""
        return self._strategy.experimental_local_results(value)[0]

    def _parts(self, variable: keras.Variable) -> Sequence[tf.Variable]:
        """Returns the local replicas' copies of a variable."""
        parts: Sequence[tf.Variable] = self._strategy.experimental_local_results(variable.value)
        return parts

    def _spread_seeds(self) -> None:
        """Gives each replica seeds of its own, else all would drop the same units; the chief's first keeps them."""
        first = self._distribution.place.worker * self._distribution.local_replicas
        for variable in self.model.non_trainable_variables:
            if variable.name == _SEED:
                for i, part in enumerate(self._parts(variable)):
                    part.assign(part + tf.cast([first + i, 0], part.dtype))

    def _assign_metrics(self, values: Sequence[np.ndarray]) -> None:
        for variable, value in zip(self._metric_variables, values, strict=True):
            variable.assign(value)

    def _sum(self, vector: tf.Tensor) -> tf.Tensor:
        def replica(vector: tf.Tensor) -> tf.Tensor:
            context = tf.distribute.get_replica_context()
            counts = context.replica_id_in_sync_group % self._distribution.local_replicas == 0
            return context.all_reduce(tf.distribute.ReduceOp.SUM, vector * tf.cast(counts, vector.dtype))

        return self._first(self._strategy.run(replica, args=(vector,)))

    def _summed(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Returns the arrays summed over the workers, in float64 on the way, which holds all that there are here."""
        if self._distribution.place.workers == 1 or not sum(array.size for array in arrays):
            return list(arrays)  # nothing to send: TensorFlow 2.21 dies of reducing it
        flat = np.concatenate([np.asarray(array, np.float64).ravel() for array in arrays])
        parts = np.split(self._over_workers(flat).numpy(), np.cumsum([array.size for array in arrays])[:-1])
        return [part.reshape(array.shape).astype(array.dtype) for part, array in zip(parts, arrays, strict=True)]
