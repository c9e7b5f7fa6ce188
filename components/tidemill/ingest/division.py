"""The passes over typed batches: label them, key them, plan the splits, write the parts, count the copies.

Each batch stands alone: its files have names of their own and depend on nothing else, so any runner may spread,
reorder or repeat the work.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tidemill.beam_failures import carried
from tidemill.beam_files import opened
from tidemill.features import Image, source_columns
from tidemill.ingest.blocks import Types, one_chunk
from tidemill.ingest.casting import finite, natural_type
from tidemill.ingest.delimited import Dialect
from tidemill.ingest.hashing import hash_columns
from tidemill.ingest.images import unreadable_images
from tidemill.ingest.labels import LabelRule
from tidemill.ingest.quarantine import NO_IMAGE, NO_LABEL, NO_TIME, Fault, FaultCount, write_faults
from tidemill.ingest.readers import Batch, Shard, read_batches
from tidemill.ingest.splits import PlanPart, SplitPlan, SplitRule, moments
from tidemill.ingest.summary import LabelSummary, Summary
from tidemill.problem import SPLITS, Problem

_ROW_GROUP = 65_536
_PARTITIONS = 64
_PARTITION_BITS = np.uint64(64 - 6)


@dataclass(frozen=True)
class Keyed:
    """A batch whose rows all have a label, and what their split hangs on.

    Attributes:
        batch: the rows, label included.
        non_finite: NaN and infinities that were made null, by column.
        samples: up to two hashes of values by column, which tell none, one and several apart.
        rows, units, measures: uint64 [rows]; see ``tidemill.ingest.splits``.
    """

    batch: Batch
    non_finite: Mapping[str, int]
    samples: Mapping[str, frozenset[int]]
    rows: np.ndarray
    units: np.ndarray
    measures: np.ndarray


@dataclass(frozen=True)
class Wanted:
    """What a row must have besides its label, whatever its split hangs on.

    Attributes:
        time: a column that must have a moment.
        images: columns whose values, where there are any, must be readable images.
    """

    time: str | None = None
    images: tuple[str, ...] = ()

    @classmethod
    def of(cls, problem: Problem) -> Wanted:
        images = [
            column
            for name, feature in problem.features.items()
            if isinstance(feature, Image)
            for column in source_columns(name, feature)
        ]
        return cls(problem.time if problem.windows else None, tuple(dict.fromkeys(images)))


def key_batch(batch: Batch, label: LabelRule, split: SplitRule, wanted: Wanted = Wanted()) -> Keyed:
    """Finds the label of each row and all that its split hangs on; rows that lack what they need become faults."""
    source_columns = batch.table.column_names
    table, non_finite = _finite(batch.table)
    table, unlabelled = label.apply(table)
    refused = {NO_LABEL: unlabelled}
    time = split.time if split.config.method == "temporal" else wanted.time
    if time:
        refused[NO_TIME] = moments(one_chunk(table.column(time)))[1] & ~unlabelled
    for name in wanted.images:
        unreadable = unreadable_images(one_chunk(table.column(name)))
        refused[f"{NO_IMAGE} in {name}"] = unreadable & ~np.any(list(refused.values()), axis=0)
    keep = ~np.any(list(refused.values()), axis=0)
    faults = [fault for kind, rows in refused.items() for fault in _faults(batch, kind, rows)]
    positions = batch.position + np.flatnonzero(keep).astype(np.uint64)
    if not keep.all():
        table = table.filter(pa.array(keep))
    rows, samples = np.zeros(table.num_rows, np.uint64), {}
    for name, hashes, valid in hash_columns(table, source_columns):
        rows += hashes
        known = hashes[valid]
        samples[name] = frozenset({int(known.min()), int(known.max())}) if len(known) else frozenset()
    units = split.units(table, rows)
    kept = Batch(batch.shard, batch.number, batch.position, table, batch.origins, (*batch.faults, *faults))
    return Keyed(kept, non_finite, samples, rows, units, split.measures(table, positions))


def _finite(table: pa.Table) -> tuple[pa.Table, dict[str, int]]:
    counts = {}
    for i, name in enumerate(table.column_names):
        if pa.types.is_floating(table.schema.field(i).type):
            column, count = finite(one_chunk(table.column(i)))
            if count:
                counts[name] = count
                table = table.set_column(i, name, column)
    return table, counts


def _faults(batch: Batch, kind: str, rows: np.ndarray) -> Iterator[Fault]:
    for row in np.flatnonzero(rows):
        file, line = batch.locate(int(row))
        values = batch.table.slice(int(row), 1).to_pylist()[0]
        yield Fault(file, line, kind, kind, ", ".join(f"{k}={v}" for k, v in values.items() if v is not None)[:2000])


def write_batch(keyed: Keyed, assigned: np.ndarray, directory: str, label: LabelRule) -> Summary:
    """Writes the rows of a batch to one Parquet file per split, and its faults; returns what was written."""
    batch, part = keyed.batch, f"part-{keyed.batch.shard:05d}-{keyed.batch.number:05d}"
    files: dict[str, dict[str, Any]] = {}
    rows: dict[str, int] = {}
    labels: dict[str, LabelSummary] = {}
    for code, split in enumerate(SPLITS):
        table = batch.table.filter(pa.array(assigned == code))
        rows[split] = table.num_rows
        if table.num_rows:
            name, content = f"{split}/{part}.parquet", pa.BufferOutputStream()
            pq.write_table(table, content, row_group_size=_ROW_GROUP, compression="zstd")
            written = content.getvalue()
            with opened(f"{directory}/{name}", "wb") as file:
                file.write(written)
            digest = hashlib.sha256(written).hexdigest()
            files[name] = {"rows": table.num_rows, "bytes": len(written), "sha256": digest}
            labels[split] = LabelSummary.of(one_chunk(table.column(label.label.output)), label.task)
    if batch.faults:
        with opened(f"{directory}/quarantine/{part}.jsonl", "wb") as file:
            write_faults(file, batch.faults)
    columns = {field.name: natural_type(field.type) for field in batch.table.schema}
    nulls = {name: batch.table.column(name).null_count for name in batch.table.column_names}
    faults = FaultCount.of(batch.faults)
    return Summary(rows, labels, columns, nulls, keyed.non_finite, keyed.samples, faults, files)


class ReadBatches(beam.PTransform):
    """``PCollection[Shard] -> PCollection[Batch]``."""

    def __init__(self, dialect: Dialect, types: Types) -> None:
        super().__init__()
        self._dialect, self._types = dialect, types

    def expand(self, shards: beam.PCollection) -> beam.PCollection:
        return shards | "Read" >> beam.ParDo(_ReadShard(self._dialect, self._types)).with_output_types(Batch)


class _ReadShard(beam.DoFn):
    def __init__(self, dialect: Dialect, types: Types) -> None:
        self._dialect, self._types = dialect, types

    def process(self, shard: Shard) -> Iterable[Batch]:
        with carried():
            yield from read_batches(shard, self._dialect, self._types)


class KeyBatches(beam.PTransform):
    """``PCollection[Batch] -> PCollection[Keyed]``."""

    def __init__(self, label: LabelRule, split: SplitRule, wanted: Wanted = Wanted()) -> None:
        super().__init__()
        self._label, self._split, self._wanted = label, split, wanted

    def expand(self, batches: beam.PCollection) -> beam.PCollection:
        return batches | "Key" >> beam.Map(self._key).with_output_types(Keyed)

    def _key(self, batch: Batch) -> Keyed:
        with carried():
            return key_batch(batch, self._label, self._split, self._wanted)


class PlanSplits(beam.PTransform):
    """``PCollection[Keyed] -> PCollection[SplitPlan]`` of one.

    Only where the rows of a unit must agree on a place, time or class are they brought together, as 16 bytes each.
    """

    def __init__(self, rule: SplitRule) -> None:
        super().__init__()
        self._rule = rule

    def expand(self, batches: beam.PCollection) -> beam.PCollection:
        if self._rule.must_agree:
            parts = (
                batches
                | "Spread" >> beam.FlatMap(_by_unit)
                | "Units" >> beam.GroupByKey()
                | "Agree" >> beam.MapTuple(self._agreed)
            )
        else:
            parts = batches | "Measure" >> beam.Map(self._measured)
        return (
            parts
            | "Merge" >> beam.CombineGlobally(PlanPart.merge).without_defaults()
            | "Plan" >> beam.Map(self._planned)
        )

    def _agreed(self, _partition: int, pieces: Iterable[tuple[np.ndarray, np.ndarray]]) -> PlanPart:
        units, measures = zip(*pieces, strict=True)
        return PlanPart.of(self._rule, np.concatenate(units), np.concatenate(measures))

    def _measured(self, keyed: Keyed) -> PlanPart:
        return PlanPart.of(self._rule, keyed.units, keyed.measures)

    def _planned(self, part: PlanPart) -> SplitPlan:
        return part.plan(self._rule)


def _by_unit(keyed: Keyed) -> Iterator[tuple[int, tuple[np.ndarray, np.ndarray]]]:
    for partition, rows in _partitions(keyed.units):
        yield partition, (keyed.units[rows], keyed.measures[rows])


def _partitions(hashes: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Yields each partition that hashes fall into, and the indices of those that do."""
    partitions = (hashes >> _PARTITION_BITS).astype(np.int64)
    order = np.argsort(partitions, kind="stable")
    bounds = np.searchsorted(partitions[order], np.arange(_PARTITIONS + 1))
    for partition in np.flatnonzero(np.diff(bounds)):
        yield int(partition), order[bounds[partition] : bounds[partition + 1]]


class WriteParts(beam.PTransform):
    """``PCollection[Keyed] -> PCollection[Summary]`` of one; writes Parquet per split and quarantine below a path."""

    def __init__(self, plan: SplitPlan, split: SplitRule, label: LabelRule, directory: str) -> None:
        super().__init__()
        self._plan, self._split, self._label, self._directory = plan, split, label, directory

    def expand(self, batches: beam.PCollection) -> beam.PCollection:
        return (
            batches
            | "Write" >> beam.Map(self._write).with_output_types(Summary)
            | "Summarise" >> beam.CombineGlobally(Summary.merge).without_defaults()
        )

    def _write(self, keyed: Keyed) -> Summary:
        with carried():
            assigned = self._plan.assign(self._split, keyed.units, keyed.measures)
            return write_batch(keyed, assigned, self._directory, self._label)


class CountDuplicates(beam.PTransform):
    """``PCollection[Keyed] -> PCollection[int]`` of one, or none without rows: rows that repeat an earlier row exactly.

    The row hashes are brought together, 8 bytes a row: the one thing here that grows with the rows.
    """

    def expand(self, batches: beam.PCollection) -> beam.PCollection:
        return (
            batches
            | "Spread" >> beam.FlatMap(_by_row)
            | "Copies" >> beam.GroupByKey()
            | "Count" >> beam.MapTuple(_repeats)
            | "Sum" >> beam.CombineGlobally(sum).without_defaults()
        )


def _by_row(keyed: Keyed) -> Iterator[tuple[int, np.ndarray]]:
    for partition, rows in _partitions(keyed.rows):
        yield partition, keyed.rows[rows]


def _repeats(_partition: int, pieces: Iterable[np.ndarray]) -> int:
    hashes = np.concatenate(list(pieces))
    return len(hashes) - len(np.unique(hashes))
