"""Starting from another model's weights: the champion's, or those of a file.

Weights go by name: a layer's name and the weight's within it. Where a name or a shape has no match, the weight stays
as it was initialised, and the report says so. Rows of embedding tables go by what they stand for.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import trackable_object_graph_pb2

from tidemill.artifacts import MODEL_MANIFEST
from tidemill.errors import ProblemError
from tidemill.network import read_weights
from tidemill.train.origins import START_FROM, Origin
from tidemill.train.vocabularies import Rows, layers_of

_Row = tuple[str, str, int]


@dataclass(frozen=True)
class Started:
    """What a training started from.

    Attributes:
        address: ``champion``, or where the weights were.
        digest: hex sha256 of what was there; None where there is no champion yet.
        copied: weights that were taken over whole.
        rows: rows taken over by weight, of tables whose vocabularies differ: ``"45 of 50"``.
        left: why each other weight was not taken over.
    """

    address: str
    digest: str | None
    copied: int = 0
    rows: Mapping[str, str] = field(default_factory=dict)
    left: Mapping[str, str] = field(default_factory=dict)


def start(model: keras.Model, start_from: str | None, found: Origin | None, rows: Rows) -> Started | None:
    """Gives a model the weights that its training starts from, as far as they match.

    Args:
        model: built.
        start_from: as the problem says.
        found: whose weights; None where nothing is to start from, or there is no champion yet.
        rows: what the rows of the model's tables stand for.

    Raises:
        ProblemError: if no weight matches, or there are no weights.
    """
    if start_from is None:
        return None
    if found is None or found.taken:
        return Started(found.address if found else start_from, found.digest if found else None)
    if found.path.name.endswith(".weights.h5"):
        return _from_weights_file(model, found)
    matching = _Matching(model, _weights(found), rows, Rows.read(found.path) if found.path.is_dir() else None)
    outcomes = {variable.path: matching.take(variable) for variable in model.weights}
    copied = sum(outcome == "" for outcome in outcomes.values())
    moved = {path: outcome.rows for path, outcome in outcomes.items() if isinstance(outcome, _Moved)}
    left = {path: outcome for path, outcome in outcomes.items() if isinstance(outcome, str) and outcome}
    if not copied and not moved:
        raise ProblemError(
            START_FROM,
            "some weight must match the model's by name and shape",
            f"{found.address} has {', '.join(matching.theirs) or 'none'}",
            f"give layers the names that they have there; the model has {', '.join(left)}",
        )
    for path, why in left.items():
        print(f"train: {path} starts from scratch: {why}", flush=True)
    return Started(found.address, found.digest, copied, moved, left)


@dataclass(frozen=True)
class _Moved:
    """Rows that were taken over, of all."""

    rows: str


class _Matching:
    """The weights of another model, by the names that a model looks for.

    Args:
        model: that takes them over.
        weights: the other's, by path.
        rows: what stands for the rows of the model's tables.
        their_rows: of the other's, if that is known.
    """

    def __init__(
        self, model: keras.Model, weights: Sequence[tuple[str, np.ndarray]], rows: Rows, their_rows: Rows | None
    ) -> None:
        self.theirs = [path for path, _ in weights]
        self._rows, self._their_rows = rows, their_rows
        self._by_path, self._by_end = _unique(weights), _unique([(_end(path), value) for path, value in weights])
        self._ends = Counter(_end(variable.path) for variable in model.weights)
        embeddings = [layer for layer in layers_of(model) if isinstance(layer, keras.layers.Embedding)]
        self._embeddings = {layer.embeddings.path for layer in embeddings if layer.built}

    def take(self, variable: keras.Variable) -> str | _Moved:
        """Takes over what matches. Returns why nothing was taken; nothing if all was."""
        path, end = variable.path, _end(variable.path)
        value = self._by_path.get(path)
        if value is None and self._ends[end] == 1:
            value = self._by_end.get(end)
        if value is None:
            return "there is none of that name"
        own, its = self._rows.of_table(path), self._their_rows.of_table(path) if self._their_rows else None
        if own is not None and own != its:
            return self._move_rows(variable, own, value, its)
        if value.shape != tuple(variable.shape):
            return f"its shape is {list(variable.shape)}, and there {list(value.shape)}"
        if path in self._embeddings and (changed := self._changed(variable.shape[0])):
            return f"its rows may stand for others, as the vocabulary of {', '.join(changed)} isn't the same"
        variable.assign(value)
        return ""

    def _move_rows(
        self, variable: keras.Variable, own: list[_Row], value: np.ndarray, its: list[_Row] | None
    ) -> str | _Moved:
        if its is None:
            return "what its rows stand for there isn't known"
        if value.shape[1:] != tuple(variable.shape[1:]):
            return f"its rows have shape {list(variable.shape[1:])}, and there {list(value.shape[1:])}"
        places = {row: i for i, row in enumerate(its)}
        found = [i for i, row in enumerate(own) if row in places]
        if not found:
            return "no row stands for what one of its own does"
        table = np.array(variable)
        table[found] = value[[places[own[i]] for i in found]]
        variable.assign(table)
        return _Moved(f"{len(found)} of {len(own)}")

    def _changed(self, size: int) -> list[str]:
        """Returns the features of so many ids whose ids are not known to be those of the other model."""
        theirs = self._their_rows.ids if self._their_rows else {}
        return [name for name, ids in self._rows.ids.items() if len(ids) == size and list(theirs.get(name, ())) != ids]


def _weights(found: Origin) -> list[tuple[str, np.ndarray]]:
    """Returns path and value of the weights of a model artefact, a SavedModel or a ``.keras`` file."""
    path = found.path
    if (path / MODEL_MANIFEST).is_file():
        return read_weights(path)
    if (path / "saved_model.pb").is_file():
        return _saved_model_weights(path)
    if path.suffix == ".keras":
        try:
            model = keras.saving.load_model(path, compile=False)
        except (TypeError, ValueError, OSError) as error:
            raise ProblemError(
                START_FROM,
                "the file must be one that Keras can load by itself",
                f"{found.address}: {type(error).__name__}: {error}",
                "save the weights alone (model.save_weights, `.weights.h5`), or load the file in build_model",
            ) from error
        return [(variable.path, np.array(variable)) for variable in model.weights]
    raise ProblemError(
        START_FROM,
        "must name a model artefact, a SavedModel, a .keras or a .weights.h5 file",
        found.address,
        "model.save('model.keras') writes such a file",
    )


def _saved_model_weights(path: Path) -> list[tuple[str, np.ndarray]]:
    """Returns the variables of a SavedModel by their full names; no function of it is loaded."""
    reader = tf.train.load_checkpoint(str(path / "variables" / "variables"))
    graph = trackable_object_graph_pb2.TrackableObjectGraph.FromString(
        reader.get_tensor("_CHECKPOINTABLE_OBJECT_GRAPH")
    )
    # The same variable is there once for each way that leads to it.
    attributes = [a for node in graph.nodes for a in node.attributes if a.name == "VARIABLE_VALUE"]
    return [(a.full_name, reader.get_tensor(a.checkpoint_key)) for a in attributes]


def _from_weights_file(model: keras.Model, found: Origin) -> Started:
    optimizer, model.optimizer = model.optimizer, None  # whose state and learning rate are in such a file too
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # in which Keras tells what it leaves out
            model.load_weights(found.path)
    except (ValueError, KeyError, OSError, UserWarning) as error:
        raise ProblemError(
            START_FROM,
            "a .weights.h5 file must be of this very model, as it has no names of layers",
            f"{found.address}: {type(error).__name__}: {error}",
            "give a .keras file or a SavedModel of the other model, whose weights go by name",
        ) from error
    finally:
        model.optimizer = optimizer
    return Started(found.address, found.digest, len(model.weights))


def _end(path: str) -> str:
    """Returns the names of the layer and the weight, without those of the models around them."""
    return "/".join(path.split("/")[-2:])


def _unique(weights: Sequence[tuple[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Returns the weights whose name no other weight has that differs."""
    found: dict[str, np.ndarray] = {}
    several = set()
    for name, value in weights:
        if name in found and not (found[name].shape == value.shape and (found[name] == value).all()):
            several.add(name)
        found[name] = value
    return {name: value for name, value in found.items() if name not in several}
