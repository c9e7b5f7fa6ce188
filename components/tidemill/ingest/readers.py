"""One reader for every format, and the batches that the pipelines pass along."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from tidemill.ingest.blocks import Block, Types
from tidemill.ingest.columnar import read_parquet
from tidemill.ingest.delimited import Dialect, read_delimited
from tidemill.ingest.jsonlines import read_json_lines
from tidemill.ingest.quarantine import Fault
from tidemill.ingest.sources import SourceFile

_BATCH_BYTES = 32 << 20
_SHARD_BYTES = 256 << 20


def read_blocks(file: SourceFile, dialect: Dialect, types: Types | None) -> Iterator[Block]:
    """Yields the rows of a file of any format, in order."""
    if file.format == "csv":
        return read_delimited(file, dialect, types)
    if file.format == "jsonl":
        return read_json_lines(file, types)
    if file.format == "tfrecord":
        from tidemill.ingest.tfrecord import read_tfrecord  # its decoder is needed for nothing else

        return read_tfrecord(file, types)
    return read_parquet(file, types)


@dataclass(frozen=True)
class Shard:
    """Consecutive files that one worker reads in turn.

    Attributes:
        index: place among the shards.
        files: small files together up to 256 MiB, a larger one alone.
        position: rows in the shards before it.
    """

    index: int
    files: tuple[SourceFile, ...]
    position: int


def shards_of(files: Sequence[SourceFile], rows: Mapping[str, int]) -> list[Shard]:
    """Divides files among shards; ``rows`` has each file's rows by name."""
    groups: list[list[SourceFile]] = []
    size = 0
    for file in files:
        if not groups or size + file.size > _SHARD_BYTES:
            groups.append([])
            size = 0
        groups[-1].append(file)
        size += file.size
    starts = itertools.accumulate((sum(rows[f.name] for f in group) for group in groups), initial=0)
    return [Shard(i, tuple(group), start) for i, (group, start) in enumerate(zip(groups, starts, strict=False))]


@dataclass(frozen=True)
class Origin:
    """Where consecutive rows of a batch stand: a file, and a line for each of them."""

    file: str
    lines: Sequence[int]


@dataclass(frozen=True)
class Batch:
    """Rows on their way through a pipeline, about 32 MiB of the source.

    Attributes:
        shard: index of the shard.
        number: place among the shard's batches.
        position: place of the first row among all rows that could be read.
        table: the rows.
        origins: where they stand.
        faults: rows met on the way that could not be read.
    """

    shard: int
    number: int
    position: int
    table: pa.Table
    origins: tuple[Origin, ...]
    faults: tuple[Fault, ...]

    def locate(self, row: int) -> tuple[str, int]:
        """Returns the file and line of a row."""
        for origin in self.origins:
            if row < len(origin.lines):
                return origin.file, int(origin.lines[row])
            row -= len(origin.lines)
        raise IndexError(row)


def read_batches(shard: Shard, dialect: Dialect, types: Types) -> Iterator[Batch]:
    """Yields the rows of a shard, the blocks of small files joined."""
    number, position = 0, shard.position
    held: list[tuple[SourceFile, Block]] = []
    for file in shard.files:
        for block in read_blocks(file, dialect, types):
            held.append((file, block))
            if sum(block.size for _, block in held) >= _BATCH_BYTES:
                batch = _join(shard.index, number, position, held)
                yield batch
                number, position, held = number + 1, position + batch.table.num_rows, []
    if held:
        yield _join(shard.index, number, position, held)


def _join(shard: int, number: int, position: int, blocks: list[tuple[SourceFile, Block]]) -> Batch:
    return Batch(
        shard,
        number,
        position,
        pa.concat_tables([block.table for _, block in blocks]).combine_chunks(),
        tuple(Origin(file.name, block.lines) for file, block in blocks),
        tuple(fault for _, block in blocks for fault in block.faults),
    )
