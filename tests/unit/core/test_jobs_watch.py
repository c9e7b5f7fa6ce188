"""Whoever watches a job finds it again, passes on why it failed, and ends it only when that is meant."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tidemill.errors import DataError, Interrupted, PlatformError, Preempted, TidemillError, UserCodeError, UserError
from tidemill.jobs.heartbeats import Heartbeat
from tidemill.jobs.job import Denied, JobStatus, TrainingJob, job_name
from tidemill.jobs.watch import Memo, Patience, Watch, blamed

RUNNING, SUCCEEDED, FAILED = JobStatus("running"), JobStatus("succeeded"), JobStatus("failed", "2 of 2 nodes failed")
AT_ONCE = Patience(poll_s=0.001, submit_s=0.2, outage_s=0.2)


class Backend:
    """A launcher whose jobs go through the statuses that a test says; an exception among them is raised."""

    def __init__(self, *statuses: JobStatus | Exception) -> None:
        self.script = list(statuses)
        self.jobs: list[str] = []
        self.cancelled: list[str] = []
        self.printed: list[str] = []
        self.refusals: list[Exception] = []
        self.on_submit: Callable[[], None] = lambda: None
        self.on_look: Callable[[], None] = lambda: None

    def submit(self, job: TrainingJob) -> str:
        self.on_submit()
        if self.refusals:
            raise self.refusals.pop(0)
        if job.name not in self.jobs:
            self.jobs.append(job.name)
        return f"id-of-{job.name}"

    def status(self, id: str) -> JobStatus:
        self.on_look()
        if id in self.cancelled:
            return JobStatus("cancelled")
        status = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if isinstance(status, Exception):
            raise status
        return status

    def logs(self, id: str) -> Iterator[str]:
        while self.printed:
            yield self.printed.pop(0)

    def cancel(self, id: str) -> None:
        self.cancelled.append(id)

    def place(self, id: str) -> str:
        return f"backend/{id}"


def outage() -> PlatformError:
    return PlatformError("backend", "must answer", "503")


def record(shared: Path, worker: int, error: TidemillError | None = None, **summary: Any) -> None:
    (shared / "records").mkdir(exist_ok=True)
    told = error and {
        "type": type(error).__name__,
        "exit_code": error.exit_code,
        "where": error.where,
        "expected": error.expected,
        "got": error.got,
        "remedy": error.remedy,
    }
    (shared / "records" / f"worker-{worker}.json").write_text(json.dumps({"error": told, "summary": summary}))


@pytest.fixture
def job(tmp_path: Path) -> TrainingJob:
    return TrainingJob("tidemill-train-0123", ("--shared", str(tmp_path)), 2, tmp_path)


def test_a_job_is_made_followed_and_its_chiefs_summary_returned(job: TrainingJob, capsys: Any) -> None:
    backend = Backend(JobStatus("pending", "waits for quota"), RUNNING, SUCCEEDED)
    backend.printed = ["node-0: step 1", "node-1: step 1"]
    backend.on_look = lambda: record(job.shared, 0, steps=7)
    outcome = Watch(backend, job, AT_ONCE).run()
    assert (outcome.id, outcome.attempts, dict(outcome.summary)) == (f"id-of-{job.name}", 1, {"steps": 7})
    told = capsys.readouterr().out
    assert "waits for quota" in told
    assert told.count("node-1: step 1") == 1
    assert Memo.read(job.shared) == Memo(1, outcome.id)


def test_a_second_watcher_finds_the_job_of_the_first(job: TrainingJob) -> None:
    Memo(1, f"id-of-{job.name}").write(job.shared)
    backend = Backend(RUNNING, SUCCEEDED)
    assert Watch(backend, job, AT_ONCE).run().id == f"id-of-{job.name}"
    assert backend.jobs == [], "nothing was asked for"


def test_a_job_that_was_asked_for_before_its_id_was_known_is_found_by_its_name(job: TrainingJob) -> None:
    Memo(1, None).write(job.shared)
    backend = Backend(SUCCEEDED)
    backend.jobs.append(job.name)
    Watch(backend, job, AT_ONCE).run()
    assert backend.jobs == [job.name]


def test_the_error_of_the_worker_that_is_to_blame_is_raised_as_it_was(job: TrainingJob) -> None:
    def fail() -> None:
        record(job.shared, 1, UserCodeError("model.py", "build_model raised", "ZeroDivisionError", "mend it"))
        record(job.shared, 0, PlatformError("collective", "was aborted"))

    backend = Backend(FAILED)
    backend.on_look = fail
    with pytest.raises(UserCodeError) as caught:
        Watch(backend, job, AT_ONCE).run()
    assert (caught.value.exit_code, caught.value.where) == (4, "worker-1: model.py")
    assert (caught.value.got, caught.value.remedy) == ("ZeroDivisionError", "mend it")


@pytest.mark.parametrize(
    "lost", [Preempted("train", "was told to end"), PlatformError("train", "needs all its workers")]
)
def test_what_a_lost_worker_makes_of_the_others_is_no_defect(job: TrainingJob, lost: PlatformError) -> None:
    """TensorFlow may call it anything; a new start mends it, and what was met is told in case it doesn't."""
    record(job.shared, 1, lost)
    record(job.shared, 0, TidemillError("train", "must end without an unforeseen error", "DataLossError: torn"))
    found = blamed(job.shared)
    assert type(found) is type(lost)
    assert (found.where, found.got, found.retryable) == ("worker-1: train", "chief: DataLossError: torn", True)
    job.shared.joinpath("records", "worker-1.json").unlink()
    alone = blamed(job.shared)
    assert alone is not None
    assert (alone.exit_code, alone.retryable) == (1, False)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (DataError("eval", "is empty"), DataError),
        (PlatformError("disk", "is full"), PlatformError),
        (TidemillError("train", "must end"), TidemillError),
    ],
)
def test_a_recorded_error_keeps_its_kind(job: TrainingJob, error: TidemillError, kind: type) -> None:
    record(job.shared, 0, error)
    found = blamed(job.shared)
    assert type(found) is kind
    assert found.exit_code == error.exit_code


def test_a_recorded_error_of_a_kind_that_is_not_known_here_keeps_its_exit_code(job: TrainingJob) -> None:
    class Novel(UserError):
        pass

    record(job.shared, 0, Novel("here", "something else"))
    assert type(blamed(job.shared)) is UserError


def test_what_the_backend_knows_is_told_beside_an_error_that_may_only_follow_from_it(job: TrainingJob) -> None:
    def fail() -> None:
        record(job.shared, 0, PlatformError("train", "needs all its workers", "aborted", "try again"))

    backend = Backend(JobStatus("failed", "worker-1: OOMKilled, exit code 137"))
    backend.on_look = fail
    with pytest.raises(PlatformError, match="needs all its workers") as caught:
        Watch(backend, job, AT_ONCE).run()
    assert caught.value.got == "aborted; worker-1: OOMKilled, exit code 137"


def test_without_a_record_the_backend_says_why(job: TrainingJob) -> None:
    with pytest.raises(PlatformError, match="2 of 2 nodes failed") as caught:
        Watch(Backend(FAILED), job, AT_ONCE).run()
    assert "backend/id-of" in (caught.value.remedy or "")


def test_a_job_that_somebody_cancelled_is_told_as_that(job: TrainingJob) -> None:
    with pytest.raises(PlatformError, match="cancelled by somebody else"):
        Watch(Backend(JobStatus("cancelled")), job, AT_ONCE).run()


def test_a_retry_makes_another_job_where_the_last_try_left_a_failed_one(job: TrainingJob) -> None:
    Memo(1, f"id-of-{job.name}").write(job.shared)
    record(job.shared, 1, PlatformError("worker", "was preempted"))
    backend = Backend(FAILED, RUNNING, SUCCEEDED)
    outcome = Watch(backend, job, AT_ONCE).run()
    assert backend.jobs == [f"{job.name}-2"]
    assert outcome.attempts == 2
    assert not (job.shared / "records").exists(), "an earlier job's records say nothing of this one"


def test_a_retry_does_not_repeat_what_was_the_users_fault(job: TrainingJob) -> None:
    Memo(1, f"id-of-{job.name}").write(job.shared)
    record(job.shared, 1, DataError("eval", "is empty"))
    backend = Backend(FAILED)
    with pytest.raises(DataError):
        Watch(backend, job, AT_ONCE).run()
    assert backend.jobs == []


def test_jobs_follow_each_other_as_often_as_was_asked(job: TrainingJob) -> None:
    backend = Backend(FAILED)
    with pytest.raises(PlatformError):
        Watch(backend, job, Patience(poll_s=0.001, restarts=2)).run()
    assert backend.jobs == [job.name, f"{job.name}-2", f"{job.name}-3"]


def test_a_job_that_somebody_cancelled_is_followed_by_none(job: TrainingJob) -> None:
    backend = Backend(RUNNING, JobStatus("cancelled"))
    backend.on_submit = lambda: record(job.shared, 0, PlatformError("train", "was preempted"))
    with pytest.raises(PlatformError, match="was preempted"):
        Watch(backend, job, Patience(poll_s=0.001, restarts=2)).run()
    assert backend.jobs == [job.name]


def test_a_retry_makes_another_job_where_somebody_cancelled_the_last(job: TrainingJob) -> None:
    Memo(1, f"id-of-{job.name}").write(job.shared)
    backend = Backend(JobStatus("cancelled"), RUNNING, SUCCEEDED)
    Watch(backend, job, AT_ONCE).run()
    assert backend.jobs == [f"{job.name}-2"]


def test_an_outage_shorter_than_the_patience_loses_nothing(job: TrainingJob) -> None:
    backend = Backend(RUNNING, outage(), outage(), RUNNING, SUCCEEDED)
    backend.refusals = [outage()]
    Watch(backend, job, AT_ONCE).run()
    assert backend.jobs == [job.name]
    assert backend.cancelled == []


def test_an_outage_without_end_leaves_the_job_to_the_next_try(job: TrainingJob) -> None:
    backend = Backend(RUNNING, outage())
    with pytest.raises(PlatformError, match="503"):
        Watch(backend, job, AT_ONCE).run()
    assert backend.cancelled == []
    assert Memo.read(job.shared).id == f"id-of-{job.name}"


def test_whoever_may_not_make_jobs_is_told_at_once(job: TrainingJob) -> None:
    backend = Backend(SUCCEEDED)
    backend.refusals = [Denied("backend", "is not permitted", "403"), Denied("backend", "is not permitted", "403")]
    with pytest.raises(Denied):
        Watch(backend, job, AT_ONCE).run()
    assert len(backend.refusals) == 1


def test_logs_that_cannot_be_had_do_not_end_the_watch(job: TrainingJob, capsys: Any) -> None:
    class Mute(Backend):
        def logs(self, id: str) -> Iterator[str]:
            raise PlatformError("pods/log", "is not permitted")

    Watch(Mute(RUNNING, SUCCEEDED), job, AT_ONCE).run()
    assert "pods/log" in capsys.readouterr().out


def test_a_worker_that_hangs_is_named_and_the_job_started_again(job: TrainingJob, capsys: Any) -> None:
    backend = Backend(RUNNING)
    looks = iter(range(10_000))

    def work() -> None:
        if len(backend.jobs) == 2:
            backend.script = [SUCCEEDED]
        look = next(looks)
        (job.shared / "heartbeats").mkdir(exist_ok=True)
        Heartbeat(0, count=look, progress=look, phase="step", step=3).write(job.shared)
        Heartbeat(1, count=look, progress=1, phase="input", step=3).write(job.shared)

    backend.on_look = work
    Watch(backend, job, Patience(poll_s=0.01, hang_s=0.3, restarts=1)).run()
    assert "worker-1 got nothing done" in capsys.readouterr().out
    assert backend.cancelled == [f"id-of-{job.name}"]
    assert backend.jobs == [job.name, f"{job.name}-2"]


def steps_and_restarts(job: TrainingJob, *looks: tuple[int, int]) -> Backend:
    """Returns a backend at whose looks a worker has come to a step, and all were started again so often."""
    backend = Backend(*[JobStatus("running", restarts=restarts) for _, restarts in looks], SUCCEEDED)
    steps = iter([step for step, _ in looks])

    def work() -> None:
        (job.shared / "heartbeats").mkdir(exist_ok=True)
        Heartbeat(1, step=next(steps, 0)).write(job.shared)

    backend.on_look = work
    return backend


def test_workers_may_be_preempted_for_ever_if_they_get_on(job: TrainingJob) -> None:
    backend = steps_and_restarts(job, *[(10 * n, n) for n in range(1, 20)])
    Watch(backend, job, AT_ONCE).run()
    assert backend.cancelled == []


def test_workers_that_get_no_further_are_started_again_five_times(job: TrainingJob) -> None:
    """The step that they go on from is below the one that they came to, and no progress."""
    backend = steps_and_restarts(job, (40, 0), (40, 1), (30, 1), (40, 2), (35, 3), (40, 4), (40, 5), (30, 6), (30, 7))
    backend.on_submit = lambda: record(job.shared, 1, PlatformError("disk", "must have room"))
    with pytest.raises(PlatformError, match="5 restarts in a row, none beyond step 40; worker-1: disk: must have room"):
        Watch(backend, job, AT_ONCE).run()
    assert backend.cancelled == [f"id-of-{job.name}"]
    assert len(backend.script) == 2, "at the sixth restart, for before the first they had come to step 40"


def test_a_higher_step_makes_up_for_restarts_without(job: TrainingJob) -> None:
    backend = steps_and_restarts(job, (40, 0), (40, 5), (41, 5), (41, 6), (41, 10), (0, 0), (42, 11))
    Watch(backend, job, AT_ONCE).run()
    assert backend.cancelled == []


def test_a_restart_that_the_users_fault_makes_useless_ends_the_job(job: TrainingJob) -> None:
    """Kubernetes may learn of another worker's end first, which only followed from it."""
    backend = steps_and_restarts(job, (40, 0), (40, 1), (40, 2))
    backend.on_submit = lambda: record(job.shared, 1, DataError("eval", "is empty"))
    with pytest.raises(DataError, match="worker-1: eval: is empty"):
        Watch(backend, job, AT_ONCE).run()
    assert backend.cancelled == [f"id-of-{job.name}"]


def test_a_job_that_waits_for_machines_does_not_hang(job: TrainingJob) -> None:
    backend = Backend(*[JobStatus("pending", "waits for quota")] * 30, SUCCEEDED)
    Watch(backend, job, Patience(poll_s=0.005, hang_s=0.05)).run()
    assert backend.cancelled == []


def told(number: int, backend: Backend, job: TrainingJob, cancelled: Callable[[], bool]) -> BaseException:
    """Runs a watch that is sent a signal at its third look, and returns what it ends with."""
    looks = iter(range(10_000))
    backend.on_look = lambda: os.kill(os.getpid(), number) if next(looks) == 2 else None
    before = signal.getsignal(number)
    with pytest.raises(TidemillError) as caught:
        Watch(backend, job, AT_ONCE, cancelled=cancelled).run()
    assert signal.getsignal(number) == before
    return caught.value


def test_a_cancelled_run_cancels_its_job(job: TrainingJob) -> None:
    backend = Backend(RUNNING)
    assert isinstance(told(signal.SIGTERM, backend, job, lambda: True), Interrupted)
    assert backend.cancelled == [f"id-of-{job.name}"]


def test_a_watcher_whose_machine_is_taken_away_leaves_the_job(job: TrainingJob) -> None:
    backend = Backend(RUNNING)
    assert isinstance(told(signal.SIGTERM, backend, job, lambda: False), PlatformError)
    assert backend.cancelled == []
    assert Memo.read(job.shared).id == f"id-of-{job.name}"


def test_ctrl_c_always_means_the_job(job: TrainingJob) -> None:
    backend = Backend(RUNNING)
    assert isinstance(told(signal.SIGINT, backend, job, lambda: False), Interrupted)
    assert backend.cancelled == [f"id-of-{job.name}"]


def test_a_signal_while_the_job_is_being_made_waits_until_its_id_is_known(job: TrainingJob) -> None:
    backend = Backend(RUNNING)
    backend.on_submit = lambda: os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(Interrupted):
        Watch(backend, job, AT_ONCE).run()
    assert backend.cancelled == [f"id-of-{job.name}"]


def test_a_signal_while_the_making_of_a_job_fails_is_heeded_before_it_is_tried_again(job: TrainingJob) -> None:
    backend = Backend(RUNNING)
    backend.on_submit = lambda: os.kill(os.getpid(), signal.SIGTERM)
    backend.refusals = [outage()]
    pauses: list[float] = []
    with pytest.raises(Interrupted):
        Watch(backend, job, AT_ONCE, pause=pauses.append).run()
    assert not pauses
    assert backend.cancelled == [f"id-of-{job.name}"]


def test_a_job_that_an_earlier_try_may_have_made_is_cancelled_before_it_is_asked_for(
    job: TrainingJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    Memo(1, None).write(job.shared)
    backend = Backend(RUNNING)
    backend.jobs.append(job.name)
    monkeypatch.setattr(Memo, "write", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Interrupted):
        Watch(backend, job, AT_ONCE).run()
    assert backend.cancelled == [f"id-of-{job.name}"]


def test_a_job_of_which_it_is_not_known_whether_it_was_made_is_found_and_cancelled(job: TrainingJob) -> None:
    backend = Backend(RUNNING)
    backend.refusals = [outage()]

    def end_during_the_pause(seconds: float) -> None:
        backend.jobs.append(job.name)  # the request was carried out, its answer lost
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(seconds)

    with pytest.raises(Interrupted):
        Watch(backend, job, AT_ONCE, pause=end_during_the_pause).run()
    assert backend.cancelled == [f"id-of-{job.name}"]


def test_a_watch_outside_of_the_main_thread_leaves_signals_alone(job: TrainingJob) -> None:
    before, ended = signal.getsignal(signal.SIGTERM), []
    thread = threading.Thread(target=lambda: ended.append(Watch(Backend(RUNNING, SUCCEEDED), job, AT_ONCE).run()))
    thread.start()
    thread.join(10)
    assert len(ended) == 1
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_jobs_name_is_a_dns_label_that_leaves_room(job: TrainingJob) -> None:
    name = job_name("5f0c2a9e-77c1-4b7e-9d3e-6f7b1d0f2a11", "for-loop-2/Train_Model with a very long name")
    assert name == job_name("5f0c2a9e-77c1-4b7e-9d3e-6f7b1d0f2a11", "for-loop-2/Train_Model with a very long name")
    assert name != job_name("another", "for-loop-2/Train_Model with a very long name")
    assert len(name) <= 40
    assert name.replace("-", "").isalnum()
    assert name.islower()
