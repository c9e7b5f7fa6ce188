"""Pictures in base64, decoded in TensorFlow: by the same code when rows are read, trained on and served.

An error of TensorFlow's decoders would fail the whole batch, and with it the requests of others that a server merged
into it. So each value is decoded by a dataset of its own, which leaves out what it can't decode.
"""

from __future__ import annotations

from typing import Final

import tensorflow as tf

_DATA_URL: Final = r"^data:[^,]*,|[\s=]+"  # with line breaks and padding, none of which is needed


def pixels(texts: tf.Tensor, height: int, width: int, channels: int) -> tf.Tensor:
    """Returns pictures of one size, zeros where a value is missing or unreadable.

    Args:
        texts: string [batch]: JPEG or PNG (or BMP, or the first frame of a GIF) in standard or web-safe base64, with
            or without padding, line breaks and the head of a data URL; or the bytes themselves, which is what
            TensorFlow Serving makes of ``{"b64": …}``.

    Returns:
        float32 [batch, height, width, channels], whole numbers from 0 to 255.
    """
    shape = [height, width, channels]

    def resized(data: tf.Tensor) -> tf.Tensor:
        image = tf.image.resize(_decoded(data, channels), [height, width], antialias=True)
        return tf.ensure_shape(tf.clip_by_value(tf.round(image), 0, 255), shape)

    return _mapped(texts, resized, tf.zeros(shape))


def readable(texts: tf.Tensor) -> tf.Tensor:
    """Tells which values :func:`pixels` can read: bool [batch]."""

    def some(data: tf.Tensor) -> tf.Tensor:
        return tf.size(_decoded(data, 3)) > 0

    return _mapped(texts, some, tf.constant(False))


def _decoded(data: tf.Tensor, channels: int) -> tf.Tensor:
    return tf.io.decode_image(data, channels=channels, expand_animations=False)


def _mapped(texts: tf.Tensor, function: object, otherwise: tf.Tensor) -> tf.Tensor:
    """Applies ``function`` to the bytes of each value; ``otherwise`` where that fails."""
    default = tf.data.Dataset.from_tensors(otherwise)

    def one(data: tf.Tensor) -> tf.data.Dataset:
        return tf.data.Dataset.from_tensors(data).map(function).ignore_errors().concatenate(default).take(1)

    each = tf.data.Dataset.from_tensor_slices(_bytes(texts)).flat_map(one)
    none = tf.data.Dataset.from_tensors(tf.zeros([0, *otherwise.shape], otherwise.dtype))
    # Of no rows there is no batch to be had.
    together = each.batch(tf.maximum(tf.size(texts, tf.int64), 1)).concatenate(none).take(1)
    return tf.ensure_shape(together.get_single_element(), [None, *otherwise.shape])


def _bytes(texts: tf.Tensor) -> tf.Tensor:
    """Decodes base64 [batch]; a value that isn't that stays as it is."""
    plain = tf.strings.regex_replace(texts, _DATA_URL, "")
    safe = tf.strings.regex_replace(tf.strings.regex_replace(plain, r"\+", "-"), "/", "_")
    valid = tf.strings.regex_full_match(safe, "[A-Za-z0-9_-]*") & (tf.strings.length(safe) % 4 != 1)
    return tf.where(valid, tf.io.decode_base64(tf.where(valid, safe, "")), texts)
