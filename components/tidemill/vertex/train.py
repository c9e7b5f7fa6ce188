"""The train task on Vertex AI: a custom job trains, and this process stays with it to its end."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from tidemill.bundle import open_bundle
from tidemill.jobs.handover import Artefacts
from tidemill.jobs.job import TrainingJob, job_name
from tidemill.jobs.watch import Patience, Watch
from tidemill.vertex.clients import Clients
from tidemill.vertex.custom_jobs import MOUNT, CustomJobs
from tidemill.vertex.job_logs import JobLogs
from tidemill.vertex.location import Location
from tidemill.vertex.registry import RUN_LABEL, label
from tidemill.vertex.runs import run_is_over
from tidemill.vertex.training import TrainingSettings

_POLL_S: Final = 15.0
_REPLACEMENT_S: Final = 1800.0
"""How long Vertex AI may take to replace a machine, of which a job's state needn't tell."""
_RESTARTS: Final = 1
"""Jobs that may follow one that hung or failed, from the newest checkpoint, without a retry of the task."""


def train(
    artefacts: Artefacts,
    settings: Mapping[str, Any],
    shared: str | Path,
    run_id: str,
    clients: Clients | None = None,
    logs: JobLogs | None = None,
    patience: Patience | None = None,
    mount: str = MOUNT,
) -> dict[str, Any]:
    """Has the workers train, to where the task puts model and history out; returns the chief's report and the job.

    Args:
        artefacts: below the mount of Cloud Storage, where the workers see them as this process does.
        settings: of the target.
        shared: directory, likewise, that outlives a try of the task and has its name: checkpoints, heartbeats and the
            workers' records.
        run_id: of the pipeline job.
        clients: those of the location by default.
        logs: what reads the job's logs; Cloud Logging by default.
        patience: as Vertex AI deserves it by default.
        mount: where this machine sees Cloud Storage.

    Raises:
        TidemillError: as the worker raised it that is to blame.
        PlatformError: in Vertex AI's words if none left a record.
    """
    parsed = TrainingSettings.parse(settings)
    asked = clients or Clients(Location.parse(parsed.location))
    directory = Path(shared)
    training = open_bundle(artefacts.bundle).problem.training
    job = TrainingJob(
        name=job_name(run_id, directory.name),
        arguments=artefacts.arguments(directory),
        workers=parsed.training.workers,
        shared=directory,
        labels={RUN_LABEL: label(run_id)},
    )
    launcher = CustomJobs(asked, parsed, logs, watched=directory, mount=mount)
    waits = patience or waits_for(training.hang_timeout_s, parsed.training.retries)
    outcome = Watch(launcher, job, waits, lambda: run_is_over(asked, run_id)).run()
    return {**outcome.summary, "job": outcome.id, "attempts": outcome.attempts, "workers": job.workers}


def waits_for(hang_timeout_s: float, retries: bool) -> Patience:
    """Returns how long to wait for what on Vertex AI.

    Args:
        hang_timeout_s: that a worker may get nothing done, seconds.
        retries: whether Vertex AI replaces machines.
    """
    hang_s = hang_timeout_s + (_REPLACEMENT_S if retries else 0)
    return Patience(poll_s=_POLL_S, hang_s=hang_s, restarts=_RESTARTS)
