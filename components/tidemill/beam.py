"""How tidemill starts Beam pipelines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from apache_beam.options.pipeline_options import PipelineOptions

# The DirectRunner of Beam 2.7x first asks the network for Prism; FnApiRunner is what it falls back to.
_RUNNERS = {"direct": "FnApiRunner", "flink": "FlinkRunner", "dataflow": "DataflowRunner", "spark": "SparkRunner"}


def pipeline_options(runner: str = "direct", flags: Sequence[str] = ()) -> PipelineOptions:
    """Returns the options for a Beam pipeline.

    Args:
        runner: one of direct, flink, dataflow, spark.
        flags: further Beam flags, such as ``--region=europe-west1``. ``sys.argv`` is never read.
    """
    from apache_beam.options.pipeline_options import PipelineOptions

    return PipelineOptions([f"--runner={_RUNNERS[runner]}", *flags])
