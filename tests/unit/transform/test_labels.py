"""Labels and weights as numbers."""

from __future__ import annotations

import pyarrow as pa
import pytest

from tidemill.errors import DataError
from tidemill.transform.labels import encode_label, encode_weight


@pytest.mark.parametrize(
    "column",
    [pa.array(["no", "yes", "perhaps"]), pa.array([0, 1, 2]), pa.array([0.0, 1.0, 0.5])],
    ids=["string", "int64", "float64"],
)
def test_binary_labels_are_one_for_the_positive_class_only(column):
    classes = ("no", "yes") if pa.types.is_string(column.type) else ("0", "1")
    labels = encode_label(column, "y", "binary_classification", classes)
    assert labels.type == pa.float32()
    assert labels.to_pylist() == [0, 1, 0]


def test_the_positive_class_of_a_float_column_may_be_written_as_an_integer_or_not():
    for positive in ("1", "1.0"):
        labels = encode_label(pa.array([1.0, 0.0]), "y", "binary_classification", ("0", positive))
        assert labels.to_pylist() == [1, 0]


def test_multiclass_labels_are_indices_of_the_classes():
    assert encode_label(pa.array(["c", "a"]), "y", "multiclass_classification", ("a", "b", "c")).to_pylist() == [2, 0]
    assert encode_label(pa.array([30, 10]), "y", "multiclass_classification", ("10", "20", "30")).to_pylist() == [2, 0]


def test_a_label_that_is_no_class_is_named():
    with pytest.raises(DataError, match=r"label y: must be one of a, b \(got 'z'\)"):
        encode_label(pa.array(["a", "z", "z"]), "y", "multiclass_classification", ("a", "b"))


def test_regression_labels_are_float32():
    labels = encode_label(pa.array([1, 2]), "y", "regression", ())
    assert labels.type == pa.float32()
    assert labels.to_pylist() == [1, 2]


@pytest.mark.parametrize(
    ("column", "said"),
    [
        (pa.array([1.0, None]), "1 missing"),
        (pa.array([1.0, float("nan")]), "must be finite"),
        (pa.array(["dear"]), "must be a number"),
    ],
)
def test_a_label_that_is_no_number_stops_regression(column, said):
    with pytest.raises(DataError, match=said):
        encode_label(column, "y", "regression", ())


def test_weights():
    assert encode_weight(pa.array([0, 2]), "w").to_pylist() == [0, 2]
    assert encode_weight(pa.array([], pa.float64()), "w").to_pylist() == []
    for column, said in ((pa.array([-1.0]), r"must not be negative \(got -1"), (pa.array([None, 1.0]), "1 missing")):
        with pytest.raises(DataError, match=said):
            encode_weight(column, "w")
