"""What ends a model of any family: the prior it begins from, its answer, its loss and its metrics."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

import keras
from keras import layers

from tidemill.train.architectures.columns import Inputs
from tidemill.train.context import TrainContext
from tidemill.train.losses import EvaluatedByLogLoss


def prior(context: TrainContext) -> keras.initializers.Initializer:
    """Returns the output bias with which an untrained model answers the prior of what it is trained on."""
    if context.task == "regression":
        return keras.initializers.Zeros()
    kept = context.kept or [1.0] * len(context.classes)
    counts = [max(count, 1) * share for count, share in zip(context.label.counts, kept, strict=True)]
    if context.task == "binary_classification":
        return keras.initializers.Constant(math.log(counts[1] / counts[0]))
    return keras.initializers.Constant([math.log(count / sum(counts)) for count in counts])


def compiled(context: TrainContext, inputs: Inputs, terms: Sequence[keras.KerasTensor]) -> keras.Model:
    """Returns the compiled model whose logits are the sum of ``terms``, each [batch, outputs]."""
    # In float32 under every policy: bfloat16 has but 128 numbers from one power of two to the next.
    exact = [layers.Activation("linear", dtype="float32", name=f"term_{i}")(term) for i, term in enumerate(terms)]
    total = layers.Add(name="logits", dtype="float32")(exact) if len(exact) > 1 else exact[0]
    kind, metrics = keras.Model, _metrics(context)
    if context.task == "regression":
        # The network learns the standardised label; the optimizer's steps don't depend on the label's unit then.
        scale = context.label.std or 1.0
        output = layers.Rescaling(scale, context.label.mean, name="value", dtype="float32")(total)
    else:
        output = context.probabilities()(total)
        kind = EvaluatedByLogLoss if context.training.focal_gamma else keras.Model
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "When providing `inputs` as a dict", UserWarning)  # see symbolic_inputs
        model = kind(dict(inputs), output, name=context.training.model)
    model.compile(optimizer=context.optimizer(), loss=context.loss(), weighted_metrics=metrics)
    return model


def _metrics(context: TrainContext) -> list[keras.metrics.Metric]:
    if context.task == "regression":
        return [keras.metrics.MeanAbsoluteError(name="mae"), keras.metrics.RootMeanSquaredError(name="rmse")]
    if context.task == "binary_classification":
        return [keras.metrics.AUC(name="auc"), keras.metrics.BinaryAccuracy(name="accuracy")]
    return [keras.metrics.SparseCategoricalAccuracy(name="accuracy")]
