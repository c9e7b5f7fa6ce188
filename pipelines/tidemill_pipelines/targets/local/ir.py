"""The one seam into kfp.local's internals (kfp 2.17.0).

kfp.local walks the compiled pipeline, resolves placeholders, honours conditions, exit handlers and retries;
only what runs a single task is replaced here. If kfp moves one of the names used below, importing or the
conformance test fails loudly.
"""

from __future__ import annotations

import contextlib
import json
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kfp import local
from kfp.components import load_component_from_file
from kfp.local import graph_utils, pipeline_orchestrator, status, subprocess_task_handler, task_handler_interface
from kfp.pipeline_spec import pipeline_spec_pb2


@dataclass(frozen=True)
class Task:
    """A task of the compiled pipeline.

    Attributes:
        name: what people call it: its display name.
        component: name of its component in the IR.
        cached: whether its results may be reused.
    """

    name: str
    component: str
    image: str
    command: tuple[str, ...]
    cached: bool


@dataclass(frozen=True)
class Call:
    """One execution of a task, with all placeholders resolved.

    Attributes:
        root: the directory below which its outputs lie.
        inputs: uri by name of input artefact.
        outputs: uri by name of output artefact.
    """

    task: Task
    command: tuple[str, ...]
    root: Path
    parameters: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, str] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)


class CompiledPipeline:
    """A pipeline as compiled to IR."""

    def __init__(self, path: Path) -> None:
        self.spec: pipeline_spec_pb2.PipelineSpec = load_component_from_file(str(path)).pipeline_spec
        self.tasks = tuple(self._tasks(self.spec.root.dag))

    def _tasks(self, dag: Any) -> list[Task]:
        """Returns the executable tasks in the order in which kfp.local takes them, exit handlers last."""
        exits = [name for name, task in dag.tasks.items() if _is_exit(task)]
        body = {name: task for name, task in dag.tasks.items() if name not in exits}
        names = [*reversed(graph_utils.topological_sort_tasks(body)), *exits]
        found = []
        for name in names:
            task = dag.tasks[name]
            component = self.spec.components[task.component_ref.name]
            if component.WhichOneof("implementation") == "dag":
                found += self._tasks(component.dag)
                continue
            executor = self.spec.deployment_spec["executors"][component.executor_label]
            if "container" in executor:
                container = executor["container"]
                command = (*container["command"], *container["args"])
                shown = task.task_info.name or name
                caches = task.caching_options.enable_cache
                found.append(Task(shown, task.component_ref.name, container["image"], command, caches))
        return found


def _is_exit(task: Any) -> bool:
    return any(value.HasField("task_final_status") for value in task.inputs.parameters.values())


def execute(
    pipeline: CompiledPipeline,
    arguments: Mapping[str, Any],
    pipeline_root: Path,
    log: Path,
    run_task: Callable[[Call], bool],
) -> None:
    """Executes a compiled pipeline task by task.

    Args:
        pipeline: what to execute.
        arguments: the pipeline's parameters.
        pipeline_root: directory below which the artefacts are laid.
        log: file for what kfp.local itself has to say.
        run_task: runs one task and returns whether it succeeded.
    """
    by_component = {task.component.removeprefix("comp-"): task for task in pipeline.tasks}

    class Handler(task_handler_interface.ITaskHandler):
        def __init__(self, full_command: list[str], **_: Any) -> None:
            self._call = _call(by_component, full_command)

        def run(self) -> status.Status:
            return status.Status.SUCCESS if run_task(self._call) else status.Status.FAILURE

    original = subprocess_task_handler.SubprocessTaskHandler
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as file, contextlib.redirect_stdout(file), warnings.catch_warnings():
        # A display name changes nothing in an execution, here or elsewhere; other ignored settings are told.
        warnings.filterwarnings("ignore", r".*settings \['display_name'\] have no effect")
        subprocess_task_handler.SubprocessTaskHandler = Handler
        try:
            local.init(local.SubprocessRunner(use_venv=False), pipeline_root=str(pipeline_root), raise_on_error=False)
            pipeline_orchestrator.run_local_pipeline(pipeline.spec, dict(arguments))
        finally:
            subprocess_task_handler.SubprocessTaskHandler = original


def _call(tasks: Mapping[str, Task], command: list[str]) -> Call:
    given = json.loads(command[command.index("--executor_input") + 1])
    root = Path(given["outputs"]["outputFile"]).parent
    inputs = given.get("inputs", {})
    return Call(
        task=tasks[root.name],
        command=tuple(command),
        root=root,
        parameters=inputs.get("parameterValues", {}),
        inputs={name: a["artifacts"][0]["uri"] for name, a in inputs.get("artifacts", {}).items() if a},
        outputs={name: a["artifacts"][0]["uri"] for name, a in given["outputs"].get("artifacts", {}).items()},
    )
