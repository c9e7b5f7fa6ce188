"""Raw rows and their serving encoding agree, nulls included. Needs numpy and pyarrow."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from tidemill.instances import MISSING, arrays_from_batch

INT_NULL = np.iinfo(np.int64).min


def encode(column: pa.Array, dtype: str) -> np.ndarray:
    return arrays_from_batch(pa.RecordBatch.from_arrays([column], ["x"]), {"x": dtype})["x"]


@pytest.mark.parametrize(
    ("column", "dtype", "expected"),
    [
        (pa.array([1, None, -3], pa.int64()), "int64", [1, INT_NULL, -3]),
        (pa.array([True, None]), "int64", [1, INT_NULL]),
        (pa.array([1.5, None], pa.float64()), "float32", [1.5, np.nan]),
        (pa.array([1, None], pa.int64()), "float32", [1.0, np.nan]),
        (pa.array(["é", None, ""]), "string", ["é".encode(), b"", b""]),
        (pa.array([b"\xff", None]), "string", [b"\xff", b""]),
        (pa.array([], pa.string()), "string", []),
        (pa.array([None, None], pa.null()), "float32", [np.nan, np.nan]),
    ],
)
def test_a_column_becomes_an_array_with_a_mark_for_each_null(column, dtype, expected):
    array = encode(column, dtype)
    assert array.dtype == (object if dtype == "string" else np.dtype(dtype))
    np.testing.assert_array_equal(array, np.array(expected, dtype=array.dtype))


def test_large_integers_keep_every_digit():
    big = 2**53 + 1
    assert encode(pa.array([big, None], pa.int64()), "int64").tolist() == [big, INT_NULL]


def test_a_column_that_is_absent_is_all_missing():
    batch = pa.RecordBatch.from_arrays([pa.array([1, 2])], ["x"])
    arrays = arrays_from_batch(batch, {"a": "float32", "b": "int64", "c": "string"})
    assert np.isnan(arrays["a"]).all()
    assert arrays["b"].tolist() == [INT_NULL] * 2
    assert arrays["c"].tolist() == [b""] * 2
    assert [arrays[name].dtype for name in "abc"] == [np.float32, np.int64, object]


def test_tables_of_several_chunks_and_slices_are_encoded_alike():
    table = pa.table({"x": pa.chunked_array([[1, None], [3]]), "s": pa.chunked_array([["a"], [None, "c"]])})
    inputs = {"x": "int64", "s": "string"}
    whole = arrays_from_batch(table, inputs)
    assert whole["x"].tolist() == [1, INT_NULL, 3]
    assert whole["s"].tolist() == [b"a", b"", b"c"]
    assert arrays_from_batch(table.slice(1), inputs)["x"].tolist() == [INT_NULL, 3]


def test_only_the_inputs_are_encoded_and_in_their_order():
    table = pa.table({"a": [1], "b": [2], "unused": ["z"]})
    assert list(arrays_from_batch(table, {"b": "int64", "a": "float32"})) == ["b", "a"]


def test_every_dtype_has_a_mark_that_no_real_value_uses():
    assert np.isnan(MISSING["float32"])
    assert MISSING["int64"] == INT_NULL
    assert MISSING["string"] == b""
