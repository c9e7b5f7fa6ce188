"""The local target executes compiled pipelines as KFP would, and more carefully."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
from kfp import compiler

from tidemill.runs import TaskRecord, read_tasks, verdict_of
from tidemill_pipelines.targets.local.cache import Cache
from tidemill_pipelines.targets.local.executor import TaskExecutor
from tidemill_pipelines.targets.local.ir import CompiledPipeline, execute
from tidemill_pipelines.targets.local.processes import Processes


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> CompiledPipeline:
    spec = importlib.util.spec_from_file_location("toy", Path(__file__).with_name("toy.py"))
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    path = tmp_path_factory.mktemp("compiled") / "toy.yaml"
    compiler.Compiler().compile(module.toy, str(path))
    return CompiledPipeline(path)


class Toy:
    """Runs the toy pipeline in a directory of its own."""

    def __init__(self, compiled: CompiledPipeline, root: Path) -> None:
        self.compiled, self.root, self.marks = compiled, root, root / "marks"
        self.seen: list[tuple[str, str]] = []

    def run(self, text: str, run_id: str, only_run: str | None = None) -> dict[str, TaskRecord]:
        run_dir = self.root / "runs" / run_id
        processes = Processes(run_dir / "logs", {"TOY_MARKS": str(self.marks)})
        executor = TaskExecutor(
            run_dir=run_dir,
            tasks=self.compiled.tasks,
            cache=Cache(self.root / "cache", only_run),
            processes=processes,
            scratch=self.root / "scratch",
            earlier=lambda task: None,
            observe=lambda record: self.seen.append((record.name, record.status)),
        )
        try:
            log = run_dir / "logs" / "kfp.log"
            execute(self.compiled, {"text": text}, run_dir / "artifacts", log, executor, executor.stop)
        finally:
            processes.close()
        return {task.name: task for task in read_tasks(run_dir)}

    @property
    def made(self) -> int:
        return len(self.marks.read_text().splitlines()) if self.marks.exists() else 0


@pytest.fixture
def toy(compiled: CompiledPipeline, tmp_path: Path) -> Toy:
    return Toy(compiled, tmp_path)


def test_every_task_is_known_by_its_display_name_in_the_order_of_execution(compiled: CompiledPipeline) -> None:
    names = [task.name for task in compiled.tasks]
    assert set(names) == {"make", "judge-it", "long-enough", "last"}
    assert names.index("make") < names.index("judge-it")
    assert names[-1] == "last"


def test_a_run_that_goes_well_runs_every_task_once_and_the_exit_task_last(toy: Toy) -> None:
    tasks = toy.run("long text", "a")
    assert {name: task.status for name, task in tasks.items()} == dict.fromkeys(tasks, "succeeded")
    assert list(tasks)[-1] == "last"
    assert Path(tasks["judge-it"].outputs["judged"].uri).read_text() == "LONG TEXT"
    assert tasks["make"].peak_rss_mb > 5
    assert toy.seen[0] == ("make", "running")


def test_a_condition_that_does_not_hold_skips_its_task(toy: Toy) -> None:
    assert "long-enough" not in toy.run("short", "a")


@pytest.mark.parametrize(
    ("text", "exit_code", "verdict"),
    [
        ("refuse", 3, "refused"),
        ("faulty", 4, "bad_input"),
        ("platform", 5, "platform_failure"),
        ("defect", 1, "defect"),
    ],
)
def test_a_failure_keeps_its_exit_code_and_the_exit_task_still_runs(
    toy: Toy, text: str, exit_code: int, verdict: str
) -> None:
    tasks = toy.run(text, "a")
    assert tasks["judge-it"].exit_code == exit_code
    assert tasks["judge-it"].error is not None
    assert tasks["last"].status == "succeeded"
    assert verdict_of(list(tasks.values())) == verdict


def test_the_error_reaches_the_record_in_its_parts(toy: Toy) -> None:
    error = toy.run("faulty", "a")["judge-it"].error
    assert error is not None
    assert (error["where"], error["got"], error["remedy"]) == ("toy data", "faulty", "give better")


def test_a_second_run_reuses_what_did_not_change_and_says_from_where(toy: Toy) -> None:
    toy.run("long text", "a")
    tasks = toy.run("long text", "b")
    assert toy.made == 1
    assert tasks["make"].status == "cached"
    assert tasks["make"].reused_from == "a"
    assert tasks["last"].status == "succeeded", "the exit task must never be reused"
    assert Path(tasks["judge-it"].outputs["judged"].uri).read_text() == "LONG TEXT"
    assert "/runs/b/" in tasks["judge-it"].outputs["judged"].uri


def test_a_changed_parameter_is_not_served_from_the_cache(toy: Toy) -> None:
    toy.run("long text", "a")
    assert toy.run("other text", "b")["make"].status == "succeeded"


def test_an_altered_result_is_made_again(toy: Toy) -> None:
    first = toy.run("long text", "a")
    Path(first["make"].outputs["made"].uri).write_text("tampered!")
    assert toy.run("long text", "b")["make"].status == "succeeded"
    assert toy.made == 2


def test_a_deleted_earlier_run_harms_no_later_one(toy: Toy) -> None:
    import shutil

    toy.run("long text", "a")
    reused = toy.run("long text", "b")
    shutil.rmtree(toy.root / "runs" / "a")
    assert Path(reused["make"].outputs["made"].uri).read_text() == "long text"
    assert toy.run("long text", "c")["make"].status == "succeeded"


def test_resuming_without_reuse_takes_only_what_the_run_itself_finished(toy: Toy) -> None:
    toy.run("once-killed", "other")
    toy.marks.with_suffix(".killed").unlink()
    killed = toy.run("once-killed", "a", only_run="a")
    assert killed["make"].status == "succeeded", "another run's result was reused"
    assert killed["judge-it"].exit_code == -9
    resumed = toy.run("once-killed", "a", only_run="a")
    assert resumed["make"].status == "cached"
    assert resumed["judge-it"].status == "succeeded"


def test_checkpoints_outlive_a_killed_task_and_go_once_it_has_ended(toy: Toy) -> None:
    assert toy.run("once-killed", "a")["judge-it"].exit_code == -9
    (kept,) = (toy.root / "scratch").iterdir()
    assert toy.run("once-killed", "a")["judge-it"].status == "succeeded"
    assert not kept.exists()


def test_logs_and_records_are_written_for_every_task(toy: Toy) -> None:
    toy.run("long text", "a")
    run_dir = toy.root / "runs" / "a"
    assert "9 is long enough" in (run_dir / "logs" / "long-enough.log").read_text()
    record = json.loads((run_dir / "tasks" / "make.json").read_text())
    assert record["cache_key"]
    assert not list((run_dir / "tasks").glob(".*"))
