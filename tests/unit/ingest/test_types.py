"""Types come from the whole file, the curated schema or the problem; what is stored is int64, float64 or string."""

from __future__ import annotations

import datetime
import decimal
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tidemill.errors import DataError, ProblemError
from tidemill.ingest import delimited
from tidemill.ingest.casting import conform, normal, widest

UTC = datetime.UTC


def test_the_type_is_that_of_the_last_row_too(ingest, monkeypatch):
    """A float on line 40,000 makes the column float64, a word makes it string; nothing is quarantined."""
    monkeypatch.setattr(delimited, "BLOCK_BYTES", 4096)
    rows = [f"{i},{i},{i},,{i % 2}" for i in range(3000)]
    rows[-1] = "7,12.45,word,,1"
    result = ingest("i,f,s,empty,y\n" + "\n".join(rows) + "\n", features={"f": "numeric", "empty": "numeric"})
    assert result.report.columns == {"i": "int64", "f": "float64", "s": "string", "empty": "float64", "y": "int64"}
    assert result.report.quarantined == 0
    assert result.report.nulls["empty"] == 3000
    assert result.report.empty == ("empty",)
    assert {"0", "2998", "word"} <= set(result.table["s"].to_pylist())


def test_an_all_null_column_without_a_feature_is_kept_as_string(ingest):
    result = ingest("x,void,y\n" + "".join(f"{i},,{i % 2}\n" for i in range(60)))
    assert result.report.columns["void"] == "string"
    assert result.table["void"].null_count == 60


SCHEMA = """
feature { name: "x" type: FLOAT }
feature { name: "zip" type: BYTES }
feature { name: "n" type: INT }
feature { name: "later" type: STRUCT }
"""


def test_the_curated_schema_decides_types_and_the_problem_overrules_it(ingest):
    body = "x,zip,n,y\n" + "".join(f"{i},00{i},{i},{i % 2}\n" for i in range(60))
    result = ingest(body, schema=SCHEMA, ingest={"types": {"n": "string"}})
    assert result.report.columns == {"x": "float64", "zip": "string", "n": "string", "y": "int64"}
    assert "0059" in result.table["zip"].to_pylist()


def test_a_schema_that_is_none_is_the_problems_fault(ingest, rows_csv):
    with pytest.raises(ProblemError, match="not a schema"):
        ingest(rows_csv(60), schema="feature { nome: 1 }")


def test_parquet_types_become_the_stored_ones(ingest, tmp_path):
    n = 60
    day = datetime.date(2024, 2, 29)
    moment = datetime.datetime(2024, 2, 29, 12, 30, 5, tzinfo=UTC)
    table = pa.table(
        {
            "flag": pa.array([i % 3 == 0 for i in range(n)]),
            "small": pa.array(range(n), pa.int8()),
            "unsigned": pa.array(range(n), pa.uint64()),
            "half": pa.array([0.5] * n, pa.float32()).cast(pa.float16()),
            "price": pa.array([decimal.Decimal("1.25")] * n),
            "day": pa.array([day] * n),
            "seconds": pa.array([moment] * n, pa.timestamp("ns", "Europe/Berlin")),
            "micros": pa.array([moment.replace(microsecond=250)] * n, pa.timestamp("us")),
            "word": pa.array(["a", None] * (n // 2)).dictionary_encode(),
            "large": pa.array(["b"] * n, pa.large_string()),
            "octets": pa.array([b"c"] * n, pa.large_binary()),
            "nested": pa.array([{"k": [1, 2]}] * n),
            "void": pa.nulls(n),
            "y": pa.array([i % 2 == 0 for i in range(n)]),
        }
    )
    pq.write_table(table, tmp_path / "t.parquet")
    result = ingest(tmp_path / "t.parquet", features={"small": "numeric"}, label={"column": "y", "positive": "true"})
    row = {k: v for k, v in result.table.to_pylist()[0].items() if k not in ("flag", "small", "unsigned", "word", "y")}
    assert row == {
        "half": 0.5,
        "price": 1.25,
        "day": "2024-02-29",
        "seconds": "2024-02-29T12:30:05Z",
        "micros": "2024-02-29T12:30:05.000250",
        "large": "b",
        "octets": "c",
        "nested": '{"k": [1, 2]}',
        "void": None,
    }
    assert result.report.columns["flag"] == result.report.columns["y"] == "int64"
    assert result.report.classes == ("0", "1")
    assert list(result.report.columns) == table.column_names


def test_a_value_beyond_int64_or_utf8_is_set_aside(ingest, tmp_path):
    big = pa.array([1] * 99 + [2**64 - 1], pa.uint64())
    text = pa.array([b"\xff"] + [b"ok"] * 99)
    pq.write_table(
        pa.table({"x": big, "t": text, "n": range(100), "y": [i % 2 for i in range(100)]}), tmp_path / "t.parquet"
    )
    result = ingest(tmp_path / "t.parquet", gates={"data": {"max_quarantined": 0.05}})
    assert [(q["line"], q["kind"]) for q in result.quarantine] == [
        (1, "undecodable bytes"),
        (100, "value of another type"),
    ]


def test_nan_and_infinities_are_missing_and_counted(ingest):
    body = "x,z,y\n" + "nan,1.5,0\ninf,2.5,1\n-inf,NaN,0\n" + "".join(f"{i}.5,1,{i % 2}\n" for i in range(60))
    result = ingest(body)
    assert result.report.non_finite == {"x": 3, "z": 1}
    assert result.report.nulls["x"] == 3
    assert result.table["x"].null_count == 3


def test_json_lines_keep_their_types_and_join_their_keys(ingest, tmp_path):
    rows = [{"x": i, "y": i % 2, "mixed": i if i % 2 else "a"} for i in range(60)]
    rows[3] |= {"late": 1.5, "deep": {"a": [1, None]}}
    rows[4]["deep"] = "plain"
    rows[5] |= {"late": 2, "big": 2**70, "flag": True}
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = ingest(tmp_path / "t.jsonl")
    assert result.report.columns == {
        "x": "int64",
        "y": "int64",
        "mixed": "string",
        "late": "float64",
        "deep": "string",
        "big": "float64",
        "flag": "int64",
    }
    by_x = {row["x"]: row for row in result.table.to_pylist()}
    assert by_x[3]["deep"] == '{"a": [1, null]}'
    assert by_x[5]["big"] == float(2**70)
    assert by_x[5]["flag"] == 1
    assert by_x[1]["mixed"] == "1"


def test_widening_is_a_lattice():
    order = ("null", "int64", "float64", "string")
    for i, one in enumerate(order):
        for j, other in enumerate(order):
            assert widest(one, other) == order[max(i, j)]


def test_conform_marks_exactly_the_values_that_do_not_fit():
    array, bad = conform(pa.array(["1", " 2 ", "x", None, "2.5"]), "int64")
    assert array.to_pylist() == [1, 2, None, None, None]
    assert bad.tolist() == [False, False, True, False, True]
    assert conform(pa.array([1.0, 2.5]), "int64")[1].tolist() == [False, True]
    assert conform(pa.array([1.0, 2.5]), "string")[0].to_pylist() == ["1", "2.5"]
    assert normal(pa.array([datetime.time(12, 30)])).to_pylist() == ["12:30:00.000000"]


def test_duplicated_columns_in_parquet_are_refused(ingest, tmp_path):
    pq.write_table(pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"]), tmp_path / "t.parquet")
    with pytest.raises(DataError, match="a more than once"):
        ingest(tmp_path / "t.parquet")
