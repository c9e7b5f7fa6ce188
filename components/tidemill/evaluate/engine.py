"""Metrics that counts can't give, computed by TFMA itself, row by row, from the predictions already made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tensorflow_model_analysis as tfma
from tensorflow_model_analysis.proto import config_pb2

from tidemill.beam import Cluster
from tidemill.beam_files import opened
from tidemill.errors import ProblemError
from tidemill.evaluate.labels import LabelReader
from tidemill.evaluate.scoring import BATCH_ROWS, Part
from tidemill.evaluate.slices import SlicePlan

_LABEL, _SCORE, _WEIGHT = "__label__", "__score__", "__weight__"


class ReadScored(beam.DoFn):
    """Joins files of the split with the answers to them, as TFMA takes rows: a list per value.

    Args:
        predictions: directory with a file of answers of the same name for each file of the split.
        score: the column of the answers that metrics are computed from.
    """

    def __init__(self, reader: LabelReader, plan: SlicePlan, predictions: str, score: str) -> None:
        self._reader, self._plan, self._predictions, self._score = reader, plan, predictions, score

    def process(self, part: Part) -> Iterator[pa.RecordBatch]:
        answers = f"{self._predictions}/{PurePosixPath(part.path).name}"
        with opened(part.path, "rb") as rows, opened(answers, "rb") as scores:
            file, answered = pq.ParquetFile(rows, pre_buffer=False), pq.ParquetFile(scores, pre_buffer=False)
            batches = zip(file.iter_batches(BATCH_ROWS), answered.iter_batches(BATCH_ROWS), strict=True)
            for batch, answer in batches:
                yield self._rows(batch, answer.column(self._score))

    def _rows(self, batch: pa.RecordBatch, score: pa.Array) -> pa.RecordBatch:
        columns = {
            _LABEL: _lists(pa.array(self._reader.labels(batch))),
            _WEIGHT: _lists(pa.array(self._reader.weights(batch))),
            _SCORE: score.cast(pa.list_(pa.float64())) if pa.types.is_list(score.type) else _lists(score),
        }
        for name, values in self._plan.values.items():
            columns[name] = _lists(pa.array(np.asarray(values.names)[values.codes(batch.column(name))], pa.string()))
        return pa.RecordBatch.from_pydict(columns)


def _lists(column: pa.Array) -> pa.Array:
    return pa.ListArray.from_arrays(pa.array(np.arange(len(column) + 1, dtype=np.int32)), column)


def run_engine(
    parts: Sequence[Part],
    read: ReadScored,
    specs: Sequence[config_pb2.MetricsSpec],
    plan: SlicePlan,
    output: Path,
    cluster: Cluster,
) -> Mapping[str, np.ndarray]:
    """Runs TFMA on the rows and returns its scalar metrics by name, float64 [slices]; NaN where it gave none.

    A metric of one class or of the best k is named ``<metric>@<which>``. Everything, curves and matrices included, is
    left in ``output`` as TFMA writes it.

    Raises:
        ProblemError: if TFMA can't compute what the EvalConfig asks for.
    """
    config = config_pb2.EvalConfig(
        model_specs=[config_pb2.ModelSpec(label_key=_LABEL, prediction_key=_SCORE, example_weight_key=_WEIGHT)],
        slicing_specs=[config_pb2.SlicingSpec(feature_keys=key.columns) for key in plan.keys],
        metrics_specs=specs,
    )
    try:
        with cluster.exchange.made(output) as there, cluster.pipeline() as pipeline:
            _ = (
                pipeline
                | "ListParts" >> beam.Create(parts, reshuffle=cluster.spreads)
                | "ReadScored" >> beam.ParDo(read)
                | "Analyse" >> tfma.ExtractEvaluateAndWriteResults(eval_config=config, output_path=there)
            )
    except (ValueError, TypeError, KeyError, RuntimeError, NotImplementedError) as error:
        raise ProblemError("eval_config.pbtxt", "TFMA could not compute these metrics", _first(error)) from error
    numbers = {tuple(sorted(values.items())): number for number, values in enumerate(plan.slices)}
    found: dict[str, np.ndarray] = {}
    for slice_key, by_output in tfma.load_eval_result(str(output)).slicing_metrics:
        number = numbers.get(tuple(sorted(slice_key)))
        for sub_key, values in by_output[""].items() if by_output else ():  # plots alone leave no metrics
            for name, value in values.items():
                if number is not None and "doubleValue" in value:
                    name = f"{name}@{sub_key}" if sub_key else name
                    found.setdefault(name, np.full(plan.size, np.nan))[number] = float(value["doubleValue"])
    return found


def _first(error: BaseException) -> str:
    """Returns the message of the error that the others were raised from."""
    while earlier := error.__cause__ or error.__context__:
        error = earlier
    return str(error)
