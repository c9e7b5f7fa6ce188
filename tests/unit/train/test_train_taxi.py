"""The taxi problem by two local workers and by one, with the same batches: the same metrics, but for noise."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tidemill.bundle import pack
from tidemill.problem import load_problem
from tidemill.train.ports import reserved
from tidemill.train.run import run

ROOT = Path(__file__).parents[3]
TRIPS = ROOT.parent / "shared" / "data" / "taxi" / "trips.csv"
PROBLEM = ROOT / "pipelines" / "problems" / "taxi"
NOISE = {"loss": 0.0022, "auc": 0.0034, "accuracy": 0.017}
"""Three standard deviations of the difference of two trainings by one worker, measured over ten seeds, which change
the order of the rows and the weights at the start."""


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Ingests and transforms the trips. Returns the arguments that all trainings have in common."""
    if not TRIPS.is_file():
        pytest.skip("taxi/trips.csv is not at hand: it is not part of the repository")
    pytest.importorskip("tensorflow_transform", reason="the TPU image has none")
    from tidemill.files import sha256_file
    from tidemill.ingest.run import run as ingest
    from tidemill.transform.run import run as transform

    directory = tmp_path_factory.mktemp("taxi")
    problem = load_problem(PROBLEM, {"training.max_epochs": "6"})
    bundle = pack(problem, PROBLEM, directory / "bundles")
    (directory / "schema").mkdir()
    ingest(bundle, str(TRIPS), sha256_file(TRIPS), directory / "examples")
    paths = [directory / name for name in ("examples", "schema", "graph", "transformed")]
    transform(bundle, *paths)
    return {"bundle": bundle, "transform_graph": paths[2], "transformed": paths[3]}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # tf.Transform and Beam warn of themselves
def test_two_local_workers_come_to_the_metrics_of_one(inputs, tmp_path):
    one = run(**inputs, model=None, history=tmp_path / "history", checkpoints=tmp_path / "checkpoints")
    shared = tmp_path / "shared"
    arguments = {**inputs, "model": tmp_path / "two-model", "history": tmp_path / "two-history", "shared": shared}
    flags = [f"--{name.replace('_', '-')}={path}" for name, path in arguments.items()]
    with reserved(2) as ports:
        cluster = {"worker": [f"127.0.0.1:{port}" for port in ports]}
        processes = [
            subprocess.Popen(
                [sys.executable, "-m", "tidemill.train.worker", *flags],
                env={
                    **os.environ,
                    "TF_CONFIG": json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}}),
                },
                stderr=subprocess.PIPE,
                text=True,
            )
            for index in range(2)
        ]
        errors = [process.communicate(timeout=300)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors[0][-2000:]
    history = json.loads((tmp_path / "two-history" / "history.json").read_text())
    kept = history["epochs"][history["kept_epoch"] - 1]
    assert (history["steps"], history["efficiency"]["workers"]) == (one.steps, 2)
    assert history["efficiency"]["batch_size"] == one.batch_size == 256
    expected = {"loss": one.eval_loss, **one.metrics}
    print("one worker", expected, "two workers", kept["eval"])
    assert kept["eval"] == {name: pytest.approx(value, abs=NOISE[name]) for name, value in expected.items()}
    assert one.metrics["auc"] > 0.9
