"""The one seam into kfp.local's internals (kfp 2.17.0).

kfp.local walks the compiled pipeline, resolves placeholders, honours conditions, exit handlers and retries;
what runs a single task is replaced here, and what runs the iterations of a ParallelFor: kfp's own takes two at a time
at most, whatever the pipeline says, and waits for all that are left after a failure or Ctrl-C. If kfp moves one of the
names used below, importing or the conformance test fails loudly.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kfp import local
from kfp.components import load_component_from_file
from kfp.local import graph_utils, pipeline_orchestrator, status, subprocess_task_handler, task_handler_interface
from kfp.local.orchestrator import enhanced_dag_orchestrator
from kfp.pipeline_spec import pipeline_spec_pb2

from tidemill.execution import iteration


@dataclass(frozen=True)
class Task:
    """A task of the compiled pipeline.

    Attributes:
        name: what people call it: its display name.
        component: name of its component in the IR.
        cached: whether its results may be reused.
        looped: whether it is run several times, once for each item of a list.
    """

    name: str
    component: str
    image: str
    command: tuple[str, ...]
    cached: bool
    looped: bool = False


@dataclass(frozen=True)
class Call:
    """One execution of a task, with all placeholders resolved.

    Attributes:
        root: the directory below which its outputs lie.
        inputs: uri by name of input artefact; of a list of them the second is ``<name>.1``, and so on.
        outputs: uri by name of output artefact.
    """

    task: Task
    command: tuple[str, ...]
    root: Path
    parameters: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, str] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The task's name, and which iteration it is where there are several."""
        return iteration(self.task.name, self.parameters) if self.task.looped else self.task.name


class CompiledPipeline:
    """A pipeline as compiled to IR."""

    def __init__(self, path: Path) -> None:
        self.spec: pipeline_spec_pb2.PipelineSpec = load_component_from_file(str(path)).pipeline_spec
        self.tasks = tuple(self._tasks(self.spec.root.dag))

    def _tasks(self, dag: Any, looped: bool = False) -> list[Task]:
        """Returns the executable tasks in the order in which kfp.local takes them, exit handlers last."""
        exits = [name for name, task in dag.tasks.items() if _is_exit(task)]
        body = {name: task for name, task in dag.tasks.items() if name not in exits}
        names = [*reversed(graph_utils.topological_sort_tasks(body)), *exits]
        found = []
        for name in names:
            task = dag.tasks[name]
            component = self.spec.components[task.component_ref.name]
            if component.WhichOneof("implementation") == "dag":
                found += self._tasks(component.dag, looped or task.WhichOneof("iterator") is not None)
                continue
            executor = self.spec.deployment_spec["executors"][component.executor_label]
            if "container" in executor:
                container = executor["container"]
                command = (*container["command"], *container["args"])
                shown = task.task_info.name or name
                caches = task.caching_options.enable_cache
                found.append(Task(shown, task.component_ref.name, container["image"], command, caches, looped))
        return found


def _is_exit(task: Any) -> bool:
    return any(value.HasField("task_final_status") for value in task.inputs.parameters.values())


def execute(
    pipeline: CompiledPipeline,
    arguments: Mapping[str, Any],
    pipeline_root: Path,
    log: Path,
    run_task: Callable[[Call], bool],
    stop: Callable[[], None],
) -> None:
    """Executes a compiled pipeline task by task.

    Args:
        pipeline: what to execute.
        arguments: the pipeline's parameters.
        pipeline_root: directory below which the artefacts are laid.
        log: file for what kfp.local itself has to say.
        run_task: runs one task and returns whether it succeeded; from several threads at a time.
        stop: makes the tasks that are being run end, when somebody pressed Ctrl-C.
    """
    by_component = {task.component.removeprefix("comp-"): task for task in pipeline.tasks}

    class Handler(task_handler_interface.ITaskHandler):
        def __init__(self, full_command: list[str], **_: Any) -> None:
            self._call = _call(by_component, full_command)

        def run(self) -> status.Status:
            return status.Status.SUCCESS if run_task(self._call) else status.Status.FAILURE

    class Loop(enhanced_dag_orchestrator.ParallelExecutor):
        def execute_parallel_tasks(
            self, tasks: Sequence[tuple[str, Any]], *, parallelism_limit: int = 0, **where: Any
        ) -> tuple[dict[str, Any], status.Status]:
            over = threading.Event()

            def run(name: str, spec: Any) -> tuple[dict[str, Any], status.Status] | None:
                if over.is_set():
                    return None
                ended: tuple[dict[str, Any], status.Status] = enhanced_dag_orchestrator.execute_task(
                    task_name=name, task_spec=spec, **where
                )
                if ended[1] == status.Status.FAILURE:
                    over.set()
                    where["fail_stack"].append(name)
                return ended

            with concurrent.futures.ThreadPoolExecutor(parallelism_limit or len(tasks)) as pool:
                calls = {name: pool.submit(run, name, spec) for name, spec in tasks}
                try:
                    found = {name: call.result() for name, call in calls.items()}
                except BaseException:
                    over.set()
                    stop()
                    raise
            done = {name: ended[0] for name, ended in found.items() if ended is not None}
            return ({}, status.Status.FAILURE) if over.is_set() else (done, status.Status.SUCCESS)

    original = subprocess_task_handler.SubprocessTaskHandler
    original_loop = enhanced_dag_orchestrator.ParallelExecutor
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as file, contextlib.redirect_stdout(file), warnings.catch_warnings():
        # A display name changes nothing in an execution, here or elsewhere; other ignored settings are told.
        warnings.filterwarnings("ignore", r".*settings \['display_name'\] have no effect")
        subprocess_task_handler.SubprocessTaskHandler = Handler
        enhanced_dag_orchestrator.ParallelExecutor = Loop
        try:
            local.init(local.SubprocessRunner(use_venv=False), pipeline_root=str(pipeline_root), raise_on_error=False)
            pipeline_orchestrator.run_local_pipeline(pipeline.spec, dict(arguments))
        finally:
            subprocess_task_handler.SubprocessTaskHandler = original
            enhanced_dag_orchestrator.ParallelExecutor = original_loop


def _call(tasks: Mapping[str, Task], command: list[str]) -> Call:
    given = json.loads(command[command.index("--executor_input") + 1])
    root = Path(given["outputs"]["outputFile"]).parent
    inputs = given.get("inputs", {})
    return Call(
        task=tasks[root.name],
        command=tuple(command),
        root=root,
        parameters=inputs.get("parameterValues", {}),
        inputs={
            f"{name}.{i}" if i else name: artifact["uri"]
            for name, given in inputs.get("artifacts", {}).items()
            for i, artifact in enumerate(given.get("artifacts", ()))
        },
        outputs={name: a["artifacts"][0]["uri"] for name, a in given["outputs"].get("artifacts", {}).items()},
    )
