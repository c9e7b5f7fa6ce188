"""Predicting the raw test split with exported models, and counting, as one Beam pipeline over Arrow batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tensorflow as tf

from tidemill.artifacts import SAVED_MODEL, ModelManifest, parts
from tidemill.beam import Cluster
from tidemill.beam_failures import carried, delivered
from tidemill.beam_files import local_copy, opened
from tidemill.errors import DataError, TidemillError
from tidemill.evaluate.counts import CellsOf, CountRows, Counts, Scored
from tidemill.evaluate.labels import LabelReader
from tidemill.evaluate.slices import SlicePlan
from tidemill.instances import arrays_from_batch

BATCH_ROWS = 65_536
_COUNTS = "counts.npz"
_PREDICT_ROWS = 8_192  # what a model has in memory at once
_PREDICT_NUMBERS = 1 << 26  # 256 MiB of features
CANDIDATE, CHAMPION, BASELINE = "candidate", "champion", "baseline"
SCORES = {
    "binary_classification": "probability",
    "multiclass_classification": "probabilities",
    "regression": "value",
}
"""The output that metrics are computed from, by task."""


@dataclass(frozen=True)
class Part:
    """One Parquet file of the test split, and where its rows stand in the split."""

    path: str
    first_row: int


def split_parts(examples: Path) -> list[Part]:
    """Returns the files of the test split in their order.

    Raises:
        DataError: if the split has no row, or a file of it is damaged.
    """
    found, rows = [], 0
    for path in parts(examples, "test"):
        found.append(Part(str(path), rows))
        try:
            rows += pq.read_metadata(path).num_rows
        except pa.ArrowInvalid as error:
            raise DataError(str(path), "is not a whole Parquet file", str(error), "ingest the data again") from error
    if not rows:
        raise DataError(
            str(examples / "test"), "the test split has no row", remedy="give `split.test` a larger share of the data"
        )
    return found


class Model:
    """An exported model that answers raw Arrow batches."""

    def __init__(self, directory: str) -> None:
        self.manifest = ModelManifest.read(Path(directory))
        self._loaded = tf.saved_model.load(str(Path(directory) / SAVED_MODEL))  # must outlive its signature
        self._signature = self._loaded.signatures["serving_default"]
        self._rows = predict_rows(self._loaded.signatures.get("transform_features"))

    def predict(self, batch: pa.RecordBatch) -> dict[str, np.ndarray]:
        """Returns the outputs of ``serving_default`` for every row.

        Raises:
            TidemillError: if the model answers another number of rows than it was asked.
        """
        starts = range(0, batch.num_rows, self._rows)
        answers = [self._predict(batch.slice(start, self._rows)) for start in starts]
        return {name: np.concatenate([answer[name] for answer in answers]) for name in answers[0]}

    def _predict(self, batch: pa.RecordBatch) -> dict[str, np.ndarray]:
        arrays = arrays_from_batch(batch, self.manifest.inputs)
        outputs = self._signature(**{name: tf.constant(array) for name, array in arrays.items()})
        answers = {name: tensor.numpy() for name, tensor in outputs.items()}
        for name, answer in answers.items():
            if len(answer) != batch.num_rows:
                raise TidemillError("model", f"{name} needs one answer per row, {batch.num_rows}", f"{len(answer)}")
        return answers


def predict_rows(transform: Any) -> int:
    """Returns the rows that a model has in memory at once: fewer where its features are images.

    Args:
        transform: the signature ``transform_features``, if the model has it.
    """
    if transform is None:
        return _PREDICT_ROWS
    numbers = sum(spec.shape[1:].num_elements() or 1 for spec in transform.structured_outputs.values())
    return max(1, min(_PREDICT_ROWS, _PREDICT_NUMBERS // max(1, numbers)))


class PredictParts(beam.DoFn):
    """Predicts files of the split batch by batch, writing the candidate's answers beside.

    Args:
        models: directory by name of the model.
        constants: answer by name of the rules that answer every row alike: a number, or one per class.
        predictions: directory that the candidate's answers are written to, one file per file of the split.
    """

    def __init__(
        self,
        reader: LabelReader,
        plan: SlicePlan,
        models: Mapping[str, str],
        constants: Mapping[str, np.ndarray],
        predictions: str,
        score: str,
    ) -> None:
        self._reader, self._plan, self._score = reader, plan, score
        self._directories, self._constants, self._predictions = dict(models), dict(constants), predictions

    def setup(self) -> None:
        self._models = {}
        for name, directory in self._directories.items():
            with local_copy(directory) as copy:
                self._models[name] = Model(str(copy))

    def process(self, part: Part) -> Iterator[Scored]:
        with carried():
            yield from self._answer(part)

    def _answer(self, part: Part) -> Iterator[Scored]:
        target = f"{self._predictions}/{PurePosixPath(part.path).name}"
        row = part.first_row
        # In memory, so that the file is written whole or not at all: a few bytes a row.
        answers, writer = pa.BufferOutputStream(), None
        with opened(part.path, "rb") as stream, pq.ParquetFile(stream, pre_buffer=False) as file:
            for batch in file.iter_batches(BATCH_ROWS):
                outputs = {name: model.predict(batch) for name, model in self._models.items()}
                table = _prediction_table(outputs[CANDIDATE], row)
                writer = writer or pq.ParquetWriter(answers, table.schema)
                writer.write_table(table)
                yield self._scored(batch, row, outputs)
                row += batch.num_rows
        if writer:
            writer.close()
            with opened(target, "wb") as written:
                written.write(answers.getvalue())

    def _scored(self, batch: pa.RecordBatch, row: int, outputs: Mapping[str, Mapping[str, np.ndarray]]) -> Scored:
        scores = {name: answer[self._score] for name, answer in outputs.items()}
        for name, constant in self._constants.items():
            scores[name] = np.broadcast_to(constant, (batch.num_rows, *np.shape(constant)))
        labels, weights = self._reader.labels(batch), self._reader.weights(batch)
        return Scored(row, labels, weights, self._plan.codes(batch), scores)


def _prediction_table(outputs: Mapping[str, np.ndarray], first_row: int) -> pa.Table:
    columns: dict[str, Any] = {}
    for name, values in sorted(outputs.items()):
        if values.dtype == object:
            columns[name] = pa.array(values, pa.binary()).cast(pa.string())
        elif values.ndim == 2:
            columns[name] = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1]).cast(
                pa.list_(pa.from_numpy_dtype(values.dtype))
            )
        else:
            columns[name] = pa.array(values)
    rows = len(next(iter(outputs.values())))
    return pa.table({**columns, "row": pa.array(np.arange(first_row, first_row + rows, dtype=np.int64))})


class ScoreAndCount(beam.PTransform):
    """From files of the test split to one element: the counts of all models."""

    def __init__(self, predict: PredictParts, cells: Mapping[str, CellsOf], sizes: Sequence[int]) -> None:
        super().__init__()
        self._predict, self._cells, self._sizes = predict, cells, sizes

    def expand(self, parts: beam.PCollection[Part]) -> beam.PCollection[Counts]:
        return (
            parts
            | "Predict" >> beam.ParDo(self._predict)
            | "Count" >> beam.CombineGlobally(CountRows(self._cells, self._sizes)).without_defaults()
        )


def score(
    parts: Sequence[Part],
    predict: PredictParts,
    cells: Mapping[str, CellsOf],
    sizes: Sequence[int],
    scratch: Path,
    cluster: Cluster,
) -> Counts:
    """Runs the pipeline and returns its counts.

    Raises:
        DataError: if labels or weights of the split can't be used.
    """
    with delivered(), cluster.exchange.made(scratch) as results, cluster.pipeline() as pipeline:
        _ = (
            pipeline
            | "ListParts" >> beam.Create(parts, reshuffle=cluster.spreads)
            | "ScoreAndCount" >> ScoreAndCount(predict, cells, sizes)
            | "Save" >> beam.Map(_save, f"{results}/{_COUNTS}")
        )
    with np.load(scratch / _COUNTS) as file:
        return dict(file)


def _save(counts: Counts, target: str) -> None:
    with opened(target, "wb") as file:
        np.savez(file, **counts)  # type: ignore[arg-type]
