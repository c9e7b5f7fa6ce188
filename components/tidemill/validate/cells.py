"""Sensitive slices as sums of cells, so that every row is counted once however many slices it belongs to.

A *cell* is one combination of values of all the sensitive columns. TFDV's accumulators can be merged, hence the
statistics of ``sex=Female`` are the merged accumulators of the cells with that value, and the statistics of the
whole split are those of all cells.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

Cell = tuple[str | None, ...]
"""Values by sensitive column, as strings; None where the value is missing or has no slice of its own."""

SliceKey = tuple[tuple[str, str], ...]
"""``((column, value), …)`` in the order of the problem's entry."""

MAX_CELLS = 64
"""Each cell holds accumulators for every column (some 100 KB per string column), so there must be few."""
_MAX_COUNTED = 100_000
_NAME_LIMIT = 150  # file names have 255 bytes, and a value may be any text


@dataclass(frozen=True)
class SlicePlan:
    """Which slices are to be described.

    Attributes:
        keys: the entries of the problem's ``sensitive`` whose columns the data has.
        values: by column the values that get slices.
        omitted: rows of the training split by column whose value gets none for being rare; missing ones not counted.
    """

    keys: tuple[tuple[str, ...], ...]
    values: Mapping[str, frozenset[str]]
    omitted: Mapping[str, int]

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(self.values)

    def slices_of(self, cell: Cell) -> Iterator[SliceKey]:
        """Yields the slices that the rows of a cell belong to."""
        named = dict(zip(self.columns, cell, strict=True))
        for key in self.keys:
            pairs = tuple((column, value) for column in key if (value := named[column]) is not None)
            if len(pairs) == len(key):
                yield pairs

    def split(self, batch: pa.RecordBatch) -> Iterator[tuple[Cell, pa.RecordBatch]]:
        """Divides a batch into the rows of each cell, keeping their order."""
        if not self.columns:
            yield (), batch
            return
        cells, codes = _encode(batch, self.columns, self.values)
        if len(cells) == 1:
            yield cells[0], batch
            return
        order = pa.array(np.argsort(codes, kind="stable"))
        start = 0
        for cell, rows in zip(cells, np.bincount(codes, minlength=len(cells)).tolist(), strict=True):
            # Copies, not slices of a reordered batch: who holds a few rows of a rare cell must not hold the batch.
            yield cell, batch.take(order.slice(start, rows))
            start += rows


def plan_slices(
    batches: Iterable[pa.RecordBatch], sensitive: Sequence[Sequence[str]], columns: Iterable[str]
) -> SlicePlan:
    """Chooses the slices from the training split.

    Each column keeps its most frequent values: as many as leave at most ``MAX_CELLS`` cells, the same number for
    all. What is rarer still counts in the whole and in the other columns' slices.

    Args:
        batches: the training split; only the sensitive columns are read.
        sensitive: the problem's ``sensitive``.
        columns: the columns that the data has.
    """
    known = set(columns)
    keys = tuple(tuple(key) for key in sensitive if set(key) <= known)
    names = tuple(dict.fromkeys(column for key in keys for column in key))
    counts: Counter[Cell] = Counter()
    if names:
        for batch in batches:
            cells, codes = _encode(batch, names, None)
            counts.update(dict(zip(cells, np.bincount(codes, minlength=len(cells)).tolist(), strict=True)))
            if len(counts) > _MAX_COUNTED:  # an identifier was named sensitive: keep to the frequent ones
                counts = Counter(dict(counts.most_common(_MAX_COUNTED // 2)))
    by_column = {name: _marginal(counts, i) for i, name in enumerate(names)}
    most = max((len(values) for values in by_column.values()), default=0)
    kept = min(most, MAX_CELLS)
    while kept > 1 and len({_fold(cell, names, _top(by_column, kept)) for cell in counts}) > MAX_CELLS:
        kept -= 1
    values = _top(by_column, kept)
    omitted = {n: sum(c for v, c in by_column[n] if v not in values[n]) for n in names}
    return SlicePlan(keys, values, {n: rows for n, rows in omitted.items() if rows})


def file_name(key: SliceKey) -> str:
    """Returns a slice's file name without its ending, such as ``sex=Female,race=Black``: URL-quoted, and unique."""
    import hashlib

    name = ",".join(f"{quote(column, safe=' ')}={quote(value, safe=' ')}" for column, value in key)
    if len(name) > _NAME_LIMIT:
        name = f"{name[:_NAME_LIMIT]}~{hashlib.sha256(name.encode()).hexdigest()[:12]}"
    return name


def _encode(
    batch: pa.RecordBatch, columns: Sequence[str], values: Mapping[str, frozenset[str]] | None
) -> tuple[list[Cell], np.ndarray]:
    """Returns the cells that occur in a batch, sorted, and for every row the index of its cell: int64 [rows]."""
    mixed = np.zeros(batch.num_rows, dtype=np.int64)
    labels: list[list[str | None]] = []
    for column in columns:
        encoded = pc.dictionary_encode(pc.cast(batch.column(batch.schema.get_field_index(column)), pa.string()))
        codes = np.asarray(pc.fill_null(encoded.indices, -1)).astype(np.int64) + 1
        words: list[str | None] = [None, *encoded.dictionary.to_pylist()]
        if values is not None:
            words = [word if word in values[column] else None for word in words]
        # Codes must number distinct words: missing and folded values share one.
        distinct = sorted(set(words), key=lambda word: (word is not None, word or ""))
        place = {word: i for i, word in enumerate(distinct)}
        mixed = mixed * len(distinct) + np.array([place[word] for word in words], dtype=np.int64)[codes]
        labels.append(distinct)
    present, index = np.unique(mixed, return_inverse=True)
    return [_decode(int(code), labels) for code in present], index


def _decode(code: int, labels: Sequence[Sequence[str | None]]) -> Cell:
    cell: list[str | None] = []
    for words in reversed(labels):
        code, place = divmod(code, len(words))
        cell.append(words[place])
    return tuple(reversed(cell))


def _marginal(counts: Mapping[Cell, int], position: int) -> list[tuple[str, int]]:
    """Returns the values of one column with their rows, the most frequent first."""
    totals: Counter[Any] = Counter()
    for cell, rows in counts.items():
        totals[cell[position]] += rows
    totals.pop(None, None)
    return sorted(totals.items(), key=lambda item: (-item[1], item[0]))


def _top(by_column: Mapping[str, Sequence[tuple[str, int]]], kept: int) -> dict[str, frozenset[str]]:
    return {name: frozenset(value for value, _ in values[:kept]) for name, values in by_column.items()}


def _fold(cell: Cell, names: Sequence[str], values: Mapping[str, frozenset[str]]) -> Cell:
    return tuple(word if word in values[name] else None for name, word in zip(names, cell, strict=True))
