"""On a remote target nobody but the report writes what a run came to."""

import json
from datetime import UTC, datetime
from pathlib import Path

from tidemill.execution import Execution
from tidemill.report.conclusion import Plan, conclude
from tidemill.report.run import run
from tidemill.runs import RunRecord, read_tasks
from tidemill.stage import Origin

PLAN = Plan("lending", "training", "vertex", ("find-champion", "ingest", "train", "deploy"))
STAGE = {"import_s": 0.1, "peak_rss_mb": 10.0, "summary": {}, "error": None}


def execute(root: Path, name: str, run_id: str = "run-2", exit_code: int | None = 0, **inputs: str) -> str:
    """Leaves the record of one task and returns the address of its output."""
    output = root / "artefacts" / run_id / name / "out"
    output.mkdir(parents=True)
    (output / "manifest.json").write_text("{}")
    execution = Execution(
        root / "runs" / run_id,
        name,
        "registry.example.com/tensorflow@sha256:12",
        {"source": "gs://b/t.csv", "source_fingerprint": "sha256:77"},
        {"bundle": "gs://b/bundles/ab12.zip", **inputs},
        {"out": str(output)},
    )
    execution.begin()
    if exit_code is not None:
        execution.end(STAGE, exit_code)
    return str(output)


def concluded(root: Path, run_id: str = "run-2") -> RunRecord:
    conclude(root / "runs" / run_id, PLAN, Origin("lock", "commit"))
    return RunRecord.read(root / "runs" / run_id)


def test_a_run_that_deployed_is_released_and_says_from_what(tmp_path):
    for name in PLAN.stages:
        execute(tmp_path, name)
    record = concluded(tmp_path)
    assert (record.verdict, record.problem, record.pipeline) == ("released", "lending", "training")
    assert (record.source, record.source_fingerprint, record.bundle) == ("gs://b/t.csv", "sha256:77", "ab12")
    assert record.environment["uv.lock sha256"] == "lock"
    assert record.environment["tensorflow image"] == "registry.example.com/tensorflow@sha256:12"
    assert record.wall_s >= 0
    assert tuple(record.stages) == PLAN.stages


def test_a_refusal_is_one(tmp_path):
    execute(tmp_path, "find-champion")
    execute(tmp_path, "ingest", exit_code=3)
    assert concluded(tmp_path).verdict == "refused"


def test_a_task_that_never_said_how_it_ended_was_killed(tmp_path):
    execute(tmp_path, "find-champion")
    execute(tmp_path, "ingest", exit_code=None)
    assert concluded(tmp_path).verdict == "platform_failure"
    killed = next(task for task in read_tasks(tmp_path / "runs" / "run-2") if task.name == "ingest")
    assert (killed.status, killed.exit_code) == ("failed", 5)
    assert "more memory" in killed.error["message"]


def test_a_result_that_the_backend_reused_is_shown_with_the_run_that_made_it(tmp_path):
    examples = execute(tmp_path, "ingest", "run-1")
    model = execute(tmp_path, "train", "run-1", examples=examples)
    execute(tmp_path, "find-champion")
    execute(tmp_path, "deploy", model=model)
    record = concluded(tmp_path)
    assert (record.verdict, record.source) == ("released", "gs://b/t.csv")
    tasks = {task.name: task for task in read_tasks(tmp_path / "runs" / "run-2")}
    assert {name: (task.status, task.reused_from) for name, task in tasks.items()} == {
        "ingest": ("cached", "run-1"),
        "train": ("cached", "run-1"),
        "find-champion": ("succeeded", None),
        "deploy": ("succeeded", None),
    }
    assert Path(tasks["train"].outputs["out"].uri).is_dir()


def test_the_page_is_made_of_such_a_run(tmp_path):
    execute(tmp_path, "ingest", exit_code=4)
    concluded(tmp_path)
    assert run(tmp_path / "runs" / "run-2", tmp_path / "page.html").verdict == "bad_input"


def test_a_run_without_a_single_record_is_concluded_too(tmp_path):
    record = concluded(tmp_path)
    assert record.verdict == "defect"
    assert datetime.fromisoformat(record.started).tzinfo == UTC


def test_the_plan_is_what_the_compiled_pipeline_brings():
    text = json.dumps({"problem": "p", "pipeline": "training", "target": "vertex", "stages": ["a"]})
    assert Plan.parse(text) == Plan("p", "training", "vertex", ("a",))
