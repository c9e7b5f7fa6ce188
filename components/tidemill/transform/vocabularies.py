"""Vocabularies of all columns out of one analyzer.

``tft.vocabulary`` builds a dozen Beam stages per column and hands every token to Beam as a Python object. Here one
combiner counts the tokens of all columns in Arrow.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import tensorflow as tf
import tensorflow_transform as tft
from tensorflow_transform.beam.experimental import PTransformAnalyzer

from tidemill.transform.columns import MISSING_TOKEN

_COMPACT_ROWS: Final = 1 << 18
_MAX_DISTINCT: Final = 1 << 21


@dataclass(frozen=True)
class VocabularySpec:
    """What goes into a vocabulary.

    Attributes:
        file: the name of its asset file, unique in the graph.
        max_size: the most frequent tokens that are kept; those of equal frequency in the order of their bytes.
        min_frequency: rarer tokens are left out.
    """

    file: str
    max_size: int
    min_frequency: int = 1


@dataclass
class TokenCounts:
    """Counts of the tokens of one column; exact up to two million distinct tokens, then the rarest are forgotten."""

    counted: list[pa.Table] = field(default_factory=list)
    rows: int = 0

    def add(self, tokens: np.ndarray) -> None:
        """Adds a batch of tokens (bytes, of any shape)."""
        counts = pa.array(tokens.ravel(), pa.binary()).value_counts()
        self._extend([pa.table({"token": counts.field("values"), "count": counts.field("counts")})])

    def merge(self, other: TokenCounts) -> None:
        self._extend(other.counted)

    def compact(self) -> None:
        if len(self.counted) > 1:
            table = pa.concat_tables(self.counted).group_by("token").aggregate([("count", "sum")])
            table = table.rename_columns(["token", "count"])
            if table.num_rows > _MAX_DISTINCT:
                table = _most_frequent(table, _MAX_DISTINCT // 2)
            self.counted, self.rows = [table.combine_chunks()], table.num_rows

    def vocabulary(self, spec: VocabularySpec) -> list[bytes]:
        """Returns the tokens, most frequent first."""
        self.compact()
        if not self.counted:
            return []
        table = self.counted[0]
        # A token with a line break would be two in the file; it stays out of vocabulary.
        broken = pc.or_(
            pc.match_substring_regex(table["token"], r"[\r\n]"), pc.equal(pc.binary_length(table["token"]), 0)
        )
        keep = pc.and_(pc.invert(broken), pc.greater_equal(table["count"], spec.min_frequency))
        keep = pc.and_(keep, pc.not_equal(table["token"], pa.scalar(MISSING_TOKEN.encode(), pa.binary())))
        tokens: list[bytes] = _most_frequent(table.filter(keep), spec.max_size)["token"].to_pylist()
        return tokens

    def _extend(self, tables: list[pa.Table]) -> None:
        self.counted += tables
        self.rows += sum(table.num_rows for table in tables)
        # The last compaction's result is the first table; waiting until as much was added keeps the work linear.
        if self.counted and self.rows > max(_COMPACT_ROWS, 2 * self.counted[0].num_rows):
            self.compact()


def _most_frequent(table: pa.Table, size: int) -> pa.Table:
    order = pc.sort_indices(table, sort_keys=[("count", "descending"), ("token", "ascending")])
    return table.take(order[:size])


class CountTokens(beam.CombineFn):
    """Batches of tokens, a tuple of arrays with one per column, to the vocabulary of every column."""

    def __init__(self, specs: Sequence[VocabularySpec]) -> None:
        self._specs = tuple(specs)

    def create_accumulator(self) -> list[TokenCounts]:
        return [TokenCounts() for _ in self._specs]

    def add_input(self, accumulator: list[TokenCounts], element: Sequence[np.ndarray]) -> list[TokenCounts]:
        for counts, tokens in zip(accumulator, element, strict=True):
            counts.add(tokens)
        return accumulator

    def merge_accumulators(self, accumulators: Iterable[list[TokenCounts]]) -> list[TokenCounts]:
        first, *others = accumulators
        for other in others:
            for counts, more in zip(first, other, strict=True):
                counts.merge(more)
        return first

    def compact(self, accumulator: list[TokenCounts]) -> list[TokenCounts]:
        for counts in accumulator:
            counts.compact()
        return accumulator

    def extract_output(self, accumulator: list[TokenCounts]) -> list[list[bytes]]:
        return [counts.vocabulary(spec) for counts, spec in zip(accumulator, self._specs, strict=True)]


class WriteVocabularies(PTransformAnalyzer):
    """Analyses batches of tokens to one PCollection per column that holds the path of its vocabulary file."""

    def __init__(self, specs: Sequence[VocabularySpec]) -> None:
        super().__init__()
        self._specs = tuple(specs)

    def expand(self, batches: beam.PCollection[Sequence[np.ndarray]]) -> tuple[beam.PCollection[np.ndarray], ...]:
        vocabularies = batches | "Count" >> beam.CombineGlobally(CountTokens(self._specs))
        return tuple(
            vocabularies | f"Write[{spec.file}]" >> beam.Map(_write, i, spec, self.base_temp_dir)
            for i, spec in enumerate(self._specs)
        )


def _write(vocabularies: list[list[bytes]], index: int, spec: VocabularySpec, directory: str) -> np.ndarray:
    path = f"{directory}/{spec.file}"
    tf.io.gfile.makedirs(directory)
    with tf.io.gfile.GFile(path, "wb") as file:
        file.write(b"".join(token + b"\n" for token in [MISSING_TOKEN.encode(), *vocabularies[index]]))
    return np.array(path, object)


def analyse_vocabularies(columns: Sequence[tf.Tensor], specs: Sequence[VocabularySpec]) -> list[tf.Tensor]:
    """Returns, while tf.Transform traces, the tensors that will hold the vocabularies' paths.

    Args:
        columns: tokens per vocabulary, of any shape. ``MISSING_TOKEN`` and empty ones are not counted.
        specs: one per column. Line 0 of each file is ``MISSING_TOKEN``, so that no file is ever empty.
    """
    for spec in specs:
        tft.annotate_asset(spec.file, spec.file)
    outputs: list[tf.Tensor] = tft.experimental.ptransform_analyzer(
        inputs=list(columns),
        ptransform=WriteVocabularies(specs),
        output_dtypes=[tf.string] * len(specs),
        output_shapes=[[]] * len(specs),
        output_asset_default_values=[MISSING_TOKEN.encode()] * len(specs),
        name="vocabularies",
    )
    return outputs


def read_vocabulary(transform_fn: Path, file: str) -> list[str]:
    """Reads a vocabulary out of a written transform graph, ``MISSING_TOKEN`` first."""
    return (transform_fn / "assets" / file).read_text(encoding="utf-8", errors="replace").split("\n")[:-1]
