"""A SavedModel in memory, ready to be called from several threads."""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from tidemill.artifacts import MODEL_MANIFEST, SAVED_MODEL, ModelManifest
from tidemill.errors import DataError
from tidemill.instances import MISSING
from tidemill.serving.payload import DEFAULT_SIGNATURE, Signature

# TensorFlow's own objects live as long as the process. Without this, each collection walks all of them, and the
# requests of that moment wait for it.
gc.freeze()

_OUTPUT_ORDER = ("probability", "probabilities", "value", "label")


@dataclass(frozen=True)
class LoadedModel:
    """A model and its callable signatures."""

    manifest: ModelManifest
    signatures: Mapping[str, Signature]
    _functions: Mapping[str, Any]
    _module: Any  # owns the variables: the functions hold only weak references to them

    def predict(self, signature: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Calls a signature with arrays of shape [rows]; outputs are [rows, …] in the order of the response."""
        outputs = self._functions[signature](**{name: tf.constant(array) for name, array in arrays.items()})
        return {name: outputs[name].numpy() for name in self.signatures[signature].outputs}

    def warm_up(self, sizes: Sequence[int]) -> None:
        """Calls every signature once per batch size, with rows in which everything is missing.

        Raises:
            DataError: if outputs aren't one per row, or the default signature cannot take a row without values.
        """
        for signature in self.signatures.values():
            for size in sizes:
                arrays = {name: _missing(dtype, size) for name, dtype in signature.inputs.items()}
                try:
                    outputs = self.predict(signature.name, arrays)
                except tf.errors.InvalidArgumentError as error:
                    if not signature.raw:  # such as an Example without a feature that its parser requires
                        break
                    raise DataError(
                        f"signature {signature.name}", "must answer a row whose features are all missing", str(error)
                    ) from error
                for name, output in outputs.items():
                    if output.shape[:1] != (size,):
                        raise DataError(
                            f"signature {signature.name}: output {name}",
                            f"must have one entry per row, [{size}, …]",
                            str(list(output.shape)),
                        )


def bad_input(error: Exception) -> bool:
    """Tells whether the model refused its input, and did not fail by itself.

    TensorFlow quotes the input in its message; where that isn't UTF-8, its Python side fails to raise the real error.
    """
    return isinstance(error, (tf.errors.InvalidArgumentError, tf.errors.OutOfRangeError, UnicodeDecodeError))


def load(directory: Path) -> LoadedModel:
    """Loads a model artefact (``saved_model/`` and ``model.json``) or a version of the registry.

    Raises:
        DataError: if it is not a model that this server can serve.
    """
    saved_model = directory / SAVED_MODEL if (directory / SAVED_MODEL).is_dir() else directory
    try:
        manifest = ModelManifest.read(directory)
    except (OSError, ValueError, TypeError, KeyError) as error:
        got = f"{type(error).__name__}: {error}"
        raise DataError(f"{directory.name}/{MODEL_MANIFEST}", "the model's manifest cannot be read", got) from error
    try:
        module = tf.saved_model.load(str(saved_model))
    except Exception as error:
        # TensorFlow raises OSError, ValueError, KeyError, OpError and protobuf errors for a damaged SavedModel.
        got = f"{type(error).__name__}: {error}"
        raise DataError(f"{directory.name}/{SAVED_MODEL}", "the SavedModel cannot be loaded", got) from error
    functions = dict(module.signatures)
    if DEFAULT_SIGNATURE not in functions:
        raise DataError(directory.name, f"the SavedModel needs a signature {DEFAULT_SIGNATURE}", ", ".join(functions))
    described = {name: _describe(name, spec, manifest) for name, spec in _signature_defs(saved_model).items()}
    signatures = {name: signature for name, signature in described.items() if signature is not None}
    if DEFAULT_SIGNATURE not in signatures:
        raise DataError(
            f"{directory.name}: {DEFAULT_SIGNATURE}", "inputs must be float32, int64 or string of shape [None]"
        )
    if signatures[DEFAULT_SIGNATURE].inputs != dict(sorted(manifest.inputs.items())):
        raise DataError(f"{directory.name}: {DEFAULT_SIGNATURE}", f"inputs must be those of {MODEL_MANIFEST}")
    return LoadedModel(manifest, signatures, functions, module)


def _signature_defs(saved_model: Path) -> Mapping[str, Any]:
    """Returns the signatures as the file defines them, by name.

    They are what TensorFlow Serving answers to. The arguments of the loaded functions can have other names, as
    Python allows fewer: no spaces, no hyphens.
    """
    message = saved_model_pb2.SavedModel.FromString((saved_model / "saved_model.pb").read_bytes())
    internal = "__saved_model_init_op"
    return {name: spec for name, spec in message.meta_graphs[0].signature_def.items() if name != internal}


def _describe(name: str, spec: Any, manifest: ModelManifest) -> Signature | None:
    """Returns what a signature takes and gives, or None if its inputs are not one value per row."""
    shapes = [tf.TensorShape(tensor.tensor_shape) for tensor in spec.inputs.values()]
    inputs = {key: tf.as_dtype(spec.inputs[key].dtype).name for key in sorted(spec.inputs)}
    flat = all(shape.rank == 1 and shape[0] is None for shape in shapes)
    if not inputs or not flat or not set(inputs.values()) <= MISSING.keys():
        return None
    given = spec.outputs
    ordered = sorted(given, key=lambda key: (_OUTPUT_ORDER.index(key) if key in _OUTPUT_ORDER else 99, key))
    outputs = {key: tf.as_dtype(given[key].dtype).name for key in ordered}
    return Signature(name, inputs, outputs, raw=inputs.keys() <= manifest.inputs.keys())


def _missing(dtype: str, rows: int) -> np.ndarray:
    return np.full(rows, MISSING[dtype], dtype=object if dtype == "string" else dtype)
