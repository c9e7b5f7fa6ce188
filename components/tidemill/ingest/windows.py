"""Windows over the rows of a group: every row gets what its columns were 1, 2, … rows before.

Rows of a group may be anywhere in the source, so they are brought together through files: each batch leaves its rows
sorted into partitions by the hash of their group, and each partition is then read out of all the files, ordered and
written out again as batches that have their past beside them. The order of a group is that of its times; rows of equal
time stand in the order of the hash of their content, which neither the order of the source nor its cuts change.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import apache_beam as beam
import numpy as np
import pyarrow as pa

from tidemill.beam_failures import carried
from tidemill.beam_files import opened
from tidemill.errors import DataError
from tidemill.ingest.blocks import one_chunk
from tidemill.ingest.division import Keyed
from tidemill.ingest.hashing import hash_columns
from tidemill.ingest.quarantine import FaultCount, write_faults
from tidemill.ingest.readers import Batch
from tidemill.ingest.splits import moments
from tidemill.ingest.summary import Summary
from tidemill.problem import Problem
from tidemill.windows import Windows, lagged

PARTITION_BYTES = 32 << 20
"""Bytes of the source that a partition holds on average; the rows of one group are never parted."""
_MOST_PARTITIONS: Final = 512  # of which each file has a piece
_BATCH_VALUES: Final = 1 << 20  # rows times length of what is written out at once
_KEYS: Final = ("rows", "units", "measures", "times")  # stand behind the columns of the source, whatever their names


@dataclass(frozen=True)
class WindowRule:
    """How rows see those before them.

    Attributes:
        windows: the settings.
        columns: source columns whose past is given.
        time: the event time column.
        label: the label column, which is taken from ``windows.horizon`` rows later.
        measured_ahead: whether a row's split hangs on the time or class of its label, so on the later row's.
    """

    windows: Windows
    columns: tuple[str, ...]
    time: str
    label: str
    measured_ahead: bool

    @classmethod
    def of(cls, problem: Problem) -> WindowRule | None:
        """Returns the rule of a problem that has windows."""
        if problem.windows is None:
            return None
        ahead = problem.split.method in ("temporal", "stratified")
        return cls(problem.windows, problem.windowed_columns, str(problem.time), problem.label.output, ahead)

    def check_columns(self, source: str, columns: Iterable[str]) -> None:
        """Raises DataError if the source has columns that are called like those to be made."""
        made = {lagged(column, i) for column in self.columns for i in self.windows.lags}
        if taken := sorted(made & set(columns)):
            raise DataError(
                source, "must not have columns that windows makes itself", ", ".join(taken), "rename the columns"
            )

    def no_window(self, source: str) -> DataError:
        """Returns the error of a source in which no group has enough rows."""
        complete = self.windows.incomplete == "drop"
        rows = (self.windows.length if complete else 1) + self.windows.horizon
        remedy = "set a smaller windows.length or horizon" + (", or `incomplete: keep`" if complete else "")
        got = "all groups are shorter"
        return DataError(source, f"a window needs {rows} rows that agree in `group`", got, remedy)


@dataclass(frozen=True)
class Staged:
    """What some batches left in files.

    Attributes:
        files: their names.
        partitions: those that have rows.
        rows: how many rows.
        summary: what was refused and made null on the way.
    """

    files: tuple[str, ...] = ()
    partitions: frozenset[int] = frozenset()
    rows: int = 0
    summary: Summary = field(default_factory=Summary)

    @classmethod
    def merge(cls, parts: Iterable[Staged]) -> Staged:
        parts = list(parts)
        return cls(
            tuple(sorted(name for part in parts for name in part.files)),
            frozenset().union(*(part.partitions for part in parts)),
            sum(part.rows for part in parts),
            Summary.merge(part.summary for part in parts),
        )


def partitions_of(source_bytes: int) -> int:
    """Returns into how many partitions the groups of a source are divided."""
    return max(1, min(_MOST_PARTITIONS, -(-source_bytes // PARTITION_BYTES)))


class StageGroups(beam.PTransform):
    """``PCollection[Keyed] -> PCollection[Staged]`` of one; writes rows by partition, and the quarantine.

    Args:
        partitions: into how many the groups are divided.
        time: the event time column; every row must have one.
        directory: where the rows go.
        quarantine: the directory whose ``quarantine/`` the refused rows go to.
    """

    def __init__(self, partitions: int, time: str, directory: str, quarantine: str) -> None:
        super().__init__()
        self._partitions, self._time = partitions, time
        self._directory, self._quarantine = directory, quarantine

    def expand(self, batches: beam.PCollection) -> beam.PCollection:
        return (
            batches
            | "Stage" >> beam.Map(self._stage).with_output_types(Staged)
            | "Merge" >> beam.CombineGlobally(Staged.merge).without_defaults()
        )

    def _stage(self, keyed: Keyed) -> Staged:
        with carried():
            return stage_batch(keyed, self._partitions, self._time, self._directory, self._quarantine)


def stage_batch(keyed: Keyed, partitions: int, time: str, directory: str, quarantine: str) -> Staged:
    """Writes one batch; see :class:`StageGroups`."""
    batch = keyed.batch
    name = f"{batch.shard:05d}-{batch.number:05d}"
    if batch.faults:
        with opened(f"{quarantine}/quarantine/part-{name}.jsonl", "wb") as file:
            write_faults(file, batch.faults)
    summary = Summary(non_finite=keyed.non_finite, faults=FaultCount.of(batch.faults))
    if not batch.table.num_rows:
        return Staged(summary=summary)
    times, _ = moments(one_chunk(batch.table.column(time)))
    keys = [keyed.rows, keyed.units, keyed.measures, times]
    fields = [
        *batch.table.schema,
        *(pa.field(key, pa.from_numpy_dtype(k.dtype)) for key, k in zip(_KEYS, keys, strict=True)),
    ]
    arrays = [one_chunk(column) for column in batch.table.columns] + [pa.array(key) for key in keys]
    rows = pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields))
    chosen = ((keyed.units >> np.uint64(32)) % np.uint64(partitions)).astype(np.int64)
    order = np.argsort(chosen, kind="stable")
    bounds = np.searchsorted(chosen[order], np.arange(partitions + 1))
    with opened(f"{directory}/{name}.arrow", "wb") as file, pa.ipc.new_file(file, rows.schema) as writer:
        for start, end in itertools.pairwise(bounds):
            writer.write_batch(rows.take(pa.array(order[start:end])))
    return Staged((f"{name}.arrow",), frozenset(np.unique(chosen).tolist()), batch.table.num_rows, summary)


class ReadWindows(beam.PTransform):
    """``PCollection[int]`` of partitions ``-> PCollection[Keyed]`` of windows.

    Args:
        directory: what :class:`StageGroups` wrote.
        files: its files.
    """

    def __init__(self, rule: WindowRule, directory: str, files: Sequence[str]) -> None:
        super().__init__()
        self._rule, self._paths = rule, [f"{directory}/{name}" for name in files]

    def expand(self, partitions: beam.PCollection) -> beam.PCollection:
        return partitions | "Windows" >> beam.ParDo(_ReadPartition(self._rule, self._paths)).with_output_types(Keyed)


class _ReadPartition(beam.DoFn):
    def __init__(self, rule: WindowRule, paths: Sequence[str]) -> None:
        self._rule, self._paths = rule, paths

    def process(self, partition: int) -> Iterable[Keyed]:
        with carried():
            yield from windows(self._rule, partition, _read(self._paths, partition))


def _read(paths: Sequence[str], partition: int) -> pa.Table:
    pieces = []
    for path in paths:
        with opened(path, "rb") as file, pa.ipc.open_file(file) as reader:
            piece = reader.get_batch(partition)
            if piece.num_rows:
                pieces.append(piece)
    return pa.Table.from_batches(pieces).combine_chunks()


def windows(rule: WindowRule, partition: int, staged: pa.Table) -> Iterator[Keyed]:
    """Yields the windows of a partition in batches, groups in the order of their hash and rows in that of time.

    Args:
        staged: the rows and behind their columns ``_KEYS``, with all rows of each group that occurs.
    """
    table = staged.select(list(range(staged.num_columns - len(_KEYS))))
    hashes, units, measures, times = (
        one_chunk(staged.column(i)).to_numpy(zero_copy_only=False)
        for i in range(staged.num_columns - len(_KEYS), staged.num_columns)
    )
    order = np.lexsort((hashes, times, units))
    places, sizes = _places(units[order])
    length, horizon = rule.windows.length, rule.windows.horizon
    first = length - 1 if rule.windows.incomplete == "drop" else 0
    ends = (places >= first) & (places + horizon < sizes) & ((places - first) % rule.windows.stride == 0)
    size = max(1, _BATCH_VALUES // length)
    kept = np.flatnonzero(ends)
    for number, start in enumerate(range(0, len(kept), size)):
        rows = kept[start : start + size]
        now, later = order[rows], order[rows + horizon]
        part = _beside(rule, table, order, rows, places, later)
        samples = {name: _sample(values, valid) for name, values, valid in hash_columns(part, part.column_names)}
        batch = Batch(partition, number, 0, part, (), ())
        measured = later if rule.measured_ahead else now
        yield Keyed(batch, {}, samples, hashes[now], units[now], measures[measured])


def _beside(
    rule: WindowRule, table: pa.Table, order: np.ndarray, rows: np.ndarray, places: np.ndarray, later: np.ndarray
) -> pa.Table:
    """Returns some rows with their past beside them and the label of a later row.

    Args:
        order: row of the table by place in the order of groups and times.
        rows: places of the rows to return.
        places: place in its group by place in the order.
        later: rows of the table that the labels are taken from.
    """
    part = table.take(pa.array(order[rows]))
    if rule.windows.horizon:
        index = part.schema.get_field_index(rule.label)
        part = part.set_column(index, rule.label, one_chunk(table.column(rule.label)).take(pa.array(later)))
    columns = {name: one_chunk(table.column(name)) for name in rule.columns}
    past = [pa.array(order[np.maximum(rows - i, 0)], mask=places[rows] < i) for i in rule.windows.lags]
    for name, column in columns.items():
        for i, indices in zip(rule.windows.lags, past, strict=True):
            part = part.append_column(lagged(name, i), column.take(indices))
    return part


def _places(units: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns, of sorted units, each row's place in its unit and the unit's rows."""
    starts = np.flatnonzero(np.append(True, units[1:] != units[:-1]))
    sizes = np.diff(np.append(starts, len(units)))
    return np.arange(len(units)) - np.repeat(starts, sizes), np.repeat(sizes, sizes)


def _sample(hashes: np.ndarray, valid: np.ndarray) -> frozenset[int]:
    known = hashes[valid]
    return frozenset({int(known.min()), int(known.max())}) if len(known) else frozenset()
