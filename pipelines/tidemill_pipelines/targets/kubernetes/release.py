"""The release on a cluster: the file registry on the store's volume, and KServe."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from tidemill.kserve.settings import KserveSettings
from tidemill_pipelines.release import Release
from tidemill_pipelines.targets.config import KubernetesDeployment, TargetConfig


def kubernetes_release(config: TargetConfig, serving_image: str) -> Release:
    """Returns the release of a target.

    Args:
        serving_image: reference of the server's image. One by digest is what the version is served by, for as long as
            it lives; otherwise the ServingRuntime's is.
    """
    from kfp import dsl

    from tidemill.kserve.component import deploy
    from tidemill.register.component import find_champion, register
    from tidemill.train.component import train

    return Release(
        find_champion,
        train,
        register,
        deploy,
        scheduled=dsl.PIPELINE_JOB_SCHEDULE_TIME_UTC_PLACEHOLDER,
        created=dsl.PIPELINE_JOB_CREATE_TIME_UTC_PLACEHOLDER,
        settings=release_settings(config, serving_image),
    )


def release_settings(config: TargetConfig, serving_image: str) -> dict[str, Any]:
    """Returns the settings that the components of a release take; KFP has no nulls, so what is unset is left out."""
    deployment = config.deployment
    assert isinstance(deployment, KubernetesDeployment)
    given = deployment.model_dump(exclude={"kind"})
    settings = KserveSettings(
        **given,
        store_claim=config.on_kubernetes.store_claim,
        image=serving_image if "@sha256:" in serving_image else None,
        labels=dict(config.labels),
    )
    return {name: value for name, value in asdict(settings).items() if value is not None}
