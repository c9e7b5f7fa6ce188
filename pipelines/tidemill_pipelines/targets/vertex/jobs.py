"""Vertex AI's pipeline jobs, as the commands speak of runs."""

from __future__ import annotations

import copy
import hashlib
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Final

from tidemill.errors import UsageError
from tidemill.vertex.location import Location
from tidemill.vertex.sdk import json_format
from tidemill_pipelines.targets.config import TargetConfig
from tidemill_pipelines.targets.remote import RemoteRun, RemoteTask, State, Submission

REQUEST_LABEL: Final = "tidemill-request"
NAME_LABEL: Final = "tidemill-name"
CONTENT_LABEL: Final = "tidemill-content"
_LABEL_LENGTH: Final = 63
_RUN_STATES: Final[Mapping[str, State]] = {
    "PIPELINE_STATE_QUEUED": "pending",
    "PIPELINE_STATE_PENDING": "pending",
    "PIPELINE_STATE_RUNNING": "running",
    "PIPELINE_STATE_SUCCEEDED": "succeeded",
    "PIPELINE_STATE_FAILED": "failed",
    "PIPELINE_STATE_CANCELLING": "cancelling",
    "PIPELINE_STATE_CANCELLED": "cancelled",
    "PIPELINE_STATE_PAUSED": "paused",
}
_TASK_STATES: Final[Mapping[str, State]] = {
    "PENDING": "pending",
    "RUNNING": "running",
    "SUCCEEDED": "succeeded",
    "CANCEL_PENDING": "cancelling",
    "CANCELLING": "cancelling",
    "CANCELLED": "cancelled",
    "FAILED": "failed",
    "SKIPPED": "cached",  # Vertex AI's word for a task whose earlier result was reused
    "NOT_TRIGGERED": "skipped",  # … and for one whose condition did not hold, or whose predecessor failed
}


def token(request_id: str) -> str:
    """Returns the part of a job's id, and the label's value, that stand for a request id.

    It is the request id itself where that is a legal label of up to 63 lower-case letters, digits and hyphens;
    otherwise a readable part of it with a digest of the whole.
    """
    if re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", request_id):
        return request_id
    readable = re.sub(r"[^a-z0-9]+", "-", request_id.lower()).strip("-")[:40].rstrip("-")
    return f"{readable}-{hashlib.sha256(request_id.encode()).hexdigest()[:16]}".lstrip("-")


def job_id(request_id: str) -> str:
    """Returns the id of the one job that a request makes."""
    return f"tidemill-{token(request_id)}"


def pipeline_job(submission: Submission, config: TargetConfig) -> dict[str, Any]:
    """Returns the PipelineJob that a submission asks for.

    Raises:
        UsageError: if the package or the target can't run on Vertex AI.
    """
    where = f"run {submission.name}"
    documents = submission.package.documents
    if len(documents) > 1:
        remedy = "compile it with `tidemill compile … --target vertex`"
        raise UsageError(where, "Vertex AI takes one YAML document", "a platform spec as well", remedy)
    root = config.pipeline_root or documents[0].get("defaultPipelineRoot")
    if not str(root or "").startswith("gs://"):
        raise UsageError(where, "pipeline_root must begin with gs:// on Vertex AI", repr(root))
    spec = documents[0] if submission.cache is not False else _uncached(documents[0])
    known = spec["root"].get("inputDefinitions", {}).get("parameters", {})
    if unknown := sorted(submission.parameters.keys() - known.keys()):
        raise UsageError(where, f"has no parameter {', '.join(unknown)}; there are {', '.join(sorted(known))}")
    job = {
        "display_name": submission.name[:128],
        "pipeline_spec": spec,
        "labels": _labels(submission, config),
        "runtime_config": {"gcs_output_directory": root, "parameter_values": dict(submission.parameters)},
        "service_account": config.service_account,
        "network": config.on_vertex.network,
    }
    if config.on_vertex.cmek_key:
        job["encryption_spec"] = {"kms_key_name": config.on_vertex.cmek_key}
    return {key: value for key, value in job.items() if value is not None}


def _labels(submission: Submission, config: TargetConfig) -> dict[str, str]:
    labels = {
        **config.labels,
        **submission.labels,
        NAME_LABEL: re.sub(r"[^a-z0-9_-]+", "-", submission.name.lower())[:_LABEL_LENGTH],
        REQUEST_LABEL: token(submission.request_id),
        CONTENT_LABEL: submission.digest,
    }
    return dict(sorted(labels.items()))


def _uncached(spec: dict[str, Any]) -> dict[str, Any]:
    """Returns the spec with no task that reuses an earlier result."""
    changed = copy.deepcopy(spec)
    for dag in (changed["root"], *changed.get("components", {}).values()):
        for task in dag.get("dag", {}).get("tasks", {}).values():
            task["cachingOptions"] = {}
    return changed


def remote_run(job: Any, location: Location, existed: bool = False) -> RemoteRun:
    """Returns a PipelineJob as a run; with tasks where the job has its details."""
    identity = job.name.rsplit("/", 1)[-1]
    values = {
        name: json_format().MessageToDict(value)
        for name, value in type(job).pb(job).runtime_config.parameter_values.items()
    }
    return RemoteRun(
        id=identity,
        name=job.display_name,
        state=_RUN_STATES.get(job.state.name, "pending"),
        created=moment(job.create_time) or datetime.fromtimestamp(0).astimezone(),
        ended=moment(job.end_time),
        error=job.error.message or None,
        url=location.console(f"pipelines/runs/{identity}"),
        request_id=job.labels.get(REQUEST_LABEL),
        labels=dict(job.labels),
        parameters=values,
        tasks=tuple(_task(detail) for detail in tasks(job)),
        existed=existed,
    )


def tasks(job: Any) -> list[Any]:
    """Returns the details of the tasks that ran, or will, in the order of their start.

    The job itself and the groups of an exit handler or condition are listed as tasks too: they are parents.
    """
    details = list(job.job_detail.task_details)
    parents = {detail.parent_task_id for detail in details}
    own = [detail for detail in details if detail.task_id not in parents]
    return sorted(
        own, key=lambda detail: (moment(detail.start_time) is None, moment(detail.start_time), detail.task_id)
    )


def _task(detail: Any) -> RemoteTask:
    return RemoteTask(
        name=detail.task_name,
        state=_TASK_STATES.get(detail.state.name, "pending"),
        started=moment(detail.start_time),
        ended=moment(detail.end_time),
        error=detail.error.message or None,
    )


def log_pointers(job: Any, location: Location, task: str | None) -> Iterator[str]:
    """Yields per task what the API tells of it, and the command that prints what it printed.

    Raises:
        UsageError: if the run has no task of that name.
    """
    chosen = [detail for detail in tasks(job) if task in (None, detail.task_name)]
    if task is not None and not chosen:
        there = ", ".join(detail.task_name for detail in tasks(job)) or "none yet"
        raise UsageError(f"task {task}", f"run {job.name.rsplit('/', 1)[-1]} has no such task; there are {there}")
    for detail in chosen:
        yield f"{detail.task_name}: {_TASK_STATES.get(detail.state.name, 'pending')}"
        if detail.error.message:
            yield f"  {detail.error.message}"
        for worker in _workers(detail):
            condition = f'resource.type="ml_job" AND resource.labels.job_id="{worker}"'
            options = f"--project={location.project} --order=asc --format='value(textPayload,jsonPayload.message)'"
            yield f"  gcloud logging read '{condition}' {options}"
    if job.error.message:
        yield f"run: {job.error.message}"


def _workers(detail: Any) -> list[str]:
    """Returns the ids of the custom jobs that a task ran as; a task that was retried has several."""
    executor = detail.executor_detail
    names = [
        *executor.container_detail.failed_main_jobs,
        executor.container_detail.main_job,
        *executor.custom_job_detail.failed_jobs,
        executor.custom_job_detail.job,
    ]
    return [name.rsplit("/", 1)[-1] for name in names if name]


def moment(timestamp: Any) -> datetime | None:
    """Returns a message's time as a plain aware datetime, or None where it is unset."""
    if timestamp is None or timestamp.timestamp() == 0:
        return None
    return datetime.fromtimestamp(timestamp.timestamp(), tz=timestamp.tzinfo)
