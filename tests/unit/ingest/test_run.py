"""The stage as a whole: what it writes, what it counts, and how it ends when the data is not good enough."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tidemill.errors import DataError
from tidemill.files import digest_tree
from tidemill.ingest import delimited, division, readers
from tidemill.ingest.run import run


def test_the_manifest_vouches_for_every_file(ingest, rows_csv):
    result = ingest(rows_csv(500))
    manifest = result.manifest
    assert manifest.rows == result.report.rows
    assert sum(manifest.rows.values()) == 500
    assert manifest.columns == {"x": "int64", "y": "int64"}
    assert manifest.source == {
        "uri": result.report.source["uri"],
        "fingerprint": result.report.source["fingerprint"],
        "rows": 500,
    }
    on_disk = {p.relative_to(result.directory).as_posix() for p in result.directory.rglob("*.parquet")}
    assert on_disk == set(manifest.files)
    for name, facts in manifest.files.items():
        content = (result.directory / name).read_bytes()
        assert facts["sha256"] == hashlib.sha256(content).hexdigest()
        assert facts["bytes"] == len(content)
        assert facts["rows"] == pq.read_metadata(result.directory / name).num_rows
    json.dumps(dataclasses.asdict(result.report))


@pytest.mark.parametrize("method", ["hash", "random"])
def test_the_same_input_gives_the_same_bytes(method, ingest, rows_csv, monkeypatch):
    monkeypatch.setattr(delimited, "BLOCK_BYTES", 512)
    monkeypatch.setattr(readers, "_BATCH_BYTES", 1024)
    first = ingest(rows_csv(2000), to="a", split={"method": method})
    second = ingest(rows_csv(2000), to="b", split={"method": method})
    assert len(first.manifest.files) > 20
    assert digest_tree(first.directory) == digest_tree(second.directory)


def test_row_groups_have_a_fixed_size_and_columns_the_order_of_the_source(ingest, rows_csv, monkeypatch):
    monkeypatch.setattr(division, "_ROW_GROUP", 100)
    result = ingest("b,x,a,y\n" + "".join(f"w{i},{i},{i / 2},{i % 2}\n" for i in range(700)))
    (part,) = (result.directory / "train").glob("part-*.parquet")
    metadata = pq.read_metadata(part)
    sizes = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
    assert sizes[:-1] == [100] * (len(sizes) - 1)
    assert pq.read_schema(part).names == ["b", "x", "a", "y"]


def test_what_was_there_is_replaced_and_survives_a_failure(ingest, rows_csv):
    good = ingest(rows_csv(100))
    before = digest_tree(good.directory)
    with pytest.raises(DataError):
        ingest("x,y\n1,1\n2,1\n")
    assert digest_tree(good.directory) == before
    assert [p.name for p in good.directory.parent.iterdir() if "partial" in p.name] == []
    ingest(rows_csv(120))
    assert sum(good.manifest.rows.values()) == 120


def test_refused_rows_are_counted_by_reason_up_to_the_limit(ingest, rows_csv):
    broken = rows_csv(300) + "1,2,3\n,\n301,0\n"
    limit = {"data": {"max_quarantined": 0.01}}
    result = ingest(broken, gates=limit)
    assert result.report.quarantined == result.manifest.quarantined == 2
    assert result.report.reasons == {"wrong number of fields": 1, "no label": 1}
    assert result.report.source["rows"] == 303
    assert {(q["file"], q["line"]) for q in result.quarantine} == {("table.csv", 302), ("table.csv", 303)}
    with pytest.raises(DataError) as failure:
        ingest(broken + "1,\n2,\n", gates=limit)
    assert "1.31%: 4 of 305 rows" in str(failure.value)
    assert "table.csv, line 303: no label" in str(failure.value)
    assert failure.value.exit_code == 4


def test_a_wrong_encoding_is_recognised_by_its_many_broken_rows(ingest):
    body = "x,name,y\n" + "".join(f"{i},Müller,{i % 2}\n" for i in range(100))
    with pytest.raises(DataError, match=r"byte 0xfc is not utf-8(.|\n)*set ingest.encoding"):
        ingest(body.encode("latin-1"))
    result = ingest(body.encode("latin-1"), ingest={"encoding": "latin-1"})
    assert set(result.table["name"].to_pylist()) == {"Müller"}


def test_a_value_of_another_type_than_declared_is_counted_too(ingest, rows_csv):
    body = rows_csv(200) + "many,1\n"
    result = ingest(body, ingest={"types": {"x": "int64"}})
    assert result.report.reasons == {"value of another type": 1}
    assert result.quarantine[0]["line"] == 202


@pytest.mark.parametrize(
    ("content", "message"),
    [("x,y\n", "holds no rows.*only the columns x, y"), ("", "empty"), ("x;y\n1;2\n", "holds ';'")],
)
def test_a_table_without_rows_or_columns_is_refused(content, message, ingest):
    with pytest.raises(DataError, match=message):
        ingest(content)


def test_files_whose_headers_differ_are_refused_and_a_file_of_a_header_alone_is_not(ingest, rows_csv, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    (data / "a.csv").write_text(rows_csv(100))
    (data / "b.csv").write_text("y,x\n")
    (data / "c.csv").write_text("y,x\n1,500\n")
    assert sum(ingest(data).report.rows.values()) == 101
    (data / "d.csv").write_text("x,z\n1,1\n")
    with pytest.raises(DataError, match=r"d\.csv: expected the columns of a\.csv \(got lacks y and has z too\)"):
        ingest(data)


@pytest.mark.parametrize("keep", [0, 3, 0.5, 0.95])
def test_a_truncated_parquet_file_is_recognised(keep, ingest, tmp_path):
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"x": range(1000), "y": [i % 2 for i in range(1000)]}), path)
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content)) if keep < 1 else keep])
    with pytest.raises(DataError, match="not a whole Parquet file"):
        ingest(path)


def test_a_damaged_page_is_the_datas_fault(ingest, tmp_path):
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"x": [f"{i * 7919}" for i in range(5000)], "y": [i % 2 for i in range(5000)]}), path)
    content = bytearray(path.read_bytes())
    content[200:1200] = bytes(1000)
    path.write_bytes(content)
    with pytest.raises(DataError, match="not a whole Parquet file"):
        ingest(path, features={"x": "categorical"})


def test_bad_json_lines_are_set_aside_one_by_one(ingest, tmp_path):
    good = "".join(json.dumps({"x": i, "y": i % 2}) + "\n" for i in range(98))
    bad = b'{"x": 1,\n[1, 2]\n\n{"x": "\xff", "y": 1}\n{"x": NaN, "y": 1}\n{}\n{"x": 1, "y": 1, "z": "\\ud800"}\n'
    (tmp_path / "t.jsonl").write_bytes(b"\xef\xbb\xbf" + good.encode() + bad)
    result = ingest(tmp_path / "t.jsonl", gates={"data": {"max_quarantined": 0.1}})
    assert [(q["line"], q["kind"]) for q in result.quarantine] == [
        (99, "not valid JSON"),
        (100, "not valid JSON"),
        (102, "undecodable bytes"),
        (104, "not valid JSON"),
        (105, "undecodable bytes"),
    ]
    assert result.report.non_finite == {"x": 1}
    (tmp_path / "t.jsonl").write_text("")
    with pytest.raises(DataError, match="empty"):
        ingest(tmp_path / "t.jsonl")


def test_a_json_array_on_one_line_is_refused_before_it_fills_the_memory(ingest, tmp_path, monkeypatch):
    monkeypatch.setattr("tidemill.ingest.jsonlines._LONGEST_LINE", 100)
    monkeypatch.setattr("tidemill.ingest.jsonlines.BLOCK_BYTES", 64)
    (tmp_path / "t.jsonl").write_text(json.dumps([{"x": i} for i in range(100)]))
    with pytest.raises(DataError, match="one object per line"):
        ingest(tmp_path / "t.jsonl")


def test_constant_and_empty_columns_are_allowed_and_reported(ingest):
    result = ingest("x,one,none,y\n" + "".join(f"{i},7,,{i % 2}\n" for i in range(100)))
    assert result.report.constant == ("one",)
    assert result.report.empty == ("none",)
    assert result.report.nulls == {"x": 0, "one": 0, "none": 100, "y": 0}


def test_a_full_disk_is_the_platforms_fault(ingest, rows_csv, monkeypatch):
    """The error crosses Beam as what it is, so that the stage can tell it from a defect."""

    def refuse(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device", "part")

    monkeypatch.setattr(division.pq, "write_table", refuse)
    with pytest.raises(OSError, match="No space left") as failure:
        ingest(rows_csv(100))
    assert failure.value.errno == errno.ENOSPC


def test_another_error_in_a_worker_is_not_taken_for_the_users(ingest, rows_csv, monkeypatch):
    def fail(*_, **__):
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr(division.pq, "write_table", fail)
    with pytest.raises(Exception, match="a defect") as failure:
        ingest(rows_csv(100))
    assert not isinstance(failure.value, DataError)


def test_the_batch_size_bounds_what_is_held(ingest, rows_csv, monkeypatch):
    """Batches are cut by bytes, so a longer file makes more of them and none larger."""
    monkeypatch.setattr(delimited, "BLOCK_BYTES", 1024)
    monkeypatch.setattr(readers, "_BATCH_BYTES", 4096)
    for count in (1000, 3000):
        rows = [facts["rows"] for facts in ingest(rows_csv(count)).manifest.files.values()]
        assert len(rows) > count / 1000
        assert max(rows) < 1000


def test_paths_may_be_given_as_the_component_gives_them(bundle_of, rows_csv, tmp_path):
    (tmp_path / "t.csv").write_text(rows_csv(100))
    report = run(str(bundle_of()), str(tmp_path / "t.csv"), "anything", str(tmp_path / "examples"), "direct")
    assert report.source["fingerprint"] == "anything"
