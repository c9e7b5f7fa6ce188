"""``tidemill runs`` on a target; and the logs of runs of this machine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from remote_memory import NOON, MemoryTarget, task

from tidemill.errors import UsageError
from tidemill.runs import RunRecord
from tidemill_pipelines.targets.compilation import Compiled
from tidemill_pipelines.targets.remote import Submission

Invoke = Callable[..., Result]
Target = tuple[str, str]


@pytest.fixture
def two_runs(remote: MemoryTarget, package: Compiled) -> MemoryTarget:
    """An older run of lending and a newer one of churn."""
    for name in ("lending-training", "churn-training"):
        remote.submit(Submission(name, package.package, name))
    return remote


def test_list_shows_the_newest_first(
    two_runs: MemoryTarget, invoke: Invoke, on_vertex: Target, read_json: Callable[[Result], Any]
) -> None:
    rows = invoke("runs", "list", *on_vertex).stdout.splitlines()
    assert rows[1].split()[:4] == ["run-2", "churn-training", "pending", "2026-03-01"]
    assert len(rows) == 3
    assert [r["id"] for r in read_json(invoke("runs", "list", *on_vertex, "--limit", "1", "--json"))] == ["run-2"]
    only = read_json(invoke("runs", "list", *on_vertex, "--problem", "lending", "--json"))
    assert [run["id"] for run in only] == ["run-1"]


def test_a_target_without_runs_says_so(remote: MemoryTarget, invoke: Invoke, on_vertex: Target) -> None:
    assert invoke("runs", "list", *on_vertex).stdout.startswith("no runs on ")
    with pytest.raises(UsageError, match=r"there is no run on this target\n  → `tidemill submit` makes one"):
        invoke("runs", "show", *on_vertex)


def test_show_tells_tasks_and_their_errors(
    two_runs: MemoryTarget, invoke: Invoke, on_vertex: Target, read_json: Callable[[Result], Any]
) -> None:
    two_runs.script = [("failed", (task("ingest", "succeeded", took_s=8), task("train", "failed", "exit status 4")))]
    lines = invoke("runs", "show", "run-1", *on_vertex).stdout.splitlines()
    assert lines[0] == "run-1  failed  2026-03-01 13:00:00  lending-training"
    assert lines[1] == "https://console.example.com/run-1"
    assert lines[3].split() == ["ingest", "succeeded", "2026-03-01", "12:00:00", "8.0", "s"]
    assert lines[-2:] == ["train: exit status 4", "The DAG failed."]
    facts = read_json(invoke("runs", "show", "latest", *on_vertex, "--json"))
    assert (facts["id"], facts["verdict"], facts["exit_code"]) == ("run-2", "bad_input", 4)
    with pytest.raises(UsageError, match="--why-cached"):
        invoke("runs", "show", "run-1", "--why-cached", *on_vertex)


def test_logs_are_the_backends(
    two_runs: MemoryTarget, invoke: Invoke, on_vertex: Target, read_json: Callable[[Result], Any]
) -> None:
    assert invoke("runs", "logs", "latest", "--task", "train", *on_vertex).stdout == "run-2 train\n"
    assert read_json(invoke("runs", "logs", "run-1", "--json", *on_vertex)) == ["run-1 None"]


def test_cancel_asks_for_the_end_of_a_run_that_is_at_work(
    two_runs: MemoryTarget, invoke: Invoke, on_vertex: Target, read_json: Callable[[Result], Any]
) -> None:
    assert invoke("runs", "cancel", "run-1", *on_vertex).stdout == "run-1: cancelling\n"
    two_runs.made["run-2"] = replace(two_runs.made["run-2"], state="succeeded", ended=NOON)
    assert read_json(invoke("runs", "cancel", "latest", "--json", *on_vertex))["state"] == "succeeded"
    with pytest.raises(UsageError, match="Ctrl-C where it was started"):
        invoke("runs", "cancel", "run-1")
    with pytest.raises(UsageError, match="there is no such run"):
        invoke("runs", "cancel", "run-9", *on_vertex)


@pytest.fixture
def runs_dir(tmp_path: Path) -> Path:
    directory = tmp_path / "runs" / "lending-1"
    RunRecord("lending-1", "lending", "training", "released", NOON.isoformat()).write(directory)
    (directory / "logs").mkdir()
    (directory / "logs" / "ingest.log").write_text("read 20,000 rows\n")
    (directory / "logs" / "train.log").write_bytes(b"epoch 1\n\xff\n")
    return tmp_path


def test_logs_of_this_machine(runs_dir: Path, invoke: Invoke, read_json: Callable[[Result], Any]) -> None:
    at = ("--runs-dir", str(runs_dir))
    assert invoke("runs", "logs", *at).stdout == "── ingest\nread 20,000 rows\n── train\nepoch 1\n\ufffd\n"
    assert read_json(invoke("runs", "logs", "lending-1", "--task", "ingest", "--json", *at)) == ["read 20,000 rows"]
    with pytest.raises(UsageError, match=r"has no log in this run; there is ingest, train\n  → did you mean train\?"):
        invoke("runs", "logs", "--task", "trian", *at)
