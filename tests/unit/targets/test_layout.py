"""Runs are found by id or as the latest, and belong to one process at a time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tidemill.errors import UsageError
from tidemill.runs import RunRecord
from tidemill_pipelines.targets.local import layout as layouts
from tidemill_pipelines.targets.local.layout import Layout, held


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    for day, verdict in ((1, "released"), (2, "running")):
        run_id = f"loans-{day}"
        record = RunRecord(run_id, "loans", "training", verdict, f"2026-01-0{day}")  # type: ignore[arg-type]
        record.write(tmp_path / "runs" / run_id)
    return Layout(tmp_path)


def test_a_run_is_found_by_its_id_or_as_the_latest(layout: Layout) -> None:
    assert layout.find("loans-1").verdict == "released"
    assert layout.find("latest").id == "loans-2"
    assert [run.id for run in layout.records()] == ["loans-2", "loans-1"]


@pytest.mark.parametrize("run", ["loans-9", "", "."])
def test_what_is_no_run_is_refused(layout: Layout, run: str) -> None:
    with pytest.raises(UsageError, match="no such run"):
        layout.find(run)


def test_without_runs_there_is_no_latest(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no run"):
        Layout(tmp_path).find("latest")


def test_a_run_says_that_it_is_running_only_while_somebody_is_at_work_on_it(layout: Layout) -> None:
    assert layout.find("loans-2").verdict == "interrupted", "nobody has ever held it"
    with held(layout.run_dir("loans-2")):
        assert layout.find("loans-2").verdict == "running"
        assert layout.records()[0].verdict == "running"
    assert layout.find("loans-2").verdict == "interrupted"
    assert layout.find("loans-1").verdict == "released"


def test_a_run_cannot_be_resumed_while_it_runs(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layouts, "_PATIENCE_S", 0.1)
    run_dir = layout.run_dir("loans-2")
    with held(run_dir), pytest.raises(UsageError, match="run loans-2: is being run by another process"), held(run_dir):
        pass


def test_a_killed_process_lets_its_run_go(layout: Layout) -> None:
    run_dir = layout.run_dir("loans-2")
    code = (
        "import sys; from pathlib import Path; from tidemill_pipelines.targets.local.layout import held\n"
        "with held(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(run_dir)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        assert layout.find("loans-2").verdict == "running"
        process.kill()
    with held(run_dir):
        pass
