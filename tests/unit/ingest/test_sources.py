"""Every kind of source gives the same rows; what cannot be read is told clearly."""

from __future__ import annotations

import gzip
import json
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import google_crc32c
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from tidemill.errors import DataError, PlatformError
from tidemill.ingest.fingerprint import fingerprint
from tidemill.ingest.sources import bigquery_table, list_files

ROWS = [
    {"x": i, "amount": i / 4, "colour": ["red", "blue", None][i % 3], "note": f'a "b", {i}\nend', "y": i % 2}
    for i in range(60)
]
TABLE = pa.Table.from_pylist(ROWS)


def write_csv(path: Path, table: pa.Table = TABLE) -> None:
    pa.csv.write_csv(table, path)


def write_json_lines(path: Path) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))


def write_tfrecord(path: Path, rows: list[dict] = ROWS) -> None:
    path.write_bytes(b"".join(framed(example(row)) for row in rows))


def framed(data: bytes) -> bytes:
    def crc(part: bytes) -> bytes:
        value = google_crc32c.value(part)
        return struct.pack("<I", ((value >> 15 | value << 17) + 0xA282EAD8) & 0xFFFFFFFF)

    length = struct.pack("<Q", len(data))
    return length + crc(length) + data + crc(data)


def example(row: dict) -> bytes:
    """Encodes a tf.Example by hand (protobuf wire format), independently of the decoder under test."""
    entries = b"".join(field(1, field(1, name.encode()) + field(2, feature(v))) for name, v in row.items())
    return field(1, entries)


def feature(value: object) -> bytes:
    if value is None:
        return b""
    if isinstance(value, str):
        return field(1, field(1, value.encode()))
    if isinstance(value, float):
        return field(2, field(1, struct.pack("<f", value)))
    return field(3, field(1, varint(int(value))))


def field(number: int, payload: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(payload)) + payload


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def zipped(write: Callable[[Path], None]) -> Callable[[Path], None]:
    def both(path: Path) -> None:
        plain = path.with_name("plain")
        write(plain)
        path.write_bytes(gzip.compress(plain.read_bytes()))
        plain.unlink()

    return both


FORMATS = {
    "table.csv": write_csv,
    "table.csv.gz": zipped(write_csv),
    "table.jsonl": write_json_lines,
    "table.ndjson.gz": zipped(write_json_lines),
    "table.parquet": lambda path: pq.write_table(TABLE, path),
    "table.tfrecord": write_tfrecord,
    "data_tfrecord-00000-of-00001.gz": zipped(write_tfrecord),
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_yields_the_same_rows_and_splits(name, ingest, tmp_path):
    FORMATS[name](tmp_path / name)
    result = ingest(tmp_path / name)
    assert sorted(result.table.to_pylist(), key=lambda row: row["x"]) == ROWS
    assert result.report.columns == {
        "x": "int64",
        "amount": "float64",
        "colour": "string",
        "note": "string",
        "y": "int64",
    }
    reference = ingest_reference(ingest, tmp_path)
    for split in ("train", "eval", "test"):
        assert sorted(result.split(split)["x"].to_pylist()) == reference[split]


def ingest_reference(ingest, tmp_path):
    write_csv(tmp_path / "reference.csv")
    result = ingest(tmp_path / "reference.csv", to="reference")
    return {split: result.split(split)["x"].to_pylist() for split in ("train", "eval", "test")}


def test_a_directory_and_a_glob_join_their_files_in_the_order_of_names(ingest, tmp_path):
    data = tmp_path / "data"
    (data / "sub").mkdir(parents=True)
    write_csv(data / "b.csv", TABLE.slice(20, 20))
    write_csv(data / "a.csv", TABLE.slice(0, 20))
    write_csv(data / "sub" / "c.csv", TABLE.slice(40))
    (data / "_SUCCESS").write_text("")
    (data / "README.md").write_text("not a table")
    whole = ingest(data)
    assert whole.report.source["files"] == 3
    assert whole.split("train")["x"].to_pylist() == ingest_reference(ingest, tmp_path)["train"]
    globbed = ingest(Path(f"{data}/*.csv"))
    assert sorted(globbed.table["x"].to_pylist()) == list(range(40))


def test_a_uri_is_read_through_fsspec(ingest, tmp_path):
    import fsspec

    write_csv(tmp_path / "local.csv")
    memory = fsspec.filesystem("memory")
    memory.pipe("/bucket/data/table.csv", (tmp_path / "local.csv").read_bytes())
    from tidemill.ingest.run import run

    bundle = ingest(tmp_path / "local.csv") and next((tmp_path / "bundles").glob("*.zip"))
    first = fingerprint("memory://bucket/data")
    for uri in ("memory://bucket/data/table.csv", "memory://bucket/data", "memory://bucket/data/*.csv"):
        report = run(bundle, uri, fingerprint(uri), tmp_path / "remote")
        assert sum(report.rows.values()) == 60
    memory.pipe("/bucket/data/table.csv", b"x,y\n1,2\n")
    assert fingerprint("memory://bucket/data") != first
    with pytest.raises(DataError, match="no such file"):
        list_files("memory://bucket/nothing.csv")


def test_an_unknown_scheme_is_the_users_fault_and_an_unreachable_store_the_platforms(tmp_path, monkeypatch):
    with pytest.raises(DataError, match="no filesystem"):
        list_files("nonsense://bucket/table.csv")
    import fsspec.implementations.memory as memory

    def refuse(*_):
        raise ConnectionError("refused")

    monkeypatch.setattr(memory.MemoryFileSystem, "isdir", refuse)
    with pytest.raises(PlatformError, match="refused"):
        list_files("memory://bucket/data")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nothing.csv", "no such file"),
        ("empty", "no such file, directory"),
        ("words.txt", "expected CSV"),
        ("mixed", "csv and parquet"),
    ],
)
def test_what_cannot_be_a_source_is_named(source, message, ingest, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "words.txt").write_text("x,y\n")
    (tmp_path / "mixed").mkdir()
    write_csv(tmp_path / "mixed" / "a.csv")
    pq.write_table(TABLE, tmp_path / "mixed" / "b.parquet")
    with pytest.raises(DataError, match=message):
        ingest(tmp_path / source)


def test_the_name_of_a_bigquery_table_is_understood_or_refused():
    assert bigquery_table("bq://my-project.sales.orders") == "my-project:sales.orders"
    assert bigquery_table("bq://example.com:my-project.sales.orders") == "example.com:my-project:sales.orders"
    with pytest.raises(DataError, match=r"bq://project\.dataset\.table"):
        bigquery_table("bq://orders")


def test_the_fingerprint_follows_names_and_bytes_and_nothing_else(tmp_path):
    first, second = tmp_path / "a", tmp_path / "b"
    for directory in (first, second):
        directory.mkdir()
        write_csv(directory / "table.csv")
    assert fingerprint(str(first)) == fingerprint(str(second))
    before, stat = fingerprint(str(first)), (first / "table.csv").stat()
    content = bytearray((first / "table.csv").read_bytes())
    content[-2] ^= 1
    (first / "table.csv").write_bytes(content)
    import os

    os.utime(first / "table.csv", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert fingerprint(str(first)) != before, "neither size nor time changed, but the content did"
    (second / "table.csv").rename(second / "other.csv")
    assert fingerprint(str(second)) != before
    assert fingerprint("bq://p.d.t").startswith("name:")
    with pytest.raises(DataError):
        fingerprint(str(tmp_path / "nothing.csv"))


def test_a_source_that_changed_since_the_run_was_submitted_is_refused(bundle_of, tmp_path):
    from tidemill.ingest.run import run

    write_csv(tmp_path / "t.csv")
    submitted = fingerprint(str(tmp_path / "t.csv"))
    run(bundle_of(), str(tmp_path / "t.csv"), submitted, tmp_path / "examples")
    (tmp_path / "t.csv").write_bytes((tmp_path / "t.csv").read_bytes() + b"61,1,red,n,1\n")
    with pytest.raises(DataError, match="changed since"):
        run(bundle_of(), str(tmp_path / "t.csv"), submitted, tmp_path / "examples")


def test_fingerprint_and_suggestion_import_nothing_heavy():
    code = (
        "import sys, tidemill.ingest.fingerprint, tidemill.ingest.suggestion\n"
        "heavy = {'pyarrow', 'pandas', 'numpy', 'apache_beam', 'fsspec', 'tensorflow'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)


def test_ingest_does_not_import_tensorflow():
    code = "import sys, tidemill.ingest.run, tidemill.ingest.tfrecord\nassert 'tensorflow' not in sys.modules"
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)
