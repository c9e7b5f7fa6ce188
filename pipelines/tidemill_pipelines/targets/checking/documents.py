"""The file itself: its documents, its version, its name, what parts of the IR the backend takes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Final

from tidemill_pipelines.targets.checking.findings import Told, check
from tidemill_pipelines.targets.checking.subject import EXIT_STRATEGY, Subject

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]*")
_KFP_NAME: Final = 128
_VERTEX_NAME: Final = 128 - len("-20260101000000")
"""A run's id on Vertex AI is the name and a time, in at most 128 characters."""
_VERTEX_SCHEDULED_NAME: Final = 64
_ARGO_NAME: Final = 128
_AROUND_A_NAME: Final = len("exit-hook-comp--driver")
"""What KFP's compiler puts around the names of tasks and components at most."""
_RECOMPILE: Final = "compile for this target: `tidemill compile PROBLEM_DIR --target …`"


@check(
    "second-document", "error", "Vertex AI takes a file of one YAML document; a platform spec is a second.", ["vertex"]
)
def second_document(subject: Subject) -> Iterator[Told]:
    if len(subject.documents) > 1:
        yield Told(None, f"the file has {len(subject.documents)} YAML documents, Vertex AI takes one", _RECOMPILE)


@check(
    "unknown-document",
    "error",
    "KFP leaves out a second document that is no platform spec for kubernetes, and refuses a third.",
    ["kubernetes"],
)
def unknown_document(subject: Subject) -> Iterator[Told]:
    if len(subject.documents) > 2:
        yield Told(None, f"the file has {len(subject.documents)} YAML documents, KFP takes two", _RECOMPILE)
    elif len(subject.documents) == 2 and "kubernetes" not in subject.platforms:
        there = ", ".join(subject.platforms) or "none"
        yield Told(None, f"the second document names no platform `kubernetes` ({there}): KFP leaves it out", _RECOMPILE)


@check("schema-version", "error", "KFP takes IR of schema version 2.1.0 only.", ["kubernetes"])
def schema_version(subject: Subject) -> Iterator[Told]:
    version = subject.spec.get("schemaVersion")
    if version != "2.1.0":
        yield Told(None, f"schemaVersion is {version}, KFP takes 2.1.0", "compile with KFP's SDK 2.x")


@check("pipeline-name", "error", "The pipeline's name is too long or has other than a-z, 0-9 and -.")
def pipeline_name(subject: Subject) -> Iterator[Told]:
    most, name = _KFP_NAME, subject.name
    if subject.target.kind == "vertex":
        most = _VERTEX_SCHEDULED_NAME if subject.plan else _VERTEX_NAME
    if not _NAME.fullmatch(name):
        yield Told(None, f"the pipeline's name is {name!r}", "use a-z, 0-9 and -, and begin with one of the former")
    elif len(name) > most:
        yield Told(None, f"the pipeline's name has {len(name)} characters, at most {most} are taken", "shorten it")


@check(
    "task-name-too-long",
    "error",
    "Argo refuses names over 128 characters, and KFP derives several from each task's.",
    ["kubernetes"],
)
def task_name_too_long(subject: Subject) -> Iterator[Told]:
    most = _ARGO_NAME - _AROUND_A_NAME
    for task in subject.tasks:
        longest = max(task.key, task.component_key, key=len)
        if len(longest) > most:
            cure = f"shorten it to {most} characters; a display name may be longer"
            yield Told(task.name, f"the name {longest} has {len(longest)} characters", cure)


@check("task-alone", "error", "A group has nothing but the task that ends it; KFP refuses that.", ["kubernetes"])
def task_alone(subject: Subject) -> Iterator[Told]:
    groups = [(None, subject.spec["root"]), *((task.name, task.component) for task in subject.tasks if task.is_group)]
    for name, component in groups:
        tasks = component.get("dag", {}).get("tasks", {}).values()
        if all(task.get("triggerPolicy", {}).get("strategy") == EXIT_STRATEGY for task in tasks):
            yield Told(name, "there is no task but those that run at the end", "put one more task into it")


@check("custom-job", "error", "KFP refuses tasks that are custom jobs of Google Cloud.", ["kubernetes"])
def custom_job(subject: Subject) -> Iterator[Told]:
    for task in subject.tasks:
        if "customJob" in task.executor:
            yield Told(task.name, "is a custom job of Google Cloud", "use a component with a container")


@check("resolver", "error", "No backend but TFX's own has resolvers.")
def resolver(subject: Subject) -> Iterator[Told]:
    for task in subject.tasks:
        if "resolver" in task.executor:
            yield Told(task.name, "is a resolver", "look up what it looks up in a component, as find_champion does")


@check("conditional-importer", "error", "KFP refuses an importer right below a condition.", ["kubernetes"])
def conditional_importer(subject: Subject) -> Iterator[Told]:
    for task in subject.tasks:
        if "importer" in task.executor and task.spec.get("triggerPolicy", {}).get("condition"):
            yield Told(task.name, "is an importer with a condition", "import outside the condition")


@check("artifact-iterator", "error", "KFP has no loop over artefacts.", ["kubernetes"])
def artifact_iterator(subject: Subject) -> Iterator[Told]:
    for task in subject.tasks:
        if "artifactIterator" in task.spec:
            yield Told(task.name, "loops over a list of artefacts", "loop over parameters")


@check(
    "shared-container",
    "warning",
    "KFP knows components by their containers: of two that differ in their interface alone it uses the first's.",
    ["kubernetes"],
)
def shared_container(subject: Subject) -> Iterator[Told]:
    seen: dict[str, tuple[str, str]] = {}
    for task in subject.containers:
        container = json.dumps(task.container, sort_keys=True)
        interface = json.dumps(
            {key: value for key, value in task.component.items() if key != "executorLabel"}, sort_keys=True
        )
        first, theirs = seen.setdefault(container, (task.name, interface))
        if theirs != interface:
            cure = "let the containers differ: in an environment variable, say"
            yield Told(task.name, f"has the container of {first} and other inputs or outputs", cure)


CHECKS: Final = (
    second_document,
    unknown_document,
    schema_version,
    pipeline_name,
    task_name_too_long,
    task_alone,
    custom_job,
    resolver,
    conditional_importer,
    artifact_iterator,
    shared_container,
)
