"""TFDV statistics of every split and slice, streamed from Parquet in bounded memory.

TFDV's own generators do the counting. Record batches go straight to their accumulators, without a Beam pipeline
around them, which on one machine is an order of magnitude faster. Columns are independent of each other, so they
are divided over forked processes; the result doesn't depend on how many there are.
"""

from __future__ import annotations

import hashlib
import os
import pickle
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tensorflow_data_validation as tfdv
from tensorflow_data_validation.statistics import stats_impl
from tensorflow_metadata.proto.v0 import schema_pb2, statistics_pb2
from tfx_bsl.arrow import table_util

from tidemill.artifacts import parts
from tidemill.errors import PlatformError
from tidemill.validate.cells import Cell, SliceKey, SlicePlan, plan_slices
from tidemill.validate.forked import Forked

Statistics: TypeAlias = statistics_pb2.DatasetFeatureStatisticsList

BATCH_ROWS = 65_536
_BUFFER_ROWS = 2 * BATCH_ROWS  # held back over all cells of a split; bounds memory whatever the number of cells
_ROWS_WORTH_A_FORK = 5_000
_HISTOGRAM_BUCKETS = 20
_SLICE_HISTOGRAM_BUCKETS = 10  # histograms are what extraction spends its time on, and slices are many
QUANTILES = 20  # see distances.py: with fewer, the tails blur what is compared
_SLICE_QUANTILES = 4
_RANK_BUCKETS = 1000
_SKETCH_VALUES = 1024  # what TFDV's sketch of top values holds (its Misra-Gries buckets)
_SLICE_RANK_BUCKETS = 100


@dataclass(frozen=True)
class SplitStatistics:
    """Statistics of one split, each with exactly one dataset."""

    whole: Statistics
    slices: Mapping[SliceKey, Statistics]


@dataclass(frozen=True)
class Description:
    """Statistics of all splits, and the slices that they share."""

    splits: Mapping[str, SplitStatistics]
    plan: SlicePlan


def stats_options(categorical: Sequence[str], for_slices: bool = False) -> tfdv.StatsOptions:
    """Returns the options that all statistics are made with.

    Args:
        categorical: integer columns to be counted by value instead of being described as quantities.
        for_slices: whether for slices, which get coarser histograms.
    """
    schema = schema_pb2.Schema()
    for name in categorical:
        feature = schema.feature.add(name=name, type=schema_pb2.INT)
        feature.int_domain.is_categorical = True
    return tfdv.StatsOptions(
        schema=schema if categorical else None,
        num_values_histogram_buckets=2,  # the least that TFDV takes: every row has one value or none
        num_histogram_buckets=_SLICE_HISTOGRAM_BUCKETS if for_slices else _HISTOGRAM_BUCKETS,
        num_quantiles_histogram_buckets=_SLICE_QUANTILES if for_slices else QUANTILES,
        num_rank_histogram_buckets=_SLICE_RANK_BUCKETS if for_slices else _RANK_BUCKETS,
    )


def describe(
    examples: Path,
    rows: Mapping[str, int],
    columns: Mapping[str, str],
    sensitive: Sequence[Sequence[str]] = (),
    categorical: Sequence[str] = (),
    digested: Sequence[str] = (),
    processes: int | None = None,
) -> Description:
    """Computes the statistics of every split, whole and by sensitive slice.

    Memory is bounded by the batches held back and by the number of cells, not by rows.

    Args:
        examples: directory of the examples artefact.
        rows: rows by split, as its manifest says.
        columns: type by column, as its manifest says.
        sensitive: as in the problem.
        categorical: as for :func:`stats_options`.
        digested: string columns of long values, which are described by digests of them.
        processes: how many may work; by default one for small data, else one for each processor, at most two.

    Raises:
        PlatformError: if a file can't be read or the splits don't hold the rows that the manifest vouches for.
    """
    wanted = [column for key in sensitive for column in key if column in columns]
    plan = plan_slices(_batches(parts(examples, "train"), wanted), sensitive, columns)
    if processes is None:
        processes = 1 if sum(rows.values()) < _ROWS_WORTH_A_FORK else min(2, len(os.sched_getaffinity(0)))
    groups = _column_groups(columns, processes)
    work = [_Work(examples, tuple(rows), group, plan, tuple(categorical), frozenset(digested)) for group in groups]
    results = _count_all(work)
    splits = {split: _join([result[split] for result in results], tuple(columns)) for split in rows}
    for split, expected in rows.items():
        if (got := splits[split].whole.datasets[0].num_examples) != expected:
            raise PlatformError(
                str(examples / split), f"expected the {expected} rows of the manifest", str(got), "run ingest again"
            )
    return Description(splits, plan)


def read_statistics(path: Path) -> Statistics:
    """Reads a ``stats.pb``."""
    return Statistics.FromString(path.read_bytes())


@dataclass(frozen=True)
class _Work:
    examples: Path
    splits: tuple[str, ...]
    columns: tuple[str, ...]
    plan: SlicePlan
    categorical: tuple[str, ...]
    digested: frozenset[str]


def _batches(files: Sequence[Path], columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    if not columns:
        return
    for path in files:
        try:
            with pq.ParquetFile(path) as file:
                yield from file.iter_batches(BATCH_ROWS, columns=list(dict.fromkeys(columns)), use_threads=False)
        except (pa.ArrowException, OSError) as error:
            raise PlatformError(
                str(path), "cannot be read as Parquet", str(error).splitlines()[0], "run ingest again"
            ) from error


def _column_groups(columns: Mapping[str, str], processes: int) -> list[tuple[str, ...]]:
    """Divides the columns so that the groups cost about the same: strings cost three times what numbers do."""
    groups: list[list[str]] = [[] for _ in range(max(1, min(processes, len(columns))))]
    cost = [0] * len(groups)
    for column in sorted(columns, key=lambda name: (columns[name] != "string", name)):
        lightest = cost.index(min(cost))
        groups[lightest].append(column)
        cost[lightest] += 3 if columns[column] == "string" else 1
    return [tuple(group) for group in groups]


class _Accumulation:
    """The accumulators of one cell, fed with batches that are large enough to be worth a call."""

    def __init__(self, generators: Sequence[Any]) -> None:
        self._generators = generators
        self._held: list[pa.RecordBatch] = []
        self.held_rows = 0
        self.accumulators = [generator.create_accumulator() for generator in generators]

    def hold(self, batch: pa.RecordBatch) -> None:
        self._held.append(batch)
        self.held_rows += batch.num_rows

    def flush(self) -> None:
        if not self.held_rows:
            return
        table = pa.Table.from_batches(self._held).combine_chunks()
        for batch in table.to_batches():
            listed = table_util.CanonicalizeRecordBatch(batch)
            with np.errstate(invalid="ignore"):  # the variance of a column with infinities is NaN, and may be
                for i, generator in enumerate(self._generators):
                    self.accumulators[i] = generator.add_input(self.accumulators[i], listed)
        self._held, self.held_rows = [], 0


def _count_all(work: Sequence[_Work]) -> list[dict[str, tuple[bytes, dict[SliceKey, bytes]]]]:
    """Does the first work here and each of the others in a process beside."""
    others = [Forked(_count, other) for other in work[1:]]
    try:
        return [_count(work[0]), *(other.result() for other in others)]
    finally:
        for other in others:
            other.abandon()


def _count(work: _Work) -> dict[str, tuple[bytes, dict[SliceKey, bytes]]]:
    """Returns serialized statistics of some columns, of the whole and of each slice, by split."""
    # Both take the same accumulators and differ in what they extract from them.
    generators, for_slices = (
        stats_impl.get_generators(stats_options(work.categorical, sliced), in_memory=True) for sliced in (False, True)
    )
    return {split: _count_split(work, split, generators, for_slices) for split in work.splits}


def _count_split(
    work: _Work, split: str, generators: Sequence[Any], for_slices: Sequence[Any]
) -> tuple[bytes, dict[SliceKey, bytes]]:
    """Describes one split. Its accumulators end with this call, so that no two splits' are held at once."""
    cells = _accumulate(work, split, generators)
    ordered = sorted(cells, key=repr)
    members: dict[SliceKey, list[Cell]] = {}
    for cell in ordered:
        for key in work.plan.slices_of(cell):
            members.setdefault(key, []).append(cell)
    slices = {key: _extract(for_slices, [cells[cell] for cell in members[key]]) for key in sorted(members)}
    return _extract(generators, [cells[cell] for cell in ordered]), slices


def _accumulate(work: _Work, split: str, generators: Sequence[Any]) -> dict[Cell, _Accumulation]:
    cells: dict[Cell, _Accumulation] = {}
    held = 0
    for batch in _batches(parts(work.examples, split), [*work.columns, *work.plan.columns]):
        for cell, rows in work.plan.split(batch):
            accumulation = cells.setdefault(cell, _Accumulation(generators))
            accumulation.hold(_digests(_select(rows, work.columns), work.digested))
            held += rows.num_rows
        while held > _BUFFER_ROWS or (not work.plan.columns and held):
            fullest = max(cells.values(), key=lambda accumulation: accumulation.held_rows)
            held -= fullest.held_rows
            fullest.flush()
    for accumulation in cells.values():
        accumulation.flush()
    return cells


def _select(batch: pa.RecordBatch, columns: Sequence[str]) -> pa.RecordBatch:
    """Does what ``RecordBatch.select`` does, which pyarrow 10 doesn't have yet."""
    names = batch.schema.names
    return pa.RecordBatch.from_arrays([batch.column(names.index(name)) for name in columns], names=list(columns))


def _digests(batch: pa.RecordBatch, columns: Collection[str]) -> pa.RecordBatch:
    """Puts a digest in the place of each value, so that TFDV can count values of 100 kB each and keep them apart."""
    if not columns:
        return batch
    arrays = [
        pa.array([_digest(v) for v in column.to_pylist()], pa.string()) if name in columns else column
        for name, column in zip(batch.schema.names, batch.columns, strict=True)
    ]
    return pa.RecordBatch.from_arrays(arrays, names=batch.schema.names)


def _digest(value: str | None) -> str | None:
    return value and f"sha256:{hashlib.sha256(value.encode()).hexdigest()[:16]}"


def _extract(generators: Sequence[Any], cells: Sequence[_Accumulation]) -> bytes:
    """Merges cells into serialized statistics, leaving the cells as they were."""
    if not cells:
        return bytes(Statistics(datasets=[statistics_pb2.DatasetFeatureStatistics()]).SerializeToString())
    merged = []
    for i, generator in enumerate(generators):
        # merge_accumulators works in place on the first and keeps parts of it: only a copy may be given away.
        first = pickle.loads(pickle.dumps(cells[0].accumulators[i]))
        merged.append(generator.merge_accumulators([first, *(cell.accumulators[i] for cell in cells[1:])]))
    statistics = stats_impl.extract_statistics_output(merged, generators)
    for feature in statistics.datasets[0].features:
        _settle(feature)
    return bytes(statistics.SerializeToString())


def _settle(feature: statistics_pb2.FeatureNameStatistics) -> None:
    """Drops the tail of a ranking that TFDV's sketch fills by chance.

    Of more values than it holds it keeps the frequent ones. Which of those that tie at its end survive differs from
    run to run; the values above them don't. Without this the same data would give different statistics.
    """
    ranks = feature.string_stats.rank_histogram.buckets
    if not ranks or feature.string_stats.unique <= _SKETCH_VALUES:
        return
    least = min(bucket.sample_count for bucket in ranks)
    for ranking, count in ((ranks, "sample_count"), (feature.string_stats.top_values, "frequency")):
        kept = [type(entry).FromString(entry.SerializeToString()) for entry in ranking if getattr(entry, count) > least]
        del ranking[:]
        ranking.extend(kept)


def _join(groups: Sequence[tuple[bytes, dict[SliceKey, bytes]]], columns: Sequence[str]) -> SplitStatistics:
    """Puts the column groups of one split together again, with the columns in their order."""
    whole = _join_features([group[0] for group in groups], columns)
    slices = {key: _join_features([group[1][key] for group in groups], columns) for key in groups[0][1]}
    return SplitStatistics(whole, slices)


def _join_features(serialized: Sequence[bytes], columns: Sequence[str]) -> Statistics:
    joined = Statistics.FromString(serialized[0])
    for other in serialized[1:]:
        joined.datasets[0].features.extend(Statistics.FromString(other).datasets[0].features)
    order = {name: i for i, name in enumerate(columns)}
    features = sorted(joined.datasets[0].features, key=lambda feature: order[feature.path.step[0]])
    del joined.datasets[0].features[:]
    joined.datasets[0].features.extend(features)
    return joined
