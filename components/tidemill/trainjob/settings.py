"""What a TrainJob runs on: what the pipeline's settings say, read strictly."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field, ValidationError

from tidemill.errors import UsageError
from tidemill.features import Strict


class TrainJobSettings(Strict):
    """What a launcher needs to know, beside the artefacts.

    Attributes:
        runtime: the TrainingRuntime.
        image: of the workers, by digest.
        workers: nodes of the TrainJob.
        resources: amount by resource, of each worker: cpu, memory, nvidia.com/gpu …
        node: labels that a worker's node must have.
        tolerations: of the workers' pods, as Kubernetes writes them.
        queue: Kueue's LocalQueue; without one the job starts at once.
        store_claim: volume claim with the runs' records, which the workers mount as the pipeline's tasks do.
        pull_secrets: names of Secrets for the image's registry.
        max_restarts: TrainJobs that may follow one whose own restarts are used up.
        deadline_s: seconds that one TrainJob may run.
        poll_s: seconds between two looks at the job; more while nothing happens.
        labels: on the job and its pods.
    """

    namespace: str
    image: str
    runtime: str = "tidemill-tensorflow"
    workers: int = Field(default=1, ge=1)
    resources: Mapping[str, str] = {"cpu": "4", "memory": "8Gi"}
    node: Mapping[str, str] = {}
    tolerations: tuple[Mapping[str, str], ...] = ()
    queue: str | None = None
    store_claim: str = "tidemill-store"
    pull_secrets: tuple[str, ...] = ()
    max_restarts: int = Field(default=1, ge=0)
    deadline_s: int = Field(default=86400, ge=1)
    poll_s: float = Field(default=5.0, gt=0)
    labels: Mapping[str, str] = {}

    @classmethod
    def parse(cls, value: Mapping[str, Any]) -> TrainJobSettings:
        """Reads settings as KFP hands them over, whose integers may have become floats.

        Raises:
            UsageError: naming everything that is unknown or of another type.
        """
        try:
            return cls.model_validate(value)
        except ValidationError as error:
            faults = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
            raise UsageError("settings", "; ".join(faults), str(dict(value))) from error
