"""Transformed Parquet as blocks of whole batches, packed into a few matrices.

Columns are packed side by side (all dense features in one float32 matrix, all ids in one int32 matrix), so that
shuffling gathers rows of two matrices and a training step slices two tensors, however many features there are.

Order: the row groups of a split are taken in a random order into windows of about ``WINDOW_BYTES``, whose rows are
permuted. A split that fits one window stays in memory, and its rows are permuted as a whole. The order is a function
of the seed, the epoch, the files and the number of workers alone, so a position in an epoch can be found again by its
number of rows.

Of several workers each has a share: the rows from ``worker / workers`` to ``(worker + 1) / workers`` of the split, so
whole files, then whole row groups of a file, and at its two ends a part of a row group. Shares differ by one row at
most, whatever the files look like; a step takes as many rows of each.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tensorflow as tf

from tidemill.artifacts import parts
from tidemill.errors import DataError, PlatformError
from tidemill.train.context import LabelSummary
from tidemill.train.place import ALONE, Place
from tidemill.train.resampling import chosen, kept_rows
from tidemill.transform.features import TransformedFeature, TransformedFeatures

WINDOW_BYTES = 64 << 20
BLOCK_ROWS = 1 << 16
BLOCK_BYTES = 256 << 20  # which fewer rows come to only where they hold images or thousands of numbers


@dataclass(frozen=True)
class Block:
    """Packed rows.

    Attributes:
        dense: float32 [rows, widths of the dense features].
        ids: int32 [rows, ids and lengths of the bags].
        label: float32 or int64 [rows].
        weight: float32 [rows], or None where every row weighs the same.
        pixels: uint8 [rows, numbers of the images], or None where there are none.
    """

    dense: np.ndarray
    ids: np.ndarray
    label: np.ndarray
    weight: np.ndarray | None
    pixels: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.label)

    def _arrays(self) -> dict[str, np.ndarray]:
        arrays = {"dense": self.dense, "ids": self.ids, "label": self.label}
        optional = {"weight": self.weight, "pixels": self.pixels}
        return arrays | {name: array for name, array in optional.items() if array is not None}

    def __getitem__(self, rows: slice | np.ndarray) -> Block:
        return _block({name: array[rows] for name, array in self._arrays().items()})

    def tensors(self) -> dict[str, tf.Tensor]:
        return {name: tf.convert_to_tensor(array) for name, array in self._arrays().items()}

    def padded(self, rows: int) -> Block:
        """Returns a block of ``rows`` rows, zeros after the block's own."""
        if len(self) == rows:
            return self
        arrays = self._arrays().items()
        return _block({name: np.pad(a, [(0, rows - len(self)), *[(0, 0)] * (a.ndim - 1)]) for name, a in arrays})

    @classmethod
    def concat(cls, blocks: Sequence[Block]) -> Block:
        if len(blocks) == 1:
            return blocks[0]
        each = [block._arrays() for block in blocks]
        return _block({name: np.concatenate([arrays[name] for arrays in each]) for name in each[0]})


def _block(arrays: Mapping[str, np.ndarray]) -> Block:
    return Block(arrays["dense"], arrays["ids"], arrays["label"], arrays.get("weight"), arrays.get("pixels"))


@dataclass(frozen=True)
class Packing:
    """Where each feature's columns lie in a :class:`Block`."""

    described: TransformedFeatures

    @cached_property
    def dense(self) -> tuple[TransformedFeature, ...]:
        return tuple(f for f in self.described.features if f.kind == "dense")

    @cached_property
    def ids(self) -> tuple[TransformedFeature, ...]:
        return tuple(f for f in self.described.features if f.kind in ("ids", "bag"))

    @cached_property
    def images(self) -> tuple[TransformedFeature, ...]:
        return tuple(f for f in self.described.features if f.kind == "image")

    @property
    def label_dtype(self) -> str:
        return "int64" if self.described.task == "multiclass_classification" else "float32"

    def empty(self, weighted: bool) -> Block:
        """Returns a block without rows."""
        return _block({name: tensor.numpy() for name, tensor in self.zeros(0, weighted).items()})

    def zeros(self, rows: int, weighted: bool) -> dict[str, tf.Tensor]:
        """Returns the tensors of ``rows`` rows that are all zero."""
        specs = self.specs(weighted).items()
        return {name: tf.zeros([rows, *spec.shape[1:]], spec.dtype) for name, spec in specs}

    @property
    def columns(self) -> list[str]:
        weight = [self.described.weight] if self.described.weight else []
        return [*(f.name for f in self.described.features), self.described.label, *weight]

    @property
    def row_bytes(self) -> int:
        numbers = sum(f.size for f in self.dense) + sum(max(f.length, 1) for f in self.ids)
        return 4 * numbers + sum(f.size for f in self.images) + 16

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
        if weighted:
            specs["weight"] = tf.TensorSpec([None], tf.float32)
        if self.images:
            specs["pixels"] = tf.TensorSpec([None, sum(f.size for f in self.images)], tf.uint8)
        return specs

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
        pixels = [_values(table, f.name, np.uint8, f.size) for f in self.images]
        return Block(
            _side_by_side(dense, len(label), np.float32),
            _side_by_side(ids, len(label), np.int32),
            label,
            weight,
            np.concatenate(pixels, axis=1) if pixels else None,
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
        if self.images:
            sizes = [f.size for f in self.images]
            for feature, part in zip(self.images, tf.split(tensors["pixels"], sizes, axis=1), strict=True):
                inputs[feature.name] = tf.cast(tf.reshape(part, [-1, *feature.shape]), tf.float32)
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
    """The rows from ``first`` on of one row group of a Parquet file.

    Where ``kept`` says how many rows of each class are trained on, of those alone; ``number`` is that of the row group
    among all of the split then.
    """

    path: Path
    index: int
    rows: int
    first: int = 0
    kept: tuple[int, ...] = ()
    number: int = 0


class Examples:
    """One split of transformed examples, or a worker's share of it.

    Args:
        transformed: the artefact.
        split: train, eval or test.
        packing: what the rows hold.
        class_weights: see :meth:`Packing.pack`.
        weight_scale: see :meth:`Packing.pack`.
        place: whose share.
        kept: share of the rows by class that are trained on; see `tidemill.train.resampling`. Empty for all.

    Attributes:
        rows: of the share, in an epoch.
        total: rows of the whole split, in an epoch.
    """

    def __init__(
        self,
        transformed: Path,
        split: str,
        packing: Packing,
        class_weights: np.ndarray | None = None,
        weight_scale: float = 1.0,
        place: Place = ALONE,
        kept: Sequence[float] = (),
    ) -> None:
        self.packing, self._place = packing, place
        self._weights = (class_weights, weight_scale)
        groups = [group for path in parts(transformed, split) for group in _row_groups(path)]
        if kept:
            groups = _thinned(groups, packing.described, kept)
        self.total = sum(group.rows for group in groups)
        bounds = [self.total * worker // place.workers for worker in range(place.workers + 1)]
        self._shares = np.diff(bounds)
        self._groups = _between(groups, bounds[place.worker], bounds[place.worker + 1])
        self.rows = sum(group.rows for group in self._groups)
        self._kept: Block | None = None

    @property
    def weighted(self) -> bool:
        return bool(self.packing.described.weight) or self._weights[0] is not None

    def steps(self, batch_size: int) -> int:
        """Returns the steps in which all workers have taken their shares, ``batch_size`` rows of each per step."""
        return -(-int(self._shares.max()) // batch_size)

    def examples(self, batch_size: int, first: int, count: int) -> np.ndarray:
        """Returns the rows of all workers together in ``count`` steps of an epoch: int32 [count].

        Args:
            batch_size: rows per step of each worker.
            first: the first of the steps.
        """
        begun = (first + np.arange(count))[:, None] * batch_size
        rows: np.ndarray = np.clip(self._shares - begun, 0, batch_size).sum(axis=1).astype(np.int32)
        return rows

    def blocks(self, batch_size: int, order: tuple[int, int] | None = None, skip: int = 0) -> Iterator[Block]:
        """Yields every row of the share once, in blocks of whole batches; only the last batch of all may be smaller.

        Blocks end at multiples of :func:`block_steps` steps of the epoch, so all workers yield as many, the last of
        which may be empty, and an epoch that is entered in the middle goes on with the same blocks.

        Args:
            batch_size: rows per batch.
            order: seed and epoch of a random order; the order of the files by default.
            skip: rows to leave out at the start, a multiple of ``batch_size``. Windows among them aren't read.
        """
        generator = np.random.default_rng([*order, *self._place.salt]) if order else None
        size = block_steps(batch_size, self.packing.row_bytes) * batch_size
        end = self.steps(batch_size) * batch_size
        position = min(skip, end)
        parts: list[Block] = []
        for window, rows in self._windows(generator, skip, order or (0, 0)):
            while len(rows):
                missing = size - position % size
                parts.append(window[rows[:missing]])
                rows = rows[missing:]
                position += len(parts[-1])
                if position % size == 0:
                    yield Block.concat(parts)
                    parts = []
        if position < end or parts:
            yield Block.concat(parts) if parts else self.packing.empty(self.weighted)

    def _windows(
        self, generator: np.random.Generator | None, skip: int, epoch: tuple[int, int]
    ) -> Iterator[tuple[Block, np.ndarray]]:
        """Yields windows, each with the order of its rows that are not skipped."""
        plan: list[tuple[list[_Group], np.ndarray]] = []
        for groups in self._plan(generator):
            rows = sum(group.rows for group in groups)
            order = generator.permutation(rows) if generator else np.arange(rows)
            if skip < rows:
                plan.append((groups, order[skip:]))
            skip = max(0, skip - rows)
        with ThreadPoolExecutor(1, thread_name_prefix="examples") as reader:
            ahead = [reader.submit(self._read, groups, epoch) for groups, _ in plan[:1]]
            for i, (_, order) in enumerate(plan):
                window = ahead.pop().result()
                ahead = [reader.submit(self._read, groups, epoch) for groups, _ in plan[i + 1 : i + 2]]
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

    def _read(self, groups: Sequence[_Group], epoch: tuple[int, int]) -> Block:
        if self._kept is not None:
            return self._kept
        columns = self.packing.columns
        blocks = []
        for group in groups:
            with pq.ParquetFile(group.path, memory_map=True, pre_buffer=False) as file:
                table = file.read_row_group(group.index, columns=columns, use_threads=False)
            if group.kept:
                labels = _values(table, self.packing.described.label, np.int64, 1)[:, 0]
                table = table.take(pa.array(chosen(labels, group.kept, [*epoch, group.number])))
            table = table.slice(group.first, group.rows)
            blocks.append(self.packing.pack(table, *self._weights))
        block = Block.concat(blocks)
        if len(groups) == len(self._groups) and not any(group.kept for group in groups):
            self._kept = block
        return block


def _row_groups(path: Path) -> list[_Group]:
    try:
        metadata = pq.read_metadata(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise PlatformError(str(path), "is not a whole Parquet file", str(error), "run transform again") from error
    groups = (_Group(path, i, metadata.row_group(i).num_rows) for i in range(metadata.num_row_groups))
    return [group for group in groups if group.rows]


def _thinned(groups: Sequence[_Group], described: TransformedFeatures, kept: Sequence[float]) -> list[_Group]:
    """Returns the row groups with what each gives to an epoch, without those that give nothing."""
    counts = []
    for group in groups:
        with pq.ParquetFile(group.path, pre_buffer=False) as file:
            labels = _values(file.read_row_group(group.index, [described.label]), described.label, np.int64, 1)[:, 0]
        counts.append(np.bincount(labels, minlength=len(kept)))
    rows = kept_rows(kept, np.array(counts))
    thinned = (
        replace(group, rows=int(given.sum()), kept=tuple(map(int, given)), number=i)
        for i, (group, given) in enumerate(zip(groups, rows, strict=True))
    )
    return [group for group in thinned if group.rows]


def _between(groups: Sequence[_Group], start: int, stop: int) -> list[_Group]:
    """Returns the row groups, cut where need be, that hold the rows from ``start`` to ``stop`` of all of them."""
    found, first = [], 0
    for group in groups:
        begin, end = max(start - first, 0), min(stop - first, group.rows)
        if begin < end:
            found.append(replace(group, rows=end - begin, first=begin))
        first += group.rows
    return found


def block_steps(batch_size: int, row_bytes: int) -> int:
    """Returns the steps of a block."""
    return max(1, min(BLOCK_ROWS, BLOCK_BYTES // row_bytes) // batch_size)


def ahead(blocks: Iterator[Block]) -> Iterator[Block]:
    """Yields the blocks, each of which is made while the caller has the one before it."""
    with ThreadPoolExecutor(1, thread_name_prefix="blocks") as maker:
        coming = maker.submit(next, blocks, None)
        while (block := coming.result()) is not None:
            coming = maker.submit(next, blocks, None)
            yield block


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
