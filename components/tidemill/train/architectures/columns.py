"""What the families share: the features as columns, and their embeddings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import keras
from keras import layers, ops

from tidemill.train.architectures.tables import BagEmbedding, JointEmbedding, embedding_dimensions
from tidemill.train.architectures.towers import tower_columns
from tidemill.train.context import TrainContext, symbolic_input
from tidemill.transform.features import TransformedFeature

Inputs = Mapping[str, keras.KerasTensor]


def symbolic_inputs(context: TrainContext) -> dict[str, keras.KerasTensor]:
    """Returns an input per feature, without a name: within a model, a column may be called like one of its layers."""
    return {feature.name: symbolic_input(feature, None) for feature in context.features}


def of_kind(context: TrainContext, kind: str) -> list[TransformedFeature]:
    return [f for f in context.features if f.kind == kind]


def dense_columns(context: TrainContext, inputs: Inputs) -> list[keras.KerasTensor]:
    """Returns the dense inputs, each as [batch, width]."""
    return [
        inputs[f.name] if f.size > 1 else ops.expand_dims(inputs[f.name], -1)
        for f in context.features
        if f.kind == "dense"
    ]


def embedding_columns(context: TrainContext, inputs: Inputs) -> list[keras.KerasTensor]:
    """Returns embeddings of all ids and bags, and what towers make of images and ordered texts: [batch, width] each."""
    training = context.training
    widths: dict[int, list[TransformedFeature]] = {}
    for feature in of_kind(context, "ids"):
        width = training.embedding_dimensions or embedding_dimensions(feature.size)
        widths.setdefault(width, []).append(feature)
    columns = [
        JointEmbedding(group, width, training.l2, "uniform", f"embeddings_{width}")([inputs[f.name] for f in group])
        for width, group in sorted(widths.items())
    ]
    for i, feature in enumerate(of_kind(context, "bag")):
        width = training.embedding_dimensions or embedding_dimensions(feature.size)
        bag = BagEmbedding(feature, width, training.l2, "uniform", True, f"bag_embedding_{i}")
        columns.append(bag(inputs[feature.name]))
    return [*columns, *tower_columns(context, inputs)]


def joined(columns: Sequence[keras.KerasTensor], name: str) -> keras.KerasTensor:
    """Returns columns side by side."""
    return layers.Concatenate(name=name)(columns) if len(columns) > 1 else columns[0]


def hidden_layers(context: TrainContext, columns: keras.KerasTensor) -> keras.KerasTensor:
    """Returns what the hidden layers, with dropout after each, make of ``columns``."""
    for i, units in enumerate(context.training.hidden_units):
        columns = layers.Dense(units, "relu", kernel_regularizer=l2(context), name=f"hidden_{i}")(columns)
        if context.training.dropout:
            columns = layers.Dropout(context.training.dropout, name=f"dropout_{i}")(columns)
    return columns


def l2(context: TrainContext) -> keras.regularizers.Regularizer | None:
    return keras.regularizers.L2(context.training.l2) if context.training.l2 else None
