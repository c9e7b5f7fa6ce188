"""The trained model with its transform graph as one SavedModel that takes raw rows.

The graph's inputs are called ``input_<i>`` while it is traced and saved, and get the columns' names in the saved
file: TensorFlow refuses to trace arguments with many names that columns have (blanks, non-ASCII letters).

Beside the signatures for raw rows stands ``network``, which takes what the transform graph puts out: the part of the
model that other runtimes can run, as they know none of the transform's operations on strings.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from tidemill.artifacts import SAVED_MODEL, ModelManifest
from tidemill.errors import ProblemError
from tidemill.files import digest_tree
from tidemill.instances import MISSING
from tidemill.network import OUTPUT, SIGNATURE, NetworkInput, write_network
from tidemill.problem import Problem
from tidemill.train.context import input_shape, symbolic_input
from tidemill.train.models import call_model, input_names
from tidemill.train.vocabularies import Rows
from tidemill.transform.features import TransformedFeatures
from tidemill.transform.graph import TransformGraph

SIGNATURES = ("serving_default", "serving_examples", "transform_features", SIGNATURE)
_OUTPUTS: Mapping[str, Mapping[str, str]] = {
    "binary_classification": {"probability": "float32", "label": "string"},
    "multiclass_classification": {"probabilities": "float32", "label": "string"},
    "regression": {"value": "float32"},
}


def output_dtypes(task: str) -> Mapping[str, str]:
    """Returns the outputs of ``serving_default`` with their dtypes."""
    return _OUTPUTS[task]


def write_model(
    directory: Path,
    problem: Problem,
    transform: TransformGraph,
    model: keras.Model,
    lineage: Mapping[str, str],
    rows: Rows,
) -> ModelManifest:
    """Writes a model artefact: ``saved_model/``, ``network/`` and, last, ``model.json``.

    Args:
        directory: exists and is empty.
        lineage: digests of all that the model was made from.
        rows: what those of its tables stand for.
    """
    served = ServedModel(transform, model, problem)
    served.save(directory / SAVED_MODEL)
    weights = [(variable.path, np.array(variable)) for variable in model.weights]
    write_network(directory, served.network_inputs, weights)
    rows.write(directory)
    manifest = ModelManifest(
        name=problem.name,
        task=problem.task,
        classes=transform.described.classes,
        threshold=problem.threshold,
        inputs=dict(transform.described.raw),
        outputs=dict(output_dtypes(problem.task)),
        signatures=SIGNATURES,
        digest=digest_tree(directory / SAVED_MODEL),
        framework={"tensorflow": tf.__version__, "keras": keras.__version__},
        lineage={**lineage, "weights": weights_digest(model)},
    )
    manifest.write(directory)
    return manifest


def weights_digest(model: keras.Model) -> str:
    """Returns the hex sha256 of the model's weights: the same for the same training, whatever the file looks like."""
    digest = hashlib.sha256()
    for variable in model.weights:
        value = np.array(variable)
        digest.update(f"{value.dtype}{value.shape}".encode())
        digest.update(value.tobytes())
    return digest.hexdigest()


class ServedModel(tf.Module):
    """Raw rows in, answers out.

    Args:
        transform: the transform graph.
        model: the trained model.
        problem: task and threshold.
    """

    def __init__(self, transform: TransformGraph, model: keras.Model, problem: Problem) -> None:
        super().__init__(name="served_model")
        self._transform = transform
        self._described: TransformedFeatures = transform.described
        self._problem = problem
        # What an attribute refers to is saved. Of the model that is its weights and its layers' tables; the optimizer
        # and the metrics would treble the file.
        self._weights = [variable.value for variable in model.variables]
        self._layers = model.layers
        self._predict = functools.partial(call_model, model, training=False)
        taken = input_names(model)
        self._taken = [f for f in self._described.features if taken is None or f.name in taken]

    @property
    def network_inputs(self) -> tuple[NetworkInput, ...]:
        """The transformed features that the model takes, as the signature ``network`` calls them."""
        return tuple(
            NetworkInput(f"feature_{i}", f.name, str(symbolic_input(f, None).dtype), input_shape(f))
            for i, f in enumerate(self._taken)
        )

    def save(self, path: Path) -> None:
        """Writes the SavedModel with its signatures."""
        raw = self._described.raw
        names = {f"input_{i}": name for i, name in enumerate(raw)}
        specs = {safe: tf.TensorSpec([None], raw[name], safe) for safe, name in names.items()}
        functions = {
            "serving_default": tf.function(lambda inputs: self._answer(_renamed(inputs, names)), autograph=False),
            "transform_features": tf.function(lambda inputs: self._transform(_renamed(inputs, names)), autograph=False),
        }
        signatures = {key: function.get_concrete_function(specs) for key, function in functions.items()}
        examples = tf.function(lambda examples: self._answer(self._parse(examples)), autograph=False)
        signatures["serving_examples"] = examples.get_concrete_function(tf.TensorSpec([None], tf.string, "examples"))
        network = tf.function(self._network, autograph=False)
        signatures[SIGNATURE] = network.get_concrete_function(
            {i.name: tf.TensorSpec([None, *i.shape], i.dtype, i.name) for i in self.network_inputs}
        )
        tf.saved_model.save(self, str(path), signatures=signatures)
        rename_inputs(path, names)
        # It holds a random id, which would give equal models different digests, and a checksum of the old names.
        (path / "fingerprint.pb").unlink()

    def _network(self, inputs: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        features = {i.feature: inputs[i.name] for i in self.network_inputs}
        return {OUTPUT: tf.cast(self._predict(features), tf.float32)}

    def _answer(self, raw: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        output = tf.cast(self._predict(self._transform(raw)), tf.float32)
        if self._problem.task == "regression":
            return {"value": output[:, 0]}
        classes = tf.constant(self._described.classes)
        if self._problem.task == "binary_classification":
            probability = output[:, 0]
            positive = tf.cast(probability >= self._problem.threshold, tf.int32)
            return {"probability": probability, "label": tf.gather(classes, positive)}
        return {"probabilities": output, "label": tf.gather(classes, tf.argmax(output, axis=1))}

    def _parse(self, examples: tf.Tensor) -> dict[str, tf.Tensor]:
        """Parses serialized tf.Examples [batch]; what is absent or empty becomes the value that stands for missing."""
        raw = self._described.raw
        parsed = tf.io.parse_example(examples, {name: tf.io.VarLenFeature(dtype) for name, dtype in raw.items()})
        return {name: _dense(name, parsed[name], MISSING[dtype], examples) for name, dtype in raw.items()}


def check_names(columns: Iterable[str]) -> None:
    """Refuses raw columns that a signature can't take by name from Python.

    Raises:
        ProblemError: naming the columns.
    """
    seen: dict[str, str] = {"self": "self, the signature's own argument"}
    for column in columns:
        # As TensorFlow folds the names of arguments when a signature is called.
        folded = "".join(c if c.isalnum() else "_" for c in column)
        if folded in seen:
            raise ProblemError(
                f"column {column}", f"is the same to a TensorFlow signature as {seen[folded]}", remedy="rename it"
            )
        seen[folded] = column


def _dense(name: str, sparse: tf.SparseTensor, missing: object, examples: tf.Tensor) -> tf.Tensor:
    """Returns a column of at most one value per row as [batch]."""
    one = tf.debugging.assert_less_equal(
        sparse.dense_shape[1], tf.constant(1, tf.int64), f"{name} has more than one value in an example"
    )
    with tf.control_dependencies([one]):
        rows = sparse.indices[:, :1]
    filled = tf.fill(tf.shape(examples), tf.constant(missing, sparse.values.dtype))
    return tf.tensor_scatter_nd_update(filled, rows, sparse.values)


def _renamed(inputs: Mapping[str, tf.Tensor], names: Mapping[str, str]) -> dict[str, tf.Tensor]:
    return {names[safe]: tensor for safe, tensor in inputs.items()}


def rename_inputs(saved_model: Path, names: Mapping[str, str]) -> None:
    """Renames inputs of the signatures in a saved file, for TF Serving and for ``tf.saved_model.load`` alike.

    Args:
        saved_model: directory of the SavedModel.
        names: new name by present one.
    """
    path = saved_model / "saved_model.pb"
    message = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    graph = message.meta_graphs[0]
    for signature in graph.signature_def.values():
        for old in set(signature.inputs) & set(names):
            signature.inputs[names[old]].CopyFrom(signature.inputs[old])
            del signature.inputs[old]
    for node in graph.object_graph_def.nodes:
        if node.WhichOneof("kind") == "bare_concrete_function":
            keywords = node.bare_concrete_function.argument_keywords
            keywords[:] = [names.get(keyword, keyword) for keyword in keywords]
    path.write_bytes(message.SerializeToString(deterministic=True))
