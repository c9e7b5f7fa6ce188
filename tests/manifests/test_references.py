"""What one object says of another is true: names, ports and labels resolve, or the README says whose they are."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
from flows import selects
from pods import pods
from references import EXTERNAL, there, unresolved
from schemas import fields
from tools import ROOT

Documents = list[dict[str, Any]]
OVERLAYS = ("overlays/dev", "overlays/prod", "overlays/gpu", "overlays/tpu")
EXAMPLES = ("examples/serving", "examples/training", "examples/schedule", "store")
README = (ROOT / "manifests" / "README.md").read_text()
# The labels of pods and services that others make: by Argo, KServe, JobSet.
EXTERNAL_LABELS = (
    {"workflows.argoproj.io/workflow": "lending-abc"},
    {"serving.kserve.io/inferenceservice": "lending-v1", "component": "predictor"},
    {"jobset.sigs.k8s.io/jobset-name": "all-reduce"},
)
# Namespaces of others, and labels of their pods.
EXTERNAL_PEERS = {
    "kube-system": ({"k8s-app": "kube-dns"},),
    "kubeflow": ({"app": "ml-pipeline"}, {"component": "metadata-grpc-server"}, {"app": "seaweedfs"}),
    "envoy-gateway-system": ({"gateway.envoyproxy.io/owning-gateway-name": "tidemill"},),
    "monitoring": ({"app.kubernetes.io/name": "prometheus"},),
}


def together(rendered: dict[str, Documents], overlay: str) -> Documents:
    """Returns what stands in a cluster once an overlay, the cluster's part and the examples are applied."""
    examples = [d for name in EXAMPLES if overlay == "overlays/prod" for d in rendered[name]]
    return [*rendered[overlay], *rendered["cluster"], *examples]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_name_resolves(overlay: str, rendered: dict[str, Documents]) -> None:
    assert unresolved(together(rendered, overlay)) <= EXTERNAL


def test_what_others_make_is_used_and_in_the_readme(rendered: dict[str, Documents]) -> None:
    used = {ref for overlay in OVERLAYS for ref in unresolved(together(rendered, overlay))}
    assert used == EXTERNAL
    assert not [name for _, name in EXTERNAL if f"`{name}`" not in README]
    labels = [
        *(key for pod in EXTERNAL_LABELS for key in pod if key != "component"),
        *(f"{key}: {value}" for peers in EXTERNAL_PEERS.values() for pod in peers for key, value in pod.items()),
        *EXTERNAL_PEERS,
    ]
    assert not [label for label in labels if f"`{label}`" not in README]


@pytest.mark.parametrize("kind", ["ServiceAccount", "ConfigMap", "PersistentVolumeClaim", "LocalQueue", "Gateway"])
def test_a_name_that_leads_nowhere_is_found(kind: str, rendered: dict[str, Documents]) -> None:
    documents = [d for d in together(rendered, "overlays/prod") if d["kind"] != kind]
    assert {found for found, _ in unresolved(documents) - EXTERNAL} == {kind}


def selectors(document: dict[str, Any]) -> Iterator[tuple[str | None, dict[str, Any]]]:
    """Yields each selector of pods or services with the namespace it looks in, None being its own."""
    spec = document.get("spec", {})
    match document["kind"]:
        case "NetworkPolicy":
            yield None, spec["podSelector"]
            for side, key in (("ingress", "from"), ("egress", "to")):
                for rule in spec.get(side, ()):
                    for peer in rule[key]:
                        where = peer.get("namespaceSelector", {}).get("matchLabels", {})
                        if "podSelector" in peer:
                            yield where.get("kubernetes.io/metadata.name"), peer["podSelector"]
                        else:
                            assert "ipBlock" in peer, peer
        case "PodDisruptionBudget" | "ServiceMonitor":
            yield None, spec["selector"]
        case "InferenceService":
            yield from ((None, c["labelSelector"]) for c in spec["predictor"]["topologySpreadConstraints"])


def selecting_nothing(documents: Documents) -> list[tuple[str, Any]]:
    own = [*EXTERNAL_LABELS, *(dict(pod.labels) for pod in pods(documents, {**_runtimes(documents)}) if pod.labels)]
    return [
        (document["metadata"]["name"], selector)
        for document in documents
        for namespace, selector in selectors(document)
        if not any(selects(selector, labels) for labels in (own if namespace is None else EXTERNAL_PEERS[namespace]))
    ]


def _runtimes(documents: Documents) -> dict[str, Any]:
    return {d["metadata"]["name"]: d for d in documents if d["kind"] == "ServingRuntime"}


def test_every_selector_selects_something(rendered: dict[str, Documents]) -> None:
    documents = together(rendered, "overlays/prod")
    assert not selecting_nothing(documents)
    mistyped = copy.deepcopy(next(d for d in documents if d["kind"] == "PodDisruptionBudget"))
    mistyped["spec"]["selector"]["matchExpressions"][0]["key"] = "serving.kserve.io/inferenceservices"
    assert selecting_nothing([mistyped, *_runtimes(documents).values()])


def test_the_queue_is_open_to_the_namespaces(rendered: dict[str, Documents]) -> None:
    (queue,) = (d for d in rendered["cluster"] if d["kind"] == "ClusterQueue")
    for overlay in OVERLAYS:
        (namespace,) = (d for d in rendered[overlay] if d["kind"] == "Namespace")
        assert selects(queue["spec"]["namespaceSelector"], namespace["metadata"]["labels"])


def test_every_port_is_one_of_the_server(rendered: dict[str, Documents]) -> None:
    documents = together(rendered, "overlays/prod")
    (runtime,) = _runtimes(documents).values()
    (container,) = runtime["spec"]["containers"]
    names = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert f"--port={names['http']}" in container["args"]
    probes = {container[f"{probe}Probe"]["httpGet"]["port"] for probe in ("startup", "readiness", "liveness")}
    (monitor,) = (d for d in documents if d["kind"] == "ServiceMonitor")
    scraped = {endpoint["port"] for endpoint in monitor["spec"]["endpoints"]}
    policies = {v for d in documents if d["kind"] == "NetworkPolicy" for p, v in fields(d) if p[-1] == "port"}
    assert probes | scraped | {port for port in policies if isinstance(port, str)} <= set(names)
    (route,) = (d for d in documents if d["kind"] == "HTTPRoute")
    # KServe's service listens on 80 and leads to the first port of the container.
    assert {backend["port"] for rule in route["spec"]["rules"] for backend in rule["backendRefs"]} == {80}


def test_the_traffic_of_the_example_adds_up(rendered: dict[str, Documents]) -> None:
    (route,) = (d for d in rendered["examples/serving"] if d["kind"] == "HTTPRoute")
    for rule in route["spec"]["rules"]:
        assert sum(backend["weight"] for backend in rule["backendRefs"]) == 100


def test_mounts_have_volumes_and_volumes_are_mounted(rendered: dict[str, Documents]) -> None:
    for documents in rendered.values():
        for pod in pods(documents):
            mounted = {mount["name"] for container in pod.containers for mount in container.get("volumeMounts", ())}
            assert mounted == {volume["name"] for volume in pod.spec.get("volumes", ())}, pod.where


def test_the_names_are_those_that_the_targets_use(rendered: dict[str, Documents]) -> None:
    """A target's defaults and the manifests speak of the same things."""
    from tidemill_pipelines.targets.config import KubernetesDeployment, KubernetesSettings

    names = there(rendered["overlays/prod"])
    settings, deployment = KubernetesSettings(), KubernetesDeployment()
    assert {
        ("Namespace", settings.namespace),
        ("PersistentVolumeClaim", settings.store_claim),
        ("ServingRuntime", deployment.runtime),
        ("Gateway", deployment.gateway),
        ("ServiceAccount", deployment.service_account),
    } <= names
