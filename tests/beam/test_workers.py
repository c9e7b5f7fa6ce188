"""Workers of another process, in another directory and with another place for files, get all that they need."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tidemill.beam import opened_cluster
from tidemill.bundle import open_bundle, pack
from tidemill.errors import PlatformError, UserCodeError
from tidemill.evaluate.run import run as evaluate
from tidemill.files import digest_tree
from tidemill.ingest.run import run as ingest
from tidemill.transform.run import run as transform

_START_S = 60


@pytest.fixture(scope="session")
def on_worker_pool(flink_jar: Path, shop, tmp_path_factory) -> Iterator[list[str]]:
    """Flags of Flink whose workers are started by a pool that knows tidemill and nothing else of these tests."""
    home = tmp_path_factory.mktemp("pool")
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    environment = {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",  # the pool starts `python`
        "HOME": str(home),
        "TMPDIR": str(home),  # so that no unpacked bundle of this process is found
        "TF_CPP_MIN_LOG_LEVEL": "2",
    }
    with (home / "log").open("wb") as log:
        pool = subprocess.Popen(
            [sys.executable, "-m", "apache_beam.runners.worker.worker_pool_main", f"--service_port={port}"],
            cwd=home, env=environment, stdout=log, stderr=log,
        )  # fmt: skip
        try:
            _wait_for(port)
            flags = [
                f"--flink_job_server_jar={flink_jar}",
                "--flink_master=[local]",
                "--environment_type=EXTERNAL",
                f"--environment_config=localhost:{port}",
                f"--temp_location={tmp_path_factory.mktemp('exchange')}",
            ]
            with opened_cluster(open_bundle(shop.bundle), "flink", flags) as cluster:
                yield list(cluster.flags)
        finally:
            pool.terminate()
            pool.wait(30)


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + _START_S
    while True:
        try:
            socket.create_connection(("localhost", port), 1).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def test_user_code_reaches_workers_that_never_saw_it(shop, examples, on_worker_pool, tmp_path):
    """Its modules import each other, one of them only when it runs, and its own class passes between workers."""
    found = {}
    for runner, flags in (("direct", []), ("flink", on_worker_pool)):
        graph, transformed = tmp_path / runner / "graph", tmp_path / runner / "transformed"
        report = transform(shop.user_bundle, examples, tmp_path, graph, transformed, runner, flags)
        found[runner] = report.rows, report.features, digest_tree(transformed)
    assert found["flink"] == found["direct"]


def test_rows_answers_and_metrics_come_back_from_workers_of_another_disk(shop, examples, on_worker_pool, tmp_path):
    ingest(shop.bundle, str(shop.table), "", tmp_path / "examples", "flink", on_worker_pool)
    assert digest_tree(tmp_path / "examples") == digest_tree(examples)
    (tmp_path / "none").mkdir()
    found = {}
    for runner, flags in (("direct", []), ("flink", on_worker_pool)):
        out = tmp_path / runner
        outputs = (out / "evaluation", out / "blessing", out / "predictions")
        report = evaluate(shop.bundle, examples, shop.model, tmp_path / "none", *outputs, runner, flags)
        found[runner] = report, digest_tree(out / "predictions")
    assert found["flink"] == found["direct"]
    (location,) = [flag.partition("=")[2] for flag in on_worker_pool if flag.startswith("--temp_location")]
    assert len(list(Path(location).iterdir())) == 0  # what passed through was removed


def test_a_fault_in_user_code_on_a_worker_is_told_as_the_user_s(shop, examples, on_worker_pool, tmp_path):
    for module in open_bundle(shop.user_bundle).directory.glob("*.py"):
        (tmp_path / module.name).write_text(module.read_text())
    (tmp_path / "later.py").write_text("def unchanged(value):\n    raise ValueError('too large to be true')\n")
    problem = open_bundle(shop.user_bundle).problem
    bundle = pack(problem, tmp_path, tmp_path / "bundles")
    with pytest.raises(UserCodeError, match="too large to be true"):
        transform(bundle, examples, tmp_path, tmp_path / "graph", tmp_path / "out", "flink", on_worker_pool)
    assert not (tmp_path / "graph").exists()


def test_a_job_server_that_does_not_start_is_the_platform_s_fault(shop, flink_jar):
    flags = [f"--flink_job_server_jar={flink_jar}", "--job_server_java_launcher=no-java-here"]
    cluster = opened_cluster(open_bundle(shop.bundle), "flink", flags)
    with pytest.raises(PlatformError, match=r"job server of flink: must start .*no-java-here.*\n.*--job_endpoint"):
        cluster.__enter__()


def test_a_cluster_without_workers_is_the_platform_s_fault_and_not_the_user_code_s(shop, examples, flink_jar, tmp_path):
    flags = [f"--flink_job_server_jar={flink_jar}", "--environment_type=EXTERNAL", "--environment_config=localhost:1"]
    with pytest.raises(PlatformError, match="analysis: the cluster gave up"):
        transform(shop.user_bundle, examples, tmp_path, tmp_path / "graph", tmp_path / "out", "flink", flags)
