"""Networks that answer transformed features, whatever runs them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import tensorflow as tf

from tidemill.artifacts import SAVED_MODEL, ModelManifest
from tidemill.errors import TidemillError
from tidemill.instances import arrays_from_batch
from tidemill.network import OUTPUT, SIGNATURE, NetworkInput, read_inputs

Features = Mapping[str, np.ndarray]
"""Transformed features by name, float32 or int64 [rows, …]."""
_ROWS = 8_192  # what a network has in memory at once
_TOLERANCE = 1e-5  # relative beyond 1, as in the rehearsal


class Network(Protocol):
    """Something that answers transformed features."""

    def answer(self, features: Features) -> np.ndarray:
        """Returns float32 [rows, outputs]: see :mod:`tidemill.network`."""


class SavedNetwork:
    """The network of a model artefact, and its transform graph, as TensorFlow runs them."""

    def __init__(self, model: Path) -> None:
        self.manifest = ModelManifest.read(model)
        self.inputs = read_inputs(model)
        self._loaded = tf.saved_model.load(str(model / SAVED_MODEL))  # must outlive its signatures
        self.signature = self._loaded.signatures[SIGNATURE]

    def transform(self, batch: pa.RecordBatch) -> dict[str, np.ndarray]:
        """Returns the transformed features of raw rows."""
        return self._raw("transform_features", batch)

    def answer(self, features: Features) -> np.ndarray:
        outputs = self.signature(**{i.name: tf.constant(features[i.feature], i.dtype) for i in self.inputs})
        return np.asarray(outputs[OUTPUT].numpy())

    def check(self, batch: pa.RecordBatch, score: str) -> None:
        """Holds the network's answers to raw rows against those of ``serving_default``.

        Raises:
            TidemillError: if they differ, so that what is measured here is not what is served.
        """
        served = self._raw("serving_default", batch)[score]
        found = self.answer(self.transform(batch)).reshape(served.shape)
        if not np.allclose(found, served, rtol=_TOLERANCE, atol=_TOLERANCE, equal_nan=True):
            difference = float(np.abs(found - served).max())
            raise TidemillError("model", "its network must answer as serving_default does", f"off by {difference:g}")

    def _raw(self, signature: str, batch: pa.RecordBatch) -> dict[str, np.ndarray]:
        arrays = arrays_from_batch(batch, self.manifest.inputs)
        outputs = self._loaded.signatures[signature](**{name: tf.constant(value) for name, value in arrays.items()})
        return {name: tensor.numpy() for name, tensor in outputs.items()}


class LiteRTNetwork:
    """A LiteRT file in its interpreter, on one thread."""

    def __init__(self, content: bytes, inputs: Sequence[NetworkInput]) -> None:
        from ai_edge_litert.interpreter import Interpreter

        self._interpreter = Interpreter(model_content=content, num_threads=1)  # must outlive its runner
        self._runner = self._interpreter.get_signature_runner(SIGNATURE)
        self._inputs = inputs

    def answer(self, features: Features) -> np.ndarray:
        if not len(features[self._inputs[0].feature]):
            raise ValueError("LiteRT takes no empty batch")
        outputs = self._runner(**{i.name: features[i.feature].astype(i.dtype, copy=False) for i in self._inputs})
        return np.asarray(outputs[OUTPUT])


class OnnxNetwork:
    """An ONNX file in ONNX Runtime, on one thread."""

    def __init__(self, content: bytes, inputs: Sequence[NetworkInput]) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session: Any = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        taken = {each.name for each in self._session.get_inputs()}
        self._inputs = [i for i in inputs if i.name in taken]

    def answer(self, features: Features) -> np.ndarray:
        fed = {i.name: features[i.feature].astype(i.dtype, copy=False) for i in self._inputs}
        return np.asarray(self._session.run([OUTPUT], fed)[0])


def in_pieces(network: Network, features: Features) -> np.ndarray:
    """Returns a network's answer to any number of rows, piece by piece."""
    rows = len(next(iter(features.values())))
    starts = range(0, rows, _ROWS)
    return np.concatenate(
        [network.answer({name: value[start : start + _ROWS] for name, value in features.items()}) for start in starts]
    )
