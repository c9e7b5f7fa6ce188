"""The full pass of tf.Transform over the training split, on Beam."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import apache_beam as beam
import pyarrow as pa
import pyarrow.parquet as pq
import tensorflow_transform.beam as tft_beam
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2
from tensorflow_transform.tf_metadata import metadata_io
from tensorflow_transform.tf_metadata.dataset_metadata import DatasetMetadata

from tidemill.artifacts import parts
from tidemill.beam import Cluster
from tidemill.beam_files import opened
from tidemill.transform.columns import BATCH_ROWS, list_batch, tensor_adapter_config
from tidemill.transform.features import RawType
from tidemill.transform.preprocessing import Preprocessing

_TYPES: Mapping[RawType, int] = {"int64": schema_pb2.INT, "float32": schema_pb2.FLOAT, "string": schema_pb2.BYTES}


class ReadParquet(beam.PTransform):
    """Reads the raw columns of Parquet files as Arrow record batches of lists of no or one value.

    Args:
        row_groups: file, as workers call it, and index of each row group.
        raw: the columns to read.
        spread: whether the runner may spread row groups over workers. It costs a shuffle, which in one process is
            harmful: tf.Transform then can't read again for a second phase, and Beam holds all rows for it.
    """

    def __init__(self, row_groups: Sequence[tuple[str, int]], raw: Mapping[str, RawType], spread: bool = False) -> None:
        super().__init__()
        self._row_groups, self._raw, self._spread = list(row_groups), dict(raw), spread

    def expand(self, root: beam.pvalue.PBegin) -> beam.PCollection[pa.RecordBatch]:
        return (
            root
            | "RowGroups" >> beam.Create(self._row_groups, reshuffle=self._spread)
            | "Batches" >> beam.FlatMap(_batches, self._raw).with_output_types(pa.RecordBatch)
        )


def _batches(element: tuple[str, int], raw: Mapping[str, RawType]) -> Iterator[pa.RecordBatch]:
    path, row_group = element
    with opened(path, "rb") as stream, pq.ParquetFile(stream, pre_buffer=False) as file:
        for batch in file.iter_batches(BATCH_ROWS, row_groups=[row_group], columns=list(raw)):
            yield list_batch(batch, raw)


def analyse(
    examples: Path,
    raw: Mapping[str, RawType],
    preprocessing: Preprocessing,
    transform_graph: Path,
    temporary: Path,
    cluster: Cluster,
) -> None:
    """Analyses the training split and writes tf.Transform's output to ``transform_graph``.

    Args:
        examples: the raw examples; only their training split is read.
        raw: the graph's inputs.
        preprocessing: what to compute.
        transform_graph: an empty directory.
        temporary: an empty directory; may be removed afterwards.
        cluster: where the analysis runs.
    """
    exchange = cluster.exchange
    sizes = {exchange.given(path): pq.read_metadata(path).num_row_groups for path in parts(examples, "train")}
    row_groups = [(path, i) for path, size in sizes.items() for i in range(size)]
    with (
        exchange.made(transform_graph) as graph,
        exchange.made(temporary) as temp_dir,
        # Deep copies make each of several analysis phases read again, where Beam would hold the rows in between.
        tft_beam.Context(temp_dir=temp_dir, force_tf_compat_v1=False, use_deep_copy_optimization=True),
        # Inferring types takes a fifteenth of a small run, and the pipeline is the same in every run.
        cluster.pipeline("--no_pipeline_type_check") as pipeline,
    ):
        batches = pipeline | "Read" >> ReadParquet(row_groups, raw, cluster.spreads)
        transform_fn = (batches, tensor_adapter_config(raw)) | "Analyse" >> tft_beam.AnalyzeDataset(preprocessing)
        _ = transform_fn | "Write" >> tft_beam.WriteTransformFn(graph)


def write_raw_metadata(raw: Mapping[str, RawType], schema: Path, transform_graph: Path) -> None:
    """Writes the raw columns' schema where tf.Transform keeps it, with the domains of the validated schema.

    Args:
        raw: the graph's inputs; each may be missing from a row, so none has a fixed shape.
        schema: the directory of the schema artefact; it may be empty.
    """
    validated = schema_pb2.Schema()
    if (path := Path(schema) / "schema.pbtxt").is_file():
        text_format.Parse(path.read_text(encoding="utf-8"), validated)
    known = {feature.name: feature for feature in validated.feature}
    result = schema_pb2.Schema(string_domain=validated.string_domain)
    for name, dtype in raw.items():
        feature = result.feature.add(name=name, type=_TYPES[dtype])
        if name in known and known[name].type == feature.type and known[name].WhichOneof("domain_info"):
            domain = known[name].WhichOneof("domain_info")
            if domain == "domain":
                feature.domain = known[name].domain
            else:
                getattr(feature, domain).CopyFrom(getattr(known[name], domain))
    metadata_io.write_metadata(DatasetMetadata(result), str(transform_graph / "metadata"))
