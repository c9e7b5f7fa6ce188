"""Transformed Parquet as blocks of whole batches, packed into a few matrices.

Columns are packed side by side (all dense features in one float32 matrix, all ids in one int32 matrix), so that
shuffling gathers rows of two matrices and a training step slices two tensors, however many features there are.

Order: the row groups of a split are taken in a random order into windows of about ``WINDOW_BYTES``, whose rows are
permuted. A split that fits one window stays in memory, and its rows are permuted as a whole. The order is a function
of the seed, the epoch and the files alone, so a position in an epoch can be found again by its number of rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tensorflow as tf

from tidemill.artifacts import parts
from tidemill.errors import DataError, PlatformError
from tidemill.train.context import LabelSummary
from tidemill.transform.features import TransformedFeature, TransformedFeatures

WINDOW_BYTES = 64 << 20
BLOCK_ROWS = 1 << 16


@dataclass(frozen=True)
class Block:
    """Packed rows.

    Attributes:
        dense: float32 [rows, widths of the dense features].
        ids: int32 [rows, ids and lengths of the bags].
        label: float32 or int64 [rows].
        weight: float32 [rows], or None where every row weighs the same.
    """

    dense: np.ndarray
    ids: np.ndarray
    label: np.ndarray
    weight: np.ndarray | None

    def __len__(self) -> int:
        return len(self.label)

    def _arrays(self) -> dict[str, np.ndarray]:
        arrays = {"dense": self.dense, "ids": self.ids, "label": self.label}
        return arrays if self.weight is None else {**arrays, "weight": self.weight}

    def __getitem__(self, rows: slice | np.ndarray) -> Block:
        return _block({name: array[rows] for name, array in self._arrays().items()})

    def tensors(self) -> dict[str, tf.Tensor]:
        return {name: tf.convert_to_tensor(array) for name, array in self._arrays().items()}

    @classmethod
    def concat(cls, blocks: Sequence[Block]) -> Block:
        if len(blocks) == 1:
            return blocks[0]
        each = [block._arrays() for block in blocks]
        return _block({name: np.concatenate([arrays[name] for arrays in each]) for name in each[0]})


def _block(arrays: Mapping[str, np.ndarray]) -> Block:
    return Block(arrays["dense"], arrays["ids"], arrays["label"], arrays.get("weight"))


@dataclass(frozen=True)
class Packing:
    """Where each feature's columns lie in a :class:`Block`."""

    described: TransformedFeatures

    @cached_property
    def dense(self) -> tuple[TransformedFeature, ...]:
        return tuple(f for f in self.described.features if f.kind == "dense")

    @cached_property
    def ids(self) -> tuple[TransformedFeature, ...]:
        return tuple(f for f in self.described.features if f.kind != "dense")

    @property
    def label_dtype(self) -> str:
        return "int64" if self.described.task == "multiclass_classification" else "float32"

    @property
    def columns(self) -> list[str]:
        weight = [self.described.weight] if self.described.weight else []
        return [*(f.name for f in self.described.features), self.described.label, *weight]

    @property
    def row_bytes(self) -> int:
        return 4 * (sum(f.size for f in self.dense) + sum(max(f.length, 1) for f in self.ids)) + 16

    def dense_name(self, column: int) -> str:
        """Returns the feature that a column of ``Block.dense`` belongs to."""
        return [f.name for f in self.dense for _ in range(f.size)][column]

    def specs(self, weighted: bool) -> dict[str, tf.TensorSpec]:
        """Returns the tensor specs of a block."""
        specs = {
            "dense": tf.TensorSpec([None, sum(f.size for f in self.dense)], tf.float32),
            "ids": tf.TensorSpec([None, sum(max(f.length, 1) for f in self.ids)], tf.int32),
            "label": tf.TensorSpec([None], self.label_dtype),
        }
        return {**specs, "weight": tf.TensorSpec([None], tf.float32)} if weighted else specs

    def pack(self, table: pa.Table, class_weights: np.ndarray | None, weight_scale: float) -> Block:
        """Packs a table of transformed examples.

        Args:
            class_weights: float32 [classes], multiplied onto the example weights.
            weight_scale: what all weights are multiplied with.
        """
        dense = [_values(table, f.name, np.float32, f.size) for f in self.dense]
        ids = [_values(table, f.name, np.int32, max(f.length, 1)) for f in self.ids]
        label = _values(table, self.described.label, np.dtype(self.label_dtype), 1)[:, 0]
        weight = None
        if self.described.weight or class_weights is not None:
            weight = np.full(len(label), weight_scale, np.float32)
            if self.described.weight:
                weight *= _values(table, self.described.weight, np.float32, 1)[:, 0]
            if class_weights is not None:
                weight *= class_weights[label.astype(np.int64)]
        return Block(
            _side_by_side(dense, len(label), np.float32), _side_by_side(ids, len(label), np.int32), label, weight
        )

    def unpack(self, tensors: Mapping[str, tf.Tensor]) -> tuple[dict[str, tf.Tensor], tf.Tensor, tf.Tensor | None]:
        """Takes a batch of packed tensors apart into the model's inputs, labels and example weights."""
        inputs = {}
        dense, ids = tensors["dense"], tf.cast(tensors["ids"], tf.int64)
        if self.dense:
            for feature, part in zip(self.dense, tf.split(dense, [f.size for f in self.dense], axis=1), strict=True):
                inputs[feature.name] = part if feature.size > 1 else part[:, 0]
        if self.ids:
            lengths = [max(f.length, 1) for f in self.ids]
            for feature, part in zip(self.ids, tf.split(ids, lengths, axis=1), strict=True):
                inputs[feature.name] = part if feature.kind == "bag" else part[:, 0]
        label = tensors["label"]
        label = label if self.label_dtype == "int64" else label[:, tf.newaxis]
        return {f.name: inputs[f.name] for f in self.described.features}, label, tensors.get("weight")


def _values(table: pa.Table, name: str, dtype: np.dtype | type, width: int) -> np.ndarray:
    """Returns a column as [rows, width]."""
    column = table.column(name).combine_chunks()
    if isinstance(column, pa.ChunkedArray):
        column = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    if column.null_count:
        raise DataError(f"transformed examples: {name}", "has no value in some rows", f"{column.null_count} nulls")
    values = column.flatten() if pa.types.is_fixed_size_list(column.type) else column
    return values.to_numpy(zero_copy_only=False).astype(dtype, copy=False).reshape(-1, width)


def _side_by_side(columns: Sequence[np.ndarray], rows: int, dtype: type) -> np.ndarray:
    return np.concatenate(columns, axis=1) if columns else np.empty((rows, 0), dtype)


@dataclass(frozen=True)
class _Group:
    """One row group of a Parquet file."""

    path: Path
    index: int
    rows: int


class Examples:
    """One split of transformed examples.

    Args:
        transformed: the artefact.
        split: train, eval or test.
        packing: what the rows hold.
        class_weights: see :meth:`Packing.pack`.
        weight_scale: see :meth:`Packing.pack`.
    """

    def __init__(
        self,
        transformed: Path,
        split: str,
        packing: Packing,
        class_weights: np.ndarray | None = None,
        weight_scale: float = 1.0,
    ) -> None:
        self.packing = packing
        self._weights = (class_weights, weight_scale)
        self._groups = [group for path in parts(transformed, split) for group in _row_groups(path)]
        self.rows = sum(group.rows for group in self._groups)
        self._kept: Block | None = None

    @property
    def weighted(self) -> bool:
        return bool(self.packing.described.weight) or self._weights[0] is not None

    def blocks(self, batch_size: int, order: tuple[int, int] | None = None, skip: int = 0) -> Iterator[Block]:
        """Yields every row once, in blocks of whole batches; only the last batch of the last block may be smaller.

        Args:
            batch_size: rows per batch.
            order: seed and epoch of a random order; the order of the files by default.
            skip: rows to leave out at the start, a multiple of ``batch_size``. Windows among them aren't read.
        """
        generator = np.random.default_rng(order) if order else None
        size = max(1, BLOCK_ROWS // batch_size) * batch_size
        carried: list[Block] = []
        left = self.rows - skip
        for window, rows in self._windows(generator, skip):
            for start in range(0, len(rows), size):
                block = Block.concat([*carried, window[rows[start : start + size]]])
                whole = len(block) if len(block) == left else len(block) // batch_size * batch_size
                carried = [block[whole:]] if whole < len(block) else []
                left -= whole
                if whole:
                    yield block[:whole]

    def _windows(self, generator: np.random.Generator | None, skip: int) -> Iterator[tuple[Block, np.ndarray]]:
        """Yields windows, each with the order of its rows that are not skipped."""
        plan: list[tuple[list[_Group], np.ndarray]] = []
        for groups in self._plan(generator):
            rows = sum(group.rows for group in groups)
            order = generator.permutation(rows) if generator else np.arange(rows)
            if skip < rows:
                plan.append((groups, order[skip:]))
            skip = max(0, skip - rows)
        with ThreadPoolExecutor(1, thread_name_prefix="examples") as reader:
            ahead = [reader.submit(self._read, groups) for groups, _ in plan[:1]]
            for i, (_, order) in enumerate(plan):
                window = ahead.pop().result()
                ahead = [reader.submit(self._read, groups) for groups, _ in plan[i + 1 : i + 2]]
                yield window, order

    def _plan(self, generator: np.random.Generator | None) -> Iterator[list[_Group]]:
        limit = WINDOW_BYTES // self.packing.row_bytes
        if self.rows <= limit:
            yield self._groups
            return
        order = generator.permutation(len(self._groups)) if generator else range(len(self._groups))
        window: list[_Group] = []
        for group in (self._groups[i] for i in order):
            if window and sum(g.rows for g in window) + group.rows > limit:
                yield window
                window = []
            window.append(group)
        yield window

    def _read(self, groups: Sequence[_Group]) -> Block:
        if self._kept is not None:
            return self._kept
        columns = self.packing.columns
        blocks = []
        for group in groups:
            with pq.ParquetFile(group.path, memory_map=True, pre_buffer=False) as file:
                table = file.read_row_group(group.index, columns=columns, use_threads=False)
            blocks.append(self.packing.pack(table, *self._weights))
        block = Block.concat(blocks)
        if len(groups) == len(self._groups):
            self._kept = block
        return block


def _row_groups(path: Path) -> list[_Group]:
    try:
        metadata = pq.read_metadata(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise PlatformError(str(path), "is not a whole Parquet file", str(error), "run transform again") from error
    groups = (_Group(path, i, metadata.row_group(i).num_rows) for i in range(metadata.num_row_groups))
    return [group for group in groups if group.rows]


def summarize_labels(transformed: Path, described: TransformedFeatures) -> LabelSummary:
    """Reads the labels and weights of the training split, and nothing else.

    Raises:
        DataError: if there is no row, a label is missing or out of range, there is only one class, or the weights
            are not positive in sum.
    """
    columns = [described.label, *([described.weight] if described.weight else [])]
    rows, total, square, weight_sum = 0, 0.0, 0.0, 0.0
    counts = np.zeros(len(described.classes), np.int64)
    for path in parts(transformed, "train"):
        with pq.ParquetFile(path, pre_buffer=False) as file:
            for batch in file.iter_batches(1 << 18, columns=columns):
                table = pa.Table.from_batches([batch])
                label = _values(table, described.label, np.float64, 1)[:, 0]
                _check_labels(label, described)
                if described.classes:
                    counts += np.bincount(label.astype(np.int64), minlength=len(counts))
                rows += len(label)
                total += float(label.sum())
                square += float(np.square(label).sum())
                weight_sum += _weight_sum(table, described) if described.weight else len(label)
    _check_counts(rows, counts, weight_sum, described)
    mean = total / rows
    return LabelSummary(rows, mean, max(0.0, square / rows - mean**2) ** 0.5, tuple(map(int, counts)), weight_sum)


def _check_labels(label: np.ndarray, described: TransformedFeatures) -> None:
    where = f"transformed examples: {described.label}"
    if not np.isfinite(label).all():
        raise DataError(where, "every label must be finite", f"{int((~np.isfinite(label)).sum())} are not")
    if described.classes and not np.isin(label, np.arange(len(described.classes))).all():
        raise DataError(where, f"labels must be one of the {len(described.classes)} class indices", str(label.max()))


def _weight_sum(table: pa.Table, described: TransformedFeatures) -> float:
    assert described.weight is not None
    weight = _values(table, described.weight, np.float64, 1)
    if not (np.isfinite(weight).all() and (weight >= 0).all()):
        raise DataError(f"transformed examples: {described.weight}", "weights must be finite and not negative")
    return float(weight.sum())


def _check_counts(rows: int, counts: np.ndarray, weight_sum: float, described: TransformedFeatures) -> None:
    if not rows:
        raise DataError("training split", "has no rows", remedy="give more data or a larger share to `split.train`")
    present = [name for name, count in zip(described.classes, counts, strict=True) if count]
    if described.classes and len(present) < 2:
        raise DataError("training split", "needs at least two classes of the label", f"only {present[0]!r}")
    if weight_sum <= 0:
        raise DataError("training split", "the example weights must not all be 0")
