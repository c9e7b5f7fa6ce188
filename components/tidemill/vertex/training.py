"""What a training on machines of its own runs on, and the rules of Vertex AI for it.

Each rule says where it is written; what is refused here would be refused by the service, or would never end well.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal

from pydantic import Field, ValidationError, model_validator

from tidemill.errors import UsageError
from tidemill.features import Strict
from tidemill.vertex.location import Location
from tidemill.vertex.machines import ATTACHABLE, TOPOLOGIES, built_in, is_tpu

WEEK_S: Final = 7 * 24 * 3600
_FLEXIBLE: Final = ("L4", "A100", "H100", "H200", "B200")
_RESERVATION: Final = r"^(any|projects/[^/]+/zones/[^/]+/reservations/[^/]+)$"
_TENSORBOARD: Final = r"^projects/[^/]+/locations/[^/]+/tensorboards/[^/]+$"


class Accelerator(Strict):
    """GPUs of one type."""

    type: str = Field(description="NVIDIA_TESLA_T4, as Vertex AI calls it.")
    count: int = Field(default=1, ge=1, le=16, description="Of each machine.")


class ReductionServer(Strict):
    """Machines that add up the gradients of the others, so that each of these sends them once."""

    replicas: int = Field(ge=1)
    machine: str = "n1-highcpu-16"
    image: str = Field(min_length=1, description="Google's, by the address that its page on reduction server has.")


class VertexTraining(Strict):
    """Training as a custom job of Vertex AI, on machines of its own."""

    kind: Literal["vertex"] = "vertex"
    workers: int = Field(default=1, ge=1, description="Machines, the chief included.")
    machine: str = Field(default="n1-standard-8", description="Type of each; ct5lp-hightpu-4t for TPU v5e.")
    accelerator: Accelerator | None = Field(
        default=None, description="GPUs of each n1 machine. The types that have GPUs or TPUs of their own say it."
    )
    image: str | None = Field(
        default=None, description="Of the workers; tidemill's own for the accelerator by default."
    )
    reduction_server: ReductionServer | None = Field(
        default=None, description="For GPUs of several machines; the image needs NCCL's plugin for it."
    )
    strategy: Literal["standard", "spot", "flex_start"] = Field(
        default="standard",
        description="spot: cheaper machines that may be taken away. flex_start: waits for GPUs to be free.",
    )
    max_wait_s: int | None = Field(
        default=None, ge=0, description="flex_start only: how long to wait for machines; 0 for ever. A day by default."
    )
    timeout_s: int | None = Field(default=None, ge=1, le=WEEK_S, description="A week by default, and at most.")
    retries: bool = Field(
        default=True, description="Whether Vertex AI starts a worker again that failed or lost its machine."
    )
    reservation: str | None = Field(
        default=None,
        pattern=_RESERVATION,
        description="`any`, or projects/<p>/zones/<z>/reservations/<name>: machines that Compute Engine holds for you.",
    )
    persistent_resource: str | None = Field(
        default=None, pattern=r"^[a-z][a-z0-9-]{0,62}$", description="Id of a cluster that is there already."
    )
    tensorboard: str | None = Field(
        default=None, pattern=_TENSORBOARD, description="projects/<p>/locations/<region>/tensorboards/<id>."
    )
    reserved_ip_ranges: tuple[str, ...] = Field(default=(), description="Of `vertex.network`, by name.")
    service_account: str | None = Field(default=None, description="What the workers run as; the target's by default.")

    managed_tuning: bool = Field(
        default=False, description="Whether a tuning is Vertex AI's own job, not the pipeline's rounds of trials."
    )

    @model_validator(mode="after")
    def _possible(self) -> VertexTraining:
        if faults := [*self._machine_faults(), *self._scheduling_faults(), *self._server_faults()]:
            raise ValueError("; ".join(faults))
        return self

    @property
    def on_tpu(self) -> bool:
        return is_tpu(self.machine)

    @property
    def topology(self) -> str | None:
        """How a machine's TPUs are connected; None without TPUs."""
        return TOPOLOGIES.get(self.machine)

    @property
    def gpus(self) -> tuple[str, int] | None:
        """Type and number of each machine's GPUs."""
        if self.accelerator is not None:
            return self.accelerator.type, self.accelerator.count
        return built_in(self.machine)

    @property
    def restarts_together(self) -> bool:
        """Whether all workers start again when one of them has to: alone it couldn't join the others again."""
        return self.retries and (self.workers > 1 or self.strategy == "spot")

    def _machine_faults(self) -> Iterator[str]:
        if self.on_tpu:
            yield from self._tpu_faults()
            return
        if re.match(r"(a\d\w?|g2|g4)-", self.machine):
            own = built_in(self.machine)
            if own is None:
                yield f"there is no machine {self.machine}"
            elif self.accelerator is not None and self.gpus != own:
                yield f"{self.machine} has {own[1]} x {own[0]}: leave `accelerator` out"
        elif self.accelerator is not None:
            kind, count = self.accelerator.type, self.accelerator.count
            if kind not in ATTACHABLE:
                yield f"`accelerator.type` of {self.machine} must be one of {', '.join(ATTACHABLE)} (got {kind})"
            elif not self.machine.startswith("n1-"):
                yield f"{kind} can be attached to n1 machines only, not to {self.machine}"
            elif count not in ATTACHABLE[kind]:
                yield f"a machine has {' or '.join(map(str, ATTACHABLE[kind]))} of {kind}, not {count}"

    def _tpu_faults(self) -> Iterator[str]:
        """Source: https://cloud.google.com/vertex-ai/docs/training/training-with-tpu-vm"""
        if self.machine not in TOPOLOGIES:
            yield f"TensorFlow trains on {', '.join(TOPOLOGIES)} (TPU v5e), not on {self.machine}"
            return
        if self.accelerator is not None:
            yield f"{self.machine} says which TPUs it has: leave `accelerator` out"
        if self.workers > 1:
            yield "`workers` must be 1 on TPUs: TensorFlow reaches the chips of one machine here"
        if self.strategy == "flex_start":
            yield "flex_start is for GPUs, not TPUs"
        if self.persistent_resource is not None:
            # https://cloud.google.com/vertex-ai/docs/training/persistent-resource-overview: machines and GPUs
            yield "a persistent resource has no TPUs"

    def _scheduling_faults(self) -> Iterator[str]:
        if self.strategy == "flex_start" and not self.on_tpu:
            # https://cloud.google.com/vertex-ai/docs/training/schedule-jobs-dws
            kind = self.gpus[0] if self.gpus else "no GPU"
            if not any(name in kind.split("_") for name in _FLEXIBLE):
                yield f"flex_start is for GPUs of the types {', '.join(_FLEXIBLE)}, not for {kind}"
            if self.reduction_server is not None:
                yield "flex_start needs the same machine in all pools: leave `reduction_server` out"
        if self.max_wait_s is not None and self.strategy != "flex_start":
            yield "`max_wait_s` is of flex_start only"
        if self.reservation is not None:
            # https://cloud.google.com/vertex-ai/docs/training/use-reservations
            if self.strategy == "flex_start":
                yield "flex_start can't use a reservation"
            if self.strategy == "spot":  # https://cloud.google.com/compute/docs/instances/spot#limitations
                yield "spot machines can't come from a reservation"
            if self.persistent_resource is not None:
                yield "a job on a persistent resource can't use a reservation: its machines are there already"
        if self.persistent_resource is not None and self.strategy != "standard":
            yield f"{self.strategy} is for machines of the job's own, not for those of a persistent resource"

    def _server_faults(self) -> Iterator[str]:
        """Source: https://cloud.google.com/vertex-ai/docs/training/distributed-training#reduction-server"""
        if self.reduction_server is None:
            return
        if self.gpus is None:
            yield "`reduction_server` adds up what GPUs send (NCCL), and there are none"
        if self.workers < 2:
            yield "`reduction_server` is for several machines: `workers` must be 2 or more"


class TrainingSettings(Strict):
    """Constants of the train task, which it is told when it is compiled.

    Attributes:
        location: ``projects/<project>/locations/<region>``.
        image: of the workers.
        labels: for the bill.
    """

    training: VertexTraining
    location: str
    image: str
    labels: Mapping[str, str] = {}
    service_account: str | None = None
    network: str | None = None
    cmek_key: str | None = None

    @model_validator(mode="after")
    def _complete(self) -> TrainingSettings:
        region, chosen = Location.parse(self.location).region, self.training
        faults = []
        if chosen.tensorboard is not None and self.service_account is None:
            # google.cloud.aiplatform.CustomJob.submit: required with tensorboard
            faults.append("`training.tensorboard` needs a `service_account`, as which its logs are sent")
        if chosen.tensorboard is not None and f"/locations/{region}/" not in chosen.tensorboard:
            faults.append(f"`training.tensorboard` must be in {region}")
        if chosen.reservation not in (None, "any") and f"/zones/{region}-" not in str(chosen.reservation):
            faults.append(f"`training.reservation` must be in a zone of {region}")
        if chosen.reserved_ip_ranges and self.network is None:
            faults.append("`training.reserved_ip_ranges` are of a network: give `vertex.network`")
        if faults:
            raise ValueError("; ".join(faults))
        return self

    @classmethod
    def parse(cls, value: Mapping[str, Any]) -> TrainingSettings:
        """Reads what ``model_dump`` wrote. KFP hands numbers over as floats.

        Raises:
            UsageError: naming every fault.
        """
        try:
            return cls.model_validate(value)
        except ValidationError as error:
            raise settings_error(error) from error


def settings_error(error: ValidationError) -> UsageError:
    """Returns pydantic's error as one of ours."""
    told = [(".".join(map(str, fault["loc"])), fault["msg"].removeprefix("Value error, ")) for fault in error.errors()]
    return UsageError("training", "; ".join(f"{where}: {what}" if where else what for where, what in told))
