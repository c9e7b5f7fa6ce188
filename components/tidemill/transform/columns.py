"""Raw columns in two shapes: Arrow batches on their way into tf.Transform, tensors on their way through its graph."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import tensorflow as tf

from tidemill.instances import MISSING
from tidemill.transform.features import RawType

if TYPE_CHECKING:
    from tfx_bsl.tfxio.tensor_adapter import TensorAdapterConfig

BATCH_ROWS: Final = 8192
MISSING_TOKEN: Final = "␀"
"""Stands for a missing value among the tokens of a vocabulary; its line is the first, its id 0."""

_ARROW: Final[Mapping[RawType, pa.DataType]] = {"int64": pa.int64(), "float32": pa.float32(), "string": pa.binary()}


@dataclass(frozen=True)
class Presence:
    """How many values of a column are there.

    Attributes:
        rows: rows of the training split.
        present: those with a value that is neither null, NaN, infinite nor an empty string.
    """

    rows: int
    present: int

    @property
    def some_missing(self) -> bool:
        return self.present < self.rows

    @property
    def all_missing(self) -> bool:
        return self.present == 0


def read_batches(path: Path, columns: list[str], rows: int = BATCH_ROWS) -> Iterator[pa.RecordBatch]:
    """Yields the rows of one Parquet file in batches."""
    # Pre-buffered, which is the default, every row group that was read would stay in memory until the end.
    with pq.ParquetFile(path, pre_buffer=False) as file:
        yield from file.iter_batches(rows, columns=columns)


def count_present(paths: list[Path], raw: Mapping[str, RawType]) -> dict[str, Presence]:
    """Counts the values of the columns ``raw`` over Parquet files, in one streamed pass."""
    rows, present = 0, dict.fromkeys(raw, 0)
    for path in paths:
        for batch in read_batches(path, list(raw)):
            rows += batch.num_rows
            for name, dtype in raw.items():
                column = batch.column(name).cast(_ARROW[dtype])
                mask = present_mask(column, dtype)
                if dtype == "float32":
                    mask = pc.and_(mask, pc.fill_null(pc.is_finite(column), False))
                present[name] += mask.true_count
    return {name: Presence(rows, count) for name, count in present.items()}


def present_mask(column: pa.Array, dtype: RawType) -> pa.BooleanArray:
    """Tells which values the serving signature could tell from a missing one (see ``tidemill.instances``)."""
    if dtype == "string":
        mask = pc.greater(pc.binary_length(column), 0)
    elif dtype == "float32":
        mask = pc.invert(pc.is_nan(column))
    else:
        mask = pc.not_equal(column, MISSING[dtype])
    return pc.fill_null(mask, False)


def arrow_schema(raw: Mapping[str, RawType]) -> pa.Schema:
    """Returns the schema of :func:`list_batch`; sorted by name, or tf.Transform says "Expected same schema."."""
    return pa.schema([(name, pa.list_(_ARROW[raw[name]])) for name in sorted(raw)])


def list_batch(batch: pa.RecordBatch, raw: Mapping[str, RawType]) -> pa.RecordBatch:
    """Turns flat nullable columns into lists of no or one value, which tf.Transform reads as sparse columns."""
    schema = arrow_schema(raw)
    return pa.RecordBatch.from_arrays(
        [_list_column(batch.column(name), raw[name]) for name in schema.names], schema=schema
    )


def _list_column(column: pa.Array, dtype: RawType) -> pa.ListArray:
    column = column.cast(_ARROW[dtype])
    mask = present_mask(column, dtype)
    offsets = np.zeros(len(column) + 1, np.int32)
    np.cumsum(np.asarray(mask), out=offsets[1:])
    return pa.ListArray.from_arrays(pa.array(offsets), column.filter(mask))


def tensor_adapter_config(raw: Mapping[str, RawType]) -> TensorAdapterConfig:
    """Tells tf.Transform to see every column of :func:`list_batch` as a SparseTensor."""
    from tensorflow_metadata.proto.v0 import schema_pb2
    from tfx_bsl.tfxio.tensor_adapter import TensorAdapterConfig

    sparse = schema_pb2.TensorRepresentation.VarLenSparseTensor
    representations = {
        name: schema_pb2.TensorRepresentation(varlen_sparse_tensor=sparse(column_name=name)) for name in raw
    }
    return TensorAdapterConfig(arrow_schema(raw), representations)


def dense(column: tf.SparseTensor, default: tf.Tensor | str | float) -> tf.Tensor:
    """Returns a sparse column as a dense one [batch] with ``default`` for missing values."""
    rows = column.dense_shape[0]
    narrow = tf.SparseTensor(column.indices, column.values, tf.stack([rows, tf.ones_like(rows)]))
    return tf.squeeze(tf.sparse.to_dense(narrow, default, validate_indices=False), axis=1)


def numbers(column: tf.SparseTensor) -> tf.Tensor:
    """Returns a numeric column as float64 [batch]; missing and infinite values are NaN."""
    nan = tf.constant(np.nan, tf.float64)
    values = dense(tf.cast(column, tf.float64), nan)
    return tf.where(tf.math.is_finite(values), values, nan)


def tokens(column: tf.SparseTensor) -> tf.Tensor:
    """Returns a column of any dtype as strings [batch]; missing values and empty strings are ``MISSING_TOKEN``."""
    values = column.values
    if values.dtype.is_floating:
        values = tf.where(tf.math.is_nan(values), "", tf.strings.as_string(values, precision=9, shortest=True))
    elif values.dtype != tf.string:
        values = tf.strings.as_string(values)
    texts = dense(tf.SparseTensor(column.indices, values, column.dense_shape), "")
    return tf.where(texts == "", MISSING_TOKEN, texts)
