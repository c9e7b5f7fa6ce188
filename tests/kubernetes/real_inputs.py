"""Writes the inputs of a small real training into a directory; for the tensorflow environment, run by a test."""

from __future__ import annotations

import importlib.util
import itertools
import json
import sys
from pathlib import Path


class Factory:
    """Makes directories as pytest's own does."""

    def __init__(self, root: Path) -> None:
        self._root, self._numbers = root, itertools.count()

    def mktemp(self, name: str) -> Path:
        made = self._root / f"{name}-{next(self._numbers)}"
        made.mkdir(parents=True)
        return made


def main(root: Path) -> None:
    place = Path(__file__).parents[1] / "unit" / "train" / "conftest.py"
    spec = importlib.util.spec_from_file_location("train_conftest", place)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    training = {"max_epochs": 12, "early_stopping_patience": None, "batch_size": 64, "checkpoint_every_steps": 10}
    inputs = module.make_inputs.__wrapped__(Factory(root))(rows=2000, training=training)
    names = ("bundle", "transformed", "transform_graph")
    (root / "inputs.json").write_text(json.dumps({name: str(getattr(inputs, name)) for name in names}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
