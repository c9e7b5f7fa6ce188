"""ScheduleService."""

from __future__ import annotations

from datetime import UTC
from typing import Any, Final

from google.cloud import aiplatform_v1 as sdk
from google.protobuf import empty_pb2
from vertex_cron import next_time, parse
from vertex_pipelines import check_job
from vertex_world import Refusal, World, check_display_name, matching, now, page

_STATE: Final = sdk.Schedule.State
_UNSETTABLE: Final = {"display_name", "cron", "start_time", "end_time", "create_pipeline_job_request"}
_UPDATABLE: Final = {
    "display_name",
    "cron",
    "start_time",
    "end_time",
    "max_run_count",
    "max_concurrent_run_count",
    "max_concurrent_active_run_count",
    "allow_queueing",
    "create_pipeline_job_request",
}


class Schedules:
    """Answers for ``google.cloud.aiplatform.v1.ScheduleService``."""

    def __init__(self, world: World) -> None:
        self.world = world

    def create_schedule(self, request: Any) -> Any:
        self.world.check_parent(request.parent)
        schedule = sdk.Schedule(request.schedule)
        self._check(schedule)
        schedule.name = f"{self.world.parent}/schedules/{self.world.number_for()}"
        schedule.state = _STATE.ACTIVE
        schedule.create_time = schedule.update_time = now()
        if not schedule.start_time:
            schedule.start_time = schedule.create_time
        self._plan(schedule)
        self.world.schedules[schedule.name] = schedule
        return schedule

    def get_schedule(self, request: Any) -> Any:
        return self._schedule(request.name)

    def list_schedules(self, request: Any) -> Any:
        self.world.check_parent(request.parent)
        known = ("display_name", "create_pipeline_job_request")
        found = matching(self.world.schedules.values(), request.filter, known)
        found.sort(key=lambda schedule: schedule.create_time, reverse=True)
        shown, token = page(found, request.page_size, request.page_token)
        return sdk.ListSchedulesResponse(schedules=shown, next_page_token=token)

    def update_schedule(self, request: Any) -> Any:
        schedule = self._schedule(request.schedule.name)
        paths = list(request.update_mask.paths)
        if not paths:
            raise Refusal("INVALID_ARGUMENT", "update_mask is required.")
        if unknown := [path for path in paths if path not in _UPDATABLE]:
            raise Refusal("INVALID_ARGUMENT", f"Invalid update_mask path: '{unknown[0]}'.")
        if schedule.state == _STATE.COMPLETED:
            raise Refusal("FAILED_PRECONDITION", f"The Schedule {schedule.name} is completed.")
        changed = sdk.Schedule(schedule)
        for path in paths:
            if path in _UNSETTABLE and path in changed and path not in request.schedule:
                raise Refusal("INVALID_ARGUMENT", f"The non-empty field '{path}' cannot be unset.")
            setattr(changed, path, getattr(request.schedule, path))
        self._check(changed)
        changed.update_time = now()
        self._plan(changed)
        self.world.schedules[schedule.name] = changed
        return changed

    def pause_schedule(self, request: Any) -> Any:
        schedule = self._schedule(request.name)
        self._must_be(schedule, _STATE.ACTIVE, "paused")
        schedule.state, schedule.last_pause_time = _STATE.PAUSED, now()
        return empty_pb2.Empty()

    def resume_schedule(self, request: Any) -> Any:
        schedule = self._schedule(request.name)
        self._must_be(schedule, _STATE.PAUSED, "resumed")
        schedule.state, schedule.last_resume_time, schedule.catch_up = _STATE.ACTIVE, now(), request.catch_up
        self._plan(schedule)
        return empty_pb2.Empty()

    def delete_schedule(self, request: Any) -> Any:
        schedule = self._schedule(request.name)
        del self.world.schedules[schedule.name]
        return self.world.operate(schedule.name, sdk.DeleteOperationMetadata(), empty_pb2.Empty())

    def _schedule(self, name: str) -> Any:
        self.world.check_name(name, "schedules")
        if name not in self.world.schedules:
            raise Refusal("NOT_FOUND", f"The Schedule {name} does not exist.")
        return self.world.schedules[name]

    def _must_be(self, schedule: Any, state: Any, done: str) -> None:
        if schedule.state != state:
            expected = f"only a schedule in state {state.name} can be {done}"
            raise Refusal("FAILED_PRECONDITION", f"The Schedule is in state {schedule.state.name}; {expected}.")

    def _check(self, schedule: Any) -> None:
        check_display_name(schedule.display_name)
        parse(schedule.cron)
        if schedule.max_concurrent_run_count < 1:
            raise Refusal("INVALID_ARGUMENT", "max_concurrent_run_count must be at least 1.")
        if schedule.end_time and schedule.start_time and schedule.end_time <= schedule.start_time:
            raise Refusal("INVALID_ARGUMENT", "end_time must be after start_time.")
        if schedule.end_time and schedule.end_time <= now():
            raise Refusal("INVALID_ARGUMENT", "end_time must be in the future.")
        if "create_pipeline_job_request" not in schedule:
            raise Refusal("INVALID_ARGUMENT", "request is required.")
        self.world.check_parent(schedule.create_pipeline_job_request.parent)
        check_job(self.world, schedule.create_pipeline_job_request.pipeline_job)

    def _plan(self, schedule: Any) -> None:
        begin = max(now(), schedule.start_time) if schedule.start_time else now()
        at = next_time(schedule.cron, begin)
        schedule.next_run_time = None
        if at is not None and (not schedule.end_time or at <= schedule.end_time):
            schedule.next_run_time = at.astimezone(UTC)
        else:
            schedule.state = _STATE.COMPLETED
