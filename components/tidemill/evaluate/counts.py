"""Sums over rows by slice, and nothing else: all metrics come from these.

Every count is an array that is added up, so batches and workers can be merged in any order. Beside each sum stand
:data:`REPLICATES` resampled ones, in which every row counts as often as a Poisson(1) draw says (the Poisson bootstrap:
Chamandy et al. 2012, "Estimating uncertainty for massive data streams"). A row has the same draws in all slices and
for all models, so differences between two models on the same rows have paired replicates.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import apache_beam as beam
import numpy as np
from scipy import sparse

REPLICATES = 40
_CHUNK = 16_384  # so that what is added stays in the processor's cache
Counts = dict[str, np.ndarray]
"""By name: ``<model>/<count>`` float64 [slices, size, sums] and ``<model>/<count>~`` float64 [slices, size, sums,
replicates]; a count of overall cells has one slice."""


@dataclass(frozen=True)
class Cells:
    """Rows put into numbered cells, with what is to be summed in each.

    Attributes:
        index: int64 [rows], the cell of each row.
        size: number of cells.
        sums: float64 [rows, k], what to sum.
        point: whether the sums themselves are wanted.
        replicated: whether their bootstrap replicates are wanted.
        overall: whether they are wanted for the whole only, not for each slice.
    """

    index: np.ndarray
    size: int
    sums: np.ndarray
    point: bool = True
    replicated: bool = True
    overall: bool = False


@dataclass(frozen=True)
class Scored:
    """Rows of one batch after prediction.

    Attributes:
        first_row: position of the first row in the split.
        labels: float64 [rows]; the class index for classification.
        weights: float64 [rows].
        codes: for each slice key int64 [rows], the slice within the key.
        outputs: by model float [rows] or [rows, classes]: probability, probabilities or value.
    """

    first_row: int
    labels: np.ndarray
    weights: np.ndarray
    codes: Sequence[np.ndarray]
    outputs: Mapping[str, np.ndarray]


def draws(first_row: int, rows: int, seed: int = 0) -> np.ndarray:
    """Returns how often each row counts in each replicate, float64 [rows, replicates]; a function of the position."""
    generator = np.random.default_rng([seed, first_row])
    return generator.poisson(1.0, (rows, REPLICATES)).astype(np.float64)


def count(cells: Mapping[str, Cells], codes: Sequence[np.ndarray], sizes: Sequence[int], draw: np.ndarray) -> Counts:
    """Sums one batch of one model.

    Args:
        cells: what to count, by name.
        codes: for each slice key the slice of each row within the key, int64 [rows].
        sizes: number of slices of each key.
        draw: as :func:`draws` gives them.
    """
    counts: Counts = {}
    for name, cell in cells.items():
        keys = list(zip(codes, sizes, strict=True))[: 1 if cell.overall else None]
        if cell.point:
            counts[name] = np.concatenate([_sums(cell, code, size) for code, size in keys])
        if cell.replicated:
            counts[f"{name}~"] = np.concatenate([_replicates(cell, code, size, draw) for code, size in keys])
    return counts


def _sums(cell: Cells, code: np.ndarray, size: int) -> np.ndarray:
    index = code * cell.size + cell.index
    columns = [np.bincount(index, column, size * cell.size) for column in cell.sums.T]
    return np.stack(columns, axis=-1).reshape(size, cell.size, -1)


def _replicates(cell: Cells, code: np.ndarray, size: int, draw: np.ndarray) -> np.ndarray:
    rows, sums = cell.sums.shape
    index = code * cell.size + cell.index
    result = np.empty((size * cell.size, sums, draw.shape[1]))
    for i in range(sums):
        # One product of a sparse and a dense matrix sums all replicates at once.
        members = sparse.csr_array((cell.sums[:, i], index, np.arange(rows + 1)), shape=(rows, size * cell.size))
        result[:, i] = members.T @ draw
    return result.reshape(size, cell.size, sums, -1)


def replicates(counts: Counts, name: str) -> np.ndarray:
    """Returns the replicates of a count with their axis first, [replicates, slices, size, sums]."""
    return np.moveaxis(counts[f"{name}~"], -1, 0)


@dataclass
class Sums:
    """Sums of the counts of batches, to twice the precision of a float.

    Workers add batches up in whatever order they get them. What a plain sum rounds away, which hangs on the order, is
    kept beside it; the result is the sum rounded once. Definition: Knuth, TAOCP 2, section 4.2.2, theorem B.
    """

    high: Counts = field(default_factory=dict)
    low: Counts = field(default_factory=dict)

    def add(self, name: str, array: np.ndarray) -> None:
        """Adds an array of a batch, which belongs to the sums from then on."""
        if name not in self.high:
            self.high[name], self.low[name] = np.ascontiguousarray(array), np.zeros(array.shape)
            return
        high, low, more = (a.reshape(-1) for a in (self.high[name], self.low[name], array))
        with np.errstate(invalid="ignore"):  # of an infinite sum nothing is left over, whatever this makes of it
            for start in range(0, high.size, _CHUNK):
                chunk = slice(start, start + _CHUNK)
                before, value = high[chunk], more[chunk]
                total = before + value
                added = total - before
                low[chunk] += (before - (total - added)) + (value - added)
                high[chunk] = total

    def merge(self, other: Sums) -> None:
        """Adds all of another's sums."""
        for name, array in other.high.items():
            self.add(name, array.copy() if name not in self.high else array)
            self.low[name] += other.low[name]

    def counts(self) -> Counts:
        """Returns the sums, rounded."""
        return {name: np.where(np.isfinite(a), a + self.low[name], a) for name, a in self.high.items()}


class CellsOf(Protocol):
    """Turns the labels, outputs and weights of one batch into cells; picklable, so that it travels to workers."""

    def __call__(self, labels: np.ndarray, outputs: np.ndarray, weights: np.ndarray) -> dict[str, Cells]: ...


class CountRows(beam.CombineFn):
    """Combines :class:`Scored` batches into :data:`Counts`.

    Args:
        cells: turns the outputs of one model, the labels and the weights of a batch into cells; by model.
        sizes: number of slices of each key.
    """

    def __init__(self, cells: Mapping[str, CellsOf], sizes: Sequence[int]) -> None:
        self._cells = dict(cells)
        self._sizes = tuple(sizes)

    def create_accumulator(self) -> Sums:
        return Sums()

    def add_input(self, accumulator: Sums, batch: Scored) -> Sums:
        draw = draws(batch.first_row, len(batch.labels))
        for model, cells_of in self._cells.items():
            cells = cells_of(batch.labels, batch.outputs[model], batch.weights)
            for name, array in count(cells, batch.codes, self._sizes, draw).items():
                accumulator.add(f"{model}/{name}", array)
        return accumulator

    def merge_accumulators(self, accumulators: Iterable[Sums]) -> Sums:
        first, *others = accumulators
        for other in others:
            first.merge(other)
        return first

    def extract_output(self, accumulator: Sums) -> Counts:
        return accumulator.counts()
