"""From a problem and a target to a compiled pipeline that its backend takes as it is."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

import tidemill
from tidemill.bundle import pack_views
from tidemill.errors import UsageError
from tidemill.images import SERVING, TENSORFLOW, environment_of
from tidemill.problem import load_problem
from tidemill_pipelines.choices import Choices
from tidemill_pipelines.pipelines import load_pipeline
from tidemill_pipelines.targets.beam import beam_flags
from tidemill_pipelines.targets.config import TargetConfig

STORE: Final = "/tidemill"
"""Where the tasks on Kubernetes have the volume with the registry and the runs' records."""


@dataclass(frozen=True)
class Package:
    """A compiled pipeline.

    Attributes:
        text: the file's content: one YAML document, or two where there is a platform spec.
    """

    text: str

    @property
    def documents(self) -> list[dict[str, Any]]:
        """The file's YAML documents: the pipeline spec, and the platform spec if there is one."""
        return list(yaml.load_all(self.text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))

    @property
    def spec(self) -> dict[str, Any]:
        """The PipelineSpec."""
        return self.documents[0]

    @property
    def name(self) -> str:
        return str(self.spec["pipelineInfo"]["name"])

    @property
    def defaults(self) -> dict[str, Any]:
        """The pipeline's parameters that have a default value."""
        parameters = self.spec["root"].get("inputDefinitions", {}).get("parameters", {})
        return {name: p["defaultValue"] for name, p in parameters.items() if "defaultValue" in p}

    @property
    def digest(self) -> str:
        """Hex sha256 of the text."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @classmethod
    def read(cls, path: Path) -> Package:
        """Reads a compiled pipeline.

        Raises:
            UsageError: if the file isn't one.
        """
        try:
            package = cls(path.read_text(encoding="utf-8"))
            documents = package.documents
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise UsageError(str(path), "cannot be read as a compiled pipeline", str(error)) from error
        if not documents or not isinstance(documents[0], dict) or "pipelineInfo" not in documents[0]:
            raise UsageError(str(path), "expected a compiled pipeline", remedy="`tidemill compile` makes one")
        return package


@dataclass(frozen=True)
class ImagesFile:
    """What `make images` wrote: where each environment's image is, by digest.

    Attributes:
        lock: hex sha256 of the uv.lock that they were installed from.
        images: reference with digest by environment.
    """

    version: str
    lock: str
    commit: str
    images: Mapping[str, str]

    @classmethod
    def read(cls, path: Path) -> ImagesFile:
        """Reads the file.

        Raises:
            UsageError: if it isn't one.
        """
        expected = "expected the images.json that `make images` writes"
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
            file = cls(**{key: value[key] for key in ("version", "lock", "commit", "images")})
            texts = (file.version, file.lock, file.commit, *file.images.values())
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UsageError(str(path), expected, f"{type(error).__name__}: {error}") from error
        if faulty := [text for text in texts if not isinstance(text, str) or not text]:
            raise UsageError(str(path), expected, f"a value {faulty[0]!r}")
        return file


@dataclass(frozen=True)
class Compiled:
    """A package, and the files that it needs below its pipeline root.

    Attributes:
        problem: the problem's name.
        files: bytes by address; the addresses hold the content's digest.
    """

    problem: str
    package: Package
    files: Mapping[str, bytes] = field(default_factory=dict)


def compile_package(
    problem_dir: Path,
    pipeline: str,
    target: TargetConfig,
    images: ImagesFile | None = None,
    overrides: Mapping[str, str] | None = None,
    source: str | None = None,
) -> Compiled:
    """Compiles a pipeline for a problem and a target: all parameters have values, so it runs as it is.

    The text depends on the arguments' content alone, not on the machine.

    Args:
        overrides: YAML values by dotted path of problem.yaml.
        source: the table; the problem's `ingest.source` by default. May hold templates.

    Raises:
        ProblemError: if the problem is faulty.
        UsageError: if there is no source, or no image for an environment.
    """
    problem = load_problem(problem_dir, overrides)
    table = source or problem.ingest.source
    if table is None:
        raise UsageError("--source", "the problem names no `ingest.source`", remedy="give the table with --source")
    root = (target.pipeline_root or "").rstrip("/")
    with tempfile.TemporaryDirectory() as beside:
        packed = pack_views(problem, problem_dir, Path(beside))
        bundles = {view: f"{root}/bundles/{path.name}" for view, path in packed.items()}
        files = {bundles[view]: path.read_bytes() for view, path in packed.items()}
        arguments = {
            "data_bundle": bundles["data"],
            "feature_bundle": bundles["features"],
            "model_bundle": bundles["model"],
            "whole_bundle": bundles["whole"],
            "source": table,
            "beam_runner": target.beam.runner,
            "beam_flags": beam_flags(target, image(TENSORFLOW, target, images)),
            **places(target),
        }
        text = _compile(problem.name, pipeline, Choices.of(problem), target, images, arguments, Path(beside))
    return Compiled(problem.name, Package(text), files)


def places(target: TargetConfig) -> dict[str, str]:
    """Returns where models are registered and answer, as the pipeline's parameters of these names."""
    if target.kind == "kubernetes":
        return {"registry": f"{STORE}/registry", "endpoints": target.on_kubernetes.namespace}
    parent = f"projects/{target.on_vertex.project or ''}/locations/{target.on_vertex.region or ''}"
    return {"registry": parent, "endpoints": parent}


def runs_directory(target: TargetConfig) -> str:
    """Returns the directory of the runs' records, as the tasks see it."""
    if target.kind == "kubernetes":
        return f"{STORE}/runs"
    return f"/gcs/{(target.pipeline_root or '').removeprefix('gs://').rstrip('/')}/runs"


def image(name: str, target: TargetConfig, images: ImagesFile | None) -> str:
    """Returns the reference that takes the place of a component's image.

    Raises:
        UsageError: if the file of digests lacks the environment.
    """
    environment = environment_of(name)
    if images is not None:
        if environment not in images.images:
            there = ", ".join(sorted(images.images)) or "none"
            remedy = f'`make images IMAGES="{" ".join([*sorted(images.images), environment])}"` makes it as well'
            raise UsageError("images file", f"needs the image of {environment}", there, remedy)
        return images.images[environment]
    registry = f"{target.images.registry}/" if target.images.registry else "tidemill/"
    return f"{registry}{environment}:{target.images.tag or tidemill.__version__}"


def _compile(
    problem: str,
    pipeline: str,
    choices: Choices,
    target: TargetConfig,
    images: ImagesFile | None,
    arguments: Mapping[str, Any],
    scratch: Path,
) -> str:
    from kfp import compiler, dsl

    from tidemill_pipelines.targets.settlement import Settlement, settled

    serving = image(SERVING, target, images)
    if target.kind == "kubernetes":
        from tidemill_pipelines.targets.kubernetes.release import kubernetes_release as release_of
    else:
        from tidemill_pipelines.targets.vertex.release import vertex_release as release_of

    def image_of(name: str) -> str:
        return image(name, target, images)

    plain = load_pipeline(pipeline, release_of(target, serving, image_of), choices)
    settlement = Settlement(target, image_of, problem, pipeline, runs_directory(target))
    made = dsl.pipeline(name=f"{problem}-{pipeline}", description=plain.description)(settled(plain, settlement))
    known = made.component_spec.inputs or {}
    path = scratch / "package.yaml"
    given = {name: value for name, value in arguments.items() if name in known}
    compiler.Compiler().compile(made, str(path), pipeline_parameters=given)
    return path.read_text(encoding="utf-8")
