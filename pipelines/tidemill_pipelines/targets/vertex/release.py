"""The release into Vertex AI's Model Registry and endpoints, as the pipelines are compiled with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from kfp import dsl

from tidemill.images import TENSORFLOW, variant
from tidemill.train import component as in_the_task
from tidemill.vertex import component as by_job
from tidemill.vertex.component import deploy, find_champion, register
from tidemill.vertex.training import TrainingSettings, VertexTraining
from tidemill_pipelines.release import Release
from tidemill_pipelines.targets.config import TargetConfig
from tidemill_pipelines.targets.vertex.settings import release_settings


def vertex_release(
    config: TargetConfig, serving_image: str, image: Callable[[str], str] = lambda name: name
) -> Release:
    """Returns the release components, with the target's constants. Imports none of Google's libraries.

    Args:
        serving_image: reference of the environment `serving`.
        image: the reference that takes the place of a component's image.

    Raises:
        UsageError: if the target's `deploy` can't be meant.
    """
    return Release(
        find_champion,
        by_job.train if config.training else in_the_task.train,
        register,
        deploy,
        scheduled=dsl.PIPELINE_JOB_SCHEDULE_TIME_UTC_PLACEHOLDER,
        created=dsl.PIPELINE_JOB_CREATE_TIME_UTC_PLACEHOLDER,
        settings={
            name: value for name, value in asdict(release_settings(config, serving_image)).items() if value is not None
        },
        training=training_settings(config, image) if config.training else None,
    )


def training_settings(config: TargetConfig, image: Callable[[str], str]) -> dict[str, Any]:
    """Returns what the train task is told where a custom job trains; what is unset is left out."""
    training, vertex = config.training, config.on_vertex
    assert isinstance(training, VertexTraining)
    suffix = "-tpu" if training.on_tpu else "-gpu" if training.gpus else ""
    settings = TrainingSettings(
        training=training,
        location=f"projects/{vertex.project or ''}/locations/{vertex.region or ''}",
        image=training.image or image(variant(TENSORFLOW, suffix)),
        labels=dict(config.labels),
        service_account=training.service_account or config.service_account,
        network=vertex.network,
        cmek_key=vertex.cmek_key,
    )
    return settings.model_dump(mode="json", exclude_none=True)
