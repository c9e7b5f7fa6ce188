"""A training on several machines, as every launcher of such sees it.

All workers run ``python3 -m tidemill.train.worker`` with the same arguments; TF_CONFIG tells each its place. They and
whoever watches them share one directory::

    <shared>/
        checkpoints/            of the training
        heartbeats/             one file per worker: when it last took a step
        records/worker-<n>.json how each worker ended, as `tidemill.stage` records a task
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, Protocol

from tidemill.errors import PlatformError

CHECKPOINTS: Final = "checkpoints"
HEARTBEATS: Final = "heartbeats"
RECORDS: Final = "records"

JobState = Literal["pending", "running", "succeeded", "failed", "cancelled"]
ENDED: Final[frozenset[JobState]] = frozenset({"succeeded", "failed", "cancelled"})


@dataclass(frozen=True)
class TrainingJob:
    """A job that is asked for.

    Attributes:
        name: a DNS label that is the same whenever the same task of the same run asks again: it finds its job.
        arguments: of ``python3 -m tidemill.train.worker``.
        workers: number of processes, the chief included.
        shared: directory that every worker and the watcher see under this path.
        environment: variables beside those of the image.
        labels: for the bill and for finding the job.
    """

    name: str
    arguments: tuple[str, ...]
    workers: int
    shared: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class JobStatus:
    """Where a job stands.

    Attributes:
        detail: the backend's own words on why it waits or failed.
        restarts: times that the backend has started all workers of a job that hasn't ended again, as far as is known.
    """

    state: JobState
    detail: str | None = None
    restarts: int = 0


class Launcher(Protocol):
    """A backend of jobs. Every method raises `PlatformError` for what may succeed later, `UsageError` otherwise."""

    def submit(self, job: TrainingJob) -> str:
        """Makes the job, or finds the one of that name; returns the id that the other calls take.

        Raises:
            Denied: if whoever asks may not do that.
        """

    def status(self, id: str) -> JobStatus:
        """Says where a job stands; one that is no longer there was cancelled."""

    def logs(self, id: str) -> Iterator[str]:
        """Yields the lines that are new since the last call, each with its worker's name in front."""

    def cancel(self, id: str) -> None:
        """Asks the job to end; one that has ended stays as it is."""

    def place(self, id: str) -> str:
        """Returns where a person finds the job: a page, or a command that shows it."""


class Denied(PlatformError):
    """The backend refuses whoever asks, or lacks what is asked for: only its administrator can change that."""


def job_name(run: str, task: str) -> str:
    """Returns the name of a task's job: a DNS label of at most 40 characters, the same for each try of the task.

    Backends make longer names of it, of pods and hosts, which must stay below 64.

    Args:
        run: the run's id.
        task: the task's name in the pipeline.
    """
    shown = re.sub(r"[^a-z0-9]+", "-", task.lower()).strip("-")[:18].rstrip("-") or "task"
    return f"tidemill-{shown}-{hashlib.sha256(f'{run}/{task}'.encode()).hexdigest()[:12]}"
