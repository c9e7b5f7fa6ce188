"""Where the model comes from: fingerprints, versions, parameters, and every artefact with its digest."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tidemill.report.evidence import Evidence
from tidemill.report.formats import words
from tidemill.runs import RunRecord


@dataclass(frozen=True)
class ArtefactRow:
    """One artefact of the run."""

    task: str
    name: str
    uri: str
    digest: str


@dataclass(frozen=True)
class LineageView:
    """The section on provenance: (name, value) pairs, digests told apart because they are set in monospace."""

    origins: Sequence[tuple[str, str]]
    environment: Sequence[tuple[str, str]]
    parameters: Sequence[tuple[str, str]]
    artefacts: Sequence[ArtefactRow]
    command: str


def view(evidence: Evidence) -> LineageView:
    """Always there: even a run that failed at once has a source and an environment."""
    run, model, examples = evidence.run, evidence.model, evidence.examples
    source = examples.source if examples else {}
    origins = [
        ("source", run.source or str(source.get("uri", ""))),
        ("source fingerprint", run.source_fingerprint or str(source.get("fingerprint", ""))),
        ("problem bundle", run.bundle),
        ("model digest", model.digest if model else ""),
    ]
    known = {value for _, value in origins}
    origins += [(words(name), value) for name, value in _flat(model.lineage if model else {}) if value not in known]
    framework = [(name, str(version)) for name, version in sorted((model.framework if model else {}).items())]
    return LineageView(
        origins=[(name, value) for name, value in origins if value],
        environment=[*sorted((name, str(value)) for name, value in run.environment.items()), *framework],
        parameters=list(_flat(run.parameters)),
        artefacts=[
            ArtefactRow(task.name, name, artefact.uri, artefact.digest)
            for task in evidence.tasks
            for name, artefact in sorted(task.outputs.items())
        ],
        command=command(run),
    )


def _flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, inner in sorted(value.items()):
        if isinstance(inner, Mapping):
            yield from _flat(inner, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", inner if isinstance(inner, str) else json.dumps(inner, ensure_ascii=False)


def command(run: RunRecord, resume: bool = False) -> str:
    """Returns the shell command that makes the run again, or goes on with it."""
    words = ["tidemill", "run", str(run.parameters.get("problem_dir", "PROBLEM_DIR"))]
    if run.source:
        words += ["--source", run.source]
    if run.pipeline and run.pipeline != "training":
        words += ["--pipeline", run.pipeline]
    overrides = run.parameters.get("overrides")
    for key, value in overrides.items() if isinstance(overrides, Mapping) else ():
        words += ["--set", f"{key}={value}"]
    if resume:
        words += ["--resume", run.id]
    return shlex.join(words)
