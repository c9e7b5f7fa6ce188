"""A backend that is nothing but memory: what the commands do with one is told by what it was asked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from tidemill.errors import PlatformError, UsageError
from tidemill_pipelines.targets.remote import (
    ENDED,
    RemoteRun,
    RemoteSchedule,
    RemoteTarget,
    RemoteTask,
    ScheduleRequest,
    State,
    Submission,
)
from tidemill_pipelines.targets.remote_endpoints import (
    ModelVersion,
    RemoteEndpoint,
    RemoteEndpoints,
    Rollout,
    ServedVersion,
)

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def task(name: str, state: State, error: str | None = None, took_s: float | None = None) -> RemoteTask:
    ended = None if took_s is None else NOON + timedelta(seconds=took_s)
    return RemoteTask(name, state, None if state == "pending" else NOON, ended, error)


@dataclass
class MemoryTarget:
    """Keeps runs by request id.

    Attributes:
        script: what a run looks like each time it is asked for; the last look stays.
        down: whether the backend is out of reach.
    """

    script: list[tuple[State, tuple[RemoteTask, ...]]] = field(default_factory=list)
    down: bool = False
    staged: dict[str, bytes] = field(default_factory=dict)
    submissions: list[Submission] = field(default_factory=list)
    requests: list[ScheduleRequest] = field(default_factory=list)
    made: dict[str, RemoteRun] = field(default_factory=dict)
    planned: dict[str, RemoteSchedule] = field(default_factory=dict)

    def stage(self, files: Mapping[str, bytes]) -> None:
        self._reach()
        self.staged.update(files)

    def submit(self, submission: Submission) -> RemoteRun:
        self._reach()
        self.submissions.append(submission)
        for run in self.made.values():
            if run.request_id == submission.request_id:
                return replace(run, existed=True)
        number = len(self.made) + 1
        run = RemoteRun(
            f"run-{number}",
            submission.name,
            "pending",
            NOON + timedelta(hours=number),
            url=f"https://console.example.com/run-{number}",
            request_id=submission.request_id,
            labels=submission.labels,
        )
        self.made[run.id] = run
        return run

    def runs(self, limit: int) -> Sequence[RemoteRun]:
        self._reach()
        return sorted(self.made.values(), key=lambda run: run.created, reverse=True)[:limit]

    def run(self, run: str) -> RemoteRun:
        self._reach()
        if run not in self.made:
            raise UsageError(f"run {run}", "there is no such run")
        if self.script:
            state, tasks = self.script[0] if len(self.script) == 1 else self.script.pop(0)
            error = "The DAG failed." if state == "failed" else None
            self.made[run] = replace(self.made[run], state=state, tasks=tasks, error=error)
        return self.made[run]

    def logs(self, run: str, task: str | None) -> Iterator[str]:
        yield f"{run} {task}"

    def cancel(self, run: str) -> RemoteRun:
        if self.made[run].state not in ENDED:
            self.made[run] = replace(self.made[run], state="cancelling")
        return self.made[run]

    def create_schedule(self, request: ScheduleRequest) -> RemoteSchedule:
        self._reach()
        self.requests.append(request)
        if request.name in self.planned:
            return replace(self.planned[request.name], existed=True)
        return self._plan(request)

    def update_schedule(self, request: ScheduleRequest) -> RemoteSchedule:
        self.requests.append(request)
        return self._plan(request)

    def schedules(self) -> Sequence[RemoteSchedule]:
        self._reach()
        return list(self.planned.values())

    def pause_schedule(self, name: str) -> RemoteSchedule:
        self.planned[name] = replace(self.planned[name], state="paused", next_run=None)
        return self.planned[name]

    def resume_schedule(self, name: str) -> RemoteSchedule:
        self.planned[name] = replace(self.planned[name], state="active", next_run=NOON)
        return self.planned[name]

    def delete_schedule(self, name: str) -> None:
        del self.planned[name]

    def _plan(self, request: ScheduleRequest) -> RemoteSchedule:
        schedule = RemoteSchedule(
            f"id-{request.name}",
            request.name,
            "active",
            request.cron,
            request.time_zone,
            request.max_concurrent,
            request.catch_up,
            request.start,
            request.end,
            NOON,
        )
        self.planned[request.name] = schedule
        return schedule

    def _reach(self) -> None:
        if self.down:
            raise PlatformError("https://kfp.example.com", "does not answer", "503", "try again later")


@dataclass
class MemoryEndpoints:
    """Two versions of lending: 1 answers, 2 is registered."""

    traffic: dict[str, int] = field(default_factory=lambda: {"1": 100})
    asked: list[Any] = field(default_factory=list)

    def models(self) -> Sequence[ModelVersion]:
        versions = (("2", "challenger", "b"), ("1", "champion", "a"))
        return [ModelVersion("lending", v, (alias,), digit * 64, f"models/lending@{v}") for v, alias, digit in versions]

    def deploy(self, model: str, version: str | None, traffic_percent: int | None) -> Rollout:
        self.asked.append((model, version, traffic_percent))
        if model != "lending":
            raise UsageError(f"model {model}", "no such model; there is lending")
        chosen, share = version or "2", traffic_percent or 100
        before, self.traffic = dict(self.traffic), {chosen: share} | ({"1": 100 - share} if share < 100 else {})
        retired = tuple(set(before) - set(self.traffic))
        return Rollout(model, chosen, "1", self.traffic, self._endpoint(), before != self.traffic, retired)

    def rollback(self, model: str) -> Rollout:
        self.traffic = {"1": 100}
        return Rollout(model, "1", "2", self.traffic, self._endpoint())

    def status(self, model: str | None) -> Sequence[RemoteEndpoint]:
        empty = RemoteEndpoint("churn", "endpoints/8", None)
        return [self._endpoint()] if model else [self._endpoint(), empty]

    def predict(self, model: str, body: Mapping[str, Any]) -> Any:
        self.asked.append((model, body))
        return {"predictions": [{"probability": 0.5, "label": "ü"} for _ in body["instances"]]}

    def _endpoint(self) -> RemoteEndpoint:
        served = [ServedVersion(v, f"deployed-{v}", share, True, "n1-standard-2") for v, share in self.traffic.items()]
        return RemoteEndpoint("lending", "endpoints/7", "https://models.example.com/lending", served)


_TARGET: RemoteTarget = MemoryTarget()
_ENDPOINTS: RemoteEndpoints = MemoryEndpoints()
"""For the type checker: these are what they stand for."""
