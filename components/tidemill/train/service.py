"""What Vertex AI's training service sets in a worker's environment, and what it expects to find in return."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tidemill.execution import local_path

CLUSTER_VARIABLE: Final = "TF_CONFIG"
CURVES_VARIABLE: Final = "AIP_TENSORBOARD_LOG_DIR"
_TENSORBOARD: Final = "tensorboard"  # of the history artefact; see tidemill.artifacts
_TRAINS: Final = ("chief", "worker")


def trainers(text: str | None) -> str | None:
    """Returns TF_CONFIG without the machines that don't train.

    A reduction server is a parameter server by its name there, and TensorFlow would wait for it to join.
    Source: https://cloud.google.com/vertex-ai/docs/training/distributed-training
    """
    try:
        config = json.loads(text or "")
        cluster = {kind: addresses for kind, addresses in config["cluster"].items() if kind in _TRAINS}
    except (ValueError, KeyError, TypeError, AttributeError):
        return text  # whoever reads it says what is wrong with it
    return json.dumps({**config, "cluster": cluster})


def publish_curves(history: Path, environment: Mapping[str, str]) -> None:
    """Copies a history's TensorBoard files to where Vertex AI takes them from; does nothing elsewhere.

    Says on stderr if they can't be copied: the training is done all the same, and its history has them.
    """
    if not (place := environment.get(CURVES_VARIABLE)):
        return
    try:
        shutil.copytree(history / _TENSORBOARD, local_path(place), dirs_exist_ok=True, copy_function=shutil.copyfile)
    except OSError as error:
        print(f"train: warning: the curves can't be copied to {place}: {error}", file=sys.stderr, flush=True)
