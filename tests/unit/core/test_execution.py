"""What a task says of itself on a target where nobody else can."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tidemill.execution import Execution, local_path, maker, this_execution
from tidemill.runs import TaskRecord, read_tasks

STAGE = """
import sys
from pathlib import Path
from dataclasses import dataclass
from tidemill.errors import DataError
from tidemill.stage import Stage

@dataclass(frozen=True)
class Done:
    rows: int

with Stage("ingest") as stage:
    stage.begin()
    output = Path({output!r})
    (output / "train").mkdir(parents=True)
    (output / "train" / "part-0.parquet").write_bytes(b"rows")
    (output / "manifest.json").write_text("{{}}")
    {then}
    stage.report(Done(3))
"""


def executor_input(root: Path) -> str:
    """As Vertex AI lays it out: <root>/<project number>/<run>/<task>_<number>/."""
    task = root / "123456" / "lending-training-20260101" / "ingest_987"
    return json.dumps(
        {
            "inputs": {
                "parameterValues": {"source": "gs://b/t.csv"},
                "artifacts": {"bundle": {"artifacts": [{"uri": "gs://b/bundles/ab12.zip"}]}, "none": {}},
            },
            "outputs": {
                "outputFile": str(task / "executor_output.json"),
                "artifacts": {"examples": {"artifacts": [{"uri": str(task / "examples")}]}},
            },
        }
    )


def execute(tmp_path: Path, then: str = "pass", **environment: str) -> subprocess.CompletedProcess:
    given = executor_input(tmp_path)
    output = json.loads(given)["outputs"]["artifacts"]["examples"]["artifacts"][0]["uri"]
    return subprocess.run(
        [sys.executable, "-c", STAGE.format(output=output, then=then), "--executor_input", given],
        env={
            **os.environ,
            "TIDEMILL_RUNS": str(tmp_path / "runs"),
            "TIDEMILL_TASK": "ingest",
            "TIDEMILL_IMAGE": "registry.example.com/tensorflow@sha256:12",
            **environment,
        },
        capture_output=True,
        text=True,
    )


def only_record(tmp_path: Path, run: str = "lending-training-20260101") -> TaskRecord:
    (record,) = read_tasks(tmp_path / "runs" / run)
    return record


def test_a_task_records_what_it_was_given_and_what_came_of_it(tmp_path):
    assert execute(tmp_path).returncode == 0
    record = only_record(tmp_path)
    assert (record.name, record.environment, record.status, record.exit_code) == (
        "ingest",
        "tensorflow",
        "succeeded",
        0,
    )
    assert record.code == "registry.example.com/tensorflow@sha256:12"
    assert record.parameters == {"source": "gs://b/t.csv"}
    assert record.inputs["bundle"].uri == "gs://b/bundles/ab12.zip"
    assert record.summary == {"rows": 3}
    assert record.cpu_s > 0
    assert record.wall_s > 0


def test_small_files_of_the_outputs_are_kept_and_tables_are_not(tmp_path):
    execute(tmp_path)
    kept = Path(only_record(tmp_path).outputs["examples"].uri)
    assert kept.is_relative_to(tmp_path / "runs")
    assert (kept / "manifest.json").is_file()
    assert not list(kept.rglob("*.parquet"))


def test_the_run_is_what_the_environment_says_before_what_the_place_says(tmp_path):
    execute(tmp_path, TIDEMILL_RUN_ID="8f0e")
    assert only_record(tmp_path, "8f0e").status == "succeeded"


def test_a_failure_is_recorded_with_its_reason_and_exit_code(tmp_path):
    done = execute(tmp_path, "raise DataError('t.csv', 'is empty')")
    assert done.returncode == 4
    record = only_record(tmp_path)
    assert (record.status, record.exit_code, record.error["message"]) == ("failed", 4, "t.csv: is empty")
    assert record.outputs == {}


def test_a_killed_task_stays_recorded_as_running(tmp_path):
    done = execute(tmp_path, "import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    assert done.returncode == -9
    assert only_record(tmp_path).status == "running"


def test_the_maker_of_an_artefact_is_found_by_its_address_in_whichever_run(tmp_path):
    execute(tmp_path)
    uri = json.loads(executor_input(tmp_path))["outputs"]["artifacts"]["examples"]["artifacts"][0]["uri"]
    found = maker(tmp_path / "runs", uri)
    assert (found.name, found.reused_from) == ("ingest", "lending-training-20260101")
    assert maker(tmp_path / "runs", "gs://elsewhere") is None


def test_without_a_directory_of_runs_nothing_is_recorded(tmp_path):
    assert this_execution(["--executor_input", executor_input(tmp_path)], {}) is None
    assert this_execution([], {"TIDEMILL_RUNS": "runs"}) is None


def test_a_store_that_cannot_be_written_is_a_failure_of_the_platform(tmp_path):
    done = execute(tmp_path, TIDEMILL_RUNS="/dev/null/runs")
    assert done.returncode == 5
    assert "can't be written to" in done.stderr
    assert "the store must be writable for uid" in done.stderr


def test_a_run_without_an_id_is_none(tmp_path):
    """KFP's label may be missing: all runs would share one record."""
    done = execute(tmp_path, TIDEMILL_RUN_ID="")
    assert done.returncode == 5
    assert "needs the run's id" in done.stderr


def test_a_task_whose_copies_fail_has_ended_all_the_same(tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    execution = Execution(
        tmp_path / "runs" / "r", "ingest", "tidemill/tensorflow:1", outputs={"o": str(tmp_path / "out")}
    )
    (tmp_path / "runs" / "r").mkdir(parents=True)
    (tmp_path / "runs" / "r" / "artifacts").write_text("in the way")
    with pytest.raises(OSError, match="artifacts"):
        execution.end({"import_s": 0, "peak_rss_mb": 1, "summary": {}, "error": None}, 0)
    assert only_record(tmp_path, "r").status == "succeeded"


def test_checkpoints_outlive_a_failed_try_and_not_a_success(tmp_path):
    then = "(stage.scratch('fallback') / 'step-1').write_text('x')"
    scratch = tmp_path / "runs" / "lending-training-20260101" / "scratch" / "ingest"
    assert execute(tmp_path, f"{then}; raise DataError('t', 'is bad')").returncode == 4
    assert (scratch / "step-1").is_file()
    shutil.rmtree(tmp_path / "123456")
    assert execute(tmp_path, then).returncode == 0
    assert not scratch.exists()


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("gs://bucket/a/b", "/gcs/bucket/a/b"),
        ("s3://bucket/a", "/s3/bucket/a"),
        ("minio://bucket/a", "/minio/bucket/a"),
        ("/plain/a", "/plain/a"),
    ],
)
def test_an_address_is_read_where_kfp_lays_it(uri, path):
    assert local_path(uri) == Path(path)


def test_each_run_of_a_loop_is_recorded_by_its_key_and_inputs_that_are_lists_one_by_one(tmp_path: Path):
    given = {
        "inputs": {
            "parameterValues": {"item": json.dumps({"key": "trial-7", "number": 7})},
            "artifacts": {"results": {"artifacts": [{"uri": "gs://b/0"}, {"uri": "gs://b/1"}]}},
        },
        "outputs": {"outputFile": str(tmp_path / "run" / "task" / "executor_output.json")},
    }
    environment = {
        "TIDEMILL_RUNS": str(tmp_path),
        "TIDEMILL_RUN_ID": "a",
        "TIDEMILL_TASK": "round-1",
        "TIDEMILL_IMAGE": "registry.example.com/tensorflow:1",
        "TIDEMILL_LOOPED": "1",
    }
    execution = this_execution(["--executor_input", json.dumps(given)], environment)
    assert execution is not None
    execution.begin()
    (record,) = read_tasks(tmp_path / "a")
    assert (record.name, record.iteration_of) == ("round-1-trial-7", "round-1")
    assert {name: artifact.uri for name, artifact in record.inputs.items()} == {
        "results": "gs://b/0",
        "results.1": "gs://b/1",
    }
