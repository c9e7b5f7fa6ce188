"""The model to train: the problem's own or a default one, and what is demanded of it."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from tidemill.bundle import Bundle
from tidemill.errors import TidemillError, UserCodeError
from tidemill.train.architectures import ARCHITECTURES
from tidemill.train.context import TrainContext, input_dtype, input_shape
from tidemill.train.losses import Probabilities
from tidemill.train.vocabularies import layers_of


def build_model(bundle: Bundle, context: TrainContext) -> keras.Model:
    """Builds the user's model, or the default one, and checks the contract of :class:`TrainContext`.

    Raises:
        UserCodeError: if the user's function raises or what it returns can't be used.
    """
    reference = bundle.problem.user_code.model
    with context.strategy.scope():
        if reference is None:
            return ARCHITECTURES[context.training.model](context)
        function = bundle.user_function(reference)
        with blamed(reference, bundle.directory, "raised while it built the model"):
            model = function(context)
        _check(reference, model, context, bundle.directory)
    return model


@contextmanager
def blamed(
    reference: str | None, directory: Path, what: str, errors: type[Exception] | tuple[type[Exception], ...] = Exception
) -> Iterator[None]:
    """Turns exceptions into errors of the user's code, with its file and line where it is in the trace.

    Args:
        reference: the user's function; without one, exceptions pass.
        directory: where the user's modules are.
        what: what was being done when it raised.
        errors: the exceptions that are the user's; others pass.
    """
    try:
        yield
    except errors as error:
        if reference is None or isinstance(error, (TidemillError, MemoryError)):
            raise
        frames = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in frames if Path(frame.filename).is_relative_to(directory)]
        where = f"{Path(own[-1].filename).relative_to(directory)}:{own[-1].lineno}" if own else reference
        raise UserCodeError(where, f"{reference} {what}", f"{type(error).__name__}: {error}") from error


def input_names(model: keras.Model) -> list[str] | None:
    """Returns the features that a functional model takes, or None if the model takes them all."""
    inputs = getattr(model, "_inputs_struct", None)  # Keras has no public name for the structure of the inputs
    return list(inputs) if isinstance(inputs, dict) else None


def call_model(model: keras.Model, inputs: dict[str, tf.Tensor], training: bool) -> tf.Tensor:
    """Calls the model with the features that it takes, all of ``inputs`` or some."""
    names = input_names(model)
    chosen = inputs if names is None else {name: inputs[name] for name in names}
    parameters = inspect.signature(model.call).parameters
    takes_training = "training" in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    return model(chosen, training=training) if takes_training else model(chosen)


def sample(context: TrainContext, rows: int) -> dict[str, tf.Tensor]:
    """Returns inputs that are all zero."""
    return {f.name: tf.zeros([rows, *input_shape(f)], input_dtype(f)) for f in context.features}


def _check(reference: str, model: Any, context: TrainContext, directory: Path) -> None:
    if not isinstance(model, keras.Model):
        remedy = "return a keras.Model (Keras 3: `import keras`, not tf_keras)"
        raise UserCodeError(reference, "must return a keras.Model", type(model).__name__, remedy)
    if not model.compiled:
        raise UserCodeError(reference, "must return a compiled model", remedy="call model.compile(optimizer, loss, …)")
    if type(model).train_step is not keras.Model.train_step:
        raise UserCodeError(
            reference,
            "must not override train_step, which tidemill's loop does not call",
            type(model).__name__,
            "override compute_loss, or pass a loss to compile",
        )
    _check_inputs(reference, model, context)
    with blamed(reference, directory, "returned a model that can't be called"):
        output = call_model(model, sample(context, 2), training=False)
    expected = (2, context.outputs)
    if not hasattr(output, "shape") or tuple(output.shape) != expected:
        got = f"{output.shape}" if hasattr(output, "shape") else type(output).__name__
        kind = "the classes' probabilities" if context.outputs > 1 else "one value per example"
        raise UserCodeError(reference, f"the output for 2 examples must be {kind}, shape {expected}", got)
    if context.kept and not any(isinstance(layer, Probabilities) for layer in layers_of(model)):
        raise UserCodeError(
            reference,
            "the model must end in context.probabilities() where training.resample leaves out rows",
            "no such layer",
            "end it with context.probabilities()(logits), which undoes what is left out, or take `resample` away",
        )
    if not model.trainable_variables:
        raise UserCodeError(reference, "the model has nothing to train")
    inner = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    if context.strategy.num_replicas_in_sync > 1 and inner.gradient_accumulation_steps:
        raise UserCodeError(
            reference,
            "the optimizer must not accumulate gradients itself where there are several replicas, as Keras can't there",
            f"gradient_accumulation_steps={inner.gradient_accumulation_steps}",
            "set training.optimizer.accumulate_steps, which works everywhere",
        )


def _check_inputs(reference: str, model: keras.Model, context: TrainContext) -> None:
    names = input_names(model)
    known = [feature.name for feature in context.features]
    if names is None and getattr(model, "_inputs_struct", None) is not None:
        raise UserCodeError(
            reference,
            "the model's inputs must be a dict by feature name",
            "a list or a single input",
            "start from context.inputs(): keras.Model(inputs, output)",
        )
    if unknown := sorted(set(names or ()) - set(known)):
        raise UserCodeError(reference, f"inputs must be among the features {', '.join(known)}", ", ".join(unknown))
