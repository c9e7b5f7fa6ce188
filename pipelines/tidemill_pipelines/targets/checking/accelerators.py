"""GPUs and TPUs: whether there are such, in that number, with an image that can use them, and with a quota."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from tidemill.images import environment_of
from tidemill_pipelines.targets.checking.findings import Told, check
from tidemill_pipelines.targets.checking.resources import cpu_limit, memory_limit
from tidemill_pipelines.targets.checking.subject import Subject, Task


class Offer(NamedTuple):
    """What Vertex AI has of a type.

    Attributes:
        counts: how many a machine may have.
        quota: the quota's metric below aiplatform.googleapis.com; None where its name isn't documented.
    """

    counts: tuple[int, ...]
    quota: str | None


_TRAINING: Final = "custom_model_training_"
OFFERS: Final[Mapping[str, Offer]] = {
    "NVIDIA_TESLA_T4": Offer((1, 2, 4), "nvidia_t4_gpus"),
    "NVIDIA_TESLA_P4": Offer((1, 2, 4), "nvidia_p4_gpus"),
    "NVIDIA_TESLA_P100": Offer((1, 2, 4), "nvidia_p100_gpus"),
    "NVIDIA_TESLA_V100": Offer((1, 2, 4, 8), "nvidia_v100_gpus"),
    "NVIDIA_L4": Offer((1, 2, 4, 8), "nvidia_l4_gpus"),
    "NVIDIA_TESLA_A100": Offer((1, 2, 4, 8, 16), "nvidia_a100_gpus"),
    "NVIDIA_A100_80GB": Offer((1, 2, 4, 8), "nvidia_a100_80gb_gpus"),
    "NVIDIA_H100_80GB": Offer((1, 2, 4, 8), "nvidia_h100_gpus"),
    "NVIDIA_H100_MEGA_80GB": Offer((8,), "nvidia_h100_mega_gpus"),
    "NVIDIA_H200_141GB": Offer((8,), "nvidia_h200_gpus"),
    "NVIDIA_B200": Offer((8,), None),
    "NVIDIA_GB200": Offer((4,), None),
    "NVIDIA_RTX_PRO_6000": Offer((1, 2, 4, 8), None),
    "TPU_V2": Offer((8,), None),
    "TPU_V3": Offer((8,), "tpu_v3"),
    "TPU_V5_LITEPOD": Offer((1, 4, 8), "tpu_v5e"),
}
"""By the name in AcceleratorType of Vertex AI's API. Tasks of pipelines are custom jobs of one machine, so the quotas
are those of custom training, and pods of TPUs are left out.
Source: https://cloud.google.com/vertex-ai/docs/training/configure-compute and …/quotas"""
_ENDED: Final = {
    "NVIDIA_TESLA_K80": "its support has ended",
    "TPU_V4_POD": "a task of a pipeline is one machine, and a TPU v4 is a pod of several",
    "TPU_V6E": "TensorFlow isn't supported on it",
}


@check(
    "accelerator-unknown",
    "error",
    "Vertex AI has no accelerator of that type, or none for a task of a pipeline.",
    ["vertex"],
)
def accelerator_unknown(subject: Subject) -> Iterator[Told]:
    for task, kind, _ in _accelerated(subject):
        if kind in OFFERS or "{{" in kind:
            continue
        close = difflib.get_close_matches(kind.upper().replace("-", "_"), OFFERS, 1)
        cure = f"did you mean {close[0]}?" if close else f"use one of {', '.join(OFFERS)}"
        why = _ENDED.get(kind, "which Vertex AI doesn't know")
        yield Told(task.name, f"asks for {kind}: {why}" if kind in _ENDED else f"asks for {kind}, {why}", cure)


@check("accelerator-count", "error", "Vertex AI has no machine with that number of that accelerator.", ["vertex"])
def accelerator_count(subject: Subject) -> Iterator[Told]:
    for task, kind, count in _accelerated(subject):
        if kind in OFFERS and count is not None and count not in OFFERS[kind].counts:
            there = ", ".join(map(str, OFFERS[kind].counts))
            yield Told(task.name, f"asks for {count} of {kind}", f"ask for {there}")


@check(
    "accelerator-quota",
    "note",
    "The project needs a quota for the accelerator in the region, which is 0 at first.",
    ["vertex"],
)
def accelerator_quota(subject: Subject) -> Iterator[Told]:
    region = subject.target.on_vertex.region or "the region"
    for task, kind, count in _accelerated(subject):
        if kind in OFFERS:
            metric = OFFERS[kind].quota
            quota = f"aiplatform.googleapis.com/{_TRAINING}{metric}" if metric else f"custom training with {kind}"
            cure = "see IAM & Admin, Quotas; ask for more there days ahead"
            yield Told(task.name, f"needs the quota {quota} in {region} to be at least {count or 1}", cure)


@check(
    "accelerator-without-size",
    "warning",
    "An accelerator without processors and memory: the backend chooses them silently.",
    ["vertex"],
)
def accelerator_without_size(subject: Subject) -> Iterator[Told]:
    for task, kind, _ in _accelerated(subject):
        if cpu_limit(task) is None and memory_limit(task) is None:
            yield Told(
                task.name, f"asks for {kind} and says nothing of processors and memory", "give `cpu` and `memory`"
            )


@check(
    "accelerator-resource",
    "error",
    "On Kubernetes an accelerator is a resource with a domain, such as nvidia.com/gpu; other names are refused.",
    ["kubernetes"],
)
def accelerator_resource(subject: Subject) -> Iterator[Told]:
    for task, kind, _ in _accelerated(subject):
        if "/" not in kind and "{{" not in kind:
            cure = "use nvidia.com/gpu or google.com/tpu, and `accelerator.node` for the model"
            yield Told(task.name, f"asks for {kind}, which is no resource of Kubernetes", cure)


@check(
    "accelerator-image",
    "warning",
    "The task gets an accelerator, and its image is built for processors alone: the accelerator would idle.",
)
def accelerator_image(subject: Subject) -> Iterator[Told]:
    for task, kind, _ in _accelerated(subject):
        environment = environment_of(task.container["image"])
        variant = "tensorflow-tpu" if "tpu" in kind.lower() else "tensorflow-gpu"
        if environment in ("control", "validation", "serving"):
            yield Told(task.name, f"asks for {kind}, which nothing in its image {environment} uses", "leave it out")
        elif environment in ("tensorflow", "tensorflow-gpu", "tensorflow-tpu") and environment != variant:
            yield Told(task.name, f"asks for {kind} with the image {environment}", f"use the image {variant}")


def _accelerated(subject: Subject) -> Iterator[tuple[Task, str, int | None]]:
    """Yields the tasks with accelerators, the type and the number; None if a parameter says it."""
    for task in subject.containers:
        asked = task.resources.get("accelerator")
        if asked:
            kind = str(asked.get("resourceType") or asked.get("type") or "")
            count = str(asked.get("resourceCount") or asked.get("count") or 1)
            yield task, kind, int(count) if count.isdecimal() else None


CHECKS: Final = (
    accelerator_unknown,
    accelerator_count,
    accelerator_quota,
    accelerator_without_size,
    accelerator_resource,
    accelerator_image,
)
