"""Numbers, scaled or cut into buckets; all columns share one analyzer of each sort."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import tensorflow as tf
import tensorflow_transform as tft

from tidemill.features import Bucketized, Numeric
from tidemill.transform.moments import analyse_moments

_CONSTANT: Final = 1e-12  # deviation by mean below which a column is constant but for rounding


Alike = Mapping[str, Sequence[str]]
"""By the first of features that are analysed as if they were one: all of them, itself included."""


def scale(columns: Mapping[str, tf.Tensor], features: Mapping[str, Numeric], alike: Alike) -> dict[str, tf.Tensor]:
    """Scales numbers by what the training split holds; a missing number becomes the mean, a constant column 0.

    Args:
        columns: float64 [batch] by feature, NaN where missing, none of them all missing in training.
        features: how each is scaled.
        alike: features that have a mean, deviation and extremes in common.

    Returns:
        float32 [batch] by feature, never NaN or infinite.
    """
    if not columns:
        return {}
    names = list(columns)
    values = tf.stack([_compressed(columns[name], features[name]) for name in names], axis=1)
    moments = analyse_moments(_pooled(values, names, alike))
    mean, deviation, lowest, highest = (_shared(moment, names, alike) for moment in moments)
    deviation = tf.where(deviation > _CONSTANT * tf.abs(mean), deviation, 0.0)
    values = tf.where(tf.math.is_nan(values), mean, values)
    scaled = {
        "z_score": tf.math.divide_no_nan(values - mean, deviation),
        "min_max": tf.math.divide_no_nan(values - lowest, highest - lowest),
        "none": values,
    }
    scaled["log_z_score"] = scaled["z_score"]
    return {name: _float32(scaled[features[name].scale][:, i]) for i, name in enumerate(names)}


def _compressed(values: tf.Tensor, feature: Numeric) -> tf.Tensor:
    return tf.sign(values) * tf.math.log1p(tf.abs(values)) if feature.scale == "log_z_score" else values


def _float32(values: tf.Tensor) -> tf.Tensor:
    limit = tf.float32.max
    return tf.cast(
        tf.clip_by_value(values, tf.constant(-limit, tf.float64), tf.constant(limit, tf.float64)), tf.float32
    )


def bucketize(
    columns: Mapping[str, tf.Tensor], features: Mapping[str, Bucketized], alike: Alike
) -> dict[str, tf.Tensor]:
    """Cuts numbers at the quantiles of the training split.

    Args:
        columns: float64 [batch] by feature, NaN where missing, none of them all missing in training.
        features: the number of buckets of each.
        alike: features that have their boundaries in common.

    Returns:
        int64 [batch] by feature: 0 where missing, otherwise 1 + the bucket, whose lower boundary belongs to it.
    """
    by_buckets = defaultdict(list)
    for name in columns:
        by_buckets[features[name].buckets].append(name)
    ids: dict[str, tf.Tensor] = {}
    for buckets, names in by_buckets.items():
        values = tf.cast(tf.stack([columns[name] for name in names], axis=1), tf.float32)
        # A quantile may be off by a tenth of a bucket.
        pooled = _pooled(values, names, alike)
        boundaries = tft.quantiles(pooled, buckets, epsilon=0.1 / buckets, reduce_instance_dims=False)
        boundaries = _shared(boundaries, names, alike)
        found = tf.searchsorted(boundaries, tf.transpose(values), side="right", out_type=tf.int64)
        found = tf.where(tf.math.is_nan(tf.transpose(values)), tf.constant(0, tf.int64), found + 1)
        ids |= {name: found[i] for i, name in enumerate(names)}
    return ids


def _pooled(values: tf.Tensor, names: Sequence[str], alike: Alike) -> tf.Tensor:
    """Puts columns that are alike below each other.

    Args:
        values: [batch, names].
        names: of the columns.

    Returns:
        [batch * n, firsts of the names]: NaN, which stands for missing, fills up what has fewer than n alike.
    """
    firsts = [first for first in alike if first in names]
    most = max(len(alike[first]) for first in firsts)
    if most == 1:
        return values
    nothing = tf.fill(tf.shape(values)[:1], tf.constant(np.nan, values.dtype))
    by_name = dict(zip(names, tf.unstack(values, axis=1), strict=True))
    columns = [tf.concat([*(by_name[n] for n in alike[f]), *[nothing] * (most - len(alike[f]))], 0) for f in firsts]
    return tf.stack(columns, axis=1)


def _shared(found: tf.Tensor, names: Sequence[str], alike: Alike) -> tf.Tensor:
    """Turns what was found per column of :func:`_pooled` [firsts, …] into what holds per name [names, …]."""
    firsts = [first for first in alike if first in names]
    if len(firsts) == len(names):
        return found
    place = {name: i for i, first in enumerate(firsts) for name in alike[first]}
    return tf.gather(found, [place[name] for name in names])
