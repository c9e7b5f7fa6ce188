"""What the Beam stages of a target are told besides its own flags."""

from __future__ import annotations

from tidemill.dataflow import DataflowSettings, dataflow_flags
from tidemill.errors import UsageError
from tidemill_pipelines.targets.config import TargetConfig


def beam_flags(target: TargetConfig, image: str) -> list[str]:
    """Returns Beam's flags for a target.

    On Vertex AI, Dataflow gets the target's project, region, service account, key and labels, a place below its
    root, and its image. The target's own flags come after these, and so prevail.

    Args:
        image: reference of the ``tensorflow`` image, which is that of the workers too.

    Raises:
        UsageError: if the target lacks what Dataflow needs.
    """
    own = list(target.beam.flags)
    if target.kind != "vertex" or target.beam.runner != "dataflow":
        return own
    project, region, root = target.on_vertex.project, target.on_vertex.region, target.pipeline_root
    if not project or not region or not root:
        raise UsageError("beam.runner dataflow", "needs vertex.project, vertex.region and pipeline_root in the target")
    settings = DataflowSettings(
        project=project,
        region=region,
        temp_location=f"{root.rstrip('/')}/beam",
        image=image,
        service_account=target.service_account,
        cmek_key=target.on_vertex.cmek_key,
        labels=target.labels,
    )
    return [*dataflow_flags(settings), *own]
