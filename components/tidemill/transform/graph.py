"""The transform graph as a trackable module, loaded without tensorflow_transform.

Whoever exports a model puts this module inside, so that the served model transforms raw rows by the very graph that
made its training data. (The TPU image has no tensorflow_transform, so only TensorFlow is imported here.)
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import tensorflow as tf

from tidemill.instances import MISSING
from tidemill.transform.features import RawType, TransformedFeatures

TRANSFORM_FN = "transform_fn"


class TransformGraph(tf.Module):
    """Maps raw dense columns to transformed features.

    Attributes:
        described: what goes in and what comes out.
    """

    def __init__(self, saved_model: Path, described: TransformedFeatures) -> None:
        super().__init__(name="transform")
        self.described = described
        # Kept as an attribute: this is what tracks the vocabulary tables and their asset files into an export.
        self._loaded = tf.saved_model.load(str(saved_model))
        self._function = _concrete(self._loaded.transform_fn)

    @property
    def input_signature(self) -> dict[str, tf.TensorSpec]:
        """The raw inputs, each of shape [batch], for a ``tf.function`` that calls this module."""
        return {name: tf.TensorSpec([None], dtype) for name, dtype in self.described.raw.items()}

    def __call__(self, raw: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Transforms a batch.

        Args:
            raw: every raw column as a dense tensor [batch], in which ``tidemill.instances.MISSING`` stands for null.

        Returns:
            By feature: float32 [batch], [batch, width] or [batch, *shape], or int64 [batch] or [batch, length].
        """
        sparse = {name: sparse_column(raw[name], dtype) for name, dtype in self.described.raw.items()}
        outputs = self._function(*tf.nest.flatten(sparse, expand_composites=True))
        return {feature.name: outputs[feature.name] for feature in self.described.features}


def load_transform(transform_graph: Path) -> TransformGraph:
    """Loads the transform graph artefact; ``features.json`` says what it takes and gives."""
    transform_graph = Path(transform_graph)
    return TransformGraph(transform_graph / TRANSFORM_FN, TransformedFeatures.read(transform_graph))


def sparse_column(column: tf.Tensor, dtype: RawType) -> tf.SparseTensor:
    """Turns a dense column [batch] with sentinels into a SparseTensor [batch, 1] that lacks the missing values."""
    present = tf.logical_not(tf.math.is_nan(column)) if dtype == "float32" else column != MISSING[dtype]
    rows = tf.where(present)
    indices = tf.concat([rows, tf.zeros_like(rows)], axis=1)
    shape = tf.stack([tf.size(column, out_type=tf.int64), tf.constant(1, tf.int64)])
    return tf.SparseTensor(indices, tf.gather_nd(column, rows), shape)


def _concrete(function: tf.types.experimental.GenericFunction) -> tf.types.experimental.ConcreteFunction:
    # A restored tf.function has the one trace it was saved with, a restored ConcreteFunction is that trace.
    return function.concrete_functions[0] if hasattr(function, "concrete_functions") else function
