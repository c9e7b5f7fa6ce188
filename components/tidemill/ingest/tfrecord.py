"""Reads TFRecord files of tf.Example, through tfx_bsl's decoder, which needs no TensorFlow."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import IO

import google_crc32c
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from tfx_bsl.cc.tfx_bsl_extension.coders import ExamplesToRecordBatchDecoder

from tidemill.errors import DataError
from tidemill.ingest.blocks import Block, Types, natural, typed
from tidemill.ingest.quarantine import EXAMPLE, Fault
from tidemill.ingest.sources import SourceFile

_RECORDS = 65_536
_BYTES = 16 << 20
_HEADER = struct.Struct("<QI")
_CRC = struct.Struct("<I")


def read_tfrecord(file: SourceFile, types: Types | None = None) -> Iterator[Block]:
    """Yields the examples of a file, columns sorted by name; see :func:`read_delimited`.

    Each feature must hold at most one value per example. None is null.

    Raises:
        DataError: if the framing is damaged or a feature holds several values.
    """
    first = 1
    with file.open() as stream:
        for records in _batches(_records(file.name, stream)):
            block = _parse(file.name, records, first)
            yield typed(block, file.name, types) if types is not None else block
            first += len(records)
    if first == 1:
        raise DataError(file.name, "the file is empty", remedy="expected records of tf.Example")


def _records(file: str, stream: IO[bytes]) -> Iterator[bytes]:
    """Yields records. Format: length uint64, its masked crc32c, data, its masked crc32c, little-endian."""
    number = 0
    while header := stream.read(_HEADER.size):
        number += 1
        if len(header) < _HEADER.size:
            raise _damaged(file, number, "cut off")
        length, crc = _HEADER.unpack(header)
        if crc != _masked_crc(header[:8]):
            raise _damaged(file, number, "a length whose checksum differs")
        data, footer = stream.read(length), stream.read(_CRC.size)
        if len(data) < length or len(footer) < _CRC.size:
            raise _damaged(file, number, "cut off")
        if _CRC.unpack(footer)[0] != _masked_crc(data):
            raise _damaged(file, number, "data whose checksum differs")
        yield data


def _masked_crc(data: bytes) -> int:
    crc = int(google_crc32c.value(data))
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _damaged(file: str, record: int, got: str) -> DataError:
    return DataError(file, f"record {record} is not a whole TFRecord", got, "copy the file again")


def _batches(records: Iterator[bytes]) -> Iterator[list[bytes]]:
    batch, size = [], 0
    for record in records:
        batch.append(record)
        size += len(record)
        if len(batch) == _RECORDS or size >= _BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _parse(file: str, records: list[bytes], first: int) -> Block:
    lines, faults = np.arange(first, first + len(records)), []
    decoder = ExamplesToRecordBatchDecoder(None)
    size = sum(map(len, records))
    try:
        decoded = decoder.DecodeBatch(records)
    except RuntimeError:
        good = []
        for i, record in enumerate(records):
            try:
                decoder.DecodeBatch([record])
                good.append(i)
            except RuntimeError as error:
                faults.append(Fault.of_bytes(file, first + i, EXAMPLE, str(error), record))
        records, lines = [records[i] for i in good], lines[good]
        try:
            decoded = decoder.DecodeBatch(records)
        except RuntimeError as error:
            raise DataError(file, "each feature must have one type in all examples", str(error)) from error
    names = sorted(decoded.schema.names)
    table = pa.table([_single(file, name, decoded.column(decoded.schema.names.index(name))) for name in names], names)
    return Block(natural(table), lines, tuple(faults), size)


def _single(file: str, name: str, lists: pa.Array) -> pa.Array:
    """Turns lists of at most one value into values."""
    if pa.types.is_null(lists.type):
        return lists
    lengths = pc.list_value_length(lists)
    if (pc.max(lengths).as_py() or 0) > 1:
        raise DataError(
            file,
            f"feature {name!r} must hold one value per example",
            f"{pc.max(lengths).as_py()}",
            "split it into several features",
        )
    indices = np.cumsum(pc.fill_null(lengths, 0).to_numpy(zero_copy_only=False)) - 1
    filled = pc.equal(pc.fill_null(lengths, 0), 1)
    return lists.flatten().take(pc.if_else(filled, pa.array(indices), pa.scalar(None, pa.int64())))
