"""Training as a custom job of Vertex AI: pool 0 is the chief, pool 1 the other workers, pool 2 the reduction server.

Vertex AI sets TF_CONFIG in every container: ``chief`` for pool 0, ``worker`` for pool 1 and ``ps`` for pool 2.
Source: https://cloud.google.com/vertex-ai/docs/training/distributed-training
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tidemill.errors import PlatformError, UsageError, UserError
from tidemill.jobs.job import ENDED, Denied, JobState, JobStatus, TrainingJob
from tidemill.jobs.watch import blamed
from tidemill.vertex.clients import Clients
from tidemill.vertex.faults import fault
from tidemill.vertex.job_logs import JobLogs
from tidemill.vertex.sdk import api_errors
from tidemill.vertex.training import TrainingSettings

JOB_LABEL: Final = "tidemill-job"
CONTENT_LABEL: Final = "tidemill-content"
WORKER: Final = ("python3", "-m", "tidemill.train.worker")
MOUNT: Final = "/gcs"
"""Where Vertex AI has Cloud Storage as a file system, in the containers of pipelines and of custom jobs."""
Method = Callable[..., Any]
_STATES: Final[Mapping[str, JobState]] = {
    "JOB_STATE_QUEUED": "pending",
    "JOB_STATE_PENDING": "pending",
    "JOB_STATE_PAUSED": "pending",
    "JOB_STATE_RUNNING": "running",
    "JOB_STATE_UPDATING": "running",
    "JOB_STATE_CANCELLING": "running",
    "JOB_STATE_SUCCEEDED": "succeeded",
    "JOB_STATE_PARTIALLY_SUCCEEDED": "succeeded",
    "JOB_STATE_FAILED": "failed",
    "JOB_STATE_EXPIRED": "failed",
    "JOB_STATE_CANCELLED": "cancelled",
}
_WAITS: Final = {
    "JOB_STATE_QUEUED": "queued: until the project's quotas for custom training have room for it",
    "JOB_STATE_PENDING": "its machines are being prepared",
    "JOB_STATE_CANCELLING": "is being cancelled",
}
_OVER: Final = ("JOB_STATE_CANCELLING", *(name for name, state in _STATES.items() if state in ENDED))
_STRATEGIES: Final = {"standard": "STANDARD", "spot": "SPOT", "flex_start": "FLEX_START"}
_RESERVATION_KEY: Final = "compute.googleapis.com/reservation-name"


class NamedJobs:
    """Jobs of Vertex AI of one kind, found again by the name in their label.

    Their ids are the service's, so nothing but a label says that a job is there already.
    """

    def __init__(
        self, clients: Clients, logs: JobLogs | None, kind: str, list_all: Method, get: Method, cancel: Method
    ) -> None:
        self._clients = clients
        self._logs = logs or JobLogs(clients.location)
        self._kind, self._list, self._get, self._cancel = kind, list_all, get, cancel

    def status(self, id: str) -> JobStatus:
        try:
            found = self._job(id, api_errors().NotFound)
        except api_errors().NotFound:
            return JobStatus("cancelled", "it is no longer there")
        state = _STATES.get(found.state.name, "pending")
        told = found.error.message or _WAITS.get(found.state.name)
        if state in ("failed", "cancelled"):
            told = f"{found.state.name}: {told}" if told else found.state.name
        return JobStatus(state, told)

    def logs(self, id: str) -> Iterator[str]:
        yield from self._logs.read(id.rsplit("/", 1)[-1])

    def cancel(self, id: str) -> None:
        try:
            self._clients.ask(f"{self._kind} {id}", self._cancel, {"name": id}, api_errors().FailedPrecondition)
        except api_errors().FailedPrecondition as error:
            if self._job(id).state.name not in _OVER:
                raise fault(f"{self._kind} {id}", error, self._clients.location) from error

    def place(self, id: str) -> str:
        return self._clients.location.console(f"training/{id.rsplit('/', 1)[-1]}")

    def _made(self, wanted: Mapping[str, Any], create: Method, field: str) -> str:
        """Returns the resource name of the job that was made before for the same, or is made now."""
        where = f"{self._kind} {wanted['display_name']}"
        request = {"parent": self._clients.location.path, field: wanted}
        forbidden = api_errors().Forbidden
        try:
            made = self._clients.ensure(
                where,
                lambda: self._find(where, wanted, forbidden),
                lambda: self._clients.once(where, create, request, forbidden),
            )
        except forbidden as error:
            told = fault(where, error, self._clients.location)
            raise Denied(told.where, told.expected, told.got, told.remedy) from error
        return str(made.name)

    def _job(self, id: str, passing: Any = ()) -> Any:
        return self._clients.ask(f"{self._kind} {id}", self._get, {"name": id}, passing)

    def _find(self, where: str, wanted: Mapping[str, Any], passing: Any) -> Any | None:
        """Returns the job that was made for the same before, and sees to it that no other one of its name runs.

        Two jobs would write the same checkpoints. One that failed or was cancelled is begun anew by another.
        """
        request = {
            "parent": self._clients.location.path,
            "filter": f'labels.{JOB_LABEL}="{wanted["labels"][JOB_LABEL]}"',
            "read_mask": {"paths": ["name", "state", "labels", "create_time"]},
        }
        jobs = self._clients.ask_all(where, self._list, request, passing=passing)
        for job in sorted(jobs, key=lambda job: job.create_time, reverse=True):
            state = _STATES.get(job.state.name, "pending")
            if state in ("failed", "cancelled"):
                continue
            same = job.labels.get(CONTENT_LABEL) == wanted["labels"][CONTENT_LABEL]
            if same and job.state.name != "JOB_STATE_CANCELLING":
                return job
            if state != "succeeded":
                self._end(where, job.name)
        return None

    def _end(self, where: str, id: str) -> None:
        """Cancels a job and waits a little for its end: whoever asked for another one asks again."""
        self.cancel(id)
        deadline = time.monotonic() + self._clients.patience.unavailable
        while (status := self.status(id)).state not in ENDED:
            if time.monotonic() > deadline:
                raise PlatformError(where, f"{id}, which was cancelled, must end first", status.detail, "try again")
            time.sleep(self._clients.patience.poll)


class CustomJobs(NamedJobs):
    """Custom jobs of a project's region; implements `tidemill.jobs.job.Launcher`."""

    def __init__(
        self,
        clients: Clients,
        settings: TrainingSettings,
        logs: JobLogs | None = None,
        watched: Path | None = None,
        mount: str = MOUNT,
    ) -> None:
        """Makes no call.

        Args:
            logs: what reads the jobs' logs; Cloud Logging of the location's project by default.
            watched: directory with the workers' records: the user's fault ends the job at once.
            mount: where this machine sees Cloud Storage.
        """
        super().__init__(
            clients,
            logs,
            "training job",
            clients.jobs.list_custom_jobs,
            clients.jobs.get_custom_job,
            clients.jobs.cancel_custom_job,
        )
        self._settings, self._watched, self._mount = settings, watched, mount

    def submit(self, job: TrainingJob) -> str:
        """Makes the job, or finds the one of that name that hasn't failed; returns its resource name."""
        wanted = custom_job(self._settings, job, self._mount)
        return self._made(wanted, self._clients.jobs.create_custom_job, "custom_job")

    def status(self, id: str) -> JobStatus:
        status = super().status(id)
        if status.state == "running" and self._watched is not None and isinstance(blamed(self._watched), UserError):
            # Vertex AI knows no exit code that means never: it starts a worker that failed again, up to five times.
            # Source: https://cloud.google.com/vertex-ai/docs/training/understanding-training-service
            self.cancel(id)
            return JobStatus("failed", "ended, since to start its workers again would not help")
        return status


def custom_job(settings: TrainingSettings, job: TrainingJob, mount: str = MOUNT) -> dict[str, Any]:
    """Returns the CustomJob that a training asks for.

    Raises:
        UsageError: if the workers couldn't see the directory that they share with the watcher.
    """
    return named(settings, job, {"job_spec": job_spec(settings, job, mount)})


def named(settings: TrainingSettings, job: TrainingJob, content: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a job of that content with its name, labels and key."""
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]
    wanted = {
        "display_name": job.name,
        "labels": {**settings.labels, **job.labels, JOB_LABEL: job.name, CONTENT_LABEL: digest},
        **content,
    }
    if settings.cmek_key is not None:
        wanted["encryption_spec"] = {"kms_key_name": settings.cmek_key}
    return wanted


def job_spec(
    settings: TrainingSettings, job: TrainingJob, mount: str = MOUNT, command: Sequence[str] = WORKER
) -> dict[str, Any]:
    """Returns the CustomJobSpec: what runs, on which machines, and how they are come by.

    Raises:
        UsageError: if the containers couldn't see the directory that they share with the watcher.
    """
    chosen, shared = settings.training, str(job.shared)
    if not shared.startswith(f"{mount}/"):
        remedy = "on Vertex AI a task's artefacts lie in Cloud Storage: `pipeline_root` must begin with gs://"
        raise UsageError(f"training job {job.name}", f"its directory must be below {mount}", shared, remedy)
    spec: dict[str, Any] = {
        "worker_pool_specs": _pools(settings, job, command),
        "scheduling": _scheduling(settings),
        # Vertex AI makes AIP_TENSORBOARD_LOG_DIR of it, whose content it sends to `tensorboard`.
        "base_output_directory": {"output_uri_prefix": f"gs:/{shared.removeprefix(mount)}"},
        "service_account": settings.service_account,
        "network": settings.network,
        "reserved_ip_ranges": list(chosen.reserved_ip_ranges) or None,
        "tensorboard": chosen.tensorboard,
        "persistent_resource_id": chosen.persistent_resource,
    }
    return {name: value for name, value in spec.items() if value is not None}


def _pools(settings: TrainingSettings, job: TrainingJob, command: Sequence[str]) -> list[dict[str, Any]]:
    chosen = settings.training
    pool = {
        "machine_spec": _machine(settings),
        "container_spec": {
            "image_uri": settings.image,
            "command": list(command),
            "args": list(job.arguments),
            "env": [{"name": name, "value": value} for name, value in sorted(job.environment.items())],
        },
    }
    pools = [{**pool, "replica_count": 1}]
    if job.workers > 1:
        pools.append({**pool, "replica_count": job.workers - 1})
    if (server := chosen.reduction_server) is not None and job.workers > 1:
        machine = {"machine_type": server.machine}
        container = {"image_uri": server.image}
        pools.append({"machine_spec": machine, "container_spec": container, "replica_count": server.replicas})
    return pools


def _machine(settings: TrainingSettings) -> dict[str, Any]:
    chosen = settings.training
    machine: dict[str, Any] = {"machine_type": chosen.machine}
    if chosen.gpus is not None:
        machine["accelerator_type"], machine["accelerator_count"] = chosen.gpus
    if chosen.topology is not None:
        machine["tpu_topology"] = chosen.topology
    if chosen.reservation == "any":
        machine["reservation_affinity"] = {"reservation_affinity_type": "ANY_RESERVATION"}
    elif chosen.reservation is not None:
        machine["reservation_affinity"] = {
            "reservation_affinity_type": "SPECIFIC_RESERVATION",
            "key": _RESERVATION_KEY,
            "values": [chosen.reservation],
        }
    return machine


def _scheduling(settings: TrainingSettings) -> dict[str, Any]:
    chosen = settings.training
    scheduling: dict[str, Any] = {
        "strategy": _STRATEGIES[chosen.strategy],
        "restart_job_on_worker_restart": chosen.restarts_together,
        "disable_retries": not chosen.retries,
    }
    if chosen.timeout_s is not None:
        scheduling["timeout"] = {"seconds": chosen.timeout_s}
    if chosen.max_wait_s is not None:
        scheduling["max_wait_duration"] = {"seconds": chosen.max_wait_s}
    return scheduling
