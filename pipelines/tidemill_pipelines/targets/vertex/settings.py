"""What a target's file says of models and endpoints, as the release steps are told it."""

from __future__ import annotations

from collections.abc import Callable

from tidemill.errors import UsageError
from tidemill.images import TENSORFLOW, variant
from tidemill.vertex.settings import Settings
from tidemill.vertex.training import TrainingSettings, VertexTraining
from tidemill_pipelines.targets.config import TargetConfig, VertexDeployment


def release_settings(config: TargetConfig, serving_image: str) -> Settings:
    """Returns what `register` and `deploy` are told of a target.

    Raises:
        UsageError: if the target's `deploy` can't be meant.
    """
    chosen, settings = config.deployment, config.on_vertex
    if not isinstance(chosen, VertexDeployment):
        raise UsageError("deploy", "must be of kind vertex", chosen.kind)
    if chosen.private and settings.network is None:
        raise UsageError("deploy.private", "needs `vertex.network`: only that reaches a private endpoint")
    accelerator = chosen.accelerator
    root = (config.pipeline_root or "gs://").rstrip("/")
    return Settings(
        models_uri=f"{root}/models",
        serving_image=serving_image,
        labels=dict(config.labels),
        endpoint=chosen.endpoint,
        machine=chosen.machine,
        accelerator=accelerator.type if accelerator else None,
        accelerator_count=accelerator.count if accelerator else 1,
        min_replicas=chosen.min_replicas,
        max_replicas=chosen.max_replicas,
        target_cpu_percent=chosen.target_cpu_percent,
        service_account=chosen.service_account,
        dedicated=chosen.dedicated,
        private=chosen.private,
        network=settings.network,
        cmek_key=settings.cmek_key,
        traffic_percent=chosen.traffic_percent,
        drain_s=chosen.drain_s,
    )


def training_settings(config: TargetConfig, image: Callable[[str], str]) -> TrainingSettings:
    """Returns what the train task is told of a target where a custom job trains.

    Args:
        image: the reference that takes the place of a component's image.

    Raises:
        UsageError: if the target's `training` can't be meant.
    """
    chosen, vertex = config.training, config.on_vertex
    if not isinstance(chosen, VertexTraining):
        raise UsageError("training", "must be of kind vertex", chosen.kind if chosen else "nothing")
    suffix = "-tpu" if chosen.on_tpu else "-gpu" if chosen.gpus else ""
    return TrainingSettings.parse(
        {
            "training": chosen.model_dump(),
            "location": f"projects/{vertex.project or ''}/locations/{vertex.region or ''}",
            "image": chosen.image or image(variant(TENSORFLOW, suffix)),
            "labels": dict(config.labels),
            "service_account": chosen.service_account or config.service_account,
            "network": vertex.network,
            "cmek_key": vertex.cmek_key,
        }
    )
