"""Two worker processes train one model together: as one worker does, and as if nobody had ever been stopped."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tidemill.artifacts import ModelManifest
from tidemill.train.ports import reserved
from tidemill.train.run import run

ROWS = 1031
TRAINING = {"max_epochs": 3, "batch_size": 32, "checkpoint_every_steps": 8, "learning_rate": 0.01}
NOISE = {"loss": 0.03, "auc": 0.03, "accuracy": 0.045}
"""Three standard deviations over ten seeds, which change the order of the rows and the weights at the start."""


def numbered(split, columns):
    """Puts a number by which it can be told into each row of the training split."""
    if split == "train":
        columns["hours-per-week"] = np.arange(ROWS, dtype=np.float32) / ROWS
    return columns


@pytest.fixture(scope="module")
def inputs(make_inputs):
    return make_inputs(rows=ROWS, training=TRAINING, spoil=numbered)


def start(script, arguments, workers):
    """Starts a process per worker and waits for them. Returns what each printed last."""
    with reserved(workers) as ports:
        addresses = [f"127.0.0.1:{port}" for port in ports]
        processes = [
            subprocess.Popen(
                [sys.executable, Path(__file__).with_name(script), *arguments],
                env={
                    **os.environ,
                    "TF_CONFIG": json.dumps(
                        {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": worker}}
                    ),
                },
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for worker in range(workers)
        ]
        try:
            ended = [process.communicate(timeout=300) for process in processes]
        finally:
            for process in processes:
                process.kill()
    for process, (_, errors) in zip(processes, ended, strict=True):
        assert process.returncode == 0, errors[-3000:]
    return [json.loads(out.splitlines()[-1]) for out, _ in ended]


@pytest.fixture(scope="module")
def workers(inputs):
    """What two workers found: steps beside one replica's, and trainings without and with an interruption."""
    arguments = [
        json.dumps({name: str(path) for name, path in inputs.arguments(run).items()})
        for run in ("uninterrupted", "interrupted")
    ]
    return start("replicated_worker.py", arguments, 2)


def test_two_workers_make_the_steps_of_one_with_the_same_batches(workers):
    for worker in workers:
        steps = worker["steps"]
        assert steps["difference"] < 1e-6
        assert steps["loss"][0] == pytest.approx(steps["loss"][1], rel=1e-6)
        for split in ("train", "eval"):
            two, one = steps[split]
            assert two == {name: pytest.approx(value, rel=1e-5) for name, value in one.items()}


def test_every_example_is_seen_once_in_an_epoch(workers):
    for first, second in zip(*(worker["seen"] for worker in workers), strict=True):
        assert sorted(np.rint(ROWS * np.array(first + second)).astype(int)) == list(range(ROWS))
    assert len(workers[0]["seen"]) == 3


def test_workers_agree_on_what_came_out_and_the_chief_alone_writes(workers, inputs):
    reports = [worker["report"] for worker in workers]
    for name in ("steps", "epochs", "train_loss", "eval_loss", "metrics", "batch_size", "workers", "replicas"):
        assert reports[0][name] == reports[1][name]
    assert (reports[0]["strategy"], reports[0]["workers"], reports[0]["batch_size"]) == ("multi_worker_mirrored", 2, 32)
    history = json.loads((inputs.outputs("uninterrupted")["history"] / "history.json").read_text())
    assert history["efficiency"]["workers"] == 2
    assert history["efficiency"]["step_ms"] > 0
    assert 0 <= history["efficiency"]["input_bound_share"] < 1
    assert not list(inputs.directory.rglob("*partial*"))


def test_two_workers_come_to_the_metrics_of_one_within_the_noise_of_the_order(workers, inputs):
    one = run(**inputs.arguments("one"))
    two = workers[0]["report"]
    assert (two["steps"], two["batch_size"]) == (one.steps, one.batch_size)
    found = {"loss": two["eval_loss"], **two["metrics"]}
    expected = {"loss": one.eval_loss, **one.metrics}
    assert found == {name: pytest.approx(value, abs=NOISE[name]) for name, value in expected.items()}


def test_all_workers_stop_at_the_step_of_the_one_that_was_asked_and_resume_as_if_nothing_had_been(workers, inputs):
    """33 steps an epoch, calls of at most 8 steps: the fourth call ends at step 32, the fifth at 33."""
    told = [worker["preempted"] for worker in workers]
    assert "another worker was told to end" in told[0]
    assert all("with all saved at step 33" in text for text in told)
    assert [worker["resumed"]["resumed_from_step"] for worker in workers] == [33, 33]
    paths = [inputs.outputs(name) for name in ("uninterrupted", "interrupted")]
    weights = [ModelManifest.read(each["model"]).lineage["weights"] for each in paths]
    assert weights[0] == weights[1]
    epochs = [json.loads((each["history"] / "history.json").read_text())["epochs"] for each in paths]
    for first, second in zip(*epochs, strict=True):
        assert first["eval"] == second["eval"]
        assert first["train"] == {name: pytest.approx(value, rel=1e-6) for name, value in second["train"].items()}
