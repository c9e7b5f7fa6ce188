"""Raw training rows, transformed: what ranges are calibrated on and latencies are measured with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tidemill.artifacts import parts
from tidemill.compress.networks import SavedNetwork


def training_rows(examples: Path, network: SavedNetwork, rows: int) -> dict[str, np.ndarray]:
    """Returns the transformed features of ``rows`` rows from all over the training split, or all of a smaller one."""
    found = parts(examples, "train")
    counts = [pq.read_metadata(path).num_rows for path in found]
    wanted = np.unique(np.linspace(0, sum(counts), rows, endpoint=False).astype(np.int64))
    ends = np.cumsum(counts)
    pieces = []
    for path, end, count in zip(found, ends, counts, strict=True):
        inside = wanted[(wanted >= end - count) & (wanted < end)] - (end - count)
        if len(inside):
            pieces.append(_rows(path, inside))
    table = pa.concat_tables(pieces).combine_chunks()
    return network.transform(table.to_batches()[0])


def _rows(path: Path, wanted: np.ndarray) -> pa.Table:
    pieces, first = [], 0
    with pq.ParquetFile(path, pre_buffer=False) as file:
        for batch in file.iter_batches():
            inside = wanted[(wanted >= first) & (wanted < first + batch.num_rows)] - first
            pieces.append(batch.take(pa.array(inside)))
            first += batch.num_rows
    return pa.Table.from_batches(pieces)
