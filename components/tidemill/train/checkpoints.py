"""Where a training stands, on disk, so that a killed one goes on as if nothing had happened.

::

    checkpoint-<step>/
        arrays.npz      the variables that a step changes, then the best weights so far
        state.json      position, history, early stopping, and the digest of what is trained on what
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tidemill.files import replaced_directory, write_json

KEPT = 2


@dataclass
class Progress:
    """Where a training stands. Epochs and steps count from 0 and name the next one to take.

    Attributes:
        epoch: the current epoch.
        step: the next step within the epoch.
        steps: steps taken in all.
        loss: sum over the examples of this epoch so far of their loss.
        examples: examples seen in this epoch.
        epoch_seconds: time spent training in this epoch.
        seconds: time spent training and evaluating in all, over all tries.
        best_loss: smallest eval loss so far.
        best_epoch: the 1-based epoch it was seen in.
        stopped: why the training ended, if it has.
        history: one record per epoch that ended.
    """

    epoch: int = 0
    step: int = 0
    steps: int = 0
    loss: float = 0.0
    examples: int = 0
    epoch_seconds: float = 0.0
    seconds: float = 0.0
    best_loss: float | None = None
    best_epoch: int = 0
    stopped: str | None = None
    history: list[dict[str, Any]] = field(default_factory=list)


class Checkpoints:
    """The newest checkpoints of one training.

    Args:
        directory: theirs alone.
        key: digest of everything that the training depends on; checkpoints of another key are not for it.
    """

    def __init__(self, directory: Path, key: str) -> None:
        self.directory, self._key = Path(directory), key

    def save(self, progress: Progress, variables: Sequence[np.ndarray], best: Sequence[np.ndarray]) -> None:
        """Writes a checkpoint whole or not at all, and removes all but the newest two."""
        with replaced_directory(self.directory / f"checkpoint-{progress.steps:010d}") as partial:
            with (partial / "arrays.npz").open("wb") as file:
                np.savez(file, **{f"{i:05d}": array for i, array in enumerate([*variables, *best])})
            state = {"key": self._key, "variables": len(variables), "progress": asdict(progress)}
            write_json(partial / "state.json", state)
        for old in self._present()[:-KEPT]:
            shutil.rmtree(old)

    def restore(self) -> tuple[Progress, list[np.ndarray], list[np.ndarray]] | None:
        """Returns the newest checkpoint of this training: progress, variables and best weights.

        Prints why a checkpoint is not used when it belongs to another training.
        """
        for path in reversed(self._present()):
            state = json.loads((path / "state.json").read_text())
            if state["key"] != self._key:
                print(f"train: {path.name} is of other inputs; it is not used and training starts anew")
                shutil.rmtree(path)
                continue
            with np.load(path / "arrays.npz") as file:
                arrays = [file[name] for name in sorted(file.files)]
            return Progress(**state["progress"]), arrays[: state["variables"]], arrays[state["variables"] :]
        return None

    def _present(self) -> list[Path]:
        return sorted(p for p in self.directory.glob("checkpoint-*") if (p / "state.json").is_file())
