"""Strings and integers out of a set, words of a text, and combinations of columns, as ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import tensorflow as tf
import tensorflow_transform as tft

from tidemill.features import Categorical, Text
from tidemill.transform.vocabularies import VocabularySpec, analyse_vocabularies

_SEPARATOR: Final = "\x1f"  # ASCII's unit separator: ("a", "bc") and ("ab", "c") must not be one value


def encode(
    texts: Mapping[str, tf.Tensor],
    features: Mapping[str, tuple[str, Categorical | Text]],
    files: Mapping[str, str],
    alike: Mapping[str, Sequence[str]],
) -> dict[str, tf.Tensor]:
    """Maps tokens to ids by vocabularies of the training split.

    Args:
        texts: tokens by column, string [batch] each; see ``columns.tokens``.
        features: column and feature by the feature's name.
        files: the vocabulary's file by the name of the first feature that it is for.
        alike: by the same name, all the features that share the vocabulary.

    Returns:
        int64 by feature, [batch] for a category and [batch, max_words] for a text. Id 0 is a missing value (or
        padding), the vocabulary's ids follow, then its out-of-vocabulary buckets.
    """
    if not features:
        return {}
    found = {
        name: words(texts[column], feature.max_words) if isinstance(feature, Text) else texts[column]
        for name, (column, feature) in features.items()
    }
    flat = {name: t.flat_values if isinstance(t, tf.RaggedTensor) else t for name, t in found.items()}
    firsts = [name for name in alike if name in features]
    counted = [[flat[name] for name in alike[first]] for first in firsts]
    specs = [_spec(features[first][1], files[first]) for first in firsts]
    paths = analyse_vocabularies([tf.concat(t, 0) if len(t) > 1 else t[0] for t in counted], specs)
    by_name = {name: path for first, path in zip(firsts, paths, strict=True) for name in alike[first]}
    return {name: _look_up(found[name], by_name[name], feature) for name, (_, feature) in features.items()}


def _spec(feature: Categorical | Text, file: str) -> VocabularySpec:
    minimum = feature.min_frequency if isinstance(feature, Categorical) else 1
    return VocabularySpec(file, feature.max_vocabulary, minimum)


def _look_up(found: tf.Tensor | tf.RaggedTensor, path: tf.Tensor, feature: Categorical | Text) -> tf.Tensor:
    ids = tft.apply_vocabulary(found, path, num_oov_buckets=feature.oov_buckets)
    if isinstance(feature, Text):
        return ids.to_tensor(tf.constant(0, tf.int64), shape=[None, feature.max_words])
    return tf.ensure_shape(ids, [None])


def words(texts: tf.Tensor, max_words: int) -> tf.RaggedTensor:
    """Returns the first lower-cased words of each text [batch, None]; a word is a run of letters and digits."""
    lower = tf.strings.lower(texts, encoding="utf-8")
    return tf.strings.split(tf.strings.regex_replace(lower, r"[^\p{L}\p{N}]+", " "))[:, :max_words]


def cross(texts: Sequence[tf.Tensor], hash_buckets: int) -> tf.Tensor:
    """Hashes the combination of tokens [batch] to int64 [batch]; a missing value is a value like any other."""
    return tf.strings.to_hash_bucket_fast(tf.strings.join(texts, _SEPARATOR), hash_buckets)
