"""What is in an Argo Workflow that KFP's compiler made, in KFP's terms."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

EVERYTHING: Final = "everything"
"""The training pipeline with all that a problem or a target can add to it."""
_FROM_ANNOTATION: Final = re.compile(r"\{\{workflow\.annotations\.(pipelines\.kubeflow\.org/[^}]+)\}\}")


@dataclass(frozen=True)
class DriverTask:
    """What the driver of one task is told when the task's turn comes.

    Attributes:
        dag: name of the DAG template that it stands in.
        after: Argo's condition on other tasks; empty for none.
        task: the task of the pipeline spec.
        container: image, command, environment and resources; None for what is no container.
        kubernetes: the task's part of the platform spec; None if it has none.
    """

    dag: str
    after: str
    task: dict[str, Any]
    container: dict[str, Any] | None
    kubernetes: dict[str, Any] | None


def driver_tasks(workflow: Mapping[str, Any]) -> dict[str, DriverTask]:
    """Returns what the drivers are told, by the task's name in the pipeline spec.

    A loop's driver is asked once for the loop, which is what is returned, and once more for each item.
    """
    found: dict[str, DriverTask] = {}
    for template in workflow["spec"]["templates"]:
        for step in template.get("dag", {}).get("tasks", []):
            given = {
                p["name"]: _resolved(workflow, p.get("value", "")) for p in step["arguments"].get("parameters", [])
            }
            if "task" in given and "iteration-index" not in given:
                name = step["name"].removesuffix("-driver")
                assert name not in found, f"{name} stands twice in the Workflow"
                found[name] = DriverTask(
                    dag=template["name"],
                    after=step.get("depends", ""),
                    task=json.loads(given["task"]),
                    container=json.loads(given["container"]) if "container" in given else None,
                    kubernetes=json.loads(given["kubernetes-config"]) if "kubernetes-config" in given else None,
                )
    return found


def runtime_parameters(workflow: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the pipeline's parameters as the driver of the whole run gets them."""
    for template in workflow["spec"]["templates"]:
        for step in template.get("dag", {}).get("tasks", []):
            for parameter in step["arguments"].get("parameters", []):
                if parameter["name"] == "runtime-config":
                    values: dict[str, Any] = json.loads(parameter["value"])["parameterValues"]
                    return values
    raise AssertionError("nothing in the Workflow is given the run's parameters")


def pods(workflow: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yields the pods of the templates, as Argo makes them before its own containers are added."""
    for template in workflow["spec"]["templates"]:
        if "container" in template:
            yield {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": template["name"], **workflow["spec"]["podMetadata"]},
                "spec": {
                    "containers": [{**template["container"], "name": "main"}],
                    "initContainers": template.get("initContainers", []),
                    "volumes": template.get("volumes", []),
                    "serviceAccountName": workflow["spec"]["serviceAccountName"],
                    "restartPolicy": "Never",
                },
            }


def _resolved(workflow: Mapping[str, Any], value: str) -> str:
    whole = _FROM_ANNOTATION.fullmatch(value)
    return str(workflow["metadata"]["annotations"][whole[1]]) if whole else value
