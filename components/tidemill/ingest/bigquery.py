"""Copies a BigQuery table to Parquet, so that the passes after it can read it more than once."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import apache_beam as beam
import pyarrow as pa
import pyarrow.parquet as pq

from tidemill.beam_files import opened
from tidemill.ingest.sources import bigquery_table

_ROWS = 65_536


class StageRows(beam.PTransform):
    """``PCollection[dict]`` of rows ``-> PCollection[str]`` of the Parquet files that hold them.

    Files are named by their content: BigQuery has no order of rows, and a repeated bundle writes the same file.
    """

    def __init__(self, directory: str) -> None:
        super().__init__()
        self._directory = directory

    def expand(self, rows: beam.PCollection) -> beam.PCollection:
        return (
            rows
            | "Batch" >> beam.BatchElements(min_batch_size=_ROWS, max_batch_size=_ROWS)
            | "Write" >> beam.Map(self._write)
        )

    def _write(self, rows: Sequence[Mapping[str, Any]]) -> str:
        table = pa.Table.from_pylist(list(rows))
        buffer = pa.BufferOutputStream()
        pq.write_table(table, buffer)
        content = buffer.getvalue()
        path = f"{self._directory}/{hashlib.sha256(content).hexdigest()}.parquet"
        with opened(path, "wb") as file:
            file.write(content)
        return path


class ReadTable(beam.PTransform):
    """``PBegin -> PCollection[dict]``: the rows of ``bq://project.dataset.table`` by the Storage Read API."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self._table = bigquery_table(source)

    def expand(self, begin: beam.pvalue.PBegin) -> beam.PCollection:
        read = beam.io.ReadFromBigQuery
        return begin | "BigQuery" >> read(table=self._table, method=read.Method.DIRECT_READ)
