"""The release into Vertex AI's Model Registry and endpoints, as the pipelines are compiled with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict

from kfp import dsl

from tidemill.train import component as in_the_task
from tidemill.vertex import component as by_job
from tidemill.vertex.component import deploy, find_champion, register
from tidemill.vertex.training import VertexTraining
from tidemill_pipelines.release import Release
from tidemill_pipelines.targets.config import TargetConfig
from tidemill_pipelines.targets.vertex.settings import release_settings, training_settings


def vertex_release(
    config: TargetConfig, serving_image: str, image: Callable[[str], str] = lambda name: name
) -> Release:
    """Returns the release components, with the target's constants. Imports none of Google's libraries.

    Args:
        serving_image: reference of the environment `serving`.
        image: the reference that takes the place of a component's image.

    Raises:
        UsageError: if the target's `deploy` or `training` can't be meant.
    """
    managed = isinstance(config.training, VertexTraining) and config.training.managed_tuning
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
        training=training_settings(config, image).model_dump(mode="json", exclude_none=True)
        if config.training
        else None,
        tune=by_job.tune if managed else None,
    )
