"""What tasks ask for: processors, memory, machines, time."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from tidemill_pipelines.targets.checking.findings import Told, check
from tidemill_pipelines.targets.checking.subject import Subject, Task
from tidemill_pipelines.targets.machines import machine_size

_VERTEX_CORES: Final = 96
_VERTEX_MEMORY: Final = 624e9
"""Source: https://cloud.google.com/vertex-ai/docs/pipelines/machine-types"""
_UNITS: Final = {"": 1.0, "m": 1e-3} | {
    f"{prefix}{i}": float((1024 if i else 1000) ** power)
    for power, prefix in enumerate("KMGTPE", start=1)
    for i in ("", "i")
}
_REQUESTS: Final = ("resourceCpuRequest", "resourceMemoryRequest", "cpuRequest", "memoryRequest")


@check(
    "request-ignored",
    "warning",
    "Vertex AI gives a task a machine of its own by its limits; requests mean nothing.",
    ["vertex"],
)
def request_ignored(subject: Subject) -> Iterator[Told]:
    for task in subject.containers:
        if any(key in task.resources for key in _REQUESTS):
            cure = "set limits: `cpu` and `memory` in the target's file"
            yield Told(task.name, "requests processors or memory, which Vertex AI leaves out", cure)


@check(
    "limit-by-parameter", "error", "Vertex AI chooses the machine before the run: limits must be constants.", ["vertex"]
)
def limit_by_parameter(subject: Subject) -> Iterator[Told]:
    for task in subject.containers:
        for name, value in _fields(task.resources):
            if "{{" in str(value):
                cure = "give a constant: `cpu`, `memory` or `accelerator` in the target's file"
                yield Told(task.name, f"its {name} depends on a parameter", cure)


@check(
    "limit-too-large",
    "error",
    "Vertex AI has no machine for more than 96 processors or 624 GB in a pipeline.",
    ["vertex"],
)
def limit_too_large(subject: Subject) -> Iterator[Told]:
    for task in subject.containers:
        cores, memory = cpu_limit(task), memory_limit(task)
        if cores is not None and cores > _VERTEX_CORES:
            yield Told(task.name, f"asks for {cores:g} processors", f"ask for at most {_VERTEX_CORES}")
        if memory is not None and memory > _VERTEX_MEMORY:
            yield Told(task.name, f"asks for {memory / 1e9:.0f} GB of memory", "ask for at most 624G")


@check(
    "machine-by-default",
    "warning",
    "Without limits a task of Vertex AI gets an e2-standard-4: 4 processors, 16 GB.",
    ["vertex"],
)
def machine_by_default(subject: Subject) -> Iterator[Told]:
    for task in subject.containers:
        if cpu_limit(task) is None and memory_limit(task) is None and not _unset(task):
            cure = "set `defaults: {cpu, memory}` or `stages` in the target's file"
            yield Told(task.name, "says neither processors nor memory: it gets an e2-standard-4", cure)


@check(
    "half-a-size",
    "warning",
    "With one of processors and memory given, the backend chooses the other silently.",
    ["vertex"],
)
def half_a_size(subject: Subject) -> Iterator[Told]:
    for task in subject.containers:
        given = {"processors": cpu_limit(task), "memory": memory_limit(task)}
        missing = [name for name, value in given.items() if value is None]
        if len(missing) == 1 and not _unset(task):
            yield Told(task.name, f"says nothing of {missing[0]}", "give `cpu` and `memory`")


@check(
    "resources-missing",
    "warning",
    "A pod without limits is the first to be evicted, and is refused where the namespace has a quota.",
    ["kubernetes"],
)
def resources_missing(subject: Subject) -> Iterator[Told]:
    for task in subject.containers:
        limits = {"processors": cpu_limit(task), "memory": memory_limit(task)}
        missing = " and ".join(name for name, value in limits.items() if value is None)
        if missing and not _unset(task):
            cure = "set `cpu` and `memory` in `defaults` or `stages` of the target's file"
            yield Told(task.name, f"has no limit of {missing}", cure)


@check("quantity", "error", "An amount is none that Kubernetes can read.")
def quantity(subject: Subject) -> Iterator[Told]:
    for task in subject.containers:
        for name in ("resourceCpuLimit", "resourceMemoryLimit", "resourceCpuRequest", "resourceMemoryRequest"):
            value = task.resources.get(name)
            if value is not None and "{{" not in str(value) and amount(str(value)) is None:
                yield Told(task.name, f"its {name} is {value!r}", "write 4, 500m, 16G or 16Gi")


@check(
    "machine-unknown",
    "warning",
    "The target's file names a machine whose size isn't known, so that none is asked for.",
    ["vertex"],
)
def machine_unknown(subject: Subject) -> Iterator[Told]:
    for task in subject.containers:
        machine = subject.settings(task).machine
        if machine is not None and machine_size(machine) is None:
            yield Told(task.name, f"nothing tells the size of a {machine}", "give `cpu` and `memory` instead")


@check("spot-ignored", "warning", "Tasks of a pipeline of Vertex AI can't be given spot machines.", ["vertex"])
def spot_ignored(subject: Subject) -> Iterator[Told]:
    for task in subject.containers:
        if subject.settings(task).spot:
            yield Told(task.name, "the target's file wants spot machines", "leave `spot` out, or train in a custom job")


@check("timeout-ignored", "warning", "Vertex AI has no limit of time for a task.", ["vertex"])
def timeout_ignored(subject: Subject) -> Iterator[Told]:
    for task in subject.containers:
        if subject.settings(task).timeout_s is not None:
            cure = "leave `timeout_s` out; `tidemill submit --wait --timeout` limits a run"
            yield Told(task.name, "the target's file limits its time", cure)


def cpu_limit(task: Task) -> float | None:
    """Returns how many processors a task may use; None if nothing is said, or a parameter says it."""
    return _limit(task, "resourceCpuLimit", "cpuLimit", 1.0)


def memory_limit(task: Task) -> float | None:
    """Returns how many bytes of memory a task may use; likewise."""
    return _limit(task, "resourceMemoryLimit", "memoryLimit", 1e9)


def amount(text: str) -> float | None:
    """Returns the number that a quantity of Kubernetes means, or None if it is none."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([A-Za-z]*)", text)
    return float(found[1]) * _UNITS[found[2]] if found and found[2] in _UNITS else None


def _limit(task: Task, new: str, old: str, unit: float) -> float | None:
    if new in task.resources:
        return amount(str(task.resources[new]))
    return float(task.resources[old]) * unit if old in task.resources else None


def _unset(task: Task) -> bool:
    """Tells whether a task has limits that `limit-by-parameter` or `quantity` speak of."""
    given = (task.resources.get(name) for name in ("resourceCpuLimit", "resourceMemoryLimit"))
    return any(value is not None and amount(str(value)) is None for value in given)


def _fields(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _fields(inner, key)
    else:
        yield name, value


CHECKS: Final = (
    request_ignored,
    limit_by_parameter,
    limit_too_large,
    machine_by_default,
    half_a_size,
    resources_missing,
    quantity,
    machine_unknown,
    spot_ignored,
    timeout_ignored,
)
