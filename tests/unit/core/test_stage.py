"""A stage's exit code is the contract with whatever runs it; its record tells the rest."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tidemill.stage import (
    COMMIT_VARIABLE,
    LOCK_VARIABLE,
    PRELOAD_VARIABLE,
    RECORD_VARIABLE,
    SCRATCH_VARIABLE,
    Origin,
    Stage,
)

PROGRAM = """
import dataclasses, errno, os, signal, sys, time
from pathlib import Path
from tidemill.errors import *
from tidemill.stage import Stage

@dataclasses.dataclass(frozen=True)
class Report:
    rows: int
    path: Path

with Stage("ingest") as stage:
    time.sleep(0.05)
    stage.begin()
    print("working", flush=True)
    {body}
print("after")
"""


def execute(tmp_path: Path, body: str, **environment: str) -> tuple[subprocess.CompletedProcess[str], dict[str, Any]]:
    record = tmp_path / "record.json"
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM.replace("{body}", body)],
        env={**os.environ, RECORD_VARIABLE: str(record), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    return result, json.loads(record.read_text()) if record.exists() else {}


def test_a_stage_that_ends_well_leaves_its_summary_and_times(tmp_path):
    result, record = execute(tmp_path, "stage.report(Report(3, Path('x')))")
    assert (result.returncode, result.stdout, result.stderr) == (0, "working\nafter\n", "")
    assert record["summary"] == {"rows": 3, "path": "x"}
    assert record["stage"] == "ingest"
    assert record["error"] is None
    assert 0.05 <= record["import_s"] < 5
    assert record["peak_rss_mb"] > 5


def test_imports_that_the_process_had_done_before_count_as_imports(tmp_path):
    _, record = execute(tmp_path, "pass", **{PRELOAD_VARIABLE: "7.5"})
    assert record["import_s"] > 7.5


@pytest.mark.parametrize(
    ("body", "exit_code", "kind", "traced"),
    [
        ("raise GateRefused('model gate', '1 check failed')", 3, "GateRefused", False),
        ("raise DataError('t.csv', 'is empty')", 4, "DataError", False),
        ("raise ProblemError('p.yaml', 'is wrong')", 4, "ProblemError", False),
        ("raise PlatformError('bucket', 'is away')", 5, "PlatformError", False),
        ("raise OSError(errno.ENOSPC, 'No space left on device', 'part-0.parquet')", 5, "PlatformError", False),
        ("raise OSError(errno.EMFILE, 'Too many open files')", 5, "PlatformError", False),
        ("raise MemoryError", 5, "PlatformError", False),
        ("raise OSError(errno.ENOENT, 'No such file', 'x')", 1, "TidemillError", True),
        ("{}['absent']", 1, "TidemillError", True),
        ("sys.exit(0)", 1, "TidemillError", True),
        ("raise KeyboardInterrupt", 130, "Interrupted", False),
        ("os.kill(os.getpid(), signal.SIGINT); time.sleep(5)", 130, "Interrupted", False),
    ],
)
def test_an_error_decides_the_exit_code_and_is_recorded(tmp_path, body, exit_code, kind, traced):
    result, record = execute(tmp_path, body)
    assert result.returncode == exit_code
    assert result.stdout == "working\n"
    assert ("Traceback" in result.stderr) == traced
    assert any(line.startswith(f"{kind}: ") for line in result.stderr.splitlines()[-2:])
    assert record["error"]["type"] == kind
    assert record["error"]["exit_code"] == exit_code


def test_the_record_holds_the_parts_of_an_error(tmp_path):
    _, record = execute(tmp_path, "raise DataError('t.csv', 'expected tips', 'fare', 'name it')")
    assert record["error"] == {
        "type": "DataError",
        "exit_code": 4,
        "where": "t.csv",
        "expected": "expected tips",
        "got": "fare",
        "remedy": "name it",
        "message": "t.csv: expected tips (got fare)\n  → name it",
    }


def test_a_defect_says_what_was_expected_and_what_happened(tmp_path):
    _, record = execute(tmp_path, "{}['absent']")
    error = record["error"]
    assert (error["where"], error["expected"], error["got"]) == (
        "ingest",
        "must end without an unforeseen error",
        "KeyError: 'absent'",
    )


def test_a_full_disk_names_the_file(tmp_path):
    result, record = execute(tmp_path, "raise OSError(errno.ENOSPC, 'No space left on device', 'part-0.parquet')")
    assert record["error"]["where"] == "part-0.parquet"
    assert "No space left on device" in result.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_disk_that_is_truly_full_is_the_platforms_fault(tmp_path):
    result, _ = execute(tmp_path, "open('/dev/full', 'w', buffering=1).write('x\\n')")
    assert result.returncode == 5


def test_a_record_that_cannot_be_written_hides_no_error(tmp_path):
    result, _ = execute(tmp_path, "raise DataError('t.csv', 'is empty')", **{RECORD_VARIABLE: "/dev/null/record"})
    assert result.returncode == 4
    assert "could not write the record of" in result.stderr
    assert "DataError: t.csv: is empty" in result.stderr


def test_a_killed_stage_leaves_no_record(tmp_path):
    result, record = execute(tmp_path, "os.kill(os.getpid(), signal.SIGKILL)")
    assert result.returncode == -signal.SIGKILL
    assert record == {}


def test_scratch_is_the_targets_or_beside_the_artefact(tmp_path, monkeypatch):
    monkeypatch.delenv(SCRATCH_VARIABLE, raising=False)
    assert Stage("train").scratch(tmp_path / "history") == tmp_path / "history.scratch"
    monkeypatch.setenv(SCRATCH_VARIABLE, str(tmp_path / "kept" / "train"))
    scratch = Stage("train").scratch(tmp_path / "history")
    assert scratch == tmp_path / "kept" / "train"
    assert scratch.is_dir()


def test_a_target_says_what_the_code_was_made_from(monkeypatch):
    for variable in (LOCK_VARIABLE, COMMIT_VARIABLE):
        monkeypatch.delenv(variable, raising=False)
    assert Stage("register").origin == Origin(None, None)
    monkeypatch.setenv(LOCK_VARIABLE, "10cc")
    monkeypatch.setenv(COMMIT_VARIABLE, "c0ffee")
    assert Stage("register").origin == Origin("10cc", "c0ffee")


def test_without_a_target_nothing_is_recorded(tmp_path, monkeypatch):
    monkeypatch.delenv(RECORD_VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    with Stage("ingest"):
        pass
    assert list(tmp_path.iterdir()) == []
