"""The pods that the manifests lead to, those that operators make for them included."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

ALLOWED_VOLUMES = {
    *("configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"),
}


@dataclass(frozen=True)
class Pod:
    """A pod's specification and where it stands."""

    where: str
    spec: Mapping[str, Any]
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def containers(self) -> list[Mapping[str, Any]]:
        return [*self.spec.get("initContainers", ()), *self.spec["containers"]]


def pods(documents: list[dict[str, Any]], runtimes: Mapping[str, Any] | None = None) -> Iterator[Pod]:
    """Yields the pods of rendered objects.

    Args:
        runtimes: ServingRuntimes by name, for InferenceServices; KServe puts the model's settings over their container.
    """
    for document in documents:
        where = f"{document['kind']} {document['metadata']['name']}"
        match document["kind"]:
            case "ServingRuntime":
                yield Pod(where, document["spec"])
            case "InferenceService" if runtimes is not None:
                yield Pod(where, _predictor(document, runtimes), _predictor_labels(document))
            case "TrainingRuntime":
                for job in document["spec"]["template"]["spec"]["replicatedJobs"]:
                    template = job["template"]["spec"]["template"]
                    labels = {**template.get("metadata", {}).get("labels", {}), "jobset.sigs.k8s.io/jobset-name": "any"}
                    yield Pod(where, template["spec"], labels)
            case "Job":
                template = document["spec"]["template"]
                yield Pod(where, template["spec"], template["metadata"]["labels"])
            case "CronJob":
                template = document["spec"]["jobTemplate"]["spec"]["template"]
                yield Pod(where, template["spec"], template["metadata"]["labels"])
            case _:
                spec = document.get("spec", {})
                assert "containers" not in spec, f"{where} has pods that nobody looks at"
                assert "template" not in spec, f"{where} has pods that nobody looks at"


def _predictor(document: Mapping[str, Any], runtimes: Mapping[str, Any]) -> dict[str, Any]:
    predictor = copy.deepcopy(document["spec"]["predictor"])
    model = predictor.pop("model")
    runtime = runtimes[model["runtime"]]["spec"]
    (container,) = copy.deepcopy(runtime["containers"])
    container.update({key: model[key] for key in ("resources", "env", "args", "image") if key in model})
    return {**predictor, "containers": [container], "volumes": runtime.get("volumes", [])}


def _predictor_labels(document: Mapping[str, Any]) -> dict[str, str]:
    return {"serving.kserve.io/inferenceservice": document["metadata"]["name"], "component": "predictor"}


def violations(pod: Pod) -> list[str]:
    """Returns what keeps a pod from Pod Security's level `restricted`, and from two rules of ours beyond it.

    The rules: https://kubernetes.io/docs/concepts/security/pod-security-standards/ (restricted). Ours: the root
    filesystem is read-only; every container says what it needs and what it may take.
    """
    spec, found = pod.spec, []
    found += [f"{flag} is set" for flag in ("hostNetwork", "hostPID", "hostIPC") if spec.get(flag)]
    for volume in spec.get("volumes", ()):
        kinds = set(volume) - {"name"}
        found += [f"volume {volume['name']}: {kind}" for kind in kinds - ALLOWED_VOLUMES]
    shared = spec.get("securityContext", {})
    for container in pod.containers:
        context = container.get("securityContext", {})
        both = {**shared, **context}
        checks = {
            "runAsNonRoot": both.get("runAsNonRoot") is True,
            "runAsUser": both.get("runAsUser") != 0,
            "seccompProfile": both.get("seccompProfile", {}).get("type") == "RuntimeDefault",
            "allowPrivilegeEscalation": context.get("allowPrivilegeEscalation") is False,
            "privileged": not context.get("privileged"),
            "capabilities": context.get("capabilities") == {"drop": ["ALL"]},
            "readOnlyRootFilesystem": context.get("readOnlyRootFilesystem") is True,
            "hostPort": not any("hostPort" in port for port in container.get("ports", ())),
            "resources": all(
                kind in container.get("resources", {}).get(side, {})
                for side in ("requests", "limits")
                for kind in ("cpu", "memory")
            ),
        }
        found += [f"container {container['name']}: {name}" for name, kept in checks.items() if not kept]
    return found
