"""A model of one's own: a factorisation machine beside a small network. README.md tells how to use it."""

import keras
from keras import layers, ops

from tidemill.train.context import TrainContext

DIMENSIONS = 8


def build_model(context: TrainContext) -> keras.Model:
    """Returns a compiled model; its output is P(positive) as [batch, 1]."""
    inputs = context.inputs()
    sizes = context.vocabulary_sizes
    factors = [
        layers.Embedding(size, DIMENSIONS, name=f"factors_{i}")(inputs[name])
        for i, (name, size) in enumerate(sizes.items())
    ]
    weights = [
        layers.Embedding(size, 1, embeddings_initializer="zeros", name=f"weights_{i}")(inputs[name])
        for i, (name, size) in enumerate(sizes.items())
    ]
    numbers = [ops.expand_dims(inputs[f.name], -1) for f in context.features if f.kind == "dense"]
    # Rendle 2010, eq. 5: all pairwise products in linear time.
    total, squares = layers.Add()(factors), layers.Add()([ops.square(factor) for factor in factors])
    pairs = ops.sum(ops.square(total) - squares, axis=1, keepdims=True) / 2
    hidden = layers.Concatenate()([*numbers, *factors])
    for units in context.training.hidden_units:
        hidden = layers.Dense(units, activation="relu")(hidden)
        hidden = layers.Dropout(context.training.dropout)(hidden)
    logit = layers.Add()([layers.Dense(1)(hidden), pairs, *weights])
    model = keras.Model(inputs, layers.Activation("sigmoid")(logit), name="factorisation_machine")
    model.compile(
        optimizer=keras.optimizers.Adam(context.training.learning_rate),
        loss=keras.losses.BinaryCrossentropy(),
        weighted_metrics=[keras.metrics.AUC(name="auc")],
    )
    return model
