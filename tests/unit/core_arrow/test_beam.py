"""Beam starts the runner that was named, with the flags that were given and nothing from the command line."""

from __future__ import annotations

import sys

import pytest

pytest.importorskip("apache_beam", reason="the environment has no Beam")

from apache_beam.options.pipeline_options import GoogleCloudOptions, StandardOptions

from tidemill.beam import pipeline_options


@pytest.mark.parametrize(
    ("name", "runner"),
    [("direct", "FnApiRunner"), ("flink", "FlinkRunner"), ("dataflow", "DataflowRunner"), ("spark", "SparkRunner")],
)
def test_a_runner_is_chosen_by_its_short_name(name, runner):
    assert pipeline_options(name).view_as(StandardOptions).runner.endswith(runner)


def test_flags_arrive_and_the_command_line_does_not(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["program", "--project=stray"])
    options = pipeline_options("dataflow", ["--region=europe-west1"]).view_as(GoogleCloudOptions)
    assert options.region == "europe-west1"
    assert options.project is None
