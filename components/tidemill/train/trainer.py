"""The course of a training: epochs, evaluation, early stopping, checkpoints, and going on after a kill."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from typing import NoReturn

import numpy as np

from tidemill.errors import DataError, UserError
from tidemill.train.batches import Block, Examples, ahead, block_steps
from tidemill.train.checkpoints import Checkpoints, Progress
from tidemill.train.context import TrainContext
from tidemill.train.efficiency import Meter
from tidemill.train.heartbeats import Heart
from tidemill.train.optimizers import averaged, take_averages
from tidemill.train.place import ALONE, Place
from tidemill.train.preemption import Notice
from tidemill.train.steps import Steps, Taken


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
        place: this process among the workers; the chief's checkpoint is everybody's.
        before_epoch: is called with each epoch and its next step (both from 0) before the first step here, also when
            a training goes on in the middle of one: may change which layers are trained and call ``steps.retrace()``.
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
        place: Place = ALONE,
        before_epoch: Callable[[int, int], None] = lambda *_: None,
    ) -> None:
        self._steps, self._train, self._evaluation = steps, train, evaluation
        self._context, self._checkpoints = context, checkpoints
        self._heart, self._notice, self._place = heart, notice, place
        self._before_epoch = before_epoch
        self._size = context.batch_size // place.workers
        self.meter = Meter()
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
                self._before_epoch(self.progress.epoch, self.progress.step)
                self._take_epoch()
                self._end_epoch()
                self._save()
            self._checkpoints.finish()
        if self._context.training.early_stopping_patience is not None:
            for variable, value in zip(self._steps.model.variables, self._best, strict=True):
                variable.assign(value)
        else:
            take_averages(self._steps.model)
        return self.progress

    def _resume(self) -> None:
        restored = self._checkpoints.restore() if self._place.chief else None
        text = self._steps.agreed_text(json.dumps([asdict(restored[0]), bool(restored[2])]) if restored else "")
        if not text:
            return
        told, has_best = json.loads(text)
        self.progress = Progress(**told)
        shapes = [np.array(variable) for variable in self._steps.variables]
        best = [np.array(variable) for variable in self._steps.model.variables] if has_best else []
        _, values, self._best = restored or (None, shapes, best)
        self._steps.restore(self._steps.agreed(values))
        self._best = self._steps.agreed(self._best) if has_best else []
        self.resumed_from = self.progress.steps
        self.progress.resumed.append(self.progress.steps)
        if self._place.chief:
            print(f"train: resumed in epoch {self.progress.epoch + 1} after step {self.progress.steps}", flush=True)

    def _take_epoch(self) -> None:
        """Takes the steps of the current epoch that have not been taken."""
        progress, size = self.progress, self._size
        order = (self._context.training.seed, progress.epoch)
        self._heart.at("input")
        since = time.monotonic()
        for block in ahead(self._train.blocks(size, order, skip=progress.step * size)):
            steps = block_steps(size, self._train.packing.row_bytes)
            end = min((progress.step // steps + 1) * steps, self._train.steps(size))
            while progress.step < end and progress.steps < self._context.max_steps:
                count = self._call_steps(end)
                examples = self._train.examples(size, progress.step, count)
                begun = time.monotonic()
                self.meter.waited(begun - since)
                self._heart.at("step")
                taken = self._steps.train(block[: count * size], examples, self._asked)
                block = block[taken.steps * size :]
                now = time.monotonic()
                self.meter.called(now - begun, taken.steps)
                self._count(taken, int(examples[: taken.steps].sum()), now - since)
                since = now
                if taken.stop or progress.steps % self._context.training.checkpoint_every_steps == 0:
                    self._save()
                if taken.stop:
                    self._checkpoints.finish()
                    raise self._notice.preempted(progress.steps)
            if progress.steps >= self._context.max_steps:
                return

    def _call_steps(self, end: int) -> int:
        """Returns the steps of the next call: until a checkpoint is due, or the end of the block or the training.

        Args:
            end: first step of the epoch that is not in the block.
        """
        progress, training = self.progress, self._context.training
        every, most = training.checkpoint_every_steps, training.steps_per_execution or end
        return min(
            end - progress.step,
            self._context.max_steps - progress.steps,
            every - progress.steps % every,
            most - progress.steps % most,
        )

    def _count(self, taken: Taken, examples: int, seconds: float) -> None:
        progress = self.progress
        progress.step += taken.steps
        progress.steps += taken.steps
        progress.loss += taken.loss
        progress.examples += examples
        progress.epoch_seconds += seconds
        progress.seconds += seconds
        if not math.isfinite(taken.loss):
            self._refuse("training loss", str(taken.loss))
        self._heart.stepped(progress.steps, taken.steps)

    def _asked(self) -> bool:
        return self._notice.asked

    def _end_epoch(self) -> None:
        progress, training = self.progress, self._context.training
        self.meter.look()
        metrics = self._steps.results(progress.loss / progress.examples)
        self._heart.at("evaluation")
        begun = time.monotonic()
        self._steps.settle()
        with averaged(self._steps.model):
            evaluation = self._steps.evaluate(self._evaluated(ahead(self._evaluation.blocks(self._size))))
            answering = [np.array(variable) for variable in self._steps.model.variables]
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
            "learning_rate": float(np.array(self._steps.model.optimizer.learning_rate)),
            "seconds": progress.epoch_seconds,
            "examples_per_second": progress.examples / max(progress.epoch_seconds, 1e-9),
        }
        progress.history.append(record)
        if progress.best_loss is None or eval_loss < progress.best_loss:
            progress.best_loss, progress.best_epoch = eval_loss, progress.epoch
            self._best = answering
        progress.step, progress.loss, progress.examples, progress.epoch_seconds = 0, 0.0, 0, 0.0
        patience = training.early_stopping_patience
        if progress.steps >= self._context.max_steps:
            progress.stopped = "max_steps" if training.max_steps == progress.steps else "max_epochs"
        elif patience is not None and progress.epoch - progress.best_epoch >= patience:
            progress.stopped = "early_stopping"
        if self._place.chief:
            print(_line(record), flush=True)

    def _evaluated(self, blocks: Iterable[Block]) -> Iterator[Block]:
        """Yields the blocks; each that is done is progress, or a long evaluation would be taken for a hang."""
        for block in blocks:
            yield block
            self._heart.at("evaluation")

    def _save(self) -> None:
        self._steps.settle()
        values = self._steps.values()
        # A ReLU turns NaN into 0: a network can be dead while its loss looks sound.
        if not all(np.isfinite(value).all() for value in values if value.dtype.kind == "f"):
            self._refuse("weights", "nan")
        self._checkpoints.save(self.progress, values, self._best)

    def _refuse(self, what: str, got: str) -> NoReturn:
        """Ends a training whose numbers are no numbers, naming the input at fault if there is one."""
        for examples in (self._train, self._evaluation):
            for block in examples.blocks(self._size):
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
