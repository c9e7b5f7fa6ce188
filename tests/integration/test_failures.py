"""What goes wrong before anything is trained ends with its exit code and a message, never with a trace."""

from __future__ import annotations

import csv
import gzip
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import Command

PROBLEM = """
name: churn
task: binary_classification
label: {column: churned, positive: "yes"}
features: {visits: numeric, city: categorical}
"""
HEADER = "visits,city,churned\n"
ROWS = [f"{i},{('Paris', 'Lima')[i % 2]},{('yes', 'no')[i % 3 == 0]}\n" for i in range(600)]
GOOD = (HEADER + "".join(ROWS)).encode()

# By name: the file, its content, the exit code, and what must be said.
FAILURES = {
    "a wrong delimiter": ("t.csv", GOOD.replace(b",", b";"), 4, 'set ingest.delimiter to ";"'),
    "a truncated Parquet file": ("t.parquet", b"PAR1" + bytes(500), 4, "t.parquet"),
    "a truncated gzip file": ("t.csv.gz", gzip.compress(GOOD)[:-40], 4, "t.csv.gz"),
    "a label of a single class": ("t.csv", GOOD.replace(b",no\n", b",yes\n"), 4, "single class"),
    "a column name twice": ("t.csv", GOOD.replace(b"visits,city", b"visits,visits", 1), 4, "visits more than once"),
    "text that is not UTF-8": ("t.csv", GOOD.replace(b"Paris", b"Orl\xe9ans"), 4, "ingest.encoding"),
    "an empty split": ("t.csv", (HEADER + "".join(ROWS[:4])).encode(), 4, "split"),
    "no rows": ("t.csv", HEADER.encode(), 4, "t.csv"),
    "a feature without any value": ("t.csv", GOOD.replace(b"Paris", b"").replace(b"Lima", b""), 3, "city"),
}


@pytest.fixture(scope="module")
def problem_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A problem at a path with a space, a bracket and a letter that is not ASCII."""
    directory = tmp_path_factory.mktemp("problems") / "Kündigung [1] neu"
    directory.mkdir()
    (directory / "problem.yaml").write_text(PROBLEM)
    return directory


@pytest.fixture(scope="module")
def churn(tmp_path_factory: pytest.TempPathFactory) -> Command:
    return Command(tmp_path_factory.mktemp("runs") / "läufe [a] b")


@pytest.mark.parametrize("name", FAILURES)
def test_faulty_data_stops_the_run_and_is_told(name: str, churn: Command, problem_dir: Path, tmp_path: Path) -> None:
    file, content, exit_code, said = FAILURES[name]
    source = tmp_path / file
    source.write_bytes(content)
    done = churn("run", str(problem_dir), "--source", str(source))
    told = done.stdout + done.stderr
    assert done.returncode == exit_code, told
    assert said in told
    assert "Traceback" not in told
    assert "train: started" not in told
    shown = churn.json("runs", "show", "latest")
    assert shown["exit_code"] == exit_code
    assert Path(shown["report"]).is_file(), "the report tells of a failure too"


def test_nothing_at_the_source_leaves_no_run(problem_dir: Path, tmp_path: Path) -> None:
    done = Command(tmp_path / "runs")("run", str(problem_dir), "--source", str(tmp_path / "nowhere.csv"))
    assert done.returncode == 4
    assert "nowhere.csv" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "runs" / "runs").exists()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with room for the records of a run, but not for its data."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a tmpfs")
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.decode().strip()}")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_a_full_disk_is_a_platform_failure_and_the_run_goes_on_once_there_is_room(
    problem_dir: Path, small_disk: Path, tmp_path: Path
) -> None:
    source = tmp_path / "wide.csv"
    with source.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["visits", "city", "churned", "note"])
        table.writerows((i, f"c{i % 7}", ("yes", "no")[i % 3 == 0], os.urandom(300).hex()) for i in range(3000))
    tidemill = Command(small_disk)
    command = ("run", str(problem_dir), "--source", str(source), "--set", "gates.data.min_rows=1000000")
    done = tidemill(*command)
    told = done.stdout + done.stderr
    assert done.returncode == 5, told
    assert "No space left on device" in told
    assert "Traceback" not in told
    (run_dir,) = (small_disk / "runs").iterdir()

    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    resumed = tidemill(*command, "--resume", run_dir.name)
    assert resumed.returncode == 3, resumed.stdout + resumed.stderr
    assert not list(run_dir.rglob("*.partial")), "the try on the full disk left debris"


def test_a_disk_without_room_for_anything_ends_without_a_trace(
    problem_dir: Path, small_disk: Path, tmp_path: Path
) -> None:
    subprocess.run(["mount", "-o", "remount,size=16k", str(small_disk)], check=True)
    (tmp_path / "t.csv").write_bytes(GOOD)
    done = Command(small_disk)("run", str(problem_dir), "--source", str(tmp_path / "t.csv"))
    assert done.returncode == 5, done.stdout + done.stderr
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_a_killed_run_is_shown_as_interrupted_and_one_at_work_cannot_be_resumed(
    problem_dir: Path, tmp_path: Path
) -> None:
    (tmp_path / "t.csv").write_bytes(GOOD)
    tidemill = Command(tmp_path / "runs")
    command = ("run", str(problem_dir), "--source", str(tmp_path / "t.csv"))
    process = tidemill.start(*command)
    deadline = time.monotonic() + 60
    while not list(tidemill.runs_dir.glob("runs/*/tasks/*.json")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    (run,) = tidemill.json("runs", "list")
    assert run["verdict"] == "running"
    second = tidemill(*command, "--resume", run["id"])
    assert second.returncode == 4
    assert "is being run by another process" in second.stderr
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=30)
    assert json.loads((tidemill.runs_dir / "runs" / run["id"] / "run.json").read_text())["verdict"] == "running"
    assert tidemill.json("runs", "list")[0]["verdict"] == "interrupted"
