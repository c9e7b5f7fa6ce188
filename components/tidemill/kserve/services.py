"""A version's InferenceService: what it says, and whether its predictor is ready."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from tidemill.errors import PlatformError, UsageError
from tidemill.kserve.cluster import Cluster, Kind
from tidemill.kserve.settings import KserveSettings

SERVICES: Final = Kind("serving.kserve.io", "v1beta1", "inferenceservices", "InferenceService")
MODEL: Final = "tidemill/model"
VERSION: Final = "tidemill/version"
DIGEST: Final = "tidemill/digest"
USER: Final = 65532
"""The uid of our images."""
_MAX_LABEL: Final = 63
_POLL_S: Final = 2.0
_PATIENCE_S: Final = 45.0
"""What KServe calls failed may be what an earlier try left, and heal: a pod that restarts, a mended image."""
_OF_SERVICE: Final = "serving.kserve.io/inferenceservice"


@dataclass(frozen=True)
class Predictor:
    """A version's pods behind their own service."""

    model: str
    version: int

    @property
    def name(self) -> str:
        """Name of the InferenceService.

        Raises:
            UsageError: if KServe would make a service of it whose name is too long.
        """
        name = f"{self.model}-v{self.version}"
        if len(f"{name}-predictor") > _MAX_LABEL:
            most = _MAX_LABEL - len(f"-v{self.version}-predictor")
            raise UsageError(f"model {self.model}", f"must have a name of at most {most} characters on Kubernetes")
        return name

    @property
    def backend(self) -> str:
        """Name of the service that KServe makes."""
        return f"{self.name}-predictor"

    @classmethod
    def of_backend(cls, name: str) -> Predictor | None:
        """Reads a service's name; None if it isn't one of ours."""
        match = re.fullmatch(r"(.+)-v([0-9]+)-predictor", name)
        return cls(match[1], int(match[2])) if match else None


def manifest(predictor: Predictor, digest: str, settings: KserveSettings) -> dict[str, Any]:
    """Returns the InferenceService of a version, as it is applied.

    Args:
        digest: hex sha256 of the SavedModel.
    """
    labels = {
        **settings.labels,
        "app.kubernetes.io/managed-by": "tidemill",
        MODEL: predictor.model,
        VERSION: str(predictor.version),
        "networking.kserve.io/visibility": "cluster-local",  # the way in is our HTTPRoute, not one of KServe's
    }
    scaled: dict[str, Any] = {"minReplicas": settings.min_replicas, "maxReplicas": settings.max_replicas}
    if settings.max_replicas > settings.min_replicas:
        scaled |= {"scaleMetric": "cpu", "scaleTarget": 70}
    resources = {"cpu": settings.cpu, "memory": settings.memory}
    return {
        "apiVersion": f"{SERVICES.group}/{SERVICES.version}",
        "kind": SERVICES.kind,
        "metadata": {
            "name": predictor.name,
            "labels": labels,
            "annotations": {
                "serving.kserve.io/deploymentMode": "Standard",  # KServe's default differs between installations
                "serving.kserve.io/autoscalerClass": "hpa",
                DIGEST: digest,
            },
        },
        "spec": {
            "predictor": {
                "serviceAccountName": settings.service_account,
                "automountServiceAccountToken": False,
                "enableServiceLinks": False,
                **scaled,
                "securityContext": {
                    "runAsNonRoot": True,
                    "fsGroup": USER,
                    "fsGroupChangePolicy": "OnRootMismatch",
                    "seccompProfile": {"type": "RuntimeDefault"},
                },
                "topologySpreadConstraints": [
                    {
                        "maxSkew": 1,
                        "topologyKey": "kubernetes.io/hostname",
                        "whenUnsatisfiable": "ScheduleAnyway",
                        "labelSelector": {"matchLabels": {_OF_SERVICE: predictor.name}},
                    }
                ],
                "model": {
                    "modelFormat": {"name": "tidemill"},
                    "runtime": settings.runtime,
                    **({"image": settings.image} if settings.image else {}),
                    "storageUri": f"pvc://{settings.store_claim}/registry/{predictor.model}/{predictor.version}",
                    "resources": {"requests": resources, "limits": resources},
                },
            }
        },
    }


def of_model(cluster: Cluster, model: str | None) -> dict[Predictor, Mapping[str, Any]]:
    """Returns the InferenceServices that tidemill made, for one model or all."""
    selector = f"{MODEL}={model}" if model is not None else MODEL
    found: dict[Predictor, Mapping[str, Any]] = {}
    for item in cluster.labelled(SERVICES, selector):
        labels = item["metadata"].get("labels", {})
        if labels.get(VERSION, "").isdecimal():
            found[Predictor(labels[MODEL], int(labels[VERSION]))] = item
    return found


def is_ready(service: Mapping[str, Any]) -> bool:
    """Tells whether a version's predictor is ready.

    KServe's `Ready` also waits for a way in of its own, which ours don't have. `observedGeneration` is no help: it is
    that of the Deployment.
    """
    return any(c["type"] == "PredictorReady" and c["status"] == "True" for c in _conditions(service))


def await_ready(
    cluster: Cluster,
    predictor: Predictor,
    timeout_s: float,
    now: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> Mapping[str, Any]:
    """Waits until a version's predictor is ready and returns its InferenceService.

    Raises:
        PlatformError: if it fails or takes too long, with the reasons that KServe, its pods and events give.
    """
    where, begun = f"InferenceService {predictor.name}", now()
    failing_since: float | None = None
    while True:
        service = cluster.get(SERVICES, predictor.name)
        if service is not None and is_ready(service):
            return service
        told = (service or {}).get("status", {}).get("modelStatus", {}).get("transitionStatus")
        if told in ("InvalidSpec", "BlockedByFailedLoad"):
            failing_since = failing_since if failing_since is not None else now()
        else:
            failing_since = None
        failed = failing_since is not None and now() - failing_since >= min(_PATIENCE_S, timeout_s)
        if failed or now() - begun > timeout_s:
            expected = "must become ready" if failed else f"must be ready within {timeout_s:g} s"
            reasons = "; ".join(dict.fromkeys(_reasons(cluster, predictor, service))) or "no reason is given"
            remedy = "mend what is told, and run the step again: it goes on from here; the traffic is as it was"
            raise PlatformError(where, expected, reasons, remedy)
        pause(_POLL_S)


def _reasons(cluster: Cluster, predictor: Predictor, service: Mapping[str, Any] | None) -> Iterator[str]:
    if service is None:
        yield "it is gone"
        return
    for condition in _conditions(service):
        if condition["status"] == "False" and (condition.get("message") or condition.get("reason")):
            yield _sentence(condition["type"], condition.get("reason"), condition.get("message"))
    if failure := service.get("status", {}).get("modelStatus", {}).get("lastFailureInfo"):
        yield _sentence("model", failure.get("reason"), failure.get("message"))
    for pod in cluster.pods(f"{_OF_SERVICE}={predictor.name}"):
        statuses = [*pod["status"].get("initContainerStatuses", ()), *pod["status"].get("containerStatuses", ())]
        for status in statuses:
            for state in (status.get("state", {}), status.get("lastState", {})):
                bad = state.get("waiting") or state.get("terminated") or {}
                if bad.get("reason") not in (None, "Completed", "ContainerCreating", "PodInitializing"):
                    what = f"pod {pod['metadata']['name']}, {status['name']}"
                    yield _sentence(what, bad["reason"], bad.get("message"))
        for condition in pod["status"].get("conditions", ()):
            if condition["type"] == "PodScheduled" and condition["status"] == "False":
                yield _sentence(f"pod {pod['metadata']['name']}", condition.get("reason"), condition.get("message"))
    for event in cluster.warnings(predictor.name):
        yield _sentence(f"event on {event['involvedObject']['name']}", event.get("reason"), event.get("message"))


def _sentence(what: str, reason: str | None, message: str | None) -> str:
    return f"{what}: {': '.join(part for part in (reason, ' '.join((message or '').split())[:300]) if part)}"


def _conditions(service: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return list(service.get("status", {}).get("conditions", ()))


def digest_of(service: Mapping[str, Any]) -> str | None:
    """Returns the digest of the SavedModel that a service was made for."""
    annotations: Mapping[str, str] = service["metadata"].get("annotations", {})
    return annotations.get(DIGEST)


def applied(cluster: Cluster, predictor: Predictor, digest: str, settings: KserveSettings) -> None:
    """Makes the InferenceService of a version what it should be."""
    cluster.apply(SERVICES, manifest(predictor, digest, settings))
