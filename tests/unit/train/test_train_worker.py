"""The program that each worker is: its arguments, its record and its exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import tensorflow as tf

from tidemill.errors import UsageError
from tidemill.train import worker
from tidemill.train.checkpoints import directory_of, remove_remote
from tidemill.train.local_launcher import LocalLauncher
from tidemill.train.task import train

RAISING = """
def build_model(context):
    raise ValueError("no such layer")
"""


def arguments(inputs, name):
    paths = inputs.arguments(name)
    shared = paths.pop("checkpoints")
    given = [text for key, path in paths.items() for text in (f"--{key.replace('_', '-')}", str(path))]
    return [*given, "--shared", str(shared)], shared


def test_an_error_of_the_users_is_in_the_record_and_the_exit_code(make_inputs):
    given, shared = arguments(make_inputs(model=RAISING), "raising")
    ended = subprocess.run(
        [sys.executable, "-m", "tidemill.train.worker", *given], capture_output=True, text=True, timeout=200
    )
    assert ended.returncode == 4, ended.stderr[-2000:]
    record = json.loads((shared / "records" / "worker-0.json").read_text())
    assert record["error"]["type"] == "UserCodeError"
    assert "ValueError: no such layer" in record["error"]["message"]
    assert json.loads((shared / "heartbeats" / "worker-0").read_text())["phase"] == "ended"


def test_a_worker_whose_launcher_is_gone_does_not_begin(make_inputs):
    given, shared = arguments(make_inputs(), "orphan")
    command = [sys.executable, "-m", "tidemill.train.worker", *given, "--parent", str(os.getppid())]
    assert subprocess.run(command, timeout=60).returncode == -signal.SIGKILL
    assert not shared.exists()


def test_what_an_earlier_start_recorded_is_forgotten(monkeypatch, tmp_path):
    """A worker that is killed then leaves no record, rather than one that says something else."""
    (tmp_path / "shared" / "records").mkdir(parents=True)
    for number in (0, 1):
        (tmp_path / "shared" / "records" / f"worker-{number}.json").write_text("{}")

    class Killed(BaseException):
        pass

    def die(*_):
        raise Killed

    monkeypatch.setattr(worker, "Stage", die)
    names = ("bundle", "transformed", "transform-graph", "model", "history", "shared")
    with pytest.raises(Killed):
        worker.main([text for name in names for text in (f"--{name}", str(tmp_path / name))])
    assert [path.name for path in (tmp_path / "shared" / "records").iterdir()] == ["worker-1.json"]


def test_a_place_that_does_not_exist_is_refused(monkeypatch, capsys, tmp_path):
    cluster = {"chief": ["127.0.0.1:1"], "worker": ["127.0.0.1:2"]}
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": cluster, "task": {"type": "worker", "index": 1}}))
    names = ("bundle", "transformed", "transform-graph", "model", "history", "shared")
    with pytest.raises(SystemExit) as ended:
        worker.main([text for name in names for text in (f"--{name}", str(tmp_path / name))])
    assert ended.value.code == 4
    assert "UsageError: TF_CONFIG: " in capsys.readouterr().err


def test_the_task_reports_what_the_chief_does_and_each_restart(make_inputs, monkeypatch, tmp_path):
    """The workers here act what they are told to; their arguments are those of the real ones."""
    (tmp_path / "act.json").write_text(json.dumps([[["step", "train"], ["step"]], [["die"], []]]))
    actor = (sys.executable, str(Path(__file__).with_name("acting_worker.py")), "--act", str(tmp_path / "act.json"))
    jobs = []

    class Launcher(LocalLauncher):
        def __init__(self):
            super().__init__(actor)

        def start(self, job):
            jobs.append(job)
            return super().start(job)

    monkeypatch.setattr("tidemill.train.task.LocalLauncher", Launcher)
    paths = make_inputs().arguments("task")
    scratch = paths.pop("checkpoints")
    given = {key: str(path) for key, path in paths.items()}
    report = train(**given, scratch=scratch, champion="there", workers=2)
    assert report == {
        "steps": 2,
        "restarts": ["worker-1: must live as long as the training (got worker-1 was killed by SIGKILL)"],
    }
    parsed = vars(worker._parser().parse_args(jobs[0].arguments))
    assert {key: str(parsed[key]) for key in given} == given
    assert (parsed["shared"], parsed["champion"], parsed["hyperparameters"]) == (scratch, Path("there"), None)


@pytest.fixture
def work(make_inputs, monkeypatch):
    """Returns a function that runs a worker whose training does what is said; it returns exit code, record, inputs."""

    class Ended(BaseException):
        pass

    def end(code):
        raise Ended(code)

    def work(deed, *more, config=None, **training):
        inputs = make_inputs(training=training)
        given, shared = arguments(inputs, "worked")
        shared.mkdir(parents=True)
        if config is not None:
            monkeypatch.setenv("TF_CONFIG", config)
        monkeypatch.setattr("tidemill.train.run.run", lambda *a, **k: deed(shared, k["notice"]))
        monkeypatch.setattr(os, "_exit", end)
        before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
        try:
            with pytest.raises(Ended) as ended:
                worker.main([*given, *more])
        finally:
            signal.signal(signal.SIGTERM, before[0])
            signal.signal(signal.SIGINT, before[1])
        (record,) = (json.loads(path.read_text()) for path in (shared / "records").iterdir())
        return ended.value.args[0], record, shared

    return work


def placed(*names, index=0):
    cluster = {"chief": ["127.0.0.1:1"], **({"worker": list(names)} if names else {})}
    return json.dumps({"cluster": cluster, "task": {"type": "chief", "index": index}})


@pytest.mark.parametrize(
    ("error", "workers", "code"),
    [
        (tf.errors.UnavailableError(None, None, "Connection reset"), 1, 5),
        (tf.errors.InternalError(None, None, "Graph execution error:\n\nCollective ops is aborted by: x"), 2, 5),
        (tf.errors.FailedPreconditionError(None, None, "[[{{node CollectiveReduceV2}}]]"), 2, 5),
        (tf.errors.FailedPreconditionError(None, None, "/job:worker/task:1 heartbeat timeout"), 2, 5),
        (tf.errors.InternalError(None, None, "Connection reset by peer"), 2, 5),
        (tf.errors.InternalError(None, None, "RPC to coordination service failed"), 2, 5),
        (tf.errors.InternalError(None, None, "Collective ops is aborted by: x"), 1, 1),
        (tf.errors.InternalError(None, None, "the convolution found no algorithm"), 2, 1),
        (tf.errors.InvalidArgumentError(None, None, "[[{{node CollectiveReduceV2}}]] shapes differ"), 2, 1),
    ],
)
def test_what_a_worker_meets_when_another_is_gone_may_be_tried_again(work, error, workers, code):
    def fail(*_):
        raise error

    ended, record, _ = work(fail, config=placed(*["127.0.0.1:2"][: workers - 1]))
    assert (ended, record["error"]["exit_code"]) == (code, code)
    if workers == 2 and code == 5:
        assert error.message.splitlines()[-1] in record["error"]["got"], "the line that names the others is told"


@dataclass(frozen=True)
class Trained:
    steps: int = 3


def test_a_worker_told_to_end_after_its_last_step_has_ended_well(work):
    def train(_, notice):
        with notice.deferred():
            pass
        notice.done()  # as the worker says once this has returned; what comes now is too late
        os.kill(os.getpid(), signal.SIGTERM)
        return Trained()

    code, record, _ = work(train)
    assert (code, record["error"], record["summary"]) == (0, None, {"steps": 3})


@pytest.mark.parametrize("parent", [True, False])
def test_remote_checkpoints_outlive_the_record(work, monkeypatch, tmp_path, parent):
    """Those of local workers are their parent's to remove: one of them might yet fail and all be started again."""
    uri = f"file://{tmp_path}/far"

    def train(shared, _):
        path = Path(directory_of(uri, shared / "checkpoints").removeprefix("file://"))
        path.mkdir(parents=True)
        (path / "left").touch()
        return Trained()

    seen = []

    def remove(directory, scratch):
        seen.append(json.loads((scratch.parent / "records" / "worker-0.json").read_text())["summary"])
        remove_remote(directory, scratch)

    monkeypatch.setattr("tidemill.train.run.remove_remote", remove)
    monkeypatch.setattr(worker, "_die_with", lambda parent: None)
    code, _, _ = work(train, *(["--parent", "1"] if parent else []), checkpoint_uri=uri)
    assert code == 0
    assert seen == ([] if parent else [{"steps": 3}])
    assert len(list((tmp_path / "far").iterdir())) == int(parent)


def test_a_training_whose_curves_can_not_be_copied_has_ended_well(work, monkeypatch, capsys, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("AIP_TENSORBOARD_LOG_DIR", str(tmp_path / "file" / "below"))
    code, record, _ = work(lambda *_: Trained())
    assert (code, record["error"]) == (0, None)
    assert "the curves can't be copied to" in capsys.readouterr().err


def test_no_workers_are_refused(tmp_path):
    with pytest.raises(UsageError, match="workers: must be at least 1"):
        train(*["unused"] * 5, scratch=tmp_path, workers=0)
