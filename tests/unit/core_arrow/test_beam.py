"""Beam starts the runner that was named, with the flags that were given and nothing from the command line."""

from __future__ import annotations

import sys

import pytest

pytest.importorskip("apache_beam", reason="the environment has no Beam")

from apache_beam.options.pipeline_options import GoogleCloudOptions, StandardOptions

from tidemill.beam import pipeline_options
from tidemill.errors import UsageError

DATAFLOW = ["--project=example-project", "--region=europe-west1", "--temp_location=gs://example-bucket/temp"]


@pytest.mark.parametrize(
    ("name", "runner", "flags"),
    [
        ("direct", "FnApiRunner", []),
        ("flink", "FlinkRunner", []),
        ("dataflow", "DataflowRunner", DATAFLOW),
        ("spark", "SparkRunner", []),
    ],
)
def test_a_runner_is_chosen_by_its_short_name(name, runner, flags):
    assert pipeline_options(name, flags).view_as(StandardOptions).runner.endswith(runner)


def test_flags_arrive_and_the_command_line_does_not(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["program", "--job_name=stray"])
    options = pipeline_options("dataflow", DATAFLOW).view_as(GoogleCloudOptions)
    assert options.region == "europe-west1"
    assert options.job_name is None


@pytest.mark.parametrize(
    ("runner", "flags", "message"),
    [
        ("storm", [], r"beam_runner: expected one of direct, flink.* \(got storm\)"),
        ("flink", ["parallelism=2"], "beam flag parallelism=2: expected --name=value"),
        ("flink", ["--runner=SparkRunner"], "beam flag --runner=SparkRunner: .* and no runner"),
        ("flink", ["--paralelism=2"], r"of Beam's Python SDK \(got --paralelism\)\n.*mean --parallelism\?"),
        ("flink", ["--zzz"], r"options of Beam's Python SDK \(got --zzz\)$"),
        ("flink", ["--parallelism=two"], "values that Beam takes .*invalid int value: 'two'"),
        ("spark", ["--spark_version=9"], "values that Beam takes .*invalid choice: '9'"),
        ("dataflow", [], r"what dataflow needs \(got Missing.*Missing required option: project"),
        ("dataflow", [*DATAFLOW, "--temp_location=temp"], r"what dataflow needs \(got Invalid GCS path \(temp\)"),
        ("flink", ["--environment_type=EXTERNAL"], "what flink needs .*external_service_address is required"),
    ],
)
def test_flags_that_beam_would_drop_or_trip_over_are_refused_before_anything_runs(runner, flags, message):
    with pytest.raises(UsageError, match=message):
        pipeline_options(runner, flags)
