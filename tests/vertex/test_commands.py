"""Whole flows by the command, as a user types it, in a network where the region's host leads to the fake."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from vertex_fake import NUMBER, PARENT, fake_vertex, isolation

ROOT = Path(__file__).parents[2]
LENDING = ROOT / "pipelines" / "problems" / "lending"
SOURCE = "gs://example-bucket/loans.csv"
REGISTRY = "europe-west1-docker.pkg.dev/example-project/tidemill"
IMAGES = {
    environment: f"{REGISTRY}/{environment}@sha256:{number * 64}"
    for number, environment in enumerate(("control", "validation", "tensorflow", "serving"), start=1)
    for number in [str(number)]
}
TARGET = """
kind: vertex
pipeline_root: gs://example-bucket/root
service_account: tidemill-pipeline@example-project.iam.gserviceaccount.com
labels: {team: risk}
defaults: {cpu: 4, memory: 16G, retries: {count: 2, backoff_s: 60}}
stages: {train: {cpu: 8, memory: 32G, cache: false}}
vertex:
  project: example-project
  region: europe-west1
  network: projects/123456789012/global/networks/example
  cmek_key: projects/example-project/locations/europe-west1/keyRings/r/cryptoKeys/k
deploy: {kind: vertex, drain_s: 0, dedicated: true, machine: n1-standard-4}
"""


class Shell:
    """A user's directory and commands, where the fake is."""

    def __init__(self, fake: Any, directory: Path) -> None:
        self.fake, self.directory = fake, directory

    def run(self, *command: str, code: int = 0, **environment: str) -> str:
        """Runs a command and returns what it printed; what it said beside is in ``error``."""
        done = subprocess.run(
            [*self.fake.enter, f"--wdns={self.directory}", *command],
            env={**os.environ, **self.fake.environment, "COLUMNS": "200", **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        self.error = done.stderr
        assert done.returncode == code, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
        assert "Warning" not in done.stderr
        return done.stdout

    def tidemill(self, *arguments: str, code: int = 0) -> str:
        return self.run(sys.executable, "-m", "tidemill_pipelines", *arguments, code=code)

    def asked(self, *arguments: str, code: int = 0) -> Any:
        return json.loads(self.tidemill(*arguments, "--json", code=code))


@pytest.fixture(scope="module")
def _isolated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    if reason := isolation():
        pytest.skip(reason)
    with fake_vertex(tmp_path_factory.mktemp("isolated"), isolated=True) as fake:
        yield fake


@pytest.fixture(scope="module")
def _directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("user")
    (directory / "targets").mkdir()
    (directory / "targets" / "production.yaml").write_text(TARGET)
    images = {"version": "0.1.0", "lock": "10cc", "commit": "c0ffee", "images": IMAGES}
    (directory / "images.json").write_text(json.dumps(images))
    return directory


@pytest.fixture
def shell(_isolated: Any, _directory: Path) -> Shell:
    _isolated.ask("reset")
    return Shell(_isolated, _directory)


@pytest.fixture(scope="module")
def compiled(_isolated: Any, _directory: Path) -> Any:
    """The IR that `tidemill compile` makes."""
    Shell(_isolated, _directory).tidemill("compile", *TRAINING, "-o", "package.yaml")
    return yaml.safe_load((_directory / "package.yaml").read_text())


PRODUCTION = ("--target", "production")
TRAINING = (str(LENDING), *PRODUCTION, "--images", "images.json", "--source", SOURCE)


def test_the_regions_host_leads_to_the_fake_and_nothing_can_leave(shell: Shell) -> None:
    script = """
import socket
print(socket.gethostbyname("europe-west1-aiplatform.googleapis.com"))
for address in ("8.8.8.8", "142.250.1.95"):
    try:
        socket.create_connection((address, 443), timeout=2)
    except OSError as error:
        print(error.strerror)
"""
    told = shell.run(sys.executable, "-c", script)
    assert told.splitlines() == ["127.0.0.1", "Network is unreachable", "Network is unreachable"]


def test_logs_of_jobs_are_read_at_the_services_own_address(shell: Shell) -> None:
    labels = {"job_id": "77", "task_name": "workerpool0-0"}
    entry = {"insertId": "1", "timestamp": "2026-01-01T00:00:00Z", "textPayload": "step 1"}
    shell.fake.ask("log", "77", [{**entry, "resource": {"type": "ml_job", "labels": labels}}])
    script = """
from tidemill.vertex.job_logs import JobLogs
from tidemill.vertex.location import Location
print(*JobLogs(Location("example-project", "europe-west1")).read("77"))
"""
    assert shell.run(sys.executable, "-c", script) == "worker-0: step 1\n"


def test_submit(shell: Shell, compiled: Any) -> None:
    """The run's IR, labels, service account, network, key and caching, from what arrived on the wire."""
    run = shell.asked("submit", *TRAINING, "--label", "commit=c0ffee", "--request-id", "build-7")
    again = shell.asked(
        "submit", *TRAINING, "--label", "commit=c0ffee", "--request-id", "build-7", "--wait", "--poll", "0"
    )
    first, second = shell.fake.requests("CreatePipelineJob")
    assert first == second
    assert (again["id"], again["existed"], again["state"]) == (run["id"], True, "succeeded")
    assert first["parent"] == PARENT
    assert first["pipeline_job_id"] == "tidemill-build-7"
    job = first["pipeline_job"]
    assert job["pipeline_spec"] == compiled  # not a character more or less than what `tidemill compile` makes
    assert re.fullmatch("[0-9a-f]{16}", job["labels"].pop("tidemill-content"))
    assert job["labels"] == {
        "team": "risk",
        "commit": "c0ffee",
        "tidemill-name": "lending-training",
        "tidemill-request": "build-7",
    }
    assert job["service_account"] == "tidemill-pipeline@example-project.iam.gserviceaccount.com"
    assert job["network"] == f"projects/{NUMBER}/global/networks/example"
    assert job["encryption_spec"]["kms_key_name"].endswith("/cryptoKeys/k")
    assert job["runtime_config"]["gcs_output_directory"] == "gs://example-bucket/root"
    executors = job["pipeline_spec"]["deploymentSpec"]["executors"]
    used = {executor["container"]["image"] for executor in executors.values() if "container" in executor}
    assert used == set(IMAGES.values())
    resources = executors["exec-train"]["container"]["resources"]
    assert (resources["resourceCpuLimit"], resources["resourceMemoryLimit"]) == ("8", "32G")
    tasks = job["pipeline_spec"]["components"]["comp-exit-handler-1"]["dag"]["tasks"]
    assert tasks["train"]["cachingOptions"] == {}
    assert tasks["transform"]["cachingOptions"] == {"enableCache": True}
    assert tasks["train"]["retryPolicy"]["maxRetryCount"] == 2
    settings = tasks["register"]["inputs"]["parameters"]["settings"]["runtimeValue"]["constant"]
    assert settings["serving_image"] == IMAGES["serving"]
    assert settings["models_uri"] == "gs://example-bucket/root/models"
    bundles = [uri for uri in shell.fake.objects() if uri.startswith("gs://example-bucket/root/bundles/")]
    given = job["pipeline_spec"]["root"]["inputDefinitions"]["parameters"]
    assert {given[name]["defaultValue"] for name in given if name.endswith("_bundle")} == set(bundles)
    assert given["registry"]["defaultValue"] == given["endpoints"]["defaultValue"] == PARENT


def test_runs_are_listed_shown_read_and_cancelled(shell: Shell) -> None:
    shell.fake.set(held=True)
    one = shell.asked("submit", *TRAINING)["id"]
    assert shell.asked("submit", *TRAINING)["id"] == one  # pressing Enter again does no harm
    assert [run["id"] for run in shell.asked("runs", "list", *PRODUCTION)] == [one]
    assert shell.asked("runs", "cancel", one, *PRODUCTION)["state"] == "cancelling"
    shell.asked("runs", "show", one, *PRODUCTION)
    shell.fake.set(held=False, failing_tasks={"transform": "The replica exited with a non-zero status of 5."})
    two = shell.asked("submit", *TRAINING, "--wait", "--poll", "0", code=5)
    assert two["id"] != one
    assert two["state"] == "failed"
    told = shell.tidemill("runs", "logs", "latest", *PRODUCTION, "--task", "transform")
    assert "The replica exited with a non-zero status of 5." in told
    assert "gcloud logging read" in told


def test_schedules(shell: Shell) -> None:
    nightly = ("--cron", "0 3 * * 1", "--time-zone", "Europe/Berlin", "--max-concurrent", "2", "--catch-up")
    times = ("--start", "2099-01-01T00:00", "--end", "2100-01-01T00:00")
    made = shell.asked("schedule", "create", *TRAINING, *nightly, *times)
    (request,) = shell.fake.requests("CreateSchedule")
    schedule = request["schedule"]
    assert schedule["display_name"] == "lending-training"
    assert schedule["cron"] == "TZ=Europe/Berlin 0 3 * * 1"
    assert (schedule["max_concurrent_run_count"], schedule["max_concurrent_active_run_count"]) == ("2", "2")
    assert schedule["allow_queueing"] is True
    assert schedule["start_time"] == "2098-12-31T23:00:00Z"  # midnight in Berlin
    assert schedule["end_time"] == "2099-12-31T23:00:00Z"
    job = schedule["create_pipeline_job_request"]["pipeline_job"]
    assert job["service_account"] == "tidemill-pipeline@example-project.iam.gserviceaccount.com"
    assert job["network"] == f"projects/{NUMBER}/global/networks/example"
    assert job["encryption_spec"]["kms_key_name"].endswith("/cryptoKeys/k")
    assert job["labels"]["team"] == "risk"
    tasks = job["pipeline_spec"]["components"]["comp-exit-handler-1"]["dag"]["tasks"]
    moments = [
        p["runtimeValue"]["constant"] for p in tasks["locate"]["inputs"]["parameters"].values() if "runtimeValue" in p
    ]
    assert "{{$.pipeline_job_schedule_time_utc}}" in moments  # filled in at run time
    shell.tidemill("schedule", "pause", "lending-training", *PRODUCTION)
    shell.tidemill("schedule", "resume", "lending-training", *PRODUCTION)
    assert shell.fake.requests("ResumeSchedule")[0]["catch_up"] is True
    later = ("--cron", "0 4 * * 1", "--end", "2100-01-01T00:00")
    assert shell.asked("schedule", "update", *TRAINING, *later)["id"] == made["id"]
    (listed,) = shell.asked("schedule", "list", *PRODUCTION)
    assert (listed["cron"], listed["time_zone"], listed["catch_up"]) == ("0 4 * * 1", "UTC", False)
    shell.tidemill("schedule", "delete", "lending-training", *PRODUCTION)
    assert shell.asked("schedule", "list", *PRODUCTION) == []


def test_failures_are_told_by_exit_code_and_remedy(shell: Shell) -> None:
    shell.fake.refuse("CreatePipelineJob", "UNAVAILABLE")
    denied = "Permission 'aiplatform.pipelineJobs.create' denied on resource '//aiplatform.googleapis.com/projects/x'"
    shell.fake.refuse("CreatePipelineJob", "PERMISSION_DENIED", denied)
    shell.tidemill("submit", *TRAINING, "--request-id", "x", code=5)
    assert len(shell.fake.requests("CreatePipelineJob")) == 2  # the first was tried again, the second not
    told = re.sub(r"\s+", " ", shell.error)
    assert "grant roles/aiplatform.user in project example-project" in told
    shell.tidemill("runs", "show", "nothing", *PRODUCTION, code=4)
    assert "run nothing" in shell.error


class Steps:
    """The release steps of the compiled pipeline, run by their own commands as a task on Vertex AI runs them."""

    def __init__(self, shell: Shell, runs: ModuleType, spec: Any) -> None:
        self.shell, self.spec = shell, spec
        self.made = {content: runs.make_run(shell.directory / content, content) for content in "12"}
        self.settings = spec["components"]["comp-exit-handler-1"]["dag"]["tasks"]["register"]["inputs"]["parameters"][
            "settings"
        ]

    def run(self, step: str, inputs: dict[str, Path], outputs: dict[str, Path], **parameters: Any) -> None:
        component = self.spec["components"][f"comp-{step.replace('_', '-')}"]
        container = self.spec["deploymentSpec"]["executors"][component["executorLabel"]]["container"]
        settings = {"settings": self.settings["runtimeValue"]["constant"]} if step != "find_champion" else {}
        executor_input = {
            "inputs": {
                "parameterValues": {**parameters, **settings},
                "artifacts": {name: {"artifacts": [_artifact(name, path)]} for name, path in inputs.items()},
            },
            "outputs": {
                "artifacts": {name: {"artifacts": [_artifact(name, path)]} for name, path in outputs.items()},
                # Vertex AI lays outputs out so, and the run's id is known by that alone.
                "outputFile": str(self.shell.directory / NUMBER / "run-7" / f"{step}_42" / "executor_output.json"),
            },
        }
        given = [json.dumps(executor_input) if part == "{{$}}" else part for part in container["args"]]
        environment = {variable["name"]: variable["value"] for variable in container["env"]}
        assert environment["TIDEMILL_RUNS"] == "/gcs/example-bucket/root/runs"
        environment["TIDEMILL_RUNS"] = str(self.shell.directory / "runs")
        environment["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        self.shell.run(*container["command"], *given, **environment)

    def register(self, content: str) -> None:
        run = self.made[content]
        names = ("examples", "statistics", "schema", "model", "blessing", "rehearsal", "evaluation")
        inputs = {"bundle": run.bundle, **{name: run.root / name for name in names}}
        self.run("register", inputs, {"registered": run.root / "registered"}, registry=PARENT)

    def deploy(self, content: str) -> Any:
        root = self.made[content].root
        places = {"registry": PARENT, "endpoints": PARENT}
        self.run("deploy", {"registered": root / "registered"}, {"deployment": root / "deployment"}, **places)
        return json.loads((root / "deployment" / "deployment.json").read_text())


def _artifact(name: str, path: Path) -> dict[str, Any]:
    return {"name": name, "uri": str(path), "type": {"schemaTitle": "system.Artifact"}, "metadata": {}}


def test_releases_by_the_compiled_steps_and_the_commands(shell: Shell, runs_of_toy: ModuleType, compiled: Any) -> None:
    """register and deploy as tasks run them; then deploy, rollback, status and predict, at a dedicated endpoint."""
    steps = Steps(shell, runs_of_toy, compiled)
    steps.register("1")
    first = steps.deploy("1")
    host = f"toy.europe-west1-{NUMBER}.prediction.vertexai.goog"
    assert first["url"] == f"https://{host}/v1/{PARENT}/endpoints/toy:predict"
    assert first["answer"]["predictions"] == [0.5]
    assert {entry["host"] for entry in shell.fake.requests() if entry["method"] == "dedicated predict"} == {
        host,
        host.replace("toy", "toy-smoke-1"),
    }
    machines = [r["deployed_model"]["dedicated_resources"]["machine_spec"] for r in shell.fake.requests("DeployModel")]
    assert machines == [{"machine_type": "n1-standard-4"}] * 2
    steps.register("2")
    listed = shell.asked("models", "list", *PRODUCTION)
    assert "challenger" in json.dumps(listed)
    canary = shell.asked("deploy", "toy", "--traffic", "20", *PRODUCTION)
    assert (canary["version"], canary["traffic"]) == ("2", {"1": 80, "2": 20})
    assert steps.deploy("2")["traffic"] == {"2": 100}  # the pipeline's own step goes on from there
    back = shell.asked("rollback", "toy", *PRODUCTION)
    assert (back["version"], back["former"], back["traffic"]) == ("1", "2", {"1": 100})
    answer = shell.asked("endpoint", "predict", "toy", "--instance", '{"age": 1}', *PRODUCTION)
    assert answer["predictions"] == [0.5]
    (status,) = shell.asked("endpoint", "status", *PRODUCTION)
    assert [(v["version"], v["traffic_percent"]) for v in status["versions"]] == [("1", 100)]
    out = {"champion": shell.directory / "champion", "reference": shell.directory / "reference"}
    steps.run("find_champion", {"bundle": steps.made["1"].bundle}, out, registry=PARENT)
    records = shell.directory / "runs" / "run-7" / "tasks"
    assert {path.stem for path in records.glob("*.json")} == {"register", "deploy", "find-champion"}
    assert (out["champion"] / "saved_model" / "saved_model.pb").read_text() == "saved_model.pb of 1"
    assert (out["champion"] / "network" / "weights.npz").read_text() == "weights of 1"
