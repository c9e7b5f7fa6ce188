"""What tf.Transform is to compute: the defaults of the problem, or the user's preprocessing_fn."""

from __future__ import annotations

import math
import re
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import tensorflow as tf
import tensorflow_transform as tft
from tensorflow_transform import schema_inference

from tidemill.errors import DataError, UserCodeError
from tidemill.features import Bucketized, Categorical, Crossed, Date, Feature, Image, Numeric, Text, source_columns
from tidemill.pictures import pixels
from tidemill.problem import Problem
from tidemill.transform import categories, dates, scaling
from tidemill.transform.columns import Presence, dense, numbers, tokens
from tidemill.transform.features import FeatureKind, RawType, TransformedFeature
from tidemill.transform.graph import TRANSFORM_FN
from tidemill.transform.vocabularies import read_vocabulary
from tidemill.windows import lagged

Inputs = Mapping[str, tf.SparseTensor]
Outputs = dict[str, tf.Tensor]


class Preprocessing(ABC):
    """A preprocessing function that tf.Transform may trace several times, and a description of what it puts out."""

    @abstractmethod
    def __call__(self, inputs: Inputs) -> Outputs:
        """Builds the graph."""

    @abstractmethod
    def described(self, transform_graph: Path) -> tuple[TransformedFeature, ...]:
        """Describes the outputs by what the analysis found; the graph has been written to ``transform_graph``."""

    @abstractmethod
    def vocabulary_sizes(self, transform_graph: Path) -> dict[str, int]:
        """Returns the number of tokens by feature (or asset file) that has a vocabulary."""


class DefaultPreprocessing(Preprocessing):
    """Transforms every feature as its kind says, in a single pass over the training split."""

    def __init__(self, problem: Problem, raw: Mapping[str, RawType], presence: Mapping[str, Presence]) -> None:
        self._features = problem.read_features
        self._alike = alike(problem)
        self._first = {name: first for first, names in self._alike.items() for name in names}
        self._presence = _joint(presence, problem)
        self._files = {
            name: f"vocabulary_{i:03d}_{re.sub('[^A-Za-z0-9_]+', '_', name)}.txt"
            for i, (name, feature) in enumerate(problem.features.items())
            if isinstance(feature, (Categorical, Text))
        }
        for name, feature in self._features.items():
            _check_type(name, feature, raw, presence)

    def __call__(self, inputs: Inputs) -> Outputs:
        # Each column is read once, however many features it has a part in: tracing is what a small run waits for.
        texts = {column: tokens(inputs[column]) for column in self._columns(Categorical, Text, Crossed)}
        values = {
            column: numbers(inputs[column])
            for column in self._columns(Numeric, Bucketized)
            if not self._presence[column].all_missing
        }
        ids = categories.encode(texts, self._of(Categorical, Text), self._files, self._alike)
        scaled = self._numeric(inputs, values)
        buckets = self._bucketized(inputs, values)
        crossed = {
            name: categories.cross([texts[column] for column in feature.of], feature.hash_buckets)
            for name, feature in self._features.items()
            if isinstance(feature, Crossed)
        }
        parts = {
            name: dates.date_parts(_typed(inputs[column], feature), feature)
            for name, (column, feature) in self._of(Date).items()
        }
        images = {
            name: pixels(_text(inputs[column]), feature.height, feature.width, feature.channels)
            for name, (column, feature) in self._of(Image).items()
        }
        return ids | scaled | buckets | crossed | parts | images

    def described(self, transform_graph: Path) -> tuple[TransformedFeature, ...]:
        found = []
        for name, feature in self._features.items():
            first = self._first[name]
            lag = self._alike[first].index(name)
            described = replace(_describe(name, feature), source=first, lag=lag)
            if first in self._files:
                vocabulary = read_vocabulary(transform_graph / TRANSFORM_FN, self._files[first])
                described = replace(described, size=len(vocabulary) + described.size)
            found.append(described)
            if isinstance(feature, Numeric) and self._presence[_column(name, feature)].some_missing:
                found.append(TransformedFeature(_flag(name), "dense", 1, 0, first, lag=lag))
        return tuple(found)

    def vocabulary_sizes(self, transform_graph: Path) -> dict[str, int]:
        return {name: len(read_vocabulary(transform_graph / TRANSFORM_FN, f)) - 1 for name, f in self._files.items()}

    def _of(self, *kinds: type) -> dict[str, tuple[str, Any]]:
        return {
            name: (_column(name, feature), feature)
            for name, feature in self._features.items()
            if isinstance(feature, kinds)
        }

    def _columns(self, *kinds: type) -> tuple[str, ...]:
        columns = [c for n, f in self._features.items() if isinstance(f, kinds) for c in source_columns(n, f)]
        return tuple(dict.fromkeys(columns))

    def _numeric(self, inputs: Inputs, values: Mapping[str, tf.Tensor]) -> Outputs:
        known, outputs = {}, {}
        for name, (column, _) in self._of(Numeric).items():
            if column not in values:
                outputs[name], outputs[_flag(name)] = _filled(inputs[column], 0.0), _filled(inputs[column], 1.0)
                continue
            known[name] = values[column]
            if self._presence[column].some_missing:
                outputs[_flag(name)] = tf.cast(tf.math.is_nan(values[column]), tf.float32)
        return outputs | scaling.scale(
            known, {name: feature for name, (_, feature) in self._of(Numeric).items()}, self._alike
        )

    def _bucketized(self, inputs: Inputs, values: Mapping[str, tf.Tensor]) -> Outputs:
        features = self._of(Bucketized)
        known = {name: values[column] for name, (column, _) in features.items() if column in values}
        outputs = scaling.bucketize(known, {name: feature for name, (_, feature) in features.items()}, self._alike)
        zero = tf.constant(0, tf.int64)
        return outputs | {n: _filled(inputs[c], zero) for n, (c, _) in features.items() if c not in values}


def alike(problem: Problem) -> dict[str, tuple[str, ...]]:
    """Returns, by feature of the problem, the features of the rows before that share its vocabulary and scale."""
    windowed, lags = problem.windowed, problem.windows.lags if problem.windows else ()
    return {
        name: (name, *(lagged(name, i) for i in lags)) if name in windowed else (name,) for name in problem.features
    }


def _joint(presence: Mapping[str, Presence], problem: Problem) -> dict[str, Presence]:
    """Gives a column and the same of the rows before one presence, so that all have a flag or none."""
    joint = dict(presence)
    for column in problem.windowed_columns:
        names = [lagged(column, i) for i in (0, *(problem.windows.lags if problem.windows else ()))]
        known = [presence[name] for name in names]
        joint |= dict.fromkeys(names, Presence(sum(p.rows for p in known), sum(p.present for p in known)))
    return joint


def _column(name: str, feature: Feature) -> str:
    return source_columns(name, feature)[0]


def _flag(name: str) -> str:
    return f"{name}__missing"


def _filled(column: tf.SparseTensor, value: tf.Tensor | float) -> tf.Tensor:
    return tf.fill(column.dense_shape[:1], value)


def _typed(column: tf.SparseTensor, feature: Date) -> tf.SparseTensor:
    """Gives a column that was all missing in training the dtype its feature reads; its values are then ignored."""
    return _of_type(column, tf.string if feature.format == "iso8601" else tf.float32)


def _text(column: tf.SparseTensor) -> tf.Tensor:
    return dense(_of_type(column, tf.string), "")


def _of_type(column: tf.SparseTensor, wanted: tf.DType) -> tf.SparseTensor:
    if (column.dtype == tf.string) == (wanted == tf.string):
        return column
    return tf.SparseTensor(tf.zeros([0, 2], tf.int64), tf.zeros([0], wanted), column.dense_shape)


def _check_type(name: str, feature: Feature, raw: Mapping[str, RawType], presence: Mapping[str, Presence]) -> None:
    if isinstance(feature, (Categorical, Text, Crossed)):
        return
    column = _column(name, feature)
    text_wanted = isinstance(feature, Image) or (isinstance(feature, Date) and feature.format == "iso8601")
    if (raw[column] == "string") == text_wanted or presence[column].all_missing:
        return
    wanted = "numbers" if not text_wanted else "text in ISO 8601" if isinstance(feature, Date) else "base64"
    kind = f"{feature.kind} ({feature.format})" if isinstance(feature, Date) else feature.kind
    raise DataError(
        f"features.{name}",
        f"{kind} needs {wanted} in column {column}",
        raw[column],
        "choose another kind, or name what stands for missing in ingest.null_values",
    )


def _describe(name: str, feature: Feature) -> TransformedFeature:
    """Describes a feature; one with a vocabulary still lacks the vocabulary's size."""
    if isinstance(feature, Numeric):
        return TransformedFeature(name, "dense", 1, 0, name)
    if isinstance(feature, Date):
        return TransformedFeature(name, "dense", 2 * len(feature.parts), 0, name)
    if isinstance(feature, Bucketized):
        return TransformedFeature(name, "ids", feature.buckets + 1, 0, name)
    if isinstance(feature, Crossed):
        return TransformedFeature(name, "ids", feature.hash_buckets, 0, name)
    if isinstance(feature, Text):
        ordered = feature.form == "sequence"
        return TransformedFeature(name, "bag", feature.oov_buckets, feature.max_words, name, ordered=ordered)
    if isinstance(feature, Image):
        shape = (feature.height, feature.width, feature.channels)
        return TransformedFeature(name, "image", math.prod(shape), 0, name, shape=shape, flip=feature.flip)
    return TransformedFeature(name, "ids", feature.oov_buckets, 0, name)


class UserPreprocessing(Preprocessing):
    """The user's preprocessing_fn, its outputs checked and brought to the dtypes that training reads.

    Integer outputs become ids below one more than the largest that training had (or than tf.Transform knows to be
    possible); the last id stands for anything out of that range.
    """

    def __init__(self, function: Callable[[Inputs], Outputs], reference: str, directory: Path) -> None:
        self._function, self._reference, self._directory = function, reference, directory
        self._shapes: dict[str, tuple[bool, int]] = {}

    def __call__(self, inputs: Inputs) -> Outputs:
        try:
            outputs = self._function(dict(inputs))
        except Exception as error:
            raise UserCodeError(
                self._line(error), f"{self._reference} raised", f"{type(error).__name__}: {error}"
            ) from error
        if not isinstance(outputs, Mapping) or not outputs:
            raise UserCodeError(self._reference, "must return a dict of tensors by name", type(outputs).__name__)
        return {name: self._output(name, tensor) for name, tensor in outputs.items()}

    def described(self, transform_graph: Path) -> tuple[TransformedFeature, ...]:
        schema = tft.TFTransformOutput(str(transform_graph)).transformed_metadata.schema
        sizes = {feature.name: feature.int_domain.max + 1 for feature in schema.feature}
        found = []
        for name, (is_ids, width) in self._shapes.items():
            kind: FeatureKind = "dense" if not is_ids else "bag" if width else "ids"
            size = sizes[name] if is_ids else max(width, 1)
            found.append(TransformedFeature(name, kind, size, width if is_ids else 0, name))
        return tuple(found)

    def vocabulary_sizes(self, transform_graph: Path) -> dict[str, int]:
        assets = sorted((transform_graph / TRANSFORM_FN / "assets").glob("*"))
        return {path.name: len(read_vocabulary(transform_graph / TRANSFORM_FN, path.name)) for path in assets}

    def _line(self, error: BaseException) -> str:
        """Returns the innermost line of the user's own code that the error came through."""
        frames = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in frames if Path(frame.filename).is_relative_to(self._directory)]
        if not own:
            return self._reference
        return f"{Path(own[-1].filename).relative_to(self._directory)}:{own[-1].lineno}"

    def _output(self, name: str, tensor: Any) -> tf.Tensor:
        where = f"{self._reference}, output {name}"
        if not isinstance(tensor, tf.Tensor):
            raise UserCodeError(
                where, "must be a dense tensor", type(tensor).__name__, "tf.sparse.to_dense or .to_tensor() makes one"
            )
        if not (tensor.dtype.is_floating or tensor.dtype.is_integer or tensor.dtype.is_bool):
            raise UserCodeError(
                where, "must be of floats or integers", tensor.dtype.name, "tft.compute_and_apply_vocabulary makes ids"
            )
        width = self._width(where, tensor)
        self._shapes[name] = (tensor.dtype.is_integer, width)
        if tensor.dtype.is_integer:
            return _bounded(tensor, width)
        return _shaped(tf.cast(tensor, tf.float32), width)

    @staticmethod
    def _width(where: str, tensor: tf.Tensor) -> int:
        """Returns the columns of a tensor of rank 2, or 0 for one value per row."""
        shape = tensor.shape
        if shape.rank in (None, 1):  # a table lookup forgets its rank, and gives one value per row
            return 0
        if shape.rank != 2 or shape[1] is None:
            raise UserCodeError(where, "must be [batch] or [batch, n] with a fixed n", str(shape), "tf.ensure_shape")
        return 0 if shape[1] == 1 else int(shape[1])


def _shaped(tensor: tf.Tensor, width: int) -> tf.Tensor:
    if width:
        return tf.ensure_shape(tensor, [None, width])
    return tf.reshape(tensor, [-1]) if tensor.shape.rank == 2 else tf.ensure_shape(tensor, [None])


def _bounded(tensor: tf.Tensor, width: int) -> tf.Tensor:
    try:
        size = tf.cast(tft.get_num_buckets_for_transformed_feature(tensor), tf.int64)
    except ValueError:  # its documented answer where tf.Transform knows no bound
        size = tf.maximum(tft.max(tf.cast(tensor, tf.int64)) + 1, 1)
    ids = _shaped(tf.cast(tensor, tf.int64), width)
    ids = tf.where((ids < 0) | (ids >= size), size, ids)
    # tf.Transform keeps this, once analysed, in the schema of the transformed data; it must be on the last tensor.
    schema_inference.set_tensor_schema_override(ids, tf.constant(0, tf.int64), size)
    return ids
