"""Pipelines and versions in KFP: each compiled package is uploaded once, under a name that its content gives it."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tidemill_pipelines.targets.compilation import Package
from tidemill_pipelines.targets.kubernetes.client import Kfp
from tidemill_pipelines.targets.kubernetes.filters import equals
from tidemill_pipelines.targets.kubernetes.naming import version_name


@dataclass(frozen=True)
class Uploaded:
    """Where KFP has a package."""

    pipeline: str
    version: str


def upload(kfp: Kfp, package: Package, namespace: str | None) -> Uploaded:
    """Finds the version of a package, or uploads it with all its documents.

    Args:
        namespace: of the pipeline, where KFP has several users; else None.
    """
    pipeline = _pipeline(kfp, package.name, namespace)
    return Uploaded(pipeline, _version(kfp, pipeline, package))


def uncached(package: Package) -> Package:
    """Returns the package with every task's results made anew."""
    documents = package.documents
    spec = documents[0]
    for body in [spec["root"], *spec.get("components", {}).values()]:
        for task in body.get("dag", {}).get("tasks", {}).values():
            task.pop("cachingOptions", None)
    return Package(yaml.safe_dump_all(documents, sort_keys=True))


def spec_of(kfp: Kfp, run: Any) -> Mapping[str, Any] | None:
    """Returns the PipelineSpec that a run was made of, or None if it is gone."""
    if not _refers(run):
        return _pipeline_spec(run.pipeline_spec)
    version = version_of(kfp, run)
    return _pipeline_spec(version.pipeline_spec) if version is not None else None


def version_of(kfp: Kfp, run: Any) -> Any:
    """Returns the version of a pipeline that a run was made of, or None if there is none or it is gone."""
    if not _refers(run):
        return None
    reference = run.pipeline_version_reference
    version = kfp.call(
        f"show version {reference.pipeline_version_id}",
        kfp.pipelines.pipeline_service_get_pipeline_version,
        reference.pipeline_id,
        reference.pipeline_version_id,
        absent=False,
    )
    return version or None


def _refers(run: Any) -> bool:
    return run.pipeline_version_reference is not None and bool(run.pipeline_version_reference.pipeline_version_id)


def _pipeline_spec(value: Any) -> Mapping[str, Any] | None:
    """Returns the pipeline's spec; KFP puts it beside the platform's where there are two documents."""
    if not isinstance(value, Mapping):
        return None
    spec = value.get("pipeline_spec", value)
    return spec if isinstance(spec, Mapping) and "root" in spec else None


def _pipeline(kfp: Kfp, name: str, namespace: str | None) -> str:
    from kfp_server_api import V2beta1Pipeline

    def find() -> Any:
        named: dict[str, Any] = {"namespace": namespace} if namespace else {}
        service = kfp.pipelines.pipeline_service_get_pipeline_by_name
        return kfp.call(f"find pipeline {name}", service, name, absent=False, **named) or None

    found = find() or kfp.call(
        f"create pipeline {name}",
        kfp.pipelines.pipeline_service_create_pipeline,
        V2beta1Pipeline(name=name, display_name=name, namespace=namespace),
        lost=find,
        conflict=find,
    )
    return str(found.pipeline_id)


def _version(kfp: Kfp, pipeline: str, package: Package) -> str:
    name = version_name(package)

    def find() -> Any:
        service = kfp.pipelines.pipeline_service_list_pipeline_versions
        versions = kfp.pages(
            f"find version {name}", service, "pipeline_versions", pipeline_id=pipeline, filter=equals("name", name)
        )
        return next(versions, None)

    if (found := find()) is None:
        with tempfile.TemporaryDirectory() as directory:
            file = Path(directory) / f"{package.name}.yaml"
            file.write_text(package.text, encoding="utf-8")
            found = kfp.call(
                f"upload version {name} of pipeline {package.name}",
                kfp.uploads.upload_pipeline_version,
                str(file),
                name=name,
                display_name=f"{package.name} {name}",
                pipelineid=pipeline,
                lost=find,
                conflict=find,
            )
    return str(found.pipeline_version_id)
