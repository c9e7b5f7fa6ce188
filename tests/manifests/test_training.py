"""TF_CONFIG is made of what Trainer tells a node, and TensorFlow's workers find each other by it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tools import ROOT

TRAINING = ROOT / "manifests" / "base" / "training"
TENSORFLOW_PYTHON = ROOT / ".venvs" / "tensorflow" / "bin" / "python"
TOLD = {
    "JAX_NUM_PROCESSES": "3",
    "JAX_PROCESS_ID": "1",
    "JAX_COORDINATOR_ADDRESS": "night-run-node-0-0.night-run:29500",
}


def run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, str(TRAINING / "tf_config.py"), *command]
    kept = {key: value for key, value in os.environ.items() if key in ("PATH", "HOME")}
    return subprocess.run(line, env={**kept, **environment}, capture_output=True, text=True, timeout=30)


def test_a_node_learns_its_place() -> None:
    done = run("sh", "-c", 'echo "$TF_CONFIG"', **TOLD)
    assert json.loads(done.stdout) == {
        "cluster": {"worker": [f"night-run-node-0-{n}.night-run:29500" for n in range(3)]},
        "task": {"type": "worker", "index": 1},
    }


@pytest.mark.parametrize("told", [{}, {**TOLD, "JAX_NUM_PROCESSES": "1", "JAX_PROCESS_ID": "0"}])
def test_a_node_that_is_alone_gets_none(told: dict[str, str]) -> None:
    assert run("sh", "-c", 'echo "none: $TF_CONFIG"', **told).stdout == "none: \n"


def test_the_commands_exit_code_is_the_nodes() -> None:
    assert run("sh", "-c", "exit 7", **TOLD).returncode == 7


@pytest.mark.parametrize(
    "wrong",
    [
        {"JAX_COORDINATOR_ADDRESS": "somewhere:29500"},
        {"JAX_COORDINATOR_ADDRESS": ""},
        {"JAX_PROCESS_ID": "3"},
        {"JAX_NUM_PROCESSES": "three"},
    ],
)
def test_what_makes_no_sense_ends_the_node_before_its_command(wrong: dict[str, str]) -> None:
    done = run("echo", "ran", **{**TOLD, **wrong})
    assert done.returncode != 0
    assert "ran" not in done.stdout
    assert "mlPolicy" in done.stderr


def test_a_trainjob_without_args_is_told_to_give_them() -> None:
    done = run(**TOLD)
    assert done.returncode != 0
    assert "spec.trainer.args" in done.stderr


def test_the_example_runs_what_the_runtime_mounts(rendered: dict[str, list[dict[str, Any]]]) -> None:
    (job,) = (d for d in rendered["examples/training"] if d["kind"] == "TrainJob")
    overlay = rendered["overlays/prod"]
    (runtime,) = (d for d in overlay if d["kind"] == "TrainingRuntime")
    (files,) = (d["data"] for d in overlay if d["metadata"]["name"] == "tidemill-training" and d["kind"] == "ConfigMap")
    (replicated,) = runtime["spec"]["template"]["spec"]["replicatedJobs"]
    (container,) = replicated["template"]["spec"]["template"]["spec"]["containers"]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    named = [word for word in (*container["command"], *job["spec"]["trainer"]["args"]) if word.endswith(".py")]
    assert named == [f"{mounts['configuration']}/{name}" for name in ("tf_config.py", "all_reduce.py")]
    assert set(files) == {Path(name).name for name in named}
    # The names under which Trainer looks for what it changes.
    assert (replicated["name"], container["name"]) == ("node", "node")
    assert replicated["template"]["metadata"]["labels"] == {"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"}


@pytest.fixture
def two_hosts(tmp_path: Path) -> Iterator[list[list[str]]]:
    """Two network namespaces with an address each and each other's names: how a command is run on either."""
    if os.geteuid() != 0 or shutil.which("ip") is None or shutil.which("unshare") is None:
        pytest.skip("two nodes need root, ip and unshare")
    hosts = tmp_path / "hosts"
    names = [f"tmn{os.getpid()}{side}" for side in "ab"]
    hosts.write_text("127.0.0.1 localhost\n10.99.0.1 j-node-0-0.j\n10.99.0.2 j-node-0-1.j\n")

    def ip(*words: str) -> None:
        done = subprocess.run(["ip", *words], capture_output=True, text=True)
        if done.returncode != 0:
            pytest.skip(f"no network namespaces here: ip {' '.join(words)}: {done.stderr.strip()}")

    try:
        for name in names:
            ip("netns", "add", name)
        ip("link", "add", names[0], "netns", names[0], "type", "veth", "peer", "name", names[1], "netns", names[1])
        for number, name in enumerate(names, start=1):
            ip("-n", name, "address", "add", f"10.99.0.{number}/24", "dev", name)
            ip("-n", name, "link", "set", name, "up")
            ip("-n", name, "link", "set", "lo", "up")
        mount = f'mount --bind {hosts} /etc/hosts && exec "$@"'
        yield [["ip", "netns", "exec", name, "unshare", "-m", "sh", "-c", mount, "sh"] for name in names]
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)


@pytest.mark.slow
def test_two_nodes_of_tensorflow_add_up_their_numbers(two_hosts: list[list[str]], tmp_path: Path) -> None:
    """What examples/training does in a cluster: the runtime's command, the job's args, names as JobSet gives them."""
    if not TENSORFLOW_PYTHON.exists():
        pytest.skip("no tensorflow environment: make setup")
    told = {"JAX_NUM_PROCESSES": "2", "JAX_COORDINATOR_ADDRESS": "j-node-0-0.j:29500", "TF_CPP_MIN_LOG_LEVEL": "2"}
    command = [str(TENSORFLOW_PYTHON), str(TRAINING / "tf_config.py"), str(TENSORFLOW_PYTHON)]
    nodes = []
    for number, host in enumerate(two_hosts):
        environment = {**os.environ, **told, "JAX_PROCESS_ID": str(number), "CUDA_VISIBLE_DEVICES": ""}
        line = [*host, *command, str(TRAINING / "all_reduce.py")]
        with (tmp_path / f"node-{number}.log").open("w") as log:
            nodes.append(subprocess.Popen(line, env=environment, stdout=log, stderr=subprocess.STDOUT))
    try:
        deadline = time.monotonic() + 120
        codes = [node.wait(timeout=max(1, deadline - time.monotonic())) for node in nodes]
    finally:
        for node in nodes:
            node.kill()
            node.wait()
    logs = [(tmp_path / f"node-{number}.log").read_text() for number in range(2)]
    assert codes == [0, 0], logs
    for number, log in enumerate(logs):
        assert f"node {number} of 2: 2 replicas, their sum is 2" in log
