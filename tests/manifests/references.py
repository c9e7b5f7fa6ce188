"""What one object says of another."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from schemas import fields

Documents = list[dict[str, Any]]
# What others make. Each is named in the README's table of what must be there.
EXTERNAL = {
    ("Secret", "tidemill-gateway-tls"),
    ("Secret", "mlpipeline-minio-artifact"),
    ("ConfigMap", "kfp-launcher"),
    ("ConfigMap", "lending-problem"),
    ("GatewayClass", "envoy"),
    ("StorageClass", "standard-rwx"),
    ("StorageClass", "enterprise-multishare-rwx"),
}


def references(document: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yields the kind and name of whatever an object refers to."""
    spec, kind = document.get("spec", {}), document["kind"]
    for path, value in fields(document):
        match path[-1]:
            case "serviceAccountName":
                yield "ServiceAccount", value
            case "claimName":
                yield "PersistentVolumeClaim", value
            case "configMap" | "configMapRef" | "configMapKeyRef":
                yield "ConfigMap", value["name"]
            case "secretRef" | "secretKeyRef":
                yield "Secret", value["name"]
            case "secretName":
                yield "Secret", value
            case "storageClassName":
                yield "StorageClass", value
            case "storageUri":
                yield "PersistentVolumeClaim", re.fullmatch(r"pvc://([\w-]+)/.+", value)[1]
            case "kueue.x-k8s.io/queue-name":
                yield "LocalQueue", value
    match kind:
        case "RoleBinding":
            yield document["roleRef"]["kind"], document["roleRef"]["name"]
            yield from ((s["kind"], s["name"]) for s in document["subjects"])
        case "Role":
            for rule in document["rules"]:
                kinds = {"configmaps": "ConfigMap", "secrets": "Secret"}
                yield from ((kinds[rule["resources"][0]], name) for name in rule.get("resourceNames", ()))
        case "LocalQueue":
            yield "ClusterQueue", spec["clusterQueue"]
        case "ClusterQueue":
            yield from (("ResourceFlavor", f["name"]) for g in spec["resourceGroups"] for f in g["flavors"])
        case "TrainJob":
            yield spec["runtimeRef"]["kind"], spec["runtimeRef"]["name"]
        case "InferenceService":
            yield "ServingRuntime", spec["predictor"]["model"]["runtime"]
        case "HTTPRoute":
            yield from (("Gateway", parent["name"]) for parent in spec["parentRefs"])
            yield from (("Service", backend["name"]) for rule in spec["rules"] for backend in rule["backendRefs"])
        case "HorizontalPodAutoscaler":
            yield spec["scaleTargetRef"]["kind"], spec["scaleTargetRef"]["name"]
        case "Gateway":
            yield "GatewayClass", spec["gatewayClassName"]
            for listener in spec["listeners"]:
                yield from (("Secret", ref["name"]) for ref in listener.get("tls", {}).get("certificateRefs", ()))


def there(documents: Documents) -> set[tuple[str, str]]:
    """Returns the kind and name of all that is rendered, and of what KServe makes of InferenceServices."""
    own = {(d["kind"], d["metadata"]["name"]) for d in documents}
    predictors = [f"{name}-predictor" for kind, name in own if kind == "InferenceService"]
    return own | {(kind, name) for name in predictors for kind in ("Service", "Deployment")}


def unresolved(documents: Documents) -> set[tuple[str, str]]:
    return {ref for document in documents for ref in references(document)} - there(documents)
