"""A run's records read back as written, and its verdict is what the tasks' exit codes amount to."""

from __future__ import annotations

import pytest

from tidemill.runs import EXIT_CODES, Artifact, RunRecord, TaskRecord, output, read_tasks, verdict_of


def task(name: str, status: str = "succeeded", exit_code: int | None = 0, started: str = "2026-01-01") -> TaskRecord:
    return TaskRecord(name, "control", status, started, exit_code=exit_code)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("tasks", "verdict", "exit_code"),
    [
        ([], "completed", 0),
        ([task("ingest")], "completed", 0),
        ([task("ingest", "cached", None), task("deploy")], "released", 0),
        ([task("ingest"), task("model-gate", "failed", 3)], "refused", 3),
        ([task("ingest", "failed", 4)], "bad_input", 4),
        ([task("train", "failed", 5)], "platform_failure", 5),
        ([task("train", "failed", 1)], "defect", 1),
        ([task("train", "failed", -9)], "platform_failure", 5),
        ([task("train", "failed", -11)], "defect", 1),
        ([task("train", "interrupted", 130)], "interrupted", 130),
        ([task("train", "failed", 4), task("report", "failed", 1)], "bad_input", 4),
        ([task("gate", "failed", 3), task("train", "interrupted", 130)], "interrupted", 130),
        ([task("deploy", "failed", 5)], "platform_failure", 5),
    ],
)
def test_the_verdict_follows_the_exit_codes(tasks, verdict, exit_code):
    assert verdict_of(tasks) == verdict
    assert EXIT_CODES[verdict] == exit_code


def test_a_pipeline_that_deploys_is_released_only_once_it_has():
    assert verdict_of([task("ingest")], ["ingest", "deploy"]) == "defect"
    assert verdict_of([task("deploy", "running", None)], ["ingest", "deploy"]) == "defect"
    assert verdict_of([task("deploy")], ["ingest", "deploy"]) == "released"


def test_a_task_reads_back_as_written(tmp_path):
    record = TaskRecord(
        "train",
        "tensorflow",
        "failed",
        "2026-01-01T00:00:00Z",
        wall_s=3.5,
        exit_code=4,
        cache_key="ab",
        parameters={"x": 1},
        inputs={"bundle": Artifact("/b.zip", "12")},
        outputs={"model": Artifact("/m", "34")},
        summary={"auc": 0.9},
        error={"message": "no"},
    )
    record.write(tmp_path)
    assert TaskRecord.read(tmp_path / "tasks" / "train.json") == record


def test_a_run_reads_back_as_written_and_ignores_what_a_later_version_added(tmp_path):
    record = RunRecord("r1", "loans", "training", "running", "2026-01-01", stages=["ingest"], parameters={"a": "b"})
    record.write(tmp_path)
    assert RunRecord.read(tmp_path) == record
    path = tmp_path / "run.json"
    path.write_text(path.read_text().replace('"id"', '"invented_later": 1, "id"'))
    assert RunRecord.read(tmp_path) == record


def test_tasks_come_in_the_order_of_their_start(tmp_path):
    for name, started in (("b", "2026-01-01T00:00:02Z"), ("a", "2026-01-01T00:00:03Z"), ("c", "2026-01-01T00:00:01Z")):
        task(name, started=started).write(tmp_path)
    assert [t.name for t in read_tasks(tmp_path)] == ["c", "b", "a"]
    assert read_tasks(tmp_path / "nowhere") == []


def test_an_output_is_found_only_where_it_is(tmp_path):
    (tmp_path / "model").mkdir()
    outputs = {"model": Artifact(str(tmp_path / "model"), ""), "gone": Artifact(str(tmp_path / "gone"), "")}
    tasks = [TaskRecord("train", "tensorflow", "succeeded", "", outputs=outputs)]
    assert output(tasks, "train", "model") == tmp_path / "model"
    assert output(tasks, "train", "gone") is None
    assert output(tasks, "train", "history") is None
    assert output(tasks, "evaluate", "model") is None
