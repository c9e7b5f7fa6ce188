"""Releases by hand: a run of one task in the cluster, where the registry is."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tidemill.images import SERVING
from tidemill_pipelines.targets.compilation import Package, image, places, runs_directory
from tidemill_pipelines.targets.config import TargetConfig
from tidemill_pipelines.targets.kubernetes.release import release_settings

TASK = "roll-out"


def rollout_package(
    config: TargetConfig, model: str, version: int, back: bool, traffic_percent: int, control: str | None
) -> Package:
    """Returns the compiled pipeline that releases a version, or goes back from one.

    Args:
        version: 0 means the challenger.
        back: whether ``version`` is to be left.
        control: the image to run in; as the target's file says if None.
    """
    from kfp import compiler, dsl

    from tidemill.kserve.component import roll_out
    from tidemill_pipelines.targets.settlement import Settlement, settled

    where = places(config)
    settings = release_settings(config, image(SERVING, config, None))

    @dsl.pipeline(name=f"{model}-rollout", description="Releases a version by hand, or goes back from one.")
    def rollout():  # type: ignore[no-untyped-def]  # KFP reads an annotation as an output
        task = roll_out(
            model=model,
            version=version,
            back=back,
            traffic_percent=traffic_percent,
            registry=where["registry"],
            endpoints=where["endpoints"],
            settings=settings,
        )
        task.set_caching_options(False)

    settlement = Settlement(
        config, lambda name: control or image(name, config, None), model, "rollout", runs_directory(config)
    )
    made = dsl.pipeline(name=f"{model}-rollout")(settled(rollout, settlement))
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "rollout.yaml"
        compiler.Compiler().compile(made, str(path))
        return Package(path.read_text(encoding="utf-8"))
