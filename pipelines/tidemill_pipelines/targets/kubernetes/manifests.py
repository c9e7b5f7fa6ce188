"""A compiled pipeline as Kubernetes objects, for GitOps: KFP reads them where its pipeline store is Kubernetes.

The kinds are those of pipelines.kubeflow.org/v2beta1, which KFP has since 2.6. A version cannot be changed once it is
there; its name comes from its content, so another content is another object.
"""

from __future__ import annotations

from typing import Any, Final

import yaml

from tidemill_pipelines.targets.compilation import Package
from tidemill_pipelines.targets.kubernetes.naming import version_name

_API: Final = "pipelines.kubeflow.org/v2beta1"
_LABELS: Final = {"app.kubernetes.io/managed-by": "tidemill"}


def manifests(package: Package, namespace: str) -> str:
    """Returns a `Pipeline` and its `PipelineVersion` as two YAML documents, for ``kubectl apply``."""
    version = f"{package.name}-{version_name(package)}"
    documents = package.documents
    body: dict[str, Any] = {
        "pipelineName": package.name,
        "displayName": f"{package.name} {version_name(package)}",
        "pipelineSpec": documents[0],
    }
    if len(documents) > 1:
        body["platformSpec"] = documents[1]
    described = documents[0]["pipelineInfo"].get("description")
    shown = {"displayName": package.name, **({"description": described} if described else {})}
    return yaml.safe_dump_all(
        [
            {"apiVersion": _API, "kind": "Pipeline", "metadata": _metadata(package.name, namespace), "spec": shown},
            {"apiVersion": _API, "kind": "PipelineVersion", "metadata": _metadata(version, namespace), "spec": body},
        ],
        sort_keys=True,
        allow_unicode=True,
        width=120,
    )


def _metadata(name: str, namespace: str) -> dict[str, Any]:
    return {"name": name, "namespace": namespace, "labels": dict(_LABELS)}
