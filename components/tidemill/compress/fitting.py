"""Trains a variant by the train stage's own loop, resuming where a killed try was."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tidemill.errors import UserCodeError
from tidemill.train.batches import Examples, Packing, summarize_labels
from tidemill.train.checkpoints import Checkpoints, Progress
from tidemill.train.context import LabelSummary, TrainContext
from tidemill.train.heartbeats import Heart
from tidemill.train.preemption import Notice
from tidemill.train.run import class_weights
from tidemill.train.steps import Steps
from tidemill.train.trainer import Trainer
from tidemill.training import Training
from tidemill.transform.features import TransformedFeatures


@dataclass(frozen=True)
class Course:
    """What a variant is trained on, and how.

    Attributes:
        transformed: Parquet per split.
        described: what is in it.
        training: the settings.
        checkpoints: directory of the variant's own.
        key: what it all depends on; checkpoints of anything else are not for it.
    """

    transformed: Path
    described: TransformedFeatures
    training: Training
    checkpoints: Path
    key: Mapping[str, Any]

    def context(self, features: Sequence[Any] | None = None) -> TrainContext:
        """Returns what a model is built from.

        Args:
            features: those that the model may take; all by default.
        """
        label, size = self._label, self.training.per_replica_batch_size or self.training.batch_size
        steps = math.ceil(label.rows / size)
        return TrainContext(
            task=self.described.task,
            classes=self.described.classes,
            features=self.described.features if features is None else tuple(features),
            training=self.training,
            label=label,
            strategy=tf.distribute.get_strategy(),
            batch_size=size,
            steps_per_epoch=steps,
            max_steps=steps * self.training.max_epochs,
            checkpoints=self.checkpoints,
        )

    def fit(
        self, model: keras.Model, prepare: Callable[[Steps], None] = lambda _: None, first_kept: int = 0
    ) -> Progress:
        """Trains a compiled model to the end.

        Args:
            prepare: may change the built model before its steps are traced for good.
            first_kept: the epoch (from 0) from which on weights may be kept, where the best are.

        Raises:
            UserError: if the loss stops being finite.
        """
        label, packing = self._label, Packing(self.described)
        weights = class_weights(self.training, self.described, label)
        train, evaluation = (
            Examples(self.transformed, split, packing, weights, label.rows / label.weight_sum)
            for split in ("train", "eval")
        )
        context = self.context()
        steps = Steps(model, packing, context, train.weighted)
        prepare(steps)
        steps.retrace()
        text = json.dumps({**self.key, "tensorflow": tf.__version__, "keras": keras.__version__}, sort_keys=True)
        newest = Checkpoints(self.checkpoints, hashlib.sha256(text.encode()).hexdigest())

        def forget(epoch: int, _: int) -> None:
            if epoch == first_kept:
                trainer.progress.best_loss = None

        trainer = Trainer(steps, train, evaluation, context, newest, Heart(), Notice(), before_epoch=forget)
        return trainer.fit()

    @property
    def _label(self) -> LabelSummary:
        return summarize_labels(self.transformed, self.described)


def take_weights(model: keras.Model, weights: Sequence[tuple[str, np.ndarray]], blamed: str) -> None:
    """Gives a rebuilt model the weights of the trained one.

    Raises:
        UserCodeError: if it is another network: user code that builds something else each time.
    """
    expected = [(path, value.shape) for path, value in weights]
    found = [(weight.path, tuple(weight.shape)) for weight in model.weights]
    if expected != found:
        differing = (f"{a} instead of {b}" for a, b in zip(found, expected, strict=False) if a != b)
        got = next(differing, f"{len(found)} weights instead of {len(expected)}")
        raise UserCodeError(blamed, "must build the same network whenever it is called", got)
    for weight, (_, value) in zip(model.weights, weights, strict=True):
        weight.assign(value)
