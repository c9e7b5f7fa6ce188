"""Which split a row belongs to: one number per row against two thresholds.

==========  ============================  =================================================================
method      number                        thresholds
==========  ============================  =================================================================
hash        hash of the unit and seed     the shares of 2^64: stable when rows come, go or move
random      hash of place and seed        the quantiles over all rows
temporal    the event time                the quantiles over all rows; equal times stay together
stratified  hash of the unit and seed     the quantiles over the rows of the same class
==========  ============================  =================================================================

A *unit* is what must not straddle splits: the rows that agree in all columns of ``group``, else in ``split.key``,
else exact copies of a row. Rows whose unit columns are all null are units by their own content. A unit of
several classes counts as its most frequent one (stratified); a unit of several times counts as its latest, so
that no training row is newer than any boundary that it was held against (temporal); copies of a row take the
place of the first (random).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from tidemill.ingest.blocks import one_chunk
from tidemill.ingest.hashing import hash_rows, hash_values, mix
from tidemill.problem import Problem, SplitConfig

_SKETCH_SIZE = 1 << 20
_TOP: Final = (1 << 64) - 1
_SIGN: Final = np.uint64(1 << 63)
_MAGNITUDE: Final = (1 << 63) - 1


@dataclass(frozen=True)
class Sketch:
    """Counts of uint64 values, exact up to about a million distinct ones, then at a coarser resolution.

    Attributes:
        values: uint64 [n], sorted, the low ``shift`` bits dropped.
        counts: int64 [n].
        shift: bits dropped.
    """

    values: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint64))
    counts: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    shift: int = 0

    @classmethod
    def of(cls, values: np.ndarray, counts: np.ndarray | None = None) -> Sketch:
        return cls._counted(values, np.ones(len(values), np.int64) if counts is None else counts, 0)

    @classmethod
    def merge(cls, sketches: Iterable[Sketch]) -> Sketch:
        sketches = list(sketches)
        shift = max((s.shift for s in sketches), default=0)
        values = [s.values >> np.uint64(shift - s.shift) for s in sketches] or [np.zeros(0, np.uint64)]
        counts = [s.counts for s in sketches] or [np.zeros(0, np.int64)]
        return cls._counted(np.concatenate(values), np.concatenate(counts), shift)

    @classmethod
    def _counted(cls, values: np.ndarray, counts: np.ndarray, shift: int) -> Sketch:
        order = np.argsort(values)
        values, counts = _grouped(values[order], counts[order])
        if len(values) > _SKETCH_SIZE:
            # Neighbours stay apart as long as the highest bit in which they differ isn't dropped.
            differing = np.frexp((values[1:] ^ values[:-1]).astype(np.float64))[1]
            drop = int(np.partition(differing, len(differing) - _SKETCH_SIZE)[len(differing) - _SKETCH_SIZE])
            values, counts = _grouped(values >> np.uint64(drop), counts)
            shift += drop
        return cls(values, counts, shift)

    def thresholds(self, shares: Sequence[float]) -> np.ndarray:
        """Returns uint64 [len(shares)]: below the i-th lies, as nearly as can be, ``shares[i]`` of the count."""
        below = np.concatenate([[0], np.cumsum(self.counts)])
        edges = [int(np.abs(below - share * below[-1]).argmin()) for share in shares]
        return np.append(self.values << np.uint64(self.shift), np.uint64(_TOP))[edges]


def _grouped(values: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the distinct values of a sorted array and the sum of each one's counts."""
    starts = _starts(values)
    return values[starts], np.add.reduceat(counts, starts) if len(starts) else counts


def _starts(*keys: np.ndarray) -> np.ndarray:
    """Returns where a run of equal keys begins."""
    if not len(keys[0]):
        return np.zeros(0, np.int64)
    return np.flatnonzero(np.append(True, np.any([key[1:] != key[:-1] for key in keys], axis=0)))


@dataclass(frozen=True)
class SplitRule:
    """How the rows of a problem are divided; see the table above.

    Attributes:
        config: method, shares and seed.
        unit: columns in which the rows of a unit agree; without any, a unit is the copies of one row.
        time: the event time column, for temporal splits.
        label: the label column, for stratified splits.
    """

    config: SplitConfig
    unit: tuple[str, ...]
    time: str | None
    label: str

    @classmethod
    def of(cls, problem: Problem) -> SplitRule:
        unit = problem.group or ((problem.split.key,) if problem.split.key else ())
        return cls(problem.split, unit, problem.time, problem.label.output)

    @property
    def shares(self) -> tuple[float, float]:
        """Shares up to the first and the second threshold."""
        return self.config.train, self.config.train + self.config.eval

    @property
    def must_agree(self) -> bool:
        """Whether the rows of a unit have measures that can differ and so must be brought together."""
        return (self.config.method == "random") != bool(self.unit) and self.config.method != "hash"

    def units(self, table: pa.Table, row_hashes: np.ndarray) -> np.ndarray:
        """Returns uint64 [rows]: what the rows of one unit have in common."""
        if not self.unit:
            return row_hashes
        hashes = hash_rows(table, self.unit)
        known = np.zeros(table.num_rows, dtype=bool)
        for name in self.unit:
            known |= one_chunk(table.column(name)).is_valid().to_numpy(zero_copy_only=False)
        return np.where(known, hashes, row_hashes)

    def measures(self, table: pa.Table, positions: np.ndarray) -> np.ndarray:
        """Returns uint64 [rows]: the place (as given), time or class of each row, by method."""
        if self.config.method == "random":
            return positions
        if self.config.method == "temporal":
            return moments(one_chunk(table.column(str(self.time))))[0].view(np.uint64) ^ _SIGN
        if self.config.method == "stratified":
            return hash_values(one_chunk(table.column(self.label)))
        return np.zeros(table.num_rows, np.uint64)

    def agree(self, units: np.ndarray, measures: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Settles one measure per unit: first place, latest time, or most frequent class.

        Args:
            units: uint64 [rows], with all rows of each unit that occurs.
            measures: uint64 [rows].

        Returns:
            By unit: its hash, its measure, its rows, and whether its rows differed.
        """
        order = np.lexsort((measures, units))
        units, measures = units[order], measures[order]
        pairs = _starts(units, measures)
        counts = np.diff(np.append(pairs, len(units)))
        units, measures = units[pairs], measures[pairs]
        starts = _starts(units)
        rows, kinds = np.add.reduceat(counts, starts), np.diff(np.append(starts, len(units)))
        if self.config.method == "random":
            chosen = starts
        elif self.config.method == "temporal":
            chosen = starts + kinds - 1
        else:
            chosen = np.lexsort((-counts, units))[starts]
        return units[starts], measures[chosen], rows, kinds > 1

    def numbers(self, units: np.ndarray, measures: np.ndarray) -> np.ndarray:
        """Returns uint64 [rows]: what is held against the thresholds."""
        if self.config.method == "temporal":
            return measures
        by_place = self.config.method == "random" and not self.unit
        seed = mix(np.array([self.config.seed], np.int64).view(np.uint64))
        return mix((measures if by_place else units) ^ seed)

    def strata(self, measures: np.ndarray) -> np.ndarray:
        """Returns uint64 [rows]: the group of rows whose quantiles are the thresholds."""
        return measures if self.config.method == "stratified" else np.zeros(len(measures), np.uint64)


@dataclass(frozen=True)
class SplitPlan:
    """What must be known of all rows before the first can be assigned.

    Attributes:
        strata: uint64 [strata], sorted.
        thresholds: uint64 [strata, 2].
        units: uint64 [n], sorted: units whose rows differ.
        measures: uint64 [n]: what their rows agreed on.
    """

    strata: np.ndarray
    thresholds: np.ndarray
    units: np.ndarray
    measures: np.ndarray

    @classmethod
    def by_hash(cls, rule: SplitRule) -> SplitPlan:
        """Returns the plan that needs no look at the rows."""
        none = np.zeros(0, np.uint64)
        thresholds = np.array([[min(round(share * 2.0**64), _TOP) for share in rule.shares]], np.uint64)
        return cls(np.zeros(1, np.uint64), thresholds, none, none)

    def assign(self, rule: SplitRule, units: np.ndarray, measures: np.ndarray) -> np.ndarray:
        """Returns int64 [rows]: 0 for train, 1 for eval, 2 for test."""
        if len(self.units):
            place = np.minimum(np.searchsorted(self.units, units), len(self.units) - 1)
            measures = np.where(self.units[place] == units, self.measures[place], measures)
        thresholds = self.thresholds[np.searchsorted(self.strata, rule.strata(measures))]
        return (rule.numbers(units, measures)[:, None] >= thresholds).sum(axis=1)


@dataclass(frozen=True)
class PlanPart:
    """What some rows contribute to a plan: sketches by stratum, and units that had to agree."""

    sketches: Mapping[int, Sketch]
    units: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint64))
    measures: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint64))

    @classmethod
    def of(cls, rule: SplitRule, units: np.ndarray, measures: np.ndarray) -> PlanPart:
        """Returns the part of rows that need no agreement or, with ``rule.must_agree``, of whole units."""
        counts, differed = np.ones(len(units), np.int64), np.zeros(len(units), dtype=bool)
        if rule.must_agree:
            units, measures, counts, differed = rule.agree(units, measures)
        numbers, strata = rule.numbers(units, measures), rule.strata(measures)
        sketches = {
            int(stratum): Sketch.of(numbers[strata == stratum], counts[strata == stratum])
            for stratum in np.unique(strata)
        }
        return cls(sketches, units[differed], measures[differed])

    @classmethod
    def merge(cls, parts: Iterable[PlanPart]) -> PlanPart:
        parts = list(parts)
        keys = sorted({key for part in parts for key in part.sketches})
        sketches = {key: Sketch.merge(p.sketches[key] for p in parts if key in p.sketches) for key in keys}
        empty = [np.zeros(0, np.uint64)]
        units = np.concatenate([p.units for p in parts] or empty)
        return cls(sketches, units, np.concatenate([p.measures for p in parts] or empty))

    def plan(self, rule: SplitRule) -> SplitPlan:
        strata = np.array(sorted(self.sketches), np.uint64)
        thresholds = np.array([self.sketches[int(s)].thresholds(rule.shares) for s in strata], np.uint64)
        order = np.argsort(self.units)
        return SplitPlan(strata, thresholds.reshape(-1, 2), self.units[order], self.measures[order])


def moments(column: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Reads event times: numbers (of any one unit) as they are, ISO 8601 text as microseconds since 1970.

    Returns:
        int64 [rows] that sort as the times do, and bool [rows] of those that have none.
    """
    missing = np.asarray(column.is_null().to_numpy(zero_copy_only=False))
    if pa.types.is_string(column.type):
        parsed = pd.to_datetime(column.to_pandas(), format="ISO8601", utc=True, errors="coerce")
        return parsed.astype("int64").to_numpy() // 1000, missing | parsed.isna().to_numpy()
    numbers = pc.fill_null(column, 0).to_numpy(zero_copy_only=False)
    if pa.types.is_floating(column.type):
        bits = numbers.view(np.int64)  # sorts as the floats do, once the negative ones are turned round
        numbers = np.where(bits < 0, bits ^ np.int64(_MAGNITUDE), bits)
    return numbers, missing
