"""Mean, deviation and extremes of all numeric columns out of one analyzer.

``tft.mean``, ``tft.var`` and ``tft.max`` are four analyzers with a dozen Beam stages each; in a small run these, and
not the rows, are what takes the time.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

import apache_beam as beam
import numpy as np
import tensorflow as tf
import tensorflow_transform as tft


@dataclass
class Moments:
    """Moments per column, which are joined exactly, so that the order of joining is nothing that a result hangs on.

    Attributes:
        count: int64 [columns].
        total: sum of the values of each column.
        squares: sum of their squares.
        lowest: float64 [columns].
        highest: float64 [columns].
    """

    count: np.ndarray
    total: list[Fraction]
    squares: list[Fraction]
    lowest: np.ndarray
    highest: np.ndarray

    @classmethod
    def of(cls, values: np.ndarray) -> Moments:
        """Returns the moments of values [rows, columns]; NaN is no value.

        Within the batch floats are summed around their mean, after scaling by a power of two: nothing is cancelled
        and nothing overflows.
        """
        present = ~np.isnan(values)
        count = present.sum(axis=0)
        lowest = values.min(axis=0, where=present, initial=np.inf)
        highest = values.max(axis=0, where=present, initial=-np.inf)
        _, exponent = np.frexp(np.where(count > 0, np.maximum(np.abs(lowest), np.abs(highest)), 0.0))
        scaled = np.ldexp(values, -exponent)
        mean = scaled.sum(axis=0, where=present) / np.maximum(count, 1)
        around = scaled - mean
        rest, squares = around.sum(axis=0, where=present), np.square(around).sum(axis=0, where=present)
        columns = zip(count.tolist(), exponent.tolist(), mean, rest, squares, strict=True)
        sums = [_sums(n, Fraction(2) ** e, Fraction(m), Fraction(r), Fraction(s)) for n, e, m, r, s in columns]
        return cls(count, [total for total, _ in sums], [square for _, square in sums], lowest, highest)

    def __add__(self, other: Moments) -> Moments:
        return Moments(
            self.count + other.count,
            [a + b for a, b in zip(self.total, other.total, strict=True)],
            [a + b for a, b in zip(self.squares, other.squares, strict=True)],
            np.minimum(self.lowest, other.lowest),
            np.maximum(self.highest, other.highest),
        )

    def mean(self) -> list[float]:
        """Returns the mean of each column, correctly rounded; 0 without values."""
        return [float(t / max(n, 1)) for t, n in zip(self.total, self.count.tolist(), strict=True)]

    def deviation(self) -> list[float]:
        """Returns the population's standard deviation of each column; infinite where its square is."""
        columns = zip(self.total, self.squares, self.count.tolist(), strict=True)
        return [_root(s / max(n, 1) - (t / max(n, 1)) ** 2) for t, s, n in columns]


def _sums(count: int, scale: Fraction, mean: Fraction, rest: Fraction, squares: Fraction) -> tuple[Fraction, Fraction]:
    """Returns the sums of values and of their squares from those around a mean, of scaled values."""
    return (count * mean + rest) * scale, (squares + 2 * mean * rest + count * mean**2) * scale**2


def _root(square: Fraction) -> float:
    try:
        return math.sqrt(max(square, Fraction(0)))
    except OverflowError:
        return math.inf


class CombineMoments(beam.CombineFn):
    """Batches of numbers, a tuple of one float64 array [rows, columns], to [mean, deviation, lowest, highest]."""

    def __init__(self, columns: int) -> None:
        self._columns = columns

    def create_accumulator(self) -> Moments:
        return Moments.of(np.empty([0, self._columns]))

    def add_input(self, accumulator: Moments, element: Sequence[np.ndarray]) -> Moments:
        return accumulator + Moments.of(element[0])

    def merge_accumulators(self, accumulators: Iterable[Moments]) -> Moments:
        return sum(accumulators, self.create_accumulator())

    def extract_output(self, accumulator: Moments) -> np.ndarray:
        moments = [accumulator.mean(), accumulator.deviation(), accumulator.lowest, accumulator.highest]
        return np.array(moments, np.float64)


class AnalyseMoments(beam.PTransform):
    """Batches of numbers to one float64 array [4, columns]."""

    def __init__(self, columns: int) -> None:
        super().__init__()
        self._columns = columns

    def expand(self, batches: beam.PCollection[Sequence[np.ndarray]]) -> beam.PCollection[np.ndarray]:
        return batches | "Combine" >> beam.CombineGlobally(CombineMoments(self._columns))


class MomentTensors(NamedTuple):
    """float64 [columns] each; the deviation is the population's."""

    mean: tf.Tensor
    deviation: tf.Tensor
    lowest: tf.Tensor
    highest: tf.Tensor


def analyse_moments(values: tf.Tensor) -> MomentTensors:
    """Returns, while tf.Transform traces, the tensors that will hold the moments.

    Args:
        values: float64 [batch, columns], NaN where missing; every column needs a value somewhere.
    """
    columns = int(values.shape[1])
    (moments,) = tft.experimental.ptransform_analyzer(
        inputs=[values],
        ptransform=AnalyseMoments(columns),
        output_dtypes=[tf.float64],
        output_shapes=[[4, columns]],
        name="moments",
    )
    return MomentTensors(*tf.unstack(moments, num=4))
