"""The train task as it is compiled, run as a process beside a cluster whose TrainJobs are processes: a whole life.

The task is killed, told to end, and started again, as KFP, Argo and the kubelet do it to its process group.
"""

from __future__ import annotations

import contextlib
import copy
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from cluster_fake import ClusterFake
from trainer_fake import Nodes

from tidemill.jobs.job import job_name
from tidemill_pipelines.targets.compilation import Compiled, compile_package
from tidemill_pipelines.targets.config import parse_target

ROOT = Path(__file__).parents[2]
TENSORFLOW_PYTHON = ROOT / ".venvs" / "tensorflow" / "bin" / "python"
ACTING = ROOT / "tests" / "fakes" / "cluster" / "acting_node.py"
RUN, WORKFLOW = "5f0c2a9e-77c1-4b7e-9d3e-6f7b1d0f2a11", "taxi-training-x7k2p"
NAME = job_name(RUN, "train")
TARGET = "kind: kubernetes\nlabels: {team: risk}\ntraining: {kind: kubernetes, workers: 2, max_restarts: 0}\n"


@pytest.fixture(scope="module")
def compiled() -> Compiled:
    problem = ROOT / "pipelines" / "problems" / "taxi"
    return compile_package(problem, "training", parse_target(TARGET, "target.yaml"), source="s3://bucket/x.csv")


class Task:
    """The train task of one run, try after try, in its container's environment."""

    def __init__(
        self, root: Path, cluster: ClusterFake, compiled: Compiled, inputs: Mapping[str, Path] | None = None
    ) -> None:
        self.root, self.cluster = root, cluster
        self.scratch = root / "runs" / RUN / "scratch" / "train"
        self.scratch.mkdir(parents=True)
        spec = compiled.package.spec
        self._container = spec["deploymentSpec"]["executors"]["exec-train"]["container"]
        tasks = next(
            c["dag"]["tasks"] for c in spec["components"].values() if "train" in c.get("dag", {}).get("tasks", ())
        )
        settings = copy.deepcopy(tasks["train"]["inputs"]["parameters"]["settings"]["runtimeValue"]["constant"])
        given = inputs or self._small_inputs(root / "inputs", compiled)
        made = {name: _artifact(root / "outputs" / name) for name in ("model", "history")}
        self._input = {
            "inputs": {
                "parameterValues": {"settings": {**settings, "poll_s": 0.05}},
                "artifacts": {name: _artifact(path) for name, path in given.items()},
            },
            "outputs": {"artifacts": made, "outputFile": str(root / "outputs" / "executor_output.json")},
        }
        self.process: subprocess.Popen[str] | None = None
        self.act(steps=8)

    @staticmethod
    def _small_inputs(place: Path, compiled: Compiled) -> dict[str, Path]:
        (place / "transformed" / "train").mkdir(parents=True)
        (place / "transformed" / "manifest.json").write_text("{}")
        (place / "transformed" / "train" / "part-0.parquet").write_bytes(b"rows")
        (place / "transform_graph").mkdir()
        (place / "transform_graph" / "features.json").write_text("{}")
        address = compiled.package.defaults["model_bundle"]
        (place / "bundle").write_bytes(compiled.files[address])
        return {name: place / name for name in ("bundle", "transformed", "transform_graph")}

    def act(self, **how: Any) -> None:
        self.scratch.mkdir(exist_ok=True)
        (self.scratch / "act.json").write_text(json.dumps(how))

    def start(self, output: Any = None) -> None:
        arguments = [json.dumps(self._input) if a == "{{$}}" else a for a in self._container["args"]]
        constants = {one["name"]: one["value"] for one in self._container["env"]}
        environment = {
            **os.environ,
            **constants,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "TIDEMILL_RUNS": str(self.root / "runs"),
            "TIDEMILL_RUN_ID": RUN,
            "TIDEMILL_WORKFLOW": WORKFLOW,
        }
        with (self.root / "log").open("a") as log:
            self.process = subprocess.Popen(
                [*self._container["command"], *arguments],
                env=environment,
                stdout=output or log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                text=True,
            )

    def send(self, number: int) -> None:
        """Sends a signal to the process group, as Argo's emissary does."""
        assert self.process is not None
        os.killpg(self.process.pid, number)
        self.process.wait(30)  # the shell's end: the task's own may take longer

    def end(self, seconds: float = 60) -> int:
        """Waits for the task's own process, which may outlive its shell; returns its exit code as recorded."""
        assert self.process is not None
        self.process.wait(seconds)
        self.until(lambda: self.record["status"] != "running")
        return int(self.record["exit_code"])

    def until(self, what: Callable[[], Any], seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while not what():
            assert time.monotonic() < deadline, self.told
            time.sleep(0.02)

    @property
    def told(self) -> str:
        return (self.root / "log").read_text()

    @property
    def record(self) -> dict[str, Any]:
        value: dict[str, Any] = json.loads((self.root / "runs" / RUN / "tasks" / "train.json").read_text())
        return value

    @property
    def made(self) -> int:
        return sum(1 for done in self.cluster.did if done.startswith("create trainjobs"))


def _artifact(path: Path) -> dict[str, Any]:
    path.parent.mkdir(exist_ok=True)
    return {
        "artifacts": [{"name": path.name, "uri": str(path), "type": {"schemaTitle": "system.Artifact"}, "metadata": {}}]
    }


def acting_nodes(logs: Path) -> Nodes:
    logs.mkdir(exist_ok=True)
    return Nodes(logs, command=lambda line: [line[0], str(ACTING), *line[3:]])


@pytest.fixture
def nodes(tmp_path: Path) -> Nodes:
    return acting_nodes(tmp_path)


@pytest.fixture
def task(tmp_path: Path, cluster: ClusterFake, compiled: Compiled, nodes: Nodes) -> Iterator[Task]:
    cluster.play = lambda name: nodes
    cluster.workflow(WORKFLOW)
    made = Task(tmp_path, cluster, compiled)
    yield made
    with contextlib.suppress(ProcessLookupError):
        made.send(signal.SIGKILL)


def test_two_nodes_train_and_the_task_puts_out_what_they_made(task: Task) -> None:
    task.start()
    assert task.end() == 0, task.told
    assert json.loads((task.root / "outputs" / "model" / "model.json").read_text())["workers"] == 2
    assert json.loads((task.root / "outputs" / "history" / "history.json").read_text())["steps"] == 8
    for worker in ("chief", "worker-1"):
        assert task.told.count(f"{worker}: step 8\n") == 1
    summary = task.record["summary"]
    assert summary == {"steps": 8, "resumed_from_step": 0, "job": NAME, "attempts": 1, "workers": 2}
    assert not task.scratch.exists(), "what a retry would need is of no more use"


def test_a_task_that_is_killed_finds_its_job_and_its_inputs_again(task: Task) -> None:
    task.act(steps=100)
    task.start()
    task.until(lambda: "chief: step 3\n" in task.told)
    task.send(signal.SIGKILL)
    copied = {path: path.stat().st_ino for path in (task.scratch / "inputs").rglob("*")}
    task.start()
    task.until(lambda: f"found job {NAME}" in task.told)
    assert {path: path.stat().st_ino for path in (task.scratch / "inputs").rglob("*")} == copied
    assert len(copied) >= 6
    assert task.end() == 0, task.told
    assert task.made == 1
    assert "chief: step 100" in task.told
    assert (task.root / "outputs" / "model" / "model.json").is_file()


def test_a_task_whose_outputs_could_not_be_uploaded_trains_again(task: Task) -> None:
    """KFP uploads them when the task's own process has ended well, and all that it left for a retry is removed."""
    task.start()
    assert task.end() == 0, task.told
    shutil.rmtree(task.root / "outputs")
    task.act(steps=8)
    task.cluster.play = lambda name: acting_nodes(task.root / "again")
    task.start()
    task.until(lambda: task.record["status"] == "running")
    assert task.end() == 0, task.told
    assert task.made == 2
    assert (task.root / "outputs" / "model" / "model.json").is_file()


def test_the_users_fault_in_one_worker_is_the_tasks(task: Task, nodes: Nodes) -> None:
    task.act(steps=8, fail={"worker": 1, "step": 2, "times": 9, "kind": "data"})
    task.start()
    assert task.end() == 4, task.told
    assert task.record["error"]["type"] == "DataError"
    assert task.record["error"]["where"] == "worker-1: eval split"
    assert task.record["error"]["remedy"] == "give more data"
    assert nodes.attempt == 0, "the next start would end likewise"


def test_a_node_that_dies_takes_all_back_to_their_checkpoints(task: Task, nodes: Nodes) -> None:
    task.act(steps=8, fail={"worker": 1, "step": 4, "times": 1, "kind": "kill"})
    task.start()
    assert task.end() == 0, task.told
    assert nodes.attempt == 1
    assert task.made == 1
    assert task.record["summary"]["resumed_from_step"] >= 3


def test_nodes_that_die_again_and_again_fail_the_task_for_a_retry(task: Task) -> None:
    task.act(steps=8, fail={"worker": 1, "step": 4, "times": 99, "kind": "kill"})
    task.start()
    assert task.end() == 5, task.told
    assert "preempted" in task.record["error"]["message"] or "ReachedMaxRestarts" in task.record["error"]["message"]


def test_nodes_that_are_started_again_and_get_no_further_fail_the_task(task: Task, nodes: Nodes) -> None:
    """Exit code 5 counts against no limit of the runtime's: on spot nodes it comes of a node that was taken away."""
    task.act(steps=8, fail={"worker": 1, "step": 2, "times": 99, "kind": "platform"})
    task.start()
    assert task.end() == 5, task.told
    assert "restarts in a row, none beyond step" in task.record["error"]["message"]
    assert nodes.attempt > 3, "more than maxRestarts"
    assert f"delete trainjobs {NAME}" in task.cluster.did


def test_a_cancelled_run_takes_its_job_along(task: Task) -> None:
    """By then nobody may read what the task prints: KFP's launcher, at the other end, ends with the same signal."""
    reading, writing = os.pipe()
    task.act(steps=400)
    task.start(output=writing)
    os.close(writing)
    task.until(lambda: any(path.exists() for path in (task.scratch / "checkpoints").glob("*")))
    task.cluster.workflow(WORKFLOW, activeDeadlineSeconds=0)
    os.close(reading)
    task.send(signal.SIGTERM)
    task.until(lambda: f"delete trainjobs {NAME}" in task.cluster.did)


def test_a_task_that_is_evicted_leaves_its_job_to_the_next_try(task: Task) -> None:
    task.act(steps=60)
    task.start()
    task.until(lambda: "chief: step 2\n" in task.told)
    task.send(signal.SIGTERM)
    assert task.end() == 5, task.told
    assert f"job {NAME}: goes on" in task.record["error"]["message"]
    task.start()
    task.until(lambda: task.record["status"] == "succeeded")
    assert task.made == 1
    assert not [done for done in task.cluster.did if done.startswith("delete")]


def test_a_deleted_run_takes_its_job_along_when_the_task_could_not(task: Task) -> None:
    task.act(steps=400)
    task.start()
    task.until(lambda: "chief: step 1\n" in task.told)
    task.send(signal.SIGKILL)
    task.cluster.delete_workflow(WORKFLOW)
    assert task.cluster.object("trainjobs", NAME) is None


def test_an_outage_of_the_api_server_loses_nothing(task: Task) -> None:
    task.act(steps=40)
    task.start()
    task.until(lambda: "chief: step 1\n" in task.told)
    task.cluster.fail("GET", r".*/trainjobs/.*", 503, 2)
    assert task.end() == 0, task.told
    assert task.made == 1


def test_without_the_right_to_make_jobs_the_task_says_so_at_once(task: Task) -> None:
    task.cluster.forbidden.add(("create", "trainjobs"))
    task.start()
    assert task.end() == 5
    assert "create trainjobs" in task.record["error"]["remedy"]


@pytest.mark.slow
def test_a_real_training_by_two_nodes_goes_on_through_the_death_of_its_task(
    tmp_path: Path, cluster: ClusterFake, compiled: Compiled
) -> None:
    """The nodes run what the TrainJob says, TensorFlow and all, and end with one model."""
    if not TENSORFLOW_PYTHON.exists():
        pytest.skip("no tensorflow environment: make setup")
    maker = [str(TENSORFLOW_PYTHON), str(Path(__file__).parent / "real_inputs.py"), str(tmp_path / "real")]
    (tmp_path / "real").mkdir()
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_VISIBLE_DEVICES": ""}
    subprocess.run(maker, check=True, env={**os.environ, **quiet}, timeout=120, capture_output=True)
    inputs = {name: Path(path) for name, path in json.loads((tmp_path / "real" / "inputs.json").read_text()).items()}
    nodes = Nodes(tmp_path, python=str(TENSORFLOW_PYTHON), environment=quiet)
    cluster.play = lambda name: nodes
    cluster.workflow(WORKFLOW)
    task = Task(tmp_path, cluster, compiled, inputs)
    task.start()
    task.until(lambda: list(task.scratch.glob("checkpoints/**/*")), 240)
    task.send(signal.SIGKILL)
    task.start()
    assert task.end(240) == 0, task.told
    assert f"found job {NAME}" in task.told
    assert (task.made, nodes.attempt) == (1, 0)
    history = json.loads((tmp_path / "outputs" / "history" / "history.json").read_text())
    assert history["steps"] == 12 * 32
    assert (tmp_path / "outputs" / "model" / "saved_model" / "saved_model.pb").is_file()
    assert task.record["summary"]["steps"] == 12 * 32
    assert task.record["summary"]["job"] == NAME


def test_the_launcher_takes_what_the_train_component_takes() -> None:
    """What a pipeline hands to the one it hands to the other; how many processes is the target's to say here."""
    from tidemill.train.component import train as in_the_task
    from tidemill.trainjob.component import train as by_trainjob

    own = set(by_trainjob.component_spec.inputs)
    assert own == {*in_the_task.component_spec.inputs, "settings"} - {"workers"}
    assert set(by_trainjob.component_spec.outputs) == set(in_the_task.component_spec.outputs)


def test_without_a_section_the_task_trains_itself(compiled: Compiled) -> None:
    plain = compile_package(
        ROOT / "pipelines" / "problems" / "taxi",
        "training",
        parse_target("kind: kubernetes", "t"),
        source="s3://b/x.csv",
    )
    images = [
        package.spec["deploymentSpec"]["executors"]["exec-train"]["container"]["image"].partition(":")[0]
        for package in (plain.package, compiled.package)
    ]
    assert images == ["tidemill/tensorflow", "tidemill/control"]
