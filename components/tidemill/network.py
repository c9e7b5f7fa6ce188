"""``network/`` of a model artefact: the model's part behind the transform graph, and its weights by name.

The network itself is the signature ``network`` of ``saved_model/``. It takes what the transform graph puts out, under
names that every runtime can take, and answers ``output`` float32 [batch, outputs]: the probability of the positive
class, one probability per class, or the value.

::

    network.json    {"inputs": [{"name", "feature", "dtype", "shape"}], "weights": [path]}
    weights.npz     an array per weight under its place in ``weights``: a path such as ``hidden_0/kernel``
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np

from tidemill.artifacts import NETWORK
from tidemill.errors import DataError
from tidemill.files import write_json

WEIGHTS: Final = "weights.npz"
SIGNATURE: Final = "network"
OUTPUT: Final = "output"
_MANIFEST: Final = "network.json"


@dataclass(frozen=True)
class NetworkInput:
    """One input of the signature ``network``.

    Attributes:
        name: in the signature, such as ``feature_0``.
        feature: the transformed feature that goes in.
        dtype: ``float32`` or ``int64``.
        shape: of one row.
    """

    name: str
    feature: str
    dtype: str
    shape: tuple[int, ...]


def write_network(model: Path, inputs: Sequence[NetworkInput], weights: Iterable[tuple[str, np.ndarray]]) -> None:
    """Writes ``network/`` into a model artefact.

    Args:
        weights: path and value of each weight, in the order of the model's own list.
    """
    directory = model / NETWORK
    directory.mkdir()
    named = list(weights)
    with (directory / WEIGHTS).open("wb") as file:
        np.savez(file, **{f"{i:05d}": value for i, (_, value) in enumerate(named)})  # type: ignore[arg-type]
    described = {"inputs": [asdict(each) for each in inputs], "weights": [path for path, _ in named]}
    write_json(directory / _MANIFEST, described)


def read_inputs(model: Path) -> tuple[NetworkInput, ...]:
    """Returns the inputs of the signature ``network``.

    Raises:
        DataError: if the artefact was made before there was one.
    """
    return tuple(NetworkInput(**{**each, "shape": tuple(each["shape"])}) for each in _described(model)["inputs"])


def read_weights(model: Path) -> list[tuple[str, np.ndarray]]:
    """Returns path and value of each weight, in the order of the model's own list; a path may stand there twice.

    Raises:
        DataError: if the artefact was made before there was ``network/``.
    """
    paths = _described(model)["weights"]
    with np.load(model / NETWORK / WEIGHTS) as file:
        return [(path, file[f"{i:05d}"]) for i, path in enumerate(paths)]


def _described(model: Path) -> dict[str, list]:
    path = model / NETWORK / _MANIFEST
    if not path.is_file():
        raise DataError(str(model), f"has no {NETWORK}/{_MANIFEST}", remedy="train it again with this version")
    return dict(json.loads(path.read_text(encoding="utf-8")))
