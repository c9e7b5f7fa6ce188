"""Reads Parquet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.parquet as pq

from tidemill.errors import DataError
from tidemill.ingest.blocks import Block, Types, check_names, natural, typed
from tidemill.ingest.casting import natural_type
from tidemill.ingest.sources import SourceFile

_ROWS = 65_536


@contextmanager
def _opened(file: SourceFile) -> Iterator[pq.ParquetFile]:
    with file.open() as stream:
        try:
            parquet = pq.ParquetFile(stream, pre_buffer=False)
            check_names(file.name, parquet.schema_arrow.names)
            yield parquet
        except (pa.ArrowInvalid, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:  # the disk's fault, not the file's
                raise
            raise DataError(file.name, "not a whole Parquet file", str(error), "copy the file again") from error


def parquet_columns(file: SourceFile) -> tuple[Mapping[str, str], int]:
    """Returns the type that comes naturally to each column, and the rows, from the footer alone.

    Raises:
        DataError: if the file isn't whole Parquet.
    """
    with _opened(file) as parquet:
        schema = parquet.schema_arrow
        return {field.name: natural_type(field.type) for field in schema}, parquet.metadata.num_rows


def read_parquet(file: SourceFile, types: Types | None = None) -> Iterator[Block]:
    """Yields the rows of a file in blocks of at most 65,536 rows; see :func:`read_delimited`."""
    with _opened(file) as parquet:
        row = 1
        for batch in parquet.iter_batches(_ROWS):
            lines = range(row, row + batch.num_rows)
            block = Block(natural(pa.Table.from_batches([batch])), lines, (), batch.nbytes)
            yield typed(block, file.name, types) if types is not None else block
            row += batch.num_rows
