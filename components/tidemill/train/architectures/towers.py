"""Small networks that make a few columns of what isn't one number: images and texts in their order.

``window_sequence`` is for models of the user's own that read windows in order: the families here take the rows of a
window as columns side by side.
"""

from __future__ import annotations

from collections.abc import Mapping

import keras
from keras import layers, ops

from tidemill.train.architectures.tables import embedding_dimensions
from tidemill.train.context import TrainContext
from tidemill.transform.features import TransformedFeature

Inputs = Mapping[str, keras.KerasTensor]
IMAGE_FILTERS = (16, 32, 64)
TEXT_FILTERS = 32
_WORDS_SEEN = 3


def tower_columns(context: TrainContext, inputs: Inputs) -> list[keras.KerasTensor]:
    """Returns what the towers make of each image and of each text that is in order, [batch, filters] each."""
    images = [f for f in context.features if f.kind == "image"]
    texts = [f for f in context.features if f.ordered]
    return [
        *(_image_tower(context, feature, inputs[feature.name], i) for i, feature in enumerate(images)),
        *(_text_tower(context, feature, inputs[feature.name], i) for i, feature in enumerate(texts)),
    ]


def _image_tower(
    context: TrainContext, feature: TransformedFeature, image: keras.KerasTensor, i: int
) -> keras.KerasTensor:
    """Convolutions of 3 x 3, each followed by the maximum of 2 x 2, and the mean over what is left of the picture."""
    image = layers.Rescaling(1 / 127.5, -1, name=f"image_{i}_scaled")(image)
    if feature.flip:
        image = layers.RandomFlip("horizontal", seed=context.training.seed + i, name=f"image_{i}_flip")(image)
    for j, filters in enumerate(IMAGE_FILTERS):
        convolution = layers.Conv2D(
            filters, 3, padding="same", activation="relu", kernel_regularizer=_l2(context), name=f"image_{i}_conv_{j}"
        )
        image = layers.MaxPooling2D(name=f"image_{i}_pool_{j}")(convolution(image))
    return layers.GlobalAveragePooling2D(name=f"image_{i}")(image)


def _text_tower(
    context: TrainContext, feature: TransformedFeature, ids: keras.KerasTensor, i: int
) -> keras.KerasTensor:
    """The strongest answer of each filter to three words in a row. Source: Kim 2014, with one width of filters."""
    width = context.training.embedding_dimensions or embedding_dimensions(feature.size)
    embedding = layers.Embedding(feature.size, width, embeddings_regularizer=_l2(context), name=f"text_{i}_embedding")
    convolution = layers.Conv1D(
        TEXT_FILTERS,
        _WORDS_SEEN,
        padding="same",
        activation="relu",
        kernel_regularizer=_l2(context),
        name=f"text_{i}_conv",
    )
    present = ops.expand_dims(ops.not_equal(ids, 0), -1)
    words = embedding(ids)
    found = convolution(words * ops.cast(present, words.dtype))
    return ops.max(found * ops.cast(present, found.dtype), axis=1)


def window_sequence(context: TrainContext, inputs: Inputs, width: int | None = None) -> keras.KerasTensor:
    """Returns the features of windows as [batch, length, columns], the oldest row first: what a recurrent layer takes.

    The rows of a window share their embeddings. Bags and texts stay out.

    Args:
        width: of an embedding; from the vocabulary's size by default.
    """
    by_name = {feature.name: feature for feature in context.features}
    columns = []
    for i, names in enumerate(context.windows.values()):
        feature, rows = by_name[names[-1]], [inputs[name] for name in names]
        if feature.kind == "dense":
            columns.append(ops.stack([ops.reshape(row, (-1, feature.size)) for row in rows], axis=1))
        elif feature.kind == "ids":
            size = width or context.training.embedding_dimensions or embedding_dimensions(feature.size)
            table = layers.Embedding(feature.size, size, name=f"window_embedding_{i}")
            columns.append(table(ops.stack(rows, axis=1)))
    return layers.Concatenate(name="window")(columns) if len(columns) > 1 else columns[0]


def _l2(context: TrainContext) -> keras.regularizers.Regularizer | None:
    return keras.regularizers.L2(context.training.l2) if context.training.l2 else None
