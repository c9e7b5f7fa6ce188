"""Runs on a backend: shown, and waited for."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from tidemill.errors import PlatformError, UsageError
from tidemill_pipelines.commands.verdicts import exit_code, verdict
from tidemill_pipelines.console import duration, out, print_table

if TYPE_CHECKING:
    from tidemill_pipelines.targets.remote import RemoteRun, RemoteTarget, RemoteTask

Say = Callable[[str], None]


def find(target: RemoteTarget, run: str) -> RemoteRun:
    """Returns a run by id, or the newest for ``latest``; with its tasks.

    Raises:
        UsageError: if there is no such run.
    """
    if run == "latest":
        newest = target.runs(1)
        if not newest:
            raise UsageError("latest", "there is no run on this target", remedy="`tidemill submit` makes one")
        run = newest[0].id
    return target.run(run)


def wait(target: RemoteTarget, run: str, poll_s: float, timeout_s: float | None, say: Say) -> RemoteRun:
    """Returns a run when it has ended, and says meanwhile what its tasks come to.

    Args:
        poll_s: seconds between two looks.
        timeout_s: seconds to wait at most; for ever if None.

    Raises:
        PlatformError: if it has not ended in time; it goes on.
    """
    from tidemill_pipelines.targets.remote import ENDED

    began, known = time.monotonic(), dict[str, str]()
    while True:
        seen = target.run(run)
        for task in seen.tasks:
            if known.get(task.name) != task.state:
                known[task.name] = task.state
                if task.state != "pending":
                    say(_transition(task))
        if seen.state in ENDED:
            return seen
        left = None if timeout_s is None else timeout_s - (time.monotonic() - began)
        if left is not None and left <= 0:
            remedy = f"it goes on: `tidemill runs show {run} --target …`, `tidemill runs cancel {run} --target …`"
            raise PlatformError(f"run {run}", f"did not end within {timeout_s:g} s", seen.state, remedy)
        time.sleep(poll_s if left is None else min(poll_s, left))


def as_json(run: RemoteRun) -> dict[str, Any]:
    """Returns what programs are told of a run."""
    came_to = verdict(run)
    return {
        **dataclasses.asdict(run),
        "verdict": came_to,
        "exit_code": None if came_to == "running" else exit_code(run),
    }


def show(run: RemoteRun) -> None:
    """Prints a run and its tasks."""
    out.print(run.id, style="bold", end="")
    out.print(f"  {run.state}  {moment(run.created)}  {run.name}")
    if run.url:
        out.print(run.url, soft_wrap=True)
    rows = [(t.name, t.state, moment(t.started), duration(_seconds(t.started, t.ended))) for t in run.tasks]
    print_table(("task", "state", "started (UTC)", "time"), rows, "no task has begun")
    for task in run.tasks:
        if task.error:
            out.print(f"{task.name}: {task.error}", soft_wrap=True)
    if run.error:
        out.print(run.error, soft_wrap=True)


def row(run: RemoteRun) -> tuple[str, ...]:
    """Returns a run as a line of `tidemill runs list`."""
    return (run.id, run.name, run.state, moment(run.created), duration(_seconds(run.created, run.ended)))


def moment(time_: datetime | None) -> str:
    """Returns a time in UTC as people read it."""
    return "–" if time_ is None else time_.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")


def _transition(task: RemoteTask) -> str:
    at = task.ended or task.started
    line = f"{at.astimezone(UTC):%H:%M:%S}" if at else " " * 8
    took = f" in {duration(_seconds(task.started, task.ended))}" if task.ended and task.started else ""
    told = f": {task.error.splitlines()[0]}" if task.error else ""
    return f"{line}  {task.name} {task.state}{took}{told}"


def _seconds(start: datetime | None, end: datetime | None) -> float | None:
    return None if start is None or end is None else (end - start).total_seconds()
