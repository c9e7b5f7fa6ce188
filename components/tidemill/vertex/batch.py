"""Batch predictions by Vertex AI: a job per run and name, found again by whoever asks for it twice."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Final

from tidemill.errors import PlatformError, UsageError
from tidemill.vertex.clients import Clients
from tidemill.vertex.endpoints import resources
from tidemill.vertex.registry import MODEL_LABEL, RUN_LABEL, Version, label
from tidemill.vertex.settings import Settings

_SUCCEEDED: Final = ("JOB_STATE_SUCCEEDED", "JOB_STATE_PARTIALLY_SUCCEEDED")
_FAILED: Final = ("JOB_STATE_FAILED", "JOB_STATE_CANCELLED", "JOB_STATE_EXPIRED")


@dataclass(frozen=True)
class BatchPrediction:
    """A finished job.

    Attributes:
        job: resource name.
        directory: ``gs://…`` with ``prediction.results-*``: JSON lines of ``instance`` and ``prediction``.
        rows: that were predicted.
        failed_rows: that were not; ``prediction.errors_stats-*`` says why.
    """

    job: str
    directory: str
    rows: int
    failed_rows: int


def batch_prediction(
    clients: Clients, settings: Settings, version: Version, source: str, destination: str, run_id: str
) -> BatchPrediction:
    """Predicts every row of a JSON Lines file in Cloud Storage.

    A job that an earlier call of this run began is waited for; one that failed is begun anew.

    Args:
        source: ``gs://…jsonl``, one instance per line.
        destination: ``gs://…``, below which the job makes its own directory.

    Raises:
        UsageError: if Vertex AI refuses the job.
        PlatformError: if it fails, or isn't done in time.
    """
    for name, uri in (("source", source), ("destination", destination)):
        if not uri.startswith("gs://"):
            raise UsageError("batch prediction", f"{name} must begin with gs://", uri)
    where = f"batch prediction of {version.model} {version.number}"
    wanted = _job(settings, version, source, destination, run_id)
    name = clients.ensure(
        where,
        lambda: _running(clients, where, wanted),
        lambda: clients.once(
            where,
            clients.jobs.create_batch_prediction_job,
            {"parent": clients.location.path, "batch_prediction_job": wanted},
        ),
    ).name
    done = _wait(clients, where, name)
    stats = done.completion_stats
    return BatchPrediction(
        name, done.output_info.gcs_output_directory, int(stats.successful_count), int(stats.failed_count)
    )


def _job(settings: Settings, version: Version, source: str, destination: str, run_id: str) -> dict[str, Any]:
    asked = resources(settings)
    job: dict[str, Any] = {
        "display_name": f"{version.model}-{run_id}"[:128],
        "model": version.address,
        "labels": {**settings.labels, MODEL_LABEL: label(version.model), RUN_LABEL: label(run_id)},
        "input_config": {"instances_format": "jsonl", "gcs_source": {"uris": [source]}},
        "output_config": {"predictions_format": "jsonl", "gcs_destination": {"output_uri_prefix": destination}},
        "dedicated_resources": {
            "machine_spec": asked["machine_spec"],
            "starting_replica_count": asked["min_replica_count"],
            "max_replica_count": asked["max_replica_count"],
        },
    }
    if settings.service_account:
        job["service_account"] = settings.service_account
    if settings.encryption:
        job["encryption_spec"] = settings.encryption
    return job


def _running(clients: Clients, where: str, wanted: dict[str, Any]) -> Any | None:
    """Returns this run's job on the same input that hasn't failed, if there is one."""
    condition = f'labels.{RUN_LABEL}="{wanted["labels"][RUN_LABEL]}"'
    request = {"parent": clients.location.path, "filter": condition}
    for job in clients.ask_all(where, clients.jobs.list_batch_prediction_jobs, request):
        same = (job.display_name, list(job.input_config.gcs_source.uris)) == (
            wanted["display_name"],
            wanted["input_config"]["gcs_source"]["uris"],
        )
        if same and job.state.name not in _FAILED:
            return job
    return None


def _wait(clients: Clients, where: str, name: str) -> Any:
    deadline = time.monotonic() + clients.patience.operation
    while True:
        job = clients.ask(where, clients.jobs.get_batch_prediction_job, {"name": name})
        if job.state.name in _SUCCEEDED:
            return job
        if job.state.name in _FAILED:
            raise PlatformError(where, f"{name} must succeed", f"{job.state.name}: {job.error.message}")
        if time.monotonic() > deadline:
            remedy = "run it again: the job goes on, and is found"
            raise PlatformError(where, f"{name} must end in time", job.state.name, remedy)
        time.sleep(clients.patience.poll)
