"""What ends a model of any family: the prior it begins from, its answer, its loss and its metrics."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

import keras
from keras import layers

from tidemill.train.architectures.columns import Inputs
from tidemill.train.context import TrainContext


def prior(context: TrainContext) -> keras.initializers.Initializer:
    """Returns the output bias with which an untrained model answers the prior."""
    if context.task == "regression":
        return keras.initializers.Zeros()
    shares = [max(count, 1) / context.label.rows for count in context.label.counts]
    if context.task == "binary_classification":
        return keras.initializers.Constant(math.log(shares[1] / shares[0]))
    return keras.initializers.Constant([math.log(share) for share in shares])


def compiled(context: TrainContext, inputs: Inputs, terms: Sequence[keras.KerasTensor]) -> keras.Model:
    """Returns the compiled model whose logits are the sum of ``terms``, each [batch, outputs]."""
    # In float32 under every policy: bfloat16 has but 256 values between two powers of two.
    terms = [layers.Activation("linear", dtype="float32", name=f"term_{i}")(term) for i, term in enumerate(terms)]
    total = layers.Add(name="logits", dtype="float32")(list(terms)) if len(terms) > 1 else terms[0]
    if context.task == "regression":
        # The network learns the standardised label; the optimizer's steps don't depend on the label's unit then.
        scale = context.label.std or 1.0
        output = layers.Rescaling(scale, context.label.mean, name="value", dtype="float32")(total)
        loss: keras.losses.Loss = keras.losses.MeanSquaredError()
        metrics: list[keras.metrics.Metric] = [
            keras.metrics.MeanAbsoluteError(name="mae"),
            keras.metrics.RootMeanSquaredError(name="rmse"),
        ]
    elif context.task == "binary_classification":
        output = layers.Activation("sigmoid", name="probability", dtype="float32")(total)
        loss = keras.losses.BinaryCrossentropy()
        metrics = [keras.metrics.AUC(name="auc"), keras.metrics.BinaryAccuracy(name="accuracy")]
    else:
        output = layers.Activation("softmax", name="probabilities", dtype="float32")(total)
        loss = keras.losses.SparseCategoricalCrossentropy()
        metrics = [keras.metrics.SparseCategoricalAccuracy(name="accuracy")]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "When providing `inputs` as a dict", UserWarning)  # see symbolic_inputs
        model = keras.Model(dict(inputs), output, name=context.training.model)
    model.compile(optimizer=context.optimizer(), loss=loss, weighted_metrics=metrics)
    return model
