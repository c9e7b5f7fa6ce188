"""What is said of Beam on the command line arrives at the run."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from tidemill.errors import UsageError
from tidemill_pipelines.cli import app
from tidemill_pipelines.targets.local import runner


def test_the_runner_and_each_flag_arrive_as_they_were_given(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    asked = []

    def run(request, layout, observer):
        asked.append(request)
        raise UsageError("test", "stops here")

    monkeypatch.setattr(runner, "run", run)
    words = ["run", str(tmp_path), "--source", "t.csv", "--runs-dir", str(tmp_path), "--beam-runner", "flink"]
    CliRunner().invoke(app, [*words, "--beam-flag=--parallelism=2", "--beam-flag", "--flink_master=host:8081"])
    (request,) = asked
    assert request.beam_runner == "flink"
    assert list(request.beam_flags) == ["--parallelism=2", "--flink_master=host:8081"]
