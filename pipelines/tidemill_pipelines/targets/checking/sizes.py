"""How large the package and its parts are."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

from tidemill_pipelines.targets.checking.findings import Told, check
from tidemill_pipelines.targets.checking.subject import Subject

_UPLOAD: Final = 32 << 20
"""KFP's API server reads no larger file."""
_ETCD: Final = 1_572_864
"""etcd takes no larger object by default."""
_ARGUMENT: Final = 128 << 10
"""Linux takes no longer argument of a command (MAX_ARG_STRLEN), and KFP passes whole specs as one."""
_TEMPLATE: Final = 1_500
"""Bytes that KFP's compiler adds for a task: two tasks of Argo with their parameters."""
_FRAME: Final = 30_000
"""Bytes of the templates that every Workflow has. An estimate from above: KFP's own compiler (2.0.5, the newest that
can be run without KFP) makes 97 kB of the training pipeline where this says 128."""
_SMALLER: Final = "divide the pipeline, or shorten docstrings: they travel along"


@check("package-too-large", "error", "KFP's API server takes files up to 32 MiB.", ["kubernetes"])
def package_too_large(subject: Subject) -> Iterator[Told]:
    size = len(subject.package.text.encode())
    if size > _UPLOAD:
        yield Told(None, f"the file has {size:,} bytes, {_UPLOAD:,} are taken", _SMALLER)


@check("workflow-too-large", "error", "The Workflow that KFP makes of it wouldn't fit into etcd.", ["kubernetes"])
def workflow_too_large(subject: Subject) -> Iterator[Told]:
    size = workflow_bytes(subject)
    if size > _ETCD:
        yield Told(None, f"its Workflow has about {size:,} bytes, {_ETCD:,} are taken", _SMALLER)


@check(
    "workflow-large",
    "warning",
    "A Workflow grows while it runs; one that begins over half of the limit may not end.",
    ["kubernetes"],
)
def workflow_large(subject: Subject) -> Iterator[Told]:
    size = workflow_bytes(subject)
    if _ETCD // 2 < size <= _ETCD:
        yield Told(None, f"its Workflow has about {size:,} bytes of {_ETCD:,} before it runs", _SMALLER)


@check(
    "component-too-large",
    "error",
    "Specs travel as one argument of a command, which has at most 128 KiB.",
    ["kubernetes"],
)
def component_too_large(subject: Subject) -> Iterator[Told]:
    for task in subject.tasks:
        size = max(_bytes(part) for part in (task.component, task.container, task.spec, task.platform))
        if size >= _ARGUMENT:
            yield Told(task.name, f"its spec has {size:,} bytes", _SMALLER)


@check("argument-too-long", "error", "A task can't be started with an argument or variable over 128 KiB.")
def argument_too_long(subject: Subject) -> Iterator[Told]:
    for task in subject.containers:
        for text in (*task.arguments, *(f"{name}={value}" for name, value in task.environment.items())):
            if len(text.encode()) >= _ARGUMENT:
                cure = "keep long code in the package, long values in a file"
                yield Told(task.name, f"an argument or variable has {len(text.encode()):,} bytes", cure)


def workflow_bytes(subject: Subject) -> int:
    """Returns about how many bytes the Workflow has that KFP's compiler makes of a package."""
    specs = _bytes(subject.spec) + _bytes(subject.platforms)
    tasks = sum(_bytes(task.spec) for task in subject.tasks)
    return specs + tasks + len(subject.tasks) * _TEMPLATE + _FRAME


def _bytes(value: Any) -> int:
    return len(json.dumps(value, ensure_ascii=False).encode())


CHECKS: Final = (package_too_large, workflow_too_large, workflow_large, component_too_large, argument_too_long)
