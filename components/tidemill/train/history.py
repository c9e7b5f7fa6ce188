"""The history artefact: learning curves as JSON and as TensorBoard event files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf

from tidemill.files import write_json

HISTORY_FILE = "history.json"


def write_history(directory: Path, history: Mapping[str, Any]) -> None:
    """Writes ``tensorboard/`` and then ``history.json``.

    Args:
        directory: the artefact.
        history: as ``run`` gathers it; ``epochs`` is the list of the epochs' records.
    """
    for split in ("train", "eval"):
        with tf.summary.create_file_writer(str(directory / "tensorboard" / split)).as_default():
            for record in history["epochs"]:
                for name, value in record[split].items():
                    if value is None:
                        continue
                    tf.summary.scalar(name, value, step=record["step"])
                if split == "train":
                    for name in ("learning_rate", "examples_per_second"):
                        tf.summary.scalar(name, record[name], step=record["step"])
    write_json(directory / HISTORY_FILE, history)
