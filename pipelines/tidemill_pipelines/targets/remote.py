"""What every remote target can do. The commands know no more of a backend than this."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Protocol

from tidemill_pipelines.targets.compilation import Package

State = Literal["pending", "running", "paused", "succeeded", "failed", "cancelling", "cancelled", "skipped", "cached"]
ENDED: frozenset[State] = frozenset({"succeeded", "failed", "cancelled", "skipped", "cached"})


@dataclass(frozen=True)
class Submission:
    """A run that is asked for.

    Attributes:
        name: what people see; the problem's and the pipeline's name.
        package: the compiled pipeline, whose parameters all have values.
        request_id: the same id makes the same run: a second submission finds the first.
        parameters: values that differ from the package's.
        labels: beside those of the target.
        cache: None leaves it to the stages; False reuses nothing.
    """

    name: str
    package: Package
    request_id: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    cache: bool | None = None

    @property
    def digest(self) -> str:
        """16 hex digits that stand for what is to run; a request id is of one such content alone."""
        content = json.dumps([self.package.digest, dict(self.parameters), self.cache], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class RemoteTask:
    """A task of a run; ``error`` is the backend's own words."""

    name: str
    state: State
    started: datetime | None = None
    ended: datetime | None = None
    error: str | None = None


@dataclass(frozen=True)
class RemoteRun:
    """A run as its backend tells it.

    Attributes:
        id: what the other calls take.
        created: aware time, as are the others.
        url: page of the backend's console.
        request_id: as submitted; None for a run that tidemill did not submit.
        existed: whether a submission found this run instead of making it.
    """

    id: str
    name: str
    state: State
    created: datetime
    ended: datetime | None = None
    error: str | None = None
    url: str | None = None
    request_id: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    tasks: Sequence[RemoteTask] = ()
    existed: bool = False


@dataclass(frozen=True)
class ScheduleRequest:
    """A schedule that is asked for; its name is its identity.

    Attributes:
        cron: five fields: minute, hour, day of month, month, day of week.
        time_zone: of the IANA database.
        max_concurrent: runs at the same time.
        catch_up: whether runs that were missed while it was paused are made up for.
        start: not before; aware.
        end: not after; aware.
    """

    name: str
    submission: Submission
    cron: str
    time_zone: str = "UTC"
    max_concurrent: int = 1
    catch_up: bool = False
    start: datetime | None = None
    end: datetime | None = None


@dataclass(frozen=True)
class RemoteSchedule:
    """A schedule as its backend tells it; ``cron`` has five fields again."""

    id: str
    name: str
    state: Literal["active", "paused", "ended"]
    cron: str
    time_zone: str
    max_concurrent: int
    catch_up: bool
    start: datetime | None = None
    end: datetime | None = None
    next_run: datetime | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    existed: bool = False


class RemoteTarget(Protocol):
    """A backend that runs pipelines.

    Every method raises `UsageError` for what does not exist or the backend refuses as meaningless, and
    `PlatformError` for what may succeed later (unavailable, quota, permission: with the remedy).
    """

    def stage(self, files: Mapping[str, bytes]) -> None:
        """Uploads files by their address; what is there already with that content-addressed name stays."""

    def submit(self, submission: Submission) -> RemoteRun:
        """Makes a run, or finds the one that an earlier call with the same request id made.

        Raises:
            UsageError: if that one is of another content; see `Submission.digest`.
        """

    def runs(self, limit: int) -> Sequence[RemoteRun]:
        """Returns the newest runs first, without their tasks."""

    def run(self, run: str) -> RemoteRun:
        """Returns a run by id, with its tasks."""

    def logs(self, run: str, task: str | None) -> Iterator[str]:
        """Yields what tasks printed, or where to read it if the backend does not give it out."""

    def cancel(self, run: str) -> RemoteRun:
        """Asks a run to end; one that has ended stays as it is."""

    def create_schedule(self, request: ScheduleRequest) -> RemoteSchedule:
        """Makes a schedule, or finds the equal one of that name.

        Raises:
            UsageError: if one of that name differs.
        """

    def update_schedule(self, request: ScheduleRequest) -> RemoteSchedule:
        """Replaces the schedule of that name without a moment in which there is none or two."""

    def schedules(self) -> Sequence[RemoteSchedule]: ...

    def pause_schedule(self, name: str) -> RemoteSchedule: ...

    def resume_schedule(self, name: str) -> RemoteSchedule: ...

    def delete_schedule(self, name: str) -> None: ...
