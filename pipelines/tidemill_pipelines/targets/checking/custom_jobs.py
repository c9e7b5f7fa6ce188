"""Training as a custom job of Vertex AI: the quotas that it takes, and what its workers' image must have."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from tidemill.vertex.machines import TPU
from tidemill.vertex.training import VertexTraining
from tidemill_pipelines.targets.checking.accelerators import OFFERS
from tidemill_pipelines.targets.checking.findings import Told, check
from tidemill_pipelines.targets.checking.subject import Subject

_STAGE: Final = "train"
_TRAINING: Final = "aiplatform.googleapis.com/custom_model_training_"


@check(
    "training-quota",
    "note",
    "The project needs quotas for the accelerators of the training job, which are 0 at first.",
    ["vertex"],
)
def training_quota(subject: Subject) -> Iterator[Told]:
    training = _by_custom_job(subject)
    if training is None or training.persistent_resource is not None:  # whose machines are there
        return
    region = subject.target.on_vertex.region or "the region"
    which = "quota" if training.strategy == "standard" else "preemptible quota beside"
    for kind, count in _accelerators(training):
        metric = OFFERS[kind].quota
        quota = f"{_TRAINING}{metric}" if metric else f"custom training with {kind}"
        what = f"its machines need the {which} {quota} in {region} to be at least {count}"
        yield Told(_STAGE, what, "see IAM & Admin, Quotas; ask for more there days ahead")


@check(
    "training-plugin",
    "warning",
    "A reduction server with tidemill's own image, which lacks NCCL's plugin for it: the servers would idle.",
    ["vertex"],
)
def training_plugin(subject: Subject) -> Iterator[Told]:
    training = _by_custom_job(subject)
    if training is not None and training.reduction_server is not None and training.image is None:
        cure = "build an image on top of tensorflow-gpu with google-reduction-server, and name it in `training.image`"
        yield Told(_STAGE, "its workers can't send to the reduction server", cure)


def _by_custom_job(subject: Subject) -> VertexTraining | None:
    training = subject.target.training
    return training if isinstance(training, VertexTraining) else None


def _accelerators(training: VertexTraining) -> Iterator[tuple[str, int]]:
    """Yields the type of all machines' accelerators together, and how many they are."""
    if training.on_tpu:
        yield TPU, int(training.machine.rsplit("-", 1)[-1].rstrip("t"))
    elif training.gpus is not None:
        yield training.gpus[0], training.gpus[1] * training.workers


CHECKS: Final = (training_quota, training_plugin)
