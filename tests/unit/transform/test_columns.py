"""Raw columns on their way to TensorFlow."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tensorflow as tf

from tidemill.instances import MISSING
from tidemill.transform.columns import (
    MISSING_TOKEN,
    Presence,
    count_present,
    dense,
    list_batch,
    numbers,
    read_batches,
    tokens,
)
from tidemill.transform.graph import sparse_column


def sparse(values, dtype):
    """A column of the type that tf.Transform passes, in which None is missing."""
    there = [i for i, value in enumerate(values) if value is not None]
    indices = np.array([[i, 0] for i in there], np.int64).reshape(-1, 2)
    return tf.SparseTensor(indices, tf.constant([values[i] for i in there], dtype), [len(values), 1 if there else 0])


def test_lists_leave_out_what_the_serving_signature_could_not_tell_from_missing():
    batch = pa.record_batch(
        {"s": ["x", "", None], "f": [1.5, float("nan"), None], "i": pa.array([1, MISSING["int64"], None], pa.int64())}
    )
    listed = list_batch(batch, {"s": "string", "f": "float32", "i": "int64"})
    assert listed.schema.names == ["f", "i", "s"], "sorted, or tf.Transform refuses the batch"
    assert listed.to_pydict() == {"f": [[1.5], [], []], "i": [[1], [], []], "s": [[b"x"], [], []]}


def test_infinity_is_there_for_user_code_but_not_counted_as_a_value(tmp_path):
    pq.write_table(pa.table({"f": [1.0, float("inf"), float("nan"), None, 1e300]}), tmp_path / "a.parquet")
    assert count_present([tmp_path / "a.parquet"] * 2, {"f": "float32"}) == {"f": Presence(rows=10, present=2)}
    (batch,) = read_batches(tmp_path / "a.parquet", ["f"])
    assert list_batch(batch, {"f": "float32"})["f"].to_pylist() == [[1.0], [float("inf")], [], [], [float("inf")]]


def test_sentinels_become_absent_values():
    for dtype, values in (("string", [b"x", b""]), ("float32", [1.5, np.nan]), ("int64", [0, MISSING["int64"]])):
        column = sparse_column(tf.constant(values, dtype), dtype)
        assert column.indices.numpy().tolist() == [[0, 0]]
        assert column.values.numpy().tolist() == values[:1]
        assert column.dense_shape.numpy().tolist() == [2, 1]


def test_dense_columns_have_a_value_in_every_row_even_when_none_is_there():
    assert dense(sparse([None, None], tf.string), "none").numpy().tolist() == [b"none", b"none"]
    assert dense(sparse([None, "b"], tf.string), "none").numpy().tolist() == [b"none", b"b"]


def test_numbers_keep_large_integers_and_drop_infinities():
    large = 2**53 - 1
    assert numbers(sparse([large, None], tf.int64)).numpy()[0] == large
    assert np.isnan(numbers(sparse([float("inf"), None], tf.float32)).numpy()).all()


def test_tokens_of_numbers_and_strings():
    missing = MISSING_TOKEN.encode()
    assert tokens(sparse([3, None, -1], tf.int64)).numpy().tolist() == [b"3", missing, b"-1"]
    floats = tokens(sparse([1.0, None, float("nan"), 2.5], tf.float32)).numpy().tolist()
    assert floats == [b"1", missing, missing, b"2.5"]
    assert tokens(sparse(["a", "", None], tf.string)).numpy().tolist() == [b"a", missing, missing]
