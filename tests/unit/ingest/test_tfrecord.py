"""Damaged or unsuitable TFRecord files."""

from __future__ import annotations

import struct

import google_crc32c
import pytest

from tidemill.errors import DataError


def crc(data: bytes) -> bytes:
    value = google_crc32c.value(data)
    return struct.pack("<I", ((value >> 15 | value << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def framed(data: bytes) -> bytes:
    length = struct.pack("<Q", len(data))
    return length + crc(length) + data + crc(data)


def field(number: int, payload: bytes) -> bytes:
    return bytes([number << 3 | 2, len(payload)]) + payload


def example(**values: list[int] | list[bytes]) -> bytes:
    """Encodes a tf.Example of small integers and short bytes."""
    entries = b""
    for name, items in values.items():
        if items and isinstance(items[0], bytes):
            kind = field(1, b"".join(field(1, item) for item in items))
        else:
            kind = field(3, field(1, bytes(items))) if items else b""
        entries += field(1, field(1, name.encode()) + field(2, kind))
    return field(1, entries)


GOOD = [example(x=[i], y=[i % 2]) for i in range(99)]


def write(path, records: list[bytes]) -> None:
    path.write_bytes(b"".join(framed(record) for record in records))


def test_a_record_that_is_no_example_is_set_aside(ingest, tmp_path):
    write(tmp_path / "t.tfrecord", [*GOOD[:50], b"\xff\xff garbage", *GOOD[50:]])
    result = ingest(tmp_path / "t.tfrecord", gates={"data": {"max_quarantined": 0.05}})
    assert sum(result.report.rows.values()) == 99
    assert [(q["line"], q["kind"]) for q in result.quarantine] == [(51, "not a tf.Example")]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[:-3], "record 99.*cut off"),
        (lambda data: data[: -len(framed(GOOD[-1])) + 5], "record 99.*cut off"),
        (lambda data: data[:20] + bytes([data[20] ^ 1]) + data[21:], "record 1.*data whose checksum"),
        (lambda data: bytes([data[0] ^ 1]) + data[1:], "record 1.*a length whose checksum"),
        (lambda data: b"", "empty"),
    ],
)
def test_damaged_framing_stops_the_run(damage, message, ingest, tmp_path):
    write(tmp_path / "t.tfrecord", GOOD)
    path = tmp_path / "t.tfrecord"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=message):
        ingest(path)


def test_a_feature_of_several_values_is_refused(ingest, tmp_path):
    write(tmp_path / "t.tfrecord", [*GOOD, example(x=[1, 2], y=[1])])
    with pytest.raises(DataError, match="feature 'x' must hold one value per example"):
        ingest(tmp_path / "t.tfrecord")


def test_a_feature_of_two_types_is_refused(ingest, tmp_path):
    write(tmp_path / "t.tfrecord", [*GOOD, example(x=[b"word"], y=[1])])
    with pytest.raises(DataError, match="one type"):
        ingest(tmp_path / "t.tfrecord")


def test_absent_and_empty_features_are_missing(ingest, tmp_path):
    write(tmp_path / "t.tfrecord", [*GOOD, example(x=[], y=[1], void=[]), example(y=[0])])
    result = ingest(tmp_path / "t.tfrecord")
    assert result.report.nulls["x"] == 2
