"""Vertex AI's schedules, as the commands speak of them: five-field cron and a time zone."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any, Final, Literal

from tidemill.errors import UsageError
from tidemill.vertex.sdk import json_format
from tidemill_pipelines.targets.config import TargetConfig, time_zone
from tidemill_pipelines.targets.cron import parse_cron
from tidemill_pipelines.targets.remote import RemoteSchedule, ScheduleRequest
from tidemill_pipelines.targets.vertex.jobs import CONTENT_LABEL, REQUEST_LABEL, moment, pipeline_job

# A schedule has no labels, and its own `catch_up` is what the last resume said. So its runs carry the policy.
CATCH_UP_LABEL: Final = "tidemill-catch-up"
DIGEST_LABEL: Final = "tidemill-package"
SCHEDULE_LABEL: Final = "tidemill-schedule"
_STATES: Final[dict[str, Literal["active", "paused", "ended"]]] = {
    "ACTIVE": "active",
    "PAUSED": "paused",
    "COMPLETED": "ended",
}


def vertex_schedule(request: ScheduleRequest, config: TargetConfig, parent: str) -> dict[str, Any]:
    """Returns the Schedule that is asked for.

    ``max_concurrent`` becomes both of Vertex AI's limits: of runs being started, and of runs that haven't ended.
    Runs beyond it wait (``allow_queueing``) where missed runs are to be made up for, and are left out otherwise.

    Raises:
        UsageError: if the cron expression or the times can't be meant.
    """
    _refuse_impossible_times(request)
    job = pipeline_job(request.submission, config)
    for name in (REQUEST_LABEL, CONTENT_LABEL):  # they are of one run; those of a schedule have ids of their own
        del job["labels"][name]
    job["labels"] |= {
        CATCH_UP_LABEL: str(request.catch_up).lower(),
        DIGEST_LABEL: request.submission.package.digest[:63],
        SCHEDULE_LABEL: re.sub(r"[^a-z0-9_-]+", "-", request.name.lower())[:63],
    }
    schedule = {
        "display_name": request.name,
        "cron": f"TZ={time_zone(request.time_zone).key} {parse_cron(request.cron)}",
        "max_concurrent_run_count": request.max_concurrent,
        "max_concurrent_active_run_count": request.max_concurrent,
        "allow_queueing": request.catch_up,
        "start_time": request.start,
        "end_time": request.end,
        "create_pipeline_job_request": {"parent": parent, "pipeline_job": job},
    }
    return {key: value for key, value in schedule.items() if value is not None}


def _refuse_impossible_times(request: ScheduleRequest) -> None:
    where = f"schedule {request.name}"
    for name, value in (("start", request.start), ("end", request.end)):
        if value is not None and value.tzinfo is None:
            raise UsageError(where, f"the {name} needs a time zone", value.isoformat())
    if request.start and request.end and request.end <= request.start:
        raise UsageError(where, "the end must be after the start", f"{request.start} to {request.end}")


def differences(wanted: dict[str, Any], schedule: Any, sdk: Any) -> list[str]:
    """Returns the names of the fields in which a schedule differs from the one that is asked for."""
    given = sdk.Schedule(wanted)
    names = [
        "cron",
        "max_concurrent_run_count",
        "max_concurrent_active_run_count",
        "allow_queueing",
        "start_time",
        "end_time",
    ]
    if "start_time" not in wanted:
        names.remove("start_time")  # the service fills in when the schedule was made
    differing = [name for name in names if getattr(given, name) != getattr(schedule, name)]
    ours, theirs = (s.create_pipeline_job_request.pipeline_job for s in (given, schedule))
    fields = ("display_name", "labels", "runtime_config", "service_account", "network", "encryption_spec")
    differing += [f"run: {name}" for name in fields if getattr(ours, name) != getattr(theirs, name)]
    return differing


def update_paths(wanted: dict[str, Any], schedule: Any) -> list[str]:
    """Returns the update mask that turns ``schedule`` into the one that is asked for.

    Raises:
        UsageError: if a field would have to be unset, which Vertex AI doesn't do.
    """
    if schedule.end_time is not None and "end_time" not in wanted:
        remedy = "give an end far away, or delete the schedule and create it again"
        raise UsageError(f"schedule {schedule.display_name}", "its end cannot be taken away again", None, remedy)
    return sorted(wanted.keys() - {"display_name"})


def remote_schedule(schedule: Any, existed: bool = False) -> RemoteSchedule:
    """Returns a Schedule as the commands show it."""
    match = re.fullmatch(r"(?:CRON_)?(?:TZ=(\S+)\s+)?(.+)", schedule.cron)
    assert match is not None
    job = schedule.create_pipeline_job_request.pipeline_job
    values = type(job).pb(job).runtime_config.parameter_values
    return RemoteSchedule(
        id=schedule.name.rsplit("/", 1)[-1],
        name=schedule.display_name,
        state=_STATES.get(schedule.state.name, "ended"),
        cron=match.group(2),
        time_zone=match.group(1) or "UTC",
        max_concurrent=schedule.max_concurrent_active_run_count or schedule.max_concurrent_run_count,
        catch_up=catches_up(schedule),
        start=moment(schedule.start_time),
        end=moment(schedule.end_time),
        next_run=_next_run(schedule),
        parameters={name: json_format().MessageToDict(value) for name, value in values.items()},
        existed=existed,
    )


def catches_up(schedule: Any) -> bool:
    """Tells whether runs that were missed while it was paused are to be made up for."""
    return bool(schedule.create_pipeline_job_request.pipeline_job.labels.get(CATCH_UP_LABEL) == "true")


def _next_run(schedule: Any) -> datetime | None:
    return moment(schedule.next_run_time) if schedule.state.name == "ACTIVE" else None
