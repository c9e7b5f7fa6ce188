"""Whole flows of the command against the fakes: in this process, but for one that is started as a user does."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from kfp_fake import KfpFake
from object_fake import ObjectFake
from released import ROW, World

from tidemill_pipelines.cli import main

ROOT = Path(__file__).parents[2]
LENDING = ROOT / "pipelines" / "problems" / "lending"
SOURCE = "s3://example-bucket/loans-{{ schedule.time | date('%Y-%m-%d') }}.csv"
Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def store() -> Iterator[ObjectFake]:
    with ObjectFake() as fake:
        yield fake


@pytest.fixture
def place(tmp_path: Path, executing: KfpFake, store: ObjectFake, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with ``targets/cluster.yaml``: the shipped example, at the fake's address."""
    example = yaml.safe_load((ROOT / "pipelines" / "targets" / "kubernetes.yaml").read_text())
    example["kubernetes"]["host"] = executing.address
    executing.multi_user, executing.access = True, {"example": ["tidemill"]}
    del example["deploy"]["address"]
    (tmp_path / "targets").mkdir()
    (tmp_path / "targets" / "cluster.yaml").write_text(yaml.safe_dump(example))
    digests = {name: f"registry.example.com/{name}@sha256:{'ab' * 32}" for name in ENVIRONMENTS}
    images = {"version": "0.1.0", "lock": "0" * 64, "commit": "c0ffee", "images": digests}
    (tmp_path / "images.json").write_text(json.dumps(images))
    for name, value in {**store.environment, "KFP_TOKEN": "example", "HOME": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    assert "KUBECONFIG" in os.environ
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def tidemill(place: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """The command; what it imports is imported once for all."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        words = ["tidemill", *arguments, "--target", "cluster"]
        monkeypatch.setattr(sys, "argv", words)
        output, errors, code = io.StringIO(), io.StringIO(), 0
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
            try:
                main()
            except SystemExit as ended:
                code = int(ended.code or 0)
        return subprocess.CompletedProcess(words, code, output.getvalue(), errors.getvalue())

    return run


ENVIRONMENTS = ("control", "validation", "tensorflow", "serving")
GIVEN = (str(LENDING), "--source", SOURCE, "--images", "images.json")


def told(done: subprocess.CompletedProcess[str]) -> Any:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_run_from_submission_to_its_end(
    tidemill: Command, executing: KfpFake, store: ObjectFake, world: World
) -> None:
    run = told(tidemill("submit", *GIVEN, "--request-id", "build-1", "--json"))
    again = told(tidemill("submit", *GIVEN, "--request-id", "build-1", "--json"))
    assert (again["id"], run["existed"], again["existed"]) == (run["id"], False, True)
    assert len(executing.runs) == 1
    assert len([name for name in store.objects if name.startswith("example-bucket/tidemill/bundles/")]) == 4
    assert len(store.writes) == 4
    (version,) = executing.versions.values()
    spec, platform = (version["pipeline_spec"][part] for part in ("pipeline_spec", "platform_spec"))
    images = {e["container"]["image"] for e in spec["deploymentSpec"]["executors"].values() if "container" in e}
    assert all("@sha256:" in image for image in images)
    assert "tidemill-store" in json.dumps(platform)
    assert SOURCE in json.dumps(spec)
    executing.end(run["id"], "FAILED", {"locate": "SUCCEEDED", "ingest": "FAILED"}, error="step failed")
    node = {"workflows.argoproj.io/node-name": "lending-training-x.root.release.ingest.executor"}
    world.cluster.pod("x", "Failed", {"pipeline/runid": run["id"]}, "DataError: no such table", node)
    assert [r["id"] for r in told(tidemill("runs", "list", "--json"))] == [run["id"]]
    shown = tidemill("runs", "show", "latest")
    assert shown.returncode == 0
    assert "ingest" in shown.stdout
    assert "step failed" in shown.stdout
    logs = tidemill("runs", "logs", run["id"])
    assert "DataError: no such table" in logs.stdout, logs.stderr
    other = told(tidemill("submit", *GIVEN, "--json"))
    assert other["id"] != run["id"]
    cancelled = tidemill("runs", "cancel", other["id"])
    assert cancelled.returncode == 0, cancelled.stderr
    assert executing.runs[other["id"]]["state"] == "CANCELING"
    nothing = tidemill("runs", "show", "nothing")
    assert nothing.returncode == 4
    assert "Run nothing not found" in nothing.stderr


def test_a_schedule_from_its_making_to_its_end(tidemill: Command, executing: KfpFake, world: World) -> None:
    def asked(verb: str, cron: str, *more: str) -> tuple[str, ...]:
        return ("schedule", verb, *GIVEN, "--cron", cron, "--time-zone", "Europe/Berlin", "--name", "hourly", *more)

    made = told(tidemill(*asked("create", "15 * * * *", "--json")))
    assert told(tidemill(*asked("create", "15 * * * *", "--json")))["id"] == made["id"]
    (job,) = executing.recurring.values()
    assert job["trigger"]["cron_schedule"]["cron"] == "0 15 * * * *"
    assert executing.fire(made["id"], datetime.now(UTC)) is not None
    other = tidemill(*asked("create", "45 * * * *"))
    assert other.returncode == 4, other.stdout
    assert "schedule update PROBLEM_DIR --name hourly" in other.stderr
    paused = told(tidemill("schedule", "pause", "hourly", "--json"))
    assert paused["state"] == "paused"
    changed = told(tidemill(*asked("update", "45 * * * *", "--json")))
    assert (changed["cron"], changed["state"]) == ("45 * * * *", "paused")
    assert told(tidemill("schedule", "resume", "hourly", "--json"))["state"] == "active"
    (listed,) = told(tidemill("schedule", "list", "--json"))
    assert (listed["cron"], listed["time_zone"]) == ("45 * * * *", "Europe/Berlin")
    assert tidemill("schedule", "delete", "hourly").returncode == 0
    assert not executing.recurring
    inexact = tidemill(*asked("create", "0 3 * * *"))
    assert inexact.returncode == 4
    assert "cronScheduleTimezone" in inexact.stderr


def test_a_model_from_its_release_to_its_rollback(tidemill: Command, executing: KfpFake, world: World) -> None:
    for _ in range(2):
        world.register()
        deployed = told(tidemill("deploy", "lending", "--json"))
    assert (deployed["version"], deployed["former"], deployed["traffic"]) == ("2", "1", {"2": 100})
    (endpoint,) = told(tidemill("endpoint", "status", "lending", "--json"))
    assert endpoint["versions"][0]["ready"]
    asked = tidemill("endpoint", "predict", "lending", "--instance", json.dumps(ROW))
    assert asked.stdout.strip() == "2.0", asked.stderr
    assert [m["version"] for m in told(tidemill("models", "list", "--json"))] == ["2"]
    back = tidemill("rollback", "lending")
    assert back.returncode == 0, back.stderr
    assert "version 1 is the champion again" in back.stdout
    none = tidemill("rollback", "lending")
    assert none.returncode == 5
    assert "no former champion to go back to" in none.stderr


def test_what_the_backend_refuses_ends_the_command_with_its_code(place: Path, executing: KfpFake) -> None:
    executing.access = {"another": ["tidemill"]}
    command = [sys.executable, "-m", "tidemill_pipelines", "runs", "list", "--target", "cluster"]
    refused = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert refused.returncode == 5
    assert "who asks is not known" in refused.stderr
    assert "example" not in refused.stderr.replace("example.com", "")


def test_a_package_as_objects_of_kubernetes(tidemill: Command, tmp_path: Path) -> None:
    done = tidemill("compile", *GIVEN, "--manifests", "-o", "pipeline.yaml")
    assert done.returncode == 0, done.stderr
    kinds = [value["kind"] for value in yaml.safe_load_all((tmp_path / "pipeline.yaml").read_text())]
    assert kinds == ["Pipeline", "PipelineVersion"]
