"""The slices that metrics are shown for: the whole, and every value of the sensitive columns and their crosses.

A missing value is a slice of its own, ``(missing)``: people of whom something isn't known are a group too. A number
with more than :data:`MAX_NUMBERS` distinct values is cut at round numbers into about six ranges between its 5th and
95th percentile (``age``: ``< 20``, ``[20, 30)``, …, ``>= 70``); with fewer, each number is a value. A key keeps its
:data:`MAX_VALUES` most frequent values; the others are taken together as ``(other)``, so that the slices of one key
always divide the rows.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tidemill.errors import DataError

MISSING_VALUE = "(missing)"
OTHER_VALUE = "(other)"
MAX_VALUES = 200
MAX_NUMBERS = 12
_RANGES = 6
_SAMPLE = 1_000_000  # numbers that the ranges are chosen from: 8 MB


@dataclass(frozen=True)
class ColumnValues:
    """How one column becomes slice values.

    Attributes:
        names: the values as shown, last but one ``(missing)``, last ``(other)``.
        edges: ascending bounds of the ranges when the column is cut into ranges, else empty.
    """

    names: tuple[str, ...]
    edges: tuple[float, ...] = ()

    def codes(self, column: pa.Array) -> np.ndarray:
        """Returns the index of each row's value in ``names``, int64 [rows]."""
        missing = len(self.names) - 2
        if self.edges:
            numbers = pc.fill_null(pc.cast(column, pa.float64()), math.nan).to_numpy(zero_copy_only=False)
            return np.where(np.isnan(numbers), missing, np.searchsorted(self.edges, numbers, side="right"))
        found = pc.index_in(pc.cast(column, pa.string()), value_set=pa.array(self.names[:-2], pa.string()))
        codes = pc.fill_null(found, len(self.names) - 1).to_numpy(zero_copy_only=False).astype(np.int64)
        absent = pc.is_null(column, nan_is_null=True).to_numpy(zero_copy_only=False)
        return np.where(absent, missing, codes)


@dataclass(frozen=True)
class SliceKey:
    """One slicing key: columns, and the combinations of their values that are slices.

    Attributes:
        columns: none for the whole.
        first: number of this key's first slice among all slices.
        combinations: ascending mixed-radix codes of the combinations that have a slice of their own; a row of any
            other combination belongs to the slice after the last.
        names: values by column of each slice, in the order of the slices.
    """

    columns: tuple[str, ...]
    first: int
    combinations: tuple[int, ...]
    names: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class SlicePlan:
    """All slices of an evaluation, numbered; slice 0 is the whole."""

    values: dict[str, ColumnValues]
    keys: tuple[SliceKey, ...]

    @property
    def size(self) -> int:
        return sum(len(key.names) for key in self.keys)

    @property
    def slices(self) -> list[dict[str, str]]:
        """Returns value by column for each slice."""
        return [dict(zip(key.columns, name, strict=True)) for key in self.keys for name in key.names]

    def members(self, columns: Sequence[str]) -> range:
        """Returns the numbers of the slices of one key."""
        wanted = tuple(sorted(columns))
        key = next(key for key in self.keys if key.columns == wanted)
        return range(key.first, key.first + len(key.names))

    def codes(self, batch: pa.RecordBatch) -> list[np.ndarray]:
        """Returns, for each key, the number of the slice (counted from the key's first) that each row is in."""
        columns = {name: values.codes(batch.column(name)) for name, values in self.values.items()}
        return [self._key_codes(key, columns, batch.num_rows) for key in self.keys]

    def _key_codes(self, key: SliceKey, columns: dict[str, np.ndarray], rows: int) -> np.ndarray:
        if not key.columns:
            return np.zeros(rows, np.int64)
        radix = _radix(key.columns, self.values, columns)
        known = np.asarray(key.combinations, np.int64)
        place = np.minimum(np.searchsorted(known, radix), len(known) - 1)
        return np.where(known[place] == radix, place, len(known))


def plan_slices(parts: Sequence[Path], keys: Iterable[Sequence[str]]) -> SlicePlan:
    """Reads the columns of the keys, and nothing else, to find out which slices there are.

    Args:
        parts: Parquet files of the split.
        keys: columns of each key; their order doesn't matter (TFMA sorts the columns of a crossed slice too).

    Raises:
        DataError: if a column isn't in the examples.
    """
    wanted = tuple(dict.fromkeys(tuple(sorted(key)) for key in keys if key))
    columns = tuple(dict.fromkeys(column for key in wanted for column in key))
    schema = pq.read_schema(parts[0])
    if absent := [column for column in columns if column not in schema.names]:
        raise DataError(
            "examples", f"slices need the columns {', '.join(absent)}", f"the columns {', '.join(schema.names)}"
        )
    values = {column: _column_values(parts, column) for column in columns}
    counts: list[Counter[int]] = [Counter() for _ in wanted]
    for batch in _batches(parts, columns) if columns else ():
        codes = {name: value.codes(batch.column(name)) for name, value in values.items()}
        for key, counter in zip(wanted, counts, strict=True):
            found, times = np.unique(_radix(key, values, codes), return_counts=True)
            counter.update(dict(zip(found.tolist(), times.tolist(), strict=True)))
    planned = [SliceKey((), 0, (), ((),))]
    for key, counter in zip(wanted, counts, strict=True):
        planned.append(_slice_key(key, planned[-1].first + len(planned[-1].names), counter, values))
    return SlicePlan(values, tuple(planned))


def _slice_key(key: tuple[str, ...], first: int, counter: Counter[int], values: dict[str, ColumnValues]) -> SliceKey:
    named = {code: _unradix(code, key, values) for code in counter}
    other = (OTHER_VALUE,) * len(key)
    candidates = [code for code in counter if named[code] != other]
    kept = tuple(sorted(sorted(candidates, key=lambda code: (-counter[code], code))[:MAX_VALUES]))
    names = [named[code] for code in kept]
    if len(kept) < len(counter):
        names.append(other)
    return SliceKey(key, first, kept, tuple(names))


def _radix(key: Sequence[str], values: dict[str, ColumnValues], codes: dict[str, np.ndarray]) -> np.ndarray:
    radix = np.zeros(len(codes[key[0]]), np.int64)
    for column in key:
        radix = radix * len(values[column].names) + codes[column]
    return radix


def _unradix(code: int, key: Sequence[str], values: dict[str, ColumnValues]) -> tuple[str, ...]:
    names = []
    for column in reversed(key):
        code, index = divmod(code, len(values[column].names))
        names.append(values[column].names[index])
    return tuple(reversed(names))


def _batches(parts: Sequence[Path], columns: Sequence[str]) -> Iterable[pa.RecordBatch]:
    for part in parts:
        with pq.ParquetFile(part, pre_buffer=False) as file:
            yield from file.iter_batches(columns=list(columns))


def _column_values(parts: Sequence[Path], column: str) -> ColumnValues:
    counter: Counter[str] = Counter()
    numeric = not pa.types.is_string(pq.read_schema(parts[0]).field(column).type)
    sample: list[np.ndarray] = []
    sampled = 0
    for batch in _batches(parts, [column]):
        array = batch.column(0)
        array = array.filter(pc.invert(pc.is_null(array, nan_is_null=True)))
        if numeric and sampled < _SAMPLE:
            sample.append(pc.cast(array, pa.float64()).to_numpy(zero_copy_only=False)[: _SAMPLE - sampled])
            sampled += len(sample[-1])
        if not numeric or len(counter) <= MAX_NUMBERS:
            counted = pc.value_counts(pc.cast(array, pa.string()))
            counter.update(dict(zip(counted.field(0).to_pylist(), counted.field(1).to_pylist(), strict=True)))
    if numeric and len(counter) > MAX_NUMBERS:
        return _ranges(np.concatenate(sample))
    frequent = sorted(counter, key=lambda value: (-counter[value], value))[:MAX_VALUES]
    order = sorted(frequent, key=float) if numeric else sorted(frequent)
    return ColumnValues((*order, MISSING_VALUE, OTHER_VALUE))


def _ranges(numbers: np.ndarray) -> ColumnValues:
    low, high = np.quantile(numbers[np.isfinite(numbers)], [0.05, 0.95])
    width = (high - low) / _RANGES or 1.0
    power = 10.0 ** math.floor(math.log10(width))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= width)
    edges = [float(f"{i * step:.12g}") for i in range(round(low / step), math.floor(high / step) + 1)]
    edges = edges or [float(f"{low:.12g}")]
    shown = [f"{edge:.12g}" for edge in edges]
    inner = [f"[{a}, {b})" for a, b in pairwise(shown)]
    return ColumnValues((f"< {shown[0]}", *inner, f">= {shown[-1]}", MISSING_VALUE, OTHER_VALUE), tuple(edges))
