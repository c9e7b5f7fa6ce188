"""``tidemill endpoint``, with the real server in its own environment."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tidemill.errors import DataError, PlatformError, UsageError
from tidemill.files import write_json
from tidemill.serving.endpoints import Endpoint
from tidemill.serving.registry import Registry
from tidemill_pipelines.commands.endpoint import app
from tidemill_pipelines.commands.models import app as models_app
from tidemill_pipelines.targets.local.environments import interpreter

TOY = Path(__file__).parents[1] / "serving" / "toy.py"


def invoke(*arguments: str, stdin: str | None = None) -> str:
    result = CliRunner().invoke(app, arguments, input=stdin, catch_exceptions=False, env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    return result.output


def as_json(*arguments: str) -> Any:
    return json.loads(invoke(*arguments, "--json"))


@pytest.fixture(scope="module")
def runs_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Two released versions of a model; its endpoint is ended afterwards."""
    try:
        python = interpreter("serving")
    except PlatformError as error:
        pytest.skip(f"the serving environment is not installed: {error}")
    root = tmp_path_factory.mktemp("runs")
    registry = Registry(root / "registry", "toy")
    models = [root / f"model{shift}" for shift in (0, 1)]
    subprocess.run([python, TOY, *models], check=True, capture_output=True)
    for shift, model in enumerate(models):
        lineage = {"run_id": f"run-{shift}", "registered": "2026-01-02T03:04:05+00:00"}

        def keep(extra: Path, _: int, kept: dict[str, str] = lineage) -> None:
            write_json(extra / "lineage.json", kept)

        registry.promote(registry.add(model, keep, f"run-{shift}"))
    yield root
    Endpoint(root / "endpoints", "toy").down()


def test_the_life_of_an_endpoint(runs_dir: Path) -> None:
    at = ("--runs-dir", str(runs_dir))
    with pytest.raises(UsageError, match="is not running\n  → `tidemill endpoint up toy`"):
        invoke("predict", "toy", "--instance", "{}", *at)
    assert invoke("status", *at).strip() == "no endpoints"
    assert as_json("status", "toy", *at)[0]["state"] == "down"

    (up,) = as_json("up", "toy", *at)
    assert (up["state"], up["version"]) == ("ready", 2)
    assert up["predict_url"] == f"{up['address']}/v1/models/toy:predict"
    assert as_json("up", "toy", *at)[0]["pid"] == up["pid"]
    assert as_json("status", *at) == as_json("status", "toy", *at) == as_json("up", "toy", *at)
    row = invoke("status", *at).splitlines()[1].split()
    assert row == ["toy", "ready", "2", str(up["pid"]), up["address"]]
    assert invoke("up", "toy", *at).splitlines()[-1] == f"asked at {up['predict_url']}"

    (line,) = invoke("predict", "toy", "--instance", '{"age": 0}', *at).splitlines()
    assert json.loads(line)["probability"] == pytest.approx(0.7310586, abs=1e-6)
    rows = runs_dir / "rows.json"
    rows.write_text('[{"age": 0}, {"age": 100}]')
    assert len(invoke("predict", "toy", "--file", str(rows), *at).splitlines()) == 2
    lines = invoke("predict", "toy", "--file", "-", *at, stdin='{"age": 0}\n\n{"age": 100}\n{}\n').splitlines()
    assert len(lines) == 3
    whole = '{"inputs": {"age": [0, 1]}, "signature_name": "transform_features"}'
    assert json.loads(invoke("predict", "toy", "--instance", whole, *at)) == {"outputs": [1.0, pytest.approx(1.01)]}
    assert as_json("predict", "toy", "--instance", "{}", *at)["predictions"][0]["label"] == ">50K"

    with pytest.raises(DataError, match="did you mean 'age'"):
        invoke("predict", "toy", "--instance", '{"agee": 1}', *at)
    with pytest.raises(UsageError, match="no version 7"):
        invoke("predict", "toy", "--instance", "{}", "--version", "7", *at)

    rolled = CliRunner().invoke(models_app, ["rollback", "toy", "--json", *at], catch_exceptions=False)
    assert json.loads(rolled.output) == {"name": "toy", "champion": 1, "before": 2, "endpoint": up["predict_url"]}
    assert as_json("predict", "toy", "--instance", "{}", *at)["predictions"][0]["probability"] == 0.5
    assert as_json("status", "toy", *at)[0]["version"] == 1

    assert invoke("down", "toy", *at).strip() == "toy: ended"
    assert as_json("down", "--all", *at) == [{"model": "toy", "ended": False}]
    assert as_json("status", *at)[0]["state"] == "down"


def test_a_model_without_champion_has_no_endpoint(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has no champion"):
        invoke("up", "toy", "--runs-dir", str(tmp_path))
    with pytest.raises(UsageError, match="there is none"):
        invoke("down", "toy", "--runs-dir", str(tmp_path))


def test_rows_must_be_given_in_one_way_and_be_json(tmp_path: Path) -> None:
    at = ("--runs-dir", str(tmp_path))
    with pytest.raises(UsageError, match="exactly one of --instance and --file"):
        invoke("predict", "toy", *at)
    with pytest.raises(UsageError, match="exactly one"):
        invoke("predict", "toy", "--instance", "{}", "--file", "-", *at)
    with pytest.raises(DataError, match="expected JSON"):
        invoke("predict", "toy", "--instance", "{age: 1}", *at)
    with pytest.raises(DataError, match="cannot be read"):
        invoke("predict", "toy", "--file", str(tmp_path / "none"), *at)


def test_a_server_that_is_gone_or_busy_is_the_platforms_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tidemill.serving.client import Answer, Client
    from tidemill.serving.endpoints import Running

    running = Running("toy", "r", "127.0.0.1", 9, 1, 0.0)
    monkeypatch.setattr(Endpoint, "running", lambda _: running)
    with pytest.raises(PlatformError, match="does not answer"):
        invoke("predict", "toy", "--instance", "{}", "--runs-dir", str(tmp_path))
    monkeypatch.setattr(Client, "post", lambda *_: Answer(503, {}, {"error": "the server is about to end"}))
    with pytest.raises(PlatformError, match="status 503: the server is about to end"):
        invoke("predict", "toy", "--instance", "{}", "--runs-dir", str(tmp_path))
