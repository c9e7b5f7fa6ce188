"""KFP's runs in the words of `tidemill_pipelines.targets.remote`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from tidemill_pipelines.targets.kubernetes.marks import run_mark
from tidemill_pipelines.targets.remote import RemoteRun, RemoteTask, State

STATES: Final[Mapping[str, State]] = {
    "RUNTIME_STATE_UNSPECIFIED": "pending",
    "PENDING": "pending",
    "RUNNING": "running",
    "PAUSED": "paused",
    "SUCCEEDED": "succeeded",
    "SKIPPED": "skipped",
    "FAILED": "failed",
    "CANCELING": "cancelling",
    "CANCELED": "cancelled",
}
_NEVER: Final = datetime.max.replace(tzinfo=UTC)


def run_of(run: Any, host: str, names: Collection[str] = (), existed: bool = False) -> RemoteRun:
    """Returns a ``V2beta1Run``.

    Args:
        names: of the pipeline's tasks, to tell them from the others of Argo's nodes.
    """
    mark = run_mark(run.description)
    config = run.runtime_config
    details = run.run_details.task_details if run.run_details is not None else None
    return RemoteRun(
        id=run.run_id,
        name=run.display_name or "",
        state=STATES[run.state or "PENDING"],
        created=run.created_at,
        ended=time_of(run.finished_at),
        error=run.error.message if run.error is not None else None,
        url=f"{host}/#/runs/details/{run.run_id}",
        request_id=mark.request if mark is not None else None,
        labels=dict(mark.labels) if mark is not None else {},
        parameters=dict((config.parameters if config is not None else None) or {}),
        tasks=_tasks(details or (), names),
        existed=existed,
    )


def time_of(value: datetime | None) -> datetime | None:
    """Returns a time of KFP's, whose zero stands for none."""
    return None if value is None or value <= datetime.fromtimestamp(0, UTC) else value


def task_names(spec: Mapping[str, Any]) -> set[str]:
    """Returns the names of all the tasks of a PipelineSpec."""
    bodies = [spec["root"], *spec.get("components", {}).values()]
    return {name for body in bodies for name in body.get("dag", {}).get("tasks", {})}


def _tasks(details: Sequence[Any], names: Collection[str]) -> tuple[RemoteTask, ...]:
    """Returns the pipeline's tasks in the order of their start.

    KFP lists Argo's nodes, by their display names: for a task one of its own name, one for its driver and one for
    its pod; beside them the run and its root. A driver that failed is told, being all that there is of its task.
    """
    told = []
    for detail in details:
        name, state = detail.display_name or "", STATES[detail.state or "PENDING"]
        failed_driver = state == "failed" and name.removesuffix("-driver") in names
        if name in names or failed_driver:
            error = detail.error.message if detail.error is not None else None
            told.append(RemoteTask(name, state, time_of(detail.start_time), time_of(detail.end_time), error))
    return tuple(sorted(told, key=lambda task: (task.started or _NEVER, task.name)))
