"""Labels of runs and pods."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

from tidemill_pipelines.targets.checking.findings import Told, check
from tidemill_pipelines.targets.checking.subject import Subject

_VERTEX_KEY: Final = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_VERTEX_VALUE: Final = re.compile(r"[a-z0-9_-]{0,63}")
_KUBERNETES: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
_KUBERNETES_PREFIX: Final = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_MOST: Final = 64
_OURS: Final = 4
"""How many labels tidemill and Vertex AI add to a run at most."""
_RESERVED: Final = {
    "vertex": ("goog", "vertex-ai-"),
    "kubernetes": ("pipelines.kubeflow.org/", "workflows.argoproj.io/", "pipeline/"),
}


@check("label-syntax", "error", "The backend refuses a label's key or value.")
def label_syntax(subject: Subject) -> Iterator[Told]:
    for task, labels in _labels(subject):
        for key, value in labels.items():
            if not _valid(subject, key, value):
                rule = "a-z, 0-9, _ and -, at most 63 of them, a letter first"
                if subject.target.kind == "kubernetes":
                    rule = "letters, digits, -, _ and ., at most 63 of them, a letter or digit first and last"
                yield Told(task, f"the label {key}={value} is none that it takes", f"use {rule}")


@check("label-reserved", "error", "Labels with that beginning belong to the backend.")
def label_reserved(subject: Subject) -> Iterator[Told]:
    for task, labels in _labels(subject):
        for key in labels:
            if key.startswith(_RESERVED[subject.target.kind]):
                yield Told(task, f"the label {key} belongs to the backend", "use another key")


@check("label-number", "error", "Vertex AI takes at most 64 labels with a run.", ["vertex"])
def label_number(subject: Subject) -> Iterator[Told]:
    number = len({**subject.target.labels, **subject.labels})
    if number > _MOST - _OURS:
        yield Told(None, f"the run has {number} labels", f"use at most {_MOST - _OURS}")


def _labels(subject: Subject) -> Iterator[tuple[str | None, Mapping[str, str]]]:
    yield None, {**subject.target.labels, **subject.labels}
    if subject.target.kind == "kubernetes":
        for task in subject.tasks:
            own = task.platform.get("podMetadata", {}).get("labels", {})
            yield task.name, {key: value for key, value in own.items() if key not in subject.target.labels}


def _valid(subject: Subject, key: str, value: str) -> bool:
    if subject.target.kind == "vertex":
        return bool(_VERTEX_KEY.fullmatch(key) and _VERTEX_VALUE.fullmatch(value))
    prefix, _, name = key.rpartition("/")
    prefix_fits = not prefix or bool(_KUBERNETES_PREFIX.fullmatch(prefix))
    return prefix_fits and bool(_KUBERNETES.fullmatch(name)) and (not value or bool(_KUBERNETES.fullmatch(value)))


CHECKS: Final = (label_syntax, label_reserved, label_number)
