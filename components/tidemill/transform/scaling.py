"""Numbers, scaled or cut into buckets; all columns share one analyzer of each sort."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Final

import tensorflow as tf
import tensorflow_transform as tft

from tidemill.features import Bucketized, Numeric
from tidemill.transform.moments import analyse_moments

_CONSTANT: Final = 1e-12  # deviation by mean below which a column is constant but for rounding


def scale(columns: Mapping[str, tf.Tensor], features: Mapping[str, Numeric]) -> dict[str, tf.Tensor]:
    """Scales numbers by what the training split holds; a missing number becomes the mean, a constant column 0.

    Args:
        columns: float64 [batch] by feature, NaN where missing, none of them all missing in training.
        features: how each is scaled.

    Returns:
        float32 [batch] by feature, never NaN or infinite.
    """
    if not columns:
        return {}
    names = list(columns)
    values = tf.stack([_compressed(columns[name], features[name]) for name in names], axis=1)
    mean, deviation, lowest, highest = analyse_moments(values)
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


def bucketize(columns: Mapping[str, tf.Tensor], features: Mapping[str, Bucketized]) -> dict[str, tf.Tensor]:
    """Cuts numbers at the quantiles of the training split.

    Args:
        columns: float64 [batch] by feature, NaN where missing, none of them all missing in training.
        features: the number of buckets of each.

    Returns:
        int64 [batch] by feature: 0 where missing, otherwise 1 + the bucket, whose lower boundary belongs to it.
    """
    alike = defaultdict(list)
    for name in columns:
        alike[features[name].buckets].append(name)
    ids: dict[str, tf.Tensor] = {}
    for buckets, names in alike.items():
        values = tf.cast(tf.stack([columns[name] for name in names], axis=1), tf.float32)
        # A quantile may be off by a tenth of a bucket.
        boundaries = tft.quantiles(values, buckets, epsilon=0.1 / buckets, reduce_instance_dims=False)
        found = tf.searchsorted(boundaries, tf.transpose(values), side="right", out_type=tf.int64)
        found = tf.where(tf.math.is_nan(tf.transpose(values)), tf.constant(0, tf.int64), found + 1)
        ids |= {name: found[i] for i, name in enumerate(names)}
    return ids
