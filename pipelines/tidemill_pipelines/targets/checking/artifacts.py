"""How much metadata and how many artefacts a task takes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from tidemill_pipelines.targets.checking.findings import Told, check
from tidemill_pipelines.targets.checking.subject import Subject

_METADATA_BYTES: Final = 200_000
"""Source: the description of Artifact.metadata in Vertex AI's API."""
_MOST_ARTIFACTS: Final = 100
"""Vertex AI's words beyond: «Maximum number of artifacts exceeded. Maximum allowed: 100»."""


@check("artifact-metadata", "error", "Vertex AI takes at most 200 KB of metadata with an artefact.", ["vertex"])
def artifact_metadata(subject: Subject) -> Iterator[Told]:
    for task in subject.tasks:
        metadata = task.executor.get("importer", {}).get("metadata")
        size = len(json.dumps(metadata).encode()) if metadata else 0
        if size > _METADATA_BYTES:
            yield Told(task.name, f"imports {size:,} bytes of metadata", "keep them in a file of the artefact")


@check("too-many-artifacts", "error", "Vertex AI gives a task at most 100 artefacts for one input.", ["vertex"])
def too_many_artifacts(subject: Subject) -> Iterator[Told]:
    loops = {task.key: _items(task.spec) for task in subject.tasks if "parameterIterator" in task.spec}
    for task in subject.tasks:
        for name, one in task.spec.get("inputs", {}).get("artifacts", {}).items():
            producer = one.get("taskOutputArtifact", {}).get("producerTask")
            number = loops.get(producer, 0)
            if number > _MOST_ARTIFACTS:
                cure = f"collect at most {_MOST_ARTIFACTS} at a time, or pass addresses as a parameter"
                yield Told(task.name, f"its input {name} collects the artefacts of {number} iterations", cure)


def _items(spec: Mapping[str, Any]) -> int:
    """Returns how many items a loop has, if the file says so; else 0."""
    raw = spec["parameterIterator"].get("items", {}).get("raw")
    try:
        return len(json.loads(raw)) if raw else 0
    except ValueError:
        return 0


CHECKS: Final = (artifact_metadata, too_many_artifacts)
