"""Delimited text as it really comes: quotes, newlines, encodings, and rows that are broken."""

from __future__ import annotations

import csv
import gzip
import io
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tidemill.errors import DataError
from tidemill.ingest import delimited
from tidemill.ingest.delimited import Dialect, read_delimited
from tidemill.ingest.sources import SourceFile

COMMAS = Dialect()


def read(path: Path, dialect: Dialect = COMMAS, types=None) -> tuple[list[dict], list[int], list]:
    """Returns rows, their lines and the faults of a file."""
    file = SourceFile(str(path), path.name, path.stat().st_size)
    blocks = list(read_delimited(file, dialect, types))
    rows = [row for block in blocks for row in block.table.to_pylist()]
    lines = [int(line) for block in blocks for line in block.lines]
    return rows, lines, [fault for block in blocks for fault in block.faults]


@pytest.fixture
def small_blocks(monkeypatch):
    """Cuts files into many blocks, as large files are."""
    monkeypatch.setattr(delimited, "BLOCK_BYTES", 64)


texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.tuples(texts, texts), min_size=1, max_size=30), ending=st.sampled_from(["\n", "\r\n"]))
def test_what_pythons_csv_writes_is_read_as_it_was(rows, ending, tmp_path, small_blocks):
    path = tmp_path / "table.csv"
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator=ending, quoting=csv.QUOTE_ALL)
    writer.writerows([("a", "b"), *rows])
    path.write_bytes(buffer.getvalue().encode())
    got, lines, faults = read(path, types={"a": "string", "b": "string"})
    assert [(row["a"] or "", row["b"] or "") for row in got] == rows
    assert not faults
    expected, line = [], 2
    for row in rows:
        expected.append(line)
        line += 1 + sum(t.count("\n") + t.count("\r") - t.count("\r\n") for t in row)
    assert lines == expected


@pytest.mark.parametrize("rows", [1, 7, 1000])
def test_blocks_are_cut_between_records_whatever_the_quotes(rows, tmp_path, small_blocks):
    path = tmp_path / "t.csv"
    body = "".join(f'{i},"line one\nline ""two"", {i}",5" pipe\n' for i in range(rows))
    path.write_text("n,quoted,stray\n" + body)
    got, lines, faults = read(path)
    assert [row["n"] for row in got] == list(range(rows))
    assert got[-1]["quoted"] == f'line one\nline "two", {rows - 1}'
    assert got[-1]["stray"] == '5" pipe'
    assert lines == [2 + 2 * i for i in range(rows)]
    assert not faults


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("last", [True, False])
def test_any_line_ending_and_a_missing_last_one_will_do(ending, last, tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes(ending.join(["a,b", "1,x", "", "2,y"]).encode() + (ending.encode() if last else b""))
    rows, lines, faults = read(path)
    assert rows == [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]
    assert lines == [2, 4]
    assert not faults


@pytest.mark.parametrize(("encoding", "text"), [("utf-8-sig", "é"), ("latin-1", "é"), ("utf-16", "é"), ("cp1252", "€")])
def test_other_encodings_are_read_when_the_problem_names_them(encoding, text, tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes(f"{text}a,b\n1,{text}\n".encode(encoding))
    rows, _, faults = read(path, Dialect(encoding="utf-8" if "sig" in encoding else encoding))
    assert rows == [{f"{text}a": 1, "b": text}]
    assert not faults


def test_a_tsv_is_delimited_by_tabs(tmp_path):
    (tmp_path / "t.tsv").write_text("a\tb\n1\t\n\t2\n")
    assert read(tmp_path / "t.tsv")[0] == [{"a": 1, "b": None}, {"a": None, "b": 2}]


def test_broken_rows_are_set_aside_with_line_and_reason(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes(b'a,b\n1,x\n\n2\n3,"p\nq"\n4,y,z\n5,\xe9\n6,w\n7,"o\no",p\n')
    rows, lines, faults = read(path)
    assert rows == [{"a": 1, "b": "x"}, {"a": 3, "b": "p\nq"}, {"a": 6, "b": "w"}]
    assert lines == [2, 5, 9]
    assert [(f.line, f.kind) for f in faults] == [
        (4, "wrong number of fields"),
        (7, "wrong number of fields"),
        (8, "undecodable bytes"),
        (10, "wrong number of fields"),
    ]
    assert faults[0].reason == "1 fields, expected 2"
    assert faults[2].text == "5,\\xe9"
    assert "over 2 lines" in faults[3].reason


def test_a_value_that_does_not_fit_its_declared_type_is_set_aside(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("a,b\n1,x\nmany,y\n 3 ,z\n")
    rows, lines, faults = read(path, types={"a": "int64", "b": "string"})
    assert rows == [{"a": 1, "b": "x"}, {"a": 3, "b": "z"}]
    assert lines == [2, 4]
    assert [(f.line, f.reason) for f in faults] == [(3, "a: 'many' is not int64")]


def test_text_stays_as_it_is_though_it_looks_like_something_else(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("flag,day,at\ntrue,2024-01-02,12:30\nfalse,2024-01-03,2024-01-03 10:00:00\n")
    assert read(path)[0][1] == {"flag": "false", "day": "2024-01-03", "at": "2024-01-03 10:00:00"}


def test_all_rows_of_a_block_may_be_broken(tmp_path):
    (tmp_path / "t.csv").write_bytes(b"a,b\n\xff,1\n\xfe,2\n")
    rows, _, faults = read(tmp_path / "t.csv")
    assert not rows
    assert len(faults) == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"\n\n", "first line must hold the column names"),
        (b"a;b\n1;2\n", "holds ';'.*\n.*set ingest.delimiter to \";\""),
        (b"a\tb\n1\t2\n", r"set ingest.delimiter to \"\\t\""),
        (b"a,b,a\n1,2,3\n", "column names must differ.*a more than once"),
        (b"na\xefve,b\n1,2\n", "header is not utf-8"),
        ("a,b\n1,2\n".encode("utf-16"), "UTF-16"),
        (b"a\0,b\n1,2\n", "NUL"),
        (b'a,b\n1,2\n3,"never\n4,5\n', "line 3: a quote is never closed"),
        (b'a,b\n1,5" pipe\n3,"never\n4,5\n', "line 3: a quote is never closed"),
    ],
)
def test_a_file_that_cannot_be_understood_says_why(content, message, tmp_path):
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read(tmp_path / "t.csv")


def test_an_endless_record_is_refused_before_it_fills_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(delimited, "_LARGEST_RECORD", 1000)
    monkeypatch.setattr(delimited, "BLOCK_BYTES", 64)
    (tmp_path / "t.csv").write_text('a,b\n1,"' + "x\n" * 3000)
    with pytest.raises(DataError, match="never closed"):
        read(tmp_path / "t.csv")


@pytest.mark.parametrize("encoding", ["nonsense", "utf-32"])
def test_an_encoding_that_does_not_exist_or_fit_is_refused(encoding, tmp_path):
    (tmp_path / "t.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match=r"encoding|expected utf-32"):
        read(tmp_path / "t.csv", Dialect(encoding=encoding))


def test_a_delimiter_must_be_one_byte(tmp_path):
    (tmp_path / "t.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="ASCII"):
        read(tmp_path / "t.csv", Dialect(delimiter="§"))


def test_damaged_gzip_is_the_datas_fault(tmp_path):
    whole = gzip.compress("".join(f"{i},{i % 7}\n" for i in range(5000)).encode())
    for damaged in (whole[: len(whole) // 2], b"plain", whole[:200] + b"\0" * 50 + whole[250:]):
        (tmp_path / "t.csv.gz").write_bytes(damaged)
        with pytest.raises(DataError, match="gzip"):
            read(tmp_path / "t.csv.gz")


def test_unnamed_columns_get_names_and_names_lose_their_spaces(tmp_path):
    (tmp_path / "t.csv").write_text(",a, b \n0,1,2\n")
    assert read(tmp_path / "t.csv")[0] == [{"unnamed_0": 0, "a": 1, "b": 2}]


def test_null_values_are_those_of_the_problem(tmp_path):
    (tmp_path / "t.csv").write_text("a,b\n1,NA\n?,x\n")
    assert read(tmp_path / "t.csv", Dialect(null_values=("?",)))[0] == [{"a": 1, "b": "NA"}, {"a": None, "b": "x"}]


def test_types_do_not_hang_on_whether_a_block_has_broken_rows(tmp_path):
    body = "a,b,c,d\n1,1.5,x,\n2,2,y,\n"
    (tmp_path / "good.csv").write_text(body)
    (tmp_path / "bad.csv").write_text(body + "broken\n")
    file = [SourceFile(str(tmp_path / n), n, 0) for n in ("good.csv", "bad.csv")]
    schemas = [next(iter(read_delimited(f, Dialect()))).table.schema for f in file]
    assert (
        schemas[0]
        == schemas[1]
        == pa.schema([("a", pa.int64()), ("b", pa.float64()), ("c", pa.string()), ("d", pa.null())])
    )
