"""TrainJobs as `tidemill.jobs` sees jobs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tidemill.errors import PlatformError, UsageError
from tidemill.jobs.handover import OUTPUTS
from tidemill.jobs.heartbeats import name_of
from tidemill.jobs.job import Denied, JobState, JobStatus, TrainingJob
from tidemill.kserve.cluster import Cluster, Missing
from tidemill.kserve.failures import Forbidden
from tidemill.trainjob.manifest import NODE, TRAINJOBS, manifest
from tidemill.trainjob.settings import TrainJobSettings

_JOBSET: Final = "jobset.sigs.k8s.io/jobset-name"
_ATTEMPT: Final = "jobset.sigs.k8s.io/restart-attempt"
_INDEX: Final = "batch.kubernetes.io/job-completion-index"
_ENDS: Final[Mapping[str, JobState]] = {"Complete": "succeeded", "Failed": "failed"}


@dataclass
class _Reading:
    """How far a log was read, whose lines begin with the time they were printed.

    Attributes:
        stamp: of the last line, such as 2026-01-01T00:00:00.123456789Z.
        count: lines of that very moment.
    """

    stamp: str = ""
    count: int = 0

    @property
    def since(self) -> str | None:
        """The second to ask for lines from: no finer time can be."""
        return f"{self.stamp[:19]}Z" if self.stamp else None

    def new(self, text: str) -> Iterator[str]:
        """Yields the lines of ``text`` that were not read before."""
        begun, known = _moment(self.stamp), self.count
        for stamp, _, line in (line.partition(" ") for line in text.splitlines()):
            if self.stamp and _moment(stamp) < begun:
                continue
            if _moment(stamp) == begun and known:
                known -= 1
                continue
            self.stamp, self.count = stamp, self.count + 1 if stamp == self.stamp else 1
            yield line


class TrainJobs:
    """Makes, observes and deletes TrainJobs. The id of one is its name.

    Args:
        owner: an ownerReference for what is made.
    """

    def __init__(self, cluster: Cluster, settings: TrainJobSettings, owner: Mapping[str, Any] | None = None) -> None:
        self._cluster, self._settings, self._owner = cluster, settings, owner
        self._readings: dict[str, _Reading] = {}
        self._refused: set[str] = set()

    def submit(self, job: TrainingJob) -> str:
        """Makes the TrainJob, or finds it.

        One that has succeeded and whose outputs are gone makes place for another: the task ended well, which removes
        them, and what it put out was lost on its way to the pipeline's root.

        Raises:
            Denied: if that is not permitted, or there are no TrainJobs on this cluster.
            UsageError: if the TrainJob is refused as it stands: its runtime doesn't exist, say.
        """
        try:
            made = self._cluster.create(TRAINJOBS, manifest(job, self._settings, self._owner))
        except Forbidden as error:
            raise Denied(error.where, error.expected, error.got, error.remedy) from error
        except Missing as error:
            remedy = "install Kubeflow Trainer, and apply manifests/; see manifests/README.md"
            raise Denied(error.where, error.expected, error.got, remedy) from error
        found = None if made else self._cluster.get(TRAINJOBS, job.name)
        if found is None:
            return job.name
        ending = "deletionTimestamp" in found["metadata"]
        if not ending and "Complete" in _conditions(found) and not (job.shared / OUTPUTS).is_dir():
            self.cancel(job.name)
            ending = True
        if ending:
            raise PlatformError(f"TrainJob {job.name}", "must be gone before another takes its name", "it is ending")
        return job.name

    def status(self, id: str) -> JobStatus:
        """Returns where the TrainJob stands; ``running`` from when all of its nodes run."""
        job = self._cluster.get(TRAINJOBS, id)
        if job is None:
            return JobStatus("cancelled", "there is no such TrainJob any more")
        conditions = _conditions(job)
        for kind, state in _ENDS.items():
            if kind in conditions:
                return JobStatus(state, self._why_failed(id, conditions[kind]) if state == "failed" else None)
        if "deletionTimestamp" in job["metadata"]:
            return JobStatus("pending", "is being deleted")
        if "Suspended" in conditions:
            return JobStatus("pending", self._why_queued(id))
        jobs = job.get("status", {}).get("jobsStatus", ())
        nodes: Mapping[str, Any] = next((s for s in jobs if s["name"] == NODE), {})
        pods = self._pods(id)
        restarts = max((int(pod["metadata"].get("labels", {}).get(_ATTEMPT, 0)) for pod in pods), default=0)
        if nodes.get("ready") or nodes.get("succeeded"):
            return JobStatus("running", restarts=restarts)
        return JobStatus("pending", _why_waiting(pods), restarts)

    def logs(self, id: str) -> Iterator[str]:
        """Yields what the nodes printed since the last call. A node that was started again is another pod.

        Where whoever asks may not read them, it yields once how to see them, and nothing more until they can be read.
        """
        for pod in self._pods(id):
            if pod["status"].get("phase") in ("Pending", "Unknown"):
                continue
            name = pod["metadata"]["name"]
            reading = self._readings.setdefault(name, _Reading())
            try:
                text = self._cluster.log(name, NODE, stamped=True, since=reading.since)
            except UsageError:  # 400: its container is only about to start
                continue
            except Forbidden as error:
                if id not in self._refused:
                    self._refused.add(id)
                    yield f"the logs of this job can't be read here: {error}"
                    yield f"  see them with: {self._shown(id)}"
                return
            yield from (f"{name_of(_index(pod))}: {line}" for line in reading.new(text or ""))

    def cancel(self, id: str) -> None:
        """Deletes the TrainJob; it is gone when its pods are."""
        self._cluster.delete(TRAINJOBS, id, dependents_first=True)

    def place(self, id: str) -> str:
        return f"kubectl describe trainjob -n {self._cluster.namespace} {id}"

    def _shown(self, id: str) -> str:
        return f"kubectl logs -n {self._cluster.namespace} -l {_JOBSET}={id} -c {NODE} --prefix --tail=-1"

    def _pods(self, id: str) -> list[dict[str, Any]]:
        """Returns the TrainJob's pods in the order of their nodes, the oldest of a node first."""
        pods = self._cluster.pods(f"{_JOBSET}={id}")
        return sorted(pods, key=lambda pod: (_index(pod), pod["metadata"].get("creationTimestamp", "")))

    def _why_failed(self, id: str, condition: Mapping[str, Any]) -> str:
        ended = [f"{name_of(_index(pod))}: {why}" for pod in self._pods(id) if (why := _ended_badly(pod))]
        return "; ".join([f"{condition.get('reason', 'Failed')}: {condition.get('message', '')}", *ended])

    def _why_queued(self, id: str) -> str:
        """Returns what Kueue says of the job: its Workload is called after it."""
        warned = self._cluster.warnings(f"trainjob-{id}")
        words = f": {warned[-1].get('message', '')}" if warned else ""
        return f"waits for a place in queue {self._settings.queue}{words}" if self._settings.queue else "is suspended"


def _why_waiting(pods: Sequence[Mapping[str, Any]]) -> str:
    reasons = [f"{name_of(_index(pod))}: {why}" for pod in pods if (why := _held_up(pod))]
    return "; ".join(reasons) or "its nodes start"


def _conditions(job: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
    """Returns those of a TrainJob's conditions that are true, by type."""
    return {c["type"]: c for c in job.get("status", {}).get("conditions", ()) if c["status"] == "True"}


def _index(pod: Mapping[str, Any]) -> int:
    return int(pod["metadata"].get("labels", {}).get(_INDEX, 0))


def _ended_badly(pod: Mapping[str, Any]) -> str | None:
    """Returns how a pod failed; a pod that was evicted as a whole has no exit code."""
    status = pod["status"]
    for container in status.get("containerStatuses", ()):
        ended = container.get("state", {}).get("terminated")
        if ended and ended["exitCode"] != 0:
            return f"{ended.get('reason', 'Error')}, exit code {ended['exitCode']}"
    return f"{status['reason']}: {status.get('message', '')}" if status.get("reason") else None


def _held_up(pod: Mapping[str, Any]) -> str | None:
    """Returns why a pod doesn't run yet."""
    status = pod["status"]
    for container in status.get("containerStatuses", ()):
        if waiting := container.get("state", {}).get("waiting"):
            return f"{waiting.get('reason', 'waiting')} {waiting.get('message', '')}".strip()
    for condition in status.get("conditions", ()):
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return f"{condition.get('reason', 'Pending')} {condition.get('message', '')}".strip()
    return None


def _moment(stamp: str) -> str:
    """Returns a text that sorts as the times do: Go leaves zeros at the end of a fraction out."""
    seconds, _, fraction = stamp.removesuffix("Z").partition(".")
    return f"{seconds}.{fraction:0<9}"
