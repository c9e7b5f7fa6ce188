"""Runs and schedules on Vertex AI."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from tidemill.errors import UsageError
from tidemill.vertex.clients import Clients
from tidemill.vertex.location import Location
from tidemill.vertex.sdk import aiplatform, api_errors
from tidemill.vertex.storage import Store
from tidemill_pipelines.targets.config import TargetConfig
from tidemill_pipelines.targets.remote import ENDED, RemoteRun, RemoteSchedule, ScheduleRequest, Submission
from tidemill_pipelines.targets.vertex.jobs import CONTENT_LABEL, job_id, log_pointers, pipeline_job, remote_run
from tidemill_pipelines.targets.vertex.schedules import (
    catches_up,
    differences,
    remote_schedule,
    update_paths,
    vertex_schedule,
)

_UPLOADS: Final = 4
# What a list shows; a job's spec alone may have 100 kB.
_LISTED: Final = ("name", "display_name", "state", "create_time", "end_time", "error", "labels")


def location_of(config: TargetConfig) -> Location:
    """Returns where a target's runs are.

    Raises:
        UsageError: if the target doesn't say.
    """
    settings = config.on_vertex
    if missing := [f"vertex.{name}" for name in ("project", "region") if not getattr(settings, name)]:
        raise UsageError(
            "the target's file", f"needs {' and '.join(missing)}", remedy="see pipelines/targets/vertex.yaml"
        )
    return Location(str(settings.project), str(settings.region))


class VertexTarget:
    """Vertex AI Pipelines in one project's region; implements `RemoteTarget`."""

    def __init__(self, config: TargetConfig, clients: Clients | None = None) -> None:
        """Makes no call.

        Args:
            clients: those of the target's location by default.

        Raises:
            UsageError: if the target lacks project or region.
        """
        self._config = config
        self._location = location_of(config)
        self._clients = clients or Clients(self._location)

    def stage(self, files: Mapping[str, bytes]) -> None:
        store = Store(self._location)
        with ThreadPoolExecutor(_UPLOADS) as pool:
            list(pool.map(lambda item: store.put(*item), files.items()))

    def submit(self, submission: Submission) -> RemoteRun:
        where, identity = f"run {submission.name}", job_id(submission.request_id)
        request = {
            "parent": self._location.path,
            "pipeline_job_id": identity,
            "pipeline_job": pipeline_job(submission, self._config),
        }
        try:
            # The id makes a repeated call harmless: the second one is told that there is such a job.
            made = self._clients.ask(
                where, self._clients.pipelines.create_pipeline_job, request, api_errors().AlreadyExists
            )
        except api_errors().AlreadyExists as error:
            found = self._job(identity)
            if found.labels.get(CONTENT_LABEL) != submission.digest:
                expected = f"request id {submission.request_id} must be of one content alone"
                remedy = "it was given to another package, or with other parameters: use another --request-id"
                raise UsageError(where, expected, f"run {identity} is of another", remedy) from error
            return remote_run(found, self._location, existed=True)
        return remote_run(made, self._location)

    def runs(self, limit: int) -> Sequence[RemoteRun]:
        request = {
            "parent": self._location.path,
            "order_by": "create_time desc",
            "page_size": min(limit, 100),
            "read_mask": {"paths": list(_LISTED)},
        }
        jobs = self._clients.ask_all("runs", self._clients.pipelines.list_pipeline_jobs, request, limit)
        return [remote_run(job, self._location) for job in jobs]

    def run(self, run: str) -> RemoteRun:
        return remote_run(self._job(run), self._location)

    def logs(self, run: str, task: str | None) -> Iterator[str]:
        yield from log_pointers(self._job(run), self._location, task)

    def cancel(self, run: str) -> RemoteRun:
        found = self._job(run)
        if remote_run(found, self._location).state not in ENDED:
            with contextlib.suppress(api_errors().FailedPrecondition):  # it ended between the two calls
                self._clients.ask(
                    f"run {run}",
                    self._clients.pipelines.cancel_pipeline_job,
                    {"name": found.name},
                    api_errors().FailedPrecondition,
                )
        return self.run(run)

    def create_schedule(self, request: ScheduleRequest) -> RemoteSchedule:
        where, wanted = f"schedule {request.name}", vertex_schedule(request, self._config, self._location.path)
        existed = self._find_schedule(request.name) is not None
        found = self._clients.ensure(
            where,
            lambda: self._find_schedule(request.name),
            lambda: self._clients.once(
                where, self._clients.schedules.create_schedule, {"parent": self._location.path, "schedule": wanted}
            ),
        )
        if existed and (differing := differences(wanted, found, aiplatform())):
            remedy = "`tidemill schedule update` changes it"
            raise UsageError(where, "exists already, and differs", ", ".join(differing), remedy)
        return remote_schedule(found, existed)

    def update_schedule(self, request: ScheduleRequest) -> RemoteSchedule:
        where, found = f"schedule {request.name}", self._schedule(request.name)
        wanted = vertex_schedule(request, self._config, self._location.path)
        change = {"schedule": {**wanted, "name": found.name}, "update_mask": {"paths": update_paths(wanted, found)}}
        made = self._clients.ask(where, self._clients.schedules.update_schedule, change)
        return remote_schedule(made, existed=True)

    def schedules(self) -> Sequence[RemoteSchedule]:
        return [remote_schedule(schedule) for schedule in self._listed_schedules("create_pipeline_job_request:*")]

    def pause_schedule(self, name: str) -> RemoteSchedule:
        found = self._schedule(name)
        if found.state.name != "PAUSED":
            self._clients.ask(f"schedule {name}", self._clients.schedules.pause_schedule, {"name": found.name})
        return remote_schedule(self._schedule(name), existed=True)

    def resume_schedule(self, name: str) -> RemoteSchedule:
        found = self._schedule(name)
        if found.state.name != "ACTIVE":
            request = {"name": found.name, "catch_up": catches_up(found)}
            self._clients.ask(f"schedule {name}", self._clients.schedules.resume_schedule, request)
        return remote_schedule(self._schedule(name), existed=True)

    def delete_schedule(self, name: str) -> None:
        where = f"schedule {name}"
        if not (found := self._schedules_named(name)):
            raise self._unknown(name)
        for schedule in found:
            operation = self._clients.ask(where, self._clients.schedules.delete_schedule, {"name": schedule.name})
            self._clients.finish(where, operation)

    def _job(self, run: str) -> Any:
        identity = run.rsplit("/", 1)[-1]
        name = f"{self._location.path}/pipelineJobs/{identity}"
        return self._clients.ask(f"run {identity}", self._clients.pipelines.get_pipeline_job, {"name": name})

    def _schedule(self, name: str) -> Any:
        if (found := self._find_schedule(name)) is None:
            raise self._unknown(name)
        return found

    def _unknown(self, name: str) -> UsageError:
        there = ", ".join(sorted({s.display_name for s in self._listed_schedules("")})) or "none"
        return UsageError(f"schedule {name}", "there is none of that name", f"in {self._location.path} are {there}")

    def _find_schedule(self, name: str) -> Any | None:
        """Returns the schedule of a display name, which Vertex AI doesn't keep unique; not one that has ended."""
        found = [schedule for schedule in self._schedules_named(name) if schedule.state.name != "COMPLETED"]
        if len(found) > 1:
            names = ", ".join(schedule.name for schedule in found)
            raise UsageError(f"schedule {name}", "several have that name", names, "delete all but one in the console")
        return found[0] if found else None

    def _schedules_named(self, name: str) -> list[Any]:
        quoted = name.replace("\\", "\\\\").replace('"', '\\"')
        return self._listed_schedules(f'display_name="{quoted}"')

    def _listed_schedules(self, condition: str) -> list[Any]:
        request = {"parent": self._location.path, "filter": condition}
        return self._clients.ask_all("schedules", self._clients.schedules.list_schedules, request)
