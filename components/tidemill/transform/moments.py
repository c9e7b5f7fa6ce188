"""Mean, deviation and extremes of all numeric columns out of one analyzer.

``tft.mean``, ``tft.var`` and ``tft.max`` are four analyzers with a dozen Beam stages each; in a small run these, and
not the rows, are what takes the time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import apache_beam as beam
import numpy as np
import tensorflow as tf
import tensorflow_transform as tft


@dataclass
class Moments:
    """Moments per column, float64 [columns] each; ``squares`` is the sum of squared deviations from the mean."""

    count: np.ndarray
    mean: np.ndarray
    squares: np.ndarray
    lowest: np.ndarray
    highest: np.ndarray

    @classmethod
    def of(cls, values: np.ndarray) -> Moments:
        """Returns the moments of values [rows, columns]; NaN is no value."""
        present = ~np.isnan(values)
        count = present.sum(axis=0)
        mean = values.sum(axis=0, where=present) / np.maximum(count, 1)
        squares = np.square(values - mean).sum(axis=0, where=present)
        lowest = values.min(axis=0, where=present, initial=np.inf)
        highest = values.max(axis=0, where=present, initial=-np.inf)
        return cls(count, mean, squares, lowest, highest)

    def __add__(self, other: Moments) -> Moments:
        """Joins the moments of two sets of rows. Definition: Chan, Golub and LeVeque 1979."""
        count = self.count + other.count
        share = other.count / np.maximum(count, 1)
        delta = other.mean - self.mean
        return Moments(
            count,
            self.mean + delta * share,
            self.squares + other.squares + np.square(delta) * self.count * share,
            np.minimum(self.lowest, other.lowest),
            np.maximum(self.highest, other.highest),
        )


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
        deviation = np.sqrt(accumulator.squares / np.maximum(accumulator.count, 1))
        return np.stack([accumulator.mean, deviation, accumulator.lowest, accumulator.highest])


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
