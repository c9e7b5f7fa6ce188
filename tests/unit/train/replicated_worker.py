"""One of two workers that train together: run by ``test_train_workers.py``, with its place in TF_CONFIG.

Several trainings run in one process, which costs more than they do here. Each worker prints a JSON object.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import keras
import numpy as np
from replicated import BATCH, ONE, build, difference, rows

from tidemill.errors import Preempted
from tidemill.train.batches import Block, Examples
from tidemill.train.place import Place
from tidemill.train.preemption import Notice
from tidemill.train.run import run
from tidemill.train.strategies import distribute


class AskedLater(Notice):
    """Is asked to stop after so many looks."""

    def __init__(self, looks: int) -> None:
        super().__init__()
        self._left = looks

    @property
    def asked(self) -> bool:
        self._left -= 1
        return self._left < 0


def steps_of_two(place: Place) -> dict[str, Any]:
    """Takes this worker's half of each batch, beside one replica that takes the whole of the same batches."""
    sgd = {"optimizer": lambda: keras.optimizers.SGD(0.1), "weighted": True}
    two, one = build(distribute("auto", place), **sgd), build(ONE, **sgd)
    block, evaluated, half = rows(21, weighted=True), rows(13, weighted=True, seed=1), BATCH // 2
    halves = [block[start + half * place.worker :][:half] for start in range(0, 16, BATCH)]
    own = Block.concat([*halves, block[16:19] if place.chief else block[19:21]])
    taken = two.train(own, np.array([8, 8, 5], np.int32)), one.train(block)
    train = two.results(0.0), one.results(0.0)
    evaluation = two.evaluate([evaluated[:7] if place.chief else evaluated[7:]]), one.evaluate([evaluated])
    states = [[np.array(variable) for variable in made.model.variables] for made in (two, one)]
    return {
        "loss": [each.loss for each in taken],
        "train": train,
        "eval": evaluation,
        "difference": difference(*states),
    }


def noting(seen: list[list[float]]) -> None:
    """Notes the first number of every row that is trained on, by epoch."""
    blocks = Examples.blocks

    def noted(self: Examples, batch_size: int, order: Any = None, skip: int = 0) -> Iterator[Block]:
        if order is not None and not skip:
            seen.append([])
        for block in blocks(self, batch_size, order, skip):
            if order is not None:
                seen[-1].extend(block.dense[:, 0].tolist())
            yield block

    Examples.blocks = noted


def main() -> None:
    uninterrupted, interrupted = (json.loads(argument) for argument in sys.argv[1:3])
    place = Place.read()
    found: dict[str, Any] = {"steps": steps_of_two(place)}
    noting(seen := [])
    found["report"] = asdict(run(**uninterrupted))
    found["seen"] = list(seen)
    try:
        # The second worker alone is asked; both must leave after the same step.
        run(**interrupted, notice=AskedLater(4) if place.worker == 1 else None)
    except Preempted as error:
        found["preempted"] = str(error)
    found["resumed"] = asdict(run(**interrupted))
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
    os._exit(0)
