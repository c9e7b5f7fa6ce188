"""Applying the transform graph to every split: a loop over Parquet batches whose memory rows don't change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tensorflow as tf

from tidemill.artifacts import ExamplesManifest, parts
from tidemill.errors import DataError
from tidemill.files import sha256_file
from tidemill.instances import arrays_from_batch
from tidemill.problem import Problem
from tidemill.transform.columns import BATCH_ROWS, read_batches
from tidemill.transform.features import LABEL, WEIGHT, TransformedFeature
from tidemill.transform.graph import TransformGraph
from tidemill.transform.labels import encode_label, encode_weight

_IMAGE_BYTES: Final = 64 << 20
_BATCHES_PER_ROW_GROUP: Final = 8  # 65,536 rows: large enough to read fast, small enough to shuffle within


@dataclass(frozen=True)
class Application:
    """Turns raw rows into transformed ones, by the same graph that will be served.

    Attributes:
        graph: the transform graph.
        problem: tells where the label and the weight are.
        classes: as in ``tidemill.artifacts.ExamplesManifest``.
    """

    graph: TransformGraph
    problem: Problem
    classes: tuple[str, ...]

    def run(self, examples: Path, transformed: Path) -> ExamplesManifest:
        """Writes every split of ``examples`` to the directory ``transformed``, its manifest last."""
        manifest = ExamplesManifest.read(examples)
        function = tf.function(self.graph.__call__, input_signature=[self.graph.input_signature])
        rows: dict[str, int] = {}
        files: dict[str, dict[str, Any]] = {}
        for split in manifest.rows:
            (transformed / split).mkdir()
            rows[split] = 0
            for part in parts(examples, split):
                path = transformed / split / part.name
                count = self._write(part, path, function)
                rows[split] += count
                files[f"{split}/{part.name}"] = {
                    "rows": count,
                    "bytes": path.stat().st_size,
                    "sha256": sha256_file(path),
                }
        result = ExamplesManifest(rows, self._columns(), self.classes, files, manifest.source)
        result.write(transformed)
        return result

    def schema(self) -> pa.Schema:
        """Returns the Arrow schema of the transformed examples."""
        described = self.graph.described
        fields = [pa.field(f.name, _arrow_type(f), nullable=False) for f in described.features]
        label = pa.int64() if self.problem.task == "multiclass_classification" else pa.float32()
        fields.append(pa.field(LABEL, label, nullable=False))
        if described.weight:
            fields.append(pa.field(WEIGHT, pa.float32(), nullable=False))
        return pa.schema(fields)

    def _columns(self) -> dict[str, str]:
        return {field.name: str(field.type) for field in self.schema()}

    def _write(self, source: Path, destination: Path, function: Any) -> int:
        columns = [*self.graph.described.raw, self.problem.label.output]
        columns += [self.problem.weight] if self.problem.weight else []
        described, schema, rows, waiting = self.graph.described.features, self.schema(), 0, []
        with pq.ParquetWriter(destination, schema, compression="zstd", use_dictionary=False) as writer:
            for batch in read_batches(source, columns, batch_rows(described)):
                waiting.append(self._transform(batch, function, schema))
                rows += batch.num_rows
                if len(waiting) == _BATCHES_PER_ROW_GROUP:
                    writer.write_table(pa.Table.from_batches(waiting))
                    waiting = []
            if waiting:
                writer.write_table(pa.Table.from_batches(waiting))
        return rows

    def _transform(self, batch: pa.RecordBatch, function: Any, schema: pa.Schema) -> pa.RecordBatch:
        described = self.graph.described
        raw = arrays_from_batch(batch, described.raw)
        outputs = function({name: tf.constant(values) for name, values in raw.items()})
        arrays = [
            self._column(feature, outputs[feature.name].numpy(), batch.num_rows) for feature in described.features
        ]
        label = self.problem.label.output
        arrays.append(encode_label(batch.column(label), label, self.problem.task, self.classes))
        if self.problem.weight:
            arrays.append(encode_weight(batch.column(self.problem.weight), self.problem.weight))
        return pa.RecordBatch.from_arrays(arrays, schema=schema)

    def _column(self, feature: TransformedFeature, values: np.ndarray, rows: int) -> pa.Array:
        if len(values) != rows:
            raise DataError(
                f"transformed feature {feature.name}",
                f"must have a value for each of {rows} rows",
                str(len(values)),
                "a sparse column's values lack the missing ones: make it dense in preprocessing_fn",
            )
        if feature.kind == "dense" and not np.isfinite(values).all():
            raise DataError(
                f"transformed feature {feature.name}",
                "must be finite in every row",
                f"{np.count_nonzero(~np.isfinite(values))} NaN or infinite values in one batch",
                "fill missing values in preprocessing_fn",
            )
        if feature.kind == "image":
            values = values.astype(np.uint8)  # whole numbers from 0 to 255
        flat = pa.array(values.reshape(-1))
        width = {"bag": feature.length, "ids": 1}.get(feature.kind, feature.size)
        return pa.FixedSizeListArray.from_arrays(flat, width) if width > 1 else flat


def batch_rows(features: Sequence[TransformedFeature]) -> int:
    """Returns the rows that are transformed at once: as many as ever, or less where images would take too much."""
    image_bytes = sum(4 * feature.size for feature in features if feature.kind == "image")
    return min(BATCH_ROWS, max(1, _IMAGE_BYTES // image_bytes)) if image_bytes else BATCH_ROWS


def _arrow_type(feature: TransformedFeature) -> pa.DataType:
    if feature.kind == "bag":
        return pa.list_(pa.int64(), feature.length)
    if feature.kind == "ids":
        return pa.int64()
    if feature.kind == "image":
        return pa.list_(pa.uint8(), feature.size)
    return pa.float32() if feature.size == 1 else pa.list_(pa.float32(), feature.size)
