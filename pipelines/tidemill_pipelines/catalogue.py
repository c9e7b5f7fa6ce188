"""The catalogue of components, from their definitions: ``python -m tidemill_pipelines.catalogue``."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import docstring_parser
from kfp.dsl.base_component import BaseComponent

import tidemill
from tidemill.images import environment_of
from tidemill_pipelines.pipelines import load_pipeline

_HEAD = """\
# Components

Made from the definitions by `make catalogue`: don't edit it. Each stage is a package `tidemill.<stage>` with a thin
KFP component in `component.py` (the interface) and the work behind it in `run.py`. A component runs in the image of
its environment. What each artefact holds is told in [artifacts.py](tidemill/artifacts.py).
"""


_ELSEWHERE = {"vertex": "Vertex AI", "kserve": "KServe", "trainjob": "Kubeflow Trainer"}
"""The packages that hold the same components for other backends."""


@dataclass(frozen=True)
class Port:
    """An input or output of a component.

    Attributes:
        type: the KFP artefact type, such as ``Dataset``, or the parameter type, such as ``String``.
        artifact: whether it is an artefact; otherwise it is a parameter.
        description: from the docstring; empty if that doesn't tell.
        default: of a parameter that has one.
    """

    name: str
    type: str
    artifact: bool
    description: str
    default: str | None = None


@dataclass(frozen=True)
class Entry:
    """A component as the catalogue shows it.

    Attributes:
        stage: the package below ``tidemill`` that defines it.
        documented: the names in the docstring's argument section, in their order.
    """

    stage: str
    name: str
    image: str
    summary: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    documented: tuple[str, ...]

    @property
    def title(self) -> str:
        """The component's name, with that of the backend that it releases into."""
        return f"{self.name} on {_ELSEWHERE[self.stage]}" if self.stage in _ELSEWHERE else self.name


def components() -> Iterator[tuple[str, BaseComponent]]:
    """Yields every component with the name of its stage, stages in alphabetical order."""
    for stage in sorted(module.name for module in pkgutil.iter_modules(tidemill.__path__) if module.ispkg):
        name = f"tidemill.{stage}.component"
        if importlib.util.find_spec(name):
            for value in vars(importlib.import_module(name)).values():
                if isinstance(value, BaseComponent):
                    yield stage, value


def entries() -> list[Entry]:
    """Returns all components in the order in which tuning runs them; what releases elsewhere comes last."""
    order = {name: i for i, name in enumerate(_execution_order(load_pipeline("tuning").pipeline_spec))}
    found = [_entry(stage, component) for stage, component in components()]
    elsewhere = {entry: entry.stage if entry.stage in _ELSEWHERE else "" for entry in found}
    return sorted(found, key=lambda entry: (elsewhere[entry], order.get(entry.name, len(order)), entry.name))


def _entry(stage: str, component: Any) -> Entry:
    docstring = docstring_parser.parse(component.python_func.__doc__ or "")
    told = {parameter.arg_name: " ".join((parameter.description or "").split()) for parameter in docstring.params}
    spec = component.component_spec
    return Entry(
        stage,
        component.name,
        spec.implementation.container.image,
        "\n\n".join(text for text in (docstring.short_description, docstring.long_description) if text),
        tuple(_port(name, port, told) for name, port in (spec.inputs or {}).items()),
        tuple(_port(name, port, told) for name, port in (spec.outputs or {}).items()),
        tuple(told),
    )


def _port(name: str, port: Any, told: dict[str, str]) -> Port:
    kind, _, version = port.type.partition("@")
    default = getattr(port, "default", None)
    return Port(
        name,
        kind.removeprefix("system."),
        bool(version),
        told.get(name, "").replace("|", "\\|"),  # which would end the table's cell
        None if default is None else repr(default),
    )


def _execution_order(spec: Any) -> list[str]:
    """Returns the components' names in an order in which a pipeline can run them, sub-DAGs included."""
    order: list[str] = []

    def visit(dag: Any) -> None:
        waiting = dict(sorted(dag.tasks.items()))
        while waiting:
            for name in [n for n, task in waiting.items() if not set(task.dependent_tasks) & set(waiting)]:
                reference = waiting.pop(name).component_ref.name
                order.append(reference.removeprefix("comp-"))
                if spec.components[reference].HasField("dag"):
                    visit(spec.components[reference].dag)

    visit(spec.root.dag)
    return order


def render(catalogue: Sequence[Entry]) -> str:
    """Returns the catalogue as Markdown."""
    rows = ["| stage | component | environment | artefacts in | artefacts out |", "|---|---|---|---|---|"]
    for entry in catalogue:
        stage, component = f"[{entry.stage}](tidemill/{entry.stage})", f"[{entry.title}](#{_anchor(entry.title)})"
        artifacts = f"{_artifacts(entry.inputs)} | {_artifacts(entry.outputs)}"
        rows.append(f"| {stage} | {component} | {environment_of(entry.image)} | {artifacts} |")
    return "\n".join([_HEAD, *rows, *(_section(entry) for entry in catalogue)]) + "\n"


def _artifacts(ports: Sequence[Port]) -> str:
    return "<br>".join(f"{port.name} [{port.type}]" for port in ports if port.artifact) or "–"


def _anchor(title: str) -> str:
    """Returns what GitHub makes of a heading."""
    return title.lower().replace(" ", "-")


def _section(entry: Entry) -> str:
    lines = [f"\n## {entry.title}", f"`tidemill.{entry.stage}.component`, image `{entry.image}`", "", entry.summary]
    for title, ports in (("in", entry.inputs), ("out", entry.outputs)):
        if ports:
            lines += ["", f"| {title} | type | what |", "|---|---|---|"]
            lines += [f"| `{port.name}` | {_type(port)} | {port.description} |" for port in ports]
    return "\n".join(lines)


def _type(port: Port) -> str:
    if port.artifact:
        return f"[{port.type}]"
    return port.type if port.default is None else f"{port.type} = `{port.default}`"


if __name__ == "__main__":
    print(render(entries()), end="")
