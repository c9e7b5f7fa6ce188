"""What a target's file says of models and endpoints, as the release steps are told it."""

from __future__ import annotations

from tidemill.errors import UsageError
from tidemill.vertex.settings import Settings
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
