"""The program that each worker is: its arguments, its record and its exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tidemill.errors import UsageError
from tidemill.train import worker
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

        def submit(self, job):
            jobs.append(job)
            return super().submit(job)

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


def test_no_workers_are_refused(tmp_path):
    with pytest.raises(UsageError, match="workers: must be at least 1"):
        train(*["unused"] * 5, scratch=tmp_path, workers=0)
