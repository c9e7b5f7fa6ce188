"""What a ``build_model`` is told: the features, the task, the hyperparameters and the shape of the training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import keras
import tensorflow as tf

from tidemill.train.losses import Probabilities, classification_loss
from tidemill.train.optimizers import build_optimizer
from tidemill.train.origins import Origin
from tidemill.training import Training
from tidemill.transform.features import TransformedFeature

_DTYPES: Mapping[str, str] = {"dense": "float32", "ids": "int64", "bag": "int64", "image": "float32"}


@dataclass(frozen=True)
class LabelSummary:
    """The labels of the training split.

    Attributes:
        rows: number of labels.
        mean: of the value; for binary problems the share of positives, for multiclass of no meaning.
        std: standard deviation of the value (population).
        counts: rows by class in the order of the classes; empty for regression.
        weight_sum: sum of the example weights; ``rows`` where the problem has none.
    """

    rows: int
    mean: float
    std: float
    counts: tuple[int, ...]
    weight_sum: float


@dataclass(frozen=True)
class TrainContext:
    """The argument of ``build_model(context) -> keras.Model``.

    The model must be compiled, take a dict of inputs by feature name (any of :meth:`inputs`), and answer with the
    probability of the positive class [batch, 1] (binary), the probabilities [batch, classes] (multiclass) or the
    value [batch, 1] (regression). Labels come as float32 [batch, 1], for multiclass as int64 index [batch].

    Attributes:
        task: the problem's task.
        classes: label values in the order of their class index; empty for regression.
        features: the transformed features.
        training: the hyperparameters, as the problem or ``--set`` gives them.
        label: the labels of the training split, for output biases and scales.
        strategy: the distribution strategy in whose scope ``build_model`` is called.
        batch_size: examples per step, over all replicas.
        steps_per_epoch: steps in which every training example is seen once; the last may be a smaller batch.
        max_steps: the most steps that will be taken; for learning rate schedules.
        checkpoints: directory of the checkpoints; user code may keep its own below a name of its own.
        kept: share of the rows that are trained on by class, where `training.resample` leaves some out; else empty.
        origin: what the training starts from; see :meth:`pretrained`.
    """

    task: str
    classes: tuple[str, ...]
    features: tuple[TransformedFeature, ...]
    training: Training
    label: LabelSummary
    strategy: tf.distribute.Strategy
    batch_size: int
    steps_per_epoch: int
    max_steps: int
    checkpoints: Path
    kept: tuple[float, ...] = ()
    origin: Origin | None = None

    @property
    def vocabulary_sizes(self) -> dict[str, int]:
        """Number of ids by feature, for features that are ids or bags of ids."""
        return {f.name: f.size for f in self.features if f.kind in ("ids", "bag")}

    @property
    def windows(self) -> dict[str, tuple[str, ...]]:
        """The features of the rows of a window, the oldest first, by the name of the newest, which is the last.

        ``keras.ops.stack([inputs[name] for name in context.windows["load"]], axis=1)`` is [batch, length].
        """
        found: dict[str, list[TransformedFeature]] = {}
        for feature in self.features:
            found.setdefault(feature.newest, []).append(feature)
        return {
            newest: tuple(f.name for f in sorted(group, key=lambda f: -f.lag))
            for newest, group in found.items()
            if len(group) > 1
        }

    @property
    def outputs(self) -> int:
        """Width of the model's output."""
        return len(self.classes) if self.task == "multiclass_classification" else 1

    def probabilities(self) -> Probabilities:
        """Returns the layer that makes a classifier's output of its logits, both [batch, outputs].

        In training it answers the probabilities that the loss is of, otherwise those of the data. A model must end so
        where `training.resample` is set.
        """
        return Probabilities(self.training.focal_gamma, self.kept)

    def loss(self) -> keras.losses.Loss:
        """Returns the loss that the settings ask for: log loss, focal loss, or the squared error of regression."""
        if self.task == "regression":
            return keras.losses.MeanSquaredError()
        return classification_loss(self.outputs, self.training.focal_gamma)

    def pretrained(self) -> Path | None:
        """Returns where on this machine lies what `training.start_from` names; None if there is nothing.

        Who calls it takes the weights that it wants: tidemill copies none by name then.
        """
        if self.origin is None:
            return None
        self.origin.taken = True
        return self.origin.path

    def optimizer(self) -> keras.optimizers.Optimizer:
        """Returns a new optimizer, schedule included, as ``training.optimizer`` and its neighbours ask for."""
        return build_optimizer(self.training, self.max_steps, self.strategy.num_replicas_in_sync)

    def inputs(self) -> dict[str, keras.KerasTensor]:
        """Returns a fresh symbolic input per feature, by name: what a functional model starts from.

        Shapes: dense [batch] or [batch, size], ids [batch], bag [batch, length] padded with id 0, image
        [batch, height, width, channels] from 0 to 255.
        """
        # Keras refuses names with a slash, and only warns of a key that isn't its input's name.
        return {f.name: symbolic_input(f, None if "/" in f.name else f.name) for f in self.features}


def symbolic_input(feature: TransformedFeature, name: str | None) -> keras.KerasTensor:
    """Returns a Keras input of the feature's shape and dtype."""
    return keras.Input(input_shape(feature), dtype=input_dtype(feature), name=name)


def input_dtype(feature: TransformedFeature) -> str:
    """Returns the dtype of a feature's tensor."""
    return _DTYPES[feature.kind]


def input_shape(feature: TransformedFeature) -> tuple[int, ...]:
    """Returns the shape of a feature's tensor without its batch dimension."""
    if feature.kind == "bag":
        return (feature.length,)
    if feature.kind == "image":
        return feature.shape
    return (feature.size,) if feature.kind == "dense" and feature.size > 1 else ()
