"""The pipeline job that a task belongs to."""

from __future__ import annotations

from typing import Final

from tidemill.errors import TidemillError
from tidemill.vertex.clients import Clients

_OVER: Final = ("PIPELINE_STATE_CANCELLING", "PIPELINE_STATE_CANCELLED", "PIPELINE_STATE_FAILED")


def run_is_over(clients: Clients, run_id: str) -> bool:
    """Tells whether a run was cancelled or has failed; where that can't be known, that it goes on."""
    name = f"{clients.location.path}/pipelineJobs/{run_id}"
    try:
        run = clients.ask(f"run {run_id}", clients.pipelines.get_pipeline_job, {"name": name})
    except TidemillError as error:
        print(f"it is not known whether the run was cancelled: {error}", flush=True)
        return False
    return run.state.name in _OVER
