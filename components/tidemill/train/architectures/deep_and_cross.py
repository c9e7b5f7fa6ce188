"""Products of features, learnt."""

from __future__ import annotations

import keras
from keras import layers

from tidemill.train.architectures.columns import (
    dense_columns,
    embedding_columns,
    hidden_layers,
    joined,
    l2,
    symbolic_inputs,
)
from tidemill.train.architectures.heads import compiled, prior
from tidemill.train.context import TrainContext


def deep_and_cross(context: TrainContext) -> keras.Model:
    """Layers that multiply what they get with the features, beside a deep network over the same.

    Each of the ``cross_layers`` raises the degree of the polynomial by one: ``x' = x0 * (W x + b) + x``. Source: Wang
    et al. 2021 (DCN V2), eq. 1, in the parallel structure, with full matrices.
    """
    inputs = symbolic_inputs(context)
    start = joined([*dense_columns(context, inputs), *embedding_columns(context, inputs)], "features")
    crossed = start
    for i in range(context.training.cross_layers):
        factor = layers.Dense(start.shape[-1], kernel_regularizer=l2(context), name=f"cross_{i}")(crossed)
        crossed = layers.Add(name=f"crossed_{i}")([layers.Multiply(name=f"product_{i}")([start, factor]), crossed])
    both = layers.Concatenate(name="cross_and_deep")([crossed, hidden_layers(context, start)])
    return compiled(
        context, inputs, [layers.Dense(context.outputs, bias_initializer=prior(context), name="output")(both)]
    )
