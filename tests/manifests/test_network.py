"""Who reaches whom: what is needed, and nothing else."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from flows import Network, Peer
from tools import ROOT

HTTP = {"http": 8080}
OVERLAYS = ("overlays/dev", "overlays/prod", "overlays/gpu", "overlays/tpu")
KUBERNETES = {"overlays/dev": "172.16.0.17"}
Documents = list[dict[str, Any]]


def ends(namespace: str, kubernetes: str) -> dict[str, Peer]:
    """Returns the peers that there are, under the labels that their makers give them."""
    return {
        "pipeline": Peer(namespace, {"workflows.argoproj.io/workflow": "lending-abc"}),
        "predictor": Peer(namespace, {"serving.kserve.io/inferenceservice": "lending-v1"}, ports=HTTP),
        "node": Peer(namespace, {"jobset.sigs.k8s.io/jobset-name": "all-reduce"}),
        "submitter": Peer(namespace, {"app.kubernetes.io/component": "submitter"}),
        "stranger": Peer(namespace, {"app": "somebody"}),
        "dns": Peer("kube-system", {"k8s-app": "kube-dns"}),
        "kfp": Peer("kubeflow", {"app": "ml-pipeline"}),
        "lineage": Peer("kubeflow", {"component": "metadata-grpc-server"}),
        "store": Peer("kubeflow", {"app": "seaweedfs"}),
        "database": Peer("kubeflow", {"app": "mysql"}),
        "gateway": Peer("envoy-gateway-system", {"gateway.envoyproxy.io/owning-gateway-name": "tidemill"}),
        "another gateway": Peer("envoy-gateway-system", {"gateway.envoyproxy.io/owning-gateway-name": "others"}),
        "prometheus": Peer("monitoring", {"app.kubernetes.io/name": "prometheus"}),
        "another namespace": Peer("others", {"workflows.argoproj.io/workflow": "lending-abc"}),
        "kubernetes": Peer(address=kubernetes),
        "cloud storage": Peer(address="199.36.153.9"),
        "metadata server": Peer(address="169.254.169.252"),
        "metadata server of Dataplane V2": Peer(address="169.254.169.254"),
        "internet": Peer(address="203.0.113.7"),
        "neighbour": Peer(address="10.1.2.3"),
    }


# All that is allowed: who, whom, on which ports of the pod behind the service.
ALLOWED = {
    **{(who, "dns"): {53} for who in ("pipeline", "predictor", "node", "submitter", "stranger")},
    ("pipeline", "kfp"): {8887, 8888},
    ("pipeline", "lineage"): {8080},
    ("pipeline", "store"): {8333},
    ("pipeline", "kubernetes"): {443, 6443},
    ("pipeline", "predictor"): {8080},
    ("submitter", "kfp"): {8888},
    ("gateway", "predictor"): {8080},
    ("prometheus", "predictor"): {8080},
    ("node", "node"): {29500},
    **{(who, "cloud storage"): {443} for who in ("pipeline", "node", "submitter")},
    **{(who, "metadata server of Dataplane V2"): {80} for who in ("pipeline", "node", "submitter")},
    **{(who, "metadata server"): {988} for who in ("pipeline", "node", "submitter")},
}
PORTS = (22, 53, 80, 443, 988, 3306, 6443, 8080, 8333, 8887, 8888, 29500)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_what_is_needed_is_allowed_and_nothing_else(overlay: str, rendered: dict[str, Documents]) -> None:
    network = Network(rendered[overlay])
    peers = ends(network.namespace, KUBERNETES.get(overlay, "172.16.0.2"))
    for source_name, source in peers.items():
        for target_name, target in peers.items():
            if network.namespace not in (source.namespace, target.namespace):
                continue
            open_ports = {port for port in PORTS if network.allows(source, target, port)}
            assert open_ports == ALLOWED.get((source_name, target_name), set()), (source_name, target_name)


def test_names_are_looked_up_by_udp_too(rendered: dict[str, Documents]) -> None:
    network = Network(rendered["overlays/prod"])
    peers = ends("tidemill", "172.16.0.2")
    assert network.allows(peers["predictor"], peers["dns"], 53, "UDP")
    assert not network.allows(peers["predictor"], peers["internet"], 53, "UDP")


def test_without_an_overlay_object_storage_is_public_and_kubernetes_out_of_reach(kustomize: Any) -> None:
    documents = kustomize(ROOT / "manifests" / "base")
    for document in documents:
        document["metadata"].setdefault("namespace", "tidemill")
    network = Network(documents)
    peers = ends("tidemill", "10.0.0.1")
    assert network.allows(peers["pipeline"], peers["internet"], 443)
    assert not network.allows(peers["pipeline"], peers["internet"], 80)
    assert not network.allows(peers["pipeline"], peers["neighbour"], 443)
    assert not network.allows(peers["pipeline"], peers["kubernetes"], 443)
    assert not network.allows(peers["predictor"], peers["internet"], 443)


def test_every_policy_is_needed(rendered: dict[str, Documents]) -> None:
    """Without any one of them something that is needed fails, or something else is let through."""
    documents = rendered["overlays/prod"]
    peers = ends("tidemill", "172.16.0.2")
    policies = [d for d in documents if d["kind"] == "NetworkPolicy"]
    for policy in policies:
        network = Network([copy.deepcopy(d) for d in policies if d is not policy])
        seen = {
            (one, other): {port for port in PORTS if network.allows(peers[one], peers[other], port)}
            for one in peers
            for other in peers
            if "tidemill" in (peers[one].namespace, peers[other].namespace)
        }
        assert {ends: ports for ends, ports in seen.items() if ports} != ALLOWED, policy["metadata"]["name"]
