"""The TrainJob of a training: trainer.kubeflow.org/v1alpha1, as Trainer 2.2 has it.

Trainer lays over the TrainingRuntime what stands here under `trainer` and `runtimePatches`, and hands nothing of a
TrainJob's own labels on to its pods.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from tidemill.jobs.job import TrainingJob
from tidemill.kserve.cluster import Kind
from tidemill.trainjob.settings import TrainJobSettings

TRAINJOBS: Final = Kind("trainer.kubeflow.org", "v1alpha1", "trainjobs", "TrainJob")
NODE: Final = "node"
"""What the runtime calls its replicated job and, in it, its container: Trainer changes these alone."""
STORE: Final = "store"
"""What the runtime calls the volume with the runs' records."""
QUEUE: Final = "kueue.x-k8s.io/queue-name"
_MANAGER: Final = "tidemill/launcher"
_SCRATCH: Final = {"requests": "4Gi", "limits": "20Gi"}
"""Room for /tmp and logs. A TrainJob's resources replace the runtime's whole, so this is said here as well."""


def manifest(job: TrainingJob, settings: TrainJobSettings, owner: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Returns the TrainJob.

    Args:
        owner: an ownerReference: when the owner is deleted, Kubernetes deletes the job.
    """
    labels = {**settings.labels, **job.labels, "app.kubernetes.io/managed-by": "tidemill"}
    metadata: dict[str, Any] = {
        "name": job.name,
        "namespace": settings.namespace,
        "labels": {**labels, **({QUEUE: settings.queue} if settings.queue else {})},
    }
    if owner is not None:
        metadata["ownerReferences"] = [dict(owner)]
    trainer: dict[str, Any] = {
        "image": settings.image,
        "numNodes": job.workers,
        "args": ["python3", "-m", "tidemill.train.worker", *job.arguments],
        "resourcesPerNode": {
            bound: {**settings.resources, "ephemeral-storage": scratch} for bound, scratch in _SCRATCH.items()
        },
    }
    if job.environment:
        trainer["env"] = [{"name": name, "value": value} for name, value in sorted(job.environment.items())]
    return {
        "apiVersion": f"{TRAINJOBS.group}/{TRAINJOBS.version}",
        "kind": TRAINJOBS.kind,
        "metadata": metadata,
        "spec": {
            "runtimeRef": {"apiGroup": TRAINJOBS.group, "kind": "TrainingRuntime", "name": settings.runtime},
            "activeDeadlineSeconds": settings.deadline_s,
            "trainer": trainer,
            "runtimePatches": [_patch(labels, settings)],
        },
    }


def _patch(labels: Mapping[str, str], settings: TrainJobSettings) -> dict[str, Any]:
    """Returns what our pods have beside the runtime's; merged by Trainer as Kubernetes merges lists with keys."""
    pod: dict[str, Any] = {
        "volumes": [{"name": STORE, "persistentVolumeClaim": {"claimName": settings.store_claim}}],
    }
    if settings.node:
        pod["nodeSelector"] = dict(settings.node)
    if settings.tolerations:
        pod["tolerations"] = [dict(toleration) for toleration in settings.tolerations]
    if settings.pull_secrets:
        pod["imagePullSecrets"] = [{"name": name} for name in settings.pull_secrets]
    template = {"metadata": {"labels": dict(labels)}, "spec": pod}
    jobs = [{"name": NODE, "template": {"spec": {"template": template}}}]
    return {"manager": _MANAGER, "trainingRuntimeSpec": {"template": {"spec": {"replicatedJobs": jobs}}}}
