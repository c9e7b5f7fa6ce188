"""Training on machines of its own: what its task should not ask for, and what must be there for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from tidemill_pipelines.targets.checking.findings import Told, check
from tidemill_pipelines.targets.checking.resources import cpu_limit, memory_limit
from tidemill_pipelines.targets.checking.subject import Subject, Task
from tidemill_pipelines.targets.config import KubernetesTraining

_WATCHING_CORES: Final = 4.0
_WATCHING_MEMORY: Final = 16e9
_TPU_LABELS: Final = ("cloud.google.com/gke-tpu-accelerator", "cloud.google.com/gke-tpu-topology")


@check(
    "training-accelerator",
    "error",
    "`stages.train` asks for an accelerator although `training` has machines of its own: the task only watches them.",
)
def training_accelerator(subject: Subject) -> Iterator[Told]:
    for task in _watching(subject):
        if subject.settings(task).accelerator is not None:
            yield Told(task.name, "asks for an accelerator, and trains on other machines", "move it to `training`")


@check(
    "training-task-size",
    "warning",
    "The task that watches a training holds more than 4 processors or 16 GB, and uses next to nothing of them.",
)
def training_task_size(subject: Subject) -> Iterator[Told]:
    for task in _watching(subject):
        cores, memory = cpu_limit(task) or 0, memory_limit(task) or 0
        if cores > _WATCHING_CORES or memory > _WATCHING_MEMORY:
            cure = "give the size to `training`, and `stages.train` 1 processor and 2Gi"
            yield Told(task.name, f"holds {cores:g} processors and {memory / 1e9:.0f} GB to watch a training", cure)


@check(
    "training-deadline",
    "warning",
    "The task's time ends before that of its TrainJobs, `max_restarts` included: one goes on, its model unfetched.",
    ["kubernetes"],
)
def training_deadline(subject: Subject) -> Iterator[Told]:
    training = _on_kubernetes(subject)
    for task in _watching(subject) if training else ():
        limit = int(task.platform.get("activeDeadlineSeconds", 0))
        jobs = 1 + training.max_restarts if training else 0
        whole = jobs * training.deadline_s if training else 0
        if limit and limit < whole:
            cure = f"let `stages.train.timeout_s` be {whole} or more, or `training.deadline_s` or `max_restarts` less"
            yield Told(task.name, f"ends after {limit} s, its TrainJobs ({jobs}) after up to {whole} s", cure)


@check(
    "training-spot",
    "warning",
    "Training on spot nodes with neither `max_restarts` nor retries of the task: it is lost with its last restart.",
    ["kubernetes"],
)
def training_spot(subject: Subject) -> Iterator[Told]:
    training = _on_kubernetes(subject)
    for task in _watching(subject) if training else ():
        if training and training.spot and training.max_restarts == 0 and not task.spec.get("retryPolicy"):
            cure = "let `training.max_restarts` be 1 or more, or give `stages.train` retries"
            yield Told(task.name, "trains on nodes that may be taken away, and is not tried again", cure)


@check(
    "training-resource",
    "error",
    "`training.accelerator.type` is no resource of Kubernetes, such as nvidia.com/gpu.",
    ["kubernetes"],
)
def training_resource(subject: Subject) -> Iterator[Told]:
    training = _on_kubernetes(subject)
    if training and training.accelerator and "/" not in training.accelerator.type:
        cure = "use nvidia.com/gpu or google.com/tpu, and `accelerator.node` for the model"
        yield Told("train", f"its nodes ask for {training.accelerator.type}, which is no resource of Kubernetes", cure)


@check(
    "training-tpu-topology",
    "error",
    "TPUs without the labels of their type and topology: GKE admits no such pod.",
    ["kubernetes"],
)
def training_tpu_topology(subject: Subject) -> Iterator[Told]:
    training = _on_kubernetes(subject)
    if training and training.accelerator and training.accelerator.is_tpu:
        missing = [label for label in _TPU_LABELS if label not in training.accelerator.node]
        if missing:
            cure = "add tpu-v5-lite-podslice and 2x4, say, to `training.accelerator.node`"
            yield Told("train", f"its node is not told by {' and '.join(missing)}", cure)


@check(
    "training-needs",
    "note",
    "A TrainJob needs its TrainingRuntime, and its queue where it has one, in the namespace.",
    ["kubernetes"],
)
def training_needs(subject: Subject) -> Iterator[Told]:
    training = _on_kubernetes(subject)
    if training:
        runtime = training.runtime or f"tidemill-tensorflow{training.suffix}"
        queue = f" and the LocalQueue {training.queue}" if training.queue else ""
        namespace = subject.target.on_kubernetes.namespace
        cure = "see manifests/README.md: the overlays prod, gpu and tpu have them"
        yield Told("train", f"needs the TrainingRuntime {runtime}{queue} in namespace {namespace}", cure)


def _on_kubernetes(subject: Subject) -> KubernetesTraining | None:
    training = subject.target.training
    return training if isinstance(training, KubernetesTraining) else None


def _watching(subject: Subject) -> list[Task]:
    """Returns the tasks that watch a training, if it has machines of its own."""
    return [task for task in subject.containers if task.stage == "train"] if subject.target.training else []


CHECKS: Final = (
    training_accelerator,
    training_task_size,
    training_deadline,
    training_spot,
    training_resource,
    training_tpu_topology,
    training_needs,
)
