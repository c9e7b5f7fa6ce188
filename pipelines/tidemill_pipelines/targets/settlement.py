"""What a target's file says of each task, put on the task while the pipeline is compiled."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from kfp import kubernetes
from kfp.dsl import pipeline_context
from kfp.dsl.for_loop import LoopParameterArgument

from tidemill.costs import Prices, Tariff
from tidemill.execution import IMAGE_VARIABLE, LOOPED_VARIABLE, RUN_VARIABLE, RUNS_VARIABLE, TASK_VARIABLE
from tidemill.images import TENSORFLOW
from tidemill.report.conclusion import PLAN_VARIABLE
from tidemill.trainjob.workflow import WORKFLOW_VARIABLE
from tidemill_pipelines.targets.config import StageSettings, TargetConfig
from tidemill_pipelines.targets.machines import machine_size
from tidemill_pipelines.targets.rates import stage_rate

USER: Final = 65532
"""The uid of our images."""
_RUN_LABEL: Final = "metadata.labels['pipeline/runid']"
_WORKFLOW_LABEL: Final = "metadata.labels['workflows.argoproj.io/workflow']"
_STORE: Final = "/tidemill"
# KFP makes Argo's `maxDuration` of the longest pause: the time for all tries of a task together.
_WEEK_S: Final = 7 * 24 * 3600


@dataclass(frozen=True)
class Settlement:
    """How to settle a pipeline's tasks on a target.

    Attributes:
        image: the reference that takes the place of a component's image.
        runs: directory of the runs' records, as the tasks see it.
    """

    target: TargetConfig
    image: Callable[[str], str]
    problem: str
    pipeline: str
    runs: str

    def settle(self, task: Any, stages: Mapping[str, str]) -> None:
        """Puts image, environment and resources on a task.

        Args:
            stages: the component of each task by the task's name, which the report is told.
        """
        stage = _component(task)
        settings = self.target.stage(stage)
        task.set_container_image(self.image(_variant(task.container_spec.image, settings)))
        task.set_env_variable(RUNS_VARIABLE, self.runs)
        task.set_env_variable(TASK_VARIABLE, shown_name(task))
        task.set_env_variable(IMAGE_VARIABLE, task.container_spec.image)
        if any(isinstance(given, LoopParameterArgument) for given in task.inputs.values()):
            task.set_env_variable(LOOPED_VARIABLE, "1")
        if stage == "report":
            plan: dict[str, Any] = {
                "problem": self.problem,
                "pipeline": self.pipeline,
                "target": self.target.kind,
                "stages": list(stages),
            }
            if self.target.prices is not None:
                plan["tariff"] = asdict(self._tariff(stages, self.target.prices))
            task.set_env_variable(PLAN_VARIABLE, json.dumps(plan))
        _size(task, settings, self.target.kind == "vertex")
        if settings.retries is not None and stage != "gate":  # what a gate refused it would refuse again
            again = settings.retries
            longest = _WEEK_S if self.target.kind == "kubernetes" else again.max_backoff_s
            task.set_retry(again.count, f"{again.backoff_s}s", again.factor, f"{longest}s")
        # A stage that is never cached stays so; a gate leaves nothing by which a reused result could be reported.
        if settings.cache is False or stage == "gate":
            task.set_caching_options(False)
        if self.target.kind == "kubernetes":
            self._on_kubernetes(task, settings, by_job=stage == "train" and self.target.training is not None)

    def _tariff(self, stages: Mapping[str, str], prices: Prices) -> Tariff:
        hourly = {name: stage_rate(component, self.target, prices) for name, component in stages.items()}
        return Tariff(prices.currency, prices.cpu_hour, prices.gib_hour, hourly)

    def _on_kubernetes(self, task: Any, settings: StageSettings, by_job: bool) -> None:
        cluster = self.target.on_kubernetes
        kubernetes.use_field_path_as_env(task, RUN_VARIABLE, _RUN_LABEL)
        kubernetes.mount_pvc(task, cluster.store_claim, _STORE)
        kubernetes.empty_dir_mount(task, "tmp", "/tmp")  # the root file system is read-only
        kubernetes.set_security_context(task, run_as_user=USER, run_as_group=USER, run_as_non_root=True)
        if by_job:
            kubernetes.use_field_path_as_env(task, WORKFLOW_VARIABLE, _WORKFLOW_LABEL)
        for key, value in self.target.labels.items():
            kubernetes.add_pod_label(task, key, value)
        if cluster.image_pull_secrets:
            kubernetes.set_image_pull_secrets(task, list(cluster.image_pull_secrets))
        if settings.timeout_s is not None:
            kubernetes.set_timeout(task, settings.timeout_s)
        nodes = dict(settings.accelerator.node) if settings.accelerator else {}
        if settings.machine is not None:
            nodes["node.kubernetes.io/instance-type"] = settings.machine
        if settings.spot:
            nodes |= cluster.spot.node
            kubernetes.add_toleration(task, operator="Equal", **cluster.spot.toleration)
        if settings.accelerator:
            kubernetes.add_toleration(task, key=settings.accelerator.type, operator="Exists", effect="NoSchedule")
        for key, value in nodes.items():
            kubernetes.add_node_selector(task, key, value)


def settled(pipeline: Any, settlement: Settlement) -> Callable[..., Any]:
    """Returns the function of a KFP pipeline, with each of its tasks settled."""

    @functools.wraps(pipeline.pipeline_func)
    def function(*arguments: Any, **keywords: Any) -> None:
        pipeline.pipeline_func(*arguments, **keywords)
        # The one look into KFP's compiler: the pipeline that is being built knows its tasks.
        tasks = [t for t in pipeline_context.Pipeline.get_default_pipeline().tasks.values() if t.container_spec]
        stages = {shown_name(task): _component(task) for task in tasks}
        for task in tasks:
            settlement.settle(task, stages)

    return function


def shown_name(task: Any) -> str:
    """Returns the name of a task as people see it."""
    return str(task._task_spec.display_name or task.name)


def _component(task: Any) -> str:
    """Returns the name by which a target's file knows a task's component."""
    return str(task.component_spec.name).replace("-", "_")


def _variant(image: str, settings: StageSettings) -> str:
    """Returns the image that can use the stage's accelerator: ``tidemill/tensorflow-gpu:…`` for tensorflow's."""
    if settings.accelerator is None:
        return image
    variant = "tpu" if settings.accelerator.is_tpu else "gpu"
    return image.replace(TENSORFLOW, TENSORFLOW.replace("tensorflow:", f"tensorflow-{variant}:"))


def _size(task: Any, settings: StageSettings, by_machine: bool) -> None:
    if settings.cpu is not None:
        task.set_cpu_limit(settings.cpu)
    if settings.memory is not None:
        task.set_memory_limit(settings.memory)
    size = machine_size(settings.machine) if by_machine and settings.machine is not None else None
    if size is not None:
        task.set_cpu_limit(str(size[0]))
        task.set_memory_limit(f"{size[1]:g}G")
    if settings.accelerator is not None:
        task.set_accelerator_type(settings.accelerator.type)
        task.set_accelerator_limit(settings.accelerator.count)
