"""Labels and weights as numbers."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from tidemill.artifacts import ExamplesManifest
from tidemill.errors import DataError
from tidemill.evaluate.labels import LabelReader, TrainLabels
from tidemill.problem import parse_problem


def batch(**columns: pa.Array) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict(columns)


@pytest.mark.parametrize(
    ("values", "classes"),
    [
        (pa.array(["no", "yes", "no"]), ("no", "yes")),
        (pa.array([0, 1, 0]), ("0", "1")),
        (pa.array([0.0, 1.0, 0.0]), ("0", "1")),
        (pa.array([0.0, 1.0, 0.0]), ("0.0", "1.0")),
        (pa.array([3, -1, 3]), ("3", "-1")),
    ],
)
def test_classes_are_found_however_they_are_written(values: pa.Array, classes: tuple[str, ...]) -> None:
    assert LabelReader("y", classes, None).labels(batch(y=values)).tolist() == [0.0, 1.0, 0.0]


@pytest.mark.parametrize("value", [None, float("nan"), float("inf")])
def test_a_regression_label_must_be_a_finite_number(value: float | None) -> None:
    with pytest.raises(DataError, match="finite number"):
        LabelReader("y", (), None).labels(batch(y=pa.array([1.0, value])))


@pytest.mark.parametrize("value", [None, -1.0, float("nan")])
def test_a_weight_must_be_a_number_of_0_or_more(value: float | None) -> None:
    reader = LabelReader("y", (), "w")
    with pytest.raises(DataError, match="examples: w: every row needs a weight"):
        reader.weights(batch(y=pa.array([1.0, 2.0]), w=pa.array([1.0, value])))


def test_columns_and_classes_that_are_not_there_are_named() -> None:
    text = yaml.safe_dump(
        {
            "name": "p",
            "task": "binary_classification",
            "label": {"column": "y", "positive": "1"},
            "features": {"x": "numeric"},
            "weight": "w",
        }
    )
    problem = parse_problem(text, "problem.yaml")
    with pytest.raises(DataError, match="the column w is needed"):
        LabelReader.of(problem, ExamplesManifest({}, {"y": "int64"}, ("0", "1"), {}))
    with pytest.raises(DataError, match="two classes or more"):
        LabelReader.of(problem, ExamplesManifest({}, {"y": "int64", "w": "float64"}, ("0",), {}))


def test_the_training_split_is_read_with_its_weights(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    pq.write_table(pa.table({"y": ["a", "b", "b"], "w": [1.0, 2.0, 5.0]}), tmp_path / "train" / "part-00000.parquet")
    found = TrainLabels.read(tmp_path, LabelReader("y", ("a", "b"), "w"))
    assert found.prior.tolist() == [1 / 8, 7 / 8]
    assert found.edges == ()


def test_deciles_of_a_numeric_label_are_bins(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    pq.write_table(pa.table({"y": [float(i) for i in range(101)]}), tmp_path / "train" / "part-00000.parquet")
    found = TrainLabels.read(tmp_path, LabelReader("y", (), None))
    assert found.mean == 50
    assert found.edges == pytest.approx([10, 20, 30, 40, 50, 60, 70, 80, 90])


def test_a_training_split_without_weight_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="rows of positive weight"):
        TrainLabels.read(tmp_path, LabelReader("y", ("a", "b"), None))
