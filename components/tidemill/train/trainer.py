"""The course of a training: epochs, evaluation, early stopping, checkpoints, and going on after a kill."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from typing import NoReturn

import numpy as np

from tidemill.errors import DataError, UserError
from tidemill.train.batches import Block, Examples
from tidemill.train.checkpoints import Checkpoints, Progress
from tidemill.train.context import TrainContext
from tidemill.train.heartbeats import Heart
from tidemill.train.preemption import Notice
from tidemill.train.steps import Steps


class Trainer:
    """Trains a model, from its newest checkpoint where there is one.

    Args:
        steps: the model and its graph functions.
        train: the training split.
        evaluation: the eval split, which early stopping looks at.
        context: batch size, steps and hyperparameters.
        checkpoints: of this training.
        heart: is told what this process is at.
        notice: whether this process is to end.
    """

    def __init__(
        self,
        steps: Steps,
        train: Examples,
        evaluation: Examples,
        context: TrainContext,
        checkpoints: Checkpoints,
        heart: Heart,
        notice: Notice,
    ) -> None:
        self._steps, self._train, self._evaluation = steps, train, evaluation
        self._context, self._checkpoints = context, checkpoints
        self._heart, self._notice = heart, notice
        self._best: list[np.ndarray] = []
        self.progress = Progress()
        self.resumed_from: int | None = None

    def fit(self, epochs: int | None = None) -> Progress:
        """Trains to the end; the model has the best epoch's weights then, or the last's without early stopping.

        Args:
            epochs: to pause after; another trainer goes on from the checkpoint that is left then.

        Raises:
            UserError: if the loss stops being finite.
            DataError: if that is because an input isn't.
            Preempted: if it is told to end before; all is saved then.
        """
        self._resume()
        with self._notice.deferred():
            while self.progress.stopped is None and (epochs is None or self.progress.epoch < epochs):
                self._take_epoch()
                self._end_epoch()
                self._save()
            self._checkpoints.finish()
        if self._context.training.early_stopping_patience is not None:
            for variable, value in zip(self._steps.model.variables, self._best, strict=True):
                variable.assign(value)
        return self.progress

    def _resume(self) -> None:
        restored = self._checkpoints.restore()
        if restored is None:
            return
        self.progress, values, self._best = restored
        for variable, value in zip(self._steps.variables, values, strict=True):
            variable.assign(value)
        self.resumed_from = self.progress.steps
        self.progress.resumed.append(self.progress.steps)
        print(f"train: resumed in epoch {self.progress.epoch + 1} after step {self.progress.steps}", flush=True)

    def _take_epoch(self) -> None:
        """Takes the steps of the current epoch that have not been taken."""
        progress, size = self.progress, self._context.batch_size
        order = (self._context.training.seed, progress.epoch)
        self._heart.at("input")
        for block in self._train.blocks(size, order, skip=progress.step * size):
            for part in self._cut(block):
                self._heart.at("step")
                begun = time.monotonic()
                loss = self._steps.train(part)
                seconds = time.monotonic() - begun
                steps = math.ceil(len(part) / size)
                progress.step += steps
                progress.steps += steps
                progress.loss += loss
                progress.examples += len(part)
                progress.epoch_seconds += seconds
                progress.seconds += seconds
                if not math.isfinite(loss):
                    self._refuse("training loss", str(loss))
                self._heart.stepped(progress.steps, steps)
                told = self._told_to_end()
                if told or progress.steps % self._context.training.checkpoint_every_steps == 0:
                    self._save()
                if told:
                    self._checkpoints.finish()
                    raise self._notice.preempted(progress.steps)
            if progress.steps >= self._context.max_steps:
                return

    def _told_to_end(self) -> bool:
        """Returns whether the training is to end after the step that was just taken, and another try to go on."""
        return self._notice.asked

    def _cut(self, block: Block) -> Iterator[Block]:
        """Cuts a block where a checkpoint is due, and ends it at the last step."""
        size, every = self._context.batch_size, self._context.training.checkpoint_every_steps
        while len(block) and (left := self._context.max_steps - self.progress.steps) > 0:
            rows = size * min(left, every - self.progress.steps % every)
            yield block[:rows]
            block = block[rows:]

    def _end_epoch(self) -> None:
        progress, training = self.progress, self._context.training
        metrics = self._steps.results(progress.loss / progress.examples)
        self._heart.at("evaluation")
        begun = time.monotonic()
        evaluation = self._steps.evaluate(self._evaluation.blocks(self._context.batch_size))
        progress.seconds += time.monotonic() - begun
        eval_loss = evaluation["loss"]
        assert eval_loss is not None
        if not math.isfinite(eval_loss):
            self._refuse("eval loss", str(eval_loss))
        progress.epoch += 1
        record = {
            "epoch": progress.epoch,
            "step": progress.steps,
            "train": metrics,
            "eval": evaluation,
            "learning_rate": float(self._steps.model.optimizer.learning_rate),
            "seconds": progress.epoch_seconds,
            "examples_per_second": progress.examples / max(progress.epoch_seconds, 1e-9),
        }
        progress.history.append(record)
        if progress.best_loss is None or eval_loss < progress.best_loss:
            progress.best_loss, progress.best_epoch = eval_loss, progress.epoch
            self._best = [np.array(variable) for variable in self._steps.model.variables]
        progress.step, progress.loss, progress.examples, progress.epoch_seconds = 0, 0.0, 0, 0.0
        patience = training.early_stopping_patience
        if progress.steps >= self._context.max_steps:
            progress.stopped = "max_steps" if training.max_steps == progress.steps else "max_epochs"
        elif patience is not None and progress.epoch - progress.best_epoch >= patience:
            progress.stopped = "early_stopping"
        print(_line(record), flush=True)

    def _save(self) -> None:
        values = [np.array(variable) for variable in self._steps.variables]
        # A ReLU turns NaN into 0: a network can be dead while its loss looks sound.
        if not all(np.isfinite(value).all() for value in values if value.dtype.kind == "f"):
            self._refuse("weights", "nan")
        self._checkpoints.save(self.progress, values, self._best)

    def _refuse(self, what: str, got: str) -> NoReturn:
        """Ends a training whose numbers are no numbers, naming the input at fault if there is one."""
        for examples in (self._train, self._evaluation):
            for block in examples.blocks(self._context.batch_size):
                if not np.isfinite(block.dense).all():
                    column = int(np.argwhere(~np.isfinite(block.dense))[0, 1])
                    name = examples.packing.dense_name(column)
                    raise DataError(
                        f"transformed examples: {name}", "must be finite", remedy="mend the feature's preprocessing"
                    )
        raise UserError(
            what,
            "must stay finite",
            f"{got} within the first {self.progress.steps} steps",
            f"lower training.learning_rate (now {self._context.training.learning_rate:g}), or look for extreme values "
            "in the features and the label",
        )


def _line(record: dict) -> str:
    shown = (
        f"{split} {name} {'undefined' if value is None else format(value, '.4f')}"
        for split in ("train", "eval")
        for name, value in record[split].items()
    )
    return f"train: epoch {record['epoch']}, step {record['step']}: {', '.join(shown)}"
