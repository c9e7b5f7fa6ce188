"""The release on a cluster: TrainJobs if asked for, the file registry on the store's volume, and KServe."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from tidemill.images import TENSORFLOW, variant
from tidemill.kserve.settings import KserveSettings
from tidemill.trainjob.settings import TrainJobSettings
from tidemill_pipelines.release import Release
from tidemill_pipelines.targets.config import KubernetesDeployment, KubernetesTraining, TargetConfig


def kubernetes_release(
    config: TargetConfig, serving_image: str, image: Callable[[str], str] = lambda name: name
) -> Release:
    """Returns the release of a target.

    Args:
        serving_image: reference of the server's image. One by digest is what the version is served by, for as long as
            it lives; otherwise the ServingRuntime's is.
        image: the reference that takes the place of a component's image.
    """
    from kfp import dsl

    from tidemill.kserve.component import deploy
    from tidemill.register.component import find_champion, register
    from tidemill.train import component as in_the_task
    from tidemill.trainjob import component as by_trainjob

    return Release(
        find_champion,
        by_trainjob.train if config.training else in_the_task.train,
        register,
        deploy,
        scheduled=dsl.PIPELINE_JOB_SCHEDULE_TIME_UTC_PLACEHOLDER,
        created=dsl.PIPELINE_JOB_CREATE_TIME_UTC_PLACEHOLDER,
        settings=release_settings(config, serving_image),
        training=training_settings(config, image) if config.training else None,
    )


def training_settings(config: TargetConfig, image: Callable[[str], str]) -> dict[str, Any]:
    """Returns the settings that the train component takes where training is a TrainJob; what is unset is left out."""
    training, cluster = config.training, config.on_kubernetes
    assert isinstance(training, KubernetesTraining)
    resources, node, tolerations = {"cpu": training.cpu, "memory": training.memory}, {}, []
    if training.machine is not None:
        node["node.kubernetes.io/instance-type"] = training.machine
    if training.accelerator is not None:
        resources[training.accelerator.type] = str(training.accelerator.count)
        node |= training.accelerator.node
        tolerations.append({"key": training.accelerator.type, "operator": "Exists", "effect": "NoSchedule"})
    if training.spot:
        node |= cluster.spot.node
        tolerations.append({"operator": "Equal", **cluster.spot.toleration})
    settings = TrainJobSettings(
        namespace=cluster.namespace,
        image=image(variant(TENSORFLOW, training.suffix)),
        runtime=training.runtime or f"tidemill-tensorflow{training.suffix}",
        workers=training.workers,
        resources=resources,
        node=node,
        tolerations=tuple(tolerations),
        queue=training.queue,
        store_claim=cluster.store_claim,
        pull_secrets=cluster.image_pull_secrets,
        max_restarts=training.max_restarts,
        deadline_s=training.deadline_s,
        labels=dict(config.labels),
    )
    return settings.model_dump(mode="json", exclude_none=True)


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
