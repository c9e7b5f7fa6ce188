"""A compiled pipeline as Kubernetes objects."""

from __future__ import annotations

from typing import Any, Final

import pytest
import yaml
from deployable import compiled
from jsonschema import Draft202012Validator

from tidemill_pipelines.targets.compilation import Package
from tidemill_pipelines.targets.kubernetes.manifests import manifests

_TEXT: Final = {"type": "string"}
_TAGS: Final = {"type": "object", "additionalProperties": _TEXT}
_SPECS: Final[dict[str, dict[str, Any]]] = {
    "Pipeline": {"properties": {"description": _TEXT, "displayName": _TEXT, "tags": _TAGS}},
    "PipelineVersion": {
        "required": ["pipelineSpec"],
        "properties": {
            **dict.fromkeys(("codeSourceURL", "description", "displayName", "pipelineName"), _TEXT),
            **{name: {"type": "object"} for name in ("pipelineSpec", "platformSpec")},
            "pipelineSpecURI": _TEXT,
            "tags": _TAGS,
            "versionName": {"type": "string", "maxLength": 253, "pattern": r"^[a-z0-9]([a-z0-9\.\-]*[a-z0-9])?$"},
        },
    },
}
"""The fields of the CRDs of pipelines.kubeflow.org/v2beta1 in KFP 2.17; others would be pruned."""


def test_they_have_the_fields_of_the_kinds_and_both_specs(package: Package) -> None:
    pipeline, version = yaml.safe_load_all(manifests(package, "tidemill"))
    for value in (pipeline, version):
        assert value["apiVersion"] == "pipelines.kubeflow.org/v2beta1"
        assert value["metadata"]["namespace"] == "tidemill"
        Draft202012Validator({**_SPECS[value["kind"]], "additionalProperties": False}).validate(value["spec"])
    assert version["spec"]["pipelineName"] == pipeline["metadata"]["name"] == package.name
    assert [version["spec"]["pipelineSpec"], version["spec"]["platformSpec"]] == package.documents
    assert version["metadata"]["name"] == f"{package.name}-{package.digest[:16]}"


def test_a_pipeline_without_a_platform_spec_has_none(package: Package) -> None:
    plain = Package(yaml.safe_dump(package.spec))
    _, version = yaml.safe_load_all(manifests(plain, "tidemill"))
    assert "platformSpec" not in version["spec"]


def test_another_content_is_another_version_of_the_same_pipeline(package: Package) -> None:
    pairs = [list(yaml.safe_load_all(manifests(p, "tidemill"))) for p in (package, compiled(greeting="hi"))]
    assert pairs[0][0] == pairs[1][0]
    assert pairs[0][1]["metadata"]["name"] != pairs[1][1]["metadata"]["name"]


def test_the_misspelt_would_be_found(package: Package) -> None:
    _, version = yaml.safe_load_all(manifests(package, "tidemill"))
    version["spec"]["pipelinespec"] = version["spec"].pop("pipelineSpec")
    validator = Draft202012Validator({**_SPECS["PipelineVersion"], "additionalProperties": False})
    with pytest.raises(Exception, match="pipelinespec"):
        validator.validate(version["spec"])
