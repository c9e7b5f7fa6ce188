"""A compiled pipeline as the checks look at it: its tasks with all that concerns each, and its target."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any, Final

from tidemill.errors import UsageError
from tidemill_pipelines.targets.compilation import ImagesFile, Package
from tidemill_pipelines.targets.config import StageSettings, TargetConfig

EXIT_STRATEGY: Final = "ALL_UPSTREAM_TASKS_COMPLETED"


@dataclass(frozen=True)
class Task:
    """A task of the pipeline or of a group in it.

    Attributes:
        key: its name in the IR.
        name: as people see it.
        spec: PipelineTaskSpec.
        component_key: the component's name in the IR.
        component: ComponentSpec.
        executor: ExecutorSpec; empty for a group.
        platform: KubernetesExecutorConfig; empty where there is none.
    """

    key: str
    name: str
    spec: Mapping[str, Any]
    component_key: str
    component: Mapping[str, Any]
    executor: Mapping[str, Any] = field(default_factory=dict)
    platform: Mapping[str, Any] = field(default_factory=dict)

    @property
    def container(self) -> Mapping[str, Any]:
        """PipelineContainerSpec; empty for importers and groups."""
        found: Mapping[str, Any] = self.executor.get("container", {})
        return found

    @property
    def resources(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.container.get("resources", {})
        return found

    @property
    def stage(self) -> str:
        """The stage that a target's file knows it by."""
        return self.key.rstrip("0123456789").rstrip("-").replace("-", "_")

    @property
    def is_group(self) -> bool:
        return "dag" in self.component

    @property
    def cached(self) -> bool:
        return bool(self.spec.get("cachingOptions", {}).get("enableCache"))

    @property
    def arguments(self) -> list[str]:
        """The container's command and arguments."""
        return [str(part) for part in (*self.container.get("command", ()), *self.container.get("args", ()))]

    @property
    def environment(self) -> dict[str, str]:
        return {str(one["name"]): str(one.get("value", "")) for one in self.container.get("env", ())}


@dataclass(frozen=True)
class Plan:
    """How the package is to be run again and again.

    Attributes:
        cron: as it was given.
        start: not before; aware.
        end: not after; aware.
    """

    cron: str
    time_zone: str = "UTC"
    max_concurrent: int = 1
    start: datetime | None = None
    end: datetime | None = None


@dataclass(frozen=True)
class Subject:
    """What is checked.

    Attributes:
        images: the digests that the package should have been compiled with, if they are known.
        labels: of the run, beside the target's.
        plan: None for a package that is run once.
    """

    package: Package
    target: TargetConfig
    images: ImagesFile | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    plan: Plan | None = None

    @cached_property
    def documents(self) -> Sequence[Any]:
        return self.package.documents

    @cached_property
    def spec(self) -> Mapping[str, Any]:
        """The PipelineSpec."""
        found: Mapping[str, Any] = self.documents[0]
        return found

    @cached_property
    def platforms(self) -> Mapping[str, Any]:
        """What the second document says, by platform."""
        second = self.documents[1] if len(self.documents) > 1 else None
        return second.get("platforms") or {} if isinstance(second, dict) else {}

    @property
    def name(self) -> str:
        return str(self.spec["pipelineInfo"].get("name", ""))

    @cached_property
    def tasks(self) -> Sequence[Task]:
        """All tasks, those of groups included, in the order of the file."""
        return tuple(self._tasks(self.spec["root"]))

    @property
    def containers(self) -> list[Task]:
        """The tasks that run a container."""
        return [task for task in self.tasks if task.container]

    @property
    def parameters(self) -> Mapping[str, Any]:
        """The pipeline's parameters as the IR defines them."""
        found: Mapping[str, Any] = self.spec["root"].get("inputDefinitions", {}).get("parameters", {})
        return found

    @property
    def values(self) -> dict[str, Any]:
        """The values that the pipeline's parameters have."""
        return {name: one["defaultValue"] for name, one in self.parameters.items() if "defaultValue" in one}

    def settings(self, task: Task) -> StageSettings:
        """Returns what the target's file says of a task's stage."""
        return self.target.stage(task.stage)

    def _tasks(self, component: Mapping[str, Any]) -> Iterator[Task]:
        executors = self.spec.get("deploymentSpec", {}).get("executors", {})
        platform = self.platforms.get("kubernetes", {}).get("deploymentSpec", {}).get("executors", {})
        for key, spec in component.get("dag", {}).get("tasks", {}).items():
            name = spec.get("componentRef", {}).get("name", "")
            if name not in self.spec.get("components", {}):
                raise UsageError(f"task {key}", "refers to a component that the file has not", name or "none")
            inner = self.spec["components"][name]
            label = inner.get("executorLabel", "")
            shown = spec.get("taskInfo", {}).get("name") or key
            yield Task(key, shown, spec, name, inner, executors.get(label, {}), platform.get(label, {}))
            yield from self._tasks(inner)
