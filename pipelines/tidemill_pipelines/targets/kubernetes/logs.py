"""What the tasks of a run printed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from tidemill.errors import UsageError
from tidemill_pipelines.targets.kubernetes.cluster import Cluster

_RUN_LABEL: Final = "pipeline/runid"
_NODE: Final = "workflows.argoproj.io/node-name"
_CONTAINER: Final = "main"


def logs(cluster: Cluster, run: str, task: str | None) -> Iterator[str]:
    """Yields the lines of a run's pods, each under a heading with the task's name where there are several.

    The pods are found by KFP's label; which task one belongs to stands in Argo's node name:
    ``training-x7k2p.root.release.ingest.executor(0)``. Drivers are shown where they failed.

    Raises:
        UsageError: if no pod is left, or none of that task.
    """
    pods = cluster.call(
        "list pods",
        "list pods",
        cluster.core.list_namespaced_pod,
        cluster.namespace,
        label_selector=f"{_RUN_LABEL}={run}",
    ).items
    chosen = [(name, pod) for pod in sorted(pods, key=_began) if (name := _task(pod)) is not None]
    if task is not None:
        chosen = [(name, pod) for name, pod in chosen if task in (name, name.removesuffix("-driver"))]
    if not chosen:
        what = f"task {task} of run {run}" if task is not None else f"run {run}"
        remedy = (
            "a cached or a waiting task has no pod, and finished ones are cleaned away in time: the cluster's log "
            "store has what they printed, and `tidemill runs show` what became of them"
        )
        raise UsageError(what, f"has no pod in namespace {cluster.namespace}", remedy=remedy)
    for name, pod in chosen:
        if len(chosen) > 1:
            yield f"==> {name} ({pod.metadata.name}, {pod.status.phase})"
        yield from _lines(cluster, pod)


def _task(pod: Any) -> str | None:
    """Returns the task that a pod works for; None for the driver of one that went on."""
    node = (pod.metadata.annotations or {}).get(_NODE, "")
    parts = [re.sub(r"\(\d+.*\)$", "", part) for part in node.split(".")]
    if parts[-1] == "executor" and len(parts) > 1:
        return parts[-2]
    return parts[-1] if parts[-1].endswith("-driver") and pod.status.phase == "Failed" else None


def _lines(cluster: Cluster, pod: Any) -> Iterator[str]:
    """Yields what the main container printed, or why it has printed nothing yet."""
    waiting = next(
        (s.state.waiting for s in pod.status.container_statuses or () if s.name == _CONTAINER and s.state.waiting), None
    )
    if waiting is not None or pod.status.phase == "Pending":
        reason = f"{waiting.reason}: {waiting.message or ''}" if waiting is not None else _unscheduled(pod)
        yield f"(has not started: {reason.rstrip(': ')})"
        return
    text = cluster.call(
        f"read the log of {pod.metadata.name}",
        "get pods/log",
        cluster.core.read_namespaced_pod_log,
        pod.metadata.name,
        cluster.namespace,
        container=_CONTAINER,
        absent="(the pod is gone)",
    )
    yield from text.splitlines()


def _unscheduled(pod: Any) -> str:
    conditions = [c for c in pod.status.conditions or () if c.type == "PodScheduled" and c.status != "True"]
    return f"{conditions[0].reason}: {conditions[0].message}" if conditions else "Pending"


def _began(pod: Any) -> tuple[str, str]:
    return (str(pod.metadata.creation_timestamp), str(pod.metadata.name))
