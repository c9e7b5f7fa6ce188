"""The default model."""

from __future__ import annotations

import keras
from keras import layers

from tidemill.train.architectures.columns import (
    dense_columns,
    embedding_columns,
    hidden_layers,
    joined,
    symbolic_inputs,
)
from tidemill.train.architectures.heads import compiled, prior
from tidemill.train.architectures.linear import wide_terms
from tidemill.train.context import TrainContext


def wide_and_deep(context: TrainContext) -> keras.Model:
    """One weight per id beside a network over embeddings and dense features. Source: Cheng et al. 2016."""
    inputs = symbolic_inputs(context)
    columns = joined([*dense_columns(context, inputs), *embedding_columns(context, inputs)], "deep_input")
    hidden = hidden_layers(context, columns)
    deep = layers.Dense(context.outputs, bias_initializer=prior(context), name="deep")(hidden)
    return compiled(context, inputs, [deep, *wide_terms(context, inputs)])
