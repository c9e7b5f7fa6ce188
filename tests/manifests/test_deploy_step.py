"""What the deploy step makes stands on these manifests: it is valid, restricted, and every name in it resolves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from pods import pods, violations
from references import EXTERNAL, unresolved
from schemas import Schemas

from tidemill.kserve.cluster import Kind
from tidemill.kserve.routes import Route, apply_route
from tidemill.kserve.services import Predictor, manifest
from tidemill.kserve.settings import KserveSettings
from tidemill_pipelines.targets.config import TargetConfig
from tidemill_pipelines.targets.kubernetes.release import release_settings

Documents = list[dict[str, Any]]


class Recorder:
    """Takes down what is applied instead of sending it."""

    def __init__(self) -> None:
        self.applied: Documents = []

    def apply(self, kind: Kind, value: Mapping[str, Any]) -> None:
        namespaced = {**value, "metadata": {**value["metadata"], "namespace": "tidemill"}}
        self.applied.append(namespaced)


@pytest.fixture(scope="module", params=["tag", "digest"])
def made(request: pytest.FixtureRequest) -> Documents:
    """A release of version 2 beside version 1, with a target's defaults."""
    image = "registry.example.com/serving" + (":0.1.0" if request.param == "tag" else f"@sha256:{'ab' * 32}")
    settings = KserveSettings(**release_settings(TargetConfig(kind="kubernetes"), image))
    recorder = Recorder()
    for version in (1, 2):
        recorder.apply(Kind("", "", "", ""), manifest(Predictor("lending", version), "ab" * 32, settings))
    apply_route(recorder, Route("lending", "lending", {1: 90, 2: 10}, champion=1), settings)  # type: ignore[arg-type]
    return recorder.applied


def test_it_is_valid(made: Documents, schemas: Schemas) -> None:
    assert [document["kind"] for document in made] == ["InferenceService", "InferenceService", "HTTPRoute"]
    for document in made:
        schemas.validate(document)


def test_its_pods_are_restricted(made: Documents, rendered: dict[str, Documents]) -> None:
    runtimes = {d["metadata"]["name"]: d for d in rendered["overlays/prod"] if d["kind"] == "ServingRuntime"}
    for pod in pods(made, runtimes):
        assert violations(pod) == []


def test_every_name_in_it_resolves(made: Documents, rendered: dict[str, Documents]) -> None:
    assert unresolved([*made, *rendered["overlays/prod"], *rendered["cluster"]]) <= EXTERNAL


def test_the_account_of_the_step_may_make_it(made: Documents, rendered: dict[str, Documents]) -> None:
    (role,) = (
        d for d in rendered["overlays/prod"] if d["kind"] == "Role" and d["metadata"]["name"] == "tidemill-pipeline"
    )
    plurals = {"InferenceService": "inferenceservices", "HTTPRoute": "httproutes"}
    for document in made:
        group = document["apiVersion"].partition("/")[0]
        (verbs,) = (
            set(rule["verbs"])
            for rule in role["rules"]
            if rule["apiGroups"] == [group] and rule["resources"] == [plurals[document["kind"]]]
        )
        assert verbs >= {"get", "list", "create", "patch", "delete"}, "server-side apply needs create and patch"


def test_the_example_is_what_the_step_makes(made: Documents, rendered: dict[str, Documents]) -> None:
    """But for sizes and scaling, examples/serving shows the same."""
    examples = {
        d["metadata"]["name"]: d for d in rendered["examples/serving"] if d["kind"] != "HorizontalPodAutoscaler"
    }
    for document in made:
        example = examples[document["metadata"]["name"]]
        assert example["kind"] == document["kind"]
        if document["kind"] == "HTTPRoute":
            assert example["spec"] == document["spec"]
            continue
        own, shown = document["spec"]["predictor"], example["spec"]["predictor"]
        for key in set(own) - {"minReplicas", "maxReplicas", "scaleMetric", "scaleTarget", "model"}:
            assert own[key] == shown[key], key
        assert shown["model"]["storageUri"] == own["model"]["storageUri"]
        assert shown["model"]["runtime"] == own["model"]["runtime"]
