"""What the readers yield: consecutive rows of one file, with the lines they stand on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO

import numpy as np
import pyarrow as pa

from tidemill.errors import DataError
from tidemill.ingest.casting import ARROW, ColumnType, conform, normal
from tidemill.ingest.quarantine import TYPE, UNDECODABLE, Fault

BLOCK_BYTES = 16 << 20
"""Bytes of (decompressed) text, or of records, that are parsed at a time."""

Types = Mapping[str, ColumnType]


@dataclass(frozen=True)
class Block:
    """Rows that were read together.

    Attributes:
        table: the rows. Columns have a stored type, or are null or binary while types are being inferred.
        lines: the 1-based line (or record) of each row, [rows].
        faults: the rows that could not be read.
        size: bytes of the file that were read for it.
    """

    table: pa.Table
    lines: Sequence[int] | np.ndarray
    faults: tuple[Fault, ...]
    size: int


def check_names(file: str, names: Sequence[str]) -> None:
    """Raises DataError if columns of a file have the same name."""
    twice = sorted({name for name in names if list(names).count(name) > 1})
    if twice:
        raise DataError(file, "column names must differ", f"{', '.join(twice)} more than once", "rename the columns")


def typed(block: Block, file: str, types: Types) -> Block:
    """Brings a block to the given columns and types; rows with a value that doesn't fit become faults."""
    arrays, faults, refused = [], list(block.faults), np.zeros(block.table.num_rows, dtype=bool)
    for name, target in types.items():
        if name not in block.table.column_names:
            arrays.append(pa.nulls(block.table.num_rows, ARROW[target]))
            continue
        column = one_chunk(block.table.column(name))
        fitted, bad = conform(column, target)
        arrays.append(fitted)
        for row in np.flatnonzero(bad & ~refused):
            faults.append(_misfit(file, int(block.lines[row]), name, target, column[int(row)].as_py()))
        refused |= bad
    table = pa.table(arrays, names=list(types))
    if not refused.any():
        return Block(table, block.lines, block.faults, block.size)
    kept = np.flatnonzero(~refused)
    faults.sort(key=lambda fault: fault.line)
    return Block(table.take(kept), np.asarray(block.lines)[kept], tuple(faults), block.size)


def natural(table: pa.Table) -> pa.Table:
    """Brings every column to the stored type that comes naturally to it."""
    return pa.table([normal(one_chunk(column)) for column in table.columns], names=table.column_names)


def one_chunk(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _misfit(file: str, line: int, column: str, target: ColumnType, value: object) -> Fault:
    if isinstance(value, bytes):
        return Fault.of_bytes(file, line, UNDECODABLE, f"{column}: bytes that are not UTF-8", value)
    return Fault(file, line, TYPE, f"{column}: {value!r} is not {target}", str(value)[:200])


def pieces(stream: IO[bytes], size: int) -> Iterator[bytes]:
    """Yields the bytes of a stream in pieces of ``size``."""
    while piece := stream.read(size):
        yield piece
