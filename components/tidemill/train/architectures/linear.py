"""A model that can be read."""

from __future__ import annotations

import keras
from keras import layers, ops

from tidemill.errors import ProblemError
from tidemill.train.architectures.columns import Inputs, dense_columns, joined, l2, of_kind, symbolic_inputs
from tidemill.train.architectures.heads import compiled, prior
from tidemill.train.architectures.tables import BagEmbedding, JointEmbedding
from tidemill.train.context import TrainContext


def linear(context: TrainContext) -> keras.Model:
    """One weight per id and per dense feature.

    Raises:
        ProblemError: if there is an image, which one weight per number tells nothing of.
    """
    if images := of_kind(context, "image"):
        raise ProblemError(
            "training.model", "linear takes no images", images[0].name, "set wide_and_deep, or a model of your own"
        )
    inputs = symbolic_inputs(context)
    dense = dense_columns(context, inputs)
    terms = wide_terms(context, inputs)
    if dense:
        kernel = layers.Dense(context.outputs, "linear", False, "zeros", kernel_regularizer=l2(context), name="slopes")
        terms.append(kernel(joined(dense, "dense")))
    total = layers.Add(name="terms")(terms) if len(terms) > 1 else terms[0]
    return compiled(context, inputs, [Bias(context.outputs, prior(context), name="intercept")(total)])


class Bias(layers.Layer):
    """Adds one trained number per output."""

    def __init__(self, units: int, initializer: keras.initializers.Initializer, name: str) -> None:
        super().__init__(name=name)
        self.units, self.initializer = units, initializer

    def build(self, _: object) -> None:
        self.bias = self.add_weight(shape=(self.units,), initializer=self.initializer, name="bias")

    def call(self, value: keras.KerasTensor) -> keras.KerasTensor:
        return value + self.bias


def wide_terms(context: TrainContext, inputs: Inputs) -> list[keras.KerasTensor]:
    """Returns one term per table, each [batch, outputs]."""
    terms = []
    if ids := of_kind(context, "ids"):
        table = JointEmbedding(ids, context.outputs, context.training.l2, "zeros", "wide")
        weights = ops.reshape(table([inputs[f.name] for f in ids]), (-1, len(ids), context.outputs))
        terms.append(ops.sum(weights, axis=1))
    for i, feature in enumerate(of_kind(context, "bag")):
        table = BagEmbedding(feature, context.outputs, context.training.l2, "zeros", False, f"wide_bag_{i}")
        terms.append(table(inputs[feature.name]))
    return terms
