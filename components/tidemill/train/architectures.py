"""The models of a problem that brings none of its own."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence

import keras
from keras import layers, ops

from tidemill.train.context import TrainContext, symbolic_input
from tidemill.transform.features import TransformedFeature

MAX_EMBEDDING = 32


class JointEmbedding(layers.Layer):
    """One embedding table for several features, which costs one gather and one update instead of one per feature.

    Input: a list of ids, int64 [batch] each. Output: float32 [batch, features * dimensions].

    Args:
        sizes: number of ids by feature.
        dimensions: width of an embedding.
        l2: penalty on the squares of the table's entries.
        initializer: of the table.
    """

    def __init__(self, sizes: Sequence[int], dimensions: int, l2: float, initializer: str, name: str) -> None:
        super().__init__(name=name)
        self.sizes, self.dimensions, self.l2, self.initializer = tuple(sizes), dimensions, l2, initializer
        self.offsets = [sum(self.sizes[:i]) for i in range(len(self.sizes))]

    def build(self, _: object) -> None:
        self.table = self.add_weight(
            shape=(sum(self.sizes), self.dimensions),
            initializer=self.initializer,
            regularizer=keras.regularizers.L2(self.l2) if self.l2 else None,
            name="table",
        )

    def call(self, ids: Sequence[keras.KerasTensor]) -> keras.KerasTensor:
        stacked = ops.stack(ids, axis=1) + ops.convert_to_tensor([self.offsets], dtype="int64")
        return ops.reshape(ops.take(self.table, stacked, axis=0), (-1, len(self.sizes) * self.dimensions))


class BagEmbedding(layers.Layer):
    """The sum or the mean of the embeddings of a bag's ids, padding (id 0) left out.

    Input: int64 [batch, length]. Output: float32 [batch, dimensions]; zeros for an empty bag.
    """

    def __init__(self, size: int, dimensions: int, l2: float, initializer: str, mean: bool, name: str) -> None:
        super().__init__(name=name)
        self.size, self.dimensions, self.l2, self.initializer, self.mean = size, dimensions, l2, initializer, mean

    def build(self, _: object) -> None:
        self.table = self.add_weight(
            shape=(self.size, self.dimensions),
            initializer=self.initializer,
            regularizer=keras.regularizers.L2(self.l2) if self.l2 else None,
            name="table",
        )

    def call(self, ids: keras.KerasTensor) -> keras.KerasTensor:
        present = ops.cast(ops.not_equal(ids, 0), self.table.dtype)
        total = ops.sum(ops.take(self.table, ids, axis=0) * present[:, :, None], axis=1)
        if not self.mean:
            return total
        return total / ops.maximum(ops.sum(present, axis=1, keepdims=True), 1.0)


def embedding_dimensions(size: int) -> int:
    """Returns the width of an embedding of ``size`` ids: about twice the fourth root, as a power of two.

    Powers of two make features share a width, and so a table.
    """
    return min(MAX_EMBEDDING, 1 << math.ceil(math.log2(2 * size**0.25)))


def wide_and_deep(context: TrainContext) -> keras.Model:
    """One weight per id beside a network over embeddings and dense features. Source: Cheng et al. 2016."""
    training, inputs = context.training, _inputs(context)
    columns = [*_dense(context, inputs), *_embeddings(context, inputs)]
    hidden = layers.Concatenate(name="deep_input")(columns) if len(columns) > 1 else columns[0]
    for i, units in enumerate(training.hidden_units):
        hidden = layers.Dense(units, "relu", kernel_regularizer=_l2(context), name=f"hidden_{i}")(hidden)
        if training.dropout:
            hidden = layers.Dropout(training.dropout, name=f"dropout_{i}")(hidden)
    deep = layers.Dense(context.outputs, bias_initializer=_prior(context), name="deep")(hidden)
    return _compiled(context, inputs, [deep, *_wide(context, inputs)])


def linear(context: TrainContext) -> keras.Model:
    """One weight per id and per dense feature: a model that can be read."""
    inputs = _inputs(context)
    dense = _dense(context, inputs)
    terms = _wide(context, inputs)
    if dense:
        joined = layers.Concatenate(name="dense")(dense) if len(dense) > 1 else dense[0]
        kernel = layers.Dense(context.outputs, "linear", False, "zeros", kernel_regularizer=_l2(context), name="slopes")
        terms.append(kernel(joined))
    total = layers.Add(name="terms")(terms) if len(terms) > 1 else terms[0]
    return _compiled(context, inputs, [Bias(context.outputs, _prior(context), name="intercept")(total)])


class Bias(layers.Layer):
    """Adds one trained number per output."""

    def __init__(self, units: int, initializer: keras.initializers.Initializer, name: str) -> None:
        super().__init__(name=name)
        self.units, self.initializer = units, initializer

    def build(self, _: object) -> None:
        self.bias = self.add_weight(shape=(self.units,), initializer=self.initializer, name="bias")

    def call(self, value: keras.KerasTensor) -> keras.KerasTensor:
        return value + self.bias


ARCHITECTURES = {"wide_and_deep": wide_and_deep, "linear": linear}


def _inputs(context: TrainContext) -> dict[str, keras.KerasTensor]:
    # Unnamed, because within a Keras model a column must not be called like a layer or an operation.
    return {feature.name: symbolic_input(feature, None) for feature in context.features}


def _dense(context: TrainContext, inputs: Mapping[str, keras.KerasTensor]) -> list[keras.KerasTensor]:
    """Returns the dense inputs, each as [batch, width]."""
    return [
        inputs[f.name] if f.size > 1 else ops.expand_dims(inputs[f.name], -1)
        for f in context.features
        if f.kind == "dense"
    ]


def _of_kind(context: TrainContext, kind: str) -> list[TransformedFeature]:
    return [f for f in context.features if f.kind == kind]


def _embeddings(context: TrainContext, inputs: Mapping[str, keras.KerasTensor]) -> list[keras.KerasTensor]:
    training = context.training
    widths: dict[int, list[TransformedFeature]] = {}
    for feature in _of_kind(context, "ids"):
        width = training.embedding_dimensions or embedding_dimensions(feature.size)
        widths.setdefault(width, []).append(feature)
    columns = [
        JointEmbedding([f.size for f in group], width, training.l2, "uniform", f"embeddings_{width}")(
            [inputs[f.name] for f in group]
        )
        for width, group in sorted(widths.items())
    ]
    for i, feature in enumerate(_of_kind(context, "bag")):
        width = training.embedding_dimensions or embedding_dimensions(feature.size)
        bag = BagEmbedding(feature.size, width, training.l2, "uniform", True, f"bag_embedding_{i}")
        columns.append(bag(inputs[feature.name]))
    return columns


def _wide(context: TrainContext, inputs: Mapping[str, keras.KerasTensor]) -> list[keras.KerasTensor]:
    """Returns one term per table, each [batch, outputs]."""
    terms = []
    if ids := _of_kind(context, "ids"):
        table = JointEmbedding([f.size for f in ids], context.outputs, context.training.l2, "zeros", "wide")
        weights = ops.reshape(table([inputs[f.name] for f in ids]), (-1, len(ids), context.outputs))
        terms.append(ops.sum(weights, axis=1))
    for i, feature in enumerate(_of_kind(context, "bag")):
        table = BagEmbedding(feature.size, context.outputs, context.training.l2, "zeros", False, f"wide_bag_{i}")
        terms.append(table(inputs[feature.name]))
    return terms


def _l2(context: TrainContext) -> keras.regularizers.Regularizer | None:
    return keras.regularizers.L2(context.training.l2) if context.training.l2 else None


def _prior(context: TrainContext) -> keras.initializers.Initializer:
    """Returns the output bias with which an untrained model answers the prior."""
    if context.task == "regression":
        return keras.initializers.Zeros()
    shares = [max(count, 1) / context.label.rows for count in context.label.counts]
    if context.task == "binary_classification":
        return keras.initializers.Constant(math.log(shares[1] / shares[0]))
    return keras.initializers.Constant([math.log(share) for share in shares])


def _compiled(
    context: TrainContext, inputs: Mapping[str, keras.KerasTensor], terms: Sequence[keras.KerasTensor]
) -> keras.Model:
    total = layers.Add(name="logits")(list(terms)) if len(terms) > 1 else terms[0]
    if context.task == "regression":
        # The network learns the standardised label; the optimizer's steps don't depend on the label's unit then.
        output = layers.Rescaling(context.label.std or 1.0, context.label.mean, name="value")(total)
        loss: keras.losses.Loss = keras.losses.MeanSquaredError()
        metrics: list[keras.metrics.Metric] = [
            keras.metrics.MeanAbsoluteError(name="mae"),
            keras.metrics.RootMeanSquaredError(name="rmse"),
        ]
    elif context.task == "binary_classification":
        output = layers.Activation("sigmoid", name="probability")(total)
        loss = keras.losses.BinaryCrossentropy()
        metrics = [keras.metrics.AUC(name="auc"), keras.metrics.BinaryAccuracy(name="accuracy")]
    else:
        output = layers.Activation("softmax", name="probabilities")(total)
        loss = keras.losses.SparseCategoricalCrossentropy()
        metrics = [keras.metrics.SparseCategoricalAccuracy(name="accuracy")]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "When providing `inputs` as a dict", UserWarning)  # see _inputs
        model = keras.Model(dict(inputs), output, name=context.training.model)
    model.compile(optimizer=context.optimizer(), loss=loss, weighted_metrics=metrics)
    return model
