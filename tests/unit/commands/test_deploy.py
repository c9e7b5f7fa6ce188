"""``tidemill deploy`` and ``rollback``, ``endpoint`` and ``models``: the same commands here and on a target."""

from __future__ import annotations

import json
import math
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from remote_memory import MemoryEndpoints

from tidemill.errors import PlatformError, UsageError
from tidemill.files import write_json
from tidemill.serving.endpoints import Endpoint
from tidemill.serving.registry import Registry
from tidemill_pipelines.targets.local.environments import interpreter

Invoke = Callable[..., Result]
Target = tuple[str, str]
TOY = Path(__file__).parents[1] / "serving" / "toy.py"


def test_a_version_is_deployed_with_a_share(
    invoke: Invoke, on_vertex: Target, remote_endpoints: MemoryEndpoints
) -> None:
    told = invoke("deploy", "lending", "--version", "2", "--traffic", "10", *on_vertex)
    assert told.stdout == (
        "lending: version 2 answers, instead of 1\n"
        "traffic: version 1 90 %, version 2 10 %\n"
        "asked at https://models.example.com/lending\n"
    )
    assert remote_endpoints.asked == [("lending", "2", 10)]


def test_the_rest_is_left_to_the_targets_file(
    invoke: Invoke, on_vertex: Target, remote_endpoints: MemoryEndpoints, read_json: Callable[[Result], Any]
) -> None:
    facts = read_json(invoke("deploy", "lending", "--json", *on_vertex))
    assert remote_endpoints.asked == [("lending", None, None)]
    assert (facts["version"], facts["former"], facts["traffic"], facts["retired"]) == ("2", "1", {"2": 100}, ["1"])
    assert "taken off: 2\n" in invoke("deploy", "lending", "--version", "1", *on_vertex).stdout
    assert "version 1 answers as it did\n" in invoke("deploy", "lending", "--version", "1", *on_vertex).stdout


def test_rollback_on_a_target(invoke: Invoke, on_vertex: Target, remote_endpoints: MemoryEndpoints) -> None:
    told = invoke("rollback", "lending", *on_vertex).stdout
    assert told.startswith("lending: version 1 is the champion again, instead of 2\n")


@pytest.mark.parametrize("share", ["0", "101", "half"])
def test_a_share_that_is_none_is_a_mistyped_command(share: str, invoke: Invoke, on_vertex: Target) -> None:
    assert invoke("deploy", "lending", "--traffic", share, *on_vertex).exit_code == 2


def test_endpoints_of_a_target_are_shown_and_asked(
    invoke: Invoke, on_vertex: Target, remote_endpoints: MemoryEndpoints, read_json: Callable[[Result], Any]
) -> None:
    rows = [line.split() for line in invoke("endpoint", "status", *on_vertex).stdout.splitlines()]
    assert rows[1] == ["lending", "1", "100", "%", "ready", "https://models.example.com/lending", "n1-standard-2"]
    assert rows[2] == ["churn", "–", "–", "no", "versions", "–"]
    (one,) = read_json(invoke("endpoint", "status", "lending", "--json", *on_vertex))
    assert one["versions"][0]["id"] == "deployed-1"
    told = invoke("endpoint", "predict", "lending", "--instance", '{"income": 1}', *on_vertex)
    assert told.stdout == '{"probability": 0.5, "label": "ü"}\n'
    assert remote_endpoints.asked == [("lending", {"instances": [{"income": 1}]})]
    lines = read_json(invoke("endpoint", "predict", "lending", "--file", "-", "--json", *on_vertex, stdin="{}\n{}\n"))
    assert len(lines["predictions"]) == 2
    with pytest.raises(UsageError, match="asked as its callers do"):
        invoke("endpoint", "predict", "lending", "--instance", "{}", "--version", "1", *on_vertex)


def test_models_of_a_target_are_listed(
    invoke: Invoke, on_vertex: Target, remote_endpoints: MemoryEndpoints, read_json: Callable[[Result], Any]
) -> None:
    rows = [line.split() for line in invoke("models", "list", *on_vertex).stdout.splitlines()]
    assert rows[1] == ["lending", "2", "challenger", "b" * 19, "models/lending@2"]
    assert [v["version"] for v in read_json(invoke("models", "list", "--json", *on_vertex))] == ["2", "1"]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two models of different answers."""
    try:
        python = interpreter("serving")
    except PlatformError as error:
        pytest.skip(f"the serving environment is not installed: {error}")
    paths = [tmp_path_factory.mktemp("models") / f"shift{shift}" for shift in (0, 1)]
    subprocess.run([python, TOY, *paths], check=True, capture_output=True)
    return paths


@pytest.fixture
def local(models: list[Path], tmp_path: Path) -> Iterator[Path]:
    """A directory of runs with two registered versions of which none was deployed; its endpoint is ended."""
    registry = Registry(tmp_path / "registry", "toy")
    for shift, model in enumerate(models):

        def keep(extra: Path, _: int, answer: float = 1 / (1 + math.exp(-shift)), shift: int = shift) -> None:
            write_json(extra / "lineage.json", {"run_id": f"run-{shift}", "registered": "2026-01-02T03:04:05+00:00"})
            prediction = {"probability": answer, "label": ">50K"}
            write_json(extra / "sample.json", {"instance": {"age": 0}, "prediction": prediction, "tolerance": 1e-5})

        registry.add(model, keep, f"run-{shift}")
    yield tmp_path
    Endpoint(tmp_path / "endpoints", "toy").down()


def test_the_same_commands_drive_the_endpoint_of_this_machine(
    local: Path, invoke: Invoke, read_json: Callable[[Result], Any]
) -> None:
    at = ("--runs-dir", str(local))
    first = read_json(invoke("deploy", "toy", "--version", "1", "--json", *at))
    assert (first["version"], first["former"], first["changed"], first["traffic"]) == ("1", None, True, {"1": 100})
    assert first["answer"]["predictions"][0]["probability"] == 0.5
    pid = first["endpoint"]["versions"][0]["id"]

    again = read_json(invoke("deploy", "toy", "--version", "1", "--json", *at))
    assert (again["changed"], again["endpoint"]["versions"][0]["id"]) == (False, pid)

    told = invoke("deploy", "toy", "--version", "2", *at).stdout
    assert told.startswith("toy: version 2 answers, instead of 1\nasked at http://127.0.0.1:")
    (asked,) = invoke("endpoint", "predict", "toy", "--instance", '{"age": 0}', *at).stdout.splitlines()
    assert json.loads(asked)["probability"] == pytest.approx(0.7310586, abs=1e-6)

    told = invoke("rollback", "toy", *at).stdout
    assert told.startswith("toy: version 1 is the champion again, instead of 2\nasked at http://127.0.0.1:")
    (asked,) = invoke("endpoint", "predict", "toy", "--instance", '{"age": 0}', *at).stdout.splitlines()
    assert json.loads(asked)["probability"] == 0.5
    with pytest.raises(UsageError, match="no former champion"):
        invoke("rollback", "toy", *at)


def test_what_this_machine_cannot_do_is_told(local: Path, invoke: Invoke) -> None:
    at = ("--runs-dir", str(local))
    with pytest.raises(UsageError, match=r"no such model in .*; there is toy\n  → did you mean toy\?"):
        invoke("deploy", "tooy", *at)
    with pytest.raises(UsageError, match="no version 9 is registered; there is 1, 2"):
        invoke("deploy", "toy", "--version", "9", *at)
    with pytest.raises(UsageError, match="one version answer everything"):
        invoke("deploy", "toy", "--traffic", "10", *at)
    assert Endpoint(local / "endpoints", "toy").running() is None
