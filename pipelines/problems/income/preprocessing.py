"""Features of one's own, as one writes them for tf.Transform. README.md tells how to use them."""

import tensorflow as tf
import tensorflow_transform as tft

CATEGORICAL = ("education", "workclass", "occupation", "marital-status", "relationship", "native-country")


def preprocessing_fn(inputs: dict[str, tf.SparseTensor]) -> dict[str, tf.Tensor]:
    """Turns raw columns (sparse, nothing where a value is missing) into dense features.

    Integers become ids, which the model embeds; floats go into it as they are.
    """
    outputs = {
        name: tft.compute_and_apply_vocabulary(_dense(inputs[name], "missing"), num_oov_buckets=1)
        for name in CATEGORICAL
    }
    age = tf.cast(_dense(inputs["age"], 0), tf.float32)
    hours = tf.cast(_dense(inputs["hours-per-week"], 0), tf.float32)
    capital = tf.cast(_dense(inputs["capital-gain"], 0) - _dense(inputs["capital-loss"], 0), tf.float32)
    outputs["age"] = tft.bucketize(age, num_buckets=16)
    outputs["hours"] = tft.scale_to_z_score(hours)
    outputs["capital"] = tft.scale_to_z_score(tf.sign(capital) * tf.math.log1p(tf.abs(capital)))
    outputs["years_of_schooling"] = tft.scale_to_z_score(tf.cast(_dense(inputs["education-num"], 0), tf.float32))
    return outputs


def _dense(column: tf.SparseTensor, missing: object) -> tf.Tensor:
    """Returns [batch] with ``missing`` where there is no value."""
    filled = tf.sparse.to_dense(
        tf.SparseTensor(column.indices, column.values, [column.dense_shape[0], 1]),
        default_value=tf.constant(missing, column.dtype),
    )
    return tf.squeeze(filled, axis=1)
