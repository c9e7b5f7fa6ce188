"""``--workers`` arrives at the training task."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from tidemill.errors import UsageError
from tidemill_pipelines.cli import app
from tidemill_pipelines.pipelines import load_pipeline
from tidemill_pipelines.targets.local import runner


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list:
    requests = []

    def run(request, layout, observer):
        requests.append(request)
        raise UsageError("test", "stops here")

    monkeypatch.setattr(runner, "run", run)
    return requests


@pytest.mark.parametrize(("option", "workers"), [([], 1), (["--workers", "2"], 2)])
def test_the_number_arrives_at_the_run(asked, tmp_path, option, workers):
    CliRunner().invoke(app, ["run", str(tmp_path), "--source", "t.csv", "--runs-dir", str(tmp_path), *option])
    assert [request.workers for request in asked] == [workers]


def test_no_workers_are_refused(asked, tmp_path):
    result = CliRunner().invoke(app, ["run", str(tmp_path), "--source", "t.csv", "--workers", "0"])
    assert result.exit_code == 2
    assert asked == []


def test_the_pipeline_hands_it_to_the_task_that_trains():
    spec = load_pipeline("training").pipeline_spec
    assert spec.root.input_definitions.parameters["workers"].default_value.number_value == 1
    (body,) = (c for c in spec.components.values() if "train" in c.dag.tasks)
    given = body.dag.tasks["train"].inputs.parameters["workers"]
    assert given.component_input_parameter == "pipelinechannel--workers"
