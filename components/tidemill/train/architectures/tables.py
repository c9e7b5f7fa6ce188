"""Tables of embeddings. What is looked up is cast to the precision of the layers, not the table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias

import keras
from keras import layers, ops

from tidemill.transform.features import TransformedFeature

MAX_EMBEDDING = 32
Initializer: TypeAlias = str | keras.initializers.Initializer


class JointEmbedding(layers.Layer):
    """One embedding table for several features, which costs one gather and one update instead of one per feature.

    Input: a list of ids, int64 [batch] each. Output: float32 [batch, features * dimensions].

    Args:
        features: whose ids are the rows, one feature's after the other's.
        dimensions: width of an embedding.
        l2: penalty on the squares of the table's entries.
        initializer: of the table.
    """

    def __init__(
        self, features: Sequence[TransformedFeature], dimensions: int, l2: float, initializer: Initializer, name: str
    ) -> None:
        super().__init__(name=name, autocast=False)
        self.features, self.sizes = tuple(f.name for f in features), tuple(f.size for f in features)
        self.dimensions, self.l2, self.initializer = dimensions, l2, initializer
        self.offsets = [sum(self.sizes[:i]) for i in range(len(self.sizes))]

    def build(self, _: object) -> None:
        self.table = self.add_weight(
            shape=(sum(self.sizes), self.dimensions),
            initializer=self.initializer,
            regularizer=keras.regularizers.L2(self.l2) if self.l2 else None,
            name="table",
        )

    def call(self, ids: Sequence[keras.KerasTensor]) -> keras.KerasTensor:
        stacked = ops.stack(ids, axis=1) + ops.convert_to_tensor([self.offsets], dtype="int64")
        rows = ops.cast(ops.take(self.table, stacked, axis=0), self.compute_dtype)
        return ops.reshape(rows, (-1, len(self.sizes) * self.dimensions))


class BagEmbedding(layers.Layer):
    """The sum or the mean of the embeddings of a bag's ids, padding (id 0) left out.

    Input: int64 [batch, length]. Output: float32 [batch, dimensions]; zeros for an empty bag.
    """

    def __init__(
        self,
        feature: TransformedFeature,
        dimensions: int,
        l2: float,
        initializer: Initializer,
        mean: bool,
        name: str,
    ) -> None:
        super().__init__(name=name, autocast=False)
        self.features, self.size, self.mean = (feature.name,), feature.size, mean
        self.dimensions, self.l2, self.initializer = dimensions, l2, initializer

    def build(self, _: object) -> None:
        self.table = self.add_weight(
            shape=(self.size, self.dimensions),
            initializer=self.initializer,
            regularizer=keras.regularizers.L2(self.l2) if self.l2 else None,
            name="table",
        )

    def call(self, ids: keras.KerasTensor) -> keras.KerasTensor:
        present = ops.cast(ops.not_equal(ids, 0), self.table.dtype)
        total = ops.sum(ops.take(self.table, ids, axis=0) * present[:, :, None], axis=1)
        if self.mean:
            total /= ops.maximum(ops.sum(present, axis=1, keepdims=True), 1.0)
        return ops.cast(total, self.compute_dtype)


def embedding_dimensions(size: int) -> int:
    """Returns the width of an embedding of ``size`` ids: about twice the fourth root, as a power of two.

    Powers of two make features share a width, and so a table.
    """
    return min(MAX_EMBEDDING, 1 << math.ceil(math.log2(2 * size**0.25)))
