"""The raw test rows that are replayed, as the JSON instances that a client would send."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tidemill.artifacts import ExamplesManifest, parts
from tidemill.errors import DataError

_SPLIT: Final = "test"
_BATCH_ROWS: Final = 8192
_FLOAT32_MAX: Final = float(np.finfo(np.float32).max)

Instance = dict[str, Any]


@dataclass(frozen=True)
class Row:
    """A row of the test split.

    Attributes:
        position: its place in the split.
        instance: its raw features as JSON; null where a value is missing.
    """

    position: int
    instance: Instance

    @property
    def missing(self) -> int:
        return sum(value is None for value in self.instance.values())


def select_rows(examples: Path, inputs: Mapping[str, str], count: int) -> list[Row]:
    """Returns rows spread evenly over the test split, and for each feature the first row that lacks it.

    The split is read once, in batches of 8,192 rows; only the rows that are returned are kept.

    Args:
        inputs: dtype by name of the features that the model takes.
        count: rows to spread; all of the split if it has fewer.

    Raises:
        DataError: if the split is empty.
    """
    total = ExamplesManifest.read(examples).rows.get(_SPLIT, 0)
    if total == 0:
        raise DataError("examples", "the test split must not be empty: there is nothing to rehearse with")
    spread = {int(position) for position in np.linspace(0, total - 1, min(count, total)).round()}
    lacking: set[str] = set()
    rows = []
    for start, batch in _batches(examples, tuple(inputs)):
        chosen = {position - start for position in spread if start <= position < start + batch.num_rows}
        for name in inputs.keys() - lacking:
            if name in batch.schema.names and (null := _first_null(batch.column(name))) is not None:
                lacking.add(name)
                chosen.add(null)
        rows += [Row(start + offset, _instance(batch, offset, inputs)) for offset in sorted(chosen)]
    return rows


def is_representable(instance: Instance) -> bool:
    """Tells whether JSON and float32 can hold the values: neither has an infinity that a client could send."""
    numbers = (value for value in instance.values() if isinstance(value, float))
    return all(abs(number) <= _FLOAT32_MAX for number in numbers)


def _batches(examples: Path, columns: tuple[str, ...]) -> Iterator[tuple[int, pa.RecordBatch]]:
    start = 0
    for part in parts(examples, _SPLIT):
        with pq.ParquetFile(part, pre_buffer=False) as file:
            present = [name for name in columns if name in file.schema_arrow.names]
            for batch in file.iter_batches(_BATCH_ROWS, columns=present):
                yield start, batch
                start += batch.num_rows


def _first_null(column: pa.Array) -> int | None:
    position = pc.index(pc.is_null(column, nan_is_null=pa.types.is_floating(column.type)), True).as_py()
    return None if position < 0 else position


def _instance(batch: pa.RecordBatch, offset: int, inputs: Mapping[str, str]) -> Instance:
    row = batch.slice(offset, 1).to_pylist()[0]
    return {name: _json(row.get(name), dtype) for name, dtype in inputs.items()}


def _json(value: Any, dtype: str) -> Any:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if dtype != "string":
        return int(value) if dtype == "int64" else float(value)
    if not isinstance(value, bytes):
        return str(value)
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"b64": base64.b64encode(value).decode()}
