"""Fine-tuning: layers that keep the weights they started with, for some epochs or for good."""

from __future__ import annotations

import fnmatch
from typing import Any

import keras
import numpy as np

from tidemill.errors import ProblemError
from tidemill.train.vocabularies import layers_of
from tidemill.training import FineTuning

_WHERE = "training.fine_tuning.freeze"


class Offset(keras.optimizers.schedules.LearningRateSchedule):
    """A schedule that goes on where it was when its optimizer begins to count anew."""

    def __init__(self, schedule: keras.optimizers.schedules.LearningRateSchedule, steps: int) -> None:
        self.schedule, self.steps = schedule, steps

    def __call__(self, step: Any) -> Any:
        return self.schedule(step + self.steps)

    def get_config(self) -> dict[str, Any]:
        return {"schedule": self.schedule, "steps": self.steps}


class Freezing:
    """Keeps layers as they are, until an epoch from which on all are trained.

    The optimizer is built for all weights from the start, so a checkpoint holds the same arrays in every phase. When
    layers thaw it forgets what it has gathered, of the other layers too: its first steps are as careful as those of a
    fresh one, where Adam's would be several times too long for weights whose gradients are new to it. Its schedule
    goes on.

    Args:
        model: built, with the weights that it starts from.
        fine_tuning: what is kept, and for how long.
        steps_per_epoch: for the schedule.

    Raises:
        ProblemError: if a pattern matches no layer with weights to train, or nothing would be left to train.
    """

    def __init__(self, model: keras.Model, fine_tuning: FineTuning, steps_per_epoch: int) -> None:
        self._model, self._steps_per_epoch = model, steps_per_epoch
        self._until = fine_tuning.unfreeze_after_epochs
        self.layers = _matching(model, fine_tuning.freeze)
        self._initial: list[np.ndarray] = []
        if self.layers:
            model.optimizer.build(model.trainable_variables)
            self._initial = [np.array(variable) for variable in model.optimizer.variables]
        self._set_trained(False)
        if not model.trainable_variables:
            raise ProblemError(
                _WHERE,
                "must leave some layer to be trained",
                ", ".join(fine_tuning.freeze),
                "freeze fewer layers; the last one is seldom what is wanted from another model",
            )

    def enter(self, epoch: int, step: int) -> bool:
        """Prepares the model for an epoch. Returns whether other layers are trained than before.

        Args:
            epoch: from 0.
            step: the next one within the epoch; a training that goes on after its first has its optimizer's state.
        """
        if not self.layers or self._until is None or epoch < self._until:
            return False
        changed = not self.layers[0].trainable
        self._set_trained(True)
        if changed:
            self._offset_schedule()
            print(f"train: all layers are trained from epoch {epoch + 1} on", flush=True)
        if epoch == self._until and step == 0:
            for variable, value in zip(self._model.optimizer.variables, self._initial, strict=True):
                variable.assign(value)
        return changed

    def _set_trained(self, trained: bool) -> None:
        for layer in self.layers:
            layer.trainable = trained

    def _offset_schedule(self) -> None:
        assert self._until is not None
        optimizer = getattr(self._model.optimizer, "inner_optimizer", self._model.optimizer)
        # Keras gives the rate of the present step for `learning_rate`, and has no public name for the schedule.
        if isinstance(optimizer._learning_rate, keras.optimizers.schedules.LearningRateSchedule):
            optimizer.learning_rate = Offset(optimizer._learning_rate, self._until * self._steps_per_epoch)


def _matching(model: keras.Model, patterns: tuple[str, ...]) -> list[keras.layers.Layer]:
    candidates = [layer for layer in layers_of(model) if layer.trainable_variables]
    found: dict[int, keras.layers.Layer] = {}
    for pattern in patterns:
        matched = [layer for layer in candidates if fnmatch.fnmatchcase(layer.name, pattern)]
        if not matched:
            raise ProblemError(
                _WHERE,
                "each pattern must match a layer that has weights to train",
                repr(pattern),
                f"the model has {', '.join(layer.name for layer in candidates)}",
            )
        found |= {id(layer): layer for layer in matched}
    return list(found.values())
