"""Every rendered object has the form that its kind's schema says, and the validator can say no."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from schemas import Invalid, Schemas, fields, strict

MANIFESTS = Path(__file__).parents[2] / "manifests"
# What each kind cannot be without, by the schema that the API server uses.
REQUIRED = {
    "CronJob": ("spec", "schedule"),
    "Gateway": ("spec", "gatewayClassName"),
    "HTTPRoute": ("spec", "parentRefs", 0, "name"),
    "HorizontalPodAutoscaler": ("spec", "maxReplicas"),
    "InferenceService": ("spec", "predictor"),
    "Job": ("spec", "template"),
    "JobSet": ("spec", "replicatedJobs", 0, "name"),
    "ClusterQueue": ("spec", "resourceGroups", 0, "flavors", 0, "name"),
    "NetworkPolicy": ("spec", "podSelector"),
    "PrometheusRule": ("spec", "groups", 0, "name"),
    "Role": ("rules", 0, "verbs"),
    "RoleBinding": ("roleRef",),
    "ServiceMonitor": ("spec", "selector"),
    "ServingRuntime": ("spec", "containers"),
    "TrainingRuntime": (
        *("spec", "template", "spec", "replicatedJobs", 0, "template", "spec", "template", "spec", "containers"),
        *(0, "name"),
    ),
    "TrainJob": ("spec", "runtimeRef", "name"),
    "LimitRange": ("spec", "limits", 0, "type"),
}

OWN_NAMESPACES = {"overlays/dev": "tidemill-dev", "store/owner": "tidemill-store"}


def all_documents(rendered: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    return [document for documents in rendered.values() for document in documents]


def one_of_each(rendered: dict[str, list[dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    return {document["kind"]: document for document in all_documents(rendered)}


def jobset(runtime: dict[str, Any]) -> dict[str, Any]:
    """Returns what Trainer makes of a TrainingRuntime: its template is a JobSet."""
    metadata = {"name": "all-reduce", "namespace": runtime["metadata"].get("namespace", "tidemill")}
    return {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": metadata,
        "spec": copy.deepcopy(runtime["spec"]["template"]["spec"]),
    }


def at(document: Any, path: tuple[str | int, ...]) -> Any:
    for step in path:
        document = document[step]
    return document


def refused(schemas: Schemas, document: Any) -> bool:
    try:
        schemas.validate(document)
    except Invalid:
        return True
    return False


def test_every_object_is_valid(rendered: dict[str, list[dict[str, Any]]], schemas: Schemas) -> None:
    for name, documents in rendered.items():
        assert documents, name
        for document in documents:
            schemas.validate(document)


def test_what_trainer_makes_of_a_runtime_is_a_jobset(rendered: dict, schemas: Schemas) -> None:
    runtimes = [d for d in all_documents(rendered) if d["kind"] == "TrainingRuntime"]
    assert {d["metadata"]["name"] for d in runtimes} == {
        f"tidemill-tensorflow{variant}" for variant in ("", "-gpu", "-tpu")
    }
    for runtime in runtimes:
        schemas.validate(jobset(runtime))


def test_names_are_unique_and_only_what_has_a_namespace_is_given_one(rendered: dict, schemas: Schemas) -> None:
    for name, documents in rendered.items():
        identities = [(d["kind"], d["metadata"].get("namespace"), d["metadata"]["name"]) for d in documents]
        assert len(set(identities)) == len(identities), name
        for document in documents:
            scope = schemas.scopes.get((document["apiVersion"], document["kind"]), "Namespaced")
            has_none = scope == "Cluster" or document["kind"] == "Namespace"
            expected = None if has_none else OWN_NAMESPACES.get(name, "tidemill")
            assert document["metadata"].get("namespace") == expected, (name, document["kind"])


def test_every_kind_refuses_an_unknown_field_wherever_it_has_fields(rendered: dict, schemas: Schemas) -> None:
    kinds = {**one_of_each(rendered), "JobSet": jobset(one_of_each(rendered)["TrainingRuntime"])}
    for kind, document in kinds.items():
        objects = [path for path, value in fields(document) if isinstance(value, dict)]
        for path in objects:
            mutated = copy.deepcopy(document)
            at(mutated, path)["noSuchField"] = {"nor": "this"}
            if path[-1] in OPEN_MAPS or path[-2:-1] == ("limits",):
                at(mutated, path)["noSuchField"] = ["a list is nobody's value"]
            assert refused(schemas, mutated), f"{kind}: accepted an unknown field at {path}"
        mutated = {**copy.deepcopy(document), "noSuchField": 1}
        assert refused(schemas, mutated), kind


# Maps from a name to a string or an amount: any name goes, but not any value.
OPEN_MAPS = {
    *("labels", "annotations", "matchLabels", "nodeSelector", "nodeLabels", "data", "hard", "requests", "limits"),
    *("default", "defaultRequest", "max"),
}


def test_every_kind_refuses_a_wrong_type(rendered: dict, schemas: Schemas) -> None:
    """A list where a word, a number or a flag is expected: no field takes both."""
    for kind, document in one_of_each(rendered).items():
        leaves = [path for path, value in fields(document) if not isinstance(value, (dict, list))]
        for path in leaves:
            if path[:1] in (("apiVersion",), ("kind",)):
                continue
            mutated = copy.deepcopy(document)
            at(mutated, path[:-1])[path[-1]] = [["wrong"]]
            assert refused(schemas, mutated), f"{kind}: accepted a list at {path}"


def test_every_kind_refuses_a_missing_field(rendered: dict, schemas: Schemas) -> None:
    kinds = {**one_of_each(rendered), "JobSet": jobset(one_of_each(rendered)["TrainingRuntime"])}
    for kind, document in kinds.items():
        path = REQUIRED.get(kind)
        if path is None:  # the schema demands nothing below metadata
            assert kind in {
                *("ConfigMap", "LocalQueue", "Namespace", "PersistentVolumeClaim", "PodDisruptionBudget"),
                *("ResourceFlavor", "ResourceQuota", "ServiceAccount"),
            }, kind
            continue
        mutated = copy.deepcopy(document)
        del at(mutated, path[:-1])[path[-1]]
        assert refused(schemas, mutated), f"{kind}: did without {path}"


def test_a_kind_that_nobody_knows_is_refused(schemas: Schemas) -> None:
    with pytest.raises(Invalid, match="neither built in nor pinned"):
        schemas.validate({"apiVersion": "example.com/v1", "kind": "Unknown", "metadata": {"name": "a"}})


def test_strict_keeps_open_what_the_crd_keeps_open() -> None:
    schema = strict(
        yaml.safe_load(
            """
            type: object
            properties:
              open: {type: object, x-kubernetes-preserve-unknown-fields: true}
              template: {type: object, x-kubernetes-embedded-resource: true, properties: {spec: {type: object}}}
              port: {x-kubernetes-int-or-string: true, anyOf: [{type: integer}, {type: string}]}
              labels: {type: object, additionalProperties: {type: string}}
              none: {type: object, nullable: true}
            """
        ),
        root=True,
    )
    from jsonschema import Draft202012Validator

    validator = Draft202012Validator(schema)
    assert validator.is_valid({"open": {"anything": {"goes": 1}}, "port": "http", "labels": {"a": "b"}, "none": None})
    assert validator.is_valid({"template": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": {}}})
    for wrong in (
        {"unknown": 1},
        {"template": {"unknown": 1}},
        {"template": {"spec": {"unknown": 1}}},
        {"port": 1.5},
        {"labels": {"a": 1}},
        {"none": {"unknown": 1}},
    ):
        assert not validator.is_valid(wrong), wrong
