"""The rows that are replayed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tidemill.artifacts import ExamplesManifest
from tidemill.errors import DataError
from tidemill.rehearse.rows import is_representable, select_rows

INPUTS = {"age": "float32", "hours": "int64", "job": "string"}


def test_rows_are_spread_and_each_feature_is_missing_in_one(artefacts: Any) -> None:
    rows = select_rows(artefacts.examples, INPUTS, 10)
    positions = [row.position for row in rows]
    assert positions == sorted({0, 13, 26, 40, 53, 66, 79, 93, 106, 119, 17, 50, 77})
    by_position = {row.position: row for row in rows}
    assert by_position[17].instance["age"] is None
    assert by_position[50].instance["hours"] is None
    assert by_position[77].instance["job"] is None
    assert by_position[77].missing == 1
    assert isinstance(by_position[0].instance["age"], float)
    assert by_position[0].instance["job"].endswith("é")


def test_a_small_split_is_replayed_whole_and_nan_becomes_null(artefacts: Any) -> None:
    rows = select_rows(artefacts.examples, INPUTS, 1000)
    assert [row.position for row in rows] == list(range(120))
    assert rows[18].instance["age"] is None


def test_a_feature_that_the_split_lacks_is_missing(artefacts: Any) -> None:
    assert select_rows(artefacts.examples, {**INPUTS, "new": "string"}, 1)[0].instance["new"] is None


def test_integers_stored_as_floats_and_bytes_become_what_the_model_takes(tmp_path: Path) -> None:
    (tmp_path / "test").mkdir()
    table = pa.table({"n": pa.array([3.0]), "b": pa.array([b"\xff"], pa.binary()), "t": pa.array([b"t"], pa.binary())})
    pq.write_table(table, tmp_path / "test" / "part-0.parquet")
    ExamplesManifest({"test": 1}, {}, (), {}).write(tmp_path)
    (row,) = select_rows(tmp_path, {"n": "int64", "b": "string", "t": "string"}, 1)
    assert row.instance == {"n": 3, "b": {"b64": "/w=="}, "t": "t"}


def test_infinite_numbers_cannot_be_sent() -> None:
    assert is_representable({"a": 1.0, "b": None, "c": "inf"})
    assert not is_representable({"a": float("-inf")})
    assert not is_representable({"a": 1e39})


def test_an_empty_split_is_the_datas_fault(tmp_path: Path) -> None:
    ExamplesManifest({"train": 3}, {}, (), {}).write(tmp_path)
    with pytest.raises(DataError, match="must not be empty"):
        select_rows(tmp_path, INPUTS, 5)
