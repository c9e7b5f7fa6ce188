"""What the tasks of a run printed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from tidemill.errors import UsageError
from tidemill.kserve.cluster import Cluster

_RUN_LABEL: Final = "pipeline/runid"
_NODE: Final = "workflows.argoproj.io/node-name"
_CONTAINER: Final = "main"


def logs(cluster: Cluster, run: str, task: str | None) -> Iterator[str]:
    """Yields the lines of a run's pods, each under a heading with the task's name where there are several.

    The pods are found by KFP's label; which task one belongs to stands in Argo's node name:
    ``lending-training-x7k2p.root.release.ingest.executor(0)``. Drivers are shown where they failed.

    Raises:
        UsageError: if no pod is left, or none of that task.
    """
    pods = cluster.pods(f"{_RUN_LABEL}={run}", required=True)
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
            yield f"==> {name} ({pod['metadata']['name']}, {pod['status'].get('phase')})"
        yield from _lines(cluster, pod)


def _task(pod: Mapping[str, Any]) -> str | None:
    """Returns the task that a pod works for; None for the driver of one that went on."""
    node = pod["metadata"].get("annotations", {}).get(_NODE, "")
    parts = [re.sub(r"\(\d+.*\)$", "", part) for part in node.split(".")]
    if parts[-1] == "executor" and len(parts) > 1:
        return parts[-2]
    return parts[-1] if parts[-1].endswith("-driver") and pod["status"].get("phase") == "Failed" else None


def _lines(cluster: Cluster, pod: Mapping[str, Any]) -> Iterator[str]:
    """Yields what the main container printed, or why it has printed nothing yet."""
    own = [s for s in pod["status"].get("containerStatuses", ()) if s["name"] == _CONTAINER]
    waiting = own[0].get("state", {}).get("waiting") if own else None
    if waiting is not None or pod["status"].get("phase") == "Pending":
        reason = f"{waiting.get('reason')}: {waiting.get('message', '')}" if waiting is not None else _unscheduled(pod)
        yield f"(has not started: {reason.rstrip(': ')})"
        return
    text = cluster.log(pod["metadata"]["name"], _CONTAINER)
    yield from ["(the pod is gone)"] if text is None else text.splitlines()


def _unscheduled(pod: Mapping[str, Any]) -> str:
    for condition in pod["status"].get("conditions", ()):
        if condition["type"] == "PodScheduled" and condition["status"] != "True":
            return f"{condition.get('reason')}: {condition.get('message')}"
    return "Pending"


def _began(pod: Mapping[str, Any]) -> tuple[str, str]:
    return (str(pod["metadata"].get("creationTimestamp")), str(pod["metadata"]["name"]))
