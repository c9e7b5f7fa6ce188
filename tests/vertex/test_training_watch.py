"""The train task as a process: killed, told to end, and told by the workers' records why their job failed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

PARENT = "projects/example-project/locations/europe-west1"
RUN = "tidemill-build-7"
SCRIPT = """
import sys
from dataclasses import replace
from pathlib import Path
from tidemill.jobs.handover import Artefacts
from tidemill.stage import Stage
from tidemill.vertex.clients import Clients
from tidemill.vertex.clients import Patience as Calls
from tidemill.vertex.job_logs import JobLogs
from tidemill.vertex.location import Location
from tidemill.vertex.train import train, waits_for

root, port, logging, hang_s = sys.argv[1:]
with Stage("train") as stage:
    calls = Calls(call=20, pause=0.02, longest_pause=0.1, unavailable=1.0, operation=20, poll=0.01)
    clients = Clients(Location("example-project", "europe-west1"), calls, f"localhost:{port}")
    bucket = Path(root) / "example-bucket"
    names = ("bundle", "transformed", "transform_graph", "model", "history")
    settings = {"training": {"workers": 2.0}, "location": clients.location.path, "image": "tensorflow"}
    stage.begin()
    outcome = train(
        Artefacts(*[bucket / name for name in names]),
        settings,
        bucket / "runs" / "RUN" / "scratch" / "train",
        "RUN",
        clients,
        JobLogs(clients.location, logging),
        replace(waits_for(float(hang_s), retries=False), poll_s=0.05, submit_s=5.0, outage_s=5.0),
        mount=root,
    )
    print("OUTCOME", outcome)
""".replace("RUN", RUN)


class Task:
    """The train task of one run, try after try."""

    def __init__(self, root: Path, fake: Any) -> None:
        self.root, self.fake = root, fake
        self.shared = root / "example-bucket" / "runs" / RUN / "scratch" / "train"
        self.shared.mkdir(parents=True)
        self.hang_s = 60.0
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self.root / "log").open("w") as log:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    "-c",
                    SCRIPT,
                    str(self.root),
                    str(self.fake.port),
                    self.fake.logging,
                    str(self.hang_s),
                ],
                env={**os.environ, **self.fake.environment},
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def told(self) -> str:
        return (self.root / "log").read_text()

    def until(self, text: str) -> None:
        self._wait(lambda: text in self.told())

    def end(self) -> tuple[int, str]:
        assert self.process is not None
        code = self.process.wait(timeout=60)
        return code, self.told()

    def record(self, worker: int, **error: Any) -> None:
        """Has a worker leave its record, as `tidemill.stage` writes it."""
        directory = self.shared / "records"
        directory.mkdir(exist_ok=True)
        told = {"where": "split", "expected": "must fit", "got": None, "remedy": None, "message": "", **error}
        summary = {} if error else {"steps": 40}
        record = {"stage": "train", "summary": summary, "error": told if error else None}
        (directory / f"worker-{worker}.json").write_text(json.dumps(record))

    def number(self) -> str:
        return str(json.loads((self.shared / "job.json").read_text())["id"]).rsplit("/", 1)[-1]

    def _wait(self, done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 60
        while not done():
            assert self.process is not None
            assert self.process.poll() is None, self.told()
            assert time.monotonic() < deadline, self.told()
            time.sleep(0.02)


@pytest.fixture
def task(tmp_path: Path, fake: Any, runs_of_toy: Any) -> Iterator[Task]:
    made = Task(tmp_path, fake)
    run = runs_of_toy.make_run(tmp_path / "run", "1")
    (tmp_path / "example-bucket" / "bundle").write_bytes(Path(run.bundle).read_bytes())
    yield made
    if made.process is not None and made.process.poll() is None:
        made.process.kill()
        made.process.wait()


def entry(text: str) -> dict[str, Any]:
    labels = {"task_name": "workerpool1-0"}
    return {
        "insertId": text,
        "timestamp": "2026-01-01T00:00:01Z",
        "resource": {"type": "ml_job", "labels": labels},
        "jsonPayload": {"message": text},
    }


def test_a_task_that_was_killed_finds_its_job_and_tells_its_logs(task: Task, fake: Any) -> None:
    fake.set(held=True)
    task.start()
    task.until(": running")
    assert task.process is not None
    task.process.kill()
    assert task.process.wait() == -signal.SIGKILL
    fake.ask("log", task.number(), [entry("step 40: loss 0.5")])
    task.record(0)
    task.start()
    task.until("worker-1: step 40: loss 0.5")
    fake.set(held=False)
    code, told = task.end()
    assert code == 0, told
    assert "found job" in told
    assert "'steps': 40" in told
    (request,) = fake.requests("CreateCustomJob")
    pools = request["custom_job"]["job_spec"]["worker_pool_specs"]
    assert [pool["replica_count"] for pool in pools] == ["1", "1"]
    arguments = pools[0]["container_spec"]["args"]
    assert arguments[:2] == ["--bundle", str(task.root / "example-bucket" / "bundle")]
    assert arguments[-2:] == ["--shared", str(task.shared)]
    assert request["custom_job"]["labels"]["tidemill-run"] == RUN


def test_a_cancelled_run_cancels_its_job(task: Task, fake: Any, target: Any, submission: Any) -> None:
    fake.set(held=True)
    assert target.submit(submission("build-7")).id == RUN
    task.start()
    task.until(": running")
    target.cancel(RUN)
    assert task.process is not None
    task.process.terminate()
    code, told = task.end()
    assert (code, "was cancelled with its run" in told) == (130, True), told
    assert [request["name"].rsplit("/", 1)[-1] for request in fake.requests("CancelCustomJob")] == [task.number()]


def test_a_task_whose_machine_is_wanted_leaves_its_job(task: Task, fake: Any, target: Any, submission: Any) -> None:
    """SIGTERM without a cancelled run is maintenance: the job goes on, and the next try finds it."""
    fake.set(held=True)
    target.submit(submission("build-7"))
    task.start()
    task.until(": running")
    assert task.process is not None
    task.process.terminate()
    code, told = task.end()
    assert (code, "goes on" in told) == (5, True), told
    assert fake.requests("CancelCustomJob") == []
    task.record(0)
    fake.set(held=False)
    task.start()
    assert task.end()[0] == 0
    assert len(fake.requests("CreateCustomJob")) == 1


def test_a_run_that_nobody_knows_of_was_not_cancelled(task: Task, fake: Any) -> None:
    fake.set(held=True)
    task.start()
    task.until(": running")
    assert task.process is not None
    task.process.terminate()
    code, told = task.end()
    assert (code, "not known whether the run was cancelled" in told) == (5, True), told


def test_the_users_fault_ends_the_job_at_once_with_its_cause(task: Task, fake: Any) -> None:
    """Vertex AI would start the workers again and again: it knows no exit code that means never."""
    fake.set(held=True)
    task.start()
    task.until(": running")
    task.record(1, type="DataError", exit_code=4, where="eval split", expected="has no rows", remedy="give more data")
    code, told = task.end()
    assert code == 4, told
    assert "DataError: worker-1: eval split: has no rows\n  → give more data" in told
    assert len(fake.requests("CancelCustomJob")) == 1


def test_a_worker_that_broke_with_another_is_no_reason_to_end_the_job(task: Task, fake: Any) -> None:
    """Whoever loses a preempted worker may end in ways that nobody foresaw; all are started again."""
    fake.set(held=True)
    task.start()
    task.until(": running")
    task.record(1, type="TidemillError", exit_code=1, expected="must end without an unforeseen error")
    time.sleep(0.3)
    task.record(1)
    task.record(0)
    fake.set(held=False)
    assert task.end()[0] == 0
    assert fake.requests("CancelCustomJob") == []


def test_a_job_that_failed_without_a_record_fails_in_vertex_ais_words(task: Task, fake: Any) -> None:
    fake.set(failing_jobs=["The replica workerpool1-0 ran out of memory."] * 2)
    task.start()
    code, told = task.end()
    assert code == 5, told
    assert "JOB_STATE_FAILED: The replica workerpool1-0 ran out of memory." in told
    assert "console.cloud.google.com" in told
    assert len(fake.requests("CreateCustomJob")) == 2, "one more, from the newest checkpoint"


def test_a_job_that_hangs_is_cancelled_and_followed_by_another(task: Task, fake: Any) -> None:
    fake.set(held=True)
    task.hang_s = 1.0
    task.start()
    task.until("another job follows")
    task.record(0)
    fake.set(held=False)
    code, told = task.end()
    assert code == 0, told
    assert "chief got nothing done" in told
    assert len(fake.requests("CancelCustomJob")) == 1
    first, second = (request["custom_job"]["display_name"] for request in fake.requests("CreateCustomJob"))
    assert second == f"{first}-2"
    assert "'attempts': 2" in told


def test_a_preempted_worker_is_no_reason_to_end_the_job(task: Task, fake: Any) -> None:
    """Vertex AI starts the workers again, and they go on from their checkpoint."""
    fake.set(held=True)
    task.start()
    task.until(": running")
    task.record(1, type="PlatformError", exit_code=5, expected="was preempted")
    time.sleep(0.3)
    task.record(0)
    fake.set(held=False)
    code, told = task.end()
    assert code == 0, told
    assert fake.requests("CancelCustomJob") == []


def test_quotas_are_waited_for_and_a_missing_permission_is_not(task: Task, fake: Any) -> None:
    fake.refuse("CreateCustomJob", "RESOURCE_EXHAUSTED", "The following quotas are exceeded: CustomModelTraining", 2)
    task.record(0)
    task.start()
    code, told = task.end()
    assert code == 0, told
    assert "asking again in" in told
    (task.shared / "job.json").unlink()
    fake.refuse("CreateCustomJob", "PERMISSION_DENIED", "Permission 'aiplatform.customJobs.create' denied", 9)
    fake.refuse("ListCustomJobs", "PERMISSION_DENIED", "Permission 'aiplatform.customJobs.list' denied", 1)
    task.start()
    code, told = task.end()
    assert (code, "grant roles/aiplatform.user" in told) == (5, True), told
    assert "asking again" not in told
