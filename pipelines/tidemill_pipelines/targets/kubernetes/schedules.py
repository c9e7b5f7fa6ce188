"""Recurring runs of KFP as schedules: their names are unique, and one is changed without a moment of none or two.

KFP cannot change a recurring run and does not mind several of one name. So a change makes a second one, disabled,
whose description says what it replaces; then the first is disabled, the second enabled and the first deleted, all at
a time at which neither is due nor has just been: a recurring run makes up for the last time since its creation that it
missed. A change that was cut short is completed, or undone where it had not begun, by the next command.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from tidemill.errors import UsageError
from tidemill_pipelines.targets.config import TargetConfig, time_zone
from tidemill_pipelines.targets.cron import parse_cron, to_kfp
from tidemill_pipelines.targets.kubernetes.client import Kfp
from tidemill_pipelines.targets.kubernetes.filters import equals
from tidemill_pipelines.targets.kubernetes.marks import ScheduleMark, schedule_mark, written
from tidemill_pipelines.targets.kubernetes.told import time_of
from tidemill_pipelines.targets.kubernetes.uploads import Uploaded
from tidemill_pipelines.targets.remote import RemoteSchedule, ScheduleRequest

MAX_CONCURRENT: Final = 10
"""What KFP allows."""
_BEFORE: Final = timedelta(seconds=10)
_AFTER: Final = timedelta(seconds=25)
"""How far from a due time a change keeps away: KFP's controller may look at a schedule ten seconds late."""


@dataclass(frozen=True)
class Schedules:
    """The schedules of one experiment.

    Attributes:
        now: tells the aware time.
        pause: waits for seconds.
    """

    kfp: Kfp
    config: TargetConfig
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    pause: Callable[[float], None] = time.sleep

    def create(self, request: ScheduleRequest, experiment: str, upload: Callable[[], Uploaded]) -> RemoteSchedule:
        """Makes a schedule, or finds the equal one of that name; see `RemoteTarget.create_schedule`."""
        mark = self._mark(request)
        trigger = self._trigger(request)
        if (found := self._settled(request.name, experiment)) is not None:
            self._must_equal(found, mark, request.name)
            return self.told(found, existed=True)
        made = self._make(request, experiment, upload(), trigger, mark)
        first = min(self._named(request.name, experiment), key=_age, default=made)
        if first.recurring_run_id != made.recurring_run_id:  # another was made at the same moment
            self._delete(made)
            self._must_equal(first, mark, request.name)
            return self.told(first, existed=True)
        return self.told(made)

    def update(self, request: ScheduleRequest, experiment: str, upload: Callable[[], Uploaded]) -> RemoteSchedule:
        """Replaces the schedule of that name, which stays paused if it is."""
        mark, trigger = self._mark(request), self._trigger(request)
        former = self._found(request.name, experiment)
        if (known := schedule_mark(former.description)) is not None and known.digest == mark.digest:
            return self.told(former, existed=True)
        active = former.mode == "ENABLE"
        mark = replace(mark, replaces=former.recurring_run_id, active=active)
        uploaded = upload()
        if active:
            self._keep_away(mark, known)
        successor = self._make(request, experiment, uploaded, trigger, mark)
        if active:
            self._disable(former)
        self._take_over(former, successor, active)
        return self.told(self._found(request.name, experiment))

    def all(self, experiment: str) -> Sequence[RemoteSchedule]:
        """Returns the schedules that tidemill made, by name."""
        by_name: dict[str, list[Any]] = {}
        for job in self._list(experiment):
            by_name.setdefault(job.display_name, []).append(job)
        told = [self.told(max(jobs, key=lambda job: (job.mode == "ENABLE", _age(job)))) for jobs in by_name.values()]
        return sorted(told, key=lambda schedule: schedule.name)

    def switch(self, name: str, experiment: str, active: bool) -> RemoteSchedule:
        """Pauses or resumes a schedule; nothing happens if it is so."""
        job, service = self._found(name, experiment), self.kfp.recurring
        if (job.mode == "ENABLE") != active:
            if active:
                method = service.recurring_run_service_enable_recurring_run
                self.kfp.call(f"resume schedule {name}", method, job.recurring_run_id)
            else:
                self._disable(job)
        return self.told(self._found(name, experiment))

    def delete(self, name: str, experiment: str) -> None:
        """Deletes a schedule, and whatever else has its name."""
        for job in [self._found(name, experiment), *self._named(name, experiment)]:
            self._delete(job)

    def told(self, job: Any, existed: bool = False) -> RemoteSchedule:
        """Returns a ``V2beta1RecurringRun`` of ours."""
        mark = schedule_mark(job.description)
        assert mark is not None
        trigger = job.trigger.cron_schedule
        start, end = time_of(trigger.start_time), time_of(trigger.end_time)
        ended = end is not None and end <= self.now()
        active = job.mode == "ENABLE" and not ended
        begin = max(self.now(), start) if start is not None else self.now()
        zone = time_zone(mark.time_zone)
        due = next(parse_cron(mark.cron).times(begin, zone), None) if active else None
        return RemoteSchedule(
            id=job.recurring_run_id,
            name=job.display_name,
            state="ended" if ended else "active" if active else "paused",
            cron=mark.cron,
            time_zone=mark.time_zone,
            max_concurrent=int(job.max_concurrency),
            catch_up=not job.no_catchup,
            start=start,
            end=end,
            next_run=None if due is None or (end is not None and due > end) else due,
            parameters=dict((job.runtime_config.parameters if job.runtime_config is not None else None) or {}),
            existed=existed,
        )

    def _trigger(self, request: ScheduleRequest) -> Any:
        from kfp_server_api import V2beta1CronSchedule, V2beta1Trigger

        where = f"schedule {request.name}"
        if not 1 <= request.max_concurrent <= MAX_CONCURRENT:
            raise UsageError(
                where, f"KFP lets 1 to {MAX_CONCURRENT} runs of a schedule be active", str(request.max_concurrent)
            )
        for what, moment in (("start", request.start), ("end", request.end)):
            if moment is not None and moment.tzinfo is None:
                raise UsageError(where, f"its {what} needs a time zone", moment.isoformat())
        if request.end is not None and request.end <= (request.start or self.now()):
            raise UsageError(where, "must end after it starts", request.end.isoformat())
        zone, controller = time_zone(request.time_zone), time_zone(self.config.on_kubernetes.cron_time_zone)
        cron = to_kfp(parse_cron(request.cron), zone, controller, request.start or self.now(), request.end)
        return V2beta1Trigger(
            cron_schedule=V2beta1CronSchedule(cron=cron, start_time=request.start, end_time=request.end)
        )

    def _mark(self, request: ScheduleRequest) -> ScheduleMark:
        submission = request.submission
        settled = {
            "package": submission.package.digest,
            "parameters": dict(submission.parameters),
            "cache": submission.cache,
            "pipeline_root": self.config.pipeline_root,
            "service_account": self.config.service_account,
            "cron": str(parse_cron(request.cron)),
            "time_zone": request.time_zone,
            "max_concurrent": request.max_concurrent,
            "catch_up": request.catch_up,
            "start": request.start and request.start.astimezone(UTC).isoformat(),
            "end": request.end and request.end.astimezone(UTC).isoformat(),
        }
        digest = hashlib.sha256(json.dumps(settled, sort_keys=True).encode()).hexdigest()
        return ScheduleMark(str(parse_cron(request.cron)), request.time_zone, digest)

    def _make(
        self, request: ScheduleRequest, experiment: str, uploaded: Uploaded, trigger: Any, mark: ScheduleMark
    ) -> Any:
        from kfp_server_api import (
            RecurringRunMode,
            V2beta1PipelineVersionReference,
            V2beta1RecurringRun,
            V2beta1RuntimeConfig,
        )

        def made() -> Any:
            return next(
                (j for j in self._named(request.name, experiment) if schedule_mark(j.description) == mark), None
            )

        return self.kfp.call(
            f"create schedule {request.name}",
            self.kfp.recurring.recurring_run_service_create_recurring_run,
            V2beta1RecurringRun(
                display_name=request.name,
                description=written(mark),
                experiment_id=experiment,
                pipeline_version_reference=V2beta1PipelineVersionReference(
                    pipeline_id=uploaded.pipeline, pipeline_version_id=uploaded.version
                ),
                runtime_config=V2beta1RuntimeConfig(
                    parameters=dict(request.submission.parameters), pipeline_root=self.config.pipeline_root
                ),
                service_account=self.config.service_account,
                max_concurrency=str(request.max_concurrent),
                no_catchup=not request.catch_up,
                trigger=trigger,
                mode=RecurringRunMode.ENABLE if mark.replaces is None else RecurringRunMode.DISABLE,
            ),
            lost=made,
        )

    def _found(self, name: str, experiment: str) -> Any:
        if (found := self._settled(name, experiment)) is None:
            names = ", ".join(schedule.name for schedule in self.all(experiment)) or "none"
            raise UsageError(f"schedule {name}", f"there is none of that name; there is {names}")
        return found

    def _settled(self, name: str, experiment: str) -> Any:
        """Returns the schedule of a name, or None; completes or undoes a change that was cut short."""
        jobs = {job.recurring_run_id: job for job in sorted(self._named(name, experiment), key=_age)}
        for job in list(jobs.values()):
            mark = schedule_mark(job.description)
            if mark is None or (former := jobs.get(mark.replaces or "")) is None:
                continue
            if former.mode == "ENABLE":  # it went on meanwhile: the successor would make up for what has run
                self._delete(jobs.pop(job.recurring_run_id))
            else:
                self._take_over(jobs.pop(former.recurring_run_id), job, mark.active)
        if not jobs:
            return None
        service = self.kfp.recurring.recurring_run_service_get_recurring_run
        return self.kfp.call(f"show schedule {name}", service, next(iter(jobs)))

    def _take_over(self, former: Any, successor: Any, active: bool) -> None:
        if active and successor.mode != "ENABLE":
            service = self.kfp.recurring.recurring_run_service_enable_recurring_run
            self.kfp.call(f"begin schedule {successor.display_name}", service, successor.recurring_run_id)
        self._delete(former)

    def _disable(self, job: Any) -> None:
        service = self.kfp.recurring.recurring_run_service_disable_recurring_run
        self.kfp.call(f"pause schedule {job.display_name}", service, job.recurring_run_id)

    def _keep_away(self, *marks: ScheduleMark | None) -> None:
        """Waits until none of the schedules is about to be due, or has just been."""
        plans = [(parse_cron(mark.cron), time_zone(mark.time_zone)) for mark in marks if mark is not None]
        while True:
            now = self.now()
            due = [next(cron.times(now - _AFTER, zone), None) for cron, zone in plans]
            near = [moment for moment in due if moment is not None and moment <= now + _BEFORE]
            if not near:
                return
            self.pause((max(near) + _AFTER - now).total_seconds() + 0.1)

    def _named(self, name: str, experiment: str) -> list[Any]:
        return self._list(experiment, filter=equals("display_name", name))

    def _list(self, experiment: str, **named: Any) -> list[Any]:
        jobs = self.kfp.pages(
            "list schedules",
            self.kfp.recurring.recurring_run_service_list_recurring_runs,
            "recurring_runs",
            experiment_id=experiment,
            page_size=100,
            **named,
        )
        return [job for job in jobs if schedule_mark(job.description) is not None]

    def _delete(self, job: Any) -> None:
        self.kfp.call(
            f"delete schedule {job.display_name}",
            self.kfp.recurring.recurring_run_service_delete_recurring_run,
            job.recurring_run_id,
            absent=True,
        )

    def _must_equal(self, found: Any, mark: ScheduleMark, name: str) -> None:
        known = schedule_mark(found.description)
        if known is None or known.digest != mark.digest:
            remedy = f"`tidemill schedule update PROBLEM_DIR --name {name} …` replaces it"
            raise UsageError(f"schedule {name}", "there is one of that name that differs", remedy=remedy)


def _age(job: Any) -> tuple[datetime, str]:
    return (job.created_at, job.recurring_run_id)
