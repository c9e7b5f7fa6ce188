"""A worker that writes down which rows it takes at which step; otherwise ``tidemill.train.worker``.

``audited_worker.py <directory> <the worker's own arguments>``. A line per call of TensorFlow, written before it: the
try it belongs to, its first step, and the rows of each of its steps. Rows are told by the first dense feature. Steps
and checkpoints take longer than they need to, so that a kill can come at any moment of them.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from tidemill.train import checkpoints, worker
from tidemill.train.place import Place

_STEPS_S = 0.03
_CHECKPOINT_S = 0.2


def main() -> None:
    directory, number = Path(sys.argv[1]), Place.read().worker
    try_number = len(list(directory.glob(f"{number}-*.jsonl")))
    audit = (directory / f"{number}-{try_number:03d}.jsonl").open("w")

    from tidemill.train import run
    from tidemill.train.trainer import Trainer

    class Audited(Trainer):
        def __init__(self, steps: Any, *arguments: Any, **more: Any) -> None:
            super().__init__(steps, *arguments, **more)
            original = steps.train

            def train(block: Any, *rest: Any) -> Any:
                rows = [block.dense[i : i + self._size, 0].tolist() for i in range(0, len(block), self._size)]
                print(json.dumps({"first": self.progress.steps, "rows": rows}), file=audit, flush=True)
                time.sleep(_STEPS_S)
                return original(block, *rest)

            steps.train = train

    class Slow(checkpoints._Hashing):
        def sync(self) -> None:
            time.sleep(_CHECKPOINT_S)
            super().sync()

    run.Trainer, checkpoints._Hashing = Audited, Slow  # type: ignore[misc]
    worker.main(sys.argv[2:])


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    main()
