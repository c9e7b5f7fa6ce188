"""The optimizer that the settings ask for, its learning rate over the steps, and the average of the weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from tidemill.errors import ProblemError
from tidemill.training import Training

# No FTRL: Keras's forgets the weights that it begins with, so priors in biases and all that a model starts from.
_KINDS: Mapping[str, Callable[..., keras.optimizers.Optimizer]] = {
    "adam": keras.optimizers.Adam,
    "adamw": keras.optimizers.AdamW,
    "sgd": keras.optimizers.SGD,
    "adagrad": keras.optimizers.Adagrad,
    "rmsprop": keras.optimizers.RMSprop,
    "lion": keras.optimizers.Lion,
}
# A decay draws weights to 0; biases, scales of norms and start tokens have no reason to be there.
_NOT_DECAYED = [r"(^|/)(bias|gamma|beta|token)(:\d+)?$"]


class LearningRate(keras.optimizers.schedules.LearningRateSchedule):
    """Warm-up, then a decay to ``final`` times the rate when ``steps`` steps are taken.

    A function of the optimizer's own count of steps, which is in its checkpoint: a resumed training goes on where it
    was. Sources: Goyal et al. 2017 (warm-up), Loshchilov & Hutter 2017 (cosine).

    Args:
        rate: the largest rate.
        kind: constant, cosine, exponential or linear.
        warmup: steps before the rate is reached; the first one's is ``rate / (warmup + 1)``.
        steps: steps of the training, warm-up included.
        final: share of the rate that is left in the end.
    """

    def __init__(self, rate: float, kind: str, warmup: int, steps: int, final: float) -> None:
        self.rate, self.kind, self.warmup, self.steps, self.final = rate, kind, warmup, steps, final

    def __call__(self, step: Any) -> Any:
        step = ops.cast(step, "float32")
        done = ops.clip((step - self.warmup) / max(1, self.steps - self.warmup), 0.0, 1.0)
        return self.rate * ops.minimum(1.0, (step + 1) / (self.warmup + 1)) * self._share(done)

    def _share(self, done: Any) -> Any:
        """Returns what share of the rate is left when ``done`` of the decay's steps are taken."""
        if self.kind == "cosine":
            return self.final + (1 - self.final) * (1 + ops.cos(math.pi * done)) / 2
        if self.kind == "linear":
            return 1 - (1 - self.final) * done
        return ops.power(self.final, done) if self.kind == "exponential" else ops.ones_like(done)

    def get_config(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("rate", "kind", "warmup", "steps", "final")}


def scaled_learning_rate(training: Training, replicas: int) -> float:
    """Returns the learning rate for ``replicas``. Sources: Goyal et al. 2017 (linear), Krizhevsky 2014 (sqrt)."""
    factor = {"none": 1.0, "linear": replicas, "sqrt": math.sqrt(replicas)}[training.learning_rate_scaling]
    return training.learning_rate * factor


def build_optimizer(training: Training, max_steps: int, replicas: int) -> keras.optimizers.Optimizer:
    """Returns the optimizer of ``training.optimizer`` with the schedule of ``training.schedule``.

    Args:
        training: the settings.
        max_steps: the most steps that will be taken, which a schedule spans.
        replicas: over which a batch is divided, for ``learning_rate_scaling``.

    Raises:
        ProblemError: if the warm-up is as long as the training.
    """
    chosen, schedule = training.optimizer, training.schedule
    rate: float | LearningRate = scaled_learning_rate(training, replicas)
    if schedule.kind != "constant" or schedule.warmup_steps:
        if schedule.warmup_steps >= max_steps:
            raise ProblemError(
                "training.schedule.warmup_steps",
                f"must be less than the {max_steps} steps that are taken at most",
                str(schedule.warmup_steps),
                "shorten the warm-up, or train for more epochs",
            )
        rate = LearningRate(float(rate), schedule.kind, schedule.warmup_steps, max_steps, schedule.final)
    own = {"momentum": chosen.momentum} if chosen.kind in ("sgd", "rmsprop") else {}
    none = 0.0 if chosen.kind == "adamw" else None  # which takes no None
    optimizer = _KINDS[chosen.kind](
        learning_rate=rate,
        weight_decay=chosen.weight_decay or none,
        global_clipnorm=chosen.clip_norm,
        use_ema=chosen.ema is not None,
        ema_momentum=chosen.ema or 0.0,
        **own,
    )
    optimizer.exclude_from_weight_decay(var_names=_NOT_DECAYED)
    return optimizer


def clipped_over_replicas(optimizer: keras.optimizers.Optimizer, gradients: Sequence[Any]) -> list[Any]:
    """Clips the sum of the replicas' gradients, where Keras clips each replica's and sums then.

    To be called in replica context just before ``optimizer.apply``, which sums over the replicas what this returns
    and leaves it unclipped: a replica's share of what is within a bound is within it too.

    Args:
        optimizer: as the model is compiled with it; its bounds are of gradients that aren't scaled.
        gradients: dense, or None, each replica's own, of a loss that is divided by the number of replicas.
    """
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    if replicas == 1 or not (inner.global_clipnorm or inner.clipnorm or inner.clipvalue):
        return list(gradients)
    present = [gradient for gradient in gradients if gradient is not None]
    context = tf.distribute.get_replica_context()
    present = context.all_reduce(tf.distribute.ReduceOp.SUM, present)
    scale = tf.cast(optimizer.scale_loss(1.0), tf.float32)
    if inner.global_clipnorm:
        present, _ = tf.clip_by_global_norm(present, inner.global_clipnorm * scale)
    elif inner.clipnorm:
        present = [tf.clip_by_norm(gradient, inner.clipnorm * scale) for gradient in present]
    else:
        bound = inner.clipvalue * scale
        present = [tf.clip_by_value(gradient, -bound, bound) for gradient in present]
    shares = iter([gradient / replicas for gradient in present])
    return [None if gradient is None else next(shares) for gradient in gradients]


@contextmanager
def averaged(model: keras.Model) -> Iterator[None]:
    """Gives the model the moving averages of its weights within the block, where its optimizer keeps any."""
    if not keeps_averages(model.optimizer):
        yield
        return
    present = [np.array(variable) for variable in model.weights]
    take_averages(model)
    try:
        yield
    finally:
        for variable, value in zip(model.weights, present, strict=True):
            variable.assign(value)


def take_averages(model: keras.Model) -> None:
    """Gives the model the moving averages of its weights, where its optimizer keeps any."""
    if keeps_averages(model.optimizer):
        inner = getattr(model.optimizer, "inner_optimizer", model.optimizer)
        # Of all the weights that it was built for, of which some may be frozen now; Keras has no public name for them.
        inner.finalize_variable_values(inner._trainable_variables)


def keeps_averages(optimizer: keras.optimizers.Optimizer) -> bool:
    """Tells whether an optimizer keeps moving averages, also within the one that scales losses."""
    return bool(getattr(optimizer, "inner_optimizer", optimizer).use_ema)
