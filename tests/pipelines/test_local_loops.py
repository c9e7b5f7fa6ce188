"""The local target runs the iterations of a loop side by side, as tasks of their own, and hands their results on."""

from __future__ import annotations

import importlib.util
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from kfp import compiler

from tidemill.runs import TaskRecord, read_tasks, verdict_of
from tidemill_pipelines.targets.local.cache import Cache
from tidemill_pipelines.targets.local.executor import TaskExecutor
from tidemill_pipelines.targets.local.ir import CompiledPipeline, execute
from tidemill_pipelines.targets.local.processes import Processes


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> CompiledPipeline:
    spec = importlib.util.spec_from_file_location("loops", Path(__file__).with_name("loops.py"))
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    path = tmp_path_factory.mktemp("compiled") / "loops.yaml"
    compiler.Compiler().compile(module.loops, str(path))
    return CompiledPipeline(path)


Run = Callable[..., dict[str, TaskRecord]]


@pytest.fixture
def run(compiled: CompiledPipeline, tmp_path: Path) -> Run:
    """Runs the pipeline in a directory of its own."""

    def loops(first: list[str], second: list[str], run_id: str = "a") -> dict[str, TaskRecord]:
        run_dir = tmp_path / "runs" / run_id
        processes = Processes(run_dir / "logs", {"TOY_MARKS": str(tmp_path / "marks")})
        executor = TaskExecutor(
            run_dir=run_dir,
            tasks=compiled.tasks,
            cache=Cache(tmp_path / "cache"),
            processes=processes,
            scratch=tmp_path / "scratch",
            earlier=lambda task: None,
            observe=lambda record: None,
        )
        arguments, log = {"first": first, "second": second}, run_dir / "logs" / "kfp.log"
        try:
            execute(compiled, arguments, run_dir / "artifacts", log, executor, executor.stop)
        finally:
            processes.close()
        return {task.name: task for task in read_tasks(run_dir)}

    return loops


def study(tasks: dict[str, TaskRecord], task: str) -> str:
    return Path(tasks[task].outputs["study"].uri).read_text()


def test_iterations_run_side_by_side_and_their_results_come_in_the_order_of_the_items(run: Run) -> None:
    """Three wait for each other: kfp.local's own two at a time would wait in vain."""
    tasks = run(["meet-c", "meet-a", "meet-b"], ["plain"])
    assert sorted(tasks) == [
        *("end", "propose-1", "propose-2", "round-1-meet-a", "round-1-meet-b", "round-1-meet-c", "round-2-plain"),
    ]
    assert {task.status for task in tasks.values()} == {"succeeded"}
    assert study(tasks, "propose-2") == "MEET-C True;MEET-A True;MEET-B True;"
    assert study(tasks, "end") == "MEET-C True;MEET-A True;MEET-B True;PLAIN True;"
    assert tasks["round-1-meet-a"].iteration_of == "round-1"
    assert tasks["end"].iteration_of is None
    assert set(tasks["propose-2"].inputs) == {"before", "results", "results.1", "results.2"}


def test_an_iteration_is_reused_by_what_it_was_given_whatever_the_others_are(run: Run) -> None:
    run(["one", "two"], ["three"])
    tasks = run(["two", "new", "one"], ["three"], "b")
    assert {name for name, task in tasks.items() if task.status == "cached"} == {"round-1-one", "round-1-two"}
    assert study(tasks, "propose-2") == "TWO True;NEW True;ONE True;"
    assert tasks["round-2-three"].status == "succeeded", "what it was given of the first round is another study"


def test_a_failed_iteration_ends_the_run_and_nothing_that_waits_is_begun(run: Run, tmp_path: Path) -> None:
    tasks = run(["plain"], ["faulty", "late"])
    assert tasks["round-2-faulty"].exit_code == 4
    assert "round-2-late" not in tasks
    assert not (tmp_path / "marks" / "late").exists()
    assert "end" not in tasks
    assert verdict_of(list(tasks.values())) == "bad_input"


def test_after_a_kill_only_what_had_not_ended_is_done_again(run: Run) -> None:
    killed = run(["one", "killed"], ["two"])
    assert killed["round-1-killed"].exit_code == -9
    assert verdict_of(list(killed.values())) == "platform_failure"
    tasks = run(["one", "killed"], ["two"])
    assert tasks["round-1-one"].status == "cached"
    assert tasks["round-1-killed"].status == "succeeded"
    assert study(tasks, "end") == "ONE True;KILLED True;TWO True;"


def test_an_interruption_ends_all_iterations_and_is_recorded(run: Run, tmp_path: Path) -> None:
    def press() -> None:
        deadline = time.monotonic() + 60
        while not (tmp_path / "marks" / "asleep").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    began = time.monotonic()
    threading.Thread(target=press).start()
    with pytest.raises(KeyboardInterrupt):
        run(["sleep", "one", "two", "three"], ["four"])
    assert time.monotonic() - began < 60
    records = {task.name: task for task in read_tasks(tmp_path / "runs" / "a")}
    assert (records["round-1-sleep"].status, records["round-1-sleep"].exit_code) == ("interrupted", 130)
    assert verdict_of(list(records.values())) == "interrupted"


def test_kfp_is_left_as_it_was(run: Run) -> None:
    from kfp.local import subprocess_task_handler
    from kfp.local.orchestrator import enhanced_dag_orchestrator

    before = (enhanced_dag_orchestrator.ParallelExecutor, subprocess_task_handler.SubprocessTaskHandler)
    run(["one"], ["two"])
    assert before == (enhanced_dag_orchestrator.ParallelExecutor, subprocess_task_handler.SubprocessTaskHandler)
