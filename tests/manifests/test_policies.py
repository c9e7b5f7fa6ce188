"""Rules that every rendered object keeps, each with the proof that it can be broken."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from typing import Any

import pytest
from pods import Pod, pods, violations
from schemas import fields
from tools import ROOT

from tidemill import __version__

Documents = list[dict[str, Any]]
OVERLAYS = ("overlays/dev", "overlays/prod", "overlays/gpu", "overlays/tpu")
VERBS = {"get", "list", "create", "patch", "delete"}
# KFP's own verbs, on resources that exist for authorisation only.
KFP_VERBS = VERBS | {"terminate", "enable", "disable"}


def everything(rendered: dict[str, Documents]) -> Documents:
    return [document for documents in rendered.values() for document in documents]


def of_kind(documents: Documents, kind: str) -> dict[str, dict[str, Any]]:
    return {d["metadata"]["name"]: d for d in documents if d["kind"] == kind}


@pytest.fixture(scope="module")
def all_pods(rendered: dict[str, Documents]) -> list[Pod]:
    runtimes = of_kind(rendered["overlays/prod"], "ServingRuntime")
    restricted = [documents for name, documents in rendered.items() if name != "store/owner"]
    return [pod for documents in restricted for pod in pods(documents, runtimes)]


def test_every_pod_is_restricted(all_pods: list[Pod]) -> None:
    assert {pod.where.split()[0] for pod in all_pods} == {
        *("ServingRuntime", "InferenceService", "TrainingRuntime", "CronJob", "Job"),
    }
    assert {pod.where: found for pod in all_pods if (found := violations(pod))} == {}


def test_who_gives_the_store_away_is_root_elsewhere_and_may_do_that_alone(rendered: dict[str, Documents]) -> None:
    (pod,) = pods(rendered["store/owner"])
    assert violations(pod) == [
        "volume store: nfs",
        *(f"container chown: {name}" for name in ("runAsNonRoot", "runAsUser", "capabilities")),
    ]
    assert pod.containers[0]["securityContext"]["capabilities"] == {"drop": ["ALL"], "add": ["CHOWN"]}
    assert pod.spec["automountServiceAccountToken"] is False
    (namespace,) = of_kind(rendered["store/owner"], "Namespace").values()
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "baseline"
    ours = {name for overlay in OVERLAYS for name in of_kind(rendered[overlay], "Namespace")}
    assert {d["metadata"].get("namespace", "tidemill-store") for d in rendered["store/owner"]}.isdisjoint(ours)


def test_the_store_is_tried_by_who_will_write_to_it(rendered: dict[str, Documents]) -> None:
    """A pod as KFP makes them but for the fsGroup, which has the kubelet give the volume to the group of all."""
    from tidemill_pipelines.targets.config import KubernetesSettings

    (pod,) = pods(rendered["store"])
    assert pod.spec["securityContext"].items() >= dict.fromkeys(("runAsUser", "runAsGroup", "fsGroup"), 65532).items()
    (volume,) = pod.spec["volumes"]
    assert volume["persistentVolumeClaim"]["claimName"] == KubernetesSettings().store_claim
    assert not volume["persistentVolumeClaim"].get("readOnly")
    (owner,) = pods(rendered["store/owner"])
    assert owner.containers[0]["command"] == ["chown", "65532:65532", "/tidemill"]


def test_no_task_is_evicted_for_a_larger_table_and_the_namespace_is_bounded(rendered: dict[str, Documents]) -> None:
    """/tmp and what KFP's launcher downloads are emptyDirs: ephemeral storage, which tasks of KFP set no limit for."""
    for overlay in OVERLAYS:
        (limits,) = of_kind(rendered[overlay], "LimitRange").values()
        for limit in limits["spec"]["limits"]:
            assert "ephemeral-storage" not in {**limit.get("default", {}), **limit.get("max", {})}, overlay
        (quota,) = of_kind(rendered[overlay], "ResourceQuota").values()
        assert "limits.ephemeral-storage" not in quota["spec"]["hard"], "it would refuse who names no limit"
        assert quota["spec"]["hard"]["requests.ephemeral-storage"] == "1Ti"
        (container,) = (limit for limit in limits["spec"]["limits"] if limit["type"] == "Container")
        assert container["defaultRequest"]["ephemeral-storage"] == "1Gi"


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        (("hostNetwork",), True, "hostNetwork is set"),
        (("volumes",), [{"name": "node", "hostPath": {"path": "/"}}], "volume node: hostPath"),
        (("containers", 0, "securityContext", "runAsNonRoot"), False, "runAsNonRoot"),
        (("containers", 0, "securityContext", "runAsUser"), 0, "runAsUser"),
        (("containers", 0, "securityContext", "seccompProfile"), {"type": "Unconfined"}, "seccompProfile"),
        (("containers", 0, "securityContext", "allowPrivilegeEscalation"), True, "allowPrivilegeEscalation"),
        (("containers", 0, "securityContext", "privileged"), True, "privileged"),
        (("containers", 0, "securityContext", "capabilities"), {"drop": ["ALL"], "add": ["NET_RAW"]}, "capabilities"),
        (("containers", 0, "securityContext", "readOnlyRootFilesystem"), False, "readOnlyRootFilesystem"),
        (("containers", 0, "ports"), [{"containerPort": 8080, "hostPort": 8080}], "hostPort"),
        (("containers", 0, "resources"), {"requests": {"cpu": 1, "memory": 1}}, "resources"),
    ],
)
def test_a_pod_that_is_not_restricted_is_found(
    path: tuple[Any, ...], value: Any, expected: str, all_pods: list[Pod]
) -> None:
    spec = copy.deepcopy(next(pod for pod in all_pods if pod.where.startswith("ServingRuntime")).spec)
    place = spec
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    (found,) = violations(Pod("mutated", spec))
    assert found.endswith(expected)


def test_the_namespace_enforces_it(rendered: dict[str, Documents]) -> None:
    for overlay in OVERLAYS:
        (namespace,) = of_kind(rendered[overlay], "Namespace").values()
        for mode in ("enforce", "audit", "warn"):
            assert namespace["metadata"]["labels"][f"pod-security.kubernetes.io/{mode}"] == "restricted"


def image_faults(document: Any) -> Iterator[str]:
    for path, value in fields(document):
        if path[-1] == "image":
            pinned = re.fullmatch(r"registry\.example\.com/[\w./-]+(:[\w.-]+|@sha256:[0-9a-f]{64})", value)
            if pinned is None or value.endswith(":latest"):
                yield value


def test_images_come_from_the_overlays_registry_at_this_version(rendered: dict[str, Documents]) -> None:
    images = {v for d in everything(rendered) for path, v in fields(d) if path[-1] == "image"}
    assert len(images) >= 6
    assert not [fault for document in everything(rendered) for fault in image_faults(document)]
    assert {image.rpartition(":")[2] for image in images} == {__version__}
    for wrong in ("registry.example.com/a", "registry.example.com/a:latest", "tidemill/serving:0.1.0"):
        assert list(image_faults({"image": wrong})) == [wrong]


def secret_faults(document: dict[str, Any]) -> Iterator[str]:
    """Yields where a secret's value might stand: a Secret, or a literal under a name that means one."""
    if document["kind"] == "Secret":
        yield "a Secret"
    for path, value in fields(document):
        name = path[-1]
        if isinstance(value, str) and re.search(r"(?i)password|passwd|credential|api_?key|private_?key", str(name)):
            yield ".".join(map(str, path))
        if isinstance(value, str) and re.search(r"-----BEGIN|\beyJ[\w-]{20,}|\bAKIA[A-Z0-9]{16}|\bghp_\w{30}", value):
            yield ".".join(map(str, path))
        if (
            isinstance(value, dict)
            and value.keys() >= {"name", "value"}
            and re.search(r"(?i)token|secret|password|key$", str(value["name"]))
        ):
            yield ".".join(map(str, path))


def test_no_secret_stands_in_them(rendered: dict[str, Documents]) -> None:
    assert not [fault for document in everything(rendered) for fault in secret_faults(document)]
    assert list(secret_faults({"kind": "Secret"}))
    assert list(secret_faults({"kind": "Pod", "env": [{"name": "API_TOKEN", "value": "abc"}]}))
    assert list(secret_faults({"kind": "ConfigMap", "data": {"key": "-----BEGIN PRIVATE KEY-----"}}))
    assert list(secret_faults({"kind": "ConfigMap", "data": {"password": "x"}}))


def rbac_faults(document: dict[str, Any]) -> Iterator[str]:
    if document["kind"] in ("ClusterRole", "ClusterRoleBinding"):
        yield "rights in the whole cluster"
    if document["kind"] == "RoleBinding":
        if document["roleRef"]["kind"] != "Role":
            yield "rights that are written elsewhere"
        yield from (
            f"rights for {s['kind']} {s.get('namespace')}/{s['name']}"
            for s in document["subjects"]
            if s["kind"] != "ServiceAccount" or s.get("namespace") != document["metadata"]["namespace"]
        )
    if document["kind"] == "Role":
        for rule in document["rules"]:
            if any("*" in name for values in rule.values() for name in values):
                yield "a wildcard"
            if {"secrets", "configmaps"} & set(rule["resources"]) and not rule.get("resourceNames"):
                yield "all secrets or configmaps"
            if {"pods/exec", "roles", "rolebindings", "serviceaccounts/token"} & set(rule["resources"]):
                yield "a way to more rights"
            if set(rule["verbs"]) - (KFP_VERBS if rule["apiGroups"] == ["pipelines.kubeflow.org"] else VERBS):
                yield "a verb that nobody needs"


def test_rights_are_few_and_named(rendered: dict[str, Documents]) -> None:
    assert not [(d["metadata"]["name"], fault) for d in everything(rendered) for fault in rbac_faults(d)]
    for overlay in OVERLAYS:
        assert set(of_kind(rendered[overlay], "Role")) == {"tidemill-pipeline", "tidemill-submitter"}


@pytest.mark.parametrize(
    ("kind", "change", "expected"),
    [
        ("Role", lambda d: d["rules"][0].update(verbs=["*"]), "a wildcard"),
        ("Role", lambda d: d["rules"][0].update(resources=["*"]), "a wildcard"),
        ("Role", lambda d: d["rules"].append({"resources": ["secrets"], "verbs": ["get"]}), "all secrets"),
        ("Role", lambda d: d["rules"][0].update(resources=["pods/exec"]), "a way to more rights"),
        ("Role", lambda d: d["rules"][1].update(verbs=["deletecollection"]), "nobody needs"),
        ("Role", lambda d: d.update(kind="ClusterRole"), "whole cluster"),
        ("RoleBinding", lambda d: d["roleRef"].update(kind="ClusterRole"), "written elsewhere"),
        ("RoleBinding", lambda d: d["subjects"][0].update(namespace="others"), "rights for"),
        ("RoleBinding", lambda d: d["subjects"][0].update(kind="Group"), "rights for"),
    ],
)
def test_a_right_too_many_is_found(kind: str, change: Any, expected: str, rendered: dict[str, Documents]) -> None:
    document = copy.deepcopy(of_kind(rendered["overlays/prod"], kind)["tidemill-pipeline"])
    for rule in document.get("rules", ()):
        rule.setdefault("apiGroups", ["argoproj.io"])
    change(document)
    for rule in document.get("rules", ()):
        rule.setdefault("apiGroups", [""])
    assert any(expected in fault for fault in rbac_faults(document))


def test_the_driver_may_ask_when_a_run_was_due(rendered: dict[str, Documents]) -> None:
    """Refused, it warns in its own log and hands out the time of creation: `schedule.time` would be wrong unseen."""
    for overlay in OVERLAYS:
        rules = of_kind(rendered[overlay], "Role")["tidemill-pipeline"]["rules"]
        assert {"apiGroups": ["argoproj.io"], "resources": ["workflows"], "verbs": ["get"]} in rules, overlay


def test_who_asks_nothing_of_kubernetes_gets_no_token(rendered: dict[str, Documents], all_pods: list[Pod]) -> None:
    for overlay in OVERLAYS:
        accounts = of_kind(rendered[overlay], "ServiceAccount")
        bound = {s["name"] for b in of_kind(rendered[overlay], "RoleBinding").values() for s in b["subjects"]}
        assert {name for name in accounts if name not in bound} == {"tidemill-serving", "tidemill-training"}
        for name in set(accounts) - bound:
            assert accounts[name]["automountServiceAccountToken"] is False
    for pod in all_pods:
        if not pod.where.startswith("ServingRuntime"):  # which has no say in it
            assert pod.spec["automountServiceAccountToken"] is False, pod.where


def test_every_right_is_explained() -> None:
    """The table of permissions in the README names each rule of each Role."""
    import yaml

    text = (ROOT / "manifests" / "README.md").read_text()
    for path in (ROOT / "manifests" / "base" / "accounts").glob("*.yaml"):
        for document in yaml.safe_load_all(path.read_text()):
            if document["kind"] != "Role":
                continue
            for rule in document["rules"]:
                for resource in rule["resources"]:
                    row = f"| `{document['metadata']['name']}` | `{resource}` | {', '.join(rule['verbs'])} |"
                    assert row in text, row


def test_draining_fits_into_the_time_that_a_pod_is_given(rendered: dict[str, Documents]) -> None:
    (runtime,) = of_kind(rendered["overlays/prod"], "ServingRuntime").values()
    arguments = dict(a.removeprefix("--").split("=") for a in runtime["spec"]["containers"][0]["args"])
    assert float(arguments["drain-grace-s"]) + float(arguments["drain-timeout-s"]) < 30


def test_the_queue_knows_whatever_a_node_of_training_asks_for(rendered: dict[str, Documents]) -> None:
    """Kueue never admits a workload that asks for a resource which its queue doesn't cover."""
    (queue,) = of_kind(rendered["cluster"], "ClusterQueue").values()
    groups = queue["spec"]["resourceGroups"]
    covered = [resource for group in groups for resource in group["coveredResources"]]
    assert len(set(covered)) == len(covered)
    for group in groups:
        for flavor in group["flavors"]:
            assert [r["name"] for r in flavor["resources"]] == group["coveredResources"]
    for document in everything(rendered):
        for pod in pods([document]) if document["kind"] == "TrainingRuntime" else ():
            for container in pod.containers:
                assert set(container["resources"]["requests"]) <= set(covered)


def test_accelerators_are_refused_until_a_component_lets_them_in(rendered: dict[str, Documents]) -> None:
    asked = {"overlays/gpu": "nvidia.com/gpu", "overlays/tpu": "google.com/tpu"}
    for overlay in OVERLAYS:
        (quota,) = of_kind(rendered[overlay], "ResourceQuota").values()
        for accelerator in asked.values():
            room = int(quota["spec"]["hard"][f"requests.{accelerator}"])
            assert (room > 0) == (asked.get(overlay) == accelerator)


def test_accelerators_go_with_any_overlay_and_with_each_other(kustomize: Any, tmp_path_factory: Any) -> None:
    import shutil

    import yaml

    copied = tmp_path_factory.mktemp("manifests") / "manifests"
    shutil.copytree(ROOT / "manifests", copied)
    (copied / "overlays" / "both").mkdir()
    (copied / "overlays" / "both" / "kustomization.yaml").write_text(
        yaml.safe_dump(
            {
                "namespace": "tidemill-dev",
                "resources": ["../dev"],
                "components": ["../../components/gpu", "../../components/tpu"],
            }
        )
    )
    documents = kustomize(copied / "overlays" / "both")
    assert set(of_kind(documents, "TrainingRuntime")) == {f"tidemill-tensorflow{v}" for v in ("", "-gpu", "-tpu")}
    assert {d["metadata"].get("namespace", "tidemill-dev") for d in documents} == {"tidemill-dev"}
    (quota,) = of_kind(documents, "ResourceQuota").values()
    assert {quota["spec"]["hard"][f"requests.{name}"] for name in ("nvidia.com/gpu", "google.com/tpu")} == {"8"}
