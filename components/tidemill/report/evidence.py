"""Everything that a run left behind and that the page tells, read defensively: the verdict must survive any of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from tidemill.report import documents
from tidemill.report.graph import chain, edges_of
from tidemill.runs import RunRecord, TaskRecord, Verdict, output, verdict_of

Document = TypeVar("Document", bound=BaseModel)
REPORT_TASK = "report"


@dataclass(frozen=True)
class Note:
    """Something that could not be read, said on the page instead of what it would have shown."""

    where: str
    problem: str


@dataclass(frozen=True)
class Evidence:
    """The run, its tasks and their artefacts. An artefact is None if the run didn't get so far or it can't be read.

    Attributes:
        tasks: all but the report's own, in the order of their start.
        edges: what each task of the pipeline waits for, the tasks that were not reached among them.
        verdict: the run's, or what the tasks amount to while the run has not ended.
    """

    run: RunRecord
    tasks: Sequence[TaskRecord]
    edges: Mapping[str, Sequence[str]]
    verdict: Verdict
    examples: documents.Examples | None
    statistics: documents.Statistics | None
    anomalies: documents.Anomalies | None
    tuning: documents.Tuning | None
    history: documents.History | None
    metrics: documents.Evaluation | None
    blessing: documents.Judged | None
    rehearsal: documents.Rehearsal | None
    compressed: documents.Compression | None
    compression: documents.Judged | None
    registered: documents.Registered | None
    model: documents.Model | None
    deployment: documents.Deployment | None
    notes: Sequence[Note]

    def task(self, name: str) -> TaskRecord | None:
        return next((task for task in self.tasks if task.name == name), None)


def read(run_dir: Path) -> Evidence:
    """Reads a run's directory and the artefacts that its tasks put out. What can't be read becomes a note."""
    notes: list[Note] = []
    tasks = _tasks(run_dir, notes)
    run = _run(run_dir, notes)
    others = [task for task in tasks if task.name != REPORT_TASK]

    def artefact(task: str, name: str, file: str, kind: type[Document]) -> Document | None:
        directory = output(tasks, task, name)
        if directory is None or not (directory / file).is_file():
            return None
        return _parse(directory / file, f"{task}: {file}", kind, notes)

    return Evidence(
        run=run,
        tasks=others,
        edges=_edges(run_dir, run, tasks, notes),
        verdict=_verdict(run, others),
        examples=artefact("ingest", "examples", "manifest.json", documents.Examples),
        statistics=artefact("validate", "statistics", "summary.json", documents.Statistics),
        anomalies=artefact("validate", "anomalies", "anomalies.json", documents.Anomalies),
        tuning=artefact("conclude", "tuning", "tuning.json", documents.Tuning),
        history=artefact("train", "history", "history.json", documents.History),
        metrics=artefact("evaluate", "evaluation", "metrics.json", documents.Evaluation),
        blessing=artefact("evaluate", "blessing", "blessing.json", documents.Judged),
        rehearsal=artefact("rehearse", "rehearsal", "rehearsal.json", documents.Rehearsal),
        compressed=artefact("compress", "compressed", "manifest.json", documents.Compression),
        compression=artefact("compress", "compression", "compression.json", documents.Judged),
        registered=artefact("register", "registered", "registered.json", documents.Registered),
        model=artefact("compress", "released", "model.json", documents.Model)
        or artefact("train", "model", "model.json", documents.Model),
        deployment=artefact("deploy", "deployment", "deployment.json", documents.Deployment),
        notes=tuple(notes),
    )


def _verdict(run: RunRecord, tasks: Sequence[TaskRecord]) -> Verdict:
    if run.verdict != "running":
        return run.verdict
    if any(task.status == "running" for task in tasks):
        return "running"
    return verdict_of(tasks)


def _run(run_dir: Path, notes: list[Note]) -> RunRecord:
    try:
        return RunRecord.read(run_dir)
    except (OSError, ValueError, TypeError, KeyError) as error:
        notes.append(Note("run.json", _told(error)))
        return RunRecord(id=run_dir.name, problem="", pipeline="", verdict="running", started="")


def _tasks(run_dir: Path, notes: list[Note]) -> list[TaskRecord]:
    tasks = []
    for path in sorted((run_dir / "tasks").glob("*.json")):
        try:
            tasks.append(TaskRecord.read(path))
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            notes.append(Note(f"tasks/{path.name}", _told(error)))
    return sorted(tasks, key=lambda task: task.started)


def _edges(
    run_dir: Path, run: RunRecord, tasks: Sequence[TaskRecord], notes: list[Note]
) -> Mapping[str, Sequence[str]]:
    """The compiled pipeline's edges; without it the order of the stages stands in."""
    pipeline = run_dir / "pipeline.yaml"
    names = [task.iteration_of or task.name for task in tasks]
    if pipeline.is_file():
        try:
            edges = edges_of(next(yaml.load_all(pipeline.read_text(encoding="utf-8"), _YAML_LOADER)))
            if set(names) <= set(edges):
                return edges
        except (OSError, ValueError, TypeError, KeyError, AttributeError, yaml.YAMLError) as error:
            notes.append(Note("pipeline.yaml", _told(error)))
    return chain(list(dict.fromkeys([*run.stages, *names])))


# The C parser reads a compiled pipeline in a tenth of the time; a PyYAML built without it has only the other.
_YAML_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _parse(path: Path, where: str, kind: type[Document], notes: list[Note]) -> Document | None:
    try:
        return kind.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:  # pydantic's and json's errors are ValueErrors
        notes.append(Note(where, _told(error)))
        return None


def _told(error: Exception) -> str:
    if isinstance(error, ValidationError):
        faults = error.errors(include_url=False, include_input=False)
        first = "; ".join(f"{'.'.join(map(str, f['loc'])) or 'document'}: {f['msg']}" for f in faults[:3])
        return first + (f"; and {len(faults) - 3} more" if len(faults) > 3 else "")
    if isinstance(error, json.JSONDecodeError):
        return f"is not JSON: {error}"
    if isinstance(error, KeyError):
        return f"lacks {error}"
    if isinstance(error, FileNotFoundError):
        return "is missing"
    return f"{type(error).__name__}: {error}"
